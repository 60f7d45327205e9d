//! The decisions of an incident, made again for whoever asks.

use super::TopologyBoard;
use crate::agents::Shelf;
use async_trait::async_trait;
use nightshift_api::{ReplayError, ReplayView};
use nightshift_guard::{Guard, GuardConfig, Policies};
use nightshift_model::{Incident, JournalEvent};
use nightshift_plan::PlanConfig;
use nightshift_reason::{ReplayRooms, WorkflowConfig, replay};
use nightshift_store::Store;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

/// What the policy of a question is called in its errors.
const ASKED: &str = "policy.rego";

/// The rooms of the shown tenant, as they are now.
pub(crate) struct Replays {
    /// The journal.
    pub store: Arc<dyn Store>,
    /// Whose.
    pub tenant: String,
    /// What there is.
    pub topology: Arc<TopologyBoard>,
    /// Playbooks and policies in use.
    pub shelf: Arc<Shelf>,
    /// Settings of planning.
    pub plan: PlanConfig,
    /// Settings of the guard.
    pub guard: GuardConfig,
    /// Settings of the workflow.
    pub workflow: WorkflowConfig,
}

impl Replays {
    /// The policies to judge with: those in use, or those that ship with the one that was given beside them.
    fn policies(&self, given: Option<&str>) -> Result<Policies, ReplayError> {
        let Some(text) = given else { return Ok(self.shelf.library().policies.clone()) };
        let config = &self.guard.policies;
        let own = [(ASKED.to_owned(), text.to_owned())];
        Policies::with_shipped(&config.disabled, &own, Duration::from_millis(config.timeout_ms)).map_err(|wrong| {
            let all: Vec<String> = wrong.iter().map(ToString::to_string).collect();
            ReplayError::BadPolicy(all.join("; "))
        })
    }
}

#[async_trait]
impl ReplayView for Replays {
    async fn replay(&self, incident: &Incident, policy: Option<&str>) -> Result<Value, ReplayError> {
        let rows: Vec<JournalEvent> = self
            .store
            .incident_journal(&self.tenant, incident.id)
            .await
            .map_err(|e| ReplayError::Unavailable(format!("read the journal: {e}")))?;
        let guard = Guard::new(self.guard.clone(), self.policies(policy)?);
        let (topology, playbooks) = (self.topology.graph(), self.shelf.library().playbooks.clone());
        let (plan, workflow, id) = (self.plan.clone(), self.workflow.clone(), incident.id);
        // Planning and judging a long record is work: it does not hold up other requests.
        let again = tokio::task::spawn_blocking(move || {
            let rooms = ReplayRooms {
                topology: &topology,
                playbooks: &playbooks,
                plan: &plan,
                guard: &guard,
                workflow: &workflow,
            };
            replay(&rows, id, &rooms)
        });
        let again = again
            .await
            .map_err(|e| ReplayError::Unavailable(format!("run the decisions: {e}")))?
            .map_err(ReplayError::Impossible)?;
        Ok(json!({
            "incident": incident.short_id(),
            "with_policy": policy.is_some(),
            "same": !again.differs(),
            "decisions": again.decisions,
        }))
    }
}
