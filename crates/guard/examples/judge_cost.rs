//! What one verdict costs: `cargo run --release -p nightshift-guard --example judge_cost`.

use nightshift_guard::{Ask, Facts, Guard, GuardConfig, IncidentFacts, Policies, Request, RunEnd, TargetFacts};
use nightshift_model::{
    ActionType, Compare, EntityId, IncidentId, Kpi, Operation, Plan, PlanHash, PlanStep, Priority, Risk, Rollback,
    Timestamp, Verification,
};
use nightshift_topology::Criticality;
use std::collections::BTreeMap;
use std::hint::black_box;
use std::time::{Duration, Instant};

fn plan(steps: usize, at: i64) -> Plan {
    let target = |i: usize| EntityId::new("prod", "service", "shop", &format!("service-{i}"));
    let step = |i: usize| PlanStep {
        name: format!("restart {i}"),
        action: ActionType::RestartPods,
        target: target(i),
        actuator: "estate".into(),
        params: BTreeMap::from([("max_unavailable".to_owned(), serde_json::json!(0.25))]),
        expects: BTreeMap::new(),
        risk: Risk::Medium,
        estimated_impact: "pod restart, 30 s".into(),
        deadline_secs: 60,
        rollback: Rollback::Nothing,
        canary: None,
    };
    Plan {
        hash: PlanHash::default(),
        parent: None,
        incident: IncidentId(1),
        tenant: "default".into(),
        rca_revision: 1,
        playbook: "rolling-restart".into(),
        playbook_digest: "0123456789ab".into(),
        title: "restart, a quarter at a time".into(),
        covers: Vec::new(),
        confidence: 0.9,
        steps: (0..steps).map(step).collect(),
        verification: Verification {
            kpi: Kpi { entity: target(0), signal: "error_ratio".into(), labels: BTreeMap::new() },
            compare: Compare::Below,
            threshold: 0.01,
            readings: 3,
            interval_secs: 1,
            deadline_secs: 60,
        },
        risk: Risk::Medium,
        priority: Priority::Immediate,
        owner: "shop".into(),
        escalation_path: Vec::new(),
        estimated_resolution_secs: 60,
        expected_benefit: 0.5,
        acts_at_once: false,
        prediction: None,
        made_at: Timestamp::from_secs(at),
    }
    .sealed()
}

fn facts(plan: &Plan) -> Facts {
    let known = TargetFacts {
        criticality: Some(Criticality::P0),
        environment: "production".into(),
        replicas: Some(6),
        replicas_min: Some(2),
        replicas_max: Some(12),
        ..TargetFacts::default()
    };
    Facts {
        incident: IncidentFacts { id: plan.incident, ..IncidentFacts::default() },
        targets: plan.steps.iter().map(|s| (s.target.clone(), known.clone())).collect(),
        ..Facts::default()
    }
}

/// Median and 99th percentile of so many calls, in microseconds.
fn time(calls: usize, mut call: impl FnMut(usize)) -> (f64, f64) {
    let mut times: Vec<f64> = (0..calls)
        .map(|i| {
            let began = Instant::now();
            call(i);
            began.elapsed().as_secs_f64() * 1e6
        })
        .collect();
    times.sort_by(f64::total_cmp);
    (times[calls / 2], times[calls * 99 / 100])
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    const CALLS: usize = 20_000;
    let config = GuardConfig { dry_run: false, cooldown_secs: 0, ..GuardConfig::default() };
    let compile = || Policies::with_shipped(&[], &[], Duration::from_secs(1));
    let shipped = compile().map_err(|p| format!("{p:?}"))?;
    let now = Timestamp::from_secs(1_700_000_000);
    let (median, p99) = time(50, |_| drop(black_box(compile())));
    println!("compile the policies that ship: {median:.0} us (p99 {p99:.0})");
    for (name, policies) in
        [("with the policies that ship", shipped.clone()), ("built-in rules only", Policies::none())]
    {
        for steps in [1, 4] {
            let (p, guard) = (plan(steps, 0), Guard::new(config.clone(), policies.clone()));
            let f = facts(&p);
            let ask = Ask { plan: &p, facts: &f };
            let (median, p99) = time(CALLS, |_| drop(black_box(guard.judge(&ask, now))));
            println!("judge, {steps} steps, {name}: {median:.1} us (p99 {p99:.1})");
        }
    }
    let mut guard = Guard::new(config, shipped);
    let plans: Vec<(Plan, Facts)> = (0..2_000).map(|i| plan(1, i)).map(|p| (p.clone(), facts(&p))).collect();
    let mut permitted = 0;
    let (median, p99) = time(plans.len(), |i| {
        let (p, f) = &plans[i];
        let at = now + Duration::from_secs(i as u64 * 200);
        let request = Request { step: 0, operation: Operation::Apply, fence: 1 };
        permitted += usize::from(guard.permit(&Ask { plan: p, facts: f }, request, at).is_ok());
        guard.finish(p.hash, RunEnd::Verified, at);
    });
    println!("permit and finish, with the policies that ship: {median:.1} us (p99 {p99:.1}), {permitted} permitted");
    Ok(())
}
