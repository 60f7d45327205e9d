//! What an incident taught: one row per incident, kept as a document of the store.

use nightshift_model::journal::apply;
use nightshift_model::{
    EntityId, EventKind, FaultClass, Feedback, Hypothesis, Incident, IncidentStatus, JournalEvent, Operation, Plan,
    PlanHash, SignalFamily, Timestamp,
};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// Collection of the store that holds outcomes, one document each by [`Outcome::incident`].
pub const OUTCOMES: &str = "knowledge.outcome";

/// Entities whose symptoms an outcome keeps at most: enough to know a storm by.
const SYMPTOM_ENTITIES_MAX: usize = 50;
/// Playbooks that an outcome keeps at most.
const PLAYBOOKS_MAX: usize = 20;

/// A place and a fault.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Cause {
    /// Where.
    pub entity: EntityId,
    /// What.
    pub fault: FaultClass,
}

/// What says that the cause is the cause.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Confirmed {
    /// Nothing does: it teaches nothing about causes.
    No,
    /// A team's document about an incident of the past.
    Document,
    /// Its fix brought the KPI back.
    Verification,
    /// Somebody who knows.
    Person,
}

/// A playbook that was carried out, and whether it helped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tried {
    /// Name of the playbook.
    pub playbook: String,
    /// Fault class that it was meant to heal.
    pub fault: FaultClass,
    /// Whether its KPI came back.
    pub helped: bool,
}

/// What an incident taught.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// Id of the incident, 32 hexadecimal digits; of a document its own id.
    pub incident: String,
    /// `INC-0001`; of a document its own id.
    pub short: String,
    /// One line.
    pub title: String,
    /// Why it happened, as far as it is confirmed.
    pub cause: Option<Cause>,
    /// What says so.
    pub confirmed: Confirmed,
    /// What the machine had put first, when it was wrong: `cause` differs, or nothing was wrong at all.
    pub wrongly: Option<Cause>,
    /// Somebody said that nothing was wrong.
    pub false_positive: bool,
    /// Playbooks that were carried out.
    pub tried: Vec<Tried>,
    /// Which families of signals each entity showed.
    pub symptoms: BTreeMap<EntityId, BTreeSet<SignalFamily>>,
    /// When it began.
    pub onset: Timestamp,
    /// When it was over, or when the person spoke: what age is counted from.
    pub at: Timestamp,
    /// Seconds from being noticed to being over.
    pub mttr_secs: Option<f64>,
}

impl Outcome {
    /// Its bytes in the store.
    pub fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("an outcome has string keys and finite depth")
    }

    /// From its bytes in the store; `None` when they are not readable.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        serde_json::from_slice(bytes).ok()
    }
}

/// Which families of signals each entity of an incident showed.
pub fn symptoms_of(incident: &Incident) -> BTreeMap<EntityId, BTreeSet<SignalFamily>> {
    let mut out: BTreeMap<EntityId, BTreeSet<SignalFamily>> = BTreeMap::new();
    for a in &incident.anomalies {
        let label = |name: &str| a.labels.get(name).map(String::as_str);
        let Some(reading) = nightshift_model::families::reading(&a.signal, label) else { continue };
        if out.len() < SYMPTOM_ENTITIES_MAX || out.contains_key(&a.entity.id) {
            out.entry(a.entity.id.clone()).or_default().insert(reading.family);
        }
    }
    out
}

fn cause_of(h: &Hypothesis) -> Option<Cause> {
    Some(Cause { entity: h.entity.clone()?, fault: h.fault })
}

/// A plan and what became of it.
struct PlanTry<'a> {
    plan: &'a Plan,
    /// Something of it was carried out.
    executed: bool,
    /// Its KPI came back.
    worked: bool,
    /// Its KPI did not come back.
    failed: bool,
}

/// Every plan of the incident, in order.
fn tries<'a>(rows: &[&'a JournalEvent]) -> Vec<PlanTry<'a>> {
    let mut list: Vec<PlanTry<'a>> = Vec::new();
    let mut keys: BTreeMap<&str, PlanHash> = BTreeMap::new();
    for row in rows {
        let at = |hash: &PlanHash| list.iter().rposition(|p| p.plan.hash == *hash);
        match &row.event {
            EventKind::PlanProposed { plan, .. } => {
                list.push(PlanTry { plan, executed: false, worked: false, failed: false });
            }
            EventKind::ActionIntended { action }
                if matches!(action.operation, Operation::Apply | Operation::Canary) =>
            {
                keys.insert(&action.key, action.plan);
            }
            // A step that the world did not take says nothing of the playbook's worth.
            EventKind::ActionEnded { key, outcome, .. } if outcome.is_done() => {
                if let Some(i) = keys.get(key.as_str()).and_then(at) {
                    list[i].executed = true;
                }
            }
            EventKind::Verified { plan: Some(hash), executed: true, .. } => {
                if let Some(i) = at(hash) {
                    list[i].worked = true;
                }
            }
            EventKind::VerificationFailed { plan, .. } => {
                if let Some(i) = at(plan) {
                    list[i].failed = true;
                }
            }
            _ => {}
        }
    }
    list
}

/// What an incident teaches, from its rows of the journal. To be asked when it is resolved or escalated, and again
/// after each feedback: the newest answer replaces the earlier one. `None`: nothing (a test injection, an incident
/// that was joined into another, or rows without its opening).
pub fn learn(incident: &Incident, rows: &[JournalEvent]) -> Option<Outcome> {
    if incident.synthetic || incident.merged_into.is_some() {
        return None;
    }
    let mut rows: Vec<&JournalEvent> = rows.iter().filter(|r| r.incident == incident.id).collect();
    rows.sort_by_key(|r| r.seq);
    rows.dedup_by_key(|r| r.seq);
    let now = rows.iter().fold(None, |inc, row| apply(inc, row))?;

    let plans = tries(&rows);
    let ranked = rows.iter().rev().find_map(|r| match &r.event {
        EventKind::CausesRanked { hypotheses, .. } => Some(hypotheses.as_slice()),
        _ => None,
    });
    let machine = ranked.and_then(|list| list.first()).and_then(cause_of);
    // Of the causes that a verified plan heals, the likeliest.
    let verified = plans.iter().rev().find(|p| p.executed && p.worked).map(|p| p.plan).and_then(|plan| {
        let healed =
            |h: &&Hypothesis| plan.covers.iter().any(|c| Some(&c.entity) == h.entity.as_ref() && c.fault == h.fault);
        ranked.and_then(|list| list.iter().find(healed)).and_then(cause_of)
    });
    let feedback = rows.iter().rev().find_map(|r| match &r.event {
        EventKind::FeedbackGiven { feedback } => Some((r.at, feedback)),
        _ => None,
    });
    let (cause, confirmed, wrongly, false_positive) = match feedback {
        Some((_, Feedback::FalsePositive { .. })) => (None, Confirmed::Person, machine, true),
        Some((_, Feedback::TrueCause { entity, fault, .. })) => {
            let truth = Cause { entity: entity.clone(), fault: *fault };
            let wrongly = machine.filter(|m| *m != truth);
            (Some(truth), Confirmed::Person, wrongly, false)
        }
        None => match verified {
            Some(cause) => {
                let wrongly = machine.filter(|m| *m != cause);
                (Some(cause), Confirmed::Verification, wrongly, false)
            }
            None => (None, Confirmed::No, None, false),
        },
    };
    let mut tried = Vec::new();
    for PlanTry { plan, executed, worked, failed } in &plans {
        if !executed || worked == failed {
            // Not carried out, or interrupted before anything could be said of it.
            continue;
        }
        // It heals several causes: what it was carried out for is the confirmed one, else the likeliest.
        let meant = cause.as_ref().map(|c| c.fault).filter(|f| plan.covers.iter().any(|c| c.fault == *f));
        let Some(fault) = meant.or_else(|| plan.covers.first().map(|c| c.fault)) else { continue };
        if tried.len() < PLAYBOOKS_MAX {
            tried.push(Tried { playbook: plan.playbook.clone(), fault, helped: *worked });
        }
    }
    let ended = now.resolved_at.filter(|_| now.status == IncidentStatus::Resolved);
    Some(Outcome {
        incident: now.id.to_string(),
        short: now.short_id(),
        title: now.title.clone(),
        cause,
        confirmed,
        wrongly,
        false_positive,
        tried,
        symptoms: symptoms_of(&now),
        onset: now.onset,
        at: ended.unwrap_or(now.updated_at),
        mttr_secs: ended.map(|at| at.since(now.detected_at).as_secs_f64()),
    })
}
