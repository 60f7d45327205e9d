//! The simulated estate as a source: it is scraped like any other, into batches on the bus.

use async_trait::async_trait;
use nightshift_bus::{Bus, Outgoing};
use nightshift_collect::{Attributes, Source, SourceContext, SourceError};
use nightshift_health::BySource;
use nightshift_model::batch::{BatchBuilder, labels};
use nightshift_model::hash::{series_fingerprint, shard_of};
use nightshift_model::{Change, Envelope, EnvelopeId, Routing, Timestamp, proto, topics};
use nightshift_sim::{Scrape, World};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// Name of the source.
pub(super) const NAME: &str = "estate";

/// Turns scrapes into the batches that `collect` would send: one per shard.
pub(super) struct Encoder {
    tenant: String,
    cluster: String,
    /// Shard of each entity.
    shards: Vec<u32>,
    /// Fingerprint and wire form of each series.
    series: Vec<(u64, Vec<u8>)>,
    traces: u64,
}

impl Encoder {
    /// For this estate.
    pub(super) fn new(world: &World, tenant: &str) -> Self {
        let cluster = world.spec().cluster.clone();
        let shards = world.entities().iter().map(|e| shard_of(tenant, &e.id.cluster(), e.id.as_str())).collect();
        let series = world
            .series()
            .iter()
            .map(|def| {
                let own = def.labels.iter().map(|(k, v)| (k.as_str(), v.as_str()));
                let bytes = labels::encode(own.chain([(labels::NAME, def.name)]));
                (series_fingerprint(tenant, def.entity.id.as_str(), &bytes), bytes)
            })
            .collect();
        Self { tenant: tenant.to_owned(), cluster, shards, series, traces: 0 }
    }

    /// One scrape as records of `telemetry.raw`.
    pub(super) fn encode(&mut self, world: &World, scrape: &Scrape, now: Timestamp) -> Vec<Outgoing> {
        let mut batches: BTreeMap<u32, (BatchBuilder, BTreeMap<u32, u32>)> = BTreeMap::new();
        let entities = world.entities();
        let shards = &self.shards;
        let place = |batches: &mut BTreeMap<u32, (BatchBuilder, BTreeMap<u32, u32>)>, entity: u32| {
            let shard = *shards.get(entity as usize)?;
            let meta = entities.get(entity as usize)?;
            let (batch, known) = batches.entry(shard).or_default();
            let index = *known.entry(entity).or_insert_with(|| batch.entity(meta));
            Some((shard, index))
        };
        for ((def, value), (fingerprint, labels)) in world.series().iter().zip(&scrape.values).zip(&self.series) {
            if value.is_finite()
                && let Some((shard, index)) = place(&mut batches, def.entity_index)
                && let Some((batch, _)) = batches.get_mut(&shard)
            {
                batch.series(*fingerprint, index, def.kind, labels);
                batch.sample(scrape.at, *value);
            }
        }
        for line in &scrape.logs {
            if let Some((shard, entity)) = place(&mut batches, line.entity_index)
                && let Some((batch, _)) = batches.get_mut(&shard)
            {
                let body = scrape.body(line).to_owned();
                let (time_ns, severity) = (line.at.0, line.severity);
                batch.log(&proto::LogLine { entity, time_ns, severity, body, ..proto::LogLine::default() });
            }
        }
        for span in &scrape.spans {
            self.traces += 1;
            let trace_id = (u128::from(self.traces) << 64 | 1).to_be_bytes().to_vec();
            let (client, server) = (self.traces.to_be_bytes().to_vec(), (!self.traces).to_be_bytes().to_vec());
            let duration_ns = (span.duration_ms * 1e6) as u64;
            let call = proto::Span {
                start_ns: span.at.0.saturating_sub(duration_ns as i64),
                duration_ns,
                trace_id,
                operation: "call".into(),
                error: span.error,
                ..proto::Span::default()
            };
            if let Some((shard, entity)) = place(&mut batches, span.from)
                && let Some((batch, _)) = batches.get_mut(&shard)
            {
                batch.span(&proto::Span { entity, span_id: client.clone(), kind: 3, ..call.clone() });
            }
            if let Some((shard, entity)) = place(&mut batches, span.to)
                && let Some((batch, _)) = batches.get_mut(&shard)
            {
                batch.span(&proto::Span { entity, span_id: server, parent_span_id: client, kind: 2, ..call });
            }
        }
        batches
            .into_iter()
            .map(|(shard, (mut batch, _))| {
                let payload = batch.finish(NAME);
                let routing = Routing::Shard(shard);
                let envelope = Envelope {
                    id: EnvelopeId::derive(&[NAME.as_bytes(), &payload]),
                    tenant: self.tenant.clone(),
                    cluster: self.cluster.clone(),
                    routing: routing.clone(),
                    traceparent: String::new(),
                    event_time: scrape.at,
                    ingest_time: now,
                    schema: "nightshift.v1.TelemetryBatch".into(),
                    payload,
                };
                Outgoing { routing, bytes: envelope.encode() }
            })
            .collect()
    }
}

/// Scrapes the estate, every so many seconds of its own time.
pub(super) struct EstateSource {
    pub(super) world: Arc<Mutex<World>>,
    pub(super) encoder: Encoder,
    pub(super) bus: Arc<dyn Bus>,
    /// Virtual seconds between two scrapes.
    pub(super) every: Duration,
    /// Wall seconds of the same.
    pub(super) pause: Duration,
    /// Told after every scrape, with the world as it is.
    pub(super) seen: Box<dyn FnMut(&mut World) + Send>,
}

#[async_trait]
impl Source for EstateSource {
    fn name(&self) -> &str {
        NAME
    }

    fn kind(&self) -> &'static str {
        "simulated_estate"
    }

    async fn run(&mut self, context: &SourceContext) -> Result<(), SourceError> {
        let received = context.metrics.samples_received.get_or_create(&BySource { source: NAME.into() }).clone();
        let mut timer = tokio::time::interval(self.pause);
        timer.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        let mut scrape = Scrape::default();
        let failed = |what: &str, e: Box<dyn std::error::Error + Send + Sync>| SourceError {
            what: what.into(),
            source: Some(e),
            fatal: false,
        };
        loop {
            tokio::select! {
                () = context.shutdown.cancelled() => return Ok(()),
                _ = timer.tick() => {}
            }
            let now = context.clock.now();
            let (records, changes, n) = {
                let shared = self.world.clone();
                let mut world = shared.lock();
                let records = self.catch_up(&mut world, &mut scrape, now);
                (self.seen)(&mut world);
                let n = scrape.values.iter().filter(|v| v.is_finite()).count();
                (records, std::mem::take(&mut scrape.changes), n)
            };
            if !records.is_empty() {
                self.bus
                    .publish(topics::TELEMETRY_RAW.name, records)
                    .await
                    .map_err(|e| failed("publish a scrape", e.into()))?;
                received.inc_by(n as u64);
            }
            if !changes.is_empty() {
                let changes: Vec<(Attributes, Change)> =
                    changes.into_iter().map(|c| (Attributes::default(), c)).collect();
                context.sink.changes(NAME, changes).await.map_err(|e| failed("hand in changes", e.into()))?;
            }
            context.health.healthy(format!("{n} samples at the last scrape"));
        }
    }
}

impl EstateSource {
    /// Steps the world to `now` and scrapes it where a scrape is due; the newest one is left in `scrape`.
    fn catch_up(&mut self, world: &mut World, scrape: &mut Scrape, now: Timestamp) -> Vec<Outgoing> {
        let mut records = Vec::new();
        while world.now() + self.every <= now {
            let next = world.now_secs() + self.every.as_secs_f64();
            world.run_until(next);
            let changes = std::mem::take(&mut scrape.changes);
            world.scrape(scrape);
            scrape.changes.splice(0..0, changes);
            records.extend(self.encoder.encode(world, scrape, now));
        }
        records
    }
}
