//! The nodes: each is run on a case until it hands over or waits.

pub(crate) mod acting;
pub(crate) mod assess;
mod ending;
pub(crate) mod judging;
pub(crate) mod planning;
mod waiting;

use crate::Effect;
use crate::case::{Case, Ranked};
use crate::node::Node;
use crate::turn::{Step, Turn, held};
use crate::workflow::is_merged;
use serde_json::Value;

/// Runs the node of a case once, or what must come before it.
pub(crate) fn run(case: &mut Case, turn: &mut Turn<'_, '_>) -> Step {
    if let Some(step) = interrupt(case, turn) {
        return step;
    }
    match case.node {
        Node::Detection => assess::detection(case, turn),
        Node::IsReal => assess::is_real(case, turn),
        Node::Correlation => assess::correlation(case, turn),
        Node::RootCause => assess::root_cause(case, turn),
        Node::FixPlanner => planning::fix_planner(case, turn),
        Node::Safety => judging::safety(case, turn),
        Node::ExecutionDecision => judging::decision(case, turn),
        Node::Approval => judging::approval(case, turn),
        Node::Act => acting::act(case, turn),
        Node::Verify if case.execution.is_some() => acting::act(case, turn),
        Node::Verify => waiting::verify(case, turn),
        Node::Resolved => ending::resolved(case, turn),
        Node::Postmortem => ending::postmortem(case, turn),
        Node::Learn => ending::learn(case, turn),
        Node::Monitor => waiting::monitor(case, turn),
        Node::Escalation => waiting::escalation(case, turn),
    }
}

/// What changes the course wherever the case stands: it was joined into another, it is over, it came back, a person
/// took it, its cause is another one.
fn interrupt(case: &mut Case, turn: &mut Turn<'_, '_>) -> Option<Step> {
    let inc = case.inc();
    if is_merged(inc) {
        if case.execution.is_some() {
            // What was begun is finished; the elder waits for it.
            return Some(acting::act(case, turn));
        }
        let into = inc.merged_into.map(|id| id.to_string()).unwrap_or_default();
        turn.withdraw(case, "the incident was joined into an elder one");
        turn.unwatch(case);
        turn.leave(case, format!("joined into {into}"), Value::Null);
        return Some(Step::Ended);
    }
    if !inc.status.is_open() && !case.node.is_after() {
        let by = inc.resolved_by.clone().unwrap_or_default();
        if case.execution.is_some() {
            acting::stop(case, turn, &format!("the incident was resolved by {by}"));
            return Some(acting::act(case, turn));
        }
        turn.withdraw(case, "the incident is over");
        return Some(turn.go(case, Node::Resolved, format!("over: resolved by {by}")));
    }
    if inc.status.is_open() && matches!(case.node, Node::Postmortem | Node::Learn) {
        return Some(ending::relapse(case, turn, "it came back"));
    }
    if !case.node.is_deciding() {
        return None;
    }
    if let Some(why) = held(inc) {
        turn.withdraw(case, &why);
        case.why.clone_from(&why);
        return Some(turn.go(case, Node::Monitor, why));
    }
    let now = Ranked::of(inc);
    let ranked = case.ranked.as_ref()?;
    let another = match case.node {
        // People are not disturbed because a number moved.
        Node::Approval => ranked.names_another(&now),
        Node::Safety | Node::ExecutionDecision => ranked.differs(&now),
        _ => false,
    };
    (another && !case.synthetic).then(|| {
        let why = "the ranking of causes changed";
        turn.withdraw(case, why);
        turn.go(case, Node::RootCause, why)
    })
}

/// After a restart: what was under way outside is asked for again.
pub(crate) fn recovered(case: &mut Case, turn: &mut Turn<'_, '_>) {
    if case.inc.is_none() {
        return;
    }
    if case.node == Node::FixPlanner {
        planning::ask_again(case, turn);
    }
    if case.policy.as_ref().is_some_and(|ask| ask.answer.is_none()) {
        case.policy = None;
    }
    if let Some(watch) = &case.watch {
        turn.out.push(Effect::Watch { kpi: watch.kpi.clone(), since: watch.since, interval_secs: watch.interval_secs });
    }
    acting::recovered(case, turn);
}
