//! The decisions of an incident, run again from the record.
//!
//! What a node saw is in the journal: the incident is folded up to it, what was looked at, learned and tried is in the
//! `seen` of its row, verdict facts and the guard's memory too. Topology and playbooks are those given: of an older
//! record they may have changed since, and then a difference says so.

use crate::WorkflowConfig;
use crate::case::Ranked;
use crate::node::Node;
use crate::nodes::{assess, judging, planning};
use nightshift_guard::{Facts, Guard, GuardState};
use nightshift_model::{
    Decision, EventKind, Incident, IncidentId, JournalEvent, Plan, Prediction, Severity, Timestamp, Verdict, journal,
};
use nightshift_plan::{Ask, Candidate, Images, PlanConfig, Playbooks, Stats, WhatIf, propose};
use nightshift_topology::Topology;
use serde::Serialize;
use serde_json::Value;
use std::time::Duration;

/// What the decisions are run again with.
pub struct ReplayRooms<'a> {
    /// What there is.
    pub topology: &'a Topology,
    /// The playbooks.
    pub playbooks: &'a Playbooks,
    /// Settings of planning.
    pub plan: &'a PlanConfig,
    /// Settings and policies; its memory is put back to what it was.
    pub guard: &'a Guard,
    /// Settings of the workflow.
    pub workflow: &'a WorkflowConfig,
}

/// One decision, as it was and as it would be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Decided {
    /// Place of its row in the chain.
    pub seq: u64,
    /// When it was made.
    pub at: Timestamp,
    /// Which node made it.
    pub node: Node,
    /// What it was.
    pub recorded: String,
    /// What it is with the rooms at hand.
    pub replayed: String,
    /// Whether they differ in what follows from them.
    pub differs: bool,
}

/// An incident's decisions, in order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Replay {
    /// Which incident.
    pub incident: IncidentId,
    /// Nodes that decide something; the others only wait and do.
    pub decisions: Vec<Decided>,
}

impl Replay {
    /// Whether anything would have been different.
    pub fn differs(&self) -> bool {
        self.decisions.iter().any(|d| d.differs)
    }
}

/// Runs the decisions of an incident again. `rows`: its rows of the journal, in order; rows of others are passed over.
///
/// # Errors
/// When the rows do not begin with the incident's own opening.
pub fn replay(rows: &[JournalEvent], incident: IncidentId, rooms: &ReplayRooms<'_>) -> Result<Replay, String> {
    let mut walk = Walk { rooms, inc: None, before_plan: None, judged: None, again: None, out: Vec::new() };
    for row in rows.iter().filter(|r| r.incident == incident) {
        walk.row(row);
        if walk.inc.is_none() {
            return Err(format!(
                "row {} of incident {incident} comes before its opening: give all of its rows, in order",
                row.seq
            ));
        }
    }
    match walk.inc {
        Some(_) => Ok(Replay { incident, decisions: walk.out }),
        None => Err(format!("no row of incident {incident} was given")),
    }
}

const NOT_RECORDED: &str = "what it saw was not recorded";

struct Walk<'a> {
    rooms: &'a ReplayRooms<'a>,
    inc: Option<Incident>,
    /// The incident as it was before its newest plan: what the planner saw.
    before_plan: Option<Incident>,
    /// The newest verdict of the safety node, and the same again.
    judged: Option<Verdict>,
    again: Option<Verdict>,
    out: Vec<Decided>,
}

impl Walk<'_> {
    fn row(&mut self, row: &JournalEvent) {
        match &row.event {
            EventKind::PlanProposed { .. } => self.before_plan.clone_from(&self.inc),
            EventKind::Judged { verdict } => self.judged = Some((**verdict).clone()),
            _ => {}
        }
        if let EventKind::NodeDone { node, began_at, ended_at, note, seen, .. } = &row.event
            && let Ok(node) = node.parse::<Node>()
            && let Some(found) = self.node(node, ended_at.since(*began_at), note, seen)
        {
            let (recorded, replayed, differs) = found;
            self.out.push(Decided { seq: row.seq, at: row.at, node, recorded, replayed, differs });
        }
        self.inc = journal::apply(self.inc.take(), row);
    }

    fn node(&mut self, node: Node, waited: Duration, note: &str, seen: &Value) -> Option<(String, String, bool)> {
        let inc = self.inc.as_ref()?;
        if seen.is_null() && matches!(node, Node::IsReal | Node::FixPlanner | Node::Safety) {
            return Some((note.to_owned(), NOT_RECORDED.to_owned(), false));
        }
        match node {
            Node::IsReal => {
                let word = |real: bool| if real { "yes" } else { "no" };
                let number = |key: &str| seen.get(key).and_then(Value::as_f64).unwrap_or(f64::NAN);
                let severity = seen.get("severity").and_then(|s| serde_json::from_value::<Severity>(s.clone()).ok());
                let severity = severity.unwrap_or(inc.severity);
                let was = assess::real(number("score"), severity, number("score_min"));
                let is = assess::real(number("score"), severity, self.rooms.workflow.real_score_min);
                Some((word(was).into(), word(is).into(), was != is))
            }
            Node::RootCause if !inc.synthetic && !seen.is_null() => {
                let config = self.rooms.workflow;
                let settle = Duration::from_secs(config.settle_secs);
                let is = assess::settled(&Ranked::of(inc), config.settle_confidence, waited, settle);
                let replayed = if is { note.to_owned() } else { "waits for the ranking to settle".to_owned() };
                Some((note.to_owned(), replayed, !is))
            }
            Node::FixPlanner => Some(self.fix_planner(note, seen)),
            Node::Safety => Some(self.safety(note, seen)),
            Node::ExecutionDecision => {
                let (was, is) = (self.judged.as_ref()?, self.again.as_ref()?);
                let (was, is) = (judging::follows(was, inc.synthetic), judging::follows(is, inc.synthetic));
                Some((was.to_string(), is.to_string(), was != is))
            }
            _ => None,
        }
    }

    fn fix_planner(&mut self, note: &str, seen: &Value) -> (String, String, bool) {
        let saw = match serde_json::from_value::<planning::PlannerSaw>(seen.clone()) {
            Ok(saw) => saw,
            Err(e) => return (note.to_owned(), format!("{NOT_RECORDED} readably: {e}"), false),
        };
        // The plan of this very visit, if it made one: its row is the one before.
        let mut made = self.inc.as_ref().and_then(|inc| inc.plan.clone());
        made = made.filter(|p| p.made_at == saw.now);
        let inc = if made.is_some() { self.before_plan.as_ref() } else { self.inc.as_ref() };
        let Some(inc) = inc else { return (note.to_owned(), NOT_RECORDED.to_owned(), false) };
        let mut stats = Stats::new();
        for (playbook, fault, successes, failures) in &saw.stats {
            stats.set(playbook, *fault, *successes, *failures);
        }
        let recorded = Recorded(&saw.candidates);
        let ask = Ask {
            incident: inc,
            topology: self.rooms.topology,
            images: &saw.images,
            changes: &saw.changes,
            tried: &saw.tried,
            parent: saw.parent,
            stats: &stats,
            what_if: saw.what_if.then_some(&recorded as &dyn WhatIf),
            config: self.rooms.plan,
            now: saw.now,
        };
        let again = propose(self.rooms.playbooks, &ask).plan;
        let differs = made.as_ref().map(|p| p.hash) != again.as_ref().map(|p| p.hash);
        (told(made.as_ref()), told(again.as_ref()), differs)
    }

    fn safety(&mut self, note: &str, seen: &Value) -> (String, String, bool) {
        self.again = None;
        let facts = seen.get("facts").cloned().and_then(|f| serde_json::from_value::<Facts>(f).ok());
        let state = seen.get("guard").cloned().and_then(|g| serde_json::from_value::<GuardState>(g).ok());
        let plan = self.inc.as_ref().and_then(|inc| inc.plan.clone());
        let (Some(facts), Some(state), Some(plan), Some(was)) = (facts, state, plan, self.judged.as_ref()) else {
            return (note.to_owned(), NOT_RECORDED.to_owned(), false);
        };
        let mut guard = self.rooms.guard.clone();
        guard.restore(state);
        let again = guard.judge(&nightshift_guard::Ask { plan: &plan, facts: &facts }, was.at);
        let against = |v: &Verdict| {
            let standing = v.reasons.iter().filter(|r| r.decision > Decision::Execute);
            standing.map(|r| (r.rule.clone(), r.decision)).collect::<Vec<_>>()
        };
        let differs = (was.decision, was.dry_run, against(was)) != (again.decision, again.dry_run, against(&again));
        let out = (was.summary(), again.summary(), differs);
        self.again = Some(again);
        out
    }
}

fn told(plan: Option<&Plan>) -> String {
    plan.map_or_else(|| "no plan".to_owned(), |p| format!("{} (plan {})", p.title, p.hash.short()))
}

/// What the trials said then: they are not run again.
struct Recorded<'a>(&'a [Candidate]);

impl WhatIf for Recorded<'_> {
    fn predict(&self, plan: &Plan, _: &Incident, _: &Topology, _: &Images, _: Timestamp) -> Option<Prediction> {
        let of = |c: &&Candidate| c.playbook == plan.playbook && plan.covers.iter().any(|h| h.entity == c.target);
        self.0.iter().find(of).and_then(|c| c.prediction.clone())
    }
}
