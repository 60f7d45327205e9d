//! Names of the figures that metrics give about objects ([`crate::World::signals`]), one constant for each, with its unit.
//!
//! Where a figure belongs: of a volume to its `PersistentVolumeClaim`, of a machine to its `Node`, of the API server and
//! etcd to `Service/default/kubernetes`, of one client of the API server to its `ServiceAccount` (or `User`, `Group`).

/// Bytes in use on a file system: of a claim (`kubelet_volume_stats_used_bytes`) or of a node.
pub const DISK_USED_BYTES: &str = "disk_used_bytes";
/// Size of that file system, bytes.
pub const DISK_CAPACITY_BYTES: &str = "disk_capacity_bytes";
/// How fast its use grows, bytes per second over the last hour or more; may be negative.
pub const DISK_GROWTH_BYTES_PER_SEC: &str = "disk_growth_bytes_per_sec";
/// Files in use on a file system, as a share of the files that it can hold, 0 to 1.
pub const DISK_INODES_USED_RATIO: &str = "disk_inodes_used_ratio";
/// Offset of a node's clock from its time source, seconds, signed (`node_timex_offset_seconds`).
pub const CLOCK_OFFSET_SECS: &str = "clock_offset_secs";
/// 1 while a node's clock follows a time source, else 0 (`node_timex_sync_status`).
pub const CLOCK_SYNCED: &str = "clock_synced";
/// Tracked connections of a node (`node_nf_conntrack_entries`).
pub const CONNTRACK_ENTRIES: &str = "conntrack_entries";
/// Most connections that it can track (`node_nf_conntrack_entries_limit`).
pub const CONNTRACK_LIMIT: &str = "conntrack_limit";
/// Local ports of a node that connections hold, waiting ones included.
pub const EPHEMERAL_PORTS_USED: &str = "ephemeral_ports_used";
/// Local ports that it may use: the size of `net.ipv4.ip_local_port_range`.
pub const EPHEMERAL_PORTS_LIMIT: &str = "ephemeral_ports_limit";
/// Requests of a client, or all requests, per second.
pub const API_REQUESTS_PER_SEC: &str = "api_requests_per_sec";
/// What the same rate usually is at this time.
pub const API_REQUESTS_USUAL_PER_SEC: &str = "api_requests_usual_per_sec";
/// Requests that the API server turned away with 429, per second.
pub const API_REJECTED_PER_SEC: &str = "api_rejected_per_sec";
/// Share of requests that the API server answered with 5xx, 0 to 1.
pub const API_ERROR_RATIO: &str = "api_error_ratio";
/// 99th percentile of the time of requests that are no watches, seconds.
pub const API_LATENCY_P99_SECS: &str = "api_latency_p99_secs";
/// Size of etcd's database, bytes (`etcd_mvcc_db_total_size_in_bytes`).
pub const ETCD_DB_BYTES: &str = "etcd_db_bytes";
/// Most that it may have, bytes (`etcd_server_quota_backend_bytes`).
pub const ETCD_QUOTA_BYTES: &str = "etcd_quota_bytes";
/// Of a pod, followed by `/` and a container's name: share of its CPU periods in which it was throttled, 0 to 1
/// (`container_cpu_cfs_throttled_periods_total` over `container_cpu_cfs_periods_total`).
pub const CPU_THROTTLED_RATIO: &str = "cpu_throttled_ratio";
/// Of a pod, followed by `/` and a container's name: how fast its working set grows, bytes per second over half an hour
/// or more; may be negative.
pub const MEMORY_GROWTH_BYTES_PER_SEC: &str = "memory_growth_bytes_per_sec";
/// Of the workload that serves cluster DNS: 99th percentile of the time of its answers, seconds
/// (`coredns_dns_request_duration_seconds`).
pub const DNS_LATENCY_P99_SECS: &str = "dns_latency_p99_secs";
