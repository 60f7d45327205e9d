//! The Kubernetes actuator on a real control plane. Skipped, loudly, where there is none.
#![expect(clippy::unwrap_used, reason = "a test may panic; clippy does not see that helpers are of tests")]

#[path = "act/conformance.rs"]
mod conformance;
#[path = "act/nodes.rs"]
mod nodes;
#[path = "act/others.rs"]
mod others;
#[path = "act/refusals.rs"]
mod refusals;
#[path = "act/support.rs"]
mod support;
#[path = "act/workloads.rs"]
mod workloads;
