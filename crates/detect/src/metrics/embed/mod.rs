//! Shape: has this series ever looked like this? A lagged embedding against a bounded set of remembered shapes.
//!
//! Lives here: [`Embed`], the state of one series: a window of block means (`window`), the shapes and the levels seen so
//! far (`bank`) and how unusual a distance is among the distances of this series (`tail`); [`Gate`], the alarm rule of
//! this layer alone. Never here: names, other series.
//!
//! The idea is that of adaptive resonance (Carpenter and Grossberg 1987; Carpenter, Grossberg and Rosen 1991): an input
//! that resonates with a known category at the vigilance moves that category a little; one that does not founds a new
//! one, and how far it was from the nearest is its novelty. The categories are a bounded set, so the cost of a sample
//! does not grow with the history, as that of a matrix profile would. The step from distance to probability is that of
//! conformal detection: the share of this series' own past that was as novel (Burnaev and Ishimtsev 2016), with an
//! exponential tail beyond what was seen.

mod bank;
mod gate;
mod tail;
#[cfg(test)]
mod tests;
mod window;

use super::Wire;
use super::codec::wire_struct;
use bank::{Bank, Vigilance};
pub use gate::Gate;
use tail::{FIRST, Tail};
use window::{DIM, Range, STRIDE, Window};

/// Version of the state's bytes and of its meaning: raise it with either.
pub const EMBED_VERSION: u16 = 3;

/// What a sample looked like beside the past of its series.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Surprise {
    /// -log10 of the probability of a shape at least as novel in this series, at least 0; 0 while too little is known.
    pub nlp: f32,
    /// Distance to the nearest remembered shape, in units of the usual range of the series; 0 while it is learning.
    pub novelty: f32,
}

/// Shapes: 48 categories of 8 blocks. More do not help, 32 cost half a point.
type Shapes = Bank<DIM, 48>;
/// Values: 32 levels of the mean of two samples.
type Values = Bank<1, 32>;

/// Coarse, as adaptive resonance found best. Tuned on the development halves: 0.2 to 0.3 are alike, 0.1 is much worse.
const SHAPES: Vigilance = Vigilance { radius: 0.25, rarity: 0.0 };
/// Levels met in few separate episodes stay rare. Tuned: rarity 0.3 to 0.6 are alike, 0 costs two points.
const VALUES: Vigilance = Vigilance { radius: 0.15, rarity: 0.4 };

/// A value this rare (-log10 of the probability) has its shape looked at whether or not that is due. Tuned: 0.9 to 1.2
/// are alike.
const UNSURE: f32 = 1.0;

/// Shape memory of one series: fixed size, no allocation, constant cost per sample.
///
/// Scores do not depend on the offset or the (positive) scale of the values, beyond the precision of `f32`.
///
/// What every sample touches stands first; the shapes behind that, half of it all, are for every third.
#[derive(Debug, Clone, PartialEq)]
#[repr(C, align(64))]
pub struct Embed {
    /// First value: the others are kept relative to it, so that `f32` suffices for counters and temperatures alike.
    origin: f64,
    last_ns: i64,
    range: Range,
    shape_tail: Tail,
    value_tail: Tail,
    /// What the last shape was like.
    shape: Surprise,
    window: Window,
    values: Values,
    shapes: Shapes,
    /// First novelties of shapes and of values.
    first: [[f32; FIRST]; 2],
}

macro_rules! wire_array {
    ($($t:ty),*) => {$(
        impl<const N: usize> Wire for [$t; N] {
            fn put(&self, out: &mut Vec<u8>) {
                self.iter().for_each(|v| v.put(out));
            }
            fn take(from: &mut &[u8]) -> Option<Self> {
                let mut all = [<$t>::default(); N];
                for v in &mut all {
                    *v = Wire::take(from)?;
                }
                Some(all)
            }
        }
    )*};
}
wire_array!(f32, u32, u16);

wire_struct!(Surprise { nlp, novelty });

impl Wire for [[f32; FIRST]; 2] {
    fn put(&self, out: &mut Vec<u8>) {
        self.iter().for_each(|v| v.put(out));
    }
    fn take(from: &mut &[u8]) -> Option<Self> {
        Some([Wire::take(from)?, Wire::take(from)?])
    }
}

wire_struct!(Embed { origin, last_ns, range, shape_tail, value_tail, shape, window, values, shapes, first });

impl Default for Embed {
    fn default() -> Self {
        Self {
            origin: f64::NAN,
            last_ns: i64::MIN,
            range: Range::default(),
            shape_tail: Tail::default(),
            value_tail: Tail::default(),
            shape: Surprise::default(),
            window: Window::default(),
            values: Bank::default(),
            shapes: Bank::default(),
            first: [[0.0; FIRST]; 2],
        }
    }
}

impl Embed {
    /// Something of what the next sample will need: reading it brings its memory in.
    #[inline(always)]
    pub(crate) fn touch(&self) -> u32 {
        let shapes = if self.window.due(1) { self.shapes.touch() } else { 0 };
        self.range.seen() as u32 ^ self.shape.nlp.to_bits() ^ self.window.touch() ^ self.values.touch() ^ shapes
    }

    /// Takes the next sample and says how novel the window that ends with it is.
    ///
    /// `at_ns`: its time, nanoseconds since the epoch. A sample that is not newer than the one before, or whose value is
    /// not finite, changes nothing and surprises nobody.
    pub fn step(&mut self, at_ns: i64, value: f64) -> Surprise {
        if !value.is_finite() || at_ns <= self.last_ns {
            return Surprise::default();
        }
        self.last_ns = at_ns;
        if self.origin.is_nan() {
            self.origin = value;
        }
        // Beyond f32 (or after an overflow of the difference) the edge of f32 is novel enough.
        let v = ((value - self.origin) as f32).clamp(-1e18, 1e18);
        let seen = self.range.seen();
        if seen < Range::WARM {
            self.shapes.scratch()[seen] = v;
            if self.range.count() == Range::WARM {
                self.start();
            }
            return Surprise::default();
        }
        self.range.learn(v);
        self.look(v)
    }

    /// The first samples are all there: the range is known, and they are the first shapes.
    fn start(&mut self) {
        let mut first = [0.0; Range::WARM];
        first.copy_from_slice(&self.shapes.scratch()[..Range::WARM]);
        self.shapes = Bank::default();
        self.range.start(&first);
        for v in first {
            self.look(v);
        }
    }

    fn look(&mut self, v: f32) -> Surprise {
        let pair = self.window.push(v);
        let [first_shapes, first_values] = &mut self.first;
        let value = self.values.meet(&pair, self.range, VALUES);
        let value_nlp = value.map_or(0.0, |d| self.value_tail.rank::<1>(d, first_values));
        // The costly layer looks at every third sample, and where the cheap one is unsure.
        if (value_nlp > UNSURE || self.window.due(0))
            && let Some(shape) = self.window.shape()
        {
            let novelty = self.shapes.meet(&shape, self.range, SHAPES);
            let nlp = novelty.map_or(0.0, |d| self.shape_tail.rank::<{ STRIDE as u32 }>(d, first_shapes));
            self.shape = Surprise { nlp, novelty: novelty.unwrap_or(0.0) };
        }
        // Near the larger of the two, yet two that agree weigh more than one: the mean of the fourth powers.
        let (a, b) = (value_nlp * value_nlp, self.shape.nlp * self.shape.nlp);
        Surprise { nlp: (0.5 * (a * a + b * b)).sqrt().sqrt(), novelty: self.shape.novelty }
    }

    /// The state as bytes, [`EMBED_VERSION`] first.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(size_of::<Self>() + 2);
        EMBED_VERSION.put(&mut out);
        self.put(&mut out);
        out
    }

    /// The state that [`Embed::to_bytes`] wrote; `None` for other bytes or another version.
    pub fn from_bytes(mut bytes: &[u8]) -> Option<Self> {
        let from = &mut bytes;
        if u16::take(from)? != EMBED_VERSION {
            return None;
        }
        let state = Self::take(from)?;
        from.is_empty().then_some(state)
    }
}
