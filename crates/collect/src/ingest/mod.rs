//! Ingest: from what sources saw to batches on the bus.
//!
//! Lives here: limits and time rules, the dedup window, the series cache, batches by shard, and [`Ingest`], the
//! [`crate::Sink`] that all sources share. Never here: protocols (each has its own module), or judgement.
//!
//! A call returns when what it accepted is durable. Nothing lingers: a request is its own batch, and small ones are
//! joined by the bus' group commit. The id of an envelope is a hash of its payload, so that a client that sends a
//! request again makes the same envelopes, which every consumer knows by their ids.

mod batches;
mod dedup;
mod entities;
mod rules;
mod series;
mod sink;
mod writer;

pub(crate) use rules::STALE;
pub use rules::{Limits, Reason, Tally};
pub(crate) use writer::{What, Writer};

use crate::SinkError;
use crate::resolve::{ResolveConfig, Resolver};
use batches::{Batches, Filled};
use bytes::Bytes;
use nightshift_bus::{Bus, BusError, Outgoing};
use nightshift_health::{BySource, BySourceAndReason, SelfMetrics};
use nightshift_model::batch::SeriesKind;
use nightshift_model::{Clock, Envelope, EnvelopeId, Observation, Routing, Timestamp, topics};
use parking_lot::{Mutex, RwLock};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

/// Schema of what is published to `telemetry.raw`.
const TELEMETRY: &str = "nightshift.v1.TelemetryBatch";

/// Resolution may change this often; changes in between wait. Each makes every series take the slow path once.
const REFRESH: Duration = Duration::from_secs(60);

/// Series that were not seen for two to three of these are forgotten.
const ROUND: Duration = Duration::from_secs(900);

/// Metric types told by metadata that are remembered.
const KINDS_MAX: usize = 50_000;

/// Scratch buffers that are kept for the next requests.
const POOL_MAX: usize = 8;

/// What is taken in, and how it is resolved.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct IngestConfig {
    /// Limits of what is taken in.
    pub limits: Limits,
    /// How records are resolved to entities.
    pub resolve: ResolveConfig,
}

/// What an [`Ingest`] is made of.
pub struct IngestParts {
    /// Tenant of everything that is taken in.
    pub tenant: String,
    /// Limits.
    pub limits: Limits,
    /// Resolves records.
    pub resolver: Arc<Resolver>,
    /// Where batches go.
    pub bus: Arc<dyn Bus>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Counters.
    pub metrics: SelfMetrics,
}

/// How far the clock of a source is from ours.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SourceClock {
    /// The source.
    pub source: String,
    /// Newest event time of its last request minus our time then, milliseconds. A little below zero is delivery; above
    /// zero its clock is ahead.
    pub offset_ms: i64,
    /// When that was.
    pub at: Timestamp,
}

/// What ingest keeps, for `/api/v1/status`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct IngestStats {
    /// Series remembered.
    pub series: usize,
    /// Bytes that the series cache takes.
    pub series_bytes: usize,
    /// Look-ups of series that were not remembered, since the start.
    pub series_misses: u64,
    /// Entities (with each context that they were seen in).
    pub entities: usize,
    /// Clocks of sources.
    pub clocks: Vec<SourceClock>,
}

/// Buffers of one request, used again by the next.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    pub(crate) batches: Batches,
    /// Decompressed body.
    pub(crate) body: Vec<u8>,
    /// Labels being put together.
    pub(crate) labels: Vec<u8>,
    /// Samples of the series at hand.
    pub(crate) samples: Vec<(Timestamp, f64)>,
}

/// Times at which the series cache was looked after.
#[derive(Debug, Default)]
struct Upkeep {
    generation: u64,
    cleared: Timestamp,
    aged: Timestamp,
}

/// Takes in what sources saw. One for the process.
pub struct Ingest {
    tenant: String,
    limits: Limits,
    resolver: Arc<Resolver>,
    bus: Arc<dyn Bus>,
    clock: Arc<dyn Clock>,
    metrics: SelfMetrics,
    entities: entities::Entities,
    series: series::SeriesCache,
    dedup: dedup::Dedup,
    kinds: RwLock<HashMap<String, SeriesKind>>,
    clocks: Mutex<BTreeMap<String, SourceClock>>,
    pool: Mutex<Vec<Scratch>>,
    upkeep: Mutex<Upkeep>,
    calls: std::sync::atomic::AtomicU64,
}

impl Ingest {
    /// Puts one together.
    pub fn new(parts: IngestParts) -> Arc<Self> {
        let IngestParts { tenant, limits, resolver, bus, clock, metrics } = parts;
        let upkeep = Upkeep { generation: resolver.generation(), cleared: Timestamp::EPOCH, aged: clock.now() };
        Arc::new(Self {
            entities: entities::Entities::new(&tenant, limits.entities_max),
            series: series::SeriesCache::new(limits.series_remembered),
            dedup: dedup::Dedup::new(limits.dedup_window),
            kinds: RwLock::default(),
            clocks: Mutex::default(),
            pool: Mutex::default(),
            upkeep: Mutex::new(upkeep),
            // Ids that must differ from those of the run before begin elsewhere.
            calls: (clock.now().0 as u64).into(),
            tenant,
            limits,
            resolver,
            bus,
            clock,
            metrics,
        })
    }

    /// The resolver, to learn aliases that topology found.
    pub const fn resolver(&self) -> &Arc<Resolver> {
        &self.resolver
    }

    /// The limits in force.
    pub const fn limits(&self) -> &Limits {
        &self.limits
    }

    /// What it keeps.
    pub fn stats(&self) -> IngestStats {
        IngestStats {
            series: self.series.len(),
            series_bytes: self.series.bytes(),
            series_misses: self.series.misses(),
            entities: self.entities.len(),
            clocks: self.clocks.lock().values().cloned().collect(),
        }
    }

    /// Learns from metadata what the values of a metric mean; the first that tells is believed.
    pub(crate) fn learn_kind(&self, metric: &str, kind: SeriesKind) {
        if SeriesKind::from_metric_name(metric) == kind || self.kinds.read().contains_key(metric) {
            return;
        }
        let mut kinds = self.kinds.write();
        if kinds.len() < KINDS_MAX && kinds.insert(metric.to_owned(), kind).is_none() {
            drop(kinds);
            // What is remembered of its series may say otherwise.
            self.series.clear();
        }
    }

    fn kind_of(&self, metric: &str) -> SeriesKind {
        self.kinds.read().get(metric).copied().unwrap_or_else(|| SeriesKind::from_metric_name(metric))
    }

    fn take_scratch(&self) -> Scratch {
        self.pool.lock().pop().unwrap_or_default()
    }

    fn give_back(&self, mut scratch: Scratch) {
        scratch.batches.clear();
        // A single huge request must not keep its memory for good.
        if scratch.body.capacity() > 8 << 20 {
            scratch.body = Vec::new();
        }
        let mut pool = self.pool.lock();
        if pool.len() < POOL_MAX {
            pool.push(scratch);
        }
    }

    /// Looks after the series cache. Called with every request; seldom does anything.
    fn keep_up(&self, now: Timestamp) {
        let generation = self.resolver.generation();
        let mut upkeep = self.upkeep.lock();
        let stale = generation != upkeep.generation && now.since(upkeep.cleared) >= REFRESH;
        let old = now.since(upkeep.aged) >= ROUND;
        if stale {
            (upkeep.generation, upkeep.cleared) = (generation, now);
        }
        if old {
            upkeep.aged = now;
        }
        drop(upkeep);
        if stale {
            self.series.clear();
        } else if old {
            self.series.age();
        }
    }

    fn note_clock(&self, source: &str, newest: Timestamp, now: Timestamp) {
        let offset_ms = (newest.0.saturating_sub(now.0)) / nightshift_model::time::NANOS_PER_MS;
        let mut clocks = self.clocks.lock();
        match clocks.get_mut(source) {
            Some(clock) => (clock.offset_ms, clock.at) = (offset_ms, now),
            None => {
                clocks.insert(source.to_owned(), SourceClock { source: source.to_owned(), offset_ms, at: now });
            }
        }
    }

    fn envelope(&self, filled: Filled, nonce: u64, now: Timestamp) -> (EnvelopeId, Outgoing) {
        let Filled { shard, newest, payload } = filled;
        let id = EnvelopeId::derive(&[self.tenant.as_bytes(), &nonce.to_be_bytes(), &payload]);
        let envelope = Envelope {
            id,
            tenant: self.tenant.clone(),
            cluster: self.resolver.cluster().to_owned(),
            routing: Routing::Shard(shard),
            traceparent: String::new(),
            event_time: newest,
            ingest_time: now,
            schema: TELEMETRY.to_owned(),
            payload,
        };
        (id, Outgoing { routing: Routing::Shard(shard), bytes: envelope.encode() })
    }

    fn control<T: Serialize>(
        &self,
        id: EnvelopeId,
        schema: &str,
        at: Timestamp,
        now: Timestamp,
        value: &T,
    ) -> Option<Outgoing> {
        let routing = Routing::Key(self.tenant.clone());
        match Envelope::json(id, &self.tenant, routing.clone(), schema, at, now, value) {
            Ok(envelope) => Some(Outgoing { routing, bytes: envelope.encode() }),
            Err(e) => {
                // Keys of these types are strings; this would be a bug, and is not worth a crash.
                tracing::error!(error = %e, schema, "failed to encode a control record");
                None
            }
        }
    }

    /// Counts a request of which nothing was taken; how many samples it held is not known.
    pub(crate) fn refused(&self, source: &str, reason: &'static str) {
        let labels = BySourceAndReason { source: source.to_owned().into(), reason: reason.into() };
        self.metrics.samples_rejected.get_or_create(&labels).inc();
    }

    async fn publish(&self, source: &str, topic: topics::Topic, records: Vec<Outgoing>) -> Result<(), SinkError> {
        match self.bus.publish(topic.name, records).await {
            Ok(()) => Ok(()),
            Err(BusError::Backpressure { retry_after }) => {
                self.metrics.backpressure.get_or_create(&BySource { source: source.to_owned().into() }).inc();
                Err(SinkError::Busy { retry_after })
            }
            Err(e) => Err(SinkError::Bus(e)),
        }
    }

    /// Tells topology what was learned. What the bus does not take now is told with the next request.
    async fn tell_topology(&self, now: Timestamp) {
        let learned = self.entities.take_pending();
        if learned.is_empty() {
            return;
        }
        let records = learned.iter().filter_map(|seen| {
            let at = match seen {
                Observation::Entity { at, .. } | Observation::Alias { at, .. } | Observation::Edge { at, .. } => *at,
            };
            let text = Bytes::from(serde_json::to_vec(seen).ok()?);
            let id = EnvelopeId::derive(&[self.tenant.as_bytes(), b"observation", &text]);
            self.control(id, "nightshift.v1.Observation", at, now, seen)
        });
        let records = records.collect();
        if let Err(e) = self.bus.publish(topics::TOPOLOGY_OBSERVED.name, records).await {
            tracing::debug!(error = %e, "topology is told later");
            self.entities.tell(learned);
        }
    }
}

#[cfg(test)]
mod tests;
