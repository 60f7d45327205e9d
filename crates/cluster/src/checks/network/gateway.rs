//! Gateways and their classes: not accepted, not programmed, of a class that does not exist.

use super::index::Net;
use crate::objects::text::{alike, span};
use crate::objects::{Condition, Gateway, Many, Meta};
use crate::{Finding, ObjectRef};
use nightshift_model::FaultClass;
use std::time::Duration;

/// How long nobody may have looked at a new gateway or class.
const YOUNG: Duration = Duration::from_secs(600);

/// Checks classes and gateways.
pub(super) fn run(net: &Net<'_>, out: &mut Vec<Finding>) {
    let world = net.cx.world;
    for class in world.gateway_classes.iter() {
        let object = ObjectRef::of("GatewayClass", &class.metadata);
        let users = world.gateways.iter().filter(|g| g.spec.gateway_class_name == class.metadata.name);
        let users: Vec<ObjectRef> = users.map(|g| ObjectRef::of("Gateway", &g.metadata)).collect();
        let refused = refused(net, &class.metadata, &class.status.conditions, "Accepted");
        let ignored = || ignored(net, &class.metadata, &class.status.conditions).filter(|_| !users.is_empty());
        let finding = refused
            .map(|c| {
                told(
                    &object,
                    c,
                    format!("{object} is not accepted by its controller: {}", words(c)),
                    format!(
                        "Correct what controller {} refuses (parametersRef of {object}), or use another class.",
                        class.spec.controller_name
                    ),
                )
            })
            .or_else(|| {
                let age = ignored()?;
                Some(
                    Finding::new(
                        FaultClass::GatewayNotAccepted,
                        object.clone(),
                        format!("nobody has looked at {object} for {}", span(age)),
                    )
                    .because(object.clone(), format!("no controller {} answers", class.spec.controller_name))
                    .fix(format!("Install or repair the controller {}.", class.spec.controller_name))
                    .field(&object, "spec.controllerName", &class.spec.controller_name),
                )
            });
        if let Some(finding) = finding {
            out.push(users.into_iter().fold(finding, Finding::hits));
        }
    }
    for gateway in world.gateways.iter().filter(|g| g.metadata.deletion_timestamp.is_none()) {
        let object = ObjectRef::of("Gateway", &gateway.metadata);
        out.extend(gateway_trouble(net, gateway, &object));
    }
}

fn gateway_trouble(net: &Net<'_>, gateway: &Gateway, object: &ObjectRef) -> Option<Finding> {
    let classes = &net.cx.world.gateway_classes;
    let name = gateway.spec.gateway_class_name.as_str();
    let class = ObjectRef::new("GatewayClass", "", name);
    if classes.look("", name).is_missing() {
        let near = classes.iter().find(|c| alike(&c.metadata.name, name)).or_else(|| classes.iter().next());
        let fix = match near {
            Some(near) => {
                format!("Set gatewayClassName of {object} to {}, or make the class {name}.", near.metadata.name)
            }
            None => format!("Install the controller that brings class {name}, or make a GatewayClass of that name."),
        };
        return Some(
            Finding::new(
                FaultClass::GatewayNotAccepted,
                object.clone(),
                format!("{object} asks for gateway class {name}, which does not exist"),
            )
            .because(class.clone(), format!("there is no {class}"))
            .fix(fix)
            .field(object, "spec.gatewayClassName", name),
        );
    }
    let meta = &gateway.metadata;
    let all = &gateway.status.conditions;
    let whole = refused(net, meta, all, "Accepted").or_else(|| refused(net, meta, all, "Programmed"));
    let listeners = gateway.status.listeners.iter().find_map(|l| {
        let c =
            ["Accepted", "ResolvedRefs", "Programmed"].iter().find_map(|kind| refused(net, meta, &l.conditions, kind));
        let conflict = l.conditions.when("Conflicted", "True").filter(|c| is_current(meta, c));
        c.or(conflict).map(|c| (l.name.as_str(), c))
    });
    // What a listener says is nearer to the cause.
    let (summary, condition) = match (listeners, whole) {
        (Some((listener, c)), _) => (format!("listener {listener} of {object} does not work: {}", words(c)), c),
        (None, Some(c)) if c.kind == "Programmed" => (format!("{object} is not programmed: {}", words(c)), c),
        (None, Some(c)) => (format!("{object} is not accepted: {}", words(c)), c),
        (None, None) => return None,
    };
    let fix = match condition.reason.as_str() {
        "AddressNotAssigned" | "AddressNotUsable" => {
            format!("Give {object} an address: look at the load balancer of the cluster, or at spec.addresses.")
        }
        "NoResources" => format!("Give the controller of {class} what it lacks to set up {object}."),
        "InvalidCertificateRef" => {
            "Make the Secret that the listener names, or allow the reference by a ReferenceGrant.".to_owned()
        }
        "RefNotPermitted" => {
            "Make a ReferenceGrant in the namespace of the Secret that allows Gateways of this namespace.".to_owned()
        }
        "UnsupportedProtocol" | "UnsupportedValue" | "InvalidRouteKinds" => {
            format!("Change the listener of {object} to what {class} supports.")
        }
        "PortUnavailable" | "HostnameConflict" | "ProtocolConflict" => {
            format!("Give that listener of {object} another port or host.")
        }
        _ => format!("Correct {object} as its condition says, or look at the controller of {class}."),
    };
    let finding = told(object, condition, summary, fix).explained_by(class);
    // A broken certificate of the gateway says it more exactly.
    Some(if matches!(condition.reason.as_str(), "InvalidCertificateRef" | "RefNotPermitted") {
        finding.generic()
    } else {
        finding
    })
}

fn told(object: &ObjectRef, condition: &Condition, summary: String, fix: String) -> Finding {
    Finding::new(FaultClass::GatewayNotAccepted, object.clone(), summary)
        .because(object.clone(), words(condition))
        .fix(fix)
        .field(
            object,
            &format!("status.conditions[{}]", condition.kind),
            format!("{}: {}", condition.status, words(condition)),
        )
        .since(condition.last_transition_time)
}

/// Reason and message.
pub(super) fn words(condition: &Condition) -> String {
    match (condition.reason.is_empty(), condition.message.is_empty()) {
        (false, false) => format!("{} ({})", condition.message.trim_end_matches('.'), condition.reason),
        (true, false) => condition.message.clone(),
        _ => condition.reason.clone(),
    }
}

/// Whether a condition is about the object as it is now.
pub(super) fn is_current(meta: &Meta, condition: &Condition) -> bool {
    condition.observed_generation.is_none_or(|seen| seen == 0 || meta.generation == 0 || seen >= meta.generation)
}

/// The condition, when it is false and that is no passing state.
fn refused<'c>(net: &Net<'_>, meta: &Meta, all: &'c Many<Condition>, kind: &str) -> Option<&'c Condition> {
    let condition = all.when(kind, "False").filter(|c| is_current(meta, c))?;
    let passing = condition.reason == "Pending"
        && condition.last_transition_time.is_some_and(|at| net.cx.age(at) < Duration::from_secs(60));
    (!passing).then_some(condition)
}

/// How long nobody has looked, when that is too long.
fn ignored(net: &Net<'_>, meta: &Meta, all: &Many<Condition>) -> Option<Duration> {
    let looked = all.of("Accepted").is_some_and(|c| c.status != "Unknown");
    let age = net.cx.age(meta.creation_timestamp?);
    (!looked && age > YOUNG).then_some(age)
}
