//! What people decide, at any moment.

use crate::Effect;
use crate::Rooms;
use crate::case::Case;
use crate::node::Node;
use crate::nodes::acting;
use crate::turn::{Turn, held};
use crate::workflow::Workflow;
use nightshift_guard::{Person, Refusal, Role, Verb, needed};
use nightshift_model::{
    AutomationState, Decision, EventKind, Feedback, Incident, IncidentId, IncidentStatus, JournalDraft, PersonAction,
    PersonVerb, PlanHash, Risk, Timestamp,
};

/// Why a person's word does not count.
struct Refused {
    forbidden: bool,
    why: String,
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        Self { forbidden: matches!(refusal, Refusal::Role { .. }), why: refusal.to_string() }
    }
}

fn refused(why: impl Into<String>) -> Refused {
    Refused { forbidden: false, why: why.into() }
}

impl Workflow {
    /// Takes a person's decision: its row, or why not.
    pub(crate) fn person(
        &mut self,
        action: PersonAction,
        role: Role,
        known: Option<Box<Incident>>,
        rooms: &mut Rooms<'_>,
        now: Timestamp,
    ) -> Vec<Effect> {
        let PersonAction { incident, actor, verb } = action;
        let no = |r: Refused| vec![Effect::Refused { incident, forbidden: r.forbidden, why: r.why }];
        let least = needed(&rooms.guard.config().roles, Verb::from(&verb), Risk::Low);
        if role < least {
            let why = format!("{} needs the role {least}, this token is {role}", verb.as_str().replace('_', " "));
            return no(Refused { forbidden: true, why });
        }
        if self.case(incident).is_none_or(|case| case.inc.is_none()) {
            return match without_case(incident, &actor, verb, known.as_deref(), now) {
                Ok(effects) => effects,
                Err(r) => no(r),
            };
        }
        let mut denied = None;
        let mut effects = self.with(incident, rooms, now, |case, turn| {
            let person = Person { name: actor, role };
            denied = decide(case, turn, &person, verb).err();
            case.wake = true;
        });
        if let Some(r) = denied {
            effects.extend(no(r));
        }
        effects
    }
}

/// An incident that nothing is done about any more can be commented on; an unknown one cannot.
fn without_case(
    incident: IncidentId,
    actor: &str,
    verb: PersonVerb,
    known: Option<&Incident>,
    now: Timestamp,
) -> Result<Vec<Effect>, Refused> {
    let Some(inc) = known.filter(|inc| inc.id == incident) else {
        return Err(refused("there is no such incident"));
    };
    if let Some(into) = inc.merged_into {
        return Err(refused(format!("incident was joined into {into}: use that one")));
    }
    let row = |event| Effect::Journal(JournalDraft { incident, at: now, actor: actor.to_owned(), event });
    match verb {
        PersonVerb::Feedback(feedback) => {
            let mut out = vec![row(EventKind::FeedbackGiven { feedback })];
            if !inc.synthetic {
                out.push(Effect::Learn { incident });
            }
            Ok(out)
        }
        PersonVerb::Acknowledge { .. } if inc.acknowledged_by.as_deref() == Some(actor) => Ok(Vec::new()),
        PersonVerb::Acknowledge { note } => Ok(vec![row(EventKind::Acknowledged { note })]),
        other => Err(refused(format!(
            "incident is {}: there is nothing left to {}",
            inc.status,
            other.as_str().replace('_', " ")
        ))),
    }
}

fn decide(case: &mut Case, turn: &mut Turn<'_, '_>, person: &Person, verb: PersonVerb) -> Result<(), Refused> {
    let inc = case.inc();
    if let Some(into) = inc.merged_into {
        return Err(refused(format!("incident was joined into {into}: use that one")));
    }
    let open = inc.status.is_open();
    let name = person.name.as_str();
    match verb {
        PersonVerb::Acknowledge { note } => {
            if inc.acknowledged_by.as_deref() != Some(name) {
                turn.journal_by(case, name, EventKind::Acknowledged { note });
            }
            Ok(())
        }
        PersonVerb::Feedback(feedback) => {
            feedback_given(case, turn, name, feedback);
            Ok(())
        }
        _ if !open => {
            let by = inc.resolved_by.clone().unwrap_or_default();
            Err(refused(format!("incident is resolved already, by {by}")))
        }
        PersonVerb::Resolve { why } => {
            // What is under way is stopped by the row itself: the next turn sees that it is over.
            turn.journal_by(case, name, EventKind::Resolved { why });
            Ok(())
        }
        PersonVerb::Approve { plan, note } => approve(case, turn, person, plan, note),
        PersonVerb::Reject { plan, why } => reject(case, turn, person, plan, why),
        PersonVerb::Override { plan, to, why } => override_verdict(case, turn, person, plan, to, why),
        PersonVerb::Pause { why } => {
            if inc.automation == AutomationState::Active {
                let told = with_why(format!("{name} paused automation"), &why);
                turn.journal_by(case, name, EventKind::AutomationPaused { why });
                acting::stop(case, turn, &told);
            }
            Ok(())
        }
        PersonVerb::TakeOver { note } => {
            if inc.taken_over_by.as_deref() != Some(name) {
                turn.journal_by(case, name, EventKind::TakenOver { note });
                acting::stop(case, turn, &format!("{name} took over"));
            }
            Ok(())
        }
        PersonVerb::Resume { why } => {
            if inc.automation != AutomationState::Active {
                turn.journal_by(case, name, EventKind::AutomationResumed { why });
            }
            Ok(())
        }
    }
}

fn feedback_given(case: &mut Case, turn: &mut Turn<'_, '_>, actor: &str, feedback: Feedback) {
    turn.journal_by(case, actor, EventKind::FeedbackGiven { feedback });
    if !case.synthetic {
        turn.out.push(Effect::Learn { incident: case.id });
    }
}

fn with_why(text: String, why: &str) -> String {
    if why.is_empty() { text } else { format!("{text}: {why}") }
}

/// The plan that a person speaks of must be the one at hand.
fn current(case: &Case, plan: PlanHash) -> Result<(), Refused> {
    match case.plan.as_ref().map(|p| p.hash) {
        Some(hash) if hash == plan => Ok(()),
        Some(hash) => {
            Err(refused(format!("plan {} was replaced by {}: look at the incident again", plan.short(), hash.short())))
        }
        None => Err(refused("the incident has no plan")),
    }
}

/// Decisions about a plan that has begun come too late.
fn not_begun(case: &Case) -> Result<(), Refused> {
    if case.execution.is_some() || case.finish.is_some() {
        return Err(refused("the plan is being carried out: pause or take over to stop it"));
    }
    Ok(())
}

fn not_held(case: &Case) -> Result<(), Refused> {
    match held(case.inc()) {
        Some(why) => Err(refused(format!("{why}: resume first"))),
        None => Ok(()),
    }
}

fn approve(
    case: &mut Case,
    turn: &mut Turn<'_, '_>,
    person: &Person,
    plan: PlanHash,
    note: String,
) -> Result<(), Refused> {
    current(case, plan)?;
    not_begun(case)?;
    not_held(case)?;
    if case.node != Node::Approval || case.asked != Some(plan) {
        return Err(refused(format!("nobody is asked about plan {}", plan.short())));
    }
    turn.rooms.guard.approve(plan, person, turn.now)?;
    turn.out.push(Effect::GuardChanged);
    case.asked = None;
    case.agreed = Some(plan);
    turn.journal_by(case, &person.name, EventKind::Approved { plan, note });
    Ok(())
}

fn reject(
    case: &mut Case,
    turn: &mut Turn<'_, '_>,
    person: &Person,
    plan: PlanHash,
    why: String,
) -> Result<(), Refused> {
    current(case, plan)?;
    if case.execution.is_some() {
        turn.rooms.guard.reject(plan, case.id, person, &why, turn.now)?;
        turn.out.push(Effect::GuardChanged);
        turn.journal_by(case, &person.name, EventKind::Rejected { plan, why: why.clone(), timed_out: false });
        acting::stop(case, turn, &with_why(format!("{} rejected it", person.name), &why));
        return Ok(());
    }
    if case.node != Node::Approval || case.asked != Some(plan) {
        return Err(refused(format!("nobody is asked about plan {}", plan.short())));
    }
    turn.rooms.guard.reject(plan, case.id, person, &why, turn.now)?;
    turn.out.push(Effect::GuardChanged);
    case.asked = None;
    not_again(case);
    turn.journal_by(case, &person.name, EventKind::Rejected { plan, why: why.clone(), timed_out: false });
    let told = with_why(format!("{} rejected plan {}", person.name, plan.short()), &why);
    turn.escalate(case, told.clone(), told);
    Ok(())
}

fn override_verdict(
    case: &mut Case,
    turn: &mut Turn<'_, '_>,
    person: &Person,
    plan: PlanHash,
    to: Decision,
    why: String,
) -> Result<(), Refused> {
    current(case, plan)?;
    if to == Decision::Deny && case.execution.is_some() {
        return reject(case, turn, person, plan, why);
    }
    not_begun(case)?;
    let waits = matches!(case.node, Node::Approval | Node::Monitor | Node::Escalation)
        && case.inc().status != IncidentStatus::Merged;
    let Some(verdict) = case.verdict.clone().filter(|v| v.plan == plan && waits) else {
        return Err(refused("there is no verdict that waits to be overridden: look at the incident again"));
    };
    if to == Decision::Execute {
        not_held(case)?;
    }
    if verdict.dry_run && to == Decision::Execute {
        return Err(refused("guard.dry_run is on: nothing is carried out, whoever agrees"));
    }
    let rules = turn.rooms.guard.override_verdict(&verdict, case.id, to, person, &why, turn.now)?;
    turn.out.push(Effect::GuardChanged);
    case.asked = None;
    turn.journal_by(case, &person.name, EventKind::Overridden { plan, to, why: why.clone(), rules });
    if to == Decision::Execute {
        case.agreed = Some(plan);
        case.rehearsal = false;
        case.passing = false;
        turn.unwatch(case);
        turn.go(case, Node::Act, format!("{} overrode the verdict: {why}", person.name));
    } else {
        not_again(case);
        let told = format!("{} overrode the verdict to deny: {why}", person.name);
        turn.escalate(case, told.clone(), told);
    }
    Ok(())
}

/// A playbook that a person refused is not proposed again for this incident.
fn not_again(case: &mut Case) {
    if let Some(playbook) = case.plan.as_ref().map(|p| p.playbook.clone())
        && !case.tried.contains(&playbook)
    {
        case.tried.push(playbook);
    }
}
