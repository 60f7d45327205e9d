//! What the API asks of plans, guard, postmortems and telling, answered from the store and from boards that the rooms'
//! agents keep up to date.

use super::{Commands, Switch};
use crate::switch::SwitchBoard;
use async_trait::async_trait;
use nightshift_api::{
    Automation, Catalogue, DeliveriesView, DeliveryRow, GuardReport, GuardView, LiveReadings, PlaybookRow, PolicyRow,
    Postmortem, Postmortems, ReplayError, ReplayView,
};
use nightshift_guard::Policies;
use nightshift_model::{Incident, IncidentId, KpiReading, Risk, Timestamp};
use nightshift_plan::{Playbook, Playbooks};
use nightshift_store::{Store, StoreError};
use nightshift_tell::{DELIVERIES, Delivery, People, stored_postmortem};
use parking_lot::RwLock;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

/// What the guard of the shown tenant holds, as its agent last said.
#[derive(Debug, Default)]
pub(crate) struct GuardBoard(RwLock<GuardReport>);

impl GuardBoard {
    /// Replaces it.
    pub(crate) fn set(&self, report: GuardReport) {
        *self.0.write() = report;
    }
}

impl GuardView for GuardBoard {
    fn view(&self, now: Timestamp) -> GuardReport {
        let mut report = self.0.read().clone();
        // What has run out since is not shown any more.
        report.cooldowns.retain(|c| c.until > now);
        report.freezes.retain(|f| f.until.is_none_or(|at| at > now));
        report
    }
}

/// Readings that are coming in, as the agent last said.
#[derive(Debug, Default)]
pub(crate) struct ReadingsBoard(RwLock<BTreeMap<IncidentId, Vec<KpiReading>>>);

impl ReadingsBoard {
    /// Those of one incident; none: it is not being verified any more.
    pub(crate) fn set(&self, incident: IncidentId, readings: Vec<KpiReading>) {
        let mut all = self.0.write();
        if readings.is_empty() {
            all.remove(&incident);
        } else {
            all.insert(incident, readings);
        }
    }
}

impl LiveReadings for ReadingsBoard {
    fn readings(&self, incident: IncidentId) -> Vec<KpiReading> {
        self.0.read().get(&incident).cloned().unwrap_or_default()
    }
}

/// Playbooks as the API and the command line list them.
pub(crate) fn playbook_rows(playbooks: &Playbooks) -> Vec<PlaybookRow> {
    let shipped = Playbooks::shipped();
    let row = |p: &Playbook| {
        let came_with_us = shipped.get(&p.name).is_some_and(|s| s.digest == p.digest);
        PlaybookRow {
            name: p.name.clone(),
            title: p.title.clone(),
            faults: p.heals.iter().map(|h| h.fault.slug().to_owned()).collect(),
            actions: p.steps.iter().map(|s| s.action.as_str().to_owned()).collect(),
            risk: p.steps.iter().map(|s| s.risk).max().unwrap_or(Risk::Low).as_str().into(),
            priority: p.priority.as_str().into(),
            owner: p.owner.clone(),
            digest: p.digest.clone(),
            source: if came_with_us { "shipped".into() } else { "plan.folder".into() },
            shipped: came_with_us,
        }
    };
    playbooks.iter().map(row).collect()
}

/// Policies as the API lists them: a row for each package.
pub(crate) fn policy_rows(policies: &Policies) -> Vec<PolicyRow> {
    let package =
        |text: &str| text.lines().find_map(|l| l.trim().strip_prefix("package ")).map(|p| p.trim().to_owned());
    let ours: BTreeSet<String> = nightshift_guard::SHIPPED.iter().filter_map(|(_, text)| package(text)).collect();
    let mut all: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for rule in policies.rules() {
        if let Some((package, verb)) = rule.rsplit_once('.') {
            all.entry(package.to_owned()).or_default().push(verb.to_owned());
        }
    }
    all.into_iter().map(|(name, rules)| PolicyRow { shipped: ours.contains(&name), name, rules }).collect()
}

/// Playbooks and policies in use, as last loaded.
#[derive(Debug, Default)]
pub(crate) struct CatalogueBoard {
    playbooks: RwLock<Vec<PlaybookRow>>,
    policies: RwLock<Vec<PolicyRow>>,
}

impl CatalogueBoard {
    /// Replaces the playbooks.
    pub(crate) fn set_playbooks(&self, rows: Vec<PlaybookRow>) {
        *self.playbooks.write() = rows;
    }

    /// Replaces the policies.
    pub(crate) fn set_policies(&self, rows: Vec<PolicyRow>) {
        *self.policies.write() = rows;
    }
}

impl Catalogue for CatalogueBoard {
    fn playbooks(&self) -> Vec<PlaybookRow> {
        self.playbooks.read().clone()
    }

    fn policies(&self) -> Vec<PolicyRow> {
        self.policies.read().clone()
    }
}

/// What the store of the shown tenant tells.
struct FromStore {
    store: Arc<dyn Store>,
    tenant: String,
    people: People,
}

/// An error with its cause, one line.
fn line(error: &StoreError) -> String {
    let cause = std::error::Error::source(error).map(|c| format!(": {c}")).unwrap_or_default();
    format!("{error}{cause}")
}

#[async_trait]
impl Postmortems for FromStore {
    async fn postmortem(&self, incident: &Incident) -> Result<Option<Postmortem>, String> {
        if incident.status.is_open() && incident.postmortem_at.is_none() {
            return Ok(None);
        }
        let kept = stored_postmortem(&*self.store, &self.tenant, incident.id).await.map_err(|e| line(&e))?;
        let made = match kept {
            Some(made) => Some(made),
            // It is a function of the journal: one that was not kept is made again.
            None => {
                let rows = self.store.incident_journal(&self.tenant, incident.id).await.map_err(|e| line(&e))?;
                nightshift_tell::postmortem(&rows, incident, &self.people)
            }
        };
        let Some(made) = made else { return Ok(None) };
        let facts = serde_json::to_value(&made.facts).map_err(|e| e.to_string())?;
        Ok(Some(Postmortem { markdown: made.markdown, facts }))
    }
}

#[async_trait]
impl DeliveriesView for FromStore {
    async fn deliveries(&self, max: usize) -> Result<Vec<DeliveryRow>, String> {
        let kept = self.store.documents(&self.tenant, DELIVERIES).await.map_err(|e| line(&e))?;
        let mut rows = Vec::with_capacity(kept.len());
        for document in kept {
            let Some(body) = document.body else { continue };
            let d: Delivery = serde_json::from_slice(&body).map_err(|e| format!("delivery {}: {e}", document.key))?;
            let status = serde_json::to_value(d.state).map_err(|e| e.to_string())?;
            rows.push(DeliveryRow {
                id: d.id,
                notifier: d.notifier,
                to: d.to,
                subject: d.subject,
                letter: d.kind.as_str().into(),
                incident: Some(d.incident),
                status: status.as_str().unwrap_or_default().into(),
                attempts: d.attempts,
                created_at: d.created_at,
                tried_at: d.tried_at,
                next_at: d.next_at,
                answered: d.last_status,
                error: d.last_error,
            });
        }
        rows.sort_by(|a, b| b.created_at.cmp(&a.created_at).then_with(|| a.id.cmp(&b.id)));
        rows.truncate(max);
        Ok(rows)
    }
}

/// Where the workflow does not run, its decisions cannot be made again.
struct NotHere;

#[async_trait]
impl ReplayView for NotHere {
    async fn replay(&self, _incident: &Incident, _policy: Option<&str>) -> Result<Value, ReplayError> {
        Err(ReplayError::Unavailable("the workflow does not run in this process".into()))
    }
}

/// The boards that agents keep up to date.
#[derive(Clone, Default)]
pub(crate) struct Boards {
    /// What the guard holds.
    pub guard: Arc<GuardBoard>,
    /// Readings that are coming in.
    pub readings: Arc<ReadingsBoard>,
    /// Playbooks and policies in use.
    pub catalogue: Arc<CatalogueBoard>,
    /// Decisions made again; `None` where the workflow does not run.
    pub replay: Option<Arc<dyn ReplayView>>,
}

/// What the API is given of all of it.
pub(crate) fn automation(
    store: Arc<dyn Store>,
    commands: Commands,
    people: People,
    board: Arc<SwitchBoard>,
    data: PathBuf,
    boards: Boards,
) -> Automation {
    let kept = Arc::new(FromStore { store, tenant: commands.tenant.clone(), people });
    Automation {
        kill_switch: Arc::new(Switch { board, commands, data }),
        guard: boards.guard,
        postmortems: kept.clone(),
        replay: boards.replay.unwrap_or_else(|| Arc::new(NotHere)),
        deliveries: kept,
        catalogue: boards.catalogue,
        readings: boards.readings,
    }
}
