//! Detect: telemetry in, anomalies out.
//!
//! Lives here: streaming baselines over metrics ([`metrics`]), features per service and minute ([`features`]), log
//! templates ([`logs`]), typed rules ([`rules`]), what is learned of families of series ([`models`]), and the replay of
//! recorded series ([`backtest`]).
//!
//! Never here: I/O, a clock, chance. The same input gives the same bytes, ids included; what a metric's name means is
//! `nightshift_model::families`, shared with diagnosis.

pub mod backtest;
pub mod features;
pub mod logs;
pub mod metrics;
pub mod models;
pub mod rules;
pub mod sealed;
pub mod slo;

pub use backtest::{RowVerdict, SeriesBacktest};
pub use features::{FeatureRow, FeaturesConfig};
pub use metrics::{Effects, MetricsConfig, SeriesBudget, ShardDetector, SnapshotError, StepStats};
