//! Detection on metrics: streaming baselines, one small state per series, a constant cost per sample.
//!
//! Lives here: the layers (z-score, EWMA chart, linear trend, seasonal forecast, extreme value threshold, flatline,
//! absence), what a metric's name says of a departure, the life of an alarm, and [`ShardDetector`], which runs them
//! over batches. Never here: I/O, a clock, chance, a look at other series than the one at hand (`diagnose` joins).
//!
//! ```text
//! batch ─► look up series (hash, 2 lines) ─► convert (rates) ─► score ─► learn, clipped
//!                                                                 │ stands out
//!                                                                 ▼
//!                                               judge: run, persistence, hysteresis ─► Anomaly
//! ```

mod alarm;
mod budget;
pub(crate) mod codec;
pub mod config;
#[doc(hidden)]
pub mod embed;
mod engine;
mod ensemble;
mod evt;
mod hot;
mod judge;
mod names;
mod policy;
mod season;
mod shard;
mod snapshot;
mod sweep;
#[cfg(test)]
mod tests;
mod trend;

pub use budget::SeriesBudget;
pub use config::MetricsConfig;
pub use shard::{Effects, ShardDetector, StepStats};
pub use snapshot::{SnapshotError, fuzz_snapshot};

pub(crate) use codec::{Wire, wire_struct};
pub(crate) use engine::{Engine, Layer, Outcome};
pub(crate) use hot::Hot;
pub(crate) use judge::{AlarmKind, score_of};
pub(crate) use policy::Policy;

/// Version of the models of this module: named by every anomaly they make. Raise it when a verdict may change.
pub const MODEL_VERSION: u32 = 3;
