//! The patterns a series has shown: a bounded set of categories.

use super::super::codec::Wire;
use super::window::Range;

/// Where a category that does not exist lies: farther than anything.
const NOWHERE: f32 = 1e30;
/// A category follows its members with at least this weight, so that it can drift with them.
const PULL_MIN: f32 = 0.02;
/// Samples after which meeting a category again counts as another visit.
const GAP: u32 = 6;

/// How a bank tells the known from the new. Distances are in usual ranges of the series.
#[derive(Debug, Clone, Copy)]
pub(super) struct Vigilance {
    /// Within this distance a pattern is of a known category.
    pub(super) radius: f32,
    /// A category met n separate times is still this / n away: what was seen once is not yet usual.
    pub(super) rarity: f32,
}

/// Up to `SLOTS` categories of `DIM` coordinates.
#[derive(Debug, Clone, PartialEq)]
#[repr(C)]
pub(super) struct Bank<const DIM: usize, const SLOTS: usize> {
    /// One row a coordinate: the distances to all categories are then sums of whole rows, which the compiler vectorises.
    points: [[f32; SLOTS]; DIM],
    /// When each was met last, by `clock`.
    used: [u32; SLOTS],
    /// Samples of each.
    members: [u16; SLOTS],
    /// Separate times each was met.
    visits: [u16; SLOTS],
    filled: u16,
    clock: u32,
}

impl<const DIM: usize, const SLOTS: usize> Wire for Bank<DIM, SLOTS> {
    fn put(&self, out: &mut Vec<u8>) {
        self.points.iter().for_each(|row| row.put(out));
        self.used.put(out);
        self.members.put(out);
        self.visits.put(out);
        self.filled.put(out);
        self.clock.put(out);
    }

    fn take(from: &mut &[u8]) -> Option<Self> {
        let mut bank = Self::default();
        for row in &mut bank.points {
            *row = Wire::take(from)?;
        }
        bank.used = Wire::take(from)?;
        bank.members = Wire::take(from)?;
        bank.visits = Wire::take(from)?;
        bank.filled = Wire::take(from)?;
        bank.clock = Wire::take(from)?;
        (usize::from(bank.filled) <= SLOTS && bank.points.as_flattened().iter().all(|p| p.is_finite())).then_some(bank)
    }
}

impl<const DIM: usize, const SLOTS: usize> Default for Bank<DIM, SLOTS> {
    fn default() -> Self {
        Self {
            points: [[NOWHERE; SLOTS]; DIM],
            used: [0; SLOTS],
            members: [0; SLOTS],
            visits: [0; SLOTS],
            filled: 0,
            clock: 0,
        }
    }
}

impl<const DIM: usize, const SLOTS: usize> Bank<DIM, SLOTS> {
    /// Memory that is free while there is no category yet.
    pub(super) fn scratch(&mut self) -> &mut [f32] {
        self.points.as_flattened_mut()
    }

    /// Something of every line: reading it brings them in.
    #[inline(always)]
    pub(super) fn touch(&self) -> u32 {
        let points = self.points.as_flattened().iter().step_by(16).fold(0, |all, p| all ^ p.to_bits());
        let used = self.used.iter().step_by(16).fold(self.clock, |all, n| all ^ n);
        let members = self.members.iter().step_by(32).fold(0, |all, n| all ^ n);
        let visits = self.visits.iter().step_by(32).fold(0, |all, n| all ^ n);
        points ^ used ^ u32::from(members ^ visits)
    }

    /// How far `pattern` is from what is known; learns it. `None` for the first of all.
    pub(super) fn meet(&mut self, pattern: &[f32; DIM], range: Range, vigilance: Vigilance) -> Option<f32> {
        let scale = 1.0 / (range.width() * (DIM as f32).sqrt());
        let mut away = [0.0; SLOTS];
        for (x, row) in pattern.iter().zip(&self.points) {
            for (sum, p) in away.iter_mut().zip(row) {
                *sum += (x - p) * (x - p);
            }
        }
        let nearest = least(&away);
        let mut near = away.iter().position(|sum| *sum == nearest).unwrap_or(0);
        let distance = nearest.sqrt() * scale;
        let familiar = vigilance.rarity / f32::from(self.visits[near]);
        // What is left of a rarity below a hundredth of the range is no novelty: most samples end here.
        let novelty = if familiar < 0.01 {
            distance
        } else if vigilance.rarity > 0.0 {
            for (sum, visits) in away.iter_mut().zip(&self.visits) {
                *sum = sum.sqrt() * scale + vigilance.rarity / f32::from(*visits);
            }
            least(&away)
        } else {
            distance
        };
        self.clock = self.clock.wrapping_add(1);
        let first = self.filled == 0;
        let known = !first && distance <= vigilance.radius;
        if !known {
            near = self.free();
            (self.members[near], self.visits[near]) = (0, 0);
            for (row, x) in self.points.iter_mut().zip(pattern) {
                row[near] = *x;
            }
        }
        if !known || self.clock.wrapping_sub(self.used[near]) > GAP {
            self.visits[near] = self.visits[near].saturating_add(1);
        }
        self.used[near] = self.clock;
        self.members[near] = self.members[near].saturating_add(1);
        let pull = (1.0 / f32::from(self.members[near])).max(PULL_MIN);
        for (row, x) in self.points.iter_mut().zip(pattern) {
            row[near] += pull * (x - row[near]);
        }
        (!first).then_some(novelty.min(1e9))
    }

    /// The slot of a new category: a free one, or that of the category met longest ago.
    fn free(&mut self) -> usize {
        let filled = usize::from(self.filled);
        if filled < SLOTS {
            self.filled += 1;
            return filled;
        }
        let mut oldest = (0, 0);
        for (k, used) in self.used.iter().enumerate() {
            let age = self.clock.wrapping_sub(*used);
            if age > oldest.1 {
                oldest = (k, age);
            }
        }
        oldest.0
    }
}

/// The least of them; none is NaN. In lanes, because a running minimum of floats is not vectorised.
fn least<const N: usize>(all: &[f32; N]) -> f32 {
    let mut lanes = [f32::INFINITY; 8];
    for chunk in all.as_chunks::<8>().0 {
        for (lane, v) in lanes.iter_mut().zip(chunk) {
            *lane = if *v < *lane { *v } else { *lane };
        }
    }
    let rest = all.as_chunks::<8>().1;
    lanes.iter().chain(rest).fold(f32::INFINITY, |least, v| if *v < least { *v } else { least })
}
