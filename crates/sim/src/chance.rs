//! Chance that does not depend on who asked before: a number is a function of seed, stream and tick.
//!
//! A generator with state would give the twin without a fault other noise than the world with it, as soon as one of
//! them draws once more. Hashing a counter (SplitMix64, Steele et al., OOPSLA 2014) has no such state.

/// What a number is for; equal ticks of different streams are independent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stream {
    /// Noise of one series.
    Noise(u32),
    /// Bursts of the load.
    Burst,
    /// Log lines of one entity.
    Log(u32),
    /// Spans of one edge.
    Span(u32),
    /// How long a pod takes to start.
    Start(u32),
    /// Choices while an estate or an episode is made.
    Make,
}

impl Stream {
    const fn number(self) -> u64 {
        match self {
            Self::Noise(i) => i as u64,
            Self::Burst => 1 << 40,
            Self::Log(i) => (2 << 40) | i as u64,
            Self::Span(i) => (3 << 40) | i as u64,
            Self::Start(i) => (4 << 40) | i as u64,
            Self::Make => 5 << 40,
        }
    }
}

const fn mix(mut z: u64) -> u64 {
    z = z.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// 64 bits for this seed, stream and counter.
pub(crate) const fn bits(seed: u64, stream: Stream, n: u64) -> u64 {
    mix(seed ^ mix(stream.number() ^ mix(n)))
}

/// In 0..1.
pub(crate) const fn unit(seed: u64, stream: Stream, n: u64) -> f64 {
    (bits(seed, stream, n) >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
}

/// In -1..1.
pub(crate) const fn signed(seed: u64, stream: Stream, n: u64) -> f64 {
    2.0 * unit(seed, stream, n) - 1.0
}

/// Numbers in a row, for what is made once.
#[derive(Debug, Clone)]
pub(crate) struct Draw {
    seed: u64,
    n: u64,
}

impl Draw {
    pub(crate) const fn new(seed: u64) -> Self {
        Self { seed, n: 0 }
    }

    /// In 0..1.
    pub(crate) fn unit(&mut self) -> f64 {
        self.n += 1;
        unit(self.seed, Stream::Make, self.n)
    }

    /// In `low..high`.
    pub(crate) fn range(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.unit()
    }

    /// One of `0..n`; 0 when `n` is 0.
    pub(crate) fn below(&mut self, n: usize) -> usize {
        ((self.unit() * n as f64) as usize).min(n.saturating_sub(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_spread_evenly_and_streams_differ() {
        let n = 20_000;
        for stream in [Stream::Noise(0), Stream::Noise(1), Stream::Burst, Stream::Log(3)] {
            let mean = (0..n).map(|i| signed(7, stream, i)).sum::<f64>() / n as f64;
            let var = (0..n).map(|i| signed(7, stream, i).powi(2)).sum::<f64>() / n as f64;
            assert!(mean.abs() < 0.02 && (var - 1.0 / 3.0).abs() < 0.01, "{stream:?} {mean} {var}");
        }
        assert_ne!(bits(7, Stream::Noise(0), 1), bits(7, Stream::Noise(1), 1));
        assert_ne!(bits(7, Stream::Noise(0), 1), bits(8, Stream::Noise(0), 1));
    }
}
