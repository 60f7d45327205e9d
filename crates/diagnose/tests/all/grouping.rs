//! What belongs together.

use crate::{World, closed, cpu, errors, host, ill, latency, service, t, update};
use nightshift_model::{AnomalyKind, EntityId, FaultClass, IncidentStatus, Observation};

#[test]
fn one_burning_host_is_one_incident_however_many_signals_show_it() {
    let mut world = World::new(&[]);
    let web1 = host("web1");
    let signals = [
        ("node_cpu_seconds_total", FaultClass::CpuSaturation),
        ("node_load1", FaultClass::CpuSaturation),
        ("system_cpu_percent", FaultClass::CpuSaturation),
        ("system_process_cpu_percent", FaultClass::CpuSaturation),
        ("node_hwmon_temp_celsius", FaultClass::Unknown),
        ("node_memory_MemAvailable_bytes", FaultClass::MemorySaturation),
        ("node_context_switches_total", FaultClass::Unknown),
    ];
    for (i, (signal, fault)) in signals.into_iter().enumerate() {
        world.give(ill(&web1, signal, fault, 0.9 - 0.02 * i as f64, 10 + i as i64 * 3));
    }
    let inc = world.only();
    assert_eq!(inc.title, "CPU saturation on web1");
    assert_eq!(inc.anomalies_total, 7);
    let cause = inc.top_cause().unwrap();
    assert_eq!((cause.entity.as_ref(), cause.fault), (Some(&web1), FaultClass::CpuSaturation));
    assert!(cause.confidence > 0.7, "{cause:#?}");
    assert_eq!(inc.onset, t(10));
}

#[test]
fn two_hosts_that_share_nothing_are_two_incidents_in_the_same_second() {
    let mut world = World::new(&[]);
    world.give(cpu(&host("web1"), 10));
    world.give(cpu(&host("web2"), 10));
    assert_eq!(world.list().len(), 2);
}

#[test]
fn a_dependency_and_its_callers_are_one_incident_of_the_dependency() {
    let mut world = World::new(&["web>shop", "shop>db"]);
    world.give(errors("db", 0));
    world.give(errors("shop", 12));
    world.give(latency("web", 20));
    let inc = world.only();
    let cause = inc.top_cause().unwrap();
    assert_eq!(cause.entity, Some(service("db")), "{cause:#?}");
    for factor in ["dependency", "cascade", "onset_order"] {
        assert!(cause.contributions.iter().any(|c| c.factor == factor && c.log_odds > 0.0), "{factor}");
    }
    assert_eq!(inc.blast_radius.affected.len(), 3);
}

#[test]
fn a_host_and_what_runs_on_it_are_one_incident() {
    let mut world = World::new(&["shop@web1"]);
    world.give(latency("shop", 5));
    world.give(cpu(&host("web1"), 0));
    let cause = world.only().top_cause().unwrap();
    assert_eq!((cause.entity.clone(), cause.fault), (Some(host("web1")), FaultClass::CpuSaturation));
}

#[test]
fn far_apart_in_time_is_apart() {
    let mut world = World::new(&["shop>db"]);
    let first = errors("shop", 0);
    world.give(first.clone());
    world.give(closed(&first, 30));
    world.tick(40);
    world.give(errors("db", 2_000));
    assert_eq!(world.list().len(), 2);
}

#[test]
fn a_dependency_that_stays_ill_explains_a_caller_that_falls_ill_much_later() {
    let mut world = World::new(&["shop>db"]);
    let disk = ill(&service("db"), "disk_used_ratio", FaultClass::DiskFull, 0.9, 0);
    world.give(disk.clone());
    for minute in 1..40 {
        world.give(update(&disk, minute * 60));
    }
    world.give(errors("shop", 2_400));
    assert_eq!(world.only().anomalies_total, 2);
    // The other way round it is no explanation: what the caller suffers from does not make the database ill.
    let mut world = World::new(&["shop>db"]);
    let disk = ill(&service("shop"), "disk_used_ratio", FaultClass::DiskFull, 0.9, 0);
    world.give(disk.clone());
    for minute in 1..40 {
        world.give(update(&disk, minute * 60));
    }
    world.give(errors("db", 2_400));
    assert_eq!(world.list().len(), 2);
}

#[test]
fn two_callers_that_look_alike_share_a_silent_dependency() {
    let mut world = World::new(&["a>db", "b>db", "c>db"]);
    world.give(latency("a", 0));
    world.give(latency("b", 3));
    world.give(latency("c", 5));
    let inc = world.only();
    let cause = inc.top_cause().unwrap();
    assert_eq!((cause.entity.clone(), cause.fault), (Some(service("db")), FaultClass::DependencyOutage), "{cause:#?}");
    // Unlike illnesses of two callers are two causes.
    let mut world = World::new(&["a>db", "b>db"]);
    world.give(latency("a", 0));
    world.give(ill(&service("b"), "disk_used_ratio", FaultClass::DiskFull, 0.9, 3));
    assert_eq!(world.list().len(), 2);
}

#[test]
fn incidents_that_turn_out_to_be_one_are_joined_into_the_elder() {
    let mut world = World::new(&["web>shop", "shop>db"]);
    let web = latency("web", 0);
    world.give(web.clone());
    // Two edges away and much later: another incident, until the one between speaks.
    world.give(errors("db", 200));
    assert_eq!(world.list().len(), 2);
    let words = world.give(errors("shop", 210));
    assert!(words.contains(&"merged") && words.contains(&"absorbed"), "{words:?}");
    let elder = world.only();
    assert_eq!((elder.number, elder.anomalies_total), (1, 3));
    let younger = world.incidents.values().find(|i| i.number == 2).unwrap();
    assert_eq!((younger.status, younger.merged_into), (IncidentStatus::Merged, Some(elder.id)));
    // What is told of the younger one's symptom goes to the elder.
    assert_eq!(world.give(closed(&errors("db", 200), 300)), ["anomaly_joined"]);
    assert_eq!(world.only().anomalies_open, 2);
}

#[test]
fn an_alias_learned_late_makes_one_of_two() {
    let mut world = World::new(&[]);
    world.give(cpu(&host("web1"), 0));
    world.give(cpu(&host("10.0.0.7"), 1));
    assert_eq!(world.list().len(), 2);
    let alias = Observation::Alias { name: host("10.0.0.7").to_string(), entity: host("web1"), at: t(2) };
    world.topology.apply(&alias, t(2));
    world.give(ill(&host("10.0.0.7"), "node_load1", FaultClass::CpuSaturation, 0.8, 3));
    assert_eq!(world.only().blast_radius.affected.len(), 1);
}

#[test]
fn a_weak_symptom_opens_nothing_but_is_evidence_before_and_after() {
    let mut world = World::new(&[]);
    let weak = |signal, at| ill(&host("web1"), signal, FaultClass::CpuSaturation, 0.4, at);
    assert_eq!(world.give(weak("node_load1", 0)), [""; 0]);
    world.give(cpu(&host("web1"), 20));
    world.give(weak("node_load5", 30));
    world.give(ill(&host("web9"), "node_load1", FaultClass::CpuSaturation, 0.4, 30));
    assert_eq!(world.only().anomalies_total, 3);
}

#[test]
fn a_weak_symptom_is_no_bridge() {
    let mut world = World::new(&["a>b", "b>c"]);
    world.give(errors("a", 0));
    world.give(ill(&service("b"), "service_latency_p99_ms", FaultClass::LatencySpike, 0.3, 1));
    world.give(errors("c", 200));
    assert_eq!(world.list().len(), 2);
}

#[test]
fn parts_of_one_service_are_one_and_other_clusters_are_others() {
    let pod = |cluster: &str, name: &str| {
        let mut a = cpu(&EntityId::new(cluster, "pod", "shop", name), 0);
        a.entity.service = "checkout".into();
        a
    };
    let mut world = World::new(&[]);
    world.give(pod("prod", "checkout-1"));
    world.give(pod("prod", "checkout-2"));
    world.give(pod("staging", "checkout-1"));
    assert_eq!(world.list().iter().map(|i| i.anomalies_total).collect::<Vec<_>>(), [2, 1]);
}

#[test]
fn hosts_do_not_meet_by_the_name_of_their_exporter() {
    let mut world = World::new(&[]);
    for name in ["web1", "web2"] {
        let mut a = cpu(&host(name), 0);
        a.entity.service = "node".into();
        world.give(a);
    }
    assert_eq!(world.list().len(), 2);
}

#[test]
fn injected_symptoms_stay_by_themselves() {
    let burst = |name: &str| {
        let mut a = cpu(&service(name), 0);
        a.entity.service = "production-api".into();
        a.entity.synthetic = true;
        a
    };
    let mut world = World::new(&["production-api>burst-1"]);
    world.give(cpu(&service("production-api"), 0));
    world.give(burst("burst-1"));
    world.give(burst("burst-2"));
    assert_eq!(world.list().iter().map(|i| i.synthetic).collect::<Vec<_>>(), [false, true, true]);
}

#[test]
fn an_injected_storm_is_one_incident_in_the_environment_of_its_own() {
    let pod = |name: &str, environment: &str| {
        let mut a = cpu(&service(name), 0);
        a.entity.service = "production-api".into();
        a.entity.environment = environment.into();
        a.entity.synthetic = true;
        a
    };
    let mut world = World::new(&[]);
    for (name, environment) in [("api-1", "test-1"), ("api-2", "test-1"), ("api-3", "test-2")] {
        world.give(pod(name, environment));
    }
    assert_eq!(world.list().iter().map(|i| i.anomalies_total).collect::<Vec<_>>(), [2, 1]);
}

#[test]
fn an_alert_of_another_system_joins_what_we_saw_ourselves() {
    let mut world = World::new(&[]);
    world.give(cpu(&host("web1"), 0));
    let mut alert = ill(&host("web1"), "HostHighCpuLoad", FaultClass::Unknown, 0.7, 45);
    alert.kind = AnomalyKind::Alert;
    world.give(alert);
    assert_eq!(world.only().anomalies_total, 2);
}

#[test]
fn another_tenants_record_is_refused() {
    let mut world = World::new(&[]);
    let mut a = cpu(&host("web1"), 0);
    a.tenant = "other".into();
    assert_eq!(world.give(a), [""; 0]);
    assert_eq!(world.engine.stats().foreign, 1);
}
