//! The embedded bus: a durable, segmented, append-only log per topic, for one process.
//!
//! Lives here: the [`Bus`] over log files; the format of the files is in `format`, group commit in `writer`, reading
//! in `consumer` and `read`, reading beside the process that writes in `reader`. Never here: what a record means.
//!
//! In DATA/bus: a folder per topic with segment files named after the records before them, `.commits` with where the
//! groups stand, and `.lock`, held by the process that uses it. All partitions of a topic share one log, so that one
//! sync makes a whole group of publishes durable; offsets count by one within a partition.

mod commits;
mod consumer;
mod file;
mod format;
mod log;
mod read;
mod reader;
#[cfg(test)]
mod tests;
mod view;
mod writer;

pub use commits::fuzz_bus_commits;
pub use file::DiskFaults;
pub use format::fuzz_bus_segment;
pub use log::TornTail;
pub use reader::EmbeddedReader;

pub(crate) use file::sync_dir;

use crate::config::EmbeddedConfig;
use crate::group::GroupTable;
use crate::{
    Bus, BusError, Capabilities, Consumer, GroupPosition, Outgoing, PartitionInfo, Record, TopicSpec, check_name,
};
use async_trait::async_trait;
use commits::CommitLog;
use consumer::EmbeddedConsumer;
use log::{LogSettings, TopicLog};
use nightshift_model::Clock;
use parking_lot::{Mutex, RwLock};
use read::Budget;
use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use writer::{Appender, Prepared};

/// A bus in a folder.
pub struct EmbeddedBus {
    inner: Arc<Inner>,
    torn: Vec<TornTail>,
}

/// What the bus and its consumers share.
pub(crate) struct Inner {
    dir: PathBuf,
    settings: LogSettings,
    topics: RwLock<BTreeMap<String, Arc<Appender>>>,
    groups: Arc<Mutex<GroupTable>>,
    commits: Arc<CommitLog>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    lock: Mutex<Option<File>>,
    closed: AtomicBool,
}

impl EmbeddedBus {
    /// Opens the bus in `dir` or makes it. Reads the newest segment of every topic, so it takes about a second per
    /// GB of those.
    ///
    /// # Errors
    /// [`BusError::Locked`] while another process has it; [`BusError::Corrupt`] when what was acknowledged is
    /// damaged; [`BusError::Invalid`] for a configuration out of range; [`BusError::Io`].
    pub fn open(dir: &Path, config: &EmbeddedConfig, clock: Arc<dyn Clock>) -> Result<Self, BusError> {
        Self::open_with(dir, config, clock, None)
    }

    /// As [`EmbeddedBus::open`], on a disk that fails when told. For tests.
    ///
    /// # Errors
    /// As [`EmbeddedBus::open`].
    pub fn open_with(
        dir: &Path,
        config: &EmbeddedConfig,
        clock: Arc<dyn Clock>,
        faults: Option<Arc<DiskFaults>>,
    ) -> Result<Self, BusError> {
        config.check()?;
        std::fs::create_dir_all(dir).map_err(BusError::io(format!("make the bus folder `{}`", dir.display())))?;
        let lock = take_lock(dir)?;
        let settings = LogSettings { config: Arc::new(config.clone()), clock, faults };
        let groups = Arc::new(Mutex::new(GroupTable::default()));
        let (commits, commits_thread) = CommitLog::open(&dir.join(".commits"), groups.clone(), config.fsync)?;
        let inner = Inner {
            dir: dir.into(),
            settings,
            topics: RwLock::default(),
            groups,
            commits,
            threads: Mutex::new(vec![commits_thread]),
            lock: Mutex::new(Some(lock)),
            closed: AtomicBool::new(false),
        };
        let mut bus = Self { inner: Arc::new(inner), torn: Vec::new() };
        for (name, path) in topic_dirs(dir)? {
            let (log, torn) = TopicLog::open(&path, &name, bus.inner.settings.clone())?;
            if let Some(torn) = &torn {
                tracing::warn!(path = %torn.path.display(), kept_bytes = torn.kept_bytes, cut_bytes = torn.cut_bytes,
                    why = torn.why, "cut a torn tail that was never acknowledged");
            }
            bus.torn.extend(torn);
            if let Some(log) = log {
                bus.inner.start(log)?;
            }
        }
        Ok(bus)
    }

    /// Torn tails that were cut when it was opened.
    pub fn torn_tails(&self) -> &[TornTail] {
        &self.torn
    }

    /// Removes what is older or larger than configured. It is also done after every write and every 30 seconds.
    ///
    /// # Errors
    /// [`BusError::Io`].
    pub fn enforce_retention(&self) -> Result<(), BusError> {
        for topic in self.inner.all_topics() {
            topic.clean_up();
        }
        Ok(())
    }
}

impl Drop for EmbeddedBus {
    fn drop(&mut self) {
        self.inner.shut_down();
    }
}

fn take_lock(dir: &Path) -> Result<File, BusError> {
    let path = dir.join(".lock");
    let failed = || format!("lock `{}`", path.display());
    let file = File::options().create(true).truncate(false).write(true).open(&path).map_err(BusError::io(failed()))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(std::fs::TryLockError::WouldBlock) => Err(BusError::Locked(dir.display().to_string())),
        Err(std::fs::TryLockError::Error(e)) => Err(BusError::io(failed())(e)),
    }
}

impl Inner {
    fn start(&self, log: TopicLog) -> Result<(), BusError> {
        let name = log.shown.name.to_string();
        let groups = self.groups.clone();
        let (appender, thread) = Appender::start(log, Box::new(move |log, start| warn_unread(&groups, log, start)))?;
        self.threads.lock().push(thread);
        self.topics.write().insert(name, appender);
        Ok(())
    }

    fn all_topics(&self) -> Vec<Arc<Appender>> {
        self.topics.read().values().cloned().collect()
    }

    fn topic(&self, name: &str) -> Result<Arc<Appender>, BusError> {
        if self.closed.load(Ordering::Acquire) {
            return Err(BusError::Closed);
        }
        self.topics.read().get(name).cloned().ok_or_else(|| BusError::UnknownTopic(name.into()))
    }

    fn ensure(&self, spec: &TopicSpec) -> Result<(), BusError> {
        check_name("topic", &spec.name)?;
        if !(1..=format::MAX_PARTITIONS).contains(&spec.partitions) {
            return Err(BusError::Invalid(format!(
                "topic `{}`: {} partitions, use 1 to {}",
                spec.name,
                spec.partitions,
                format::MAX_PARTITIONS
            )));
        }
        match self.topic(&spec.name) {
            Ok(topic) if topic.log.shown.partitions < spec.partitions => Err(BusError::Invalid(format!(
                "topic `{}` has {} partitions and {} are asked for: the number is fixed when a topic is made, use a new name",
                spec.name, topic.log.shown.partitions, spec.partitions
            ))),
            Ok(_) => Ok(()),
            Err(BusError::UnknownTopic(_)) => {
                let dir = self.dir.join(&spec.name);
                self.start(TopicLog::create(&dir, &spec.name, spec.partitions, self.settings.clone())?)
            }
            Err(e) => Err(e),
        }
    }

    /// Writes what waits, ends the threads, gives the lock back. Doing it again does nothing.
    fn shut_down(&self) {
        self.closed.store(true, Ordering::Release);
        let topics = self.all_topics();
        for topic in &topics {
            topic.close();
        }
        self.commits.close();
        for thread in self.threads.lock().drain(..) {
            // It only ends early by a panic, which was already printed.
            let _ = thread.join();
        }
        for reader in topics.iter().flat_map(|t| t.log.readers.read().clone()) {
            reader.wake.notify_one();
        }
        *self.lock.lock() = None;
    }
}

/// Nothing is dropped in silence: says which group had not read what retention removed.
fn warn_unread(groups: &Mutex<GroupTable>, log: &TopicLog, start: &[u64]) {
    let mut unread: BTreeMap<String, u64> = BTreeMap::new();
    for (group, at, committed) in groups.lock().committed() {
        if *at.topic == *log.shown.name {
            let start = start.get(at.partition as usize).copied().unwrap_or(0);
            *unread.entry(group.into()).or_default() += start.saturating_sub(committed);
        }
    }
    for (group, records) in unread.into_iter().filter(|(_, n)| *n > 0) {
        tracing::warn!(topic = %log.shown.name, group, records,
            "retention removed records that this group had not committed; it lags, or is not used any more");
    }
}

/// Where the groups stand in partitions that reach as far as `info` says.
fn positions(groups: &GroupTable, info: Vec<PartitionInfo>) -> Vec<GroupPosition> {
    let range: BTreeMap<_, _> = info.into_iter().map(|i| (i.at, (i.start, i.end))).collect();
    let standing = groups.standing().into_iter();
    standing
        .filter_map(|(group, at, committed)| {
            let (start, end) = *range.get(&at)?;
            let lag = end.saturating_sub(committed.unwrap_or(start).max(start));
            Some(GroupPosition { group, at, committed, lag })
        })
        .collect()
}

/// Folders of topics in `dir`, by name.
fn topic_dirs(dir: &Path) -> Result<Vec<(String, PathBuf)>, BusError> {
    let failed = || format!("list the bus folder `{}`", dir.display());
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(BusError::io(failed()))? {
        let path = entry.map_err(BusError::io(failed()))?.path();
        let name = path.file_name().and_then(|n| n.to_str()).filter(|n| check_name("topic", n).is_ok());
        if let Some(name) = name
            && path.is_dir()
        {
            found.push((name.to_owned(), path));
        }
    }
    found.sort();
    Ok(found)
}

/// Runs what blocks beside the runtime's workers.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, BusError> + Send + 'static,
) -> Result<T, BusError> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|e| Err(BusError::io("run a file operation")(e)))
}

#[async_trait]
impl Bus for EmbeddedBus {
    fn kind(&self) -> &'static str {
        "embedded"
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { durable: true, torn_tail_recovery: true, retention: true, multi_process: false }
    }

    async fn ensure_topics(&self, topics: &[TopicSpec]) -> Result<(), BusError> {
        let (inner, topics) = (self.inner.clone(), topics.to_vec());
        blocking(move || topics.iter().try_for_each(|spec| inner.ensure(spec))).await
    }

    async fn publish(&self, topic: &str, records: Vec<Outgoing>) -> Result<(), BusError> {
        let topic = self.inner.topic(topic)?;
        if records.is_empty() {
            return Ok(());
        }
        let limit_bytes = self.inner.settings.config.max_record_bytes;
        if let Some(large) = records.iter().find(|r| r.bytes.len() as u64 > limit_bytes) {
            return Err(BusError::TooLarge { bytes: large.bytes.len(), limit_bytes: limit_bytes as usize });
        }
        let partitions = topic.log.shown.partitions;
        let prepared = records
            .into_iter()
            .map(|r| Prepared {
                partition: r.routing.partition(partitions),
                crc: crc32c::crc32c(&r.bytes),
                bytes: r.bytes,
            })
            .collect();
        // The thread answers everything it takes, so a missing answer means that it has ended.
        topic.submit(prepared)?.await.unwrap_or(Err(BusError::Closed))
    }

    async fn consumer(&self, group: &str, topics: &[&str]) -> Result<Box<dyn Consumer>, BusError> {
        check_name("group", group)?;
        let topics = topics.iter().map(|t| self.inner.topic(t)).collect::<Result<Vec<_>, _>>()?;
        Ok(Box::new(EmbeddedConsumer::join(self.inner.clone(), group, topics)))
    }

    async fn fetch(&self, topic: &str, partition: u32, from: u64, max: usize) -> Result<Vec<Record>, BusError> {
        let topic = self.inner.topic(topic)?;
        let bytes = topic.log.settings.config.max_poll_bytes;
        read::fetch(&topic.log.shown, partition, from, Budget { records: max, bytes }).await
    }

    async fn partitions(&self) -> Result<Vec<PartitionInfo>, BusError> {
        if self.inner.closed.load(Ordering::Acquire) {
            return Err(BusError::Closed);
        }
        Ok(self.inner.all_topics().iter().flat_map(|t| t.log.shown.info()).collect())
    }

    async fn groups(&self) -> Result<Vec<GroupPosition>, BusError> {
        let info = self.partitions().await?;
        Ok(positions(&self.inner.groups.lock(), info))
    }

    async fn close(&self) -> Result<(), BusError> {
        let inner = self.inner.clone();
        blocking(move || {
            inner.shut_down();
            Ok(())
        })
        .await
    }
}
