//! kill -9 of a process that carries a plan out, at any moment, with a journal in a file: after the restart the rule
//! holds. Nothing is done twice, nothing is forgotten, and what nobody can know is said to be unknown.
#![expect(clippy::unwrap_used, reason = "a test may panic; clippy does not see that helpers are of tests")]
#![allow(dead_code, reason = "the helpers are shared with the conformance tests")]

#[path = "support/kinds.rs"]
mod kinds;
mod support;

use kinds::{Receiver, command_of, count_in, lay_out};
use nightshift_act::{
    Actuator, ActuatorConfig, Declares, Effect, Event, Execution, Executor, Finish, Options, WebhookConfig, key_of,
};
use nightshift_guard::{Ask, Facts, Guard, GuardConfig, IncidentFacts, Policies, Request, TargetFacts};
use nightshift_model::{Action, ManualClock, Operation, Plan, Rollback, Timestamp};
use nightshift_topology::Criticality;
use serde_json::json;
use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;
use support::{START, kpi, plan, step};

const CHILD: &str = "NIGHTSHIFT_ACT_CRASH_FOLDER";
const DAWDLE: &str = "NIGHTSHIFT_ACT_CRASH_DAWDLE";

fn the_plan() -> Plan {
    let mut steps = vec![
        step("one", "payment", json!({"replicas": 5}), Rollback::Restore),
        step("two", "payment", json!({"replicas": 6}), Rollback::Restore),
    ];
    for step in &mut steps {
        step.actuator = "checked".into();
        step.deadline_secs = 30;
    }
    plan(steps)
}

/// The state and the rows of the journal, replaced whole: one commit.
#[derive(serde::Serialize, serde::Deserialize)]
struct Saved {
    execution: Execution,
    intended: Vec<String>,
    ended: Vec<(String, String)>,
    now: Timestamp,
}

fn load(folder: &Path) -> Option<Saved> {
    let bytes = std::fs::read(folder.join("journal")).ok()?;
    Some(serde_json::from_slice(&bytes).unwrap())
}

fn commit(folder: &Path, saved: &Saved) {
    let new = folder.join("journal.new");
    let mut file = std::fs::File::create(&new).unwrap();
    file.write_all(&serde_json::to_vec(saved).unwrap()).unwrap();
    file.sync_all().unwrap();
    std::fs::rename(new, folder.join("journal")).unwrap();
}

fn actuator(folder: &Path, clock: Arc<ManualClock>) -> Arc<dyn Actuator> {
    let declares: Declares = serde_json::from_slice(&std::fs::read(folder.join("declares")).unwrap()).unwrap();
    let config = match std::fs::read_to_string(folder.join("url")) {
        Ok(url) => {
            let Declares { idempotent, observable, dry_run, canary } = declares;
            ActuatorConfig::Webhook(WebhookConfig {
                url: url.into(),
                secret: Some(kinds::SECRET.into()),
                actions: vec![nightshift_model::ActionType::ScaleDeployment],
                idempotent,
                observable,
                dry_run,
                canary,
                ..WebhookConfig::default()
            })
        }
        Err(_) => ActuatorConfig::Command(command_of(folder, declares)),
    };
    config.build(clock).unwrap()
}

/// Where a life stands still until it is killed: `before 1` is between the intent of the second apply and its order,
/// `after 0` between the effect of the first one and its outcome. Empty: nowhere.
struct Dawdle(String);

impl Dawdle {
    async fn at(&self, place: &str, order: &Action) {
        if order.operation == Operation::Apply && self.0 == format!("{place} {}", order.step) {
            tokio::time::sleep(Duration::from_secs(600)).await;
        }
    }
}

/// Carries the plan out to its end, or until it is killed. `fence`: of this life.
async fn carry_out(folder: &Path, fence: u64, dawdle: Dawdle) -> Saved {
    let plan = the_plan();
    let saved = load(folder);
    let mut now = saved.as_ref().map_or(START, |s| s.now);
    let clock = Arc::new(ManualClock::at(now));
    let executor =
        Executor::new(BTreeMap::from([("checked".to_owned(), actuator(folder, Arc::clone(&clock)))]), clock.clone());
    let mut config = GuardConfig { dry_run: false, cooldown_secs: 0, ..GuardConfig::default() };
    config.breaker.attempts_max = 1_000;
    let mut guard = Guard::new(config, Policies::none());
    let target = TargetFacts {
        criticality: Some(Criticality::P0),
        replicas: Some(3),
        replicas_max: Some(8),
        ..TargetFacts::default()
    };
    let facts = Facts {
        incident: IncidentFacts { id: plan.incident, ..IncidentFacts::default() },
        targets: [(support::service("payment"), target)].into(),
        ..Facts::default()
    };
    let (mut saved, mut effects) = match saved {
        Some(mut saved) => {
            let effects = saved.execution.step(Event::Recovered { fence, worker: fence.to_string() }, now);
            (saved, effects)
        }
        None => {
            let actuators = executor.declares();
            let options = Options { dry_run: false, synthetic: false, fence, worker: "1".into(), actuators };
            let (execution, effects) = Execution::begin(plan.clone(), options, now);
            (Saved { execution, intended: Vec::new(), ended: Vec::new(), now }, effects)
        }
    };
    loop {
        for effect in &effects {
            match effect {
                Effect::Intend(action) => saved.intended.push(action.key.clone()),
                Effect::End { key, outcome, .. } => saved.ended.push((key.clone(), outcome.to_string())),
                _ => {}
            }
        }
        saved.now = now;
        commit(folder, &saved);
        if saved.execution.is_over() {
            return saved;
        }
        let mut event = None;
        for effect in effects {
            match effect {
                Effect::Order(order) => {
                    dawdle.at("before", &order).await;
                    let answer = executor.carry_out(&order).await;
                    dawdle.at("after", &order).await;
                    event = Some(Event::ended(&order, answer));
                }
                Effect::AskPermit { step, operation } => {
                    let ask = Ask { plan: &plan, facts: &facts };
                    event = Some(match guard.permit(&ask, Request { step, operation, fence }, now) {
                        Ok(permit) => Event::Permitted(permit),
                        Err(verdict) => panic!("{}", verdict.summary()),
                    });
                }
                _ => {}
            }
        }
        // Time passes only when there is nothing else to do.
        let event = event.unwrap_or_else(|| {
            now = now + Duration::from_secs(1);
            clock.set(now);
            Event::Reading { kpi: kpi(), at: now, value: 300.0 }
        });
        effects = saved.execution.step(event, now);
    }
}

/// The life of the process that is killed. Does nothing unless it is that process.
#[tokio::test(flavor = "multi_thread")]
async fn child() {
    if let Ok(folder) = std::env::var(CHILD) {
        let dawdle = Dawdle(std::env::var(DAWDLE).unwrap());
        carry_out(Path::new(&folder), 1, dawdle).await;
    }
}

fn start_child(folder: &Path, kill: &Kill) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["child", "--exact", "--nocapture"])
        .env(CHILD, folder)
        .env(DAWDLE, &kill.dawdle)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// Kills the child once it is where it shall be killed.
fn kill_at(mut child: Child, folder: &Path, kill: &Kill, count: &dyn Fn(&str) -> u32) {
    let plan = the_plan();
    let key = |step| key_of(plan.incident, plan.hash, step, Operation::Apply);
    let reached = || match kill.dawdle.split_once(' ') {
        Some(("before", step)) => load(folder).is_some_and(|s| s.intended.contains(&key(step.parse().unwrap()))),
        Some((_, step)) => count(&key(step.parse().unwrap())) > 0,
        None => load(folder).is_some_and(|s| s.intended.len() >= kill.intents),
    };
    while !reached() && child.try_wait().unwrap().is_none() {
        std::thread::yield_now();
    }
    if kill.dawdle.is_empty() {
        std::thread::sleep(kill.moment);
    }
    // SIGKILL; that it ended before is fine too.
    let _ended = child.kill();
    child.wait().unwrap();
}

/// Lets what the killed process started end: a program runs on without it. The clock of these tests does not wait for
/// deadlines, so the tests do.
fn settle(folder: &Path) {
    let name = folder.to_string_lossy().into_owned();
    let running = || {
        std::fs::read_dir("/proc").unwrap().flatten().any(|e| {
            // Forked and not yet started, it still has the environment of the process that was killed.
            ["cmdline", "environ"].iter().any(|file| {
                let told = std::fs::read(e.path().join(file)).unwrap_or_default();
                String::from_utf8_lossy(&told).contains(&name)
            })
        })
    };
    for _ in 0..1_000 {
        if !running() {
            return;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    panic!("a program in {} still runs", folder.display());
}

/// Where a process is killed.
#[derive(Debug)]
struct Kill {
    dawdle: String,
    /// Where it does not dawdle: so many intents, and so much later.
    intents: usize,
    moment: Duration,
}

/// Every gap by name, and a spread of moments, the same in every run.
fn kills() -> impl Iterator<Item = Kill> {
    let gaps = ["before 0", "after 0", "before 1", "after 1"].map(str::to_owned);
    let moments = (0..16_u64).map(|i| {
        let mixed = i.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40;
        Kill { dawdle: String::new(), intents: 1 + (i % 4) as usize, moment: Duration::from_micros(mixed % 4_000) }
    });
    gaps.into_iter().map(|dawdle| Kill { dawdle, intents: 0, moment: Duration::ZERO }).chain(moments)
}

/// Where the kills hit.
#[derive(Debug, Default)]
struct Hits {
    half_way: u32,
    /// An apply was intended and had no outcome; it had taken effect.
    after_effect: u32,
    /// The same; it had not.
    before_effect: u32,
}

impl Hits {
    fn note(&mut self, folder: &Path, count: &dyn Fn(&str) -> u32) {
        let saved = load(folder).expect("it was killed after it had begun");
        self.half_way += u32::from(!saved.execution.is_over());
        let open = saved.execution.in_flight().filter(|a| a.operation == Operation::Apply);
        match open.map(|a| count(&a.key)) {
            None => {}
            Some(0) => self.before_effect += 1,
            Some(_) => self.after_effect += 1,
        }
    }

    fn assert_spread(&self) {
        println!("of 60 kills: {self:?}");
        // Of the gaps by name there are two each for three kinds of actuators.
        let fine = self.half_way >= 12 && self.after_effect >= 6 && self.before_effect >= 6;
        assert!(fine, "the kills miss the work: {self:?}");
    }
}

fn assert_rule(saved: &Saved, declares: Declares, count: &dyn Fn(&str) -> u32, told: &str) {
    let finish = saved.execution.finish().unwrap();
    let (mut intended, mut ended) =
        (saved.intended.clone(), saved.ended.iter().map(|e| e.0.clone()).collect::<Vec<_>>());
    intended.sort();
    ended.sort();
    assert_eq!(intended, ended, "{told}: every intent has an end");
    let plan = the_plan();
    let mut unknown = false;
    for step in 0..2 {
        let key = key_of(plan.incident, plan.hash, step, Operation::Apply);
        assert!(count(&key) <= 1, "{told}: {key} was done {} times", count(&key));
        match saved.ended.iter().rev().find(|(k, _)| *k == key).map(|(_, outcome)| outcome.as_str()) {
            Some("done" | "found_done") => assert_eq!(count(&key), 1, "{told}: {key} is said to be done"),
            Some("unknown") => unknown = true,
            Some(_) | None => assert_eq!(count(&key), 0, "{told}: {key} is said not to be done"),
        }
    }
    if declares.idempotent || declares.observable {
        assert_eq!(finish, &Finish::Verified, "{told}");
    } else {
        assert_eq!(unknown, matches!(finish, Finish::Unknown { .. }), "{told}: {finish:?}");
        assert!(unknown || finish == &Finish::Verified, "{told}: {finish:?}");
    }
}

const KINDS: [Declares; 3] = [
    Declares { idempotent: true, observable: false, dry_run: false, canary: false },
    Declares { idempotent: false, observable: true, dry_run: false, canary: false },
    Declares { idempotent: false, observable: false, dry_run: false, canary: false },
];

fn folder_with(declares: Declares) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("declares"), serde_json::to_vec(&declares).unwrap()).unwrap();
    folder
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_while_a_program_changes_the_world() {
    let mut hits = Hits::default();
    for declares in KINDS {
        for kill in kills() {
            let folder = folder_with(declares);
            let path: PathBuf = folder.path().into();
            lay_out(&path, declares);
            kill_at(start_child(&path, &kill), &path, &kill, &|key| count_in(&path, key));
            settle(&path);
            hits.note(&path, &|key| count_in(&path, key));
            let saved = carry_out(&path, 2, Dawdle(String::new())).await;
            assert_rule(&saved, declares, &|key| count_in(&path, key), &format!("{declares:?} {kill:?}"));
        }
    }
    hits.assert_spread();
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_while_a_webhook_changes_the_world() {
    let mut hits = Hits::default();
    for declares in KINDS {
        for kill in kills() {
            let receiver = Receiver::start(declares).await;
            let folder = folder_with(declares);
            let path: PathBuf = folder.path().into();
            std::fs::write(path.join("url"), &receiver.url).unwrap();
            let (watched, world) = (path.clone(), Arc::clone(&receiver.world));
            let killed = tokio::task::spawn_blocking(move || {
                kill_at(start_child(&watched, &kill), &watched, &kill, &|key| world.lock().0.count(key));
                kill
            });
            let kill = killed.await.unwrap();
            let world = Arc::clone(&receiver.world);
            hits.note(&path, &|key| world.lock().0.count(key));
            let saved = carry_out(&path, 2, Dawdle(String::new())).await;
            assert_rule(&saved, declares, &|key| world.lock().0.count(key), &format!("{declares:?} {kill:?}"));
        }
    }
    hits.assert_spread();
}
