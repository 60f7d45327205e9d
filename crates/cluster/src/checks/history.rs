//! What objects were before: bounded records that a watcher keeps, for the checks that one look cannot make.

use crate::ObjectRef;
use nightshift_model::Timestamp;
use std::collections::{BTreeMap, VecDeque};

/// Records kept of one object at most.
const RECORDS_MAX: usize = 64;
/// Objects with records at most.
const OBJECTS_MAX: usize = 50_000;

/// Something that an object was or did at a time.
#[derive(Debug, Clone, PartialEq)]
pub enum Record {
    /// Restarts of all containers of a pod, in total.
    Restarts(i64),
    /// Replicas that an autoscaler wants.
    Replicas(i64),
    /// Labels or selector changed, with both in words.
    Labels {
        /// Before.
        from: String,
        /// After.
        to: String,
    },
    /// Its specification or data changed: one line, and who did it.
    Changed {
        /// What changed: `image web:1 -> web:2`.
        what: String,
        /// Field manager.
        who: String,
    },
    /// The leader of a lease changed.
    Leader(String),
    /// It was deleted.
    Deleted,
}

/// Records by object, oldest first.
#[derive(Debug, Clone, Default)]
pub struct History {
    records: BTreeMap<ObjectRef, VecDeque<(Timestamp, Record)>>,
}

impl History {
    /// Adds a record. Of a full object the oldest goes; past the limit of objects new ones are not kept.
    pub fn add(&mut self, object: ObjectRef, at: Timestamp, record: Record) {
        if self.records.len() >= OBJECTS_MAX && !self.records.contains_key(&object) {
            return;
        }
        let records = self.records.entry(object).or_default();
        if records.len() >= RECORDS_MAX {
            records.pop_front();
        }
        records.push_back((at, record));
    }

    /// The records of an object, oldest first.
    pub fn of(&self, object: &ObjectRef) -> impl DoubleEndedIterator<Item = (Timestamp, &Record)> {
        self.records.get(object).into_iter().flatten().map(|(at, r)| (*at, r))
    }

    /// All objects with records.
    pub fn objects(&self) -> impl Iterator<Item = &ObjectRef> {
        self.records.keys()
    }

    /// Forgets what is older than this.
    pub fn forget_before(&mut self, at: Timestamp) {
        self.records.retain(|_, records| {
            records.retain(|(when, _)| *when >= at);
            !records.is_empty()
        });
    }
}
