//! What the estate says of itself: series, log lines, spans and changes.

use crate::spec::{EstateSpec, Part};
use nightshift_model::batch::SeriesKind;
use nightshift_model::{Change, EntityMeta, Timestamp};

/// One series, declared once; its place in [`crate::World::series`] is its place in [`Scrape::values`].
#[derive(Debug, Clone, PartialEq)]
pub struct SeriesDef {
    /// What it is of.
    pub entity: EntityMeta,
    /// The entity's place in [`EstateSpec::entities`].
    pub entity_index: u32,
    /// Metric name.
    pub name: &'static str,
    /// Labels beside the name.
    pub labels: Vec<(String, String)>,
    /// How its values are read.
    pub kind: SeriesKind,
    /// What is measured.
    pub(crate) meter: Meter,
    /// Half width of its noise, as a share of the value.
    pub noise: f64,
    /// Least departure that counts as one, in its unit: what is almost zero is not doubled by a trifle.
    pub floor: f64,
}

/// Where a series takes its value from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Meter {
    Rate,
    Errors,
    Latency,
    Cpu,
    Memory,
    Connections,
    Lag,
    ReplicasReady,
    Queue,
    Retries,
    DnsErrors,
    CacheHits,
    CertificateDays,
    Restarts,
    Misdirected,
    ReplicaErrors(u16),
    ReplicaOutliers,
    DbCpu,
    DbLatency,
    DbDisk,
    DbLocks,
    DbUp,
    TopicRate,
    NodeCpu,
    NodeSteal,
    NodeReady,
    DnsRate,
    DnsFailures,
    DnsLatency,
}

/// Everything of one scrape. Buffers are reused: give the same value again and again.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Scrape {
    /// When, by the clock of the scraper (which may step).
    pub at: Timestamp,
    /// One value for each series; NaN where the scrape failed.
    pub values: Vec<f64>,
    /// Log lines since the scrape before, oldest first.
    pub logs: Vec<LogLine>,
    /// Text of the log lines, one after the other.
    pub text: String,
    /// Sampled calls since the scrape before.
    pub spans: Vec<SpanSample>,
    /// Changes since the scrape before.
    pub changes: Vec<Change>,
}

impl Scrape {
    /// The text of a log line of this scrape.
    pub fn body(&self, line: &LogLine) -> &str {
        self.text.get(line.start as usize..line.end as usize).unwrap_or_default()
    }

    /// Empties it; the buffers stay.
    pub fn clear(&mut self) {
        self.values.clear();
        self.logs.clear();
        self.text.clear();
        self.spans.clear();
        self.changes.clear();
    }
}

/// One log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogLine {
    /// When it was written.
    pub at: Timestamp,
    /// By whom: place in [`EstateSpec::entities`].
    pub entity_index: u32,
    /// OpenTelemetry's severity number: 9 INFO, 13 WARN, 17 ERROR, 21 FATAL.
    pub severity: u32,
    /// Where its text is in [`Scrape::text`].
    pub start: u32,
    /// Where its text ends.
    pub end: u32,
}

/// One sampled call.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SpanSample {
    /// When it ended.
    pub at: Timestamp,
    /// The caller: place in [`EstateSpec::entities`].
    pub from: u32,
    /// Who was called.
    pub to: u32,
    /// How long it took, ms.
    pub duration_ms: f64,
    /// Whether it failed.
    pub error: bool,
}

/// All series of an estate, in a fixed order.
pub(crate) fn declare(spec: &EstateSpec) -> Vec<SeriesDef> {
    let entities = spec.entities();
    let mut out = Vec::new();
    let n = spec.noise;
    for (index, (part, entity)) in spec.parts().into_iter().zip(&entities).enumerate() {
        let mut add = |name: &'static str, meter: Meter, noise: f64, floor: f64| {
            let (kind, labels) = match meter {
                Meter::Restarts => (SeriesKind::Counter, Vec::new()),
                Meter::ReplicaErrors(i) => (SeriesKind::Gauge, vec![("replica".to_owned(), i.to_string())]),
                _ => (SeriesKind::Gauge, Vec::new()),
            };
            let (entity, entity_index) = (entity.clone(), index as u32);
            out.push(SeriesDef { entity, entity_index, name, labels, kind, meter, noise, floor });
        };
        match part {
            Part::Service(i) => {
                let s = &spec.services[i];
                add("service_request_rate", Meter::Rate, n, 0.5);
                add("service_error_rate_percent", Meter::Errors, n, 0.0);
                add("service_latency_p99_ms", Meter::Latency, n, 1.0);
                add("service_cpu_percent", Meter::Cpu, n, 0.5);
                add("service_memory_percent", Meter::Memory, n, 0.5);
                if s.pool.is_some() {
                    add("service_db_connections", Meter::Connections, n, 1.0);
                }
                if s.consumer.is_some() {
                    add("kafka_consumer_lag", Meter::Lag, n, 5.0);
                }
                add("service_replicas_ready", Meter::ReplicasReady, 0.0, 0.5);
                add("service_queue_depth", Meter::Queue, n, 3.0);
                add("service_retry_rate", Meter::Retries, n, 1.0);
                add("service_dns_error_rate", Meter::DnsErrors, n, 0.5);
                if s.cache.is_some() {
                    add("service_cache_hit_percent", Meter::CacheHits, 0.02, 1.0);
                }
                if s.certificate_days.is_some() {
                    add("service_certificate_days_left", Meter::CertificateDays, 0.0, 1.0);
                }
                add("service_restarts_total", Meter::Restarts, 0.0, 0.5);
                add("service_misdirected_request_rate", Meter::Misdirected, n, 0.5);
                for r in 0..s.replicas.min(16) {
                    add("service_replica_error_percent", Meter::ReplicaErrors(r as u16), 2.0 * n, 0.5);
                }
                add("service_replica_outliers", Meter::ReplicaOutliers, 0.0, 0.5);
            }
            Part::Database(_) => {
                add("db_cpu_percent", Meter::DbCpu, n, 0.5);
                add("db_query_latency_p99_ms", Meter::DbLatency, n, 1.0);
                add("db_disk_used_percent", Meter::DbDisk, 0.002, 0.3);
                add("db_lock_waits", Meter::DbLocks, n, 2.0);
                add("db_up", Meter::DbUp, 0.0, 0.5);
            }
            Part::Topic(_) => add("kafka_topic_messages_rate", Meter::TopicRate, n, 1.0),
            Part::Node(_) => {
                add("node_cpu_utilization_percent", Meter::NodeCpu, n, 0.5);
                add("node_cpu_steal_percent", Meter::NodeSteal, n, 0.5);
                add("node_ready", Meter::NodeReady, 0.0, 0.5);
            }
            Part::Resolver => {
                add("dns_request_rate", Meter::DnsRate, n, 1.0);
                add("dns_failed_queries_percent", Meter::DnsFailures, n, 0.2);
                add("dns_latency_p99_ms", Meter::DnsLatency, n, 0.5);
            }
        }
    }
    out
}
