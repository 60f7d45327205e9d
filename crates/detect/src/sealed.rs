//! Snapshots as bytes: four letters that name the kind, a version, a checksum, JSON.

use serde::{Serialize, de::DeserializeOwned};

/// Largest snapshot that is read, bytes.
pub const SEALED_BYTES_MAX: usize = 1 << 30;

const HEADER: usize = 4 + 2 + 8;

/// Why bytes are no snapshot.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// Shorter than its header, or longer than [`SEALED_BYTES_MAX`].
    #[error("snapshot of {0} bytes is cut or too large")]
    Length(usize),
    /// Of another kind.
    #[error("bytes are a snapshot of another kind")]
    Kind,
    /// Made by another version.
    #[error("snapshot has version {found}, this program reads {known}")]
    Version {
        /// Its version.
        found: u16,
        /// Ours.
        known: u16,
    },
    /// Damaged.
    #[error("checksum of the snapshot does not match: it is damaged")]
    Checksum,
    /// The content does not fit the type.
    #[error("snapshot cannot be read: {0}")]
    Content(String),
}

/// The bytes of `state`. The state must be made of what JSON can hold.
pub(crate) fn seal(kind: [u8; 4], version: u16, state: &impl Serialize) -> Vec<u8> {
    let mut out = Vec::new();
    out.extend_from_slice(&kind);
    out.extend_from_slice(&version.to_be_bytes());
    out.extend_from_slice(&[0; 8]);
    serde_json::to_writer(&mut out, state).expect("a Vec takes every byte, and states have string keys only");
    let sum = xxhash_rust::xxh3::xxh3_64(&out[HEADER..]);
    out[6..HEADER].copy_from_slice(&sum.to_be_bytes());
    out
}

/// The state that [`seal`] wrote.
pub(crate) fn open<T: DeserializeOwned>(kind: [u8; 4], version: u16, bytes: &[u8]) -> Result<T, SealError> {
    if bytes.len() < HEADER || bytes.len() > SEALED_BYTES_MAX {
        return Err(SealError::Length(bytes.len()));
    }
    let (head, content) = bytes.split_at(HEADER);
    if head[..4] != kind {
        return Err(SealError::Kind);
    }
    let found = u16::from_be_bytes([head[4], head[5]]);
    if found != version {
        return Err(SealError::Version { found, known: version });
    }
    if head[6..] != xxhash_rust::xxh3::xxh3_64(content).to_be_bytes() {
        return Err(SealError::Checksum);
    }
    serde_json::from_slice(content).map_err(|e| SealError::Content(e.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damaged_snapshots_are_refused_each_with_its_reason() {
        let good = seal(*b"TEST", 3, &vec![1, 2, 3]);
        assert_eq!(open::<Vec<u32>>(*b"TEST", 3, &good), Ok(vec![1, 2, 3]));
        let mut flipped = good.clone();
        *flipped.last_mut().unwrap() ^= 1;
        let cases: [(&[u8; 4], u16, &[u8], SealError); 5] = [
            (b"TEST", 3, b"short", SealError::Length(5)),
            (b"ELSE", 3, &good, SealError::Kind),
            (b"TEST", 4, &good, SealError::Version { found: 3, known: 4 }),
            (b"TEST", 3, &flipped, SealError::Checksum),
            (b"TEST", 3, &good[..good.len() - 1], SealError::Checksum),
        ];
        for (kind, version, bytes, want) in cases {
            assert_eq!(open::<Vec<u32>>(*kind, version, bytes), Err(want));
        }
        assert!(matches!(open::<String>(*b"TEST", 3, &good), Err(SealError::Content(_))));
    }
}
