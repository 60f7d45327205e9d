//! The anomaly detector at work: telemetry in, anomalies out, state kept per shard with its position.
//!
//! A shard's snapshot holds the position it belongs to. After a restart the shard resumes from there, not from the
//! group's commit, and what it makes again carries the same ids. Anomalies are durable before a snapshot or a commit
//! that covers them.

use super::feed::Feed;
use super::shard::{DetectRooms, ShardRooms};
use super::{AgentError, Turn, control, dead_letter};
use bytes::{Buf, BufMut, Bytes};
use nightshift_bus::{Bus, Consumer, Outgoing, Record, SnapshotStore, TopicPartition};
use nightshift_detect::{Effects, FeatureRow};
use nightshift_health::{ByReason, BySeverityAndKind, BySourceAndReason, SelfMetrics};
use nightshift_model::batch::BatchView;
use nightshift_model::hash::shard_of;
use nightshift_model::{Anomaly, AnomalyKind, Clock, Envelope, EnvelopeId, Phase, Routing, Timestamp, topics};
use nightshift_topology::SpanJoiner;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

/// Consumer group, and the name its snapshots go by.
const GROUP: &str = "anomaly-detector";
/// Envelope ids of a shard that are remembered, so that a repeated delivery is recognised.
const RECENT_MAX: usize = 256;
/// Version of the snapshot's frame (the rooms have their own inside).
const SNAPSHOT_VERSION: u8 = 1;

/// One shard's rooms, and where it stands.
struct Shard {
    rooms: ShardRooms,
    /// Offset of the next record.
    next: u64,
    recent: VecDeque<EnvelopeId>,
    /// Something was handled since the last snapshot.
    dirty: bool,
    snapshot_at: Timestamp,
}

/// Turns telemetry into anomalies.
pub struct DetectAgent {
    bus: Arc<dyn Bus>,
    snapshots: Arc<dyn SnapshotStore>,
    clock: Arc<dyn Clock>,
    counters: SelfMetrics,
    rooms: DetectRooms,
    /// Generation of the model in `rooms`, and its number.
    model: (u64, u32),
    consumer: Box<dyn Consumer>,
    shards: BTreeMap<u32, Shard>,
    spans: SpanJoiner,
    effects: Effects,
    /// Made and not yet durable. While there are any, nothing is polled and nothing acknowledged.
    pending: Vec<Outgoing>,
    /// The same for edges learned from spans.
    pending_edges: Vec<Outgoing>,
    /// The same for features.
    pending_features: Vec<Outgoing>,
    snapshot_every: Duration,
    tick_every: Duration,
    ticked_at: Timestamp,
    /// How often objectives had been told when the shards last followed them.
    objectives_known: u64,
}

impl DetectAgent {
    /// Joins the group.
    ///
    /// # Errors
    /// When the bus refuses.
    pub async fn start(
        bus: Arc<dyn Bus>,
        snapshots: Arc<dyn SnapshotStore>,
        clock: Arc<dyn Clock>,
        counters: SelfMetrics,
        rooms: DetectRooms,
        snapshot_every: Duration,
    ) -> Result<Self, AgentError> {
        let consumer = bus.consumer(GROUP, &[topics::TELEMETRY_RAW.name]).await?;
        let ticked_at = clock.now();
        let spans = SpanJoiner::new(rooms.spans.clone());
        let mut rooms = rooms;
        let model = take_model(&mut rooms);
        Ok(Self {
            model,
            bus,
            snapshots,
            clock,
            counters,
            rooms,
            consumer,
            shards: BTreeMap::new(),
            spans,
            effects: Effects::default(),
            pending: Vec::new(),
            pending_edges: Vec::new(),
            pending_features: Vec::new(),
            snapshot_every,
            tick_every: Duration::from_secs(1),
            ticked_at,
            objectives_known: 0,
        })
    }

    /// One round: poll, step, publish, and now and then a snapshot.
    ///
    /// # Errors
    /// When bus or snapshots fail; the next turn goes on where this one stopped.
    pub async fn turn(&mut self, max_wait: Duration) -> Result<Turn, AgentError> {
        self.flush().await?;
        self.change_model();
        let polled = self.consumer.poll(256, max_wait).await?;
        for at in &polled.revoked {
            self.hand_over(at).await?;
        }
        for at in &polled.assigned {
            self.take_over(at).await?;
        }
        let now = self.clock.now();
        self.follow_objectives();
        let records = polled.records.len();
        for record in polled.records {
            self.handle(record, now).await?;
        }
        if now.since(self.ticked_at) >= self.tick_every {
            self.ticked_at = now;
            self.tick(now);
        }
        self.flush().await?;
        self.snapshot_due(now).await?;
        Ok(Turn { records, progressed: records > 0 })
    }

    /// Puts the state of every shard away, for an orderly end.
    ///
    /// # Errors
    /// When bus or snapshots fail: what is not put away is replayed at the next start.
    pub async fn stop(mut self) -> Result<(), AgentError> {
        self.flush().await?;
        let shards: Vec<u32> = self.shards.iter().filter(|(_, s)| s.dirty).map(|(n, _)| *n).collect();
        for shard in shards {
            self.snapshot(shard).await?;
        }
        Ok(())
    }

    /// Where every shard stands: shard and offset of its next record.
    pub fn positions(&self) -> Vec<(u32, u64)> {
        self.shards.iter().map(|(n, s)| (*n, s.next)).collect()
    }

    async fn handle(&mut self, record: Record, now: Timestamp) -> Result<(), AgentError> {
        let Some(shard) = self.shards.get_mut(&record.partition) else { return Ok(()) };
        if record.offset < shard.next {
            return Ok(());
        }
        let bad = match Envelope::decode(record.bytes.clone()) {
            Ok(envelope) if shard.recent.contains(&envelope.id) => {
                let reason = ByReason { reason: "duplicate_batch".into() };
                tracing::debug!(id = %envelope.id, ?reason, "batch delivered again");
                None
            }
            Ok(envelope) => {
                match shard.step(&envelope, &mut self.spans, &mut self.effects, now, &self.counters, &self.rooms.feed) {
                    Ok(()) => {
                        if shard.recent.len() == RECENT_MAX {
                            shard.recent.pop_front();
                        }
                        shard.recent.push_back(envelope.id);
                        None
                    }
                    Err(e) => Some(("malformed_batch", e)),
                }
            }
            Err(e) => Some((e.reason(), e.to_string())),
        };
        if let Some((reason, detail)) = bad {
            dead_letter(&self.bus, &self.counters, &record, reason, &detail, now).await?;
        }
        if let Some(shard) = self.shards.get_mut(&record.partition) {
            shard.next = record.offset + 1;
            shard.dirty = true;
        }
        self.collect_effects(now);
        Ok(())
    }

    /// Another version was promoted, or rolled back to: every shard goes on under it with what it knows.
    fn change_model(&mut self) {
        if self.rooms.models.generation() == self.model.0 {
            return;
        }
        self.model = take_model(&mut self.rooms);
        for (number, shard) in &mut self.shards {
            if let Err(why) = shard.rooms.reconfigure(&self.rooms) {
                tracing::warn!(shard = number, why, "a shard stays under the model before until the next start");
            }
        }
    }

    /// Moves what the rooms found into `pending`.
    fn collect_effects(&mut self, now: Timestamp) {
        let version = self.model.1;
        let of_layers = |a: &&mut Anomaly| matches!(a.kind, AnomalyKind::Statistical | AnomalyKind::Capacity);
        for anomaly in self.effects.anomalies.iter_mut().filter(of_layers).filter(|_| version != 0) {
            anomaly.explanation.model_version = version;
        }
        self.rooms.feed.found(&self.effects.anomalies);
        for anomaly in self.effects.anomalies.drain(..) {
            if anomaly.phase == Phase::Open {
                self.counters.anomaly_score.observe(anomaly.score);
                let labels = BySeverityAndKind {
                    severity: anomaly.severity.as_str().into(),
                    kind: anomaly.kind.as_str().into(),
                };
                self.counters.anomalies.get_or_create(&labels).inc();
            }
            self.pending.push(anomaly_record(&anomaly, now));
        }
        if self.rooms.export_features {
            self.pending_features.extend(self.effects.features.iter().map(|row| features_record(row, now)));
        }
        self.rooms.feed.minutes(self.effects.features.drain(..));
    }

    /// Tells the shards which objectives hold, when they have changed.
    fn follow_objectives(&mut self) {
        if let Some((known, objectives)) = self.rooms.feed.objectives_after(self.objectives_known) {
            self.objectives_known = known;
            for shard in self.shards.values_mut() {
                shard.rooms.set_objectives(Arc::clone(&objectives), &mut self.effects);
            }
        }
    }

    fn tick(&mut self, now: Timestamp) {
        let mut live = 0;
        for shard in self.shards.values_mut() {
            shard.rooms.tick(now, &mut self.effects);
            live += shard.rooms.series_live();
        }
        self.counters.series_live.set(i64::try_from(live).unwrap_or(i64::MAX));
        self.collect_effects(now);
        for (tenant, edge) in self.spans.drain(now) {
            let text = serde_json::to_vec(&edge).expect("observations have string keys");
            let id = EnvelopeId::derive(&[b"edge", tenant.as_bytes(), &text]);
            let record = control(id, &tenant, tenant.clone(), "nightshift.v1.Observation", now, now, &edge);
            self.pending_edges.push(record);
        }
    }

    async fn flush(&mut self) -> Result<(), AgentError> {
        for (topic, pending) in [
            (topics::ANOMALIES_DETECTED, &mut self.pending),
            (topics::TOPOLOGY_OBSERVED, &mut self.pending_edges),
            (topics::TELEMETRY_ENRICHED, &mut self.pending_features),
        ] {
            if !pending.is_empty() {
                self.bus.publish(topic.name, pending.clone()).await?;
                pending.clear();
            }
        }
        Ok(())
    }

    /// One shard a turn at most: the pause stays short however many shards there are.
    async fn snapshot_due(&mut self, now: Timestamp) -> Result<(), AgentError> {
        let due = self
            .shards
            .iter()
            .filter(|(_, s)| s.dirty && now.since(s.snapshot_at) >= self.snapshot_every)
            .min_by_key(|(n, s)| (s.snapshot_at, **n))
            .map(|(n, _)| *n);
        match due {
            Some(shard) => self.snapshot(shard).await,
            None => Ok(()),
        }
    }

    async fn snapshot(&mut self, number: u32) -> Result<(), AgentError> {
        let now = self.clock.now();
        let Some(shard) = self.shards.get_mut(&number) else { return Ok(()) };
        self.snapshots.put(GROUP, number, shard.encode()).await?;
        shard.dirty = false;
        shard.snapshot_at = now;
        let at = TopicPartition { topic: topics::TELEMETRY_RAW.name.into(), partition: number };
        self.consumer.commit(&[(at, shard.next)]).await?;
        Ok(())
    }

    async fn take_over(&mut self, at: &TopicPartition) -> Result<(), AgentError> {
        let now = self.clock.now();
        let mut shard = match self.snapshots.get(GROUP, at.partition).await? {
            Some(bytes) => match Shard::decode(&self.rooms, bytes, now) {
                Ok((shard, closed)) => {
                    self.effects.anomalies.extend(closed);
                    shard
                }
                // A program that cannot read the state replays what the bus still holds: late, never wrong.
                Err(why) => {
                    tracing::warn!(shard = at.partition, why, "snapshot is not readable, replaying the bus");
                    Shard::new(&self.rooms, at.partition, now)
                }
            },
            None => Shard::new(&self.rooms, at.partition, now),
        };
        // Where nobody has told any yet, those of the snapshot are followed.
        if let Some((_, objectives)) = self.rooms.feed.objectives_after(0) {
            shard.rooms.set_objectives(objectives, &mut self.effects);
        }
        self.consumer.seek(at, shard.next).await?;
        self.shards.insert(at.partition, shard);
        self.collect_effects(now);
        Ok(())
    }

    async fn hand_over(&mut self, at: &TopicPartition) -> Result<(), AgentError> {
        self.flush().await?;
        if let Some(mut shard) = self.shards.remove(&at.partition)
            && shard.dirty
        {
            self.snapshots.put(GROUP, at.partition, shard.encode()).await?;
        }
        Ok(())
    }
}

impl Shard {
    fn new(rooms: &DetectRooms, number: u32, now: Timestamp) -> Self {
        Self { rooms: ShardRooms::new(rooms, number), next: 0, recent: VecDeque::new(), dirty: false, snapshot_at: now }
    }

    fn step(
        &mut self,
        envelope: &Envelope,
        spans: &mut SpanJoiner,
        effects: &mut Effects,
        now: Timestamp,
        counters: &SelfMetrics,
        feed: &Feed,
    ) -> Result<(), String> {
        let mut view = BatchView::parse(&envelope.payload).map_err(|e| e.to_string())?;
        let stats = self.rooms.step(&envelope.tenant, &mut view, spans, effects, now)?;
        feed.batch(&envelope.tenant, &view, self.rooms.columns());
        counters.samples_scored.inc_by(stats.scored);
        let not_scored = [
            ("duplicate", stats.duplicates),
            ("too_old", stats.too_old),
            ("not_finite", stats.not_finite),
            ("over_ceiling", stats.over_ceiling),
        ];
        for (reason, n) in not_scored.into_iter().filter(|(_, n)| *n > 0) {
            let labels = BySourceAndReason { source: view.source().to_owned().into(), reason: reason.into() };
            counters.samples_rejected.get_or_create(&labels).inc_by(n);
        }
        Ok(())
    }

    fn encode(&mut self) -> Bytes {
        let mut out = Vec::new();
        out.put_u8(SNAPSHOT_VERSION);
        out.put_u64(self.next);
        out.put_u32(self.recent.len() as u32);
        for id in &self.recent {
            out.put_u128(id.0);
        }
        self.rooms.encode(&mut out);
        out.into()
    }

    /// The shard, and the ends of what rules that are gone or changed had raised.
    fn decode(rooms: &DetectRooms, mut bytes: Bytes, now: Timestamp) -> Result<(Self, Vec<Anomaly>), String> {
        const SHORT: &str = "snapshot ends early";
        let version = bytes.try_get_u8().map_err(|_| SHORT)?;
        if version != SNAPSHOT_VERSION {
            return Err(format!("snapshot of version {version}, this program knows {SNAPSHOT_VERSION}"));
        }
        let next = bytes.try_get_u64().map_err(|_| SHORT)?;
        let n = bytes.try_get_u32().map_err(|_| SHORT)? as usize;
        if n > RECENT_MAX {
            return Err(format!("snapshot remembers {n} records, at most {RECENT_MAX} are"));
        }
        let mut recent = VecDeque::with_capacity(RECENT_MAX);
        for _ in 0..n {
            recent.push_back(EnvelopeId(bytes.try_get_u128().map_err(|_| SHORT)?));
        }
        let (shard_rooms, closed) = ShardRooms::decode(rooms, &mut bytes)?;
        let shard = Self { rooms: shard_rooms, next, recent, dirty: false, snapshot_at: now };
        Ok((shard, closed))
    }
}

/// Puts the model in use into the rooms: its generation and its number.
fn take_model(rooms: &mut DetectRooms) -> (u64, u32) {
    // Before the model: if it changes in between, the next look sees that.
    let generation = rooms.models.generation();
    let live = rooms.models.get();
    if let Some(metrics) = live.metrics {
        rooms.metrics = metrics;
    }
    rooms.warm = live.warm;
    (generation, live.version)
}

/// Features of a service's minute as a record of `telemetry.enriched`.
fn features_record(row: &FeatureRow, now: Timestamp) -> Outgoing {
    let entity = row.entity.as_str();
    let id = EnvelopeId::derive(&[b"features", row.tenant.as_bytes(), entity.as_bytes(), &row.minute.0.to_be_bytes()]);
    let routing = Routing::Shard(shard_of(&row.tenant, &row.entity.cluster(), entity));
    let schema = "nightshift.v1.FeatureRow";
    let envelope = Envelope::json(id, &row.tenant, routing.clone(), schema, row.minute, now, row)
        .expect("features have string keys and finite depth");
    Outgoing { routing, bytes: envelope.encode() }
}

/// An anomaly as a record of `anomalies.detected`. The id follows from what it says: a replay makes the same.
pub(super) fn anomaly_record(anomaly: &Anomaly, now: Timestamp) -> Outgoing {
    let phase = [anomaly.phase as u8];
    let id = EnvelopeId::derive(&[
        &anomaly.id.to_bytes(),
        &phase,
        &anomaly.last_seen.0.to_be_bytes(),
        &anomaly.score.to_bits().to_be_bytes(),
    ]);
    control(id, &anomaly.tenant, anomaly.tenant.clone(), "nightshift.v1.Anomaly", anomaly.last_seen, now, anomaly)
}
