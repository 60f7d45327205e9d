//! Horizontal pod autoscalers.

use super::kinds::is_ready;
use crate::checks::history::Record;
use crate::objects::{Condition, Container, Hpa, MetricSpec, PodSpec, Quantity, ResourceMetric};
use crate::{Context, Finding, Look, ObjectRef};
use nightshift_model::{FaultClass, Timestamp};
use std::collections::BTreeMap;
use std::time::Duration;

/// Share of its target by which a metric must be above it to count: what the autoscaler itself tolerates.
const TOLERANCE: f64 = 1.1;
/// Target, in percent of the requests, at or below which an idle program already scales up.
const LOW_PERCENT: f64 = 15.0;
/// Changes of direction within [`FLAP_WINDOW`] from which on it flaps: two ups and two downs.
const TURNS: usize = 3;
const FLAP_WINDOW: Duration = Duration::from_secs(3600);

/// Runs the checks.
pub(super) fn run(cx: &Context<'_>, out: &mut Vec<Finding>) {
    let mut first: BTreeMap<(&str, &str, &str), &Hpa> = BTreeMap::new();
    for h in cx.world.hpas.iter().filter(|h| h.metadata.deletion_timestamp.is_none()) {
        let object = ObjectRef::of("HorizontalPodAutoscaler", &h.metadata);
        let reference = &h.spec.scale_target_ref;
        let target = ObjectRef::new(reference.kind.clone(), object.namespace.clone(), reference.name.clone());
        let key = (h.metadata.namespace.as_str(), reference.kind.as_str(), reference.name.as_str());
        if let Some(other) = first.get(&key) {
            out.push(rivals(&object, &target, &ObjectRef::of("HorizontalPodAutoscaler", &other.metadata)));
            continue;
        }
        first.insert(key, h);
        let found = target_missing(cx, &object, &target, h)
            .or_else(|| no_requests(cx, &object, &target, h))
            .or_else(|| no_metrics(cx, &object, &target, h))
            .or_else(|| at_maximum(&object, &target, h))
            .or_else(|| threshold(cx, &object, &target, h))
            .or_else(|| flapping(cx, &object, &target, h));
        out.extend(found);
    }
}

fn rivals(object: &ObjectRef, target: &ObjectRef, other: &ObjectRef) -> Finding {
    Finding::new(
        FaultClass::HpaMisconfigured,
        object.clone(),
        format!("{object} and {other} both scale {target}: each undoes what the other does"),
    )
    .because(other.clone(), format!("{target} has two autoscalers"))
    .fix(format!(
        "Delete one of them; one autoscaler can hold several metrics: kubectl -n {} delete hpa {}",
        object.namespace, object.name
    ))
    .field(object, "spec.scaleTargetRef", target.to_string())
    .field(other, "spec.scaleTargetRef", target.to_string())
}

fn target_missing(cx: &Context<'_>, object: &ObjectRef, target: &ObjectRef, h: &Hpa) -> Option<Finding> {
    let reference = &h.spec.scale_target_ref;
    let (kind, namespace, name) = (reference.kind.as_str(), object.namespace.as_str(), reference.name.as_str());
    let missing = match kind {
        "Deployment" => cx.world.deployments.look(namespace, name).is_missing(),
        "StatefulSet" => cx.world.stateful_sets.look(namespace, name).is_missing(),
        "ReplicaSet" => cx.world.replica_sets.look(namespace, name).is_missing(),
        _ => false,
    };
    let fixed = matches!(
        kind,
        "DaemonSet"
            | "Job"
            | "CronJob"
            | "Pod"
            | "Service"
            | "Node"
            | "Namespace"
            | "ConfigMap"
            | "PodDisruptionBudget"
    );
    let apps = matches!(kind, "Deployment" | "StatefulSet" | "ReplicaSet");
    let group = reference.api_version.split_once('/').map_or("", |(g, _)| g);
    let told = h.status.conditions.when("AbleToScale", "False").filter(|c| c.reason == "FailedGetScale");
    let (why, fix) = if fixed {
        (
            format!("a {kind} has no replicas to scale"),
            format!(
                "Point spec.scaleTargetRef at a Deployment or StatefulSet, or delete the autoscaler: nothing scales a {kind}"
            ),
        )
    } else if missing {
        let near = nearest(cx, kind, namespace, name);
        let hint = near.map_or(String::new(), |n| format!("; there is one named {n}"));
        (
            format!("{target} does not exist{hint}"),
            format!("Correct spec.scaleTargetRef.name of the autoscaler{hint}, or create {target}"),
        )
    } else if apps && group != "apps" {
        (
            format!("{kind} is of group apps, not of `{}`", reference.api_version),
            "Set spec.scaleTargetRef.apiVersion to apps/v1".to_owned(),
        )
    } else {
        let c = told?;
        (
            format!("the scale of {target} cannot be read: {}", c.message),
            format!("See that {target} exists, has a scale subresource, and may be read by the autoscaler"),
        )
    };
    let mut finding = Finding::new(
        FaultClass::HpaTargetMissing,
        object.clone(),
        format!("{object} scales nothing: {target} is missing or cannot be scaled"),
    )
    .because(target.clone(), why)
    .fix(fix)
    .field(object, "spec.scaleTargetRef", format!("{} {target}", reference.api_version));
    if let Some(c) = told {
        finding = finding.field(object, "status.conditions[AbleToScale]", format!("{}: {}", c.reason, c.message));
    }
    Some(finding)
}

/// A name of the same kind that has the wanted one in it, or is in it.
fn nearest(cx: &Context<'_>, kind: &str, namespace: &str, name: &str) -> Option<String> {
    let near = |other: &str| other.contains(name) || name.contains(other);
    let names: Vec<&str> = match kind {
        "Deployment" => cx.world.deployments.in_namespace(namespace).map(|d| d.metadata.name.as_str()).collect(),
        "StatefulSet" => cx.world.stateful_sets.in_namespace(namespace).map(|d| d.metadata.name.as_str()).collect(),
        _ => Vec::new(),
    };
    names.into_iter().find(|n| near(n)).map(str::to_owned)
}

/// The pod template of the target.
fn template<'a>(cx: &Context<'a>, target: &ObjectRef) -> Option<&'a PodSpec> {
    let (namespace, name) = (target.namespace.as_str(), target.name.as_str());
    Some(match target.kind.as_str() {
        "Deployment" => &cx.world.deployments.get(namespace, name)?.spec.template.spec,
        "StatefulSet" => &cx.world.stateful_sets.get(namespace, name)?.spec.template.spec,
        "ReplicaSet" => &cx.world.replica_sets.get(namespace, name)?.spec.template.spec,
        _ => return None,
    })
}

/// Containers whose requests count: all that run as long as the pod does.
fn counted(spec: &PodSpec) -> impl Iterator<Item = &Container> {
    spec.containers.iter().chain(spec.init_containers.iter().filter(|c| c.is_sidecar()))
}

fn metric(m: &MetricSpec) -> Option<&ResourceMetric> {
    m.resource.as_ref().or(m.container_resource.as_ref())
}

/// Why it does not scale: its condition, or where it has none its newest event about metrics.
fn inactive(cx: &Context<'_>, object: &ObjectRef, h: &Hpa) -> Option<Condition> {
    if h.status.conditions.of("ScalingActive").is_some() {
        return h.status.conditions.when("ScalingActive", "False").cloned();
    }
    let events = cx.events("HorizontalPodAutoscaler", &object.namespace, &object.name).iter().rev();
    let of_metrics =
        |r: &str| r != "FailedGetScale" && r.starts_with("FailedGet") || r == "FailedComputeMetricsReplicas";
    let event = events.copied().find(|e| of_metrics(&e.reason) || e.reason == "SuccessfulRescale")?;
    // It has scaled since.
    of_metrics(&event.reason).then(|| Condition {
        kind: "ScalingActive".into(),
        status: "False".into(),
        reason: event.reason.clone(),
        message: event.message.clone(),
        last_transition_time: event.first_seen(),
        ..Condition::default()
    })
}

fn no_requests(cx: &Context<'_>, object: &ObjectRef, target: &ObjectRef, h: &Hpa) -> Option<Finding> {
    let told = inactive(cx, object, h).filter(|c| c.message.contains("missing request for"));
    let told = told.as_ref();
    let by_spec = h.spec.metrics.iter().filter_map(metric).find_map(|m| {
        (m.target.average_utilization.is_some()).then_some(())?;
        Some((m.name.as_str(), lacking(cx, target, m)?))
    });
    let (resource, container) = match (&by_spec, told) {
        (Some((resource, container)), _) => ((*resource).to_owned(), container.clone()),
        (None, Some(c)) => {
            // Old words of an event or condition, when pods have requests now, are not true any more.
            let part = |mark: &str| {
                super::refusal::between(&c.message, mark, " ").map(|t| t.trim_end_matches([',', '.']).to_owned())
            };
            (part("missing request for ").unwrap_or_else(|| "cpu".into()), part("in container ").unwrap_or_default())
        }
        (None, None) => return None,
    };
    let which = if container.is_empty() { "a container".to_owned() } else { format!("container {container}") };
    let mut finding = Finding::new(
        FaultClass::HpaNoRequests,
        object.clone(),
        format!("{object} cannot compute: {which} of {target} requests no {resource}"),
    )
    .because(
        target.clone(),
        format!("{which} of {target} has no {resource} request, and the autoscaler works in percent of the requests"),
    )
    .fix(format!(
        "Set a request: kubectl -n {} set resources {}/{} {} --requests={resource}=<what it uses>",
        object.namespace,
        target.kind.to_ascii_lowercase(),
        target.name,
        if container.is_empty() { String::new() } else { format!("-c {container}") }
    ))
    .field(object, "spec.metrics", format!("averageUtilization of {resource}"));
    finding = match told {
        Some(c) => finding.field(object, "status.conditions[ScalingActive]", format!("{}: {}", c.reason, c.message)),
        None => finding.field(
            target,
            &format!("spec.template.spec.containers[{container}].resources.requests"),
            format!("no {resource}"),
        ),
    };
    Some(finding)
}

/// The container that has no request for the metric, if any: in its pods, where there are some, else in its template
/// and what the namespace's limit ranges would add.
fn lacking(cx: &Context<'_>, target: &ObjectRef, m: &ResourceMetric) -> Option<String> {
    let has = |c: &Container| c.resources.requests.contains_key(&m.name) || c.resources.limits.contains_key(&m.name);
    let concerns = |c: &&Container| m.container.is_empty() || c.name == m.container;
    let pods = cx.pods_of(target);
    if !pods.is_empty() {
        let specs = pods.iter().map(|p| &p.spec);
        return specs.flat_map(counted).filter(concerns).find(|c| !has(c)).map(|c| c.name.clone());
    }
    let added = cx.world.limit_ranges.in_namespace(&target.namespace).flat_map(|r| r.spec.limits.iter()).any(|l| {
        l.kind == "Container" && (l.default_request.contains_key(&m.name) || l.default_limit.contains_key(&m.name))
    });
    if added || !cx.world.limit_ranges.sees(&target.namespace) {
        return None;
    }
    counted(template(cx, target)?).filter(concerns).find(|c| !has(c)).map(|c| c.name.clone())
}

fn no_metrics(cx: &Context<'_>, object: &ObjectRef, target: &ObjectRef, h: &Hpa) -> Option<Finding> {
    let c = &inactive(cx, object, h).filter(|c| c.reason != "ScalingDisabled")?;
    if c.reason == "AmbiguousSelector" || c.message.contains("selector") && c.message.contains("multiple") {
        return Some(
            Finding::new(
                FaultClass::HpaMisconfigured,
                object.clone(),
                format!("{object} does not act: its pods are claimed by several autoscalers"),
            )
            .because(object.clone(), c.message.clone())
            .fix("Give the targets of the autoscalers selectors that do not select each other's pods")
            .field(object, "status.conditions[ScalingActive]", format!("{}: {}", c.reason, c.message)),
        );
    }
    let of_resources = c.reason == "FailedGetResourceMetric" || c.reason == "FailedGetContainerResourceMetric";
    let (api, label) = if of_resources {
        ("v1beta1.metrics.k8s.io", "the resource metrics API (metrics-server)")
    } else if c.reason == "FailedGetExternalMetric" {
        ("v1beta1.external.metrics.k8s.io", "the external metrics API")
    } else {
        ("v1beta1.custom.metrics.k8s.io", "the custom metrics API")
    };
    let service = ObjectRef::new("APIService", "", api);
    let look = cx.world.api_services.look("", api);
    let down = match look {
        Look::Missing => Some(format!("{label} is not installed: {service} does not exist")),
        Look::Found(s) => {
            s.status.conditions.when("Available", "False").map(|a| format!("{label} is not available: {}", a.message))
        }
        Look::Unseen => None,
    };
    let pods = cx.pods_of(target);
    let none_ready = !pods.is_empty() && !pods.iter().any(|p| is_ready(p));
    let (cause, why) = match down {
        Some(why) => (service.clone(), why),
        None if none_ready => {
            (target.clone(), format!("no pod of {target} is ready, so there is nothing to measure: {}", c.message))
        }
        None => (object.clone(), format!("{}: {}", c.reason, c.message)),
    };
    Some(
        Finding::new(
            FaultClass::HpaMetricsMissing,
            object.clone(),
            format!("{object} has no metrics and does not scale {target}"),
        )
        .because(cause, why)
        .fix(format!(
            "Bring {label} back or correct the metric: kubectl -n {} describe hpa {}, and kubectl get apiservice {api}",
            object.namespace, object.name
        ))
        .field(object, "status.conditions[ScalingActive]", format!("{}: {}", c.reason, c.message))
        .since(c.last_transition_time)
        .explained_by(service)
        .explained_by(target.clone()),
    )
}

/// At its maximum, and what it measures is still above its target.
fn at_maximum(object: &ObjectRef, target: &ObjectRef, h: &Hpa) -> Option<Finding> {
    let (status, max) = (&h.status, h.spec.max_replicas);
    let limited = status.conditions.when("ScalingLimited", "True").filter(|c| c.reason == "TooManyReplicas");
    if max <= 0 || status.current_replicas < max {
        return None;
    }
    let measured = compare(h);
    // What it says itself counts without its tolerance.
    let bound = if limited.is_some() { 1.0 } else { TOLERANCE };
    let above = measured.iter().find(|m| m.share > bound);
    // Everything that is measured is at its target: it has what it needs.
    if above.is_none() && (limited.is_none() || !measured.is_empty()) {
        return None;
    }
    let short = above.map_or(String::new(), |m| format!(": {} is {} of a target of {}", m.name, m.current, m.target));
    let more =
        above.map_or(max + (max + 1) / 2, |m| ((max as f64) * m.share).ceil().min(100_000.0) as i64).max(max + 1);
    let mut finding = Finding::new(
        FaultClass::HpaAtMaximum,
        object.clone(),
        format!("{object} is at its maximum of {max} replicas and wants more{short}"),
    )
    .because(object.clone(), format!("spec.maxReplicas is {max}, and {target} needs about {more} at this load{short}"))
    .fix(format!(
        "Raise the bound if nodes and quota have room: kubectl -n {} patch hpa {} -p '{{\"spec\":{{\"maxReplicas\":{more}}}}}'; \
         or give each pod more",
        object.namespace, object.name
    ))
    .field(object, "status.currentReplicas", format!("{} of spec.maxReplicas {max}", status.current_replicas))
    .hits(target.clone())
    .explained_by(target.clone());
    if let Some(m) = above {
        finding = finding.field(object, "status.currentMetrics", format!("{}: {} of {}", m.name, m.current, m.target));
    }
    if let Some(c) = limited {
        finding = finding
            .field(object, "status.conditions[ScalingLimited]", format!("{}: {}", c.reason, c.message))
            .since(since(c));
    }
    Some(finding)
}

fn since(c: &Condition) -> Option<Timestamp> {
    c.last_transition_time
}

struct Measured {
    name: String,
    current: String,
    target: String,
    share: f64,
}

/// What is measured against its target.
fn compare(h: &Hpa) -> Vec<Measured> {
    let now = h.status.current_metrics.iter().filter_map(metric);
    now.filter_map(|seen| {
        let wanted =
            h.spec.metrics.iter().filter_map(metric).find(|m| m.name == seen.name && m.container == seen.container)?;
        let (current, target) = match (seen.current.average_utilization, wanted.target.average_utilization) {
            (Some(c), Some(t)) => (c as f64, t as f64),
            _ => (seen.current.average_value?.0, wanted.target.average_value?.0),
        };
        let percent = wanted.target.average_utilization.is_some();
        let text = |v: f64| if percent { format!("{v:.0} %") } else { format!("{v}") };
        (target > 0.0).then(|| Measured {
            name: seen.name.clone(),
            current: text(current),
            target: text(target),
            share: current / target,
        })
    })
    .collect()
}

/// A target so low that an idle program is above it, or so high that no program can reach it.
fn threshold(cx: &Context<'_>, object: &ObjectRef, target: &ObjectRef, h: &Hpa) -> Option<Finding> {
    h.spec.metrics.iter().filter_map(metric).find_map(|m| {
        let requested = template(cx, target).and_then(|s| amount(s, m, true));
        let percent = match (m.target.average_utilization, m.target.average_value) {
            (Some(percent), _) => percent as f64,
            (None, Some(Quantity(value))) => value / requested.filter(|r| *r > 0.0)? * 100.0,
            _ => return None,
        };
        let limit = template(cx, target).and_then(|s| amount(s, m, false));
        let most = limit.zip(requested).filter(|(_, r)| *r > 0.0).map(|(l, r)| l / r * 100.0);
        let (what, fix) = if percent <= LOW_PERCENT {
            (
                format!("its target for {} is {percent:.0} % of the requests, which a pod uses when it does nothing", m.name),
                format!("Set the target for {} to 60 to 80 % of the requests, or correct the requests", m.name),
            )
        } else if most.is_some_and(|most| percent > most) {
            let most = most.unwrap_or_default();
            (
                format!("its target for {} is {percent:.0} % of the requests, and the limits end at {most:.0} %: it never scales up", m.name),
                format!("Set the target for {} well below {most:.0} %, or raise the limits", m.name),
            )
        } else {
            return None;
        };
        Some(
            Finding::new(FaultClass::HpaMisconfigured, object.clone(), format!("{object} has a target that makes no sense: {what}"))
                .because(object.clone(), what.clone())
                .fix(fix)
                .field(object, &format!("spec.metrics[{}].target", m.name), format!("{percent:.0} % of the requests")),
        )
    })
}

/// Requests (or limits) of a pod of this metric. `None`: some container has none.
fn amount(spec: &PodSpec, m: &ResourceMetric, requests: bool) -> Option<f64> {
    counted(spec).filter(|c| m.container.is_empty() || c.name == m.container).try_fold(0.0, |sum, c| {
        let (requested, limit) = (c.resources.requests.get(&m.name), c.resources.limits.get(&m.name));
        let value = if requests { requested.or(limit) } else { limit };
        value.map(|q| sum + q.0)
    })
}

/// Up and down and up again.
fn flapping(cx: &Context<'_>, object: &ObjectRef, target: &ObjectRef, h: &Hpa) -> Option<Finding> {
    let recent = |at: &Timestamp| cx.age(*at) <= FLAP_WINDOW;
    let sizes: Vec<(Timestamp, i64)> = cx
        .world
        .history
        .of(object)
        .filter_map(|(at, r)| match r {
            Record::Replicas(n) if recent(&at) => Some((at, *n)),
            _ => None,
        })
        .collect();
    let mut turns = 0;
    let (mut before, mut direction) = (None, 0);
    for (_, size) in &sizes {
        let step = before.map_or(0, |b: i64| (size - b).signum());
        if step != 0 {
            turns += usize::from(direction != 0 && step != direction);
            direction = step;
        }
        before = Some(*size);
    }
    // Its own events: many upward and many downward ones, which the server may have put together.
    let events = cx.events("HorizontalPodAutoscaler", &object.namespace, &object.name);
    let rescales =
        events.iter().filter(|e| e.reason == "SuccessfulRescale" && e.last_seen().is_some_and(|at| recent(&at)));
    let (mut ups, mut downs) = (0, 0);
    for event in rescales.clone() {
        let times = event.times().min(1000);
        if event.message.contains("below target") { downs += times } else { ups += times }
    }
    let by_events = ups.min(downs).max(0);
    if turns < TURNS && by_events < 2 {
        return None;
    }
    let text = if turns >= TURNS {
        let list: Vec<String> = sizes.iter().rev().take(8).rev().map(|(_, n)| n.to_string()).collect();
        format!("replicas went {} within an hour", list.join(", "))
    } else {
        format!("it scaled up {ups} times and down {downs} times within an hour")
    };
    let mut finding = Finding::new(FaultClass::HpaFlapping, object.clone(), format!("{object} flaps: {text}"))
        .because(object.clone(), format!("it takes back what it did before the load has settled: {text}"))
        .fix(format!(
            "Give it time: spec.behavior.scaleDown.stabilizationWindowSeconds of 300 or more (now {} to {} replicas), or a \
             metric that follows the load more calmly",
            h.spec.min_replicas.unwrap_or(1),
            h.spec.max_replicas
        ))
        .hits(target.clone());
    if turns >= TURNS {
        finding =
            finding.fact(format!("history/{}", object.path()), "history", &text).since(sizes.first().map(|s| s.0));
    }
    for event in rescales.take(4) {
        finding = finding.event(event);
    }
    Some(finding)
}
