//! The hypothesis that none of the others is right, and what would settle it.

use super::builder::Builder;
use super::symptom::Symptom;
use crate::RankConfig;
use nightshift_model::{AnomalyKind, FaultClass, Hypothesis};
use nightshift_topology::Topology;

/// "Unknown", scored against the ranked candidates (best first).
pub(crate) fn hypothesis(
    config: &RankConfig,
    symptoms: &[Symptom],
    ranked: &[Hypothesis],
    topology: &Topology,
) -> Hypothesis {
    let mut b = Builder::default();
    b.prior(config.unknown_log_odds, "the cause may be something that is not watched".into());
    // Symptoms of which nobody knows what they mean speak for a cause of which nobody knows.
    let strange: Vec<&Symptom> = symptoms.iter().filter(|s| s.fault == FaultClass::Unknown && s.score >= 0.5).collect();
    if !strange.is_empty() && strange.len() * 2 >= symptoms.len() {
        let why = format!("{} of {} symptoms fit no known fault", strange.len(), symptoms.len());
        b.add("signal", 0.4, why, strange.iter().map(|s| s.as_evidence()).collect());
    }
    let summary = format!("Unknown cause; {}", settle(symptoms, ranked, topology));
    b.finish(None, FaultClass::Unknown, String::new(), summary)
}

/// What would tell the candidates apart.
fn settle(symptoms: &[Symptom], ranked: &[Hypothesis], topology: &Topology) -> String {
    let Some(first) = ranked.first() else { return "a symptom with a known signal would help".into() };
    let Some(entity) = &first.entity else { return "a symptom with a known signal would help".into() };
    let name = entity.name();
    if let Some(second) = ranked.get(1).filter(|s| first.score - s.score < 0.7)
        && let Some(other) = second.entity.as_ref().filter(|e| *e != entity)
    {
        return if topology.path(entity, other, 3).is_none() && topology.path(other, entity, 3).is_none() {
            format!("whether {name} and {} depend on each other would settle it: trace or declare it", other.name())
        } else {
            format!("logs or finer metrics of {name} and {} would tell which was first", other.name())
        };
    }
    if symptoms.iter().all(|s| s.kind != AnomalyKind::Log) {
        return format!("logs of {name} around the onset, or a record of changes, would settle it");
    }
    format!("a further signal of {name} would settle it")
}
