//! Whether two symptoms share a cause: how near they are in the topology, in time and in kind.
//!
//! The relation is symmetric and does not know who came first, so that the order in which symptoms arrive does not
//! decide which of them end up together.

use crate::DiagnoseConfig;
use nightshift_model::{EntityId, FaultClass, Timestamp};
use nightshift_topology::Topology;
use std::collections::BTreeMap;
use std::time::Duration;

/// Neighbours of one entity that are looked at, at most. Beyond it the far ones are cut.
const NEIGHBOURS_MAX: usize = 2_000;

/// A dependency of more callers than this says little of two of them that look alike.
const FEW: usize = 4;

/// How two entities hang together, the closest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Link {
    /// They are one.
    Same,
    /// They are parts of one service.
    Service,
    /// The other one is needed by this one, directly.
    Dependency,
    /// The other one needs this one, directly.
    Caller,
    /// The one needs the other through something between.
    Through,
    /// Both need the same thing.
    SharedDependency,
    /// The same thing needs both.
    SharedCaller,
    /// Both need something that nearly everybody needs: a node, a resolver.
    SharedByMany,
}

impl Link {
    /// For people.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Same => "same entity",
            Self::Service => "same service",
            Self::Dependency => "a dependency is ill",
            Self::Caller => "a caller is ill",
            Self::Through => "connected through a dependency",
            Self::SharedDependency => "shares a dependency and looks alike",
            Self::SharedCaller => "shares a caller and looks alike",
            Self::SharedByMany => "shares a dependency with several that look alike",
        }
    }
}

/// When and how something was ill.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Brief {
    pub(crate) onset: Timestamp,
    /// `None` while it goes on.
    pub(crate) end: Option<Timestamp>,
    pub(crate) fault: FaultClass,
}

impl Brief {
    fn apart(&self, other: &Self) -> Duration {
        self.onset.since(other.onset).max(other.onset.since(self.onset))
    }

    /// Whether the later of the two began while the earlier went on (or just after).
    fn overlaps(&self, other: &Self, slack: Duration) -> bool {
        let (earlier, later) = if self.onset <= other.onset { (self, other) } else { (other, self) };
        earlier.end.is_none_or(|end| later.onset <= end + slack)
    }
}

/// Everything that one entity is linked to.
pub(crate) fn neighbourhood(entity: &EntityId, topology: &Topology, hops_max: u32) -> BTreeMap<EntityId, Link> {
    let mut out: BTreeMap<EntityId, Link> = BTreeMap::new();
    let mut put = |id: &EntityId, link: Link| {
        if let Some(known) = out.get_mut(id) {
            *known = (*known).min(link);
        } else if out.len() < NEIGHBOURS_MAX {
            out.insert(id.clone(), link);
        }
    };
    put(entity, Link::Same);
    for n in topology.dependencies(entity) {
        put(n.id, Link::Dependency);
    }
    for n in topology.callers(entity) {
        put(n.id, Link::Caller);
    }
    if hops_max >= 2 {
        for far in [topology.up(entity, hops_max), topology.down(entity, hops_max)] {
            for id in far.keys() {
                put(id, Link::Through);
            }
        }
    }
    for n in topology.dependencies(entity) {
        let few = topology.callers(n.id).nth(FEW).is_none();
        for other in topology.callers(n.id) {
            put(other.id, if few { Link::SharedDependency } else { Link::SharedByMany });
        }
    }
    for n in topology.callers(entity) {
        for other in topology.dependencies(n.id) {
            put(other.id, Link::SharedCaller);
        }
    }
    out
}

/// Whether a symptom belongs to another one that it is linked to.
pub(crate) fn related(config: &DiagnoseConfig, link: Link, this: &Brief, other: &Brief) -> bool {
    let apart = this.apart(other);
    let near = apart <= config.window();
    let slack = Duration::from_secs(config.hold_secs);
    let alike = this.fault == other.fault && this.fault != FaultClass::Unknown;
    match link {
        // What is ill stays ill with the same illness until it ends.
        Link::Same => near || this.overlaps(other, slack),
        Link::Service => near,
        // A dependency that is still ill explains a caller that falls ill now, but not the other way round.
        Link::Dependency => near || other.onset <= this.onset && this.overlaps(other, slack),
        Link::Caller => near || this.onset <= other.onset && this.overlaps(other, slack),
        Link::Through => apart <= config.far_window(),
        Link::SharedDependency | Link::SharedByMany => alike && apart <= config.far_window(),
        Link::SharedCaller => {
            let traffic = matches!(this.fault, FaultClass::TrafficSurge | FaultClass::TrafficLoss);
            traffic && alike && apart <= config.far_window()
        }
    }
}
