//! Jobs from a template: the template is that of a cron job which somebody made for it.

use super::door::Mode;
use super::edit::{FENCE, LAST_KEY};
use super::json::{get, items, text};
use super::place::{CRON_JOB, JOB, Place};
use super::{Context, answer};
use nightshift_act::{ActError, Answer, operation_of};
use nightshift_model::{Action, ActionOutcome, EntityId, Image, Operation};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

/// Annotation of a cron job whose template may be run by itself.
const RUNNABLE: &str = "/metadata/annotations/nightshift.dev~1runnable";

/// A name for what a key makes: the same key, the same name.
pub(super) fn name_of(prefix: &str, key: &str) -> String {
    let digest = Sha256::digest(key.as_bytes());
    let tail: String = digest.iter().take(6).map(|b| format!("{b:02x}")).collect();
    let mut prefix: String = prefix.chars().take(40).collect();
    while prefix.ends_with(['-', '.']) {
        prefix.pop();
    }
    format!("{prefix}-{tail}")
}

/// The jobs that may be run for a target.
pub(super) async fn look(cx: &Context<'_>, target: &EntityId) -> Result<Image, ActError> {
    let mut names: Vec<String> = cx.config.jobs.keys().cloned().collect();
    let namespace = target.namespace();
    if !namespace.is_empty() {
        let all = cx.door.list(&CRON_JOB.collection(&namespace), "").await.map_err(|e| e.read("cron jobs"))?;
        let runnable = all.iter().filter(|c| text(c, RUNNABLE) == "true");
        names.extend(runnable.map(|c| text(c, "/metadata/name").to_owned()));
    }
    names.sort();
    names.dedup();
    Ok(Image::from([("jobs".to_owned(), names.join(", ").into())]))
}

async fn template(cx: &Context<'_>, action: &Action) -> Result<(Place, Value), ActError> {
    let job = action.params.get("job").and_then(Value::as_str).unwrap_or_default();
    let refused = |why: String| ActError::Refused(format!("run job `{job}`: {why}"));
    let configured = cx.config.jobs.get(job);
    let place = match configured.and_then(|t| t.split_once('/')) {
        Some((namespace, name)) => Place::new(&CRON_JOB, namespace, name)?,
        None => Place::new(&CRON_JOB, &action.target.namespace(), job)?,
    };
    let found = cx.door.get(&place).await.map_err(|e| e.read(&place.label()))?;
    let Some(cron) = found else {
        return Err(refused(format!("there is no {}; name its cron job in `jobs`", place.label())));
    };
    if configured.is_none() && text(&cron, RUNNABLE) != "true" {
        let how = "annotate it with nightshift.dev/runnable: \"true\", or name it in `jobs`";
        return Err(refused(format!("{} is not made to be run by itself; {how}", place.label())));
    }
    Ok((place, cron))
}

fn job(cron: &Value, name: &str, namespace: &str, action: &Action) -> Value {
    let mut annotations = get(cron, "/spec/jobTemplate/metadata/annotations");
    if !annotations.is_object() {
        annotations = json!({});
    }
    annotations["cronjob.kubernetes.io/instantiate"] = "manual".into();
    annotations[LAST_KEY] = action.key.clone().into();
    annotations[FENCE] = action.fence.to_string().into();
    annotations["nightshift.dev/incident"] = action.incident.to_string().into();
    let mut out = json!({
        "apiVersion": "batch/v1", "kind": "Job",
        "metadata": {"name": name, "namespace": namespace, "annotations": annotations},
        "spec": get(cron, "/spec/jobTemplate/spec"),
    });
    let labels = get(cron, "/spec/jobTemplate/metadata/labels");
    if labels.is_object() {
        out["metadata"]["labels"] = labels;
    }
    out
}

/// Runs a job and waits for its end.
pub(super) async fn perform(cx: &Context<'_>, action: &Action) -> Result<Answer, ActError> {
    super::whole_only(action)?;
    let (cron_place, cron) = template(cx, action).await?;
    // An undo and an observation are about the job that the apply made.
    let apply = nightshift_act::key_of(action.incident, action.plan, action.step, Operation::Apply);
    let place = Place::new(&JOB, &cron_place.namespace, &name_of(&cron_place.name, &apply))?;
    let what = place.label();
    let found = cx.door.get(&place).await.map_err(|e| e.read(&what))?;
    let say = |outcome, detail: String| Ok(answer(outcome, detail, Image::new()));
    match action.operation {
        Operation::Prepare | Operation::Canary => Err(ActError::Refused(format!("run {what}: there is no such order"))),
        Operation::Observe => {
            let undoing = operation_of(&action.key) == Some(Operation::Undo);
            let outcome = if found.is_some() == undoing { ActionOutcome::Failed } else { ActionOutcome::FoundDone };
            say(outcome, if found.is_some() { format!("{what} is there") } else { format!("there is no {what}") })
        }
        Operation::DryRun => {
            let how = cx.try_create(&place, &job(&cron, &place.name, &place.namespace, action)).await?;
            say(ActionOutcome::Done, format!("run {what} by the template of {}; {how}", cron_place.label()))
        }
        Operation::Undo => {
            cx.may_write(&place)?;
            if let Some(job) = found {
                let deleted = cx.door.delete(&place, text(&job, "/metadata/uid"), None, Mode::Real).await;
                match deleted {
                    Ok(_) => {}
                    Err(e) if e.is_missing() => {}
                    Err(e) => return Err(e.write(&what)),
                }
            }
            say(ActionOutcome::Done, format!("{what} is taken away; what it did stays done"))
        }
        Operation::Apply => {
            if found.is_none() {
                cx.may_write(&place)?;
                let made = cx.door.create(&place, &job(&cron, &place.name, &place.namespace, action), Mode::Real).await;
                match made {
                    Ok(_) => {}
                    // The same key made it.
                    Err(e) if e.is_conflict() => {}
                    Err(e) => return Err(e.write(&what)),
                }
            }
            match ended(cx, &place).await {
                Ok(()) => say(ActionOutcome::Done, format!("{what} completed")),
                Err(why) => say(ActionOutcome::Failed, format!("{what}: {why}")),
            }
        }
    }
}

async fn ended(cx: &Context<'_>, place: &Place) -> Result<(), String> {
    let wait = cx.wait();
    loop {
        let job = cx.door.get(place).await.map_err(|e| e.text)?.ok_or("it is gone")?;
        for condition in items(&job, "/status/conditions") {
            match (text(condition, "/type"), text(condition, "/status")) {
                ("Complete", "True") => return Ok(()),
                ("Failed", "True") => return Err(format!("it failed: {}", text(condition, "/reason"))),
                _ => {}
            }
        }
        wait.on("it has not ended".to_owned()).await?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_key_makes_the_same_name() {
        let a = name_of("clean-disk", "k1");
        assert_eq!(a, name_of("clean-disk", "k1"));
        assert_ne!(a, name_of("clean-disk", "k2"));
        assert!(name_of(&"x".repeat(200), "k").len() <= 63);
    }
}
