//! Events of policy engines: objects that break a policy, and requests that were blocked.

use super::reports::{Verdicts, is_gone, told, top};
use crate::checks::workloads::refusal::{between, clip};
use crate::objects::Event;
use crate::{Context, Finding, ObjectRef};
use std::collections::BTreeMap;

/// Runs the checks.
pub(super) fn run(cx: &Context<'_>, verdicts: &Verdicts, out: &mut Vec<Finding>) {
    let mut by_object: BTreeMap<ObjectRef, Vec<(String, &Event)>> = BTreeMap::new();
    for event in cx.world.events.iter().filter(|e| e.reason == "PolicyViolation") {
        let Some((named, policy)) = read(event) else { continue };
        // A report that is newer than the event says that it is mended.
        if verdicts.get(&(named.clone(), policy.clone())) == Some(&false) {
            continue;
        }
        let blocked = event.message.contains("blocked");
        let object = if is_gone(cx, &named) {
            if !blocked {
                continue;
            }
            maker(cx, &named)
        } else {
            top(cx, &named)
        };
        by_object.entry(object).or_default().push((policy, event));
    }
    for (object, mut events) in by_object {
        events.sort_by(|a, b| (&a.0, b.1.last_seen()).cmp(&(&b.0, a.1.last_seen())));
        let mut names: Vec<&str> = events.iter().map(|(p, _)| p.as_str()).collect();
        names.dedup();
        let Some((policy, first)) = events.first() else { continue };
        let why = format!("{policy}: {}", clip(&first.message).split_whitespace().collect::<Vec<_>>().join(" "));
        let finding =
            told(cx, &object, policy, &why, &names).since(events.iter().filter_map(|(_, e)| e.first_seen()).min());
        out.push(events.iter().fold(finding, |f, (_, event)| f.event(event)));
    }
}

const POLICY_KINDS: [&str; 8] = [
    "ClusterPolicy",
    "Policy",
    "ValidatingPolicy",
    "NamespacedValidatingPolicy",
    "ImageValidatingPolicy",
    "MutatingPolicy",
    "GeneratingPolicy",
    "ValidatingAdmissionPolicy",
];

/// The object that breaks a policy, and the policy.
fn read(event: &Event) -> Option<(ObjectRef, String)> {
    let about = &event.involved_object;
    let message = clip(&event.message);
    if POLICY_KINDS.contains(&about.kind.as_str()) {
        let policy = if about.namespace.is_empty() || about.kind == "ClusterPolicy" {
            about.name.clone()
        } else {
            format!("{}/{}", about.namespace, about.name)
        };
        if let Some(other) = event.related.as_ref().filter(|r| !r.kind.is_empty() && !r.name.is_empty()) {
            return Some((ObjectRef::new(other.kind.clone(), other.namespace.clone(), other.name.clone()), policy));
        }
        // `Pod shop/web: [rule] fail (blocked); …`
        let (kind, rest) = message.split_once(' ')?;
        let path = rest.split([':', ' ']).next()?;
        let (namespace, name) = path.split_once('/').unwrap_or(("", path));
        let word = |t: &str| !t.is_empty() && t.chars().all(|c| c.is_ascii_alphanumeric() || "-.".contains(c));
        let named = if word(kind) && word(name) {
            ObjectRef::new(kind, namespace, name)
        } else {
            ObjectRef::new(about.kind.clone(), about.namespace.clone(), about.name.clone())
        };
        return Some((named, policy));
    }
    if about.kind.is_empty() || about.name.is_empty() {
        return None;
    }
    let named = ObjectRef::new(about.kind.clone(), about.namespace.clone(), about.name.clone());
    // `policy require-labels/check fail: …`, `Policy 'require-labels' …`
    let after = between(message, "policy ", " ").or_else(|| between(message, "Policy ", " ")).unwrap_or_default();
    let policy = after.trim_matches(['\'', '"', ':', ',', '.']).split('/').next().unwrap_or_default();
    let policy = if policy.is_empty() { "of an admission engine" } else { policy };
    Some((named, policy.to_owned()))
}

/// Whose pod was blocked: the workload of the replica set whose name the pod's begins with, else what was named.
fn maker(cx: &Context<'_>, named: &ObjectRef) -> ObjectRef {
    if named.kind != "Pod" {
        return named.clone();
    }
    let own = cx.world.replica_sets.in_namespace(&named.namespace).find(|s| {
        named.name.strip_prefix(s.metadata.name.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
    });
    own.map_or_else(|| named.clone(), |s| cx.root_of("ReplicaSet", &s.metadata))
}
