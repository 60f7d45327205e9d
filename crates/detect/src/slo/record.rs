//! A burning budget as a record for others.

use super::{BurnRule, Event};
use nightshift_model::slo::Slo;
use nightshift_model::{
    Anomaly, AnomalyKind, Direction, EntityMeta, Explanation, FaultClass, OccurrenceId, Phase, Severity, Timestamp,
};
use std::collections::BTreeMap;

/// Name of the signal.
pub(super) const SIGNAL: &str = "error_budget_burn";
/// Version of this detector: raise it when a verdict may change.
const MODEL_VERSION: u32 = 1;

/// A score within the severity, so that one follows from the other.
const fn score(severity: Severity) -> f64 {
    match severity {
        Severity::Low => 0.4,
        Severity::Medium => 0.6,
        Severity::High => 0.8,
        Severity::Critical => 0.95,
    }
}

fn severity(number: u8) -> Severity {
    Severity::ALL.into_iter().find(|s| *s as u8 == number).unwrap_or(Severity::Low)
}

pub(super) fn record(tenant: &str, meta: &EntityMeta, slo: &Slo, event: &Event<'_>) -> Anomaly {
    let labels = BTreeMap::from([("objective".to_owned(), slo.name.clone())]);
    let kind = AnomalyKind::Slo;
    let fingerprint = Anomaly::fingerprint_of(tenant, meta.id.as_str(), kind, SIGNAL, &labels);
    let onset = Timestamp(event.open.onset);
    let severity = severity(event.open.severity);
    Anomaly {
        id: OccurrenceId::derive(fingerprint, onset),
        fingerprint,
        tenant: tenant.to_owned(),
        entity: meta.clone(),
        kind,
        signal: SIGNAL.to_owned(),
        labels,
        onset,
        last_seen: Timestamp(event.open.last.max(event.open.onset)),
        phase: event.phase,
        score: score(severity),
        severity,
        direction: Direction::Up,
        fault: FaultClass::SloBurn,
        description: describe(slo, event),
        explanation: Explanation {
            observed: event.rates.long,
            expected: Some(1.0),
            lower: None,
            upper: Some(event.rule.rate),
            sigma: None,
            model: "slo_burn".to_owned(),
            model_version: MODEL_VERSION,
            features: features(slo, event),
            sample: String::new(),
        },
        source: String::new(),
    }
}

fn features(slo: &Slo, event: &Event<'_>) -> BTreeMap<String, f64> {
    let (rates, rule) = (&event.rates, event.rule);
    let long_secs = f64::from(rule.long_minutes) * 60.0;
    let mut out = BTreeMap::new();
    let mut note = |name: &str, value: Option<f64>| {
        if let Some(value) = value.filter(|v| v.is_finite()) {
            out.insert(name.to_owned(), value);
        }
    };
    note("objective_percent", Some(slo.objective));
    note("rate_long", rates.long);
    note("rate_short", rates.short);
    note("rate_limit", Some(rule.rate));
    note("window_long_secs", Some(long_secs));
    note("window_short_secs", Some(f64::from(rule.short_minutes) * 60.0));
    note("events_long", Some(rates.long_sums.tally.total));
    note("bad_long", Some(rates.long_sums.tally.bad));
    note("bad_short", Some(rates.short_sums.tally.bad));
    note("minutes_seen_long", Some(rates.long_sums.minutes as f64));
    note("minutes_seen_short", Some(rates.short_sums.minutes as f64));
    // Share of the objective's whole budget that the long window spent.
    note("budget_spent", rates.long.map(|r| r * long_secs / slo.window_secs.max(1) as f64));
    out
}

fn describe(slo: &Slo, event: &Event<'_>) -> String {
    let BurnRule { long_minutes, short_minutes, .. } = event.rule;
    let rate = |r: Option<f64>| r.map_or_else(|| "unknown".to_owned(), |r| format!("{r:.1}"));
    let (long, short) = (rate(event.rates.long), rate(event.rates.short));
    let (name, objective) = (&slo.name, slo.objective);
    let (long_window, short_window) = (span(*long_minutes), span(*short_minutes));
    let what = format!(
        "error budget of `{name}` ({objective} %) burns at {long} times the allowed rate over {long_window}, {short} over {short_window}"
    );
    if event.phase == Phase::Closed { format!("{what}: {}", event.why) } else { what }
}

fn span(minutes: u32) -> String {
    match minutes {
        m if m >= 1_440 && m % 1_440 == 0 => format!("{} d", m / 1_440),
        m if m >= 60 && m % 60 == 0 => format!("{} h", m / 60),
        m => format!("{m} min"),
    }
}
