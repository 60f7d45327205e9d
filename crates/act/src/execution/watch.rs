//! Time and readings: deadlines that pass, canaries that are watched, and the KPI that comes back or does not.

use super::kpi::{is_worse, median, row_takes};
use super::machine::{Halt, Out};
use super::{ATTEMPTS_MAX, BASELINE, CLOCK_AHEAD, Effect, Execution, Finish, GRACE, PERMIT_WAIT, Phase};
use crate::ActError;
use nightshift_model::{Kpi, KpiReading, Operation, Timestamp};
use std::time::Duration;

impl Execution {
    pub(super) fn tick(&mut self, now: Timestamp, out: Out<'_>) {
        match &self.phase {
            Phase::Ordered { action } if now >= action.deadline + GRACE => {
                let (operation, key) = (action.operation, action.key.clone());
                let why = "no answer within the deadline".to_owned();
                self.ended(operation, &key, Err(ActError::Uncertain(why)), now, out);
            }
            Phase::Asking { operation, since, .. } if now >= *since + PERMIT_WAIT => {
                let operation = *operation;
                self.denied(operation, "it gave no answer", now, out);
            }
            Phase::Waiting { operation, until } if now >= *until => {
                let operation = *operation;
                // What is in doubt and can be looked at is looked at before it is tried again.
                if self.steps[self.at].op.doubt && self.declares().observable && self.op().looks < ATTEMPTS_MAX {
                    self.in_doubt(operation, now, out);
                } else {
                    self.go(operation, now, out);
                }
            }
            Phase::Settling { operation, until } if now >= *until => {
                let operation = *operation;
                self.order(Operation::Observe, operation, now, out);
            }
            Phase::Baseline { until } if now >= *until => {
                let why = "a canary cannot be judged: the KPI has no readings".to_owned();
                self.halt(Operation::Canary, Halt::Refused, why, out, now);
            }
            Phase::Watching { until, .. } if now >= *until => self.judge_canary(now, out),
            Phase::Verifying { until, row, .. } if now >= *until => {
                let readings = row.newest().to_vec();
                let (want, kpi) = (self.plan.verification.readings.max(1), &self.plan.verification.kpi.signal);
                let why = match readings.last() {
                    None => format!("no reading of {kpi} came in time; that is no sign of health"),
                    Some(last) if last.good => {
                        format!("{kpi} was good only {} times in a row in time, not {want}", row.good())
                    }
                    Some(last) => format!("{kpi} is {:.4} and should be {}", last.value, self.promise()),
                };
                out.push(Effect::VerificationFailed { readings, why: why.clone() });
                self.undo(why, out, now);
            }
            _ => {}
        }
    }

    /// What the plan promises, for people.
    pub(super) fn promise(&self) -> String {
        let v = &self.plan.verification;
        let word = match v.compare {
            nightshift_model::Compare::Below => "at most",
            nightshift_model::Compare::Above => "at least",
        };
        format!("{word} {:.4}", v.threshold)
    }

    pub(super) fn reading(&mut self, kpi: &Kpi, at: Timestamp, value: f64, now: Timestamp, out: Out<'_>) {
        let promise = &self.plan.verification;
        let news = self.recent.last().is_none_or(|last| at > last.at);
        if *kpi != promise.kpi || !news || at > now + CLOCK_AHEAD {
            return;
        }
        let reading = KpiReading { at, value, good: promise.is_good(value) };
        if self.recent.len() == BASELINE {
            self.recent.remove(0);
        }
        self.recent.push(reading.clone());
        match &mut self.phase {
            Phase::Baseline { .. } => self.enter_op(Operation::Canary, now, out),
            Phase::Watching { operation_ended, baseline, seen, .. } if at > *operation_ended => {
                seen.push(reading);
                if seen.len() > BASELINE {
                    seen.remove(0);
                }
                // Three in a row are enough: it is not made worse until the end.
                let worse = seen.iter().rev().take(3).filter(|r| is_worse(r.value, *baseline, promise)).count();
                if worse == 3 {
                    self.canary_failed(now, out);
                }
            }
            Phase::Verifying { since, until, row } if at > *since && at <= *until => {
                let whole = row.push(at, value, promise).then(|| row.take_good());
                self.verified(whole, out);
            }
            Phase::Rehearsed { since, row } if at > *since => {
                let whole = row.push(at, value, promise).then(|| row.take_good());
                self.verified(whole, out);
            }
            _ => {}
        }
    }

    pub(super) fn verified(&mut self, whole: Option<Vec<KpiReading>>, out: Out<'_>) {
        let Some(readings) = whole else { return };
        out.push(Effect::Verified { readings, executed: self.has_changed() });
        self.over(Finish::Verified, out);
    }

    /// The canary was watched for as long as the plan says.
    pub(super) fn judge_canary(&mut self, now: Timestamp, out: Out<'_>) {
        let Phase::Watching { operation_ended, baseline, seen, .. } = &self.phase else { return };
        let watch = Duration::from_secs(u64::from(self.spec().canary.as_ref().map_or(0, |c| c.watch_secs)));
        let wait = row_takes(&self.plan.verification);
        match median(seen.iter().map(|r| r.value)) {
            // A reading may be under way.
            None if now < *operation_ended + watch + wait && seen.is_empty() => {
                let (operation_ended, baseline) = (*operation_ended, *baseline);
                let until = operation_ended + watch + wait;
                self.phase = Phase::Watching { operation_ended, until, baseline, seen: Vec::new() };
            }
            Some(value) if !is_worse(value, *baseline, &self.plan.verification) => {
                self.enter_op(Operation::Apply, now, out);
            }
            _ => self.canary_failed(now, out),
        }
    }

    pub(super) fn canary_failed(&mut self, now: Timestamp, out: Out<'_>) {
        let Phase::Watching { baseline, seen, .. } = &self.phase else { return };
        let signal = &self.plan.verification.kpi.signal;
        let why = match seen.last() {
            Some(last) => format!("the canary made {signal} worse: {:.4}, before {baseline:.4}", last.value),
            None => format!("the canary cannot be judged: no reading of {signal} came; that is no sign of health"),
        };
        out.push(Effect::VerificationFailed { readings: seen.clone(), why: why.clone() });
        self.undo(why, out, now);
    }
}
