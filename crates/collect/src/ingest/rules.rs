//! What is taken and what is not, and how it is counted.

use nightshift_health::{BySourceAndReason, SelfMetrics};
use nightshift_model::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Bits of the NaN by which Prometheus says that a series has ended. Source: `model/value` of Prometheus.
pub(crate) const STALE: u64 = 0x7ff0_0000_0000_0002;

/// Limits of what is taken in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Limits {
    /// Most labels of one series.
    #[schemars(range(min = 1, max = 1024))]
    pub labels_max: usize,
    /// Most bytes of all labels of one series.
    #[schemars(range(min = 256, max = 65_536))]
    pub label_bytes_max: usize,
    /// Longest log line; the rest is cut off and counted.
    #[schemars(range(min = 256, max = 1_048_576))]
    pub line_bytes_max: usize,
    /// Oldest that is taken, counted from now.
    #[schemars(range(min = 60, max = 86_400))]
    pub age_secs_max: u64,
    /// How far ahead of ours another clock may be.
    #[schemars(range(min = 1, max = 86_400))]
    pub ahead_secs_max: u64,
    /// Series that are remembered between requests (24 to 60 bytes each).
    #[schemars(range(min = 1000, max = 20_000_000))]
    pub series_remembered: usize,
    /// Most entities that telemetry may tell of; what tells of further ones is rejected.
    #[schemars(range(min = 100, max = 5_000_000))]
    pub entities_max: usize,
    /// Requests, and log lines, of one source that are recognised when they come again.
    #[schemars(range(min = 16, max = 1_000_000))]
    pub dedup_window: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            labels_max: 64,
            label_bytes_max: 16 << 10,
            line_bytes_max: 64 << 10,
            age_secs_max: 3_600,
            ahead_secs_max: 600,
            series_remembered: 2_000_000,
            entities_max: 200_000,
            dedup_window: 16_384,
        }
    }
}

/// Why something was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub enum Reason {
    /// Older than [`Limits::age_secs_max`].
    TooOld,
    /// Further ahead than [`Limits::ahead_secs_max`].
    TooNew,
    /// Prometheus' sign that a series has ended: no sample.
    Stale,
    /// Not a number.
    NotANumber,
    /// ±Inf.
    Infinite,
    /// Labels that are no labels: broken, not UTF-8, twice the same name.
    BadLabels,
    /// No metric name.
    NoName,
    /// More labels, or more bytes of them, than the limits allow.
    LabelLimit,
    /// One entity more than the limit.
    EntityLimit,
    /// A log line was cut; the rest of it was taken.
    LineCut,
}

impl Reason {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::TooOld,
        Self::TooNew,
        Self::Stale,
        Self::NotANumber,
        Self::Infinite,
        Self::BadLabels,
        Self::NoName,
        Self::LabelLimit,
        Self::EntityLimit,
        Self::LineCut,
    ];

    /// Stable word for labels.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::TooOld => "too_old",
            Self::TooNew => "too_new",
            Self::Stale => "stale",
            Self::NotANumber => "nan",
            Self::Infinite => "infinite",
            Self::BadLabels => "bad_labels",
            Self::NoName => "no_name",
            Self::LabelLimit => "label_limit",
            Self::EntityLimit => "entity_limit",
            Self::LineCut => "line_cut",
        }
    }

    /// Whether the client should be told: it sent what nobody could take. Not so for values that are legitimate where
    /// they come from and mean nothing to a detector.
    pub const fn is_bad_data(self) -> bool {
        !matches!(self, Self::Stale | Self::NotANumber | Self::Infinite | Self::LineCut)
    }
}

/// What became of the items of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tally {
    /// Taken.
    pub accepted: u64,
    /// Repeated deliveries.
    pub duplicates: u64,
    not_taken: [u64; Reason::ALL.len()],
}

impl Tally {
    /// Of items that all came before.
    pub(crate) fn repeated(n: u64) -> Self {
        Self { duplicates: n, ..Self::default() }
    }

    /// Counts items that were not taken.
    #[inline]
    pub fn count(&mut self, reason: Reason, n: u64) {
        self.not_taken[reason as usize] += n;
    }

    /// How many were not taken for this reason.
    pub const fn of(&self, reason: Reason) -> u64 {
        self.not_taken[reason as usize]
    }

    /// All that was not taken.
    pub fn rejected(&self) -> u64 {
        Reason::ALL.into_iter().filter(|r| *r != Reason::LineCut).map(|r| self.of(r)).sum()
    }

    /// What the client should be told of, `3 too_old, 1 bad_labels`; `None` when there is nothing.
    pub fn bad_data(&self) -> Option<String> {
        let told: Vec<_> = (Reason::ALL.into_iter())
            .filter(|r| r.is_bad_data() && self.of(*r) > 0)
            .map(|r| format!("{} {}", self.of(r), r.as_str()))
            .collect();
        (!told.is_empty()).then(|| told.join(", "))
    }

    /// As the answer of a [`crate::Sink`].
    pub fn to_accepted(&self) -> crate::Accepted {
        crate::Accepted { accepted: self.accepted, duplicates: self.duplicates, rejected: self.rejected() }
    }

    /// Enters the rejections into the counters.
    pub(crate) fn report(&self, source: &str, metrics: &SelfMetrics) {
        let duplicates = (self.duplicates > 0).then_some(("duplicate", self.duplicates));
        let reasons = Reason::ALL.into_iter().map(|r| (r.as_str(), self.of(r))).filter(|(_, n)| *n > 0);
        for (reason, n) in reasons.chain(duplicates) {
            let labels = BySourceAndReason { source: source.to_owned().into(), reason: reason.into() };
            metrics.samples_rejected.get_or_create(&labels).inc_by(n);
        }
    }
}

/// The rule for times, for one request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TimeRule {
    oldest: i64,
    newest: i64,
}

impl TimeRule {
    pub(crate) fn at(now: Timestamp, limits: &Limits) -> Self {
        Self {
            oldest: (now - Duration::from_secs(limits.age_secs_max)).0,
            newest: (now + Duration::from_secs(limits.ahead_secs_max)).0,
        }
    }

    #[inline]
    pub(crate) fn check(self, at: Timestamp) -> Result<(), Reason> {
        if at.0 < self.oldest {
            Err(Reason::TooOld)
        } else if at.0 > self.newest {
            Err(Reason::TooNew)
        } else {
            Ok(())
        }
    }

    /// Time and value together, as every sample is checked.
    #[inline]
    pub(crate) fn check_sample(self, at: Timestamp, value: f64) -> Result<(), Reason> {
        if !value.is_finite() {
            return Err(match value {
                v if v.to_bits() == STALE => Reason::Stale,
                v if v.is_nan() => Reason::NotANumber,
                _ => Reason::Infinite,
            });
        }
        self.check(at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_sample_has_its_answer() {
        let now = Timestamp::from_secs(100_000);
        let rule = TimeRule::at(now, &Limits::default());
        for (offset_secs, value, want) in [
            (0, 1.0, Ok(())),
            (-3_600, 1.0, Ok(())),
            (-3_601, 1.0, Err(Reason::TooOld)),
            (600, 1.0, Ok(())),
            (601, 1.0, Err(Reason::TooNew)),
            (0, f64::NAN, Err(Reason::NotANumber)),
            (0, f64::from_bits(STALE), Err(Reason::Stale)),
            (0, f64::INFINITY, Err(Reason::Infinite)),
            (0, f64::NEG_INFINITY, Err(Reason::Infinite)),
            (0, -0.0, Ok(())),
            (0, f64::MIN_POSITIVE / 2.0, Ok(())),
        ] {
            let at = Timestamp::from_secs(100_000 + offset_secs);
            assert_eq!(rule.check_sample(at, value), want, "{offset_secs} s, {value}");
        }
        for at in [i64::MIN, i64::MAX] {
            assert!(rule.check(Timestamp(at)).is_err());
        }
    }

    #[test]
    fn clients_hear_of_bad_data_only() {
        let mut tally = Tally::default();
        tally.count(Reason::Stale, 5);
        tally.count(Reason::NotANumber, 1);
        assert_eq!(tally.bad_data(), None);
        tally.count(Reason::TooOld, 2);
        assert_eq!(tally.bad_data().as_deref(), Some("2 too_old"));
        assert_eq!(tally.rejected(), 8);
    }
}
