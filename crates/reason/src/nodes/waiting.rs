//! Nodes that wait: for a signal to recover, for something new, for a person.

use super::assess::{deadline, real};
use super::judging::facts;
use crate::case::{Case, Done, Ranked};
use crate::node::Node;
use crate::turn::{Step, Turn, held};
use crate::watch::Watch;
use nightshift_guard::Ask;
use nightshift_model::{Decision, EventKind, IncidentStatus, KpiReading};
use std::time::Duration;

/// The signal came back: verified and over.
fn recovered(case: &mut Case, turn: &mut Turn<'_, '_>, readings: Vec<KpiReading>) -> Step {
    let executed = case.done > Done::Rehearsed;
    let plan = case.plan.as_ref().map(|p| p.hash).filter(|_| case.done > Done::Nothing);
    let why = if executed { "verified after the fix" } else { "signal recovered; nothing was executed" };
    if executed {
        case.done = Done::Verified;
    }
    case.why = why.to_owned();
    turn.journal(case, EventKind::Verified { plan, readings, executed });
    turn.go(case, Node::Resolved, why)
}

/// Watches the series that says whether it is over: what the plan promised, or what the incident shows worst.
fn watch(case: &mut Case, turn: &mut Turn<'_, '_>) {
    let since = if case.synthetic { case.inc().onset } else { turn.now };
    let promised = case.plan.as_ref().filter(|p| p.acts() && !case.synthetic);
    let watch = match promised {
        Some(plan) => Some(Watch::of_plan(&plan.verification, since)),
        None => Watch::of_incident(case.inc(), turn.config.readings, since),
    };
    match watch {
        Some(watch) => turn.watch(case, watch),
        None => turn.unwatch(case),
    }
}

/// Nothing is under way any more; does the signal recover?
pub(super) fn verify(case: &mut Case, turn: &mut Turn<'_, '_>) -> Step {
    if case.fresh {
        case.fresh = false;
        case.dirty = true;
        if case.done != Done::Applied || case.watch.is_none() {
            watch(case, turn);
        }
        let secs = match &case.plan {
            Some(plan) if case.done == Done::Applied => u64::from(plan.verification.deadline_secs),
            _ => turn.config.rehearsed_secs,
        };
        // Nobody is called because of a test: the engine ends it when its symptoms end.
        case.due = (!case.synthetic).then(|| deadline(case, secs));
    }
    if let Some(readings) = case.watch.as_ref().and_then(Watch::recovered) {
        return recovered(case, turn, readings);
    }
    let due = case.due.is_some_and(|due| due <= turn.now);
    if case.done == Done::Applied {
        if !due {
            return Step::Waits;
        }
        let readings = case.watch.as_ref().map(|w| w.readings.clone()).unwrap_or_default();
        let why = format!("{}; the KPI did not come back in time", case.why);
        if let Some(plan) = case.plan.as_ref().map(|p| p.hash) {
            turn.journal(case, EventKind::VerificationFailed { plan, readings, why: why.clone() });
        }
        return turn.escalate(case, why.clone(), why);
    }
    if case.synthetic {
        return Step::Waits;
    }
    let now = Ranked::of(case.inc());
    if held(case.inc()).is_none() && case.ranked.as_ref().is_some_and(|r| r.names_another(&now)) {
        return turn.go(case, Node::RootCause, "the ranking of causes changed");
    }
    if !due {
        return Step::Waits;
    }
    let plan = case.plan.as_ref().map_or_else(String::new, |p| format!("plan {} ({}) ", p.hash.short(), p.title));
    let why =
        format!("{plan}was rehearsed only (guard.dry_run), and the signal has not recovered: carry it out by hand");
    turn.escalate(case, why.clone(), why)
}

/// Watched: what would change that?
pub(super) fn monitor(case: &mut Case, turn: &mut Turn<'_, '_>) -> Step {
    let hands = held(case.inc());
    if case.fresh {
        case.fresh = false;
        case.dirty = true;
        case.held = hands.is_some();
        let why = case.why.clone();
        turn.status(case, IncidentStatus::Monitoring, why);
        watch(case, turn);
        let after = turn.config.monitor_after(case.monitor_rounds);
        case.due = (!case.held && !case.unreal && !case.synthetic).then(|| turn.now + after);
    }
    if hands.is_some() {
        // A person does it, or wants nothing done: the engine says when it is over.
        if !case.held {
            case.held = true;
            case.due = None;
            case.dirty = true;
        }
        return Step::Waits;
    }
    if case.held {
        case.held = false;
        return turn.go(case, Node::RootCause, "the machine may act again");
    }
    if let Some(readings) = case.watch.as_ref().and_then(Watch::recovered) {
        return recovered(case, turn, readings);
    }
    if case.unreal {
        let inc = case.inc();
        if real(inc.score, inc.severity, turn.config.real_score_min) {
            return turn.go(case, Node::IsReal, "it got worse");
        }
        return Step::Waits;
    }
    let now = Ranked::of(case.inc());
    if case.ranked.as_ref().is_some_and(|r| r.differs(&now)) {
        return turn.go(case, Node::RootCause, "the ranking of causes changed");
    }
    if case.due.is_none_or(|due| turn.now < due) {
        return Step::Waits;
    }
    case.monitor_rounds += 1;
    case.dirty = true;
    let rounds = case.monitor_rounds;
    if rounds >= turn.config.monitor_rounds_max {
        let why = format!("looked at {rounds} times, and it still waits: {}", case.why);
        return turn.escalate(case, why.clone(), why);
    }
    if still(case, turn) == Some(Decision::Monitor) {
        case.due = Some(turn.now + turn.config.monitor_after(rounds));
        return Step::Waits;
    }
    turn.go(case, Node::RootCause, "judged again: it need not wait any longer")
}

/// What the guard would say of the plan now. `None`: there is no plan.
fn still(case: &Case, turn: &Turn<'_, '_>) -> Option<Decision> {
    let plan = case.plan.as_ref()?;
    let facts = facts(case, plan, turn);
    Some(turn.rooms.guard.judge(&Ask { plan, facts: &facts }, turn.now).decision)
}

/// A person must act. What could still be done without one: a rule is lifted, another cause shows.
pub(super) fn escalation(case: &mut Case, turn: &mut Turn<'_, '_>) -> Step {
    if case.fresh {
        case.fresh = false;
        case.dirty = true;
        case.reminders = 0;
        case.passing_rounds = 0;
        turn.unwatch(case);
        if let Some(lost) = case.lost.clone() {
            case.why = lost_why(case, &lost);
        }
        if !case.synthetic {
            let (why, to) = (case.why.clone(), case.to.clone());
            turn.journal(case, EventKind::Escalated { why, to });
        }
        case.due = next_look(case, turn);
        return Step::Waits;
    }
    if held(case.inc()).is_some() || case.lost.is_some() {
        return Step::Waits;
    }
    if case.due.is_none() {
        case.due = next_look(case, turn);
        case.dirty |= case.due.is_some();
    }
    if may_go_on(case, turn) {
        let now = Ranked::of(case.inc());
        if case.ranked.as_ref().is_some_and(|r| r.names_another(&now)) {
            return turn.go(case, Node::RootCause, "another cause shows");
        }
        if case.passing && still(case, turn).is_some_and(|d| d != Decision::Deny) {
            case.passing = false;
            return turn.go(case, Node::RootCause, "what denied it is over");
        }
    }
    if case.due.is_none_or(|due| turn.now < due) {
        return Step::Waits;
    }
    case.dirty = true;
    if case.passing && case.passing_rounds < turn.config.monitor_rounds_max {
        case.passing_rounds += 1;
    } else if case.inc().acknowledged_by.is_none() && case.reminders < turn.config.reminders_max {
        case.reminders += 1;
        let n = case.reminders;
        let (why, to) = (format!("nobody has acknowledged it yet (reminder {n}): {}", case.why), case.to.clone());
        turn.journal(case, EventKind::Escalated { why, to });
    }
    case.due = next_look(case, turn);
    Step::Waits
}

/// Whether another plan may be made at all.
fn may_go_on(case: &Case, turn: &Turn<'_, '_>) -> bool {
    let entries = case.entries.get(&Node::RootCause).copied().unwrap_or(0);
    !case.synthetic
        && case.attempts < turn.config.attempts_max
        && case.plans < turn.config.plans_max
        && entries < turn.config.node_attempts_max
}

/// When an escalated case is looked at again by itself; `None`: people and the engine end it.
fn next_look(case: &Case, turn: &Turn<'_, '_>) -> Option<nightshift_model::Timestamp> {
    let config = turn.config;
    if case.synthetic {
        None
    } else if case.passing && case.passing_rounds < config.monitor_rounds_max {
        Some(turn.now + config.monitor_after(case.passing_rounds))
    } else if config.remind_secs > 0 && case.reminders < config.reminders_max && case.inc().acknowledged_by.is_none() {
        Some(turn.now + Duration::from_secs(config.remind_secs))
    } else {
        None
    }
}

/// What a person must know of a case that could not be read back.
fn lost_why(case: &Case, lost: &str) -> String {
    let open = case.inc().actions.iter().filter(|a| a.outcome.is_none()).count();
    let under_way = match open {
        0 => "no action was under way".to_owned(),
        n => format!("{n} actions have no outcome: look at their targets"),
    };
    format!("{lost}; {under_way}")
}
