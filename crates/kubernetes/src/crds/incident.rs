//! An incident as `kubectl get incidents` shows it, and what it is made of. Pure.

use super::{FIELD_MANAGER, GROUP, VERSION};
use kube::CustomResource;
use nightshift_model::{ApprovalState, Incident as Record, Plan, Timestamp};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::time::Duration;

/// Most affected entities that are named.
const AFFECTED_MAX: usize = 50;
/// Longest line, characters: what the definition allows.
const LINE_CHARS_MAX: usize = 1_024;
/// Longest name of a tenant, characters.
const TENANT_CHARS_MAX: usize = 253;
/// Label of objects that we made, and alone may remove.
pub(super) const MANAGED_BY: &str = "app.kubernetes.io/managed-by";

fn moment(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "format": "date-time" })
}

/// Which incident it is; never changes.
#[derive(CustomResource, Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "nightshift.dev",
    version = "v1alpha1",
    kind = "Incident",
    plural = "incidents",
    singular = "incident",
    shortname = "inc",
    category = "nightshift",
    namespaced,
    status = "IncidentState",
    printcolumn = r#"{"name":"ID","type":"string","jsonPath":".spec.shortId"}"#,
    printcolumn = r#"{"name":"Severity","type":"string","jsonPath":".status.severity"}"#,
    printcolumn = r#"{"name":"Status","type":"string","jsonPath":".status.state"}"#,
    printcolumn = r#"{"name":"Cause","type":"string","jsonPath":".status.cause.summary"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".status.onset"}"#,
    printcolumn = r#"{"name":"Confidence","type":"string","priority":1,"jsonPath":".status.cause.confidence"}"#,
    printcolumn = r#"{"name":"Fault","type":"string","priority":1,"jsonPath":".status.cause.fault"}"#,
    printcolumn = r#"{"name":"Affected","type":"integer","priority":1,"jsonPath":".status.affectedTotal"}"#,
    printcolumn = r#"{"name":"Plan","type":"string","priority":1,"jsonPath":".status.plan.title"}"#,
    printcolumn = r#"{"name":"Verdict","type":"string","priority":1,"jsonPath":".status.plan.verdict"}"#
)]
#[serde(rename_all = "camelCase")]
pub struct IncidentSpec {
    /// 32 hexadecimal digits.
    pub id: String,
    /// What people use: `INC-0001`.
    pub short_id: String,
    /// Tenant.
    pub tenant: String,
}

/// How it stands.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct IncidentState {
    /// Where it stands.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    /// How bad it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub severity: Option<String>,
    /// 0..=1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub score: Option<f64>,
    /// One line for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// The likeliest cause.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cause: Option<CauseLine>,
    /// When its first symptom began.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "moment")]
    pub onset: Option<String>,
    /// When it was noticed.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "moment")]
    pub detected_at: Option<String>,
    /// When it last changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "moment")]
    pub updated_at: Option<String>,
    /// When it was resolved.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "moment")]
    pub resolved_at: Option<String>,
    /// Who resolved it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resolved_by: Option<String>,
    /// Who looks at it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub acknowledged_by: Option<String>,
    /// Symptoms that are still going on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub symptoms_open: Option<i64>,
    /// All its symptoms.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub symptoms_total: Option<i64>,
    /// Entities that show symptoms, the first 50 of them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub affected: Vec<String>,
    /// How many show symptoms.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub affected_total: Option<i64>,
    /// How many depend on them and show none yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at_risk_total: Option<i64>,
    /// What it costs people, where that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub estimated_user_impact: Option<String>,
    /// The newest plan.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub plan: Option<PlanLine>,
    /// All that was done or tried.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub actions_total: Option<i64>,
    /// What was done or tried last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_action: Option<ActionLine>,
    /// When the fix was found to work.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "moment")]
    pub verified_at: Option<String>,
    /// The elder incident that it was joined into.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub merged_into: Option<String>,
    /// The earlier incident of the same cause.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recurrence_of: Option<String>,
    /// Made by a test injection.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub synthetic: Option<bool>,
}

/// The likeliest cause.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CauseLine {
    /// Id of the entity at fault; absent when it is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entity: Option<String>,
    /// Slug of the fault class.
    pub fault: String,
    /// Such as `87 %`.
    pub confidence: String,
    /// One line for people.
    pub summary: String,
}

/// The newest plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PlanLine {
    /// What an approval is bound to.
    pub hash: String,
    /// One line for people.
    pub title: String,
    /// How much can go wrong.
    pub risk: String,
    /// What the guard says of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verdict: Option<String>,
    /// `asked`, `approved` or `rejected`; absent when nobody was asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approval: Option<String>,
    /// No answer until then is a rejection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "moment")]
    pub expires_at: Option<String>,
}

/// What was done or tried last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ActionLine {
    /// Action type.
    pub action: String,
    /// Part of the step.
    pub operation: String,
    /// Id of the entity.
    pub target: String,
    /// How it ended; absent while it is under way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<String>,
    /// When it ended, or began while it is under way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "moment")]
    pub at: Option<String>,
}

/// An incident as it is to stand in the cluster. Small: what is held of each.
#[derive(Debug, Clone, PartialEq)]
pub struct IncidentMirror {
    /// Name of the object: the short id and the beginning of the id, so that two tenants, or a journal that began
    /// anew, never meet.
    pub name: String,
    /// Which incident.
    pub spec: IncidentSpec,
    /// How it stands.
    pub status: IncidentState,
    /// Whether somebody still has to care.
    pub open: bool,
    /// Newest event.
    pub updated_at: Timestamp,
}

impl IncidentMirror {
    /// The object without its status.
    pub(super) fn object(&self, namespace: &str) -> Value {
        json!({
            "apiVersion": format!("{GROUP}/{VERSION}"),
            "kind": "Incident",
            "metadata": {"name": self.name, "namespace": namespace, "labels": {MANAGED_BY: FIELD_MANAGER}},
            "spec": self.spec,
        })
    }

    /// The object with its status alone.
    pub(super) fn status_object(&self, namespace: &str) -> Value {
        json!({
            "apiVersion": format!("{GROUP}/{VERSION}"),
            "kind": "Incident",
            "metadata": {"name": self.name, "namespace": namespace},
            "status": self.status,
        })
    }
}

fn line(text: &str) -> String {
    text.chars().take(LINE_CHARS_MAX).collect()
}

fn count(n: impl TryInto<i64>) -> Option<i64> {
    Some(n.try_into().unwrap_or(i64::MAX))
}

/// What the cluster is to show of an incident.
pub fn incident_mirror(record: &Record) -> IncidentMirror {
    let id = record.id.to_string();
    let short_id = record.short_id();
    let name = format!("{}-{}", short_id.to_ascii_lowercase(), id.get(..8).unwrap_or_default());
    let time = |at: Timestamp| Some(at.to_rfc3339());
    let radius = &record.blast_radius;
    let status = IncidentState {
        state: Some(record.status.as_str().to_owned()),
        severity: Some(record.severity.as_str().to_owned()),
        score: Some(record.score).filter(|s| (0.0..=1.0).contains(s)),
        title: Some(line(&record.title)),
        cause: record.top_cause().map(|h| CauseLine {
            entity: h.entity.as_ref().map(ToString::to_string),
            fault: h.fault.slug().to_owned(),
            confidence: if h.confidence.is_finite() {
                format!("{:.0} %", h.confidence.clamp(0.0, 1.0) * 100.0)
            } else {
                "unknown".to_owned()
            },
            summary: line(&h.summary),
        }),
        onset: time(record.onset),
        detected_at: time(record.detected_at),
        updated_at: time(record.updated_at),
        resolved_at: record.resolved_at.and_then(time),
        resolved_by: record.resolved_by.clone(),
        acknowledged_by: record.acknowledged_by.clone(),
        symptoms_open: count(record.anomalies_open),
        symptoms_total: count(record.anomalies_total),
        affected: radius.affected.iter().take(AFFECTED_MAX).map(ToString::to_string).collect(),
        affected_total: count(radius.affected.len()),
        at_risk_total: count(radius.at_risk.len()),
        estimated_user_impact: radius.estimated_user_impact.clone(),
        plan: record.plan.as_ref().map(|plan| plan_line(record, plan)),
        actions_total: count(record.actions_total),
        last_action: record.actions.last().map(|a| ActionLine {
            action: a.action.action.as_str().to_owned(),
            operation: a.action.operation.as_str().to_owned(),
            target: a.action.target.to_string(),
            outcome: a.outcome.map(|o| o.as_str().to_owned()),
            at: time(a.ended_at.unwrap_or(a.intended_at)),
        }),
        verified_at: record.verified_at.and_then(time),
        merged_into: record.merged_into.map(|i| i.to_string()),
        recurrence_of: record.recurrence_of.map(|i| i.to_string()),
        synthetic: Some(record.synthetic),
    };
    let tenant = record.tenant.chars().take(TENANT_CHARS_MAX).collect();
    let spec = IncidentSpec { id, short_id, tenant };
    IncidentMirror { name, spec, status, open: record.status.is_open(), updated_at: record.updated_at }
}

fn plan_line(record: &Record, plan: &Plan) -> PlanLine {
    let (approval, expires_at) = match &record.approval {
        Some(ApprovalState::Asked { plan: of, expires_at }) if *of == plan.hash => (Some("asked"), Some(*expires_at)),
        Some(ApprovalState::Approved { plan: of, .. }) if *of == plan.hash => (Some("approved"), None),
        Some(ApprovalState::Rejected { plan: of, .. }) if *of == plan.hash => (Some("rejected"), None),
        // An answer to an older plan says nothing of this one.
        _ => (None, None),
    };
    let verdict = record.verdict.as_ref().filter(|v| v.plan == plan.hash);
    PlanLine {
        hash: plan.hash.to_string(),
        title: line(&plan.title),
        risk: plan.risk.as_str().to_owned(),
        verdict: verdict.map(|v| v.decision.as_str().to_owned()),
        approval: approval.map(str::to_owned),
        expires_at: expires_at.map(Timestamp::to_rfc3339),
    }
}

/// Names of those that stay mirrored: of the open ones and of those that were over less than `age` before `now`, at
/// most `max`; open ones first, then the newest.
pub fn kept<'a>(
    all: impl IntoIterator<Item = &'a IncidentMirror>,
    now: Timestamp,
    max: usize,
    age: Duration,
) -> BTreeSet<String> {
    let young = |m: &&IncidentMirror| m.open || now.since(m.updated_at) < age;
    let mut all: Vec<&IncidentMirror> = all.into_iter().filter(young).collect();
    all.sort_by_key(|m| (!m.open, std::cmp::Reverse(m.updated_at), &m.name));
    all.into_iter().take(max).map(|m| m.name.clone()).collect()
}

#[cfg(test)]
#[path = "incident_tests.rs"]
mod tests;
