//! Helm rollback, from the records that Helm keeps, without Helm: each object of the target revision merged three ways,
//! then a new revision in the history. Hooks are not run, nothing is deleted; what is left over is told.

use super::door::Mode;
use super::edit::{FENCE, LAST_KEY};
use super::json::{get, merge_patch, set, text, whole};
use super::place::{ALL, Place, SECRET};
use super::release::{decode, encode, objects, three_way};
use super::target::workload;
use super::{Context, answer};
use nightshift_act::{ActError, Answer, operation_of};
use nightshift_model::{Action, ActionOutcome, EntityId, Image, Operation};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Kinds that a rollback writes: what the chart grants the right to.
const WRITES: [&str; 13] = [
    "ConfigMap",
    "Secret",
    "Service",
    "ServiceAccount",
    "PersistentVolumeClaim",
    "Deployment",
    "StatefulSet",
    "DaemonSet",
    "CronJob",
    "HorizontalPodAutoscaler",
    "PodDisruptionBudget",
    "Ingress",
    "NetworkPolicy",
];

/// A revision of a release.
struct Revision {
    number: i64,
    secret: Value,
}

impl Revision {
    fn status(&self) -> &str {
        text(&self.secret, "/metadata/labels/status")
    }

    fn record(&self) -> Result<Value, String> {
        decode(text(&self.secret, "/data/release"))
    }
}

fn refused(why: String) -> ActError {
    ActError::Refused(why)
}

async fn release_of(cx: &Context<'_>, target: &EntityId) -> Result<(String, String), ActError> {
    if !cx.config.helm_rollback {
        return Err(refused(
            "roll a release back: it is not configured; set `helm_rollback = true` to allow it".into(),
        ));
    }
    let (namespace, name) = (target.namespace(), target.name());
    if matches!(target.kind_str(), "release" | "helmrelease") {
        // The name is checked as a path would be.
        return Ok((Place::new(&SECRET, &namespace, &name)?.namespace, name));
    }
    let found = workload(cx, target).await?;
    let release = text(&found.object, "/metadata/annotations/meta.helm.sh~1release-name");
    let its = text(&found.object, "/metadata/annotations/meta.helm.sh~1release-namespace");
    if release.is_empty() {
        return Err(refused(format!("find the release of {}: Helm did not make it", found.place.label())));
    }
    let its = if its.is_empty() { namespace } else { its.to_owned() };
    Ok((Place::new(&SECRET, &its, release)?.namespace, release.to_owned()))
}

async fn revisions(cx: &Context<'_>, namespace: &str, name: &str) -> Result<Vec<Revision>, ActError> {
    // Secrets are read only where we may write: with this switch the right to is there, elsewhere it is not asked for.
    cx.may_write(&Place::new(&SECRET, namespace, name)?)?;
    let query = format!("labelSelector=owner%3Dhelm%2Cname%3D{name}");
    let all =
        cx.door.list(&SECRET.collection(namespace), &query).await.map_err(|e| e.read("the records of the release"))?;
    let mut out: Vec<Revision> = all
        .into_iter()
        .filter(|s| text(s, "/type") == "helm.sh/release.v1")
        .filter_map(|secret| Some(Revision { number: text(&secret, "/metadata/labels/version").parse().ok()?, secret }))
        .collect();
    out.sort_by_key(|r| r.number);
    if out.is_empty() {
        return Err(refused(format!("find release {namespace}/{name}: Helm keeps no record of it")));
    }
    Ok(out)
}

/// The newest revision before the last that was deployed once.
fn before(all: &[Revision]) -> Option<&Revision> {
    let (_, earlier) = all.split_last()?;
    earlier.iter().rev().find(|r| matches!(r.status(), "superseded" | "deployed"))
}

/// What a rollback reads.
pub(super) async fn look(cx: &Context<'_>, target: &EntityId) -> Result<Image, ActError> {
    let (namespace, name) = release_of(cx, target).await?;
    let all = revisions(cx, &namespace, &name).await?;
    let mut image = Image::from([("release".to_owned(), name.into())]);
    if let Some(last) = all.last() {
        image.insert("release_revision".into(), last.number.into());
        image.insert("release_status".into(), last.status().into());
    }
    if let Some(earlier) = before(&all) {
        image.insert("previous_release_revision".into(), earlier.number.into());
    }
    Ok(image)
}

/// One object of a rollback: as it is in both manifests.
struct Item {
    place: Place,
    from: Value,
    to: Value,
}

fn place_of(object: &Value, namespace: &str) -> Result<Place, ActError> {
    let (api, kind) = (text(object, "/apiVersion"), text(object, "/kind"));
    let known = ALL.iter().find(|k| k.name == kind && k.api_version() == api && WRITES.contains(&k.name));
    let Some(known) = known else {
        return Err(refused(format!("roll back a release that holds a {kind} ({api}): that kind is not written")));
    };
    let own = text(object, "/metadata/namespace");
    Place::new(known, if own.is_empty() { namespace } else { own }, text(object, "/metadata/name"))
}

fn identity(object: &Value, namespace: &str) -> String {
    let own = text(object, "/metadata/namespace");
    let own = if own.is_empty() { namespace } else { own };
    format!("{} {} {own}/{}", text(object, "/apiVersion"), text(object, "/kind"), text(object, "/metadata/name"))
}

/// Pairs the objects of two manifests. What both have alike is left out; what only the old one has is told by name.
fn pairs(from: &Value, to: &Value, namespace: &str) -> Result<(Vec<Item>, Vec<String>), ActError> {
    let read = |record: &Value| {
        objects(text(record, "/manifest")).map_err(|why| refused(format!("roll the release back: {why}")))
    };
    let mut old: BTreeMap<String, Value> = read(from)?.into_iter().map(|o| (identity(&o, namespace), o)).collect();
    let mut out = Vec::new();
    for object in read(to)? {
        let was = old.remove(&identity(&object, namespace)).unwrap_or(Value::Null);
        // Also what is alike in both: somebody may have changed it since, or a failed upgrade may not have reached it.
        match place_of(&object, namespace) {
            Ok(place) => out.push(Item { place, from: was, to: object }),
            Err(_) if was == object => {}
            Err(e) => return Err(e),
        }
    }
    Ok((out, old.into_keys().collect()))
}

/// What has to be sent for an item; `None`: it is as wanted. The bool: it has to be made.
async fn order_for(cx: &Context<'_>, item: &Item) -> Result<Option<(Value, bool)>, ActError> {
    let found = cx.door.get(&item.place).await.map_err(|e| e.read(&item.place.label()))?;
    let Some(live) = found else {
        let mut made = item.to.clone();
        set(&mut made, "/metadata/namespace", item.place.namespace.clone().into());
        return Ok(Some((made, true)));
    };
    let mut wanted = three_way("", &item.from, &item.to, &live);
    // The server's, whatever a manifest holds of it.
    set(&mut wanted, "/status", get(&live, "/status"));
    let mut patch = merge_patch(&live, &wanted);
    if patch.as_object().is_none_or(serde_json::Map::is_empty) {
        return Ok(None);
    }
    set(&mut patch, "/metadata/resourceVersion", get(&live, "/metadata/resourceVersion"));
    Ok(Some((patch, false)))
}

async fn send(cx: &Context<'_>, item: &Item, mode: Mode) -> Result<bool, ActError> {
    for _ in 0..5 {
        cx.may_write(&item.place)?;
        let Some((body, make)) = order_for(cx, item).await? else { return Ok(false) };
        let sent = match make {
            true => cx.door.create(&item.place, &body, mode).await,
            false => cx.door.patch(&item.place, &body, mode).await,
        };
        match sent {
            Ok(_) => return Ok(true),
            Err(e) if e.is_conflict() => cx.pause().await,
            Err(e) => return Err(e.write(&item.place.label())),
        }
    }
    Err(ActError::NotDone(format!("write {}: it is written all the time by somebody else", item.place.label())))
}

/// Rolls back, or forward again.
pub(super) async fn perform(cx: &Context<'_>, action: &Action) -> Result<Answer, ActError> {
    super::whole_only(action)?;
    let (namespace, name) = release_of(cx, &action.target).await?;
    let all = revisions(cx, &namespace, &name).await?;
    let say = |outcome, detail: String| Ok(answer(outcome, format!("release {name}: {detail}"), Image::new()));
    let Some(last) = all.last() else { return Err(refused("there is no revision".into())) };
    let mark = |r: &Revision| text(&r.secret, "/metadata/annotations/nightshift.dev~1last-key").to_owned();
    let done = all.iter().any(|r| mark(r) == action.key);
    let wanted = match action.operation {
        Operation::Prepare | Operation::Canary => {
            return Err(refused(format!("roll {name} back: there is no such order")));
        }
        Operation::Observe => {
            let outcome = if done { ActionOutcome::FoundDone } else { ActionOutcome::Failed };
            let of = operation_of(&action.key).map_or("order", Operation::as_str);
            return say(outcome, format!("{of}: its newest revision is {}", last.number));
        }
        Operation::Undo => action.before.get("release_revision").and_then(Value::as_i64),
        Operation::DryRun | Operation::Apply => action.params.get("revision").and_then(Value::as_i64),
    };
    if done {
        return say(ActionOutcome::Done, format!("done already, as revision {}", last.number));
    }
    let apply = nightshift_act::key_of(action.incident, action.plan, action.step, Operation::Apply);
    let undoing = action.operation == Operation::Undo;
    let was = action.before.get("release_revision").and_then(Value::as_i64);
    if undoing && mark(last) != apply {
        return match was == Some(last.number) {
            // The record comes last: objects may have been written without it.
            true => restore_objects(cx, action, &all, &namespace, &name).await,
            false => {
                Err(refused(format!("take the rollback of {name} back: there is a newer revision, {}", last.number)))
            }
        };
    }
    if !undoing && was.is_some_and(|w| w != last.number) {
        return Err(refused(format!(
            "roll {name} back: the world changed: its revision is {}, it was {}",
            last.number,
            was.unwrap_or(0)
        )));
    }
    let target = wanted.and_then(|n| all.iter().find(|r| r.number == n));
    let Some(target) = target else {
        let known = all.iter().map(|r| r.number.to_string()).collect::<Vec<_>>().join(", ");
        return Err(refused(format!("roll {name} back: that revision is not kept; there are {known}")));
    };
    let record = |r: &Revision| r.record().map_err(|why| refused(format!("roll {name} back: {why}")));
    let (from, to) = (record(last)?, record(target)?);
    let (items, leftover) = pairs(&from, &to, &namespace)?;
    let rest = match leftover.len() {
        0 => String::new(),
        n => format!("; {n} objects that only the newer revision has are left: {}", leftover.join(", ")),
    };
    if action.operation == Operation::DryRun {
        let mut how = "dry_run: server".to_owned();
        let mut changes = 0;
        for item in &items {
            if let Some(why) = cx.cannot(&item.place, "patch").await? {
                how = format!("dry_run: local ({why})");
                changes += usize::from(order_for(cx, item).await?.is_some());
            } else {
                changes += usize::from(send(cx, item, Mode::Dry).await?);
            }
        }
        return say(
            ActionOutcome::Done,
            format!("back to revision {}, {changes} objects change{rest}; {how}", target.number),
        );
    }
    let mut changed = 0;
    for item in &items {
        changed += usize::from(send(cx, item, Mode::Real).await?);
    }
    recorded(cx, action, &all, target, &namespace, &name).await?;
    let number = last.number + 1;
    for item in &items {
        if let Err(why) = super::rollout::settle(cx, &item.place, None).await {
            return say(
                ActionOutcome::Failed,
                format!("as revision {number} of {}, but {}: {why}{rest}", target.number, item.place.label()),
            );
        }
    }
    say(
        ActionOutcome::Done,
        format!("revision {number} is as revision {}, {changed} objects changed{rest}", target.number),
    )
}

/// The rollback broke off before it was recorded: the objects go back to what the newest record says.
async fn restore_objects(
    cx: &Context<'_>,
    action: &Action,
    all: &[Revision],
    namespace: &str,
    name: &str,
) -> Result<Answer, ActError> {
    let bad = |why| refused(format!("take the rollback of {name} back: {why}"));
    let Some(last) = all.last() else { return Err(bad("there is no revision".into())) };
    let to = last.record().map_err(bad)?;
    let tried = action.params.get("revision").and_then(Value::as_i64);
    let from = match tried.and_then(|n| all.iter().find(|r| r.number == n)) {
        Some(revision) => revision.record().map_err(bad)?,
        None => to.clone(),
    };
    let (items, _) = pairs(&from, &to, namespace)?;
    let mut changed = 0;
    for item in &items {
        changed += usize::from(send(cx, item, Mode::Real).await?);
    }
    Ok(answer(
        ActionOutcome::Done,
        format!("release {name}: revision {} stands, {changed} objects put back", last.number),
        Image::new(),
    ))
}

/// Writes the new revision into the history, and that the others are past.
async fn recorded(
    cx: &Context<'_>,
    action: &Action,
    all: &[Revision],
    target: &Revision,
    namespace: &str,
    name: &str,
) -> Result<(), ActError> {
    let bad = |why: String| refused(format!("record the rollback of {name}: {why}"));
    let mut record = target.record().map_err(bad)?;
    let number = all.last().map_or(1, |r| r.number + 1);
    let now = cx.now.to_rfc3339();
    set(&mut record, "/version", number.into());
    set(&mut record, "/info/status", "deployed".into());
    set(&mut record, "/info/last_deployed", now.into());
    set(&mut record, "/info/description", format!("Rollback to {}", target.number).into());
    let place = Place::new(&SECRET, namespace, &format!("sh.helm.release.v1.{name}.v{number}"))?;
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "type": "helm.sh/release.v1",
        "metadata": {
            "name": place.name, "namespace": namespace,
            "labels": {
                "name": name, "owner": "helm", "status": "deployed", "version": number.to_string(),
                "modifiedAt": format!("{:.0}", cx.now.secs_f64()),
            },
            "annotations": {LAST_KEY: action.key, FENCE: action.fence.to_string()},
        },
        "data": {"release": encode(&record).map_err(bad)?},
    });
    match cx.door.create(&place, &secret, Mode::Real).await {
        Ok(_) => {}
        Err(e) if e.is_conflict() => {}
        Err(e) => return Err(e.write("the new record of the release")),
    }
    for revision in all.iter().filter(|r| r.status() == "deployed") {
        let mut past = revision.record().map_err(bad)?;
        set(&mut past, "/info/status", "superseded".into());
        let place = Place::new(&SECRET, namespace, text(&revision.secret, "/metadata/name"))?;
        let patch = json!({
            "metadata": {"labels": {"status": "superseded"}, "resourceVersion": get(&revision.secret, "/metadata/resourceVersion")},
            "data": {"release": encode(&past).map_err(bad)?},
        });
        cx.door.patch(&place, &patch, Mode::Real).await.map_err(|e| e.write("an earlier record of the release"))?;
    }
    debug_assert!(whole(&record, "/version") == Some(number));
    Ok(())
}
