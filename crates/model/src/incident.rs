//! Incidents as people see them: the projection of a journal.

use crate::ids::short_incident;
use crate::{
    ActionState, Anomaly, EntityId, FaultClass, Feedback, IncidentId, OccurrenceId, Plan, PlanHash, Severity,
    Timestamp, Verdict,
};
use serde::{Deserialize, Serialize};

/// Where an incident stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IncidentStatus {
    /// Symptoms arrive; is it real?
    Detecting,
    /// What belongs together?
    Correlating,
    /// Causes are being ranked.
    Investigating,
    /// Causes are ranked.
    RcaComplete,
    /// A fix is under way.
    Remediating,
    /// Over.
    Resolved,
    /// Watched, nothing is done.
    Monitoring,
    /// A person must decide.
    AwaitingApproval,
    /// A person must act.
    Escalated,
    /// Joined into an elder one.
    Merged,
}

impl IncidentStatus {
    /// Every status.
    pub const ALL: [Self; 10] = [
        Self::Detecting,
        Self::Correlating,
        Self::Investigating,
        Self::RcaComplete,
        Self::Remediating,
        Self::Resolved,
        Self::Monitoring,
        Self::AwaitingApproval,
        Self::Escalated,
        Self::Merged,
    ];

    /// Name as in JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Detecting => "detecting",
            Self::Correlating => "correlating",
            Self::Investigating => "investigating",
            Self::RcaComplete => "rca_complete",
            Self::Remediating => "remediating",
            Self::Resolved => "resolved",
            Self::Monitoring => "monitoring",
            Self::AwaitingApproval => "awaiting_approval",
            Self::Escalated => "escalated",
            Self::Merged => "merged",
        }
    }

    /// Whether somebody still has to care.
    pub const fn is_open(self) -> bool {
        !matches!(self, Self::Resolved | Self::Merged)
    }
}

impl std::fmt::Display for IncidentStatus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}

impl std::str::FromStr for IncidentStatus {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|s| s.as_str() == text).ok_or_else(|| {
            let names = Self::ALL.map(Self::as_str).join(", ");
            format!("`{text}` is not a status; one of {names}")
        })
    }
}

/// A fact that points back at the telemetry it came from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Evidence {
    /// `anomaly:ID`, `change:ID`, `edge:FROM>TO` …
    pub id: String,
    /// What it says, one line.
    pub text: String,
    /// When it was true.
    pub at: Timestamp,
}

/// One summand of a hypothesis' score.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Contribution {
    /// `prior`, `onset_order`, `dependency`, `deployment`, `cascade`, `upstream`, `rule`, `log`, `likeness` …
    pub factor: String,
    /// Log-odds, natural logarithm; negative ones speak against.
    pub log_odds: f64,
    /// Why, one line.
    pub why: String,
    /// Ids of the evidence it rests on; only `prior` has none.
    #[serde(default)]
    pub evidence: Vec<String>,
}

/// One ranked root cause.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Hypothesis {
    /// Where the cause is; `None` for "unknown".
    pub entity: Option<EntityId>,
    /// What it is.
    pub fault: FaultClass,
    /// Share of belief, 0..=1; those of one ranking add up to 1 (within rounding).
    pub confidence: f64,
    /// Sum of the contributions, log-odds.
    pub score: f64,
    /// One line for people.
    pub summary: String,
    /// The summands.
    pub contributions: Vec<Contribution>,
    /// The facts that they cite.
    pub evidence: Vec<Evidence>,
    /// The signal that shows it best, empty when there is none.
    #[serde(default)]
    pub signal: String,
}

/// Who and what is hit.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct BlastRadius {
    /// Entities that show symptoms.
    pub affected: Vec<EntityId>,
    /// Entities that depend on them and show none yet.
    pub at_risk: Vec<EntityId>,
    /// From the topology's `business_impact`: "30 % of payments, about 12,000 USD a minute". `None`: not known.
    pub estimated_user_impact: Option<String>,
    /// Worst criticality among the affected: P0, P1 …; empty when not known.
    #[serde(default)]
    pub criticality: String,
}

/// One line of an incident's history.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TimelineEntry {
    /// When.
    pub at: Timestamp,
    /// `created`, `anomaly_joined`, `causes_ranked`, `acknowledged`, `resolved` …
    pub action: String,
    /// `system` or the name of a token.
    pub actor: String,
    /// One line for people.
    pub detail: String,
}

/// Who may act on an incident.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AutomationState {
    /// The machine may.
    #[default]
    Active,
    /// A person told the machine to wait.
    Paused,
    /// A person does it by hand.
    TakenOver,
}

/// How a question to people stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum ApprovalState {
    /// Somebody must answer.
    Asked {
        /// About which plan.
        plan: PlanHash,
        /// No answer until then is a rejection.
        expires_at: Timestamp,
    },
    /// This plan may run, once.
    Approved {
        /// Which plan.
        plan: PlanHash,
        /// Who agreed.
        by: String,
        /// When.
        at: Timestamp,
    },
    /// This plan must not run.
    Rejected {
        /// Which plan.
        plan: PlanHash,
        /// Who refused; `None`: nobody answered in time.
        by: Option<String>,
        /// When.
        at: Timestamp,
    },
}

/// How long a node of the workflow took.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeTime {
    /// Its name.
    pub node: String,
    /// When it was entered.
    pub began_at: Timestamp,
    /// When it was left.
    pub ended_at: Timestamp,
    /// From 1.
    pub attempt: u32,
    /// What it decided, one line.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub note: String,
}

/// How many actions an incident keeps; all of them are in the journal.
pub const ACTIONS_MAX: usize = 200;
/// How many nodes an incident keeps; all of them are in the journal.
pub const NODES_MAX: usize = 200;

/// How many of its anomalies an incident keeps whole; the rest are counted (a storm is bounded).
pub const MEMBERS_MAX: usize = 200;
/// How many lines a timeline keeps; later ones still are in the journal.
pub const TIMELINE_MAX: usize = 500;

/// An incident: the anomalies that share one cause and everything done about them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Incident {
    /// Never changes.
    pub id: IncidentId,
    /// Running number within the tenant, from 1.
    pub number: u64,
    /// Tenant.
    pub tenant: String,
    /// One line for people; may change.
    pub title: String,
    /// Where it stands.
    pub status: IncidentStatus,
    /// From the score.
    pub severity: Severity,
    /// 0..=1.
    pub score: f64,
    /// Event time of its first symptom that is more than a line in the log.
    pub onset: Timestamp,
    /// When it was noticed: event time of the sample that opened it.
    pub detected_at: Timestamp,
    /// Newest event.
    pub updated_at: Timestamp,
    /// When it was resolved.
    pub resolved_at: Option<Timestamp>,
    /// Who resolved it: `system` when all symptoms ended.
    #[serde(default)]
    pub resolved_by: Option<String>,
    /// Who looks at it.
    pub acknowledged_by: Option<String>,
    /// Its symptoms, by id, newest state of each; at most [`MEMBERS_MAX`].
    pub anomalies: Vec<Anomaly>,
    /// All its symptoms, those beyond [`MEMBERS_MAX`] too.
    pub anomalies_total: u64,
    /// Of these, how many are still going on.
    pub anomalies_open: u64,
    /// Ranked causes, likeliest first; empty until ranked.
    pub hypotheses: Vec<Hypothesis>,
    /// Grows with each ranking.
    pub rca_revision: u32,
    /// Who and what is hit.
    pub blast_radius: BlastRadius,
    /// What happened, oldest first; at most [`TIMELINE_MAX`].
    pub timeline: Vec<TimelineEntry>,
    /// The elder one that this was joined into.
    pub merged_into: Option<IncidentId>,
    /// The earlier incident of the same cause, resolved more than five minutes before.
    pub recurrence_of: Option<IncidentId>,
    /// Made by a test injection.
    pub synthetic: bool,
    /// The newest plan.
    #[serde(default)]
    pub plan: Option<Plan>,
    /// How many plans were made.
    #[serde(default)]
    pub plans_total: u64,
    /// What the guard said of the newest plan.
    #[serde(default)]
    pub verdict: Option<Verdict>,
    /// How the question about the newest plan stands.
    #[serde(default)]
    pub approval: Option<ApprovalState>,
    /// What was done or tried, oldest first; at most [`ACTIONS_MAX`].
    #[serde(default)]
    pub actions: Vec<ActionState>,
    /// All that was done or tried, beyond [`ACTIONS_MAX`] too.
    #[serde(default)]
    pub actions_total: u64,
    /// Who may act on it.
    #[serde(default)]
    pub automation: AutomationState,
    /// Who does it by hand.
    #[serde(default)]
    pub taken_over_by: Option<String>,
    /// How long each node of the workflow took; at most [`NODES_MAX`].
    #[serde(default)]
    pub nodes: Vec<NodeTime>,
    /// When the KPI was found as the plan promised.
    #[serde(default)]
    pub verified_at: Option<Timestamp>,
    /// What people said of it afterwards.
    #[serde(default)]
    pub feedback: Option<Feedback>,
    /// When the postmortem was written.
    #[serde(default)]
    pub postmortem_at: Option<Timestamp>,
}

impl Incident {
    /// Time from its onset to being noticed, event time.
    pub fn detection_latency(&self) -> std::time::Duration {
        self.detected_at.since(self.onset)
    }

    /// `INC-0001`.
    pub fn short_id(&self) -> String {
        short_incident(self.number)
    }

    /// Its likeliest cause.
    pub fn top_cause(&self) -> Option<&Hypothesis> {
        self.hypotheses.first()
    }

    /// The anomaly with this id, if it is kept.
    pub fn anomaly(&self, id: OccurrenceId) -> Option<&Anomaly> {
        self.anomalies.iter().find(|a| a.id == id)
    }
}
