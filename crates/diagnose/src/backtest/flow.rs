//! What requests leave undone: which service no longer takes the steps it always takes, or takes steps it never took.
//!
//! Lives here: the steps of each request inside one service (operations, calls, log lines), which of them always happen,
//! and where they first stop. Does not: how long anything takes (`spans`).
//!
//! A fault in code (a wrong early return, an exception) shows as a broken sequence of events. Steps are looked at by the
//! request that a service answered, so that a service which is merely called less, because its caller gave up, looks
//! as it always does; and a request that broke because one that it made broke is put down to the latter. The idea of
//! comparing expected with actual patterns of events, logs and spans in one, is that of Nezha (Yu et al., ESEC/FSE 2023);
//! the statistics here are others.

use super::lines::LogRow;
use super::spans::{DEPTH_MAX, Forest, NONE, Names};
use super::templates;
use hashbrown::{HashMap, HashSet};

/// How much the requests of one service broke.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Broken {
    /// Evidence in nats, positive.
    pub(super) evidence: f64,
    /// For people.
    pub(super) text: String,
}

/// Requests of a kind needed to say what always happens in them.
const USUAL_MIN: usize = 3;
/// Share of usual requests (by Krichevsky and Trofimov's estimate, so three of three suffice and four of five do not)
/// from which a step is one that always happens.
const ALWAYS: f64 = 0.85;
/// A new step counts when its share is this many times that before the alert.
const NEW_FACTOR: f64 = 3.0;
/// Evidence from which broken requests excuse those that made them.
const EXCUSE: f64 = 2.0;
/// As for own times: requests of one recording go wrong together.
const CORRELATION: f64 = 0.1;

/// A step in a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Step {
    /// An operation of the service itself.
    Inside(u32),
    /// A request to another service.
    Call(u32, u32),
    /// A log line, by template.
    Line(u64),
}

/// Kind of a request: service and operation; without spans the first line stands for the operation.
type Kind = (u32, u64);

/// Requests of a recording, each answered by one service.
#[derive(Debug, Default)]
struct Requests {
    kinds: Vec<Kind>,
    /// Place of the request that made it.
    ups: Vec<u32>,
    starts: Vec<i64>,
    /// Request and step, sorted, each once.
    steps: Vec<(u32, Step)>,
}

impl Requests {
    fn new(recording: &Recording<'_>, names: &Names<'_>) -> Self {
        let mut out = Self::default();
        let spans = &recording.forest.spans;
        // The request each span belongs to: that of its caller, unless that is another service.
        let mut of_span = vec![NONE; spans.len()];
        let mut path = Vec::new();
        for i in 0..spans.len() {
            let mut at = i;
            path.clear();
            let request = loop {
                if of_span[at] != NONE {
                    break of_span[at];
                }
                let (span, up) = (spans[at], spans[at].up);
                path.push(at);
                let is_first = up == NONE || spans[up as usize].service != span.service;
                // A ring of callers has no first; what was entered stands for it.
                if is_first || path.len() > DEPTH_MAX {
                    out.kinds.push((span.service, u64::from(span.operation)));
                    out.starts.push(span.start);
                    break (out.kinds.len() - 1) as u32;
                }
                at = up as usize;
            };
            path.iter().for_each(|p| of_span[*p] = request);
        }
        out.ups = vec![NONE; out.kinds.len()];
        for (span, request) in spans.iter().zip(&of_span) {
            let kind = out.kinds[*request as usize];
            if kind != (span.service, u64::from(span.operation)) {
                out.steps.push((*request, Step::Inside(span.operation)));
            }
            if span.up != NONE && of_span[span.up as usize] != *request {
                let above = of_span[span.up as usize];
                out.ups[*request as usize] = above;
                out.steps.push((above, Step::Call(span.service, span.operation)));
            }
        }
        out.add_lines(recording, names, &of_span);
        out.order_steps();
        out
    }

    /// Sorts the steps by request, by counting, as there are many of them, then those of each.
    fn order_steps(&mut self) {
        let mut ends = vec![0usize; self.kinds.len() + 1];
        for (request, _) in &self.steps {
            ends[*request as usize + 1] += 1;
        }
        for i in 1..ends.len() {
            ends[i] += ends[i - 1];
        }
        let mut ordered = self.steps.clone();
        let mut next = ends.clone();
        for step in &self.steps {
            let at = &mut next[step.0 as usize];
            ordered[*at] = *step;
            *at += 1;
        }
        for range in ends.windows(2) {
            ordered[range[0]..range[1]].sort_unstable_by_key(|(_, step)| *step);
        }
        ordered.dedup();
        self.steps = ordered;
    }

    /// Lines belong to the request of their span. Those of a trace without that span make up requests of their own, one for
    /// each service in a trace; which of them made which is not known.
    fn add_lines(&mut self, recording: &Recording<'_>, names: &Names<'_>, of_span: &[u32]) {
        let mut loose: HashMap<(u64, u32), Vec<(i64, u64)>> = HashMap::new();
        for (row, line) in recording.logs.iter().zip(recording.templates) {
            let line = *line;
            let service = names.known(&row.service).unwrap_or(NONE);
            match recording.forest.place(row.trace_id.0, row.span_id.0).map(|place| of_span[place as usize]) {
                Some(request) if self.kinds[request as usize].0 == service => {
                    self.steps.push((request, Step::Line(line)));
                }
                _ if !row.trace_id.is_none() => {
                    loose.entry((row.trace_id.0, service)).or_default().push((row.at_ns, line));
                }
                _ => {}
            }
        }
        let mut loose: Vec<_> = loose.into_iter().collect();
        loose.sort_unstable_by_key(|(key, _)| *key);
        for ((_, service), mut lines) in loose {
            lines.sort_unstable();
            let Some(first) = lines.first().copied() else { continue };
            let request = self.kinds.len() as u32;
            // Out of the way of numbers of operations.
            self.kinds.push((service, first.1 | 1 << 63));
            self.starts.push(first.0);
            self.ups.push(NONE);
            self.steps.extend(lines.iter().map(|(_, line)| (request, Step::Line(*line))));
        }
    }

    /// The steps of each request, as ranges of `steps`.
    fn each(&self) -> impl Iterator<Item = (usize, &[(u32, Step)])> {
        let mut rest = self.steps.as_slice();
        (0..self.kinds.len()).map(move |i| {
            let n = rest.iter().take_while(|(request, _)| *request as usize == i).count();
            let (of_request, after) = rest.split_at(n);
            rest = after;
            (i, of_request)
        })
    }
}

/// What is known of a kind of request from quiet times.
#[derive(Debug, Default)]
struct Usual {
    requests: usize,
    seen: HashMap<Step, u32>,
    /// Steps that always happen.
    always: Vec<Step>,
    /// Quiet requests that would pass for broken, at most all.
    broken: f64,
}

/// Recorded lines and spans of one time.
pub(super) struct Recording<'a> {
    pub(super) forest: &'a Forest,
    pub(super) logs: &'a [LogRow],
    /// The template of each line.
    pub(super) templates: &'a [u64],
}

/// Weighs requests that began at `from_ns` or later (all, when none did) against quiet ones; for each service with
/// evidence, strongest kind of request first.
pub(super) fn broken_services(
    now: &Recording<'_>,
    usual: &Recording<'_>,
    from_ns: i64,
    names: &Names<'_>,
) -> Vec<(u32, Broken)> {
    let quiet = Requests::new(usual, names);
    let requests = Requests::new(now, names);
    let any_after = requests.starts.iter().any(|at| *at >= from_ns);
    let counts = |i: usize| !any_after || requests.starts[i] >= from_ns;
    let kinds = usual_kinds(&quiet);
    let known: HashSet<(u32, Step)> =
        quiet.steps.iter().map(|(request, step)| (quiet.kinds[*request as usize].0, *step)).collect();
    let new = new_steps(&requests, &known, counts);

    // First as it looks, then without those that only broke because what they asked for broke.
    let mut broken = vec![None; requests.kinds.len()];
    let mut tally: HashMap<Kind, (usize, usize)> = HashMap::new();
    // What was so before the alert is the state of the data, not the fault: it joins what is usual.
    let mut before: HashMap<Kind, (f64, f64)> = HashMap::new();
    for (i, steps) in requests.each() {
        let kind = requests.kinds[i];
        let Some(usual) = kinds.get(&kind) else { continue };
        if !counts(i) {
            let slot = before.entry(kind).or_default();
            slot.0 += 1.0;
            slot.1 += if what_broke(steps, usual, kind.0, &new).is_some() { 1.0 } else { 0.0 };
            continue;
        }
        broken[i] = what_broke(steps, usual, kind.0, &new);
        let slot = tally.entry(kind).or_default();
        slot.0 += 1;
        slot.1 += usize::from(broken[i].is_some());
    }
    let evidence_of = |tally: &HashMap<Kind, (usize, usize)>, kind: &Kind| {
        let (n, bad) = tally.get(kind).copied().unwrap_or_default();
        let (n_before, bad_before) = before.get(kind).copied().unwrap_or_default();
        kinds.get(kind).map_or(0.0, |usual| {
            let quiet = (usual.broken + bad_before + 0.5) / (usual.requests as f64 + n_before + 1.0);
            more_often(bad, n, quiet)
        })
    };
    let loud: HashSet<Kind> = tally.keys().filter(|kind| evidence_of(&tally, kind) > EXCUSE).copied().collect();
    let mut excused = vec![false; broken.len()];
    for i in (0..broken.len()).filter(|i| broken[*i].is_some() && loud.contains(&requests.kinds[*i])) {
        let mut up = requests.ups[i];
        for _ in 0..DEPTH_MAX {
            // What is above an excused one is excused already.
            if up == NONE || excused[up as usize] {
                break;
            }
            excused[up as usize] = true;
            up = requests.ups[up as usize];
        }
    }
    let mut examples: HashMap<Kind, HashMap<(bool, Step), usize>> = HashMap::new();
    for (i, what) in broken.iter().enumerate() {
        let Some(what) = what else { continue };
        let kind = requests.kinds[i];
        if excused[i] {
            if let Some(slot) = tally.get_mut(&kind) {
                slot.1 -= 1;
            }
        } else {
            *examples.entry(kind).or_default().entry(*what).or_default() += 1;
        }
    }
    let mut out: HashMap<u32, (f64, f64, Kind)> = HashMap::new();
    let mut order: Vec<Kind> = tally.keys().copied().collect();
    order.sort_unstable();
    for kind in order {
        let evidence = evidence_of(&tally, &kind);
        if evidence > 0.0 {
            let slot = out.entry(kind.0).or_insert((0.0, 0.0, kind));
            slot.0 += evidence;
            if evidence > slot.1 {
                (slot.1, slot.2) = (evidence, kind);
            }
        }
    }
    let mut out: Vec<(u32, Broken)> = out
        .into_iter()
        .map(|(service, (evidence, _, kind))| {
            let (n, bad) = tally.get(&kind).copied().unwrap_or_default();
            let most = examples.get(&kind).and_then(|of| of.iter().max_by_key(|(what, n)| (**n, **what)));
            let step = most.map_or(String::new(), |((is_new, step), _)| {
                format!(", {} {}", if *is_new { "new:" } else { "missing:" }, step_text(*step, [now, usual], names))
            });
            (
                service,
                Broken { evidence, text: format!("{bad} of {n} requests to {} broke{step}", names.text(service)) },
            )
        })
        .collect();
    out.sort_unstable_by_key(|(service, _)| *service);
    out
}

/// What always happens in each kind of request, and how often a quiet one looks broken all the same.
fn usual_kinds(quiet: &Requests) -> HashMap<Kind, Usual> {
    let mut kinds: HashMap<Kind, Usual> = HashMap::new();
    for (i, steps) in quiet.each() {
        let usual = kinds.entry(quiet.kinds[i]).or_default();
        usual.requests += 1;
        for (_, step) in steps {
            *usual.seen.entry(*step).or_default() += 1;
        }
    }
    kinds.retain(|_, usual| usual.requests >= USUAL_MIN);
    let mut bad: HashMap<Kind, f64> = HashMap::new();
    for (kind, usual) in &mut kinds {
        let n = usual.requests as f64;
        usual.always =
            usual.seen.iter().filter(|(_, k)| (f64::from(**k) + 0.5) / (n + 1.0) >= ALWAYS).map(|(s, _)| *s).collect();
        usual.always.sort_unstable();
        // Steps seen once tell how often a step never seen is to be expected (Good 1953, after Turing).
        let once = usual.seen.values().filter(|k| **k == 1).count() as f64;
        bad.insert(*kind, once.min(n));
    }
    for (i, steps) in quiet.each() {
        if let Some(usual) = kinds.get(&quiet.kinds[i])
            && missing(steps, usual).is_some()
            && let Some(bad) = bad.get_mut(&quiet.kinds[i])
        {
            *bad += 1.0;
        }
    }
    for (kind, usual) in &mut kinds {
        let n = usual.requests as f64;
        usual.broken = bad.get(kind).copied().unwrap_or(0.0).min(n);
    }
    kinds
}

/// Steps that the service never took in quiet times and takes clearly more often after the alert than before it.
fn new_steps(
    requests: &Requests,
    known: &HashSet<(u32, Step)>,
    counts: impl Fn(usize) -> bool,
) -> HashSet<(u32, Step)> {
    let mut before_and_after: HashMap<(u32, Step), [f64; 2]> = HashMap::new();
    let mut all: HashMap<u32, [f64; 2]> = HashMap::new();
    for (i, steps) in requests.each() {
        let (service, side) = (requests.kinds[i].0, usize::from(counts(i)));
        all.entry(service).or_default()[side] += 1.0;
        for (_, step) in steps.iter().filter(|(_, step)| !known.contains(&(service, *step))) {
            before_and_after.entry((service, *step)).or_default()[side] += 1.0;
        }
    }
    let is_new = |(service, _): &(u32, Step), n: &[f64; 2]| {
        let all = all.get(service).copied().unwrap_or_default();
        n[1] / all[1].max(1.0) >= NEW_FACTOR * n[0] / (all[0] + 1.0)
    };
    before_and_after.into_iter().filter(|(key, n)| is_new(key, n)).map(|(key, _)| key).collect()
}

/// The first step that always happens and did not.
fn missing(steps: &[(u32, Step)], usual: &Usual) -> Option<Step> {
    usual.always.iter().find(|step| steps.binary_search_by_key(*step, |(_, s)| *s).is_err()).copied()
}

/// A new step, else a missing one; whether it is new.
fn what_broke(steps: &[(u32, Step)], usual: &Usual, service: u32, new: &HashSet<(u32, Step)>) -> Option<(bool, Step)> {
    let fresh = steps.iter().map(|(_, step)| *step).filter(|step| new.contains(&(service, *step))).max();
    fresh.map(|step| (true, step)).or_else(|| missing(steps, usual).map(|step| (false, step)))
}

/// Evidence in nats that `bad` of `n` is more than the share of quiet times: the log-likelihood ratio, for the better
/// of the two rates, of as many requests as are independent.
fn more_often(bad: usize, n: usize, quiet_share: f64) -> f64 {
    let (k, n) = (bad as f64, n as f64);
    let share = (k + 0.5) / (n + 1.0);
    if n < 1.0 || share <= quiet_share {
        return 0.0;
    }
    let ratio = k * (share / quiet_share).ln() + (n - k) * ((1.0 - share) / (1.0 - quiet_share)).ln();
    (ratio / (1.0 + CORRELATION * (n - 1.0))).max(0.0)
}

fn step_text(step: Step, recordings: [&Recording<'_>; 2], names: &Names<'_>) -> String {
    match step {
        Step::Inside(operation) => names.text(operation).to_owned(),
        Step::Call(service, operation) => format!("the call of {} in {}", names.text(operation), names.text(service)),
        Step::Line(line) => {
            let rows = recordings.iter().flat_map(|r| r.logs.iter().zip(r.templates));
            // Which line stands for the template must not depend on the order of rows.
            let first = rows.filter(|(_, t)| **t == line).map(|(row, _)| (row.at_ns, &row.message)).min();
            format!("the line \"{}\"", first.map_or(String::new(), |(_, text)| templates::shortened(text)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backtest::lines::SpanRow;
    use proptest::prelude::*;

    /// Twenty requests web → shop → db, with a line before and after the call of db; `stops` says who returns early, and
    /// whether with a line of failure.
    fn recording(stops: Option<(&str, bool)>) -> (Vec<SpanRow>, Vec<LogRow>) {
        let (mut spans, mut logs) = (Vec::new(), Vec::new());
        let stops_at = |service: &str| stops.is_some_and(|(at, _)| at == service);
        for i in 0..20_i64 {
            let trace = format!("t{i}");
            let mut span = |id: &str, parent: &str, service: &str, operation: &str, from: i64, to: i64| {
                spans.push(SpanRow {
                    start_ns: i * 1_000 + from,
                    end_ns: i * 1_000 + to,
                    trace_id: trace.as_str().into(),
                    span_id: id.into(),
                    parent_id: parent.into(),
                    service: service.into(),
                    operation: operation.into(),
                });
            };
            let mut tick = i * 1_000;
            let mut line = |id: &str, service: &str, message: &str| {
                tick += 1;
                logs.push(LogRow {
                    at_ns: tick,
                    service: service.into(),
                    trace_id: trace.as_str().into(),
                    span_id: id.into(),
                    message: format!("{i} {message}"),
                });
            };
            span("a", "root", "web", "get", 0, 100);
            span("b", "a", "shop", "buy", 10, 90);
            line("b", "shop", "buying");
            if stops_at("shop") {
                if stops.is_some_and(|(_, fails)| fails) {
                    line("b", "shop", "ERROR no such thing");
                    line("a", "web", "ERROR the shop failed");
                }
                continue;
            }
            span("c", "b", "db", "select", 20, 80);
            line("c", "db", "selecting");
            line("b", "shop", "bought");
            line("a", "web", "done");
        }
        (spans, logs)
    }

    fn weigh(
        now: &(Vec<SpanRow>, Vec<LogRow>),
        usual: &(Vec<SpanRow>, Vec<LogRow>),
        from: i64,
    ) -> Vec<(String, Broken)> {
        let spans = now.0.iter().chain(&usual.0).flat_map(|s| [&*s.service, &*s.operation]);
        let names = Names::sorted(spans.chain(now.1.iter().chain(&usual.1).map(|l| &*l.service)));
        let forests = [Forest::new(&now.0, &names), Forest::new(&usual.0, &names)];
        let lines = |logs: &[LogRow]| logs.iter().map(|row| templates::template(&row.message)).collect::<Vec<_>>();
        let (a, b) = (lines(&now.1), lines(&usual.1));
        let now = Recording { forest: &forests[0], logs: &now.1, templates: &a };
        let usual = Recording { forest: &forests[1], logs: &usual.1, templates: &b };
        let found = broken_services(&now, &usual, from, &names);
        let mut out: Vec<_> = found.into_iter().map(|(s, b)| (names.text(s).to_owned(), b)).collect();
        out.sort_by(|a, b| b.1.evidence.total_cmp(&a.1.evidence));
        out
    }

    #[test]
    fn who_stops_first_is_to_blame_not_who_asked_nor_who_is_no_longer_asked() {
        let usual = recording(None);
        for fails in [false, true] {
            let found = weigh(&recording(Some(("shop", fails))), &usual, 0);
            assert_eq!(found.len(), 1, "{found:#?}");
            assert_eq!(found[0].0, "shop");
            assert!(found[0].1.evidence > 5.0, "{found:#?}");
            assert_eq!(found[0].1.text.contains("ERROR no such thing"), fails, "{found:#?}");
        }
        assert_eq!(weigh(&usual, &usual, 0), []);
    }

    #[test]
    fn lines_alone_tell_as_well() {
        let strip = |(_, logs): (Vec<SpanRow>, Vec<LogRow>)| (Vec::new(), logs);
        let found = weigh(&strip(recording(Some(("shop", true)))), &strip(recording(None)), 0);
        assert!(found.iter().any(|(service, _)| service == "shop"), "{found:#?}");
    }

    #[test]
    fn rarity_is_no_evidence_without_enough_quiet_requests() {
        let mut few = recording(None);
        few.0.truncate(3 * 2);
        few.1.truncate(4 * 2);
        assert_eq!(weigh(&recording(Some(("shop", true))), &few, 0), []);
        assert_eq!(weigh(&recording(None), &(Vec::new(), Vec::new()), 0), []);
        assert_eq!(weigh(&(Vec::new(), Vec::new()), &recording(None), 0), []);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(96))]

        #[test]
        fn wild_records_have_a_finite_weight_whatever_their_order(
            now in crate::backtest::spans::tests::wild_rows(),
            usual in crate::backtest::spans::tests::wild_rows(),
            lines in prop::collection::vec(("[ab]?", "[a-d]?", "[xyz]?", "[a-c0-9 :]{0,6}", any::<i64>()), 0..40),
            from in any::<i64>(),
        ) {
            let logs: Vec<LogRow> = lines
                .iter()
                .map(|(trace, span, service, message, at_ns)| LogRow {
                    at_ns: *at_ns,
                    service: service.as_str().into(),
                    trace_id: trace.as_str().into(),
                    span_id: span.as_str().into(),
                    message: message.clone(),
                })
                .collect();
            let turned = |rows: &[SpanRow]| rows.iter().rev().cloned().collect::<Vec<_>>();
            let backwards: Vec<LogRow> = logs.iter().rev().cloned().collect();
            let (half, rest) = logs.split_at(logs.len() / 2);
            let found = weigh(&(now.clone(), half.to_vec()), &(usual.clone(), rest.to_vec()), from);
            prop_assert!(found.iter().all(|(_, b)| b.evidence.is_finite() && b.evidence > 0.0));
            let (late, early) = backwards.split_at(logs.len() - half.len());
            prop_assert_eq!(weigh(&(turned(&now), early.to_vec()), &(turned(&usual), late.to_vec()), from), found);
        }
    }
}
