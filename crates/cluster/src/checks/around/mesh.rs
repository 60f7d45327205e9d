//! Istio: callers that strict encryption or an authorization policy denies, pods left out of the mesh.

use super::{all, named};
use crate::checks::network;
use crate::objects::{Custom, Labels, Pod};
use crate::{Context, Finding, ObjectRef};
use nightshift_model::FaultClass;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

const SECURITY: &str = "security.istio.io";
/// Namespace whose policies hold for the whole mesh.
const ROOT_NAMESPACE: &str = "istio-system";

/// Runs the checks of Istio.
pub(super) fn run(cx: &Context<'_>, out: &mut Vec<Finding>) {
    if cx.world.customs(SECURITY, "PeerAuthentication").is_none()
        && cx.world.customs(SECURITY, "AuthorizationPolicy").is_none()
    {
        return;
    }
    left_out(cx, out);
    let calls = network::called_by(cx);
    for policy in all(cx, SECURITY, "PeerAuthentication") {
        strict(cx, policy, &calls, out);
    }
    for policy in all(cx, SECURITY, "AuthorizationPolicy") {
        denied(cx, policy, &calls, out);
    }
}

/// Whether a pod has the mesh's sidecar.
fn in_mesh(pod: &Pod) -> bool {
    let spec = &pod.spec;
    spec.containers.iter().chain(&spec.init_containers).any(|c| c.name == "istio-proxy")
        || pod.metadata.annotations.get("ambient.istio.io/redirection") == Some("enabled")
}

fn wants_mesh(labels: &Labels) -> bool {
    labels.get("istio-injection") == Some("enabled") || labels.get("istio.io/rev").is_some_and(|r| !r.is_empty())
}

/// Namespaces that want the mesh and have workloads that are not in it: they began before the label came.
fn left_out(cx: &Context<'_>, out: &mut Vec<Finding>) {
    for namespace in cx.world.namespaces.iter().filter(|n| wants_mesh(&n.metadata.labels)) {
        let name = &namespace.metadata.name;
        let mut outside: BTreeSet<ObjectRef> = BTreeSet::new();
        for pod in cx.world.pods.in_namespace(name) {
            let refuses = pod.metadata.labels.get("sidecar.istio.io/inject") == Some("false")
                || pod.metadata.annotations.get("sidecar.istio.io/inject") == Some("false")
                || pod.spec.host_network;
            let lives = pod.status.phase == "Running" && pod.metadata.deletion_timestamp.is_none();
            if lives && !refuses && !in_mesh(pod) {
                outside.insert(cx.root(pod));
            }
        }
        if outside.is_empty() {
            continue;
        }
        let object = ObjectRef::new("Namespace", "", name.clone());
        let label = namespace.metadata.labels.iter().find(|(n, _)| n.starts_with("istio"));
        let label = label.map(|(n, v)| format!("{n}={v}")).unwrap_or_default();
        let mut finding = Finding::new(
            FaultClass::MeshMissing,
            object.clone(),
            format!("Namespace {name} is in the mesh, and pods of {} workloads in it are not", outside.len()),
        )
        .because(object.clone(), "they began before the namespace was labelled for the mesh, and have no sidecar")
        .fix(format!("Restart them: kubectl rollout restart deployment -n {name}."))
        .field(&object, "metadata.labels", label);
        for workload in outside {
            finding = finding.hits(workload);
        }
        out.push(finding);
    }
}

/// Workloads with pods in a namespace that a policy's selector selects.
fn selected<'a>(cx: &Context<'a>, policy: &Custom) -> Vec<&'a Pod> {
    let labels: Labels = policy
        .spec
        .pointer("/selector/matchLabels")
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
        .filter_map(|(n, v)| Some((n.clone(), v.as_str()?.to_owned())))
        .collect();
    let everywhere = policy.metadata.namespace == ROOT_NAMESPACE;
    let pods = cx.world.pods.iter();
    pods.filter(|p| {
        (everywhere || p.metadata.namespace == policy.metadata.namespace) && p.metadata.labels.has_all(&labels)
    })
    .collect()
}

/// Services that select one of these pods.
fn services_of(cx: &Context<'_>, pods: &[&Pod]) -> BTreeSet<ObjectRef> {
    pods.iter().flat_map(|p| cx.services_of(p)).map(|s| ObjectRef::of("Service", &s.metadata)).collect()
}

/// Callers without a sidecar of what demands encryption.
fn strict(cx: &Context<'_>, policy: &Custom, calls: &BTreeMap<ObjectRef, BTreeSet<ObjectRef>>, out: &mut Vec<Finding>) {
    if policy.spec_text("/mtls/mode") != "STRICT" {
        return;
    }
    let pods: Vec<&Pod> = selected(cx, policy).into_iter().filter(|p| in_mesh(p)).collect();
    let services = services_of(cx, &pods);
    let object = named(policy);
    for (caller, called) in calls {
        let Some(service) = called.iter().find(|s| services.contains(*s)) else { continue };
        let theirs = cx.pods_of(caller);
        if theirs.is_empty() || theirs.iter().any(|p| in_mesh(p)) {
            continue;
        }
        out.push(
            Finding::new(
                FaultClass::MeshDenied,
                caller.clone(),
                format!("{caller} cannot call {service}: it is outside the mesh"),
            )
            .because(object.clone(), format!("{object} demands mutual TLS, which pods without a sidecar do not speak"))
            .fix(format!(
                "Bring {caller} into the mesh (label its namespace and restart it), or set {object} to PERMISSIVE."
            ))
            .field(&object, "spec.mtls.mode", "STRICT")
            .hits(service.clone()),
        );
    }
}

/// Who a rule of an authorization policy lets in (or keeps out): `None` when it names no source.
struct Sources {
    namespaces: Vec<String>,
    principals: Vec<String>,
    /// It also asks for something else (addresses, paths, methods, headers), which cannot be told from here.
    more: bool,
}

fn texts(value: Option<&Value>) -> Vec<String> {
    value.and_then(Value::as_array).into_iter().flatten().filter_map(|v| v.as_str().map(str::to_owned)).collect()
}

fn sources(rule: &Value) -> Vec<Sources> {
    let asks = rule.get("to").is_some() || rule.get("when").is_some();
    let from = rule.get("from").and_then(Value::as_array);
    let Some(from) = from else {
        return vec![Sources { namespaces: vec!["*".into()], principals: Vec::new(), more: asks }];
    };
    from.iter()
        .filter_map(|f| f.get("source")?.as_object())
        .map(|s| Sources {
            namespaces: texts(s.get("namespaces")),
            principals: texts(s.get("principals")),
            more: asks || s.keys().any(|k| k != "namespaces" && k != "principals"),
        })
        .collect()
}

fn glob(pattern: &str, text: &str) -> bool {
    match (pattern.strip_prefix('*'), pattern.strip_suffix('*')) {
        _ if pattern == "*" => true,
        (Some(end), _) => text.ends_with(end),
        (None, Some(start)) => text.starts_with(start),
        (None, None) => pattern == text,
    }
}

/// Whether sources cover a caller; `None` when that cannot be told.
fn covers(all: &[Sources], namespace: &str, account: &str) -> Option<bool> {
    let principal = format!("cluster.local/ns/{namespace}/sa/{account}");
    let mut unknown = false;
    for s in all {
        let namespaces = s.namespaces.is_empty() || s.namespaces.iter().any(|n| glob(n, namespace));
        let principals = s.principals.is_empty() || s.principals.iter().any(|p| glob(p, &principal));
        if namespaces && principals {
            if !s.more {
                return Some(true);
            }
            unknown = true;
        }
    }
    (!unknown).then_some(false)
}

fn denied(cx: &Context<'_>, policy: &Custom, calls: &BTreeMap<ObjectRef, BTreeSet<ObjectRef>>, out: &mut Vec<Finding>) {
    let action = policy.spec_text("/action");
    if !matches!(action, "" | "ALLOW" | "DENY") {
        return;
    }
    let deny = action == "DENY";
    let rules = policy.spec.get("rules").and_then(Value::as_array).cloned().unwrap_or_default();
    let all: Vec<Sources> = rules.iter().flat_map(sources).collect();
    let pods = selected(cx, policy);
    let services = services_of(cx, &pods);
    let object = named(policy);
    for (caller, called) in calls {
        let Some(service) = called.iter().find(|s| services.contains(*s)) else { continue };
        let Some(pod) = cx.pods_of(caller).first() else { continue };
        let account = if pod.spec.service_account_name.is_empty() { "default" } else { &pod.spec.service_account_name };
        // One ALLOW that fits is enough; the others do not take it back.
        let other_allows = !deny
            && all_policies(cx, policy).any(|p| {
                let rules = p.spec.get("rules").and_then(Value::as_array).cloned().unwrap_or_default();
                let sources: Vec<Sources> = rules.iter().flat_map(sources).collect();
                covers(&sources, &pod.metadata.namespace, account) != Some(false)
            });
        let Some(covered) = covers(&all, &pod.metadata.namespace, account) else { continue };
        if covered != deny || other_allows {
            continue;
        }
        let why = if deny {
            format!("{object} denies calls from namespace {}", pod.metadata.namespace)
        } else if all.is_empty() {
            format!("{object} allows nothing: it has no rules")
        } else {
            format!("{object} allows others, and not account {account} of namespace {}", pod.metadata.namespace)
        };
        out.push(
            Finding::new(FaultClass::MeshDenied, caller.clone(), format!("{caller} may not call {service}"))
                .because(object.clone(), why)
                .fix(format!(
                    "Let account {account} of namespace {} in by a rule of {object}, or take the policy away.",
                    pod.metadata.namespace
                ))
                .field(&object, "spec.action", if deny { "DENY" } else { "ALLOW" })
                .hits(service.clone()),
        );
    }
}

/// The other policies that allow something to the same pods: those of the same namespace with the same selector or none.
fn all_policies<'a>(cx: &Context<'a>, policy: &'a Custom) -> impl Iterator<Item = &'a Custom> {
    all(cx, SECURITY, "AuthorizationPolicy").filter(move |p| {
        let same = p.metadata.namespace == policy.metadata.namespace && p.metadata.name != policy.metadata.name;
        let selector = p.spec.get("selector");
        same && matches!(p.spec_text("/action"), "" | "ALLOW")
            && (selector.is_none() || selector == policy.spec.get("selector"))
    })
}
