//! Jobs that failed, or are held.

use crate::objects::{Condition, Job, Pod};
use crate::{Context, Finding, Grade, ObjectRef};
use nightshift_model::FaultClass;
use std::time::Duration;

/// How long the controller may take to end a job whose deadline has passed.
const DEADLINE_SLACK: Duration = Duration::from_secs(60);

/// Runs the checks.
pub(super) fn run(cx: &Context<'_>, out: &mut Vec<Finding>) {
    for job in cx.world.jobs.iter().filter(|j| j.metadata.deletion_timestamp.is_none()) {
        let object = ObjectRef::of("Job", &job.metadata);
        let status = &job.status;
        if status.conditions.when("Complete", "True").is_some() {
            continue;
        }
        if let Some(finding) = failed(cx, &object, job) {
            if !superseded(cx, job) {
                out.push(finding);
            }
        } else if job.spec.suspend && job.metadata.controller().is_none() {
            out.push(suspended(&object, job));
        }
    }
}

fn suspended(object: &ObjectRef, job: &Job) -> Finding {
    let since = job.status.conditions.when("Suspended", "True").and_then(|c| c.last_transition_time);
    Finding::new(FaultClass::JobSuspended, object.clone(), format!("{object} is suspended: none of its pods run"))
        .because(object.clone(), "spec.suspend is true")
        .fix(format!(
            "Nothing, if that is meant; else: kubectl -n {} patch job {} -p '{{\"spec\":{{\"suspend\":false}}}}'",
            object.namespace, object.name
        ))
        .field(object, "spec.suspend", "true")
        .since(since)
        .graded(Grade::Info)
}

fn failed(cx: &Context<'_>, object: &ObjectRef, job: &Job) -> Option<Finding> {
    let (status, spec) = (&job.status, &job.spec);
    let condition =
        status.conditions.when("Failed", "True").or_else(|| status.conditions.when("FailureTarget", "True"));
    let limit = spec.backoff_limit.unwrap_or(6);
    let exhausted = status.failed > limit && status.active == 0 && status.succeeded == 0;
    let late = spec.active_deadline_seconds.filter(|secs| {
        let allowed = Duration::from_secs(u64::try_from(*secs).unwrap_or(0)) + DEADLINE_SLACK;
        status.active > 0 && status.start_time.is_some_and(|at| cx.age(at) > allowed)
    });
    if condition.is_none() && !exhausted && late.is_none() {
        return None;
    }
    let deadline = late.is_some() || condition.is_some_and(|c| c.reason == "DeadlineExceeded");
    let mut last = cx
        .pods_of(&cx.root_of("Job", &job.metadata))
        .iter()
        .copied()
        .filter(|p| p.metadata.controller().is_some_and(|o| o.name == object.name) && ended(p).is_some())
        .collect::<Vec<_>>();
    last.sort_by_key(|p| (p.metadata.creation_timestamp, &p.metadata.name));
    let pod = last.last().copied();
    let end = pod.and_then(ended);
    let (summary, why, fix) = words(object, job, condition, deadline, end.as_deref());
    let root = cx.root_of("Job", &job.metadata);
    let mut finding = Finding::new(FaultClass::JobFailed, root.clone(), summary)
        .because(object.clone(), why)
        .fix(fix)
        .since(condition.and_then(|c| c.last_transition_time))
        .generic();
    if root != *object {
        finding = finding.hits(object.clone());
    }
    if let Some(c) = condition {
        finding =
            finding.field(object, &format!("status.conditions[{}]", c.kind), format!("{}: {}", c.reason, c.message));
    }
    finding = finding.field(object, "status.failed", format!("{} (back-off limit {limit})", status.failed));
    if let Some(pod) = pod {
        finding = finding.hits(ObjectRef::of("Pod", &pod.metadata));
        for container in &pod.spec.containers {
            let key = (pod.metadata.namespace.clone(), pod.metadata.name.clone(), container.name.clone());
            if let Some(line) = cx.world.logs.get(&key).and_then(|l| l.current.last().or(l.previous.last())) {
                let id = format!("log/{}/{}/{}", pod.metadata.namespace, pod.metadata.name, container.name);
                finding = finding.fact(id, "log", line);
            }
        }
    }
    Some(finding)
}

fn words(
    object: &ObjectRef,
    job: &Job,
    condition: Option<&Condition>,
    deadline: bool,
    end: Option<&str>,
) -> (String, String, String) {
    let (namespace, name) = (&object.namespace, &object.name);
    let limit = job.spec.backoff_limit.unwrap_or(6);
    let logs = format!("kubectl -n {namespace} logs job/{name}");
    if deadline {
        let secs = job.spec.active_deadline_seconds.map_or_else(|| "its".to_owned(), |s| format!("{s} s"));
        return (
            format!("{object} ran into its deadline"),
            format!("it was not done within {secs} (spec.activeDeadlineSeconds)"),
            format!(
                "See what takes so long ({logs}), then raise activeDeadlineSeconds or make it do less, and run it again"
            ),
        );
    }
    let end = end.map_or(String::new(), |e| format!("; its last pod {e}"));
    let reason = condition.map_or("BackoffLimitExceeded", |c| c.reason.as_str());
    let said = condition.map_or("", |c| c.message.as_str());
    let why = match reason {
        "PodFailurePolicy" => format!("its pod failure policy ended it: {said}{end}"),
        "BackoffLimitExceeded" => {
            format!("its back-off limit of {limit} is used up by {} failed pods{end}", job.status.failed)
        }
        _ => format!("{reason}: {said}{end}"),
    };
    (
        format!("{object} failed ({reason})"),
        why,
        format!("Read why its pods ended ({logs}), mend it, then delete the job and create it again"),
    )
}

/// How a pod of the job ended, if badly.
fn ended(pod: &Pod) -> Option<String> {
    let status = &pod.status;
    for c in status.init_container_statuses.iter().chain(&status.container_statuses) {
        if let Some(t) =
            [&c.state, &c.last_state].into_iter().find_map(|s| s.terminated.as_ref().filter(|t| t.exit_code != 0))
        {
            return Some(format!("ended with exit code {} ({}) in container {}", t.exit_code, t.reason, c.name));
        }
    }
    (status.phase == "Failed").then(|| format!("failed: {} {}", status.reason, status.message).trim_end().to_owned())
}

/// Whether the cron job that made it has had a good run since.
fn superseded(cx: &Context<'_>, job: &Job) -> bool {
    let meta = &job.metadata;
    let Some(owner) = meta.controller().filter(|o| o.kind == "CronJob") else { return false };
    let began = job.status.start_time.or(meta.creation_timestamp);
    let cron = cx.world.cron_jobs.get(&meta.namespace, &owner.name);
    let good = cron.and_then(|c| c.status.last_successful_time);
    let failed = job.status.conditions.when("Failed", "True").and_then(|c| c.last_transition_time);
    if good.zip(failed.or(began)).is_some_and(|(good, bad)| good > bad) {
        return true;
    }
    cx.world.jobs.in_namespace(&meta.namespace).any(|other| {
        let same = other.metadata.controller().is_some_and(|o| o.kind == "CronJob" && o.name == owner.name);
        let later = other.status.start_time.or(other.metadata.creation_timestamp) > began;
        same && later && other.status.conditions.when("Complete", "True").is_some()
    })
}
