//! Deployments and bare replica sets: too few ready pods, rollouts that stop, what nobody acts on.

use super::kinds::{hangs_on, is_ready, is_starting, why_not_ready};
use crate::objects::{Deployment, Pod, PodSpec, ReplicaSet, ReplicasStatus};
use crate::{Context, Finding, Grade, ObjectRef};
use nightshift_model::{FaultClass, Timestamp};
use std::collections::BTreeMap;
use std::time::Duration;

/// How long a rollout that goes on may leave too few pods: its own deadline (600 s unless told) is the certain sign.
const ROLLOUT_PATIENCE: Duration = Duration::from_secs(120);
/// Time that whoever acts on workloads gets to take note of a change. Times of writes are whole seconds.
const NOTICE: Duration = Duration::from_secs(1);
/// A pause of something old that began less than this ago is somebody at work.
const PAUSE_FRESH: Duration = Duration::from_secs(600);
/// What is older than this has a history of its own.
const SETTLED: Duration = Duration::from_secs(3600);
/// Pods that are named as symptoms by one finding.
const PODS_NAMED: usize = 20;

/// Runs the checks.
pub(super) fn run(cx: &Context<'_>, out: &mut Vec<Finding>) {
    for d in cx.world.deployments.iter().filter(|d| d.metadata.deletion_timestamp.is_none()) {
        let object = ObjectRef::of("Deployment", &d.metadata);
        out.extend(paused(cx, &object, d));
        let seen = d.status.observed_generation;
        if let Some(finding) = behind(cx, &object, &d.metadata, seen) {
            // What its status says is about another specification.
            out.push(finding);
            continue;
        }
        out.extend(template_drift(cx, &object, d));
        out.extend(rollout(cx, &object, d));
    }
    for r in cx.world.replica_sets.iter() {
        if r.metadata.controller().is_none() && r.metadata.deletion_timestamp.is_none() {
            let object = ObjectRef::of("ReplicaSet", &r.metadata);
            match orphan(cx, r) {
                Some(finding) => out.push(finding),
                None => out.extend(too_few(cx, &object, r.spec.wanted(), &r.status)),
            }
        }
    }
}

/// Whether a status says anything: what was never looked at has none.
fn has_status(status: &ReplicasStatus) -> bool {
    status.observed_generation > 0
        || status.replicas > 0
        || status.unavailable_replicas > 0
        || !status.conditions.is_empty()
}

fn rollout(cx: &Context<'_>, object: &ObjectRef, d: &Deployment) -> Option<Finding> {
    let (wanted, status) = (d.spec.wanted(), &d.status);
    let progressing = status.conditions.of("Progressing");
    let whole = status.updated_replicas >= wanted && status.available_replicas >= wanted;
    if let Some(stuck) = progressing.filter(|c| c.status == "False" && !whole && !d.spec.paused) {
        let secs = d.spec.progress_deadline_seconds.unwrap_or(600);
        let change = last_change(cx, d);
        let summary = format!(
            "The rollout of {object} does not progress: {} of {wanted} pods are updated, {} are ready ({})",
            status.updated_replicas, status.ready_replicas, stuck.reason
        );
        let why = match &change {
            Some(change) => format!("its pods of {change} did not become available within {secs} s"),
            None => format!("its new pods did not become available within {secs} s: {}", stuck.message),
        };
        let fix = format!(
            "Look at the newest pods (kubectl -n {} describe pods), mend what keeps them from being ready, or take the \
             rollout back: kubectl -n {} rollout undo deployment/{}",
            object.namespace, object.namespace, object.name
        );
        let finding = Finding::new(FaultClass::RolloutStuck, object.clone(), summary)
            .because(object.clone(), why)
            .fix(fix)
            .field(object, "status.conditions[Progressing]", format!("{}: {}", stuck.reason, stuck.message))
            .since(stuck.last_transition_time)
            .generic();
        return Some(with_pods(cx, finding, object));
    }
    let under_way = progressing.is_some_and(|c| c.status == "True" && c.reason != "NewReplicaSetAvailable");
    if under_way {
        let down = status.conditions.when("Available", "False");
        let long = down.and_then(|c| c.last_transition_time).is_some_and(|at| cx.age(at) >= ROLLOUT_PATIENCE);
        if !long {
            return None;
        }
    }
    too_few(cx, object, wanted, status)
}

/// Fewer pods ready than wanted, with why each is not.
pub(super) fn too_few(cx: &Context<'_>, object: &ObjectRef, wanted: i64, status: &ReplicasStatus) -> Option<Finding> {
    let ready = status.ready_replicas.max(status.available_replicas);
    if wanted <= 0 || ready >= wanted || !has_status(status) {
        return None;
    }
    let pods = cx.pods_of(object);
    let short: Vec<&Pod> = pods.iter().copied().filter(|p| !is_ready(p)).collect();
    // Its status lags behind its pods, or they only just began.
    if i64::try_from(pods.len() - short.len()).is_ok_and(|n| n >= wanted) {
        return None;
    }
    if !short.is_empty() && short.iter().all(|p| is_starting(cx, p)) {
        return None;
    }
    let summary = format!("{object} has {ready} of {wanted} pods ready");
    let why = match short.first() {
        Some(pod) => format!("pod {} is not ready: {}", pod.metadata.name, why_not_ready(pod)),
        None if cx.world.pods.sees(&object.namespace) && pods.is_empty() => {
            "it has no pods: nobody makes them".to_owned()
        }
        None => status.conditions.when("Available", "False").map_or_else(
            || format!("{} pods are missing or not ready", wanted - ready),
            |c| format!("{}: {}", c.reason, c.message),
        ),
    };
    let fix = format!(
        "Find out why its pods are not ready: kubectl -n {} describe {}/{}, then its pods and their logs",
        object.namespace,
        object.kind.to_ascii_lowercase(),
        object.name
    );
    let counts = format!("wanted {wanted}, there {}, ready {}", status.replicas, status.ready_replicas);
    let grade = if ready == 0 { Grade::High } else { Grade::Medium };
    let mut finding = Finding::new(FaultClass::ReplicasUnavailable, object.clone(), summary)
        .because(object.clone(), why)
        .fix(fix)
        .graded(grade)
        .field(object, "status.readyReplicas", counts)
        .generic();
    if let Some(c) = status.conditions.when("Available", "False") {
        finding = finding
            .field(object, "status.conditions[Available]", format!("{}: {}", c.reason, c.message))
            .since(c.last_transition_time);
    }
    Some(with_pods(cx, finding, object))
}

/// Adds the pods that are not ready as symptoms, and what they hang on as what may explain it.
pub(super) fn with_pods(cx: &Context<'_>, mut finding: Finding, object: &ObjectRef) -> Finding {
    let short = cx.pods_of(object).iter().filter(|p| !is_ready(p));
    for pod in short.take(PODS_NAMED) {
        finding = finding.hits(ObjectRef::of("Pod", &pod.metadata));
        finding = hangs_on(pod).into_iter().fold(finding, Finding::explained_by);
    }
    finding
}

/// Nobody took note of its newest specification.
pub(super) fn behind(
    cx: &Context<'_>,
    object: &ObjectRef,
    meta: &crate::objects::Meta,
    observed: i64,
) -> Option<Finding> {
    // A status that was never written is not behind.
    if observed <= 0 || meta.generation <= observed {
        return None;
    }
    let written = meta.last_writer().and_then(|w| w.time);
    if written.is_some_and(|at| cx.age(at) < NOTICE) {
        return None;
    }
    let summary = format!(
        "{object} has specification {} and its controller has only seen {observed}: the change is not acted on",
        meta.generation
    );
    let (cause, why) = controller(cx).unwrap_or_else(|| {
        (object.clone(), format!("the controller manager has not acted on generation {}", meta.generation))
    });
    let by = meta.last_writer().map_or(String::new(), |w| format!(" (last written by {})", w.manager));
    Some(
        Finding::new(FaultClass::StatusBehindSpec, object.clone(), summary)
            .because(cause, why)
            .fix(format!(
                "See that kube-controller-manager runs and may read and write {}s; its log names the error{by}",
                object.kind.to_ascii_lowercase()
            ))
            .field(object, "status.observedGeneration", format!("{observed}, metadata.generation: {}", meta.generation))
            .since(written),
    )
}

/// The controller manager, when its lease says that it is gone.
fn controller(cx: &Context<'_>) -> Option<(ObjectRef, String)> {
    let lease = cx.world.leases.get("kube-system", "kube-controller-manager")?;
    let (renewed, holds) = (lease.spec.renew_time?, lease.spec.lease_duration_seconds.unwrap_or(15));
    let gone = cx.age(renewed) > Duration::from_secs(u64::try_from(holds).unwrap_or(15).saturating_mul(4));
    gone.then(|| {
        let why = format!("the controller manager has not renewed its lease since {renewed}");
        (ObjectRef::of("Lease", &lease.metadata), why)
    })
}

fn paused(cx: &Context<'_>, object: &ObjectRef, d: &Deployment) -> Option<Finding> {
    if !d.spec.paused {
        return None;
    }
    let condition = d.status.conditions.of("Progressing").filter(|c| c.reason == "DeploymentPaused");
    let since = condition.and_then(|c| c.last_transition_time);
    let old = d.metadata.creation_timestamp.is_some_and(|at| cx.age(at) > SETTLED);
    let at_work = old && since.is_some_and(|at| cx.age(at) < PAUSE_FRESH);
    let held = d.status.updated_replicas < d.spec.wanted();
    let held = if held {
        format!(": only {} pods have its newest template", d.status.updated_replicas)
    } else {
        String::new()
    };
    let summary = format!("The rollout of {object} is paused{held}");
    let by = d.metadata.last_writer().map_or(String::new(), |w| format!(", last written by {}", w.manager));
    let finding = Finding::new(FaultClass::RolloutPaused, object.clone(), summary)
        .because(object.clone(), format!("spec.paused is true{by}: changes of its template do not reach its pods"))
        .fix(format!(
            "Resume it when whoever paused it is done: kubectl -n {} rollout resume deployment/{}",
            object.namespace, object.name
        ))
        .field(object, "spec.paused", "true")
        .since(since);
    Some(if at_work { finding.graded(Grade::Info) } else { finding })
}

/// The newest replica set does not have the deployment's images although its controller says that all is done.
fn template_drift(cx: &Context<'_>, object: &ObjectRef, d: &Deployment) -> Option<Finding> {
    let status = &d.status;
    let done = status.observed_generation == d.metadata.generation && status.observed_generation > 0;
    if !done || d.spec.paused || status.updated_replicas < d.spec.wanted() {
        return pod_drift(cx, object);
    }
    let newest = revisions(cx, object).into_iter().next_back()?.1;
    let (want, have) = (images(&d.spec.template.spec), images(&newest.spec.template.spec));
    let Some((name, image)) = want.iter().find(|(n, i)| have.get(*n).is_some_and(|h| h != *i)) else {
        return pod_drift(cx, object);
    };
    let set = ObjectRef::of("ReplicaSet", &newest.metadata);
    let other = have.get(name).copied().unwrap_or_default();
    let summary = format!("{object} asks for image {image} in container {name}, its newest replica set has {other}");
    Some(
        Finding::new(FaultClass::SelectorDrift, object.clone(), summary)
            .because(set.clone(), format!("{set} was changed apart from its deployment: its pods run {other}"))
            .fix(format!(
                "Start a new rollout, so that pods are made from the deployment's template: kubectl -n {} rollout \
                 restart deployment/{}",
                object.namespace, object.name
            ))
            .field(object, &format!("spec.template.spec.containers[{name}].image"), image)
            .field(&set, &format!("spec.template.spec.containers[{name}].image"), other)
            .hits(set.clone()),
    )
}

/// A pod whose image was changed apart from the template that made it, while its siblings have the right one.
fn pod_drift(cx: &Context<'_>, object: &ObjectRef) -> Option<Finding> {
    let mut odd = None;
    let mut straight = false;
    let selector = &cx.world.deployments.get(&object.namespace, &object.name)?.spec.selector;
    for pod in cx.pods_of(object) {
        // Only another value is certain: pods that lack the label were never of this selector.
        let other = |(k, v): &(&str, &str)| pod.metadata.labels.get(k).is_some_and(|have| have != *v);
        if let Some((key, value)) = selector.match_labels.iter().find(other) {
            return Some(relabelled(object, pod, key, value));
        }
        let Some(owner) = pod.metadata.controller().filter(|o| o.kind == "ReplicaSet") else { continue };
        let Some(set) = cx.world.replica_sets.get(&pod.metadata.namespace, &owner.name) else { continue };
        let (want, have) = (images(&set.spec.template.spec), images(&pod.spec));
        // Mirrors and signers put another registry in front or a digest behind: that is no drift.
        let drift = want.iter().find(|(n, i)| have.get(*n).is_some_and(|h| bare_image(h) != bare_image(i)));
        match drift {
            Some((name, image)) => {
                odd = odd.or(Some((*pod, *name, *image, have.get(name).copied().unwrap_or_default())))
            }
            None => straight = true,
        }
    }
    let (pod, name, want, have) = odd.filter(|_| straight)?;
    let who = ObjectRef::of("Pod", &pod.metadata);
    let summary =
        format!("Pod {} of {object} runs image {have} in container {name}, its template has {want}", who.name);
    Some(
        Finding::new(FaultClass::SelectorDrift, object.clone(), summary)
            .because(who.clone(), format!("somebody changed the image of pod {} by hand", who.name))
            .fix(format!(
                "Delete the pod, so that it is made anew from the template (kubectl -n {} delete pod {}), or put the \
                 image into the template",
                who.namespace, who.name
            ))
            .field(&who, &format!("spec.containers[{name}].image"), have)
            .hits(who.clone()),
    )
}

/// A pod whose label was changed away from what its deployment selects.
fn relabelled(object: &ObjectRef, pod: &Pod, key: &str, value: &str) -> Finding {
    let who = ObjectRef::of("Pod", &pod.metadata);
    let have = pod.metadata.labels.get(key).unwrap_or_default();
    let by = pod.metadata.last_writer().map_or(String::new(), |w| format!(" (last written by {})", w.manager));
    Finding::new(
        FaultClass::SelectorDrift,
        object.clone(),
        format!("Pod {} of {object} has {key}={have}, which the selector {key}={value} no longer finds", who.name),
    )
    .because(who.clone(), format!("label {key} of pod {} was changed from {value} to {have}{by}", who.name))
    .fix(format!(
        "Put the label back (kubectl -n {} label pod {} {key}={value} --overwrite), or delete the pod so that it is made \
         anew",
        who.namespace, who.name
    ))
    .field(&who, &format!("metadata.labels[{key}]"), have)
    .field(object, &format!("spec.selector.matchLabels[{key}]"), value)
    .hits(who.clone())
}

/// A replica set that its deployment no longer selects, and that still runs pods.
fn orphan(cx: &Context<'_>, set: &ReplicaSet) -> Option<Finding> {
    let hash = set.metadata.labels.get("pod-template-hash")?;
    let name = set.metadata.name.strip_suffix(hash)?.strip_suffix('-')?;
    let d = cx.world.deployments.get(&set.metadata.namespace, name)?;
    if set.spec.wanted() == 0 || d.metadata.deletion_timestamp.is_some() {
        return None;
    }
    // One that is still selected is taken over again by itself.
    if d.spec.selector.matches(&set.spec.template.metadata.labels) {
        return None;
    }
    let object = ObjectRef::of("Deployment", &d.metadata);
    let old = ObjectRef::of("ReplicaSet", &set.metadata);
    let summary = format!("{object} no longer selects its old replica set {}, which still runs pods", old.name);
    let why = format!(
        "the selector is now {}, the old pods have {}: {}",
        d.spec.selector, set.spec.template.metadata.labels, "nobody scales them down"
    );
    Some(
        Finding::new(FaultClass::SelectorDrift, object.clone(), summary)
            .because(object.clone(), why)
            .fix(format!(
                "Delete the replica set that is left over: kubectl -n {} delete replicaset {}",
                old.namespace, old.name
            ))
            .field(&object, "spec.selector", d.spec.selector.to_string())
            .field(&old, "spec.replicas", set.spec.wanted().to_string())
            .hits(old.clone()),
    )
}

fn images(spec: &PodSpec) -> BTreeMap<&str, &str> {
    spec.containers.iter().map(|c| (c.name.as_str(), c.image.as_str())).collect()
}

/// `web:1` of `registry.example/team/web:1@sha256:…`.
fn bare_image(image: &str) -> &str {
    let untold = image.split('@').next().unwrap_or(image);
    untold.rsplit('/').next().unwrap_or(untold)
}

/// The replica sets of a deployment by revision, oldest first.
pub(super) fn revisions<'a>(cx: &Context<'a>, object: &ObjectRef) -> Vec<(i64, &'a ReplicaSet)> {
    let sets = cx.replica_sets(&object.namespace, &object.name).iter().copied();
    let mut numbered: Vec<(i64, &ReplicaSet)> = sets
        .filter(|s| s.metadata.controller().is_some_and(|o| o.kind == "Deployment"))
        .filter_map(|s| Some((s.metadata.annotations.get("deployment.kubernetes.io/revision")?.parse().ok()?, s)))
        .collect();
    numbered.sort_by(|a, b| (a.0, &a.1.metadata.name).cmp(&(b.0, &b.1.metadata.name)));
    numbered
}

/// What its newest revision changed: `revision 2 (image of app web:1 -> web:2, 3 minutes ago)`.
pub(super) fn last_change(cx: &Context<'_>, d: &Deployment) -> Option<String> {
    let object = ObjectRef::of("Deployment", &d.metadata);
    let revisions = revisions(cx, &object);
    let [.., (_, before), (number, newest)] = revisions.as_slice() else { return None };
    let (old, new) = (images(&before.spec.template.spec), images(&newest.spec.template.spec));
    let changed = new.iter().find_map(|(name, image)| {
        let was = old.get(name)?;
        (was != image).then(|| format!("image of {name} {was} -> {image}"))
    });
    let when = newest.metadata.creation_timestamp.map(|at| format!(", {}", ago(cx, at))).unwrap_or_default();
    Some(format!("revision {number} ({}{when})", changed.unwrap_or_else(|| "no change of image".into())))
}

/// `5 minutes ago`.
pub(super) fn ago(cx: &Context<'_>, at: Timestamp) -> String {
    let secs = cx.age(at).as_secs();
    match secs {
        0..120 => format!("{secs} s ago"),
        120..7200 => format!("{} minutes ago", secs / 60),
        7200..172_800 => format!("{} hours ago", secs / 3600),
        _ => format!("{} days ago", secs / 86_400),
    }
}
