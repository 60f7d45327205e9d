//! The checker against plans that were damaged after they were made: whatever is changed, it is found.

use crate::{Case, cause, id, service, symptom};
use nightshift_model::{ActionType, Canary, EntityId, FaultClass, Plan, Prediction, Risk, Rollback};
use nightshift_plan::Playbooks;
use proptest::prelude::*;
use serde_json::json;

/// Plans of several shapes, all without a finding.
fn good() -> Vec<(Case, Plan)> {
    let payment = service("payment-service");
    let cases = [
        (payment.clone(), FaultClass::CpuSaturation, "service_cpu_percent"),
        (payment.clone(), FaultClass::DeploymentFailure, "service_error_rate_percent"),
        (payment.clone(), FaultClass::DbConnectionExhaustion, "service_db_connections"),
        (payment.clone(), FaultClass::MisroutedTraffic, "service_error_rate_percent"),
        (payment, FaultClass::MemoryLeak, "service_memory_percent"),
        (id("database", "shop-db"), FaultClass::DependencyOutage, "db_query_latency_p99_ms"),
        (id("node", "node-1"), FaultClass::NodeNotReady, "service_error_rate_percent"),
    ];
    cases
        .into_iter()
        .map(|(entity, fault, signal)| {
            let gateway = symptom(&service("api-gateway"), "service_latency_p99_ms", 120.0, 900.0);
            let case = Case::new(vec![symptom(&entity, signal, 10.0, 90.0), gateway], vec![cause(&entity, fault, 0.8)]);
            let plan = case.plan();
            assert_eq!(case.findings(&plan), [], "{fault}");
            assert!(plan.acts(), "{fault}");
            (case, plan)
        })
        .collect()
}

/// One way to damage a plan, the rule that must speak.
type Damage = (&'static str, fn(&mut Plan));

const DAMAGE: &[Damage] = &[
    ("steps", |p| p.steps.clear()),
    ("steps", |p| p.steps.push(p.steps[0].clone())),
    ("steps", |p| {
        let mut again = p.steps[0].clone();
        again.name = "again".into();
        p.steps.push(again);
    }),
    ("steps", |p| {
        let step = p.steps[0].clone();
        p.steps = (0..30).map(|i| nightshift_model::PlanStep { name: format!("s{i}"), ..step.clone() }).collect();
    }),
    ("steps", |p| p.steps[0].name = " ".into()),
    ("steps", |p| p.steps[0].actuator = String::new()),
    ("steps", |p| p.steps[0].estimated_impact = String::new()),
    ("target", |p| p.steps[0].target = service("nobody")),
    ("target", |p| {
        p.steps[0].target = id("topic", "orders");
        p.steps[0].action = ActionType::RestartPods;
    }),
    ("param", |p| {
        p.steps[0].params.insert("surprise".into(), json!(1));
    }),
    ("param", |p| {
        p.steps[0].action = ActionType::ToggleFeature;
        p.steps[0].params = crate::image(json!({"flag": "fast"}));
    }),
    ("param", |p| {
        p.steps[0].action = ActionType::LimitTraffic;
        p.steps[0].params = crate::image(json!({"limit_rps": "many"}));
    }),
    ("bounds", |p| {
        p.steps[0].action = ActionType::ScaleDeployment;
        p.steps[0].params = crate::image(json!({"replicas": 0}));
    }),
    ("bounds", |p| {
        p.steps[0].action = ActionType::ScaleDeployment;
        p.steps[0].params = crate::image(json!({"replicas": 100_000}));
    }),
    ("deletion", |p| {
        p.steps[0].action = ActionType::RunJob;
        p.steps[0].params = crate::image(json!({"job": "purge_orders"}));
    }),
    ("risk", |p| {
        p.steps.iter_mut().for_each(|s| s.risk = Risk::Low);
        p.steps[0].action = ActionType::RollbackDeploy;
        p.risk = Risk::Low;
    }),
    ("risk", |p| p.risk = if p.risk == Risk::Critical { Risk::Low } else { Risk::Critical }),
    ("rollback", |p| {
        p.steps[0].rollback = match p.steps[0].rollback {
            Rollback::Restore => Rollback::Nothing,
            _ => Rollback::Restore,
        };
    }),
    ("rollback", |p| {
        p.steps[0].rollback = Rollback::Impossible;
        p.steps[0].risk = Risk::Medium;
    }),
    ("expects", |p| p.steps[0].expects.clear()),
    ("expects", |p| p.steps[0].expects.values_mut().for_each(|v| *v = json!("another world"))),
    ("expects", |p| {
        p.steps[0].expects.insert("never_seen".into(), json!(1));
    }),
    ("canary", |p| p.steps[0].canary = Some(Canary { share: 0.0, watch_secs: 10 })),
    ("canary", |p| p.steps[0].canary = Some(Canary { share: 1.0, watch_secs: 10 })),
    ("canary", |p| p.steps[0].canary = Some(Canary { share: f64::NAN, watch_secs: 10 })),
    ("canary", |p| {
        p.steps[0].action = ActionType::ScaleDeployment;
        p.steps[0].canary = Some(Canary { share: 0.5, watch_secs: 10 });
    }),
    ("canary", |p| p.steps[0].canary = Some(Canary { share: 0.5, watch_secs: 0 })),
    ("deadline", |p| p.steps[0].deadline_secs = 0),
    ("deadline", |p| p.steps[0].deadline_secs = 86_400),
    ("deadline", |p| p.estimated_resolution_secs = 0),
    ("verification", |p| p.verification.readings = 0),
    ("verification", |p| p.verification.readings = 1_000),
    ("verification", |p| p.verification.interval_secs = 31),
    ("verification", |p| p.verification.deadline_secs = 0),
    ("verification", |p| p.verification.deadline_secs = u32::MAX),
    ("verification", |p| p.verification.threshold = f64::INFINITY),
    ("verification", |p| p.verification.kpi.signal = String::new()),
    ("verification", |p| p.verification.kpi.entity = EntityId::new("sim", "service", "", "nobody")),
    ("confidence", |p| p.confidence = 1.0),
    ("confidence", |p| p.confidence = f64::NAN),
    ("confidence", |p| p.covers.clear()),
    ("confidence", |p| p.covers.push(p.covers[0].clone())),
    ("confidence", |p| p.covers[0].confidence = 1.7),
    ("confidence", |p| p.expected_benefit = f64::NAN),
    ("identity", |p| p.tenant = String::new()),
    ("identity", |p| p.title = String::new()),
    ("identity", |p| p.playbook = String::new()),
    ("identity", |p| p.playbook_digest = "none".into()),
    ("identity", |p| p.rca_revision = 0),
    ("prediction", |p| {
        p.prediction = Some(Prediction {
            success_probability: 1.2,
            recovery_secs: None,
            kpi_with: 0.0,
            kpi_without: 0.0,
            harms: Vec::new(),
            basis: String::new(),
        });
    }),
];

#[test]
fn every_damage_is_found_by_its_rule_and_by_the_seal() {
    for (case, plan) in good() {
        for (i, (rule, damage)) in DAMAGE.iter().enumerate() {
            let mut bad = plan.clone();
            damage(&mut bad);
            // Not sealed again: the seal tells, whatever else does.
            assert!(case.findings(&bad).iter().any(|f| f.rule == "seal"), "damage {i} ({rule}) of {}", plan.playbook);
            // Sealed again by whoever damaged it: its own rule tells.
            let found = case.findings(&bad.sealed());
            assert!(found.iter().any(|f| f.rule == *rule), "damage {i} ({rule}) of {}: {found:?}", plan.playbook);
        }
    }
}

#[test]
fn another_world_than_the_one_planned_for_is_found() {
    for (mut case, plan) in good() {
        let step = &plan.steps[0];
        let Some(name) = step.expects.keys().next() else { continue };
        case.images.get_mut(&step.target).unwrap().insert(name.clone(), json!("changed"));
        assert!(case.findings(&plan).iter().any(|f| f.rule == "expects"), "{}", plan.playbook);
        case.images.remove(&step.target);
        assert!(case.findings(&plan).iter().any(|f| f.rule == "expects" && f.message.contains("looked at")));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Any byte of a plan that means something: what is read back differently is not what was sealed.
    #[test]
    fn no_edit_of_a_stored_plan_passes(which in 0..7_usize, at in any::<prop::sample::Index>(), digit in 0..10_u8) {
        let (case, plan) = good().swap_remove(which);
        let mut text = serde_json::to_string(&plan).unwrap().into_bytes();
        let digits: Vec<usize> = (0..text.len()).filter(|i| text[*i].is_ascii_digit()).collect();
        let place = digits[at.index(digits.len())];
        text[place] = b'0' + digit;
        // Read back it is another plan, or none, or the same number written differently.
        if let Ok(edited) = serde_json::from_slice::<Plan>(&text) {
            let found = case.findings(&edited);
            prop_assert_eq!(edited == plan, found.is_empty(), "{:?}", found);
        }
    }

    /// Two kinds of damage at once hide neither.
    #[test]
    fn damage_does_not_hide_damage(which in 0..7_usize, a in 0..DAMAGE.len(), b in 0..DAMAGE.len()) {
        let (case, plan) = good().swap_remove(which);
        let mut bad = plan;
        // The first may leave no step to damage, and the same one twice may be none.
        DAMAGE[a].1(&mut bad);
        if a != b && !bad.steps.is_empty() && !bad.covers.is_empty() {
            DAMAGE[b].1(&mut bad);
        }
        prop_assert!(!case.findings(&bad.sealed()).is_empty());
    }
}

#[test]
fn a_plan_of_an_older_playbook_is_still_checked_by_what_it_does() {
    let (case, plan) = good().swap_remove(0);
    let mut old = plan;
    old.playbook = "gone_since".into();
    assert!(Playbooks::shipped().get("gone_since").is_none());
    assert_eq!(case.findings(&old.sealed()), []);
}
