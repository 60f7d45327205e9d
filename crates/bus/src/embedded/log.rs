//! One topic: its segments, what readers see of them, opening after a crash, retention.

use super::file::{DiskFaults, LogFile, sync_dir, write_atomic};
use super::format::{self, HeadError, Index, Place, RecoverError, ScanError, Scanner, SegmentHead};
use crate::config::EmbeddedConfig;
use crate::{BusError, PartitionInfo, TopicPartition};
use bytes::Bytes;
use nightshift_model::{Clock, Timestamp};
use parking_lot::{Mutex, RwLock};
use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::Notify;

const SUFFIX: &str = "seg";

/// What a log is opened with.
#[derive(Clone)]
pub(crate) struct LogSettings {
    pub(crate) config: Arc<EmbeddedConfig>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) faults: Option<Arc<DiskFaults>>,
}

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
    /// A place at or before `offset` of `partition`, less than about [`format::INDEX_EVERY`] bytes before it.
    pub(crate) fn locate(&self, partition: u32, offset: u64) -> Result<Place, BusError> {
        let mut index = self.index.lock();
        if let Some(index) = &*index {
            return Ok(index.locate(&self.head, partition, offset));
        }
        let start = Place { pos: self.head.len(), next: self.head.next.clone() };
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

fn damaged(path: &Path, pos: u64, why: &str) -> BusError {
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
    fn new(partitions: u32) -> Self {
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
    fn forget_before(&mut self, start: u64) {
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

/// A live reader of a log, as the writer sees it.
#[derive(Debug)]
pub(crate) struct Reader {
    pub(crate) wake: Arc<Notify>,
    /// Log bytes it has read; `u64::MAX` while it reads no partition.
    pub(crate) read_to: AtomicU64,
}

/// State of the writer, held while a group is written.
pub(crate) struct Writer {
    /// Bytes of the active segment; its file may be longer after a failed write.
    pub(crate) len: u64,
    pub(crate) next: Box<[u64]>,
    /// A write failed: cut the file to `len` before the next one.
    pub(crate) cut_first: bool,
    pub(crate) last_time: Timestamp,
}

/// One topic.
pub(crate) struct TopicLog {
    pub(crate) name: Arc<str>,
    pub(crate) dir: PathBuf,
    pub(crate) partitions: u32,
    pub(crate) settings: LogSettings,
    pub(crate) view: RwLock<View>,
    pub(crate) writer: Mutex<Writer>,
    pub(crate) readers: RwLock<Vec<Arc<Reader>>>,
}

/// A torn tail that was cut when a log was opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TornTail {
    /// The file.
    pub path: PathBuf,
    /// Length that was kept.
    pub kept_bytes: u64,
    /// Bytes behind it, never acknowledged, that were cut.
    pub cut_bytes: u64,
    /// What was wrong with them.
    pub why: &'static str,
}

impl TopicLog {
    /// Makes an empty log in `dir`.
    pub(crate) fn create(dir: &Path, name: &str, partitions: u32, settings: LogSettings) -> Result<Self, BusError> {
        let failed = || format!("make topic folder `{}`", dir.display());
        std::fs::create_dir_all(dir).map_err(BusError::io(failed()))?;
        let head = SegmentHead {
            base: 0,
            base_bytes: 0,
            created: settings.clock.now(),
            next: vec![0; partitions as usize].into(),
        };
        create_segment(dir, head, &settings)?;
        dir.parent().map_or(Ok(()), sync_dir).map_err(BusError::io(failed()))?;
        Self::open(dir, name, settings).and_then(|(log, _)| {
            log.ok_or_else(|| BusError::Corrupt(format!("`{}` lost its first segment", dir.display())))
        })
    }

    /// Opens what is in `dir`; `None` when there is no segment.
    pub(crate) fn open(
        dir: &Path,
        name: &str,
        settings: LogSettings,
    ) -> Result<(Option<Self>, Option<TornTail>), BusError> {
        let mut paths: Vec<PathBuf> = std::fs::read_dir(dir)
            .and_then(|entries| entries.map(|e| e.map(|e| e.path())).collect())
            .map_err(BusError::io(format!("list `{}`", dir.display())))?;
        paths.retain(|p| p.extension().is_some_and(|e| e == SUFFIX));
        paths.sort();
        let mut segments: VecDeque<Segment> = VecDeque::new();
        for path in paths {
            let segment = open_segment(&path, &settings)?;
            if let Some(before) = segments.back() {
                check_follows(before, &segment)?;
            }
            segments.push_back(segment);
        }
        let Some(active) = segments.back() else { return Ok((None, None)) };
        let len = active.len.load(Ordering::Relaxed);
        let found = format::recover(&active.file, &active.head, len).map_err(|e| match e {
            RecoverError::Damaged { pos, why } => damaged(&active.path, pos, why),
            RecoverError::Io(e) => BusError::io(format!("read `{}`", active.path.display()))(e),
        })?;
        let mut torn = None;
        if let Some(why) = found.torn {
            let end = found.end.pos;
            active.file.cut(end).map_err(BusError::io(format!("cut the torn tail of `{}`", active.path.display())))?;
            active.len.store(end, Ordering::Relaxed);
            torn = Some(TornTail { path: active.path.clone(), kept_bytes: end, cut_bytes: len - end, why });
        }
        *active.index.lock() = Some(found.index);
        let partitions = active.head.partitions();
        let log = Self {
            name: name.into(),
            dir: dir.into(),
            partitions,
            writer: Mutex::new(Writer {
                len: found.end.pos,
                next: found.end.next.clone(),
                cut_first: false,
                last_time: found.last_time.unwrap_or(active.head.created),
            }),
            readers: RwLock::new(Vec::new()),
            view: RwLock::new(View {
                next: found.end.next.into_vec(),
                cache: Cache::new(partitions),
                end_at: active.head.base_bytes + found.end.pos,
                segments: segments.into_iter().map(Arc::new).collect(),
            }),
            settings,
        };
        Ok((Some(log), torn))
    }

    /// Begins a new segment. The caller holds the writer.
    pub(crate) fn roll(&self, writer: &mut Writer, now: Timestamp) -> Result<(), BusError> {
        let (base, base_bytes) = {
            let view = self.view.read();
            let active = view.segments.back().map_or((0, Vec::new()), |s| (s.head.base, s.head.next.to_vec()));
            let records: u64 = writer.next.iter().zip(&active.1).map(|(n, base)| n - base).sum();
            (active.0 + records, view.end_at)
        };
        let head = SegmentHead { base, base_bytes, created: now, next: writer.next.clone() };
        let segment = create_segment(&self.dir, head, &self.settings)?;
        *segment.index.lock() = Some(Index::default());
        writer.len = segment.head.len();
        let mut view = self.view.write();
        if let Some(sealed) = view.segments.back() {
            sealed.newest.store(writer.last_time.0, Ordering::Relaxed);
        }
        view.end_at = base_bytes + writer.len;
        view.segments.push_back(Arc::new(segment));
        Ok(())
    }

    /// Removes segments that are too old, and the oldest while all are too large together. The newest stays.
    /// Gives the oldest offset of each partition when something was removed.
    pub(crate) fn enforce_retention(&self) -> Result<Option<Vec<u64>>, BusError> {
        let now = self.settings.clock.now();
        let config = &self.settings.config;
        let oldest = now - Duration::from_secs(config.retention_secs);
        let mut writer = self.writer.lock();
        let idle = {
            let view = self.view.read();
            let empty = view.segments.back().is_none_or(|s| writer.len <= s.head.len());
            !empty && writer.last_time < oldest
        };
        if idle && !writer.cut_first {
            self.roll(&mut writer, now)?;
        }
        let mut gone = Vec::new();
        {
            let mut view = self.view.write();
            let end_at = view.end_at;
            while let [first, second, ..] = view.segments.make_contiguous() {
                let total = end_at - first.head.base_bytes;
                // Everything in a segment was appended before the next one was made.
                let newest = second.head.created.0.min(first.newest.load(Ordering::Relaxed));
                if newest >= oldest.0 && total <= config.retention_bytes {
                    break;
                }
                gone.extend(view.segments.pop_front());
            }
            let start = view.segments.front().map_or(0, |s| s.head.base_bytes);
            view.cache.forget_before(start);
        }
        drop(writer);
        for segment in &gone {
            std::fs::remove_file(&segment.path)
                .map_err(BusError::io(format!("remove old segment `{}`", segment.path.display())))?;
        }
        if gone.is_empty() {
            return Ok(None);
        }
        tracing::debug!(topic = %self.name, segments = gone.len(), "removed old segments");
        let view = self.view.read();
        Ok(Some((0..self.partitions).map(|p| view.start(p)).collect()))
    }

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

    /// Log bytes that the slowest live reader has yet to read.
    pub(crate) fn slowest_lag(&self) -> u64 {
        let slowest = self.readers.read().iter().map(|r| r.read_to.load(Ordering::Relaxed)).min().unwrap_or(u64::MAX);
        self.view.read().end_at.saturating_sub(slowest)
    }
}

fn create_segment(dir: &Path, head: SegmentHead, settings: &LogSettings) -> Result<Segment, BusError> {
    let path = dir.join(format!("{:020}.{SUFFIX}", head.base));
    write_atomic(&path, &[&head.encode()]).map_err(BusError::io(format!("make segment `{}`", path.display())))?;
    open_segment(&path, settings)
}

fn open_segment(path: &Path, settings: &LogSettings) -> Result<Segment, BusError> {
    let failed = || format!("open segment `{}`", path.display());
    let file = LogFile::open(path, settings.faults.clone()).map_err(BusError::io(failed()))?;
    let head = SegmentHead::read(&file).map_err(|e| match e {
        HeadError::Bad(why) => damaged(path, 0, why),
        HeadError::Io(e) => BusError::io(failed())(e),
    })?;
    let named = path.file_stem().and_then(|s| s.to_str()).and_then(|s| s.parse().ok());
    if named != Some(head.base) {
        return Err(damaged(path, 0, "its name does not fit its header"));
    }
    let len = file.len().map_err(BusError::io(failed()))?;
    Ok(Segment {
        salt: head.salt(),
        head,
        path: path.into(),
        file,
        len: AtomicU64::new(len),
        newest: AtomicI64::new(i64::MAX),
        index: Mutex::new(None),
    })
}

/// Whether `segment` begins where `before` ends: no file between them is missing and none was cut.
fn check_follows(before: &Segment, segment: &Segment) -> Result<(), BusError> {
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
