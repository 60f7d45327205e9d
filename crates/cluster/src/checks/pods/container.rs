//! Containers that cannot be made or started: configuration, command, rights, hooks.

use super::facts::{Part, Subject};
use super::text::{between, quote};
use super::{Trouble, Weight, change, crash, image, init, missing};
use crate::Finding;
use nightshift_model::FaultClass;

/// Looks at every container: each gives one trouble at most.
pub(super) fn all(subject: &Subject<'_>, out: &mut Vec<Trouble>) {
    for part in subject.parts() {
        if let Some(trouble) = one(subject, part) {
            out.push(trouble);
        }
    }
    init::hanging(subject, out);
}

fn one(subject: &Subject<'_>, part: Part<'_>) -> Option<Trouble> {
    let (reason, message) = part.waits();
    match reason {
        "ErrImagePull"
        | "ImagePullBackOff"
        | "ErrImageNeverPull"
        | "InvalidImageName"
        | "ImageInspectError"
        | "RegistryUnavailable"
        | "SignatureValidationFailed"
        | "ErrImagePullBackOff" => Some(Trouble::new(Weight::Exact, part.name(), image::pull(subject, part))),
        "CreateContainerConfigError" | "VerifyNonRootError" => config(subject, part, message),
        "CreateContainerError"
        | "RunContainerError"
        | "PreCreateHookError"
        | "PreStartHookError"
        | "PostStartHookError"
        | "RunInitContainerError"
        | "StartError" => start(subject, part, reason, message),
        _ => crash::look(subject, part),
    }
}

/// The kubelet refuses the configuration: something it names is missing, or the user is root.
fn config(subject: &Subject<'_>, part: Part<'_>, message: &str) -> Option<Trouble> {
    let (world, namespace) = (subject.cx.world, subject.namespace());
    let event = subject.newest(&["Failed"], None).filter(|e| missing::parse(&e.message, &subject.pod.spec).is_some());
    let said = missing::parse(message, &subject.pod.spec)
        .or_else(|| event.and_then(|e| missing::parse(&e.message, &subject.pod.spec)));
    // A message that names nothing, beside an object that certainly is missing.
    let wanted = match said {
        Some(wanted) => Some(wanted),
        None if message.is_empty() => missing::of_spec(world, namespace, &subject.pod.spec, false).into_iter().next(),
        None => None,
    };
    if let Some(wanted) = wanted {
        let mut trouble = missing::told(subject, Some(part), &wanted)?;
        trouble.finding = part.told_wait(subject, trouble.finding);
        if let Some(event) = event {
            trouble.finding = trouble.finding.event(event);
        }
        return Some(trouble);
    }
    let finding = if root_refused(message) {
        as_root(subject, part, message)
    } else {
        let summary = format!("The kubelet refuses the configuration of {}: {}", part.called(), or_unknown(message));
        subject
            .draft(FaultClass::ContainerConfigError, summary)
            .fix(format!("Correct what the message names in the specification of {}.", subject.target()))
    };
    Some(Trouble::new(Weight::Exact, part.name(), part.told_wait(subject, finding)))
}

fn or_unknown(message: &str) -> String {
    if message.is_empty() { "it does not say why".into() } else { quote(message) }
}

fn root_refused(message: &str) -> bool {
    let low = message.to_ascii_lowercase();
    low.contains("runasnonroot") || low.contains("image will run as root") || low.contains("non-numeric user")
}

/// `runAsNonRoot` and an image or user that is root.
fn as_root(subject: &Subject<'_>, part: Part<'_>, message: &str) -> Finding {
    let by_name = message.contains("non-numeric user");
    let own = part.spec.security_context.as_ref().and_then(|s| s.run_as_user);
    let user = own.or(subject.pod.spec.security_context.as_ref().and_then(|s| s.run_as_user));
    let why = match (by_name, user) {
        (true, _) => "runAsNonRoot is set, and the image names its user by name, which cannot be checked",
        (_, Some(0)) => "runAsNonRoot is set, and runAsUser is 0, which is root",
        _ => "runAsNonRoot is set, and the image runs as root",
    };
    let finding = subject
        .draft(FaultClass::ContainerConfigError, format!("{} is not started: {why}", part.called()))
        .because(subject.root.clone(), format!("Image {}: {why}", part.spec.image))
        .fix(format!(
            "Set securityContext.runAsUser of {} in {} to a user of the image that is not 0 (for example 65532), or use an image that does not run as root.",
            part.called(),
            subject.target()
        ));
    finding.field(&subject.me, &part.spec_path("securityContext"), format!("runAsNonRoot, runAsUser {user:?}"))
}

/// The container was configured and could not be made or started.
pub(super) fn start(subject: &Subject<'_>, part: Part<'_>, reason: &str, message: &str) -> Option<Trouble> {
    let ended = part.ended().map_or("", |t| t.message.as_str());
    let event = subject.newest(&["Failed", "FailedPostStartHook", "FailedPreStopHook", "BackOff"], None);
    // The wait of a back-off says less than the end before it, or the event.
    let mut text = message;
    if text.is_empty() || text.starts_with("back-off") {
        text = if ended.is_empty() { event.map_or(message, |e| e.message.as_str()) } else { ended };
    }
    if let Some(wanted) = missing::parse(text, &subject.pod.spec) {
        let mut trouble = missing::told(subject, Some(part), &wanted)?;
        trouble.finding = part.told_wait(subject, trouble.finding);
        return Some(trouble);
    }
    let mut finding = match kind(reason, text) {
        Start::Architecture => image::architecture(subject, part, text),
        Start::Root => as_root(subject, part, text),
        Start::Config => subject
            .draft(
                FaultClass::ContainerConfigError,
                format!("{} cannot be made: {}", part.called(), or_unknown(text)),
            )
            .fix(format!("Correct what the message names in {}.", subject.target())),
        Start::Hook => subject
            .draft(
                FaultClass::ContainerStartFailure,
                format!("A hook of {} fails, so it is killed: {}", part.called(), or_unknown(text)),
            )
            .fix(format!(
                "Correct lifecycle.postStart of {} in {}, or do that work in the program or an init container.",
                part.called(),
                subject.target()
            )),
        Start::Command(name) => command(subject, part, &name),
        Start::Permission(name) => subject
            .draft(
                FaultClass::ContainerStartFailure,
                format!("{} may not execute {name}: permission denied", part.called()),
            )
            .fix(format!(
                "Make {name} executable in the image (chmod +x), or run it through its interpreter in `command` of {}. A file from a ConfigMap needs defaultMode 0755.",
                subject.target()
            )),
        Start::ReadOnly => subject
            .draft(
                FaultClass::ContainerStartFailure,
                format!("{} cannot start: it needs to write to a read-only file system", part.called()),
            )
            .fix(format!(
                "Mount an emptyDir where it writes, or set readOnlyRootFilesystem of {} in {} to false.",
                part.called(),
                subject.target()
            )),
        Start::Mount => subject
            .draft(
                FaultClass::ContainerStartFailure,
                format!("{} cannot start: a mount does not fit the image: {}", part.called(), quote(text)),
            )
            .fix(format!("Correct mountPath or subPath in {}: a file goes onto a file, a folder onto a folder.", subject.target())),
        Start::Other => subject
            .draft(
                FaultClass::ContainerStartFailure,
                format!("{} cannot be started: {}", part.called(), or_unknown(text)),
            )
            .fix(format!("Correct what the message names; the container runtime of the node refused {}.", part.called())),
    };
    if let Some(change) = change::of(subject.cx, subject.root)
        && ["command", "image", "variables"].iter().any(|w| change.what.contains(w))
    {
        let why = format!("{}; {}", finding.cause.why, change.told);
        let object = finding.cause.object.clone();
        finding = finding.because(object, why).since(change.at);
    }
    finding = part.told_wait(subject, finding);
    finding = part.told_end(subject, finding);
    if let Some(event) = event {
        finding = finding.event(event);
    }
    Some(Trouble::new(Weight::Exact, part.name(), finding))
}

fn command(subject: &Subject<'_>, part: Part<'_>, name: &str) -> Finding {
    let wanted = if name.is_empty() { part.spec.command.clone().unwrap_or_default() } else { name.to_owned() };
    let called = if wanted.is_empty() { "its command".to_owned() } else { format!("`{wanted}`") };
    let own =
        if part.spec.command.is_some() { "`command` of the container" } else { "the image's entry point or `args`" };
    subject
        .draft(
            FaultClass::ContainerStartFailure,
            format!("{} cannot start: {called} is not in image {}", part.called(), part.spec.image),
        )
        .because(subject.root.clone(), format!("{own} names {called}, which is not found in image {}", part.spec.image))
        .fix(format!(
            "Correct the command of {} in {}, or use an image that has {called}; kubectl rollout undo takes the change back.",
            part.called(),
            subject.target()
        ))
        .field(&subject.me, &part.spec_path("command"), part.spec.command.as_deref().unwrap_or("the image's own"))
}

/// Why a container could not be started.
#[derive(Debug, PartialEq, Eq)]
enum Start {
    Architecture,
    Root,
    Config,
    Hook,
    Command(String),
    Permission(String),
    ReadOnly,
    Mount,
    Other,
}

fn kind(reason: &str, text: &str) -> Start {
    let low = text.to_ascii_lowercase();
    let program = || between(text, "exec: \"", "\"").unwrap_or_default().to_owned();
    if low.contains("exec format error") {
        Start::Architecture
    } else if root_refused(text) {
        Start::Root
    } else if reason.contains("Hook") || low.contains("hook failed") || low.contains("poststarthook") {
        Start::Hook
    } else if low.contains("mount") && (low.contains("not a directory") || low.contains("is a directory")) {
        Start::Mount
    } else if low.contains("executable file not found")
        || (low.contains("exec") && low.contains("no such file or directory"))
        || low.contains("no command specified")
    {
        Start::Command(program())
    } else if low.contains("permission denied") {
        let name = program();
        Start::Permission(if name.is_empty() { "its command".into() } else { format!("`{name}`") })
    } else if low.contains("read-only file system") {
        Start::ReadOnly
    } else if reason == "CreateContainerConfigError" {
        Start::Config
    } else {
        Start::Other
    }
}

/// Whether an end was a failure to start, not of the program.
pub(super) fn never_started(reason: &str, message: &str) -> bool {
    let low = message.to_ascii_lowercase();
    matches!(reason, "StartError" | "ContainerCannotRun" | "RunContainerError")
        || low.contains("executable file not found")
        || low.contains("oci runtime create failed")
        || low.contains("failed to create containerd task")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn start_errors_are_told_apart() {
        let is = |text: &str| kind("RunContainerError", text);
        assert_eq!(
            is("OCI runtime create failed: exec: \"servr\": executable file not found in $PATH: unknown"),
            Start::Command("servr".into())
        );
        assert_eq!(is("exec: \"/app/run.sh\": permission denied: unknown"), Start::Permission("`/app/run.sh`".into()));
        assert_eq!(is("exec /server: exec format error"), Start::Architecture);
        assert_eq!(is("mkdir /data: read-only file system"), Start::ReadOnly);
        assert_eq!(is("error mounting \"/x\" to rootfs at \"/etc/app.conf\": not a directory: unknown"), Start::Mount);
        assert_eq!(kind("PostStartHookError", "Exec lifecycle hook failed"), Start::Hook);
        assert_eq!(kind("CreateContainerError", "context deadline exceeded"), Start::Other);
    }
}
