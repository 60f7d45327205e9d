//! The store in SQLite and PostgreSQL: one implementation over the small differences of the two.

mod db;
mod migrate;
mod open;
mod read;
mod work;
mod writer;

pub use migrate::SCHEMA_VERSION;

use crate::append::{self, EMPTY_HEAD};
use crate::{
    AnomalyFilter, ChainHead, ChainLink, Commit, Cursor, Document, IncidentFilter, Store, StoreError, TokenRow, rows,
};
use async_trait::async_trait;
use db::{Arg, Db, Tx};
use nightshift_model::{Anomaly, Change, Incident, IncidentId, JournalEvent, OccurrenceId, Timestamp};
use parking_lot::Mutex;
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use work::{Done, Work};
use writer::Job;

/// A store in a database.
pub struct SqlStore {
    db: Arc<Db>,
    /// `None` once closed, and in a store that was opened to be read only.
    writer: Mutex<Option<(mpsc::Sender<Job>, JoinHandle<()>)>>,
    /// The lock on the database file; released when the store is closed, or dropped and its writer has ended.
    lock: Mutex<Option<Arc<open::FileLock>>>,
}

impl SqlStore {
    async fn write(&self, tenant: &str, work: Work) -> Result<Done, StoreError> {
        let closed =
            || StoreError::Database { what: "write".into(), source: "the store is closed or read-only".into() };
        let jobs = self.writer.lock().as_ref().map(|(jobs, _)| jobs.clone()).ok_or_else(closed)?;
        let (reply, answer) = oneshot::channel();
        jobs.send(Job { tenant: tenant.into(), work, reply }).await.map_err(|_| closed())?;
        answer.await.map_err(|_| closed())?
    }

    async fn incident_where(&self, tenant: &str, column: &str, arg: Arg<'_>) -> Result<Option<Incident>, StoreError> {
        let sql = db::assembled(format!("SELECT body FROM incidents WHERE tenant = $1 AND {column} = $2"));
        let found = self.db.fetch("read an incident", sql, &[Arg::Text(tenant), arg]).await?;
        Ok(read::decoded(&found, "an incident")?.pop())
    }
}

/// Whether the chain of a tenant has this head's link, with this hash.
async fn holds(tx: &mut Tx, tenant: &str, noted: ChainHead) -> Result<bool, StoreError> {
    let Ok(seq) = i64::try_from(noted.count) else { return Ok(false) };
    if noted == EMPTY_HEAD {
        return Ok(true);
    }
    let sql = "SELECT hash FROM incident_events WHERE tenant = $1 AND seq = $2";
    let found = tx.fetch("read a link", sql, &[Arg::Text(tenant), Arg::Int(seq)]).await?;
    found.first().map_or(Ok(false), |row| Ok(row.blob(0)? == noted.hash))
}

#[async_trait]
impl Store for SqlStore {
    fn kind(&self) -> &'static str {
        self.db.kind()
    }

    async fn commit(&self, tenant: &str, commit: Commit) -> Result<Vec<JournalEvent>, StoreError> {
        append::check_names(tenant, &commit)?;
        if commit.is_empty() {
            return Ok(Vec::new());
        }
        Ok(self.write(tenant, Work::Commit(commit)).await?.events)
    }

    async fn append_links(&self, tenant: &str, links: Vec<ChainLink>) -> Result<(), StoreError> {
        append::check_tenant(tenant)?;
        self.write(tenant, Work::AppendLinks(links)).await.map(drop)
    }

    async fn incident(&self, tenant: &str, id: IncidentId) -> Result<Option<Incident>, StoreError> {
        self.incident_where(tenant, "id", Arg::Blob(&id.to_bytes())).await
    }

    async fn incident_by_number(&self, tenant: &str, number: u64) -> Result<Option<Incident>, StoreError> {
        let Ok(number) = i64::try_from(number) else { return Ok(None) };
        self.incident_where(tenant, "number", Arg::Int(number)).await
    }

    async fn incidents(&self, tenant: &str, filter: &IncidentFilter) -> Result<Vec<Incident>, StoreError> {
        read::incidents(&self.db, tenant, filter).await
    }

    async fn last_incident_number(&self, tenant: &str) -> Result<u64, StoreError> {
        let sql = "SELECT max(number) FROM incidents WHERE tenant = $1";
        let found = self.db.fetch("read the last number", sql, &[Arg::Text(tenant)]).await?;
        let last = found.first().map(|r| r.opt_int(0)).transpose()?.flatten().unwrap_or(0);
        rows::to_u64("the last incident number", last)
    }

    async fn journal(&self, tenant: &str, from: u64, max: usize) -> Result<Vec<JournalEvent>, StoreError> {
        self.chain(tenant, from, max).await?.iter().map(ChainLink::event).collect()
    }

    async fn incident_journal(&self, tenant: &str, id: IncidentId) -> Result<Vec<JournalEvent>, StoreError> {
        read::incident_journal(&self.db, tenant, id).await
    }

    async fn chain(&self, tenant: &str, from: u64, max: usize) -> Result<Vec<ChainLink>, StoreError> {
        read::chain(&self.db, tenant, from, max).await
    }

    async fn chain_head(&self, tenant: &str) -> Result<ChainHead, StoreError> {
        let sql = "SELECT count, hash FROM chain_heads WHERE tenant = $1";
        let found = self.db.fetch("read the head of the chain", sql, &[Arg::Text(tenant)]).await?;
        found.first().map_or(Ok(EMPTY_HEAD), work::head)
    }

    async fn check_projection(&self, tenant: &str, max: usize) -> Result<Vec<String>, StoreError> {
        read::check_projection(&mut self.db.snapshot().await?, tenant, max).await
    }

    async fn rebuild(&self, tenant: &str) -> Result<(), StoreError> {
        self.write(tenant, Work::Rebuild).await.map(drop)
    }

    async fn anomaly(&self, tenant: &str, id: OccurrenceId) -> Result<Option<Anomaly>, StoreError> {
        let sql = "SELECT body FROM anomalies WHERE tenant = $1 AND id = $2";
        let found = self.db.fetch("read an anomaly", sql, &[Arg::Text(tenant), Arg::Blob(&id.to_bytes())]).await?;
        Ok(read::decoded(&found, "an anomaly")?.pop())
    }

    async fn anomalies(&self, tenant: &str, filter: &AnomalyFilter) -> Result<Vec<Anomaly>, StoreError> {
        read::anomalies(&self.db, tenant, filter).await
    }

    async fn changes(&self, tenant: &str, since: Timestamp, max: usize) -> Result<Vec<Change>, StoreError> {
        let sql = "SELECT body FROM changes WHERE tenant = $1 AND at >= $2 ORDER BY at DESC, id DESC LIMIT $3";
        let args = [Arg::Text(tenant), Arg::Int(since.0), Arg::Int(i64::try_from(max).unwrap_or(i64::MAX))];
        read::decoded(&self.db.fetch("list changes", sql, &args).await?, "a change")
    }

    async fn documents(&self, tenant: &str, collection: &str) -> Result<Vec<Document>, StoreError> {
        let sql = "SELECT key, body FROM documents WHERE tenant = $1 AND collection = $2 ORDER BY key";
        let found = self.db.fetch("list documents", sql, &[Arg::Text(tenant), Arg::Text(collection)]).await?;
        let key =
            |bytes| String::from_utf8(bytes).map_err(|e| StoreError::Corrupt(format!("the key of a document: {e}")));
        found
            .iter()
            .map(|r| Ok(Document { collection: collection.into(), key: key(r.blob(0)?)?, body: Some(r.blob(1)?) }))
            .collect()
    }

    async fn cursors(&self, tenant: &str, consumer: &str) -> Result<Vec<Cursor>, StoreError> {
        let sql =
            "SELECT topic, part, next_offset FROM cursors WHERE tenant = $1 AND consumer = $2 ORDER BY topic, part";
        let found = self.db.fetch("list cursors", sql, &[Arg::Text(tenant), Arg::Text(consumer)]).await?;
        let partition = |n| u32::try_from(n).map_err(|_| StoreError::Corrupt(format!("a cursor of partition {n}")));
        found
            .iter()
            .map(|r| {
                Ok(Cursor {
                    consumer: consumer.into(),
                    topic: r.text(0)?,
                    partition: partition(r.int(1)?)?,
                    next_offset: r.count(2)?,
                })
            })
            .collect()
    }

    async fn put_token(&self, token: TokenRow) -> Result<(), StoreError> {
        crate::tokens::check_row(&token)?;
        self.write("", Work::PutToken(token)).await.map(drop)
    }

    async fn tokens(&self) -> Result<Vec<TokenRow>, StoreError> {
        read::tokens(&self.db).await
    }

    async fn revoke_token(&self, name: &str, at: Timestamp) -> Result<bool, StoreError> {
        let name = name.to_owned();
        Ok(self.write("", Work::RevokeToken { name, at }).await?.rows > 0)
    }

    async fn tenants(&self) -> Result<Vec<String>, StoreError> {
        let found = self.db.fetch("list tenants", "SELECT tenant FROM chain_heads ORDER BY tenant", &[]).await?;
        found.iter().map(|r| r.text(0)).collect()
    }

    async fn prune(&self, tenant: &str, before: Timestamp) -> Result<u64, StoreError> {
        Ok(self.write(tenant, Work::Prune(before)).await?.rows)
    }

    async fn close(&self) -> Result<(), StoreError> {
        let writer = self.writer.lock().take();
        if let Some((jobs, task)) = writer {
            drop(jobs);
            // An error is a panic of the writer, which its callers were told of by then.
            task.await.map_err(|e| StoreError::Database { what: "end the writer".into(), source: Box::new(e) })?;
        }
        self.db.close().await;
        drop(self.lock.lock().take());
        Ok(())
    }
}
