//! Permits: the only way in which anything is changed.

use nightshift_model::{EntityId, Operation, PlanHash, Timestamp};

/// Leave to do one changing operation, once, until it expires. Only [`crate::Guard::permit`] makes them; it can be
/// neither copied nor read from bytes.
#[derive(Debug, PartialEq, Eq)]
pub struct Permit {
    pub(crate) plan: PlanHash,
    pub(crate) step: u32,
    pub(crate) operation: Operation,
    pub(crate) target: EntityId,
    pub(crate) given_at: Timestamp,
    pub(crate) expires_at: Timestamp,
    pub(crate) fence: u64,
}

impl Permit {
    /// Of which plan.
    pub const fn plan(&self) -> PlanHash {
        self.plan
    }

    /// Which step, from 0.
    pub const fn step(&self) -> u32 {
        self.step
    }

    /// Which part of it: canary, apply or undo.
    pub const fn operation(&self) -> Operation {
        self.operation
    }

    /// On what.
    pub const fn target(&self) -> &EntityId {
        &self.target
    }

    /// When it was given.
    pub const fn given_at(&self) -> Timestamp {
        self.given_at
    }

    /// From then on it is worth nothing.
    pub const fn expires_at(&self) -> Timestamp {
        self.expires_at
    }

    /// Fencing token of the worker that it was given to.
    pub const fn fence(&self) -> u64 {
        self.fence
    }

    /// Whether it is for this operation, by this worker, now. The last question before the world is touched.
    pub fn allows(
        &self,
        plan: PlanHash,
        step: u32,
        operation: Operation,
        target: &EntityId,
        fence: u64,
        now: Timestamp,
    ) -> bool {
        self.plan == plan
            && self.step == step
            && self.operation == operation
            && self.target == *target
            && self.fence == fence
            && self.given_at <= now
            && now < self.expires_at
    }
}

/// The operation that a permit is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request {
    /// Which step, from 0.
    pub step: u32,
    /// Which part of it; one that changes nothing needs no permit and gets none.
    pub operation: Operation,
    /// Fencing token of the worker.
    pub fence: u64,
}
