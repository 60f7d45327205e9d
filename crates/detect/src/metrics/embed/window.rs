//! The window of a series as block means, and its usual range.

use super::super::codec::wire_struct;

/// Coordinates of a shape.
pub(super) const DIM: usize = 8;
/// Samples averaged to one coordinate. Tuned on the development halves: 2 to 6 are alike, 1 and 12 are much worse.
const BLOCK: usize = 6;
/// A shape is looked at with every so manieth sample: those in between differ little from it. Tuned: 3 beside 1 gained 1.4 points on NAB and lost 0.014 of F1 on cloud monitoring.
pub(super) const STRIDE: usize = 3;
/// Samples of a window.
const SPAN: usize = DIM * BLOCK;

const _: () = assert!(SPAN.is_multiple_of(STRIDE));

/// The last [`SPAN`] samples.
#[derive(Debug, Clone, PartialEq)]
#[repr(C)]
pub(super) struct Window {
    samples: [f32; SPAN],
    /// Where the next goes, and how many there are.
    at: u16,
    filled: u16,
}

wire_struct!(Window { samples, at, filled });

impl Default for Window {
    fn default() -> Self {
        Self { samples: [0.0; SPAN], at: 0, filled: 0 }
    }
}

impl Window {
    /// Takes a sample: the mean of the last two.
    #[inline]
    pub(super) fn push(&mut self, v: f32) -> [f32; 1] {
        let at = usize::from(self.at) % SPAN;
        let before = if self.filled == 0 { v } else { self.samples[(at + SPAN - 1) % SPAN] };
        self.samples[at] = v;
        self.at = ((at + 1) % SPAN) as u16;
        self.filled = (self.filled + 1).min(SPAN as u16);
        [0.5 * (before + v)]
    }

    /// Whether a shape is due after so many more samples.
    #[inline]
    pub(super) fn due(&self, more: usize) -> bool {
        (usize::from(self.at) + more).is_multiple_of(STRIDE)
    }

    /// The means of the blocks, oldest first, once the window is full.
    pub(super) fn shape(&self) -> Option<[f32; DIM]> {
        if usize::from(self.filled) < SPAN {
            return None;
        }
        // Oldest first.
        let at = usize::from(self.at) % SPAN;
        let mut ordered = [0.0; SPAN];
        ordered[..SPAN - at].copy_from_slice(&self.samples[at..]);
        ordered[SPAN - at..].copy_from_slice(&self.samples[..at]);
        let mut shape = [0.0; DIM];
        for (x, block) in shape.iter_mut().zip(ordered.as_chunks::<BLOCK>().0) {
            *x = block.iter().sum::<f32>() * (1.0 / BLOCK as f32);
        }
        Some(shape)
    }

    /// Something of every line: reading it brings them in.
    #[inline(always)]
    pub(super) fn touch(&self) -> u32 {
        self.samples.iter().step_by(16).fold(u32::from(self.at), |all, v| all ^ v.to_bits())
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
