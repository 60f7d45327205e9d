//! The one suite that every actuator passes.
//!
//! Lives here: the checks of what an actuator declares. A kind brings a [`Harness`] and calls [`run`].
//! Never here: anything that asks which kind it is talking to.

use crate::{ActError, Actuator, key_of};
use async_trait::async_trait;
use nightshift_model::{Action, ActionOutcome, ActionType, Image, IncidentId, Operation, PlanHash, Timestamp};
use std::sync::Arc;
use std::time::Duration;

/// How a kind of actuator is opened for the suite.
#[async_trait]
pub trait Harness: Send + Sync {
    /// A world called `name`; nothing of one is seen in another.
    async fn open(&self, name: &str) -> Box<dyn World>;
}

/// One target, and what was done to it: seen without the actuator that is checked.
#[async_trait]
pub trait World: Send + Sync {
    /// A new actuator that reaches this world, as after a restart.
    async fn actuator(&self) -> Arc<dyn Actuator>;

    /// An order that changes the target, to be sent as an apply. [`Order::with`] makes others of it.
    async fn order(&self) -> Action;

    /// The target as it is now, of what the order touches.
    async fn image(&self) -> Image;

    /// How often an operation of this key took effect.
    async fn effects(&self, key: &str) -> u32;

    /// Now, by the actuator's clock.
    fn now(&self) -> Timestamp;

    /// From now on a change takes effect, and its answer does not come. `false`: this world cannot do that.
    async fn hang(&self) -> bool;
}

/// Makes orders of one another.
pub trait Order {
    /// The same order as another operation, with that one's key.
    #[must_use]
    fn with(&self, operation: Operation) -> Self;
    /// Whether the operation of this order's key was done.
    #[must_use]
    fn observation(&self) -> Self;
}

impl Order for Action {
    fn with(&self, operation: Operation) -> Self {
        let key = key_of(self.incident, self.plan, self.step, operation);
        Self { operation, key, ..self.clone() }
    }

    fn observation(&self) -> Self {
        Self { operation: Operation::Observe, ..self.clone() }
    }
}

/// An order for a world: fence 7, a minute until its deadline.
pub fn order(target: &nightshift_model::EntityId, action: ActionType, params: Image, now: Timestamp) -> Action {
    let (incident, plan) = (IncidentId(0x51), PlanHash([0x51; 32]));
    Action {
        key: key_of(incident, plan, 0, Operation::Apply),
        incident,
        plan,
        step: 0,
        operation: Operation::Apply,
        attempt: 1,
        action,
        target: target.clone(),
        actuator: "checked".into(),
        params,
        before: Image::new(),
        fence: 7,
        deadline: now + Duration::from_secs(60),
        synthetic: false,
    }
}

macro_rules! checks {
    ($($name:ident)*) => {
        /// Runs every check.
        ///
        /// # Panics
        /// When one fails.
        pub async fn run(harness: &dyn Harness) {
            $(
                println!("{}", stringify!($name));
                $name(harness.open(stringify!($name)).await.as_ref()).await;
            )*
        }
    };
}

checks! {
    a_look_tells_the_target_and_changes_nothing
    an_apply_takes_effect_once
    the_same_key_has_the_effect_of_once
    a_dry_run_changes_nothing
    a_canary_is_not_the_whole
    an_undo_restores_the_image_before
    an_observation_tells_the_truth
    a_lower_fence_is_refused
    nothing_begins_after_its_deadline
    no_answer_by_the_deadline_is_no_answer
    what_is_not_declared_is_refused
    nothing_synthetic_is_carried_out
}

async fn ordered(world: &dyn World) -> (Arc<dyn Actuator>, Action) {
    let (actuator, mut action) = (world.actuator().await, world.order().await);
    assert!(actuator.handles(action.action, &action.target), "it does what the harness orders");
    action.before = actuator.look(&action.target, action.action).await.expect("the target can be read");
    (actuator, action)
}

async fn a_look_tells_the_target_and_changes_nothing(world: &dyn World) {
    let before = world.image().await;
    let (actuator, action) = ordered(world).await;
    assert!(!action.before.is_empty(), "an image has facts");
    for (name, value) in &action.before {
        assert_eq!(before.get(name), Some(value), "`{name}` as the world has it");
    }
    assert_eq!(
        actuator.look(&action.target, action.action).await.expect("it can be read"),
        action.before,
        "twice is the same"
    );
    assert_eq!(world.image().await, before);
}

async fn an_apply_takes_effect_once(world: &dyn World) {
    let (actuator, action) = ordered(world).await;
    let answer = actuator.perform(&action).await.expect("an apply is answered");
    assert_eq!(answer.outcome, ActionOutcome::Done, "{}", answer.detail);
    assert_eq!(world.effects(&action.key).await, 1);
    assert_ne!(
        actuator.look(&action.target, action.action).await.expect("it can be read"),
        action.before,
        "the order changes the target"
    );
}

async fn the_same_key_has_the_effect_of_once(world: &dyn World) {
    let (actuator, action) = ordered(world).await;
    if !actuator.declares().idempotent {
        return;
    }
    for attempt in 1..=3 {
        let again = Action { attempt, ..action.clone() };
        assert!(actuator.perform(&again).await.expect("an answer").outcome.is_done());
    }
    // Also by one that knows nothing of the first.
    let next = world.actuator().await;
    assert!(next.perform(&action).await.expect("an answer").outcome.is_done());
    assert_eq!(world.effects(&action.key).await, 1);
}

async fn a_dry_run_changes_nothing(world: &dyn World) {
    let (actuator, action) = ordered(world).await;
    if !actuator.declares().dry_run {
        return;
    }
    let before = world.image().await;
    let answer = actuator.perform(&action.with(Operation::DryRun)).await.expect("a dry-run is answered");
    assert_eq!(answer.outcome, ActionOutcome::Done, "{}", answer.detail);
    assert_eq!(world.image().await, before);
    assert_eq!(world.effects(&action.key).await, 0);
}

async fn a_canary_is_not_the_whole(world: &dyn World) {
    let (actuator, action) = ordered(world).await;
    if !actuator.declares().canary {
        return;
    }
    let mut canary = action.with(Operation::Canary);
    canary.params.insert(crate::CANARY_SHARE.into(), serde_json::Value::from(0.25));
    assert!(actuator.perform(&canary).await.expect("an answer").outcome.is_done());
    assert_eq!((world.effects(&canary.key).await, world.effects(&action.key).await), (1, 0));
    let part = world.image().await;
    assert!(actuator.perform(&action).await.expect("an answer").outcome.is_done());
    assert_ne!(world.image().await, part, "the apply does the rest");
}

async fn an_undo_restores_the_image_before(world: &dyn World) {
    let before = world.image().await;
    let (actuator, action) = ordered(world).await;
    actuator.perform(&action).await.expect("an answer");
    let answer = actuator.perform(&action.with(Operation::Undo)).await.expect("an undo is answered");
    assert!(answer.outcome.is_done(), "{}", answer.detail);
    assert_eq!(world.image().await, before);
}

async fn an_observation_tells_the_truth(world: &dyn World) {
    let (actuator, action) = ordered(world).await;
    if !actuator.declares().observable {
        return;
    }
    let look = action.observation();
    assert_eq!(
        actuator.perform(&look).await.expect("an answer").outcome,
        ActionOutcome::Failed,
        "nothing was done yet"
    );
    assert_eq!(world.effects(&action.key).await, 0, "an observation does nothing");
    actuator.perform(&action).await.expect("an answer");
    let next = world.actuator().await;
    for actuator in [actuator, next] {
        assert_eq!(actuator.perform(&look).await.expect("an answer").outcome, ActionOutcome::FoundDone);
        let undo = action.with(Operation::Undo).observation();
        assert_eq!(actuator.perform(&undo).await.expect("an answer").outcome, ActionOutcome::Failed);
    }
    assert_eq!(world.effects(&action.key).await, 1);
}

async fn a_lower_fence_is_refused(world: &dyn World) {
    let (actuator, action) = ordered(world).await;
    let newer = Action { fence: action.fence + 1, ..action.clone() };
    let first = if actuator.declares().observable { newer.observation() } else { newer.clone() };
    actuator.perform(&first).await.expect("an answer");
    let before = world.image().await;
    for operation in [Operation::Apply, Operation::Undo] {
        let late = Action { step: 1, ..action.clone() }.with(operation);
        let refused = actuator.perform(&late).await.expect_err("it is not carried out");
        assert!(matches!(refused, ActError::Refused(_)), "{refused:?}");
        assert_eq!(world.effects(&late.key).await, 0);
    }
    assert_eq!(world.image().await, before);
}

async fn nothing_begins_after_its_deadline(world: &dyn World) {
    let (actuator, action) = ordered(world).await;
    let late = Action { deadline: world.now(), ..action };
    let refused = actuator.perform(&late).await.expect_err("it is not carried out");
    assert!(matches!(refused, ActError::NotDone(_)), "{refused:?}");
    assert_eq!(world.effects(&late.key).await, 0);
}

async fn no_answer_by_the_deadline_is_no_answer(world: &dyn World) {
    let (actuator, action) = ordered(world).await;
    if !world.hang().await {
        return;
    }
    // Long enough that the change takes effect first, on a slow machine too.
    let action = Action { deadline: world.now() + Duration::from_secs(3), ..action };
    let late = actuator.perform(&action).await.expect_err("it is not carried out");
    assert!(matches!(late, ActError::Uncertain(_)), "{late:?}");
    assert_eq!(world.effects(&action.key).await, 1, "it took effect all the same");
}

async fn what_is_not_declared_is_refused(world: &dyn World) {
    let (actuator, action) = ordered(world).await;
    let declares = actuator.declares();
    let mut undeclared = vec![];
    if !declares.dry_run {
        undeclared.push(action.with(Operation::DryRun));
    }
    if !declares.canary {
        undeclared.push(action.with(Operation::Canary));
    }
    if !declares.observable {
        undeclared.push(action.observation());
    }
    undeclared.push(Action { action: ActionType::ManualReview, ..action });
    let before = world.image().await;
    for order in undeclared {
        let refused = actuator.perform(&order).await.expect_err("it is not carried out");
        assert!(matches!(refused, ActError::Refused(_)), "{}: {refused:?}", order.operation);
    }
    assert_eq!(world.image().await, before);
}

async fn nothing_synthetic_is_carried_out(world: &dyn World) {
    let (actuator, action) = ordered(world).await;
    let before = world.image().await;
    for operation in [Operation::Canary, Operation::Apply, Operation::Undo] {
        let order = Action { synthetic: true, ..action.with(operation) };
        let refused = actuator.perform(&order).await.expect_err("it is not carried out");
        assert!(matches!(refused, ActError::Refused(_)), "{operation}: {refused:?}");
    }
    assert_eq!(world.image().await, before);
}
