//! The workflow of one tenant.

use crate::case::Case;
use crate::node::Node;
use crate::nodes;
use crate::turn::{Step, Turn};
use crate::{Effect, Input, Rooms, WorkflowConfig};
use nightshift_model::{Incident, IncidentId, IncidentStatus, Timestamp};
use std::collections::BTreeMap;

/// Turns that one incident may take within one [`Workflow::step`]: far above the longest way through the graph.
const TURNS_MAX: u32 = 200;

/// What one turn of one incident came to.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Progress {
    /// Rows, checkpoints and orders: one commit.
    pub effects: Vec<Effect>,
    /// Whether it moved and may be advanced again at once.
    pub moved: bool,
}

/// The incidents of one tenant on their way through the graph. One case for each that is not finished; nothing else is
/// remembered.
pub struct Workflow {
    tenant: String,
    config: WorkflowConfig,
    cases: BTreeMap<IncidentId, Case>,
}

impl Workflow {
    /// A workflow that has seen nothing.
    pub fn new(config: WorkflowConfig, tenant: &str) -> Self {
        Self::restore(config, tenant, Vec::new())
    }

    /// A workflow that goes on where another one was stopped. `checkpoints`: bodies as told by [`Effect::Checkpoint`].
    /// One that cannot be read becomes a case that calls a person.
    ///
    /// Then give [`Input::Incident`] for every checkpointed ([`Self::cases`]) and every open incident, and
    /// [`Input::Recovered`] once. Until it has its incident a case waits.
    pub fn restore(
        config: WorkflowConfig,
        tenant: &str,
        checkpoints: impl IntoIterator<Item = (IncidentId, Vec<u8>)>,
    ) -> Self {
        let mut cases = BTreeMap::new();
        for (id, bytes) in checkpoints {
            let read = Case::from_bytes(&bytes).and_then(|case| {
                if case.id == id { Ok(case) } else { Err(format!("checkpoint is of incident {}", case.id)) }
            });
            let case = read.unwrap_or_else(|why| {
                let mut case = Case::new(id, false, Node::Escalation, Timestamp::EPOCH);
                case.lost = Some(why);
                case
            });
            cases.insert(id, case);
        }
        Self { tenant: tenant.to_owned(), config, cases }
    }

    /// The settings.
    pub const fn config(&self) -> &WorkflowConfig {
        &self.config
    }

    /// Other settings from now on.
    pub fn set_config(&mut self, config: WorkflowConfig) {
        self.config = config;
    }

    /// The cases that are not finished.
    pub fn cases(&self) -> impl Iterator<Item = &Case> {
        self.cases.values()
    }

    /// The case of an incident.
    pub fn case(&self, id: IncidentId) -> Option<&Case> {
        self.cases.get(&id)
    }

    /// Series that are watched, each once: what a reader of telemetry must give as [`Input::Reading`].
    pub fn watched(&self) -> impl Iterator<Item = &nightshift_model::Kpi> {
        let all: std::collections::BTreeSet<_> = self.cases.values().flat_map(Case::kpis).collect();
        all.into_iter()
    }

    /// Takes one thing in: at most the rows of the person or the operation that it is about. What follows from it is
    /// done by [`Self::advance`], for each of [`Self::ready`].
    pub fn take(&mut self, input: Input, rooms: &mut Rooms<'_>, now: Timestamp) -> Vec<Effect> {
        match input {
            Input::Incident(inc) => {
                self.incident(inc, now);
                Vec::new()
            }
            Input::Person { action, role, known } => self.person(action, role, known, rooms, now),
            Input::Looked { incident, look, result } => {
                self.with(incident, rooms, now, |case, _| nodes::planning::looked(case, &look, result))
            }
            Input::Policy { incident, plan, answer } => {
                self.with(incident, rooms, now, |case, _| nodes::judging::policy(case, plan, answer))
            }
            Input::Ended { order, result } => {
                self.with(order.incident, rooms, now, |case, turn| nodes::acting::ended(case, turn, &order, result))
            }
            Input::Reading { kpi, at, value } => {
                let ids: Vec<IncidentId> = self.cases.values().filter(|c| c.reads(&kpi)).map(|c| c.id).collect();
                let mut out = Vec::new();
                for id in ids {
                    out.extend(self.with(id, rooms, now, |case, turn| {
                        if let Some(watch) = case.watch.as_mut().filter(|w| w.kpi == kpi)
                            && watch.read(at, value)
                        {
                            case.wake = true;
                            case.dirty |= case.node == Node::Verify;
                        }
                        nodes::acting::reading(case, turn, &kpi, at, value);
                    }));
                }
                out
            }
            Input::Tick => {
                let on = rooms.kill_switch.is_some_and(|k| k.on);
                for case in self.cases.values_mut() {
                    case.wake |=
                        case.due.is_some_and(|due| due <= now) || case.execution.is_some() || case.passing && !on;
                }
                Vec::new()
            }
            Input::Recovered => {
                let ids: Vec<IncidentId> = self.cases.keys().copied().collect();
                let mut out = Vec::new();
                for id in ids {
                    out.extend(self.with(id, rooms, now, |case, turn| {
                        case.wake = true;
                        nodes::recovered(case, turn);
                    }));
                }
                out
            }
        }
    }

    /// Incidents that may move now, in order.
    pub fn ready(&self, now: Timestamp) -> Vec<IncidentId> {
        let due = |c: &&Case| c.inc.is_some() && (c.wake || c.timer().is_some_and(|due| due <= now));
        self.cases.values().filter(due).map(|c| c.id).collect()
    }

    /// Runs one node of one incident: one commit. Call again while it [moved](Progress::moved).
    pub fn advance(&mut self, id: IncidentId, rooms: &mut Rooms<'_>, now: Timestamp) -> Progress {
        let Some(mut case) = self.cases.remove(&id) else { return Progress::default() };
        if case.inc.is_none() {
            self.cases.insert(id, case);
            return Progress::default();
        }
        case.wake = false;
        let mut turn =
            Turn { config: &self.config, tenant: &self.tenant, rooms, now, others: &self.cases, out: Vec::new() };
        let was_executing = case.execution.is_some();
        let step = nodes::run(&mut case, &mut turn);
        let mut effects = turn.out;
        let into = case.inc.as_ref().and_then(|inc| inc.merged_into);
        match step {
            Step::Ended => {
                effects.push(Effect::Checkpoint { incident: id, body: None });
                if let Some(elder) = into.and_then(|into| self.cases.get_mut(&into)) {
                    // What the younger tried need not be tried again.
                    elder.inherit(&case);
                }
            }
            Step::Moved | Step::Waits => {
                case.wake |= step == Step::Moved;
                if step == Step::Waits && case.due.is_some_and(|due| due <= now) {
                    // A timer goes off once: the node has seen it.
                    case.due = None;
                    case.dirty = true;
                }
                if case.dirty {
                    case.dirty = false;
                    effects.push(Effect::Checkpoint { incident: id, body: Some(case.to_bytes()) });
                }
                self.cases.insert(id, case);
            }
        }
        if was_executing && let Some(elder) = into.and_then(|into| self.cases.get_mut(&into)) {
            elder.wake = true;
            if elder.dirty {
                elder.dirty = false;
                effects.push(Effect::Checkpoint { incident: elder.id, body: Some(elder.to_bytes()) });
            }
        }
        order(&mut effects);
        Progress { effects, moved: step == Step::Moved }
    }

    /// [`Self::take`], then [`Self::advance`] until nothing moves: all with the same clock reading.
    pub fn step(&mut self, input: Input, rooms: &mut Rooms<'_>, now: Timestamp) -> Vec<Effect> {
        let mut out = self.take(input, rooms, now);
        for id in self.ready(now) {
            for _ in 0..TURNS_MAX {
                let progress = self.advance(id, rooms, now);
                out.extend(progress.effects);
                if !progress.moved {
                    break;
                }
            }
        }
        out
    }

    /// When the next timer is due: give [`Input::Tick`] then. `None`: nothing waits for time.
    pub fn wants_tick_at(&self) -> Option<Timestamp> {
        self.cases.values().filter(|c| c.inc.is_some()).filter_map(Case::timer).min()
    }

    fn incident(&mut self, inc: Box<Incident>, now: Timestamp) {
        if inc.tenant != self.tenant {
            return;
        }
        match self.cases.get_mut(&inc.id) {
            Some(case) => {
                case.synthetic = inc.synthetic;
                // The end of a series of rows, or one of them: only what decides wakes it up.
                case.wake |= case.inc.as_deref().is_none_or(|old| {
                    (old.status, old.rca_revision, old.automation, old.postmortem_at)
                        != (inc.status, inc.rca_revision, inc.automation, inc.postmortem_at)
                        || (old.score - inc.score).abs() > f64::EPSILON
                });
                case.inc = Some(inc);
            }
            None if inc.status.is_open() => {
                let began = inc.detected_at.min(now);
                let mut case = Case::new(inc.id, inc.synthetic, Node::Detection, began);
                // It came back after its case was over: what was tried then is known still.
                if let Some(plan) = inc.plan.as_ref().filter(|_| inc.actions_total > 0) {
                    case.tried.push(plan.playbook.clone());
                    case.attempts = 1;
                }
                case.plans = u32::try_from(inc.plans_total).unwrap_or(u32::MAX).min(self.config.plans_max / 2);
                case.wake = true;
                case.inc = Some(inc);
                self.cases.insert(case.id, case);
            }
            None => {}
        }
    }

    /// Works on one case, and checkpoints it when it changed.
    pub(crate) fn with(
        &mut self,
        id: IncidentId,
        rooms: &mut Rooms<'_>,
        now: Timestamp,
        work: impl FnOnce(&mut Case, &mut Turn<'_, '_>),
    ) -> Vec<Effect> {
        let Some(mut case) = self.cases.remove(&id) else { return Vec::new() };
        let mut turn =
            Turn { config: &self.config, tenant: &self.tenant, rooms, now, others: &self.cases, out: Vec::new() };
        work(&mut case, &mut turn);
        let mut effects = turn.out;
        if case.dirty && case.inc.is_some() {
            case.dirty = false;
            effects.push(Effect::Checkpoint { incident: id, body: Some(case.to_bytes()) });
        }
        self.cases.insert(id, case);
        order(&mut effects);
        effects
    }
}

/// Rows first, then what is kept, then what is done after the commit; each in the order in which it came.
fn order(effects: &mut [Effect]) {
    effects.sort_by_key(|e| match e {
        Effect::Journal(_) => 0,
        Effect::Checkpoint { .. } | Effect::GuardChanged | Effect::Learn { .. } => 1,
        _ => 2,
    });
}

/// Whether an incident was joined into another one.
pub(crate) fn is_merged(inc: &Incident) -> bool {
    inc.status == IncidentStatus::Merged
}
