//! Feature flags that were flipped shortly before something that reads them got into trouble.

use super::uses::{self, Source};
use super::{by, changed};
use crate::checks::words;
use crate::objects::ConfigMap;
use crate::{Context, Finding, ObjectRef};
use nightshift_model::{FaultClass, Timestamp};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// How long after a flip trouble may begin to be its doing: caches of flags live minutes.
const AFTER_MAX: Duration = Duration::from_secs(1800);
/// How much earlier trouble may seem to begin: times are whole seconds, of several clocks.
const BEFORE_MAX: Duration = Duration::from_secs(5);
/// Trouble that a flag can bring about. A missing image or a full node is not among them.
const TROUBLE: [FaultClass; 10] = [
    FaultClass::CrashLoop,
    FaultClass::RestartsClimbing,
    FaultClass::ReadinessProbeFailure,
    FaultClass::LivenessProbeFailure,
    FaultClass::StartupProbeFailure,
    FaultClass::ReplicasUnavailable,
    FaultClass::RolloutStuck,
    FaultClass::EndpointsNotReady,
    FaultClass::PodFailed,
    FaultClass::JobFailed,
];

/// Runs the check over what the groups before have found.
pub(super) fn run(cx: &Context<'_>, out: &mut Vec<Finding>) {
    let flipped: Vec<(&ConfigMap, Timestamp, String)> = cx
        .world
        .config_maps
        .iter()
        .filter(|m| is_flags(m))
        .filter_map(|m| changed(cx, m).map(|(at, who)| (m, at, who)))
        .collect();
    if flipped.is_empty() {
        return;
    }
    let mut troubled: BTreeMap<&ObjectRef, Option<Timestamp>> = BTreeMap::new();
    for finding in out.iter().filter(|f| TROUBLE.contains(&f.fault) && f.severity.is_fault()) {
        let since = troubled.entry(&finding.object).or_default();
        *since = [*since, finding.since].into_iter().flatten().min();
    }
    let mut found = Vec::new();
    for (map, at, who) in flipped {
        let readers = readers(cx, &map.metadata.namespace, &map.metadata.name);
        // A flag server hands flags on to everybody around it.
        let server = readers.iter().any(|w| w.name.contains("flag") || w.name.contains("toggle"));
        let hit: Vec<&ObjectRef> = troubled
            .iter()
            .filter(|(w, _)| readers.contains(**w) || (server && w.namespace == map.metadata.namespace))
            .filter(|(w, since)| began_after(cx, w, **since, at) && !changed_since(cx, w, at))
            .map(|(w, _)| *w)
            .collect();
        if !hit.is_empty() {
            found.push(finding(cx, map, at, &who, &hit));
        }
    }
    out.extend(found);
}

/// Whether a config map holds feature flags.
fn is_flags(map: &ConfigMap) -> bool {
    let says = |text: &str| {
        let text = text.to_ascii_lowercase();
        ["feature-flag", "featureflag", "feature_flag", "feature-toggle", "featuretoggle", "flagd", "toggles"]
            .iter()
            .any(|w| text.contains(w))
            || text == "flags"
            || text.ends_with("-flags")
            || text.starts_with("flags-")
    };
    let keys = || map.data.keys().any(|k| says(k) || k.ends_with("flags.json") || k.ends_with("flags.yaml"));
    says(&map.metadata.name) || map.metadata.labels.iter().any(|(n, v)| says(n) || says(v)) || keys()
}

/// The workloads that read a config map.
fn readers(cx: &Context<'_>, namespace: &str, name: &str) -> BTreeSet<ObjectRef> {
    let reads = |spec| uses::of(spec).iter().any(|u| u.source == Source::ConfigMap && u.name == name);
    let own =
        super::workloads(cx).into_iter().filter(|w| w.object.namespace == namespace && reads(w.spec)).map(|w| w.object);
    let pods = cx.world.pods.in_namespace(namespace).filter(|p| reads(&p.spec)).map(|p| cx.root(p));
    own.chain(pods).collect()
}

/// Whether the trouble of a workload began within a while after the flip.
fn began_after(cx: &Context<'_>, workload: &ObjectRef, since: Option<Timestamp>, flip: Timestamp) -> bool {
    let pods = cx.pods_of(workload);
    let unready = pods.iter().filter_map(|p| p.status.conditions.when("Ready", "False")?.last_transition_time).min();
    let died = pods
        .iter()
        .flat_map(|p| &p.status.container_statuses)
        .filter_map(|s| s.last_state.terminated.as_ref().or(s.state.terminated.as_ref())?.finished_at)
        .min();
    match unready.or(died).or(since) {
        Some(began) => began + BEFORE_MAX >= flip && began.since(flip) <= AFTER_MAX,
        // Nothing says when: it is recent enough, or it is not.
        None => cx.age(flip) <= AFTER_MAX,
    }
}

/// Whether the workload itself was changed after the flip: then that is the nearer cause.
fn changed_since(cx: &Context<'_>, workload: &ObjectRef, flip: Timestamp) -> bool {
    let sets = cx.replica_sets(&workload.namespace, &workload.name);
    workload.kind == "Deployment" && sets.iter().any(|s| s.metadata.creation_timestamp.is_some_and(|at| at > flip))
}

fn finding(cx: &Context<'_>, map: &ConfigMap, at: Timestamp, who: &str, hit: &[&ObjectRef]) -> Finding {
    let me = ObjectRef::of("ConfigMap", &map.metadata);
    let names: Vec<String> = hit.iter().map(ToString::to_string).collect();
    let names = words::list(&names);
    let ago = words::duration(cx.age(at));
    let what = cx.world.history.of(&me).rev().find_map(|(_, r)| match r {
        crate::checks::history::Record::Changed { what, .. } => Some(format!(" ({what})")),
        _ => None,
    });
    let what = what.unwrap_or_default();
    let finding = Finding::new(
        FaultClass::FlagFlipped,
        me.clone(),
        format!("feature flags {} were changed {ago} ago, then {names} got into trouble", me.name),
    )
    .because(
        me.clone(),
        format!("its flags were changed{}{what} {ago} ago, and the trouble of {names} began after that", by(who)),
    )
    .fix(format!(
        "Set the flag back in ConfigMap {}/{} (or roll back what wrote it), and see whether {names} recovers",
        me.namespace, me.name
    ))
    .field(&me, "metadata.managedFields", format!("data written{} at {}", by(who), at.to_rfc3339()))
    .since(Some(at));
    hit.iter().fold(finding, |f, w| f.hits((*w).clone()).explains((*w).clone()))
}
