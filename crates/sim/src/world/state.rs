//! What changes while the estate runs.

use crate::spec::{EstateSpec, ServiceSpec};

/// Versions, by their place in [`Service::versions`].
pub(crate) type Version = u16;

/// One pod.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Replica {
    /// When it was started.
    pub(crate) born: f64,
    /// From when it takes requests.
    pub(crate) ready_at: f64,
    /// Memory beyond what it needs, percent of the limit that the spec names.
    pub(crate) leak: f64,
    /// How much it collects garbage instead of working, 0..1.
    pub(crate) thrash: f64,
    pub(crate) version: Version,
    pub(crate) node: u16,
    /// Share of its requests that failed in the last step.
    pub(crate) errors: f64,
}

impl Replica {
    /// A pod that starts; `cold` is how much less memory it has in use than later, in points (0 or less).
    pub(crate) const fn fresh(born: f64, ready_at: f64, version: Version, node: u16, cold: f64) -> Self {
        Self { born, ready_at, leak: cold, thrash: 0.0, version, node, errors: 0.0 }
    }
}

/// A replacement of pods under way.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Roll {
    /// Pods born before are still to be replaced.
    pub(crate) before: f64,
    /// Pods at once.
    pub(crate) batch: usize,
    /// Pods to replace in all; more than there are means every one.
    pub(crate) left: usize,
    /// Seconds from the start of a pod until it is ready.
    pub(crate) takes: f64,
    /// The old pod serves until the new one is ready.
    pub(crate) surge: bool,
    /// What the new pods run.
    pub(crate) version: Version,
}

/// Work that came and what became of it, in requests.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Totals {
    /// Arrived, retries included.
    pub arrived: f64,
    /// Answered well.
    pub served: f64,
    /// Failed, timed out or refused.
    pub failed: f64,
    /// Turned away by a limit on traffic.
    pub throttled: f64,
}

/// What faults do to a service in this step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Effects {
    /// Factor on requests from outside.
    pub(crate) surge: f64,
    /// Share of the requests that a surge adds which go further than this service.
    pub(crate) surge_sent_on: f64,
    /// CPU taken beside requests, in percent of all replicas at rest.
    pub(crate) work: f64,
    /// Factor on the CPU that a request costs.
    pub(crate) cost: f64,
    /// Factor on latency, and share of errors, of pods born before `before`.
    pub(crate) slow: f64,
    pub(crate) errors: f64,
    pub(crate) before: f64,
    /// The same, of this one pod only.
    pub(crate) only: Option<u16>,
    /// Share of errors of pods of this version.
    pub(crate) version: Option<(Version, f64)>,
    /// Pods of this version crash at start.
    pub(crate) crash: Option<Version>,
    /// Share of errors and factor on latency of every request.
    pub(crate) all_errors: f64,
    pub(crate) all_slow: f64,
    /// Points of memory a second.
    pub(crate) leak: f64,
    /// No leak goes beyond this, points.
    pub(crate) leak_max: f64,
    /// Connections a second that hang at the load of rest.
    pub(crate) stuck: f64,
    /// Share of handshakes that fail.
    pub(crate) handshakes: f64,
    /// Share of cached answers that are lost.
    pub(crate) expire: f64,
    /// Attempts for each call to this service, without a budget.
    pub(crate) attempts: f64,
    /// Messages that a consumer takes fewer of, a second, over all at rest.
    pub(crate) slow_messages: f64,
    /// Share of misdirected requests that fail.
    pub(crate) misdirect: f64,
    /// Some fault leaks into this service, or makes its connections hang.
    pub(crate) leaking: bool,
}

impl Default for Effects {
    fn default() -> Self {
        Self {
            surge: 1.0,
            surge_sent_on: 1.0,
            work: 0.0,
            cost: 1.0,
            slow: 1.0,
            errors: 0.0,
            before: 0.0,
            only: None,
            version: None,
            crash: None,
            all_errors: 0.0,
            all_slow: 1.0,
            leak: 0.0,
            leak_max: f64::INFINITY,
            stuck: 0.0,
            handshakes: 0.0,
            expire: 0.0,
            attempts: 1.0,
            slow_messages: 0.0,
            misdirect: 0.0,
            leaking: false,
        }
    }
}

/// What was measured in the last step.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(crate) struct Measured {
    /// Requests a second that reached it.
    pub(crate) rate: f64,
    /// Retries among what arrived, a second.
    pub(crate) retries: f64,
    /// Share that failed.
    pub(crate) errors: f64,
    pub(crate) p99_ms: f64,
    /// Time that a request waits before it is worked on, ms.
    pub(crate) wait_ms: f64,
    pub(crate) cpu: f64,
    pub(crate) memory: f64,
    pub(crate) connections: f64,
    pub(crate) queue: f64,
    pub(crate) dns_errors: f64,
    pub(crate) misdirected: f64,
    pub(crate) lag: f64,
    /// Share of requests that found no connection, no worker.
    pub(crate) no_connection: f64,
    pub(crate) no_worker: f64,
    /// Share of requests whose call to a dependency failed.
    pub(crate) calls_failed: f64,
    /// Requests a second that it accepted: what it sends on follows.
    pub(crate) accepted: f64,
}

/// A service while it runs.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Service {
    pub(crate) replicas: Vec<Replica>,
    pub(crate) desired: u32,
    pub(crate) versions: Vec<String>,
    pub(crate) version: Version,
    pub(crate) previous: Version,
    pub(crate) flags: Vec<bool>,
    pub(crate) weights: Vec<f64>,
    /// Requests a second that are let in at most.
    pub(crate) limit_rps: f64,
    pub(crate) pool_max: f64,
    pub(crate) memory_limit_mb: f64,
    /// Connections that hang.
    pub(crate) stuck: f64,
    /// Requests that wait.
    pub(crate) backlog: f64,
    /// Share of requests that the cache answers.
    pub(crate) hits: f64,
    /// Simulated second at which its certificate ends.
    pub(crate) certificate_end: f64,
    /// Faults in the certificate or the keys' lifetimes that began before this are repaired.
    pub(crate) certificate_renewed: f64,
    pub(crate) cache_warmed: f64,
    /// Messages beyond those that are just being taken.
    pub(crate) behind: f64,
    pub(crate) restarts: f64,
    pub(crate) roll: Option<Roll>,
    pub(crate) totals: Totals,
    pub(crate) measured: Measured,
    /// Arrivals from callers in this step, a second, and retries among them.
    pub(crate) inflow: f64,
    pub(crate) inflow_retries: f64,
    /// Queue factor at rest.
    pub(crate) rest_queueing: f64,
    /// Requests a second that one replica can take.
    pub(crate) replica_rps: f64,
    /// Replicas at rest.
    pub(crate) rest_replicas: f64,
}

/// A database while it runs.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Database {
    pub(crate) rest_queries: f64,
    pub(crate) queries: f64,
    pub(crate) backlog: f64,
    pub(crate) p99_ms: f64,
    pub(crate) cpu: f64,
    pub(crate) disk_gb: f64,
    /// GiB in use.
    pub(crate) disk_used_gb: f64,
    pub(crate) locks: f64,
    pub(crate) up: bool,
    /// Share of queries that fail.
    pub(crate) errors: f64,
    /// Faults that began before this are repaired.
    pub(crate) cleaned: f64,
    pub(crate) unlocked: f64,
    pub(crate) failed_over: f64,
    /// The standby takes over at this moment.
    pub(crate) failover_at: f64,
    pub(crate) primary: u32,
}

/// A node while it runs.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Node {
    pub(crate) steal: f64,
    pub(crate) ready: bool,
    /// Since when it does not answer.
    pub(crate) lost_at: f64,
    pub(crate) cordoned: bool,
    pub(crate) cpu: f64,
}

/// The resolver while it runs.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Resolver {
    pub(crate) failing: f64,
    pub(crate) restarted: f64,
    pub(crate) down_until: f64,
    pub(crate) rate: f64,
}

impl Service {
    pub(crate) fn new(index: usize, spec: &ServiceSpec, nodes: usize) -> Self {
        let replicas = (0..spec.replicas)
            .map(|r| Replica {
                born: f64::NEG_INFINITY,
                ready_at: f64::NEG_INFINITY,
                leak: 0.0,
                thrash: 0.0,
                version: 1,
                node: ((index + r as usize) % nodes.max(1)) as u16,
                errors: 0.0,
            })
            .collect();
        let capacity = spec.capacity_rps();
        let rest = f64::from(spec.replicas.max(1));
        let servers = rest * f64::from(spec.cores);
        Self {
            replicas,
            desired: spec.replicas,
            versions: vec![spec.previous_version.clone(), spec.version.clone()],
            version: 1,
            previous: 0,
            flags: spec.flags.iter().map(|(_, v)| *v).collect(),
            weights: spec.routes.iter().map(|(_, w)| *w).collect(),
            limit_rps: f64::INFINITY,
            pool_max: spec.pool.as_ref().map_or(0.0, |p| p.max),
            memory_limit_mb: spec.memory_limit_mb,
            stuck: 0.0,
            backlog: 0.0,
            hits: spec.cache.as_ref().map_or(0.0, |c| c.hit_ratio),
            certificate_end: spec.certificate_days.unwrap_or(f64::INFINITY) * 86_400.0,
            certificate_renewed: f64::NEG_INFINITY,
            cache_warmed: f64::NEG_INFINITY,
            behind: 0.0,
            restarts: 0.0,
            roll: None,
            totals: Totals::default(),
            measured: Measured {
                p99_ms: spec.p99_ms,
                errors: spec.error_percent / 100.0,
                rate: spec.rest_rps,
                memory: spec.memory_percent,
                cpu: spec.cpu_percent,
                accepted: spec.rest_rps,
                ..Measured::default()
            },
            inflow: 0.0,
            inflow_retries: 0.0,
            rest_queueing: queueing(spec.rest_rps / capacity.max(1e-9), servers),
            replica_rps: capacity / rest,
            rest_replicas: rest,
        }
    }

    pub(crate) fn ready(&self, now: f64) -> usize {
        self.replicas.iter().filter(|r| r.ready_at <= now).count()
    }

    /// Queries that each of its requests costs its database.
    pub(crate) fn queries_each(&self, spec: &ServiceSpec) -> f64 {
        match (&spec.cache, spec.database) {
            (_, None) => 0.0,
            (Some(c), _) => (1.0 - self.hits) * c.miss_queries,
            (None, _) => 1.0,
        }
    }
}

/// Waiting in units of the service time, for `servers` servers at this utilisation: Sakasegawa's approximation of
/// M/M/c (Annals of the Institute of Statistical Mathematics 29, 1977). Beyond 98 % the backlog is what waits.
pub(crate) fn queueing(utilisation: f64, servers: f64) -> f64 {
    let rho = utilisation.clamp(0.0, 0.98);
    let c = servers.max(1.0);
    rho.powf((2.0 * (c + 1.0)).sqrt()) / (c * (1.0 - rho))
}

/// Databases at rest: what their callers ask when nothing is wrong.
pub(crate) fn databases(spec: &EstateSpec, services: &[Service]) -> Vec<Database> {
    let mut out: Vec<Database> = spec
        .databases
        .iter()
        .map(|d| Database {
            rest_queries: 0.0,
            queries: 0.0,
            backlog: 0.0,
            p99_ms: d.p99_ms,
            cpu: d.cpu_percent,
            disk_gb: d.disk_gb,
            disk_used_gb: d.disk_gb * d.disk_used_percent / 100.0,
            locks: 0.0,
            up: true,
            errors: 0.0,
            cleaned: f64::NEG_INFINITY,
            unlocked: f64::NEG_INFINITY,
            failed_over: f64::NEG_INFINITY,
            failover_at: f64::INFINITY,
            primary: 0,
        })
        .collect();
    for (service, spec) in services.iter().zip(&spec.services) {
        if let Some(d) = spec.database.and_then(|d| out.get_mut(d)) {
            d.rest_queries += spec.rest_rps * service.queries_each(spec);
        }
    }
    out
}
