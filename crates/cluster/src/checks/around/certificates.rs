//! cert-manager: certificates that are not issued, and the issuers that keep them waiting.

use super::{all, named, outdated, words};
use crate::objects::Custom;
use crate::{Context, Finding, ObjectRef};
use nightshift_model::FaultClass;
use serde_json::Value;
use std::time::Duration;

const GROUP: &str = "cert-manager.io";
/// An issuance that is under way and has not failed may take this long.
const UNDER_WAY: Duration = Duration::from_secs(120);

/// Runs the checks of cert-manager.
pub(super) fn run(cx: &Context<'_>, out: &mut Vec<Finding>) {
    for issuer in all(cx, GROUP, "Issuer").chain(all(cx, GROUP, "ClusterIssuer")) {
        let conditions = issuer.conditions();
        let Some(said) = conditions.when("Ready", "False").filter(|c| !outdated(issuer, c)) else { continue };
        let object = named(issuer);
        out.push(
            Finding::new(
                FaultClass::CertificateNotIssued,
                object.clone(),
                format!("{} {} is not ready", issuer.kind, issuer.metadata.name),
            )
            .because(object.clone(), words(said))
            .fix("Mend what the message names: the account, its key, or the address of the authority.")
            .field(&object, "status.conditions[Ready].message", words(said))
            .since(said.last_transition_time),
        );
    }
    for certificate in all(cx, GROUP, "Certificate") {
        out.extend(not_issued(cx, certificate));
    }
}

fn not_issued(cx: &Context<'_>, certificate: &Custom) -> Option<Finding> {
    let conditions = certificate.conditions();
    let said = conditions.when("Ready", "False").filter(|c| !outdated(certificate, c))?;
    let (namespace, name) = (certificate.metadata.namespace.as_str(), certificate.metadata.name.as_str());
    let object = named(certificate);
    let failures = certificate.status.get("failedIssuanceAttempts").and_then(Value::as_i64).unwrap_or(0);
    let secret = certificate.spec_text("/secretName");
    let mut finding =
        Finding::new(FaultClass::CertificateNotIssued, object.clone(), format!("Certificate {name} is not issued"))
            .because(object.clone(), words(said))
            .fix(format!("See what its newest request ran into: kubectl describe certificaterequest -n {namespace}."))
            .field(&object, "status.conditions[Ready].message", words(said))
            .since(said.last_transition_time);
    if !secret.is_empty() {
        finding = finding.hits(ObjectRef::new("Secret", namespace, secret));
    }
    let kind = certificate.spec_text("/issuerRef/kind");
    let issuer = match kind {
        "ClusterIssuer" => ObjectRef::new("ClusterIssuer", "", certificate.spec_text("/issuerRef/name")),
        "" | "Issuer" => ObjectRef::new("Issuer", namespace, certificate.spec_text("/issuerRef/name")),
        other => ObjectRef::new(other, namespace, certificate.spec_text("/issuerRef/name")),
    };
    let mut certain = failures > 0 || certificate.status.get("lastFailureTime").is_some_and(|t| !t.is_null());
    if cx.world.customs(GROUP, &issuer.kind).is_some_and(|t| t.look(&issuer.namespace, &issuer.name).is_missing()) {
        finding = finding
            .because(issuer.clone(), format!("{issuer} does not exist"))
            .fix(format!("Make {issuer}, or name another in spec.issuerRef of Certificate {name}."));
        certain = true;
    }
    for request in cx.world.customs(GROUP, "CertificateRequest").into_iter().flat_map(|t| t.in_namespace(namespace)) {
        let ours = request.metadata.annotations.get("cert-manager.io/certificate-name") == Some(name)
            || request.metadata.owner_references.iter().any(|o| o.kind == "Certificate" && o.name == name);
        let conditions = request.conditions();
        let Some(failed) =
            conditions.when("Ready", "False").filter(|c| matches!(c.reason.as_str(), "Failed" | "Denied"))
        else {
            continue;
        };
        if ours {
            let of = named(request);
            finding = finding.field(&of, "status.conditions[Ready].message", words(failed)).because(of, words(failed));
            certain = true;
        }
    }
    // A new certificate is being issued: not ready yet is how that looks.
    let fresh = said.last_transition_time.is_some_and(|at| cx.age(at) < UNDER_WAY);
    if !certain && fresh && conditions.when("Issuing", "True").is_some() {
        return None;
    }
    Some(finding.explained_by(issuer))
}
