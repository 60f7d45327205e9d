//! Where each chain ended, noted outside the database: who cuts the tail off a chain must also forge this file.
//!
//! One small text file per tenant. It is written after the commit it tells of, whole or not at all, so it may be
//! behind the database and is never ahead of it.

use crate::{ChainHead, StoreError};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

/// Longest head file.
pub const HEAD_FILE_BYTES_MAX: u64 = 256;

/// First word of the file, with the version of its form.
const MAGIC: &str = "nightshift-chain-head-1";

/// What stays as it is in a file name.
const FILE_NAME: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_');

/// What is known of a head file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HeadState {
    /// There was none, or the chain holds what it says: it may be moved on.
    Trusted,
    /// It contradicts the chain: evidence.
    Diverged,
}

/// The head files of a data folder.
#[derive(Debug, Clone)]
pub struct HeadFiles {
    folder: PathBuf,
}

impl HeadFiles {
    /// Those in the folder `heads` of a data folder; it is made when the first is written.
    pub fn in_data_dir(data_dir: &Path) -> Self {
        Self { folder: data_dir.join("heads") }
    }

    /// The file of a tenant.
    pub fn path(&self, tenant: &str) -> PathBuf {
        self.folder.join(format!("{}.head", utf8_percent_encode(tenant, FILE_NAME)))
    }

    /// Tenants of which something is noted, sorted.
    ///
    /// # Errors
    /// `Database` when the folder cannot be listed (one that is not there holds none).
    pub fn tenants(&self) -> Result<Vec<String>, StoreError> {
        let entries = match std::fs::read_dir(&self.folder) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other.map_err(|e| io("list", &self.folder, e))?,
        };
        let mut tenants = Vec::new();
        for entry in entries {
            let name = entry.map_err(|e| io("list", &self.folder, e))?.file_name();
            let stem = name.to_str().and_then(|n| n.strip_suffix(".head"));
            tenants.extend(stem.and_then(|s| Some(percent_decode_str(s).decode_utf8().ok()?.into_owned())));
        }
        tenants.sort_unstable();
        Ok(tenants)
    }

    /// What is noted of a tenant's chain; `None` when nothing is.
    ///
    /// # Errors
    /// `Corrupt` when the file is not a head, `Database` when it cannot be read.
    pub fn read(&self, tenant: &str) -> Result<Option<ChainHead>, StoreError> {
        let path = self.path(tenant);
        let file = match std::fs::File::open(&path) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            other => other.map_err(|e| io("open", &path, e))?,
        };
        let mut bytes = Vec::new();
        file.take(HEAD_FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(|e| io("read", &path, e))?;
        let head = parse_head(&bytes).map_err(|why| StoreError::Corrupt(format!("`{}` {why}", path.display())))?;
        Ok(Some(head))
    }

    /// Notes where a tenant's chain ends. The file is flushed and renamed into its place.
    pub(crate) fn write(&self, tenant: &str, head: ChainHead) -> Result<(), StoreError> {
        let path = self.path(tenant);
        let new = path.with_extension("head.new");
        std::fs::create_dir_all(&self.folder).map_err(|e| io("make the folder of", &path, e))?;
        let written = std::fs::File::create(&new).and_then(|mut file| {
            writeln!(file, "{MAGIC} {} {}", head.count, to_hex(&head.hash))?;
            file.sync_all()
        });
        written.map_err(|e| io("write", &new, e))?;
        std::fs::rename(&new, &path).map_err(|e| io("replace", &path, e))?;
        // So that the new name survives a loss of power too.
        std::fs::File::open(&self.folder).and_then(|f| f.sync_all()).map_err(|e| io("flush the folder of", &path, e))
    }
}

/// Reads a head file.
///
/// # Errors
/// What is wrong with it.
pub fn parse_head(bytes: &[u8]) -> Result<ChainHead, String> {
    if bytes.len() as u64 > HEAD_FILE_BYTES_MAX {
        return Err(format!("has more than {HEAD_FILE_BYTES_MAX} bytes"));
    }
    let text = std::str::from_utf8(bytes).map_err(|_| "is not text")?;
    let line = text.strip_suffix('\n').ok_or("ends early")?;
    let words = line.split(' ').collect::<Vec<_>>();
    let [magic, count, hash] = words[..] else { return Err("is not three words".into()) };
    if magic != MAGIC {
        return Err(format!("begins with {magic:?}, not `{MAGIC}`"));
    }
    let digits = !count.is_empty() && count.bytes().all(|b| b.is_ascii_digit());
    let count = digits.then(|| count.parse().ok()).flatten().ok_or_else(|| format!("has the count {count:?}"))?;
    let hash = from_hex(hash).ok_or("has a hash that is not 64 hexadecimal digits")?;
    Ok(ChainHead { count, hash })
}

/// Lower-case hexadecimal digits.
pub(crate) fn to_hex(bytes: &[u8; 32]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// Reads what [`to_hex`] wrote.
pub(crate) fn from_hex(text: &str) -> Option<[u8; 32]> {
    let digit = |b: u8| match b {
        b'0'..=b'9' => Some(b - b'0'),
        b'a'..=b'f' => Some(b - b'a' + 10),
        _ => None,
    };
    let digits = text.as_bytes();
    let mut out = [0; 32];
    if digits.len() != 64 {
        return None;
    }
    for (byte, pair) in out.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(out)
}

fn io(what: &str, path: &Path, source: std::io::Error) -> StoreError {
    StoreError::Database { what: format!("{what} `{}`", path.display()), source: Box::new(source) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: ChainHead = ChainHead { count: 42, hash: [0xab; 32] };

    #[test]
    fn a_head_is_read_as_written_and_tenants_do_not_share_files() {
        let dir = tempfile::tempdir().unwrap();
        let files = HeadFiles::in_data_dir(dir.path());
        assert_eq!(files.read("a/b").unwrap(), None);
        files.write("a/b", HEAD).unwrap();
        assert_eq!(files.read("a/b").unwrap(), Some(HEAD));
        for other in ["a", "a%2Fb", "../heads/a%2Fb", "A/b"] {
            assert_eq!(files.read(other).unwrap(), None, "{other}");
        }
        files.write("ä", HEAD).unwrap();
        assert_eq!(files.tenants().unwrap(), ["a/b", "ä"]);
        assert_eq!(HeadFiles::in_data_dir(Path::new("/nonexistent")).tenants().unwrap(), [""; 0]);
    }

    #[test]
    fn bad_head_files_are_refused_with_the_reason() {
        let hash = to_hex(&HEAD.hash);
        let table = [
            (String::new(), "ends early"),
            ("\n".into(), "three words"),
            (format!("{MAGIC} 42 {hash}"), "ends early"),
            (format!("{MAGIC} 42 {hash} more\n"), "three words"),
            (format!("nightshift-chain-head-9 42 {hash}\n"), "begins with"),
            (format!("{MAGIC} -1 {hash}\n"), "count"),
            (format!("{MAGIC} +1 {hash}\n"), "count"),
            (format!("{MAGIC} 99999999999999999999 {hash}\n"), "count"),
            (format!("{MAGIC} 42 {}\n", hash.to_uppercase()), "hexadecimal"),
            (format!("{MAGIC} 42 {}\n", &hash[1..]), "hexadecimal"),
            ("x".repeat(300), "more than 256"),
        ];
        for (text, why) in table {
            let error = parse_head(text.as_bytes()).unwrap_err();
            assert!(error.contains(why), "{text:?}: {error}");
        }
        assert!(parse_head(&[0xff, b'\n']).unwrap_err().contains("not text"));
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..300)) {
            let _ = parse_head(&bytes);
        }
    }
}
