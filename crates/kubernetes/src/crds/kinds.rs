//! What people write: playbooks, objectives, policies. The shapes of `deploy/helm/nightshift/crds`.
//!
//! The controller does not read playbooks by these types: it hands the spec as it is to the reader of playbook files,
//! which says more of a mistake than a type can.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::CustomResource;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

/// Anything at all: the reader judges it.
fn loose(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "x-kubernetes-preserve-unknown-fields": true })
}

/// A list of anything.
fn loose_list(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "array", "items": { "x-kubernetes-preserve-unknown-fields": true } })
}

/// A map of text to anything.
fn loose_map(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "additionalProperties": { "x-kubernetes-preserve-unknown-fields": true },
    })
}

/// A number that is left as it was written.
fn int64(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "integer", "format": "int64" })
}

/// What heals which fault: the keys of a playbook file.
#[derive(CustomResource, Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "nightshift.dev",
    version = "v1alpha1",
    kind = "Playbook",
    plural = "playbooks",
    singular = "playbook",
    shortname = "pbk",
    category = "nightshift",
    namespaced,
    status = "PlaybookStatus",
    printcolumn = r#"{"name":"Title","type":"string","jsonPath":".spec.title"}"#,
    printcolumn = r#"{"name":"Accepted","type":"string","jsonPath":".status.conditions[?(@.type==\"Accepted\")].status"}"#,
    printcolumn = r#"{"name":"Why","type":"string","priority":1,"jsonPath":".status.conditions[?(@.type==\"Accepted\")].message"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
pub struct PlaybookSpec {
    /// Unique; the object's own name unless told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// One line for people.
    pub title: String,
    /// Fault classes: a slug, or a map with `fault` and more.
    #[schemars(schema_with = "loose_list")]
    pub heals: Vec<Value>,
    /// Values that steps use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub params: Option<BTreeMap<String, Parameter>>,
    /// Conditions on facts, one text or several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "loose")]
    pub when: Option<Value>,
    /// What is done, in order.
    pub steps: Vec<PlaybookStep>,
    /// How success is checked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verify: Option<PlaybookVerify>,
    /// The fix works within seconds of being applied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acts_at_once: Option<bool>,
    /// How soon.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<String>,
    /// Team that answers for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// Whom to ask first, one text or several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "loose")]
    pub escalation: Option<Value>,
    /// Seconds until it should be over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "int64")]
    pub estimated_resolution_secs: Option<i64>,
    /// What it costs when it does no good, a share.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub harm: Option<f64>,
}

/// A value that steps use.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Parameter {
    /// What it must be.
    #[serde(rename = "type")]
    pub sort: String,
    /// An expression.
    #[schemars(schema_with = "loose")]
    pub value: Value,
    /// Least that is allowed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min: Option<f64>,
    /// Most that is allowed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<f64>,
    /// For people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
}

/// One step of a playbook.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PlaybookStep {
    /// Unique within the playbook.
    pub name: String,
    /// An action type.
    pub action: String,
    /// To what, seen from the cause.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// Name of the actuator.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub actuator: Option<String>,
    /// Values for the actuator.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "loose_map")]
    pub params: Option<BTreeMap<String, Value>>,
    /// Facts that must be unchanged when it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "loose")]
    pub expects: Option<Value>,
    /// How much can go wrong.
    pub risk: String,
    /// What people notice, and for how long.
    pub estimated_impact: String,
    /// Seconds that one attempt may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "int64")]
    pub deadline_secs: Option<i64>,
    /// How it is taken back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollback: Option<String>,
    /// A part that is changed first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub canary: Option<Canary>,
}

/// A part that is changed first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Canary {
    /// Share of the target, above 0 and below 1.
    pub share: f64,
    /// Seconds for which it is looked at.
    #[schemars(schema_with = "int64")]
    pub watch_secs: i64,
}

/// How success is checked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PlaybookVerify {
    /// Whose KPI: `any` or `affected`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub of: Option<String>,
    /// In order of preference.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "loose_list")]
    pub kpis: Option<Vec<Value>>,
    /// Good readings in a row.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "int64")]
    pub readings: Option<i64>,
    /// Seconds between two readings at least.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "int64")]
    pub interval_secs: Option<i64>,
    /// Seconds after the last step within which they must come.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "int64")]
    pub deadline_secs: Option<i64>,
}

/// What Nightshift made of a playbook.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct PlaybookStatus {
    /// Generation of the spec that this is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// SHA-256 of what was read; empty while nothing of it is in force.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// `Accepted`.
    pub conditions: Vec<Condition>,
}

/// A policy of the guard, in Rego.
#[derive(CustomResource, Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "nightshift.dev",
    version = "v1alpha1",
    kind = "RemediationPolicy",
    plural = "remediationpolicies",
    singular = "remediationpolicy",
    shortname = "rempol",
    category = "nightshift",
    namespaced,
    status = "RemediationPolicyStatus",
    printcolumn = r#"{"name":"Enabled","type":"boolean","jsonPath":".spec.enabled"}"#,
    printcolumn = r#"{"name":"Tests","type":"string","jsonPath":".status.tests"}"#,
    printcolumn = r#"{"name":"Accepted","type":"string","jsonPath":".status.conditions[?(@.type==\"Accepted\")].status"}"#,
    printcolumn = r#"{"name":"Why","type":"string","priority":1,"jsonPath":".status.conditions[?(@.type==\"Accepted\")].message"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
pub struct RemediationPolicySpec {
    /// One package with any of the rules `deny`, `ask` and `monitor`.
    pub rego: String,
    /// Package with rules `test_…`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tests: Option<String>,
    /// Whether it is in force.
    #[serde(default = "yes")]
    pub enabled: bool,
}

const fn yes() -> bool {
    true
}

/// What Nightshift made of a policy.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct RemediationPolicyStatus {
    /// Generation of the spec that this is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// SHA-256 of the Rego that was read; empty while nothing of it is in force.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// Name of its Rego package.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub package: Option<String>,
    /// Tests that passed of all, such as `4/4`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tests: Option<String>,
    /// `Accepted`.
    pub conditions: Vec<Condition>,
}

/// An objective of a service.
#[derive(CustomResource, Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "nightshift.dev",
    version = "v1alpha1",
    kind = "ServiceObjective",
    plural = "serviceobjectives",
    singular = "serviceobjective",
    shortname = "slo",
    category = "nightshift",
    namespaced,
    status = "ServiceObjectiveStatus",
    printcolumn = r#"{"name":"Service","type":"string","jsonPath":".spec.target.name"}"#,
    printcolumn = r#"{"name":"Objective","type":"number","jsonPath":".spec.objective"}"#,
    printcolumn = r#"{"name":"Window","type":"string","jsonPath":".spec.window"}"#,
    printcolumn = r#"{"name":"Budget","type":"string","jsonPath":".status.budget"}"#,
    printcolumn = r#"{"name":"Accepted","type":"string","jsonPath":".status.conditions[?(@.type==\"Accepted\")].status"}"#,
    printcolumn = r#"{"name":"Why","type":"string","priority":1,"jsonPath":".status.conditions[?(@.type==\"Accepted\")].message"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
pub struct ServiceObjectiveSpec {
    /// Whose objective, in the namespace of the object.
    pub target: ObjectiveTarget,
    /// Unique within the service; the object's own name unless told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Share of good events, percent, above 0 and below 100.
    pub objective: f64,
    /// Time over which it is counted: a whole number of s, m, h, d or w.
    #[serde(default = "month")]
    pub window: String,
    /// What is counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub indicator: Option<String>,
}

fn month() -> String {
    "30d".to_owned()
}

/// Whose objective.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ObjectiveTarget {
    /// Kind of the target.
    #[serde(default = "service")]
    pub kind: String,
    /// Name of the target.
    pub name: String,
}

fn service() -> String {
    "Service".to_owned()
}

/// What Nightshift made of an objective.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ServiceObjectiveStatus {
    /// Generation of the spec that this is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Id of the entity that it is counted for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub entity: Option<String>,
    /// Share of the error budget that is left, for people; `unknown` when nobody counted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub budget: Option<String>,
    /// The same as a number, 1 for all of it; below 0 when overspent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub budget_left: Option<f64>,
    /// `Accepted`.
    pub conditions: Vec<Condition>,
}

#[cfg(test)]
#[path = "kinds_tests.rs"]
mod tests;
