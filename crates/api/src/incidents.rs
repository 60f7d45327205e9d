//! Incidents, listed and by id.

use crate::ApiError;
use crate::params::{Params, short};
use crate::read::{Page, ROWS_DEFAULT, ROWS_MAX, data};
use crate::seams::ApiState;
use crate::shown::{Story, shown};
use axum::Json;
use axum::extract::{Path, State};
use axum::http::Uri;
use axum::response::Response;
use nightshift_model::ids::parse_short_incident;
use nightshift_model::{Incident, IncidentId, IncidentStatus, Timestamp};
use nightshift_store::IncidentFilter;

/// What a list of incidents may be asked for.
pub(crate) const FILTERS: [&str; 9] =
    ["status", "severity", "entity", "since", "until", "text", "synthetic", "limit", "cursor"];

/// An incident's id as people and programs write it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Id {
    /// `INC-0001`, any case.
    Number(u64),
    /// 32 hexadecimal digits, any case.
    Full(IncidentId),
}

/// Reads an id.
///
/// # Errors
/// 400 when it is neither form.
pub(crate) fn parse_id(text: &str) -> Result<Id, ApiError> {
    if let Some(number) = parse_short_incident(text) {
        return Ok(Id::Number(number));
    }
    text.parse().map(Id::Full).map_err(|_| {
        let detail = format!("`{}` is not an incident's id", short(text));
        ApiError::bad_request(detail, "write INC-0001 or the 32 hexadecimal digits of `id`")
    })
}

/// The incident with this id.
///
/// # Errors
/// 400 when it is no id, 404 when there is no such incident.
pub(crate) async fn find(state: &ApiState, id: &str) -> Result<Incident, ApiError> {
    let found = match parse_id(id)? {
        Id::Number(number) => state.store.incident_by_number(&state.tenant, number).await?,
        Id::Full(full) => state.store.incident(&state.tenant, full).await?,
    };
    found.ok_or_else(|| {
        let detail = format!("there is no incident {}", short(id));
        ApiError::not_found(detail, "/api/v1/incidents lists all; synthetic=true those of test injections too")
    })
}

/// The filter that a query asks for.
///
/// # Errors
/// 400 when a word or a value is not known.
pub(crate) fn filter(params: &Params, now: Timestamp) -> Result<IncidentFilter, ApiError> {
    let mut status = Vec::new();
    for word in params.list("status") {
        match word {
            "open" => status.extend(IncidentStatus::ALL.into_iter().filter(|s| s.is_open())),
            "all" => {}
            one => status.push(one.parse().map_err(|why: String| {
                ApiError::bad_request(
                    format!("status: {}", short_status(&why)),
                    "`open` stands for all that are not over",
                )
            })?),
        }
    }
    let cursor = params.number("cursor", 0, 1, u64::MAX)?;
    Ok(IncidentFilter {
        status,
        severity: params.parsed("severity")?,
        entity: params.text("entity").map(str::to_owned),
        since: params.time("since", now)?,
        until: params.time("until", now)?,
        text: params.text("text").map(str::to_owned),
        synthetic: params.flag("synthetic")?,
        before_number: (cursor > 0).then_some(cursor),
        limit: params.number("limit", ROWS_DEFAULT, 1, ROWS_MAX)? as usize,
    })
}

/// A status that is none may be any text: keep what the message repeats of it short.
fn short_status(why: &str) -> String {
    if why.len() <= 300 { why.to_owned() } else { "what was asked for is not a status".into() }
}

/// `GET /api/v1/incidents`.
pub(crate) async fn list(State(state): State<ApiState>, uri: Uri) -> Result<Json<Page>, ApiError> {
    let params = Params::read(&uri, &FILTERS)?;
    let now = state.clock.now();
    let mut filter = filter(&params, now)?;
    // One more than was asked for tells whether something follows.
    filter.limit += 1;
    let incidents = state.store.incidents(&state.tenant, &filter).await?;
    let asked = incidents.iter().take(filter.limit - 1).map(|i| shown(i, now));
    let (data, n) = Page::fill(asked, state.config.page_bytes_max)?;
    let next = (n < incidents.len()).then(|| incidents[n - 1].number.to_string());
    Ok(Json(Page { data, next }))
}

/// `GET /api/v1/incidents/{id}`.
pub(crate) async fn one(State(state): State<ApiState>, Path(id): Path<String>) -> Result<Response, ApiError> {
    let incident = find(&state, &id).await?;
    let mut value = shown(&incident, state.clock.now());
    Story::of(&state, &incident).await?.into_json(&mut value);
    Ok(data(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_short_or_whole_in_any_case() {
        assert_eq!(parse_id("inc-0007"), Ok(Id::Number(7)));
        assert_eq!(parse_id("INC-12345"), Ok(Id::Number(12_345)));
        let full = "00AB".repeat(8);
        assert_eq!(parse_id(&full), Ok(Id::Full(full.to_lowercase().parse().unwrap())));
        for bad in
            ["", "7", "INC-", "INC-x", "INC-99999999999999999999", "zz", &"a".repeat(31), &"a".repeat(33), "../x"]
        {
            assert_eq!(parse_id(bad).unwrap_err().kind, "bad_request", "{bad}");
        }
    }
}
