//! What goes into the workflow, what comes out, and the rooms that it asks.

use nightshift_act::{ActError, Answer, Declares};
use nightshift_guard::{BudgetLeft, ExternalAnswer, Guard, Role};
use nightshift_model::{
    Action, Change, EntityId, Image, Incident, IncidentId, JournalDraft, KillSwitch, Kpi, PersonAction, PlanHash,
    Timestamp,
};
use nightshift_plan::{Look, PlanConfig, Playbooks, Stats, WhatIf};
use nightshift_topology::Topology;
use serde_json::Value;
use std::collections::BTreeMap;

/// One thing that happened.
#[derive(Debug, Clone, PartialEq)]
pub enum Input {
    /// The newest fold of an incident: after each commit of the engine's rows, and once for every open or checkpointed
    /// incident after a restart. Rows that the workflow itself emitted are folded in here already.
    Incident(Box<Incident>),
    /// A person decided. All verbs may come here; those for an incident without a case need `known`.
    Person {
        /// What they did, and with which token.
        action: PersonAction,
        /// The role of that token.
        role: Role,
        /// The incident as the store has it, when it is not open any more; `None`: there is no such incident.
        known: Option<Box<Incident>>,
    },
    /// A target was looked at, or could not be.
    Looked {
        /// For which incident.
        incident: IncidentId,
        /// Which look.
        look: Look,
        /// What was read. A failure is a value: it is planned without.
        result: Result<Image, ActError>,
    },
    /// An order ended, or nobody knows whether it did.
    Ended {
        /// As it was given out with [`Effect::Order`].
        order: Box<Action>,
        /// What the actuator said.
        result: Result<Answer, ActError>,
    },
    /// A watched KPI was read.
    Reading {
        /// As it was asked for by [`Effect::Watch`].
        kpi: Kpi,
        /// When the sample was taken.
        at: Timestamp,
        /// In the unit of the signal.
        value: f64,
    },
    /// The external policy engine answered, or did not.
    Policy {
        /// For which incident.
        incident: IncidentId,
        /// Of which plan.
        plan: PlanHash,
        /// What it said.
        answer: ExternalAnswer,
    },
    /// Time passed. Give one when [`crate::Workflow::wants_tick_at`] says so, and after the kill switch was turned.
    Tick,
    /// The process was started again and every [`Input::Incident`] was given: orders without an outcome are observed,
    /// looks and questions that were under way are sent again, KPIs are watched again.
    Recovered,
}

/// What must be done because of it. The rows and checkpoints of one call belong into one commit, in this order; all
/// else is done after that commit.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// Append this to the journal.
    Journal(JournalDraft),
    /// Keep this case, or forget it.
    Checkpoint {
        /// Which incident.
        incident: IncidentId,
        /// Its bytes; `None`: the case is over.
        body: Option<Vec<u8>>,
    },
    /// The guard's state is another one: keep it in the same commit.
    GuardChanged,
    /// Read a target, answer with [`Input::Looked`].
    Look {
        /// For which incident.
        incident: IncidentId,
        /// What.
        look: Look,
        /// No answer until then counts as none.
        deadline: Timestamp,
    },
    /// Carry this out, answer with [`Input::Ended`]. Its intent is in the same commit.
    Order(Box<Action>),
    /// Ask the external policy engine, answer with [`Input::Policy`].
    AskPolicy {
        /// For which incident.
        incident: IncidentId,
        /// Of which plan.
        plan: PlanHash,
        /// What every policy is given.
        input: Box<Value>,
        /// No answer until then is a denial.
        deadline: Timestamp,
    },
    /// Give readings of this KPI as [`Input::Reading`], from this moment on.
    Watch {
        /// Which series.
        kpi: Kpi,
        /// Readings taken after this.
        since: Timestamp,
        /// Seconds between two of them at least.
        interval_secs: u32,
    },
    /// No more readings of this KPI are needed.
    Unwatch(Kpi),
    /// A person's action was not possible; nothing changed.
    Refused {
        /// Which incident was meant.
        incident: IncidentId,
        /// Whether it is for the role that it was refused.
        forbidden: bool,
        /// Why not, and what to do instead.
        why: String,
    },
    /// Write the postmortem and journal that it is written.
    Postmortem {
        /// Of which incident.
        incident: IncidentId,
    },
    /// Write down what it taught (`nightshift_knowledge::learn`), in the same commit or after it. May be said again of
    /// the same incident; the newest counts.
    Learn {
        /// Which incident.
        incident: IncidentId,
    },
}

impl Effect {
    /// The row, when it is one.
    pub fn into_journal(self) -> Option<JournalDraft> {
        match self {
            Self::Journal(draft) => Some(draft),
            _ => None,
        }
    }
}

/// The rooms that the workflow asks, and the facts that it is given with every step.
pub struct Rooms<'a> {
    /// What there is.
    pub topology: &'a Topology,
    /// The playbooks at hand.
    pub playbooks: &'a Playbooks,
    /// Settings of planning.
    pub plan: &'a PlanConfig,
    /// Changes of the last hours.
    pub changes: &'a [Change],
    /// What was learned of playbooks.
    pub stats: &'a Stats,
    /// Tries plans on a fitted copy of the estate.
    pub what_if: Option<&'a dyn WhatIf>,
    /// Judges and permits.
    pub guard: &'a mut Guard,
    /// What is left of error budgets.
    pub budgets: &'a BTreeMap<EntityId, BudgetLeft>,
    /// The switch that stops everything, as last turned.
    pub kill_switch: Option<&'a KillSwitch>,
    /// An external policy engine is configured: it is asked before each verdict.
    pub external_policy: bool,
    /// What each configured actuator promises, by name.
    pub actuators: &'a BTreeMap<String, Declares>,
    /// Fencing token of this worker.
    pub fence: u64,
    /// Its name.
    pub worker: &'a str,
}
