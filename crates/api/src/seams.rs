//! Where answers come from: traits that the binary wires to the rooms, and tests to something simple.

use crate::{ApiConfig, AuthConfig, StreamEvent};
use async_trait::async_trait;
use nightshift_health::{Health, HealthBoard};
use nightshift_model::{Clock, Incident, IncidentId, Timestamp};
use nightshift_store::Store;
use serde::Serialize;
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::sync::{Semaphore, broadcast};

/// What people may do with an incident. `actor` is the name of their token and is journalled.
#[async_trait]
pub trait IncidentCommands: Send + Sync {
    /// Somebody looks at it. Acknowledging again is no error.
    async fn acknowledge(&self, id: IncidentId, actor: &str, note: &str) -> Result<Incident, CommandError>;

    /// It is over, says somebody.
    async fn resolve(&self, id: IncidentId, actor: &str, note: &str) -> Result<Incident, CommandError>;
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
    /// Not now; the same may work later.
    #[error("{0}")]
    Unavailable(String),
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
    /// Acknowledge and resolve.
    pub commands: Arc<dyn IncidentCommands>,
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
