//! The choice between playbooks.

use crate::{Case, Oracle, cause, change, id, service, symptom, unknown};
use nightshift_model::{ActionType, ChangeType, Compare, Direction, FaultClass, PlanHash};
use nightshift_plan::{Playbooks, needed_looks};
use proptest::prelude::*;
use std::collections::BTreeMap;

fn saturated() -> Case {
    let payment = service("payment-service");
    Case::new(
        vec![
            symptom(&payment, "service_cpu_percent", 30.0, 97.0),
            symptom(&payment, "service_latency_p99_ms", 380.0, 2_000.0),
        ],
        vec![cause(&payment, FaultClass::CpuSaturation, 0.8), unknown(0.2)],
    )
}

#[test]
fn one_plan_for_the_two_likeliest_beats_the_best_for_the_likeliest() {
    let payment = service("payment-service");
    let anomalies = vec![symptom(&payment, "service_latency_p99_ms", 380.0, 3_000.0)];
    // Shedding would be what fits a surge at full scale; scaling is good for both of the two likeliest.
    let case = Case::new(
        anomalies,
        vec![
            cause(&payment, FaultClass::LatencySpike, 0.36),
            cause(&payment, FaultClass::CpuSaturation, 0.33),
            cause(&payment, FaultClass::TrafficSurge, 0.31),
        ],
    );
    let proposal = case.propose();
    let plan = proposal.plan.unwrap();
    assert_eq!(plan.playbook, "scale_out", "{:#?}", proposal.candidates);
    let covered: Vec<_> = plan.covers.iter().map(|c| c.fault).collect();
    assert_eq!(covered, [FaultClass::CpuSaturation, FaultClass::TrafficSurge]);
    assert!((plan.confidence - 0.64).abs() < 1e-9);
    let restart = proposal.candidates.iter().find(|c| c.playbook == "restart_hung").unwrap();
    assert!(restart.covers < plan.confidence && restart.why_not.contains("scale_out"));
}

#[test]
fn danger_needs_a_surer_cause() {
    let db = id("database", "shop-db");
    let anomalies = vec![symptom(&db, "db_query_latency_p99_ms", 18.0, 900.0)];
    let sure = Case::new(anomalies.clone(), vec![cause(&db, FaultClass::DependencyOutage, 0.9), unknown(0.1)]);
    assert_eq!(sure.plan().playbook, "failover_database");
    let unsure = Case::new(anomalies, vec![cause(&db, FaultClass::DependencyOutage, 0.2), unknown(0.8)]);
    let proposal = unsure.propose();
    assert_eq!(proposal.plan.unwrap().playbook, "manual_review");
    let refused = proposal.candidates.iter().find(|c| c.playbook == "failover_database").unwrap();
    assert!(refused.why_not.contains("not worth its risk"), "{}", refused.why_not);
}

#[test]
fn what_was_tried_is_not_proposed_again_and_what_fails_elsewhere_loses() {
    let mut case = saturated();
    assert_eq!(case.plan().playbook, "scale_out");
    case.tried = vec!["scale_out".into()];
    let proposal = case.propose();
    assert_eq!(proposal.plan.as_ref().unwrap().playbook, "shed_load");
    assert!(proposal.candidates.iter().any(|c| c.playbook == "scale_out" && c.why_not.contains("tried")));
    // A person may be asked as often as it takes.
    case.tried = vec!["scale_out".into(), "shed_load".into(), "manual_review".into()];
    assert_eq!(case.plan().playbook, "manual_review");

    let mut case = saturated();
    for _ in 0..40 {
        case.stats.add("scale_out", FaultClass::CpuSaturation, false);
        case.stats.add("shed_load", FaultClass::CpuSaturation, true);
    }
    let proposal = case.propose();
    assert_eq!(proposal.plan.unwrap().playbook, "shed_load", "{:#?}", proposal.candidates);
    let lost = proposal.candidates.iter().find(|c| c.playbook == "scale_out").unwrap();
    assert!(lost.why_not.contains("of 100 cases"), "{}", lost.why_not);
}

#[test]
fn a_trial_overrules_the_files() {
    let mut case = saturated();
    case.what_if = Some(Box::new(Oracle(BTreeMap::from([
        ("scale_out".into(), (0.0, 2_000.0, 2_000.0, 0)),
        ("shed_load".into(), (0.95, 300.0, 2_000.0, 0)),
    ]))));
    let proposal = case.propose();
    let plan = proposal.plan.unwrap();
    assert_eq!(plan.playbook, "shed_load");
    assert_eq!(plan.prediction.as_ref().unwrap().kpi_with, 300.0);
    assert!(plan.is_sealed(), "the prediction is part of what is approved");
    let lost = proposal.candidates.iter().find(|c| c.playbook == "scale_out").unwrap();
    assert!(lost.why_not.contains("a trial brought"), "{}", lost.why_not);

    // What makes it worse or harms others loses too.
    case.what_if = Some(Box::new(Oracle(BTreeMap::from([("scale_out".into(), (0.6, 9_000.0, 2_000.0, 0))]))));
    let proposal = case.propose();
    assert_eq!(proposal.plan.unwrap().playbook, "shed_load");
    assert!(proposal.candidates.iter().any(|c| c.why_not.contains("made") && c.why_not.contains("worse")));
    case.what_if = Some(Box::new(Oracle(BTreeMap::from([("scale_out".into(), (0.9, 300.0, 2_000.0, 3))]))));
    assert_eq!(case.plan().playbook, "shed_load");
    // One that knows nothing changes nothing.
    case.what_if = Some(Box::new(Oracle(BTreeMap::new())));
    assert_eq!(case.plan().prediction, None);
    assert_eq!(case.plan().playbook, "scale_out");
}

#[test]
fn nothing_known_is_a_persons_question_and_nothing_at_all_is_no_plan() {
    let payment = service("payment-service");
    let case = Case::new(vec![symptom(&payment, "service_latency_p99_ms", 380.0, 800.0)], vec![unknown(1.0)]);
    let plan = case.plan();
    assert_eq!(plan.playbook, "manual_review");
    assert!(!plan.acts() && plan.steps[0].target == payment);
    assert_eq!(case.findings(&plan), []);
    assert!(plan.steps[0].params["ask"].as_str().unwrap().contains("payment-service"));
    assert_eq!(plan.escalation_path, ["payments-oncall", "payments"]);
    let empty = Case::new(Vec::new(), Vec::new());
    assert_eq!(empty.propose().plan, None);
}

#[test]
fn an_entity_nobody_looked_at_is_no_ground_for_a_plan() {
    let mut case = saturated();
    let payment = service("payment-service");
    case.images.remove(&payment);
    let proposal = case.propose();
    assert_eq!(proposal.plan.unwrap().playbook, "manual_review");
    let wanted: Vec<_> = proposal.looks.iter().map(|l| (l.entity.name(), l.action)).collect();
    assert!(wanted.contains(&("payment-service".into(), ActionType::ScaleDeployment)), "{wanted:?}");
    let refused = proposal.candidates.iter().find(|c| c.playbook == "scale_out").unwrap();
    assert!(refused.why_not.contains("not known"), "{}", refused.why_not);
    assert_eq!(saturated().propose().looks, []);
}

#[test]
fn looks_are_few_and_the_likeliest_cause_comes_first() {
    let (payment, db) = (service("payment-service"), id("database", "shop-db"));
    let case = Case::new(
        vec![symptom(&payment, "service_latency_p99_ms", 380.0, 3_000.0)],
        vec![cause(&payment, FaultClass::LockContention, 0.5), cause(&db, FaultClass::DiskFull, 0.3)],
    );
    let shipped = Playbooks::shipped();
    let looks = needed_looks(&shipped, &case.incident, &case.topology, &case.config);
    // The step of the likeliest cause is about the database behind it.
    assert_eq!(
        (&looks[0].entity, looks[0].action, looks[0].actuator.as_str()),
        (&db, ActionType::RecycleConnections, "estate")
    );
    assert!(looks.iter().any(|l| l.action == ActionType::PatchResources));
    let mut config = case.config.clone();
    config.looks_max = 1;
    assert_eq!(needed_looks(&shipped, &case.incident, &case.topology, &config), looks[..1]);
}

#[test]
fn the_check_is_of_what_the_incident_shows() {
    let payment = service("payment-service");
    let plan = saturated().plan();
    // scale_out would rather read latency than CPU; both are there.
    assert_eq!((plan.verification.kpi.signal.as_str(), plan.verification.threshold), ("service_latency_p99_ms", 456.0));
    assert_eq!(plan.verification.compare, Compare::Below);

    // A signal for which falling is bad must come up again.
    let mut hits = symptom(&payment, "service_cache_hit_percent", 92.0, 10.0);
    hits.direction = Direction::Down;
    let case = Case::new(vec![hits], vec![cause(&payment, FaultClass::CacheStampede, 0.9)]);
    let v = case.plan().verification;
    assert_eq!((v.compare, v.kpi.signal.as_str()), (Compare::Above, "service_cache_hit_percent"));
    assert!((v.threshold - 73.6).abs() < 1e-9);

    // The cause shows nothing that can be read, its callers do.
    let gateway = service("api-gateway");
    let case = Case::new(
        vec![symptom(&gateway, "service_latency_p99_ms", 120.0, 9_000.0)],
        vec![cause(&payment, FaultClass::CascadeFailure, 0.9)],
    );
    assert_eq!(case.plan().verification.kpi.entity, gateway);

    // A node that is left stays as ill as it was: those that ran on it tell.
    let node = id("node", "node-1");
    let steal = symptom(&node, "node_cpu_steal_percent", 1.0, 60.0);
    let slow = symptom(&payment, "service_latency_p99_ms", 380.0, 2_000.0);
    let case = Case::new(vec![steal, slow], vec![cause(&node, FaultClass::NoisyNeighbour, 0.9)]);
    assert_eq!(case.plan().verification.kpi.entity, payment);

    // More traffic going away proves nothing.
    let case = Case::new(
        vec![symptom(&payment, "service_request_rate", 80.0, 400.0)],
        vec![cause(&payment, FaultClass::TrafficSurge, 0.9)],
    );
    let proposal = case.propose();
    assert!(proposal.candidates.iter().any(|c| c.why_not.contains("could tell whether")), "{:#?}", proposal.candidates);
}

#[test]
fn an_injected_incident_is_planned_without_a_look() {
    let entity = id("service", "production-api-x");
    let mut case = Case::new(
        vec![symptom(&entity, "cpu_usage", 50.0, 200.0)],
        vec![cause(&entity, FaultClass::CpuSaturation, 0.9), unknown(0.1)],
    );
    case.incident.synthetic = true;
    let proposal = case.propose();
    assert_eq!(proposal.looks, []);
    let plan = proposal.plan.unwrap();
    assert_eq!((plan.playbook.as_str(), plan.verification.kpi.signal.as_str()), ("scale_out", "cpu_usage"));
    assert!(plan.acts());
    assert_eq!(case.findings(&plan), []);
}

#[test]
fn a_change_that_the_ranking_cites_is_enough() {
    let payment = service("payment-service");
    let mut guess = cause(&payment, FaultClass::ErrorRateSpike, 0.8);
    let mut case = Case::new(vec![symptom(&payment, "service_error_rate_percent", 0.5, 45.0)], vec![guess.clone()]);
    assert_eq!(case.plan().playbook, "restart_hung");
    guess.evidence.push(nightshift_model::Evidence {
        id: "change:00".into(),
        text: "deployment by ada: 1.8.2".into(),
        at: crate::before(120),
    });
    case.incident.hypotheses = vec![guess];
    assert_eq!(case.plan().playbook, "rollback_deploy");
    // One of two hours ago is too old for it.
    case.incident.hypotheses[0].evidence[0].at = crate::before(7_200);
    assert_eq!(case.plan().playbook, "restart_hung");
    case.changes = vec![change(&payment, ChangeType::Deployment, 60)];
    assert_eq!(case.plan().playbook, "rollback_deploy");
}

#[test]
fn a_plan_that_replaces_another_says_so() {
    let case = saturated();
    let first = case.plan();
    let mut ask = case.ask();
    ask.parent = Some(first.hash);
    let second = nightshift_plan::propose(&Playbooks::shipped(), &ask).plan.unwrap();
    assert_eq!(second.parent, Some(first.hash));
    assert_ne!(second.hash, first.hash);
    assert_ne!(first.hash, PlanHash::default());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever the ranking says, the answer is the same twice, bounded, and nothing in it escapes the checker.
    #[test]
    fn any_ranking_has_a_sane_answer(
        picks in proptest::collection::vec((0..FaultClass::ALL.len(), 0..5_usize, 0.0..1.0_f64), 0..8),
        observed in 1.0..10_000.0_f64,
    ) {
        let entities = [service("api-gateway"), service("payment-service"), service("order-service"), id("database", "shop-db"), id("node", "node-1")];
        let total: f64 = picks.iter().map(|p| p.2).sum::<f64>().max(1.0);
        let causes = picks.iter().map(|(f, e, c)| cause(&entities[*e], FaultClass::ALL[*f], c / total)).collect();
        let anomalies = entities.iter().map(|e| symptom(e, "service_latency_p99_ms", 0.5 * observed, observed)).collect();
        let case = Case::new(anomalies, causes);
        let proposal = case.propose();
        prop_assert_eq!(&proposal, &case.propose());
        let plan = proposal.plan.unwrap();
        // Two hypotheses of one entity and class are one cause told twice: no ranking has that.
        let mut causes: Vec<_> = picks.iter().map(|(f, e, _)| (f, e)).collect();
        causes.sort();
        causes.dedup();
        if causes.len() == picks.len() {
            prop_assert_eq!(case.findings(&plan), []);
        }
        prop_assert!(proposal.candidates.len() <= 24 && proposal.looks.len() <= 16);
        prop_assert!(proposal.candidates.iter().filter(|c| c.why_not.is_empty()).count() == 1, "{:#?}", proposal.candidates);
    }
}
