//! Recorded series through the detectors, row by row: the path of production on one series, without names.
//!
//! Lives here: [`SeriesBacktest`]. Files, formats and the command line are the caller's.

use crate::metrics::{AlarmKind, Engine, Hot, Layer, MetricsConfig, Outcome, Policy, StepStats, score_of};
use nightshift_model::batch::SeriesKind;
use nightshift_model::{Direction, Phase, Timestamp};
use std::sync::Arc;

/// What the detectors say of one row.
#[derive(Debug, Clone, PartialEq)]
pub struct RowVerdict {
    /// 0..=1, comparable across series: 0.5 is the threshold of an alarm.
    pub score: f64,
    /// An alarm is raised on this row, or one that is open became more severe.
    pub alert: bool,
    /// An alarm is open.
    pub active: bool,
    /// What was expected; `None` before the series is known.
    pub expected: Option<f64>,
    /// `spike`, `drop`, `drift`, `flatline`; empty when nothing is off.
    pub kind: &'static str,
}

/// One series under test. It knows nothing of what it measures: both sides count.
#[derive(Debug)]
pub struct SeriesBacktest {
    engine: Engine,
    hot: Hot,
    policy: Policy,
    kind: SeriesKind,
    last: Option<Timestamp>,
}

impl SeriesBacktest {
    /// A fresh series of gauge values under this configuration.
    pub fn new(config: &MetricsConfig) -> Self {
        let engine = Engine::new(Arc::new(config.clone()), 1);
        let policy = Policy::neutral(config.zscore.sensitivity.sigma(), config);
        let hot = Hot::new(0, 0, engine.tuned.risk);
        Self { engine, hot, policy, kind: SeriesKind::Gauge, last: None }
    }

    /// The next row; `None`: its value is missing. Rows that are not newer than the one before are not learned.
    pub fn row(&mut self, at: Timestamp, value: Option<f64>) -> RowVerdict {
        let active = |this: &Self| !this.engine.alarms.is_empty();
        let nothing =
            |this: &Self| RowVerdict { score: 0.0, alert: false, active: active(this), expected: None, kind: "" };
        let Some(value) = value else { return nothing(self) };
        self.last = Some(at);
        let mut stats = StepStats::default();
        let outcome = self.engine.observe(&mut self.hot, &self.policy, self.kind, at.0, value, &mut stats, true);
        let Outcome::Look(scored) = outcome else { return nothing(self) };
        let told = self.engine.judge(&mut self.hot, &self.policy, &scored, 1);
        let alert = told.is_some_and(|t| matches!(t.phase, Phase::Open | Phase::Update));
        let open = self.engine.alarms.iter().next().map(|((_, kind), alarm)| (*kind, *alarm));
        let kind = match open {
            Some((AlarmKind::Flat, _)) => "flatline",
            Some((_, a)) if a.layer == Layer::Ewma => "drift",
            Some((_, a)) if a.direction == Direction::Down => "drop",
            Some(_) => "spike",
            None => "",
        };
        if let Some(verdict) = &scored.verdict {
            let score = if alert { f64::from(verdict.score).max(0.5) } else { f64::from(verdict.score).min(0.49) };
            return RowVerdict { score, alert, active: active(self), expected: Some(scored.expected), kind };
        }
        // One alarm is one detection: what an open alarm goes on showing, or what is too short for one, stays below it.
        let score = if alert { open.map_or(0.5, |(_, a)| a.score) } else { score_of(scored.ratio).min(0.49) };
        RowVerdict { score, alert, active: active(self), expected: Some(scored.expected), kind }
    }
}
