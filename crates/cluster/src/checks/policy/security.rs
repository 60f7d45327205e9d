//! Workloads whose pods the namespace's pod security or limit ranges must refuse, seen from their templates: nobody has
//! tried to make the pods yet, or the events are gone.

use crate::checks::workloads::kinds::{Workload, workloads};
use crate::objects::{Amounts, Container, PodSpec};
use crate::{Context, Finding, ObjectRef};
use nightshift_model::FaultClass;

/// Runs the checks.
pub(super) fn run(cx: &Context<'_>, out: &mut Vec<Finding>) {
    // Pods that are there were admitted.
    let lacks = |w: &Workload<'_>| {
        let makes = matches!(w.object.kind.as_str(), "Deployment" | "StatefulSet" | "ReplicaSet" | "DaemonSet" | "Job");
        let wanted = w.wanted > 0 || w.object.kind == "DaemonSet";
        let seen = cx.world.pods.sees(&w.meta.namespace) && cx.world.replica_sets.sees(&w.meta.namespace);
        makes && wanted && seen && cx.pods_of(&w.object).is_empty()
    };
    for w in workloads(cx).iter().filter(|w| lacks(w)) {
        out.extend(level(cx, w).or_else(|| range(cx, w)));
    }
}

fn level(cx: &Context<'_>, w: &Workload<'_>) -> Option<Finding> {
    let namespace = cx.world.namespaces.get("", &w.meta.namespace)?;
    let level = namespace.metadata.labels.get("pod-security.kubernetes.io/enforce")?;
    let breaks = breaks(w.spec, level);
    if breaks.is_empty() {
        return None;
    }
    let what = breaks.join("; ");
    let of = ObjectRef::of("Namespace", &namespace.metadata);
    Some(
        Finding::new(
            FaultClass::PodSecurityRefused,
            w.object.clone(),
            format!("Pods of {} are refused by pod security", w.object),
        )
        .because(
            of.clone(),
            format!("namespace {} enforces pod security \"{level}\", which its pods break: {what}", of.name),
        )
        .fix(format!(
            "Change the template of {} ({what}); only if it must be so, lower the label \
             pod-security.kubernetes.io/enforce of the namespace",
            w.object
        ))
        .field(&of, "metadata.labels[pod-security.kubernetes.io/enforce]", level)
        .field(&w.object, "spec.template.spec", &what),
    )
}

/// What of a template breaks a level: only what is certain.
fn breaks(spec: &PodSpec, level: &str) -> Vec<String> {
    let mut out = Vec::new();
    if !matches!(level, "baseline" | "restricted") {
        return out;
    }
    if spec.host_network {
        out.push("hostNetwork is true".to_owned());
    }
    if let Some(v) = spec.volumes.iter().find(|v| v.host_path.is_some()) {
        out.push(format!("volume {} is a hostPath", v.name));
    }
    let containers: Vec<&Container> = spec.containers.iter().chain(&spec.init_containers).collect();
    for c in &containers {
        let security = c.security_context.as_ref();
        if security.is_some_and(|s| s.privileged == Some(true)) {
            out.push(format!("container {} is privileged", c.name));
        }
        if let Some(port) = c.ports.iter().find(|p| p.host_port > 0) {
            out.push(format!("container {} takes hostPort {}", c.name, port.host_port));
        }
        if level == "restricted" {
            if security.and_then(|s| s.allow_privilege_escalation) != Some(false) {
                out.push(format!("container {} must set allowPrivilegeEscalation: false", c.name));
            }
            let of_pod = spec.security_context.as_ref().and_then(|s| s.run_as_non_root);
            if security.and_then(|s| s.run_as_non_root).or(of_pod) != Some(true) {
                out.push(format!("container {} must set runAsNonRoot: true", c.name));
            }
        }
    }
    out.truncate(6);
    out
}

/// A limit range whose bounds a container is outside of. What the range adds itself is within it.
fn range(cx: &Context<'_>, w: &Workload<'_>) -> Option<Finding> {
    for range in cx.world.limit_ranges.in_namespace(&w.meta.namespace) {
        for item in range.spec.limits.iter().filter(|l| l.kind == "Container") {
            for c in w.spec.containers.iter().chain(&w.spec.init_containers) {
                let Some((path, text)) = outside(c, &item.max, &item.min) else { continue };
                let of = ObjectRef::of("LimitRange", &range.metadata);
                return Some(
                    Finding::new(
                        FaultClass::LimitRangeRejects,
                        w.object.clone(),
                        format!("Pods of {} are refused by {of}", w.object),
                    )
                    .because(of.clone(), format!("container {}: {text}", c.name))
                    .fix(format!(
                        "Bring the resources of container {} of {} within the range, or change {of}: {text}",
                        c.name, w.object
                    ))
                    .field(&w.object, &format!("spec.template.spec.containers[{}].{path}", c.name), &text)
                    .field(&of, "spec.limits", &text)
                    .explained_by(of),
                );
            }
        }
    }
    None
}

fn outside(c: &Container, max: &Amounts, min: &Amounts) -> Option<(String, String)> {
    let told = |resource: &str, q| super::quota::amount(resource, q);
    for (resource, most) in max {
        let asked = c.resources.limits.get(resource).or_else(|| c.resources.requests.get(resource));
        if let Some(q) = asked.filter(|q| q.0 > most.0) {
            let text = format!("{resource} is {}, at most {} is allowed", told(resource, *q), told(resource, *most));
            return Some((format!("resources.limits.{resource}"), text));
        }
    }
    for (resource, least) in min {
        let asked = c.resources.requests.get(resource).or_else(|| c.resources.limits.get(resource));
        if let Some(q) = asked.filter(|q| q.0 < least.0) {
            let text = format!("{resource} is {}, at least {} is demanded", told(resource, *q), told(resource, *least));
            return Some((format!("resources.requests.{resource}"), text));
        }
    }
    None
}
