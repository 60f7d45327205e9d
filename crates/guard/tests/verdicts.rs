//! What the guard says, rule by rule, and what people may do about it.
#![expect(clippy::unwrap_used, reason = "a test may panic; clippy does not see that helpers are of tests")]

mod common;

use common::{acting, at, facts, person, plan, service, step};
use nightshift_guard::{
    Ask, BudgetLeft, ExternalAnswer, Facts, Guard, GuardConfig, Hands, OpaConfig, Policies, Refusal, Request, Role,
    RunEnd, Window, WindowKind, rule,
};
use nightshift_model::{
    ActionType, Decision, EntityId, IncidentId, KillSwitch, Operation, Plan, Risk, Rollback, Timestamp, Verdict,
};
use serde_json::json;
use std::time::Duration;

const INCIDENT: IncidentId = IncidentId(7);

fn shipped() -> Policies {
    Policies::with_shipped(&[], &[], Duration::from_secs(5)).unwrap()
}

fn guard(config: GuardConfig) -> Guard {
    Guard::new(config, shipped())
}

fn judge(guard: &Guard, plan: &Plan, facts: &Facts) -> Verdict {
    guard.judge(&Ask { plan, facts }, at(0))
}

fn apply(step: u32) -> Request {
    Request { step, operation: Operation::Apply, fence: 1 }
}

fn undo(step: u32) -> Request {
    Request { step, operation: Operation::Undo, fence: 1 }
}

/// The rules that want something else than to execute, in order, each once.
fn against(verdict: &Verdict) -> Vec<&str> {
    let mut rules: Vec<&str> =
        verdict.reasons.iter().filter(|r| r.decision != Decision::Execute).map(|r| r.rule.as_str()).collect();
    rules.dedup();
    rules
}

#[test]
fn a_plan_with_nothing_against_it_runs_and_every_rule_says_so_in_order() {
    let plan = plan(&[service("cart")], at(0));
    let verdict = judge(&guard(acting()), &plan, &facts(&plan));
    assert_eq!(verdict.decision, Decision::Execute, "{verdict:#?}");
    let rules: Vec<&str> = verdict.reasons.iter().map(|r| r.rule.as_str()).collect();
    let order = [
        rule::KILL_SWITCH,
        rule::CHECKER,
        rule::ALLOW_LIST,
        "policy",
        rule::RBAC,
        rule::CONFIDENCE,
        rule::RISK,
        rule::SELF_HEAL,
        rule::BLAST_RADIUS,
        rule::BREAKER,
        rule::ERROR_BUDGET,
        rule::COOLDOWN,
        rule::IN_FLIGHT,
        rule::FREEZE_WINDOW,
    ];
    assert_eq!(rules, order);
    assert!(!verdict.dry_run);
    assert_eq!(verdict.expires_at, None);
    assert!(judge(&guard(GuardConfig::default()), &plan, &facts(&plan)).dry_run, "dry-run until told otherwise");
}

/// One thing is changed from a plan that may run; the verdict and the rules that speak against it.
#[test]
fn each_rule_speaks() {
    type Change = fn(&mut GuardConfig, &mut Plan, &mut Facts);
    fn edit(facts: &mut Facts, f: impl Fn(&mut nightshift_guard::TargetFacts)) {
        facts.targets.values_mut().for_each(f);
    }
    fn window(kind: WindowKind) -> Window {
        Window { name: "w".into(), kind, from: "00:00".into(), to: "24:00".into(), ..Window::default() }
    }
    let table: Vec<(&str, Change, Decision, Vec<&str>)> = vec![
        (
            "kill switch",
            |_, _, f| f.kill_switch = Some(KillSwitch { on: true, by: "ada".into(), why: "drill".into(), at: at(0) }),
            Decision::Deny,
            vec![rule::KILL_SWITCH],
        ),
        (
            "kill switch off again",
            |_, _, f| f.kill_switch = Some(KillSwitch { on: false, by: "ada".into(), why: String::new(), at: at(0) }),
            Decision::Execute,
            vec![],
        ),
        ("paused", |_, _, f| f.incident.hands = Hands::Paused, Decision::Monitor, vec![rule::HANDS]),
        ("taken over", |_, _, f| f.incident.hands = Hands::TakenOver, Decision::Monitor, vec![rule::HANDS]),
        ("checker", |_, _, f| f.findings.push("no undo".into()), Decision::Deny, vec![rule::CHECKER]),
        ("broken seal", |_, p, _| p.hash.0[0] ^= 1, Decision::Deny, vec![rule::CHECKER]),
        ("no steps", |_, p, _| p.steps.clear(), Decision::Deny, vec![rule::CHECKER]),
        (
            "action type",
            |c, _, _| c.actions = vec![ActionType::ScaleDeployment],
            Decision::Deny,
            vec![rule::ALLOW_LIST],
        ),
        (
            "operator asks for it",
            |_, _, f| f.requester = Some(person(Role::Operator)),
            Decision::Deny,
            vec![rule::RBAC],
        ),
        ("approver asks for it", |_, _, f| f.requester = Some(person(Role::Approver)), Decision::Execute, vec![]),
        ("confidence at the gate", |_, p, _| p.confidence = 0.75, Decision::Ask, vec![rule::CONFIDENCE]),
        ("confidence above the gate", |_, p, _| p.confidence = 0.750_001, Decision::Execute, vec![]),
        ("low confidence", |_, p, _| p.confidence = 0.1, Decision::Monitor, vec![rule::CONFIDENCE]),
        ("confidence that is no number", |_, p, _| p.confidence = f64::NAN, Decision::Monitor, vec![rule::CONFIDENCE]),
        ("medium risk", |_, p, _| p.risk = Risk::Medium, Decision::Execute, vec![]),
        ("high risk", |_, p, _| p.risk = Risk::High, Decision::Ask, vec!["policy/nightshift.risk.ask", rule::RISK]),
        (
            "a step of high risk",
            |_, p, _| p.steps[0].risk = Risk::High,
            Decision::Ask,
            vec!["policy/nightshift.risk.ask", rule::RISK],
        ),
        (
            "critical risk",
            |_, p, _| p.risk = Risk::Critical,
            Decision::Ask,
            vec!["policy/nightshift.risk.ask", rule::RISK],
        ),
        (
            "failover is of high risk whatever the playbook says",
            |_, p, _| p.steps[0] = step(ActionType::FailoverDb, &service("cart"), json!({"to": "b"})),
            Decision::Ask,
            vec!["policy/nightshift.database.ask", "policy/nightshift.risk.ask", rule::RISK],
        ),
        (
            "what cannot be taken back on something critical",
            |_, p, _| p.steps[0].rollback = Rollback::Impossible,
            Decision::Ask,
            vec!["policy/nightshift.risk.ask", rule::RISK],
        ),
        (
            "neither critical nor opted in",
            |_, _, f| edit(f, |t| t.criticality = None),
            Decision::Ask,
            vec!["policy/nightshift.self_heal.ask", rule::SELF_HEAL],
        ),
        (
            "opted in by attribute",
            |_, _, f| {
                edit(f, |t| {
                    t.criticality = None;
                    t.attributes.insert("self_heal".into(), "true".into());
                })
            },
            Decision::Execute,
            vec![],
        ),
        (
            "opted in by the configuration",
            |c, _, f| {
                edit(f, |t| t.criticality = None);
                c.opted_in = vec!["prod/service/shop/*".into()];
            },
            Decision::Execute,
            vec![],
        ),
        (
            "opted out although critical",
            |_, _, f| edit(f, |t| drop(t.attributes.insert("self_heal".into(), "false".into()))),
            Decision::Ask,
            vec!["policy/nightshift.self_heal.ask", rule::SELF_HEAL],
        ),
        (
            "a target of which nothing is known",
            |_, _, f| f.targets.clear(),
            Decision::Ask,
            vec!["policy/nightshift.self_heal.ask", rule::SELF_HEAL],
        ),
        (
            "a great share of nobody knows how many",
            |_, p, f| {
                p.steps[0].params.insert("max_unavailable".into(), json!(0.5));
                edit(f, |t| t.replicas = None);
            },
            Decision::Deny,
            vec!["policy/nightshift.pods.deny", rule::BLAST_RADIUS],
        ),
        (
            "half of the pods",
            |_, p, _| drop(p.steps[0].params.insert("max_unavailable".into(), json!(0.5))),
            Decision::Deny,
            vec!["policy/nightshift.pods.deny", rule::BLAST_RADIUS],
        ),
        (
            "two pods by number",
            |_, p, _| drop(p.steps[0].params.insert("max_unavailable".into(), json!(2))),
            Decision::Deny,
            vec!["policy/nightshift.pods.deny", rule::BLAST_RADIUS],
        ),
        (
            "does not say how many pods",
            |_, p, _| p.steps[0].params.clear(),
            Decision::Deny,
            vec!["policy/nightshift.pods.deny", rule::BLAST_RADIUS],
        ),
        ("the only pod", |_, _, f| edit(f, |t| t.replicas = Some(1)), Decision::Ask, vec![rule::BLAST_RADIUS]),
        (
            "scaled within bounds",
            |_, p, _| p.steps[0] = step(ActionType::ScaleDeployment, &service("cart"), json!({"replicas": 8})),
            Decision::Execute,
            vec![],
        ),
        (
            "scaled out of bounds",
            |_, p, _| p.steps[0] = step(ActionType::ScaleDeployment, &service("cart"), json!({"replicas": 9})),
            Decision::Deny,
            vec!["policy/nightshift.replicas.deny", rule::BLAST_RADIUS],
        ),
        (
            "scaled above the most of anything",
            |_, p, f| {
                p.steps[0] = step(ActionType::ScaleDeployment, &service("cart"), json!({"replicas": 51}));
                edit(f, |t| t.replicas_max = None);
            },
            Decision::Deny,
            vec!["policy/nightshift.replicas.deny", rule::BLAST_RADIUS],
        ),
        (
            "scaled to nothing",
            |_, p, f| {
                p.steps[0] = step(ActionType::ScaleDeployment, &service("cart"), json!({"replicas": 0}));
                edit(f, |t| t.replicas_min = None);
            },
            Decision::Deny,
            vec!["policy/nightshift.pods.deny", "policy/nightshift.replicas.deny", rule::BLAST_RADIUS],
        ),
        (
            "half of it scaled away",
            |_, p, _| p.steps[0] = step(ActionType::ScaleDeployment, &service("cart"), json!({"replicas": 2})),
            Decision::Deny,
            vec!["policy/nightshift.pods.deny", rule::BLAST_RADIUS],
        ),
        (
            "does not say how many replicas",
            |_, p, _| p.steps[0] = step(ActionType::ScaleDeployment, &service("cart"), json!({"replicas": "six"})),
            Decision::Deny,
            vec!["policy/nightshift.replicas.deny", rule::BLAST_RADIUS],
        ),
        (
            "namespace",
            |c, _, _| c.limits.namespaces = vec!["payments".into()],
            Decision::Deny,
            vec!["policy/nightshift.namespaces.deny", rule::BLAST_RADIUS],
        ),
        (
            "namespace denied",
            |c, _, _| c.limits.namespaces_denied.push("sh*".into()),
            Decision::Deny,
            vec!["policy/nightshift.namespaces.deny", rule::BLAST_RADIUS],
        ),
        (
            "budget spent",
            |_, p, f| {
                p.risk = Risk::Medium;
                p.steps[0].risk = Risk::Medium;
                let left = BudgetLeft { objective: "a".into(), left: Some(0.01), coverage: 0.5, outage_secs: 100.0 };
                f.budgets.insert(service("cart"), left);
            },
            Decision::Deny,
            vec!["policy/nightshift.budget.deny", rule::ERROR_BUDGET],
        ),
        (
            "budget unknown",
            |_, _, f| {
                let left = BudgetLeft { objective: "a".into(), left: None, coverage: 0.0, outage_secs: 100.0 };
                f.budgets.insert(service("cart"), left);
            },
            Decision::Ask,
            vec!["policy/nightshift.budget.ask", rule::ERROR_BUDGET],
        ),
        (
            "budget enough",
            |_, _, f| {
                let left = BudgetLeft { objective: "a".into(), left: Some(0.2), coverage: 0.5, outage_secs: 100.0 };
                f.budgets.insert(service("cart"), left);
            },
            Decision::Execute,
            vec![],
        ),
        (
            "freeze",
            |c, _, _| c.windows = vec![window(WindowKind::Freeze)],
            Decision::Deny,
            vec!["policy/nightshift.freeze.deny", rule::FREEZE_WINDOW],
        ),
        (
            "maintenance",
            |c, _, _| c.windows = vec![window(WindowKind::Maintenance)],
            Decision::Monitor,
            vec!["policy/nightshift.freeze.monitor", rule::MAINTENANCE_WINDOW],
        ),
        (
            "freeze of something else",
            |c, _, _| c.windows = vec![Window { entities: vec!["stage/*".into()], ..window(WindowKind::Freeze) }],
            Decision::Execute,
            vec![],
        ),
        ("external engine not asked", |c, _, _| c.opa = Some(OpaConfig::default()), Decision::Deny, vec!["opa"]),
        (
            "external engine failed",
            |c, _, f| {
                c.opa = Some(OpaConfig::default());
                f.external = Some(ExternalAnswer::Failed { why: "timeout".into() });
            },
            Decision::Deny,
            vec!["opa"],
        ),
        (
            "external engine asks",
            |c, _, f| {
                c.opa = Some(OpaConfig::default());
                f.external = Some(ExternalAnswer::parse("acme", br#"{"result": {"ask": ["who are you"]}}"#));
            },
            Decision::Ask,
            vec!["opa/acme.ask"],
        ),
        (
            "external engine has nothing against it",
            |c, _, f| {
                c.opa = Some(OpaConfig::default());
                f.external = Some(ExternalAnswer::parse("acme", br#"{"result": {"deny": []}}"#));
            },
            Decision::Execute,
            vec![],
        ),
        (
            "database in production",
            |_, p, f| {
                let db = EntityId::new("prod", "database", "shop", "orders");
                let known = f.targets.remove(&service("cart")).unwrap();
                f.targets.insert(db.clone(), known);
                p.steps[0].target = db;
            },
            Decision::Ask,
            vec!["policy/nightshift.database.ask"],
        ),
        (
            "many targets",
            |_, p, f| {
                let known = f.targets.values().next().unwrap().clone();
                for name in ["a", "b", "c", "d", "e", "f", "g", "h"] {
                    let mut more = p.steps[0].clone();
                    more.target = service(name);
                    f.targets.insert(more.target.clone(), known.clone());
                    p.steps.push(more);
                }
            },
            Decision::Deny,
            vec!["policy/nightshift.risk.ask", rule::RISK, rule::BLAST_RADIUS],
        ),
    ];
    for (what, change, decision, rules) in table {
        let mut config = acting();
        let mut plan = plan(&[service("cart")], at(0));
        let mut facts = facts(&plan);
        let seal_broken = what == "broken seal";
        change(&mut config, &mut plan, &mut facts);
        if !seal_broken {
            plan = plan.sealed();
        }
        let verdict = judge(&guard(config), &plan, &facts);
        assert_eq!(verdict.decision, decision, "{what}: {verdict:#?}");
        // A confidence that is no number is null in JSON: the policies are not in this row's way.
        assert_eq!(against(&verdict), rules, "{what}: {verdict:#?}");
        assert_eq!(verdict.expires_at.is_some(), decision == Decision::Ask, "{what}");
        for reason in verdict.reasons.iter().filter(|r| r.decision == Decision::Execute) {
            assert!(!reason.overridable, "{what}: nothing to override in {reason:?}");
        }
    }
}

#[test]
fn a_freeze_passes_and_a_limit_does_not() {
    let window = Window { name: "w".into(), from: "00:00".into(), to: "24:00".into(), ..Window::default() };
    let p = plan(&[service("cart")], at(0));
    let f = facts(&p);
    let verdict = judge(&guard(GuardConfig { windows: vec![window], ..acting() }), &p, &f);
    assert!(verdict.decisive().all(|r| rule::is_passing(&r.rule)), "{verdict:#?}");
    let mut config = acting();
    config.limits.namespaces.clear();
    assert!(!judge(&guard(config), &p, &f).decisive().any(|r| rule::is_passing(&r.rule)));
    fn shared<T: Clone + Send + Sync>(_: &T) {}
    shared(&guard(acting()));
}

#[test]
fn the_floor_holds_without_any_policy() {
    let mut p = plan(&[service("cart")], at(0));
    p.steps[0].params.insert("max_unavailable".into(), json!(1.0));
    let p = p.sealed();
    let verdict = judge(&Guard::new(acting(), Policies::none()), &p, &facts(&p));
    assert_eq!((verdict.decision, against(&verdict)), (Decision::Deny, vec![rule::BLAST_RADIUS]));
}

#[test]
fn a_policy_of_ones_own_speaks_beside_those_that_ship() {
    let own = [(
        "own.rego".to_owned(),
        "package acme.hours\nask contains \"not before nine\" if input.time.hour < 24".to_owned(),
    )];
    let policies = Policies::with_shipped(&[], &own, Duration::from_secs(5)).unwrap();
    let p = plan(&[service("cart")], at(0));
    let verdict = judge(&Guard::new(acting(), policies), &p, &facts(&p));
    assert_eq!((verdict.decision, against(&verdict)), (Decision::Ask, vec!["policy/acme.hours.ask"]));
}

#[test]
fn a_test_injection_is_judged_and_never_carried_out() {
    let mut guard = guard(acting());
    let mut p = plan(&[EntityId::new("test", "service", "", "production-api")], at(0));
    p.confidence = 0.5;
    let p = p.sealed();
    let mut f = facts(&p);
    f.incident.synthetic = true;
    f.targets.values_mut().for_each(|t| t.criticality = None);
    let verdict = judge(&guard, &p, &f);
    assert_eq!((verdict.decision, verdict.dry_run), (Decision::Execute, true), "{verdict:#?}");
    let before = guard.state().clone();
    let refused = guard.permit(&Ask { plan: &p, facts: &f }, apply(0), at(1)).unwrap_err();
    assert_eq!(refused.decision, Decision::Deny);
    assert!(refused.reasons.iter().any(|r| r.rule == rule::SYNTHETIC && r.decision == Decision::Deny));
    guard.failed(p.hash, &p.steps[0].target, at(2));
    guard.finish(p.hash, RunEnd::Failed, at(3));
    assert_eq!(*guard.state(), before, "no breaker, cooldown or attempt moves");
    f.kill_switch = Some(KillSwitch { on: true, by: "ada".into(), why: String::new(), at: at(0) });
    assert_eq!(judge(&guard, &p, &f).decision, Decision::Deny);
}

#[test]
fn nothing_is_permitted_in_dry_run() {
    let mut guard = guard(GuardConfig::default());
    let p = plan(&[service("cart")], at(0));
    let f = facts(&p);
    let refused = guard.permit(&Ask { plan: &p, facts: &f }, apply(0), at(0)).unwrap_err();
    assert!(refused.reasons.iter().any(|r| r.rule == rule::DRY_RUN), "{refused:#?}");
}

#[test]
fn a_permit_is_for_one_operation_by_one_worker_until_its_deadline() {
    let mut guard = guard(acting());
    let p = plan(&[service("cart"), service("pay")], at(0));
    let f = facts(&p);
    let ask = Ask { plan: &p, facts: &f };
    let permit = guard.permit(&ask, Request { step: 1, operation: Operation::Apply, fence: 9 }, at(5)).unwrap();
    let pay = service("pay");
    let allows = |step, op, target: &EntityId, fence, now| permit.allows(p.hash, step, op, target, fence, now);
    assert!(allows(1, Operation::Apply, &pay, 9, at(5)) && allows(1, Operation::Apply, &pay, 9, at(64)));
    assert!(!allows(0, Operation::Apply, &pay, 9, at(5)));
    assert!(!allows(1, Operation::Undo, &pay, 9, at(5)));
    assert!(!allows(1, Operation::Apply, &service("cart"), 9, at(5)));
    assert!(!allows(1, Operation::Apply, &pay, 8, at(5)));
    assert!(!allows(1, Operation::Apply, &pay, 9, at(65)), "its deadline is over");
    assert!(!allows(1, Operation::Apply, &pay, 9, at(4)), "before it was given");
    let other = plan(&[service("cart")], at(1)).hash;
    assert!(!permit.allows(other, 1, Operation::Apply, &pay, 9, at(5)));
    for (request, why) in [
        (Request { step: 2, operation: Operation::Apply, fence: 9 }, "has no step 2"),
        (Request { step: 0, operation: Operation::Observe, fence: 9 }, "needs no permit"),
        (Request { step: 0, operation: Operation::Undo, fence: 9 }, "nothing was changed"),
    ] {
        let refused = guard.permit(&ask, request, at(6)).unwrap_err();
        assert!(refused.summary().contains(why), "{}", refused.summary());
    }
}

fn risky(made_at: Timestamp) -> Plan {
    let mut p = plan(&[service("cart")], made_at);
    p.risk = Risk::High;
    p.sealed()
}

#[test]
fn an_approval_is_for_one_plan_and_one_use() {
    let mut guard = guard(acting());
    let (p, other) = (risky(at(0)), risky(at(1)));
    let f = facts(&p);
    let ask = Ask { plan: &p, facts: &f };
    let verdict = guard.judge(&ask, at(0));
    assert_eq!(guard.approve(p.hash, &person(Role::Admin), at(0)), Err(Refusal::NotAsked(p.hash.short())));
    assert_eq!(guard.request_approval(&verdict, INCIDENT, at(0)), Some(at(300)));
    assert_eq!(guard.request_approval(&verdict, INCIDENT, at(100)), Some(at(300)), "asking again lengthens nothing");
    assert_eq!(guard.next_deadline(), Some(at(300)));
    let refused = guard.permit(&ask, apply(0), at(10)).unwrap_err();
    assert!(refused.reasons.iter().any(|r| r.rule == rule::APPROVAL), "{refused:#?}");
    let needs = Refusal::Role {
        verb: nightshift_guard::Verb::Approve,
        risk: Risk::High,
        needs: Role::Approver,
        has: Role::Operator,
    };
    assert_eq!(guard.approve(p.hash, &person(Role::Operator), at(20)), Err(needs));
    guard.approve(p.hash, &person(Role::Approver), at(20)).unwrap();
    assert!(matches!(guard.approve(p.hash, &person(Role::Approver), at(21)), Err(Refusal::Over(..))));
    assert_eq!(guard.next_deadline(), None);
    guard.permit(&Ask { plan: &other, facts: &f }, apply(0), at(22)).expect_err("another plan was not approved");
    guard.permit(&ask, apply(0), at(23)).expect("approved");
    guard.permit(&ask, apply(0), at(400)).expect_err("its time is over");
    guard.finish(p.hash, RunEnd::Verified, at(60));
    let again = guard.permit(&ask, apply(0), at(1_000)).unwrap_err();
    assert!(again.reasons.iter().any(|r| r.rule == rule::RUN && r.why.contains("a plan runs once")), "{again:#?}");
    assert!(guard.approve(p.hash, &person(Role::Admin), at(1_001)).is_err());
    assert_eq!(guard.request_approval(&verdict, INCIDENT, at(1_002)), None);
}

#[test]
fn an_approval_that_is_not_used_in_time_is_none() {
    let mut guard = guard(acting());
    let p = risky(at(0));
    let f = facts(&p);
    let ask = Ask { plan: &p, facts: &f };
    guard.request_approval(&guard.judge(&ask, at(0)), INCIDENT, at(0)).unwrap();
    guard.approve(p.hash, &person(Role::Approver), at(100)).unwrap();
    guard.permit(&ask, apply(0), at(400)).expect_err("300 s after the answer it is worth nothing");
    let mut early = guard.clone();
    early.permit(&ask, apply(0), at(399)).expect("still good");
}

#[test]
fn no_answer_is_a_rejection() {
    let mut guard = guard(acting());
    let p = risky(at(0));
    let f = facts(&p);
    let ask = Ask { plan: &p, facts: &f };
    guard.request_approval(&guard.judge(&ask, at(0)), INCIDENT, at(0)).unwrap();
    assert_eq!(guard.tick(at(299)), []);
    let mut late = guard.clone();
    assert!(
        matches!(late.approve(p.hash, &person(Role::Admin), at(300)), Err(Refusal::Over(..))),
        "also before the tick"
    );
    let out = guard.tick(at(300));
    assert_eq!(out.len(), 1);
    assert_eq!((out[0].plan, out[0].incident, out[0].expired_at), (p.hash, INCIDENT, at(300)));
    assert_eq!(guard.tick(at(301)), [], "told once");
    for mut guard in [guard, late] {
        assert!(guard.approve(p.hash, &person(Role::Admin), at(310)).is_err());
        let verdict = guard.judge(&ask, at(320));
        assert_eq!(verdict.decision, Decision::Deny);
        assert!(verdict.summary().contains("nobody answered in time"), "{}", verdict.summary());
        guard.permit(&ask, apply(0), at(320)).unwrap_err();
    }
}

#[test]
fn a_rejection_stops_a_plan_that_is_under_way_but_not_its_undo() {
    let mut guard = guard(acting());
    let p = plan(&[service("cart"), service("pay")], at(0));
    let f = facts(&p);
    let ask = Ask { plan: &p, facts: &f };
    guard.permit(&ask, apply(0), at(0)).unwrap();
    assert!(guard.reject(p.hash, INCIDENT, &person(Role::Operator), "", at(1)).is_err());
    guard.reject(p.hash, INCIDENT, &person(Role::Approver), "not now", at(1)).unwrap();
    let refused = guard.permit(&ask, apply(1), at(2)).unwrap_err();
    assert!(refused.summary().contains("rejected by a-approver: not now"), "{}", refused.summary());
    guard.permit(&ask, undo(0), at(3)).expect("what was done may be taken back");
    guard.permit(&ask, undo(1), at(3)).expect_err("this step was never begun");
}

#[test]
fn an_override_holds_for_the_rules_that_it_named_and_the_role_that_they_need() {
    let frozen = || {
        let window = Window { name: "year end".into(), from: "00:00".into(), to: "24:00".into(), ..Window::default() };
        guard(GuardConfig { windows: vec![window], ..acting() })
    };
    let p = plan(&[service("cart")], at(0));
    let mut f = facts(&p);
    let mut guard = frozen();
    let verdict = guard.judge(&Ask { plan: &p, facts: &f }, at(0));
    let to = |guard: &mut Guard, decision, role, why: &str| {
        guard.override_verdict(&verdict, INCIDENT, decision, &person(role), why, at(1))
    };
    assert_eq!(to(&mut guard, Decision::Execute, Role::Admin, " "), Err(Refusal::NoReason));
    assert_eq!(to(&mut guard, Decision::Ask, Role::Admin, "x"), Err(Refusal::NotADecision(Decision::Ask)));
    for role in [Role::Viewer, Role::Operator, Role::Approver] {
        assert!(matches!(to(&mut guard, Decision::Execute, role, "x"), Err(Refusal::Role { .. })), "{role}");
    }
    let rules = to(&mut guard, Decision::Execute, Role::Admin, "the shop is down").unwrap();
    assert_eq!(rules, [rule::FREEZE_WINDOW, "policy/nightshift.freeze.deny"]);
    // What speaks up afterwards stands.
    f.findings.push("the world has changed".into());
    guard.permit(&Ask { plan: &p, facts: &f }, apply(0), at(2)).expect_err("the checker speaks now");
    f.findings.clear();
    guard.permit(&Ask { plan: &p, facts: &f }, apply(0), at(2)).expect("overridden");
    guard.finish(p.hash, RunEnd::Verified, at(3));
    guard.permit(&Ask { plan: &p, facts: &f }, apply(0), at(500)).expect_err("once");

    let mut guard = frozen();
    assert_eq!(to(&mut guard, Decision::Deny, Role::Approver, "no"), Ok(vec![]));
    assert_eq!(guard.judge(&Ask { plan: &p, facts: &f }, at(5)).decision, Decision::Deny);
    assert!(matches!(to(&mut guard, Decision::Execute, Role::Admin, "yes"), Err(Refusal::Over(..))));

    // What nobody may override.
    type Change = fn(&mut GuardConfig, &mut Plan, &mut Facts);
    let never: [(&str, Change); 5] = [
        (rule::KILL_SWITCH, |_, _, f| {
            f.kill_switch = Some(KillSwitch { on: true, by: "ada".into(), why: String::new(), at: at(0) });
        }),
        (rule::CHECKER, |_, _, f| f.findings.push("x".into())),
        (rule::ALLOW_LIST, |c, _, _| c.actions.clear()),
        (rule::BLAST_RADIUS, |_, p, _| drop(p.steps[0].params.insert("max_unavailable".into(), json!(0.5)))),
        (rule::HANDS, |_, _, f| f.incident.hands = Hands::TakenOver),
    ];
    for (rule, change) in never {
        let mut config = acting();
        let mut p = plan(&[service("cart")], at(0));
        let mut f = facts(&p);
        change(&mut config, &mut p, &mut f);
        let p = p.sealed();
        let mut guard = Guard::new(config, Policies::none());
        let verdict = guard.judge(&Ask { plan: &p, facts: &f }, at(0));
        let refused = guard.override_verdict(&verdict, INCIDENT, Decision::Execute, &person(Role::Admin), "x", at(1));
        assert!(
            matches!(refused, Err(Refusal::NotOverridable { rule: ref r, .. }) if r == rule),
            "{rule}: {refused:?}"
        );
    }
}

/// A plan of its own on this target, applied; returns its hash.
fn run(guard: &mut Guard, name: &str, now: i64) -> Result<Plan, Box<Verdict>> {
    let p = plan(&[service(name)], at(now));
    let f = facts(&p);
    guard.permit(&Ask { plan: &p, facts: &f }, apply(0), at(now)).map(|_| p)
}

fn fails(guard: &mut Guard, name: &str, now: i64) {
    let p = run(guard, name, now).unwrap();
    guard.failed(p.hash, &service(name), at(now));
    guard.finish(p.hash, RunEnd::Failed, at(now));
}

#[test]
fn three_failures_wherever_stop_everything_until_one_trial() {
    let mut guard = guard(acting());
    for (i, name) in ["a", "b", "c"].into_iter().enumerate() {
        fails(&mut guard, name, i as i64);
    }
    assert_eq!(guard.open_until(at(3)), Some(at(302)));
    let refused = run(&mut guard, "d", 301).unwrap_err();
    assert!(refused.summary().contains("3 failures in a row over all execution"), "{}", refused.summary());
    let trial = run(&mut guard, "d", 302).expect("the one trial");
    run(&mut guard, "e", 303).expect_err("only one");
    let f = facts(&trial);
    guard.permit(&Ask { plan: &trial, facts: &f }, apply(0), at(304)).expect("the trial goes on");
    let mut failed = guard.clone();
    failed.finish(trial.hash, RunEnd::Failed, at(310));
    run(&mut failed, "e", 609).expect_err("open again");
    run(&mut failed, "e", 610).expect("a further trial");
    let mut abandoned = guard.clone();
    abandoned.finish(trial.hash, RunEnd::Abandoned, at(310));
    run(&mut abandoned, "e", 311).expect("another may be the trial");
    run(&mut abandoned, "f", 312).expect_err("but one only");
    guard.finish(trial.hash, RunEnd::Verified, at(310));
    run(&mut guard, "e", 311).expect("closed");
    run(&mut guard, "f", 311).expect("closed");
}

#[test]
fn an_operation_that_succeeds_does_not_hide_plans_that_fail_to_help() {
    // Each apply works, and each verification fails: still three failures in a row.
    let mut guard = guard(acting());
    for name in ["a", "b", "c"] {
        let p = run(&mut guard, name, 0).unwrap();
        guard.finish(p.hash, RunEnd::Failed, at(0));
    }
    run(&mut guard, "d", 1).expect_err("open");
}

#[test]
fn a_target_has_a_breaker_of_its_own() {
    let mut guard = guard(GuardConfig { cooldown_secs: 0, ..acting() });
    for now in [0, 10, 20] {
        fails(&mut guard, "a", now);
        let p = run(&mut guard, "b", now + 1).unwrap();
        guard.finish(p.hash, RunEnd::Verified, at(now + 2));
    }
    let refused = run(&mut guard, "a", 30).unwrap_err();
    assert!(refused.summary().contains("3 failures in a row on a"), "{}", refused.summary());
    run(&mut guard, "c", 30).expect("the others go on");
    run(&mut guard, "a", 321).expect("its trial");
}

#[test]
fn five_attempts_in_ten_minutes_are_enough() {
    let mut guard = guard(GuardConfig { cooldown_secs: 0, ..acting() });
    for now in 0..5 {
        let p = run(&mut guard, "a", now).unwrap();
        guard.finish(p.hash, RunEnd::Verified, at(now));
    }
    let refused = run(&mut guard, "a", 599).unwrap_err();
    assert!(refused.summary().contains("5 attempts on a within 600 s"), "{}", refused.summary());
    run(&mut guard, "a", 600).expect("the first no longer counts");
}

#[test]
fn a_target_cools_down_between_plans_and_has_one_at_a_time() {
    let mut guard = guard(acting());
    let p = plan(&[service("a"), service("a")], at(0));
    let f = facts(&p);
    let ask = Ask { plan: &p, facts: &f };
    guard.permit(&ask, apply(0), at(0)).unwrap();
    guard.permit(&ask, apply(1), at(10)).expect("steps of the same plan do not wait for each other");
    let refused = run(&mut guard, "a", 100).unwrap_err();
    assert_eq!(refused.decision, Decision::Monitor);
    assert!(against(&refused).contains(&rule::IN_FLIGHT) && against(&refused).contains(&rule::COOLDOWN));
    guard.finish(p.hash, RunEnd::Verified, at(100));
    let refused = run(&mut guard, "a", 219).unwrap_err();
    assert_eq!(against(&refused), ["policy/nightshift.cooldown.monitor", rule::COOLDOWN]);
    run(&mut guard, "a", 220).expect("it has cooled down");
}

#[test]
fn no_more_plans_than_allowed_are_under_way() {
    let mut guard = guard(acting());
    for name in ["a", "b", "c"] {
        run(&mut guard, name, 0).unwrap();
    }
    let refused = run(&mut guard, "d", 1).unwrap_err();
    assert_eq!((refused.decision, against(&refused)), (Decision::Monitor, vec![rule::IN_FLIGHT]));
}

#[test]
fn undoing_is_let_through_an_open_breaker_but_not_past_the_kill_switch() {
    let mut guard =
        guard(GuardConfig { limits: nightshift_guard::Limits { plans_max: 10, ..Default::default() }, ..acting() });
    let p = run(&mut guard, "z", 0).unwrap();
    for name in ["a", "b", "c"] {
        fails(&mut guard, name, 1);
    }
    let mut f = facts(&p);
    guard.permit(&Ask { plan: &p, facts: &f }, apply(0), at(2)).expect_err("open");
    guard.permit(&Ask { plan: &p, facts: &f }, undo(0), at(2)).expect("half done is worse");
    f.kill_switch = Some(KillSwitch { on: true, by: "ada".into(), why: String::new(), at: at(3) });
    guard.permit(&Ask { plan: &p, facts: &f }, undo(0), at(3)).expect_err("nothing means nothing");
    f.kill_switch = None;
    for now in 4..8 {
        guard.permit(&Ask { plan: &p, facts: &f }, undo(0), at(now)).expect("bounded");
    }
    guard.permit(&Ask { plan: &p, facts: &f }, undo(0), at(9)).expect_err("five times are enough");
}

#[test]
fn what_it_remembers_survives_a_restart_and_stays_bounded() {
    let mut guard = guard(acting());
    let p = risky(at(0));
    let asked = guard.judge(&Ask { plan: &p, facts: &facts(&p) }, at(0));
    assert_eq!(guard.request_approval(&asked, INCIDENT, at(0)), Some(at(300)));
    for name in ["a", "b", "c"] {
        fails(&mut guard, name, 0);
    }
    let json = serde_json::to_string(guard.state()).unwrap();
    let mut again = Guard::new(acting(), shipped());
    again.restore(serde_json::from_str(&json).unwrap());
    assert_eq!(again.state(), guard.state());
    run(&mut again, "d", 299).expect_err("still open");
    assert_eq!(again.tick(at(300)).len(), 1);
    assert!(serde_json::from_str::<nightshift_guard::GuardState>("{}").is_ok(), "an older checkpoint is read");

    // A success closes it; a week later all is forgotten.
    let p = run(&mut again, "d", 300).unwrap();
    again.finish(p.hash, RunEnd::Verified, at(301));
    for i in 0..500 {
        let now = 1_000 + i * 400;
        let p = run(&mut again, &format!("t{i}"), now).unwrap();
        again.finish(p.hash, RunEnd::Verified, at(now));
    }
    let size = serde_json::to_string(again.state()).unwrap().len();
    again.tick(at(1_000 + 500 * 400 + 8 * 24 * 3_600));
    let left = serde_json::to_string(again.state()).unwrap();
    assert!(left.len() < 2_000 && left.len() < size / 10, "{} of {size} bytes are left: {left}", left.len());
}

#[test]
fn a_run_that_nobody_ends_counts_as_failed() {
    let mut guard = guard(acting());
    for name in ["a", "b", "c"] {
        run(&mut guard, name, 0).unwrap();
    }
    assert_eq!(guard.open_until(at(3_000)), None);
    guard.tick(at(4_000));
    assert!(guard.open_until(at(4_000)).is_some());
    let _ = guard.state();
}

#[test]
fn the_roles_are_those_of_the_configuration() {
    let mut config = acting();
    config.roles.high = Role::Admin;
    let mut guard = guard(config);
    let p = risky(at(0));
    let f = facts(&p);
    guard.request_approval(&guard.judge(&Ask { plan: &p, facts: &f }, at(0)), INCIDENT, at(0)).unwrap();
    assert!(guard.approve(p.hash, &person(Role::Approver), at(1)).is_err());
    guard.approve(p.hash, &person(Role::Admin), at(1)).unwrap();
}

#[test]
fn what_no_schema_can_say_of_the_settings_is_told() {
    let mut config = acting();
    assert_eq!(config.problems(), Vec::<String>::new());
    config.confidence_ask_min = 0.9;
    config.windows.push(Window::default());
    config.roles.low = Role::Viewer;
    config.roles.medium = Role::Admin;
    let problems = config.problems();
    for part in ["confidence_ask_min: 0.9", "windows.0.name", "a viewer only looks", "at least the role of a lower one"]
    {
        assert!(problems.iter().any(|p| p.contains(part)), "{part}: {problems:?}");
    }
}
