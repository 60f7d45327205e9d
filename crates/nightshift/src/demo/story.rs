//! The story of an incident as a person wants to read it: rows of the journal, told in a line each.

use crate::agents::Told;
use nightshift_model::{ActionState, Decision, EventKind, Image, Incident, Operation, Timestamp};
use serde::Serialize;

/// What a line is about; the view gives each a colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Tone {
    /// Something broke.
    Alarm,
    /// What it is.
    Cause,
    /// What could be done.
    Plan,
    /// Whether it may be.
    Guard,
    /// It is done.
    Act,
    /// It is well again.
    Good,
    /// A person is needed, or did something.
    Person,
    /// The world.
    World,
}

impl Tone {
    /// The word at the head of a line, eight letters at most.
    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::Alarm => "noticed",
            Self::Cause => "cause",
            Self::Plan => "plan",
            Self::Guard => "guard",
            Self::Act => "act",
            Self::Good => "healed",
            Self::Person => "people",
            Self::World => "estate",
        }
    }
}

/// One line of the story.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Line {
    /// Virtual time.
    pub at: Timestamp,
    /// What it is about.
    pub tone: Tone,
    /// `INC-0001`; empty for the estate's own.
    pub incident: String,
    /// The line.
    pub text: String,
}

/// Of what the journal says, what belongs into the story.
pub(super) fn line(told: &Told) -> Option<Line> {
    let (event, inc) = (&told.event, &told.incident);
    let (tone, text) = match &event.event {
        EventKind::Opened { title, anomaly, .. } => {
            let late = inc.detection_latency().as_secs_f64();
            (Tone::Alarm, format!("{title}: {} ({late:.0} s after it began)", anomaly.description))
        }
        EventKind::CausesRanked { hypotheses, .. } => {
            let top = hypotheses.first()?;
            let mut reasons: Vec<_> = top.contributions.iter().filter(|c| c.factor != "prior").collect();
            reasons.sort_by(|a, b| b.log_odds.total_cmp(&a.log_odds));
            let why = reasons.first().map(|c| format!(" because {}", c.why)).unwrap_or_default();
            (Tone::Cause, format!("{} ({:.0} %){why}", top.summary, top.confidence * 100.0))
        }
        EventKind::PlanProposed { plan, findings, .. } if findings.is_empty() => {
            let predicted = plan.prediction.as_ref().map(|p| match p.recovery_secs {
                Some(secs) => format!("; a trial says {:.0} % in {secs:.0} s", p.success_probability * 100.0),
                None => format!("; a trial says {:.0} %", p.success_probability * 100.0),
            });
            (Tone::Plan, format!("{} ({} risk){}", plan.title, plan.risk, predicted.unwrap_or_default()))
        }
        EventKind::PlanProposed { findings, .. } => (Tone::Plan, format!("not fit to run: {}", findings.join("; "))),
        EventKind::Judged { verdict } if verdict.decision == Decision::Execute => {
            let n = verdict.reasons.len();
            (Tone::Guard, format!("may run by itself: all {n} rules agree"))
        }
        EventKind::Judged { verdict } => (Tone::Guard, verdict.summary()),
        EventKind::ApprovalRequested { .. } => {
            (Tone::Person, format!("needs your word: nightshift approve {}", inc.short_id()))
        }
        EventKind::Approved { .. } => (Tone::Person, format!("{} approved", event.actor)),
        EventKind::Rejected { timed_out: true, .. } => (Tone::Person, "nobody answered in time: rejected".into()),
        EventKind::Rejected { .. } => (Tone::Person, format!("{} rejected", event.actor)),
        EventKind::Overridden { to, why, .. } => (Tone::Person, format!("{} overrode to {to}: {why}", event.actor)),
        EventKind::Acknowledged { .. } => (Tone::Person, format!("{} looks at it", event.actor)),
        EventKind::AutomationPaused { .. } => (Tone::Person, format!("{} paused the automation", event.actor)),
        EventKind::AutomationResumed { .. } => (Tone::Person, format!("{} resumed the automation", event.actor)),
        EventKind::TakenOver { .. } => (Tone::Person, format!("{} took over", event.actor)),
        EventKind::ActionIntended { action } if action.operation.changes() => {
            let (verb, values) = (verb(action.operation), values(&action.params));
            (Tone::Act, format!("{verb} {} on {}{values}", action.action, action.target.name()))
        }
        EventKind::ActionEnded { key, outcome, detail, .. } => {
            let state = action_of(inc, key).filter(|a| a.action.operation.changes() || !outcome.is_done())?;
            let what = state.action.operation;
            (Tone::Act, if detail.is_empty() { format!("{what}: {outcome}") } else { format!("{what}: {detail}") })
        }
        EventKind::Verified { readings, executed, .. } => {
            let values = readings.iter().map(|r| format!("{:.1}", r.value)).collect::<Vec<_>>().join(", ");
            let how = if *executed { "the fix helped" } else { "recovered by itself" };
            (Tone::Good, format!("{how}: {values}"))
        }
        EventKind::VerificationFailed { why, .. } => (Tone::Alarm, format!("the fix did not help: {why}")),
        EventKind::Resolved { why } => {
            let took = event.at.since(inc.detected_at).as_secs();
            (Tone::Good, format!("resolved {took} s after it was noticed: {why}"))
        }
        EventKind::Reopened { why } => (Tone::Alarm, format!("came back: {why}")),
        EventKind::Escalated { why, to } => {
            let whom = if to.is_empty() { String::new() } else { format!(" to {}", to.join(", then ")) };
            (Tone::Person, format!("escalated{whom}: {why}"))
        }
        EventKind::PostmortemWritten { .. } => {
            (Tone::Good, format!("postmortem: nightshift postmortem {}", inc.short_id()))
        }
        EventKind::MergedInto { why, .. } => (Tone::Cause, format!("joined into an elder incident: {why}")),
        _ => return None,
    };
    Some(Line { at: event.at, tone, incident: inc.short_id(), text })
}

fn action_of<'a>(inc: &'a Incident, key: &str) -> Option<&'a ActionState> {
    inc.actions.iter().rev().find(|a| a.action.key == key)
}

const fn verb(operation: Operation) -> &'static str {
    match operation {
        Operation::Canary => "tries",
        Operation::Undo => "takes back",
        _ => "does",
    }
}

fn values(params: &Image) -> String {
    let list: Vec<String> = params
        .iter()
        .map(|(k, v)| match v.as_str() {
            Some(text) => format!("{k} {text}"),
            None => format!("{k} {v}"),
        })
        .collect();
    if list.is_empty() { String::new() } else { format!(" ({})", list.join(", ")) }
}
