//! Secrets that were rotated while pods still run with the old value in their environment.

use crate::checks::history::Record;
use crate::objects::{Container, Pod, Secret};
use crate::{Context, Finding, ObjectRef};
use nightshift_model::{FaultClass, Timestamp};
use std::collections::BTreeMap;

/// Pods that are named by one finding.
const PODS_NAMED: usize = 20;

/// Runs the checks.
pub(super) fn run(cx: &Context<'_>, out: &mut Vec<Finding>) {
    let mut rotated: BTreeMap<(&str, &str), (Timestamp, String)> = BTreeMap::new();
    for secret in cx.world.secrets.iter() {
        if let Some(change) = rotation(cx, secret) {
            rotated.insert((&secret.metadata.namespace, &secret.metadata.name), change);
        }
    }
    if rotated.is_empty() {
        return;
    }
    for (workload, pods) in cx.workloads() {
        let mut stale: BTreeMap<&str, (Vec<&Pod>, &str)> = BTreeMap::new();
        for pod in pods.iter().filter(|p| p.metadata.deletion_timestamp.is_none()) {
            for container in &pod.spec.containers {
                for name in read_once(pod, container) {
                    let Some((at, _)) = rotated.get(&(pod.metadata.namespace.as_str(), name)) else { continue };
                    if began(pod, container).is_some_and(|b| b < *at) {
                        let entry = stale.entry(name).or_insert_with(|| (Vec::new(), &container.name));
                        if entry.0.last().is_none_or(|p| p.metadata.name != pod.metadata.name) {
                            entry.0.push(pod);
                        }
                    }
                }
            }
        }
        for (name, (pods, container)) in stale {
            if let Some((at, who)) = rotated.get(&(workload.namespace.as_str(), name)) {
                out.push(finding(workload, name, container, &pods, *at, who));
            }
        }
    }
}

/// When the values of a secret were last written after it was made, and by whom.
fn rotation(cx: &Context<'_>, secret: &Secret) -> Option<(Timestamp, String)> {
    let meta = &secret.metadata;
    let object = ObjectRef::of("Secret", meta);
    let seen = cx.world.history.of(&object).filter_map(|(at, r)| match r {
        Record::Changed { who, .. } => Some((at, who.clone())),
        _ => None,
    });
    let made = meta.creation_timestamp;
    let written = meta.managed_fields.iter().filter(|m| m.subresource.is_empty() && m.parts.is_some_and(|p| p.data));
    let written =
        written.filter_map(|m| Some((m.time.filter(|at| made.is_some_and(|made| *at > made))?, m.manager.clone())));
    seen.chain(written).max()
}

/// Secrets whose values a container keeps as they were when it began: variables, and files mounted one by one.
fn read_once<'a>(pod: &'a Pod, container: &'a Container) -> Vec<&'a str> {
    let of_env =
        container.env.iter().filter_map(|e| Some(e.value_from.as_ref()?.secret_key_ref.as_ref()?.name.as_str()));
    let whole = container.env_from.iter().filter_map(|e| Some(e.secret_ref.as_ref()?.name.as_str()));
    let single = container.volume_mounts.iter().filter(|m| !m.sub_path.is_empty()).filter_map(|m| {
        let volume = pod.spec.volumes.iter().find(|v| v.name == m.name)?;
        Some(volume.secret.as_ref()?.secret_name.as_str())
    });
    let mut names: Vec<&str> = of_env.chain(whole).chain(single).collect();
    names.sort_unstable();
    names.dedup();
    names
}

/// Since when a container runs with what it read. `None`: it does not run, so it will read anew.
fn began(pod: &Pod, container: &Container) -> Option<Timestamp> {
    let status = pod.status.container_statuses.iter().find(|c| c.name == container.name)?;
    let running = status.state.running.as_ref()?;
    // A pod written by hand may tell an older start than its own.
    [running.started_at, pod.metadata.creation_timestamp].into_iter().flatten().max()
}

fn finding(workload: &ObjectRef, name: &str, container: &str, pods: &[&Pod], at: Timestamp, who: &str) -> Finding {
    let secret = ObjectRef::new("Secret", workload.namespace.clone(), name);
    let n = pods.len();
    let who = if who.is_empty() { String::new() } else { format!(" by {who}") };
    let restart = match workload.kind.as_str() {
        "Deployment" | "StatefulSet" | "DaemonSet" => format!(
            "kubectl -n {} rollout restart {}/{}",
            workload.namespace,
            workload.kind.to_ascii_lowercase(),
            workload.name
        ),
        _ => format!(
            "kubectl -n {} delete pod {}",
            workload.namespace,
            pods.first().map_or("", |p| p.metadata.name.as_str())
        ),
    };
    let mut finding = Finding::new(
        FaultClass::StaleConfig,
        workload.clone(),
        format!("{n} pods of {workload} still run with the old values of secret {name}, which was changed since"),
    )
    .because(
        secret.clone(),
        format!("secret {name} was changed at {at}{who}, after container {container} had read it at its start"),
    )
    .fix(format!("Restart its pods, so that they read the new values: {restart}"))
    .field(&secret, "metadata.managedFields", format!("values written at {at}{who}"))
    .since(Some(at));
    for pod in pods.iter().take(PODS_NAMED) {
        let pod_ref = ObjectRef::of("Pod", &pod.metadata);
        let began = pod.status.container_statuses.iter().find_map(|c| c.state.running.as_ref()?.started_at);
        if let Some(began) = began {
            finding = finding.field(
                &pod_ref,
                &format!("status.containerStatuses[{container}].state.running.startedAt"),
                began.to_rfc3339(),
            );
        }
        finding = finding.hits(pod_ref);
    }
    finding
}
