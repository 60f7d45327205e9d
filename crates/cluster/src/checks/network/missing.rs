//! Services that configuration names and that are not there, or that have not the port that is named.

use super::backend;
use super::callers::{Call, Calls};
use super::index::Net;
use super::service::{State, state};
use crate::checks::history::Record;
use crate::objects::text::{is_slip, span};
use crate::{Finding, Grade, Look, ObjectRef};
use nightshift_model::{FaultClass, Timestamp};
use std::collections::BTreeMap;

/// Checks every call that a workload's configuration names.
pub(super) fn run(net: &Net<'_>, calls: &Calls, out: &mut Vec<Finding>) {
    for (caller, named) in calls.iter() {
        for call in named {
            match net.cx.world.services.look(&call.namespace, &call.service) {
                Look::Missing => out.extend(missing(net, caller, call)),
                Look::Found(service) => {
                    let wrong = call.port.filter(|port| {
                        service.spec.cluster_ip != "None"
                            && service.spec.kind != "ExternalName"
                            && service.spec.ports.iter().all(|p| p.port != *port)
                    });
                    if let Some(port) = wrong {
                        out.push(wrong_port(net, caller, call, port, &backend::ports(service)));
                    }
                }
                Look::Unseen => {}
            }
        }
    }
}

/// A caller that is ready all the same suffers less.
fn grade(net: &Net<'_>, caller: &ObjectRef, finding: Finding) -> Finding {
    let pods = net.cx.pods_of(caller);
    let ready = !pods.is_empty() && pods.iter().all(|p| state(net.cx, p) == State::Ready);
    if ready { finding.graded(Grade::Medium) } else { finding }
}

fn place(call: &Call) -> String {
    match &call.source {
        Some(map) => format!("{} (from {map})", call.variable),
        None => call.variable.clone(),
    }
}

fn evidence(finding: Finding, caller: &ObjectRef, call: &Call) -> Finding {
    match &call.source {
        Some(map) => finding.field(map, &format!("data.{}", call.variable), &call.written),
        None => {
            finding.field(caller, &format!("spec.template.spec.containers[*].env[{}]", call.variable), &call.written)
        }
    }
}

fn missing(net: &Net<'_>, caller: &ObjectRef, call: &Call) -> Option<Finding> {
    let world = net.cx.world;
    let service = ObjectRef::new("Service", call.namespace.clone(), call.service.clone());
    // A bare name may also be a pod's own name or a container beside it.
    if call.bare
        && net.templates(&caller.namespace).iter().any(|t| {
            t.root == *caller
                && (t.spec.hostname == call.service || t.spec.containers.iter().any(|c| c.name == call.service))
        })
    {
        return None;
    }
    let deleted = deleted(net, &service);
    let elsewhere = world
        .services
        .iter()
        .find(|s| call.bare && s.metadata.name == call.service && s.metadata.namespace != call.namespace);
    let near = world
        .services
        .in_namespace(&call.namespace)
        .filter(|s| is_slip(&s.metadata.name, &call.service))
        .filter(|s| call.port.is_none_or(|port| s.spec.ports.iter().any(|p| p.port == port)))
        .min_by_key(|s| (crate::objects::text::distance(&s.metadata.name, &call.service, 8), &s.metadata.name));
    let namespace_missing = world.namespaces.look("", &call.namespace).is_missing();
    let (fault, why, fix) = match (deleted, near, elsewhere) {
        (Some(at), ..) => (
            FaultClass::ServiceMissing,
            format!("{service} was deleted {} ago and is still named", span(net.cx.age(at))),
            format!("Make {service} again, or change {} of {caller}.", place(call)),
        ),
        (None, Some(near), _) => (
            FaultClass::WrongEndpoint,
            format!("there is no {service}; there is {}", ObjectRef::of("Service", &near.metadata)),
            format!("Set {} of {caller} to {}, or make {service}.", place(call), near.metadata.name),
        ),
        (None, None, Some(other)) => (
            FaultClass::ServiceMissing,
            format!("there is no {service}; one of that name is in namespace {}", other.metadata.namespace),
            format!(
                "Make {service}; or, if that one is meant, set the host in {} of {caller} to {}.{}.",
                place(call),
                call.service,
                other.metadata.namespace
            ),
        ),
        _ => (
            FaultClass::ServiceMissing,
            if namespace_missing {
                format!("there is no {service}: namespace {} does not exist", call.namespace)
            } else {
                format!("{service} does not exist")
            },
            format!("Make {service}, or change {} of {caller}.", place(call)),
        ),
    };
    let finding = Finding::new(
        fault,
        caller.clone(),
        format!("{caller} calls {} ({}), which does not exist", call.written, place(call)),
    )
    .because(service, why)
    .fix(fix)
    .since(deleted)
    .explains(caller.clone());
    Some(grade(net, caller, evidence(finding, caller, call)))
}

fn wrong_port(net: &Net<'_>, caller: &ObjectRef, call: &Call, port: i64, ports: &str) -> Finding {
    let service = ObjectRef::new("Service", call.namespace.clone(), call.service.clone());
    let finding = Finding::new(
        FaultClass::WrongEndpoint,
        caller.clone(),
        format!("{caller} calls port {port} of {service} ({}), which it does not have", place(call)),
    )
    .because(service.clone(), format!("{service} has {ports}, not {port}"))
    .fix(format!("Set the port in {} of {caller} to {ports}, or add port {port} to {service}.", place(call)))
    .field(&service, "spec.ports", ports)
    .explains(caller.clone());
    grade(net, caller, evidence(finding, caller, call))
}

/// When a watcher saw an object go.
pub(super) fn deleted(net: &Net<'_>, object: &ObjectRef) -> Option<Timestamp> {
    net.cx.world.history.of(object).rev().find(|(_, r)| matches!(r, Record::Deleted)).map(|(at, _)| at)
}

/// One missing service is one fault, however many name it: routes tell it before workloads, by name.
pub(super) fn gather(net: &Net<'_>, findings: &mut [Finding]) {
    let rank = |fault: FaultClass| match fault {
        FaultClass::IngressBackendMissing => Some(0),
        FaultClass::RouteBroken => Some(1),
        FaultClass::WebhookBroken => Some(2),
        FaultClass::ServiceMissing => Some(3),
        _ => None,
    };
    let mut by_service: BTreeMap<ObjectRef, Vec<(u8, ObjectRef, usize)>> = BTreeMap::new();
    for (i, finding) in findings.iter().enumerate() {
        let cause = &finding.cause.object;
        if cause.kind == "Service"
            && let Some(rank) = rank(finding.fault)
            && net.cx.world.services.look(&cause.namespace, &cause.name).is_missing()
        {
            by_service.entry(cause.clone()).or_default().push((rank, finding.object.clone(), i));
        }
    }
    for mut all in by_service.into_values().filter(|all| all.len() > 1) {
        all.sort();
        let Some((_, first, _)) = all.first().cloned() else { continue };
        for (_, object, i) in all.iter().skip(1) {
            if *object != first {
                findings[*i].explained_by.push(first.clone());
            }
        }
    }
}
