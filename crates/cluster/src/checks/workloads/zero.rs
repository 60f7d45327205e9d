//! Workloads scaled to zero that others still call.

use super::kinds::Workload;
use crate::objects::{Blob, CrossRef, Service};
use crate::{Context, Finding, ObjectRef};
use nightshift_model::FaultClass;
use std::collections::{BTreeMap, BTreeSet};

/// Callers that are named by one finding.
const CALLERS_NAMED: usize = 20;

/// Runs the checks.
pub(super) fn run(cx: &Context<'_>, all: &[Workload<'_>], out: &mut Vec<Finding>) {
    // Services that select something which is scaled to zero, and nothing that runs (as the idle half of blue and green).
    let mut zero: BTreeMap<(String, String), &Workload<'_>> = BTreeMap::new();
    for w in all
        .iter()
        .filter(|w| w.wanted == 0 && matches!(w.object.kind.as_str(), "Deployment" | "StatefulSet" | "ReplicaSet"))
    {
        if wakes(cx, &w.object) {
            continue;
        }
        for service in cx.world.services.in_namespace(&w.meta.namespace) {
            let selector = &service.spec.selector;
            let selected = !selector.is_empty() && w.labels.has_all(selector);
            if selected && !serves(cx, all, service) {
                zero.insert((service.metadata.namespace.clone(), service.metadata.name.clone()), w);
            }
        }
    }
    if zero.is_empty() {
        return;
    }
    let mut callers: BTreeMap<&ObjectRef, (BTreeSet<String>, BTreeSet<ObjectRef>)> = BTreeMap::new();
    for (service, caller) in calls(cx, all) {
        if let Some(w) = zero.get(&service).filter(|w| w.object != caller) {
            let known = callers.entry(&w.object).or_default();
            known.0.insert(service.1);
            known.1.insert(caller);
        }
    }
    out.extend(callers.into_iter().map(|(object, (services, callers))| finding(cx, all, object, &services, &callers)));
}

fn finding(
    cx: &Context<'_>,
    all: &[Workload<'_>],
    object: &ObjectRef,
    services: &BTreeSet<String>,
    callers: &BTreeSet<ObjectRef>,
) -> Finding {
    let names: Vec<String> = callers.iter().take(5).map(ToString::to_string).collect();
    let services: Vec<&str> = services.iter().map(String::as_str).collect();
    let writer = all.iter().find(|w| w.object == *object).and_then(|w| w.meta.last_writer());
    let by = writer.map_or(String::new(), |w| {
        let when = w.time.map_or(String::new(), |at| format!(" {}", super::deployment::ago(cx, at)));
        format!(", last written by {}{when}", w.manager)
    });
    let mut finding = Finding::new(
        FaultClass::ScaledToZero,
        object.clone(),
        format!("{object} is scaled to zero, but {} call it through service {}", names.join(", "), services.join(", ")),
    )
    .because(object.clone(), format!("spec.replicas is 0{by}: service {} has nobody to answer", services.join(", ")))
    .fix(format!(
        "Scale it up again: kubectl -n {} scale {}/{} --replicas=1 (or as many as it had), or take the callers' \
         references away",
        object.namespace,
        object.kind.to_ascii_lowercase(),
        object.name
    ))
    .field(object, "spec.replicas", "0");
    for service in services {
        let service = ObjectRef::new("Service", object.namespace.clone(), service);
        finding = finding.field(&service, "spec.selector", format!("selects only {object}")).hits(service);
    }
    callers.iter().take(CALLERS_NAMED).cloned().fold(finding, Finding::hits)
}

/// Whether something starts it when it is needed: an event-driven scaler, or an autoscaler that may go to zero.
fn wakes(cx: &Context<'_>, object: &ObjectRef) -> bool {
    let by_scaler = cx
        .world
        .customs("keda.sh", "ScaledObject")
        .is_some_and(|t| t.in_namespace(&object.namespace).any(|s| s.spec_text("/scaleTargetRef/name") == object.name));
    by_scaler
        || cx.world.hpas.in_namespace(&object.namespace).any(|h| {
            let target = &h.spec.scale_target_ref;
            target.kind == object.kind && target.name == object.name && h.spec.min_replicas == Some(0)
        })
}

/// Whether a service has anything else behind it.
fn serves(cx: &Context<'_>, all: &[Workload<'_>], service: &Service) -> bool {
    let namespace = &service.metadata.namespace;
    let selector = &service.spec.selector;
    all.iter().any(|w| w.meta.namespace == *namespace && w.wanted > 0 && w.labels.has_all(selector))
        || cx.pods_with(namespace, selector).any(super::kinds::is_ready)
}

/// Who calls which service: routes, and workloads that run and name it in their environment.
fn calls(cx: &Context<'_>, all: &[Workload<'_>]) -> Vec<((String, String), ObjectRef)> {
    let mut out = Vec::new();
    for ingress in cx.world.ingresses.iter() {
        let by = ObjectRef::of("Ingress", &ingress.metadata);
        let paths = ingress.spec.rules.iter().filter_map(|r| r.http.as_ref()).flat_map(|h| h.paths.iter());
        let backends = paths.map(|p| &p.backend).chain(&ingress.spec.default_backend);
        for service in backends.filter_map(|b| b.service.as_ref()) {
            out.push(((by.namespace.clone(), service.name.clone()), by.clone()));
        }
    }
    let routes = cx.world.http_routes.iter().map(|r| ("HTTPRoute", r));
    for (kind, route) in routes.chain(cx.world.grpc_routes.iter().map(|r| ("GRPCRoute", r))) {
        let by = ObjectRef::of(kind, &route.metadata);
        // A weight of zero is nobody's traffic.
        let takes = |b: &&CrossRef| b.weight != Some(0) && b.kind.as_deref().is_none_or(|k| k == "Service");
        for backend in route.spec.rules.iter().flat_map(|r| r.backend_refs.iter()).filter(takes) {
            let namespace = backend.namespace.clone().unwrap_or_else(|| by.namespace.clone());
            out.push(((namespace, backend.name.clone()), by.clone()));
        }
    }
    for w in all.iter().filter(|w| w.wanted > 0) {
        let containers = w.spec.containers.iter().chain(&w.spec.init_containers);
        for container in containers {
            let maps = container.env_from.iter().filter_map(|e| e.config_map_ref.as_ref());
            let whole = maps.filter_map(|m| cx.world.config_maps.get(&w.meta.namespace, &m.name));
            let of_maps = whole.flat_map(|m| m.data.values());
            let of_env = container.env.iter().filter_map(|e| {
                e.value.as_ref().or_else(|| {
                    let key = e.value_from.as_ref()?.config_map_key_ref.as_ref()?;
                    cx.world.config_maps.get(&w.meta.namespace, &key.name)?.data.get(&key.key)
                })
            });
            let named =
                of_maps.chain(of_env).filter_map(|b: &Blob| service_of(b.endpoint.as_deref()?, &w.meta.namespace));
            out.extend(named.map(|s| (s, w.object.clone())));
        }
    }
    out
}

/// Namespace and name of the service that `host[:port]` would be within the cluster.
fn service_of(endpoint: &str, namespace: &str) -> Option<(String, String)> {
    let host = endpoint.rsplit_once(':').map_or(endpoint, |(h, _)| h).trim_end_matches('.');
    let parts: Vec<&str> = host.split('.').collect();
    match parts.as_slice() {
        [name] => Some((namespace.to_owned(), (*name).to_owned())),
        [name, of] | [name, of, "svc", ..] => Some(((*of).to_owned(), (*name).to_owned())),
        _ => None,
    }
}
