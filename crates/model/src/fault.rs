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
}

macro_rules! catalogue {
    ($($variant:ident $slug:literal $title:literal [$($kind:ident),*] $severity:ident [$($evidence:literal),*];)*) => {
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
