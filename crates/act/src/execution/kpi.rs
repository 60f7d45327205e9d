//! What readings of a KPI say: enough good ones in a row, or a canary that made it worse.

use nightshift_model::{Compare, KpiReading, Timestamp, Verification};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Newest readings that are kept for a failed verification.
const KEPT: usize = 10;

/// A canary makes it worse by more than this share of what was before.
const WORSE_SHARE: f64 = 0.1;

/// Good readings in a row, each at least an interval after the one before, by the time of the sample.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Row {
    good: Vec<KpiReading>,
    newest: Vec<KpiReading>,
}

impl Row {
    /// Takes a reading; true when the row is long enough. One that is not newer than the last is no news; a bad one
    /// starts the row anew, however soon it comes.
    pub(super) fn push(&mut self, at: Timestamp, value: f64, promise: &Verification) -> bool {
        if self.newest.last().is_some_and(|last| at <= last.at) {
            return false;
        }
        let reading = KpiReading { at, value, good: promise.is_good(value) };
        if self.newest.len() == KEPT {
            self.newest.remove(0);
        }
        self.newest.push(reading.clone());
        let interval = Duration::from_secs(u64::from(promise.interval_secs));
        if !reading.good {
            self.good.clear();
        } else if self.good.last().is_none_or(|last| at >= last.at + interval) {
            self.good.push(reading);
        }
        self.good.len() >= promise.readings.max(1) as usize
    }

    /// Length of the row.
    pub(super) const fn good(&self) -> usize {
        self.good.len()
    }

    /// The row.
    pub(super) fn take_good(&mut self) -> Vec<KpiReading> {
        std::mem::take(&mut self.good)
    }

    /// The newest readings, good or bad, oldest first.
    pub(super) fn newest(&self) -> &[KpiReading] {
        &self.newest
    }
}

/// How long the whole row takes at best.
pub(super) fn row_takes(promise: &Verification) -> Duration {
    Duration::from_secs(u64::from(promise.interval_secs.max(1)) * (u64::from(promise.readings.max(1)) + 2))
}

/// How far a value is on the wrong side of the threshold; below 0 when it is on the right one.
fn off(value: f64, promise: &Verification) -> f64 {
    match promise.compare {
        Compare::Below => value - promise.threshold,
        Compare::Above => promise.threshold - value,
    }
}

/// Whether a value is worse than what was before, by more than noise. No number at all is worse.
pub(super) fn is_worse(value: f64, before: f64, promise: &Verification) -> bool {
    if !value.is_finite() {
        return true;
    }
    let margin = WORSE_SHARE * before.abs().max(promise.threshold.abs());
    !promise.is_good(value) && off(value, promise) > off(before, promise) + margin
}

/// The middle of some values; `None` when there is none that is a number.
pub(super) fn median(values: impl Iterator<Item = f64>) -> Option<f64> {
    let mut sorted: Vec<f64> = values.filter(|v| v.is_finite()).collect();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied()
}

#[cfg(test)]
mod tests {
    use super::*;
    use nightshift_model::{EntityId, Kpi};
    use std::collections::BTreeMap;

    fn promise(compare: Compare, threshold: f64, interval_secs: u32) -> Verification {
        let entity = EntityId::new("c", "service", "shop", "payment");
        let kpi = Kpi { entity, signal: "latency_p99_ms".into(), labels: BTreeMap::new() };
        Verification { kpi, compare, threshold, readings: 3, interval_secs, deadline_secs: 60 }
    }

    fn run(promise: &Verification, readings: &[(i64, f64)]) -> Option<usize> {
        let mut row = Row::default();
        readings.iter().position(|(at, value)| row.push(Timestamp::from_secs(*at), *value, promise))
    }

    #[test]
    fn readings_count_in_a_row_and_an_interval_apart() {
        let p = promise(Compare::Below, 400.0, 10);
        for (readings, want) in [
            (vec![(0, 300.0), (10, 300.0), (20, 400.0)], Some(2)),
            // Too soon: no new one.
            (vec![(0, 300.0), (5, 300.0), (9, 300.0), (10, 300.0), (15, 300.0), (20, 300.0)], Some(5)),
            // A bad one in between, even too soon to count as good, starts anew.
            (vec![(0, 300.0), (10, 300.0), (12, 500.0), (20, 300.0), (30, 300.0), (40, 300.0)], Some(5)),
            // The same sample again, and an older one.
            (vec![(0, 300.0), (0, 300.0), (10, 300.0), (5, 300.0), (10, 300.0)], None),
            // No number is not good.
            (vec![(0, 300.0), (10, f64::NAN), (20, 300.0), (30, f64::INFINITY)], None),
        ] {
            assert_eq!(run(&p, &readings), want, "{readings:?}");
        }
        let up = promise(Compare::Above, 99.0, 0);
        assert_eq!(run(&up, &[(0, 98.0), (1, 99.0), (2, 99.5), (3, 99.1)]), Some(3));
    }

    #[test]
    fn worse_is_further_off_than_noise() {
        let p = promise(Compare::Below, 400.0, 10);
        for (before, value, want) in [
            (300.0, 390.0, false),
            (1_000.0, 1_050.0, false),
            (1_000.0, 1_200.0, true),
            (1_000.0, 800.0, false),
            (300.0, 500.0, true),
            (1_000.0, f64::NAN, true),
        ] {
            assert_eq!(is_worse(value, before, &p), want, "{before} -> {value}");
        }
        let up = promise(Compare::Above, 99.0, 10);
        assert!(is_worse(50.0, 90.0, &up) && !is_worse(95.0, 90.0, &up));
        assert_eq!(median([3.0, f64::NAN, 1.0, 2.0].into_iter()), Some(2.0));
        assert_eq!(median([f64::NAN].into_iter()), None);
    }
}
