//! What a metric measures, by its name: the one table that detection and diagnosis share.
//!
//! A name says more than a curve does: `node_cpu_seconds_total{mode="idle"}` that falls and `system_cpu_percent` that
//! rises are one symptom, and a cached page that appears is none. The table covers node_exporter, Nightshift's own
//! host source (`system_*`), OpenTelemetry's semantic conventions, the `service_*` names of the contracts and the
//! usual exporters. It is ordered: the first rule that matches wins, so special names stand before general words.
//! A name that no rule knows has no family; that is an answer, not an error.

use crate::{Direction, FaultClass};
use serde::{Deserialize, Serialize};

/// What a signal measures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SignalFamily {
    /// Time on processors, load, scheduling.
    Cpu,
    /// Time that a hypervisor or a quota took away.
    CpuSteal,
    /// Memory, heap, collection pauses.
    Memory,
    /// Kills for lack of memory.
    Oom,
    /// Space on file systems.
    Disk,
    /// Reads, writes and waiting for them.
    DiskIo,
    /// Bytes, packets, errors and drops on the wire.
    Network,
    /// How long work takes.
    Latency,
    /// Share or rate of work that fails.
    ErrorRatio,
    /// Work that arrives.
    RequestRate,
    /// Connections to a database in use or waited for.
    DbConnections,
    /// Messages not yet consumed.
    ConsumerLag,
    /// Restarts of processes and containers.
    Restarts,
    /// Work that waits inside.
    Queue,
    /// Threads, goroutines, tasks.
    Threads,
    /// Open files and sockets.
    FileDescriptors,
    /// Heat and fans.
    Temperature,
    /// Whether it answers at all.
    Availability,
    /// Misses and evictions of caches.
    Cache,
    /// Waiting for locks.
    Locks,
    /// Life left of certificates.
    Certificate,
    /// Error budgets.
    Slo,
    /// Money.
    Cost,
    /// Calls that are tried again.
    Retries,
    /// Questions for names that fail.
    Dns,
    /// Requests that arrive where they do not belong.
    Misdirected,
    /// Replicas that a load balancer counts as unlike the others.
    Outliers,
    /// Replicas that are there and ready.
    Replicas,
}

/// Which way is bad for a signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Bad {
    /// Rising is bad.
    Up,
    /// Falling is bad.
    Down,
    /// Both are: a rate that surges or falls away.
    Both,
    /// Neither is, by itself: page cache, clock frequency, sizes.
    Neither,
}

impl Bad {
    /// Whether a departure this way is a symptom. [`Direction::Flat`] and [`Direction::None`] say nothing of the way
    /// and count as bad, unless no way is.
    pub const fn includes(self, way: Direction) -> bool {
        match self {
            Self::Neither => false,
            Self::Both => true,
            Self::Up => !matches!(way, Direction::Down),
            Self::Down => !matches!(way, Direction::Up),
        }
    }
}

/// What a metric's name (and labels) say of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Reading {
    /// What it measures.
    pub family: SignalFamily,
    /// Which way is bad.
    pub bad: Bad,
}

impl Reading {
    /// What a departure this way suggests; [`FaultClass::Unknown`] when it is no bad way or no class fits.
    pub const fn fault(self, way: Direction) -> FaultClass {
        if self.bad.includes(way) { self.family.fault(way, false) } else { FaultClass::Unknown }
    }

    /// The same for a steady trend towards a limit: memory that grows is a leak, not a peak.
    pub const fn trend_fault(self, way: Direction) -> FaultClass {
        if self.bad.includes(way) { self.family.fault(way, true) } else { FaultClass::Unknown }
    }
}

impl SignalFamily {
    /// Every family.
    pub const ALL: [Self; 28] = [
        Self::Cpu,
        Self::CpuSteal,
        Self::Memory,
        Self::Oom,
        Self::Disk,
        Self::DiskIo,
        Self::Network,
        Self::Latency,
        Self::ErrorRatio,
        Self::RequestRate,
        Self::DbConnections,
        Self::ConsumerLag,
        Self::Restarts,
        Self::Queue,
        Self::Threads,
        Self::FileDescriptors,
        Self::Temperature,
        Self::Availability,
        Self::Cache,
        Self::Locks,
        Self::Certificate,
        Self::Slo,
        Self::Cost,
        Self::Retries,
        Self::Dns,
        Self::Misdirected,
        Self::Outliers,
        Self::Replicas,
    ];

    /// Name as in JSON and in the catalogue's `evidence`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::CpuSteal => "cpu_steal",
            Self::Memory => "memory",
            Self::Oom => "oom",
            Self::Disk => "disk",
            Self::DiskIo => "disk_io",
            Self::Network => "network",
            Self::Latency => "latency",
            Self::ErrorRatio => "error_ratio",
            Self::RequestRate => "request_rate",
            Self::DbConnections => "db_connections",
            Self::ConsumerLag => "consumer_lag",
            Self::Restarts => "restarts",
            Self::Queue => "queue",
            Self::Threads => "threads",
            Self::FileDescriptors => "file_descriptors",
            Self::Temperature => "temperature",
            Self::Availability => "availability",
            Self::Cache => "cache",
            Self::Locks => "locks",
            Self::Certificate => "certificate",
            Self::Slo => "slo",
            Self::Cost => "cost",
            Self::Retries => "retries",
            Self::Dns => "dns",
            Self::Misdirected => "misdirected",
            Self::Outliers => "outliers",
            Self::Replicas => "replicas",
        }
    }

    /// What a bad departure of this family suggests. `trend`: it creeps towards a limit.
    pub const fn fault(self, way: Direction, trend: bool) -> FaultClass {
        match (self, way) {
            (_, Direction::Flat) => FaultClass::TelemetryMissing,
            (Self::Cpu, _) => FaultClass::CpuSaturation,
            (Self::CpuSteal, _) => FaultClass::NoisyNeighbour,
            (Self::Memory, _) if trend => FaultClass::MemoryLeak,
            (Self::Memory, _) => FaultClass::MemorySaturation,
            (Self::Oom, _) => FaultClass::OomKill,
            (Self::Disk, _) => FaultClass::DiskFull,
            (Self::DiskIo, _) => FaultClass::DiskSaturation,
            (Self::Network, _) => FaultClass::NetworkSaturation,
            (Self::Latency | Self::Queue, _) => FaultClass::LatencySpike,
            (Self::ErrorRatio, _) => FaultClass::ErrorRateSpike,
            (Self::RequestRate, Direction::Down) => FaultClass::TrafficLoss,
            (Self::RequestRate, _) => FaultClass::TrafficSurge,
            (Self::DbConnections, _) => FaultClass::DbConnectionExhaustion,
            (Self::ConsumerLag, _) => FaultClass::KafkaConsumerLag,
            (Self::Restarts, _) => FaultClass::CrashLoop,
            (Self::Availability, _) => FaultClass::DependencyOutage,
            (Self::Cache, _) => FaultClass::CacheStampede,
            (Self::Locks, _) => FaultClass::LockContention,
            (Self::Certificate, _) => FaultClass::CertificateExpiry,
            (Self::Slo, _) => FaultClass::SloBurn,
            (Self::Cost, _) => FaultClass::CostSpike,
            (Self::Dns, _) => FaultClass::DnsFailure,
            (Self::Misdirected, _) => FaultClass::MisroutedTraffic,
            (Self::Outliers, _) => FaultClass::PartialReplicaFailure,
            // Symptoms of many causes; the families beside them tell which.
            (Self::Threads | Self::FileDescriptors | Self::Temperature | Self::Retries | Self::Replicas, _) => {
                FaultClass::Unknown
            }
        }
    }
}

/// One row: all of `all` occur in the name, none of `none` does. Names are lower case, every separator is `_`, and one
/// stands at each end, so `_cpu_` is the whole word.
struct Rule {
    all: &'static [&'static str],
    none: &'static [&'static str],
    family: SignalFamily,
    bad: Bad,
}

macro_rules! rules {
    ($($family:ident $bad:ident [$($all:literal),+] $(- [$($none:literal),+])?;)*) => {
        &[$(Rule { all: &[$($all),+], none: &[$($($none),+)?], family: SignalFamily::$family, bad: Bad::$bad }),*]
    };
}

const RULES: &[Rule] = rules! {
    // Sizes, limits, settings and other facts that do not fail.
    Memory Neither ["_memory_", "_limit_"];
    Memory Neither ["_memory_", "_total_bytes_"];
    Memory Neither ["_memory_memtotal_"];
    Memory Neither ["_memory_swaptotal_"];
    Memory Neither ["_memory_total_"];
    Memory Neither ["_virtual_memory_"];
    Disk Neither ["_filesystem_size_"];
    Disk Neither ["_filesystem_files_"] - ["_free_"];
    Cpu Neither ["_cpu_", "_frequency_"];
    Cpu Neither ["_cpu_", "_hertz_"];
    Cpu Neither ["_cpu_", "_count_"];
    Cpu Neither ["_cpu_", "_limit_"];
    Cpu Neither ["_cpu_", "_info_"];

    // Whether a fault is found on the objects: read to verify, judged by who found it.
    Replicas Neither ["_kubernetes_fault_reach_"];
    Availability Neither ["_kubernetes_fault_"];

    // The end of things.
    Oom Up ["_oom_"];
    Oom Up ["_oomkill"];
    Certificate Down ["_cert_"];
    Certificate Down ["_certificate_"];
    Slo Up ["_error_budget_", "_burn"];
    Slo Down ["_error_budget_"];
    Slo Up ["_burn_rate_"];
    Cost Up ["_cost_"];
    Cost Up ["_spend_"];

    // Pressure stall information names the resource after the word.
    Cpu Up ["_pressure_", "_cpu_"];
    Memory Up ["_pressure_", "_memory_"];
    DiskIo Up ["_pressure_", "_io_"];

    // Database pools stand before connections and errors of every other sort.
    DbConnections Up ["_db_", "_connection"] - ["_idle_"];
    DbConnections Neither ["_db_", "_connection", "_idle_"];
    DbConnections Up ["_hikaricp_", "_connections_"] - ["_idle_", "_max_", "_min_"];
    DbConnections Up ["_pg_stat_activity_"];
    DbConnections Up ["_mysql_", "_threads_connected_"];
    DbConnections Up ["_connection_pool_"] - ["_idle_", "_max_", "_min_"];
    DbConnections Up ["_redis_connected_clients_"];

    ConsumerLag Up ["_consumer_", "_lag_"];
    ConsumerLag Up ["_consumer_lag_"];
    ConsumerLag Up ["_consumergroup_lag_"];
    ConsumerLag Up ["_records_lag"];

    Restarts Up ["_restart_"];
    Restarts Up ["_restarts_"];
    Restarts Up ["_crash"];

    // Names, retries, routes and replicas stand before errors and requests of every other sort.
    Dns Up ["_dns_", "_error"];
    Dns Up ["_dns_", "_fail"];
    Dns Up ["_servfail_"];
    Retries Up ["_retry_"];
    Retries Up ["_retries_"];
    Misdirected Up ["_misdirected_"];
    Misdirected Up ["_misrouted_"];
    Outliers Up ["_outlier"];
    Replicas Down ["_replicas_", "_ready_"];
    Replicas Down ["_replicas_", "_available_"];
    Replicas Up ["_replicas_", "_unavailable_"];

    // Locks and caches.
    Locks Up ["_lock", "_wait"];
    Locks Up ["_deadlocks_"];
    Locks Up ["_locks_"];
    Cache Up ["_cache_", "_miss"];
    Cache Up ["_evict"];
    Cache Down ["_cache_", "_hit"];

    // Errors of the wire are the network's, other errors are failures of work.
    Network Up ["_network_", "_err"];
    Network Up ["_network_", "_drop"];
    Network Up ["_retrans"];
    Network Up ["_softnet_"];
    Disk Up ["_filesystem_", "_error_"];
    Disk Up ["_filesystem_readonly_"];
    Availability Down ["_success_", "_probe_"];
    ErrorRatio Down ["_success_"];
    ErrorRatio Down ["_successrate_"];
    Availability Down ["_availability_"];
    ErrorRatio Up ["_error_"];
    ErrorRatio Up ["_errors_"];
    ErrorRatio Up ["_failed_"];
    ErrorRatio Up ["_failure"];
    ErrorRatio Up ["_exceptions_"];
    ErrorRatio Up ["_5xx_"];

    // Processors. The label says which share it is; see `by_mode`.
    CpuSteal Up ["_cpu_", "_steal_"];
    CpuSteal Up ["_throttled_"];
    CpuSteal Up ["_throttling_"];
    DiskIo Up ["_iowait_"];
    Cpu Down ["_cpu_", "_idle_"];
    Cpu Up ["_cpu_"];
    Cpu Up ["_processor_"];
    Cpu Up ["_load1_"];
    Cpu Up ["_load5_"];
    Cpu Up ["_load15_"];
    Cpu Up ["_load_average_"];
    Cpu Up ["_load_1"];
    Cpu Up ["_load_5"];
    Cpu Up ["_schedstat_"];
    Cpu Up ["_context_switches_"];
    Cpu Up ["_intr_"];
    Cpu Up ["_forks_"];
    Cpu Up ["_procs_running_"];
    DiskIo Up ["_procs_blocked_"];

    // Memory: what is left, what is used, and the page cache that is neither.
    Memory Down ["_memavailable_"];
    Memory Down ["_memfree_"];
    Memory Down ["_swapfree_"];
    Memory Up ["_committed_as_"];
    Memory Neither ["_node_memory_"];
    Memory Down ["_memory_", "_available_"];
    Memory Down ["_memory_", "_free_"];
    Memory Up ["_memory_"];
    Memory Up ["_mem_"];
    Memory Up ["_swap_"];
    Memory Up ["_paging_"];
    Memory Up ["_heap_"];
    Memory Up ["_memstats_"] - ["_mallocs_", "_frees_", "_lookups_", "_last_gc_"];
    Memory Neither ["_memstats_"];
    Memory Up ["_gc_"];
    Memory Up ["_resident_"];
    Memory Up ["_vmstat_pgmajfault_"];
    Memory Neither ["_vmstat_"];

    // Disks: space, then traffic.
    Disk Down ["_filesystem_", "_avail"];
    Disk Down ["_filesystem_", "_free_"];
    Disk Up ["_filesystem_"];
    Disk Down ["_disk_", "_free_"];
    Disk Down ["_disk_", "_avail"];
    Disk Up ["_disk_", "_used_"];
    Disk Up ["_disk_", "_usage_"];
    Disk Up ["_disk_", "_utilization_"];
    DiskIo Up ["_disk_"];
    DiskIo Up ["_diskio_"];
    DiskIo Up ["_syscall_read_"];
    DiskIo Up ["_syscall_write_"];

    Temperature Up ["_temp_"];
    Temperature Up ["_temperature_"];
    Temperature Up ["_thermal_"];
    Temperature Up ["_fan_"];
    FileDescriptors Neither ["_max_fds_"];
    FileDescriptors Neither ["_filefd_maximum_"];
    FileDescriptors Up ["_open_fds_"];
    FileDescriptors Up ["_filefd_"];
    FileDescriptors Up ["_file_descriptor"];
    Threads Up ["_threads_"];
    Threads Up ["_thread_"];
    Threads Up ["_goroutines_"];

    // Time and amount of work: histograms count work in `_count` and time in `_sum`.
    RequestRate Both ["_duration_", "_count_"];
    RequestRate Both ["_latency_", "_count_"];
    Latency Up ["_latency_"];
    Latency Up ["_latencyp"];
    Latency Up ["_lat_"];
    Latency Up ["_duration_"];
    Latency Up ["_response_time_"];
    Latency Up ["_rtt_"];
    Queue Up ["_queue"];
    Queue Up ["_pending_"];
    Queue Up ["_backlog_"];
    Queue Up ["_inflight_"];
    Queue Up ["_in_flight_"];
    RequestRate Both ["_request"] - ["_size_", "_body_"];
    RequestRate Both ["_requests_"];
    RequestRate Both ["_workload_ops_"];
    RequestRate Both ["_rps_"];
    RequestRate Both ["_qps_"];
    RequestRate Both ["_transactions_"];
    RequestRate Both ["_messages_"];

    Network Up ["_network_"];
    Network Up ["_net_rx_"];
    Network Up ["_net_tx_"];
    Network Up ["_netstat_"];
    Network Up ["_sockstat_"];
    Network Up ["_conntrack_"];
    Availability Down ["_up_"];
    Availability Down ["_healthy_"];
    Availability Down ["_ready_"];
};

/// Which processor time a label `mode` (node_exporter), `state` or `cpu.mode` (OpenTelemetry) names.
fn by_mode(mode: &str) -> Option<Reading> {
    let (family, bad) = match mode {
        "idle" => (SignalFamily::Cpu, Bad::Down),
        "iowait" | "wait" => (SignalFamily::DiskIo, Bad::Up),
        "steal" | "stolen" => (SignalFamily::CpuSteal, Bad::Up),
        _ => return None,
    };
    Some(Reading { family, bad })
}

/// Longest name that is looked at, in bytes; the rest is cut. Prometheus' own names stay far below.
const NAME_BYTES_MAX: usize = 256;

/// What the metric of this name measures, `None` when the table does not know it. `label` answers the value of a
/// label of the series, `None` when it has none.
///
/// Meant to be asked once per series, not per sample: it walks the table.
pub fn reading<'a>(metric_name: &str, label: impl Fn(&str) -> Option<&'a str>) -> Option<Reading> {
    let mut name = String::with_capacity(metric_name.len().min(NAME_BYTES_MAX) + 2);
    name.push('_');
    for c in metric_name.bytes().take(NAME_BYTES_MAX) {
        name.push(if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() as char } else { '_' });
    }
    name.push('_');
    // Buckets of a histogram move with its traffic; `_sum` and `_count` say what there is to say.
    if name.ends_with("_bucket_") {
        return None;
    }
    let rule =
        RULES.iter().find(|r| r.all.iter().all(|w| name.contains(w)) && !r.none.iter().any(|w| name.contains(w)))?;
    let mut found = Reading { family: rule.family, bad: rule.bad };
    if rule.bad == Bad::Neither {
        return Some(found);
    }
    match rule.family {
        SignalFamily::Cpu => {
            let mode = ["mode", "state", "cpu.mode", "cpu_mode"].into_iter().find_map(&label);
            found = mode.and_then(by_mode).unwrap_or(found);
        }
        // OpenTelemetry puts used and free, used and idle, into one metric.
        SignalFamily::Memory | SignalFamily::Disk | SignalFamily::DbConnections => {
            let keys = ["state", "system.memory.state", "system.filesystem.state", "db.client.connection.state"];
            let state = keys.into_iter().find_map(&label).or_else(|| label("system_memory_state"));
            match state {
                Some("free" | "available") => found.bad = Bad::Down,
                Some("idle" | "cached" | "buffered" | "buffers" | "slab_reclaimable" | "reserved") => {
                    found.bad = Bad::Neither;
                }
                _ => {}
            }
        }
        // Requests that failed are counted under the name of all of them.
        SignalFamily::RequestRate => {
            let status = ["status", "code", "status_code", "http.response.status_code", "http_response_status_code"];
            let failed = status.into_iter().find_map(&label).is_some_and(|v| v.len() == 3 && v.starts_with('5'));
            if failed || label("error.type").is_some_and(|v| !v.is_empty()) {
                found = Reading { family: SignalFamily::ErrorRatio, bad: Bad::Up };
            }
        }
        _ => {}
    }
    Some(found)
}

/// The family alone.
pub fn family<'a>(metric_name: &str, label: impl Fn(&str) -> Option<&'a str>) -> Option<SignalFamily> {
    reading(metric_name, label).map(|r| r.family)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(name: &str, labels: &[(&'static str, &'static str)], want: &str) {
        let got = reading(name, |key| labels.iter().find(|(k, _)| *k == key).map(|(_, v)| *v));
        let text = got.map_or("none".into(), |r| format!("{} {:?}", r.family.as_str(), r.bad).to_lowercase());
        assert_eq!(text, want, "{name} {labels:?}");
    }

    #[test]
    fn the_names_that_people_have() {
        type Row = (&'static str, &'static [(&'static str, &'static str)], &'static str);
        let table: &[Row] = &[
            ("node_cpu_seconds_total", &[("mode", "idle")], "cpu down"),
            ("node_cpu_seconds_total", &[("mode", "user")], "cpu up"),
            ("node_cpu_seconds_total", &[("mode", "iowait")], "disk_io up"),
            ("node_cpu_seconds_total", &[("mode", "steal")], "cpu_steal up"),
            ("node_cpu_scaling_frequency_hertz", &[], "cpu neither"),
            ("node_load1", &[], "cpu up"),
            ("node_schedstat_running_seconds_total", &[], "cpu up"),
            ("node_pressure_cpu_waiting_seconds_total", &[], "cpu up"),
            ("node_pressure_io_waiting_seconds_total", &[], "disk_io up"),
            ("node_memory_MemAvailable_bytes", &[], "memory down"),
            ("node_memory_Cached_bytes", &[], "memory neither"),
            ("node_memory_MemTotal_bytes", &[], "memory neither"),
            ("node_vmstat_oom_kill", &[], "oom up"),
            ("node_filesystem_avail_bytes", &[], "disk down"),
            ("node_filesystem_size_bytes", &[], "disk neither"),
            ("node_disk_io_time_seconds_total", &[], "disk_io up"),
            ("node_network_receive_errs_total", &[], "network up"),
            ("node_network_receive_bytes_total", &[], "network up"),
            ("node_hwmon_temp_celsius", &[], "temperature up"),
            ("node_procs_blocked", &[], "disk_io up"),
            ("node_filefd_allocated", &[], "file_descriptors up"),
            ("process_cpu_seconds_total", &[], "cpu up"),
            ("process_resident_memory_bytes", &[], "memory up"),
            ("process_virtual_memory_max_bytes", &[], "memory neither"),
            ("go_goroutines", &[], "threads up"),
            ("system_cpu_percent", &[], "cpu up"),
            ("system_load1", &[], "cpu up"),
            ("system_memory_used_bytes", &[], "memory up"),
            ("system_memory_available_bytes", &[], "memory down"),
            ("system_disk_used_ratio", &[], "disk up"),
            ("system_disk_read_bytes", &[], "disk_io up"),
            ("system_network_transmit_bytes", &[], "network up"),
            ("system_process_cpu_percent", &[], "cpu up"),
            ("system_process_memory_bytes", &[], "memory up"),
            ("system_paging_utilization_ratio", &[], "memory up"),
            ("system.cpu.utilization", &[("cpu.mode", "idle")], "cpu down"),
            ("system.memory.usage", &[("system.memory.state", "free")], "memory down"),
            ("http.server.request.duration", &[], "latency up"),
            ("http_server_request_duration_seconds_count", &[], "request_rate both"),
            ("http_server_request_duration_seconds_bucket", &[], "none"),
            ("http_requests_total", &[("code", "503")], "error_ratio up"),
            ("http_requests_total", &[("code", "200")], "request_rate both"),
            ("db.client.connection.count", &[("db.client.connection.state", "used")], "db_connections up"),
            ("db.client.connection.count", &[("db.client.connection.state", "idle")], "db_connections neither"),
            ("kafka_consumergroup_lag", &[], "consumer_lag up"),
            ("kube_pod_container_status_restarts_total", &[], "restarts up"),
            ("container_cpu_cfs_throttled_periods_total", &[], "cpu_steal up"),
            ("jvm.thread.count", &[], "threads up"),
            ("jvm_gc_duration_seconds_sum", &[], "memory up"),
            ("up", &[], "availability down"),
            ("kubernetes_fault", &[], "availability neither"),
            ("kubernetes_fault_reach", &[], "replicas neither"),
            ("probe_success", &[], "availability down"),
            ("service_request_rate", &[], "request_rate both"),
            ("service_error_rate_percent", &[], "error_ratio up"),
            ("service_latency_p99_ms", &[], "latency up"),
            ("service_cpu_percent", &[], "cpu up"),
            ("service_memory_percent", &[], "memory up"),
            ("service_db_connections", &[], "db_connections up"),
            ("kafka_consumer_lag", &[], "consumer_lag up"),
            ("cpu_usage", &[], "cpu up"),
            ("cpu_pct", &[], "cpu up"),
            ("mem_mb", &[], "memory up"),
            ("error_ratio", &[], "error_ratio up"),
            ("latency_p95", &[], "latency up"),
            ("success_pct", &[], "error_ratio down"),
            ("client_lat_p90_s", &[], "latency up"),
            ("requests_sum", &[], "request_rate both"),
            ("availability_avg", &[], "availability down"),
            ("service_retry_rate", &[], "retries up"),
            ("envoy_cluster_upstream_rq_retry", &[], "retries up"),
            ("dns_failed_queries_percent", &[], "dns up"),
            ("coredns_forward_healthcheck_failures_total", &[], "error_ratio up"),
            ("service_misdirected_request_rate", &[], "misdirected up"),
            ("envoy_cluster_outlier_detection_ejections_active", &[], "outliers up"),
            ("kube_deployment_status_replicas_ready", &[], "replicas down"),
            ("kube_deployment_status_replicas_unavailable", &[], "replicas up"),
            ("temperature_of_the_soup", &[], "temperature up"),
            ("answer", &[], "none"),
            ("", &[], "none"),
        ];
        for (name, labels, want) in table {
            check(name, labels, want);
        }
    }

    #[test]
    fn direction_decides_the_class() {
        let idle = reading("node_cpu_seconds_total", |k| (k == "mode").then_some("idle")).unwrap();
        assert_eq!(idle.fault(Direction::Down), FaultClass::CpuSaturation);
        assert_eq!(idle.fault(Direction::Up), FaultClass::Unknown);
        let rate = reading("service_request_rate", |_| None).unwrap();
        assert_eq!(rate.fault(Direction::Up), FaultClass::TrafficSurge);
        assert_eq!(rate.fault(Direction::Down), FaultClass::TrafficLoss);
        let memory = reading("mem_mb", |_| None).unwrap();
        assert_eq!(memory.trend_fault(Direction::Up), FaultClass::MemoryLeak);
        assert_eq!(memory.fault(Direction::Flat), FaultClass::TelemetryMissing);
    }

    #[test]
    fn every_family_has_a_name_of_its_own() {
        let mut names = SignalFamily::ALL.map(SignalFamily::as_str).to_vec();
        for family in SignalFamily::ALL {
            assert_eq!(serde_json::to_value(family).unwrap(), family.as_str());
        }
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), SignalFamily::ALL.len());
    }

    proptest::proptest! {
        #[test]
        fn no_name_panics(name in ".{0,400}", value in ".{0,20}") {
            let _ = reading(&name, |_| Some(value.as_str()));
        }
    }
}
