//! What people do to an incident: which words each verb takes, which role, and what is refused before it is handed on.

use crate::ApiError;
use crate::auth::{Caller, permit};
use crate::incidents::find;
use crate::params::short;
use crate::routes::Access;
use crate::seams::{ApiState, CommandError};
use axum::http::StatusCode;
use nightshift_model::{
    Decision, EntityId, FaultClass, Feedback, Incident, PersonAction, PersonVerb, Plan, PlanHash, Risk,
};
use nightshift_store::Role;
use serde_json::{Map, Value};
use std::collections::BTreeSet;

/// Longest note or reason, characters.
pub(crate) const NOTE_CHARS_MAX: usize = 2_000;

/// Longest id of an entity, bytes.
const ENTITY_BYTES_MAX: usize = 1_024;

/// Fewest digits of a plan's hash that name it: what people are shown.
const PLAN_DIGITS_MIN: usize = 12;

/// What a person does to an incident.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verb {
    Acknowledge,
    Resolve,
    Approve,
    Reject,
    Override,
    Pause,
    Resume,
    TakeOver,
    Feedback,
}

impl Verb {
    pub(crate) const ALL: [Self; 9] = [
        Self::Acknowledge,
        Self::Resolve,
        Self::Approve,
        Self::Reject,
        Self::Override,
        Self::Pause,
        Self::Resume,
        Self::TakeOver,
        Self::Feedback,
    ];

    /// Its route in the API, and that of the page's form.
    pub(crate) const fn paths(self) -> (&'static str, &'static str) {
        match self {
            Self::Acknowledge => ("/api/v1/incidents/{id}/ack", "/incidents/{id}/ack"),
            Self::Resolve => ("/api/v1/incidents/{id}/resolve", "/incidents/{id}/resolve"),
            Self::Approve => ("/api/v1/incidents/{id}/approve", "/incidents/{id}/approve"),
            Self::Reject => ("/api/v1/incidents/{id}/reject", "/incidents/{id}/reject"),
            Self::Override => ("/api/v1/incidents/{id}/override", "/incidents/{id}/override"),
            Self::Pause => ("/api/v1/incidents/{id}/pause", "/incidents/{id}/pause"),
            Self::Resume => ("/api/v1/incidents/{id}/resume", "/incidents/{id}/resume"),
            Self::TakeOver => ("/api/v1/incidents/{id}/take-over", "/incidents/{id}/take-over"),
            Self::Feedback => ("/api/v1/incidents/{id}/feedback", "/incidents/{id}/feedback"),
        }
    }

    /// The words that it takes.
    const fn words(self) -> &'static [&'static str] {
        match self {
            // `why` is what the others take; a note was there first.
            Self::Acknowledge | Self::TakeOver => &["note"],
            Self::Resolve => &["note", "why"],
            Self::Approve => &["plan", "note"],
            Self::Reject => &["plan", "why"],
            Self::Override => &["plan", "to", "why"],
            Self::Pause | Self::Resume => &["why"],
            Self::Feedback => &["verdict", "entity", "fault", "note"],
        }
    }

    /// An example of its body.
    pub(crate) const fn form(self) -> &'static str {
        match self {
            Self::Acknowledge | Self::Resolve | Self::TakeOver => "{\"note\": \"…\"}, or no body",
            Self::Pause | Self::Resume => "{\"why\": \"…\"}, or no body",
            Self::Approve => "{\"plan\": \"HASH\", \"note\": \"…\"}",
            Self::Reject => "{\"plan\": \"HASH\", \"why\": \"…\"}",
            Self::Override => "{\"plan\": \"HASH\", \"to\": \"execute\", \"why\": \"…\"}",
            Self::Feedback => {
                "{\"verdict\": \"false_positive\"} or {\"verdict\": \"true_cause\", \"entity\": \"…\", \"fault\": \"…\"}"
            }
        }
    }

    /// The role that it takes; a plan of critical risk takes more (see [`needed`]).
    pub(crate) const fn role(self) -> Role {
        match self {
            Self::Approve | Self::Reject | Self::Override => Role::Approver,
            _ => Role::Operator,
        }
    }

    pub(crate) const fn access(self) -> Access {
        match self.role() {
            Role::Approver => Access::Approve,
            _ => Access::Change,
        }
    }
}

/// What was said with a verb, as texts by name.
#[derive(Debug, Default, Clone)]
pub(crate) struct Words(Vec<(String, String)>);

impl Words {
    /// From a JSON body of nothing but the texts that `verb` takes.
    pub(crate) fn from_json(verb: Verb, body: Map<String, Value>) -> Result<Self, String> {
        let mut words = Vec::new();
        for (name, value) in body {
            if !verb.words().contains(&name.as_str()) {
                return Err(format!("unknown field `{}`, expected {}", short(&name), verb.words().join(", ")));
            }
            match value {
                Value::Null => {}
                Value::String(text) => words.push((name, text)),
                _ => return Err(format!("`{name}` is not a text")),
            }
        }
        Ok(Self(words))
    }

    /// From a form; what the verb does not take is left out, as one form has buttons for several verbs. What is said
    /// in `note` is the reason of a verb that takes one.
    pub(crate) fn from_form(verb: Verb, fields: Vec<(String, String)>) -> Self {
        let mut words: Vec<_> = fields.into_iter().filter(|(name, _)| name != "token").collect();
        if !verb.words().contains(&"note") {
            words.iter_mut().filter(|(name, _)| name == "note").for_each(|(name, _)| *name = "why".into());
        }
        words.retain(|(name, _)| verb.words().contains(&name.as_str()));
        if words.iter().any(|(name, value)| name == "verdict" && value == "false_positive") {
            // The fields of the other button.
            words.retain(|(name, _)| name != "entity" && name != "fault");
        }
        Self(words)
    }

    /// The text, trimmed; empty when it is not there.
    fn get(&self, name: &str) -> &str {
        self.0.iter().find(|(n, t)| n == name && !t.trim().is_empty()).map_or("", |(_, t)| t.trim())
    }

    /// What was said in words: `note` and `why` are the same to those who write.
    fn said(&self) -> Result<String, ApiError> {
        let (name, text) = match (self.get("why"), self.get("note")) {
            ("", note) => ("note", note),
            (why, _) => ("why", why),
        };
        let n = text.chars().count();
        if n > NOTE_CHARS_MAX {
            let what = if name == "note" { "the note" } else { "the reason" };
            let detail = format!("{what} has {n} characters, at most {NOTE_CHARS_MAX} are kept");
            return Err(ApiError::bad_request(detail, "write less, and where the rest is"));
        }
        Ok(text.to_owned())
    }
}

/// The role that `verb` takes on this incident: what is of critical risk is for an admin to decide.
pub(crate) fn needed(verb: Verb, incident: &Incident) -> Role {
    let decides = matches!(verb, Verb::Approve | Verb::Override);
    if decides && risk_of(incident) == Some(Risk::Critical) { Role::Admin } else { verb.role() }
}

/// The risk of its plan, as judged where it was judged.
pub(crate) fn risk_of(incident: &Incident) -> Option<Risk> {
    let judged = incident.verdict.as_ref().map(|v| v.risk);
    incident.plan.as_ref().map(|p| judged.map_or(p.risk, |risk| risk.max(p.risk)))
}

/// Carries out `verb` in the name of `caller`.
///
/// # Errors
/// 400 for bad words, 403 for too small a role, 404, 409 when the incident is not in a state for it or another plan is
/// current, 503 when it cannot be done now.
pub(crate) async fn carry_out(
    state: &ApiState,
    verb: Verb,
    id: &str,
    caller: &Caller,
    words: &Words,
) -> Result<Incident, ApiError> {
    permit(caller, verb.role())?;
    let said = words.said()?;
    let incident = find(state, id).await?;
    let verb_said = person_verb(state, verb, words, said, &incident)?;
    if !caller.role.permits(needed(verb, &incident)) {
        let detail = format!(
            "the plan is of critical risk: token `{}` has the role {}, this needs {}",
            caller.name,
            caller.role,
            Role::Admin
        );
        return Err(ApiError::new(StatusCode::FORBIDDEN, "forbidden", detail, "ask somebody with an admin token"));
    }
    let action = PersonAction { incident: incident.id, actor: caller.name.clone(), verb: verb_said };
    state.commands.act(action, caller.role).await.map_err(refused)
}

/// A refusal of the service as an answer.
pub(crate) fn refused(error: CommandError) -> ApiError {
    match error {
        CommandError::NotFound => ApiError::not_found("there is no such incident", "/api/v1/incidents lists all"),
        CommandError::Conflict(why) => conflict(why),
        CommandError::Forbidden(why) => {
            let hint = "`nightshift token create` on the server makes a token of another role";
            ApiError::new(StatusCode::FORBIDDEN, "forbidden", why, hint)
        }
        CommandError::Unavailable(why) => ApiError::unavailable(why, "try again; nothing was changed"),
    }
}

fn conflict(why: impl Into<String>) -> ApiError {
    ApiError::new(StatusCode::CONFLICT, "conflict", why, "look at the incident as it is now")
}

fn person_verb(
    state: &ApiState,
    verb: Verb,
    words: &Words,
    said: String,
    incident: &Incident,
) -> Result<PersonVerb, ApiError> {
    let plan = || current_plan(words.get("plan"), incident, verb).map(|p| p.hash);
    Ok(match verb {
        Verb::Acknowledge => PersonVerb::Acknowledge { note: said },
        Verb::Resolve => PersonVerb::Resolve { why: said },
        Verb::Approve => PersonVerb::Approve { plan: plan()?, note: said },
        Verb::Reject => PersonVerb::Reject { plan: plan()?, why: said },
        Verb::Override => {
            let to = match words.get("to") {
                "execute" => Decision::Execute,
                "deny" => Decision::Deny,
                other => {
                    let detail = format!("to: `{}` is neither execute nor deny", short(other));
                    return Err(ApiError::bad_request(detail, format!("send {}", verb.form())));
                }
            };
            if said.is_empty() {
                let detail = "why: an override needs a reason, which the journal keeps";
                return Err(ApiError::bad_request(detail, format!("send {}", verb.form())));
            }
            PersonVerb::Override { plan: plan()?, to, why: said }
        }
        Verb::Pause => PersonVerb::Pause { why: said },
        Verb::Resume => PersonVerb::Resume { why: said },
        Verb::TakeOver => PersonVerb::TakeOver { note: said },
        Verb::Feedback => PersonVerb::Feedback(feedback(state, words, said, incident)?),
    })
}

/// The plan of `incident` if `text` names it: its hash, or as much of it as people are shown.
fn current_plan<'i>(text: &str, incident: &'i Incident, verb: Verb) -> Result<&'i Plan, ApiError> {
    if text.is_empty() {
        let detail = "plan: which one? An answer is for the plan that was seen";
        return Err(ApiError::bad_request(detail, format!("send {}", verb.form())));
    }
    let digits = text.to_ascii_lowercase();
    let whole = "0".len() * 64;
    if !(PLAN_DIGITS_MIN..=whole).contains(&digits.len()) || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
        let detail = format!(
            "plan: `{}` is not the hash of a plan: {PLAN_DIGITS_MIN} to {whole} hexadecimal digits",
            short(text)
        );
        return Err(ApiError::bad_request(detail, "`plan.hash` of the incident has it"));
    }
    let Some(plan) = &incident.plan else {
        return Err(conflict(format!("{} has no plan", incident.short_id())));
    };
    if !plan.hash.to_string().starts_with(&digits) {
        let now = plan.hash.short();
        return Err(conflict(format!(
            "the current plan is {now}, not {}: look at it first",
            &digits[..PLAN_DIGITS_MIN]
        )));
    }
    Ok(plan)
}

fn feedback(state: &ApiState, words: &Words, note: String, incident: &Incident) -> Result<Feedback, ApiError> {
    let hint = || format!("send {}", Verb::Feedback.form());
    let (entity, fault) = (words.get("entity"), words.get("fault"));
    match words.get("verdict") {
        "false_positive" if entity.is_empty() && fault.is_empty() => Ok(Feedback::FalsePositive { note }),
        "false_positive" => Err(ApiError::bad_request("a false positive has neither entity nor fault", hint())),
        "true_cause" => {
            let fault: FaultClass = short(fault)
                .parse()
                .map_err(|why: String| ApiError::bad_request(format!("fault: {why}"), "for example latency_spike"))?;
            Ok(Feedback::TrueCause { entity: entity_of(state, entity, incident)?, fault, note })
        }
        other => {
            let detail = format!("verdict: `{}` is neither false_positive nor true_cause", short(other));
            Err(ApiError::bad_request(detail, hint()))
        }
    }
}

/// The entity that `text` names: by its id, or by a name that only one has, of the incident first.
fn entity_of(state: &ApiState, text: &str, incident: &Incident) -> Result<EntityId, ApiError> {
    let hint = "write its id, cluster/kind/namespace/name, as /api/v1/topology has it";
    if text.is_empty() || text.len() > ENTITY_BYTES_MAX {
        return Err(ApiError::bad_request("entity: where was the cause?", hint));
    }
    if let Ok(id) = EntityId::parse(text) {
        return Ok(id);
    }
    let symptoms = incident.anomalies.iter().map(|a| &a.entity.id);
    let blast = incident.blast_radius.affected.iter().chain(&incident.blast_radius.at_risk);
    let causes = incident.hypotheses.iter().filter_map(|h| h.entity.as_ref());
    let named: BTreeSet<&EntityId> =
        symptoms.chain(blast).chain(causes).filter(|id| id.name().eq_ignore_ascii_case(text)).collect();
    match named.len() {
        1 => Ok(named.into_iter().next().cloned().expect("there is one")),
        0 => {
            let known = state.topology.view_of(text, 1).and_then(|v| EntityId::parse(v["id"].as_str()?).ok());
            known.ok_or_else(|| ApiError::bad_request(format!("entity: nothing is called `{}`", short(text)), hint))
        }
        _ => {
            let ids: Vec<_> = named.iter().map(|id| id.as_str()).collect();
            Err(ApiError::bad_request(format!("entity: `{}` is any of {}", short(text), ids.join(", ")), hint))
        }
    }
}

/// What of a hash must be said to name a plan.
pub(crate) fn fuzz(text: &str) {
    let _ = text.parse::<PlanHash>();
    for verb in Verb::ALL {
        if let Ok(body) = serde_json::from_str(text) {
            let _ = Words::from_json(verb, body).map(|w| w.said());
        }
        let _ = Words::from_form(verb, vec![("note".into(), text.into())]).said();
    }
}
