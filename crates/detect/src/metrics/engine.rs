//! One sample of one series: convert, score, learn. The same code runs in production and in the backtest.
//!
//! Order matters: a reading is scored against what was known before it, and only then learned, clipped at three
//! sigmas, so that it can neither hide inside its own baseline nor poison the next one's.

use super::config::{EnsembleConfig, MetricsConfig};
use super::ensemble::{Ensemble, Knobs, Parts, Verdict, Witness};
use super::hot::{ACTIVE, FLAT, Hot, LIMIT, NO_COLD, SEEN, UP};
use super::judge::{Alarm, AlarmKind};
use super::policy::Policy;
use super::season::Pool;
use super::shard::StepStats;
use super::trend::Trend;
use hashbrown::HashMap;
use nightshift_model::batch::SeriesKind;
use nightshift_model::time::NANOS_PER_SEC;
use std::collections::BTreeMap;

/// Mean absolute deviation times this is sigma, for the normal distribution: sqrt(pi / 2).
const SIGMA_OF_MAD: f64 = 1.253_314_137_315_500_3;
/// Readings are learned clipped at this many sigmas.
const CLIP: f64 = 3.0;
/// Values beyond this are taken as this: their squares would leave what `f64` holds.
const VALUE_MAX: f64 = 1e30;
/// Distances beyond this many sigmas are all the same.
const DISTANCE_MAX: f32 = 1e4;
/// Distances enter the chart clipped at this: one spike alone must not lift it over the threshold.
const CHART_CLIP: f32 = 8.0;
/// A series of which fewer than this share of readings differ from the one before is flat.
const FLAT_CHANGE: f32 = 0.05;
/// A flat series has left its value when it is off by this share of it: no noise tells how much is much, and meters
/// are read to about three digits. Smaller, and the last digit of a gauge alarms; larger, and 100 % → 99 % does not.
const FLAT_SCALE: f64 = 1e-3;
/// Standard deviation of a value rounded to steps of one: 1 / sqrt(12).
const ROUNDING: f64 = 0.29;
/// Chance that a series which varies as this one does repeats itself so often: 1e-12 makes ten in a row at 94 %.
const FLAT_CHANCE_LN: f32 = -27.6;
/// Weight of a new level while a season is known, and of the slope; damping of the slope per reading.
const SEASON_LAMBDA: f64 = 0.05;
const SLOPE_WEIGHT: f64 = 0.05;
const DAMPING: f64 = 0.9;
/// The error that is usual is at least this share of the spread about the mean.
const SPREAD_SHARE: f64 = 0.15;
/// Readings after which a series gets what lies beside its hot state: one that comes and goes does not.
const SETTLED: u32 = 8;
/// Least share of the usual error that a slot's own error may fall to.
const SLOT_SCALE_MIN: f64 = 0.4;

/// The configuration in the form that the path needs.
#[derive(Debug, Clone)]
pub(crate) struct Tuned {
    pub(crate) zscore: bool,
    pub(crate) chart: bool,
    pub(crate) forecast: bool,
    pub(crate) evt: bool,
    pub(crate) flat: bool,
    pub(crate) absence: bool,
    pub(crate) ensemble: bool,
    parts: Parts,
    knobs: Knobs,
    /// Least seconds between readings for the ensemble to decide.
    decides_secs: f32,
    chart_weight: f32,
    /// Chart threshold at three sigmas, per sigma.
    chart_per_sigma: f32,
    pub(crate) risk: f32,
    warmup: u32,
    memory: f64,
    lambda: f64,
    flat_points: u16,
    pub(crate) late_ns: i64,
    pub(crate) idle_ns: i64,
}

/// Witnesses that are switched on.
fn parts(config: &EnsembleConfig) -> Parts {
    let groups = [
        (config.level, &[Witness::High, Witness::Drop, Witness::Step][..]),
        (config.sustained, &[Witness::Above, Witness::LongBelow, Witness::LongAbove]),
    ];
    let on = groups.iter().filter(|(on, _)| *on).flat_map(|(_, w)| w.iter());
    Parts { shape: config.shape, calendar: config.calendar, tails: on.fold(0, |bits, w| bits | 1 << *w as u32) }
}

impl Tuned {
    pub(crate) fn new(config: &MetricsConfig) -> Self {
        Self {
            zscore: config.zscore.enabled,
            chart: config.ewma.enabled,
            forecast: config.forecast.enabled,
            evt: config.evt.enabled,
            flat: config.flatline.enabled,
            absence: config.absence.enabled,
            ensemble: config.ensemble.enabled,
            parts: parts(&config.ensemble),
            knobs: Knobs { threshold: config.ensemble.threshold.clamp(1.0, 12.0) as f32, ..Knobs::default() },
            decides_secs: config.ensemble.interval_min_secs as f32,
            chart_weight: config.ewma.lambda.clamp(0.001, 1.0) as f32,
            chart_per_sigma: (config.ewma.sigma / 3.0) as f32,
            risk: config.evt.risk.clamp(1e-12, 0.02) as f32,
            warmup: config.warmup_points.max(2),
            memory: f64::from(config.zscore.memory_points.max(2)),
            lambda: config.forecast.lambda.clamp(0.001, 1.0),
            flat_points: u16::try_from(config.flatline.points_min).unwrap_or(u16::MAX).max(2),
            late_ns: i64::from(config.late_secs) * NANOS_PER_SEC,
            idle_ns: i64::from(config.idle_secs) * NANOS_PER_SEC,
        }
    }
}

impl Tuned {
    /// Whether the ensemble decides on a series whose readings are as far apart as these.
    #[inline(always)]
    pub(crate) fn wants(&self, hot: &Hot) -> bool {
        self.ensemble && hot.interval >= self.decides_secs
    }
}

/// Which layer says it loudest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Layer {
    Zscore = 0,
    Ewma = 1,
    Forecast = 2,
    Flatline = 3,
    Trend = 4,
    Absence = 5,
    Ensemble = 6,
}

impl Layer {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Zscore => "zscore",
            Self::Ewma => "ewma",
            Self::Forecast => "forecast",
            Self::Flatline => "flatline",
            Self::Trend => "trend",
            Self::Absence => "absence",
            Self::Ensemble => "ensemble",
        }
    }

    pub(crate) const fn from_u8(v: u8) -> Option<Self> {
        Some(match v {
            0 => Self::Zscore,
            1 => Self::Ewma,
            2 => Self::Forecast,
            3 => Self::Flatline,
            4 => Self::Trend,
            5 => Self::Absence,
            6 => Self::Ensemble,
            _ => return None,
        })
    }
}

/// A reading with what the layers say of it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scored {
    pub(crate) at: i64,
    pub(crate) value: f64,
    /// Of the layer that speaks.
    pub(crate) expected: f64,
    /// Sigma of the layer that speaks, in units of the value.
    pub(crate) scale: f64,
    /// Signed distance in sigmas.
    pub(crate) distance: f32,
    /// Distance that is an alarm.
    pub(crate) threshold: f32,
    /// Distance over threshold of the layer that is furthest beyond its own.
    pub(crate) ratio: f32,
    pub(crate) layer: Layer,
    /// Beyond the sigma of the series.
    pub(crate) off: bool,
    /// The baseline has no noise that could tell what is extreme, and the value is within half of it (or it is zero).
    pub(crate) from_flat: bool,
    /// It does not change any more.
    pub(crate) flat: bool,
    pub(crate) z: f32,
    pub(crate) forecast: f32,
    pub(crate) chart: f32,
    /// What the ensemble says, where it decides.
    pub(crate) verdict: Option<Verdict>,
}

/// What became of a sample.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Outcome {
    /// Not a reading: skipped, or the first of a rate.
    Nothing,
    /// A reading that nothing is to be said of; its value after conversion.
    Calm(f64),
    /// One that may begin, continue or end an alarm.
    Look(Scored),
}

/// Everything about series but their hot state and their names.
#[derive(Debug)]
pub(crate) struct Engine {
    pub(crate) config: std::sync::Arc<MetricsConfig>,
    pub(crate) tuned: Tuned,
    pub(crate) pool: Pool,
    /// By the same index as `pool`.
    pub(crate) ensembles: Vec<Ensemble>,
    pub(crate) trends: HashMap<u64, Trend>,
    pub(crate) alarms: BTreeMap<(u64, AlarmKind), Alarm>,
}

impl Engine {
    pub(crate) fn new(config: std::sync::Arc<MetricsConfig>, seasons_max: usize) -> Self {
        Self {
            tuned: Tuned::new(&config),
            pool: Pool::new(seasons_max, config.forecast.season_min),
            ensembles: Vec::new(),
            trends: HashMap::new(),
            alarms: BTreeMap::new(),
            config,
        }
    }

    /// Takes a sample of a series. `full`: a verdict is wanted for every reading, not only for those that stand out.
    #[expect(clippy::too_many_arguments, reason = "one call per sample: a struct for it would be built for nothing")]
    #[inline]
    pub(crate) fn observe(
        &mut self,
        hot: &mut Hot,
        policy: &Policy,
        kind: SeriesKind,
        at: i64,
        raw: f64,
        stats: &mut StepStats,
        full: bool,
    ) -> Outcome {
        if !raw.is_finite() {
            stats.not_finite += 1;
            return Outcome::Nothing;
        }
        let raw = raw.clamp(-VALUE_MAX, VALUE_MAX);
        if !hot.is(SEEN) {
            hot.flags |= SEEN;
            hot.last_ts = at;
            hot.last_raw = raw;
            stats.scored += 1;
            stats.warming += 1;
            if kind == SeriesKind::Gauge {
                self.learn_first(hot, raw);
                return Outcome::Calm(raw);
            }
            return Outcome::Nothing;
        }
        let dt = at.saturating_sub(hot.last_ts);
        if dt <= 0 {
            self.stale(hot, policy, kind, dt, raw, stats);
            return Outcome::Nothing;
        }
        let secs = dt as f64 * (1.0 / NANOS_PER_SEC as f64);
        let before = hot.last_raw;
        hot.last_ts = at;
        hot.last_raw = raw;
        hot.interval =
            if hot.interval == 0.0 { secs as f32 } else { hot.interval + 0.1 * (secs as f32 - hot.interval) };
        let moved = raw != before;
        let (x, step) = match kind {
            SeriesKind::Gauge => (raw, (raw - before).abs()),
            SeriesKind::Counter => {
                if raw < before {
                    // It started again; how much it lost on the way is not known.
                    stats.resets += 1;
                    return Outcome::Nothing;
                }
                // A counter of whole things makes rates of whole things per interval.
                let whole = (raw as i64) as f64 == raw && (before as i64) as f64 == before;
                ((raw - before) / secs, if whole { 1.0 / secs } else { 0.0 })
            }
            SeriesKind::Delta => {
                if raw < 0.0 {
                    stats.resets += 1;
                    return Outcome::Nothing;
                }
                let whole = (raw as i64) as f64 == raw;
                (raw / secs, if whole { 1.0 / secs } else { 0.0 })
            }
        };
        // Time stamps a nanosecond apart make rates that nothing should be learned from.
        let x = x.clamp(-VALUE_MAX, VALUE_MAX);
        stats.scored += 1;
        let n = hot.n;
        if n == 0 {
            stats.warming += 1;
            self.learn_first(hot, x);
            return Outcome::Calm(x);
        }

        // What was known before this reading.
        let dev = x - hot.mu;
        let mu_abs = hot.mu.abs();
        let mut floor = (ROUNDING * f64::from(hot.resolution)).max(1e-9 * mu_abs).max(f64::MIN_POSITIVE);
        let history_flat = hot.change < FLAT_CHANGE;
        if history_flat {
            floor = floor.max(FLAT_SCALE * if mu_abs > 0.0 { mu_abs } else { x.abs() });
        }
        let scale = (SIGMA_OF_MAD * f64::from(hot.mad)).max(floor);
        let z = ((dev / scale) as f32).clamp(-DISTANCE_MAX, DISTANCE_MAX);

        let (season, slot_error) = if hot.cold == NO_COLD { (0.0, 0.0) } else { self.pool.expect(hot.cold, at) };
        let seasonal = slot_error > 0.0 || season != 0.0;
        let predicted = hot.level + DAMPING * f64::from(hot.slope) + season;
        let error = x - predicted;
        let mut usual = f64::from(hot.lscale);
        if slot_error > 0.0 {
            usual = (0.5 * (usual + f64::from(slot_error))).max(SLOT_SCALE_MIN * usual);
        }
        // However well a season is known: what is small beside all that the series does is no departure.
        let error_scale = (SIGMA_OF_MAD * usual.max(SPREAD_SHARE * f64::from(hot.mad))).max(floor);
        let f = ((error / error_scale) as f32).clamp(-DISTANCE_MAX, DISTANCE_MAX);

        // Moves towards the flat alarm are counted before anything is said.
        hot.same = if moved { 0 } else { hot.same.saturating_add(1) };

        let mut verdict = None;
        // Where it does not decide it would be work for nothing.
        if self.tuned.wants(hot)
            && let Some(ensemble) = self.ensembles.get_mut(hot.cold as usize)
        {
            let said = ensemble.step(&self.tuned.knobs, self.tuned.parts, at, x);
            verdict = said.known.then_some(said);
        }
        let alert = verdict.is_some_and(|v| v.alert);

        let warm = n >= self.tuned.warmup;
        let mut outcome = Outcome::Calm(x);
        let mut beyond = false;
        let active = hot.is(ACTIVE);
        if warm {
            let zl = if self.tuned.zscore { z } else { 0.0 };
            // Of a flat series the mean says all there is; what a blip left in the level is no forecast.
            let fl = if self.tuned.forecast && !(history_flat && self.tuned.zscore) { f } else { 0.0 };
            let (up, down) = (zl.max(fl), -zl.min(fl));
            let sigma = policy.sigma;
            let k = sigma * (1.0 / 3.0);
            let (mut t_up, mut t_down) = (sigma, sigma);
            if self.tuned.evt {
                t_up = t_up.max(k * hot.up.z);
                t_down = t_down.max(k * hot.down.z);
            }
            // The chart follows the forecast where there is a season, else the mean: a season is no departure.
            let through = if seasonal && self.tuned.forecast { f } else { z };
            hot.chart += self.tuned.chart_weight * (through.clamp(-CHART_CLIP, CHART_CLIP) - hot.chart);
            let height = hot.chart.abs();
            let t_chart = (self.tuned.chart_per_sigma * sigma).max(1.3 * hot.chart_usual);
            let charted = self.tuned.chart && height >= t_chart;
            let off = up >= sigma || down >= sigma || charted;
            beyond = up >= t_up || down >= t_down;
            // Nothing happens any more of what is bad only when it happens (stalls, errors): that is rest, not silence.
            let at_rest = kind != SeriesKind::Gauge && x == 0.0 && !policy.is_bad(false);
            let flat = self.tuned.flat && hot.same >= self.tuned.flat_points && !at_rest && is_flat(hot);
            if off || full || flat || alert || hot.run != 0 || hot.flags & (ACTIVE | FLAT) != 0 {
                let upwards = if charted { hot.chart > 0.0 } else { up >= down };
                let (distance, threshold) = if upwards { (up, t_up) } else { (down, t_down) };
                let (z_way, f_way) = if upwards { (zl, fl) } else { (-zl, -fl) };
                let chart_ratio = if self.tuned.chart && (hot.chart > 0.0) == upwards { height / t_chart } else { 0.0 };
                let ratio = distance / threshold;
                let layer = if chart_ratio > ratio && charted {
                    Layer::Ewma
                } else if self.tuned.zscore && (z_way >= threshold || z_way >= f_way) {
                    Layer::Zscore
                } else {
                    Layer::Forecast
                };
                let by_forecast = layer == Layer::Forecast || (layer == Layer::Ewma && seasonal && self.tuned.forecast);
                outcome = Outcome::Look(Scored {
                    at,
                    value: x,
                    expected: if by_forecast { predicted } else { hot.mu },
                    scale: if by_forecast { error_scale } else { scale },
                    distance: if by_forecast { f } else { z },
                    threshold,
                    ratio: ratio.max(if charted { chart_ratio } else { 0.0 }),
                    layer,
                    off,
                    from_flat: history_flat && (hot.mu == 0.0 || dev.abs() < 0.5 * mu_abs),
                    flat,
                    z,
                    forecast: f,
                    chart: hot.chart,
                    verdict,
                });
            }
            if !active {
                hot.up.observe(up, self.tuned.risk);
                hot.down.observe(down, self.tuned.risk);
                let over = height - hot.chart_usual;
                hot.chart_usual += over * if over > 0.0 { 0.02 } else { 0.0005 };
            }
        } else {
            stats.warming += 1;
        }

        // Learn. While an alarm is open nothing is: the baseline is what it was before the trouble.
        let fresh = 1.0 / (f64::from(n) + 1.0);
        let weight = fresh.max(1.0 / self.tuned.memory);
        hot.change += ((if moved { 1.0 } else { 0.0 }) - hot.change) * (fresh as f32).max(0.01);
        // A departure says nothing of how finely the value is read.
        if moved && step > 0.0 && (!warm || z.abs() <= CLIP as f32) {
            let step = step as f32;
            // Creeps up, so that one tiny step is not the resolution for ever.
            hot.resolution = if hot.resolution == 0.0 { step } else { step.min(hot.resolution * 1.001) };
        }
        if !active {
            // The first readings set the scale that later ones are clipped by.
            let bound = if n < 8 { f64::INFINITY } else { CLIP * scale };
            let learned = dev.clamp(-bound, bound);
            hot.mu += weight * learned;
            hot.mad += weight as f32 * (learned.abs() as f32 - hot.mad);
            if self.tuned.forecast {
                // The level is quick: what is beyond the threshold may draw it by a third of what else may.
                let sigmas = if beyond { 1.0 } else { CLIP };
                let bound = if n < 8 { f64::INFINITY } else { sigmas * error_scale };
                let learned = error.clamp(-bound, bound);
                if seasonal {
                    hot.level += SEASON_LAMBDA * learned;
                } else {
                    hot.level = predicted + self.tuned.lambda * learned;
                    hot.slope = (DAMPING * f64::from(hot.slope) + SLOPE_WEIGHT * learned) as f32;
                }
                hot.lscale += weight as f32 * (learned.abs() as f32 - hot.lscale);
                if hot.cold != NO_COLD {
                    self.learn_season(hot, at, x, learned);
                }
            }
        } else if self.tuned.forecast && hot.cold != NO_COLD && !seasonal {
            // A season is looked for in everything: its own swings may be what the alarm is about.
            self.learn_season(hot, at, x, 0.0);
        }
        hot.n = n.saturating_add(1);
        if hot.n == SETTLED {
            self.settled(hot);
        }
        outcome
    }

    fn learn_first(&self, hot: &mut Hot, x: f64) {
        hot.mu = x;
        hot.level = x;
        hot.n = 1;
    }

    /// The series seems to stay: it gets what it needs to be known well.
    #[cold]
    fn settled(&mut self, hot: &mut Hot) {
        if (self.tuned.forecast || self.tuned.ensemble) && hot.cold == NO_COLD {
            let interval = f64::from(hot.interval) * NANOS_PER_SEC as f64;
            hot.cold = self.pool.allocate(interval as i64).unwrap_or(NO_COLD);
            self.place(hot.cold, Ensemble::default());
        }
    }

    /// The ensemble of the series whose cold state is at `index`.
    pub(crate) fn place(&mut self, index: u32, ensemble: Ensemble) {
        if !self.tuned.ensemble || index == NO_COLD {
            return;
        }
        let index = index as usize;
        if index >= self.ensembles.len() {
            // By an eighth: doubling would hold twice the memory that the budget speaks of.
            if index >= self.ensembles.capacity() {
                self.ensembles.reserve_exact(index + 1 - self.ensembles.len() + index / 8);
            }
            self.ensembles.resize_with(index + 1, Ensemble::default);
        }
        self.ensembles[index] = ensemble;
    }

    #[inline]
    fn learn_season(&mut self, hot: &mut Hot, at: i64, x: f64, error: f64) {
        if let Some(found) = self.pool.learn(hot.cold, at, x, error) {
            hot.level = found.level;
            hot.slope = 0.0;
            hot.lscale = found.scale.max(0.7 * hot.lscale);
        }
        if self.pool.take_turned(hot.cold) && self.pool.judge(hot.cold, hot.lscale <= hot.mad) {
            hot.level = hot.mu;
            hot.lscale = hot.mad;
        }
    }

    /// A sample that is not newer than the newest: a repeat, or one that is late. A late one cannot be told from a
    /// repeated delivery, and the baseline is of another time, so it is scored and counted and opens nothing.
    #[cold]
    fn stale(&self, hot: &Hot, policy: &Policy, kind: SeriesKind, dt: i64, raw: f64, stats: &mut StepStats) {
        if dt == 0 {
            stats.duplicates += 1;
            return;
        }
        if dt < -self.tuned.late_ns {
            stats.too_old += 1;
            return;
        }
        stats.late += 1;
        stats.scored += 1;
        if kind == SeriesKind::Gauge && hot.n >= self.tuned.warmup {
            let scale = (SIGMA_OF_MAD * f64::from(hot.mad))
                .max(ROUNDING * f64::from(hot.resolution))
                .max(FLAT_SCALE * hot.mu.abs())
                .max(f64::MIN_POSITIVE);
            let distance = ((raw - hot.mu) / scale) as f32;
            if distance.abs() >= policy.sigma.max(hot.up.z) {
                stats.late_off += 1;
            }
        }
    }

    /// The departure is the new normal: starts from what it was like.
    pub(crate) fn relearn(&mut self, hot: &mut Hot, mean: f64, mad: f64) {
        hot.mu = mean;
        hot.level = mean;
        hot.mad = mad as f32;
        hot.lscale = hot.lscale.max(mad as f32);
        hot.slope = 0.0;
        hot.chart = 0.0;
        hot.n = hot.n.min(self.tuned.warmup.max(60));
        if hot.cold != NO_COLD && self.pool.has_season(hot.cold) {
            // The season may well go on at the new level.
            let (season, _) = self.pool.expect(hot.cold, hot.last_ts);
            hot.level -= season;
        }
    }

    /// Forgets a series but its name.
    pub(crate) fn reset(&mut self, hot: &mut Hot) {
        if hot.cold != NO_COLD {
            self.pool.release(hot.cold);
        }
        self.trends.remove(&hot.fp);
        let limit = hot.flags & LIMIT;
        *hot = Hot::new(hot.fp, hot.policy, self.tuned.risk);
        hot.flags |= limit;
    }
}

/// Whether so many equal readings in a row are beyond chance for a series that varies as this one does.
#[cold]
fn is_flat(hot: &Hot) -> bool {
    // `change` has already learned the equal readings, one percent each: taken back, so that it speaks of before.
    let before = (hot.change / 0.99f32.powi(i32::from(hot.same) - 1)).min(0.999);
    if hot.n < 60 || before < 0.5 {
        return false;
    }
    f32::from(hot.same) * (1.0 - before).ln() <= FLAT_CHANCE_LN
}

impl Hot {
    /// Whether the present run goes upwards.
    pub(crate) const fn upwards(&self) -> bool {
        self.is(UP)
    }
}
