//! Which action helps against which fault: not a table of the model, but what comes out of it.

#![expect(clippy::unwrap_used, reason = "a test may panic; clippy does not see that helpers are of tests")]

use nightshift_model::{ActionType, EntityId, Image};
use nightshift_sim::{EstateSpec, InjectedFault, Observed, Part, SimAction, SimFault, World};
use serde_json::{Value, json};

/// The estate with a load that stands still, so that only fault and action move anything.
fn steady() -> EstateSpec {
    let mut spec = EstateSpec::six();
    spec.load.day_share = 0.0;
    spec.load.burst_share = 0.0;
    spec
}

fn service(spec: &EstateSpec, name: &str) -> EntityId {
    spec.id(Part::Service(spec.service(name).unwrap()))
}

fn params(value: Value) -> Image {
    value.as_object().unwrap().clone().into_iter().collect()
}

fn series(world: &World, entity: &EntityId, name: &str) -> usize {
    world.series().iter().position(|d| d.entity.id == *entity && d.name == name).unwrap()
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Effect {
    /// Back to nearly what it was at rest.
    Heals,
    /// Better, not well.
    Eases,
    Nothing,
    Worse,
}

const START: f64 = 60.0;
const ACT: f64 = START + 50.0;

/// Mean distance of the KPI from rest, from 60 s after the action until the fault fades.
fn badness(kind: SimFault, kpi: (&EntityId, &str), actions: &[SimAction]) -> f64 {
    let spec = steady();
    let mut fault = InjectedFault::usual(kind, &spec, START).unwrap();
    // Long enough that what holds and what only holds for a moment can be told apart.
    fault.hold_secs = fault.hold_secs.max(240.0);
    let until = fault.end_secs() - fault.recovery_secs;
    let mut world = World::new(spec, 7).noise(false).talking(false);
    world.inject(fault);
    let at = series(&world, kpi.0, kpi.1);
    world.run_until(START - 10.0);
    let rest = world.value(at).unwrap();
    let (mut sum, mut n) = (0.0, 0);
    let mut acted = false;
    while world.now_secs() < until {
        world.tick();
        if !acted && world.now_secs() >= ACT {
            acted = true;
            for action in actions {
                world.apply(action).unwrap_or_else(|e| panic!("{kind:?}: {e}"));
            }
        }
        if world.now_secs() > ACT + 60.0 {
            let beyond = world.value(at).unwrap() - rest;
            sum += if kpi.1.ends_with("_ready") { (-beyond).max(0.0) } else { beyond.max(0.0) };
            n += 1;
        }
    }
    sum / f64::from(n.max(1))
}

#[test]
fn actions_have_the_effect_that_they_would_have() {
    use ActionType as A;
    use Effect::{Eases, Heals, Nothing, Worse};
    use SimFault as F;
    let spec = steady();
    let s = |name: &str| service(&spec, name);
    let (gateway, payment, order) = (s("api-gateway"), s("payment-service"), s("order-service"));
    let (user, inventory, notification) = (s("user-service"), s("inventory-service"), s("notification-service"));
    let (db, node, dns) = (spec.id(Part::Database(0)), spec.id(Part::Node(0)), spec.id(Part::Resolver));
    let scale = |n: u32| (A::ScaleDeployment, json!({ "replicas": n }));
    let restart = || (A::RestartPods, json!({}));
    let rollback = || (A::RollbackDeploy, json!({}));
    let limit = |l: f64| (A::LimitTraffic, json!({ "limit_rps": l }));
    let job = |j: &str| (A::RunJob, json!({ "job": j }));
    let recycle = || (A::RecycleConnections, json!({}));
    type Do<'a> = (&'a EntityId, (A, Value));
    type Row<'a> = (F, (&'a EntityId, &'a str), Vec<Do<'a>>, Effect);
    let table: Vec<Row<'_>> = vec![
        (F::LatencySpike, (&payment, "service_latency_p99_ms"), vec![(&payment, restart())], Heals),
        (F::LatencySpike, (&payment, "service_latency_p99_ms"), vec![(&payment, rollback())], Heals),
        (F::LatencySpike, (&payment, "service_latency_p99_ms"), vec![(&payment, scale(6))], Eases),
        (F::ErrorRateSpike, (&order, "service_error_rate_percent"), vec![(&order, restart())], Heals),
        (F::ErrorRateSpike, (&order, "service_error_rate_percent"), vec![(&order, scale(6))], Eases),
        (F::CpuSaturation, (&gateway, "service_latency_p99_ms"), vec![(&gateway, scale(6))], Heals),
        (F::CpuSaturation, (&gateway, "service_latency_p99_ms"), vec![(&gateway, restart())], Nothing),
        (F::MemoryLeak, (&notification, "service_memory_percent"), vec![(&notification, restart())], Eases),
        (F::MemoryLeak, (&notification, "service_memory_percent"), vec![(&notification, scale(4))], Nothing),
        (
            F::DbConnectionExhaustion,
            (&payment, "service_db_connections"),
            vec![(&payment, recycle()), (&payment, limit(56.0))],
            Heals,
        ),
        (F::DbConnectionExhaustion, (&payment, "service_db_connections"), vec![(&payment, recycle())], Nothing),
        (F::DbConnectionExhaustion, (&payment, "service_error_rate_percent"), vec![(&payment, limit(60.0))], Nothing),
        (F::KafkaConsumerLag, (&order, "kafka_consumer_lag"), vec![(&order, scale(12))], Heals),
        (F::KafkaConsumerLag, (&order, "kafka_consumer_lag"), vec![(&order, restart())], Nothing),
        (F::DeploymentFailure, (&user, "service_error_rate_percent"), vec![(&user, rollback())], Heals),
        (F::DeploymentFailure, (&user, "service_error_rate_percent"), vec![(&user, scale(6))], Nothing),
        (F::DeploymentFailure, (&user, "service_error_rate_percent"), vec![(&user, restart())], Nothing),
        (
            F::BadFlag,
            (&inventory, "service_error_rate_percent"),
            vec![(&inventory, (A::ToggleFeature, json!({ "flag": "live_stock", "enabled": false })))],
            Heals,
        ),
        (F::BadFlag, (&inventory, "service_error_rate_percent"), vec![(&inventory, restart())], Nothing),
        (F::RetryStorm, (&inventory, "service_latency_p99_ms"), vec![(&inventory, limit(45.0))], Heals),
        (F::RetryStorm, (&inventory, "service_latency_p99_ms"), vec![(&inventory, scale(8))], Heals),
        (F::RetryStorm, (&inventory, "service_latency_p99_ms"), vec![(&inventory, restart())], Nothing),
        (F::NoisyNeighbour, (&payment, "service_latency_p99_ms"), vec![(&node, (A::DrainNode, json!({})))], Heals),
        (F::NoisyNeighbour, (&payment, "service_latency_p99_ms"), vec![(&payment, restart())], Nothing),
        (F::DiskFilling, (&db, "db_disk_used_percent"), vec![(&db, job("clean-disk"))], Heals),
        (
            F::DiskFilling,
            (&db, "db_disk_used_percent"),
            vec![(&db, (A::PatchResources, json!({ "disk_gib": 300 })))],
            Eases,
        ),
        (
            F::CertificateExpiry,
            (&payment, "service_error_rate_percent"),
            vec![(&payment, job("renew-certificate"))],
            Heals,
        ),
        (F::CertificateExpiry, (&payment, "service_error_rate_percent"), vec![(&payment, restart())], Nothing),
        (F::DnsFailure, (&gateway, "service_error_rate_percent"), vec![(&dns, restart())], Heals),
        (F::DnsFailure, (&gateway, "service_error_rate_percent"), vec![(&gateway, restart())], Nothing),
        (F::CacheStampede, (&user, "service_latency_p99_ms"), vec![(&user, job("warm-cache"))], Heals),
        (F::CacheStampede, (&user, "service_latency_p99_ms"), vec![(&user, scale(6))], Nothing),
        (F::ThunderingHerd, (&gateway, "service_latency_p99_ms"), vec![(&gateway, scale(6))], Heals),
        (F::ThunderingHerd, (&gateway, "service_latency_p99_ms"), vec![(&gateway, limit(300.0))], Heals),
        (F::ThunderingHerd, (&gateway, "service_latency_p99_ms"), vec![(&gateway, restart())], Nothing),
        (F::CascadingTimeout, (&order, "service_error_rate_percent"), vec![(&inventory, restart())], Heals),
        (F::CascadingTimeout, (&order, "service_error_rate_percent"), vec![(&order, restart())], Nothing),
        (F::PartialReplicaFailure, (&order, "service_error_rate_percent"), vec![(&order, restart())], Heals),
        (F::PartialReplicaFailure, (&order, "service_error_rate_percent"), vec![(&order, scale(6))], Eases),
        (
            F::MisroutedTraffic,
            (&user, "service_error_rate_percent"),
            vec![(&user, (A::AdjustRouting, json!({ "weights": { "stable": 100, "legacy": 0 } })))],
            Heals,
        ),
        (F::MisroutedTraffic, (&user, "service_error_rate_percent"), vec![(&user, (A::GitopsSync, json!({})))], Heals),
        (F::MisroutedTraffic, (&user, "service_error_rate_percent"), vec![(&user, restart())], Nothing),
        (F::TrafficSurge, (&gateway, "service_latency_p99_ms"), vec![(&gateway, scale(6))], Heals),
        (F::NodeNotReady, (&payment, "service_replicas_ready"), vec![(&node, (A::DrainNode, json!({})))], Heals),
        (F::NodeNotReady, (&payment, "service_replicas_ready"), vec![(&payment, rollback())], Nothing),
        (
            F::DatabasePrimaryLost,
            (&payment, "service_error_rate_percent"),
            vec![(&db, (A::FailoverDb, json!({})))],
            Heals,
        ),
        (F::DatabasePrimaryLost, (&payment, "service_error_rate_percent"), vec![(&payment, restart())], Nothing),
        (F::LockContention, (&db, "db_query_latency_p99_ms"), vec![(&db, recycle())], Heals),
        (F::LockContention, (&db, "db_query_latency_p99_ms"), vec![(&payment, recycle())], Nothing),
        (F::CrashLoop, (&gateway, "service_replicas_ready"), vec![(&gateway, rollback())], Heals),
        (F::CrashLoop, (&gateway, "service_replicas_ready"), vec![(&gateway, restart())], Worse),
        (
            F::OomKill,
            (&gateway, "service_replicas_ready"),
            vec![(&gateway, (A::PatchResources, json!({ "memory_limit_mib": 512 })))],
            Heals,
        ),
        (F::OomKill, (&gateway, "service_replicas_ready"), vec![(&gateway, restart())], Nothing),
    ];
    let mut wrong = Vec::new();
    for (kind, kpi, doing, want) in table {
        let actions: Vec<SimAction> =
            doing.iter().map(|(t, (a, p))| SimAction::new(*a, (*t).clone(), params(p.clone()))).collect();
        let (without, with) = (badness(kind, kpi, &[]), badness(kind, kpi, &actions));
        let ratio = with / without;
        let got = match ratio {
            r if r < 0.12 => Heals,
            r if r < 0.8 => Eases,
            r if r <= 1.2 => Nothing,
            _ => Worse,
        };
        if got != want {
            let names: Vec<_> = doing.iter().map(|(t, (a, _))| format!("{a} {}", t.name())).collect();
            wrong.push(format!(
                "{} after {}: {ratio:.2} ({with:.1} of {without:.1}), expected {want:?}",
                kind.name(),
                names.join(", ")
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The same trap as in life: pods that come to help take connections that are missing already.
#[test]
fn scaling_callers_of_a_full_pool_makes_it_worse() {
    let spec = steady();
    let payment = service(&spec, "payment-service");
    let mut fault = InjectedFault::usual(SimFault::DbConnectionExhaustion, &spec, START).unwrap();
    fault.magnitude = 88.0;
    let errors = |replicas: Option<u32>| {
        let mut world = World::new(spec.clone(), 7).noise(false).talking(false);
        world.inject(fault.clone());
        let at = series(&world, &payment, "service_error_rate_percent");
        world.run_until(START + 28.0);
        if let Some(n) = replicas {
            let p = params(json!({ "replicas": n }));
            world.apply(&SimAction::new(ActionType::ScaleDeployment, payment.clone(), p)).unwrap();
        }
        let mut sum = 0.0;
        for _ in 0..12 {
            world.tick();
            sum += world.value(at).unwrap();
        }
        sum
    };
    let (stays, scaled) = (errors(None), errors(Some(8)));
    assert!(scaled > 1.5 * stays, "{scaled} against {stays}");
}

#[test]
fn keys_fences_images_and_undo() {
    let spec = steady();
    let gateway = service(&spec, "api-gateway");
    let mut world = World::new(spec.clone(), 3).noise(false);
    world.run_until(5.0);
    let scale = |key: &str, fence: u64, n: u32| SimAction {
        key: key.into(),
        fence,
        ..SimAction::new(ActionType::ScaleDeployment, gateway.clone(), params(json!({ "replicas": n })))
    };
    let before = world.image(&gateway, ActionType::ScaleDeployment).unwrap();
    assert_eq!(before["replicas"], 3);
    assert!(world.dry_run(&scale("a", 2, 6)).is_ok());
    assert_eq!(world.image(&gateway, ActionType::ScaleDeployment).unwrap(), before, "a trial changes nothing");
    assert_eq!(world.observe("a"), Observed::NotDone);

    world.apply(&scale("a", 2, 6)).unwrap();
    assert_eq!(world.observe("a"), Observed::UnderWay);
    let pods = world.image(&gateway, ActionType::RestartPods).unwrap();
    assert_eq!((&pods["replicas"], &pods["ready_replicas"]), (&json!(6), &json!(3)));
    world.run_until(15.0);
    assert_eq!(world.observe("a"), Observed::Done);

    // The same key has no effect again, even if what it would do is no longer so.
    world.apply(&scale("b", 2, 4)).unwrap();
    world.apply(&scale("a", 2, 6)).unwrap();
    assert_eq!(world.image(&gateway, ActionType::ScaleDeployment).unwrap()["replicas"], 4);
    let stale = world.apply(&scale("c", 1, 8)).unwrap_err();
    assert_eq!(stale, nightshift_sim::ApplyError::StaleFence { seen: 2, given: 1 });
    assert_eq!(world.observe("c"), Observed::NotDone);

    let undo = SimAction { undo_to: Some(before.clone()), ..scale("d", 2, 6) };
    world.apply(&undo).unwrap();
    world.run_until(30.0);
    assert_eq!(world.image(&gateway, ActionType::ScaleDeployment).unwrap()["replicas"], before["replicas"]);

    for (action, p) in [
        (ActionType::ScaleDeployment, json!({})),
        (ActionType::ScaleDeployment, json!({ "replicas": 99 })),
        (ActionType::ScaleDeployment, json!({ "replicas": 2.5 })),
        (ActionType::ScaleDeployment, json!({ "replicas": "six" })),
        (ActionType::ToggleFeature, json!({ "flag": "nope", "enabled": true })),
        (ActionType::ToggleFeature, json!({ "flag": "http3" })),
        (ActionType::AdjustRouting, json!({ "weights": { "nope": 1 } })),
        (ActionType::AdjustRouting, json!({ "weights": { "stable": -1 } })),
        (ActionType::LimitTraffic, json!({ "limit_rps": 0 })),
        (ActionType::RollbackDeploy, json!({ "version": "9.9.9" })),
        (ActionType::RunJob, json!({ "job": "rm -rf" })),
        (ActionType::RecycleConnections, json!({})),
        (ActionType::FailoverDb, json!({})),
        (ActionType::DrainNode, json!({})),
    ] {
        let bad = SimAction::new(action, gateway.clone(), params(p.clone()));
        let bad = SimAction { fence: 2, ..bad };
        assert!(matches!(world.apply(&bad), Err(nightshift_sim::ApplyError::Refused(_))), "{action} {p}");
    }
    let nobody = EntityId::new("sim", "service", "shop", "nobody");
    let lost = SimAction { fence: 2, ..SimAction::new(ActionType::RestartPods, nobody.clone(), Image::new()) };
    assert!(matches!(world.apply(&lost), Err(nightshift_sim::ApplyError::NoTarget(_))));
    assert_eq!(world.image(&nobody, ActionType::RestartPods), None);
}
