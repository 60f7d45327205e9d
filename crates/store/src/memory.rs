//! The store in memory: for tests, simulation and the demo. Same rules, nothing outlives the process.
//!
//! Faults can be injected: the nth commit from now fails before or after it took effect, as a database does when it
//! refuses a commit, or when its answer is lost on the way.

use crate::append::{self, Appended, EMPTY_HEAD, Existing, Prepared};
use crate::rows::{self, AnomalyRow, IncidentRow};
use crate::{
    AnomalyFilter, ChainHead, ChainLink, Commit, Cursor, Document, IncidentFilter, Store, StoreError, TokenRow,
};
use async_trait::async_trait;
use nightshift_model::{Anomaly, Change, EnvelopeId, Incident, IncidentId, JournalEvent, OccurrenceId, Timestamp};
use parking_lot::Mutex;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

/// How an injected fault fails a commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CommitFault {
    /// Nothing was written.
    BeforeEffect,
    /// All of it was written; only the answer says otherwise.
    AfterEffect,
}

/// A store that lives and dies with its process.
#[derive(Default)]
pub struct MemoryStore {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    tenants: BTreeMap<String, Tenant>,
    tokens: Vec<TokenRow>,
    commits: u64,
    faults: BTreeMap<u64, CommitFault>,
}

#[derive(Default)]
struct Tenant {
    links: Vec<ChainLink>,
    head: Option<ChainHead>,
    incidents: BTreeMap<IncidentId, IncidentRow>,
    numbers: BTreeMap<i64, IncidentId>,
    anomalies: BTreeMap<OccurrenceId, AnomalyRow>,
    changes: BTreeMap<EnvelopeId, (i64, Vec<u8>)>,
    documents: BTreeMap<(String, String), Vec<u8>>,
    cursors: BTreeMap<(String, String, u32), u64>,
}

impl MemoryStore {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    /// Fails the `nth` commit from now (1 is the next one) with a transient error.
    pub fn fail_commit(&self, nth: u64, fault: CommitFault) {
        let mut state = self.state.lock();
        let at = state.commits + nth.max(1);
        state.faults.insert(at, fault);
    }

    /// Lets a test damage the stored chain of a tenant as somebody with access to the database would.
    #[doc(hidden)]
    pub fn tamper(&self, tenant: &str, damage: impl FnOnce(&mut Vec<ChainLink>)) {
        damage(&mut self.state.lock().tenants.entry(tenant.into()).or_default().links);
    }

    fn read<T>(&self, tenant: &str, read: impl FnOnce(&Tenant) -> Result<T, StoreError>) -> Result<T, StoreError> {
        read(self.state.lock().tenants.get(tenant).unwrap_or(&Tenant::default()))
    }
}

/// The rows of a commit, encoded before anything is written: what cannot be encoded leaves nothing behind.
struct Encoded {
    prepared: Prepared,
    incidents: Vec<(IncidentId, IncidentRow)>,
    anomalies: Vec<(OccurrenceId, AnomalyRow)>,
    changes: Vec<(EnvelopeId, i64, Vec<u8>)>,
    cursors: Vec<Cursor>,
    documents: Vec<Document>,
}

impl Tenant {
    fn head(&self) -> ChainHead {
        self.head.unwrap_or(EMPTY_HEAD)
    }

    fn incident(&self, id: IncidentId) -> Result<Option<Incident>, StoreError> {
        self.incidents.get(&id).map(|row| rows::decode("an incident", &row.body)).transpose()
    }

    fn existing(&self, ids: BTreeSet<IncidentId>, numbers: BTreeSet<u64>) -> Result<Existing, StoreError> {
        let mut existing = Existing::default();
        for id in ids {
            if let Some(inc) = self.incident(id)? {
                existing.incidents.insert(id, inc);
            }
        }
        let given = |n: &u64| i64::try_from(*n).is_ok_and(|n| self.numbers.contains_key(&n));
        existing.numbers = numbers.into_iter().filter(given).collect();
        Ok(existing)
    }

    fn encode(&self, tenant: &str, commit: Commit) -> Result<Encoded, StoreError> {
        for d in &commit.expects {
            if self.documents.get(&(d.collection.clone(), d.key.clone())) != d.body.as_ref() {
                return Err(StoreError::Conflict(format!("{}/{}", d.collection, d.key)));
            }
        }
        let existing = self.existing(append::named(&commit.journal), append::wanted_numbers(&commit.journal))?;
        let prepared = append::prepare(tenant, self.head(), existing, commit.journal)?;
        for c in &commit.cursors {
            rows::to_i64("offset", c.next_offset)?;
        }
        Ok(Encoded {
            incidents: incident_rows(&prepared)?,
            prepared,
            anomalies: commit
                .anomalies
                .iter()
                .map(|a| Ok((a.id, AnomalyRow::of(a)?)))
                .collect::<Result<_, StoreError>>()?,
            changes: commit
                .changes
                .iter()
                .map(|c| Ok((c.id, c.at.0, rows::change_body(c)?)))
                .collect::<Result<_, StoreError>>()?,
            cursors: commit.cursors,
            documents: commit.documents,
        })
    }

    fn append(&mut self, prepared: Prepared, rows: Vec<(IncidentId, IncidentRow)>) -> Vec<JournalEvent> {
        for (id, row) in rows {
            self.numbers.insert(row.number, id);
            self.incidents.insert(id, row);
        }
        self.head = Some(prepared.head);
        prepared
            .appended
            .into_iter()
            .map(|Appended { link, event }| {
                self.links.push(link);
                event
            })
            .collect()
    }

    fn write(&mut self, e: Encoded) -> Vec<JournalEvent> {
        self.anomalies.extend(e.anomalies);
        for (id, at, body) in e.changes {
            self.changes.entry(id).or_insert((at, body));
        }
        for d in e.documents {
            match d.body {
                Some(body) => self.documents.insert((d.collection, d.key), body),
                None => self.documents.remove(&(d.collection, d.key)),
            };
        }
        for c in e.cursors {
            self.cursors.insert((c.consumer, c.topic, c.partition), c.next_offset);
        }
        self.append(e.prepared, e.incidents)
    }

    fn events(&self, from: u64) -> impl Iterator<Item = Result<JournalEvent, StoreError>> {
        self.links.iter().filter(move |l| l.seq >= from).map(ChainLink::event)
    }

    fn folded(&self) -> Result<BTreeMap<IncidentId, Vec<JournalEvent>>, StoreError> {
        let mut by_incident = BTreeMap::<_, Vec<_>>::new();
        for event in self.events(0) {
            let event = event?;
            if event.event.is_tenant_wide() {
                continue;
            }
            by_incident.entry(event.incident).or_default().push(event);
        }
        Ok(by_incident)
    }
}

fn incident_rows(prepared: &Prepared) -> Result<Vec<(IncidentId, IncidentRow)>, StoreError> {
    prepared.incidents.iter().map(|(id, inc)| Ok((*id, IncidentRow::of(inc)?))).collect()
}

#[async_trait]
impl Store for MemoryStore {
    fn kind(&self) -> &'static str {
        "memory"
    }

    async fn commit(&self, tenant: &str, commit: Commit) -> Result<Vec<JournalEvent>, StoreError> {
        append::check_names(tenant, &commit)?;
        let mut state = self.state.lock();
        state.commits += 1;
        let nth = state.commits;
        let fault = state.faults.remove(&nth);
        let injected =
            || StoreError::Database { what: format!("commit {nth}"), source: "a fault that was asked for".into() };
        if fault == Some(CommitFault::BeforeEffect) {
            return Err(injected());
        }
        if commit.is_empty() {
            return Ok(Vec::new());
        }
        // Not `entry`: a commit that is refused must not make its tenant.
        let encoded = state.tenants.get(tenant).unwrap_or(&Tenant::default()).encode(tenant, commit)?;
        let events = state.tenants.entry(tenant.into()).or_default().write(encoded);
        if fault == Some(CommitFault::AfterEffect) { Err(injected()) } else { Ok(events) }
    }

    async fn append_links(&self, tenant: &str, links: Vec<ChainLink>) -> Result<(), StoreError> {
        append::check_tenant(tenant)?;
        let (ids, numbers) = append::named_by_links(&links)?;
        let mut state = self.state.lock();
        let empty = Tenant::default();
        let now = state.tenants.get(tenant).unwrap_or(&empty);
        let prepared = append::prepare_links(tenant, now.head(), now.existing(ids, numbers)?, links)?;
        let rows = incident_rows(&prepared)?;
        state.tenants.entry(tenant.into()).or_default().append(prepared, rows);
        Ok(())
    }

    async fn incident(&self, tenant: &str, id: IncidentId) -> Result<Option<Incident>, StoreError> {
        self.read(tenant, |t| t.incident(id))
    }

    async fn incident_by_number(&self, tenant: &str, number: u64) -> Result<Option<Incident>, StoreError> {
        self.read(tenant, |t| {
            let id = i64::try_from(number).ok().and_then(|n| t.numbers.get(&n));
            id.map_or(Ok(None), |id| t.incident(*id))
        })
    }

    async fn incidents(&self, tenant: &str, filter: &IncidentFilter) -> Result<Vec<Incident>, StoreError> {
        self.read(tenant, |t| {
            let newest_first = t.numbers.values().rev().filter_map(|id| t.incidents.get(id));
            let hits = newest_first.filter(|row| row.matches(filter)).take(rows::limit(filter.limit));
            hits.map(|row| rows::decode("an incident", &row.body)).collect()
        })
    }

    async fn last_incident_number(&self, tenant: &str) -> Result<u64, StoreError> {
        self.read(tenant, |t| t.numbers.last_key_value().map_or(Ok(0), |(n, _)| rows::to_u64("incident number", *n)))
    }

    async fn journal(&self, tenant: &str, from: u64, max: usize) -> Result<Vec<JournalEvent>, StoreError> {
        self.read(tenant, |t| t.events(from).take(max).collect())
    }

    async fn incident_journal(&self, tenant: &str, id: IncidentId) -> Result<Vec<JournalEvent>, StoreError> {
        self.read(tenant, |t| t.events(0).filter(|e| e.as_ref().map_or(true, |e| e.incident == id)).collect())
    }

    async fn chain(&self, tenant: &str, from: u64, max: usize) -> Result<Vec<ChainLink>, StoreError> {
        self.read(tenant, |t| Ok(t.links.iter().filter(|l| l.seq >= from).take(max).cloned().collect()))
    }

    async fn chain_head(&self, tenant: &str) -> Result<ChainHead, StoreError> {
        self.read(tenant, |t| Ok(t.head()))
    }

    async fn check_projection(&self, tenant: &str, max: usize) -> Result<Vec<String>, StoreError> {
        self.read(tenant, |t| {
            let folded = t.folded()?;
            let mut wrong = Vec::new();
            for (id, events) in &folded {
                wrong.extend(crate::audit::row_fault(*id, append::fold(events).as_ref(), t.incidents.get(id))?);
            }
            for (id, row) in t.incidents.iter().filter(|(id, _)| !folded.contains_key(id)) {
                wrong.extend(crate::audit::row_fault(*id, None, Some(row))?);
            }
            wrong.truncate(max);
            Ok(wrong)
        })
    }

    async fn rebuild(&self, tenant: &str) -> Result<(), StoreError> {
        let mut state = self.state.lock();
        let Some(t) = state.tenants.get_mut(tenant) else { return Ok(()) };
        let mut rebuilt = BTreeMap::new();
        for (id, events) in t.folded()? {
            let inc = append::fold(&events).ok_or_else(|| crate::audit::never_opened(id))?;
            rebuilt.insert(id, IncidentRow::of(&inc)?);
        }
        t.numbers = rebuilt.iter().map(|(id, row)| (row.number, *id)).collect();
        t.incidents = rebuilt;
        Ok(())
    }

    async fn anomaly(&self, tenant: &str, id: OccurrenceId) -> Result<Option<Anomaly>, StoreError> {
        self.read(tenant, |t| t.anomalies.get(&id).map(|r| rows::decode("an anomaly", &r.body)).transpose())
    }

    async fn anomalies(&self, tenant: &str, filter: &AnomalyFilter) -> Result<Vec<Anomaly>, StoreError> {
        self.read(tenant, |t| {
            let mut hits = t.anomalies.iter().filter(|(_, r)| r.matches(filter)).collect::<Vec<_>>();
            hits.sort_by_key(|(id, r)| Reverse((r.onset, **id)));
            let first = hits.into_iter().take(rows::limit(filter.limit));
            first.map(|(_, r)| rows::decode("an anomaly", &r.body)).collect()
        })
    }

    async fn changes(&self, tenant: &str, since: Timestamp, max: usize) -> Result<Vec<Change>, StoreError> {
        self.read(tenant, |t| {
            let mut hits = t.changes.iter().filter(|(_, (at, _))| *at >= since.0).collect::<Vec<_>>();
            hits.sort_by_key(|(id, (at, _))| Reverse((*at, **id)));
            hits.into_iter().take(max).map(|(_, (_, body))| rows::decode("a change", body)).collect()
        })
    }

    async fn documents(&self, tenant: &str, collection: &str) -> Result<Vec<Document>, StoreError> {
        self.read(tenant, |t| {
            let of_it = t.documents.iter().filter(|((c, _), _)| c == collection);
            Ok(of_it
                .map(|((collection, key), body)| Document {
                    collection: collection.clone(),
                    key: key.clone(),
                    body: Some(body.clone()),
                })
                .collect())
        })
    }

    async fn cursors(&self, tenant: &str, consumer: &str) -> Result<Vec<Cursor>, StoreError> {
        self.read(tenant, |t| {
            let of_it = t.cursors.iter().filter(|((c, ..), _)| c == consumer);
            Ok(of_it
                .map(|((consumer, topic, partition), next)| Cursor {
                    consumer: consumer.clone(),
                    topic: topic.clone(),
                    partition: *partition,
                    next_offset: *next,
                })
                .collect())
        })
    }

    async fn put_token(&self, token: TokenRow) -> Result<(), StoreError> {
        crate::tokens::check_row(&token)?;
        let mut state = self.state.lock();
        let taken = |t: &TokenRow| t.name == token.name && t.revoked_at.is_none() && token.revoked_at.is_none();
        if state.tokens.iter().any(|t| taken(t) || t.secret_sha256 == token.secret_sha256) {
            return Err(StoreError::Exists(format!("token {}", token.name)));
        }
        state.tokens.push(token);
        state.tokens.sort_by_key(|t| t.created_at);
        Ok(())
    }

    async fn tokens(&self) -> Result<Vec<TokenRow>, StoreError> {
        Ok(self.state.lock().tokens.clone())
    }

    async fn revoke_token(&self, name: &str, at: Timestamp) -> Result<bool, StoreError> {
        let mut state = self.state.lock();
        let live = state.tokens.iter_mut().find(|t| t.name == name && t.revoked_at.is_none());
        Ok(live.map(|t| t.revoked_at = Some(at)).is_some())
    }

    async fn tenants(&self) -> Result<Vec<String>, StoreError> {
        Ok(self.state.lock().tenants.keys().cloned().collect())
    }

    async fn prune(&self, tenant: &str, before: Timestamp) -> Result<u64, StoreError> {
        let mut state = self.state.lock();
        let Some(t) = state.tenants.get_mut(tenant) else { return Ok(0) };
        let rows = t.anomalies.len() + t.changes.len();
        t.anomalies.retain(|_, r| r.open == 1 || r.last_seen >= before.0);
        t.changes.retain(|_, (at, _)| *at >= before.0);
        Ok((rows - t.anomalies.len() - t.changes.len()) as u64)
    }

    async fn close(&self) -> Result<(), StoreError> {
        Ok(())
    }
}
