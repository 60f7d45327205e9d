//! Flux: sources, kustomizations and releases that are not ready.

use super::{all, named, outdated, words};
use crate::objects::Custom;
use crate::{Context, Finding, Grade, ObjectRef};
use nightshift_model::FaultClass;
use serde_json::Value;

const KUSTOMIZE: &str = "kustomize.toolkit.fluxcd.io";
const HELM: &str = "helm.toolkit.fluxcd.io";
const SOURCE: &str = "source.toolkit.fluxcd.io";

/// Runs the checks of Flux.
pub(super) fn run(cx: &Context<'_>, out: &mut Vec<Finding>) {
    let kinds = [
        (KUSTOMIZE, "Kustomization", FaultClass::GitopsSyncFailed),
        (HELM, "HelmRelease", FaultClass::HelmReleaseFailed),
        (SOURCE, "GitRepository", FaultClass::GitopsSyncFailed),
        (SOURCE, "HelmRepository", FaultClass::GitopsSyncFailed),
        (SOURCE, "OCIRepository", FaultClass::GitopsSyncFailed),
    ];
    for (group, kind, fault) in kinds {
        for object in all(cx, group, kind) {
            out.extend(not_ready(cx, object, fault));
        }
    }
}

fn not_ready(cx: &Context<'_>, flux: &Custom, fault: FaultClass) -> Option<Finding> {
    // Held by somebody on purpose.
    if flux.spec.get("suspend").and_then(Value::as_bool) == Some(true) {
        return None;
    }
    let conditions = flux.conditions();
    let stalled = conditions.when("Stalled", "True");
    let ready = conditions.when("Ready", "False").filter(|c| !outdated(flux, c));
    let said = stalled.or(ready)?;
    // Under way: not ready yet, and nothing has failed.
    if stalled.is_none() && matches!(said.reason.as_str(), "Progressing" | "ProgressingWithRetry" | "Unknown") {
        return None;
    }
    let object = named(flux);
    let mut finding =
        Finding::new(fault, object.clone(), format!("{} {} of Flux is not ready", flux.kind, flux.metadata.name))
            .because(object.clone(), words(said))
            .fix(format!(
                "Mend what the message names, then: flux reconcile {} {} -n {}.",
                command(&flux.kind),
                flux.metadata.name,
                flux.metadata.namespace
            ))
            .field(&object, "status.conditions[Ready].reason", &said.reason)
            .field(&object, "status.conditions[Ready].message", &said.message)
            .since(said.last_transition_time)
            .graded(Grade::High);
    let own = flux.metadata.namespace.as_str();
    let mut sources: Vec<ObjectRef> = Vec::new();
    for pointer in ["/sourceRef", "/chart/spec/sourceRef", "/chartRef"] {
        if let Some(reference) = flux.spec.pointer(pointer) {
            sources.extend(target(reference, own));
        }
    }
    for dependency in flux.spec.get("dependsOn").and_then(Value::as_array).into_iter().flatten() {
        let text = |name: &str| dependency.get(name).and_then(Value::as_str).unwrap_or_default();
        let namespace = if text("namespace").is_empty() { own } else { text("namespace") };
        sources.push(ObjectRef::new(flux.kind.clone(), namespace, text("name")));
    }
    for source in sources {
        let missing = cx
            .world
            .customs(SOURCE, &source.kind)
            .is_some_and(|t| t.look(&source.namespace, &source.name).is_missing());
        if missing {
            finding = finding.because(source.clone(), format!("{source} does not exist"));
        }
        finding = finding.explained_by(source);
    }
    // A release that waits for its workloads says less than they do.
    for entry in flux.status.pointer("/inventory/entries").and_then(Value::as_array).into_iter().flatten() {
        finding.explained_by.extend(entry.get("id").and_then(Value::as_str).and_then(inventory));
    }
    Some(finding)
}

fn target(reference: &Value, own: &str) -> Option<ObjectRef> {
    let text = |name: &str| reference.get(name).and_then(Value::as_str).unwrap_or_default();
    let namespace = if text("namespace").is_empty() { own } else { text("namespace") };
    (!text("name").is_empty()).then(|| ObjectRef::new(text("kind"), namespace, text("name")))
}

/// `shop_web_apps_Deployment` as an object.
fn inventory(id: &str) -> Option<ObjectRef> {
    let parts: Vec<&str> = id.split('_').collect();
    let [namespace, name, _group, kind] = parts.as_slice() else { return None };
    Some(ObjectRef::new(*kind, *namespace, *name))
}

fn command(kind: &str) -> &'static str {
    match kind {
        "Kustomization" => "kustomization",
        "HelmRelease" => "helmrelease",
        "GitRepository" => "source git",
        "HelmRepository" => "source helm",
        _ => "source oci",
    }
}
