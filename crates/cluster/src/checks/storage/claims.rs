//! Claims that wait for a volume, or lost theirs.
//!
//! A claim that waits is no fault by itself: its class may bind only when a pod comes, its provisioner may be at work. It
//! is one when nothing can ever bind it, when the provisioner failed, when a pod already waits for it, or after a while.

use super::fit::{self, Fit};
use super::{Users, hit, of_claim, of_volume, refusal};
use crate::checks::config::workloads;
use crate::checks::words;
use crate::objects::{Event, Pod, Pvc, StorageClass};
use crate::{Context, Finding, Grade, Look, ObjectRef};
use nightshift_model::FaultClass;
use std::time::Duration;

/// A provisioner needs seconds, the slowest clouds a minute or two; below this a claim without errors is at work.
const PROVISIONING_MAX: Duration = Duration::from_secs(300);

/// Runs the checks of claims.
pub(super) fn run(cx: &Context<'_>, users: &Users<'_>, out: &mut Vec<Finding>) {
    for claim in cx.world.claims.iter().filter(|c| c.metadata.deletion_timestamp.is_none()) {
        let pods = users.of(&claim.metadata.namespace, &claim.metadata.name);
        out.extend(match claim.status.phase.as_str() {
            "Lost" => Some(lost(cx, claim, pods)),
            "Bound" => gone(cx, claim, pods),
            _ => pending(cx, claim, pods),
        });
    }
    missing(cx, out);
}

/// Claims that workloads name and that do not exist, where no pod was made yet that could say so.
fn missing(cx: &Context<'_>, out: &mut Vec<Finding>) {
    for workload in workloads(cx).into_iter().filter(|w| w.wanted && cx.pods_of(&w.object).is_empty()) {
        let me = &workload.object;
        for named in workload.spec.volumes.iter().filter_map(|v| v.persistent_volume_claim.as_ref()) {
            let name = &named.claim_name;
            if !cx.world.claims.look(&me.namespace, name).is_missing() {
                continue;
            }
            let there = cx.world.claims.in_namespace(&me.namespace).map(|c| c.metadata.name.as_str());
            let meant = words::nearest(name, there).map_or(String::new(), |n| format!(" (there is `{n}`)"));
            let claim = ObjectRef::new("PersistentVolumeClaim", me.namespace.clone(), name.clone());
            out.push(
                Finding::new(
                    FaultClass::MissingClaim,
                    me.clone(),
                    format!("{me} mounts claim {name}, which does not exist"),
                )
                .because(claim, format!("claim {name} does not exist{meant}: its pods cannot be placed"))
                .fix(format!("Create claim {name} in namespace {}, or name the right one in {me}", me.namespace))
                .field(me, "spec.template.spec.volumes.persistentVolumeClaim.claimName", name),
            );
        }
    }
}

/// A claim whose volume is gone, as its status says.
fn lost(cx: &Context<'_>, claim: &Pvc, pods: &[&Pod]) -> Finding {
    let (me, volume) = (of_claim(claim), &claim.spec.volume_name);
    let (cause, why) = if volume.is_empty() {
        (me.clone(), "the volume that it was bound to is gone".to_owned())
    } else if let Some(found) = cx.world.volumes.get("", volume) {
        let owner = found.spec.claim_ref.as_ref();
        let other = owner.map_or("no claim".to_owned(), |c| format!("claim {}/{}", c.namespace, c.name));
        (of_volume(volume), format!("PersistentVolume {volume} exists, but names {other} as its owner"))
    } else {
        (of_volume(volume), format!("PersistentVolume {volume}, to which it was bound, does not exist any more"))
    };
    let finding = Finding::new(FaultClass::ClaimLost, me.clone(), format!("claim {} has lost its volume", me.name))
        .because(cause, why)
        .fix(format!(
            "Bring the volume back (a PersistentVolume named `{}` for the same disk, or a restored snapshot); if its data can go, delete the claim and let it be made again: kubectl -n {} delete pvc {}",
            if volume.is_empty() { "as before" } else { volume },
            me.namespace,
            me.name
        ))
        .field(&me, "status.phase", "Lost")
        .field(&me, "spec.volumeName", volume);
    let finding = cx
        .events("PersistentVolumeClaim", &me.namespace, &me.name)
        .iter()
        .rev()
        .take(2)
        .fold(finding, |f, e| f.event(e));
    hit(cx, finding, pods)
}

/// A claim that is bound by its status, to a volume that the scheduler does not find.
fn gone(cx: &Context<'_>, claim: &Pvc, pods: &[&Pod]) -> Option<Finding> {
    let volume = &claim.spec.volume_name;
    let told = pods.iter().find(|p| {
        let text = refusal(p);
        text.contains("non-existent persistentvolume") || text.contains("non-existent pv")
    })?;
    if volume.is_empty() || !cx.world.volumes.look("", volume).is_missing() {
        return None;
    }
    let finding = lost(cx, claim, pods);
    let pod = ObjectRef::of("Pod", &told.metadata);
    Some(finding.field(&pod, "status.conditions[PodScheduled].message", refusal(told)))
}

/// Why a claim waits in vain.
struct Trouble {
    fault: FaultClass,
    cause: ObjectRef,
    why: String,
    fix: String,
}

impl Trouble {
    fn of(fault: FaultClass, cause: ObjectRef, why: String, fix: String) -> Self {
        Self { fault, cause, why, fix }
    }
}

fn pending(cx: &Context<'_>, claim: &Pvc, pods: &[&Pod]) -> Option<Finding> {
    let me = of_claim(claim);
    let events = cx.events("PersistentVolumeClaim", &me.namespace, &me.name);
    let failed = failure(events);
    // A pod that is being deleted waits for nothing.
    let waiting: Vec<&Pod> = pods
        .iter()
        .copied()
        .filter(|p| p.metadata.deletion_timestamp.is_none() && p.status.phase != "Running")
        .collect();
    let trouble = trouble(cx, claim, &me, failed, &waiting)?;
    let mut finding =
        Finding::new(trouble.fault, me.clone(), format!("claim {} cannot be bound: {}", me.name, trouble.why))
            .because(trouble.cause, trouble.why)
            .fix(trouble.fix)
            .field(&me, "status.phase", if claim.status.phase.is_empty() { "Pending" } else { &claim.status.phase })
            .since(claim.metadata.creation_timestamp);
    if let Some(class) = fit::class_of(claim) {
        finding = finding.field(&me, "spec.storageClassName", format!("`{class}`"));
    }
    if let Some(event) = failed.or(events.last().copied()) {
        finding = finding.event(event);
    }
    if let Some(pod) = waiting.iter().find(|p| !refusal(p).is_empty()) {
        finding = finding.field(
            &ObjectRef::of("Pod", &pod.metadata),
            "status.conditions[PodScheduled].message",
            refusal(pod),
        );
    }
    // Nobody waits for it yet: it will be a fault of a workload, it is not yet.
    if pods.is_empty() {
        finding = finding.graded(Grade::Medium);
    }
    if let Some(set) = from_template(cx, claim, &finding) {
        finding = finding.explained_by(set);
    }
    Some(hit(cx, finding, &waiting))
}

/// The stateful set that made the claim, when its template names the class that is missing: then the template is wrong.
fn from_template(cx: &Context<'_>, claim: &Pvc, finding: &Finding) -> Option<ObjectRef> {
    if finding.fault != FaultClass::StorageClassMissing {
        return None;
    }
    let (namespace, name) = (&claim.metadata.namespace, &claim.metadata.name);
    let set = cx.world.stateful_sets.in_namespace(namespace).find(|s| {
        s.spec.volume_claim_templates.iter().any(|t| {
            let rest = name.strip_prefix(&format!("{}-{}-", t.metadata.name, s.metadata.name));
            rest.is_some_and(|r| !r.is_empty() && r.bytes().all(|b| b.is_ascii_digit()))
                && fit::class_of(t) == fit::class_of(claim)
        })
    })?;
    Some(ObjectRef::of("StatefulSet", &set.metadata))
}

/// The newest failure of provisioning, unless it went well after.
fn failure<'a>(events: &[&'a Event]) -> Option<&'a Event> {
    let at = events.iter().rposition(|e| {
        e.reason == "ProvisioningFailed"
            || (e.reason == "FailedBinding" && e.kind == "Warning")
            || e.reason == "VolumeMismatch"
    })?;
    events[at + 1..].iter().all(|e| e.reason != "ProvisioningSucceeded").then_some(events[at])
}

fn trouble(cx: &Context<'_>, claim: &Pvc, me: &ObjectRef, failed: Option<&Event>, waiting: &[&Pod]) -> Option<Trouble> {
    let pending = FaultClass::ClaimPending;
    if !claim.spec.volume_name.is_empty() {
        return named_volume(cx, claim, me).or_else(|| failed.map(|e| provisioner_said(me, me.clone(), e)));
    }
    let Some(class_name) = fit::class_of(claim) else {
        let default = cx.world.storage_classes.iter().any(super::volumes::is_default);
        if default || !cx.world.storage_classes.sees("") {
            return failed.map(|e| provisioner_said(me, me.clone(), e));
        }
        let names = names_of_classes(cx);
        return no_volume(
            cx,
            claim,
            me,
            "",
            "it names no storage class and the cluster has no default one",
            &if names.is_empty() {
                "Create a storage class and mark it as the default, or a volume that fits".to_owned()
            } else {
                format!(
                    "Name a storage class in the claim (there {} {}), or mark one as the default: kubectl annotate storageclass {} storageclass.kubernetes.io/is-default-class=true. A claim's class cannot be changed once set: delete and create it again if that fails",
                    if names.len() == 1 { "is" } else { "are" },
                    words::list(&names),
                    names[0]
                )
            },
        );
    };
    if class_name.is_empty() {
        return no_volume(
            cx,
            claim,
            me,
            "",
            "it asks for no class (storageClassName is empty), so only a volume that is there can serve it",
            &format!(
                "Create a PersistentVolume without a class that fits {}, or name a storage class in the claim",
                me.name
            ),
        );
    }
    match cx.world.storage_classes.look("", class_name) {
        Look::Missing => missing_class(cx, claim, me, class_name),
        Look::Found(class) => of_class(cx, claim, me, class, failed, waiting),
        Look::Unseen => {
            let event = failed?;
            if event.message.contains("not found") && event.message.contains("storageclass") {
                return missing_class(cx, claim, me, class_name);
            }
            Some(provisioner_said(me, ObjectRef::new("StorageClass", "", class_name), event))
        }
    }
    .or_else(|| {
        failed
            .filter(|_| waiting.iter().any(|p| refusal(p).contains("unbound immediate")))
            .map(|e| Trouble { fault: pending, ..provisioner_said(me, me.clone(), e) })
    })
}

fn names_of_classes<'a>(cx: &Context<'a>) -> Vec<&'a str> {
    cx.world.storage_classes.iter().map(|c| c.metadata.name.as_str()).collect()
}

/// A claim that names its volume itself.
fn named_volume(cx: &Context<'_>, claim: &Pvc, me: &ObjectRef) -> Option<Trouble> {
    let name = &claim.spec.volume_name;
    match cx.world.volumes.look("", name) {
        Look::Missing => Some(Trouble::of(
            FaultClass::ClaimPending,
            of_volume(name),
            format!("it names PersistentVolume {name}, which does not exist"),
            format!("Create PersistentVolume {name}, or create the claim again without spec.volumeName"),
        )),
        Look::Found(volume) => {
            let mut misses = fit::misses(volume, claim);
            let class = fit::class_of(claim).unwrap_or_default();
            if volume.spec.storage_class_name != class {
                misses.push(format!("it has class `{}`, the claim wants `{class}`", volume.spec.storage_class_name));
            }
            if misses.is_empty() {
                return None;
            }
            let why = format!("it names PersistentVolume {name}, but {}", misses.join("; "));
            Some(Trouble::of(
                FaultClass::ClaimPending,
                of_volume(name),
                why,
                free_or_change(name, &misses.join("; "), me),
            ))
        }
        Look::Unseen => None,
    }
}

/// What to do about a volume that almost fits.
fn free_or_change(volume: &str, why: &str, me: &ObjectRef) -> String {
    if why.contains("deleted claim") {
        return format!(
            "If its data may be used again, let the volume go: kubectl patch pv {volume} --type json -p '[{{\"op\":\"remove\",\"path\":\"/spec/claimRef\"}}]'"
        );
    }
    format!(
        "Create a volume that claim {} can use, or create the claim again with what PersistentVolume {volume} offers",
        me.name
    )
}

/// Only volumes that are there can serve the claim.
fn no_volume(cx: &Context<'_>, claim: &Pvc, me: &ObjectRef, class: &str, why: &str, fix: &str) -> Option<Trouble> {
    let fault = FaultClass::ClaimPending;
    match fit::find(cx, claim, class) {
        Fit::Good | Fit::Unseen => None,
        Fit::Near(volume, miss) => {
            let name = &volume.metadata.name;
            let why = format!("{why}, and no volume fits: the nearest is PersistentVolume {name}, but {miss}");
            let ours = miss.contains("deleted claim");
            let cause = if ours { of_volume(name) } else { me.clone() };
            let fix = if ours || !class.is_empty() { free_or_change(name, &miss, me) } else { fix.to_owned() };
            Some(Trouble::of(fault, cause, why, fix))
        }
        Fit::Nothing => {
            Some(Trouble::of(fault, me.clone(), format!("{why}, and no such volume is there"), fix.to_owned()))
        }
    }
}

fn missing_class(cx: &Context<'_>, claim: &Pvc, me: &ObjectRef, class: &str) -> Option<Trouble> {
    let object = ObjectRef::new("StorageClass", "", class);
    match fit::find(cx, claim, class) {
        // A class of volumes made by hand needs no object.
        Fit::Good => None,
        Fit::Near(..) => {
            no_volume(cx, claim, me, class, &format!("no storage class `{class}` exists that could make a volume"), "")
        }
        Fit::Nothing | Fit::Unseen => {
            let names = names_of_classes(cx);
            let meant = words::nearest(class, names.iter().copied());
            let there = match (meant, names.is_empty()) {
                (Some(name), _) => format!(" (`{name}` does)"),
                (None, true) => String::new(),
                (None, false) => format!(" (there is {})", words::list(&names)),
            };
            Some(Trouble::of(
                FaultClass::StorageClassMissing,
                object,
                format!("storage class `{class}` does not exist{there}"),
                format!(
                    "Create storage class `{class}`, or delete the claim and create it again with {}: a claim's class cannot be changed",
                    meant.map_or("a class that exists".to_owned(), |n| format!("class `{n}`"))
                ),
            ))
        }
    }
}

fn of_class(
    cx: &Context<'_>,
    claim: &Pvc,
    me: &ObjectRef,
    class: &StorageClass,
    failed: Option<&Event>,
    waiting: &[&Pod],
) -> Option<Trouble> {
    let name = &class.metadata.name;
    let object = ObjectRef::new("StorageClass", "", name.clone());
    let late = class.volume_binding_mode == "WaitForFirstConsumer";
    if class.provisioner == "kubernetes.io/no-provisioner" {
        // Nobody waits, so nothing was tried.
        if late && waiting.is_empty() {
            return None;
        }
        let why = format!("class {name} makes no volumes by itself (no-provisioner)");
        let fix = format!(
            "Create a PersistentVolume of class `{name}` that fits claim {}, or use a class with a provisioner",
            me.name
        );
        return no_volume(cx, claim, me, name, &why, &fix);
    }
    if matches!(fit::find(cx, claim, name), Fit::Good) {
        return None;
    }
    if let Some(event) = failed {
        return Some(provisioner_said(me, object, event));
    }
    let provisioner = &class.provisioner;
    let waits_for_it = waiting.iter().any(|p| {
        let text = refusal(p);
        text.contains("unbound immediate") || (late && text.contains("to bind"))
    });
    // A late class begins when a pod has its node; an early one at once.
    let begun = !late || claim.metadata.annotations.get("volume.kubernetes.io/selected-node").is_some();
    let age = claim.metadata.creation_timestamp.map(|at| cx.age(at)).unwrap_or_default();
    let slow = begun && age > PROVISIONING_MAX;
    if !(waits_for_it || slow) {
        return None;
    }
    let time = if slow { format!(" for {}", words::duration(age)) } else { String::new() };
    Some(Trouble::of(
        FaultClass::ClaimPending,
        object,
        format!("provisioner {provisioner} of class {name} has made no volume{time}, and told no error"),
        format!(
            "See whether provisioner {provisioner} is installed and runs (its controller's pods and logs); kubectl -n {} describe pvc {}",
            me.namespace, me.name
        ),
    ))
}

fn provisioner_said(me: &ObjectRef, class: ObjectRef, event: &Event) -> Trouble {
    let text = event.message.split_whitespace().collect::<Vec<_>>().join(" ");
    let lower = text.to_ascii_lowercase();
    let has = |words: &[&str]| words.iter().any(|w| lower.contains(w));
    let fix = if has(&["quota", "resourceexhausted", "limit exceeded", "exceeded"]) {
        "Raise the quota for volumes at the provider, or delete volumes that nobody uses".to_owned()
    } else if has(&["unauthorized", "forbidden", "permission", "accessdenied", "not authorized"]) {
        "Give the provisioner the rights that the message names".to_owned()
    } else if has(&["parameter", "invalid", "unsupported", "not supported"]) {
        format!("Correct the parameters of {} or what claim {} asks for: see the message", class, me.name)
    } else {
        format!(
            "Do what the provisioner's message asks for; it tries again by itself: kubectl -n {} describe pvc {}",
            me.namespace, me.name
        )
    };
    let who = if class == *me { "binding failed".to_owned() } else { "provisioning failed".to_owned() };
    Trouble::of(FaultClass::ClaimPending, class, format!("{who}: {text}"), fix)
}
