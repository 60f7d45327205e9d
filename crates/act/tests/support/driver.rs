//! Drives an execution as the incident agent does: commit, then hand out; and crashes wherever it is told to.

use super::support::{Fake, START, kpi};
use nightshift_act::{ActError, Answer, Declares, Effect, Event, Execution, Finish, Options};
use nightshift_guard::{Ask, Facts, Guard, GuardConfig, IncidentFacts, Policies, Request, TargetFacts};
use nightshift_model::{Action, ActionOutcome, KpiReading, Operation, Plan, Timestamp};
use nightshift_topology::Criticality;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

/// What happens to one order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It is done and the answer is lost.
    LostDone,
    /// It is lost itself, and nobody knows.
    LostNot,
    /// It arrives two seconds later, and nobody knows.
    Late,
    /// Certainly not done, for the moment.
    NotDone,
    /// Never.
    Refused,
    /// Tried, and did not work.
    Failed,
    /// No answer at all.
    Silent,
}

pub(crate) const FAULTS: [Fault; 7] =
    [Fault::LostDone, Fault::LostNot, Fault::Late, Fault::NotDone, Fault::Refused, Fault::Failed, Fault::Silent];

/// One run.
#[derive(Debug, Clone)]
pub(crate) struct Case {
    pub(crate) plan: Plan,
    pub(crate) declares: Declares,
    pub(crate) dry_run: bool,
    pub(crate) synthetic: bool,
    /// By the number of the order, from 0.
    pub(crate) faults: BTreeMap<usize, Fault>,
    /// At which of the points between two effects.
    pub(crate) crashes: BTreeSet<usize>,
    /// By the number of the question, from 0: the guard says no.
    pub(crate) denied: BTreeSet<usize>,
    /// Before this event, by number.
    pub(crate) abort_at: Option<usize>,
    /// The KPI before and after the first change.
    pub(crate) before: f64,
    pub(crate) after: f64,
}

impl Case {
    pub(crate) fn new(plan: Plan, declares: Declares) -> Self {
        Self {
            plan,
            declares,
            dry_run: false,
            synthetic: false,
            faults: BTreeMap::new(),
            crashes: BTreeSet::new(),
            denied: BTreeSet::new(),
            abort_at: None,
            before: 900.0,
            after: 300.0,
        }
    }
}

/// What came of it.
pub(crate) struct Outcome {
    pub(crate) world: Fake,
    pub(crate) execution: Execution,
    /// Intents and ends, in order.
    pub(crate) journal: Vec<Effect>,
    pub(crate) finishes: Vec<Finish>,
    pub(crate) verified: Vec<(Vec<KpiReading>, bool)>,
    pub(crate) failed: Vec<String>,
    /// Orders that were handed out.
    pub(crate) orders: Vec<Action>,
    /// Points at which it could have crashed.
    pub(crate) points: usize,
    /// Questions to the guard.
    pub(crate) asked: usize,
    pub(crate) events: usize,
}

struct Driver {
    case: Case,
    now: Timestamp,
    world: Fake,
    guard: Guard,
    facts: Facts,
    fence: u64,
    inbox: VecDeque<Event>,
    durable: Option<Execution>,
    out: Outcome,
}

/// Compiled once: nothing in it changes.
fn policies() -> Policies {
    static NONE: std::sync::OnceLock<Policies> = std::sync::OnceLock::new();
    NONE.get_or_init(Policies::none).clone()
}

pub(crate) fn options(case: &Case) -> Options {
    Options {
        dry_run: case.dry_run,
        synthetic: case.synthetic,
        fence: 1,
        worker: "a".into(),
        actuators: BTreeMap::from([("fake".into(), case.declares)]),
    }
}

/// Runs a case to its end.
pub(crate) fn run(case: &Case) -> Outcome {
    let mut config = GuardConfig { dry_run: false, cooldown_secs: 0, ..GuardConfig::default() };
    config.breaker.attempts_max = 1_000;
    let target = TargetFacts {
        criticality: Some(Criticality::P0),
        replicas: Some(3),
        replicas_min: Some(2),
        replicas_max: Some(8),
        ..TargetFacts::default()
    };
    let facts = Facts {
        incident: IncidentFacts { id: case.plan.incident, score: 0.95, ..IncidentFacts::default() },
        targets: case.plan.steps.iter().map(|s| (s.target.clone(), target.clone())).collect(),
        ..Facts::default()
    };
    let (execution, effects) = Execution::begin(case.plan.clone(), options(case), START);
    let out = Outcome {
        world: Fake::new(case.declares),
        execution,
        journal: Vec::new(),
        finishes: Vec::new(),
        verified: Vec::new(),
        failed: Vec::new(),
        orders: Vec::new(),
        points: 0,
        asked: 0,
        events: 0,
    };
    let mut driver = Driver {
        case: case.clone(),
        now: START,
        world: Fake::new(case.declares),
        guard: Guard::new(config, policies()),
        facts,
        fence: 1,
        inbox: VecDeque::new(),
        durable: None,
        out,
    };
    driver.go(effects);
    driver.out
}

impl Driver {
    fn go(&mut self, first: Vec<Effect>) {
        self.effects(first);
        // A rehearsal that passed listens for as long as it is let.
        for events in 0..400 {
            self.out.events = events;
            if self.out.execution.is_over() {
                break;
            }
            if self.case.abort_at == Some(events) {
                self.inbox.push_front(Event::Abort { why: "kill switch".into() });
            }
            let event = self.inbox.pop_front().unwrap_or_else(|| self.pass_time());
            let effects = self.out.execution.step(event, self.now);
            self.effects(effects);
        }
        // Whatever is on its way arrives, or never will.
        for _ in 0..120 {
            self.now = self.now + Duration::from_secs(1);
            self.world.arrive(self.now);
        }
        self.out.world = self.world.clone();
    }

    fn pass_time(&mut self) -> Event {
        self.now = self.now + Duration::from_secs(1);
        self.world.arrive(self.now);
        let changed = self.world.effects.values().any(|n| *n > 0);
        let value =
            if changed || self.case.dry_run || self.case.synthetic { self.case.after } else { self.case.before };
        Event::Reading { kpi: kpi(), at: self.now, value }
    }

    /// Whether it crashes at this point.
    fn crashes(&mut self) -> bool {
        self.out.points += 1;
        self.case.crashes.contains(&(self.out.points - 1))
    }

    /// Forgets all that is not durable and begins again from what is.
    fn restart(&mut self) {
        self.inbox.clear();
        self.fence += 1;
        match &self.durable {
            Some(state) => {
                let bytes = serde_json::to_vec(state).unwrap();
                self.out.execution = serde_json::from_slice(&bytes).unwrap();
                assert_eq!(self.out.execution, *state, "what is read back is what was written");
                self.inbox.push_back(Event::Recovered { fence: self.fence, worker: "b".into() });
            }
            None => {
                let options = Options { fence: self.fence, ..options(&self.case) };
                let (execution, effects) = Execution::begin(self.case.plan.clone(), options, self.now);
                self.out.execution = execution;
                self.effects(effects);
            }
        }
    }

    fn effects(&mut self, effects: Vec<Effect>) {
        if self.crashes() {
            return self.restart();
        }
        // One commit.
        self.durable = Some(self.out.execution.clone());
        let (mut orders, mut asks) = (Vec::new(), Vec::new());
        for effect in effects {
            match effect {
                Effect::Intend(_) | Effect::End { .. } => self.out.journal.push(effect),
                Effect::Order(action) => orders.push(action),
                Effect::AskPermit { step, operation } => asks.push((step, operation)),
                Effect::Finished(finish) => self.out.finishes.push(finish),
                Effect::Verified { readings, executed } => self.out.verified.push((readings, executed)),
                Effect::VerificationFailed { why, .. } => self.out.failed.push(why),
                Effect::Watch(_) | Effect::Unwatch(_) => {}
            }
        }
        assert!(orders.len() + asks.len() <= 1, "one thing at a time");
        if self.crashes() {
            return self.restart();
        }
        for order in orders {
            let answer = self.carry_out(&order);
            if self.crashes() {
                return self.restart();
            }
            self.inbox.extend(answer.map(|answer| Event::ended(&order, answer)));
        }
        for (step, operation) in asks {
            self.ask(step, operation);
        }
    }

    fn ask(&mut self, step: u32, operation: Operation) {
        self.out.asked += 1;
        if self.case.denied.contains(&(self.out.asked - 1)) {
            return self.inbox.push_back(Event::Denied { why: "freeze window".into() });
        }
        let ask = Ask { plan: &self.case.plan, facts: &self.facts };
        let event = match self.guard.permit(&ask, Request { step, operation, fence: self.fence }, self.now) {
            Ok(permit) => Event::Permitted(permit),
            Err(verdict) => Event::Denied { why: verdict.summary() },
        };
        self.inbox.push_back(event);
    }

    fn carry_out(&mut self, order: &Action) -> Option<Result<Answer, ActError>> {
        let fault = self.case.faults.get(&self.out.orders.len()).copied();
        self.out.orders.push(order.clone());
        if order.operation.changes() {
            let open = |j: &&Effect| match j {
                Effect::Intend(a) => a.key == order.key,
                Effect::End { key, .. } => *key == order.key,
                _ => false,
            };
            let newest = self.out.journal.iter().rev().find(open);
            assert!(matches!(newest, Some(Effect::Intend(_))), "{} was handed out without an intent", order.key);
            assert!(!order.synthetic, "what is synthetic is never changed");
        }
        if order.synthetic {
            // The executor answers itself.
            let detail = "made by a test injection".to_owned();
            return Some(Ok(Answer { outcome: ActionOutcome::Done, detail, image: Default::default() }));
        }
        let lost = |what: &str| Some(Err(ActError::Uncertain(what.into())));
        match fault {
            None => Some(self.world.perform(order, self.now)),
            // An actuator that says not done of what was done is broken beyond what a rule could mend.
            Some(Fault::Failed) if order.operation == Operation::Observe => Some(self.world.perform(order, self.now)),
            Some(Fault::LostDone) => {
                let _lost = self.world.perform(order, self.now);
                lost("the connection broke")
            }
            Some(Fault::Silent) => {
                let _lost = self.world.perform(order, self.now);
                None
            }
            Some(Fault::LostNot) => lost("the connection broke"),
            Some(Fault::Late) => {
                if order.operation.changes() {
                    self.world.late.push((self.now + Duration::from_secs(2), order.clone()));
                }
                lost("the connection broke")
            }
            Some(Fault::NotDone) => Some(Err(ActError::NotDone("busy".into()))),
            Some(Fault::Refused) => Some(Err(ActError::Refused("no right to".into()))),
            Some(Fault::Failed) => {
                let image = self.world.images.get(&order.target).cloned().unwrap_or_default();
                Some(Ok(Answer { outcome: ActionOutcome::Failed, detail: "it did not work".into(), image }))
            }
        }
    }
}

/// What must hold of every run, whatever happened in it.
pub(crate) fn assert_sound(case: &Case, out: &Outcome) {
    let told = || {
        let journal: Vec<String> = out
            .journal
            .iter()
            .map(|j| match j {
                Effect::Intend(a) => format!("intend {} #{} fence {}", a.key, a.attempt, a.fence),
                Effect::End { key, outcome, detail, .. } => format!("end {key} {outcome}: {detail}"),
                _ => String::new(),
            })
            .collect();
        format!(
            "{:?} faults {:?} crashes {:?} denied {:?} abort {:?}\n{}\neffects {:?}\nfinish {:?}",
            case.declares,
            case.faults,
            case.crashes,
            case.denied,
            case.abort_at,
            journal.join("\n"),
            out.world.effects,
            out.finishes
        )
    };
    assert!(out.execution.is_over(), "it never ended: {}\n{}", out.execution.status(), told());
    // No step is ever carried out twice.
    for (key, times) in &out.world.effects {
        assert!(*times <= 1, "{key} took effect {times} times\n{}", told());
    }
    // Every intent has exactly one end, and the end is the truth.
    let mut open: BTreeMap<&str, bool> = BTreeMap::new();
    let mut last: BTreeMap<&str, ActionOutcome> = BTreeMap::new();
    for entry in &out.journal {
        match entry {
            Effect::Intend(action) => {
                assert!(
                    !open.insert(&action.key, true).unwrap_or(false),
                    "{} was intended twice\n{}",
                    action.key,
                    told()
                );
            }
            Effect::End { key, outcome, .. } => {
                assert!(open.insert(key, false).unwrap_or(false), "{key} ended without an intent\n{}", told());
                last.insert(key, *outcome);
            }
            _ => {}
        }
    }
    for (key, is_open) in open {
        assert!(!is_open, "{key} was forgotten\n{}", told());
        let outcome = last[key];
        if !nightshift_act::operation_of(key).is_some_and(Operation::changes) {
            continue;
        }
        match outcome {
            ActionOutcome::Done | ActionOutcome::FoundDone => {
                assert_eq!(out.world.count(key), 1, "{key} ended {outcome}\n{}", told());
            }
            ActionOutcome::Failed | ActionOutcome::Refused => {
                assert_eq!(out.world.count(key), 0, "{key} ended {outcome}\n{}", told());
            }
            ActionOutcome::Unknown => {}
        }
    }
    assert_eq!(out.finishes.last(), out.execution.finish(), "{}", told());
    let rehearsed = out.finishes.first() == Some(&Finish::DryRunPassed);
    assert!(out.finishes.len() == 1 || (rehearsed && out.finishes.len() == 2), "{}", told());
    let initial = Fake::new(case.declares).images;
    let unknown = last.values().any(|o| *o == ActionOutcome::Unknown);
    match out.execution.finish().unwrap() {
        Finish::Verified if !case.dry_run && !case.synthetic => {
            for (i, step) in case.plan.steps.iter().enumerate() {
                let key = |op| nightshift_act::key_of(case.plan.incident, case.plan.hash, i as u32, op);
                let acts = step.action != nightshift_model::ActionType::ManualReview;
                assert_eq!(out.world.count(&key(Operation::Apply)), u32::from(acts), "{}", told());
                assert_eq!(out.world.count(&key(Operation::Undo)), 0, "{}", told());
            }
            assert!(out.verified.len() == 1 && out.verified[0].1, "{}", told());
        }
        Finish::Verified | Finish::DryRunPassed | Finish::Refused { .. } | Finish::AsksPerson { .. } => {
            assert!(out.world.done().is_empty() && !unknown, "{}", told());
            assert_eq!(out.world.images, initial, "{}", told());
        }
        Finish::UndoneThenEscalate { why } => {
            assert!(!unknown && !why.is_empty(), "{}", told());
            assert_eq!(out.world.images, initial, "{}", told());
        }
        Finish::Failed { why } => assert!(!unknown && !why.is_empty(), "{}", told()),
        Finish::Unknown { why } => assert!(unknown && why.contains("look at the target"), "{}", told()),
    }
}
