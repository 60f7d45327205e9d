//! Any program that prints JSON lines is a source: the collector SDK (`docs/collector-sdk.md`).
//!
//! Lives here: starting the program, without a shell and with only the environment that it is allowed, and keeping
//! it. Beside it: `line` (what it may print). Never here: what any program observes.

mod line;

pub(crate) use line::log_entry;
pub use line::{SCHEMA_VERSION, fuzz_exec_line};

use crate::deliver::{Parcel, count, deliver_or_count, failed, fatal};
use crate::process::Program;
use crate::supervise::Surroundings;
use crate::{Attributes, Source, SourceContext, SourceError};
use async_trait::async_trait;
use line::{Around, Said};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::process::Command;

/// Most records handed in at once.
const BATCH: usize = 1_000;

/// How long a record waits for others to go with.
const LINGER: Duration = Duration::from_millis(200);

/// A program that prints JSON lines.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Config {
    /// The program and its arguments. No shell: write `["sh", "-c", "…"]` if you want one.
    pub command: Vec<String>,
    /// Run it anew this often, seconds; 0: it runs on and prints when it has something to say.
    #[schemars(range(min = 0, max = 86_400))]
    pub interval_secs: u64,
    /// In interval mode, longest time of one run, seconds.
    #[schemars(range(min = 1, max = 3_600))]
    pub run_secs_max: u64,
    /// Folder that it starts in; empty: the one of this service.
    pub working_dir: String,
    /// Names of variables of our own environment that it may see, besides PATH, LANG and TZ. No others: they hold secrets.
    pub pass_env: Vec<String>,
    /// Variables that are set for it.
    pub env: BTreeMap<String, String>,
    /// Longest line, bytes; a longer one is thrown away and counted.
    #[schemars(range(min = 256, max = 1_048_576))]
    pub line_bytes_max: usize,
    /// What is known of where its records come from, under OpenTelemetry's names; a record's own words win.
    pub attributes: BTreeMap<String, String>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            command: Vec::new(),
            interval_secs: 0,
            run_secs_max: 60,
            working_dir: String::new(),
            pass_env: Vec::new(),
            env: BTreeMap::new(),
            line_bytes_max: 64 << 10,
            attributes: BTreeMap::new(),
        }
    }
}

impl Config {
    /// Checks the values; starts nothing.
    ///
    /// # Errors
    /// No program is named.
    pub fn build(&self, name: &str, around: &Surroundings) -> Result<ExecSource, SourceError> {
        if self.command.first().is_none_or(|program| program.trim().is_empty()) {
            return Err(fatal("run a collector: name the program in `command`"));
        }
        let variable = |n: &String| n.is_empty() || n.contains(['=', '\0']);
        if let Some(bad) = self.env.keys().chain(&self.pass_env).find(|n| variable(n)) {
            return Err(fatal(format!("run a collector: `{bad}` is no name of an environment variable")));
        }
        let mut resource = self.attributes.clone();
        resource.entry("host.name".into()).or_insert_with(|| around.host_name.clone());
        Ok(ExecSource { name: name.to_owned(), config: self.clone(), resource: Arc::new(resource) })
    }
}

/// Runs a program and takes what it prints.
#[derive(Debug)]
pub struct ExecSource {
    name: String,
    config: Config,
    resource: Arc<Attributes>,
}

/// What a program said so far, since the source began.
#[derive(Debug, Default)]
struct Tally {
    taken: u64,
    bad: u64,
    /// The newest line that could not be read, and why.
    last_bad: String,
    /// What it thinks of itself.
    complaint: Option<String>,
    detail: String,
}

/// How a run of the program ended.
enum Ended {
    /// We were told to end.
    Shutdown,
    /// By itself; what is wrong with that, if anything.
    Exit(Option<String>),
}

#[async_trait]
impl Source for ExecSource {
    fn name(&self) -> &str {
        &self.name
    }

    fn kind(&self) -> &'static str {
        "exec"
    }

    async fn run(&mut self, context: &SourceContext) -> Result<(), SourceError> {
        let mut tally = Tally::default();
        if self.config.interval_secs == 0 {
            return match self.once(&mut tally, context).await? {
                Ended::Shutdown => Ok(()),
                Ended::Exit(why) => {
                    let what = format!(
                        "keep `{}` running: {}",
                        self.config.command[0],
                        why.unwrap_or_else(|| "it ended".into())
                    );
                    Err(SourceError { what, source: None, fatal: false })
                }
            };
        }
        let mut ticks = tokio::time::interval(Duration::from_secs(self.config.interval_secs));
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                () = context.shutdown.cancelled() => return Ok(()),
            }
            let run = self.once(&mut tally, context);
            match tokio::time::timeout(Duration::from_secs(self.config.run_secs_max), run).await {
                Ok(Ok(Ended::Shutdown)) => return Ok(()),
                Ok(Ok(Ended::Exit(None))) => self.report(&tally, context),
                Ok(Ok(Ended::Exit(Some(why)))) => context.health.unhealthy(why),
                Ok(Err(error)) => return Err(error),
                // Dropping the run has ended the program and all that it started.
                Err(_) => {
                    context.health.unhealthy(format!("it ran longer than {} s and was ended", self.config.run_secs_max))
                }
            }
        }
    }
}

impl ExecSource {
    fn command(&self) -> Command {
        let mut command = Command::new(&self.config.command[0]);
        command.args(&self.config.command[1..]).env_clear();
        for name in ["PATH", "LANG", "TZ"].into_iter().chain(self.config.pass_env.iter().map(String::as_str)) {
            if let Some(value) = std::env::var_os(name) {
                command.env(name, value);
            }
        }
        command.envs(&self.config.env);
        command.env("NIGHTSHIFT_SOURCE", &self.name);
        command.env("NIGHTSHIFT_SCHEMA", SCHEMA_VERSION.to_string());
        command.env("NIGHTSHIFT_INTERVAL_SECS", self.config.interval_secs.to_string());
        if !self.config.working_dir.is_empty() {
            command.current_dir(PathBuf::from(&self.config.working_dir));
        }
        command
    }

    /// Runs the program once, to its end.
    async fn once(&self, tally: &mut Tally, context: &SourceContext) -> Result<Ended, SourceError> {
        let name = &self.config.command[0];
        let mut program = Program::start(self.command(), self.config.line_bytes_max).map_err(|e| SourceError {
            what: format!("start `{name}`"),
            // What is not there, or must not be run, will not be there in a second either.
            fatal: matches!(e.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::PermissionDenied),
            source: Some(Box::new(e)),
        })?;
        let said = program.stderr();
        let mut parcel = Parcel::default();
        let mut due: Option<tokio::time::Instant> = None;
        let ended = loop {
            let linger = async {
                match due {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            let mut over = false;
            let mut hand_in = false;
            tokio::select! {
                line = program.next_line() => match line.map_err(|e| failed(format!("read from `{name}`"), e))? {
                    Some(line) => self.take(&line, tally, &mut parcel, context),
                    None => over = true,
                },
                () = linger => hand_in = true,
                () = context.shutdown.cancelled() => {
                    // What it has said is handed in, if the sink takes it at once.
                    deliver_or_count(&self.name, &mut parcel, context).await?;
                    program.stop().await;
                    return Ok(Ended::Shutdown);
                }
            }
            if !parcel.is_empty() && due.is_none() {
                due = Some(tokio::time::Instant::now() + LINGER);
            }
            if hand_in || over || parcel.len() >= BATCH {
                // While the sink is busy nothing is read: the program's pipe fills, and it waits too.
                let Some(took) = deliver_or_count(&self.name, &mut parcel, context).await? else {
                    program.stop().await;
                    return Ok(Ended::Shutdown);
                };
                tally.taken += took.accepted;
                due = None;
                if hand_in || parcel.len() >= BATCH {
                    self.report(tally, context);
                }
            } else if parcel.is_empty() {
                // A heartbeat or a bad line.
                self.report(tally, context);
            }
            if over {
                let status = tokio::select! {
                    status = program.wait() => status.map_err(|e| failed(format!("wait for `{name}`"), e))?,
                    () = context.shutdown.cancelled() => return Ok(Ended::Shutdown),
                };
                break if status.success() { None } else { Some(format!("`{name}` ended with {status}; {said}")) };
            }
        };
        Ok(Ended::Exit(ended))
    }

    fn take(&self, line: &crate::bounded::Line, tally: &mut Tally, parcel: &mut Parcel, context: &SourceContext) {
        if line.bytes.iter().all(u8::is_ascii_whitespace) && line.missing == 0 {
            return;
        }
        let around = Around { source: &self.name, resource: &self.resource, now: context.clock.now() };
        let read = if line.missing > 0 {
            Err(("line_too_long", format!("longer than line_bytes_max ({})", self.config.line_bytes_max)))
        } else {
            line::read(&line.bytes, &around).map_err(|why| ("bad_line", why))
        };
        match read {
            Ok(Said::Metric(point)) => parcel.metrics.push(point),
            Ok(Said::Log(entry)) => parcel.logs.push(entry),
            Ok(Said::Change(change)) => parcel.changes.push(*change),
            Ok(Said::Heartbeat { ok, detail }) => {
                tally.complaint = (!ok).then(|| detail.clone());
                tally.detail = detail;
            }
            Err((reason, why)) => {
                let mut shown = crate::lines::clean(&line.bytes);
                crate::lines::cut(&mut shown, 100);
                tally.bad += 1;
                tally.last_bad = format!("{why} in `{shown}`");
                count(&self.name, reason, 1, context);
            }
        }
    }

    fn report(&self, tally: &Tally, context: &SourceContext) {
        let own = if tally.detail.is_empty() { String::new() } else { format!("; it says: {}", tally.detail) };
        let detail = format!("{} records taken{own}", tally.taken);
        match &tally.complaint {
            Some(_) => context.health.degraded(detail),
            None if tally.bad > 0 => {
                context.health.degraded(format!("{detail}; {} bad lines, the last: {}", tally.bad, tally.last_bad))
            }
            None => context.health.healthy(detail),
        }
    }
}
