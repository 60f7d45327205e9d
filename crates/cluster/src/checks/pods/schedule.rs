//! Pods without a node: what the scheduler says, and what of it must change.

use super::facts::Subject;
use super::text::{between, quote, some, span};
use super::{Trouble, Weight, create, filters, missing, preempt};
use crate::objects::Event;
use crate::{Finding, Grade, Look, ObjectRef};
use nightshift_model::FaultClass;
use std::time::Duration;

/// A node that is being added takes minutes.
const SCALE_UP: Duration = Duration::from_secs(900);
/// A pod that no scheduler has said a word about for so long has none.
const UNSEEN: Duration = Duration::from_secs(600);
/// A pod that has no node.
pub(super) fn unbound(subject: &Subject<'_>, out: &mut Vec<Trouble>) {
    let (pod, spec) = (subject.pod, &subject.pod.spec);
    let begun = subject.parts().any(|p| {
        p.running() || p.ended().is_some() || !matches!(p.waits().0, "" | "ContainerCreating" | "PodInitializing")
    });
    if !spec.node_name.is_empty() || begun || pod.status.phase == "Running" {
        return;
    }
    let condition = subject.condition("PodScheduled");
    if condition.is_some_and(|c| c.status == "True") {
        return;
    }
    if condition.is_some_and(|c| c.reason == "SchedulingGated") || !spec.scheduling_gates.is_empty() {
        out.push(gated(subject));
        return;
    }
    let event = subject.newest(&["FailedScheduling"], None);
    let scheduled = subject.newest(&["Scheduled"], event.and_then(Event::last_seen));
    let said = condition.filter(|c| c.status == "False").map(|c| c.message.as_str()).filter(|m| !m.is_empty());
    let Some(message) = said.or(event.filter(|_| scheduled.is_none()).map(|e| e.message.as_str())) else {
        if condition.is_some_and(|c| c.status == "False" && c.reason == "Unschedulable") {
            tell(subject, None, "", out);
        } else {
            unseen(subject, out);
        }
        return;
    };
    if on_its_way(subject) {
        return;
    }
    tell(subject, event, message, out);
}

/// Room is being made for it, or a node is being added.
fn on_its_way(subject: &Subject<'_>) -> bool {
    let nominated = subject.pod.status.nominated_node_name.as_str();
    let leaving =
        !nominated.is_empty() && subject.cx.pods_on(nominated).iter().any(|p| p.metadata.deletion_timestamp.is_some());
    let scaling = subject.newest(&["TriggeredScaleUp", "NotTriggerScaleUp", "NominatedNode", "Nominated"], None);
    let scaling = scaling.filter(|e| e.reason != "NotTriggerScaleUp");
    leaving || scaling.is_some_and(|e| e.last_seen().is_none_or(|t| subject.age(t) < SCALE_UP))
}

fn gated(subject: &Subject<'_>) -> Trouble {
    let gates = some(subject.pod.spec.scheduling_gates.iter().map(|g| g.name.as_str()));
    // A queue holds what it has not admitted: that is its work.
    let queue = subject.pod.spec.scheduling_gates.iter().all(|g| g.name.starts_with("kueue.x-k8s.io/"));
    let summary = format!("A pod is held by scheduling gate {gates}: the scheduler does not look at it");
    let mut finding = subject
        .draft(FaultClass::SchedulingGated, summary)
        .because(subject.root.clone(), format!("Gate {gates} has not been removed by whoever set it"))
        .fix(format!(
            "Look at the controller that removes gate {gates}; without one, take schedulingGates out of {}.",
            subject.target()
        ))
        .field(&subject.me, "spec.schedulingGates", gates.clone());
    if queue && !subject.pod.spec.scheduling_gates.is_empty() {
        finding = finding.graded(Grade::Info);
    }
    Trouble::new(Weight::Exact, "", finding)
}

/// No scheduler has looked at it.
fn unseen(subject: &Subject<'_>, out: &mut Vec<Trouble>) {
    let Some(age) = subject.own_age().filter(|a| *a >= UNSEEN) else { return };
    let scheduler =
        if subject.pod.spec.scheduler_name.is_empty() { "default-scheduler" } else { &subject.pod.spec.scheduler_name };
    let finding = subject
        .draft(
            FaultClass::Unschedulable,
            format!("A pod has waited for {} for a node, and no scheduler has said a word about it", span(age)),
        )
        .because(subject.root.clone(), format!("Scheduler {scheduler}, which it names, does not run"))
        .fix(format!("Bring up scheduler {scheduler}, or correct schedulerName in {}.", subject.target()))
        .field(&subject.me, "spec.schedulerName", scheduler);
    out.push(Trouble::new(Weight::Exact, "", finding));
}

fn tell(subject: &Subject<'_>, event: Option<&Event>, message: &str, out: &mut Vec<Trouble>) {
    let mut finding = preempt::victim(subject)
        .or_else(|| claims(subject, message))
        .unwrap_or_else(|| filters::told(subject, message));
    let text = if message.is_empty() { "Unschedulable".to_owned() } else { quote(message) };
    if subject.condition("PodScheduled").is_some() {
        finding = finding.field(&subject.me, "status.conditions[PodScheduled]", text);
    }
    if let Some(event) = event {
        finding = finding.event(event);
    }
    if let Some(event) = subject.newest(&["NotTriggerScaleUp"], None) {
        finding = finding.event(event);
    }
    out.push(Trouble::new(Weight::Exact, "", finding));
}

/// Trouble of the claims that it mounts.
fn claims(subject: &Subject<'_>, message: &str) -> Option<Finding> {
    let (world, namespace) = (subject.cx.world, subject.namespace());
    if let Some(name) = create::missing_claim(subject) {
        return Some(missing::claim(subject, name));
    }
    let named = between(message, "persistentvolumeclaim \"", "\"").map(|n| n.rsplit('/').next().unwrap_or(n));
    if let Some(name) = named.filter(|_| message.contains("not found")) {
        // It is there by now where it can be seen; where it cannot, the scheduler's word counts.
        if !matches!(world.claims.look(namespace, name), Look::Found(_)) {
            return Some(missing::claim(subject, name));
        }
    }
    let binding = message.contains("unbound immediate PersistentVolumeClaims")
        || message.contains("persistent volumes to bind")
        || message.contains("binding volumes")
        || message.contains("storageclass.storage.k8s.io")
        || message.contains("bound to non-existent pv")
        || (named.is_some() && message.contains("being deleted"));
    if !binding {
        return None;
    }
    let mine = || {
        subject
            .pod
            .spec
            .volumes
            .iter()
            .filter_map(|v| v.persistent_volume_claim.as_ref())
            .map(|c| c.claim_name.as_str())
    };
    let open = mine().find(|c| world.claims.get(namespace, c).is_some_and(|c| c.status.phase != "Bound"));
    let name = named.or(open).or_else(|| mine().next())?;
    let claim = ObjectRef::new("PersistentVolumeClaim", namespace, name);
    let summary = format!("A pod waits for claim {name}, which is not bound to a volume");
    Some(
        subject
            .draft(FaultClass::ClaimPending, summary.clone())
            .because(claim.clone(), format!("Claim {name} is not bound"))
            .fix(format!("Look at why claim {name} is not bound (kubectl describe pvc {name} -n {namespace}): its class, its provisioner, or volumes that fit."))
            .explained_by(claim),
    )
}

/// Assigned to a node that does not exist.
pub(super) fn missing_node(subject: &Subject<'_>, out: &mut Vec<Trouble>) {
    let (pod, name) = (subject.pod, subject.pod.spec.node_name.as_str());
    let status = &pod.status;
    let taken_on = status.start_time.is_some() || !status.pod_ip.is_empty() || !status.container_statuses.is_empty();
    if name.is_empty() || taken_on || !matches!(status.phase.as_str(), "" | "Pending") {
        return;
    }
    if !subject.cx.world.nodes.look("", name).is_missing() {
        return;
    }
    let near = super::text::nearest(name, subject.cx.world.nodes.iter().map(|n| n.metadata.name.as_str()));
    let near = near.map(|n| format!(" There is a node {n}: perhaps that is meant.")).unwrap_or_default();
    let finding = subject
        .draft(FaultClass::MissingNode, format!("A pod is assigned to node {name}, which does not exist: nobody starts it"))
        .because(ObjectRef::new("Node", "", name), format!("Node {name} does not exist"))
        .fix(format!("Take nodeName out of {} and let the scheduler choose (nodeSelector for a kind of node), or bring node {name} back.{near}", subject.target()))
        .field(&subject.me, "spec.nodeName", name);
    out.push(Trouble::new(Weight::Exact, "", finding));
}
