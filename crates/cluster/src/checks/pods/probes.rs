//! Probes: a readiness probe that never passes, a liveness or startup probe that kills.

use super::change::{self, probe as probe_text};
use super::facts::{Part, Subject};
use super::text::{quote, span};
use super::{Trouble, Weight, crash};
use crate::objects::{Event, IntOrString, Probe};
use crate::{Finding, ObjectRef};
use nightshift_model::FaultClass;
use std::time::Duration;

/// A kill of longer ago says nothing about now.
const RECENT: Duration = Duration::from_secs(3600);
/// Kills from which a container that is ready again counts as being killed again and again.
const KILLS: i64 = 3;
/// A container that is not ready for so long, without an event that says why, is not starting any more.
const NOT_READY: Duration = Duration::from_secs(300);

/// Seconds until a probe that fails from the start counts.
fn allowance(probe: &Probe) -> u64 {
    let times = probe.failure_threshold.unwrap_or(3).max(1) * probe.period_seconds.unwrap_or(10).max(1);
    u64::try_from(probe.initial_delay_seconds.unwrap_or(0).max(0) + times).unwrap_or(30)
}

/// Whether an event is about this container, as far as it says.
fn about(event: &Event, part: Part<'_>, only: bool) -> bool {
    let path = &event.involved_object.field_path;
    if path.is_empty() {
        let named = event.message.to_ascii_lowercase().contains(&format!("container {} ", part.name()));
        return only || named || !event.message.starts_with("Container ");
    }
    path.contains(&format!("{{{}}}", part.name()))
}

/// The newest failure of a probe by an event.
fn failure<'a>(subject: &Subject<'a>, part: Part<'_>, which: &str) -> Option<&'a Event> {
    let only = subject.pod.spec.containers.len() == 1;
    let says =
        |e: &&&Event| e.reason == "Unhealthy" && e.message.trim_start().starts_with(which) && about(e, part, only);
    subject.events().iter().rev().find(says).copied()
}

/// What of a probe does not fit its container: its port is not one that the container has.
fn misfit(probe: &Probe, part: Part<'_>) -> Option<(bool, String)> {
    let target = probe.http_get.as_ref().or(probe.tcp_socket.as_ref()).or(probe.grpc.as_ref())?;
    let ports = &part.spec.ports;
    let has: Vec<String> = ports
        .iter()
        .map(|p| {
            if p.name.is_empty() { p.container_port.to_string() } else { format!("{} ({})", p.container_port, p.name) }
        })
        .collect();
    let has = if has.is_empty() { "no ports".to_owned() } else { format!("port {}", has.join(", ")) };
    match target.port.as_ref()? {
        IntOrString::Text(name) if name.parse::<i64>().is_err() => {
            let fits = ports.iter().any(|p| p.name == *name);
            (!fits).then(|| (true, format!("it asks port `{name}`, and the container names {has}")))
        }
        port => {
            let number = match port {
                IntOrString::Int(n) => *n,
                IntOrString::Text(t) => t.parse().unwrap_or(0),
            };
            let fits = ports.is_empty() || ports.iter().any(|p| p.container_port == number);
            (!fits).then(|| (false, format!("it asks port {number}, and the container has {has}")))
        }
    }
}

/// What the message of a failed probe means.
fn meaning(message: &str, probe: &Probe) -> (String, bool) {
    let low = message.to_ascii_lowercase();
    let code = low.split("statuscode: ").nth(1).map(|c| c.chars().take_while(char::is_ascii_digit).collect::<String>());
    let path = probe.http_get.as_ref().map_or("/", |t| if t.path.is_empty() { "/" } else { &t.path });
    match code.as_deref() {
        Some("404") => (format!("path {path} does not exist there (404)"), false),
        Some("401" | "403") => (format!("path {path} asks for credentials"), false),
        Some(c) if c.starts_with('5') => (format!("the program says itself that it is not ready ({c})"), true),
        Some(c) => (format!("path {path} is answered with {c}"), false),
        None if low.contains("connection refused") => ("nothing listens on that port".into(), false),
        None if low.contains("timeout") || low.contains("deadline exceeded") => {
            (format!("no answer within {} s", probe.timeout_seconds.unwrap_or(1)), true)
        }
        None if low.contains("not found") || low.contains("no such file") => {
            ("its command is not in the image".into(), false)
        }
        None => (quote(message.split_once(": ").map_or(message, |(_, m)| m)), true),
    }
}

/// A container that runs and is never ready.
pub(super) fn readiness(subject: &Subject<'_>, out: &mut Vec<Trouble>) {
    for part in subject.parts().filter(|p| !p.init || p.spec.is_sidecar()) {
        let Some(probe) = part.spec.readiness_probe.as_ref() else { continue };
        if !part.running() || part.ready() {
            continue;
        }
        let runs = part.running_since().map(|t| subject.age(t));
        let event = failure(subject, part, "Readiness probe");
        let threshold = probe.failure_threshold.unwrap_or(3).max(1);
        let grace = Duration::from_secs(allowance(probe));
        let misfit = misfit(probe, part);
        let over = runs.is_none_or(|r| r > grace);
        let certain = match (event, &misfit) {
            (_, Some((true, _))) => true,
            (Some(_), Some(_)) => true,
            (Some(e), None) => {
                let long = e.first_seen().is_some_and(|t| subject.age(t) > grace);
                over || long || e.times() >= threshold || e.message.contains("statuscode: 404")
            }
            (None, Some(_)) => over,
            (None, None) => runs.is_some_and(|r| r > grace + NOT_READY),
        };
        if certain {
            out.push(not_ready(subject, part, probe, event, misfit.map(|(_, m)| m)));
        }
    }
}

fn not_ready(
    subject: &Subject<'_>,
    part: Part<'_>,
    probe: &Probe,
    event: Option<&Event>,
    misfit: Option<String>,
) -> Trouble {
    let said = event.map(|e| meaning(&e.message, probe));
    let its_own = said.as_ref().is_some_and(|(_, own)| *own);
    let why = match (&misfit, &said) {
        (Some(m), Some((s, _))) => format!("{m}; {s}"),
        (Some(m), None) => m.clone(),
        (None, Some((s, _))) => s.clone(),
        (None, None) => "nothing says why".into(),
    };
    let asks = probe_text(Some(probe));
    let summary = format!("The readiness probe of {} ({asks}) fails, so it gets no traffic: {why}", part.called());
    let mut finding = subject.draft(FaultClass::ReadinessProbeFailure, summary);
    let changed = change::of(subject.cx, subject.root);
    let note = changed.as_ref().map(|c| format!("; {}", c.told)).unwrap_or_default();
    finding = finding.because(subject.root.clone(), format!("Readiness probe of {}: {why}{note}", part.called()));
    finding = finding.fix(match (&misfit, its_own) {
        (None, true) => format!(
            "Look at why it is not ready (kubectl logs {} -n {} -c {}): the probe only says so.",
            subject.name(),
            subject.namespace(),
            part.name()
        ),
        _ => {
            let ports = part.spec.ports.iter().map(|p| p.container_port.to_string()).collect::<Vec<_>>().join(", ");
            let port = if ports.is_empty() {
                "the port and path that it serves".to_owned()
            } else {
                format!("port {ports} and a path that it serves")
            };
            format!("Point the readinessProbe of {} in {} at {port}.", part.called(), subject.target())
        }
    });
    if let Some(c) =
        changed.filter(|c| c.what.contains("readiness") || c.what.contains("image") || c.what.contains("ports"))
    {
        let fix = format!("{} kubectl rollout undo {} takes the change back.", finding.fix, subject.target());
        finding = finding.fix(fix).since(c.at);
    }
    if its_own && misfit.is_none() {
        // What it depends on may be down.
        for service in part
            .spec
            .env
            .iter()
            .filter_map(|e| e.value.as_ref()?.endpoint.as_deref())
            .filter_map(|h| crash::service_of(subject, h))
        {
            finding = crash::explained_by_service(subject, finding, &service);
        }
    }
    if let Some(node) = subject.bad_node() {
        finding = finding.explained_by(node);
    }
    finding = finding.field(&subject.me, &part.spec_path("readinessProbe"), asks).field(
        &subject.me,
        &part.path("ready"),
        "false",
    );
    if let Some(event) = event {
        finding = finding.event(event);
    }
    Trouble::new(Weight::Weak, part.name(), finding)
}

/// A container that a probe kills.
pub(super) fn killed(subject: &Subject<'_>, part: Part<'_>) -> Option<Trouble> {
    let status = part.status?;
    let only = subject.pod.spec.containers.len() == 1;
    let looping = part.waits().0 == "CrashLoopBackOff";
    let end = part.ended();
    let recent = |e: &&&Event| e.last_seen().is_none_or(|t| subject.age(t) <= RECENT);
    let kill = |which: &str| {
        let mut events = subject.events().iter().rev().filter(recent);
        events.find(|e| e.reason == "Killing" && e.message.contains(which) && about(e, part, only)).copied()
    };
    // Well again after a kill or two: the probe did its work.
    let well = status.ready && part.running() && part.restarts() < KILLS;
    if well || (!looping && part.restarts() < 1) {
        return None;
    }
    let signalled = end.is_none_or(|e| matches!(e.exit_code, 0 | 137 | 143) || e.signal > 0);
    let failed =
        |which: &str| failure(subject, part, which).filter(|e| e.last_seen().is_none_or(|t| subject.age(t) <= RECENT));
    let by = |which: &'static str, probe: &str| {
        let failure = failed(probe);
        kill(which).or(failure.filter(|_| signalled)).map(|event| (event, failure))
    };
    let startup = part.spec.startup_probe.as_ref().and_then(|p| by("startup probe", "Startup probe").map(|e| (p, e)));
    if let Some((probe, (event, failure))) = startup {
        let finding = told(subject, part, probe, "startup", FaultClass::StartupProbeFailure, Some(event), failure);
        return Some(Trouble::new(Weight::Exact, part.name(), finding));
    }
    let probe = part.spec.liveness_probe.as_ref()?;
    let said = by("liveness probe", "Liveness probe");
    // No event is left, and it knocks where nothing can answer.
    let blind = || end.is_some_and(|e| matches!(e.exit_code, 137 | 143)) && misfit(probe, part).is_some();
    let (event, failure) = match said {
        Some((event, failure)) => (Some(event), failure),
        None if blind() => (None, None),
        None => return None,
    };
    let starts = part.spec.startup_probe.is_none() && says_starting(subject, part);
    let fault = if starts { FaultClass::StartupProbeFailure } else { FaultClass::LivenessProbeFailure };
    let finding = told(subject, part, probe, "liveness", fault, event, failure);
    Some(Trouble::new(Weight::Exact, part.name(), finding))
}

/// Whether the log before the last restart ends while it still starts.
fn says_starting(subject: &Subject<'_>, part: Part<'_>) -> bool {
    let Some(tail) = subject.logs(part.name()) else { return false };
    let last = tail.previous.iter().rev().find(|l| !l.trim().is_empty());
    last.is_some_and(|l| {
        let low = l.to_ascii_lowercase();
        [
            "starting",
            "loading",
            "initializing",
            "initialising",
            "warming",
            "migrat",
            "restoring",
            "replaying",
            "recover",
            "building index",
            "% ",
        ]
        .iter()
        .any(|w| low.contains(w))
            && !low.contains("error")
    })
}

fn told(
    subject: &Subject<'_>,
    part: Part<'_>,
    probe: &Probe,
    which: &str,
    fault: FaultClass,
    event: Option<&Event>,
    failure: Option<&Event>,
) -> Finding {
    let allowed = allowance(probe);
    let asks = probe_text(Some(probe));
    let life = part.ended().and_then(|e| Some(e.finished_at?.since(e.started_at?)));
    // Dead as soon as the probe allows, each time: it never gets far enough to answer.
    let slow = !part.ready() && life.is_some_and(|l| l.as_secs() <= allowed + 45);
    let said = failure.map(|e| meaning(&e.message, probe).0);
    let misfit = misfit(probe, part).map(|(_, m)| m);
    let mut why = format!("its {which} probe ({asks}) gives it {allowed} s");
    for more in [misfit.clone(), said].into_iter().flatten() {
        why = format!("{why}; {more}");
    }
    let starter = fault == FaultClass::StartupProbeFailure;
    let summary = if starter {
        format!(
            "{} is killed by its {which} probe before it has started, {} times so far: {why}",
            part.called(),
            part.restarts()
        )
    } else {
        format!("The liveness probe of {} kills it, {} times so far: {why}", part.called(), part.restarts())
    };
    let changed = change::of(subject.cx, subject.root);
    let note = changed.as_ref().map(|c| format!("; {}", c.told)).unwrap_or_default();
    let lived = life.map(|l| format!("; it lives {} each time", span(l))).unwrap_or_default();
    let fix = match (which, misfit.is_some(), slow || starter) {
        (_, true, _) => format!(
            "Point the {which}Probe of {} in {} at a port that the container has.",
            part.called(),
            subject.target()
        ),
        ("startup", ..) => format!(
            "Raise failureThreshold or periodSeconds of the startupProbe of {} in {} until the slowest start fits.",
            part.called(),
            subject.target()
        ),
        (_, _, true) => format!(
            "Give {} in {} a startupProbe that allows for its slowest start (or a larger initialDelaySeconds), so that liveness begins after it.",
            part.called(),
            subject.target()
        ),
        _ => format!(
            "Raise timeoutSeconds and failureThreshold of the livenessProbe of {} in {}, and let it ask only for what a restart cures.",
            part.called(),
            subject.target()
        ),
    };
    let mut finding = subject
        .draft(fault, summary)
        .because(subject.root.clone(), format!("{}{lived}{note}", why.replacen("its", "Its", 1)))
        .fix(fix)
        .field(&subject.me, &part.spec_path(&format!("{which}Probe")), asks);
    for event in [event, failure].into_iter().flatten() {
        finding = finding.event(event);
    }
    finding = part.told_end(subject, finding);
    if let Some(node) = subject.bad_node() {
        finding = finding.explained_by(ObjectRef::new("Node", "", node.name));
    }
    finding
}
