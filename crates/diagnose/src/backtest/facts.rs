//! What the columns of a case say of each service: how much longer it takes, how much more it fails, which of its own
//! resources moved, how much less arrives; and of each call, how much longer it takes at either end.
//!
//! Names are read by the table that detection uses. Beyond it a name may tell the end at which a time was taken
//! (`client`, `server`), the service at the other end (`_to_X`, `_from_X`), and the statistic (`p90`).

use super::departure::{Departure, Scratch, Values, Way};
use super::frame::Frame;
use nightshift_model::families::{self, Bad, Reading, SignalFamily};
use std::collections::{BTreeMap, BTreeSet};

/// Least standard deviation of a metric as a share of its size.
const FLOOR: f64 = 0.02;
/// The same for shares of work that succeeds: they move in smaller steps than anything else.
const SHARE_FLOOR: f64 = 0.002;
/// Surprise at which silence begins to count, and at how much more it weighs one half: three silent rows of which one in
/// ten is usual.
const SILENCE_NATS: f64 = 7.0;
/// Seconds by which the time of an alert may be off.
const OFFSET_SECS: f64 = 60.0;
/// Least and most seconds between rows that are believed.
const STEP_SECS: (f64, f64) = (1.0, 300.0);

/// One metric that departed, or may have.
#[derive(Debug, Clone, Default)]
pub(super) struct Fact {
    /// Name of the metric.
    pub(super) metric: String,
    pub(super) departure: Departure,
    /// How far each row after the alert lies beyond the usual value the bad way, in the metric's unit; 0 where there is
    /// no data and when the departure is noise. Amounts add up over rows, not over the worst of them.
    pub(super) beyond: Vec<f64>,
    /// The usual mean, of a time.
    pub(super) usual_mean: f64,
}

/// A time at one end of a call, as a mean.
#[derive(Debug, Clone, Default)]
pub(super) struct Call {
    pub(super) client: Option<Fact>,
    pub(super) server: Option<Fact>,
}

/// What is known of one service.
#[derive(Debug, Clone, Default)]
pub(super) struct Service {
    pub(super) name: String,
    /// In parentheses: what users see. A symptom, no candidate.
    pub(super) pseudo: bool,
    /// Work that arrives: usually, after the alert, and how much less it became.
    pub(super) rate: Option<Rate>,
    /// How long work takes here, the statistic nearest to the mean.
    pub(super) time: Option<Fact>,
    /// Share of work that succeeds, 0 to 1.
    pub(super) success: Option<Fact>,
    /// Its own resources, by family.
    pub(super) own: Vec<(SignalFamily, Fact)>,
    /// The loudest metric of all by family, for its name. Metrics that speak of a single call come last.
    pub(super) loudest: BTreeMap<SignalFamily, (bool, f64, String)>,
}

/// Work that arrives.
#[derive(Debug, Clone, Default)]
pub(super) struct Rate {
    /// Mean after the alert.
    pub(super) now: f64,
    /// By row after the alert; the mean where there is no data.
    pub(super) rows: Vec<f64>,
    /// Share of the usual work that no longer arrives, 0 to 1.
    pub(super) fallen: f64,
    /// How sure that is, 0 to 1.
    pub(super) sure: f64,
}

/// All services of a case in the order of their names, and the calls between them.
#[derive(Debug, Default)]
pub(super) struct Facts {
    pub(super) services: Vec<Service>,
    /// Caller and callee by index: given edges and those that metrics name.
    pub(super) calls: BTreeMap<(usize, usize), Call>,
}

/// The end at which a time was taken.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Client,
    Server,
}

/// Rows of the case, by what they are.
struct Rows {
    before: Vec<bool>,
    after: Vec<bool>,
}

impl Rows {
    /// A row holds what came after its timestamp, up to the next; one that ends before the alert, and well before it,
    /// is before.
    fn new(at: &[f64], alert_at: f64) -> Self {
        let mut gaps: Vec<f64> = at.windows(2).map(|w| (w[1] - w[0]).abs()).filter(|gap| gap.is_finite()).collect();
        gaps.sort_by(f64::total_cmp);
        let step = gaps.get(gaps.len() / 2).copied().unwrap_or(60.0).clamp(STEP_SECS.0, STEP_SECS.1);
        let from = alert_at - step - OFFSET_SECS;
        let after: Vec<bool> = at.iter().map(|t| *t > from).collect();
        Self { before: after.iter().map(|a| !a).collect(), after }
    }
}

/// The values of the chosen rows that are there.
fn chosen(values: &[Option<f64>], rows: &[bool], out: &mut Vec<f64>) {
    out.clear();
    out.extend(values.iter().zip(rows).filter(|(_, chosen)| **chosen).filter_map(|(v, _)| *v));
}

impl Facts {
    /// Reads all columns. `edges` are caller and callee; `more` are services that only other records name.
    pub(super) fn new<'a>(
        metrics: &'a Frame,
        normal: &Frame,
        edges: &'a [(String, String)],
        more: impl IntoIterator<Item = &'a str>,
        alert_at: f64,
    ) -> Self {
        let in_edges = edges.iter().flat_map(|(a, b)| [a.as_str(), b.as_str()]);
        let names: BTreeSet<&str> = metrics.services().chain(in_edges).chain(more).filter(|n| !n.is_empty()).collect();
        let index: BTreeMap<&str, usize> = names.iter().enumerate().map(|(i, name)| (*name, i)).collect();
        let mut out = Self {
            services: names
                .iter()
                .map(|name| Service { name: (*name).into(), pseudo: name.starts_with('('), ..Service::default() })
                .collect(),
            calls: BTreeMap::new(),
        };
        for (from, to) in edges {
            if let (Some(a), Some(b)) = (index.get(from.as_str()), index.get(to.as_str()))
                && a != b
            {
                out.calls.entry((*a, *b)).or_default();
            }
        }
        let mut reader = Reader {
            rows: Rows::new(&metrics.timestamps, alert_at),
            scratch: Scratch::default(),
            normal: Vec::new(),
            before: Vec::new(),
            after: Vec::new(),
            rank_of_time: vec![u8::MAX; names.len()],
            readings: BTreeMap::new(),
            unit: 1.0,
        };
        let none = Vec::new();
        for (key, values) in &metrics.columns {
            let Some(at) = index.get(key.0.as_str()) else { continue };
            let usual = normal.columns.get(key).unwrap_or(&none);
            reader.column(*at, &key.1, values, usual, &index, &mut out);
        }
        out
    }
}

/// Reads columns one after the other.
struct Reader {
    rows: Rows,
    scratch: Scratch,
    normal: Vec<f64>,
    before: Vec<f64>,
    after: Vec<f64>,
    /// Which statistic the time of each service is.
    rank_of_time: Vec<u8>,
    /// By name: services share metrics, and the table is long.
    readings: BTreeMap<String, Option<Reading>>,
    /// What turns the shares of the column at hand into shares of one.
    unit: f64,
}

impl Reader {
    fn reading(&mut self, metric: &str) -> Option<Reading> {
        if let Some(known) = self.readings.get(metric) {
            return *known;
        }
        // What is measured of the machine is shared by all that run on it.
        let reading = families::reading(metric, |_| None).filter(|_| !metric.starts_with("node_"));
        self.readings.insert(metric.to_owned(), reading.filter(|r| r.bad != Bad::Neither));
        self.reading(metric)
    }

    fn column(
        &mut self,
        at: usize,
        metric: &str,
        values: &[Option<f64>],
        usual: &[Option<f64>],
        index: &BTreeMap<&str, usize>,
        out: &mut Facts,
    ) {
        let Some(reading) = self.reading(metric) else { return };
        self.normal.clear();
        self.normal.extend(usual.iter().flatten());
        chosen(values, &self.rows.before, &mut self.before);
        chosen(values, &self.rows.after, &mut self.after);
        let Some(service) = out.services.get_mut(at) else { return };
        let mut peer = None;
        let departure = match reading.family {
            SignalFamily::Latency => {
                let (rank, to_mean) = statistic(metric);
                let end = if metric.contains("client") { End::Client } else { End::Server };
                peer = peer_of(metric, index).filter(|p| *p != at);
                let departure = self.judge(false, FLOOR, false);
                let mut fact = self.fact(metric, departure, values, |v| (v - departure.usual) * to_mean);
                fact.usual_mean = (departure.usual * to_mean).max(0.0);
                if let Some(peer) = peer {
                    let call = match end {
                        End::Client => out.calls.entry((at, peer)).or_default(),
                        End::Server => out.calls.entry((peer, at)).or_default(),
                    };
                    match end {
                        End::Client => call.client = Some(fact),
                        End::Server => call.server = Some(fact),
                    }
                } else if let Some(best) = self.rank_of_time.get_mut(at)
                    && end == End::Server
                    && rank < *best
                {
                    *best = rank;
                    service.time = Some(fact);
                }
                departure
            }
            SignalFamily::RequestRate => {
                let fall = self.judge(true, FLOOR, false);
                service.rate = self.rate(fall, values);
                fall
            }
            SignalFamily::Availability | SignalFamily::ErrorRatio => {
                let failing = reading.bad == Bad::Up;
                self.as_success(failing);
                let departure = self.judge(true, SHARE_FLOOR, false);
                // A share that nobody measured before may always have been so.
                let louder = |f: &Fact| departure.sigma > f.departure.sigma;
                if departure.known && service.success.as_ref().is_none_or(louder) {
                    let unit = self.unit;
                    let beyond = move |v: f64| departure.usual - if failing { 1.0 - v * unit } else { v * unit };
                    service.success = Some(self.fact(metric, departure, values, beyond));
                }
                departure
            }
            family => {
                let up = self.judge(false, FLOOR, family == SignalFamily::Memory);
                let departure = match reading.bad {
                    Bad::Up => up,
                    Bad::Down => self.judge(true, FLOOR, family == SignalFamily::Memory),
                    Bad::Both | Bad::Neither => up,
                };
                service.own.push((family, Fact { metric: metric.to_owned(), departure, ..Fact::default() }));
                departure
            }
        };
        let Some(service) = out.services.get_mut(at) else { return };
        let entry = (peer.is_none(), departure.sigma, metric.to_owned());
        let loudest = service.loudest.entry(reading.family).or_insert_with(|| entry.clone());
        if (entry.0, entry.1) > (loudest.0, loudest.1) {
            *loudest = entry;
        }
    }

    fn fact(&self, metric: &str, departure: Departure, values: &[Option<f64>], beyond: impl Fn(f64) -> f64) -> Fact {
        let noise = departure.weight() <= 0.0;
        let rows = values.iter().zip(&self.rows.after).filter(|(_, after)| **after);
        let beyond = rows.map(|(v, _)| if noise { 0.0 } else { v.map_or(0.0, |v| beyond(v).max(0.0)) }).collect();
        Fact { metric: metric.to_owned(), departure, beyond, usual_mean: 0.0 }
    }

    fn rate(&self, fall: Departure, values: &[Option<f64>]) -> Option<Rate> {
        let mean = |v: &[f64]| (!v.is_empty()).then(|| v.iter().sum::<f64>() / v.len() as f64);
        let now = mean(&self.after).or_else(|| mean(&self.before)).filter(|v| *v >= 0.0)?;
        let usual = if fall.known { fall.usual.max(0.0) } else { now };
        let after = values.iter().zip(&self.rows.after).filter(|(_, after)| **after);
        let rows = after.map(|(v, _)| v.map_or(now, |v| v.max(0.0))).collect();
        let mut out = Rate { now, rows, fallen: 0.0, sure: 0.0 };
        if usual > 0.0 {
            out.fallen = (fall.delta / usual).min(1.0);
            out.sure = fall.weight();
            let silence = self.silence();
            if silence > out.sure {
                (out.fallen, out.sure) = (1.0, silence);
            }
        }
        Some(out)
    }

    /// How sure it is that nothing arrives any more. Near zero a rate has no room for many standard deviations; what
    /// tells is how seldom a row is silent in usual times, once for each silent row.
    fn silence(&self) -> f64 {
        let run = |longest: (usize, usize), v: &f64| {
            let run = if *v > 0.0 { 0 } else { longest.1 + 1 };
            (longest.0.max(run), run)
        };
        let rows = self.after.iter().fold((0, 0), run).0;
        if rows < 2 || self.normal.is_empty() {
            return 0.0;
        }
        let silent = self.normal.iter().filter(|v| **v <= 0.0).count();
        let nats = rows as f64 * -((silent + 1) as f64 / (self.normal.len() + 2) as f64).ln();
        let beyond = (nats - SILENCE_NATS).max(0.0);
        beyond / (beyond + SILENCE_NATS)
    }

    fn judge(&mut self, down: bool, floor: f64, change_only: bool) -> Departure {
        let values = Values { normal: &self.normal, before: &self.before, after: &self.after };
        self.scratch.departure(&values, Way { down, floor, change_only })
    }

    /// Shares in percent become shares of one, shares that fail such that succeed.
    fn as_success(&mut self, failing: bool) {
        let largest = self.normal.iter().chain(&self.before).chain(&self.after).copied().fold(0.0, f64::max);
        let unit = if largest > 1.5 { 0.01 } else { 1.0 };
        self.unit = unit;
        for v in self.normal.iter_mut().chain(&mut self.before).chain(&mut self.after) {
            *v = if failing { 1.0 - *v * unit } else { *v * unit };
        }
    }
}

/// Place of a statistic (the nearest to the mean first) and what turns its growth into that of a mean, as for waiting
/// times that are exponentially distributed.
fn statistic(metric: &str) -> (u8, f64) {
    let has = |words: &[&str]| words.iter().any(|w| metric.contains(w));
    let quantile = |q: f64| -1.0 / (1.0 - q).ln();
    match () {
        () if has(&["avg", "mean"]) => (0, 1.0),
        () if has(&["p50", "median"]) => (1, quantile(0.5)),
        () if has(&["p75"]) => (2, quantile(0.75)),
        () if has(&["p90"]) => (3, quantile(0.9)),
        () if has(&["p95"]) => (4, quantile(0.95)),
        () if has(&["p999"]) => (6, quantile(0.999)),
        () if has(&["p99"]) => (5, quantile(0.99)),
        () if has(&["max"]) => (7, quantile(0.999)),
        () => (0, 1.0),
    }
}

/// The service at the other end of the call that a metric is of: the longest name after `_to_` or `_from_`.
fn peer_of(metric: &str, index: &BTreeMap<&str, usize>) -> Option<usize> {
    let rest = ["_to_", "_from_"].iter().find_map(|word| metric.split_once(word)).map(|(_, rest)| rest)?;
    let names = index.iter().filter(|(name, _)| {
        rest.strip_prefix(**name).is_some_and(|end| end.is_empty() || end.starts_with(['_', '|', '.']))
    });
    names.max_by_key(|(name, _)| name.len()).map(|(_, at)| *at)
}
