//! Ranking of causes: explicit probability, not a bag of rules.
//!
//! A candidate is an entity and a fault class. It starts from a prior and gathers log-odds from evidence; the
//! contributions add up to its score, and that sum is the explanation. A softmax over the candidates and the explicit
//! hypothesis "unknown" gives confidences that add up to 1. Each contribution but the prior cites evidence that the
//! hypothesis carries.
//!
//! The weights are in [`tables`], in natural logarithms: 0.7 doubles the odds, 2.3 makes them ten times as high. They
//! are judgement, checked against simulated faults, not fitted to them. Recorded cases (`backtest`) are ranked by a scheme
//! of the same kind over whole tables: there amounts are known, here only anomalies.

mod builder;
mod factors;
mod looks;
mod signature;
mod symptom;
mod tables;
mod unknown;

pub use symptom::Symptom;
pub(crate) use symptom::suggested_fault;

use crate::{Priors, RankConfig};
use builder::Builder;
use factors::Scene;
use nightshift_model::{Change, EntityId, FaultClass, Hypothesis};
use nightshift_topology::Topology;
use std::cmp::Ordering;
use std::collections::BTreeSet;

/// Ranks the causes of these symptoms, likeliest first, "unknown" among them. Deterministic: neither the order of
/// symptoms nor that of changes matters.
pub fn rank(
    config: &RankConfig,
    priors: &Priors,
    symptoms: &[Symptom],
    changes: &[&Change],
    topology: &Topology,
) -> Vec<Hypothesis> {
    let mut ranked = rank_all(config, priors, symptoms, changes, topology);
    let mut unknown = unknown::hypothesis(config, symptoms, &ranked, topology);
    ranked.truncate(config.hypotheses_max);
    // The highest score is taken out before `exp`, so that no score overflows.
    let top = ranked.iter().map(|h| h.score).fold(unknown.score, f64::max);
    let weight = |h: &Hypothesis| ((h.score - top) / tables::TEMPERATURE).exp();
    let total: f64 = ranked.iter().map(weight).sum::<f64>() + weight(&unknown);
    for h in ranked.iter_mut().chain([&mut unknown]) {
        h.confidence = ((h.score - top) / tables::TEMPERATURE).exp() / total;
    }
    ranked.push(unknown);
    ranked.sort_by(order);
    ranked
}

/// All candidates by score, without "unknown" and without confidences.
pub fn rank_all(
    config: &RankConfig,
    priors: &Priors,
    symptoms: &[Symptom],
    changes: &[&Change],
    topology: &Topology,
) -> Vec<Hypothesis> {
    let scene = Scene::new(config, priors, symptoms, changes, topology);
    let mut out: Vec<Hypothesis> = scene
        .candidates()
        .into_iter()
        .map(|(entity, fault)| {
            let mut b = Builder::default();
            scene.weigh(&entity, fault, &mut b);
            let (signal, detail) = scene.best_signal(&entity, fault);
            let said = scene.found(&entity, fault).map(cut);
            b.finish(Some(entity.clone()), fault, signal, said.unwrap_or_else(|| summary(&entity, fault, &detail)))
        })
        .collect();
    out.sort_by(order);
    out
}

fn order(a: &Hypothesis, b: &Hypothesis) -> Ordering {
    b.score.total_cmp(&a.score).then_with(|| a.entity.cmp(&b.entity)).then_with(|| a.fault.cmp(&b.fault))
}

/// Longest text of a summary that a finding gives, characters.
const SUMMARY_CHARS_MAX: usize = 240;

fn cut(text: &str) -> String {
    if text.chars().count() <= SUMMARY_CHARS_MAX {
        return text.to_owned();
    }
    let head: String = text.chars().take(SUMMARY_CHARS_MAX - 1).collect();
    format!("{head}…")
}

fn summary(entity: &EntityId, fault: FaultClass, detail: &str) -> String {
    let what = if fault == FaultClass::Unknown { "Unusual behaviour" } else { fault.title() };
    let detail = if detail.is_empty() { String::new() } else { format!(" ({detail})") };
    format!("{what} on {}{detail}", entity.name())
}

/// Whether people should hear of the new ranking: other causes are considered, the order of the first three changed,
/// something new speaks for the first one, or its confidence moved by a tenth.
pub fn differs_materially(old: &[Hypothesis], new: &[Hypothesis]) -> bool {
    let key = |h: &Hypothesis| (h.entity.clone(), h.fault);
    let first_three = |list: &[Hypothesis]| list.iter().take(3).map(key).collect::<Vec<_>>();
    let all = |list: &[Hypothesis]| list.iter().map(key).collect::<BTreeSet<_>>();
    if first_three(old) != first_three(new) || all(old) != all(new) {
        return true;
    }
    let factors = |h: &Hypothesis| h.contributions.iter().map(|c| c.factor.clone()).collect::<BTreeSet<_>>();
    match (old.first(), new.first()) {
        (Some(a), Some(b)) => (a.confidence - b.confidence).abs() >= 0.1 || factors(a) != factors(b),
        _ => false,
    }
}
