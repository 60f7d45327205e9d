//! `POST /api/v1/events`: changes, events, alerts and log lines from anybody who can send JSON.
//!
//! Lives here: the door and its answers. Beside it: `plain` (our own fields), `cloud` (CloudEvents 1.0), `hooks`
//! (webhooks of GitHub and GitLab). Never here: what becomes of what was sent.
//!
//! | field | of | meaning |
//! | --- | --- | --- |
//! | `kind` | all | `change`, `event`, `alert` or `log` |
//! | `id` | all | sender's id; the same one again is taken once |
//! | `at` | all | RFC 3339 or seconds since 1970; absent: now |
//! | `service`, `version`, `namespace`, `environment`, `host`, `cluster`, `owner`, `resource` {} | all | where it belongs |
//! | `entity` | change, event | `cluster/kind/namespace/name`, when it is known |
//! | `change_type` | change | `deployment`, `config`, `scaling`, `feature_flag`, `migration` |
//! | `git_sha`, `author`, `summary`, `known_risks` [] , `attributes` {} | change, event | |
//! | `name`, `status` (`firing`, `resolved`), `severity` or `score`, `starts_at`, `ends_at`, `summary`, `labels` {}, `fault` | alert | |
//! | `message`, `severity`, `trace_id`, `span_id`, `stream` | log | |

mod cloud;
mod hooks;
mod plain;

use crate::deliver::Parcel;
use crate::http::Gate;
use crate::problem::{ItemError, Problem};
use crate::{Accepted, Sink};
use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use nightshift_health::{BySourceAndReason, Reporter, SelfMetrics};
use nightshift_model::{Clock, Timestamp};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::sync::Arc;

/// Limits of a door for JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct DoorLimits {
    /// Largest body, bytes.
    #[schemars(range(min = 1_024, max = 67_108_864))]
    pub body_bytes_max: usize,
    /// Most items of one list.
    #[schemars(range(min = 1, max = 100_000))]
    pub items_max: usize,
}

impl Default for DoorLimits {
    fn default() -> Self {
        Self { body_bytes_max: 4 << 20, items_max: 1_000 }
    }
}

/// What a door for JSON is given.
#[derive(Clone)]
pub struct DoorState {
    /// Name of the source, as metrics and records show it.
    pub name: String,
    /// Where to put what came.
    pub sink: Arc<dyn Sink>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Its row on the health board.
    pub health: Reporter,
    /// Counters.
    pub metrics: SelfMetrics,
    /// Through which bodies are read.
    pub gate: Gate,
    /// Its limits.
    pub limits: DoorLimits,
}

impl DoorState {
    pub(crate) fn count(&self, reason: &'static str, n: u64) {
        let label = BySourceAndReason { source: self.name.clone().into(), reason: reason.into() };
        self.metrics.samples_rejected.get_or_create(&label).inc_by(n);
    }

    /// Hands in at once or says when to come again: a client waits better than we do.
    pub(crate) async fn hand_in(&self, parcel: &mut Parcel) -> Result<Accepted, Problem> {
        let parcel = std::mem::take(parcel);
        let mut total = Accepted::default();
        let name = self.name.as_str();
        let mut add = |took: Accepted| {
            total.accepted += took.accepted;
            total.duplicates += took.duplicates;
            total.rejected += took.rejected;
        };
        let all = async {
            if !parcel.changes.is_empty() {
                add(self.sink.changes(name, parcel.changes).await?);
            }
            if !parcel.alerts.is_empty() {
                add(self.sink.alerts(name, parcel.alerts).await?);
            }
            if !parcel.logs.is_empty() {
                add(self.sink.logs(name, parcel.logs).await?);
            }
            Ok(())
        };
        let result: Result<(), crate::SinkError> = all.await;
        match result {
            Ok(()) => Ok(total),
            Err(error) => {
                // The sink has counted it.
                match &error {
                    crate::SinkError::Busy { .. } => self.health.degraded("clients wait: the bus is full"),
                    crate::SinkError::Bus(_) => self.health.unhealthy("cannot publish to the bus"),
                }
                Err(error.into())
            }
        }
    }

    pub(crate) fn report(&self, taken: &Taken, what: &str) {
        let errors = taken.errors.len();
        if errors > 0 {
            self.count("bad_item", errors as u64);
            let why = &taken.errors[0].detail;
            self.health.degraded(format!("{} {what} taken, {errors} could not be read: {why}", taken.accepted));
        } else {
            self.health.healthy(format!("{} {what} taken at last", taken.accepted));
        }
    }
}

/// What became of a request whose body could be read.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub(crate) struct Taken {
    /// On the bus and durable.
    pub accepted: u64,
    /// Sent before.
    pub duplicates: u64,
    /// Well-formed, but not taken: too old, too far in the future, over a limit.
    pub rejected: u64,
    /// Understood, and of no interest (a webhook's ping).
    pub ignored: u64,
    /// What could not be read.
    pub errors: Vec<ItemError>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

impl Taken {
    pub(crate) fn new(accepted: Accepted, ignored: u64, errors: Vec<ItemError>) -> Self {
        let Accepted { accepted, duplicates, rejected } = accepted;
        Self { accepted, duplicates, rejected, ignored, errors, note: None }
    }

    pub(crate) fn with_note(self, note: String) -> Self {
        Self { note: Some(note), ..self }
    }
}

impl IntoResponse for Taken {
    /// 200; 207 when a part could not be read; 400 when that is all there was.
    fn into_response(self) -> Response {
        let none = self.accepted + self.duplicates + self.rejected + self.ignored == 0;
        let status = match (self.errors.is_empty(), none) {
            (true, _) => StatusCode::OK,
            (false, false) => StatusCode::MULTI_STATUS,
            (false, true) => {
                let detail = self.errors[0].detail.clone();
                return Problem::new(StatusCode::BAD_REQUEST, detail).with_errors(self.errors).into_response();
            }
        };
        (status, axum::Json(json!({ "data": self }))).into_response()
    }
}

/// What is around an item while it is read.
#[derive(Debug, Clone, Copy)]
struct Around<'a> {
    source: &'a str,
    now: Timestamp,
}

/// `POST /api/v1/events`.
pub fn router(state: DoorState) -> Router {
    state.health.healthy("waiting for the first request");
    Router::new().route("/api/v1/events", post(receive)).with_state(state)
}

async fn receive(State(state): State<DoorState>, headers: HeaderMap, body: Body) -> Response {
    let body = match state.gate.read(body, state.limits.body_bytes_max).await {
        Ok(body) => body,
        Err(error) => {
            state.count(error.reason(), 1);
            return Problem::from(error).into_response();
        }
    };
    let around = Around { source: &state.name, now: state.clock.now() };
    let mut read = match read(&headers, &body, state.limits.items_max, &around) {
        Ok(read) => read,
        Err(why) => {
            state.count("bad_message", 1);
            state.health.degraded(format!("the last request could not be read: {why}"));
            return Problem::new(StatusCode::BAD_REQUEST, why).into_response();
        }
    };
    match state.hand_in(&mut read.parcel).await {
        Ok(accepted) => {
            let taken = Taken::new(accepted, read.ignored, read.errors);
            state.report(&taken, "events");
            taken.into_response()
        }
        Err(problem) => problem.into_response(),
    }
}

/// What a body held.
#[derive(Debug, Default)]
struct Read {
    parcel: Parcel,
    ignored: u64,
    errors: Vec<ItemError>,
}

const EXPECTED: &str = "expected a CloudEvent, or JSON with `kind` (change, event, alert or log), or a list of these";

/// Reads a body in whichever of the forms it is in.
///
/// # Errors
/// It is in none of them.
fn read(headers: &HeaderMap, body: &[u8], items_max: usize, around: &Around<'_>) -> Result<Read, String> {
    let mut out = Read::default();
    let header = |name: &str| headers.get(name).and_then(|v| v.to_str().ok());
    if header("ce-specversion").is_some() {
        cloud::binary(headers, body, around)?.put(&mut out);
        return Ok(out);
    }
    let content_type = header(header::CONTENT_TYPE.as_str()).unwrap_or("application/json");
    let media = content_type.split(';').next().unwrap_or("").trim().to_ascii_lowercase();
    let json = media.is_empty() || media == "application/json" || media.ends_with("+json") || media == "text/json";
    if !json {
        return Err(format!("{EXPECTED}; the content type is `{media}`"));
    }
    let root: Value = serde_json::from_slice(body).map_err(|e| format!("{EXPECTED}; {e}"))?;
    match root {
        Value::Object(object) => item(&object, header("x-github-event"), around)?.put(&mut out),
        Value::Array(items) => {
            if items.len() > items_max {
                return Err(format!(
                    "a list has at most {items_max} items, this one {}; send it in parts",
                    items.len()
                ));
            }
            if items.is_empty() {
                return Err(format!("{EXPECTED}; the list is empty"));
            }
            for (index, value) in items.iter().enumerate() {
                let read = value.as_object().ok_or_else(|| EXPECTED.to_owned()).and_then(|o| item(o, None, around));
                match read {
                    Ok(item) => item.put(&mut out),
                    Err(detail) => out.errors.push(ItemError { index, detail }),
                }
            }
        }
        _ => return Err(EXPECTED.to_owned()),
    }
    Ok(out)
}

/// One thing that was sent.
#[derive(Debug, Clone, PartialEq)]
enum Item {
    Change(Box<(crate::Attributes, nightshift_model::Change)>),
    Alert(Box<(crate::Attributes, nightshift_model::Anomaly)>),
    Log(Box<crate::LogEntry>),
    Ignored,
}

impl Item {
    fn put(self, out: &mut Read) {
        match self {
            Self::Change(change) => out.parcel.changes.push(*change),
            Self::Alert(alert) => out.parcel.alerts.push(*alert),
            Self::Log(entry) => out.parcel.logs.push(*entry),
            Self::Ignored => out.ignored += 1,
        }
    }
}

fn item(object: &Map<String, Value>, github: Option<&str>, around: &Around<'_>) -> Result<Item, String> {
    if object.contains_key("specversion") {
        return cloud::structured(object, around);
    }
    if let Some(item) = hooks::read(object, github, around)? {
        return Ok(item);
    }
    plain::read(object, around)
}

/// For the fuzzer: any bytes are items or a reason; the first byte chooses the form that the headers claim.
#[doc(hidden)]
pub fn fuzz_cloudevents(bytes: &[u8]) {
    let around = Around { source: "fuzz", now: Timestamp::from_secs(1_767_225_600) };
    let mut headers = HeaderMap::new();
    let body = match bytes.split_first() {
        Some((b'\x01', rest)) => {
            for (name, value) in
                [("ce-specversion", "1.0"), ("ce-id", "1"), ("ce-source", "/f"), ("ce-type", "deployment")]
            {
                headers.insert(name, axum::http::HeaderValue::from_static(value));
            }
            rest
        }
        Some((b'\x02', rest)) => {
            headers.insert("x-github-event", axum::http::HeaderValue::from_static("deployment_status"));
            rest
        }
        _ => bytes,
    };
    match read(&headers, body, 100, &around) {
        Ok(read) => assert!(read.parcel.len() + read.ignored as usize + read.errors.len() <= 100),
        Err(why) => assert!(!why.is_empty()),
    }
}

#[cfg(test)]
pub(crate) mod tests;
