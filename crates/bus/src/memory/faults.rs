//! What can be made to go wrong on the in-memory bus.

use crate::rng::Rng;

/// Faults that happen by chance, drawn from `seed`: the same calls in the same order meet the same faults. Chances
/// are in thousandths; all are 0 by default.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MemoryFaults {
    /// Where chance begins.
    pub seed: u64,
    /// A publish fails and nothing of it is stored.
    pub publish_fails_before: u16,
    /// A publish fails after its records were appended: a later publish or [`super::MemoryBus::crash`] keeps a part
    /// of them, from the first on, or none. Nobody sees them before that is decided.
    pub publish_fails_after: u16,
    /// A publish is answered with backpressure.
    pub backpressure: u16,
    /// A record is stored twice, one right after the other: what a publisher's retry does.
    pub duplicate: u16,
    /// A record, and all behind it in its partition, is not seen for some polls.
    pub delay: u16,
    /// Polls (of anybody) that a delayed record stays unseen, at most.
    pub delay_polls_max: u32,
    /// Whether partitions are delivered in random order; within one the order always holds.
    pub reorder: bool,
    /// A commit fails; by half a chance it was stored all the same.
    pub commit_fails: u16,
}

/// What happens to a publish.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PublishFate {
    Stored,
    FailsBefore,
    FailsAfter,
    Backpressure,
}

#[derive(Debug)]
pub(super) struct Chance {
    plan: MemoryFaults,
    rng: Rng,
}

impl Chance {
    pub(super) const fn new(plan: MemoryFaults) -> Self {
        Self { rng: Rng::new(plan.seed), plan }
    }

    pub(super) const fn publish(&mut self) -> PublishFate {
        if self.rng.chance(self.plan.backpressure) {
            PublishFate::Backpressure
        } else if self.rng.chance(self.plan.publish_fails_before) {
            PublishFate::FailsBefore
        } else if self.rng.chance(self.plan.publish_fails_after) {
            PublishFate::FailsAfter
        } else {
            PublishFate::Stored
        }
    }

    /// How many of `n` unsynced records are kept.
    pub(super) const fn kept(&mut self, n: usize) -> usize {
        if n == 0 { 0 } else { self.rng.below(n as u64 + 1) as usize }
    }

    pub(super) const fn duplicates(&mut self) -> bool {
        self.rng.chance(self.plan.duplicate)
    }

    /// Polls that a record stays unseen.
    pub(super) const fn delay(&mut self) -> u64 {
        if self.rng.chance(self.plan.delay) { 1 + self.rng.below(self.plan.delay_polls_max as u64) } else { 0 }
    }

    /// `Some(stored)`: the commit fails.
    pub(super) const fn commit_fails(&mut self) -> Option<bool> {
        if self.rng.chance(self.plan.commit_fails) { Some(self.rng.chance(500)) } else { None }
    }

    pub(super) fn shuffle<T>(&mut self, items: &mut [T]) {
        if self.plan.reorder {
            for i in (1..items.len()).rev() {
                items.swap(i, self.rng.below(i as u64 + 1) as usize);
            }
        }
    }
}
