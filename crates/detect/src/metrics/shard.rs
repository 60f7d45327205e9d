//! A shard's series: look-up, names, the ceiling, the clock of each source, and the loop over a batch.

use super::alarm::{Subject, record};
use super::budget::SeriesBudget;
use super::config::MetricsConfig;
use super::engine::{Engine, Outcome};
use super::ensemble::Ensemble;
use super::hot::{ABSENT, Hot, LIMIT, NO_COLD, SEEN, USED};
use super::judge::{AlarmKind, Transition};
use super::names::{LabelList, Names};
use super::policy::Policy;
use crate::features::{FeatureRow, Features};
use crate::models::warm::{Seat, WarmStart};
use hashbrown::{HashMap, HashTable};
use nightshift_model::batch::{BatchError, BatchView, MetricColumns, SeriesKind, labels};
use nightshift_model::hash::{hash64, hash128};
use nightshift_model::{Anomaly, EntityMeta, Phase, SHARDS, Timestamp};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// No slot: the series is over the ceiling.
const NO_SLOT: u32 = u32::MAX;

/// What came of a step or a tick.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct Effects {
    /// Records of anomalies: opened, worse, closed.
    pub anomalies: Vec<Anomaly>,
    /// Minutes of features that were closed.
    pub features: Vec<FeatureRow>,
}

impl Effects {
    /// Empties it; the capacity stays.
    pub fn clear(&mut self) {
        self.anomalies.clear();
        self.features.clear();
    }
}

/// What became of the samples of a batch. Every sample is in exactly one of `scored`, `duplicates`, `not_finite`,
/// `too_old`, `resets` and `over_ceiling`.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct StepStats {
    /// Samples in the batch.
    pub samples: u64,
    /// Went through the layers (warm-up included).
    pub scored: u64,
    /// Of those, before the series could speak.
    pub warming: u64,
    /// Same series, same time: ignored.
    pub duplicates: u64,
    /// Of the scored, older than the newest of their series: not learned, open nothing.
    pub late: u64,
    /// Of the late, far from what is normal now.
    pub late_off: u64,
    /// Older than `late_secs`: not scored.
    pub too_old: u64,
    /// NaN or infinite: not scored.
    pub not_finite: u64,
    /// Counters that started again: no rate can be told.
    pub resets: u64,
    /// Samples of series over the ceiling: not scored.
    pub over_ceiling: u64,
    /// Series seen for the first time.
    pub series_new: u64,
    /// Spans taken.
    pub spans: u64,
}

impl StepStats {
    /// Adds another's counts.
    pub const fn add(&mut self, o: &Self) {
        self.samples += o.samples;
        self.scored += o.scored;
        self.warming += o.warming;
        self.duplicates += o.duplicates;
        self.late += o.late;
        self.late_off += o.late_off;
        self.too_old += o.too_old;
        self.not_finite += o.not_finite;
        self.resets += o.resets;
        self.over_ceiling += o.over_ceiling;
        self.series_new += o.series_new;
        self.spans += o.spans;
    }
}

/// What is known of a series beside its hot state. 16 bytes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Meta {
    pub(crate) labels: LabelList,
    pub(crate) entity: u32,
    pub(crate) origin: u16,
    pub(crate) kind: SeriesKind,
}

/// An entity with series or features here.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Entity {
    pub(crate) tenant: Arc<str>,
    pub(crate) meta: EntityMeta,
    pub(crate) series: u32,
    /// Hash of tenant and wire form: equal means nothing changed.
    pub(crate) raw: u64,
    /// Event time of the newest thing seen of it.
    pub(crate) last: i64,
    pub(crate) used: bool,
}

/// A source of a tenant.
#[derive(Debug)]
pub(crate) struct Origin {
    pub(crate) tenant: Arc<str>,
    pub(crate) source: Arc<str>,
    /// Event time of its newest sample.
    pub(crate) watermark: i64,
    /// `now` at its newest batch.
    pub(crate) last_now: i64,
    pub(crate) series: u64,
    pub(crate) live: Arc<AtomicU64>,
}

/// Metric detection for one shard. Not shared: a worker owns the shards it was given.
#[derive(Debug)]
pub struct ShardDetector {
    pub(crate) shard: u32,
    pub(crate) engine: Engine,
    pub(crate) budget: Arc<SeriesBudget>,
    pub(crate) hot: Vec<Hot>,
    pub(crate) metas: Vec<Meta>,
    pub(crate) table: HashTable<u32>,
    pub(crate) free: Vec<u32>,
    pub(crate) names: Names,
    pub(crate) labels_live: usize,
    pub(crate) policies: Vec<Policy>,
    policy_of: HashMap<u64, u16>,
    pub(crate) entities: Vec<Entity>,
    pub(crate) entity_by_raw: HashMap<u64, u32>,
    pub(crate) entity_by_id: HashMap<u128, u32>,
    pub(crate) entities_free: Vec<u32>,
    pub(crate) origins: Vec<Origin>,
    pub(crate) features: Features,
    pub(crate) next_sweep: i64,
    warm: Seat,
    columns: MetricColumns,
    slots: Vec<u32>,
    batch_entities: Vec<u32>,
    unknown: Vec<u32>,
}

pub(crate) fn id_hash(tenant: &str, entity: &str) -> u128 {
    hash128(&[tenant.as_bytes(), entity.as_bytes()])
}

/// Labels that [`Policy::of`] may ask for: with the name and the kind of entity they decide the policy.
const POLICY_LABELS: &[&str] = &[
    "mode",
    "state",
    "cpu.mode",
    "cpu_mode",
    "system.memory.state",
    "system.filesystem.state",
    "db.client.connection.state",
    "system_memory_state",
    "status",
    "code",
    "status_code",
    "http.response.status_code",
    "http_response_status_code",
    "error.type",
    "quantile",
];

impl ShardDetector {
    /// A detector that knows nothing. `budget` is shared by all shards of the process.
    pub fn new(config: Arc<MetricsConfig>, budget: Arc<SeriesBudget>, shard: u32) -> Self {
        let seasons = (config.forecast.series_max as usize).div_ceil(SHARDS as usize);
        let neutral = Policy::neutral(config.zscore.sensitivity.sigma(), &config);
        Self {
            shard,
            features: Features::new(config.features.clone()),
            engine: Engine::new(config, seasons),
            budget,
            hot: Vec::new(),
            metas: Vec::new(),
            table: HashTable::new(),
            free: Vec::new(),
            names: Names::default(),
            labels_live: 0,
            policies: vec![neutral],
            policy_of: HashMap::new(),
            entities: Vec::new(),
            entity_by_raw: HashMap::new(),
            entity_by_id: HashMap::new(),
            entities_free: Vec::new(),
            origins: Vec::new(),
            next_sweep: i64::MIN,
            warm: Seat::default(),
            columns: MetricColumns::default(),
            slots: Vec::new(),
            batch_entities: Vec::new(),
            unknown: Vec::new(),
        }
    }

    /// The shard it was made for.
    pub const fn shard(&self) -> u32 {
        self.shard
    }

    /// Live series.
    pub fn series_live(&self) -> usize {
        self.hot.len() - self.free.len()
    }

    /// Bytes held, scratch buffers included.
    pub fn memory_bytes(&self) -> usize {
        let columns = &self.columns;
        self.hot.capacity() * size_of::<Hot>()
            + self.metas.capacity() * size_of::<Meta>()
            + self.table.capacity() * 5 * 8 / 7
            + self.free.capacity() * 4
            + self.names.bytes()
            + self.policies.capacity() * size_of::<Policy>()
            + self.entities.capacity() * (size_of::<Entity>() + 160)
            + self.engine.pool.bytes()
            + self.engine.ensembles.capacity() * size_of::<Ensemble>()
            + self.engine.trends.capacity() * 120
            + self.engine.alarms.len() * 256
            + self.features.bytes()
            + columns.fingerprint.capacity() * 8
            + (columns.entity.capacity() + columns.rows.capacity() + self.slots.capacity()) * 4
            + columns.timestamp.capacity() * 8
            + columns.value.capacity() * 8
    }

    /// What series that come from now on start with; `None`: with what is usual for any series.
    pub fn set_warm(&mut self, warm: Option<Arc<WarmStart>>) {
        self.warm.set(warm);
    }

    /// The metric columns of the batch stepped last, so that others need not decode them again.
    pub const fn columns(&self) -> &MetricColumns {
        &self.columns
    }

    /// Takes a batch of this shard: every sample is scored and then learned, in order. `now` only dates the batch for
    /// [`Self::tick`]; verdicts follow event time, so that a replay makes the same.
    ///
    /// # Errors
    /// When the batch is broken. Then nothing of it was taken.
    pub fn step(
        &mut self,
        tenant: &str,
        batch: &mut BatchView<'_>,
        now: Timestamp,
        out: &mut Effects,
    ) -> Result<StepStats, BatchError> {
        let spans = batch.spans().collect::<Result<Vec<_>, _>>()?;
        if spans.iter().any(|s| s.entity as usize >= batch.n_entities()) {
            return Err(BatchError::Entity);
        }
        let mut columns = std::mem::take(&mut self.columns);
        let result = batch.metrics(&mut columns).and_then(|()| {
            self.resolve_entities(tenant, batch)?;
            let origin = self.origin(tenant, batch.source(), now);
            self.resolve_series(batch, &columns, origin)?;
            Ok(self.rows(&columns, origin, out))
        });
        self.columns = columns;
        let mut stats = result?;
        for span in &spans {
            let index = self.batch_entities[span.entity as usize];
            let entity = &mut self.entities[index as usize];
            entity.last = entity.last.max(span.start_ns);
            self.features.span(index, span);
        }
        stats.spans = spans.len() as u64;
        let entities = &self.entities;
        self.features.close(|i| entities.get(i as usize).map(|e| (&*e.tenant, &e.meta)), out);
        Ok(stats)
    }

    /// Finds the batch's entities; decodes those that are new or changed.
    fn resolve_entities(&mut self, tenant: &str, batch: &BatchView<'_>) -> Result<(), BatchError> {
        self.batch_entities.clear();
        for i in 0..batch.n_entities() as u32 {
            let bytes = batch.entity_bytes(i).ok_or(BatchError::Entity)?;
            let raw = (hash128(&[tenant.as_bytes(), bytes]) >> 64) as u64;
            if let Some(index) = self.entity_by_raw.get(&raw) {
                self.batch_entities.push(*index);
                continue;
            }
            let meta = batch.entity(i)?;
            let index = self.entity(tenant, meta, raw);
            self.batch_entities.push(index);
        }
        Ok(())
    }

    fn entity(&mut self, tenant: &str, meta: EntityMeta, raw: u64) -> u32 {
        let id = id_hash(tenant, meta.id.as_str());
        if let Some(index) = self.entity_by_id.get(&id).copied() {
            let entity = &mut self.entities[index as usize];
            self.entity_by_raw.remove(&entity.raw);
            entity.raw = raw;
            entity.meta = meta;
            self.entity_by_raw.insert(raw, index);
            return index;
        }
        let tenant =
            self.origins.iter().find(|o| &*o.tenant == tenant).map_or_else(|| tenant.into(), |o| o.tenant.clone());
        self.put_entity(Entity { tenant, meta, series: 0, raw, last: i64::MIN, used: true })
    }

    pub(crate) fn put_entity(&mut self, entity: Entity) -> u32 {
        let (id, raw) = (id_hash(&entity.tenant, entity.meta.id.as_str()), entity.raw);
        let index = if let Some(index) = self.entities_free.pop() {
            self.entities[index as usize] = entity;
            index
        } else {
            self.entities.push(entity);
            (self.entities.len() - 1) as u32
        };
        self.entity_by_id.insert(id, index);
        self.entity_by_raw.insert(raw, index);
        index
    }

    fn origin(&mut self, tenant: &str, source: &str, now: Timestamp) -> u16 {
        let known = self.origins.iter().position(|o| &*o.source == source && &*o.tenant == tenant);
        // So many sources are one mistake; they share the last one's clock.
        if known.is_none() && self.origins.len() < usize::from(u16::MAX) {
            self.put_origin(tenant.into(), source.into(), i64::MIN, now.0);
        }
        let index = known.unwrap_or(self.origins.len() - 1);
        self.origins[index].last_now = now.0;
        index as u16
    }

    pub(crate) fn put_origin(&mut self, tenant: Arc<str>, source: Arc<str>, watermark: i64, last_now: i64) {
        let live = self.budget.counter(&tenant, &source);
        self.origins.push(Origin { tenant, source, watermark, last_now, series: 0, live });
    }

    /// First pass: a slot for each series of the batch. Batches of a scrape come in the same order every time and
    /// slots were given in that order, so the slot after the last one is tried before the table is.
    fn resolve_series(
        &mut self,
        batch: &BatchView<'_>,
        columns: &MetricColumns,
        origin: u16,
    ) -> Result<(), BatchError> {
        self.slots.clear();
        self.unknown.clear();
        let mut guess = 0usize;
        let (hot, table) = (&self.hot, &self.table);
        for (i, fp) in columns.fingerprint.iter().enumerate() {
            let slot = match hot.get(guess) {
                Some(h) if h.fp == *fp && h.is(USED) => guess as u32,
                _ => match table.find(*fp, |s| hot[*s as usize].fp == *fp) {
                    Some(slot) => *slot,
                    None => {
                        self.unknown.push(i as u32);
                        NO_SLOT
                    }
                },
            };
            guess = slot as usize + 1;
            self.slots.push(slot);
        }
        if self.unknown.is_empty() {
            return Ok(());
        }
        let unknown = std::mem::take(&mut self.unknown);
        let mut at = 0;
        let walked = batch.for_each_series(|i, labels| {
            if unknown.get(at).is_some_and(|u| *u as usize == i) {
                at += 1;
                self.slots[i] = self.admit(columns, i, labels, origin);
            }
            at < unknown.len()
        });
        let complete = at == unknown.len();
        self.unknown = unknown;
        walked?;
        if complete { Ok(()) } else { Err(BatchError::Dictionary) }
    }

    /// A slot for a series that was not there, unless the ceiling is reached.
    #[cold]
    fn admit(&mut self, columns: &MetricColumns, i: usize, labels: &[u8], origin: u16) -> u32 {
        let fp = columns.fingerprint[i];
        let hot = &self.hot;
        // The same series twice in one batch.
        if let Some(slot) = self.table.find(fp, |s| hot[*s as usize].fp == fp) {
            return *slot;
        }
        if !self.budget.acquire(&self.origins[usize::from(origin)].live) {
            return NO_SLOT;
        }
        let entity = self.batch_entities[columns.entity[i] as usize];
        self.insert(fp, entity, origin, columns.kind[i], labels)
    }

    /// Enters a series for which the budget was asked.
    pub(crate) fn insert(&mut self, fp: u64, entity: u32, origin: u16, kind: SeriesKind, wire: &[u8]) -> u32 {
        self.origins[usize::from(origin)].series += 1;
        self.entities[entity as usize].series += 1;
        let policy = self.policy(entity, kind, wire);
        let list = self.names.add(wire);
        self.labels_live += list.len();
        let mut hot = Hot::new(fp, policy, self.engine.tuned.risk);
        hot.set(LIMIT, self.policies[usize::from(policy)].limit.is_some());
        let meta = Meta { labels: list, entity, origin, kind };
        let slot = if let Some(slot) = self.free.pop() {
            self.hot[slot as usize] = hot;
            self.metas[slot as usize] = meta;
            slot
        } else {
            self.hot.push(hot);
            self.metas.push(meta);
            (self.hot.len() - 1) as u32
        };
        let hot = &self.hot;
        self.table.insert_unique(fp, slot, |s| hot[*s as usize].fp);
        slot
    }

    fn policy(&mut self, entity: u32, kind: SeriesKind, wire: &[u8]) -> u16 {
        let meta = &self.entities[entity as usize].meta;
        let metric = labels::metric_name(wire);
        let mut key = Vec::with_capacity(128);
        key.extend_from_slice(metric.as_bytes());
        key.extend_from_slice(&[0, meta.id.kind() as u8, u8::from(meta.synthetic), kind as u8]);
        let mut one_core = false;
        for (name, value) in labels::iter(wire).map_while(Result::ok) {
            one_core |= name == "cpu";
            if POLICY_LABELS.contains(&name) {
                key.extend_from_slice(name.as_bytes());
                key.push(1);
                key.extend_from_slice(value.as_bytes());
                key.push(2);
            }
        }
        key.push(u8::from(one_core));
        let hash = hash64(&key);
        if let Some(policy) = self.policy_of.get(&hash) {
            return *policy;
        }
        let policy = Policy::of(&self.engine.config, meta, kind, metric, |k| labels::get(wire, k));
        let index = match self.policies.iter().position(|p| *p == policy) {
            Some(index) => index,
            None if self.policies.len() < usize::from(u16::MAX) => {
                self.policies.push(policy);
                self.policies.len() - 1
            }
            None => 0,
        } as u16;
        // Names with ids in them would grow it for ever.
        if self.policy_of.len() >= 100_000 {
            self.policy_of.clear();
        }
        self.policy_of.insert(hash, index);
        index
    }

    /// Second pass: the samples, in order.
    fn rows(&mut self, columns: &MetricColumns, origin: u16, out: &mut Effects) -> StepStats {
        let mut stats = StepStats { samples: columns.value.len() as u64, ..StepStats::default() };
        stats.series_new = self.unknown.len() as u64;
        let oldest = self.origins[usize::from(origin)].watermark.saturating_sub(self.engine.tuned.late_ns);
        let idle = self.engine.tuned.idle_ns;
        let mut newest = i64::MIN;
        let mut row = 0usize;
        let mut touched = 0;
        for i in 0..self.slots.len() {
            if let Some(at) = columns.timestamp.get(row) {
                touched ^= self.slots.get(i + 1).map_or(0, |next| self.touch(*next, *at));
            }
            let (slot, n) = (self.slots[i], columns.rows[i] as usize);
            let (times, values) = (&columns.timestamp[row..row + n], &columns.value[row..row + n]);
            row += n;
            if slot == NO_SLOT {
                stats.over_ceiling += n as u64;
                stats.series_new -= 1;
                continue;
            }
            let slot = slot as usize;
            let kind = columns.kind[i];
            for (at, value) in times.iter().zip(values) {
                let (at, value) = (*at, *value);
                newest = newest.max(at);
                if at < oldest {
                    stats.too_old += 1;
                    continue;
                }
                let hot = &mut self.hot[slot];
                if hot.is(SEEN) && at.saturating_sub(hot.last_ts) > idle {
                    // Whether a sweep came in between must make no difference.
                    let ended = self.engine.end_all(hot);
                    self.engine.reset(hot);
                    self.tell(slot, &ended, out);
                }
                let hot = &mut self.hot[slot];
                let policy = &self.policies[usize::from(hot.policy)];
                let outcome = self.engine.observe(hot, policy, kind, at, value, &mut stats, false);
                if hot.n == 1 && self.warm.is_on() {
                    let entity = self.entities[self.metas[slot].entity as usize].meta.id.kind();
                    self.warm.seed(hot, entity, policy.reading.map(|r| r.family), kind, self.engine.tuned.risk);
                }
                let x = match outcome {
                    Outcome::Nothing => continue,
                    Outcome::Calm(x) => x,
                    Outcome::Look(scored) => {
                        let peers = self.entities[self.metas[slot].entity as usize].series;
                        if let Some(t) = self.engine.judge(hot, policy, &scored, peers) {
                            self.tell(slot, &[t], out);
                        }
                        scored.value
                    }
                };
                self.aside(slot, at, x, out);
            }
        }
        std::hint::black_box(touched);
        let entities = &mut self.entities;
        if newest > i64::MIN {
            for index in &self.batch_entities {
                let entity = &mut entities[*index as usize];
                entity.last = entity.last.max(newest);
            }
        }
        let origin = &mut self.origins[usize::from(origin)];
        origin.watermark = origin.watermark.max(newest);
        stats
    }

    /// Looks at the ensemble of the series that comes next, so that its memory is on the way.
    #[inline(always)]
    fn touch(&self, slot: u32, at: i64) -> u32 {
        let hot = self.hot.get(slot as usize).filter(|h| self.engine.tuned.wants(h));
        let cold = hot.map_or(NO_COLD, |h| h.cold);
        self.engine.ensembles.get(cold as usize).map_or(0, |e| e.touch(at))
    }

    /// What only few series need: trend, features, the end of an absence.
    #[inline(always)]
    fn aside(&mut self, slot: usize, at: i64, x: f64, out: &mut Effects) {
        let hot = &mut self.hot[slot];
        let policy = &self.policies[usize::from(hot.policy)];
        if policy.feature.is_none() && hot.flags & (LIMIT | ABSENT) == 0 {
            return;
        }
        self.aside_cold(slot, at, x, out);
    }

    #[cold]
    #[inline(never)]
    fn aside_cold(&mut self, slot: usize, at: i64, x: f64, out: &mut Effects) {
        let hot = &mut self.hot[slot];
        let policy = &self.policies[usize::from(hot.policy)];
        if let Some(field) = policy.feature {
            self.features.sample(self.metas[slot].entity, field, at, x, f64::from(hot.interval));
        }
        let mut told = [None, None];
        if hot.is(LIMIT) {
            told[0] = self.engine.look_ahead(hot, policy, at, x);
        }
        if hot.is(ABSENT) {
            hot.set(ABSENT, false);
            told[1] = self.engine.alarms.remove(&(hot.fp, AlarmKind::Absence)).map(|mut alarm| {
                alarm.last = at;
                Transition { kind: AlarmKind::Absence, phase: Phase::Closed, alarm }
            });
        }
        for t in told.into_iter().flatten() {
            self.tell(slot, &[t], out);
        }
    }

    pub(crate) fn tell(&self, slot: usize, transitions: &[Transition], out: &mut Effects) {
        let meta = &self.metas[slot];
        let (entity, origin) = (&self.entities[meta.entity as usize], &self.origins[usize::from(meta.origin)]);
        for t in transitions {
            let labels = self.names.get(meta.labels);
            let policy = &self.policies[usize::from(self.hot[slot].policy)];
            let (tenant, source) = (&*entity.tenant, &*origin.source);
            let mut anomaly = record(&Subject { tenant, source, entity: &entity.meta, labels: &labels, policy }, t);
            self.warm.explain(&self.hot[slot], &mut anomaly.explanation);
            out.anomalies.push(anomaly);
        }
    }

    /// Open alarms, for tests and the status page.
    pub fn alarms_open(&self) -> usize {
        self.engine.alarms.len()
    }
}

impl Drop for ShardDetector {
    /// The shard moves to another worker or the process ends: its series no longer count here.
    fn drop(&mut self) {
        for origin in &self.origins {
            origin.live.fetch_sub(origin.series, Ordering::Relaxed);
        }
    }
}
