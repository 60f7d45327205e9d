//! What network policies let through: whether one pod may reach another on a port. What cannot be told counts as let
//! through.

use super::index::{Net, Template};
use crate::objects::{IntOrString, Labels, NetworkPeer, NetworkPolicy, NetworkPort, NetworkRule, PodSpec};

/// A direction of traffic, as policies name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Direction {
    /// Into the pods that a policy selects.
    Ingress,
    /// Out of them.
    Egress,
}

/// Where traffic goes: a port of a pod.
pub(super) struct Target<'t> {
    /// Number or name.
    pub(super) port: IntOrString,
    /// `TCP`, `UDP`, `SCTP`.
    pub(super) protocol: &'t str,
    /// The pod, for names of ports.
    pub(super) spec: &'t PodSpec,
}

/// Whether a policy is about a direction.
pub(super) fn covers(policy: &NetworkPolicy, direction: Direction) -> bool {
    let types = &policy.spec.policy_types;
    match direction {
        Direction::Ingress => types.is_empty() || types.iter().any(|t| t == "Ingress"),
        Direction::Egress => {
            types.iter().any(|t| t == "Egress") || (types.is_empty() && !policy.spec.egress.is_empty())
        }
    }
}

/// The rules of a policy for a direction.
pub(super) fn rules(policy: &NetworkPolicy, direction: Direction) -> &[NetworkRule] {
    match direction {
        Direction::Ingress => &policy.spec.ingress,
        Direction::Egress => &policy.spec.egress,
    }
}

/// The peers of a rule for a direction.
pub(super) fn peers(rule: &NetworkRule, direction: Direction) -> &[NetworkPeer] {
    match direction {
        Direction::Ingress => &rule.from,
        Direction::Egress => &rule.to,
    }
}

/// The policies that hold for a pod in a direction.
pub(super) fn policies<'a>(net: &Net<'a>, pod: &Template<'_>, direction: Direction) -> Vec<&'a NetworkPolicy> {
    let all = &net.cx.world.network_policies;
    let namespace = &pod.root.namespace;
    all.iter()
        .filter(|p| p.metadata.namespace == *namespace && p.metadata.deletion_timestamp.is_none())
        .filter(|p| covers(p, direction) && p.spec.pod_selector.matches(&pod.labels))
        .collect()
}

/// Whether these policies (all that hold for one end) let traffic with the other end through.
pub(super) fn allowed(
    net: &Net<'_>,
    policies: &[&NetworkPolicy],
    direction: Direction,
    other: &Template<'_>,
    target: &Target<'_>,
) -> bool {
    policies.is_empty()
        || policies.iter().any(|policy| {
            rules(policy, direction).iter().any(|rule| {
                let peers = peers(rule, direction);
                (peers.is_empty() || peers.iter().any(|p| is_peer(net, policy, p, other)))
                    && (rule.ports.is_empty() || rule.ports.iter().any(|p| is_port(p, target)))
            })
        })
}

fn is_peer(net: &Net<'_>, policy: &NetworkPolicy, peer: &NetworkPeer, other: &Template<'_>) -> bool {
    // Addresses of pods come and go: a block may hold them.
    if peer.ip_block.is_some() {
        return true;
    }
    let in_namespace = match &peer.namespace_selector {
        None => policy.metadata.namespace == other.root.namespace,
        Some(selector) if selector.is_empty() => true,
        Some(selector) => match namespace_labels(net, &other.root.namespace) {
            Some(labels) => selector.matches(&labels),
            None => true,
        },
    };
    in_namespace && peer.pod_selector.as_ref().is_none_or(|s| s.matches(&other.labels))
}

/// The labels of a namespace, its name among them as the server gives it.
fn namespace_labels(net: &Net<'_>, namespace: &str) -> Option<Labels> {
    let found = net.cx.world.namespaces.get("", namespace)?;
    let own = found.metadata.labels.iter().map(|(n, v)| (n.to_owned(), v.to_owned()));
    Some(own.chain([("kubernetes.io/metadata.name".to_owned(), namespace.to_owned())]).collect())
}

fn is_port(port: &NetworkPort, target: &Target<'_>) -> bool {
    let protocol = if port.protocol.is_empty() { "TCP" } else { &port.protocol };
    if protocol != target.protocol {
        return false;
    }
    let number = |p: &IntOrString| match p {
        IntOrString::Int(n) => Some(*n),
        IntOrString::Text(name) => target
            .spec
            .containers
            .iter()
            .flat_map(|c| c.ports.iter())
            .find(|p| p.name == *name)
            .map(|p| p.container_port),
    };
    let Some(wanted) = &port.port else { return true };
    match (number(wanted), number(&target.port)) {
        (Some(from), Some(to)) => port.end_port.map_or(from == to, |end| (from..=end).contains(&to)),
        // A name that no container has: what it meant cannot be told.
        _ => *wanted == target.port || number(&target.port).is_none(),
    }
}

/// Whether these egress policies let questions to cluster DNS through.
pub(super) fn asks_dns(policies: &[&NetworkPolicy]) -> bool {
    policies.is_empty()
        || policies.iter().flat_map(|p| p.spec.egress.iter()).any(|rule| {
            // DNS is in another namespace or behind an address.
            let far =
                rule.to.is_empty() || rule.to.iter().any(|p| p.namespace_selector.is_some() || p.ip_block.is_some());
            let port = rule.ports.is_empty()
                || rule.ports.iter().any(|p| match &p.port {
                    None => true,
                    Some(IntOrString::Int(n)) => {
                        *n == 53 || p.end_port.is_some_and(|end| (*n..=end).contains(&53)) || *n == 5353
                    }
                    Some(IntOrString::Text(name)) => name.contains("dns"),
                });
            let own = rule.ports.iter().any(|p| p.port == Some(IntOrString::Int(53)));
            (far || own) && port
        })
}
