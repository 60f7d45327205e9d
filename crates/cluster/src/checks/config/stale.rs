//! Pods that run with what a config map was before.
//!
//! Variables and files mounted by `subPath` are read when a container starts, and never again; folders are renewed. A
//! template that carries a checksum of its configuration, or an operator that restarts on change, takes care of it.

use super::uses::{self, How, Source, Use};
use super::{by, changed};
use crate::checks::words;
use crate::objects::{Labels, Pod};
use crate::{Context, Finding, ObjectRef};
use nightshift_model::{FaultClass, Timestamp};
use std::collections::BTreeMap;

/// What pods of one workload missed of one config map.
struct Missed<'a> {
    used: Use<'a>,
    pods: Vec<&'a Pod>,
    started: Timestamp,
}

/// Runs the check.
pub(super) fn run(cx: &Context<'_>, out: &mut Vec<Finding>) {
    // Which config maps were changed at all: few.
    let mut changes: BTreeMap<(&str, &str), (Timestamp, String)> = BTreeMap::new();
    for map in cx.world.config_maps.iter().filter(|m| !m.immutable) {
        if let Some(change) = changed(cx, map) {
            changes.insert((&map.metadata.namespace, &map.metadata.name), change);
        }
    }
    if changes.is_empty() {
        return;
    }
    for (workload, pods) in cx.workloads().filter(|(w, _)| !matches!(w.kind.as_str(), "Job" | "CronJob")) {
        let mut missed: BTreeMap<&str, Missed<'_>> = BTreeMap::new();
        for pod in pods.iter().filter(|p| p.status.phase == "Running" && p.metadata.deletion_timestamp.is_none()) {
            if follows(&pod.metadata.annotations) {
                continue;
            }
            for used in uses::of(&pod.spec) {
                let once = matches!(used.how, How::Variable | How::Variables | How::SubPath);
                if !once || used.init || used.source != Source::ConfigMap {
                    continue;
                }
                let Some((at, _)) = changes.get(&(pod.metadata.namespace.as_str(), used.name)) else { continue };
                let Some(started) = started(pod, used.container).filter(|s| s < at) else { continue };
                let entry = missed.entry(used.name).or_insert_with(|| Missed { used, pods: Vec::new(), started });
                if !entry.pods.iter().any(|p| p.metadata.name == pod.metadata.name) {
                    entry.pods.push(pod);
                }
                entry.started = entry.started.max(started);
            }
        }
        for (name, missed) in missed {
            let Some((at, who)) = changes.get(&(workload.namespace.as_str(), name)) else { continue };
            if !restarts_by_itself(cx, workload) {
                out.push(finding(cx, workload, name, &missed, *at, who));
            }
        }
    }
}

/// Whether the pods carry a mark of the configuration that they were made with, or somebody restarts them on change.
fn follows(annotations: &Labels) -> bool {
    annotations.iter().any(|(name, value)| {
        let last = name.rsplit('/').next().unwrap_or(name).to_ascii_lowercase();
        ["checksum", "config-hash", "confighash", "hash", "sha256"].iter().any(|w| last.contains(w))
            || name.to_ascii_lowercase().starts_with("checksum/")
            || (name.contains("reloader") && value != "false")
    })
}

/// Whether an operator restarts the workload when its configuration changes.
fn restarts_by_itself(cx: &Context<'_>, workload: &ObjectRef) -> bool {
    let (namespace, name) = (&workload.namespace, &workload.name);
    let meta = match workload.kind.as_str() {
        "Deployment" => cx.world.deployments.get(namespace, name).map(|o| &o.metadata),
        "StatefulSet" => cx.world.stateful_sets.get(namespace, name).map(|o| &o.metadata),
        "DaemonSet" => cx.world.daemon_sets.get(namespace, name).map(|o| &o.metadata),
        _ => None,
    };
    meta.is_some_and(|m| m.annotations.iter().any(|(n, v)| n.contains("reloader") && v != "false"))
}

/// When a container began: no earlier than its pod was made, whatever its status says.
fn started(pod: &Pod, container: &str) -> Option<Timestamp> {
    let statuses = pod.status.container_statuses.iter().chain(&pod.status.init_container_statuses);
    let status = statuses.into_iter().find(|s| s.name == container)?;
    let at = status.state.running.as_ref()?.started_at;
    at.max(pod.metadata.creation_timestamp)
}

fn finding(cx: &Context<'_>, me: &ObjectRef, name: &str, missed: &Missed<'_>, at: Timestamp, who: &str) -> Finding {
    let map = ObjectRef::new("ConfigMap", me.namespace.clone(), name);
    let how = match missed.used.how {
        How::Variable => format!("variable {} (key `{}`)", missed.used.into, missed.used.key),
        How::Variables => "all its keys as variables".to_owned(),
        How::SubPath | How::Folder => format!("a file of volume {} mounted by subPath", missed.used.into),
    };
    let n = missed.pods.len();
    let pods = if n == 1 { "1 pod runs".to_owned() } else { format!("{n} pods run") };
    let ago = words::duration(cx.age(at));
    let kind = me.kind.to_ascii_lowercase();
    let fix = if me.kind == "Pod" {
        format!("Make pod {} again, so that it reads the new values", me.name)
    } else {
        format!(
            "Restart it: kubectl -n {} rollout restart {kind} {}. To keep it from coming back, put a checksum of the config map into an annotation of the pod template",
            me.namespace, me.name
        )
    };
    let finding = Finding::new(
        FaultClass::StaleConfig,
        me.clone(),
        format!("{pods} with what ConfigMap {name} was before it was changed {ago} ago"),
    )
    .because(
        map.clone(),
        format!(
            "ConfigMap {name} was changed{} {ago} ago, after the pods had started; they read {how} only at the start",
            by(who)
        ),
    )
    .fix(fix)
    .field(&map, "metadata.managedFields", format!("data written{} at {}", by(who), at.to_rfc3339()))
    .field(
        &ObjectRef::of("Pod", &missed.pods[0].metadata),
        &format!("status.containerStatuses[{}].state.running.startedAt", missed.used.container),
        missed.started.to_rfc3339(),
    )
    .since(Some(at));
    missed.pods.iter().fold(finding, |f, p| f.hits(ObjectRef::of("Pod", &p.metadata)))
}
