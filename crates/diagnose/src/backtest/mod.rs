//! Ranking of recorded cases, for `nightshift backtest rca`: the same symptoms, topology and additive scheme as in
//! production, with a batch detector in front (median and quartiles of a fault-free period) instead of the streaming
//! one. The caller reads files; here everything is in memory.

mod clue;
mod deviation;
mod lines;

use crate::rank::{self, Symptom};
use crate::{Priors, RankConfig};
pub use deviation::Frame;
pub use lines::{LogRow, SpanRow};
use nightshift_model::{EdgeKind, EntityId, Hypothesis, Observation, Timestamp, families};
use nightshift_topology::{Topology, TopologyConfig};
use std::collections::{BTreeMap, BTreeSet};

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
    /// What speaks for it, one line each.
    pub evidence: Vec<String>,
}

/// Services below this place are ordered by nothing but their deviation: they only fill the list.
const FILL_SCORE: f64 = -20.0;
/// How far a cause may lie below the alert.
const HOPS_MAX: u32 = 16;
/// Symptoms of one service that are looked at, the loudest first.
const SYMPTOMS_PER_SERVICE_MAX: usize = 12;

/// Ranks the services of a case, likeliest first. Pseudo services (in parentheses) are symptoms but no candidates.
/// Neither the order of columns nor that of edges matters.
pub fn rank_case(case: &Case) -> Vec<Ranked> {
    let is_pseudo = |name: &str| name.starts_with('(');
    let mut topology = Topology::new(TopologyConfig::default());
    for (from, to) in &case.graph {
        let (from, to) = (entity(from), entity(to));
        let at = Timestamp::EPOCH;
        topology.apply(&Observation::Edge { from, to, kind: EdgeKind::Calls, count: 1, at }, at);
    }
    let mut symptoms: Vec<Symptom> = Vec::new();
    let mut deviations = deviation::deviations(&case.metrics, &case.normal, case.alert_at);
    let alert = case.alert_metric.as_deref().and_then(|metric| families::family(metric, |_| None));
    if let Some(alert) = alert {
        deviations.iter_mut().for_each(|d| d.weigh_by(alert));
    }
    let mut loudest: BTreeMap<&str, (f64, &str)> = BTreeMap::new();
    for d in &deviations {
        let best = loudest.entry(&d.service).or_insert((d.score, &d.metric));
        if d.score > best.0 {
            *best = (d.score, &d.metric);
        }
    }
    let mut of_service: BTreeMap<&str, usize> = BTreeMap::new();
    for d in deviations.iter().filter(|d| d.score > 0.0) {
        let n = of_service.entry(&d.service).or_default();
        *n += 1;
        if *n <= SYMPTOMS_PER_SERVICE_MAX {
            symptoms.push(d.symptom(entity(&d.service)));
        }
    }
    symptoms.extend(lines::log_symptoms(&case.logs, &case.normal_logs));
    symptoms.extend(lines::span_symptoms(&case.spans, &case.normal_spans));
    symptoms.retain(|s| !is_pseudo(&s.entity.name()));
    // Grouping, as in production: what the alerting service does not need, however far, is another matter.
    if let Some(alerting) = case.alert_service.as_deref().map(entity) {
        let needs = topology.down(&alerting, HOPS_MAX);
        if !needs.is_empty() {
            symptoms.retain(|s| s.entity == alerting || needs.contains_key(&s.entity));
        }
    }

    let config = RankConfig { candidates_max: 200, hypotheses_max: 20, ..RankConfig::default() };
    let hypotheses = rank::rank_all(&config, &Priors::default(), &symptoms, &[], &topology);
    let mut out: Vec<Ranked> = Vec::new();
    let mut seen = BTreeSet::new();
    for h in &hypotheses {
        let Some(id) = &h.entity else { continue };
        let service = id.name();
        if is_pseudo(&service) || !seen.insert((service.clone(), h.signal.clone())) {
            continue;
        }
        out.push(Ranked { evidence: reasons(h), metric: h.signal.clone(), score: h.score, service });
    }
    // Enough places are filled even where little deviates.
    let ranked: BTreeSet<String> = out.iter().map(|r| r.service.clone()).collect();
    let named = case.graph.iter().flat_map(|(a, b)| [a.as_str(), b.as_str()]);
    let all: BTreeSet<&str> = named.chain(case.metrics.services()).collect();
    let mut rest: Vec<Ranked> = all
        .into_iter()
        .filter(|s| !is_pseudo(s) && !ranked.contains(*s))
        .map(|service| {
            let (score, metric) = loudest.get(service).copied().unwrap_or((0.0, ""));
            let (service, metric) = (service.to_owned(), metric.to_owned());
            Ranked { service, metric, score: FILL_SCORE + score, evidence: Vec::new() }
        })
        .collect();
    rest.sort_by(|a, b| b.score.total_cmp(&a.score).then_with(|| a.service.cmp(&b.service)));
    out.extend(rest);
    out
}

fn reasons(h: &Hypothesis) -> Vec<String> {
    h.contributions.iter().map(|c| format!("{} {:+.2}: {}", c.factor, c.log_odds, c.why)).collect()
}

/// A recorded service as an entity.
fn entity(name: &str) -> EntityId {
    EntityId::new("", "service", "", name)
}
