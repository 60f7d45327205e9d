//! What stands behind the loop, to be read: kill switch, guard, actions, deliveries, playbooks, policies.

use crate::ApiError;
use crate::params::{Params, short};
use crate::read::{Page, SCAN_MAX, data};
use crate::seams::ApiState;
use axum::Json;
use axum::extract::State;
use axum::http::Uri;
use axum::response::Response;
use nightshift_model::{ActionType, Incident};
use nightshift_store::IncidentFilter;
use serde_json::{Value, json};

/// Incidents whose actions are looked through at most, newest first.
const INCIDENTS_MAX: usize = 500;

/// How the kill switch stands, the same whether it was ever turned or not.
pub(crate) fn kill_switch_json(state: &ApiState) -> Value {
    match state.automation.kill_switch.state() {
        Some(k) => json!(k),
        None => json!({ "on": false, "by": "", "why": "", "at": null }),
    }
}

/// `GET /api/v1/kill-switch`.
pub(crate) async fn kill_switch(State(state): State<ApiState>) -> Response {
    data(kill_switch_json(&state))
}

/// `GET /api/v1/guard`.
pub(crate) async fn guard(State(state): State<ApiState>) -> Response {
    let mut value = json!(state.automation.guard.view(state.clock.now()));
    value["kill_switch"] = kill_switch_json(&state);
    data(value)
}

/// `GET /api/v1/playbooks`.
pub(crate) async fn playbooks(State(state): State<ApiState>) -> Response {
    data(state.automation.catalogue.playbooks())
}

/// `GET /api/v1/policies`.
pub(crate) async fn policies(State(state): State<ApiState>) -> Response {
    data(state.automation.catalogue.policies())
}

/// `GET /api/v1/actions`: what was done or tried, newest first.
pub(crate) async fn actions(State(state): State<ApiState>, uri: Uri) -> Result<Json<Page>, ApiError> {
    let known = ["action", "operation", "outcome", "target", "since", "until", "synthetic", "limit", "cursor"];
    let params = Params::read(&uri, &known)?;
    let now = state.clock.now();
    let (since, until) = (params.time("since", now)?, params.time("until", now)?);
    let types: Vec<ActionType> = params.parsed("action")?;
    let target = params.text("target").map(str::to_lowercase);
    let operations: Vec<_> = params.list("operation").collect();
    let outcomes: Vec<_> = params.list("outcome").collect();
    let filter = IncidentFilter {
        since,
        synthetic: params.flag("synthetic")?,
        limit: INCIDENTS_MAX,
        ..IncidentFilter::default()
    };
    let incidents: Vec<Incident> = state.store.incidents(&state.tenant, &filter).await?;
    let mut found = Vec::new();
    for incident in &incidents {
        found.extend(incident.actions.iter().map(|a| (incident, a)).filter(|(_, a)| {
            let outcome = a.outcome.map_or("pending", |o| o.as_str());
            since.is_none_or(|t| a.intended_at >= t)
                && until.is_none_or(|t| a.intended_at < t)
                && (types.is_empty() || types.contains(&a.action.action))
                && (operations.is_empty() || operations.contains(&a.action.operation.as_str()))
                && (outcomes.is_empty() || outcomes.contains(&outcome))
                && target.as_deref().is_none_or(|t| a.action.target.as_str().to_lowercase().contains(t))
        }));
    }
    found.sort_by_key(|(i, a)| (std::cmp::Reverse(a.intended_at), i.number));
    found.truncate(SCAN_MAX);
    let rows: Vec<Value> = found
        .into_iter()
        .map(|(i, a)| {
            let mut row = json!(a);
            row["incident"] = json!(i.short_id());
            row
        })
        .collect();
    Page::counted(&rows, &params, state.config.page_bytes_max).map(Json)
}

/// `GET /api/v1/deliveries`: what was told to people and what could not be, newest first.
pub(crate) async fn deliveries(State(state): State<ApiState>, uri: Uri) -> Result<Json<Page>, ApiError> {
    let params = Params::read(&uri, &["status", "notifier", "letter", "limit", "cursor"])?;
    let statuses: Vec<_> = params.list("status").collect();
    if let Some(other) = statuses.iter().find(|s| !matches!(**s, "PENDING" | "SENT" | "FAILED")) {
        let detail = format!("status: `{}` is none of PENDING, SENT, FAILED", short(other));
        return Err(ApiError::bad_request(detail, "write status=FAILED"));
    }
    let rows = state.automation.deliveries.deliveries(SCAN_MAX).await;
    let mut rows = rows.map_err(|why| ApiError::unavailable(format!("read the deliveries: {why}"), "try again"))?;
    rows.retain(|r| {
        (statuses.is_empty() || statuses.contains(&r.status.as_str()))
            && params.text("notifier").is_none_or(|n| r.notifier == n)
            && params.text("letter").is_none_or(|l| r.letter == l)
    });
    Page::counted(&rows, &params, state.config.page_bytes_max).map(Json)
}
