//! No order of events lets an action through that must not be let through.
//!
//! Random histories of plans, people, failures, restarts and time are played to a guard. What it permits is judged by an
//! oracle that knows none of its code: it looks at the bare history only, and says what must have happened before, and
//! what must not. The oracle is one-sided on purpose (a guard that permits nothing would pass), so a second test counts
//! what is permitted, and what is refused for which reason, over many histories.
#![expect(clippy::unwrap_used, reason = "a test may panic; clippy does not see that helpers are of tests")]

mod common;

use common::{acting, at, facts, person, plan, service};
use nightshift_guard::{Ask, Guard, GuardConfig, Hands, Limits, Policies, Request, Role, RunEnd, Window, rule};
use nightshift_model::{Decision, IncidentId, KillSwitch, Operation, Plan, PlanHash, Risk, Verdict};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, TestRng, TestRunner};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::OnceLock;
use std::time::Duration;

/// A freeze from here to there, in seconds of the history.
const FREEZE: (i64, i64) = (1_500, 2_500);
const NAMES: [&str; 3] = ["a", "b", "c"];

/// How a proposed plan differs from one that may run by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Fine,
    HighRisk,
    CriticalRisk,
    Unsure,
    NotOptedIn,
    /// Half of the pods at once.
    OverLimit,
    OutOfBounds,
    Namespace,
    Synthetic,
}

#[derive(Debug, Clone)]
enum Event {
    Pass(i64),
    Kill(bool),
    Hands(Hands),
    /// A plan for these targets, judged, and asked about when the verdict says so.
    Propose(Kind, Vec<usize>),
    Approve(usize, Role),
    Reject(usize, Role),
    /// Somebody overrides what the guard says of it now.
    Override(usize, Role),
    Permit(usize, u32, Operation),
    Fails(usize),
    Finish(usize, RunEnd),
    Tick,
    /// The process ends and starts again from its checkpoint.
    Restart,
}

fn kind() -> impl Strategy<Value = Kind> {
    prop_oneof![
        8 => Just(Kind::Fine),
        3 => Just(Kind::HighRisk),
        1 => Just(Kind::CriticalRisk),
        2 => Just(Kind::Unsure),
        1 => Just(Kind::NotOptedIn),
        1 => Just(Kind::OverLimit),
        1 => Just(Kind::OutOfBounds),
        1 => Just(Kind::Namespace),
        1 => Just(Kind::Synthetic),
    ]
}

fn event() -> impl Strategy<Value = Event> {
    let which = 0usize..6;
    let role = prop::sample::select(Role::ALL.to_vec());
    let op = prop::sample::select(vec![Operation::Canary, Operation::Apply, Operation::Apply, Operation::Undo]);
    let end = prop::sample::select(vec![RunEnd::Verified, RunEnd::Failed, RunEnd::Failed, RunEnd::Abandoned]);
    let hands =
        prop::sample::select(vec![Hands::Machine, Hands::Machine, Hands::Machine, Hands::Paused, Hands::TakenOver]);
    prop_oneof![
        6 => prop_oneof![0i64..30, 30i64..200, 250i64..350].prop_map(Event::Pass),
        1 => prop::bool::weighted(0.3).prop_map(Event::Kill),
        1 => hands.prop_map(Event::Hands),
        6 => (kind(), prop::collection::vec(0usize..3, 1..3)).prop_map(|(k, t)| Event::Propose(k, t)),
        3 => (which.clone(), role.clone()).prop_map(|(i, r)| Event::Approve(i, r)),
        1 => (which.clone(), role.clone()).prop_map(|(i, r)| Event::Reject(i, r)),
        1 => (which.clone(), role).prop_map(|(i, r)| Event::Override(i, r)),
        10 => (which.clone(), 0u32..2, op).prop_map(|(i, s, o)| Event::Permit(i, s, o)),
        2 => which.clone().prop_map(Event::Fails),
        5 => (which, end).prop_map(|(i, e)| Event::Finish(i, e)),
        1 => Just(Event::Tick),
        1 => Just(Event::Restart),
    ]
}

/// Single events, and runs of them that belong together: without these, random histories seldom come as far as a trial.
fn history(len: usize) -> impl Strategy<Value = Vec<Event>> {
    let target = 0usize..3;
    let end =
        prop::sample::select(vec![RunEnd::Failed, RunEnd::Failed, RunEnd::Failed, RunEnd::Verified, RunEnd::Abandoned]);
    let whole = (target.clone(), 0i64..130, end).prop_map(|(t, wait, end)| {
        let permit = Event::Permit(0, 0, Operation::Apply);
        let undo = Event::Permit(0, 0, if end == RunEnd::Failed { Operation::Undo } else { Operation::Canary });
        let begin = [Event::Hands(Hands::Machine), Event::Propose(Kind::Fine, vec![t]), permit];
        [begin.as_slice(), &[Event::Pass(wait), undo, Event::Finish(0, end)]].concat()
    });
    let wait = || prop_oneof![4 => 0i64..100, 1 => 295i64..305];
    let role = prop::sample::select(vec![Role::Operator, Role::Approver, Role::Approver, Role::Admin]);
    let asked = (kind(), target, wait(), role, wait()).prop_map(|(kind, t, before, role, after)| {
        let permit = Event::Permit(0, 0, Operation::Apply);
        vec![
            Event::Kill(false),
            Event::Propose(kind, vec![t]),
            Event::Pass(before),
            Event::Approve(0, role),
            Event::Pass(after),
            permit,
        ]
    });
    let part = prop_oneof![6 => event().prop_map(|e| vec![e]), 2 => whole, 1 => asked];
    prop::collection::vec(part, 1..len).prop_map(|parts| parts.concat())
}

/// What happened, as seen from outside.
#[derive(Debug, Clone)]
enum Fact {
    Asked(PlanHash),
    Approved(PlanHash),
    Rejected(PlanHash),
    Overridden(PlanHash, BTreeSet<String>, Role),
    Changed(PlanHash, usize),
    /// A failure that counts, of these targets.
    Failure(BTreeSet<usize>),
    /// A plan was verified, on these targets.
    Success(BTreeSet<usize>),
    Abandoned(PlanHash),
    /// A plan that had begun is over.
    Over(PlanHash, BTreeSet<usize>),
}

/// What was permitted, or every reason why not.
type Answer = Result<(Plan, Kind, u32, Operation), Box<Verdict>>;

struct World {
    now: i64,
    kill: bool,
    hands: Hands,
    plans: Vec<(Plan, Kind, Vec<usize>)>,
    history: Vec<(i64, Fact)>,
    /// Plans under way: steps that changed something, whether a failure of it was told.
    runs: BTreeMap<PlanHash, (BTreeSet<u32>, BTreeSet<usize>, bool)>,
    guard: Guard,
}

fn config() -> GuardConfig {
    let freeze = Window {
        name: "freeze".into(),
        starts_at: Some(at(FREEZE.0)),
        ends_at: Some(at(FREEZE.1)),
        ..Window::default()
    };
    let limits = Limits { namespaces_denied: vec!["forbidden".into()], ..Limits::default() };
    GuardConfig { windows: vec![freeze], limits, ..acting() }
}

fn shipped() -> Policies {
    static SHIPPED: OnceLock<Policies> = OnceLock::new();
    SHIPPED.get_or_init(|| Policies::with_shipped(&[], &[], Duration::from_secs(30)).unwrap()).clone()
}

impl World {
    fn new(policies: Policies) -> Self {
        Self {
            now: 0,
            kill: false,
            hands: Hands::Machine,
            plans: Vec::new(),
            history: Vec::new(),
            runs: BTreeMap::new(),
            guard: Guard::new(config(), policies),
        }
    }

    fn facts(&self, plan: &Plan, kind: Kind) -> nightshift_guard::Facts {
        let mut f = facts(plan);
        f.kill_switch = Some(KillSwitch { on: self.kill, by: "ada".into(), why: String::new(), at: at(self.now) });
        f.incident.hands = self.hands;
        f.incident.synthetic = kind == Kind::Synthetic;
        if kind == Kind::NotOptedIn {
            f.targets.values_mut().for_each(|t| t.criticality = None);
        }
        f
    }

    fn propose(&mut self, kind: Kind, targets: &[usize]) {
        let namespace = if kind == Kind::Namespace { "forbidden" } else { "shop" };
        let ids: Vec<_> =
            targets.iter().map(|t| nightshift_model::EntityId::new("prod", "service", namespace, NAMES[*t])).collect();
        let mut p = plan(&ids, at(self.now));
        p.title = format!("plan {}", self.plans.len());
        match kind {
            Kind::HighRisk => p.risk = Risk::High,
            Kind::CriticalRisk => p.risk = Risk::Critical,
            Kind::Unsure => p.confidence = 0.6,
            Kind::OverLimit => drop(p.steps[0].params.insert("max_unavailable".into(), json!(0.5))),
            Kind::OutOfBounds => {
                p.steps[0] =
                    common::step(nightshift_model::ActionType::ScaleDeployment, &ids[0], json!({"replicas": 9}));
            }
            Kind::Fine | Kind::NotOptedIn | Kind::Namespace | Kind::Synthetic => {}
        }
        let p = p.sealed();
        let verdict = self.judge(&p, kind);
        if self.guard.request_approval(&verdict, IncidentId(7), at(self.now)).is_some() {
            self.history.push((self.now, Fact::Asked(p.hash)));
        }
        self.plans.push((p, kind, targets.to_vec()));
    }

    fn judge(&self, plan: &Plan, kind: Kind) -> Verdict {
        self.guard.judge(&Ask { plan, facts: &self.facts(plan, kind) }, at(self.now))
    }

    /// One of the newest plans.
    fn nth(&self, i: usize) -> Option<(Plan, Kind, Vec<usize>)> {
        self.plans.iter().rev().nth(i).cloned()
    }

    /// Plays one event; what was permitted, or every reason why not.
    fn play(&mut self, event: &Event) -> Option<Answer> {
        match event {
            // Within an hour, so that no run counts as lost: that has a test of its own.
            Event::Pass(secs) => self.now = (self.now + secs).min(3_600),
            Event::Kill(on) => self.kill = *on,
            Event::Hands(hands) => self.hands = *hands,
            Event::Propose(kind, targets) => self.propose(*kind, targets),
            Event::Approve(i, role) => {
                let (p, ..) = self.nth(*i)?;
                if self.guard.approve(p.hash, &person(*role), at(self.now)).is_ok() {
                    self.history.push((self.now, Fact::Approved(p.hash)));
                }
            }
            Event::Reject(i, role) => {
                let (p, ..) = self.nth(*i)?;
                if self.guard.reject(p.hash, p.incident, &person(*role), "no", at(self.now)).is_ok() {
                    self.history.push((self.now, Fact::Rejected(p.hash)));
                }
            }
            Event::Override(i, role) => {
                let (p, kind, _) = self.nth(*i)?;
                let verdict = self.judge(&p, kind);
                let to = Decision::Execute;
                let said =
                    self.guard.override_verdict(&verdict, p.incident, to, &person(*role), "I know", at(self.now));
                if let Ok(rules) = said {
                    let rules = rules.into_iter().collect();
                    self.history.push((self.now, Fact::Overridden(p.hash, rules, *role)));
                }
            }
            Event::Permit(i, step, operation) => {
                let (p, kind, targets) = self.nth(*i)?;
                let f = self.facts(&p, kind);
                let request = Request { step: *step, operation: *operation, fence: 1 };
                let answer = self.guard.permit(&Ask { plan: &p, facts: &f }, request, at(self.now));
                return Some(answer.map(|permit| {
                    assert!(permit.allows(p.hash, *step, *operation, permit.target(), 1, at(self.now)));
                    let target = targets[*step as usize];
                    assert_eq!(permit.target().name(), NAMES[target]);
                    (p, kind, *step, *operation)
                }));
            }
            Event::Fails(i) => {
                let (p, _, targets) = self.nth(*i)?;
                let target = targets[0];
                self.guard.failed(p.hash, &p.steps[0].target, at(self.now));
                if let Some(run) = self.runs.get_mut(&p.hash) {
                    run.2 = true;
                    self.history.push((self.now, Fact::Failure(BTreeSet::from([target]))));
                }
            }
            Event::Finish(i, end) => {
                let (p, ..) = self.nth(*i)?;
                self.guard.finish(p.hash, *end, at(self.now));
                if let Some((_, targets, told)) = self.runs.remove(&p.hash) {
                    match end {
                        RunEnd::Verified => self.history.push((self.now, Fact::Success(targets.clone()))),
                        RunEnd::Failed if !told => self.history.push((self.now, Fact::Failure(targets.clone()))),
                        RunEnd::Failed => {}
                        RunEnd::Abandoned => self.history.push((self.now, Fact::Abandoned(p.hash))),
                    }
                    self.history.push((self.now, Fact::Over(p.hash, targets)));
                }
            }
            Event::Tick => {
                for out in self.guard.tick(at(self.now)) {
                    self.history.push((self.now, Fact::Rejected(out.plan)));
                }
            }
            Event::Restart => {
                let checkpoint = serde_json::to_vec(self.guard.state()).unwrap();
                let mut guard = Guard::new(config(), self.guard.policies().clone());
                guard.restore(serde_json::from_slice(&checkpoint).unwrap());
                assert_eq!(guard.state(), self.guard.state());
                self.guard = guard;
            }
        }
        None
    }

    /// What must have been, and must not have been, for this to be permitted now. Knows the history only.
    fn oracle(&self, plan: &Plan, kind: Kind, step: u32, operation: Operation) -> Result<(), String> {
        let (now, hash) = (self.now, plan.hash);
        let (_, _, all_targets) = self.plans.iter().find(|(p, ..)| p.hash == hash).unwrap();
        let must = |holds: bool, what: &str| if holds { Ok(()) } else { Err(what.to_owned()) };
        let when =
            |f: &dyn Fn(&Fact) -> bool| self.history.iter().filter(|(_, x)| f(x)).map(|(t, _)| *t).collect::<Vec<_>>();
        must(!self.kill, "the kill switch is on")?;
        must(self.hands == Hands::Machine, "a person has it in hand")?;
        must(kind != Kind::Synthetic, "a test injection")?;
        must(when(&|f| matches!(f, Fact::Over(h, _) if *h == hash)).is_empty(), "it is over: a plan runs once")?;
        if operation == Operation::Undo {
            let begun = self.runs.get(&hash).is_some_and(|(steps, ..)| steps.contains(&step));
            return must(begun, "nothing of this step was done");
        }
        // Limits: nobody may lift them.
        must(!matches!(kind, Kind::OverLimit | Kind::OutOfBounds | Kind::Namespace), "over a limit")?;
        must(when(&|f| matches!(f, Fact::Rejected(h) if *h == hash)).is_empty(), "it was rejected")?;
        // Overrides that can still count: of this plan, and it began (or begins now) within 300 s.
        let began = when(&|f| matches!(f, Fact::Changed(h, _) if *h == hash)).first().copied().unwrap_or(now);
        let overridden = |rule: &str, least: Role| {
            self.history.iter().any(|(t, f)| {
                matches!(f, Fact::Overridden(h, rules, role) if *h == hash && rules.contains(rule) && *role >= least)
                    && began - t < 300
            })
        };
        let frozen = (FREEZE.0..FREEZE.1).contains(&now);
        must(!frozen || overridden(rule::FREEZE_WINDOW, Role::Admin), "in a freeze window")?;
        // Approval: asked and answered within 300 s, begun within 300 s of the answer; or overridden so.
        let needed = matches!(kind, Kind::HighRisk | Kind::CriticalRisk | Kind::Unsure | Kind::NotOptedIn);
        if needed {
            let asked = when(&|f| matches!(f, Fact::Asked(h) if *h == hash));
            let answered = when(&|f| matches!(f, Fact::Approved(h) if *h == hash));
            let approved =
                answered.iter().any(|t| asked.iter().any(|a| (0..300).contains(&(t - a))) && began - t < 300);
            let least = if kind == Kind::CriticalRisk { Role::Admin } else { Role::Approver };
            let any_rule = self.history.iter().any(|(t, f)| {
                matches!(f, Fact::Overridden(h, _, role) if *h == hash && *role >= least) && began - t < 300
            });
            must(approved || any_rule, "without an approval that is needed")?;
        }
        // The breaker, over all and for each target of the plan.
        self.breaker(hash, None)?;
        for target in all_targets {
            self.breaker(hash, Some(*target))?;
            let attempts = when(&|f| matches!(f, Fact::Changed(_, t) if t == target));
            must(attempts.iter().filter(|t| now - **t < 600).count() < 5, "the sixth attempt within 600 s")?;
            let touched_by_others = self.history.iter().filter_map(|(t, f)| match f {
                Fact::Changed(h, x) if *h != hash && x == target => Some(*t),
                Fact::Over(h, targets) if *h != hash && targets.contains(target) => Some(*t),
                _ => None,
            });
            let cooled = touched_by_others.max().is_none_or(|t| now - t >= 120);
            must(cooled || overridden(rule::COOLDOWN, Role::Approver), "the target cools down")?;
            let busy = self.runs.iter().any(|(h, (_, targets, _))| *h != hash && targets.contains(target));
            must(!busy, "another plan is at work there")?;
        }
        must(self.runs.contains_key(&hash) || self.runs.len() < 3, "three plans are under way")
    }

    /// After three failures in a row: 300 s of nothing since the last of them, then one plan alone.
    fn breaker(&self, hash: PlanHash, of: Option<usize>) -> Result<(), String> {
        let about = |targets: &BTreeSet<usize>| of.is_none_or(|t| targets.contains(&t));
        let outcomes: Vec<(i64, bool)> = self
            .history
            .iter()
            .filter_map(|(t, f)| match f {
                Fact::Failure(targets) if about(targets) => Some((*t, false)),
                Fact::Success(targets) if about(targets) => Some((*t, true)),
                _ => None,
            })
            .collect();
        let row = outcomes.iter().rev().take_while(|(_, good)| !good).count();
        let Some((last, _)) = outcomes.last().filter(|_| row >= 3) else { return Ok(()) };
        let whose = of.map_or("all execution".to_owned(), |t| format!("target {t}"));
        if self.now < last + 300 {
            return Err(format!("{row} failures in a row of {whose}, the last {} s ago", self.now - last));
        }
        let position = self.history.iter().rposition(|(t, f)| t == last && matches!(f, Fact::Failure(_))).unwrap();
        let mut trials = BTreeSet::new();
        for (t, f) in &self.history[position..] {
            match f {
                Fact::Changed(h, x) if *t >= last + 300 && of.is_none_or(|t| t == *x) => drop(trials.insert(*h)),
                Fact::Abandoned(h) => drop(trials.remove(h)),
                _ => {}
            }
        }
        trials.insert(hash);
        if trials.len() == 1 { Ok(()) } else { Err(format!("{} trials at once of {whose}", trials.len())) }
    }
}

#[derive(Debug, Default)]
struct Counts {
    permits: u32,
    undos: u32,
    after_approval: u32,
    trials: u32,
    refused_by: BTreeMap<String, u32>,
}

fn check(policies: Policies, events: &[Event], counts: &mut Counts) -> Result<(), TestCaseError> {
    let mut world = World::new(policies);
    for (i, event) in events.iter().enumerate() {
        match world.play(event) {
            Some(Ok((plan, kind, step, operation))) => {
                if let Err(what) = world.oracle(&plan, kind, step, operation) {
                    let text = format!("event {i} ({event:?}) at {} s let {} through: {what}", world.now, plan.title);
                    return Err(TestCaseError::fail(text));
                }
                let (_, _, targets) = world.plans.iter().find(|(p, ..)| p.hash == plan.hash).unwrap();
                let target = targets[step as usize];
                let run = world.runs.entry(plan.hash).or_default();
                run.1.insert(target);
                if operation == Operation::Undo {
                    counts.undos += 1;
                } else {
                    run.0.insert(step);
                    counts.permits += 1;
                    counts.after_approval += u32::from(kind == Kind::HighRisk);
                    let failures = world.history.iter().filter(|(_, f)| matches!(f, Fact::Failure(_))).count();
                    counts.trials += u32::from(failures >= 3);
                    world.history.push((world.now, Fact::Changed(plan.hash, target)));
                }
            }
            Some(Err(verdict)) => {
                prop_assert!(verdict.decision > Decision::Execute);
                for reason in verdict.reasons.iter().filter(|r| r.decision > Decision::Execute) {
                    *counts.refused_by.entry(reason.rule.clone()).or_default() += 1;
                }
            }
            None => {}
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(Config { cases: 400, ..Config::default() })]

    #[test]
    fn no_order_of_events_lets_through_what_must_not(events in history(50)) {
        check(Policies::none(), &events, &mut Counts::default())?;
    }
}

proptest! {
    #![proptest_config(Config { cases: 30, ..Config::default() })]

    #[test]
    fn nor_with_the_policies_that_ship(events in history(40)) {
        check(shipped(), &events, &mut Counts::default())?;
    }
}

/// The histories above reach what they are about: plans run, also after an approval and as a trial, and each rule
/// refuses something.
#[test]
fn the_histories_reach_what_they_are_about() {
    let mut runner =
        TestRunner::new_with_rng(Config::default(), TestRng::deterministic_rng(Config::default().rng_algorithm));
    let strategy = history(60);
    let mut counts = Counts::default();
    for _ in 0..300 {
        let events = strategy.new_tree(&mut runner).unwrap().current();
        check(Policies::none(), &events, &mut counts).unwrap();
    }
    assert!(counts.permits > 500 && counts.undos > 20, "{counts:?}");
    assert!(counts.after_approval > 20 && counts.trials > 20, "{counts:?}");
    for rule in [
        rule::KILL_SWITCH,
        rule::HANDS,
        rule::CONFIDENCE,
        rule::RISK,
        rule::SELF_HEAL,
        rule::BLAST_RADIUS,
        rule::BREAKER,
        rule::COOLDOWN,
        rule::IN_FLIGHT,
        rule::FREEZE_WINDOW,
        rule::APPROVAL,
        rule::RUN,
        rule::SYNTHETIC,
    ] {
        assert!(counts.refused_by.get(rule).is_some_and(|n| *n > 5), "{rule}: {counts:?}");
    }
}

/// An oracle that finds nothing proves nothing: each of these is let through by a guard whose rule was taken away, and
/// is seen.
#[test]
fn the_oracle_sees_what_is_wrong() {
    let mut world = World::new(Policies::none());
    world.propose(Kind::HighRisk, &[0]);
    let (p, kind, _) = world.nth(0).unwrap();
    let says = |w: &World| w.oracle(&p, kind, 0, Operation::Apply).unwrap_err();
    assert_eq!(says(&world), "without an approval that is needed");
    world.history.push((0, Fact::Approved(p.hash)));
    world.oracle(&p, kind, 0, Operation::Apply).unwrap();
    world.now = 300;
    assert_eq!(says(&world), "without an approval that is needed");
    world.now = FREEZE.0;
    assert_eq!(says(&world), "in a freeze window");
    world.now = 10;
    for _ in 0..3 {
        world.history.push((5, Fact::Failure(BTreeSet::from([2]))));
    }
    assert!(says(&world).contains("3 failures in a row of all execution"));
    world.now = 290;
    world.history.retain(|(_, f)| !matches!(f, Fact::Failure(_)));
    for _ in 0..3 {
        world.history.push((-20, Fact::Failure(BTreeSet::from([2]))));
    }
    world.oracle(&p, kind, 0, Operation::Apply).unwrap();
    world.history.push((285, Fact::Changed(PlanHash([9; 32]), 2)));
    assert!(says(&world).contains("2 trials at once"));
    world.history.clear();
    world.history.push((200, Fact::Over(p.hash, BTreeSet::new())));
    assert_eq!(says(&world), "it is over: a plan runs once");
    world.history.clear();
    world.kill = true;
    assert_eq!(says(&world), "the kill switch is on");
    assert_eq!(service("a").name(), NAMES[0]);
}
