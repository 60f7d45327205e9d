//! Ranking of recorded cases, for `nightshift backtest rca`: additive like the ranking that runs live (a prior and
//! log-odds, each with its reason), over whole tables instead of a stream of anomalies. The caller reads files; here
//! everything is in memory.
//!
//! One configuration for all systems. Works with a given call graph, with the calls that names of metrics tell, and
//! with neither. What each metric says is in [`facts`], where blame goes in [`blame`]; logs and traces come in as
//! [`clue`]s.

mod blame;
mod clue;
mod departure;
mod facts;
mod flow;
mod frame;
mod lines;
mod spans;
mod templates;

use blame::{Dimension, Ledger, SHARE_MIN};
use clue::Clue;
use facts::{Facts, Service};
pub use frame::Frame;
pub use lines::{LogRow, RecordId, SpanRow};
use nightshift_model::families;
use std::collections::BTreeMap;

/// One recorded case.
#[derive(Debug, Clone, Default)]
pub struct Case {
    /// Metrics around the fault.
    pub metrics: Frame,
    /// The same metrics in a fault-free period.
    pub normal: Frame,
    /// Caller and callee.
    pub graph: Vec<(String, String)>,
    /// Service of the alert, when it is known.
    pub alert_service: Option<String>,
    /// Metric of the alert, when it is known.
    pub alert_metric: Option<String>,
    /// Moment of the alert, unix seconds.
    pub alert_at: f64,
    /// Log lines around the fault and of a normal minute.
    pub logs: Vec<LogRow>,
    /// Log lines of a fault-free period.
    pub normal_logs: Vec<LogRow>,
    /// Spans around the fault.
    pub spans: Vec<SpanRow>,
    /// Spans of a fault-free period.
    pub normal_spans: Vec<SpanRow>,
}

/// One ranked cause.
#[derive(Debug, Clone, PartialEq)]
pub struct Ranked {
    /// The service.
    pub service: String,
    /// The metric that shows it best, empty when none does.
    pub metric: String,
    /// Log-odds; higher is likelier.
    pub score: f64,
    /// What the evidence adds for the service, without the prior and without what only orders: near 0 when nothing
    /// shows that anything is wrong.
    pub support: f64,
    /// What speaks for it, one line each.
    pub evidence: Vec<String>,
}

/// Support of the first service from which on something is wrong, in log-odds. Windows cut from fault-free periods of the
/// development data stay below it nine times in ten, cases with a fault never do.
const SUPPORT_MIN: f64 = 0.1;
/// What the alerting service does not need, however far, is another matter.
const ELSEWHERE: f64 = -3.0;
/// What the loudest metric adds by itself: it orders what nothing else tells apart.
const LOUDNESS: f64 = 0.001;
/// By how much a resource comes before time and failures among the metrics of one service.
const RESOURCE_NAMED_FIRST: f64 = 1.5;
/// Entries of one service: other metrics that may be meant.
const METRICS_PER_SERVICE_MAX: usize = 3;

/// One summand of a score.
struct Part {
    factor: &'static str,
    log_odds: f64,
    why: String,
    /// What shows it, when a metric does.
    metric: String,
    /// Whether that is a resource of the service.
    resource: bool,
}

/// Ranks the services of a case, likeliest first. Pseudo services (in parentheses) are symptoms but no candidates.
/// Neither the order of columns nor that of edges matters.
pub fn rank_case(case: &Case) -> Vec<Ranked> {
    let clues = lines::clues(case);
    let told = clues.iter().map(|c| c.service.as_str());
    let facts = Facts::new(&case.metrics, &case.normal, &case.graph, told, case.alert_at);
    let ledger = Ledger::new(&facts, case.alert_service.as_deref());
    let alert = case.alert_metric.as_deref().and_then(|metric| families::family(metric, |_| None));
    let dimensions = ledger.dimensions(alert);
    let needs = case.alert_service.as_deref().and_then(|s| ledger.needs(s));
    let of_service = clues_by_service(&clues);
    let candidates = facts.services.iter().filter(|s| !s.pseudo).count();

    let mut out = Vec::new();
    for (i, service) in facts.services.iter().enumerate().filter(|(_, s)| !s.pseudo) {
        let mut parts = vec![Part {
            factor: "prior",
            log_odds: -(candidates as f64).ln(),
            why: format!("one of {candidates} services"),
            metric: String::new(),
            resource: false,
        }];
        parts.extend(dimensions.iter().filter_map(|d| blamed(d, i, service)));
        let callees: Vec<&str> = ledger.callees(i).iter().map(|to| facts.services[*to].name.as_str()).collect();
        let own = of_service.get(service.name.as_str());
        parts.extend(own.into_iter().flatten().filter_map(|c| told_by(c, service, &callees, &of_service)));
        if needs.as_ref().is_some_and(|needs| !needs.contains(&i)) {
            let why = "the alerting service does not depend on it".to_owned();
            parts.push(Part { factor: "dependency", log_odds: ELSEWHERE, why, metric: String::new(), resource: false });
        }
        parts.extend(loudness(service));
        out.extend(entries(service, &parts));
    }
    out.sort_by(|a, b| b.score.total_cmp(&a.score).then_with(|| (&a.service, &a.metric).cmp(&(&b.service, &b.metric))));
    out
}

/// Whether the ranking shows that anything is wrong at all. A ranking orders services in any case; without evidence its
/// first one is not meant.
pub fn is_incident(ranking: &[Ranked]) -> bool {
    ranking.first().is_some_and(|first| first.support >= SUPPORT_MIN)
}

/// What a dimension adds to a service.
fn blamed(d: &Dimension, at: usize, service: &Service) -> Option<Part> {
    let share = d.shares.get(at).copied().filter(|s| *s > 0.0)?;
    let log_odds = d.weight * ((share + SHARE_MIN) / SHARE_MIN).ln();
    let metric = loudest(service, |f| d.families.contains(&f) || d.families.is_empty());
    let shown = metric.as_ref().map(|m| format!(", as {m} shows")).unwrap_or_default();
    let why = format!("{:.0} % of {}{shown}", share * 100.0, d.of);
    let resource = d.families.contains(&families::SignalFamily::Cpu);
    Some(Part { factor: d.factor, log_odds, why, metric: metric.unwrap_or_default(), resource })
}

/// What a clue adds to the service it is about. What may have been handed on counts only as far as no callee shows more.
fn told_by(c: &Clue, service: &Service, callees: &[&str], all: &BTreeMap<&str, Vec<&Clue>>) -> Option<Part> {
    let mut log_odds = c.log_odds;
    if !c.own && log_odds > 0.0 {
        let below = callees.iter().filter_map(|name| all.get(name)).flatten();
        let most = below.filter(|o| o.factor == c.factor).map(|o| o.log_odds).fold(0.0, f64::max);
        log_odds = (log_odds - most).max(0.0);
    }
    let named = service.loudest.values().any(|(_, _, m)| *m == c.indicator);
    let metric =
        if named || c.family.is_none() { Some(c.indicator.clone()) } else { loudest(service, |f| c.family == Some(f)) };
    (log_odds.is_finite() && log_odds != 0.0).then(|| Part {
        factor: c.factor,
        log_odds,
        why: c.why.clone(),
        metric: metric.unwrap_or_default(),
        resource: c.family == Some(families::SignalFamily::Cpu),
    })
}

fn loudness(service: &Service) -> Option<Part> {
    let (_, sigma, metric) = service.loudest.values().max_by(|a, b| a.1.total_cmp(&b.1).then_with(|| b.2.cmp(&a.2)))?;
    let log_odds = LOUDNESS * (sigma / (sigma + 10.0));
    (log_odds > 0.0).then(|| Part {
        factor: "signal",
        log_odds,
        why: format!("{metric} is {sigma:.1} sigma from usual"),
        metric: String::new(),
        resource: false,
    })
}

/// The loudest metric of some families.
fn loudest(service: &Service, of: impl Fn(families::SignalFamily) -> bool) -> Option<String> {
    let found = service.loudest.iter().filter(|(family, _)| of(**family)).map(|(_, entry)| entry);
    found.max_by(|a, b| a.1.total_cmp(&b.1).then_with(|| b.2.cmp(&a.2))).map(|(_, _, metric)| metric.clone())
}

fn clues_by_service(clues: &[Clue]) -> BTreeMap<&str, Vec<&Clue>> {
    let mut out: BTreeMap<&str, Vec<&Clue>> = BTreeMap::new();
    for c in clues {
        out.entry(&c.service).or_default().push(c);
    }
    out
}

/// The service with the metric that adds most, and again with others that are blamed: each lower by what the first
/// adds more.
fn entries(service: &Service, parts: &[Part]) -> Vec<Ranked> {
    let score: f64 = parts.iter().map(|p| p.log_odds).sum();
    let support =
        parts.iter().filter(|p| !["prior", "dependency", "signal"].contains(&p.factor)).map(|p| p.log_odds).sum();
    let evidence: Vec<String> = parts.iter().map(|p| format!("{} {:+.2}: {}", p.factor, p.log_odds, p.why)).collect();
    let mut by_metric: BTreeMap<&str, f64> = BTreeMap::new();
    for p in parts.iter().filter(|p| !p.metric.is_empty() && p.log_odds > 0.0) {
        // A resource that ran short is why work takes long, not the other way round.
        let cause = if p.resource { RESOURCE_NAMED_FIRST } else { 1.0 };
        *by_metric.entry(&p.metric).or_default() += cause * p.log_odds;
    }
    let mut metrics: Vec<(&str, f64)> = by_metric.into_iter().collect();
    metrics.sort_by(|a, b| b.1.total_cmp(&a.1).then_with(|| a.0.cmp(b.0)));
    metrics.truncate(METRICS_PER_SERVICE_MAX);
    let most = metrics.first().map_or(0.0, |(_, log_odds)| *log_odds);
    if metrics.is_empty() {
        // No metric shows it: named after what does.
        let shows = |p: &&Part| p.log_odds > 0.0 && !["prior", "dependency", "signal"].contains(&p.factor);
        let loudest = parts.iter().filter(shows).max_by(|a, b| a.log_odds.total_cmp(&b.log_odds));
        metrics.push((loudest.map_or("", |p| p.factor), most));
    }
    let entry = |(metric, log_odds): &(&str, f64)| Ranked {
        service: service.name.clone(),
        metric: (*metric).to_owned(),
        score: score - (most - log_odds),
        support,
        evidence: evidence.clone(),
    };
    metrics.iter().map(entry).collect()
}
