//! Crashes at every commit, and inputs in any order.

use crate::lab::{Lab, World, cause, service};
use nightshift_guard::Role;
use nightshift_model::{Decision, EventKind, FaultClass, IncidentId, IncidentStatus, PersonVerb, PlanHash};
use nightshift_reason::{Case, Input, Node};
use proptest::prelude::*;

/// One incident from its beginning to its end, with a crash after that commit.
fn story(dies_at: usize) -> (Lab, IncidentId) {
    let mut lab = Lab::new();
    lab.dies_at = dies_at;
    let payment = service("payment-service");
    let id = lab.open(&payment, 0.95, vec![cause(&payment, FaultClass::CpuSaturation, 0.6)]);
    let mut seconds = 0;
    while lab.node(id).is_some() {
        seconds += 1;
        assert!(seconds < 2_000, "it never ends: {}", lab.path(id));
        lab.pass(1);
        lab.pump();
        if lab.node(id) == Some(Node::Approval) {
            let plan = lab.hash(id);
            lab.person(id, Role::Approver, PersonVerb::Approve { plan, note: String::new() });
        }
        lab.pump();
        lab.readings(1, if lab.carried_out.is_empty() { 97.0 } else { 25.0 });
    }
    (lab, id)
}

/// Acceptance 4 in small: wherever it dies, nothing is lost, nothing is done twice, and it ends the same way.
#[test]
fn a_crash_after_any_commit_changes_nothing_of_how_it_ends() {
    let (calm, id) = story(usize::MAX);
    assert_eq!(calm.status(id), IncidentStatus::Resolved);
    let commits = calm.commits;
    assert!(commits > 25, "{commits}");
    for dies_at in 1..=commits {
        let (lab, id) = story(dies_at);
        assert_eq!(lab.crashes, 1);
        assert_eq!(lab.status(id), IncidentStatus::Resolved, "died at {dies_at}");
        assert_eq!(lab.carried_out, calm.carried_out_like(&lab), "died at {dies_at}");
        for word in ["created", "approved", "verified", "resolved", "postmortem_written"] {
            assert_eq!(lab.count(id, word), calm.count(id, word), "{word}, died at {dies_at}: {}", lab.path(id));
        }
        assert!(lab.learned.contains(&id) || dies_at >= commits - 1, "died at {dies_at}");
    }
}

impl Lab {
    /// Keys have the plan's hash in them, which has its time in it: the same operations, once each.
    fn carried_out_like(&self, other: &Self) -> std::collections::BTreeMap<String, u32> {
        assert_eq!(self.carried_out.len(), other.carried_out.len());
        other.carried_out.keys().map(|k| (k.clone(), 1)).collect()
    }
}

#[test]
fn a_checkpoint_is_read_back_as_it_was_written() {
    let (lab, _) = {
        let mut lab = Lab::new();
        let id = lab.usual();
        while lab.answer_look() {}
        (lab, id)
    };
    for body in lab.checkpoints.values() {
        let case = Case::from_bytes(body).unwrap();
        assert_eq!(case.to_bytes(), *body);
        for cut in (0..body.len()).step_by(97) {
            assert!(Case::from_bytes(&body[..cut]).is_err());
        }
    }
}

#[derive(Debug, Clone)]
enum Op {
    Pass(u64),
    Look,
    Order,
    /// An answer that comes twice.
    OrderTwice,
    LoseOrder,
    Readings(u32, bool),
    Rank(bool, f64),
    Person(u8, Role),
    Switch(bool),
    World(u8),
    Engine(u8),
    Crash,
    DieSoon(usize),
}

fn op() -> impl Strategy<Value = Op> {
    let role = prop_oneof![Just(Role::Viewer), Just(Role::Operator), Just(Role::Approver), Just(Role::Admin)];
    prop_oneof![
        4 => (1u64..40).prop_map(Op::Pass),
        1 => (200u64..400).prop_map(Op::Pass),
        6 => Just(Op::Look),
        8 => Just(Op::Order),
        1 => Just(Op::OrderTwice),
        1 => Just(Op::LoseOrder),
        4 => (1u32..5, any::<bool>()).prop_map(|(n, good)| Op::Readings(n, good)),
        2 => (any::<bool>(), 0.1f64..1.0).prop_map(|(other, c)| Op::Rank(other, c)),
        4 => (0u8..10, role).prop_map(|(verb, role)| Op::Person(verb, role)),
        1 => any::<bool>().prop_map(Op::Switch),
        1 => (0u8..3).prop_map(Op::World),
        1 => (0u8..3).prop_map(Op::Engine),
        1 => Just(Op::Crash),
        1 => (1usize..6).prop_map(Op::DieSoon),
    ]
}

fn verb(kind: u8, plan: PlanHash) -> PersonVerb {
    let text = || "because".to_owned();
    match kind {
        0 | 1 => PersonVerb::Approve { plan, note: String::new() },
        2 => PersonVerb::Reject { plan, why: text() },
        3 => PersonVerb::Override { plan, to: Decision::Execute, why: text() },
        4 => PersonVerb::Override { plan, to: Decision::Deny, why: text() },
        5 => PersonVerb::Pause { why: text() },
        6 => PersonVerb::Resume { why: text() },
        7 => PersonVerb::TakeOver { note: text() },
        8 => PersonVerb::Resolve { why: text() },
        _ => PersonVerb::Approve { plan: PlanHash([1; 32]), note: String::new() },
    }
}

fn apply(lab: &mut Lab, id: IncidentId, op: Op) {
    let payment = service("payment-service");
    match op {
        Op::Pass(secs) => lab.pass(secs),
        Op::Look => drop(lab.answer_look()),
        Op::Order => drop(lab.answer_order()),
        Op::OrderTwice => {
            if let Some(order) = lab.orders.pop_front() {
                let result = lab.carry_out(&order);
                lab.give(Input::Ended { order: Box::new(order.clone()), result: result.clone() });
                lab.give(Input::Ended { order: Box::new(order), result });
            }
        }
        // Carried out, and the answer never came.
        Op::LoseOrder => {
            if let Some(order) = lab.orders.pop_front() {
                let _ = lab.carry_out(&order);
            }
        }
        Op::Readings(n, good) => lab.readings(n, if good { 25.0 } else { 97.0 }),
        Op::Rank(other, c) => {
            if lab.status(id).is_open() {
                let fault = if other { FaultClass::DeploymentFailure } else { FaultClass::CpuSaturation };
                lab.rank(id, vec![cause(&payment, fault, c)]);
            }
        }
        Op::Person(kind, role) => {
            let plan = lab.hash(id);
            lab.person(id, role, verb(kind, plan));
        }
        Op::Switch(on) => lab.switch(on),
        Op::World(kind) => lab.world = [World::Works, World::Fails, World::Blind][usize::from(kind)],
        Op::Engine(kind) => {
            let (open, remediating) = (lab.status(id).is_open(), lab.status(id) == IncidentStatus::Remediating);
            match kind {
                // The engine leaves what is being remediated alone.
                0 if open && !remediating => lab.engine(id, vec![EventKind::Resolved { why: "ended".into() }]),
                1 if lab.status(id) == IncidentStatus::Resolved => {
                    lab.engine(id, vec![EventKind::Reopened { why: "came back".into() }]);
                }
                _ => lab.tell(id),
            }
        }
        Op::Crash => lab.crash(),
        Op::DieSoon(n) => lab.dies_at = lab.commits + n,
    }
}

/// Every case ends, or waits for something that will come.
fn waits_for_something(lab: &Lab) {
    for case in lab.workflow.cases() {
        let answer = lab.looks.iter().any(|(id, _)| *id == case.incident())
            || lab.orders.iter().any(|o| o.incident == case.incident());
        let person = matches!(case.node(), Node::Escalation | Node::Monitor);
        let time = lab.workflow.wants_tick_at().is_some();
        assert!(answer || person || time, "{} waits for nothing at {}", case.incident(), case.node());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    /// The oracle of [`Lab`] is asked at every commit; here: whatever happened, it comes to rest.
    #[test]
    fn no_order_of_events_breaks_the_rules(ops in prop::collection::vec(op(), 1..60)) {
        let mut lab = Lab::new();
        let id = lab.usual();
        for op in ops {
            apply(&mut lab, id, op);
            waits_for_something(&lab);
        }
        prop_assert!(lab.carried_out.iter().all(|(key, n)| *n <= 3 || key.is_empty()));
        // Left alone with a world that works and nobody who decides, it ends or a person has it.
        lab.world = World::Works;
        lab.dies_at = usize::MAX;
        lab.switch(false);
        lab.pass_until(20_000, |_| false);
        let case = lab.workflow.case(id);
        prop_assert!(
            case.is_none_or(|c| matches!(c.node(), Node::Escalation | Node::Monitor)),
            "left at {:?}: {}", lab.node(id), lab.path(id)
        );
        prop_assert!(case.is_none_or(|c| !c.is_executing()));
        // The journal of it is what the incident is.
        prop_assert!(lab.count(id, "created") == 1);
    }
}
