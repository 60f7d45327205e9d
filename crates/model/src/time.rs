//! Event time: i64 nanoseconds since the Unix epoch, UTC; RFC 3339 in JSON.

use std::fmt;
use std::ops::{Add, Sub};
use std::time::Duration;

/// A moment, in nanoseconds since the Unix epoch, UTC. Covers the years 1677 to 2262.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(pub i64);

/// Nanoseconds in a second.
pub const NANOS_PER_SEC: i64 = 1_000_000_000;
/// Nanoseconds in a millisecond.
pub const NANOS_PER_MS: i64 = 1_000_000;

impl Timestamp {
    /// The Unix epoch.
    pub const EPOCH: Self = Self(0);

    /// From whole milliseconds since the epoch; saturates at the ends of the range.
    pub const fn from_millis(ms: i64) -> Self {
        Self(ms.saturating_mul(NANOS_PER_MS))
    }

    /// From whole seconds since the epoch; saturates at the ends of the range.
    pub const fn from_secs(secs: i64) -> Self {
        Self(secs.saturating_mul(NANOS_PER_SEC))
    }

    /// From seconds with a fraction; `None` if not finite or out of range.
    pub fn from_secs_f64(secs: f64) -> Option<Self> {
        let ns = secs * NANOS_PER_SEC as f64;
        // Rejects NaN as well: a comparison with it is false.
        if ns > -9.2e18 && ns < 9.2e18 { Some(Self(ns as i64)) } else { None }
    }

    /// Nanoseconds since the epoch.
    pub const fn nanos(self) -> i64 {
        self.0
    }

    /// Milliseconds since the epoch, rounded down.
    pub const fn millis(self) -> i64 {
        self.0.div_euclid(NANOS_PER_MS)
    }

    /// Seconds since the epoch, with fraction.
    pub fn secs_f64(self) -> f64 {
        self.0 as f64 / NANOS_PER_SEC as f64
    }

    /// Time from `earlier` to `self`, zero when `earlier` is later.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }

    /// Parses RFC 3339.
    ///
    /// # Errors
    /// A text for people when it is not RFC 3339 or outside the range.
    pub fn parse_rfc3339(text: &str) -> Result<Self, String> {
        let at = chrono::DateTime::parse_from_rfc3339(text)
            .map_err(|e| format!("`{text}` is not an RFC 3339 time ({e})"))?;
        at.timestamp_nanos_opt().map(Self).ok_or_else(|| format!("`{text}` is outside 1677..2262"))
    }

    /// RFC 3339 in UTC with as many of 3, 6 or 9 decimals as are needed.
    pub fn to_rfc3339(self) -> String {
        chrono::DateTime::from_timestamp_nanos(self.0).to_rfc3339_opts(chrono::SecondsFormat::AutoSi, true)
    }
}

impl Add<Duration> for Timestamp {
    type Output = Self;
    fn add(self, d: Duration) -> Self {
        Self(self.0.saturating_add(i64::try_from(d.as_nanos()).unwrap_or(i64::MAX)))
    }
}

impl Sub<Duration> for Timestamp {
    type Output = Self;
    fn sub(self, d: Duration) -> Self {
        Self(self.0.saturating_sub(i64::try_from(d.as_nanos()).unwrap_or(i64::MAX)))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_rfc3339())
    }
}

impl serde::Serialize for Timestamp {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&self.to_rfc3339())
    }
}

impl<'de> serde::Deserialize<'de> for Timestamp {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(d)?;
        Self::parse_rfc3339(&text).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc3339_round_trip_keeps_every_nanosecond() {
        for ns in [0, 1, -1, 1_700_000_000_123_456_789, i64::MIN + 1, i64::MAX] {
            let t = Timestamp(ns);
            assert_eq!(Timestamp::parse_rfc3339(&t.to_rfc3339()), Ok(t));
        }
    }

    #[test]
    fn bad_times_say_what_is_wrong() {
        for text in ["", "yesterday", "2026-13-01T00:00:00Z", "3000-01-01T00:00:00Z"] {
            assert!(Timestamp::parse_rfc3339(text).unwrap_err().contains(text));
        }
        for secs in [f64::NAN, f64::INFINITY, 1e300] {
            assert_eq!(Timestamp::from_secs_f64(secs), None);
        }
    }
}
