//! How rare is a value of a statistic? Counts of the upper tail, on a scale of logarithms.
//!
//! Peaks over threshold (Siffer et al., *Anomaly Detection in Streams with Extreme Value Theory*, KDD 2017) with the
//! peaks kept as counts in quarter octaves: inside what was seen the rank says the probability, beyond the highest the
//! tail goes on as a power law, its exponent from the highest few (Hill 1975) drawn towards a prior. Statistics that
//! are means of m readings repeat themselves: m of them count as one. Only the upper few percent are kept, so that
//! most readings touch nothing but the lowest line; all counts are halved now and then, so that the tail drifts with
//! the series.

/// Bins kept: 32 quarter octaves span a factor of 256.
const BINS: usize = 32;
/// Bits of the mantissa that number the bins of an octave: quarter octaves.
const SUB: u32 = 2;
const SHIFT: u32 = 23 - SUB;
/// ln of the width of a bin.
const BIN_LN: f32 = std::f32::consts::LN_2 / (1 << SUB) as f32;
/// Below this share of readings above it, a value is no surprise at all.
const RARE: f32 = 0.01;
/// Pseudo count of a value that was never seen.
const UNSEEN: f32 = 0.3;
/// The exponent of the tail comes from so many of the highest.
const HIGHEST: f32 = 5.0;
/// Prior of the mean excess (in ln) beyond the highest, and its weight in readings.
const PRIOR: f32 = 0.35;
const PRIOR_N: f32 = 10.0;
/// Least mean excess: a tail that ends like a wall is drawn as one of these.
const EXCESS_MIN: f32 = 0.1;
/// How far extrapolation may go, in log10 of the probability.
const BEYOND_MAX: f32 = 2.0;
/// Readings after which all counts are halved.
pub(super) const MEMORY: u32 = 12_000;

/// Tail of one statistic.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Tail {
    /// Absolute number of the lowest bin kept; 0: no reading yet.
    pub(super) floor: u32,
    /// Readings in the bins.
    pub(super) sum: u32,
    pub(super) counts: [u16; BINS],
}

impl Default for Tail {
    fn default() -> Self {
        Self { floor: 0, sum: 0, counts: [0; BINS] }
    }
}

/// Bin of a positive value; monotone, and a factor of two is the same step everywhere.
#[inline(always)]
pub(super) fn bin(value: f32) -> u32 {
    value.to_bits() >> SHIFT
}

impl Tail {
    /// -log10 of the probability of a value so high, after `n` readings of which `repeat` say one thing.
    #[inline(never)]
    pub(super) fn surprise(&self, value: f32, n: u32, repeat: f32) -> f32 {
        let n = n as f32;
        if self.floor == 0 || n < 20.0 {
            return 0.0;
        }
        let Some(at) = bin(value).checked_sub(self.floor) else { return 0.0 };
        let mask = (1u32 << SHIFT) - 1;
        let part = (value.to_bits() & mask) as f32 / (mask as f32 + 1.0);
        let mut above = 0.0;
        for i in (at as usize + 1).min(BINS)..BINS {
            above += f32::from(self.counts[i]);
        }
        if above > RARE * n {
            return 0.0;
        }
        if let Some(here) = self.counts.get(at as usize) {
            above += f32::from(*here) * (1.0 - part);
        }
        let rate = (above / repeat + UNSEEN) / (n / repeat + 1.0);
        let mut surprise = -rate.min(1.0).log10();
        let Some(top) = self.counts.iter().rposition(|c| *c > 0) else { return surprise };
        let over = at as f32 + part - (top as f32 + 0.5);
        if over > 0.0 {
            let (mut k, mut sum, mut low) = (0.0, 0.0, top);
            for i in (0..=top).rev() {
                k += f32::from(self.counts[i]);
                sum += f32::from(self.counts[i]) * i as f32;
                low = i;
                if k >= HIGHEST * repeat {
                    break;
                }
            }
            let weight = k / repeat.sqrt();
            let mean = (sum / k - low as f32 + 0.5) * BIN_LN;
            let excess = ((mean * weight + PRIOR * PRIOR_N) / (weight + PRIOR_N)).max(EXCESS_MIN);
            surprise += (over * BIN_LN / excess * std::f32::consts::LOG10_E).min(BEYOND_MAX);
        }
        surprise
    }

    /// Learns a value; `n` readings were learned before. What is below the floor leaves no trace.
    #[inline(never)]
    pub(super) fn learn(&mut self, value: f32, n: u32) {
        let bin = bin(value);
        if bin < self.floor {
            return;
        }
        if self.floor == 0 {
            self.floor = bin.saturating_sub(BINS as u32 / 2).max(1);
        }
        let mut at = (bin - self.floor) as usize;
        if at >= BINS {
            let up = at - BINS + 3;
            self.raise(up);
            at -= up;
        }
        self.counts[at] = self.counts[at].saturating_add(1);
        self.sum += 1;
        // Five percent are enough of a tail.
        if self.sum > 32 + n / 20 {
            let enough = 16 + n / 40;
            let (mut up, mut left) = (0, self.sum);
            while up < BINS - 1 && left - u32::from(self.counts[up]) > enough {
                left -= u32::from(self.counts[up]);
                up += 1;
            }
            self.raise(up);
        }
    }

    fn raise(&mut self, up: usize) {
        let gone: u32 = self.counts[..up.min(BINS)].iter().map(|c| u32::from(*c)).sum();
        if up < BINS {
            self.counts.copy_within(up.., 0);
        }
        self.counts[BINS - up.min(BINS)..].fill(0);
        self.floor = self.floor.saturating_add(up as u32);
        self.sum -= gone.min(self.sum);
    }

    /// A tail that holds too little of the readings looks further down.
    pub(super) fn widen(&mut self, n: u32) {
        if self.floor > 1 && self.sum < n / 64 && self.counts[BINS - 1] == 0 {
            self.counts.copy_within(..BINS - 1, 1);
            self.counts[0] = 0;
            self.floor -= 1;
        }
    }

    /// Forgets half.
    pub(super) fn halve(&mut self) {
        for c in &mut self.counts {
            *c = c.div_ceil(2);
        }
        self.sum = self.counts.iter().map(|c| u32::from(*c)).sum();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draws(seed: u64) -> impl FnMut() -> f32 {
        let mut s = seed;
        move || {
            s = s.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (s >> 40) as f32 / (1u64 << 24) as f32
        }
    }

    #[test]
    fn surprises_come_as_often_as_they_say() {
        let (mut tail, mut draw) = (Tail::default(), draws(1));
        let (mut two, mut three) = (0, 0);
        for n in 0..11_000u32 {
            // Exponential: no value is the highest for ever.
            let value = -(1.0 - draw()).max(1e-9).ln() + 1e-6;
            let s = tail.surprise(value, n, 1.0);
            if n >= 1_000 {
                two += u32::from(s >= 2.0);
                three += u32::from(s >= 3.0);
            }
            tail.learn(value, n);
        }
        assert!((30..=150).contains(&two), "{two}");
        assert!((2..=25).contains(&three), "{three}");
    }

    #[test]
    fn a_higher_value_is_never_less_of_a_surprise() {
        let (mut tail, mut draw) = (Tail::default(), draws(2));
        for n in 0..3_000 {
            tail.learn(0.5 + draw(), n);
        }
        let mut last = 0.0;
        for i in 1..4_000u16 {
            let s = tail.surprise(f32::from(i) / 500.0, 3_000, 1.0);
            assert!(s >= last - 0.02, "{i} {last} {s}");
            last = s;
        }
        assert!(last > 4.0 && last < 7.0, "{last}");
    }

    #[test]
    fn counts_are_kept_whatever_comes() {
        let (mut tail, mut draw) = (Tail::default(), draws(3));
        for n in 0..20_000u32 {
            let value = (draw() * 160.0 - 80.0).exp2();
            tail.learn(value, n);
            if n.is_multiple_of(256) {
                tail.widen(n);
            }
            if n % 5_000 == 4_999 {
                tail.halve();
            }
            assert_eq!(tail.sum, tail.counts.iter().map(|c| u32::from(*c)).sum::<u32>());
        }
    }
}
