//! Reading records from the files of a topic.

use super::blocking;
use super::format::{Place, Scanner};
use super::view::{Find, Segment, Shown};
use crate::{BusError, Record};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// File bytes looked through in one go before other work gets a turn.
const SCAN_BYTES: u64 = 8 << 20;

/// A place in the files; every record before it with an offset of at least `place.next` is yet to be read.
#[derive(Clone)]
pub(super) struct Cursor {
    segment: Arc<Segment>,
    place: Place,
}

/// What is wanted of one partition.
#[derive(Debug, Clone, Copy)]
pub(super) struct Want {
    pub(super) partition: u32,
    pub(super) from: u64,
}

/// How much one poll may bring.
pub(super) struct Budget {
    pub(super) records: usize,
    pub(super) bytes: u64,
}

impl Budget {
    pub(super) fn take(&mut self, len: usize) {
        self.records -= 1;
        self.bytes = self.bytes.saturating_sub(len as u64);
    }

    pub(super) const fn spent(&self) -> bool {
        self.records == 0 || self.bytes == 0
    }
}

/// What a look through the files brought.
pub(super) struct Found {
    pub(super) records: Vec<Record>,
    pub(super) cursor: Cursor,
}

/// Reads wanted records from the files in log order, from `cursor` if that has passed none of them.
pub(super) async fn scan(
    shown: &Arc<Shown>,
    wants: Vec<Want>,
    cursor: Option<Cursor>,
    mut budget: Budget,
) -> Result<Found, BusError> {
    let shown = shown.clone();
    blocking(move || {
        let log = &*shown;
        let mut cursor = begin(log, &wants, cursor)?;
        let mut from = vec![u64::MAX; log.partitions as usize];
        for want in &wants {
            from[want.partition as usize] = want.from;
        }
        let mut records = Vec::new();
        let mut left = SCAN_BYTES;
        loop {
            let end = cursor.segment.len.load(Ordering::Acquire);
            let segment = cursor.segment.clone();
            let began = cursor.place.pos;
            let mut scanner = Scanner::new(&segment.file, segment.salt, cursor.place, end);
            while !budget.spent() && scanner.place().pos - began < left {
                let found = scanner
                    .next(|head| head.offset >= from[head.partition as usize])
                    .map_err(|e| segment.scan_error(e))?;
                let Some(found) = found else { break };
                let head = found.head;
                if head.offset < from[head.partition as usize] {
                    continue;
                }
                budget.take(found.payload.len());
                records.push(Record {
                    topic: log.name.clone(),
                    partition: head.partition,
                    offset: head.offset,
                    bytes: found.payload,
                });
            }
            let place = scanner.into_place();
            left = left.saturating_sub(place.pos - began);
            let at_end = place.pos >= end;
            cursor = Cursor { segment, place };
            if budget.spent() || left == 0 || !at_end {
                break;
            }
            match after(log, &cursor.segment) {
                Some(next) => cursor = next,
                None => break,
            }
        }
        // A few small records must not hold whole chunks of a file in memory.
        let total: usize = records.iter().map(|r| r.bytes.len()).sum();
        if (total as u64) < (SCAN_BYTES - left) / 4 {
            for record in &mut records {
                record.bytes = bytes::Bytes::copy_from_slice(&record.bytes);
            }
        }
        Ok(Found { records, cursor })
    })
    .await
}

/// The place to begin: the last one that is before all wanted records.
fn begin(log: &Shown, wants: &[Want], cursor: Option<Cursor>) -> Result<Cursor, BusError> {
    let usable = |c: &Cursor| wants.iter().all(|w| c.place.next[w.partition as usize] <= w.from);
    let mut best: Option<Cursor> = None;
    for want in wants {
        let segment = {
            let view = log.view.read();
            view.segments.get(view.segment_of(want.partition, want.from)).cloned()
        };
        let Some(segment) = segment else { continue };
        let place = segment.locate(want.partition, want.from)?;
        if best.as_ref().is_none_or(|b| (segment.head.base, place.pos) < (b.segment.head.base, b.place.pos)) {
            best = Some(Cursor { segment, place });
        }
    }
    let best = best.ok_or_else(|| BusError::Corrupt(format!("topic `{}` has no segment", log.name)))?;
    Ok(match cursor {
        Some(c) if usable(&c) && (c.segment.head.base, c.place.pos) > (best.segment.head.base, best.place.pos) => c,
        _ => best,
    })
}

/// The start of the segment behind `segment`.
fn after(log: &Shown, segment: &Segment) -> Option<Cursor> {
    let view = log.view.read();
    let next = view.segments.iter().find(|s| s.head.base > segment.head.base)?;
    Some(Cursor { segment: next.clone(), place: Place::start(&next.head) })
}

/// Reads one partition outside of any group.
pub(super) async fn fetch(
    log: &Arc<Shown>,
    partition: u32,
    from: u64,
    mut budget: Budget,
) -> Result<Vec<Record>, BusError> {
    log.check_partition(partition)?;
    let mut out: Vec<Record> = Vec::new();
    let mut from = from;
    let mut cursor = None;
    while !budget.spent() {
        let want = {
            let view = log.view.read();
            match view.find(partition, from) {
                Find::End => break,
                Find::Gone(start) => Want { partition, from: start },
                Find::Disk => Want { partition, from },
                Find::Cached => {
                    for (offset, bytes) in view.cached(partition, from) {
                        if budget.spent() {
                            break;
                        }
                        budget.take(bytes.len());
                        out.push(Record { topic: log.name.clone(), partition, offset, bytes: bytes.clone() });
                    }
                    break;
                }
            }
        };
        let share = Budget { records: budget.records, bytes: budget.bytes };
        let found = scan(log, vec![want], cursor.take(), share).await?;
        from = found.records.last().map_or(want.from, |r| r.offset + 1);
        for record in &found.records {
            budget.take(record.bytes.len());
        }
        out.extend(found.records);
        cursor = Some(found.cursor);
    }
    Ok(out)
}
