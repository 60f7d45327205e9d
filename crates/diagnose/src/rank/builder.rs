//! Collects the contributions of one hypothesis and the evidence they cite.

use nightshift_model::{Contribution, EntityId, Evidence, FaultClass, Hypothesis};
use std::collections::BTreeMap;

/// Evidence cited by one contribution at most: three callers convince as well as thirty.
const CITED_MAX: usize = 5;

#[derive(Default)]
pub(crate) struct Builder {
    contributions: Vec<Contribution>,
    evidence: BTreeMap<String, Evidence>,
}

impl Builder {
    /// The only contribution that needs no evidence.
    pub(crate) fn prior(&mut self, log_odds: f64, why: String) {
        self.contributions.push(Contribution {
            factor: "prior".into(),
            log_odds: round(log_odds),
            why,
            evidence: Vec::new(),
        });
    }

    /// Adds a contribution. One that is nothing, or that nothing supports, is not told.
    pub(crate) fn add(&mut self, factor: &str, log_odds: f64, why: String, cited: Vec<Evidence>) {
        let log_odds = round(log_odds);
        if log_odds == 0.0 || cited.is_empty() {
            return;
        }
        let mut ids = Vec::new();
        for e in cited.into_iter().take(CITED_MAX) {
            if !ids.contains(&e.id) {
                ids.push(e.id.clone());
            }
            self.evidence.entry(e.id.clone()).or_insert(e);
        }
        self.contributions.push(Contribution { factor: factor.into(), log_odds, why, evidence: ids });
    }

    pub(crate) fn finish(
        self,
        entity: Option<EntityId>,
        fault: FaultClass,
        signal: String,
        summary: String,
    ) -> Hypothesis {
        Hypothesis {
            entity,
            fault,
            confidence: 0.0,
            score: self.contributions.iter().map(|c| c.log_odds).sum(),
            summary,
            contributions: self.contributions,
            evidence: self.evidence.into_values().collect(),
            signal,
        }
    }
}

/// To thousandths: more would pretend a precision that no weight here has.
fn round(log_odds: f64) -> f64 {
    let rounded = (log_odds * 1_000.0).round() / 1_000.0;
    if rounded.is_finite() { rounded } else { 0.0 }
}
