//! Edges from trace spans: a parent in one entity and its child in another are a call.

use crate::SpanJoinerConfig;
use hashbrown::HashMap;
use nightshift_model::hash::hash128;
use nightshift_model::proto::Span;
use nightshift_model::{EdgeKind, EntityId, Observation, Timestamp};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

/// OpenTelemetry span kinds.
const CLIENT: u32 = 3;
const PRODUCER: u32 = 4;
const CONSUMER: u32 = 5;
/// Children that wait for one parent at most; a fan-out repeats few services.
const CHILDREN_MAX: usize = 16;

/// Times seen and when last, by tenant and edge.
type Counts = BTreeMap<(Arc<str>, EntityId, EntityId, EdgeKind), (u64, Timestamp)>;

struct Waiting {
    key: u128,
    since: Timestamp,
}

/// What is known under one span id.
#[derive(Default)]
struct Slot {
    /// The span itself, when it has come.
    own: Option<Own>,
    /// Children that came before it: entity, kind, when.
    children: Vec<(EntityId, u32, Timestamp)>,
}

struct Own {
    tenant: Arc<str>,
    entity: EntityId,
    kind: u32,
    at: Timestamp,
    /// What a client span says it called, until a child says it better.
    peer: String,
}

/// Finds edges in spans that come in any order. Pure and bounded: at most `spans_max` spans wait, for at most
/// `wait_secs` of the time that is passed in.
pub struct SpanJoiner {
    config: SpanJoinerConfig,
    slots: HashMap<u128, Slot>,
    /// By arrival: the oldest leaves first.
    order: VecDeque<Waiting>,
    edges: Counts,
    /// Client spans without a child, by what they say they called.
    peers: BTreeMap<(Arc<str>, EntityId, String), (u64, Timestamp)>,
    tenant: Arc<str>,
    dropped: u64,
}

impl SpanJoiner {
    /// An empty one.
    pub fn new(config: SpanJoinerConfig) -> Self {
        Self {
            config,
            slots: HashMap::new(),
            order: VecDeque::new(),
            edges: BTreeMap::new(),
            peers: BTreeMap::new(),
            tenant: "".into(),
            dropped: 0,
        }
    }

    /// Edges that were not collected because `edges_max` was reached.
    pub const fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Spans that wait for their other half.
    pub fn waiting(&self) -> usize {
        self.slots.len()
    }

    /// Takes in one span of `entity`. A span without ids tells nothing and is left alone.
    pub fn observe(&mut self, tenant: &str, entity: &EntityId, span: &Span, now: Timestamp) {
        if span.trace_id.is_empty() || span.span_id.is_empty() {
            return;
        }
        if &*self.tenant != tenant {
            self.tenant = tenant.into();
        }
        let tenant = Arc::clone(&self.tenant);
        let at = Timestamp(span.start_ns).min(now);
        let key = |id: &[u8]| hash128(&[tenant.as_bytes(), &span.trace_id, id]);

        if !span.parent_span_id.is_empty() {
            let parent_key = key(&span.parent_span_id);
            let slot = self.slots.entry(parent_key).or_insert_with(|| {
                self.order.push_back(Waiting { key: parent_key, since: now });
                Slot::default()
            });
            match &mut slot.own {
                Some(parent) => {
                    if parent.entity != *entity {
                        // The callee has spoken for itself: its name from the other side is not needed.
                        parent.peer.clear();
                        let edge = edge_of(&parent.entity, parent.kind, entity, span.kind);
                        count(&mut self.edges, self.config.edges_max, &mut self.dropped, &tenant, edge, at);
                    }
                }
                None if slot.children.len() < CHILDREN_MAX => slot.children.push((entity.clone(), span.kind, at)),
                None => self.dropped += 1,
            }
        }

        let own_key = key(&span.span_id);
        let slot = self.slots.entry(own_key).or_insert_with(|| {
            self.order.push_back(Waiting { key: own_key, since: now });
            Slot::default()
        });
        // A repeated delivery counts once.
        if slot.own.is_none() {
            let mut peer = if matches!(span.kind, CLIENT | PRODUCER) { span.peer.clone() } else { String::new() };
            for (child, kind, at) in std::mem::take(&mut slot.children) {
                if child != *entity {
                    peer.clear();
                    let edge = edge_of(entity, span.kind, &child, kind);
                    count(&mut self.edges, self.config.edges_max, &mut self.dropped, &tenant, edge, at);
                }
            }
            slot.own = Some(Own { tenant: Arc::clone(&tenant), entity: entity.clone(), kind: span.kind, at, peer });
        }
        while self.slots.len() > self.config.spans_max {
            if !self.evict_oldest() {
                break;
            }
        }
    }

    fn evict_oldest(&mut self) -> bool {
        let Some(oldest) = self.order.pop_front() else { return false };
        if let Some(Slot { own: Some(own), .. }) = self.slots.remove(&oldest.key)
            && !own.peer.is_empty()
        {
            if self.peers.len() >= self.config.edges_max {
                self.dropped += 1;
            } else {
                let seen = self.peers.entry((own.tenant, own.entity, own.peer)).or_insert((0, own.at));
                *seen = (seen.0 + 1, seen.1.max(own.at));
            }
        }
        true
    }

    /// The edges found since the last call, by tenant, in a fixed order. Peers that no child span spoke for become
    /// entities by [`Self::peer_entity`].
    pub fn drain(&mut self, now: Timestamp) -> Vec<(String, Observation)> {
        self.drain_with(now, |_, from, peer| Self::peer_entity(from, peer))
    }

    /// Like [`Self::drain`]; `resolve` says which entity a client means by a peer (tenant, client, peer), `None` when
    /// nobody knows.
    pub fn drain_with(
        &mut self,
        now: Timestamp,
        resolve: impl Fn(&str, &EntityId, &str) -> Option<EntityId>,
    ) -> Vec<(String, Observation)> {
        let limit = now - Duration::from_secs(self.config.wait_secs);
        while self.order.front().is_some_and(|w| w.since <= limit) {
            self.evict_oldest();
        }
        for ((tenant, from, peer), (n, at)) in std::mem::take(&mut self.peers) {
            if let Some(to) = resolve(&tenant, &from, &peer).filter(|to| *to != from) {
                let seen = self.edges.entry((tenant, from, to, EdgeKind::Calls)).or_insert((0, at));
                *seen = (seen.0 + n, seen.1.max(at));
            }
        }
        std::mem::take(&mut self.edges)
            .into_iter()
            .map(|((tenant, from, to, kind), (count, at))| {
                (tenant.to_string(), Observation::Edge { from, to, kind, count, at })
            })
            .collect()
    }

    /// The service that a peer's name stands for when nothing better is known: the host name without its port, a
    /// Kubernetes service name split into name and namespace. `None` for an address: a number names nothing.
    pub fn peer_entity(from: &EntityId, peer: &str) -> Option<EntityId> {
        let host =
            peer.rsplit_once(':').filter(|(_, p)| p.bytes().all(|b| b.is_ascii_digit())).map_or(peer, |(h, _)| h);
        let host = host.trim_end_matches('.');
        let numeric = host.bytes().all(|b| b.is_ascii_digit() || b == b'.') || host.contains(':');
        if host.is_empty() || numeric || host == "localhost" || host.len() > 253 {
            return None;
        }
        let (name, namespace) = match host.strip_suffix(".svc.cluster.local").or_else(|| host.strip_suffix(".svc")) {
            Some(inside) => inside.split_once('.').unwrap_or((inside, "")),
            None => (host, ""),
        };
        // A bare name is looked up in the caller's own namespace, as its resolver does.
        let own = from.namespace();
        let namespace = if namespace.is_empty() && !name.contains('.') { own.as_str() } else { namespace };
        Some(EntityId::new(&from.cluster(), "service", namespace, name))
    }
}

type Edge = (EntityId, EntityId, EdgeKind);

fn edge_of(parent: &EntityId, parent_kind: u32, child: &EntityId, child_kind: u32) -> Edge {
    if child_kind == CONSUMER || parent_kind == PRODUCER {
        // Who consumes depends on who produces, not the other way round: nobody waits for a consumer.
        (child.clone(), parent.clone(), EdgeKind::Messages)
    } else {
        (parent.clone(), child.clone(), EdgeKind::Calls)
    }
}

fn count(
    edges: &mut Counts,
    edges_max: usize,
    dropped: &mut u64,
    tenant: &Arc<str>,
    (from, to, kind): Edge,
    at: Timestamp,
) {
    let key = (Arc::clone(tenant), from, to, kind);
    if edges.len() >= edges_max && !edges.contains_key(&key) {
        *dropped += 1;
        return;
    }
    let seen = edges.entry(key).or_insert((0, at));
    *seen = (seen.0 + 1, seen.1.max(at));
}
