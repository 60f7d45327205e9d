//! What a series that nobody has seen before starts with: the scale and the tails of its family.

use super::quantile::MAGNITUDE_MIN;
use super::sketch::{FamilyKey, FamilySketch, Form, TAIL_FROM, TailSums};
use nightshift_model::{EntityKind, families::SignalFamily};
use std::collections::BTreeMap;

/// Fewest series-days of a family before it says what is usual for a new series.
const SERIES_MIN: u64 = 5;
/// Fewest distances before its tails are told.
const DISTANCES_MIN: u64 = 2_000;
/// Weight of the prior tail in the sums, excesses: those that the engine's own tail remembers.
const PRIOR_WEIGHT: f64 = 30.0;
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
