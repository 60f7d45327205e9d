//! The types here and the definitions of the chart say the same.

use super::*;
use crate::crds::Incident;
use kube::CustomResourceExt as _;
use std::collections::BTreeSet;
use std::path::Path;

fn chart(plural: &str) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/helm/nightshift/crds").join(plural);
    let text = std::fs::read_to_string(path.with_extension("yaml")).unwrap();
    serde_saphyr::from_str(&text).unwrap()
}

/// Every property with its type, whether it must be there, and whether anything goes.
fn paths(schema: &Value, at: &str, out: &mut BTreeSet<String>) {
    let sort = schema["type"].as_str().unwrap_or("-");
    let format = schema["format"].as_str().filter(|f| *f == "date-time" || *f == "int64").unwrap_or("");
    let loose = if schema["x-kubernetes-preserve-unknown-fields"] == true { " anything" } else { "" };
    out.insert(format!("{at}: {sort} {format}{loose}"));
    for name in schema["required"].as_array().into_iter().flatten() {
        out.insert(format!("{at} needs {name}"));
    }
    for (name, inner) in schema["properties"].as_object().into_iter().flatten() {
        paths(inner, &format!("{at}.{name}"), out);
    }
    for (key, mark) in [("items", "[]"), ("additionalProperties", ".*")] {
        if schema[key].is_object() {
            paths(&schema[key], &format!("{at}{mark}"), out);
        }
    }
}

fn columns(version: &Value) -> Vec<(Value, Value, Value, i64)> {
    let all = version["additionalPrinterColumns"].as_array().unwrap();
    let one = |c: &Value| {
        (c["name"].clone(), c["type"].clone(), c["jsonPath"].clone(), c["priority"].as_i64().unwrap_or_default())
    };
    all.iter().map(one).collect()
}

fn compare(derived: Value, plural: &str) {
    let chart = chart(plural);
    for pointer in ["/metadata/name", "/spec/group", "/spec/scope"] {
        assert_eq!(derived.pointer(pointer), chart.pointer(pointer), "{plural}{pointer}");
    }
    for name in ["kind", "plural", "singular", "shortNames", "categories"] {
        assert!(chart["spec"]["names"][name] != Value::Null, "{plural} has no {name}");
        assert_eq!(derived["spec"]["names"][name], chart["spec"]["names"][name], "{plural} {name}");
    }
    let (ours, theirs) = (&derived["spec"]["versions"][0], &chart["spec"]["versions"][0]);
    for name in ["name", "served", "storage", "subresources"] {
        assert_eq!(ours[name], theirs[name], "{plural} {name}");
    }
    assert_eq!(columns(ours), columns(theirs), "{plural}");
    for part in ["spec", "status"] {
        let of = |version: &Value| {
            let mut out = BTreeSet::new();
            paths(&version["schema"]["openAPIV3Schema"]["properties"][part], part, &mut out);
            out
        };
        let (ours, theirs) = (of(ours), of(theirs));
        let only_ours: Vec<&String> = ours.difference(&theirs).collect();
        let only_theirs: Vec<&String> = theirs.difference(&ours).collect();
        assert!(
            only_ours.is_empty() && only_theirs.is_empty(),
            "{plural}: types {only_ours:#?}, chart {only_theirs:#?}"
        );
        assert!(ours.len() > 3, "{plural} {part}: {ours:?}");
    }
}

#[test]
fn playbooks_are_as_in_the_chart() {
    compare(serde_json::to_value(Playbook::crd()).unwrap(), "playbooks");
}

#[test]
fn policies_are_as_in_the_chart() {
    compare(serde_json::to_value(RemediationPolicy::crd()).unwrap(), "remediationpolicies");
}

#[test]
fn objectives_are_as_in_the_chart() {
    compare(serde_json::to_value(ServiceObjective::crd()).unwrap(), "serviceobjectives");
}

#[test]
fn incidents_are_as_in_the_chart() {
    compare(serde_json::to_value(Incident::crd()).unwrap(), "incidents");
}

#[test]
fn defaults_are_those_of_the_chart() {
    let spec: ServiceObjectiveSpec = serde_json::from_str(r#"{"target":{"name":"a"},"objective":99}"#).unwrap();
    let chart_slo = chart("serviceobjectives");
    let properties = &chart_slo["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"];
    assert_eq!(properties["window"]["default"], spec.window.as_str());
    assert_eq!(properties["target"]["properties"]["kind"]["default"], spec.target.kind.as_str());
    let policy: RemediationPolicySpec = serde_json::from_str(r#"{"rego":"package a"}"#).unwrap();
    assert!(policy.enabled);
}
