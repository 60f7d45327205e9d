//! Symptoms in recorded log lines and spans, against a normal period.

use super::entity;
use crate::rank::Symptom;
use nightshift_model::{AnomalyKind, Direction, FaultClass, SignalFamily, Timestamp};
use std::collections::BTreeMap;

/// One log line.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LogRow {
    /// Unix nanoseconds.
    pub at_ns: i64,
    /// Service that wrote it.
    pub service: String,
    /// The line.
    pub message: String,
}

/// One span.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SpanRow {
    /// Unix nanoseconds.
    pub start_ns: i64,
    /// Unix nanoseconds.
    pub end_ns: i64,
    /// The trace it belongs to.
    pub trace_id: String,
    /// Its id.
    pub span_id: String,
    /// Its parent's id; anything that is no span stands for none.
    pub parent_id: String,
    /// Service that did the work.
    pub service: String,
    /// What it did.
    pub operation: String,
}

/// Words that tell of failure in any language of programs.
const FAILURE: [&str; 8] = ["error", "exception", "fail", "fatal", "panic", "refused", "timeout", "timed out"];
/// Longest part of a message that makes its template.
const TEMPLATE_BYTES_MAX: usize = 120;
/// Spans of one operation needed to speak of its usual time.
const SPANS_MIN: usize = 5;

/// A message without what differs from line to line. Coarse on purpose: the miner of the detect room is finer, this
/// only has to tell a line that is never there from one that always is.
fn template(message: &str) -> String {
    let mut out = String::new();
    for word in message.split_whitespace() {
        if out.len() > TEMPLATE_BYTES_MAX {
            break;
        }
        let variable = word.bytes().any(|b| b.is_ascii_digit()) || word.len() > 40;
        out.push_str(if variable { "*" } else { word });
        out.push(' ');
    }
    out
}

/// Services that write lines of failure which the normal period does not have, or far more of them.
pub(super) fn log_symptoms(logs: &[LogRow], normal: &[LogRow]) -> Vec<Symptom> {
    let mut usual: BTreeMap<(&str, String), f64> = BTreeMap::new();
    for row in normal {
        *usual.entry((row.service.as_str(), template(&row.message))).or_default() += 1.0;
    }
    let mut seen: BTreeMap<(&str, String), (f64, i64, &str)> = BTreeMap::new();
    for row in logs {
        let slot = seen.entry((row.service.as_str(), template(&row.message))).or_insert((0.0, row.at_ns, &row.message));
        slot.0 += 1.0;
        slot.1 = slot.1.min(row.at_ns);
    }
    let mut out = Vec::new();
    for ((service, template), (count, first, sample)) in seen {
        let before = usual.get(&(service, template.clone())).copied().unwrap_or(0.0);
        let lower = template.to_ascii_lowercase();
        let failure = FAILURE.iter().any(|w| lower.contains(w));
        // A normal minute is one, a case three: a line is unusual when it is new or comes ten times as often.
        if count < 3.0 * 10.0 * before || !failure {
            continue;
        }
        let score = if before == 0.0 { 0.8 } else { 0.6 };
        let sample: String = sample.chars().take(160).collect();
        out.push(Symptom {
            evidence_id: format!("log:{service}:{template}"),
            entity: entity(service),
            signal: "log".into(),
            family: None,
            fault: FaultClass::ErrorRateSpike,
            direction: Direction::Up,
            kind: AnomalyKind::Log,
            score,
            onset: Timestamp(first),
            error_ratio: None,
            text: format!("{count:.0} lines like \"{sample}\", {before:.0} in normal times"),
            part: String::new(),
            is_replica: false,
        });
    }
    out
}

/// Services whose own share of the time (without what they wait for) grew.
pub(super) fn span_symptoms(spans: &[SpanRow], normal: &[SpanRow]) -> Vec<Symptom> {
    let usual = own_times(normal);
    let now = own_times(spans);
    let mut best: BTreeMap<&str, Symptom> = BTreeMap::new();
    for (key, (times, first)) in &now {
        let Some((before, _)) = usual.get(key) else { continue };
        if times.len() < SPANS_MIN || before.len() < SPANS_MIN {
            continue;
        }
        let (was, is) = (quantile(before, 0.9), quantile(times, 0.9));
        let growth = (is + 1e6) / (was + 1e6);
        if growth < 2.0 {
            continue;
        }
        let score = (0.4 + 0.2 * growth.log2().min(3.0)).min(1.0);
        let (service, operation) = *key;
        let symptom = Symptom {
            evidence_id: format!("span:{service}:{operation}"),
            entity: entity(service),
            signal: "own_time".into(),
            family: Some(SignalFamily::Latency),
            fault: FaultClass::LatencySpike,
            direction: Direction::Up,
            kind: AnomalyKind::Statistical,
            score,
            onset: Timestamp(*first),
            error_ratio: None,
            text: format!(
                "own time of {operation} in {service}: {:.0} ms where {:.0} ms is usual",
                is / 1e6,
                was / 1e6
            ),
            part: String::new(),
            is_replica: false,
        };
        if best.get(service).is_none_or(|b| symptom.score > b.score) {
            best.insert(service, symptom);
        }
    }
    best.into_values().collect()
}

/// Own times in nanoseconds, and the first start.
type OwnTimes<'a> = BTreeMap<(&'a str, &'a str), (Vec<f64>, i64)>;

/// Time of each span less that of its children, in nanoseconds, by service and operation.
fn own_times(spans: &[SpanRow]) -> OwnTimes<'_> {
    let mut children: BTreeMap<(&str, &str), i64> = BTreeMap::new();
    for s in spans {
        *children.entry((&s.trace_id, &s.parent_id)).or_default() += s.end_ns.saturating_sub(s.start_ns).max(0);
    }
    let mut out: OwnTimes<'_> = BTreeMap::new();
    for s in spans {
        let whole = s.end_ns.saturating_sub(s.start_ns).max(0);
        let below = children.get(&(s.trace_id.as_str(), s.span_id.as_str())).copied().unwrap_or(0);
        let slot = out.entry((&s.service, &s.operation)).or_insert((Vec::new(), s.start_ns));
        slot.0.push((whole - below).max(0) as f64);
        slot.1 = slot.1.min(s.start_ns);
    }
    for (times, _) in out.values_mut() {
        times.sort_by(f64::total_cmp);
    }
    out
}

fn quantile(sorted: &[f64], q: f64) -> f64 {
    sorted.get(((sorted.len().saturating_sub(1)) as f64 * q) as usize).copied().unwrap_or(0.0)
}
