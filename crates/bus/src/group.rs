//! Who reads which partition: the consumer groups of one process.
//!
//! Lives here: membership, a sticky even split, handover, commits with fencing. A pure state machine behind the
//! embedded and the in-memory bus. Never here: files, records, waiting.
//!
//! Handover takes two polls of the old owner. The first tells it that a partition is leaving; when it polls again it
//! has had time to store that partition's state, and only then does the new owner hear of it. So the new owner never
//! restores a state that the old one is still writing. An owner that neither polls nor is dropped keeps what it has.

use crate::{BusError, TopicPartition};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use tokio::sync::Notify;

pub(crate) type MemberId = u64;

/// Every group of a bus.
#[derive(Debug, Default)]
pub(crate) struct GroupTable {
    groups: BTreeMap<String, Group>,
    members_made: MemberId,
}

#[derive(Debug, Default)]
struct Group {
    members: BTreeMap<MemberId, Member>,
    owners: BTreeMap<TopicPartition, Owner>,
    committed: BTreeMap<TopicPartition, u64>,
}

#[derive(Debug)]
struct Member {
    /// Topic and its partitions.
    topics: Vec<(String, u32)>,
    wake: Arc<Notify>,
}

#[derive(Debug, Clone, Copy)]
struct Owner {
    member: MemberId,
    state: Ownership,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ownership {
    /// Its next poll will bring it.
    Given,
    /// Told, and may commit.
    Held,
    /// Its next poll will take it away; it may commit until then.
    Leaving,
    /// Told that it is gone; free as soon as it polls again.
    Left,
}

/// What a member learns by polling.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Change {
    /// Newly its own, with the committed position.
    pub(crate) assigned: Vec<(TopicPartition, Option<u64>)>,
    pub(crate) revoked: Vec<TopicPartition>,
}

impl Change {
    pub(crate) fn is_empty(&self) -> bool {
        self.assigned.is_empty() && self.revoked.is_empty()
    }
}

impl GroupTable {
    pub(crate) fn join(&mut self, group: &str, topics: Vec<(String, u32)>, wake: Arc<Notify>) -> MemberId {
        self.members_made += 1;
        let group = self.groups.entry(group.into()).or_default();
        group.members.insert(self.members_made, Member { topics, wake });
        group.rebalance();
        self.members_made
    }

    pub(crate) fn leave(&mut self, group: &str, member: MemberId) {
        let Some(group) = self.groups.get_mut(group) else { return };
        if group.members.remove(&member).is_some() {
            group.owners.retain(|_, owner| owner.member != member);
            group.rebalance();
        }
    }

    /// As if the process had ended: no members, only what was committed.
    pub(crate) fn forget_members(&mut self) {
        for group in self.groups.values_mut() {
            for member in std::mem::take(&mut group.members).into_values() {
                member.wake.notify_one();
            }
            group.owners.clear();
        }
    }

    /// What changed for `member` since its last poll. `None`: it is no member (any more).
    pub(crate) fn poll(&mut self, group: &str, member: MemberId) -> Option<Change> {
        let group = self.groups.get_mut(group)?;
        if !group.members.contains_key(&member) {
            return None;
        }
        let before = group.owners.len();
        group.owners.retain(|_, o| !(o.member == member && o.state == Ownership::Left));
        if group.owners.len() != before {
            group.rebalance();
        }
        let mut change = Change::default();
        for (at, owner) in group.owners.iter_mut().filter(|(_, o)| o.member == member) {
            match owner.state {
                Ownership::Given => {
                    owner.state = Ownership::Held;
                    change.assigned.push((at.clone(), group.committed.get(at).copied()));
                }
                Ownership::Leaving => {
                    owner.state = Ownership::Left;
                    change.revoked.push(at.clone());
                }
                Ownership::Held | Ownership::Left => {}
            }
        }
        Some(change)
    }

    /// Whether `member` may commit or seek in `at`.
    pub(crate) fn holds(&self, group: &str, member: MemberId, at: &TopicPartition) -> bool {
        self.groups
            .get(group)
            .and_then(|g| g.owners.get(at))
            .is_some_and(|o| o.member == member && matches!(o.state, Ownership::Held | Ownership::Leaving))
    }

    /// [`BusError::Fenced`] unless all of `positions` may be committed by `member`.
    pub(crate) fn check_commit(
        &self,
        group: &str,
        member: MemberId,
        positions: &[(TopicPartition, u64)],
    ) -> Result<(), BusError> {
        if positions.iter().all(|(at, _)| self.holds(group, member, at)) { Ok(()) } else { Err(BusError::Fenced) }
    }

    pub(crate) fn set_committed(&mut self, group: &str, at: TopicPartition, offset: u64) {
        self.groups.entry(group.into()).or_default().committed.insert(at, offset);
    }

    /// Every committed position: group, partition, offset.
    pub(crate) fn committed(&self) -> impl Iterator<Item = (&str, &TopicPartition, u64)> {
        self.groups.iter().flat_map(|(name, g)| g.committed.iter().map(move |(at, o)| (name.as_str(), at, *o)))
    }

    /// Partitions that each group reads or has committed in, with the commit.
    pub(crate) fn standing(&self) -> Vec<(String, TopicPartition, Option<u64>)> {
        let mut out = Vec::new();
        for (name, group) in &self.groups {
            let mut places: BTreeSet<TopicPartition> = group.committed.keys().cloned().collect();
            for (topic, partitions) in group.members.values().flat_map(|m| &m.topics) {
                places.extend((0..*partitions).map(|partition| TopicPartition { topic: topic.clone(), partition }));
            }
            out.extend(places.into_iter().map(|at| {
                let committed = group.committed.get(&at).copied();
                (name.clone(), at, committed)
            }));
        }
        out
    }
}

impl Group {
    /// Gives every partition an owner: an even split that moves as few as possible.
    fn rebalance(&mut self) {
        let mut topics: BTreeMap<String, (u32, Vec<MemberId>)> = BTreeMap::new();
        for (id, member) in &self.members {
            for (topic, partitions) in &member.topics {
                topics.entry(topic.clone()).or_insert((*partitions, Vec::new())).1.push(*id);
            }
        }
        for (topic, (partitions, members)) in topics {
            self.rebalance_topic(&topic, partitions, &members);
        }
    }

    fn rebalance_topic(&mut self, topic: &str, partitions: u32, members: &[MemberId]) {
        let at = |partition| TopicPartition { topic: topic.into(), partition };
        let mut keep: BTreeMap<MemberId, Vec<u32>> = members.iter().map(|m| (*m, Vec::new())).collect();
        let mut loose = Vec::new();
        for partition in 0..partitions {
            let owner = self.owners.get(&at(partition)).filter(|o| o.state != Ownership::Left);
            match owner.and_then(|o| keep.get_mut(&o.member)) {
                Some(kept) => kept.push(partition),
                None => loose.push(partition),
            }
        }
        // The members that have most keep the odd ones: fewer partitions move.
        let mut by_holding: Vec<MemberId> = members.to_vec();
        by_holding.sort_by_key(|m| (std::cmp::Reverse(keep[m].len()), *m));
        let share = partitions as usize / members.len();
        let odd = partitions as usize % members.len();
        for (rank, member) in by_holding.iter().enumerate() {
            let quota = share + usize::from(rank < odd);
            let kept = keep.entry(*member).or_default();
            if kept.len() > quota {
                loose.extend(kept.split_off(quota));
            }
        }
        loose.sort_unstable();
        let mut loose = loose.into_iter();
        for (rank, member) in by_holding.iter().enumerate() {
            let quota = share + usize::from(rank < odd);
            let kept = keep.entry(*member).or_default();
            let room = quota - kept.len();
            kept.extend(loose.by_ref().take(room));
        }
        for (member, partitions) in keep {
            for partition in partitions {
                self.direct(at(partition), member);
            }
        }
    }

    /// Moves one partition towards `target`.
    fn direct(&mut self, at: TopicPartition, target: MemberId) {
        let mut wake = None;
        let owner = self.owners.entry(at).or_insert_with(|| {
            wake = Some(target);
            Owner { member: target, state: Ownership::Given }
        });
        match owner.state {
            Ownership::Leaving if owner.member == target => owner.state = Ownership::Held,
            Ownership::Held if owner.member != target => {
                owner.state = Ownership::Leaving;
                wake = Some(owner.member);
            }
            Ownership::Given if owner.member != target => {
                owner.member = target;
                wake = Some(target);
            }
            _ => {}
        }
        if let Some(member) = wake.and_then(|id| self.members.get(&id)) {
            member.wake.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn join(table: &mut GroupTable, partitions: u32) -> MemberId {
        table.join("g", vec![("t".into(), partitions)], Arc::new(Notify::new()))
    }

    fn poll(table: &mut GroupTable, member: MemberId) -> (Vec<u32>, Vec<u32>) {
        let change = table.poll("g", member).unwrap();
        (
            change.assigned.iter().map(|(at, _)| at.partition).collect(),
            change.revoked.iter().map(|at| at.partition).collect(),
        )
    }

    #[test]
    fn a_partition_moves_only_after_its_owner_polled_twice() {
        let mut table = GroupTable::default();
        let a = join(&mut table, 4);
        assert_eq!(poll(&mut table, a), (vec![0, 1, 2, 3], vec![]));
        let b = join(&mut table, 4);
        assert_eq!(poll(&mut table, b), (vec![], vec![]), "the old owner was not told yet");
        assert_eq!(poll(&mut table, a), (vec![], vec![2, 3]));
        assert_eq!(poll(&mut table, b), (vec![], vec![]), "the old owner may still be storing its state");
        assert_eq!(poll(&mut table, a), (vec![], vec![]));
        assert_eq!(poll(&mut table, b), (vec![2, 3], vec![]));
    }

    #[test]
    fn who_was_told_that_a_partition_is_gone_is_fenced() {
        let mut table = GroupTable::default();
        let at = |partition| TopicPartition { topic: "t".into(), partition };
        let a = join(&mut table, 2);
        let b = join(&mut table, 2);
        poll(&mut table, a);
        poll(&mut table, b);
        assert!(table.check_commit("g", a, &[(at(0), 1)]).is_ok());
        assert!(matches!(table.check_commit("g", a, &[(at(0), 1), (at(1), 1)]), Err(BusError::Fenced)));
        table.leave("g", b);
        assert_eq!(poll(&mut table, a), (vec![1], vec![]));
        assert!(matches!(table.check_commit("g", b, &[(at(1), 1)]), Err(BusError::Fenced)));
        assert_eq!(table.poll("g", b), None);
    }

    proptest::proptest! {
        /// Whatever members come and go, every partition has one owner, shares differ by at most one, and nobody
        /// holds a partition that another one holds.
        #[test]
        fn shares_are_even_and_disjoint(steps in proptest::collection::vec((0u8..3, 0usize..6), 1..60), partitions in 1u32..20) {
            let mut table = GroupTable::default();
            let mut held: BTreeMap<MemberId, BTreeSet<u32>> = BTreeMap::new();
            let settle = |table: &mut GroupTable, held: &mut BTreeMap<MemberId, BTreeSet<u32>>, member: MemberId| {
                let (assigned, revoked) = poll(table, member);
                let mine = held.get_mut(&member).unwrap();
                for p in revoked { assert!(mine.remove(&p)); }
                for p in &assigned { assert!(mine.insert(*p)); }
                for p in assigned {
                    assert_eq!(held.values().filter(|h| h.contains(&p)).count(), 1);
                }
            };
            for (what, which) in steps {
                match what {
                    0 if held.len() < 6 => { let m = join(&mut table, partitions); held.insert(m, BTreeSet::new()); }
                    1 => if let Some(m) = held.keys().nth(which).copied() { table.leave("g", m); held.remove(&m); },
                    _ => if let Some(m) = held.keys().nth(which).copied() { settle(&mut table, &mut held, m); },
                }
            }
            for _ in 0..4 {
                for m in held.keys().copied().collect::<Vec<_>>() { settle(&mut table, &mut held, m); }
            }
            if !held.is_empty() {
                let sizes: Vec<usize> = held.values().map(BTreeSet::len).collect();
                proptest::prop_assert_eq!(sizes.iter().sum::<usize>(), partitions as usize);
                proptest::prop_assert!(sizes.iter().max().unwrap() - sizes.iter().min().unwrap() <= 1, "{:?}", sizes);
            }
        }
    }
}
