//! The HTTP door: `POST /v1/{metrics,logs,traces}`.

use super::encoding::{Compression, DecodeError, Format, decompress};
use super::{OtlpState, Outcome};
use crate::SinkError;
use crate::http::{BodyError, Peer};
use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use opentelemetry_proto::tonic::collector::logs::v1::{ExportLogsPartialSuccess, ExportLogsServiceResponse};
use opentelemetry_proto::tonic::collector::metrics::v1::{ExportMetricsPartialSuccess, ExportMetricsServiceResponse};
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTracePartialSuccess, ExportTraceServiceResponse};
use prost::Message;
use serde::{Serialize, de::DeserializeOwned};

/// `POST /v1/{metrics,logs,traces}`.
pub fn http_router(state: OtlpState) -> Router {
    Router::new()
        .route("/v1/metrics", post(metrics))
        .route("/v1/logs", post(logs))
        .route("/v1/traces", post(traces))
        .with_state(state)
}

/// `google.rpc.Status`, the body of an error.
#[derive(Clone, PartialEq, Message, Serialize)]
struct RpcStatus {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
}

/// Why a request was not taken.
enum Refused {
    ContentType,
    Encoding,
    Body(BodyError),
    Decode(DecodeError),
    Sink(SinkError),
}

impl Refused {
    /// The reason it is counted under; what a sink refuses it counts itself.
    fn reason(&self) -> Option<&'static str> {
        match self {
            Self::Body(e) => Some(e.reason()),
            Self::Decode(DecodeError::TooLarge { .. }) => Some("too_large"),
            Self::ContentType | Self::Encoding | Self::Decode(_) => Some("bad_message"),
            Self::Sink(_) => None,
        }
    }

    fn answer(self, format: Format) -> Response {
        let (status, message) = match &self {
            Self::ContentType => (
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "content type is neither application/x-protobuf nor application/json".to_owned(),
            ),
            Self::Encoding => {
                (StatusCode::UNSUPPORTED_MEDIA_TYPE, "content encoding is none of gzip, zstd, identity".to_owned())
            }
            Self::Decode(e @ DecodeError::TooLarge { .. }) => (StatusCode::PAYLOAD_TOO_LARGE, e.to_string()),
            Self::Decode(e) => (StatusCode::BAD_REQUEST, e.to_string()),
            Self::Sink(SinkError::Bus(_)) => {
                (StatusCode::SERVICE_UNAVAILABLE, "the bus does not take it now; send it again".to_owned())
            }
            Self::Sink(e) => (StatusCode::TOO_MANY_REQUESTS, e.to_string()),
            Self::Body(e) => (StatusCode::BAD_REQUEST, e.to_string()),
        };
        // The status and its headers of a body or sink error are those of every door.
        let mut response = match self {
            Self::Body(e) => e.into_response(),
            Self::Sink(e) => crate::remote_write::sink_error(&e),
            _ => status.into_response(),
        };
        let code = match response.status() {
            StatusCode::TOO_MANY_REQUESTS => 8,
            StatusCode::SERVICE_UNAVAILABLE => 14,
            _ => 3,
        };
        let body = encode(&RpcStatus { code, message }, format);
        response.headers_mut().remove(header::CONTENT_LENGTH);
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(format.media_type()));
        *response.body_mut() = body.into();
        response
    }
}

fn encode<T: Message + Serialize>(message: &T, format: Format) -> Vec<u8> {
    match format {
        Format::Protobuf => message.encode_to_vec(),
        // These messages are numbers and text, which JSON always takes.
        Format::Json => serde_json::to_vec(message).unwrap_or_else(|_| b"{}".to_vec()),
    }
}

/// What the three have in common: read, decompress, decode, hand on, answer.
async fn handle<Q, A, F>(
    state: OtlpState,
    headers: HeaderMap,
    body: Body,
    take: impl FnOnce(OtlpState, Q) -> F,
    answer: impl FnOnce(Outcome) -> A,
) -> Response
where
    Q: Message + Default + DeserializeOwned,
    A: Message + Serialize,
    F: Future<Output = Result<Outcome, SinkError>>,
{
    let text = |name| headers.get(name).map(|v: &HeaderValue| v.to_str().unwrap_or("?"));
    let Some(format) = Format::parse(text(header::CONTENT_TYPE)) else {
        state.refused("bad_message");
        return Refused::ContentType.answer(Format::Json);
    };
    let done = async {
        let compression = Compression::parse(text(header::CONTENT_ENCODING)).ok_or(Refused::Encoding)?;
        let body = state.gate.read(body, state.body_bytes_max).await.map_err(Refused::Body)?;
        // Never closed, so that an error cannot be.
        let _place = state.places.acquire().await;
        let plain = decompress(&body, compression, state.decompressed_bytes_max).map_err(Refused::Decode)?;
        let request = format.decode(&plain).map_err(Refused::Decode)?;
        drop(plain);
        take(state.clone(), request).await.map_err(Refused::Sink)
    };
    match done.await {
        Ok(outcome) => {
            ([(header::CONTENT_TYPE, format.media_type())], encode(&answer(outcome), format)).into_response()
        }
        Err(refused) => {
            if let Some(reason) = refused.reason() {
                state.refused(reason);
            }
            refused.answer(format)
        }
    }
}

fn rejected(outcome: Outcome) -> Option<(i64, String)> {
    outcome.message().map(|why| (i64::try_from(outcome.rejected).unwrap_or(i64::MAX), why))
}

async fn metrics(State(state): State<OtlpState>, peer: Peer, headers: HeaderMap, body: Body) -> Response {
    let take = |state: OtlpState, request| async move { state.metrics(&request, peer.0.map(|p| p.ip())).await };
    let answer = |outcome| ExportMetricsServiceResponse {
        partial_success: rejected(outcome)
            .map(|(n, error_message)| ExportMetricsPartialSuccess { rejected_data_points: n, error_message }),
    };
    handle(state, headers, body, take, answer).await
}

async fn logs(State(state): State<OtlpState>, peer: Peer, headers: HeaderMap, body: Body) -> Response {
    let take = |state: OtlpState, request| async move { state.logs(&request, peer.0.map(|p| p.ip())).await };
    let answer = |outcome| ExportLogsServiceResponse {
        partial_success: rejected(outcome)
            .map(|(n, error_message)| ExportLogsPartialSuccess { rejected_log_records: n, error_message }),
    };
    handle(state, headers, body, take, answer).await
}

async fn traces(State(state): State<OtlpState>, peer: Peer, headers: HeaderMap, body: Body) -> Response {
    let take = |state: OtlpState, request| async move { state.traces(&request, peer.0.map(|p| p.ip())).await };
    let answer = |outcome| ExportTraceServiceResponse {
        partial_success: rejected(outcome)
            .map(|(n, error_message)| ExportTracePartialSuccess { rejected_spans: n, error_message }),
    };
    handle(state, headers, body, take, answer).await
}
