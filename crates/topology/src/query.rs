//! Questions to the graph: who calls it, what does it need, how far apart, whom does it hurt.

use crate::declared::Criticality;
use crate::graph::Topology;
use nightshift_model::{BlastRadius, EdgeKind, EntityId};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Entities that one walk visits at most; beyond it the answer is cut, breadth first, so that the near ones are there.
const VISITS_MAX: usize = 5_000;
/// Entities that a blast radius lists at most.
const LISTED_MAX: usize = 500;
/// Impacts that are told at most: more is not read at 3 a.m.
const IMPACTS_MAX: usize = 3;

/// An entity one edge away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Neighbour<'a> {
    /// The other one.
    pub id: &'a EntityId,
    /// How they depend.
    pub kind: EdgeKind,
}

impl Topology {
    /// Every name that was declared or learned, with the entity that it stands for now.
    pub fn aliases(&self) -> impl Iterator<Item = (&str, &EntityId)> {
        self.aliases.iter().map(|(name, id)| (name.as_str(), self.resolve(id)))
    }

    /// What it needs to work, one edge away.
    pub fn dependencies(&self, id: &EntityId) -> impl Iterator<Item = Neighbour<'_>> {
        let edges = self.down.get(self.resolve(id));
        edges.into_iter().flat_map(|e| e.keys().map(|(id, kind)| Neighbour { id, kind: *kind }))
    }

    /// What needs it to work, one edge away.
    pub fn callers(&self, id: &EntityId) -> impl Iterator<Item = Neighbour<'_>> {
        let edges = self.up.get(self.resolve(id));
        edges.into_iter().flat_map(|e| e.iter().map(|(id, kind)| Neighbour { id, kind: *kind }))
    }

    /// All that needs it, directly or not, with the number of edges between, at most `hops`.
    pub fn up(&self, id: &EntityId, hops: u32) -> BTreeMap<EntityId, u32> {
        self.walk([self.resolve(id)], hops, true, false)
    }

    /// All that it needs, directly or not, with the number of edges between, at most `hops`.
    pub fn down(&self, id: &EntityId, hops: u32) -> BTreeMap<EntityId, u32> {
        self.walk([self.resolve(id)], hops, false, true)
    }

    /// All within `hops` edges, whichever way each of them points.
    pub fn around(&self, id: &EntityId, hops: u32) -> BTreeMap<EntityId, u32> {
        self.walk([self.resolve(id)], hops, true, true)
    }

    fn walk<'a>(
        &'a self,
        from: impl IntoIterator<Item = &'a EntityId>,
        hops: u32,
        up: bool,
        down: bool,
    ) -> BTreeMap<EntityId, u32> {
        let mut queue: VecDeque<(&EntityId, u32)> = from.into_iter().map(|id| (id, 0)).collect();
        let mut seen: BTreeSet<&EntityId> = queue.iter().map(|(id, _)| *id).collect();
        let mut out = BTreeMap::new();
        while let Some((at, distance)) = queue.pop_front() {
            if distance > 0 {
                out.insert(at.clone(), distance);
            }
            if distance == hops {
                continue;
            }
            let callers = up.then(|| self.callers(at)).into_iter().flatten();
            let needs = down.then(|| self.dependencies(at)).into_iter().flatten();
            for next in callers.chain(needs) {
                if seen.len() >= VISITS_MAX {
                    break;
                }
                if seen.insert(next.id) {
                    queue.push_back((next.id, distance + 1));
                }
            }
        }
        out
    }

    /// The shortest way along dependencies, both ends included; of several the first by id. `None` when there is none
    /// within `hops` edges.
    pub fn path(&self, from: &EntityId, to: &EntityId, hops: u32) -> Option<Vec<EntityId>> {
        let (from, to) = (self.resolve(from), self.resolve(to));
        let mut before: BTreeMap<&EntityId, Option<&EntityId>> = BTreeMap::from([(from, None)]);
        let mut queue = VecDeque::from([(from, 0)]);
        while let Some((at, distance)) = queue.pop_front() {
            if at == to {
                let mut path = vec![at.clone()];
                let mut step = at;
                while let Some(Some(previous)) = before.get(step) {
                    path.push((*previous).clone());
                    step = previous;
                }
                path.reverse();
                return Some(path);
            }
            if distance == hops {
                continue;
            }
            for next in self.dependencies(at) {
                if before.len() >= VISITS_MAX {
                    break;
                }
                if !before.contains_key(next.id) {
                    before.insert(next.id, Some(at));
                    queue.push_back((next.id, distance + 1));
                }
            }
        }
        None
    }

    /// Finds an entity by its id, an alias, its name, or `namespace/name`. `None` when nothing or more than one thing
    /// has the name.
    pub fn find(&self, text: &str) -> Option<&EntityId> {
        if let Some((id, _)) = EntityId::parse(text).ok().and_then(|id| self.entities.get_key_value(self.resolve(&id)))
        {
            return Some(id);
        }
        if let Some(id) = self.alias(text) {
            return Some(id);
        }
        let mut named = self.entities.keys().filter(|id| match text.split_once('/') {
            Some((namespace, name)) => id.name() == name && id.namespace() == namespace,
            None => id.name() == text,
        });
        named.next().filter(|_| named.next().is_none())
    }

    /// Declared criticality of an entity.
    pub fn criticality(&self, id: &EntityId) -> Option<Criticality> {
        self.entity(id)?.declared?.criticality
    }

    /// Who is hit when these are ill: they, and all that needs them.
    pub fn blast_radius<'a>(&'a self, ill: impl IntoIterator<Item = &'a EntityId>) -> BlastRadius {
        let affected: BTreeSet<&EntityId> = ill.into_iter().map(|id| self.resolve(id)).collect();
        let at_risk = self.walk(affected.iter().copied(), self.config.blast_hops, true, false);
        let mut near: Vec<(u32, &EntityId)> =
            at_risk.iter().filter(|(id, _)| !affected.contains(id)).map(|(id, hops)| (*hops, id)).collect();
        near.sort();

        let criticality = affected.iter().filter_map(|id| self.criticality(id)).min();
        // The worst first; an entity that only may be hit speaks when none that is has anything to say.
        let told = |ids: &mut dyn Iterator<Item = &EntityId>| -> Vec<String> {
            let mut found: Vec<(Option<Criticality>, String)> = Vec::new();
            for id in ids {
                let Some(spec) = self.entity(id).and_then(|e| e.declared) else { continue };
                if !spec.business_impact.is_empty() {
                    let rank = spec.criticality.or(Some(Criticality::P3));
                    found.push((rank, spec.business_impact.clone()));
                }
            }
            found.sort();
            found.dedup();
            found.into_iter().take(IMPACTS_MAX).map(|(_, text)| text).collect()
        };
        let mut impact = told(&mut affected.iter().copied()).join("; ");
        if impact.is_empty() {
            let risk = told(&mut near.iter().map(|(_, id)| *id)).join("; ");
            if !risk.is_empty() {
                impact = format!("at risk: {risk}");
            }
        }
        BlastRadius {
            at_risk: near.into_iter().take(LISTED_MAX).map(|(_, id)| id.clone()).collect(),
            affected: affected.into_iter().take(LISTED_MAX).cloned().collect(),
            estimated_user_impact: (!impact.is_empty()).then_some(impact),
            criticality: criticality.map_or_else(String::new, |c| c.as_str().into()),
        }
    }
}
