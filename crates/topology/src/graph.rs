//! The graph itself: entities, aliases, edges, and how observations change them.

use crate::TopologyConfig;
use crate::declared::ServiceSpec;
use crate::file::TopologyFile;
use crate::rows::{self, ALIAS, EDGE, ENTITY, Row};
use nightshift_model::{EdgeKind, EntityId, EntityMeta, Observation, Timestamp};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Longest name of an alias, in bytes.
const ALIAS_BYTES_MAX: usize = 1_024;
/// Joins that one lookup follows; chains are shortened when they are made, so one step is the rule.
const JOIN_STEPS_MAX: usize = 16;

/// What was not taken because a bound was reached or it made no sense.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Rejected {
    /// Entities beyond `entities_max`.
    pub entities: u64,
    /// Edges beyond `edges_max`, and edges from an entity to itself.
    pub edges: u64,
    /// Aliases beyond `aliases_max`, and names that are empty or too long.
    pub aliases: u64,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct EntityRow {
    pub(crate) meta: EntityMeta,
    /// Declared ones are older than all that is learned: a person named them.
    pub(crate) first_seen: Timestamp,
    pub(crate) last_seen: Timestamp,
    /// Whether it was ever learned (a declared one that telemetry never showed is not stored).
    pub(crate) learned: bool,
    pub(crate) spec: Option<Box<ServiceSpec>>,
    written: Timestamp,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct EdgeRow {
    pub(crate) declared: bool,
    pub(crate) learned: bool,
    /// Times seen, halved every `edge_half_life_secs` in which it is not seen; as of `last_seen`.
    pub(crate) count: f64,
    pub(crate) first_seen: Timestamp,
    pub(crate) last_seen: Timestamp,
    written: Timestamp,
}

impl EdgeRow {
    pub(crate) const fn stored(count: f64, first_seen: Timestamp, last_seen: Timestamp) -> Self {
        Self { declared: false, learned: true, count, first_seen, last_seen, written: last_seen }
    }

    fn absorb(&mut self, other: &Self) {
        self.declared |= other.declared;
        self.learned |= other.learned;
        self.count += other.count;
        self.first_seen = self.first_seen.min(other.first_seen);
        self.last_seen = self.last_seen.max(other.last_seen);
    }
}

/// What is known of one entity.
#[derive(Debug, Clone, Copy)]
pub struct EntityInfo<'a> {
    /// Its id and context.
    pub meta: &'a EntityMeta,
    /// What the file declares of it.
    pub declared: Option<&'a ServiceSpec>,
    /// When it was first seen; the epoch when it was declared.
    pub first_seen: Timestamp,
    /// When it was last seen.
    pub last_seen: Timestamp,
}

/// What is known of one edge.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct EdgeInfo {
    /// How the one depends on the other.
    pub kind: EdgeKind,
    /// Whether a person declared it.
    pub declared: bool,
    /// Times seen, decayed to the moment asked for.
    pub count: f64,
    /// When last; the epoch when only declared.
    pub last_seen: Timestamp,
}

type Edges = BTreeMap<(EntityId, EdgeKind), EdgeRow>;

/// The knowledge graph of one tenant.
#[derive(Debug, Clone, Default)]
pub struct Topology {
    pub(crate) config: TopologyConfig,
    pub(crate) entities: BTreeMap<EntityId, EntityRow>,
    /// Names to entities; the entity may itself have been joined into an elder one.
    pub(crate) aliases: BTreeMap<String, EntityId>,
    declared_aliases: BTreeSet<String>,
    /// Younger to elder.
    joined: BTreeMap<EntityId, EntityId>,
    pub(crate) down: BTreeMap<EntityId, Edges>,
    pub(crate) up: BTreeMap<EntityId, BTreeSet<(EntityId, EdgeKind)>>,
    pub(crate) edge_count: usize,
    rejected: Rejected,
    revision: u64,
}

impl Topology {
    /// An empty graph.
    pub fn new(config: TopologyConfig) -> Self {
        Self { config, ..Self::default() }
    }

    /// Grows with every change of entities, names or edges (not with their counts): what was derived from an older
    /// revision is stale.
    pub const fn revision(&self) -> u64 {
        self.revision
    }

    /// What was refused so far.
    pub const fn rejected(&self) -> Rejected {
        self.rejected
    }

    /// Entities, edges and aliases in it.
    pub fn sizes(&self) -> (usize, usize, usize) {
        (self.entities.len(), self.edge_count, self.aliases.len())
    }

    /// The id under which an entity is known: its own, or that of the elder one it was joined into.
    pub fn resolve<'a>(&'a self, id: &'a EntityId) -> &'a EntityId {
        let mut at = id;
        for _ in 0..JOIN_STEPS_MAX {
            match self.joined.get(at) {
                Some(elder) => at = elder,
                None => break,
            }
        }
        at
    }

    /// What an alias stands for.
    pub fn alias(&self, name: &str) -> Option<&EntityId> {
        self.aliases.get(name).map(|id| self.resolve(id))
    }

    /// What is known of an entity, by any of its ids.
    pub fn entity(&self, id: &EntityId) -> Option<EntityInfo<'_>> {
        let row = self.entities.get(self.resolve(id))?;
        Some(EntityInfo {
            meta: &row.meta,
            declared: row.spec.as_deref(),
            first_seen: row.first_seen,
            last_seen: row.last_seen,
        })
    }

    /// All entities, by id.
    pub fn entities(&self) -> impl Iterator<Item = EntityInfo<'_>> {
        self.entities.values().map(|row| EntityInfo {
            meta: &row.meta,
            declared: row.spec.as_deref(),
            first_seen: row.first_seen,
            last_seen: row.last_seen,
        })
    }

    /// An edge of this direction, of any kind; the strongest when there are several.
    pub fn edge(&self, from: &EntityId, to: &EntityId, now: Timestamp) -> Option<EdgeInfo> {
        let to = self.resolve(to).clone();
        let edges = self.down.get(self.resolve(from))?;
        let range = edges.range((to.clone(), EdgeKind::Calls)..=(to, EdgeKind::Messages));
        range.map(|((_, kind), row)| self.edge_info(*kind, row, now)).max_by(|a, b| {
            (a.declared, a.count).partial_cmp(&(b.declared, b.count)).unwrap_or(std::cmp::Ordering::Equal)
        })
    }

    pub(crate) fn edge_info(&self, kind: EdgeKind, row: &EdgeRow, now: Timestamp) -> EdgeInfo {
        EdgeInfo { kind, declared: row.declared, count: self.decayed(row, now), last_seen: row.last_seen }
    }

    fn decayed(&self, row: &EdgeRow, now: Timestamp) -> f64 {
        let half_lives = now.since(row.last_seen).as_secs_f64() / self.config.edge_half_life_secs.max(1) as f64;
        row.count * (-half_lives).exp2()
    }

    /// Replaces everything declared by what this file says. Nothing declared is stored: the file is its home.
    /// Returns rows of learned things that change by it (two entities that the file calls one).
    pub fn declare(&mut self, file: &TopologyFile) -> Vec<Row> {
        let mut out = Vec::new();
        self.revision += 1;
        for name in std::mem::take(&mut self.declared_aliases) {
            self.aliases.remove(&name);
        }
        for row in self.entities.values_mut() {
            row.spec = None;
        }
        self.entities.retain(|_, row| row.learned);
        let declared: Vec<_> = self
            .down
            .iter()
            .flat_map(|(from, edges)| edges.iter().map(move |((to, kind), row)| (from, to, *kind, row)))
            .filter(|(.., row)| row.declared)
            .map(|(from, to, kind, row)| (from.clone(), to.clone(), kind, row.learned))
            .collect();
        for (from, to, kind, learned) in declared {
            if learned {
                if let Some(row) = self.down.get_mut(&from).and_then(|e| e.get_mut(&(to, kind))) {
                    row.declared = false;
                }
            } else {
                self.cut(&from, &to, kind);
            }
        }
        for spec in &file.services {
            let id = self.resolve(&spec.id).clone();
            let row = self.entities.entry(id.clone()).or_insert_with(|| EntityRow {
                meta: EntityMeta::bare(id.clone()),
                first_seen: Timestamp::EPOCH,
                last_seen: Timestamp::EPOCH,
                learned: false,
                spec: None,
                written: Timestamp::EPOCH,
            });
            row.first_seen = Timestamp::EPOCH;
            if id.kind_str() == "service" {
                row.meta.service = id.name();
            }
            if !spec.owner.is_empty() {
                row.meta.owner.clone_from(&spec.owner);
            }
            if !spec.environment.is_empty() {
                row.meta.environment.clone_from(&spec.environment);
            }
            row.spec = Some(Box::new(spec.clone()));
        }
        for spec in &file.services {
            for name in &spec.aliases {
                self.declared_aliases.insert(name.clone());
                self.learn_alias(name, &spec.id, Timestamp::EPOCH, &mut out);
            }
        }
        for spec in &file.services {
            let from = self.resolve(&spec.id).clone();
            for dependency in &spec.depends_on {
                let to = self.resolve(&dependency.to).clone();
                if from == to {
                    continue;
                }
                let row = EdgeRow {
                    declared: true,
                    learned: false,
                    count: 0.0,
                    first_seen: Timestamp::EPOCH,
                    last_seen: Timestamp::EPOCH,
                    written: Timestamp::EPOCH,
                };
                self.link(&from, &to, dependency.kind, &row);
            }
        }
        // Names and joins of declared things are of the file; only removals of learned rows are worth a write.
        out.retain(|row| row.body.is_none() || row.collection != ALIAS);
        out
    }

    /// Takes in one thing learned and returns the rows that changed. A repetition changes nothing but a time, which
    /// is written at most every `touch_secs`. A time in the future counts as `now`.
    pub fn apply(&mut self, observation: &Observation, now: Timestamp) -> Vec<Row> {
        let mut out = Vec::new();
        match observation {
            Observation::Entity { entity, at } => self.learn_entity(entity, (*at).min(now), &mut out),
            Observation::Alias { name, entity, at } => self.learn_alias(name, entity, (*at).min(now), &mut out),
            Observation::Edge { from, to, kind, count, at } => {
                self.learn_edge(from, to, *kind, *count, (*at).min(now), &mut out);
            }
        }
        out
    }

    /// Forgets what was learned and not seen for too long; declared things stay. Returns the rows to remove.
    pub fn expire(&mut self, now: Timestamp) -> Vec<Row> {
        let mut out = Vec::new();
        let edge_limit = now - Duration::from_secs(self.config.edge_ttl_secs);
        let entity_limit = now - Duration::from_secs(self.config.entity_ttl_secs);
        let gone: BTreeSet<EntityId> = self
            .entities
            .iter()
            .filter(|(_, row)| row.spec.is_none() && row.last_seen < entity_limit)
            .map(|(id, _)| id.clone())
            .collect();
        let mut cut = Vec::new();
        for (from, edges) in &mut self.down {
            for ((to, kind), row) in edges.iter_mut() {
                let old = row.learned && (row.last_seen < edge_limit || gone.contains(from) || gone.contains(to));
                if !old {
                    continue;
                }
                out.push(rows::remove(EDGE, rows::edge_key(from, to, *kind)));
                if row.declared {
                    (row.learned, row.count) = (false, 0.0);
                } else {
                    cut.push((from.clone(), to.clone(), *kind));
                }
            }
        }
        for (from, to, kind) in cut {
            self.cut(&from, &to, kind);
        }
        if !gone.is_empty() {
            self.revision += 1;
            let names: Vec<String> = self
                .aliases
                .iter()
                .filter(|(name, id)| gone.contains(self.resolve(id)) && !self.declared_aliases.contains(*name))
                .map(|(name, _)| name.clone())
                .collect();
            for name in names {
                self.aliases.remove(&name);
                out.push(rows::remove(ALIAS, name));
            }
            let joins: Vec<EntityId> =
                self.joined.iter().filter(|(_, elder)| gone.contains(*elder)).map(|(id, _)| id.clone()).collect();
            for id in joins {
                self.joined.remove(&id);
                out.push(rows::remove(ALIAS, id.to_string()));
            }
            for id in gone {
                self.entities.remove(&id);
                out.push(rows::remove(ENTITY, id.to_string()));
            }
        }
        out
    }

    fn learn_entity(&mut self, meta: &EntityMeta, at: Timestamp, out: &mut Vec<Row>) {
        // A test's entity teaches nothing.
        if meta.synthetic {
            return;
        }
        let id = self.resolve(&meta.id).clone();
        if !self.entities.contains_key(&id) && self.entities.len() >= self.config.entities_max {
            self.rejected.entities += 1;
            return;
        }
        let touch = Duration::from_secs(self.config.touch_secs);
        let fresh = !self.entities.contains_key(&id);
        let row = self.entities.entry(id.clone()).or_insert_with(|| EntityRow {
            meta: EntityMeta::bare(id.clone()),
            first_seen: at,
            last_seen: at,
            learned: true,
            spec: None,
            written: at,
        });
        let before = (row.meta.clone(), row.learned, row.first_seen);
        let newer = at >= row.last_seen;
        // The newest word counts; a source that does not know says nothing and takes nothing away.
        for (mine, theirs) in [
            (&mut row.meta.service, &meta.service),
            (&mut row.meta.version, &meta.version),
            (&mut row.meta.environment, &meta.environment),
            (&mut row.meta.owner, &meta.owner),
        ] {
            if !theirs.is_empty() && (newer || mine.is_empty()) {
                mine.clone_from(theirs);
            }
        }
        // What a person declared is not overwritten by what a label says.
        if let Some(spec) = &row.spec {
            for (mine, declared) in [(&mut row.meta.owner, &spec.owner), (&mut row.meta.environment, &spec.environment)]
            {
                if !declared.is_empty() {
                    mine.clone_from(declared);
                }
            }
        }
        row.learned = true;
        row.first_seen = row.first_seen.min(at);
        row.last_seen = row.last_seen.max(at);
        let changed = fresh || before != (row.meta.clone(), row.learned, row.first_seen);
        if changed || row.last_seen.since(row.written) >= touch {
            row.written = row.last_seen;
            out.push(rows::entity_row(row));
        }
        self.revision += u64::from(fresh);
    }

    fn learn_alias(&mut self, name: &str, entity: &EntityId, at: Timestamp, out: &mut Vec<Row>) {
        if name.is_empty() || name.len() > ALIAS_BYTES_MAX {
            self.rejected.aliases += 1;
            return;
        }
        let id = self.resolve(entity).clone();
        // A name that is an id says that the two are one.
        let other = match self.aliases.get(name) {
            Some(known) => Some(self.resolve(known).clone()),
            None => EntityId::parse(name).ok().map(|other| self.resolve(&other).clone()),
        };
        match other {
            Some(other) if other != id => self.join(&id, &other, at, out),
            Some(_) => {}
            None if self.aliases.len() >= self.config.aliases_max => self.rejected.aliases += 1,
            None => {
                self.aliases.insert(name.to_owned(), id.clone());
                self.revision += 1;
                out.push(rows::alias_row(name, &id));
            }
        }
    }

    /// Joins two entities; the older id stays, of two of the same age the smaller one.
    fn join(&mut self, a: &EntityId, b: &EntityId, at: Timestamp, out: &mut Vec<Row>) {
        if self.joined.len() >= self.config.aliases_max {
            self.rejected.aliases += 1;
            return;
        }
        let age = |id: &EntityId| self.entities.get(id).map_or(at, |row| row.first_seen);
        let (elder, younger) = if (age(a), a) <= (age(b), b) { (a.clone(), b.clone()) } else { (b.clone(), a.clone()) };
        self.revision += 1;
        // Chains are shortened here, so that a lookup takes one step.
        let followers: Vec<EntityId> =
            self.joined.iter().filter(|(_, to)| **to == younger).map(|(id, _)| id.clone()).collect();
        for id in followers {
            out.push(rows::alias_row(id.as_str(), &elder));
            self.joined.insert(id, elder.clone());
        }
        self.joined.insert(younger.clone(), elder.clone());
        out.push(rows::alias_row(younger.as_str(), &elder));

        if let Some(mut gone) = self.entities.remove(&younger) {
            if gone.learned {
                out.push(rows::remove(ENTITY, younger.to_string()));
            }
            match self.entities.get_mut(&elder) {
                Some(row) => {
                    for (mine, theirs) in [
                        (&mut row.meta.service, &gone.meta.service),
                        (&mut row.meta.version, &gone.meta.version),
                        (&mut row.meta.environment, &gone.meta.environment),
                        (&mut row.meta.owner, &gone.meta.owner),
                    ] {
                        if mine.is_empty() {
                            mine.clone_from(theirs);
                        }
                    }
                    row.learned |= gone.learned;
                    row.last_seen = row.last_seen.max(gone.last_seen);
                    row.first_seen = row.first_seen.min(gone.first_seen);
                    row.spec = row.spec.take().or(gone.spec);
                }
                None => {
                    gone.meta.id = elder.clone();
                    self.entities.insert(elder.clone(), gone);
                }
            }
            if let Some(row) = self.entities.get(&elder).filter(|row| row.learned) {
                out.push(rows::entity_row(row));
            }
        }
        for ((to, kind), row) in self.down.get(&younger).cloned().unwrap_or_default() {
            self.cut(&younger, &to, kind);
            self.move_edge((&younger, &to), (&elder, &to), kind, &row, out);
        }
        for (from, kind) in self.up.get(&younger).cloned().unwrap_or_default() {
            let row = self.down.get(&from).and_then(|e| e.get(&(younger.clone(), kind))).cloned();
            self.cut(&from, &younger, kind);
            if let Some(row) = row {
                self.move_edge((&from, &younger), (&from, &elder), kind, &row, out);
            }
        }
    }

    fn move_edge(
        &mut self,
        old: (&EntityId, &EntityId),
        new: (&EntityId, &EntityId),
        kind: EdgeKind,
        row: &EdgeRow,
        out: &mut Vec<Row>,
    ) {
        if row.learned {
            out.push(rows::remove(EDGE, rows::edge_key(old.0, old.1, kind)));
        }
        if new.0 == new.1 {
            return;
        }
        self.link(new.0, new.1, kind, row);
        if row.learned
            && let Some(row) = self.down.get(new.0).and_then(|e| e.get(&(new.1.clone(), kind)))
        {
            out.push(rows::edge_row(new.0, new.1, kind, row));
        }
    }

    fn learn_edge(
        &mut self,
        from: &EntityId,
        to: &EntityId,
        kind: EdgeKind,
        count: u64,
        at: Timestamp,
        out: &mut Vec<Row>,
    ) {
        let (from, to) = (self.resolve(from).clone(), self.resolve(to).clone());
        if from == to {
            self.rejected.edges += 1;
            return;
        }
        let known = self.down.get(&from).and_then(|e| e.get(&(to.clone(), kind))).cloned();
        if known.is_none() && self.edge_count >= self.config.edges_max {
            self.rejected.edges += 1;
            return;
        }
        let touch = Duration::from_secs(self.config.touch_secs);
        let mut row = known.clone().unwrap_or(EdgeRow {
            declared: false,
            learned: true,
            count: 0.0,
            first_seen: at,
            last_seen: at,
            written: at,
        });
        row.count = self.decayed(&row, at) + count as f64;
        row.last_seen = row.last_seen.max(at);
        let write = known.as_ref().is_none_or(|k| !k.learned) || row.last_seen.since(row.written) >= touch;
        row.learned = true;
        if write {
            row.written = row.last_seen;
            out.push(rows::edge_row(&from, &to, kind, &row));
        }
        match self.down.get_mut(&from).and_then(|e| e.get_mut(&(to.clone(), kind))) {
            Some(slot) => *slot = row,
            None => self.link(&from, &to, kind, &row),
        }
    }

    fn link(&mut self, from: &EntityId, to: &EntityId, kind: EdgeKind, row: &EdgeRow) {
        let edges = self.down.entry(from.clone()).or_default();
        match edges.get_mut(&(to.clone(), kind)) {
            Some(known) => known.absorb(row),
            None => {
                edges.insert((to.clone(), kind), row.clone());
                self.edge_count += 1;
                self.revision += 1;
            }
        }
        self.up.entry(to.clone()).or_default().insert((from.clone(), kind));
    }

    fn cut(&mut self, from: &EntityId, to: &EntityId, kind: EdgeKind) {
        if let Some(edges) = self.down.get_mut(from) {
            if edges.remove(&(to.clone(), kind)).is_some() {
                self.edge_count -= 1;
                self.revision += 1;
            }
            if edges.is_empty() {
                self.down.remove(from);
            }
        }
        if let Some(callers) = self.up.get_mut(to) {
            callers.remove(&(from.clone(), kind));
            if callers.is_empty() {
                self.up.remove(to);
            }
        }
    }

    pub(crate) fn restore_entity(&mut self, meta: EntityMeta, first_seen: Timestamp, last_seen: Timestamp) {
        let id = meta.id.clone();
        let row = EntityRow { meta, first_seen, last_seen, learned: true, spec: None, written: last_seen };
        self.entities.insert(id, row);
        self.revision += 1;
    }

    pub(crate) fn restore_alias(&mut self, name: &str, entity: EntityId) {
        match EntityId::parse(name) {
            Ok(younger) if younger != entity => drop(self.joined.insert(younger, entity)),
            _ => drop(self.aliases.insert(name.to_owned(), entity)),
        }
        self.revision += 1;
    }

    pub(crate) fn restore_edge(&mut self, from: &EntityId, to: &EntityId, kind: EdgeKind, row: EdgeRow) {
        self.link(from, to, kind, &row);
    }
}
