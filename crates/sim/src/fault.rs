//! What can go wrong in the estate, and what only looks like it.

use crate::spec::{EstateSpec, Part};
use nightshift_model::FaultClass;
use serde::{Deserialize, Serialize};

macro_rules! faults {
    ($($variant:ident $slug:literal $class:expr, $doc:literal;)*) => {
        /// A kind of fault, or of a harmless look-alike.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub enum SimFault {
            $(#[doc = $doc] $variant,)*
        }

        impl SimFault {
            /// Every one, faults first, look-alikes last.
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            /// Its stable name.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $slug,)* }
            }

            /// Its class in the catalogue; `None` for a look-alike.
            pub const fn class(self) -> Option<FaultClass> {
                match self { $(Self::$variant => $class,)* }
            }

            /// What it is, one line.
            pub const fn about(self) -> &'static str {
                match self { $(Self::$variant => $doc,)* }
            }
        }
    };
}

faults! {
    LatencySpike "latency_spike" Some(FaultClass::LatencySpike), "Workers of every replica hang on a call that does not return; a restart frees them.";
    ErrorRateSpike "error_rate_spike" Some(FaultClass::ErrorRateSpike), "Replicas hold a broken state in memory and fail; a restart clears it.";
    CpuSaturation "cpu_saturation" Some(FaultClass::CpuSaturation), "Expensive work arrives and fills the CPU; more replicas share it.";
    MemoryLeak "memory_leak" Some(FaultClass::MemoryLeak), "Memory grows fast towards the limit; a restart buys time.";
    DbConnectionExhaustion "db_connection_exhaustion" Some(FaultClass::DbConnectionExhaustion), "Transactions hang under load and keep their connections; recycling frees them, limiting callers keeps them free, more replicas take more.";
    KafkaConsumerLag "kafka_consumer_lag" Some(FaultClass::KafkaConsumerLag), "Messages cost more than before and consumers fall behind; more consumers catch up, as far as there are partitions.";
    DeploymentFailure "deployment_failure" Some(FaultClass::DeploymentFailure), "A new version fails; only the version before heals it.";
    BadFlag "bad_flag" Some(FaultClass::BadConfig), "A feature flag was flipped and requests fail; flipped back, they do not.";
    RetryStorm "retry_storm" Some(FaultClass::RetryStorm), "A dependency was slow for a moment, and its callers' retries keep it down; less traffic or more replicas let it up.";
    NoisyNeighbour "noisy_neighbour" Some(FaultClass::NoisyNeighbour), "Another tenant of a node takes its CPU; what runs there is slow until it is moved.";
    DiskFilling "disk_filling" Some(FaultClass::DiskFull), "A log grows on the disk of a database until writes fail; cleaning stops it, a larger disk buys time.";
    CertificateExpiry "certificate_expiry" Some(FaultClass::CertificateExpiry), "An expired certificate is served and handshakes fail; a renewed one heals.";
    DnsFailure "dns_failure" Some(FaultClass::DnsFailure), "The resolver answers a part of the queries with an error; its restart heals.";
    CacheStampede "cache_stampede" Some(FaultClass::CacheStampede), "Keys expire all at once and every miss goes to the database; warming it with spread lifetimes heals.";
    ThunderingHerd "thundering_herd" Some(FaultClass::TrafficSurge), "After a restart all clients connect again at once, more than the service can take.";
    CascadingTimeout "cascading_timeout" Some(FaultClass::CascadeFailure), "A service at the bottom hangs, its callers run out of workers, and their callers fail.";
    GradualLeak "gradual_leak" Some(FaultClass::MemoryLeak), "Memory creeps up for hours; at 90 % of the limit collections begin to thrash.";
    PartialReplicaFailure "partial_replica_failure" Some(FaultClass::PartialReplicaFailure), "One replica fails nearly everything that it gets; replacing it heals.";
    MisroutedTraffic "misrouted_traffic" Some(FaultClass::MisroutedTraffic), "Route weights send requests where they do not belong; the former weights heal.";
    TrafficSurge "traffic_surge" Some(FaultClass::TrafficSurge), "More requests than the service can take; more replicas or fewer requests heal.";
    NodeNotReady "node_not_ready" Some(FaultClass::NodeNotReady), "A node stops answering and what runs there is gone; draining it moves the replicas.";
    DatabasePrimaryLost "database_primary_lost" Some(FaultClass::DependencyOutage), "The primary of a database is gone; its standby must take over.";
    LockContention "lock_contention" Some(FaultClass::LockContention), "A transaction holds a lock that many wait for; closing the connections frees it.";
    CrashLoop "crash_loop" Some(FaultClass::CrashLoop), "A new image crashes at start again and again; the image before runs.";
    OomKill "oom_kill" Some(FaultClass::OomKill), "The memory limit was set too low and replicas are killed; a higher limit heals.";

    BatchJob "batch_job" None, "A planned batch job, announced: CPU is busy, requests are served as ever.";
    MarketingPeak "marketing_peak" None, "A campaign, announced: more traffic, within what the services can take.";
    Canary "canary" None, "A canary of a new version: a few more errors, within the objective, for a minute.";
    Autoscaling "autoscaling" None, "The autoscaler adds replicas and takes them away again.";
    ClockStep "clock_step" None, "The clock of the scraper steps.";
    MissingScrape "missing_scrape" None, "Scrapes of one service fail for up to a minute.";
}

impl SimFault {
    /// The seven that the estate was first made for.
    pub const SEVEN: [Self; 7] = [
        Self::LatencySpike,
        Self::ErrorRateSpike,
        Self::CpuSaturation,
        Self::MemoryLeak,
        Self::DbConnectionExhaustion,
        Self::KafkaConsumerLag,
        Self::DeploymentFailure,
    ];

    /// Whether nothing is wrong at all.
    pub const fn is_lookalike(self) -> bool {
        self.class().is_none()
    }

    /// The faults.
    pub fn faults() -> impl Iterator<Item = Self> {
        Self::ALL.iter().copied().filter(|f| !f.is_lookalike())
    }

    /// The faults of a class: what a hypothesis may mean in an estate.
    pub fn of_class(class: FaultClass) -> impl Iterator<Item = Self> {
        Self::faults().filter(move |f| f.class() == Some(class))
    }

    /// The look-alikes.
    pub fn lookalikes() -> impl Iterator<Item = Self> {
        Self::ALL.iter().copied().filter(|f| f.is_lookalike())
    }

    /// Parts of an estate that it can hit. Empty when the estate has none of that sort.
    pub fn targets(self, spec: &EstateSpec) -> Vec<Part> {
        let services = |want: &dyn Fn(usize) -> bool| -> Vec<Part> {
            (0..spec.services.len()).filter(|i| want(*i)).map(Part::Service).collect()
        };
        let called = |i: usize| spec.services.iter().any(|s| s.calls.iter().any(|c| c.to == i && c.share >= 0.2));
        match self {
            Self::DbConnectionExhaustion => services(&|i| spec.services[i].pool.is_some()),
            Self::KafkaConsumerLag => services(&|i| spec.services[i].consumer.is_some()),
            Self::CacheStampede => services(&|i| spec.services[i].cache.is_some()),
            Self::CertificateExpiry => services(&|i| spec.services[i].certificate_days.is_some()),
            Self::BadFlag => services(&|i| !spec.services[i].flags.is_empty()),
            Self::MisroutedTraffic => services(&|i| spec.services[i].routes.len() > 1),
            // What nobody calls cannot drag anybody down.
            Self::RetryStorm | Self::CascadingTimeout => {
                let leaf = services(&|i| called(i) && spec.services[i].calls.is_empty());
                if leaf.is_empty() { services(&called) } else { leaf }
            }
            // Clients come back at the doors of the estate.
            Self::ThunderingHerd | Self::TrafficSurge | Self::MarketingPeak => {
                services(&|i| spec.services[i].external_rps > 0.5 * spec.services[i].rest_rps)
            }
            Self::NoisyNeighbour | Self::NodeNotReady if spec.nodes.len() > 1 => {
                (0..spec.nodes.len()).map(Part::Node).collect()
            }
            Self::NoisyNeighbour | Self::NodeNotReady => Vec::new(),
            Self::DiskFilling | Self::LockContention => (0..spec.databases.len()).map(Part::Database).collect(),
            Self::DatabasePrimaryLost => {
                (0..spec.databases.len()).filter(|i| spec.databases[*i].standby).map(Part::Database).collect()
            }
            Self::DnsFailure => spec.resolver.iter().map(|_| Part::Resolver).collect(),
            Self::PartialReplicaFailure => services(&|i| spec.services[i].replicas > 1),
            _ => services(&|_| true),
        }
    }

    /// Where the issue's own example of it happens, when the estate has a service of that name.
    fn usual_target(self, spec: &EstateSpec) -> Option<Part> {
        let name = match self {
            Self::LatencySpike | Self::DbConnectionExhaustion | Self::CertificateExpiry => "payment-service",
            Self::ErrorRateSpike | Self::KafkaConsumerLag | Self::PartialReplicaFailure => "order-service",
            Self::CpuSaturation | Self::ThunderingHerd | Self::MarketingPeak | Self::Autoscaling => "api-gateway",
            Self::MemoryLeak => "notification-service",
            Self::DeploymentFailure | Self::CacheStampede | Self::MisroutedTraffic | Self::Canary => "user-service",
            Self::RetryStorm | Self::CascadingTimeout | Self::BadFlag | Self::BatchJob => "inventory-service",
            _ => return None,
        };
        spec.service(name).map(Part::Service)
    }
}

/// One fault (or look-alike) with every choice made. Times are seconds of the simulation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct InjectedFault {
    /// What.
    pub kind: SimFault,
    /// Where.
    pub part: TargetPart,
    /// When it begins.
    pub start_secs: f64,
    /// Seconds until it is at its height.
    pub ramp_secs: f64,
    /// Seconds at its height.
    pub hold_secs: f64,
    /// Seconds in which it fades.
    pub recovery_secs: f64,
    /// How bad at its height, in the unit that the kind has; see [`InjectedFault::usual`].
    pub magnitude: f64,
}

/// [`Part`] in a form that can be written down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TargetPart {
    /// A service, by index.
    Service(usize),
    /// A database, by index.
    Database(usize),
    /// A node, by index.
    Node(usize),
    /// The resolver.
    Resolver,
}

impl TargetPart {
    /// As a part of an estate.
    pub const fn part(self) -> Part {
        match self {
            Self::Service(i) => Part::Service(i),
            Self::Database(i) => Part::Database(i),
            Self::Node(i) => Part::Node(i),
            Self::Resolver => Part::Resolver,
        }
    }

    /// From a part of an estate; `None` for a topic, which nothing can hit.
    pub const fn of(part: Part) -> Option<Self> {
        match part {
            Part::Service(i) => Some(Self::Service(i)),
            Part::Database(i) => Some(Self::Database(i)),
            Part::Node(i) => Some(Self::Node(i)),
            Part::Resolver => Some(Self::Resolver),
            Part::Topic(_) => None,
        }
    }
}

impl InjectedFault {
    /// A fault of usual size at its usual place, or the first place that the estate has for it. `None` when it has none.
    ///
    /// | kind | magnitude |
    /// | --- | --- |
    /// | latency spike, cascading timeout, lock contention | p99 at its height, ms |
    /// | error rate spike, deployment, flag, partial failure, misrouting, certificate, DNS | share that fails (of the replica, the route, the handshakes, the queries), 0..1 |
    /// | CPU saturation, batch job | CPU at its height, percent |
    /// | leaks | memory at its height, percent |
    /// | connections | connections held at its height |
    /// | lag | messages behind at its height |
    /// | retry storm | attempts for each call |
    /// | noisy neighbour | share of the node's CPU that is taken |
    /// | disk | percent of the disk that is written in a minute |
    /// | stampede | share of the cache's answers that is lost |
    /// | herd, surge, peak | times the traffic at rest |
    /// | OOM kill | new limit as a share of the old one |
    /// | canary | errors added, percent |
    /// | autoscaling | replicas added |
    /// | clock step | seconds, either sign |
    pub fn usual(kind: SimFault, spec: &EstateSpec, start_secs: f64) -> Option<Self> {
        let targets = kind.targets(spec);
        let part = kind.usual_target(spec).filter(|t| targets.contains(t)).or_else(|| targets.first().copied())?;
        Self::at(kind, spec, part, start_secs)
    }

    /// The same at a part of one's choice; `None` when that sort of part cannot have it.
    pub fn at(kind: SimFault, spec: &EstateSpec, part: Part, start_secs: f64) -> Option<Self> {
        if !kind.targets(spec).contains(&part) {
            return None;
        }
        let service = match part {
            Part::Service(i) => spec.services.get(i),
            _ => None,
        };
        let p99 = service.map_or(100.0, |s| s.p99_ms);
        let connections = service.and_then(|s| s.pool.as_ref()).map_or(100.0, |p| p.max);
        let lag = service.and_then(|s| s.consumer.as_ref()).map_or(50_000.0, |c| spec.topics[c.topic].lag_max);
        // (ramp, whole duration, recovery, magnitude)
        let (ramp, whole, recovery, magnitude) = match kind {
            SimFault::LatencySpike => (30.0, 240.0, 30.0, p99 * 7_380.0 / 380.0),
            SimFault::ErrorRateSpike => (25.0, 180.0, 25.0, 0.45),
            SimFault::CpuSaturation => (30.0, 300.0, 30.0, 97.0),
            SimFault::MemoryLeak => (60.0, 360.0, 30.0, 98.0),
            SimFault::DbConnectionExhaustion => (30.0, 200.0, 20.0, connections),
            SimFault::KafkaConsumerLag => (5.0, 300.0, 10.0, lag),
            SimFault::DeploymentFailure => (1.0, 240.0, 20.0, 0.40),
            SimFault::BadFlag => (8.0, 300.0, 10.0, 0.28),
            SimFault::RetryStorm => (8.0, 300.0, 10.0, 9.0),
            SimFault::NoisyNeighbour => (15.0, 300.0, 20.0, 0.6),
            SimFault::DiskFilling => (5.0, 400.0, 20.0, 15.0),
            SimFault::CertificateExpiry => (20.0, 300.0, 10.0, 0.8),
            SimFault::DnsFailure => (15.0, 240.0, 15.0, 0.5),
            SimFault::CacheStampede => (8.0, 280.0, 20.0, 0.9),
            SimFault::ThunderingHerd => (10.0, 240.0, 30.0, 4.6),
            SimFault::CascadingTimeout => (20.0, 260.0, 20.0, 20_000.0),
            SimFault::GradualLeak => (5_400.0, 6_000.0, 30.0, 90.0),
            SimFault::PartialReplicaFailure => (6.0, 300.0, 10.0, 0.9),
            SimFault::MisroutedTraffic => (4.0, 260.0, 5.0, 0.45),
            SimFault::TrafficSurge => (25.0, 280.0, 30.0, 4.4),
            SimFault::NodeNotReady => (1.0, 280.0, 1.0, 1.0),
            SimFault::DatabasePrimaryLost => (2.0, 240.0, 2.0, 0.85),
            SimFault::LockContention => (12.0, 240.0, 12.0, 900.0),
            SimFault::CrashLoop => (1.0, 280.0, 5.0, 1.0),
            SimFault::OomKill => (1.0, 280.0, 5.0, service.map_or(0.45, |s| 0.92 * s.memory_percent / 100.0)),
            SimFault::BatchJob => (20.0, 240.0, 20.0, service.map_or(60.0, |s| s.cpu_percent + 28.0)),
            SimFault::MarketingPeak => (60.0, 300.0, 60.0, 1.75),
            SimFault::Canary => (2.0, 90.0, 5.0, 0.15),
            SimFault::Autoscaling => (1.0, 240.0, 1.0, 2.0),
            SimFault::ClockStep => (0.0, 120.0, 0.0, 30.0),
            SimFault::MissingScrape => (0.0, 45.0, 0.0, 1.0),
        };
        // A gradual leak is at its height when it is noticed: it began long before.
        let start_secs = if kind == SimFault::GradualLeak { start_secs - ramp } else { start_secs };
        Some(Self {
            kind,
            part: TargetPart::of(part)?,
            start_secs,
            ramp_secs: ramp,
            hold_secs: whole - ramp - recovery,
            recovery_secs: recovery,
            magnitude,
        })
    }

    /// When it is over.
    pub fn end_secs(&self) -> f64 {
        self.start_secs + self.ramp_secs + self.hold_secs + self.recovery_secs
    }

    /// When it begins to fade.
    pub(crate) fn fade_secs(&self) -> f64 {
        self.start_secs + self.ramp_secs + self.hold_secs
    }

    /// How strong it is at a moment: 0 before and after, 1 at its height, linear between.
    pub fn intensity(&self, now_secs: f64) -> f64 {
        let since = now_secs - self.start_secs;
        if since < 0.0 || now_secs >= self.end_secs() {
            return 0.0;
        }
        if since < self.ramp_secs {
            return (since / self.ramp_secs).clamp(0.0, 1.0);
        }
        let left = self.end_secs() - now_secs;
        if left < self.recovery_secs { (left / self.recovery_secs).clamp(0.0, 1.0) } else { 1.0 }
    }
}
