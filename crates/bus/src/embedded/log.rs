//! One topic as it is written: opening after a crash, new segments, retention.

use super::file::{DiskFaults, LogFile, sync_dir, write_atomic};
use super::format::{Index, Place, SegmentHead};
use super::view::{Cache, Segment, Shown, View, check_follows, open_error, segment_path, segment_paths};
use crate::BusError;
use crate::config::EmbeddedConfig;
use nightshift_model::{Clock, Timestamp};
use parking_lot::{Mutex, RwLock};
use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::Notify;

/// What a log is opened with.
#[derive(Clone)]
pub(crate) struct LogSettings {
    pub(crate) config: Arc<EmbeddedConfig>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) faults: Option<Arc<DiskFaults>>,
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
    pub(crate) shown: Arc<Shown>,
    pub(crate) dir: PathBuf,
    pub(crate) settings: LogSettings,
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
        let mut segments: VecDeque<Segment> = VecDeque::new();
        for path in segment_paths(dir)? {
            let segment = open_segment(&path, &settings)?;
            if let Some(before) = segments.back() {
                check_follows(before, &segment)?;
            }
            segments.push_back(segment);
        }
        let Some(active) = segments.back() else { return Ok((None, None)) };
        let len = active.len.load(Ordering::Relaxed);
        let found = active.recover(Place::start(&active.head), Index::default(), len)?;
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
            dir: dir.into(),
            writer: Mutex::new(Writer {
                len: found.end.pos,
                next: found.end.next.clone(),
                cut_first: false,
                last_time: found.last_time.unwrap_or(active.head.created),
            }),
            readers: RwLock::new(Vec::new()),
            shown: Arc::new(Shown {
                name: name.into(),
                partitions,
                view: RwLock::new(View {
                    next: found.end.next.into_vec(),
                    cache: Cache::new(partitions),
                    end_at: active.head.base_bytes + found.end.pos,
                    segments: segments.into_iter().map(Arc::new).collect(),
                }),
            }),
            settings,
        };
        Ok((Some(log), torn))
    }

    /// Begins a new segment. The caller holds the writer.
    pub(crate) fn roll(&self, writer: &mut Writer, now: Timestamp) -> Result<(), BusError> {
        let (base, base_bytes) = {
            let view = self.shown.view.read();
            let active = view.segments.back().map_or((0, Vec::new()), |s| (s.head.base, s.head.next.to_vec()));
            let records: u64 = writer.next.iter().zip(&active.1).map(|(n, base)| n - base).sum();
            (active.0 + records, view.end_at)
        };
        let head = SegmentHead { base, base_bytes, created: now, next: writer.next.clone() };
        let segment = create_segment(&self.dir, head, &self.settings)?;
        *segment.index.lock() = Some(Index::default());
        writer.len = segment.head.len();
        let mut view = self.shown.view.write();
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
            let view = self.shown.view.read();
            let empty = view.segments.back().is_none_or(|s| writer.len <= s.head.len());
            !empty && writer.last_time < oldest
        };
        if idle && !writer.cut_first {
            self.roll(&mut writer, now)?;
        }
        let mut gone = Vec::new();
        {
            let mut view = self.shown.view.write();
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
        tracing::debug!(topic = %self.shown.name, segments = gone.len(), "removed old segments");
        let view = self.shown.view.read();
        Ok(Some((0..self.shown.partitions).map(|p| view.start(p)).collect()))
    }

    /// Log bytes that the slowest live reader has yet to read.
    pub(crate) fn slowest_lag(&self) -> u64 {
        let slowest = self.readers.read().iter().map(|r| r.read_to.load(Ordering::Relaxed)).min().unwrap_or(u64::MAX);
        self.shown.view.read().end_at.saturating_sub(slowest)
    }
}

fn create_segment(dir: &Path, head: SegmentHead, settings: &LogSettings) -> Result<Segment, BusError> {
    let path = segment_path(dir, head.base);
    write_atomic(&path, &[&head.encode()]).map_err(BusError::io(format!("make segment `{}`", path.display())))?;
    open_segment(&path, settings)
}

fn open_segment(path: &Path, settings: &LogSettings) -> Result<Segment, BusError> {
    Segment::new(path, LogFile::open(path, settings.faults.clone()).map_err(open_error(path))?)
}
