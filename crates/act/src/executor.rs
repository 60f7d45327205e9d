//! The impure end: hands one order to the actuator that the plan names, with a deadline.
//!
//! Lives here: what holds for every actuator (deadlines, fences, one operation per target, bounded answers, nothing
//! synthetic ever carried out). Never here: which order comes next ([`crate::Execution`]), how it is done.

use crate::{ActError, Actuator, Answer, Declares};
use nightshift_model::{Action, ActionOutcome, ActionType, Clock, EntityId, Image, Operation, Timestamp};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// Time for a look that is no part of an order.
const LOOK: Duration = Duration::from_secs(10);

/// Largest image that is kept, as JSON, in bytes: it goes into the journal and into checkpoints.
pub const IMAGE_BYTES_MAX: usize = 64 << 10;

/// Longest detail that is kept, in characters.
pub(crate) const DETAIL_CHARS_MAX: usize = 400;

/// All configured actuators.
pub struct Executor {
    actuators: BTreeMap<String, Arc<dyn Actuator>>,
    clock: Arc<dyn Clock>,
    targets: Mutex<Targets>,
}

/// What is under way, and the highest fence so far.
#[derive(Default)]
struct Targets {
    locks: BTreeMap<EntityId, Arc<tokio::sync::Mutex<()>>>,
    fence: u64,
}

impl Executor {
    /// With these actuators, by the names that plans use.
    pub fn new(actuators: BTreeMap<String, Arc<dyn Actuator>>, clock: Arc<dyn Clock>) -> Self {
        Self { actuators, clock, targets: Mutex::default() }
    }

    /// What each promises: for [`crate::Options::actuators`].
    pub fn declares(&self) -> BTreeMap<String, Declares> {
        self.actuators.iter().map(|(name, a)| (name.clone(), a.declares())).collect()
    }

    /// Names of those that do this to that, in order.
    pub fn handling(&self, action: ActionType, target: &EntityId) -> Vec<&str> {
        self.actuators.iter().filter(|(_, a)| a.handles(action, target)).map(|(name, _)| name.as_str()).collect()
    }

    /// Reads a target, of what actions of this type touch. Changes nothing.
    ///
    /// # Errors
    /// `NotDone` when it cannot be read now, `Refused` when there is no such actuator or target.
    pub async fn look(&self, target: &EntityId, action: ActionType, actuator: &str) -> Result<Image, ActError> {
        let actuator = self.find(actuator, action, target)?;
        let looking = actuator.look(target, action);
        let image = tokio::time::timeout(LOOK, looking)
            .await
            .map_err(|_| ActError::NotDone(format!("read {}: no answer in {} s", target.name(), LOOK.as_secs())))?
            .map_err(|e| tidy_error(e, false))?;
        bounded(image).map_err(ActError::Refused)
    }

    /// Carries one order out, or says why not. Its intent must be durable. Gives up at the order's deadline.
    ///
    /// # Errors
    /// See [`ActError`]. A change that has no answer at the deadline is `Uncertain`.
    pub async fn carry_out(&self, action: &Action) -> Result<Answer, ActError> {
        if action.synthetic {
            return synthetic(action.operation);
        }
        let actuator = self.find(&action.actuator, action.action, &action.target)?;
        let lock = self.admit(action)?;
        let name = action.target.name();
        // Whoever waits here has not begun.
        let waiting = tokio::time::timeout(self.left(action)?, lock.lock());
        let held = waiting.await.map_err(|_| {
            ActError::NotDone(format!("wait for {name}: another operation on it took until the deadline"))
        })?;
        // Somebody with a higher fence may have come meanwhile.
        self.admit(action)?;
        let left = self.left(action)?;
        let done = tokio::time::timeout(left, perform(actuator.as_ref(), action)).await;
        drop(held);
        drop(lock);
        self.forget(&action.target);
        let changes = action.operation.changes();
        match done {
            Ok(result) => tidy(result, action.operation),
            Err(_) => {
                let why = format!("{} of {name}: no answer until the deadline", action.operation);
                Err(if changes { ActError::Uncertain(why) } else { ActError::NotDone(why) })
            }
        }
    }

    fn find(&self, name: &str, action: ActionType, target: &EntityId) -> Result<&Arc<dyn Actuator>, ActError> {
        let found = self.actuators.get(name).ok_or_else(|| {
            let names = self.actuators.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
            let names = if names.is_empty() { "none".to_owned() } else { names };
            ActError::Refused(format!("use actuator `{name}`: it is not configured; configured: {names}"))
        })?;
        if found.handles(action, target) {
            return Ok(found);
        }
        Err(ActError::Refused(format!("use actuator `{name}`: it does not do {action} on {}", target.name())))
    }

    /// The lock of the order's target, unless a newer worker was here.
    fn admit(&self, action: &Action) -> Result<Arc<tokio::sync::Mutex<()>>, ActError> {
        let mut targets = self.targets.lock();
        if action.fence < targets.fence {
            let (own, seen) = (action.fence, targets.fence);
            return Err(ActError::Refused(format!(
                "carry out an order of fence {own}: {seen} was seen, another worker acts"
            )));
        }
        targets.fence = action.fence;
        Ok(targets.locks.entry(action.target.clone()).or_default().clone())
    }

    /// Forgets the lock of a target on which nothing is under way.
    fn forget(&self, target: &EntityId) {
        let mut targets = self.targets.lock();
        if targets.locks.get(target).is_some_and(|lock| Arc::strong_count(lock) == 1) {
            targets.locks.remove(target);
        }
    }

    /// Time until the order's deadline.
    fn left(&self, action: &Action) -> Result<Duration, ActError> {
        let now: Timestamp = self.clock.now();
        if now >= action.deadline {
            return Err(ActError::NotDone(format!("begin {}: its deadline has passed", action.operation)));
        }
        Ok(action.deadline.since(now))
    }
}

async fn perform(actuator: &dyn Actuator, action: &Action) -> Result<Answer, ActError> {
    if action.operation != Operation::Prepare {
        return actuator.perform(action).await;
    }
    let image = actuator.look(&action.target, action.action).await?;
    Ok(Answer { outcome: ActionOutcome::Done, detail: format!("{} facts read", image.len()), image })
}

/// What was made by a test injection is answered here and reaches no actuator.
fn synthetic(operation: Operation) -> Result<Answer, ActError> {
    let answer = |outcome, detail: &str| Ok(Answer { outcome, detail: detail.to_owned(), image: Image::new() });
    match operation {
        Operation::Prepare | Operation::DryRun => {
            answer(ActionOutcome::Done, "made by a test injection: there is nothing to read or to try")
        }
        Operation::Observe => answer(ActionOutcome::Failed, "made by a test injection: nothing was ever carried out"),
        Operation::Canary | Operation::Apply | Operation::Undo => {
            Err(ActError::Refused("carry out what a test injection made: it never is".to_owned()))
        }
    }
}

/// Bounds an answer, and holds an actuator to what it may say.
fn tidy(result: Result<Answer, ActError>, operation: Operation) -> Result<Answer, ActError> {
    let mut answer = result.map_err(|e| tidy_error(e, operation.changes()))?;
    answer.detail = one_line(&answer.detail);
    match bounded(std::mem::take(&mut answer.image)) {
        Ok(image) => answer.image = image,
        Err(why) if operation == Operation::Prepare => return Err(ActError::Refused(why)),
        // It is done all the same.
        Err(why) => answer.detail = one_line(&format!("{}; {why}", answer.detail)),
    }
    Ok(answer)
}

fn tidy_error(error: ActError, changes: bool) -> ActError {
    match error {
        ActError::NotDone(why) => ActError::NotDone(one_line(&why)),
        ActError::Uncertain(why) if changes => ActError::Uncertain(one_line(&why)),
        // Of what changes nothing it does not matter.
        ActError::Uncertain(why) => ActError::NotDone(one_line(&why)),
        ActError::Refused(why) => ActError::Refused(one_line(&why)),
    }
}

fn bounded(image: Image) -> Result<Image, String> {
    let bytes = serde_json::to_vec(&image).map_or(usize::MAX, |json| json.len());
    if bytes > IMAGE_BYTES_MAX {
        return Err(format!("read the target: it is told in {bytes} bytes, more than {IMAGE_BYTES_MAX}"));
    }
    Ok(image)
}

/// One line of bounded length without control characters: what outside programs say is shown on terminals.
pub(crate) fn one_line(text: &str) -> String {
    let mut out = String::new();
    for c in text.trim().chars().map(|c| if c.is_control() { ' ' } else { c }).take(DETAIL_CHARS_MAX) {
        if !(c == ' ' && out.ends_with(' ')) {
            out.push(c);
        }
    }
    if text.trim().chars().count() > DETAIL_CHARS_MAX {
        out.push('…');
    }
    out
}
