//! What the detector hands to the incident agent of the same process, beside the bus: readings of the KPIs that a
//! verification waits for, and the minutes from which error budgets are counted. The other way go the objectives that
//! the topology declares, for the detector of burning budgets.
//!
//! Nothing here is state: what is lost in a crash comes again with the next sample. While no KPI is watched, a batch
//! costs one look at an atomic.

use nightshift_detect::FeatureRow;
use nightshift_detect::slo::Objectives;
use nightshift_model::batch::{BatchView, MetricColumns, SeriesKind, labels};
use nightshift_model::{Anomaly, EntityId, Kpi, Slo, Timestamp};
use parking_lot::Mutex;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use tokio::sync::Notify;

/// Readings and minutes that wait at most; beyond it the oldest go, and newer ones of the same follow.
const WAITING_MAX: usize = 65_536;

/// One reading of a watched KPI: the value of a level, the rate per second of a counter.
#[derive(Debug, Clone, PartialEq)]
pub struct Reading {
    /// Tenant.
    pub tenant: String,
    /// Of what.
    pub kpi: Kpi,
    /// When the sample was taken.
    pub at: Timestamp,
    /// In the unit of the signal.
    pub value: f64,
}

/// Sees every batch that the detector steps: what learns from telemetry without being a detector.
pub trait Tap: Send + Sync {
    /// One batch of a tenant, with its columns.
    fn batch(&self, tenant: &str, view: &BatchView<'_>, columns: &MetricColumns);

    /// What the detector found, as it found it.
    fn found(&self, _anomalies: &[Anomaly]) {}
}

/// One KPI that somebody waits for.
#[derive(Debug, Default, Clone, Copy)]
struct Watch {
    /// The sample before, of a counter.
    last: Option<(Timestamp, f64)>,
}

/// The hand-over. One per process; all clones of the `Arc` are the same.
#[derive(Default)]
pub struct Feed {
    watched: Mutex<BTreeMap<(String, Kpi), Watch>>,
    /// Size of `watched`, read without the lock.
    any: AtomicUsize,
    readings: Mutex<VecDeque<Reading>>,
    minutes: Mutex<VecDeque<FeatureRow>>,
    objectives: Mutex<Arc<Objectives>>,
    /// Counts changes of `objectives`, read without the lock.
    objectives_told: AtomicU64,
    taps: Mutex<Arc<[Arc<dyn Tap>]>>,
    wake: Notify,
    journal: Notify,
}

impl Feed {
    /// From now on readings of these KPIs of a tenant are waited for, and of no others.
    pub fn watch<'a>(&self, tenant: &str, kpis: impl IntoIterator<Item = &'a Kpi>) {
        let mut watched = self.watched.lock();
        let before: BTreeMap<Kpi, Watch> =
            watched.extract_if(.., |(of, _), _| of == tenant).map(|((_, k), w)| (k, w)).collect();
        for kpi in kpis {
            let known = before.get(kpi).copied().unwrap_or_default();
            watched.insert((tenant.to_owned(), kpi.clone()), known);
        }
        self.any.store(watched.len(), Ordering::Release);
    }

    /// Nobody waits any more: an agent that starts over asks anew.
    pub fn clear(&self) {
        self.watched.lock().clear();
        self.any.store(0, Ordering::Release);
        self.readings.lock().clear();
    }

    /// From now on these are a tenant's objectives, by entity.
    pub fn set_objectives(&self, tenant: &str, of: BTreeMap<EntityId, Vec<Slo>>) {
        let mut objectives = self.objectives.lock();
        let mut changed = (**objectives).clone();
        changed.set(tenant, of);
        *objectives = Arc::new(changed);
        self.objectives_told.fetch_add(1, Ordering::Release);
    }

    /// The objectives, and how often they were told; `None` if that is no more often than `known`. 0: never.
    pub fn objectives_after(&self, known: u64) -> Option<(u64, Arc<Objectives>)> {
        let told = self.objectives_told.load(Ordering::Acquire);
        (told != known).then(|| (told, Arc::clone(&self.objectives.lock())))
    }

    /// Adds somebody who sees every batch.
    pub fn tap(&self, tap: Arc<dyn Tap>) {
        let mut taps = self.taps.lock();
        *taps = taps.iter().cloned().chain([tap]).collect();
    }

    /// Takes in what the detector found.
    pub fn found(&self, anomalies: &[Anomaly]) {
        if anomalies.is_empty() {
            return;
        }
        let taps = self.taps.lock().clone();
        for tap in taps.iter() {
            tap.found(anomalies);
        }
    }

    /// Takes in a batch that the detector stepped.
    pub fn batch(&self, tenant: &str, view: &BatchView<'_>, columns: &MetricColumns) {
        let taps = self.taps.lock().clone();
        for tap in taps.iter() {
            tap.batch(tenant, view, columns);
        }
        if self.any.load(Ordering::Acquire) == 0 || columns.fingerprint.is_empty() {
            return;
        }
        let mut watched = self.watched.lock();
        let mut found = Vec::new();
        let mut row = 0;
        // A broken dictionary was told by the detector already; here it gives no readings.
        let _ = view.for_each_series(|i, bytes| {
            let rows = row..row + columns.rows.get(i).map_or(0, |r| *r as usize);
            row = rows.end;
            let name = labels::metric_name(bytes);
            for ((of, kpi), watch) in watched.iter_mut() {
                let same = of == tenant
                    && kpi.signal.as_bytes() == name.as_bytes()
                    && kpi.labels.iter().all(|(k, v)| labels::get(bytes, k) == Some(v.as_str()))
                    && columns
                        .entity
                        .get(i)
                        .and_then(|e| view.entity(*e).ok())
                        .is_some_and(|meta| meta.id == kpi.entity);
                if !same {
                    continue;
                }
                let kind = columns.kind.get(i).copied().unwrap_or_default();
                for k in rows.clone() {
                    let (Some(at), Some(value)) = (columns.timestamp.get(k), columns.value.get(k)) else { break };
                    if let Some(value) = watch.read(Timestamp(*at), *value, kind) {
                        let (tenant, kpi, at) = (of.clone(), kpi.clone(), Timestamp(*at));
                        found.push(Reading { tenant, kpi, at, value });
                    }
                }
            }
            true
        });
        drop(watched);
        if !found.is_empty() {
            let mut readings = self.readings.lock();
            readings.extend(found);
            let over = readings.len().saturating_sub(WAITING_MAX);
            readings.drain(..over);
            drop(readings);
            self.wake();
        }
    }

    /// Takes in the minutes that closed.
    pub fn minutes(&self, rows: impl IntoIterator<Item = FeatureRow>) {
        let mut minutes = self.minutes.lock();
        minutes.extend(rows);
        let over = minutes.len().saturating_sub(WAITING_MAX);
        minutes.drain(..over);
    }

    /// Readings since the last call, oldest first.
    pub fn take_readings(&self) -> VecDeque<Reading> {
        std::mem::take(&mut *self.readings.lock())
    }

    /// Minutes since the last call.
    pub fn take_minutes(&self) -> VecDeque<FeatureRow> {
        std::mem::take(&mut *self.minutes.lock())
    }

    /// Ends the wait of the incident agent: there is something for it.
    pub fn wake(&self) {
        self.wake.notify_one();
    }

    /// Tells the relay that the journal grew.
    pub fn journal_grew(&self) {
        self.journal.notify_one();
    }

    /// Waits until the journal grew.
    pub async fn journal_grown(&self) {
        self.journal.notified().await;
    }

    /// Waits until there is something for the incident agent.
    pub async fn woken(&self) {
        self.wake.notified().await;
    }
}

impl Watch {
    fn read(&mut self, at: Timestamp, value: f64, kind: SeriesKind) -> Option<f64> {
        let before = self.last.replace((at, value));
        match kind {
            SeriesKind::Gauge => Some(value),
            SeriesKind::Counter | SeriesKind::Delta => {
                let (then, was) = before.filter(|(then, _)| *then < at)?;
                let grown = match kind {
                    SeriesKind::Delta => value,
                    // It began again at zero.
                    _ if value < was => value,
                    _ => value - was,
                };
                Some(grown / at.since(then).as_secs_f64())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nightshift_model::batch::BatchBuilder;
    use nightshift_model::{EntityId, EntityMeta};

    fn kpi(name: &str) -> Kpi {
        Kpi { entity: EntityId::new("c", "service", "", name), signal: "depth".into(), labels: BTreeMap::new() }
    }

    fn step(feed: &Feed, service: &str, kind: SeriesKind, samples: &[(i64, f64)]) {
        let mut batch = BatchBuilder::default();
        let entity = batch.entity(&EntityMeta::bare(EntityId::new("c", "service", "", service)));
        batch.series(1, entity, kind, &labels::encode([(labels::NAME, "depth"), ("queue", "q")]));
        for (at, value) in samples {
            batch.sample(Timestamp::from_secs(*at), *value);
        }
        let payload = batch.finish("test");
        let mut view = BatchView::parse(&payload).unwrap();
        let mut columns = MetricColumns::default();
        view.metrics(&mut columns).unwrap();
        feed.batch("default", &view, &columns);
    }

    #[test]
    fn only_what_is_watched_is_read_and_counters_become_rates() {
        let feed = Feed::default();
        step(&feed, "a", SeriesKind::Gauge, &[(1, 5.0)]);
        assert!(feed.take_readings().is_empty());
        let other = Kpi { labels: [("queue".into(), "other".into())].into(), ..kpi("a") };
        feed.watch("default", [&kpi("a"), &other]);
        step(&feed, "a", SeriesKind::Gauge, &[(2, 6.0), (3, 7.0)]);
        step(&feed, "b", SeriesKind::Gauge, &[(2, 9.0)]);
        let values: Vec<f64> = feed.take_readings().iter().map(|r| r.value).collect();
        assert_eq!(values, [6.0, 7.0]);
        feed.watch("default", [&kpi("b")]);
        step(&feed, "b", SeriesKind::Counter, &[(10, 100.0), (12, 120.0), (14, 4.0)]);
        let values: Vec<f64> = feed.take_readings().iter().map(|r| r.value).collect();
        assert_eq!(values, [10.0, 2.0]);
        feed.watch("default", []);
        step(&feed, "b", SeriesKind::Counter, &[(16, 9.0)]);
        assert!(feed.take_readings().is_empty());
    }
}
