//! The checks, a module for each group of the check list. A check reads the world and gives drafts of findings; it never
//! decides whether another fault explains its own: it names what could ([`crate::Finding::explained_by`]).
//!
//! Rules for all of them: a kind that could not be seen is never "missing" ([`crate::Look`]); what is young and on its
//! way is no fault; the whole event history counts, not the newest event; current and last container state both count.

mod around;
mod config;
pub mod history;
mod network;
mod nodes;
mod pods;
mod policy;
mod storage;
mod words;
mod workloads;

use crate::{Context, Finding};

/// Runs every check.
pub fn run(cx: &Context<'_>, out: &mut Vec<Finding>) {
    pods::run(cx, out);
    workloads::run(cx, out);
    network::run(cx, out);
    storage::run(cx, out);
    nodes::run(cx, out);
    policy::run(cx, out);
    config::run(cx, out);
    around::run(cx, out);
}
