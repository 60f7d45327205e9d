//! TLS secrets: missing, broken, out of time, or for another host. The fault is told of what uses the secret.

use super::certificate::{self, Certificate};
use super::index::Net;
use crate::objects::Secret;
use crate::objects::text::span;
use crate::{Finding, Grade, Look, ObjectRef};
use nightshift_model::{FaultClass, Timestamp};
use std::collections::BTreeMap;
use std::time::Duration;

/// Longest that clocks may differ before a certificate that begins ahead is told.
const SKEW: Duration = Duration::from_secs(300);

/// One use of a secret.
struct Use {
    /// Who uses it: routes come before workloads.
    object: ObjectRef,
    rank: u8,
    /// The field that names it.
    path: String,
    /// Hosts that it must stand for.
    hosts: Vec<String>,
}

/// Checks the secrets of ingresses, gateways and workloads, and expired ones that nobody uses.
pub(super) fn run(net: &Net<'_>, out: &mut Vec<Finding>) {
    let world = net.cx.world;
    let mut uses: BTreeMap<(String, String), Vec<Use>> = BTreeMap::new();
    for ingress in world.ingresses.iter().filter(|i| i.metadata.deletion_timestamp.is_none()) {
        let object = ObjectRef::of("Ingress", &ingress.metadata);
        let rules: Vec<String> = ingress.spec.rules.iter().map(|r| r.host.clone()).filter(|h| !h.is_empty()).collect();
        for (i, tls) in ingress.spec.tls.iter().enumerate().filter(|(_, t)| !t.secret_name.is_empty()) {
            let alone = ingress.spec.tls.len() == 1;
            let hosts = if tls.hosts.is_empty() && alone { rules.clone() } else { tls.hosts.0.clone() };
            // Some controllers read `namespace/name`.
            let (namespace, name) =
                tls.secret_name.split_once('/').unwrap_or((ingress.metadata.namespace.as_str(), &tls.secret_name));
            let key = (namespace.to_owned(), name.to_owned());
            let path = format!("spec.tls[{i}].secretName");
            uses.entry(key).or_default().push(Use { object: object.clone(), rank: 0, path, hosts });
        }
    }
    for gateway in world.gateways.iter().filter(|g| g.metadata.deletion_timestamp.is_none()) {
        let object = ObjectRef::of("Gateway", &gateway.metadata);
        for listener in &gateway.spec.listeners {
            for secret in listener.tls.iter().flat_map(|t| t.certificate_refs.iter()) {
                if secret.kind.as_deref().unwrap_or("Secret") != "Secret" {
                    continue;
                }
                let namespace = secret.namespace.as_deref().unwrap_or(&gateway.metadata.namespace);
                let key = (namespace.to_owned(), secret.name.clone());
                let path = format!("spec.listeners[{}].tls.certificateRefs", listener.name);
                let hosts = if listener.hostname.is_empty() { Vec::new() } else { vec![listener.hostname.clone()] };
                uses.entry(key).or_default().push(Use { object: object.clone(), rank: 1, path, hosts });
            }
        }
    }
    for template in net.all_templates() {
        for volume in &template.spec.volumes {
            let own = volume.secret.iter().map(|s| s.secret_name.as_str());
            let parts = volume.projected.iter().flat_map(|p| p.sources.iter()).filter_map(|s| s.secret.as_ref());
            for name in own.chain(parts.map(|s| s.name.as_str())) {
                let key = (template.root.namespace.clone(), name.to_owned());
                let path = format!("spec.template.spec.volumes[{}].secret", volume.name);
                let object = template.root.clone();
                uses.entry(key).or_default().push(Use { object, rank: 2, path, hosts: Vec::new() });
            }
        }
    }
    for ((namespace, name), users) in &uses {
        let secret = ObjectRef::new("Secret", namespace.clone(), name.clone());
        match world.secrets.look(namespace, name) {
            // A workload without its secret is told by the checks of pods.
            Look::Missing => missing(net, &secret, users, out),
            Look::Found(found) => used(net, &secret, found, users, out),
            Look::Unseen => {}
        }
    }
    for secret in world.secrets.iter().filter(|s| s.certificate.is_some()) {
        let key = (secret.metadata.namespace.clone(), secret.metadata.name.clone());
        if !uses.contains_key(&key) {
            out.extend(unused(net, secret));
        }
    }
}

fn missing(net: &Net<'_>, secret: &ObjectRef, users: &[Use], out: &mut Vec<Finding>) {
    // Cert-manager says itself why it has not issued what it is to put there.
    let certificate =
        net.cx.world.customs("cert-manager.io", "Certificate").and_then(|table| {
            table.in_namespace(&secret.namespace).find(|c| c.spec_text("/secretName") == secret.name)
        });
    for user in users.iter().filter(|u| u.rank < 2) {
        let mut finding = Finding::new(
            FaultClass::TlsSecretInvalid,
            user.object.clone(),
            format!("{} takes its certificate from {secret}, which does not exist", user.object),
        )
        .because(secret.clone(), format!("{secret} does not exist"))
        .fix(format!(
            "Make it (kubectl -n {} create secret tls {} --cert=FILE --key=FILE), or correct {} of {}.",
            secret.namespace, secret.name, user.path, user.object
        ))
        .field(&user.object, &user.path, &secret.name);
        if let Some(certificate) = certificate {
            finding = finding.explained_by(ObjectRef::of("Certificate", &certificate.metadata));
            // While it is being issued the secret is on its way.
            if certificate.conditions().when("Ready", "True").is_none() {
                finding = finding.only_as_symptom();
            }
        }
        out.push(finding);
    }
}

fn used(net: &Net<'_>, secret: &ObjectRef, found: &Secret, users: &[Use], out: &mut Vec<Finding>) {
    let routed = users.iter().any(|u| u.rank < 2);
    if found.kind != "kubernetes.io/tls" && !routed {
        return;
    }
    let Some(first) = users.iter().min_by_key(|u| (u.rank, &u.object)) else { return };
    let trouble = broken(found)
        .map_or_else(|| found.certificate.as_ref().map_or(Ok(Vec::new()), |pem| certificate::read(pem)), Err);
    let mut finding = match trouble {
        Err(why) => Finding::new(
            FaultClass::TlsSecretInvalid,
            first.object.clone(),
            format!("{} uses {secret}, which is no usable certificate: {why}", first.object),
        )
        .because(secret.clone(), format!("{secret} is broken: {why}"))
        .fix(format!("Put a PEM certificate and its key into tls.crt and tls.key of {secret}."))
        .field(secret, "data[tls.crt]", &why),
        Ok(chain) => {
            let Some(leaf) = chain.first() else { return };
            let Some(late) = timely(net, secret, found, &chain, &first.object) else {
                for user in users {
                    out.extend(other_host(secret, leaf, user));
                }
                return;
            };
            late
        }
    };
    for user in users.iter().filter(|u| u.object != first.object) {
        finding = finding.hits(user.object.clone());
    }
    out.push(finding.field(&first.object, &first.path, &secret.name));
}

/// Keys that are not there, or are empty.
fn broken(secret: &Secret) -> Option<String> {
    ["tls.crt", "tls.key"].iter().find_map(|key| match secret.data.get(*key) {
        None => Some(format!("it has no key {key}")),
        Some(value) if value.size == 0 => Some(format!("its {key} is empty")),
        Some(_) => None,
    })
}

/// A certificate that is out of time, or soon will be.
fn timely(
    net: &Net<'_>,
    secret: &ObjectRef,
    found: &Secret,
    chain: &[Certificate],
    object: &ObjectRef,
) -> Option<Finding> {
    let (now, leaf) = (net.cx.now, chain.first()?);
    // An intermediate that has run out breaks the chain as well; a root beside it does not.
    let middle = chain.iter().skip(1).find(|c| leaf.issued_by(c) && !c.same(leaf) && !c.issued_by(c) && c.until <= now);
    let (which, certificate) = match middle {
        Some(middle) if leaf.until > now => ("the intermediate certificate", middle),
        _ => ("the certificate", leaf),
    };
    let until = certificate.until.to_rfc3339();
    let renew = |finding: Finding| {
        finding
            .fix(format!(
                "Renew the certificate for {} and put it into {secret} (kubectl -n {} create secret tls {} --cert=FILE \
                 --key=FILE --dry-run=client -o yaml | kubectl apply -f -); look at who should renew it.",
                leaf.stands_for(),
                secret.namespace,
                secret.name
            ))
            .field(secret, "data[tls.crt].notAfter", &until)
    };
    if certificate.until <= now {
        let ago = span(now.since(certificate.until));
        return Some(renew(
            Finding::new(
                FaultClass::CertificateExpiry,
                object.clone(),
                format!("{which} in {secret} expired {ago} ago"),
            )
            .because(secret.clone(), format!("{which} for {} ended at {until}", leaf.stands_for()))
            .since(Some(certificate.until)),
        ));
    }
    if leaf.from > now + SKEW {
        let from = leaf.from.to_rfc3339();
        return Some(
            Finding::new(
                FaultClass::TlsSecretInvalid,
                object.clone(),
                format!("the certificate in {secret} is not valid yet: it begins in {}", span(leaf.from.since(now))),
            )
            .because(secret.clone(), format!("the certificate is valid from {from}"))
            .fix(format!("Put a certificate into {secret} that is valid now, and look at the clock of who issued it."))
            .field(secret, "data[tls.crt].notBefore", &from),
        );
    }
    let left = leaf.until.since(now);
    // Who renews by itself does so in the last third of its time.
    let managed = found.metadata.annotations.iter().any(|(n, _)| n.starts_with("cert-manager.io/"))
        || found.metadata.labels.iter().any(|(n, _)| n.contains("cert-manager.io/"));
    let warning = net.cx.options.certificate_warning;
    let warning = if managed { warning.min(leaf.until.since(leaf.from) / 4) } else { warning };
    (left < warning).then(|| {
        renew(
            Finding::new(
                FaultClass::CertificateExpiry,
                object.clone(),
                format!("the certificate in {secret} expires in {}", span(left)),
            )
            .because(secret.clone(), format!("the certificate for {} ends at {until}", leaf.stands_for()))
            .graded(Grade::Medium),
        )
    })
}

fn other_host(secret: &ObjectRef, leaf: &Certificate, user: &Use) -> Option<Finding> {
    let host = user.hosts.iter().find(|h| !leaf.covers(h))?;
    let names = leaf.stands_for();
    Some(
        Finding::new(
            FaultClass::TlsSecretInvalid,
            user.object.clone(),
            format!("{} serves {host} with a certificate that is for {names}", user.object),
        )
        .because(secret.clone(), format!("the certificate in {secret} is for {names}, not for {host}"))
        .fix(format!(
            "Put a certificate for {host} into {secret}, or name another secret for that host in {}.",
            user.object
        ))
        .field(&user.object, &user.path, &secret.name)
        .field(secret, "data[tls.crt].subjectAltName", &names),
    )
}

/// An expired certificate that nothing seen here uses: something may read it all the same.
fn unused(net: &Net<'_>, secret: &Secret) -> Option<Finding> {
    let chain = certificate::read(secret.certificate.as_ref()?).ok()?;
    let object = ObjectRef::of("Secret", &secret.metadata);
    let expired = chain.first().is_some_and(|c| c.until <= net.cx.now);
    let finding = timely(net, &object, secret, &chain, &object).filter(|f| f.fault == FaultClass::CertificateExpiry)?;
    Some(finding.graded(if expired { Grade::Medium } else { Grade::Low }))
}

/// Whether a moment lies in the validity of a certificate.
pub(super) fn valid_at(certificate: &Certificate, at: Timestamp) -> bool {
    certificate.from <= at + SKEW && at < certificate.until
}
