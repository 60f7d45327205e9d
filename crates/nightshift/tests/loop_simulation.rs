//! The second half of the corridor in virtual time: incident agent, relay, store and an actuator, with crashes at every
//! checkpoint, records that come twice, late and out of order, commits that fail, answers that get lost.
//!
//! What must hold afterwards, for every seed (ACT-1, ACT-2, STORE-1, STATE-1):
//! - every episode is exactly one incident, opened once, and none is left in between: it is resolved, or a person was
//!   called;
//! - no operation had its effect twice, and none that was intended has no outcome;
//! - nothing was changed without a verdict or a person that allowed it;
//! - the hash chain is whole;
//! - the same seed gives the same bytes.
#![expect(clippy::unwrap_used, reason = "a test may panic; clippy does not see that helpers are of tests")]

use async_trait::async_trait;
use nightshift::agents::{AgentError, Command, Declared, IncidentAgent, IncidentParts, RelayAgent, Response};
use nightshift_act::{ActError, Actuator, Answer, Declares, Executor};
use nightshift_bus::memory::{MemoryBus, MemoryFaults};
use nightshift_bus::{Bus, MemoryConfig, Outgoing, TopicSpec};
use nightshift_guard::Policies;
use nightshift_health::SelfMetrics;
use nightshift_model::batch::{BatchBuilder, BatchView, MetricColumns, SeriesKind, labels};
use nightshift_model::journal::ChainHash;
use nightshift_model::{
    Action, ActionOutcome, ActionType, Anomaly, AnomalyKind, ApprovalState, Clock, DEFAULT_TENANT, Decision, Direction,
    EntityId, EntityMeta, Envelope, EnvelopeId, EventKind, Explanation, FaultClass, Image, Incident, IncidentStatus,
    JournalEvent, ManualClock, OccurrenceId, Operation, PersonAction, PersonVerb, Phase, Routing, Severity, Timestamp,
    topics,
};
use nightshift_store::{CommitFault, IncidentFilter, MemoryStore, Role, Store, audit};
use nightshift_topology::{TopologyConfig, TopologyFile};
use parking_lot::Mutex;
use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng as _};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, LazyLock};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};

const START: Timestamp = Timestamp(1_800_000_000 * 1_000_000_000);
const SERVICES: usize = 2;
/// Seconds of stormy weather, and of the calm after it: longer than every timer of the loop.
const STORM: i64 = 60;
const CALM: i64 = 420;

const TOPOLOGY: &str = "
services:
  - { name: service-0, namespace: shop, criticality: P0, owner: a, on_call: a-oncall, environment: production, attributes: { replicas_min: 1, replicas_max: 12 } }
  - { name: service-1, namespace: shop, criticality: P2, owner: b, on_call: b-oncall, environment: production, attributes: { replicas_min: 1, replicas_max: 12 } }
";

fn entity(service: usize) -> EntityId {
    EntityId::new("local", "service", "shop", &format!("service-{service}"))
}

/// What the world does to those who act on it, drawn from the seed.
#[derive(Clone, Copy)]
struct Mood {
    /// An apply has its effect and its answer is lost, in thousandths.
    lost: u32,
    /// An apply has no effect and says so.
    fails: u32,
    /// A fix that is done does not help.
    useless: bool,
}

/// The estate as the actuator sees it. It outlives every crash.
struct Estate {
    rng: SmallRng,
    mood: Mood,
    replicas: BTreeMap<EntityId, u64>,
    /// Effects by key, and who ordered them.
    effects: BTreeMap<String, u32>,
    undone: BTreeSet<String>,
    fence: u64,
    /// Since when a target is well because of what was done.
    healed: BTreeSet<EntityId>,
}

#[derive(Clone)]
struct Hands(Arc<Mutex<Estate>>);

#[async_trait]
impl Actuator for Hands {
    fn kind(&self) -> &'static str {
        "estate"
    }

    fn declares(&self) -> Declares {
        // Not idempotent: an effect that is ordered twice would show.
        Declares { idempotent: false, observable: true, dry_run: true, canary: false }
    }

    fn handles(&self, _: ActionType, _: &EntityId) -> bool {
        true
    }

    async fn look(&self, target: &EntityId, _: ActionType) -> Result<Image, ActError> {
        let estate = self.0.lock();
        let replicas = estate.replicas.get(target).copied().unwrap_or(3);
        let facts = [("replicas", replicas), ("replicas_min", 1), ("replicas_max", 12), ("request_rate", 100)];
        Ok(facts.into_iter().map(|(k, v)| (k.to_owned(), v.into())).collect())
    }

    async fn perform(&self, action: &Action) -> Result<Answer, ActError> {
        let image = self.look(&action.target, action.action).await?;
        let answer = |outcome, image| Ok(Answer { outcome, detail: String::new(), image });
        let result = {
            let mut estate = self.0.lock();
            assert!(action.fence >= estate.fence, "an order of an earlier worker arrived after one of a later");
            estate.fence = action.fence;
            match action.operation {
                Operation::Prepare | Operation::DryRun => return answer(ActionOutcome::Done, image),
                Operation::Observe => {
                    let done = estate.effects.contains_key(&action.key);
                    return answer(if done { ActionOutcome::FoundDone } else { ActionOutcome::Failed }, image);
                }
                Operation::Canary | Operation::Apply | Operation::Undo => {
                    let (lost, fails) = (estate.mood.lost, estate.mood.fails);
                    if estate.rng.random_range(0..1000) < fails {
                        Err(ActError::NotDone("not now".into()))
                    } else {
                        *estate.effects.entry(action.key.clone()).or_default() += 1;
                        if action.operation == Operation::Undo {
                            estate.undone.insert(action.key.clone());
                            estate.healed.remove(&action.target);
                        } else if !estate.mood.useless {
                            estate.healed.insert(action.target.clone());
                        }
                        if let Some(n) = action.params.get("replicas").and_then(serde_json::Value::as_u64) {
                            estate.replicas.insert(action.target.clone(), n);
                        }
                        if estate.rng.random_range(0..1000) < lost {
                            Err(ActError::Uncertain("the answer was lost".into()))
                        } else {
                            Ok(Answer { outcome: ActionOutcome::Done, detail: String::new(), image })
                        }
                    }
                }
            }
        };
        // Between the effect and its answer: whoever dies here does not know.
        tokio::task::yield_now().await;
        tokio::task::yield_now().await;
        result
    }
}

/// Built once: policies are compiled for all seeds.
static ROOMS: LazyLock<Response> = LazyLock::new(|| {
    let mut response = Response::idle();
    // A starved machine must not decide what the guard says.
    response.policies = Policies::with_shipped(&[], &[], Duration::from_secs(60)).unwrap();
    response.guard.dry_run = false;
    response.guard.approval_timeout_secs = 60;
    response
});

struct World {
    clock: Arc<ManualClock>,
    bus: Arc<MemoryBus>,
    store: Arc<MemoryStore>,
    estate: Arc<Mutex<Estate>>,
}

struct Process {
    agent: IncidentAgent,
    relay: RelayAgent,
    response: Response,
    commands: mpsc::Sender<Command>,
}

impl World {
    async fn start(&self) -> Result<Process, AgentError> {
        let (bus, store): (Arc<dyn Bus>, Arc<dyn Store>) = (self.bus.clone(), self.store.clone());
        let clock: Arc<dyn Clock> = self.clock.clone();
        let specs: Vec<TopicSpec> =
            topics::ALL.iter().map(|t| TopicSpec { name: t.name.into(), partitions: t.partitions() }).collect();
        bus.ensure_topics(&specs).await?;
        let actuators: BTreeMap<String, Arc<dyn Actuator>> =
            [("estate".to_owned(), Arc::new(Hands(self.estate.clone())) as Arc<dyn Actuator>)].into();
        let executor = Executor::new(actuators, clock.clone());
        let response = Response {
            actuators: Arc::new(executor.declares()),
            executor: Arc::new(executor),
            feed: Arc::default(),
            switch: Arc::default(),
            ..ROOMS.clone()
        };
        let (commands, asked) = mpsc::channel(16);
        let file = TopologyFile::parse(TOPOLOGY, "local").unwrap();
        let agent = IncidentAgent::start(IncidentParts {
            bus: bus.clone(),
            store: store.clone(),
            clock: clock.clone(),
            counters: SelfMetrics::default(),
            diagnose: Default::default(),
            declared: Declared { config: TopologyConfig::default(), file },
            listeners: Default::default(),
            commands: Arc::new(Mutex::new(asked)),
            response: response.clone(),
        })
        .await?;
        let relay = RelayAgent::new(bus, store, clock, SelfMetrics::default());
        Ok(Process { agent, relay, response, commands })
    }

    /// A start may meet a fault as well; the supervisor of the process tries again.
    async fn started(&self) -> Process {
        for _ in 0..100 {
            if let Ok(process) = self.start().await {
                return process;
            }
        }
        panic!("the process does not start");
    }

    fn value(&self, service: usize, second: i64, onset: i64, end: i64) -> f64 {
        let ill = (onset..end).contains(&second) && !self.estate.lock().healed.contains(&entity(service));
        if ill { 97.0 } else { 40.0 }
    }
}

fn anomaly(service: usize, onset: i64, at: i64, phase: Phase) -> Anomaly {
    let meta = EntityMeta { service: format!("service-{service}"), ..EntityMeta::bare(entity(service)) };
    let labels = BTreeMap::new();
    let (kind, signal) = (AnomalyKind::Statistical, "service_cpu_percent");
    let fingerprint = Anomaly::fingerprint_of(DEFAULT_TENANT, meta.id.as_str(), kind, signal, &labels);
    let onset = START + Duration::from_secs(onset as u64);
    Anomaly {
        id: OccurrenceId::derive(fingerprint, onset),
        fingerprint,
        tenant: DEFAULT_TENANT.into(),
        entity: meta,
        kind,
        signal: signal.into(),
        labels,
        onset,
        last_seen: START + Duration::from_secs(at as u64),
        phase,
        score: 0.97,
        severity: Severity::Critical,
        direction: Direction::Up,
        fault: FaultClass::CpuSaturation,
        description: "value 97 deviates 20 sigma from 40".into(),
        explanation: Explanation {
            observed: Some(97.0),
            expected: Some(40.0),
            lower: Some(30.0),
            upper: Some(50.0),
            sigma: Some(20.0),
            model: "zscore".into(),
            model_version: 1,
            ..Explanation::default()
        },
        source: "simulation".into(),
    }
}

fn record(a: &Anomaly) -> Outgoing {
    let id = EnvelopeId::derive(&[&a.id.to_bytes(), &[a.phase as u8], &a.last_seen.0.to_be_bytes()]);
    let routing = Routing::Key(DEFAULT_TENANT.into());
    let schema = "nightshift.v1.Anomaly";
    let e = Envelope::json(id, DEFAULT_TENANT, routing.clone(), schema, a.last_seen, a.last_seen, a).unwrap();
    Outgoing { routing, bytes: e.encode() }
}

/// One reading of every service, as the detector of the process would hand it over.
fn read(process: &Process, values: &[f64], at: Timestamp) {
    for (service, value) in values.iter().enumerate() {
        let mut batch = BatchBuilder::default();
        let index = batch.entity(&EntityMeta::bare(entity(service)));
        batch.series(
            service as u64 + 1,
            index,
            SeriesKind::Gauge,
            &labels::encode([(labels::NAME, "service_cpu_percent")]),
        );
        batch.sample(at, *value);
        let payload = batch.finish("simulation");
        let mut view = BatchView::parse(&payload).unwrap();
        let mut columns = MetricColumns::default();
        view.metrics(&mut columns).unwrap();
        process.response.feed.batch(DEFAULT_TENANT, &view, &columns);
    }
}

#[derive(Debug, PartialEq)]
struct Outcome {
    incidents: Vec<Incident>,
    rows: Vec<JournalEvent>,
    head: ChainHash,
    effects: BTreeMap<String, u32>,
    crashes: u32,
}

async fn simulate(seed: u64, stormy: bool) -> Outcome {
    let mut rng = SmallRng::seed_from_u64(seed);
    let mood = Mood {
        lost: if stormy { 150 } else { 0 },
        fails: if stormy { 150 } else { 0 },
        useless: stormy && rng.random_range(0..5) == 0,
    };
    let world = World {
        clock: Arc::new(ManualClock::at(START)),
        bus: Arc::new(MemoryBus::new(MemoryConfig::default())),
        store: Arc::new(MemoryStore::new()),
        estate: Arc::new(Mutex::new(Estate {
            rng: SmallRng::seed_from_u64(seed ^ 0x5eed),
            mood,
            replicas: BTreeMap::new(),
            effects: BTreeMap::new(),
            undone: BTreeSet::new(),
            fence: 0,
            healed: BTreeSet::new(),
        })),
    };
    let onsets: Vec<i64> = (0..SERVICES).map(|_| rng.random_range(3..20)).collect();
    let end = STORM + 120;
    let mut open = [false; SERVICES];
    let mut process = world.started().await;
    if stormy {
        world.bus.set_faults(MemoryFaults {
            seed: rng.random(),
            publish_fails_before: 20,
            publish_fails_after: 20,
            backpressure: 20,
            duplicate: 80,
            delay: 80,
            delay_polls_max: 5,
            reorder: true,
            commit_fails: 20,
        });
        // Of all the checkpoints of a run, the seed names the one at which it dies for certain.
        world.store.fail_commit(1 + seed % 60, CommitFault::AfterEffect);
    }
    let mut crashes = 0;
    let mut asked: BTreeSet<String> = BTreeSet::new();
    // After the storm a step is three seconds: only timers matter then.
    for second in (0..STORM).chain((STORM..STORM + CALM).step_by(3)) {
        let now = START + Duration::from_secs(second as u64);
        world.clock.set(now);
        let storm = stormy && second < STORM;
        if second == STORM {
            world.bus.set_faults(MemoryFaults::default());
            world.estate.lock().mood = Mood { lost: 0, fails: 0, ..mood };
        }
        let values: Vec<f64> = (0..SERVICES).map(|s| world.value(s, second, onsets[s], end)).collect();
        for service in 0..SERVICES {
            let ill = values[service] > 90.0;
            let phase = match (open[service], ill) {
                (false, true) => Phase::Open,
                (true, true) if second % 15 == 0 => Phase::Update,
                (true, false) => Phase::Closed,
                _ => continue,
            };
            open[service] = ill;
            let a = anomaly(service, onsets[service], second, phase);
            // The detector keeps what is not durable and sends it again.
            while world.bus.publish(topics::ANOMALIES_DETECTED.name, vec![record(&a)]).await.is_err() {}
        }
        // Readings get lost, too: they are no state.
        if !storm || rng.random_range(0..10) > 0 {
            read(&process, &values, now);
        }
        let turns = if storm { rng.random_range(2..7) } else { 3 };
        for _ in 0..turns {
            // Wakes what yielded: nothing else here ever waits.
            tokio::task::yield_now().await;
            // Which ones fail is part of the plan.
            match rng.random_range(0..4) {
                0 => drop(process.relay.turn().await),
                _ => drop(process.agent.turn(Duration::ZERO).await),
            }
            if storm && rng.random_range(0..1000) < 25 {
                crashes += 1;
                drop(process);
                world.bus.crash();
                process = world.started().await;
            }
        }
        if storm && rng.random_range(0..1000) < 60 {
            let fault = if rng.random() { CommitFault::BeforeEffect } else { CommitFault::AfterEffect };
            world.store.fail_commit(rng.random_range(1..6), fault);
        }
        // A person answers what is asked, after some seconds, one way or the other.
        if second % 9 == 0 {
            answer(&world, &process, &mut asked, &mut rng).await;
        }
    }
    let report = audit::verify(&*world.store, DEFAULT_TENANT, None).await.unwrap();
    assert!(report.is_ok(), "{report:?}");
    let filter = IncidentFilter { synthetic: true, limit: 1000, ..Default::default() };
    let effects = world.estate.lock().effects.clone();
    Outcome {
        incidents: world.store.incidents(DEFAULT_TENANT, &filter).await.unwrap(),
        rows: world.store.journal(DEFAULT_TENANT, 1, 100_000).await.unwrap(),
        head: world.store.chain_head(DEFAULT_TENANT).await.unwrap().hash,
        effects,
        crashes,
    }
}

async fn answer(world: &World, process: &Process, asked: &mut BTreeSet<String>, rng: &mut SmallRng) {
    let filter = IncidentFilter { limit: 100, ..Default::default() };
    for incident in world.store.incidents(DEFAULT_TENANT, &filter).await.unwrap() {
        let Some(ApprovalState::Asked { plan, .. }) = incident.approval else { continue };
        if !asked.insert(plan.to_string()) {
            continue;
        }
        let verb = match rng.random_range(0..4) {
            0 => PersonVerb::Reject { plan, why: "no".into() },
            1 => continue,
            _ => PersonVerb::Approve { plan, note: String::new() },
        };
        let action = PersonAction { incident: incident.id, actor: "ann".into(), verb };
        let (reply, _) = oneshot::channel();
        let command = Command::Person { tenant: DEFAULT_TENANT.into(), action, role: Role::Admin, reply };
        drop(process.commands.try_send(command));
    }
}

/// What happened to an incident, a line each.
fn told(incident: &Incident) -> String {
    let lines = incident.timeline.iter().map(|t| format!("{} {}: {}", t.at, t.action, t.detail));
    format!("{} is {}\n{}", incident.short_id(), incident.status, lines.collect::<Vec<_>>().join("\n"))
}

fn check(seed: u64, outcome: &Outcome) {
    let again = format!("repeat with: NIGHTSHIFT_SEED={seed} cargo test -p nightshift --test loop_simulation");
    let mut by_service: BTreeMap<String, u32> = BTreeMap::new();
    for incident in outcome.incidents.iter().filter(|i| i.merged_into.is_none()) {
        for name in incident.anomalies.iter().map(|a| a.entity.id.name()).collect::<BTreeSet<_>>() {
            *by_service.entry(name).or_default() += 1;
        }
        let ended = matches!(incident.status, IncidentStatus::Resolved | IncidentStatus::Escalated);
        assert!(ended, "left in between: {}; {again}", told(incident));
    }
    let each_once: BTreeMap<String, u32> = (0..SERVICES).map(|s| (format!("service-{s}"), 1)).collect();
    assert_eq!(by_service, each_once, "an incident was lost or opened twice; {again}");
    for (key, times) in &outcome.effects {
        assert_eq!(*times, 1, "`{key}` had its effect {times} times; {again}");
    }
    let mut intents: BTreeMap<&str, i32> = BTreeMap::new();
    let mut allowed: BTreeSet<String> = BTreeSet::new();
    for row in &outcome.rows {
        match &row.event {
            EventKind::Judged { verdict } if verdict.decision == Decision::Execute => {
                allowed.insert(verdict.plan.to_string());
            }
            EventKind::Approved { plan, .. } => {
                allowed.insert(plan.to_string());
            }
            EventKind::ActionIntended { action } if action.operation.changes() => {
                assert!(allowed.contains(&action.plan.to_string()), "changed without leave: {action:?}; {again}");
                *intents.entry(&action.key).or_default() += 1;
            }
            EventKind::ActionEnded { key, .. } if intents.contains_key(key.as_str()) => {
                *intents.entry(key).or_default() -= 1;
            }
            _ => {}
        }
    }
    let forgotten: Vec<_> = intents.iter().filter(|(_, open)| **open > 0).collect();
    assert!(forgotten.is_empty(), "intended and never heard of again: {forgotten:?}; {again}");
    for key in outcome.effects.keys() {
        assert!(intents.contains_key(key.as_str()), "`{key}` had an effect without an intent; {again}");
    }
}

fn run<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(work)
}

fn seeds() -> Vec<u64> {
    match std::env::var("NIGHTSHIFT_SEED").ok().and_then(|s| s.parse().ok()) {
        Some(seed) => vec![seed],
        // Ten thousand take an optimised build: `make test-long` runs this test once more with one.
        None if std::env::var_os("NIGHTSHIFT_LONG").is_some() && !cfg!(debug_assertions) => (0..10_000).collect(),
        None => (0..500).collect(),
    }
}

/// ACT-1, ACT-2.
#[test]
fn no_step_runs_twice_and_no_incident_is_lost_whatever_goes_wrong() {
    let (mut crashes, mut effects, mut resolved) = (0, 0, 0);
    let seeds = seeds();
    // Two threads: seeds know nothing of each other.
    let outcomes: Vec<(u64, Outcome)> = std::thread::scope(|scope| {
        let work = |half: usize| {
            let mine: Vec<u64> = seeds.iter().copied().skip(half).step_by(2).collect();
            move || mine.into_iter().map(|seed| (seed, run(simulate(seed, true)))).collect::<Vec<_>>()
        };
        let (a, b) = (scope.spawn(work(0)), scope.spawn(work(1)));
        [a, b].into_iter().flat_map(|t| t.join().unwrap()).collect()
    });
    for (seed, outcome) in &outcomes {
        check(*seed, outcome);
        crashes += outcome.crashes;
        effects += outcome.effects.len();
        resolved += outcome.incidents.iter().filter(|i| i.status == IncidentStatus::Resolved).count();
    }
    println!("{} seeds, {crashes} crashes, {effects} effects, {resolved} incidents resolved", outcomes.len());
    assert!(crashes > 0 && effects > 0 && resolved > 0, "a simulation in which nothing happens shows nothing");
}

/// In calm weather the critical service heals by itself.
#[test]
fn in_calm_weather_it_is_fixed_and_verified() {
    let outcome = run(simulate(7, false));
    check(7, &outcome);
    let fixed = outcome.incidents.iter().find(|i| i.anomalies.iter().any(|a| a.entity.id == entity(0))).unwrap();
    assert_eq!(fixed.status, IncidentStatus::Resolved, "{}", told(fixed));
    assert!(fixed.verified_at.is_some() && !outcome.effects.is_empty(), "{}", told(fixed));
}

/// PURE-2.
#[test]
fn the_same_seed_gives_the_same_bytes() {
    for seed in seeds().into_iter().take(3) {
        let (a, b) = (run(simulate(seed, true)), run(simulate(seed, true)));
        assert_eq!(a.head, b.head, "NIGHTSHIFT_SEED={seed}");
        assert_eq!(a, b, "NIGHTSHIFT_SEED={seed}");
    }
}
