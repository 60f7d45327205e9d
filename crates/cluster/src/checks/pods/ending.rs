//! Pods, claims and namespaces that do not go away, and pods that ended and should not have.

use super::container::{never_started, start};
use super::facts::{Part, Subject, node_is_bad, target};
use super::text::{quote, some, span};
use super::{Trouble, Weight, crash, init, logs, preempt};
use crate::objects::{Meta, Pod};
use crate::{Context, Finding, Look, ObjectRef};
use nightshift_model::FaultClass;
use std::time::Duration;

/// Time to end of what has no grace period of its own.
const NO_GRACE: Duration = Duration::from_secs(30);
/// Slack for what has one: the API server removes it a moment after its last process.
const SLACK: Duration = Duration::from_secs(1);
/// Pods that were evicted within this time count together.
const EVICTIONS: Duration = Duration::from_secs(3600);
/// Evictions of one workload from which it matters although others took their place.
const EVICTIONS_MANY: usize = 3;
/// A sidecar gets so long to notice that the work is done.
const SIDECAR: Duration = Duration::from_secs(30);

/// For how long something should have been gone.
fn overdue(cx: &Context<'_>, meta: &Meta) -> Option<Duration> {
    let due = meta.deletion_timestamp?;
    let over = cx.age(due);
    let grace = meta.deletion_grace_period_seconds.unwrap_or(0);
    (over > if grace > 0 { SLACK } else { NO_GRACE }).then_some(over)
}

fn stuck_namespace(cx: &Context<'_>, namespace: &str) -> Option<ObjectRef> {
    let found = cx.world.namespaces.get("", namespace)?;
    found.metadata.deletion_timestamp.map(|_| ObjectRef::new("Namespace", "", namespace))
}

/// A pod that does not end.
pub(super) fn terminating(subject: &Subject<'_>, out: &mut Vec<Trouble>) {
    let (cx, meta) = (subject.cx, &subject.pod.metadata);
    let Some(over) = overdue(cx, meta) else { return };
    let node = subject.pod.spec.node_name.as_str();
    let mut finding = subject
        .draft(FaultClass::StuckTerminating, format!("Pod {} should have been gone for {}", meta.name, span(over)));
    let node_ref = ObjectRef::new("Node", "", node);
    let event = subject.newest(
        &[
            "FailedKillPod",
            "FailedPreStopHook",
            "FailedUnmount",
            "FailedUnMount",
            "FailedDetachVolume",
            "KillPodSandboxError",
        ],
        None,
    );
    let lost = !node.is_empty()
        && match cx.world.nodes.look("", node) {
            Look::Found(n) => node_is_bad(n),
            Look::Missing => true,
            Look::Unseen => false,
        };
    let finalizers = some(meta.finalizers.iter().map(String::as_str));
    if !meta.finalizers.is_empty() {
        finding = finding
            .because(subject.me.clone(), format!("Finalizer {finalizers} has not been taken off by its controller"))
            .fix(format!("Look at the controller of {finalizers}. If it is gone for good: kubectl patch pod {} -n {} --type=merge -p '{{\"metadata\":{{\"finalizers\":null}}}}'.", meta.name, meta.namespace));
    } else if lost {
        finding = finding
            .because(node_ref.clone(), format!("Node {node} does not answer or is gone, so nobody confirms that the pod has ended"))
            .explained_by(node_ref)
            .fix(format!("Bring node {node} back. If the machine is certainly off, taint it node.kubernetes.io/out-of-service or delete the pod with --force --grace-period=0."));
    } else if let Some(event) = event {
        let volume = event.reason.contains("nmount")
            || event.reason.contains("UnMount")
            || event.reason.contains("Detach")
            || event.message.to_ascii_lowercase().contains("unmount");
        let why = if volume {
            "a volume cannot be taken off it"
        } else if event.reason == "FailedPreStopHook" {
            "its preStop hook fails or hangs"
        } else {
            "the kubelet cannot kill it"
        };
        let object = if volume {
            claim_of(subject.pod)
                .map_or_else(|| node_ref.clone(), |c| ObjectRef::new("PersistentVolumeClaim", subject.namespace(), c))
        } else {
            subject.root.clone()
        };
        finding = finding
            .because(object, format!("Pod {} does not end: {why}: {}", meta.name, quote(&event.message)))
            .fix(format!("Look at node {node} (mounts, runtime); when the processes are surely gone, kubectl delete pod {} -n {} --force --grace-period=0.", meta.name, meta.namespace));
    } else {
        let place = if node.is_empty() { "its node".to_owned() } else { format!("node {node}") };
        finding = finding
            .because(subject.me.clone(), format!("The kubelet of {place} has not confirmed its end"))
            .fix(format!("Look at the kubelet and runtime of {place}; when the processes are surely gone, kubectl delete pod {} -n {} --force --grace-period=0.", meta.name, meta.namespace));
    }
    if let Some(namespace) = stuck_namespace(cx, &meta.namespace) {
        finding = finding.explained_by(namespace);
    }
    finding = finding.field(
        &subject.me,
        "metadata.deletionTimestamp",
        meta.deletion_timestamp.map(|t| t.to_rfc3339()).unwrap_or_default(),
    );
    if !finalizers.is_empty() {
        finding = finding.field(&subject.me, "metadata.finalizers", finalizers);
    }
    if let Some(event) = event {
        finding = finding.event(event);
    }
    out.push(Trouble::new(Weight::Exact, "", finding.since(meta.deletion_timestamp)));
}

fn claim_of(pod: &Pod) -> Option<&str> {
    pod.spec.volumes.iter().find_map(|v| v.persistent_volume_claim.as_ref()).map(|c| c.claim_name.as_str())
}

/// Claims and namespaces that do not go away.
pub(super) fn claims_and_namespaces(cx: &Context<'_>, out: &mut Vec<Finding>) {
    for claim in cx.world.claims.iter() {
        let Some(over) = overdue(cx, &claim.metadata) else { continue };
        let (namespace, name) = (&claim.metadata.namespace, &claim.metadata.name);
        let me = ObjectRef::of("PersistentVolumeClaim", &claim.metadata);
        let uses = |p: &&Pod| {
            p.spec.volumes.iter().any(|v| v.persistent_volume_claim.as_ref().is_some_and(|c| c.claim_name == *name))
        };
        let alive = |p: &&Pod| !matches!(p.status.phase.as_str(), "Succeeded" | "Failed");
        let user = cx.world.pods.in_namespace(namespace).filter(uses).find(alive);
        let finalizers = some(claim.metadata.finalizers.iter().map(String::as_str));
        let mut finding = Finding::new(
            FaultClass::StuckTerminating,
            me.clone(),
            format!("Claim {name} was deleted {} ago and does not go", span(over)),
        );
        finding = match user {
            Some(pod) if claim.metadata.finalizers.iter().any(|f| f == "kubernetes.io/pvc-protection") => {
                let root = cx.root(pod);
                finding
                    .because(root.clone(), format!("Pod {} of {root} still uses it, and a claim in use is kept", pod.metadata.name))
                    .fix(format!("Stop what uses it (kubectl scale {} --replicas=0), or make the claim anew before the pod restarts: it cannot be brought back.", target(&root)))
                    .hits(ObjectRef::of("Pod", &pod.metadata))
            }
            _ => finding
                .because(me.clone(), format!("Finalizer {finalizers} has not been taken off by its controller"))
                .fix(format!("Look at the controller of {finalizers}; if it is gone for good, take the finalizer off (kubectl edit pvc {name} -n {namespace}).")),
        };
        if let Some(ns) = stuck_namespace(cx, namespace) {
            finding = finding.explained_by(ns);
        }
        out.push(finding.field(&me, "metadata.finalizers", finalizers).since(claim.metadata.deletion_timestamp));
    }
    for found in cx.world.namespaces.iter() {
        let Some(over) = overdue(cx, &found.metadata) else { continue };
        out.push(namespace(cx, found, over));
    }
}

fn namespace(cx: &Context<'_>, found: &crate::objects::Namespace, over: Duration) -> Finding {
    let name = found.metadata.name.as_str();
    let me = ObjectRef::new("Namespace", "", name);
    let conditions = &found.status.conditions;
    let remains = conditions
        .when("NamespaceFinalizersRemaining", "True")
        .or_else(|| conditions.when("NamespaceContentRemaining", "True"));
    let undiscovered = conditions.when("NamespaceDeletionDiscoveryFailure", "True");
    let failed = conditions.when("NamespaceDeletionContentFailure", "True");
    let holder = held(cx, name);
    let mut finding = Finding::new(
        FaultClass::StuckTerminating,
        me.clone(),
        format!("Namespace {name} was deleted {} ago and does not go", span(over)),
    );
    let message = |c: &crate::objects::Condition| quote(&c.message);
    finding = match (undiscovered, &holder, remains.or(failed)) {
        (Some(c), ..) => {
            let api = cx.world.api_services.iter().find(|a| a.status.conditions.when("Available", "False").is_some());
            let object = api.map_or(me.clone(), |a| ObjectRef::of("APIService", &a.metadata));
            finding
                .because(object.clone(), format!("The API server cannot list everything in it: {}", message(c)))
                .explained_by(object)
                .fix("Bring up what serves that API, or delete its APIService when it is gone for good.")
        }
        (_, Some((object, finalizers)), _) => finding
            .because(object.clone(), format!("{object} is kept by finalizer {finalizers}, which its controller has not taken off"))
            .fix(format!("Look at the controller of {finalizers}; if it is gone for good, take the finalizer off {object}.")),
        (_, None, Some(c)) => finding
            .because(me.clone(), message(c))
            .fix("Look at what remains in it (the message names kinds and finalizers) and at the controllers of those finalizers."),
        (None, None, None) => finding
            .because(me.clone(), "Nothing says what remains in it: the namespace controller has not worked on it, or a finalizer of its own holds it")
            .fix(format!("Check that kube-controller-manager runs, and the finalizers of the namespace (kubectl get ns {name} -o yaml).")),
    };
    for c in [undiscovered, remains, failed].into_iter().flatten() {
        finding = finding.field(&me, &format!("status.conditions[{}]", c.kind), message(c));
    }
    finding.field(&me, "status.phase", &found.status.phase).since(found.metadata.deletion_timestamp)
}

/// An object of the namespace that is being deleted and held by a finalizer.
fn held(cx: &Context<'_>, namespace: &str) -> Option<(ObjectRef, String)> {
    let holds = |kind: &str, m: &Meta| {
        let held = m.deletion_timestamp.is_some() && !m.finalizers.is_empty();
        held.then(|| (ObjectRef::of(kind, m), some(m.finalizers.iter().map(String::as_str))))
    };
    let world = cx.world;
    let pods = world.pods.in_namespace(namespace).find_map(|p| holds("Pod", &p.metadata));
    pods.or_else(|| world.claims.in_namespace(namespace).find_map(|o| holds("PersistentVolumeClaim", &o.metadata)))
        .or_else(|| world.config_maps.in_namespace(namespace).find_map(|o| holds("ConfigMap", &o.metadata)))
        .or_else(|| world.secrets.in_namespace(namespace).find_map(|o| holds("Secret", &o.metadata)))
        .or_else(|| world.services.in_namespace(namespace).find_map(|o| holds("Service", &o.metadata)))
        .or_else(|| world.ingresses.in_namespace(namespace).find_map(|o| holds("Ingress", &o.metadata)))
        .or_else(|| world.deployments.in_namespace(namespace).find_map(|o| holds("Deployment", &o.metadata)))
        .or_else(|| world.stateful_sets.in_namespace(namespace).find_map(|o| holds("StatefulSet", &o.metadata)))
        .or_else(|| world.jobs.in_namespace(namespace).find_map(|o| holds("Job", &o.metadata)))
        .or_else(|| {
            world
                .custom
                .iter()
                .find_map(|((_, kind), t)| t.in_namespace(namespace).find_map(|o| holds(kind, &o.metadata)))
        })
}

/// Whether a pod that ended has been made up for, or need not be.
fn replaced(subject: &Subject<'_>) -> bool {
    let (cx, root) = (subject.cx, subject.root);
    if subject.me == *root {
        return false;
    }
    let alive =
        |p: &&&Pod| matches!(p.status.phase.as_str(), "Running" | "Pending") && p.metadata.deletion_timestamp.is_none();
    let live = || cx.pods_of(root).iter().filter(alive);
    match root.kind.as_str() {
        "DaemonSet" => live().any(|p| p.spec.node_name == subject.pod.spec.node_name),
        "Deployment" | "ReplicaSet" | "StatefulSet" => live().count() as i64 >= preempt::wanted(cx, root),
        _ => match subject.pod.metadata.controller().filter(|o| o.kind == "Job") {
            Some(job) => cx.world.jobs.get(subject.namespace(), &job.name).is_none_or(|j| {
                j.status.conditions.when("Complete", "True").is_some()
                    || j.status.completion_time.is_some()
                    || j.spec.suspend
            }),
            None => live().next().is_some(),
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
