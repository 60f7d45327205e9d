//! The end: resolved, postmortem, learn; and what happens when it comes back.

use crate::Effect;
use crate::case::{Case, Done};
use crate::node::Node;
use crate::turn::{Step, Turn};
use nightshift_model::{EventKind, Timestamp};
use serde_json::Value;
use std::time::Duration;

pub(super) fn resolved(case: &mut Case, turn: &mut Turn<'_, '_>) -> Step {
    case.fresh = false;
    if case.inc().status.is_open() {
        let why = case.why.clone();
        turn.journal(case, EventKind::Resolved { why });
    }
    let at = case.inc().resolved_at.unwrap_or(turn.now);
    case.resolved_at = Some(at);
    case.learned = false;
    if case.synthetic {
        turn.unwatch(case);
        turn.leave(case, "a test: no postmortem, nothing is learned", Value::Null);
        return Step::Ended;
    }
    // On probation: the series that showed the recovery shows a relapse too.
    let since = turn.now;
    match (&mut case.watch, &case.plan, case.done) {
        (Some(watch), ..) => watch.again(since),
        (None, Some(plan), Done::Verified) => {
            let watch = crate::watch::Watch::of_plan(&plan.verification, since);
            turn.watch(case, watch);
        }
        _ => {}
    }
    let by = case.inc().resolved_by.clone().unwrap_or_default();
    turn.go(case, Node::Postmortem, format!("by {by}"))
}

pub(super) fn postmortem(case: &mut Case, turn: &mut Turn<'_, '_>) -> Step {
    if case.fresh {
        case.fresh = false;
        case.dirty = true;
        case.postmortems = 0;
    }
    let resolved_at = case.resolved_at.unwrap_or(case.entered_at);
    if case.inc().postmortem_at.is_some_and(|at| at >= resolved_at) {
        return turn.go(case, Node::Learn, "written");
    }
    if case.due.is_some_and(|due| turn.now < due) {
        return Step::Waits;
    }
    if case.postmortems >= turn.config.postmortem_attempts_max {
        return turn.go(case, Node::Learn, format!("not written after {} requests", case.postmortems));
    }
    case.postmortems += 1;
    case.due = Some(turn.now + Duration::from_secs(turn.config.postmortem_retry_secs));
    case.dirty = true;
    turn.out.push(Effect::Postmortem { incident: case.id });
    Step::Waits
}

pub(super) fn learn(case: &mut Case, turn: &mut Turn<'_, '_>) -> Step {
    if case.fresh {
        case.fresh = false;
        case.dirty = true;
    }
    let resolved_at = case.resolved_at.unwrap_or(case.entered_at);
    let probation = resolved_at + Duration::from_secs(turn.config.probation_secs);
    let forgotten = (resolved_at + Duration::from_secs(turn.config.remember_secs)).max(probation);
    if !case.learned {
        if case.watch.as_ref().is_some_and(crate::watch::Watch::relapsed) {
            let why = "the KPI left its promise again during probation".to_owned();
            turn.journal(case, EventKind::Reopened { why: why.clone() });
            return relapse(case, turn, &why);
        }
        if turn.now < probation {
            return wait(case, probation);
        }
        case.learned = true;
        turn.unwatch(case);
        turn.out.push(Effect::Learn { incident: case.id });
        turn.leave(case, "probation is over", Value::Null);
        // From here on it is only remembered: a return within that time is a visit of its own.
        case.entered_at = turn.now;
        *case.entries.entry(Node::Learn).or_insert(0) += 1;
    }
    if turn.now < forgotten {
        return wait(case, forgotten);
    }
    Step::Ended
}

fn wait(case: &mut Case, until: Timestamp) -> Step {
    if case.due != Some(until) {
        case.due = Some(until);
        case.dirty = true;
    }
    Step::Waits
}

/// It came back: what was tried is not tried again.
pub(super) fn relapse(case: &mut Case, turn: &mut Turn<'_, '_>, why: &str) -> Step {
    if case.done > Done::Rehearsed {
        if let Some(playbook) = case.plan.as_ref().map(|p| p.playbook.clone())
            && !case.tried.contains(&playbook)
        {
            case.tried.push(playbook);
        }
        turn.out.push(Effect::Learn { incident: case.id });
    }
    turn.unwatch(case);
    case.done = Done::Nothing;
    case.resolved_at = None;
    case.learned = false;
    case.monitor_rounds = 0;
    case.verdict = None;
    turn.go(case, Node::RootCause, why)
}
