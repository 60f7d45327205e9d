//! The dedup window: what a source brought lately.

use parking_lot::Mutex;
use std::collections::{HashMap, VecDeque};

/// Sources that have a window of their own; names are configured, so that this is never reached in earnest.
const SOURCES_MAX: usize = 1_000;

/// Keys of one source, the oldest leaves when it is full.
#[derive(Debug, Default)]
struct Window {
    keys: HashMap<u128, u64>,
    order: VecDeque<u128>,
}

/// Recognises what comes again, per source.
#[derive(Debug)]
pub(crate) struct Dedup {
    sources: Mutex<HashMap<String, Window>>,
    most: usize,
}

impl Dedup {
    pub(crate) fn new(most: usize) -> Self {
        Self { sources: Mutex::default(), most }
    }

    /// The number that was remembered with this key.
    pub(crate) fn seen(&self, source: &str, key: u128) -> Option<u64> {
        self.sources.lock().get(source)?.keys.get(&key).copied()
    }

    /// For each key, whether it was remembered.
    pub(crate) fn seen_all(&self, source: &str, keys: &[u128]) -> Vec<bool> {
        let sources = self.sources.lock();
        let window = sources.get(source);
        keys.iter().map(|k| window.is_some_and(|w| w.keys.contains_key(k))).collect()
    }

    /// Remembers keys, each with a number.
    pub(crate) fn remember(&self, source: &str, keys: impl IntoIterator<Item = (u128, u64)>) {
        let mut sources = self.sources.lock();
        if !sources.contains_key(source) {
            if sources.len() >= SOURCES_MAX {
                return;
            }
            sources.insert(source.to_owned(), Window::default());
        }
        let Some(window) = sources.get_mut(source) else { return };
        for (key, n) in keys {
            if window.keys.insert(key, n).is_none() {
                window.order.push_back(key);
            }
            if window.order.len() > self.most
                && let Some(oldest) = window.order.pop_front()
            {
                window.keys.remove(&oldest);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_are_per_source_and_bounded() {
        let dedup = Dedup::new(2);
        dedup.remember("a", [(1, 10), (2, 20), (2, 20)]);
        assert_eq!((dedup.seen("a", 1), dedup.seen("a", 2), dedup.seen("b", 1)), (Some(10), Some(20), None));
        dedup.remember("a", [(3, 30)]);
        assert_eq!(dedup.seen_all("a", &[1, 2, 3]), [false, true, true]);
    }
}
