//! The letters of an incident: what people are told, and when. Pure: a row of the journal and the incident it belongs
//! to give a letter or none.
//!
//! | letter | written at | once per |
//! | --- | --- | --- |
//! | alert | the incident is opened, its severity is assessed, or it comes back | opening |
//! | cause | a ranking whose first is not "unknown" | cause |
//! | plan | the guard has spoken, or a person is asked | plan and decision |
//! | resolved | it is over | resolution |
//! | postmortem | it was written | postmortem |
//! | escalated | a person must act | escalation |
//!
//! What "once per" means is [`Letter::topic`]: a letter with the same incident, kind and topic is the same letter.

use crate::text::{between, count, duration, listed, number, one_line, percent};
use nightshift_model::{
    ApprovalState, Decision, EntityId, EventKind, FaultClass, Incident, IncidentId, IncidentStatus, JournalEvent, Plan,
    PlanHash, Priority, Risk, Severity, Timestamp, Verdict,
};
use serde::{Deserialize, Serialize};

/// Version of the letters' JSON. Fields are added, never renamed.
pub const LETTER_VERSION: u32 = 1;

/// Which letter it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LetterKind {
    /// Something is wrong.
    Alert,
    /// This is why.
    Cause,
    /// This is going to be done about it, or is asked for.
    Plan,
    /// It is over.
    Resolved,
    /// What is to be learned from it.
    Postmortem,
    /// A person must act.
    Escalated,
}

impl LetterKind {
    /// Every kind, in the order in which an incident sends them.
    pub const ALL: [Self; 6] =
        [Self::Alert, Self::Cause, Self::Plan, Self::Resolved, Self::Postmortem, Self::Escalated];

    /// Name as in JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Alert => "alert",
            Self::Cause => "cause",
            Self::Plan => "plan",
            Self::Resolved => "resolved",
            Self::Postmortem => "postmortem",
            Self::Escalated => "escalated",
        }
    }
}

impl std::fmt::Display for LetterKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}

/// What to type to answer a letter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// `approve`, `reject`, `show` …
    pub verb: String,
    /// The whole command, ready to be copied.
    pub command: String,
}

/// A step of a plan as a letter tells it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StepLine {
    /// What it does.
    pub action: String,
    /// To what, by id.
    pub target: EntityId,
    /// How, `replicas=6`.
    pub params: String,
    /// "pod restart, 30 s".
    pub impact: String,
    /// How much can go wrong.
    pub risk: Risk,
}

/// What a letter says, field by field.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Detail {
    /// Something is wrong.
    Alert {
        /// What is ill, by id.
        entity: EntityId,
        /// The symptom in words.
        symptom: String,
        /// When it began.
        onset: Timestamp,
        /// From the onset to being noticed.
        detection_latency_secs: f64,
        /// Entities that show symptoms.
        affected: Vec<EntityId>,
        /// Entities that depend on them.
        at_risk: Vec<EntityId>,
        /// What it means for users, when it is known.
        user_impact: Option<String>,
        /// It had been over before.
        reopened: bool,
        /// The earlier incident of the same cause.
        recurrence_of: Option<IncidentId>,
    },
    /// This is why.
    Cause {
        /// Where.
        entity: Option<EntityId>,
        /// What.
        fault: FaultClass,
        /// 0..=1.
        confidence: f64,
        /// Ids of the evidence.
        evidence: Vec<String>,
        /// What else was thought of: summary and confidence, likeliest first.
        others: Vec<(String, f64)>,
    },
    /// This is going to be done, or is asked for.
    Plan {
        /// Which plan.
        plan: PlanHash,
        /// Playbook.
        playbook: String,
        /// In order; empty when the plan was replaced before the letter was written.
        steps: Vec<StepLine>,
        /// The highest of its steps.
        risk: Option<Risk>,
        /// How soon.
        priority: Option<Priority>,
        /// Sum of the confidences of the causes that it heals.
        confidence: Option<f64>,
        /// Seconds until it should be over.
        estimated_resolution_secs: Option<u32>,
        /// What may be done.
        decision: Decision,
        /// Why, one line each.
        reasons: Vec<String>,
        /// Prepare and dry-run only.
        dry_run: bool,
        /// Whom to ask, first to last.
        escalation_path: Vec<String>,
        /// Somebody must answer until then; no answer is a rejection.
        answer_until: Option<Timestamp>,
    },
    /// It is over.
    Resolved {
        /// Who says so.
        by: String,
        /// Why.
        why: String,
        /// From being noticed to being over.
        mttr_secs: f64,
        /// Whether anything was executed.
        executed: bool,
    },
    /// What is to be learned.
    Postmortem {
        /// SHA-256 of its Markdown.
        sha256: String,
        /// Rows of the journal up to which it tells.
        through_seq: u64,
        /// Its text, when it could be read.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        markdown: Option<String>,
    },
    /// A person must act.
    Escalated {
        /// Why.
        why: String,
        /// Whom, first to last.
        to: Vec<String>,
        /// What was done or tried before, one line each.
        tried: Vec<String>,
    },
}

/// One letter, to everybody who wants it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Letter {
    /// [`LETTER_VERSION`].
    pub version: u32,
    /// Which of the letters.
    pub kind: LetterKind,
    /// Tells it from others of this incident and kind.
    pub topic: String,
    /// Tenant.
    pub tenant: String,
    /// Incident.
    pub incident: IncidentId,
    /// `INC-0001`.
    pub incident_short: String,
    /// Row of the journal that it is made from.
    pub seq: u64,
    /// When that happened.
    pub at: Timestamp,
    /// How bad.
    pub severity: Severity,
    /// Where the incident stood when the letter was written.
    pub status: IncidentStatus,
    /// One line.
    pub subject: String,
    /// A few more, may be empty.
    pub lines: Vec<String>,
    /// What to type, may be empty.
    pub answers: Vec<Answer>,
    /// The same, field by field.
    pub detail: Detail,
}

/// The command that approves a plan.
pub fn approve_command(incident: &str, plan: &PlanHash) -> String {
    format!("nightshift approve {incident} --plan {}", plan.short())
}

/// The command that rejects a plan.
pub fn reject_command(incident: &str, plan: &PlanHash) -> String {
    format!("nightshift reject {incident} --plan {}", plan.short())
}

/// The letter that this row gives rise to, if any. `incident` may be further on than the row: what is no longer true
/// (a question that was answered) is not told. Injected incidents give none: they page nobody.
pub fn letters(row: &JournalEvent, incident: &Incident) -> Option<Letter> {
    if incident.synthetic || row.incident != incident.id || row.event.is_tenant_wide() {
        return None;
    }
    let severity = incident.severity;
    let part = match &row.event {
        EventKind::Opened { anomaly, .. } => alert(incident, severity.max(anomaly.severity), String::new(), false),
        // Not every receiver wants every severity: one that was not told at the opening is told when it got worse.
        EventKind::Assessed { severity, .. } => alert(incident, *severity, last_reopening(incident, row.at), false),
        EventKind::Reopened { .. } => alert(incident, severity, row.at.0.to_string(), true),
        EventKind::CausesRanked { hypotheses, .. } => cause(incident, hypotheses)?,
        EventKind::Judged { verdict } => judged(incident, verdict)?,
        EventKind::ApprovalRequested { plan, expires_at, why } => asked(incident, plan, *expires_at, why)?,
        EventKind::Resolved { why } => resolved(incident, row, why),
        EventKind::PostmortemWritten { sha256, through_seq } => postmortem(incident, sha256, *through_seq),
        EventKind::Escalated { why, to } => escalated(incident, row.seq, why, to),
        _ => return None,
    };
    Some(Letter {
        version: LETTER_VERSION,
        kind: part.kind,
        topic: part.topic,
        tenant: row.tenant.clone(),
        incident: incident.id,
        incident_short: incident.short_id(),
        seq: row.seq,
        at: row.at,
        severity: part.severity.unwrap_or(severity),
        status: incident.status,
        subject: part.subject,
        lines: part.lines,
        answers: part.answers,
        detail: part.detail,
    })
}

struct Part {
    kind: LetterKind,
    topic: String,
    severity: Option<Severity>,
    subject: String,
    lines: Vec<String>,
    answers: Vec<Answer>,
    detail: Detail,
}

fn answer(verb: &str, command: String) -> Answer {
    Answer { verb: verb.into(), command }
}

fn show(incident: &Incident) -> Answer {
    answer("show", format!("nightshift show {}", incident.short_id()))
}

/// When it last came back at or before `at`, as the topic of alerts; empty when it never did.
fn last_reopening(incident: &Incident, at: Timestamp) -> String {
    let mut times = incident.timeline.iter().rev().filter(|t| t.action == "reopened" && t.at <= at);
    times.next().map_or_else(String::new, |t| t.at.0.to_string())
}

fn names(ids: &[EntityId]) -> Vec<String> {
    ids.iter().map(EntityId::name).collect()
}

fn alert(incident: &Incident, severity: Severity, topic: String, reopened: bool) -> Part {
    let first = incident.anomalies.first();
    let entity = first.map_or_else(|| EntityId::new("", "other", "", "unknown"), |a| a.entity.id.clone());
    let symptom = first.map_or_else(String::new, |a| one_line(&a.description));
    let latency = incident.detection_latency().as_secs_f64();
    let blast = &incident.blast_radius;
    let mut lines = vec![format!("{}: {symptom}, noticed {} after it began", entity.name(), duration(latency))];
    if blast.affected.len() > 1 {
        lines.push(format!("affected: {}", listed(&names(&blast.affected), 5)));
    }
    if !blast.at_risk.is_empty() {
        lines.push(format!("at risk: {}", listed(&names(&blast.at_risk), 5)));
    }
    if let Some(impact) = &blast.estimated_user_impact {
        lines.push(format!("users: {}", one_line(impact)));
    }
    let back = if reopened { "back again: " } else { "" };
    Part {
        kind: LetterKind::Alert,
        topic,
        severity: Some(severity),
        subject: format!("{back}{}", one_line(&incident.title)),
        lines,
        answers: vec![show(incident), answer("acknowledge", format!("nightshift ack {}", incident.short_id()))],
        detail: Detail::Alert {
            entity,
            symptom,
            onset: incident.onset,
            detection_latency_secs: latency,
            affected: blast.affected.clone(),
            at_risk: blast.at_risk.clone(),
            user_impact: blast.estimated_user_impact.clone(),
            reopened,
            recurrence_of: incident.recurrence_of,
        },
    }
}

fn cause(incident: &Incident, hypotheses: &[nightshift_model::Hypothesis]) -> Option<Part> {
    let top = hypotheses.first()?;
    let entity = top.entity.clone()?;
    let others: Vec<(String, f64)> =
        hypotheses.iter().skip(1).take(2).map(|h| (one_line(&h.summary), h.confidence)).collect();
    let mut lines = Vec::new();
    let mut reasons: Vec<_> = top.contributions.iter().filter(|c| c.factor != "prior" && c.log_odds > 0.0).collect();
    reasons.sort_by(|a, b| b.log_odds.total_cmp(&a.log_odds).then_with(|| a.factor.cmp(&b.factor)));
    lines.extend(reasons.iter().take(3).map(|c| format!("because {}", one_line(&c.why))));
    lines.extend(others.iter().map(|(text, share)| format!("or, {}: {text}", percent(*share))));
    Some(Part {
        kind: LetterKind::Cause,
        topic: format!("{entity} {}", top.fault),
        severity: None,
        subject: format!("{} — {} confidence", one_line(&top.summary), percent(top.confidence)),
        lines,
        answers: vec![show(incident)],
        detail: Detail::Cause {
            entity: Some(entity),
            fault: top.fault,
            confidence: top.confidence,
            evidence: top.evidence.iter().map(|e| e.id.clone()).collect(),
            others,
        },
    })
}

/// The newest plan of the incident, when it is this one: a plan that was replaced already helps nobody.
fn current<'a>(incident: &'a Incident, plan: &PlanHash) -> Option<&'a Plan> {
    incident.plan.as_ref().filter(|p| p.hash == *plan)
}

fn steps(plan: &Plan) -> Vec<StepLine> {
    let of = |s: &nightshift_model::PlanStep| StepLine {
        action: s.action.to_string(),
        target: s.target.clone(),
        params: s.params.iter().map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>().join(" "),
        impact: s.estimated_impact.clone(),
        risk: s.risk,
    };
    plan.steps.iter().map(of).collect()
}

fn plan_lines(plan: &Plan) -> Vec<String> {
    let mut lines = Vec::new();
    for (i, step) in steps(plan).iter().enumerate() {
        let params = if step.params.is_empty() { String::new() } else { format!(" {}", one_line(&step.params)) };
        let impact = if step.impact.is_empty() { String::new() } else { format!(" ({})", one_line(&step.impact)) };
        lines.push(format!("{}. {} on {}{params}{impact}", i + 1, step.action, step.target.name()));
    }
    let check = &plan.verification;
    let way = if check.compare == nightshift_model::Compare::Below { "at most" } else { "at least" };
    lines.push(format!(
        "checked by: {} of {} {way} {}, {}, within {}",
        check.kpi.signal,
        check.kpi.entity.name(),
        number(check.threshold),
        count(u64::from(check.readings), "reading", "readings in a row"),
        duration(f64::from(check.deadline_secs)),
    ));
    if let Some(p) = &plan.prediction {
        let when = p.recovery_secs.map_or_else(String::new, |s| format!(" after {}", duration(s)));
        lines.push(format!("tried on a copy of the estate: {} to succeed{when}", percent(p.success_probability)));
    }
    lines
}

fn plan_subject(plan: &Plan) -> String {
    let n = count(plan.steps.len() as u64, "step", "steps");
    let time = duration(f64::from(plan.estimated_resolution_secs));
    format!("{}: {n}, {time}", one_line(&plan.title))
}

fn plan_detail(plan: &Plan, decision: Decision, reasons: Vec<String>, dry_run: bool) -> Detail {
    Detail::Plan {
        plan: plan.hash,
        playbook: plan.playbook.clone(),
        steps: steps(plan),
        risk: Some(plan.risk),
        priority: Some(plan.priority),
        confidence: Some(plan.confidence),
        estimated_resolution_secs: Some(plan.estimated_resolution_secs),
        decision,
        reasons,
        dry_run,
        escalation_path: plan.escalation_path.clone(),
        answer_until: None,
    }
}

fn judged(incident: &Incident, verdict: &Verdict) -> Option<Part> {
    let plan = current(incident, &verdict.plan)?;
    let reasons: Vec<String> = verdict.decisive().map(|r| one_line(&r.why)).collect();
    let what = match verdict.decision {
        // The question itself follows, with the time until which it stands.
        Decision::Ask => return None,
        Decision::Execute if verdict.dry_run => "dry-run only",
        Decision::Execute => "runs by itself",
        Decision::Monitor => "waits",
        Decision::Deny => "must not run",
    };
    let mut lines = plan_lines(plan);
    if verdict.decision != Decision::Execute {
        // When it may run every rule allows it; that is no news.
        lines.extend(reasons.iter().map(|r| format!("{}: {r}", verdict.decision)));
    }
    Some(Part {
        kind: LetterKind::Plan,
        topic: format!("{} {}", verdict.plan, verdict.decision),
        severity: None,
        subject: format!("{what}: {}", plan_subject(plan)),
        lines,
        answers: vec![show(incident)],
        detail: plan_detail(plan, verdict.decision, reasons, verdict.dry_run),
    })
}

fn asked(incident: &Incident, hash: &PlanHash, expires_at: Timestamp, why: &str) -> Option<Part> {
    let plan = current(incident, hash)?;
    // Answered in the meantime: nobody is asked any more, and the journal says how it ended.
    if !matches!(&incident.approval, Some(ApprovalState::Asked { plan, .. }) if plan == hash) {
        return None;
    }
    let short = incident.short_id();
    let mut lines = vec![format!("Risk: {} | Confidence: {}", plan.risk, percent(plan.confidence))];
    lines.extend(plan_lines(plan));
    lines.push(format!("asked: {}", one_line(why)));
    lines.push(format!("no answer until {expires_at} is a rejection"));
    let mut detail = plan_detail(plan, Decision::Ask, vec![one_line(why)], false);
    if let Detail::Plan { answer_until, .. } = &mut detail {
        *answer_until = Some(expires_at);
    }
    Some(Part {
        kind: LetterKind::Plan,
        topic: format!("{hash} ask"),
        severity: None,
        subject: format!("approval asked: {}", plan_subject(plan)),
        lines,
        answers: vec![
            answer("approve", approve_command(&short, hash)),
            answer("reject", reject_command(&short, hash)),
            show(incident),
        ],
        detail,
    })
}

fn executed(incident: &Incident) -> bool {
    let done = |a: &nightshift_model::ActionState| {
        a.action.operation.changes() && a.outcome.is_some_and(nightshift_model::ActionOutcome::is_done)
    };
    incident.actions.iter().any(done)
}

fn resolved(incident: &Incident, row: &JournalEvent, why: &str) -> Part {
    let executed = executed(incident);
    let how = if executed { "after the fix" } else { "nothing was executed" };
    let mttr = row.at.since(incident.detected_at).as_secs_f64();
    Part {
        kind: LetterKind::Resolved,
        topic: row.at.0.to_string(),
        severity: None,
        subject: format!("resolved: {} — MTTR {}", one_line(&incident.title), duration(mttr)),
        lines: vec![
            format!("{} ({how})", one_line(why)),
            format!(
                "began {}, noticed after {}, over after {}",
                incident.onset,
                between(incident.onset, incident.detected_at),
                between(incident.onset, row.at)
            ),
        ],
        answers: vec![
            show(incident),
            answer("teach", format!("nightshift feedback {} --false-positive", incident.short_id())),
        ],
        detail: Detail::Resolved { by: row.actor.clone(), why: why.into(), mttr_secs: mttr, executed },
    }
}

fn postmortem(incident: &Incident, sha256: &str, through_seq: u64) -> Part {
    Part {
        kind: LetterKind::Postmortem,
        topic: sha256.into(),
        severity: None,
        subject: format!("postmortem: {}", one_line(&incident.title)),
        lines: Vec::new(),
        answers: vec![answer("read", format!("nightshift postmortem {}", incident.short_id()))],
        detail: Detail::Postmortem { sha256: sha256.into(), through_seq, markdown: None },
    }
}

fn escalated(incident: &Incident, seq: u64, why: &str, to: &[String]) -> Part {
    let mut tried: Vec<String> = incident
        .actions
        .iter()
        .filter(|a| a.action.operation.changes())
        .map(|a| {
            let how = a.outcome.map_or("under way", nightshift_model::ActionOutcome::as_str);
            format!("{} {} on {}: {how}", a.action.operation, a.action.action, a.action.target.name())
        })
        .collect();
    // The newest say most; more than a few are not read at 3 a.m.
    tried.drain(..tried.len().saturating_sub(5));
    let whom = if to.is_empty() { "whoever is on call".to_owned() } else { to.join(", then ") };
    let mut lines = vec![format!("to {whom}: {}", one_line(why))];
    lines.extend(tried.iter().map(|t| format!("tried: {t}")));
    if let Some(top) = incident.top_cause().filter(|h| h.entity.is_some()) {
        lines.push(format!("likeliest cause: {} ({})", one_line(&top.summary), percent(top.confidence)));
    }
    let short = incident.short_id();
    Part {
        kind: LetterKind::Escalated,
        topic: seq.to_string(),
        severity: None,
        subject: format!("a person must act: {}", one_line(&incident.title)),
        lines,
        answers: vec![show(incident), answer("acknowledge", format!("nightshift ack {short}"))],
        detail: Detail::Escalated { why: why.into(), to: to.to_vec(), tried },
    }
}
