//! Containers that run and are in trouble all the same: memory near its limit, throttled, restarting too often, out of
//! shared memory or file descriptors.

use super::facts::{Part, Subject};
use super::logs::{self, Why};
use super::text::{bytes, mebibytes, span};
use super::{Trouble, Weight, change, crash};
use crate::checks::history::Record;
use crate::{Finding, signal};
use nightshift_model::FaultClass;
use std::time::Duration;

/// Share of its limit from which memory is told of: what is left is gone with one burst.
const MEMORY_NEAR: f64 = 0.9;
/// Share from which it is told of when it grows and will meet the limit soon.
const MEMORY_GROWING: f64 = 0.7;
/// What counts as soon.
const SOON_SECS: f64 = 6.0 * 3600.0;
/// Share of CPU periods with throttling above which latency suffers: the check list's.
const THROTTLED: f64 = 0.25;
/// Restarts within the time below that count as climbing.
const CLIMBS: i64 = 3;
const CLIMBING: Duration = Duration::from_secs(3600);
/// Without a history: so many restarts in all, and the last so short a while ago.
const RESTARTS_MANY: i64 = 5;
const RESTARTED: Duration = Duration::from_secs(600);

/// Looks at the containers that run.
pub(super) fn run(subject: &Subject<'_>, out: &mut Vec<Trouble>) {
    exhausted_by_events(subject, out);
    for part in subject.parts().filter(|p| p.running() && (!p.init || p.spec.is_sidecar())) {
        if out.iter().any(|t| t.container == part.name() && t.weight != Weight::Weak) {
            continue;
        }
        let found = by_log(subject, part)
            .or_else(|| climbing(subject, part))
            .or_else(|| memory(subject, part))
            .or_else(|| throttled(subject, part));
        if let Some(finding) = found {
            out.push(Trouble::new(Weight::Exact, part.name(), finding));
        }
    }
}

fn measured(subject: &Subject<'_>, part: Part<'_>, name: &str) -> Option<f64> {
    let signals = &subject.cx.world.signals;
    if signals.is_empty() {
        return None;
    }
    signals.get(&(subject.me.clone(), format!("{name}/{}", part.name()))).copied().filter(|n| n.is_finite())
}

fn metric(subject: &Subject<'_>, part: Part<'_>, what: &str) -> String {
    format!("metric/{}/{}/{}/{what}", subject.namespace(), subject.name(), part.name())
}

fn memory(subject: &Subject<'_>, part: Part<'_>) -> Option<Finding> {
    if subject.cx.world.usage.is_empty() {
        return None;
    }
    let key = (subject.namespace().to_owned(), subject.name().to_owned(), part.name().to_owned());
    let used = subject.cx.world.usage.get(&key)?.memory;
    let limit = part.spec.resources.limits.get("memory").map(|q| q.0).filter(|l| *l > 0.0)?;
    let growth = measured(subject, part, signal::MEMORY_GROWTH_BYTES_PER_SEC).filter(|g| *g > 0.0);
    let left = growth.map(|g| (limit - used).max(0.0) / g);
    let soon = left.is_some_and(|s| s <= SOON_SECS) && used >= MEMORY_GROWING * limit;
    if used < MEMORY_NEAR * limit && !soon {
        return None;
    }
    let time = left
        .filter(|s| *s <= 7.0 * 86_400.0)
        .map(|s| format!("; at its growth it is killed in {}", span(Duration::from_secs_f64(s))))
        .unwrap_or_default();
    let share = used / limit * 100.0;
    let more = mebibytes(limit * 1.5);
    let finding = subject
        .draft(FaultClass::MemoryNearLimit, format!("{} uses {} of its memory limit of {} ({share:.0} %){time}", part.called(), bytes(used), bytes(limit)))
        .fix(format!(
            "Raise the limit before it is killed (kubectl set resources {} -c {} --limits=memory={more}), and look for a leak if it grows without end.",
            subject.target(),
            part.name()
        ))
        .fact(metric(subject, part, "memory"), "metric", format!("memory {} of {}", bytes(used), bytes(limit)))
        .field(&subject.me, &part.spec_path("resources.limits.memory"), bytes(limit));
    Some(match growth {
        Some(g) => finding.fact(
            metric(subject, part, "memory_growth"),
            "metric",
            format!("grows by {} an hour", bytes(g * 3600.0)),
        ),
        None => finding,
    })
}

fn throttled(subject: &Subject<'_>, part: Part<'_>) -> Option<Finding> {
    let share = measured(subject, part, signal::CPU_THROTTLED_RATIO).filter(|s| *s > THROTTLED)?;
    let limit = part.spec.resources.limits.get("cpu").map(|q| q.0);
    let at = limit.map(|l| format!(" at its CPU limit of {}", super::text::amount("cpu", l))).unwrap_or_default();
    let more = limit
        .map(|l| {
            format!(" (now {}; for example {})", super::text::amount("cpu", l), super::text::amount("cpu", l * 2.0))
        })
        .unwrap_or_default();
    Some(
        subject
            .draft(
                FaultClass::CpuThrottling,
                format!(
                    "{} is throttled in {:.0} % of its CPU periods{at}: it answers late",
                    part.called(),
                    share * 100.0
                ),
            )
            .fix(format!(
                "Raise the CPU limit of {} in {}{more}, or take the limit away and keep the request.",
                part.called(),
                subject.target()
            ))
            .fact(
                metric(subject, part, "cpu_throttled"),
                "metric",
                format!("throttled in {:.0} % of periods", share * 100.0),
            ),
    )
}

/// Restarts that go on while the container looks ready whenever somebody looks.
fn climbing(subject: &Subject<'_>, part: Part<'_>) -> Option<Finding> {
    if !part.ready() {
        return None;
    }
    let counts: Vec<i64> = subject
        .cx
        .world
        .history
        .of(&subject.me)
        .filter(|(at, _)| subject.age(*at) <= CLIMBING)
        .filter_map(|(_, r)| if let Record::Restarts(n) = r { Some(*n) } else { None })
        .collect();
    let rise = counts.last().zip(counts.first()).map_or(0, |(b, a)| b - a);
    let end = part.status.and_then(|s| s.last_state.terminated.as_ref());
    let just = end.is_some_and(|e| e.exit_code != 0 && e.finished_at.is_some_and(|t| subject.age(t) <= RESTARTED));
    let what = if rise >= CLIMBS && part.restarts() >= CLIMBS {
        format!("{rise} restarts within the hour")
    } else if part.restarts() >= RESTARTS_MANY && just {
        format!(
            "{} restarts, the last {} ago",
            part.restarts(),
            end.and_then(|e| e.finished_at).map(|t| span(subject.age(t))).unwrap_or_default()
        )
    } else {
        return None;
    };
    let how = end.map(|e| format!("; it ends with {}", crash::end(e))).unwrap_or_default();
    let read = subject.logs(part.name()).filter(|t| !t.previous.is_empty()).and_then(logs::read);
    let words = read.as_ref().map(|r| format!("; its last words are: {}", r.line)).unwrap_or_default();
    let changed = change::of(subject.cx, subject.root).map(|c| format!("; {}", c.told)).unwrap_or_default();
    let mut finding = subject
        .draft(FaultClass::RestartsClimbing, format!("{} looks ready and keeps restarting: {what}{how}", part.called()))
        .because(subject.root.clone(), format!("{what}{how}{words}{changed}"))
        .fix(format!(
            "Read the end of its log (kubectl logs {} -n {} -c {} --previous) and correct what it names.",
            subject.name(),
            subject.namespace(),
            part.name()
        ))
        .field(&subject.me, &part.path("restartCount"), part.restarts().to_string());
    if let Some(read) = read {
        finding = finding.fact(
            format!("log/{}/{}/{}/{}", subject.namespace(), subject.name(), part.name(), read.place),
            "log",
            &read.line,
        );
    }
    Some(part.told_end(subject, finding))
}

fn by_log(subject: &Subject<'_>, part: Part<'_>) -> Option<Finding> {
    let words = |w: &Why| matches!(w, Why::SharedMemory | Why::FileDescriptors);
    let read = logs::find(subject.logs(part.name())?, words)?;
    let finding = if read.why == Why::SharedMemory { shared_memory(subject, part) } else { descriptors(subject, part) };
    Some(finding.fact(
        format!("log/{}/{}/{}/{}", subject.namespace(), subject.name(), part.name(), read.place),
        "log",
        &read.line,
    ))
}

/// Warnings about the pod whose message names what ran out.
fn exhausted_by_events(subject: &Subject<'_>, out: &mut Vec<Trouble>) {
    if subject.pod.status.phase != "Running" || out.iter().any(|t| t.weight == Weight::Exact) {
        return;
    }
    let recent =
        |e: &&&crate::objects::Event| e.kind == "Warning" && e.last_seen().is_none_or(|t| subject.age(t) <= CLIMBING);
    for event in subject.events().iter().rev().filter(recent) {
        let why = logs::exact(&event.message).filter(|w| matches!(w, Why::SharedMemory | Why::FileDescriptors));
        let Some(why) = why else { continue };
        let field = &event.involved_object.field_path;
        let part = subject
            .parts()
            .find(|p| field.contains(&format!("{{{}}}", p.name())))
            .or_else(|| subject.parts().find(|p| !p.init));
        let Some(part) = part else { return };
        let finding = if why == Why::SharedMemory { shared_memory(subject, part) } else { descriptors(subject, part) };
        out.push(Trouble::new(Weight::Exact, part.name(), finding.event(event)));
        return;
    }
}

/// Out of shared memory.
pub(super) fn shared_memory(subject: &Subject<'_>, part: Part<'_>) -> Finding {
    let mount = part.spec.volume_mounts.iter().find(|m| m.mount_path.trim_end_matches('/') == "/dev/shm");
    let volume = mount.and_then(|m| subject.pod.spec.volumes.iter().find(|v| v.name == m.name));
    let size = volume.and_then(|v| v.empty_dir.as_ref()).and_then(|e| e.size_limit).map(|q| bytes(q.0));
    let (why, fix) = match (mount, size) {
        (Some(m), Some(size)) => (
            format!("Volume {} at /dev/shm holds {size} at most", m.name),
            format!(
                "Raise sizeLimit of volume {} in {} (and the memory limit: it counts there).",
                m.name,
                subject.target()
            ),
        ),
        (Some(m), None) => (
            format!("Volume {} at /dev/shm is full", m.name),
            format!("Give {} in {} more memory: its /dev/shm counts there.", part.called(), subject.target()),
        ),
        (None, _) => (
            "It has the 64 MiB of /dev/shm that every container gets".to_owned(),
            format!(
                "Mount an emptyDir with medium: Memory and a sizeLimit at /dev/shm of {} in {}.",
                part.called(),
                subject.target()
            ),
        ),
    };
    subject
        .draft(FaultClass::SharedMemoryExhausted, format!("{} has no shared memory left", part.called()))
        .because(subject.root.clone(), why)
        .fix(fix)
        .field(&subject.me, &part.spec_path("volumeMounts"), mount.map_or("no mount at /dev/shm", |m| m.name.as_str()))
}

/// Out of file descriptors.
pub(super) fn descriptors(subject: &Subject<'_>, part: Part<'_>) -> Finding {
    subject
        .draft(FaultClass::FileDescriptorsExhausted, format!("{} has no file descriptors left", part.called()))
        .because(subject.root.clone(), format!("{} opens more files and connections than it may, or does not close them", part.called()))
        .fix(format!("Look for connections and files that {} of {} does not close; raise the limit of open files of the runtime only if it needs that many.", part.called(), subject.target()))
        .field(&subject.me, &part.path("state.running"), "open files exhausted")
}
