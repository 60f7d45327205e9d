//! Pods and the templates that make them.

use super::meta::{Amounts, Condition, IntOrString, LabelSelector, Labels, Many, Meta, Quantity, Requirement};
use super::value::Blob;
use nightshift_model::Timestamp;
use serde::Deserialize;
use std::collections::BTreeMap;

/// A pod.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default)]
pub struct Pod {
    /// Metadata.
    pub metadata: Meta,
    /// What is wanted.
    pub spec: PodSpec,
    /// What is.
    pub status: PodStatus,
}

/// What pods of a workload are made from.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default)]
pub struct PodTemplate {
    /// Labels and annotations of the pods.
    pub metadata: Meta,
    /// Their specification.
    pub spec: PodSpec,
}

/// The specification of a pod: what checks need of it.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct PodSpec {
    /// Containers.
    pub containers: Many<Container>,
    /// Init containers; those with restart policy `Always` are sidecars.
    pub init_containers: Many<Container>,
    /// Volumes.
    pub volumes: Many<Volume>,
    /// `Always`, `OnFailure`, `Never`.
    pub restart_policy: String,
    /// Node that it is bound to.
    pub node_name: String,
    /// Labels that its node must have.
    pub node_selector: Labels,
    /// Affinities.
    pub affinity: Option<Affinity>,
    /// Tolerations.
    pub tolerations: Many<Toleration>,
    /// Spread constraints.
    pub topology_spread_constraints: Many<SpreadConstraint>,
    /// Service account.
    pub service_account_name: String,
    /// Whether its token is mounted.
    pub automount_service_account_token: Option<bool>,
    /// Names of pull secrets.
    pub image_pull_secrets: Many<LocalRef>,
    /// `ClusterFirst`, `Default` …
    pub dns_policy: String,
    /// Own DNS settings.
    pub dns_config: Option<DnsConfig>,
    /// Whether it uses the node's network.
    pub host_network: bool,
    /// Class of its priority.
    pub priority_class_name: String,
    /// Its priority.
    pub priority: Option<i64>,
    /// Gates that hold its scheduling.
    pub scheduling_gates: Many<LocalRef>,
    /// Scheduler.
    pub scheduler_name: String,
    /// Runtime class.
    pub runtime_class_name: String,
    /// Hostname, with `subdomain` its name within a headless service.
    pub hostname: String,
    /// Headless service that it is under.
    pub subdomain: String,
    /// Seconds it gets to end; 30 unless told.
    pub termination_grace_period_seconds: Option<i64>,
    /// Security of all its containers.
    pub security_context: Option<SecurityContext>,
    /// Seconds it may run.
    pub active_deadline_seconds: Option<i64>,
}

/// A reference by name within the namespace.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default)]
pub struct LocalRef {
    /// Name.
    pub name: String,
}

/// A pod's own DNS settings.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default)]
pub struct DnsConfig {
    /// Servers.
    pub nameservers: Many<String>,
    /// Search domains.
    pub searches: Many<String>,
}

/// A container as wanted.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Container {
    /// Name.
    pub name: String,
    /// Image with tag or digest.
    pub image: String,
    /// `Always`, `IfNotPresent`, `Never`.
    pub image_pull_policy: String,
    /// Of an init container: `Always` makes it a sidecar.
    pub restart_policy: String,
    /// The program, without its arguments, which may hold secrets.
    #[serde(deserialize_with = "super::value::first_word")]
    pub command: Option<String>,
    /// Variables.
    pub env: Many<EnvVar>,
    /// Variables from whole config maps or secrets.
    pub env_from: Many<EnvFrom>,
    /// Ports.
    pub ports: Many<ContainerPort>,
    /// Requests and limits.
    pub resources: Resources,
    /// Kills when it fails.
    pub liveness_probe: Option<Probe>,
    /// Takes out of services when it fails.
    pub readiness_probe: Option<Probe>,
    /// Holds the other two back until it succeeds.
    pub startup_probe: Option<Probe>,
    /// Mounts.
    pub volume_mounts: Many<VolumeMount>,
    /// Security.
    pub security_context: Option<SecurityContext>,
}

impl Container {
    /// Whether it is an init container that keeps running.
    pub fn is_sidecar(&self) -> bool {
        self.restart_policy == "Always"
    }
}

/// A variable. Its value is not kept, only what it refers to.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct EnvVar {
    /// Name.
    pub name: String,
    /// Of a literal value: its size, hash and the host it names, if it does.
    pub value: Option<Blob>,
    /// Where else the value comes from.
    pub value_from: Option<ValueFrom>,
}

/// Where a variable's value comes from.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ValueFrom {
    /// A key of a config map.
    pub config_map_key_ref: Option<KeyRef>,
    /// A key of a secret.
    pub secret_key_ref: Option<KeyRef>,
}

/// A key of a config map or secret.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default)]
pub struct KeyRef {
    /// Name of the object.
    pub name: String,
    /// Key.
    pub key: String,
    /// Whether it may be missing.
    pub optional: bool,
}

/// All keys of a config map or secret as variables.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct EnvFrom {
    /// Put before each key.
    pub prefix: String,
    /// The config map.
    pub config_map_ref: Option<KeyRef>,
    /// The secret.
    pub secret_ref: Option<KeyRef>,
}

/// A port of a container.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ContainerPort {
    /// Name.
    pub name: String,
    /// Number.
    pub container_port: i64,
    /// `TCP` (also when empty), `UDP`, `SCTP`.
    pub protocol: String,
    /// On the node.
    pub host_port: i64,
}

/// Requests and limits.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default)]
pub struct Resources {
    /// At least.
    pub requests: Amounts,
    /// At most.
    pub limits: Amounts,
}

/// A probe.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Probe {
    /// By HTTP.
    pub http_get: Option<ProbeTarget>,
    /// By a connection.
    pub tcp_socket: Option<ProbeTarget>,
    /// By gRPC.
    pub grpc: Option<ProbeTarget>,
    /// By a program; what it is stays unread.
    pub exec: Option<serde::de::IgnoredAny>,
    /// Seconds before the first.
    pub initial_delay_seconds: Option<i64>,
    /// Seconds between two; 10 unless told.
    pub period_seconds: Option<i64>,
    /// Seconds for an answer; 1 unless told.
    pub timeout_seconds: Option<i64>,
    /// Failures in a row until it counts; 3 unless told.
    pub failure_threshold: Option<i64>,
}

/// Where a probe knocks.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default)]
pub struct ProbeTarget {
    /// Path.
    pub path: String,
    /// Port.
    pub port: Option<IntOrString>,
}

/// A volume.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Volume {
    /// Name.
    pub name: String,
    /// From a config map.
    pub config_map: Option<KeyItems>,
    /// From a secret.
    pub secret: Option<KeyItems>,
    /// From several.
    pub projected: Option<Projected>,
    /// A claim.
    pub persistent_volume_claim: Option<ClaimRef>,
    /// An empty folder.
    pub empty_dir: Option<EmptyDir>,
    /// A claim of its own.
    pub ephemeral: Option<serde::de::IgnoredAny>,
    /// A folder of the node.
    pub host_path: Option<serde::de::IgnoredAny>,
}

/// A config map or secret as files.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct KeyItems {
    /// Name (of a config map, and within projected volumes).
    pub name: String,
    /// Name (of a secret as a volume of its own).
    pub secret_name: String,
    /// These keys only.
    pub items: Many<KeyRef>,
    /// Whether it may be missing.
    pub optional: bool,
}

/// Several sources in one volume.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default)]
pub struct Projected {
    /// They.
    pub sources: Many<ProjectedSource>,
}

/// One of them.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ProjectedSource {
    /// A config map.
    pub config_map: Option<KeyItems>,
    /// A secret.
    pub secret: Option<KeyItems>,
}

/// A claim by name.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ClaimRef {
    /// Name.
    pub claim_name: String,
}

/// An empty folder.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct EmptyDir {
    /// `Memory` or empty.
    pub medium: String,
    /// At most so many bytes.
    pub size_limit: Option<Quantity>,
}

/// A mount.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct VolumeMount {
    /// Volume.
    pub name: String,
    /// Path.
    pub mount_path: String,
    /// One file or folder of it, which is not renewed when the source changes.
    pub sub_path: String,
    /// Whether it is read-only.
    pub read_only: bool,
}

/// Security of a pod or container.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct SecurityContext {
    /// All of the node's rights.
    pub privileged: Option<bool>,
    /// Refuses root.
    pub run_as_non_root: Option<bool>,
    /// User.
    pub run_as_user: Option<i64>,
    /// Whether the image's files are read-only.
    pub read_only_root_filesystem: Option<bool>,
    /// Whether it may gain rights.
    pub allow_privilege_escalation: Option<bool>,
}

/// Affinities.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Affinity {
    /// To nodes.
    pub node_affinity: Option<NodeAffinity>,
    /// To pods.
    pub pod_affinity: Option<PodAffinity>,
    /// Away from pods.
    pub pod_anti_affinity: Option<PodAffinity>,
}

/// Affinity to nodes: what is required.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct NodeAffinity {
    /// One of its terms must hold. Volumes call the same `required`.
    #[serde(alias = "required")]
    pub required_during_scheduling_ignored_during_execution: Option<NodeTerms>,
}

/// Terms, of which one must hold.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct NodeTerms {
    /// They.
    pub node_selector_terms: Many<NodeTerm>,
}

/// One term: all of it must hold.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct NodeTerm {
    /// On labels.
    pub match_expressions: Many<Requirement>,
    /// On fields (`metadata.name`).
    pub match_fields: Many<Requirement>,
}

/// Affinity to or away from pods: what is required.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct PodAffinity {
    /// All must hold.
    pub required_during_scheduling_ignored_during_execution: Many<PodAffinityTerm>,
}

/// One term.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct PodAffinityTerm {
    /// Pods it is about.
    pub label_selector: Option<LabelSelector>,
    /// In these namespaces (the pod's own when empty).
    pub namespaces: Many<String>,
    /// Label of nodes that makes them one place.
    pub topology_key: String,
}

/// A toleration.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Toleration {
    /// Of this taint; all when empty.
    pub key: String,
    /// `Exists` or `Equal` (also when empty).
    pub operator: String,
    /// Value.
    pub value: String,
    /// `NoSchedule` …; all when empty.
    pub effect: String,
}

/// A spread constraint.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct SpreadConstraint {
    /// Largest difference between two places.
    pub max_skew: i64,
    /// Label of nodes that makes them one place.
    pub topology_key: String,
    /// `DoNotSchedule` (also when empty) or `ScheduleAnyway`.
    pub when_unsatisfiable: String,
    /// Pods that are counted.
    pub label_selector: Option<LabelSelector>,
}

/// The status of a pod.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct PodStatus {
    /// `Pending`, `Running`, `Succeeded`, `Failed`, `Unknown`.
    pub phase: String,
    /// One word (`Evicted`).
    pub reason: String,
    /// For people.
    pub message: String,
    /// Conditions.
    pub conditions: Many<Condition>,
    /// When its node took it on.
    pub start_time: Option<Timestamp>,
    /// Of containers.
    pub container_statuses: Many<ContainerStatus>,
    /// Of init containers.
    pub init_container_statuses: Many<ContainerStatus>,
    /// Its address.
    #[serde(rename = "podIP")]
    pub pod_ip: String,
    /// Node on which room is being made for it.
    pub nominated_node_name: String,
}

/// The status of a container.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ContainerStatus {
    /// Name.
    pub name: String,
    /// Whether it takes traffic.
    pub ready: bool,
    /// Whether it has started.
    pub started: Option<bool>,
    /// Restarts.
    pub restart_count: i64,
    /// Image that runs.
    pub image: String,
    /// Now.
    pub state: ContainerState,
    /// Before the last restart.
    pub last_state: ContainerState,
}

/// One of three; all absent means waiting.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default)]
pub struct ContainerState {
    /// It waits.
    pub waiting: Option<Waiting>,
    /// It runs.
    pub running: Option<Running>,
    /// It ended.
    pub terminated: Option<Terminated>,
}

/// Why a container waits.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default)]
pub struct Waiting {
    /// `CrashLoopBackOff`, `ImagePullBackOff`, `ContainerCreating` …
    pub reason: String,
    /// For people.
    pub message: String,
}

/// Since when a container runs.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Running {
    /// Since.
    pub started_at: Option<Timestamp>,
}

/// How a container ended.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Terminated {
    /// `Completed`, `Error`, `OOMKilled`, `ContainerCannotRun` …
    pub reason: String,
    /// Its last words, where it wrote them.
    pub message: String,
    /// Exit code.
    pub exit_code: i64,
    /// Signal, 0 when none.
    pub signal: i64,
    /// From.
    pub started_at: Option<Timestamp>,
    /// Until.
    pub finished_at: Option<Timestamp>,
}

/// Extra facts of a container that no object holds, by (namespace, pod, container).
pub type ByContainer<T> = BTreeMap<(String, String, String), T>;
