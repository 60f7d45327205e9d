//! The second half of the loop in virtual time: workflow, guard and the estate's actuator, stepped as their agent does
//! it, with a person who says yes half a minute after being asked.

use futures::FutureExt as _;
use nightshift_act::{ActError, Actuator as _, Answer, Declares};
use nightshift_guard::{BudgetLeft, Budgets, Guard, Role};
use nightshift_model::{
    Action, Change, EntityId, IncidentId, Kpi, PersonAction, PersonVerb, PlanHash, Timestamp, Verification,
};
use nightshift_plan::{PlanConfig, Playbooks, Stats};
use nightshift_reason::{Input, Rooms, Workflow};
use nightshift_sim::{FittedEstate, SimActuator, World};
use nightshift_topology::Topology;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// Seconds after which the simulated approver answers.
const ANSWER_SECS: f64 = 30.0;
/// Seconds for which a KPI must stay good to be back: what is restarted again and again is well now and then.
const STAYS_SECS: f64 = 60.0;
/// Name of the estate's actuator.
const ESTATE: &str = "estate";

/// A KPI that somebody waits for.
#[derive(Debug, Clone)]
struct Watch {
    since: Timestamp,
    interval_secs: u32,
    last: Option<Timestamp>,
}

/// Workflow, guard and what they know.
pub(crate) struct Responder {
    pub(crate) workflow: Workflow,
    guard: Guard,
    playbooks: Arc<Playbooks>,
    plan: PlanConfig,
    stats: Stats,
    changes: Vec<Change>,
    budgets: Budgets,
    left: BTreeMap<EntityId, BudgetLeft>,
    pub(crate) what_if: Option<FittedEstate>,
    actuators: BTreeMap<String, Declares>,
    actuator: SimActuator,
    watched: BTreeMap<Kpi, Watch>,
    /// When the approver answers, and about what.
    answers: Vec<(f64, IncidentId, PlanHash)>,
}

/// What a responder is made of.
pub(crate) struct Parts {
    pub(crate) workflow: Workflow,
    pub(crate) guard: Guard,
    pub(crate) playbooks: Arc<Playbooks>,
    pub(crate) plan: PlanConfig,
    pub(crate) budgets: Budgets,
    pub(crate) what_if: Option<FittedEstate>,
    pub(crate) actuator: SimActuator,
}

impl Responder {
    pub(crate) fn new(parts: Parts) -> Self {
        let declares = parts.actuator.declares();
        Self {
            workflow: parts.workflow,
            guard: parts.guard,
            playbooks: parts.playbooks,
            plan: parts.plan,
            stats: Stats::new(),
            changes: Vec::new(),
            budgets: parts.budgets,
            left: BTreeMap::new(),
            what_if: parts.what_if,
            actuators: BTreeMap::from([(ESTATE.to_owned(), declares)]),
            actuator: parts.actuator,
            watched: BTreeMap::new(),
            answers: Vec::new(),
        }
    }

    pub(crate) fn keep_change(&mut self, change: &Change) {
        self.changes.push(change.clone());
    }

    /// Counts a minute of an error budget.
    pub(crate) fn count(&mut self, row: &nightshift_detect::FeatureRow) {
        let Some(ratio) = row.error_ratio else { return };
        let requests = row.request_rate.map_or(row.requests as f64, |rate| rate * 60.0);
        self.budgets.observe(&row.entity, row.minute, requests, requests * ratio);
    }

    /// What is left of the budgets.
    pub(crate) fn account(&mut self, topology: &Topology, now: Timestamp) {
        let declared = topology.entities().filter(|e| e.declared.is_some_and(|d| !d.slos.is_empty()));
        self.left = declared.filter_map(|e| Some((e.meta.id.clone(), self.budgets.left(&e.meta.id, now)?))).collect();
    }

    /// Asks the workflow something.
    pub(crate) fn with<T>(&mut self, topology: &Topology, ask: impl FnOnce(&mut Workflow, &mut Rooms<'_>) -> T) -> T {
        let what_if = self.what_if.as_ref().map(|w| w as &dyn nightshift_plan::WhatIf);
        let mut rooms = Rooms {
            topology,
            playbooks: &self.playbooks,
            plan: &self.plan,
            changes: &self.changes,
            stats: &self.stats,
            what_if,
            guard: &mut self.guard,
            budgets: &self.left,
            kill_switch: None,
            external_policy: false,
            actuators: &self.actuators,
            fence: 1,
            worker: "eval",
        };
        ask(&mut self.workflow, &mut rooms)
    }

    pub(crate) fn watch(&mut self, kpi: Kpi, since: Timestamp, interval_secs: u32) {
        self.watched.insert(kpi, Watch { since, interval_secs, last: None });
    }

    pub(crate) fn unwatch(&mut self, kpi: &Kpi) {
        self.watched.remove(kpi);
    }

    /// Readings of what is watched, from the newest scrape.
    pub(crate) fn readings(
        &mut self,
        value_of: impl Fn(&Kpi) -> Option<f64>,
        at: Timestamp,
        out: &mut VecDeque<Input>,
    ) {
        for (kpi, watch) in &mut self.watched {
            let due = watch.last.is_none_or(|l| at.since(l).as_secs() >= u64::from(watch.interval_secs));
            if at > watch.since
                && due
                && let Some(value) = value_of(kpi).filter(|v| v.is_finite())
            {
                watch.last = Some(at);
                out.push_back(Input::Reading { kpi: kpi.clone(), at, value });
            }
        }
    }

    pub(crate) fn asked(&mut self, at_secs: f64, incident: IncidentId, plan: PlanHash) {
        self.answers.push((at_secs + ANSWER_SECS, incident, plan));
    }

    /// What the approver says by now.
    pub(crate) fn answers(&mut self, now_secs: f64, out: &mut VecDeque<Input>) {
        self.answers.retain(|(due, incident, plan)| {
            if *due > now_secs {
                return true;
            }
            let verb = PersonVerb::Approve { plan: *plan, note: String::new() };
            let action = PersonAction { incident: *incident, actor: "approver".into(), verb };
            out.push_back(Input::Person { action, role: Role::Admin, known: None });
            false
        });
    }

    /// Reads a target. The estate's actuator never waits.
    pub(crate) fn look(&self, look: &nightshift_plan::Look) -> Result<nightshift_model::Image, ActError> {
        let late = || Err(ActError::Refused("the estate did not answer at once".into()));
        self.actuator.look(&look.entity, look.action).now_or_never().unwrap_or_else(late)
    }

    /// Carries out an order.
    pub(crate) fn perform(&self, order: &Action) -> Result<Answer, ActError> {
        let late = || Err(ActError::Refused("the estate did not answer at once".into()));
        self.actuator.perform(order).now_or_never().unwrap_or_else(late)
    }
}

/// The same estate in which nothing is done: when does the KPI come back by itself?
pub(crate) struct Twin {
    world: World,
    series: Option<usize>,
    verification: Verification,
    /// Since when it is good.
    good_since: Option<f64>,
    last_secs: f64,
    /// When it was back for good.
    pub(crate) back_secs: Option<f64>,
}

impl Twin {
    pub(crate) fn new(world: World, verification: &Verification) -> Self {
        let mut twin = Self {
            world: world.talking(false),
            series: None,
            verification: verification.clone(),
            good_since: None,
            last_secs: f64::NEG_INFINITY,
            back_secs: None,
        };
        twin.series = series_of(&twin.world, &verification.kpi);
        twin
    }

    /// From now on another KPI counts: the plan that promised it is carried out now.
    pub(crate) fn promise(&mut self, verification: &Verification) {
        if self.verification.kpi != verification.kpi {
            self.series = series_of(&self.world, &verification.kpi);
            self.verification = verification.clone();
            self.good_since = None;
            self.back_secs = None;
        }
    }

    pub(crate) fn step(&mut self) {
        self.world.tick();
        let now = self.world.now_secs();
        if self.back_secs.is_some() || now - self.last_secs < f64::from(self.verification.interval_secs) {
            return;
        }
        let Some(value) = self.series.and_then(|s| self.world.value(s)).filter(|v| v.is_finite()) else { return };
        self.last_secs = now;
        if !self.verification.is_good(value) {
            self.good_since = None;
        } else if now - *self.good_since.get_or_insert(now) >= STAYS_SECS {
            self.back_secs = self.good_since;
        }
    }
}

/// The place of a KPI among the series.
pub(crate) fn series_of(world: &World, kpi: &Kpi) -> Option<usize> {
    world.series().iter().position(|def| {
        def.entity.id == kpi.entity
            && def.name == kpi.signal
            && kpi.labels.iter().all(|(k, v)| def.labels.iter().any(|(name, value)| name == k && value == v))
    })
}
