//! One incident with what is derived from it.

use crate::rank::{Symptom, suggested_fault};
use crate::relate::Brief;
use nightshift_model::hash::{hash64, hash128};
use nightshift_model::{Anomaly, AnomalyKind, EntityId, EntityKind, FaultClass, Incident, Phase, Timestamp};
use nightshift_topology::Topology;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// An incident and the indexes into it. Everything but `inc` is derived.
pub(super) struct Case {
    pub(super) inc: Incident,
    /// Kept symptoms by entity, as positions in `inc.anomalies`. Entities that a storm only counted have none.
    by_entity: BTreeMap<EntityId, Vec<usize>>,
    by_service: BTreeMap<String, Vec<usize>>,
    /// Entities that belong to it and are in no row yet; told with the next assessment, in the same step.
    pub(super) unlisted: BTreeSet<EntityId>,
}

impl Case {
    pub(super) fn new(inc: Incident) -> Self {
        Self { inc, by_entity: BTreeMap::new(), by_service: BTreeMap::new(), unlisted: BTreeSet::new() }
    }

    /// Derives the indexes anew.
    pub(super) fn refresh(&mut self, topology: &Topology) {
        self.by_entity.clear();
        self.by_service.clear();
        for (i, a) in self.inc.anomalies.iter().enumerate() {
            self.by_entity.entry(topology.resolve(&a.entity.id).clone()).or_default().push(i);
            if let Some(service) = service_of(a) {
                self.by_service.entry(service.to_owned()).or_default().push(i);
            }
        }
        for id in self.inc.blast_radius.affected.iter().chain(&self.unlisted) {
            self.by_entity.entry(topology.resolve(id).clone()).or_default();
        }
    }

    /// Adds an entity of which no symptom is kept.
    pub(super) fn refresh_listed(&mut self, entity: &EntityId) {
        self.by_entity.entry(entity.clone()).or_default();
    }

    /// Adds the newest symptom to the indexes without going through the others.
    pub(super) fn note_last(&mut self, topology: &Topology) {
        let Some((i, a)) = self.inc.anomalies.iter().enumerate().next_back() else { return };
        let list = self.by_entity.entry(topology.resolve(&a.entity.id).clone()).or_default();
        if !list.contains(&i) {
            list.push(i);
            if let Some(service) = service_of(a) {
                self.by_service.entry(service.to_owned()).or_default().push(i);
            }
        }
    }

    /// Empties the indexes and returns what was in them.
    pub(super) fn forget(&mut self) -> (Vec<EntityId>, Vec<String>) {
        let entities = std::mem::take(&mut self.by_entity).into_keys().collect();
        let services = std::mem::take(&mut self.by_service).into_keys().collect();
        (entities, services)
    }

    pub(super) fn entities(&self) -> impl Iterator<Item = &EntityId> {
        self.by_entity.keys()
    }

    pub(super) fn services(&self) -> impl Iterator<Item = &String> {
        self.by_service.keys()
    }

    pub(super) fn is_about(&self, entity: &EntityId) -> bool {
        self.by_entity.contains_key(entity)
    }

    /// Kept symptoms of an entity.
    pub(super) fn of_entity(&self, entity: &EntityId) -> impl Iterator<Item = &Anomaly> {
        self.by_entity.get(entity).into_iter().flatten().filter_map(|i| self.inc.anomalies.get(*i))
    }

    /// Kept symptoms of a service.
    pub(super) fn of_service(&self, service: &str) -> impl Iterator<Item = &Anomaly> {
        self.by_service.get(service).into_iter().flatten().filter_map(|i| self.inc.anomalies.get(*i))
    }

    /// Symptoms that were only counted, and of these the open ones.
    pub(super) fn beyond(&self) -> (u64, u64) {
        let kept = self.inc.anomalies.len() as u64;
        let kept_open = self.inc.anomalies.iter().filter(|a| a.phase != Phase::Closed).count() as u64;
        (self.inc.anomalies_total.saturating_sub(kept), self.inc.anomalies_open.saturating_sub(kept_open))
    }

    /// What it was about, as keys by which a return is recognised: each series, and each entity with its illness.
    pub(super) fn cause_keys(&self, open_score_min: f64, topology: &Topology) -> BTreeSet<u64> {
        let strong = self.inc.anomalies.iter().filter(|a| a.score >= open_score_min);
        strong.flat_map(|a| cause_keys(a, topology)).collect()
    }

    /// Symptoms as the ranking sees them.
    pub(super) fn symptoms(&self, topology: &Topology) -> Vec<Symptom> {
        self.inc.anomalies.iter().map(|a| Symptom::from_anomaly(a, topology)).collect()
    }
}

/// When and how an anomaly was ill.
pub(super) fn brief(a: &Anomaly) -> Brief {
    Brief { onset: a.onset, end: (a.phase == Phase::Closed).then_some(a.last_seen), fault: suggested_fault(a) }
}

/// The service by whose name an anomaly may be joined with others. A host has many services, and the name of an
/// exporter's job is none; what a test made stays with its own entity, or in the environment that it made for itself.
pub(super) fn service_of(a: &Anomaly) -> Option<&str> {
    let host = matches!(a.entity.id.kind(), EntityKind::Host | EntityKind::Node);
    let alone = a.synthetic() && a.entity.environment.is_empty();
    (!host && !alone && !a.entity.service.is_empty()).then_some(a.entity.service.as_str())
}

/// When a symptom ended, `None` while it goes on. A log line is a moment: it ends when no further one follows.
pub(super) fn ended(a: &Anomaly, log_quiet: Duration, now: Timestamp) -> Option<Timestamp> {
    match (a.phase, a.kind) {
        (Phase::Closed, _) => Some(a.last_seen),
        (_, AnomalyKind::Log) if now.since(a.last_seen) >= log_quiet => Some(a.last_seen + log_quiet),
        _ => None,
    }
}

/// Keys under which the same cause shows again: the same series, or the same entity ill in the same way.
pub(super) fn cause_keys(a: &Anomaly, topology: &Topology) -> [u64; 2] {
    let fault = suggested_fault(a);
    let how = if fault == FaultClass::Unknown { a.signal.as_str() } else { fault.slug() };
    let entity = topology.resolve(&a.entity.id);
    let illness = hash128(&[b"illness", entity.as_str().as_bytes(), how.as_bytes()]);
    [hash64(&a.fingerprint.to_be_bytes()), (illness >> 64) as u64]
}
