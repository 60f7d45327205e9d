//! The window of a series as block means, and its usual range.

use super::super::codec::wire_struct;

/// Coordinates of a shape.
pub(super) const DIM: usize = 8;
/// Samples averaged to one coordinate. Tuned on the development halves: 2 to 6 are alike, 1 and 12 are much worse.
const BLOCK: usize = 6;
/// Samples of a window.
const SPAN: usize = DIM * BLOCK;

/// The last [`SPAN`] means of [`BLOCK`] samples.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Window {
    recent: [f32; BLOCK],
    means: [f32; SPAN],
    at: u16,
    filled: u16,
}

wire_struct!(Window { recent, means, at, filled });

impl Default for Window {
    fn default() -> Self {
        Self { recent: [0.0; BLOCK], means: [0.0; SPAN], at: 0, filled: 0 }
    }
}

impl Window {
    /// Takes a sample: the mean of the last two, and the shape of the window that ends with it, oldest block first, once
    /// there is a whole one.
    pub(super) fn push(&mut self, v: f32) -> ([f32; 1], Option<[f32; DIM]>) {
        let at = usize::from(self.at) % SPAN;
        let before = if self.filled == 0 { v } else { self.recent[(at + BLOCK - 1) % BLOCK] };
        self.recent[at % BLOCK] = v;
        self.means[at] = self.recent.iter().sum::<f32>() / BLOCK as f32;
        self.at = ((at + 1) % SPAN) as u16;
        self.filled = (self.filled + 1).min(SPAN as u16);
        let pair = [0.5 * (before + v)];
        if usize::from(self.filled) < SPAN {
            return (pair, None);
        }
        let mut shape = [0.0; DIM];
        let mut from = at;
        for x in &mut shape {
            from = if from + BLOCK < SPAN { from + BLOCK } else { from + BLOCK - SPAN };
            *x = self.means[from];
        }
        (pair, Some(shape))
    }
}

/// Usual range of the values: their outer quantiles, started from the first samples and followed since.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(super) struct Range {
    low: f32,
    high: f32,
    /// Mean distance from the middle of the range.
    spread: f32,
    seen: u32,
}

wire_struct!(Range { low, high, spread, seen });

impl Range {
    /// Samples before there is a range.
    pub(super) const WARM: usize = 150;
    /// The share of samples outside on each side.
    const OUTSIDE: f32 = 0.05;
    /// Samples after which the range forgets as fast as it learns.
    const MEMORY: f32 = 2000.0;
    /// Step of the stochastic approximation, in widths. Tuned: 3 to 5 are alike, 0 and 20 are worse.
    const STEP: f32 = 5.0;

    pub(super) fn seen(self) -> usize {
        self.seen as usize
    }

    /// Counts a sample of the warm-up; the number with it.
    pub(super) fn count(&mut self) -> usize {
        self.seen += 1;
        self.seen()
    }

    pub(super) fn start(&mut self, first: &[f32; Self::WARM]) {
        let mut sorted = *first;
        sorted.sort_unstable_by(f32::total_cmp);
        let last = (Self::WARM - 1) as f32;
        self.low = sorted[(Self::OUTSIDE * last) as usize];
        self.high = sorted[((1.0 - Self::OUTSIDE) * last) as usize];
        let middle = 0.5 * (self.low + self.high);
        self.spread = first.iter().map(|v| (v - middle).abs()).sum::<f32>() / Self::WARM as f32;
    }

    /// Quantiles by stochastic approximation (Robbins and Monro 1951): a step up as often as the quantile says.
    pub(super) fn learn(&mut self, v: f32) {
        self.seen = self.seen.saturating_add(1);
        let weight = 1.0 / (self.seen as f32).min(Self::MEMORY);
        let step = Self::STEP * weight * (self.high - self.low).max(self.high.abs() * 1e-3);
        let (inner, outer) = (step * (1.0 - Self::OUTSIDE), step * Self::OUTSIDE);
        self.high += if v > self.high { inner } else { -outer };
        self.low += if v < self.low { -inner } else { outer };
        self.spread += weight * ((v - 0.5 * (self.low + self.high)).abs() - self.spread);
    }

    /// Never 0. Where nearly all values are the same, how far the few others lie decides; a constant series has a tenth
    /// of its first departure, or as good as nothing, for a range.
    pub(super) fn width(self) -> f32 {
        let width = (self.high - self.low).max(0.5 * self.spread);
        if width > 0.0 { width } else { (self.high.abs() * 0.1).max(1e-9) }
    }
}
