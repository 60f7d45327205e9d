//! Execution: one plan carried out step by step, and the actuators that reach into the world.
//!
//! Lives here: the state machine of an execution (prepare, dry-run, canary, apply, verify, undo), which decides
//! nothing and does nothing, and the [`Actuator`] seam with its kinds, which do what they are told, once.
//!
//! Never here: choices. Every target, value and order is in the plan; nothing runs without a permit of the guard.

mod command;
mod config;
#[cfg(any(test, feature = "test-support"))]
pub mod conformance;
mod execution;
mod executor;
mod kubernetes;
mod lease;
mod sign;
mod webhook;

pub use command::{Command, CommandAction, CommandConfig, EXIT_DONE, EXIT_NOT_DONE, EXIT_TRY_AGAIN};
#[doc(hidden)]
pub use command::{fuzz_command_look, fuzz_command_template};
pub use config::{ActuatorConfig, BuildError};
pub use execution::{ATTEMPTS_MAX, Effect, Event, Execution, Finish, KEY_BYTES_MAX, Options, key_of, operation_of};
pub use executor::{Executor, IMAGE_BYTES_MAX};
pub use kubernetes::KubernetesActuatorConfig;
pub use lease::Lease;
pub use sign::{SIGNATURE_HEADER, sign};
#[doc(hidden)]
pub use webhook::fuzz_webhook_answer;
pub use webhook::{ANSWER_BYTES_MAX, FENCE_HEADER, KEY_HEADER, ORDER_VERSION, Webhook, WebhookConfig};

use async_trait::async_trait;
use nightshift_model::{Action, ActionOutcome, ActionType, EntityId, Image};
use serde::{Deserialize, Serialize};

/// What an actuator can promise. After a crash this decides what may be done about a step without an outcome.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Declares {
    /// The same key twice has the effect of once.
    pub idempotent: bool,
    /// [`nightshift_model::Operation::Observe`] can tell whether a key was done.
    pub observable: bool,
    /// It can try without effect.
    pub dry_run: bool,
    /// It can do a part first.
    pub canary: bool,
}

/// Parameter of a canary beside those of its step: the share of the target to change, above 0 and below 1.
pub const CANARY_SHARE: &str = "canary_share";

/// What an actuator says of an operation that ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    /// How it ended. Of an observation: `FoundDone`, `Failed` (found not done) or `Unknown`.
    pub outcome: ActionOutcome,
    /// One line for people; no secret.
    pub detail: String,
    /// The target afterwards, of what the step touches; empty when it was not read.
    pub image: Image,
}

/// Why an operation has no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum ActError {
    /// It was certainly not done; trying again may help.
    #[error("{0}")]
    NotDone(String),
    /// Nobody knows whether it was done: a timeout, a connection that broke after sending.
    #[error("{0}")]
    Uncertain(String),
    /// It will not be done however often it is tried: bad target, bad values, no right to.
    #[error("{0}")]
    Refused(String),
}

/// One way to reach into the world. It carries out one operation at a time and chooses nothing.
#[async_trait]
pub trait Actuator: Send + Sync {
    /// `estate`, `webhook`, `command` …
    fn kind(&self) -> &'static str;

    /// What it can promise.
    fn declares(&self) -> Declares;

    /// Whether it does this to that.
    fn handles(&self, action: ActionType, target: &EntityId) -> bool;

    /// Reads the target, of what actions of this type touch. Changes nothing.
    ///
    /// # Errors
    /// `NotDone` when it cannot be read now, `Refused` when there is no such thing.
    async fn look(&self, target: &EntityId, action: ActionType) -> Result<Image, ActError>;

    /// Carries out `action.operation`. The same key twice has the effect of once where it declares itself idempotent;
    /// a fence below the highest that it has seen is refused.
    ///
    /// # Errors
    /// See [`ActError`].
    async fn perform(&self, action: &Action) -> Result<Answer, ActError>;
}
