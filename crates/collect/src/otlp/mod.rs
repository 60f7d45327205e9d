//! OTLP: metrics, logs and traces over gRPC (:4317) and HTTP (:4318).
//!
//! Lives here: the two doors and the translation of OTLP's messages. Never here: resolution of resources (see
//! [`crate::resolve`]) or what becomes of a sample.
//!
//! Bodies are read through [`crate::http::Gate`] before anything looks at them, also those of gRPC (its calls are
//! unary): a client that is slow holds its own bytes and nothing else. Only then one of a few places for decoding is
//! taken, as decoded messages take many times the bytes that they came in.

mod attributes;
mod encoding;
mod grpc;
mod http;
mod logs;
mod metrics;
mod source;
mod traces;

pub use encoding::DecodeError;
pub use grpc::grpc_router;
pub use http::http_router;
pub use source::{OtlpConfig, OtlpSource};

use crate::http::Gate;
use crate::{Accepted, Sink, SinkError, SourceContext};
use nightshift_health::{BySourceAndReason, Reporter, SelfMetrics};
use nightshift_model::Clock;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use std::net::IpAddr;
use std::sync::Arc;
use tokio::sync::Semaphore;

/// Requests that are decoded and handed on at a time.
const AT_ONCE: usize = 16;

/// What both doors work with.
#[derive(Clone)]
pub struct OtlpState {
    name: Arc<str>,
    sink: Arc<dyn Sink>,
    clock: Arc<dyn Clock>,
    health: Reporter,
    counters: SelfMetrics,
    gate: Gate,
    body_bytes_max: usize,
    decompressed_bytes_max: usize,
    places: Arc<Semaphore>,
}

/// What became of a request: how many items were not taken, and why, for the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Outcome {
    rejected: u64,
}

impl Outcome {
    /// What to say in `partial_success`; `None` when all was taken.
    fn message(self) -> Option<String> {
        (self.rejected > 0).then(|| {
            format!(
                "{} not taken: not finite, too old, too far ahead, or over a limit (see nightshift_samples_rejected_total)",
                self.rejected
            )
        })
    }
}

impl OtlpState {
    /// Counts a request of which nothing was taken; how many items it held is not known.
    fn refused(&self, reason: &'static str) {
        let labels = BySourceAndReason { source: self.name.to_string().into(), reason: reason.into() };
        self.counters.samples_rejected.get_or_create(&labels).inc();
    }

    /// For a source of this name.
    pub fn new(name: &str, settings: &OtlpConfig, context: &SourceContext) -> Self {
        Self {
            name: name.into(),
            sink: context.sink.clone(),
            clock: context.clock.clone(),
            health: context.health.clone(),
            counters: context.metrics.clone(),
            gate: Gate::new(&settings.http),
            body_bytes_max: settings.body_bytes_max,
            decompressed_bytes_max: settings.decompressed_bytes_max,
            places: Arc::new(Semaphore::new(AT_ONCE)),
        }
    }

    async fn metrics(&self, request: &ExportMetricsServiceRequest, peer: Option<IpAddr>) -> Result<Outcome, SinkError> {
        let found = metrics::points(request, peer, self.clock.now());
        let (rejected, most) = (found.rejected, found.data_points);
        if found.points.is_empty() {
            return Ok(Outcome { rejected });
        }
        let accepted = self.report(self.sink.metrics(&self.name, found.points).await)?;
        // One data point of a histogram is many samples here.
        Ok(Outcome { rejected: (rejected + accepted.rejected).min(most) })
    }

    async fn logs(&self, request: &ExportLogsServiceRequest, peer: Option<IpAddr>) -> Result<Outcome, SinkError> {
        let lines = logs::lines(request, peer, self.clock.now());
        if lines.is_empty() {
            return Ok(Outcome::default());
        }
        let accepted = self.report(self.sink.logs(&self.name, lines).await)?;
        Ok(Outcome { rejected: accepted.rejected })
    }

    async fn traces(&self, request: &ExportTraceServiceRequest, peer: Option<IpAddr>) -> Result<Outcome, SinkError> {
        let (spans, rejected) = traces::spans(request, peer);
        if spans.is_empty() {
            return Ok(Outcome { rejected });
        }
        let accepted = self.report(self.sink.spans(&self.name, spans).await)?;
        Ok(Outcome { rejected: rejected + accepted.rejected })
    }

    fn report(&self, result: Result<Accepted, SinkError>) -> Result<Accepted, SinkError> {
        match &result {
            Ok(a) if a.rejected == 0 => self.health.healthy(format!("took {} items", a.accepted + a.duplicates)),
            Ok(a) => self.health.degraded(format!("took {} items, {} not taken", a.accepted, a.rejected)),
            Err(SinkError::Busy { .. }) => self.health.degraded("clients wait: the bus is full"),
            Err(e @ SinkError::Bus(_)) => {
                tracing::warn!(error = %e, "failed to publish what came by OTLP");
                self.health.unhealthy("cannot publish to the bus");
            }
        }
        result
    }
}

/// For fuzzing: metrics in protobuf.
#[doc(hidden)]
pub fn fuzz_otlp_metrics(bytes: &[u8]) {
    if let Ok(request) = encoding::Format::Protobuf.decode(bytes) {
        metrics::points(&request, None, nightshift_model::Timestamp::EPOCH);
    }
}

/// For fuzzing: logs in protobuf.
#[doc(hidden)]
pub fn fuzz_otlp_logs(bytes: &[u8]) {
    if let Ok(request) = encoding::Format::Protobuf.decode(bytes) {
        logs::lines(&request, None, nightshift_model::Timestamp::EPOCH);
    }
}

/// For fuzzing: traces in protobuf.
#[doc(hidden)]
pub fn fuzz_otlp_traces(bytes: &[u8]) {
    if let Ok(request) = encoding::Format::Protobuf.decode(bytes) {
        traces::spans(&request, None);
    }
}

/// For fuzzing: any signal in JSON, plain, gzip or zstd.
#[doc(hidden)]
pub fn fuzz_otlp_json(bytes: &[u8]) {
    use encoding::{Compression, Format, decompress};
    for compression in [Compression::None, Compression::Gzip, Compression::Zstd] {
        let Ok(body) = decompress(bytes, compression, 1 << 20) else { continue };
        if let Ok(request) = Format::Json.decode(&body) {
            metrics::points(&request, None, nightshift_model::Timestamp::EPOCH);
        }
        if let Ok(request) = Format::Json.decode(&body) {
            logs::lines(&request, None, nightshift_model::Timestamp::EPOCH);
        }
        if let Ok(request) = Format::Json.decode(&body) {
            traces::spans(&request, None);
        }
    }
}

#[cfg(test)]
mod tests;
