//! One plan carried out: a pure state machine that is checkpointed after every step.
//!
//! Lives here: what is ordered next, when, and what follows from each answer; what may be done about an order whose
//! outcome nobody knows; how a plan is verified and taken back. Beside it: `machine` (the transitions), `doubt` (what
//! nobody knows, undoing, endings), `watch` (deadlines and readings), `kpi` (good readings in a row, canaries that made
//! it worse), `key` (idempotency keys).
//!
//! Never here: choices, I/O, a clock. Targets and values are the plan's, leave to change anything is the guard's.
//!
//! # The order of things
//! `prepare → dry-run → (canary → watch) → apply` for each step, then `verify`, or `undo` in reverse order.
//! Every operation but a look is intended first: [`Effect::Intend`] and [`Effect::Order`] come from one
//! [`Execution::step`]; the caller commits the intent **with this execution's new state** and hands the order out after
//! that. Each intent ends in exactly one [`Effect::End`] under its key.
//!
//! # When nobody knows
//! An order without an answer (a crash, a time-out, a connection that broke) is in doubt. The rule (design §10):
//!
//! | actuator | what is done |
//! | --- | --- |
//! | observable | observed; found done: recorded; found not done: applied again under the same key |
//! | idempotent | applied again under the same key |
//! | both | observed at once, else applied again |
//! | neither | `unknown`: never repeated, a person must look |
//!
//! "Found not done" counts for good only once the order's deadline has passed: until then it may still arrive. So what
//! is observable and not idempotent is observed after the deadline. An error that says "not done" of a second
//! attempt says nothing of a first one that is in doubt.

mod doubt;
mod key;
mod kpi;
mod machine;
mod watch;

pub use key::{KEY_BYTES_MAX, key_of, operation_of};

use crate::Declares;
use kpi::Row;
use nightshift_guard::Permit;
use nightshift_model::{
    Action, ActionOutcome, ActionType, Image, Kpi, KpiReading, Operation, Plan, PlanStep, Rollback, Timestamp,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Duration;

/// How often an operation that failed for the moment is tried in all.
pub const ATTEMPTS_MAX: u32 = 3;

/// How long an answer may come after its order's deadline before it counts as none. The executor gives up at the
/// deadline; this is for an executor that is gone.
const GRACE: Duration = Duration::from_secs(5);

/// No answer of the guard or of a person until then is a denial.
const PERMIT_WAIT: Duration = Duration::from_secs(300);

/// A sample may be dated this far ahead of us; one further ahead would pass for one taken after the fix.
const CLOCK_AHEAD: Duration = Duration::from_secs(5);

/// Readings that are kept as what was before a canary.
const BASELINE: usize = 5;

/// How a plan is carried out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Options {
    /// Nothing is changed: prepare and dry-run only.
    pub dry_run: bool,
    /// Made by a test injection: implies `dry_run`, and nothing is looked at either.
    pub synthetic: bool,
    /// Fencing token of the worker: the epoch of its lease.
    pub fence: u64,
    /// Who does it.
    pub worker: String,
    /// What each configured actuator promises, by name (`Executor::declares`).
    pub actuators: BTreeMap<String, Declares>,
}

/// Something that happened.
#[derive(Debug)]
pub enum Event {
    /// The guard lets the operation through that was asked for.
    Permitted(Permit),
    /// It does not.
    Denied {
        /// Every reason, one line.
        why: String,
    },
    /// An order was answered. Build it with [`Event::ended`].
    Ended {
        /// Of the order.
        key: String,
        /// Of the order: an observation has the key of what it looks for.
        operation: Operation,
        /// Of the order.
        attempt: u32,
        /// Of the order: answers to orders of an earlier worker are ignored.
        fence: u64,
        /// What came of it.
        result: Result<crate::Answer, crate::ActError>,
    },
    /// The KPI was read.
    Reading {
        /// Which.
        kpi: Kpi,
        /// When the sample was taken.
        at: Timestamp,
        /// In the unit of the signal.
        value: f64,
    },
    /// Time went by; [`Execution::due`] says when it matters.
    Tick,
    /// This execution was read back after a crash, or another worker took it over.
    Recovered {
        /// Fencing token of the worker that goes on.
        fence: u64,
        /// Who it is.
        worker: String,
    },
    /// Stop: the kill switch, or a person. What is under way is waited for; nothing is begun, nothing taken back.
    Abort {
        /// Why, one line.
        why: String,
    },
}

impl Event {
    /// The answer to an order.
    pub fn ended(order: &Action, result: Result<crate::Answer, crate::ActError>) -> Self {
        Self::Ended {
            key: order.key.clone(),
            operation: order.operation,
            attempt: order.attempt,
            fence: order.fence,
            result,
        }
    }
}

/// Something to do or to write down, in this order.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// Ask the guard for a [`Permit`]; answer with [`Event::Permitted`] or [`Event::Denied`].
    AskPermit {
        /// Which step, from 0.
        step: u32,
        /// Which part of it.
        operation: Operation,
    },
    /// Journal this before the order that follows is handed out.
    Intend(Box<Action>),
    /// Hand this to the executor, once all effects of this step and the new state are durable.
    Order(Box<Action>),
    /// Journal this: how an intent ended.
    End {
        /// Key of the intent.
        key: String,
        /// How it ended.
        outcome: ActionOutcome,
        /// One line for people.
        detail: String,
        /// The target afterwards, of what the step touches.
        image: Image,
    },
    /// Readings of this are wanted from now on. May be said again; is the same wish.
    Watch(Kpi),
    /// They are no longer.
    Unwatch(Kpi),
    /// The KPI is as the plan promised.
    Verified {
        /// The readings that say so.
        readings: Vec<KpiReading>,
        /// Whether anything was changed before.
        executed: bool,
    },
    /// It did not come back in time, or a canary made it worse.
    VerificationFailed {
        /// The newest readings.
        readings: Vec<KpiReading>,
        /// Why, one line.
        why: String,
    },
    /// It is over. Said once, but for [`Finish::DryRunPassed`], which a [`Finish::Verified`] may follow.
    Finished(Finish),
}

/// How it ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Finish {
    /// All that can be tried without effect was, and passed; nothing was changed. Readings are still taken: when the
    /// signal recovers by itself, [`Effect::Verified`] and [`Finish::Verified`] follow. [`Event::Abort`] ends that.
    DryRunPassed,
    /// The KPI is back.
    Verified,
    /// It did not help or could not go on, and all that was changed is as it was before.
    UndoneThenEscalate {
        /// Why, one line.
        why: String,
    },
    /// Nothing was changed: the plan, the world, a dry-run or the guard said no.
    Refused {
        /// Why, one line.
        why: String,
    },
    /// Something is changed and stays so, or was tried and did not work; a person must act.
    Failed {
        /// Why and what is left, one line.
        why: String,
    },
    /// Nobody can say whether a step was done; a person must look.
    Unknown {
        /// Which and why, one line.
        why: String,
    },
    /// The plan asks a person to do something and does nothing itself.
    AsksPerson {
        /// What, one line.
        what: String,
    },
}

impl Finish {
    /// A few, stable words: for metrics.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::DryRunPassed => "dry_run_passed",
            Self::Verified => "verified",
            Self::UndoneThenEscalate { .. } => "undone",
            Self::Refused { .. } => "refused",
            Self::Failed { .. } => "failed",
            Self::Unknown { .. } => "unknown",
            Self::AsksPerson { .. } => "asks_person",
        }
    }
}

/// Where one step stands.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
struct StepState {
    /// The target before the step, of what it touches.
    before: Image,
    /// The target after it, as far as it was told.
    after: Image,
    /// It was applied.
    done: bool,
    /// It changed something, or may have: to be taken back.
    touched: bool,
    /// It was taken back.
    undone: bool,
    /// Orders handed out so far, by operation: the attempt of the next is one more.
    orders: BTreeMap<Operation, u32>,
    /// Of the operation that it is at.
    op: OpState,
}

/// Where the operation stands that a step is at.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
struct OpState {
    /// There is an intent without an end.
    open: bool,
    /// It may have been done, nobody knows.
    doubt: bool,
    /// Answers so far that said neither done nor never.
    failures: u32,
    /// Observations without an answer.
    looks: u32,
    /// After this the newest order that changes something has arrived, or never will.
    settled_at: Timestamp,
    /// It may not be tried again, for this reason.
    barred: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Mode {
    Forward,
    Undoing { why: String },
    Stopping { why: String },
}

/// What it waits for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Phase {
    /// An answer to this order.
    Ordered { action: Box<Action> },
    /// The guard.
    Asking { operation: Operation, since: Timestamp, asked: u32 },
    /// The time to try again.
    Waiting { operation: Operation, until: Timestamp },
    /// The end of the time in which an order that is in doubt may still arrive.
    Settling { operation: Operation, until: Timestamp },
    /// A reading from before the canary.
    Baseline { until: Timestamp },
    /// What the canary does to the KPI.
    Watching { operation_ended: Timestamp, until: Timestamp, baseline: f64, seen: Vec<KpiReading> },
    /// Good readings.
    Verifying { since: Timestamp, until: Timestamp, row: Row },
    /// Good readings, though nothing was done.
    Rehearsed { since: Timestamp, row: Row },
    /// Nothing.
    Over,
}

/// A plan that is being carried out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Execution {
    plan: Plan,
    options: Options,
    steps: Vec<StepState>,
    /// The step that it is at.
    at: usize,
    mode: Mode,
    phase: Phase,
    /// The newest readings, oldest first.
    recent: Vec<KpiReading>,
    finish: Option<Finish>,
    /// Readings were asked for.
    watched: bool,
}

impl Execution {
    /// Begins to carry a plan out.
    pub fn begin(plan: Plan, mut options: Options, now: Timestamp) -> (Self, Vec<Effect>) {
        options.dry_run |= options.synthetic;
        let steps = vec![StepState::default(); plan.steps.len()];
        let mut execution = Self {
            plan,
            options,
            steps,
            at: 0,
            mode: Mode::Forward,
            phase: Phase::Over,
            recent: Vec::new(),
            finish: None,
            watched: false,
        };
        let mut out = Vec::new();
        execution.start(now, &mut out);
        (execution, out)
    }

    /// Takes in what happened; gives what follows. Events that do not belong to what it waits for change nothing.
    pub fn step(&mut self, event: Event, now: Timestamp) -> Vec<Effect> {
        let mut out = Vec::new();
        self.take(event, now, &mut out);
        out
    }

    /// What is carried out.
    pub const fn plan(&self) -> &Plan {
        &self.plan
    }

    /// How.
    pub const fn options(&self) -> &Options {
        &self.options
    }

    /// How it ended; `None` while it goes on.
    pub const fn finish(&self) -> Option<&Finish> {
        self.finish.as_ref()
    }

    /// Whether nothing that happens matters any more. After [`Finish::DryRunPassed`] readings still do.
    pub const fn is_over(&self) -> bool {
        matches!(self.phase, Phase::Over)
    }

    /// The order whose answer it waits for.
    pub fn in_flight(&self) -> Option<&Action> {
        match &self.phase {
            Phase::Ordered { action } => Some(action),
            _ => None,
        }
    }

    /// Whether a step was applied, wholly or in part, and not taken back.
    pub fn has_changed(&self) -> bool {
        self.steps.iter().any(|s| s.touched && !s.undone)
    }

    /// Whether it is past its last step and waits for the KPI.
    pub const fn is_verifying(&self) -> bool {
        matches!(self.phase, Phase::Verifying { .. } | Phase::Rehearsed { .. })
    }

    /// When time alone changes something: send [`Event::Tick`] then. `None`: never.
    pub fn due(&self) -> Option<Timestamp> {
        match &self.phase {
            Phase::Ordered { action } => Some(action.deadline + GRACE),
            Phase::Asking { since, .. } => Some(*since + PERMIT_WAIT),
            Phase::Waiting { until, .. }
            | Phase::Settling { until, .. }
            | Phase::Baseline { until }
            | Phase::Watching { until, .. }
            | Phase::Verifying { until, .. } => Some(*until),
            Phase::Rehearsed { .. } | Phase::Over => None,
        }
    }

    /// Where it stands, one line for people.
    pub fn status(&self) -> String {
        let step = || {
            let name = self.plan.steps.get(self.at).map_or("", |s| s.name.as_str());
            format!("step {} of {} ({name})", self.at + 1, self.plan.steps.len())
        };
        match &self.phase {
            Phase::Ordered { action } => format!("{}: {} under way", step(), action.operation),
            Phase::Asking { operation, .. } => format!("{}: asks whether it may {operation}", step()),
            Phase::Waiting { operation, .. } => format!("{}: waits to try {operation} again", step()),
            Phase::Settling { operation, .. } => format!("{}: waits to see whether {operation} arrived", step()),
            Phase::Baseline { .. } => format!("{}: waits for a reading before the canary", step()),
            Phase::Watching { .. } => format!("{}: watches the canary", step()),
            Phase::Verifying { row, .. } => {
                format!("verifies: {} of {} good readings", row.good(), self.plan.verification.readings.max(1))
            }
            Phase::Rehearsed { .. } => "rehearsed; nothing was executed, the signal is watched".into(),
            Phase::Over => self.finish.as_ref().map_or_else(String::new, |f| f.as_str().to_owned()),
        }
    }

    fn spec(&self) -> &PlanStep {
        &self.plan.steps[self.at]
    }

    fn state(&mut self) -> &mut StepState {
        &mut self.steps[self.at]
    }

    fn op(&mut self) -> &mut OpState {
        &mut self.steps[self.at].op
    }

    fn declares(&self) -> Declares {
        if self.options.synthetic {
            return Declares { idempotent: true, observable: false, dry_run: true, canary: false };
        }
        self.options.actuators.get(&self.spec().actuator).copied().unwrap_or_default()
    }

    /// The key of an operation of the step that it is at.
    fn key(&self, operation: Operation) -> String {
        key_of(self.plan.incident, self.plan.hash, step_number(self.at), operation)
    }

    /// Names of the steps that are changed and not taken back.
    fn left(&self) -> String {
        let touched = self.steps.iter().zip(&self.plan.steps).filter(|(s, _)| s.touched && !s.undone);
        touched.map(|(_, spec)| spec.name.as_str()).collect::<Vec<_>>().join(", ")
    }

    /// Whether the step's change can be put back.
    fn restores(&self) -> bool {
        self.spec().rollback == Rollback::Restore
    }
}

/// A step's number as it is written.
fn step_number(at: usize) -> u32 {
    u32::try_from(at).unwrap_or(u32::MAX)
}

/// Whether a step is done by a person.
fn is_manual(step: &PlanStep) -> bool {
    step.action == ActionType::ManualReview
}
