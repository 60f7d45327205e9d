//! What people do with incidents. Every one of these needs a token with the role, and is journalled by name.

use crate::{Decision, EntityId, FaultClass, IncidentId, PlanHash};
use serde::{Deserialize, Serialize};

/// What a person did to an incident.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PersonAction {
    /// Which incident.
    pub incident: IncidentId,
    /// Name of the token it was done with; becomes the journal's `actor`.
    pub actor: String,
    /// What was done.
    pub verb: PersonVerb,
}

/// The ways in which a person decides.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum PersonVerb {
    /// Somebody looks at it.
    Acknowledge {
        /// What they said, may be empty.
        note: String,
    },
    /// It is over, says a person. Symptoms that still go on do not bring it back; new ones do.
    Resolve {
        /// Why, may be empty.
        why: String,
    },
    /// The plan that was asked about may run, once.
    Approve {
        /// The plan that they saw; another one is refused.
        plan: PlanHash,
        /// What they said, may be empty.
        note: String,
    },
    /// The plan must not run.
    Reject {
        /// The plan that they saw.
        plan: PlanHash,
        /// Why, may be empty.
        why: String,
    },
    /// The verdict is replaced; only reasons that say they may be overridden are.
    Override {
        /// The plan that they saw.
        plan: PlanHash,
        /// What shall be done instead: `execute` or `deny`.
        to: Decision,
        /// Why; must not be empty.
        why: String,
    },
    /// Nothing is done to this incident by the machine until resumed.
    Pause {
        /// Why, may be empty.
        why: String,
    },
    /// The machine may act again.
    Resume {
        /// Why, may be empty.
        why: String,
    },
    /// A person does it by hand from here on; the machine only watches.
    TakeOver {
        /// What they said, may be empty.
        note: String,
    },
    /// Teaches the next diagnosis.
    Feedback(Feedback),
}

impl PersonVerb {
    /// The word in a log, a role table or a timeline.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Acknowledge { .. } => "acknowledge",
            Self::Resolve { .. } => "resolve",
            Self::Approve { .. } => "approve",
            Self::Reject { .. } => "reject",
            Self::Override { .. } => "override",
            Self::Pause { .. } => "pause",
            Self::Resume { .. } => "resume",
            Self::TakeOver { .. } => "take_over",
            Self::Feedback(_) => "feedback",
        }
    }
}

/// What a person says of an incident afterwards.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "verdict", rename_all = "snake_case")]
pub enum Feedback {
    /// Nothing was wrong.
    FalsePositive {
        /// What they said, may be empty.
        #[serde(default)]
        note: String,
    },
    /// This was the cause.
    TrueCause {
        /// Where.
        entity: EntityId,
        /// What.
        fault: FaultClass,
        /// What they said, may be empty.
        #[serde(default)]
        note: String,
    },
}

impl Feedback {
    /// Its verdict as in JSON and in our own metrics.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::FalsePositive { .. } => "false_positive",
            Self::TrueCause { .. } => "true_cause",
        }
    }
}

/// The switch that stops all execution.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KillSwitch {
    /// On: nothing is carried out.
    pub on: bool,
    /// Who turned it.
    pub by: String,
    /// Why, may be empty.
    #[serde(default)]
    pub why: String,
    /// When.
    pub at: crate::Timestamp,
}
