//! Ingresses: their class, their backends, and who else claims the same path.

use super::backend::{self, Behind, backends, behind, has_port};
use super::index::Net;
use crate::objects::text::alike;
use crate::objects::{Ingress, IngressClass};
use crate::{Finding, Look, ObjectRef};
use nightshift_model::FaultClass;
use std::collections::BTreeMap;

/// Annotation that named the class before there was a field for it.
const CLASS_ANNOTATION: &str = "kubernetes.io/ingress.class";
const DEFAULT_ANNOTATION: &str = "ingressclass.kubernetes.io/is-default-class";

/// Checks every ingress.
pub(super) fn run(net: &Net<'_>, out: &mut Vec<Finding>) {
    for ingress in net.cx.world.ingresses.iter().filter(|i| i.metadata.deletion_timestamp.is_none()) {
        let object = ObjectRef::of("Ingress", &ingress.metadata);
        out.extend(class(net, ingress, &object));
        for (place, backend) in backends(ingress) {
            out.extend(sends(net, &object, &place, backend));
        }
    }
    conflicts(net, out);
}

fn is_default(class: &IngressClass) -> bool {
    class.metadata.annotations.get(DEFAULT_ANNOTATION) == Some("true")
}

fn class(net: &Net<'_>, ingress: &Ingress, object: &ObjectRef) -> Option<Finding> {
    let classes = &net.cx.world.ingress_classes;
    let names = || classes.iter().map(|c| c.metadata.name.as_str()).collect::<Vec<_>>().join(", ");
    if let Some(name) = ingress.spec.ingress_class_name.as_deref().filter(|n| !n.is_empty()) {
        if !classes.look("", name).is_missing() {
            return None;
        }
        let near = classes.iter().find(|c| alike(&c.metadata.name, name)).or_else(|| classes.iter().next());
        let fix = match near {
            Some(class) => {
                format!("Set ingressClassName of {object} to {}, or make the class {name}.", class.metadata.name)
            }
            None => format!(
                "Install the ingress controller that serves class {name}, or make an IngressClass of that name."
            ),
        };
        return Some(
            Finding::new(
                FaultClass::IngressClassMissing,
                object.clone(),
                format!("{object} asks for ingress class {name}, which does not exist, so nobody serves it"),
            )
            .because(
                ObjectRef::new("IngressClass", "", name),
                format!("there is no IngressClass {name} (there are: {})", or_none(&names())),
            )
            .fix(fix)
            .field(object, "spec.ingressClassName", name),
        );
    }
    // Controllers act on the annotation without any class; an address tells that somebody serves it.
    let served = ingress.metadata.annotations.get(CLASS_ANNOTATION).is_some_and(|a| !a.is_empty())
        || !ingress.status.load_balancer.ingress.is_empty();
    if served || !classes.sees("") || classes.iter().any(is_default) {
        return None;
    }
    let only = classes.iter().next().filter(|_| classes.len() == 1);
    let fix = match only {
        Some(class) => {
            format!("Set ingressClassName of {object} to {}, or mark that class as the default.", class.metadata.name)
        }
        None => format!("Set ingressClassName of {object} to one of: {}.", or_none(&names())),
    };
    Some(
        Finding::new(
            FaultClass::IngressClassMissing,
            object.clone(),
            format!("{object} names no ingress class and there is no default one, so nobody serves it"),
        )
        .because(
            object.clone(),
            "it has neither ingressClassName nor the older annotation, and no IngressClass is the default",
        )
        .fix(fix)
        .field(object, "spec.ingressClassName", "(not set)"),
    )
}

fn or_none(text: &str) -> &str {
    if text.is_empty() { "none" } else { text }
}

fn sends(net: &Net<'_>, object: &ObjectRef, place: &str, backend: &crate::objects::IngressBackend) -> Option<Finding> {
    let wanted = backend.service.as_ref()?;
    // A load balancer's own actions stand where a service would.
    if wanted.port.name == "use-annotation" {
        return None;
    }
    let namespace = &object.namespace;
    let name = ObjectRef::new("Service", namespace.clone(), wanted.name.clone());
    let service = match behind(net, namespace, &wanted.name) {
        Behind::Missing => return Some(missing(net, object, place, &name)),
        Behind::Unseen => match net.cx.world.services.look(namespace, &wanted.name) {
            Look::Found(service) => service,
            _ => return None,
        },
        Behind::Elsewhere(service) | Behind::Serving(service) => service,
        Behind::Nobody { service, roots, .. } => {
            if has_port(service, wanted) {
                let summary = format!("{object} sends {place} to {name}, behind which nobody answers");
                let mut finding = Finding::new(FaultClass::EndpointsNotReady, object.clone(), summary)
                    .only_as_symptom()
                    .explained_by(name);
                for root in roots {
                    finding = finding.explained_by(root);
                }
                return Some(finding);
            }
            service
        }
    };
    if has_port(service, wanted) {
        return None;
    }
    let port = if wanted.port.name.is_empty() { wanted.port.number.to_string() } else { wanted.port.name.clone() };
    let has = backend::ports(service);
    Some(
        Finding::new(
            FaultClass::IngressBackendMissing,
            object.clone(),
            format!("{object} sends {place} to port {port} of {name}, which does not have it"),
        )
        .because(name.clone(), format!("{name} has {has}, not {port}"))
        .fix(format!("Set the port of that backend of {object} to {has}, or add port {port} to {name}."))
        .field(object, &format!("spec.rules[{place}].backend.service.port"), &port)
        .field(&name, "spec.ports", &has),
    )
}

fn missing(net: &Net<'_>, object: &ObjectRef, place: &str, name: &ObjectRef) -> Finding {
    let near = net
        .cx
        .world
        .services
        .in_namespace(&name.namespace)
        .filter(|s| alike(&s.metadata.name, &name.name))
        .min_by_key(|s| (crate::objects::text::distance(&s.metadata.name, &name.name, 8), &s.metadata.name));
    let deleted = super::missing::deleted(net, name);
    let why = match deleted {
        Some(at) => format!("{name} was deleted {} ago", crate::objects::text::span(net.cx.age(at))),
        None => format!("{name} does not exist"),
    };
    let fix = match near {
        Some(near) => format!("Send it to {} (a Service that exists), or make {name}.", near.metadata.name),
        None => format!("Make {name}, or take the backend out of {object}."),
    };
    Finding::new(
        FaultClass::IngressBackendMissing,
        object.clone(),
        format!("{object} sends {place} to {name}, which does not exist"),
    )
    .because(name.clone(), why)
    .fix(fix)
    .since(deleted)
    .field(object, &format!("spec.rules[{place}].backend.service.name"), &name.name)
}

/// The class that serves an ingress, as far as it says.
fn served_by<'a>(ingress: &'a Ingress, default: &'a str) -> &'a str {
    let named = ingress.spec.ingress_class_name.as_deref().filter(|n| !n.is_empty());
    named.or_else(|| ingress.metadata.annotations.get(CLASS_ANNOTATION)).unwrap_or(default)
}

/// Whether it is made to share paths with another one.
fn shares(ingress: &Ingress) -> bool {
    ingress.metadata.annotations.iter().any(|(name, value)| {
        (name.ends_with("/canary") && value == "true")
            || name.ends_with("/mergeable-ingress-type")
            || name.ends_with("/group.name")
    })
}

/// Two ingresses of one class that claim one host and path, for different backends. Across namespaces only where both
/// are served: what nobody serves takes no traffic from another team.
fn conflicts(net: &Net<'_>, out: &mut Vec<Finding>) {
    let classes = &net.cx.world.ingress_classes;
    let default = classes.iter().find(|c| is_default(c)).map_or("", |c| c.metadata.name.as_str());
    type Claim<'a> = (&'a Ingress, String);
    let mut claims: BTreeMap<(&str, &str, &str, &str, &str), Vec<Claim<'_>>> = BTreeMap::new();
    for ingress in net.cx.world.ingresses.iter().filter(|i| !shares(i)) {
        let class = served_by(ingress, default);
        // Without a class nobody serves it, which is told as such.
        if class.is_empty() && ingress.status.load_balancer.ingress.is_empty() {
            continue;
        }
        for rule in &ingress.spec.rules {
            // Without a host it is only the same place within one namespace, as far as can be told.
            let scope = if rule.host.is_empty() { ingress.metadata.namespace.as_str() } else { "" };
            for path in rule.http.iter().flat_map(|h| h.paths.iter()) {
                let text = if path.path.is_empty() { "/" } else { &path.path };
                let target = path.backend.service.as_ref().map_or_else(String::new, |s| {
                    format!("{}/{}:{}{}", ingress.metadata.namespace, s.name, s.port.number, s.port.name)
                });
                let key = (class, scope, rule.host.as_str(), text, path.path_type.as_str());
                claims.entry(key).or_default().push((ingress, target));
            }
        }
    }
    for ((_, _, host, path, _), mut all) in claims {
        all.sort_by_key(|(i, _)| (i.metadata.creation_timestamp, &i.metadata.namespace, &i.metadata.name));
        let Some((first, target)) = all.first().cloned() else { continue };
        let older = ObjectRef::of("Ingress", &first.metadata);
        let host = if host.is_empty() { "*" } else { host };
        for (ingress, other) in all.iter().skip(1) {
            let newer = ObjectRef::of("Ingress", &ingress.metadata);
            let served = |i: &Ingress| !i.status.load_balancer.ingress.is_empty();
            let apart = newer.namespace != older.namespace && !(served(first) && served(ingress));
            if newer == older || *other == target || apart {
                continue;
            }
            out.push(
                Finding::new(
                    FaultClass::IngressConflict,
                    newer.clone(),
                    format!("{newer} claims {host}{path}, which {older} claims too, for another backend"),
                )
                .because(
                    older.clone(),
                    format!("{older} claims {host}{path} already and sends it to {target}, {newer} to {other}"),
                )
                .fix(format!(
                    "Take {host}{path} out of one of {older} and {newer}, or give one of them another host or path."
                ))
                .field(&newer, &format!("spec.rules[{host}{path}]"), other)
                .field(&older, &format!("spec.rules[{host}{path}]"), &target)
                .hits(older.clone()),
            );
        }
    }
}
