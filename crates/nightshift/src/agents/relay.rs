//! The relay: the journal is the outbox.
//!
//! Incidents become known to the bus, to listeners and to our own metrics by reading the journal from where the relay
//! last stood. A crash between commit and publish loses nothing: the rows are there, and what is published twice
//! carries the same ids.

use super::{AgentError, Turn, control};
use nightshift_bus::Bus;
use nightshift_health::{BySeverityAndStatus, SelfMetrics};
use nightshift_model::journal::EventKind;
use nightshift_model::{Clock, EnvelopeId, Incident, JournalEvent, topics};
use nightshift_store::{Commit, Cursor, Store};
use serde::Serialize;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The name its cursor goes by.
const NAME: &str = "relay";
/// The "topic" of its cursor: the journal itself.
const JOURNAL: &str = "journal";
/// Rows read at once.
const ROWS: usize = 256;

/// What listeners are told.
#[derive(Debug, Clone, Serialize)]
pub struct Told {
    /// What happened.
    pub event: JournalEvent,
    /// The incident as it stands now (it may be further on than `event`).
    pub incident: Incident,
}

/// Tells the bus and listeners what the journal says.
pub struct RelayAgent {
    bus: Arc<dyn Bus>,
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    counters: SelfMetrics,
    listener: Box<dyn Fn(&Told) + Send + Sync>,
    /// Next sequence number of each tenant.
    next: BTreeMap<String, u64>,
}

impl RelayAgent {
    /// A relay that goes on where the last one stopped.
    pub fn new(
        bus: Arc<dyn Bus>,
        store: Arc<dyn Store>,
        clock: Arc<dyn Clock>,
        counters: SelfMetrics,
        listener: Box<dyn Fn(&Told) + Send + Sync>,
    ) -> Self {
        Self { bus, store, clock, counters, listener, next: BTreeMap::new() }
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
            for row in &rows {
                self.tell(&tenant, row).await?;
            }
            let cursor = Cursor { consumer: NAME.into(), topic: JOURNAL.into(), partition: 0, next_offset: after };
            self.store.commit(&tenant, Commit { cursors: vec![cursor], ..Default::default() }).await?;
            self.next.insert(tenant, after);
            turn.progressed = true;
        }
        Ok(turn)
    }

    async fn tell(&self, tenant: &str, row: &JournalEvent) -> Result<(), AgentError> {
        let Some(incident) = self.store.incident(tenant, row.incident).await? else { return Ok(()) };
        let now = self.clock.now();
        let topic = match &row.event {
            EventKind::Opened { .. } => topics::INCIDENTS_OPENED,
            EventKind::Resolved { .. } => topics::INCIDENTS_RESOLVED,
            EventKind::CausesRanked { .. } => topics::RCA_COMPLETED,
            _ => topics::INCIDENTS_UPDATED,
        };
        let id = EnvelopeId::derive(&[NAME.as_bytes(), tenant.as_bytes(), &row.seq.to_be_bytes()]);
        let key = row.incident.to_string();
        let record = match &row.event {
            EventKind::CausesRanked { .. } => control(id, tenant, key, "nightshift.v1.JournalEvent", row.at, now, row),
            _ => control(id, tenant, key, "nightshift.v1.Incident", row.at, now, &incident),
        };
        self.bus.publish(topic.name, vec![record]).await?;
        self.count(row, &incident);
        (self.listener)(&Told { event: row.clone(), incident });
        Ok(())
    }

    /// Our own metrics; test injections teach them nothing.
    fn count(&self, row: &JournalEvent, incident: &Incident) {
        if incident.synthetic {
            return;
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
