//! Compact views of Kubernetes objects: only the fields that a check, the topology or a change record needs.
//!
//! Lives here: types that are read from the API server's JSON. What is not named is skipped unread, so a view is a
//! fraction of the object. Unknown fields, missing fields and `null` are all fine: a list must not fail for one object.

mod access;
mod config;
mod corefile;
mod custom;
mod meta;
mod network;
mod node;
mod pod;
mod storage;
pub(crate) mod text;
mod value;
mod workload;

pub use access::*;
pub use config::*;
pub use corefile::Corefile;
pub use custom::*;
pub use meta::*;
pub use network::*;
pub use node::*;
pub use pod::*;
pub use storage::*;
pub use value::Blob;
pub use workload::{
    CronJob, CronJobSpec, CronJobStatus, DaemonSet, DaemonSetSpec, DaemonSetStatus, Deployment, DeploymentSpec, Hpa,
    HpaSpec, HpaStatus, Job, JobSpec, JobStatus, JobTemplate, MetricSpec, MetricValue, Pdb, PdbSpec, PdbStatus,
    ReplicaSet, ReplicasStatus, ResourceMetric, RollingUpdate, StatefulSet, StatefulSetSpec, Strategy, TargetRef,
};
