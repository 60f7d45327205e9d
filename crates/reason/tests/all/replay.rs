//! Decisions run again from the record.

use crate::lab::{Lab, cause, service};
use nightshift_guard::{Guard, GuardConfig, Policies};
use nightshift_model::{ActionType, EventKind, FaultClass};
use nightshift_plan::Playbooks;
use nightshift_reason::{Node, ReplayRooms, WorkflowConfig, replay};
use std::time::Duration;

/// Something of everything: an unsure cause, then a sure one, a fix that does not last, another.
fn past() -> (Lab, nightshift_model::IncidentId) {
    let mut lab = Lab::new();
    let payment = service("payment-service");
    let id = lab.open(&payment, 0.95, vec![cause(&payment, FaultClass::CpuSaturation, 0.6)]);
    lab.pass(3);
    lab.pump();
    lab.rank(id, vec![cause(&payment, FaultClass::DeploymentFailure, 0.95)]);
    lab.pump();
    lab.readings(3, 25.0);
    lab.readings(3, 97.0);
    lab.pass(200);
    lab.pump();
    (lab, id)
}

#[test]
fn the_same_rooms_decide_the_same() {
    let (lab, id) = past();
    let guard = Guard::new(GuardConfig { dry_run: false, ..GuardConfig::default() }, Policies::none());
    let workflow = WorkflowConfig::default();
    let rooms = lab.replay_rooms(&guard, &workflow);
    let again = replay(&lab.rows, id, &rooms).unwrap();
    for node in [Node::IsReal, Node::RootCause, Node::FixPlanner, Node::Safety, Node::ExecutionDecision] {
        assert!(again.decisions.iter().any(|d| d.node == node), "{node} was not run again");
    }
    let different: Vec<_> = again.decisions.iter().filter(|d| d.differs).collect();
    assert!(different.is_empty(), "{different:#?}");
    assert!(again.decisions.iter().all(|d| !d.replayed.contains("not recorded")), "{again:#?}");
    assert!(again.decisions.len() >= 9, "{}", again.decisions.len());
}

#[test]
fn other_policies_and_playbooks_show_what_would_have_been() {
    let (lab, id) = past();
    let workflow = WorkflowConfig::default();
    let text = "package house\n\nimport rego.v1\n\ndeny contains {\"msg\": \"no rollbacks today\"} if {\n    some step in input.steps\n    step.action == \"rollback_deploy\"\n}\n";
    let policies =
        Policies::compile(&[("house.rego".to_owned(), text.to_owned())], Duration::from_millis(500)).unwrap();
    let guard = Guard::new(GuardConfig { dry_run: false, ..GuardConfig::default() }, policies);
    let again = replay(&lab.rows, id, &lab.replay_rooms(&guard, &workflow)).unwrap();
    let safety: Vec<_> = again.decisions.iter().filter(|d| d.node == Node::Safety && d.differs).collect();
    assert!(!safety.is_empty() && safety.iter().all(|d| d.replayed.contains("no rollbacks today")), "{safety:#?}");
    let decision = again.decisions.iter().find(|d| d.node == Node::ExecutionDecision && d.differs).unwrap();
    assert_eq!((decision.recorded.as_str(), decision.replayed.as_str()), ("act", "escalation"));

    let strict = GuardConfig { dry_run: false, actions: vec![ActionType::ScaleDeployment], ..GuardConfig::default() };
    let guard = Guard::new(strict, Policies::none());
    assert!(replay(&lab.rows, id, &lab.replay_rooms(&guard, &workflow)).unwrap().differs());

    let guard = Guard::new(GuardConfig { dry_run: false, ..GuardConfig::default() }, Policies::none());
    let none = Playbooks::default();
    let rooms = ReplayRooms { playbooks: &none, ..lab.replay_rooms(&guard, &workflow) };
    let again = replay(&lab.rows, id, &rooms).unwrap();
    let planner = again.decisions.iter().find(|d| d.node == Node::FixPlanner).unwrap();
    assert!(planner.differs && planner.replayed == "no plan", "{planner:?}");
}

#[test]
fn rows_that_are_not_whole_are_refused_and_old_ones_say_so() {
    let (lab, id) = past();
    let guard = Guard::new(GuardConfig::default(), Policies::none());
    let workflow = WorkflowConfig::default();
    let rooms = lab.replay_rooms(&guard, &workflow);
    assert!(replay(&lab.rows[1..], id, &rooms).unwrap_err().contains("opening"));
    assert!(replay(&[], id, &rooms).unwrap_err().contains("no row"));
    let mut rows = lab.rows.clone();
    for row in &mut rows {
        if let EventKind::NodeDone { seen, .. } = &mut row.event {
            *seen = serde_json::Value::Null;
        }
    }
    let again = replay(&rows, id, &rooms).unwrap();
    assert!(!again.differs() && again.decisions.iter().any(|d| d.replayed.contains("not recorded")));
}
