//! What the templates are given: texts and coordinates, ready to be placed.

use super::plan;
use crate::seams::ApiState;
use crate::shown::Story;
use nightshift_health::{Health, HealthBoard};
use nightshift_model::{
    Anomaly, EntityId, FaultClass, Hypothesis, Incident, IncidentStatus, Phase, Severity, Timestamp,
};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::time::Duration;

/// Symptoms, summands and lines of history that a page shows; the API has all.
const SYMPTOMS_MAX: usize = 50;
const TIMELINE_MAX: usize = 100;
const ENTITIES_MAX: usize = 40;

/// Width of a drawing, in its own units.
const WIDTH: f64 = 200.0;

pub(crate) fn open_statuses() -> Vec<IncidentStatus> {
    IncidentStatus::ALL.into_iter().filter(|s| s.is_open()).collect()
}

/// What a person may say was the cause.
pub(crate) fn faults() -> Value {
    let known = FaultClass::ALL.iter().filter(|f| **f != FaultClass::Unknown);
    known.map(|f| json!([f.slug(), f.title()])).collect()
}

/// What the filters can be set to.
pub(crate) fn choices() -> Value {
    let statuses: Vec<_> = IncidentStatus::ALL.iter().map(|s| json!([s.as_str(), words(s.as_str())])).collect();
    let severities: Vec<_> = Severity::ALL.iter().rev().map(|s| s.as_str()).collect();
    json!({ "statuses": statuses, "severities": severities })
}

pub(crate) fn list_title(incidents: &[Incident]) -> String {
    match incidents.iter().filter(|i| i.status.is_open()).count() {
        0 => "Incidents".into(),
        n => format!("({n}) Incidents"),
    }
}

/// Open incidents by severity, worst first, as far as they are on the page.
pub(crate) fn counts(incidents: &[Incident]) -> Value {
    let open = || incidents.iter().filter(|i| i.status.is_open());
    let by: Vec<_> = Severity::ALL
        .iter()
        .rev()
        .map(|s| (s.as_str(), open().filter(|i| i.severity == *s).count()))
        .filter(|(_, n)| *n > 0)
        .map(|(name, n)| json!({ "severity": name, "n": n }))
        .collect();
    json!({ "open": open().count(), "by": by })
}

pub(crate) fn health(board: &HealthBoard) -> Value {
    let components = board.components();
    let ill: Vec<_> = components.iter().filter(|c| c.status != Health::Healthy).collect();
    let names: Vec<_> = ill.iter().take(5).map(|c| format!("{}: {}", c.name, c.detail)).collect();
    json!({ "status": board.overall(), "n": components.len(), "ill": ill.len(), "why": names.join(" · ") })
}

/// What is watched: shown when there is nothing else to show.
pub(crate) fn watched(state: &ApiState) -> Value {
    let status = state.status.status();
    let now = state.clock.now();
    let sources: Vec<_> = state
        .collectors
        .collectors()
        .iter()
        .map(|c| {
            json!({
                "name": c.name, "kind": c.kind, "status": c.status, "detail": c.detail, "items": grouped(c.items),
                "last": c.last.map_or("never".into(), |at| ago(at, now)),
            })
        })
        .collect();
    json!({
        "sources": sources,
        "series": grouped(status.series_live),
        "since": duration(now.since(status.started_at)),
        "address": status.listeners.get("api").map_or("127.0.0.1:8080", String::as_str),
        "warnings": status.config_warnings,
    })
}

pub(crate) fn time(at: Timestamp, now: Timestamp) -> Value {
    let whole = Timestamp::from_secs(at.0.div_euclid(1_000_000_000)).to_rfc3339();
    json!({ "iso": at, "ago": ago(at, now), "clock": clock(&whole), "date": whole.get(..10).unwrap_or_default() })
}

/// `03:12:45` of an RFC 3339 time.
pub(crate) fn clock(rfc3339: &str) -> String {
    rfc3339.get(11..19).unwrap_or(rfc3339).to_owned()
}

fn cause(h: &Hypothesis) -> Value {
    json!({
        "summary": h.summary,
        "entity": h.entity.as_ref().map(EntityId::name),
        "entity_id": h.entity,
        "fault": h.fault.title(),
        "slug": h.fault.slug(),
        "signal": h.signal,
        "percent": (h.confidence.clamp(0.0, 1.0) * 100.0).round(),
        "width": bar(h.confidence),
        "known": h.entity.is_some(),
    })
}

/// A share as the width of a bar.
pub(crate) fn bar(share: f64) -> f64 {
    rounded(if share.is_finite() { share.clamp(0.0, 1.0) * 100.0 } else { 0.0 })
}

/// An incident in the list.
pub(crate) fn row(i: &Incident, now: Timestamp) -> Value {
    json!({
        "id": i.short_id(),
        "title": i.title,
        "severity": i.severity.as_str(),
        "status": words(i.status.as_str()),
        "open": i.status.is_open(),
        "onset": time(i.onset, now),
        "cause": i.top_cause().map(cause),
        "symptoms": i.anomalies_total,
        "affected": i.blast_radius.affected.len(),
        "synthetic": i.synthetic,
        "acknowledged_by": i.acknowledged_by,
        "marks": plan::marks(i, now),
    })
}

/// An incident on its own page.
pub(crate) fn incident(i: &Incident, story: &Story, now: Timestamp) -> Value {
    let end = i.anomalies.iter().map(|a| a.last_seen).chain(i.resolved_at).max().unwrap_or(i.updated_at).max(i.onset);
    let mut symptoms: Vec<_> = i.anomalies.iter().collect();
    symptoms.sort_by_key(|a| (a.onset, a.id));
    let shown: Vec<_> = symptoms.iter().take(SYMPTOMS_MAX).map(|a| symptom(a, i.onset, end, now)).collect();
    let skipped = i.timeline.len().saturating_sub(TIMELINE_MAX);
    let timeline: Vec<_> = i.timeline[skipped..]
        .iter()
        .map(|t| {
            json!({
                "at": time(t.at, now), "action": words(&t.action), "actor": t.actor, "detail": t.detail,
                "person": t.actor != "system",
            })
        })
        .collect();
    let mut value = row(i, now);
    let named: BTreeSet<_> = i.anomalies.iter().map(|a| &a.entity.id).chain(&i.blast_radius.affected).collect();
    let more = json!({
        "auto": plan::automation(i, story, now),
        "entities": named.into_iter().take(ENTITIES_MAX).collect::<Vec<_>>(),
        "full_id": i.id,
        "score": format!("{:.2}", i.score),
        "detected": time(i.detected_at, now),
        "detected_after": duration(i.detection_latency()),
        "updated": time(i.updated_at, now),
        "resolved": i.resolved_at.map(|at| time(at, now)),
        "resolved_by": i.resolved_by,
        "lasted": i.resolved_at.map(|at| duration(at.since(i.onset))),
        "anomalies_open": i.anomalies_open,
        "merged_into": i.merged_into,
        "recurrence_of": i.recurrence_of,
        "revision": i.rca_revision,
        "causes": i.hypotheses.iter().map(full_cause).collect::<Vec<_>>(),
        "blast": {
            "affected": entities(&i.blast_radius.affected),
            "affected_more": i.blast_radius.affected.len().saturating_sub(ENTITIES_MAX),
            "at_risk": entities(&i.blast_radius.at_risk),
            "at_risk_more": i.blast_radius.at_risk.len().saturating_sub(ENTITIES_MAX),
            "impact": i.blast_radius.estimated_user_impact,
            "criticality": i.blast_radius.criticality,
        },
        "shown": shown,
        "not_shown": i.anomalies_total.saturating_sub(shown.len() as u64),
        "timeline": timeline,
        "timeline_skipped": skipped,
    });
    if let (Value::Object(value), Value::Object(more)) = (&mut value, more) {
        value.extend(more);
    }
    value
}

fn entities(ids: &[EntityId]) -> Vec<Value> {
    ids.iter().take(ENTITIES_MAX).map(|id| json!({ "id": id, "name": id.name(), "kind": id.kind_str() })).collect()
}

fn full_cause(h: &Hypothesis) -> Value {
    let most = h.contributions.iter().map(|c| c.log_odds.abs()).filter(|x| x.is_finite()).fold(1.0, f64::max);
    let summands: Vec<_> = h
        .contributions
        .iter()
        .map(|c| {
            let share = if c.log_odds.is_finite() { (c.log_odds.abs() / most).min(1.0) } else { 0.0 };
            let width = rounded(share * 50.0);
            json!({
                "factor": words(&c.factor),
                "why": c.why,
                "log_odds": format!("{:+.2}", c.log_odds),
                "against": c.log_odds < 0.0,
                "x": if c.log_odds < 0.0 { rounded(50.0 - width) } else { 50.0 },
                "width": width,
            })
        })
        .collect();
    let evidence: Vec<_> = h
        .evidence
        .iter()
        .map(|e| json!({ "id": e.id, "text": e.text, "at": clock(&e.at.to_rfc3339()), "iso": e.at }))
        .collect();
    let mut value = cause(h);
    value["summands"] = json!(summands);
    value["evidence"] = json!(evidence);
    value["score"] = json!(format!("{:+.2}", h.score));
    value
}

fn symptom(a: &Anomaly, from: Timestamp, to: Timestamp, now: Timestamp) -> Value {
    let e = &a.explanation;
    let labels: Vec<_> = a.labels.iter().map(|(k, v)| format!("{k}={v}")).collect();
    let whole = to.since(from).as_secs_f64().max(1.0);
    let place = |at: Timestamp| at.since(from).as_secs_f64() / whole * WIDTH;
    // What goes on reaches to the end, whenever its newest sample came.
    let end = if a.phase == Phase::Closed { place(a.last_seen) } else { WIDTH };
    let x = place(a.onset).min(WIDTH - 3.0);
    json!({
        "entity": a.entity.id.name(),
        "entity_id": a.entity.id,
        "entity_kind": a.entity.id.kind_str(),
        "service": a.entity.service,
        "signal": a.signal,
        "labels": labels.join(", "),
        "kind": a.kind.as_str(),
        "severity": a.severity.as_str(),
        "description": a.description,
        "sample": e.sample,
        "model": e.model,
        "open": a.phase != Phase::Closed,
        "onset": time(a.onset, now),
        "after": duration(a.onset.since(from)),
        "observed": e.observed.map(figure),
        "expected": e.expected.map(figure),
        "normal": e.lower.zip(e.upper).map(|(l, u)| format!("{} to {}", figure(l), figure(u))),
        "sigma": e.sigma.map(|s| format!("{s:+.1}")),
        "band": band(a),
        "span": { "x": rounded(x), "width": rounded((end - x).max(3.0)) },
    })
}

/// Where observed, expected and the band stand on one scale; `None` without an observed value and a scale.
fn band(a: &Anomaly) -> Option<Value> {
    let e = &a.explanation;
    let observed = e.observed.filter(|x| x.is_finite())?;
    let others = [e.expected, e.lower, e.upper];
    let known: Vec<f64> = others.into_iter().flatten().filter(|x| x.is_finite()).chain([observed]).collect();
    let (low, high) = known.iter().fold((f64::MAX, f64::MIN), |(l, h), x| (l.min(*x), h.max(*x)));
    let width = high - low;
    if known.len() < 2 || !width.is_finite() || width <= 0.0 {
        return None;
    }
    let place = |x: f64| rounded(8.0 + (x - low) / width * (WIDTH - 16.0));
    let edges = e.lower.zip(e.upper).filter(|(l, u)| l.is_finite() && u.is_finite() && l <= u);
    Some(json!({
        "observed": place(observed),
        "expected": e.expected.filter(|x| x.is_finite()).map(place),
        "normal": edges.map(|(l, u)| json!({ "x": place(l), "width": rounded((place(u) - place(l)).max(2.0)) })),
    }))
}

pub(crate) fn rounded(x: f64) -> f64 {
    (x * 10.0).round() / 10.0
}

/// `rca_complete` as `rca complete`.
pub(crate) fn words(slug: &str) -> String {
    slug.replace('_', " ")
}

/// A number with at most four significant digits.
pub(crate) fn figure(x: f64) -> String {
    let size = x.abs();
    let (scaled, unit) = match size {
        _ if !x.is_finite() => return "not a number".into(),
        0.0 => return "0".into(),
        s if !(1e-4..1e15).contains(&s) => return format!("{x:.2e}"),
        s if s >= 1e12 => (x / 1e12, " T"),
        s if s >= 1e9 => (x / 1e9, " G"),
        s if s >= 1e6 => (x / 1e6, " M"),
        s if s >= 1e4 => (x / 1e3, " k"),
        _ => (x, ""),
    };
    let before = scaled.abs().log10().floor() as i32 + 1;
    let decimals = usize::try_from((4 - before).clamp(0, 7)).unwrap_or(0);
    let text = format!("{scaled:.decimals$}");
    let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    format!("{text}{unit}")
}

/// A count with thin gaps: `1 234 567`.
pub(crate) fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (i, c) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push('\u{202f}');
        }
        out.push(c);
    }
    out
}

fn duration(d: Duration) -> String {
    match d.as_secs() {
        s @ 0..100 => format!("{s} s"),
        s @ 100..6_000 => format!("{} min", s / 60),
        s @ 6_000..172_800 => format!("{} h", s / 3_600),
        s => format!("{} days", s / 86_400),
    }
}

pub(crate) fn ago(at: Timestamp, now: Timestamp) -> String {
    let passed = now.since(at);
    if passed < Duration::from_secs(3) { "just now".into() } else { format!("{} ago", duration(passed)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_short_and_true() {
        for (x, want) in [
            (0.0, "0"),
            (200.0, "200"),
            (50.25, "50.25"),
            (0.012345, "0.01235"),
            (-3.0, "-3"),
            (12_345.0, "12.35 k"),
            (123_456_789.0, "123.5 M"),
            (1e-9, "1.00e-9"),
            (f64::NAN, "not a number"),
            (1e300, "1.00e300"),
            (9_999.9, "10000"),
        ] {
            assert_eq!(figure(x), want, "{x}");
        }
        assert_eq!(grouped(1_234_567), "1\u{202f}234\u{202f}567");
        assert_eq!(grouped(12), "12");
    }
}
