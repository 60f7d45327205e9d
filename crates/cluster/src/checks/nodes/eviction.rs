//! Eviction thresholds and reservations of nodes that make no sense.

use super::{events_of, of_node};
use crate::checks::words;
use crate::objects::{Amounts, Event, Node};
use crate::{Context, Finding, ObjectRef};
use nightshift_model::FaultClass;

/// Share of a node that reservations and thresholds may take: the most that large clouds reserve is a third of the
/// smallest machines.
const RESERVED_MAX: f64 = 0.5;
/// Times a pressure came and went that are no accident.
const FLAPS_MIN: i64 = 3;
/// Share of memory in use below which no threshold should be met.
const USED_LOW: f64 = 0.6;

/// Runs the check.
pub(super) fn run(cx: &Context<'_>, node: &Node, out: &mut Vec<Finding>) {
    let me = of_node(node);
    let reserved = reserved(node, &me);
    let found = reserved
        .or_else(|| refused(cx, node, &me))
        .or_else(|| flapping(cx, node, &me))
        .or_else(|| eager(cx, node, &me));
    out.extend(found.map(Finding::generic));
}

fn finding(me: &ObjectRef, why: String, fix: &str) -> Finding {
    Finding::new(
        FaultClass::EvictionMisconfigured,
        me.clone(),
        format!("the eviction settings of node {} make no sense", me.name),
    )
    .because(me.clone(), why)
    .fix(format!("{fix} in the kubelet's configuration of node {}, and restart its kubelet", me.name))
}

/// Most of the node is kept from pods.
fn reserved(node: &Node, me: &ObjectRef) -> Option<Finding> {
    let of = |amounts: &Amounts, name: &str| amounts.get(name).map(|q| q.0);
    for resource in ["memory", "ephemeral-storage"] {
        let (Some(capacity), Some(free)) =
            (of(&node.status.capacity, resource), of(&node.status.allocatable, resource))
        else {
            continue;
        };
        // Huge pages are taken from memory and offered apart.
        let huge: f64 =
            node.status.capacity.iter().filter(|(n, _)| n.starts_with("hugepages-")).map(|(_, q)| q.0).sum();
        let capacity = if resource == "memory" { capacity - huge } else { capacity };
        if capacity > 0.0 && free < capacity * (1.0 - RESERVED_MAX) {
            let why = format!(
                "of {} {resource} pods may use {}: reservations and hard eviction thresholds take the rest",
                words::bytes(capacity),
                words::bytes(free)
            );
            let fix = "Lower evictionHard, kubeReserved or systemReserved";
            return Some(
                finding(me, why, fix).field(me, &format!("status.capacity.{resource}"), words::bytes(capacity)).field(
                    me,
                    &format!("status.allocatable.{resource}"),
                    words::bytes(free),
                ),
            );
        }
    }
    None
}

/// The kubelet itself says so.
fn refused(cx: &Context<'_>, node: &Node, me: &ObjectRef) -> Option<Finding> {
    let reasons = ["FailedNodeAllocatableEnforcement", "EvictionThresholdInvalid", "InvalidEvictionThreshold"];
    let event = events_of(cx, node).iter().rev().find(|e| reasons.contains(&e.reason.as_str()))?;
    Some(
        finding(
            me,
            format!("its kubelet cannot apply them: {}", event.message),
            "Correct evictionHard and the reservations",
        )
        .event(event),
    )
}

/// A pressure comes and goes.
fn flapping(cx: &Context<'_>, node: &Node, me: &ObjectRef) -> Option<Finding> {
    for (on, off, what) in [
        ("NodeHasDiskPressure", "NodeHasNoDiskPressure", "disk"),
        ("NodeHasInsufficientMemory", "NodeHasSufficientMemory", "memory"),
        ("NodeHasInsufficientPID", "NodeHasSufficientPID", "process"),
    ] {
        let of = |reason: &str| -> Vec<&Event> {
            events_of(cx, node).iter().filter(|e| e.reason == reason).copied().collect()
        };
        let (came, went) = (of(on), of(off));
        let times = |events: &[&Event]| events.iter().map(|e| e.times()).sum::<i64>();
        if times(&came) >= FLAPS_MIN && times(&went) >= FLAPS_MIN {
            let why = format!(
                "{what} pressure came {} times and went again: what eviction frees is used up at once",
                times(&came)
            );
            let fix = "Raise evictionMinimumReclaim and evictionPressureTransitionPeriod, or move the thresholds away from normal use,";
            return Some(came.iter().chain(&went).rev().take(2).fold(finding(me, why, fix), |f, e| f.event(e)));
        }
    }
    None
}

/// Thresholds are met although there is plenty.
fn eager(cx: &Context<'_>, node: &Node, me: &ObjectRef) -> Option<Finding> {
    let met = events_of(cx, node)
        .iter()
        .rev()
        .find(|e| e.reason == "EvictionThresholdMet" && e.message.contains("memory"))?;
    let capacity = node.status.capacity.get("memory")?.0;
    let used = cx.world.node_usage.get(&me.name)?.memory;
    if !(capacity > 0.0 && used > 0.0 && used < capacity * USED_LOW)
        || node.status.conditions.when("MemoryPressure", "True").is_some()
    {
        return None;
    }
    let why =
        format!("its memory threshold was met while {} of {} were used", words::bytes(used), words::bytes(capacity));
    Some(finding(me, why, "Lower the memory.available threshold").event(met).fact(
        format!("metric/node/{}#memory", me.name),
        "metric",
        format!("{used:.0} of {capacity:.0} bytes"),
    ))
}
