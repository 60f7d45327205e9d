//! Entities by index, and what is to be told to topology.

use crate::resolve::Resolved;
use nightshift_model::hash::{hash64, shard_of};
use nightshift_model::{EdgeKind, EntityId, EntityMeta, Observation, Timestamp};
use parking_lot::{Mutex, RwLock};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// Observations that wait for the bus; further ones wait for the next restart, and are counted.
const PENDING_MAX: usize = 50_000;

/// Index of an entity with its context, and its shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Interned {
    pub(crate) index: u32,
    pub(crate) shard: u8,
}

#[derive(Debug, Default)]
struct Table {
    metas: Vec<Arc<EntityMeta>>,
    index: HashMap<Arc<EntityMeta>, Interned>,
}

/// Every entity (with each context that it was seen in) has a small number here.
#[derive(Debug)]
pub(crate) struct Entities {
    tenant: String,
    most: usize,
    table: RwLock<Table>,
    edges: Mutex<HashSet<u64>>,
    pending: Mutex<Vec<Observation>>,
}

impl Entities {
    pub(crate) fn new(tenant: &str, most: usize) -> Self {
        Self {
            tenant: tenant.to_owned(),
            most,
            table: RwLock::default(),
            edges: Mutex::default(),
            pending: Mutex::default(),
        }
    }

    /// The number of what was resolved; `None` when it is new and the table full. What is new is told to topology.
    pub(crate) fn intern(&self, found: &Resolved, at: Timestamp) -> Option<Interned> {
        let meta = &found.meta;
        if let Some(host) = &found.runs_on {
            self.runs_on(&meta.id, host, at);
        }
        if let Some(known) = self.table.read().index.get(meta) {
            return Some(*known);
        }
        let mut table = self.table.write();
        if let Some(known) = table.index.get(meta) {
            return Some(*known);
        }
        if table.metas.len() >= self.most {
            return None;
        }
        let shard = shard_of(&self.tenant, &meta.id.cluster(), meta.id.as_str()) as u8;
        let interned = Interned { index: table.metas.len() as u32, shard };
        let meta = Arc::new(meta.clone());
        table.metas.push(meta.clone());
        table.index.insert(meta.clone(), interned);
        drop(table);
        self.tell([Observation::Entity { entity: (*meta).clone(), at }]);
        Some(interned)
    }

    /// The entity with this number.
    pub(crate) fn meta(&self, index: u32) -> Option<Arc<EntityMeta>> {
        self.table.read().metas.get(index as usize).cloned()
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.table.read().metas.len()
    }

    fn runs_on(&self, from: &EntityId, to: &EntityId, at: Timestamp) {
        let key = hash64(format!("{from} {to}").as_bytes());
        let mut edges = self.edges.lock();
        if edges.len() < self.most && edges.insert(key) {
            drop(edges);
            let (from, to) = (from.clone(), to.clone());
            self.tell([Observation::Edge { from, to, kind: EdgeKind::RunsOn, count: 1, at }]);
        }
    }

    /// Leaves something to be told to topology with the next publish.
    pub(crate) fn tell(&self, observations: impl IntoIterator<Item = Observation>) {
        let mut pending = self.pending.lock();
        let room = PENDING_MAX.saturating_sub(pending.len());
        pending.extend(observations.into_iter().take(room));
    }

    /// Takes what waits to be told.
    pub(crate) fn take_pending(&self) -> Vec<Observation> {
        let mut pending = self.pending.lock();
        if pending.is_empty() { Vec::new() } else { std::mem::take(&mut *pending) }
    }
}
