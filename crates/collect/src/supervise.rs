//! Runs sources: each in its own task, started again after a failure, stopped in time.
//!
//! Lives here: restarts with backoff, panics kept to the source that had them, the closed list of source kinds.
//! Never here: what any of them observes.

use crate::deliver::chain;
use crate::{Sink, Source, SourceContext, SourceError};
use futures::FutureExt;
use nightshift_health::{BySource, HealthBoard, SelfMetrics};
use nightshift_model::{Clock, Timestamp};
use parking_lot::Mutex;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// How a failed source is started again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct RestartConfig {
    /// Longest wait before the first restart, milliseconds. Each further failure doubles it.
    #[schemars(range(min = 1, max = 60_000))]
    pub backoff_initial_ms: u64,
    /// Longest wait of all, milliseconds.
    #[schemars(range(min = 1, max = 3_600_000))]
    pub backoff_max_ms: u64,
    /// A source that ran this long before it failed begins again with the first wait, seconds.
    #[schemars(range(min = 1, max = 86_400))]
    pub healthy_after_secs: u64,
}

impl Default for RestartConfig {
    fn default() -> Self {
        Self { backoff_initial_ms: 500, backoff_max_ms: 60_000, healthy_after_secs: 60 }
    }
}

impl RestartConfig {
    /// The wait before restart number `failures` (from 1): exponential, between half and all of it at random, so that
    /// sources which failed together do not come back together ("equal jitter").
    pub fn backoff(&self, failures: u32, random: &mut impl Rng) -> Duration {
        let doubled = self.backoff_initial_ms.max(1).saturating_mul(1 << failures.saturating_sub(1).min(32));
        let full = doubled.min(self.backoff_max_ms.max(1));
        Duration::from_millis(random.random_range(full.div_ceil(2)..=full))
    }
}

/// What is around every source, whatever its kind.
#[derive(Debug, Clone)]
pub struct Surroundings {
    /// Where sources keep what must outlive the process: positions, cursors. Each has a file of its own in it.
    pub data_dir: PathBuf,
    /// Name of this machine.
    pub host_name: String,
    /// Where sources that listen write their addresses.
    pub bound: BoundAddresses,
    /// Builds what watches Kubernetes, where that is linked.
    pub kubernetes: Option<crate::kubernetes::BuildKubernetes>,
}

/// The addresses that listening sources were given (port 0 takes a free one), by `NAME.KEY`. Cheap to clone; all clones
/// are one table.
#[derive(Debug, Clone, Default)]
pub struct BoundAddresses(Arc<Mutex<BTreeMap<String, std::net::SocketAddr>>>);

impl BoundAddresses {
    /// All of them, for `/api/v1/status`.
    pub fn all(&self) -> BTreeMap<String, std::net::SocketAddr> {
        self.0.lock().clone()
    }

    /// Writes one down.
    pub fn set(&self, key: &str, address: std::net::SocketAddr) {
        self.0.lock().insert(key.to_owned(), address);
    }
}

impl Surroundings {
    /// A file of one source, `KIND-NAME.json`, with what a file name cannot hold replaced.
    pub fn state_file(&self, kind: &str, name: &str) -> PathBuf {
        let safe: String =
            name.chars().map(|c| if c.is_ascii_alphanumeric() || matches!(c, '-' | '_') { c } else { '_' }).collect();
        // Two names that differ only in replaced characters must not share a file.
        let tail = if safe == name {
            String::new()
        } else {
            format!("-{:08x}", nightshift_model::hash::hash64(name.as_bytes()) as u32)
        };
        self.data_dir.join(format!("{kind}-{safe}{tail}.json"))
    }
}

/// Writes a file whole or not at all, and durably: a new one beside it takes its name.
///
/// # Errors
/// When the folder or the file cannot be written.
pub fn write_atomically(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    use std::io::Write as _;
    let parent = path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(parent)?;
    let new = path.with_extension("new");
    let mut file = std::fs::File::create(&new)?;
    file.write_all(bytes)?;
    file.sync_data()?;
    std::fs::rename(&new, path)
}

/// One source as it is configured; the tag is its public name. A new kind is a module, a variant here and an arm below.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum SourceConfig {
    /// This machine: processors, memory, disks, network, load, top processes.
    Host(crate::host::Config),
    /// A program that prints JSON lines.
    Exec(crate::exec::Config),
    /// Log files, followed.
    LogFiles(crate::files::Config),
    /// The journal of systemd.
    Journald(crate::journald::Config),
    /// Receives syslog on UDP and TCP.
    Syslog(crate::syslog::Config),
    /// Asks programs for their metrics, as Prometheus does.
    PrometheusScrape(crate::scrape::ScrapeConfig),
    /// Asks an existing Prometheus questions in PromQL.
    PrometheusQuery(crate::promql::PromqlConfig),
    /// Watches Kubernetes clusters.
    Kubernetes(crate::kubernetes::KubernetesConfig),
}

impl SourceConfig {
    /// Its type, as in the configuration.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Host(_) => "host",
            Self::Exec(_) => "exec",
            Self::LogFiles(_) => "log_files",
            Self::Journald(_) => "journald",
            Self::Syslog(_) => "syslog",
            Self::PrometheusScrape(_) => "prometheus_scrape",
            Self::PrometheusQuery(_) => "prometheus_query",
            Self::Kubernetes(_) => "kubernetes",
        }
    }

    /// Checks the values and builds; touches nothing outside, so `check` and the service take the same path.
    ///
    /// # Errors
    /// What is wrong with the configuration, as text for people; always fatal.
    pub fn build(&self, name: &str, around: &Surroundings) -> Result<Box<dyn Source>, SourceError> {
        if name.is_empty() || name.len() > 128 {
            return Err(crate::deliver::fatal("name the source with 1 to 128 bytes"));
        }
        Ok(match self {
            Self::Host(config) => Box::new(config.build(name, around)?),
            Self::Exec(config) => Box::new(config.build(name, around)?),
            Self::LogFiles(config) => Box::new(config.build(name, around)?),
            Self::Journald(config) => Box::new(config.build(name, around)?),
            Self::Syslog(config) => Box::new(config.build(name, around)?),
            Self::PrometheusScrape(config) => {
                config.credentials.check()?;
                Box::new(crate::scrape::ScrapeSource::new(name, config.clone()))
            }
            Self::PrometheusQuery(config) => {
                config.credentials.check()?;
                Box::new(crate::promql::PromqlSource::new(name, config.clone()))
            }
            Self::Kubernetes(config) => config.build(name, around)?,
        })
    }
}

/// The sources of an empty configuration: this host, syslog on loopback, and the log files and the journal that this
/// machine has. What is not present here is left out: its absence is no failure.
pub fn default_sources() -> BTreeMap<String, SourceConfig> {
    let mut sources = BTreeMap::from([
        ("host".to_owned(), SourceConfig::Host(crate::host::Config::default())),
        ("syslog".to_owned(), SourceConfig::Syslog(crate::syslog::Config::default())),
    ]);
    let present: Vec<String> = ["/var/log/syslog", "/var/log/messages", "/var/log/kern.log", "/var/log/auth.log"]
        .into_iter()
        .filter(|path| std::fs::File::open(path).is_ok())
        .map(ToOwned::to_owned)
        .collect();
    if !present.is_empty() {
        let config = crate::files::Config { include: present, ..crate::files::Config::default() };
        sources.insert("log_files".into(), SourceConfig::LogFiles(config));
    } else if crate::journald::is_present() {
        // Where rsyslog writes the files above, the journal holds the same lines once more.
        sources.insert("journald".into(), SourceConfig::Journald(crate::journald::Config::default()));
    }
    sources
}

/// Where a source stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SourceState {
    /// It observes.
    Running,
    /// It failed and will be started again.
    Waiting,
    /// It failed for good.
    Failed,
    /// It was told to end, and has.
    Ended,
}

/// One source as `/api/v1/collectors` shows it; its health is on the board, as `NAME-collector`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SourceRow {
    /// Configured name.
    pub name: String,
    /// Type.
    pub kind: &'static str,
    /// Where it stands.
    pub state: SourceState,
    /// Since when.
    pub since: Timestamp,
    /// Times it was started again.
    pub restarts: u64,
    /// Failures since it last ran for a healthy while.
    pub failures_in_a_row: u32,
    /// Why it last failed; empty: it never did.
    pub last_error: String,
}

/// The rows of all sources. Cheap to clone; all clones are one table.
#[derive(Debug, Clone, Default)]
pub struct SourceTable(Arc<Mutex<BTreeMap<String, SourceRow>>>);

impl SourceTable {
    /// Every source, by name.
    pub fn rows(&self) -> Vec<SourceRow> {
        self.0.lock().values().cloned().collect()
    }

    fn change(&self, name: &str, change: impl FnOnce(&mut SourceRow)) {
        if let Some(row) = self.0.lock().get_mut(name) {
            change(row);
        }
    }
}

/// What every source is given by its supervisor.
#[derive(Clone)]
pub struct Shared {
    /// Where to put what was seen.
    pub sink: Arc<dyn Sink>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Where health is shown.
    pub board: HealthBoard,
    /// Counters.
    pub metrics: SelfMetrics,
}

/// Runs sources until it is told to stop.
pub struct Supervisor {
    shared: Shared,
    restart: RestartConfig,
    shutdown: CancellationToken,
    seed: u64,
    table: SourceTable,
    running: BTreeMap<String, JoinHandle<()>>,
}

impl Supervisor {
    /// Runs nothing yet. `seed` decides the jitter of restarts; `shutdown` ends all sources.
    pub fn new(shared: Shared, restart: RestartConfig, shutdown: CancellationToken, seed: u64) -> Self {
        Self { shared, restart, shutdown, seed, table: SourceTable::default(), running: BTreeMap::new() }
    }

    /// Starts a source in a task of its own.
    ///
    /// # Errors
    /// Its name is taken.
    pub fn start(&mut self, source: Box<dyn Source>) -> Result<(), SourceError> {
        let (name, kind) = (source.name().to_owned(), source.kind());
        if self.running.contains_key(&name) {
            return Err(crate::deliver::fatal(format!(
                "start source `{name}`: another one has that name, choose a different one"
            )));
        }
        let row = SourceRow {
            name: name.clone(),
            kind,
            state: SourceState::Running,
            since: self.shared.clock.now(),
            restarts: 0,
            failures_in_a_row: 0,
            last_error: String::new(),
        };
        self.table.0.lock().insert(name.clone(), row);
        let context = SourceContext {
            sink: Arc::clone(&self.shared.sink),
            clock: Arc::clone(&self.shared.clock),
            health: self.shared.board.reporter(format!("{name}-collector")),
            metrics: self.shared.metrics.clone(),
            shutdown: self.shutdown.child_token(),
        };
        let random = SmallRng::seed_from_u64(self.seed ^ nightshift_model::hash::hash64(name.as_bytes()));
        let watch = watch(source, context, self.restart.clone(), random, self.table.clone());
        self.running.insert(name, tokio::spawn(watch));
        Ok(())
    }

    /// Where the sources stand, now and later.
    pub fn table(&self) -> SourceTable {
        self.table.clone()
    }

    /// Tells all to end and waits at most `limit` for each to do so; gives the names of those that had to be cut off.
    pub async fn stop(self, limit: Duration) -> Vec<String> {
        self.shutdown.cancel();
        let deadline = tokio::time::Instant::now() + limit;
        let mut late = Vec::new();
        for (name, mut task) in self.running {
            if tokio::time::timeout_at(deadline, &mut task).await.is_err() {
                task.abort();
                late.push(name);
            }
        }
        late
    }
}

/// One source's life.
async fn watch(
    mut source: Box<dyn Source>,
    context: SourceContext,
    restart: RestartConfig,
    mut random: SmallRng,
    table: SourceTable,
) {
    let name = source.name().to_owned();
    let set = |state, error: Option<&str>| {
        let now = context.clock.now();
        table.change(&name, |row| {
            row.state = state;
            row.since = now;
            if let Some(error) = error {
                error.clone_into(&mut row.last_error);
            }
        });
    };
    let mut failures = 0u32;
    loop {
        let began = context.clock.now();
        let ended = AssertUnwindSafe(source.run(&context)).catch_unwind().await;
        if context.shutdown.is_cancelled() {
            set(SourceState::Ended, None);
            return;
        }
        let (reason, fatal) = match ended {
            Ok(Ok(())) => ("it ended, which nobody asked for".to_owned(), false),
            Ok(Err(error)) => (chain(&error), error.fatal),
            Err(panic) => (format!("it panicked: {}", panic_text(&*panic)), false),
        };
        if fatal {
            tracing::error!(source = %name, %reason, "source failed for good");
            context.health.unhealthy(format!("stopped for good: {reason}"));
            set(SourceState::Failed, Some(&reason));
            return;
        }
        if context.clock.now().since(began) >= Duration::from_secs(restart.healthy_after_secs) {
            failures = 0;
        }
        failures += 1;
        table.change(&name, |row| row.failures_in_a_row = failures);
        let wait = restart.backoff(failures, &mut random);
        tracing::warn!(source = %name, %reason, wait_ms = wait.as_millis() as u64, "source failed, it will be started again");
        context
            .health
            .unhealthy(format!("{reason}; starting again in {} ms (failure {failures} in a row)", wait.as_millis()));
        set(SourceState::Waiting, Some(&reason));
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = context.shutdown.cancelled() => {
                set(SourceState::Ended, None);
                return;
            }
        }
        context.metrics.source_restarts.get_or_create(&BySource { source: name.clone().into() }).inc();
        table.change(&name, |row| row.restarts += 1);
        set(SourceState::Running, None);
    }
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|s| (*s).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".into())
}

#[cfg(test)]
mod tests;
