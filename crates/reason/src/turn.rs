//! One turn of one case: where nodes put their rows and effects, and how they hand over.

use crate::case::Case;
use crate::node::Node;
use crate::watch::Watch;
use crate::{Effect, Rooms, WorkflowConfig};
use nightshift_model::{
    AutomationState, EventKind, Incident, IncidentId, IncidentStatus, JournalDraft, JournalEvent, Kpi, PlanHash,
    Timestamp, journal,
};
use serde_json::Value;
use std::collections::BTreeMap;

/// The actor of rows that nobody asked for.
pub(crate) const SYSTEM: &str = "system";

/// What one turn works with.
pub(crate) struct Turn<'a, 'r> {
    pub(crate) config: &'a WorkflowConfig,
    pub(crate) tenant: &'a str,
    pub(crate) rooms: &'a mut Rooms<'r>,
    pub(crate) now: Timestamp,
    /// All cases but the one at hand.
    pub(crate) others: &'a BTreeMap<IncidentId, Case>,
    pub(crate) out: Vec<Effect>,
}

/// What a node came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// It handed over.
    Moved,
    /// It waits.
    Waits,
    /// The case is over.
    Ended,
}

impl Turn<'_, '_> {
    /// Emits a row and folds it.
    pub(crate) fn journal_by(&mut self, case: &mut Case, actor: &str, event: EventKind) {
        let draft = JournalDraft { incident: case.id, at: self.now, actor: actor.to_owned(), event };
        if let Some(inc) = case.inc.take() {
            let row = JournalEvent::from_draft(self.tenant, 0, draft.clone());
            case.inc = journal::apply(Some(*inc), &row).map(Box::new);
        }
        case.dirty = true;
        self.out.push(Effect::Journal(draft));
    }

    /// A row that nobody asked for.
    pub(crate) fn journal(&mut self, case: &mut Case, event: EventKind) {
        self.journal_by(case, SYSTEM, event);
    }

    /// Moves an incident that is open to another status; what is over stays over.
    pub(crate) fn status(&mut self, case: &mut Case, to: IncidentStatus, why: impl Into<String>) {
        let stands = case.inc.as_ref().is_some_and(|inc| inc.status.is_open() && inc.status != to);
        if stands {
            self.journal(case, EventKind::StatusChanged { to, why: why.into() });
        }
    }

    /// Hands over to another node.
    pub(crate) fn go(&mut self, case: &mut Case, to: Node, note: impl Into<String>) -> Step {
        self.go_seen(case, to, note, Value::Null)
    }

    /// The same, with what the node saw.
    pub(crate) fn go_seen(&mut self, case: &mut Case, to: Node, note: impl Into<String>, seen: Value) -> Step {
        self.leave(case, note, seen);
        let entries = case.entries.entry(to).or_insert(0);
        *entries = entries.saturating_add(1);
        let bounded = !matches!(to, Node::Escalation | Node::Resolved | Node::Postmortem | Node::Learn);
        let to = if bounded && *entries > self.config.node_attempts_max {
            case.why = format!("the workflow came to `{to}` {} times without an end", *entries - 1);
            *case.entries.entry(Node::Escalation).or_insert(0) += 1;
            Node::Escalation
        } else {
            to
        };
        case.node = to;
        case.entered_at = self.now;
        case.due = None;
        case.fresh = true;
        case.dirty = true;
        Step::Moved
    }

    /// The row of a node that is left.
    pub(crate) fn leave(&mut self, case: &mut Case, note: impl Into<String>, seen: Value) {
        let event = EventKind::NodeDone {
            node: case.node.as_str().to_owned(),
            began_at: case.entered_at.min(self.now),
            ended_at: self.now,
            attempt: case.entries.get(&case.node).copied().unwrap_or(1),
            note: note.into(),
            seen,
        };
        self.journal(case, event);
    }

    /// Hands over to the escalation, with why and whom to call.
    pub(crate) fn escalate(&mut self, case: &mut Case, why: impl Into<String>, note: impl Into<String>) -> Step {
        case.why = why.into();
        case.to = case.plan.as_ref().map(|p| p.escalation_path.clone()).unwrap_or_default();
        self.go(case, Node::Escalation, note)
    }

    /// Watches a series, in place of another one.
    pub(crate) fn watch(&mut self, case: &mut Case, watch: Watch) {
        if case.watch.as_ref().is_none_or(|w| w.kpi != watch.kpi) {
            self.unwatch(case);
        }
        self.out.push(Effect::Watch { kpi: watch.kpi.clone(), since: watch.since, interval_secs: watch.interval_secs });
        case.watch = Some(watch);
        case.dirty = true;
    }

    /// Watches nothing any more.
    pub(crate) fn unwatch(&mut self, case: &mut Case) {
        if let Some(watch) = case.watch.take() {
            case.dirty = true;
            self.forget(&watch.kpi, case);
        }
    }

    /// No more readings of a series, when nothing else needs them.
    pub(crate) fn forget(&mut self, kpi: &Kpi, case: &Case) {
        let needed = case.reads(kpi) || self.others.values().any(|c| c.reads(kpi));
        if !needed {
            self.out.push(Effect::Unwatch(kpi.clone()));
        }
    }

    /// Takes a question back that nobody answered.
    pub(crate) fn withdraw(&mut self, case: &mut Case, why: &str) {
        if case.node != Node::Approval {
            return;
        }
        let Some(plan) = case.asked.take() else { return };
        self.disown(case, plan, why);
        self.journal(case, EventKind::ApprovalWithdrawn { plan, why: why.to_owned() });
    }

    /// The guard is told that a plan must never begin.
    pub(crate) fn disown(&mut self, case: &Case, plan: PlanHash, why: &str) {
        let person = nightshift_guard::Person { name: SYSTEM.to_owned(), role: nightshift_guard::Role::Admin };
        // An admin may always refuse.
        if self.rooms.guard.reject(plan, case.id, &person, why, self.now).is_ok() {
            self.out.push(Effect::GuardChanged);
        }
    }
}

/// Who does things to an incident, in words; `None`: the machine may.
pub(crate) fn held(inc: &Incident) -> Option<String> {
    match inc.automation {
        AutomationState::Active => None,
        AutomationState::Paused => Some("automation is paused on this incident".into()),
        AutomationState::TakenOver => {
            let who = inc.taken_over_by.as_deref().unwrap_or("a person");
            Some(format!("{who} does it by hand"))
        }
    }
}
