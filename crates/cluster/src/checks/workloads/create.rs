//! Pods that are not made: quota, limit range, pod security, admission, a missing service account.

use super::refusal::{self, Refusal};
use crate::objects::Event;
use crate::{Context, Finding, ObjectRef};
use nightshift_model::{FaultClass, Timestamp};
use std::collections::BTreeMap;

/// What says that pods of a workload are refused.
struct Said<'a> {
    by: ObjectRef,
    message: &'a str,
    event: Option<&'a Event>,
    at: Option<Timestamp>,
}

/// Runs the checks.
pub(super) fn run(cx: &Context<'_>, out: &mut Vec<Finding>) {
    let mut said: BTreeMap<ObjectRef, Vec<Said<'_>>> = BTreeMap::new();
    conditions(cx, &mut said);
    events(cx, &mut said);
    let mut of_quota: BTreeMap<ObjectRef, Vec<ObjectRef>> = BTreeMap::new();
    for (workload, mut all) in said {
        // A condition stands for now; of events the newest tells what refuses at present.
        all.sort_by_key(|s| (s.event.is_none(), s.at));
        let Some((newest, read)) =
            all.iter().rev().find_map(|s| refusal::read(cx, &workload, s.message).map(|r| (s, r)))
        else {
            continue;
        };
        if read.fault == FaultClass::QuotaExhausted {
            of_quota.entry(read.cause.clone()).or_default().push(workload.clone());
        }
        out.push(finding(&workload, newest, &all, read));
    }
    out.extend(of_quota.into_iter().filter(|(_, w)| w.len() > 1).map(|(quota, w)| shared(&quota, &w)));
}

/// One quota that stops several workloads is one trouble.
fn shared(quota: &ObjectRef, workloads: &[ObjectRef]) -> Finding {
    let names: Vec<&str> = workloads.iter().map(|w| w.name.as_str()).take(10).collect();
    let summary = format!("{quota} is used up and stops {} workloads: {}", workloads.len(), names.join(", "));
    let finding = Finding::new(FaultClass::QuotaExhausted, quota.clone(), summary)
        .fix(format!(
            "Raise spec.hard of the quota (kubectl -n {} edit resourcequota {}), or lower requests and replicas in the \
             namespace",
            quota.namespace, quota.name
        ))
        .field(quota, "status.used", "what was asked for is more than what is left");
    workloads.iter().cloned().fold(finding, Finding::hits)
}

fn finding(workload: &ObjectRef, newest: &Said<'_>, all: &[Said<'_>], read: Refusal) -> Finding {
    let Refusal { fault, cause, why, fix, explained_by } = read;
    let summary = match fault {
        FaultClass::QuotaExhausted => format!("Pods of {workload} are refused: quota {} is used up", cause.name),
        FaultClass::LimitRangeRejects => format!("Pods of {workload} are refused by a limit range"),
        FaultClass::PodSecurityRefused => format!("Pods of {workload} are refused by pod security"),
        FaultClass::MissingServiceAccount => {
            format!("Pods of {workload} are refused: service account {} is missing", cause.name)
        }
        FaultClass::PolicyViolation => format!("Pods of {workload} are blocked by policy {}", cause.name),
        _ => format!("Pods of {workload} cannot be created"),
    };
    let mut finding = Finding::new(fault, workload.clone(), summary).because(cause, why).fix(fix).since(newest.at);
    finding = explained_by.into_iter().fold(finding, Finding::explained_by);
    for s in std::iter::once(newest).chain(all) {
        finding = match s.event {
            Some(event) => finding.event(event),
            None => finding.field(&s.by, "status.conditions[ReplicaFailure]", s.message),
        };
        if s.by != *workload {
            finding = finding.hits(s.by.clone());
        }
    }
    finding
}

fn conditions<'a>(cx: &Context<'a>, said: &mut BTreeMap<ObjectRef, Vec<Said<'a>>>) {
    for set in cx.world.replica_sets.iter() {
        if let Some(c) = set.status.conditions.when("ReplicaFailure", "True").filter(|_| set.spec.wanted() > 0) {
            let by = ObjectRef::of("ReplicaSet", &set.metadata);
            let root = cx.root_of("ReplicaSet", &set.metadata);
            said.entry(root).or_default().push(Said {
                by,
                message: &c.message,
                event: None,
                at: c.last_transition_time,
            });
        }
    }
    for d in cx.world.deployments.iter() {
        if let Some(c) = d.status.conditions.when("ReplicaFailure", "True").filter(|_| d.spec.wanted() > 0) {
            let by = ObjectRef::of("Deployment", &d.metadata);
            let at = c.last_transition_time;
            said.entry(by.clone()).or_default().push(Said { by, message: &c.message, event: None, at });
        }
    }
}

fn events<'a>(cx: &Context<'a>, said: &mut BTreeMap<ObjectRef, Vec<Said<'a>>>) {
    for event in cx.world.events.iter() {
        if !matches!(event.reason.as_str(), "FailedCreate" | "ReplicaSetCreateError") || event.kind == "Normal" {
            continue;
        }
        let about = &event.involved_object;
        let Some(root) = lacking(cx, &about.kind, &about.namespace, &about.name) else { continue };
        let by = ObjectRef::new(about.kind.clone(), about.namespace.clone(), about.name.clone());
        let at = event.last_seen();
        said.entry(root).or_default().push(Said { by, message: &event.message, event: Some(event), at });
    }
}

/// The workload at the top of what the event is about, while that still lacks pods: events outlive what they tell.
fn lacking(cx: &Context<'_>, kind: &str, namespace: &str, name: &str) -> Option<ObjectRef> {
    let world = cx.world;
    let fewer = |there: i64, wanted: i64| wanted > 0 && there < wanted;
    let pods = |root: &ObjectRef| i64::try_from(cx.pods_of(root).len()).unwrap_or(i64::MAX);
    let (meta, lacks) = match kind {
        "ReplicaSet" => {
            let Some(set) = world.replica_sets.get(namespace, name) else {
                return gone(cx, namespace, name);
            };
            let own = cx.pods_of(&cx.root_of(kind, &set.metadata)).iter();
            let own = own.filter(|p| p.metadata.controller().is_some_and(|o| o.name == name)).count();
            let there = i64::try_from(own).unwrap_or(i64::MAX).max(set.status.replicas);
            (&set.metadata, fewer(there, set.spec.wanted()))
        }
        "StatefulSet" => {
            let set = world.stateful_sets.get(namespace, name)?;
            let there = pods(&ObjectRef::of(kind, &set.metadata)).max(set.status.replicas);
            (&set.metadata, fewer(there, set.spec.wanted()))
        }
        "DaemonSet" => {
            let set = world.daemon_sets.get(namespace, name)?;
            let (status, root) = (&set.status, ObjectRef::of(kind, &set.metadata));
            let there = pods(&root).max(status.current_number_scheduled);
            // A status that nobody has written says nothing about how many are wanted.
            (&set.metadata, fewer(there, status.desired_number_scheduled.max(1)))
        }
        "Job" => {
            let job = world.jobs.get(namespace, name)?;
            let (status, root) = (&job.status, cx.root_of(kind, &job.metadata));
            let began = status.active + status.succeeded > 0 || pods(&root) > 0;
            (&job.metadata, !began && !job.spec.suspend && status.conditions.when("Complete", "True").is_none())
        }
        "CronJob" => (&world.cron_jobs.get(namespace, name)?.metadata, true),
        "Deployment" => {
            let d = world.deployments.get(namespace, name)?;
            let there = pods(&ObjectRef::of(kind, &d.metadata)).max(d.status.replicas);
            (&d.metadata, fewer(there, d.spec.wanted()))
        }
        _ => return None,
    };
    (lacks && meta.deletion_timestamp.is_none()).then(|| cx.root_of(kind, meta))
}

/// Where replica sets could not be seen: the deployment by the name, which has a hash at its end.
fn gone(cx: &Context<'_>, namespace: &str, name: &str) -> Option<ObjectRef> {
    if cx.world.replica_sets.sees(namespace) {
        return None;
    }
    let (base, _) = name.rsplit_once('-')?;
    let d = cx.world.deployments.get(namespace, base)?;
    (d.status.replicas < d.spec.wanted()).then(|| ObjectRef::of("Deployment", &d.metadata))
}
