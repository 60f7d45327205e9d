//! The transitions: what is ordered next and what follows from each answer.

use super::kpi::{Row, median, row_takes};
use super::{
    ATTEMPTS_MAX, Effect, Event, Execution, Finish, GRACE, Mode, OpState, Phase, is_manual, operation_of, step_number,
};
use crate::{ActError, Answer};
use nightshift_guard::Permit;
use nightshift_model::{Action, ActionOutcome, Image, Operation, Rollback, Timestamp};
use serde_json::Value;
use std::time::Duration;

/// Permits that are for something else are asked for anew so often.
const ASKS_MAX: u32 = 3;

pub(super) type Out<'a> = &'a mut Vec<Effect>;

/// How a step that could not go on leaves the world, as far as it knows.
#[derive(Clone, Copy)]
pub(super) enum Halt {
    /// It said no and changed nothing.
    Refused,
    /// It was tried.
    Failed,
}

impl Execution {
    // ---- beginning ----------------------------------------------------------------------------------------------

    pub(super) fn start(&mut self, now: Timestamp, out: Out<'_>) {
        if let Some(why) = self.unfit() {
            return self.over(Finish::Refused { why }, out);
        }
        if !self.plan.acts() {
            let what = self.plan.steps.iter().map(|s| s.name.as_str()).collect::<Vec<_>>().join(", ");
            return self.over(Finish::AsksPerson { what }, out);
        }
        self.watched = true;
        out.push(Effect::Watch(self.plan.verification.kpi.clone()));
        self.enter_step(now, out);
    }

    /// Why it may not even begin.
    pub(super) fn unfit(&self) -> Option<String> {
        let steps = &self.plan.steps;
        if !self.plan.is_sealed() {
            return Some(format!("plan {} is not what its hash says; have it made anew", self.plan.hash.short()));
        }
        if steps.is_empty() {
            return Some("the plan has no steps".into());
        }
        let last_acting = steps.iter().rposition(|s| !is_manual(s))?;
        if let Some(waits) = steps[..last_acting].iter().find(|s| is_manual(s)) {
            return Some(format!(
                "`{}` is for a person and other steps come after it; put what people do last",
                waits.name
            ));
        }
        let known = &self.options.actuators;
        let missing = steps.iter().find(|s| !is_manual(s) && !known.contains_key(&s.actuator));
        missing.filter(|_| !self.options.synthetic).map(|s| {
            let names = known.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
            let names = if names.is_empty() { "none".into() } else { names };
            format!("`{}` needs actuator `{}`; configured: {names}", s.name, s.actuator)
        })
    }

    /// Goes to the first step from here on that is not for a person, or to what comes after the last.
    pub(super) fn enter_step(&mut self, now: Timestamp, out: Out<'_>) {
        while self.plan.steps.get(self.at).is_some_and(is_manual) {
            self.at += 1;
        }
        if self.at < self.steps.len() {
            if self.options.synthetic {
                // There is nothing to look at.
                return self.enter_op(Operation::DryRun, now, out);
            }
            return self.enter_op(Operation::Prepare, now, out);
        }
        // What it was at last: status lines and keys want a step that is there.
        self.at = self.steps.len() - 1;
        let row = Row::default();
        if self.options.dry_run {
            self.phase = Phase::Rehearsed { since: now, row };
            self.finish = Some(Finish::DryRunPassed);
            out.push(Effect::Finished(Finish::DryRunPassed));
        } else {
            let until = now + Duration::from_secs(u64::from(self.plan.verification.deadline_secs));
            self.phase = Phase::Verifying { since: now, until, row };
        }
    }

    // ---- operations ---------------------------------------------------------------------------------------------

    /// Begins an operation of the step that it is at.
    pub(super) fn enter_op(&mut self, operation: Operation, now: Timestamp, out: Out<'_>) {
        *self.op() = OpState::default();
        self.go(operation, now, out);
    }

    /// Orders what changes nothing; asks the guard about the rest.
    pub(super) fn go(&mut self, operation: Operation, now: Timestamp, out: Out<'_>) {
        if operation.changes() {
            self.phase = Phase::Asking { operation, since: now, asked: 1 };
            out.push(Effect::AskPermit { step: step_number(self.at), operation });
        } else {
            self.order(operation, operation, now, out);
        }
    }

    /// Hands out an order: `of` names the key, which for an observation is that of what is looked for.
    pub(super) fn order(&mut self, operation: Operation, of: Operation, now: Timestamp, out: Out<'_>) {
        let key = self.key(of);
        let spec = self.spec();
        let deadline = now + Duration::from_secs(u64::from(spec.deadline_secs.max(1)));
        let mut params = spec.params.clone();
        if let (Operation::Canary, Some(canary)) = (of, &spec.canary) {
            params.insert(crate::CANARY_SHARE.into(), Value::from(canary.share));
        }
        let mut action = Box::new(Action {
            key,
            incident: self.plan.incident,
            plan: self.plan.hash,
            step: step_number(self.at),
            operation,
            attempt: 0,
            action: spec.action,
            target: spec.target.clone(),
            actuator: spec.actuator.clone(),
            params,
            before: Image::new(),
            fence: self.options.fence,
            deadline,
            synthetic: self.options.synthetic,
        });
        let state = self.state();
        action.before.clone_from(&state.before);
        let orders = state.orders.entry(operation).or_default();
        *orders += 1;
        action.attempt = *orders;
        if operation.changes() {
            state.op.settled_at = deadline + GRACE;
        }
        if operation != Operation::Observe && !state.op.open {
            state.op.open = true;
            out.push(Effect::Intend(action.clone()));
        }
        out.push(Effect::Order(action.clone()));
        self.phase = Phase::Ordered { action };
    }

    /// Tries again in a while.
    pub(super) fn wait(&mut self, operation: Operation, failures: u32, now: Timestamp) {
        let until = now + Duration::from_secs(1 << failures.saturating_sub(1).min(6));
        self.phase = Phase::Waiting { operation, until };
    }

    pub(super) fn end(
        &mut self,
        operation: Operation,
        outcome: ActionOutcome,
        detail: String,
        image: Image,
        out: Out<'_>,
    ) {
        let op = self.op();
        op.open = false;
        op.doubt = false;
        out.push(Effect::End { key: self.key(operation), outcome, detail, image });
    }

    // ---- events -------------------------------------------------------------------------------------------------

    pub(super) fn take(&mut self, event: Event, now: Timestamp, out: Out<'_>) {
        if self.is_over() {
            return;
        }
        match event {
            Event::Permitted(permit) => self.permitted(&permit, now, out),
            Event::Denied { why } => {
                if let Phase::Asking { operation, .. } = self.phase {
                    self.denied(operation, &why, now, out);
                }
            }
            Event::Ended { key, operation, attempt, fence, result } => {
                let ours = matches!(&self.phase, Phase::Ordered { action } if action.key == key
                    && action.operation == operation && action.attempt == attempt && action.fence == fence);
                if ours {
                    self.ended(operation, &key, result, now, out);
                }
            }
            Event::Reading { kpi, at, value } => {
                self.reading(&kpi, at, value, now, out);
                self.tick(now, out);
            }
            Event::Tick => self.tick(now, out),
            Event::Recovered { fence, worker } => self.recovered(fence, worker, now, out),
            Event::Abort { why } => self.abort(why, now, out),
        }
    }

    pub(super) fn permitted(&mut self, permit: &Permit, now: Timestamp, out: Out<'_>) {
        let Phase::Asking { operation, since, asked } = self.phase else { return };
        let (hash, step, fence) = (self.plan.hash, step_number(self.at), self.options.fence);
        if permit.allows(hash, step, operation, &self.spec().target, fence, now) {
            self.order(operation, operation, now, out);
        } else if asked < ASKS_MAX {
            self.phase = Phase::Asking { operation, since, asked: asked + 1 };
            out.push(Effect::AskPermit { step, operation });
        } else {
            self.denied(operation, "the permits that were given are for something else or too old", now, out);
        }
    }

    pub(super) fn denied(&mut self, operation: Operation, why: &str, now: Timestamp, out: Out<'_>) {
        let why = format!("the guard says no: {why}");
        if self.op().doubt {
            self.op().barred = Some(why);
            self.in_doubt(operation, now, out);
        } else {
            self.halt(operation, Halt::Refused, why, out, now);
        }
    }

    pub(super) fn ended(
        &mut self,
        operation: Operation,
        key: &str,
        result: Result<Answer, ActError>,
        now: Timestamp,
        out: Out<'_>,
    ) {
        match operation {
            Operation::Prepare | Operation::DryRun => self.read_ended(operation, result, now, out),
            Operation::Observe => match operation_of(key) {
                Some(of) => self.observed(of, result, now, out),
                None => debug_assert!(false, "we made the key"),
            },
            Operation::Canary | Operation::Apply | Operation::Undo => self.change_ended(operation, result, now, out),
        }
    }

    /// A prepare or a dry-run came back.
    pub(super) fn read_ended(
        &mut self,
        operation: Operation,
        result: Result<Answer, ActError>,
        now: Timestamp,
        out: Out<'_>,
    ) {
        let (answer, why) = match result {
            Ok(answer) => match answer.outcome {
                ActionOutcome::Done | ActionOutcome::FoundDone => (Some(answer), String::new()),
                ActionOutcome::Failed | ActionOutcome::Refused => {
                    return self.read_refused(operation, answer.detail, answer.image, now, out);
                }
                ActionOutcome::Unknown => (None, answer.detail),
            },
            Err(ActError::Refused(why)) => return self.read_refused(operation, why, Image::new(), now, out),
            // It changes nothing, so it does not matter whether it was done.
            Err(ActError::NotDone(why) | ActError::Uncertain(why)) => (None, why),
        };
        let Some(answer) = answer else {
            let op = self.op();
            op.failures += 1;
            let failures = op.failures;
            self.end(operation, ActionOutcome::Failed, why.clone(), Image::new(), out);
            if failures < ATTEMPTS_MAX {
                return self.wait(operation, failures, now);
            }
            let why = format!("{operation} got no answer in {failures} attempts: {why}");
            return self.halt(operation, Halt::Refused, why, out, now);
        };
        if operation == Operation::DryRun {
            self.end(operation, answer.outcome, answer.detail, answer.image, out);
            return self.after_dry_run(now, out);
        }
        if let Some(why) = self.other_world(&answer.image) {
            return self.read_refused(operation, why, answer.image, now, out);
        }
        self.state().before.clone_from(&answer.image);
        self.end(operation, answer.outcome, answer.detail, answer.image, out);
        if self.declares().dry_run {
            self.enter_op(Operation::DryRun, now, out);
        } else {
            self.after_dry_run(now, out);
        }
    }

    pub(super) fn read_refused(
        &mut self,
        operation: Operation,
        why: String,
        image: Image,
        now: Timestamp,
        out: Out<'_>,
    ) {
        self.end(operation, ActionOutcome::Refused, why.clone(), image, out);
        let why = if operation == Operation::DryRun { format!("the dry-run was refused: {why}") } else { why };
        self.halt(operation, Halt::Refused, why, out, now);
    }

    pub(super) fn after_dry_run(&mut self, now: Timestamp, out: Out<'_>) {
        if self.options.dry_run {
            self.at += 1;
            return self.enter_step(now, out);
        }
        if self.spec().canary.is_none() || !self.declares().canary {
            return self.enter_op(Operation::Apply, now, out);
        }
        if self.recent.is_empty() {
            let wait = row_takes(&self.plan.verification);
            self.phase = Phase::Baseline { until: now + wait };
        } else {
            self.enter_op(Operation::Canary, now, out);
        }
    }

    /// A change came back.
    pub(super) fn change_ended(
        &mut self,
        operation: Operation,
        result: Result<Answer, ActError>,
        now: Timestamp,
        out: Out<'_>,
    ) {
        let result = match result {
            Ok(Answer { outcome: ActionOutcome::Unknown, detail, .. }) => Err(ActError::Uncertain(detail)),
            Ok(Answer { outcome: ActionOutcome::Refused, detail, .. }) => Err(ActError::Refused(detail)),
            other => other,
        };
        let (doubt, declares) = (self.op().doubt, self.declares());
        match result {
            Ok(answer) if answer.outcome.is_done() => self.done(operation, answer, now, out),
            // It is over for the actuator, and was perhaps done in part: putting back what is as it was does nothing.
            Ok(answer) if !doubt => {
                self.end(operation, ActionOutcome::Failed, answer.detail.clone(), answer.image, out);
                if operation != Operation::Undo {
                    let restores = self.restores();
                    self.state().touched |= restores;
                }
                self.halt(operation, Halt::Failed, format!("{operation} failed: {}", answer.detail), out, now);
            }
            Ok(Answer { detail: why, .. }) | Err(ActError::Refused(why)) if doubt => {
                let op = self.op();
                op.failures += 1;
                op.barred = Some(why);
                self.in_doubt(operation, now, out);
            }
            Ok(Answer { detail: why, .. }) | Err(ActError::Refused(why)) => {
                self.end(operation, ActionOutcome::Refused, why.clone(), Image::new(), out);
                self.halt(operation, Halt::Refused, format!("{operation} was refused: {why}"), out, now);
            }
            Err(ActError::Uncertain(_)) => {
                let op = self.op();
                op.failures += 1;
                op.doubt = true;
                self.in_doubt(operation, now, out);
            }
            // Of this attempt; an earlier one may have been done.
            Err(ActError::NotDone(_)) if doubt => {
                self.op().failures += 1;
                self.in_doubt(operation, now, out);
            }
            Err(ActError::NotDone(why)) => {
                let op = self.op();
                op.failures += 1;
                let failures = op.failures;
                self.end(operation, ActionOutcome::Failed, why.clone(), Image::new(), out);
                let again = declares.idempotent && failures < ATTEMPTS_MAX && !self.is_stopping();
                if again {
                    return self.wait(operation, failures, now);
                }
                let why = format!("{operation} was not done in {failures} attempts: {why}");
                self.halt(operation, Halt::Failed, why, out, now);
            }
        }
    }

    /// An operation is done, or was found done.
    pub(super) fn done(&mut self, operation: Operation, answer: Answer, now: Timestamp, out: Out<'_>) {
        let Answer { outcome, detail, image } = answer;
        self.end(operation, outcome, detail, image.clone(), out);
        let state = self.state();
        match operation {
            Operation::Undo => state.undone = true,
            Operation::Apply => {
                (state.touched, state.done) = (true, true);
                state.after = image;
            }
            _ => state.touched = true,
        }
        if let Mode::Stopping { why } = &self.mode {
            let why = why.clone();
            return self.stopped(&why, out);
        }
        match operation {
            Operation::Undo => self.undo_next(out, now),
            Operation::Apply => {
                self.at += 1;
                self.enter_step(now, out);
            }
            _ => {
                let watch = self.spec().canary.as_ref().map_or(0, |c| c.watch_secs);
                let until = now + Duration::from_secs(u64::from(watch));
                // Readings began before the canary; none that is a number is as bad as it gets.
                let baseline = median(self.recent.iter().map(|r| r.value)).unwrap_or(self.plan.verification.threshold);
                self.phase = Phase::Watching { operation_ended: now, until, baseline, seen: Vec::new() };
            }
        }
    }

    // ---- the world ----------------------------------------------------------------------------------------------

    /// What is not as the plan assumed, or cannot be put back later.
    pub(super) fn other_world(&self, image: &Image) -> Option<String> {
        let spec = self.spec();
        for (name, assumed) in &spec.expects {
            // What earlier steps of this plan did to the same target was meant.
            let earlier = self.steps[..self.at].iter().zip(&self.plan.steps).rev();
            let left = earlier
                .filter(|(state, s)| state.done && s.target == spec.target)
                .find_map(|(state, s)| state.after.get(name).or_else(|| s.params.get(name)));
            let assumed = left.unwrap_or(assumed);
            let found = image.get(name).unwrap_or(&Value::Null);
            if !same(assumed, found) {
                let found = if found.is_null() { "not told".into() } else { shown(found) };
                return Some(format!("the world changed: {name} is {found}, the plan assumed {}", shown(assumed)));
            }
        }
        if spec.rollback == Rollback::Restore && image.is_empty() {
            let actuator = &spec.actuator;
            return Some(format!("`{actuator}` told nothing of the target: it could not be put back"));
        }
        None
    }
}

fn shown(value: &Value) -> String {
    let mut text = value.to_string();
    if let Some((cut, _)) = text.char_indices().nth(100) {
        text.truncate(cut);
        text.push('…');
    }
    text
}

/// Whether two facts are the same; 3 and 3.0 are.
fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => a == b || a.as_f64() == b.as_f64(),
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(k, v)| b.get(k).is_some_and(|w| same(v, w)))
        }
        _ => a == b,
    }
}
