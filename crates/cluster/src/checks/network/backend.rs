//! Services as others see them: who sends to one, which ports it has, who stands behind it.

use super::index::{Net, is_live};
use super::service::{State, state};
use crate::objects::{Ingress, IngressBackend, IngressService, Service};
use crate::{Look, ObjectRef};
use std::collections::BTreeSet;

/// All backends of an ingress with the place where each stands.
pub(super) fn backends(ingress: &Ingress) -> impl Iterator<Item = (String, &IngressBackend)> {
    let rules = ingress.spec.rules.iter().flat_map(|rule| {
        let paths = rule.http.iter().flat_map(|h| h.paths.iter());
        paths.map(|p| {
            let host = if rule.host.is_empty() { "*" } else { &rule.host };
            let path = if p.path.is_empty() { "/" } else { &p.path };
            (format!("{host}{path}"), &p.backend)
        })
    });
    let rest = ingress.spec.default_backend.iter().map(|b| ("everything else".to_owned(), b));
    rules.chain(rest)
}

/// Ingresses, routes and webhooks that send to a service.
pub(super) fn users<'b>(net: &'b Net<'_>, namespace: &'b str, name: &'b str) -> impl Iterator<Item = ObjectRef> + 'b {
    let world = net.cx.world;
    let ingresses = world
        .ingresses
        .in_namespace(namespace)
        .filter(move |i| backends(i).any(|(_, b)| b.service.as_ref().is_some_and(|s| s.name == name)));
    let ingresses = ingresses.map(|i| ObjectRef::of("Ingress", &i.metadata));
    let routes = |kind: &'static str, table: &'b crate::Table<crate::objects::Route>| {
        table
            .iter()
            .filter(move |r| {
                let mut all = r.spec.rules.iter().flat_map(|rule| rule.backend_refs.iter());
                all.any(|b| {
                    b.name == name
                        && b.kind.as_deref().unwrap_or("Service") == "Service"
                        && b.namespace.as_deref().unwrap_or(&r.metadata.namespace) == namespace
                })
            })
            .map(move |r| ObjectRef::of(kind, &r.metadata))
    };
    let hooks = |kind: &'static str, table: &'b crate::Table<crate::objects::WebhookConfiguration>| {
        table
            .iter()
            .filter(move |c| {
                let mut services = c.webhooks.iter().filter_map(|w| w.client_config.service.as_ref());
                services.any(|s| s.namespace == namespace && s.name == name)
            })
            .map(move |c| ObjectRef::of(kind, &c.metadata))
    };
    ingresses
        .chain(routes("HTTPRoute", &world.http_routes))
        .chain(routes("GRPCRoute", &world.grpc_routes))
        .chain(hooks("MutatingWebhookConfiguration", &world.mutating_webhooks))
        .chain(hooks("ValidatingWebhookConfiguration", &world.validating_webhooks))
}

/// Whether a service has the port that an ingress names.
pub(super) fn has_port(service: &Service, wanted: &IngressService) -> bool {
    service
        .spec
        .ports
        .iter()
        .any(|p| if wanted.port.name.is_empty() { p.port == wanted.port.number } else { p.name == wanted.port.name })
}

/// The ports of a service, in words.
pub(super) fn ports(service: &Service) -> String {
    let words = service
        .spec
        .ports
        .iter()
        .map(|p| if p.name.is_empty() { p.port.to_string() } else { format!("{} ({})", p.port, p.name) });
    let words = words.collect::<Vec<_>>().join(", ");
    if words.is_empty() { "no port".to_owned() } else { words }
}

/// What stands behind a service.
pub(super) enum Behind<'a> {
    /// The service is not there.
    Missing,
    /// It cannot be told.
    Unseen,
    /// It sends elsewhere, or somebody else keeps its endpoints.
    Elsewhere(&'a Service),
    /// Pods, of which one or more may take traffic.
    Serving(&'a Service),
    /// Nobody takes traffic; the workloads that should, with whether they are only on their way.
    Nobody { service: &'a Service, roots: BTreeSet<ObjectRef>, starting: bool, zero: Option<ObjectRef> },
}

/// What stands behind a service.
pub(super) fn behind<'a>(net: &Net<'a>, namespace: &str, name: &str) -> Behind<'a> {
    let world = net.cx.world;
    let service = match world.services.look(namespace, name) {
        Look::Found(service) => service,
        Look::Missing => return Behind::Missing,
        Look::Unseen => return Behind::Unseen,
    };
    if service.spec.kind == "ExternalName" || service.spec.selector.is_empty() {
        return Behind::Elsewhere(service);
    }
    if !world.pods.sees(namespace) {
        return Behind::Unseen;
    }
    let slices = net.slices(namespace, name);
    let pods: Vec<_> = net.pods(namespace, &service.spec.selector).into_iter().filter(|p| is_live(p)).collect();
    let states: Vec<State> = pods.iter().map(|p| state(net.cx, p)).collect();
    let by_hand = pods.is_empty()
        && slices
            .iter()
            .flat_map(|s| s.endpoints.iter())
            .any(|e| e.conditions.ready != Some(false) && e.target_ref.is_none());
    if by_hand || states.iter().any(|s| matches!(s, State::Ready | State::Unknown)) {
        return Behind::Serving(service);
    }
    let mut roots: BTreeSet<ObjectRef> = pods.iter().map(|p| net.cx.root(p)).collect();
    let mut zero = None;
    for maker in net.makers(namespace, &service.spec.selector) {
        roots.insert(maker.root.clone());
        if maker.wanted == 0 && !maker.ends {
            zero = Some(maker.root.clone());
        }
    }
    let wants = net.makers(namespace, &service.spec.selector).any(|m| m.wanted > 0);
    // Pods that are wanted and not made yet are on their way, or their workload tells.
    let starting = if pods.is_empty() { wants } else { states.iter().all(|s| *s == State::Starting) };
    Behind::Nobody { service, roots, starting, zero: zero.filter(|_| pods.is_empty() && !wants) }
}
