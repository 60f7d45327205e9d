//! Argo CD: applications that are out of sync, degraded, or cannot be synced.

use super::{all, named};
use crate::objects::Custom;
use crate::{Context, Finding, Grade, ObjectRef};
use nightshift_model::{FaultClass, Timestamp};
use serde_json::Value;

/// Resources that are told of one application at most.
const RESOURCES_MAX: usize = 5;

/// Runs the checks of Argo CD.
pub(super) fn run(cx: &Context<'_>, out: &mut Vec<Finding>) {
    for app in all(cx, "argoproj.io", "Application") {
        out.extend(application(cx, app));
    }
    for rollout in all(cx, "argoproj.io", "Rollout") {
        out.extend(degraded_rollout(rollout));
    }
}

/// Resources of an application with this value at a path below each.
fn resources<'a>(app: &'a Custom, pointer: &'a str, wanted: &'a str) -> impl Iterator<Item = (&'a Value, ObjectRef)> {
    app.status.get("resources").and_then(Value::as_array).into_iter().flatten().filter_map(move |r| {
        let text = |name: &str| r.get(name).and_then(Value::as_str).unwrap_or_default();
        let is = r.pointer(pointer).and_then(Value::as_str) == Some(wanted);
        is.then(|| (r, ObjectRef::new(text("kind"), text("namespace"), text("name"))))
    })
}

fn application(cx: &Context<'_>, app: &Custom) -> Option<Finding> {
    let object = named(app);
    let name = &app.metadata.name;
    let sync = app.status_text("/sync/status");
    let health = app.status_text("/health/status");
    let phase = app.status_text("/operationState/phase");
    // While a sync runs, what it has not reached yet is no drift.
    if phase == "Running" {
        return None;
    }
    let repository =
        [app.spec_text("/source/repoURL"), app.spec_text("/sources/0/repoURL")].into_iter().find(|t| !t.is_empty());
    let from = repository.map(|r| format!(" from {}", without_credentials(r))).unwrap_or_default();
    let ended = app.status_text("/operationState/finishedAt");
    let since = Timestamp::parse_rfc3339(ended).ok();
    let wrong_condition = app.status.get("conditions").and_then(Value::as_array).into_iter().flatten().find(|c| {
        let kind = c.get("type").and_then(Value::as_str).unwrap_or_default();
        matches!(kind, "ComparisonError" | "InvalidSpecError" | "SyncError")
    });
    let failed = matches!(phase, "Failed" | "Error") && sync != "Synced";
    if failed || wrong_condition.is_some() {
        let said = app.status_text("/operationState/message");
        let told = wrong_condition.and_then(|c| c.get("message")).and_then(Value::as_str).unwrap_or_default();
        let why =
            [said, told].into_iter().find(|t| !t.is_empty() && (failed || *t == told)).unwrap_or("the sync failed");
        return Some(
            Finding::new(
                FaultClass::GitopsSyncFailed,
                object.clone(),
                format!("Application {name} cannot be synced{from}"),
            )
            .because(object.clone(), why)
            .fix(format!(
                "Mend what the message names in the repository or the cluster, then sync again: argocd app sync {name}."
            ))
            .field(&object, "status.operationState.phase", phase)
            .field(&object, "status.operationState.message", why)
            .since(since),
        );
    }
    if health == "Degraded" {
        let mut finding =
            Finding::new(FaultClass::GitopsDegraded, object.clone(), format!("Application {name} is degraded"))
                .fix("Mend the resource that is named, or return to the revision before: argocd app rollback.")
                .field(&object, "status.health.status", health);
        if sync == "OutOfSync" {
            finding = finding.field(&object, "status.sync.status", sync);
        }
        let ill: Vec<(String, ObjectRef)> = resources(app, "/health/status", "Degraded")
            .take(RESOURCES_MAX)
            .map(|(r, o)| (r.pointer("/health/message").and_then(Value::as_str).unwrap_or_default().to_owned(), o))
            .collect();
        let why = match ill.first() {
            Some((said, of)) if said.is_empty() => Some((of.clone(), format!("{of} is degraded"))),
            Some((said, of)) => Some((of.clone(), said.clone())),
            None => {
                let said = app.status_text("/health/message");
                (!said.is_empty()).then(|| (object.clone(), said.to_owned()))
            }
        };
        if let Some((of, why)) = why {
            finding = finding.because(of, why);
        }
        for (_, of) in ill {
            // What another check finds on it says more.
            finding = finding.explained_by(of.clone()).hits(of);
        }
        return Some(finding.since(since));
    }
    if sync == "OutOfSync" {
        let drifted: Vec<ObjectRef> =
            resources(app, "/status", "OutOfSync").map(|(_, o)| o).take(RESOURCES_MAX).collect();
        let wanted = app.spec_text("/source/targetRevision");
        let wanted = if wanted.is_empty() { String::new() } else { format!(" at {wanted}") };
        let why = match drifted.as_slice() {
            [] => format!("what runs differs from what the repository holds{wanted}"),
            some => {
                let names = some.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
                format!("{names} differ from what the repository holds{wanted}")
            }
        };
        let automated = app.spec.pointer("/syncPolicy/automated").is_some_and(|a| !a.is_null());
        let fix = if automated {
            format!("It syncs by itself and has not: see its conditions, or sync it: argocd app sync {name}.")
        } else {
            format!("Sync it: argocd app sync {name}; or bring the change that was made by hand into the repository.")
        };
        let mut finding = Finding::new(
            FaultClass::GitopsOutOfSync,
            object.clone(),
            format!("Application {name} is out of sync{from}"),
        )
        .because(object.clone(), why)
        .fix(fix)
        .field(&object, "status.sync.status", sync)
        .field(&object, "status.sync.revision", app.status_text("/sync/revision"))
        .since(since);
        for of in drifted {
            finding = finding.hits(of);
        }
        return Some(finding);
    }
    // A health that is missing while everything is in sync: what was applied is gone.
    if health == "Missing" && sync == "Synced" && cx.world.namespaces.sees("") {
        return Some(
            Finding::new(
                FaultClass::GitopsDegraded,
                object.clone(),
                format!("What application {name} applied is missing"),
            )
            .fix(format!("Sync it again: argocd app sync {name}."))
            .field(&object, "status.health.status", health),
        );
    }
    None
}

fn degraded_rollout(rollout: &Custom) -> Option<Finding> {
    let object = named(rollout);
    let phase = rollout.status_text("/phase");
    let aborted = rollout.status.get("abort").and_then(Value::as_bool).unwrap_or(false);
    if phase != "Degraded" && !aborted {
        return None;
    }
    let said = rollout.status_text("/message");
    let why = if said.is_empty() { "its newest revision does not become healthy" } else { said };
    Some(
        Finding::new(
            FaultClass::RolloutStuck,
            object.clone(),
            format!("Rollout {} is degraded", rollout.metadata.name),
        )
        .because(object.clone(), why)
        .fix("Take it back (kubectl argo rollouts undo) or mend the new revision and retry.")
        .field(&object, "status.phase", phase)
        .graded(Grade::High)
        .generic(),
    )
}

/// A URL without user name and password.
fn without_credentials(url: &str) -> String {
    match url.split_once("://") {
        Some((scheme, rest)) => {
            let (authority, path) = rest.split_once('/').map_or((rest, ""), |(a, p)| (a, p));
            let host = authority.rsplit_once('@').map_or(authority, |(_, h)| h);
            if path.is_empty() { format!("{scheme}://{host}") } else { format!("{scheme}://{host}/{path}") }
        }
        None => url.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_password_of_a_repository_is_told() {
        assert_eq!(without_credentials("https://bot:hunter2@git.example/a/b.git"), "https://git.example/a/b.git");
        assert_eq!(without_credentials("git@git.example:a/b.git"), "git@git.example:a/b.git");
        assert_eq!(without_credentials("https://git.example"), "https://git.example");
    }
}
