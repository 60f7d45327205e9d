//! Agents: the rooms put to work on the bus.
//!
//! Each agent is its own consumer group and advances by turns: one `turn` polls, steps its room, makes the result
//! durable, and only then acknowledges. `run` calls turns forever; the simulation calls them in any order, with
//! crashes in between. No agent knows another: they meet on the bus and in the store.

mod detect;
mod feed;
mod incident;
pub(crate) mod models;
mod relay;
mod shard;
mod shelf;

pub use detect::DetectAgent;
pub use feed::{Feed, Reading, Tap};
pub use incident::{Command, Declared, IncidentAgent, IncidentParts, Listeners, Refusal, Response, Told};
pub use models::{Live, LiveModel, ModelsAgent};
pub use relay::RelayAgent;
pub use shard::{DetectRooms, ShardRooms};
pub use shelf::{Library, Shelf};

use nightshift_bus::{Bus, BusError, Outgoing, Record};
use nightshift_health::{ByReason, SelfMetrics};
use nightshift_model::{Envelope, EnvelopeId, Routing, Timestamp, topics};
use nightshift_store::StoreError;
use std::sync::Arc;

/// Why a turn did not complete. Nothing was acknowledged: the next turn does it again.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// The bus.
    #[error("use the bus")]
    Bus(#[from] BusError),
    /// The store.
    #[error("use the store")]
    Store(#[from] StoreError),
    /// State that was put away cannot be read.
    #[error("restore state: {0}")]
    State(String),
}

/// What a turn did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Turn {
    /// Records handled.
    pub records: usize,
    /// Whether anything was made durable.
    pub progressed: bool,
}

/// Sends what cannot be read to dead-letter, with the reason and the bytes, and counts it.
///
/// # Errors
/// When the bus does not take it: the record must not be acknowledged then.
async fn dead_letter(
    bus: &Arc<dyn Bus>,
    metrics: &SelfMetrics,
    record: &Record,
    reason: &'static str,
    detail: &str,
    now: Timestamp,
) -> Result<(), BusError> {
    metrics.dead_letters.get_or_create(&ByReason { reason: reason.into() }).inc();
    tracing::warn!(topic = %record.topic, partition = record.partition, offset = record.offset, reason, detail, "record sent to dead-letter");
    let outgoing = nightshift_bus::dead_letter(reason, detail, record, now);
    bus.publish(topics::DEAD_LETTER.name, vec![outgoing]).await
}

/// A control record ready to publish.
fn control<T: serde::Serialize>(
    id: EnvelopeId,
    tenant: &str,
    key: String,
    schema: &str,
    at: Timestamp,
    now: Timestamp,
    value: &T,
) -> Outgoing {
    let routing = Routing::Key(key);
    let envelope = Envelope::json(id, tenant, routing.clone(), schema, at, now, value)
        .expect("control records have string keys and finite depth");
    Outgoing { routing, bytes: envelope.encode() }
}
