//! An incident as text for a terminal: causes, plan, verdict, what was done, symptoms, timeline.

use super::incidents::{age, left};
use nightshift_model::{
    ApprovalState, AutomationState, Compare, Feedback, Incident, KpiReading, Phase, Rollback, Timestamp,
};
use serde_json::Value;
use std::fmt::Write as _;

/// An incident as text. `more` is the whole answer of the server: it has what the journal tells beyond the incident.
pub fn describe(i: &Incident, more: &Value, now: Timestamp) -> String {
    let mut out = String::new();
    // Writing to a string cannot fail.
    let _ = describe_into(&mut out, i, more, now);
    out
}

/// The plan of an incident as text, with the verdict on it; empty when there is none.
pub(super) fn describe_plan(i: &Incident, more: &Value) -> String {
    let mut out = String::new();
    // Writing to a string cannot fail.
    let _ = plan_into(&mut out, i, more);
    out
}

fn describe_into(out: &mut String, i: &Incident, more: &Value, now: Timestamp) -> std::fmt::Result {
    writeln!(out, "{}  {}", i.short_id(), i.title)?;
    writeln!(out, "{}, {}, score {:.2}, {} old", i.severity, i.status, i.score, age(now.since(i.detected_at)))?;
    let latency = i.detection_latency().as_secs_f64();
    writeln!(out, "began {}, noticed {} ({latency:.1} s later)", i.onset, i.detected_at)?;
    if let (Some(at), Some(by)) = (i.resolved_at, &i.resolved_by) {
        writeln!(out, "resolved {at} by {by}, {} after it was noticed", age(at.since(i.detected_at)))?;
    }
    if let Some(who) = &i.acknowledged_by {
        writeln!(out, "acknowledged by {who}")?;
    }
    if let Some(elder) = i.merged_into {
        writeln!(out, "joined into {elder}")?;
    }
    if let Some(earlier) = i.recurrence_of {
        writeln!(out, "came back: recurrence of {earlier}")?;
    }
    match i.automation {
        AutomationState::Active => {}
        AutomationState::Paused => writeln!(out, "automation is paused; `nightshift resume {}`", i.short_id())?,
        AutomationState::TakenOver => {
            writeln!(out, "taken over by {}", i.taken_over_by.as_deref().unwrap_or("somebody"))?;
        }
    }
    if let Some(why) = more["escalation"]["why"].as_str().filter(|_| i.status.is_open()) {
        let to: Vec<&str> =
            more["escalation"]["to"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let to = if to.is_empty() { String::new() } else { format!(" to {}", to.join(", then ")) };
        writeln!(out, "ESCALATED{to}: {why}")?;
    }
    question_into(out, i, now)?;
    let b = &i.blast_radius;
    writeln!(out, "\nAffected ({})", b.affected.len())?;
    for entity in b.affected.iter().take(20) {
        writeln!(out, "  {entity}")?;
    }
    if b.affected.len() > 20 {
        writeln!(out, "  … and {} more", b.affected.len() - 20)?;
    }
    if !b.at_risk.is_empty() {
        writeln!(out, "  at risk: {}", b.at_risk.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "))?;
    }
    if let Some(impact) = &b.estimated_user_impact {
        writeln!(out, "  impact: {impact}")?;
    }
    writeln!(out, "\nCauses (revision {})", i.rca_revision)?;
    if i.hypotheses.is_empty() {
        writeln!(out, "  not ranked yet")?;
    }
    for (n, h) in i.hypotheses.iter().enumerate() {
        let whose = h.entity.as_ref().map(|e| format!(" of {e}")).unwrap_or_default();
        writeln!(out, "  {}. {:.0} %  {}{whose}", n + 1, h.confidence * 100.0, h.summary)?;
        // The likeliest is explained in full; the others on the page and in --json.
        if n == 0 {
            for c in &h.contributions {
                writeln!(out, "       {:+.2}  {:<14} {}", c.log_odds, c.factor, c.why)?;
            }
        }
    }
    plan_into(out, i, more)?;
    actions_into(out, i, more)?;
    writeln!(out, "\nSymptoms ({} in all, {} going on)", i.anomalies_total, i.anomalies_open)?;
    for a in i.anomalies.iter().take(20) {
        let state = if a.phase == Phase::Closed { "over" } else { "open" };
        writeln!(out, "  {state}  {:.2}  {}  {}", a.score, a.entity.id.name(), a.description)?;
    }
    if i.anomalies.len() > 20 {
        writeln!(out, "  … and {} more", i.anomalies_total - 20)?;
    }
    writeln!(out, "\nTimeline")?;
    for t in &i.timeline {
        writeln!(out, "  {}  {:<14} {:<8} {}", t.at, t.action, t.actor, t.detail)?;
    }
    if !i.nodes.is_empty() {
        writeln!(out, "\nHow long each step of the loop took")?;
    }
    for n in &i.nodes {
        let took = n.ended_at.since(n.began_at).as_secs_f64() * 1_000.0;
        let again = if n.attempt > 1 { format!(" (attempt {})", n.attempt) } else { String::new() };
        writeln!(out, "  {took:>9.1} ms  {}{again}  {}", n.node, n.note)?;
    }
    if let Some(f) = &i.feedback {
        match f {
            Feedback::FalsePositive { note } => writeln!(out, "\nPeople say: a false alarm. {note}")?,
            Feedback::TrueCause { entity, fault, note } => {
                writeln!(out, "\nPeople say: the cause was {} of {entity}. {note}", fault.slug())?;
            }
        }
    }
    if i.postmortem_at.is_some() {
        writeln!(out, "\nIts postmortem is written: nightshift postmortem {}", i.short_id())?;
    }
    Ok(())
}

/// The question to people, with the command that answers it.
fn question_into(out: &mut String, i: &Incident, now: Timestamp) -> std::fmt::Result {
    let id = i.short_id();
    match &i.approval {
        Some(ApprovalState::Asked { plan, expires_at }) if i.status.is_open() => {
            let left = left(expires_at.since(now));
            writeln!(out, "\nMAY ITS PLAN RUN? {left} left; no answer is a rejection")?;
            writeln!(out, "  nightshift approve {id} --plan {}", plan.short())?;
            writeln!(out, "  nightshift reject {id} --plan {}", plan.short())
        }
        Some(ApprovalState::Approved { plan, by, at }) => {
            writeln!(out, "plan {} approved by {by} at {at}", plan.short())
        }
        Some(ApprovalState::Rejected { plan, by: Some(by), at }) => {
            writeln!(out, "plan {} rejected by {by} at {at}", plan.short())
        }
        Some(ApprovalState::Rejected { plan, by: None, at }) => {
            writeln!(out, "plan {} rejected at {at}: nobody answered in time", plan.short())
        }
        _ => Ok(()),
    }
}

fn plan_into(out: &mut String, i: &Incident, more: &Value) -> std::fmt::Result {
    let Some(p) = &i.plan else { return Ok(()) };
    writeln!(out, "\nPlan {}: {}", p.hash.short(), p.title)?;
    let takes = more["plan"]["estimated_resolution_time"]
        .as_str()
        .map_or_else(|| format!("{} s", p.estimated_resolution_secs), str::to_owned);
    writeln!(
        out,
        "  playbook {}, {} risk, {}, should take {takes}, owner {}",
        p.playbook,
        p.risk,
        p.priority,
        if p.owner.is_empty() { "nobody" } else { &p.owner }
    )?;
    for c in &p.covers {
        writeln!(out, "  heals {} of {} ({:.0} %)", c.fault.title(), c.entity, c.confidence * 100.0)?;
    }
    for (n, s) in p.steps.iter().enumerate() {
        let how: Vec<String> = s.params.iter().map(|(name, to)| change(name, s.expects.get(name), to)).collect();
        writeln!(out, "  {}. {} {}  {}", n + 1, s.action, s.target, how.join(", "))?;
        let back = match s.rollback {
            Rollback::Restore => "is put back when it fails",
            Rollback::Nothing => "nothing to put back",
            Rollback::Impossible => "CANNOT be taken back",
        };
        let canary = s
            .canary
            .as_ref()
            .map(|c| format!("; first {:.0} % for {} s", c.share * 100.0, c.watch_secs))
            .unwrap_or_default();
        writeln!(out, "       {} risk, {}; {back}{canary}", s.risk, s.estimated_impact)?;
    }
    let v = &p.verification;
    let way = match v.compare {
        Compare::Below => "at or below",
        Compare::Above => "at or above",
    };
    writeln!(
        out,
        "  it has worked when {} of {} is {way} {}, {} readings in a row within {} s",
        v.kpi.signal, v.kpi.entity, v.threshold, v.readings, v.deadline_secs
    )?;
    if let Some(w) = &p.prediction {
        let after = w.recovery_secs.map(|s| format!(" after about {s:.0} s")).unwrap_or_default();
        writeln!(
            out,
            "  tried on a copy: back in {:.0} % of the trials{after}; {:.4} with it, {:.4} without ({})",
            w.success_probability * 100.0,
            w.kpi_with,
            w.kpi_without,
            w.basis
        )?;
        for harm in &w.harms {
            writeln!(out, "       may harm: {harm}")?;
        }
    }
    if !p.escalation_path.is_empty() {
        writeln!(out, "  escalates to {}", p.escalation_path.join(", then "))?;
    }
    for finding in more["plan_findings"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        writeln!(out, "  WRONG: {finding}")?;
    }
    if let Some(v) = &i.verdict {
        let dry = if v.dry_run { " (dry-run: nothing is changed)" } else { "" };
        writeln!(out, "\nVerdict: {}{dry}", v.decision)?;
        for r in &v.reasons {
            writeln!(out, "  {:<8} {:<20} {}", r.decision, r.rule, r.why)?;
        }
    }
    Ok(())
}

fn change(name: &str, was: Option<&Value>, to: &Value) -> String {
    let plain = |v: &Value| v.as_str().map_or_else(|| v.to_string(), str::to_owned);
    match was.filter(|was| *was != to) {
        Some(was) => format!("{name} {} -> {}", plain(was), plain(to)),
        None => format!("{name} {}", plain(to)),
    }
}

fn actions_into(out: &mut String, i: &Incident, more: &Value) -> std::fmt::Result {
    if i.actions_total > 0 {
        writeln!(out, "\nDone ({})", i.actions_total)?;
    }
    for a in &i.actions {
        let outcome = a.outcome.map_or("under way", |o| o.as_str());
        writeln!(
            out,
            "  {}  {:<8} {:<10} {} {}  {}",
            a.intended_at,
            a.action.operation,
            outcome,
            a.action.action,
            a.action.target.name(),
            a.detail
        )?;
    }
    let readings: Vec<KpiReading> = serde_json::from_value(more["readings"].clone()).unwrap_or_default();
    if !readings.is_empty() {
        writeln!(out, "\nReadings")?;
    }
    for r in &readings {
        writeln!(out, "  {}  {:<10.4} {}", r.at, r.value, if r.good { "good" } else { "not yet" })?;
    }
    if let Some(at) = i.verified_at {
        writeln!(out, "  verified {at}")?;
    }
    Ok(())
}
