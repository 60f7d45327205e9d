//! How far dead letters were fed again: a small file in the data folder, so that none is fed twice.

use anyhow::{Context as _, Result};
use std::collections::BTreeMap;
use std::path::Path;

/// Name of the file.
const FILE: &str = "redrive.json";

/// Offset of the next dead letter of each partition.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct Known {
    next: BTreeMap<u32, u64>,
}

impl Known {
    /// Reads the file; none is an empty one.
    ///
    /// # Errors
    /// When it cannot be read or is damaged.
    pub(crate) fn load(data: &Path) -> Result<Self> {
        let path = data.join(FILE);
        match std::fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .with_context(|| format!("read {} (remove it to feed every dead letter again)", path.display())),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(Self::default()),
            Err(e) => Err(e).with_context(|| format!("read {}", path.display())),
        }
    }

    /// Writes the file, all or nothing.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(crate) fn save(&self, data: &Path) -> Result<()> {
        crate::files::replace(&data.join(FILE), &serde_json::to_vec(self)?)
    }

    /// Offset of the next dead letter of a partition.
    pub(crate) fn next(&self, partition: u32) -> u64 {
        self.next.get(&partition).copied().unwrap_or(0)
    }

    /// Moves on.
    pub(crate) fn set(&mut self, partition: u32, next: u64) {
        self.next.insert(partition, next);
    }
}
