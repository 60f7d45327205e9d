//! What sees every batch beside the detector: the learner, and the detectors of the version on trial.

use crate::agents::Tap;
use nightshift_detect::models::trial::Finding;
use nightshift_detect::models::{Learner, WarmStart};
use nightshift_detect::{Effects, MetricsConfig, SeriesBudget, ShardDetector};
use nightshift_model::batch::{BatchView, MetricColumns};
use nightshift_model::{Anomaly, AnomalyKind, Clock, Phase, SHARDS, Timestamp};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::sync::Arc;

/// Alarms of each model that a trial keeps; the oldest leave first.
const FINDINGS_MAX: usize = 20_000;
/// Least score of an alarm that counts: below is a line in the log.
const SCORE_MIN: f64 = 0.5;

/// What both models of a trial said.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Findings {
    /// The version on trial; 0 for none.
    pub(super) version: u32,
    /// Since when.
    pub(super) since: Timestamp,
    /// Event time of the oldest reading of the first batch: incidents of before were not seen by both.
    #[serde(default)]
    pub(super) from: Option<Timestamp>,
    /// Of the active model.
    pub(super) active: Vec<Finding>,
    /// Of the version on trial.
    pub(super) shadow: Vec<Finding>,
}

/// Detectors of the version on trial. One stands for all shards: it makes no difference to a series.
struct Shadow {
    version: u32,
    detector: ShardDetector,
    effects: Effects,
}

/// The learner and the trial.
pub(super) struct ModelTap {
    clock: Arc<dyn Clock>,
    learner: Mutex<Learner>,
    shadow: Mutex<Option<Shadow>>,
    findings: Mutex<Findings>,
    /// When the active model's alarms of the last days began, for the retrain; oldest first.
    alarms: Mutex<VecDeque<Timestamp>>,
}

/// Whether it is an alarm of the metric layers that somebody hears of.
fn counts(a: &Anomaly) -> bool {
    let statistical = matches!(a.kind, AnomalyKind::Statistical | AnomalyKind::Capacity);
    statistical && !a.entity.synthetic && a.score >= SCORE_MIN
}

fn keep(of: &mut Vec<Finding>, anomalies: &[Anomaly]) {
    for a in anomalies {
        if !counts(a) {
            continue;
        }
        let id = a.id.to_string();
        // Newest first: what is told anew was told not long ago.
        if let Some(known) = of.iter_mut().rev().find(|f| f.id == id) {
            known.last = known.last.max(a.last_seen);
            known.score = known.score.max(a.score);
        } else if a.phase != Phase::Closed {
            let entity = a.entity.id.to_string();
            of.push(Finding { id, entity, onset: a.onset, last: a.last_seen, score: a.score });
        }
    }
    let over = of.len().saturating_sub(FINDINGS_MAX);
    of.drain(..over);
}

impl Findings {
    /// Event time since which both models saw everything.
    pub(super) fn from(&self) -> Timestamp {
        self.from.unwrap_or(self.since)
    }
}

impl ModelTap {
    pub(super) fn new(learner: Learner, clock: Arc<dyn Clock>, findings: Findings) -> Self {
        let (learner, findings) = (Mutex::new(learner), Mutex::new(findings));
        Self { clock, learner, shadow: Mutex::new(None), findings, alarms: Mutex::default() }
    }

    pub(super) fn with_learner<T>(&self, f: impl FnOnce(&mut Learner) -> T) -> T {
        f(&mut self.learner.lock())
    }

    /// The version on trial.
    pub(super) fn on_trial(&self) -> Option<u32> {
        self.shadow.lock().as_ref().map(|s| s.version)
    }

    /// Alarms of the active model since then, as far as this process saw them.
    pub(super) fn alarms_since(&self, since: Timestamp) -> usize {
        self.alarms.lock().iter().filter(|at| **at >= since).count()
    }

    pub(super) fn findings(&self) -> Findings {
        self.findings.lock().clone()
    }

    /// What must outlive the process.
    pub(super) fn put_away(&self) -> (Findings, Option<Vec<u8>>) {
        let state = self.shadow.lock().as_ref().map(|s| s.detector.snapshot());
        (self.findings(), state)
    }

    /// From now on this version is on trial; `state`: its detectors as they were put away.
    pub(super) fn begin_trial(
        &self,
        version: u32,
        mut config: MetricsConfig,
        warm: Option<Arc<WarmStart>>,
        since: Timestamp,
        state: Option<Vec<u8>>,
    ) {
        // One detector has the share of seasons that all shards have.
        config.forecast.series_max = config.forecast.series_max.saturating_mul(SHARDS).min(100_000_000);
        let config = Arc::new(config);
        let budget = || Arc::new(SeriesBudget::new(u64::from(config.series_max)));
        let restored = state.and_then(|bytes| ShardDetector::restore(config.clone(), budget(), &bytes).ok());
        let mut detector = restored.unwrap_or_else(|| ShardDetector::new(config.clone(), budget(), 0));
        detector.set_warm(warm);
        *self.shadow.lock() = Some(Shadow { version, detector, effects: Effects::default() });
        let mut findings = self.findings.lock();
        if findings.version != version {
            *findings = Findings { version, since, ..Findings::default() };
        }
    }

    pub(super) fn end_trial(&self) {
        *self.shadow.lock() = None;
        *self.findings.lock() = Findings::default();
    }

    /// Time passed, for the detectors on trial.
    pub(super) fn tick(&self, now: Timestamp) {
        if let Some(shadow) = &mut *self.shadow.lock() {
            shadow.detector.tick(now, &mut shadow.effects);
            keep(&mut self.findings.lock().shadow, &shadow.effects.anomalies);
            shadow.effects.clear();
        }
    }
}

impl Tap for ModelTap {
    fn batch(&self, tenant: &str, view: &BatchView<'_>, columns: &MetricColumns) {
        self.learner.lock().batch(tenant, view, columns);
        if let Some(shadow) = &mut *self.shadow.lock() {
            let mut findings = self.findings.lock();
            findings.from = findings.from.or_else(|| columns.timestamp.iter().min().map(|t| Timestamp(*t)));
            drop(findings);
            // Told by the active detector already when it is broken.
            let _ = shadow.detector.step(tenant, &mut view.clone(), self.clock.now(), &mut shadow.effects);
            keep(&mut self.findings.lock().shadow, &shadow.effects.anomalies);
            shadow.effects.clear();
        }
    }

    fn found(&self, anomalies: &[Anomaly]) {
        let mut alarms = self.alarms.lock();
        let counts = |a: &&Anomaly| counts(a) && a.phase == Phase::Open;
        alarms.extend(anomalies.iter().filter(counts).map(|a| a.onset));
        let over = alarms.len().saturating_sub(FINDINGS_MAX);
        alarms.drain(..over);
        drop(alarms);
        if self.shadow.lock().is_some() {
            keep(&mut self.findings.lock().active, anomalies);
        }
    }
}
