//! Why no node takes a pod: which of the scheduler's filters must change.

use super::facts::{Subject, node_is_bad};
use super::text::{amount, between, quote, some};
use super::{affinities, fit};
use crate::objects::Node;
use crate::{Finding, ObjectRef};
use nightshift_model::FaultClass;
use std::collections::BTreeSet;

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

/// The filter that must change for the pod to get a node.
pub(super) fn told(subject: &Subject<'_>, message: &str) -> Finding {
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
        Some(Reason::Affinity | Reason::NodeName) => affinities::affinity(subject, &nodes),
        Some(Reason::AntiAffinity) => affinities::anti_affinity(subject),
        Some(Reason::PodAffinity) => {
            let selector = affinities::required(subject, false);
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
        Some(Reason::Spread) => affinities::spread(subject),
        Some(Reason::Zone) => affinities::zone(subject),
        Some(Reason::VolumeBind) => subject
            .draft(FaultClass::VolumeZoneConflict, format!("No node can have the volumes of a pod: {}", quote(message)))
            .fix(format!(
                "Look at the claims of {} and the nodes that their volumes can be reached from.",
                subject.target()
            )),
        Some(Reason::VolumeCount) => subject
            .draft(FaultClass::Unschedulable, "Every node has as many volumes attached as it may")
            .fix("Add nodes, or spread the pods with volumes over more of them."),
        Some(Reason::Ports) => affinities::ports(subject),
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
