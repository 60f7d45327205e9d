//! Every way through the graph.

use crate::lab::{Lab, NOW, World, cause, service};
use nightshift_guard::{GuardConfig, Role};
use nightshift_model::{EventKind, FaultClass, IncidentStatus, PersonVerb};
use nightshift_reason::{Input, Node, WorkflowConfig};
use std::time::Duration;

const PLANNED: &str = "detection is_real correlation root_cause fix_planner safety execution_decision";

#[test]
fn a_sure_cause_and_a_mild_fix_heal_by_themselves() {
    let mut lab = Lab::new();
    let id = lab.usual();
    lab.pump();
    assert_eq!(lab.node(id), Some(Node::Verify));
    assert_eq!(lab.status(id), IncidentStatus::Remediating);
    assert_eq!(lab.carried_out.len(), 1, "one step, once");
    lab.readings(3, 25.0);
    assert_eq!(lab.status(id), IncidentStatus::Resolved);
    assert_eq!(lab.path(id), format!("{PLANNED} act verify resolved postmortem"));
    let inc = &lab.incidents[&id];
    assert_eq!(inc.resolved_by.as_deref(), Some("system"));
    assert!(inc.verified_at.is_some());
    assert!(inc.verified_at.unwrap().since(NOW) < Duration::from_secs(10), "fixed and verified within 10 s");
    assert!(lab.learned.is_empty(), "nothing is learned on probation");
    lab.pass(91);
    assert_eq!(lab.learned, [id]);
    assert!(lab.path(id).ends_with("postmortem learn"));
    lab.pass(400);
    assert_eq!(lab.node(id), None);
    assert!(lab.checkpoints.is_empty());
    assert_eq!(lab.workflow.wants_tick_at(), None);
}

#[test]
fn what_is_not_worth_it_is_watched_until_it_gets_worse() {
    let config = WorkflowConfig { real_score_min: 0.8, ..WorkflowConfig::default() };
    let mut lab = Lab::with(GuardConfig { dry_run: false, ..GuardConfig::default() }, config);
    let payment = service("payment-service");
    let id = lab.open(&payment, 0.6, vec![cause(&payment, FaultClass::CpuSaturation, 0.95)]);
    lab.pump();
    assert_eq!((lab.node(id), lab.status(id)), (Some(Node::Monitor), IncidentStatus::Monitoring));
    assert!(lab.orders.is_empty() && lab.count(id, "plan_proposed") == 0);
    let worse = EventKind::Assessed {
        score: 0.9,
        severity: nightshift_model::Severity::Critical,
        title: "worse".into(),
        blast_radius: Default::default(),
    };
    lab.engine(id, vec![worse]);
    lab.pump();
    assert_eq!(lab.node(id), Some(Node::Verify));
    assert!(lab.path(id).starts_with("detection is_real monitor is_real correlation root_cause"));
}

#[test]
fn an_unsure_ranking_is_given_time_and_a_sure_one_is_not() {
    let mut lab = Lab::new();
    let payment = service("payment-service");
    let id = lab.open(&payment, 0.95, vec![cause(&payment, FaultClass::CpuSaturation, 0.6)]);
    assert_eq!(lab.node(id), Some(Node::RootCause));
    assert_eq!(lab.workflow.wants_tick_at(), Some(NOW + Duration::from_secs(3)));
    // It settles before the time is over.
    lab.rank(id, vec![cause(&payment, FaultClass::CpuSaturation, 0.95)]);
    assert_eq!(lab.node(id), Some(Node::FixPlanner));

    let mut lab = Lab::new();
    let id = lab.open(&payment, 0.95, vec![cause(&payment, FaultClass::CpuSaturation, 0.6)]);
    lab.pass(3);
    lab.pump();
    // Below the gate: a person is asked.
    assert_eq!((lab.node(id), lab.status(id)), (Some(Node::Approval), IncidentStatus::AwaitingApproval));
}

#[test]
fn what_cannot_be_looked_at_is_planned_without_or_goes_to_a_person() {
    let mut lab = Lab::new();
    lab.world = World::Blind;
    let id = lab.usual();
    lab.pump();
    assert_eq!((lab.node(id), lab.status(id)), (Some(Node::Escalation), IncidentStatus::Escalated));
    // No answer at all is the same, after its time.
    let mut lab = Lab::new();
    let id = lab.usual();
    assert!(!lab.looks.is_empty());
    lab.looks.clear();
    lab.pass_until(30, |lab| lab.node(id) == Some(Node::Escalation));
    assert_eq!(lab.status(id), IncidentStatus::Escalated);
    assert!(lab.orders.is_empty());
}

#[test]
fn a_fault_without_a_playbook_goes_to_a_person_with_why() {
    let mut lab = Lab::new();
    let payment = service("payment-service");
    let id = lab.open(&payment, 0.95, vec![cause(&payment, FaultClass::CriticalLog, 0.95)]);
    lab.pump();
    assert_eq!(lab.status(id), IncidentStatus::Escalated);
    assert!(!lab.said(id, "escalated")[0].is_empty());
}

#[test]
fn no_answer_is_a_rejection_and_its_time_survives_a_crash() {
    let mut lab = Lab::new();
    let payment = service("payment-service");
    let id = lab.open(&payment, 0.95, vec![cause(&payment, FaultClass::CpuSaturation, 0.6)]);
    lab.pass(3);
    lab.pump();
    assert_eq!(lab.node(id), Some(Node::Approval));
    let asked = lab.now;
    lab.pass(200);
    lab.crash();
    assert_eq!(lab.workflow.wants_tick_at(), Some(asked + Duration::from_secs(300)));
    assert_eq!(lab.count(id, "approval_requested"), 1, "nobody is asked twice");
    lab.pass(99);
    assert_eq!(lab.node(id), Some(Node::Approval));
    lab.pass(1);
    assert_eq!((lab.node(id), lab.status(id)), (Some(Node::Escalation), IncidentStatus::Escalated));
    assert_eq!(lab.count(id, "rejected"), 1);
    lab.person(id, Role::Admin, PersonVerb::Approve { plan: lab.hash(id), note: String::new() });
    assert_eq!(lab.refused.len(), 1, "too late");
    assert!(lab.orders.is_empty());
}

#[test]
fn another_cause_makes_another_plan_and_takes_the_question_back() {
    let mut lab = Lab::new();
    let payment = service("payment-service");
    let id = lab.open(&payment, 0.95, vec![cause(&payment, FaultClass::CpuSaturation, 0.6)]);
    lab.pass(3);
    lab.pump();
    let first = lab.hash(id);
    // The same cause with another number: people are left alone.
    lab.rank(id, vec![cause(&payment, FaultClass::CpuSaturation, 0.4)]);
    assert_eq!(lab.node(id), Some(Node::Approval));
    lab.rank(id, vec![cause(&payment, FaultClass::DeploymentFailure, 0.95)]);
    lab.pump();
    assert_eq!(lab.count(id, "approval_withdrawn"), 1);
    let plan = lab.incidents[&id].plan.clone().unwrap();
    assert_eq!(plan.parent, Some(first));
    lab.person(id, Role::Admin, PersonVerb::Approve { plan: first, note: String::new() });
    assert!(lab.refused[0].1.contains("replaced"), "{:?}", lab.refused);
}

#[test]
fn dry_run_changes_nothing_and_still_sees_a_recovery() {
    let mut lab = Lab::with(GuardConfig::default(), WorkflowConfig::default());
    let id = lab.usual();
    lab.pump();
    assert_eq!(lab.node(id), Some(Node::Verify));
    assert!(lab.carried_out.is_empty());
    assert!(lab.count(id, "action_intended") >= 1, "it was rehearsed");
    lab.readings(3, 25.0);
    assert_eq!(lab.status(id), IncidentStatus::Resolved);
    assert!(lab.said(id, "resolved")[0].contains("nothing was executed"));
    assert!(lab.said(id, "verified")[0].contains("nothing was executed"));
    // And one that does not recover is handed to a person.
    let mut lab = Lab::with(GuardConfig::default(), WorkflowConfig::default());
    let id = lab.usual();
    lab.pump();
    lab.readings(5, 97.0);
    lab.pass(130);
    assert_eq!(lab.status(id), IncidentStatus::Escalated);
    assert!(lab.said(id, "escalated")[0].contains("rehearsed only"));
    assert!(lab.carried_out.is_empty());
}

#[test]
fn a_fix_that_does_not_help_is_undone_and_escalated() {
    let mut lab = Lab::new();
    let id = lab.usual();
    lab.pump();
    assert_eq!(lab.node(id), Some(Node::Verify));
    lab.pass_until(300, |lab| lab.node(id) == Some(Node::Escalation));
    assert_eq!(lab.status(id), IncidentStatus::Escalated);
    assert_eq!(lab.count(id, "verification_failed"), 1);
    assert!(lab.carried_out.keys().any(|k| k.ends_with("undo")), "{:?}", lab.carried_out);
    assert!(lab.carried_out.values().all(|n| *n == 1));
}

#[test]
fn a_failing_actuator_is_escalated_and_counted() {
    let mut lab = Lab::new();
    lab.world = World::Fails;
    let id = lab.usual();
    lab.pass_until(300, |lab| lab.node(id) == Some(Node::Escalation));
    assert_eq!(lab.status(id), IncidentStatus::Escalated);
    assert!(lab.carried_out.is_empty());
}

#[test]
fn a_relapse_reopens_and_is_not_healed_the_same_way_twice() {
    let mut lab = Lab::new();
    let id = lab.usual();
    lab.pump();
    lab.readings(3, 25.0);
    assert_eq!(lab.status(id), IncidentStatus::Resolved);
    let first = lab.incidents[&id].plan.clone().unwrap().playbook;
    lab.readings(3, 97.0);
    assert_eq!(lab.count(id, "reopened"), 1);
    lab.pump();
    let second = lab.incidents[&id].plan.clone().unwrap();
    assert_ne!(second.playbook, first, "tried playbooks are left out");
    assert!(second.parent.is_some());
    assert_eq!(lab.learned, [id], "that it did not last is learned at once");
}

#[test]
fn attempts_are_bounded() {
    let config = WorkflowConfig { attempts_max: 1, ..WorkflowConfig::default() };
    let mut lab = Lab::with(GuardConfig { dry_run: false, ..GuardConfig::default() }, config);
    let id = lab.usual();
    lab.pump();
    lab.readings(3, 25.0);
    lab.engine(id, vec![EventKind::Reopened { why: "back".into() }]);
    lab.pump();
    assert_eq!((lab.node(id), lab.status(id)), (Some(Node::Escalation), IncidentStatus::Escalated));
    assert!(lab.said(id, "escalated")[0].contains("1 plans were carried out"));
    // A ranking that never comes to rest ends at a person too, whatever it says.
    let mut lab = Lab::new();
    let payment = service("payment-service");
    let id = lab.usual();
    for i in 0..60 {
        let fault = if i % 2 == 0 { FaultClass::DeploymentFailure } else { FaultClass::CpuSaturation };
        lab.rank(id, vec![cause(&payment, fault, 0.5)]);
        lab.pass(4);
        lab.looks.clear();
        lab.pass(3);
    }
    assert_eq!(lab.status(id), IncidentStatus::Escalated);
    assert!(lab.count(id, "plan_proposed") <= 12);
}

#[test]
fn the_engine_may_end_it_while_a_person_is_asked() {
    let mut lab = Lab::new();
    let payment = service("payment-service");
    let id = lab.open(&payment, 0.95, vec![cause(&payment, FaultClass::CpuSaturation, 0.6)]);
    lab.pass(3);
    lab.pump();
    assert_eq!(lab.node(id), Some(Node::Approval));
    lab.engine(id, vec![EventKind::Resolved { why: "all symptoms ended".into() }]);
    lab.pump();
    assert_eq!(lab.count(id, "approval_withdrawn"), 1);
    assert_eq!(lab.incidents[&id].approval, None);
    assert_eq!(lab.status(id), IncidentStatus::Resolved);
    assert_eq!(lab.count(id, "resolved"), 1, "it is told once");
    assert_eq!(lab.count(id, "postmortem_written"), 1);
    lab.pass(91);
    assert_eq!(lab.learned, [id]);
}

#[test]
fn a_merged_incident_ends_its_case_and_what_it_began_is_finished_first() {
    let mut lab = Lab::new();
    let elder = lab.open(&service("api-gateway"), 0.95, Vec::new());
    let younger = lab.usual();
    while lab.answer_look() {}
    assert_eq!(lab.node(younger), Some(Node::Act));
    lab.engine(younger, vec![EventKind::MergedInto { into: elder, why: "one cause".into() }]);
    let payment = service("payment-service");
    lab.rank(elder, vec![cause(&payment, FaultClass::CpuSaturation, 0.95)]);
    while lab.answer_look() {}
    assert!(lab.node(younger).is_some(), "what was begun goes on");
    let waits = lab.node(elder);
    assert!(matches!(waits, Some(Node::Act | Node::Monitor)), "{waits:?}");
    assert!(lab.orders.iter().all(|o| o.incident == younger), "the elder waits");
    lab.pump();
    lab.readings(4, 25.0);
    assert_eq!(lab.node(younger), None);
    assert_eq!(lab.status(younger), IncidentStatus::Merged);
    assert!(lab.carried_out.values().all(|n| *n == 1));
    // One that had begun nothing ends at once.
    let mut lab = Lab::new();
    let elder = lab.open(&service("api-gateway"), 0.95, Vec::new());
    let younger = lab.usual();
    lab.engine(younger, vec![EventKind::MergedInto { into: elder, why: "one cause".into() }]);
    assert_eq!(lab.node(younger), None);
    assert!(!lab.checkpoints.contains_key(&younger));
}

#[test]
fn a_test_injection_runs_through_without_anybody_noticing() {
    for confidence in [0.95, 0.3, 0.05] {
        let mut lab = Lab::new();
        let test = service("production-api");
        let before = lab.guard.state().clone();
        let id = lab.open_as(&test, 0.97, vec![cause(&test, FaultClass::CpuSaturation, confidence)], true);
        assert_eq!(lab.node(id), Some(Node::Verify), "at once, without any answer");
        assert!(lab.looks.is_empty() && lab.orders.is_empty());
        lab.readings(3, 30.0);
        assert_eq!(lab.status(id), IncidentStatus::Resolved);
        assert_eq!(lab.node(id), None);
        assert!(lab.said(id, "verified")[0].contains("nothing was executed"));
        assert!(lab.said(id, "resolved")[0].contains("nothing was executed"));
        assert_eq!(lab.count(id, "judged"), 1);
        assert!(lab.path(id).contains("safety execution_decision"), "{}", lab.path(id));
        assert_eq!(lab.count(id, "escalated") + lab.count(id, "approval_requested"), 0);
        assert!(lab.learned.is_empty() && lab.postmortems.is_empty() && lab.carried_out.is_empty());
        assert_eq!(*lab.guard.state(), before, "no breaker, no cooldown");
        assert!(lab.watched.is_empty());
    }
    // One without a cause or a playbook does the same.
    let mut lab = Lab::new();
    let id = lab.open_as(&service("production-api"), 0.97, Vec::new(), true);
    lab.readings(3, 30.0);
    assert_eq!(lab.status(id), IncidentStatus::Resolved);
    assert_eq!(lab.count(id, "escalated"), 0);
}

#[test]
fn an_unreadable_checkpoint_calls_a_person() {
    for bad in [b"".to_vec(), b"{}".to_vec(), br#"{"version":99,"case":{}}"#.to_vec(), vec![0xff; 64]] {
        let mut lab = Lab::new();
        let id = lab.usual();
        while lab.answer_look() {}
        lab.checkpoints.insert(id, bad);
        lab.crash();
        assert_eq!((lab.node(id), lab.status(id)), (Some(Node::Escalation), IncidentStatus::Escalated));
        assert!(lab.said(id, "escalated")[0].contains("checkpoint"), "{:?}", lab.said(id, "escalated"));
        lab.pump();
        assert!(lab.carried_out.is_empty());
        lab.engine(id, vec![EventKind::Resolved { why: "by hand".into() }]);
        lab.pump();
        assert!(lab.path(id).contains("escalation resolved"));
    }
}

#[test]
fn the_external_policy_engine_is_waited_for_and_its_silence_denies() {
    let mut lab = Lab::new();
    lab.external_policy = true;
    let id = lab.usual();
    while lab.answer_look() {}
    let (asked, plan) = lab.asked_policy[0];
    assert_eq!((asked, lab.node(id)), (id, Some(Node::Safety)));
    let answer = nightshift_guard::ExternalAnswer::Said { rules: Vec::new() };
    lab.give(Input::Policy { incident: id, plan, answer });
    assert_eq!(lab.node(id), Some(Node::Act));

    let mut lab = Lab::new();
    lab.external_policy = true;
    let id = lab.usual();
    while lab.answer_look() {}
    lab.crash();
    assert_eq!(lab.asked_policy.len(), 2, "asked again after the crash");
    lab.pass(4);
    assert_eq!(lab.status(id), IncidentStatus::Escalated);
    assert!(lab.said(id, "judged")[0].contains("no answer"), "{:?}", lab.said(id, "judged"));
}

#[test]
fn what_waits_for_evidence_is_judged_again_less_and_less_often_and_not_for_ever() {
    let mut lab = Lab::new();
    let payment = service("payment-service");
    let id = lab.open(&payment, 0.95, vec![cause(&payment, FaultClass::CpuSaturation, 0.2)]);
    lab.pass(3);
    lab.pump();
    assert_eq!((lab.node(id), lab.status(id)), (Some(Node::Monitor), IncidentStatus::Monitoring));
    lab.pass_until(3_600, |lab| lab.node(id) == Some(Node::Escalation));
    assert_eq!(lab.status(id), IncidentStatus::Escalated);
    assert_eq!(lab.count(id, "plan_proposed"), 1, "looking again makes no rows");
    // A signal that comes back by itself ends it.
    let mut lab = Lab::new();
    let id = lab.open(&payment, 0.95, vec![cause(&payment, FaultClass::CpuSaturation, 0.2)]);
    lab.pass(3);
    lab.pump();
    lab.readings(3, 30.0);
    assert_eq!(lab.status(id), IncidentStatus::Resolved);
    assert!(lab.said(id, "resolved")[0].contains("nothing was executed"));
}

#[test]
fn people_are_called_again_while_nobody_says_a_word() {
    let mut lab = Lab::new();
    let payment = service("payment-service");
    let id = lab.open(&payment, 0.95, vec![cause(&payment, FaultClass::CriticalLog, 0.95)]);
    lab.pump();
    assert_eq!(lab.count(id, "escalated"), 1);
    lab.pass_until(20_000, |_| false);
    assert_eq!(lab.count(id, "escalated"), 4, "three reminders and no more");
    let mut lab = Lab::new();
    let id = lab.open(&payment, 0.95, vec![cause(&payment, FaultClass::CriticalLog, 0.95)]);
    lab.pump();
    lab.person(id, Role::Operator, PersonVerb::Acknowledge { note: String::new() });
    lab.pass_until(20_000, |_| false);
    assert_eq!(lab.count(id, "escalated"), 1);
}
