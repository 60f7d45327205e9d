//! Claims, volumes, classes.

mod attach;
mod claims;
mod filling;
mod fit;
mod volumes;

use crate::objects::{Pod, Pvc};
use crate::{Context, Finding, ObjectRef};
use std::collections::BTreeMap;

/// Runs the checks of this group.
pub(super) fn run(cx: &Context<'_>, out: &mut Vec<Finding>) {
    let users = Users::new(cx);
    claims::run(cx, &users, out);
    attach::run(cx, &users, out);
    volumes::run(cx, &users, out);
    filling::run(cx, &users, out);
}

/// The pods that mount each claim and have not ended, by namespace and claim.
struct Users<'a>(BTreeMap<&'a str, BTreeMap<&'a str, Vec<&'a Pod>>>);

impl<'a> Users<'a> {
    fn new(cx: &Context<'a>) -> Self {
        let mut users: BTreeMap<&str, BTreeMap<&str, Vec<&Pod>>> = BTreeMap::new();
        for pod in cx.world.pods.iter().filter(|p| !matches!(p.status.phase.as_str(), "Succeeded" | "Failed")) {
            for claim in pod.spec.volumes.iter().filter_map(|v| v.persistent_volume_claim.as_ref()) {
                let of_namespace = users.entry(&pod.metadata.namespace).or_default();
                of_namespace.entry(&claim.claim_name).or_default().push(pod);
            }
        }
        // Generic ephemeral volumes: the claim is owned by its pod and named after it and the volume.
        for claim in cx.world.claims.iter() {
            let Some(owner) = claim.metadata.controller().filter(|o| o.kind == "Pod") else { continue };
            let Some(pod) = cx.world.pods.get(&claim.metadata.namespace, &owner.name) else { continue };
            let volumes = pod.spec.volumes.iter().filter(|v| v.ephemeral.is_some());
            if volumes.into_iter().any(|v| claim.metadata.name == format!("{}-{}", pod.metadata.name, v.name)) {
                let of_namespace = users.entry(&claim.metadata.namespace).or_default();
                of_namespace.entry(&claim.metadata.name).or_default().push(pod);
            }
        }
        Self(users)
    }

    /// The pods of a claim, by name.
    fn of(&self, namespace: &str, claim: &str) -> &[&'a Pod] {
        self.0.get(namespace).and_then(|n| n.get(claim)).map_or(&[], Vec::as_slice)
    }
}

/// Adds the pods of a claim, and what they belong to, to those that suffer.
fn hit(cx: &Context<'_>, mut finding: Finding, pods: &[&Pod]) -> Finding {
    for pod in pods {
        let root = cx.root(pod);
        if root.kind != "Pod" {
            finding = finding.hits(root);
        }
        finding = finding.hits(ObjectRef::of("Pod", &pod.metadata));
    }
    finding
}

/// A reference to a claim.
fn of_claim(claim: &Pvc) -> ObjectRef {
    ObjectRef::of("PersistentVolumeClaim", &claim.metadata)
}

/// A reference to a volume.
fn of_volume(name: &str) -> ObjectRef {
    ObjectRef::new("PersistentVolume", "", name)
}

/// What the scheduler says of a pod that it cannot place; empty when it says nothing.
fn refusal(pod: &Pod) -> &str {
    pod.status.conditions.when("PodScheduled", "False").map_or("", |c| c.message.as_str())
}
