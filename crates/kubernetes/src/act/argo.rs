//! Argo CD: sync and rollback through the `Application`. Argo CD does the work; what is written is its `operation`.

use super::edit::{self, Aim, Deed, RESTORE, Subject};
use super::json::{Fields, get, items, text};
use super::place::{APPLICATION, Place};
use super::target::{must, workload};
use super::{Context, answer};
use async_trait::async_trait;
use nightshift_act::{ActError, Answer};
use nightshift_model::{Action, ActionOutcome, EntityId, Image, Operation};
use serde_json::{Value, json};

const OPERATION: &str = "/operation";
/// Name of our key among the words that an operation carries along.
const KEY: &str = "nightshift-key";

/// A sync, to what git says or back to what was synced before.
pub(super) struct Sync {
    pub(super) back: bool,
}

async fn application(cx: &Context<'_>, target: &EntityId) -> Result<Place, ActError> {
    if target.kind_str() == "application" {
        return Place::new(&APPLICATION, &target.namespace(), &target.name());
    }
    let found = workload(cx, target).await?;
    let tracking = text(&found.object, "/metadata/annotations/argocd.argoproj.io~1tracking-id");
    let label = text(&found.object, "/metadata/labels/app.kubernetes.io~1instance");
    let name = tracking.split_once(':').map_or(label, |(app, _)| app);
    // With applications in any namespace the id is NAMESPACE_NAME.
    let name = name.rsplit('_').next().unwrap_or(name);
    if name.is_empty() {
        let what = found.place.label();
        return Err(ActError::Refused(format!("find the application of {what}: it does not say that Argo CD made it")));
    }
    for namespace in &cx.config.namespaces {
        let place = Place::new(&APPLICATION, namespace, name)?;
        match cx.door.get(&place).await {
            Ok(Some(_)) => return Ok(place),
            Ok(None) => {}
            Err(e) if e.is_forbidden() => {}
            Err(e) => return Err(e.read(&place.label())),
        }
    }
    Err(ActError::Refused(format!("find application `{name}`: it is in none of the `namespaces`")))
}

/// What was synced last; of an application that nobody ever synced what it was last compared with.
fn revision(app: &Value) -> &str {
    if let Some(last) = items(app, "/status/history").last() {
        return text(last, "/revision");
    }
    match text(app, "/status/operationState/syncResult/revision") {
        "" => text(app, "/status/sync/revision"),
        synced => synced,
    }
}

/// The newest entry of the history with another revision than the last.
fn before(app: &Value) -> Option<&Value> {
    let now = revision(app);
    items(app, "/status/history").iter().rev().find(|h| text(h, "/revision") != now)
}

fn carries(operation: &Value, key: &str) -> bool {
    items(operation, "/info").iter().any(|i| text(i, "/name") == KEY && text(i, "/value") == key)
}

fn automated(app: &Value) -> bool {
    app.pointer("/spec/syncPolicy/automated")
        .is_some_and(|a| a.get("enabled") != Some(&Value::Bool(false)) && !a.is_null())
}

fn operation(app: &Value, revision: &str, key: &str, back: bool) -> Result<Value, String> {
    let mut sync = json!({"syncStrategy": {"hook": {}}});
    if !revision.is_empty() {
        sync["revision"] = revision.into();
    }
    if let Some(options) = app.pointer("/spec/syncPolicy/syncOptions") {
        sync["syncOptions"] = options.clone();
    }
    if back {
        let history = items(app, "/status/history");
        let Some(entry) = history.iter().rev().find(|h| text(h, "/revision") == revision) else {
            let known = history.iter().map(|h| text(h, "/revision")).collect::<Vec<_>>().join(", ");
            return Err(format!("revision {revision} was never synced; there are {known}"));
        };
        if let Some(source) = entry.get("source") {
            sync["source"] = source.clone();
        }
        sync["syncStrategy"] = json!({"apply": {}});
    }
    Ok(json!({"initiatedBy": {"username": "nightshift"}, "info": [{"name": KEY, "value": key}], "sync": sync}))
}

#[async_trait]
impl Deed for Sync {
    async fn find(&self, cx: &Context<'_>, target: &EntityId) -> Result<Vec<Subject>, ActError> {
        let place = application(cx, target).await?;
        let object = must(cx, &place).await?;
        Ok(vec![Subject::new(place, object, &[OPERATION])])
    }

    async fn facts(&self, _cx: &Context<'_>, _target: &EntityId, subjects: &[Subject]) -> Result<Image, ActError> {
        let mut image = Image::new();
        let Some(app) = subjects.first().map(|s| &s.object) else { return Ok(image) };
        let mut put = |name: &str, value: &str| {
            if !value.is_empty() {
                image.insert(name.to_owned(), value.into());
            }
        };
        put("sync_status", text(app, "/status/sync/status"));
        put("health", text(app, "/status/health/status"));
        put("revision", revision(app));
        put("git_revision", text(app, "/status/sync/revision"));
        put("previous_revision", before(app).map_or("", |h| text(h, "/revision")));
        put("application", text(app, "/metadata/name"));
        Ok(image)
    }

    async fn aim(
        &self,
        _cx: &Context<'_>,
        subjects: &[Subject],
        action: &Action,
        _share: Option<f64>,
    ) -> Result<Aim, ActError> {
        super::whole_only(action)?;
        let Some(app) = subjects.first() else { return Err(ActError::Refused("there is no application".into())) };
        let what = app.place.label();
        let refused = |why: String| ActError::Refused(format!("sync {what}: {why}"));
        if !get(&app.object, OPERATION).is_null() {
            return Err(refused("another operation waits already".into()));
        }
        let own = app.last_key() == action.key;
        if text(&app.object, "/status/operationState/phase") == "Running" && !own {
            return Err(refused("another operation runs".into()));
        }
        if self.back && automated(&app.object) {
            return Err(refused("it syncs by itself and would go forward again; turn automated sync off first".into()));
        }
        let to = action.params.get("revision").and_then(Value::as_str).unwrap_or_default();
        let operation = operation(&app.object, to, &action.key, self.back).map_err(refused)?;
        let word = if self.back { "back to" } else { "to" };
        let to = if to.is_empty() { "the head of its branch" } else { to };
        Ok(Aim {
            which: 0,
            fields: Fields::from([(OPERATION.to_owned(), operation)]),
            said: format!("{what} {word} {to}"),
        })
    }

    async fn settle(&self, cx: &Context<'_>, place: &Place, _share: Option<f64>) -> Result<String, String> {
        let wait = cx.wait();
        loop {
            let seen = match cx.door.get(place).await {
                Ok(Some(app)) => outcome(&app)?,
                Ok(None) => Err("it is gone".to_owned()),
                Err(e) => Err(e.text),
            };
            match seen {
                Ok(done) => return Ok(done),
                Err(seen) => wait.on(seen).await?,
            }
        }
    }
}

/// How our operation stands. `Err`: it failed; `Ok(Err)`: it is not over.
fn outcome(app: &Value) -> Result<Result<String, String>, String> {
    let key = text(app, "/metadata/annotations/nightshift.dev~1last-key");
    let state = get(app, "/status/operationState");
    if !carries(&get(&state, "/operation"), key) {
        // Withdrawn while it waited, or not yet begun.
        let withdrawn = get(app, OPERATION).is_null() && key.is_empty();
        return Ok(if withdrawn {
            Ok(String::new())
        } else {
            Err("Argo CD has not begun it; does its controller run?".into())
        });
    }
    match text(&state, "/phase") {
        "Succeeded" => Ok(Ok("Argo CD says that it succeeded".to_owned())),
        phase @ ("Failed" | "Error") => {
            let said: String = text(&state, "/message").chars().take(200).collect();
            Err(format!("Argo CD says {phase}: {said}"))
        }
        phase => Ok(Err(format!("Argo CD says {phase}"))),
    }
}

/// Takes a sync back: one that still waits is withdrawn; one that was carried out is answered by a sync to the revision
/// before. What somebody had edited by hand is not known to Argo CD and does not come back.
pub(super) async fn undo(deed: &Sync, cx: &Context<'_>, action: &Action) -> Result<Answer, ActError> {
    let subjects = deed.find(cx, &action.target).await?;
    let Some(app) = subjects.first() else { return Err(ActError::Refused("there is no application".into())) };
    let apply = nightshift_act::key_of(action.incident, action.plan, action.step, Operation::Apply);
    let begun = carries(&get(&app.object, "/status/operationState/operation"), &apply);
    if !begun || app.last_key() != apply {
        return edit::perform(deed, cx, action).await;
    }
    let was = action.before.get("revision").and_then(Value::as_str).unwrap_or_default();
    let what = app.place.label();
    if was.is_empty() || was == revision(&app.object) {
        return Err(ActError::Refused(format!(
            "take the sync of {what} back: git had the same revision before; what was edited by hand is not known"
        )));
    }
    // The order back is an order forward to another revision, under the key of the undo.
    let back = Action {
        operation: Operation::Apply,
        params: Image::from([("revision".into(), was.into())]),
        before: Image::from([(RESTORE.into(), edit::restore_of(&subjects))]),
        ..action.clone()
    };
    let done = edit::perform(&Sync { back: true }, cx, &back).await?;
    Ok(match done.outcome {
        ActionOutcome::Failed => done,
        _ => answer(ActionOutcome::Done, format!("taken back: {}", done.detail), done.image),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_operation_names_its_revision_and_our_key() {
        let app = json!({"status": {"history": [{"revision": "a", "source": {"path": "x"}}, {"revision": "b"}]}});
        assert_eq!((revision(&app), before(&app).map(|h| text(h, "/revision"))), ("b", Some("a")));
        let back = operation(&app, "a", "k", true).unwrap();
        assert_eq!(back["sync"]["source"], json!({"path": "x"}));
        assert!(carries(&back, "k") && !carries(&back, "other"));
        assert!(operation(&app, "c", "k", true).unwrap_err().contains("a, b"));
        assert!(automated(&json!({"spec": {"syncPolicy": {"automated": {}}}})));
        assert!(!automated(&json!({"spec": {"syncPolicy": {"automated": {"enabled": false}}}})));
    }
}
