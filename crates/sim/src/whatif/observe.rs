//! What was seen: for each entity and each quantity that the model has, short windows of its telemetry.

use nightshift_model::families::{self, SignalFamily};
use nightshift_model::{EntityId, Timestamp};
use std::collections::{BTreeMap, HashMap, VecDeque};

/// Seconds that one mean stands for.
const BUCKET_SECS: i64 = 10;
/// Means kept: ten minutes.
const BUCKETS: usize = 60;
/// Newest samples kept as they are.
const NEWEST: usize = 4;
/// Samples this close before an onset may show it already.
const MARGIN_SECS: i64 = 5;
/// Different names that are remembered; further ones are looked up each time.
const NAMES_MAX: usize = 20_000;

/// A quantity of the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Slot {
    Rate,
    /// Percent.
    Errors,
    /// 99th percentile, ms.
    Latency,
    /// Percent of the limit.
    Cpu,
    /// Percent of the limit.
    Memory,
    Connections,
    Lag,
    Ready,
    Queue,
    /// Percent.
    CacheHits,
    Locks,
    /// Percent.
    Disk,
    Up,
    /// Percent.
    Steal,
    Retries,
    Misdirected,
    CertificateDays,
}

/// How a signal's value becomes that of its quantity: value × factor.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Meaning {
    pub(crate) slot: Slot,
    pub(crate) factor: f64,
}

/// Names whose family alone does not say which quantity they are.
const NAMES: &[(&str, Slot)] = &[
    ("service_request_rate", Slot::Rate),
    ("service_error_rate_percent", Slot::Errors),
    ("service_latency_p99_ms", Slot::Latency),
    ("service_cpu_percent", Slot::Cpu),
    ("service_memory_percent", Slot::Memory),
    ("service_db_connections", Slot::Connections),
    ("kafka_consumer_lag", Slot::Lag),
    ("service_replicas_ready", Slot::Ready),
    ("service_queue_depth", Slot::Queue),
    ("service_cache_hit_percent", Slot::CacheHits),
    ("service_retry_rate", Slot::Retries),
    ("service_misdirected_request_rate", Slot::Misdirected),
    ("service_certificate_days_left", Slot::CertificateDays),
    ("db_cpu_percent", Slot::Cpu),
    ("db_query_latency_p99_ms", Slot::Latency),
    ("db_disk_used_percent", Slot::Disk),
    ("db_lock_waits", Slot::Locks),
    ("db_up", Slot::Up),
    ("kafka_topic_messages_rate", Slot::Rate),
    ("node_cpu_utilization_percent", Slot::Cpu),
    ("node_cpu_steal_percent", Slot::Steal),
    ("node_ready", Slot::Up),
    ("dns_request_rate", Slot::Rate),
    ("dns_failed_queries_percent", Slot::Errors),
    ("dns_latency_p99_ms", Slot::Latency),
];

/// What a signal is to the model; `None` when it is nothing there, or its unit is not known.
pub(crate) fn meaning(signal: &str) -> Option<Meaning> {
    if let Some((_, slot)) = NAMES.iter().find(|(name, _)| *name == signal) {
        return Some(Meaning { slot: *slot, factor: 1.0 });
    }
    // Parts of an entity are not the entity, and what only grows is no level.
    if ["replica", "_total", "_bucket", "_sum", "_count"].iter().any(|w| signal.contains(w)) {
        return None;
    }
    let percent = |signal: &str| {
        let ends = |words: &[&str]| words.iter().any(|w| signal.ends_with(w));
        if ends(&["percent", "pct"]) {
            Some(1.0)
        } else if ends(&["ratio", "utilization"]) {
            Some(100.0)
        } else {
            None
        }
    };
    let (slot, factor) = match families::family(signal, |_| None)? {
        SignalFamily::RequestRate if signal.ends_with("_rps") || signal.ends_with("_rate") => (Slot::Rate, 1.0),
        SignalFamily::ErrorRatio => (Slot::Errors, percent(signal)?),
        SignalFamily::Latency if signal.ends_with("_ms") => (Slot::Latency, 1.0),
        SignalFamily::Latency if signal.ends_with("_seconds") || signal.ends_with("_s") => (Slot::Latency, 1_000.0),
        SignalFamily::Cpu => (Slot::Cpu, percent(signal)?),
        SignalFamily::Memory => (Slot::Memory, percent(signal)?),
        SignalFamily::DbConnections => (Slot::Connections, 1.0),
        SignalFamily::ConsumerLag => (Slot::Lag, 1.0),
        _ => return None,
    };
    Some(Meaning { slot, factor })
}

/// One quantity of one entity.
#[derive(Debug, Clone, Default)]
struct Window {
    /// (bucket number, sum, samples), oldest first.
    buckets: VecDeque<(i64, f64, u32)>,
    newest: VecDeque<f64>,
    last: i64,
}

impl Window {
    fn add(&mut self, at_ns: i64, value: f64) {
        // Telemetry that comes again or late changes nothing that was decided on it.
        if at_ns <= self.last && !self.newest.is_empty() {
            return;
        }
        self.last = at_ns;
        let bucket = at_ns.div_euclid(BUCKET_SECS * 1_000_000_000);
        match self.buckets.back_mut() {
            Some((n, sum, count)) if *n == bucket => {
                *sum += value;
                *count += 1;
            }
            _ => {
                if self.buckets.len() == BUCKETS {
                    self.buckets.pop_front();
                }
                self.buckets.push_back((bucket, value, 1));
            }
        }
        if self.newest.len() == NEWEST {
            self.newest.pop_front();
        }
        self.newest.push_back(value);
    }

    /// Median of the means that ended before.
    fn before(&self, onset: Timestamp) -> Option<f64> {
        let limit = onset.0.saturating_sub(MARGIN_SECS * 1_000_000_000);
        let ended = |n: i64| (n + 1).saturating_mul(BUCKET_SECS * 1_000_000_000) <= limit;
        let mut means: Vec<f64> =
            self.buckets.iter().filter(|b| ended(b.0)).map(|(_, sum, n)| sum / f64::from(*n)).collect();
        means.sort_by(f64::total_cmp);
        means.get(means.len() / 2).copied()
    }

    /// Mean of the newest samples.
    fn now(&self) -> Option<f64> {
        let n = self.newest.len();
        (n > 0).then(|| self.newest.iter().sum::<f64>() / n as f64)
    }
}

/// All that was seen.
#[derive(Debug, Clone, Default)]
pub(crate) struct Seen {
    meanings: HashMap<String, Option<Meaning>>,
    windows: HashMap<EntityId, BTreeMap<Slot, Window>>,
    windows_total: usize,
}

impl Seen {
    /// Takes one sample. `false`: there is no room for another series, it was not kept.
    pub(crate) fn add(
        &mut self,
        entity: &EntityId,
        signal: &str,
        at: Timestamp,
        value: f64,
        series_max: usize,
    ) -> bool {
        let found = match self.meanings.get(signal) {
            Some(found) => *found,
            None => {
                let found = meaning(signal);
                if self.meanings.len() < NAMES_MAX {
                    self.meanings.insert(signal.to_owned(), found);
                }
                found
            }
        };
        let Some(meaning) = found.filter(|_| value.is_finite()) else { return true };
        if !self.windows.contains_key(entity) {
            if self.windows_total >= series_max {
                return false;
            }
            self.windows.insert(entity.clone(), BTreeMap::new());
        }
        let Some(of) = self.windows.get_mut(entity) else { return true };
        if !of.contains_key(&meaning.slot) {
            if self.windows_total >= series_max {
                return false;
            }
            self.windows_total += 1;
        }
        of.entry(meaning.slot).or_default().add(at.0, value * meaning.factor);
        true
    }

    /// Forgets what was not seen since.
    pub(crate) fn forget_before(&mut self, at: Timestamp) {
        self.windows.retain(|_, of| {
            of.retain(|_, w| w.last >= at.0);
            !of.is_empty()
        });
        self.windows_total = self.windows.values().map(BTreeMap::len).sum();
    }

    /// What is usual: before the onset.
    pub(crate) fn rest(&self, entity: &EntityId, slot: Slot, onset: Timestamp) -> Option<f64> {
        self.windows.get(entity)?.get(&slot)?.before(onset)
    }

    /// What is now.
    pub(crate) fn now(&self, entity: &EntityId, slot: Slot) -> Option<f64> {
        self.windows.get(entity)?.get(&slot)?.now()
    }

    pub(crate) fn series(&self) -> usize {
        self.windows_total
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(secs: i64) -> Timestamp {
        Timestamp(secs * 1_000_000_000)
    }

    #[test]
    fn rest_is_what_was_before_and_now_is_the_newest() {
        let id = EntityId::new("c", "service", "", "a");
        let mut seen = Seen::default();
        for s in 0..300 {
            let value = if s < 200 { 100.0 + f64::from(s % 2) } else { 900.0 };
            assert!(seen.add(&id, "service_latency_p99_ms", at(i64::from(s)), value, 10));
        }
        let rest = seen.rest(&id, Slot::Latency, at(200)).unwrap();
        assert!((rest - 100.5).abs() < 1e-9, "{rest}");
        assert_eq!(seen.now(&id, Slot::Latency), Some(900.0));
        // What comes again or is no number changes nothing.
        seen.add(&id, "service_latency_p99_ms", at(10), 5.0, 10);
        seen.add(&id, "service_latency_p99_ms", at(400), f64::NAN, 10);
        assert_eq!(seen.now(&id, Slot::Latency), Some(900.0));
        assert_eq!(seen.rest(&id, Slot::Cpu, at(200)), None);
        assert_eq!(seen.rest(&id, Slot::Latency, at(3)), None, "nothing is known of before");
    }

    #[test]
    fn units_are_those_of_the_model_and_what_is_unclear_is_nothing() {
        for (signal, want) in [
            ("http_server_latency_seconds", Some((Slot::Latency, 1_000.0))),
            ("error_ratio", Some((Slot::Errors, 100.0))),
            ("cpu_pct", Some((Slot::Cpu, 1.0))),
            ("system_memory_used_bytes", None),
            ("http_server_request_duration_seconds_count", None),
            ("service_replica_error_percent", None),
            ("temperature_of_the_soup", None),
        ] {
            assert_eq!(meaning(signal).map(|m| (m.slot, m.factor)), want, "{signal}");
        }
    }

    #[test]
    fn room_is_bounded_and_given_back() {
        let mut seen = Seen::default();
        for i in 0..10 {
            let id = EntityId::new("c", "service", "", &format!("s{i}"));
            assert_eq!(seen.add(&id, "cpu_pct", at(i), 1.0, 4), i < 4);
        }
        assert_eq!(seen.series(), 4);
        seen.forget_before(at(2));
        assert_eq!(seen.series(), 2);
    }
}
