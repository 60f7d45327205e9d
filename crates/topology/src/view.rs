//! The graph as JSON, for `/api/v1/topology`.

use crate::graph::{EntityInfo, Topology};
use nightshift_model::{EntityId, Timestamp};
use serde_json::{Value, json};
use std::collections::BTreeMap;

impl Topology {
    /// The whole graph: at most `entities_max` entities by id, the edges between them, and how many there are in all.
    pub fn view(&self, entities_max: usize, now: Timestamp) -> Value {
        let mut names: BTreeMap<&EntityId, Vec<&str>> = BTreeMap::new();
        for (name, id) in &self.aliases {
            names.entry(self.resolve(id)).or_default().push(name);
        }
        // Ends of edges that nobody described are entities too.
        let mut shown: Vec<&EntityId> = self.entities.keys().chain(self.down.keys()).chain(self.up.keys()).collect();
        shown.sort();
        shown.dedup();
        let total = shown.len();
        shown.truncate(entities_max);
        let entities: Vec<Value> = shown
            .iter()
            .map(|id| {
                let mut value = entity_json(id, self.entity(id));
                value["aliases"] = json!(names.get(id).map_or(&[][..], Vec::as_slice));
                value
            })
            .collect();
        let is_shown = |id: &EntityId| shown.binary_search(&id).is_ok();
        let mut edges = Vec::new();
        for (from, list) in self.down.iter().filter(|(from, _)| is_shown(from)) {
            for ((to, kind), row) in list.iter().filter(|((to, _), _)| is_shown(to)) {
                let info = self.edge_info(*kind, row, now);
                let seen = (row.last_seen > Timestamp::EPOCH).then_some(row.last_seen);
                edges.push(json!({
                    "from": from, "to": to, "kind": kind, "declared": info.declared,
                    "count": (info.count * 100.0).round() / 100.0, "last_seen": seen,
                }));
            }
        }
        json!({
            "revision": self.revision(),
            "entities_total": total,
            "edges_total": self.edge_count,
            "entities": entities,
            "edges": edges,
        })
    }

    /// One entity, what it needs and who needs it within `hops` edges, and whom its illness would hurt. `None` when
    /// nothing has this id or name.
    pub fn view_of(&self, text: &str, hops: u32) -> Option<Value> {
        let id = self.find(text)?;
        let near = |map: BTreeMap<EntityId, u32>| -> Vec<Value> {
            map.into_iter().map(|(id, hops)| json!({ "id": id, "hops": hops })).collect()
        };
        let mut value = entity_json(id, self.entity(id));
        value["up"] = json!(near(self.up(id, hops)));
        value["down"] = json!(near(self.down(id, hops)));
        value["blast_radius"] = json!(self.blast_radius([id]));
        Some(value)
    }
}

fn entity_json(id: &EntityId, info: Option<EntityInfo<'_>>) -> Value {
    let mut value = json!({
        "id": id, "cluster": id.cluster(), "kind": id.kind_str(), "namespace": id.namespace(), "name": id.name(),
        "declared": false,
    });
    let Some(info) = info else { return value };
    for (key, text) in [
        ("service", &info.meta.service),
        ("version", &info.meta.version),
        ("environment", &info.meta.environment),
        ("owner", &info.meta.owner),
    ] {
        value[key] = json!(text);
    }
    for (key, at) in [("first_seen", info.first_seen), ("last_seen", info.last_seen)] {
        value[key] = if at > Timestamp::EPOCH { json!(at) } else { Value::Null };
    }
    if let Some(spec) = info.declared {
        value["declared"] = json!(true);
        for (key, text) in [
            ("on_call", &spec.on_call),
            ("tier", &spec.tier),
            ("sla", &spec.sla),
            ("business_impact", &spec.business_impact),
        ] {
            value[key] = json!(text);
        }
        value["criticality"] = json!(spec.criticality);
        value["slos"] = json!(spec.slos);
        value["attributes"] = json!(spec.attributes);
    }
    value
}
