//! KEDA: scalers whose target is missing or whose trigger fails.

use super::{all, named, outdated, words};
use crate::objects::Custom;
use crate::{Context, Finding, Look, ObjectRef};
use nightshift_model::FaultClass;

/// Runs the checks of KEDA.
pub(super) fn run(cx: &Context<'_>, out: &mut Vec<Finding>) {
    for object in all(cx, "keda.sh", "ScaledObject").chain(all(cx, "keda.sh", "ScaledJob")) {
        out.extend(scaler(cx, object));
    }
}

fn scaler(cx: &Context<'_>, scaled: &Custom) -> Option<Finding> {
    let object = named(scaled);
    let (namespace, name) = (scaled.metadata.namespace.as_str(), scaled.metadata.name.as_str());
    if scaled.metadata.annotations.get("autoscaling.keda.sh/paused").is_some_and(|v| v != "false") {
        return None;
    }
    let target = scaled.spec_text("/scaleTargetRef/name");
    let kind = scaled.spec_text("/scaleTargetRef/kind");
    let kind = if kind.is_empty() { "Deployment" } else { kind };
    let missing = !target.is_empty()
        && match kind {
            "Deployment" => matches!(cx.world.deployments.look(namespace, target), Look::Missing),
            "StatefulSet" => matches!(cx.world.stateful_sets.look(namespace, target), Look::Missing),
            _ => false,
        };
    let conditions = scaled.conditions();
    let ready = conditions.when("Ready", "False").filter(|c| !outdated(scaled, c));
    let fallback = conditions.when("Fallback", "True");
    if missing {
        let target = ObjectRef::new(kind, namespace, target);
        return Some(
            Finding::new(FaultClass::ScalerBroken, object.clone(), format!("{} {name} scales nothing", scaled.kind))
                .because(target.clone(), format!("its target {target} does not exist"))
                .fix(format!("Name an existing workload in spec.scaleTargetRef of {name}, or delete {name}."))
                .field(&object, "spec.scaleTargetRef.name", &target.name)
                .since(ready.and_then(|c| c.last_transition_time)),
        );
    }
    let said = ready.or(fallback)?;
    let what = if ready.is_some() { "does not work" } else { "falls back to a fixed number of replicas" };
    let mut finding = Finding::new(FaultClass::ScalerBroken, object.clone(), format!("{} {name} {what}", scaled.kind))
        .because(object.clone(), words(said))
        .fix("Mend the trigger that the message names: its address, its credentials, or what it asks.")
        .field(&object, &format!("status.conditions[{}].message", said.kind), words(said))
        .since(said.last_transition_time);
    let triggers = scaled.spec.get("triggers").and_then(|t| t.as_array()).into_iter().flatten();
    for trigger in triggers {
        let reference = trigger.pointer("/authenticationRef/name").and_then(|n| n.as_str()).unwrap_or_default();
        let kind =
            trigger.pointer("/authenticationRef/kind").and_then(|n| n.as_str()).unwrap_or("TriggerAuthentication");
        if reference.is_empty() || kind != "TriggerAuthentication" {
            continue;
        }
        let table = cx.world.customs("keda.sh", "TriggerAuthentication");
        if table.is_some_and(|t| t.look(namespace, reference).is_missing()) {
            let gone = ObjectRef::new(kind, namespace, reference);
            finding = finding.because(gone.clone(), format!("{gone}, which a trigger uses, does not exist"));
        }
    }
    if !target.is_empty() {
        finding = finding.explained_by(ObjectRef::new(kind, namespace, target));
    }
    Some(finding)
}
