//! What planning is given and what it answers.

use crate::{Images, PlanConfig, WhatIf};
use nightshift_model::{ActionType, Change, EntityId, FaultClass, Incident, Plan, PlanHash, Prediction, Timestamp};
use nightshift_topology::Topology;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// How often a playbook worked, by fault class: (successes, failures). Learned from verified and undone plans.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Stats(BTreeMap<(String, FaultClass), (u64, u64)>);

impl Stats {
    /// Nothing was learned yet.
    pub const fn new() -> Self {
        Self(BTreeMap::new())
    }

    /// Adds one outcome.
    pub fn add(&mut self, playbook: &str, fault: FaultClass, worked: bool) {
        let entry = self.0.entry((playbook.to_owned(), fault)).or_default();
        if worked {
            entry.0 += 1;
        } else {
            entry.1 += 1;
        }
    }

    /// Sets what is known of a pair.
    pub fn set(&mut self, playbook: &str, fault: FaultClass, successes: u64, failures: u64) {
        self.0.insert((playbook.to_owned(), fault), (successes, failures));
    }

    /// (successes, failures) of a pair; zeros when nothing is known.
    pub fn of(&self, playbook: &str, fault: FaultClass) -> (u64, u64) {
        self.0.get(&(playbook.to_owned(), fault)).copied().unwrap_or_default()
    }

    /// All, sorted.
    pub fn iter(&self) -> impl Iterator<Item = (&str, FaultClass, u64, u64)> {
        self.0.iter().map(|((playbook, fault), (s, f))| (playbook.as_str(), *fault, *s, *f))
    }
}

/// One question to the planner. Everything that it may look at is here.
#[derive(Clone, Copy)]
pub struct Ask<'a> {
    /// What is wrong, with its ranked causes.
    pub incident: &'a Incident,
    /// What there is and whom it belongs to.
    pub topology: &'a Topology,
    /// What was looked at; see [`crate::needed_looks`].
    pub images: &'a Images,
    /// Changes of the last hours. Those that the incident's hypotheses cite as evidence need not be here.
    pub changes: &'a [Change],
    /// Playbooks that were tried on this incident and did not help: not proposed again.
    pub tried: &'a [String],
    /// The plan that the new one replaces.
    pub parent: Option<PlanHash>,
    /// What was learned of playbooks.
    pub stats: &'a Stats,
    /// Tries candidates on a fitted copy of the estate; `None`: the expected benefit alone decides.
    pub what_if: Option<&'a dyn WhatIf>,
    /// Settings.
    pub config: &'a PlanConfig,
    /// When the plan is made.
    pub now: Timestamp,
}

/// A target to be read before planning, of what actions of this type touch.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Look {
    /// What to read.
    pub entity: EntityId,
    /// For which action.
    pub action: ActionType,
    /// Name of the actuator that reads it.
    pub actuator: String,
}

/// A playbook that was considered for a cause.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Candidate {
    /// Name of the playbook.
    pub playbook: String,
    /// The cause that it was bound for.
    pub target: EntityId,
    /// Sum over the covered causes of confidence × success rate, times the incident's score.
    pub benefit: f64,
    /// Expected harm, of the same unit.
    pub harm: f64,
    /// Sum of the confidences of the causes that it heals, 0..=1.
    pub covers: f64,
    /// What a trial said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prediction: Option<Prediction>,
    /// Why it was not taken, one line; empty for the one that was.
    pub why_not: String,
}

/// What the planner says.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Proposal {
    /// The plan, sealed. `None` only when there is nothing at all to bind one to (an incident without symptoms or
    /// causes): a person must act.
    pub plan: Option<Plan>,
    /// What was considered, best first.
    pub candidates: Vec<Candidate>,
    /// What was not looked at and would allow more candidates.
    pub looks: Vec<Look>,
}
