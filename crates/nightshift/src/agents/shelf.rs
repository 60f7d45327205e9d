//! The playbooks and policies in use: replaced as a whole while the service runs, looked at by whoever decides.

use nightshift_guard::Policies;
use nightshift_plan::Playbooks;
use parking_lot::RwLock;
use std::sync::Arc;

/// A whole set, sound by itself.
#[derive(Clone)]
pub struct Library {
    /// Playbooks.
    pub playbooks: Playbooks,
    /// Policies, compiled.
    pub policies: Policies,
    /// SHA-256 over the names and texts of the user's own files, hex; empty when nothing was read from files.
    pub digest: String,
}

/// Where the newest set lies.
pub struct Shelf(RwLock<(u64, Arc<Library>)>);

impl Shelf {
    /// A shelf that holds this set as its revision 0.
    pub fn new(library: Library) -> Self {
        Self(RwLock::new((0, Arc::new(library))))
    }

    /// Puts another set in its place. Whoever decides takes it up at its next turn.
    pub fn put(&self, library: Library) {
        let mut held = self.0.write();
        *held = (held.0 + 1, Arc::new(library));
    }

    /// The set in use.
    pub fn library(&self) -> Arc<Library> {
        self.0.read().1.clone()
    }

    /// The newest set and its revision, when that is not `known`.
    pub fn newer(&self, known: u64) -> Option<(u64, Arc<Library>)> {
        let held = self.0.read();
        (held.0 != known).then(|| (held.0, held.1.clone()))
    }
}
