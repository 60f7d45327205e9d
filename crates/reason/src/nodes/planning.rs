//! The fix planner: looks at targets, makes a plan, has it checked.

use super::assess::deadline;
use crate::Effect;
use crate::case::{Case, Looks, Ranked};
use crate::node::Node;
use crate::turn::{Step, Turn};
use nightshift_act::ActError;
use nightshift_model::{Change, EntityId, EventKind, FaultClass, Image, Incident, Plan, PlanHash, Timestamp};
use nightshift_plan::{Ask, Candidate, Facts, Look, Proposal, Stats, check, needed_looks, propose};
use nightshift_topology::Topology;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// Changes that the planner is given at most, the newest ones.
const CHANGES_MAX: usize = 50;

/// What the planner saw beside the incident, the topology and the playbooks: the record that a replay needs.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct PlannerSaw {
    /// What was looked at.
    pub(crate) images: BTreeMap<EntityId, Image>,
    /// What could not be, one line each.
    pub(crate) failed: Vec<String>,
    /// Changes that it was given.
    pub(crate) changes: Vec<Change>,
    /// Playbooks that were tried before.
    pub(crate) tried: Vec<String>,
    /// The plan that was to be replaced.
    pub(crate) parent: Option<PlanHash>,
    /// What was learned of the causes' playbooks: playbook, fault, successes, failures.
    pub(crate) stats: Vec<(String, FaultClass, u64, u64)>,
    /// What was considered, with what the trials said.
    pub(crate) candidates: Vec<Candidate>,
    /// Whether plans were tried on a fitted copy.
    pub(crate) what_if: bool,
    /// The clock.
    pub(crate) now: Timestamp,
}

/// How long an incident is young: what its cause does to others shows within minutes.
const EARLY: std::time::Duration = std::time::Duration::from_secs(180);

pub(super) fn fix_planner(case: &mut Case, turn: &mut Turn<'_, '_>) -> Step {
    if case.fresh {
        case.fresh = false;
        case.dirty = true;
        case.looks = Looks::default();
        let rooms = &turn.rooms;
        let wanted = needed_looks(rooms.playbooks, case.inc(), rooms.topology, rooms.plan);
        ask(case, turn, wanted);
    }
    if !case.looks.pending.is_empty() {
        if case.due.is_none_or(|due| turn.now < due) {
            return Step::Waits;
        }
        for look in std::mem::take(&mut case.looks.pending) {
            case.looks.failed.push(format!("{}: not answered in time", look.entity.name()));
            case.looks.done.push(look);
        }
        case.dirty = true;
    }
    let (proposal, mut saw) = plan(case, turn);
    if !case.synthetic && case.looks.rounds <= turn.config.looks_rounds_max {
        let wanted: Vec<Look> = proposal.looks.iter().filter(|l| !case.looks.done.contains(l)).cloned().collect();
        if !wanted.is_empty() {
            ask(case, turn, wanted);
            return Step::Waits;
        }
    }
    saw.candidates.clone_from(&proposal.candidates);
    case.ranked = Some(Ranked::of(case.inc()));
    let alternatives = alternatives(&proposal);
    let seen = serde_json::to_value(&saw).unwrap_or_default();
    let Some(plan) = proposal.plan else {
        let why = proposal.candidates.first().map_or_else(
            || "no playbook heals what was found".to_owned(),
            |c| format!("no plan could be made: {}: {}", c.playbook, c.why_not),
        );
        if case.synthetic {
            return turn.go_seen(case, Node::Verify, why, seen);
        }
        case.plan = None;
        case.why = why;
        case.to = owners(case.inc(), turn.rooms.topology);
        let note = case.why.clone();
        return turn.go_seen(case, Node::Escalation, note, seen);
    };
    // A fix is known, and only what it should be measured by does not show yet: more symptoms come.
    let young = turn.now.since(case.inc().detected_at) < EARLY;
    let untold = proposal.candidates.iter().any(|c| c.why_not == nightshift_plan::UNTELLABLE);
    if !plan.acts() && untold && young && !case.synthetic {
        case.plan = None;
        case.verdict = None;
        case.why = "it is too early to tell by what a fix would be measured".to_owned();
        let note = case.why.clone();
        return turn.go_seen(case, Node::Monitor, note, seen);
    }
    let facts = Facts { topology: turn.rooms.topology, images: &case.looks.images, synthetic: case.synthetic };
    let findings: Vec<String> = check(&plan, &facts).iter().map(ToString::to_string).collect();
    propose_row(case, turn, plan, alternatives, findings, seen)
}

fn propose_row(
    case: &mut Case,
    turn: &mut Turn<'_, '_>,
    plan: Plan,
    alternatives: Vec<String>,
    findings: Vec<String>,
    seen: serde_json::Value,
) -> Step {
    case.plans = case.plans.saturating_add(1);
    case.verdict = None;
    case.policy = None;
    case.agreed = None;
    case.asked = None;
    case.findings.clone_from(&findings);
    case.plan = Some(plan.clone());
    let (acts, title, path) = (plan.acts(), plan.title.clone(), plan.escalation_path.clone());
    let mut note = format!("{title} (plan {})", plan.hash.short());
    if !findings.is_empty() {
        note.push_str(&format!(": the checker found {}", findings.join("; ")));
    }
    turn.journal(case, EventKind::PlanProposed { plan: Box::new(plan), alternatives, findings });
    // Of a test the guard judges whatever there is: the way is to be seen whole.
    if acts || case.synthetic {
        return turn.go_seen(case, Node::Safety, note, seen);
    }
    case.why = format!("{title}: only a person can do it");
    case.to = path;
    turn.go_seen(case, Node::Escalation, note, seen)
}

/// Asks the planner. What it saw is what the record holds, and nothing else.
fn plan(case: &Case, turn: &Turn<'_, '_>) -> (Proposal, PlannerSaw) {
    let rooms = &turn.rooms;
    let inc = case.inc();
    let mut stats = Stats::new();
    let faults: BTreeSet<FaultClass> = inc.hypotheses.iter().map(|h| h.fault).collect();
    for (playbook, fault, successes, failures) in rooms.stats.iter().filter(|s| faults.contains(&s.1)) {
        stats.set(playbook, fault, successes, failures);
    }
    let saw = PlannerSaw {
        images: case.looks.images.clone(),
        failed: case.looks.failed.clone(),
        changes: changes(inc, &case.looks.images, rooms.changes, rooms.topology),
        tried: case.tried.clone(),
        parent: case.plan.as_ref().map(|p| p.hash),
        stats: stats.iter().map(|(p, f, s, n)| (p.to_owned(), f, s, n)).collect(),
        candidates: Vec::new(),
        what_if: rooms.what_if.is_some(),
        now: turn.now,
    };
    let ask = Ask {
        incident: inc,
        topology: rooms.topology,
        images: &saw.images,
        changes: &saw.changes,
        tried: &saw.tried,
        parent: saw.parent,
        stats: &stats,
        what_if: rooms.what_if,
        config: rooms.plan,
        now: saw.now,
    };
    let proposal = propose(rooms.playbooks, &ask);
    (proposal, saw)
}

/// Changes of what may be the cause or was looked at.
fn changes(inc: &Incident, images: &BTreeMap<EntityId, Image>, all: &[Change], topology: &Topology) -> Vec<Change> {
    let causes = inc.hypotheses.iter().filter_map(|h| h.entity.as_ref());
    let near: BTreeSet<&EntityId> = causes.chain(images.keys()).map(|id| topology.resolve(id)).collect();
    let names: BTreeSet<String> = near.iter().map(|id| id.name()).collect();
    let about = |c: &&Change| match &c.entity {
        Some(id) => near.contains(topology.resolve(id)),
        None => names.contains(&c.service),
    };
    let mut out: Vec<Change> = all.iter().filter(about).cloned().collect();
    out.sort_by_key(|c| (std::cmp::Reverse(c.at), c.id));
    out.truncate(CHANGES_MAX);
    out.reverse();
    out
}

/// One line for each other thing that was thought of.
fn alternatives(proposal: &Proposal) -> Vec<String> {
    let line = |c: &Candidate| format!("{} on {}: {}", c.playbook, c.target.name(), c.why_not);
    proposal.candidates.iter().filter(|c| !c.why_not.is_empty()).map(line).collect()
}

/// Whom to call when there is no plan: the people of the likeliest cause, of what is hit.
fn owners(inc: &Incident, topology: &Topology) -> Vec<String> {
    let causes = inc.hypotheses.iter().filter_map(|h| h.entity.as_ref());
    let mut out: Vec<String> = Vec::new();
    for id in causes.chain(&inc.blast_radius.affected) {
        let Some(info) = topology.entity(topology.resolve(id)) else { continue };
        let declared = info.declared.map(|d| d.owner.as_str()).filter(|o| !o.is_empty());
        let owner = declared.unwrap_or(&info.meta.owner);
        if !owner.is_empty() && !out.iter().any(|o| o == owner) {
            out.push(owner.to_owned());
        }
        if out.len() == 3 {
            break;
        }
    }
    out
}

/// Sends looks.
fn ask(case: &mut Case, turn: &mut Turn<'_, '_>, wanted: Vec<Look>) {
    if wanted.is_empty() {
        return;
    }
    case.looks.rounds += 1;
    let due = (turn.now + std::time::Duration::from_secs(turn.config.looks_timeout_secs))
        .max(deadline(case, turn.config.looks_timeout_secs));
    case.due = Some(due);
    case.dirty = true;
    for look in wanted {
        turn.out.push(Effect::Look { incident: case.id, look: look.clone(), deadline: due });
        case.looks.pending.push(look);
    }
}

/// After a restart: looks that nobody answered.
pub(super) fn ask_again(case: &mut Case, turn: &mut Turn<'_, '_>) {
    let Some(due) = case.due else { return };
    for look in &case.looks.pending {
        turn.out.push(Effect::Look { incident: case.id, look: look.clone(), deadline: due });
    }
}

/// A look was answered.
pub(crate) fn looked(case: &mut Case, look: &Look, result: Result<Image, ActError>) {
    let Some(i) = case.looks.pending.iter().position(|l| l == look) else { return };
    if case.node != Node::FixPlanner {
        return;
    }
    let look = case.looks.pending.remove(i);
    match result {
        Ok(image) => case.looks.images.entry(look.entity.clone()).or_default().extend(image),
        Err(e) => case.looks.failed.push(format!("{}: {e}", look.entity.name())),
    }
    case.looks.done.push(look);
    case.dirty = true;
    case.wake = case.looks.pending.is_empty();
}
