//! The in-memory bus: for tests, simulation and trials.
//!
//! Lives here: the [`Bus`] over vectors, with faults that repeat from a seed. It needs no runtime: a future is ready
//! at once when `max_wait` is zero, and outside of a Tokio runtime `max_wait` counts as zero. Never here: files.

mod faults;

pub use faults::MemoryFaults;

use crate::config::MemoryConfig;
use crate::group::{GroupTable, MemberId};
use crate::{
    Bus, BusError, Capabilities, Consumer, GroupPosition, Outgoing, PartitionInfo, Polled, Record, TopicPartition,
    TopicSpec, check_name,
};
use async_trait::async_trait;
use bytes::Bytes;
use faults::{Chance, PublishFate};
use parking_lot::Mutex;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;

/// A bus that lives as long as its handle.
#[derive(Clone)]
pub struct MemoryBus {
    state: Arc<Mutex<State>>,
}

struct State {
    config: MemoryConfig,
    topics: BTreeMap<String, Topic>,
    groups: GroupTable,
    /// Where each live member reads on.
    positions: BTreeMap<MemberId, BTreeMap<TopicPartition, u64>>,
    wakes: BTreeMap<MemberId, Arc<Notify>>,
    chance: Chance,
    polls: u64,
    closed: bool,
}

struct Topic {
    name: Arc<str>,
    partitions: Vec<Partition>,
    /// Appended by a publish that then failed.
    unsynced: Vec<(u32, Bytes)>,
    /// Partition of each record, oldest first.
    order: VecDeque<u32>,
    bytes: u64,
}

#[derive(Default)]
struct Partition {
    start: u64,
    records: VecDeque<Stored>,
    bytes_ever: u64,
}

struct Stored {
    bytes: Bytes,
    /// Poll from which on it is seen.
    seen_from: u64,
    /// Bytes of the partition up to its start.
    bytes_before: u64,
}

impl Partition {
    fn end(&self) -> u64 {
        self.start + self.records.len() as u64
    }

    fn get(&self, offset: u64) -> Option<&Stored> {
        self.records.get(usize::try_from(offset.checked_sub(self.start)?).ok()?)
    }

    fn bytes_from(&self, offset: u64) -> u64 {
        self.get(offset.max(self.start)).map_or(0, |r| self.bytes_ever - r.bytes_before)
    }
}

impl Topic {
    fn store(&mut self, partition: u32, bytes: Bytes, seen_from: u64) {
        let p = &mut self.partitions[partition as usize];
        // Nothing overtakes what is delayed before it.
        let seen_from = p.records.back().map_or(seen_from, |before| before.seen_from.max(seen_from));
        self.bytes += bytes.len() as u64;
        let bytes_before = p.bytes_ever;
        p.bytes_ever += bytes.len() as u64;
        p.records.push_back(Stored { bytes, seen_from, bytes_before });
        self.order.push_back(partition);
    }

    /// Removes the oldest records above `limit` bytes; gives how many.
    fn trim(&mut self, limit: u64) -> usize {
        let before = self.order.len();
        while self.bytes > limit
            && let Some(partition) = self.order.pop_front()
        {
            let p = &mut self.partitions[partition as usize];
            if let Some(gone) = p.records.pop_front() {
                p.start += 1;
                self.bytes -= gone.bytes.len() as u64;
            }
        }
        before - self.order.len()
    }
}

impl State {
    fn open(&self) -> Result<(), BusError> {
        if self.closed { Err(BusError::Closed) } else { Ok(()) }
    }

    fn topic(&mut self, name: &str) -> Result<&mut Topic, BusError> {
        self.open()?;
        self.topics.get_mut(name).ok_or_else(|| BusError::UnknownTopic(name.into()))
    }

    /// Decides what is left of a publish that failed after its append.
    fn settle_unsynced(&mut self, name: &str) {
        let polls = self.polls;
        let Some(topic) = self.topics.get_mut(name) else { return };
        let records = std::mem::take(&mut topic.unsynced);
        let kept = self.chance.kept(records.len());
        for (partition, bytes) in records.into_iter().take(kept) {
            topic.store(partition, bytes, polls);
        }
    }

    fn slowest_lag(&self, topic: &Topic) -> u64 {
        let lag = |places: &BTreeMap<TopicPartition, u64>| {
            let mine = places.iter().filter(|(at, _)| *at.topic == *topic.name);
            mine.map(|(at, offset)| topic.partitions[at.partition as usize].bytes_from(*offset)).sum()
        };
        self.positions.values().map(lag).max().unwrap_or(0)
    }

    fn publish(&mut self, name: &str, records: Vec<Outgoing>) -> Result<(), BusError> {
        let limit = self.config.max_record_bytes;
        let topic = self.topic(name)?;
        if let Some(large) = records.iter().find(|r| r.bytes.len() as u64 > limit) {
            return Err(BusError::TooLarge { bytes: large.bytes.len(), limit_bytes: limit as usize });
        }
        let partitions = topic.partitions.len() as u32;
        let records: Vec<(u32, Bytes)> =
            records.into_iter().map(|r| (r.routing.partition(partitions), r.bytes)).collect();
        let full = self.config.max_lag_bytes > 0
            && self.topics.get(name).is_some_and(|t| self.slowest_lag(t) > self.config.max_lag_bytes);
        match self.chance.publish() {
            PublishFate::Backpressure => return Err(BusError::Backpressure { retry_after: Duration::from_millis(50) }),
            _ if full => return Err(BusError::Backpressure { retry_after: Duration::from_millis(50) }),
            PublishFate::FailsBefore => return Err(injected("publish: failed before the append")),
            PublishFate::FailsAfter => {
                self.settle_unsynced(name);
                self.topic(name)?.unsynced = records;
                return Err(injected("publish: failed after the append"));
            }
            PublishFate::Stored => self.settle_unsynced(name),
        }
        let limit = self.config.retention_bytes;
        let polls = self.polls;
        let topic = self.topics.get_mut(name).ok_or_else(|| BusError::UnknownTopic(name.into()))?;
        for (partition, bytes) in records {
            if self.chance.duplicates() {
                topic.store(partition, bytes.clone(), polls);
            }
            let delay = self.chance.delay();
            topic.store(partition, bytes, polls + delay);
        }
        let gone = topic.trim(limit);
        if gone > 0 {
            tracing::debug!(topic = name, records = gone, "removed the oldest records from memory");
        }
        for wake in self.wakes.values() {
            wake.notify_one();
        }
        Ok(())
    }

    fn poll(&mut self, group: &str, member: MemberId, max_records: usize) -> Result<Polled, BusError> {
        self.open()?;
        self.polls += 1;
        let change = self.groups.poll(group, member).ok_or(BusError::Closed)?;
        let Self { positions, topics, .. } = self;
        let places = positions.entry(member).or_default();
        if !change.is_empty() {
            for at in &change.revoked {
                places.remove(at);
            }
            let mut polled = Polled { revoked: change.revoked, ..Polled::default() };
            for (at, committed) in change.assigned {
                let p = topics.get(&at.topic).map(|t| &t.partitions[at.partition as usize]);
                let (start, end) = p.map_or((0, 0), |p| (p.start, p.end()));
                places.insert(at.clone(), committed.unwrap_or(0).clamp(start, end));
                polled.assigned.push(at);
            }
            return Ok(polled);
        }
        let mut order: Vec<&TopicPartition> = places.keys().collect();
        // Without faults the turn goes round, so that a busy partition does not starve the others.
        let turn = self.polls as usize % order.len().max(1);
        order.rotate_left(turn);
        self.chance.shuffle(&mut order);
        let mut polled = Polled::default();
        let mut moved = Vec::new();
        for at in order {
            let Some(topic) = topics.get(&at.topic) else { continue };
            let p = &topic.partitions[at.partition as usize];
            let mut offset = places[at].max(p.start);
            while polled.records.len() < max_records
                && let Some(stored) = p.get(offset).filter(|r| r.seen_from <= self.polls)
            {
                polled.records.push(Record {
                    topic: topic.name.clone(),
                    partition: at.partition,
                    offset,
                    bytes: stored.bytes.clone(),
                });
                offset += 1;
            }
            moved.push((at.clone(), offset));
        }
        places.extend(moved);
        Ok(polled)
    }
}

fn injected(what: &str) -> BusError {
    BusError::io(what)("injected fault")
}

impl MemoryBus {
    /// An empty bus.
    pub fn new(config: MemoryConfig) -> Self {
        Self::with_faults(config, MemoryFaults::default())
    }

    /// An empty bus on which things go wrong.
    pub fn with_faults(config: MemoryConfig, faults: MemoryFaults) -> Self {
        Self {
            state: Arc::new(Mutex::new(State {
                config,
                topics: BTreeMap::new(),
                groups: GroupTable::default(),
                positions: BTreeMap::new(),
                wakes: BTreeMap::new(),
                chance: Chance::new(faults),
                polls: 0,
                closed: false,
            })),
        }
    }

    /// Changes what goes wrong from here on; chance begins at the new seed.
    pub fn set_faults(&self, faults: MemoryFaults) {
        self.state.lock().chance = Chance::new(faults);
    }

    /// As if the process had been killed and started again: consumers are gone (their calls give
    /// [`BusError::Closed`] or [`BusError::Fenced`]), what they did not commit is read again, and of publishes that
    /// failed after their append a part is lost. What was acknowledged or committed stays.
    pub fn crash(&self) {
        let mut state = self.state.lock();
        for name in state.topics.keys().cloned().collect::<Vec<_>>() {
            state.settle_unsynced(&name);
        }
        state.groups.forget_members();
        state.positions.clear();
        state.wakes.clear();
        state.closed = false;
    }
}

#[async_trait]
impl Bus for MemoryBus {
    fn kind(&self) -> &'static str {
        "memory"
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { durable: false, torn_tail_recovery: false, retention: false, multi_process: false }
    }

    async fn ensure_topics(&self, topics: &[TopicSpec]) -> Result<(), BusError> {
        let mut state = self.state.lock();
        state.open()?;
        for spec in topics {
            check_name("topic", &spec.name)?;
            if spec.partitions == 0 {
                return Err(BusError::Invalid(format!("topic `{}`: use at least one partition", spec.name)));
            }
            match state.topics.get(&spec.name).map(|t| t.partitions.len()) {
                Some(have) if have < spec.partitions as usize => {
                    return Err(BusError::Invalid(format!(
                        "topic `{}` has {have} partitions and {} are asked for: the number is fixed when a topic is \
                         made, use a new name",
                        spec.name, spec.partitions
                    )));
                }
                Some(_) => {}
                None => {
                    let topic = Topic {
                        name: spec.name.as_str().into(),
                        partitions: (0..spec.partitions).map(|_| Partition::default()).collect(),
                        unsynced: Vec::new(),
                        order: VecDeque::new(),
                        bytes: 0,
                    };
                    state.topics.insert(spec.name.clone(), topic);
                }
            }
        }
        Ok(())
    }

    async fn publish(&self, topic: &str, records: Vec<Outgoing>) -> Result<(), BusError> {
        self.state.lock().publish(topic, records)
    }

    async fn consumer(&self, group: &str, topics: &[&str]) -> Result<Box<dyn Consumer>, BusError> {
        check_name("group", group)?;
        let mut state = self.state.lock();
        let names = topics
            .iter()
            .map(|name| state.topic(name).map(|t| (t.name.to_string(), t.partitions.len() as u32)))
            .collect::<Result<Vec<_>, _>>()?;
        let wake = Arc::new(Notify::new());
        let id = state.groups.join(group, names, wake.clone());
        state.wakes.insert(id, wake.clone());
        Ok(Box::new(MemoryConsumer { state: self.state.clone(), group: group.into(), id, wake }))
    }

    async fn fetch(&self, topic: &str, partition: u32, from: u64, max: usize) -> Result<Vec<Record>, BusError> {
        let mut state = self.state.lock();
        let topic = state.topic(topic)?;
        let Some(p) = topic.partitions.get(partition as usize) else {
            let last = topic.partitions.len() - 1;
            return Err(BusError::Invalid(format!(
                "topic `{}` has no partition {partition}, its last is {last}",
                topic.name
            )));
        };
        let from = from.max(p.start);
        let found = (from..p.end()).take(max).filter_map(|offset| p.get(offset).map(|r| (offset, r.bytes.clone())));
        Ok(found.map(|(offset, bytes)| Record { topic: topic.name.clone(), partition, offset, bytes }).collect())
    }

    async fn partitions(&self) -> Result<Vec<PartitionInfo>, BusError> {
        let state = self.state.lock();
        state.open()?;
        let info = |name: &str, partition: usize, p: &Partition| PartitionInfo {
            at: TopicPartition { topic: name.into(), partition: partition as u32 },
            start: p.start,
            end: p.end(),
            records: Some(p.records.len() as u64),
            bytes: Some(p.bytes_from(p.start)),
        };
        let all = state.topics.values().flat_map(|t| t.partitions.iter().enumerate().map(|(i, p)| info(&t.name, i, p)));
        Ok(all.collect())
    }

    async fn groups(&self) -> Result<Vec<GroupPosition>, BusError> {
        let state = self.state.lock();
        state.open()?;
        let position = |(group, at, committed): (String, TopicPartition, Option<u64>)| {
            let p = state.topics.get(&at.topic)?.partitions.get(at.partition as usize)?;
            let lag = p.end().saturating_sub(committed.unwrap_or(p.start).max(p.start));
            Some(GroupPosition { group, at, committed, lag })
        };
        Ok(state.groups.standing().into_iter().filter_map(position).collect())
    }

    async fn close(&self) -> Result<(), BusError> {
        let mut state = self.state.lock();
        state.closed = true;
        for wake in state.wakes.values() {
            wake.notify_one();
        }
        Ok(())
    }
}

struct MemoryConsumer {
    state: Arc<Mutex<State>>,
    group: String,
    id: MemberId,
    wake: Arc<Notify>,
}

impl Drop for MemoryConsumer {
    fn drop(&mut self) {
        let mut state = self.state.lock();
        state.groups.leave(&self.group, self.id);
        state.positions.remove(&self.id);
        state.wakes.remove(&self.id);
    }
}

#[async_trait]
impl Consumer for MemoryConsumer {
    async fn poll(&mut self, max_records: usize, max_wait: Duration) -> Result<Polled, BusError> {
        let may_wait = !max_wait.is_zero() && tokio::runtime::Handle::try_current().is_ok();
        let deadline = may_wait.then(|| tokio::time::Instant::now() + max_wait);
        loop {
            let polled = self.state.lock().poll(&self.group, self.id, max_records)?;
            let Some(deadline) = deadline else { return Ok(polled) };
            if !(polled.records.is_empty() && polled.assigned.is_empty() && polled.revoked.is_empty()) {
                return Ok(polled);
            }
            if tokio::time::timeout_at(deadline, self.wake.notified()).await.is_err() {
                return Ok(polled);
            }
        }
    }

    async fn ready(&mut self, max_wait: Duration) {
        if !max_wait.is_zero() && tokio::runtime::Handle::try_current().is_ok() {
            // Late is no error: the caller polls either way.
            drop(tokio::time::timeout(max_wait, self.wake.notified()).await);
        }
    }

    async fn seek(&mut self, at: &TopicPartition, offset: u64) -> Result<(), BusError> {
        let mut state = self.state.lock();
        if !state.groups.holds(&self.group, self.id, at) {
            return Err(BusError::Fenced);
        }
        let p = &state.topic(&at.topic)?.partitions[at.partition as usize];
        let offset = offset.clamp(p.start, p.end());
        state.positions.entry(self.id).or_default().insert(at.clone(), offset);
        Ok(())
    }

    async fn commit(&mut self, positions: &[(TopicPartition, u64)]) -> Result<(), BusError> {
        let mut state = self.state.lock();
        state.open()?;
        state.groups.check_commit(&self.group, self.id, positions)?;
        let fate = state.chance.commit_fails();
        if fate != Some(false) {
            for (at, offset) in positions {
                state.groups.set_committed(&self.group, at.clone(), *offset);
            }
        }
        if fate.is_some() { Err(injected("commit positions")) } else { Ok(()) }
    }
}
