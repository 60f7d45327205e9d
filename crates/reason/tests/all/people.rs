//! People, at any moment.

use crate::lab::{Lab, cause, service};
use nightshift_guard::Role;
use nightshift_model::{Decision, FaultClass, Feedback, IncidentId, IncidentStatus, Operation, PersonVerb, PlanHash};
use nightshift_reason::Node;

fn asking() -> (Lab, IncidentId, PlanHash) {
    let mut lab = Lab::new();
    let payment = service("payment-service");
    let id = lab.open(&payment, 0.95, vec![cause(&payment, FaultClass::CpuSaturation, 0.6)]);
    lab.pass(3);
    lab.pump();
    assert_eq!(lab.node(id), Some(Node::Approval));
    let hash = lab.hash(id);
    (lab, id, hash)
}

fn approve(plan: PlanHash) -> PersonVerb {
    PersonVerb::Approve { plan, note: "go".into() }
}

#[test]
fn an_approval_is_for_one_plan_by_somebody_who_may_and_counts_once() {
    let (mut lab, id, hash) = asking();
    lab.person(id, Role::Operator, approve(hash));
    assert_eq!(lab.refused.last().map(|r| r.0), Some(true), "an operator may not");
    lab.person(id, Role::Approver, approve(PlanHash([9; 32])));
    assert_eq!(lab.refused.last().map(|r| r.0), Some(false), "another plan");
    assert_eq!(lab.node(id), Some(Node::Approval));
    lab.person(id, Role::Approver, approve(hash));
    assert_eq!(lab.node(id), Some(Node::Act));
    assert_eq!(lab.status(id), IncidentStatus::Remediating);
    lab.person(id, Role::Approver, approve(hash));
    assert_eq!(lab.refused.len(), 3, "once");
    lab.pump();
    lab.readings(3, 25.0);
    assert_eq!(lab.status(id), IncidentStatus::Resolved);
    assert_eq!((lab.count(id, "approved"), lab.carried_out.len()), (1, 1));
    let row = lab.rows.iter().find(|r| r.event.action() == "approved").unwrap();
    assert_eq!(row.actor, "a-approver");
}

#[test]
fn an_approval_survives_a_crash() {
    let (mut lab, id, hash) = asking();
    lab.person(id, Role::Approver, approve(hash));
    lab.crash();
    lab.pump();
    lab.pass(70);
    lab.pump();
    assert_eq!(lab.node(id), Some(Node::Verify));
    assert_eq!(lab.carried_out.values().sum::<u32>(), 1);
}

#[test]
fn a_rejection_escalates_and_is_not_asked_again() {
    let (mut lab, id, hash) = asking();
    lab.person(id, Role::Viewer, PersonVerb::Reject { plan: hash, why: String::new() });
    assert_eq!(lab.refused.last().map(|r| r.0), Some(true));
    lab.person(id, Role::Approver, PersonVerb::Reject { plan: hash, why: "not now".into() });
    assert_eq!((lab.node(id), lab.status(id)), (Some(Node::Escalation), IncidentStatus::Escalated));
    assert!(lab.said(id, "escalated")[0].contains("not now"));
    lab.pass_until(3_600, |_| false);
    assert!(lab.carried_out.is_empty());
    assert_eq!(lab.count(id, "approval_requested"), 1);
}

#[test]
fn a_verdict_is_overridden_with_a_reason_and_only_where_it_may_be() {
    let (mut lab, id, hash) = asking();
    let to = Decision::Execute;
    lab.person(id, Role::Approver, PersonVerb::Override { plan: hash, to, why: "  ".into() });
    assert!(lab.refused.last().unwrap().1.contains("why"), "{:?}", lab.refused);
    lab.person(id, Role::Approver, PersonVerb::Override { plan: hash, to, why: "I know it".into() });
    assert_eq!(lab.node(id), Some(Node::Act));
    assert_eq!(lab.count(id, "overridden"), 1);
    lab.pump();
    assert_eq!(lab.carried_out.len(), 1);

    let (mut lab, id, hash) = asking();
    let to = Decision::Deny;
    lab.person(id, Role::Approver, PersonVerb::Override { plan: hash, to, why: "no".into() });
    assert_eq!(lab.status(id), IncidentStatus::Escalated);

    // The kill switch is not for overriding.
    let mut lab = Lab::new();
    lab.switch(true);
    let id = lab.usual();
    lab.pump();
    assert_eq!(lab.status(id), IncidentStatus::Escalated);
    let plan = lab.hash(id);
    lab.person(id, Role::Admin, PersonVerb::Override { plan, to: Decision::Execute, why: "do it".into() });
    assert!(lab.refused.last().unwrap().1.contains("kill_switch"), "{:?}", lab.refused);
    assert!(lab.orders.is_empty());
    // When it is off again the machine goes on by itself.
    lab.switch(false);
    lab.pump();
    assert_eq!(lab.carried_out.len(), 1);
}

#[test]
fn what_runs_is_stopped_after_the_operation_that_is_under_way() {
    type Stop = fn(&mut Lab, IncidentId);
    let stops: [(&str, Stop); 4] = [
        ("pause", |lab, id| lab.person(id, Role::Operator, PersonVerb::Pause { why: "wait".into() })),
        ("take over", |lab, id| lab.person(id, Role::Operator, PersonVerb::TakeOver { note: String::new() })),
        ("resolve", |lab, id| lab.person(id, Role::Operator, PersonVerb::Resolve { why: "mine".into() })),
        ("kill switch", |lab, _| lab.switch(true)),
    ];
    for (name, stop) in stops {
        // Before anything was changed.
        let mut lab = Lab::new();
        let id = lab.usual();
        while lab.answer_look() {}
        assert_eq!(lab.orders[0].operation, Operation::Prepare, "{name}");
        stop(&mut lab, id);
        lab.pump();
        lab.pass_until(100, |_| false);
        assert!(lab.carried_out.is_empty(), "{name}: nothing is begun");
        assert!(!lab.workflow.case(id).is_some_and(nightshift_reason::Case::is_executing), "{name}");

        // With the change under way: it is finished, and nothing further is done.
        let mut lab = Lab::new();
        let id = lab.usual();
        while lab.answer_look() {}
        while lab.orders[0].operation != Operation::Apply {
            lab.answer_order();
        }
        stop(&mut lab, id);
        lab.pump();
        assert_eq!(lab.carried_out.values().sum::<u32>(), 1, "{name}");
        if name != "resolve" {
            lab.readings(4, 25.0);
        }
        assert_eq!(lab.status(id), IncidentStatus::Resolved, "{name}: what was changed was read");
        assert_eq!(lab.carried_out.values().sum::<u32>(), 1, "{name}");
    }
}

#[test]
fn a_paused_incident_waits_and_goes_on_when_resumed() {
    for verb in [PersonVerb::Pause { why: String::new() }, PersonVerb::TakeOver { note: String::new() }] {
        let (mut lab, id, hash) = asking();
        lab.person(id, Role::Operator, verb.clone());
        assert_eq!((lab.node(id), lab.count(id, "approval_withdrawn")), (Some(Node::Monitor), 1));
        lab.person(id, Role::Operator, verb);
        lab.person(id, Role::Approver, approve(hash));
        assert_eq!(lab.refused.len(), 1);
        lab.pass_until(5_000, |_| false);
        lab.crash();
        assert_eq!(lab.node(id), Some(Node::Monitor), "no timer moves it");
        lab.person(id, Role::Operator, PersonVerb::Resume { why: String::new() });
        lab.pass(4);
        lab.pump();
        assert_eq!(lab.node(id), Some(Node::Approval), "asked anew");
        assert_ne!(lab.hash(id), hash);
    }
}

#[test]
fn feedback_teaches_at_any_time_and_others_need_an_open_incident() {
    let mut lab = Lab::new();
    let id = lab.usual();
    lab.pump();
    lab.readings(3, 25.0);
    lab.pass(500);
    assert_eq!(lab.node(id), None);
    lab.learned.clear();
    let feedback = Feedback::FalsePositive { note: "a test of ours".into() };
    lab.person(id, Role::Operator, PersonVerb::Feedback(feedback));
    assert_eq!((lab.learned.len(), lab.count(id, "feedback")), (1, 1));
    lab.person(id, Role::Operator, PersonVerb::Pause { why: String::new() });
    lab.person(IncidentId(99), Role::Operator, PersonVerb::Acknowledge { note: String::new() });
    lab.person(id, Role::Viewer, PersonVerb::Acknowledge { note: String::new() });
    let refused: Vec<bool> = lab.refused.iter().map(|r| r.0).collect();
    assert_eq!(refused, [false, false, true]);
}
