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
const READINGS_MIN: u32 = 2;
/// A table must be better than the next simpler one by this factor.
const BETTER: f32 = 0.85;
/// Readings that the errors remember.
const MEMORY: f32 = 1_000.0;

/// Mean departure in one cell, and readings there.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
#[repr(C)]
pub(super) struct Cell {
    pub(super) mean: f32,
    pub(super) n: u32,
}

/// How good a table is: its mean absolute error, and readings that went into it.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(super) struct Merit {
    pub(super) error: f32,
    pub(super) n: u32,
}

fn index(at: i64, period: i64, n: usize) -> usize {
    ((at.rem_euclid(period) / (period / n as i64)) as usize).min(n - 1)
}

fn look(cell: &Cell, merit: Merit, n: usize, best: &mut f32) -> Option<f32> {
    let known = cell.n >= READINGS_MIN && merit.n as usize > n;
    if !known || merit.error >= BETTER * *best {
        return None;
    }
    *best = merit.error;
    Some(cell.mean)
}

fn enter(cell: &mut Cell, merit: &mut Merit, off: f32, bound: f32) {
    let clipped = (off - cell.mean).clamp(-bound, bound);
    if cell.n > 0 {
        merit.n = merit.n.saturating_add(1);
        merit.error += (clipped.abs() - merit.error) * (1.0 / merit.n as f32).max(1.0 / MEMORY);
    }
    cell.mean += clipped * (1.0 / (cell.n as f32 + 1.0)).max(WEIGHT_MIN);
    cell.n = cell.n.saturating_add(1);
}

/// Day and week of one series. What every reading needs stands first.
#[derive(Debug, Clone, PartialEq)]
#[repr(C)]
pub(super) struct Calendar {
    /// Mean absolute departure from the level alone.
    pub(super) plain: f32,
    pub(super) by_day: Merit,
    pub(super) by_week: Merit,
    pub(super) day: [Cell; DAY_CELLS],
    pub(super) week: [Cell; WEEK_CELLS],
}

impl Default for Calendar {
    fn default() -> Self {
        Self {
            plain: 0.0,
            by_day: Merit::default(),
            by_week: Merit::default(),
            day: [Cell::default(); DAY_CELLS],
            week: [Cell::default(); WEEK_CELLS],
        }
    }
}

impl Calendar {
    /// What the table that is best now adds to the level at `at`; 0 where the level alone is best.
    pub(super) fn expect(&self, at: i64) -> f32 {
        let mut best = self.plain;
        let day = look(&self.day[index(at, DAY, DAY_CELLS)], self.by_day, DAY_CELLS, &mut best);
        let week = look(&self.week[index(at, WEEK, WEEK_CELLS)], self.by_week, WEEK_CELLS, &mut best);
        week.or(day).unwrap_or(0.0)
    }

    /// Learns that the reading at `at`, the `n`th, is `off` the level; errors are clipped at `bound`.
    pub(super) fn learn(&mut self, at: i64, off: f32, bound: f32, n: u32) {
        let weight = (1.0 / (n as f32 + 1.0)).max(1.0 / MEMORY);
        self.plain += weight * (off.abs().min(bound) - self.plain);
        enter(&mut self.day[index(at, DAY, DAY_CELLS)], &mut self.by_day, off, bound);
        enter(&mut self.week[index(at, WEEK, WEEK_CELLS)], &mut self.by_week, off, bound);
    }

    /// Something of the cells of `at`: reading it brings their lines in.
    pub(super) fn touch(&self, at: i64) -> u32 {
        self.day[index(at, DAY, DAY_CELLS)].n ^ self.week[index(at, WEEK, WEEK_CELLS)].n
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
