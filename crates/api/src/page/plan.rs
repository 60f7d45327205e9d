//! What the templates are given of plans, verdicts, what was done, and how long it took.

use super::view::{ago, bar, clock, figure, grouped, rounded, time, words};
use crate::seams::{ApiState, GuardReport};
use crate::shown::{Story, countdown, seconds_left, span};
use crate::verbs::risk_of;
use nightshift_model::{
    ActionOutcome, ActionState, ApprovalState, AutomationState, Compare, Decision, Feedback, Image, Incident,
    KpiReading, NodeTime, Operation, Plan, PlanStep, Risk, Rollback, Timestamp, Verdict, Verification,
};
use serde_json::{Value, json};
use std::time::Duration;

/// Operations, readings and nodes that a page shows, the newest; the API has all.
const ACTIONS_MAX: usize = 60;
const READINGS_MAX: usize = 20;
const NODES_MAX: usize = 40;

/// What the banner on every page says; `on: false`: nothing.
pub(crate) fn kill_switch(state: &ApiState, now: Timestamp) -> Value {
    match state.automation.kill_switch.state() {
        Some(k) => json!({ "on": k.on, "by": k.by, "why": k.why, "at": time(k.at, now) }),
        None => json!({ "on": false, "by": "", "why": "", "at": null }),
    }
}

/// Everything about what is done of an incident, for its page.
pub(crate) fn automation(i: &Incident, story: &Story, now: Timestamp) -> Value {
    let skipped = i.actions.len().saturating_sub(ACTIONS_MAX);
    let nodes = i.nodes.len().saturating_sub(NODES_MAX);
    let executed = i.actions.iter().any(changed);
    let asked = matches!(i.approval, Some(ApprovalState::Asked { .. }));
    json!({
        "plan": i.plan.as_ref().map(|p| plan(p, story)),
        "plans": i.plans_total,
        "verdict": i.verdict.as_ref().map(verdict),
        "approval": i.approval.as_ref().map(|a| approval(a, i, now)),
        "asked": asked && i.status.is_open(),
        "critical": risk_of(i) == Some(Risk::Critical),
        "can_override": i.status.is_open() && i.plan.is_some() && !executed
            && i.verdict.as_ref().is_some_and(|v| v.reasons.iter().any(|r| r.overridable)),
        "mode": match i.automation {
            AutomationState::Active => "active",
            AutomationState::Paused => "paused",
            AutomationState::TakenOver => "taken_over",
        },
        "taken_over_by": i.taken_over_by,
        "escalation": story.escalated.as_ref().filter(|_| i.status.is_open())
            .map(|(why, to)| json!({ "why": why, "to": to.join(", then ") })),
        "actions": i.actions[skipped..].iter().map(|a| action(a, now)).collect::<Vec<_>>(),
        "actions_skipped": i.actions_total.saturating_sub((i.actions.len() - skipped) as u64),
        "executed": executed,
        "readings": readings(&story.readings, i.plan.as_ref().map(|p| &p.verification)),
        "verified": i.verified_at.map(|at| time(at, now)),
        "nodes": i.nodes[nodes..].iter().map(node).collect::<Vec<_>>(),
        "feedback": i.feedback.as_ref().map(feedback),
        "postmortem": i.postmortem_at.is_some(),
        // The forms of the page fit to this; when it changes they are others.
        "key": format!(
            "{}/{}/{asked}/{:?}/{executed}/{}",
            i.status.is_open(),
            i.plan.as_ref().map(|p| p.hash.short()).unwrap_or_default(),
            i.automation,
            i.feedback.is_some(),
        ),
    })
}

/// What the list shows of it.
pub(crate) fn marks(i: &Incident, now: Timestamp) -> Value {
    let left = seconds_left(i, now).filter(|_| i.status.is_open());
    json!({
        "asks": left.map(countdown),
        "paused": i.automation == AutomationState::Paused,
        "taken_over_by": i.taken_over_by.as_deref().filter(|_| i.automation == AutomationState::TakenOver),
    })
}

fn plan(p: &Plan, story: &Story) -> Value {
    json!({
        "hash": p.hash,
        "short": p.hash.short(),
        "title": p.title,
        "playbook": p.playbook,
        "digest": p.playbook_digest,
        "risk": p.risk.as_str(),
        "priority": words(&p.priority.as_str().to_lowercase()),
        "owner": p.owner,
        "escalation": p.escalation_path.join(", then "),
        "takes": span(p.estimated_resolution_secs),
        "percent": (p.confidence.clamp(0.0, 1.0) * 100.0).round(),
        "width": bar(p.confidence),
        "covers": p.covers.iter().map(|c| json!({
            "fault": c.fault.title(), "entity": c.entity.name(), "id": c.entity,
            "percent": (c.confidence.clamp(0.0, 1.0) * 100.0).round(),
        })).collect::<Vec<_>>(),
        "steps": p.steps.iter().map(step).collect::<Vec<_>>(),
        "promise": promise(&p.verification),
        "prediction": p.prediction.as_ref().map(|w| {
            let most = [w.kpi_with, w.kpi_without, p.verification.threshold].into_iter()
                .filter(|x| x.is_finite()).fold(0.0_f64, |m, x| m.max(x.abs()));
            let width = |x: f64| if most > 0.0 && x.is_finite() { rounded(x.abs() / most * 100.0) } else { 0.0 };
            json!({
                "percent": (w.success_probability.clamp(0.0, 1.0) * 100.0).round(),
                "recovery": w.recovery_secs.filter(|s| s.is_finite()).map(took_secs),
                "with": figure(w.kpi_with), "without": figure(w.kpi_without),
                "with_width": width(w.kpi_with), "without_width": width(w.kpi_without),
                "promised_x": width(p.verification.threshold),
                "better": p.verification.is_good(w.kpi_with),
                "harms": w.harms, "basis": w.basis, "signal": p.verification.kpi.signal,
            })
        }),
        "alternatives": story.alternatives,
        "findings": story.findings,
    })
}

fn step(s: &PlanStep) -> Value {
    json!({
        "name": s.name,
        "action": words(s.action.as_str()),
        "target": s.target.name(),
        "target_id": s.target,
        "actuator": s.actuator,
        "changes": changes(&s.params, &s.expects),
        "risk": s.risk.as_str(),
        "impact": s.estimated_impact,
        "rollback": match s.rollback {
            Rollback::Restore => "is put back",
            Rollback::Nothing => "nothing to put back",
            Rollback::Impossible => "cannot be taken back",
        },
        "impossible": s.rollback == Rollback::Impossible,
        "canary": s.canary.as_ref().map(|c| {
            format!("first {:.0} %, watched for {} s", c.share.clamp(0.0, 1.0) * 100.0, c.watch_secs)
        }),
    })
}

/// `replicas 3 → 6`.
fn changes(params: &Image, expects: &Image) -> Vec<String> {
    let one = |(name, to): (&String, &Value)| match expects.get(name).filter(|was| *was != to) {
        Some(was) => format!("{name} {} → {}", plain(was), plain(to)),
        None => format!("{name} {}", plain(to)),
    };
    params.iter().map(one).collect()
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn promise(v: &Verification) -> String {
    let way = match v.compare {
        Compare::Below => "at or below",
        Compare::Above => "at or above",
    };
    format!(
        "{} of {} {way} {}: {} readings in a row within {}",
        v.kpi.signal,
        v.kpi.entity.name(),
        figure(v.threshold),
        v.readings,
        span(v.deadline_secs)
    )
}

fn verdict(v: &Verdict) -> Value {
    json!({
        "decision": v.decision.as_str(),
        "says": match v.decision {
            Decision::Execute if v.dry_run => "may run: a dry-run, nothing is changed",
            Decision::Execute => "may run by itself",
            Decision::Ask => "a person must agree",
            Decision::Monitor => "not now: it is looked at again",
            Decision::Deny => "must not run",
        },
        "risk": v.risk.as_str(),
        "dry_run": v.dry_run,
        "at": clock(&v.at.to_rfc3339()),
        "reasons": v.reasons.iter().map(|r| json!({
            "rule": r.rule, "decision": r.decision.as_str(), "why": r.why, "overridable": r.overridable,
            "decisive": r.decision == v.decision && v.decision != Decision::Execute,
        })).collect::<Vec<_>>(),
    })
}

fn approval(a: &ApprovalState, i: &Incident, now: Timestamp) -> Value {
    match a {
        ApprovalState::Asked { plan, expires_at } => {
            let left = seconds_left(i, now).unwrap_or(0);
            json!({
                "state": "asked", "plan": plan.short(), "until": clock(&expires_at.to_rfc3339()), "iso": expires_at,
                "left": countdown(left), "soon": left < 60,
            })
        }
        ApprovalState::Approved { plan, by, at } => {
            json!({ "state": "approved", "plan": plan.short(), "by": by, "at": time(*at, now) })
        }
        ApprovalState::Rejected { plan, by, at } => {
            json!({ "state": "rejected", "plan": plan.short(), "by": by, "at": time(*at, now) })
        }
    }
}

/// Whether the world was changed by it, or may have been.
fn changed(a: &ActionState) -> bool {
    let nothing = matches!(a.outcome, Some(ActionOutcome::Failed | ActionOutcome::Refused));
    a.action.operation.changes() && !nothing && !a.action.synthetic
}

fn action(a: &ActionState, now: Timestamp) -> Value {
    let (outcome, class) = match a.outcome {
        None => ("under way", "going"),
        Some(o) if o.is_done() => (o.as_str(), "good"),
        Some(ActionOutcome::Unknown) => ("unknown", "bad"),
        Some(o) => (o.as_str(), "bad"),
    };
    json!({
        "at": time(a.intended_at, now),
        "step": a.action.step + 1,
        "operation": match a.action.operation {
            Operation::Prepare => "look",
            Operation::DryRun => "dry-run",
            Operation::Canary => "canary",
            Operation::Apply => "apply",
            Operation::Observe => "look again",
            Operation::Undo => "undo",
        },
        "changes": a.action.operation.changes(),
        "action": words(a.action.action.as_str()),
        "target": a.action.target.name(),
        "target_id": a.action.target,
        "actuator": a.action.actuator,
        "attempt": a.action.attempt,
        "key": a.action.key,
        "outcome": words(outcome),
        "class": class,
        "detail": a.detail,
        "took": a.ended_at.map(|at| took(at.since(a.intended_at))),
    })
}

fn readings(all: &[KpiReading], promised: Option<&Verification>) -> Vec<Value> {
    let skipped = all.len().saturating_sub(READINGS_MAX);
    all[skipped..]
        .iter()
        .map(|r| {
            json!({
                "at": clock(&r.at.to_rfc3339()), "iso": r.at, "value": figure(r.value), "good": r.good,
                "signal": promised.map(|v| v.kpi.signal.as_str()).unwrap_or_default(),
            })
        })
        .collect()
}

fn node(n: &NodeTime) -> Value {
    json!({
        "node": words(&n.node), "at": clock(&n.began_at.to_rfc3339()), "iso": n.began_at,
        "took": took(n.ended_at.since(n.began_at)), "attempt": n.attempt, "note": n.note,
    })
}

fn feedback(f: &Feedback) -> Value {
    let (says, note) = match f {
        Feedback::FalsePositive { note } => ("a false alarm".to_owned(), note),
        Feedback::TrueCause { entity, fault, note } => {
            (format!("the cause was {} on {}", fault.title(), entity.name()), note)
        }
    };
    json!({ "says": says, "note": note })
}

/// A short time: `0.4 ms`, `12 ms`, `1.5 s`, `3 min`.
fn took(d: Duration) -> String {
    let ms = d.as_secs_f64() * 1_000.0;
    match ms {
        _ if ms < 0.05 => "at once".into(),
        _ if ms < 10.0 => format!("{ms:.1} ms"),
        _ if ms < 1_000.0 => format!("{ms:.0} ms"),
        _ => took_secs(ms / 1_000.0),
    }
}

fn took_secs(secs: f64) -> String {
    if secs < 10.0 { format!("{secs:.1} s") } else { span(secs.min(f64::from(u32::MAX)) as u32) }
}

/// The guard, for its page.
pub(crate) fn guard(report: &GuardReport, now: Timestamp) -> Value {
    let left = |at: Timestamp| countdown(at.since(now).as_secs());
    json!({
        "dry_run": report.dry_run,
        "breakers": report.breakers.iter().map(|b| json!({
            "target": b.target, "state": words(&b.state), "open": b.state == "open", "failures": b.failures,
            "left": b.open_until.map(left),
        })).collect::<Vec<_>>(),
        "cooldowns": report.cooldowns.iter().map(|c| json!({ "target": c.target, "left": left(c.until) }))
            .collect::<Vec<_>>(),
        "budgets": report.budgets.iter().map(|b| json!({
            "entity": b.entity, "slo": b.slo, "known": b.left.is_some(),
            "percent": b.left.map(|x| format!("{:.1} %", x * 100.0)), "width": b.left.map_or(0.0, bar),
            "low": b.left.is_some_and(|x| x < 0.1),
        })).collect::<Vec<_>>(),
        "freezes": report.freezes.iter().map(|f| json!({
            "name": f.name, "left": f.until.map(left),
        })).collect::<Vec<_>>(),
    })
}

/// Playbooks and policies, for the page of the guard.
pub(crate) fn catalogue(state: &ApiState) -> Value {
    let (playbooks, policies) = (state.automation.catalogue.playbooks(), state.automation.catalogue.policies());
    json!({
        "n_playbooks": grouped(playbooks.len() as u64),
        "n_policies": grouped(policies.len() as u64),
        "playbooks": playbooks.iter().map(|p| json!({
            "name": p.name, "title": p.title, "faults": p.faults.iter().map(|f| words(f)).collect::<Vec<_>>().join(", "),
            "actions": p.actions.iter().map(|a| words(a)).collect::<Vec<_>>().join(", then "),
            "risk": p.risk, "priority": words(&p.priority.to_lowercase()), "owner": p.owner,
            "source": p.source, "digest": p.digest,
        })).collect::<Vec<_>>(),
        "policies": policies,
    })
}

/// When a delivery was last tried and how it went, in words.
pub(crate) fn deliveries(rows: &[crate::seams::DeliveryRow], now: Timestamp) -> Vec<Value> {
    rows.iter()
        .map(|d| {
            json!({
                "notifier": d.notifier, "to": d.to, "letter": words(&d.letter), "subject": d.subject,
                "status": d.status.to_lowercase(), "attempts": d.attempts, "bad": d.status == "FAILED", "error": d.error, "at": ago(d.tried_at.unwrap_or(d.created_at), now),
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_times_are_said_as_they_are() {
        for (ms, want) in [(0.0, "at once"), (0.4, "0.4 ms"), (12.0, "12 ms"), (1_500.0, "1.5 s"), (61_000.0, "61 s")] {
            assert_eq!(took(Duration::from_secs_f64(ms / 1_000.0)), want);
        }
    }

    #[test]
    fn a_step_says_what_changes() {
        let image =
            |pairs: &[(&str, Value)]| pairs.iter().map(|(k, v)| ((*k).to_owned(), v.clone())).collect::<Image>();
        let params = image(&[("replicas", json!(6)), ("to", json!("2.8.0"))]);
        assert_eq!(changes(&params, &image(&[("replicas", json!(3))])), ["replicas 3 → 6", "to 2.8.0"]);
    }
}
