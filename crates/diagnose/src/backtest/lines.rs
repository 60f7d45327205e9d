//! Recorded log lines and spans of a case, and what they say about its services.
//!
//! Lives here: the rows as they are read, and joining what `spans` and `flow` find into clues. Does not: how either
//! weighs its rows.

use super::Case;
use super::clue::Clue;
use super::flow::{self, Recording};
use super::spans::{self, Forest, Names, Slow};
use super::templates;
use hashbrown::HashMap;
use nightshift_model::SignalFamily;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;

/// Id of a trace or a span. Only whether two are the same matters, so 64 bits of a hash stand for the text: among a
/// million ids, two that share one are found once in forty million recordings.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RecordId(pub(super) u64);

impl RecordId {
    /// Whether there was no text.
    pub(super) fn is_none(self) -> bool {
        self.0 == 0
    }
}

impl From<&str> for RecordId {
    fn from(text: &str) -> Self {
        if text.is_empty() {
            return Self(0);
        }
        let mut hasher = DefaultHasher::new();
        text.hash(&mut hasher);
        Self(hasher.finish().max(1))
    }
}

/// One log line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogRow {
    /// Unix nanoseconds.
    pub at_ns: i64,
    /// Service that wrote it.
    pub service: Arc<str>,
    /// The trace it was written in; the id of an empty text where none is known.
    pub trace_id: RecordId,
    /// The span it was written in.
    pub span_id: RecordId,
    /// The line.
    pub message: String,
}

/// One span.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpanRow {
    /// Unix nanoseconds.
    pub start_ns: i64,
    /// Unix nanoseconds.
    pub end_ns: i64,
    /// The trace it belongs to.
    pub trace_id: RecordId,
    /// Its id.
    pub span_id: RecordId,
    /// Its parent's id; anything that is no span stands for none.
    pub parent_id: RecordId,
    /// Service that did the work.
    pub service: Arc<str>,
    /// What it did.
    pub operation: Arc<str>,
}

/// Most that traces and logs together add to one service, in log-odds: as much as two kinds of metrics that point elsewhere need to
/// be turned round, and no more, since a recording may be wrong as a whole.
const WEIGHT_MAX: f64 = 12.0;
/// Evidence in nats at which they add 0.63 of that.
const EVIDENCE_SCALE: f64 = 8.0;
/// Log-odds below which a clue is not worth a line.
const CLUE_MIN: f64 = 0.05;

/// What the traces and logs of a case say, weighed.
///
/// The strongest service gets what its strength deserves, up to [`WEIGHT_MAX`]; the others as much less as they have less
/// evidence, which is what likelihoods of rival causes mean.
pub(super) fn clues(case: &Case) -> Vec<Clue> {
    let from_ns = (case.alert_at * 1e9) as i64;
    let (spans, normal_spans) = with_usual(&case.spans, &case.normal_spans, |s| s.start_ns < from_ns);
    let (logs, normal_logs) = with_usual(&case.logs, &case.normal_logs, |l| l.at_ns < from_ns);
    let spans_of = spans.iter().chain(normal_spans.iter());
    let texts = spans_of.flat_map(|s| [&*s.service, &*s.operation]);
    let names = Names::sorted(texts.chain(logs.iter().chain(normal_logs.iter()).map(|l| &*l.service)));
    let (now, usual) = (Forest::new(&spans, &names), Forest::new(&normal_spans, &names));

    let mut found: BTreeMap<u32, (Slow, flow::Broken)> = BTreeMap::new();
    for (service, slow) in spans::slow_services(&now, &usual, from_ns, &names) {
        found.entry(service).or_default().0 = slow;
    }
    let (templates, usual_templates) = (templates_of(&logs), templates_of(&normal_logs));
    let now = Recording { forest: &now, logs: &logs, templates: &templates };
    let usual = Recording { forest: &usual, logs: &normal_logs, templates: &usual_templates };
    for (service, broken) in flow::broken_services(&now, &usual, from_ns, &names) {
        found.entry(service).or_default().1 = broken;
    }
    let total = |(slow, broken): &(Slow, flow::Broken)| slow.evidence.max(0.0) + broken.evidence;
    let most = found.values().map(total).fold(0.0, f64::max);
    let weight = WEIGHT_MAX * (1.0 - (-most / EVIDENCE_SCALE).exp());
    let mut out = Vec::new();
    for (service, (slow, broken)) in &found {
        let service = names.text(*service);
        let all = slow.evidence.max(0.0) + broken.evidence;
        let of_service = (weight - (most - all)).max(0.0);
        let mut say = |evidence: f64, factor, family, why: String| {
            let log_odds = if all > 0.0 { of_service * evidence / all } else { 0.0 };
            if log_odds >= CLUE_MIN {
                let service = service.to_owned();
                out.push(Clue { service, factor, indicator: String::new(), family, log_odds, own: true, why });
            }
        };
        let family = if slow.inside { SignalFamily::Cpu } else { SignalFamily::Latency };
        let why = slow.worst.as_ref().map_or(String::new(), |w| {
            format!("{} takes {:.0} ms where {:.0} ms is usual, {} times", w.text, w.now_ms, w.usual_ms, w.calls)
        });
        say(slow.evidence, "trace", Some(family), why);
        say(broken.evidence, "flow", None, broken.text.clone());
    }
    out.extend(failure_lines(&now, &usual));
    out
}

fn templates_of(logs: &[LogRow]) -> Vec<u64> {
    logs.iter().map(|row| templates::template(&row.message)).collect()
}

/// The recording and what is usual; where nothing usual was recorded, the time before the alert stands for it.
fn with_usual<'a, T: Clone>(
    rows: &'a [T],
    usual: &'a [T],
    is_before: impl Fn(&T) -> bool,
) -> (Cow<'a, [T]>, Cow<'a, [T]>) {
    if !usual.is_empty() {
        return (Cow::Borrowed(rows), Cow::Borrowed(usual));
    }
    let (before, after): (Vec<T>, Vec<T>) = rows.iter().cloned().partition(|row| is_before(row));
    (Cow::Owned(after), Cow::Owned(before))
}

/// Most that lines of failure add, in log-odds. Callers write such lines as well as who failed, and some systems write
/// them on a quiet day: they decide only where nothing better does.
const FAILURE_MAX: f64 = 2.0;
/// Times as many lines of failure as usual that are still no news.
const FAILURE_FACTOR: f64 = 3.0;
/// As for own times: the lines of one fault are no independent proofs.
const FAILURE_CORRELATION: f64 = 0.1;

/// Services that write more lines of failure than usual: the likelihood ratio of two Poisson rates.
fn failure_lines(now: &Recording<'_>, usual: &Recording<'_>) -> Vec<Clue> {
    struct Count<'a> {
        now: f64,
        usual: f64,
        /// The line that stands for the template; which one must not depend on the order of rows.
        first: (i64, &'a str),
    }
    let (logs, normal) = (now.logs, usual.logs);
    let mut found: HashMap<(&str, u64), Count<'_>> = HashMap::new();
    for (row, template) in logs.iter().zip(now.templates) {
        let this = (row.at_ns, row.message.as_str());
        let count = found.entry((&row.service, *template)).or_insert(Count { now: 0.0, usual: 0.0, first: this });
        count.now += 1.0;
        count.first = count.first.min(this);
    }
    let mut counts: BTreeMap<(&str, u64), Count<'_>> =
        found.into_iter().filter(|(_, count)| templates::tells_of_failure(count.first.1)).collect();
    for (row, template) in normal.iter().zip(usual.templates) {
        if let Some(count) = counts.get_mut(&(&*row.service, *template)) {
            count.usual += 1.0;
        }
    }
    let longer = if normal.is_empty() { 1.0 } else { (span_secs(logs) / span_secs(normal)).clamp(0.01, 100.0) };
    let mut best: BTreeMap<&str, (f64, &str, f64, f64)> = BTreeMap::new();
    for ((service, _), count) in &counts {
        let expected = (count.usual + 0.5) * longer * FAILURE_FACTOR;
        if count.now <= expected {
            continue;
        }
        let ratio = count.now * (count.now / expected).ln() - (count.now - expected);
        let evidence = ratio / (1.0 + FAILURE_CORRELATION * (count.now - 1.0));
        let log_odds = FAILURE_MAX * (1.0 - (-evidence / EVIDENCE_SCALE).exp());
        if log_odds >= CLUE_MIN && best.get(service).is_none_or(|b| log_odds > b.0) {
            best.insert(service, (log_odds, count.first.1, count.now, count.usual * longer));
        }
    }
    let clue = |(service, (log_odds, sample, now, usual)): (&str, (f64, &str, f64, f64))| Clue {
        service: service.to_owned(),
        factor: "log",
        indicator: "log".to_owned(),
        family: None,
        log_odds,
        own: false,
        why: format!("{now:.0} lines like \"{}\" where {usual:.0} are usual", templates::shortened(sample)),
    };
    best.into_iter().map(clue).collect()
}

/// Seconds from the first line to the last, at least one.
fn span_secs(logs: &[LogRow]) -> f64 {
    let first = logs.iter().map(|row| row.at_ns).min().unwrap_or_default();
    let last = logs.iter().map(|row| row.at_ns).max().unwrap_or_default();
    (last.saturating_sub(first) as f64 / 1e9).max(1.0)
}
