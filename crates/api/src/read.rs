//! What can be read: health, status, sources, anomalies, changes, the graph, our own metrics.

use crate::ApiError;
use crate::params::Params;
use crate::seams::ApiState;
use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use nightshift_health::Health;
use nightshift_model::{Anomaly, Change, EntityId, Phase, Severity, Timestamp};
use nightshift_store::AnomalyFilter;
use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

/// Rows that one request looks through at most, where the store cannot filter by itself.
pub(crate) const SCAN_MAX: usize = 5_000;

/// Rows of a page.
pub(crate) const ROWS_MAX: u64 = 500;
pub(crate) const ROWS_DEFAULT: u64 = 100;

/// `{"data": …}`.
pub(crate) fn data(value: impl Serialize) -> Response {
    #[derive(Serialize)]
    struct Data<T> {
        data: T,
    }
    Json(Data { data: value }).into_response()
}

/// A page of a list.
#[derive(Serialize)]
pub(crate) struct Page {
    pub(crate) data: Vec<Box<RawValue>>,
    /// To be given as `cursor` for what follows; `None`: this was all.
    pub(crate) next: Option<String>,
}

impl Page {
    /// As many of `rows` as fit into `bytes_max`, at least one; how many those are.
    pub(crate) fn fill<T: Serialize>(
        rows: impl IntoIterator<Item = T>,
        bytes_max: usize,
    ) -> Result<(Vec<Box<RawValue>>, usize), ApiError> {
        let (mut data, mut bytes) = (Vec::new(), 0);
        for row in rows {
            let row = serde_json::value::to_raw_value(&row).map_err(|error| {
                tracing::error!(%error, "failed to write a row of an answer");
                ApiError::internal()
            })?;
            bytes += row.get().len();
            if bytes > bytes_max && !data.is_empty() {
                break;
            }
            data.push(row);
        }
        let n = data.len();
        Ok((data, n))
    }

    /// A page of rows that were filtered here, counted from the newest.
    pub(crate) fn counted<T: Serialize>(rows: &[T], params: &Params, bytes_max: usize) -> Result<Self, ApiError> {
        let limit = params.number("limit", ROWS_DEFAULT, 1, ROWS_MAX)? as usize;
        let from = params.number("cursor", 0, 0, SCAN_MAX as u64)? as usize;
        let rows = rows.get(from.min(rows.len())..).unwrap_or_default();
        let (data, n) = Self::fill(&rows[..limit.min(rows.len())], bytes_max)?;
        Ok(Self { data, next: (n < rows.len()).then(|| (from + n).to_string()) })
    }
}

/// `GET /api/v1/health`.
pub(crate) async fn health(State(state): State<ApiState>) -> Response {
    let status = state.health.overall();
    let code = if status == Health::Unhealthy { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK };
    (code, data(json!({ "status": status, "components": state.health.components() }))).into_response()
}

/// `GET /livez`: the process answers.
pub(crate) async fn livez() -> &'static str {
    "ok\n"
}

/// `GET /readyz`: no component has failed.
pub(crate) async fn readyz(State(state): State<ApiState>) -> Response {
    if state.health.overall() != Health::Unhealthy {
        return "ok\n".into_response();
    }
    let ill = state.health.components().into_iter().filter(|c| c.status == Health::Unhealthy);
    let names: Vec<_> = ill.map(|c| c.name).collect();
    ApiError::unavailable(format!("unhealthy: {}", names.join(", ")), "/api/v1/health says more").into_response()
}

/// `GET /api/v1/status`.
pub(crate) async fn status(State(state): State<ApiState>) -> Response {
    let report = state.status.status();
    let now = state.clock.now();
    let mut value = json!(report);
    value["now"] = json!(now);
    value["uptime_secs"] = json!(now.since(report.started_at).as_secs());
    value["tenant"] = json!(state.tenant);
    data(value)
}

/// `GET /api/v1/collectors`.
pub(crate) async fn collectors(State(state): State<ApiState>) -> Response {
    data(state.collectors.collectors())
}

/// `GET /metrics`.
pub(crate) async fn metrics(State(state): State<ApiState>) -> Response {
    let headers = [(header::CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")];
    (headers, nightshift_health::render(&state.registry)).into_response()
}

/// `GET /api/v1/anomalies`.
pub(crate) async fn anomalies(State(state): State<ApiState>, uri: Uri) -> Result<Json<Page>, ApiError> {
    let params = Params::read(
        &uri,
        &["entity", "severity", "kind", "signal", "status", "since", "until", "text", "synthetic", "limit", "cursor"],
    )?;
    let now = state.clock.now();
    let open = match params.text("status") {
        None => None,
        Some("open") => Some(true),
        Some("closed") => Some(false),
        Some(other) => {
            let detail = format!("status: `{}` is neither open nor closed", crate::params::short(other));
            return Err(ApiError::bad_request(detail, "write status=open"));
        }
    };
    let until = params.time("until", now)?;
    let synthetic = params.flag("synthetic")?;
    let entity = params.text("entity").map(str::to_owned);
    let exact = entity.as_deref().and_then(|e| EntityId::parse(e).ok());
    let part = entity.filter(|_| exact.is_none()).map(|e| e.to_lowercase());
    let text = params.text("text").map(str::to_lowercase);
    let kinds: Vec<_> = params.list("kind").collect();
    let filter = AnomalyFilter {
        entity: exact,
        severity: params.parsed::<Severity>("severity")?,
        since: params.time("since", now)?,
        open_only: open == Some(true),
        limit: SCAN_MAX,
    };
    let mut rows = state.store.anomalies(&state.tenant, &filter).await?;
    rows.retain(|a: &Anomaly| {
        (synthetic || !a.synthetic())
            && (open != Some(false) || a.phase == Phase::Closed)
            && until.is_none_or(|t| a.onset < t)
            && (kinds.is_empty() || kinds.contains(&a.kind.as_str()))
            && params.text("signal").is_none_or(|s| a.signal == s)
            && part.as_deref().is_none_or(|p| a.entity.id.name().to_lowercase().contains(p))
            && text.as_deref().is_none_or(|t| {
                [a.description.as_str(), &a.signal, a.entity.id.as_str(), &a.entity.service, a.fault.slug()]
                    .iter()
                    .any(|field| field.to_lowercase().contains(t))
            })
    });
    Page::counted(&rows, &params, state.config.page_bytes_max).map(Json)
}

/// `GET /api/v1/events`: changes and events that were observed.
pub(crate) async fn events(State(state): State<ApiState>, uri: Uri) -> Result<Json<Page>, ApiError> {
    let params = Params::read(&uri, &["entity", "service", "type", "since", "until", "text", "limit", "cursor"])?;
    let now = state.clock.now();
    let since = params.time("since", now)?.unwrap_or(Timestamp(i64::MIN));
    let until = params.time("until", now)?;
    let types: Vec<String> = params.list("type").map(str::to_owned).collect();
    let part = params.text("entity").map(str::to_lowercase);
    let text = params.text("text").map(str::to_lowercase);
    let mut rows = state.store.changes(&state.tenant, since, SCAN_MAX).await?;
    rows.retain(|c: &Change| {
        until.is_none_or(|t| c.at < t)
            && params.text("service").is_none_or(|s| c.service == s)
            && (types.is_empty() || types.iter().any(|t| json!(c.change_type) == t.as_str()))
            && part.as_deref().is_none_or(|p| c.entity.as_ref().is_some_and(|e| e.as_str().to_lowercase().contains(p)))
            && text.as_deref().is_none_or(|t| {
                [&c.summary, &c.service, &c.version, &c.git_sha, &c.author].iter().any(|f| f.to_lowercase().contains(t))
            })
    });
    Page::counted(&rows, &params, state.config.page_bytes_max).map(Json)
}

/// `GET /api/v1/topology`.
pub(crate) async fn topology(State(state): State<ApiState>, uri: Uri) -> Result<Response, ApiError> {
    let params = Params::read(&uri, &["entity", "hops", "limit"])?;
    let value: Value = match params.text("entity") {
        Some(entity) => {
            let hops = params.number("hops", 2, 1, 16)?;
            state.topology.view_of(entity, u32::try_from(hops).unwrap_or(16)).ok_or_else(|| {
                let detail = format!("no entity is called `{}`", crate::params::short(entity));
                ApiError::not_found(detail, "/api/v1/topology lists all that are known")
            })?
        }
        None => state.topology.view(params.number("limit", 1_000, 1, 10_000)? as usize),
    };
    Ok(data(value))
}
