//! Routes of the gateway API: their parents, their backends, and what may be referred to across namespaces.

use super::backend::{self, Behind, behind};
use super::gateway::{is_current, words};
use super::index::Net;
use crate::objects::text::alike;
use crate::objects::{CrossRef, Gateway, Listener, Route};
use crate::{Finding, Look, ObjectRef};
use nightshift_model::FaultClass;

/// What stands in the way of one route.
struct Trouble {
    cause: ObjectRef,
    why: String,
    fix: String,
    field: (String, String),
}

/// Checks every route.
pub(super) fn run(net: &Net<'_>, out: &mut Vec<Finding>) {
    let world = net.cx.world;
    for (kind, table) in [("HTTPRoute", &world.http_routes), ("GRPCRoute", &world.grpc_routes)] {
        for route in table.iter().filter(|r| r.metadata.deletion_timestamp.is_none()) {
            let object = ObjectRef::of(kind, &route.metadata);
            check(net, route, &object, out);
        }
    }
}

fn check(net: &Net<'_>, route: &Route, object: &ObjectRef, out: &mut Vec<Finding>) {
    let parents: Vec<Option<Trouble>> = route.spec.parent_refs.iter().map(|p| parent(net, route, object, p)).collect();
    let backends = route.spec.rules.iter().flat_map(|r| r.backend_refs.iter());
    let mut trouble = backends.into_iter().find_map(|b| sends(net, object, b, out));
    // Of several parents each counts: traffic of the one that is missing is lost.
    trouble = parents.into_iter().flatten().next().or(trouble);
    let explained = route.spec.parent_refs.iter().filter(|p| p.kind.as_deref().unwrap_or("Gateway") == "Gateway");
    let gateways = explained.map(|p| {
        ObjectRef::new("Gateway", p.namespace.clone().unwrap_or_else(|| object.namespace.clone()), p.name.clone())
    });
    let finding = match trouble {
        Some(t) => Finding::new(FaultClass::RouteBroken, object.clone(), format!("{object} does not work: {}", t.why))
            .because(t.cause, t.why)
            .fix(t.fix)
            .field(object, &t.field.0, t.field.1),
        None => match refused(route, object) {
            Some(finding) => finding,
            None => return,
        },
    };
    out.push(gateways.fold(finding, Finding::explained_by));
}

/// What its parents say, where the specification shows nothing.
fn refused(route: &Route, object: &ObjectRef) -> Option<Finding> {
    let (parent, condition) = route.status.parents.iter().find_map(|p| {
        let c = ["Accepted", "ResolvedRefs"].iter().find_map(|kind| p.conditions.when(kind, "False"))?;
        is_current(&route.metadata, c).then_some((p, c))
    })?;
    let name = &parent.parent_ref.name;
    let fix = match condition.reason.as_str() {
        "NotAllowedByListeners" => {
            format!("Let allowedRoutes of a listener of Gateway {name} admit this namespace, or move {object}.")
        }
        "NoMatchingListenerHostname" => format!("Give {object} a hostname that a listener of Gateway {name} has."),
        "NoMatchingParent" => format!("Correct sectionName or port in parentRefs of {object}."),
        "RefNotPermitted" => format!(
            "Make a ReferenceGrant in the namespace of the backend that allows {} of {}.",
            object.kind, object.namespace
        ),
        "BackendNotFound" => format!("Make the backend that {object} names, or correct its name."),
        "InvalidKind" => format!("Use a kind of backend in {object} that Gateway {name} supports."),
        _ => format!("Correct {object} as its condition {} says.", condition.kind),
    };
    Some(
        Finding::new(
            FaultClass::RouteBroken,
            object.clone(),
            format!("{object} is refused by its parent {name}: {}", words(condition)),
        )
        .because(object.clone(), words(condition))
        .fix(fix)
        .field(object, &format!("status.parents[{name}].conditions[{}]", condition.kind), words(condition))
        .since(condition.last_transition_time),
    )
}

fn parent(net: &Net<'_>, route: &Route, object: &ObjectRef, parent: &CrossRef) -> Option<Trouble> {
    let namespace = parent.namespace.as_deref().unwrap_or(&object.namespace);
    let kind = parent.kind.as_deref().unwrap_or("Gateway");
    let cause = ObjectRef::new(kind, namespace, parent.name.clone());
    let field = ("spec.parentRefs".to_owned(), format!("{kind} {namespace}/{}", parent.name));
    let gateways = &net.cx.world.gateways;
    match kind {
        "Service" => net.cx.world.services.look(namespace, &parent.name).is_missing().then(|| Trouble {
            why: format!("its parent {cause} does not exist"),
            fix: format!("Make {cause}, or correct parentRefs of {object}."),
            cause: cause.clone(),
            field,
        }),
        "Gateway" => {
            let gateway = match gateways.look(namespace, &parent.name) {
                Look::Found(gateway) => gateway,
                Look::Missing => {
                    let near = gateways.iter().find(|g| {
                        g.metadata.name == parent.name
                            || (g.metadata.namespace == namespace && alike(&g.metadata.name, &parent.name))
                    });
                    let fix = match near {
                        Some(g) => format!(
                            "Set parentRefs of {object} to {}, or make {cause}.",
                            ObjectRef::of("Gateway", &g.metadata)
                        ),
                        None => format!("Make {cause}, or correct parentRefs of {object}."),
                    };
                    return Some(Trouble { why: format!("its parent {cause} does not exist"), fix, cause, field });
                }
                Look::Unseen => return None,
            };
            attach(net, route, object, parent, gateway, cause)
        }
        _ => None,
    }
}

/// Whether a listener of a gateway takes the route.
fn attach(
    net: &Net<'_>,
    route: &Route,
    object: &ObjectRef,
    parent: &CrossRef,
    gateway: &Gateway,
    cause: ObjectRef,
) -> Option<Trouble> {
    let all = &gateway.spec.listeners;
    let meant: Vec<&Listener> = all
        .iter()
        .filter(|l| {
            parent.section_name.as_ref().is_none_or(|s| l.name == *s) && parent.port.is_none_or(|p| l.port == p)
        })
        .collect();
    if meant.is_empty() {
        let names = all.iter().map(|l| format!("{} (port {})", l.name, l.port)).collect::<Vec<_>>().join(", ");
        let wanted = match (&parent.section_name, parent.port) {
            (Some(section), _) => format!("listener {section}"),
            (None, Some(port)) => format!("listener on port {port}"),
            (None, None) => "listener".to_owned(),
        };
        return Some(Trouble {
            why: format!("{cause} has no {wanted}; it has {names}"),
            fix: format!("Name one of the listeners of {cause} in parentRefs of {object}: {names}."),
            cause,
            field: ("spec.parentRefs[*].sectionName".to_owned(), wanted),
        });
    }
    let allowed: Vec<&Listener> =
        meant.iter().copied().filter(|l| admits(net, l, gateway, object) != Some(false)).collect();
    if allowed.is_empty() {
        let rule = meant.first().and_then(|l| l.allowed_routes.as_ref()).map(|a| &a.namespaces);
        let says = match rule {
            Some(r) if r.from == "Selector" => format!(
                "namespaces with {}",
                r.selector
                    .as_ref()
                    .map(ToString::to_string)
                    .filter(|s| !s.is_empty())
                    .unwrap_or_else(|| "no label at all".to_owned())
            ),
            Some(r) if r.from == "None" => "no namespace".to_owned(),
            _ => "its own namespace only".to_owned(),
        };
        return Some(Trouble {
            why: format!("{cause} takes routes of {says}, and {object} is in {}", object.namespace),
            fix: match rule {
                Some(r) if r.from == "Selector" => format!(
                    "Give namespace {} the labels {says} asks for, or widen allowedRoutes of {cause}.",
                    object.namespace
                ),
                _ => format!(
                    "Set allowedRoutes.namespaces of a listener of {cause} to All or to a Selector that fits {}, or move {object} into {}.",
                    object.namespace, cause.namespace
                ),
            },
            field: ("spec.parentRefs".to_owned(), format!("{cause} from namespace {}", object.namespace)),
            cause,
        });
    }
    let hosts = &route.spec.hostnames;
    if !hosts.is_empty()
        && !allowed.iter().any(|l| l.hostname.is_empty() || hosts.iter().any(|h| meets(&l.hostname, h)))
    {
        let names = allowed.iter().map(|l| l.hostname.as_str()).collect::<Vec<_>>().join(", ");
        let asked = hosts.join(", ");
        return Some(Trouble {
            why: format!("its hostname {asked} fits no listener of {cause}, which serve {names}"),
            fix: format!("Give {object} a hostname within {names}, or add a listener for {asked} to {cause}."),
            field: ("spec.hostnames".to_owned(), asked),
            cause,
        });
    }
    None
}

/// Whether a listener admits routes of a namespace; `None`: cannot be told.
fn admits(net: &Net<'_>, listener: &Listener, gateway: &Gateway, route: &ObjectRef) -> Option<bool> {
    let own = gateway.metadata.namespace == route.namespace;
    let Some(allowed) = &listener.allowed_routes else { return Some(own) };
    match allowed.namespaces.from.as_str() {
        "" | "Same" => Some(own),
        "All" => Some(true),
        "None" => Some(false),
        "Selector" => {
            let selector = allowed.namespaces.selector.as_ref()?;
            let mut labels: Vec<(String, String)> = match net.cx.world.namespaces.look("", &route.namespace) {
                Look::Found(ns) => ns.metadata.labels.iter().map(|(n, v)| (n.to_owned(), v.to_owned())).collect(),
                _ => return None,
            };
            // The server gives every namespace its name as a label.
            labels.push(("kubernetes.io/metadata.name".to_owned(), route.namespace.clone()));
            Some(selector.matches(&labels.into_iter().collect()))
        }
        _ => None,
    }
}

/// Whether two hosts, each with a star or none, can be one.
fn meets(a: &str, b: &str) -> bool {
    let under = |star: &str, host: &str| {
        star.strip_prefix('*').is_some_and(|tail| host.len() > tail.len() && host.ends_with(tail))
    };
    a == b || under(a, b) || under(b, a)
}

fn sends(net: &Net<'_>, object: &ObjectRef, backend: &CrossRef, out: &mut Vec<Finding>) -> Option<Trouble> {
    let group = backend.group.as_deref().unwrap_or_default();
    if backend.kind.as_deref().unwrap_or("Service") != "Service" || !(group.is_empty() || group == "core") {
        return None;
    }
    let namespace = backend.namespace.as_deref().unwrap_or(&object.namespace);
    let cause = ObjectRef::new("Service", namespace, backend.name.clone());
    let field =
        ("spec.rules[*].backendRefs".to_owned(), format!("{namespace}/{}:{}", backend.name, backend.port.unwrap_or(0)));
    let service = match behind(net, namespace, &backend.name) {
        Behind::Missing => {
            let near = net.cx.world.services.in_namespace(namespace).find(|s| alike(&s.metadata.name, &backend.name));
            let fix = match near {
                Some(near) => {
                    format!("Send {object} to {} (a Service that exists), or make {cause}.", near.metadata.name)
                }
                None => format!("Make {cause}, or take it out of {object}."),
            };
            return Some(Trouble { why: format!("its backend {cause} does not exist"), fix, cause, field });
        }
        Behind::Unseen => match net.cx.world.services.look(namespace, &backend.name) {
            Look::Found(service) => service,
            _ => return None,
        },
        Behind::Elsewhere(service) | Behind::Serving(service) => service,
        Behind::Nobody { service, roots, .. } => {
            let suffers = Finding::new(
                FaultClass::EndpointsNotReady,
                object.clone(),
                format!("{object} sends to {cause}, behind which nobody answers"),
            );
            let suffers =
                roots.into_iter().fold(suffers.only_as_symptom().explained_by(cause.clone()), Finding::explained_by);
            out.push(suffers);
            service
        }
    };
    if let Some(port) = backend.port.filter(|port| service.spec.ports.iter().all(|p| p.port != *port)) {
        let has = backend::ports(service);
        return Some(Trouble {
            why: format!("its backend {cause} has no port {port}; it has {has}"),
            fix: format!("Set the port of that backend in {object} to {has}, or add port {port} to {cause}."),
            cause,
            field,
        });
    }
    (namespace != object.namespace && granted(net, object, namespace, &backend.name) == Some(false)).then(|| Trouble {
        why: format!("no ReferenceGrant in {namespace} lets {} of {} refer to {cause}", object.kind, object.namespace),
        fix: format!(
            "Make a ReferenceGrant in namespace {namespace}: from group gateway.networking.k8s.io, kind {}, namespace {}; to kind Service, name {}.",
            object.kind, object.namespace, backend.name
        ),
        cause,
        field,
    })
}

/// Whether a grant allows a reference to a service; `None`: cannot be told.
fn granted(net: &Net<'_>, object: &ObjectRef, namespace: &str, name: &str) -> Option<bool> {
    let grants = &net.cx.world.reference_grants;
    if !grants.sees(namespace) {
        return None;
    }
    Some(grants.in_namespace(namespace).any(|g| {
        let from = g.spec.from.iter().any(|f| {
            f.kind.as_deref() == Some(object.kind.as_str()) && f.namespace.as_deref() == Some(object.namespace.as_str())
        });
        from && g.spec.to.iter().any(|t| t.kind.as_deref() == Some("Service") && (t.name.is_empty() || t.name == name))
    }))
}
