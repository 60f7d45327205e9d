//! Reading: a member of a group, from the tail cache while it keeps up and from the files while it catches up.

use super::Inner;
use super::log::Reader;
use super::read::{Budget, Cursor, Want, scan};
use super::view::Find;
use super::writer::Appender;
use crate::group::{Change, MemberId};
use crate::{BusError, Consumer, Polled, Record, TopicPartition};
use async_trait::async_trait;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;

/// A member of a group.
pub(super) struct EmbeddedConsumer {
    inner: Arc<Inner>,
    group: String,
    id: MemberId,
    wake: Arc<Notify>,
    topics: Vec<Subscribed>,
    /// Topic that the next poll begins with, so that a busy one does not starve the others.
    turn: usize,
}

/// One topic of a member.
struct Subscribed {
    appender: Arc<Appender>,
    reader: Arc<Reader>,
    /// Offset to read next, of each partition that is ours.
    positions: BTreeMap<u32, u64>,
    cursor: Option<Cursor>,
    turn: u32,
}

impl EmbeddedConsumer {
    pub(super) fn join(inner: Arc<Inner>, group: &str, topics: Vec<Arc<Appender>>) -> Self {
        let wake = Arc::new(Notify::new());
        let topics: Vec<Subscribed> = topics
            .into_iter()
            .map(|appender| {
                let reader = Arc::new(Reader { wake: wake.clone(), read_to: AtomicU64::new(u64::MAX) });
                appender.log.readers.write().push(reader.clone());
                Subscribed { appender, reader, positions: BTreeMap::new(), cursor: None, turn: 0 }
            })
            .collect();
        let names =
            topics.iter().map(|t| (t.appender.log.shown.name.to_string(), t.appender.log.shown.partitions)).collect();
        let id = inner.groups.lock().join(group, names, wake.clone());
        Self { inner, group: group.into(), id, wake, topics, turn: 0 }
    }

    fn topic(&mut self, name: &str) -> Option<&mut Subscribed> {
        self.topics.iter_mut().find(|t| *t.appender.log.shown.name == *name)
    }

    fn apply(&mut self, change: Change) -> Polled {
        for at in &change.revoked {
            if let Some(topic) = self.topic(&at.topic) {
                topic.positions.remove(&at.partition);
            }
        }
        let mut polled = Polled { revoked: change.revoked, ..Polled::default() };
        for (at, committed) in change.assigned {
            if let Some(topic) = self.topic(&at.topic) {
                topic.set_position(at.partition, committed.unwrap_or(0));
            }
            polled.assigned.push(at);
        }
        for topic in &mut self.topics {
            topic.note_progress();
        }
        polled
    }

    async fn read(&mut self, max_records: usize) -> Result<Vec<Record>, BusError> {
        let mut budget = Budget { records: max_records, bytes: self.inner.settings.config.max_poll_bytes };
        let mut out = Vec::new();
        let n = self.topics.len();
        for i in 0..n {
            let topic = &mut self.topics[(self.turn + i) % n];
            if budget.spent() {
                break;
            }
            topic.read(&mut budget, &mut out).await?;
        }
        self.turn = self.turn.wrapping_add(1);
        Ok(out)
    }
}

impl Subscribed {
    /// Where to go on, kept within what exists: a position beyond the end (of a log that lost its unsynced end) would
    /// skip what is appended next.
    fn set_position(&mut self, partition: u32, offset: u64) {
        let view = self.appender.log.shown.view.read();
        let end = view.next.get(partition as usize).copied().unwrap_or(0);
        self.positions.insert(partition, offset.clamp(view.start(partition), end));
    }

    async fn read(&mut self, budget: &mut Budget, out: &mut Vec<Record>) -> Result<(), BusError> {
        let behind = self.sort_out();
        if !behind.is_empty() {
            // Half of the poll at most: partitions that keep up must not wait for one that replays.
            let share = Budget { records: budget.records.div_ceil(2), bytes: budget.bytes };
            let found = scan(&self.appender.log.shown, behind, self.cursor.take(), share).await?;
            self.cursor = Some(found.cursor);
            for record in found.records {
                budget.take(record.bytes.len());
                self.positions.insert(record.partition, record.offset + 1);
                out.push(record);
            }
        }
        self.read_cached(budget, out);
        self.note_progress();
        Ok(())
    }

    /// Partitions whose next record must be read from the files. Those whose next record is gone move on to the
    /// oldest.
    fn sort_out(&mut self) -> Vec<Want> {
        let view = self.appender.log.shown.view.read();
        let mut behind = Vec::new();
        for (partition, offset) in &mut self.positions {
            if let Find::Gone(start) = view.find(*partition, *offset) {
                tracing::warn!(topic = %self.appender.log.shown.name, partition, records = start - *offset,
                    "records were removed by retention before they were read");
                *offset = start;
            }
            if let Find::Disk = view.find(*partition, *offset) {
                behind.push(Want { partition: *partition, from: *offset });
            }
        }
        behind
    }

    fn read_cached(&mut self, budget: &mut Budget, out: &mut Vec<Record>) {
        let log = &self.appender.log.shown;
        let view = log.view.read();
        let turn = self.turn;
        let mine: Vec<u32> =
            self.positions.range(turn..).chain(self.positions.range(..turn)).map(|(partition, _)| *partition).collect();
        for partition in mine {
            let Some(position) = self.positions.get_mut(&partition) else { continue };
            if !matches!(view.find(partition, *position), Find::Cached) {
                continue;
            }
            for (offset, bytes) in view.cached(partition, *position) {
                if budget.spent() {
                    // The one that was cut short begins the next poll.
                    self.turn = partition;
                    return;
                }
                budget.take(bytes.len());
                *position = offset + 1;
                out.push(Record { topic: log.name.clone(), partition, offset, bytes: bytes.clone() });
            }
        }
    }

    /// Tells the writer how far we are: see `max_lag_bytes`.
    fn note_progress(&self) {
        let view = self.appender.log.shown.view.read();
        let read_to = self.positions.iter().map(|(p, offset)| view.bytes_before(*p, *offset)).min();
        self.reader.read_to.store(read_to.unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    fn is_behind(&self) -> bool {
        let view = self.appender.log.shown.view.read();
        self.positions.iter().any(|(p, offset)| !matches!(view.find(*p, *offset), Find::End))
    }
}

impl Drop for EmbeddedConsumer {
    fn drop(&mut self) {
        for topic in &self.topics {
            topic.appender.log.readers.write().retain(|r| !Arc::ptr_eq(r, &topic.reader));
        }
        self.inner.groups.lock().leave(&self.group, self.id);
    }
}

#[async_trait]
impl Consumer for EmbeddedConsumer {
    async fn poll(&mut self, max_records: usize, max_wait: Duration) -> Result<Polled, BusError> {
        let deadline = (!max_wait.is_zero()).then(|| Instant::now() + max_wait);
        loop {
            if self.inner.closed.load(Ordering::Acquire) {
                return Err(BusError::Closed);
            }
            let change = self.inner.groups.lock().poll(&self.group, self.id).ok_or(BusError::Closed)?;
            if !change.is_empty() {
                return Ok(self.apply(change));
            }
            let records = self.read(max_records).await?;
            if !records.is_empty() || max_records == 0 {
                return Ok(Polled { records, ..Polled::default() });
            }
            if self.topics.iter().any(Subscribed::is_behind) {
                // A long stretch without a record of ours: go on looking.
                tokio::task::yield_now().await;
                continue;
            }
            let Some(deadline) = deadline else { return Ok(Polled::default()) };
            if tokio::time::timeout_at(deadline, self.wake.notified()).await.is_err() {
                return Ok(Polled::default());
            }
        }
    }

    async fn ready(&mut self, max_wait: Duration) {
        let behind = self.topics.iter().any(Subscribed::is_behind);
        if !behind && !self.inner.closed.load(Ordering::Acquire) {
            // Late is no error: the caller polls either way.
            drop(tokio::time::timeout(max_wait, self.wake.notified()).await);
        }
    }

    async fn seek(&mut self, at: &TopicPartition, offset: u64) -> Result<(), BusError> {
        if !self.inner.groups.lock().holds(&self.group, self.id, at) {
            return Err(BusError::Fenced);
        }
        let topic = self.topic(&at.topic).ok_or_else(|| BusError::UnknownTopic(at.topic.clone()))?;
        topic.set_position(at.partition, offset);
        topic.note_progress();
        Ok(())
    }

    async fn commit(&mut self, positions: &[(TopicPartition, u64)]) -> Result<(), BusError> {
        if self.inner.closed.load(Ordering::Acquire) {
            return Err(BusError::Closed);
        }
        self.inner.groups.lock().check_commit(&self.group, self.id, positions)?;
        if positions.is_empty() {
            return Ok(());
        }
        self.inner.commits.submit(&self.group, positions.to_vec())?.await.unwrap_or(Err(BusError::Closed))
    }
}
