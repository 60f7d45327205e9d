//! A log file, with faults that tests can inject where a disk would fail.

use super::format::ReadAt;
use std::fs::File;
use std::io::{self, IoSlice, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Faults of the disk, for tests: each is off until set.
#[derive(Debug)]
pub struct DiskFaults {
    /// Bytes that can still be written before the disk is full.
    room: AtomicU64,
    sync_fails: AtomicBool,
    cut_fails: AtomicBool,
    syncs: AtomicU64,
}

impl Default for DiskFaults {
    fn default() -> Self {
        Self {
            room: AtomicU64::new(u64::MAX),
            sync_fails: AtomicBool::new(false),
            cut_fails: AtomicBool::new(false),
            syncs: AtomicU64::new(0),
        }
    }
}

impl DiskFaults {
    /// The disk takes `bytes` more, then is full: the write that meets the end is cut short. `u64::MAX`: never full.
    pub fn set_room(&self, bytes: u64) {
        self.room.store(bytes, Ordering::SeqCst);
    }

    /// Whether syncs fail.
    pub fn set_sync_fails(&self, fails: bool) {
        self.sync_fails.store(fails, Ordering::SeqCst);
    }

    /// Whether cutting a file fails.
    pub fn set_cut_fails(&self, fails: bool) {
        self.cut_fails.store(fails, Ordering::SeqCst);
    }

    /// Syncs of record data so far.
    pub fn syncs(&self) -> u64 {
        self.syncs.load(Ordering::SeqCst)
    }
}

/// A file that is appended to and read at any place.
#[derive(Debug)]
pub(crate) struct LogFile {
    file: File,
    faults: Option<Arc<DiskFaults>>,
}

impl LogFile {
    pub(crate) fn open(path: &Path, faults: Option<Arc<DiskFaults>>) -> io::Result<Self> {
        Ok(Self { file: File::options().read(true).append(true).open(path)?, faults })
    }

    /// Opens it for reading alone: appending to it or cutting it fails.
    pub(crate) fn open_to_read(path: &Path) -> io::Result<Self> {
        Ok(Self { file: File::open(path)?, faults: None })
    }

    pub(crate) fn len(&self) -> io::Result<u64> {
        self.file.metadata().map(|m| m.len())
    }

    /// Appends all of `parts`. After an error some of it may be in the file.
    pub(crate) fn append(&self, mut parts: &mut [IoSlice<'_>]) -> io::Result<()> {
        // Linux takes at most 1024 parts a call.
        const MAX_PARTS: usize = 1024;
        if let Some(faults) = &self.faults {
            return self.append_until_full(parts, faults);
        }
        while !parts.is_empty() {
            let now = parts.len().min(MAX_PARTS);
            match (&self.file).write_vectored(&parts[..now]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => IoSlice::advance_slices(&mut parts, n),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    fn append_until_full(&self, parts: &[IoSlice<'_>], faults: &DiskFaults) -> io::Result<()> {
        for part in parts {
            let room = faults.room.load(Ordering::SeqCst);
            let fits = part.len().min(usize::try_from(room).unwrap_or(usize::MAX));
            (&self.file).write_all(&part[..fits])?;
            if room != u64::MAX {
                faults.room.fetch_sub(fits as u64, Ordering::SeqCst);
            }
            if fits < part.len() {
                return Err(io::ErrorKind::StorageFull.into());
            }
        }
        Ok(())
    }

    pub(crate) fn sync(&self) -> io::Result<()> {
        if let Some(faults) = &self.faults {
            faults.syncs.fetch_add(1, Ordering::SeqCst);
            if faults.sync_fails.load(Ordering::SeqCst) {
                return Err(io::Error::other("injected: sync failed"));
            }
        }
        self.file.sync_data()
    }

    /// Cuts the file to `len` and makes that durable.
    pub(crate) fn cut(&self, len: u64) -> io::Result<()> {
        if self.faults.as_ref().is_some_and(|f| f.cut_fails.load(Ordering::SeqCst)) {
            return Err(io::Error::other("injected: cut failed"));
        }
        self.file.set_len(len)?;
        self.file.sync_data()
    }
}

impl ReadAt for LogFile {
    fn read_at(&self, buf: &mut [u8], at: u64) -> io::Result<usize> {
        self.file.read_at(buf, at)
    }
}

/// Makes the names in a folder durable.
pub(crate) fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// Puts a whole file in place: a crash leaves the old one or the new one, never half of either.
pub(crate) fn write_atomic(path: &Path, parts: &[&[u8]]) -> io::Result<()> {
    let dir = path.parent().ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
    let mut tmp = path.as_os_str().to_owned();
    tmp.push(".tmp");
    let written = (|| {
        let mut file = File::create(&tmp)?;
        for part in parts {
            file.write_all(part)?;
        }
        file.sync_all()?;
        std::fs::rename(&tmp, path)
    })();
    if written.is_err() {
        let _ = std::fs::remove_file(&tmp);
    }
    written?;
    sync_dir(dir)
}
