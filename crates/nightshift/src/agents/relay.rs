//! The relay: the journal is the outbox.
//!
//! Incidents become known to the bus and to our own metrics by reading the journal from where the relay
//! last stood. A crash between commit and publish loses nothing: the rows are there, and what is published twice
//! carries the same ids.

use super::{AgentError, Turn, control};
use nightshift_bus::{Bus, Outgoing};
use nightshift_health::{ByNode, ByOutcome, ByRule, BySeverityAndStatus, ByVerdict, SelfMetrics};
use nightshift_model::journal::EventKind;
use nightshift_model::topics::{self, Topic};
use nightshift_model::{ActionState, Clock, Decision, EnvelopeId, Incident, IncidentId, JournalEvent, Reason};
use nightshift_store::{Commit, Cursor, Store};
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;

/// The name its cursor goes by.
const NAME: &str = "relay";
/// The "topic" of its cursor: the journal itself.
const JOURNAL: &str = "journal";
/// Rows read at once.
const ROWS: usize = 256;

/// Tells the bus what the journal says, and counts it.
pub struct RelayAgent {
    bus: Arc<dyn Bus>,
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    counters: SelfMetrics,
    /// Next sequence number of each tenant.
    next: BTreeMap<String, u64>,
}

/// Where a row is published, and whether as the incident that it made (or as itself).
const fn topic_of(event: &EventKind) -> (Topic, bool) {
    match event {
        EventKind::Opened { .. } => (topics::INCIDENTS_OPENED, true),
        EventKind::Resolved { .. } => (topics::INCIDENTS_RESOLVED, true),
        EventKind::CausesRanked { .. } => (topics::RCA_COMPLETED, false),
        EventKind::PlanProposed { .. } => (topics::REMEDIATION_PLANS, false),
        EventKind::ActionIntended { .. }
        | EventKind::ActionEnded { .. }
        | EventKind::Verified { .. }
        | EventKind::VerificationFailed { .. } => (topics::REMEDIATION_ACTIONS, false),
        EventKind::Judged { .. }
        | EventKind::ApprovalRequested { .. }
        | EventKind::Approved { .. }
        | EventKind::Rejected { .. }
        | EventKind::Overridden { .. }
        | EventKind::LibraryLoaded { .. }
        | EventKind::KillSwitched { .. } => (topics::POLICY_AUDIT, false),
        EventKind::PostmortemWritten { .. } => (topics::POSTMORTEMS_GENERATED, false),
        _ => (topics::INCIDENTS_UPDATED, true),
    }
}

/// The rules that kept an action from running by itself or at all; of any other row none.
fn stopped_by(event: &EventKind) -> impl Iterator<Item = &Reason> {
    let verdict = match event {
        EventKind::Judged { verdict } if verdict.decision >= Decision::Monitor => Some(verdict),
        _ => None,
    };
    verdict.into_iter().flat_map(|v| v.decisive())
}

impl RelayAgent {
    /// A relay that goes on where the last one stopped.
    pub fn new(bus: Arc<dyn Bus>, store: Arc<dyn Store>, clock: Arc<dyn Clock>, counters: SelfMetrics) -> Self {
        Self { bus, store, clock, counters, next: BTreeMap::new() }
    }

    /// One round over all tenants.
    ///
    /// # Errors
    /// When bus or store fail; the next turn begins at the same row.
    pub async fn turn(&mut self) -> Result<Turn, AgentError> {
        let mut turn = Turn::default();
        for tenant in self.store.tenants().await? {
            let next = match self.next.get(&tenant) {
                Some(next) => *next,
                None => {
                    let known = self.store.cursors(&tenant, NAME).await?;
                    known.first().map_or(1, |c| c.next_offset)
                }
            };
            let rows = self.store.journal(&tenant, next, ROWS).await?;
            let Some(last) = rows.last() else {
                self.next.insert(tenant, next);
                continue;
            };
            let after = last.seq + 1;
            turn.records += rows.len();
            let mut incidents: BTreeMap<IncidentId, Option<Incident>> = BTreeMap::new();
            for row in &rows {
                if let Entry::Vacant(place) = incidents.entry(row.incident) {
                    place.insert(self.store.incident(&tenant, row.incident).await?);
                }
            }
            self.publish(&tenant, &rows, &incidents).await?;
            for row in &rows {
                self.count(row, incidents.get(&row.incident).and_then(Option::as_ref));
            }
            let cursor = Cursor { consumer: NAME.into(), topic: JOURNAL.into(), partition: 0, next_offset: after };
            self.store.commit(&tenant, Commit { cursors: vec![cursor], ..Default::default() }).await?;
            self.next.insert(tenant, after);
            turn.progressed = true;
        }
        Ok(turn)
    }

    /// One publication per topic, each in the order of the journal.
    async fn publish(
        &self,
        tenant: &str,
        rows: &[JournalEvent],
        incidents: &BTreeMap<IncidentId, Option<Incident>>,
    ) -> Result<(), AgentError> {
        let now = self.clock.now();
        let mut by_topic: BTreeMap<&'static str, Vec<Outgoing>> = BTreeMap::new();
        for row in rows {
            let incident = incidents.get(&row.incident).and_then(Option::as_ref);
            let (topic, whole) = topic_of(&row.event);
            let key = row.incident.to_string();
            let id = |purpose: &str| {
                EnvelopeId::derive(&[NAME.as_bytes(), purpose.as_bytes(), tenant.as_bytes(), &row.seq.to_be_bytes()])
            };
            let record = match incident {
                Some(incident) if whole => {
                    control(id(""), tenant, key.clone(), "nightshift.v1.Incident", row.at, now, incident)
                }
                _ => control(id(""), tenant, key.clone(), "nightshift.v1.JournalEvent", row.at, now, row),
            };
            by_topic.entry(topic.name).or_default().push(record);
            if stopped_by(&row.event).next().is_some() {
                let record = control(id("stopped"), tenant, key, "nightshift.v1.JournalEvent", row.at, now, row);
                by_topic.entry(topics::POLICY_VIOLATIONS.name).or_default().push(record);
            }
        }
        for (topic, records) in by_topic {
            self.bus.publish(topic, records).await?;
        }
        Ok(())
    }

    /// Our own metrics; test injections teach them nothing.
    fn count(&self, row: &JournalEvent, incident: Option<&Incident>) {
        let Some(incident) = incident.filter(|i| !i.synthetic) else { return };
        for rule in stopped_by(&row.event) {
            self.counters.actions_blocked.get_or_create(&ByRule { rule: rule.rule.clone().into() }).inc();
        }
        match &row.event {
            EventKind::ActionEnded { key, outcome, .. } => {
                let changes = |a: &&ActionState| a.action.key == *key && a.action.operation.changes();
                if incident.actions.iter().any(|a| changes(&a)) {
                    self.counters.actions.get_or_create(&ByOutcome { outcome: outcome.as_str().into() }).inc();
                }
            }
            EventKind::FeedbackGiven { feedback } => {
                self.counters.feedback.get_or_create(&ByVerdict { verdict: feedback.as_str().into() }).inc();
            }
            EventKind::NodeDone { node, began_at, ended_at, .. } => {
                let took = ended_at.since(*began_at).as_secs_f64();
                self.counters.node_seconds.get_or_create(&ByNode { node: node.clone().into() }).observe(took);
            }
            _ => {}
        }
        let status = match &row.event {
            EventKind::Opened { .. } => "detecting",
            EventKind::StatusChanged { to, .. } => to.as_str(),
            EventKind::Resolved { .. } => "resolved",
            EventKind::MergedInto { .. } => "merged",
            EventKind::Reopened { .. } => "investigating",
            _ => return,
        };
        let labels = BySeverityAndStatus { severity: incident.severity.as_str().into(), status: status.into() };
        self.counters.incidents.get_or_create(&labels).inc();
        match &row.event {
            EventKind::Opened { .. } => {
                self.counters.mttd_seconds.observe(incident.detected_at.since(incident.onset).as_secs_f64());
            }
            EventKind::Resolved { .. } => {
                self.counters.mttr_seconds.observe(row.at.since(incident.detected_at).as_secs_f64());
            }
            _ => {}
        }
    }
}
