//! Helm: releases that failed or hang, by the secrets (or config maps) in which Helm keeps them.

use crate::objects::Meta;
use crate::{Context, Finding, ObjectRef};
use nightshift_model::{FaultClass, Timestamp};
use std::collections::BTreeMap;
use std::time::Duration;

/// How long an install or upgrade may take before it hangs: Helm's own time-out is five minutes.
const UNDER_WAY: Duration = Duration::from_secs(300);

/// Runs the checks of Helm.
pub(super) fn run(cx: &Context<'_>, out: &mut Vec<Finding>) {
    let secrets = cx.world.secrets.iter().filter(|s| s.kind == "helm.sh/release.v1").map(|s| ("Secret", &s.metadata));
    let maps = cx.world.config_maps.iter().map(|m| ("ConfigMap", &m.metadata));
    // Only the newest revision of a release says how it stands.
    let mut newest: BTreeMap<(&str, &str), (i64, &str, &Meta)> = BTreeMap::new();
    for (kind, meta) in secrets.chain(maps) {
        let label = |name: &str| meta.labels.get(name).unwrap_or_default();
        let Ok(version) = label("version").parse::<i64>() else { continue };
        if !label("owner").eq_ignore_ascii_case("helm") || label("name").is_empty() {
            continue;
        }
        let row = newest.entry((meta.namespace.as_str(), label("name"))).or_insert((version, kind, meta));
        if version > row.0 {
            *row = (version, kind, meta);
        }
    }
    for ((namespace, name), (version, kind, meta)) in newest {
        out.extend(release(cx, namespace, name, version, kind, meta));
    }
}

fn release(cx: &Context<'_>, namespace: &str, name: &str, version: i64, kind: &str, meta: &Meta) -> Option<Finding> {
    let status = meta.labels.get("status").unwrap_or_default();
    let at = meta.labels.get("modifiedAt").and_then(|t| t.parse().ok()).map(Timestamp::from_secs);
    let object = ObjectRef::of(kind, meta);
    let back = if version > 1 {
        format!("helm rollback {name} {} -n {namespace}", version - 1)
    } else {
        format!("helm uninstall {name} -n {namespace}, and install it again")
    };
    let (summary, why, fix) = match status {
        "failed" => (
            format!("Helm release {name} failed at revision {version}"),
            format!(
                "revision {version} of release {name} could not be installed: see helm history {name} -n {namespace}"
            ),
            format!("Mend what the upgrade ran into and run it again, or go back: {back}."),
        ),
        "pending-install" | "pending-upgrade" | "pending-rollback" => {
            if at.is_some_and(|at| cx.age(at) < UNDER_WAY) {
                return None;
            }
            (
                format!("Helm release {name} hangs in {status} at revision {version}"),
                format!("whoever ran helm ended before it did: the release is locked in {status}"),
                format!("Free it: {back}."),
            )
        }
        _ => return None,
    };
    let mut finding = Finding::new(FaultClass::HelmReleaseFailed, object.clone(), summary)
        .because(object.clone(), why)
        .fix(fix)
        .field(&object, "metadata.labels.status", status)
        .field(&object, "metadata.labels.version", version.to_string())
        .since(at);
    // The release failed because what it installs does not come up.
    for deployment in cx.world.deployments.in_namespace(namespace) {
        if deployment.metadata.annotations.get("meta.helm.sh/release-name") == Some(name) {
            finding = finding.explained_by(ObjectRef::of("Deployment", &deployment.metadata));
        }
    }
    for set in cx.world.stateful_sets.in_namespace(namespace) {
        if set.metadata.annotations.get("meta.helm.sh/release-name") == Some(name) {
            finding = finding.explained_by(ObjectRef::of("StatefulSet", &set.metadata));
        }
    }
    Some(finding)
}
