//! What readers see of a topic: its segments, and the newest records in memory.

use super::file::LogFile;
use super::format::{self, HeadError, Index, Place, RecoverError, Recovered, ScanError, Scanner, SegmentHead};
use crate::{BusError, PartitionInfo, TopicPartition};
use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

/// Ending of the names of segment files.
const SUFFIX: &str = "seg";

/// A segment file.
#[derive(Debug)]
pub(crate) struct Segment {
    pub(crate) head: SegmentHead,
    pub(crate) salt: u32,
    pub(crate) path: PathBuf,
    pub(crate) file: LogFile,
    /// Bytes that are synced and may be read.
    pub(crate) len: AtomicU64,
    /// Time of its newest record, ns, where that is known; `i64::MAX` where not.
    pub(crate) newest: AtomicI64,
    /// Kept up by the writer for the active segment; made on first need for one that was sealed before we opened.
    pub(crate) index: Mutex<Option<Index>>,
}

impl Segment {
    /// Takes an open segment file and reads its head.
    pub(crate) fn new(path: &Path, file: LogFile) -> Result<Self, BusError> {
        let head = SegmentHead::read(&file).map_err(|e| match e {
            HeadError::Bad(why) => damaged(path, 0, why),
            HeadError::Io(e) => open_error(path)(e),
        })?;
        let named = path.file_stem().and_then(|s| s.to_str()).and_then(|s| s.parse().ok());
        if named != Some(head.base) {
            return Err(damaged(path, 0, "its name does not fit its header"));
        }
        let len = file.len().map_err(open_error(path))?;
        Ok(Self {
            salt: head.salt(),
            head,
            path: path.into(),
            file,
            len: AtomicU64::new(len),
            newest: AtomicI64::new(i64::MAX),
            index: Mutex::new(None),
        })
    }

    /// Reads on in the newest segment from `start`, whose index is `index`, to the last whole record before `len`.
    pub(crate) fn recover(&self, start: Place, index: Index, len: u64) -> Result<Recovered, BusError> {
        format::recover(&self.file, &self.head, start, index, len).map_err(|e| match e {
            RecoverError::Damaged { pos, why } => damaged(&self.path, pos, why),
            RecoverError::Io(e) => BusError::io(format!("read `{}`", self.path.display()))(e),
        })
    }

    /// A place at or before `offset` of `partition`, less than about [`format::INDEX_EVERY`] bytes before it.
    pub(crate) fn locate(&self, partition: u32, offset: u64) -> Result<Place, BusError> {
        let mut index = self.index.lock();
        if let Some(index) = &*index {
            return Ok(index.locate(&self.head, partition, offset));
        }
        let start = Place::start(&self.head);
        let mut made = Index::default();
        let mut scanner = Scanner::new(&self.file, self.salt, start, self.len.load(Ordering::Acquire));
        loop {
            made.note(&self.head, scanner.place().pos, &scanner.place().next);
            match scanner.next(|_| false) {
                Ok(Some(_)) => {}
                Ok(None) => break,
                // What lies before the damage can still be found; who reads on to it gets the error.
                Err(ScanError::Bad { .. }) => break,
                Err(ScanError::Io(e)) => return Err(BusError::io(format!("read `{}`", self.path.display()))(e)),
            }
        }
        Ok(index.insert(made).locate(&self.head, partition, offset))
    }

    pub(crate) fn scan_error(&self, error: ScanError) -> BusError {
        match error {
            ScanError::Bad { pos, why } => damaged(&self.path, pos, why),
            ScanError::Io(e) => BusError::io(format!("read `{}`", self.path.display()))(e),
        }
    }
}

/// Path of the segment with `base` records of the log before it.
pub(crate) fn segment_path(dir: &Path, base: u64) -> PathBuf {
    dir.join(format!("{base:020}.{SUFFIX}"))
}

/// Segment files in `dir`, oldest first.
pub(crate) fn segment_paths(dir: &Path) -> Result<Vec<PathBuf>, BusError> {
    let mut paths: Vec<PathBuf> = std::fs::read_dir(dir)
        .and_then(|entries| entries.map(|e| e.map(|e| e.path())).collect())
        .map_err(BusError::io(format!("list `{}`", dir.display())))?;
    paths.retain(|p| p.extension().is_some_and(|e| e == SUFFIX));
    paths.sort();
    Ok(paths)
}

pub(crate) fn open_error(path: &Path) -> impl FnOnce(io::Error) -> BusError {
    BusError::io(format!("open segment `{}`", path.display()))
}

pub(crate) fn damaged(path: &Path, pos: u64, why: &str) -> BusError {
    BusError::Corrupt(format!(
        "`{}` at byte {pos}: {why}; restore that file from a copy, or stop Nightshift and move it and all files before \
         it in its folder away: the records in them are lost, the others are kept",
        path.display()
    ))
}

/// A record in the tail cache.
struct Cached {
    bytes: Bytes,
    /// Its end in bytes of the log.
    end_at: u64,
}

/// The newest records, shared with who published them, so that a reader that keeps up reads no file.
pub(crate) struct Cache {
    by_partition: Vec<VecDeque<Cached>>,
    /// Partition of each record, oldest first: the order they leave in.
    order: VecDeque<u32>,
    bytes: u64,
}

/// What a cached record takes beyond its payload.
const CACHED_COST: u64 = 64;

impl Cache {
    pub(crate) fn new(partitions: u32) -> Self {
        Self { by_partition: (0..partitions).map(|_| VecDeque::new()).collect(), order: VecDeque::new(), bytes: 0 }
    }

    pub(crate) fn push(&mut self, partition: u32, bytes: Bytes, end_at: u64) {
        self.bytes += bytes.len() as u64 + CACHED_COST;
        self.by_partition[partition as usize].push_back(Cached { bytes, end_at });
        self.order.push_back(partition);
    }

    pub(crate) fn trim(&mut self, limit: u64) {
        while self.bytes > limit && self.pop() {}
    }

    /// Forgets what lies before byte `start` of the log.
    pub(crate) fn forget_before(&mut self, start: u64) {
        let oldest = |cache: &Self| {
            let partition = *cache.order.front()?;
            cache.by_partition[partition as usize].front().map(|c| c.end_at)
        };
        while oldest(self).is_some_and(|end_at| end_at <= start) {
            self.pop();
        }
    }

    /// Forgets the oldest record.
    fn pop(&mut self) -> bool {
        let Some(partition) = self.order.pop_front() else { return false };
        if let Some(gone) = self.by_partition[partition as usize].pop_front() {
            self.bytes -= gone.bytes.len() as u64 + CACHED_COST;
        }
        true
    }
}

/// What readers see: only what is synced.
pub(crate) struct View {
    /// Oldest first, the last is written to. Never empty.
    pub(crate) segments: VecDeque<Arc<Segment>>,
    /// Offset of the next record of each partition.
    pub(crate) next: Vec<u64>,
    pub(crate) cache: Cache,
    /// Bytes of the log, those that retention removed included.
    pub(crate) end_at: u64,
}

/// Where one record's reader finds it.
pub(crate) enum Find {
    /// Nothing there yet.
    End,
    Cached,
    Disk,
    /// Removed by retention; the oldest that is left.
    Gone(u64),
}

impl View {
    pub(crate) fn start(&self, partition: u32) -> u64 {
        self.segments.front().map_or(0, |s| s.head.next[partition as usize])
    }

    pub(crate) fn find(&self, partition: u32, offset: u64) -> Find {
        let p = partition as usize;
        if offset >= self.next[p] {
            return Find::End;
        }
        if offset >= self.next[p] - self.cache.by_partition[p].len() as u64 {
            return Find::Cached;
        }
        match self.start(partition) {
            start if offset < start => Find::Gone(start),
            _ => Find::Disk,
        }
    }

    /// Cached records of a partition from `offset` on, which must be cached.
    pub(crate) fn cached(&self, partition: u32, offset: u64) -> impl Iterator<Item = (u64, &Bytes)> {
        let queue = &self.cache.by_partition[partition as usize];
        let first = self.next[partition as usize] - queue.len() as u64;
        let skip = (offset - first) as usize;
        queue.range(skip.min(queue.len())..).enumerate().map(move |(i, c)| (offset + i as u64, &c.bytes))
    }

    /// The segment that holds `offset` of `partition`, which must not be gone.
    pub(crate) fn segment_of(&self, partition: u32, offset: u64) -> usize {
        let after = self.segments.partition_point(|s| s.head.next[partition as usize] <= offset);
        after.saturating_sub(1)
    }

    /// Bytes of the log before a reader that is at `offset` of `partition`; for one that reads from disk the start of
    /// the segment, which is at most a segment too few.
    pub(crate) fn bytes_before(&self, partition: u32, offset: u64) -> u64 {
        match self.find(partition, offset) {
            Find::End => self.end_at,
            Find::Cached => {
                let queue = &self.cache.by_partition[partition as usize];
                let at = offset - (self.next[partition as usize] - queue.len() as u64);
                queue
                    .get(at as usize)
                    .map_or(self.end_at, |c| c.end_at.saturating_sub((format::RECORD_HEADER + c.bytes.len()) as u64))
            }
            Find::Disk => self.segments[self.segment_of(partition, offset)].head.base_bytes,
            Find::Gone(_) => self.segments.front().map_or(0, |s| s.head.base_bytes),
        }
    }
}

/// One topic as its readers see it.
pub(crate) struct Shown {
    pub(crate) name: Arc<str>,
    pub(crate) partitions: u32,
    pub(crate) view: RwLock<View>,
}

impl Shown {
    /// How far each partition reaches.
    pub(crate) fn info(&self) -> Vec<PartitionInfo> {
        let view = self.view.read();
        (0..self.partitions)
            .map(|partition| {
                let (start, end) = (view.start(partition), view.next[partition as usize]);
                PartitionInfo {
                    at: TopicPartition { topic: self.name.to_string(), partition },
                    start,
                    end,
                    records: Some(end - start),
                    bytes: None,
                }
            })
            .collect()
    }

    /// Refuses a partition that is not there.
    pub(crate) fn check_partition(&self, partition: u32) -> Result<(), BusError> {
        if partition < self.partitions {
            return Ok(());
        }
        Err(BusError::Invalid(format!(
            "topic `{}` has no partition {partition}, its last is {}",
            self.name,
            self.partitions - 1
        )))
    }
}

/// Whether `segment` begins where `before` ends: no file between them is missing and none was cut.
pub(crate) fn check_follows(before: &Segment, segment: &Segment) -> Result<(), BusError> {
    let (a, b) = (&before.head, &segment.head);
    let len = before.len.load(Ordering::Relaxed);
    if a.partitions() != b.partitions() {
        return Err(damaged(&segment.path, 0, "its number of partitions is not that of the segment before"));
    }
    let mut records = 0u64;
    for (n, m) in b.next.iter().zip(&a.next) {
        records += n.checked_sub(*m).ok_or_else(|| damaged(&segment.path, 0, "its offsets go back"))?;
    }
    if a.base + records != b.base {
        return Err(damaged(&segment.path, 0, "its count of records does not follow from the segment before"));
    }
    if a.base_bytes + len < b.base_bytes {
        return Err(damaged(
            &before.path,
            len,
            "it ends before the next file begins: it was cut, or a file between them is missing",
        ));
    }
    // Longer is a group that failed and could not be cut before the next segment began; nobody was told of it.
    before.len.store(b.base_bytes - a.base_bytes, Ordering::Relaxed);
    Ok(())
}
