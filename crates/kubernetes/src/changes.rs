//! What changed between two looks at an object: records for the history, and changes for people.
//!
//! Compared are the compact views, so that a new status or a new copy of the same object is no change. Values of config
//! maps and secrets are known by their hash alone: what is told of them is the names of keys.

mod pods;

use crate::discovery::Kind;
use nightshift_cluster::checks::history::Record;
use nightshift_cluster::objects::{Blob, Event, Meta};
use nightshift_cluster::{ObjectRef, Resource, World};
use nightshift_model::{ChangeType, Timestamp};
use std::collections::BTreeMap;

/// Parts of a change that are told.
const PARTS_MAX: usize = 8;
/// Longest text, characters.
const TEXT_CHARS_MAX: usize = 500;

/// Something that was seen to change.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Noted {
    /// The object that changed.
    pub(crate) object: ObjectRef,
    /// When.
    pub(crate) at: Timestamp,
    /// For its history.
    pub(crate) records: Vec<Record>,
    /// For people, where it is one.
    pub(crate) change: Option<Told>,
}

/// A change for people.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Told {
    /// What sort of change.
    pub(crate) sort: ChangeType,
    /// What it is about, where that is not the object itself: an event's object.
    pub(crate) about: Option<ObjectRef>,
    /// What changed, one line.
    pub(crate) what: String,
    /// Who did it.
    pub(crate) who: String,
    /// Version of the image after it.
    pub(crate) version: String,
    /// Tells this change from any other of the object.
    pub(crate) key: String,
}

/// Whether the deletion of such an object is worth remembering.
pub(crate) const fn is_remembered(kind: Kind) -> bool {
    !matches!(
        kind,
        Kind::Known(
            Resource::Pods | Resource::Events | Resource::ReplicaSets | Resource::EndpointSlices | Resource::Leases
        )
    )
}

/// What one new object changes.
pub(crate) fn of_one(kind: Kind, old: &World, one: &World, now: Timestamp) -> Vec<Noted> {
    between_rows(kind, None, old, one, now, false)
}

/// What a new list changes, of the whole cluster or of a namespace.
pub(crate) fn between(kind: Kind, namespace: Option<&str>, old: &World, new: &World, now: Timestamp) -> Vec<Noted> {
    between_rows(kind, namespace, old, new, now, true)
}

fn between_rows(
    kind: Kind,
    namespace: Option<&str>,
    old: &World,
    new: &World,
    now: Timestamp,
    whole: bool,
) -> Vec<Noted> {
    let mut out = Vec::new();
    macro_rules! each {
        ($table:ident, $with:expr) => {{
            for row in new.$table.iter() {
                let meta = &row.metadata;
                let before = old.$table.get(&meta.namespace, &meta.name);
                // The same version is the same object; another uid is another one that took its name.
                if before.is_some_and(|b| b.metadata.resource_version == meta.resource_version) {
                    continue;
                }
                let object = ObjectRef::of(kind.name(), meta);
                let before = before.filter(|b| b.metadata.uid == meta.uid);
                let made: Parts = $with(before, row);
                out.extend(made.noted(object, meta, now));
            }
            if whole && is_remembered(kind) {
                let gone = old.$table.iter().filter(|o| namespace.is_none_or(|n| o.metadata.namespace == n));
                for row in gone.filter(|o| new.$table.get(&o.metadata.namespace, &o.metadata.name).is_none()) {
                    let object = ObjectRef::of(kind.name(), &row.metadata);
                    out.push(Noted { object, at: now, records: vec![Record::Deleted], change: None });
                }
            }
        }};
    }
    // A closure cannot name the type of a row: this gives the part that a person writes.
    macro_rules! spec {
        ($table:ident, $type:ident, $name:literal, $($part:ident),+) => {
            each!($table, |b: Option<&nightshift_cluster::objects::$type>, n: &nightshift_cluster::objects::$type| {
                Parts::plain(b.is_some_and(|b| $(b.$part != n.$part)||+), $name)
            })
        };
    }
    let Kind::Known(resource) = kind else {
        custom(kind, old, new, now, &mut out);
        return out;
    };
    match resource {
        Resource::Deployments => each!(deployments, pods::deployment),
        Resource::StatefulSets => each!(stateful_sets, pods::stateful_set),
        Resource::DaemonSets => each!(daemon_sets, pods::daemon_set),
        Resource::CronJobs => each!(cron_jobs, pods::cron_job),
        Resource::Pods => each!(pods, pods::pod),
        Resource::Nodes => each!(nodes, pods::node),
        Resource::Hpas => each!(hpas, pods::hpa),
        Resource::Leases => each!(leases, pods::lease),
        Resource::Services => each!(services, pods::service),
        Resource::Claims => each!(claims, pods::claim),
        Resource::Events => each!(events, event),
        Resource::ConfigMaps => {
            each!(config_maps, |b: Option<&nightshift_cluster::objects::ConfigMap>,
                                n: &nightshift_cluster::objects::ConfigMap| {
                let Some(b) = b else { return Parts::default() };
                let mut keys = changed_keys(&b.data, &n.data);
                keys.extend(changed_keys(&b.binary_data, &n.binary_data));
                Parts::keys(keys, looks_like_flags(&n.metadata, n.data.keys()))
            })
        }
        Resource::Secrets => {
            each!(secrets, |b: Option<&nightshift_cluster::objects::Secret>,
                            n: &nightshift_cluster::objects::Secret| {
                b.map_or_else(Parts::default, |b| Parts::keys(changed_keys(&b.data, &n.data), false))
            })
        }
        Resource::Ingresses => spec!(ingresses, Ingress, "rules", spec),
        Resource::NetworkPolicies => spec!(network_policies, NetworkPolicy, "rules", spec),
        Resource::Gateways => spec!(gateways, Gateway, "listeners", spec),
        Resource::HttpRoutes => spec!(http_routes, Route, "rules", spec),
        Resource::GrpcRoutes => spec!(grpc_routes, Route, "rules", spec),
        Resource::Pdbs => spec!(pdbs, Pdb, "budget", spec),
        Resource::Quotas => spec!(quotas, ResourceQuota, "limits", spec),
        Resource::LimitRanges => spec!(limit_ranges, LimitRange, "limits", spec),
        Resource::Roles => spec!(roles, Role, "rules", rules),
        Resource::ClusterRoles => spec!(cluster_roles, Role, "rules", rules),
        Resource::RoleBindings => spec!(role_bindings, RoleBinding, "subjects", subjects, role_ref),
        Resource::ClusterRoleBindings => spec!(cluster_role_bindings, RoleBinding, "subjects", subjects, role_ref),
        Resource::MutatingWebhooks => spec!(mutating_webhooks, WebhookConfiguration, "webhooks", webhooks),
        Resource::ValidatingWebhooks => spec!(validating_webhooks, WebhookConfiguration, "webhooks", webhooks),
        Resource::ServiceAccounts => spec!(service_accounts, ServiceAccount, "pull secrets", image_pull_secrets),
        // What is left is made by controllers, or never changes.
        _ => {}
    }
    out
}

fn custom(kind: Kind, old: &World, new: &World, now: Timestamp, out: &mut Vec<Noted>) {
    let (group, name) = (kind.group(), kind.name());
    // Reports are results, not something that somebody did.
    if name.contains("Report") {
        return;
    }
    let Some(rows) = new.customs(group, name) else { return };
    for row in rows.iter() {
        let meta = &row.metadata;
        let before = old.customs(group, name).and_then(|t| t.get(&meta.namespace, &meta.name));
        let changed = before.is_some_and(|b| b.metadata.uid == meta.uid && b.spec != row.spec);
        out.extend(Parts::plain(changed, "specification").noted(ObjectRef::of(name, meta), meta, now));
    }
}

/// What changed of one object.
#[derive(Debug, Default)]
struct Parts {
    sort: Option<ChangeType>,
    what: Vec<String>,
    version: String,
    records: Vec<Record>,
    about: Option<ObjectRef>,
    who: Option<String>,
    /// Tells this change apart, where the version of the object does not.
    key: String,
}

impl Parts {
    fn plain(changed: bool, what: &str) -> Self {
        if changed { Self::of(ChangeType::Config, what) } else { Self::default() }
    }

    fn of(sort: ChangeType, what: impl Into<String>) -> Self {
        Self { sort: Some(sort), what: vec![what.into()], ..Self::default() }
    }

    fn keys(keys: Vec<String>, flags: bool) -> Self {
        if keys.is_empty() {
            return Self::default();
        }
        Self::of(if flags { ChangeType::FeatureFlag } else { ChangeType::Config }, keys.join(", "))
    }

    /// Adds a part; the most telling sort wins: a deployment before scaling before configuration.
    fn add(&mut self, sort: ChangeType, what: String) {
        let weight = |s: ChangeType| match s {
            ChangeType::Deployment => 2,
            ChangeType::Scaling => 1,
            _ => 0,
        };
        if self.sort.is_none_or(|s| weight(sort) > weight(s)) {
            self.sort = Some(sort);
        }
        self.what.push(what);
    }

    fn noted(mut self, object: ObjectRef, meta: &Meta, now: Timestamp) -> Option<Noted> {
        let writer = meta.last_writer();
        let at = writer.and_then(|w| w.time).filter(|at| *at <= now).unwrap_or(now);
        let who = self.who.take().unwrap_or_else(|| writer.map(|w| w.manager.clone()).unwrap_or_default());
        let change = self.sort.map(|sort| {
            self.what.truncate(PARTS_MAX);
            let what: String = self.what.join(", ").chars().take(TEXT_CHARS_MAX).collect();
            let key = if self.key.is_empty() { format!("{}/{}", meta.uid, meta.resource_version) } else { self.key };
            Told { sort, about: self.about, what, who: who.clone(), version: self.version, key }
        });
        // Kept at the moment of the look: records of one object stay in order.
        if let Some(told) = change.as_ref().filter(|t| t.sort != ChangeType::Event) {
            self.records.push(Record::Changed { what: told.what.clone(), who });
        }
        let at = if change.as_ref().is_some_and(|c| c.sort == ChangeType::Event) { now } else { at };
        (change.is_some() || !self.records.is_empty()).then_some(Noted { object, at, records: self.records, change })
    }
}

/// Keys that are new, gone or have another value.
fn changed_keys(old: &BTreeMap<String, Blob>, new: &BTreeMap<String, Blob>) -> Vec<String> {
    let mut out: Vec<String> = new
        .iter()
        .filter_map(|(key, value)| match old.get(key) {
            None => Some(format!("key {key} is new")),
            Some(before) if (before.size, before.hash) != (value.size, value.hash) => Some(format!("value of {key}")),
            Some(_) => None,
        })
        .collect();
    out.extend(old.keys().filter(|k| !new.contains_key(*k)).map(|k| format!("key {k} is gone")));
    out
}

/// Whether a config map holds feature flags: it says so, or its name or a key does.
fn looks_like_flags<'a>(meta: &Meta, mut keys: impl Iterator<Item = &'a String>) -> bool {
    let says = |text: &str| {
        let text = text.to_ascii_lowercase();
        ["flagd", "feature-flag", "featureflag", "feature_flag", "featuretoggle", "feature-toggle"]
            .iter()
            .any(|w| text.contains(w))
    };
    says(&meta.name)
        || meta.labels.iter().chain(meta.annotations.iter()).any(|(n, _)| says(n))
        || keys.any(|k| says(k) || k == "flags.json" || k == "flags.yaml" || k == "features.json")
}

/// Warnings are told, as something that happened.
fn event(before: Option<&Event>, event: &Event) -> Parts {
    if event.kind != "Warning" || before.is_some_and(|b| b.times() >= event.times()) {
        return Parts::default();
    }
    let about = &event.involved_object;
    let object = ObjectRef::new(about.kind.clone(), about.namespace.clone(), about.name.clone());
    let times = if event.times() > 1 { format!(" ({} times)", event.times()) } else { String::new() };
    let mut parts = Parts::of(ChangeType::Event, format!("{} of {object}: {}{times}", event.reason, event.message));
    parts.who = Some(event.reporter().to_owned());
    // The second and the thousandth time are one more line each, not a new thing each.
    parts.key = format!("{}/{}", event.metadata.uid, event.times().max(1).ilog2());
    parts.about = Some(object);
    parts
}

#[cfg(test)]
mod tests;
