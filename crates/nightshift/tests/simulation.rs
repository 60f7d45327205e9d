//! The first half of the corridor in virtual time: collect → bus → detect → diagnose → store, with crashes,
//! duplicates, delays, reordering, failing publishes and failing commits drawn from a seed.
//!
//! Everything runs in one thread on the in-memory bus, store and snapshots, by the same turns that `run` calls. What
//! must hold afterwards, for every seed (PURE-2, BUS-3, STATE-1, STORE-1):
//! - every episode is exactly one incident, opened once, and ended; services that were well have none;
//! - the anomalies are those of a run of the same input in which nothing went wrong;
//! - the hash chain is whole;
//! - the same seed gives the same bytes.
#![expect(clippy::unwrap_used, reason = "a test may panic; clippy does not see that helpers are of tests")]

use nightshift::agents::{AgentError, DetectAgent, DetectRooms, IncidentAgent, IncidentParts, RelayAgent, Response};
use nightshift_bus::memory::{MemoryBus, MemoryFaults};
use nightshift_bus::snapshot::MemorySnapshots;
use nightshift_bus::{Bus, MemoryConfig, SnapshotStore, TopicSpec};
use nightshift_collect::ingest::{Ingest, IngestParts};
use nightshift_collect::resolve::{ResolveConfig, Resolver};
use nightshift_collect::{Attributes, MetricPoint, Sink};
use nightshift_health::SelfMetrics;
use nightshift_model::batch::SeriesKind;
use nightshift_model::journal::ChainHash;
use nightshift_model::{Clock, DEFAULT_TENANT, Incident, IncidentStatus, ManualClock, Timestamp, topics};
use nightshift_store::{CommitFault, IncidentFilter, MemoryStore, Store, audit};
use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng as _};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// Services, one series each.
const SERVICES: usize = 6;
/// Seconds of readings.
const SECONDS: i64 = 200;
/// Readings before the first episode: warm-up.
const CALM: i64 = 60;
/// Readings of an episode.
const EPISODE: i64 = 5;
/// Begin of virtual time.
const START: Timestamp = Timestamp(1_800_000_000 * 1_000_000_000);

/// What goes wrong, in thousandths a turn.
#[derive(Clone, Copy)]
struct Chaos {
    crash: u32,
    faults: bool,
}

/// Everything that outlives a crash.
struct World {
    clock: Arc<ManualClock>,
    bus: Arc<MemoryBus>,
    store: Arc<MemoryStore>,
    snapshots: Arc<MemorySnapshots>,
}

/// What dies in a crash.
struct Process {
    ingest: Arc<Ingest>,
    detect: DetectAgent,
    diagnose: IncidentAgent,
    relay: RelayAgent,
    _commands: tokio::sync::mpsc::Sender<nightshift::agents::Command>,
}

impl World {
    fn new() -> Self {
        Self {
            clock: Arc::new(ManualClock::at(START)),
            bus: Arc::new(MemoryBus::new(MemoryConfig::default())),
            store: Arc::new(MemoryStore::new()),
            snapshots: Arc::new(MemorySnapshots::new()),
        }
    }

    async fn start(&self) -> Result<Process, AgentError> {
        let bus: Arc<dyn Bus> = self.bus.clone();
        let store: Arc<dyn Store> = self.store.clone();
        let clock: Arc<dyn Clock> = self.clock.clone();
        let specs: Vec<TopicSpec> =
            topics::ALL.iter().map(|t| TopicSpec { name: t.name.into(), partitions: t.partitions() }).collect();
        bus.ensure_topics(&specs).await?;
        let metrics = SelfMetrics::default();
        let ingest = Ingest::new(IngestParts {
            tenant: DEFAULT_TENANT.into(),
            limits: Default::default(),
            resolver: Arc::new(Resolver::new(ResolveConfig::default(), "simulated", &[])),
            bus: bus.clone(),
            clock: clock.clone(),
            metrics: metrics.clone(),
        });
        let snapshots: Arc<dyn SnapshotStore> = self.snapshots.clone();
        let rooms =
            DetectRooms::new(Default::default(), Default::default(), Default::default(), Default::default()).unwrap();
        let every = Duration::from_secs(7);
        let detect = DetectAgent::start(bus.clone(), snapshots, clock.clone(), metrics.clone(), rooms, every).await?;
        let (sender, commands) = tokio::sync::mpsc::channel(1);
        let diagnose = IncidentAgent::start(IncidentParts {
            bus: bus.clone(),
            store: store.clone(),
            clock: clock.clone(),
            counters: metrics.clone(),
            diagnose: Default::default(),
            declared: Default::default(),
            listeners: Default::default(),
            commands: Arc::new(parking_lot::Mutex::new(commands)),
            response: Response::idle(),
        })
        .await?;
        let relay = RelayAgent::new(bus, store, clock, metrics);
        Ok(Process { ingest, detect, diagnose, relay, _commands: sender })
    }
}

/// One reading of a service.
fn point(service: usize, second: i64, episodes: &BTreeMap<usize, i64>) -> MetricPoint {
    let noise = ((second * 7_919 + service as i64 * 104_729) % 11) as f64 * 0.3;
    let ill = episodes.get(&service).is_some_and(|from| (*from..from + EPISODE).contains(&second));
    let name = format!("service-{service}");
    let resource: Attributes = [("service.name".to_owned(), name)].into();
    MetricPoint {
        resource: Arc::new(resource),
        name: "queue_depth".into(),
        labels: Vec::new(),
        kind: SeriesKind::Gauge,
        at: START + Duration::from_secs(second as u64),
        value: if ill { 400.0 } else { 50.0 + noise },
    }
}

/// What came out of a run.
#[derive(Debug, PartialEq)]
struct Outcome {
    /// Service, onset and last reading of every anomaly that reached the store.
    anomalies: BTreeSet<(String, Timestamp)>,
    incidents: Vec<Incident>,
    head: ChainHash,
    crashes: u32,
}

async fn simulate(seed: u64, chaos: Chaos) -> Outcome {
    let world = World::new();
    let mut rng = SmallRng::seed_from_u64(seed);
    // Half of the services have an episode, each at a time of its own: they are unrelated.
    let mut episodes = BTreeMap::new();
    for service in 0..SERVICES / 2 {
        episodes.insert(service, CALM + rng.random_range(0..(SECONDS - CALM - 80)));
    }
    // The input is drawn apart from the chaos, so that a calm run of the same seed sees the same.
    let mut rng = SmallRng::seed_from_u64(seed ^ 0x9e37_79b9);
    let mut process = start(&world).await;
    let mut crashes = 0;
    // A service may be late by some seconds; its readings then come together, in order.
    let mut held: BTreeMap<usize, Vec<MetricPoint>> = BTreeMap::new();
    let mut sent: Vec<MetricPoint> = Vec::new();
    for second in 0..SECONDS {
        if second == 1 && chaos.faults {
            world.bus.set_faults(faults(rng.random()));
        }
        world.clock.set(START + Duration::from_secs(second as u64));
        for service in 0..SERVICES {
            held.entry(service).or_default().push(point(service, second, &episodes));
        }
        let mut request = Vec::new();
        for points in held.values_mut() {
            let late = chaos.faults && second + 1 < SECONDS && rng.random_range(0..1000) < 100;
            if !late {
                request.append(points);
            }
        }
        if chaos.faults && rng.random_range(0..1000) < 100 {
            // A client that never saw its answer sends the request before once more.
            request.splice(0..0, sent.iter().cloned());
        }
        // A client sends again until it is taken, as Prometheus does.
        while !request.is_empty() {
            match process.ingest.metrics("simulated", request.clone()).await {
                Ok(_) => break,
                Err(_) => turns(&mut process, &mut rng, 2).await,
            }
        }
        sent = request;
        let n = rng.random_range(2..8);
        turns(&mut process, &mut rng, n).await;
        if chaos.faults && rng.random_range(0..1000) < 60 {
            let fault = if rng.random() { CommitFault::BeforeEffect } else { CommitFault::AfterEffect };
            world.store.fail_commit(rng.random_range(1..4), fault);
        }
        if rng.random_range(0..1000) < chaos.crash {
            crashes += 1;
            drop(process);
            world.bus.crash();
            process = start(&world).await;
        }
    }
    // Calm weather; everything that is under way arrives, and time goes on until what healed is resolved.
    world.bus.set_faults(MemoryFaults::default());
    for second in SECONDS..SECONDS + 150 {
        world.clock.set(START + Duration::from_secs(second as u64));
        let request = (0..SERVICES).map(|s| point(s, second, &episodes)).collect();
        if process.ingest.metrics("simulated", request).await.is_err() {
            turns(&mut process, &mut rng, 1).await;
        }
        turns(&mut process, &mut rng, 10).await;
    }
    outcome(&world, crashes).await
}

async fn start(world: &World) -> Process {
    // A start may meet a fault as well; the supervisor of the process tries again.
    for _ in 0..100 {
        if let Ok(process) = world.start().await {
            return process;
        }
    }
    panic!("the process does not start");
}

/// So many turns of agents drawn by lot. A turn that fails is tried again by a later one.
async fn turns(process: &mut Process, rng: &mut SmallRng, n: u32) {
    for _ in 0..n {
        let result = match rng.random_range(0..4) {
            0 | 1 => process.detect.turn(Duration::ZERO).await.map(drop),
            2 => process.diagnose.turn(Duration::ZERO).await.map(drop),
            _ => process.relay.turn().await.map(drop),
        };
        // Which ones fail is part of the plan.
        drop(result);
    }
}

fn faults(seed: u64) -> MemoryFaults {
    MemoryFaults {
        seed,
        publish_fails_before: 30,
        publish_fails_after: 30,
        backpressure: 30,
        duplicate: 50,
        delay: 80,
        delay_polls_max: 6,
        reorder: true,
        commit_fails: 30,
    }
}

async fn outcome(world: &World, crashes: u32) -> Outcome {
    let report = audit::verify(&*world.store, DEFAULT_TENANT, None).await.unwrap();
    assert!(report.is_ok(), "{report:?}");
    let filter = IncidentFilter { synthetic: true, limit: 1000, ..Default::default() };
    let incidents = world.store.incidents(DEFAULT_TENANT, &filter).await.unwrap();
    let anomalies = world
        .store
        .anomalies(DEFAULT_TENANT, &nightshift_store::AnomalyFilter { limit: 10_000, ..Default::default() })
        .await
        .unwrap();
    Outcome {
        anomalies: anomalies.iter().filter(|a| a.score >= 0.5).map(|a| (a.entity.id.name(), a.onset)).collect(),
        incidents,
        head: world.store.chain_head(DEFAULT_TENANT).await.unwrap().hash,
        crashes,
    }
}

fn check(seed: u64, calm: &Outcome, chaotic: &Outcome) {
    let again = format!("repeat with: NIGHTSHIFT_SEED={seed} cargo test -p nightshift --test simulation");
    assert_eq!(calm.anomalies, chaotic.anomalies, "the faults changed what is found; {again}");
    for outcome in [calm, chaotic] {
        let mut by_service: BTreeMap<String, Vec<&Incident>> = BTreeMap::new();
        for incident in outcome.incidents.iter().filter(|i| i.merged_into.is_none()) {
            let names: BTreeSet<String> = incident.anomalies.iter().map(|a| a.entity.id.name()).collect();
            assert_eq!(names.len(), 1, "unrelated services were joined: {names:?}; {again}");
            by_service.entry(names.into_iter().next().unwrap()).or_default().push(incident);
        }
        let ill: Vec<String> = (0..SERVICES / 2).map(|s| format!("service-{s}")).collect();
        let of_the_well: Vec<_> = by_service
            .iter()
            .filter(|(name, _)| !ill.contains(name))
            .flat_map(|(_, incidents)| incidents.iter().flat_map(|i| &i.anomalies))
            .map(|a| {
                format!(
                    "{} {:.2} {} at {}: {}",
                    a.entity.id.name(),
                    a.score,
                    a.explanation.model,
                    a.onset,
                    a.description
                )
            })
            .collect();
        assert!(of_the_well.is_empty(), "what is well has incidents: {of_the_well:#?}; {again}");
        assert_eq!(by_service.keys().cloned().collect::<Vec<_>>(), ill, "{again}");
        for (service, incidents) in by_service {
            assert_eq!(incidents.len(), 1, "{service} has {} incidents; {again}", incidents.len());
            assert_eq!(incidents[0].status, IncidentStatus::Resolved, "{service} did not end; {again}");
            assert!(incidents[0].rca_revision >= 1, "{service} was never explained; {again}");
        }
        let numbers: BTreeSet<u64> = outcome.incidents.iter().map(|i| i.number).collect();
        assert_eq!(numbers.len(), outcome.incidents.len(), "a number was given twice; {again}");
    }
}

fn run<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(work)
}

fn seeds() -> Vec<u64> {
    match std::env::var("NIGHTSHIFT_SEED").ok().and_then(|s| s.parse().ok()) {
        Some(seed) => vec![seed],
        None if std::env::var_os("NIGHTSHIFT_LONG").is_some() => (0..1000).collect(),
        None => (0..100).collect(),
    }
}

#[test]
fn whatever_goes_wrong_every_episode_is_one_incident() {
    let mut crashes = 0;
    for seed in seeds() {
        let calm = run(simulate(seed, Chaos { crash: 0, faults: false }));
        let chaotic = run(simulate(seed, Chaos { crash: 40, faults: true }));
        check(seed, &calm, &chaotic);
        crashes += chaotic.crashes;
    }
    assert!(crashes > 0, "a simulation in which nothing crashes shows nothing");
    println!("{} seeds, {crashes} crashes", seeds().len());
}

/// PURE-2.
#[test]
fn the_same_seed_gives_the_same_bytes() {
    for seed in seeds().into_iter().take(5) {
        let (a, b) = (
            run(simulate(seed, Chaos { crash: 40, faults: true })),
            run(simulate(seed, Chaos { crash: 40, faults: true })),
        );
        assert_eq!(a, b, "NIGHTSHIFT_SEED={seed}");
    }
}
