//! Config maps and secrets that nothing uses: advice.

use super::contents::SYSTEM;
use super::uses::{Source, Uses};
use crate::objects::Meta;
use crate::{Context, Finding, Grade, ObjectRef};
use nightshift_model::FaultClass;
use serde_json::Value;
use std::collections::BTreeSet;

/// Types of secrets that are read through the API or by the system itself.
const READ_BY_SYSTEM: [&str; 3] =
    ["kubernetes.io/service-account-token", "bootstrap.kubernetes.io/token", "helm.sh/release.v1"];

/// Runs the check.
pub(super) fn run(cx: &Context<'_>, uses: &Uses<'_>, out: &mut Vec<Finding>) {
    let named = named(cx);
    let sees = |namespace: &str| {
        cx.world.pods.sees(namespace)
            && cx.world.deployments.sees(namespace)
            && cx.world.stateful_sets.sees(namespace)
            && cx.world.daemon_sets.sees(namespace)
            && cx.world.cron_jobs.sees(namespace)
            && cx.world.jobs.sees(namespace)
    };
    let mut look = |source: Source, meta: &Meta| {
        let used = uses.readers(source, &meta.namespace, &meta.name).is_some() || named.contains(meta.name.as_str());
        if used || read_otherwise(meta) || !sees(&meta.namespace) {
            return;
        }
        let me = ObjectRef::of(source.kind(), meta);
        out.push(
            Finding::new(FaultClass::ConfigUnused, me.clone(), format!("{} {} is used by nothing", me.kind, me.name))
                .because(me.clone(), "no pod, template, ingress, service account or custom resource names it")
                .fix(format!(
                    "If nobody reads it through the API: kubectl -n {} delete {} {}",
                    me.namespace,
                    me.kind.to_ascii_lowercase(),
                    me.name
                ))
                .graded(Grade::Advice)
                .field(&me, "metadata.name", &me.name),
        );
    };
    for map in cx.world.config_maps.iter() {
        look(Source::ConfigMap, &map.metadata);
    }
    for secret in cx.world.secrets.iter().filter(|s| !READ_BY_SYSTEM.contains(&s.kind.as_str())) {
        look(Source::Secret, &secret.metadata);
    }
}

/// Whether somebody reads it without naming it in a pod: operators, sidecars that collect by label, the system.
fn read_otherwise(meta: &Meta) -> bool {
    let by_label = |text: &str| {
        let text = text.to_ascii_lowercase();
        [
            "dashboard",
            "datasource",
            "sidecar",
            "_rule",
            "alert",
            "secret-type",
            "sealed-secrets",
            "sealedsecrets",
            "leader",
            "flagd",
        ]
        .iter()
        .any(|w| text.contains(w))
    };
    !meta.owner_references.is_empty()
        || SYSTEM.contains(&meta.namespace.as_str())
        || meta.name.ends_with(".crt")
        || meta.name.starts_with("sh.helm.release")
        || meta
            .labels
            .iter()
            .any(|(n, v)| by_label(n) || by_label(v) || n.starts_with("olm.") || n.starts_with("operators."))
        || meta.annotations.iter().any(|(n, _)| {
            n.starts_with("cert-manager.io/")
                || n.contains("leader")
                || n.contains("reflector")
                || n.contains("replicat")
        })
        || ["leader", "lock", "election"].iter().any(|w| meta.name.contains(w))
}

/// Names that anything else mentions, in whatever namespace: too many are spared rather than too few.
fn named<'a>(cx: &Context<'a>) -> BTreeSet<&'a str> {
    let world = cx.world;
    let mut out: BTreeSet<&str> = BTreeSet::new();
    out.extend(world.ingresses.iter().flat_map(|i| &i.spec.tls).map(|t| t.secret_name.as_str()));
    out.extend(world.service_accounts.iter().flat_map(|s| &s.image_pull_secrets).map(|s| s.name.as_str()));
    // A role for one object is there for who reads it through the API.
    for role in world.roles.iter().chain(world.cluster_roles.iter()) {
        out.extend(role.rules.iter().flat_map(|r| &r.resource_names).map(String::as_str));
    }
    for gateway in world.gateways.iter() {
        for listener in &gateway.spec.listeners {
            out.extend(listener.tls.iter().flat_map(|t| &t.certificate_refs).map(|r| r.name.as_str()));
        }
    }
    for object in world.custom.values().flat_map(|t| t.iter()) {
        strings(&object.spec, &mut out);
    }
    out
}

/// All texts of a value that could be names.
fn strings<'a>(value: &'a Value, out: &mut BTreeSet<&'a str>) {
    match value {
        Value::String(text) if text.len() <= 253 => {
            out.insert(text);
        }
        Value::Array(items) => items.iter().for_each(|v| strings(v, out)),
        Value::Object(map) => map.values().for_each(|v| strings(v, out)),
        _ => {}
    }
}
