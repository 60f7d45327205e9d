//! The model that runs, for the detector to take: a number to look at each turn, and the rest where it moved.

use nightshift_detect::{MetricsConfig, models::WarmStart};
use parking_lot::RwLock;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A model in use.
#[derive(Debug, Clone, Default)]
pub struct Live {
    /// Its number; 0 where there are no versions (backtests, simulations).
    pub version: u32,
    /// Configuration of the metric layers; `None`: as configured.
    pub metrics: Option<Arc<MetricsConfig>>,
    /// What new series start with.
    pub warm: Option<Arc<WarmStart>>,
}

/// Where the model in use is looked up. One per process.
#[derive(Debug, Default)]
pub struct LiveModel {
    live: RwLock<Live>,
    generation: AtomicU64,
}

impl LiveModel {
    /// Grows with each change.
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// The model in use.
    pub fn get(&self) -> Live {
        self.live.read().clone()
    }

    /// Its number.
    pub fn version(&self) -> u32 {
        self.live.read().version
    }

    /// From now on this model is in use.
    pub(crate) fn set(&self, live: Live) {
        *self.live.write() = live;
        self.generation.fetch_add(1, Ordering::Release);
    }
}
