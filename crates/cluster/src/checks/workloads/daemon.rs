//! Daemon sets that are not on every node they should be on, and pull secrets that are missing.

use super::deployment::{behind, with_pods};
use super::kinds::{Workload, is_ready, is_starting, why_not_ready};
use crate::objects::DaemonSet;
use crate::{Context, Finding, Grade, ObjectRef};
use nightshift_model::FaultClass;

/// Runs the checks.
pub(super) fn run(cx: &Context<'_>, all: &[Workload<'_>], out: &mut Vec<Finding>) {
    for d in cx.world.daemon_sets.iter().filter(|d| d.metadata.deletion_timestamp.is_none()) {
        let object = ObjectRef::of("DaemonSet", &d.metadata);
        let late = behind(cx, &object, &d.metadata, d.status.observed_generation);
        out.extend(late.or_else(|| incomplete(cx, &object, d)));
    }
    out.extend(all.iter().filter_map(|w| pull_secret(cx, w)));
}

fn incomplete(cx: &Context<'_>, object: &ObjectRef, d: &DaemonSet) -> Option<Finding> {
    let status = &d.status;
    let wanted = status.desired_number_scheduled;
    let ready = status.number_ready.max(status.number_available);
    if wanted <= 0 || ready >= wanted {
        return None;
    }
    let pods = cx.pods_of(object);
    let down: Vec<_> = pods.iter().copied().filter(|p| !is_ready(p)).collect();
    let up = i64::try_from(pods.len() - down.len()).unwrap_or(i64::MAX);
    if up >= wanted || (!down.is_empty() && down.iter().all(|p| is_starting(cx, p))) {
        return None;
    }
    // A rolling update takes so many away at a time.
    let rolling = d.spec.update_strategy.rolling_update.as_ref();
    let away = rolling.and_then(|r| r.max_unavailable.as_ref()?.of(wanted, true)).unwrap_or(1);
    let updating = d.spec.update_strategy.kind != "OnDelete"
        && status.updated_number_scheduled < wanted
        && status.current_number_scheduled >= wanted;
    let fine = |p: &&crate::objects::Pod| is_starting(cx, p) || p.metadata.deletion_timestamp.is_some();
    if updating && status.updated_number_scheduled > 0 && wanted - ready <= away && down.iter().all(fine) {
        return None;
    }
    let unplaced = wanted - status.current_number_scheduled;
    let why = match down.first() {
        Some(pod) => {
            format!("pod {} on {} is not ready: {}", pod.metadata.name, node(&pod.spec.node_name), why_not_ready(pod))
        }
        None if unplaced > 0 => format!("{unplaced} nodes that should run it have no pod of it"),
        None => format!("{} of its pods are not ready", wanted - ready),
    };
    let finding = Finding::new(
        FaultClass::DaemonSetIncomplete,
        object.clone(),
        format!("{object} is ready on {ready} of {wanted} nodes"),
    )
    .because(object.clone(), why)
    .fix(format!(
        "Look at its pods that are not ready: kubectl -n {} get pods -o wide --selector {} and kubectl describe pod",
        object.namespace, d.spec.selector
    ))
    .field(
        object,
        "status.numberReady",
        format!(
            "{} of {wanted} wanted, {} scheduled, {} unavailable",
            status.number_ready, status.current_number_scheduled, status.number_unavailable
        ),
    )
    .graded(if ready == 0 { Grade::High } else { Grade::Medium })
    .generic();
    Some(with_pods(cx, finding, object))
}

fn node(name: &str) -> String {
    if name.is_empty() { "no node".into() } else { format!("node {name}") }
}

/// A pull secret that does not exist. While all pods are ready it only matters on the next node.
fn pull_secret(cx: &Context<'_>, w: &Workload<'_>) -> Option<Finding> {
    let namespace = &w.object.namespace;
    if w.wanted == 0 && w.object.kind != "DaemonSet" {
        return None;
    }
    let missing = w
        .spec
        .image_pull_secrets
        .iter()
        .find(|s| !s.name.is_empty() && cx.world.secrets.look(namespace, &s.name).is_missing())?;
    let secret = ObjectRef::new("Secret", namespace.clone(), missing.name.clone());
    let pods = cx.pods_of(&w.object);
    let running = !pods.is_empty() && pods.iter().all(|p| is_ready(p));
    let registry = w.spec.containers.first().map_or("", |c| c.image.as_str());
    let path = if w.object.kind == "Pod" { "spec.imagePullSecrets" } else { "spec.template.spec.imagePullSecrets" };
    let finding = Finding::new(
        FaultClass::PullSecretMissing,
        w.object.clone(),
        format!("{} names image pull secret {}, which does not exist", w.object, missing.name),
    )
    .because(
        secret,
        format!("secret {} does not exist in namespace {namespace}: its private images cannot be pulled", missing.name),
    )
    .fix(format!(
        "Create it for the registry of {registry}: kubectl -n {namespace} create secret docker-registry {}; or take \
         the name out of {path}",
        missing.name
    ))
    .field(&w.object, path, &missing.name)
    .generic();
    Some(if running && w.object.kind != "DaemonSet" { finding.graded(Grade::Info) } else { finding })
}
