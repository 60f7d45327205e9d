//! Which cause is believed, and why.

use crate::{World, change, cpu, errors, host, ill, latency, service};
use nightshift_model::{AnomalyKind, Change, ChangeType, Direction, EntityId, FaultClass, Hypothesis, Incident};

fn top(inc: &Incident) -> (String, FaultClass) {
    let cause = inc.top_cause().unwrap();
    (cause.entity.as_ref().map_or_else(|| "?".into(), |e| e.name()), cause.fault)
}

fn weight(h: &Hypothesis, factor: &str) -> f64 {
    h.contributions.iter().filter(|c| c.factor == factor).map(|c| c.log_odds).sum()
}

fn find(inc: &Incident, fault: FaultClass) -> &Hypothesis {
    inc.hypotheses.iter().find(|h| h.fault == fault && h.entity.is_some()).unwrap()
}

#[test]
fn a_deployment_is_believed_less_with_every_minute() {
    let mut last = f64::INFINITY;
    for minutes in [0, 15, 30, 45, 59] {
        let mut world = World::new(&[]);
        world.give(change("shop", ChangeType::Deployment, 0));
        world.give(errors("shop", minutes * 60));
        let h = find(world.only(), FaultClass::DeploymentFailure).clone();
        let got = weight(&h, "deployment");
        assert!((got - 2.8 * (1.0 - minutes as f64 / 60.0)).abs() < 1e-3, "{minutes}: {got}");
        assert!(got < last);
        last = got;
        if minutes == 0 {
            assert_eq!(top(world.only()), ("shop".into(), FaultClass::DeploymentFailure));
            assert!(h.evidence.iter().any(|e| e.id.starts_with("change:")));
        }
    }
}

#[test]
fn a_change_after_the_onset_or_an_hour_before_is_no_cause() {
    for at in [-3_600, -4_000, 30] {
        let mut world = World::new(&[]);
        if at < 0 {
            world.give(change("shop", ChangeType::Deployment, at));
        }
        world.give(errors("shop", 0));
        if at > 0 {
            world.give(change("shop", ChangeType::Deployment, at));
        }
        assert_eq!(top(world.only()), ("shop".into(), FaultClass::ErrorRateSpike), "{at}");
        assert!(world.only().hypotheses.iter().all(|h| h.fault != FaultClass::DeploymentFailure), "{at}");
    }
}

#[test]
fn a_change_that_is_told_late_is_ranked_as_soon_as_it_comes() {
    let mut world = World::new(&["web>shop"]);
    world.give(errors("shop", 600));
    let words = world.give(change("shop", ChangeType::Config, 500));
    assert!(words.contains(&"causes_ranked"), "{words:?}");
    assert_eq!(top(world.only()), ("shop".into(), FaultClass::BadConfig));
    assert_eq!(world.only().rca_revision, 2);
    assert_eq!(world.give(change("shop", ChangeType::Config, 500)), [""; 0], "told again");
    assert_eq!(world.give(change("mail", ChangeType::Config, 500)), [""; 0], "somebody else's");
}

#[test]
fn a_deployed_dependency_explains_its_ill_caller() {
    let mut world = World::new(&["shop>db"]);
    world.give(change("db", ChangeType::Migration, 0));
    world.give(errors("shop", 60));
    let h = find(world.only(), FaultClass::DeploymentFailure);
    assert_eq!(h.entity, Some(service("db")));
    assert!(weight(h, "deployment") > 1.0);
}

#[test]
fn cascade_needs_an_error_ratio_above_five_percent() {
    for (observed, cascades) in [(3.0, false), (40.0, true)] {
        let mut world = World::new(&["shop>db"]);
        let mut db = errors("db", 0);
        db.explanation.observed = Some(observed);
        world.give(db);
        world.give(latency("shop", 5));
        let h = find(world.only(), FaultClass::ErrorRateSpike);
        assert_eq!(weight(h, "cascade") > 0.0, cascades, "{observed} %");
    }
}

#[test]
fn more_work_from_above_is_a_signal_of_its_own() {
    let mut world = World::new(&["web>shop"]);
    let mut surge = ill(&service("web"), "service_request_rate", FaultClass::TrafficSurge, 0.9, 0);
    surge.direction = Direction::Up;
    world.give(surge);
    world.give(ill(&service("shop"), "service_cpu_percent", FaultClass::CpuSaturation, 0.9, 20));
    let inc = world.only();
    assert_eq!(top(inc), ("web".into(), FaultClass::TrafficSurge));
    assert!(weight(inc.top_cause().unwrap(), "upstream") > 0.0);
    assert!(weight(find(inc, FaultClass::CpuSaturation), "upstream") < 0.0);
}

#[test]
fn the_three_signals_are_three() {
    let mut world = World::new(&["web>shop", "shop>db"]);
    world.give(change("db", ChangeType::Deployment, 0));
    world.give(errors("db", 60));
    world.give(errors("shop", 70));
    let mut surge = ill(&service("web"), "service_request_rate", FaultClass::TrafficSurge, 0.7, 75);
    surge.direction = Direction::Up;
    world.give(surge);
    let factors: std::collections::BTreeSet<&str> =
        world.only().hypotheses.iter().flat_map(|h| &h.contributions).map(|c| c.factor.as_str()).collect();
    for factor in ["deployment", "cascade", "upstream"] {
        assert!(factors.contains(factor), "{factors:?}");
    }
}

#[test]
fn when_nothing_stands_out_the_answer_is_unknown_and_says_what_would_help() {
    let mut world = World::new(&[]);
    let mut odd = ill(&host("web1"), "soup_level", FaultClass::Unknown, 0.6, 0);
    odd.direction = Direction::Down;
    world.give(odd);
    let cause = world.only().top_cause().unwrap();
    assert_eq!((cause.entity.as_ref(), cause.fault), (None, FaultClass::Unknown));
    assert!(cause.summary.contains("would"), "{}", cause.summary);
    assert_eq!(world.only().title, "Unusual soup_level on web1");
}

#[test]
fn unknown_is_always_among_them_and_confidences_add_up() {
    let mut world = World::new(&["web>shop", "shop>db", "shop@web1"]);
    for a in [errors("db", 0), errors("shop", 1), latency("web", 2), cpu(&host("web1"), 3)] {
        world.give(a);
        let list = &world.only().hypotheses;
        assert!(list.iter().any(|h| h.entity.is_none()));
        assert!((list.iter().map(|h| h.confidence).sum::<f64>() - 1.0).abs() < 1e-9);
    }
}

#[test]
fn a_name_says_what_the_detector_did_not() {
    let mut world = World::new(&[]);
    let mut idle = ill(&host("web1"), "node_cpu_seconds_total", FaultClass::Unknown, 0.95, 0);
    idle.direction = Direction::Down;
    idle.labels.insert("mode".into(), "idle".into());
    world.give(idle);
    assert_eq!(world.only().title, "CPU saturation on web1");
    let mut world = World::new(&[]);
    let mut process = ill(&host("web1"), "system_process_cpu_percent", FaultClass::Unknown, 0.95, 0);
    process.labels.insert("process".into(), "stress-ng".into());
    world.give(process);
    assert_eq!(world.only().top_cause().unwrap().summary, "CPU saturation on web1 (stress-ng)");
}

#[test]
fn a_new_revision_is_told_only_when_it_says_something_new() {
    let mut world = World::new(&[]);
    for i in 0..20 {
        world.give(ill(&host("web1"), &format!("system_cpu_{i}"), FaultClass::CpuSaturation, 0.9, i));
    }
    assert!(world.only().rca_revision <= 4, "{}", world.only().rca_revision);
}

#[test]
fn a_little_time_taken_away_from_a_busy_machine_is_no_neighbour() {
    let of = |stolen: f64| {
        let mut world = World::new(&[]);
        let vm = host("vm");
        world.give(ill(&vm, "system_cpu_utilization_ratio", FaultClass::CpuSaturation, 0.6, 0));
        world.give(ill(&vm, "node_pressure_cpu_waiting_seconds_total", FaultClass::CpuSaturation, 0.55, 0));
        world.give(ill(&vm, "node_cpu_steal_seconds", FaultClass::NoisyNeighbour, stolen, 5));
        top(world.only()).1
    };
    assert_eq!(of(0.45), FaultClass::CpuSaturation);
    assert_eq!(of(0.69), FaultClass::NoisyNeighbour);
}

#[test]
fn what_was_found_on_the_objects_is_the_cause_and_says_so_in_its_words() {
    let web = EntityId::new("eu", "deployment", "shop", "web");
    let mut found = ill(&web, "kubernetes_fault", FaultClass::MissingConfigMap, 0.85, 0);
    found.kind = AnomalyKind::Rule;
    found.description = "Deployment shop/web cannot start, because ConfigMap shop/app: it does not exist".into();
    // Without a change beside it there is nothing to doubt.
    let mut world = World::new(&[]);
    world.give(found.clone());
    let cause = world.only().top_cause().unwrap().clone();
    assert!(cause.confidence > 0.9, "{}", cause.confidence);
    // A rollout two minutes before is a reason, and no other cause.
    let mut world = World::new(&[]);
    world.give(Change { entity: Some(web.clone()), ..change("web", ChangeType::Deployment, -120) });
    world.give(found.clone());
    let cause = world.only().top_cause().unwrap();
    assert_eq!((cause.entity.as_ref(), cause.fault), (Some(&web), FaultClass::MissingConfigMap));
    assert_eq!(cause.summary, found.description);
}
