//! What can be set about logs.

use super::critical::CriticalPattern;
use super::miner::MinerConfig;
use serde::{Deserialize, Serialize};

/// Log detection.
#[derive(Debug, Clone, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default)]
pub struct LogConfig {
    /// Template mining.
    pub miner: MinerConfig,
    /// Minutes with lines that an entity must have had before new templates, bursts and vanished templates are told.
    #[schemars(range(min = 5, max = 1440))]
    pub warmup_minutes: u32,
    /// Standard deviations above its own rate at which a template bursts. 5 is one false alarm in 3.5 million minutes
    /// of a template whose counts vary as learned.
    #[schemars(range(min = 3.0, max = 20.0))]
    pub burst_sigma: f64,
    /// Lines in one minute below which nothing is a burst.
    #[schemars(range(min = 2, max = 100_000))]
    pub burst_lines_min: u32,
    /// Whether templates that stop are told.
    pub vanished: bool,
    /// Chance at which a silence of a regular template is told: it would last that long by accident once in so many.
    #[schemars(range(min = 1e-12, max = 0.01))]
    pub vanished_probability: f64,
    /// Templates kept per entity; lines of further ones count as one template, `other`.
    #[schemars(range(min = 16, max = 65536))]
    pub templates_per_entity_max: usize,
    /// Entities kept per tenant and shard; above it the one that was silent for longest leaves.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub entities_max: usize,
    /// New templates told per entity and hour at most; the others are counted.
    #[schemars(range(min = 1, max = 10_000))]
    pub new_per_hour_max: u32,
    /// Seconds of event time without a further line after which a critical line or a new template is over.
    #[schemars(range(min = 60, max = 86_400))]
    pub hold_secs: u32,
    /// Line fingerprints remembered to recognise what is delivered twice, per tenant and shard.
    #[schemars(range(min = 0, max = 10_000_000))]
    pub dedup_lines_max: usize,
    /// Whether the built-in list of critical patterns is used.
    pub builtin_patterns: bool,
    /// Further critical patterns.
    pub patterns: Vec<CriticalPattern>,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self {
            miner: MinerConfig::default(),
            warmup_minutes: 30,
            burst_sigma: 5.0,
            burst_lines_min: 10,
            vanished: true,
            vanished_probability: 1e-6,
            templates_per_entity_max: 1024,
            entities_max: 10_000,
            new_per_hour_max: 10,
            hold_secs: 900,
            dedup_lines_max: 65_536,
            builtin_patterns: true,
            patterns: Vec::new(),
        }
    }
}
