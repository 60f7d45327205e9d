//! Doubt and endings: what follows when nobody knows whether a change was made, when a step cannot go on, when it is
//! told to stop, and after a crash.

use super::kpi::row_takes;
use super::machine::{Halt, Out};
use super::{ATTEMPTS_MAX, Effect, Execution, Finish, Mode, Phase, StepState, operation_of};
use crate::{ActError, Answer};
use nightshift_model::{ActionOutcome, Image, Operation, Rollback, Timestamp};

impl Execution {
    pub(super) fn is_stopping(&self) -> bool {
        matches!(self.mode, Mode::Stopping { .. })
    }

    /// Whether it may be ordered once more.
    pub(super) fn may_retry(&mut self) -> bool {
        !self.is_stopping() && self.op().barred.is_none() && self.op().failures < ATTEMPTS_MAX
    }

    /// Nobody knows whether the operation was done: the rule of the module's table.
    pub(super) fn in_doubt(&mut self, operation: Operation, now: Timestamp, out: Out<'_>) {
        self.op().doubt = true;
        let declares = self.declares();
        if declares.observable && self.op().looks < ATTEMPTS_MAX {
            let settled_at = self.op().settled_at;
            // What may be applied again under the same key may be looked at at once; else a late arrival is waited for.
            if now < settled_at && !(declares.idempotent && self.may_retry()) {
                self.phase = Phase::Settling { operation, until: settled_at };
            } else {
                self.order(Operation::Observe, operation, now, out);
            }
        } else if declares.idempotent && self.may_retry() {
            let failures = self.op().failures;
            if failures == 0 { self.go(operation, now, out) } else { self.wait(operation, failures, now) }
        } else {
            self.unknown(operation, out);
        }
    }

    /// An observation came back.
    pub(super) fn observed(&mut self, of: Operation, result: Result<Answer, ActError>, now: Timestamp, out: Out<'_>) {
        let idempotent = self.declares().idempotent;
        match result {
            Ok(answer) if answer.outcome.is_done() => {
                self.op().looks = 0;
                self.done(of, Answer { outcome: ActionOutcome::FoundDone, ..answer }, now, out);
            }
            Ok(answer) if answer.outcome == ActionOutcome::Failed => {
                self.op().looks = 0;
                if now >= self.op().settled_at {
                    let detail = format!("found not done: {}", answer.detail);
                    self.end(of, ActionOutcome::Failed, detail, answer.image, out);
                    if self.may_retry() {
                        return self.go(of, now, out);
                    }
                    let why = match self.op().barred.take() {
                        Some(why) => why,
                        None => format!("{of} was not done in {ATTEMPTS_MAX} attempts"),
                    };
                    self.halt(of, Halt::Failed, why, out, now);
                } else if idempotent && self.may_retry() {
                    self.go(of, now, out);
                } else {
                    self.phase = Phase::Settling { operation: of, until: self.op().settled_at };
                }
            }
            other => {
                let op = self.op();
                // An answer that says that it cannot tell will not change; an error may.
                op.looks = if other.is_ok() { ATTEMPTS_MAX } else { op.looks + 1 };
                let looks = op.looks;
                if looks < ATTEMPTS_MAX {
                    self.wait(of, looks, now);
                } else {
                    self.in_doubt(of, now, out);
                }
            }
        }
    }

    pub(super) fn unknown(&mut self, operation: Operation, out: Out<'_>) {
        let barred = self.op().barred.take().map_or_else(String::new, |why| format!("; {why}"));
        let name = self.spec().name.clone();
        let why = format!("nobody knows whether {operation} of `{name}` was done; look at the target{barred}");
        self.end(operation, ActionOutcome::Unknown, why.clone(), Image::new(), out);
        let left = self.left();
        let why = if left.is_empty() { why } else { format!("{why}; left as they are: {left}") };
        self.over(Finish::Unknown { why }, out);
    }

    pub(super) fn over(&mut self, finish: Finish, out: Out<'_>) {
        if std::mem::take(&mut self.watched) {
            out.push(Effect::Unwatch(self.plan.verification.kpi.clone()));
        }
        self.phase = Phase::Over;
        self.finish = Some(finish.clone());
        out.push(Effect::Finished(finish));
    }

    /// The step cannot go on: what was changed is taken back, or a person must act.
    pub(super) fn halt(&mut self, operation: Operation, halt: Halt, why: String, out: Out<'_>, now: Timestamp) {
        let why = format!("`{}`: {why}", self.spec().name);
        match &self.mode {
            Mode::Stopping { why: stop } => {
                let why = format!("{stop}; {why}");
                self.stopped(&why, out);
            }
            Mode::Undoing { why: first } => {
                debug_assert!(operation == Operation::Undo, "nothing else is ordered while undoing");
                let why = format!("{first}; then {why}; left as they are: {}", self.left());
                self.over(Finish::Failed { why }, out);
            }
            Mode::Forward if self.has_changed() => self.undo(why, out, now),
            Mode::Forward => {
                let finish = match halt {
                    Halt::Refused => Finish::Refused { why },
                    Halt::Failed => Finish::Failed { why },
                };
                self.over(finish, out);
            }
        }
    }

    /// It was told to stop, and nothing is under way any more.
    pub(super) fn stopped(&mut self, why: &str, out: Out<'_>) {
        let left = self.left();
        let finish = if left.is_empty() && self.steps.iter().any(|s| s.undone) {
            Finish::UndoneThenEscalate { why: why.to_owned() }
        } else if left.is_empty() {
            Finish::Refused { why: why.to_owned() }
        } else {
            Finish::Failed { why: format!("{why}; left as they are: {left}") }
        };
        self.over(finish, out);
    }

    /// Takes back all that was changed, last first.
    pub(super) fn undo(&mut self, why: String, out: Out<'_>, now: Timestamp) {
        self.mode = Mode::Undoing { why };
        self.undo_next(out, now);
    }

    pub(super) fn undo_next(&mut self, out: Out<'_>, now: Timestamp) {
        let Mode::Undoing { why } = &self.mode else { return };
        let why = why.clone();
        let next = self
            .steps
            .iter()
            .zip(&self.plan.steps)
            .rposition(|(state, spec)| state.touched && !state.undone && spec.rollback != Rollback::Nothing);
        match next {
            None if self.steps.iter().any(|s| s.undone) => self.over(Finish::UndoneThenEscalate { why }, out),
            None => self.over(Finish::Failed { why: format!("{why}; there is nothing to take back") }, out),
            Some(at) if self.plan.steps[at].rollback == Rollback::Impossible => {
                let name = &self.plan.steps[at].name;
                let why = format!("{why}; `{name}` cannot be taken back, a person must decide; left: {}", self.left());
                self.over(Finish::Failed { why }, out);
            }
            Some(at) => {
                self.at = at;
                self.enter_op(Operation::Undo, now, out);
            }
        }
    }

    pub(super) fn abort(&mut self, why: String, now: Timestamp, out: Out<'_>) {
        let why = format!("stopped: {why}");
        if matches!(self.phase, Phase::Rehearsed { .. }) {
            // That it passed was said already.
            (self.phase, self.watched) = (Phase::Over, false);
            out.push(Effect::Unwatch(self.plan.verification.kpi.clone()));
            return;
        }
        if self.is_stopping() {
            return;
        }
        self.mode = Mode::Stopping { why: why.clone() };
        match &self.phase {
            Phase::Ordered { action } if action.operation == Operation::Observe || action.operation.changes() => {}
            Phase::Ordered { action } => {
                let operation = action.operation;
                self.end(operation, ActionOutcome::Refused, why.clone(), Image::new(), out);
                self.stopped(&why, out);
            }
            Phase::Settling { .. } => {}
            Phase::Asking { operation, .. } | Phase::Waiting { operation, .. } if self.steps[self.at].op.doubt => {
                let operation = *operation;
                self.in_doubt(operation, now, out);
            }
            _ => self.stopped(&why, out),
        }
    }

    pub(super) fn recovered(&mut self, fence: u64, worker: String, now: Timestamp, out: Out<'_>) {
        if fence < self.options.fence {
            return;
        }
        self.options.fence = fence;
        self.options.worker = worker;
        if !self.plan.is_sealed() {
            let why = "the plan that was read back is not what its hash says; nothing more is done".into();
            return self.over(Finish::Unknown { why }, out);
        }
        self.watched = true;
        out.push(Effect::Watch(self.plan.verification.kpi.clone()));
        // While we were away nobody took readings: that they are missing says nothing.
        let again = now + row_takes(&self.plan.verification);
        match &mut self.phase {
            Phase::Ordered { action } if action.operation.changes() => {
                let operation = action.operation;
                self.in_doubt(operation, now, out);
            }
            Phase::Ordered { action } => {
                let (operation, of) = (action.operation, operation_of(&action.key));
                if operation == Operation::DryRun && !self.options.synthetic {
                    let why = "interrupted; the target is read again first".to_owned();
                    self.end(operation, ActionOutcome::Failed, why, Image::new(), out);
                    self.enter_op(Operation::Prepare, now, out);
                } else {
                    self.order(operation, of.unwrap_or(operation), now, out);
                }
            }
            Phase::Asking { operation, .. } | Phase::Waiting { operation, .. } => {
                let operation = *operation;
                let StepState { touched, op, .. } = &self.steps[self.at];
                let fresh = !touched && !op.doubt && matches!(operation, Operation::Canary | Operation::Apply);
                if fresh && matches!(self.mode, Mode::Forward) {
                    // The world may have changed since it was read.
                    self.enter_op(Operation::Prepare, now, out);
                } else if matches!(self.phase, Phase::Asking { .. }) {
                    self.go(operation, now, out);
                }
            }
            Phase::Baseline { until } | Phase::Watching { until, .. } | Phase::Verifying { until, .. } => {
                *until = again.max(*until);
            }
            Phase::Settling { .. } | Phase::Rehearsed { .. } | Phase::Over => {}
        }
    }
}
