//! The journal of incidents: what is appended, the bytes that are hashed, and the fold into [`Incident`].
//!
//! The hashed form is a fixed-order binary one, stored exactly as hashed, so that a chain moves between databases
//! unchanged: version (1 byte), tenant, sequence number, incident id, time, actor, event (JSON), each text with its
//! length before it, integers big-endian.

use crate::incident::{ACTIONS_MAX, NODES_MAX};
use crate::incident::{MEMBERS_MAX, TIMELINE_MAX};
use crate::{
    Action, ActionOutcome, ActionState, Anomaly, ApprovalState, AutomationState, BlastRadius, Decision, Feedback,
    Hypothesis, Image, Incident, IncidentId, IncidentStatus, KpiReading, NodeTime, OccurrenceId, Phase, Plan, PlanHash,
    Severity, TimelineEntry, Timestamp, Verdict,
};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// A link of the chain.
pub type ChainHash = [u8; 32];

/// What the first event of a chain follows.
pub const CHAIN_START: ChainHash = [0; 32];

/// One thing that happened to an incident. Variants and fields are added, never renamed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum EventKind {
    /// It was opened by this symptom.
    Opened {
        /// Running number within the tenant.
        number: u64,
        /// One line for people.
        title: String,
        /// The symptom that opened it.
        anomaly: Box<Anomaly>,
        /// The earlier incident of the same cause.
        #[serde(default)]
        recurrence_of: Option<IncidentId>,
    },
    /// A symptom joined, or is told anew (worse, or over).
    AnomalyJoined {
        /// Its newest state.
        anomaly: Box<Anomaly>,
        /// Why it belongs here, one line.
        why: String,
    },
    /// A storm: so many further symptoms joined, too many to keep each.
    StormJoined {
        /// How many.
        count: u64,
        /// Of these, how many are still going on.
        open: u64,
        /// How many of those that were counted earlier have ended.
        #[serde(default)]
        closed: u64,
    },
    /// It moved on.
    StatusChanged {
        /// Where to.
        to: IncidentStatus,
        /// Why, one line.
        why: String,
    },
    /// Score, severity, title or blast radius were computed anew.
    Assessed {
        /// 0..=1.
        score: f64,
        /// From the score.
        severity: Severity,
        /// One line for people.
        title: String,
        /// Who and what is hit.
        blast_radius: BlastRadius,
    },
    /// Causes were ranked.
    CausesRanked {
        /// Grows with each ranking.
        revision: u32,
        /// Likeliest first.
        hypotheses: Vec<Hypothesis>,
    },
    /// Somebody looks at it.
    Acknowledged {
        /// What they said.
        #[serde(default)]
        note: String,
    },
    /// It is over.
    Resolved {
        /// Why, one line.
        why: String,
    },
    /// It came back within five minutes.
    Reopened {
        /// Why, one line.
        why: String,
    },
    /// It was joined into an elder one.
    MergedInto {
        /// The elder one.
        into: IncidentId,
        /// Why, one line.
        why: String,
    },
    /// The elder one took another in.
    Absorbed {
        /// The younger one.
        other: IncidentId,
        /// Symptoms that came with it.
        anomalies: Vec<Anomaly>,
    },
    /// A plan was made; it replaces the one before.
    PlanProposed {
        /// With every choice made.
        plan: Box<Plan>,
        /// What else was thought of, one line each, best first.
        #[serde(default)]
        alternatives: Vec<String>,
        /// What the checker found wrong, one line each; a plan with any may not run.
        #[serde(default)]
        findings: Vec<String>,
    },
    /// The guard spoke.
    Judged {
        /// With every rule that spoke.
        verdict: Box<Verdict>,
    },
    /// A person is asked.
    ApprovalRequested {
        /// About which plan.
        plan: PlanHash,
        /// No answer until then is a rejection.
        expires_at: Timestamp,
        /// Why, one line.
        why: String,
    },
    /// A person agreed: this plan, once.
    Approved {
        /// Which plan.
        plan: PlanHash,
        /// What they said.
        #[serde(default)]
        note: String,
    },
    /// A person refused, or nobody answered in time.
    Rejected {
        /// Which plan.
        plan: PlanHash,
        /// Why, one line.
        why: String,
        /// Nobody answered.
        #[serde(default)]
        timed_out: bool,
    },
    /// The question was taken back: its plan was replaced, or there is nothing left to do.
    ApprovalWithdrawn {
        /// Which plan.
        plan: PlanHash,
        /// Why, one line.
        #[serde(default)]
        why: String,
    },
    /// A person replaced the guard's decision.
    Overridden {
        /// Of which plan.
        plan: PlanHash,
        /// What is done instead.
        to: Decision,
        /// Why, one line.
        why: String,
        /// Rules that were overridden.
        #[serde(default)]
        rules: Vec<String>,
    },
    /// The machine keeps its hands off this incident.
    AutomationPaused {
        /// Why, one line.
        #[serde(default)]
        why: String,
    },
    /// The machine may act again.
    AutomationResumed {
        /// Why, one line.
        #[serde(default)]
        why: String,
    },
    /// A person does it by hand.
    TakenOver {
        /// What they said.
        #[serde(default)]
        note: String,
    },
    /// This is about to be done. Written before it is.
    ActionIntended {
        /// What.
        action: Box<Action>,
    },
    /// It was done, or was not.
    ActionEnded {
        /// Key of the action.
        key: String,
        /// How it ended.
        outcome: ActionOutcome,
        /// What the actuator said, one line.
        #[serde(default)]
        detail: String,
        /// The target afterwards, of what the step touches (of a prepare or dry-run: as it is).
        #[serde(default)]
        image: Image,
    },
    /// The KPI is as the plan promised.
    Verified {
        /// Which plan; `None` when the signal recovered without one.
        plan: Option<PlanHash>,
        /// The readings that say so.
        readings: Vec<KpiReading>,
        /// Whether anything was executed before.
        executed: bool,
    },
    /// The KPI did not come back in time.
    VerificationFailed {
        /// Which plan.
        plan: PlanHash,
        /// The newest readings.
        readings: Vec<KpiReading>,
        /// Why, one line.
        why: String,
    },
    /// A person must act.
    Escalated {
        /// Why, one line.
        why: String,
        /// Whom, first to last.
        #[serde(default)]
        to: Vec<String>,
    },
    /// A person taught something.
    FeedbackGiven {
        /// What.
        feedback: Feedback,
    },
    /// The postmortem was written.
    PostmortemWritten {
        /// SHA-256 of its Markdown, hexadecimal.
        sha256: String,
        /// Rows of this chain up to which it tells.
        through_seq: u64,
    },
    /// A node of the workflow is through.
    NodeDone {
        /// Its name: `root_cause`, `fix_planner`, `safety` …
        node: String,
        /// When it was entered.
        began_at: Timestamp,
        /// When it was left.
        ended_at: Timestamp,
        /// From 1.
        attempt: u32,
        /// What it decided, one line.
        #[serde(default)]
        note: String,
        /// What it saw, as far as no other row tells it: enough to run it again. Its shape is the workflow's.
        #[serde(default, skip_serializing_if = "serde_json::Value::is_null")]
        seen: serde_json::Value,
    },
    /// Other playbooks and policies are in use from here on. Of the tenant, not of an incident: [`TENANT_WIDE`].
    LibraryLoaded {
        /// Playbooks in use.
        playbooks: u64,
        /// Files of policies in use.
        policies: u64,
        /// SHA-256 over the names and texts of the user's own files, hex.
        digest: String,
    },
    /// All execution was stopped or allowed again. Of the tenant, not of an incident: [`TENANT_WIDE`].
    KillSwitched {
        /// On: nothing is carried out.
        on: bool,
        /// Why, one line.
        #[serde(default)]
        why: String,
    },
}

/// The incident of rows that are of the tenant as a whole. They are in the chain and belong to no incident.
pub const TENANT_WIDE: IncidentId = IncidentId(0);

impl EventKind {
    /// Whether it is of the tenant and not of an incident.
    pub const fn is_tenant_wide(&self) -> bool {
        matches!(self, Self::KillSwitched { .. } | Self::LibraryLoaded { .. })
    }

    /// The word in a timeline's `action`.
    pub const fn action(&self) -> &'static str {
        match self {
            Self::Opened { .. } => "created",
            Self::AnomalyJoined { .. } => "anomaly_joined",
            Self::StormJoined { .. } => "storm_joined",
            Self::StatusChanged { .. } => "status_changed",
            Self::Assessed { .. } => "assessed",
            Self::CausesRanked { .. } => "causes_ranked",
            Self::Acknowledged { .. } => "acknowledged",
            Self::Resolved { .. } => "resolved",
            Self::Reopened { .. } => "reopened",
            Self::MergedInto { .. } => "merged",
            Self::Absorbed { .. } => "absorbed",
            Self::PlanProposed { .. } => "plan_proposed",
            Self::Judged { .. } => "judged",
            Self::ApprovalRequested { .. } => "approval_requested",
            Self::Approved { .. } => "approved",
            Self::Rejected { .. } => "rejected",
            Self::ApprovalWithdrawn { .. } => "approval_withdrawn",
            Self::Overridden { .. } => "overridden",
            Self::AutomationPaused { .. } => "automation_paused",
            Self::AutomationResumed { .. } => "automation_resumed",
            Self::TakenOver { .. } => "taken_over",
            Self::ActionIntended { .. } => "action_intended",
            Self::ActionEnded { .. } => "action_ended",
            Self::Verified { .. } => "verified",
            Self::VerificationFailed { .. } => "verification_failed",
            Self::Escalated { .. } => "escalated",
            Self::FeedbackGiven { .. } => "feedback",
            Self::PostmortemWritten { .. } => "postmortem_written",
            Self::NodeDone { .. } => "node_done",
            Self::LibraryLoaded { .. } => "library_loaded",
            Self::KillSwitched { .. } => "kill_switched",
        }
    }

    /// One line for people, as in a timeline; may be empty.
    pub fn detail(&self) -> String {
        match self {
            Self::Opened { anomaly, .. } => anomaly.description.clone(),
            Self::AnomalyJoined { anomaly, why } => {
                let what = if anomaly.phase == Phase::Closed { "over: " } else { "" };
                format!("{what}{} ({why})", anomaly.description)
            }
            Self::StormJoined { count, .. } => format!("{count} further symptoms"),
            Self::StatusChanged { to, why } => format!("{to}: {why}"),
            Self::Assessed { severity, score, .. } => format!("{severity}, score {score:.2}"),
            Self::CausesRanked { revision, hypotheses } => match hypotheses.first() {
                Some(h) => format!("revision {revision}: {} ({:.0} %)", h.summary, h.confidence * 100.0),
                None => format!("revision {revision}: no cause found"),
            },
            Self::Acknowledged { note } => note.clone(),
            Self::Resolved { why } | Self::Reopened { why } => why.clone(),
            Self::MergedInto { into, why } => format!("into {into}: {why}"),
            Self::Absorbed { other, .. } => format!("took in {other}"),
            Self::PlanProposed { plan, findings, .. } => match findings.len() {
                0 => format!("{} (plan {}, {} risk)", plan.title, plan.hash.short(), plan.risk),
                n => format!("{} (plan {}): the checker found {n} faults", plan.title, plan.hash.short()),
            },
            Self::Judged { verdict } => verdict.summary(),
            Self::ApprovalRequested { plan, expires_at, why } => {
                format!("plan {} until {expires_at}: {why}", plan.short())
            }
            Self::Approved { plan, note } => with_note(format!("plan {}", plan.short()), note),
            Self::Rejected { plan, why, .. } | Self::ApprovalWithdrawn { plan, why } => {
                with_note(format!("plan {}", plan.short()), why)
            }
            Self::Overridden { plan, to, why, .. } => with_note(format!("plan {}: {to}", plan.short()), why),
            Self::AutomationPaused { why } | Self::AutomationResumed { why } => why.clone(),
            Self::TakenOver { note } => note.clone(),
            Self::ActionIntended { action } => {
                format!("{}: {} on {}", action.operation, action.action, action.target.name())
            }
            Self::ActionEnded { outcome, detail, .. } => with_note(outcome.to_string(), detail),
            Self::Verified { readings, executed, .. } => {
                let how = if *executed { "after the fix" } else { "recovered; nothing was executed" };
                format!("{} good readings, {how}", readings.len())
            }
            Self::VerificationFailed { why, .. } => why.clone(),
            Self::Escalated { why, to } if to.is_empty() => why.clone(),
            Self::Escalated { why, to } => format!("to {}: {why}", to.join(", then ")),
            Self::FeedbackGiven { feedback } => match feedback {
                Feedback::FalsePositive { note } => with_note("false positive".into(), note),
                Feedback::TrueCause { entity, fault, note } => {
                    with_note(format!("true cause: {} on {}", fault.title(), entity.name()), note)
                }
            },
            Self::PostmortemWritten { .. } => String::new(),
            Self::NodeDone { node, note, .. } => with_note(node.clone(), note),
            Self::LibraryLoaded { playbooks, policies, digest } => {
                format!("{playbooks} playbooks and {policies} files of policies are in use (own files {digest:.12})")
            }
            Self::KillSwitched { on, why } => with_note(if *on { "on" } else { "off" }.into(), why),
        }
    }
}

fn with_note(mut text: String, note: &str) -> String {
    if !note.is_empty() {
        text.push_str(": ");
        text.push_str(note);
    }
    text
}

/// An event before the store gives it its place in the chain.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JournalDraft {
    /// Which incident.
    pub incident: IncidentId,
    /// Event time.
    pub at: Timestamp,
    /// `system` or the name of a token.
    pub actor: String,
    /// What happened.
    pub event: EventKind,
}

/// An event in its place in its tenant's chain.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JournalEvent {
    /// Tenant: one chain each.
    pub tenant: String,
    /// From 1, without gaps.
    pub seq: u64,
    /// Which incident.
    pub incident: IncidentId,
    /// Event time.
    pub at: Timestamp,
    /// `system` or the name of a token.
    pub actor: String,
    /// What happened.
    pub event: EventKind,
}

/// Version of the hashed form.
const BODY_VERSION: u8 = 1;

impl JournalEvent {
    /// Puts a draft into its place.
    pub fn from_draft(tenant: &str, seq: u64, draft: JournalDraft) -> Self {
        Self {
            tenant: tenant.into(),
            seq,
            incident: draft.incident,
            at: draft.at,
            actor: draft.actor,
            event: draft.event,
        }
    }

    /// The bytes that are hashed and stored.
    pub fn to_body(&self) -> Vec<u8> {
        let json = serde_json::to_vec(&self.event).expect("an event has string keys and finite depth");
        let mut body = Vec::with_capacity(json.len() + self.tenant.len() + self.actor.len() + 64);
        body.push(BODY_VERSION);
        put(&mut body, self.tenant.as_bytes());
        body.extend_from_slice(&self.seq.to_be_bytes());
        body.extend_from_slice(&self.incident.to_bytes());
        body.extend_from_slice(&self.at.0.to_be_bytes());
        put(&mut body, self.actor.as_bytes());
        put(&mut body, &json);
        body
    }

    /// Reads what [`Self::to_body`] wrote.
    ///
    /// # Errors
    /// What is wrong with the bytes.
    pub fn from_body(body: &[u8]) -> Result<Self, String> {
        let mut rest = body;
        let version = take(&mut rest, 1)?[0];
        if version != BODY_VERSION {
            return Err(format!("journal body of version {version}, this program knows {BODY_VERSION}"));
        }
        let tenant = text(&mut rest)?;
        let seq = u64::from_be_bytes(array(take(&mut rest, 8)?));
        let incident = IncidentId(u128::from_be_bytes(array(take(&mut rest, 16)?)));
        let at = Timestamp(i64::from_be_bytes(array(take(&mut rest, 8)?)));
        let actor = text(&mut rest)?;
        let n = u32::from_be_bytes(array(take(&mut rest, 4)?)) as usize;
        let json = take(&mut rest, n)?;
        if !rest.is_empty() {
            return Err(format!("{} bytes after the end of a journal body", rest.len()));
        }
        let event = serde_json::from_slice(json).map_err(|e| format!("journal event is not readable: {e}"))?;
        Ok(Self { tenant, seq, incident, at, actor, event })
    }
}

/// The hash of a link: of the link before and this body.
pub fn chain_hash(previous: &ChainHash, body: &[u8]) -> ChainHash {
    let mut h = Sha256::new();
    h.update(previous);
    h.update(body);
    h.finalize().into()
}

fn put(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(&u32::try_from(bytes.len()).expect("an event is far below 4 GiB").to_be_bytes());
    out.extend_from_slice(bytes);
}

fn take<'a>(rest: &mut &'a [u8], n: usize) -> Result<&'a [u8], String> {
    let (head, tail) = rest.split_at_checked(n).ok_or("journal body ends early")?;
    *rest = tail;
    Ok(head)
}

fn array<const N: usize>(bytes: &[u8]) -> [u8; N] {
    bytes.try_into().expect("taken with this length")
}

fn text(rest: &mut &[u8]) -> Result<String, String> {
    let n = u32::from_be_bytes(array(take(rest, 4)?)) as usize;
    String::from_utf8(take(rest, n)?.to_vec()).map_err(|_| "journal body has text that is not UTF-8".into())
}

/// Folds one event into the incident it belongs to. `None` stands for "not there yet"; only `Opened` makes one.
/// Applying an event twice gives what applying it once gives, but for the timeline: callers apply each `seq` once.
pub fn apply(current: Option<Incident>, e: &JournalEvent) -> Option<Incident> {
    let mut inc = match (&e.event, current) {
        (EventKind::Opened { number, title, anomaly, recurrence_of }, None) => Incident {
            id: e.incident,
            number: *number,
            tenant: e.tenant.clone(),
            title: title.clone(),
            status: IncidentStatus::Detecting,
            severity: anomaly.severity,
            score: anomaly.score,
            onset: anomaly.onset,
            detected_at: anomaly.last_seen,
            updated_at: e.at,
            resolved_at: None,
            resolved_by: None,
            acknowledged_by: None,
            anomalies: Vec::new(),
            anomalies_total: 0,
            anomalies_open: 0,
            hypotheses: Vec::new(),
            rca_revision: 0,
            blast_radius: BlastRadius::default(),
            timeline: Vec::new(),
            merged_into: None,
            recurrence_of: *recurrence_of,
            synthetic: anomaly.synthetic(),
            plan: None,
            plans_total: 0,
            verdict: None,
            approval: None,
            actions: Vec::new(),
            actions_total: 0,
            automation: AutomationState::Active,
            taken_over_by: None,
            nodes: Vec::new(),
            verified_at: None,
            feedback: None,
            postmortem_at: None,
        },
        (_, Some(inc)) => inc,
        (_, None) => return None,
    };
    inc.updated_at = inc.updated_at.max(e.at);
    match &e.event {
        EventKind::Opened { anomaly, .. } | EventKind::AnomalyJoined { anomaly, .. } => join(&mut inc, anomaly),
        EventKind::Absorbed { anomalies, .. } => anomalies.iter().for_each(|a| join(&mut inc, a)),
        EventKind::StormJoined { count, open, closed } => {
            inc.anomalies_total += count;
            inc.anomalies_open = (inc.anomalies_open + open).saturating_sub(*closed);
        }
        EventKind::StatusChanged { to, .. } => inc.status = *to,
        EventKind::Assessed { score, severity, title, blast_radius } => {
            inc.score = *score;
            inc.severity = *severity;
            inc.title.clone_from(title);
            inc.blast_radius = blast_radius.clone();
        }
        EventKind::CausesRanked { revision, hypotheses } => {
            inc.rca_revision = *revision;
            inc.hypotheses.clone_from(hypotheses);
        }
        EventKind::Acknowledged { .. } => inc.acknowledged_by = Some(e.actor.clone()),
        EventKind::Resolved { .. } => {
            inc.status = IncidentStatus::Resolved;
            inc.resolved_at = Some(e.at);
            inc.resolved_by = Some(e.actor.clone());
        }
        EventKind::Reopened { .. } => {
            inc.status = IncidentStatus::Investigating;
            inc.resolved_at = None;
            inc.resolved_by = None;
        }
        EventKind::MergedInto { into, .. } => {
            inc.status = IncidentStatus::Merged;
            inc.merged_into = Some(*into);
        }
        EventKind::PlanProposed { plan, .. } => {
            inc.plan = Some((**plan).clone());
            inc.plans_total += 1;
            inc.verdict = None;
            inc.approval = None;
        }
        EventKind::Judged { verdict } => inc.verdict = Some((**verdict).clone()),
        EventKind::ApprovalRequested { plan, expires_at, .. } => {
            inc.approval = Some(ApprovalState::Asked { plan: *plan, expires_at: *expires_at });
        }
        EventKind::Approved { plan, .. } => {
            inc.approval = Some(ApprovalState::Approved { plan: *plan, by: e.actor.clone(), at: e.at });
        }
        EventKind::Rejected { plan, timed_out, .. } => {
            let by = (!timed_out).then(|| e.actor.clone());
            inc.approval = Some(ApprovalState::Rejected { plan: *plan, by, at: e.at });
        }
        EventKind::ApprovalWithdrawn { plan, .. } => {
            if matches!(&inc.approval, Some(ApprovalState::Asked { plan: asked, .. }) if asked == plan) {
                inc.approval = None;
            }
        }
        EventKind::Overridden { plan, to, .. } => {
            let (plan, by, at) = (*plan, e.actor.clone(), e.at);
            inc.approval = Some(match to {
                Decision::Execute => ApprovalState::Approved { plan, by, at },
                _ => ApprovalState::Rejected { plan, by: Some(by), at },
            });
        }
        EventKind::AutomationPaused { .. } => inc.automation = AutomationState::Paused,
        EventKind::AutomationResumed { .. } => {
            inc.automation = AutomationState::Active;
            inc.taken_over_by = None;
        }
        EventKind::TakenOver { .. } => {
            inc.automation = AutomationState::TakenOver;
            inc.taken_over_by = Some(e.actor.clone());
        }
        EventKind::ActionIntended { action } => intended(&mut inc, action, e.at),
        EventKind::ActionEnded { key, outcome, detail, image } => {
            let found = inc.actions.iter_mut().rev().find(|a| a.action.key == *key && a.outcome.is_none());
            if let Some(state) = found {
                state.outcome = Some(*outcome);
                state.detail.clone_from(detail);
                state.ended_at = Some(e.at);
                if state.action.before.is_empty() && state.action.operation == crate::Operation::Prepare {
                    state.action.before.clone_from(image);
                }
            }
        }
        EventKind::Verified { .. } => inc.verified_at = Some(e.at),
        EventKind::VerificationFailed { .. } => inc.verified_at = None,
        EventKind::Escalated { .. } => inc.status = IncidentStatus::Escalated,
        EventKind::FeedbackGiven { feedback } => inc.feedback = Some(feedback.clone()),
        EventKind::PostmortemWritten { .. } => inc.postmortem_at = Some(e.at),
        EventKind::NodeDone { node, began_at, ended_at, attempt, note, .. } => {
            if inc.nodes.len() < NODES_MAX {
                let (node, note) = (node.clone(), note.clone());
                inc.nodes.push(NodeTime { node, began_at: *began_at, ended_at: *ended_at, attempt: *attempt, note });
            }
            return Some(inc);
        }
        EventKind::KillSwitched { .. } | EventKind::LibraryLoaded { .. } => {}
    }
    if inc.timeline.len() < TIMELINE_MAX {
        inc.timeline.push(TimelineEntry {
            at: e.at,
            action: e.event.action().into(),
            actor: e.actor.clone(),
            detail: e.event.detail(),
        });
    }
    Some(inc)
}

fn intended(inc: &mut Incident, action: &Action, at: Timestamp) {
    inc.actions_total += 1;
    if inc.actions.len() < ACTIONS_MAX {
        let (outcome, detail, ended_at) = (None, String::new(), None);
        inc.actions.push(ActionState { action: action.clone(), intended_at: at, outcome, detail, ended_at });
    }
}

fn join(inc: &mut Incident, a: &Anomaly) {
    // What is only fit for the log may join as evidence; when it began says nothing about when the trouble did.
    if a.severity > Severity::Low {
        inc.onset = inc.onset.min(a.onset);
    }
    let open = |p: Phase| p != Phase::Closed;
    if let Some(known) = inc.anomalies.iter_mut().find(|k| k.id == a.id) {
        match (open(known.phase), open(a.phase)) {
            (true, false) => inc.anomalies_open = inc.anomalies_open.saturating_sub(1),
            (false, true) => inc.anomalies_open += 1,
            _ => {}
        }
        *known = a.clone();
        return;
    }
    inc.anomalies_total += 1;
    inc.anomalies_open += u64::from(open(a.phase));
    if inc.anomalies.len() < MEMBERS_MAX {
        inc.anomalies.push(a.clone());
    }
}

/// Ids of the symptoms of an incident that are still going on.
pub fn open_anomalies(inc: &Incident) -> impl Iterator<Item = OccurrenceId> {
    inc.anomalies.iter().filter(|a| a.phase != Phase::Closed).map(|a| a.id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{AnomalyKind, Direction, EntityId, EntityMeta, Explanation, FaultClass};

    fn anomaly(id: u128, onset: i64, score: f64) -> Anomaly {
        Anomaly {
            id: OccurrenceId(id),
            fingerprint: id as u64,
            tenant: "default".into(),
            entity: EntityMeta::bare(EntityId::new("local", "host", "", "web1")),
            kind: AnomalyKind::Statistical,
            signal: "cpu".into(),
            labels: Default::default(),
            onset: Timestamp::from_secs(onset),
            last_seen: Timestamp::from_secs(onset + 1),
            phase: Phase::Open,
            score,
            severity: Severity::from_score(score),
            direction: Direction::Up,
            fault: FaultClass::CpuSaturation,
            description: "cpu".into(),
            explanation: Explanation::default(),
            source: "test".into(),
        }
    }

    fn event(seq: u64, event: EventKind) -> JournalEvent {
        let (tenant, actor) = ("default".into(), "system".into());
        JournalEvent { tenant, seq, incident: IncidentId(1), at: Timestamp::from_secs(200), actor, event }
    }

    fn opened(a: Anomaly) -> JournalEvent {
        event(1, EventKind::Opened { number: 1, title: "t".into(), anomaly: Box::new(a), recurrence_of: None })
    }

    fn joined(seq: u64, a: Anomaly) -> JournalEvent {
        event(seq, EventKind::AnomalyJoined { anomaly: Box::new(a), why: "same host".into() })
    }

    /// Seen on a real machine: the page cache moved 40 s before a CPU burn, and the burn was dated by it.
    #[test]
    fn weak_evidence_does_not_date_an_incident() {
        let inc = apply(None, &opened(anomaly(1, 100, 0.6)));
        let inc = apply(inc, &joined(2, anomaly(2, 60, 0.3)));
        assert_eq!(inc.as_ref().map(|i| i.onset), Some(Timestamp::from_secs(100)));
        let inc = apply(inc, &joined(3, anomaly(3, 90, 0.55)));
        assert_eq!(inc.map(|i| (i.onset, i.anomalies_open)), Some((Timestamp::from_secs(90), 3)));
    }

    #[test]
    fn bodies_round_trip_and_broken_ones_say_why() {
        let body = opened(anomaly(1, 100, 0.6)).to_body();
        assert_eq!(JournalEvent::from_body(&body), Ok(opened(anomaly(1, 100, 0.6))));
        for cut in 0..body.len() {
            assert!(JournalEvent::from_body(&body[..cut]).is_err(), "cut at {cut}");
        }
        let mut newer = body.clone();
        newer[0] = 9;
        assert!(JournalEvent::from_body(&newer).unwrap_err().contains("version 9"));
        let long = [body.as_slice(), b"x"].concat();
        assert!(JournalEvent::from_body(&long).unwrap_err().contains("after the end"));
    }

    #[test]
    fn only_an_opened_event_makes_an_incident() {
        assert_eq!(apply(None, &joined(1, anomaly(1, 1, 0.9))), None);
    }
}
