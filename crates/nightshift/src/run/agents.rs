//! The agents as tasks of the service: each is made, turned again and again, and paused when it fails.

use super::upkeep::Upkeep;
use super::{MODELS_EVERY, PAUSE_MAX, RELAY_EVERY, Service, TURN_WAIT};
use crate::agents::{
    AgentError, Command, Declared, DetectAgent, DetectRooms, Feed, IncidentAgent, IncidentParts, Listeners,
    ModelsAgent, RelayAgent, Response,
};
use anyhow::{Context as _, anyhow};
use nightshift_api::StreamEvent;
use nightshift_bus::SnapshotStore;
use nightshift_health::Reporter;
use parking_lot::{Mutex, RwLock};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{broadcast, mpsc};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

impl Service {
    pub(super) fn start_detect(&self, snapshots: Arc<dyn SnapshotStore>, rooms: DetectRooms) -> JoinHandle<()> {
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

    /// Opens what is learned and the versions, and sets the model that the detectors begin with.
    pub(super) async fn open_models(&self, rooms: &mut DetectRooms, data: &Path) -> anyhow::Result<ModelsAgent> {
        let (store, clock) = (self.store.clone(), self.clock.clone());
        let (base, config) = (self.settings.detect.metrics.clone(), self.settings.models.clone());
        let models = ModelsAgent::open(store, clock, &self.settings.tenant, base, config, data).await;
        let models = models.context("open the models")?;
        rooms.feed.tap(models.tap());
        rooms.models = models.live();
        Ok(models)
    }

    pub(super) fn start_models(&self, mut models: ModelsAgent) -> JoinHandle<()> {
        let (stop, health) = (self.stop_agents.clone(), self.board.reporter("model-keeper"));
        tokio::spawn(async move {
            let mut pause = Pause::default();
            let mut said = String::new();
            while !stop.is_cancelled() {
                match models.turn().await {
                    Ok(()) => {
                        pause.failures = 0;
                        let word = models.word();
                        if word != said {
                            health.healthy(word.clone());
                            said = word;
                        }
                        tokio::select! {
                            () = stop.cancelled() => {}
                            () = tokio::time::sleep(MODELS_EVERY) => {}
                        }
                    }
                    Err(e) => {
                        said.clear();
                        pause.failed(&health, &stop, &e).await;
                    }
                }
            }
            if let Err(e) = models.save() {
                tracing::warn!("put what is learned away: {:#}", anyhow!(e));
            }
        })
    }

    pub(super) fn start_incident(
        &self,
        declared: Declared,
        listeners: Listeners,
        asked: mpsc::Receiver<Command>,
        response: Response,
    ) -> JoinHandle<()> {
        let parts = IncidentParts {
            bus: self.bus.clone(),
            store: self.store.clone(),
            clock: self.clock.clone(),
            counters: self.counters.clone(),
            diagnose: self.settings.diagnose.clone(),
            declared,
            listeners,
            commands: Arc::new(Mutex::new(asked)),
            response,
        };
        let stop = self.stop_agents.clone();
        let (analyzer, responder) =
            (self.board.reporter("root-cause-analyzer"), self.board.reporter("incident-responder"));
        tokio::spawn(async move {
            let make = || IncidentAgent::start(parts.clone());
            let mut pause = Pause::default();
            let Some(mut agent) = pause.start(&analyzer, &stop, make).await else { return };
            let mut said = None;
            while !stop.is_cancelled() {
                match agent.turn(TURN_WAIT).await {
                    Ok(turn) => {
                        pause.well(&analyzer, turn.records, "records analysed");
                        let word = agent.responding();
                        if said.as_ref() != Some(&word) {
                            responder.healthy(word.clone());
                            said = Some(word);
                        }
                    }
                    Err(e) => {
                        responder.degraded("waits for the analyzer to recover");
                        said = None;
                        pause.failed(&analyzer, &stop, &e).await;
                    }
                }
            }
        })
    }

    pub(super) fn start_relay(&self, feed: Arc<Feed>) -> JoinHandle<()> {
        let mut relay =
            RelayAgent::new(self.bus.clone(), self.store.clone(), self.clock.clone(), self.counters.clone());
        let (stop, health) = (self.stop_agents.clone(), self.board.reporter("incident-relay"));
        tokio::spawn(async move {
            let mut pause = Pause::default();
            while !stop.is_cancelled() {
                match relay.turn().await {
                    Ok(turn) => {
                        pause.well(&health, turn.records, "journal rows told");
                        if !turn.progressed {
                            tokio::select! {
                                () = feed.journal_grown() => {}
                                () = tokio::time::sleep(RELAY_EVERY) => {}
                            }
                        }
                    }
                    Err(e) => pause.failed(&health, &stop, &e).await,
                }
            }
        })
    }

    pub(super) fn upkeep(
        &self,
        lag: Arc<RwLock<BTreeMap<String, u64>>>,
        events: broadcast::Sender<StreamEvent>,
    ) -> Upkeep {
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
