//! The configuration: every room's own section, joined.

use crate::agents::models::ModelsConfig;
use crate::cli::DataArgs;
use crate::exit::{Failure, bad_input};
use anyhow::Context as _;
use nightshift_act::ActuatorConfig;
use nightshift_api::{ApiConfig, AuthConfig, MetricsConfig as MetricsPort};
use nightshift_bus::BusConfig;
use nightshift_collect::events::DoorLimits;
use nightshift_collect::http::HttpLimits;
use nightshift_collect::ingest::IngestConfig;
use nightshift_collect::otlp::OtlpConfig;
use nightshift_collect::remote_write::RemoteWriteConfig;
use nightshift_collect::supervise::{RestartConfig, SourceConfig};
use nightshift_config::{Level, Loaded, Problems, SystemSecrets};
use nightshift_detect::logs::LogConfig;
use nightshift_detect::metrics::MetricsConfig;
use nightshift_detect::rules::RuleConfig;
use nightshift_diagnose::DiagnoseConfig;
use nightshift_guard::GuardConfig;
use nightshift_knowledge::LearnConfig;
use nightshift_plan::PlanConfig;
use nightshift_reason::WorkflowConfig;
use nightshift_store::StoreConfig;
use nightshift_tell::TellConfig;
use nightshift_topology::TopologyConfig;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Nightshift's configuration. The empty one is valid and safe: this host, receivers on loopback, nothing is changed.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Settings {
    /// Tenant of everything that is taken in.
    pub tenant: String,
    /// Whether this host, its logs, syslog on loopback and our own metrics are watched without being asked to.
    pub default_sources: bool,
    /// The HTTP API and its pages.
    pub api: ApiConfig,
    /// Our own metrics on a port of their own.
    pub metrics: MetricsPort,
    /// Who may call what. Needed for listeners beyond loopback.
    pub auth: Option<AuthConfig>,
    /// How slow and many clients are treated on the API's port.
    pub http: HttpLimits,
    /// The Prometheus remote write receiver, on the API's port.
    pub remote_write: RemoteWriteConfig,
    /// Limits of the events and Alertmanager receivers, on the API's port.
    pub doors: DoorLimits,
    /// OTLP receivers.
    pub otlp: OtlpConfig,
    /// What is taken in, and which entity it is about.
    pub ingest: IngestConfig,
    /// Sources by name, for example [sources.web] with `type = "log_files"`.
    pub sources: BTreeMap<String, SourceConfig>,
    /// How sources that fail are started again.
    pub restart: RestartConfig,
    /// The event bus.
    pub bus: BusConfig,
    /// Where incidents and their journal are kept.
    pub store: StoreConfig,
    /// Detection.
    pub detect: DetectSettings,
    /// Models that live: what is learned of families of series, versions, trials, the nightly retrain.
    pub models: ModelsConfig,
    /// Correlation and causes.
    pub diagnose: DiagnoseConfig,
    /// What runs here and what depends on what.
    pub topology: TopologyConfig,
    /// How an incident is taken from its detection to its end.
    pub workflow: WorkflowConfig,
    /// How plans are made, and from which playbooks.
    pub plan: PlanConfig,
    /// What may be done, by whom, when, and how much of it. Nothing is changed until `dry_run` is off.
    pub guard: GuardConfig,
    /// Ways to reach into the world, by name, for example [actuators.estate]. Playbooks name them.
    pub actuators: BTreeMap<String, ActuatorConfig>,
    /// How much past incidents count.
    pub learn: LearnConfig,
    /// Who is told of incidents, and how.
    pub tell: TellConfig,
    /// How long rows are kept.
    pub retention: RetentionSettings,
}

/// Detection.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct DetectSettings {
    /// Seconds between two snapshots of a shard's state. After a crash so much of the bus is replayed.
    #[schemars(range(min = 1, max = 3600))]
    pub snapshot_every_secs: u64,
    /// Whether features per service and minute are published to the topic `telemetry.enriched`.
    pub export_features: bool,
    /// Metric layers.
    pub metrics: MetricsConfig,
    /// Log templates and critical lines.
    pub logs: LogConfig,
    /// Bounds of the rule engine.
    pub rule_limits: RuleConfig,
    /// Whether the rules that ship are used.
    pub shipped_rules: bool,
    /// Files with further rules (YAML).
    pub rules: Vec<PathBuf>,
}

impl Default for DetectSettings {
    fn default() -> Self {
        Self {
            snapshot_every_secs: 60,
            export_features: false,
            metrics: MetricsConfig::default(),
            logs: LogConfig::default(),
            rule_limits: RuleConfig::default(),
            shipped_rules: true,
            rules: Vec::new(),
        }
    }
}

/// How long rows are kept. Incidents and their journal stay for good.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct RetentionSettings {
    /// Days that anomalies which ended, and changes, are kept.
    #[schemars(range(min = 1, max = 3650))]
    pub days: u64,
}

impl Default for RetentionSettings {
    fn default() -> Self {
        Self { days: 30 }
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            tenant: nightshift_model::DEFAULT_TENANT.into(),
            default_sources: true,
            api: ApiConfig::default(),
            metrics: MetricsPort::default(),
            auth: None,
            http: HttpLimits::default(),
            remote_write: RemoteWriteConfig::default(),
            doors: DoorLimits::default(),
            otlp: OtlpConfig::default(),
            ingest: IngestConfig::default(),
            sources: BTreeMap::new(),
            restart: RestartConfig::default(),
            bus: BusConfig::default(),
            store: StoreConfig::default(),
            detect: DetectSettings::default(),
            models: ModelsConfig::default(),
            diagnose: DiagnoseConfig::default(),
            topology: TopologyConfig::default(),
            workflow: WorkflowConfig::default(),
            plan: PlanConfig::default(),
            guard: GuardConfig::default(),
            actuators: BTreeMap::new(),
            learn: LearnConfig::default(),
            tell: TellConfig::default(),
            retention: RetentionSettings::default(),
        }
    }
}

impl Settings {
    /// Reads a file (or, without one, the empty configuration) with the overrides of the environment, and
    /// fetches the secrets that it refers to.
    ///
    /// # Errors
    /// When the file is not there (bad input) or cannot be read.
    pub fn read(file: Option<&Path>, unknown: Level) -> Result<Loaded<Self>, Failure> {
        let (text, name) = match file {
            Some(path) => {
                let size = match std::fs::metadata(path) {
                    Ok(about) => about.len(),
                    Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                        let next = "`nightshift init` writes one";
                        return Err(bad_input(format!("there is no configuration at {}; {next}", path.display())));
                    }
                    Err(e) => return Err(anyhow::anyhow!("read {}: {e}", path.display()).into()),
                };
                if size > nightshift_config::FILE_BYTES_MAX as u64 {
                    let max = nightshift_config::FILE_BYTES_MAX;
                    return Err(bad_input(format!(
                        "{} has {size} bytes, a configuration at most {max}",
                        path.display()
                    )));
                }
                let text = std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
                (text, path.display().to_string())
            }
            None => (String::new(), "environment".to_owned()),
        };
        // `vars` would panic at a variable that is not text; none of ours is.
        let env = std::env::vars_os().filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?)));
        Ok(nightshift_config::load(&text, &name, env, &SystemSecrets, unknown))
    }

    /// Settings and data folder for a command that works beside the service. Errors in the file are printed.
    ///
    /// # Errors
    /// When the file is bad or there is no folder.
    pub fn for_command(args: &DataArgs) -> Result<(Self, PathBuf), Failure> {
        let Loaded { config, problems } = Self::read(args.config.as_deref(), Level::Warning)?;
        if problems.has_errors() {
            print_problems(&problems);
            return Err(Failure::Reported);
        }
        Ok((config, crate::paths::data_dir(args.data.as_deref())?))
    }

    /// The folder that relative paths of a configuration are taken from: its own.
    pub fn base(file: Option<&Path>) -> PathBuf {
        file.and_then(Path::parent).map(Path::to_owned).unwrap_or_default()
    }
}

/// Prints problems on standard error.
pub fn print_problems(problems: &Problems) {
    eprint!("{problems}");
}
