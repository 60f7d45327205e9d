//! The loops.

use super::convert::Scrape;
use super::discovery::{Defaults, Target, TargetGroup, read, targets};
use super::parse::{Dialect, ParseError, ParseLimits, Parser};
use crate::client::{Client, Credentials, FetchError};
use crate::deliver::{Parcel, deliver};
use crate::{Source, SourceContext, SourceError};
use async_trait::async_trait;
use nightshift_model::hash::hash64;
use parking_lot::Mutex;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

/// What we can read, best first. OpenMetrics says where it ends, so that a cut answer is seen.
const ACCEPT: &str =
    "application/openmetrics-text;version=1.0.0;q=0.9,text/plain;version=0.0.4;q=0.5,text/plain;q=0.2,*/*;q=0.1";

/// Source `prometheus_scrape`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct ScrapeConfig {
    /// Label `job` of targets that do not have one; empty: the source's name.
    pub job: String,
    /// Fixed targets.
    pub static_targets: Vec<TargetGroup>,
    /// Files of targets, as Prometheus' file service discovery has them; `*` stands for any part of a name.
    pub target_files: Vec<String>,
    /// How often the files are read again.
    #[schemars(range(min = 1, max = 86_400))]
    pub refresh_secs: u64,
    /// How often a target is asked.
    #[schemars(range(min = 1, max = 3600))]
    pub interval_secs: u64,
    /// Time for an answer.
    #[schemars(range(min = 1, max = 600))]
    pub timeout_secs: u64,
    /// `http` or `https`.
    pub scheme: String,
    /// What is asked.
    pub metrics_path: String,
    /// How to say who we are, to every target.
    pub credentials: Credentials,
    /// Whether a label of a sample wins over the target's of the same name; else it becomes `exported_NAME`.
    pub honor_labels: bool,
    /// Whether a sample's own time is believed.
    pub honor_timestamps: bool,
    /// Largest answer, decompressed, bytes.
    #[schemars(range(min = 1024, max = 1_073_741_824))]
    pub body_bytes_max: usize,
    /// Most samples of an answer.
    #[schemars(range(min = 1, max = 10_000_000))]
    pub samples_max: usize,
}

impl Default for ScrapeConfig {
    fn default() -> Self {
        Self {
            job: String::new(),
            static_targets: Vec::new(),
            target_files: Vec::new(),
            refresh_secs: 30,
            interval_secs: 15,
            timeout_secs: 10,
            scheme: "http".into(),
            metrics_path: "/metrics".into(),
            credentials: Credentials::None,
            honor_labels: false,
            honor_timestamps: true,
            body_bytes_max: 32 << 20,
            samples_max: 200_000,
        }
    }
}

/// Why a scrape failed.
#[derive(Debug, thiserror::Error)]
enum ScrapeError {
    #[error(transparent)]
    Fetch(#[from] FetchError),
    #[error("the answer is no exposition: {0}")]
    Parse(#[from] ParseError),
}

/// How the targets did last; what health is made of.
#[derive(Debug, Default)]
struct Board {
    targets: Mutex<BTreeMap<String, Result<usize, String>>>,
    files: Mutex<Vec<String>>,
}

/// Scrapes until it is told to end.
#[derive(Debug)]
pub struct ScrapeSource {
    name: String,
    settings: Arc<ScrapeConfig>,
}

impl ScrapeSource {
    /// A source of this name.
    pub fn new(name: &str, settings: ScrapeConfig) -> Self {
        Self { name: name.to_owned(), settings: Arc::new(settings) }
    }

    /// The targets of now, and what is wrong. A file that cannot be read keeps the targets that it gave before.
    async fn discover(&self, before: &mut BTreeMap<PathBuf, Vec<TargetGroup>>) -> (BTreeSet<Target>, Vec<String>) {
        let settings = self.settings.clone();
        let files = tokio::task::spawn_blocking(move || {
            let mut found = Vec::new();
            for pattern in &settings.target_files {
                let Ok(paths) = glob::glob(pattern) else {
                    found.push((PathBuf::from(pattern), Err("bad pattern".to_owned())));
                    continue;
                };
                for path in paths.take(1_000).flatten() {
                    let groups = read(&path).map_err(|e| e.to_string());
                    found.push((path, groups));
                }
            }
            found
        });
        let mut wrong = Vec::new();
        let mut now = BTreeMap::new();
        for (path, groups) in files.await.unwrap_or_default() {
            let groups = groups.or_else(|why| {
                wrong.push(format!("{}: {why}", path.display()));
                before.remove(&path).ok_or(())
            });
            if let Ok(groups) = groups {
                now.insert(path, groups);
            }
        }
        *before = now;
        let job = if self.settings.job.is_empty() { &self.name } else { &self.settings.job };
        let defaults = Defaults { job, scheme: &self.settings.scheme, path: &self.settings.metrics_path };
        let (found, bad) = targets(self.settings.static_targets.iter().chain(before.values().flatten()), defaults);
        wrong.extend(bad);
        (found, wrong)
    }
}

#[async_trait]
impl Source for ScrapeSource {
    fn name(&self) -> &str {
        &self.name
    }

    fn kind(&self) -> &'static str {
        "prometheus_scrape"
    }

    async fn run(&mut self, context: &SourceContext) -> Result<(), SourceError> {
        let timeout = Duration::from_secs(self.settings.timeout_secs);
        let client = Client::new(self.settings.credentials.clone(), timeout).map_err(|e| SourceError {
            what: "set up scraping".into(),
            source: Some(Box::new(e)),
            fatal: true,
        })?;
        let board = Arc::new(Board::default());
        let mut running: BTreeMap<Target, CancellationToken> = BTreeMap::new();
        let mut loops = JoinSet::new();
        let mut files = BTreeMap::new();
        let mut refresh = tokio::time::interval(Duration::from_secs(self.settings.refresh_secs.max(1)));
        refresh.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // Ends every loop however this function ends.
        let stop = context.shutdown.child_token();
        let _guard = stop.clone().drop_guard();
        loop {
            tokio::select! {
                () = context.shutdown.cancelled() => break,
                Some(ended) = loops.join_next() => match ended {
                    Ok(Ok(())) => {}
                    Ok(Err(e)) => return Err(e),
                    Err(e) => return Err(SourceError {
                        what: "scrape a target".into(), source: Some(Box::new(e)), fatal: false,
                    }),
                },
                _ = refresh.tick() => {
                    let (now, wrong) = self.discover(&mut files).await;
                    running.retain(|target, token| {
                        let stays = now.contains(target);
                        if !stays {
                            token.cancel();
                            board.targets.lock().remove(&target.url);
                        }
                        stays
                    });
                    for target in now {
                        if running.contains_key(&target) {
                            continue;
                        }
                        let token = stop.child_token();
                        running.insert(target.clone(), token.clone());
                        let one = TargetLoop {
                            source: self.name.clone(),
                            settings: self.settings.clone(),
                            client: client.clone(),
                            context: context.clone(),
                            board: board.clone(),
                            target,
                        };
                        loops.spawn(one.run(token));
                    }
                    *board.files.lock() = wrong;
                    board.report(context, running.len());
                }
            }
        }
        while loops.join_next().await.is_some() {}
        Ok(())
    }
}

impl Board {
    fn report(&self, context: &SourceContext, n_targets: usize) {
        let targets = self.targets.lock();
        let down: Vec<_> = targets.iter().filter_map(|(url, r)| Some((url, r.as_ref().err()?))).collect();
        let up = targets.len() - down.len();
        let mut said = format!("{up} of {n_targets} targets up");
        for (url, why) in down.iter().take(3) {
            said.push_str(&format!("; {url}: {why}"));
        }
        let wrong = self.files.lock();
        for what in wrong.iter().take(3) {
            said.push_str(&format!("; {what}"));
        }
        if n_targets > 0 && down.len() == n_targets {
            context.health.unhealthy(said);
        } else if n_targets == 0 || up < n_targets || !wrong.is_empty() {
            context.health.degraded(said);
        } else {
            context.health.healthy(said);
        }
    }
}

struct TargetLoop {
    source: String,
    settings: Arc<ScrapeConfig>,
    client: Client,
    context: SourceContext,
    board: Arc<Board>,
    target: Target,
}

impl TargetLoop {
    async fn run(self, stop: CancellationToken) -> Result<(), SourceError> {
        let interval = Duration::from_secs(self.settings.interval_secs.max(1));
        // Each target has its own place in the interval, the same after a restart: none are asked together.
        let share = hash64(self.target.url.as_bytes()) as f64 / u64::MAX as f64;
        let first = Instant::now() + interval.min(Duration::from_secs(5)).mul_f64(share);
        let mut ticks = tokio::time::interval_at(first, interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                _ = ticks.tick() => {}
            }
            let scraped = tokio::select! {
                () = stop.cancelled() => return Ok(()),
                scraped = self.scrape() => scraped,
            };
            let (points, outcome) = scraped;
            let mut parcel = Parcel { metrics: points, ..Parcel::default() };
            // A busy sink pauses this target here; its ticks are skipped meanwhile.
            let delivered = tokio::select! {
                () = stop.cancelled() => return Ok(()),
                delivered = deliver(&self.source, &mut parcel, &self.context) => delivered?,
            };
            if delivered.is_none() {
                return Ok(());
            }
            let n = {
                let mut targets = self.board.targets.lock();
                if stop.is_cancelled() {
                    return Ok(());
                }
                targets.insert(self.target.url.clone(), outcome);
                targets.len()
            };
            self.board.report(&self.context, n);
        }
    }

    async fn scrape(&self) -> (Vec<crate::MetricPoint>, Result<usize, String>) {
        let settings = &self.settings;
        let started = Instant::now();
        let at = self.context.clock.now();
        let scrape = Scrape::new(&self.target, settings.honor_labels, settings.honor_timestamps, at);
        let limits = ParseLimits { samples_max: settings.samples_max, ..ParseLimits::default() };
        // Both closures of `fetch` work on them.
        let state = Mutex::new((Parser::new(Dialect::Text, limits), scrape, None));
        let request = self
            .client
            .get(&self.target.url)
            .header("accept", ACCEPT)
            .header("x-prometheus-scrape-timeout-seconds", settings.timeout_secs.to_string());
        let fetched = self.client.fetch(
            request,
            settings.body_bytes_max,
            |status| status.is_success(),
            |content_type| state.lock().0 = Parser::new(Dialect::of(content_type), limits),
            |piece| {
                let (parser, scrape, failed) = &mut *state.lock();
                *failed = parser.push(piece, &mut |sample| scrape.put(sample)).err();
                failed.is_none()
            },
        );
        let fetched = fetched.await;
        let (parser, mut scrape, failed) = state.into_inner();
        let outcome: Result<usize, ScrapeError> = match (fetched, failed) {
            (Err(e), _) => Err(e.into()),
            (Ok(_), Some(e)) => Err(e.into()),
            (Ok(_), None) => parser.finish(&mut |sample| scrape.put(sample)).map_err(Into::into),
        };
        let seconds = started.elapsed().as_secs_f64();
        if let Err(e) = &outcome {
            tracing::debug!(target_url = %self.target.url, error = %e, "failed to scrape a target");
        }
        let points = scrape.finish(outcome.as_ref().ok().copied(), seconds);
        (points, outcome.map_err(|e| e.to_string()))
    }
}
