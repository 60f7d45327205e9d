//! The estate behind the seam of `act`.

use nightshift_act::{ActError, Actuator};
use nightshift_model::{
    Action, ActionOutcome, ActionType, EntityId, Image, IncidentId, Operation, PlanHash, Timestamp,
};
use nightshift_sim::{EstateSpec, Part, SimActuator, World};
use parking_lot::Mutex;
use serde_json::json;
use std::sync::Arc;

fn action(operation: Operation, target: &EntityId, replicas: u32, key: &str, fence: u64) -> Action {
    Action {
        key: key.into(),
        incident: IncidentId(1),
        plan: PlanHash::default(),
        step: 0,
        operation,
        attempt: 1,
        action: ActionType::ScaleDeployment,
        target: target.clone(),
        actuator: "estate".into(),
        params: Image::from([("replicas".to_owned(), json!(replicas))]),
        before: Image::new(),
        fence,
        deadline: Timestamp::EPOCH,
        synthetic: false,
    }
}

#[tokio::test]
async fn an_order_is_carried_out_once_found_done_and_taken_back() {
    let spec = EstateSpec::six();
    let gateway = spec.id(Part::Service(0));
    let world = Arc::new(Mutex::new(World::new(spec, 1)));
    let actuator = SimActuator::new(Arc::clone(&world));
    assert!(actuator.handles(ActionType::ScaleDeployment, &gateway));
    assert!(!actuator.handles(ActionType::DrainNode, &gateway));

    let before = actuator.look(&gateway, ActionType::ScaleDeployment).await.unwrap();
    let do_it = |op: Operation, key: &str, fence: u64| action(op, &gateway, 6, key, fence);
    let tried = actuator.perform(&do_it(Operation::DryRun, "k-dry_run", 4)).await.unwrap();
    assert_eq!((tried.outcome, &tried.image), (ActionOutcome::Done, &before));

    let looked = actuator.perform(&do_it(Operation::Observe, "k-apply", 4)).await.unwrap();
    assert_eq!(looked.outcome, ActionOutcome::Failed);
    let done = actuator.perform(&do_it(Operation::Apply, "k-apply", 4)).await.unwrap();
    assert_eq!((done.outcome, &done.image["replicas"]), (ActionOutcome::Done, &json!(6)));
    let looked = actuator.perform(&do_it(Operation::Observe, "k-apply", 4)).await.unwrap();
    assert_eq!(looked.outcome, ActionOutcome::FoundDone);

    // Said by somebody whose lease is over.
    let stale = actuator.perform(&do_it(Operation::Apply, "other", 3)).await.unwrap_err();
    assert!(matches!(stale, ActError::Refused(why) if why.contains("fencing token 3")));

    let undo = Action { before: before.clone(), ..do_it(Operation::Undo, "k-undo", 4) };
    actuator.perform(&undo).await.unwrap();
    world.lock().run_until(20.0);
    assert_eq!(actuator.look(&gateway, ActionType::ScaleDeployment).await.unwrap(), before);

    let injected = Action { synthetic: true, ..do_it(Operation::Apply, "s", 4) };
    assert!(matches!(actuator.perform(&injected).await, Err(ActError::Refused(_))));
    let nobody = EntityId::new("sim", "service", "shop", "nobody");
    assert!(matches!(actuator.look(&nobody, ActionType::RestartPods).await, Err(ActError::Refused(_))));
}

#[tokio::test]
async fn a_canary_touches_a_part_only() {
    let spec = EstateSpec::six();
    let gateway = spec.id(Part::Service(0));
    let world = Arc::new(Mutex::new(World::new(spec, 1)));
    let actuator = SimActuator::new(Arc::clone(&world));
    world.lock().run_until(5.0);
    let mut canary = action(Operation::Canary, &gateway, 0, "k-canary", 1);
    canary.action = ActionType::RestartPods;
    canary.params = Image::from([(nightshift_act::CANARY_SHARE.to_owned(), json!(0.3))]);
    actuator.perform(&canary).await.unwrap();
    let (mut least, mut away) = (3, 0);
    for _ in 0..60 {
        let mut world = world.lock();
        world.tick();
        let pods = world.image(&gateway, ActionType::RestartPods).unwrap();
        let ready = pods["ready_replicas"].as_u64().unwrap();
        least = least.min(ready);
        away += 3 - ready;
    }
    assert!(least == 2 && (5..20).contains(&away), "one pod, once: {least}, {away} pod seconds");
    assert_eq!(world.lock().observe("k-canary"), nightshift_sim::Observed::Done);
}
