//! Images: what cannot be pulled and why, the wrong processor, slow pulls.

use super::facts::{Part, Subject};
use super::text::{quote, some, span};
use super::{Trouble, Weight, change};
use crate::{Finding, Grade, ObjectRef};
use nightshift_model::FaultClass;
use std::time::Duration;

/// Why an image is not there.
#[derive(Debug, PartialEq, Eq, Clone, Copy)]
enum Pull {
    Name,
    Never,
    RateLimit,
    Denied,
    NotFound,
    Platform,
    Host,
    Network,
    Certificate,
    Disk,
    Signature,
    Unknown,
}

fn kind(reason: &str, text: &str) -> Pull {
    let low = text.to_ascii_lowercase();
    let has = |any: &[&str]| any.iter().any(|w| low.contains(w));
    match reason {
        "InvalidImageName" => return Pull::Name,
        "ErrImageNeverPull" => return Pull::Never,
        "SignatureValidationFailed" => return Pull::Signature,
        _ => {}
    }
    if has(&["invalidimagename", "invalid reference format", "couldn't parse image"]) {
        Pull::Name
    } else if has(&["toomanyrequests", "too many requests", "rate limit"]) {
        Pull::RateLimit
    } else if has(&[
        "no match for platform",
        "no matching manifest for",
        "image operating system",
        "does not match the specified platform",
    ]) {
        Pull::Platform
    } else if has(&[
        "unauthorized",
        "authentication required",
        "denied",
        "no basic auth",
        "forbidden",
        "authorization failed",
        "insufficient_scope",
        "credentials",
    ]) {
        Pull::Denied
    } else if has(&["no such host", "name resolution"]) {
        Pull::Host
    } else if has(&["not found", "manifest unknown", "notfound", "name unknown", "does not exist"]) {
        Pull::NotFound
    } else if has(&["x509", "certificate", "server gave http response"]) {
        Pull::Certificate
    } else if has(&["no space left"]) {
        Pull::Disk
    } else if has(&[
        "timeout",
        "connection refused",
        "dial tcp",
        "deadline exceeded",
        "unexpected eof",
        "connection reset",
        "service unavailable",
        "bad gateway",
        "internal server error",
    ]) {
        Pull::Network
    } else {
        Pull::Unknown
    }
}

/// The finding about an image that cannot be pulled.
pub(super) fn pull(subject: &Subject<'_>, part: Part<'_>) -> Finding {
    let (reason, message) = part.waits();
    let image = part.spec.image.as_str();
    // The wait names the back-off only; the event before it says why.
    let about = |e: &&&crate::objects::Event| {
        let ours = e.involved_object.field_path.is_empty()
            || e.involved_object.field_path.contains(&format!("{{{}}}", part.name()));
        ours && matches!(e.reason.as_str(), "Failed" | "ErrImageNeverPull" | "InspectFailed")
            && e.message.contains("ull")
    };
    let events = || subject.events().iter().rev().filter(about);
    let event = events().find(|e| kind(reason, &e.message) != Pull::Unknown).or_else(|| events().next());
    let own = kind(reason, message);
    let kind = if own == Pull::Unknown { event.map_or(own, |e| kind(reason, &e.message)) } else { own };
    let (why, fix) = explain(subject, kind, image, message);
    let mut finding = subject
        .draft(FaultClass::ImagePullFailure, format!("Image {image} of {} cannot be pulled: {why}", part.called()))
        .because(subject.root.clone(), why.clone())
        .fix(fix);
    if kind == Pull::Platform {
        finding = architecture(subject, part, message);
    }
    if matches!(kind, Pull::Denied | Pull::NotFound | Pull::Unknown) {
        finding = with_pull_secrets(subject, part, finding, kind);
    }
    if let Some(change) = change::of(subject.cx, subject.root)
        && let Some((_, old, _)) = change.images.iter().find(|(c, _, new)| c == part.name() && new == image)
    {
        let object = finding.cause.object.clone();
        let why = format!("{}; {}", finding.cause.why, change.told);
        let fix = format!(
            "{} Image {old} ran before: kubectl rollout undo {} goes back to it.",
            finding.fix,
            subject.target()
        );
        finding = finding.because(object, why).fix(fix).since(change.at);
    }
    if let Some(node) = subject.node().filter(|_| kind == Pull::Disk) {
        let node = ObjectRef::of("Node", &node.metadata);
        finding = finding.because(node.clone(), why).explained_by(node);
    }
    finding = part.told_wait(subject, finding).field(&subject.me, &part.spec_path("image"), image);
    match event {
        Some(event) => finding.event(event),
        None => finding,
    }
}

fn explain(subject: &Subject<'_>, kind: Pull, image: &str, message: &str) -> (String, String) {
    let target = subject.target();
    let registry = registry(image);
    match kind {
        Pull::Name => (
            format!("`{image}` is not a valid image name"),
            format!("Correct the image in {target}: registry/repository:tag, in lower case, without a scheme."),
        ),
        Pull::Never => (
            "its pull policy is Never, and the image is not on the node".into(),
            format!("Set imagePullPolicy in {target} to IfNotPresent, or load {image} onto every node."),
        ),
        Pull::RateLimit => (
            format!("{registry} limits how often images are pulled, and the limit is reached"),
            format!(
                "Pull with credentials (imagePullSecrets in {target}), or from a mirror or cache of {registry}; it goes on by itself when the limit is lifted."
            ),
        ),
        Pull::Denied => (
            format!("{registry} refuses access to it"),
            format!(
                "Give {target} credentials for {registry} (imagePullSecrets), or check that the repository's name is right."
            ),
        ),
        Pull::NotFound => (
            format!("{registry} has no such {}", if tag(image).is_some() { "tag or repository" } else { "repository" }),
            format!("Push {image}, or correct the image in {target}."),
        ),
        Pull::Platform => ("it is not built for the node's processor".into(), String::new()),
        Pull::Host => (
            format!("the name of registry {registry} does not resolve"),
            format!("Correct the registry in the image of {target}, or the node's name servers."),
        ),
        Pull::Network => (
            format!("registry {registry} cannot be reached"),
            format!("Check that nodes reach {registry} (proxy, firewall, is it up?); {target} itself need not change."),
        ),
        Pull::Certificate => (
            format!("the certificate of registry {registry} is not trusted, or it speaks plain HTTP"),
            format!("Let the nodes trust the authority of {registry}, or use a registry with a valid certificate."),
        ),
        Pull::Disk => (
            "the node has no disk left for it".into(),
            "Free disk on the node (unused images and logs), or give it more.".into(),
        ),
        Pull::Signature => (
            "its signature is missing or not valid".into(),
            format!("Sign {image}, or use a signed image in {target}."),
        ),
        Pull::Unknown => {
            let said = if message.is_empty() { "the kubelet does not say why".into() } else { quote(message) };
            (
                said,
                format!(
                    "Check that {image} exists and that its registry allows the cluster to pull it, then correct {target}."
                ),
            )
        }
    }
}

fn with_pull_secrets(subject: &Subject<'_>, part: Part<'_>, finding: Finding, kind: Pull) -> Finding {
    let (world, namespace, spec) = (subject.cx.world, subject.namespace(), &subject.pod.spec);
    let account = if spec.service_account_name.is_empty() { "default" } else { &spec.service_account_name };
    let of_account =
        world.service_accounts.get(namespace, account).into_iter().flat_map(|a| a.image_pull_secrets.iter());
    let names: Vec<&str> =
        spec.image_pull_secrets.iter().chain(of_account).map(|s| s.name.as_str()).filter(|n| !n.is_empty()).collect();
    let missing: Vec<&str> = names.iter().copied().filter(|n| world.secrets.look(namespace, n).is_missing()).collect();
    let said = subject.newest(&["FailedToRetrieveImagePullSecret"], None);
    let registry = registry(&part.spec.image);
    if let Some(first) = missing.first().filter(|_| kind != Pull::NotFound || said.is_some()) {
        let secret = ObjectRef::new("Secret", namespace, *first);
        let why = format!("Pull secret {} does not exist in namespace {namespace}", some(missing.iter().copied()));
        let mut told = subject
            .draft(FaultClass::PullSecretMissing, format!("Image {} of {} cannot be pulled: pull secret {first} does not exist", part.spec.image, part.called()))
            .because(secret, why)
            .fix(format!("Create it (kubectl create secret docker-registry {first} -n {namespace} --docker-server={registry} …), or correct imagePullSecrets of {}.", subject.target()))
            .field(&subject.me, "spec.imagePullSecrets", names.join(", "));
        if let Some(event) = said {
            told = told.event(event);
        }
        return told;
    }
    if kind != Pull::Denied {
        return finding;
    }
    match names.as_slice() {
        [] => {
            let why = format!(
                "{registry} refuses access to it, and no pull secret is named in the pod or its service account"
            );
            finding
                .because(subject.root.clone(), why)
                .fix(format!("If the repository is private, create a docker-registry secret for {registry} and name it in imagePullSecrets of {}; else correct the image's name.", subject.target()))
                .field(&subject.me, "spec.imagePullSecrets", "none")
        }
        [first, ..] => {
            let why = format!(
                "{registry} refuses the credentials of pull secret {}: they are wrong, expired or for another registry",
                names.join(", ")
            );
            finding
                .because(ObjectRef::new("Secret", namespace, *first), why)
                .fix(format!("Renew pull secret {first} in namespace {namespace} with credentials that may pull {}, then restart the pods of {}.", part.spec.image, subject.target()))
                .field(&subject.me, "spec.imagePullSecrets", names.join(", "))
        }
    }
}

/// The finding about an image for another processor.
pub(super) fn architecture(subject: &Subject<'_>, part: Part<'_>, text: &str) -> Finding {
    let node = subject.node();
    let processor = node.map_or("", |n| n.status.node_info.architecture.as_str());
    let here = if processor.is_empty() {
        "the node's processor".to_owned()
    } else {
        format!("{processor}, the processor of node {}", subject.pod.spec.node_name)
    };
    let why = format!("Image {} is not built for {here}", part.spec.image);
    let finding = subject
        .draft(FaultClass::ImageArchitecture, format!("{} cannot run: its image is for another processor", part.called()))
        .because(subject.root.clone(), why)
        .fix(format!("Build the image for every architecture of the nodes, or keep {} on nodes that it fits (nodeSelector kubernetes.io/arch).", subject.target()));
    let finding = match node.filter(|_| !processor.is_empty()) {
        Some(n) => finding.field(&ObjectRef::of("Node", &n.metadata), "status.nodeInfo.architecture", processor),
        None => finding,
    };
    if text.is_empty() { finding } else { finding.field(&subject.me, &part.path("message"), quote(text)) }
}

/// A pull that takes longer than this is told of: images of some hundred MiB take well under it.
const SLOW: Duration = Duration::from_secs(120);

/// Images that took long to pull: informational.
pub(super) fn slow(subject: &Subject<'_>, out: &mut Vec<Trouble>) {
    for event in subject.events().iter().filter(|e| e.reason == "Pulled") {
        let Some(took) = event.message.split(" in ").nth(1).and_then(|t| go_duration(t.split_whitespace().next()?))
        else {
            continue;
        };
        if took < SLOW {
            continue;
        }
        let image = super::text::between(&event.message, "image \"", "\"").unwrap_or("?");
        let size =
            event.message.split("Image size: ").nth(1).and_then(|s| s.split_whitespace().next()?.parse::<f64>().ok());
        let size = size.map(|s| format!(" of {}", super::text::bytes(s))).unwrap_or_default();
        let summary = format!("Image {image}{size} took {} to pull", span(took));
        let finding = subject
            .draft(FaultClass::SlowImagePull, summary)
            .graded(Grade::Info)
            .fix(format!(
                "Make {image} smaller, or pull it before it is needed; a registry or cache near the nodes helps too."
            ))
            .event(event);
        out.push(Trouble::new(Weight::Exact, "", finding));
        return;
    }
    let waits = subject.parts().any(|p| matches!(p.waits().0, "ContainerCreating" | "PodInitializing"));
    let newest = subject
        .events()
        .iter()
        .rev()
        .find(|e| matches!(e.reason.as_str(), "Pulling" | "Pulled" | "Failed" | "Started"));
    let Some(event) = newest.filter(|e| waits && e.reason == "Pulling") else { return };
    let Some(took) = event.last_seen().map(|t| subject.age(t)).filter(|t| *t >= SLOW) else { return };
    let finding = subject
        .draft(FaultClass::SlowImagePull, format!("An image is being pulled for {} now: {}", span(took), event.message))
        .graded(Grade::Info)
        .fix("Wait for it, and make the image smaller or pull it before it is needed.".to_owned())
        .event(event);
    out.push(Trouble::new(Weight::Exact, "", finding));
}

/// `1m35.5s`, `4.2s`, `850ms`, `2h3m`.
fn go_duration(text: &str) -> Option<Duration> {
    let (mut total, mut number, mut unit) = (0.0, String::new(), String::new());
    let mut add = |number: &mut String, unit: &mut String| -> Option<()> {
        let n: f64 = number.parse().ok()?;
        let scale = match unit.as_str() {
            "h" => 3600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 1e-3,
            "us" | "µs" => 1e-6,
            _ => return None,
        };
        total += n * scale;
        number.clear();
        unit.clear();
        Some(())
    };
    for c in text.trim_end_matches(['.', ',', ')']).chars() {
        if c.is_ascii_digit() || c == '.' {
            if !unit.is_empty() {
                add(&mut number, &mut unit)?;
            }
            number.push(c);
        } else {
            unit.push(c);
        }
    }
    add(&mut number, &mut unit)?;
    Duration::try_from_secs_f64(total).ok()
}

/// The registry of an image.
fn registry(image: &str) -> &str {
    match image.split_once('/') {
        Some((host, _)) if host.contains(['.', ':']) || host == "localhost" => host,
        _ => "docker.io",
    }
}

/// The tag of an image.
fn tag(image: &str) -> Option<&str> {
    let last = image.rsplit('/').next().unwrap_or(image);
    last.split('@').next().unwrap_or(last).split_once(':').map(|(_, t)| t)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_told_apart() {
        for (text, want) in [
            (
                "failed to pull and unpack image \"docker.io/library/web:nope\": failed to resolve reference: docker.io/library/web:nope: not found",
                Pull::NotFound,
            ),
            ("manifest for web:9 not found: manifest unknown", Pull::NotFound),
            ("pull access denied for x, repository does not exist or may require 'docker login'", Pull::Denied),
            ("unexpected status: 401 Unauthorized", Pull::Denied),
            ("toomanyrequests: You have reached your pull rate limit", Pull::RateLimit),
            ("no match for platform in manifest: not found", Pull::Platform),
            ("dial tcp: lookup reg.invalid: no such host", Pull::Host),
            ("dial tcp 10.0.0.1:443: i/o timeout", Pull::Network),
            ("x509: certificate signed by unknown authority", Pull::Certificate),
            ("Back-off pulling image \"x\"", Pull::Unknown),
        ] {
            assert_eq!(kind("ErrImagePull", text), want, "{text}");
        }
        assert_eq!(kind("InvalidImageName", ""), Pull::Name);
    }

    #[test]
    fn durations_and_names_are_read() {
        assert_eq!(go_duration("1m35.5s"), Some(Duration::from_millis(95_500)));
        assert_eq!(go_duration("850ms"), Some(Duration::from_millis(850)));
        assert_eq!((go_duration("soon"), go_duration("")), (None, None));
        assert_eq!(
            (registry("ghcr.io/a/b:1"), registry("library/web"), registry("web:1")),
            ("ghcr.io", "docker.io", "docker.io")
        );
        assert_eq!((tag("localhost:5000/web"), tag("web:1@sha256:00")), (None, Some("1")));
    }
}
