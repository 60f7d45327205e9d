//! Rules about where a pod may run that leave no node: labels, other pods, spreading, volumes, ports.

use super::facts::Subject;
use super::text::some;
use crate::objects::Node;
use crate::{Finding, ObjectRef};
use nightshift_model::FaultClass;
use std::collections::BTreeSet;

pub(super) fn affinity(subject: &Subject<'_>, nodes: &[&Node]) -> Finding {
    let spec = &subject.pod.spec;
    let mut wants: Vec<String> = spec.node_selector.iter().map(|(n, v)| format!("{n}={v}")).collect();
    let terms = spec
        .affinity
        .as_ref()
        .and_then(|a| a.node_affinity.as_ref())
        .and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref());
    let any = |t: &crate::objects::NodeTerm| {
        t.match_expressions
            .iter()
            .chain(t.match_fields.iter())
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join(" and ")
    };
    if let Some(terms) = terms {
        wants.push(terms.node_selector_terms.iter().map(any).collect::<Vec<_>>().join(" or "));
    }
    let wants = if wants.is_empty() { "labels".to_owned() } else { wants.join(" and ") };
    // One label that no node has as it is asked for, and what nodes have instead.
    let unmet = spec.node_selector.iter().find(|(n, v)| !nodes.iter().any(|x| x.metadata.labels.get(n) == Some(v)));
    let note = unmet.filter(|_| !nodes.is_empty()).map(|(n, _)| {
        let have: BTreeSet<&str> = nodes.iter().filter_map(|x| x.metadata.labels.get(n)).collect();
        if have.is_empty() {
            format!("; no node has a label {n}")
        } else {
            format!("; nodes have {n}={}", some(have.into_iter()))
        }
    });
    let label = unmet.map(|(n, v)| format!("{n}={v}"));
    let give = label.map(|l| format!(", or label a node (kubectl label nodes NODE {l})")).unwrap_or_default();
    subject
        .draft(
            FaultClass::AffinityUnmet,
            format!("No node has what a pod of {} asks of its node: {wants}", subject.root.name),
        )
        .because(
            subject.root.clone(),
            format!("Its node selector or affinity asks for {wants}{}", note.unwrap_or_default()),
        )
        .fix(format!("Correct nodeSelector or nodeAffinity in {}{give}.", subject.target()))
        .field(&subject.me, "spec.nodeSelector", wants)
}

/// Selector and place of the first required pod (anti-)affinity.
pub(super) fn required(subject: &Subject<'_>, anti: bool) -> String {
    let affinity = subject.pod.spec.affinity.as_ref();
    let terms = affinity.and_then(|a| if anti { a.pod_anti_affinity.as_ref() } else { a.pod_affinity.as_ref() });
    let term = terms.and_then(|t| t.required_during_scheduling_ignored_during_execution.first());
    term.map_or(String::new(), |t| {
        let selector = t.label_selector.as_ref().map(|s| format!(" `{s}`")).unwrap_or_default();
        format!("{selector} per {}", t.topology_key)
    })
}

pub(super) fn anti_affinity(subject: &Subject<'_>) -> Finding {
    let asks = required(subject, true);
    let others = subject.cx.pods_of(subject.root).iter().filter(|p| !p.spec.node_name.is_empty()).count();
    let own = if others > 0 { format!("; {others} of its pods hold the places there are") } else { String::new() };
    subject
        .draft(
            FaultClass::AntiAffinityDeadlock,
            format!("A pod of {} may not be beside pods{asks}, and every node it fits has one", subject.root.name),
        )
        .because(subject.root.clone(), format!("Its required pod anti-affinity{asks} leaves no node{own}"))
        .fix(format!(
            "Make the anti-affinity of {} preferred, run fewer replicas than there are places, or add nodes.",
            subject.target()
        ))
        .field(&subject.me, "spec.affinity.podAntiAffinity", asks)
}

pub(super) fn spread(subject: &Subject<'_>) -> Finding {
    let constraints = subject.pod.spec.topology_spread_constraints.iter();
    let hard: Vec<String> = constraints
        .filter(|c| c.when_unsatisfiable != "ScheduleAnyway")
        .map(|c| format!("{} with maxSkew {}", c.topology_key, c.max_skew))
        .collect();
    let hard = if hard.is_empty() { "its constraints".to_owned() } else { hard.join(", ") };
    let key = subject.pod.spec.topology_spread_constraints.iter().map(|c| c.topology_key.as_str()).find(|k| {
        let nodes = &subject.cx.world.nodes;
        !nodes.is_empty() && !nodes.iter().any(|n| n.metadata.labels.get(k).is_some())
    });
    let note = key.map(|k| format!("; no node has a label {k}")).unwrap_or_default();
    subject
        .draft(
            FaultClass::TopologySpreadImpossible,
            format!("A pod of {} cannot be placed without breaking its topology spread constraints", subject.root.name),
        )
        .because(subject.root.clone(), format!("Its spread over {hard} cannot be kept on the nodes there are{note}"))
        .fix(format!(
            "Set whenUnsatisfiable: ScheduleAnyway or a larger maxSkew in {}, or add nodes where there are too few.",
            subject.target()
        ))
        .field(&subject.me, "spec.topologySpreadConstraints", hard)
}

pub(super) fn zone(subject: &Subject<'_>) -> Finding {
    let world = subject.cx.world;
    let claims = subject.pod.spec.volumes.iter().filter_map(|v| v.persistent_volume_claim.as_ref());
    let bound = claims
        .filter_map(|c| world.claims.get(subject.namespace(), &c.claim_name))
        .filter(|c| !c.spec.volume_name.is_empty());
    let mut with: Vec<_> = bound.filter_map(|c| world.volumes.get("", &c.spec.volume_name).map(|v| (c, v))).collect();
    with.sort_by_key(|(_, v)| v.spec.node_affinity.is_none());
    let mut finding = subject.draft(
        FaultClass::VolumeZoneConflict,
        format!("A pod of {} cannot run where its volume is: no node there takes it", subject.root.name),
    );
    if let Some((claim, volume)) = with.first() {
        let affinity = volume.spec.node_affinity.as_ref();
        let terms = affinity.and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref());
        let place = terms.map(|t| {
            t.node_selector_terms
                .iter()
                .flat_map(|t| t.match_expressions.iter())
                .map(ToString::to_string)
                .collect::<Vec<_>>()
                .join(" and ")
        });
        let object = ObjectRef::of("PersistentVolume", &volume.metadata);
        let place = place.unwrap_or_default();
        finding = finding
            .because(
                object.clone(),
                format!(
                    "Volume {} of claim {} can be used only on nodes with {place}",
                    volume.metadata.name, claim.metadata.name
                ),
            )
            .field(&object, "spec.nodeAffinity", place)
            .explained_by(object)
            .explained_by(ObjectRef::of("PersistentVolumeClaim", &claim.metadata));
    }
    finding.fix(format!("Let {} run where its volume is (nodeSelector, room on the nodes of that zone), or move the data to a volume in another zone; bind new volumes late (WaitForFirstConsumer).", subject.target()))
}

pub(super) fn ports(subject: &Subject<'_>) -> Finding {
    let ports: BTreeSet<i64> =
        subject.parts().flat_map(|p| p.spec.ports.iter().map(|p| p.host_port)).filter(|p| *p > 0).collect();
    let text = ports.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let has = |p: &&crate::objects::Pod| {
        !p.spec.node_name.is_empty()
            && p.metadata.name != subject.name()
            && p.spec.containers.iter().flat_map(|c| c.ports.iter()).any(|c| ports.contains(&c.host_port))
    };
    let holder = subject.cx.world.pods.iter().find(has).map(|p| subject.cx.root(p));
    let by = holder.as_ref().map(|h| format!(" by {h}")).unwrap_or_default();
    subject
        .draft(
            FaultClass::PortConflict,
            format!("Host port {text}, which a pod of {} wants, is taken on every node it fits", subject.root.name),
        )
        .because(subject.root.clone(), format!("Host port {text} is taken{by}"))
        .fix(format!(
            "Take hostPort out of {}, or give it another; a Service or a DaemonSet needs none.",
            subject.target()
        ))
        .field(&subject.me, "spec.containers[*].ports[*].hostPort", text)
}
