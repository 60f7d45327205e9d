//! From detection to a cause that a plan can be made for.

use crate::case::{Case, Ranked};
use crate::node::Node;
use crate::turn::{Step, Turn};
use nightshift_model::{Severity, Timestamp};
use serde_json::json;
use std::time::Duration;

pub(super) fn detection(case: &mut Case, turn: &mut Turn<'_, '_>) -> Step {
    let inc = case.inc();
    let late = inc.detection_latency().as_secs_f64();
    let note = format!("{} severity, score {:.2}, seen {late:.1} s after its onset", inc.severity, inc.score);
    turn.go(case, Node::IsReal, note)
}

/// What is only fit for the log, or has ended already, is watched.
pub(crate) fn real(score: f64, severity: Severity, score_min: f64) -> bool {
    score >= score_min && severity > Severity::Low
}

pub(super) fn is_real(case: &mut Case, turn: &mut Turn<'_, '_>) -> Step {
    let (score, severity) = (case.inc().score, case.inc().severity);
    let min = turn.config.real_score_min;
    let seen = json!({ "score": score, "severity": severity, "score_min": min });
    if real(score, severity, min) {
        case.unreal = false;
        return turn.go_seen(case, Node::Correlation, format!("yes: score {score:.2}"), seen);
    }
    case.unreal = true;
    case.why = format!("score {score:.2} is below {min:.2}: it is watched");
    let note = format!("no: {}", case.why);
    turn.go_seen(case, Node::Monitor, note, seen)
}

pub(super) fn correlation(case: &mut Case, turn: &mut Turn<'_, '_>) -> Step {
    let inc = case.inc();
    let (symptoms, affected, risk) =
        (inc.anomalies_total, inc.blast_radius.affected.len(), inc.blast_radius.at_risk.len());
    let note = format!("{symptoms} symptoms of {affected} entities, {risk} more at risk");
    turn.go(case, Node::RootCause, note)
}

/// Whether planning begins with this ranking, at this moment.
pub(crate) fn settled(ranked: &Ranked, confidence: f64, waited: Duration, settle: Duration) -> bool {
    ranked.top.is_some() && ranked.confidence > confidence || waited >= settle
}

pub(super) fn root_cause(case: &mut Case, turn: &mut Turn<'_, '_>) -> Step {
    case.fresh = false;
    let (attempts, plans) = (case.attempts, case.plans);
    if attempts >= turn.config.attempts_max && !case.synthetic {
        let why = format!("{attempts} plans were carried out and it is not over");
        return turn.escalate(case, why, "no further plan is carried out");
    }
    if plans >= turn.config.plans_max && !case.synthetic {
        return turn.escalate(
            case,
            format!("{plans} plans were made and none could be carried out"),
            "no further plan",
        );
    }
    let settle = Duration::from_secs(turn.config.settle_secs);
    let ranked = Ranked::of(case.inc());
    let waited = turn.now.since(case.entered_at);
    if !case.synthetic && !settled(&ranked, turn.config.settle_confidence, waited, settle) {
        let due = case.entered_at + settle;
        if case.due != Some(due) {
            case.due = Some(due);
            case.dirty = true;
        }
        return Step::Waits;
    }
    let note = match case.inc().top_cause() {
        Some(h) => format!("revision {}: {} ({:.0} %)", ranked.revision, h.summary, h.confidence * 100.0),
        None => "no cause was ranked".to_owned(),
    };
    let seen = json!({ "revision": ranked.revision, "waited_secs": waited.as_secs_f64() });
    case.ranked = Some(ranked);
    turn.go_seen(case, Node::FixPlanner, note, seen)
}

/// A timer, relative to when the node was entered.
pub(super) fn deadline(case: &Case, secs: u64) -> Timestamp {
    case.entered_at + Duration::from_secs(secs)
}
