//! From a cause to the entities that a step is about.

use crate::Images;
use crate::playbook::Target;
use nightshift_model::{EdgeKind, EntityId, EntityKind, Incident, Phase};
use nightshift_topology::Topology;
use std::collections::BTreeMap;

/// Callers that one step reaches at most; a cause with more is nothing that a list of steps mends.
pub(crate) const CALLERS_MAX: usize = 6;

/// Where a cause stands in the estate.
#[derive(Clone, Copy)]
pub(crate) struct Place<'a> {
    pub(crate) incident: &'a Incident,
    pub(crate) topology: &'a Topology,
    pub(crate) images: &'a Images,
}

impl Place<'_> {
    /// The worst open symptom of each entity that shows one.
    fn ill(&self) -> BTreeMap<&EntityId, f64> {
        let mut ill = BTreeMap::new();
        for anomaly in self.incident.anomalies.iter().filter(|a| a.phase != Phase::Closed) {
            let worst: &mut f64 = ill.entry(self.topology.resolve(&anomaly.entity.id)).or_insert(0.0);
            *worst = worst.max(anomaly.score);
        }
        ill
    }

    /// Of several the worst; of none that is ill the only one.
    fn pick(&self, mut from: Vec<EntityId>, what: &str, of: &EntityId) -> Result<Vec<EntityId>, String> {
        from.sort();
        from.dedup();
        let ill = self.ill();
        let worst = from
            .iter()
            .filter_map(|id| ill.get(id).map(|score| (*score, id)))
            .max_by(|a, b| a.0.total_cmp(&b.0).then_with(|| b.1.cmp(a.1)));
        match (worst, from.as_slice()) {
            (Some((_, id)), _) => Ok(vec![id.clone()]),
            (None, [one]) => Ok(vec![one.clone()]),
            (None, []) => Err(format!("{} has no {what} that is known", of.name())),
            (None, many) => Err(format!("{} has {} of {what} and none shows symptoms", of.name(), many.len())),
        }
    }

    fn needs(&self, cause: &EntityId, fits: impl Fn(&EntityId, EdgeKind) -> bool) -> Vec<EntityId> {
        self.topology.dependencies(cause).filter(|n| fits(n.id, n.kind)).map(|n| n.id.clone()).collect()
    }

    fn node(&self, cause: &EntityId) -> Result<Vec<EntityId>, String> {
        if matches!(cause.kind(), EntityKind::Node | EntityKind::Host) {
            return Ok(vec![cause.clone()]);
        }
        let nodes = self.needs(cause, |id, kind| {
            kind == EdgeKind::RunsOn && matches!(id.kind(), EntityKind::Node | EntityKind::Host)
        });
        self.pick(nodes, "node", cause)
    }

    /// The entities that a target stands for, sorted, at least one.
    ///
    /// # Errors
    /// Why there is none, one line.
    pub(crate) fn resolve(&self, target: Target, cause: &EntityId) -> Result<Vec<EntityId>, String> {
        let cause = self.topology.resolve(cause);
        match target {
            Target::Cause => Ok(vec![cause.clone()]),
            Target::Callers => {
                let calls = self.topology.callers(cause).filter(|n| n.kind == EdgeKind::Calls);
                let mut callers: Vec<EntityId> = calls.map(|n| n.id.clone()).collect();
                callers.sort();
                callers.dedup();
                match callers.len() {
                    0 => Err(format!("nothing is known to call {}", cause.name())),
                    n if n > CALLERS_MAX => Err(format!("{n} services call {}, at most {CALLERS_MAX}", cause.name())),
                    _ => Ok(callers),
                }
            }
            Target::Dependency => self.pick(self.needs(cause, |_, k| k == EdgeKind::Calls), "dependency", cause),
            Target::DatabaseOfCause if cause.kind() == EntityKind::Database => Ok(vec![cause.clone()]),
            Target::DatabaseOfCause => {
                self.pick(self.needs(cause, |id, _| id.kind() == EntityKind::Database), "database", cause)
            }
            Target::NodeOfCause => self.node(cause),
            Target::TopicOfCause if cause.kind() == EntityKind::Topic => Ok(vec![cause.clone()]),
            Target::TopicOfCause => {
                self.pick(self.needs(cause, |id, _| id.kind() == EntityKind::Topic), "topic", cause)
            }
            Target::Consumers if cause.kind() == EntityKind::Topic => {
                let consumers = self.topology.callers(cause).filter(|n| n.kind == EdgeKind::Messages);
                self.pick(consumers.map(|n| n.id.clone()).collect(), "consumer", cause)
            }
            Target::Consumers => Ok(vec![cause.clone()]),
        }
    }
}
