//! What an incident's record tells: its journal, its postmortem, and its decisions made again.

use crate::ApiError;
use crate::act::body;
use crate::incidents::find;
use crate::params::Params;
use crate::read::{Page, ROWS_DEFAULT, ROWS_MAX, data};
use crate::seams::{ApiState, Postmortem, ReplayError};
use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use nightshift_model::Incident;
use serde::Deserialize;
use serde_json::{Value, json};

/// `GET /api/v1/incidents/{id}/journal`.
pub(crate) async fn journal(
    State(state): State<ApiState>,
    Path(id): Path<String>,
    uri: Uri,
) -> Result<Json<Page>, ApiError> {
    let params = Params::read(&uri, &["limit", "cursor"])?;
    let limit = params.number("limit", ROWS_DEFAULT, 1, ROWS_MAX)? as usize;
    let after = params.number("cursor", 0, 0, u64::MAX)?;
    let incident = find(&state, &id).await?;
    let mut rows = state.store.incident_journal(&state.tenant, incident.id).await?;
    rows.retain(|row| row.seq > after);
    let shown: Vec<Value> = rows
        .iter()
        .take(limit)
        .map(|row| {
            json!({
                "seq": row.seq, "at": row.at, "actor": row.actor, "action": row.event.action(),
                "detail": row.event.detail(), "event": row.event,
            })
        })
        .collect();
    let (data, n) = Page::fill(&shown, state.config.page_bytes_max)?;
    let next = (n < rows.len()).then(|| rows[n - 1].seq.to_string());
    Ok(Json(Page { data, next }))
}

/// The postmortem of an incident.
///
/// # Errors
/// 404 while there is none, 503 when it cannot be made now.
pub(crate) async fn postmortem_of(state: &ApiState, incident: &Incident) -> Result<Postmortem, ApiError> {
    let made = state.automation.postmortems.postmortem(incident).await;
    let made = made.map_err(|why| ApiError::unavailable(format!("make the postmortem: {why}"), "try again"))?;
    made.ok_or_else(|| {
        let detail = format!("{} has no postmortem yet: it is {}", incident.short_id(), incident.status);
        ApiError::not_found(detail, "it is written when the incident is over")
    })
}

/// `GET /api/v1/incidents/{id}/postmortem`: Markdown, or JSON for those who accept it and not Markdown.
pub(crate) async fn postmortem(
    State(state): State<ApiState>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let incident = find(&state, &id).await?;
    let made = postmortem_of(&state, &incident).await?;
    let accept = headers.get(header::ACCEPT).and_then(|v| v.to_str().ok()).unwrap_or_default();
    if accept.contains("application/json") && !accept.contains("text/markdown") {
        return Ok(data(made));
    }
    Ok(([(header::CONTENT_TYPE, "text/markdown; charset=utf-8")], made.markdown).into_response())
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Replay {
    policy: Option<String>,
}

/// `POST /api/v1/incidents/{id}/replay`.
pub(crate) async fn replay(
    State(state): State<ApiState>,
    Path(id): Path<String>,
    bytes: Result<Bytes, BytesRejection>,
) -> Result<Response, ApiError> {
    let asked: Replay = body(bytes, "{\"policy\": \"package …\"}, or no body")?;
    let incident = find(&state, &id).await?;
    match state.automation.replay.replay(&incident, asked.policy.as_deref()).await {
        Ok(answer) => Ok(data(answer)),
        Err(ReplayError::BadPolicy(why)) => {
            Err(ApiError::bad_request(format!("policy: {why}"), "`nightshift check` tells all that is wrong with one"))
        }
        Err(ReplayError::Impossible(why)) => {
            Err(ApiError::new(StatusCode::CONFLICT, "conflict", why, "the journal of the incident has what there is"))
        }
        Err(ReplayError::Unavailable(why)) => Err(ApiError::unavailable(why, "try again")),
    }
}
