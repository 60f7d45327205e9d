//! Config maps, secrets and keys that are missing where no pod waits for them yet: the next start fails.
//!
//! Not here: pods that wait for one, which say so themselves (group pods).

use super::uses::{self, Source, Use};
use super::workloads;
use crate::objects::Pod;
use crate::{Context, Finding, Grade, Look, ObjectRef};
use nightshift_model::FaultClass;

/// Config maps that controllers put into every namespace.
const PUBLISHED: [&str; 3] = ["kube-root-ca.crt", "openshift-service-ca.crt", "istio-ca-root-cert"];

/// Runs the check.
pub(super) fn run(cx: &Context<'_>, out: &mut Vec<Finding>) {
    for workload in workloads(cx).into_iter().filter(|w| w.wanted) {
        let pods = cx.pods_of(&workload.object);
        // A pod that waits says itself what for, and may wait for something else first.
        if pods.iter().any(|p| waits(cx, p)) {
            continue;
        }
        let mut told: Vec<(Source, &str, &str)> = Vec::new();
        for used in uses::of(workload.spec).into_iter().filter(|u| !u.optional) {
            if used.source == Source::ConfigMap && PUBLISHED.contains(&used.name) {
                continue;
            }
            let Some(fault) = lacks(cx, &workload.object.namespace, &used) else { continue };
            let key = if fault == FaultClass::MissingConfigKey { used.key } else { "" };
            if told.contains(&(used.source, used.name, key)) {
                continue;
            }
            told.push((used.source, used.name, key));
            let runs = pods.iter().any(|p| p.status.phase == "Running");
            out.push(finding(&workload.object, &used, fault, runs));
        }
    }
}

/// Whether a pod says that it waits for something.
fn waits(cx: &Context<'_>, pod: &Pod) -> bool {
    let statuses = pod.status.container_statuses.iter().chain(&pod.status.init_container_statuses);
    statuses.into_iter().any(|s| s.state.waiting.is_some())
        || pod.status.conditions.when("PodScheduled", "False").is_some()
        || cx.events("Pod", &pod.metadata.namespace, &pod.metadata.name).iter().any(|e| e.kind == "Warning")
}

/// What is missing of what is used, if it certainly is.
fn lacks(cx: &Context<'_>, namespace: &str, used: &Use<'_>) -> Option<FaultClass> {
    let absent = |has: bool| (!used.key.is_empty() && !has).then_some(FaultClass::MissingConfigKey);
    match used.source {
        Source::ConfigMap => match cx.world.config_maps.look(namespace, used.name) {
            Look::Missing => Some(FaultClass::MissingConfigMap),
            Look::Found(map) => absent(map.data.contains_key(used.key) || map.binary_data.contains_key(used.key)),
            Look::Unseen => None,
        },
        Source::Secret => match cx.world.secrets.look(namespace, used.name) {
            Look::Missing => Some(FaultClass::MissingSecret),
            Look::Found(secret) => absent(secret.data.contains_key(used.key)),
            Look::Unseen => None,
        },
    }
}

fn finding(me: &ObjectRef, used: &Use<'_>, fault: FaultClass, runs: bool) -> Finding {
    let kind = used.source.kind();
    let cause = ObjectRef::new(kind, me.namespace.clone(), used.name);
    let what = if fault == FaultClass::MissingConfigKey {
        format!("key `{}` of {kind} {}", used.key, used.name)
    } else {
        format!("{kind} {}", used.name)
    };
    let then = if runs { "its pods still run, and will not start again" } else { "its pods cannot start" };
    Finding::new(fault, me.clone(), format!("{me} needs {what}, which does not exist: {then}"))
        .because(cause.clone(), format!("{what} does not exist; container {} reads it", used.container))
        .fix(format!(
            "Create {what} in namespace {}, or take the reference out of {me} (or make it optional)",
            me.namespace
        ))
        .graded(if runs { Grade::Medium } else { Grade::High })
        .field(
            me,
            &format!("spec.template.spec.containers[{}].{}", used.container, used.into),
            format!("{what}, not optional"),
        )
}
