//! What is learned of the estate: the payload of `topology.observed`.

use crate::{EntityId, EntityMeta, Timestamp};
use serde::{Deserialize, Serialize};

/// How one entity depends on another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum EdgeKind {
    /// `from` calls `to`.
    Calls,
    /// `from` runs on `to` (a service on a host, a pod on a node).
    RunsOn,
    /// `from` publishes to or consumes from `to`.
    Messages,
}

/// One thing learned.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Observation {
    /// An entity was seen, with its context.
    Entity {
        /// What was seen.
        entity: EntityMeta,
        /// When.
        at: Timestamp,
    },
    /// Another name of an entity.
    Alias {
        /// `host.name=web1`, `instance=10.0.0.7` …
        name: String,
        /// What it stands for.
        entity: EntityId,
        /// When it was learned.
        at: Timestamp,
    },
    /// A dependency.
    Edge {
        /// The dependent side.
        from: EntityId,
        /// What it depends on.
        to: EntityId,
        /// How.
        kind: EdgeKind,
        /// Times seen since the last report.
        count: u64,
        /// When last.
        at: Timestamp,
    },
}
