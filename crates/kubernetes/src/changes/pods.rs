//! What changed of workloads and what belongs to them, in the words that a person would use.

use super::Parts;
use nightshift_cluster::checks::history::Record;
use nightshift_cluster::objects::{
    Container, CronJob, DaemonSet, Deployment, Hpa, Lease, Node, Pod, PodTemplate, Pvc, Service, StatefulSet,
};
use nightshift_model::ChangeType;

/// Annotation that `kubectl rollout restart` sets.
const RESTARTED: &str = "kubectl.kubernetes.io/restartedAt";

pub(super) fn deployment(before: Option<&Deployment>, now: &Deployment) -> Parts {
    let mut parts = Parts::default();
    let Some(before) = before else { return made(&now.spec.template) };
    template(&before.spec.template, &now.spec.template, &mut parts);
    replicas(before.spec.wanted(), now.spec.wanted(), &mut parts);
    if before.spec.paused != now.spec.paused {
        let what = if now.spec.paused { "rollout is paused" } else { "rollout goes on" };
        parts.add(ChangeType::Config, what.into());
    }
    if before.spec.strategy != now.spec.strategy {
        parts.add(ChangeType::Config, "update strategy".into());
    }
    parts
}

pub(super) fn stateful_set(before: Option<&StatefulSet>, now: &StatefulSet) -> Parts {
    let mut parts = Parts::default();
    let Some(before) = before else { return made(&now.spec.template) };
    template(&before.spec.template, &now.spec.template, &mut parts);
    replicas(before.spec.wanted(), now.spec.wanted(), &mut parts);
    if before.spec.update_strategy != now.spec.update_strategy {
        parts.add(ChangeType::Config, "update strategy".into());
    }
    parts
}

pub(super) fn daemon_set(before: Option<&DaemonSet>, now: &DaemonSet) -> Parts {
    let mut parts = Parts::default();
    let Some(before) = before else { return made(&now.spec.template) };
    template(&before.spec.template, &now.spec.template, &mut parts);
    parts
}

pub(super) fn cron_job(before: Option<&CronJob>, now: &CronJob) -> Parts {
    let mut parts = Parts::default();
    let Some(before) = before else { return parts };
    let (old, new) = (&before.spec, &now.spec);
    template(&old.job_template.spec.template, &new.job_template.spec.template, &mut parts);
    if old.schedule != new.schedule {
        parts.add(ChangeType::Config, format!("schedule from `{}` to `{}`", old.schedule, new.schedule));
    }
    if old.suspend != new.suspend {
        let what = if new.suspend { "it is suspended" } else { "it is no longer suspended" };
        parts.add(ChangeType::Config, what.into());
    }
    parts
}

/// A workload that is new brings its images.
fn made(template: &PodTemplate) -> Parts {
    let images: Vec<&str> = template.spec.containers.iter().map(|c| c.image.as_str()).collect();
    let mut parts = Parts::of(ChangeType::Deployment, format!("it is new, with {}", images.join(", ")));
    parts.version = images.first().map(|i| tag(i)).unwrap_or_default();
    parts
}

fn replicas(before: i64, now: i64, parts: &mut Parts) {
    if before != now {
        parts.add(ChangeType::Scaling, format!("replicas from {before} to {now}"));
    }
}

fn template(before: &PodTemplate, now: &PodTemplate, parts: &mut Parts) {
    let all = |t: &PodTemplate| t.spec.init_containers.iter().chain(&t.spec.containers).cloned().collect::<Vec<_>>();
    let (old, new) = (all(before), all(now));
    for c in &new {
        match old.iter().find(|o| o.name == c.name) {
            None => parts.add(ChangeType::Deployment, format!("container {} is new", c.name)),
            Some(o) => container(o, c, parts),
        }
    }
    for gone in old.iter().filter(|o| new.iter().all(|n| n.name != o.name)) {
        parts.add(ChangeType::Deployment, format!("container {} is gone", gone.name));
    }
    if before.metadata.labels != now.metadata.labels {
        let (from, to) = (before.metadata.labels.to_string(), now.metadata.labels.to_string());
        parts.add(ChangeType::Config, format!("pod labels from {from} to {to}"));
        parts.records.push(Record::Labels { from, to });
    }
    if before.metadata.annotations.get(RESTARTED) != now.metadata.annotations.get(RESTARTED) {
        parts.add(ChangeType::Deployment, "it was restarted".into());
    }
    let (o, n) = (&before.spec, &now.spec);
    for (differs, what) in [
        (o.volumes != n.volumes, "volumes"),
        (o.service_account_name != n.service_account_name, "service account"),
        (o.node_selector != n.node_selector || o.affinity != n.affinity, "placement"),
        (o.tolerations != n.tolerations, "tolerations"),
        (o.security_context != n.security_context, "security context"),
        (o.image_pull_secrets != n.image_pull_secrets, "pull secrets"),
        (o.dns_policy != n.dns_policy || o.dns_config != n.dns_config, "DNS settings"),
        (o.priority_class_name != n.priority_class_name, "priority class"),
    ] {
        if differs {
            parts.add(ChangeType::Config, what.into());
        }
    }
}

fn container(o: &Container, n: &Container, parts: &mut Parts) {
    if o.image != n.image {
        parts.add(ChangeType::Deployment, format!("image of {} from {} to {}", n.name, o.image, n.image));
        if parts.version.is_empty() {
            parts.version = tag(&n.image);
        }
    }
    if o.resources != n.resources {
        parts.add(ChangeType::Scaling, format!("requests and limits of {}", n.name));
    }
    let variables = |c: &Container| c.env.iter().map(|e| e.name.clone()).collect::<Vec<_>>();
    if o.env != n.env {
        let changed = n.env.iter().filter(|e| o.env.iter().all(|x| x != *e)).map(|e| e.name.clone());
        let gone = variables(o).into_iter().filter(|v| !variables(n).contains(v));
        let names: Vec<String> = changed.chain(gone).take(5).collect();
        parts.add(ChangeType::Config, format!("variables of {} ({})", n.name, names.join(", ")));
    }
    let probes = |c: &Container| {
        // What a probe runs is not read: two are the same when all else is.
        format!("{:?}", (&c.liveness_probe, &c.readiness_probe, &c.startup_probe))
    };
    for (differs, what) in [
        (o.env_from != n.env_from, "sources of variables"),
        (o.command != n.command, "command"),
        (o.ports != n.ports, "ports"),
        (probes(o) != probes(n), "probes"),
        (o.volume_mounts != n.volume_mounts, "mounts"),
        (o.security_context != n.security_context, "security context"),
    ] {
        if differs {
            parts.add(ChangeType::Config, format!("{what} of {}", n.name));
        }
    }
}

/// `registry:5000/team/web:1.4@sha256:…` has tag `1.4`; without a tag the digest's first digits.
fn tag(image: &str) -> String {
    let (name, digest) = image.split_once('@').map_or((image, ""), |(n, d)| (n, d));
    let last = name.rsplit('/').next().unwrap_or(name);
    match last.split_once(':') {
        Some((_, tag)) => tag.to_owned(),
        None => digest.trim_start_matches("sha256:").chars().take(12).collect(),
    }
}

pub(super) fn pod(before: Option<&Pod>, now: &Pod) -> Parts {
    let mut parts = Parts::default();
    let Some(before) = before else { return parts };
    let restarts = |p: &Pod| {
        let all = p.status.init_container_statuses.iter().chain(&p.status.container_statuses);
        all.map(|s| s.restart_count).sum::<i64>()
    };
    if restarts(now) > restarts(before) {
        parts.records.push(Record::Restarts(restarts(now)));
    }
    if before.metadata.labels != now.metadata.labels {
        let (from, to) = (before.metadata.labels.to_string(), now.metadata.labels.to_string());
        parts.records.push(Record::Labels { from, to });
    }
    parts
}

pub(super) fn node(before: Option<&Node>, now: &Node) -> Parts {
    let mut parts = Parts::default();
    let Some(before) = before else { return parts };
    if before.spec.unschedulable != now.spec.unschedulable {
        let what = if now.spec.unschedulable { "it is cordoned" } else { "it takes pods again" };
        parts.add(ChangeType::Config, what.into());
    }
    // Taints that the node controller sets are symptoms, not somebody's change.
    let own = |n: &Node| {
        n.spec.taints.iter().filter(|t| !t.key.starts_with("node.kubernetes.io/")).cloned().collect::<Vec<_>>()
    };
    if own(before) != own(now) {
        parts.add(ChangeType::Config, "taints".into());
    }
    if before.status.node_info.kubelet_version != now.status.node_info.kubelet_version {
        let (from, to) = (&before.status.node_info.kubelet_version, &now.status.node_info.kubelet_version);
        parts.add(ChangeType::Deployment, format!("kubelet from {from} to {to}"));
        parts.version.clone_from(to);
    }
    parts
}

pub(super) fn hpa(before: Option<&Hpa>, now: &Hpa) -> Parts {
    let mut parts = Parts::default();
    let wanted = now.status.desired_replicas;
    if before.is_none_or(|b| b.status.desired_replicas != wanted) {
        parts.records.push(Record::Replicas(wanted));
    }
    let Some(before) = before else { return parts };
    let (old, new) = (&before.spec, &now.spec);
    if old.max_replicas != new.max_replicas {
        parts.add(ChangeType::Scaling, format!("maximum from {} to {}", old.max_replicas, new.max_replicas));
    }
    if old.min_replicas != new.min_replicas {
        let or_one = |n: Option<i64>| n.unwrap_or(1);
        parts.add(
            ChangeType::Scaling,
            format!("minimum from {} to {}", or_one(old.min_replicas), or_one(new.min_replicas)),
        );
    }
    if old.metrics != new.metrics || old.scale_target_ref != new.scale_target_ref {
        parts.add(ChangeType::Config, "what it scales, or by what".into());
    }
    parts
}

pub(super) fn lease(before: Option<&Lease>, now: &Lease) -> Parts {
    let mut parts = Parts::default();
    let holder = now.spec.holder_identity.clone().unwrap_or_default();
    let changed = before.is_some_and(|b| b.spec.holder_identity.as_deref().unwrap_or_default() != holder);
    if changed && !holder.is_empty() {
        parts.records.push(Record::Leader(holder));
    }
    parts
}

pub(super) fn service(before: Option<&Service>, now: &Service) -> Parts {
    let mut parts = Parts::default();
    let Some(before) = before else { return parts };
    if before.spec.selector != now.spec.selector {
        let (from, to) = (before.spec.selector.to_string(), now.spec.selector.to_string());
        parts.add(ChangeType::Config, format!("selector from {from} to {to}"));
        parts.records.push(Record::Labels { from, to });
    }
    if before.spec.ports != now.spec.ports {
        parts.add(ChangeType::Config, "ports".into());
    }
    let rest =
        |s: &Service| (s.spec.kind.clone(), s.spec.external_name.clone(), s.spec.internal_traffic_policy.clone());
    if rest(before) != rest(now) {
        parts.add(ChangeType::Config, "type or traffic policy".into());
    }
    parts
}

pub(super) fn claim(before: Option<&Pvc>, now: &Pvc) -> Parts {
    let size = |c: &Pvc| c.spec.resources.requests.get("storage").copied().unwrap_or_default();
    let Some(before) = before.filter(|b| size(b) != size(now)) else { return Parts::default() };
    let mib = |c: &Pvc| format!("{:.0} MiB", size(c).0 / 1_048_576.0);
    Parts::of(ChangeType::Scaling, format!("size from {} to {}", mib(before), mib(now)))
}
