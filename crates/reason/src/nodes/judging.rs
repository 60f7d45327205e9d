//! Safety, the decision that follows, and the question to a person.

use super::assess::deadline;
use crate::Effect;
use crate::case::{Case, PolicyAsk};
use crate::node::Node;
use crate::turn::{Step, Turn};
use nightshift_guard::{Ask, ExternalAnswer, Facts, Hands, IncidentFacts, rule};
use nightshift_model::{
    AutomationState, Decision, EntityId, EventKind, Incident, IncidentStatus, Plan, PlanHash, Verdict,
};
use nightshift_topology::Topology;
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// What the guard is told.
pub(crate) fn facts(case: &Case, plan: &Plan, turn: &Turn<'_, '_>) -> Facts {
    let rooms = &turn.rooms;
    let near = touched(plan, rooms.topology);
    Facts {
        kill_switch: rooms.kill_switch.cloned(),
        incident: incident_facts(case.inc()),
        findings: case.findings.clone(),
        targets: Facts::of_targets(plan, rooms.topology, &case.looks.images),
        budgets: rooms
            .budgets
            .iter()
            .filter(|(id, _)| near.contains(*id))
            .map(|(i, b)| (i.clone(), b.clone()))
            .collect(),
        requester: None,
        external: case.policy.as_ref().filter(|p| p.plan == plan.hash).and_then(|p| p.answer.clone()),
    }
}

/// Targets and what depends on them.
fn touched(plan: &Plan, topology: &Topology) -> BTreeSet<EntityId> {
    let mut out = BTreeSet::new();
    for step in &plan.steps {
        let id = topology.resolve(&step.target);
        out.insert(step.target.clone());
        out.insert(id.clone());
        out.extend(topology.callers(id).map(|n| n.id.clone()));
    }
    out
}

fn incident_facts(inc: &Incident) -> IncidentFacts {
    IncidentFacts {
        id: inc.id,
        severity: inc.severity,
        score: inc.score,
        synthetic: inc.synthetic,
        hands: match inc.automation {
            AutomationState::Active => Hands::Machine,
            AutomationState::Paused => Hands::Paused,
            AutomationState::TakenOver => Hands::TakenOver,
        },
        faults: inc.hypotheses.iter().map(|h| h.fault).collect(),
    }
}

/// What the guard remembered of what a plan touches: part of the record.
fn remembered(turn: &Turn<'_, '_>, plan: &Plan) -> Value {
    let mut state = serde_json::to_value(turn.rooms.guard.state()).unwrap_or_default();
    let hash = plan.hash.to_string();
    if let Some(grants) = state.get_mut("grants").and_then(Value::as_object_mut) {
        grants.retain(|key, _| *key == hash);
    }
    if let Some(targets) = state.get_mut("targets").and_then(Value::as_object_mut) {
        targets.retain(|key, _| plan.steps.iter().any(|s| s.target.as_str() == key));
    }
    state
}

pub(super) fn safety(case: &mut Case, turn: &mut Turn<'_, '_>) -> Step {
    let Some(plan) = case.plan.clone() else {
        return turn.go(case, Node::RootCause, "there is no plan to judge");
    };
    if turn.rooms.external_policy && !case.synthetic && !asked_outside(case, &plan, turn) {
        return Step::Waits;
    }
    case.fresh = false;
    let facts = facts(case, &plan, turn);
    let seen = json!({ "facts": facts, "guard": remembered(turn, &plan) });
    let verdict = turn.rooms.guard.judge(&Ask { plan: &plan, facts: &facts }, turn.now);
    let note = verdict.summary();
    case.verdict = Some(verdict.clone());
    turn.journal(case, EventKind::Judged { verdict: Box::new(verdict) });
    turn.go_seen(case, Node::ExecutionDecision, note, seen)
}

/// Whether the external engine has answered, or has had its time.
fn asked_outside(case: &mut Case, plan: &Plan, turn: &mut Turn<'_, '_>) -> bool {
    match &case.policy {
        Some(ask) if ask.plan == plan.hash => {
            if ask.answer.is_some() {
                return true;
            }
            if case.due.is_some_and(|due| turn.now < due) {
                return false;
            }
            let why = format!("no answer within {} s", turn.config.policy_timeout_secs);
            case.policy = Some(PolicyAsk { plan: plan.hash, answer: Some(ExternalAnswer::Failed { why }) });
            case.dirty = true;
            true
        }
        _ => {
            let facts = facts(case, plan, turn);
            let input = turn.rooms.guard.policy_input(&Ask { plan, facts: &facts }, turn.now);
            let due = turn.now + std::time::Duration::from_secs(turn.config.policy_timeout_secs);
            case.policy = Some(PolicyAsk { plan: plan.hash, answer: None });
            case.due = Some(due);
            case.fresh = false;
            case.dirty = true;
            turn.out.push(Effect::AskPolicy {
                incident: case.id,
                plan: plan.hash,
                input: Box::new(serde_json::to_value(&input).unwrap_or_default()),
                deadline: due,
            });
            false
        }
    }
}

/// The external engine answered.
pub(crate) fn policy(case: &mut Case, plan: PlanHash, answer: ExternalAnswer) {
    if let Some(ask) = case.policy.as_mut().filter(|a| a.plan == plan && a.answer.is_none()) {
        ask.answer = Some(answer);
        case.dirty = true;
        case.wake = true;
    }
}

/// Where a verdict leads. `None`: to nobody, because nothing of it is carried out and nobody is asked about a test.
pub(crate) fn follows(verdict: &Verdict, synthetic: bool) -> Node {
    match verdict.decision {
        Decision::Execute => Node::Act,
        // What is only rehearsed changes nothing: there is nothing to agree to.
        Decision::Ask if verdict.dry_run => Node::Act,
        _ if synthetic => Node::Verify,
        Decision::Ask => Node::Approval,
        Decision::Monitor => Node::Monitor,
        Decision::Deny => Node::Escalation,
    }
}

/// Whether every rule that denies is one that may be lifted soon.
pub(crate) fn passing(verdict: &Verdict) -> bool {
    verdict.decision == Decision::Deny && verdict.decisive().all(|r| rule::is_passing(&r.rule))
}

pub(super) fn decision(case: &mut Case, turn: &mut Turn<'_, '_>) -> Step {
    let Some(verdict) = case.verdict.clone() else {
        return turn.go(case, Node::RootCause, "there is no verdict to follow");
    };
    let summary = verdict.summary();
    let to = follows(&verdict, case.synthetic);
    case.rehearsal = verdict.dry_run;
    case.passing = passing(&verdict);
    match to {
        Node::Act if verdict.decision == Decision::Ask => {
            turn.go(case, to, format!("dry-run only, so nobody is asked; otherwise: {summary}"))
        }
        Node::Act if verdict.dry_run => turn.go(case, to, "dry-run only: nothing is carried out"),
        Node::Act => turn.go(case, to, "it may run by itself"),
        Node::Verify => turn.go(case, to, format!("a test: nobody is asked or called; otherwise: {summary}")),
        Node::Monitor => {
            case.why.clone_from(&summary);
            turn.go(case, to, summary)
        }
        Node::Escalation => turn.escalate(case, summary.clone(), summary),
        other => turn.go(case, other, summary),
    }
}

pub(super) fn approval(case: &mut Case, turn: &mut Turn<'_, '_>) -> Step {
    let Some(verdict) = case.verdict.clone() else {
        return turn.go(case, Node::RootCause, "there is no verdict to ask about");
    };
    let plan = verdict.plan;
    if case.fresh {
        case.fresh = false;
        case.dirty = true;
        let Some(expires_at) = turn.rooms.guard.request_approval(&verdict, case.id, turn.now) else {
            let why = format!("plan {} was refused before", plan.short());
            return turn.escalate(case, why.clone(), why);
        };
        turn.out.push(Effect::GuardChanged);
        case.asked = Some(plan);
        case.due = Some(expires_at);
        let why = verdict.decisive().map(|r| r.why.as_str()).collect::<Vec<_>>().join("; ");
        turn.journal(case, EventKind::ApprovalRequested { plan, expires_at, why: why.clone() });
        turn.status(case, IncidentStatus::AwaitingApproval, why);
        return Step::Waits;
    }
    if case.agreed == Some(plan) {
        return turn.go(case, Node::Act, "a person agreed");
    }
    let due = case.due.unwrap_or_else(|| deadline(case, 0));
    if turn.now < due {
        return Step::Waits;
    }
    // The guard keeps the same deadline: from here on it knows of a rejection too.
    if !turn.rooms.guard.tick(turn.now).is_empty() {
        turn.out.push(Effect::GuardChanged);
    }
    case.asked = None;
    let secs = due.since(case.entered_at).as_secs();
    let why = format!("nobody answered within {secs} s");
    turn.journal(case, EventKind::Rejected { plan, why: why.clone(), timed_out: true });
    turn.escalate(case, why.clone(), why)
}
