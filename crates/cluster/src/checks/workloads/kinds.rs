//! Workloads of every kind in one shape, and what several checks ask of their pods.

use crate::objects::{Labels, Meta, Pod, PodSpec};
use crate::{Context, ObjectRef};
use std::time::Duration;

/// A workload: what makes pods.
pub(in crate::checks) struct Workload<'a> {
    /// Its name.
    pub(in crate::checks) object: ObjectRef,
    /// Its metadata.
    pub(in crate::checks) meta: &'a Meta,
    /// Labels of its pods.
    pub(in crate::checks) labels: &'a Labels,
    /// Annotations of its pods.
    pub(in crate::checks) annotations: &'a Labels,
    /// What its pods are.
    pub(in crate::checks) spec: &'a PodSpec,
    /// Pods that are wanted; of daemon sets what their status says, of jobs what may run at once.
    pub(in crate::checks) wanted: i64,
}

/// Every workload that nobody owns, and every pod that nobody owns, by kind and name.
pub(in crate::checks) fn workloads<'a>(cx: &Context<'a>) -> Vec<Workload<'a>> {
    let world = cx.world;
    let mut out = Vec::new();
    let mut add = |kind: &str, meta: &'a Meta, template: (&'a Meta, &'a PodSpec), wanted: i64| {
        // A mirror of a static pod is its node's.
        if meta.controller().is_none() && meta.deletion_timestamp.is_none() {
            out.push(Workload {
                object: ObjectRef::of(kind, meta),
                meta,
                labels: &template.0.labels,
                annotations: &template.0.annotations,
                spec: template.1,
                wanted,
            });
        }
    };
    for d in world.deployments.iter() {
        add("Deployment", &d.metadata, (&d.spec.template.metadata, &d.spec.template.spec), d.spec.wanted());
    }
    for r in world.replica_sets.iter() {
        add("ReplicaSet", &r.metadata, (&r.spec.template.metadata, &r.spec.template.spec), r.spec.wanted());
    }
    for s in world.stateful_sets.iter() {
        add("StatefulSet", &s.metadata, (&s.spec.template.metadata, &s.spec.template.spec), s.spec.wanted());
    }
    for d in world.daemon_sets.iter() {
        let wanted = d.status.desired_number_scheduled;
        add("DaemonSet", &d.metadata, (&d.spec.template.metadata, &d.spec.template.spec), wanted);
    }
    for c in world.cron_jobs.iter() {
        let job = &c.spec.job_template.spec;
        let wanted = if c.spec.suspend { 0 } else { job.parallelism.unwrap_or(1) };
        add("CronJob", &c.metadata, (&job.template.metadata, &job.template.spec), wanted);
    }
    for j in world.jobs.iter() {
        let done = j.status.conditions.iter().any(|c| c.status == "True");
        let wanted = if done || j.spec.suspend { 0 } else { j.spec.parallelism.unwrap_or(1) };
        add("Job", &j.metadata, (&j.spec.template.metadata, &j.spec.template.spec), wanted);
    }
    for p in world.pods.iter() {
        let wanted = i64::from(!matches!(p.status.phase.as_str(), "Succeeded" | "Failed"));
        add("Pod", &p.metadata, (&p.metadata, &p.spec), wanted);
    }
    out
}

/// Whether a pod takes traffic.
pub(in crate::checks) fn is_ready(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_none() && pod.status.conditions.when("Ready", "True").is_some()
}

/// How long a pod may take until "not ready yet" is more than a start: images, mounts and probes of an ordinary pod.
const START: Duration = Duration::from_secs(30);

/// Whether nothing speaks against this pod but that it is young.
pub(in crate::checks) fn is_starting(cx: &Context<'_>, pod: &Pod) -> bool {
    let status = &pod.status;
    let born = pod.metadata.creation_timestamp.or(status.start_time);
    let young = born.is_some_and(|at| cx.age(at) < START);
    let quiet = status.container_statuses.iter().chain(&status.init_container_statuses).all(|c| {
        let waits = c.state.waiting.as_ref().map_or("", |w| w.reason.as_str());
        c.restart_count == 0
            && c.last_state.terminated.is_none()
            && c.state.terminated.as_ref().is_none_or(|t| t.exit_code == 0)
            && matches!(waits, "" | "ContainerCreating" | "PodInitializing")
    });
    let scheduled = status.conditions.when("PodScheduled", "False").is_none();
    let going = matches!(status.phase.as_str(), "" | "Pending" | "Running");
    young && quiet && scheduled && going
}

/// Why a pod is not ready, in a few words.
pub(in crate::checks) fn why_not_ready(pod: &Pod) -> String {
    let status = &pod.status;
    if pod.metadata.deletion_timestamp.is_some() {
        return "it is terminating".into();
    }
    if let Some(c) = status.conditions.when("PodScheduled", "False") {
        return format!("it is not scheduled: {}", c.message);
    }
    for c in status.init_container_statuses.iter().chain(&status.container_statuses) {
        if let Some(w) = c.state.waiting.as_ref().filter(|w| !w.reason.is_empty()) {
            return format!("container {} waits: {}", c.name, w.reason);
        }
        if let Some(t) = c.state.terminated.as_ref().filter(|t| t.exit_code != 0) {
            return format!("container {} ended with exit code {}", c.name, t.exit_code);
        }
    }
    if let Some(c) = status.container_statuses.iter().find(|c| !c.ready && c.state.running.is_some()) {
        return format!("container {} runs and is not ready", c.name);
    }
    if status.phase.is_empty() { "it has no status".into() } else { format!("its phase is {}", status.phase) }
}

/// What a pod hangs on: its node and its claims. Their faults explain its own.
pub(in crate::checks) fn hangs_on(pod: &Pod) -> Vec<ObjectRef> {
    let mut on = Vec::new();
    if !pod.spec.node_name.is_empty() {
        on.push(ObjectRef::new("Node", "", pod.spec.node_name.clone()));
    }
    let claims = pod.spec.volumes.iter().filter_map(|v| v.persistent_volume_claim.as_ref());
    on.extend(
        claims.map(|c| ObjectRef::new("PersistentVolumeClaim", pod.metadata.namespace.clone(), c.claim_name.clone())),
    );
    on
}
