//! Act: drives the execution of a plan, asks the guard before every change, and follows how it ends.

use super::judging::{facts, passing};
use crate::Effect;
use crate::case::{Case, Done, Intent};
use crate::node::Node;
use crate::turn::{Step, Turn, held};
use crate::watch::Watch;
use crate::workflow::is_merged;
use nightshift_act::{ActError, Answer, Effect as Ordered, Event, Execution, Finish, Options};
use nightshift_guard::{Ask, Request, RunEnd};
use nightshift_model::{Action, ActionOutcome, Decision, EventKind, Image, IncidentStatus, Kpi, Operation, Timestamp};
use serde_json::Value;
use std::collections::VecDeque;
use std::time::Duration;

/// Plans in a row that may find the world another one before a person is called.
const REFUSED_MAX: u32 = 2;
/// Seconds after which an elder looks again whether what it took in has ended.
const BUSY_SECS: u64 = 1;

/// Carries the plan out, and hands over when that is over.
pub(super) fn act(case: &mut Case, turn: &mut Turn<'_, '_>) -> Step {
    if case.execution.is_none() && case.finish.is_none() {
        if let Some(step) = begin(case, turn) {
            return step;
        }
    } else {
        feed(case, turn, Event::Tick);
    }
    conclude(case, turn)
}

/// `Some` when it cannot begin yet, or at all.
fn begin(case: &mut Case, turn: &mut Turn<'_, '_>) -> Option<Step> {
    let Some(plan) = case.plan.clone() else {
        return Some(turn.go(case, Node::RootCause, "there is no plan to carry out"));
    };
    if let Some(younger) = absorbed(case, turn) {
        // Two plans at work on one incident would be two hands on one wheel.
        let due = turn.now + Duration::from_secs(BUSY_SECS);
        if case.due.is_none_or(|at| at <= turn.now) {
            case.due = Some(due);
            case.why = format!("waits for what {younger} began");
            case.dirty = true;
        }
        return Some(Step::Waits);
    }
    case.fresh = false;
    case.due = None;
    case.stopped = None;
    case.denied = None;
    case.done = Done::Nothing;
    if !case.rehearsal {
        turn.status(case, IncidentStatus::Remediating, format!("plan {}: {}", plan.hash.short(), plan.title));
    }
    turn.unwatch(case);
    let options = Options {
        dry_run: case.rehearsal,
        synthetic: case.synthetic,
        fence: turn.rooms.fence,
        worker: turn.rooms.worker.to_owned(),
        actuators: turn.rooms.actuators.clone(),
    };
    let (execution, effects) = Execution::begin(plan, options, turn.now);
    case.execution = Some(execution);
    case.dirty = true;
    follow(case, turn, effects);
    None
}

/// A younger incident that was joined into this one and is being worked on.
fn absorbed(case: &Case, turn: &Turn<'_, '_>) -> Option<nightshift_model::IncidentId> {
    let ends_here = |other: &Case| {
        let mut into = other.inc.as_ref().and_then(|inc| inc.merged_into);
        // Joined into one that was joined itself: followed to the eldest, never in a circle.
        for _ in 0..=turn.others.len() {
            match into {
                Some(id) if id == case.id => return true,
                Some(id) => into = turn.others.get(&id).and_then(|c| c.inc.as_ref()).and_then(|i| i.merged_into),
                None => return false,
            }
        }
        false
    };
    turn.others.values().find(|c| c.execution.is_some() && ends_here(c)).map(|c| c.id)
}

/// Tells the execution what happened and does what follows.
fn feed(case: &mut Case, turn: &mut Turn<'_, '_>, event: Event) {
    let Some(mut execution) = case.execution.take() else { return };
    let before = (execution.due(), execution.is_verifying());
    let counts = !matches!(event, Event::Tick);
    let effects = execution.step(event, turn.now);
    case.dirty |= counts || !effects.is_empty() || before != (execution.due(), execution.is_verifying());
    case.execution = Some(execution);
    follow(case, turn, effects);
}

/// Does what the execution wants, in its order; what the guard answers goes back in at once.
fn follow(case: &mut Case, turn: &mut Turn<'_, '_>, effects: Vec<Ordered>) {
    let mut queue: VecDeque<Ordered> = effects.into();
    while let Some(effect) = queue.pop_front() {
        match effect {
            Ordered::AskPermit { step, operation } => {
                let event = permit(case, turn, step, operation);
                first(case, turn, event, &mut queue);
            }
            Ordered::Intend(action) => {
                case.intent = Some(Intent {
                    key: action.key.clone(),
                    changes: action.operation.changes(),
                    target: action.target.clone(),
                });
                turn.journal(case, EventKind::ActionIntended { action });
            }
            Ordered::Order(action) if case.synthetic => {
                // A test is rehearsed here: no actuator hears of it.
                let detail = "a test: no actuator was called".to_owned();
                let answer = Answer { outcome: ActionOutcome::Done, detail, image: Image::new() };
                first(case, turn, Event::ended(&action, Ok(answer)), &mut queue);
            }
            Ordered::Order(action) => turn.out.push(Effect::Order(action)),
            Ordered::End { key, outcome, detail, image } => {
                let intent = case.intent.take().filter(|i| i.key == key);
                if let Some(intent) = intent.filter(|i| i.changes) {
                    if outcome.is_done() {
                        case.done = case.done.max(Done::Applied);
                    } else if let Some(plan) = case.plan.as_ref().map(|p| p.hash) {
                        turn.rooms.guard.failed(plan, &intent.target, turn.now);
                        turn.out.push(Effect::GuardChanged);
                    }
                }
                turn.journal(case, EventKind::ActionEnded { key, outcome, detail, image });
            }
            Ordered::Watch(kpi) => {
                let interval_secs = case.plan.as_ref().map_or(0, |p| p.verification.interval_secs.min(30));
                case.verifies = Some(kpi.clone());
                turn.out.push(Effect::Watch { kpi, since: turn.now, interval_secs });
            }
            Ordered::Unwatch(kpi) => {
                case.verifies = None;
                turn.forget(&kpi, case);
            }
            Ordered::Verified { readings, executed } => {
                let plan = case.plan.as_ref().map(|p| p.hash);
                case.done = if executed { Done::Verified } else { case.done };
                turn.journal(case, EventKind::Verified { plan, readings, executed });
            }
            Ordered::VerificationFailed { readings, why } => {
                if let Some(plan) = case.plan.as_ref().map(|p| p.hash) {
                    turn.journal(case, EventKind::VerificationFailed { plan, readings, why });
                }
            }
            Ordered::Finished(finish) => case.finish = Some(finish),
        }
    }
    case.wake |= case.finish.is_some();
}

/// Tells the execution at once; what follows comes before what is still to be done.
fn first(case: &mut Case, turn: &Turn<'_, '_>, event: Event, queue: &mut VecDeque<Ordered>) {
    if let Some(execution) = case.execution.as_mut() {
        for effect in execution.step(event, turn.now).into_iter().rev() {
            queue.push_front(effect);
        }
    }
}

/// Asks the guard for leave, with the world as it is now.
fn permit(case: &mut Case, turn: &mut Turn<'_, '_>, step: u32, operation: Operation) -> Event {
    let Some(plan) = case.plan.clone() else { return Event::Denied { why: "there is no plan".into() } };
    let facts = facts(case, &plan, turn);
    let request = Request { step, operation, fence: turn.rooms.fence };
    match turn.rooms.guard.permit(&Ask { plan: &plan, facts: &facts }, request, turn.now) {
        Ok(permit) => {
            turn.out.push(Effect::GuardChanged);
            Event::Permitted(permit)
        }
        Err(verdict) => {
            let why = verdict.summary();
            case.denied = Some((*verdict).clone());
            // Of the plan as it stands now: people see what stopped it.
            turn.journal(case, EventKind::Judged { verdict });
            Event::Denied { why }
        }
    }
}

/// An order was answered.
pub(crate) fn ended(case: &mut Case, turn: &mut Turn<'_, '_>, order: &Action, result: Result<Answer, ActError>) {
    if case.inc.is_none() {
        return;
    }
    feed(case, turn, Event::ended(order, result));
    case.wake = true;
}

/// A KPI was read.
pub(crate) fn reading(case: &mut Case, turn: &mut Turn<'_, '_>, kpi: &Kpi, at: Timestamp, value: f64) {
    // What is no number cannot be written down, and says nothing.
    let said = value.is_finite() && case.inc.is_some();
    if !said || case.verifies.as_ref() != Some(kpi) || case.execution.is_none() {
        return;
    }
    feed(case, turn, Event::Reading { kpi: kpi.clone(), at, value });
    case.wake |= case.finish.is_some() || case.execution.as_ref().is_some_and(Execution::is_verifying);
}

/// After a restart, or when another worker took over.
pub(super) fn recovered(case: &mut Case, turn: &mut Turn<'_, '_>) {
    if let Some(kpi) = case.verifies.clone() {
        let interval_secs = case.plan.as_ref().map_or(0, |p| p.verification.interval_secs.min(30));
        turn.out.push(Effect::Watch { kpi, since: turn.now, interval_secs });
    }
    let (fence, worker) = (turn.rooms.fence, turn.rooms.worker.to_owned());
    feed(case, turn, Event::Recovered { fence, worker });
}

/// What is under way is finished, nothing further is begun.
pub(crate) fn stop(case: &mut Case, turn: &mut Turn<'_, '_>, why: &str) {
    if case.execution.is_none() || case.finish.is_some() || case.stopped.is_some() {
        return;
    }
    case.stopped = Some(why.to_owned());
    feed(case, turn, Event::Abort { why: why.to_owned() });
    case.wake = true;
}

/// What follows from how the execution stands.
fn conclude(case: &mut Case, turn: &mut Turn<'_, '_>) -> Step {
    let Some(finish) = case.finish.take() else {
        let verifying = case.execution.as_ref().is_some_and(|e| e.is_verifying() && !e.options().dry_run);
        if verifying && case.node == Node::Act {
            let n = case.plan.as_ref().map_or(0, |p| p.steps.len());
            return turn.go(case, Node::Verify, format!("{n} of {n} steps done"));
        }
        return Step::Waits;
    };
    let changed = case.execution.as_ref().is_some_and(Execution::has_changed);
    end(case, turn, &finish);
    let inc = case.inc();
    if is_merged(inc) {
        turn.unwatch(case);
        turn.leave(case, format!("{}; joined into an elder one", finish.as_str()), Value::Null);
        return Step::Ended;
    }
    if !inc.status.is_open() {
        return turn.go(case, Node::Resolved, finish.as_str());
    }
    let stopped = case.stopped.take();
    match finish {
        Finish::DryRunPassed => {
            case.done = Done::Rehearsed;
            let n = case.plan.as_ref().map_or(0, |p| p.steps.len());
            turn.go(case, Node::Verify, format!("{n} steps rehearsed, nothing was executed"))
        }
        Finish::Verified => {
            let why = if case.done == Done::Verified {
                let title = case.plan.as_ref().map_or("", |p| p.title.as_str());
                format!("verified: {title}")
            } else {
                "signal recovered; nothing was executed".to_owned()
            };
            case.why.clone_from(&why);
            turn.go(case, Node::Resolved, why)
        }
        // Nobody is called because of a test.
        _ if case.synthetic => turn.go(case, Node::Verify, format!("{}: nothing was executed", finish.as_str())),
        Finish::UndoneThenEscalate { why } => {
            case.done = Done::Nothing;
            turn.escalate(case, why.clone(), format!("undone: {why}"))
        }
        Finish::Refused { why } => refused(case, turn, why, stopped),
        Finish::Failed { why } if stopped.is_some() && changed => stay(case, turn, why),
        Finish::Failed { why } => turn.escalate(case, why.clone(), format!("failed: {why}")),
        Finish::Unknown { why } => turn.escalate(case, why.clone(), format!("unknown: {why}")),
        Finish::AsksPerson { what } => turn.escalate(case, what.clone(), what),
    }
}

/// The guard and the case are told how it ended.
fn end(case: &mut Case, turn: &mut Turn<'_, '_>, finish: &Finish) {
    case.execution = None;
    case.dirty = true;
    if let Some(kpi) = case.verifies.take() {
        turn.forget(&kpi, case);
    }
    let Some((hash, playbook)) = case.plan.as_ref().map(|p| (p.hash, p.playbook.clone())) else { return };
    let how = match finish {
        Finish::Verified => RunEnd::Verified,
        Finish::UndoneThenEscalate { .. } | Finish::Failed { .. } if case.stopped.is_none() => RunEnd::Failed,
        Finish::Unknown { .. } => RunEnd::Failed,
        _ => RunEnd::Abandoned,
    };
    if !case.rehearsal {
        turn.rooms.guard.finish(hash, how, turn.now);
        turn.out.push(Effect::GuardChanged);
    }
    let began = case.done > Done::Rehearsed || matches!(finish, Finish::Failed { .. } | Finish::Unknown { .. });
    if began && !case.rehearsal {
        case.attempts += 1;
        if !matches!(finish, Finish::Verified) && !case.tried.contains(&playbook) {
            case.tried.push(playbook);
        }
    }
    if !matches!(finish, Finish::Refused { .. }) {
        case.refused = 0;
    }
}

/// Nothing was changed: a person stopped it, the guard did, or the world is another one.
fn refused(case: &mut Case, turn: &mut Turn<'_, '_>, why: String, stopped: Option<String>) -> Step {
    if let Some(stopped) = stopped {
        case.why = stopped;
        return match held(case.inc()) {
            Some(_) => {
                let note = case.why.clone();
                turn.go(case, Node::Monitor, note)
            }
            None => {
                let why = case.why.clone();
                turn.escalate(case, why.clone(), why)
            }
        };
    }
    if let Some(verdict) = case.denied.take() {
        case.passing = passing(&verdict);
        return if verdict.decision == Decision::Monitor {
            case.why.clone_from(&why);
            turn.go(case, Node::Monitor, why)
        } else {
            turn.escalate(case, why.clone(), why)
        };
    }
    case.refused += 1;
    if case.refused > REFUSED_MAX {
        let times = case.refused;
        case.refused = 0;
        return turn.escalate(case, format!("{why} ({times} times)"), why);
    }
    turn.go(case, Node::RootCause, format!("refused, planned anew: {why}"))
}

/// It was stopped with something changed: whether that was enough is read, and nothing else is done.
fn stay(case: &mut Case, turn: &mut Turn<'_, '_>, why: String) -> Step {
    case.why.clone_from(&why);
    case.done = Done::Applied;
    if let Some(plan) = &case.plan {
        let watch = Watch::of_plan(&plan.verification, turn.now);
        turn.watch(case, watch);
    }
    turn.go(case, Node::Verify, format!("stopped: {why}"))
}
