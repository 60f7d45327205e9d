//! Changes: something somebody did.

use crate::{EntityId, EnvelopeId, Timestamp};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ChangeType {
    /// A new version was rolled out.
    Deployment,
    /// Configuration was edited.
    Config,
    /// Replicas or resources were changed.
    Scaling,
    /// A feature flag was flipped.
    FeatureFlag,
    /// A schema or data migration ran.
    Migration,
    /// Something happened that nobody called a change: a Kubernetes event, a log-in, a note.
    Event,
}

/// One change of one entity, or of nothing that we know (`entity` is `None`).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Change {
    /// Derived from what it says, so that a repeated delivery is recognised.
    pub id: EnvelopeId,
    /// Tenant.
    pub tenant: String,
    /// When it happened.
    pub at: Timestamp,
    /// What was changed.
    #[serde(default)]
    pub entity: Option<EntityId>,
    /// The logical service, empty when unknown.
    #[serde(default)]
    pub service: String,
    /// Kind of change.
    pub change_type: ChangeType,
    /// Version after the change.
    #[serde(default)]
    pub version: String,
    /// Commit.
    #[serde(default)]
    pub git_sha: String,
    /// Who did it.
    #[serde(default)]
    pub author: String,
    /// One line for people.
    #[serde(default)]
    pub summary: String,
    /// What its author expects to go wrong.
    #[serde(default)]
    pub known_risks: Vec<String>,
    /// Source that told us.
    #[serde(default)]
    pub source: String,
    /// Whatever else it said.
    #[serde(default)]
    pub attributes: BTreeMap<String, String>,
}
