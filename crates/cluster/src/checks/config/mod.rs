//! Config maps, secrets, environment.

mod contents;
mod environment;
mod flags;
mod missing;
mod stale;
mod unused;
mod uses;

use crate::objects::{ConfigMap, PodSpec};
use crate::{Context, Finding, ObjectRef};
use nightshift_model::Timestamp;
use uses::Uses;

/// Runs the checks of this group. Findings of the groups before are looked at for what a flag could have brought about.
pub(super) fn run(cx: &Context<'_>, out: &mut Vec<Finding>) {
    let uses = Uses::new(cx);
    contents::run(cx, &uses, out);
    missing::run(cx, out);
    stale::run(cx, out);
    environment::run(cx, out);
    if cx.options.advice {
        unused::run(cx, &uses, out);
    }
    flags::run(cx, out);
}

/// A workload with the template of its pods, and how many it wants.
pub(in crate::checks) struct Workload<'a> {
    /// Which.
    pub(in crate::checks) object: ObjectRef,
    /// What its pods are made from.
    pub(in crate::checks) spec: &'a PodSpec,
    /// Whether it should have pods now, or will by itself.
    pub(in crate::checks) wanted: bool,
}

/// All workloads, and pods that nobody owns.
pub(in crate::checks) fn workloads<'a>(cx: &Context<'a>) -> Vec<Workload<'a>> {
    let world = cx.world;
    let mut out = Vec::new();
    macro_rules! templates {
        ($table:ident, $kind:literal, |$o:ident| $wanted:expr) => {
            for $o in world.$table.iter().filter(|o| o.metadata.controller().is_none()) {
                let template = &$o.spec.template;
                let object = ObjectRef::of($kind, &$o.metadata);
                let wanted = $o.metadata.deletion_timestamp.is_none() && $wanted;
                out.push(Workload { object, spec: &template.spec, wanted });
            }
        };
    }
    templates!(deployments, "Deployment", |d| d.spec.wanted() > 0 && !d.spec.paused);
    templates!(replica_sets, "ReplicaSet", |r| r.spec.wanted() > 0);
    templates!(stateful_sets, "StatefulSet", |s| s.spec.wanted() > 0);
    templates!(daemon_sets, "DaemonSet", |_d| true);
    templates!(jobs, "Job", |j| {
        let ended = |kind: &str| j.status.conditions.when(kind, "True").is_some();
        !j.spec.suspend && !ended("Complete") && !ended("Failed")
    });
    for cron in world.cron_jobs.iter() {
        let template = &cron.spec.job_template.spec.template;
        let object = ObjectRef::of("CronJob", &cron.metadata);
        let wanted = !cron.spec.suspend && cron.metadata.deletion_timestamp.is_none();
        out.push(Workload { object, spec: &template.spec, wanted });
    }
    for pod in world.pods.iter().filter(|p| p.metadata.owner_references.is_empty()) {
        let object = ObjectRef::of("Pod", &pod.metadata);
        let wanted = !matches!(pod.status.phase.as_str(), "Succeeded" | "Failed");
        out.push(Workload { object, spec: &pod.spec, wanted });
    }
    out
}

/// When the data of a config map was changed after it was made, and by whom. Labels and annotations do not count.
fn changed(cx: &Context<'_>, map: &ConfigMap) -> Option<(Timestamp, String)> {
    use super::history::Record;
    let object = ObjectRef::of("ConfigMap", &map.metadata);
    let seen = cx.world.history.of(&object).rev().find_map(|(at, r)| match r {
        Record::Changed { who, .. } => Some((at, who.clone())),
        _ => None,
    });
    let writer = map.metadata.last_data_writer();
    // Times of the server have whole seconds: what made it wrote within the second after.
    let made = map.metadata.creation_timestamp.map(|at| at + std::time::Duration::from_secs(1));
    let written =
        writer.and_then(|w| Some((w.time?, w.manager.clone()))).filter(|(at, _)| made.is_none_or(|m| *at > m));
    // Without a time of creation nothing says that it was changed.
    let written = written.filter(|_| made.is_some());
    [seen, written].into_iter().flatten().max_by_key(|(at, _)| *at)
}

/// `by helm, `, for a sentence; empty when unknown.
fn by(who: &str) -> String {
    if who.is_empty() { String::new() } else { format!(" by {who}") }
}
