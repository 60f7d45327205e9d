//! Cron jobs: schedules that never come, runs that were missed, runs that do not end.

use super::schedule::Schedule;
use crate::objects::{CronJob, Event, Job};
use crate::{Context, Finding, Grade, ObjectRef};
use nightshift_model::{FaultClass, Timestamp};
use std::collections::BTreeMap;
use std::time::Duration;

/// How late a run may start before it counts as missed: the controller starts one within seconds.
const LATE: Duration = Duration::from_secs(120);
/// A schedule in a zone is read as UTC; no zone is further away than this, half an hour included.
const ZONES: Duration = Duration::from_secs(15 * 3600);

/// Runs the checks.
pub(super) fn run(cx: &Context<'_>, out: &mut Vec<Finding>) {
    // Jobs that have not ended, by the cron job that made them.
    let mut running: BTreeMap<(&str, &str), Vec<&Job>> = BTreeMap::new();
    for job in cx.world.jobs.iter() {
        let ended = ["Complete", "Failed"].iter().any(|c| job.status.conditions.when(c, "True").is_some());
        if let Some(owner) = job.metadata.controller().filter(|o| o.kind == "CronJob" && !ended) {
            running.entry((&job.metadata.namespace, &owner.name)).or_default().push(job);
        }
    }
    for cron in cx.world.cron_jobs.iter().filter(|c| c.metadata.deletion_timestamp.is_none()) {
        let object = ObjectRef::of("CronJob", &cron.metadata);
        let jobs = running.get(&(cron.metadata.namespace.as_str(), cron.metadata.name.as_str()));
        out.extend(one(cx, &object, cron, jobs.map_or(&[], Vec::as_slice)));
    }
}

fn one(cx: &Context<'_>, object: &ObjectRef, cron: &CronJob, jobs: &[&Job]) -> Option<Finding> {
    let schedule = match Schedule::parse(&cron.spec.schedule) {
        Ok(schedule) => schedule,
        Err(problem) => return Some(invalid(object, cron, &format!("the schedule cannot be read: {problem}"))),
    };
    if schedule.next(cx.now).is_none() {
        return Some(invalid(object, cron, "no day of the calendar meets the schedule: it never comes"));
    }
    if let Some(secs) = cron.spec.starting_deadline_seconds.filter(|s| *s <= 0) {
        return Some(deadline(object, secs));
    }
    if let Some(event) = event(cx, object, &["UnparseableSchedule", "InvalidSchedule", "UnknownTimeZone"]) {
        return Some(invalid(object, cron, &event.message).event(event));
    }
    if cron.spec.suspend {
        return Some(suspended(object, cron));
    }
    endless(cx, object, cron, &schedule, jobs).or_else(|| missed(cx, object, cron, &schedule, jobs))
}

fn event<'a>(cx: &Context<'a>, object: &ObjectRef, reasons: &[&str]) -> Option<&'a crate::objects::Event> {
    let events = cx.events("CronJob", &object.namespace, &object.name);
    events.iter().rev().find(|e| reasons.contains(&e.reason.as_str())).copied()
}

fn invalid(object: &ObjectRef, cron: &CronJob, why: &str) -> Finding {
    let schedule = &cron.spec.schedule;
    let zone = cron.spec.time_zone.as_deref().map_or(String::new(), |z| format!(", spec.timeZone: {z}"));
    Finding::new(
        FaultClass::CronScheduleInvalid,
        object.clone(),
        format!("{object} never runs: its schedule is `{schedule}`"),
    )
    .because(object.clone(), format!("`{schedule}`: {why}"))
    .fix("Write a schedule that comes, as minute hour day month weekday (`0 3 * * *` is every night at three), or @daily")
    .field(object, "spec.schedule", format!("{schedule}{zone}"))
}

fn deadline(object: &ObjectRef, secs: i64) -> Finding {
    Finding::new(
        FaultClass::CronScheduleInvalid,
        object.clone(),
        format!("{object} never runs: its starting deadline is {secs} s"),
    )
    .because(object.clone(), format!("spec.startingDeadlineSeconds is {secs}: every run is too late before it begins"))
    .fix("Set startingDeadlineSeconds to 100 or more, or take it out")
    .field(object, "spec.startingDeadlineSeconds", secs.to_string())
}

fn suspended(object: &ObjectRef, cron: &CronJob) -> Finding {
    let last = cron.status.last_schedule_time.map_or(String::new(), |t| format!("; it last ran at {t}"));
    Finding::new(FaultClass::CronSuspended, object.clone(), format!("{object} is suspended: it starts no runs{last}"))
        .because(object.clone(), "spec.suspend is true")
        .fix(format!(
            "Nothing, if that is meant; else: kubectl -n {} patch cronjob {} -p '{{\"spec\":{{\"suspend\":false}}}}'",
            object.namespace, object.name
        ))
        .field(object, "spec.suspend", "true")
        .graded(Grade::Info)
}

fn began(job: &Job) -> Option<Timestamp> {
    job.status.start_time.or(job.metadata.creation_timestamp)
}

/// Runs that overlap, or one that has missed its successors.
fn endless(
    cx: &Context<'_>,
    object: &ObjectRef,
    cron: &CronJob,
    schedule: &Schedule,
    jobs: &[&Job],
) -> Option<Finding> {
    let told = event(cx, object, &["JobAlreadyActive"]).filter(|_| !jobs.is_empty() || !cron.status.active.is_empty());
    // What its status lists counts unless the job is known to have ended.
    let ended = |name: &str| {
        let job = cx.world.jobs.get(&object.namespace, name);
        job.is_some_and(|j| ["Complete", "Failed"].iter().any(|c| j.status.conditions.when(c, "True").is_some()))
    };
    let active = jobs.len().max(cron.status.active.iter().filter(|a| !ended(&a.name)).count());
    let oldest = jobs.iter().filter_map(|j| Some((began(j)?, *j))).min_by_key(|(at, j)| (*at, &j.metadata.name));
    let overtaken = oldest.filter(|(at, _)| {
        // Two whole intervals: one run may be a little longer than the gap to the next.
        let first = schedule.next(*at);
        let second = first.and_then(|f| schedule.next(f));
        second.is_some_and(|s| s <= cx.now) && cx.age(*at) > LATE
    });
    if told.is_none() && active < 2 && overtaken.is_none() {
        return None;
    }
    let every = schedule
        .interval_secs(cx.now)
        .map_or_else(|| "its interval".to_owned(), |s| format!("{} minutes", (s + 59) / 60));
    let long = oldest.map_or(String::new(), |(at, j)| {
        format!("run {} began {} and has not ended; ", j.metadata.name, super::deployment::ago(cx, at))
    });
    let policy = if cron.spec.concurrency_policy.is_empty() { "Allow" } else { cron.spec.concurrency_policy.as_str() };
    let (summary, effect) = if active >= 2 {
        (
            format!("Runs of {object} overlap: {active} are active at once"),
            "each new run is started beside the old ones",
        )
    } else {
        (
            format!("A run of {object} does not finish before the next are due"),
            if policy == "Replace" { "each new run ends the one before" } else { "the next runs are skipped" },
        )
    };
    let mut finding = Finding::new(FaultClass::CronNeverFinishes, object.clone(), summary)
        .because(
            oldest.map_or_else(|| object.clone(), |(_, j)| ObjectRef::of("Job", &j.metadata)),
            format!("{long}it is due every {every}, and with concurrencyPolicy {policy} {effect}"),
        )
        .fix(format!(
            "See what the oldest run waits for (kubectl -n {} get pods, logs), give its job an activeDeadlineSeconds \
             below {every}, or run it less often",
            object.namespace
        ))
        .field(object, "spec.schedule", &cron.spec.schedule)
        .field(object, "status.active", format!("{active} active, concurrencyPolicy {policy}"));
    if let Some(event) = told {
        finding = finding.event(event);
    }
    for job in jobs.iter().take(10) {
        finding = finding.hits(ObjectRef::of("Job", &job.metadata));
    }
    Some(finding)
}

/// When an event last told it: by its own times, where it has any.
fn told_at(event: &Event) -> Option<Timestamp> {
    let series = event.series.as_ref().and_then(|s| s.last_observed_time);
    [series, event.last_timestamp, event.event_time].into_iter().flatten().max().or(event.metadata.creation_timestamp)
}

/// The run that was due and did not start.
fn missed(cx: &Context<'_>, object: &ObjectRef, cron: &CronJob, schedule: &Schedule, jobs: &[&Job]) -> Option<Finding> {
    let last = cron.status.last_schedule_time;
    let told = event(cx, object, &["MissSchedule", "TooManyMissedTimes"])
        // A run since then makes up for it.
        .filter(|e| last.is_none() || told_at(e) > last);
    let utc = cron.spec.time_zone.as_deref().is_none_or(|z| matches!(z, "" | "UTC" | "Etc/UTC" | "GMT" | "Etc/GMT"));
    // The controller writes down the time of the schedule, not of the start: then the next one is known to the minute.
    // Anything else may be off by an interval, so that a second run must have been missed.
    let exact = |at: Timestamp| utc && schedule.next(at - Duration::from_secs(60)) == Some(at);
    let patience = if utc { LATE } else { LATE + ZONES };
    // A run that still goes on may hold the next one back.
    let held = !jobs.is_empty() || !cron.status.active.is_empty();
    let due = last.and_then(|at| {
        let due = schedule.next(at)?;
        let certain = if exact(at) { due } else { schedule.next(due)? };
        (!held && cx.age(certain) > patience).then_some(due)
    });
    if told.is_none() && due.is_none() {
        return None;
    }
    let since = due.or(told.and_then(|e| e.first_seen()));
    let why = match (told, due) {
        (Some(e), _) => format!("the controller says: {}", e.message),
        (None, Some(due)) => format!("a run was due at {due} and none has started since {}", last.unwrap_or(due)),
        (None, None) => String::new(),
    };
    let window = cron
        .spec
        .starting_deadline_seconds
        .map_or(String::new(), |s| format!(" or the starting deadline of {s} s was too short"));
    let mut finding = Finding::new(
        FaultClass::CronMissedRuns,
        object.clone(),
        format!("{object} misses its runs (schedule `{}`)", cron.spec.schedule),
    )
    .because(object.clone(), why)
    .fix(format!(
        "See that kube-controller-manager runs and its clock is right{window}; start the missed run by hand: kubectl \
         -n {} create job --from=cronjob/{} {}-now",
        object.namespace, object.name, object.name
    ))
    .field(object, "status.lastScheduleTime", last.map_or("never".to_owned(), |t| t.to_rfc3339()))
    .field(object, "spec.schedule", &cron.spec.schedule)
    .since(since);
    if let Some(event) = told {
        finding = finding.event(event);
    }
    Some(finding)
}
