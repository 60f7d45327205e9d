//! Plans and worlds for the tests of the guard.
#![allow(dead_code, reason = "each test file uses a part of it")]

use nightshift_guard::{Facts, GuardConfig, IncidentFacts, Person, Role, TargetFacts};
use nightshift_model::{
    ActionType, Compare, EntityId, IncidentId, Kpi, Plan, PlanHash, PlanStep, Priority, Risk, Rollback, Severity,
    Timestamp, Verification,
};
use nightshift_topology::Criticality;
use serde_json::json;
use std::collections::BTreeMap;

/// A Wednesday afternoon.
pub(crate) const START: i64 = 1_700_000_000;

pub(crate) fn at(secs: i64) -> Timestamp {
    Timestamp::from_secs(START + secs)
}

pub(crate) fn service(name: &str) -> EntityId {
    EntityId::new("prod", "service", "shop", name)
}

pub(crate) fn step(action: ActionType, target: &EntityId, params: serde_json::Value) -> PlanStep {
    let serde_json::Value::Object(params) = params else { panic!("parameters are an object") };
    PlanStep {
        name: "fix".into(),
        action,
        target: target.clone(),
        actuator: "estate".into(),
        params: params.into_iter().collect(),
        expects: BTreeMap::new(),
        risk: Risk::Low,
        estimated_impact: String::new(),
        deadline_secs: 60,
        rollback: Rollback::Restore,
        canary: None,
    }
}

/// A plan that may run by itself: a careful restart of each target.
pub(crate) fn plan(targets: &[EntityId], made_at: Timestamp) -> Plan {
    let steps = targets.iter().map(|t| step(ActionType::RestartPods, t, json!({"max_unavailable": 0.25}))).collect();
    Plan {
        hash: PlanHash::default(),
        parent: None,
        incident: IncidentId(7),
        tenant: "default".into(),
        rca_revision: 1,
        playbook: "restart".into(),
        playbook_digest: "0123456789ab".into(),
        title: "restart it".into(),
        covers: Vec::new(),
        confidence: 0.9,
        steps,
        verification: Verification {
            kpi: Kpi { entity: targets[0].clone(), signal: "error_ratio".into(), labels: BTreeMap::new() },
            compare: Compare::Below,
            threshold: 0.01,
            readings: 3,
            interval_secs: 1,
            deadline_secs: 60,
        },
        risk: Risk::Low,
        priority: Priority::Immediate,
        owner: "shop".into(),
        escalation_path: Vec::new(),
        estimated_resolution_secs: 60,
        expected_benefit: 0.5,
        acts_at_once: false,
        prediction: None,
        made_at,
    }
    .sealed()
}

/// Facts in which such a plan may run: every target is rank P0 with four replicas.
pub(crate) fn facts(plan: &Plan) -> Facts {
    let target = TargetFacts {
        criticality: Some(Criticality::P0),
        environment: "production".into(),
        replicas: Some(4),
        replicas_min: Some(2),
        replicas_max: Some(8),
        ..TargetFacts::default()
    };
    Facts {
        incident: IncidentFacts {
            id: plan.incident,
            severity: Severity::Critical,
            score: 0.95,
            ..IncidentFacts::default()
        },
        targets: plan.steps.iter().map(|s| (s.target.clone(), target.clone())).collect(),
        ..Facts::default()
    }
}

/// Settings with which plans act.
pub(crate) fn acting() -> GuardConfig {
    GuardConfig { dry_run: false, ..GuardConfig::default() }
}

pub(crate) fn person(role: Role) -> Person {
    Person { name: format!("a-{role}"), role }
}
