//! Leaders that lose their lease again and again.

use crate::checks::history::Record;
use crate::objects::Event;
use crate::{Context, Finding, ObjectRef};
use nightshift_model::{FaultClass, Timestamp};
use std::collections::BTreeMap;
use std::time::Duration;

/// Changes of the leader within the time below that are no rollout any more: a rollout of three replicas makes two or three.
const CHANGES_MIN: usize = 4;
/// That time.
const WITHIN: Duration = Duration::from_secs(3600);
/// Leases of nodes are heartbeats, nobody leads.
const HEARTBEATS: &str = "kube-node-lease";

/// Runs the check.
pub(super) fn run(cx: &Context<'_>, out: &mut Vec<Finding>) {
    let mut leases: BTreeMap<ObjectRef, Vec<(Timestamp, String)>> = BTreeMap::new();
    for object in cx.world.history.objects().filter(|o| o.kind == "Lease" && o.namespace != HEARTBEATS) {
        let leaders = cx.world.history.of(object).filter_map(|(at, r)| match r {
            Record::Leader(who) => Some((at, who.clone())),
            _ => None,
        });
        leases.insert(object.clone(), leaders.collect());
    }
    let said = |e: &&Event| {
        e.reason == "LeaderElection" && e.involved_object.kind == "Lease" && e.message.contains("became leader")
    };
    let mut events: BTreeMap<ObjectRef, Vec<&Event>> = BTreeMap::new();
    for event in cx.world.events.iter().filter(said) {
        let about = &event.involved_object;
        let object = ObjectRef::new("Lease", about.namespace.clone(), about.name.clone());
        events.entry(object).or_default().push(event);
    }
    for (object, leaders) in &leases {
        out.extend(lost(cx, object, leaders, events.get(object).map_or(&[], Vec::as_slice)));
    }
    for (object, events) in events.iter().filter(|(o, _)| !leases.contains_key(*o)) {
        out.extend(lost(cx, object, &[], events));
    }
}

fn lost(cx: &Context<'_>, lease: &ObjectRef, leaders: &[(Timestamp, String)], events: &[&Event]) -> Option<Finding> {
    let newest = leaders.iter().map(|(at, _)| *at).chain(events.iter().filter_map(|e| e.last_seen())).max()?;
    let start = newest - WITHIN;
    let recent: Vec<&(Timestamp, String)> = leaders.iter().filter(|(at, _)| *at >= start).collect();
    let changes = recent.windows(2).filter(|w| w[0].1 != w[1].1).count();
    // Counted events began when they were first seen; only those of the hour count.
    let told: i64 = events.iter().filter(|e| e.first_seen() >= Some(start)).map(|e| e.times()).sum();
    let times = changes.max(usize::try_from(told).unwrap_or(0));
    if times < CHANGES_MIN {
        return None;
    }
    let mut finding = Finding::new(
        FaultClass::LeaderElectionLost,
        lease.clone(),
        format!("the leader of {} changed {times} times within an hour", lease.name),
    );
    // Who leads is named after its pod.
    let holders: Vec<&str> = leaders
        .iter()
        .rev()
        .map(|(_, who)| who.as_str())
        .chain(cx.world.leases.get(&lease.namespace, &lease.name).and_then(|l| l.spec.holder_identity.as_deref()))
        .collect();
    let pod =
        holders.iter().find_map(|who| cx.world.pods.get(&lease.namespace, who.split('_').next().unwrap_or_default()));
    let why =
        "whoever leads does not renew its lease in time: too little CPU, a slow API server or etcd, or it restarts";
    finding = match pod {
        Some(pod) => {
            let root = cx.root(pod);
            finding
                .because(root.clone(), format!("{root}: {why}"))
                .fix(format!("Give {root} more CPU (no tight limit), look at its restarts and at the API server's latency, or lengthen its lease duration"))
                .hits(root.clone())
                .explained_by(root)
        }
        None => finding.because(lease.clone(), why).fix("Give the controllers behind it more CPU, look at their restarts and at the API server's latency, or lengthen the lease duration"),
    };
    // A slow API server makes every controller lose its lease.
    finding = finding.explained_by(ObjectRef::new("Service", "default", "kubernetes"));
    for (at, who) in recent.iter().rev().take(4) {
        finding = finding.fact(
            format!("{}#spec.holderIdentity@{}", lease.path(), at.to_rfc3339()),
            "lease",
            format!("{who} leads since {}", at.to_rfc3339()),
        );
    }
    Some(events.iter().rev().take(3).fold(finding, |f, e| f.event(e)).since(recent.first().map(|(at, _)| *at)))
}
