//! What recorded spans say: which service's own share of the time grew.
//!
//! Lives here: joining spans to calls, each span's own time (its duration without what it waits for), and the weighing
//! of own times against a fault-free period. Does not: missing or new steps of a request (`flow`).
//!
//! A slow dependency makes every caller slow; own time does not have that flaw, since a caller's wait is covered by the
//! span of the one it waits for. What remains uncovered between a call and its answer is the way there and back: it
//! grows when the network of the callee is slow or when either side does not get a processor.

use super::lines::SpanRow;
use hashbrown::HashMap;

/// No span.
pub(super) const NONE: u32 = u32::MAX;
/// Callers looked at above a span, so that a ring of parents ends.
pub(super) const DEPTH_MAX: usize = 256;

/// Names as small numbers. After [`Names::sorted`] their order is that of the texts, so that results do not depend on
/// which row came first.
#[derive(Debug, Default)]
pub(super) struct Names<'a> {
    ids: HashMap<&'a str, u32>,
    texts: Vec<&'a str>,
}

impl<'a> Names<'a> {
    pub(super) fn id(&mut self, text: &'a str) -> u32 {
        *self.ids.entry(text).or_insert_with(|| {
            self.texts.push(text);
            (self.texts.len() - 1) as u32
        })
    }

    pub(super) fn known(&self, text: &str) -> Option<u32> {
        self.ids.get(text).copied()
    }

    pub(super) fn text(&self, id: u32) -> &'a str {
        self.texts.get(id as usize).copied().unwrap_or("")
    }

    /// All names of the rows, in order.
    pub(super) fn sorted(texts: impl Iterator<Item = &'a str>) -> Self {
        let mut out = Self::default();
        for text in texts {
            out.id(text);
        }
        out.texts.sort_unstable();
        out.ids = out.texts.iter().zip(0..).map(|(text, id)| (*text, id)).collect();
        out
    }
}

/// One span, joined to its caller.
#[derive(Debug, Clone, Copy)]
pub(super) struct Span {
    pub(super) trace: u64,
    pub(super) id: u64,
    parent: u64,
    /// Unix nanoseconds.
    pub(super) start: i64,
    /// Never before the start.
    pub(super) end: i64,
    pub(super) service: u32,
    pub(super) operation: u32,
    /// Place of the caller, [`NONE`] for a root and for a span whose caller was not recorded.
    pub(super) up: u32,
    /// Spans called.
    children: u32,
    /// Service of the last of them.
    callee: u32,
    /// Nanoseconds in which nothing that it called ran.
    pub(super) own: i64,
}

/// Spans of one recording, by start.
#[derive(Debug, Default)]
pub(super) struct Forest {
    pub(super) spans: Vec<Span>,
    /// By trace and span; of spans with the same id the first.
    places: HashMap<(u64, u64), u32>,
}

impl Forest {
    /// Joins rows in any order. Times that run backwards are taken as no time at all.
    pub(super) fn new(rows: &[SpanRow], names: &Names<'_>) -> Self {
        // Light keys are sorted, not spans; what starts at the same time is told apart by all the rest of the row.
        let rest = |place: u32| {
            let r = &rows[place as usize];
            (std::cmp::Reverse(r.end_ns), r.trace_id, r.span_id, r.parent_id, &r.service, &r.operation)
        };
        let mut order: Vec<(i64, u32)> = rows.iter().zip(0..NONE).map(|(r, place)| (r.start_ns, place)).collect();
        order.sort_unstable_by(|a, b| a.0.cmp(&b.0).then_with(|| rest(a.1).cmp(&rest(b.1))));
        let span = |(_, place): &(i64, u32)| {
            let r = &rows[*place as usize];
            Span {
                trace: r.trace_id.0,
                id: r.span_id.0,
                parent: r.parent_id.0,
                start: r.start_ns,
                end: r.end_ns.max(r.start_ns),
                service: names.known(&r.service).unwrap_or(NONE),
                operation: names.known(&r.operation).unwrap_or(NONE),
                up: NONE,
                children: 0,
                callee: NONE,
                own: 0,
            }
        };
        let spans: Vec<Span> = order.iter().map(span).collect();
        let mut places = HashMap::with_capacity(spans.len());
        for (span, place) in spans.iter().zip(0..) {
            places.entry((span.trace, span.id)).or_insert(place);
        }
        let mut out = Self { spans, places };
        out.join();
        out.own_times();
        out
    }

    /// The span with these ids.
    pub(super) fn place(&self, trace: u64, span: u64) -> Option<u32> {
        self.places.get(&(trace, span)).copied()
    }

    fn join(&mut self) {
        for i in 0..self.spans.len() {
            let span = self.spans[i];
            let Some(up) = self.place(span.trace, span.parent).filter(|up| *up as usize != i) else { continue };
            self.spans[i].up = up;
            let caller = &mut self.spans[up as usize];
            caller.children += 1;
            caller.callee = span.service;
        }
    }

    /// Duration without the union of what was called, in one pass: spans come in order of their start.
    ///
    /// A span without calls of its own that encloses a later sibling waits for it: asynchronous code hangs the call it
    /// makes beside the work that makes it. The sibling covers it as a call would.
    fn own_times(&mut self) {
        /// What of a span is covered so far, the end of that, and the last of its calls that has none itself.
        #[derive(Clone, Copy)]
        struct Cover {
            covered: i64,
            until: i64,
            open: u32,
        }
        let mut covers: Vec<Cover> =
            self.spans.iter().map(|s| Cover { covered: 0, until: s.start, open: NONE }).collect();
        for i in 0..self.spans.len() {
            let span = self.spans[i];
            if span.up == NONE {
                continue;
            }
            let open = covers[span.up as usize].open;
            let enclosed = open != NONE && span.end <= self.spans[open as usize].end;
            for by in [span.up, if enclosed { open } else { NONE }] {
                let (Some(cover), Some(whole)) = (covers.get_mut(by as usize), self.spans.get(by as usize)) else {
                    continue;
                };
                let (from, to) = (span.start.max(cover.until), span.end.min(whole.end));
                if to > from {
                    cover.covered = cover.covered.saturating_add(to.saturating_sub(from));
                    cover.until = to;
                }
            }
            if !enclosed {
                covers[span.up as usize].open = if span.children == 0 { i as u32 } else { NONE };
            }
        }
        for (span, cover) in self.spans.iter_mut().zip(&covers) {
            span.own = span.end.saturating_sub(span.start).saturating_sub(cover.covered).max(0);
        }
    }

    /// Whose time a span's own time is.
    fn whose(&self, span: &Span) -> Whose {
        if span.children == 1 && span.callee != span.service {
            Whose::Way { from: span.service, to: span.callee }
        } else {
            Whose::Inside { service: span.service, operation: span.operation }
        }
    }
}

/// What an own time belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Whose {
    /// The span did nothing but call another service: the time is that of the way there and back.
    Way { from: u32, to: u32 },
    /// Work of a service.
    Inside { service: u32, operation: u32 },
}

/// How slow a service itself has become.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Slow {
    /// Evidence in nats that it is, against nothing having changed; may be negative.
    pub(super) evidence: f64,
    /// Whether what happens inside grew as well, not only the way to it.
    pub(super) inside: bool,
    /// The most telling own time: what it is of, its usual and its present middle in milliseconds, how many.
    pub(super) worst: Option<Worst>,
}

/// One own time that grew.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Worst {
    pub(super) text: String,
    pub(super) usual_ms: f64,
    pub(super) now_ms: f64,
    pub(super) calls: usize,
    evidence: f64,
}

/// Own times up to this are not told apart: clocks of spans tick in milliseconds in places.
const TICK_NS: f64 = 1e6;
/// Growth up to this factor is load or the hour of the day, not a fault.
const GROWTH: f64 = 2.0;
/// What all own times of a kind together count beside those of one key, in samples. A key with two quiet samples has not
/// shown what it can do; the others have.
const POOL_WEIGHT: f64 = 2.0;
/// Correlation between calls of one key in one recording (Kish's design effect): a hundred calls through one fault are no
/// hundred proofs.
const CORRELATION: f64 = 0.1;
/// Least usual samples of work inside; ways to services are alike enough to borrow from one another.
const INSIDE_MIN: usize = 3;

/// Weighs own times of `now` against `usual`, for each service that occurs. Spans that begin before `from_ns` do not count,
/// unless all do.
pub(super) fn slow_services(now: &Forest, usual: &Forest, from_ns: i64, names: &Names<'_>) -> Vec<(u32, Slow)> {
    let mut keys: HashMap<Whose, (Vec<f64>, Vec<f64>)> = HashMap::with_capacity(256);
    let (mut ways, mut insides) = (Vec::new(), Vec::new());
    for span in &usual.spans {
        let (whose, own) = (usual.whose(span), (span.own as f64).max(TICK_NS));
        keys.entry(whose).or_default().0.push(own);
        match whose {
            Whose::Way { .. } => ways.push(own),
            Whose::Inside { .. } => insides.push(own),
        }
    }
    let any_after = now.spans.iter().any(|s| s.start >= from_ns);
    for span in now.spans.iter().filter(|s| !any_after || s.start >= from_ns) {
        keys.entry(now.whose(span)).or_default().1.push(span.own as f64);
    }
    ways.sort_unstable_by(f64::total_cmp);
    insides.sort_unstable_by(f64::total_cmp);
    let mut weighed: Vec<(Whose, f64, Vec<f64>, Vec<f64>)> = keys
        .into_iter()
        .filter(|(whose, (usual, now))| {
            let enough = match whose {
                Whose::Way { .. } => !ways.is_empty(),
                Whose::Inside { .. } => usual.len() >= INSIDE_MIN,
            };
            enough && !now.is_empty()
        })
        .map(|(whose, (mut usual, mut now))| {
            usual.sort_unstable_by(f64::total_cmp);
            now.sort_unstable_by(f64::total_cmp);
            let pool = if matches!(whose, Whose::Way { .. }) { &ways } else { &insides };
            (whose, grown(&usual, &now, pool), usual, now)
        })
        .collect();
    weighed.sort_unstable_by_key(|(whose, ..)| *whose);

    /// Evidence of the ways to it, from it, and of work inside, with the best of the latter.
    #[derive(Default)]
    struct Parts {
        to: f64,
        from: f64,
        inside: f64,
        inside_best: f64,
        worst: Option<Worst>,
    }
    let mut parts: HashMap<u32, Parts> = HashMap::new();
    for (whose, evidence, usual, now) in &weighed {
        let worst = |text: String| Worst {
            text,
            usual_ms: middle(usual) / 1e6,
            now_ms: middle(now) / 1e6,
            calls: now.len(),
            evidence: *evidence,
        };
        let mut add = |service: u32, text: &dyn Fn() -> String, to: &dyn Fn(&mut Parts)| {
            let part = parts.entry(service).or_default();
            to(part);
            if *evidence > part.worst.as_ref().map_or(0.0, |w| w.evidence) {
                part.worst = Some(worst(text()));
            }
        };
        match *whose {
            Whose::Way { from, to } => {
                let text = || format!("the way from {} to {}", names.text(from), names.text(to));
                add(to, &text, &|p| p.to += evidence);
                add(from, &text, &|p| p.from += evidence);
            }
            Whose::Inside { service, operation } => {
                let text = || format!("{} in {}", names.text(operation), names.text(service));
                add(service, &text, &|p| {
                    p.inside += evidence;
                    p.inside_best = p.inside_best.max(*evidence);
                });
            }
        }
    }
    let mut out: Vec<(u32, Slow)> = parts
        .into_iter()
        .map(|(service, p)| {
            // Which of the ways a fault shows: on the way to it; everywhere in it; in what it does and asks for, where
            // nobody is seen to call it. The priors of the latter two are what keeps a caller of one slow service from
            // passing for slow itself.
            let all = p.to + p.from + p.inside - 2f64.ln();
            let rest = p.from + p.inside - 4f64.ln();
            let evidence = p.to.max(all).max(rest);
            (service, Slow { evidence, inside: evidence > p.to && p.inside_best > 0.0, worst: p.worst })
        })
        .collect();
    out.sort_unstable_by_key(|(service, _)| *service);
    out
}

fn middle(sorted: &[f64]) -> f64 {
    sorted.get(sorted.len() / 2).copied().unwrap_or(0.0)
}

/// Evidence in nats that `now` has grown beyond [`GROWTH`] times what is usual. All sorted, nanoseconds.
///
/// For each sample the share of usual ones at least as large, with those of the pool as [`POOL_WEIGHT`] more, and a tail
/// that falls with the inverse of the size beyond the largest (a Pareto tail of index 1, heavier than any service's). Such a
/// share is a p-value; `1 / (2 sqrt p)` makes it a bet that on average gains nothing when nothing has changed (Vovk and
/// Wang 2021), and bets multiply.
fn grown(usual: &[f64], now: &[f64], pool: &[f64]) -> f64 {
    let at_least = |sorted: &[f64], x: f64| (sorted.len() - sorted.partition_point(|v| *v < x)) as f64;
    let largest = pool.last().copied().unwrap_or(TICK_NS).max(usual.last().copied().unwrap_or(TICK_NS));
    let sum: f64 = now
        .iter()
        .map(|v| {
            let x = (v / GROWTH).max(TICK_NS);
            let of_pool = (at_least(pool, x) + (largest / x).min(1.0)) / (pool.len() as f64 + 1.0);
            let p = (at_least(usual, x) + POOL_WEIGHT * of_pool) / (usual.len() as f64 + POOL_WEIGHT);
            -2f64.ln() - 0.5 * p.ln()
        })
        .sum();
    sum / (1.0 + CORRELATION * (now.len() as f64 - 1.0))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use proptest::prelude::*;

    fn row(trace: &str, id: &str, parent: &str, place: (&str, &str), from_ms: i64, to_ms: i64) -> SpanRow {
        SpanRow {
            start_ns: from_ms * 1_000_000,
            end_ns: to_ms * 1_000_000,
            trace_id: trace.into(),
            span_id: id.into(),
            parent_id: parent.into(),
            service: place.0.into(),
            operation: place.1.into(),
        }
    }

    fn names_of(rows: &[SpanRow]) -> Names<'_> {
        Names::sorted(rows.iter().flat_map(|r| [&*r.service, &*r.operation]))
    }

    /// Twenty traces: web calls shop and mail, shop calls db; `way` and `work` are added to what shop does.
    fn traces(way: i64, work: i64) -> Vec<SpanRow> {
        let mut out = Vec::new();
        for i in 0..20 {
            let t = i.to_string();
            let jitter = i % 3;
            let end = 40 + jitter + 2 * way + work;
            out.push(row(&t, "a", "root", ("web", "get"), 0, end + 10));
            out.push(row(&t, "b", "a", ("web", "post"), 2, 2 + end));
            out.push(row(&t, "c", "b", ("shop", "buy"), 4 + way, end - way));
            out.push(row(&t, "d", "c", ("shop", "ask"), 8 + way, 20 + way));
            out.push(row(&t, "e", "d", ("db", "select"), 9 + way, 19 + way));
            out.push(row(&t, "f", "a", ("web", "post"), end + 3, end + 9));
            out.push(row(&t, "g", "f", ("mail", "send"), end + 4, end + 8));
        }
        out
    }

    fn weigh(now: &[SpanRow], usual: &[SpanRow]) -> Vec<(String, Slow)> {
        let all: Vec<SpanRow> = now.iter().chain(usual).cloned().collect();
        let names = names_of(&all);
        let found = slow_services(&Forest::new(now, &names), &Forest::new(usual, &names), 0, &names);
        let mut out: Vec<_> = found.into_iter().map(|(s, slow)| (names.text(s).to_owned(), slow)).collect();
        out.sort_by(|a, b| b.1.evidence.total_cmp(&a.1.evidence));
        out
    }

    #[test]
    fn a_slow_way_is_put_down_to_the_callee_and_slow_work_to_who_does_it() {
        let usual = traces(0, 0);
        let way = weigh(&traces(500, 0), &usual);
        assert_eq!((way[0].0.as_str(), way[0].1.inside), ("shop", false), "{way:#?}");
        assert!(way[0].1.evidence > 10.0 && way[1].1.evidence < way[0].1.evidence - 5.0, "{way:#?}");
        let work = weigh(&traces(0, 500), &usual);
        assert_eq!((work[0].0.as_str(), work[0].1.inside), ("shop", true), "{work:#?}");
        assert!(weigh(&usual, &usual).iter().all(|(_, slow)| slow.evidence <= 0.0));
    }

    #[test]
    fn own_time_is_what_no_call_covers() {
        let rows = [
            row("t", "a", "", ("x", "p"), 0, 100),
            row("t", "b", "a", ("x", "q"), 10, 50),
            // Side by side with the one before, and past the end of its caller.
            row("t", "c", "a", ("x", "q"), 40, 60),
            row("t", "d", "a", ("x", "q"), 90, 130),
        ];
        let names = names_of(&rows);
        let own =
            |rows: &[SpanRow]| Forest::new(rows, &names).spans.iter().map(|s| s.own / 1_000_000).collect::<Vec<_>>();
        assert_eq!(own(&rows), [40, 40, 20, 40]);
        // What encloses its sibling waits for it.
        let waits = [rows[0].clone(), row("t", "b", "a", ("x", "q"), 10, 90), row("t", "c", "a", ("x", "r"), 20, 80)];
        let all: Vec<SpanRow> = rows.iter().chain(&waits).cloned().collect();
        let forest = Forest::new(&waits, &names_of(&all));
        assert_eq!(forest.spans.iter().map(|s| s.own / 1_000_000).collect::<Vec<_>>(), [20, 20, 60]);
    }

    /// Spans as nobody should write them: rings, orphans, the same id twice, time running backwards.
    pub(in crate::backtest) fn wild_rows() -> impl Strategy<Value = Vec<SpanRow>> {
        let time = prop_oneof![-50i64..50, any::<i64>()];
        let one = ("[ab]?", "[a-d]?", "[a-d]?", "[xyz]?", "[pq]", time.clone(), time);
        prop::collection::vec(one, 0..40).prop_map(|rows| {
            rows.into_iter()
                .map(|(trace, id, parent, service, operation, start_ns, end_ns)| SpanRow {
                    start_ns,
                    end_ns,
                    ..row(&trace, &id, &parent, (&service, &operation), 0, 0)
                })
                .collect()
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]

        #[test]
        fn wild_spans_have_a_finite_weight_whatever_their_order(
            now in wild_rows(), usual in wild_rows(), from in any::<i64>(), turn in 0usize..40,
        ) {
            let all: Vec<SpanRow> = now.iter().chain(&usual).cloned().collect();
            let names = names_of(&all);
            let weigh = |now: &[SpanRow], usual: &[SpanRow]| {
                slow_services(&Forest::new(now, &names), &Forest::new(usual, &names), from, &names)
            };
            let found = weigh(&now, &usual);
            prop_assert!(found.iter().all(|(_, slow)| slow.evidence.is_finite()));
            let mut turned = now.clone();
            turned.rotate_left(turn.min(now.len()));
            let mut reversed = usual.clone();
            reversed.reverse();
            prop_assert_eq!(weigh(&turned, &reversed), found);
        }
    }
}
