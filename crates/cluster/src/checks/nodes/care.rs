//! Nodes that want a hand: cordoned and forgotten, full of pods, kubelets that keep restarting.

use super::{events_of, of_node};
use crate::checks::words;
use crate::objects::{Event, Node};
use crate::{Context, Finding, Grade, ObjectRef};
use nightshift_model::{FaultClass, Timestamp};
use std::time::Duration;

/// Work on a node takes less; a cordon that is older was forgotten.
const CORDON_MAX: Duration = Duration::from_secs(3600);
/// Starts of a kubelet within an hour that are no upgrade any more.
const STARTS_MIN: i64 = 3;
/// The hour.
const STARTS_WITHIN: Duration = Duration::from_secs(3600);
/// Smallest limit of pods for which nearly full counts as full.
const LIMIT_LARGE: usize = 20;

/// Runs the checks of a node.
pub(super) fn run(cx: &Context<'_>, node: &Node, crowded_out: &[ObjectRef], out: &mut Vec<Finding>) {
    out.extend(cordoned(cx, node));
    out.extend(too_many(cx, node, crowded_out));
    out.extend(restarting(cx, node));
}

/// Pods and their workloads that the scheduler could not place as nodes are full of pods.
pub(super) fn crowded_out(cx: &Context<'_>) -> Vec<ObjectRef> {
    let told = |c: &crate::objects::Condition| c.message.contains("Too many pods");
    let mut out: Vec<ObjectRef> = Vec::new();
    for pod in cx.world.pods.iter().filter(|p| p.spec.node_name.is_empty()) {
        if pod.status.conditions.when("PodScheduled", "False").is_some_and(told) {
            out.push(cx.root(pod));
            out.push(ObjectRef::of("Pod", &pod.metadata));
        }
    }
    out.sort();
    out.dedup();
    out
}

fn cordoned(cx: &Context<'_>, node: &Node) -> Option<Finding> {
    if !node.spec.unschedulable {
        return None;
    }
    // The server writes the time beside the taint; a node cordoned by hand without controllers has none.
    let taint = node.spec.taints.iter().find(|t| t.key == "node.kubernetes.io/unschedulable");
    let at: Option<Timestamp> = taint.and_then(|t| t.time_added);
    let age = at.map(|at| cx.age(at));
    let draining = cx.pods_on(&node.metadata.name).iter().any(|p| p.metadata.deletion_timestamp.is_some());
    if draining || age.is_some_and(|a| a < CORDON_MAX) {
        return None;
    }
    let me = of_node(node);
    let time = age.map_or(String::new(), |a| format!(" for {}", words::duration(a)));
    let who = node
        .metadata
        .managed_fields
        .iter()
        .filter(|m| m.subresource.is_empty())
        .find(|m| m.manager.contains("cordon") || m.manager.contains("drain"));
    let who = who.map_or(String::new(), |m| format!(" by {}", m.manager));
    Some(
        Finding::new(FaultClass::NodeCordoned, me.clone(), format!("node {} takes no new pods{time}", me.name))
            .because(me.clone(), format!("it was cordoned{who}{time} and nobody works on it"))
            .fix(format!(
                "If the work on it is done: kubectl uncordon {}; if it is to go: drain and delete it",
                me.name
            ))
            .graded(Grade::Low)
            .field(&me, "spec.unschedulable", "true")
            .since(at)
            .generic(),
    )
}

fn too_many(cx: &Context<'_>, node: &Node, crowded_out: &[ObjectRef]) -> Option<Finding> {
    let limit = node.status.allocatable.get("pods").or_else(|| node.status.capacity.get("pods"))?.0;
    let limit = if limit >= 1.0 { limit as usize } else { return None };
    let me = of_node(node);
    let pods =
        cx.pods_on(&me.name).iter().filter(|p| !matches!(p.status.phase.as_str(), "Succeeded" | "Failed")).count();
    let full = pods >= limit || (limit >= LIMIT_LARGE && pods * 100 > limit * 95);
    if !full {
        return None;
    }
    let waiting = if crowded_out.is_empty() { String::new() } else { ", and pods wait because of it".to_owned() };
    let finding = Finding::new(
        FaultClass::TooManyPods,
        me.clone(),
        format!("node {} runs {pods} pods of {limit} that it may{waiting}", me.name),
    )
    .because(me.clone(), format!("its kubelet takes {limit} pods at most, whatever CPU and memory are left"))
    .fix(format!(
        "Add a node, move pods away from {}, or raise its kubelet's maxPods (with enough pod addresses)",
        me.name
    ))
    .field(&me, "status.allocatable.pods", limit.to_string())
    .fact(format!("node/{}#pods", me.name), "node", format!("{pods} pods are bound to it and have not ended"));
    Some(crowded_out.iter().fold(finding, |f, o| f.hits(o.clone())))
}

fn restarting(cx: &Context<'_>, node: &Node) -> Option<Finding> {
    let me = of_node(node);
    let condition = node.status.conditions.when("FrequentKubeletRestart", "True");
    let is_start = |e: &&&Event| {
        (e.reason == "Starting" && e.message.to_ascii_lowercase().contains("kubelet"))
            || e.reason == "FrequentKubeletRestart"
    };
    let starts: Vec<&Event> = events_of(cx, node).iter().filter(is_start).copied().collect();
    let newest = starts.iter().filter_map(|e| e.last_seen()).max();
    let oldest_counted = newest.map(|at| at - STARTS_WITHIN);
    // Of an event that was counted over a long time, only the share of the last hour.
    let times: f64 = starts
        .iter()
        .filter(|e| e.last_seen() >= oldest_counted)
        .map(|e| {
            let span = e.first_seen().zip(e.last_seen()).map_or(0.0, |(a, b)| b.since(a).as_secs_f64());
            let hours = (span / STARTS_WITHIN.as_secs_f64()).max(1.0);
            e.times() as f64 / hours
        })
        .sum();
    let often = times >= STARTS_MIN as f64 || starts.iter().any(|e| e.reason == "FrequentKubeletRestart");
    if condition.is_none() && !often {
        return None;
    }
    let count = if often && times >= 2.0 { format!(" ({times:.0} starts within an hour)") } else { String::new() };
    let mut finding = Finding::new(FaultClass::KubeletRestarting, me.clone(), format!("the kubelet of node {} keeps restarting{count}", me.name))
        .because(me.clone(), format!("its kubelet starts again and again{count}: pods on it lose probes, logs and updates meanwhile"))
        .fix(format!("Read the kubelet's log on node {} (journalctl -u kubelet) for what ends it: its configuration, its certificate, memory; kubectl drain {} --ignore-daemonsets until it is stable", me.name, me.name))
        .since(starts.iter().filter_map(|e| e.first_seen()).min());
    if let Some(condition) = condition {
        finding =
            finding.field(&me, "status.conditions[FrequentKubeletRestart]", format!("True {}", condition.message));
    }
    Some(starts.iter().rev().take(3).fold(finding, |f, e| f.event(e)))
}
