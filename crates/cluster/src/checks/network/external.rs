//! Services that stand for a name elsewhere: a name of this cluster that is not there, an address, or one that callers
//! cannot resolve. The scan itself asks no DNS server: the callers' own logs and events tell.

use super::callers::Calls;
use super::dns::unresolved;
use super::index::Net;
use crate::objects::Service;
use crate::{Finding, Look, ObjectRef};
use nightshift_model::FaultClass;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// Checks every service of this type.
pub(super) fn run(net: &Net<'_>, calls: &Calls, out: &mut Vec<Finding>) {
    let externals: Vec<&Service> = net.cx.world.services.iter().filter(|s| s.spec.kind == "ExternalName").collect();
    if externals.is_empty() {
        return;
    }
    let words = unresolved(net);
    for service in externals {
        let object = ObjectRef::of("Service", &service.metadata);
        let name = service.spec.external_name.trim_end_matches('.').to_ascii_lowercase();
        let found =
            address(&object, &name).or_else(|| inside(net, &object, &name)).or_else(|| told(&object, &name, &words));
        if let Some(mut finding) = found {
            for (caller, _) in calls.of(&object.namespace, &object.name) {
                finding = finding.hits(caller.clone()).explains(caller.clone());
            }
            out.push(finding.field(&object, "spec.externalName", &name));
        }
    }
}

fn address(object: &ObjectRef, name: &str) -> Option<Finding> {
    name.parse::<IpAddr>().ok()?;
    Some(
        Finding::new(
            FaultClass::ExternalNameUnresolved,
            object.clone(),
            format!("{object} stands for the address {name}, which no DNS server can give as a name"),
        )
        .because(object.clone(), format!("externalName is the address {name}; it must be a DNS name"))
        .fix(format!("Make {object} a Service without selector, with an EndpointSlice that holds {name}.")),
    )
}

/// A name of this cluster whose service is not there.
fn inside(net: &Net<'_>, object: &ObjectRef, name: &str) -> Option<Finding> {
    let parts: Vec<&str> = name.split('.').collect();
    let [service, namespace, "svc", ..] = parts.as_slice() else { return None };
    if !matches!(net.cx.world.services.look(namespace, service), Look::Missing) {
        return None;
    }
    let missing = ObjectRef::new("Service", *namespace, *service);
    Some(
        Finding::new(
            FaultClass::ExternalNameUnresolved,
            object.clone(),
            format!("{object} stands for {name}, which does not exist"),
        )
        .because(missing.clone(), format!("{missing} does not exist"))
        .fix(format!("Make {missing}, or set externalName of {object} to a name that exists.")),
    )
}

fn told(
    object: &ObjectRef,
    name: &str,
    words: &BTreeMap<ObjectRef, Vec<(String, &'static str, String)>>,
) -> Option<Finding> {
    let short = format!("{}.{}", object.name, object.namespace);
    let about = |line: &str, caller: &ObjectRef| {
        let line = line.to_ascii_lowercase();
        let has = |host: &str| {
            line.match_indices(host).any(|(i, _)| {
                let edge = |c: Option<char>| c.is_none_or(|c| !c.is_ascii_alphanumeric() && c != '-');
                edge(line[..i].chars().next_back()) && edge(line[i + host.len()..].chars().next())
            })
        };
        has(name) || has(&short) || (caller.namespace == object.namespace && has(&object.name))
    };
    let mut callers = BTreeSet::new();
    let mut facts = Vec::new();
    for (caller, lines) in words {
        for (id, source, line) in lines.iter().filter(|(_, _, line)| about(line, caller)) {
            callers.insert(caller.clone());
            facts.push((id.clone(), *source, line.clone()));
        }
    }
    if callers.is_empty() {
        return None;
    }
    let who = callers.iter().take(3).map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let mut finding = Finding::new(
        FaultClass::ExternalNameUnresolved,
        object.clone(),
        format!("{object} stands for {name}, which its callers cannot resolve"),
    )
    .because(object.clone(), format!("{who} cannot resolve {name}"))
    .fix(format!("Correct externalName of {object}, or bring {name} back into DNS (from a pod: nslookup {name})."));
    for (id, source, line) in facts.into_iter().take(5) {
        finding = finding.fact(id, source, line);
    }
    for caller in callers {
        finding = finding.hits(caller.clone()).explains(caller);
    }
    Some(finding)
}
