//! One feature of one service against the 50 minutes before: the fixed window that contracts ask for.

use crate::metrics::{score_of, wire_struct};
use nightshift_model::{Phase, Severity};

/// Readings of the fixed window.
pub(super) const WINDOW: usize = 50;

/// The last readings of one feature: a fixed window, as old as the newest 50 minutes.
#[derive(Debug, Default, Clone, PartialEq)]
pub(super) struct Window {
    ring: Vec<f64>,
    next: u32,
    /// Of the alarm that is open: its onset, score, and calm minutes.
    pub(super) onset: Option<i64>,
    last: i64,
    score: f64,
    calm: u32,
    /// Minutes that are off, before it opened, and when they began.
    run: u32,
    began: i64,
}

wire_struct!(Window { ring, next, onset, last, score, calm, run, began });

/// The numbers of a verdict on a minute.
pub(super) struct Numbers {
    pub(super) onset: i64,
    pub(super) last: i64,
    pub(super) score: f64,
    pub(super) sigma: f64,
    pub(super) mean: f64,
    pub(super) scale: f64,
    pub(super) points: u32,
}

impl Window {
    /// Whether it can be what [`Self::step`] left.
    pub(super) fn valid(&self) -> bool {
        self.ring.len() <= WINDOW && (self.next as usize) <= WINDOW
    }

    /// Scores a minute against those before it, then learns it unless it is off.
    pub(super) fn step(&mut self, at: i64, value: f64, sigma: f64, floor: f64, least: f64) -> Option<(Phase, Numbers)> {
        let n = self.ring.len();
        let mean = self.ring.iter().sum::<f64>() / n.max(1) as f64;
        let variance = self.ring.iter().map(|v| (v - mean) * (v - mean)).sum::<f64>() / n.max(1) as f64;
        let scale = variance.sqrt().max(floor).max(0.02 * mean.abs()).max(f64::MIN_POSITIVE);
        let z = (value - mean) / scale;
        // Far in sigmas and worth a look: half as much again, and not next to nothing.
        let off = n >= 30 && z >= sigma && value >= least && value >= 1.5 * mean;
        let score = score_of((z / (2.0 * sigma)) as f32);
        let numbers = |w: &Self| Numbers {
            onset: w.onset.unwrap_or(at),
            last: w.last,
            score: w.score,
            sigma: z,
            mean,
            scale,
            points: n as u32,
        };
        if !off {
            if n < WINDOW {
                self.ring.push(value);
            } else {
                self.ring[self.next as usize % WINDOW] = value;
                self.next = (self.next + 1) % WINDOW as u32;
            }
            self.run = 0;
            if self.onset.is_some() {
                self.calm += 1;
                if self.calm >= 3 {
                    let told = numbers(self);
                    self.onset = None;
                    return Some((Phase::Closed, told));
                }
            }
            return None;
        }
        self.calm = 0;
        self.last = at;
        if self.run == 0 {
            self.began = at;
        }
        self.run += 1;
        if self.onset.is_some() {
            // An hour of the same is the new normal: the window starts again.
            if self.run >= 60 {
                let told = numbers(self);
                *self = Self::default();
                return Some((Phase::Closed, told));
            }
            let worse = Severity::from_score(score) > Severity::from_score(self.score);
            self.score = self.score.max(score);
            return worse.then(|| (Phase::Update, numbers(self)));
        }
        if self.run >= 2 || z >= 4.0 * sigma {
            self.onset = Some(self.began);
            self.score = score;
            return Some((Phase::Open, numbers(self)));
        }
        None
    }
}
