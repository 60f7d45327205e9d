//! Volumes that nobody can use, and the classes that make them.

use super::{Users, hit, of_volume};
use crate::checks::words;
use crate::objects::{Node, NodeTerm, Pv, StorageClass};
use crate::{Context, Finding, Grade, ObjectRef};
use nightshift_model::FaultClass;

/// Label of a node that is its name, on nodes that their own kubelet labelled.
const HOSTNAME: &str = "kubernetes.io/hostname";

/// Runs the checks of volumes and classes.
pub(super) fn run(cx: &Context<'_>, users: &Users<'_>, out: &mut Vec<Finding>) {
    for volume in cx.world.volumes.iter().filter(|v| v.metadata.deletion_timestamp.is_none()) {
        out.extend(phase(cx, users, volume));
        out.extend(unreachable(cx, users, volume));
    }
    out.extend(defaults(cx));
}

/// Whether claims without a class get this one.
pub(super) fn is_default(class: &StorageClass) -> bool {
    let marks = ["storageclass.kubernetes.io/is-default-class", "storageclass.beta.kubernetes.io/is-default-class"];
    marks.iter().any(|m| class.metadata.annotations.get(m) == Some("true"))
}

/// Released or failed.
fn phase(cx: &Context<'_>, users: &Users<'_>, volume: &Pv) -> Option<Finding> {
    let failed = match volume.status.phase.as_str() {
        "Failed" => true,
        "Released" => false,
        _ => return None,
    };
    let name = &volume.metadata.name;
    let me = of_volume(name);
    let claim = volume.spec.claim_ref.as_ref();
    let owner = claim.map_or("its claim".to_owned(), |c| format!("claim {}/{}", c.namespace, c.name));
    let policy = volume.spec.persistent_volume_reclaim_policy.as_str();
    let said = if volume.status.message.is_empty() { &volume.status.reason } else { &volume.status.message };
    let events = cx.events("PersistentVolume", "", name);
    let failure =
        events.iter().rev().find(|e| matches!(e.reason.as_str(), "VolumeFailedDelete" | "VolumeFailedRecycle"));
    let tried = failure.map_or(said.as_str(), |e| e.message.as_str());
    let told = if tried.is_empty() { String::new() } else { format!(": {}", tried.trim_end_matches('.')) };
    let size = volume.spec.capacity.get("storage").map_or(String::new(), |q| format!(" ({})", words::bytes(q.0)));
    let (summary, why, fix) = if failed {
        (
            format!("volume {name}{size} has failed"),
            format!("it could not be reclaimed after {owner} was deleted{told}"),
            format!("Remove the disk at the provider if its data can go, then the object: kubectl delete pv {name}"),
        )
    } else if policy == "Delete" {
        (
            format!("volume {name}{size} is released and not deleted"),
            format!("{owner} is gone, and the volume, which should be deleted with it, is still there{told}"),
            format!(
                "See why its provisioner does not delete it; by hand: remove the disk, then kubectl delete pv {name}"
            ),
        )
    } else {
        (
            format!("volume {name}{size} is released: nobody can use it"),
            format!(
                "{owner} is gone, the reclaim policy is Retain, and the volume still names that claim as its owner{told}"
            ),
            format!(
                "If its data can go: kubectl delete pv {name} (and the disk). To use it again: kubectl patch pv {name} --type json -p '[{{\"op\":\"remove\",\"path\":\"/spec/claimRef\"}}]'"
            ),
        )
    };
    let mut finding = Finding::new(FaultClass::VolumeFailed, me.clone(), summary)
        .because(me.clone(), why)
        .fix(fix)
        .graded(if failed { Grade::Medium } else { Grade::Low })
        .field(&me, "status.phase", &volume.status.phase)
        .field(&me, "spec.persistentVolumeReclaimPolicy", policy)
        .since(volume.status.last_phase_transition_time)
        .generic();
    if !said.is_empty() {
        finding = finding.field(&me, "status.message", said);
    }
    if let Some(event) = failure {
        finding = finding.event(event);
    }
    if let Some(claim) = claim {
        // A new claim of that name which cannot have it tells the same with more.
        finding = finding
            .field(&me, "spec.claimRef", format!("{}/{}", claim.namespace, claim.name))
            .explained_by(ObjectRef::new("PersistentVolumeClaim", claim.namespace.clone(), claim.name.clone()));
        let pods = if failed { users.of(&claim.namespace, &claim.name) } else { &[] };
        finding = hit(cx, finding, pods);
    }
    Some(finding)
}

/// No node can reach it.
fn unreachable(cx: &Context<'_>, users: &Users<'_>, volume: &Pv) -> Option<Finding> {
    let terms = volume.spec.node_affinity.as_ref()?.required_during_scheduling_ignored_during_execution.as_ref()?;
    // Without any node nothing can be said about this volume.
    if !cx.world.nodes.sees("") || cx.world.nodes.is_empty() {
        return None;
    }
    if cx.world.nodes.iter().any(|n| terms.node_selector_terms.iter().any(|t| holds(t, n))) {
        return None;
    }
    let name = &volume.metadata.name;
    let me = of_volume(name);
    let wanted: Vec<String> = terms
        .node_selector_terms
        .iter()
        .map(|t| {
            t.match_expressions.iter().chain(&t.match_fields).map(ToString::to_string).collect::<Vec<_>>().join(", ")
        })
        .collect();
    let wanted = wanted.join(" or ");
    // The one node of a local volume: it is what is missing.
    let one =
        terms.node_selector_terms.iter().flat_map(|t| t.match_expressions.iter().chain(&t.match_fields)).find_map(
            |r| {
                let by_name = r.key == HOSTNAME || r.key == "metadata.name";
                (by_name && r.values.len() == 1).then(|| r.values[0].as_str())
            },
        );
    let (cause, why, fix) = match one {
        Some(node) => (
            ObjectRef::new("Node", "", node),
            format!("it is on node {node}, which is not in the cluster"),
            format!(
                "Bring node {node} back, or restore the data to a volume on another node and delete PersistentVolume {name}"
            ),
        ),
        None => (
            me.clone(),
            format!("no node has {wanted}"),
            format!("Add a node with {wanted}, or move the data to a volume where there are nodes"),
        ),
    };
    let mut finding =
        Finding::new(FaultClass::VolumeUnreachable, me.clone(), format!("no node can reach volume {name}"))
            .because(cause, why)
            .fix(fix)
            .field(&me, "spec.nodeAffinity", wanted);
    let claim = volume.spec.claim_ref.as_ref();
    let pods = claim.map_or(&[][..], |c| users.of(&c.namespace, &c.name));
    if let Some(claim) = claim {
        finding = finding.hits(ObjectRef::new("PersistentVolumeClaim", claim.namespace.clone(), claim.name.clone()));
    }
    if pods.is_empty() {
        finding = finding.graded(Grade::Medium);
    }
    Some(hit(cx, finding, pods))
}

/// Whether a node meets a term. A term that asks for nothing is met by nothing.
fn holds(term: &NodeTerm, node: &Node) -> bool {
    let meta = &node.metadata;
    let label = |r: &crate::objects::Requirement| {
        // Nodes that were made by hand may lack the label of their name.
        let named = r.key == HOSTNAME && meta.labels.get(HOSTNAME).is_none();
        r.matches(&meta.labels) || (named && r.operator == "In" && r.values.contains(&meta.name))
    };
    let field = |r: &crate::objects::Requirement| match r.operator.as_str() {
        "In" => r.key == "metadata.name" && r.values.contains(&meta.name),
        "NotIn" => r.key == "metadata.name" && !r.values.contains(&meta.name),
        _ => false,
    };
    let some = !term.match_expressions.is_empty() || !term.match_fields.is_empty();
    some && term.match_expressions.iter().all(label) && term.match_fields.iter().all(field)
}

/// More than one default class.
fn defaults(cx: &Context<'_>) -> Option<Finding> {
    let mut all: Vec<&StorageClass> = cx.world.storage_classes.iter().filter(|c| is_default(c)).collect();
    if all.len() < 2 {
        return None;
    }
    // The newest is the one that claims get, of several the first by name: so the server does it.
    all.sort_by(|a, b| {
        b.metadata
            .creation_timestamp
            .cmp(&a.metadata.creation_timestamp)
            .then_with(|| a.metadata.name.cmp(&b.metadata.name))
    });
    let names: Vec<&str> = all.iter().map(|c| c.metadata.name.as_str()).collect();
    let me = ObjectRef::of("StorageClass", &all[0].metadata);
    let others = words::list(&names[1..]);
    let finding = Finding::new(
        FaultClass::DefaultClassAmbiguous,
        me.clone(),
        format!("{} storage classes are marked as the default: {}", all.len(), words::list(&names)),
    )
    .because(
        me.clone(),
        format!("claims without a class get `{}`, the newest, although {others} is marked as the default too", me.name),
    )
    .fix(format!(
        "Leave the mark on one: kubectl annotate storageclass {} storageclass.kubernetes.io/is-default-class=false --overwrite",
        names[1]
    ));
    Some(all.iter().fold(finding, |f, class| {
        let object = ObjectRef::of("StorageClass", &class.metadata);
        let f = f.field(&object, "metadata.annotations[storageclass.kubernetes.io/is-default-class]", "true");
        if object == me { f } else { f.hits(object) }
    }))
}
