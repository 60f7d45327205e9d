//! Nodes that are not ready, short of something, or without a network.
//!
//! Only the conditions that Kubernetes itself defines count. Others are set by whoever likes to, and may say `True` about
//! something good.

use super::{events_of, hit, of_node};
use crate::checks::words;
use crate::objects::{Condition, Node};
use crate::{Context, Finding, Grade};
use nightshift_model::FaultClass;

/// Pressures: condition, what is short, what to do.
const PRESSURES: [(&str, &str, &str); 3] = [
    (
        "MemoryPressure",
        "memory",
        "Find what uses most memory on it (kubectl top pods --all-namespaces), give it a limit or move it, and request what is used",
    ),
    (
        "DiskPressure",
        "disk",
        "Remove unused images and old logs, give pods limits of ephemeral storage, or give the node a larger disk",
    ),
    ("PIDPressure", "processes", "Find the pod that starts too many processes, and set a limit of processes per pod"),
];

/// Runs the checks.
pub(super) fn run(cx: &Context<'_>, node: &Node, out: &mut Vec<Finding>) {
    let conditions = &node.status.conditions;
    let short: Vec<(&Condition, &str, &str)> = PRESSURES
        .iter()
        .filter_map(|(kind, what, fix)| conditions.when(kind, "True").map(|c| (c, *what, *fix)))
        .collect();
    // A node that never reported is young; one whose reports stopped says `Unknown`.
    if let Some(ready) = conditions.of("Ready").filter(|c| c.status != "True") {
        out.push(not_ready(cx, node, ready, &short));
        return;
    }
    if let Some(condition) = conditions.when("NetworkUnavailable", "True") {
        out.push(no_network(cx, node, condition));
    }
    if !short.is_empty() {
        out.push(pressure(cx, node, &short));
    }
    let oom = events_of(cx, node).iter().rev().find(|e| e.reason == "SystemOOM");
    if let Some(event) = oom.filter(|_| short.is_empty()) {
        let me = of_node(node);
        let finding = Finding::new(FaultClass::NodePressure, me.clone(), format!("node {} ran out of memory as a whole", me.name))
            .because(me.clone(), format!("the kernel killed processes outside of any pod's limit: {}", event.message))
            .fix("Reserve memory for the system on this node (kube-reserved, system-reserved), and give pods without one a memory limit")
            .since(event.first_seen())
            .event(event);
        out.push(finding);
    }
}

fn since(cx: &Context<'_>, condition: &Condition) -> String {
    condition.last_transition_time.map_or(String::new(), |at| format!(" for {}", words::duration(cx.age(at))))
}

/// A condition as evidence.
fn told(finding: Finding, node: &Node, condition: &Condition) -> Finding {
    let text = format!("{} {} {}", condition.status, condition.reason, condition.message);
    finding.field(&of_node(node), &format!("status.conditions[{}]", condition.kind), text.trim())
}

fn not_ready(cx: &Context<'_>, node: &Node, ready: &Condition, short: &[(&Condition, &str, &str)]) -> Finding {
    let me = of_node(node);
    let name = &me.name;
    let text = ready.message.to_ascii_lowercase();
    let has = |words: &[&str]| words.iter().any(|w| text.contains(w));
    let off = node.spec.taints.iter().any(|t| t.key == "node.cloudprovider.kubernetes.io/shutdown");
    let said = if ready.message.is_empty() { String::new() } else { format!(": {}", ready.message) };
    let (why, fix) = if off {
        (
            "its machine is shut down at the provider".to_owned(),
            format!("Start the machine, or take the node out: kubectl delete node {name}"),
        )
    } else if ready.status == "Unknown" {
        (
            format!("its kubelet has stopped reporting{said}"),
            format!(
                "See whether the machine runs and reaches the API server; restart its kubelet. If it does not come back: kubectl drain {name} --ignore-daemonsets, then replace it"
            ),
        )
    } else if has(&["cni", "network plugin", "networkpluginnotready", "network not ready"]) {
        (
            format!("its network plugin is not ready{said}"),
            format!(
                "See why the network plugin's pod on node {name} does not run (its daemon set, its configuration in /etc/cni/net.d)"
            ),
        )
    } else if has(&["pleg", "container runtime", "runtime is down", "containerd", "docker"]) {
        (
            format!("its container runtime does not answer{said}"),
            format!(
                "Restart the container runtime of node {name}, then its kubelet; if it comes back: drain and replace the node"
            ),
        )
    } else if let Some((condition, what, fix)) = short.first() {
        (format!("it is short of {what} ({})", condition.kind), (*fix).to_owned())
    } else if has(&["shutting down"]) {
        (
            "it is shutting down".to_owned(),
            format!(
                "Wait for it to come back, or replace it; kubectl drain {name} --ignore-daemonsets before planned work"
            ),
        )
    } else {
        (
            format!("its kubelet says that it is not ready{said}"),
            format!(
                "Do what the message asks for; see the kubelet's log on node {name}. If it stays: kubectl drain {name} --ignore-daemonsets"
            ),
        )
    };
    let state = if ready.status == "Unknown" { "unreachable" } else { "not ready" };
    let mut finding =
        Finding::new(FaultClass::NodeNotReady, me.clone(), format!("node {name} is {state}{}", since(cx, ready)))
            .because(me.clone(), why)
            .fix(fix)
            .since(ready.last_transition_time);
    finding = told(finding, node, ready);
    for (condition, ..) in short {
        finding = told(finding, node, condition);
    }
    for event in events_of(cx, node)
        .iter()
        .rev()
        .filter(|e| matches!(e.reason.as_str(), "NodeNotReady" | "Rebooted" | "SystemOOM"))
        .take(2)
    {
        finding = finding.event(event);
    }
    hit(cx, finding, name)
}

fn no_network(cx: &Context<'_>, node: &Node, condition: &Condition) -> Finding {
    let me = of_node(node);
    let said = if condition.message.is_empty() { &condition.reason } else { &condition.message };
    let finding = Finding::new(
        FaultClass::NodeNetworkUnavailable,
        me.clone(),
        format!("the network of node {} is not set up{}", me.name, since(cx, condition)),
    )
    .because(me.clone(), format!("NetworkUnavailable: {said}"))
    .fix(format!("See the network plugin's pod on node {} and, on a cloud, its route: {}", me.name, said))
    .since(condition.last_transition_time);
    hit(cx, told(finding, node, condition), &me.name)
}

fn pressure(cx: &Context<'_>, node: &Node, short: &[(&Condition, &str, &str)]) -> Finding {
    let me = of_node(node);
    let what = words::list(&short.iter().map(|(_, what, _)| *what).collect::<Vec<_>>());
    let kinds = words::list(&short.iter().map(|(c, _, _)| c.kind.as_str()).collect::<Vec<_>>());
    let first = &short[0];
    let said = if first.0.message.is_empty() { &first.0.reason } else { &first.0.message };
    let most =
        if short.iter().any(|(c, ..)| c.kind == "MemoryPressure") { greediest(cx, &me.name) } else { String::new() };
    let fix = short.iter().map(|(_, _, fix)| *fix).collect::<Vec<_>>().join(". ");
    let mut finding = Finding::new(
        FaultClass::NodePressure,
        me.clone(),
        format!("node {} is short of {what}{}", me.name, since(cx, first.0)),
    )
    .because(
        me.clone(),
        format!("{kinds}: {said}{most}; its kubelet evicts pods and takes no new ones of the lowest class"),
    )
    .fix(fix)
    .since(short.iter().filter_map(|(c, ..)| c.last_transition_time).min());
    for (condition, ..) in short {
        finding = told(finding, node, condition);
    }
    for event in events_of(cx, node).iter().rev().filter(|e| e.reason == "EvictionThresholdMet").take(1) {
        finding = finding.event(event);
    }
    // Those that were evicted suffered; those that run may be next.
    for pod in cx.pods_on(&me.name).iter().filter(|p| p.status.reason == "Evicted") {
        finding = finding.hits(cx.root(pod));
    }
    finding.graded(Grade::High)
}

/// Who uses most memory on a node, where the metrics API tells.
fn greediest(cx: &Context<'_>, node: &str) -> String {
    let mut most: Option<(f64, String)> = None;
    for pod in cx.pods_on(node) {
        let (namespace, name) = (&pod.metadata.namespace, &pod.metadata.name);
        let start = (namespace.clone(), name.clone(), String::new());
        let own = cx.world.usage.range(start..).take_while(|(k, _)| k.0 == *namespace && k.1 == *name);
        let used: f64 = own.map(|(_, u)| u.memory).sum();
        if used > 0.0 && most.as_ref().is_none_or(|(m, _)| used > *m) {
            most = Some((used, format!("{namespace}/{name}")));
        }
    }
    most.map_or(String::new(), |(used, pod)| format!("; pod {pod} uses most: {}", words::bytes(used)))
}
