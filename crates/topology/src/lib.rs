//! Topology: what there is, by which names it goes, what depends on what, and whom it hurts.
//!
//! Lives here: the graph of entities ([`Topology`]) with its declared part (a YAML file, [`TopologyFile`]) and its
//! learned part ([`nightshift_model::Observation`]), aliases and the joining of two entities that turn out to be one,
//! queries up (callers), down (dependencies) and blast radius, and [`SpanJoiner`], which finds edges in trace spans.
//!
//! Never here: I/O, a clock, a database. What must outlive the process leaves as [`Row`]s and comes back through
//! [`Topology::from_rows`]; the caller keeps them.

mod config;
mod declared;
mod file;
mod graph;
mod joiner;
mod query;
mod rows;
mod view;
pub mod yaml;

pub use config::{SpanJoinerConfig, TopologyConfig};
pub use declared::{Criticality, Dependency, ServiceSpec};
pub use file::{FILE_BYTES_MAX, PROBLEMS_MAX, SERVICES_MAX, TopologyFile};
pub use graph::{EdgeInfo, EntityInfo, Rejected, Topology};
pub use joiner::SpanJoiner;
pub use nightshift_model::Slo;
pub use query::Neighbour;
pub use rows::{ALIAS, EDGE, ENTITY, Row};
pub use yaml::Problem;

#[doc(hidden)]
pub use file::fuzz_topology_yaml;
