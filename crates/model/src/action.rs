//! Actions: one step carried out (or dry-run), with its before-image and outcome.

use crate::{ActionType, EntityId, Image, IncidentId, PlanHash, Timestamp};
use serde::{Deserialize, Serialize};
use std::fmt;

/// Which part of a step an operation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Operation {
    /// The target is read.
    Prepare,
    /// Tried without effect.
    DryRun,
    /// Done to a part.
    Canary,
    /// Done.
    Apply,
    /// Looked at, whether an earlier apply, canary or undo was done.
    Observe,
    /// Taken back.
    Undo,
}

impl Operation {
    /// Name as in JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Prepare => "prepare",
            Self::DryRun => "dry_run",
            Self::Canary => "canary",
            Self::Apply => "apply",
            Self::Observe => "observe",
            Self::Undo => "undo",
        }
    }

    /// Whether it changes the world: only with an intent in the journal.
    pub const fn changes(self) -> bool {
        matches!(self, Self::Canary | Self::Apply | Self::Undo)
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// How an operation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ActionOutcome {
    /// It is done.
    Done,
    /// After a crash it was found done.
    FoundDone,
    /// It was not done.
    Failed,
    /// The world was not as the plan assumed, or the dry-run was refused: nothing was changed.
    Refused,
    /// Nobody can say whether it was done: never repeated, a person must look.
    Unknown,
}

impl ActionOutcome {
    /// Name as in JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::FoundDone => "found_done",
            Self::Failed => "failed",
            Self::Refused => "refused",
            Self::Unknown => "unknown",
        }
    }

    /// Whether the target is as the operation wanted it.
    pub const fn is_done(self) -> bool {
        matches!(self, Self::Done | Self::FoundDone)
    }
}

impl fmt::Display for ActionOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// One operation on a target. The same key is the same operation, however often it is sent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Action {
    /// Idempotency key: of incident, plan, step and operation. Retries carry the same.
    pub key: String,
    /// For which incident.
    pub incident: IncidentId,
    /// Of which plan.
    pub plan: PlanHash,
    /// Which step, from 0.
    pub step: u32,
    /// Which part of it.
    pub operation: Operation,
    /// From 1.
    pub attempt: u32,
    /// What it does.
    pub action: ActionType,
    /// To what.
    pub target: EntityId,
    /// Who does it.
    pub actuator: String,
    /// How.
    #[serde(default)]
    pub params: Image,
    /// The target as it was before, of what the step touches. Empty until it was read.
    #[serde(default)]
    pub before: Image,
    /// Fencing token of the worker: an actuator that has seen a higher one refuses.
    pub fence: u64,
    /// No answer until then counts as none.
    pub deadline: Timestamp,
    /// Made by a test injection: never carried out.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub synthetic: bool,
}

/// How an action stands, as people see it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ActionState {
    /// What was to be done.
    pub action: Action,
    /// When the intent was journalled.
    pub intended_at: Timestamp,
    /// How it ended; `None` while it is under way.
    #[serde(default)]
    pub outcome: Option<ActionOutcome>,
    /// What the actuator said, one line.
    #[serde(default)]
    pub detail: String,
    /// When the outcome was journalled.
    #[serde(default)]
    pub ended_at: Option<Timestamp>,
}

/// One reading of a KPI after a plan was carried out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct KpiReading {
    /// When the sample was taken.
    pub at: Timestamp,
    /// In the unit of the signal.
    pub value: f64,
    /// As promised?
    pub good: bool,
}
