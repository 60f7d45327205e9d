//! The gRPC door.

use super::{OtlpState, Outcome};
use crate::SinkError;
use crate::http::{BodyError, HeldBody, Peer};
use axum::Router;
use axum::body::Body;
use axum::extract::{ConnectInfo, Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use opentelemetry_proto::tonic::collector::logs::v1::logs_service_server::{LogsService, LogsServiceServer};
use opentelemetry_proto::tonic::collector::logs::v1::{
    ExportLogsPartialSuccess, ExportLogsServiceRequest, ExportLogsServiceResponse,
};
use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_server::{
    MetricsService, MetricsServiceServer,
};
use opentelemetry_proto::tonic::collector::metrics::v1::{
    ExportMetricsPartialSuccess, ExportMetricsServiceRequest, ExportMetricsServiceResponse,
};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{TraceService, TraceServiceServer};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTracePartialSuccess, ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use std::net::{IpAddr, SocketAddr};
use tonic::codec::CompressionEncoding;
use tonic::service::Routes;
use tonic::{Code, Status};

/// The three services, behind the gate. Serve it with [`crate::http::serve`], which speaks HTTP/2.
pub fn grpc_router(state: OtlpState) -> Router {
    macro_rules! service {
        ($server:ident) => {
            $server::new(Service(state.clone()))
                .accept_compressed(CompressionEncoding::Gzip)
                .accept_compressed(CompressionEncoding::Zstd)
                .send_compressed(CompressionEncoding::Gzip)
                .max_decoding_message_size(state.decompressed_bytes_max)
        };
    }
    Routes::new(service!(MetricsServiceServer))
        .add_service(service!(LogsServiceServer))
        .add_service(service!(TraceServiceServer))
        .prepare()
        .into_axum_router()
        .layer(from_fn_with_state(state, guard))
}

/// Reads the whole (unary) request within its limits before tonic sees any of it.
async fn guard(State(state): State<OtlpState>, peer: Peer, request: Request, next: Next) -> Response {
    let (parts, body) = request.into_parts();
    let held: HeldBody = match state.gate.read(body, state.body_bytes_max).await {
        Ok(held) => held,
        Err(e) => {
            state.refused(e.reason());
            tracing::debug!(error = %e, peer = ?peer.0, "refused an OTLP call");
            return body_status(&e).into_http::<Body>().into_response();
        }
    };
    // Never closed, so that an error cannot be.
    let _place = state.places.acquire().await;
    next.run(Request::from_parts(parts, Body::from(held.bytes()))).await
}

fn body_status(e: &BodyError) -> Status {
    match e {
        BodyError::Busy { .. } => Status::resource_exhausted(e.to_string()),
        BodyError::TooLarge { .. } => Status::new(Code::OutOfRange, e.to_string()),
        BodyError::Slow => Status::deadline_exceeded(e.to_string()),
        BodyError::Broken => Status::invalid_argument(e.to_string()),
    }
}

fn sink_status(e: &SinkError) -> Status {
    match e {
        SinkError::Busy { retry_after } => {
            let mut status = Status::resource_exhausted(e.to_string());
            // What OTLP asks for is a `RetryInfo`; exporters also honour this header, as Envoy writes it.
            if let Ok(ms) = retry_after.as_millis().to_string().parse() {
                status.metadata_mut().insert("grpc-retry-pushback-ms", ms);
            }
            status
        }
        SinkError::Bus(_) => Status::unavailable("the bus does not take it now; send it again"),
    }
}

struct Service(OtlpState);

fn peer_of<T>(request: &tonic::Request<T>) -> Option<IpAddr> {
    request.extensions().get::<ConnectInfo<SocketAddr>>().map(|c| c.0.ip())
}

fn rejected(outcome: Outcome) -> Option<(i64, String)> {
    outcome.message().map(|why| (i64::try_from(outcome.rejected).unwrap_or(i64::MAX), why))
}

#[tonic::async_trait]
impl MetricsService for Service {
    async fn export(
        &self,
        request: tonic::Request<ExportMetricsServiceRequest>,
    ) -> Result<tonic::Response<ExportMetricsServiceResponse>, Status> {
        let peer = peer_of(&request);
        let outcome = self.0.metrics(request.get_ref(), peer).await.map_err(|e| sink_status(&e))?;
        let partial_success = rejected(outcome)
            .map(|(n, error_message)| ExportMetricsPartialSuccess { rejected_data_points: n, error_message });
        Ok(tonic::Response::new(ExportMetricsServiceResponse { partial_success }))
    }
}

#[tonic::async_trait]
impl LogsService for Service {
    async fn export(
        &self,
        request: tonic::Request<ExportLogsServiceRequest>,
    ) -> Result<tonic::Response<ExportLogsServiceResponse>, Status> {
        let peer = peer_of(&request);
        let outcome = self.0.logs(request.get_ref(), peer).await.map_err(|e| sink_status(&e))?;
        let partial_success = rejected(outcome)
            .map(|(n, error_message)| ExportLogsPartialSuccess { rejected_log_records: n, error_message });
        Ok(tonic::Response::new(ExportLogsServiceResponse { partial_success }))
    }
}

#[tonic::async_trait]
impl TraceService for Service {
    async fn export(
        &self,
        request: tonic::Request<ExportTraceServiceRequest>,
    ) -> Result<tonic::Response<ExportTraceServiceResponse>, Status> {
        let peer = peer_of(&request);
        let outcome = self.0.traces(request.get_ref(), peer).await.map_err(|e| sink_status(&e))?;
        let partial_success =
            rejected(outcome).map(|(n, error_message)| ExportTracePartialSuccess { rejected_spans: n, error_message });
        Ok(tonic::Response::new(ExportTraceServiceResponse { partial_success }))
    }
}
