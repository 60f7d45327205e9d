//! The command line: names, options and help. What each does lives in [`crate::commands`].

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
    /// Show one incident: causes with evidence, symptoms, timeline.
    Show(ShowArgs),
    /// Say that you are looking at an incident.
    Ack(ActArgs),
    /// Close an incident.
    Resolve(ActArgs),
    /// Replay recorded data through the same code that runs live.
    #[command(subcommand)]
    Backtest(Backtest),
    /// Look into the bus.
    #[command(subcommand)]
    Bus(BusCommand),
    /// List the catalogue of fault classes.
    Faults,
    /// Make, list and withdraw access tokens.
    #[command(subcommand)]
    Token(TokenCommand),
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

/// `ack` and `resolve`.
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
