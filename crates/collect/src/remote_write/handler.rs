//! The door: content types, statuses, headers.

use super::{Version, WriteError, Written, write};
use crate::SinkError;
use crate::http::{BodyError, Gate, Peer};
use crate::ingest::Ingest;
use crate::resolve::Origin;
use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use nightshift_health::Reporter;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// The remote write receiver.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct RemoteWriteConfig {
    /// Whether it is on.
    pub enabled: bool,
    /// Name of the source in batches, counters and health.
    pub name: String,
    /// Largest compressed body, bytes.
    #[schemars(range(min = 1024, max = 1_073_741_824))]
    pub body_bytes_max: usize,
    /// Largest decompressed body, bytes.
    #[schemars(range(min = 1024, max = 1_073_741_824))]
    pub decompressed_bytes_max: usize,
}

impl Default for RemoteWriteConfig {
    fn default() -> Self {
        Self { enabled: true, name: "remote_write".into(), body_bytes_max: 16 << 20, decompressed_bytes_max: 32 << 20 }
    }
}

/// What the receiver works with.
#[derive(Clone)]
pub struct RemoteWriteState {
    /// Takes the samples.
    pub ingest: Arc<Ingest>,
    /// Its settings.
    pub settings: Arc<RemoteWriteConfig>,
    /// Bounds how bodies are read.
    pub gate: Gate,
    /// Its row on the health board.
    pub health: Reporter,
}

/// `POST /api/v1/write`.
pub fn router(state: RemoteWriteState) -> Router {
    state.health.healthy("waiting for the first request");
    Router::new().route("/api/v1/write", post(receive)).with_state(state)
}

async fn receive(State(state): State<RemoteWriteState>, peer: Peer, headers: HeaderMap, body: Body) -> Response {
    let version = match version_of(&headers) {
        Ok(version) => version,
        Err(why) => {
            state.ingest.refused(&state.settings.name, "bad_message");
            return answer(StatusCode::UNSUPPORTED_MEDIA_TYPE, why);
        }
    };
    let body = match state.gate.read(body, state.settings.body_bytes_max).await {
        Ok(body) => body,
        Err(e) => {
            state.ingest.refused(&state.settings.name, e.reason());
            return e.into_response();
        }
    };
    let origin = peer.0.map_or(Origin::OWN, |address| Origin::peer(address.ip()));
    let limit = state.settings.decompressed_bytes_max;
    let result = write(&state.ingest, &state.settings.name, &origin, version, &body, limit).await;
    report(&state, &result);
    match result {
        Ok(written) => {
            let mut response = match written.tally.bad_data() {
                None => StatusCode::NO_CONTENT.into_response(),
                Some(why) => answer(StatusCode::BAD_REQUEST, &format!("not taken: {why}")),
            };
            // The protocol asks for them in 2.0; older clients do not look.
            for (name, n) in [
                ("x-prometheus-remote-write-samples-written", written.samples),
                ("x-prometheus-remote-write-histograms-written", written.histograms),
                // Exemplars have no use here; saying so is what the header is for.
                ("x-prometheus-remote-write-exemplars-written", 0),
            ] {
                response.headers_mut().insert(name, HeaderValue::from(n));
            }
            response
        }
        Err(WriteError::Snappy(e @ super::SnappyError::TooLarge { .. })) => {
            answer(StatusCode::PAYLOAD_TOO_LARGE, &e.to_string())
        }
        Err(WriteError::Snappy(e)) => answer(StatusCode::BAD_REQUEST, &e.to_string()),
        Err(WriteError::Wire(e)) => answer(StatusCode::BAD_REQUEST, &e.to_string()),
        Err(WriteError::Sink(e)) => sink_error(&e),
    }
}

/// A sink's refusal as an HTTP answer: 429 or 503, each with `Retry-After`.
pub(crate) fn sink_error(e: &SinkError) -> Response {
    match e {
        SinkError::Busy { retry_after } => BodyError::Busy { retry_after: *retry_after }.into_response(),
        SinkError::Bus(_) => {
            let mut response = answer(StatusCode::SERVICE_UNAVAILABLE, "the bus does not take it now; send it again");
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("5"));
            response
        }
    }
}

fn report(state: &RemoteWriteState, result: &Result<Written, WriteError>) {
    match result {
        Ok(written) => match written.tally.bad_data() {
            None => state.health.healthy(format!("took {} samples", written.tally.accepted)),
            Some(why) => state.health.degraded(format!("took {} samples; not taken: {why}", written.tally.accepted)),
        },
        Err(WriteError::Sink(SinkError::Busy { .. })) => state.health.degraded("clients wait: the bus is full"),
        Err(e @ WriteError::Sink(SinkError::Bus(_))) => {
            tracing::warn!(error = %e, "failed to publish samples of remote write");
            state.health.unhealthy("cannot publish to the bus");
        }
        Err(e) => {
            let too_large = matches!(e, WriteError::Snappy(super::SnappyError::TooLarge { .. }));
            state.ingest.refused(&state.settings.name, if too_large { "too_large" } else { "bad_message" });
            state.health.degraded(format!("a client sent what is no remote write request: {e}"));
        }
    }
}

fn answer(status: StatusCode, why: &str) -> Response {
    (status, format!("{why}\n")).into_response()
}

/// Which message it is; the reason when it is neither.
fn version_of(headers: &HeaderMap) -> Result<Version, &'static str> {
    let text = |name| headers.get(name).map_or(Some(""), |v: &HeaderValue| v.to_str().ok());
    match text(header::CONTENT_ENCODING) {
        // 1.0 clients exist that do not say it.
        Some("" | "snappy") => {}
        _ => return Err("content encoding is not snappy"),
    }
    let content_type = text(header::CONTENT_TYPE).unwrap_or("?").to_ascii_lowercase();
    let mut parts = content_type.split(';').map(str::trim);
    if !matches!(parts.next(), Some("" | "application/x-protobuf")) {
        return Err("content type is not application/x-protobuf");
    }
    match parts.find_map(|p| p.strip_prefix("proto=")) {
        None | Some("prometheus.writerequest") => Ok(Version::V1),
        Some("io.prometheus.write.v2.request") => Ok(Version::V2),
        Some(_) => Err("proto is neither prometheus.WriteRequest nor io.prometheus.write.v2.Request"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_types_decide_the_version() {
        for (content_type, encoding, want) in [
            ("application/x-protobuf", "snappy", Ok(Version::V1)),
            ("", "", Ok(Version::V1)),
            ("application/x-protobuf;proto=prometheus.WriteRequest", "snappy", Ok(Version::V1)),
            ("application/x-protobuf; proto=io.prometheus.write.v2.Request", "snappy", Ok(Version::V2)),
            ("application/x-protobuf;proto=io.prometheus.write.v3.Request", "snappy", Err(())),
            ("application/json", "snappy", Err(())),
            ("application/x-protobuf", "gzip", Err(())),
            ("\u{e9}", "snappy", Err(())),
        ] {
            let mut headers = HeaderMap::new();
            for (name, value) in [(header::CONTENT_TYPE, content_type), (header::CONTENT_ENCODING, encoding)] {
                if !value.is_empty() {
                    headers.insert(name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
                }
            }
            assert_eq!(version_of(&headers).map_err(|_| ()), want, "{content_type} {encoding}");
        }
    }
}
