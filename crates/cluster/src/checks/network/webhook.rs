//! Admission webhooks: nobody answers, the certificate does not fit, or they are too slow and block what they are asked.

use super::backend::{self, Behind, behind};
use super::certificate::{self, Certificate};
use super::index::{Net, is_live};
use super::tls::valid_at;
use crate::objects::text::{alike, span};
use crate::objects::{Event, Webhook, WebhookClient, WebhookConfiguration, WebhookService};
use crate::{Finding, Grade, Look, ObjectRef};
use base64::Engine as _;
use nightshift_model::FaultClass;
use std::collections::BTreeMap;

/// What events say before the name of a webhook that failed.
const FAILED: &str = "failed calling webhook \"";
/// Objects that are told as hit by one webhook at most.
const HITS_MAX: usize = 20;

/// Checks every webhook.
pub(super) fn run(net: &Net<'_>, out: &mut Vec<Finding>) {
    let world = net.cx.world;
    let failures = failures(net);
    for (kind, table) in [
        ("MutatingWebhookConfiguration", &world.mutating_webhooks),
        ("ValidatingWebhookConfiguration", &world.validating_webhooks),
    ] {
        for configuration in table.iter() {
            check(net, kind, configuration, &failures, out);
        }
    }
}

fn check(
    net: &Net<'_>,
    kind: &str,
    configuration: &WebhookConfiguration,
    failures: &BTreeMap<&str, Vec<&Event>>,
    out: &mut Vec<Finding>,
) {
    let object = ObjectRef::of(kind, &configuration.metadata);
    for hook in &configuration.webhooks {
        let events = failures.get(hook.name.as_str()).map_or(&[][..], Vec::as_slice);
        let found = service(net, &object, hook)
            .or_else(|| trust(net, &object, hook))
            .or_else(|| events.last().map(|event| failing(&object, hook, event)));
        let Some(mut finding) = found else { continue };
        if hook.failure_policy == "Ignore" {
            finding = finding.graded(Grade::Medium);
        }
        for event in events.iter().rev().take(HITS_MAX) {
            let root = root_of(net, event);
            finding = finding.event(event).hits(root.clone()).explains(root);
        }
        out.push(finding.field(&object, &format!("webhooks[{}].failurePolicy", hook.name), policy(hook)));
    }
}

fn policy(hook: &Webhook) -> &str {
    if hook.failure_policy.is_empty() { "Fail" } else { &hook.failure_policy }
}

/// What a webhook that does not answer does to what it is asked.
fn effect(hook: &Webhook) -> String {
    let what: Vec<String> = hook
        .rules
        .iter()
        .map(|r| {
            let operations = r.operations.join("/");
            let all = r.operations.iter().any(|o| o == "*");
            format!("{} of {}", if all { "every change" } else { &operations }, r.resources.join(", "))
        })
        .take(3)
        .collect();
    let what = if what.is_empty() { "what it is asked".to_owned() } else { what.join("; ") };
    if policy(hook) == "Ignore" { format!("{what} goes unchecked") } else { format!("{what} is refused") }
}

/// Events that tell of failing webhooks, by the webhook's name, oldest first.
fn failures<'a>(net: &Net<'a>) -> BTreeMap<&'a str, Vec<&'a Event>> {
    let mut all: BTreeMap<&str, Vec<&Event>> = BTreeMap::new();
    for event in net.cx.world.events.iter().filter(|e| e.kind != "Normal") {
        // Of nested failures the innermost call names the webhook last.
        if let Some((_, rest)) = event.message.rsplit_once(FAILED)
            && let Some((name, _)) = rest.split_once('"')
        {
            all.entry(name).or_default().push(event);
        }
    }
    for events in all.values_mut() {
        events.sort_by_key(|e| (e.last_seen(), &e.metadata.namespace, &e.metadata.name));
    }
    all
}

fn root_of(net: &Net<'_>, event: &Event) -> ObjectRef {
    let about = &event.involved_object;
    let resource = crate::Resource::ALL.iter().copied().find(|r| r.kind() == about.kind);
    match resource.and_then(|r| net.cx.world.meta(r, &about.namespace, &about.name)) {
        Some(meta) => net.cx.root_of(&about.kind, meta),
        None => ObjectRef::new(about.kind.clone(), about.namespace.clone(), about.name.clone()),
    }
}

/// Its service: not there, without the port, or with nobody behind it.
fn service(net: &Net<'_>, object: &ObjectRef, hook: &Webhook) -> Option<Finding> {
    let wanted = hook.client_config.service.as_ref()?;
    let name = ObjectRef::new("Service", wanted.namespace.clone(), wanted.name.clone());
    let path = format!("webhooks[{}].clientConfig.service", hook.name);
    let place = format!("{}/{}:{}", wanted.namespace, wanted.name, wanted.port.unwrap_or(443));
    let effect = effect(hook);
    let broken =
        |summary: String| Finding::new(FaultClass::WebhookBroken, object.clone(), summary).field(object, &path, &place);
    let found = match behind(net, &wanted.namespace, &wanted.name) {
        Behind::Missing => {
            let near =
                net.cx.world.services.in_namespace(&wanted.namespace).find(|s| alike(&s.metadata.name, &wanted.name));
            let fix = match near {
                Some(near) => {
                    format!("Set the service of webhook {} to {}, or make {name}.", hook.name, near.metadata.name)
                }
                None => format!(
                    "Install what serves webhook {} again, or delete {object}: kubectl delete {} {}.",
                    hook.name,
                    object.kind.to_ascii_lowercase(),
                    object.name
                ),
            };
            return Some(
                broken(format!("webhook {} calls {name}, which does not exist: {effect}", hook.name))
                    .because(name.clone(), format!("{name} does not exist"))
                    .fix(fix),
            );
        }
        Behind::Unseen => match net.cx.world.services.look(&wanted.namespace, &wanted.name) {
            Look::Found(service) => service,
            _ => return None,
        },
        Behind::Elsewhere(service) | Behind::Serving(service) => service,
        Behind::Nobody { service, roots, starting, zero } => {
            let why = match (&zero, roots.first()) {
                (Some(root), _) => format!("{root} is scaled to zero"),
                (None, Some(root)) => format!("no pod of {root} is ready"),
                (None, None) => format!("the selector of {name} matches no pod"),
            };
            let cause = zero.clone().or_else(|| roots.first().cloned()).unwrap_or_else(|| name.clone());
            let mut finding = broken(format!("webhook {} has no running backend: {effect}", hook.name))
                .because(cause.clone(), why)
                .fix(format!(
                    "Bring back the pods behind {name}; until then set failurePolicy of webhook {} to Ignore or delete {object} if creation must go on.",
                    hook.name
                ))
                .field(&name, "spec.selector", service.spec.selector.to_string())
                .explained_by(name.clone());
            for root in roots {
                finding = finding.explained_by(root);
            }
            // Pods on their way need no finding; their workload tells when they never come.
            return Some(if starting { finding.only_as_symptom() } else { finding });
        }
    };
    let port = wanted.port.unwrap_or(443);
    if found.spec.kind == "ExternalName" || found.spec.ports.iter().any(|p| p.port == port) {
        return None;
    }
    let has = backend::ports(found);
    Some(
        broken(format!("webhook {} calls port {port} of {name}, which does not have it: {effect}", hook.name))
            .because(name.clone(), format!("{name} has {has}, not {port}"))
            .fix(format!("Set the port of webhook {} to {has}, or add port {port} to {name}.", hook.name))
            .field(&name, "spec.ports", &has),
    )
}

/// The certificates that a webhook trusts: unreadable, out of time, or not those of who answers.
fn trust(net: &Net<'_>, object: &ObjectRef, hook: &Webhook) -> Option<Finding> {
    let path = format!("webhooks[{}].clientConfig.caBundle", hook.name);
    let effect = effect(hook);
    let told = |summary: String, why: String, fix: String| {
        let cause = object.clone();
        Finding::new(FaultClass::WebhookBroken, object.clone(), format!("webhook {}: {summary}: {effect}", hook.name))
            .because(cause, why.clone())
            .fix(fix)
            .field(object, &path, why)
    };
    let bundle = match bundle(&hook.client_config)? {
        Ok(bundle) => bundle,
        Err(why) => {
            return Some(told(
                "its caBundle cannot be read".to_owned(),
                why,
                format!(
                    "Put the PEM certificate of who signed the webhook's certificate into caBundle of webhook {}.",
                    hook.name
                ),
            ));
        }
    };
    if bundle.iter().all(|c| !valid_at(c, net.cx.now)) {
        let last = bundle.iter().max_by_key(|c| c.until)?;
        let when = if last.until <= net.cx.now {
            format!("expired {} ago", span(net.cx.now.since(last.until)))
        } else {
            format!("begins in {}", span(last.from.since(net.cx.now)))
        };
        return Some(told(
            format!("the authority that it trusts {when}"),
            format!("every certificate in caBundle is out of time; the last one {when}"),
            format!(
                "Renew the authority and its certificates, and put the new one into caBundle of webhook {}.",
                hook.name
            ),
        ));
    }
    let wanted = hook.client_config.service.as_ref()?;
    let (secret, chain) = serving(net, wanted)?;
    let leaf = chain.first()?;
    let host = format!("{}.{}.svc", wanted.name, wanted.namespace);
    if !leaf.covers(&host) {
        let names = leaf.stands_for();
        return Some(
            told(
                format!("the certificate of its backend is for {names}"),
                format!("the API server asks for {host}, and the certificate in {secret} is for {names}"),
                format!("Issue a certificate for {host} and put it into {secret}."),
            )
            .because(secret.clone(), format!("the certificate in {secret} is for {names}, not for {host}"))
            .field(&secret, "data[tls.crt].subjectAltName", &names),
        );
    }
    let trusted = chain.iter().any(|c| bundle.iter().any(|b| c.same(b) || c.issued_by(b)));
    (!trusted).then(|| {
        told(
            format!("it does not trust the certificate of its backend ({secret})"),
            format!("caBundle does not hold {}, who issued the certificate in {secret}", leaf.issuer),
            format!("Put the certificate of {} into caBundle of webhook {}, or issue the backend's certificate by who is in it.", leaf.issuer, hook.name),
        )
        .field(&secret, "data[tls.crt].issuer", &leaf.issuer)
    })
}

/// The certificates in a bundle; `None` when there is none.
fn bundle(client: &WebhookClient) -> Option<Result<Vec<Certificate>, String>> {
    let text = client.ca_bundle.as_deref().filter(|t| !t.trim().is_empty())?;
    let Ok(pem) = base64::engine::general_purpose::STANDARD.decode(text) else {
        return Some(Err("caBundle is no base64".to_owned()));
    };
    // A line break alone is what stands there until somebody puts the authority in.
    if pem.iter().all(u8::is_ascii_whitespace) {
        return None;
    }
    Some(certificate::read(&pem).map_err(|why| format!("caBundle: {why}")))
}

/// The one TLS secret that the pods behind a service mount, with its certificates.
fn serving(net: &Net<'_>, wanted: &WebhookService) -> Option<(ObjectRef, Vec<Certificate>)> {
    let service = net.cx.world.services.get(&wanted.namespace, &wanted.name)?;
    let pods = net.pods(&wanted.namespace, &service.spec.selector);
    let pod = pods.iter().find(|p| is_live(p))?;
    let mut names = pod.spec.volumes.iter().filter_map(|v| v.secret.as_ref()).map(|s| s.secret_name.as_str());
    let secret =
        |name: &str| net.cx.world.secrets.get(&wanted.namespace, name).filter(|s| s.kind == "kubernetes.io/tls");
    let found = names.by_ref().find_map(secret)?;
    // With two of them it cannot be told which one answers.
    if names.find_map(secret).is_some() {
        return None;
    }
    let chain = certificate::read(found.certificate.as_ref()?).ok()?;
    Some((ObjectRef::of("Secret", &found.metadata), chain))
}

/// Events say that calls fail, while the objects show nothing.
fn failing(object: &ObjectRef, hook: &Webhook, event: &Event) -> Finding {
    let message = event.message.to_ascii_lowercase();
    let secs = hook.timeout_seconds.unwrap_or(10);
    let (why, fix) = if message.contains("x509") || message.contains("certificate") || message.contains("tls:") {
        (
            "the API server does not accept the certificate of its backend".to_owned(),
            format!(
                "Put the authority of the backend's certificate into caBundle of webhook {}, or renew the certificate for the host that the API server asks for.",
                hook.name
            ),
        )
    } else if message.contains("deadline exceeded") || message.contains("timeout") {
        (
            format!("its backend does not answer within {secs} s"),
            format!(
                "Look at what slows the backend of webhook {}; exempt namespaces that it need not see, and set failurePolicy to Ignore if creation must go on.",
                hook.name
            ),
        )
    } else if message.contains("connection refused") || message.contains("no endpoints") {
        ("nobody listens at its backend".to_owned(), format!("Bring back the backend of webhook {}.", hook.name))
    } else if message.contains("not found") || message.contains("no such host") {
        (
            "its backend does not exist".to_owned(),
            format!("Install the backend of webhook {} again, or delete {object}.", hook.name),
        )
    } else {
        ("calls to its backend fail".to_owned(), format!("Look at the backend of webhook {} and its logs.", hook.name))
    };
    Finding::new(
        FaultClass::WebhookBroken,
        object.clone(),
        format!("webhook {} fails: {why}; {}", hook.name, effect(hook)),
    )
    .because(object.clone(), why)
    .fix(fix)
    .since(event.first_seen())
    .event(event)
}
