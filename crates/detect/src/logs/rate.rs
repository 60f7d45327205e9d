//! The rate of one template of one entity, learned a minute at a time.
//!
//! A minute is scored with what was learned before it, and only then learned. Counts vary more than Poisson's law
//! says, so the variance is learned too and widens the band (quasi-Poisson, McCullagh and Nelder 1989, §6.2); the
//! square root makes the scale even (Anscombe 1948).

use serde::{Deserialize, Serialize};

/// Minutes over which a rate is remembered.
const MEMORY: f64 = 60.0;

/// What was learned of a rate, per minute.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, Default)]
pub(super) struct Rate {
    /// Minutes learned.
    pub(super) minutes: u32,
    /// Mean lines.
    pub(super) mean: f64,
    /// Variance around the mean.
    pub(super) variance: f64,
    /// Share of minutes with a line.
    pub(super) present: f64,
}

/// The square root that makes Poisson counts have a variance of about one.
fn even(count: f64) -> f64 {
    2.0 * (count + 0.375).sqrt()
}

impl Rate {
    /// How many times wider than Poisson's law its counts vary.
    fn dispersion(&self) -> f64 {
        (self.variance / self.mean.max(0.05)).clamp(1.0, 1e6)
    }

    /// Distance of `count` from what is expected, in standard deviations.
    pub(super) fn sigma(&self, count: f64) -> f64 {
        (even(count) - even(self.mean)) / self.dispersion().sqrt()
    }

    /// Smallest count that is `sigma` above what is expected.
    pub(super) fn threshold(&self, sigma: f64) -> f64 {
        let root = even(self.mean) + sigma * self.dispersion().sqrt();
        (root / 2.0).powi(2) - 0.375
    }

    /// Learns a minute.
    pub(super) fn learn(&mut self, count: f64) {
        self.minutes = self.minutes.saturating_add(1);
        let gain = (1.0 / f64::from(self.minutes)).max(1.0 / MEMORY);
        let off = count - self.mean;
        self.mean += gain * off;
        self.variance = (1.0 - gain) * (self.variance + gain * off * off);
        self.present += gain * (f64::from(u8::from(count > 0.0)) - self.present);
    }

    /// A rate of something never seen during `minutes` minutes.
    pub(super) const fn silent(minutes: u32) -> Self {
        Self { minutes, mean: 0.0, variance: 0.0, present: 0.0 }
    }

    /// Silent minutes in a row whose chance is below `probability`, at least 5.
    pub(super) fn silence(&self, probability: f64) -> f64 {
        // A template that was there every minute may still miss one: 0.98 at most.
        let quiet = (1.0 - self.present.min(0.98)).max(1e-9);
        (probability.ln() / quiet.ln()).ceil().max(5.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threshold_and_sigma_agree() {
        let mut rate = Rate::default();
        for i in 0..200 {
            rate.learn(f64::from(20 + i % 7));
        }
        for sigma in [3.0, 5.0, 8.0] {
            assert!((rate.sigma(rate.threshold(sigma)) - sigma).abs() < 1e-9);
        }
        assert!(rate.sigma(23.0).abs() < 0.5);
    }

    #[test]
    fn a_wild_rate_needs_more_lines_than_a_steady_one() {
        let (mut steady, mut wild) = (Rate::default(), Rate::default());
        for i in 0..300 {
            steady.learn(30.0);
            wild.learn(if i % 10 == 0 { 300.0 } else { 0.0 });
        }
        assert!((steady.mean - wild.mean).abs() < 15.0);
        assert!(wild.threshold(5.0) > 300.0 && steady.threshold(5.0) < 80.0);
    }

    #[test]
    fn regular_templates_are_missed_sooner() {
        let mut every = Rate::default();
        let mut tenth = Rate::default();
        for i in 0..600 {
            every.learn(1.0);
            tenth.learn(f64::from(u8::from(i % 10 == 0)));
        }
        assert!(every.silence(1e-6) <= 6.0);
        assert!(tenth.silence(1e-6) > 60.0);
    }
}
