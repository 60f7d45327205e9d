//! Names of series, small: every distinct label is kept once per shard, a series is a list of their numbers.

use hashbrown::HashTable;
use nightshift_model::batch::labels;
use nightshift_model::hash::hash64;

/// Where the labels of a series are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct LabelList {
    start: u32,
    n: u16,
}

/// The labels of a shard's series.
#[derive(Debug, Default)]
pub(crate) struct Names {
    /// Labels in their wire form, one after the other, and where each ends.
    text: Vec<u8>,
    ends: Vec<u32>,
    by_text: HashTable<u32>,
    lists: Vec<u32>,
    scratch: Vec<u8>,
}

impl Names {
    fn piece(&self, id: u32) -> &[u8] {
        let i = id as usize;
        let start = if i == 0 { 0 } else { self.ends[i - 1] as usize };
        &self.text[start..self.ends[i] as usize]
    }

    fn intern(&mut self) -> u32 {
        let hash = hash64(&self.scratch);
        let (text, ends, scratch) = (&self.text, &self.ends, &self.scratch);
        let piece = |id: u32| {
            let i = id as usize;
            let start = if i == 0 { 0 } else { ends[i - 1] as usize };
            &text[start..ends[i] as usize]
        };
        if let Some(id) = self.by_text.find(hash, |id| piece(*id) == scratch.as_slice()) {
            return *id;
        }
        let id = self.ends.len() as u32;
        self.text.extend_from_slice(&self.scratch);
        self.ends.push(self.text.len() as u32);
        let (text, ends) = (&self.text, &self.ends);
        self.by_text.insert_unique(hash, id, |id| {
            let i = *id as usize;
            let start = if i == 0 { 0 } else { ends[i - 1] as usize };
            hash64(&text[start..ends[i] as usize])
        });
        id
    }

    /// Keeps the labels of a series (wire form). What is no label ends the list.
    pub(crate) fn add(&mut self, wire: &[u8]) -> LabelList {
        let start = self.lists.len() as u32;
        for (name, value) in labels::iter(wire).map_while(Result::ok).take(usize::from(u16::MAX)) {
            self.scratch.clear();
            labels::push(&mut self.scratch, name, value);
            let id = self.intern();
            self.lists.push(id);
        }
        LabelList { start, n: (self.lists.len() as u32 - start) as u16 }
    }

    /// The labels of a series in their wire form.
    pub(crate) fn get(&self, list: LabelList) -> Vec<u8> {
        let mut out = Vec::new();
        for id in &self.lists[list.start as usize..][..usize::from(list.n)] {
            out.extend_from_slice(self.piece(*id));
        }
        out
    }

    pub(crate) fn n_lists(&self) -> usize {
        self.lists.len()
    }

    pub(crate) fn bytes(&self) -> usize {
        self.text.capacity() + 4 * (self.ends.capacity() + self.lists.capacity()) + self.by_text.capacity() * 5 * 8 / 7
    }
}

impl LabelList {
    pub(crate) fn len(self) -> usize {
        usize::from(self.n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_come_back_and_are_kept_once() {
        let mut names = Names::default();
        let a = labels::encode([("__name__", "cpu"), ("mode", "idle"), ("pod", "a")]);
        let b = labels::encode([("__name__", "cpu"), ("mode", "idle"), ("pod", "b")]);
        let (la, lb, none) = (names.add(&a), names.add(&b), names.add(b""));
        assert_eq!((names.get(la), names.get(lb), names.get(none)), (a, b, Vec::new()));
        assert_eq!(names.ends.len(), 4);
    }
}
