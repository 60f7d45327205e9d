//! Alarms as records for others: names, numbers and a line for people.

use super::MODEL_VERSION;
use super::engine::Layer;
use super::judge::{Alarm, AlarmKind, Transition};
use super::policy::Policy;
use nightshift_model::batch::labels;
use nightshift_model::{
    Anomaly, AnomalyKind, Direction, EntityMeta, Explanation, FaultClass, OccurrenceId, Severity, Timestamp,
};
use std::collections::BTreeMap;

/// Whose alarm it is.
pub(crate) struct Subject<'a> {
    pub(crate) tenant: &'a str,
    pub(crate) source: &'a str,
    pub(crate) entity: &'a EntityMeta,
    /// Labels in wire form.
    pub(crate) labels: &'a [u8],
    pub(crate) policy: &'a Policy,
}

/// Only what is a number: JSON has no infinity.
fn finite(v: f64) -> Option<f64> {
    v.is_finite().then_some(v)
}

/// The record of a transition.
pub(crate) fn record(subject: &Subject<'_>, t: &Transition) -> Anomaly {
    let alarm = &t.alarm;
    let mut signal = String::new();
    let mut tags = BTreeMap::new();
    for (name, value) in labels::iter(subject.labels).map_while(Result::ok) {
        if name == labels::NAME {
            value.clone_into(&mut signal);
        } else {
            tags.insert(name.to_owned(), value.to_owned());
        }
    }
    let kind = if t.kind == AlarmKind::Capacity { AnomalyKind::Capacity } else { AnomalyKind::Statistical };
    let fingerprint = Anomaly::fingerprint_of(subject.tenant, subject.entity.id.as_str(), kind, &signal, &tags);
    let onset = Timestamp(alarm.onset);
    let fault = match t.kind {
        AlarmKind::Departure => subject.policy.reading.map_or(FaultClass::Unknown, |r| r.fault(alarm.direction)),
        AlarmKind::Capacity => subject.policy.reading.map_or(FaultClass::Unknown, |r| r.trend_fault(alarm.direction)),
        AlarmKind::Flat | AlarmKind::Absence => FaultClass::TelemetryMissing,
    };
    Anomaly {
        id: OccurrenceId::derive(fingerprint, onset),
        fingerprint,
        tenant: subject.tenant.to_owned(),
        entity: subject.entity.clone(),
        kind,
        signal,
        labels: tags,
        onset,
        last_seen: Timestamp(alarm.last),
        phase: t.phase,
        score: alarm.score,
        severity: Severity::from_score(alarm.score),
        direction: alarm.direction,
        fault,
        description: describe(t.kind, alarm),
        explanation: explain(t.kind, alarm, subject.policy),
        source: subject.source.to_owned(),
    }
}

fn describe(kind: AlarmKind, a: &Alarm) -> String {
    match kind {
        AlarmKind::Departure if a.layer == Layer::Forecast => {
            let (v, d, e) = (Number(a.value), a.distance.abs(), Number(a.expected));
            format!("value {v} deviates {d:.1} sigma from forecast {e}")
        }
        AlarmKind::Departure if a.layer == Layer::Ewma => {
            let (v, d) = (Number(a.value), a.chart.abs());
            format!("value {v} stays {d:.1} sigma from mean")
        }
        AlarmKind::Departure if a.layer == Layer::Ensemble => {
            let odds = 10f64.powf(f64::from(a.evidence.clamp(0.0, 15.0)));
            format!("value {} is {}: 1 in {odds:.0} readings was so far", Number(a.value), a.witness.text())
        }
        AlarmKind::Departure => format!("value {} deviates {:.1} sigma from mean", Number(a.value), a.distance.abs()),
        AlarmKind::Flat => format!("value {} has not changed for {} readings", Number(a.value), a.samples),
        AlarmKind::Capacity => {
            let (v, l) = (Number(a.value), Number(a.limit));
            let minutes = a.eta_secs / 60.0;
            if minutes < 120.0 {
                format!("value {v} reaches {l} in {minutes:.0} min")
            } else {
                format!("value {v} reaches {l} in {:.1} h", minutes / 60.0)
            }
        }
        AlarmKind::Absence => format!("no data for {:.0} s", a.eta_secs),
    }
}

/// Two decimals where people expect them, and scientific where those would be all zeros or too many digits.
struct Number(f64);

impl std::fmt::Display for Number {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let a = self.0.abs();
        if a != 0.0 && !(0.005..1e15).contains(&a) { write!(f, "{:.2e}", self.0) } else { write!(f, "{:.2}", self.0) }
    }
}

fn explain(kind: AlarmKind, a: &Alarm, policy: &Policy) -> Explanation {
    let mut features = BTreeMap::new();
    let mut note = |name: &str, value: f64| {
        if value.is_finite() {
            features.insert(name.to_owned(), value);
        }
    };
    note("points", f64::from(a.points));
    note("samples", f64::from(a.samples));
    if a.relearned {
        note("relearned", 1.0);
    }
    let band = f64::from(a.threshold) * a.scale;
    let (mut lower, mut upper, mut sigma) = (None, None, None);
    match kind {
        AlarmKind::Departure | AlarmKind::Flat => {
            note("zscore", f64::from(a.z));
            note("forecast", f64::from(a.forecast));
            note("ewma", f64::from(a.chart));
            note("threshold_sigma", f64::from(a.threshold));
            note("ratio", f64::from(a.ratio));
            note("configured_sigma", f64::from(policy.sigma));
            note("evidence", f64::from(a.evidence));
            (lower, upper) = (finite(a.expected - band), finite(a.expected + band));
            sigma = finite(f64::from(a.distance));
        }
        AlarmKind::Capacity => {
            note("time_to_limit_secs", a.eta_secs);
            note("limit", a.limit);
            note("slope_per_sec", a.mean);
            note("fit", a.mad);
            if a.direction == Direction::Down {
                lower = finite(a.limit);
            } else {
                upper = finite(a.limit);
            }
        }
        AlarmKind::Absence => note("silence_secs", a.eta_secs),
    }
    Explanation {
        observed: if kind == AlarmKind::Absence { None } else { finite(a.value) },
        expected: finite(a.expected),
        lower,
        upper,
        sigma,
        model: a.layer.name().to_owned(),
        model_version: MODEL_VERSION,
        features,
        sample: String::new(),
    }
}
