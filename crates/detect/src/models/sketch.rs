//! What is kept of a family of series: few numbers, all of which add up.
//!
//! A family is a kind of entity, what its signal measures and whether it is a level or a rate. Scales of different
//! series differ by orders of magnitude, so most of what is learned is relative: spread by the series' own level,
//! distances in the series' own sigmas, hours of the week by the series' own mean. Those carry over to a series that
//! nobody has seen before, and to another cluster.

use super::quantile::Quantiles;
use nightshift_model::{EntityKind, families::SignalFamily};
use serde::{Deserialize, Serialize};

/// Hours of a week, from Monday 00:00 UTC.
pub const PHASES: usize = 168;
/// Distance from which a reading counts to the tail, in sigmas: the level that a new series' tail starts with.
pub const TAIL_FROM: f64 = 2.5;
/// Excesses enter the sums clipped at this, in sigmas: one accident is not the family's tail.
const EXCESS_MAX: f64 = 20.0;
/// Ratios to the series' own mean enter the phase profile clipped at this.
const RATIO_MAX: f64 = 10.0;

/// Level or rate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Form {
    /// The value as it is.
    Level,
    /// What a counter gains a second.
    Rate,
}

/// Which series are summed up together.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FamilyKey {
    /// Kind of entity.
    pub kind: EntityKind,
    /// What the signal measures; `None` where its name does not tell.
    pub family: Option<SignalFamily>,
    /// Level or rate.
    pub form: Form,
    /// Metric name, where the settings ask for a summary of its own. A name of a metric, never of an entity.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metric: Option<String>,
}

impl std::fmt::Display for FamilyKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let family = self.family.map_or("other", SignalFamily::as_str);
        let form = match self.form {
            Form::Level => "level",
            Form::Rate => "rate",
        };
        write!(f, "{}/{family}/{form}", self.kind.as_str())?;
        self.metric.as_ref().map_or(Ok(()), |m| write!(f, "/{m}"))
    }
}

/// Count, mean and variance that add up (Chan, Golub and LeVeque 1979).
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Moments {
    /// Values.
    pub n: u64,
    /// Mean.
    pub mean: f64,
    /// Sum of squared distances from the mean.
    pub m2: f64,
}

impl Moments {
    /// Takes in a finite value (Welford 1962).
    pub fn add(&mut self, x: f64) {
        self.n += 1;
        let d = x - self.mean;
        self.mean += d / self.n as f64;
        self.m2 += d * (x - self.mean);
    }

    /// Adds another's values.
    pub fn merge(&mut self, other: &Self) {
        if other.n == 0 {
            return;
        }
        if self.n == 0 {
            *self = *other;
            return;
        }
        let (a, b) = (self.n as f64, other.n as f64);
        let n = a + b;
        let d = other.mean - self.mean;
        self.mean += d * (b / n);
        self.m2 += other.m2 + d * d * (a * b / n);
        self.n = self.n.saturating_add(other.n);
    }

    /// Variance of the values; 0 for fewer than two.
    pub fn variance(&self) -> f64 {
        if self.n < 2 { 0.0 } else { self.m2 / self.n as f64 }
    }

    fn is_sound(&self) -> bool {
        self.mean.is_finite() && self.m2.is_finite() && self.m2 >= 0.0 && (self.n > 0 || self.mean == 0.0)
    }
}

/// Excesses of one side over [`TAIL_FROM`] sigmas, as sums.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TailSums {
    /// Readings beyond.
    pub over: u64,
    /// Sum of their excesses, sigmas.
    pub sum: f64,
    /// Sum of the squares.
    pub squares: f64,
}

impl TailSums {
    fn add(&mut self, distance: f64) {
        let excess = distance - TAIL_FROM;
        if excess > 0.0 {
            let e = excess.min(EXCESS_MAX);
            self.over += 1;
            self.sum += e;
            self.squares += e * e;
        }
    }

    fn merge(&mut self, other: &Self) {
        self.over = self.over.saturating_add(other.over);
        self.sum += other.sum;
        self.squares += other.squares;
    }

    fn is_sound(&self) -> bool {
        let fine = |v: f64| v.is_finite() && v >= 0.0;
        fine(self.sum) && fine(self.squares) && (self.over > 0 || (self.sum == 0.0 && self.squares == 0.0))
    }
}

/// Mean of one hour of the week, relative to the mean of each series.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Phase(
    /// Readings.
    pub u64,
    /// Mean ratio.
    pub f64,
);

impl Phase {
    fn add(&mut self, ratio: f64) {
        self.0 += 1;
        self.1 += (ratio - self.1) / self.0 as f64;
    }

    fn merge(&mut self, other: &Self) {
        let n = self.0.saturating_add(other.0);
        if other.0 > 0 {
            self.1 += (other.1 - self.1) * (other.0 as f64 / n as f64);
            self.0 = n;
        }
    }
}

/// What a reading says, beside its value.
#[derive(Debug, Clone, Copy)]
pub struct Seen {
    /// The value, after counters became rates.
    pub value: f64,
    /// Hour of the week, below [`PHASES`].
    pub phase: usize,
    /// The value over the series' own mean.
    pub ratio: Option<f64>,
    /// Distance from the series' own robust mean, in its sigmas, once it has some.
    pub distance: Option<f64>,
    /// Size of the step from the reading before, in the series' own sigmas: the error of the forecast "as before".
    pub error: Option<f64>,
}

/// The summary of a family.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FamilySketch {
    /// Series-days: each series counts once for every day on which it was learned.
    pub series: u64,
    /// Values.
    pub moments: Moments,
    /// Their distribution.
    pub values: Quantiles,
    /// Sigma over mean, one for each series and day.
    pub spread: Quantiles,
    /// Sigma in units of the value, one for each series and day.
    pub sigma: Quantiles,
    /// Errors of the forecast, in sigmas.
    pub errors: Quantiles,
    /// Readings whose distance was taken.
    pub distances: u64,
    /// Tail upwards.
    pub up: TailSums,
    /// Tail downwards.
    pub down: TailSums,
    /// Hours of the week; empty or [`PHASES`] long.
    pub week: Vec<Phase>,
}

impl FamilySketch {
    /// Takes in a reading.
    pub fn add(&mut self, seen: &Seen) {
        self.moments.add(seen.value);
        self.values.add(seen.value);
        if let Some(error) = seen.error {
            self.errors.add(error);
        }
        if let Some(d) = seen.distance {
            self.distances += 1;
            self.up.add(d);
            self.down.add(-d);
        }
        if let Some(ratio) = seen.ratio {
            if self.week.is_empty() {
                self.week = vec![Phase::default(); PHASES];
            }
            if let Some(phase) = self.week.get_mut(seen.phase) {
                phase.add(ratio.clamp(-RATIO_MAX, RATIO_MAX));
            }
        }
    }

    /// A series' day ended: its sigma, and its mean.
    pub fn add_series(&mut self, sigma: f64, mean: f64) {
        self.series += 1;
        self.sigma.add(sigma);
        if mean.abs() > super::quantile::MAGNITUDE_MIN {
            self.spread.add(sigma / mean.abs());
        }
    }

    /// Adds another's readings. Counts and quantiles are exact; means and sums differ from those of the whole by the
    /// rounding of `f64` (a relative 1e-9 is the bound that is tested).
    pub fn merge(&mut self, other: &Self) {
        self.series = self.series.saturating_add(other.series);
        self.moments.merge(&other.moments);
        self.values.merge(&other.values);
        self.spread.merge(&other.spread);
        self.sigma.merge(&other.sigma);
        self.errors.merge(&other.errors);
        self.distances = self.distances.saturating_add(other.distances);
        self.up.merge(&other.up);
        self.down.merge(&other.down);
        if self.week.is_empty() {
            self.week.clone_from(&other.week);
        } else {
            for (mine, theirs) in self.week.iter_mut().zip(&other.week) {
                mine.merge(theirs);
            }
        }
    }

    /// Mean of each hour of the day, relative to the mean of each series; `None` for hours without readings.
    pub fn day_profile(&self) -> [Option<f64>; 24] {
        let mut hours = [Phase::default(); 24];
        for (i, phase) in self.week.iter().enumerate() {
            hours[i % 24].merge(phase);
        }
        hours.map(|p| (p.0 > 0).then_some(p.1))
    }

    /// Whether it can have come from [`Self::add`].
    pub(crate) fn is_sound(&self) -> bool {
        let quantiles = [&self.values, &self.spread, &self.sigma, &self.errors];
        self.moments.is_sound()
            && quantiles.iter().all(|q| q.is_sound())
            && self.up.is_sound()
            && self.down.is_sound()
            && self.up.over.checked_add(self.down.over).is_some_and(|n| n <= self.distances)
            && self.values.count() == self.moments.n
            && self.sigma.count() == self.series
            && self.spread.count() <= self.series
            && (self.week.is_empty() || self.week.len() == PHASES)
            && self.week.iter().all(|p| p.1.is_finite() && p.1.abs() <= RATIO_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn close(a: f64, b: f64, size: f64) -> bool {
        (a - b).abs() <= 1e-9 * size.max(a.abs()).max(b.abs()).max(1.0)
    }

    fn seen() -> impl Strategy<Value = Seen> {
        let opt = |r: std::ops::Range<f64>| prop::option::of(r);
        (-1e6f64..1e6, 0usize..PHASES, opt(-20.0..20.0), opt(-40.0..40.0), opt(0.0..50.0))
            .prop_map(|(value, phase, ratio, distance, error)| Seen { value, phase, ratio, distance, error })
    }

    fn of(seen: &[Seen]) -> FamilySketch {
        let mut s = FamilySketch::default();
        for x in seen {
            s.add(x);
        }
        for x in seen.iter().step_by(7) {
            s.add_series(x.value.abs() / 10.0, x.value);
        }
        s
    }

    fn merged(a: &FamilySketch, b: &FamilySketch) -> FamilySketch {
        let mut m = a.clone();
        m.merge(b);
        m
    }

    fn same(a: &FamilySketch, b: &FamilySketch) -> Result<(), TestCaseError> {
        prop_assert_eq!(
            (&a.values, &a.errors, a.distances, a.moments.n, a.up.over, a.down.over, a.week.len()),
            (&b.values, &b.errors, b.distances, b.moments.n, b.up.over, b.down.over, b.week.len())
        );
        prop_assert!(close(a.moments.mean, b.moments.mean, 1e6));
        prop_assert!(close(a.moments.m2, b.moments.m2, 1e12));
        prop_assert!(close(a.up.sum, b.up.sum, 1.0) && close(a.down.squares, b.down.squares, 1.0));
        for (x, y) in a.week.iter().zip(&b.week) {
            prop_assert_eq!(x.0, y.0);
            prop_assert!(close(x.1, y.1, 10.0));
        }
        Ok(())
    }

    proptest! {
        #[test]
        fn two_halves_give_the_whole_in_any_order(
            a in prop::collection::vec(seen(), 0..120),
            b in prop::collection::vec(seen(), 0..120),
            c in prop::collection::vec(seen(), 0..40),
        ) {
            let mut whole = FamilySketch::default();
            for x in a.iter().chain(&b).chain(&c) {
                whole.add(x);
            }
            let (a, b, c) = (of(&a), of(&b), of(&c));
            prop_assert!(a.is_sound());
            same(&merged(&merged(&a, &b), &c), &whole)?;
            same(&merged(&a, &b), &merged(&b, &a))?;
            let (left, right) = (merged(&merged(&a, &b), &c), merged(&a, &merged(&b, &c)));
            same(&left, &right)?;
            prop_assert_eq!((left.series, left.sigma, left.spread), (right.series, right.sigma, right.spread));
            prop_assert!(merged(&a, &b).is_sound());
            // Twice the same is twice as much: whoever imports must look at the id.
            if a.moments.n > 0 {
                prop_assert_ne!(merged(&a, &a), a);
            }
        }
    }

    #[test]
    fn hours_of_the_week_become_hours_of_the_day() {
        let mut s = FamilySketch::default();
        assert_eq!(s.day_profile(), [None; 24]);
        for (phase, ratio) in [(3, 1.0), (27, 3.0), (4, 0.5)] {
            s.add(&Seen { value: 1.0, phase, ratio: Some(ratio), distance: None, error: None });
        }
        let day = s.day_profile();
        assert_eq!((day[3], day[4], day[5]), (Some(2.0), Some(0.5), None));
    }
}
