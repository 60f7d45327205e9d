//! What an estate consists of: every parameter of the model, public, so that a fitted copy can be built.

use nightshift_model::{EntityId, EntityMeta, Timestamp};
use serde::{Deserialize, Serialize};

/// A whole estate.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EstateSpec {
    /// Tenant of its changes.
    pub tenant: String,
    /// First part of every id.
    pub cluster: String,
    /// Namespace of services, databases and topics.
    pub namespace: String,
    /// Environment of every entity.
    pub environment: String,
    /// Wall clock at simulated second 0.
    pub start: Timestamp,
    /// Seconds of one step, above 0.
    pub dt_secs: f64,
    /// Half width of the noise on signals, as a share: 0.08 is ±8 %, evenly spread.
    pub noise: f64,
    /// How the load moves.
    pub load: LoadSpec,
    /// Callers need not stand before those they call.
    pub services: Vec<ServiceSpec>,
    /// Databases.
    pub databases: Vec<DatabaseSpec>,
    /// Kafka topics.
    pub topics: Vec<TopicSpec>,
    /// Machines that replicas run on.
    pub nodes: Vec<NodeSpec>,
    /// The resolver that all of them ask; `None`: names never fail.
    pub resolver: Option<ResolverSpec>,
}

/// How the load from outside moves around its rest value.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LoadSpec {
    /// Swing over a day, as a share: lowest at 04:00 UTC, highest at 16:00.
    pub day_share: f64,
    /// Highest burst, as a share.
    pub burst_share: f64,
    /// One burst begins in every stretch of this many seconds.
    pub burst_every_secs: f64,
    /// Constant factor on everything that comes from outside.
    pub factor: f64,
}

/// A service.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ServiceSpec {
    /// Name.
    pub name: String,
    /// Team that answers for it.
    pub owner: String,
    /// Whom to wake.
    pub on_call: String,
    /// P0 to P3.
    pub criticality: String,
    /// Availability promised, percent.
    pub sla_percent: f64,
    /// What it is written in.
    pub language: String,
    /// What an outage costs, in words.
    pub business_impact: String,
    /// Replicas at rest.
    pub replicas: u32,
    /// Fewest replicas that its owner allows.
    pub replicas_min: u32,
    /// Most replicas that its owner allows.
    pub replicas_max: u32,
    /// Cores of a replica: servers of its queue.
    pub cores: u32,
    /// Seconds until a new replica is ready.
    pub start_secs: f64,
    /// Requests a second at rest, from all sides.
    pub rest_rps: f64,
    /// The part of them that comes from outside the estate.
    pub external_rps: f64,
    /// 99th percentile of the latency at rest, ms.
    pub p99_ms: f64,
    /// CPU at rest, percent of the limit.
    pub cpu_percent: f64,
    /// CPU without any request, percent of the limit; below `cpu_percent`.
    pub cpu_idle_percent: f64,
    /// Memory at rest, percent of the limit.
    pub memory_percent: f64,
    /// Memory limit of a replica, MiB.
    pub memory_limit_mb: f64,
    /// Requests that fail at rest, percent.
    pub error_percent: f64,
    /// Requests that a replica works on at once at most.
    pub workers: u32,
    /// Requests that may wait per replica; more are refused.
    pub queue_max: u32,
    /// Its database, by index, when it has one.
    pub database: Option<usize>,
    /// Its pool of connections to that database.
    pub pool: Option<PoolSpec>,
    /// Its cache in front of that database.
    pub cache: Option<CacheSpec>,
    /// The topic it consumes.
    pub consumer: Option<ConsumerSpec>,
    /// Whom it calls.
    pub calls: Vec<CallSpec>,
    /// Its feature flags and their values.
    pub flags: Vec<(String, bool)>,
    /// Its routes and their weights; the first is where requests belong.
    pub routes: Vec<(String, f64)>,
    /// Version that runs.
    pub version: String,
    /// Version that ran before.
    pub previous_version: String,
    /// Days that its certificate is still valid; `None`: no certificate.
    pub certificate_days: Option<f64>,
}

/// A pool of database connections.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PoolSpec {
    /// Connections in use at rest.
    pub rest: f64,
    /// Connections at most, over all replicas.
    pub max: f64,
    /// Connections that every replica beyond those at rest keeps open and takes from the others.
    pub idle_per_replica: f64,
    /// Longest wait for a connection, ms; then the request fails.
    pub wait_ms: f64,
}

/// A cache.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CacheSpec {
    /// Share of requests that it answers at rest.
    pub hit_ratio: f64,
    /// Queries that a miss costs.
    pub miss_queries: f64,
    /// Seconds in which a cold cache warms to 63 %.
    pub warm_secs: f64,
}

/// A consumer of a topic. Each replica is one consumer, as long as there are partitions.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ConsumerSpec {
    /// The topic, by index.
    pub topic: usize,
    /// Messages a second that one consumer can take.
    pub per_replica: f64,
    /// Messages behind at rest.
    pub rest_lag: f64,
}

/// A dependency that is called.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CallSpec {
    /// The service called, by index.
    pub to: usize,
    /// Calls for each request.
    pub share: f64,
    /// Time after which the caller gives up, ms.
    pub timeout_ms: f64,
    /// Attempts after the first.
    pub retries: u32,
    /// Retries at most, as a share of the calls: the retry budget.
    pub retry_budget: f64,
    /// Share of failed calls that the caller can do without.
    pub fallback: f64,
}

/// A database.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DatabaseSpec {
    /// Name.
    pub name: String,
    /// Team that answers for it.
    pub owner: String,
    /// CPU at rest, percent.
    pub cpu_percent: f64,
    /// 99th percentile of a query at rest, ms.
    pub p99_ms: f64,
    /// Connections at most.
    pub connections_max: f64,
    /// Size of its disk, GiB.
    pub disk_gb: f64,
    /// Space in use, percent.
    pub disk_used_percent: f64,
    /// Whether there is a standby to fail over to.
    pub standby: bool,
}

/// A Kafka topic.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TopicSpec {
    /// Name.
    pub name: String,
    /// Messages a second at rest.
    pub rate: f64,
    /// Partitions: consumers beyond that many have nothing to do.
    pub partitions: u32,
    /// Messages behind at which producers are slowed down.
    pub lag_max: f64,
}

/// A machine.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NodeSpec {
    /// Name.
    pub name: String,
    /// CPU at rest, percent.
    pub cpu_percent: f64,
}

/// The resolver of names.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ResolverSpec {
    /// Name.
    pub name: String,
    /// Team that answers for it.
    pub owner: String,
    /// Its namespace.
    pub namespace: String,
    /// Replicas.
    pub replicas: u32,
    /// Queries a second at rest.
    pub rate: f64,
    /// 99th percentile of an answer at rest, ms.
    pub p99_ms: f64,
}

/// What a row of [`EstateSpec::entities`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Part {
    /// A service, by index.
    Service(usize),
    /// A database, by index.
    Database(usize),
    /// A topic, by index.
    Topic(usize),
    /// A node, by index.
    Node(usize),
    /// The resolver.
    Resolver,
}

impl ServiceSpec {
    /// A service with usual parameters: everything that is not said is roomy.
    pub fn new(name: &str, rest_rps: f64, p99_ms: f64) -> Self {
        let short = name.strip_suffix("-service").or_else(|| name.strip_prefix("api-")).unwrap_or(name);
        Self {
            name: name.to_owned(),
            owner: short.to_owned(),
            on_call: format!("{short}-oncall"),
            criticality: "P1".into(),
            sla_percent: 99.9,
            language: "go".into(),
            business_impact: String::new(),
            replicas: 3,
            replicas_min: 2,
            replicas_max: 12,
            cores: 4,
            start_secs: 5.0,
            rest_rps,
            external_rps: rest_rps,
            p99_ms,
            cpu_percent: 30.0,
            cpu_idle_percent: 6.0,
            memory_percent: 45.0,
            memory_limit_mb: 512.0,
            error_percent: 0.5,
            workers: 64,
            queue_max: 200,
            database: None,
            pool: None,
            cache: None,
            consumer: None,
            calls: Vec::new(),
            flags: Vec::new(),
            routes: vec![("stable".into(), 100.0), ("legacy".into(), 0.0)],
            version: "1.8.2".into(),
            previous_version: "1.8.1".into(),
            certificate_days: None,
        }
    }

    /// Requests a second that its replicas at rest can take with all of their CPU.
    pub fn capacity_rps(&self) -> f64 {
        let busy = (self.cpu_percent - self.cpu_idle_percent).max(0.1);
        self.rest_rps * (100.0 - self.cpu_idle_percent) / busy
    }
}

impl CallSpec {
    /// A call with usual parameters.
    pub const fn new(to: usize, share: f64) -> Self {
        Self { to, share, timeout_ms: 10_000.0, retries: 1, retry_budget: 0.1, fallback: 0.25 }
    }
}

impl EstateSpec {
    /// An estate with nothing in it.
    pub fn empty(cluster: &str) -> Self {
        Self {
            tenant: nightshift_model::DEFAULT_TENANT.into(),
            cluster: cluster.into(),
            namespace: "shop".into(),
            environment: "production".into(),
            // A Monday at ten: the load of a day is at its mean then.
            start: Timestamp::from_secs(1_767_607_200),
            dt_secs: 1.0,
            noise: 0.08,
            load: LoadSpec { day_share: 0.15, burst_share: 0.04, burst_every_secs: 600.0, factor: 1.0 },
            services: Vec::new(),
            databases: Vec::new(),
            topics: Vec::new(),
            nodes: Vec::new(),
            resolver: None,
        }
    }

    /// The service of this name.
    pub fn service(&self, name: &str) -> Option<usize> {
        self.services.iter().position(|s| s.name == name)
    }

    /// The id of a part.
    pub fn id(&self, part: Part) -> EntityId {
        let (kind, namespace, name) = match part {
            Part::Service(i) => ("service", self.namespace.as_str(), self.services.get(i).map(|s| s.name.as_str())),
            Part::Database(i) => ("database", self.namespace.as_str(), self.databases.get(i).map(|s| s.name.as_str())),
            Part::Topic(i) => ("topic", self.namespace.as_str(), self.topics.get(i).map(|s| s.name.as_str())),
            Part::Node(i) => ("node", "", self.nodes.get(i).map(|s| s.name.as_str())),
            Part::Resolver => {
                let r = self.resolver.as_ref();
                ("workload", r.map_or("", |r| r.namespace.as_str()), r.map(|r| r.name.as_str()))
            }
        };
        EntityId::new(&self.cluster, kind, namespace, name.unwrap_or_default())
    }

    /// Every part in the order in which telemetry counts entities: services, databases, topics, nodes, resolver.
    pub fn parts(&self) -> Vec<Part> {
        let mut out = Vec::new();
        out.extend((0..self.services.len()).map(Part::Service));
        out.extend((0..self.databases.len()).map(Part::Database));
        out.extend((0..self.topics.len()).map(Part::Topic));
        out.extend((0..self.nodes.len()).map(Part::Node));
        out.extend(self.resolver.iter().map(|_| Part::Resolver));
        out
    }

    /// Every entity, in the order of [`EstateSpec::parts`].
    pub fn entities(&self) -> Vec<EntityMeta> {
        let meta = |part: Part| {
            let mut meta = EntityMeta::bare(self.id(part));
            meta.environment.clone_from(&self.environment);
            match part {
                Part::Service(i) => {
                    meta.service.clone_from(&self.services[i].name);
                    meta.owner.clone_from(&self.services[i].owner);
                }
                Part::Database(i) => meta.owner.clone_from(&self.databases[i].owner),
                Part::Topic(_) | Part::Node(_) => "platform".clone_into(&mut meta.owner),
                Part::Resolver => {
                    self.resolver.iter().for_each(|r| meta.owner.clone_from(&r.owner));
                }
            }
            meta
        };
        self.parts().into_iter().map(meta).collect()
    }

    /// Services, callers before those they call. A circle is cut where it is met.
    pub(crate) fn callers_first(&self) -> Vec<usize> {
        fn visit(at: usize, spec: &EstateSpec, seen: &mut [bool], out: &mut Vec<usize>) {
            if std::mem::replace(&mut seen[at], true) {
                return;
            }
            for call in &spec.services[at].calls {
                if call.to < spec.services.len() {
                    visit(call.to, spec, seen, out);
                }
            }
            out.push(at);
        }
        let (mut seen, mut out) = (vec![false; self.services.len()], Vec::new());
        for at in 0..self.services.len() {
            visit(at, self, &mut seen, &mut out);
        }
        out.reverse();
        out
    }
}
