//! Clocks, tracked connections and ports of nodes: figures of the node exporter, and what nodes say of themselves.

use super::{events_of, hit, of_node};
use crate::checks::words;
use crate::objects::Node;
use crate::{Context, Finding, signal};
use nightshift_model::FaultClass;
use std::time::Duration;

/// Offset of a clock in seconds from which certificates, tokens and leases are at risk; time sources hold milliseconds.
const OFFSET_MAX: f64 = 0.5;
/// How far a node's heartbeat may lie ahead: more is no delay but a clock.
const AHEAD_MAX: Duration = Duration::from_secs(60);
/// Share of a table in use above which new connections are about to be dropped.
const TABLE_MAX: f64 = 0.9;

/// Runs the checks.
pub(super) fn run(cx: &Context<'_>, node: &Node, out: &mut Vec<Finding>) {
    out.extend(clock(cx, node));
    out.extend(connections(cx, node));
}

fn clock(cx: &Context<'_>, node: &Node) -> Option<Finding> {
    let me = of_node(node);
    let of = |name: &str| cx.world.signal(&me, name).filter(|v| v.is_finite());
    let offset = of(signal::CLOCK_OFFSET_SECS).filter(|o| o.abs() >= OFFSET_MAX);
    let lost = of(signal::CLOCK_SYNCED).is_some_and(|s| s == 0.0);
    let problem = node.status.conditions.when("NTPProblem", "True");
    let ahead = ahead(cx, node).filter(|_| !all_ahead(cx));
    let finding = |why: String| {
        let summary = format!("the clock of node {} is off", me.name);
        Finding::new(FaultClass::ClockSkew, me.clone(), summary).because(me.clone(), why).fix(format!(
            "Start its time service again and see whether it reaches its time source (chronyc tracking on node {})",
            me.name
        ))
    };
    let metric = |f: Finding, name: &str, value: f64| {
        f.fact(format!("metric/node/{}#{name}", me.name), "metric", format!("{value}"))
    };
    if let Some(offset) = offset {
        let way = if offset > 0.0 { "ahead" } else { "behind" };
        return Some(metric(
            finding(format!("its clock is {:.1} s {way} of its time source", offset.abs())),
            signal::CLOCK_OFFSET_SECS,
            offset,
        ));
    }
    if let Some(condition) = problem {
        return Some(finding(format!("its time service is in trouble: {}", condition.message)).field(
            &me,
            "status.conditions[NTPProblem]",
            "True",
        ));
    }
    if let Some(by) = ahead {
        let text = words::duration(by);
        return Some(finding(format!("its heartbeats come from the future, {text} ahead")).field(
            &me,
            "status.conditions[Ready].lastHeartbeatTime",
            format!("{text} ahead"),
        ));
    }
    lost.then(|| metric(finding("its clock follows no time source any more".to_owned()), signal::CLOCK_SYNCED, 0.0))
}

/// By how much a node's heartbeat or lease is ahead of the time.
fn ahead(cx: &Context<'_>, node: &Node) -> Option<Duration> {
    let heartbeat = node.status.conditions.of("Ready").and_then(|c| c.last_probe_time);
    let lease = cx.world.leases.get("kube-node-lease", &node.metadata.name).and_then(|l| l.spec.renew_time);
    // What the server has written is as late as its own clock.
    let now = cx.world.newest().map_or(cx.now, |at| at.max(cx.now));
    let by = heartbeat.max(lease)?.since(now);
    (by > AHEAD_MAX).then_some(by)
}

/// Whether several nodes, and no other, are ahead: then it is our own clock that is behind.
fn all_ahead(cx: &Context<'_>) -> bool {
    cx.world.nodes.len() > 1 && cx.world.nodes.iter().all(|n| ahead(cx, n).is_some())
}

fn connections(cx: &Context<'_>, node: &Node) -> Option<Finding> {
    let me = of_node(node);
    let of = |name: &str| cx.world.signal(&me, name).filter(|v| v.is_finite());
    let share = |used: &str, limit: &str| {
        let (used, limit) = (of(used)?, of(limit).filter(|l| *l > 0.0)?);
        (used / limit >= TABLE_MAX).then_some((used, limit))
    };
    let finding = |why: String, fix: &str| {
        let summary = format!("node {} cannot open new connections reliably", me.name);
        Finding::new(FaultClass::ConntrackExhausted, me.clone(), summary).because(me.clone(), why).fix(fix)
    };
    let table = "Raise net.netfilter.nf_conntrack_max on the node, and find what opens so many connections (short ones without keep-alive, DNS over UDP)";
    let ports = "Let clients reuse connections (keep-alive, pools), widen net.ipv4.ip_local_port_range, or spread them over more nodes";
    let found = if let Some((used, limit)) = share(signal::CONNTRACK_ENTRIES, signal::CONNTRACK_LIMIT) {
        let why = format!("{used:.0} of {limit:.0} tracked connections are used; past that, packets are dropped");
        finding(why, table).fact(
            format!("metric/node/{}#{}", me.name, signal::CONNTRACK_ENTRIES),
            "metric",
            format!("{used:.0} of {limit:.0}"),
        )
    } else if let Some((used, limit)) = share(signal::EPHEMERAL_PORTS_USED, signal::EPHEMERAL_PORTS_LIMIT) {
        let why = format!("{used:.0} of {limit:.0} local ports are used; past that, no connection can be opened");
        finding(why, ports).fact(
            format!("metric/node/{}#{}", me.name, signal::EPHEMERAL_PORTS_USED),
            "metric",
            format!("{used:.0} of {limit:.0}"),
        )
    } else {
        let full = |text: &str| text.contains("nf_conntrack") && text.contains("table full");
        let event = events_of(cx, node)
            .iter()
            .rev()
            .find(|e| full(&e.message) || matches!(e.reason.as_str(), "ConntrackFull" | "ConntrackTableFull"))?;
        finding(format!("its kernel says: {}", event.message), table).event(event)
    };
    Some(hit(cx, found, &me.name))
}
