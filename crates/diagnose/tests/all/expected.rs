//! What was announced, or done here, is no surprise; what hurts is, whoever announced it.

use crate::{World, change, errors, ill, service};
use nightshift_model::{Change, ChangeType, Direction, FaultClass};

fn told(name: &str, kind: ChangeType, summary: &str, at: i64) -> Change {
    Change { summary: summary.into(), ..change(name, kind, at) }
}

fn load(name: &str, observed: f64, at: i64) -> nightshift_model::Anomaly {
    let mut a = ill(&service(name), "service_cpu_percent", FaultClass::CpuSaturation, 0.8, at);
    a.direction = Direction::Up;
    a.explanation.observed = Some(observed);
    a.explanation.expected = Some(30.0);
    a
}

#[test]
fn announced_load_opens_nothing_there_nor_below_and_unannounced_load_does() {
    for (summary, incidents) in [("planned batch job", 0), ("all pods were replaced", 1)] {
        for place in ["shop", "db"] {
            let mut world = World::new(&["shop>db"]);
            world.give(told("shop", ChangeType::Event, summary, 0));
            world.give(load(place, 60.0, 30));
            assert_eq!(world.list().len(), incidents, "{summary} {place}");
        }
    }
}

#[test]
fn what_is_full_or_fails_counts_whoever_announced_it() {
    let mut world = World::new(&[]);
    world.give(told("shop", ChangeType::Event, "planned batch job", 0));
    world.give(load("shop", 96.0, 30));
    assert_eq!(world.list().len(), 1);
    let mut world = World::new(&[]);
    world.give(told("shop", ChangeType::Event, "planned campaign", 0));
    world.give(errors("shop", 30));
    assert_eq!(world.list().len(), 1);
}

#[test]
fn announced_load_is_evidence_once_something_fails() {
    let mut world = World::new(&[]);
    world.give(told("shop", ChangeType::Event, "planned batch job", 0));
    world.give(load("shop", 60.0, 30));
    world.give(errors("shop", 40));
    assert_eq!(world.only().anomalies_total, 2);
}

#[test]
fn an_announcement_does_not_last_for_ever_and_speaks_for_no_stranger() {
    let mut world = World::new(&["shop>db"]);
    world.give(told("shop", ChangeType::Event, "planned batch job", 0));
    world.give(load("mail", 60.0, 30));
    assert_eq!(world.list().len(), 1);
    world.give(load("shop", 60.0, 3_700));
    assert_eq!(world.list().len(), 2);
}

#[test]
fn two_that_look_alike_and_share_only_what_everybody_needs_are_two_and_three_are_one() {
    let edges = ["a>dns", "b>dns", "c>dns", "d>dns", "e>dns", "f>dns"];
    let mut world = World::new(&edges);
    world.give(errors("a", 0));
    world.give(errors("b", 1));
    assert_eq!(world.list().len(), 2);
    world.give(errors("c", 2));
    assert_eq!(world.list().len(), 1);
    assert_eq!(world.only().anomalies_total, 3);
}
