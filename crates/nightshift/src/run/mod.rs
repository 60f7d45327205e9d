//! `run`: the service. Opens what the settings name, puts the rooms to work, and ends in order.

mod agents;
mod ends;
mod extras;
mod reload;
mod respond;
mod upkeep;

pub(crate) use extras::Extras;

use crate::agents::{Command, Declared, DetectRooms, Feed, Library, Listeners, Shelf, Told};
use crate::api::{Boards, Collectors, Commands, Injecting, StatusBoard, TopologyBoard};
use crate::cli::{Role, RunArgs};
use crate::clock::SystemClock;
use crate::exit::{CommandResult, Failure, bad_input};
use crate::inject::TestInjector;
use crate::settings::{Settings, print_problems};
use crate::switch::SwitchBoard;
use crate::wiring;
use anyhow::{Context as _, Result};
use ends::{bind, chain, hostname, local_token, ports_are_free, until_told_to_end};
use nightshift_api::{ApiParts, ApiState, Exposure, StreamEvent};
use nightshift_bus::{Bus, SnapshotStore, snapshot::FileSnapshots};
use nightshift_collect::alertmanager;
use nightshift_collect::events::{self, DoorState};
use nightshift_collect::http::{Gate, serve};
use nightshift_collect::ingest::{Ingest, IngestParts};
use nightshift_collect::otlp::OtlpSource;
use nightshift_collect::remote_write::{self, RemoteWriteState};
use nightshift_collect::resolve::Resolver;
use nightshift_collect::supervise::{BoundAddresses, Shared, SourceConfig, Supervisor, Surroundings, default_sources};
use nightshift_config::{Level, Loaded, Problems};
use nightshift_health::{HealthBoard, SelfMetrics};
use nightshift_model::{Anomaly, Clock, Timestamp};
use nightshift_store::Store;
use nightshift_topology::{Topology, TopologyFile};
use parking_lot::RwLock;
use prometheus_client::registry::Registry;
use reload::Reload;
use respond::people_of;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::{broadcast, mpsc};
use tokio_util::sync::CancellationToken;

/// Longest that a turn waits for records: how soon an agent sees that it must end.
const TURN_WAIT: Duration = Duration::from_millis(200);
/// Longest pause after turns that failed.
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// How often the relay looks into the journal.
const RELAY_EVERY: Duration = Duration::from_millis(50);
/// How often the keeper of models looks what is to be done.
const MODELS_EVERY: Duration = Duration::from_secs(1);
/// How often figures that cost a look at the bus are taken.
const LAG_EVERY: Duration = Duration::from_secs(5);
/// How long sources have to end.
const SOURCES_END: Duration = Duration::from_secs(10);
/// Events that a listener may fall behind.
const EVENTS_KEPT: usize = 1024;
/// File in the data folder that says where the running service listens.
pub(crate) const SERVER_FILE: &str = "server.json";

/// `nightshift run`.
///
/// # Errors
/// When the settings are bad (exit 2), or something cannot be opened or bound (exit 1).
pub(crate) async fn run(args: &RunArgs) -> CommandResult {
    let Loaded { config: settings, mut problems } = Settings::read(args.data.config.as_deref(), Level::Warning)?;
    let roles: BTreeSet<Role> =
        if args.roles.is_empty() { Role::ALL.into_iter().collect() } else { args.roles.iter().copied().collect() };
    let base = Settings::base(args.data.config.as_deref());
    let topology = wiring::load_topology(&settings, &base, &mut problems);
    let rules = crate::check::rules(&settings, &base, &mut problems);
    crate::check::semantics(&settings, &roles, &mut problems);
    let library = crate::library::read(&settings, &base, &mut problems);
    if !problems.is_empty() {
        print_problems(&problems);
    }
    if problems.has_errors() {
        return Err(Failure::Reported);
    }
    let data = crate::paths::data_dir(args.data.data.as_deref())?;
    std::fs::create_dir_all(&data).with_context(|| format!("make the data folder {}", data.display()))?;
    let mut rooms = DetectRooms::new(
        settings.detect.metrics.clone(),
        settings.detect.logs.clone(),
        (settings.detect.rule_limits.clone(), rules),
        settings.topology.spans.clone(),
    )
    .map_err(|e| bad_input(format!("detect.logs: {e}")))?;
    rooms.export_features = settings.detect.export_features;
    let service = Service::open(settings, roles, &data, &problems, Extras::default()).await?;
    service.run(rooms, Written { topology, library, base }, &data).await?;
    Ok(())
}

/// What people wrote beside the configuration, read and compiled.
pub(crate) struct Written {
    /// What the topology file declares.
    pub(crate) topology: TopologyFile,
    /// Playbooks and policies in use.
    pub(crate) library: Library,
    /// The folder that relative paths are taken from.
    pub(crate) base: PathBuf,
}

/// What every part works with.
pub(crate) struct Service {
    settings: Settings,
    roles: BTreeSet<Role>,
    clock: Arc<dyn Clock>,
    started_at: Timestamp,
    board: HealthBoard,
    counters: SelfMetrics,
    registry: Arc<Registry>,
    bus: Arc<dyn Bus>,
    store: Arc<dyn Store>,
    warnings: Vec<String>,
    extras: Extras,
    /// Ends sources and listeners.
    stop_intake: CancellationToken,
    /// Ends agents, after the intake.
    stop_agents: CancellationToken,
}

impl Service {
    /// Opens bus and store.
    ///
    /// # Errors
    /// When one of them is in use or cannot be opened.
    pub(crate) async fn open(
        settings: Settings,
        roles: BTreeSet<Role>,
        data: &Path,
        problems: &Problems,
        extras: Extras,
    ) -> Result<Self> {
        let clock: Arc<dyn Clock> = extras.clock.clone().unwrap_or_else(|| Arc::new(SystemClock));
        let counters = SelfMetrics::default();
        let mut registry = Registry::default();
        counters.register(&mut registry);
        let bus = wiring::open_bus(&settings, data, clock.clone()).await?;
        let store = wiring::open_store(&settings, data, clock.clone()).await?;
        local_token(&*store, &*clock, data).await?;
        Ok(Self {
            started_at: clock.now(),
            board: HealthBoard::new(clock.clone()),
            registry: Arc::new(registry),
            warnings: problems.sorted().iter().map(ToString::to_string).collect(),
            stop_intake: CancellationToken::new(),
            stop_agents: CancellationToken::new(),
            extras,
            settings,
            roles,
            clock,
            counters,
            bus,
            store,
        })
    }

    /// Runs until it is told to end.
    ///
    /// # Errors
    /// When something cannot be bound or started, or does not end well.
    pub(crate) async fn run(mut self, mut rooms: DetectRooms, written: Written, data: &Path) -> Result<()> {
        let (told, _) = broadcast::channel::<Arc<Told>>(EVENTS_KEPT);
        let (events, _) = broadcast::channel::<StreamEvent>(EVENTS_KEPT);
        let (commands, asked) = mpsc::channel::<Command>(64);
        let hostname = hostname();
        let resolver = Arc::new(Resolver::new(self.settings.ingest.resolve.clone(), &hostname, &[]));
        let graph = Arc::new(TopologyBoard::new(self.clock.clone()));
        let ingest = Ingest::new(IngestParts {
            tenant: self.settings.tenant.clone(),
            limits: self.settings.ingest.limits.clone(),
            resolver: resolver.clone(),
            bus: self.bus.clone(),
            clock: self.clock.clone(),
            metrics: self.counters.clone(),
        });
        // Before any agent works: whoever finds the port taken should find nothing half begun.
        let api_listener = match self.roles.contains(&Role::Api) || self.roles.contains(&Role::Collect) {
            true => Some(bind("api.listen", &self.settings.api.listen).await?),
            false => None,
        };
        let lag = Arc::new(RwLock::new(BTreeMap::new()));
        let feed: Arc<Feed> = Arc::default();
        rooms.feed = feed.clone();
        for tap in std::mem::take(&mut self.extras.taps) {
            feed.tap(tap);
        }
        let switch = Arc::new(SwitchBoard::of_folder(data));
        let boards = Boards::default();
        boards.catalogue.set_playbooks(crate::api::playbook_rows(&written.library.playbooks));
        boards.catalogue.set_policies(crate::api::policy_rows(&written.library.policies));
        let people = people_of(&written.topology);
        let shelf = Arc::new(Shelf::new(written.library));
        let mut agents = Vec::new();
        if self.roles.contains(&Role::Detect) {
            let snapshots: Arc<dyn SnapshotStore> = Arc::new(FileSnapshots::new(data.join(wiring::SNAPSHOTS_DIR)));
            let models = self.open_models(&mut rooms, data).await?;
            agents.push(self.start_models(models));
            agents.push(self.start_detect(snapshots, rooms));
        }
        if self.roles.contains(&Role::Diagnose) {
            let response = self.response(shelf.clone(), feed.clone(), switch.clone()).await?;
            if Reload::is_needed(&self.settings) {
                let reload = Reload {
                    settings: Arc::new(self.settings.clone()),
                    base: written.base,
                    shelf: shelf.clone(),
                    catalogue: boards.catalogue.clone(),
                    health: self.board.reporter("library"),
                    stop: self.stop_agents.clone(),
                };
                tokio::spawn(reload.run());
            }
            let declared = Declared { config: self.settings.topology.clone(), file: written.topology };
            let (tenant, learn, show) = (self.settings.tenant.clone(), resolver.clone(), graph.clone());
            let stream = events.clone();
            let anomaly = Arc::new(move |anomaly: &Anomaly| {
                // Nobody listening is no error.
                drop(stream.send(StreamEvent::anomaly(anomaly)));
            });
            let topology = Arc::new(move |of: &str, topology: &Topology| {
                if of == tenant {
                    for (name, entity) in topology.aliases() {
                        learn.learn(name, entity);
                    }
                    show.set(topology.clone());
                }
            });
            let (of, board) = (self.settings.tenant.clone(), boards.guard.clone());
            let guard = Arc::new(move |tenant: &str, report| {
                if tenant == of {
                    board.set(report);
                }
            });
            let (of, board) = (self.settings.tenant.clone(), boards.readings.clone());
            let readings = Arc::new(move |tenant: &str, incident, readings| {
                if tenant == of {
                    board.set(incident, readings);
                }
            });
            let (also, heard, stream) = (self.extras.told.clone(), told.clone(), events.clone());
            let tell = Arc::new(move |news: &Told| {
                if let Some(also) = &also {
                    also(news);
                }
                // Nobody listening is no error.
                drop(stream.send(StreamEvent::incident(news.event.event.action(), news.event.at, &news.incident)));
                drop(heard.send(Arc::new(news.clone())));
            });
            let listeners = Listeners { topology, anomaly, guard, readings, told: tell };
            agents.push(self.start_incident(declared, listeners, asked, response));
            agents.push(self.start_relay(feed.clone()));
            agents.extend(self.start_teller()?);
            tokio::spawn(self.upkeep(lag.clone(), events.clone()).run());
        }
        let mut listeners: BTreeMap<String, String> = BTreeMap::new();
        let bound = BoundAddresses::default();
        let mut supervisor = Supervisor::new(
            Shared {
                sink: ingest.clone(),
                clock: self.clock.clone(),
                board: self.board.clone(),
                metrics: self.counters.clone(),
            },
            self.settings.restart.clone(),
            self.stop_intake.clone(),
            self.started_at.0 as u64,
        );
        let api_address = api_listener.as_ref().map(TcpListener::local_addr).transpose().context("read an address")?;
        if let Some(address) = api_address {
            listeners.insert("api".into(), address.to_string());
        }
        if self.roles.contains(&Role::Collect) {
            if self.settings.otlp.enabled {
                let source =
                    OtlpSource::bind("otlp", self.settings.otlp.clone()).await.map_err(|e| chain("otlp", &e))?;
                for (key, address) in source.addresses() {
                    listeners.insert(format!("otlp_{}", key.trim_end_matches("_listen")), address.to_string());
                }
                supervisor.start(Box::new(source)).context("start the OTLP receivers")?;
            }
            let around = Surroundings {
                data_dir: data.join("sources"),
                host_name: hostname.clone(),
                bound: bound.clone(),
                kubernetes: crate::kubernetes::SOURCE,
            };
            for (name, config) in self.sources(api_address.map(|a| a.to_string())) {
                if let SourceConfig::Syslog(config) = &config {
                    ports_are_free(&name, config)?;
                }
                let source = config.build(&name, &around).map_err(|e| chain(&format!("sources.{name}"), &e))?;
                supervisor.start(source).map_err(|e| chain(&format!("sources.{name}"), &e))?;
            }
            for source in self.extras.sources.take().map(|make| make(&self.bus)).unwrap_or_default() {
                supervisor.start(source).context("start a source")?;
            }
        }
        let metrics_listener = self.bind_metrics(&mut listeners).await;
        let status = Arc::new(StatusBoard {
            started_at: self.started_at,
            roles: self.roles.iter().map(|r| r.as_str().to_owned()).collect(),
            listeners: listeners.clone(),
            bound,
            bus: self.bus.kind().into(),
            store: self.store.kind().into(),
            counters: self.counters.clone(),
            warnings: self.warnings.clone(),
            lag: lag.clone(),
        });
        let commands = Commands { tenant: self.settings.tenant.clone(), queue: commands };
        let replays = crate::api::Replays {
            store: self.store.clone(),
            tenant: self.settings.tenant.clone(),
            topology: graph.clone(),
            shelf,
            plan: self.plan_config(),
            guard: self.settings.guard.clone(),
            workflow: self.settings.workflow.clone(),
        };
        let boards = Boards { replay: Some(Arc::new(replays)), ..boards };
        let state = ApiState::new(ApiParts {
            tenant: self.settings.tenant.clone(),
            config: self.settings.api.clone(),
            auth: self.settings.auth.clone().unwrap_or_default(),
            store: self.store.clone(),
            health: self.board.clone(),
            registry: self.registry.clone(),
            automation: crate::api::automation(
                self.store.clone(),
                commands.clone(),
                people,
                switch,
                data.to_owned(),
                boards,
            ),
            commands: Arc::new(commands),
            injector: Arc::new(Injecting(TestInjector {
                bus: self.bus.clone(),
                clock: self.clock.clone(),
                tenant: self.settings.tenant.clone(),
                cluster: self.settings.ingest.resolve.cluster.clone(),
                told,
            })),
            status,
            topology: graph,
            collectors: Arc::new(Collectors {
                table: supervisor.table(),
                board: self.board.clone(),
                counters: self.counters.clone(),
            }),
            events,
            clock: self.clock.clone(),
        });
        let mut servers = Vec::new();
        if let (Some(listener), Some(address)) = (api_listener, api_address) {
            let more = self.ingest_routes(&ingest).merge(self.extras.routes.take().unwrap_or_default());
            let router = nightshift_api::router(state.clone(), more, Exposure::of(address.ip()));
            let (limits, stop) = (self.settings.http.clone(), self.stop_intake.clone());
            servers.push(tokio::spawn(serve(listener, router, limits, stop)));
        }
        if let Some(listener) = metrics_listener {
            let router = nightshift_api::metrics_router(state);
            servers.push(tokio::spawn(serve(listener, router, self.settings.http.clone(), self.stop_intake.clone())));
        }
        let about = serde_json::json!({
            "pid": std::process::id(), "version": env!("CARGO_PKG_VERSION"), "started_at": self.started_at, "listeners": listeners,
        });
        crate::files::replace(&data.join(SERVER_FILE), about.to_string().as_bytes())?;
        tracing::info!(data = %data.display(), bus = self.bus.kind(), store = self.store.kind(), "nightshift is watching");
        if let Some(address) = api_address {
            tracing::info!("incidents at http://{address}");
            if let Some(ready) = self.extras.ready.take() {
                ready(address);
            }
        }
        until_told_to_end(self.extras.stop.as_ref()).await?;
        tracing::info!("ending: sources first, then the agents put their state away");
        self.stop_intake.cancel();
        for name in supervisor.stop(SOURCES_END).await {
            tracing::warn!(source = name, "source did not end in time and was cut off");
        }
        for server in servers {
            drop(server.await);
        }
        self.stop_agents.cancel();
        for agent in agents {
            drop(agent.await);
        }
        self.bus.close().await.context("close the bus")?;
        self.store.close().await.context("close the store")?;
        // The file of a service that is gone would mislead.
        drop(std::fs::remove_file(data.join(SERVER_FILE)));
        Ok(())
    }

    /// The configured sources and, unless told otherwise, the default ones that were not configured by name.
    fn sources(&self, api: Option<String>) -> BTreeMap<String, SourceConfig> {
        let mut sources = self.settings.sources.clone();
        if self.settings.default_sources {
            for (name, config) in default_sources() {
                let there = sources.values().any(|c| c.kind() == config.kind());
                if !there {
                    sources.entry(name).or_insert(config);
                }
            }
            if let Some(address) = api {
                sources.entry("self".into()).or_insert_with(|| crate::api::own_metrics(&address));
            }
        }
        sources
    }

    fn ingest_routes(&self, ingest: &Arc<Ingest>) -> axum::Router {
        if !self.roles.contains(&Role::Collect) {
            return axum::Router::new();
        }
        let gate = Gate::new(&self.settings.http);
        let mut routes = axum::Router::new();
        if self.settings.remote_write.enabled {
            let name = &self.settings.remote_write.name;
            routes = routes.merge(remote_write::router(RemoteWriteState {
                ingest: ingest.clone(),
                settings: Arc::new(self.settings.remote_write.clone()),
                gate: gate.clone(),
                health: self.board.reporter(format!("{name}-collector")),
            }));
        }
        let door = |name: &str| DoorState {
            name: name.to_owned(),
            sink: ingest.clone(),
            clock: self.clock.clone(),
            health: self.board.reporter(format!("{name}-collector")),
            metrics: self.counters.clone(),
            gate: gate.clone(),
            limits: self.settings.doors.clone(),
        };
        routes.merge(alertmanager::router(door("alertmanager"))).merge(events::router(door("events")))
    }

    /// The metrics port may be held by another Prometheus: that is a warning, `/metrics` is on the API's port too.
    async fn bind_metrics(&self, listeners: &mut BTreeMap<String, String>) -> Option<TcpListener> {
        if !self.settings.metrics.enabled {
            return None;
        }
        match bind("metrics.listen", &self.settings.metrics.listen).await {
            Ok(listener) => {
                if let Ok(address) = listener.local_addr() {
                    listeners.insert("metrics".into(), address.to_string());
                }
                Some(listener)
            }
            Err(e) => {
                tracing::warn!("{e:#}; our metrics are on /metrics of the API all the same");
                None
            }
        }
    }
}
