//! The one catalogue of fault classes. Slugs are added, never renamed.

use crate::{EntityKind, Severity};
use serde::{Deserialize, Serialize};

/// One row of the catalogue.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct FaultInfo {
    /// Stable name.
    pub slug: &'static str,
    /// For people.
    pub title: &'static str,
    /// Kinds of entity that it can hit.
    pub kinds: &'static [EntityKind],
    /// Severity when nothing else is known.
    pub severity: Severity,
    /// Evidence without which it is not claimed: names of signal families or events.
    pub evidence: &'static [&'static str],
    /// What keeps it from coming back, where the catalogue says so; else empty.
    pub prevention: &'static str,
}

macro_rules! catalogue {
    ($($variant:ident $slug:literal $title:literal [$($kind:ident),*] $severity:ident [$($evidence:literal),*] $(=> $prevention:literal)?;)*) => {
        /// What is wrong, as a slug of the one catalogue.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, schemars::JsonSchema)]
        pub enum FaultClass {
            $(#[doc = $title] #[serde(rename = $slug)] $variant,)*
        }

        impl FaultClass {
            /// Every class, in the order of the catalogue.
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            /// Its row.
            pub const fn info(self) -> &'static FaultInfo {
                match self {
                    $(Self::$variant => &FaultInfo {
                        slug: $slug,
                        title: $title,
                        kinds: &[$(EntityKind::$kind),*],
                        severity: Severity::$severity,
                        evidence: &[$($evidence),*],
                        prevention: concat!($($prevention)?),
                    },)*
                }
            }
        }
    };
}

catalogue! {
    LatencySpike "latency_spike" "Latency spike" [Service, Workload, Database] High ["latency"];
    ErrorRateSpike "error_rate_spike" "Error rate spike" [Service, Workload] Critical ["error_ratio"];
    CpuSaturation "cpu_saturation" "CPU saturation" [Service, Workload, Pod, Node, Host, Database] High ["cpu"];
    MemoryLeak "memory_leak" "Memory leak" [Service, Workload, Pod, Host] High ["memory", "trend"];
    DbConnectionExhaustion "db_connection_exhaustion" "Database connections exhausted" [Service, Workload, Database] Critical ["db_connections"];
    KafkaConsumerLag "kafka_consumer_lag" "Kafka consumer lag" [Service, Workload, Topic] High ["consumer_lag"];
    DeploymentFailure "deployment_failure" "Bad deployment" [Service, Workload] Critical ["change", "error_ratio"];
    CascadeFailure "cascade_failure" "Cascading failure" [Service, Workload] Critical ["error_ratio", "dependency"];
    DependencyOutage "dependency_outage" "A dependency is down" [Service, Workload, Database, CloudResource] Critical ["dependency"];
    TrafficSurge "traffic_surge" "Traffic surge" [Service, Workload] Medium ["request_rate"];
    BadConfig "bad_config" "Bad configuration" [Service, Workload] High ["change"];
    OomKill "oom_kill" "Killed for lack of memory" [Workload, Pod, Host] High ["oom_event"];
    CrashLoop "crash_loop" "Crash loop" [Workload, Pod] High ["restarts"];
    ImagePullFailure "image_pull_failure" "Image cannot be pulled" [Workload, Pod] High ["pull_event"];
    PolicyViolation "policy_violation" "Policy violation" [Workload, Pod, Other] Medium ["policy_event"];
    CostSpike "cost_spike" "Cost spike" [Service, Workload, CloudResource] Medium ["cost"];
    DiskFull "disk_full" "Disk filling up" [Host, Node, Database, Workload] High ["disk"];
    CertificateExpiry "certificate_expiry" "Certificate expires" [Service, Workload, Other] High ["certificate"];
    DnsFailure "dns_failure" "Name resolution fails" [Service, Workload, Host] Critical ["dns_error"];
    NodeNotReady "node_not_ready" "Node not ready" [Node, Host] Critical ["node_condition"];
    QuotaExhausted "quota_exhausted" "Quota exhausted" [Workload, CloudResource, Other] High ["quota_event"];
    LockContention "lock_contention" "Lock contention" [Service, Database] High ["lock_wait"];
    RetryStorm "retry_storm" "Retry storm" [Service, Workload] Critical ["request_rate", "error_ratio"];
    NoisyNeighbour "noisy_neighbour" "Noisy neighbour" [Host, Node, Workload] Medium ["cpu_steal"];
    CacheStampede "cache_stampede" "Cache stampede" [Service, Workload, Database] High ["cache_miss"];
    PartialReplicaFailure "partial_replica_failure" "Some replicas fail" [Workload, Service] High ["replica_error"];
    MisroutedTraffic "misrouted_traffic" "Misrouted traffic" [Service, Workload] High ["request_rate", "change"];
    SloBurn "slo_burn" "Error budget burns" [Service, Workload] High ["slo"];
    CriticalLog "critical_log" "Critical log line" [Service, Workload, Pod, Host, Database, Other] High ["log"];
    MemorySaturation "memory_saturation" "Memory saturation" [Service, Workload, Pod, Node, Host, Database] High ["memory"];
    DiskSaturation "disk_saturation" "Disk saturated" [Host, Node, Database] Medium ["disk_io"];
    NetworkSaturation "network_saturation" "Network saturated or lossy" [Host, Node, Service] Medium ["network"];
    TrafficLoss "traffic_loss" "Traffic fell away" [Service, Workload] High ["request_rate"];
    TelemetryMissing "telemetry_missing" "Telemetry stopped" [Service, Workload, Pod, Node, Host, Database, Topic, CloudResource, Other] Medium ["absence"];
    ProcessFailure "process_failure" "Process failed" [Host, Service, Workload] High ["log"];
    // What Kubernetes' own objects, events, logs and metrics show.
    Unschedulable "unschedulable" "No node has room" [Workload, Pod] High ["pod_condition"] => "Size requests by use, and let the cluster add nodes before it is full";
    AffinityUnmet "affinity_unmet" "No node has the labels asked for" [Workload, Pod] High ["pod_condition"] => "Test node selectors against the labels of the nodes before they are merged";
    AntiAffinityDeadlock "anti_affinity_deadlock" "Anti-affinity leaves no node" [Workload, Pod] High ["pod_condition"] => "Prefer anti-affinity where replicas can outnumber nodes";
    UntoleratedTaint "untolerated_taint" "Every node is tainted for it" [Workload, Pod] High ["pod_condition"] => "Keep taints and tolerations in one place, and review them together";
    MissingNode "missing_node" "Assigned to a node that does not exist" [Workload, Pod] High ["pod_spec"] => "Never write a node's name into a pod: use labels";
    VolumeZoneConflict "volume_zone_conflict" "Its volume is where it cannot run" [Workload, Pod, Other] High ["pod_condition"] => "Bind volumes late, when the pod's zone is known";
    TopologySpreadImpossible "topology_spread_impossible" "Spread constraints cannot be met" [Workload, Pod] High ["pod_condition"] => "Let spread constraints schedule anyway, or make sure each zone has nodes";
    Preempted "preempted" "Pushed out by a higher priority" [Workload, Pod] High ["preemption_event"] => "Give priorities by a rule, and keep room for the lowest";
    SchedulingGated "scheduling_gated" "Held by a scheduling gate" [Workload, Pod] Medium ["pod_condition"] => "Watch the controller that lifts scheduling gates";
    SandboxFailure "sandbox_failure" "The pod's sandbox cannot be made" [Workload, Pod, Node] High ["sandbox_event"] => "Alert on failing sandboxes by node, and test network plugin upgrades on one node";
    VolumeMountFailure "volume_mount_failure" "A volume cannot be attached or mounted" [Workload, Pod, Other] High ["mount_event"] => "Alert on volumes that stay attached to a node that lost its pod";
    MissingConfigMap "missing_config_map" "A ConfigMap is missing" [Workload, Pod, Other] High ["pod_spec"] => "Ship configuration with what reads it, in one release";
    MissingSecret "missing_secret" "A Secret is missing" [Workload, Pod, Other] High ["pod_spec"] => "Check that secrets exist before a release is rolled out";
    MissingConfigKey "missing_config_key" "A key of a ConfigMap or Secret is missing" [Workload, Pod, Other] High ["pod_spec"] => "Check the keys that a workload reads against what its configuration holds";
    MissingServiceAccount "missing_service_account" "A service account is missing" [Workload, Pod, Other] High ["create_event"] => "Create service accounts with the workloads that use them";
    IpExhaustion "ip_exhaustion" "No pod addresses are left" [Workload, Pod, Node] Critical ["sandbox_event"] => "Alert on the share of pod addresses that is used";
    ImageArchitecture "image_architecture" "The image is for another processor" [Workload, Pod] High ["exit_code"] => "Build images for every architecture that the nodes have";
    SlowImagePull "slow_image_pull" "An image is slow to pull" [Workload, Pod, Node] Low ["pull_event"] => "Make the image smaller, or pull it before it is needed";
    ContainerStartFailure "container_start_failure" "A container cannot start" [Workload, Pod] High ["container_state"] => "Run the image once with its real command and user before release";
    ContainerConfigError "container_config_error" "A container's configuration is refused" [Workload, Pod] High ["container_state"] => "Validate pod specifications against the cluster in CI";
    MemoryNearLimit "memory_near_limit" "Memory is close to its limit" [Workload, Pod] Medium ["memory"] => "Set limits from measured peaks with headroom";
    CpuThrottling "cpu_throttling" "CPU is throttled" [Workload, Pod] Medium ["cpu"] => "Set CPU limits from measured peaks, or none";
    RestartsClimbing "restarts_climbing" "Restarts climb while it looks ready" [Workload, Pod] Medium ["restarts"] => "Alert on restarts, not only on readiness";
    InitContainerFailure "init_container_failure" "An init container fails or hangs" [Workload, Pod] High ["container_state"] => "Give init containers a deadline and a clear last line";
    SidecarBlocksJob "sidecar_blocks_job" "A sidecar keeps a job from ending" [Workload, Pod] Medium ["container_state"] => "Run sidecars of jobs as restartable init containers";
    PortConflict "port_conflict" "Two containers want one port" [Workload, Pod] High ["pod_spec"] => "Check ports of the containers of a pod when it is admitted";
    ReadinessProbeFailure "readiness_probe_failure" "The readiness probe fails" [Workload, Pod, Service] High ["probe"] => "Test probes against the container before release";
    LivenessProbeFailure "liveness_probe_failure" "The liveness probe kills it" [Workload, Pod] High ["probe"] => "Let liveness fail only where a restart helps, and give slow starters a startup probe";
    StartupProbeFailure "startup_probe_failure" "It is killed before it has started" [Workload, Pod] High ["probe"] => "Set the startup probe from the slowest start that was measured";
    StuckTerminating "stuck_terminating" "It does not finish terminating" [Workload, Pod, Other] Medium ["deletion"] => "Alert on finalizers whose controller is gone";
    Evicted "evicted" "Evicted by its node" [Workload, Pod] High ["eviction_event"] => "Request the memory and disk that is used, so that nodes are not overcommitted";
    PodFailed "pod_failed" "A pod ended with an error" [Workload, Pod] High ["pod_phase"] => "Run what must keep running under a controller";
    DnsPolicyBroken "dns_policy_broken" "Its DNS policy cannot resolve cluster names" [Workload, Pod] Medium ["pod_spec"] => "Use ClusterFirstWithHostNet with the host's network";
    SharedMemoryExhausted "shared_memory_exhausted" "Shared memory is exhausted" [Workload, Pod] High ["log"] => "Mount a memory volume at /dev/shm of the size that is needed";
    FileDescriptorsExhausted "file_descriptors_exhausted" "File descriptors are exhausted" [Workload, Pod, Node] High ["log"] => "Watch open files, and close what is opened";
    ReplicasUnavailable "replicas_unavailable" "Fewer replicas are ready than wanted" [Workload] High ["workload_status"] => "Alert on availability by workload, with its reason";
    RolloutStuck "rollout_stuck" "A rollout does not progress" [Workload] High ["workload_status"] => "Let the pipeline wait for the rollout and take it back by itself";
    StatusBehindSpec "status_behind_spec" "Nobody acts on its newest specification" [Workload] Medium ["workload_status"] => "Watch the controllers that act on workloads";
    ScaledToZero "scaled_to_zero" "Scaled to zero while it is used" [Workload, Service] High ["workload_spec"] => "Guard the replicas of what others call against zero";
    StrategyDeadlock "strategy_deadlock" "The update strategy can never progress" [Workload] Medium ["workload_spec"] => "Check surge and unavailability against the replicas in CI";
    RolloutPaused "rollout_paused" "A rollout is paused and forgotten" [Workload] Low ["workload_spec"] => "Remind whoever paused a rollout after a day";
    SelectorDrift "selector_drift" "Selector and template no longer agree" [Workload, Service] High ["workload_spec"] => "Make labels of template and selector from one value";
    ReplicaCreateFailure "replica_create_failure" "Pods cannot be created" [Workload] High ["create_event"] => "Try a release in a namespace with the same admission rules";
    HeadlessServiceMissing "headless_service_missing" "The stateful set's service is missing" [Workload] High ["workload_spec"] => "Ship the headless service with its stateful set";
    StorageClassMissing "storage_class_missing" "The storage class does not exist" [Workload, Other] High ["claim_spec"] => "Check storage classes against the cluster before release";
    OrderedStartBlocked "ordered_start_blocked" "An early replica blocks the later ones" [Workload] High ["workload_status"] => "Start replicas in parallel where order does not matter";
    PartitionForgotten "partition_forgotten" "An update partition was left behind" [Workload] Medium ["workload_spec"] => "Take the partition away as the last step of the rollout";
    ClaimMismatch "claim_mismatch" "Claims do not match the stateful set" [Workload, Other] Medium ["claim_spec"] => "Keep claim templates and claims in step when sizes or classes change";
    DaemonSetIncomplete "daemon_set_incomplete" "Not on every node that wants it" [Workload] Medium ["workload_status"] => "Let node agents tolerate the taints of every node they belong on";
    PullSecretMissing "pull_secret_missing" "An image pull secret is missing" [Workload, Pod, Other] High ["pod_spec"] => "Copy pull secrets into each namespace by a controller";
    JobFailed "job_failed" "A job failed" [Workload] High ["job_status"] => "Make jobs safe to repeat, and alert on the last try";
    JobSuspended "job_suspended" "A job is suspended" [Workload] Low ["workload_spec"] => "Write down until when a job is suspended";
    CronScheduleInvalid "cron_schedule_invalid" "A schedule is invalid or never comes" [Workload] High ["workload_spec"] => "Print the next five runs of a schedule in review";
    CronSuspended "cron_suspended" "A cron job is suspended" [Workload] Low ["workload_spec"] => "Write down until when a cron job is suspended";
    CronMissedRuns "cron_missed_runs" "Scheduled runs were missed" [Workload] Medium ["job_status"] => "Alert on the age of the last success of a cron job";
    CronNeverFinishes "cron_never_finishes" "Runs overlap or never finish" [Workload] Medium ["job_status"] => "Give jobs a deadline shorter than their interval";
    HpaAtMaximum "hpa_at_maximum" "The autoscaler is at its maximum and short" [Workload, Other] High ["hpa_status"] => "Alert when an autoscaler comes near its maximum";
    HpaMetricsMissing "hpa_metrics_missing" "The autoscaler has no metrics" [Workload, Other] High ["hpa_status"] => "Watch the metrics pipeline as part of scaling";
    HpaTargetMissing "hpa_target_missing" "The autoscaler's target is missing or cannot scale" [Workload, Other] High ["hpa_spec"] => "Ship the autoscaler with what it scales";
    HpaNoRequests "hpa_no_requests" "The autoscaler has no requests to compute on" [Workload, Other] High ["hpa_spec"] => "Demand requests from everything that scales by use";
    HpaMisconfigured "hpa_misconfigured" "The autoscaler's thresholds make no sense" [Workload, Other] Medium ["hpa_spec"] => "Derive targets of autoscalers from a load test";
    HpaFlapping "hpa_flapping" "The autoscaler flaps" [Workload, Other] Medium ["history"] => "Set a stabilisation window from how long a replica takes to start";
    PdbBlocksEvictions "pdb_blocks_evictions" "A disruption budget blocks every eviction" [Workload, Other] Medium ["pdb_status"] => "Let budgets allow one disruption at least";
    PdbSelectsNothing "pdb_selects_nothing" "A disruption budget selects nothing" [Other] Low ["pdb_status"] => "Make a budget's selector from the labels of its workload";
    WorkloadAdvice "workload_advice" "A workload could be safer" [Workload, Pod] Low ["pod_spec"] => "Set secure defaults in the template that teams start from";
    ServiceNoEndpoints "service_no_endpoints" "A service has no endpoints" [Service, Workload] High ["selector"] => "Make a service's selector and the pods' labels from one value";
    EndpointsNotReady "endpoints_not_ready" "No endpoint of a service is ready" [Service] High ["endpoints"] => "Alert on services without ready endpoints";
    ServicePortMismatch "service_port_mismatch" "A service's port reaches no container" [Service] High ["service_spec"] => "Name ports, and refer to them by name";
    ServiceMissing "service_missing" "A service that others name does not exist" [Service, Workload, Other] High ["reference"] => "Check references to services before one is deleted";
    SelectorOverlap "selector_overlap" "A service selects another application's pods" [Service] High ["selector"] => "Select by the application's own name, never by a shared label alone";
    LocalTrafficPolicy "local_traffic_policy" "Local traffic policy without a local endpoint" [Service] Medium ["endpoints"] => "Use local traffic policies only for what runs on every node";
    ExternalNameUnresolved "external_name_unresolved" "An external name does not resolve" [Service] High ["log"] => "Watch external names from within the cluster";
    IngressClassMissing "ingress_class_missing" "No or unknown ingress class" [Other] High ["ingress_spec"] => "Set a default ingress class, and check names against it";
    IngressBackendMissing "ingress_backend_missing" "An ingress names a backend that does not exist" [Service, Other] High ["ingress_spec"] => "Check backends of routes in CI";
    TlsSecretInvalid "tls_secret_invalid" "A TLS secret is missing, broken or for another host" [Service, Other] High ["certificate"] => "Let a controller issue certificates for the hosts of each route";
    IngressConflict "ingress_conflict" "Two ingresses claim one host and path" [Other] Medium ["ingress_spec"] => "Give each host one owner";
    GatewayNotAccepted "gateway_not_accepted" "A gateway or its class is not accepted" [Other] High ["gateway_status"] => "Watch the conditions of gateways";
    RouteBroken "route_broken" "A route's parent or backend is missing or refused" [Service, Other] High ["route_status"] => "Check routes against gateways and services in CI";
    NetworkPolicySelectsNothing "network_policy_selects_nothing" "A network policy selects no pod" [Other] Low ["policy_spec"] => "Test network policies against the labels in use";
    NetworkPolicyBlocks "network_policy_blocks" "A network policy blocks a dependency" [Service, Workload, Other] High ["change", "policy_spec"] => "Try a network policy in a mode that only logs first";
    NetworkPolicyAllowsAll "network_policy_allows_all" "A network policy allows everything" [Other] Medium ["policy_spec"] => "Refuse rules without peers and ports in review";
    ClusterDnsBroken "cluster_dns_broken" "Cluster DNS is broken" [Service, Workload, Other] Critical ["dns_error"] => "Probe cluster DNS from every node";
    WebhookBroken "webhook_broken" "An admission webhook cannot answer" [Service, Other] Critical ["webhook_spec"] => "Run webhooks twice, with a short timeout, and exempt what they need to start";
    ClaimPending "claim_pending" "A volume claim cannot be bound" [Workload, Other] High ["claim_status"] => "Watch the provisioner's errors";
    ClaimLost "claim_lost" "A claim lost its volume" [Workload, Other] Critical ["claim_status"] => "Keep volumes on release, and back them up";
    VolumeFailed "volume_failed" "A volume is released or failed" [Other] Medium ["volume_status"] => "Reclaim volumes by a rule";
    VolumeUnreachable "volume_unreachable" "No node can reach a volume" [Other] High ["volume_spec"] => "Keep a node in each zone that holds volumes";
    DefaultClassAmbiguous "default_class_ambiguous" "More than one default storage class" [Other] Medium ["class_spec"] => "Move the default mark in one change";
    VolumeMultiAttach "volume_multi_attach" "A volume is wanted on two nodes" [Workload, Other] High ["mount_event"] => "Use Recreate, or a stateful set, with volumes for one node";
    NodePressure "node_pressure" "A node is short of memory, disk or processes" [Node] High ["node_condition"] => "Reserve resources for the node, and request what is used";
    NodeNetworkUnavailable "node_network_unavailable" "A node's network is not set up" [Node] Critical ["node_condition"] => "Taint nodes until their network is ready";
    NodeCordoned "node_cordoned" "A node is cordoned and forgotten" [Node] Low ["node_spec"] => "Note who cordons a node, and until when";
    ClockSkew "clock_skew" "A clock is off" [Node, Host] Medium ["clock"] => "Alert on clock offset";
    ConntrackExhausted "conntrack_exhausted" "Connection tracking or ports are exhausted" [Node, Host] High ["network"] => "Size connection tracking by the connections at peak";
    KubeletRestarting "kubelet_restarting" "A kubelet keeps restarting" [Node] High ["node_event"] => "Alert on restarts of node agents";
    EvictionMisconfigured "eviction_misconfigured" "Eviction thresholds make no sense" [Node] Medium ["node_event"] => "Review kubelet settings with a node of the smallest size";
    TooManyPods "too_many_pods" "A node is at its pod limit" [Node] Medium ["node_status"] => "Set the pod limit by the node's size and addresses";
    VersionSkew "version_skew" "Versions are further apart than supported" [Node, Other] Medium ["node_status"] => "Upgrade nodes with the control plane";
    ApiServerOverload "api_server_overload" "The API server is overloaded" [Other] Critical ["metrics"] => "Give each client its own priority level";
    ApiServerFailing "api_server_failing" "The API server is slow or failing" [Other] Critical ["metrics"] => "Watch API latency and errors by verb";
    AggregatedApiDown "aggregated_api_down" "An aggregated API is down" [Service, Other] High ["api_status"] => "Remove API services with what served them";
    EtcdSpace "etcd_space" "etcd runs out of space" [Other] Critical ["metrics"] => "Compact and defragment, and alert on the size";
    LeaderElectionLost "leader_election_lost" "Leadership is lost again and again" [Workload, Other] High ["history"] => "Give controllers the CPU to renew their lease";
    QuotaBelowUse "quota_below_use" "A quota is below what runs" [Other] Medium ["quota_status"] => "Compare quotas with use before lowering them";
    LimitRangeRejects "limit_range_rejects" "A limit range rejects pods" [Workload, Other] High ["create_event"] => "Show limit ranges to those who write requests";
    RbacForbidden "rbac_forbidden" "A service account may not do what it needs" [Workload, Other] High ["event"] => "Test a release with the rights of its own account";
    RbacWildcard "rbac_wildcard" "A role grants everything" [Other] Low ["role_spec"] => "List verbs and resources in roles";
    PodSecurityRefused "pod_security_refused" "Pod security refuses its pods" [Workload, Other] High ["create_event"] => "Warn on pod security levels before they are enforced";
    CertificateSigningPending "certificate_signing_pending" "A certificate request waits for approval" [Node, Other] Medium ["csr_status"] => "Approve node certificates by a controller";
    ConfigTooLarge "config_too_large" "A ConfigMap or Secret is close to its size limit" [Other] Medium ["config_size"] => "Keep large files out of the API server";
    ConfigEmpty "config_empty" "A ConfigMap or Secret is empty" [Other] Medium ["config_size"] => "Validate generated configuration before it is applied";
    ConfigUnused "config_unused" "Configuration that nothing uses" [Other] Low ["reference"] => "Remove configuration with what used it";
    StaleConfig "stale_config" "Pods run with an old configuration" [Workload] Medium ["change"] => "Put a hash of the configuration into the pod template";
    EnvMissing "env_missing" "An environment variable is missing or shadowed" [Workload, Pod] High ["log"] => "Check required variables at start, and name the missing one";
    WrongEndpoint "wrong_endpoint" "A configured endpoint does not exist" [Workload, Service, Other] High ["reference"] => "Check endpoints in configuration against the services that exist";
    FlagFlipped "flag_flipped" "A feature flag was flipped before it began" [Service, Workload, Other] High ["change"] => "Roll flags out by share, and watch the first";
    GitopsOutOfSync "gitops_out_of_sync" "What runs is not what git says" [Workload, Service, Other] Medium ["sync_status"] => "Let drift be taken back by itself";
    GitopsDegraded "gitops_degraded" "A GitOps application is degraded" [Service, Other] High ["sync_status"] => "Let the application's health gate its promotion";
    GitopsSyncFailed "gitops_sync_failed" "A GitOps sync failed" [Service, Other] High ["sync_status"] => "Try manifests against the cluster before they are merged";
    HelmReleaseFailed "helm_release_failed" "A Helm release failed or hangs" [Service, Workload, Other] High ["release_status"] => "Upgrade atomically, with a timeout";
    ScalerBroken "scaler_broken" "An event-driven scaler is broken" [Workload, Other] High ["scaler_status"] => "Watch the conditions of scalers";
    OperatorUnhealthy "operator_unhealthy" "An operator's objects are not healthy" [Workload, Other] Medium ["operator_status"] => "Approve operator upgrades by a schedule";
    MonitoringBroken "monitoring_broken" "Monitoring is misconfigured" [Service, Workload, Other] Medium ["monitor_status"] => "Alert on targets that are missing, from another system";
    CertificateNotIssued "certificate_not_issued" "A certificate is not issued" [Service, Other] High ["certificate_status"] => "Watch issuers, and renew with weeks to spare";
    DatabasePrimaryLost "database_primary_lost" "A database has no primary" [Database, Workload] Critical ["database_status"] => "Practise the failover";
    ReplicationLag "replication_lag" "A replica lags" [Database, Workload] High ["database_status"] => "Alert on lag in seconds, not in bytes";
    MeshDenied "mesh_denied" "The mesh denies a caller" [Service, Workload, Other] High ["policy_spec"] => "Test authorization policies against the calls that are seen";
    MeshMissing "mesh_missing" "A namespace is left out of the mesh" [Workload, Other] Medium ["policy_spec"] => "Label namespaces for the mesh by a rule";
    MissingClaim "missing_claim" "A volume claim is missing" [Workload, Pod, Other] High ["pod_spec"] => "Ship claims with what mounts them, or let a stateful set make them";
    Unknown "unknown" "Unknown" [Service, Workload, Pod, Node, Host, Topic, Database, CloudResource, Other] Medium [];
}

impl FaultClass {
    /// Stable name.
    pub const fn slug(self) -> &'static str {
        self.info().slug
    }

    /// For people.
    pub const fn title(self) -> &'static str {
        self.info().title
    }
}

impl std::fmt::Display for FaultClass {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.slug())
    }
}

impl std::str::FromStr for FaultClass {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL
            .iter()
            .copied()
            .find(|f| f.slug() == text)
            .ok_or_else(|| format!("`{text}` is not a fault class; `nightshift faults` lists them"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The slugs that contracts fix; later rows are added after them.
    const FIXED: &str = "latency_spike error_rate_spike cpu_saturation memory_leak db_connection_exhaustion \
        kafka_consumer_lag deployment_failure cascade_failure dependency_outage traffic_surge bad_config oom_kill \
        crash_loop image_pull_failure policy_violation cost_spike disk_full certificate_expiry dns_failure \
        node_not_ready quota_exhausted lock_contention retry_storm noisy_neighbour cache_stampede \
        partial_replica_failure misrouted_traffic slo_burn critical_log unknown";

    #[test]
    fn no_slug_was_renamed_and_each_is_one() {
        for slug in FIXED.split_whitespace() {
            assert_eq!(slug.parse::<FaultClass>().map(FaultClass::slug), Ok(slug));
        }
        let mut slugs: Vec<_> = FaultClass::ALL.iter().map(|f| f.slug()).collect();
        slugs.sort_unstable();
        slugs.dedup();
        assert_eq!(slugs.len(), FaultClass::ALL.len());
        for fault in FaultClass::ALL {
            assert!(!fault.info().kinds.is_empty());
            assert_eq!(serde_json::to_value(fault).unwrap(), fault.slug());
        }
    }
}
