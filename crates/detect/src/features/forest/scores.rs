//! Scores of the past as a histogram that forgets: where does the threshold of a contamination lie?

use crate::metrics::wire_struct;

/// Bins, evenly over [`LOW`]..[`HIGH`]; what lies outside is in the first or last.
pub(super) const BINS: usize = 200;
/// Scores of forests lie here: below 0.3 nothing is more ordinary, above 0.9 nothing is more alone.
const LOW: f64 = 0.3;
const HIGH: f64 = 0.9;
/// Scores before a quantile is told: so many that one in a hundred has been seen, if just.
const TOLD_MIN: u32 = 100;
/// Weight of a new score from which all are scaled down.
const WEIGHT_MAX: f32 = 1e6;

/// Scores that were seen, newer ones with more weight.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Scores {
    bins: Vec<f32>,
    /// Weight of the next score: it grows, so that old ones need not be touched.
    weight: f32,
    n: u32,
}

wire_struct!(Scores { bins, weight, n });

impl Default for Scores {
    fn default() -> Self {
        Self { bins: vec![0.0; BINS], weight: 1.0, n: 0 }
    }
}

impl Scores {
    /// Whether it can be what [`Self::add`] left.
    pub(super) fn valid(&self) -> bool {
        let fine = |v: &f32| v.is_finite() && *v >= 0.0;
        self.bins.len() == BINS && self.bins.iter().all(fine) && fine(&self.weight) && self.weight > 0.0
    }

    /// Adds one. `memory`: how many later ones leave it a share of 1/e.
    pub(super) fn add(&mut self, score: f64, memory: u32) {
        if !score.is_finite() {
            return;
        }
        let bin = ((score - LOW) / (HIGH - LOW) * BINS as f64).clamp(0.0, BINS as f64 - 1.0) as usize;
        self.bins[bin] += self.weight;
        self.n = self.n.saturating_add(1);
        self.weight *= 1.0 + 1.0 / memory.max(1) as f32;
        if self.weight > WEIGHT_MAX {
            self.bins.iter_mut().for_each(|b| *b /= WEIGHT_MAX);
            self.weight /= WEIGHT_MAX;
        }
    }

    /// The score below which a share of `q` lies. `None`: too few were seen.
    pub(super) fn quantile(&self, q: f64) -> Option<f64> {
        if self.n < TOLD_MIN {
            return None;
        }
        let total: f64 = self.bins.iter().map(|b| f64::from(*b)).sum();
        let mut left = q * total;
        for (i, b) in self.bins.iter().enumerate() {
            let b = f64::from(*b);
            if left <= b && b > 0.0 {
                return Some(LOW + (i as f64 + left / b) * (HIGH - LOW) / BINS as f64);
            }
            left -= b;
        }
        Some(HIGH)
    }
}
