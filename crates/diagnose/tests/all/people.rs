//! What people decide.

use crate::{World, cpu, errors, host, latency, update};
use nightshift_diagnose::{Input, PersonAction, PersonVerb};
use nightshift_model::{IncidentId, IncidentStatus};

fn act(incident: IncidentId, verb: PersonVerb) -> Input {
    Input::Person(PersonAction { incident, actor: "ann".into(), verb })
}

fn resolve() -> PersonVerb {
    PersonVerb::Resolve { why: "it was me".into() }
}

#[test]
fn acknowledging_twice_is_told_once() {
    let mut world = World::new(&[]);
    world.give(cpu(&host("web1"), 0));
    let id = world.only().id;
    let ack = || act(id, PersonVerb::Acknowledge { note: "looking".into() });
    assert_eq!(world.give(ack()), ["acknowledged"]);
    assert_eq!(world.give(ack()), [""; 0]);
    assert_eq!(world.only().acknowledged_by.as_deref(), Some("ann"));
}

#[test]
fn what_a_person_resolved_is_not_brought_back_by_what_still_goes_on() {
    let mut world = World::new(&[]);
    let a = cpu(&host("web1"), 0);
    world.give(a.clone());
    let id = world.only().id;
    assert_eq!(world.give(act(id, resolve())), ["resolved"]);
    assert_eq!(world.give(update(&a, 100)), [""; 0]);
    assert_eq!(world.only().resolved_by.as_deref(), Some("ann"));
    // A new occurrence does.
    assert!(world.give(cpu(&host("web1"), 200)).starts_with(&["reopened"]));
}

#[test]
fn what_cannot_be_done_is_refused_with_the_reason() {
    let mut world = World::new(&["web>shop", "shop>db"]);
    world.give(act(IncidentId(7), resolve()));
    world.give(latency("web", 0));
    world.give(errors("db", 200));
    world.give(errors("shop", 210));
    let merged = world.incidents.values().find(|i| i.status == IncidentStatus::Merged).unwrap().id;
    world.give(act(merged, resolve()));
    let id = world.only().id;
    world.give(act(id, resolve()));
    world.give(act(id, resolve()));
    let told: Vec<bool> = world
        .refused
        .iter()
        .zip(["not known", "joined into", "resolved already"])
        .map(|(a, b)| a.contains(b))
        .collect();
    assert_eq!(told, [true; 3], "{:?}", world.refused);
}
