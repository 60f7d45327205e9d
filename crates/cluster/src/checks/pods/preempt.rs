//! Pods that were pushed out by others of a higher priority, and who did it.

use super::facts::{Subject, target};
use super::text::between;
use crate::objects::{Event, Pod};
use crate::{Context, Finding, ObjectRef};
use nightshift_model::FaultClass;
use std::collections::{BTreeMap, BTreeSet};

/// Longest cascade that is followed.
const CASCADE_MAX: usize = 5;

/// Workloads that lost pods, each with the newest event that says so.
pub(super) type Victims<'a> = BTreeMap<ObjectRef, &'a Event>;

/// Who lost pods to others.
pub(super) fn victims<'a>(cx: &Context<'a>) -> Victims<'a> {
    let mut out: Victims<'a> = BTreeMap::new();
    let ours =
        |e: &&Event| e.reason == "Preempted" && e.involved_object.kind == "Pod" && e.message.contains("reempted");
    for event in cx.world.events.iter().filter(ours) {
        let about = &event.involved_object;
        let root = owner(cx, &about.namespace, &about.name);
        let newer = out.get(&root).is_none_or(|old| old.last_seen() <= event.last_seen());
        if newer {
            out.insert(root, event);
        }
    }
    out
}

/// The workload of a pod that may be gone: by its owners, else by its name.
fn owner(cx: &Context<'_>, namespace: &str, name: &str) -> ObjectRef {
    if let Some(pod) = cx.world.pods.get(namespace, name) {
        return cx.root(pod);
    }
    let world = cx.world;
    if let Some((set, suffix)) = name.rsplit_once('-') {
        if let Some(found) = world.replica_sets.get(namespace, set) {
            return cx.root_of("ReplicaSet", &found.metadata);
        }
        if let Some(found) = world.stateful_sets.get(namespace, set).filter(|_| suffix.parse::<u32>().is_ok()) {
            return cx.root_of("StatefulSet", &found.metadata);
        }
        if let Some(found) = world.daemon_sets.get(namespace, set) {
            return cx.root_of("DaemonSet", &found.metadata);
        }
        if let Some(found) = world.jobs.get(namespace, set) {
            return cx.root_of("Job", &found.metadata);
        }
        // A deployment whose replica set is gone too.
        if let Some((deployment, _)) = set.rsplit_once('-')
            && world.deployments.get(namespace, deployment).is_some()
        {
            return ObjectRef::new("Deployment", namespace, deployment);
        }
    }
    ObjectRef::new("Pod", namespace, name)
}

/// The pod that pushed out: by its uid or name in the message, else the highest of the node.
fn preemptor<'a>(cx: &Context<'a>, event: &Event, victim: &ObjectRef) -> Option<&'a Pod> {
    let by = between(&format!("{} ", event.message), "by ", " on node")
        .map(|t| t.trim_start_matches("pod ").trim().to_owned());
    let named = by.as_deref().and_then(|by| match by.split_once('/') {
        Some((namespace, name)) => cx.world.pods.get(namespace, name),
        None => cx.world.pods.iter().find(|p| p.metadata.uid == by || p.metadata.name == by),
    });
    let node = event.message.split("on node ").nth(1)?.split_whitespace().next()?.trim_end_matches('.');
    named.or_else(|| {
        let others = cx.world.pods.iter().filter(|p| p.spec.node_name == node || p.status.nominated_node_name == node);
        others.filter(|p| p.spec.priority.unwrap_or(0) > 0 && cx.root(p) != *victim).max_by_key(|p| p.spec.priority)
    })
}

/// The finding about a pod that has no node because its workload was pushed out.
pub(super) fn victim(subject: &Subject<'_>) -> Option<Finding> {
    let event = subject.victims.get(subject.root)?;
    let finding = told(subject.cx, subject.victims, subject.root, event);
    Some(if subject.me == *subject.root { finding } else { finding.hits(subject.me.clone()) })
}

fn told(cx: &Context<'_>, victims: &Victims<'_>, root: &ObjectRef, event: &Event) -> Finding {
    let node = event
        .message
        .split("on node ")
        .nth(1)
        .and_then(|t| t.split_whitespace().next())
        .unwrap_or("its node")
        .trim_end_matches('.');
    let mut finding = Finding::new(
        FaultClass::Preempted,
        root.clone(),
        format!("Pods of {} were pushed off node {node} by a higher priority and have no place", root.name),
    );
    let mut fix = format!(
        "Add nodes, give {} a higher priorityClassName, or set preemptionPolicy: Never on the class of what pushes it out.",
        target(root)
    );
    // Who pushed, who pushed that one, and so on.
    let (mut seen, mut chain, mut at, mut by) = (BTreeSet::from([root.clone()]), Vec::new(), event, None::<ObjectRef>);
    for _ in 0..CASCADE_MAX {
        let Some(pod) = preemptor(cx, at, by.as_ref().unwrap_or(root)) else { break };
        let pusher = cx.root(pod);
        if !seen.insert(pusher.clone()) {
            break;
        }
        let class = if pod.spec.priority_class_name.is_empty() {
            String::new()
        } else {
            format!(", class {}", pod.spec.priority_class_name)
        };
        chain.push(format!("{pusher} (priority {}{class})", pod.spec.priority.unwrap_or(0)));
        if by.is_none() {
            finding = finding.explained_by(pusher.clone());
            if !pod.spec.priority_class_name.is_empty() {
                fix = format!(
                    "Add nodes, give {} a higher priorityClassName, or set preemptionPolicy: Never on PriorityClass {}.",
                    target(root),
                    pod.spec.priority_class_name
                );
            }
        }
        by = Some(pusher.clone());
        match victims.get(&pusher) {
            Some(next) => at = next,
            None => break,
        }
    }
    if let Some(by) = by {
        let why = format!("It was pushed out by {}", chain.join(", which was itself pushed out by "));
        finding = finding.because(by, why);
    }
    finding.fix(fix).event(event).since(event.first_seen())
}

/// Pods that a workload wants, where it can be seen and has a number.
pub(super) fn wanted(cx: &Context<'_>, root: &ObjectRef) -> Option<i64> {
    let (world, ns, name) = (cx.world, root.namespace.as_str(), root.name.as_str());
    Some(match root.kind.as_str() {
        "Deployment" => world.deployments.get(ns, name)?.spec.wanted(),
        "ReplicaSet" => world.replica_sets.get(ns, name)?.spec.wanted(),
        "StatefulSet" => world.stateful_sets.get(ns, name)?.spec.wanted(),
        "DaemonSet" => world.daemon_sets.get(ns, name)?.status.desired_number_scheduled,
        "Pod" => 1,
        _ => return None,
    })
}

/// Workloads that lost pods and have not got them back, where no pending pod tells of it.
pub(super) fn run(cx: &Context<'_>, victims: &Victims<'_>, out: &mut Vec<Finding>) {
    for (root, event) in victims {
        let told_already = out.iter().any(|f| f.object == *root && f.fault == FaultClass::Preempted);
        let up =
            cx.pods_of(root).iter().filter(|p| p.status.phase == "Running" && p.metadata.deletion_timestamp.is_none());
        let young = cx.pods_of(root).iter().any(|p| p.status.phase == "Pending" && !p.spec.node_name.is_empty());
        if told_already || young || wanted(cx, root).is_none_or(|w| up.count() as i64 >= w) {
            continue;
        }
        out.push(told(cx, victims, root, event));
    }
}
