//! Why a selector selects nothing: which label differs, on which object, since when, and who changed it.

use super::index::{Net, Template, revision};
use crate::checks::history::Record;
use crate::objects::text::{alike, span};
use crate::objects::{Labels, Managed, Meta, Parts};
use crate::{Finding, ObjectRef};
use nightshift_model::Timestamp;

/// Why nothing has the labels.
pub(super) struct Reason {
    /// The object whose state must change.
    pub(super) object: ObjectRef,
    /// One sentence.
    pub(super) why: String,
    /// What to do.
    pub(super) fix: String,
    /// Since when.
    pub(super) since: Option<Timestamp>,
    /// What it rests on: object, field, text.
    pub(super) facts: Vec<(ObjectRef, String, String)>,
    /// The workload whose pods were meant.
    pub(super) meant: Option<ObjectRef>,
}

impl Reason {
    /// Tells it in a finding.
    pub(super) fn tell(self, finding: Finding) -> Finding {
        let mut told = finding.because(self.object, self.why).fix(self.fix).since(self.since);
        for (object, path, text) in &self.facts {
            told = told.field(object, path, text);
        }
        told
    }
}

/// Why no pod has the labels that `selecting` (an object with metadata `meta`, of which `path` is the selector) selects.
pub(super) fn reason(net: &Net<'_>, selecting: &ObjectRef, meta: &Meta, path: &str, wanted: &Labels) -> Option<Reason> {
    relabelled(net, selecting, wanted)
        .or_else(|| recorded(net, selecting, path, wanted))
        .or_else(|| nearest(net, selecting, meta, path, wanted))
}

/// `app=web` and `app=web2` where two sets of labels differ from what is wanted.
fn differs(wanted: &Labels, have: &Labels) -> Vec<(String, String, String)> {
    let differ = wanted.iter().filter(|(n, v)| have.get(n) != Some(*v));
    differ.map(|(n, v)| (n.to_owned(), v.to_owned(), have.get(n).unwrap_or_default().to_owned())).collect()
}

/// `is tier=back instead of tier=front`, or that the label is not there.
fn phrase(diff: &[(String, String, String)]) -> String {
    let parts = diff.iter().map(|(name, wanted, have)| {
        if have.is_empty() {
            format!("there is no label {name} (wanted: {wanted})")
        } else {
            format!("label {name} is {have} instead of {wanted}")
        }
    });
    parts.collect::<Vec<_>>().join(", ")
}

fn ago(net: &Net<'_>, at: Option<Timestamp>) -> String {
    at.map(|at| format!(" {} ago", span(net.cx.age(at)))).unwrap_or_default()
}

/// Who wrote a part of an object last, where the server tells.
fn writer(meta: &Meta, wrote: impl Fn(Parts) -> bool) -> Option<&Managed> {
    let by = |m: &&Managed| m.subresource.is_empty() && m.parts.is_some_and(&wrote);
    meta.managed_fields.iter().filter(by).max_by_key(|m| m.time)
}

/// A deployment whose older replica set had the labels and whose newest has not.
fn relabelled(net: &Net<'_>, selecting: &ObjectRef, wanted: &Labels) -> Option<Reason> {
    let world = net.cx.world;
    for template in net.templates(&selecting.namespace).iter().filter(|t| t.root.kind == "Deployment") {
        let root = &template.root;
        let mut sets: Vec<_> = net.cx.replica_sets(&root.namespace, &root.name).to_vec();
        sets.sort_by_key(|s| (revision(s), s.metadata.creation_timestamp, &s.metadata.name));
        let Some(old) = sets.iter().rev().find(|s| s.spec.template.metadata.labels.has_all(wanted)) else { continue };
        let diff = differs(wanted, &template.labels);
        // Labels that a pod gets when it is made were never in the template.
        if diff.is_empty() {
            continue;
        }
        let new = sets.iter().rev().find(|s| {
            revision(s) >= revision(old)
                && s.metadata.name != old.metadata.name
                && diff.iter().all(|(n, _, have)| s.spec.template.metadata.labels.get(n).unwrap_or_default() == have)
        });
        let deployment = world.deployments.get(&root.namespace, &root.name);
        let by = deployment.and_then(|d| writer(&d.metadata, |p| p.template_labels));
        let since = new.and_then(|s| s.metadata.creation_timestamp);
        let who = by.map(|m| format!(" (by {})", m.manager)).unwrap_or_default();
        let changes = diff.iter().map(|(name, from, to)| {
            if to.is_empty() {
                format!("removed label {name}={from}")
            } else {
                format!("changed label {name} from {from} to {to}")
            }
        });
        let changes = changes.collect::<Vec<_>>().join(" and ");
        let (name, value) = diff.first().map(|(n, v, _)| (n.as_str(), v.as_str())).unwrap_or_default();
        let mut facts = vec![(
            ObjectRef::of("ReplicaSet", &old.metadata),
            "spec.template.metadata.labels".to_owned(),
            format!("{} (revision {})", old.spec.template.metadata.labels, revision(old)),
        )];
        facts.push((root.clone(), "spec.template.metadata.labels".to_owned(), template.labels.to_string()));
        return Some(Reason {
            object: root.clone(),
            why: format!(
                "{root} {changes} in its pod template{}{who}, so the selector {wanted} matches no pod",
                ago(net, since)
            ),
            fix: format!(
                "Set label {name}={value} in the pod template of {root} again (kubectl -n {} rollout undo deployment/{}), or change the selector of {selecting} to the new labels.",
                root.namespace, root.name
            ),
            since,
            facts,
            meant: Some(root.clone()),
        });
    }
    None
}

/// What a watcher saw change: the labels of a workload, or the selector itself.
fn recorded(net: &Net<'_>, selecting: &ObjectRef, path: &str, wanted: &Labels) -> Option<Reason> {
    let history = &net.cx.world.history;
    for (at, record) in history.of(selecting).rev() {
        if let Record::Labels { from, to } = record {
            let who = history.of(selecting).rev().find_map(|(when, r)| match r {
                Record::Changed { who, .. } if when == at && !who.is_empty() => Some(format!(" by {who}")),
                _ => None,
            });
            return Some(Reason {
                object: selecting.clone(),
                why: format!(
                    "its selector was changed from {from} to {to}{}{}",
                    ago(net, Some(at)),
                    who.unwrap_or_default()
                ),
                fix: format!("Set the selector of {selecting} back to {from}."),
                since: Some(at),
                facts: vec![(selecting.clone(), path.to_owned(), wanted.to_string())],
                meant: None,
            });
        }
    }
    for object in history.objects().filter(|o| o.namespace == selecting.namespace && *o != selecting) {
        for (at, record) in history.of(object).rev() {
            let Record::Labels { from, to } = record else { continue };
            let (before, after) = (read_labels(from), read_labels(to));
            if before.has_all(wanted) && !after.has_all(wanted) {
                let diff = differs(wanted, &after);
                let root = net.templates(&object.namespace).iter().find(|t| t.root == *object);
                return Some(Reason {
                    object: object.clone(),
                    why: format!("the labels of {object} were changed{}: {}", ago(net, Some(at)), phrase(&diff)),
                    fix: format!("Set the labels of {object} back to {from}, or change the selector of {selecting}."),
                    since: Some(at),
                    facts: vec![(selecting.clone(), path.to_owned(), wanted.to_string())],
                    meant: root.map(|t| t.root.clone()),
                });
            }
        }
    }
    None
}

/// Reads `a=b,c=d`.
fn read_labels(text: &str) -> Labels {
    let pair = |p: &str| p.trim().split_once('=').map(|(n, v)| (n.to_owned(), v.to_owned()));
    text.split(',').filter_map(pair).collect()
}

/// The workload that was most likely meant: all labels but one fit, or only the name of a label is another.
fn nearest(net: &Net<'_>, selecting: &ObjectRef, meta: &Meta, path: &str, wanted: &Labels) -> Option<Reason> {
    let best = net
        .templates(&selecting.namespace)
        .iter()
        .filter(|t| !t.ends)
        .filter_map(|t| Some((likeness(t, selecting, wanted)?, t)))
        .max_by(|a, b| a.0.cmp(&b.0).then_with(|| b.1.root.cmp(&a.1.root)))?
        .1;
    let diff = differs(wanted, &best.labels);
    let renamed = diff.iter().find_map(|(name, value, have)| {
        let other = best.labels.iter().find(|(n, v)| have.is_empty() && *v == value && n != name)?;
        Some((name.clone(), other.0.to_owned(), value.clone()))
    });
    let root = &best.root;
    let told = renamed
        .as_ref()
        .map_or_else(|| phrase(&diff), |(asked, has, value)| format!("the label {value} is called {has}, not {asked}"));
    // A selector that somebody wrote after the service was made is what changed.
    let changed = writer(meta, |p| p.selector).and_then(|m| Some((m, m.time?)));
    let changed = changed.filter(|(_, at)| meta.creation_timestamp.is_some_and(|made| at.since(made).as_secs() >= 1));
    let when = changed.map(|(m, at)| format!("; the selector was written{} by {}", ago(net, Some(at)), m.manager));
    let repaired: Vec<String> = wanted
        .iter()
        .filter_map(|(n, v)| match &renamed {
            Some((asked, has, value)) if asked == n => Some(format!("{has}={value}")),
            _ if best.labels.get(n) == Some(v) => Some(format!("{n}={v}")),
            _ => best.labels.get(n).map(|have| format!("{n}={have}")),
        })
        .collect();
    let repaired = if repaired.is_empty() { best.labels.to_string() } else { repaired.join(",") };
    Some(Reason {
        object: selecting.clone(),
        why: format!(
            "its selector {wanted} matches no pod; nearest is {root}, on whose pods {told}{}",
            when.unwrap_or_default()
        ),
        fix: format!(
            "Set the selector of {selecting} to {repaired}, which the pods of {root} have; or give those pods the labels {wanted}."
        ),
        since: changed.map(|(_, at)| at),
        facts: vec![
            (selecting.clone(), path.to_owned(), wanted.to_string()),
            (root.clone(), "spec.template.metadata.labels".to_owned(), best.labels.to_string()),
        ],
        meant: Some(root.clone()),
    })
}

/// How like a workload is to what was meant; `None`: not at all. Greater is more.
fn likeness(template: &Template<'_>, selecting: &ObjectRef, wanted: &Labels) -> Option<(usize, bool, bool)> {
    let fits = wanted.iter().filter(|(n, v)| template.labels.get(n) == Some(*v)).count();
    let same_name = template.root.name == selecting.name;
    let close = wanted.iter().any(|(name, value)| {
        let have = template.labels.get(name);
        have.is_some_and(|h| h != value && alike(h, value))
            || (have.is_none() && template.labels.iter().any(|(_, v)| v == value))
    });
    let one_off = wanted.len() - fits == 1;
    ((one_off && (fits > 0 || close || same_name)) || (same_name && (fits > 0 || close)) || (close && fits > 0))
        .then_some((fits, same_name, close))
        .or_else(|| same_name.then_some((0, true, false)))
}
