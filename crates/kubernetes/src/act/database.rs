//! Failover of a database: CloudNativePG's `Cluster`, or the objects of Patroni (config maps).
//!
//! Both operators do the work. Of CloudNativePG the wanted primary stands in the status, as its own tool writes it; Patroni
//! takes a wish from the annotations of `NAME-failover`.

use super::door::Mode;
use super::edit::RESTORE;
use super::json::{get, items, merge_patch, set, text};
use super::place::{CONFIG_MAP, PG_CLUSTER, POD, Place};
use super::{Context, answer};
use nightshift_act::{ActError, Answer, operation_of};
use nightshift_model::{Action, ActionOutcome, EntityId, Image, Operation};
use serde_json::{Map, Value, json};

/// A database as its operator tells it.
struct Database {
    /// What is written.
    place: Place,
    object: Value,
    /// Fields that are written, and put back.
    roots: &'static [&'static str],
    primary: String,
    /// The primary that is wanted: the same, or the one that it moves to.
    wanted: String,
    /// Replicas that could take over, best first.
    replicas: Vec<String>,
}

const CNPG: &[&str] =
    &["/status/targetPrimary", "/status/targetPrimaryTimestamp", "/status/phase", "/status/phaseReason"];
const PATRONI: &[&str] = &["/metadata/annotations/leader", "/metadata/annotations/member"];

async fn find(cx: &Context<'_>, target: &EntityId) -> Result<Database, ActError> {
    let (namespace, name) = (target.namespace(), target.name());
    let cluster = Place::new(&PG_CLUSTER, &namespace, &name)?;
    match cx.door.get(&cluster).await {
        Ok(Some(object)) => return Ok(of_cnpg(cluster, object)),
        Ok(None) => {}
        Err(e) if e.is_forbidden() => {}
        Err(e) => return Err(e.read(&cluster.label())),
    }
    of_patroni(cx, &namespace, &name).await
}

fn of_cnpg(place: Place, object: Value) -> Database {
    let primary = text(&object, "/status/currentPrimary").to_owned();
    let wanted = text(&object, "/status/targetPrimary").to_owned();
    let healthy = items(&object, "/status/instancesStatus/healthy").iter().filter_map(Value::as_str);
    let mut replicas: Vec<String> = healthy.filter(|n| *n != primary).map(str::to_owned).collect();
    replicas.sort();
    let wanted = if wanted.is_empty() || wanted == "pending" { primary.clone() } else { wanted };
    Database { place: Place { part: Some("status"), ..place }, object, roots: CNPG, primary, wanted, replicas }
}

async fn of_patroni(cx: &Context<'_>, namespace: &str, name: &str) -> Result<Database, ActError> {
    let leader = Place::new(&CONFIG_MAP, namespace, &format!("{name}-leader"))?;
    let none = || {
        ActError::Refused(format!(
            "find database {namespace}/{name}: no CloudNativePG cluster and no Patroni leader ({name}-leader) is there"
        ))
    };
    let leader = cx.door.get(&leader).await.map_err(|e| e.read(&leader.label()))?.ok_or_else(none)?;
    let primary = text(&leader, "/metadata/annotations/leader").to_owned();
    let place = Place::new(&CONFIG_MAP, namespace, &format!("{name}-failover"))?;
    let object = cx.door.get(&place).await.map_err(|e| e.read(&place.label()))?.ok_or_else(|| {
        ActError::Refused(format!(
            "fail {name} over: Patroni's {} is not there; make it empty once, it is only patched",
            place.label()
        ))
    })?;
    let query = format!("labelSelector=cluster-name%3D{name}");
    let pods = cx.door.list(&POD.collection(namespace), &query).await.map_err(|e| e.read("pods"))?;
    let mut replicas = Vec::new();
    for pod in &pods {
        let told: Option<Value> = serde_json::from_str(text(pod, "/metadata/annotations/status")).ok();
        let Some(told) = told else { continue };
        let running = matches!(text(&told, "/state"), "running" | "streaming");
        let pod = text(pod, "/metadata/name");
        if running && pod != primary {
            replicas.push((told.get("xlog_location").and_then(Value::as_i64).unwrap_or(0), pod.to_owned()));
        }
    }
    // The one that has received most; of equals the first by name.
    replicas.sort_by(|a, b| b.0.cmp(&a.0).then_with(|| a.1.cmp(&b.1)));
    let member = text(&object, "/metadata/annotations/member").to_owned();
    let wanted = if member.is_empty() { primary.clone() } else { member };
    Ok(Database {
        place,
        object,
        roots: PATRONI,
        primary,
        wanted,
        replicas: replicas.into_iter().map(|r| r.1).collect(),
    })
}

/// What a failover reads.
pub(super) async fn look(cx: &Context<'_>, target: &EntityId) -> Result<Image, ActError> {
    let db = find(cx, target).await?;
    let kept: Map<String, Value> = db.roots.iter().map(|r| ((*r).to_owned(), get(&db.object, r))).collect();
    let mut image = Image::from([
        ("primary".to_owned(), db.primary.clone().into()),
        (RESTORE.to_owned(), json!({db.place.label(): {"uid": text(&db.object, "/metadata/uid"), "fields": kept}})),
    ]);
    if let Some(replica) = db.replicas.first() {
        image.insert("replica".into(), replica.clone().into());
        image.insert("replicas".into(), db.replicas.len().into());
    }
    Ok(image)
}

async fn write(cx: &Context<'_>, db: &Database, fields: &[(&str, Value)], mode: Mode) -> Result<(), ActError> {
    let mut wanted = db.object.clone();
    for (pointer, value) in fields {
        set(&mut wanted, pointer, value.clone());
    }
    let mut patch = merge_patch(&db.object, &wanted);
    set(&mut patch, "/metadata/resourceVersion", get(&db.object, "/metadata/resourceVersion"));
    cx.may_write(&db.place)?;
    match cx.door.patch(&db.place, &patch, mode).await {
        Ok(_) => Ok(()),
        Err(e) => Err(e.write(&db.place.label())),
    }
}

/// Makes a replica the primary, or the earlier primary again.
pub(super) async fn perform(cx: &Context<'_>, action: &Action) -> Result<Answer, ActError> {
    super::whole_only(action)?;
    let db = find(cx, &action.target).await?;
    let name = action.target.name();
    let to = action.params.get("to").and_then(Value::as_str).unwrap_or_default();
    let was = action.before.get("primary").and_then(Value::as_str).unwrap_or_default();
    let refused = |why: String| ActError::Refused(format!("fail {name} over: {why}"));
    let say = |outcome, detail: String| Ok(answer(outcome, detail, Image::new()));
    let moved = db.wanted == to || db.primary == to;
    match action.operation {
        Operation::Prepare | Operation::Canary => return Err(refused("there is no such order".into())),
        Operation::Observe => {
            let undoing = operation_of(&action.key) == Some(Operation::Undo);
            let done = moved != undoing;
            let outcome = if done { ActionOutcome::FoundDone } else { ActionOutcome::Failed };
            return say(outcome, format!("the primary is {}, wanted is {}", db.primary, db.wanted));
        }
        Operation::Undo => return undo(cx, action, &db, to, was).await,
        Operation::Apply if moved => return arrive(cx, action, to, "").await,
        Operation::DryRun | Operation::Apply => {}
    }
    if !was.is_empty() && db.primary != was {
        return Err(refused(format!("the world changed: the primary is {}, it was {was}", db.primary)));
    }
    if db.wanted != db.primary {
        return Err(refused(format!("a failover to {} is under way", db.wanted)));
    }
    if !db.replicas.iter().any(|r| r == to) {
        let known = db.replicas.join(", ");
        return Err(refused(format!("`{to}` is no replica that could take over; there are: {known}")));
    }
    let wish = wish(&db, to, cx);
    if action.operation == Operation::DryRun {
        let how = match cx.cannot(&db.place, "patch").await? {
            None => {
                write(cx, &db, &wish, Mode::Dry).await?;
                "dry_run: server".to_owned()
            }
            Some(why) => format!("dry_run: local ({why})"),
        };
        return say(ActionOutcome::Done, format!("{name} from {} to {to}; {how}", db.primary));
    }
    write(cx, &db, &wish, Mode::Real).await?;
    arrive(cx, action, to, "").await
}

fn wish(db: &Database, to: &str, cx: &Context<'_>) -> Vec<(&'static str, Value)> {
    if db.roots == PATRONI {
        return vec![(PATRONI[0], db.primary.clone().into()), (PATRONI[1], to.into())];
    }
    vec![
        (CNPG[0], to.into()),
        (CNPG[1], cx.now.to_rfc3339().into()),
        (CNPG[2], "Switchover in progress".into()),
        (CNPG[3], format!("Switching over to {to}").into()),
    ]
}

async fn arrive(cx: &Context<'_>, action: &Action, to: &str, why: &str) -> Result<Answer, ActError> {
    let wait = cx.wait();
    let arrived = loop {
        let seen = match find(cx, &action.target).await {
            Ok(db) if db.primary == to => break Ok(()),
            Ok(db) => format!("the primary is {}", db.primary),
            Err(e) => e.to_string(),
        };
        if let Err(last) = wait.on(seen).await {
            break Err(last);
        }
    };
    let name = action.target.name();
    let image = look(cx, &action.target).await.unwrap_or_default();
    Ok(match arrived {
        Ok(()) => answer(ActionOutcome::Done, format!("{name}: {to} is the primary{why}"), image),
        Err(last) => {
            answer(ActionOutcome::Failed, format!("{name}: {to} was asked to become the primary, but {last}"), image)
        }
    })
}

async fn undo(cx: &Context<'_>, action: &Action, db: &Database, to: &str, was: &str) -> Result<Answer, ActError> {
    let refused = |why: String| ActError::Refused(format!("take the failover of {} back: {why}", action.target.name()));
    if was.is_empty() {
        return Err(refused("who was the primary was not kept".into()));
    }
    if db.primary == was && db.wanted == was {
        return Ok(answer(ActionOutcome::Done, format!("{was} is the primary, as before"), Image::new()));
    }
    if db.wanted != to && db.primary != to {
        return Err(refused(format!("the primary is {}, which is not what was left", db.primary)));
    }
    if db.primary == was {
        // It had not begun: the wish is withdrawn, field by field.
        let kept = action.before.get(RESTORE).and_then(|r| r.get(db.place.label())).and_then(|k| k.get("fields"));
        let Some(kept) = kept else { return Err(refused("what it was before was not kept".into())) };
        let fields: Vec<(&str, Value)> =
            db.roots.iter().map(|r| (*r, kept.get(*r).cloned().unwrap_or(Value::Null))).collect();
        write(cx, db, &fields, Mode::Real).await?;
        return Ok(answer(ActionOutcome::Done, format!("{was} stays the primary"), Image::new()));
    }
    if !db.replicas.iter().any(|r| r == was) {
        return Err(refused(format!("{was} is no replica that could take over")));
    }
    write(cx, db, &wish(db, was, cx), Mode::Real).await?;
    arrive(cx, action, was, " again").await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_tells_its_primary_and_who_could_follow() {
        let place = Place::new(&PG_CLUSTER, "shop", "db").unwrap();
        let db = of_cnpg(
            place,
            json!({"status": {"currentPrimary": "db-1", "targetPrimary": "db-1", "instancesStatus": {"healthy": ["db-3", "db-1", "db-2"], "failed": ["db-4"]}}}),
        );
        assert_eq!(
            (db.primary.as_str(), db.wanted.as_str(), db.replicas),
            ("db-1", "db-1", vec!["db-2".to_owned(), "db-3".into()])
        );
        assert_eq!(db.place.part, Some("status"));
    }
}
