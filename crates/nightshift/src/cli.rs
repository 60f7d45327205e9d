//! The command line: names, options and help. What each does lives in [`crate::commands`].

mod k8s;
mod model;

pub use k8s::{K8sCommand, ScanArgs};
pub use model::{ExportArgs, ModelCommand, ShadowArgs};

use clap::{Args, Parser, Subcommand, ValueEnum};
use std::path::PathBuf;

/// The engine on call that never sleeps.
#[derive(Debug, Parser)]
#[command(name = "nightshift", version, about, propagate_version = true, max_term_width = 110)]
#[command(after_help = "Start with `nightshift run`: it watches this machine and needs no configuration.\n\
    Exit codes: 0 done, 1 failed, 2 bad input.")]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,

    /// Print JSON instead of text.
    #[arg(long, global = true)]
    pub json: bool,

    /// What to log on standard error: error, warn, info, debug, trace, or a filter such as `nightshift_bus=debug`.
    #[arg(long, global = true, env = "NIGHTSHIFT_LOG", value_name = "FILTER")]
    pub log: Option<String>,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Watch: run the service. Without a file: this machine, our own metrics, receivers on loopback.
    Run(RunArgs),
    /// Write a commented configuration and a topology of what was found here.
    Init(InitArgs),
    /// Validate a configuration, its topology and its rules; run the rules' tests. Reports every problem at once.
    Check(CheckArgs),
    /// List incidents.
    Incidents(IncidentsArgs),
    /// Show one incident: causes with evidence, plan, verdict, what was done, symptoms, timeline.
    Show(ShowArgs),
    /// Say that you are looking at an incident.
    Ack(ActArgs),
    /// Close an incident.
    Resolve(ActArgs),
    /// Let the plan of an incident run, once.
    Approve(ApproveArgs),
    /// Forbid the plan of an incident.
    Reject(RejectArgs),
    /// Replace what the guard decided on the plan of an incident.
    Override(OverrideArgs),
    /// Let the machine do nothing more to an incident until it is resumed.
    Pause(ActArgs),
    /// Let the machine act on an incident again.
    Resume(ActArgs),
    /// Do it by hand: the machine only watches this incident from here on.
    TakeOver(ActArgs),
    /// Say what an incident really was: it teaches the next diagnosis.
    Feedback(FeedbackArgs),
    /// Print the postmortem of an incident as Markdown.
    Postmortem(ShowArgs),
    /// Make the decisions of an incident again from the record; changes nothing.
    Replay(ReplayArgs),
    /// Stop all execution at once, or allow it again. Works without a server too.
    KillSwitch(KillSwitchArgs),
    /// List the playbooks: those that ship and those of a configuration.
    Playbooks(PlaybooksArgs),
    /// Kubernetes: what is wrong with a cluster, at once and without a server.
    #[command(subcommand)]
    K8s(K8sCommand),
    /// Replay recorded data through the same code that runs live.
    #[command(subcommand)]
    Backtest(Backtest),
    /// Measure the whole loop on simulated faults and harmless look-alikes, in virtual time.
    Eval(EvalArgs),
    /// Show it all on a simulated estate that breaks and is healed. Needs nothing.
    Demo(DemoArgs),
    /// Look into the bus.
    #[command(subcommand)]
    Bus(BusCommand),
    /// List the catalogue of fault classes.
    Faults,
    /// Make, list and withdraw access tokens.
    #[command(subcommand)]
    Token(TokenCommand),
    /// Versions of the model, trials, drift, and baselines that travel between clusters.
    #[command(subcommand)]
    Model(ModelCommand),
    /// Verify and export the tamper-evident record.
    #[command(subcommand)]
    Audit(AuditCommand),
    /// The configuration itself.
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Print completions for a shell.
    Completions {
        /// Which shell.
        shell: clap_complete::Shell,
    },
}

/// Where state is kept and what is configured.
#[derive(Debug, Clone, Args)]
pub struct DataArgs {
    /// Configuration file (TOML). Without one every key has its default.
    #[arg(short, long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Data folder [default: `$XDG_STATE_HOME/nightshift` or `~/.local/state/nightshift`].
    #[arg(long, value_name = "DIR", env = "NIGHTSHIFT_DATA")]
    pub data: Option<PathBuf>,
}

/// `eval`.
#[derive(Debug, Args)]
pub struct EvalArgs {
    /// Faults; half as many harmless look-alikes come on top.
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub incidents: u32,
    /// The same seed gives the same figures.
    #[arg(long, value_name = "N", default_value_t = 2)]
    pub seed: u64,
    /// Only this kind of fault or look-alike, by its name in the simulator (`retry_storm`, `batch_job` …).
    #[arg(long, value_name = "KIND")]
    pub only: Option<String>,
    /// Tell of every episode on standard error: what was wrong, what was found, and why.
    #[arg(long)]
    pub explain: bool,
}

/// `demo`.
#[derive(Debug, Args)]
pub struct DemoArgs {
    /// How many times faster than the wall's the estate's time passes.
    #[arg(long, value_name = "N", default_value_t = 10.0)]
    pub speed: f64,
    /// The same seed breaks the same things in the same order.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
    /// No live view: a line for each thing that happens.
    #[arg(long)]
    pub headless: bool,
    /// End after this time on the wall: 90s, 10m, 1h.
    #[arg(long = "for", value_name = "TIME", value_parser = duration)]
    pub run_for: Option<std::time::Duration>,
    /// Data folder; it is emptied at the start [default: `nightshift-demo` beside the one of `run`].
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
}

/// A time such as 90s, 10m, 1h, 250ms; a bare number is seconds.
fn duration(text: &str) -> Result<std::time::Duration, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let n: f64 = digits.parse().map_err(|_| format!("`{text}` is no time; for example 90s, 10m, 1h"))?;
    let secs = match &text[digits.len()..] {
        "" | "s" => n,
        "ms" => n / 1_000.0,
        "m" => n * 60.0,
        "h" => n * 3_600.0,
        other => return Err(format!("`{other}` is no unit of time; use ms, s, m or h")),
    };
    if !(secs > 0.0 && secs <= 30.0 * 86_400.0) {
        return Err(format!("`{text}`: above zero, at most 30 days"));
    }
    Ok(std::time::Duration::from_secs_f64(secs))
}

/// `run`.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// Files and folders.
    #[command(flatten)]
    pub data: DataArgs,
    /// Only these roles, separated by commas [default: all].
    #[arg(long, value_delimiter = ',', value_name = "ROLE,…")]
    pub roles: Vec<Role>,
}

/// Parts of the service that can run apart (with Kafka and PostgreSQL).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, ValueEnum)]
pub enum Role {
    /// Sources and receivers.
    Collect,
    /// Detectors.
    Detect,
    /// Correlation and causes.
    Diagnose,
    /// API and page.
    Api,
}

impl Role {
    /// All roles.
    pub const ALL: [Self; 4] = [Self::Collect, Self::Detect, Self::Diagnose, Self::Api];

    /// Its name on the command line.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Collect => "collect",
            Self::Detect => "detect",
            Self::Diagnose => "diagnose",
            Self::Api => "api",
        }
    }
}

/// `init`.
#[derive(Debug, Args)]
pub struct InitArgs {
    /// Where to write the files.
    #[arg(default_value = ".", value_name = "DIR")]
    pub dir: PathBuf,
    /// A Prometheus to read from; its targets become the topology.
    #[arg(long, value_name = "URL")]
    pub prometheus: Option<String>,
    /// Overwrite files that exist.
    #[arg(long)]
    pub force: bool,
}

/// `check`.
#[derive(Debug, Args)]
pub struct CheckArgs {
    /// Configuration file (TOML).
    #[arg(short, long, value_name = "FILE")]
    pub config: PathBuf,
}

/// Where the server is.
#[derive(Debug, Clone, Args)]
pub struct ServerArgs {
    /// The server.
    #[arg(long, env = "NIGHTSHIFT_SERVER", default_value = "http://127.0.0.1:8080", value_name = "URL")]
    pub server: String,
    /// File with the token [default: the one of the local data folder].
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// Data folder of the local server, where its token is.
    #[arg(long, value_name = "DIR", env = "NIGHTSHIFT_DATA")]
    pub data: Option<PathBuf>,
}

/// `incidents`.
#[derive(Debug, Args)]
pub struct IncidentsArgs {
    /// Which server.
    #[command(flatten)]
    pub server: ServerArgs,
    /// Stay, and show incidents as they change.
    #[arg(short, long)]
    pub watch: bool,
    /// Only these statuses, separated by commas.
    #[arg(long, value_delimiter = ',', value_name = "STATUS,…")]
    pub status: Vec<String>,
    /// Only these severities, separated by commas.
    #[arg(long, value_delimiter = ',', value_name = "SEVERITY,…")]
    pub severity: Vec<String>,
    /// Only those that affect this entity (an id or part of a name).
    #[arg(long)]
    pub entity: Option<String>,
    /// Only those that contain this text.
    #[arg(long)]
    pub text: Option<String>,
    /// Also those of test injections.
    #[arg(long)]
    pub synthetic: bool,
    /// At most this many.
    #[arg(long, default_value_t = 50)]
    pub limit: usize,
}

/// `show`.
#[derive(Debug, Args)]
pub struct ShowArgs {
    /// Which server.
    #[command(flatten)]
    pub server: ServerArgs,
    /// `INC-0001` or the long id.
    pub id: String,
}

/// `ack`, `resolve`, `pause`, `resume` and `take-over`.
#[derive(Debug, Args)]
pub struct ActArgs {
    /// Which server.
    #[command(flatten)]
    pub server: ServerArgs,
    /// `INC-0001` or the long id.
    pub id: String,
    /// A note for the journal.
    #[arg(short = 'm', long, default_value = "", value_name = "TEXT")]
    pub note: String,
}

/// `approve`.
#[derive(Debug, Args)]
pub struct ApproveArgs {
    /// Which server.
    #[command(flatten)]
    pub server: ServerArgs,
    /// `INC-0001` or the long id.
    pub id: String,
    /// The plan that you have seen: its hash, or the first 12 digits of it. Without it the plan is shown, and you are
    /// asked (on a terminal only).
    #[arg(long, value_name = "HASH")]
    pub plan: Option<String>,
    /// A note for the journal.
    #[arg(short = 'm', long, default_value = "", value_name = "TEXT")]
    pub note: String,
}

/// `reject`.
#[derive(Debug, Args)]
pub struct RejectArgs {
    /// Which server.
    #[command(flatten)]
    pub server: ServerArgs,
    /// `INC-0001` or the long id.
    pub id: String,
    /// The plan: its hash, or the first 12 digits of it [default: the current one].
    #[arg(long, value_name = "HASH")]
    pub plan: Option<String>,
    /// Why, for the journal.
    #[arg(short = 'm', long = "why", default_value = "", value_name = "WHY")]
    pub why: String,
}

/// `override`.
#[derive(Debug, Args)]
pub struct OverrideArgs {
    /// Which server.
    #[command(flatten)]
    pub server: ServerArgs,
    /// `INC-0001` or the long id.
    pub id: String,
    /// What shall be done instead.
    #[arg(long, value_enum)]
    pub to: OverrideTo,
    /// The plan that you have seen: its hash, or the first 12 digits of it. Without it the plan is shown, and you are
    /// asked (on a terminal only).
    #[arg(long, value_name = "HASH")]
    pub plan: Option<String>,
    /// Why, for the journal.
    #[arg(short = 'm', long = "why", value_name = "WHY")]
    pub why: String,
}

/// What a verdict can be replaced by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum OverrideTo {
    /// It runs.
    Execute,
    /// It does not.
    Deny,
}

/// `feedback`.
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("verdict").required(true))]
pub struct FeedbackArgs {
    /// Which server.
    #[command(flatten)]
    pub server: ServerArgs,
    /// `INC-0001` or the long id.
    pub id: String,
    /// Nothing was wrong.
    #[arg(long, group = "verdict")]
    pub false_positive: bool,
    /// Where the cause was: an entity's id, or a name that only one has.
    #[arg(long, group = "verdict", value_name = "ENTITY", requires = "fault")]
    pub true_cause: Option<String>,
    /// What it was; `nightshift faults` lists them.
    #[arg(long, value_name = "SLUG", conflicts_with = "false_positive")]
    pub fault: Option<String>,
    /// A note for the journal.
    #[arg(short = 'm', long, default_value = "", value_name = "TEXT")]
    pub note: String,
}

/// `replay`.
#[derive(Debug, Args)]
pub struct ReplayArgs {
    /// Which server.
    #[command(flatten)]
    pub server: ServerArgs,
    /// `INC-0001` or the long id.
    pub id: String,
    /// A file with policies (Rego), beside those that ship and instead of your own: what would they have said?
    #[arg(long, value_name = "FILE")]
    pub with_policy: Option<PathBuf>,
}

/// `kill-switch`.
#[derive(Debug, Args)]
pub struct KillSwitchArgs {
    /// What to do.
    #[arg(value_enum)]
    pub turn: Turn,
    /// Why, for the journal.
    #[arg(short = 'm', long = "why", default_value = "", value_name = "WHY")]
    pub why: String,
    /// The server [default: the one that runs on the data folder, or http://127.0.0.1:8080].
    #[arg(long, env = "NIGHTSHIFT_SERVER", value_name = "URL")]
    pub server: Option<String>,
    /// File with the token [default: the one of the data folder].
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// Files and folders.
    #[command(flatten)]
    pub data: DataArgs,
}

/// What to do with the kill switch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Turn {
    /// Nothing is carried out from here on.
    On,
    /// Plans run again as the guard allows.
    Off,
    /// Say how it stands.
    Status,
}

/// `playbooks`.
#[derive(Debug, Args)]
pub struct PlaybooksArgs {
    /// Configuration file (TOML) with further playbooks.
    #[arg(short, long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// `backtest`.
#[derive(Debug, Subcommand)]
pub enum Backtest {
    /// Replay recorded series through the detectors; JSON lines out.
    Metrics {
        /// Folder with CATEGORY/NAME.csv.
        #[arg(long, value_name = "DIR")]
        series: PathBuf,
        /// Series at a time [default: one for each core].
        #[arg(long, value_name = "N")]
        jobs: Option<usize>,
        /// Configuration file (TOML) whose `detect.metrics` replaces the defaults: for taking layers away.
        #[arg(short, long, value_name = "FILE")]
        config: Option<PathBuf>,
    },
    /// Rank causes for recorded cases; JSON lines out.
    Rca {
        /// File with a case a line.
        #[arg(long, value_name = "FILE")]
        cases: PathBuf,
        /// Do not use call graphs.
        #[arg(long)]
        no_graph: bool,
        /// Do not use logs.
        #[arg(long)]
        no_logs: bool,
        /// Do not use traces.
        #[arg(long)]
        no_traces: bool,
        /// Entries of each ranking.
        #[arg(long, default_value_t = 10, value_name = "K")]
        top: usize,
    },
    /// Mine templates from log files; JSON lines out.
    Logs {
        /// NAME=FILE; may be repeated.
        #[arg(long, required = true, value_name = "NAME=FILE")]
        input: Vec<String>,
        /// One message a line, or raw lines with their headers.
        #[arg(long, value_enum, default_value_t = LogFormat::Content)]
        format: LogFormat,
    },
}

/// Form of log files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// One message a line.
    Content,
    /// Raw lines with time, level and component before the message.
    Raw,
}

/// `bus`.
#[derive(Debug, Subcommand)]
pub enum BusCommand {
    /// Topics, their partitions and sizes.
    Topics {
        /// Files and folders.
        #[command(flatten)]
        data: DataArgs,
    },
    /// Consumer groups: positions and lag.
    Groups {
        /// Files and folders.
        #[command(flatten)]
        data: DataArgs,
    },
    /// Print records as JSON lines.
    Read {
        /// Topic, for example `anomalies.detected`.
        topic: String,
        /// Files and folders.
        #[command(flatten)]
        data: DataArgs,
        /// Offset to begin at [default: the oldest].
        #[arg(long, value_name = "POS")]
        from: Option<u64>,
        /// Only this partition.
        #[arg(long, value_name = "N")]
        partition: Option<u32>,
        /// At most this many.
        #[arg(long, value_name = "N")]
        limit: Option<usize>,
        /// Stay, and print records as they come.
        #[arg(long)]
        follow: bool,
    },
    /// Feed dead letters to their topics again.
    Redrive {
        /// Files and folders.
        #[command(flatten)]
        data: DataArgs,
        /// Only those with this reason, for example `newer_version`.
        #[arg(long)]
        reason: Option<String>,
        /// Say what would be fed, and do nothing.
        #[arg(long)]
        dry_run: bool,
    },
}

/// `token`.
#[derive(Debug, Subcommand)]
pub enum TokenCommand {
    /// Make a token and print it, once.
    Create {
        /// What the journal will call its bearer.
        #[arg(long)]
        name: String,
        /// viewer, operator, approver or admin.
        #[arg(long)]
        role: String,
        /// Files and folders.
        #[command(flatten)]
        data: DataArgs,
    },
    /// List tokens (never their secrets).
    List {
        /// Files and folders.
        #[command(flatten)]
        data: DataArgs,
    },
    /// Withdraw a token.
    Revoke {
        /// Its name.
        #[arg(long)]
        name: String,
        /// Files and folders.
        #[command(flatten)]
        data: DataArgs,
    },
}

/// `audit`.
#[derive(Debug, Subcommand)]
pub enum AuditCommand {
    /// Check every link of the chain, its projections and its head.
    Verify {
        /// Files and folders.
        #[command(flatten)]
        data: DataArgs,
        /// Check an exported file instead of the database.
        #[arg(long, value_name = "FILE")]
        file: Option<PathBuf>,
    },
    /// Print the chain, one link a line.
    Export {
        /// Files and folders.
        #[command(flatten)]
        data: DataArgs,
        /// Which tenant.
        #[arg(long, default_value = nightshift_model::DEFAULT_TENANT)]
        tenant: String,
    },
}

/// `config`.
#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Print every key with its meaning, default and unit.
    Reference,
}
