//! What-if: a plan is tried on a copy of the estate before it is offered.
//!
//! The copy is this crate's model with parameters fitted to telemetry, topology and what was looked at. Each of the
//! likeliest causes is assumed in it, as strong as its symptoms, and some virtual minutes are played with and without
//! the plan. [`FittedEstate`] is made from nothing and learns only through [`FittedEstate::observe`]: it takes no
//! [`World`](crate::World), no fault and no seed, so it cannot see what grades it.

mod fit;
mod observe;
mod trial;

use fit::Sources;
use nightshift_model::{EntityId, Incident, Plan, Prediction, Timestamp};
use nightshift_plan::{Images, WhatIf};
use nightshift_topology::Topology;
use observe::Seen;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What a plan is worth that buys some time: the KPI comes back, and does not stay.
const RELAPSES: f64 = 0.5;

/// Trials on the fitted copy.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct WhatIfConfig {
    /// Whether plans are tried before they are offered.
    pub enabled: bool,
    /// Series of which ten minutes are kept at most; further ones are not seen by trials.
    #[schemars(range(min = 100, max = 10_000_000))]
    pub series_max: usize,
    /// Causes that are assumed, likeliest first.
    #[schemars(range(min = 1, max = 8))]
    pub causes_max: u32,
    /// Share of the causes' confidence that trials must stand for; below, nothing is predicted.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub confidence_min: f64,
    /// How far the copy may be from what was seen (mean of the absolute natural logarithm over signals); a cause that
    /// explains the symptoms worse counts as one that could not be tried.
    #[schemars(range(min = 0.1, max = 10.0))]
    pub off_max: f64,
}

impl Default for WhatIfConfig {
    fn default() -> Self {
        Self { enabled: true, series_max: 200_000, causes_max: 3, confidence_min: 0.4, off_max: 1.2 }
    }
}

/// The estate as its telemetry shows it.
#[derive(Debug, Clone, Default)]
pub struct FittedEstate {
    config: WhatIfConfig,
    seen: Seen,
    refused: u64,
}

impl FittedEstate {
    /// Nothing was seen yet.
    pub fn new(config: WhatIfConfig) -> Self {
        Self { config, seen: Seen::default(), refused: 0 }
    }

    /// One sample, as the detectors see it: give all, it keeps what it can use. Samples that come again or are no
    /// number change nothing.
    pub fn observe(&mut self, entity: &EntityId, signal: &str, at: Timestamp, value: f64) {
        if !self.seen.add(entity, signal, at, value, self.config.series_max) {
            self.refused = self.refused.saturating_add(1);
        }
    }

    /// Forgets series that were not seen since.
    pub fn forget_before(&mut self, at: Timestamp) {
        self.seen.forget_before(at);
    }

    /// Series of which it keeps windows, and samples for which there was no room.
    pub fn sizes(&self) -> (usize, u64) {
        (self.seen.series(), self.refused)
    }
}

impl WhatIf for FittedEstate {
    fn predict(
        &self,
        plan: &Plan,
        incident: &Incident,
        topology: &Topology,
        images: &Images,
        now: Timestamp,
    ) -> Option<Prediction> {
        if !self.config.enabled || !plan.acts() {
            return None;
        }
        let sources = Sources { seen: &self.seen, incident, topology, images };
        let known = incident.hypotheses.iter().filter(|h| h.entity.is_some() && h.confidence > 0.0);
        let total: f64 = known.clone().map(|h| h.confidence).sum();
        let causes: Vec<_> = known.take(self.config.causes_max.max(1) as usize).collect();
        // What is touched and read first: the copy has room for little.
        let mut seeds: Vec<EntityId> = vec![plan.verification.kpi.entity.clone()];
        seeds.extend(causes.iter().filter_map(|h| h.entity.clone()));
        seeds.extend(plan.steps.iter().map(|s| s.target.clone()));
        let fitted = fit::fit(&seeds, plan, sources)?;
        let grown = trial::grown(sources, now);

        let (mut weight, mut success, mut recovery, mut with, mut without, mut off) = (0.0, 0.0, 0.0, 0.0, 0.0, 0.0);
        let mut harms: Vec<(f64, String)> = Vec::new();
        let mut tried = 0;
        for cause in causes {
            let Some(outcome) = trial::run(cause, plan, &fitted, sources, grown) else { continue };
            if outcome.off > self.config.off_max {
                continue;
            }
            tried += 1;
            let c = cause.confidence;
            weight += c;
            if let Some(secs) = outcome.recovered {
                let share = c * if outcome.lasts { 1.0 } else { RELAPSES };
                success += share;
                recovery += share * secs;
            }
            with += c * outcome.with;
            without += c * outcome.without;
            off += c * outcome.off;
            harms.extend(outcome.harms.into_iter().map(|h| (c, h)));
        }
        if weight <= 0.0 || weight < self.config.confidence_min * total {
            return None;
        }
        // What only an unlikely cause would bring about is no harm to speak of.
        harms.retain(|(c, _)| *c >= 0.3 * weight);
        let mut harms: Vec<String> = harms.into_iter().map(|(_, text)| text).collect();
        harms.dedup();
        harms.truncate(8);
        Some(Prediction {
            success_probability: (success / weight).clamp(0.0, 1.0),
            recovery_secs: (success > 0.0).then(|| recovery / success),
            kpi_with: with / weight,
            kpi_without: without / weight,
            harms,
            basis: format!(
                "{tried} causes tried on a copy of {} services fitted to {} quantities; it showed the symptoms within {:.0} %",
                fitted.spec.services.len(),
                fitted.quantities,
                100.0 * ((off / weight).exp() - 1.0),
            ),
        })
    }
}
