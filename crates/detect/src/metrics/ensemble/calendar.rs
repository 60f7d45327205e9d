//! What the clock and the day of the week say: a table of the day and one of the week, judged as they are used.
//!
//! People make days and weeks; a season of another length is the forecast's to find. A table's cell is a clipped mean
//! of the departures from the level there. Which of the tables helps is not decided once: each keeps its mean error
//! beside the error of the level alone, and the best one speaks.

const SECOND: i64 = 1_000_000_000;
const DAY: i64 = 86_400 * SECOND;
const WEEK: i64 = 7 * DAY;
/// Cells of the day (30 minutes) and of the week (2 hours).
const DAY_CELLS: usize = 48;
const WEEK_CELLS: usize = 84;
/// Least weight of a new reading in its cell.
const WEIGHT_MIN: f32 = 0.05;
/// A cell speaks after so many readings.
const READINGS_MIN: u16 = 2;
/// A table must be better than the next simpler one by this factor.
const BETTER: f32 = 0.85;
/// Readings that the errors remember.
const MEMORY: f32 = 1_000.0;

/// A table of one period.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Table<const N: usize> {
    pub(super) cells: [f32; N],
    pub(super) readings: [u16; N],
    /// Mean absolute error of the table, and readings that went into it.
    pub(super) error: f32,
    pub(super) n: u32,
}

impl<const N: usize> Default for Table<N> {
    fn default() -> Self {
        Self { cells: [0.0; N], readings: [0; N], error: 0.0, n: 0 }
    }
}

impl<const N: usize> Table<N> {
    fn cell(at: i64, period: i64) -> usize {
        ((at.rem_euclid(period) / (period / N as i64)) as usize).min(N - 1)
    }

    fn look(&self, at: i64, period: i64, best: &mut f32) -> Option<f32> {
        let cell = Self::cell(at, period);
        let known = self.readings[cell] >= READINGS_MIN && self.n as usize > N;
        if !known || self.error >= BETTER * *best {
            return None;
        }
        *best = self.error;
        Some(self.cells[cell])
    }

    fn learn(&mut self, at: i64, period: i64, off: f32, bound: f32) {
        let cell = Self::cell(at, period);
        let error = off - self.cells[cell];
        let clipped = error.clamp(-bound, bound);
        if self.readings[cell] > 0 {
            self.n = self.n.saturating_add(1);
            self.error += (clipped.abs() - self.error) * (1.0 / self.n as f32).max(1.0 / MEMORY);
        }
        self.cells[cell] += clipped * (1.0 / (f32::from(self.readings[cell]) + 1.0)).max(WEIGHT_MIN);
        self.readings[cell] = self.readings[cell].saturating_add(1);
    }
}

/// Day and week of one series.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Calendar {
    pub(super) day: Table<DAY_CELLS>,
    pub(super) week: Table<WEEK_CELLS>,
    /// Mean absolute departure from the level alone.
    pub(super) plain: f32,
}

impl Calendar {
    /// What the table that is best now adds to the level at `at`; 0 where the level alone is best.
    pub(super) fn expect(&self, at: i64) -> f32 {
        let mut best = self.plain;
        let day = self.day.look(at, DAY, &mut best);
        let week = self.week.look(at, WEEK, &mut best);
        week.or(day).unwrap_or(0.0)
    }

    /// Learns that the reading at `at`, the `n`th, is `off` the level; errors are clipped at `bound`.
    pub(super) fn learn(&mut self, at: i64, off: f32, bound: f32, n: u32) {
        let weight = (1.0 / (n as f32 + 1.0)).max(1.0 / MEMORY);
        self.plain += weight * (off.abs().min(bound) - self.plain);
        self.day.learn(at, DAY, off, bound);
        self.week.learn(at, WEEK, off, bound);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_is_learned_and_noise_is_not() {
        let (mut wave, mut noise) = (Calendar::default(), Calendar::default());
        let mut s = 1u64;
        for i in 0..4_000u32 {
            let at = i64::from(i) * 300 * SECOND;
            let phase = (at % DAY) as f32 / DAY as f32;
            s = s.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            wave.learn(at, 10.0 * (phase * std::f32::consts::TAU).sin(), 30.0, i);
            noise.learn(at, (s >> 40) as f32 / (1u64 << 24) as f32 - 0.5, 1.5, i);
        }
        let noon = 40 * DAY;
        assert!((wave.expect(noon + DAY / 4) - 10.0).abs() < 1.0);
        assert!((wave.expect(noon + 3 * DAY / 4) + 10.0).abs() < 1.0);
        assert_eq!(noise.expect(noon), 0.0);
    }
}
