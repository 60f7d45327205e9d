//! Pods, claims and namespaces that do not go away.

use super::facts::{Subject, node_is_bad, target};
use super::text::{quote, some, span};
use super::{Trouble, Weight};
use crate::objects::{Meta, Pod};
use crate::{Context, Finding, Look, ObjectRef};
use nightshift_model::FaultClass;
use std::time::Duration;

/// Time to end of what has no grace period of its own.
const NO_GRACE: Duration = Duration::from_secs(30);
/// Slack for what has one: the API server removes it a moment after its last process.
const SLACK: Duration = Duration::from_secs(1);

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
pub(super) fn pod(subject: &Subject<'_>, out: &mut Vec<Trouble>) {
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
