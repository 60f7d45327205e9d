//! Reading the meters: one value for each series, with noise.

use super::World;
use crate::chance::{Stream, signed};
use crate::fault::SimFault;
use crate::spec::Part;
use crate::telemetry::{Meter, Scrape, SeriesDef};
use std::time::Duration;

impl World {
    /// Reads everything into `out`, whose buffers are reused.
    pub fn scrape(&mut self, out: &mut Scrape) {
        out.clear();
        let now = self.now_secs();
        out.at = self.now();
        let mut silent = None;
        for fault in self.faults.iter().filter(|f| f.intensity(now) > 0.0) {
            match (fault.kind, fault.part.part()) {
                (SimFault::ClockStep, _) => {
                    let by = Duration::from_millis((fault.magnitude.abs() * 1_000.0) as u64);
                    out.at = if fault.magnitude < 0.0 { out.at - by } else { out.at + by };
                }
                (SimFault::MissingScrape, Part::Service(i)) => silent = Some(i as u32),
                _ => {}
            }
        }
        let series = std::sync::Arc::clone(&self.series);
        out.values.reserve(series.len());
        for (n, def) in series.iter().enumerate() {
            let value = if silent == Some(def.entity_index) { f64::NAN } else { self.reading(n, def, now) };
            out.values.push(value);
        }
        std::mem::swap(&mut out.logs, &mut self.pending.logs);
        std::mem::swap(&mut out.text, &mut self.pending.text);
        std::mem::swap(&mut out.spans, &mut self.pending.spans);
        std::mem::swap(&mut out.changes, &mut self.pending.changes);
    }

    /// The value of one series as it would be scraped now; `None` when there is no such series.
    pub fn value(&self, series: usize) -> Option<f64> {
        self.series.get(series).map(|def| self.reading(series, def, self.now_secs()))
    }

    fn reading(&self, n: usize, def: &SeriesDef, now: f64) -> f64 {
        let exact = self.exact(def, now);
        if !self.noisy || def.noise <= 0.0 {
            return exact;
        }
        let noisy = exact * (1.0 + def.noise * signed(self.seed, Stream::Noise(n as u32), self.ticks));
        match def.meter {
            Meter::Cpu | Meter::Memory | Meter::Errors | Meter::CacheHits | Meter::DbCpu | Meter::DbDisk => {
                noisy.clamp(0.0, 100.0)
            }
            Meter::NodeCpu | Meter::NodeSteal | Meter::DnsFailures | Meter::ReplicaErrors(_) => noisy.clamp(0.0, 100.0),
            Meter::Connections => noisy.round().min(self.services[def.entity_index as usize].pool_max),
            Meter::Lag | Meter::Queue | Meter::DbLocks => noisy.round(),
            _ => noisy,
        }
    }

    /// The value without noise.
    pub(crate) fn exact(&self, def: &SeriesDef, now: f64) -> f64 {
        let at = def.entity_index as usize;
        let (ns, nd, nt) = (self.services.len(), self.databases.len(), self.spec.topics.len());
        if at < ns {
            return self.service_value(at, def.meter, now);
        }
        match def.meter {
            Meter::DbCpu => self.databases[at - ns].cpu,
            Meter::DbLatency => self.databases[at - ns].p99_ms,
            Meter::DbDisk => 100.0 * self.databases[at - ns].disk_used_gb / self.databases[at - ns].disk_gb.max(1e-9),
            Meter::DbLocks => 1.0 + 0.8 * self.databases[at - ns].locks,
            Meter::DbUp => f64::from(u8::from(self.databases[at - ns].up)),
            Meter::TopicRate => self.spec.topics[at - ns - nd].rate * self.load_factor(now),
            Meter::NodeCpu => self.nodes[at - ns - nd - nt].cpu,
            // A hypervisor always takes a little.
            Meter::NodeSteal => 0.8 + 100.0 * self.nodes[at - ns - nd - nt].steal,
            Meter::NodeReady => f64::from(u8::from(self.nodes[at - ns - nd - nt].ready)),
            Meter::DnsRate => self.resolver.rate,
            Meter::DnsFailures => 0.2 + 99.8 * self.resolver.failing,
            Meter::DnsLatency => {
                self.spec.resolver.as_ref().map_or(0.0, |r| r.p99_ms) * (1.0 + 30.0 * self.resolver.failing)
            }
            _ => f64::NAN,
        }
    }

    fn service_value(&self, i: usize, meter: Meter, now: f64) -> f64 {
        let s = &self.services[i];
        let m = &s.measured;
        match meter {
            Meter::Rate => m.rate,
            Meter::Errors => 100.0 * m.errors,
            Meter::Latency => m.p99_ms,
            Meter::Cpu => m.cpu,
            Meter::Memory => m.memory,
            Meter::Connections => m.connections.round(),
            Meter::Lag => m.lag.round(),
            Meter::ReplicasReady => {
                let up = |r: &&super::state::Replica| {
                    r.ready_at <= now && self.nodes.get(usize::from(r.node)).is_none_or(|n| n.ready)
                };
                s.replicas.iter().filter(up).count() as f64
            }
            Meter::Queue => m.queue.round(),
            Meter::Retries => m.retries,
            Meter::DnsErrors => m.dns_errors,
            Meter::CacheHits => 100.0 * s.hits,
            Meter::CertificateDays => (s.certificate_end - now) / 86_400.0,
            Meter::Restarts => s.restarts,
            Meter::Misdirected => m.misdirected,
            Meter::ReplicaErrors(r) => s
                .replicas
                .get(usize::from(r))
                .map_or(f64::NAN, |r| if r.ready_at <= now { 100.0 * r.errors } else { f64::NAN }),
            Meter::ReplicaOutliers => f64::from(self.outliers(i, now)),
            _ => f64::NAN,
        }
    }

    /// Pods that fail far more than the others, as a load balancer's outlier detection counts them.
    fn outliers(&self, i: usize, now: f64) -> u32 {
        let pods = || self.services[i].replicas.iter().filter(|r| r.ready_at <= now);
        let best = pods().map(|r| r.errors).fold(f64::INFINITY, f64::min);
        let all = pods().count();
        let out = pods().filter(|r| r.errors > 0.05 && r.errors > 5.0 * best).count();
        // Half of them are no outliers any more.
        if 2 * out < all { out as u32 } else { 0 }
    }
}
