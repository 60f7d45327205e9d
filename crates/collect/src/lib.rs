//! Collect: sources that turn the outside world into telemetry on the bus.
//!
//! Lives here: the [`Source`] seam and its kinds, the receivers (remote write, OTLP, Alertmanager, events, syslog),
//! every parser of outside bytes, entity resolution, and [`ingest`], which batches by shard and publishes.
//!
//! Never here: judgement. A source observes; it has no opinion about what it saw.

mod alert;
pub mod alertmanager;
mod bounded;
mod change;
pub mod client;
#[cfg(test)]
mod corpus;
mod deliver;
mod doors;
pub mod events;
pub mod exec;
mod expo;
pub mod files;
pub mod host;
pub mod http;
pub mod ingest;
pub mod journald;
pub mod kubernetes;
pub mod lines;
pub mod otlp;
pub mod problem;
mod process;
pub mod promql;
pub mod remote_write;
pub mod resolve;
pub mod scrape;
pub mod supervise;
pub mod syslog;
#[cfg(any(test, feature = "testkit"))]
pub mod testkit;

pub use doors::{IngestState, ingest_router};

use async_trait::async_trait;
use nightshift_health::{Reporter, SelfMetrics};
use nightshift_model::batch::SeriesKind;
use nightshift_model::{Anomaly, Change, Clock, Observation, Timestamp};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// What a record says of where it comes from: OpenTelemetry names where there is one (`service.name`, `host.name`,
/// `k8s.deployment.name`, `deployment.environment.name`, `service.version` …), else the source's own (`instance`, `job`).
pub type Attributes = BTreeMap<String, String>;

/// One sample of one series, before resolution.
#[derive(Debug, Clone, PartialEq)]
pub struct MetricPoint {
    /// Where it comes from. Points of one place share it.
    pub resource: Arc<Attributes>,
    /// Metric name.
    pub name: String,
    /// Labels of the series; those that name the resource need not be repeated.
    pub labels: Vec<(String, String)>,
    /// What the value means.
    pub kind: SeriesKind,
    /// Event time.
    pub at: Timestamp,
    /// The value; NaN and ±Inf are dropped and counted by the sink.
    pub value: f64,
}

/// One log line, before resolution.
#[derive(Debug, Clone, PartialEq)]
pub struct LogEntry {
    /// Where it comes from.
    pub resource: Arc<Attributes>,
    /// Event time.
    pub at: Timestamp,
    /// OpenTelemetry severity number, 1..=24 (9 info, 13 warn, 17 error, 21 fatal); 0: unknown.
    pub severity: u8,
    /// The message, without the header that was parsed off.
    pub body: String,
    /// W3C trace id, when there is one.
    pub trace_id: Option<[u8; 16]>,
    /// Span id, when there is one.
    pub span_id: Option<[u8; 8]>,
    /// A path, a unit, an app name.
    pub stream: String,
}

/// One span, before resolution.
#[derive(Debug, Clone, PartialEq)]
pub struct SpanEntry {
    /// Where it comes from.
    pub resource: Arc<Attributes>,
    /// The span; its `entity` index is not looked at.
    pub span: nightshift_model::proto::Span,
}

/// What became of what was handed in. What was rejected is counted with its reason, never lost in silence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Accepted {
    /// On the bus and durable.
    pub accepted: u64,
    /// Repeated deliveries, dropped.
    pub duplicates: u64,
    /// Not taken: not finite, too old, too far in the future, over a limit.
    pub rejected: u64,
}

/// Why nothing was taken.
#[derive(Debug, thiserror::Error)]
pub enum SinkError {
    /// The bus is full: tell the client to come back (HTTP 429 with `Retry-After`, gRPC `RESOURCE_EXHAUSTED`).
    #[error("busy, come back in {} ms", retry_after.as_millis())]
    Busy {
        /// How long to wait.
        retry_after: Duration,
    },
    /// The bus failed.
    #[error("publish to the bus")]
    Bus(#[source] nightshift_bus::BusError),
}

/// Where sources put what they saw. When a call returns `Ok`, what was accepted is durable.
#[async_trait]
pub trait Sink: Send + Sync {
    /// Takes samples. `source` is the source's configured name.
    async fn metrics(&self, source: &str, points: Vec<MetricPoint>) -> Result<Accepted, SinkError>;
    /// Takes log lines.
    async fn logs(&self, source: &str, lines: Vec<LogEntry>) -> Result<Accepted, SinkError>;
    /// Takes spans.
    async fn spans(&self, source: &str, spans: Vec<SpanEntry>) -> Result<Accepted, SinkError>;
    /// Takes changes and events; `resource` resolves those whose `entity` is `None`.
    async fn changes(&self, source: &str, changes: Vec<(Attributes, Change)>) -> Result<Accepted, SinkError>;
    /// Takes alerts of other systems as anomalies; `resource` resolves the entity, whose id is not looked at.
    async fn alerts(&self, source: &str, alerts: Vec<(Attributes, Anomaly)>) -> Result<Accepted, SinkError>;
    /// Takes what was learned of the estate; a sink that keeps no topology drops it. What the bus does not take now is
    /// told later.
    async fn topology(&self, source: &str, learned: Vec<Observation>) -> Result<Accepted, SinkError> {
        let (_, rejected) = (source, learned.len() as u64);
        Ok(Accepted { rejected, ..Accepted::default() })
    }
}

/// What a source is given to work with.
#[derive(Clone)]
pub struct SourceContext {
    /// Where to put what it saw.
    pub sink: Arc<dyn Sink>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Its row on the health board.
    pub health: Reporter,
    /// Counters.
    pub metrics: SelfMetrics,
    /// Set when it must end.
    pub shutdown: CancellationToken,
}

/// Why a source stopped. The supervisor restarts it with backoff.
#[derive(Debug, thiserror::Error)]
#[error("{what}")]
pub struct SourceError {
    /// What was being done, verb and object.
    pub what: String,
    /// Why it failed.
    #[source]
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
    /// Whether starting again cannot help (a bad address, a missing program).
    pub fatal: bool,
}

/// One way to observe.
#[async_trait]
pub trait Source: Send {
    /// Its configured name: unique, shown on the health board as `NAME-collector`.
    fn name(&self) -> &str;
    /// Its type, as in the configuration.
    fn kind(&self) -> &'static str;
    /// Observes until `context.shutdown` is set (`Ok`) or something fails (`Err`). It may be run again after an error.
    async fn run(&mut self, context: &SourceContext) -> Result<(), SourceError>;
}
