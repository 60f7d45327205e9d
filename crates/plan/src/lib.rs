//! Plans: playbooks as files, the choice between them, binding to observed objects, what-if, and the plan checker.
//!
//! Lives here: the schema of playbooks and their reader, the choice by expected benefit against risk over the whole
//! distribution of hypotheses, binding of steps to what was looked at, the [`WhatIf`] seam, and the checker that
//! judges every plan apart from the planner.
//!
//! Never here: I/O. What the world looks like comes in as images; what the plan does is for `guard` and `act`.

use nightshift_model::{EntityId, Image, Incident, Plan, Prediction, Timestamp};
use nightshift_topology::Topology;
use std::collections::BTreeMap;

mod actions;
mod ask;
mod bind;
mod check;
mod choose;
mod config;
pub mod expr;
mod kpi;
mod library;
pub mod playbook;
mod read;
mod schema;
mod scope;
mod targets;

pub use actions::{ActionInfo, ParamInfo, rehearsal_image};
pub use ask::{Ask, Candidate, Look, Proposal, Stats};
pub use bind::UNTELLABLE;
pub use check::{Facts, Finding, check};
pub use choose::{needed_looks, propose};
pub use config::PlanConfig;
pub use library::{FileProblem, PLAYBOOKS_MAX, Playbooks, playbook_schema};
pub use nightshift_topology::yaml::Problem;
pub use playbook::Playbook;
pub use read::{FILE_BYTES_MAX, PROBLEMS_MAX};

#[doc(hidden)]
pub use {expr::fuzz_plan_expr, read::fuzz_playbook_yaml};

/// What was looked at: facts by entity, as the actuators that would act read them.
pub type Images = BTreeMap<EntityId, Image>;

/// Tries a plan on a copy of the estate. It sees telemetry, topology and what was looked at, never the world itself.
pub trait WhatIf: Send + Sync {
    /// What the plan would do, given the causes that the incident's ranking names with their confidences; `None` when
    /// too little is known of the estate to say.
    fn predict(
        &self,
        plan: &Plan,
        incident: &Incident,
        topology: &Topology,
        images: &Images,
        now: Timestamp,
    ) -> Option<Prediction>;
}
