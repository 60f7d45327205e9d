//! The ends that reach a Kubernetes cluster: seeing it and acting on it.
//!
//! Lives here: clients and contexts, lists and watches into a `World` of `nightshift-cluster`, logs, the metrics API,
//! the actuator, custom resources of our own. kube-rs is linked here and nowhere else, so that what it costs to build
//! stays in one place.
//!
//! The settings of the source are in `nightshift_collect::kubernetes` ([`nightshift_collect::kubernetes::BuildKubernetes`]
//! is the builder that the binary hands over); findings become anomalies by `nightshift_cluster::Reporter`.
//!
//! Never here: what is wrong with a cluster (`nightshift-cluster`), what to do about it (`nightshift-plan`).

pub mod act;
mod changes;
mod client;
pub mod crds;
mod discovery;
pub mod lease;
mod list;
mod logs;
mod metrics;
mod rights;
mod rules;
pub mod scan;
mod source;
mod topology;
mod watch;

pub use act::{KubernetesActuator, build as build_actuator};
pub use client::{Access, ApiServer, KubeError};
pub use discovery::{Endpoint, Kind, Served, discover};
pub use list::list;
pub use source::{KubernetesSource, build, watched, watched_clusters};
pub use watch::{ClusterState, Trouble};
