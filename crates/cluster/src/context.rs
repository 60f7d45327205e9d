//! What a check is given: the world, the time, and indexes that every check needs.

use crate::objects::{Event, LabelSelector, Labels, Meta, OwnerRef, Pod, ReplicaSet, Service};
use crate::{ObjectRef, World};
use nightshift_model::Timestamp;
use std::collections::BTreeMap;
use std::time::Duration;

/// What a scan looks for.
#[derive(Debug, Clone, PartialEq)]
pub struct Options {
    /// Advice too.
    pub advice: bool,
    /// Time left of a certificate below which it is told.
    pub certificate_warning: Duration,
    /// Annotations by which a budget tool says that a workload spends too much: a value other than `false`, `ok` or
    /// empty is an alert.
    pub budget_annotations: Vec<String>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            advice: false,
            certificate_warning: Duration::from_secs(14 * 86_400),
            budget_annotations: vec!["cost.neuroscale/budget-alert".into(), "opencost.io/budget-alert".into()],
        }
    }
}

/// What a check is given.
pub struct Context<'a> {
    /// Everything known.
    pub world: &'a World,
    /// What is looked for.
    pub options: &'a Options,
    /// The time.
    pub now: Timestamp,
    /// Shared indexes.
    pub index: Index<'a>,
}

/// Indexes over a world.
pub struct Index<'a> {
    /// The workload at the top of each pod's owners, by the pod's namespace and name; the pod itself when nobody owns it.
    roots: Named<'a, ObjectRef>,
    pods_of: BTreeMap<ObjectRef, Vec<&'a Pod>>,
    pods_on: BTreeMap<&'a str, Vec<&'a Pod>>,
    events: BTreeMap<&'a str, Named<'a, Vec<&'a Event>>>,
    replica_sets: Named<'a, Vec<&'a ReplicaSet>>,
}

/// By namespace and name: two maps, as a borrowed pair is no key of one.
type Named<'a, T> = BTreeMap<&'a str, BTreeMap<&'a str, T>>;

impl<'a> Context<'a> {
    /// Builds the indexes.
    pub fn new(world: &'a World, options: &'a Options, now: Timestamp) -> Self {
        let mut index = Index {
            roots: BTreeMap::new(),
            pods_of: BTreeMap::new(),
            pods_on: BTreeMap::new(),
            events: BTreeMap::new(),
            replica_sets: BTreeMap::new(),
        };
        for pod in world.pods.iter() {
            let root = root_of(world, "Pod", &pod.metadata);
            index.pods_of.entry(root.clone()).or_default().push(pod);
            index.roots.entry(&pod.metadata.namespace).or_default().insert(&pod.metadata.name, root);
            if !pod.spec.node_name.is_empty() {
                index.pods_on.entry(&pod.spec.node_name).or_default().push(pod);
            }
        }
        for event in world.events.iter() {
            let about = &event.involved_object;
            let of_kind = index.events.entry(&about.kind).or_default();
            of_kind.entry(&about.namespace).or_default().entry(&about.name).or_default().push(event);
        }
        for events in index.events.values_mut().flat_map(BTreeMap::values_mut).flat_map(BTreeMap::values_mut) {
            events.sort_by(|a, b| (a.last_seen(), &a.metadata.name).cmp(&(b.last_seen(), &b.metadata.name)));
        }
        for set in world.replica_sets.iter() {
            if let Some(owner) = set.metadata.controller() {
                let in_namespace = index.replica_sets.entry(&set.metadata.namespace).or_default();
                in_namespace.entry(&owner.name).or_default().push(set);
            }
        }
        Self { world, options, now, index }
    }

    /// The workload at the top of a pod's owners; the pod itself when nobody owns it.
    pub fn root(&self, pod: &Pod) -> ObjectRef {
        let (namespace, name) = (pod.metadata.namespace.as_str(), pod.metadata.name.as_str());
        self.index
            .roots
            .get(namespace)
            .and_then(|n| n.get(name))
            .cloned()
            .unwrap_or_else(|| ObjectRef::new("Pod", namespace, name))
    }

    /// The workload at the top of any object's owners; itself when nobody owns it.
    pub fn root_of(&self, kind: &str, meta: &Meta) -> ObjectRef {
        root_of(self.world, kind, meta)
    }

    /// All pods with their workloads, by workload.
    pub fn workloads(&self) -> impl Iterator<Item = (&ObjectRef, &[&'a Pod])> {
        self.index.pods_of.iter().map(|(root, pods)| (root, pods.as_slice()))
    }

    /// The pods of a workload.
    pub fn pods_of(&self, workload: &ObjectRef) -> &[&'a Pod] {
        self.index.pods_of.get(workload).map_or(&[], Vec::as_slice)
    }

    /// The pods that are bound to a node.
    pub fn pods_on(&self, node: &str) -> &[&'a Pod] {
        self.index.pods_on.get(node).map_or(&[], Vec::as_slice)
    }

    /// All events about an object, oldest first. Events about what has no namespace are in `default`.
    pub fn events(&self, kind: &str, namespace: &str, name: &str) -> &[&'a Event] {
        let of_kind = self.index.events.get(kind);
        of_kind.and_then(|k| k.get(namespace)?.get(name)).map_or(&[], Vec::as_slice)
    }

    /// The replica sets of a deployment, by name.
    pub fn replica_sets(&self, namespace: &str, deployment: &str) -> &[&'a ReplicaSet] {
        self.index.replica_sets.get(namespace).and_then(|n| n.get(deployment)).map_or(&[], Vec::as_slice)
    }

    /// The pods of a namespace that a selector of labels selects. An empty selector selects all.
    pub fn pods_with<'b>(&'b self, namespace: &'b str, labels: &'b Labels) -> impl Iterator<Item = &'b Pod> {
        self.world.pods.in_namespace(namespace).filter(move |p| p.metadata.labels.has_all(labels))
    }

    /// The pods of a namespace that a selector selects. An empty selector selects all.
    pub fn pods_matching<'b>(
        &'b self,
        namespace: &'b str,
        selector: &'b LabelSelector,
    ) -> impl Iterator<Item = &'b Pod> {
        self.world.pods.in_namespace(namespace).filter(move |p| selector.matches(&p.metadata.labels))
    }

    /// The services that select a pod.
    pub fn services_of<'b>(&'b self, pod: &'b Pod) -> impl Iterator<Item = &'b Service> {
        self.world
            .services
            .in_namespace(&pod.metadata.namespace)
            .filter(|s| !s.spec.selector.is_empty() && pod.metadata.labels.has_all(&s.spec.selector))
    }

    /// Time since then, zero when it lies ahead.
    pub fn age(&self, at: Timestamp) -> Duration {
        self.now.since(at)
    }
}

/// A reference to an object with metadata.
impl ObjectRef {
    /// The object of this kind with this metadata.
    pub fn of(kind: &str, meta: &Meta) -> Self {
        Self::new(kind, meta.namespace.clone(), meta.name.clone())
    }
}

/// Longest chain of owners that is followed.
const OWNERS_MAX: usize = 6;

fn root_of(world: &World, kind: &str, meta: &Meta) -> ObjectRef {
    let mut root = ObjectRef::of(kind, meta);
    let mut owner = meta.controller();
    for _ in 0..OWNERS_MAX {
        let Some(next) = owner else { break };
        // A mirror pod is owned by its node, which is no workload.
        if next.kind == "Node" {
            break;
        }
        root = ObjectRef::new(next.kind.clone(), meta.namespace.clone(), next.name.clone());
        owner = owner_of(world, next, &meta.namespace);
    }
    root
}

fn owner_of<'a>(world: &'a World, owner: &OwnerRef, namespace: &str) -> Option<&'a OwnerRef> {
    let meta = match owner.kind.as_str() {
        "ReplicaSet" => &world.replica_sets.get(namespace, &owner.name)?.metadata,
        "Job" => &world.jobs.get(namespace, &owner.name)?.metadata,
        "Deployment" => &world.deployments.get(namespace, &owner.name)?.metadata,
        "StatefulSet" => &world.stateful_sets.get(namespace, &owner.name)?.metadata,
        "DaemonSet" => &world.daemon_sets.get(namespace, &owner.name)?.metadata,
        _ => return None,
    };
    // A name that was used again is another object.
    if owner.uid.is_empty() || meta.uid.is_empty() || meta.uid == owner.uid { meta.controller() } else { None }
}
