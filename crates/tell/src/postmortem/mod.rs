//! The postmortem: Markdown and its facts, from the journal of one incident and nothing else but who answers for what.
//!
//! Every sentence ends with the rows that it rests on, `[#12]` being row 12 of the tenant's journal; what no row says
//! is not said. The same rows give the same bytes, so that the hash in the journal (`postmortem_written`) can be
//! checked at any time. It is blameless: people are named for what they decided, never for what they caused.

#[cfg(test)]
pub(crate) mod fixtures;
mod follow_up;
mod pen;
mod story;
#[cfg(test)]
mod tests;
mod write;

use crate::notifier::Wants;
use nightshift_model::{
    Decision, EntityId, FaultClass, Incident, IncidentId, IncidentStatus, JournalEvent, PlanHash, Severity, Timestamp,
};
use nightshift_store::{Document, Store, StoreError};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use story::Story;

/// Who answers for an entity, as topology has it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Responsible {
    /// Team.
    pub owner: String,
    /// Whom to wake.
    pub on_call: String,
}

/// Who answers for what: those of the incident's entities that topology knows.
pub type People = BTreeMap<EntityId, Responsible>;

/// How it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ending {
    /// A plan was carried out and its KPI came back.
    Fixed,
    /// Nothing was executed and it recovered.
    HealedByItself,
    /// Something was executed, the KPI did not confirm it, and it recovered later.
    RecoveredLater,
    /// A person said that it is over.
    ByHand,
    /// A person has to act; it is not over.
    Escalated,
    /// A person said that nothing was wrong.
    FalseAlarm,
    /// It goes on.
    Open,
}

/// What says that the cause is the cause.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ConfirmedBy {
    /// Its fix brought the KPI back.
    Verification,
    /// Somebody who knows.
    Person,
    /// Nothing: it is the likeliest.
    Nobody,
}

/// The cause as far as it is known.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CauseFact {
    /// Where.
    pub entity: EntityId,
    /// What.
    pub fault: FaultClass,
    /// 0..=1 in the newest ranking; `None` when a person named a cause that was not in it.
    pub confidence: Option<f64>,
    /// What says so.
    pub confirmed_by: ConfirmedBy,
    /// Ids of the evidence, in the order of the ranking.
    pub evidence: Vec<String>,
}

/// A plan and what became of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PlanFact {
    /// Its hash.
    pub plan: PlanHash,
    /// Its playbook.
    pub playbook: String,
    /// What the guard said; `None` when it never spoke.
    pub decision: Option<Decision>,
    /// Who agreed, when somebody was asked.
    pub approved_by: Option<String>,
    /// Who refused; empty when nobody answered in time.
    pub rejected_by: Option<String>,
    /// Whether anything of it was carried out.
    pub executed: bool,
    /// Whether its KPI came back.
    pub verified: bool,
    /// Whether any of it was taken back.
    pub undone: bool,
}

/// Something to be done so that it does not happen again, or hurts less.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ActionItem {
    /// What, one line.
    pub title: String,
    /// Team or person; `unowned` when nobody is known to answer for it.
    pub owner: String,
    /// Until when: a date, UTC.
    pub due: String,
    /// Why, one line.
    pub why: String,
    /// Rows of the journal that say so.
    pub rows: Vec<u64>,
}

/// The postmortem for programs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Facts {
    /// Incident.
    pub incident: IncidentId,
    /// `INC-0001`.
    pub incident_short: String,
    /// Tenant.
    pub tenant: String,
    /// One line.
    pub title: String,
    /// How bad.
    pub severity: Severity,
    /// Where it stands.
    pub status: IncidentStatus,
    /// How it ended.
    pub ending: Ending,
    /// When it began.
    pub onset: Timestamp,
    /// When it was noticed.
    pub detected_at: Timestamp,
    /// When it was over; `None` while it is not.
    pub resolved_at: Option<Timestamp>,
    /// From its onset to its end, or to the newest row.
    pub duration_secs: f64,
    /// From its onset to being noticed.
    pub detection_latency_secs: f64,
    /// From being noticed to being over.
    pub mttr_secs: Option<f64>,
    /// Why.
    pub cause: Option<CauseFact>,
    /// Entities that showed symptoms.
    pub affected: Vec<EntityId>,
    /// Entities that depend on them.
    pub at_risk: Vec<EntityId>,
    /// What it meant for users, when it is known.
    pub user_impact: Option<String>,
    /// What was said of error budgets, one line each.
    pub error_budget: Vec<String>,
    /// In order.
    pub plans: Vec<PlanFact>,
    /// What is to be done.
    pub action_items: Vec<ActionItem>,
    /// Row with which it begins.
    pub first_seq: u64,
    /// Newest row that it tells of.
    pub through_seq: u64,
}

/// A postmortem.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Postmortem {
    /// For people.
    pub markdown: String,
    /// The same for programs.
    pub facts: Facts,
}

/// Key of the one document in an incident's collection.
const KEY: &str = "postmortem";

impl Postmortem {
    /// SHA-256 of the Markdown, hexadecimal: what the journal keeps.
    pub fn sha256(&self) -> String {
        Sha256::digest(self.markdown.as_bytes()).iter().map(|b| format!("{b:02x}")).collect()
    }

    /// As a document of the store, to be committed together with its `postmortem_written` row. Each incident has a
    /// collection of its own, as the store reads whole collections.
    pub fn to_document(&self) -> Document {
        let body = serde_json::to_vec(self).expect("a postmortem has string keys and finite depth");
        Document { collection: collection(self.facts.incident), key: KEY.into(), body: Some(body) }
    }
}

fn collection(incident: IncidentId) -> String {
    format!("postmortem.{incident}")
}

/// The postmortem of an incident as it was stored; `None` when there is none, or it is not readable.
///
/// # Errors
/// When the store fails.
pub async fn stored_postmortem(
    store: &dyn Store,
    tenant: &str,
    incident: IncidentId,
) -> Result<Option<Postmortem>, StoreError> {
    let documents = store.documents(tenant, &collection(incident)).await?;
    let body = documents.into_iter().find(|d| d.key == KEY).and_then(|d| d.body);
    Ok(body.and_then(|b| serde_json::from_slice(&b).ok()))
}

/// Writes the postmortem of the incident that these rows of the journal are of. Rows of other incidents and earlier
/// postmortems are passed over, so that writing it again gives the same. `None`: there is nothing to write (no
/// opening among the rows, a test injection, or joined into an elder incident, which tells it all).
pub fn postmortem(rows: &[JournalEvent], incident: &Incident, people: &People) -> Option<Postmortem> {
    if incident.synthetic || incident.merged_into.is_some() {
        return None;
    }
    let story = Story::of(rows, incident.id)?;
    let action_items = follow_up::action_items(&story, people);
    let facts = story.facts(action_items);
    let markdown = write::markdown(&story, &facts);
    Some(Postmortem { markdown, facts })
}

/// The letters that a notifier wants when only the end of an incident matters to it.
impl Wants {
    /// Postmortems of every severity and nothing else.
    pub fn postmortems() -> Self {
        Self { severity_min: Severity::Low, letters: vec![crate::LetterKind::Postmortem] }
    }
}
