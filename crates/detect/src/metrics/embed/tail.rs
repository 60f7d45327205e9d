//! How unusual a novelty is among those of the same series.

use super::super::codec::wire_struct;

/// Novelties before there is a distribution.
pub(super) const FIRST: usize = 48;
/// Novelties far below this share of the usual range are all alike: nothing.
const NOTHING: f32 = 0.05;
/// Least distance between quantiles, in logarithms of the novelty: in a perfectly regular series the tenth part of a
/// novelty more is no event.
const SPAN_MIN: f32 = 0.1;

/// Quantiles of the logarithm of the novelty, followed by stochastic approximation.
#[derive(Debug, Clone, Default, PartialEq)]
#[repr(C)]
pub(super) struct Tail {
    /// Samples, those between the novelties included.
    seen: u32,
    q50: f32,
    q90: f32,
    q99: f32,
}

wire_struct!(Tail { seen, q50, q90, q99 });

impl Tail {
    /// Samples after which the quantiles forget as fast as they learn.
    const MEMORY: f32 = 4000.0;
    /// Step of the stochastic approximation, in spans of the quantiles. Tuned: 3 to 6 are alike.
    const STEP: f32 = 5.0;
    /// The outermost quantile moves so much faster, since it is met so seldom. Tuned: 2 to 3 are alike.
    const OUTER: f32 = 3.0;

    /// -log10 of the probability of a novelty as large as this one; learns it. There is a novelty with every `EVERY`th
    /// sample. `first` keeps the first ones, until there are quantiles.
    #[inline]
    pub(super) fn rank<const EVERY: u32>(&mut self, novelty: f32, first: &mut [f32; FIRST]) -> f32 {
        let x = (novelty + NOTHING).ln();
        let seen = (self.seen / EVERY) as usize;
        self.seen = self.seen.saturating_add(EVERY);
        let enough = FIRST / EVERY as usize;
        if seen < enough {
            first[seen] = x;
            if seen + 1 == enough {
                let sorted = &mut first[..enough];
                sorted.sort_unstable_by(f32::total_cmp);
                (self.q50, self.q90, self.q99) = (sorted[enough / 2], sorted[enough * 9 / 10], sorted[enough - 1]);
            }
            return 0.0;
        }
        let body = (self.q90 - self.q50).max(SPAN_MIN);
        let tail = (self.q99 - self.q90).max(0.25 * body).max(SPAN_MIN);
        // Log-linear in the body, an exponential tail of the logarithm (a power law of the novelty) beyond it.
        let nlp = if x <= self.q50 {
            0.0
        } else if x <= self.q90 {
            (0.3 + 0.7 * (x - self.q50) / body).min(1.0)
        } else {
            1.0 + (x - self.q90) / tail
        };
        let step =
            EVERY as f32 * Self::STEP * (self.q99 - self.q50).max(SPAN_MIN) / (self.seen as f32).min(Self::MEMORY);
        self.q50 += step * if x > self.q50 { 0.5 } else { -0.5 };
        self.q90 += step * if x > self.q90 { 0.9 } else { -0.1 };
        self.q99 += Self::OUTER * step * if x > self.q99 { 0.99 } else { -0.01 };
        self.q90 = self.q90.max(self.q50);
        self.q99 = self.q99.max(self.q90);
        nlp.min(99.0)
    }
}
