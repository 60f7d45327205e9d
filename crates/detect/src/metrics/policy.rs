//! What is known of a series before its first sample: its sigma, which way is bad, how much a departure can matter.
//!
//! A statistic alone cannot tell a fault from a busy moment, so the name of a metric bounds what its curve may claim:
//!
//! - a departure the harmless way (CPU time of `user` falling, latency falling) is never more than low;
//! - a share of something finite (percents, ratios, CPU seconds per second) is as bad as it is full: 30 % of a
//!   processor is no incident, however far from 2 %;
//! - on hosts, activity (bytes, packets, interrupts, forks) is low by itself, and a departure must last: being busy
//!   for a moment is what a machine is for;
//! - the workings of exporters and runtimes are low.

use super::config::{MetricsConfig, glob};
use crate::features::Field;
use nightshift_model::batch::SeriesKind;
use nightshift_model::families::{self, Bad, Reading, SignalFamily};
use nightshift_model::{EntityKind, EntityMeta};

/// Highest score of a departure that is no symptom.
pub(crate) const HARMLESS: f64 = 0.45;

/// How a value maps to the share in use of something finite.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Share {
    /// It does not.
    None,
    /// The value times this is the share.
    Used(f64),
    /// One minus the value times this is.
    Free(f64),
}

/// A limit that the trend layer looks out for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Limit {
    pub(crate) value: f64,
    /// Approached from above.
    pub(crate) falling: bool,
}

/// What is known of a series. Shared by all series of which the same is known.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Policy {
    pub(crate) sigma: f32,
    pub(crate) reading: Option<Reading>,
    pub(crate) share: Share,
    /// Highest score.
    pub(crate) cap: f64,
    /// Strong readings that open an alarm.
    pub(crate) need: u8,
    /// Time that the departure must last.
    pub(crate) need_ns: i64,
    /// Whether one extreme reading opens an alarm.
    pub(crate) single: bool,
    pub(crate) limit: Option<Limit>,
    /// The feature of its service that it feeds.
    pub(crate) feature: Option<Field>,
}

/// Names of runtimes and exporters that describe themselves.
const OWN_WORKINGS: &[&str] =
    &["go_", "promhttp_", "prometheus_", "scrape_", "nightshift_", "python_gc_", "net_conntrack_"];
/// The same, on a host: detail of the kernel that has better known symptoms.
const HOST_WORKINGS: &[&str] = &[
    "process_",
    "node_scrape_",
    "node_timex_",
    "node_time_",
    "node_netstat_",
    "node_vmstat_",
    "node_schedstat_",
    "node_softnet_",
    "node_sockstat_",
    "node_udp_",
    "node_arp_",
    "node_entropy_",
    "node_textfile_",
    "node_xfs_",
    "node_cooling_",
    "node_exporter_",
];
/// Activity words of host metrics.
const ACTIVITY: &[&str] = &["context_switches", "intr", "forks", "procs_running", "frequency", "guest"];

fn has(name: &str, words: &[&str]) -> bool {
    words.iter().any(|w| name.contains(w))
}

fn starts(name: &str, words: &[&str]) -> bool {
    words.iter().any(|w| name.starts_with(w))
}

impl Policy {
    /// A policy that knows nothing but the sigma: both sides count, one extreme reading is enough.
    pub(crate) fn neutral(sigma: f64, config: &MetricsConfig) -> Self {
        Self {
            sigma: sigma as f32,
            reading: None,
            share: Share::None,
            cap: 1.0,
            need: u8::try_from(config.open_points).unwrap_or(u8::MAX).max(1),
            need_ns: 0,
            single: true,
            limit: None,
            feature: None,
        }
    }

    /// What the name, the labels and the entity of a series say.
    pub(crate) fn of<'a>(
        config: &MetricsConfig,
        entity: &EntityMeta,
        kind: SeriesKind,
        metric: &str,
        label: impl Fn(&str) -> Option<&'a str>,
    ) -> Self {
        let name = metric.to_ascii_lowercase().replace(['.', '-', '/'], "_");
        let reading = families::reading(metric, &label);
        // What a test injects stands for a service, whatever it is called.
        let host =
            matches!(entity.id.kind(), EntityKind::Host | EntityKind::Node | EntityKind::Pod) && !entity.synthetic;
        let service = matches!(entity.id.kind(), EntityKind::Service | EntityKind::Workload);
        let by_name = config.zscore.sigma.iter().find(|r| glob(&r.metric, metric)).map(|r| r.sigma);
        let sigma =
            by_name.unwrap_or(if service { config.zscore.service_sigma } else { config.zscore.sensitivity.sigma() });
        let mut policy = Self::neutral(sigma.clamp(0.5, 100.0), config);
        policy.reading = reading;
        policy.share = share(&name, kind, reading, &label);
        policy.limit = limit(config, metric, &name, kind, reading, policy.share);
        policy.feature = if host { None } else { Field::of(&name, kind, reading, &label) };
        policy.cap = match reading {
            Some(r) if r.bad == Bad::Neither => 0.3,
            _ if starts(&name, OWN_WORKINGS) => 0.4,
            // How callers cope with a failure, not the failure.
            Some(r) if r.family == SignalFamily::Retries => HARMLESS,
            None if host => HARMLESS,
            None => 0.89,
            Some(_) => 1.0,
        };
        if host {
            policy.need = policy.need.saturating_add(1);
            let persist = i64::from(config.host_persist_secs) * nightshift_model::time::NANOS_PER_SEC;
            policy.need_ns = persist;
            policy.single = false;
            if starts(&name, HOST_WORKINGS) {
                policy.cap = policy.cap.min(0.4);
            }
            if let Some(r) = reading {
                policy.on_host(&name, r, persist, label("cpu").is_some());
            }
        }
        policy
    }

    /// How much a departure can matter on a host.
    fn on_host(&mut self, name: &str, reading: Reading, persist: i64, one_core: bool) {
        let known_share = self.share != Share::None;
        let cap = match reading.family {
            SignalFamily::Cpu if has(name, ACTIVITY) => 0.4,
            // One busy core of many is no saturated host; load has no limit that its name tells.
            SignalFamily::Cpu if one_core || !known_share => 0.69,
            SignalFamily::Cpu => 0.89,
            SignalFamily::CpuSteal => 0.69,
            SignalFamily::Memory | SignalFamily::Disk if known_share => 0.89,
            SignalFamily::Memory | SignalFamily::Disk if has(name, &["pressure", "readonly", "error"]) => 0.69,
            SignalFamily::Memory | SignalFamily::Disk => HARMLESS,
            SignalFamily::DiskIo if known_share => 0.69,
            SignalFamily::DiskIo => 0.4,
            SignalFamily::Network if has(name, &["err", "drop", "retrans"]) => 0.85,
            SignalFamily::Network => 0.4,
            SignalFamily::Temperature | SignalFamily::Queue => 0.69,
            SignalFamily::FileDescriptors | SignalFamily::Threads => HARMLESS,
            SignalFamily::Oom | SignalFamily::Availability | SignalFamily::Restarts => {
                (self.need, self.need_ns, self.single) = (1, 0, true);
                1.0
            }
            _ => 1.0,
        };
        self.cap = self.cap.min(cap);
        if reading.family == SignalFamily::CpuSteal {
            // Being busy is what a machine is for; being robbed is not.
            self.need_ns = 0;
        }
        if !matches!(reading.family, SignalFamily::Cpu | SignalFamily::DiskIo) && self.need_ns > 0 {
            self.need_ns = 2 * persist;
        }
    }

    /// Whether a departure upwards (or downwards) is a symptom.
    pub(crate) fn is_bad(&self, up: bool) -> bool {
        let way = if up { nightshift_model::Direction::Up } else { nightshift_model::Direction::Down };
        self.reading.is_none_or(|r| r.bad.includes(way))
    }

    /// Highest score that a departure to `value` may have.
    pub(crate) fn ceiling(&self, value: f64, up: bool) -> f64 {
        if !self.is_bad(up) {
            return self.cap.min(HARMLESS);
        }
        let used = match self.share {
            Share::None => return self.cap,
            Share::Used(k) => value * k,
            Share::Free(k) => 1.0 - value * k,
        };
        if self.reading.is_some_and(|r| r.family == SignalFamily::ErrorRatio) {
            // Objectives begin at 99 %: below that share of failures hardly one is broken, however unusual it is.
            let by_share = match used {
                u if u < 0.01 => HARMLESS,
                u if u < 0.02 => 0.69,
                u if u < 0.05 => 0.89,
                _ => 1.0,
            };
            return self.cap.min(by_share);
        }
        // Below half there is room for as much again; above 85 % queues grow without bound.
        let by_share = match used {
            u if u < 0.5 => HARMLESS,
            u if u < 0.7 => 0.55,
            u if u < 0.85 => 0.69,
            _ => 1.0,
        };
        self.cap.min(by_share)
    }
}

/// Which share of something finite the value is.
fn share<'a>(
    name: &str,
    kind: SeriesKind,
    reading: Option<Reading>,
    label: &impl Fn(&str) -> Option<&'a str>,
) -> Share {
    let Some(reading) = reading else { return Share::None };
    let free = reading.bad == Bad::Down;
    let of = |k| if free { Share::Free(k) } else { Share::Used(k) };
    let finite = matches!(
        reading.family,
        SignalFamily::Cpu
            | SignalFamily::Memory
            | SignalFamily::Disk
            | SignalFamily::DiskIo
            | SignalFamily::CpuSteal
            | SignalFamily::ErrorRatio
    );
    if !finite {
        return Share::None;
    }
    // Stalled a third of the time is as bad as it gets (the kernel's own monitor starts there).
    if name.contains("pressure") && kind != SeriesKind::Gauge {
        return Share::Used(3.0);
    }
    if kind != SeriesKind::Gauge {
        // Seconds per second: of one core where a label says so, of one disk for io_time.
        let one = label("cpu").is_some() || name.contains("io_time_seconds") || name.contains("io_time");
        return if name.contains("seconds") && one { of(1.0) } else { Share::None };
    }
    // A third of the time taken away is as bad as it gets.
    let times = if reading.family == SignalFamily::CpuSteal { 3.0 } else { 1.0 };
    // What one replica of several fails is a part of what its service fails.
    let replica = label("replica").is_some() || label("pod").is_some();
    let times = if reading.family == SignalFamily::ErrorRatio && replica { 0.5 } else { times };
    if has(name, &["percent", "_pct"]) {
        of(0.01 * times)
    } else if has(name, &["ratio", "utilization", "utilisation"]) {
        of(times)
    } else {
        Share::None
    }
}

fn limit(
    config: &MetricsConfig,
    metric: &str,
    name: &str,
    kind: SeriesKind,
    reading: Option<Reading>,
    share: Share,
) -> Option<Limit> {
    if !config.trend.enabled {
        return None;
    }
    if let Some(rule) = config.trend.limits.iter().find(|r| glob(&r.metric, metric)) {
        return Some(Limit { value: rule.limit, falling: rule.falling });
    }
    let reading = reading.filter(|_| kind == SeriesKind::Gauge)?;
    // Only what fills up: processors come back by themselves.
    if !matches!(reading.family, SignalFamily::Memory | SignalFamily::Disk | SignalFamily::FileDescriptors) {
        return None;
    }
    match (reading.bad, share) {
        (Bad::Up, Share::Used(k)) => Some(Limit { value: 1.0 / k, falling: false }),
        (Bad::Down, _) if !name.contains("swap") && !name.contains("memfree") => {
            Some(Limit { value: 0.0, falling: true })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nightshift_model::EntityId;

    fn policy(kind: &str, metric: &str, series: SeriesKind, labels: &[(&'static str, &'static str)]) -> Policy {
        let entity = EntityMeta::bare(EntityId::new("c", kind, "", "x"));
        Policy::of(&MetricsConfig::default(), &entity, series, metric, |k| {
            labels.iter().find(|(n, _)| *n == k).map(|(_, v)| *v)
        })
    }

    #[test]
    fn idle_time_falling_is_bad_and_user_time_falling_is_not() {
        let idle = policy("host", "node_cpu_seconds_total", SeriesKind::Counter, &[("mode", "idle"), ("cpu", "0")]);
        assert_eq!(idle.share, Share::Free(1.0));
        assert!(idle.ceiling(0.02, false) > 0.6 && idle.ceiling(0.9, false) <= HARMLESS);
        assert!(idle.ceiling(1.0, true) <= HARMLESS);
        let user = policy("host", "node_cpu_seconds_total", SeriesKind::Counter, &[("mode", "user"), ("cpu", "0")]);
        assert!(user.ceiling(0.98, true) > 0.6 && user.ceiling(0.0, false) <= HARMLESS);
    }

    #[test]
    fn services_speak_at_two_and_a_half_sigma_and_hosts_must_persist() {
        let service = policy("service", "cpu_usage", SeriesKind::Gauge, &[]);
        assert_eq!((service.sigma, service.single, service.share), (2.5, true, Share::None));
        let host = policy("host", "system_cpu_percent", SeriesKind::Gauge, &[]);
        assert_eq!((host.sigma, host.single, host.share), (3.0, false, Share::Used(0.01)));
    }

    #[test]
    fn what_fills_up_has_a_limit() {
        let limit = |m, k| policy("host", m, k, &[]).limit.map(|l| (l.value, l.falling));
        assert_eq!(limit("system_disk_used_ratio", SeriesKind::Gauge), Some((1.0, false)));
        assert_eq!(limit("system_memory_used_percent", SeriesKind::Gauge), Some((100.0, false)));
        assert_eq!(limit("node_filesystem_avail_bytes", SeriesKind::Gauge), Some((0.0, true)));
        assert_eq!(limit("node_cpu_seconds_total", SeriesKind::Counter), None);
        assert_eq!(limit("cpu_usage", SeriesKind::Gauge), None);
    }
}
