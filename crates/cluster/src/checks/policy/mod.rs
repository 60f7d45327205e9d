//! Quotas, access, policies, budgets.

mod budget;
mod quota;
pub(in crate::checks) mod rbac;
mod reports;
mod security;
mod signing;
mod stale;
mod violation;

use crate::{Context, Finding};

/// Runs the checks of this group.
pub(super) fn run(cx: &Context<'_>, out: &mut Vec<Finding>) {
    let all = super::workloads::kinds::workloads(cx);
    quota::run(cx, out);
    security::run(cx, out);
    rbac::run(cx, out);
    let verdicts = reports::run(cx, out);
    violation::run(cx, &verdicts, out);
    signing::run(cx, out);
    stale::run(cx, out);
    budget::run(cx, &all, out);
}
