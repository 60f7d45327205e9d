//! `run`: the service. Opens what the settings name, puts the rooms to work, and ends in order.

use crate::agents::{
    AgentError, Command, Declared, DetectAgent, DetectRooms, DiagnoseAgent, Listeners, RelayAgent, Told,
};
use crate::api::{Collectors, Commands, Injecting, StatusBoard, TopologyBoard};
use crate::cli::{Role, RunArgs};
use crate::clock::SystemClock;
use crate::exit::{CommandResult, Failure, bad_input};
use crate::inject::TestInjector;
use crate::settings::{Settings, print_problems};
use crate::wiring;
use anyhow::{Context as _, Result, anyhow};
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
use nightshift_health::{ByGroupAndTopic, Health, HealthBoard, Reporter, SelfMetrics};
use nightshift_model::{Anomaly, Clock, Timestamp};
use nightshift_store::tokens::Role as TokenRole;
use nightshift_store::{Store, TokenRow, tokens};
use nightshift_topology::Topology;
use parking_lot::{Mutex, RwLock};
use prometheus_client::registry::Registry;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::{broadcast, mpsc};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Longest that a turn waits for records: how soon an agent sees that it must end.
const TURN_WAIT: Duration = Duration::from_millis(200);
/// Longest pause after turns that failed.
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// How often the relay looks into the journal.
const RELAY_EVERY: Duration = Duration::from_millis(50);
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
    let service = Service::open(settings, roles, &data, &problems).await?;
    service.run(rooms, topology, &data).await?;
    Ok(())
}

/// What every part works with.
struct Service {
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
    /// Ends sources and listeners.
    stop_intake: CancellationToken,
    /// Ends agents, after the intake.
    stop_agents: CancellationToken,
}

impl Service {
    async fn open(settings: Settings, roles: BTreeSet<Role>, data: &Path, problems: &Problems) -> Result<Self> {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
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
            settings,
            roles,
            clock,
            counters,
            bus,
            store,
        })
    }

    async fn run(self, rooms: DetectRooms, topology: nightshift_topology::TopologyFile, data: &Path) -> Result<()> {
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
        let lag = Arc::new(RwLock::new(BTreeMap::new()));
        let mut agents = Vec::new();
        if self.roles.contains(&Role::Detect) {
            let snapshots: Arc<dyn SnapshotStore> = Arc::new(FileSnapshots::new(data.join(wiring::SNAPSHOTS_DIR)));
            agents.push(self.start_detect(snapshots, rooms));
        }
        if self.roles.contains(&Role::Diagnose) {
            let declared = Declared { config: self.settings.topology.clone(), file: topology };
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
            agents.push(self.start_diagnose(declared, Listeners { topology, anomaly }, asked));
            agents.push(self.start_relay(told.clone(), events.clone()));
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
        let api_listener = match self.roles.contains(&Role::Api) || self.roles.contains(&Role::Collect) {
            true => Some(bind("api.listen", &self.settings.api.listen).await?),
            false => None,
        };
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
            let around =
                Surroundings { data_dir: data.join("sources"), host_name: hostname.clone(), bound: bound.clone() };
            for (name, config) in self.sources(api_address.map(|a| a.to_string())) {
                if let SourceConfig::Syslog(config) = &config {
                    ports_are_free(&name, config)?;
                }
                let source = config.build(&name, &around).map_err(|e| chain(&format!("sources.{name}"), &e))?;
                supervisor.start(source).map_err(|e| chain(&format!("sources.{name}"), &e))?;
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
        let state = ApiState::new(ApiParts {
            tenant: self.settings.tenant.clone(),
            config: self.settings.api.clone(),
            auth: self.settings.auth.clone().unwrap_or_default(),
            store: self.store.clone(),
            health: self.board.clone(),
            registry: self.registry.clone(),
            commands: Arc::new(Commands { tenant: self.settings.tenant.clone(), queue: commands }),
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
            let router = nightshift_api::router(state.clone(), self.ingest_routes(&ingest), Exposure::of(address.ip()));
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
        }
        until_told_to_end().await?;
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

    fn start_detect(&self, snapshots: Arc<dyn SnapshotStore>, rooms: DetectRooms) -> JoinHandle<()> {
        let (bus, clock, counters) = (self.bus.clone(), self.clock.clone(), self.counters.clone());
        let (stop, health) = (self.stop_agents.clone(), self.board.reporter("anomaly-detector"));
        let every = Duration::from_secs(self.settings.detect.snapshot_every_secs);
        let work = async move {
            let make = || {
                let (bus, snapshots, clock) = (bus.clone(), snapshots.clone(), clock.clone());
                DetectAgent::start(bus, snapshots, clock, counters.clone(), rooms.clone(), every)
            };
            let mut pause = Pause::default();
            let Some(mut agent) = pause.start(&health, &stop, make).await else { return };
            while !stop.is_cancelled() {
                match agent.turn(TURN_WAIT).await {
                    Ok(turn) => pause.well(&health, turn.records, "batches scored"),
                    Err(e) => pause.failed(&health, &stop, &e).await,
                }
            }
            if let Err(e) = agent.stop().await {
                tracing::warn!("put the detectors' state away: {:#}; it is replayed at the next start", anyhow!(e));
            }
        };
        // A thread of its own: a turn is up to some ten milliseconds of arithmetic, which would hold up requests.
        let runtime = tokio::runtime::Handle::current();
        tokio::task::spawn_blocking(move || runtime.block_on(work))
    }

    fn start_diagnose(
        &self,
        declared: Declared,
        listeners: Listeners,
        asked: mpsc::Receiver<Command>,
    ) -> JoinHandle<()> {
        let (bus, store, clock) = (self.bus.clone(), self.store.clone(), self.clock.clone());
        let (counters, config) = (self.counters.clone(), self.settings.diagnose.clone());
        let (stop, health) = (self.stop_agents.clone(), self.board.reporter("root-cause-analyzer"));
        let asked = Arc::new(Mutex::new(asked));
        tokio::spawn(async move {
            let make = || {
                let (bus, store, clock, counters) = (bus.clone(), store.clone(), clock.clone(), counters.clone());
                let (config, declared, listeners) = (config.clone(), declared.clone(), listeners.clone());
                DiagnoseAgent::start(bus, store, clock, counters, config, declared, listeners, asked.clone())
            };
            let mut pause = Pause::default();
            let Some(mut agent) = pause.start(&health, &stop, make).await else { return };
            while !stop.is_cancelled() {
                match agent.turn(TURN_WAIT).await {
                    Ok(turn) => pause.well(&health, turn.records, "records analysed"),
                    Err(e) => pause.failed(&health, &stop, &e).await,
                }
            }
        })
    }

    fn start_relay(
        &self,
        told: broadcast::Sender<Arc<Told>>,
        events: broadcast::Sender<StreamEvent>,
    ) -> JoinHandle<()> {
        let tell = Box::new(move |news: &Told| {
            // Nobody listening is no error.
            drop(events.send(StreamEvent::incident(news.event.event.action(), news.event.at, &news.incident)));
            drop(told.send(Arc::new(news.clone())));
        });
        let mut relay =
            RelayAgent::new(self.bus.clone(), self.store.clone(), self.clock.clone(), self.counters.clone(), tell);
        let (stop, health) = (self.stop_agents.clone(), self.board.reporter("incident-relay"));
        tokio::spawn(async move {
            let mut pause = Pause::default();
            while !stop.is_cancelled() {
                match relay.turn().await {
                    Ok(turn) => {
                        pause.well(&health, turn.records, "journal rows told");
                        if !turn.progressed {
                            tokio::time::sleep(RELAY_EVERY).await;
                        }
                    }
                    Err(e) => pause.failed(&health, &stop, &e).await,
                }
            }
        })
    }

    fn upkeep(&self, lag: Arc<RwLock<BTreeMap<String, u64>>>, events: broadcast::Sender<StreamEvent>) -> Upkeep {
        Upkeep {
            lag,
            events,
            board: self.board.clone(),
            bus: self.bus.clone(),
            store: self.store.clone(),
            clock: self.clock.clone(),
            counters: self.counters.clone(),
            keep: Duration::from_secs(self.settings.retention.days * 86_400),
            stop: self.stop_agents.clone(),
        }
    }
}

/// What is done now and then: figures that cost a look at the bus, and rows that have had their time.
struct Upkeep {
    lag: Arc<RwLock<BTreeMap<String, u64>>>,
    events: broadcast::Sender<StreamEvent>,
    board: HealthBoard,
    bus: Arc<dyn Bus>,
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    counters: SelfMetrics,
    keep: Duration,
    stop: CancellationToken,
}

impl Upkeep {
    async fn run(self) {
        let mut pruned_at = Timestamp::EPOCH;
        let mut health: BTreeMap<String, Health> = BTreeMap::new();
        while !self.stop.is_cancelled() {
            match self.bus.groups().await {
                Ok(groups) => {
                    let mut lag: BTreeMap<(String, String), u64> = BTreeMap::new();
                    for g in groups {
                        *lag.entry((g.group, g.at.topic)).or_default() += g.lag;
                    }
                    let mut by_group: BTreeMap<String, u64> = BTreeMap::new();
                    for ((group, _), n) in &lag {
                        *by_group.entry(group.clone()).or_default() += n;
                    }
                    *self.lag.write() = by_group;
                    for ((group, topic), n) in lag {
                        let labels = ByGroupAndTopic { group: group.into(), topic: topic.into() };
                        self.counters.bus_lag.get_or_create(&labels).set(i64::try_from(n).unwrap_or(i64::MAX));
                    }
                }
                Err(e) => tracing::debug!("look at the bus' groups: {e}"),
            }
            for component in self.board.components() {
                if health.insert(component.name.clone(), component.status) != Some(component.status) {
                    drop(self.events.send(StreamEvent::health(&component)));
                }
            }
            let now = self.clock.now();
            if now.since(pruned_at) >= Duration::from_secs(3_600) {
                pruned_at = now;
                if let Err(e) = self.prune(now).await {
                    tracing::warn!("remove old rows: {:#}", anyhow!(e));
                }
            }
            tokio::select! {
                () = self.stop.cancelled() => {}
                () = tokio::time::sleep(LAG_EVERY) => {}
            }
        }
    }

    async fn prune(&self, now: Timestamp) -> Result<(), nightshift_store::StoreError> {
        for tenant in self.store.tenants().await? {
            let n = self.store.prune(&tenant, now - self.keep).await?;
            tracing::debug!(tenant, n, "old rows removed");
        }
        Ok(())
    }
}

/// How an agent goes on after a turn: at once when it went well, after a growing pause when it did not.
#[derive(Default)]
struct Pause {
    failures: u32,
    total: u64,
    /// Whether its health was said once: a turn that found nothing to do went well too.
    said: bool,
}

impl Pause {
    /// Makes an agent, again and again until it works or the service ends.
    async fn start<A, F: Future<Output = Result<A, AgentError>>>(
        &mut self,
        health: &Reporter,
        stop: &CancellationToken,
        make: impl Fn() -> F,
    ) -> Option<A> {
        while !stop.is_cancelled() {
            match make().await {
                Ok(agent) => {
                    health.healthy("started");
                    return Some(agent);
                }
                Err(e) => self.failed(health, stop, &e).await,
            }
        }
        None
    }

    fn well(&mut self, health: &Reporter, records: usize, what: &str) {
        self.total += records as u64;
        if self.failures > 0 || records > 0 || !self.said {
            self.said = true;
            health.healthy(format!("{} {what}", self.total));
        }
        self.failures = 0;
    }

    async fn failed(&mut self, health: &Reporter, stop: &CancellationToken, error: &AgentError) {
        let mut why = error.to_string();
        let mut cause = std::error::Error::source(error);
        while let Some(deeper) = cause {
            why.push_str(": ");
            why.push_str(&deeper.to_string());
            cause = deeper.source();
        }
        self.failures = self.failures.saturating_add(1);
        tracing::warn!(agent = health.name(), failures = self.failures, "turn failed: {why}");
        health.unhealthy(why);
        let wait = (Duration::from_millis(50) * 2u32.saturating_pow(self.failures.min(10))).min(PAUSE_MAX);
        tokio::select! {
            () = stop.cancelled() => {}
            () = tokio::time::sleep(wait) => {}
        }
    }
}

/// The token of the local command line: made at the first start, in the data folder, for its owner alone.
async fn local_token(store: &dyn Store, clock: &dyn Clock, data: &Path) -> Result<()> {
    let file = data.join(crate::client::TOKEN_FILE);
    let known = store.tokens().await.context("read the tokens")?;
    if let Ok(text) = std::fs::read_to_string(&file)
        && tokens::find(&known, text.trim()).is_some()
    {
        return Ok(());
    }
    let secret = crate::commands::token::new_secret()?;
    // One that lost its file cannot be used any more: it makes room for the new one.
    for old in known.iter().filter(|t| t.generated && t.revoked_at.is_none()) {
        store.revoke_token(&old.name, clock.now()).await.context("withdraw the old local token")?;
    }
    let row = TokenRow {
        name: "local-admin".into(),
        role: TokenRole::Admin.as_str().into(),
        secret_sha256: tokens::hash(&secret),
        created_at: clock.now(),
        generated: true,
        revoked_at: None,
    };
    store.put_token(row).await.context("keep the local token")?;
    crate::files::replace(&file, secret.as_bytes())
}

async fn bind(key: &str, listen: &str) -> Result<TcpListener> {
    TcpListener::bind(listen)
        .await
        .map_err(|e| anyhow!("listen on {listen} ({key}): {e}; give {key} another port, or 0 for a free one"))
}

/// A source that finds its port taken would be unhealthy and try again; at the start the person who can mend it is here.
fn ports_are_free(name: &str, config: &nightshift_collect::syslog::Config) -> Result<()> {
    let taken = |key: &str, listen: &str, e: std::io::Error| {
        anyhow!(
            "listen on {listen} (sources.{name}.{key}): {e}; give it another port, 0 for a free one, or \"\" for none"
        )
    };
    if !config.udp_listen.is_empty() {
        std::net::UdpSocket::bind(&config.udp_listen).map_err(|e| taken("udp_listen", &config.udp_listen, e))?;
    }
    if !config.tcp_listen.is_empty() {
        std::net::TcpListener::bind(&config.tcp_listen).map_err(|e| taken("tcp_listen", &config.tcp_listen, e))?;
    }
    Ok(())
}

/// An error of a source with its causes, and the section it is in.
fn chain(section: &str, error: &dyn std::error::Error) -> anyhow::Error {
    let mut text = format!("{section}: {error}");
    let mut cause = error.source();
    while let Some(deeper) = cause {
        text.push_str(": ");
        text.push_str(&deeper.to_string());
        cause = deeper.source();
    }
    anyhow!(text)
}

fn hostname() -> String {
    sysinfo::System::host_name().unwrap_or_else(|_| "localhost".into())
}

async fn until_told_to_end() -> Result<()> {
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())
        .context("listen for the signal to end")?;
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminate.recv() => {}
    }
    Ok(())
}
