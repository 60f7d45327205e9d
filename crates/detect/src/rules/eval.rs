//! Asks a condition of the samples of one group at one moment of event time.
//!
//! "No data" is neither true nor false: a number is missing when its selector finds nothing (or a division by zero
//! was asked for), and a comparison with a missing number has no answer. `and` is false when one side is, `or` true
//! when one side is, whatever the other (Kleene's three-valued logic).

use super::expr::{Arithmetic, Compare, Expr, Function, Num, Truth};
use nightshift_model::batch::SeriesKind;
use nightshift_model::time::NANOS_PER_SEC;
use std::collections::VecDeque;

/// Samples kept of one series at most; the oldest go first.
pub(super) const SAMPLES_MAX: usize = 4096;

/// The samples of one series in time order, as long as some window needs them.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Samples {
    rows: VecDeque<(i64, f64)>,
}

impl Samples {
    /// Adds a sample in its place; false when one with this time is there.
    pub(super) fn add(&mut self, at: i64, value: f64) -> bool {
        let newest = self.rows.back().map_or(i64::MIN, |r| r.0);
        if at > newest {
            self.rows.push_back((at, value));
        } else {
            match self.rows.binary_search_by_key(&at, |r| r.0) {
                Ok(_) => return false,
                Err(i) => self.rows.insert(i, (at, value)),
            }
        }
        if self.rows.len() > SAMPLES_MAX {
            self.rows.pop_front();
        }
        true
    }

    /// Drops what no window of `keep_ns` needs that ends at the newest sample or later. Not while earlier moments are
    /// still to be asked about.
    pub(super) fn prune(&mut self, keep_ns: i64) {
        let begin = self.newest().unwrap_or(0).saturating_sub(keep_ns);
        while self.rows.len() > 1 && self.rows.front().is_some_and(|r| r.0 <= begin) {
            self.rows.pop_front();
        }
    }

    pub(super) fn newest(&self) -> Option<i64> {
        self.rows.back().map(|r| r.0)
    }

    /// Time of the newest sample up to `until`; of the oldest when all are later.
    fn newest_until(&self, until: i64) -> Option<i64> {
        let n = self.rows.partition_point(|r| r.0 <= until);
        self.rows.get(n.saturating_sub(1)).map(|r| r.0)
    }

    pub(super) fn rows(&self) -> impl Iterator<Item = (i64, f64)> {
        self.rows.iter().copied()
    }

    /// Samples later than `after`, up to `until`.
    fn within(&self, after: i64, until: i64) -> impl Iterator<Item = (i64, f64)> + Clone {
        let from = self.rows.partition_point(|r| r.0 <= after);
        let to = self.rows.partition_point(|r| r.0 <= until);
        self.rows.range(from..to.max(from)).copied()
    }
}

/// What a selector found: a series' samples and the meaning of its values.
pub(super) type Found<'a> = (&'a Samples, SeriesKind);

/// What came of a condition.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(super) struct Verdict {
    /// `None`: there is no data to tell.
    pub(super) truth: Option<bool>,
    /// The comparison that made it true: value, threshold, sign.
    pub(super) because: Option<(f64, f64, Compare)>,
    /// Seconds since the newest sample of what is absent.
    pub(super) absent_secs: Option<f64>,
}

/// A number from the samples of one series within the window.
type PerSeries<'f> = dyn Fn(&[(i64, f64)], SeriesKind) -> Option<f64> + 'f;

struct Asking<'a, F> {
    at: i64,
    found: F,
    verdict: Verdict,
    _series: std::marker::PhantomData<&'a ()>,
}

/// Asks `expr` at `at`; `found(i)` are the series of its selector `i`.
pub(super) fn ask<'a, I: Iterator<Item = Found<'a>>>(expr: &Expr, at: i64, found: impl Fn(usize) -> I) -> Verdict {
    let mut asking = Asking { at, found, verdict: Verdict::default(), _series: std::marker::PhantomData };
    let truth = asking.truth(&expr.root);
    asking.verdict.truth = truth;
    asking.verdict
}

impl<'a, I: Iterator<Item = Found<'a>>, F: Fn(usize) -> I> Asking<'a, F> {
    fn truth(&mut self, t: &Truth) -> Option<bool> {
        match t {
            Truth::Compare(sign, pair) => {
                let (left, right) = (self.num(&pair.0)?, self.num(&pair.1)?);
                let holds = match sign {
                    Compare::Less => left < right,
                    Compare::LessEqual => left <= right,
                    Compare::Greater => left > right,
                    Compare::GreaterEqual => left >= right,
                    #[expect(clippy::float_cmp, reason = "`up == 0` is asked of values that are exact")]
                    Compare::Equal => left == right,
                    #[expect(clippy::float_cmp, reason = "as above")]
                    Compare::NotEqual => left != right,
                };
                if holds && self.verdict.because.is_none() {
                    self.verdict.because = Some((left, right, *sign));
                }
                Some(holds)
            }
            Truth::Absent { selector, window_ns } => {
                let newest = (self.found)(*selector).filter_map(|(s, _)| s.newest_until(self.at)).max()?;
                let absent = newest <= self.at.saturating_sub(*window_ns);
                if absent {
                    self.verdict.absent_secs = Some(self.at.saturating_sub(newest) as f64 / NANOS_PER_SEC as f64);
                }
                Some(absent)
            }
            Truth::Not(inner) => self.truth(inner).map(|t| !t),
            Truth::And(pair) => match (self.truth(&pair.0), self.truth(&pair.1)) {
                (Some(false), _) | (_, Some(false)) => Some(false),
                (Some(true), Some(true)) => Some(true),
                _ => None,
            },
            Truth::Or(pair) => match (self.truth(&pair.0), self.truth(&pair.1)) {
                (Some(true), _) | (_, Some(true)) => Some(true),
                (Some(false), Some(false)) => Some(false),
                _ => None,
            },
        }
    }

    fn num(&self, n: &Num) -> Option<f64> {
        let value = match n {
            Num::Literal(v) => *v,
            Num::Now => self.at as f64 / NANOS_PER_SEC as f64,
            Num::Neg(inner) => -self.num(inner)?,
            Num::Two(op, pair) => {
                let (left, right) = (self.num(&pair.0)?, self.num(&pair.1)?);
                match op {
                    Arithmetic::Add => left + right,
                    Arithmetic::Sub => left - right,
                    Arithmetic::Mul => left * right,
                    Arithmetic::Div => left / right,
                }
            }
            Num::Call { function, selector, window_ns } => self.call(*function, *selector, *window_ns)?,
        };
        // A division by zero has no answer, and neither has what does not fit.
        value.is_finite().then_some(value)
    }

    fn call(&self, function: Function, selector: usize, window_ns: i64) -> Option<f64> {
        let after = self.at.saturating_sub(window_ns);
        let series = || (self.found)(selector).map(|(s, kind)| (s.within(after, self.at), s, kind));
        let all = || series().flat_map(|(rows, _, _)| rows.map(|r| r.1));
        let per_series = |f: &PerSeries<'_>| {
            let mut sum = None;
            let mut rows = Vec::new();
            for (within, _, kind) in series() {
                rows.clear();
                rows.extend(within);
                if let Some(v) = f(&rows, kind) {
                    sum = Some(sum.unwrap_or(0.0) + v);
                }
            }
            sum
        };
        let mean = || {
            let (n, sum) = all().fold((0u64, 0.0), |(n, sum), v| (n + 1, sum + v));
            (n > 0).then(|| (sum / n as f64, n))
        };
        match function {
            Function::Avg => mean().map(|(mean, _)| mean),
            Function::Stddev => {
                let (mean, n) = mean()?;
                Some((all().map(|v| (v - mean).powi(2)).sum::<f64>() / n as f64).sqrt())
            }
            Function::Min => all().reduce(f64::min),
            Function::Max => all().reduce(f64::max),
            Function::Sum => per_series(&|rows, _| rows.last().map(|r| r.1)),
            Function::Count => per_series(&|rows, _| (!rows.is_empty()).then_some(1.0)),
            Function::Last => series()
                .filter_map(|(rows, _, _)| rows.last())
                .reduce(|a, b| if b.0 > a.0 { b } else { a })
                .map(|r| r.1),
            Function::Delta => per_series(&|rows, _| match rows {
                [first, .., last] => Some(last.1 - first.1),
                _ => None,
            }),
            Function::Changes => per_series(&|rows, _| {
                #[expect(clippy::float_cmp, reason = "a change is any difference")]
                let n = rows.windows(2).filter(|w| w[0].1 != w[1].1).count();
                (!rows.is_empty()).then_some(n as f64)
            }),
            Function::Increase => per_series(&|rows, kind| grown(rows, kind).map(|(grown, _)| grown)),
            Function::Rate => per_series(&|rows, kind| {
                let (grown, span) = grown(rows, kind)?;
                Some(grown / (if kind == SeriesKind::Delta { window_ns as f64 } else { span } / NANOS_PER_SEC as f64))
            }),
            Function::Slope => per_series(&|rows, _| slope(rows)),
            // Never made by the parser.
            Function::Absent => None,
        }
    }
}

/// How much a counter grew, and over how many nanoseconds. A fall is a restart from zero.
fn grown(rows: &[(i64, f64)], kind: SeriesKind) -> Option<(f64, f64)> {
    let ([first, ..], [.., last]) = (rows, rows) else { return None };
    if kind == SeriesKind::Delta {
        return Some((rows.iter().map(|r| r.1).sum(), (last.0 - first.0) as f64));
    }
    if rows.len() < 2 {
        return None;
    }
    let grown = rows.windows(2).map(|w| if w[1].1 >= w[0].1 { w[1].1 - w[0].1 } else { w[1].1 }).sum();
    Some((grown, (last.0 - first.0) as f64))
}

/// Least squares, per second.
fn slope(rows: &[(i64, f64)]) -> Option<f64> {
    let first = rows.first()?.0;
    let n = rows.len() as f64;
    let time = |t: i64| (t - first) as f64 / NANOS_PER_SEC as f64;
    let (sum_t, sum_v) = rows.iter().fold((0.0, 0.0), |(t, v), r| (t + time(r.0), v + r.1));
    let (mean_t, mean_v) = (sum_t / n, sum_v / n);
    let (mut tv, mut tt) = (0.0, 0.0);
    for r in rows {
        let off = time(r.0) - mean_t;
        tv += off * (r.1 - mean_v);
        tt += off * off;
    }
    (tt > 0.0).then(|| tv / tt)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(rows: &[(i64, f64)]) -> Samples {
        let mut s = Samples::default();
        for (t, v) in rows {
            s.add(t * NANOS_PER_SEC, *v);
        }
        s
    }

    #[track_caller]
    fn check(text: &str, at: i64, series: &[(SeriesKind, &[(i64, f64)])], want: Option<bool>) {
        let expr = Expr::parse(text).unwrap();
        let series: Vec<_> = series.iter().map(|(kind, rows)| (samples(rows), *kind)).collect();
        let verdict = ask(&expr, at * NANOS_PER_SEC, |_| series.iter().map(|(s, kind)| (s, *kind)));
        assert_eq!(verdict.truth, want, "{text} at {at}: {verdict:?}");
    }

    #[test]
    fn every_function_over_a_window() {
        use SeriesKind::{Counter, Delta, Gauge};
        let a: &[(i64, f64)] = &[(0, 1.0), (60, 2.0), (120, 6.0)];
        let b: &[(i64, f64)] = &[(60, 10.0), (110, 10.0)];
        let two = [(Gauge, a), (Gauge, b)];
        for (text, want) in [
            ("avg(x, 2m) == 7", true), // (2 + 6 + 10 + 10) / 4; the sample at 0 is outside.
            ("min(x, 2m) == 2", true),
            ("max(x) == 10", true),
            ("sum(x) == 16", true),
            ("count(x) == 2", true),
            ("last(x) == 6", true),
            ("x == 6", true),
            ("delta(x, 5m) == 5", true),
            ("changes(x, 5m) == 2", true),
            ("stddev(x, 2m) > 3.3 and stddev(x, 2m) < 3.4", true),
            ("count(x, 5s) == 1", true),
            ("now() == 120", true),
            ("absent(x, 1m)", false),
            ("x / 2 + 1 * 2 - 1 == 4", true),
            ("-x < 0 and not x > 7", true),
        ] {
            check(text, 120, &two, Some(want));
        }
        let counter: &[(i64, f64)] = &[(0, 100.0), (60, 160.0), (120, 30.0)];
        check("increase(x, 5m) == 90", 120, &[(Counter, counter)], Some(true));
        check("rate(x, 5m) == 0.75", 120, &[(Counter, counter)], Some(true));
        check("increase(x, 5m) == 290", 120, &[(Delta, counter)], Some(true));
        check("slope(x, 5m) == 1", 120, &[(Gauge, &[(0, 0.0), (60, 60.0), (120, 120.0)])], Some(true));
    }

    #[test]
    fn no_data_is_neither_true_nor_false() {
        let none: &[(SeriesKind, &[(i64, f64)])] = &[];
        for (text, want) in [
            ("x > 1", None),
            ("not x > 1", None),
            ("x > 1 or 1 > 2", None),
            ("x > 1 and 1 > 2", Some(false)),
            ("x > 1 or 2 > 1", Some(true)),
            ("absent(x)", None),
            ("1 / 0 > 1", None),
            ("0 / 0 == 0", None),
        ] {
            check(text, 100, none, want);
        }
        check("rate(x) > 0", 100, &[(SeriesKind::Counter, &[(90, 5.0)])], None);
        check("slope(x) > 0", 100, &[(SeriesKind::Gauge, &[(90, 5.0)])], None);
        check("absent(x, 1m)", 161, &[(SeriesKind::Gauge, &[(100, 5.0)])], Some(true));
        check("x > 1", 500, &[(SeriesKind::Gauge, &[(100, 5.0)])], None);
    }

    #[test]
    fn samples_keep_order_and_bounds() {
        let mut s = Samples::default();
        for t in [10, 30, 20, 20, 30, 5] {
            s.add(t, t as f64);
        }
        assert_eq!(s.rows().map(|r| r.0).collect::<Vec<_>>(), [5, 10, 20, 30]);
        for t in 0..10_000 {
            s.add(t + 100, 0.0);
        }
        assert_eq!(s.rows().count(), SAMPLES_MAX);
        s.add(1_000_000, 0.0);
        s.prune(10);
        assert_eq!(s.rows().count(), 1);
        s.prune(0);
        assert_eq!(s.rows().count(), 1, "the newest stays: its absence is measured from it");
    }

    proptest::proptest! {
        #[test]
        fn any_values_are_answered(values in proptest::collection::vec(proptest::num::f64::ANY, 0..20)) {
            let mut s = Samples::default();
            for (i, v) in values.iter().enumerate() {
                s.add(i as i64 * NANOS_PER_SEC, *v);
            }
            for (name, function) in Function::ALL {
                if *function != Function::Absent {
                    let expr = Expr::parse(&format!("{name}(x) > 1 or {name}(x) <= 1")).unwrap();
                    let verdict = ask(&expr, 20 * NANOS_PER_SEC, |_| [(&s, SeriesKind::Counter)].into_iter());
                    proptest::prop_assert_ne!(verdict.truth, Some(false), "{}", name);
                }
            }
        }
    }
}
