//! Group commit: one thread per topic writes what all publishers wait for with one write and one sync.
//!
//! There is no lingering: an idle writer takes a request at once, and what arrives during its sync is the next group.
//! Publishers compute the checksums of their own payloads, so the thread only makes headers and calls the kernel.

use super::format::{RECORD_HEADER, RecordHead};
use super::log::{TopicLog, Writer};
use crate::BusError;
use bytes::Bytes;
use parking_lot::{Condvar, Mutex};
use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::oneshot;

/// A group is closed when it holds this much. Larger ones gain nothing, and the first waits for the last.
const GROUP_BYTES: u64 = 16 << 20;
/// How long a publisher that finds the queue full is told to wait: a few groups.
const RETRY_AFTER: Duration = Duration::from_millis(50);
/// How often an idle writer looks for records that are too old.
const HOUSEKEEPING: Duration = Duration::from_secs(30);

/// A record with what its publisher already worked out.
pub(crate) struct Prepared {
    pub(crate) partition: u32,
    pub(crate) crc: u32,
    pub(crate) bytes: Bytes,
}

struct Request {
    records: Vec<Prepared>,
    bytes: u64,
    done: oneshot::Sender<Result<(), BusError>>,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Request>,
    closed: bool,
}

/// Called with a log and its new oldest offsets whenever retention removed something.
pub(crate) type OnRemoved = Box<dyn Fn(&TopicLog, &[u64]) + Send + Sync>;

/// A log and the queue in front of it.
pub(crate) struct Appender {
    pub(crate) log: TopicLog,
    queue: Mutex<Queue>,
    arrived: Condvar,
    /// Bytes handed in and not yet answered.
    pending: AtomicU64,
    on_removed: OnRemoved,
}

impl Appender {
    /// Starts the thread that writes `log`.
    pub(crate) fn start(
        log: TopicLog,
        on_removed: OnRemoved,
    ) -> Result<(Arc<Self>, std::thread::JoinHandle<()>), BusError> {
        let appender = Arc::new(Self {
            log,
            queue: Mutex::default(),
            arrived: Condvar::new(),
            pending: AtomicU64::new(0),
            on_removed,
        });
        let thread = std::thread::Builder::new()
            .name(format!("bus {}", appender.log.shown.name))
            .spawn({
                let appender = appender.clone();
                move || appender.run()
            })
            .map_err(BusError::io("start the writer thread of a topic"))?;
        Ok((appender, thread))
    }

    /// Hands in records; the answer comes when they are durable.
    pub(crate) fn submit(&self, records: Vec<Prepared>) -> Result<oneshot::Receiver<Result<(), BusError>>, BusError> {
        let config = &self.log.settings.config;
        let bytes: u64 = records.iter().map(|r| (RECORD_HEADER + r.bytes.len()) as u64).sum();
        if bytes > config.max_pending_bytes {
            return Err(BusError::TooLarge {
                bytes: usize::try_from(bytes).unwrap_or(usize::MAX),
                limit_bytes: usize::try_from(config.max_pending_bytes).unwrap_or(usize::MAX),
            });
        }
        if config.max_lag_bytes > 0 && self.log.slowest_lag() > config.max_lag_bytes {
            return Err(BusError::Backpressure { retry_after: RETRY_AFTER * 4 });
        }
        let (done, answer) = oneshot::channel();
        {
            let mut queue = self.queue.lock();
            if queue.closed {
                return Err(BusError::Closed);
            }
            if self.pending.load(Ordering::Relaxed) + bytes > config.max_pending_bytes {
                return Err(BusError::Backpressure { retry_after: RETRY_AFTER });
            }
            self.pending.fetch_add(bytes, Ordering::Relaxed);
            queue.waiting.push_back(Request { records, bytes, done });
        }
        self.arrived.notify_one();
        Ok(answer)
    }

    /// What waits is still written; later publishes get [`BusError::Closed`].
    pub(crate) fn close(&self) {
        self.queue.lock().closed = true;
        self.arrived.notify_one();
    }

    fn run(&self) {
        let mut scratch = Vec::new();
        while let Some(group) = self.next_group() {
            if !group.is_empty() {
                self.write(group, &mut scratch);
            }
            self.clean_up();
        }
    }

    /// What waits, up to a group; empty when it is time to look for old records; `None` at the end.
    fn next_group(&self) -> Option<Vec<Request>> {
        let mut queue = self.queue.lock();
        if queue.waiting.is_empty() && !queue.closed {
            self.arrived.wait_for(&mut queue, HOUSEKEEPING);
        }
        if queue.waiting.is_empty() {
            return if queue.closed { None } else { Some(Vec::new()) };
        }
        let mut group = Vec::new();
        let mut bytes = 0;
        while bytes < GROUP_BYTES
            && let Some(request) = queue.waiting.pop_front()
        {
            bytes += request.bytes;
            group.push(request);
        }
        Some(group)
    }

    fn write(&self, group: Vec<Request>, headers: &mut Vec<u8>) {
        let written = {
            let mut writer = self.log.writer.lock();
            self.append(&mut writer, &group, headers).inspect(|()| self.show(&mut writer, &group))
        };
        if written.is_ok() {
            for reader in self.log.readers.read().iter() {
                reader.wake.notify_one();
            }
        }
        for request in group {
            self.pending.fetch_sub(request.bytes, Ordering::Relaxed);
            let answer = match &written {
                Ok(()) => Ok(()),
                Err(e) => Err(self.write_error(e)),
            };
            // Whoever does not wait any more does not care.
            let _ = request.done.send(answer);
        }
    }

    fn write_error(&self, e: &io::Error) -> BusError {
        let hint = match e.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                ": the disk is full, free some space or lower the bus's `retention_bytes`"
            }
            _ => "",
        };
        BusError::io(format!("append to topic `{}` in `{}`{hint}", self.log.shown.name, self.log.dir.display()))(
            io::Error::new(e.kind(), e.to_string()),
        )
    }

    /// Writes and syncs one group; on error nothing of it is left, or it is cut before the next one.
    fn append(&self, writer: &mut Writer, group: &[Request], headers: &mut Vec<u8>) -> io::Result<()> {
        let config = &self.log.settings.config;
        let active = || {
            let view = self.log.shown.view.read();
            view.segments.back().cloned().ok_or_else(|| io::Error::other("the log has no segment"))
        };
        let mut segment = active()?;
        if writer.cut_first {
            segment.file.cut(writer.len)?;
            writer.cut_first = false;
        }
        let now = self.log.settings.clock.now();
        let bytes: u64 = group.iter().map(|r| r.bytes).sum();
        if writer.len > segment.head.len() && writer.len + bytes > config.segment_bytes {
            self.log.roll(writer, now).map_err(|e| match e {
                BusError::Io { what, source } => match source.downcast::<io::Error>() {
                    Ok(e) => *e,
                    Err(e) => io::Error::other(format!("{what}: {e}")),
                },
                e => io::Error::other(e.to_string()),
            })?;
            segment = active()?;
        }
        // Without a sync nothing proves that what came before is on the disk.
        let group_start = if config.fsync { writer.len as u32 } else { 0 };
        let mut next = writer.next.clone();
        headers.clear();
        for record in group.iter().flat_map(|r| &r.records) {
            let offset = &mut next[record.partition as usize];
            let head = RecordHead {
                len: record.bytes.len() as u32,
                crc: record.crc,
                partition: record.partition,
                offset: *offset,
                time: now,
                group_start,
            };
            *offset += 1;
            headers.extend_from_slice(&head.encode(segment.salt));
        }
        let mut parts: Vec<IoSlice<'_>> = headers
            .chunks_exact(RECORD_HEADER)
            .zip(group.iter().flat_map(|r| &r.records))
            .flat_map(|(head, record)| [IoSlice::new(head), IoSlice::new(&record.bytes)])
            .collect();
        let synced =
            segment.file.append(&mut parts).and_then(|()| if config.fsync { segment.file.sync() } else { Ok(()) });
        if let Err(e) = synced {
            // After a failed sync the kernel may drop what it could not write and say so only once: nothing of this
            // group may be counted on, so it goes.
            writer.cut_first = true;
            if segment.file.cut(writer.len).is_ok() {
                writer.cut_first = false;
            }
            return Err(e);
        }
        writer.last_time = writer.last_time.max(now);
        Ok(())
    }

    /// Makes a written group visible.
    fn show(&self, writer: &mut Writer, group: &[Request]) {
        let mut view = self.log.shown.view.write();
        let Some(segment) = view.segments.back().cloned() else { return };
        let mut index = segment.index.lock();
        for record in group.iter().flat_map(|r| &r.records) {
            if let Some(index) = &mut *index {
                index.note(&segment.head, writer.len, &writer.next);
            }
            writer.len += (RECORD_HEADER + record.bytes.len()) as u64;
            writer.next[record.partition as usize] += 1;
            let end_at = segment.head.base_bytes + writer.len;
            view.cache.push(record.partition, record.bytes.clone(), end_at);
        }
        view.cache.trim(self.log.settings.config.tail_cache_bytes);
        view.next.copy_from_slice(&writer.next);
        view.end_at = segment.head.base_bytes + writer.len;
        segment.len.store(writer.len, Ordering::Release);
    }

    /// Removes old segments; a failure is told and tried again after the next group.
    pub(crate) fn clean_up(&self) {
        match self.log.enforce_retention() {
            Ok(Some(start)) => (self.on_removed)(&self.log, &start),
            Ok(None) => {}
            Err(e) => tracing::warn!(topic = %self.log.shown.name, error = %e, "cannot remove old records"),
        }
    }
}
