//! Linear trend: how long until a limit is reached?
//!
//! Least squares with exponential weights, kept as five sums about the newest reading, so that each sample costs a
//! dozen operations and nothing is rescanned. The line must explain most of the variance, a quarter of the way must
//! have been watched (nothing is extrapolated further than three times what was seen), and it must last.

use super::config::TrendConfig;
use super::policy::Limit;
use nightshift_model::time::NANOS_PER_SEC;

/// The sums of one series that has a limit.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(crate) struct Trend {
    /// What is taken off every value.
    pub(crate) anchor: f64,
    /// Weight.
    pub(crate) s: f64,
    /// Time, seconds before the newest reading, negative.
    pub(crate) st: f64,
    /// Time squared.
    pub(crate) stt: f64,
    /// Value.
    pub(crate) sx: f64,
    /// Value squared.
    pub(crate) sxx: f64,
    /// Time by value.
    pub(crate) stx: f64,
    /// Event time of the first and the newest reading.
    pub(crate) first: i64,
    /// See `first`.
    pub(crate) last: i64,
    /// Event time since when the limit is in sight; `i64::MIN`: it is not.
    pub(crate) since: i64,
    /// Readings.
    pub(crate) n: u32,
}

/// A limit in sight.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Sight {
    /// Seconds until the limit.
    pub(crate) eta_secs: f64,
    /// Share of the variance that the line explains.
    pub(crate) fit: f64,
    /// Slope, units per second.
    pub(crate) slope: f64,
    /// Event time since when it is in sight.
    pub(crate) since: i64,
}

impl Trend {
    /// Learns a reading and says whether the limit is in sight.
    pub(crate) fn step(&mut self, config: &TrendConfig, limit: Limit, at: i64, value: f64) -> Option<Sight> {
        if self.n == 0 {
            *self = Self { anchor: value, first: at, last: at, since: i64::MIN, ..Self::default() };
        }
        let dt = at.saturating_sub(self.last) as f64 / NANOS_PER_SEC as f64;
        // First order of exp(-dt/window): one division, and as good for intervals far below the window.
        let keep = 1.0 / (1.0 + dt / f64::from(config.window_secs));
        self.stt += dt * (dt * self.s - 2.0 * self.st);
        self.st -= dt * self.s;
        self.stx -= dt * self.sx;
        let x = value - self.anchor;
        self.s = self.s * keep + 1.0;
        self.st *= keep;
        self.stt *= keep;
        self.stx *= keep;
        self.sx = self.sx * keep + x;
        self.sxx = self.sxx * keep + x * x;
        self.last = at;
        self.n = self.n.saturating_add(1);
        let sight = self.sight(config, limit, value);
        match sight {
            None => self.since = i64::MIN,
            Some(_) if self.since == i64::MIN => self.since = at,
            Some(_) => {}
        }
        sight.map(|s| Sight { since: self.since, ..s })
    }

    fn sight(&self, config: &TrendConfig, limit: Limit, value: f64) -> Option<Sight> {
        let span = self.last.saturating_sub(self.first) as f64 / NANOS_PER_SEC as f64;
        if self.n < 30 || span < f64::from(config.span_min_secs) {
            return None;
        }
        let (vt, vx) = (self.s * self.stt - self.st * self.st, self.s * self.sxx - self.sx * self.sx);
        let cov = self.s * self.stx - self.st * self.sx;
        // Written so that a NaN is no trend.
        if !(vt > 0.0 && vx > 0.0) {
            return None;
        }
        let (slope, fit) = (cov / vt, cov * cov / (vt * vx));
        let rest = limit.value - value;
        let towards = if limit.falling { slope < 0.0 && rest < 0.0 } else { slope > 0.0 && rest > 0.0 };
        if !(towards && fit >= config.fit_min) {
            return None;
        }
        let eta_secs = rest / slope;
        let reach = f64::from(config.horizon_secs).min(3.0 * span);
        (eta_secs <= reach).then_some(Sight { eta_secs, fit, slope, since: 0 })
    }
}

/// Score of a limit that far away: an hour is for now, four hours for today.
pub(crate) fn score(eta_secs: f64) -> f64 {
    match eta_secs {
        e if e <= 900.0 => 0.92,
        e if e <= 3_600.0 => 0.78,
        e if e <= 4.0 * 3_600.0 => 0.62,
        _ => 0.52,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(value: impl Fn(i64) -> f64, n: i64, limit: f64, falling: bool) -> Option<Sight> {
        let (mut trend, config) = (Trend::default(), TrendConfig::default());
        (0..n).map(|i| trend.step(&config, Limit { value: limit, falling }, i * 10 * NANOS_PER_SEC, value(i))).last()?
    }

    #[test]
    fn a_disk_that_fills_has_a_time_and_a_steady_one_has_none() {
        // 50 % and 1 % a minute: 40 minutes on there are 10 minutes left.
        let sight = run(|i| 0.5 + 0.01 * i as f64 / 6.0, 241, 1.0, false).unwrap();
        assert!((sight.eta_secs - 600.0).abs() < 5.0 && sight.fit > 0.99, "{sight:?}");
        assert_eq!(run(|i| 0.5 + 0.01 * (i % 7) as f64, 400, 1.0, false), None);
        assert_eq!(run(|_| 0.5, 400, 1.0, false), None);
    }

    #[test]
    fn free_space_falls_towards_zero_and_away_is_no_alarm() {
        assert!(run(|i| 1e9 - 1e6 * i as f64, 600, 0.0, true).is_some());
        assert_eq!(run(|i| 1e9 + 1e6 * i as f64, 600, 0.0, true), None);
        // Beyond the horizon.
        assert_eq!(run(|i| 1e12 - 1e3 * i as f64, 600, 0.0, true), None);
    }
}
