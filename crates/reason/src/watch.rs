//! Watching one series: has it recovered, has it relapsed?

use nightshift_model::{Anomaly, AnomalyKind, Compare, Incident, Kpi, KpiReading, Phase, Timestamp, Verification};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Readings that are kept of one watch.
const READINGS_KEPT: usize = 64;

/// Which values are good.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum Good {
    /// As a plan promised.
    Promised {
        /// Which way.
        compare: Compare,
        /// In the unit of the signal.
        threshold: f64,
    },
    /// Back in the band that the anomaly left.
    Band {
        /// Its lower end.
        lower: Option<f64>,
        /// Its upper end.
        upper: Option<f64>,
    },
}

impl Good {
    fn is(self, value: f64) -> bool {
        value.is_finite()
            && match self {
                Self::Promised { compare: Compare::Below, threshold } => value <= threshold,
                Self::Promised { compare: Compare::Above, threshold } => value >= threshold,
                Self::Band { lower, upper } => lower.is_none_or(|l| value >= l) && upper.is_none_or(|u| value <= u),
            }
    }
}

/// One series under watch. What is absent is neither good nor bad: only readings count.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Watch {
    pub(crate) kpi: Kpi,
    pub(crate) good: Good,
    /// In a row.
    pub(crate) need: u32,
    pub(crate) interval_secs: u32,
    /// Only what was taken after this counts.
    pub(crate) since: Timestamp,
    pub(crate) readings: Vec<KpiReading>,
}

impl Watch {
    /// Of what a plan promised.
    pub(crate) fn of_plan(v: &Verification, since: Timestamp) -> Self {
        Self {
            kpi: v.kpi.clone(),
            good: Good::Promised { compare: v.compare, threshold: v.threshold },
            need: v.readings.max(1),
            interval_secs: v.interval_secs.min(30),
            since,
            readings: Vec::new(),
        }
    }

    /// Of the series that shows the incident worst. `None`: nothing that it shows is a series with a band.
    pub(crate) fn of_incident(inc: &Incident, need: u32, since: Timestamp) -> Option<Self> {
        let banded = |a: &&Anomaly| {
            a.kind == AnomalyKind::Statistical && (a.explanation.lower.is_some() || a.explanation.upper.is_some())
        };
        let worst = inc.anomalies.iter().filter(banded).max_by(|a, b| {
            let open = |a: &Anomaly| a.phase != Phase::Closed;
            open(a).cmp(&open(b)).then(a.score.total_cmp(&b.score)).then_with(|| (b.onset, b.id).cmp(&(a.onset, a.id)))
        })?;
        let band = |x: Option<f64>| x.filter(|x| x.is_finite());
        let (lower, upper) = (band(worst.explanation.lower), band(worst.explanation.upper));
        if lower.is_none() && upper.is_none() {
            return None;
        }
        Some(Self {
            kpi: Kpi { entity: worst.entity.id.clone(), signal: worst.signal.clone(), labels: worst.labels.clone() },
            good: Good::Band { lower, upper },
            need: need.max(1),
            interval_secs: 0,
            since,
            readings: Vec::new(),
        })
    }

    /// Takes a reading; `false` when it does not count: too old, too soon, or told already.
    pub(crate) fn read(&mut self, at: Timestamp, value: f64) -> bool {
        let next = self.readings.last().map_or(Timestamp(self.since.0.saturating_add(1)), |last| {
            let gap = Duration::from_secs(u64::from(self.interval_secs));
            (last.at + gap).max(Timestamp(last.at.0.saturating_add(1)))
        });
        if at < next {
            return false;
        }
        if !value.is_finite() {
            // No number is no news, and not a good one: the row begins anew. (It could not be written down either.)
            self.again(at);
            return true;
        }
        if self.readings.len() == READINGS_KEPT {
            self.readings.remove(0);
        }
        self.readings.push(KpiReading { at, value, good: self.good.is(value) });
        true
    }

    fn run_of(&self, good: bool) -> usize {
        self.readings.iter().rev().take_while(|r| r.good == good).count()
    }

    /// The readings that show a recovery, when there are enough.
    pub(crate) fn recovered(&self) -> Option<Vec<KpiReading>> {
        let need = self.need as usize;
        (self.run_of(true) >= need).then(|| self.readings[self.readings.len() - need..].to_vec())
    }

    /// Whether as many readings in a row are bad.
    pub(crate) fn relapsed(&self) -> bool {
        self.run_of(false) >= self.need as usize
    }

    /// Begins anew, from this moment.
    pub(crate) fn again(&mut self, since: Timestamp) {
        self.since = since.max(self.readings.last().map_or(self.since, |r| r.at));
        self.readings.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nightshift_model::EntityId;

    fn watch(interval_secs: u32) -> Watch {
        let kpi =
            Kpi { entity: EntityId::new("c", "service", "", "a"), signal: "s".into(), labels: Default::default() };
        let compare = Compare::Below;
        let v = Verification { kpi, compare, threshold: 10.0, readings: 3, interval_secs, deadline_secs: 60 };
        Watch::of_plan(&v, Timestamp::from_secs(100))
    }

    #[test]
    fn three_good_ones_in_a_row_and_nothing_else_is_a_recovery() {
        type Readings = &'static [(i64, f64)];
        let cases: &[(Readings, bool, bool)] = &[
            (&[(101, 1.0), (102, 1.0)], false, false),
            (&[(101, 1.0), (102, 1.0), (103, 1.0)], true, false),
            (&[(101, 1.0), (102, 99.0), (103, 1.0), (104, 1.0)], false, false),
            (&[(101, 1.0), (102, f64::NAN), (103, 1.0), (104, 1.0)], false, false),
            // Told twice, or late: counts once.
            (&[(101, 1.0), (101, 1.0), (101, 1.0)], false, false),
            (&[(103, 1.0), (102, 1.0), (101, 1.0)], false, false),
            // From before the watch.
            (&[(98, 1.0), (99, 1.0), (100, 1.0), (101, 1.0)], false, false),
            (&[(101, 99.0), (102, 99.0), (103, 99.0)], false, true),
            (&[(101, 10.0), (102, 10.0), (103, 10.0)], true, false),
        ];
        for (readings, recovered, relapsed) in cases {
            let mut w = watch(0);
            for (at, value) in *readings {
                w.read(Timestamp::from_secs(*at), *value);
            }
            assert_eq!((w.recovered().is_some(), w.relapsed()), (*recovered, *relapsed), "{readings:?}");
        }
    }

    #[test]
    fn readings_keep_their_distance_and_are_bounded() {
        let mut w = watch(10);
        assert!(w.read(Timestamp::from_secs(101), 1.0));
        assert!(!w.read(Timestamp::from_secs(110), 1.0));
        assert!(w.read(Timestamp::from_secs(111), 1.0));
        let mut w = watch(0);
        for i in 0..1_000 {
            w.read(Timestamp::from_secs(101 + i), 1.0);
        }
        assert_eq!(w.readings.len(), READINGS_KEPT);
        assert_eq!(w.recovered().map(|r| r.len()), Some(3));
    }
}
