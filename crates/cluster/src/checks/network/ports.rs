//! Ports of services that reach no container.

use super::index::{Net, revision};
use crate::objects::text::span;
use crate::objects::{Container, IntOrString, PodSpec, Probe, Service, ServicePort};
use crate::{Finding, ObjectRef};
use nightshift_model::FaultClass;
use std::collections::BTreeSet;

/// Sidecars that are put into pods from outside: what they declare says nothing of the application.
const INJECTED: [&str; 5] = ["istio-proxy", "linkerd-proxy", "envoy-sidecar", "vault-agent", "kuma-sidecar"];

/// Checks each port of a service against the pods that it selects (or those that would be made), each with its root.
pub(super) fn check(net: &Net<'_>, service: &Service, pods: &[(ObjectRef, &PodSpec)], out: &mut Vec<Finding>) {
    let object = ObjectRef::of("Service", &service.metadata);
    let Some((root, first)) = pods.first() else { return };
    if pods.iter().all(|(root, _)| matches!(root.kind.as_str(), "Job" | "CronJob")) {
        return;
    }
    for (i, port) in service.spec.ports.iter().enumerate() {
        let target =
            port.target_port.clone().filter(|t| *t != IntOrString::Int(0)).unwrap_or(IntOrString::Int(port.port));
        // A headless service hands out addresses: its numbers are for people.
        if service.spec.cluster_ip == "None" && matches!(target, IntOrString::Int(_)) {
            continue;
        }
        let reached = |spec: &PodSpec| match &target {
            IntOrString::Text(name) => containers(spec)
                .any(|c| c.ports.iter().any(|p| p.name == *name && protocol(&p.protocol) == protocol(&port.protocol))),
            IntOrString::Int(number) => listens(spec, *number, &port.protocol),
        };
        if pods.iter().any(|(_, spec)| reached(spec)) {
            continue;
        }
        out.push(tell(net, service, &object, (i, port, &target), root, first));
    }
}

fn tell(
    net: &Net<'_>,
    service: &Service,
    object: &ObjectRef,
    (i, port, target): (usize, &ServicePort, &IntOrString),
    root: &ObjectRef,
    spec: &PodSpec,
) -> Finding {
    let path = format!("spec.ports[{i}].targetPort");
    let has = declared(spec);
    let named = matches!(target, IntOrString::Text(_));
    let what = if named { format!("the port named {target}") } else { format!("port {target}") };
    let finding = Finding::new(
        FaultClass::ServicePortMismatch,
        object.clone(),
        format!("{object} sends port {} to {what}, which no container of {root} has", port.port),
    )
    .field(object, &path, target.to_string())
    .field(root, "spec.template.spec.containers[*].ports", &has)
    .hits(root.clone());
    if let Some((why, since)) = changed(net, root, target, port, spec) {
        return finding.because(root.clone(), why).since(since).fix(format!(
            "Give the container of {root} {what} again, or set targetPort of {object} to one of its ports ({has})."
        ));
    }
    let better = suggestion(spec, port, target);
    let fix = match &better {
        Some(better) => {
            let value = match better {
                IntOrString::Int(n) => n.to_string(),
                IntOrString::Text(name) => format!("\"{name}\""),
            };
            format!(
                "Set targetPort of port {} of {object} to {better}: kubectl -n {} patch service {} --type=json -p \
                 '[{{\"op\":\"replace\",\"path\":\"/spec/ports/{i}/targetPort\",\"value\":{value}}}]'",
                port.port, service.metadata.namespace, service.metadata.name
            )
        }
        None => format!(
            "Set targetPort of {object} to a port that its containers listen on ({has}), or declare {what} in the container."
        ),
    };
    finding
        .because(object.clone(), format!("its targetPort is {target}, while the containers of {root} declare {has}"))
        .fix(fix)
}

/// Whether a newer replica set lost the port that an older one had.
fn changed(
    net: &Net<'_>,
    root: &ObjectRef,
    target: &IntOrString,
    port: &ServicePort,
    now: &PodSpec,
) -> Option<(String, Option<nightshift_model::Timestamp>)> {
    if root.kind != "Deployment" {
        return None;
    }
    let mut sets = net.cx.replica_sets(&root.namespace, &root.name).to_vec();
    sets.sort_by_key(|s| (revision(s), s.metadata.creation_timestamp, &s.metadata.name));
    let had = |spec: &PodSpec| {
        containers(spec).flat_map(|c| c.ports.iter()).any(|p| match target {
            IntOrString::Text(name) => p.name == *name,
            IntOrString::Int(number) => {
                p.container_port == *number && protocol(&p.protocol) == protocol(&port.protocol)
            }
        })
    };
    let at = sets.iter().rposition(|s| had(&s.spec.template.spec))?;
    let newer = sets.get(at + 1)?;
    let since = newer.metadata.creation_timestamp;
    let ago = since.map(|s| format!(" {} ago", span(net.cx.age(s)))).unwrap_or_default();
    Some((
        format!(
            "revision {} of {root} declares {} and no longer {target}; it was made{ago}",
            revision(newer),
            declared(now)
        ),
        since,
    ))
}

/// Containers that run beside each other.
fn containers(spec: &PodSpec) -> impl Iterator<Item = &Container> {
    spec.containers.iter().chain(spec.init_containers.iter().filter(|c| c.is_sidecar()))
}

fn protocol(text: &str) -> &str {
    if text.is_empty() { "TCP" } else { text }
}

/// Whether a pod may listen on a port: it says so, or it does not say what it listens on.
fn listens(spec: &PodSpec, number: i64, wanted: &str) -> bool {
    let declares =
        |c: &Container| c.ports.iter().any(|p| p.container_port == number && protocol(&p.protocol) == protocol(wanted));
    // A probe knocks where somebody listens.
    let probed = |probe: &Option<Probe>, c: &Container| {
        let targets = probe.iter().flat_map(|p| [&p.http_get, &p.tcp_socket, &p.grpc]);
        targets.flatten().any(|t| match &t.port {
            Some(IntOrString::Int(n)) => *n == number,
            Some(IntOrString::Text(name)) => c.ports.iter().any(|p| p.name == *name && p.container_port == number),
            None => false,
        })
    };
    if containers(spec).any(|c| {
        declares(c) || probed(&c.readiness_probe, c) || probed(&c.liveness_probe, c) || probed(&c.startup_probe, c)
    }) {
        return true;
    }
    // Declaring ports is optional: only a main container that does declare some tells that this is none of them.
    let main = spec.containers.iter().find(|c| !INJECTED.contains(&c.name.as_str()));
    main.is_none_or(|c| c.ports.is_empty())
}

/// What the containers declare, in words.
fn declared(spec: &PodSpec) -> String {
    let words: BTreeSet<String> = containers(spec)
        .flat_map(|c| c.ports.iter())
        .map(|p| {
            let number = match protocol(&p.protocol) {
                "TCP" => p.container_port.to_string(),
                other => format!("{}/{other}", p.container_port),
            };
            if p.name.is_empty() { number } else { format!("{number} ({})", p.name) }
        })
        .collect();
    if words.is_empty() { "no ports".to_owned() } else { words.into_iter().collect::<Vec<_>>().join(", ") }
}

/// The port that was most likely meant.
fn suggestion(spec: &PodSpec, port: &ServicePort, target: &IntOrString) -> Option<IntOrString> {
    let all: Vec<_> = containers(spec)
        .filter(|c| !INJECTED.contains(&c.name.as_str()))
        .flat_map(|c| c.ports.iter())
        .filter(|p| protocol(&p.protocol) == protocol(&port.protocol))
        .collect();
    let like = |p: &&&crate::objects::ContainerPort| {
        (!p.name.is_empty() && p.name == port.name)
            || p.container_port == port.port
            || matches!(target, IntOrString::Text(t) if crate::objects::text::alike(&p.name, t))
    };
    let best = match all.as_slice() {
        [only] => only,
        _ => all.iter().find(like)?,
    };
    let by_name = matches!(target, IntOrString::Text(_)) && !best.name.is_empty();
    Some(if by_name { IntOrString::Text(best.name.clone()) } else { IntOrString::Int(best.container_port) })
}
