//! Init containers: failing, hanging, waiting for something.

use super::facts::{Part, Subject};
use super::logs::{self, Why};
use super::text::span;
use super::{Trouble, Weight, crash};
use crate::{Finding, ObjectRef};
use nightshift_model::FaultClass;
use std::time::Duration;

/// An init container that runs for longer hangs. Migrations and downloads take minutes.
const HANGS: Duration = Duration::from_secs(600);
/// One whose log says that it waits for something, or whose dependency is not there, is told of sooner.
const WAITS: Duration = Duration::from_secs(60);

/// A crash of an init container: what it would be of any other, under its own name.
pub(super) fn failing(subject: &Subject<'_>, part: Part<'_>, crash: Finding) -> Finding {
    let mut finding = subject.draft(FaultClass::InitContainerFailure, crash.summary.clone());
    finding.cause = crash.cause;
    finding.cause.why = format!("The pod waits for {}: {}", part.called(), finding.cause.why);
    finding.fix = crash.fix;
    finding.evidence = crash.evidence;
    finding.explained_by = crash.explained_by;
    finding.since = crash.since;
    finding.generic = crash.generic;
    finding
}

/// An init container that runs and does not end.
pub(super) fn hanging(subject: &Subject<'_>, out: &mut Vec<Trouble>) {
    let init = subject.parts().find(|p| p.init && !p.spec.is_sidecar() && p.running());
    let Some(part) = init.filter(|p| out.iter().all(|t| t.container != p.name())) else { return };
    let Some(running) = part.running_since().map(|t| subject.age(t)).or_else(|| subject.own_age()) else { return };
    let words = |w: &Why| matches!(w, Why::Refused(_) | Why::UnknownHost(_) | Why::TimedOut(_));
    let tail = subject.logs(part.name());
    let read = tail.and_then(|t| logs::find(t, words));
    let waits = tail.and_then(|t| t.current.iter().rev().find(|l| l.to_ascii_lowercase().contains("waiting for")));
    let host = match read.as_ref().map(|r| &r.why) {
        Some(Why::Refused(h) | Why::UnknownHost(h) | Why::TimedOut(h)) => h.clone(),
        _ => String::new(),
    };
    let service = crash::service_of(subject, &host).or_else(|| dependency(subject, part, waits.map(String::as_str)));
    let sooner = read.is_some() || waits.is_some() || service.is_some();
    if running < if sooner { WAITS } else { HANGS } {
        return;
    }
    let what = match (&service, host.is_empty()) {
        (Some(s), _) => format!(" for service {}", s.name),
        (None, false) => format!(" for {host}"),
        _ => String::new(),
    };
    let summary = if sooner {
        format!("Init container {} has waited{what} for {}: the pod does not start", part.name(), span(running))
    } else {
        format!("Init container {} has run for {} without an end: the pod does not start", part.name(), span(running))
    };
    let mut finding = subject.draft(FaultClass::InitContainerFailure, summary).fix(match &service {
        Some(s) => format!(
            "Bring up service {} in {}, or correct what init container {} of {} waits for.",
            s.name,
            s.namespace,
            part.name(),
            subject.target()
        ),
        None => format!(
            "Read its log (kubectl logs {} -n {} -c {}), and give it a deadline.",
            subject.name(),
            subject.namespace(),
            part.name()
        ),
    });
    if let Some(service) = service {
        let why = match subject.cx.world.services.look(&service.namespace, &service.name).is_missing() {
            true => format!("It waits for service {}, which does not exist", service.name),
            false => format!("It waits for service {}", service.name),
        };
        finding = crash::explained_by_service(subject, finding, &service).because(service, why);
    }
    finding = finding.field(&subject.me, &part.path("state.running"), format!("for {}", span(running)));
    if let Some(line) = read.map(|r| r.line).or_else(|| waits.map(|l| super::text::quote(l))) {
        finding = finding.fact(
            format!("log/{}/{}/{}/current", subject.namespace(), subject.name(), part.name()),
            "log",
            line,
        );
    }
    out.push(Trouble::new(Weight::Exact, part.name(), finding));
}

/// The service that an init container surely waits for: one that its variables name, or that its own name or log does,
/// and that has no pod that is ready.
fn dependency(subject: &Subject<'_>, part: Part<'_>, line: Option<&str>) -> Option<ObjectRef> {
    let cx = subject.cx;
    let hosts = part.spec.env.iter().filter_map(|e| e.value.as_ref()?.endpoint.as_deref());
    let named = hosts.filter_map(|h| crash::service_of(subject, h));
    let said = line
        .into_iter()
        .flat_map(|l| l.split(|c: char| !(c.is_ascii_alphanumeric() || "-.".contains(c))))
        .filter(|w| w.len() > 1);
    let own = part.name().strip_prefix("wait-for-").into_iter();
    let told = said.chain(own).filter_map(|w| {
        let name = w.split('.').next()?;
        cx.world.services.get(subject.namespace(), name).map(|s| ObjectRef::of("Service", &s.metadata))
    });
    named.chain(told).find(|s| match cx.world.services.look(&s.namespace, &s.name) {
        crate::Look::Missing => true,
        crate::Look::Unseen => false,
        crate::Look::Found(found) => {
            !found.spec.selector.is_empty()
                && !cx
                    .pods_with(&s.namespace, &found.spec.selector)
                    .any(|p| p.status.conditions.when("Ready", "True").is_some())
        }
    })
}
