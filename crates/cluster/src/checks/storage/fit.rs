//! Whether a volume that is there could be bound to a claim, and if not, what is in the way.

use crate::checks::words;
use crate::objects::{Pv, Pvc, Quantity};
use crate::{Context, Look};

/// Class that a claim names; `None` when it leaves it to the default.
pub(super) fn class_of(claim: &Pvc) -> Option<&str> {
    // The annotation is older than the field and wins over it.
    let old = claim.metadata.annotations.get("volume.beta.kubernetes.io/storage-class");
    old.or(claim.spec.storage_class_name.as_deref())
}

/// What there is among the volumes for a claim.
pub(super) enum Fit<'a> {
    /// One that can be bound.
    Good,
    /// None that can; the nearest one of its class, and what is in the way.
    Near(&'a Pv, String),
    /// None of its class.
    Nothing,
    /// Volumes could not be seen.
    Unseen,
}

/// Free volumes that are compared to find the nearest one.
const LOOKED_AT_MAX: usize = 20;

/// Whether a volume is bound to another claim.
fn of_another(volume: &Pv, claim: &Pvc) -> bool {
    let own = &claim.metadata;
    volume.spec.claim_ref.as_ref().is_some_and(|c| c.namespace != own.namespace || c.name != own.name)
}

/// Looks for a volume for a claim of this class.
pub(super) fn find<'a>(cx: &Context<'a>, claim: &Pvc, class: &str) -> Fit<'a> {
    // A name that no volume has: all that matters is whether volumes could be seen.
    if matches!(cx.world.volumes.look("", ""), Look::Unseen) {
        return Fit::Unseen;
    }
    let of_class = || cx.world.volumes.iter().filter(|v| v.spec.storage_class_name == class);
    // Most volumes are bound to somebody else: that alone is told without writing it down.
    if of_class().any(|v| !of_another(v, claim) && fits(v, claim)) {
        return Fit::Good;
    }
    // A free one tells more than one that is taken.
    let free = of_class().filter(|v| !of_another(v, claim)).take(LOOKED_AT_MAX);
    let mut near: Option<(usize, &Pv, String)> = None;
    for volume in free.chain(of_class().filter(|v| of_another(v, claim)).take(1)) {
        let misses = misses(volume, claim);
        if near.as_ref().is_none_or(|(n, _, _)| misses.len() < *n) {
            near = Some((misses.len(), volume, misses.join("; ")));
        }
    }
    near.map_or(Fit::Nothing, |(_, volume, why)| Fit::Near(volume, why))
}

/// Whether a volume can be bound to the claim. Most that cannot are too small or of another mode, which is cheap to see.
fn fits(volume: &Pv, claim: &Pvc) -> bool {
    let size = |amounts: &crate::objects::Amounts| amounts.get("storage").map_or(0.0, |q| q.0);
    size(&volume.spec.capacity) >= size(&claim.spec.resources.requests)
        && claim.spec.access_modes.iter().all(|m| volume.spec.access_modes.contains(m))
        && misses(volume, claim).is_empty()
}

/// What is in the way of binding this volume to the claim.
pub(super) fn misses(volume: &Pv, claim: &Pvc) -> Vec<String> {
    let mut out = Vec::new();
    let own = &claim.metadata;
    if let Some(bound) = &volume.spec.claim_ref {
        let same = bound.namespace == own.namespace && bound.name == own.name;
        let other_uid = !bound.uid.is_empty() && !own.uid.is_empty() && bound.uid != own.uid;
        if !same {
            out.push(format!("it is bound to claim {}/{}", bound.namespace, bound.name));
        } else if other_uid || volume.status.phase == "Released" {
            out.push("it still belongs to a deleted claim of the same name".to_owned());
        }
    } else if matches!(volume.status.phase.as_str(), "Failed" | "Released") {
        out.push(format!("it is {}", volume.status.phase));
    }
    let storage = |amounts: &crate::objects::Amounts| amounts.get("storage").copied().unwrap_or(Quantity(0.0)).0;
    let (has, wants) = (storage(&volume.spec.capacity), storage(&claim.spec.resources.requests));
    if has < wants {
        out.push(format!("it has {}, the claim wants {}", words::bytes(has), words::bytes(wants)));
    }
    let lacks: Vec<&str> =
        claim.spec.access_modes.iter().filter(|m| !volume.spec.access_modes.contains(m)).map(String::as_str).collect();
    if !lacks.is_empty() {
        let modes = volume.spec.access_modes.join(", ");
        out.push(format!("it has access modes {modes}, the claim wants {}", words::list(&lacks)));
    }
    let mode = |text: &str| if text.is_empty() { "Filesystem".to_owned() } else { text.to_owned() };
    if mode(&volume.spec.volume_mode) != mode(&claim.spec.volume_mode) {
        out.push(format!(
            "it is a {} volume, the claim wants {}",
            mode(&volume.spec.volume_mode),
            mode(&claim.spec.volume_mode)
        ));
    }
    if let Some(selector) = claim.spec.selector.as_ref().filter(|s| !s.matches(&volume.metadata.labels)) {
        out.push(format!("its labels do not match the claim's selector {selector}"));
    }
    out
}
