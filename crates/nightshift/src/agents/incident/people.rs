//! What people ask for, what time brings, and the postmortem.

use super::{
    AgentError, Command, EventKind, FeatureRow, GuardRole, IncidentAgent, IncidentId, Input, JournalDraft, KillSwitch,
    PersonAction, PersonVerb, Refusal, Role, Step, Symptom, TENANT_WIDE, Timestamp, document, report::people_of,
};
use nightshift_model::Incident;
use std::collections::BTreeMap;

impl IncidentAgent {
    pub(super) async fn command(&mut self, command: Command, now: Timestamp) -> Result<(), AgentError> {
        match command {
            Command::Person { tenant, action, role, reply } => {
                let answer = self.person(&tenant, action, role, now).await?;
                // The asker may have hung up; what they asked for is journalled all the same.
                drop(reply.send(answer));
            }
            Command::KillSwitch { tenant, switch, reply } => {
                let turned = self.parts.response.switch.turn(switch.clone());
                self.switched(&tenant, &switch, now).await?;
                drop(reply.send(match turned {
                    Ok(()) => Ok(switch),
                    Err(e) => Err(Refusal::Conflict(format!("{e:#}"))),
                }));
            }
        }
        Ok(())
    }

    async fn person(
        &mut self,
        tenant: &str,
        action: PersonAction,
        role: Role,
        now: Timestamp,
    ) -> Result<Result<Incident, Refusal>, AgentError> {
        self.ensure(tenant).await?;
        let store = self.parts.store.clone();
        let Some(state) = self.tenants.get_mut(tenant) else {
            return Ok(Err(Refusal::Conflict("another worker holds the lease of this tenant; ask it".into())));
        };
        let incident = action.incident;
        let Some(known) = store.incident(tenant, incident).await? else { return Ok(Err(Refusal::NotFound)) };
        let mut step = Step::default();
        let engines = matches!(action.verb, PersonVerb::Acknowledge { .. } | PersonVerb::Resolve { .. });
        let refused = if engines {
            let symptom = Symptom::Person(action);
            state.diagnose([symptom], &self.parts.response, &*self.parts.clock, &mut step)
        } else {
            let input = Input::Person { action, role: guard_role(role), known: Some(Box::new(known)) };
            state.respond(vec![input], &self.parts.response, &*self.parts.clock, &mut step);
            None
        };
        let refused = refused.map(|why| (why, false)).or(step.refused.take());
        self.settle(tenant, step, now).await?;
        Ok(match (store.incident(tenant, incident).await?, refused) {
            (None, _) => Err(Refusal::NotFound),
            (Some(_), Some((why, true))) => Err(Refusal::Forbidden(why)),
            (Some(_), Some((why, false))) => Err(Refusal::Conflict(why)),
            (Some(incident), None) => Ok(incident),
        })
    }

    /// Has somebody turned the switch beside us? It stops us at once and is journalled in their name.
    pub(super) async fn look_at_the_switch(&mut self, now: Timestamp) -> Result<(), AgentError> {
        let Some(switch) = self.parts.response.switch.look() else { return Ok(()) };
        self.switched(nightshift_model::DEFAULT_TENANT, &switch, now).await
    }

    /// Have people put other playbooks and policies there? They hold from here on, and the journal says so.
    pub(super) async fn look_at_the_shelf(&mut self, now: Timestamp) -> Result<(), AgentError> {
        let Some((revision, library)) = self.parts.response.shelf.as_ref().and_then(|s| s.newer(self.shelved)) else {
            return Ok(());
        };
        self.parts.response.playbooks = library.playbooks.clone();
        self.parts.response.policies = library.policies.clone();
        let event = EventKind::LibraryLoaded {
            playbooks: library.playbooks.len() as u64,
            policies: library.policies.files().len() as u64,
            digest: library.digest.clone(),
        };
        let tenants: Vec<String> = self.tenants.keys().cloned().collect();
        for tenant in tenants {
            if let Some(state) = self.tenants.get_mut(&tenant) {
                state.guard.set_policies(library.policies.clone());
            }
            let mut step = Step::default();
            let (actor, event) = ("system".to_owned(), event.clone());
            step.commit.journal.push(JournalDraft { incident: TENANT_WIDE, at: now, actor, event });
            self.settle(&tenant, step, now).await?;
        }
        // Only now: a commit that failed is tried again with the next turn.
        self.shelved = revision;
        Ok(())
    }

    async fn switched(&mut self, tenant: &str, switch: &KillSwitch, now: Timestamp) -> Result<(), AgentError> {
        tracing::warn!(on = switch.on, by = switch.by, why = switch.why, "the kill switch was turned");
        self.ensure(tenant).await?;
        let event = EventKind::KillSwitched { on: switch.on, why: switch.why.clone() };
        let mut step = Step::default();
        step.commit.journal.push(JournalDraft { incident: TENANT_WIDE, at: now, actor: switch.by.clone(), event });
        self.settle(tenant, step, now).await?;
        let tenants: Vec<String> = self.tenants.keys().cloned().collect();
        for tenant in tenants {
            self.respond(&tenant, vec![Input::Tick], now).await?;
        }
        Ok(())
    }

    pub(super) async fn tick(&mut self, now: Timestamp) -> Result<(), AgentError> {
        let mut minutes: BTreeMap<String, Vec<FeatureRow>> = BTreeMap::new();
        for row in self.parts.response.feed.take_minutes() {
            minutes.entry(row.tenant.clone()).or_default().push(row);
        }
        let tenants: Vec<String> = self.tenants.keys().cloned().collect();
        for tenant in tenants {
            let Some(state) = self.tenants.get_mut(&tenant) else { continue };
            state.count(minutes.get(&tenant).map_or(&[], Vec::as_slice), now);
            let mut step = Step::default();
            let revision = state.topology.revision();
            step.commit.documents.extend(state.topology.expire(now).into_iter().map(document));
            state.diagnose([Symptom::Tick], &self.parts.response, &*self.parts.clock, &mut step);
            state.respond(vec![Input::Tick], &self.parts.response, &*self.parts.clock, &mut step);
            (self.parts.listeners.guard)(&tenant, super::report::guard(&state.guard, &state.left, now));
            for (incident, shown) in state.shown() {
                (self.parts.listeners.readings)(&tenant, incident, shown);
            }
            if state.topology.revision() != revision {
                (self.parts.listeners.topology)(&tenant, &state.topology);
            }
            self.settle(&tenant, step, now).await?;
        }
        Ok(())
    }

    /// Writes the postmortem of an incident from its journal, and journals that it is written, in one commit.
    pub(super) async fn postmortem(&mut self, tenant: &str, incident: IncidentId) -> Result<(), AgentError> {
        let (store, now) = (self.parts.store.clone(), self.parts.clock.now());
        let Some(known) = store.incident(tenant, incident).await? else { return Ok(()) };
        let rows = store.incident_journal(tenant, incident).await?;
        let Some(state) = self.tenants.get_mut(tenant) else { return Ok(()) };
        let Some(written) = nightshift_tell::postmortem(&rows, &known, &people_of(&state.topology)) else {
            return Ok(());
        };
        let through_seq = rows.last().map_or(0, |r| r.seq);
        let draft = JournalDraft {
            incident,
            at: now,
            actor: "system".into(),
            event: EventKind::PostmortemWritten { sha256: written.sha256(), through_seq },
        };
        let mut step = Step::default();
        step.put(written.to_document());
        state.engine.fold([&draft], &state.topology);
        step.commit.journal.push(draft);
        if let Some(folded) = state.engine.incident(incident) {
            let news = Input::Incident(Box::new(folded.clone()));
            state.respond(vec![news], &self.parts.response, &*self.parts.clock, &mut step);
        }
        Box::pin(self.settle(tenant, step, now)).await
    }
}

/// The same role in the guard's words.
const fn guard_role(role: Role) -> GuardRole {
    match role {
        Role::Viewer => GuardRole::Viewer,
        Role::Operator => GuardRole::Operator,
        Role::Approver => GuardRole::Approver,
        Role::Admin => GuardRole::Admin,
    }
}
