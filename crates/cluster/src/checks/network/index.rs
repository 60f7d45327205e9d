//! What the network checks look up again and again: pods by their labels, what makes pods, slices by service.

use crate::objects::{EndpointSlice, Labels, Meta, Pod, PodSpec, ReplicaSet};
use crate::{Context, ObjectRef};
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// Labels that pods get when they are made: no template has them.
const RUNTIME_LABELS: [&str; 11] = [
    "apps.kubernetes.io/pod-index",
    "batch.kubernetes.io/controller-uid",
    "batch.kubernetes.io/job-completion-index",
    "batch.kubernetes.io/job-name",
    "controller-revision-hash",
    "controller-uid",
    "job-name",
    "pod-template-generation",
    "pod-template-hash",
    "rollouts-pod-template-hash",
    "statefulset.kubernetes.io/pod-name",
];

/// Something that makes pods.
pub(in crate::checks) struct Template<'a> {
    /// The workload.
    pub(in crate::checks) root: ObjectRef,
    /// Labels of its pods.
    pub(in crate::checks) labels: Cow<'a, Labels>,
    /// What its pods are.
    pub(in crate::checks) spec: &'a PodSpec,
    /// Pods it wants.
    pub(in crate::checks) wanted: i64,
    /// Whether its pods end: jobs.
    pub(in crate::checks) ends: bool,
}

/// The lookups.
pub(in crate::checks) struct Net<'a> {
    pub(in crate::checks) cx: &'a Context<'a>,
    /// Pods by namespace, label and value. Only looked up, never walked: its order is no order.
    pods: HashMap<(&'a str, &'a str, &'a str), Vec<&'a Pod>>,
    templates: BTreeMap<&'a str, Vec<Template<'a>>>,
    slices: HashMap<&'a str, HashMap<&'a str, Vec<&'a EndpointSlice>>>,
}

impl<'a> Net<'a> {
    /// Builds them: once per scan.
    pub(in crate::checks) fn new(cx: &'a Context<'a>) -> Self {
        let mut pods: HashMap<_, Vec<&Pod>> = HashMap::with_capacity(cx.world.pods.len());
        for pod in cx.world.pods.iter() {
            for (name, value) in pod.metadata.labels.iter() {
                pods.entry((pod.metadata.namespace.as_str(), name, value)).or_default().push(pod);
            }
        }
        let mut slices: HashMap<_, HashMap<_, Vec<&EndpointSlice>>> = HashMap::new();
        for slice in cx.world.endpoint_slices.iter() {
            if let Some(service) = slice.metadata.labels.get("kubernetes.io/service-name") {
                slices.entry(slice.metadata.namespace.as_str()).or_default().entry(service).or_default().push(slice);
            }
        }
        Self { cx, pods, templates: templates(cx), slices }
    }

    /// The pods of a namespace with all these labels, by name; none for no labels.
    pub(in crate::checks) fn pods(&self, namespace: &str, labels: &Labels) -> Vec<&'a Pod> {
        let lists = labels.iter().map(|(n, v)| self.pods.get(&(namespace, n, v)).map_or(&[][..], Vec::as_slice));
        let Some(rarest) = lists.min_by_key(|list| list.len()) else { return Vec::new() };
        rarest.iter().copied().filter(|p| p.metadata.labels.has_all(labels)).collect()
    }

    /// What makes pods in a namespace.
    pub(in crate::checks) fn templates(&self, namespace: &str) -> &[Template<'a>] {
        self.templates.get(namespace).map_or(&[], Vec::as_slice)
    }

    /// All that makes pods, by namespace.
    pub(in crate::checks) fn all_templates(&self) -> impl Iterator<Item = &Template<'a>> {
        self.templates.values().flatten()
    }

    /// What makes pods with these labels, those aside that pods only get when they are made.
    pub(in crate::checks) fn makers<'b>(
        &'b self,
        namespace: &str,
        labels: &'b Labels,
    ) -> impl Iterator<Item = &'b Template<'a>> {
        self.templates(namespace).iter().filter(move |t| makes(t, labels))
    }

    /// The endpoint slices of a service.
    pub(in crate::checks) fn slices(&self, namespace: &str, service: &str) -> &[&'a EndpointSlice] {
        self.slices.get(namespace).and_then(|n| n.get(service)).map_or(&[], Vec::as_slice)
    }
}

fn makes(template: &Template<'_>, labels: &Labels) -> bool {
    let mut asked = false;
    for (name, value) in labels.iter() {
        if name == "statefulset.kubernetes.io/pod-name" {
            let ours = template.root.kind == "StatefulSet"
                && value.rsplit_once('-').is_some_and(|(set, _)| set == template.root.name);
            if !ours {
                return false;
            }
            asked = true;
        } else if !RUNTIME_LABELS.contains(&name) {
            if template.labels.get(name) != Some(value) {
                return false;
            }
            asked = true;
        }
    }
    asked
}

fn templates<'a>(cx: &'a Context<'a>) -> BTreeMap<&'a str, Vec<Template<'a>>> {
    let world = cx.world;
    let mut all: BTreeMap<&str, Vec<Template<'a>>> = BTreeMap::new();
    let mut known: BTreeSet<ObjectRef> = BTreeSet::new();
    let mut add = |kind: &str, meta: &'a Meta, template: &'a crate::objects::PodTemplate, wanted: i64, ends: bool| {
        let root = ObjectRef::of(kind, meta);
        known.insert(root.clone());
        let labels = Cow::Borrowed(&template.metadata.labels);
        let made = Template { root, labels, spec: &template.spec, wanted, ends };
        all.entry(&meta.namespace).or_default().push(made);
    };
    for w in world.deployments.iter() {
        add("Deployment", &w.metadata, &w.spec.template, w.spec.wanted(), false);
    }
    for w in world.stateful_sets.iter() {
        add("StatefulSet", &w.metadata, &w.spec.template, w.spec.wanted(), false);
    }
    for w in world.daemon_sets.iter() {
        add("DaemonSet", &w.metadata, &w.spec.template, w.status.desired_number_scheduled.max(1), false);
    }
    for w in world.cron_jobs.iter() {
        add("CronJob", &w.metadata, &w.spec.job_template.spec.template, 0, true);
    }
    for w in world.jobs.iter().filter(|w| w.metadata.controller().is_none()) {
        add("Job", &w.metadata, &w.spec.template, w.spec.parallelism.unwrap_or(1), true);
    }
    for w in world.replica_sets.iter().filter(|w| w.metadata.controller().is_none()) {
        add("ReplicaSet", &w.metadata, &w.spec.template, w.spec.wanted(), false);
    }
    // Bare pods, and those of kinds that are not known here.
    for (root, pods) in cx.workloads() {
        if known.contains(root) {
            continue;
        }
        let Some(pod) = pods.iter().copied().find(|p| is_live(p)) else { continue };
        let own = pod.metadata.labels.iter().filter(|(n, _)| !RUNTIME_LABELS.contains(n));
        let labels = Cow::Owned(own.map(|(n, v)| (n.to_owned(), v.to_owned())).collect());
        let ends = matches!(root.kind.as_str(), "Job" | "CronJob");
        let wanted = i64::try_from(pods.len()).unwrap_or(i64::MAX);
        let made = Template { root: root.clone(), labels, spec: &pod.spec, wanted, ends };
        all.entry(&pod.metadata.namespace).or_default().push(made);
    }
    all
}

/// Whether a pod takes or may take traffic: neither ended nor on its way out.
pub(in crate::checks) fn is_live(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_none() && !matches!(pod.status.phase.as_str(), "Succeeded" | "Failed")
}

/// The revision that a deployment gave a replica set; 0 without one.
pub(in crate::checks) fn revision(set: &ReplicaSet) -> i64 {
    let text = set.metadata.annotations.get("deployment.kubernetes.io/revision");
    text.and_then(|r| r.parse().ok()).unwrap_or(0)
}
