//! One tenant's half of the corridor: the engine, the workflow, the guard, and what they know.
//!
//! Everything here is a pure step: rows, documents and errands out. The agent makes the rows durable and only then
//! runs the errands.

use super::lease::Held;
use super::{Response, Step};
use nightshift_detect::FeatureRow;
use nightshift_diagnose::{Effect as Diagnosed, Engine, Input as Symptom};
use nightshift_guard::{BudgetLeft, Budgets, Guard};
use nightshift_knowledge::{Knowledge, LearnConfig, Outcome};
use nightshift_model::{Change, Clock, EntityId, IncidentId, JournalDraft, Kpi, KpiReading, Timestamp};
use nightshift_plan::Stats;
use nightshift_reason::{Effect, Input, Rooms, Workflow};
use nightshift_store::Document;
use nightshift_topology::{Slo, Topology};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

/// Collection of the workflow's checkpoints, by incident.
pub(super) const CHECKPOINTS: &str = "workflow.case";
/// Collection of the guard's state, and its key.
pub(super) const GUARD: (&str, &str) = ("guard.state", "guard");
/// Collection of the error budgets, and its key.
pub(super) const BUDGETS: (&str, &str) = ("guard.budgets", "budgets");
/// Changes that are kept for planning.
const CHANGES_MAX: usize = 2_000;
/// How long a change matters to a plan.
const CHANGES_AGE: Duration = Duration::from_secs(6 * 3_600);
/// Nodes that one incident may go through in one turn: far above the longest way through the graph.
const NODES_MAX: u32 = 200;
/// Readings of one verification that are shown before the journal has them.
const LIVE_MAX: usize = 20;
/// How often budgets are written down; what is lost in a crash is a minute of counting.
const BUDGETS_EVERY: Duration = Duration::from_secs(60);

/// One tenant's state.
pub(super) struct Tenant {
    pub(super) name: String,
    pub(super) engine: Engine,
    pub(super) topology: Topology,
    /// Offset of the next record of each partition, as durable in the store with what it led to.
    pub(super) cursors: HashMap<(Arc<str>, u32), u64>,
    pub(super) workflow: Workflow,
    pub(super) guard: Guard,
    pub(super) budgets: Budgets,
    /// What is left of the budgets, as last counted.
    pub(super) left: BTreeMap<EntityId, BudgetLeft>,
    /// What incidents taught, those that the installation began with too.
    pub(super) outcomes: Vec<Outcome>,
    /// What is known of playbooks from them.
    pub(super) stats: Stats,
    pub(super) changes: Vec<Change>,
    pub(super) lease: Held,
    /// Entities with an objective, of the newest topology.
    pub(super) declared_at: Option<u64>,
    /// Topology whose objectives the detector was told.
    pub(super) handed_at: Option<u64>,
    /// Readings of plans that are being verified, newest last: for the page, until the journal has them.
    pub(super) live: BTreeMap<IncidentId, Vec<KpiReading>>,
    pub(super) budgets_at: Timestamp,
    pub(super) budgets_dirty: bool,
}

impl Tenant {
    /// Symptoms and changes go in; what they lead to goes into the step. Gives why a person's action was refused.
    pub(super) fn diagnose(
        &mut self,
        inputs: impl IntoIterator<Item = Symptom>,
        response: &Response,
        clock: &dyn Clock,
        step: &mut Step,
    ) -> Option<String> {
        self.hand_objectives(response);
        let mut refused = None;
        let mut touched: BTreeSet<IncidentId> = BTreeSet::new();
        for effect in self.engine.step_all(inputs, &self.topology, clock.now()) {
            match effect {
                Diagnosed::Journal(draft) => {
                    touched.insert(draft.incident);
                    step.commit.journal.push(draft);
                }
                Diagnosed::Refused { why, .. } => refused = Some(why),
            }
        }
        let news: Vec<Input> = touched
            .iter()
            .filter_map(|id| self.engine.incident(*id))
            .map(|incident| Input::Incident(Box::new(incident.clone())))
            .collect();
        self.respond(news, response, clock, step);
        refused
    }

    /// What happened goes to the workflow, node after node, until it waits for something.
    pub(super) fn respond(&mut self, inputs: Vec<Input>, response: &Response, clock: &dyn Clock, step: &mut Step) {
        for input in inputs {
            let now = clock.now();
            let effects = self.with_rooms(response, |workflow, rooms| workflow.take(input, rooms, now));
            self.take(effects, step);
        }
        // Each node with a reading of the clock of its own, so that its time is known.
        for id in self.workflow.ready(clock.now()) {
            for _ in 0..NODES_MAX {
                let now = clock.now();
                let progress = self.with_rooms(response, |workflow, rooms| workflow.advance(id, rooms, now));
                self.take(progress.effects, step);
                if !progress.moved {
                    break;
                }
            }
        }
    }

    fn with_rooms<T>(&mut self, response: &Response, ask: impl FnOnce(&mut Workflow, &mut Rooms<'_>) -> T) -> T {
        let Self { workflow, guard, topology, stats, changes, lease, left, .. } = self;
        let kill_switch = response.switch.state();
        let mut rooms = Rooms {
            topology,
            playbooks: &response.playbooks,
            plan: &response.plan,
            changes,
            stats,
            what_if: response.what_if.as_deref(),
            guard,
            budgets: left,
            kill_switch: kill_switch.as_ref(),
            external_policy: response.opa.is_some(),
            actuators: &response.actuators,
            fence: lease.lease.epoch,
            worker: &lease.lease.worker,
        };
        ask(workflow, &mut rooms)
    }

    fn take(&mut self, effects: Vec<Effect>, step: &mut Step) {
        let mut rows: Vec<JournalDraft> = Vec::new();
        for effect in effects {
            match effect {
                Effect::Journal(draft) => rows.push(draft),
                Effect::Checkpoint { incident, body } => {
                    step.put(Document { collection: CHECKPOINTS.into(), key: incident.to_string(), body });
                }
                Effect::GuardChanged => step.guard_changed = true,
                Effect::Learn { incident } => step.lessons.push(incident),
                Effect::Refused { why, forbidden, .. } => step.refused = Some((why, forbidden)),
                errand => step.errands.push(errand),
            }
        }
        self.engine.fold(&rows, &self.topology);
        step.commit.journal.extend(rows);
    }

    /// Tells the detector which objectives hold, by every name under which rows may come.
    fn hand_objectives(&mut self, response: &Response) {
        if self.handed_at == Some(self.topology.revision()) {
            return;
        }
        self.handed_at = Some(self.topology.revision());
        let mut objectives: BTreeMap<EntityId, Vec<Slo>> = BTreeMap::new();
        for info in self.topology.entities() {
            if let Some(spec) = info.declared.filter(|d| !d.slos.is_empty()) {
                objectives.insert(info.meta.id.clone(), spec.slos.clone());
            }
        }
        for (name, entity) in self.topology.aliases() {
            if let (Ok(other), Some(slos)) = (EntityId::parse(name), objectives.get(entity)) {
                let slos = slos.clone();
                objectives.entry(other).or_insert(slos);
            }
        }
        response.feed.set_objectives(&self.name, objectives);
    }

    /// Follows the objectives that the topology declares.
    fn follow(&mut self) {
        if self.declared_at != Some(self.topology.revision()) {
            self.declared_at = Some(self.topology.revision());
            for info in self.topology.entities() {
                if let Some(spec) = info.declared
                    && !spec.slos.is_empty()
                {
                    self.budgets.declare(&info.meta.id, &spec.slos);
                }
            }
        }
    }

    /// Counts minutes of error budgets, and what is left of them.
    pub(super) fn count(&mut self, minutes: &[FeatureRow], now: Timestamp) {
        self.follow();
        for row in minutes {
            let told = row.minute_of();
            let (Some(requests), Some(errors)) = (told.requests, told.errors) else { continue };
            self.budgets.observe(self.topology.resolve(&row.entity), row.minute, requests, errors);
            self.budgets_dirty = true;
        }
        let declared = self.topology.entities().filter(|e| e.declared.is_some_and(|d| !d.slos.is_empty()));
        let left = declared.filter_map(|e| Some((e.meta.id.clone(), self.budgets.left(&e.meta.id, now)?)));
        self.left = left.collect();
    }

    /// Follows what was learned: the next ranking and the next choice know it.
    pub(super) fn learn(&mut self, outcome: Option<Outcome>, config: &LearnConfig, now: Timestamp) {
        if let Some(outcome) = outcome {
            self.outcomes.retain(|o| o.incident != outcome.incident);
            self.outcomes.push(outcome);
        }
        let knowledge = Knowledge::fold(self.outcomes.iter().cloned(), config, now);
        let mut stats = Stats::new();
        for (playbook, fault, successes, failures) in knowledge.counts() {
            stats.set(playbook, fault, successes, failures);
        }
        self.stats = stats;
        self.engine.set_priors(Arc::new(knowledge.priors().clone()));
    }

    /// Shows a reading to those who watch a verification.
    pub(super) fn show(&mut self, kpi: &Kpi, at: Timestamp, value: f64) {
        for case in self.workflow.cases().filter(|c| c.is_executing()) {
            if let Some(plan) = case.plan().filter(|p| p.verification.kpi == *kpi) {
                let shown = self.live.entry(case.incident()).or_default();
                shown.push(KpiReading { at, value, good: plan.verification.is_good(value) });
                let over = shown.len().saturating_sub(LIVE_MAX);
                shown.drain(..over);
            }
        }
    }

    /// The readings of what is being verified. None of an incident: it is over, and said once.
    pub(super) fn shown(&mut self) -> Vec<(IncidentId, Vec<KpiReading>)> {
        let workflow = &self.workflow;
        let over = |id: &IncidentId| !workflow.case(*id).is_some_and(nightshift_reason::Case::is_executing);
        let ended: Vec<IncidentId> = self.live.keys().copied().filter(over).collect();
        self.live.retain(|id, _| !ended.contains(id));
        let going = self.live.iter().map(|(id, shown)| (*id, shown.clone()));
        going.chain(ended.into_iter().map(|id| (id, Vec::new()))).collect()
    }

    /// Keeps a change for planning.
    pub(super) fn keep_change(&mut self, change: &Change) {
        if self.changes.iter().any(|c| c.id == change.id) {
            return;
        }
        self.changes.push(change.clone());
        let newest = self.changes.iter().map(|c| c.at).max().unwrap_or(change.at);
        self.changes.retain(|c| newest.since(c.at) <= CHANGES_AGE);
        self.changes.sort_by_key(|c| (c.at, c.id));
        let over = self.changes.len().saturating_sub(CHANGES_MAX);
        self.changes.drain(..over);
    }

    /// What of the guard must be in the next commit.
    pub(super) fn put_guard(&mut self, step: &mut Step, now: Timestamp) {
        if std::mem::take(&mut step.guard_changed) {
            let body = serde_json::to_vec(self.guard.state()).expect("the guard's state has string keys");
            step.put(Document { collection: GUARD.0.into(), key: GUARD.1.into(), body: Some(body) });
        }
        if self.budgets_dirty && now.since(self.budgets_at) >= BUDGETS_EVERY {
            (self.budgets_dirty, self.budgets_at) = (false, now);
            let body = serde_json::to_vec(&self.budgets).expect("budgets have string keys");
            step.put(Document { collection: BUDGETS.0.into(), key: BUDGETS.1.into(), body: Some(body) });
        }
    }
}
