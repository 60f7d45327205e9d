//! From readings that are off to alarms: one event is one alarm.
//!
//! - **Run.** A reading beyond the series' sigma begins a run (its time is the onset); two calm ones in a row end it.
//! - **Open.** A run opens an alarm when enough of its readings are beyond the threshold and it lasted long enough for
//!   its policy; on what is no host, one extreme reading is enough.
//! - **Many series.** An entity with n series draws n times as often. Beyond the threshold the tail of a distance is
//!   about exponential, so that a risk n times smaller lies ln(n) mean excesses further out: thresholds are raised by
//!   8 % for each unit of ln(n), n being the live series of the entity in this shard.
//! - **Stay.** It stays open while readings are beyond sigma and 60 % of the threshold; it is told again only when it
//!   becomes more severe.
//! - **Decided.** Where the ensemble knows a series, it says what opens an alarm and what is told again; the rest here
//!   keeps the alarm and closes it.
//! - **Close.** After `calm_points` calm readings; or as the new normal after `relearn_secs` of the same.

use super::engine::{Engine, Layer, Scored};
use super::ensemble::{Verdict, Witness};
use super::hot::{ACTIVE, CAPACITY, FLAT, Hot, UP};
use super::policy::Policy;
use super::trend::{self, Sight};
use nightshift_model::time::NANOS_PER_SEC;
use nightshift_model::{Direction, Phase, Severity};

/// Raise of the threshold for each unit of ln(series of the entity).
const PER_LN_SERIES: f32 = 0.08;
/// Share of the threshold below which a reading of an open alarm is calm.
const STAY: f32 = 0.6;
/// Score of a series that does not change any more.
const FLAT_SCORE: f64 = 0.6;
/// Weight of a new reading in the mean of a departure.
const RUN_WEIGHT: f64 = 0.1;
/// Time that a limit must stay in sight, ns.
const SIGHT_NS: i64 = 300 * NANOS_PER_SEC;

/// What an alarm is about: a series has at most one of each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(crate) enum AlarmKind {
    Departure = 0,
    Flat = 1,
    Capacity = 2,
    Absence = 3,
}

impl AlarmKind {
    pub(crate) const fn from_u8(v: u8) -> Option<Self> {
        Some(match v {
            0 => Self::Departure,
            1 => Self::Flat,
            2 => Self::Capacity,
            3 => Self::Absence,
            _ => return None,
        })
    }
}

/// An open alarm: the numbers of its worst reading.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Alarm {
    pub(crate) onset: i64,
    pub(crate) last: i64,
    pub(crate) calm_since: i64,
    pub(crate) score: f64,
    pub(crate) direction: Direction,
    pub(crate) layer: Layer,
    pub(crate) value: f64,
    pub(crate) expected: f64,
    pub(crate) scale: f64,
    pub(crate) distance: f32,
    pub(crate) threshold: f32,
    pub(crate) ratio: f32,
    pub(crate) z: f32,
    pub(crate) forecast: f32,
    pub(crate) chart: f32,
    /// Readings known when it opened.
    pub(crate) points: u32,
    /// Readings of the departure.
    pub(crate) samples: u32,
    /// Mean and mean absolute deviation of the departure.
    pub(crate) mean: f64,
    pub(crate) mad: f64,
    /// Seconds until the limit, and the limit (capacity); seconds of silence (absence).
    pub(crate) eta_secs: f64,
    pub(crate) limit: f64,
    /// Evidence of the ensemble (-log10 of a probability; NaN: it did not decide) and who gave it.
    pub(crate) evidence: f32,
    pub(crate) witness: Witness,
    /// Closed because the departure is the new normal.
    pub(crate) relearned: bool,
}

/// Something to tell.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Transition {
    pub(crate) kind: AlarmKind,
    pub(crate) phase: Phase,
    pub(crate) alarm: Alarm,
}

/// Score of a distance `ratio` times the threshold: 0.5 at 1, 0.9 at 3, 0.97 at 6, towards 1. Below 1 it falls with
/// the square, so that scores order readings that are no alarm, too.
pub(crate) fn score_of(ratio: f32) -> f64 {
    let r = f64::from(ratio.max(0.0));
    if r < 1.0 { 0.5 * r * r } else { 1.0 - 0.5 * r.powf(-1.465) }
}

impl Engine {
    /// Decides on a reading that stands out. `peers`: live series of the entity.
    pub(crate) fn judge(&mut self, hot: &mut Hot, policy: &Policy, s: &Scored, peers: u32) -> Option<Transition> {
        let raise = 1.0 + PER_LN_SERIES * (peers.max(1) as f32).ln();
        let ratio = s.ratio / raise;
        if hot.is(FLAT) {
            return self.flat_on(hot, s);
        }
        if hot.is(ACTIVE) {
            return self.stay(hot, policy, s, ratio);
        }
        if s.flat {
            return Some(self.flat_open(hot, policy, s));
        }
        if let Some(verdict) = &s.verdict {
            (hot.run, hot.strong, hot.calm) = (0, 0, 0);
            return verdict.alert.then(|| self.decided(hot, policy, s, verdict, ratio));
        }
        let upwards = if s.layer == Layer::Ewma { s.chart > 0.0 } else { s.distance > 0.0 };
        if s.off {
            if hot.run == 0 || hot.upwards() != upwards {
                hot.onset = s.at;
                hot.run = 0;
                hot.strong = 0;
                hot.set(UP, upwards);
            }
            hot.run = hot.run.saturating_add(1);
            hot.strong = hot.strong.saturating_add(u8::from(ratio >= 1.0));
            hot.calm = 0;
        } else if hot.run > 0 {
            hot.calm += 1;
            if hot.calm >= 2 {
                (hot.run, hot.strong, hot.calm) = (0, 0, 0);
            }
            return None;
        } else {
            return None;
        }
        let lasted = hot.strong >= policy.need && s.at.saturating_sub(hot.onset) >= policy.need_ns;
        // A value that is only at odds with its phase, and ordinary for the series, takes more than one reading: a season
        // that is a little off is always off at its steepest places.
        let out_of_phase = s.layer == Layer::Forecast && s.z.abs() < policy.sigma;
        let extreme = policy.single && !s.from_flat && !out_of_phase && f64::from(ratio) >= self.config.extreme_ratio;
        if ratio < 1.0 || !(lasted || extreme) {
            return None;
        }
        let risk = self.tuned.risk;
        match s.layer {
            Layer::Ewma => hot.chart_usual += 0.25 * (s.chart.abs() - hot.chart_usual).max(0.0),
            _ if upwards => hot.up.event(s.distance.abs(), risk),
            _ => hot.down.event(s.distance.abs(), risk),
        }
        let score = score_of(ratio).min(policy.ceiling(s.value, upwards));
        Some(self.open(hot, s, ratio, score, upwards))
    }

    /// The ensemble says that an event begins.
    fn decided(&mut self, hot: &mut Hot, policy: &Policy, s: &Scored, v: &Verdict, ratio: f32) -> Transition {
        let upwards = match v.witness {
            Witness::Shape => s.distance >= 0.0,
            other => other.upwards(),
        };
        hot.onset = s.at;
        hot.run = 1;
        hot.set(UP, upwards);
        let score = f64::from(v.score).max(score_of(ratio)).min(policy.ceiling(s.value, upwards));
        let s = Scored { layer: Layer::Ensemble, ..*s };
        let mut t = self.open(hot, &s, ratio, score, upwards);
        if let Some(alarm) = self.alarms.get_mut(&(hot.fp, AlarmKind::Departure)) {
            (alarm.evidence, alarm.witness) = (v.evidence, v.witness);
            t.alarm = *alarm;
        }
        t
    }

    fn open(&mut self, hot: &mut Hot, s: &Scored, ratio: f32, score: f64, upwards: bool) -> Transition {
        hot.set(ACTIVE, true);
        hot.calm = 0;
        let alarm = Alarm {
            onset: hot.onset,
            last: s.at,
            calm_since: s.at,
            score,
            direction: if upwards { Direction::Up } else { Direction::Down },
            layer: s.layer,
            value: s.value,
            expected: s.expected,
            scale: s.scale,
            distance: s.distance,
            threshold: s.threshold,
            ratio,
            z: s.z,
            forecast: s.forecast,
            chart: s.chart,
            points: hot.n.saturating_sub(1),
            samples: u32::from(hot.run),
            mean: s.value,
            mad: 0.0,
            eta_secs: f64::NAN,
            limit: f64::NAN,
            evidence: f32::NAN,
            witness: Witness::High,
            relearned: false,
        };
        self.alarms.insert((hot.fp, AlarmKind::Departure), alarm);
        Transition { kind: AlarmKind::Departure, phase: Phase::Open, alarm }
    }

    fn stay(&mut self, hot: &mut Hot, policy: &Policy, s: &Scored, ratio: f32) -> Option<Transition> {
        let config = std::sync::Arc::clone(&self.config);
        let kind = AlarmKind::Departure;
        let Some(alarm) = self.alarms.get_mut(&(hot.fp, kind)) else {
            hot.set(ACTIVE, false);
            return None;
        };
        if let Some(v) = s.verdict.filter(|v| v.alert) {
            // Another event in the midst of one, clearly bigger: it is told.
            hot.calm = 0;
            alarm.last = s.at;
            alarm.score = alarm.score.max(f64::from(v.score).min(policy.ceiling(s.value, s.distance > 0.0)));
            (alarm.evidence, alarm.witness, alarm.layer) = (v.evidence, v.witness, Layer::Ensemble);
            (alarm.value, alarm.expected, alarm.scale) = (s.value, s.expected, s.scale);
            return Some(Transition { kind, phase: Phase::Update, alarm: *alarm });
        }
        // The chart forgets slowly: by itself it keeps nothing open.
        let own = s.distance.abs() / s.threshold;
        let calm = !s.off || (own < STAY && s.distance.abs() < 2.0 * policy.sigma);
        let upwards = s.distance > 0.0;
        if calm {
            if hot.calm == 0 {
                alarm.calm_since = s.at;
            }
            hot.calm = hot.calm.saturating_add(1);
            let quiet = s.at.saturating_sub(alarm.calm_since) >= policy.need_ns;
            if u32::from(hot.calm) < config.calm_points || !quiet {
                return None;
            }
            let mut alarm = self.alarms.remove(&(hot.fp, kind))?;
            alarm.last = alarm.calm_since;
            self.close(hot);
            return Some(Transition { kind, phase: Phase::Closed, alarm });
        }
        hot.calm = 0;
        alarm.last = s.at;
        alarm.samples = alarm.samples.saturating_add(1);
        let off = s.value - alarm.mean;
        alarm.mean += RUN_WEIGHT * off;
        alarm.mad += RUN_WEIGHT * (off.abs() - alarm.mad);
        let lasted = s.at.saturating_sub(alarm.onset) >= i64::from(config.relearn_secs) * NANOS_PER_SEC;
        // Only the forecast still complains: the level moved within what is usual for the series.
        let only_forecast = s.z.abs() < policy.sigma && alarm.samples >= config.relearn_points / 2;
        if (lasted && alarm.samples >= config.relearn_points) || only_forecast {
            let mut alarm = self.alarms.remove(&(hot.fp, kind))?;
            alarm.relearned = true;
            let (mean, mad) = if only_forecast && !lasted {
                (alarm.mean, alarm.mad.max(f64::from(hot.lscale)))
            } else {
                (alarm.mean, alarm.mad)
            };
            self.close(hot);
            self.relearn(hot, mean, mad);
            return Some(Transition { kind, phase: Phase::Closed, alarm });
        }
        let score = score_of(ratio).min(policy.ceiling(s.value, upwards));
        if score <= alarm.score || (upwards != (alarm.direction == Direction::Up)) {
            return None;
        }
        // Where the ensemble decides, it says what is told.
        let worse = s.verdict.is_none() && Severity::from_score(score) > Severity::from_score(alarm.score);
        alarm.score = score;
        (alarm.value, alarm.expected, alarm.scale) = (s.value, s.expected, s.scale);
        (alarm.distance, alarm.threshold, alarm.ratio, alarm.layer) = (s.distance, s.threshold, ratio, s.layer);
        (alarm.z, alarm.forecast, alarm.chart) = (s.z, s.forecast, s.chart);
        worse.then_some(Transition { kind, phase: Phase::Update, alarm: *alarm })
    }

    fn close(&mut self, hot: &mut Hot) {
        hot.set(ACTIVE, false);
        (hot.run, hot.strong, hot.calm) = (0, 0, 0);
        // What brought it up is over; what is left in the chart would open the next one.
        hot.chart = 0.0;
    }

    fn flat_open(&mut self, hot: &mut Hot, policy: &Policy, s: &Scored) -> Transition {
        hot.set(FLAT, true);
        (hot.run, hot.strong, hot.calm) = (0, 0, 0);
        let run_ns = f64::from(hot.interval) * f64::from(hot.same) * NANOS_PER_SEC as f64;
        let alarm = Alarm {
            onset: s.at.saturating_sub(run_ns as i64),
            last: s.at,
            calm_since: s.at,
            score: FLAT_SCORE.min(policy.cap),
            direction: Direction::Flat,
            layer: Layer::Flatline,
            value: s.value,
            expected: s.expected,
            scale: s.scale,
            distance: s.distance,
            threshold: s.threshold,
            ratio: s.ratio,
            z: s.z,
            forecast: s.forecast,
            chart: s.chart,
            points: hot.n.saturating_sub(1),
            samples: u32::from(hot.same),
            mean: s.value,
            mad: 0.0,
            eta_secs: f64::NAN,
            limit: f64::NAN,
            evidence: f32::NAN,
            witness: Witness::High,
            relearned: false,
        };
        self.alarms.insert((hot.fp, AlarmKind::Flat), alarm);
        Transition { kind: AlarmKind::Flat, phase: Phase::Open, alarm }
    }

    fn flat_on(&mut self, hot: &mut Hot, s: &Scored) -> Option<Transition> {
        let kind = AlarmKind::Flat;
        let Some(alarm) = self.alarms.get_mut(&(hot.fp, kind)) else {
            hot.set(FLAT, false);
            return None;
        };
        alarm.samples = alarm.samples.saturating_add(1);
        let relearned = s.at.saturating_sub(alarm.onset) >= i64::from(self.config.relearn_secs) * NANOS_PER_SEC
            && alarm.samples >= self.config.relearn_points;
        if hot.same > 0 && !relearned {
            alarm.last = s.at;
            return None;
        }
        let mut alarm = self.alarms.remove(&(hot.fp, kind))?;
        alarm.relearned = hot.same > 0;
        alarm.last = s.at;
        hot.set(FLAT, false);
        if alarm.relearned {
            // Flat is what it is now; it may vary and go flat again.
            hot.change = 0.0;
        }
        Some(Transition { kind, phase: Phase::Closed, alarm })
    }

    /// The trend layer's part of a reading, for series with a limit.
    pub(crate) fn look_ahead(&mut self, hot: &mut Hot, policy: &Policy, at: i64, value: f64) -> Option<Transition> {
        let limit = policy.limit?;
        let sight = self.trends.entry(hot.fp).or_default().step(&self.config.trend, limit, at, value);
        let kind = AlarmKind::Capacity;
        if hot.is(CAPACITY) {
            let Some(alarm) = self.alarms.get_mut(&(hot.fp, kind)) else {
                hot.set(CAPACITY, false);
                return None;
            };
            if let Some(sight) = sight {
                let before = Severity::from_score(alarm.score);
                alarm.last = at;
                alarm.calm_since = at;
                fill(alarm, &sight, value, policy);
                let worse = Severity::from_score(alarm.score) > before;
                return worse.then_some(Transition { kind, phase: Phase::Update, alarm: *alarm });
            }
            // At the limit the line ends; what is there is bad enough.
            let there = if limit.falling { value <= limit.value } else { value >= limit.value };
            if there || at.saturating_sub(alarm.calm_since) < SIGHT_NS {
                return None;
            }
            let mut alarm = self.alarms.remove(&(hot.fp, kind))?;
            alarm.last = at;
            hot.set(CAPACITY, false);
            return Some(Transition { kind, phase: Phase::Closed, alarm });
        }
        let sight = sight.filter(|s| at.saturating_sub(s.since) >= SIGHT_NS)?;
        hot.set(CAPACITY, true);
        let mut alarm = Alarm {
            onset: sight.since,
            last: at,
            calm_since: at,
            score: 0.0,
            direction: if limit.falling { Direction::Down } else { Direction::Up },
            layer: Layer::Trend,
            value,
            expected: f64::NAN,
            scale: f64::NAN,
            distance: f32::NAN,
            threshold: f32::NAN,
            ratio: f32::NAN,
            z: 0.0,
            forecast: 0.0,
            chart: 0.0,
            points: hot.n,
            samples: hot.n,
            mean: value,
            mad: 0.0,
            eta_secs: 0.0,
            limit: limit.value,
            evidence: f32::NAN,
            witness: Witness::High,
            relearned: false,
        };
        fill(&mut alarm, &sight, value, policy);
        self.alarms.insert((hot.fp, kind), alarm);
        Some(Transition { kind, phase: Phase::Open, alarm })
    }

    /// Ends whatever is open on a series that is forgotten or starts anew.
    pub(crate) fn end_all(&mut self, hot: &mut Hot) -> Vec<Transition> {
        let mut out = Vec::new();
        for kind in [AlarmKind::Departure, AlarmKind::Flat, AlarmKind::Capacity, AlarmKind::Absence] {
            if let Some(mut alarm) = self.alarms.remove(&(hot.fp, kind)) {
                alarm.last = alarm.last.max(hot.last_ts);
                out.push(Transition { kind, phase: Phase::Closed, alarm });
            }
        }
        hot.set(ACTIVE | FLAT | CAPACITY | super::hot::ABSENT, false);
        out
    }
}

fn fill(alarm: &mut Alarm, sight: &Sight, value: f64, policy: &Policy) {
    alarm.eta_secs = sight.eta_secs;
    alarm.value = value;
    alarm.mean = sight.slope;
    alarm.mad = sight.fit;
    // The share bounds a departure, not a forecast: half full and filling fast is what this layer is for.
    alarm.score = alarm.score.max(trend::score(sight.eta_secs));
    if !policy.is_bad(alarm.direction == Direction::Up) {
        alarm.score = alarm.score.min(super::policy::HARMLESS);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_grow_and_meet_the_severities() {
        let mut last = -1.0;
        for i in 0..2_000u16 {
            let s = score_of(f32::from(i) / 100.0);
            assert!(s >= last && (0.0..=1.0).contains(&s));
            last = s;
        }
        assert!((score_of(1.0) - 0.5).abs() < 1e-9);
        assert!((score_of(3.0) - 0.9).abs() < 1e-3);
        assert_eq!(score_of(f32::NAN), 0.0);
    }
}
