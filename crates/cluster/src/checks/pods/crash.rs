//! Containers that end: killed for memory, crashing again and again, and what their last words say.

use super::container::{never_started, start};
use super::facts::{Part, Subject};
use super::logs::{self, Read, Why};
use super::text::{bytes, mebibytes, quote, span};
use super::{Trouble, Weight, change, image, init, probes};
use crate::objects::Terminated;
use crate::{Finding, Look, ObjectRef};
use nightshift_model::FaultClass;
use std::time::Duration;

/// An end for lack of memory is told for this long while the container runs well again: whoever looks the next day
/// still sees it, and one of last month says nothing about now.
const OOM_TOLD: Duration = Duration::from_secs(86_400);
/// Restarts from which a container that is not ready counts as crashing again and again, also while it runs for a
/// moment between two crashes.
const CRASHES: i64 = 3;
/// A container that has ended and that nobody has restarted for so long is not about to be.
const NOT_RESTARTED: Duration = Duration::from_secs(60);
/// Exit code of a process that got signal 9.
const KILLED: i64 = 137;

/// What is wrong with a container that has been started.
pub(super) fn look(subject: &Subject<'_>, part: Part<'_>) -> Option<Trouble> {
    let status = part.status?;
    let (reason, message) = part.waits();
    let looping = reason == "CrashLoopBackOff";
    let ended = part.ended();
    if let Some(end) = ended.filter(|e| e.reason == "OOMKilled" || killed_for_memory(subject, part, e)) {
        let old = end.finished_at.is_some_and(|t| subject.age(t) > OOM_TOLD);
        if looping || !old || !part.running() {
            return Some(Trouble::new(Weight::Exact, part.name(), oom(subject, part, Some(end), None)));
        }
    }
    if let Some(trouble) = child_killed(subject, part) {
        return Some(trouble);
    }
    let failed = ended.filter(|e| e.exit_code != 0 || e.signal != 0 || never_started(&e.reason, &e.message));
    if let Some(end) = failed.filter(|e| e.message.contains("exec format error")) {
        return Some(Trouble::new(Weight::Exact, part.name(), image::architecture(subject, part, &end.message)));
    }
    if let Some(end) = failed.filter(|e| never_started(&e.reason, &e.message) && !part.running()) {
        return start(subject, part, &end.reason, &end.message);
    }
    if let Some(trouble) = probes::killed(subject, part) {
        return Some(trouble);
    }
    let is_init = part.init && !part.spec.is_sidecar();
    let recent = |e: &&Terminated| e.finished_at.is_none_or(|t| subject.age(t) < Duration::from_secs(600));
    let between =
        part.running() && !status.ready && part.restarts() >= CRASHES && failed.filter(recent).is_some() && !is_init;
    let always = matches!(subject.pod.spec.restart_policy.as_str(), "" | "Always") || part.spec.is_sidecar();
    let down = status.state.terminated.as_ref().filter(|e| e.exit_code != 0 && !is_init);
    let again = down.is_some() && part.restarts() >= CRASHES - 1;
    let given_up = down.filter(|e| always && e.finished_at.is_some_and(|t| subject.age(t) > NOT_RESTARTED)).is_some();
    let init_failed =
        is_init
            && status.state.terminated.as_ref().is_some_and(|e| {
                e.exit_code != 0 && (part.restarts() > 0 || subject.pod.spec.restart_policy == "Never")
            });
    if !(looping || between || again || given_up || init_failed) {
        return None;
    }
    // A wait without an end before it, as somebody else wrote it: the message may still say how it was.
    if looping && ended.is_none() && never_started("", message) {
        return start(subject, part, reason, message);
    }
    let read = subject.logs(part.name()).and_then(logs::read);
    if let Some(exact) = exact(subject, part, read.as_ref()) {
        return Some(exact);
    }
    let finding = crashing(subject, part, ended, read.as_ref());
    if is_init {
        return Some(Trouble::new(Weight::Exact, part.name(), init::failing(subject, part, finding)));
    }
    Some(Trouble::new(Weight::Crash, part.name(), finding))
}

/// What the log says so exactly that it is a fault of its own.
fn exact(subject: &Subject<'_>, part: Part<'_>, read: Option<&Read>) -> Option<Trouble> {
    let read = read?;
    let told =
        |finding: Finding| Some(Trouble::new(Weight::Exact, part.name(), with_log(subject, part, finding, read)));
    match &read.why {
        Why::Architecture => told(image::architecture(subject, part, &read.line)),
        Why::SharedMemory => told(super::usage::shared_memory(subject, part)),
        Why::FileDescriptors => told(super::usage::descriptors(subject, part)),
        _ => None,
    }
}

fn with_log(subject: &Subject<'_>, part: Part<'_>, finding: Finding, read: &Read) -> Finding {
    let id = format!("log/{}/{}/{}/{}", subject.namespace(), subject.name(), part.name(), read.place);
    finding.fact(id, "log", &read.line)
}

/// The crash loop, with how it ended and why by its own words.
fn crashing(subject: &Subject<'_>, part: Part<'_>, ended: Option<&Terminated>, read: Option<&Read>) -> Finding {
    let restarts = part.restarts();
    let how = ended.map_or_else(|| "it does not say how it ended".to_owned(), end);
    let times = if restarts > 0 {
        format!(" after {restarts} restart{}", if restarts == 1 { "" } else { "s" })
    } else {
        String::new()
    };
    let (why, object, fix) = reason(subject, part, ended, read);
    let mut finding = subject
        .draft(
            FaultClass::CrashLoop,
            format!(
                "{} keeps crashing{times}: {how}{}",
                capital(&part.called()),
                why.as_ref().map(|w| format!("; {w}")).unwrap_or_default()
            ),
        )
        .fix(fix);
    let changed = change::of(subject.cx, subject.root);
    let said = why.unwrap_or_else(|| how.clone());
    let own = object.is_none();
    let cause = match &changed {
        Some(c) if own => format!("{said}; {}", c.told),
        _ => said,
    };
    if let Some(object) = object {
        if object.kind == "Service" {
            finding = explained_by_service(subject, finding, &object);
        }
        finding = finding.because(object, cause);
    } else {
        finding = finding.because(subject.root.clone(), cause);
    }
    if let Some(c) = changed.filter(|_| own) {
        let fix = format!(
            "{} If it began with that change, kubectl rollout undo {} takes it back.",
            finding.fix,
            subject.target()
        );
        finding = finding.fix(fix).since(c.at);
    }
    if read.is_some_and(|r| r.why == Why::Forbidden) {
        finding = finding.generic();
    }
    finding = part.told_wait(subject, finding);
    finding = part.told_end(subject, finding);
    if ended.is_none() {
        finding = finding.field(&subject.me, &part.path("restartCount"), restarts.to_string());
    }
    match read {
        Some(read) => with_log(subject, part, finding, read),
        None => finding,
    }
}

fn capital(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map(|c| c.to_ascii_uppercase().to_string() + letters.as_str()).unwrap_or_default()
}

/// How it ended, in words.
pub(super) fn end(end: &Terminated) -> String {
    let signal = if end.signal > 0 { end.signal } else { (end.exit_code - 128).max(0) };
    let meaning = match (end.exit_code, signal) {
        (0, 0) => "it ends by itself without an error, which a program that serves must not",
        (_, 4) => "an illegal instruction",
        (_, 6) => "it aborted itself",
        (_, 7) => "a bus error",
        (_, 8) => "an arithmetic error",
        (_, 9) => "it was killed",
        (_, 11) => "a segmentation fault",
        (_, 15) => "it was asked to end",
        (126, _) => "its command may not be executed",
        (127, _) => "its command was not found",
        (1, _) => "an error of the application",
        (2, _) => "wrong use of a command, or an error of the application",
        _ => "an error of the application",
    };
    let signal = if (1..=31).contains(&signal) { format!(", signal {signal}") } else { String::new() };
    let said = if end.message.is_empty() { String::new() } else { format!(": {}", quote(&end.message)) };
    format!("exit code {}{signal} ({meaning}){said}", end.exit_code)
}

/// Why, the object whose state must change where it is another one, and what to do.
fn reason(
    subject: &Subject<'_>,
    part: Part<'_>,
    ended: Option<&Terminated>,
    read: Option<&Read>,
) -> (Option<String>, Option<ObjectRef>, String) {
    let target = subject.target();
    let look = format!(
        "Read the end of its log (kubectl logs {} -n {} -c {} --previous) and correct what it names.",
        subject.name(),
        subject.namespace(),
        part.name()
    );
    let from_message =
        ended.and_then(|e| e.message.lines().rev().find_map(logs::exact)).map(|why| (why, String::new()));
    let found = read
        .map(|r| (r.why.clone(), r.line.clone()))
        .filter(|(w, _)| !matches!(w, Why::Error | Why::Nothing))
        .or(from_message);
    let Some((why, line)) = found else {
        let last = read.map(|r| format!("its last words are: {}", r.line));
        let fix = match ended.map(|e| e.exit_code) {
            Some(0) => format!("Give {} in {target} a command that keeps running, or make it a Job.", part.called()),
            Some(126 | 127) => format!("Correct the command of {} in {target}.", part.called()),
            _ => look,
        };
        return (last, None, fix);
    };
    let quoted = if line.is_empty() { String::new() } else { format!(" ({line})") };
    let whom = |host: &str| if host.is_empty() { "a dependency".to_owned() } else { host.to_owned() };
    let (said, object, fix) = match why {
        Why::Variable(name) => {
            let (object, note) = variable(subject, part, &name);
            let fix = format!("Set {name} in `env` of {} in {target}{note}.", part.called());
            (format!("environment variable {name} is missing"), object, fix)
        }
        Why::Refused(host) | Why::TimedOut(host) => {
            let service = service_of(subject, &host);
            let fix = match &service {
                Some(s) => format!(
                    "Bring up what is behind service {} in {}, or correct its address in {target}; it starts by itself then.",
                    s.name, s.namespace
                ),
                None => format!("Bring up {}, or correct its address in {target}.", whom(&host)),
            };
            (format!("{} does not take its connections", whom(&host)), service, fix)
        }
        Why::UnknownHost(host) => {
            let service = service_of(subject, &host);
            (
                format!("the name {} does not resolve", whom(&host)),
                service,
                format!("Create the service, or correct the name {} in {target}.", whom(&host)),
            )
        }
        Why::Credentials => (
            "its credentials are refused".into(),
            None,
            format!("Correct the credentials that {target} uses, and restart it."),
        ),
        Why::Forbidden => (
            "the API server refuses what its service account asks".into(),
            None,
            format!("Give the service account of {target} the missing right by a role."),
        ),
        Why::File(path) => {
            let object = mounted(subject, part, &path);
            (
                format!("file {} is missing", whom_file(&path)),
                object,
                format!(
                    "Put {} into the image or into what is mounted there, or correct the path in {target}.",
                    whom_file(&path)
                ),
            )
        }
        Why::Permission(path) => (
            format!("it may not use {}", whom_file(&path)),
            None,
            format!(
                "Set runAsUser and fsGroup in {target} so that they may use {}, or correct its owner in the image.",
                whom_file(&path)
            ),
        ),
        Why::ReadOnly(path) => (
            format!("it writes to {}, which is on a read-only file system", whom_file(&path)),
            None,
            format!(
                "Mount an emptyDir at {}, or set readOnlyRootFilesystem of {} in {target} to false.",
                whom_file(&path),
                part.called()
            ),
        ),
        Why::AddressInUse(port) => {
            let port = if port.is_empty() { "its port".to_owned() } else { format!("port {port}") };
            (
                format!("{port} is taken by another process of the pod or, with the host's network, of the node"),
                None,
                format!("Give {} in {target} a port of its own.", part.called()),
            )
        }
        Why::NoCommand(name) => (
            format!("command {name} is not in the image"),
            None,
            format!("Correct the command of {} in {target}, or use an image that has {name}.", part.called()),
        ),
        Why::OutOfMemory => (
            "it runs out of memory by its own account".into(),
            None,
            format!(
                "Give {} in {target} more memory, or set the program's own limit (heap) below that of the container.",
                part.called()
            ),
        ),
        Why::DiskFull => {
            ("its file system is full".into(), None, format!("Free or enlarge the volume that {target} writes to."))
        }
        _ => (String::new(), None, look),
    };
    (Some(format!("{said}{quoted}")), object, fix)
}

fn whom_file(path: &str) -> &str {
    if path.is_empty() { "a file" } else { path }
}

/// Where a missing variable should have come from: an optional reference to something that is missing.
fn variable(subject: &Subject<'_>, part: Part<'_>, name: &str) -> (Option<ObjectRef>, String) {
    let namespace = subject.namespace();
    let var = part.spec.env.iter().find(|e| e.name == name);
    let source = var.and_then(|v| v.value_from.as_ref());
    let refs = source
        .into_iter()
        .flat_map(|s| [("ConfigMap", s.config_map_key_ref.as_ref()), ("Secret", s.secret_key_ref.as_ref())]);
    for (kind, r) in refs {
        if let Some(r) = r {
            let note = format!(", which it takes from key {} of {kind} {}", r.key, r.name);
            return (Some(ObjectRef::new(kind, namespace, r.name.clone())), note);
        }
    }
    (None, String::new())
}

/// The config map or secret that is mounted where a path lies.
fn mounted(subject: &Subject<'_>, part: Part<'_>, path: &str) -> Option<ObjectRef> {
    let under = |m: &&crate::objects::VolumeMount| {
        let at = m.mount_path.trim_end_matches('/');
        !at.is_empty() && path.strip_prefix(at).is_some_and(|r| r.is_empty() || r.starts_with('/'))
    };
    let mount = part.spec.volume_mounts.iter().filter(under).max_by_key(|m| m.mount_path.len())?;
    let volume = subject.pod.spec.volumes.iter().find(|v| v.name == mount.name)?;
    let map = volume.config_map.as_ref().map(|k| ObjectRef::new("ConfigMap", subject.namespace(), k.name.clone()));
    map.or_else(|| volume.secret.as_ref().map(|k| ObjectRef::new("Secret", subject.namespace(), k.secret_name.clone())))
}

/// The service that an address names or has, also a missing one, when it surely is one of this cluster.
pub(super) fn service_of(subject: &Subject<'_>, address: &str) -> Option<ObjectRef> {
    let world = subject.cx.world;
    let host = address.rsplit_once(':').map_or(address, |(h, _)| h).trim_end_matches('.');
    if host.is_empty() {
        return None;
    }
    if host.parse::<std::net::IpAddr>().is_ok() {
        let of_ip = world.services.iter().find(|s| s.spec.cluster_ip == host)?;
        return Some(ObjectRef::of("Service", &of_ip.metadata));
    }
    let mut labels = host.split('.');
    let name = labels.next()?;
    let second = labels.next();
    let third = labels.next();
    let namespace = second.unwrap_or(subject.namespace());
    let object = ObjectRef::new("Service", namespace, name);
    match world.services.look(namespace, name) {
        Look::Found(_) => Some(object),
        Look::Missing => match (second, third) {
            (Some(_), Some("svc")) => Some(object),
            (Some(n), None) => world.namespaces.get("", n).map(|_| object),
            (None, _) => (!matches!(name, "localhost")).then_some(object),
            _ => None,
        },
        Look::Unseen => (third == Some("svc")).then_some(object),
    }
}

/// Trouble of a service, or of the workloads behind it, explains a caller that cannot reach it.
pub(super) fn explained_by_service(subject: &Subject<'_>, finding: Finding, service: &ObjectRef) -> Finding {
    let cx = subject.cx;
    if subject.brief {
        return finding.explained_by(service.clone());
    }
    let mut finding = finding.explained_by(service.clone());
    if let Some(found) =
        cx.world.services.get(&service.namespace, &service.name).filter(|s| !s.spec.selector.is_empty())
    {
        let roots: std::collections::BTreeSet<ObjectRef> =
            cx.pods_with(&service.namespace, &found.spec.selector).map(|p| cx.root(p)).collect();
        let own = finding.object.clone();
        for root in roots.into_iter().filter(|r| *r != own).take(8) {
            finding = finding.explained_by(root);
        }
    }
    finding
}

/// An event of the node that names the pod's control group.
fn memory_event<'a>(subject: &Subject<'a>) -> Option<&'a crate::objects::Event> {
    let uid = &subject.pod.metadata.uid;
    if uid.is_empty() || subject.pod.spec.node_name.is_empty() {
        return None;
    }
    let (dashes, underscores) = (uid.as_str(), uid.replace('-', "_"));
    let events = subject.cx.events("Node", "", &subject.pod.spec.node_name).iter();
    let mut events = events.chain(subject.cx.events("Node", "default", &subject.pod.spec.node_name));
    let ours = |e: &&&crate::objects::Event| {
        e.reason.contains("OOM") && (e.message.contains(dashes) || e.message.contains(&underscores))
    };
    events.rfind(ours).copied()
}

fn killed_for_memory(subject: &Subject<'_>, part: Part<'_>, end: &Terminated) -> bool {
    end.exit_code == KILLED && end.reason != "OOMKilled" && {
        let own = subject.newest(&["OOMKilling", "OOMKilled"], None).is_some();
        (own || memory_event(subject).is_some()) && part.restarts() > 0
    }
}

/// A child was killed for memory while the container goes on: only the node's events or the log tell.
fn child_killed(subject: &Subject<'_>, part: Part<'_>) -> Option<Trouble> {
    if !part.running() || part.init {
        return None;
    }
    let only = subject.pod.spec.containers.len() == 1;
    let event = memory_event(subject).filter(|_| only && part.ended().is_none());
    let read = subject.logs(part.name()).and_then(|t| {
        let words = |w: &Why| *w == Why::OutOfMemory;
        logs::find(&crate::LogTail { current: t.current.clone(), previous: Vec::new() }, words)
            .filter(|r| ["kill", "perhaps out of memory"].iter().any(|k| r.line.to_ascii_lowercase().contains(k)))
    });
    if event.is_none() && read.is_none() {
        return None;
    }
    let mut finding = oom(subject, part, None, Some("a child process was killed while its main process goes on"));
    if let Some(event) = event {
        finding = finding.event(event);
    }
    if let Some(read) = &read {
        finding = with_log(subject, part, finding, read);
    }
    Some(Trouble::new(Weight::Exact, part.name(), finding))
}

/// Killed for lack of memory.
pub(super) fn oom(subject: &Subject<'_>, part: Part<'_>, end: Option<&Terminated>, child: Option<&str>) -> Finding {
    let limit = part.spec.resources.limits.get("memory").map(|q| q.0).filter(|n| *n > 0.0);
    let who = match (child, end) {
        (Some(child), _) => child.to_owned(),
        (None, Some(e)) if e.exit_code != KILLED && e.exit_code != 0 => {
            format!("a child process was killed, and the program ended with exit code {}", e.exit_code)
        }
        _ => "its main process or its whole group was killed".into(),
    };
    let now = match (part.running(), part.ready(), subject.pod.status.phase.as_str()) {
        (true, true, _) => "it runs again",
        (true, false, _) => "it runs again and is not ready",
        (_, _, "Failed") => "it is not restarted",
        _ => "it is down",
    };
    let when = end.and_then(|e| e.finished_at).map(|t| format!(" {} ago", span(subject.age(t)))).unwrap_or_default();
    let at = limit.map(|l| format!(" at its limit of {}", bytes(l))).unwrap_or_default();
    let summary = format!("{} ran out of memory{at}{when}: {who}; {now}", capital(&part.called()));
    let mut finding = subject.draft(FaultClass::OomKill, summary);
    let target = subject.target();
    match limit {
        Some(limit) => {
            let more = mebibytes(limit * 1.5);
            let changed = change::of(subject.cx, subject.root).filter(|c| c.what.contains("memory limit"));
            let note = changed.map(|c| format!("; {}", c.told)).unwrap_or_default();
            finding = finding
                .because(subject.root.clone(), format!("{} needs more memory than its limit of {}{note}", part.called(), bytes(limit)))
                .fix(format!(
                    "Raise the limit (kubectl set resources {target} -c {} --limits=memory={more} --requests=memory={more}), and look for a leak if use grows without end.",
                    part.name()
                ));
        }
        None => {
            let node = &subject.pod.spec.node_name;
            let why = format!("{} has no memory limit, and its node ran out of memory", part.called());
            let object = if node.is_empty() { subject.root.clone() } else { ObjectRef::new("Node", "", node.clone()) };
            finding = finding
                .because(object, why)
                .fix(format!("Set a memory request and limit for {} in {target} from what it uses, so that the node is not overcommitted.", part.called()));
        }
    }
    finding = finding.since(end.and_then(|e| e.finished_at));
    finding = part.told_wait(subject, finding);
    finding = part.told_end(subject, finding);
    if let Some(event) = memory_event(subject) {
        finding = finding.event(event);
    }
    let text = limit.map_or("none".to_owned(), bytes);
    finding.field(
        &subject.me,
        &part.spec_path("resources.limits.memory"),
        format!("{text}, restarts {}", part.restarts()),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_are_told_in_words() {
        let told = |exit_code, signal| end(&Terminated { exit_code, signal, ..Terminated::default() });
        assert!(told(139, 0).contains("signal 11 (a segmentation fault)"));
        assert!(told(1, 0).contains("an error of the application"));
        assert!(told(0, 0).contains("ends by itself"));
        assert!(!told(255, 0).contains("signal"));
    }
}
