//! The incident agent at work: anomalies, changes and topology in; incidents, causes, plans, verdicts and orders out.
//!
//! It steps the engine (what belongs together, what caused it) and the workflow (what is done about it), and is the
//! one writer of a tenant's journal. One store commit per turn holds the journal, the rows, the checkpoints and the
//! position they came from, so a crash between any two lines repeats nothing; only then are the orders of that turn
//! handed out. When a commit fails the rooms are ahead of the store: they are thrown away and built again from the
//! store, as after a crash.
//!
//! Every commit expects the tenant's lease unchanged. A worker that lost it writes nothing more, and so orders nothing.

mod hands;
mod lease;
mod people;
mod report;
mod restore;
mod tenant;

use super::feed::Feed;
use super::shelf::Shelf;
use super::{AgentError, Turn, dead_letter};
use crate::opa::OpaClient;
use crate::switch::SwitchBoard;
use hands::Hands;
use nightshift_act::{ActError, Declares, Executor};
use nightshift_api::GuardReport;
use nightshift_bus::{Bus, Consumer, Record, TopicPartition};
use nightshift_detect::FeatureRow;
use nightshift_diagnose::{DiagnoseConfig, Input as Symptom};
use nightshift_guard::{ExternalAnswer, GuardConfig, Policies, Role as GuardRole};
use nightshift_health::SelfMetrics;
use nightshift_knowledge::{LearnConfig, OUTCOMES, Outcome};
use nightshift_model::journal::{self, TENANT_WIDE};
use nightshift_model::{
    Anomaly, Change, Clock, Envelope, EventKind, Incident, IncidentId, JournalDraft, JournalEvent, KillSwitch,
    KpiReading, ManualClock, Observation, PersonAction, PersonVerb, Timestamp, topics,
};
use nightshift_plan::{PlanConfig, Playbooks, WhatIf};
use nightshift_reason::{Effect, Input, WorkflowConfig};
use nightshift_store::{Commit, Cursor, Document, Role, Store};
use nightshift_topology::{Row, Topology, TopologyConfig, TopologyFile};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tenant::Tenant;
use tokio::sync::{mpsc, oneshot};

/// Consumer group, and the name its cursors go by in the store.
const GROUP: &str = "root-cause-analyzer";
/// Records of one turn at most.
const RECORDS_MAX: usize = 512;
/// How often time passes for the rooms.
const TICK_EVERY: Duration = Duration::from_secs(1);

/// Something that a person asks for. Whoever asks is told when it is durable, or why it is not.
#[derive(Debug)]
pub enum Command {
    /// Something with an incident.
    Person {
        /// Tenant.
        tenant: String,
        /// What, with which incident, in whose name.
        action: PersonAction,
        /// Role of their token.
        role: Role,
        /// The incident afterwards.
        reply: oneshot::Sender<Result<Incident, Refusal>>,
    },
    /// All execution is stopped, or allowed again.
    KillSwitch {
        /// Tenant whose journal names it; the switch itself is of the whole installation.
        tenant: String,
        /// Which way, by whom, why.
        switch: KillSwitch,
        /// The switch afterwards.
        reply: oneshot::Sender<Result<KillSwitch, Refusal>>,
    },
}

/// Why a person's action was not carried out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// No such incident.
    NotFound,
    /// It is not in a state for this.
    Conflict(String),
    /// The role of the token does not allow it.
    Forbidden(String),
}

/// What a topology begins with in every tenant: the settings and the declared part.
#[derive(Debug, Clone, Default)]
pub struct Declared {
    /// Settings of the graph.
    pub config: TopologyConfig,
    /// What the file declares.
    pub file: TopologyFile,
}

/// Told of a tenant's topology.
type TellTopology = dyn Fn(&str, &Topology) + Send + Sync;
/// Told how a tenant's guard stands.
type TellGuard = dyn Fn(&str, GuardReport) + Send + Sync;
/// Told of the readings of a tenant's incident.
type TellReadings = dyn Fn(&str, IncidentId, Vec<KpiReading>) + Send + Sync;

/// Who is told of what became durable. By default nobody.
#[derive(Clone)]
pub struct Listeners {
    /// A tenant's topology has changed.
    pub topology: Arc<TellTopology>,
    /// An anomaly began, got worse or ended.
    pub anomaly: Arc<dyn Fn(&Anomaly) + Send + Sync>,
    /// How the guard of a tenant stands, once a second.
    pub guard: Arc<TellGuard>,
    /// Readings of an incident that is being verified, as they come; none: it is over.
    pub readings: Arc<TellReadings>,
    /// A row of the journal became durable.
    pub told: Arc<dyn Fn(&Told) + Send + Sync>,
}

/// A row of the journal that became durable.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Told {
    /// What happened.
    pub event: JournalEvent,
    /// The incident as it stands now (it may be further on than `event`).
    pub incident: Incident,
}

impl Default for Listeners {
    fn default() -> Self {
        Self {
            topology: Arc::new(|_, _| {}),
            anomaly: Arc::new(|_| {}),
            guard: Arc::new(|_, _| {}),
            readings: Arc::new(|_, _, _| {}),
            told: Arc::new(|_| {}),
        }
    }
}

/// What the second half of the corridor is built from. Shared by all tenants.
#[derive(Clone)]
pub struct Response {
    /// Settings of the workflow.
    pub workflow: WorkflowConfig,
    /// Settings of planning.
    pub plan: PlanConfig,
    /// Settings of the guard.
    pub guard: GuardConfig,
    /// Policies, compiled.
    pub policies: Policies,
    /// Playbooks at hand.
    pub playbooks: Playbooks,
    /// Where other policies and playbooks come from while it runs; `None`: they stay as they are.
    pub shelf: Option<Arc<Shelf>>,
    /// How much the past counts.
    pub learn: LearnConfig,
    /// What past incidents taught before this installation began (written by the team).
    pub past: Arc<Vec<Outcome>>,
    /// Carries out orders.
    pub executor: Arc<Executor>,
    /// What each actuator of it promises.
    pub actuators: Arc<BTreeMap<String, Declares>>,
    /// An external policy engine.
    pub opa: Option<Arc<OpaClient>>,
    /// Tries plans on a fitted copy of the estate.
    pub what_if: Option<Arc<dyn WhatIf>>,
    /// What the detector of this process hands over beside the bus.
    pub feed: Arc<Feed>,
    /// The switch that stops everything.
    pub switch: Arc<SwitchBoard>,
    /// Name of this worker: new at every start.
    pub worker: String,
}

impl Response {
    /// What the empty configuration gives: nothing is changed, nobody acts, the playbooks and policies that ship.
    ///
    /// # Panics
    /// Never: what ships is tested.
    pub fn idle() -> Self {
        let timeout = Duration::from_millis(250);
        Self {
            workflow: WorkflowConfig::default(),
            plan: PlanConfig::default(),
            guard: GuardConfig::default(),
            policies: Policies::with_shipped(&[], &[], timeout).expect("the policies that ship compile"),
            playbooks: Playbooks::shipped(),
            shelf: None,
            learn: LearnConfig::default(),
            past: Arc::default(),
            executor: Arc::new(Executor::new(BTreeMap::new(), Arc::new(ManualClock::at(Timestamp::EPOCH)))),
            actuators: Arc::default(),
            opa: None,
            what_if: None,
            feed: Arc::default(),
            switch: Arc::default(),
            worker: "local".into(),
        }
    }
}

/// Everything an incident agent works with.
#[derive(Clone)]
pub struct IncidentParts {
    /// Where records come from.
    pub bus: Arc<dyn Bus>,
    /// Where everything durable goes.
    pub store: Arc<dyn Store>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Counters.
    pub counters: SelfMetrics,
    /// Settings of the engine.
    pub diagnose: DiagnoseConfig,
    /// What topologies begin with.
    pub declared: Declared,
    /// Who is told.
    pub listeners: Listeners,
    /// What people ask for.
    pub commands: Arc<Mutex<mpsc::Receiver<Command>>>,
    /// The second half.
    pub response: Response,
}

/// What an errand brought: of which tenant, and the input that it is.
type Brought = (String, Input);

/// What one step leads to: what must be durable, and what is done afterwards.
#[derive(Default)]
struct Step {
    commit: Commit,
    errands: Vec<Effect>,
    guard_changed: bool,
    /// Incidents that taught something.
    lessons: Vec<IncidentId>,
    /// Why a person's action was refused, and whether for their role.
    refused: Option<(String, bool)>,
}

impl Step {
    /// Adds a document; the newest of a key counts.
    fn put(&mut self, document: Document) {
        let same = |d: &&mut Document| d.collection == document.collection && d.key == document.key;
        match self.commit.documents.iter_mut().find(same) {
            Some(known) => *known = document,
            None => self.commit.documents.push(document),
        }
    }
}

/// Turns anomalies into incidents with ranked causes, and does something about them.
pub struct IncidentAgent {
    parts: IncidentParts,
    consumer: Box<dyn Consumer>,
    tenants: BTreeMap<String, Tenant>,
    hands: Hands<Brought>,
    brought: Vec<Brought>,
    ticked_at: Timestamp,
    /// Revision of the shelf that is in use.
    shelved: u64,
    /// The rooms were thrown away and could not all be built again yet.
    stale: bool,
}

const TOPICS: [&str; 3] =
    [topics::ANOMALIES_DETECTED.name, topics::CHANGES_OBSERVED.name, topics::TOPOLOGY_OBSERVED.name];

impl IncidentAgent {
    /// Joins the group and restores every tenant's rooms from the store.
    ///
    /// # Errors
    /// When bus or store refuse.
    pub async fn start(parts: IncidentParts) -> Result<Self, AgentError> {
        let consumer = parts.bus.consumer(GROUP, &TOPICS).await?;
        let ticked_at = parts.clock.now();
        let (tenants, hands, brought) = (BTreeMap::new(), Hands::new(), Vec::new());
        let mut agent = Self { parts, consumer, tenants, hands, brought, ticked_at, shelved: 0, stale: true };
        agent.start_over().await?;
        agent.stale = false;
        Ok(agent)
    }

    /// One round: what people ask, what errands brought, records of the bus, readings, time.
    ///
    /// # Errors
    /// When bus or store fail; every room is then built anew from the store, as after a crash.
    pub async fn turn(&mut self, max_wait: Duration) -> Result<Turn, AgentError> {
        if self.stale {
            self.recover().await?;
        }
        self.wait(max_wait).await;
        let polled = self.consumer.poll(RECORDS_MAX, Duration::ZERO).await?;
        let now = self.parts.clock.now();
        let records = polled.records.len();
        let result = self.work(polled.records, now).await;
        if result.is_err() {
            self.stale = true;
            self.recover().await?;
        }
        let progressed = result? || records > 0;
        Ok(Turn { records, progressed })
    }

    /// Builds the rooms anew. Until all of it has worked it is tried again at each turn.
    async fn recover(&mut self) -> Result<(), AgentError> {
        self.start_over().await?;
        // What was polled and not committed comes again only from a fresh position.
        self.consumer = self.parts.bus.consumer(GROUP, &TOPICS).await?;
        self.stale = false;
        Ok(())
    }

    /// What it has under way, one line.
    pub fn responding(&self) -> String {
        let (cases, errands) =
            (self.tenants.values().map(|t| t.workflow.cases().count()).sum::<usize>(), self.hands.len());
        let switched = if self.parts.response.switch.is_on() { "; the kill switch is on" } else { "" };
        format!("{cases} incidents in work, {errands} errands under way{switched}")
    }

    /// Until there is something to do, `max_wait` at most.
    async fn wait(&mut self, max_wait: Duration) {
        if !self.brought.is_empty() {
            return;
        }
        let feed = &self.parts.response.feed;
        tokio::select! {
            biased;
            brought = self.hands.next(), if !self.hands.is_empty() => self.brought.push(brought),
            () = feed.woken() => {}
            () = self.consumer.ready(max_wait) => {}
        }
        self.brought.extend(self.hands.done());
    }

    /// Gives whether anything was made durable beside records.
    async fn work(&mut self, records: Vec<Record>, now: Timestamp) -> Result<bool, AgentError> {
        self.look_at_the_switch(now).await?;
        self.look_at_the_shelf(now).await?;
        let mut progressed = false;
        loop {
            let asked = self.parts.commands.lock().try_recv();
            let Ok(command) = asked else { break };
            progressed = true;
            self.command(command, now).await?;
        }
        let mut by_tenant: BTreeMap<String, Vec<(Record, Envelope)>> = BTreeMap::new();
        let mut reached: BTreeMap<TopicPartition, u64> = BTreeMap::new();
        for record in records {
            let at = TopicPartition { topic: record.topic.to_string(), partition: record.partition };
            reached.insert(at, record.offset + 1);
            match Envelope::decode(record.bytes.clone()) {
                Ok(envelope) => by_tenant.entry(envelope.tenant.clone()).or_default().push((record, envelope)),
                Err(e) => {
                    let (bus, counters) = (&self.parts.bus, &self.parts.counters);
                    dead_letter(bus, counters, &record, e.reason(), &e.to_string(), now).await?;
                }
            }
        }
        for (tenant, records) in by_tenant {
            self.handle(&tenant, records, now).await?;
        }
        let positions: Vec<_> = reached.into_iter().collect();
        if !positions.is_empty() {
            self.consumer.commit(&positions).await?;
        }
        progressed |= self.answers(now).await?;
        if now.since(self.ticked_at) >= TICK_EVERY {
            self.ticked_at = now;
            self.tick(now).await?;
        }
        Ok(progressed)
    }

    /// What errands brought and the detector read, as inputs of the workflows.
    async fn answers(&mut self, now: Timestamp) -> Result<bool, AgentError> {
        let mut inputs: BTreeMap<String, Vec<Input>> = BTreeMap::new();
        for (tenant, input) in std::mem::take(&mut self.brought) {
            inputs.entry(tenant).or_default().push(input);
        }
        let readings = self.parts.response.feed.take_readings();
        for r in &readings {
            let Some(state) = self.tenants.get_mut(&r.tenant) else { continue };
            state.show(&r.kpi, r.at, r.value);
            for (incident, shown) in state.shown() {
                (self.parts.listeners.readings)(&r.tenant, incident, shown);
            }
        }
        for r in readings {
            inputs.entry(r.tenant).or_default().push(Input::Reading { kpi: r.kpi, at: r.at, value: r.value });
        }
        let progressed = !inputs.is_empty();
        for (tenant, inputs) in inputs {
            self.respond(&tenant, inputs, now).await?;
        }
        Ok(progressed)
    }

    async fn handle(
        &mut self,
        tenant: &str,
        records: Vec<(Record, Envelope)>,
        now: Timestamp,
    ) -> Result<(), AgentError> {
        self.ensure(tenant).await?;
        let Some(state) = self.tenants.get_mut(tenant) else {
            return Err(AgentError::State(format!("another worker holds the lease of tenant `{tenant}`")));
        };
        let (bus, counters) = (&self.parts.bus, &self.parts.counters);
        let mut step = Step::default();
        let mut moved: BTreeMap<(Arc<str>, u32), u64> = BTreeMap::new();
        let mut inputs = Vec::new();
        let revision = state.topology.revision();
        for (record, envelope) in records {
            let at = (record.topic.clone(), record.partition);
            if state.cursors.get(&at).is_some_and(|next| record.offset < *next) {
                continue;
            }
            moved.insert(at, record.offset + 1);
            let read = match envelope.schema.as_str() {
                "nightshift.v1.Anomaly" => envelope.read_json::<Anomaly>().map(|anomaly| {
                    step.commit.anomalies.push(anomaly.clone());
                    inputs.push(Symptom::from(anomaly));
                }),
                "nightshift.v1.Change" => envelope.read_json::<Change>().map(|change| {
                    state.keep_change(&change);
                    step.commit.changes.push(change.clone());
                    inputs.push(Symptom::from(change));
                }),
                "nightshift.v1.Observation" => envelope.read_json::<Observation>().map(|seen| {
                    step.commit.documents.extend(state.topology.apply(&seen, now).into_iter().map(document));
                }),
                other => {
                    let detail = format!("schema `{other}` is not read here");
                    dead_letter(bus, counters, &record, "unknown_schema", &detail, now).await?;
                    continue;
                }
            };
            if let Err(e) = read {
                dead_letter(bus, counters, &record, "malformed", &e.to_string(), now).await?;
            }
        }
        state.diagnose(inputs, &self.parts.response, &*self.parts.clock, &mut step);
        step.commit.cursors = moved
            .iter()
            .map(|((topic, partition), next)| Cursor {
                consumer: GROUP.into(),
                topic: topic.to_string(),
                partition: *partition,
                next_offset: *next,
            })
            .collect();
        if step.commit.cursors.is_empty() {
            return Ok(());
        }
        let seen = step.commit.anomalies.clone();
        self.settle(tenant, step, now).await?;
        let Some(state) = self.tenants.get_mut(tenant) else { return Ok(()) };
        state.cursors.extend(moved);
        seen.iter().for_each(|a| (self.parts.listeners.anomaly)(a));
        if state.topology.revision() != revision {
            (self.parts.listeners.topology)(tenant, &state.topology);
        }
        Ok(())
    }

    /// Inputs of one tenant's workflow, and what they lead to.
    async fn respond(&mut self, tenant: &str, inputs: Vec<Input>, now: Timestamp) -> Result<(), AgentError> {
        let Some(state) = self.tenants.get_mut(tenant) else { return Ok(()) };
        let mut step = Step::default();
        state.respond(inputs, &self.parts.response, &*self.parts.clock, &mut step);
        self.settle(tenant, step, now).await
    }

    /// Makes a step durable, then runs its errands.
    async fn settle(&mut self, tenant: &str, mut step: Step, now: Timestamp) -> Result<(), AgentError> {
        let Some(state) = self.tenants.get_mut(tenant) else { return Ok(()) };
        state.put_guard(&mut step, now);
        self.learn(tenant, &mut step, now).await?;
        let Some(state) = self.tenants.get_mut(tenant) else { return Ok(()) };
        let expected = state.lease.expected();
        // Renewed in quiet times too: a lease that ran out is a takeover, with everything built anew.
        let renewed = state.lease.renew(now);
        let ran_out = || AgentError::State(format!("the lease of tenant `{tenant}` ran out"));
        step.commit.documents.extend(renewed.map_err(|()| ran_out())?.map(|(_, put)| put));
        if !step.commit.is_empty() {
            let grew = !step.commit.journal.is_empty();
            step.commit.expects.push(expected);
            let rows = self.parts.store.commit(tenant, step.commit).await?;
            // Errands first: a reading that is waited for must be watched before anybody is told to make it.
            let postmortems = self.run(tenant, step.errands);
            self.tell(tenant, rows).await?;
            if grew {
                self.parts.response.feed.journal_grew();
            }
            return self.postmortems(tenant, postmortems).await;
        }
        let postmortems = self.run(tenant, step.errands);
        self.postmortems(tenant, postmortems).await
    }

    /// Writes them, after what led to them was told.
    async fn postmortems(&mut self, tenant: &str, incidents: Vec<IncidentId>) -> Result<(), AgentError> {
        for incident in incidents {
            self.postmortem(tenant, incident).await?;
        }
        Ok(())
    }

    /// What incidents of this step taught, into the same commit: from their rows in the store and those of the step.
    async fn learn(&mut self, tenant: &str, step: &mut Step, now: Timestamp) -> Result<(), AgentError> {
        for id in std::mem::take(&mut step.lessons) {
            let mut rows = self.parts.store.incident_journal(tenant, id).await?;
            let mut seq = rows.last().map_or(0, |r| r.seq);
            for draft in step.commit.journal.iter().filter(|d| d.incident == id) {
                seq += 1;
                rows.push(JournalEvent::from_draft(tenant, seq, draft.clone()));
            }
            let folded = rows.iter().fold(None, journal::apply);
            let Some(outcome) = folded.and_then(|inc| nightshift_knowledge::learn(&inc, &rows)) else { continue };
            step.put(Document {
                collection: OUTCOMES.into(),
                key: outcome.incident.clone(),
                body: Some(outcome.to_bytes()),
            });
            if let Some(state) = self.tenants.get_mut(tenant) {
                state.learn(Some(outcome), &self.parts.response.learn, now);
            }
        }
        Ok(())
    }

    /// Tells listeners of this process of rows that are durable. They need not wait for the bus.
    async fn tell(&mut self, tenant: &str, rows: Vec<JournalEvent>) -> Result<(), AgentError> {
        for event in rows.into_iter().filter(|row| !row.event.is_tenant_wide()) {
            let known = self.tenants.get(tenant).and_then(|t| t.engine.incident(event.incident)).cloned();
            let incident = match known {
                Some(incident) => Some(incident),
                None => self.parts.store.incident(tenant, event.incident).await?,
            };
            if let Some(incident) = incident {
                (self.parts.listeners.told)(&Told { event, incident });
            }
        }
        Ok(())
    }

    /// Begins errands whose rows are durable. Gives the incidents whose postmortem is to be written.
    fn run(&mut self, tenant: &str, errands: Vec<Effect>) -> Vec<IncidentId> {
        let response = &self.parts.response;
        let (mut watches, mut postmortems) = (false, Vec::new());
        for errand in errands {
            let name = tenant.to_owned();
            match errand {
                Effect::Look { incident, look, .. } => {
                    let executor = response.executor.clone();
                    self.hands.begin(async move {
                        let result = executor.look(&look.entity, look.action, &look.actuator).await;
                        (name, Input::Looked { incident, look, result })
                    });
                }
                Effect::Order(action) => {
                    let (executor, switch) = (response.executor.clone(), response.switch.clone());
                    self.hands.begin(async move {
                        // The last look before the world is touched.
                        switch.look();
                        let result = if action.operation.changes() && switch.is_on() {
                            Err(ActError::NotDone("the kill switch is on".into()))
                        } else {
                            executor.carry_out(&action).await
                        };
                        (name, Input::Ended { order: action, result })
                    });
                }
                Effect::AskPolicy { incident, plan, input, .. } => {
                    let opa = response.opa.clone();
                    self.hands.begin(async move {
                        let answer = match opa {
                            Some(opa) => opa.ask(&input).await,
                            None => ExternalAnswer::Failed { why: "no policy engine is configured".into() },
                        };
                        (name, Input::Policy { incident, plan, answer })
                    });
                }
                Effect::Watch { .. } | Effect::Unwatch(_) => watches = true,
                Effect::Postmortem { incident } => postmortems.push(incident),
                // Rows and documents were taken before the commit.
                Effect::Journal(_)
                | Effect::Checkpoint { .. }
                | Effect::GuardChanged
                | Effect::Refused { .. }
                | Effect::Learn { .. } => {}
            }
        }
        if watches && let Some(state) = self.tenants.get(tenant) {
            self.parts.response.feed.watch(tenant, state.workflow.watched());
        }
        postmortems
    }
}

fn document(row: Row) -> Document {
    Document { collection: row.collection, key: row.key, body: row.body }
}
