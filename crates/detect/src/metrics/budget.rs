//! How many series a tenant's source may have, over all shards of the process.

use hashbrown::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// The ceiling, shared by all shards. A lock is taken when a shard meets a source for the first time, never per sample;
/// a new series costs one atomic addition.
#[derive(Debug)]
pub struct SeriesBudget {
    max: u64,
    live: Mutex<HashMap<(String, String), Arc<AtomicU64>>>,
}

impl SeriesBudget {
    /// At most `max` live series for each pair of tenant and source.
    pub fn new(max: u64) -> Self {
        Self { max, live: Mutex::default() }
    }

    /// Live series of a source.
    pub fn live(&self, tenant: &str, source: &str) -> u64 {
        self.counter(tenant, source).load(Ordering::Relaxed)
    }

    pub(crate) fn counter(&self, tenant: &str, source: &str) -> Arc<AtomicU64> {
        // A panic elsewhere leaves a map of counters, which is never half-written.
        let mut live = self.live.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(live.entry((tenant.to_owned(), source.to_owned())).or_default())
    }

    /// One more series, unless the ceiling is reached.
    pub(crate) fn acquire(&self, counter: &AtomicU64) -> bool {
        let before = counter.fetch_add(1, Ordering::Relaxed);
        if before >= self.max {
            counter.fetch_sub(1, Ordering::Relaxed);
        }
        before < self.max
    }
}
