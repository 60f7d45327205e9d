//! Volumes for one node that are wanted on two.

use super::{Users, hit, of_claim, refusal};
use crate::checks::words;
use crate::objects::{Event, Pod, Pvc};
use crate::{Context, Finding, Grade, ObjectRef};
use nightshift_model::FaultClass;
use std::collections::{BTreeMap, BTreeSet};

/// Runs the check.
pub(super) fn run(cx: &Context<'_>, users: &Users<'_>, out: &mut Vec<Finding>) {
    let refused = refusals(cx, users);
    for claim in cx.world.claims.iter() {
        let pods = users.of(&claim.metadata.namespace, &claim.metadata.name);
        let event = refused.get(&(claim.metadata.namespace.as_str(), claim.metadata.name.as_str())).copied();
        if event.is_some() || pods.len() > 1 {
            out.extend(twice(cx, claim, pods, event));
        }
    }
}

/// The newest refusal to attach a volume because it is attached elsewhere, by claim.
fn refusals<'a>(cx: &Context<'a>, users: &Users<'a>) -> BTreeMap<(&'a str, &'a str), &'a Event> {
    let mut out = BTreeMap::new();
    for (namespace, claim, pods) in users.0.iter().flat_map(|(n, c)| c.iter().map(move |(c, p)| (n, c, p))) {
        for pod in pods.iter().filter(|p| p.status.phase != "Running") {
            let said = cx
                .events("Pod", namespace, &pod.metadata.name)
                .iter()
                .rev()
                .find(|e| e.message.contains("Multi-Attach error"));
            let Some(event) = said else { continue };
            // The message names the volume; a pod may have several.
            let volume = cx.world.claims.get(namespace, claim).map_or("", |c| c.spec.volume_name.as_str());
            let alone = pod.spec.volumes.iter().filter(|v| v.persistent_volume_claim.is_some()).count() == 1;
            if alone || (!volume.is_empty() && event.message.contains(&format!("\"{volume}\""))) {
                out.insert((*namespace, *claim), *event);
            }
        }
    }
    out
}

fn twice(cx: &Context<'_>, claim: &Pvc, pods: &[&Pod], refused: Option<&Event>) -> Option<Finding> {
    let modes = &claim.spec.access_modes;
    let has = |mode: &str| modes.iter().any(|m| m == mode);
    if has("ReadWriteMany") || has("ReadOnlyMany") || modes.is_empty() {
        return None;
    }
    let single = has("ReadWriteOncePod");
    let live: Vec<&Pod> = pods.iter().copied().filter(|p| p.metadata.deletion_timestamp.is_none()).collect();
    // A pod that ends still holds its volume until it is gone.
    let holds = |p: &&&Pod| !p.spec.node_name.is_empty() && matches!(p.status.phase.as_str(), "Running" | "Unknown");
    let holders: Vec<&Pod> = pods.iter().filter(holds).copied().collect();
    let nodes: BTreeSet<&str> = live.iter().map(|p| p.spec.node_name.as_str()).filter(|n| !n.is_empty()).collect();
    let blocked: Vec<&Pod> = live.iter().filter(|p| p.status.phase != "Running").copied().collect();
    let conflict = if single {
        // By the scheduler's word, or two that run.
        blocked.iter().any(|p| refusal(p).contains("ReadWriteOncePod"))
            || live.iter().filter(|p| !p.spec.node_name.is_empty()).count() > 1
    } else {
        refused.is_some() || nodes.len() > 1
    };
    if !conflict {
        return None;
    }
    let me = of_claim(claim);
    // Who waits is the one that changed; without any, those that share it.
    let asker = blocked.first().or_else(|| live.last()).map(|p| cx.root(p)).unwrap_or_else(|| me.clone());
    let owners: BTreeSet<ObjectRef> = pods.iter().map(|p| cx.root(p)).collect();
    let mode = if single { "ReadWriteOncePod: one pod at a time" } else { "ReadWriteOnce: one node at a time" };
    let place = |p: &&Pod| {
        format!(
            "{} on {}",
            p.metadata.name,
            if p.spec.node_name.is_empty() { "no node yet" } else { &p.spec.node_name }
        )
    };
    let places: Vec<String> = pods.iter().map(place).collect();
    let replicas = cx.world.deployments.get(&asker.namespace, &asker.name).filter(|_| asker.kind == "Deployment");
    let (why, fix) = match replicas {
        Some(d) if owners.len() < 2 && d.spec.wanted() > 1 => (
            format!("its {} replicas share one claim, and land on several nodes", d.spec.wanted()),
            format!("Run one replica, or give each its own claim (a StatefulSet), or use a claim with ReadWriteMany: {me} is {mode}"),
        ),
        Some(d) if owners.len() < 2 && d.spec.strategy.kind != "Recreate" => (
            "it starts the new pod before the old one is gone (RollingUpdate), and both want the claim".to_owned(),
            format!("Set spec.strategy.type: Recreate on {asker}, so that the old pod lets the volume go first"),
        ),
        _ if owners.len() > 1 => (
            format!("{} want the same claim on different nodes", words::list(&owners.iter().map(ToString::to_string).collect::<Vec<_>>())),
            "Give each its own claim, run them on one node, or use a claim with ReadWriteMany".to_owned(),
        ),
        _ => (
            "it wants the claim while another node still holds the volume".to_owned(),
            "Wait until the old pod is gone, or delete it; if its node is lost, taint it node.kubernetes.io/out-of-service so that the volume is let go".to_owned(),
        ),
    };
    let mut finding = Finding::new(
        FaultClass::VolumeMultiAttach,
        me.clone(),
        format!(
            "claim {} is for one {} and is wanted in two places: {}",
            me.name,
            if single { "pod" } else { "node" },
            words::list(&places)
        ),
    )
    .because(asker, why)
    .fix(fix)
    .field(&me, "spec.accessModes", modes.join(", "));
    if blocked.is_empty() && refused.is_none() {
        finding = finding.graded(Grade::Medium);
    }
    if let Some(event) = refused {
        finding = finding.event(event);
    }
    for pod in pods.iter().take(4) {
        let object = ObjectRef::of("Pod", &pod.metadata);
        finding = finding.field(&object, "spec.nodeName", &pod.spec.node_name);
    }
    // A lost node does not let its volumes go.
    for node in holders.iter().map(|p| p.spec.node_name.as_str()).collect::<BTreeSet<_>>() {
        finding = finding.explained_by(ObjectRef::new("Node", "", node));
    }
    Some(hit(cx, finding, &blocked))
}
