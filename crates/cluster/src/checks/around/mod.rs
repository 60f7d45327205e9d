//! Software around the cluster: GitOps, Helm, operators, certificates, databases, meshes, cost.

mod certificates;
mod cost;
mod databases;
mod flux;
mod gitops;
mod helm;
mod mesh;
mod monitoring;
mod operators;
mod scalers;

use crate::objects::{Condition, Custom};
use crate::{Context, Finding, ObjectRef};

/// Runs the checks of this group.
pub(super) fn run(cx: &Context<'_>, out: &mut Vec<Finding>) {
    gitops::run(cx, out);
    flux::run(cx, out);
    helm::run(cx, out);
    scalers::run(cx, out);
    operators::run(cx, out);
    monitoring::run(cx, out);
    certificates::run(cx, out);
    databases::run(cx, out);
    mesh::run(cx, out);
    cost::run(cx, out);
}

/// Every object of a kind of other software.
fn all<'a>(cx: &Context<'a>, group: &str, kind: &str) -> impl Iterator<Item = &'a Custom> {
    cx.world.customs(group, kind).into_iter().flat_map(|table| table.iter())
}

/// The object's name with its kind.
fn named(object: &Custom) -> ObjectRef {
    ObjectRef::of(&object.kind, &object.metadata)
}

/// What a condition says, for people: its message, else its reason.
fn words(condition: &Condition) -> &str {
    if condition.message.is_empty() { &condition.reason } else { &condition.message }
}

/// Whether a controller has not yet looked at the newest specification: its conditions are about an older one.
fn outdated(object: &Custom, condition: &Condition) -> bool {
    let seen =
        condition.observed_generation.or_else(|| object.status.get("observedGeneration").and_then(|g| g.as_i64()));
    seen.is_some_and(|g| g < object.metadata.generation)
}
