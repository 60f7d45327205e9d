//! Pods that ended and should not have.

use super::container::{never_started, start};
use super::facts::{Part, Subject};
use super::text::{quote, some};
use super::{Trouble, Weight, crash, init, logs, preempt};
use crate::objects::Pod;
use crate::{Finding, ObjectRef};
use nightshift_model::FaultClass;
use std::time::Duration;

/// Pods that were evicted within this time count together.
const EVICTIONS: Duration = Duration::from_secs(3600);
/// Evictions of one workload from which it matters although others took their place.
const EVICTIONS_MANY: usize = 3;
/// A sidecar gets so long to notice that the work is done.
const SIDECAR: Duration = Duration::from_secs(30);

/// Whether a pod runs or will.
pub(super) fn is_live(pod: &Pod) -> bool {
    matches!(pod.status.phase.as_str(), "Running" | "Pending") && pod.metadata.deletion_timestamp.is_none()
}

/// Whether a pod that ended has been made up for, or need not be.
fn replaced(subject: &Subject<'_>) -> bool {
    let (cx, root) = (subject.cx, subject.root);
    if subject.me == *root {
        return false;
    }
    match root.kind.as_str() {
        "DaemonSet" => cx.pods_of(root).iter().any(|p| is_live(p) && p.spec.node_name == subject.pod.spec.node_name),
        "Deployment" | "ReplicaSet" | "StatefulSet" => {
            preempt::wanted(cx, root).map_or(subject.live > 0, |w| subject.live >= w)
        }
        _ => match subject.pod.metadata.controller().filter(|o| o.kind == "Job") {
            Some(job) => cx.world.jobs.get(subject.namespace(), &job.name).is_none_or(|j| {
                j.status.conditions.when("Complete", "True").is_some()
                    || j.status.completion_time.is_some()
                    || j.spec.suspend
            }),
            None => subject.live > 0,
        },
    }
}

/// A pod that ended and will not be started again.
pub(super) fn failed(subject: &Subject<'_>, out: &mut Vec<Trouble>) {
    let status = &subject.pod.status;
    let many = || {
        let evicted = |p: &&&Pod| {
            p.status.reason == "Evicted" && p.metadata.creation_timestamp.is_none_or(|t| subject.age(t) < EVICTIONS)
        };
        status.reason == "Evicted"
            && subject.cx.pods_of(subject.root).iter().filter(evicted).take(EVICTIONS_MANY).count() >= EVICTIONS_MANY
    };
    if replaced(subject) && !many() {
        return;
    }
    let pushed = subject.condition("DisruptionTarget").is_some_and(|c| c.reason == "PreemptionByScheduler");
    match status.reason.as_str() {
        "Evicted" => out.push(evicted(subject)),
        _ if pushed => out.push(preempted(subject)),
        "Preempting" | "Preempted" => out.push(preempted(subject)),
        "NodeLost" | "NodeShutdown" | "Shutdown" | "Terminated" => out.push(with_node(subject)),
        reason if refused(reason) => out.push(refused_by_kubelet(subject)),
        _ => of_containers(subject, out),
    }
}

fn refused(reason: &str) -> bool {
    reason.starts_with("OutOf")
        || matches!(
            reason,
            "NodeAffinity"
                | "UnexpectedAdmissionError"
                | "NodePorts"
                | "NodeName"
                | "TopologyAffinityError"
                | "PodOSNotSupported"
        )
}

fn ended(subject: &Subject<'_>, finding: Finding) -> Finding {
    let status = &subject.pod.status;
    finding.field(&subject.me, "status.reason", format!("{} {}", status.reason, quote(&status.message)))
}

fn evicted(subject: &Subject<'_>) -> Trouble {
    let message = &subject.pod.status.message;
    let low = message.to_ascii_lowercase();
    let node = subject.pod.spec.node_name.as_str();
    let own = low.contains("exceed");
    let what = if low.contains("memory") {
        "memory"
    } else if low.contains("pid") {
        "process ids"
    } else if low.contains("inode") {
        "inodes"
    } else if low.contains("storage") || low.contains("disk") || low.contains("emptydir") {
        "disk"
    } else {
        "a resource"
    };
    let mut finding = if own {
        subject
            .draft(FaultClass::Evicted, format!("Pod {} was evicted: it used more disk than its limit: {}", subject.name(), quote(message)))
            .because(subject.root.clone(), format!("It used more than its own limit: {}", quote(message)))
            .fix(format!("Raise the ephemeral-storage limit or emptyDir sizeLimit of {}, or write less to local disk (logs, temporary files).", subject.target()))
    } else {
        let place = if node.is_empty() { "its node".to_owned() } else { format!("node {node}") };
        let why = format!("{} was low on {what}", place.replacen("node", "Node", 1));
        let finding = subject
            .draft(FaultClass::Evicted, format!("Pod {} was evicted, because {place} was low on {what}: {}", subject.name(), quote(message)))
            .fix(format!("Free {what} on {place} or add nodes, and set requests of {} to what it uses, so that it is not the first to go.", subject.target()));
        if node.is_empty() {
            finding.because(subject.root.clone(), why)
        } else {
            let object = ObjectRef::new("Node", "", node);
            finding.because(object.clone(), why).explained_by(object)
        }
    };
    if let Some(event) = subject.newest(&["Evicted"], None) {
        finding = finding.event(event);
    }
    Trouble::new(Weight::Exact, "", ended(subject, finding))
}

fn preempted(subject: &Subject<'_>) -> Trouble {
    let finding = preempt::victim(subject).unwrap_or_else(|| {
        subject
            .draft(
                FaultClass::Preempted,
                format!("Pod {} was pushed out by one of a higher priority and has no place", subject.name()),
            )
            .fix(format!("Add nodes, or give {} a higher priorityClassName.", subject.target()))
    });
    Trouble::new(Weight::Exact, "", ended(subject, finding))
}

fn with_node(subject: &Subject<'_>) -> Trouble {
    let node = subject.pod.spec.node_name.as_str();
    let mut finding = subject
        .draft(
            FaultClass::PodFailed,
            format!("Pod {} ended with its node {node}, and nothing took its place", subject.name()),
        )
        .fix(format!(
            "Run {} under a controller that starts it elsewhere, or delete the pod so that it is made again.",
            subject.root.name
        ));
    if !node.is_empty() {
        let object = ObjectRef::new("Node", "", node);
        finding = finding.because(object.clone(), format!("Node {node} was shut down or lost")).explained_by(object);
    }
    Trouble::new(Weight::Weak, "", ended(subject, finding))
}

fn refused_by_kubelet(subject: &Subject<'_>) -> Trouble {
    let reason = subject.pod.status.reason.as_str();
    let node = subject.pod.spec.node_name.as_str();
    let (fault, why) = match reason {
        "NodeAffinity" | "NodeName" => {
            (FaultClass::AffinityUnmet, "it does not have the labels that the pod asks for".to_owned())
        }
        _ => match reason.strip_prefix("OutOf") {
            Some(resource) => (FaultClass::Unschedulable, format!("it has not enough {resource} left")),
            None => (FaultClass::Unschedulable, quote(&subject.pod.status.message)),
        },
    };
    let finding = subject
        .draft(fault, format!("Node {node} refused pod {}: {why}", subject.name()))
        .because(subject.root.clone(), format!("Node {node} refused it: {why}"))
        .fix(format!(
            "Let the scheduler choose a node (no nodeName in {}), and delete the refused pod.",
            subject.target()
        ));
    Trouble::new(Weight::Exact, "", ended(subject, finding))
}

fn of_containers(subject: &Subject<'_>, out: &mut Vec<Trouble>) {
    let bad = |p: &Part<'_>| {
        p.ended().is_some_and(|e| e.exit_code != 0 || e.reason == "OOMKilled" || never_started(&e.reason, &e.message))
    };
    let part = subject.parts().find(bad);
    if let Some((part, end)) = part.and_then(|p| p.ended().map(|e| (p, e))) {
        if end.reason == "OOMKilled" {
            out.push(Trouble::new(Weight::Exact, part.name(), crash::oom(subject, part, Some(end), None)));
            return;
        }
        if end.message.contains("exec format error") {
            out.push(Trouble::new(Weight::Exact, part.name(), super::image::architecture(subject, part, &end.message)));
            return;
        }
        if never_started(&end.reason, &end.message) {
            out.extend(start(subject, part, &end.reason, &end.message));
            return;
        }
    }
    // A job tells of its own failures, and tries again.
    if subject.of_job() {
        return;
    }
    let status = &subject.pod.status;
    let read = part.and_then(|p| subject.logs(p.name()).and_then(logs::read));
    let how = match (part.and_then(|p| p.ended().map(|e| (p, e))), status.reason.as_str()) {
        (_, "DeadlineExceeded") => "it ran over its activeDeadlineSeconds".to_owned(),
        (Some((p, e)), _) => format!("{} ended with {}", p.called(), crash::end(e)),
        (None, "") => "nothing says why".to_owned(),
        (None, reason) => format!("{reason} {}", quote(&status.message)),
    };
    let words = read.as_ref().map(|r| format!("; its last words are: {}", r.line)).unwrap_or_default();
    let mut finding = subject
        .draft(FaultClass::PodFailed, format!("Pod {} failed and was never replaced: {how}{words}", subject.name()))
        .because(subject.root.clone(), format!("{how}{words}"))
        .fix(format!("Correct what made it fail (kubectl logs {} -n {}), then make it again; what must keep running belongs under a Deployment or Job.", subject.name(), subject.namespace()))
        .field(&subject.me, "status.phase", format!("Failed {}", status.reason));
    if let Some(part) = part {
        finding = part.told_end(subject, finding);
        if part.init {
            finding = init::failing(subject, part, finding);
        }
        if let Some(read) = &read {
            let id = format!("log/{}/{}/{}/{}", subject.namespace(), subject.name(), part.name(), read.place);
            finding = finding.fact(id, "log", &read.line);
        }
    }
    out.push(Trouble::new(Weight::Weak, "", finding.generic()));
}

/// Containers that run beside work that is done: by name or image.
const SIDECARS: [&str; 24] = [
    "proxy",
    "sidecar",
    "agent",
    "envoy",
    "istio",
    "linkerd",
    "fluent",
    "filebeat",
    "logstash",
    "vector",
    "promtail",
    "exporter",
    "collector",
    "otel",
    "dapr",
    "vault",
    "consul",
    "logger",
    "shipper",
    "statsd",
    "metrics",
    "log-",
    "tail",
    "cloudsql",
];

/// A job's pod that does not end because of a sidecar; a container that ended with an error beside others that go on.
pub(super) fn left_behind(subject: &Subject<'_>, out: &mut Vec<Trouble>) {
    if subject.pod.spec.containers.len() < 2 {
        return;
    }
    let main = || subject.parts().filter(|p| !p.init);
    let beside = |p: &Part<'_>| {
        let image = p.spec.image.rsplit('/').next().unwrap_or_default();
        SIDECARS.iter().any(|s| p.name().contains(s) || image.contains(s))
    };
    fn done<'a>(p: &Part<'a>) -> Option<&'a crate::objects::Terminated> {
        p.status.and_then(|s| s.state.terminated.as_ref())
    }
    let work: Vec<Part<'_>> = main().filter(|p| done(p).is_some()).collect();
    let runs: Vec<Part<'_>> = main().filter(Part::running).collect();
    if work.is_empty() || work.len() + runs.len() != subject.pod.spec.containers.len() {
        return;
    }
    if subject.of_job() {
        let waited = work.iter().filter_map(done).all(|e| e.finished_at.is_none_or(|t| subject.age(t) >= SIDECAR));
        let ended_well = work.iter().filter_map(done).all(|e| e.exit_code == 0);
        if runs.is_empty() || !waited || !ended_well || !runs.iter().all(beside) || work.iter().all(beside) {
            return;
        }
        let (names, jobs) = (some(runs.iter().map(Part::name)), some(work.iter().map(Part::name)));
        let mut finding = subject
            .draft(
                FaultClass::SidecarBlocksJob,
                format!("The job does not end: its work ({jobs}) is done, and container {names} goes on"),
            )
            .because(
                subject.root.clone(),
                format!("Container {names} does not end when the work is done, so the pod never completes"),
            )
            .fix(format!(
                "Move {names} to initContainers with restartPolicy: Always in {}, so that it ends with the work.",
                subject.target()
            ));
        for part in work.iter().chain(runs.iter()).take(4) {
            let state = done(part).map_or("running".to_owned(), |e| format!("ended with exit code {}", e.exit_code));
            finding = finding.field(&subject.me, &part.path("state"), state);
        }
        out.push(Trouble::new(Weight::Exact, "", finding));
        return;
    }
    let broken = work.iter().find(|p| done(p).is_some_and(|e| e.exit_code != 0));
    let Some(part) = broken.filter(|_| subject.pod.spec.restart_policy == "Never" && !runs.is_empty()) else { return };
    let how = part.ended().map(crash::end).unwrap_or_default();
    let finding = subject
        .draft(
            FaultClass::PodFailed,
            format!("{} of pod {} ended and is never restarted: {how}", part.called(), subject.name()),
        )
        .because(subject.root.clone(), how)
        .fix(format!("Correct what made it end, and use restartPolicy OnFailure or Always in {}.", subject.target()));
    out.push(Trouble::new(Weight::Weak, part.name(), part.told_end(subject, finding).generic()));
}
