//! What the API asks, answered by the service.

mod automation;
mod replays;

pub(crate) use automation::{Boards, CatalogueBoard, automation, playbook_rows, policy_rows};
pub(crate) use replays::Replays;

use crate::agents::{Command, Refusal};
use crate::inject::{InjectError as Failed, Mode, TestInjector};
use crate::switch::SwitchBoard;
use async_trait::async_trait;
use nightshift_api::{
    CollectorRow, CollectorsView, CommandError, IncidentCommands, InjectError, Injector, KillSwitchControl,
    StatusProvider, StatusReport, TopologyView,
};
use nightshift_collect::scrape::{ScrapeConfig, TargetGroup};
use nightshift_collect::supervise::{BoundAddresses, SourceConfig, SourceTable};
use nightshift_health::{Health, HealthBoard, SelfMetrics};
use nightshift_model::{Clock, Incident, KillSwitch, PersonAction, Timestamp};
use nightshift_store::Role;
use nightshift_topology::Topology;
use parking_lot::RwLock;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};

/// Longest that a person waits for the analyzer.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// The source that watches ourselves.
pub(crate) fn own_metrics(address: &str) -> SourceConfig {
    let labels = [("service".to_owned(), "nightshift".to_owned())].into();
    SourceConfig::PrometheusScrape(ScrapeConfig {
        static_targets: vec![TargetGroup { targets: vec![address.to_owned()], labels }],
        ..ScrapeConfig::default()
    })
}

/// People's actions, handed to the analyzer.
#[derive(Clone)]
pub(crate) struct Commands {
    /// Whose incidents.
    pub tenant: String,
    /// To the analyzer.
    pub queue: mpsc::Sender<Command>,
}

impl Commands {
    /// Hands it to the analyzer, and waits for the answer.
    async fn ask<T>(
        &self,
        command: impl FnOnce(String, oneshot::Sender<Result<T, Refusal>>) -> Command,
    ) -> Result<T, CommandError> {
        let (reply, answer) = oneshot::channel();
        let unavailable = |what: &str| CommandError::Unavailable(format!("the analyzer {what}"));
        let command = command(self.tenant.clone(), reply);
        self.queue.try_send(command).map_err(|_| unavailable("is busy or not running here"))?;
        match tokio::time::timeout(ANSWER_WITHIN, answer).await {
            Ok(Ok(Ok(done))) => Ok(done),
            Ok(Ok(Err(Refusal::NotFound))) => Err(CommandError::NotFound),
            Ok(Ok(Err(Refusal::Conflict(why)))) => Err(CommandError::Conflict(why)),
            Ok(Ok(Err(Refusal::Forbidden(why)))) => Err(CommandError::Forbidden(why)),
            Ok(Err(_)) => Err(unavailable("did not take it")),
            Err(_) => Err(unavailable("did not answer in time; look whether it was done")),
        }
    }
}

#[async_trait]
impl IncidentCommands for Commands {
    async fn act(&self, action: PersonAction, role: Role) -> Result<Incident, CommandError> {
        self.ask(|tenant, reply| Command::Person { tenant, action, role, reply }).await
    }
}

/// The kill switch: its file, and the analyzer, which journals who turned it.
pub(crate) struct Switch {
    /// How it stands.
    pub board: Arc<SwitchBoard>,
    /// To the analyzer.
    pub commands: Commands,
    /// Data folder.
    pub data: PathBuf,
}

#[async_trait]
impl KillSwitchControl for Switch {
    fn state(&self) -> Option<KillSwitch> {
        // The file is what counts, also while nobody takes note of it.
        crate::switch::read_folder(&self.data).or_else(|| self.board.state())
    }

    async fn turn(&self, to: KillSwitch) -> Result<(), CommandError> {
        let switch = to.clone();
        let asked = self.commands.ask(|tenant, reply| Command::KillSwitch { tenant, switch, reply }).await;
        match asked {
            // Stopping must not depend on an analyzer that does not answer: the file does it, and whoever acts looks
            // at it before it acts. It is journalled when the analyzer is back.
            Err(CommandError::Unavailable(why)) if to.on => {
                tracing::warn!(why, "the kill switch is turned on by its file");
                crate::switch::write_folder(&self.data, &to)
                    .map_err(|e| CommandError::Unavailable(format!("{why}; and its file cannot be written: {e:#}")))
            }
            other => other.map(drop),
        }
    }
}

/// Test injection.
pub(crate) struct Injecting(pub TestInjector);

#[async_trait]
impl Injector for Injecting {
    fn modes(&self) -> Vec<&'static str> {
        Mode::ALL.iter().map(|(name, _)| *name).collect()
    }

    async fn inject(&self, mode: &str, source: &str, signal: &str) -> Result<Value, InjectError> {
        let Some(mode) = Mode::parse(mode) else {
            return Err(InjectError::Bad(format!("no mode `{mode}`; there are {}", self.modes().join(", "))));
        };
        self.0.inject(mode, source, signal).await.map_err(|e| match e {
            Failed::Bad(why) => InjectError::Bad(why),
            Failed::Bus(e) => InjectError::Failed(format!("publish the injected readings: {e}")),
        })
    }
}

/// What the process says of itself.
pub(crate) struct StatusBoard {
    /// When it started.
    pub started_at: Timestamp,
    /// What it does.
    pub roles: Vec<String>,
    /// Bound addresses by name.
    pub listeners: BTreeMap<String, String>,
    /// Addresses of sources that listen, which bind when they start.
    pub bound: BoundAddresses,
    /// Kind of bus.
    pub bus: String,
    /// Kind of store.
    pub store: String,
    /// Live figures.
    pub counters: SelfMetrics,
    /// What is odd about the configuration.
    pub warnings: Vec<String>,
    /// Lag by group, refreshed by upkeep.
    pub lag: Arc<RwLock<BTreeMap<String, u64>>>,
}

impl StatusProvider for StatusBoard {
    fn status(&self) -> StatusReport {
        let mut listeners = self.listeners.clone();
        // `syslog.udp_listen` is shown as `syslog_udp`, in the way of the others.
        let named = |key: &str| key.trim_end_matches("_listen").replace('.', "_");
        listeners.extend(self.bound.all().into_iter().map(|(key, at)| (named(&key), at.to_string())));
        StatusReport {
            version: env!("CARGO_PKG_VERSION").into(),
            started_at: self.started_at,
            roles: self.roles.clone(),
            listeners,
            bus: self.bus.clone(),
            store: self.store.clone(),
            series_live: u64::try_from(self.counters.series_live.get()).unwrap_or(0),
            lag: self.lag.read().clone(),
            config_warnings: self.warnings.clone(),
        }
    }
}

/// The newest topology of the shown tenant.
pub(crate) struct TopologyBoard {
    graph: RwLock<Arc<Topology>>,
    clock: Arc<dyn Clock>,
}

impl TopologyBoard {
    /// An empty one.
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Self {
        Self { graph: RwLock::default(), clock }
    }

    /// Replaces it.
    pub(crate) fn set(&self, topology: Topology) {
        *self.graph.write() = Arc::new(topology);
    }

    fn graph(&self) -> Arc<Topology> {
        self.graph.read().clone()
    }
}

impl TopologyView for TopologyBoard {
    fn view(&self, entities_max: usize) -> Value {
        self.graph().view(entities_max, self.clock.now())
    }

    fn view_of(&self, entity: &str, hops: u32) -> Option<Value> {
        self.graph().view_of(entity, hops)
    }
}

/// The sources, with their health and what they brought.
pub(crate) struct Collectors {
    /// Those that are supervised.
    pub table: SourceTable,
    /// Health, receivers' too.
    pub board: HealthBoard,
    /// What each brought.
    pub counters: SelfMetrics,
}

impl CollectorsView for Collectors {
    fn collectors(&self) -> Vec<CollectorRow> {
        let kinds: BTreeMap<String, String> =
            self.table.rows().into_iter().map(|r| (r.name, r.kind.to_owned())).collect();
        self.board
            .components()
            .into_iter()
            .filter_map(|c| {
                let name = c.name.strip_suffix("-collector")?.to_owned();
                let kind = kinds.get(&name).cloned().unwrap_or_else(|| name.clone());
                let started = !(c.status == Health::Degraded && c.detail == "starting");
                Some(CollectorRow {
                    items: self.counters.items_of(&name),
                    name,
                    kind,
                    status: c.status,
                    detail: c.detail,
                    last: started.then_some(c.last_report),
                })
            })
            .collect()
    }
}
