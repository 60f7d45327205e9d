//! Taking a tenant over: its lease, and its rooms as the store has them.

use super::lease::{Held, LEASES};
use super::tenant::{BUDGETS, CHECKPOINTS, GUARD, Tenant};
use super::{AgentError, Declared, GROUP, IncidentAgent, Input, Step, Timestamp, Topology};
use nightshift_diagnose::{DiagnoseConfig, Engine, Memory};
use nightshift_guard::{Budgets, Guard};
use nightshift_knowledge::{OUTCOMES, Outcome};
use nightshift_model::{Incident, IncidentId, IncidentStatus};
use nightshift_plan::Stats;
use nightshift_reason::Workflow;
use nightshift_store::{AnomalyFilter, Commit, Document, IncidentFilter, Store};
use nightshift_topology::Row;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// Most rows of each kind that a restored engine is handed.
const ROWS_MAX: usize = 20_000;

impl IncidentAgent {
    /// Builds every tenant's rooms anew from the store. What was under way is forgotten: the workflow asks for it
    /// again, and what nobody knows the outcome of is observed.
    pub(super) async fn start_over(&mut self) -> Result<(), AgentError> {
        self.tenants.clear();
        self.hands = super::Hands::new();
        self.brought.clear();
        self.parts.response.feed.clear();
        for tenant in self.parts.store.tenants().await? {
            self.ensure(&tenant).await?;
        }
        self.ensure(nightshift_model::DEFAULT_TENANT).await
    }

    /// Takes a tenant over, if its lease is to be had.
    pub(super) async fn ensure(&mut self, tenant: &str) -> Result<(), AgentError> {
        if self.tenants.contains_key(tenant) {
            return Ok(());
        }
        let (store, response) = (self.parts.store.clone(), self.parts.response.clone());
        let now = self.parts.clock.now();
        let found = store.documents(tenant, LEASES.0).await?;
        // Stores of one process are locked by it: whoever held the lease before is gone.
        let worker = if store.kind() == "postgres" { response.worker.as_str() } else { "local" };
        let Some((lease, (expected, put))) = Held::take(&found, worker, now) else {
            tracing::debug!(tenant, "another worker holds the lease");
            return Ok(());
        };
        store.commit(tenant, Commit { documents: vec![put], expects: vec![expected], ..Commit::default() }).await?;
        let memory = remembered(&*store, &self.parts.diagnose, tenant, now).await?;
        let changes = memory.changes.clone();
        let open: Vec<Incident> = memory.incidents.iter().filter(|i| i.status.is_open()).cloned().collect();
        let engine = Engine::restore(self.parts.diagnose.clone(), tenant, memory);
        let topology = topology_of(&*store, &self.parts.declared, tenant).await?;
        let mut cursors = HashMap::new();
        for c in store.cursors(tenant, GROUP).await? {
            cursors.insert((Arc::from(c.topic), c.partition), c.next_offset);
        }
        let mut outcomes = (*response.past).clone();
        outcomes.extend(store.documents(tenant, OUTCOMES).await?.iter().filter_map(read_outcome));
        let mut guard = Guard::new(response.guard.clone(), response.policies.clone());
        if let Some(state) = read(&store.documents(tenant, GUARD.0).await?, GUARD.1, "the guard's state") {
            guard.restore(state);
        }
        let mut budgets: Budgets = read(&store.documents(tenant, BUDGETS.0).await?, BUDGETS.1, "the error budgets")
            .unwrap_or_else(|| Budgets::new(response.guard.budget.clone()));
        budgets.configure(response.guard.budget.clone());
        let checkpoints: Vec<(IncidentId, Vec<u8>)> = store
            .documents(tenant, CHECKPOINTS)
            .await?
            .into_iter()
            .filter_map(|d| Some((d.key.parse().ok()?, d.body?)))
            .collect();
        let mut incidents: BTreeMap<IncidentId, Incident> = open.into_iter().map(|i| (i.id, i)).collect();
        for (id, _) in &checkpoints {
            if !incidents.contains_key(id)
                && let Some(incident) = store.incident(tenant, *id).await?
            {
                incidents.insert(*id, incident);
            }
        }
        let workflow = Workflow::restore(response.workflow.clone(), tenant, checkpoints);
        (self.parts.listeners.topology)(tenant, &topology);
        let state = Tenant {
            name: tenant.to_owned(),
            engine,
            topology,
            cursors,
            workflow,
            guard,
            budgets,
            left: BTreeMap::new(),
            outcomes,
            stats: Stats::new(),
            changes,
            lease,
            declared_at: None,
            handed_at: None,
            live: BTreeMap::new(),
            budgets_at: now,
            budgets_dirty: false,
        };
        self.tenants.insert(tenant.to_owned(), state);
        let mut inputs: Vec<Input> = incidents.into_values().map(|i| Input::Incident(Box::new(i))).collect();
        inputs.push(Input::Recovered);
        let Some(state) = self.tenants.get_mut(tenant) else { return Ok(()) };
        state.learn(None, &response.learn, now);
        state.count(&[], now);
        let mut step = Step::default();
        state.respond(inputs, &response, &*self.parts.clock, &mut step);
        self.settle(tenant, step, now).await
    }
}

async fn topology_of(store: &dyn Store, declared: &Declared, tenant: &str) -> Result<Topology, AgentError> {
    let mut rows = Vec::new();
    for collection in [nightshift_topology::ENTITY, nightshift_topology::EDGE, nightshift_topology::ALIAS] {
        rows.extend(store.documents(tenant, collection).await?.into_iter().map(row));
    }
    let (mut topology, wrong) = Topology::from_rows(declared.config.clone(), rows);
    for what in wrong {
        tracing::warn!(tenant, what, "row of the topology left out");
    }
    topology.declare(&declared.file);
    Ok(topology)
}

/// What the store knows of a tenant, for its engine. Open incidents are handed over however old they are.
async fn remembered(
    store: &dyn Store,
    config: &DiagnoseConfig,
    tenant: &str,
    now: Timestamp,
) -> Result<Memory, AgentError> {
    let all = IncidentFilter { synthetic: true, limit: ROWS_MAX, ..Default::default() };
    let open =
        IncidentFilter { status: IncidentStatus::ALL.into_iter().filter(|s| s.is_open()).collect(), ..all.clone() };
    let recent = IncidentFilter { since: Some(now - config.incidents_lookback()), ..all };
    let mut incidents: BTreeMap<u64, Incident> = BTreeMap::new();
    for filter in [open, recent] {
        incidents.extend(store.incidents(tenant, &filter).await?.into_iter().map(|i| (i.number, i)));
    }
    let since = now - config.anomalies_lookback();
    let seen = AnomalyFilter { since: Some(since), limit: ROWS_MAX, ..Default::default() };
    let mut anomalies = store.anomalies(tenant, &seen).await?;
    anomalies.reverse();
    let mut changes = store.changes(tenant, now - config.changes_lookback(), ROWS_MAX).await?;
    changes.reverse();
    Ok(Memory {
        incidents: incidents.into_values().collect(),
        changes,
        anomalies,
        last_number: store.last_incident_number(tenant).await?,
    })
}

/// A document's value; one that cannot be read is told and counts as not there.
fn read<T: serde::de::DeserializeOwned>(documents: &[Document], key: &str, what: &str) -> Option<T> {
    let body = documents.iter().find(|d| d.key == key)?.body.as_deref()?;
    serde_json::from_slice(body).inspect_err(|e| tracing::error!("{what} cannot be read ({e}): it begins anew")).ok()
}

fn read_outcome(document: &Document) -> Option<Outcome> {
    let read = Outcome::from_bytes(document.body.as_deref()?);
    if read.is_none() {
        tracing::warn!(key = document.key, "a lesson of the past cannot be read and is left out");
    }
    read
}

fn row(document: Document) -> Row {
    Row { collection: document.collection, key: document.key, body: document.body }
}
