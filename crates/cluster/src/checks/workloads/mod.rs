//! Deployments, sets, jobs, autoscalers, disruption budgets.

mod advice;
mod budget;
mod create;
mod cron;
mod daemon;
mod deployment;
mod hpa;
mod job;
pub(in crate::checks) mod kinds;
pub(in crate::checks) mod refusal;
mod schedule;
mod stateful;
mod strategy;
mod zero;

use crate::{Context, Finding};

/// Runs the checks of this group.
pub(super) fn run(cx: &Context<'_>, out: &mut Vec<Finding>) {
    let all = kinds::workloads(cx);
    deployment::run(cx, out);
    create::run(cx, out);
    stateful::run(cx, out);
    daemon::run(cx, &all, out);
    strategy::run(cx, out);
    zero::run(cx, &all, out);
    job::run(cx, out);
    cron::run(cx, out);
    hpa::run(cx, out);
    budget::run(cx, &all, out);
    if cx.options.advice {
        advice::run(&all, out);
    }
}
