//! Thousands of symptoms, one cause.

use crate::{World, closed, errors, latency, service};
use nightshift_diagnose::Input;
use nightshift_model::incident::MEMBERS_MAX;
use nightshift_model::{Anomaly, FaultClass, IncidentStatus};

/// 500 services that all need one database, ten symptoms each; the database's own comes in the middle.
fn storm() -> (Vec<String>, Vec<Anomaly>) {
    let edges = (0..500).map(|i| format!("s{i}>db")).collect();
    let mut list = Vec::new();
    for signal in 0..10 {
        for i in 0..500 {
            let mut a = if signal % 2 == 0 {
                errors(&format!("s{i}"), 10 + i % 50)
            } else {
                latency(&format!("s{i}"), 10 + i % 50)
            };
            a.signal = format!("{}_{signal}", a.signal);
            a.fingerprint = a.fingerprint.wrapping_add(signal);
            a.id = nightshift_model::OccurrenceId::derive(a.fingerprint, a.onset);
            list.push(a);
        }
    }
    let mut db = errors("db", 0);
    db.score = 0.8;
    list.insert(2_500, db);
    (edges, list)
}

#[test]
fn a_storm_of_five_thousand_is_one_incident_of_the_bad_dependency() {
    let (edges, list) = storm();
    let edges: Vec<&str> = edges.iter().map(String::as_str).collect();
    let mut world = World::new(&edges);
    for batch in list.chunks(250) {
        let now = batch.iter().map(|a| a.last_seen).max().unwrap();
        world.tick((now.0 / 1_000_000_000) - 1_000_000);
        world.give_all(batch.iter().cloned().map(Input::from).collect());
    }
    let open: Vec<_> = world.list();
    assert!(open.len() <= 2, "{}", open.len());
    let inc = open[0];
    assert_eq!(inc.anomalies_total, 5_001);
    assert!(inc.anomalies.len() <= MEMBERS_MAX);
    assert_eq!(inc.blast_radius.affected.len(), 500.min(inc.blast_radius.affected.len()));
    let cause = inc.top_cause().unwrap();
    assert_eq!((cause.entity.clone(), cause.fault), (Some(service("db")), FaultClass::ErrorRateSpike), "{cause:#?}");
    assert!(world.rows.len() < 1_000, "{} rows", world.rows.len());

    // It ends when all have ended, those that were only counted too.
    let id = inc.id;
    for batch in list.chunks(250) {
        world.give_all(batch.iter().map(|a| Input::from(closed(a, 400))).collect());
    }
    world.tick(500);
    let inc = &world.incidents[&id];
    assert_eq!((inc.status, inc.anomalies_open), (IncidentStatus::Resolved, 0));
}

#[test]
fn a_storm_that_comes_one_by_one_is_the_same_and_repeated_records_count_once() {
    let (edges, list) = storm();
    let edges: Vec<&str> = edges.iter().map(String::as_str).collect();
    let mut world = World::new(&edges);
    let some: Vec<Anomaly> = list.into_iter().step_by(9).collect();
    for a in &some {
        world.give(a.clone());
    }
    let rows = world.rows.len();
    for a in &some {
        world.give(a.clone());
    }
    assert_eq!(world.rows.len(), rows);
    assert_eq!(world.only().anomalies_total, some.len() as u64);
}
