//! Where workers keep the state of a shard: files, and memory with faults.
//!
//! Lives here: putting a snapshot in place whole or not at all, telling a damaged one from a good one, falling back to
//! the one before. Never here: what a snapshot holds.
//!
//! A file is magic `NSSNAP`, version (u16), length of the payload (u64), CRC32C of the payload (u32), CRC32C of those
//! 20 bytes (u32), payload. Beside `SHARD.snap` the one before it stays as `SHARD.prev`.

use crate::embedded::{blocking, sync_dir};
use crate::{BusError, SnapshotRead, SnapshotStore, check_name};
use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

const MAGIC: [u8; 6] = *b"NSSNAP";
const VERSION: u16 = 1;
const HEADER: usize = 24;

fn encode_header(payload: &[u8]) -> [u8; HEADER] {
    let mut out = [0; HEADER];
    out[..6].copy_from_slice(&MAGIC);
    out[6..8].copy_from_slice(&VERSION.to_le_bytes());
    out[8..16].copy_from_slice(&(payload.len() as u64).to_le_bytes());
    out[16..20].copy_from_slice(&crc32c::crc32c(payload).to_le_bytes());
    let crc = crc32c::crc32c(&out[..20]);
    out[20..].copy_from_slice(&crc.to_le_bytes());
    out
}

/// The payload of a snapshot file, or what is wrong with it.
fn decode(file: &Bytes) -> Result<Bytes, &'static str> {
    let header = file.get(..HEADER).ok_or("it is shorter than its header")?;
    if header[..6] != MAGIC {
        return Err("it does not begin with NSSNAP");
    }
    let version = u16::from_le_bytes([header[6], header[7]]);
    if version != VERSION {
        return Err("it was written by another version");
    }
    let payload = file.slice(HEADER..);
    if encode_header(&payload)[..] != *header {
        return Err("its length or checksum is wrong");
    }
    Ok(payload)
}

/// Entry for fuzzing: reads `bytes` as a snapshot file.
#[doc(hidden)]
pub fn fuzz_bus_snapshot(bytes: &[u8]) {
    let _ = decode(&Bytes::copy_from_slice(bytes));
}

/// Snapshots as files in DIR/WORKER/SHARD.snap.
pub struct FileSnapshots {
    inner: Arc<Files>,
}

struct Files {
    dir: PathBuf,
    /// Files that were read or written whole since the start: only such a one may replace the one before it.
    sound: Mutex<BTreeSet<PathBuf>>,
}

impl FileSnapshots {
    /// Keeps snapshots in `dir`, which is made when needed.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self { inner: Arc::new(Files { dir: dir.into(), sound: Mutex::default() }) }
    }
}

impl Files {
    fn path(&self, worker: &str, shard: u32) -> Result<PathBuf, BusError> {
        check_name("worker", worker)?;
        Ok(self.dir.join(worker).join(format!("{shard}.snap")))
    }

    /// The payload of one file; `None` when there is none.
    fn load(path: &Path) -> Result<Option<Result<Bytes, &'static str>>, BusError> {
        match std::fs::read(path) {
            Ok(bytes) => Ok(Some(decode(&bytes.into()))),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(BusError::io(format!("read snapshot `{}`", path.display()))(e)),
        }
    }

    fn put(&self, path: &Path, bytes: &[u8]) -> Result<(), BusError> {
        let failed = || format!("write snapshot `{}`", path.display());
        let dir = path.parent().unwrap_or(&self.dir);
        if !dir.is_dir() {
            std::fs::create_dir_all(dir).map_err(BusError::io(failed()))?;
            sync_dir(&self.dir).map_err(BusError::io(failed()))?;
        }
        let tmp = path.with_extension("tmp");
        let written = (|| {
            let mut file = File::create(&tmp)?;
            file.write_all(&encode_header(bytes))?;
            file.write_all(bytes)?;
            file.sync_all()
        })();
        if written.is_err() {
            let _ = std::fs::remove_file(&tmp);
        }
        written.map_err(BusError::io(failed()))?;
        let sound = self.sound.lock().contains(path) || matches!(Self::load(path)?, Some(Ok(_)));
        if sound {
            std::fs::rename(path, path.with_extension("prev")).map_err(BusError::io(failed()))?;
        }
        std::fs::rename(&tmp, path).and_then(|()| sync_dir(dir)).map_err(BusError::io(failed()))?;
        self.sound.lock().insert(path.into());
        Ok(())
    }

    fn read(&self, path: &Path) -> Result<SnapshotRead, BusError> {
        let mut found = SnapshotRead::default();
        for candidate in [path.to_path_buf(), path.with_extension("prev")] {
            match Self::load(&candidate)? {
                Some(Ok(bytes)) => {
                    found.bytes = Some(bytes);
                    break;
                }
                Some(Err(why)) => {
                    self.sound.lock().remove(&candidate);
                    found.warnings.push(format!("snapshot `{}` is damaged: {why}", candidate.display()));
                }
                None => {}
            }
        }
        Ok(found)
    }
}

#[async_trait]
impl SnapshotStore for FileSnapshots {
    /// One writer per shard: two at the same time may leave either.
    async fn put(&self, worker: &str, shard: u32, bytes: Bytes) -> Result<(), BusError> {
        let path = self.inner.path(worker, shard)?;
        let inner = self.inner.clone();
        blocking(move || inner.put(&path, &bytes)).await
    }

    async fn read(&self, worker: &str, shard: u32) -> Result<SnapshotRead, BusError> {
        let path = self.inner.path(worker, shard)?;
        let inner = self.inner.clone();
        blocking(move || inner.read(&path)).await
    }
}

/// Snapshots in memory, with faults.
#[derive(Default)]
pub struct MemorySnapshots {
    state: Mutex<MemoryState>,
}

#[derive(Default)]
struct MemoryState {
    /// Newest last; at most two, as with files.
    kept: BTreeMap<(String, u32), Vec<Bytes>>,
    puts_to_fail: u32,
    damaged: BTreeSet<(String, u32)>,
}

impl MemorySnapshots {
    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The next `n` puts fail and change nothing.
    pub fn fail_puts(&self, n: u32) {
        self.state.lock().puts_to_fail = n;
    }

    /// The newest snapshot of a shard is damaged from now on, until the next put.
    pub fn damage(&self, worker: &str, shard: u32) {
        self.state.lock().damaged.insert((worker.into(), shard));
    }
}

#[async_trait]
impl SnapshotStore for MemorySnapshots {
    async fn put(&self, worker: &str, shard: u32, bytes: Bytes) -> Result<(), BusError> {
        check_name("worker", worker)?;
        let key = (worker.to_string(), shard);
        let mut state = self.state.lock();
        if state.puts_to_fail > 0 {
            state.puts_to_fail -= 1;
            return Err(BusError::io("write snapshot")("injected fault"));
        }
        let damaged = state.damaged.remove(&key);
        let kept = state.kept.entry(key).or_default();
        if damaged {
            kept.pop();
        }
        kept.push(bytes);
        if kept.len() > 2 {
            kept.remove(0);
        }
        Ok(())
    }

    async fn read(&self, worker: &str, shard: u32) -> Result<SnapshotRead, BusError> {
        check_name("worker", worker)?;
        let key = (worker.to_string(), shard);
        let state = self.state.lock();
        let mut kept = state.kept.get(&key).map_or(&[][..], Vec::as_slice).iter().rev();
        let mut found = SnapshotRead::default();
        if state.damaged.contains(&key) && kept.next().is_some() {
            found.warnings.push(format!("snapshot of shard {shard} of `{worker}` is damaged"));
        }
        found.bytes = kept.next().cloned();
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The common part, run against every kind; `damage` spoils the newest snapshot of worker `w`, shard 3.
    async fn conforms(store: &dyn SnapshotStore, damage: impl Fn()) {
        let get = async |shard| store.get("w", shard).await.unwrap();
        assert_eq!(store.read("w", 3).await.unwrap(), SnapshotRead::default());
        store.put("w", 3, Bytes::from_static(b"one")).await.unwrap();
        store.put("w", 4, Bytes::new()).await.unwrap();
        assert_eq!((get(3).await, get(4).await), (Some(Bytes::from_static(b"one")), Some(Bytes::new())));
        store.put("w", 3, Bytes::from_static(b"two")).await.unwrap();
        damage();
        let found = store.read("w", 3).await.unwrap();
        assert_eq!(found.bytes, Some(Bytes::from_static(b"one")), "falls back to the one before");
        assert_eq!(found.warnings.len(), 1, "{found:?}");
        // The damaged one must not push out the good one behind it.
        store.put("w", 3, Bytes::from_static(b"three")).await.unwrap();
        assert_eq!(get(3).await, Some(Bytes::from_static(b"three")));
        damage();
        assert_eq!(get(3).await, Some(Bytes::from_static(b"one")));
        for bad in ["", "../x", "a/b", ".hidden"] {
            assert!(matches!(store.put(bad, 0, Bytes::new()).await, Err(BusError::Invalid(_))), "{bad}");
        }
    }

    #[tokio::test]
    async fn files_conform() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("w/3.snap");
        conforms(&FileSnapshots::new(dir.path()), || {
            let mut bytes = std::fs::read(&path).unwrap();
            *bytes.last_mut().unwrap() ^= 1;
            std::fs::write(&path, bytes).unwrap();
        })
        .await;
        // A new process does not know which files are sound.
        conforms(&FileSnapshots::new(dir.path().join("again")), || {
            std::fs::write(dir.path().join("again/w/3.snap"), b"short").unwrap();
        })
        .await;
    }

    #[tokio::test]
    async fn memory_conforms() {
        let store = MemorySnapshots::new();
        conforms(&store, || store.damage("w", 3)).await;
        store.fail_puts(1);
        assert!(store.put("w", 9, Bytes::new()).await.is_err());
        assert_eq!(store.get("w", 9).await.unwrap(), None);
    }

    #[tokio::test]
    async fn a_crash_between_the_renames_keeps_the_one_before() {
        let dir = tempfile::tempdir().unwrap();
        let store = FileSnapshots::new(dir.path());
        store.put("w", 0, Bytes::from_static(b"one")).await.unwrap();
        std::fs::rename(dir.path().join("w/0.snap"), dir.path().join("w/0.prev")).unwrap();
        assert_eq!(store.get("w", 0).await.unwrap(), Some(Bytes::from_static(b"one")));
        assert!(store.read("w", 0).await.unwrap().warnings.is_empty());
    }

    #[test]
    fn bad_files_and_their_answers() {
        let good = [&encode_header(b"abc")[..], b"abc"].concat();
        assert_eq!(decode(&good.clone().into()), Ok(Bytes::from_static(b"abc")));
        let with = |at: usize, value: u8| {
            let mut bad = good.clone();
            bad[at] = value;
            bad
        };
        for (bad, answer) in [
            (vec![], "it is shorter than its header"),
            (good[..23].to_vec(), "it is shorter than its header"),
            (with(0, b'X'), "it does not begin with NSSNAP"),
            (with(6, 9), "it was written by another version"),
            (with(8, 9), "its length or checksum is wrong"),
            (with(16, good[16] ^ 1), "its length or checksum is wrong"),
            (with(20, good[20] ^ 1), "its length or checksum is wrong"),
            (with(26, b'X'), "its length or checksum is wrong"),
            (good[..26].to_vec(), "its length or checksum is wrong"),
            ([&good[..], b"d"].concat(), "its length or checksum is wrong"),
        ] {
            assert_eq!(decode(&bad.into()), Err(answer));
        }
    }

    #[test]
    fn the_fuzz_corpus_is_current_and_taken_without_a_panic() {
        let whole = [&encode_header(b"state")[..], b"state"].concat();
        let torn = whole[..whole.len() - 1].to_vec();
        crate::seeds::replay("bus_snapshot", &[("whole", whole), ("torn", torn)], fuzz_bus_snapshot);
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
            fuzz_bus_snapshot(&bytes);
        }
    }
}
