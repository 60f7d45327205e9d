//! The state of one series that every sample touches: two cache lines.

use super::evt::Tail;

/// A sample was seen.
pub(crate) const SEEN: u8 = 1;
/// A statistical alarm is open.
pub(crate) const ACTIVE: u8 = 2;
/// The run of readings that are off goes upwards.
pub(crate) const UP: u8 = 4;
/// A flatline alarm is open.
pub(crate) const FLAT: u8 = 8;
/// A limit is looked out for.
pub(crate) const LIMIT: u8 = 16;
/// A capacity alarm is open.
pub(crate) const CAPACITY: u8 = 32;
/// An absence alarm is open.
pub(crate) const ABSENT: u8 = 64;
/// There is a series here.
pub(crate) const USED: u8 = 128;

/// No forecast state.
pub(crate) const NO_COLD: u32 = u32::MAX;

/// What every sample of a series reads and writes. 128 bytes on two lines; found by `fp`, which stands first so that
/// the look-up itself brings the line in.
#[derive(Debug, Clone, Copy, PartialEq)]
#[repr(C, align(64))]
pub(crate) struct Hot {
    /// Series fingerprint.
    pub(crate) fp: u64,
    /// Event time of the newest sample, ns.
    pub(crate) last_ts: i64,
    /// Newest raw value: what a counter's increase is taken from.
    pub(crate) last_raw: f64,
    /// Robust mean.
    pub(crate) mu: f64,
    /// Level of the forecast, without season.
    pub(crate) level: f64,
    /// Event time at which the present run of readings that are off began.
    pub(crate) onset: i64,
    /// Mean absolute deviation from `mu`.
    pub(crate) mad: f32,
    /// Mean absolute error of the forecast.
    pub(crate) lscale: f32,
    /// Damped slope per reading.
    pub(crate) slope: f32,
    /// Weighted mean of the signed distances.
    pub(crate) chart: f32,
    /// Tails of the distances, upwards and downwards.
    pub(crate) up: Tail,
    /// See `up`.
    pub(crate) down: Tail,
    /// Usual interval, seconds.
    pub(crate) interval: f32,
    /// Least step between readings: the resolution of the value.
    pub(crate) resolution: f32,
    /// Share of readings that differed from the one before.
    pub(crate) change: f32,
    /// Height that the chart reaches now and then.
    pub(crate) chart_usual: f32,
    /// Readings learned, saturating.
    pub(crate) n: u32,
    /// Index of the forecast state, or [`NO_COLD`].
    pub(crate) cold: u32,
    /// Equal readings in a row, saturating.
    pub(crate) same: u16,
    /// Index of the policy.
    pub(crate) policy: u16,
    /// Readings that are off in the present run, saturating.
    pub(crate) run: u8,
    /// Those of them beyond the threshold.
    pub(crate) strong: u8,
    /// Calm readings since the last one that was off.
    pub(crate) calm: u8,
    /// The constants above.
    pub(crate) flags: u8,
}

const _: () = assert!(size_of::<Hot>() == 128);

impl Hot {
    /// A series of which nothing is known.
    pub(crate) fn new(fp: u64, policy: u16, risk: f32) -> Self {
        Self {
            fp,
            last_ts: 0,
            last_raw: 0.0,
            mu: 0.0,
            level: 0.0,
            onset: 0,
            mad: 0.0,
            lscale: 0.0,
            slope: 0.0,
            chart: 0.0,
            up: Tail::prior(risk),
            down: Tail::prior(risk),
            interval: 0.0,
            resolution: 0.0,
            change: 0.0,
            chart_usual: 0.0,
            n: 0,
            cold: NO_COLD,
            same: 0,
            policy,
            run: 0,
            strong: 0,
            calm: 0,
            flags: USED,
        }
    }

    #[inline(always)]
    pub(crate) const fn is(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    #[inline]
    pub(crate) const fn set(&mut self, flag: u8, on: bool) {
        if on {
            self.flags |= flag;
        } else {
            self.flags &= !flag;
        }
    }
}
