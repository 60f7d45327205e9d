//! Stateful sets: their service, their claims, their order, their update partition.

use super::deployment::{behind, too_few, with_pods};
use super::kinds::{is_ready, is_starting, why_not_ready};
use crate::objects::{Pod, Pvc, StatefulSet};
use crate::{Context, Finding, Grade, ObjectRef};
use nightshift_model::FaultClass;
use std::time::Duration;

/// A partition that was written less than this ago is somebody at work, when the set is older than a day's work.
const PARTITION_FRESH: Duration = Duration::from_secs(600);
const SETTLED: Duration = Duration::from_secs(3600);

/// Runs the checks.
pub(super) fn run(cx: &Context<'_>, out: &mut Vec<Finding>) {
    for s in cx.world.stateful_sets.iter().filter(|s| s.metadata.deletion_timestamp.is_none()) {
        let object = ObjectRef::of("StatefulSet", &s.metadata);
        out.extend(service(cx, &object, s));
        out.extend(class(cx, &object, s));
        out.extend(claims(cx, &object, s));
        if let Some(finding) = behind(cx, &object, &s.metadata, s.status.observed_generation) {
            out.push(finding);
            continue;
        }
        out.extend(partition(cx, &object, s));
        out.extend(ordered(cx, &object, s).or_else(|| unready(cx, &object, s)));
    }
}

fn service(cx: &Context<'_>, object: &ObjectRef, s: &StatefulSet) -> Option<Finding> {
    let name = &s.spec.service_name;
    if name.is_empty() || s.spec.wanted() == 0 || !cx.world.services.look(&object.namespace, name).is_missing() {
        return None;
    }
    let service = ObjectRef::new("Service", object.namespace.clone(), name.clone());
    Some(
        Finding::new(
            FaultClass::HeadlessServiceMissing,
            object.clone(),
            format!("{object} names service {name}, which does not exist"),
        )
        .because(
            service,
            format!("service {name} does not exist: its pods get no names in DNS and cannot find each other"),
        )
        .fix(format!(
            "Create service {name} in namespace {} with clusterIP: None and the selector {}",
            object.namespace, s.spec.template.metadata.labels
        ))
        .field(object, "spec.serviceName", name),
    )
}

fn class(cx: &Context<'_>, object: &ObjectRef, s: &StatefulSet) -> Option<Finding> {
    let (template, class) = s.spec.volume_claim_templates.iter().find_map(|t| {
        let class = t.spec.storage_class_name.as_deref().filter(|c| !c.is_empty())?;
        if !cx.world.storage_classes.look("", class).is_missing() {
            return None;
        }
        // Volumes made by hand carry a class that no object needs to describe.
        let by_hand = cx.world.volumes.iter().any(|v| v.spec.storage_class_name == class);
        let unseen = !cx.world.volumes.sees("");
        let names = (0..s.spec.wanted().clamp(1, 1000)).map(|n| format!("{}-{}-{n}", t.metadata.name, object.name));
        let bound = names
            .into_iter()
            .all(|n| cx.world.claims.get(&object.namespace, &n).is_some_and(|c| c.status.phase == "Bound"));
        (!by_hand && !unseen && !bound).then_some((t, class))
    })?;
    let name = &template.metadata.name;
    let mut have: Vec<&str> = cx.world.storage_classes.iter().map(|c| c.metadata.name.as_str()).take(10).collect();
    have.sort_unstable();
    let have = if have.is_empty() { "there is none".to_owned() } else { format!("there are: {}", have.join(", ")) };
    let cause = ObjectRef::new("StorageClass", "", class);
    let mut finding = Finding::new(
        FaultClass::StorageClassMissing,
        object.clone(),
        format!("Claims {name} of {object} want storage class {class}, which does not exist"),
    )
    .because(cause, format!("storage class {class} does not exist, so nobody makes its volumes"))
    .fix(format!(
        "Create storage class {class}, or recreate the stateful set with a class that exists in its claim template \
         {name} ({have})"
    ))
    .field(object, &format!("spec.volumeClaimTemplates[{name}].spec.storageClassName"), class);
    for ordinal in 0..s.spec.wanted().clamp(0, 100) {
        let claim = format!("{name}-{}-{ordinal}", object.name);
        if cx.world.claims.get(&object.namespace, &claim).is_some() {
            finding = finding.hits(ObjectRef::new("PersistentVolumeClaim", object.namespace.clone(), claim));
        }
    }
    Some(finding)
}

/// Claims that exist already and are not what the template says, and pods that use another's claim.
fn claims(cx: &Context<'_>, object: &ObjectRef, s: &StatefulSet) -> Option<Finding> {
    for template in &s.spec.volume_claim_templates {
        let name = &template.metadata.name;
        for ordinal in 0..s.spec.wanted().clamp(0, 1000) {
            let claim_name = format!("{name}-{}-{ordinal}", object.name);
            let Some(claim) = cx.world.claims.get(&object.namespace, &claim_name) else { continue };
            if let Some((path, have, want)) = difference(template, claim) {
                let claim = ObjectRef::of("PersistentVolumeClaim", &claim.metadata);
                let summary =
                    format!("Claim {claim_name} of {object} does not match its template: {path} is {have}, not {want}");
                return Some(
                    Finding::new(FaultClass::ClaimMismatch, object.clone(), summary)
                        .because(
                            claim.clone(),
                            format!("{claim} was there before, with {path} {have} where the template wants {want}"),
                        )
                        .fix(format!(
                            "Move its data to a claim with {path} {want} (or, for a size, expand the claim), then \
                             delete the old claim and its pod; or put {have} into the template"
                        ))
                        .field(&claim, &format!("spec.{path}"), &have)
                        .field(object, &format!("spec.volumeClaimTemplates[{name}].spec.{path}"), &want)
                        .hits(claim.clone()),
                );
            }
        }
        if let Some(finding) = foreign_claim(cx, object, name) {
            return Some(finding);
        }
    }
    None
}

/// What of a claim differs from its template: path, what it has, what is wanted.
fn difference(template: &Pvc, claim: &Pvc) -> Option<(&'static str, String, String)> {
    let (want, have) = (&template.spec, &claim.spec);
    if let (Some(w), Some(h)) = (&want.storage_class_name, &have.storage_class_name)
        && w != h
    {
        return Some(("storageClassName", h.clone(), w.clone()));
    }
    if want.access_modes.iter().any(|m| !have.access_modes.contains(m)) {
        return Some(("accessModes", have.access_modes.join(","), want.access_modes.join(",")));
    }
    // Larger than the template is an expansion by hand, the only way to expand it.
    let size = |p: &Pvc| p.spec.resources.requests.get("storage").map_or(0.0, |q| q.0);
    (size(claim) < size(template)).then(|| {
        let text = |bytes: f64| format!("{:.1} GiB", bytes / 1_073_741_824.0);
        ("resources.requests.storage", text(size(claim)), text(size(template)))
    })
}

/// A pod whose volume is not the claim that its own name makes.
fn foreign_claim(cx: &Context<'_>, object: &ObjectRef, template: &str) -> Option<Finding> {
    cx.pods_of(object).iter().find_map(|pod| {
        let volume = pod.spec.volumes.iter().find(|v| v.name == template)?;
        let claim = &volume.persistent_volume_claim.as_ref()?.claim_name;
        let own = format!("{template}-{}", pod.metadata.name);
        if *claim == own {
            return None;
        }
        let who = ObjectRef::of("Pod", &pod.metadata);
        let other = ObjectRef::new("PersistentVolumeClaim", object.namespace.clone(), claim.clone());
        let summary = format!("Pod {} of {object} uses claim {claim} instead of its own {own}", who.name);
        Some(
            Finding::new(FaultClass::ClaimMismatch, object.clone(), summary)
                .because(other, format!("two replicas that share claim {claim} overwrite each other's data"))
                .fix(format!("Delete pod {}, so that the stateful set makes it anew with claim {own}", who.name))
                .field(&who, &format!("spec.volumes[{template}].persistentVolumeClaim.claimName"), claim)
                .hits(who.clone()),
        )
    })
}

fn ordinal(object: &ObjectRef, pod: &Pod) -> Option<i64> {
    pod.metadata.name.strip_prefix(&object.name)?.strip_prefix('-')?.parse().ok()
}

/// An early pod that is not ready holds back the later ones.
fn ordered(cx: &Context<'_>, object: &ObjectRef, s: &StatefulSet) -> Option<Finding> {
    let (wanted, status) = (s.spec.wanted(), &s.status);
    if s.spec.pod_management_policy == "Parallel" || wanted < 2 {
        return None;
    }
    let mut pods: Vec<(i64, &Pod)> =
        cx.pods_of(object).iter().filter_map(|p| Some((ordinal(object, p)?, *p))).collect();
    pods.sort_by_key(|(n, _)| *n);
    let there = i64::try_from(pods.len()).unwrap_or(i64::MAX);
    let (name, why) = match pods.iter().find(|(_, p)| !is_ready(p)) {
        Some((n, pod)) => {
            // Later pods are there too: it was not the first start that stopped.
            if there >= wanted || pods.iter().any(|(other, _)| other > n) || is_starting(cx, pod) {
                return None;
            }
            if pod.metadata.deletion_timestamp.is_some() || !told(cx, pod) {
                return None;
            }
            (pod.metadata.name.clone(), why_not_ready(pod))
        }
        None => {
            // No pod was seen: what the status says. All that there are but one are ready, and more are wanted.
            let stopped = status.replicas > 0 && status.replicas < wanted && status.ready_replicas < status.replicas;
            if !pods.is_empty() || !stopped {
                return None;
            }
            (format!("{}-{}", object.name, status.ready_replicas), "it is not ready".to_owned())
        }
    };
    let pod = ObjectRef::new("Pod", object.namespace.clone(), name.clone());
    let finding = Finding::new(
        FaultClass::OrderedStartBlocked,
        object.clone(),
        format!("Pod {name} of {object} is not ready, so the later of {wanted} replicas are not started"),
    )
    .because(pod.clone(), format!("{why}; replicas are started in order, each when the one before is ready"))
    .fix(format!(
        "Mend pod {name} (kubectl -n {} describe pod {name}); where order does not matter, use podManagementPolicy: \
         Parallel",
        object.namespace
    ))
    .field(
        object,
        "status.readyReplicas",
        format!("{} of {wanted} wanted, {} there", status.ready_replicas, status.replicas),
    )
    .hits(pod)
    .generic();
    Some(with_pods(cx, finding, object))
}

/// Whether enough time or words speak for more than a slow start.
fn told(cx: &Context<'_>, pod: &Pod) -> bool {
    let ready = pod.status.conditions.when("Ready", "False");
    let since = ready.and_then(|c| c.last_transition_time).or(pod.metadata.creation_timestamp);
    !matches!(pod.status.phase.as_str(), "" | "Pending" | "Running")
        || pod.status.container_statuses.iter().any(|c| c.restart_count > 0 || c.state.waiting.is_some())
        || pod.status.conditions.when("PodScheduled", "False").is_some()
        || since.is_none_or(|at| cx.age(at) >= Duration::from_secs(30))
}

fn unready(cx: &Context<'_>, object: &ObjectRef, s: &StatefulSet) -> Option<Finding> {
    let status = &s.status;
    // One pod at a time is down while an update goes on.
    let updating = !status.update_revision.is_empty()
        && status.update_revision != status.current_revision
        && s.spec.wanted() - status.ready_replicas <= 1
        && s.spec.wanted() > 1
        && cx
            .pods_of(object)
            .iter()
            .all(|p| is_ready(p) || is_starting(cx, p) || p.metadata.deletion_timestamp.is_some());
    if updating { None } else { too_few(cx, object, s.spec.wanted(), status) }
}

fn partition(cx: &Context<'_>, object: &ObjectRef, s: &StatefulSet) -> Option<Finding> {
    let partition = s.spec.update_strategy.rolling_update.as_ref()?.partition.filter(|p| *p > 0)?;
    let (status, wanted) = (&s.status, s.spec.wanted());
    let held = partition.min(wanted);
    let outdated = !status.update_revision.is_empty()
        && !status.current_revision.is_empty()
        && status.update_revision != status.current_revision;
    if !outdated || held == 0 || s.spec.update_strategy.kind == "OnDelete" {
        return None;
    }
    let writer = s.metadata.last_writer();
    let old = s.metadata.creation_timestamp.is_some_and(|at| cx.age(at) > SETTLED);
    let fresh = old && writer.and_then(|w| w.time).is_some_and(|at| cx.age(at) < PARTITION_FRESH);
    let by = writer.map_or(String::new(), |w| format!(", last written by {}", w.manager));
    let finding = Finding::new(
        FaultClass::PartitionForgotten,
        object.clone(),
        format!("{object} keeps {held} of {wanted} replicas at the old revision: its update partition is {partition}"),
    )
    .because(
        object.clone(),
        format!(
            "spec.updateStrategy.rollingUpdate.partition is {partition}{by}: replicas below that number are not updated"
        ),
    )
    .fix(format!(
        "Finish the rollout when the updated replicas are good: kubectl -n {} patch statefulset {} -p \
         '{{\"spec\":{{\"updateStrategy\":{{\"rollingUpdate\":{{\"partition\":0}}}}}}}}'",
        object.namespace, object.name
    ))
    .field(object, "spec.updateStrategy.rollingUpdate.partition", partition.to_string())
    .field(
        object,
        "status.updateRevision",
        format!("{}, current: {}", status.update_revision, status.current_revision),
    );
    Some(if fresh { finding.graded(Grade::Info) } else { finding })
}
