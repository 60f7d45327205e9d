//! Who reads which config map or secret, and how.

use crate::objects::{Container, KeyItems, KeyRef, PodSpec};
use crate::{Context, ObjectRef};
use std::collections::{BTreeMap, BTreeSet};

/// What is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Source {
    /// A config map.
    ConfigMap,
    /// A secret.
    Secret,
}

impl Source {
    /// Kind, as in manifests.
    pub(super) const fn kind(self) -> &'static str {
        match self {
            Self::ConfigMap => "ConfigMap",
            Self::Secret => "Secret",
        }
    }
}

/// How it is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum How {
    /// One key as a variable: read once, at the start.
    Variable,
    /// All keys as variables: read once, at the start.
    Variables,
    /// A file mounted by itself: as it was at the start.
    SubPath,
    /// A folder: renewed while the pod runs.
    Folder,
}

/// One use.
#[derive(Debug, Clone)]
pub(super) struct Use<'a> {
    /// What kind of object.
    pub(super) source: Source,
    /// Its name.
    pub(super) name: &'a str,
    /// The key, empty for all of them.
    pub(super) key: &'a str,
    /// How.
    pub(super) how: How,
    /// Whether it may be missing.
    pub(super) optional: bool,
    /// Who reads it.
    pub(super) container: &'a str,
    /// Whether a container reads it that has ended by the time the others start.
    pub(super) init: bool,
    /// Under which name: of a variable, or the volume.
    pub(super) into: &'a str,
}

/// All uses of a pod's specification.
pub(super) fn of(spec: &PodSpec) -> Vec<Use<'_>> {
    let mut out = Vec::new();
    for (init, container) in containers(spec) {
        variables(container, init, &mut out);
        files(spec, container, init, &mut out);
    }
    out
}

/// All containers; the flag is set for those that end before the others start.
pub(super) fn containers(spec: &PodSpec) -> impl Iterator<Item = (bool, &Container)> {
    let init = spec.init_containers.iter().map(|c| (!c.is_sidecar(), c));
    init.chain(spec.containers.iter().map(|c| (false, c)))
}

fn variables<'a>(container: &'a Container, init: bool, out: &mut Vec<Use<'a>>) {
    let mut add = |source, key: &'a KeyRef, how, into| {
        let (name, key_name) = (key.name.as_str(), if how == How::Variable { key.key.as_str() } else { "" });
        out.push(Use {
            source,
            name,
            key: key_name,
            how,
            optional: key.optional,
            container: &container.name,
            init,
            into,
        });
    };
    for variable in &container.env {
        let Some(from) = &variable.value_from else { continue };
        if let Some(key) = &from.config_map_key_ref {
            add(Source::ConfigMap, key, How::Variable, variable.name.as_str());
        }
        if let Some(key) = &from.secret_key_ref {
            add(Source::Secret, key, How::Variable, variable.name.as_str());
        }
    }
    for from in &container.env_from {
        if let Some(key) = &from.config_map_ref {
            add(Source::ConfigMap, key, How::Variables, from.prefix.as_str());
        }
        if let Some(key) = &from.secret_ref {
            add(Source::Secret, key, How::Variables, from.prefix.as_str());
        }
    }
}

fn files<'a>(spec: &'a PodSpec, container: &'a Container, init: bool, out: &mut Vec<Use<'a>>) {
    for mount in &container.volume_mounts {
        let Some(volume) = spec.volumes.iter().find(|v| v.name == mount.name) else { continue };
        let how = if mount.sub_path.is_empty() { How::Folder } else { How::SubPath };
        let mut add = |source, items: &'a KeyItems, name: &'a str| {
            let all = items.items.is_empty();
            let keys = items.items.iter().map(|k| k.key.as_str()).chain(all.then_some(""));
            for key in keys {
                let (container, into) = (container.name.as_str(), volume.name.as_str());
                out.push(Use { source, name, key, how, optional: items.optional, container, init, into });
            }
        };
        if let Some(items) = &volume.config_map {
            add(Source::ConfigMap, items, &items.name);
        }
        if let Some(items) = &volume.secret {
            add(Source::Secret, items, if items.secret_name.is_empty() { &items.name } else { &items.secret_name });
        }
        for source in volume.projected.iter().flat_map(|p| &p.sources) {
            if let Some(items) = &source.config_map {
                add(Source::ConfigMap, items, &items.name);
            }
            if let Some(items) = &source.secret {
                add(Source::Secret, items, if items.name.is_empty() { &items.secret_name } else { &items.name });
            }
        }
    }
}

/// Who reads an object.
#[derive(Debug, Default)]
pub(super) struct Readers {
    /// The workloads.
    pub(super) by: BTreeSet<ObjectRef>,
    /// Whether one of them needs it.
    pub(super) needed: bool,
    /// Whether one of them needs a certain key of it: an empty object lacks it, which is told of the reader.
    pub(super) needs_key: bool,
}

/// Readers of all config maps and secrets, by what, namespace and name.
pub(super) struct Uses<'a>(BTreeMap<Source, BTreeMap<&'a str, BTreeMap<&'a str, Readers>>>);

impl<'a> Uses<'a> {
    /// From all templates and pods.
    pub(super) fn new(cx: &Context<'a>) -> Self {
        let mut uses = Self(BTreeMap::new());
        let world = cx.world;
        for d in world.deployments.iter() {
            uses.add(&d.metadata.namespace, &d.spec.template.spec, || ObjectRef::of("Deployment", &d.metadata));
        }
        for s in world.stateful_sets.iter() {
            uses.add(&s.metadata.namespace, &s.spec.template.spec, || ObjectRef::of("StatefulSet", &s.metadata));
        }
        for d in world.daemon_sets.iter() {
            uses.add(&d.metadata.namespace, &d.spec.template.spec, || ObjectRef::of("DaemonSet", &d.metadata));
        }
        for c in world.cron_jobs.iter() {
            let spec = &c.spec.job_template.spec.template.spec;
            uses.add(&c.metadata.namespace, spec, || ObjectRef::of("CronJob", &c.metadata));
        }
        for j in world.jobs.iter() {
            uses.add(&j.metadata.namespace, &j.spec.template.spec, || cx.root_of("Job", &j.metadata));
        }
        // Old templates count too: somebody may roll back to them.
        for r in world.replica_sets.iter() {
            uses.add(&r.metadata.namespace, &r.spec.template.spec, || cx.root_of("ReplicaSet", &r.metadata));
        }
        for p in world.pods.iter() {
            uses.add(&p.metadata.namespace, &p.spec, || cx.root(p));
        }
        uses
    }

    fn add(&mut self, namespace: &'a str, spec: &'a PodSpec, who: impl Fn() -> ObjectRef) {
        for used in of(spec) {
            let readers = self.entry(used.source, namespace, used.name);
            readers.needed |= !used.optional;
            readers.needs_key |= !used.optional && !used.key.is_empty();
            readers.by.insert(who());
        }
        // A volume that no container mounts still holds the pod until it is there.
        for volume in &spec.volumes {
            let map = volume.config_map.as_ref().map(|m| (Source::ConfigMap, m.name.as_str()));
            let secret = volume.secret.as_ref().map(|s| (Source::Secret, s.secret_name.as_str()));
            for (source, name) in [map, secret].into_iter().flatten() {
                self.entry(source, namespace, name).by.insert(who());
            }
        }
        for pull in &spec.image_pull_secrets {
            self.entry(Source::Secret, namespace, &pull.name).by.insert(who());
        }
    }

    fn entry(&mut self, source: Source, namespace: &'a str, name: &'a str) -> &mut Readers {
        self.0.entry(source).or_default().entry(namespace).or_default().entry(name).or_default()
    }

    /// Who reads this one.
    pub(super) fn readers(&self, source: Source, namespace: &str, name: &str) -> Option<&Readers> {
        self.0.get(&source)?.get(namespace)?.get(name)
    }
}
