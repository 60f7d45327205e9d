//! Extreme value threshold: how large a distance is so rare that it is an alarm?
//!
//! Peaks over threshold after Siffer et al., *Anomaly Detection in Streams with Extreme Value Theory*, KDD 2017: the
//! excesses over a high quantile follow a generalized Pareto distribution whatever the series, so that the quantile
//! for any risk follows from them. Made constant in time and space: the high quantile is tracked by stochastic
//! approximation (Robbins and Monro 1951), and the distribution is fitted by moments of exponentially weighted sums
//! (Hosking and Wallis 1987) instead of Grimshaw's search over stored peaks. Excesses are clipped before they are
//! learned, so that one accident does not make the next one normal; what comes again and again does.

/// Share of readings above the tracked quantile.
const LEVEL: f32 = 0.02;
/// Step of the tracker in sigmas per reading.
const STEP: f32 = 0.04;
/// Weight of a new excess.
const WEIGHT: f32 = 1.0 / 30.0;
/// Where the tracked quantile may be, in sigmas: below, noise would be fitted; above, one accident would be.
const T_RANGE: (f32, f32) = (1.5, 20.0);
/// Where the threshold may be, in sigmas.
const Z_RANGE: (f32, f32) = (2.5, 5_000.0);
/// Share of the way, in logarithms, that an alarm draws the threshold towards itself.
const DRAW: f32 = 0.25;

/// The tail of one side, in sigmas. 16 bytes.
#[derive(Debug, Clone, Copy, PartialEq)]
#[repr(C)]
pub(crate) struct Tail {
    /// The high quantile.
    pub(crate) t: f32,
    /// Mean excess.
    pub(crate) m: f32,
    /// Mean square of the excess.
    pub(crate) v: f32,
    /// The threshold for the configured risk.
    pub(crate) z: f32,
}

impl Tail {
    /// An exponential tail a little heavier than the normal one (whose mean excess over 2.3 sigma is 0.35): a series
    /// of which nothing is known is given the benefit of the doubt.
    pub(crate) fn prior(risk: f32) -> Self {
        let mut tail = Self { t: 2.5, m: 0.6, v: 0.72, z: 0.0 };
        tail.fit(risk);
        tail
    }

    /// Starts with the excesses that series of the same family showed, instead of the prior's.
    pub(crate) fn seed(&mut self, mean: f32, square: f32, risk: f32) {
        (self.m, self.v) = (mean, square);
        self.fit(risk);
    }

    /// Learns a distance (negative: the other side's).
    #[inline(always)]
    pub(crate) fn observe(&mut self, d: f32, risk: f32) {
        if d > self.t {
            self.excess(d, risk);
        } else {
            self.t = (self.t - STEP * LEVEL).max(T_RANGE.0);
        }
    }

    #[cold]
    #[inline(never)]
    fn excess(&mut self, d: f32, risk: f32) {
        let e = d.min(1.25 * self.z) - self.t;
        if e > 0.0 {
            self.m += WEIGHT * (e - self.m);
            self.v += WEIGHT * (e * e - self.v);
        }
        self.t = (self.t + STEP * (1.0 - LEVEL)).min(T_RANGE.1);
        self.fit(risk);
    }

    /// An alarm was raised at `d`: its like is a little less of a surprise. What was r times the threshold is r^0.75
    /// times at its return, so that a fault is found again the next day, and the spike of every hour is not for ever.
    pub(crate) fn event(&mut self, d: f32, risk: f32) {
        if d <= self.z || self.z <= self.t {
            return;
        }
        let z = (self.z * (d / self.z).powf(DRAW)).min(Z_RANGE.1);
        let factor = (z - self.t) / (self.z - self.t);
        self.m *= factor;
        self.v *= factor * factor;
        self.fit(risk);
    }

    fn fit(&mut self, risk: f32) {
        let variance = (self.v - self.m * self.m).max(1e-6);
        // Shape by moments; bounded, since the variance of few excesses says little: -0.2 is bounded tails, 0.35 heavy.
        let shape = (0.5 * (1.0 - self.m * self.m / variance)).clamp(-0.2, 0.35);
        let scale = self.m * (1.0 - shape);
        let ratio = (LEVEL / risk).max(1.0);
        let reach = if shape.abs() < 1e-3 { ratio.ln() } else { (ratio.powf(shape) - 1.0) / shape };
        self.z = (self.t + scale * reach).clamp(Z_RANGE.0, Z_RANGE.1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A small generator with a fixed seed; normal deviates by the sum of twelve uniforms.
    fn noise(seed: u64) -> impl FnMut() -> f32 {
        let mut s = seed;
        move || {
            (0..12)
                .map(|_| {
                    s = s.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                    (s >> 40) as f32 / (1u64 << 24) as f32
                })
                .sum::<f32>()
                - 6.0
        }
    }

    #[test]
    fn the_false_alarm_rate_is_about_the_setting() {
        let mut draw = noise(1);
        let mut tail = Tail::prior(1e-3);
        let (mut alarms, n) = (0, 200_000);
        for i in 0..n + 5_000 {
            let d = draw();
            if i >= 5_000 && d > tail.z {
                alarms += 1;
            }
            tail.observe(d, 1e-3);
        }
        let rate = f64::from(alarms) / f64::from(n);
        assert!((1e-4..4e-3).contains(&rate), "{rate}");
    }

    #[test]
    fn heavier_tails_get_higher_thresholds_and_one_accident_does_not() {
        let mut draw = noise(2);
        let (mut normal, mut heavy) = (Tail::prior(1e-4), Tail::prior(1e-4));
        for _ in 0..20_000 {
            let d = draw();
            normal.observe(d, 1e-4);
            heavy.observe(d * d * d, 1e-4);
        }
        assert!(heavy.z > 2.0 * normal.z, "{} {}", heavy.z, normal.z);
        let before = normal.z;
        normal.observe(1e4, 1e-4);
        assert!(normal.z < 1.5 * before, "{before} {}", normal.z);
        normal.event(16.0 * normal.z, 1e-4);
        assert!(normal.z < 2.1 * 1.5 * before, "{before} {}", normal.z);
    }
}
