//! Workloads, what scales them, and what protects them.

use super::meta::{Condition, IntOrString, LabelSelector, Many, Meta, Quantity};
use super::pod::PodTemplate;
use nightshift_model::Timestamp;
use serde::Deserialize;

macro_rules! object {
    ($(#[$doc:meta])* $name:ident { $spec:ident, $status:ident }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Default, Deserialize)]
        #[serde(default)]
        pub struct $name {
            /// Metadata.
            pub metadata: Meta,
            /// What is wanted.
            pub spec: $spec,
            /// What is.
            pub status: $status,
        }
    };
}
pub(super) use object;

object! {
    /// A deployment.
    Deployment { DeploymentSpec, ReplicasStatus }
}
object! {
    /// A replica set.
    ReplicaSet { DeploymentSpec, ReplicasStatus }
}
object! {
    /// A stateful set.
    StatefulSet { StatefulSetSpec, ReplicasStatus }
}
object! {
    /// A daemon set.
    DaemonSet { DaemonSetSpec, DaemonSetStatus }
}
object! {
    /// A job.
    Job { JobSpec, JobStatus }
}
object! {
    /// A cron job.
    CronJob { CronJobSpec, CronJobStatus }
}
object! {
    /// A horizontal pod autoscaler (autoscaling/v2).
    Hpa { HpaSpec, HpaStatus }
}
object! {
    /// A pod disruption budget.
    Pdb { PdbSpec, PdbStatus }
}

/// What a deployment or replica set wants.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct DeploymentSpec {
    /// Pods; 1 when absent.
    pub replicas: Option<i64>,
    /// Which pods are its own.
    pub selector: LabelSelector,
    /// How they are made.
    pub template: PodTemplate,
    /// Whether its rollout is held.
    pub paused: bool,
    /// How a change is rolled out.
    pub strategy: Strategy,
    /// Seconds without progress after which it has failed; 600 unless told.
    pub progress_deadline_seconds: Option<i64>,
    /// Seconds a pod must be ready to count.
    pub min_ready_seconds: i64,
}

impl DeploymentSpec {
    /// Pods that are wanted.
    pub fn wanted(&self) -> i64 {
        self.replicas.unwrap_or(1)
    }
}

/// How a change is rolled out.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Strategy {
    /// `RollingUpdate` (also when empty), `Recreate`, `OnDelete`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Details.
    pub rolling_update: Option<RollingUpdate>,
}

/// Details of a rolling update.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct RollingUpdate {
    /// Pods more than wanted.
    pub max_surge: Option<IntOrString>,
    /// Pods fewer than wanted.
    pub max_unavailable: Option<IntOrString>,
    /// Of a stateful set: replicas below this ordinal stay as they are.
    pub partition: Option<i64>,
}

/// The status of deployments, replica sets and stateful sets.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ReplicasStatus {
    /// Generation that was acted on.
    pub observed_generation: i64,
    /// Pods there are.
    pub replicas: i64,
    /// Of the newest template.
    pub updated_replicas: i64,
    /// Ready.
    pub ready_replicas: i64,
    /// Ready for long enough.
    pub available_replicas: i64,
    /// Not available.
    pub unavailable_replicas: i64,
    /// Of the current revision (stateful sets).
    pub current_replicas: i64,
    /// Revision that pods have (stateful sets).
    pub current_revision: String,
    /// Revision they will have (stateful sets).
    pub update_revision: String,
    /// Conditions.
    pub conditions: Many<Condition>,
}

/// What a stateful set wants.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct StatefulSetSpec {
    /// Pods; 1 when absent.
    pub replicas: Option<i64>,
    /// Which pods are its own.
    pub selector: LabelSelector,
    /// How they are made.
    pub template: PodTemplate,
    /// Headless service that names them.
    pub service_name: String,
    /// `OrderedReady` (also when empty) or `Parallel`.
    pub pod_management_policy: String,
    /// How a change is rolled out.
    pub update_strategy: Strategy,
    /// Claims that each pod gets.
    pub volume_claim_templates: Many<super::storage::Pvc>,
}

impl StatefulSetSpec {
    /// Pods that are wanted.
    pub fn wanted(&self) -> i64 {
        self.replicas.unwrap_or(1)
    }
}

/// What a daemon set wants.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct DaemonSetSpec {
    /// Which pods are its own.
    pub selector: LabelSelector,
    /// How they are made.
    pub template: PodTemplate,
    /// How a change is rolled out.
    pub update_strategy: Strategy,
}

/// The status of a daemon set.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct DaemonSetStatus {
    /// Generation that was acted on.
    pub observed_generation: i64,
    /// Nodes that should run it.
    pub desired_number_scheduled: i64,
    /// Nodes that do.
    pub current_number_scheduled: i64,
    /// Nodes on which it is ready.
    pub number_ready: i64,
    /// Nodes on which it is available.
    pub number_available: i64,
    /// Nodes on which it is not.
    pub number_unavailable: i64,
    /// Nodes that run it and should not.
    pub number_misscheduled: i64,
    /// Nodes with the newest template.
    pub updated_number_scheduled: i64,
}

/// What a job wants.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct JobSpec {
    /// Pods at once.
    pub parallelism: Option<i64>,
    /// Successes wanted.
    pub completions: Option<i64>,
    /// Failures until it gives up; 6 unless told.
    pub backoff_limit: Option<i64>,
    /// Seconds it may take.
    pub active_deadline_seconds: Option<i64>,
    /// Held.
    pub suspend: bool,
    /// How its pods are made.
    pub template: PodTemplate,
}

/// The status of a job.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct JobStatus {
    /// Running pods.
    pub active: i64,
    /// Ended well.
    pub succeeded: i64,
    /// Ended with an error.
    pub failed: i64,
    /// When it began.
    pub start_time: Option<Timestamp>,
    /// When it was done.
    pub completion_time: Option<Timestamp>,
    /// `Complete`, `Failed`, `Suspended`.
    pub conditions: Many<Condition>,
}

/// What a cron job wants.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct CronJobSpec {
    /// Five fields or `@daily` …
    pub schedule: String,
    /// Zone of the schedule.
    pub time_zone: Option<String>,
    /// Held.
    pub suspend: bool,
    /// `Allow` (also when empty), `Forbid`, `Replace`.
    pub concurrency_policy: String,
    /// Seconds by which a run may be late.
    pub starting_deadline_seconds: Option<i64>,
    /// The job that it makes.
    pub job_template: JobTemplate,
}

/// The job that a cron job makes.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default)]
pub struct JobTemplate {
    /// What it wants.
    pub spec: JobSpec,
}

/// The status of a cron job.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct CronJobStatus {
    /// Running jobs.
    pub active: Many<super::pod::LocalRef>,
    /// Last start.
    pub last_schedule_time: Option<Timestamp>,
    /// Last good end.
    pub last_successful_time: Option<Timestamp>,
}

/// What an autoscaler wants.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct HpaSpec {
    /// What it scales.
    pub scale_target_ref: TargetRef,
    /// At least; 1 when absent.
    pub min_replicas: Option<i64>,
    /// At most.
    pub max_replicas: i64,
    /// What it scales by.
    pub metrics: Many<MetricSpec>,
}

/// A reference to an object of any kind in the same namespace.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct TargetRef {
    /// Group and version.
    pub api_version: String,
    /// Kind.
    pub kind: String,
    /// Name.
    pub name: String,
}

/// One metric that is scaled by.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct MetricSpec {
    /// `Resource`, `ContainerResource`, `Pods`, `Object`, `External`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Of `Resource`.
    pub resource: Option<ResourceMetric>,
    /// Of `ContainerResource`.
    pub container_resource: Option<ResourceMetric>,
}

/// A metric of a resource, as wanted or as seen.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ResourceMetric {
    /// `cpu`, `memory`.
    pub name: String,
    /// Container, where it is of one.
    pub container: String,
    /// What is wanted.
    pub target: MetricValue,
    /// What is seen.
    pub current: MetricValue,
}

/// A value of a metric.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct MetricValue {
    /// `Utilization`, `AverageValue`, `Value`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Percent of the requests.
    pub average_utilization: Option<i64>,
    /// Mean per pod.
    pub average_value: Option<Quantity>,
    /// The value.
    pub value: Option<Quantity>,
}

/// The status of an autoscaler.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct HpaStatus {
    /// Pods there are.
    pub current_replicas: i64,
    /// Pods it wants.
    pub desired_replicas: i64,
    /// When it last scaled.
    pub last_scale_time: Option<Timestamp>,
    /// What it sees.
    pub current_metrics: Many<MetricSpec>,
    /// `AbleToScale`, `ScalingActive`, `ScalingLimited`.
    pub conditions: Many<Condition>,
}

/// What a disruption budget wants.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct PdbSpec {
    /// Pods that must stay.
    pub min_available: Option<IntOrString>,
    /// Pods that may go.
    pub max_unavailable: Option<IntOrString>,
    /// Which pods; absent selects none, empty selects all.
    pub selector: Option<LabelSelector>,
}

/// The status of a disruption budget.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct PdbStatus {
    /// Generation that was acted on.
    pub observed_generation: i64,
    /// Evictions that are allowed now.
    pub disruptions_allowed: i64,
    /// Healthy pods.
    pub current_healthy: i64,
    /// Healthy pods that must stay.
    pub desired_healthy: i64,
    /// Pods it is about.
    pub expected_pods: i64,
    /// `DisruptionAllowed`.
    pub conditions: Many<Condition>,
}
