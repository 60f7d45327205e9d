//! What of the graph outlives a process: rows of JSON. Only learned things are kept; what is declared is read from
//! its file at every start, so that a line removed there is gone.

use crate::TopologyConfig;
use crate::graph::{EdgeRow, EntityRow, Topology};
use nightshift_model::{EdgeKind, EntityId, EntityMeta, Timestamp};
use serde::{Deserialize, Serialize};

/// Collection of learned entities; key: the id.
pub const ENTITY: &str = "topology.entity";
/// Collection of learned edges; key: `FROM>TO>KIND` (an id holds no `>`).
pub const EDGE: &str = "topology.edge";
/// Collection of aliases; key: the name. A name that is an entity's id says that the two are one.
pub const ALIAS: &str = "topology.alias";

/// A row to put, or with `None` to remove. The fields are those of the store's `Document`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// [`ENTITY`], [`EDGE`] or [`ALIAS`].
    pub collection: String,
    /// Unique within its collection.
    pub key: String,
    /// JSON; `None` removes the row.
    pub body: Option<Vec<u8>>,
}

#[derive(Serialize, Deserialize)]
struct StoredEntity {
    entity: EntityMeta,
    first_seen: Timestamp,
    last_seen: Timestamp,
}

#[derive(Serialize, Deserialize)]
struct StoredEdge {
    from: EntityId,
    to: EntityId,
    kind: EdgeKind,
    count: f64,
    first_seen: Timestamp,
    last_seen: Timestamp,
}

#[derive(Serialize, Deserialize)]
struct StoredAlias {
    entity: EntityId,
}

fn put(collection: &str, key: String, body: &impl Serialize) -> Row {
    let body = serde_json::to_vec(body).expect("rows have string keys and finite numbers");
    Row { collection: collection.into(), key, body: Some(body) }
}

pub(crate) fn remove(collection: &str, key: String) -> Row {
    Row { collection: collection.into(), key, body: None }
}

pub(crate) fn entity_row(row: &EntityRow) -> Row {
    let body = StoredEntity { entity: row.meta.clone(), first_seen: row.first_seen, last_seen: row.last_seen };
    put(ENTITY, row.meta.id.to_string(), &body)
}

pub(crate) fn edge_key(from: &EntityId, to: &EntityId, kind: EdgeKind) -> String {
    let kind = match kind {
        EdgeKind::Calls => "calls",
        EdgeKind::RunsOn => "runs_on",
        EdgeKind::Messages => "messages",
    };
    format!("{from}>{to}>{kind}")
}

pub(crate) fn edge_row(from: &EntityId, to: &EntityId, kind: EdgeKind, row: &EdgeRow) -> Row {
    let body = StoredEdge {
        from: from.clone(),
        to: to.clone(),
        kind,
        count: row.count,
        first_seen: row.first_seen,
        last_seen: row.last_seen,
    };
    put(EDGE, edge_key(from, to, kind), &body)
}

pub(crate) fn alias_row(name: &str, entity: &EntityId) -> Row {
    put(ALIAS, name.to_owned(), &StoredAlias { entity: entity.clone() })
}

impl Topology {
    /// The learned graph from its stored rows, in any order, and what was wrong with those that could not be read
    /// (they are left out: a damaged row must not keep the machine from starting).
    pub fn from_rows(config: TopologyConfig, rows: impl IntoIterator<Item = Row>) -> (Self, Vec<String>) {
        let mut topology = Self::new(config);
        let mut wrong = Vec::new();
        let (mut edges, mut aliases) = (Vec::new(), Vec::new());
        for row in rows {
            let Some(body) = row.body else { continue };
            let read = match row.collection.as_str() {
                ENTITY => serde_json::from_slice::<StoredEntity>(&body)
                    .map(|e| topology.restore_entity(e.entity, e.first_seen, e.last_seen)),
                EDGE => serde_json::from_slice::<StoredEdge>(&body).map(|e| edges.push(e)),
                ALIAS => {
                    serde_json::from_slice::<StoredAlias>(&body).map(|a| aliases.push((row.key.clone(), a.entity)))
                }
                other => {
                    wrong.push(format!("read topology row: collection `{other}` is not known"));
                    continue;
                }
            };
            if let Err(e) = read {
                wrong.push(format!("read {} row `{}`: {e}", row.collection, row.key));
            }
        }
        aliases.sort();
        for (name, entity) in aliases {
            topology.restore_alias(&name, entity);
        }
        for e in edges {
            let row = EdgeRow::stored(e.count, e.first_seen, e.last_seen);
            topology.restore_edge(&e.from, &e.to, e.kind, row);
        }
        (topology, wrong)
    }
}
