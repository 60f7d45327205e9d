//! Requests for certificates that nobody has approved.

use crate::{Context, Finding, ObjectRef};
use nightshift_model::FaultClass;
use std::time::Duration;

/// Time that an approver gets: the one in the controller manager answers at once. Times are whole seconds.
const ANSWER: Duration = Duration::from_secs(1);
/// Time that a signer gets after approval.
const SIGNING: Duration = Duration::from_secs(300);

/// Runs the checks.
pub(super) fn run(cx: &Context<'_>, out: &mut Vec<Finding>) {
    for csr in cx.world.csrs.iter() {
        let status = &csr.status;
        if status.certificate.is_some() || ["Denied", "Failed"].iter().any(|c| status.conditions.of(c).is_some()) {
            continue;
        }
        let object = ObjectRef::of("CertificateSigningRequest", &csr.metadata);
        let (signer, user) = (csr.spec.signer_name.as_str(), csr.spec.username.as_str());
        let made = csr.metadata.creation_timestamp;
        let node = user.strip_prefix("system:node:");
        let finding = match status.conditions.when("Approved", "True") {
            None if made.is_none_or(|at| cx.age(at) >= ANSWER) => Finding::new(
                FaultClass::CertificateSigningPending,
                object.clone(),
                format!("{object} waits for approval: {user} asks {signer} for a certificate"),
            )
            .because(object.clone(), format!("nobody has approved or denied the request of {user} to signer {signer}"))
            .fix(format!(
                "See who asks, then kubectl certificate approve {0} (or deny {0}); for nodes run a controller that approves",
                object.name
            ))
            .field(&object, "status.conditions", "none: neither Approved nor Denied")
            .since(made),
            Some(c) if c.last_transition_time.is_some_and(|at| cx.age(at) > SIGNING) => Finding::new(
                FaultClass::CertificateSigningPending,
                object.clone(),
                format!("{object} is approved, and signer {signer} has not signed it"),
            )
            .because(object.clone(), format!("the controller of signer {signer} does not act on the request"))
            .fix(format!("See that the controller of signer {signer} runs and may update certificatesigningrequests/status"))
            .field(&object, "status.certificate", "none")
            .since(c.last_transition_time),
            _ => continue,
        };
        out.push(match node {
            Some(name) => finding.hits(ObjectRef::new("Node", "", name)),
            None => finding,
        });
    }
}
