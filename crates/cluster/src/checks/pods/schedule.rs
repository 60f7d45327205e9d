//! Pods without a node: what the scheduler says, and what of it must change.

use super::facts::{Subject, node_is_bad};
use super::text::{amount, between, quote, some, span};
use super::{Trouble, Weight, create, fit, missing, preempt};
use crate::objects::{Event, Node};
use crate::{Finding, Grade, Look, ObjectRef};
use nightshift_model::FaultClass;
use std::collections::BTreeSet;
use std::time::Duration;

/// A node that is being added takes minutes.
const SCALE_UP: Duration = Duration::from_secs(900);
/// A pod that no scheduler has said a word about for so long has none.
const UNSEEN: Duration = Duration::from_secs(600);
/// Nodes that are looked at one by one.
const NODES_MAX: usize = 1000;

/// Why nodes were turned down, in the order in which the scheduler asks: a node that fails late is close to fitting.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Reason {
    Cordoned,
    /// Key and value.
    Taint(String),
    NodeName,
    Affinity,
    Ports,
    /// Resource.
    Insufficient(String),
    TooManyPods,
    VolumeCount,
    VolumeBind,
    Zone,
    Spread,
    PodAffinity,
    AntiAffinity,
    Other(String),
}

/// What the scheduler says of a pod that it cannot place.
fn parse(message: &str) -> Vec<(i64, Reason)> {
    let text = message.split("nodes are available: ").nth(1).unwrap_or(message);
    let text = text.split(". preemption:").next().unwrap_or(text);
    let mut out: Vec<(i64, Reason)> = Vec::new();
    for part in text.split(", ") {
        let part = part.trim().trim_end_matches('.');
        let digits = part.chars().take_while(char::is_ascii_digit).count();
        let (count, rest) = part.split_at(digits);
        let Ok(count) = count.parse::<i64>() else { continue };
        let rest = rest.trim();
        let has = |w: &str| rest.contains(w);
        let reason = if let Some(resource) = rest.strip_prefix("Insufficient ") {
            Reason::Insufficient(resource.split_whitespace().next().unwrap_or_default().to_owned())
        } else if has("Too many pods") {
            Reason::TooManyPods
        } else if has("taint {") {
            Reason::Taint(between(rest, "{", "}").unwrap_or_default().to_owned())
        } else if has("were unschedulable") {
            Reason::Cordoned
        } else if has("anti-affinity") {
            Reason::AntiAffinity
        } else if has("pod affinity rules") {
            Reason::PodAffinity
        } else if has("volume node affinity") || has("volume zone") {
            Reason::Zone
        } else if has("node affinity") || has("node selector") {
            Reason::Affinity
        } else if has("topology spread") {
            Reason::Spread
        } else if has("free ports") {
            Reason::Ports
        } else if has("requested node name") {
            Reason::NodeName
        } else if has("max volume count") {
            Reason::VolumeCount
        } else if has("persistent volumes to bind")
            || has("enough free storage")
            || has("non-existent pv")
            || has("PersistentVolumeClaim")
        {
            Reason::VolumeBind
        } else {
            Reason::Other(rest.to_owned())
        };
        out.push((count, reason));
    }
    out
}

/// Taints that say what a node is or how it does, not whom it is for.
fn of_node_itself(taint: &str) -> bool {
    taint.starts_with("node.kubernetes.io/") || taint.starts_with("node.cloudprovider.kubernetes.io/")
}

fn of_control_plane(taint: &str) -> bool {
    taint.starts_with("node-role.kubernetes.io/control-plane") || taint.starts_with("node-role.kubernetes.io/master")
}

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
    let mut finding =
        preempt::victim(subject).or_else(|| claims(subject, message)).unwrap_or_else(|| filtered(subject, message));
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

/// The filter that must change for the pod to get a node.
fn filtered(subject: &Subject<'_>, message: &str) -> Finding {
    let nodes: Vec<&Node> = subject.cx.world.nodes.iter().take(NODES_MAX).collect();
    let all = parse(message);
    if message.contains("no nodes available") || (all.is_empty() && message.contains("0/0 nodes")) {
        return subject
            .draft(FaultClass::Unschedulable, "The cluster has no nodes: pods cannot run")
            .fix("Add nodes, or bring those that were there back.");
    }
    let soft = |r: &Reason| match r {
        Reason::Cordoned => true,
        Reason::Taint(t) => of_node_itself(t) || of_control_plane(t),
        _ => false,
    };
    let hard: Vec<&(i64, Reason)> = all.iter().filter(|(_, r)| !soft(r)).collect();
    let taint_of_fitting = || {
        // A node that has what no other has, kept by its taint.
        nodes.iter().any(|n| {
            fit::selected(n, subject.pod)
                && fit::too_large(n, subject.pod).is_none()
                && fit::untolerated(n, subject.pod).next().is_some()
        }) && nodes
            .iter()
            .all(|n| fit::too_large(n, subject.pod).is_some() || fit::untolerated(n, subject.pod).next().is_some())
    };
    let deepest = hard.iter().map(|(_, r)| r).max();
    match deepest {
        None => by_nodes(subject, &nodes, &all, message),
        Some(Reason::Insufficient(_))
            if hard.iter().any(|(_, r)| matches!(r, Reason::Taint(_))) && !nodes.is_empty() && taint_of_fitting() =>
        {
            taints(subject, &nodes, &hard)
        }
        Some(Reason::Taint(_)) => taints(subject, &nodes, &hard),
        Some(Reason::Insufficient(_)) => short(subject, &nodes, &hard),
        Some(Reason::TooManyPods) => {
            let mut finding = subject
                .draft(FaultClass::Unschedulable, "No node has room for a pod: they hold as many pods as they may")
                .fix("Add nodes, or raise maxPods of the kubelets.");
            let full = |n: &&&Node| {
                n.status
                    .allocatable
                    .get("pods")
                    .is_some_and(|q| subject.cx.pods_on(&n.metadata.name).len() as f64 >= q.0)
            };
            for node in nodes.iter().filter(full).take(8) {
                finding = finding.explained_by(ObjectRef::of("Node", &node.metadata));
            }
            finding
        }
        Some(Reason::Affinity | Reason::NodeName) => affinity(subject, &nodes),
        Some(Reason::AntiAffinity) => anti_affinity(subject),
        Some(Reason::PodAffinity) => {
            let selector = required(subject, false);
            subject
                .draft(
                    FaultClass::AffinityUnmet,
                    format!("A pod must be near pods{selector}, and no node has such a pod"),
                )
                .because(
                    subject.root.clone(),
                    format!("Its pod affinity asks for pods{selector}, and none runs where it could"),
                )
                .fix(format!(
                    "Start the pods that it must be near, correct podAffinity in {}, or make it preferred.",
                    subject.target()
                ))
        }
        Some(Reason::Spread) => spread(subject),
        Some(Reason::Zone) => zone(subject),
        Some(Reason::VolumeBind) => subject
            .draft(FaultClass::VolumeZoneConflict, format!("No node can have the volumes of a pod: {}", quote(message)))
            .fix(format!(
                "Look at the claims of {} and the nodes that their volumes can be reached from.",
                subject.target()
            )),
        Some(Reason::VolumeCount) => subject
            .draft(FaultClass::Unschedulable, "Every node has as many volumes attached as it may")
            .fix("Add nodes, or spread the pods with volumes over more of them."),
        Some(Reason::Ports) => ports(subject),
        Some(Reason::Other(text)) => subject
            .draft(FaultClass::Unschedulable, format!("No node takes a pod: {}", quote(text)))
            .fix(format!("Correct what the scheduler names in {}, or add nodes that fit.", subject.target())),
        Some(Reason::Cordoned) => by_nodes(subject, &nodes, &all, message),
    }
}

/// Nodes that do not take any pods: cordoned, not ready, under pressure, of the control plane; or nothing was said.
fn by_nodes(subject: &Subject<'_>, nodes: &[&Node], all: &[(i64, Reason)], message: &str) -> Finding {
    let itself =
        |n: &&&Node| n.spec.unschedulable || node_is_bad(n) || n.spec.taints.iter().any(|t| of_node_itself(&t.key));
    let closed: Vec<&&Node> = nodes.iter().filter(itself).collect();
    let cordoned = all.iter().any(|(_, r)| {
        *r == Reason::Cordoned || matches!(r, Reason::Taint(t) if t.starts_with("node.kubernetes.io/unschedulable"))
    });
    let itself = all.iter().any(|(_, r)| matches!(r, Reason::Taint(t) if of_node_itself(t))) || cordoned;
    if all.is_empty() || !itself {
        let control = all.iter().any(|(_, r)| matches!(r, Reason::Taint(_)));
        if control {
            return subject
                .draft(
                    FaultClass::UntoleratedTaint,
                    "Only nodes of the control plane are there, and their taint keeps pods away",
                )
                .because(
                    subject.root.clone(),
                    "It does not tolerate the taint of the control plane's nodes, and there are no others",
                )
                .fix(format!(
                    "Add worker nodes, or tolerate node-role.kubernetes.io/control-plane in {}.",
                    subject.target()
                ));
        }
        let said = if message.is_empty() { "the scheduler does not say why".into() } else { quote(message) };
        return subject
            .draft(FaultClass::Unschedulable, format!("No node takes a pod of {}: {said}", subject.root.name))
            .fix(format!(
                "Compare requests, selectors and tolerations of {} with the nodes (kubectl describe nodes).",
                subject.target()
            ));
    }
    let names = some(closed.iter().map(|n| n.metadata.name.as_str()));
    let state = if cordoned { "cordoned" } else { "not ready or under pressure" };
    let place = if names.is_empty() { String::new() } else { format!(": {names}") };
    let mut finding = subject
        .draft(
            FaultClass::Unschedulable,
            format!("No node takes a pod of {}: the nodes that could are {state}{place}", subject.root.name),
        )
        .fix(if cordoned {
            format!(
                "Uncordon a node (kubectl uncordon {}), or add one.",
                closed.first().map_or("NODE", |n| n.metadata.name.as_str())
            )
        } else {
            "Bring the nodes back, or add others.".to_owned()
        });
    if let Some(node) = closed.first() {
        let node = ObjectRef::of("Node", &node.metadata);
        finding = finding.because(node, format!("Nodes {names} take no pods: {state}"));
    }
    for node in closed.iter().take(8) {
        finding = finding.explained_by(ObjectRef::of("Node", &node.metadata));
    }
    finding
}

fn taints(subject: &Subject<'_>, nodes: &[&Node], hard: &[&(i64, Reason)]) -> Finding {
    let said: BTreeSet<&str> =
        hard.iter().filter_map(|(_, r)| if let Reason::Taint(t) = r { Some(t.as_str()) } else { None }).collect();
    let taint = some(said.iter().copied());
    let first = said.first().copied().unwrap_or_default();
    let (key, value) = first.split_once(": ").unwrap_or((first.trim_end_matches(':'), ""));
    let has = |n: &&&Node| n.spec.taints.iter().any(|t| t.key == key);
    let with: Vec<&str> = nodes.iter().filter(has).map(|n| n.metadata.name.as_str()).collect();
    let effect = nodes
        .iter()
        .flat_map(|n| n.spec.taints.iter())
        .find(|t| t.key == key)
        .map_or("NoSchedule", |t| t.effect.as_str());
    let place = if with.is_empty() { String::new() } else { format!(" on {}", some(with.iter().copied())) };
    let operator = if value.is_empty() { "operator: Exists".to_owned() } else { format!("value: {value}") };
    let mut finding = subject
        .draft(FaultClass::UntoleratedTaint, format!("A pod of {} does not tolerate taint {{{taint}}} of the nodes that it fits", subject.root.name))
        .because(subject.root.clone(), format!("Taint {{{taint}}}{place} keeps it away, and it has no toleration for it"))
        .fix(format!(
            "Add a toleration (key: {key}, {operator}, effect: {effect}) to {}, or take the taint off a node (kubectl taint nodes NODE {key}-).",
            subject.target()
        ));
    for name in with.iter().take(2) {
        finding = finding.field(&ObjectRef::new("Node", "", *name), "spec.taints", format!("{key}={value}:{effect}"));
    }
    finding
}

fn short(subject: &Subject<'_>, nodes: &[&Node], hard: &[&(i64, Reason)]) -> Finding {
    let resources: BTreeSet<&str> = hard
        .iter()
        .filter_map(|(_, r)| if let Reason::Insufficient(r) = r { Some(r.as_str()) } else { None })
        .collect();
    let asked = fit::requests(subject.pod);
    let wants: Vec<String> =
        resources.iter().map(|r| asked.get(*r).map_or((*r).to_owned(), |a| format!("{} {r}", amount(r, *a)))).collect();
    let wants = wants.join(" and ");
    let names = resources.iter().copied().collect::<Vec<_>>().join(" and ");
    // Whether it could ever fit: then the cluster is full, else the request is too large.
    let may: Vec<&&Node> = nodes
        .iter()
        .filter(|n| fit::selected(n, subject.pod) && fit::untolerated(n, subject.pod).next().is_none())
        .collect();
    let never = !may.is_empty() && may.iter().all(|n| fit::too_large(n, subject.pod).is_some());
    let largest = resources.first().and_then(|r| {
        may.iter().filter_map(|n| n.status.allocatable.get(*r)).map(|q| q.0).reduce(f64::max).map(|q| (*r, q))
    });
    let (why, fix) = match (never, largest) {
        (true, Some((r, most))) => (
            format!("It asks for {wants}, more than any node has even when empty (at most {} {r})", amount(r, most)),
            format!("Ask for less in {}, or add nodes that are large enough.", subject.target()),
        ),
        (true, None) => (
            format!("No node offers {names} at all"),
            format!("Add nodes with {names}, or take the request out of {}.", subject.target()),
        ),
        _ => (
            format!("The nodes have no {names} left for it: it asks for {wants}"),
            format!(
                "Add nodes, lower the requests of {} to what it uses, or free room by scaling something down.",
                subject.target()
            ),
        ),
    };
    let mut finding = subject
        .draft(
            FaultClass::Unschedulable,
            format!("No node has enough {names} for a pod of {}, which asks for {wants}", subject.root.name),
        )
        .because(subject.root.clone(), why)
        .fix(fix);
    for resource in resources {
        if let Some(a) = asked.get(resource) {
            finding = finding.field(
                &subject.me,
                &format!("spec.containers[*].resources.requests.{resource}"),
                amount(resource, *a),
            );
        }
    }
    // Nodes that are out of service take the room with them.
    for node in nodes
        .iter()
        .filter(|n| node_is_bad(n) && fit::selected(n, subject.pod) && fit::too_large(n, subject.pod).is_none())
        .take(8)
    {
        finding = finding.explained_by(ObjectRef::of("Node", &node.metadata));
    }
    finding
}

fn affinity(subject: &Subject<'_>, nodes: &[&Node]) -> Finding {
    let spec = &subject.pod.spec;
    let mut wants: Vec<String> = spec.node_selector.iter().map(|(n, v)| format!("{n}={v}")).collect();
    let terms = spec
        .affinity
        .as_ref()
        .and_then(|a| a.node_affinity.as_ref())
        .and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref());
    let any = |t: &crate::objects::NodeTerm| {
        t.match_expressions
            .iter()
            .chain(t.match_fields.iter())
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join(" and ")
    };
    if let Some(terms) = terms {
        wants.push(terms.node_selector_terms.iter().map(any).collect::<Vec<_>>().join(" or "));
    }
    let wants = if wants.is_empty() { "labels".to_owned() } else { wants.join(" and ") };
    // One label that no node has as it is asked for, and what nodes have instead.
    let unmet = spec.node_selector.iter().find(|(n, v)| !nodes.iter().any(|x| x.metadata.labels.get(n) == Some(v)));
    let note = unmet.filter(|_| !nodes.is_empty()).map(|(n, _)| {
        let have: BTreeSet<&str> = nodes.iter().filter_map(|x| x.metadata.labels.get(n)).collect();
        if have.is_empty() {
            format!("; no node has a label {n}")
        } else {
            format!("; nodes have {n}={}", some(have.into_iter()))
        }
    });
    let label = unmet.map(|(n, v)| format!("{n}={v}"));
    let give = label.map(|l| format!(", or label a node (kubectl label nodes NODE {l})")).unwrap_or_default();
    subject
        .draft(
            FaultClass::AffinityUnmet,
            format!("No node has what a pod of {} asks of its node: {wants}", subject.root.name),
        )
        .because(
            subject.root.clone(),
            format!("Its node selector or affinity asks for {wants}{}", note.unwrap_or_default()),
        )
        .fix(format!("Correct nodeSelector or nodeAffinity in {}{give}.", subject.target()))
        .field(&subject.me, "spec.nodeSelector", wants)
}

/// Selector and place of the first required pod (anti-)affinity.
fn required(subject: &Subject<'_>, anti: bool) -> String {
    let affinity = subject.pod.spec.affinity.as_ref();
    let terms = affinity.and_then(|a| if anti { a.pod_anti_affinity.as_ref() } else { a.pod_affinity.as_ref() });
    let term = terms.and_then(|t| t.required_during_scheduling_ignored_during_execution.first());
    term.map_or(String::new(), |t| {
        let selector = t.label_selector.as_ref().map(|s| format!(" `{s}`")).unwrap_or_default();
        format!("{selector} per {}", t.topology_key)
    })
}

fn anti_affinity(subject: &Subject<'_>) -> Finding {
    let asks = required(subject, true);
    let others = subject.cx.pods_of(subject.root).iter().filter(|p| !p.spec.node_name.is_empty()).count();
    let own = if others > 0 { format!("; {others} of its pods hold the places there are") } else { String::new() };
    subject
        .draft(
            FaultClass::AntiAffinityDeadlock,
            format!("A pod of {} may not be beside pods{asks}, and every node it fits has one", subject.root.name),
        )
        .because(subject.root.clone(), format!("Its required pod anti-affinity{asks} leaves no node{own}"))
        .fix(format!(
            "Make the anti-affinity of {} preferred, run fewer replicas than there are places, or add nodes.",
            subject.target()
        ))
        .field(&subject.me, "spec.affinity.podAntiAffinity", asks)
}

fn spread(subject: &Subject<'_>) -> Finding {
    let constraints = subject.pod.spec.topology_spread_constraints.iter();
    let hard: Vec<String> = constraints
        .filter(|c| c.when_unsatisfiable != "ScheduleAnyway")
        .map(|c| format!("{} with maxSkew {}", c.topology_key, c.max_skew))
        .collect();
    let hard = if hard.is_empty() { "its constraints".to_owned() } else { hard.join(", ") };
    let key = subject.pod.spec.topology_spread_constraints.iter().map(|c| c.topology_key.as_str()).find(|k| {
        let nodes = &subject.cx.world.nodes;
        !nodes.is_empty() && !nodes.iter().any(|n| n.metadata.labels.get(k).is_some())
    });
    let note = key.map(|k| format!("; no node has a label {k}")).unwrap_or_default();
    subject
        .draft(
            FaultClass::TopologySpreadImpossible,
            format!("A pod of {} cannot be placed without breaking its topology spread constraints", subject.root.name),
        )
        .because(subject.root.clone(), format!("Its spread over {hard} cannot be kept on the nodes there are{note}"))
        .fix(format!(
            "Set whenUnsatisfiable: ScheduleAnyway or a larger maxSkew in {}, or add nodes where there are too few.",
            subject.target()
        ))
        .field(&subject.me, "spec.topologySpreadConstraints", hard)
}

fn zone(subject: &Subject<'_>) -> Finding {
    let world = subject.cx.world;
    let claims = subject.pod.spec.volumes.iter().filter_map(|v| v.persistent_volume_claim.as_ref());
    let bound = claims
        .filter_map(|c| world.claims.get(subject.namespace(), &c.claim_name))
        .filter(|c| !c.spec.volume_name.is_empty());
    let mut with: Vec<_> = bound.filter_map(|c| world.volumes.get("", &c.spec.volume_name).map(|v| (c, v))).collect();
    with.sort_by_key(|(_, v)| v.spec.node_affinity.is_none());
    let mut finding = subject.draft(
        FaultClass::VolumeZoneConflict,
        format!("A pod of {} cannot run where its volume is: no node there takes it", subject.root.name),
    );
    if let Some((claim, volume)) = with.first() {
        let affinity = volume.spec.node_affinity.as_ref();
        let terms = affinity.and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref());
        let place = terms.map(|t| {
            t.node_selector_terms
                .iter()
                .flat_map(|t| t.match_expressions.iter())
                .map(ToString::to_string)
                .collect::<Vec<_>>()
                .join(" and ")
        });
        let object = ObjectRef::of("PersistentVolume", &volume.metadata);
        let place = place.unwrap_or_default();
        finding = finding
            .because(
                object.clone(),
                format!(
                    "Volume {} of claim {} can be used only on nodes with {place}",
                    volume.metadata.name, claim.metadata.name
                ),
            )
            .field(&object, "spec.nodeAffinity", place)
            .explained_by(object)
            .explained_by(ObjectRef::of("PersistentVolumeClaim", &claim.metadata));
    }
    finding.fix(format!("Let {} run where its volume is (nodeSelector, room on the nodes of that zone), or move the data to a volume in another zone; bind new volumes late (WaitForFirstConsumer).", subject.target()))
}

fn ports(subject: &Subject<'_>) -> Finding {
    let ports: BTreeSet<i64> =
        subject.parts().flat_map(|p| p.spec.ports.iter().map(|p| p.host_port)).filter(|p| *p > 0).collect();
    let text = ports.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let has = |p: &&crate::objects::Pod| {
        !p.spec.node_name.is_empty()
            && p.metadata.name != subject.name()
            && p.spec.containers.iter().flat_map(|c| c.ports.iter()).any(|c| ports.contains(&c.host_port))
    };
    let holder = subject.cx.world.pods.iter().find(has).map(|p| subject.cx.root(p));
    let by = holder.as_ref().map(|h| format!(" by {h}")).unwrap_or_default();
    subject
        .draft(
            FaultClass::PortConflict,
            format!("Host port {text}, which a pod of {} wants, is taken on every node it fits", subject.root.name),
        )
        .because(subject.root.clone(), format!("Host port {text} is taken{by}"))
        .fix(format!(
            "Take hostPort out of {}, or give it another; a Service or a DaemonSet needs none.",
            subject.target()
        ))
        .field(&subject.me, "spec.containers[*].ports[*].hostPort", text)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_scheduler_says_is_read() {
        let read = parse(
            "0/6 nodes are available: 1 node(s) had untolerated taint {node-role.kubernetes.io/control-plane: }, 2 Insufficient cpu, 1 Insufficient memory, 1 node(s) didn't match Pod's node affinity/selector, 1 node(s) were unschedulable. preemption: 0/6 nodes are available: 6 No preemption victims found for incoming pod.",
        );
        assert_eq!(
            read,
            [
                (1, Reason::Taint("node-role.kubernetes.io/control-plane: ".into())),
                (2, Reason::Insufficient("cpu".into())),
                (1, Reason::Insufficient("memory".into())),
                (1, Reason::Affinity),
                (1, Reason::Cordoned),
            ]
        );
        let one = |text: &str| parse(text).into_iter().map(|(_, r)| r).max();
        assert_eq!(one("0/1 nodes are available: 1 node(s) had volume node affinity conflict."), Some(Reason::Zone));
        assert_eq!(
            one("0/1 nodes are available: 1 node(s) didn't match pod anti-affinity rules."),
            Some(Reason::AntiAffinity)
        );
        assert_eq!(
            one("0/1 nodes are available: 1 Insufficient nvidia.com/gpu."),
            Some(Reason::Insufficient("nvidia.com/gpu".into()))
        );
        assert_eq!(one(""), None);
    }
}
