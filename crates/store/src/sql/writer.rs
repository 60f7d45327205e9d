//! The one task that writes: it takes what waits, writes it in one transaction, and tells everybody how it went.
//!
//! Commits that wait together share one flush to disk. Each has a savepoint of its own, so that one that is refused
//! takes nothing of its neighbours with it. Nobody is answered before the transaction is durable. Only then are the
//! heads written outside the database, so those can be behind it and never ahead.

use super::db::{Db, Tx};
use super::open::FileLock;
use super::work::{Done, Work};
use crate::head::{HeadFiles, HeadState};
use crate::{ChainHead, StoreError};
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot};

/// Units that may wait; beyond that, callers do. Two groups' worth.
pub(super) const QUEUE_MAX: usize = 128;
/// Units of one transaction: enough to share a flush, few enough that the first does not wait long for the last.
const GROUP_MAX: usize = 64;
/// Transactions after which the heads are written even though more work waits.
const HEADS_EVERY: u32 = 32;

/// A unit of work and who waits for it.
pub(super) struct Job {
    pub(super) tenant: String,
    pub(super) work: Work,
    pub(super) reply: oneshot::Sender<Result<Done, StoreError>>,
}

/// The writing task.
pub(super) struct Writer {
    db: Arc<Db>,
    heads: Option<HeadFiles>,
    states: BTreeMap<String, HeadState>,
    /// Heads that moved and were not written outside yet.
    moved: BTreeMap<String, ChainHead>,
    /// Held as long as anything may be written, also when the store itself was dropped without being closed.
    _lock: Option<Arc<FileLock>>,
}

impl Writer {
    pub(super) const fn new(db: Arc<Db>, heads: Option<HeadFiles>, lock: Option<Arc<FileLock>>) -> Self {
        Self { db, heads, states: BTreeMap::new(), moved: BTreeMap::new(), _lock: lock }
    }

    /// Writes until nobody can send any more.
    pub(super) async fn run(mut self, mut jobs: mpsc::Receiver<Job>) {
        let mut groups = 0;
        while let Some(first) = jobs.recv().await {
            let mut group = vec![first];
            while group.len() < GROUP_MAX
                && let Ok(job) = jobs.try_recv()
            {
                group.push(job);
            }
            self.write(group).await;
            groups += 1;
            if jobs.is_empty() || groups >= HEADS_EVERY {
                self.write_heads().await;
                groups = 0;
            }
        }
        self.write_heads().await;
    }

    async fn write(&mut self, mut group: Vec<Job>) {
        // Replicas that write for the same tenants take their locks in the same order, so none waits in a circle.
        // Stable: what one caller sent first for a tenant stays first.
        group.sort_by(|a, b| a.tenant.cmp(&b.tenant));
        let (mut replies, mut outcomes, mut moved) = (Vec::new(), Vec::new(), BTreeMap::new());
        let mut begun = self.db.begin().await;
        let alone = group.len() == 1;
        for Job { tenant, work, reply } in group {
            let outcome = match &mut begun {
                Ok(tx) => match self.one(tx, &tenant, work, alone).await {
                    Ok(outcome) => outcome,
                    Err(broken) => {
                        begun = Err(broken);
                        Ok(Done::default())
                    }
                },
                Err(_) => Ok(Done::default()),
            };
            if let Ok(Done { head: Some(head), .. }) = &outcome {
                moved.insert(tenant, *head);
            }
            replies.push(reply);
            outcomes.push(outcome);
        }
        let nothing_to_keep = outcomes.iter().all(Result::is_err);
        let ended = match begun {
            // Dropped: rolled back.
            Ok(_) if nothing_to_keep => Ok(()),
            Ok(tx) => tx.commit().await,
            Err(e) => Err(e),
        };
        match &ended {
            Ok(()) if !nothing_to_keep => self.moved.append(&mut moved),
            _ => {}
        }
        let failed = ended.err();
        for (reply, outcome) in replies.into_iter().zip(outcomes) {
            let answer = match (&failed, outcome) {
                (Some(e), Ok(_)) => Err(again(e)),
                (_, outcome) => outcome,
            };
            // Nobody listens any more when the caller gave up; what was written stays written.
            drop(reply.send(answer));
        }
    }

    /// Does one unit. The outer error means that the transaction is of no use any more.
    async fn one(
        &mut self,
        tx: &mut Tx,
        tenant: &str,
        work: Work,
        alone: bool,
    ) -> Result<Result<Done, StoreError>, StoreError> {
        self.examine_head(tx, tenant).await?;
        if alone {
            return Ok(work.run(tx, tenant).await);
        }
        tx.execute("set a savepoint", "SAVEPOINT unit", &[]).await?;
        let outcome = work.run(tx, tenant).await;
        let end = if outcome.is_ok() { "RELEASE SAVEPOINT unit" } else { "ROLLBACK TO SAVEPOINT unit" };
        tx.execute("end a savepoint", end, &[]).await?;
        Ok(outcome)
    }

    /// Before this process first writes for a tenant: is what was noted outside still part of the chain? If not, the
    /// note is evidence and is never overwritten.
    async fn examine_head(&mut self, tx: &mut Tx, tenant: &str) -> Result<(), StoreError> {
        let Some(files) = &self.heads else { return Ok(()) };
        if tenant.is_empty() || self.states.contains_key(tenant) {
            return Ok(());
        }
        let state = match files.read(tenant) {
            Ok(None) => HeadState::Trusted,
            Ok(Some(noted)) if super::holds(tx, tenant, noted).await? => HeadState::Trusted,
            Ok(Some(noted)) => {
                tracing::error!(
                    tenant, noted = noted.count, file = %files.path(tenant).display(),
                    "the chain does not hold what was noted outside the database: run `nightshift audit verify`; \
                     the note is kept until you remove it"
                );
                HeadState::Diverged
            }
            Err(error) => {
                tracing::error!(tenant, %error, "the head outside the database is not readable and is left alone");
                HeadState::Diverged
            }
        };
        self.states.insert(tenant.into(), state);
        Ok(())
    }

    async fn write_heads(&mut self) {
        let Some(files) = self.heads.clone() else { return self.moved.clear() };
        let mut moved = std::mem::take(&mut self.moved);
        moved.retain(|tenant, _| self.states.get(tenant) == Some(&HeadState::Trusted));
        if moved.is_empty() {
            return;
        }
        let written = tokio::task::spawn_blocking(move || {
            moved.iter().filter_map(|(tenant, head)| files.write(tenant, *head).err()).collect::<Vec<_>>()
        });
        // A head that is behind is no fault, so a full disk here fails nothing; it is told.
        for error in written.await.unwrap_or_default() {
            tracing::warn!(%error, "could not note the head of a chain outside the database");
        }
    }
}

/// The same failure for one more of those who waited for it.
fn again(e: &StoreError) -> StoreError {
    let cause = std::error::Error::source(e).map_or_else(|| e.to_string(), ToString::to_string);
    StoreError::Database { what: e.to_string(), source: cause.into() }
}
