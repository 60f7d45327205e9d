//! Nodes, versions, the API server, leases.

mod care;
mod control;
mod eviction;
mod leader;
mod machine;
mod ready;
mod version;

use crate::objects::{Event, Node};
use crate::{Context, Finding, ObjectRef};

/// Runs the checks of this group.
pub(super) fn run(cx: &Context<'_>, out: &mut Vec<Finding>) {
    let crowded_out = care::crowded_out(cx);
    for node in cx.world.nodes.iter().filter(|n| !leaving(n)) {
        ready::run(cx, node, out);
        care::run(cx, node, &crowded_out, out);
        eviction::run(cx, node, out);
        machine::run(cx, node, out);
        version::of_node(cx, node, out);
    }
    version::of_control_plane(cx, out);
    control::run(cx, out);
    leader::run(cx, out);
}

/// A reference to a node.
fn of_node(node: &Node) -> ObjectRef {
    ObjectRef::of("Node", &node.metadata)
}

/// All events about a node, oldest first.
fn events_of<'c, 'a>(cx: &'c Context<'a>, node: &Node) -> &'c [&'a Event] {
    cx.events("Node", "", &node.metadata.name)
}

/// Whether somebody is taking the node out of the cluster: its end is no fault.
fn leaving(node: &Node) -> bool {
    // A mere candidate of the autoscaler takes pods as before.
    const TAINTS: [&str; 3] = ["ToBeDeletedByClusterAutoscaler", "karpenter.sh/disrupted", "karpenter.sh/disruption"];
    node.metadata.deletion_timestamp.is_some() || node.spec.taints.iter().any(|t| TAINTS.contains(&t.key.as_str()))
}

/// Adds the workloads and pods of a node to those that suffer.
fn hit(cx: &Context<'_>, mut finding: Finding, node: &str) -> Finding {
    for pod in cx.pods_on(node).iter().filter(|p| !matches!(p.status.phase.as_str(), "Succeeded" | "Failed")) {
        let root = cx.root(pod);
        if root.kind != "Pod" {
            finding = finding.hits(root);
        }
        finding = finding.hits(ObjectRef::of("Pod", &pod.metadata));
    }
    finding
}
