//! The embedded bus as other processes read it, beside the one that writes.
//!
//! Lives here: looking into the files anew on every call, without the lock and without writing a byte. Never here: the
//! format of the files and how records are found in them, which are those of the writer.
//!
//! What is not whole yet is not there: the end of the newest segment is read up to the first record that is torn. A
//! record can be seen a moment before its publisher is told that it is durable; one whose sync then fails was seen and
//! is gone.

use super::file::LogFile;
use super::format::{Place, RECORD_HEADER, read_exact_at};
use super::read::{self, Budget};
use super::view::{Cache, Segment, Shown, View, check_follows, damaged, open_error, segment_paths};
use super::{blocking, commits, positions, topic_dirs};
use crate::config::EmbeddedConfig;
use crate::group::GroupTable;
use crate::{
    Bus, BusError, Capabilities, Consumer, GroupPosition, Outgoing, PartitionInfo, Record, TopicSpec, check_name,
};
use async_trait::async_trait;
use parking_lot::{Mutex, RwLock};
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// How often a topic is looked at in one call. Its files are listed and opened one by one, while the writer may remove
/// the oldest and make new ones, or cut what it failed to write: the next look finds them in order. What is out of
/// order every time is damage.
const LOOKS: usize = 10;

/// A bus in a folder, to be read only: beside the process that has it, or without one.
pub struct EmbeddedReader {
    inner: Arc<Inner>,
    max_poll_bytes: u64,
}

struct Inner {
    dir: PathBuf,
    /// What was seen last, so that only what is new is read.
    topics: Mutex<BTreeMap<String, Seen>>,
    closed: AtomicBool,
}

/// A topic as it was seen.
struct Seen {
    shown: Arc<Shown>,
    /// How far the newest segment was read.
    end: Place,
    /// The last record before `end`.
    last: Option<Last>,
}

/// A record by which we know that what lies before it was not cut and written anew: its head has its time.
#[derive(Clone)]
struct Last {
    pos: u64,
    head: [u8; RECORD_HEADER],
}

impl EmbeddedReader {
    /// Looks into the bus in `dir`.
    ///
    /// # Errors
    /// [`BusError::Invalid`] for a configuration out of range or when there is no such folder.
    pub fn open(dir: &Path, config: &EmbeddedConfig) -> Result<Self, BusError> {
        config.check()?;
        if !dir.is_dir() {
            return Err(BusError::Invalid(format!(
                "no bus is in `{}`: the first `nightshift run` makes it, --data names another folder",
                dir.display()
            )));
        }
        let inner = Inner { dir: dir.into(), topics: Mutex::default(), closed: AtomicBool::new(false) };
        Ok(Self { inner: Arc::new(inner), max_poll_bytes: config.max_poll_bytes })
    }

    async fn look<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Inner) -> Result<T, BusError> + Send + 'static,
    ) -> Result<T, BusError> {
        let inner = self.inner.clone();
        if inner.closed.load(Ordering::Acquire) {
            return Err(BusError::Closed);
        }
        blocking(move || work(&inner)).await
    }
}

impl Inner {
    /// One topic as it is now.
    fn topic(&self, name: &str) -> Result<Arc<Shown>, BusError> {
        let unknown = || BusError::UnknownTopic(name.into());
        let dir = self.dir.join(name);
        if check_name("topic", name).is_err() || !dir.is_dir() {
            return Err(unknown());
        }
        look_at(&mut self.topics.lock(), name, &dir)?.ok_or_else(unknown)
    }

    /// Every topic as it is now.
    fn all_topics(&self) -> Result<Vec<Arc<Shown>>, BusError> {
        let mut topics = self.topics.lock();
        let mut found = Vec::new();
        for (name, dir) in topic_dirs(&self.dir)? {
            found.extend(look_at(&mut topics, &name, &dir)?);
        }
        Ok(found)
    }

    fn info(&self) -> Result<Vec<PartitionInfo>, BusError> {
        Ok(self.all_topics()?.iter().flat_map(|t| t.info()).collect())
    }
}

/// Brings what is known of a topic up to date; `None` while it has no segment.
fn look_at(topics: &mut BTreeMap<String, Seen>, name: &str, dir: &Path) -> Result<Option<Arc<Shown>>, BusError> {
    // Only the first look goes on from what was seen before: should that be the trouble, the next ones are free of it.
    let mut before = topics.remove(name);
    let mut looks = 1;
    let seen = loop {
        match Seen::look(before.take(), name, dir) {
            Err(_) if looks < LOOKS => looks += 1,
            seen => break seen?,
        }
    };
    Ok(seen.map(|seen| {
        let shown = seen.shown.clone();
        topics.insert(name.into(), seen);
        shown
    }))
}

impl Seen {
    fn look(before: Option<Self>, name: &str, dir: &Path) -> Result<Option<Self>, BusError> {
        let mut segments: VecDeque<Arc<Segment>> = VecDeque::new();
        let paths = segment_paths(dir)?;
        let Some(newest) = paths.last() else { return Ok(None) };
        for path in &paths {
            let known = before.as_ref().and_then(|b| b.segment(path));
            let segment = match known {
                Some(sealed) if path != newest => sealed,
                _ => match open_segment(path)? {
                    Some(fresh) => before.as_ref().filter(|b| b.holds(&fresh)).map_or(Arc::new(fresh), Self::newest),
                    // Retention removes the oldest first: what is before this one has gone as well.
                    None => {
                        segments.clear();
                        continue;
                    }
                },
            };
            if let Some(last) = segments.back() {
                if before.as_ref().is_some_and(|b| Arc::ptr_eq(last, &b.newest())) {
                    last.seal()?;
                }
                check_follows(last, &segment)?;
            }
            segments.push_back(segment);
        }
        let active = segments.back().cloned().ok_or_else(|| damaged(newest, 0, "it went while it was read"))?;
        let gone_on = before.filter(|b| Arc::ptr_eq(&active, &b.newest()));
        let (start, last) = gone_on.map_or_else(|| (Place::start(&active.head), None), |seen| (seen.end, seen.last));
        let index = active.index.lock().clone().unwrap_or_default();
        let len = active.file.len().map_err(open_error(&active.path))?;
        let found = active.recover(start, index, len)?;
        *active.index.lock() = Some(found.index);
        active.len.store(found.end.pos, Ordering::Release);
        let last =
            found.last.map(|pos| Last::read(&active.file, pos)).transpose().map_err(open_error(&active.path))?.or(last);
        let partitions = active.head.partitions();
        let view = View {
            next: found.end.next.to_vec(),
            cache: Cache::new(partitions),
            end_at: active.head.base_bytes + found.end.pos,
            segments,
        };
        let shown = Arc::new(Shown { name: name.into(), partitions, view: RwLock::new(view) });
        Ok(Some(Self { shown, end: found.end, last }))
    }

    fn segment(&self, path: &Path) -> Option<Arc<Segment>> {
        self.shown.view.read().segments.iter().find(|s| s.path == path).cloned()
    }

    /// The segment that was the newest.
    fn newest(&self) -> Arc<Segment> {
        let view = self.shown.view.read();
        view.segments.back().cloned().expect("a topic was only seen with a segment")
    }

    /// Whether `fresh` is our newest segment, and what we read of it is still there.
    fn holds(&self, fresh: &Segment) -> bool {
        fresh.head == self.newest().head
            && self
                .last
                .as_ref()
                .is_none_or(|last| Last::read(&fresh.file, last.pos).is_ok_and(|now| now.head == last.head))
    }
}

impl Last {
    fn read(file: &LogFile, pos: u64) -> io::Result<Self> {
        let mut head = [0; RECORD_HEADER];
        read_exact_at(file, &mut head, pos)?;
        Ok(Self { pos, head })
    }
}

/// Opens a segment; `None` when it is not there any more.
fn open_segment(path: &Path) -> Result<Option<Segment>, BusError> {
    match LogFile::open_to_read(path) {
        Ok(file) => Segment::new(path, file).map(Some),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(open_error(path)(e)),
    }
}

impl Segment {
    /// The next segment was begun: all of this one may be read.
    fn seal(&self) -> Result<(), BusError> {
        let len = self.file.len().map_err(open_error(&self.path))?;
        self.len.store(len, Ordering::Release);
        // It ends where we had read to; the next who needs one makes a whole one.
        *self.index.lock() = None;
        Ok(())
    }
}

fn read_only<T>(what: &str) -> Result<T, BusError> {
    Err(BusError::Invalid(format!(
        "{what}: this bus is open to be read only; end the process that has it, then open it to write"
    )))
}

#[async_trait]
impl Bus for EmbeddedReader {
    fn kind(&self) -> &'static str {
        "embedded"
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { durable: true, torn_tail_recovery: false, retention: false, multi_process: true }
    }

    async fn ensure_topics(&self, _: &[TopicSpec]) -> Result<(), BusError> {
        read_only("make topics")
    }

    async fn publish(&self, topic: &str, _: Vec<Outgoing>) -> Result<(), BusError> {
        read_only(&format!("publish to `{topic}`"))
    }

    async fn consumer(&self, group: &str, _: &[&str]) -> Result<Box<dyn Consumer>, BusError> {
        read_only(&format!("join group `{group}`"))
    }

    async fn fetch(&self, topic: &str, partition: u32, from: u64, max: usize) -> Result<Vec<Record>, BusError> {
        let topic = topic.to_owned();
        let shown = self.look(move |inner| inner.topic(&topic)).await?;
        read::fetch(&shown, partition, from, Budget { records: max, bytes: self.max_poll_bytes }).await
    }

    async fn partitions(&self) -> Result<Vec<PartitionInfo>, BusError> {
        self.look(Inner::info).await
    }

    async fn groups(&self) -> Result<Vec<GroupPosition>, BusError> {
        self.look(|inner| {
            // The commits first: what they point at is then in the files.
            let mut table = GroupTable::default();
            commits::load(&inner.dir.join(".commits"), &mut table)?;
            Ok(positions(&table, inner.info()?))
        })
        .await
    }

    async fn close(&self) -> Result<(), BusError> {
        self.inner.closed.store(true, Ordering::Release);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
