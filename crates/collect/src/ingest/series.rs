//! The series cache: what a series' label bytes were resolved to the last time.
//!
//! A hit costs a hash of the bytes and one look-up; parsing, resolution and fingerprint are for misses. An entry takes
//! 24 bytes and the table about as much again, so that a million series stay below 64 MiB.

use hashbrown::HashTable;
use nightshift_model::batch::SeriesKind;
use parking_lot::Mutex;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering};
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Independent parts, each with its lock: two connections seldom meet in one.
const PARTS: usize = 64;

/// What is known of a series.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Known {
    /// Its fingerprint on the bus.
    pub(crate) fingerprint: u64,
    /// Index of its entity in the entity table.
    pub(crate) entity: u32,
    /// Shard of its entity.
    pub(crate) shard: u8,
    /// What its values mean.
    pub(crate) kind: SeriesKind,
    /// The bytes are the wire form of a batch as they are.
    pub(crate) canonical: bool,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    hash: u64,
    fingerprint: u64,
    entity: u32,
    shard: u8,
    kind: u8,
    canonical: bool,
    /// Round of [`SeriesCache::age`] in which it was last seen.
    seen: u8,
}

/// See the module's text.
#[derive(Debug)]
pub(crate) struct SeriesCache {
    parts: Vec<Mutex<HashTable<Entry>>>,
    /// Secret of this process: a client cannot choose labels that meet in one slot.
    seed: u64,
    most: usize,
    len: AtomicUsize,
    round: AtomicU8,
    misses: AtomicU64,
}

impl SeriesCache {
    /// An empty cache of at most `most` series.
    pub(crate) fn new(most: usize) -> Self {
        Self {
            parts: (0..PARTS).map(|_| Mutex::default()).collect(),
            seed: RandomState::new().hash_one("series"),
            most,
            len: AtomicUsize::new(0),
            round: AtomicU8::new(0),
            misses: AtomicU64::new(0),
        }
    }

    /// The key of these label bytes from an origin (see [`crate::resolve::Origin::seed`]).
    #[inline]
    pub(crate) fn key(&self, labels: &[u8], origin: u64) -> u64 {
        xxh3_64_with_seed(labels, self.seed ^ origin)
    }

    fn part(&self, key: u64) -> &Mutex<HashTable<Entry>> {
        // The table uses the top and the low bits; these are from between.
        &self.parts[(key >> 40) as usize % PARTS]
    }

    /// What is known of the series with this key.
    #[inline]
    pub(crate) fn get(&self, key: u64) -> Option<Known> {
        let mut part = self.part(key).lock();
        let Some(entry) = part.find_mut(key, |e| e.hash == key) else {
            drop(part);
            self.misses.fetch_add(1, Ordering::Relaxed);
            return None;
        };
        entry.seen = self.round.load(Ordering::Relaxed);
        Some(Known {
            fingerprint: entry.fingerprint,
            entity: entry.entity,
            shard: entry.shard,
            kind: SeriesKind::from_u8(entry.kind),
            canonical: entry.canonical,
        })
    }

    /// Remembers a series. A full cache forgets nothing and takes nothing: the series stays on the slow path.
    pub(crate) fn put(&self, key: u64, known: Known) {
        if self.len.load(Ordering::Relaxed) >= self.most {
            return;
        }
        let entry = Entry {
            hash: key,
            fingerprint: known.fingerprint,
            entity: known.entity,
            shard: known.shard,
            kind: known.kind as u8,
            canonical: known.canonical,
            seen: self.round.load(Ordering::Relaxed),
        };
        let mut part = self.part(key).lock();
        match part.find_mut(key, |e| e.hash == key) {
            Some(old) => *old = entry,
            None => {
                part.insert_unique(key, entry, |e| e.hash);
                self.len.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// Begins a new round and forgets what was not seen in the two before.
    pub(crate) fn age(&self) {
        let round = self.round.fetch_add(1, Ordering::Relaxed).wrapping_add(1);
        for part in &self.parts {
            let mut part = part.lock();
            let before = part.len();
            part.retain(|e| round.wrapping_sub(e.seen) <= 2);
            self.len.fetch_sub(before - part.len(), Ordering::Relaxed);
            if part.len() < part.capacity() / 4 {
                part.shrink_to_fit(|e| e.hash);
            }
        }
    }

    /// Forgets everything: resolution changed.
    pub(crate) fn clear(&self) {
        for part in &self.parts {
            let mut part = part.lock();
            self.len.fetch_sub(part.len(), Ordering::Relaxed);
            part.clear();
        }
    }

    /// Series in it.
    pub(crate) fn len(&self) -> usize {
        self.len.load(Ordering::Relaxed)
    }

    /// Look-ups that found nothing, since the start.
    pub(crate) fn misses(&self) -> u64 {
        self.misses.load(Ordering::Relaxed)
    }

    /// Bytes that it takes: entries and control bytes of the tables.
    pub(crate) fn bytes(&self) -> usize {
        self.parts.iter().map(|p| p.lock().allocation_size()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(n: u64) -> Known {
        Known { fingerprint: n, entity: n as u32, shard: 3, kind: SeriesKind::Counter, canonical: true }
    }

    #[test]
    fn remembers_forgets_the_idle_and_stays_bounded() {
        let cache = SeriesCache::new(100);
        let keys: Vec<_> = (0..200u64).map(|i| cache.key(&i.to_le_bytes(), 0)).collect();
        for (i, key) in keys.iter().enumerate() {
            cache.put(*key, known(i as u64));
        }
        assert_eq!(cache.len(), 100);
        assert_eq!((cache.get(keys[7]), cache.get(keys[150])), (Some(known(7)), None));
        assert_ne!(cache.key(b"a", 0), cache.key(b"a", 1), "another origin is another series");
        for _ in 0..3 {
            cache.age();
            cache.get(keys[7]);
        }
        assert_eq!(cache.len(), 1, "only the one that was seen stays");
        cache.put(keys[7], known(8));
        assert_eq!((cache.len(), cache.get(keys[7])), (1, Some(known(8))));
        cache.clear();
        assert_eq!((cache.len(), cache.get(keys[7])), (0, None));
    }

    #[test]
    fn a_million_series_take_at_most_64_bytes_each() {
        let cache = SeriesCache::new(2_000_000);
        for i in 0..1_000_000u64 {
            cache.put(cache.key(&i.to_le_bytes(), 0), known(i));
        }
        let per_series = cache.bytes() as f64 / 1e6;
        assert!(per_series <= 64.0, "{per_series} bytes");
    }
}
