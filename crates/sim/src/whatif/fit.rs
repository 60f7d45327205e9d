//! A copy of the part of the estate that matters, its parameters taken from telemetry, topology and what was looked at.
//!
//! What nobody can see from outside (cores, workers, how long a pod takes to start) stands at the usual value of the
//! model; what can be seen is fitted.

use super::observe::{Seen, Slot, meaning};
use crate::spec::{
    CacheSpec, CallSpec, ConsumerSpec, DatabaseSpec, EstateSpec, NodeSpec, Part, PoolSpec, ResolverSpec, ServiceSpec,
    TopicSpec,
};
use nightshift_model::{EdgeKind, EntityId, EntityKind, Image, Incident, Plan};
use nightshift_plan::Images;
use nightshift_topology::Topology;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// Services in a copy at most: what is further away hardly moves within the minutes of a trial.
const SERVICES_MAX: usize = 12;
/// Everything else in it at most, of each kind.
const OTHERS_MAX: usize = 8;
/// Share of a service's requests that is thought to come from the callers that are known.
const FROM_CALLERS: f64 = 0.9;
/// How much more than at rest a consumer is thought to be able to take.
const CONSUMER_ROOM: f64 = 1.4;
/// Share of CPU at rest that is thought to be there without a request, and its most, percent.
const IDLE: (f64, f64) = (0.2, 6.0);

/// What is asked of the telemetry.
#[derive(Clone, Copy)]
pub(crate) struct Sources<'a> {
    pub(crate) seen: &'a Seen,
    pub(crate) incident: &'a Incident,
    pub(crate) topology: &'a Topology,
    pub(crate) images: &'a Images,
}

impl Sources<'_> {
    /// The worst anomaly of a quantity.
    fn anomaly(&self, id: &EntityId, slot: Slot) -> Option<(&nightshift_model::Anomaly, f64)> {
        let own = self.incident.anomalies.iter().filter(|a| self.topology.resolve(&a.entity.id) == id);
        let fits = own.filter_map(|a| Some((a, meaning(&a.signal).filter(|m| m.slot == slot)?.factor)));
        fits.max_by(|a, b| a.0.score.total_cmp(&b.0.score).then_with(|| b.0.id.cmp(&a.0.id)))
    }

    /// What is usual.
    pub(crate) fn rest(&self, id: &EntityId, slot: Slot) -> Option<f64> {
        self.seen
            .rest(id, slot, self.incident.onset)
            .or_else(|| self.anomaly(id, slot).and_then(|(a, factor)| Some(a.explanation.expected? * factor)))
            // What is no symptom is as it always is.
            .or_else(|| if self.anomaly(id, slot).is_none() { self.seen.now(id, slot) } else { None })
            .filter(|v| v.is_finite())
    }

    /// What is now.
    pub(crate) fn now(&self, id: &EntityId, slot: Slot) -> Option<f64> {
        self.seen
            .now(id, slot)
            .or_else(|| self.anomaly(id, slot).and_then(|(a, factor)| Some(a.explanation.observed? * factor)))
            .filter(|v| v.is_finite())
    }

    pub(crate) fn fact(&self, id: &EntityId, name: &str) -> Option<&Value> {
        self.images.get(id)?.get(name)
    }

    pub(crate) fn number(&self, id: &EntityId, name: &str) -> Option<f64> {
        self.fact(id, name)?.as_f64().filter(|v| v.is_finite())
    }

    fn text(&self, id: &EntityId, name: &str) -> Option<String> {
        self.fact(id, name)?.as_str().map(str::to_owned)
    }
}

/// A copy and what its parts stand for.
#[derive(Debug, Clone)]
pub(crate) struct Fitted {
    pub(crate) spec: EstateSpec,
    pub(crate) parts: BTreeMap<EntityId, Part>,
    /// Quantities that telemetry gave.
    pub(crate) quantities: usize,
}

impl Fitted {
    pub(crate) fn part(&self, id: &EntityId) -> Option<Part> {
        self.parts.get(id).copied()
    }

    /// What a part of the copy is called outside of it.
    pub(crate) fn name(&self, part: Part) -> String {
        self.parts.iter().find(|(_, p)| **p == part).map_or_else(String::new, |(id, _)| id.name())
    }
}

/// The entities of a copy, nearest to what matters first.
fn neighbourhood(seeds: &[EntityId], topology: &Topology) -> Vec<EntityId> {
    let mut seen: BTreeSet<EntityId> = BTreeSet::new();
    let mut out = Vec::new();
    let mut rings: Vec<EntityId> = seeds.iter().map(|id| topology.resolve(id).clone()).collect();
    for ring in 0..3 {
        let mut next = BTreeSet::new();
        for id in rings {
            if !seen.insert(id.clone()) {
                continue;
            }
            if ring < 2 {
                next.extend(topology.dependencies(&id).map(|n| n.id.clone()));
                // Everything runs on the node: it does not join what else it has in common.
                let shared = ring > 0 && !matches!(id.kind(), EntityKind::Service | EntityKind::Workload);
                if !shared {
                    next.extend(topology.callers(&id).map(|n| n.id.clone()));
                }
            }
            out.push(id);
        }
        rings = next.into_iter().collect();
    }
    out
}

/// Fits a copy around these entities. `None` when none of their services shows what it does at rest.
pub(crate) fn fit(seeds: &[EntityId], plan: &Plan, s: Sources<'_>) -> Option<Fitted> {
    let mut spec = EstateSpec::empty("copy");
    (spec.load.day_share, spec.load.burst_share, spec.noise) = (0.0, 0.0, 0.0);
    let mut f = Fitted { spec, parts: BTreeMap::new(), quantities: 0 };
    let all = neighbourhood(seeds, s.topology);
    for id in &all {
        match id.kind() {
            EntityKind::Database => database(&mut f, id, s),
            EntityKind::Topic => topic(&mut f, id, s),
            EntityKind::Node | EntityKind::Host => node(&mut f, id, s),
            EntityKind::Service | EntityKind::Workload => {
                if id.kind() == EntityKind::Workload && id.name().contains("dns") {
                    resolver(&mut f, id, s);
                } else {
                    service(&mut f, id, plan, s);
                }
            }
            _ => {}
        }
    }
    if f.spec.services.is_empty() {
        return None;
    }
    connect(&mut f, s);
    Some(f)
}

fn service(f: &mut Fitted, id: &EntityId, plan: &Plan, s: Sources<'_>) {
    if f.spec.services.len() >= SERVICES_MAX {
        return;
    }
    let (Some(rate), Some(p99)) = (s.rest(id, Slot::Rate), s.rest(id, Slot::Latency)) else { return };
    if rate <= 0.0 || p99 <= 0.0 {
        return;
    }
    let mut spec = ServiceSpec::new(id.as_str(), rate, p99);
    f.quantities += 2;
    let mut known = |slot: Slot, least: f64, most: f64| {
        let value = s.rest(id, slot).map(|v| v.clamp(least, most));
        f.quantities += usize::from(value.is_some());
        value
    };
    spec.cpu_percent = known(Slot::Cpu, 2.0, 90.0).unwrap_or(spec.cpu_percent);
    spec.cpu_idle_percent = (IDLE.0 * spec.cpu_percent).min(IDLE.1);
    spec.memory_percent = known(Slot::Memory, 1.0, 95.0).unwrap_or(spec.memory_percent);
    spec.error_percent = known(Slot::Errors, 0.0, 20.0).unwrap_or(spec.error_percent);
    let replicas = s.number(id, "replicas").or_else(|| s.rest(id, Slot::Ready));
    spec.replicas = replicas.map_or(spec.replicas, |r| r.clamp(1.0, 200.0) as u32);
    spec.replicas_min = s.number(id, "min_replicas").map_or(1, |r| r.clamp(1.0, 1_000.0) as u32);
    spec.replicas_max = s.number(id, "max_replicas").map_or(1_000, |r| r.clamp(1.0, 1_000.0) as u32);
    if let Some(limit) = s.number(id, "memory_limit_mib").filter(|m| *m >= 1.0) {
        spec.memory_limit_mb = limit;
    }
    if let Some(rest) = known(Slot::Connections, 1.0, 100_000.0) {
        let max = s.number(id, "pool_size").filter(|m| *m > rest).unwrap_or(rest * 2.5);
        spec.pool = Some(PoolSpec { rest, max, idle_per_replica: 8.0, wait_ms: 3_000.0 });
    }
    if let Some(hits) = known(Slot::CacheHits, 1.0, 99.0) {
        spec.cache = Some(CacheSpec { hit_ratio: hits / 100.0, miss_queries: 3.0, warm_secs: 25.0 });
    }
    spec.certificate_days = s.rest(id, Slot::CertificateDays).filter(|d| *d > 0.0);
    let image = s.images.get(id);
    if let Some(image) = image {
        (spec.flags, spec.routes) = (flags(image, id, plan), routes(image, spec.routes));
    }
    if let Some(version) = s.text(id, "version") {
        spec.version = version;
    }
    if let Some(previous) = s.text(id, "previous_version") {
        spec.previous_version = previous;
    }
    f.parts.insert(id.clone(), Part::Service(f.spec.services.len()));
    f.spec.services.push(spec);
}

/// The flag that a plan sets comes first, with the value that the plan gives it: the assumed fault flips the first.
fn flags(image: &Image, id: &EntityId, plan: &Plan) -> Vec<(String, bool)> {
    let set = plan.steps.iter().filter(|s| s.target == *id).find_map(|s| {
        let flag = s.params.get("flag")?.as_str()?;
        Some((flag.to_owned(), s.params.get("enabled")?.as_bool()?))
    });
    let now = image.iter().filter_map(|(k, v)| Some((k.strip_prefix("flag.")?.to_owned(), v.as_bool()?)));
    let mut out: Vec<(String, bool)> = set.clone().into_iter().collect();
    out.extend(now.filter(|(name, _)| set.as_ref().is_none_or(|(set, _)| set != name)));
    out
}

fn routes(image: &Image, usual: Vec<(String, f64)>) -> Vec<(String, f64)> {
    let declared =
        image.iter().filter_map(|(k, v)| Some((k.strip_prefix("declared_weight.")?.to_owned(), v.as_f64()?)));
    let mut out: Vec<(String, f64)> = declared.filter(|(_, w)| w.is_finite() && *w >= 0.0).collect();
    if out.len() < 2 {
        return usual;
    }
    // The first is where requests belong.
    out.sort_by(|a, b| b.1.total_cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    out
}

fn database(f: &mut Fitted, id: &EntityId, s: Sources<'_>) {
    if f.spec.databases.len() >= OTHERS_MAX {
        return;
    }
    let mut known = |slot: Slot, usual: f64| {
        let value = s.rest(id, slot);
        f.quantities += usize::from(value.is_some());
        value.unwrap_or(usual)
    };
    let spec = DatabaseSpec {
        name: id.as_str().into(),
        owner: String::new(),
        cpu_percent: known(Slot::Cpu, 35.0).clamp(1.0, 95.0),
        p99_ms: known(Slot::Latency, 20.0).max(0.1),
        connections_max: s.number(id, "pool_size").unwrap_or(100.0),
        disk_gb: s.number(id, "disk_gib").filter(|g| *g > 0.0).unwrap_or(100.0),
        disk_used_percent: known(Slot::Disk, 50.0).clamp(0.0, 100.0),
        standby: s.fact(id, "replica").is_some(),
    };
    f.parts.insert(id.clone(), Part::Database(f.spec.databases.len()));
    f.spec.databases.push(spec);
}

fn topic(f: &mut Fitted, id: &EntityId, s: Sources<'_>) {
    if f.spec.topics.len() >= OTHERS_MAX {
        return;
    }
    let Some(rate) = s.rest(id, Slot::Rate).filter(|r| *r > 0.0) else { return };
    f.quantities += 1;
    let consumers = s.topology.callers(id).filter(|n| n.kind == EdgeKind::Messages);
    let partitions = s
        .number(id, "partitions")
        .or_else(|| consumers.filter_map(|n| s.number(n.id, "partitions")).reduce(f64::max))
        .map_or(12, |p| p.clamp(1.0, 10_000.0) as u32);
    f.parts.insert(id.clone(), Part::Topic(f.spec.topics.len()));
    f.spec.topics.push(TopicSpec { name: id.as_str().into(), rate, partitions, lag_max: 1.0e9 });
}

fn node(f: &mut Fitted, id: &EntityId, s: Sources<'_>) {
    if f.spec.nodes.len() >= OTHERS_MAX {
        return;
    }
    let cpu = s.rest(id, Slot::Cpu);
    f.quantities += usize::from(cpu.is_some());
    f.parts.insert(id.clone(), Part::Node(f.spec.nodes.len()));
    f.spec.nodes.push(NodeSpec { name: id.as_str().into(), cpu_percent: cpu.unwrap_or(40.0).clamp(1.0, 95.0) });
}

fn resolver(f: &mut Fitted, id: &EntityId, s: Sources<'_>) {
    let Some(rate) = s.rest(id, Slot::Rate).filter(|_| f.spec.resolver.is_none()) else { return };
    let p99_ms = s.rest(id, Slot::Latency).unwrap_or(4.0);
    f.quantities += 2;
    let replicas = s.number(id, "replicas").map_or(2, |r| r.clamp(1.0, 100.0) as u32);
    f.parts.insert(id.clone(), Part::Resolver);
    f.spec.resolver = Some(ResolverSpec {
        name: id.as_str().into(),
        owner: String::new(),
        namespace: String::new(),
        replicas,
        rate: rate.max(0.1),
        p99_ms: p99_ms.max(0.1),
    });
}

/// Who calls whom, which database and topic each has, and how much of its load comes from outside the copy.
fn connect(f: &mut Fitted, s: Sources<'_>) {
    let services: Vec<(EntityId, usize)> = f
        .parts
        .iter()
        .filter_map(|(id, part)| if let Part::Service(i) = part { Some((id.clone(), *i)) } else { None })
        .collect();
    let rates: Vec<f64> = f.spec.services.iter().map(|x| x.rest_rps).collect();
    let mut from_callers = vec![0.0; rates.len()];
    for (id, i) in &services {
        // All callers that are known, also those that the copy leaves out, share what arrives.
        let callers = s.topology.callers(id).filter(|n| n.kind == EdgeKind::Calls);
        let sum: f64 = callers.filter_map(|n| s.rest(n.id, Slot::Rate)).sum();
        for (caller, c) in &services {
            let calls = s.topology.dependencies(caller).any(|n| n.kind == EdgeKind::Calls && n.id == id);
            if calls && caller != id && sum > 0.0 {
                let share = (FROM_CALLERS * rates[*i] / sum).min(1.0);
                from_callers[*i] += share * rates[*c];
                f.spec.services[*c].calls.push(CallSpec::new(*i, share));
            }
        }
        for need in s.topology.dependencies(id) {
            match f.parts.get(need.id) {
                Some(Part::Database(d)) if f.spec.services[*i].database.is_none() => {
                    f.spec.services[*i].database = Some(*d);
                }
                Some(Part::Topic(t)) if f.spec.services[*i].consumer.is_none() => {
                    let Some(rest_lag) = s.rest(id, Slot::Lag) else { continue };
                    let consumers = f64::from(f.spec.services[*i].replicas.min(f.spec.topics[*t].partitions).max(1));
                    let per_replica = CONSUMER_ROOM * f.spec.topics[*t].rate / consumers;
                    f.spec.services[*i].consumer =
                        Some(ConsumerSpec { topic: *t, per_replica, rest_lag: rest_lag.max(0.0) });
                }
                _ => {}
            }
        }
        if f.spec.services[*i].database.is_none() {
            // A pool or cache without what stands behind it says nothing.
            f.spec.services[*i].cache = None;
        }
    }
    for (i, from) in from_callers.into_iter().enumerate() {
        f.spec.services[i].external_rps = (rates[i] - from).max(0.0);
    }
    // Draining wants somewhere to go.
    if f.spec.nodes.len() == 1 {
        f.spec.nodes.push(NodeSpec { name: "another".into(), cpu_percent: 40.0 });
    }
}
