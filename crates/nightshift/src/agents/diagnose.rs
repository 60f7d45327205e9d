//! The root-cause analyzer at work: anomalies, changes and topology in; journal rows out.
//!
//! One store commit per turn holds the journal, the rows and the position they came from, so a crash between any two
//! lines repeats nothing. When a commit fails the engine is ahead of the store: it is thrown away and built again
//! from the store, as after a crash.

use super::{AgentError, Turn, dead_letter};
use nightshift_bus::{Bus, Consumer, Record, TopicPartition};
use nightshift_diagnose::{DiagnoseConfig, Effect, Engine, Input, Memory, PersonAction};
use nightshift_health::SelfMetrics;
use nightshift_model::{Anomaly, Change, Clock, Envelope, Incident, IncidentStatus, Observation, Timestamp, topics};
use nightshift_store::{AnomalyFilter, Commit, Cursor, Document, IncidentFilter, Store};
use nightshift_topology::{Row, Topology, TopologyConfig, TopologyFile};
use parking_lot::Mutex;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};

/// Consumer group, and the name its cursors go by in the store.
const GROUP: &str = "root-cause-analyzer";
/// Most rows of each kind that a restored engine is handed.
const ROWS_MAX: usize = 20_000;
/// How often time passes for the engines.
const TICK_EVERY: Duration = Duration::from_secs(1);

/// Something that a person asks for.
#[derive(Debug)]
pub struct Command {
    /// Tenant.
    pub tenant: String,
    /// What, with which incident, in whose name.
    pub action: PersonAction,
    /// Told when it is durable, or why it is not.
    pub reply: oneshot::Sender<Result<Incident, Refusal>>,
}

/// Why a person's action was not carried out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// No such incident.
    NotFound,
    /// It is not in a state for this.
    Conflict(String),
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

/// Who is told of what became durable. By default nobody.
#[derive(Clone)]
pub struct Listeners {
    /// A tenant's topology has changed.
    pub topology: Arc<TellTopology>,
    /// An anomaly began, got worse or ended.
    pub anomaly: Arc<dyn Fn(&Anomaly) + Send + Sync>,
}

impl Default for Listeners {
    fn default() -> Self {
        Self { topology: Arc::new(|_, _| {}), anomaly: Arc::new(|_| {}) }
    }
}

/// One tenant's state.
struct Tenant {
    engine: Engine,
    topology: Topology,
    /// Offset of the next record of each partition, as durable in the store with what it led to.
    cursors: HashMap<(Arc<str>, u32), u64>,
}

/// Turns anomalies into incidents with ranked causes.
pub struct DiagnoseAgent {
    bus: Arc<dyn Bus>,
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    counters: SelfMetrics,
    config: DiagnoseConfig,
    declared: Declared,
    listeners: Listeners,
    commands: Arc<Mutex<mpsc::Receiver<Command>>>,
    consumer: Box<dyn Consumer>,
    tenants: BTreeMap<String, Tenant>,
    ticked_at: Timestamp,
}

impl DiagnoseAgent {
    /// Joins the group and restores every tenant's engine from the store.
    ///
    /// # Errors
    /// When bus or store refuse.
    #[expect(clippy::too_many_arguments, reason = "wiring: each is one room or end")]
    pub async fn start(
        bus: Arc<dyn Bus>,
        store: Arc<dyn Store>,
        clock: Arc<dyn Clock>,
        counters: SelfMetrics,
        config: DiagnoseConfig,
        declared: Declared,
        listeners: Listeners,
        commands: Arc<Mutex<mpsc::Receiver<Command>>>,
    ) -> Result<Self, AgentError> {
        let topics = [topics::ANOMALIES_DETECTED, topics::CHANGES_OBSERVED, topics::TOPOLOGY_OBSERVED].map(|t| t.name);
        let consumer = bus.consumer(GROUP, &topics).await?;
        let ticked_at = clock.now();
        let tenants = BTreeMap::new();
        let mut agent =
            Self { bus, store, clock, counters, config, declared, listeners, commands, consumer, tenants, ticked_at };
        agent.start_over().await?;
        Ok(agent)
    }

    /// One round: commands of people, poll, step, commit.
    ///
    /// # Errors
    /// When bus or store fail; every engine is then built anew from the store, as after a crash.
    pub async fn turn(&mut self, max_wait: Duration) -> Result<Turn, AgentError> {
        let polled = self.consumer.poll(512, max_wait).await?;
        let now = self.clock.now();
        let records = polled.records.len();
        let result = self.work(polled.records, now).await;
        if result.is_err() {
            // What was polled and not committed comes again only from a fresh position.
            let topics = [topics::ANOMALIES_DETECTED, topics::CHANGES_OBSERVED, topics::TOPOLOGY_OBSERVED];
            self.start_over().await?;
            self.consumer = self.bus.consumer(GROUP, &topics.map(|t| t.name)).await?;
        }
        result?;
        Ok(Turn { records, progressed: records > 0 })
    }

    async fn work(&mut self, records: Vec<Record>, now: Timestamp) -> Result<(), AgentError> {
        let mut by_tenant: BTreeMap<String, Vec<(Record, Envelope)>> = BTreeMap::new();
        let mut reached: BTreeMap<TopicPartition, u64> = BTreeMap::new();
        for record in records {
            let at = TopicPartition { topic: record.topic.to_string(), partition: record.partition };
            reached.insert(at, record.offset + 1);
            match Envelope::decode(record.bytes.clone()) {
                Ok(envelope) => by_tenant.entry(envelope.tenant.clone()).or_default().push((record, envelope)),
                Err(e) => {
                    dead_letter(&self.bus, &self.counters, &record, e.reason(), &e.to_string(), now).await?;
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
        loop {
            let asked = self.commands.lock().try_recv();
            let Ok(command) = asked else { break };
            self.command(command, now).await?;
        }
        if now.since(self.ticked_at) >= TICK_EVERY {
            self.ticked_at = now;
            self.tick(now).await?;
        }
        Ok(())
    }

    async fn handle(
        &mut self,
        tenant: &str,
        records: Vec<(Record, Envelope)>,
        now: Timestamp,
    ) -> Result<(), AgentError> {
        self.ensure(tenant).await?;
        let Some(state) = self.tenants.get_mut(tenant) else { return Ok(()) };
        let mut commit = Commit::default();
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
                    commit.anomalies.push(anomaly.clone());
                    inputs.push(Input::from(anomaly));
                }),
                "nightshift.v1.Change" => envelope.read_json::<Change>().map(|change| {
                    commit.changes.push(change.clone());
                    inputs.push(Input::from(change));
                }),
                "nightshift.v1.Observation" => envelope.read_json::<Observation>().map(|seen| {
                    commit.documents.extend(state.topology.apply(&seen, now).into_iter().map(document));
                }),
                other => {
                    let detail = format!("schema `{other}` is not read here");
                    dead_letter(&self.bus, &self.counters, &record, "unknown_schema", &detail, now).await?;
                    continue;
                }
            };
            if let Err(e) = read {
                dead_letter(&self.bus, &self.counters, &record, "malformed", &e.to_string(), now).await?;
            }
        }
        state.step(inputs, now, &mut commit);
        commit.cursors = moved
            .iter()
            .map(|((topic, partition), next)| Cursor {
                consumer: GROUP.into(),
                topic: topic.to_string(),
                partition: *partition,
                next_offset: *next,
            })
            .collect();
        if commit.cursors.is_empty() {
            return Ok(());
        }
        let seen = commit.anomalies.clone();
        self.store.commit(tenant, commit).await?;
        state.cursors.extend(moved);
        seen.iter().for_each(|a| (self.listeners.anomaly)(a));
        if state.topology.revision() != revision {
            (self.listeners.topology)(tenant, &state.topology);
        }
        Ok(())
    }

    async fn command(&mut self, command: Command, now: Timestamp) -> Result<(), AgentError> {
        let Command { tenant, action, reply } = command;
        self.ensure(&tenant).await?;
        let Some(state) = self.tenants.get_mut(&tenant) else { return Ok(()) };
        let incident = action.incident;
        let mut commit = Commit::default();
        let refused = state.step([Input::Person(action)], now, &mut commit);
        if !commit.journal.is_empty() {
            self.store.commit(&tenant, commit).await?;
        }
        let answer = match (self.store.incident(&tenant, incident).await?, refused) {
            (None, _) => Err(Refusal::NotFound),
            (Some(_), Some(why)) => Err(Refusal::Conflict(why)),
            (Some(incident), None) => Ok(incident),
        };
        // The asker may have hung up; what they asked for is journalled all the same.
        drop(reply.send(answer));
        Ok(())
    }

    async fn tick(&mut self, now: Timestamp) -> Result<(), AgentError> {
        for (name, state) in &mut self.tenants {
            let mut commit = Commit::default();
            let revision = state.topology.revision();
            commit.documents.extend(state.topology.expire(now).into_iter().map(document));
            state.step([Input::Tick], now, &mut commit);
            if !commit.journal.is_empty() || !commit.documents.is_empty() {
                self.store.commit(name, commit).await?;
            }
            if state.topology.revision() != revision {
                (self.listeners.topology)(name, &state.topology);
            }
        }
        Ok(())
    }

    /// Builds every tenant's engine anew from the store.
    async fn start_over(&mut self) -> Result<(), AgentError> {
        self.tenants.clear();
        for tenant in self.store.tenants().await? {
            self.ensure(&tenant).await?;
        }
        self.ensure(nightshift_model::DEFAULT_TENANT).await
    }

    async fn ensure(&mut self, tenant: &str) -> Result<(), AgentError> {
        if self.tenants.contains_key(tenant) {
            return Ok(());
        }
        let now = self.clock.now();
        let memory = remembered(&*self.store, &self.config, tenant, now).await?;
        let engine = Engine::restore(self.config.clone(), tenant, memory);
        let mut rows = Vec::new();
        for collection in [nightshift_topology::ENTITY, nightshift_topology::EDGE, nightshift_topology::ALIAS] {
            rows.extend(self.store.documents(tenant, collection).await?.into_iter().map(row));
        }
        let (mut topology, wrong) = Topology::from_rows(self.declared.config.clone(), rows);
        for what in wrong {
            tracing::warn!(tenant, what, "row of the topology left out");
        }
        topology.declare(&self.declared.file);
        let mut cursors = HashMap::new();
        for c in self.store.cursors(tenant, GROUP).await? {
            cursors.insert((Arc::from(c.topic), c.partition), c.next_offset);
        }
        (self.listeners.topology)(tenant, &topology);
        self.tenants.insert(tenant.into(), Tenant { engine, topology, cursors });
        Ok(())
    }
}

/// What the store knows of a tenant, for its engine. Open incidents are handed over however old they are.
async fn remembered(
    store: &dyn Store,
    config: &DiagnoseConfig,
    tenant: &str,
    now: Timestamp,
) -> Result<Memory, AgentError> {
    let all = IncidentFilter { synthetic: true, limit: ROWS_MAX, ..Default::default() };
    let open =
        IncidentFilter { status: IncidentStatus::ALL.into_iter().filter(|s| s.is_open()).collect(), ..all.clone() };
    let recent = IncidentFilter { since: Some(now - config.incidents_lookback()), ..all };
    let mut incidents: BTreeMap<u64, Incident> = BTreeMap::new();
    for filter in [open, recent] {
        incidents.extend(store.incidents(tenant, &filter).await?.into_iter().map(|i| (i.number, i)));
    }
    let since = now - config.anomalies_lookback();
    let seen = AnomalyFilter { since: Some(since), limit: ROWS_MAX, ..Default::default() };
    let mut anomalies = store.anomalies(tenant, &seen).await?;
    anomalies.reverse();
    let mut changes = store.changes(tenant, now - config.changes_lookback(), ROWS_MAX).await?;
    changes.reverse();
    Ok(Memory {
        incidents: incidents.into_values().collect(),
        changes,
        anomalies,
        last_number: store.last_incident_number(tenant).await?,
    })
}

impl Tenant {
    /// Steps the engine; rows go into `commit`. Gives why a person's action was refused, if one was.
    fn step(&mut self, inputs: impl IntoIterator<Item = Input>, now: Timestamp, commit: &mut Commit) -> Option<String> {
        let mut refused = None;
        for effect in self.engine.step_all(inputs, &self.topology, now) {
            match effect {
                Effect::Journal(draft) => commit.journal.push(draft),
                Effect::Refused { why, .. } => refused = Some(why),
            }
        }
        refused
    }
}

fn document(row: Row) -> Document {
    Document { collection: row.collection, key: row.key, body: row.body }
}

fn row(document: Document) -> Row {
    Row { collection: document.collection, key: document.key, body: document.body }
}
