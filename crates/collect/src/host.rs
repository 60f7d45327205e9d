//! This machine: processors, memory, file systems, disks, network, load, top processes, and ourselves.
//!
//! Lives here: reading the operating system and naming what was read. Never here: judgement.
//!
//! Names follow OpenTelemetry's system semantic conventions, in the form that Prometheus gives them
//! (`system.cpu.utilization` is `system_cpu_utilization_ratio`). What cannot be read is left out and said on the
//! health board; it is never sent as zero. Of a process only its short name is told: command lines hold secrets.

mod linux;

use crate::deliver::{Parcel, deliver_or_count, fatal};
use crate::supervise::Surroundings;
use crate::{Attributes, MetricPoint, Source, SourceContext, SourceError};
use async_trait::async_trait;
use nightshift_model::Timestamp;
use nightshift_model::batch::SeriesKind;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use sysinfo::{Disks, Networks, ProcessRefreshKind, ProcessesToUpdate, System};

/// Most file systems and most network interfaces that are told of: machines with many containers have thousands.
const PARTS_MAX: usize = 128;

/// Name of this machine; `localhost` when it has none that can be read.
pub fn host_name() -> String {
    System::host_name().ok().filter(|name| !name.is_empty()).unwrap_or_else(|| "localhost".into())
}

/// This machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Config {
    /// Time between two readings, seconds.
    #[schemars(range(min = 1, max = 3_600))]
    pub interval_secs: u64,
    /// Processes with the most processor time, and as many with the most memory, that are told of by name; 0: none.
    #[schemars(range(min = 0, max = 100))]
    pub top_processes: usize,
    /// Kinds of file systems that are left out: those that hold no data of their own.
    pub exclude_filesystems: Vec<String>,
    /// Beginnings of names of network interfaces that are left out.
    pub exclude_interfaces: Vec<String>,
    /// What else is known of this machine, under OpenTelemetry's names (`deployment.environment.name` …).
    pub attributes: BTreeMap<String, String>,
}

impl Default for Config {
    fn default() -> Self {
        let owned = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect();
        Self {
            interval_secs: 5,
            top_processes: 5,
            exclude_filesystems: owned(&[
                "tmpfs", "devtmpfs", "overlay", "squashfs", "iso9660", "ramfs", "autofs", "efivarfs",
            ]),
            exclude_interfaces: owned(&["lo", "veth", "docker", "br-", "cali", "flannel", "cni"]),
            attributes: BTreeMap::new(),
        }
    }
}

impl Config {
    /// Checks the values; reads nothing.
    ///
    /// # Errors
    /// The interval is zero.
    pub fn build(&self, name: &str, around: &Surroundings) -> Result<HostSource, SourceError> {
        if self.interval_secs == 0 {
            return Err(fatal("watch this host: set interval_secs to 1 or more"));
        }
        let mut resource = self.attributes.clone();
        resource.entry("host.name".into()).or_insert_with(|| around.host_name.clone());
        Ok(HostSource { name: name.to_owned(), config: self.clone(), resource: Arc::new(resource) })
    }
}

/// Watches this machine.
#[derive(Debug)]
pub struct HostSource {
    name: String,
    config: Config,
    resource: Arc<Attributes>,
}

#[async_trait]
impl Source for HostSource {
    fn name(&self) -> &str {
        &self.name
    }

    fn kind(&self) -> &'static str {
        "host"
    }

    async fn run(&mut self, context: &SourceContext) -> Result<(), SourceError> {
        let mut machine = Machine::new(self.config.clone())?;
        let mut ticks = tokio::time::interval(Duration::from_secs(self.config.interval_secs));
        // A reading that was late (the sink was busy) is not made up for: it would tell of the same moment twice.
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                () = context.shutdown.cancelled() => return Ok(()),
            }
            let at = context.clock.now();
            let resource = Arc::clone(&self.resource);
            let reading;
            (machine, reading) = tokio::task::spawn_blocking(move || {
                let reading = machine.read(at, &resource);
                (machine, reading)
            })
            .await
            .map_err(|e| crate::deliver::failed("read this host", e))?;
            let (samples, problems) = (reading.points.len(), reading.problems);
            let mut parcel = Parcel { metrics: reading.points, ..Parcel::default() };
            if deliver_or_count(&self.name, &mut parcel, context).await?.is_none() {
                return Ok(());
            }
            match problems.first() {
                Some(first) => context.health.degraded(format!(
                    "read {samples} values; {} parts could not be read: {first}{}",
                    problems.len(),
                    if problems.len() > 1 { " …" } else { "" }
                )),
                None if samples == 0 => context.health.unhealthy("nothing could be read"),
                None => context.health.healthy(format!("read {samples} values")),
            }
        }
    }
}

/// What one look gave.
#[derive(Debug)]
struct Reading {
    at: Timestamp,
    resource: Arc<Attributes>,
    points: Vec<MetricPoint>,
    problems: Vec<String>,
}

impl Reading {
    fn put(&mut self, name: &str, kind: SeriesKind, labels: &[(&str, &str)], value: f64) {
        if !value.is_finite() {
            return;
        }
        self.points.push(MetricPoint {
            resource: Arc::clone(&self.resource),
            name: name.to_owned(),
            labels: labels.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect(),
            kind,
            at: self.at,
            value,
        });
    }

    fn gauge(&mut self, name: &str, labels: &[(&str, &str)], value: f64) {
        self.put(name, SeriesKind::Gauge, labels, value);
    }

    fn counter(&mut self, name: &str, labels: &[(&str, &str)], value: f64) {
        self.put(name, SeriesKind::Counter, labels, value);
    }

    fn problem(&mut self, what: &str, why: impl std::fmt::Display) {
        self.problems.push(format!("{what}: {why}"));
    }
}

/// Handles that stay open between two looks.
struct Machine {
    config: Config,
    system: System,
    disks: Disks,
    networks: Networks,
    cpu: linux::CpuTimes,
    /// Names of processes that were at the top, and looks since: a series does not end the moment it falls to sixth.
    top: BTreeMap<String, u32>,
    first: bool,
}

/// Looks after which a process that is no longer at the top is not told of any more.
const TOP_KEPT_LOOKS: u32 = 60;

impl Machine {
    fn new(config: Config) -> Result<Self, SourceError> {
        let failed = |what: &str, e: sysinfo::Error| SourceError {
            what: format!("read {what}: {e:?}"),
            source: None,
            fatal: false,
        };
        Ok(Self {
            config,
            system: System::new().map_err(|e| failed("the system", e))?,
            disks: Disks::new().map_err(|e| failed("the file systems", e))?,
            networks: Networks::new().map_err(|e| failed("the network", e))?,
            cpu: linux::CpuTimes::default(),
            top: BTreeMap::new(),
            first: true,
        })
    }

    fn read(&mut self, at: Timestamp, resource: &Arc<Attributes>) -> Reading {
        let mut out = Reading { at, resource: Arc::clone(resource), points: Vec::new(), problems: Vec::new() };
        self.cpu(&mut out);
        self.memory(&mut out);
        self.filesystems(&mut out);
        self.network(&mut out);
        linux::disk_io(&mut out);
        linux::pressure(&mut out);
        self.load(&mut out);
        self.processes(&mut out);
        self.first = false;
        out
    }

    fn cpu(&mut self, out: &mut Reading) {
        if cfg!(target_os = "linux") {
            return self.cpu.read(out);
        }
        self.system.refresh_cpu_usage();
        // The first figure has nothing to be compared with.
        if !self.first {
            out.gauge("system_cpu_utilization_ratio", &[], f64::from(self.system.global_cpu_usage()) / 100.0);
        }
    }

    fn memory(&mut self, out: &mut Reading) {
        self.system.refresh_memory();
        let (total, available) = (self.system.total_memory() as f64, self.system.available_memory() as f64);
        if total > 0.0 {
            out.gauge("system_memory_limit_bytes", &[], total);
            out.gauge("system_memory_usage_bytes", &[("state", "used")], total - available);
            out.gauge("system_memory_usage_bytes", &[("state", "available")], available);
            out.gauge("system_memory_utilization_ratio", &[], (total - available) / total);
        } else {
            out.problem("memory", "the system tells no size");
        }
        // A machine without swap has none to be full: no series rather than a zero.
        let swap = self.system.total_swap() as f64;
        if swap > 0.0 {
            let used = self.system.used_swap() as f64;
            out.gauge("system_paging_usage_bytes", &[("state", "used")], used);
            out.gauge("system_paging_utilization_ratio", &[], used / swap);
        }
    }

    fn filesystems(&mut self, out: &mut Reading) {
        self.disks.refresh(true);
        // One file system may be mounted at many places (containers do): each device is told of once, at the shortest.
        let mut seen = BTreeSet::new();
        let mut disks: Vec<_> = self.disks.iter().collect();
        disks.sort_by_key(|d| (d.mount_point().as_os_str().len(), d.mount_point().to_owned()));
        for disk in disks {
            let kind = disk.file_system().to_string_lossy();
            let (total, free) = (disk.total_space() as f64, disk.available_space() as f64);
            // The root is always told of: within a container it is an overlay, and may fill up all the same.
            let root = disk.mount_point() == std::path::Path::new("/");
            let excluded = !root && self.config.exclude_filesystems.iter().any(|f| *f == kind);
            if total <= 0.0 || excluded || seen.len() >= PARTS_MAX {
                continue;
            }
            let device = disk.name().to_string_lossy();
            if !seen.insert(device.clone().into_owned()) {
                continue;
            }
            let mount = disk.mount_point().to_string_lossy();
            let labels = [("mountpoint", &*mount), ("device", &*device)];
            out.gauge("system_filesystem_utilization_ratio", &labels, (total - free) / total);
            out.gauge("system_filesystem_free_bytes", &labels, free);
            out.gauge("system_filesystem_limit_bytes", &labels, total);
        }
    }

    fn network(&mut self, out: &mut Reading) {
        self.networks.refresh(true);
        let mut names = BTreeMap::new();
        for (name, data) in &self.networks {
            names.insert(name.to_string_lossy().into_owned(), data);
        }
        names.retain(|name, _| !self.config.exclude_interfaces.iter().any(|x| name.starts_with(x.as_str())));
        for (name, data) in names.into_iter().take(PARTS_MAX) {
            for (direction, bytes, packets, errors) in [
                ("receive", data.total_received(), data.total_packets_received(), data.total_errors_on_received()),
                (
                    "transmit",
                    data.total_transmitted(),
                    data.total_packets_transmitted(),
                    data.total_errors_on_transmitted(),
                ),
            ] {
                let labels = [("device", name.as_str()), ("direction", direction)];
                out.counter("system_network_io_bytes_total", &labels, bytes as f64);
                out.counter("system_network_packets_total", &labels, packets as f64);
                out.counter("system_network_errors_total", &labels, errors as f64);
            }
        }
    }

    fn load(&mut self, out: &mut Reading) {
        match System::load_average() {
            Ok(load) => {
                out.gauge("system_cpu_load_average_1m", &[], load.one);
                out.gauge("system_cpu_load_average_5m", &[], load.five);
                out.gauge("system_cpu_load_average_15m", &[], load.fifteen);
            }
            Err(e) => out.problem("load average", format!("{e:?}")),
        }
        match System::uptime() {
            Ok(secs) => out.gauge("system_uptime_seconds", &[], secs as f64),
            Err(e) => out.problem("uptime", format!("{e:?}")),
        }
    }

    fn processes(&mut self, out: &mut Reading) {
        let kind = ProcessRefreshKind::nothing().with_cpu().with_memory().without_tasks();
        if self.system.refresh_processes_specifics(ProcessesToUpdate::All, true, kind) == 0 {
            return out.problem("processes", "the system lists none");
        }
        let own = sysinfo::get_current_pid().ok();
        let mut by_name: BTreeMap<String, (f64, f64, u32)> = BTreeMap::new();
        let mut count = 0u32;
        for (pid, process) in self.system.processes() {
            count += 1;
            let (cpu, memory) = (f64::from(process.cpu_usage()) / 100.0, process.memory() as f64);
            if Some(*pid) == own {
                out.gauge("nightshift_process_memory_usage_bytes", &[], memory);
                if !self.first {
                    out.gauge("nightshift_process_cpu_cores", &[], cpu);
                }
            }
            let name = process_name(&process.name().to_string_lossy());
            let sum = by_name.entry(name).or_default();
            *sum = (sum.0 + cpu, sum.1 + memory, sum.2 + 1);
        }
        out.gauge("system_processes_count", &[], f64::from(count));
        if self.config.top_processes == 0 {
            return;
        }
        for looks in self.top.values_mut() {
            *looks += 1;
        }
        for by in [|v: &(f64, f64, u32)| v.0, |v: &(f64, f64, u32)| v.1] {
            let mut order: Vec<_> = by_name.iter().collect();
            order.sort_by(|a, b| by(b.1).total_cmp(&by(a.1)).then_with(|| a.0.cmp(b.0)));
            for (name, _) in order.into_iter().take(self.config.top_processes) {
                self.top.insert(name.clone(), 0);
            }
        }
        self.top.retain(|name, looks| *looks < TOP_KEPT_LOOKS && by_name.contains_key(name));
        while self.top.len() > self.config.top_processes * 8 {
            let Some(oldest) = self.top.iter().max_by_key(|(_, looks)| **looks).map(|(n, _)| n.clone()) else { break };
            self.top.remove(&oldest);
        }
        for name in self.top.keys() {
            let Some((cpu, memory, n)) = by_name.get(name) else { continue };
            let labels = [("process", name.as_str())];
            if !self.first {
                out.gauge("process_cpu_usage_cores", &labels, *cpu);
            }
            out.gauge("process_memory_usage_bytes", &labels, *memory);
            out.gauge("process_instances_count", &labels, f64::from(*n));
        }
    }
}

/// The short name without what makes each of a pool of workers its own (`kworker/0:1` is `kworker`).
fn process_name(name: &str) -> String {
    let end = name.find(['/', ':', '[']).filter(|end| *end > 0).unwrap_or(name.len());
    name[..end].chars().take(64).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_twice() -> (Reading, Reading) {
        let mut machine = Machine::new(Config { exclude_filesystems: vec![], ..Config::default() }).unwrap();
        let resource = Arc::new(Attributes::from([("host.name".into(), "me".into())]));
        let one = machine.read(Timestamp::from_secs(1), &resource);
        // Processor time is counted in hundredths of a second: without any there is no share to tell.
        let began = std::time::Instant::now();
        while began.elapsed() < Duration::from_millis(60) {
            std::hint::black_box(1);
        }
        (one, machine.read(Timestamp::from_secs(2), &resource))
    }

    #[test]
    fn this_machine_is_read() {
        let (one, two) = read_twice();
        assert!(!one.points.iter().any(|p| p.name == "system_cpu_utilization_ratio"), "no share without a before");
        for name in [
            "system_cpu_utilization_ratio",
            "system_memory_utilization_ratio",
            "system_memory_usage_bytes",
            "system_filesystem_utilization_ratio",
            "system_cpu_load_average_1m",
            "system_uptime_seconds",
            "system_processes_count",
            "process_memory_usage_bytes",
            "process_cpu_usage_cores",
            "nightshift_process_memory_usage_bytes",
        ] {
            assert!(two.points.iter().any(|p| p.name == name), "{name} is missing; problems: {:?}", two.problems);
        }
        for point in two.points.iter().filter(|p| p.name.ends_with("_ratio")) {
            assert!((0.0..=1.0).contains(&point.value), "{point:?}");
        }
        let mut keys: Vec<_> = two.points.iter().map(|p| (p.name.clone(), p.labels.clone())).collect();
        let all = keys.len();
        keys.sort();
        keys.dedup();
        assert_eq!(keys.len(), all, "each series once");
        assert!(two.points.iter().all(|p| p.at == Timestamp::from_secs(2) && p.resource["host.name"] == "me"));
    }

    /// What detection and diagnosis make of the names: the table that they share must know them.
    #[test]
    fn names_are_known_to_the_table_of_families() {
        use nightshift_model::families::Bad;
        use nightshift_model::families::{SignalFamily, reading};
        for (name, family, bad) in [
            ("system_cpu_utilization_ratio", SignalFamily::Cpu, Bad::Up),
            ("system_cpu_load_average_1m", SignalFamily::Cpu, Bad::Up),
            ("system_cpu_pressure_ratio", SignalFamily::Cpu, Bad::Up),
            ("system_memory_utilization_ratio", SignalFamily::Memory, Bad::Up),
            ("system_memory_limit_bytes", SignalFamily::Memory, Bad::Neither),
            ("system_paging_utilization_ratio", SignalFamily::Memory, Bad::Up),
            ("system_filesystem_utilization_ratio", SignalFamily::Disk, Bad::Up),
            ("system_filesystem_free_bytes", SignalFamily::Disk, Bad::Down),
            ("system_disk_io_bytes_total", SignalFamily::DiskIo, Bad::Up),
            ("system_disk_io_time_seconds_total", SignalFamily::DiskIo, Bad::Up),
            ("system_io_pressure_ratio", SignalFamily::DiskIo, Bad::Up),
            ("system_network_errors_total", SignalFamily::Network, Bad::Up),
            ("process_cpu_usage_cores", SignalFamily::Cpu, Bad::Up),
            ("process_memory_usage_bytes", SignalFamily::Memory, Bad::Up),
        ] {
            let got = reading(name, |_| None).map(|r| (r.family, r.bad));
            assert_eq!(got, Some((family, bad)), "{name}");
        }
    }

    #[test]
    fn names_of_workers_are_one_name() {
        for (name, want) in [("kworker/0:1-events", "kworker"), ("nginx", "nginx"), ("[x]", "[x]"), ("a:b", "a")] {
            assert_eq!(process_name(name), want);
        }
    }
}
