//! Services without endpoints, with none that is ready, or with none where the callers are.

use super::callers::Calls;
use super::index::{Net, is_live};
use super::{backend, ports, selector};
use crate::objects::{Container, ContainerStatus, Pod, Service};
use crate::{Context, Finding, Grade, ObjectRef};
use nightshift_model::FaultClass;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// How far a pod is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// It takes traffic.
    Ready,
    /// It says that it does not.
    NotReady,
    /// It is on its way.
    Starting,
    /// Nobody has said.
    Unknown,
}

/// Checks every service.
pub(super) fn run(net: &Net<'_>, calls: &Calls, out: &mut Vec<Finding>) {
    for service in net.cx.world.services.iter() {
        if service.metadata.deletion_timestamp.is_some() || service.spec.kind == "ExternalName" {
            continue;
        }
        check(net, calls, service, out);
    }
}

fn check(net: &Net<'_>, calls: &Calls, service: &Service, out: &mut Vec<Finding>) {
    let cx = net.cx;
    let namespace = &service.metadata.namespace;
    let object = ObjectRef::of("Service", &service.metadata);
    if service.spec.selector.is_empty() {
        out.extend(by_hand(net, service, &object));
        return;
    }
    if !cx.world.pods.sees(namespace) {
        return;
    }
    let all = net.pods(namespace, &service.spec.selector);
    let live: Vec<&Pod> = all.iter().copied().filter(|p| is_live(p)).collect();
    if live.is_empty() {
        // A wrong port is wrong before the first pod.
        let made = net.makers(namespace, &service.spec.selector).filter(|t| !t.ends);
        ports::check(net, service, &made.map(|t| (t.root.clone(), t.spec)).collect::<Vec<_>>(), out);
        out.extend(empty(net, calls, service, &object, &all));
        return;
    }
    ports::check(net, service, &live.iter().map(|p| (cx.root(p), &p.spec)).collect::<Vec<_>>(), out);
    out.extend(not_ready(net, service, &object, &live));
    out.extend(local(net, calls, service, &object, &live));
}

/// Whether somebody else keeps endpoints for it that are ready: pods that are not there do not count.
fn kept_elsewhere(net: &Net<'_>, service: &Service) -> bool {
    let namespace = &service.metadata.namespace;
    net.slices(namespace, &service.metadata.name).iter().flat_map(|s| s.endpoints.iter()).any(|e| {
        let exists = e
            .target_ref
            .as_ref()
            .is_none_or(|t| t.kind != "Pod" || net.cx.world.pods.get(namespace, &t.name).is_some_and(is_live));
        e.conditions.ready != Some(false) && exists
    })
}

/// No pod is selected that could take traffic.
fn empty(net: &Net<'_>, calls: &Calls, service: &Service, object: &ObjectRef, ended: &[&Pod]) -> Option<Finding> {
    let cx = net.cx;
    let selector = &service.spec.selector;
    if kept_elsewhere(net, service) {
        return None;
    }
    let suffers =
        |summary: String| Finding::new(FaultClass::ServiceNoEndpoints, object.clone(), summary).only_as_symptom();
    // Its workload is there and has no pods: that is the workload's matter, whether by intent or not.
    let makers: Vec<ObjectRef> = net.makers(&object.namespace, selector).map(|t| t.root.clone()).collect();
    if !makers.is_empty() || !ended.is_empty() {
        let mut finding = suffers(format!("{object} has no endpoints: its pods are not there"));
        for root in makers.into_iter().chain(ended.iter().map(|p| cx.root(p))) {
            finding = finding.explained_by(root);
        }
        return Some(finding);
    }
    let reason = selector::reason(net, object, &service.metadata, "spec.selector", selector);
    let headless = service.spec.cluster_ip == "None";
    let named = calls.of(&object.namespace, &object.name).next().is_some()
        || backend::users(net, &object.namespace, &object.name).next().is_some()
        || cx.world.stateful_sets.in_namespace(&object.namespace).any(|s| s.spec.service_name == object.name);
    // A headless service is often made ahead of its pods, or for names alone.
    if headless && reason.is_none() && !named {
        return None;
    }
    let mut finding = Finding::new(
        FaultClass::ServiceNoEndpoints,
        object.clone(),
        format!("{object} has no endpoints: its selector {selector} matches no pod"),
    )
    .field(object, "spec.selector", selector.to_string());
    for (root, _) in calls.of(&object.namespace, &object.name) {
        finding = finding.hits(root.clone());
    }
    Some(match reason {
        Some(reason) => {
            let role = reason.meant.clone().filter(|_| is_role(net, service));
            let told = reason.tell(finding);
            match role {
                // A label that something gives to pods as they run is missing for a reason of that something.
                Some(root) => told.explained_by(root),
                None => told,
            }
        }
        None => finding
            .because(object.clone(), format!("no pod and no workload of namespace {} has the labels {selector}", object.namespace))
            .fix(format!(
                "Deploy what {object} is for, correct its selector (kubectl -n {} get pods --show-labels), or delete it.",
                object.namespace
            )),
    })
}

/// Whether it selects by a role that pods get while they run (`role=primary`).
fn is_role(net: &Net<'_>, service: &Service) -> bool {
    let templates = net.templates(&service.metadata.namespace);
    let role = |name: &str| {
        let name = name.rsplit('/').next().unwrap_or(name).to_ascii_lowercase();
        name.ends_with("role") || name == "leader" || name == "primary"
    };
    service.spec.selector.iter().any(|(n, _)| role(n) && templates.iter().all(|t| t.labels.get(n).is_none()))
}

/// Endpoints that somebody keeps by hand, of which none is ready.
fn by_hand(net: &Net<'_>, service: &Service, object: &ObjectRef) -> Option<Finding> {
    let slices = net.slices(&object.namespace, &object.name);
    let endpoints: Vec<_> = slices.iter().flat_map(|s| s.endpoints.iter()).collect();
    if endpoints.is_empty()
        || endpoints.iter().any(|e| e.conditions.ready != Some(false))
        || service.spec.publish_not_ready_addresses
    {
        return None;
    }
    let slice = ObjectRef::of("EndpointSlice", &slices.first()?.metadata);
    Some(
        Finding::new(
            FaultClass::EndpointsNotReady,
            object.clone(),
            format!("{object} has {} endpoints that are kept by hand, and none is ready", endpoints.len()),
        )
        .because(slice.clone(), "every endpoint in it is marked as not ready")
        .fix(format!("Bring back what the addresses in {slice} stand for, then mark them as ready."))
        .field(&slice, "endpoints[*].conditions.ready", "false"),
    )
}

/// Pods are selected and none is ready.
fn not_ready(net: &Net<'_>, service: &Service, object: &ObjectRef, live: &[&Pod]) -> Option<Finding> {
    if service.spec.publish_not_ready_addresses || kept_elsewhere(net, service) {
        return None;
    }
    let cx = net.cx;
    let states: Vec<State> = live.iter().map(|p| state(cx, p)).collect();
    if states.iter().any(|s| matches!(s, State::Ready | State::Unknown)) {
        return None;
    }
    let waiting = states.iter().all(|s| *s == State::Starting);
    // Jobs' pods are nobody's endpoints for long.
    let roots: BTreeSet<ObjectRef> = live.iter().map(|p| cx.root(p)).collect();
    if roots.iter().all(|r| matches!(r.kind.as_str(), "Job" | "CronJob")) {
        return None;
    }
    let first = live.iter().zip(&states).find(|(_, s)| **s == State::NotReady).map_or(live.first()?, |(p, _)| p);
    let pod = ObjectRef::of("Pod", &first.metadata);
    let condition = first.status.conditions.of("Ready");
    let why = condition.map(|c| c.message.clone()).filter(|m| !m.is_empty());
    let why = why.unwrap_or_else(|| "its containers are not ready".to_owned());
    let root = cx.root(first);
    let count = live.len();
    let mut finding = Finding::new(
        FaultClass::EndpointsNotReady,
        object.clone(),
        format!("{object} selects {count} pod{}, and none is ready", if count == 1 { "" } else { "s" }),
    )
    .because(root.clone(), format!("{pod} is not ready: {why}"))
    .fix(format!(
        "Look at why the pods of {root} are not ready: kubectl -n {} describe pod {}.",
        object.namespace, first.metadata.name
    ))
    .field(&pod, "status.conditions[Ready].status", "False")
    .since(condition.and_then(|c| c.last_transition_time));
    for root in roots {
        finding = finding.explained_by(root);
    }
    for pod in live.iter().take(20) {
        finding = finding.hits(ObjectRef::of("Pod", &pod.metadata)).explained_by(ObjectRef::of("Pod", &pod.metadata));
        if !pod.spec.node_name.is_empty() {
            finding = finding.explained_by(ObjectRef::new("Node", "", pod.spec.node_name.clone()));
        }
    }
    Some(if waiting { finding.only_as_symptom() } else { finding })
}

/// How far a pod is.
pub(super) fn state(cx: &Context<'_>, pod: &Pod) -> State {
    let status = &pod.status;
    let ready = status.conditions.of("Ready");
    if ready.is_some_and(|c| c.status == "True") {
        return State::Ready;
    }
    let containers = &status.container_statuses;
    if ready.is_none() {
        if status.phase == "Running" && containers.is_empty() {
            return State::Unknown;
        }
        if !containers.is_empty() && containers.iter().all(|c| c.ready) {
            return State::Ready;
        }
    }
    let on_its_way = |c: &ContainerStatus| {
        let spec = pod.spec.containers.iter().find(|s| s.name == c.name);
        let waits = c.state.waiting.as_ref();
        waits.is_some_and(|w| matches!(w.reason.as_str(), "" | "ContainerCreating" | "PodInitializing"))
            || c.state
                .running
                .as_ref()
                .and_then(|r| r.started_at)
                .is_some_and(|at| cx.age(at) < spec.map_or(Duration::ZERO, grace) && c.restart_count == 0)
    };
    let unready: Vec<&ContainerStatus> = containers.iter().filter(|c| !c.ready).collect();
    match status.phase.as_str() {
        "" | "Pending" if unready.iter().all(|c| on_its_way(c)) => State::Starting,
        "Running" if !unready.is_empty() && unready.iter().all(|c| on_its_way(c)) => State::Starting,
        _ => State::NotReady,
    }
}

/// How long a container may take until it is first ready, by its own probes.
fn grace(container: &Container) -> Duration {
    let start = container.startup_probe.as_ref().map_or(0, |p| {
        let (period, tries) = (p.period_seconds.unwrap_or(10), p.failure_threshold.unwrap_or(3));
        p.initial_delay_seconds.unwrap_or(0).saturating_add(period.saturating_mul(tries))
    });
    let ready = container
        .readiness_probe
        .as_ref()
        .map_or(0, |p| p.initial_delay_seconds.unwrap_or(0).saturating_add(p.period_seconds.unwrap_or(10)));
    Duration::from_secs(u64::try_from(start.saturating_add(ready)).unwrap_or(0))
}

/// `internalTrafficPolicy: Local` with callers on nodes that have no ready endpoint.
fn local(net: &Net<'_>, calls: &Calls, service: &Service, object: &ObjectRef, live: &[&Pod]) -> Option<Finding> {
    if service.spec.internal_traffic_policy != "Local" {
        return None;
    }
    let cx = net.cx;
    let ready: Vec<&&Pod> = live.iter().filter(|p| matches!(state(cx, p), State::Ready | State::Unknown)).collect();
    let nodes: BTreeSet<&str> = ready.iter().map(|p| p.spec.node_name.as_str()).filter(|n| !n.is_empty()).collect();
    if nodes.is_empty() {
        return None;
    }
    let known: BTreeSet<&ObjectRef> = calls.of(&object.namespace, &object.name).map(|(root, _)| root).collect();
    let selected: BTreeSet<&str> = live.iter().map(|p| p.metadata.name.as_str()).collect();
    let mut stranded: BTreeMap<&str, Vec<ObjectRef>> = BTreeMap::new();
    let look = |pod: &'_ Pod, stranded_at: &str| {
        let far = !stranded_at.is_empty() && !nodes.contains(stranded_at) && is_live(pod);
        far.then(|| ObjectRef::of("Pod", &pod.metadata))
    };
    if known.is_empty() {
        // Nobody is known to call it: other pods of its namespace may.
        for pod in cx.world.pods.in_namespace(&object.namespace) {
            if !selected.contains(pod.metadata.name.as_str())
                && let Some(far) = look(pod, &pod.spec.node_name)
            {
                stranded.entry(&pod.spec.node_name).or_default().push(far);
            }
        }
    } else {
        for pod in known.iter().flat_map(|root| cx.pods_of(root)) {
            if let Some(far) = look(pod, &pod.spec.node_name) {
                stranded.entry(&pod.spec.node_name).or_default().push(far);
            }
        }
    }
    if stranded.is_empty() {
        return None;
    }
    let where_ = stranded.keys().take(5).copied().collect::<Vec<_>>().join(", ");
    let mut finding = Finding::new(
        FaultClass::LocalTrafficPolicy,
        object.clone(),
        format!("{object} only serves callers on their own node, and has no endpoint on node {where_}"),
    )
    .because(
        object.clone(),
        format!("internalTrafficPolicy is Local, and its ready endpoints are on {} only", nodes.iter().copied().collect::<Vec<_>>().join(", ")),
    )
    .fix(format!(
        "Set internalTrafficPolicy of {object} to Cluster, or run its pods on every node that has callers (a DaemonSet)."
    ))
    .field(object, "spec.internalTrafficPolicy", "Local")
    .graded(if known.is_empty() { Grade::Medium } else { Grade::High });
    for pod in stranded.into_values().flatten().take(20) {
        finding = finding.hits(pod);
    }
    Some(finding)
}
