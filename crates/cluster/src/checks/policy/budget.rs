//! Annotations by which a budget tool says that something spends too much.

use crate::checks::workloads::kinds::Workload;
use crate::objects::{Labels, PodSpec};
use crate::{Context, Finding, ObjectRef};
use nightshift_model::FaultClass;
use std::collections::BTreeSet;

/// Values that say that all is well.
const FINE: [&str; 8] = ["", "false", "ok", "no", "none", "0", "normal", "resolved"];

/// Runs the checks.
pub(super) fn run(cx: &Context<'_>, all: &[Workload<'_>], out: &mut Vec<Finding>) {
    let mut told: BTreeSet<ObjectRef> = BTreeSet::new();
    for w in all {
        let own = alert(cx, &w.meta.annotations).map(|(k, v)| ("metadata.annotations", k, v));
        let of_pods = || alert(cx, w.annotations).map(|(k, v)| ("spec.template.metadata.annotations", k, v));
        if let Some((path, key, value)) = own.or_else(of_pods) {
            told.insert(w.object.clone());
            out.push(finding(&w.object, path, key, value, &size(w.spec, w.wanted)));
        }
    }
    // A tool may mark the pods themselves.
    for pod in cx.world.pods.iter() {
        if let Some((key, value)) = alert(cx, &pod.metadata.annotations) {
            let root = cx.root(pod);
            if told.insert(root.clone()) {
                out.push(
                    finding(&root, "metadata.annotations", key, value, "").hits(ObjectRef::of("Pod", &pod.metadata)),
                );
            }
        }
    }
    for namespace in cx.world.namespaces.iter() {
        if let Some((key, value)) = alert(cx, &namespace.metadata.annotations) {
            let object = ObjectRef::of("Namespace", &namespace.metadata);
            out.push(finding(&object, "metadata.annotations", key, value, ""));
        }
    }
}

fn alert<'a>(cx: &'a Context<'_>, annotations: &'a Labels) -> Option<(&'a str, &'a str)> {
    cx.options.budget_annotations.iter().find_map(|key| {
        let value = annotations.get(key)?;
        let fine = FINE.contains(&value.trim().to_ascii_lowercase().as_str());
        (!fine).then_some((key.as_str(), value))
    })
}

/// What it asks for in all, where it says.
fn size(spec: &PodSpec, wanted: i64) -> String {
    let sum = |resource: &str| {
        spec.containers.iter().filter_map(|c| c.resources.requests.get(resource)).map(|q| q.0).sum::<f64>()
            * wanted as f64
    };
    let (cpu, memory) = (sum("cpu"), sum("memory"));
    if cpu <= 0.0 && memory <= 0.0 {
        return format!("; it runs {wanted} pods");
    }
    format!("; its {wanted} pods request {cpu:.1} cores and {:.1} GiB", memory / 1_073_741_824.0)
}

fn finding(object: &ObjectRef, path: &str, key: &str, value: &str, size: &str) -> Finding {
    let value: String = value.chars().take(200).collect();
    Finding::new(FaultClass::CostSpike, object.clone(), format!("{object} is over its budget: {key} is {value}{size}"))
        .because(object.clone(), format!("the budget tool set {key} to {value}{size}"))
        .fix(format!(
            "See what of {object} costs more than planned (replicas, requests, volumes), scale it down or raise its budget; \
             the alert ends when the tool takes the annotation back"
        ))
        .field(object, &format!("{path}[{key}]"), &value)
}
