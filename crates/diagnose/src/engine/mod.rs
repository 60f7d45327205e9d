//! The engine: anomalies, changes, people and time in; journal rows out.
//!
//! Its memory is the folded incidents themselves, changed only by the rows it emits, plus what can be derived from
//! them. So the journal is all that a restart needs, beside the stored anomalies that wait to join something and the
//! stored changes. Three things are exempt and say so: counters, caches, and the ids of symptoms that a storm only
//! counted (after a restart a repeated record of one of those is counted anew).

mod case;
mod expected;
mod join;
mod settle;

use crate::DiagnoseConfig;
use crate::input::{Effect, Input};
use crate::priors::Priors;
use crate::relate::{Link, neighbourhood};
use case::Case;
use hashbrown::HashMap;
use nightshift_model::{
    Anomaly, Change, EntityId, EventKind, Incident, IncidentId, IncidentStatus, JournalDraft, JournalEvent,
    OccurrenceId, PersonAction, PersonVerb, Timestamp, journal,
};
use nightshift_topology::Topology;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// The actor of rows that nobody asked for.
const SYSTEM: &str = "system";
/// Neighbourhoods remembered until the topology changes.
const NEIGHBOURHOODS_MAX: usize = 4_096;

/// What the store knows: enough to go on as if nothing had happened.
#[derive(Debug, Clone, Default)]
pub struct Memory {
    /// Open incidents, and those that ended within [`DiagnoseConfig::incidents_lookback`].
    pub incidents: Vec<Incident>,
    /// Changes within [`DiagnoseConfig::changes_lookback`].
    pub changes: Vec<Change>,
    /// The newest record (by `last_seen`, an end after all others) of each anomaly seen within
    /// [`DiagnoseConfig::anomalies_lookback`]; a repeated older record must not stand in its place.
    pub anomalies: Vec<Anomaly>,
    /// Highest incident number given so far, 0 when none.
    pub last_number: u64,
}

/// What was done since the start, for metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stats {
    /// Anomaly records taken in.
    pub records: u64,
    /// Of these, repetitions that changed nothing.
    pub silent: u64,
    /// Incidents not opened because `open_max` was reached.
    pub not_opened: u64,
    /// Records of another tenant, refused.
    pub foreign: u64,
}

/// Groups anomalies into incidents and ranks their causes, for one tenant.
pub struct Engine {
    config: DiagnoseConfig,
    tenant: String,
    /// By running number: the elder first.
    cases: BTreeMap<u64, Case>,
    numbers: HashMap<IncidentId, u64>,
    /// Kept symptoms to the incident that has them, merged ones left out.
    members: HashMap<OccurrenceId, u64>,
    /// Entities that are ill, to the open incidents that say so.
    entities: HashMap<EntityId, BTreeSet<u64>>,
    /// Services that are ill, the same way.
    services: HashMap<String, BTreeSet<u64>>,
    /// Weak symptoms that wait for company, and ends that came before their beginnings.
    waiting: BTreeMap<OccurrenceId, Anomaly>,
    /// Symptoms that were only counted: to which incident, and whether they go on. Bounded, and empty after a restart.
    counted: HashMap<OccurrenceId, (u64, bool)>,
    /// Open symptoms that were only counted before a restart, by incident: their ends are believed by place.
    uncounted: BTreeMap<u64, u64>,
    /// Causes of resolved incidents, to find what came back.
    past: HashMap<u64, BTreeSet<u64>>,
    /// Of this batch: symptoms only counted, of these open, and ends of such.
    storm: BTreeMap<u64, StormCount>,
    changes: BTreeMap<(Timestamp, nightshift_model::EnvelopeId), Change>,
    last_number: u64,
    neighbourhoods: HashMap<EntityId, Arc<BTreeMap<EntityId, Link>>>,
    topology_revision: Option<u64>,
    dirty: BTreeSet<u64>,
    effects: Vec<Effect>,
    stats: Stats,
    priors: Arc<Priors>,
}

impl Engine {
    /// An engine of a tenant that never had an incident.
    pub fn new(config: DiagnoseConfig, tenant: &str) -> Self {
        Self::restore(config, tenant, Memory::default())
    }

    /// An engine that goes on where another one was stopped.
    pub fn restore(config: DiagnoseConfig, tenant: &str, memory: Memory) -> Self {
        let mut engine = Self {
            config,
            tenant: tenant.to_owned(),
            cases: BTreeMap::new(),
            numbers: HashMap::new(),
            members: HashMap::new(),
            entities: HashMap::new(),
            services: HashMap::new(),
            waiting: BTreeMap::new(),
            counted: HashMap::new(),
            uncounted: BTreeMap::new(),
            past: HashMap::new(),
            storm: BTreeMap::new(),
            changes: BTreeMap::new(),
            last_number: memory.last_number,
            neighbourhoods: HashMap::new(),
            // Names are not resolved yet: the first step does it, with the topology of that moment.
            topology_revision: None,
            dirty: BTreeSet::new(),
            effects: Vec::new(),
            stats: Stats::default(),
            priors: Arc::default(),
        };
        for inc in memory.incidents {
            engine.last_number = engine.last_number.max(inc.number);
            engine.numbers.insert(inc.id, inc.number);
            let case = Case::new(inc);
            if case.inc.status.is_open() && case.beyond().1 > 0 {
                engine.uncounted.insert(case.inc.number, case.beyond().1);
            }
            engine.cases.insert(case.inc.number, case);
        }
        engine.reindex_members();
        for change in memory.changes {
            engine.changes.insert((change.at, change.id), change);
        }
        for anomaly in memory.anomalies {
            let weak = anomaly.score < engine.config.open_score_min || anomaly.phase == nightshift_model::Phase::Closed;
            if weak && !engine.members.contains_key(&anomaly.id) {
                engine.waiting.insert(anomaly.id, anomaly);
            }
        }
        engine
    }

    /// Takes one thing in and says what must be journalled. `now` is the present; decisions rest on event time, `now`
    /// only says how much of it has passed.
    pub fn step(&mut self, input: Input, topology: &Topology, now: Timestamp) -> Vec<Effect> {
        self.step_all([input], topology, now)
    }

    /// Takes a batch in. Each incident that it touched is assessed and ranked once, at the end, so a storm that
    /// arrives in batches costs little and leaves few rows.
    pub fn step_all(
        &mut self,
        inputs: impl IntoIterator<Item = Input>,
        topology: &Topology,
        now: Timestamp,
    ) -> Vec<Effect> {
        self.follow(topology);
        let mut ticked = false;
        for input in inputs {
            match input {
                Input::Anomaly(anomaly) => self.anomaly(*anomaly, topology, now),
                Input::Change(change) => self.change(*change, topology),
                Input::Tick => ticked = true,
                Input::Person(action) => self.person(action, topology, now),
            }
        }
        self.settle(topology);
        if ticked {
            self.tick(topology, now);
        }
        std::mem::take(&mut self.effects)
    }

    /// Takes in rows that another room (the workflow) emitted for incidents of this engine, so that its memory stays
    /// the fold of the journal. They must be committed together with, and after, what this engine emitted before.
    pub fn fold<'a>(&mut self, rows: impl IntoIterator<Item = &'a JournalDraft>, topology: &Topology) {
        for draft in rows {
            let Some((number, mut case)) =
                self.numbers.get(&draft.incident).copied().and_then(|n| Some((n, self.cases.remove(&n)?)))
            else {
                continue;
            };
            let row = JournalEvent::from_draft(&self.tenant, 0, draft.clone());
            let was_open = case.inc.status.is_open();
            if let Some(inc) = journal::apply(Some(case.inc), &row) {
                case.inc = inc;
                let is_open = case.inc.status.is_open();
                self.cases.insert(number, case);
                match (was_open, is_open) {
                    (true, false) => self.end(number, topology),
                    (false, true) => self.index(number, topology),
                    _ => {}
                }
            }
        }
    }

    /// What past incidents teach, from the next ranking on. Not part of [`Memory`]: it is built anew from the store.
    pub fn set_priors(&mut self, priors: Arc<Priors>) {
        self.priors = priors;
    }

    /// Counters since the start.
    pub const fn stats(&self) -> Stats {
        self.stats
    }

    /// The incidents it remembers, the elder first.
    pub fn incidents(&self) -> impl Iterator<Item = &Incident> {
        self.cases.values().map(|case| &case.inc)
    }

    /// One incident, as the journal has it.
    pub fn incident(&self, id: IncidentId) -> Option<&Incident> {
        self.numbers.get(&id).and_then(|n| self.cases.get(n)).map(|case| &case.inc)
    }

    /// Anomalies and changes that it holds beside incidents.
    pub fn held(&self) -> (usize, usize) {
        (self.waiting.len(), self.changes.len())
    }

    /// Emits a row and folds it: the only way in which an incident changes.
    fn emit(&mut self, number: u64, at: Timestamp, actor: &str, event: EventKind) {
        let Some(mut case) = self.cases.remove(&number) else { return };
        let draft = JournalDraft { incident: case.inc.id, at, actor: actor.to_owned(), event };
        let row = JournalEvent::from_draft(&self.tenant, 0, draft.clone());
        if let Some(inc) = journal::apply(Some(case.inc), &row) {
            case.inc = inc;
            self.cases.insert(number, case);
        }
        self.effects.push(Effect::Journal(draft));
    }

    /// Opens an incident and returns its number.
    fn open(&mut self, anomaly: Anomaly, title: String, recurrence_of: Option<IncidentId>, at: Timestamp) -> u64 {
        let mut id = IncidentId::derive(&self.tenant, anomaly.id);
        // An occurrence that outlived its own incident opens another one: ids are never used twice.
        if self.numbers.contains_key(&id) || anomaly.last_seen.since(anomaly.onset) > self.config.incidents_lookback() {
            id = IncidentId::derive(&self.tenant, OccurrenceId::derive(anomaly.fingerprint, anomaly.last_seen));
        }
        self.last_number += 1;
        let number = self.last_number;
        let event = EventKind::Opened { number, title, anomaly: Box::new(anomaly), recurrence_of };
        let draft = JournalDraft { incident: id, at, actor: SYSTEM.to_owned(), event };
        let row = JournalEvent::from_draft(&self.tenant, 0, draft.clone());
        if let Some(inc) = journal::apply(None, &row) {
            self.numbers.insert(id, number);
            self.cases.insert(number, Case::new(inc));
            self.effects.push(Effect::Journal(draft));
        }
        number
    }

    /// Follows changes of names and edges: entities that were joined are one from now on.
    fn follow(&mut self, topology: &Topology) {
        if self.topology_revision == Some(topology.revision()) {
            return;
        }
        self.topology_revision = Some(topology.revision());
        self.neighbourhoods.clear();
        self.entities.clear();
        self.services.clear();
        let open: Vec<u64> = self.cases.iter().filter(|(_, c)| c.inc.status.is_open()).map(|(n, _)| *n).collect();
        for number in open {
            self.index(number, topology);
        }
        self.past.clear();
        let ended: Vec<u64> =
            self.cases.iter().filter(|(_, c)| c.inc.status == IncidentStatus::Resolved).map(|(n, _)| *n).collect();
        for number in ended {
            self.remember_cause(number, topology);
        }
    }

    /// Makes a resolved incident findable by what it was about.
    fn remember_cause(&mut self, number: u64, topology: &Topology) {
        let Some(case) = self.cases.get(&number) else { return };
        for key in case.cause_keys(self.config.open_score_min, topology) {
            self.past.entry(key).or_default().insert(number);
        }
    }

    /// Brings the indexes of one open incident up to date.
    fn index(&mut self, number: u64, topology: &Topology) {
        let Some(case) = self.cases.get_mut(&number) else { return };
        case.refresh(topology);
        for id in case.entities() {
            self.entities.entry_ref(id).or_default().insert(number);
        }
        for name in case.services() {
            self.services.entry_ref(name).or_default().insert(number);
        }
        for a in &case.inc.anomalies {
            self.members.insert(a.id, number);
        }
    }

    fn reindex_members(&mut self) {
        self.members.clear();
        for (number, case) in &self.cases {
            if case.inc.status != IncidentStatus::Merged {
                for a in &case.inc.anomalies {
                    self.members.insert(a.id, *number);
                }
            }
        }
    }

    fn neighbourhood(&mut self, entity: &EntityId, topology: &Topology) -> Arc<BTreeMap<EntityId, Link>> {
        if let Some(known) = self.neighbourhoods.get(entity) {
            return Arc::clone(known);
        }
        if self.neighbourhoods.len() >= NEIGHBOURHOODS_MAX {
            self.neighbourhoods.clear();
        }
        let found = Arc::new(neighbourhood(entity, topology, self.config.hops_max));
        self.neighbourhoods.insert(entity.clone(), Arc::clone(&found));
        found
    }

    fn change(&mut self, change: Change, topology: &Topology) {
        if change.tenant != self.tenant {
            self.stats.foreign += 1;
            return;
        }
        if self.changes.insert((change.at, change.id), change.clone()).is_some() {
            return;
        }
        while self.changes.len() > self.config.changes_max {
            self.changes.pop_first();
        }
        // It may explain what is open already.
        let reach = std::time::Duration::from_secs(u64::from(self.config.rank.change_minutes) * 60);
        let target = change.entity.as_ref().map(|id| topology.resolve(id).clone());
        for (number, case) in &self.cases {
            let inc = &case.inc;
            if !inc.status.is_open() || change.at > inc.updated_at || inc.onset.since(change.at) > reach {
                continue;
            }
            let near = match &target {
                Some(id) => case.is_about(id) || topology.callers(id).any(|n| case.is_about(n.id)),
                None => {
                    case.services().any(|s| *s == change.service) || case.entities().any(|e| e.name() == change.service)
                }
            };
            if near {
                self.dirty.insert(*number);
            }
        }
    }

    fn person(&mut self, action: PersonAction, topology: &Topology, now: Timestamp) {
        let PersonAction { incident, actor, verb } = action;
        let refuse = |why: String| Effect::Refused { incident, why };
        let Some((number, case)) = self.numbers.get(&incident).and_then(|n| self.cases.get_key_value(n)) else {
            self.effects.push(refuse("incident is not known, or ended too long ago to change".into()));
            return;
        };
        let (number, inc) = (*number, &case.inc);
        if let Some(into) = inc.merged_into {
            self.effects.push(refuse(format!("incident was joined into {into}: use that one")));
            return;
        }
        match verb {
            PersonVerb::Acknowledge { .. } if inc.acknowledged_by.as_deref() == Some(actor.as_str()) => {}
            PersonVerb::Acknowledge { note } => {
                self.emit(number, now, &actor, EventKind::Acknowledged { note });
            }
            PersonVerb::Resolve { .. } if inc.status == IncidentStatus::Resolved => {
                let by = inc.resolved_by.clone().unwrap_or_default();
                self.effects.push(refuse(format!("incident is resolved already, by {by}")));
            }
            PersonVerb::Resolve { why } => {
                self.emit(number, now, &actor, EventKind::Resolved { why });
                self.end(number, topology);
            }
            other => {
                let why = format!("`{}` is decided by the workflow, not here", other.as_str());
                self.effects.push(refuse(why));
            }
        }
    }

    /// An incident was resolved: symptoms find it no longer, a return does.
    fn end(&mut self, number: u64, topology: &Topology) {
        self.remember_cause(number, topology);
        self.unindex(number);
    }

    /// Takes an incident that is no longer open out of the indexes by which symptoms find it.
    fn unindex(&mut self, number: u64) {
        self.dirty.remove(&number);
        self.uncounted.remove(&number);
        let Some(case) = self.cases.get_mut(&number) else { return };
        let (entities, services) = case.forget();
        for id in entities {
            remove(&mut self.entities, &id, number);
        }
        for name in services {
            remove(&mut self.services, &name, number);
        }
    }
}

/// Symptoms of a storm that are only counted.
#[derive(Debug, Clone, Copy, Default)]
struct StormCount {
    count: u64,
    open: u64,
    closed: u64,
}

fn remove<K: std::hash::Hash + Eq>(index: &mut HashMap<K, BTreeSet<u64>>, key: &K, number: u64) {
    if let Some(numbers) = index.get_mut(key) {
        numbers.remove(&number);
        if numbers.is_empty() {
            index.remove(key);
        }
    }
}
