//! What a series that nobody has seen before starts with: the scale and the tails of its family.

use super::quantile::MAGNITUDE_MIN;
use super::sketch::{FamilyKey, FamilySketch, Form, TAIL_FROM, TailSums};
use crate::metrics::Hot;
use hashbrown::HashSet;
use nightshift_model::batch::SeriesKind;
use nightshift_model::{EntityKind, Explanation, families::SignalFamily};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Fewest series-days of a family before it says what is usual for a new series.
const SERIES_MIN: u64 = 5;
/// Fewest distances before its tails are told.
const DISTANCES_MIN: u64 = 2_000;
/// Weight of the prior tail in the sums, excesses: those that the engine's own tail remembers.
const PRIOR_WEIGHT: f64 = 30.0;
/// Readings that the family's scale counts as: a third of the warm-up. More, and a series unlike its family is long
/// misjudged; fewer, and the scale is gone after two readings.
const READINGS: u32 = 10;
/// Readings after which a series is judged by itself alone: those that its spread remembers.
const ITS_OWN: u32 = 360;
/// Series of which it is remembered that they started warm.
const REMEMBERED_MAX: usize = 100_000;
/// Sigma over mean absolute deviation, for the normal distribution: sqrt(pi / 2).
const SIGMA_OF_MAD: f64 = 1.253_314_137_315_500_3;
/// Prior mean and mean square of the excess over [`TAIL_FROM`] sigmas: those of the engine's own prior.
const PRIOR: (f64, f64) = (0.6, 0.72);

/// Tail of one side over 2.5 sigmas.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct WarmTail {
    /// Mean excess, sigmas.
    pub mean: f32,
    /// Mean square of the excess.
    pub square: f32,
}

/// What a new series starts with.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Warm {
    /// Usual sigma as a share of the level; `None` where the family has no such figure.
    pub spread: Option<f32>,
    /// Usual sigma in units of the value, for a level near zero.
    pub sigma: Option<f32>,
    /// Tail upwards.
    pub up: WarmTail,
    /// Tail downwards.
    pub down: WarmTail,
}

impl Warm {
    /// What a family says; `None` while it knows too little.
    pub fn of(sketch: &FamilySketch) -> Option<Self> {
        if sketch.series < SERIES_MIN || sketch.distances < DISTANCES_MIN {
            return None;
        }
        // Median: half the series of a family are noisier, half are calmer.
        let median = |q: &super::Quantiles| q.quantile(0.5).filter(|v| *v > MAGNITUDE_MIN).map(|v| v as f32);
        Some(Self {
            spread: median(&sketch.spread),
            sigma: median(&sketch.sigma),
            up: tail(&sketch.up),
            down: tail(&sketch.down),
        })
    }

    /// Sigma that a series at this level starts with, in units of the value.
    pub fn sigma_at(&self, level: f64) -> Option<f64> {
        let relative = self.spread.map(|s| f64::from(s) * level.abs()).filter(|s| *s > MAGNITUDE_MIN);
        relative.or(self.sigma.map(f64::from))
    }
}

/// Posterior means of the excess: the engine's prior, then what the family showed.
fn tail(sums: &TailSums) -> WarmTail {
    let n = PRIOR_WEIGHT + sums.over as f64;
    WarmTail {
        mean: ((PRIOR_WEIGHT * PRIOR.0 + sums.sum) / n) as f32,
        square: ((PRIOR_WEIGHT * PRIOR.1 + sums.squares) / n) as f32,
    }
}

/// Level that [`WarmTail`] is over, sigmas.
pub const WARM_TAIL_FROM: f32 = TAIL_FROM as f32;

/// What new series start with, by family. Shared by all shards; changed only as a whole.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct WarmStart {
    families: BTreeMap<(EntityKind, Option<SignalFamily>, Form), Warm>,
}

impl WarmStart {
    /// From summaries; families of which too little is known are left out, and so are those of unknown signals, which
    /// have nothing in common.
    pub fn of<'a>(families: impl IntoIterator<Item = (&'a FamilyKey, &'a FamilySketch)>) -> Self {
        let families = families
            .into_iter()
            .filter(|(key, _)| key.metric.is_none() && key.family.is_some())
            .filter_map(|(key, sketch)| Some(((key.kind, key.family, key.form), Warm::of(sketch)?)))
            .collect();
        Self { families }
    }

    /// What a series of this family starts with.
    pub fn get(&self, kind: EntityKind, family: Option<SignalFamily>, form: Form) -> Option<&Warm> {
        self.families.get(&(kind, family, form))
    }

    /// Families that say something.
    pub fn len(&self) -> usize {
        self.families.len()
    }

    /// Whether none does.
    pub fn is_empty(&self) -> bool {
        self.families.is_empty()
    }
}

/// A shard's side of it: seeds series that are new, and says so of their alarms.
#[derive(Debug, Default)]
pub(crate) struct Seat {
    start: Option<Arc<WarmStart>>,
    /// Series that started warm and are not yet judged by themselves alone. Not state: after a restart it is not told.
    warmed: HashSet<u64>,
}

impl Seat {
    pub(crate) fn set(&mut self, start: Option<Arc<WarmStart>>) {
        self.start = start.filter(|s| !s.is_empty());
    }

    #[inline]
    pub(crate) const fn is_on(&self) -> bool {
        self.start.is_some()
    }

    /// Seeds a series that has learned its first reading.
    #[cold]
    pub(crate) fn seed(
        &mut self,
        hot: &mut Hot,
        entity: EntityKind,
        family: Option<SignalFamily>,
        kind: SeriesKind,
        risk: f32,
    ) {
        let form = if kind == SeriesKind::Gauge { Form::Level } else { Form::Rate };
        let Some(warm) = self.start.as_ref().and_then(|s| s.get(entity, family, form)) else { return };
        if hot.n != 1 {
            return;
        }
        hot.up.seed(warm.up.mean, warm.up.square, risk);
        hot.down.seed(warm.down.mean, warm.down.square, risk);
        if let Some(sigma) = warm.sigma_at(hot.mu) {
            let mad = (sigma / SIGMA_OF_MAD) as f32;
            // The step from reading to reading is not more than the spread; it is learned quickly.
            (hot.mad, hot.lscale, hot.n) = (mad, mad, READINGS);
        }
        if self.warmed.len() < REMEMBERED_MAX {
            self.warmed.insert(hot.fp);
        }
    }

    /// Says of an alarm that its series started with what its family is like.
    pub(crate) fn explain(&self, hot: &Hot, explanation: &mut Explanation) {
        if hot.n < ITS_OWN && self.warmed.contains(&hot.fp) {
            explanation.features.insert("warm_start".into(), 1.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::sketch::Seen;

    fn family(heavy: f64) -> FamilySketch {
        let mut s = FamilySketch::default();
        for i in 0..4_000u32 {
            let distance = if i % 20 == 0 { 2.5 + heavy } else { 0.5 };
            s.add(&Seen { value: 10.0, phase: 0, ratio: None, distance: Some(distance), error: None });
        }
        (0..10).for_each(|_| s.add_series(0.5, 10.0));
        s
    }

    fn key() -> FamilyKey {
        let family = Some(SignalFamily::Latency);
        FamilyKey { kind: EntityKind::Service, family, form: Form::Level, metric: None }
    }

    #[test]
    fn a_family_of_which_little_is_known_says_nothing() {
        assert_eq!(Warm::of(&FamilySketch::default()), None);
        let few = FamilySketch { series: 1, ..family(1.0) };
        assert_eq!(Warm::of(&few), None);
        let unknown = FamilyKey { family: None, ..key() };
        assert!(WarmStart::of([(&unknown, &family(1.0))]).is_empty());
        assert_eq!(WarmStart::of([(&key(), &family(1.0))]).len(), 1);
    }

    #[test]
    fn a_new_series_starts_with_the_scale_and_the_tail_of_its_family() {
        let sketch = family(4.0);
        let mut seat = Seat::default();
        seat.set(Some(Arc::new(WarmStart::of([(&key(), &sketch)]))));
        let (mut hot, cold) = (Hot::new(7, 0, 2e-4), Hot::new(7, 0, 2e-4));
        (hot.mu, hot.n) = (200.0, 1);
        seat.seed(&mut hot, EntityKind::Service, Some(SignalFamily::Latency), SeriesKind::Gauge, 2e-4);
        // 5 % of 200 is 10, within the error of the quantile.
        assert!((f64::from(hot.mad) * SIGMA_OF_MAD - 10.0).abs() < 0.2, "{}", hot.mad);
        assert!(hot.up.z > cold.up.z && hot.down.z <= cold.down.z + 1e-3, "{hot:?}");
        assert_eq!(hot.n, READINGS);
        let mut told = Explanation::default();
        seat.explain(&hot, &mut told);
        assert_eq!(told.features["warm_start"], 1.0);
        let mut other = Hot::new(8, 0, 2e-4);
        other.n = 1;
        let before = other;
        seat.seed(&mut other, EntityKind::Host, Some(SignalFamily::Latency), SeriesKind::Gauge, 2e-4);
        assert_eq!(other, before, "another kind of entity is another family");
    }
}
