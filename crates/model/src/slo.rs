//! Objectives of a service, and how a minute counts against them.
//!
//! Lives here: what an objective is, which minutes or requests it calls bad, and the ring in which they are added up.
//! Both who counts what is left of a budget (`guard`) and who tells that it burns too fast (`detect`) use these, so
//! that they never disagree about what an error is.

use crate::Timestamp;
use crate::time::NANOS_PER_SEC;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;

/// Seconds in a minute.
const MINUTE: u64 = 60;
/// Minutes of a bucket at most: one bit each.
pub const BUCKET_MINUTES_MAX: u64 = 60;
/// Indicator of an objective that counts minutes instead of requests.
pub const UPTIME: &str = "uptime";
/// Words of an indicator that is about requests that fail or succeed; an empty one is too.
const COUNTABLE: [&str; 4] = ["error", "success", "availab", "5xx"];

/// One objective of a service.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Slo {
    /// Its name, unique within the service.
    pub name: String,
    /// Share of good events, in percent, above 0 and below 100.
    pub objective: f64,
    /// Seconds over which it is counted.
    pub window_secs: u64,
    /// What is counted: the name of a metric or an expression; empty when not said. [`Indicator::of`] reads it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub indicator: String,
}

impl Slo {
    /// Share of events that may be bad, 0..=1. 0 for an objective of 100 %: it leaves no budget.
    pub fn budget_ratio(&self) -> f64 {
        (1.0 - self.objective / 100.0).clamp(0.0, 1.0)
    }
}

/// Which latency of a minute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Latency {
    /// Mean.
    Mean,
    /// 95th percentile.
    P95,
    /// 99th percentile.
    P99,
}

/// What an objective counts.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Indicator {
    /// Requests; those that fail are bad.
    Requests,
    /// Minutes; those in which too large a share of requests fails are bad.
    Uptime,
    /// Minutes; those whose latency is above the limit are bad.
    Latency(Latency, f64),
    /// Something that minutes of requests, errors and latency do not tell.
    Other,
}

impl Indicator {
    /// From its text: empty or a word for errors ([`Self::Requests`]), `uptime`, or a latency with its limit, such as
    /// `latency_p95 < 300ms`, `latency_p99_ms <= 250`, `latency_mean < 0.2s`.
    pub fn of(text: &str) -> Self {
        let lower = text.trim().to_ascii_lowercase();
        if lower == UPTIME {
            return Self::Uptime;
        }
        if let Some(latency) = latency_limit(&lower) {
            return latency;
        }
        if lower.is_empty() || COUNTABLE.iter().any(|word| lower.contains(word)) {
            return Self::Requests;
        }
        Self::Other
    }

    /// What a minute adds: events and bad ones among them. `None` where the minute does not say it; that is neither
    /// good nor bad. `down_ratio`: share of failed requests above which a minute counts as down.
    pub fn count(self, minute: &MinuteOf, down_ratio: f64) -> Option<Tally> {
        let requests = minute.requests.filter(|r| r.is_finite() && *r >= 0.0);
        let errors = minute.errors.filter(|e| e.is_finite());
        let whole = |bad: bool| Tally { total: 1.0, bad: f64::from(u8::from(bad)) };
        match self {
            Self::Requests => {
                let (total, bad) = (requests?, errors?);
                Some(Tally { total, bad: bad.clamp(0.0, total) })
            }
            Self::Uptime => {
                let (total, bad) = (requests?, errors?);
                Some(whole(total > 0.0 && bad.clamp(0.0, total) / total > down_ratio))
            }
            Self::Latency(which, limit_ms) => {
                let ms = match which {
                    Latency::Mean => minute.mean_ms,
                    Latency::P95 => minute.p95_ms,
                    Latency::P99 => minute.p99_ms,
                };
                ms.filter(|ms| ms.is_finite()).map(|ms| whole(ms > limit_ms))
            }
            Self::Other => None,
        }
    }
}

/// `latency_p95 < 300ms` and the like, in lower case.
fn latency_limit(text: &str) -> Option<Indicator> {
    let (name, limit) = text.split_once('<')?;
    let name = name.trim();
    let which = match name.strip_suffix("_ms").unwrap_or(name) {
        "latency" | "latency_mean" => Latency::Mean,
        "latency_p95" => Latency::P95,
        "latency_p99" => Latency::P99,
        _ => return None,
    };
    let limit = limit.trim_start_matches('=').trim();
    let (number, factor) = match (limit.strip_suffix("ms"), limit.strip_suffix('s')) {
        (Some(number), _) => (number, 1.0),
        (None, Some(number)) => (number, 1_000.0),
        (None, None) => (limit, 1.0),
    };
    let limit_ms = number.trim().parse::<f64>().ok()? * factor;
    (limit_ms.is_finite() && limit_ms > 0.0).then_some(Indicator::Latency(which, limit_ms))
}

/// What is known of one minute of a service.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct MinuteOf {
    /// Requests in it.
    pub requests: Option<f64>,
    /// Of those, failed.
    pub errors: Option<f64>,
    /// Mean latency, ms.
    pub mean_ms: Option<f64>,
    /// 95th percentile, ms.
    pub p95_ms: Option<f64>,
    /// 99th percentile, ms.
    pub p99_ms: Option<f64>,
}

/// Events, and bad ones among them.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Tally {
    /// Events.
    pub total: f64,
    /// Bad ones.
    pub bad: f64,
}

/// What was added up over some time.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Sums {
    /// Minutes that were told.
    pub minutes: u64,
    /// Events and bad ones.
    pub tally: Tally,
}

impl Sums {
    /// Adds a bucket.
    pub fn add(&mut self, bucket: &Bucket) {
        self.minutes += u64::from(bucket.seen.count_ones());
        self.tally.total += bucket.total;
        self.tally.bad += bucket.bad;
    }

    /// Share of events that were bad. `None` without events.
    pub fn bad_ratio(&self) -> Option<f64> {
        (self.tally.total > 0.0).then(|| self.tally.bad / self.tally.total)
    }
}

/// Some minutes in a row, added up.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Bucket {
    /// Number of the bucket since the epoch.
    pub at: i64,
    /// Minutes that were told, a bit each: a minute that is told again counts once.
    pub seen: u64,
    /// Events.
    pub total: f64,
    /// Bad ones.
    pub bad: f64,
}

/// Tallies of minutes, added up in buckets of equal length. Bounded: the caller says how many buckets reach back.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TallyRing {
    bucket_secs: u64,
    buckets: VecDeque<Bucket>,
}

impl TallyRing {
    /// An empty one. `bucket_minutes` is cut to 1..=[`BUCKET_MINUTES_MAX`].
    pub fn new(bucket_minutes: u64) -> Self {
        Self { bucket_secs: bucket_minutes.clamp(1, BUCKET_MINUTES_MAX) * MINUTE, buckets: VecDeque::new() }
    }

    /// Length of a bucket, seconds; never 0, whatever a checkpoint said.
    pub const fn bucket_secs(&self) -> u64 {
        if self.bucket_secs == 0 { MINUTE } else { self.bucket_secs }
    }

    /// Number of the bucket in which a time lies.
    pub fn slot(&self, at: Timestamp) -> i64 {
        at.nanos().div_euclid(NANOS_PER_SEC).div_euclid(self.bucket_secs() as i64)
    }

    /// Adds a minute, in its place. False: it was told before, or is `slots` or more before the newest.
    pub fn observe(&mut self, minute: Timestamp, tally: Tally, slots: i64) -> bool {
        let slot = self.slot(minute);
        if self.buckets.back().is_some_and(|b| b.at.saturating_sub(slot) >= slots) {
            return false;
        }
        let i = self.buckets.partition_point(|b| b.at < slot);
        if self.buckets.get(i).is_none_or(|b| b.at != slot) {
            self.buckets.insert(i, Bucket { at: slot, ..Bucket::default() });
        }
        let within = minute.nanos().div_euclid(NANOS_PER_SEC).rem_euclid(self.bucket_secs() as i64) / MINUTE as i64;
        let bit = 1u64 << (within & 63);
        let mut counted = false;
        if let Some(bucket) = self.buckets.get_mut(i).filter(|b| b.seen & bit == 0) {
            bucket.seen |= bit;
            bucket.total += tally.total;
            bucket.bad += tally.bad;
            counted = true;
        }
        let oldest = self.buckets.back().map_or(slot, |b| b.at).saturating_sub(slots);
        while self.buckets.front().is_some_and(|b| b.at <= oldest) {
            self.buckets.pop_front();
        }
        counted
    }

    /// The newest bucket's number.
    pub fn newest(&self) -> Option<i64> {
        self.buckets.back().map(|b| b.at)
    }

    /// The buckets, oldest first; those in which nothing was told are not there.
    pub fn buckets(&self) -> impl DoubleEndedIterator<Item = &Bucket> + ExactSizeIterator {
        self.buckets.iter()
    }

    /// What buckets after this one sum to.
    pub fn sums_after(&self, slot: i64) -> Sums {
        let mut sums = Sums::default();
        self.buckets.iter().filter(|b| b.at > slot).for_each(|b| sums.add(b));
        sums
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indicators_are_read() {
        for (text, want) in [
            ("", Indicator::Requests),
            ("http_error_ratio", Indicator::Requests),
            ("Availability", Indicator::Requests),
            ("uptime", Indicator::Uptime),
            ("latency_p95 < 300ms", Indicator::Latency(Latency::P95, 300.0)),
            ("latency_p99_ms<=250", Indicator::Latency(Latency::P99, 250.0)),
            ("latency_mean < 0.2s", Indicator::Latency(Latency::Mean, 200.0)),
            ("latency < 20", Indicator::Latency(Latency::Mean, 20.0)),
            ("latency_p99", Indicator::Other),
            ("latency_p95 < -1", Indicator::Other),
            ("latency_p95 < inf", Indicator::Other),
            ("latency_p95 < soon", Indicator::Other),
        ] {
            assert_eq!(Indicator::of(text), want, "{text}");
        }
    }

    #[test]
    fn what_a_minute_does_not_say_is_neither_good_nor_bad() {
        let minute = MinuteOf { requests: Some(100.0), errors: Some(7.0), p95_ms: Some(310.0), ..MinuteOf::default() };
        let count = |text: &str, m: &MinuteOf| Indicator::of(text).count(m, 0.05).map(|t| (t.total, t.bad));
        assert_eq!(count("", &minute), Some((100.0, 7.0)));
        assert_eq!(count("uptime", &minute), Some((1.0, 1.0)));
        assert_eq!(count("latency_p95 < 300ms", &minute), Some((1.0, 1.0)));
        assert_eq!(count("latency_p99 < 300ms", &minute), None);
        assert_eq!(count("queue_depth", &minute), None);
        assert_eq!(count("", &MinuteOf { errors: None, ..minute }), None);
        assert_eq!(count("", &MinuteOf { requests: Some(f64::NAN), ..minute }), None);
        assert_eq!(count("", &MinuteOf { errors: Some(900.0), ..minute }), Some((100.0, 100.0)));
        assert_eq!(count("uptime", &MinuteOf { requests: Some(0.0), ..minute }), Some((1.0, 0.0)));
    }
}
