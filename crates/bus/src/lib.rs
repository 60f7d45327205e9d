//! The event bus: topics, records, consumer groups, and where workers keep their state between runs.
//!
//! Lives here: the [`Bus`] and [`Consumer`] traits, their kinds (embedded durable log, Kafka, memory with injectable
//! faults), the [`SnapshotStore`] seam, and the conformance suites that run against every kind.
//!
//! Never here: what a message means. Records are bytes of an envelope; only routing is looked at.

mod config;
#[cfg(any(test, feature = "test-support"))]
pub mod conformance;
mod dead_letter;
pub mod embedded;
mod group;
#[cfg(feature = "kafka")]
pub mod kafka;
pub mod memory;
mod rng;
#[cfg(test)]
mod seeds;
pub mod snapshot;

pub use config::{
    BusConfig, EmbeddedConfig, KafkaConfig, KafkaSasl, KafkaTls, MemoryConfig, SaslMechanism, build, build_reader,
};
pub use dead_letter::{DEAD_LETTER_SCHEMA, DeadLetter, dead_letter};

use async_trait::async_trait;
use bytes::Bytes;
use nightshift_model::Routing;
use std::time::Duration;

/// A partition of a topic.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicPartition {
    /// Topic name, without the configured prefix.
    pub topic: String,
    /// 0..partitions of the topic.
    pub partition: u32,
}

/// A record to publish.
#[derive(Debug, Clone, PartialEq)]
pub struct Outgoing {
    /// Decides the partition, and so the order.
    pub routing: Routing,
    /// An encoded envelope.
    pub bytes: Bytes,
}

/// A record that was read.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    /// Topic name, without the configured prefix.
    pub topic: std::sync::Arc<str>,
    /// Partition.
    pub partition: u32,
    /// Grows within a partition; not necessarily by one.
    pub offset: u64,
    /// An encoded envelope.
    pub bytes: Bytes,
}

/// A topic to make sure of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicSpec {
    /// Name, without the configured prefix.
    pub name: String,
    /// Fixed when the topic is made.
    pub partitions: u32,
}

/// What a kind of bus can do beyond the common part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capabilities {
    /// Records outlive the process.
    pub durable: bool,
    /// A torn tail is cut when it is opened.
    pub torn_tail_recovery: bool,
    /// Old records go, by age and size.
    pub retention: bool,
    /// Several processes may share it.
    pub multi_process: bool,
}

/// What one poll brought.
#[derive(Debug, Default)]
pub struct Polled {
    /// Newly ours: restore their state, [`Consumer::seek`] where it says, before the next poll. None of `records` is theirs.
    pub assigned: Vec<TopicPartition>,
    /// No longer ours: their state was or must now be handed over. Nothing of them may be committed after this.
    pub revoked: Vec<TopicPartition>,
    /// In order per partition.
    pub records: Vec<Record>,
}

/// Where a group stands in one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupPosition {
    /// Group.
    pub group: String,
    /// Partition.
    pub at: TopicPartition,
    /// Offset of the next record it will read after a restart; `None`: nothing committed.
    pub committed: Option<u64>,
    /// Records it has yet to read.
    pub lag: u64,
}

/// How far one partition reaches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionInfo {
    /// Partition.
    pub at: TopicPartition,
    /// Offset of the oldest record still held (equal to `end` when empty).
    pub start: u64,
    /// Offset that the next record will get, at least.
    pub end: u64,
    /// Records held, where the kind can tell cheaply.
    pub records: Option<u64>,
    /// Bytes held, where the kind can tell cheaply.
    pub bytes: Option<u64>,
}

/// What can go wrong.
#[derive(Debug, thiserror::Error)]
pub enum BusError {
    /// Full for now: the caller tells its source to come back later.
    #[error("bus is full, come back in {} ms", retry_after.as_millis())]
    Backpressure {
        /// How long to wait.
        retry_after: Duration,
    },
    /// No such topic.
    #[error("no topic `{0}`")]
    UnknownTopic(String),
    /// A record is larger than the bus takes.
    #[error("record of {bytes} bytes, the bus takes at most {limit_bytes}")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The limit.
        limit_bytes: usize,
    },
    /// Another process has it.
    #[error("`{0}` is in use by another process")]
    Locked(String),
    /// The partition is not ours any more: the group was rebalanced.
    #[error("partition was given to another consumer")]
    Fenced,
    /// It was shut down.
    #[error("bus is closed")]
    Closed,
    /// What is stored is damaged beyond a torn tail.
    #[error("bus data is damaged: {0}")]
    Corrupt(String),
    /// What was asked cannot be done, now or later.
    #[error("{0}")]
    Invalid(String),
    /// The disk or the broker failed.
    #[error("{what}")]
    Io {
        /// What was being done.
        what: String,
        /// Why it failed.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl BusError {
    /// Stable word for labels.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Backpressure { .. } => "backpressure",
            Self::UnknownTopic(_) => "unknown_topic",
            Self::TooLarge { .. } => "too_large",
            Self::Locked(_) => "locked",
            Self::Fenced => "fenced",
            Self::Closed => "closed",
            Self::Corrupt(_) => "corrupt",
            Self::Invalid(_) => "invalid",
            Self::Io { .. } => "io",
        }
    }

    /// Whether trying again later can help.
    pub const fn is_transient(&self) -> bool {
        matches!(self, Self::Backpressure { .. } | Self::Io { .. } | Self::Fenced)
    }

    /// For `map_err`: `what` was being done when the disk or the broker failed.
    pub(crate) fn io<E: Into<Box<dyn std::error::Error + Send + Sync>>>(
        what: impl Into<String>,
    ) -> impl FnOnce(E) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source: source.into() }
    }
}

/// Refuses a name that could leave its folder or that not every kind of bus can hold.
pub(crate) fn check_name(kind: &str, name: &str) -> Result<(), BusError> {
    let ok = (1..=200).contains(&name.len())
        && !name.starts_with('.')
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'));
    if ok {
        Ok(())
    } else {
        Err(BusError::Invalid(format!(
            "{kind} `{name}`: use 1 to 200 of a-z, 0-9, `.`, `_`, `-`, not starting with `.`"
        )))
    }
}

/// Topics with ordered partitions and consumer groups. At least once, in order per partition.
#[async_trait]
pub trait Bus: Send + Sync {
    /// `embedded`, `kafka` or `memory`.
    fn kind(&self) -> &'static str;

    /// What it can do beyond the common part.
    fn capabilities(&self) -> Capabilities;

    /// Makes topics that are missing. A topic that exists keeps its partitions; fewer than asked for is an error.
    async fn ensure_topics(&self, topics: &[TopicSpec]) -> Result<(), BusError>;

    /// Appends records. When it returns `Ok`, all are durable (as far as the kind is); on `Err` any of them may be.
    async fn publish(&self, topic: &str, records: Vec<Outgoing>) -> Result<(), BusError>;

    /// A member of a consumer group. A group without a commit begins at the oldest record: nothing is missed by
    /// starting late.
    async fn consumer(&self, group: &str, topics: &[&str]) -> Result<Box<dyn Consumer>, BusError>;

    /// Reads from one partition, outside of any group: records with `offset >= from`, at most `max`.
    async fn fetch(&self, topic: &str, partition: u32, from: u64, max: usize) -> Result<Vec<Record>, BusError>;

    /// Every partition of every topic.
    async fn partitions(&self) -> Result<Vec<PartitionInfo>, BusError>;

    /// Where every group stands.
    async fn groups(&self) -> Result<Vec<GroupPosition>, BusError>;

    /// Flushes and ends; later calls give [`BusError::Closed`].
    async fn close(&self) -> Result<(), BusError>;
}

/// A member of a consumer group. Dropping it leaves the group.
#[async_trait]
pub trait Consumer: Send {
    /// Waits at most `max_wait` for records (at most `max_records`) or a change of assignment.
    async fn poll(&mut self, max_records: usize, max_wait: Duration) -> Result<Polled, BusError>;

    /// Waits at most `max_wait` until there may be something to poll. It takes nothing, so it may be given up at any
    /// moment: that is how an agent waits for the bus and for something else at once.
    async fn ready(&mut self, max_wait: Duration);

    /// The next poll reads this partition from `offset` (or the oldest record, where that is gone).
    async fn seek(&mut self, at: &TopicPartition, offset: u64) -> Result<(), BusError>;

    /// Remembers where to go on after a restart: `offset` of the next record to read.
    async fn commit(&mut self, positions: &[(TopicPartition, u64)]) -> Result<(), BusError>;
}

/// Where workers keep the state of a shard, with the bus position that it belongs to. Never SQL.
#[async_trait]
pub trait SnapshotStore: Send + Sync {
    /// Replaces the snapshot of a shard; all or nothing.
    async fn put(&self, worker: &str, shard: u32, bytes: Bytes) -> Result<(), BusError>;

    /// The newest snapshot of a shard that was put whole.
    async fn get(&self, worker: &str, shard: u32) -> Result<Option<Bytes>, BusError> {
        self.read(worker, shard).await.map(|found| found.bytes)
    }

    /// As [`SnapshotStore::get`], and what was damaged on the way to it.
    async fn read(&self, worker: &str, shard: u32) -> Result<SnapshotRead, BusError>;
}

/// A snapshot that was looked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SnapshotRead {
    /// The newest one that is whole; `None`: begin afresh.
    pub bytes: Option<Bytes>,
    /// One line for each damaged one that was passed over. For the log and for health: work will be done again.
    pub warnings: Vec<String>,
}
