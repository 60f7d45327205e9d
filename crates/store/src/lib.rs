//! The store: the journal of incidents as a hash chain, its projections, and the rows that must outlive a process.
//!
//! Lives here: the [`Store`] trait, its kinds (SQLite, PostgreSQL, memory with injectable faults), migrations, the
//! verification and export of chains, and one conformance suite that runs against every kind.
//!
//! Never here: decisions. The store keeps what it is told, whole or not at all, and gives it back.

mod append;
pub mod audit;
mod config;
mod head;
mod memory;
mod rows;
mod sql;
pub mod tokens;

pub use append::{BODY_BYTES_MAX, EMPTY_HEAD, PROJECTION_VERSION};
pub use config::{PostgresConfig, SqliteConfig, StoreConfig};
pub use head::{HEAD_FILE_BYTES_MAX, HeadFiles, parse_head};
pub use memory::{CommitFault, MemoryStore};
pub use sql::{SCHEMA_VERSION, SqlStore};
pub use tokens::Role;

use async_trait::async_trait;
use nightshift_model::journal::{ChainHash, JournalDraft};
use nightshift_model::{
    Anomaly, Change, EntityId, Incident, IncidentId, IncidentStatus, JournalEvent, OccurrenceId, Severity, Timestamp,
};

/// One atomic write: all of it becomes durable, or none.
#[derive(Debug, Clone, Default)]
pub struct Commit {
    /// Appended to the tenant's chain, in this order, and folded into the incidents.
    pub journal: Vec<JournalDraft>,
    /// Inserted or replaced by id.
    pub anomalies: Vec<Anomaly>,
    /// Inserted; one that is there already (same id) is left alone.
    pub changes: Vec<Change>,
    /// Put or, with `None`, removed.
    pub documents: Vec<Document>,
    /// Documents that must be exactly as given here before anything is written (`None`: not there); otherwise the
    /// whole commit is a [`StoreError::Conflict`]. This is how a worker that lost its lease is kept from writing.
    pub expects: Vec<Document>,
    /// Where consumers go on, moved together with what they did.
    pub cursors: Vec<Cursor>,
}

impl Commit {
    /// Whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        self.journal.is_empty()
            && self.anomalies.is_empty()
            && self.changes.is_empty()
            && self.documents.is_empty()
            && self.expects.is_empty()
            && self.cursors.is_empty()
    }
}

/// A small named row: topology, learned priors, settings.
#[derive(Debug, Clone, PartialEq)]
pub struct Document {
    /// `topology.entity`, `topology.edge`, `topology.alias` …
    pub collection: String,
    /// Unique within tenant and collection.
    pub key: String,
    /// Its bytes (JSON by custom); `None` removes it.
    pub body: Option<Vec<u8>>,
}

/// Where a consumer goes on in one partition of a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cursor {
    /// Which consumer.
    pub consumer: String,
    /// Topic.
    pub topic: String,
    /// Partition.
    pub partition: u32,
    /// Offset of the next record.
    pub next_offset: u64,
}

/// Which incidents to list. Empty fields do not filter.
#[derive(Debug, Clone, Default)]
pub struct IncidentFilter {
    /// Any of these.
    pub status: Vec<IncidentStatus>,
    /// Any of these.
    pub severity: Vec<Severity>,
    /// One of the affected, by id or part of its name.
    pub entity: Option<String>,
    /// Updated at or after.
    pub since: Option<Timestamp>,
    /// Updated before.
    pub until: Option<Timestamp>,
    /// In title, entities, causes or symptoms, any case.
    pub text: Option<String>,
    /// Include those of test injections.
    pub synthetic: bool,
    /// Continue after this one (newest first, by number).
    pub before_number: Option<u64>,
    /// At most this many; 0 means 100.
    pub limit: usize,
}

/// Which anomalies to list, newest onset first.
#[derive(Debug, Clone, Default)]
pub struct AnomalyFilter {
    /// Of this entity.
    pub entity: Option<EntityId>,
    /// Of these severities.
    pub severity: Vec<Severity>,
    /// Seen at or after.
    pub since: Option<Timestamp>,
    /// Only those still going on.
    pub open_only: bool,
    /// At most this many; 0 means 100.
    pub limit: usize,
}

/// A token as it is kept: never the secret, only its hash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenRow {
    /// What the journal calls its bearer.
    pub name: String,
    /// viewer, operator, approver or admin.
    pub role: String,
    /// SHA-256 of the secret.
    pub secret_sha256: [u8; 32],
    /// When it was made.
    pub created_at: Timestamp,
    /// Whether the first start made it by itself.
    pub generated: bool,
    /// When it was withdrawn.
    pub revoked_at: Option<Timestamp>,
}

/// The end of a tenant's chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChainHead {
    /// Events in it.
    pub count: u64,
    /// Hash of the newest.
    pub hash: ChainHash,
}

/// One stored link of a chain, exactly as hashed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChainLink {
    /// From 1.
    pub seq: u64,
    /// The hashed form of the event.
    pub body: Vec<u8>,
    /// Hash of the link before and `body`.
    pub hash: ChainHash,
}

impl ChainLink {
    /// What it says.
    ///
    /// # Errors
    /// `Corrupt` when its body is not readable.
    pub fn event(&self) -> Result<JournalEvent, StoreError> {
        append::read_body(&self.body).map_err(|e| StoreError::Corrupt(format!("link {} {e}", self.seq)))
    }
}

/// What can go wrong.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another process has it.
    #[error("`{0}` is in use by another process")]
    Locked(String),
    /// A newer program made this database.
    #[error("database has schema version {found}, this program knows {known}: use a newer nightshift")]
    NewerSchema {
        /// Its version.
        found: i64,
        /// Ours.
        known: i64,
    },
    /// The name is taken.
    #[error("`{0}` exists already")]
    Exists(String),
    /// A document that the commit expects is not as it says: somebody else wrote in between.
    #[error("`{0}` was changed by somebody else: read it again")]
    Conflict(String),
    /// It cannot be kept, and never will be: a number that is not finite, a name with a NUL, a body too long.
    #[error("refuse {0}")]
    Refused(String),
    /// Stored bytes are not what was written.
    #[error("stored data is damaged: {0}")]
    Corrupt(String),
    /// The database failed.
    #[error("{what}")]
    Database {
        /// What was being done.
        what: String,
        /// Why it failed.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl StoreError {
    /// Whether trying again later can help.
    pub const fn is_transient(&self) -> bool {
        matches!(self, Self::Database { .. } | Self::Locked(_))
    }
}

/// What outlives a process. Every method is for one tenant, so that no query can cross by mistake.
#[async_trait]
pub trait Store: Send + Sync {
    /// `sqlite`, `postgres` or `memory`.
    fn kind(&self) -> &'static str;

    /// Writes all of it or nothing; returns the journal events in their places. Opening an incident (an
    /// `EventKind::Opened` draft) whose id exists already is an `Exists` error; a draft for an incident that does
    /// not exist is a `Corrupt` one (rows of the tenant as a whole belong to none). `expects` is checked first. Appends are serial per tenant.
    async fn commit(&self, tenant: &str, commit: Commit) -> Result<Vec<JournalEvent>, StoreError>;

    /// One incident.
    async fn incident(&self, tenant: &str, id: IncidentId) -> Result<Option<Incident>, StoreError>;

    /// One incident by the number in its short id.
    async fn incident_by_number(&self, tenant: &str, number: u64) -> Result<Option<Incident>, StoreError>;

    /// Incidents, newest number first.
    async fn incidents(&self, tenant: &str, filter: &IncidentFilter) -> Result<Vec<Incident>, StoreError>;

    /// Highest incident number given so far, 0 when none.
    async fn last_incident_number(&self, tenant: &str) -> Result<u64, StoreError>;

    /// Journal events with `seq >= from`, oldest first, at most `max`.
    async fn journal(&self, tenant: &str, from: u64, max: usize) -> Result<Vec<JournalEvent>, StoreError>;

    /// All journal events of one incident, oldest first.
    async fn incident_journal(&self, tenant: &str, id: IncidentId) -> Result<Vec<JournalEvent>, StoreError>;

    /// Chain links with `seq >= from`, exactly as stored, at most `max`.
    async fn chain(&self, tenant: &str, from: u64, max: usize) -> Result<Vec<ChainLink>, StoreError>;

    /// The end of the chain as the database has it.
    async fn chain_head(&self, tenant: &str) -> Result<ChainHead, StoreError>;

    /// Appends links that were exported elsewhere, exactly as they are, and folds them. They must continue the chain
    /// as it stands (`Corrupt` otherwise, and nothing is written).
    async fn append_links(&self, tenant: &str, links: Vec<ChainLink>) -> Result<(), StoreError>;

    /// Compares every incident as it is kept, with all that is searched of it, to the fold of its journal, at one
    /// moment. Returns what differs, one line each, at most `max`.
    async fn check_projection(&self, tenant: &str, max: usize) -> Result<Vec<String>, StoreError>;

    /// Builds every projection of the tenant anew from its journal.
    async fn rebuild(&self, tenant: &str) -> Result<(), StoreError>;

    /// One anomaly.
    async fn anomaly(&self, tenant: &str, id: OccurrenceId) -> Result<Option<Anomaly>, StoreError>;

    /// Anomalies, newest onset first.
    async fn anomalies(&self, tenant: &str, filter: &AnomalyFilter) -> Result<Vec<Anomaly>, StoreError>;

    /// Changes and events at or after `since`, newest first, at most `max`.
    async fn changes(&self, tenant: &str, since: Timestamp, max: usize) -> Result<Vec<Change>, StoreError>;

    /// All documents of a collection, by key.
    async fn documents(&self, tenant: &str, collection: &str) -> Result<Vec<Document>, StoreError>;

    /// Cursors of a consumer.
    async fn cursors(&self, tenant: &str, consumer: &str) -> Result<Vec<Cursor>, StoreError>;

    /// Keeps a token; the name must be new among those not revoked.
    async fn put_token(&self, token: TokenRow) -> Result<(), StoreError>;

    /// All tokens, revoked ones too, by creation.
    async fn tokens(&self) -> Result<Vec<TokenRow>, StoreError>;

    /// Withdraws a token; `false` when there was none of this name.
    async fn revoke_token(&self, name: &str, at: Timestamp) -> Result<bool, StoreError>;

    /// Tenants that have anything.
    async fn tenants(&self) -> Result<Vec<String>, StoreError>;

    /// Removes anomalies that ended, and changes, before `before`. Incidents and their journal stay.
    async fn prune(&self, tenant: &str, before: Timestamp) -> Result<u64, StoreError>;

    /// Flushes and ends.
    async fn close(&self) -> Result<(), StoreError>;
}
