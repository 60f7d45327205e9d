//! What changed in a workload before the trouble: from the revisions of a deployment, or what a watcher has seen.

use super::text::span;
use crate::checks::history::Record;
use crate::objects::{Container, PodSpec, Probe, ReplicaSet};
use crate::{Context, ObjectRef};
use nightshift_model::Timestamp;
use std::collections::BTreeSet;

/// The newest change of a workload's template.
pub(super) struct Change {
    /// `image of app from web:1 to web:2`, several joined by commas.
    pub(super) what: String,
    /// The image of each container before, where it changed: container, old, new.
    pub(super) images: Vec<(String, String, String)>,
    /// In words: `revision 3 changed … (2 minutes ago, by helm)`.
    pub(super) told: String,
    pub(super) at: Option<Timestamp>,
}

/// The annotation that numbers the revisions of a deployment.
const REVISION: &str = "deployment.kubernetes.io/revision";
/// Parts of a change that are told at most.
const PARTS_MAX: usize = 3;

fn revision(set: &ReplicaSet) -> i64 {
    set.metadata.annotations.get(REVISION).and_then(|r| r.parse().ok()).unwrap_or(0)
}

/// The newest change of a workload, where it can be told.
pub(super) fn of(cx: &Context<'_>, root: &ObjectRef) -> Option<Change> {
    by_revisions(cx, root).or_else(|| by_history(cx, root))
}

fn by_revisions(cx: &Context<'_>, root: &ObjectRef) -> Option<Change> {
    if root.kind != "Deployment" {
        return None;
    }
    let mut sets = cx.replica_sets(&root.namespace, &root.name).to_vec();
    sets.sort_by_key(|s| (revision(s), s.metadata.creation_timestamp));
    let (new, old) = (sets.pop()?, sets.pop()?);
    if revision(new) <= revision(old) {
        return None;
    }
    let mut parts = Vec::new();
    let images = diff(&old.spec.template.spec, &new.spec.template.spec, &mut parts);
    if parts.is_empty() {
        return None;
    }
    parts.truncate(PARTS_MAX);
    let what = parts.join(", ");
    // A revision that was rolled back to is older than the one before it: its age says nothing.
    let at = new.metadata.creation_timestamp.filter(|t| old.metadata.creation_timestamp.is_none_or(|o| o <= *t));
    let writer = cx.world.deployments.get(&root.namespace, &root.name).and_then(|d| {
        let hands = d.metadata.managed_fields.iter();
        let people = hands.filter(|m| m.subresource.is_empty() && !m.manager.contains("controller-manager"));
        people.max_by_key(|m| m.time).map(|m| m.manager.clone())
    });
    Some(Change {
        told: told(cx, &format!("revision {}", revision(new)), &what, at, writer.as_deref()),
        what,
        images,
        at,
    })
}

fn by_history(cx: &Context<'_>, root: &ObjectRef) -> Option<Change> {
    let newest = cx.world.history.of(root).rev().find_map(|(at, r)| match r {
        Record::Changed { what, who } => Some((at, what, who)),
        _ => None,
    });
    let (at, what, who) = newest?;
    let who = (!who.is_empty()).then_some(who.as_str());
    Some(Change {
        what: what.clone(),
        images: Vec::new(),
        told: told(cx, "a change", what, Some(at), who),
        at: Some(at),
    })
}

fn told(cx: &Context<'_>, subject: &str, what: &str, at: Option<Timestamp>, who: Option<&str>) -> String {
    let when = at.map(|t| format!("{} ago", span(cx.age(t))));
    let who = who.map(|w| format!("by {w}"));
    let details = [when, who].into_iter().flatten().collect::<Vec<_>>().join(", ");
    let details = if details.is_empty() { String::new() } else { format!(" ({details})") };
    format!("{subject} changed {what}{details}")
}

/// Adds what differs, most telling first; returns the images that changed.
fn diff(old: &PodSpec, new: &PodSpec, parts: &mut Vec<String>) -> Vec<(String, String, String)> {
    let mut images = Vec::new();
    let pairs = |a: &'_ PodSpec| a.init_containers.iter().chain(a.containers.iter()).cloned().collect::<Vec<_>>();
    let (before, after) = (pairs(old), pairs(new));
    for now in &after {
        let Some(was) = before.iter().find(|c| c.name == now.name) else {
            parts.push(format!("containers: {} is new", now.name));
            continue;
        };
        if was.image != now.image {
            parts.push(format!("image of {} from {} to {}", now.name, was.image, now.image));
            images.push((now.name.clone(), was.image.clone(), now.image.clone()));
        }
        container(was, now, parts);
    }
    for gone in before.iter().filter(|c| after.iter().all(|n| n.name != c.name)) {
        parts.push(format!("containers: {} is gone", gone.name));
    }
    if old.service_account_name != new.service_account_name {
        parts.push(format!("service account from {:?} to {:?}", old.service_account_name, new.service_account_name));
    }
    if old.node_selector != new.node_selector {
        parts.push(format!("node selector from `{}` to `{}`", old.node_selector, new.node_selector));
    }
    images
}

fn container(was: &Container, now: &Container, parts: &mut Vec<String>) {
    if was.command != now.command {
        let word = |c: &Option<String>| c.clone().unwrap_or_else(|| "the image's own".into());
        parts.push(format!("command of {} from {} to {}", now.name, word(&was.command), word(&now.command)));
    }
    let names = |c: &Container| c.env.iter().map(|e| e.name.clone()).collect::<BTreeSet<_>>();
    let (before, after) = (names(was), names(now));
    for name in before.difference(&after) {
        parts.push(format!("variables of {}: {name} is gone", now.name));
    }
    for name in after.difference(&before) {
        parts.push(format!("variables of {}: {name} is new", now.name));
    }
    for var in now.env.iter() {
        if was.env.iter().any(|w| w.name == var.name && w != var) {
            parts.push(format!("variable {} of {}", var.name, now.name));
        }
    }
    if was.env_from != now.env_from {
        parts.push(format!("sources of variables of {}", now.name));
    }
    for (name, a, b) in [
        ("readiness", &was.readiness_probe, &now.readiness_probe),
        ("liveness", &was.liveness_probe, &now.liveness_probe),
        ("startup", &was.startup_probe, &now.startup_probe),
    ] {
        if a != b {
            parts.push(format!("{name} probe of {} from {} to {}", now.name, probe(a.as_ref()), probe(b.as_ref())));
        }
    }
    if was.resources != now.resources {
        let memory = |c: &Container| c.resources.limits.get("memory").map(|q| super::text::bytes(q.0));
        match (memory(was), memory(now)) {
            (Some(a), Some(b)) if a != b => parts.push(format!("memory limit of {} from {a} to {b}", now.name)),
            _ => parts.push(format!("resources of {}", now.name)),
        }
    }
    if was.ports != now.ports {
        parts.push(format!("ports of {}", now.name));
    }
}

/// A probe in few words: `/healthz on port 8080`.
pub(super) fn probe(probe: Option<&Probe>) -> String {
    let Some(probe) = probe else { return "none".into() };
    let port = |t: &crate::objects::ProbeTarget| t.port.as_ref().map_or("?".to_owned(), ToString::to_string);
    if let Some(t) = &probe.http_get {
        format!("{} on port {}", if t.path.is_empty() { "/" } else { &t.path }, port(t))
    } else if let Some(t) = probe.tcp_socket.as_ref().or(probe.grpc.as_ref()) {
        format!("port {}", port(t))
    } else {
        "a command".into()
    }
}
