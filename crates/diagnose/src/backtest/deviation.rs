//! How far a recorded metric left its normal range. Median and quartiles of the fault-free period: they hold when the
//! moment of the fault is off by a minute, where means and standard deviations collapse.

use crate::rank::Symptom;
use nightshift_model::families::{self, Bad, SignalFamily};
use nightshift_model::{AnomalyKind, Direction, EntityId, FaultClass, Timestamp};
use std::collections::BTreeMap;

/// Columns of a wide table: by service and metric, values by row; `None` where there is no data.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Frame {
    /// Unix seconds of each row.
    pub timestamps: Vec<f64>,
    /// Values by service and metric, as many as there are rows.
    pub columns: BTreeMap<(String, String), Vec<Option<f64>>>,
}

impl Frame {
    /// A frame from a header (`timestamp`, then `SERVICE|METRIC` …) and rows of text fields. A column without a `|`
    /// and a row without a timestamp are left out; a field that is no finite number is no data.
    pub fn from_rows<S: AsRef<str>>(header: &[S], rows: impl IntoIterator<Item = Vec<S>>) -> Self {
        let mut out = Self::default();
        let keys: Vec<Option<(String, String)>> = header
            .iter()
            .skip(1)
            .map(|name| name.as_ref().split_once('|').map(|(s, m)| (s.to_owned(), m.to_owned())))
            .collect();
        for key in keys.iter().flatten() {
            out.columns.insert(key.clone(), Vec::new());
        }
        for row in rows {
            let number = |i: usize| row.get(i)?.as_ref().trim().parse::<f64>().ok().filter(|v| v.is_finite());
            let Some(at) = number(0) else { continue };
            out.timestamps.push(at);
            for (i, key) in keys.iter().enumerate() {
                if let Some(column) = key.as_ref().and_then(|k| out.columns.get_mut(k)) {
                    column.push(number(i + 1));
                }
            }
        }
        // A name that stands in the header twice must not shift its column.
        let rows = out.timestamps.len();
        out.columns.retain(|_, column| column.len() == rows);
        out
    }

    pub(super) fn services(&self) -> impl Iterator<Item = &str> {
        self.columns.keys().map(|(service, _)| service.as_str())
    }
}

/// One metric that left its range.
pub(super) struct Deviation {
    pub(super) service: String,
    pub(super) metric: String,
    /// 0..1.
    pub(super) score: f64,
    onset: f64,
    direction: Direction,
    sigma: f64,
    observed: f64,
    expected: f64,
    family: Option<SignalFamily>,
    fault: FaultClass,
}

/// Robust standard deviations below which nothing is said.
const SIGMA_MIN: f64 = 3.0;
/// At which a score reaches one half beyond its start.
const SIGMA_HALF: f64 = 8.0;
/// Least normal values for quartiles to mean anything.
const NORMAL_MIN: usize = 8;
/// Least standard deviation as a share of the median, so that a series that never moved does not make every change
/// infinite; a share of work that succeeds moves in smaller steps than anything else.
const FLOOR: f64 = 0.02;
const SHARE_FLOOR: f64 = 0.004;
/// Weight of symptoms of another kind than the alert's.
const OTHER_KIND: f64 = 0.6;
/// Seconds before the alert from which rows count: one row of the coarsest data in use.
const BEFORE_SECS: f64 = 300.0;

/// All metrics, the loudest first.
pub(super) fn deviations(metrics: &Frame, normal: &Frame, alert_at: f64) -> Vec<Deviation> {
    let step = match metrics.timestamps.as_slice() {
        [a, b, ..] => (b - a).abs().clamp(1.0, BEFORE_SECS),
        _ => 60.0,
    };
    let mut out = Vec::new();
    for ((service, metric), values) in &metrics.columns {
        let reading = families::reading(metric, |_| None);
        let bad = reading.map_or(Bad::Both, |r| r.bad);
        if bad == Bad::Neither {
            continue;
        }
        let usual: Vec<f64> =
            normal.columns.get(&(service.clone(), metric.clone())).into_iter().flatten().flatten().copied().collect();
        let rows = metrics.timestamps.iter().zip(values).filter_map(|(at, v)| Some((*at, (*v)?)));
        let (before, during): (Vec<_>, Vec<_>) = rows.partition(|(at, _)| *at < alert_at - step);
        // Where no normal period is recorded, the rows before the fault are the best there is.
        let base: Vec<f64> = if usual.len() >= NORMAL_MIN { usual } else { before.iter().map(|(_, v)| *v).collect() };
        if base.len() < 2 || during.is_empty() {
            continue;
        }
        let share = matches!(reading.map(|r| r.family), Some(SignalFamily::ErrorRatio | SignalFamily::Availability));
        let (median, spread) = centre_and_spread(base, if share { SHARE_FLOOR } else { FLOOR });
        let mut worst: Option<(f64, f64, f64)> = None;
        let mut onset = None;
        for (at, value) in &during {
            let sigma = (value - median) / spread;
            let counts = match bad {
                Bad::Up => sigma > 0.0,
                Bad::Down => sigma < 0.0,
                Bad::Both | Bad::Neither => true,
            };
            if !counts {
                continue;
            }
            if sigma.abs() >= SIGMA_MIN && onset.is_none() {
                onset = Some(*at);
            }
            if worst.is_none_or(|(s, ..)| sigma.abs() > s.abs()) {
                worst = Some((sigma, *value, *at));
            }
        }
        let Some((sigma, observed, at)) = worst else { continue };
        let direction = if sigma >= 0.0 { Direction::Up } else { Direction::Down };
        let beyond = (sigma.abs() - SIGMA_MIN).max(0.0);
        // Latency and errors may leave their range a thousandfold; the scale is logarithmic so that order remains.
        let score = if beyond > 0.0 { 0.3 + 0.7 * beyond.ln_1p() / (beyond.ln_1p() + SIGMA_HALF.ln_1p()) } else { 0.0 };
        out.push(Deviation {
            service: service.clone(),
            metric: metric.clone(),
            score,
            // Rows a minute or more apart cannot say who was first: what one scrape shows is one moment.
            onset: if step >= 60.0 { alert_at } else { onset.unwrap_or(at) },
            direction,
            sigma,
            observed,
            expected: median,
            family: reading.map(|r| r.family),
            fault: reading.map_or(FaultClass::Unknown, |r| r.fault(direction)),
        });
    }
    out.sort_by(|a, b| b.score.total_cmp(&a.score).then_with(|| (&a.service, &a.metric).cmp(&(&b.service, &b.metric))));
    out
}

/// Median, and the quartile distance as a standard deviation (1.349 of them for a normal distribution), with a floor
/// so that a series that never moved does not make every change infinite.
fn centre_and_spread(mut values: Vec<f64>, floor: f64) -> (f64, f64) {
    values.sort_by(f64::total_cmp);
    let at = |q: f64| {
        let place = q * (values.len() - 1) as f64;
        let (low, high) = (place.floor() as usize, place.ceil() as usize);
        values[low] + (values[high] - values[low]) * (place - low as f64)
    };
    let (q1, median, q3) = (at(0.25), at(0.5), at(0.75));
    let tails = (at(0.99) - at(0.01)) / 4.65;
    let spread = ((q3 - q1) / 1.349).max(tails);
    (median, spread.max(median.abs() * floor).max(1e-6))
}

impl Deviation {
    /// Makes what is of another kind than the alert count less: the question is what explains the alert.
    pub(super) fn weigh_by(&mut self, alert: SignalFamily) {
        if self.family != Some(alert) {
            self.score *= OTHER_KIND;
        }
    }

    pub(super) fn symptom(&self, entity: EntityId) -> Symptom {
        let ratio = (self.family == Some(SignalFamily::ErrorRatio)).then(|| {
            let share = if self.expected > 1.5 { self.observed / 100.0 } else { self.observed };
            if self.direction == Direction::Down { 1.0 - share } else { share }
        });
        Symptom {
            evidence_id: format!("metric:{}|{}", self.service, self.metric),
            entity,
            signal: self.metric.clone(),
            family: self.family,
            fault: self.fault,
            direction: self.direction,
            kind: AnomalyKind::Statistical,
            score: self.score,
            onset: Timestamp::from_secs_f64(self.onset).unwrap_or_default(),
            error_ratio: ratio.filter(|r| (0.0..=1.0).contains(r)),
            text: format!(
                "{} of {}: {:.4} where {:.4} is usual ({:+.1} sigma)",
                self.metric, self.service, self.observed, self.expected, self.sigma
            ),
            part: String::new(),
            is_replica: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flat_series_has_a_floor_and_quartiles_do_not_move_with_one_spike() {
        assert!(centre_and_spread(vec![5.0; 20], FLOOR).1 >= 0.1);
        let mut values: Vec<f64> = (0..1_000).map(|i| f64::from(i % 10)).collect();
        let calm = centre_and_spread(values.clone(), FLOOR);
        values.push(1e9);
        let (median, spread) = centre_and_spread(values, FLOOR);
        assert!((median - calm.0).abs() < 0.6 && (spread - calm.1).abs() < 0.2, "{median} {spread} {calm:?}");
    }

    #[test]
    fn a_table_with_holes_and_doubles_is_read_as_far_as_it_goes() {
        let header = ["timestamp", "a|x", "b", "a|y|z"];
        let rows = vec![vec!["1", "2", "3", ""], vec!["", "9", "9", "9"], vec!["2", "NaN"]];
        let frame = Frame::from_rows(&header, rows);
        assert_eq!(frame.timestamps, [1.0, 2.0]);
        assert_eq!(frame.columns[&("a".into(), "x".into())], [Some(2.0), None]);
        assert_eq!(frame.columns[&("a".into(), "y|z".into())], [None, None]);
        assert_eq!(frame.columns.len(), 2);
    }
}
