//! Log files: followed through rotation, restarts and truncation; neither lost nor repeated.
//!
//! Lives here: the source and its configuration. Beside it: `scan` (which files), `tail` (one file), `multiline`
//! (joining), `positions` (the state file).
//!
//! A position is saved after the sink took the lines. So a restart repeats nothing, and a crash between the two
//! repeats at most the one batch that was on its way; nothing is lost either way. Files are polled: it works on every
//! file system, and an idle poll is one `stat` per file.

pub mod multiline;
mod positions;
mod scan;
mod tail;

use crate::deliver::{Parcel, count, deliver, failed, fatal};
use crate::lines::{self, LineContext};
use crate::supervise::Surroundings;
use crate::{Attributes, Source, SourceContext, SourceError};
use async_trait::async_trait;
use multiline::{MultilineConfig, Rule};
use scan::{Follower, Polled};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Where a file that was there before us is read from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ReadFrom {
    /// What is written from now on.
    #[default]
    End,
    /// All of it.
    Beginning,
}

/// Log files, followed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Config {
    /// Paths and glob patterns (`/var/log/app/*.log`, `**` for any depth).
    pub include: Vec<String>,
    /// Patterns of paths that are left out.
    pub exclude: Vec<String>,
    /// Where files that are there at the first start are read from; later ones are read whole.
    pub from: ReadFrom,
    /// How lines are joined to entries.
    pub multiline: MultilineConfig,
    /// Offset from UTC of times that name no zone, minutes east.
    #[schemars(range(min = -840, max = 840))]
    pub utc_offset_minutes: i32,
    /// What else is known of where these files come from, under OpenTelemetry's names (`service.name` …).
    pub attributes: BTreeMap<String, String>,
    /// Longest line, bytes; of a longer one the rest is cut, counted, and its size noted.
    #[schemars(range(min = 256, max = 1_048_576))]
    pub line_bytes_max: usize,
    /// About how many entries are handed in at once.
    #[schemars(range(min = 1, max = 100_000))]
    pub batch_lines_max: usize,
    /// Most files that are followed at once.
    #[schemars(range(min = 1, max = 10_000))]
    pub files_max: usize,
    /// Time between two reads while lines come, milliseconds.
    #[schemars(range(min = 1, max = 60_000))]
    pub poll_ms: u64,
    /// Longest time between two reads while none come, milliseconds.
    #[schemars(range(min = 1, max = 60_000))]
    pub poll_idle_ms_max: u64,
    /// Time between two looks for new and rotated files, milliseconds.
    #[schemars(range(min = 1, max = 600_000))]
    pub rescan_ms: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            include: Vec::new(),
            exclude: Vec::new(),
            from: ReadFrom::End,
            multiline: MultilineConfig::default(),
            utc_offset_minutes: 0,
            attributes: BTreeMap::new(),
            line_bytes_max: 64 << 10,
            batch_lines_max: 2_000,
            files_max: 500,
            poll_ms: 250,
            poll_idle_ms_max: 2_000,
            rescan_ms: 1_000,
        }
    }
}

impl Config {
    /// Checks the values; opens nothing.
    ///
    /// # Errors
    /// No file is named, or a pattern is none.
    pub fn build(&self, name: &str, around: &Surroundings) -> Result<FilesSource, SourceError> {
        if self.include.is_empty() {
            return Err(fatal("follow log files: name at least one path in `include`"));
        }
        let pattern = |text: &String| {
            glob::Pattern::new(text).map_err(|e| fatal(format!("follow log files: `{text}` is no glob pattern: {e}")))
        };
        for include in &self.include {
            pattern(include)?;
        }
        let exclude = self.exclude.iter().map(pattern).collect::<Result<_, _>>()?;
        let rule = self.multiline.build().map_err(|why| fatal(format!("follow log files: {why}")))?;
        let mut resource = self.attributes.clone();
        resource.entry("host.name".into()).or_insert_with(|| around.host_name.clone());
        Ok(FilesSource {
            name: name.to_owned(),
            config: self.clone(),
            rule,
            exclude,
            state: around.state_file("log_files", name),
            host: around.host_name.clone(),
            resource: Arc::new(resource),
        })
    }
}

/// Follows log files.
#[derive(Debug)]
pub struct FilesSource {
    name: String,
    config: Config,
    rule: Rule,
    exclude: Vec<glob::Pattern>,
    state: PathBuf,
    host: String,
    resource: Arc<Attributes>,
}

#[async_trait]
impl Source for FilesSource {
    fn name(&self) -> &str {
        &self.name
    }

    fn kind(&self) -> &'static str {
        "log_files"
    }

    async fn run(&mut self, context: &SourceContext) -> Result<(), SourceError> {
        let (config, rule, exclude, state) =
            (self.config.clone(), self.rule.clone(), self.exclude.clone(), self.state.clone());
        let mut follower = blocking(move || Follower::new(config, rule, exclude, state)).await?.map_err(|what| {
            // Not fatal: a person may repair or remove the file while we try again.
            SourceError { what, source: None, fatal: false }
        })?;
        let began = tokio::time::Instant::now();
        let mut idle = self.config.poll_ms;
        let mut lines = 0u64;
        let mut rejected = 0u64;
        loop {
            let now_ms = began.elapsed().as_millis() as u64;
            let polled: Polled;
            (follower, polled) = blocking(move || {
                let polled = follower.poll(now_ms);
                (follower, polled)
            })
            .await?;
            if polled.cut > 0 {
                count(&self.name, "line_too_long", polled.cut, context);
            }
            let mut parcel = self.parcel(&polled, context);
            let Some(took) = deliver(&self.name, &mut parcel, context).await? else { return Ok(()) };
            lines += took.accepted;
            rejected += took.rejected;
            let busy = !polled.records.is_empty();
            if busy || polled.dirty {
                let records = polled.records;
                let saved;
                (follower, saved) = blocking(move || {
                    let saved = follower.accept(&records);
                    (follower, saved)
                })
                .await?;
                saved.map_err(|e| failed(format!("save positions in `{}`", self.state.display()), e))?;
            }
            self.report(&follower, lines, rejected, context);
            if context.shutdown.is_cancelled() {
                return Ok(());
            }
            if polled.more {
                continue;
            }
            idle = if busy || follower.is_waiting() {
                self.config.poll_ms
            } else {
                (idle * 2).min(self.config.poll_idle_ms_max)
            };
            tokio::select! {
                () = tokio::time::sleep(Duration::from_millis(idle.max(1))) => {}
                () = context.shutdown.cancelled() => return Ok(()),
            }
        }
    }
}

impl FilesSource {
    fn parcel(&self, polled: &Polled, context: &SourceContext) -> Parcel {
        let line = LineContext {
            now: context.clock.now(),
            utc_offset_secs: self.config.utc_offset_minutes * 60,
            host: &self.host,
            body_bytes_max: self.config.line_bytes_max.max(self.config.multiline.bytes_max),
        };
        let entry = |r: &scan::Record| lines::entry(&r.text, &self.resource, &r.path.to_string_lossy(), &line);
        Parcel { logs: polled.records.iter().map(entry).collect(), ..Parcel::default() }
    }

    fn report(&self, follower: &Follower, lines: u64, rejected: u64, context: &SourceContext) {
        let mut detail = format!("following {} files, {lines} entries taken", follower.files());
        if rejected > 0 {
            detail.push_str(&format!(", {rejected} not taken (too old or over a limit)"));
        }
        let problems: Vec<String> = follower.problems().collect();
        if let Some(first) = problems.first() {
            let more = problems.len() - 1;
            let others = if more > 0 { format!(" (and {more} more)") } else { String::new() };
            context.health.degraded(format!("{detail}; {first}{others}"));
        } else if follower.files() == 0 {
            context.health.degraded(format!("no file matches {}", self.config.include.join(", ")));
        } else {
            context.health.healthy(detail);
        }
    }
}

/// Runs file work where it may block.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, SourceError> {
    tokio::task::spawn_blocking(work).await.map_err(|e| failed("follow log files", e))
}

#[cfg(test)]
mod tests;
