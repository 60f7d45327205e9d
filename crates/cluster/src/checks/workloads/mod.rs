//! Deployments, sets, jobs, autoscalers, disruption budgets.

use crate::{Context, Finding};

/// Runs the checks of this group.
pub(super) fn run(_cx: &Context<'_>, _out: &mut Vec<Finding>) {}
