//! From the first symptom to the end, and back again.

use crate::{World, closed, cpu, errors, host, ill, t, update};
use nightshift_diagnose::DiagnoseConfig;
use nightshift_model::{AnomalyKind, EventKind, FaultClass, IncidentStatus, Severity};
use nightshift_topology::Topology;

#[test]
fn the_states_are_passed_in_order() {
    let mut world = World::new(&[]);
    let words = world.give(cpu(&host("web1"), 0));
    let want = ["created", "status_changed", "status_changed", "assessed", "causes_ranked", "status_changed"];
    assert_eq!(words, want);
    let states: Vec<IncidentStatus> = world
        .rows
        .iter()
        .filter_map(|r| if let EventKind::StatusChanged { to, .. } = r.event { Some(to) } else { None })
        .collect();
    let want = [IncidentStatus::Correlating, IncidentStatus::Investigating, IncidentStatus::RcaComplete];
    assert_eq!(states, want);
    assert_eq!(world.only().severity, Severity::Critical);
}

#[test]
fn a_repeated_record_has_no_effect() {
    let mut world = World::new(&[]);
    let a = cpu(&host("web1"), 0);
    world.give(a.clone());
    assert_eq!(world.give(a.clone()), [""; 0]);
    world.give(closed(&a, 50));
    assert_eq!(world.give(closed(&a, 50)), [""; 0]);
    assert_eq!(world.give(a.clone()), [""; 0]);
    world.tick(1_000);
    assert_eq!(world.give(closed(&a, 50)), [""; 0]);
    assert_eq!(world.give(a), [""; 0]);
    assert_eq!(world.only().status, IncidentStatus::Resolved);
}

#[test]
fn it_ends_a_minute_of_event_time_after_the_last_symptom() {
    let mut world = World::new(&[]);
    let (a, b) = (cpu(&host("web1"), 0), ill(&host("web1"), "node_load1", FaultClass::CpuSaturation, 0.8, 5));
    world.give(a.clone());
    world.give(b.clone());
    world.give(closed(&a, 100));
    assert_eq!(world.tick(400), [""; 0], "one symptom still goes on");
    world.give(closed(&b, 410));
    assert_eq!(world.tick(469), [""; 0]);
    assert_eq!(world.tick(530), ["resolved"]);
    let inc = world.only();
    assert_eq!((inc.resolved_at, inc.resolved_by.as_deref()), (Some(t(470)), Some("system")));
}

#[test]
fn a_return_within_five_minutes_reopens_and_a_later_one_is_a_recurrence() {
    let mut world = World::new(&[]);
    let first = cpu(&host("web1"), 0);
    world.give(first.clone());
    world.give(closed(&first, 40));
    world.tick(200);
    let resolved_at = world.only().resolved_at.unwrap();
    assert_eq!(resolved_at, t(100));
    let second = cpu(&host("web1"), 350);
    assert!(world.give(second.clone()).starts_with(&["reopened", "anomaly_joined"]));
    assert_eq!(world.only().status, IncidentStatus::RcaComplete);
    world.give(closed(&second, 380));
    world.tick(600);
    // Not the same series, but the same host ill in the same way.
    let third = ill(&host("web1"), "node_load1", FaultClass::CpuSaturation, 0.9, 4_000);
    world.give(third.clone());
    let list = world.list();
    assert_eq!((list.len(), list[1].recurrence_of), (2, Some(list[0].id)));
    assert_ne!(list[0].id, list[1].id);
    // Another illness of the same host is no recurrence.
    world.give(closed(&third, 4_010));
    world.tick(5_000);
    world.give(ill(&host("web1"), "disk_used_ratio", FaultClass::DiskFull, 0.9, 9_000));
    assert_eq!(world.list()[2].recurrence_of, None);
}

#[test]
fn the_same_fault_that_returns_every_day_is_handled_every_day() {
    let mut world = World::new(&[]);
    for day in 0..5 {
        let a = cpu(&host("web1"), day * 86_400);
        world.give(a.clone());
        world.give(closed(&a, day * 86_400 + 60));
        world.tick(day * 86_400 + 400);
    }
    let list = world.list();
    assert_eq!(list.len(), 5);
    assert!(list.windows(2).all(|w| w[1].recurrence_of == Some(w[0].id)));
}

#[test]
fn a_series_that_flaps_stays_one_incident_and_leaves_few_rows() {
    let mut world = World::new(&[]);
    for i in 0..120 {
        let a = cpu(&host("web1"), i * 60);
        world.give(a.clone());
        world.give(closed(&a, i * 60 + 20));
        world.tick(i * 60 + 50);
    }
    let inc = world.only();
    assert!(inc.status.is_open(), "two hours of flapping are one incident that goes on");
    let told = world.rows.iter().filter(|r| matches!(r.event, EventKind::AnomalyJoined { .. })).count();
    assert!(told < 70, "240 records, {told} rows");
    world.tick(120 * 60 + 600);
    assert_eq!(world.only().status, IncidentStatus::Resolved);
}

#[test]
fn updates_are_told_when_they_matter_and_every_five_minutes() {
    let mut world = World::new(&[]);
    let mut a = cpu(&host("web1"), 0);
    a.score = 0.6;
    a.severity = Severity::Medium;
    world.give(a.clone());
    let told: usize = (1..=1_200).map(|s| world.give(update(&a, s)).len()).sum();
    assert_eq!(told, 4);
    let mut worse = update(&a, 1_201);
    (worse.score, worse.severity) = (0.92, Severity::Critical);
    assert!(world.give(worse).contains(&"assessed"));
    assert_eq!(world.only().severity, Severity::Critical);
}

#[test]
fn the_end_of_a_spike_does_not_make_it_small() {
    let mut world = World::new(&[]);
    let a = cpu(&host("web1"), 0);
    world.give(a.clone());
    let mut end = closed(&a, 60);
    (end.score, end.severity) = (0.0, Severity::Low);
    world.give(end);
    world.tick(1_000);
    assert_eq!(world.only().severity, Severity::Critical);
}

#[test]
fn a_source_that_is_gone_is_told_as_such_and_not_as_health() {
    let mut world = World::new(&[]);
    let a = cpu(&host("web1"), 0);
    world.give(a.clone());
    assert_eq!(world.tick(3_600), [""; 0]);
    assert_eq!(world.tick(3_700), ["resolved"]);
    let EventKind::Resolved { why } = &world.rows.last().unwrap().event else { panic!() };
    assert!(why.starts_with("telemetry stopped"), "{why}");
    // It speaks again: the same occurrence goes on, as another incident that knows the first.
    world.give(update(&a, 9_000));
    let list = world.list();
    assert_eq!((list.len(), list[1].recurrence_of), (2, Some(list[0].id)));
}

#[test]
fn an_alert_may_be_silent_for_hours_and_a_log_line_ends_by_itself() {
    let mut world = World::new(&[]);
    let mut alert = cpu(&host("web1"), 0);
    alert.kind = AnomalyKind::Alert;
    world.give(alert);
    assert_eq!(world.tick(4 * 3_600), [""; 0]);
    let mut world = World::new(&[]);
    let mut line = ill(&host("web1"), "tpl-7", FaultClass::CriticalLog, 0.9, 0);
    line.kind = AnomalyKind::Log;
    world.give(line);
    assert_eq!(world.tick(359), [""; 0]);
    assert_eq!(world.tick(361), ["resolved"]);
    assert_eq!(world.only().resolved_at, Some(t(360)));
}

#[test]
fn an_end_that_comes_before_its_beginning_is_not_lost() {
    let mut world = World::new(&[]);
    let a = cpu(&host("web1"), 0);
    assert_eq!(world.give(closed(&a, 30)), [""; 0]);
    world.give(a);
    let inc = world.only();
    assert_eq!((inc.anomalies_total, inc.anomalies_open), (1, 0));
    assert_eq!(world.tick(200), ["resolved"]);
}

#[test]
fn a_late_record_is_judged_by_its_own_time() {
    let mut world = World::new(&["shop>db"]);
    world.tick(3_000);
    // Both are fifty minutes old when they come.
    world.give(errors("shop", 20));
    world.give(errors("db", 10));
    let inc = world.only();
    assert_eq!((inc.onset, inc.detected_at), (t(10), t(20)));
}

#[test]
fn what_would_be_one_too_many_is_counted() {
    let config = DiagnoseConfig { open_max: 3, ..DiagnoseConfig::default() };
    let mut world = World::with(Topology::default(), config);
    for i in 0..10 {
        world.give(cpu(&host(&format!("web{i}")), i));
    }
    assert_eq!((world.list().len(), world.engine.stats().not_opened), (3, 7));
}

#[test]
fn what_is_old_is_forgotten() {
    let config = DiagnoseConfig {
        recurrence_secs: 3_600,
        recent_max: 5,
        waiting_max: 4,
        changes_max: 3,
        ..DiagnoseConfig::default()
    };
    let mut world = World::with(Topology::default(), config);
    for i in 0..10 {
        let a = cpu(&host(&format!("web{i}")), i);
        world.give(a.clone());
        world.give(closed(&a, i + 1));
        world.give(ill(&host(&format!("db{i}")), "x", FaultClass::Unknown, 0.2, i));
        world.give(crate::change("shop", nightshift_model::ChangeType::Config, i));
    }
    assert_eq!(world.engine.held(), (4, 3));
    let config = world.config.clone();
    let mut engine = std::mem::replace(&mut world.engine, nightshift_diagnose::Engine::new(config, "default"));
    let topology = Topology::default();
    engine.step(nightshift_diagnose::Input::Tick, &topology, t(100));
    engine.step(nightshift_diagnose::Input::Tick, &topology, t(101));
    assert_eq!(engine.incidents().count(), 5);
    engine.step(nightshift_diagnose::Input::Tick, &topology, t(200_000));
    assert_eq!((engine.incidents().count(), engine.held()), (0, (0, 0)));
}
