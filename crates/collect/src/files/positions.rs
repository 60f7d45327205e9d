//! Where each file was read to, kept across restarts.
//!
//! Lives here: the state file. Never here: when it may be written (after the sink took the lines: `files`).

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Which file, whatever its name is now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(crate) struct FileId {
    pub device: u64,
    pub inode: u64,
}

/// The first bytes of a file, hashed: an inode that was given to another file, and a file that was emptied and has
/// grown past where we were, are told by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Head {
    pub len: u32,
    pub hash: u64,
}

/// Most bytes that a [`Head`] covers.
pub(crate) const HEAD_BYTES_MAX: usize = 256;

impl Head {
    pub(crate) fn of(bytes: &[u8]) -> Self {
        let bytes = &bytes[..bytes.len().min(HEAD_BYTES_MAX)];
        Self { len: bytes.len() as u32, hash: nightshift_model::hash::hash64(bytes) }
    }

    /// Whether a file that begins with `bytes` (at least as many as this covers, if it has them) may be the same.
    pub(crate) fn matches(self, bytes: &[u8]) -> bool {
        bytes.get(..self.len as usize).is_some_and(|b| Self::of(b) == self)
    }
}

/// Where one file was read to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Position {
    pub id: FileId,
    pub path: PathBuf,
    pub head: Head,
    /// Bytes from the start that the sink has taken.
    pub offset: u64,
}

#[derive(Serialize, Deserialize)]
struct StateFile {
    version: u32,
    files: Vec<Position>,
}

/// Reads the state file; a missing one is empty.
///
/// # Errors
/// It cannot be read or is damaged: going on would repeat or lose lines, so a person must decide.
pub(crate) fn load(path: &Path) -> Result<BTreeMap<FileId, Position>, String> {
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
        Err(e) => return Err(format!("read positions `{}`: {e}", path.display())),
    };
    let state: StateFile = serde_json::from_slice(&bytes)
        .map_err(|e| format!("read positions `{}`: {e}; remove the file to begin anew", path.display()))?;
    if state.version != 1 {
        return Err(format!("positions `{}` have version {}, this program knows 1", path.display(), state.version));
    }
    Ok(state.files.into_iter().map(|p| (p.id, p)).collect())
}

/// Writes the state file, whole or not at all.
pub(crate) fn save<'a>(path: &Path, positions: impl Iterator<Item = &'a Position>) -> std::io::Result<()> {
    let state = StateFile { version: 1, files: positions.cloned().collect() };
    let bytes = serde_json::to_vec(&state).map_err(std::io::Error::other)?;
    crate::supervise::write_atomically(path, &bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_survive_and_damage_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state/p.json");
        assert!(load(&path).unwrap().is_empty());
        let position = Position {
            id: FileId { device: 1, inode: 2 },
            path: "/var/log/a".into(),
            head: Head::of(b"abc"),
            offset: 77,
        };
        save(&path, [&position].into_iter()).unwrap();
        assert_eq!(load(&path).unwrap().into_values().collect::<Vec<_>>(), [position]);
        for (bytes, word) in [("{", "remove the file"), (r#"{"version":9,"files":[]}"#, "version 9")] {
            std::fs::write(&path, bytes).unwrap();
            assert!(load(&path).unwrap_err().contains(word));
        }
    }

    #[test]
    fn a_head_covers_what_there_was() {
        let head = Head::of(b"abc");
        assert!(head.matches(b"abcdef"));
        assert!(!head.matches(b"abX"));
        assert!(!head.matches(b"ab"), "shorter than it was: another file");
        assert!(Head::of(b"").matches(b"abc"), "of an empty file nothing is known");
    }
}
