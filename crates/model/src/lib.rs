//! The words of Nightshift as types: entities, telemetry batches, anomalies, incidents, hypotheses, ids, topics.
//!
//! Lives here: value types, their wire forms (protobuf for envelopes and telemetry, JSON for control records),
//! stable hashes and ids, the catalogue of fault classes, the fold from journal to incident.
//!
//! Never here: I/O, a clock that reads the system's time, randomness, decisions. Everything in this crate gives
//! the same output for the same input on every machine.

pub mod action;
pub mod anomaly;
pub mod batch;
pub mod change;
pub mod clock;
pub mod entity;
pub mod envelope;
pub mod families;
pub mod fault;
pub mod hash;
pub mod ids;
pub mod incident;
pub mod journal;
pub mod person;
pub mod plan;
pub mod severity;
pub mod slo;
pub mod time;
pub mod topics;
pub mod topology;
pub mod verdict;

/// Types generated from `proto/nightshift/v1/bus.proto`.
#[expect(missing_docs, reason = "generated; documented in the .proto file")]
pub mod proto {
    include!(concat!(env!("OUT_DIR"), "/nightshift.v1.rs"));
}

pub use action::{Action, ActionOutcome, ActionState, KpiReading, Operation};
pub use anomaly::{Anomaly, AnomalyKind, Direction, Explanation, Phase};
pub use change::{Change, ChangeType};
pub use clock::{Clock, ManualClock};
pub use entity::{Alias, EntityId, EntityKind, EntityMeta};
pub use envelope::{Envelope, EnvelopeError, Routing};
pub use families::{Bad, Reading, SignalFamily};
pub use fault::FaultClass;
pub use ids::{EnvelopeId, IncidentId, OccurrenceId};
pub use incident::{
    ApprovalState, AutomationState, BlastRadius, Contribution, Evidence, Hypothesis, Incident, IncidentStatus,
    NodeTime, TimelineEntry,
};
pub use journal::{EventKind, JournalDraft, JournalEvent};
pub use person::{Feedback, KillSwitch, PersonAction, PersonVerb};
pub use plan::{
    ActionType, Canary, Compare, Covered, Image, Kpi, Plan, PlanHash, PlanStep, Prediction, Priority, Risk, Rollback,
    Verification,
};
pub use severity::Severity;
pub use slo::Slo;
pub use time::Timestamp;
pub use topology::{EdgeKind, Observation};
pub use verdict::{Decision, Reason, Verdict};

/// The tenant of everything when none is configured.
pub const DEFAULT_TENANT: &str = "default";

/// Shards of `telemetry.raw`; fixed when a topic is made.
pub const SHARDS: u32 = 64;
