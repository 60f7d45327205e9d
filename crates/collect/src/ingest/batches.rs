//! Batches by shard, while they are filled.

use super::entities::Entities;
use super::series::Known;
use bytes::Bytes;
use nightshift_model::batch::BatchBuilder;
use nightshift_model::{SHARDS, Timestamp};

/// A batch is sent when it has this many bytes. Design §4.
const BATCH_BYTES: usize = 512 << 10;

/// Room that one item may still take after the check, so that a batch stays within [`BATCH_BYTES`] unless a single
/// item is larger than this.
const MARGIN: usize = 72 << 10;

/// Builders larger than this are not kept for the next request.
const KEEP_BYTES: usize = 128 << 10;

#[derive(Debug, Default)]
struct Slot {
    builder: BatchBuilder,
    /// Grows with every batch: an entity's place in an older batch means nothing in this one.
    stamp: u64,
}

/// A batch that is full, or whose request has ended.
#[derive(Debug)]
pub(crate) struct Filled {
    pub(crate) shard: u32,
    pub(crate) newest: Timestamp,
    pub(crate) payload: Bytes,
}

/// One batch per shard. Reusable.
#[derive(Debug)]
pub(crate) struct Batches {
    slots: Vec<Slot>,
    stamp: u64,
    /// By entity number: the batch in which it has a place, and that place.
    places: Vec<(u64, u32)>,
    filled: Vec<Filled>,
}

impl Default for Batches {
    fn default() -> Self {
        let slots = (0..SHARDS).map(|i| Slot { stamp: u64::from(i) + 1, ..Slot::default() }).collect();
        Self { slots, stamp: u64::from(SHARDS), places: Vec::new(), filled: Vec::new() }
    }
}

impl Batches {
    /// The batch of a shard, with the place of the entity in it. An entity that is not in the table has none.
    #[inline]
    pub(crate) fn of(&mut self, shard: u8, entity: u32, entities: &Entities) -> Option<(&mut BatchBuilder, u32)> {
        let slot = self.slots.get_mut(usize::from(shard))?;
        let index = entity as usize;
        if self.places.len() <= index {
            self.places.resize(index + 1, (0, 0));
        }
        let place = &mut self.places[index];
        if place.0 != slot.stamp {
            *place = (slot.stamp, slot.builder.entity(&*entities.meta(entity)?));
        }
        Some((&mut slot.builder, place.1))
    }

    /// Begins a series in the batch of its shard.
    #[inline]
    pub(crate) fn series(&mut self, known: &Known, labels: &[u8], entities: &Entities) -> Option<&mut BatchBuilder> {
        let (builder, place) = self.of(known.shard, known.entity, entities)?;
        builder.series(known.fingerprint, place, known.kind, labels);
        Some(builder)
    }

    /// Call after each item: closes the shard's batch when it is full.
    #[inline]
    pub(crate) fn close_if_full(&mut self, shard: u8, source: &str) {
        let full = |s: &Slot| s.builder.estimated_bytes() >= BATCH_BYTES - MARGIN;
        if self.slots.get(usize::from(shard)).is_some_and(full) {
            self.close(usize::from(shard), source);
        }
    }

    fn close(&mut self, shard: usize, source: &str) {
        self.stamp += 1;
        let slot = &mut self.slots[shard];
        slot.stamp = self.stamp;
        let newest = slot.builder.newest();
        if slot.builder.is_empty() {
            slot.builder.clear();
            return;
        }
        let payload = slot.builder.finish(source);
        if payload.len() > KEEP_BYTES {
            slot.builder = BatchBuilder::default();
        }
        self.filled.push(Filled { shard: shard as u32, newest: newest.unwrap_or_default(), payload });
    }

    /// Closes all and takes them.
    pub(crate) fn finish(&mut self, source: &str) -> Vec<Filled> {
        for shard in 0..self.slots.len() {
            if !self.slots[shard].builder.is_empty() || self.slots[shard].builder.n_entities() > 0 {
                self.close(shard, source);
            }
        }
        std::mem::take(&mut self.filled)
    }

    /// Forgets what was not finished: the request was refused.
    pub(crate) fn clear(&mut self) {
        self.filled.clear();
        for slot in &mut self.slots {
            if !slot.builder.is_empty() || slot.builder.n_entities() > 0 {
                self.stamp += 1;
                slot.stamp = self.stamp;
                slot.builder.clear();
            }
        }
    }
}
