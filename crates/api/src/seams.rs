//! Where answers come from: traits that the binary wires to the rooms, and tests to something simple.

use crate::{ApiConfig, AuthConfig, StreamEvent};
use async_trait::async_trait;
use nightshift_health::{Health, HealthBoard};
use nightshift_model::{Clock, Incident, IncidentId, KillSwitch, KpiReading, PersonAction, Timestamp};
use nightshift_store::{Role, Store};
use serde::Serialize;
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::sync::{Semaphore, broadcast};

/// What people may do with an incident.
#[async_trait]
pub trait IncidentCommands: Send + Sync {
    /// Does it in the name of `action.actor`, which is journalled; `role` is what their token may. The incident as it
    /// is afterwards. Doing again what was done is no error where it changes nothing (acknowledging, pausing).
    async fn act(&self, action: PersonAction, role: Role) -> Result<Incident, CommandError>;
}

/// Why a command was not carried out.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// No such incident.
    #[error("no such incident")]
    NotFound,
    /// It is not in a state for this.
    #[error("{0}")]
    Conflict(String),
    /// The role is too small for this: the text says which one it takes.
    #[error("{0}")]
    Forbidden(String),
    /// Not now; the same may work later.
    #[error("{0}")]
    Unavailable(String),
}

/// The switch that stops all execution.
#[async_trait]
pub trait KillSwitchControl: Send + Sync {
    /// How it stands; `None`: it was never turned, so it is off.
    fn state(&self) -> Option<KillSwitch>;

    /// Turns it. When this returns it is durable, and nothing new is carried out while it is on.
    async fn turn(&self, to: KillSwitch) -> Result<(), CommandError>;
}

/// What the guard holds at the moment.
pub trait GuardView: Send + Sync {
    /// As it is at `now`.
    fn view(&self, now: Timestamp) -> GuardReport;
}

/// The answer of `/api/v1/guard`, but for the kill switch, which has a seam of its own.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct GuardReport {
    /// Nothing is carried out: prepare and dry-run only.
    pub dry_run: bool,
    /// Those that have counted a failure or are open, all execution (`all`) first.
    pub breakers: Vec<BreakerRow>,
    /// Targets that are left alone for now.
    pub cooldowns: Vec<CooldownRow>,
    /// What is left of the error budgets.
    pub budgets: Vec<BudgetRow>,
    /// Windows in which nothing is carried out, those that are open now.
    pub freezes: Vec<FreezeRow>,
}

/// A circuit breaker.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct BreakerRow {
    /// `all`, or an entity's id.
    pub target: String,
    /// `closed`, `open` or `half_open` (one trial is let through).
    pub state: String,
    /// Failures in a row.
    pub failures: u32,
    /// When a trial may be made; `None` unless open.
    pub open_until: Option<Timestamp>,
}

/// A target that is left alone.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CooldownRow {
    /// An entity's id.
    pub target: String,
    /// Until when.
    pub until: Timestamp,
}

/// An error budget.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct BudgetRow {
    /// Whose.
    pub entity: String,
    /// Of which objective.
    pub slo: String,
    /// Share that is left, at most 1; below 0: overspent. `None`: not known, which is not the same as full.
    pub left: Option<f64>,
}

/// A window in which nothing is carried out.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FreezeRow {
    /// As configured.
    pub name: String,
    /// When it ends; `None`: not known.
    pub until: Option<Timestamp>,
}

/// Postmortems.
#[async_trait]
pub trait Postmortems: Send + Sync {
    /// That of an incident; `None` while there is none to write.
    ///
    /// # Errors
    /// Why it could not be made, one line.
    async fn postmortem(&self, incident: &Incident) -> Result<Option<Postmortem>, String>;
}

/// A postmortem.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Postmortem {
    /// For people.
    pub markdown: String,
    /// The same for programs.
    pub facts: Value,
}

/// The decisions of an incident, made again from the record.
#[async_trait]
pub trait ReplayView: Send + Sync {
    /// Makes them again; with these policies (Rego) beside those that ship, instead of the user's own, when some are
    /// given. Changes nothing. The answer has `same` and `decisions`, each with `recorded`, `replayed` and `differs`.
    async fn replay(&self, incident: &Incident, policy: Option<&str>) -> Result<Value, ReplayError>;
}

/// Why there is no replay.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// The policy cannot be read.
    #[error("{0}")]
    BadPolicy(String),
    /// The record does not allow it.
    #[error("{0}")]
    Impossible(String),
    /// Not now; the same may work later.
    #[error("{0}")]
    Unavailable(String),
}

/// What was told to people, and what could not be.
#[async_trait]
pub trait DeliveriesView: Send + Sync {
    /// The newest first, at most `max`.
    ///
    /// # Errors
    /// Why they cannot be read, one line.
    async fn deliveries(&self, max: usize) -> Result<Vec<DeliveryRow>, String>;
}

/// One message to one notifier.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct DeliveryRow {
    /// Stable within the tenant.
    pub id: String,
    /// Name of the notifier, as configured.
    pub notifier: String,
    /// Whom it reaches; no secret.
    pub to: String,
    /// One line.
    pub subject: String,
    /// What it tells: `alert`, `cause`, `plan`, `resolved`, `postmortem` …
    pub letter: String,
    /// Of which incident; `None`: of none.
    pub incident: Option<IncidentId>,
    /// `PENDING`, `SENT` or `FAILED`.
    pub status: String,
    /// Tries so far.
    pub attempts: u32,
    /// When it was written.
    pub created_at: Timestamp,
    /// When it was last tried; `None`: not yet.
    pub tried_at: Option<Timestamp>,
    /// When it will be tried again; `None`: it will not.
    pub next_at: Option<Timestamp>,
    /// HTTP status that the other side answered last, when it did.
    pub answered: Option<u16>,
    /// Why the last try failed; empty when it did not. No secret is in it.
    pub error: String,
}

/// Playbooks and policies in use.
pub trait Catalogue: Send + Sync {
    /// Playbooks, by name.
    fn playbooks(&self) -> Vec<PlaybookRow>;

    /// Policies, by name.
    fn policies(&self) -> Vec<PolicyRow>;
}

/// A playbook.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PlaybookRow {
    /// Its name.
    pub name: String,
    /// One line for people.
    pub title: String,
    /// Fault classes that it heals, by slug.
    pub faults: Vec<String>,
    /// What its steps do, in order.
    pub actions: Vec<String>,
    /// The highest of its steps.
    pub risk: String,
    /// How soon.
    pub priority: String,
    /// Team that answers for it.
    pub owner: String,
    /// First 12 digits of the SHA-256 of its text.
    pub digest: String,
    /// The file it is from.
    pub source: String,
    /// Whether it came with the program.
    pub shipped: bool,
}

/// A policy.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PolicyRow {
    /// Its Rego package, as verdicts name it.
    pub name: String,
    /// What it may say: `deny`, `ask`, `monitor`.
    pub rules: Vec<String>,
    /// Whether it came with the program.
    pub shipped: bool,
}

/// What is read after a plan was carried out, before the verdict on it is journalled.
pub trait LiveReadings: Send + Sync {
    /// Of this incident, oldest first; empty when nothing is being verified.
    fn readings(&self, incident: IncidentId) -> Vec<KpiReading>;
}

/// Everything behind the answers about plans, verdicts and what was done.
#[derive(Clone)]
pub struct Automation {
    /// The switch that stops all execution.
    pub kill_switch: Arc<dyn KillSwitchControl>,
    /// What the guard holds.
    pub guard: Arc<dyn GuardView>,
    /// Postmortems.
    pub postmortems: Arc<dyn Postmortems>,
    /// Decisions made again.
    pub replay: Arc<dyn ReplayView>,
    /// What was told.
    pub deliveries: Arc<dyn DeliveriesView>,
    /// Playbooks and policies.
    pub catalogue: Arc<dyn Catalogue>,
    /// Readings as they come.
    pub readings: Arc<dyn LiveReadings>,
}

/// Feeds made-up readings through the whole loop.
#[async_trait]
pub trait Injector: Send + Sync {
    /// The modes that there are.
    fn modes(&self) -> Vec<&'static str>;

    /// Injects and tells what the loop made of it.
    async fn inject(&self, mode: &str, source: &str, signal: &str) -> Result<Value, InjectError>;
}

/// Why an injection did not happen.
#[derive(Debug, thiserror::Error)]
pub enum InjectError {
    /// Bad words in the request.
    #[error("{0}")]
    Bad(String),
    /// The bus or the loop did not take it.
    #[error("{0}")]
    Failed(String),
}

/// What the process says of itself.
pub trait StatusProvider: Send + Sync {
    /// As it is now.
    fn status(&self) -> StatusReport;
}

/// The answer of `/api/v1/status`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct StatusReport {
    /// Of this program.
    pub version: String,
    /// When this process started.
    pub started_at: Timestamp,
    /// What it does: `collect`, `detect` …
    pub roles: Vec<String>,
    /// Bound addresses by the section of their `listen` key: `api`, `otlp_grpc` …
    pub listeners: BTreeMap<String, String>,
    /// Kind of bus.
    pub bus: String,
    /// Kind of store.
    pub store: String,
    /// Series with live detector state.
    pub series_live: u64,
    /// Records that each consumer group has yet to read.
    pub lag: BTreeMap<String, u64>,
    /// What is odd about the configuration.
    pub config_warnings: Vec<String>,
}

/// The graph of what depends on what.
pub trait TopologyView: Send + Sync {
    /// At most `entities_max` entities and the edges between them.
    fn view(&self, entities_max: usize) -> Value;

    /// One entity, by id or name, with what is within `hops`; `None` when there is none.
    fn view_of(&self, entity: &str, hops: u32) -> Option<Value>;
}

/// The sources.
pub trait CollectorsView: Send + Sync {
    /// All that are configured, by name.
    fn collectors(&self) -> Vec<CollectorRow>;
}

/// One source.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CollectorRow {
    /// As configured.
    pub name: String,
    /// Its type.
    pub kind: String,
    /// How it does.
    pub status: Health,
    /// What it last did.
    pub detail: String,
    /// Samples, log lines, spans and events it brought since the start.
    pub items: u64,
    /// When it last reported; `None`: never.
    pub last: Option<Timestamp>,
}

/// Everything that answers come from.
pub struct ApiParts {
    /// Whose incidents are shown.
    pub tenant: String,
    /// Limits and names.
    pub config: ApiConfig,
    /// The `[auth]` section or, without one, its defaults.
    pub auth: AuthConfig,
    /// Incidents, anomalies, changes, tokens.
    pub store: Arc<dyn Store>,
    /// Health of the components.
    pub health: HealthBoard,
    /// Our own metrics.
    pub registry: Arc<prometheus_client::registry::Registry>,
    /// What people do.
    pub commands: Arc<dyn IncidentCommands>,
    /// Plans, verdicts and what was done.
    pub automation: Automation,
    /// Test injection.
    pub injector: Arc<dyn Injector>,
    /// What the process says of itself.
    pub status: Arc<dyn StatusProvider>,
    /// The graph.
    pub topology: Arc<dyn TopologyView>,
    /// The sources.
    pub collectors: Arc<dyn CollectorsView>,
    /// What the event stream tells. Its capacity is how far a listener may fall behind.
    pub events: broadcast::Sender<StreamEvent>,
    /// The time.
    pub clock: Arc<dyn Clock>,
}

/// The parts, shared by all requests. Cheap to clone.
#[derive(Clone)]
pub struct ApiState(Arc<Shared>);

pub(crate) struct Shared {
    pub(crate) parts: ApiParts,
    pub(crate) tokens: crate::auth::Tokens,
    pub(crate) stream_places: Arc<Semaphore>,
    pub(crate) pages: crate::page::Pages,
}

impl ApiState {
    /// Takes the parts.
    pub fn new(parts: ApiParts) -> Self {
        let places = parts.config.stream_clients_max.clamp(1, Semaphore::MAX_PERMITS);
        Self(Arc::new(Shared {
            tokens: crate::auth::Tokens::default(),
            stream_places: Arc::new(Semaphore::new(places)),
            pages: crate::page::Pages::new(),
            parts,
        }))
    }

    pub(crate) fn shared(&self) -> &Shared {
        &self.0
    }
}

impl std::ops::Deref for ApiState {
    type Target = ApiParts;

    fn deref(&self) -> &ApiParts {
        &self.0.parts
    }
}
