//! Settings of the graph and of the span joiner.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The knowledge graph.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct TopologyConfig {
    /// YAML file with services, dependencies, owners, criticality and SLOs; empty: only what is learned.
    pub file: String,
    /// Seconds after which a learned edge that was not seen again is forgotten. Declared edges stay.
    #[schemars(range(min = 60, max = 31_536_000))]
    pub edge_ttl_secs: u64,
    /// Seconds after which a learned entity that was not seen again is forgotten, with its edges and aliases.
    #[schemars(range(min = 60, max = 31_536_000))]
    pub entity_ttl_secs: u64,
    /// Seconds in which the count of an edge that is not seen falls to one half.
    #[schemars(range(min = 60, max = 31_536_000))]
    pub edge_half_life_secs: u64,
    /// Seconds between two writes of an entity or edge in which nothing but its last sighting changed.
    #[schemars(range(min = 1, max = 86_400))]
    pub touch_secs: u64,
    /// Entities kept at most per tenant; further ones are refused and counted.
    #[schemars(range(min = 1, max = 10_000_000))]
    pub entities_max: usize,
    /// Edges kept at most per tenant; further ones are refused and counted.
    #[schemars(range(min = 1, max = 10_000_000))]
    pub edges_max: usize,
    /// Aliases kept at most per tenant; further ones are refused and counted.
    #[schemars(range(min = 1, max = 10_000_000))]
    pub aliases_max: usize,
    /// How far callers are followed for the blast radius, in edges.
    #[schemars(range(min = 0, max = 16))]
    pub blast_hops: u32,
    /// Learning of edges from trace spans.
    pub spans: SpanJoinerConfig,
}

impl Default for TopologyConfig {
    fn default() -> Self {
        Self {
            file: String::new(),
            // A job that runs once a week still has its edges when it runs again.
            edge_ttl_secs: 8 * 86_400,
            entity_ttl_secs: 30 * 86_400,
            edge_half_life_secs: 86_400,
            touch_secs: 300,
            entities_max: 200_000,
            edges_max: 1_000_000,
            aliases_max: 400_000,
            blast_hops: 4,
            spans: SpanJoinerConfig::default(),
        }
    }
}

/// Edges from trace spans.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct SpanJoinerConfig {
    /// Spans remembered at most while the other half of the call is awaited; the oldest leave first.
    #[schemars(range(min = 1, max = 10_000_000))]
    pub spans_max: usize,
    /// Seconds for which a span waits for its parent or child.
    #[schemars(range(min = 1, max = 3600))]
    pub wait_secs: u64,
    /// Different edges collected at most between two reports; further ones are counted and dropped.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub edges_max: usize,
}

impl Default for SpanJoinerConfig {
    fn default() -> Self {
        Self { spans_max: 100_000, wait_secs: 60, edges_max: 20_000 }
    }
}
