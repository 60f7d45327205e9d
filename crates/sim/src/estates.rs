//! Estates that exist: the shop of six services, and generated ones of any size.

use crate::chance::Draw;
use crate::spec::{
    CacheSpec, CallSpec, ConsumerSpec, DatabaseSpec, EstateSpec, NodeSpec, PoolSpec, ResolverSpec, ServiceSpec,
    TopicSpec,
};

/// Indices of the six services in [`EstateSpec::six`].
const PAYMENT: usize = 1;
const ORDER: usize = 2;
const USER: usize = 3;
const INVENTORY: usize = 4;

fn database(name: &str, owner: &str) -> DatabaseSpec {
    DatabaseSpec {
        name: name.into(),
        owner: owner.into(),
        cpu_percent: 35.0,
        p99_ms: 18.0,
        connections_max: 100.0,
        disk_gb: 200.0,
        disk_used_percent: 71.0,
        standby: true,
    }
}

fn resolver(rate: f64) -> ResolverSpec {
    ResolverSpec {
        name: "coredns".into(),
        owner: "platform".into(),
        // Not kube-system: nothing there is changed by default, and this one its owners let the machine restart.
        namespace: "infra".into(),
        replicas: 2,
        rate,
        p99_ms: 4.0,
    }
}

fn nodes(n: usize) -> Vec<NodeSpec> {
    (1..=n).map(|i| NodeSpec { name: format!("node-{i}"), cpu_percent: 42.0 }).collect()
}

fn pool() -> PoolSpec {
    PoolSpec { rest: 30.0, max: 100.0, idle_per_replica: 8.0, wait_ms: 3_000.0 }
}

fn cache() -> CacheSpec {
    CacheSpec { hit_ratio: 0.92, miss_queries: 3.0, warm_secs: 25.0 }
}

impl EstateSpec {
    /// The shop: six services with a database, two topics, three nodes and a resolver.
    pub fn six() -> Self {
        let mut estate = Self::empty("sim");
        estate.databases = vec![database("shop-db", "platform")];
        estate.topics = vec![
            TopicSpec { name: "orders".into(), rate: 1_200.0, partitions: 12, lag_max: 50_000.0 },
            TopicSpec { name: "notifications".into(), rate: 400.0, partitions: 8, lag_max: 50_000.0 },
        ];
        estate.nodes = nodes(3);
        estate.resolver = Some(resolver(900.0));
        estate.services = vec![
            ServiceSpec {
                owner: "platform".into(),
                on_call: "platform-oncall".into(),
                criticality: "P0".into(),
                sla_percent: 99.99,
                business_impact: "all shoppers, about 20,000 USD a minute".into(),
                workers: 256,
                queue_max: 600,
                certificate_days: Some(64.0),
                flags: vec![("http3".into(), false)],
                calls: vec![CallSpec::new(PAYMENT, 0.3), CallSpec::new(ORDER, 0.3), CallSpec::new(USER, 1.0)],
                ..ServiceSpec::new("api-gateway", 150.0, 120.0)
            },
            ServiceSpec {
                owner: "payments".into(),
                on_call: "payments-oncall".into(),
                criticality: "P0".into(),
                sla_percent: 99.95,
                language: "java".into(),
                business_impact: "30 % of payments, about 12,000 USD a minute".into(),
                external_rps: 5.0,
                cpu_percent: 34.0,
                memory_percent: 48.0,
                workers: 100,
                certificate_days: Some(41.0),
                database: Some(0),
                pool: Some(pool()),
                flags: vec![("three_ds_v2".into(), true)],
                ..ServiceSpec::new("payment-service", 80.0, 380.0)
            },
            ServiceSpec {
                owner: "commerce".into(),
                on_call: "commerce-oncall".into(),
                language: "kotlin".into(),
                business_impact: "new orders, about 9,000 USD a minute".into(),
                external_rps: 15.0,
                cpu_percent: 32.0,
                memory_percent: 50.0,
                workers: 32,
                certificate_days: Some(55.0),
                database: Some(0),
                consumer: Some(ConsumerSpec { topic: 0, per_replica: 560.0, rest_lag: 100.0 }),
                flags: vec![("split_shipments".into(), true)],
                calls: vec![
                    CallSpec { fallback: 0.1, ..CallSpec::new(PAYMENT, 0.5) },
                    CallSpec { timeout_ms: 6_000.0, fallback: 0.1, ..CallSpec::new(INVENTORY, 0.4) },
                ],
                ..ServiceSpec::new("order-service", 60.0, 280.0)
            },
            ServiceSpec {
                owner: "identity".into(),
                on_call: "identity-oncall".into(),
                criticality: "P0".into(),
                sla_percent: 99.95,
                business_impact: "log-in of every shopper, about 15,000 USD a minute".into(),
                external_rps: 50.0,
                cpu_percent: 28.0,
                memory_percent: 42.0,
                queue_max: 400,
                certificate_days: Some(73.0),
                database: Some(0),
                cache: Some(cache()),
                flags: vec![("passkeys".into(), true)],
                ..ServiceSpec::new("user-service", 200.0, 150.0)
            },
            ServiceSpec {
                owner: "commerce".into(),
                on_call: "commerce-oncall".into(),
                language: "kotlin".into(),
                business_impact: "stock levels, about 3,000 USD a minute".into(),
                external_rps: 6.0,
                cpu_percent: 25.0,
                cpu_idle_percent: 5.0,
                memory_percent: 46.0,
                certificate_days: Some(55.0),
                database: Some(0),
                flags: vec![("live_stock".into(), false)],
                ..ServiceSpec::new("inventory-service", 30.0, 220.0)
            },
            ServiceSpec {
                owner: "notification".into(),
                on_call: "notification-oncall".into(),
                criticality: "P2".into(),
                sla_percent: 99.5,
                language: "python".into(),
                external_rps: 10.0,
                business_impact: "mail and push, no direct loss".into(),
                cpu_percent: 26.0,
                memory_percent: 55.0,
                certificate_days: Some(80.0),
                consumer: Some(ConsumerSpec { topic: 1, per_replica: 190.0, rest_lag: 100.0 }),
                flags: vec![("digest_mail".into(), false)],
                ..ServiceSpec::new("notification-service", 40.0, 500.0)
            },
        ];
        estate
    }

    /// An estate of `services` services (at least one) in layers: each calls one to three of the layer below, about
    /// one in ten has a database of its own with a pool, and every layer but the first is called.
    pub fn generated(services: usize, seed: u64) -> Self {
        let services = services.max(1);
        let mut draw = Draw::new(seed ^ 0x6573_7461_7465);
        let mut estate = Self::empty("sim");
        estate.nodes = nodes(services.div_ceil(8).max(2));
        estate.resolver = Some(resolver(services as f64 * 150.0));
        for i in 0..services.div_ceil(12) {
            estate.databases.push(database(&format!("db-{:02}", i + 1), "data"));
        }
        for i in 0..services.div_ceil(40) {
            let name = format!("events-{:02}", i + 1);
            estate.topics.push(TopicSpec { name, rate: 800.0, partitions: 12, lag_max: 50_000.0 });
        }
        // Few at the top, most in the middle.
        let layers = if services < 4 { 1 } else { ((services as f64).log2() as usize).clamp(2, 6) };
        let layer_of = |i: usize| (i * layers / services).min(layers - 1);
        let teams = ["platform", "payments", "commerce", "identity", "search", "media"];
        for i in 0..services {
            let mut s = ServiceSpec::new(&format!("svc-{i:03}"), 0.0, draw.range(60.0, 500.0).round());
            let team = teams[draw.below(teams.len())];
            s.owner = team.into();
            s.on_call = format!("{team}-oncall");
            s.criticality = ["P0", "P1", "P1", "P2"][draw.below(4)].into();
            s.cpu_percent = draw.range(22.0, 36.0).round();
            s.memory_percent = draw.range(38.0, 58.0).round();
            s.external_rps =
                if layer_of(i) == 0 { draw.range(60.0, 200.0).round() } else { draw.range(4.0, 15.0).round() };
            s.flags = vec![("new_path".into(), false)];
            s.certificate_days = Some(draw.range(30.0, 85.0).round());
            if draw.unit() < 0.6 {
                s.database = Some(draw.below(estate.databases.len()));
                if draw.unit() < 0.3 {
                    s.pool = Some(pool());
                } else if draw.unit() < 0.3 {
                    s.cache = Some(cache());
                }
            }
            if draw.unit() < 0.08 {
                let topic = draw.below(estate.topics.len());
                s.consumer = Some(ConsumerSpec { topic, per_replica: 380.0, rest_lag: 100.0 });
            }
            estate.services.push(s);
        }
        for i in 0..services {
            let below: Vec<usize> = (i + 1..services).filter(|j| layer_of(*j) == layer_of(i) + 1).collect();
            for _ in 0..=draw.below(3) {
                let Some(&to) = below.get(draw.below(below.len())) else { break };
                if estate.services[i].calls.iter().all(|c| c.to != to) {
                    let share = (draw.range(0.2, 0.6) * 10.0).round() / 10.0;
                    estate.services[i].calls.push(CallSpec::new(to, share));
                }
            }
        }
        // Rates at rest follow from who calls whom; callers come first.
        let mut rate: Vec<f64> = estate.services.iter().map(|s| s.external_rps).collect();
        for i in estate.callers_first() {
            for call in &estate.services[i].calls {
                rate[call.to] += rate[i] * call.share;
            }
        }
        for (s, rate) in estate.services.iter_mut().zip(rate) {
            s.rest_rps = rate;
            s.workers = s.workers.max((rate * s.p99_ms / 1_000.0) as u32);
            s.queue_max = s.queue_max.max((rate * 1.5) as u32);
        }
        estate
    }
}
