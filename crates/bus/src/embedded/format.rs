//! The bytes of a segment file, and reading them back when they may be damaged.
//!
//! A segment is a header and records, integers little-endian:
//!
//! | segment header | bytes | | record header | bytes |
//! | --- | --- | --- | --- | --- |
//! | magic `NSBUSLOG` | 8 | | magic `NSR1` | 4 |
//! | version, 1 | 4 | | length of the payload | 4 |
//! | partitions | 4 | | CRC32C of the payload | 4 |
//! | records of the log before this segment | 8 | | partition | 4 |
//! | bytes of the log before this segment | 8 | | offset in the partition | 8 |
//! | creation time, ns | 8 | | append time, ns | 8 |
//! | next offset of each partition | 8 each | | where its write group began in the file | 4 |
//! | CRC32C of all that | 4 | | CRC32C of all that, seeded with the segment's CRC | 4 |
//!
//! Offsets count up by one within a partition, which is checked on reading. A group is written only after everything
//! before it was synced. So a bad record at X with any record behind it whose group began after X is damage to what
//! was acknowledged; without one it is the torn tail of a group that nobody was told of, and is cut.

use bytes::Bytes;
use nightshift_model::Timestamp;
use std::io;

const SEGMENT_MAGIC: [u8; 8] = *b"NSBUSLOG";
const RECORD_MAGIC: [u8; 4] = *b"NSR1";
const VERSION: u32 = 1;
/// Bytes before the payload of a record.
pub(crate) const RECORD_HEADER: usize = 40;
/// More partitions than this are refused: their offsets are in every segment header and index entry.
pub(crate) const MAX_PARTITIONS: u32 = 4096;
/// A length above this is damage, whatever the configured limit is.
pub(crate) const MAX_RECORD: u32 = 1 << 30;
/// Log bytes between two entries of the sparse index: a seek reads at most this much for nothing.
pub(crate) const INDEX_EVERY: u64 = 1 << 20;
const CHUNK: u64 = 1 << 20;

/// Head of a segment file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SegmentHead {
    /// Records of the log before this segment; also its file name.
    pub(crate) base: u64,
    /// Bytes of the log before this segment.
    pub(crate) base_bytes: u64,
    pub(crate) created: Timestamp,
    /// Offset that the next record of each partition gets.
    pub(crate) next: Box<[u64]>,
}

impl SegmentHead {
    pub(crate) fn partitions(&self) -> u32 {
        self.next.len() as u32
    }

    /// Bytes of the head, where the first record begins.
    pub(crate) fn len(&self) -> u64 {
        Self::len_for(self.next.len())
    }

    fn len_for(partitions: usize) -> u64 {
        44 + 8 * partitions as u64
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.len() as usize);
        out.extend_from_slice(&SEGMENT_MAGIC);
        out.extend_from_slice(&VERSION.to_le_bytes());
        out.extend_from_slice(&self.partitions().to_le_bytes());
        out.extend_from_slice(&self.base.to_le_bytes());
        out.extend_from_slice(&self.base_bytes.to_le_bytes());
        out.extend_from_slice(&self.created.0.to_le_bytes());
        for next in &self.next {
            out.extend_from_slice(&next.to_le_bytes());
        }
        out.extend_from_slice(&crc32c::crc32c(&out).to_le_bytes());
        out
    }

    /// Seed of the record headers' CRC: a record of another segment, or an image of one in a payload, is not taken
    /// for a record of this one.
    pub(crate) fn salt(&self) -> u32 {
        let bytes = self.encode();
        u32_at(&bytes, bytes.len() - 4)
    }

    /// Reads the head of a file.
    pub(crate) fn read<R: ReadAt + ?Sized>(src: &R) -> Result<Self, HeadError> {
        let mut fixed = [0u8; 40];
        read_exact_at(src, &mut fixed, 0)?;
        if fixed[..8] != SEGMENT_MAGIC {
            return Err(HeadError::Bad("it does not begin with NSBUSLOG"));
        }
        if u32_at(&fixed, 8) != VERSION {
            return Err(HeadError::Bad("it was written by a newer version"));
        }
        let partitions = u32_at(&fixed, 12);
        if !(1..=MAX_PARTITIONS).contains(&partitions) {
            return Err(HeadError::Bad("the number of partitions is out of range"));
        }
        let mut all = vec![0u8; Self::len_for(partitions as usize) as usize];
        read_exact_at(src, &mut all, 0)?;
        let (body, crc) = all.split_at(all.len() - 4);
        if crc32c::crc32c(body) != u32_at(crc, 0) {
            return Err(HeadError::Bad("the checksum of its header is wrong"));
        }
        let head = Self {
            base: u64_at(body, 16),
            base_bytes: u64_at(body, 24),
            created: Timestamp(u64_at(body, 32) as i64),
            next: body[40..].chunks_exact(8).map(|b| u64_at(b, 0)).collect(),
        };
        // Far above what can be written, far below where adding overflows.
        if [head.base, head.base_bytes].iter().chain(&head.next).any(|n| *n > 1 << 62) {
            return Err(HeadError::Bad("an offset in its header is out of range"));
        }
        Ok(head)
    }
}

/// Why a segment head cannot be used.
#[derive(Debug)]
pub(crate) enum HeadError {
    Bad(&'static str),
    Io(io::Error),
}

impl From<io::Error> for HeadError {
    fn from(e: io::Error) -> Self {
        if e.kind() == io::ErrorKind::UnexpectedEof { Self::Bad("it is shorter than its header") } else { Self::Io(e) }
    }
}

/// Head of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RecordHead {
    pub(crate) len: u32,
    pub(crate) crc: u32,
    pub(crate) partition: u32,
    pub(crate) offset: u64,
    pub(crate) time: Timestamp,
    pub(crate) group_start: u32,
}

impl RecordHead {
    pub(crate) fn encode(&self, salt: u32) -> [u8; RECORD_HEADER] {
        let mut out = [0; RECORD_HEADER];
        out[..4].copy_from_slice(&RECORD_MAGIC);
        out[4..8].copy_from_slice(&self.len.to_le_bytes());
        out[8..12].copy_from_slice(&self.crc.to_le_bytes());
        out[12..16].copy_from_slice(&self.partition.to_le_bytes());
        out[16..24].copy_from_slice(&self.offset.to_le_bytes());
        out[24..32].copy_from_slice(&self.time.0.to_le_bytes());
        out[32..36].copy_from_slice(&self.group_start.to_le_bytes());
        let crc = crc32c::crc32c_append(salt, &out[..36]);
        out[36..].copy_from_slice(&crc.to_le_bytes());
        out
    }

    /// `None`: these 40 bytes are no record head of this segment.
    fn decode(bytes: &[u8], salt: u32) -> Option<Self> {
        if bytes[..4] != RECORD_MAGIC || crc32c::crc32c_append(salt, &bytes[..36]) != u32_at(bytes, 36) {
            return None;
        }
        Some(Self {
            len: u32_at(bytes, 4),
            crc: u32_at(bytes, 8),
            partition: u32_at(bytes, 12),
            offset: u64_at(bytes, 16),
            time: Timestamp(u64_at(bytes, 24) as i64),
            group_start: u32_at(bytes, 32),
        })
    }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut b = [0; 4];
    b.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(b)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut b = [0; 8];
    b.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(b)
}

/// Reads at a position: a file, or bytes in tests and fuzzing.
pub(crate) trait ReadAt {
    fn read_at(&self, buf: &mut [u8], at: u64) -> io::Result<usize>;
}

impl ReadAt for [u8] {
    fn read_at(&self, buf: &mut [u8], at: u64) -> io::Result<usize> {
        let rest = usize::try_from(at).ok().and_then(|at| self.get(at..)).unwrap_or(&[]);
        let n = rest.len().min(buf.len());
        buf[..n].copy_from_slice(&rest[..n]);
        Ok(n)
    }
}

pub(crate) fn read_exact_at<R: ReadAt + ?Sized>(src: &R, mut buf: &mut [u8], mut at: u64) -> io::Result<()> {
    while !buf.is_empty() {
        match src.read_at(buf, at) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(n) => {
                buf = &mut buf[n..];
                at += n as u64;
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

/// A place in a segment, and how far every partition is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) pos: u64,
    /// Next offset of each partition.
    pub(crate) next: Box<[u64]>,
}

impl Place {
    /// Where the first record of a segment begins.
    pub(crate) fn start(head: &SegmentHead) -> Self {
        Self { pos: head.len(), next: head.next.clone() }
    }
}

/// Sparse index of a segment: a [`Place`] about every [`INDEX_EVERY`] bytes, offsets relative to the segment's.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Index(Vec<(u64, Box<[u32]>)>);

impl Index {
    /// Notes a place if the last one is far enough behind. Called in order, at record boundaries.
    pub(crate) fn note(&mut self, head: &SegmentHead, pos: u64, next: &[u64]) {
        let last = self.0.last().map_or(head.len(), |(pos, _)| *pos);
        if pos >= last + INDEX_EVERY {
            self.0.push((pos, next.iter().zip(&head.next).map(|(n, base)| (n - base) as u32).collect()));
        }
    }

    /// The last place known to be before or at `offset` of `partition`.
    pub(crate) fn locate(&self, head: &SegmentHead, partition: u32, offset: u64) -> Place {
        let p = partition as usize;
        let after = self.0.partition_point(|(_, next)| head.next[p] + u64::from(next[p]) <= offset);
        match after.checked_sub(1).and_then(|i| self.0.get(i)) {
            Some((pos, next)) => {
                Place { pos: *pos, next: next.iter().zip(&head.next).map(|(n, base)| base + u64::from(*n)).collect() }
            }
            None => Place::start(head),
        }
    }
}

/// Why reading a segment stopped.
#[derive(Debug)]
pub(crate) enum ScanError {
    /// The record at `pos` is not whole.
    Bad {
        pos: u64,
        why: &'static str,
    },
    Io(io::Error),
}

/// One record read from a segment.
#[derive(Debug)]
pub(crate) struct Scanned {
    pub(crate) head: RecordHead,
    /// Empty when it was not wanted.
    pub(crate) payload: Bytes,
}

/// Reads records one after the other, in chunks.
pub(crate) struct Scanner<'a, R: ?Sized> {
    src: &'a R,
    salt: u32,
    end: u64,
    place: Place,
    chunk: Bytes,
    chunk_at: u64,
}

impl<'a, R: ReadAt + ?Sized> Scanner<'a, R> {
    /// From `place` to `end` (bytes from the start of the file).
    pub(crate) fn new(src: &'a R, salt: u32, place: Place, end: u64) -> Self {
        Self { src, salt, end, chunk_at: place.pos, place, chunk: Bytes::new() }
    }

    /// Where the next record begins.
    pub(crate) fn place(&self) -> &Place {
        &self.place
    }

    pub(crate) fn into_place(self) -> Place {
        self.place
    }

    /// The next record; `None` at the end. Payloads are read and checked where `wanted` says so.
    pub(crate) fn next(&mut self, wanted: impl Fn(&RecordHead) -> bool) -> Result<Option<Scanned>, ScanError> {
        let pos = self.place.pos;
        if pos >= self.end {
            return Ok(None);
        }
        let bad = |why| Err(ScanError::Bad { pos, why });
        let left = self.end - pos;
        if left < RECORD_HEADER as u64 {
            return bad("the file ends within a record's header");
        }
        let bytes = self.take(pos, RECORD_HEADER as u64)?;
        let Some(head) = RecordHead::decode(&bytes, self.salt) else {
            return bad("the record's header or its checksum is wrong");
        };
        if head.len > MAX_RECORD {
            return bad("the record's length is out of range");
        }
        let whole = RECORD_HEADER as u64 + u64::from(head.len);
        if left < whole {
            return bad("the file ends within a record");
        }
        let Some(next) = self.place.next.get(head.partition as usize).copied() else {
            return bad("the record's partition is out of range");
        };
        if head.offset != next {
            return bad("the record's offset does not follow the one before");
        }
        let payload = if wanted(&head) {
            let payload = self.take(pos + RECORD_HEADER as u64, u64::from(head.len))?;
            if crc32c::crc32c(&payload) != head.crc {
                return bad("the checksum of the record is wrong");
            }
            payload
        } else {
            Bytes::new()
        };
        self.place.next[head.partition as usize] = next + 1;
        self.place.pos = pos + whole;
        Ok(Some(Scanned { head, payload }))
    }

    /// `len` bytes at `at`, a slice of the current chunk or of a new one.
    fn take(&mut self, at: u64, len: u64) -> Result<Bytes, ScanError> {
        let have = self.chunk_at + self.chunk.len() as u64;
        if at < self.chunk_at || at + len > have {
            let size = CHUNK.max(len).min(self.end - at);
            let mut chunk = vec![0; size as usize];
            read_exact_at(self.src, &mut chunk, at).map_err(ScanError::Io)?;
            self.chunk = chunk.into();
            self.chunk_at = at;
        }
        let from = (at - self.chunk_at) as usize;
        Ok(self.chunk.slice(from..from + len as usize))
    }
}

/// What the newest segment of a log holds.
#[derive(Debug)]
pub(crate) struct Recovered {
    /// End of the last whole record.
    pub(crate) end: Place,
    pub(crate) index: Index,
    pub(crate) last_time: Option<Timestamp>,
    /// Where the last whole record begins, if one was read.
    pub(crate) last: Option<u64>,
    /// Why what follows `end` is to be cut.
    pub(crate) torn: Option<&'static str>,
}

/// Why the newest segment cannot be recovered.
#[derive(Debug)]
pub(crate) enum RecoverError {
    /// What was synced is damaged at `pos`.
    Damaged {
        pos: u64,
        why: &'static str,
    },
    Io(io::Error),
}

/// Reads the newest segment (`len` bytes) from `start`, whose index is `index`, and finds where it is torn.
pub(crate) fn recover<R: ReadAt + ?Sized>(
    src: &R,
    head: &SegmentHead,
    start: Place,
    mut index: Index,
    len: u64,
) -> Result<Recovered, RecoverError> {
    let mut scanner = Scanner::new(src, head.salt(), start, len);
    let (mut last, mut last_time) = (None, None);
    let torn = loop {
        let at = scanner.place().pos;
        index.note(head, at, &scanner.place().next);
        match scanner.next(|_| true) {
            Ok(Some(record)) => {
                last = Some(at);
                last_time = last_time.max(Some(record.head.time));
            }
            Ok(None) => break None,
            Err(ScanError::Io(e)) => return Err(RecoverError::Io(e)),
            Err(ScanError::Bad { pos, why }) => {
                if synced_later(src, head.salt(), pos, len).map_err(RecoverError::Io)? {
                    return Err(RecoverError::Damaged { pos, why });
                }
                break Some(why);
            }
        }
    };
    Ok(Recovered { end: scanner.into_place(), index, last_time, last, torn })
}

/// Whether a record behind `bad` proves that the bytes at `bad` had been synced.
fn synced_later<R: ReadAt + ?Sized>(src: &R, salt: u32, bad: u64, len: u64) -> io::Result<bool> {
    let mut at = bad + 1;
    while at + RECORD_HEADER as u64 <= len {
        let mut chunk = vec![0; (len - at).min(CHUNK) as usize];
        read_exact_at(src, &mut chunk, at)?;
        let starts = chunk.len() - RECORD_HEADER + 1;
        for i in 0..starts {
            if chunk[i] == RECORD_MAGIC[0]
                && RecordHead::decode(&chunk[i..], salt).is_some_and(|h| u64::from(h.group_start) > bad)
            {
                return Ok(true);
            }
        }
        at += starts as u64;
    }
    Ok(false)
}

/// Entry for fuzzing: opens `bytes` as the newest segment of a log. Never panics, never allocates more than a few
/// times their length (and one chunk).
#[doc(hidden)]
pub fn fuzz_bus_segment(bytes: &[u8]) {
    let Ok(head) = SegmentHead::read(bytes) else { return };
    if let Ok(found) = recover(bytes, &head, Place::start(&head), Index::default(), bytes.len() as u64) {
        // What was recovered must read again, to the same end.
        let start = found.index.locate(&head, 0, u64::MAX);
        let mut scanner = Scanner::new(bytes, head.salt(), start, found.end.pos);
        while scanner.next(|_| true).is_ok_and(|record| record.is_some()) {}
        assert_eq!(*scanner.place(), found.end);
    }
}
