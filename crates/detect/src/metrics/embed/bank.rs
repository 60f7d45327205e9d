//! The shapes a series has shown: a bounded set of categories.

use super::super::codec::wire_struct;
use super::window::DIM;

/// Categories kept. A full bank gives up the one that resonated longest ago.
const SHAPES: usize = 64;
/// Within this distance (in usual ranges of the series) a window is of a known category. Tuned (0.05 to 0.35 tried).
const VIGILANCE: f32 = 0.2;
/// A category follows its members with at least this weight, so that it can drift with them.
const PULL_MIN: f32 = 0.02;

/// Categories of a series, with when each last resonated.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Bank {
    points: [f32; DIM * SHAPES],
    used: [u32; SHAPES],
    members: [u16; SHAPES],
    shapes: u16,
    clock: u32,
}

wire_struct!(Bank { points, used, members, shapes, clock });

impl Default for Bank {
    fn default() -> Self {
        Self { points: [0.0; DIM * SHAPES], used: [0; SHAPES], members: [0; SHAPES], shapes: 0, clock: 0 }
    }
}

impl Bank {
    /// Memory that is free while there is no category yet.
    pub(super) fn scratch(&mut self) -> &mut [f32] {
        &mut self.points
    }

    /// Distance of `shape` to the nearest category, in units of `width`; learns it. `None` for the first of all.
    pub(super) fn meet(&mut self, shape: &[f32; DIM], width: f32) -> Option<f32> {
        let shapes = usize::from(self.shapes).min(SHAPES);
        let (mut near, mut best) = (0, f32::INFINITY);
        for (k, point) in self.points.as_chunks::<DIM>().0[..shapes].iter().enumerate() {
            let mut sum = 0.0;
            for (a, b) in shape.iter().zip(point) {
                sum += (a - b) * (a - b);
            }
            if sum < best {
                (near, best) = (k, sum);
            }
        }
        self.clock = self.clock.wrapping_add(1);
        let novelty = (best / DIM as f32).sqrt() / width;
        let founds = shapes == 0 || novelty > VIGILANCE;
        if founds {
            near = if shapes < SHAPES {
                self.shapes += 1;
                shapes
            } else {
                let age = |k: &usize| self.clock.wrapping_sub(self.used[*k]);
                (0..SHAPES).max_by_key(age).unwrap_or(0)
            };
            self.members[near] = 0;
        }
        self.used[near] = self.clock;
        self.members[near] = self.members[near].saturating_add(1);
        let pull = (1.0 / f32::from(self.members[near])).max(PULL_MIN);
        for (p, x) in self.points[DIM * near..].iter_mut().zip(shape) {
            *p += pull * (x - *p);
        }
        (shapes > 0).then_some(novelty.min(1e9))
    }
}
