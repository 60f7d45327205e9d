//! Where groups stand, made durable: an append-only file of commits, one sync for all that wait, replaced by a short
//! one when it has grown.
//!
//! A frame is length (u32), CRC32C (u32) and a payload: group and topic (u16 length and bytes each), then partition
//! (u32) and offset (u64) until its end. Reading stops at the first bad frame: what was committed after it is read
//! again by its group, which every consumer can take.

use super::file::{LogFile, write_atomic};
use crate::group::GroupTable;
use crate::{BusError, TopicPartition};
use parking_lot::{Condvar, Mutex};
use std::collections::BTreeMap;
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::sync::oneshot;

/// The file is rewritten when it is this long.
const COMPACT_BYTES: u64 = 4 << 20;
/// Frames longer than this are damage.
const MAX_FRAME: usize = 1 << 20;

struct Request {
    group: String,
    positions: Vec<(TopicPartition, u64)>,
    done: oneshot::Sender<Result<(), BusError>>,
}

#[derive(Default)]
struct Queue {
    waiting: Vec<Request>,
    closed: bool,
}

/// The commits of all groups of one bus.
pub(crate) struct CommitLog {
    path: PathBuf,
    queue: Mutex<Queue>,
    arrived: Condvar,
    groups: Arc<Mutex<GroupTable>>,
    fsync: bool,
}

impl CommitLog {
    /// Reads `path` into `groups` and starts the thread that appends to it.
    pub(crate) fn open(
        path: &Path,
        groups: Arc<Mutex<GroupTable>>,
        fsync: bool,
    ) -> Result<(Arc<Self>, std::thread::JoinHandle<()>), BusError> {
        let (good, bytes) = load(path, &mut groups.lock())?;
        if good < bytes {
            tracing::warn!(path = %path.display(), good_bytes = good, bytes,
                "the end of the commits is damaged; groups read again what they had committed there");
        }
        let log = Arc::new(Self { path: path.into(), queue: Mutex::default(), arrived: Condvar::new(), groups, fsync });
        let file = log.compact()?;
        let thread = std::thread::Builder::new()
            .name("bus commits".into())
            .spawn({
                let log = log.clone();
                move || log.run(file)
            })
            .map_err(BusError::io("start the thread that writes commits"))?;
        Ok((log, thread))
    }

    /// Hands in positions, already checked for fencing; the answer comes when they are durable.
    pub(crate) fn submit(
        &self,
        group: &str,
        positions: Vec<(TopicPartition, u64)>,
    ) -> Result<oneshot::Receiver<Result<(), BusError>>, BusError> {
        let (done, answer) = oneshot::channel();
        {
            let mut queue = self.queue.lock();
            if queue.closed {
                return Err(BusError::Closed);
            }
            queue.waiting.push(Request { group: group.into(), positions, done });
        }
        self.arrived.notify_one();
        Ok(answer)
    }

    pub(crate) fn close(&self) {
        self.queue.lock().closed = true;
        self.arrived.notify_one();
    }

    fn run(&self, mut file: LogFile) {
        let mut len = file.len().unwrap_or(COMPACT_BYTES);
        // Set when a write failed: only a fresh file is sure to hold no half frame.
        let mut rewrite = false;
        loop {
            let requests = {
                let mut queue = self.queue.lock();
                while queue.waiting.is_empty() && !queue.closed {
                    self.arrived.wait(&mut queue);
                }
                if queue.waiting.is_empty() {
                    return;
                }
                std::mem::take(&mut queue.waiting)
            };
            let written = self.append(&mut file, &mut len, &mut rewrite, &requests);
            if written.is_ok() {
                let mut table = self.groups.lock();
                for request in &requests {
                    for (at, offset) in &request.positions {
                        table.set_committed(&request.group, at.clone(), *offset);
                    }
                }
            }
            for request in requests {
                let answer = match &written {
                    Ok(()) => Ok(()),
                    Err(e) => Err(BusError::io(format!("write commits to `{}`", self.path.display()))(e.clone())),
                };
                // Whoever does not wait any more does not care.
                let _ = request.done.send(answer);
            }
        }
    }

    fn append(
        &self,
        file: &mut LogFile,
        len: &mut u64,
        rewrite: &mut bool,
        requests: &[Request],
    ) -> Result<(), String> {
        if *rewrite || *len > COMPACT_BYTES {
            *file = self.compact().map_err(|e| format!("{e:?}"))?;
            *len = file.len().map_err(|e| e.to_string())?;
            *rewrite = false;
        }
        let mut bytes = Vec::new();
        for request in requests {
            encode(&mut bytes, &request.group, &request.positions);
        }
        let synced =
            file.append(&mut [IoSlice::new(&bytes)]).and_then(|()| if self.fsync { file.sync() } else { Ok(()) });
        match synced {
            Ok(()) => {
                *len += bytes.len() as u64;
                Ok(())
            }
            Err(e) => {
                *rewrite = true;
                Err(e.to_string())
            }
        }
    }

    /// Replaces the file by one that holds only what stands.
    fn compact(&self) -> Result<LogFile, BusError> {
        let mut bytes = Vec::new();
        {
            let table = self.groups.lock();
            for (group, at, offset) in table.committed() {
                encode(&mut bytes, group, &[(at.clone(), offset)]);
            }
        }
        let failed = || format!("write commits to `{}`", self.path.display());
        write_atomic(&self.path, &[&bytes]).map_err(BusError::io(failed()))?;
        LogFile::open(&self.path, None).map_err(BusError::io(failed()))
    }
}

fn encode(out: &mut Vec<u8>, group: &str, positions: &[(TopicPartition, u64)]) {
    let mut by_topic: BTreeMap<&str, Vec<(u32, u64)>> = BTreeMap::new();
    for (at, offset) in positions {
        by_topic.entry(&at.topic).or_default().push((at.partition, *offset));
    }
    for (topic, positions) in by_topic {
        let mut payload = Vec::with_capacity(4 + group.len() + topic.len() + 12 * positions.len());
        for text in [group, topic] {
            // Names are checked to be short where they come in.
            payload.extend_from_slice(&(text.len() as u16).to_le_bytes());
            payload.extend_from_slice(text.as_bytes());
        }
        for (partition, offset) in positions {
            payload.extend_from_slice(&partition.to_le_bytes());
            payload.extend_from_slice(&offset.to_le_bytes());
        }
        out.extend_from_slice(&(payload.len() as u32).to_le_bytes());
        out.extend_from_slice(&crc32c::crc32c(&payload).to_le_bytes());
        out.extend_from_slice(&payload);
    }
}

/// Reads the commits in `path` into `table`, none when there is no such file. Gives how many of its bytes were good, and
/// how many it has.
pub(crate) fn load(path: &Path, table: &mut GroupTable) -> Result<(usize, usize), BusError> {
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(e) => return Err(BusError::io(format!("read commits `{}`", path.display()))(e)),
    };
    let (frames, good) = decode(&bytes);
    for (group, at, offset) in frames {
        table.set_committed(&group, at, offset);
    }
    Ok((good, bytes.len()))
}

/// Reads frames up to the first bad one; also how many bytes were good.
fn decode(bytes: &[u8]) -> (Vec<(String, TopicPartition, u64)>, usize) {
    let mut out = Vec::new();
    let mut rest = bytes;
    while let Some((payload, after)) = split_frame(rest) {
        if decode_payload(payload, &mut out).is_none() {
            break;
        }
        rest = after;
    }
    (out, bytes.len() - rest.len())
}

fn split_frame(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (len, rest) = bytes.split_first_chunk::<4>()?;
    let (crc, rest) = rest.split_first_chunk::<4>()?;
    let len = u32::from_le_bytes(*len) as usize;
    if len > MAX_FRAME {
        return None;
    }
    let (payload, after) = rest.split_at_checked(len)?;
    (crc32c::crc32c(payload) == u32::from_le_bytes(*crc)).then_some((payload, after))
}

fn decode_payload(mut rest: &[u8], out: &mut Vec<(String, TopicPartition, u64)>) -> Option<()> {
    let group = take_text(&mut rest)?;
    let topic = take_text(&mut rest)?;
    if !rest.len().is_multiple_of(12) {
        return None;
    }
    for position in rest.chunks_exact(12) {
        let (partition, offset) = position.split_first_chunk::<4>()?;
        let at = TopicPartition { topic: topic.clone(), partition: u32::from_le_bytes(*partition) };
        out.push((group.clone(), at, u64::from_le_bytes(offset.try_into().ok()?)));
    }
    Some(())
}

fn take_text(rest: &mut &[u8]) -> Option<String> {
    let (len, after) = rest.split_first_chunk::<2>()?;
    let (text, after) = after.split_at_checked(usize::from(u16::from_le_bytes(*len)))?;
    *rest = after;
    String::from_utf8(text.to_vec()).ok()
}

/// Entry for fuzzing: reads `bytes` as a file of commits.
#[doc(hidden)]
pub fn fuzz_bus_commits(bytes: &[u8]) {
    let (_, good) = decode(bytes);
    assert!(good <= bytes.len());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(partition: u32) -> TopicPartition {
        TopicPartition { topic: "t".into(), partition }
    }

    fn frames() -> Vec<u8> {
        let mut bytes = Vec::new();
        encode(&mut bytes, "g", &[(at(0), 5), (at(1), 6)]);
        encode(&mut bytes, "g", &[(at(0), 9)]);
        bytes
    }

    #[test]
    fn a_cut_or_damaged_end_loses_only_the_end() {
        let bytes = frames();
        let all = decode(&bytes).0;
        assert_eq!(all, [("g".into(), at(0), 5), ("g".into(), at(1), 6), ("g".into(), at(0), 9)]);
        for cut in 0..bytes.len() {
            let (found, good) = decode(&bytes[..cut]);
            assert!(all.starts_with(&found) && good <= cut, "cut at {cut}");
        }
        for flip in 0..bytes.len() {
            let mut bad = bytes.clone();
            bad[flip] ^= 0x10;
            assert!(all.starts_with(&decode(&bad).0), "flipped {flip}");
        }
    }

    #[test]
    fn bad_frames_and_what_is_read_of_them() {
        let framed = |payload: &[u8]| {
            let mut out = (payload.len() as u32).to_le_bytes().to_vec();
            out.extend_from_slice(&crc32c::crc32c(payload).to_le_bytes());
            out.extend_from_slice(payload);
            out
        };
        for (bad, what) in [
            (vec![], "empty"),
            (vec![1, 0], "half a length"),
            (vec![0xff; 64], "a length out of range"),
            (framed(b""), "no group"),
            (framed(b"\x01\0g"), "no topic"),
            (framed(b"\x01\0g\xff\xff"), "a topic longer than its frame"),
            (framed(b"\x01\0\xff\x01\0t"), "a group that is not UTF-8"),
            (framed(b"\x01\0g\x01\0tabc"), "half a position"),
        ] {
            assert_eq!(decode(&bad), (vec![], 0), "{what}");
        }
    }

    #[test]
    fn the_fuzz_corpus_is_current_and_taken_without_a_panic() {
        let whole = frames();
        let torn = whole[..whole.len() - 3].to_vec();
        crate::seeds::replay("bus_commits", &[("whole", whole), ("torn", torn)], fuzz_bus_commits);
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..300)) {
            fuzz_bus_commits(&bytes);
        }
    }
}
