//! The estate as an actuator: the impure end of `act` for a world in memory.

use crate::actions::{ApplyError, Observed, SimAction};
use crate::world::World;
use async_trait::async_trait;
use nightshift_act::{ActError, Actuator, Answer, Declares};
use nightshift_model::{Action, ActionOutcome, ActionType, EntityId, Image, Operation};
use parking_lot::Mutex;
use std::sync::Arc;

/// Acts on an estate that somebody else lets run.
#[derive(Debug, Clone)]
pub struct SimActuator {
    world: Arc<Mutex<World>>,
}

impl SimActuator {
    /// Acts on this estate.
    pub const fn new(world: Arc<Mutex<World>>) -> Self {
        Self { world }
    }
}

fn refused(error: ApplyError) -> ActError {
    ActError::Refused(error.to_string())
}

#[async_trait]
impl Actuator for SimActuator {
    fn kind(&self) -> &'static str {
        "estate"
    }

    fn declares(&self) -> Declares {
        Declares { idempotent: true, observable: true, dry_run: true, canary: true }
    }

    fn handles(&self, action: ActionType, target: &EntityId) -> bool {
        self.world.lock().handles(action, target)
    }

    async fn look(&self, target: &EntityId, action: ActionType) -> Result<Image, ActError> {
        let image = self.world.lock().image(target, action);
        image.ok_or_else(|| refused(ApplyError::NoTarget(target.to_string())))
    }

    async fn perform(&self, action: &Action) -> Result<Answer, ActError> {
        if action.synthetic && action.operation.changes() {
            return Err(ActError::Refused("an incident of a test injection changes nothing".into()));
        }
        let mut world = self.world.lock();
        let image = |world: &World| world.image(&action.target, action.action).unwrap_or_default();
        let (outcome, detail) = match action.operation {
            Operation::Prepare => {
                let read = world.image(&action.target, action.action);
                read.ok_or_else(|| refused(ApplyError::NoTarget(action.target.to_string())))?;
                (ActionOutcome::Done, "read".to_owned())
            }
            Operation::DryRun => (ActionOutcome::Done, world.dry_run(&SimAction::from(action)).map_err(refused)?),
            Operation::Canary | Operation::Apply | Operation::Undo => {
                (ActionOutcome::Done, world.apply(&SimAction::from(action)).map_err(refused)?)
            }
            Operation::Observe => match world.observe(&action.key) {
                Observed::Done => (ActionOutcome::FoundDone, "it was done".to_owned()),
                // What the estate has taken on it carries out.
                Observed::UnderWay => (ActionOutcome::FoundDone, "it is under way".to_owned()),
                Observed::NotDone => (ActionOutcome::Failed, "it was not done".to_owned()),
            },
        };
        Ok(Answer { outcome, detail, image: image(&world) })
    }
}
