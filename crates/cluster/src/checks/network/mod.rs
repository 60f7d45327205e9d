//! Services, routes, network policies, cluster DNS, webhooks.

use crate::{Context, Finding};

/// Runs the checks of this group.
pub(super) fn run(_cx: &Context<'_>, _out: &mut Vec<Finding>) {}
