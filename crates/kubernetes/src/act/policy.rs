//! Policy exceptions of Kyverno: for one object, one policy, and a time.
//!
//! A `PolicyException` has no end of its own. Ours carries the label by which Kyverno's clean-up controller deletes it, and
//! the time in an annotation, by which [`end_expired`] does where that controller does not run.

use super::door::Mode;
use super::edit::{FENCE, LAST_KEY};
use super::job::name_of;
use super::json::{get, items, text};
use super::place::{CRON_JOB, EVENT, EXCEPTION, EXCEPTION_BETA, JOB, Kind, OPEN_REPORT, Place, REPORT};
use super::target::{must, workload};
use super::{Context, answer};
use nightshift_act::{ActError, Answer, operation_of};
use nightshift_model::{Action, ActionOutcome, EntityId, Image, Operation, Timestamp};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

const EXPIRES: &str = "nightshift.dev/expires-at";
const TTL: &str = "cleanup.kyverno.io/ttl";
/// Label by which ours are found.
const OURS: &str = "app.kubernetes.io/managed-by";

/// The object that an exception is for, as (kind, namespace, name).
async fn object_of(cx: &Context<'_>, target: &EntityId) -> Result<(&'static str, String, String), ActError> {
    let direct = match target.kind_str() {
        "job" => Some(&JOB),
        "cronjob" => Some(&CRON_JOB),
        _ => None,
    };
    if let Some(kind) = direct {
        let place = Place::new(kind, &target.namespace(), &target.name())?;
        must(cx, &place).await?;
        return Ok((kind.name, place.namespace, place.name));
    }
    let found = workload(cx, target).await?;
    Ok((found.place.kind.name, found.place.namespace, found.place.name))
}

/// Policies that the object violates, with the rules, from reports and events.
async fn violated(
    cx: &Context<'_>,
    kind: &str,
    ns: &str,
    name: &str,
) -> Result<BTreeMap<String, BTreeSet<String>>, ActError> {
    let mut out: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let of_it = |other_kind: &str, other: &str| {
        // Pods and replica sets of it are told by its name and a tail.
        other == name && other_kind == kind
            || matches!(other_kind, "Pod" | "ReplicaSet")
                && other.strip_prefix(name).is_some_and(|t| t.starts_with('-'))
    };
    for report in [&REPORT, &OPEN_REPORT] {
        let all = match cx.door.list(&report.collection(ns), "").await {
            Ok(all) => all,
            Err(e) if e.is_missing() || e.is_forbidden() => continue,
            Err(e) => return Err(e.read(report.plural)),
        };
        for report in all {
            let scope = get(&report, "/scope");
            for result in items(&report, "/results") {
                let named = items(result, "/resources").iter().any(|r| of_it(text(r, "/kind"), text(r, "/name")));
                let fails = text(result, "/result") == "fail" || text(result, "/status") == "fail";
                if fails && (named || of_it(text(&scope, "/kind"), text(&scope, "/name"))) {
                    let rules = out.entry(text(result, "/policy").to_owned()).or_default();
                    rules.insert(text(result, "/rule").to_owned());
                }
            }
        }
    }
    let events = match cx.door.list(&EVENT.collection(ns), "fieldSelector=reason%3DPolicyViolation").await {
        Ok(all) => all,
        Err(e) if e.is_forbidden() => Vec::new(),
        Err(e) => return Err(e.read("events")),
    };
    for event in events {
        if of_it(text(&event, "/involvedObject/kind"), text(&event, "/involvedObject/name")) {
            // `policy POLICY/RULE fail: …`
            let words = text(&event, "/message").split([' ', ':']).find_map(|w| w.split_once('/'));
            if let Some((policy, rule)) = words {
                out.entry(policy.to_owned()).or_default().insert(rule.to_owned());
            }
        }
    }
    out.remove("");
    Ok(out)
}

/// What an exception reads: the policies that are violated.
pub(super) async fn look(cx: &Context<'_>, target: &EntityId) -> Result<Image, ActError> {
    let (kind, ns, name) = object_of(cx, target).await?;
    let violated = violated(cx, kind, &ns, &name).await?;
    let mut image =
        Image::from([("violated".to_owned(), violated.keys().cloned().collect::<Vec<_>>().join(", ").into())]);
    if let Some((policy, rules)) = violated.first_key_value() {
        image.insert("policy".into(), policy.clone().into());
        image.insert("policy_rules".into(), rules.iter().cloned().collect::<Vec<_>>().join(", ").into());
    }
    Ok(image)
}

/// Which version of the kind is served.
async fn served(cx: &Context<'_>) -> Result<&'static Kind, ActError> {
    for kind in [&EXCEPTION, &EXCEPTION_BETA] {
        match cx.door.read(&format!("/apis/{}", kind.api_version())).await {
            Ok(list) if items(&list, "/resources").iter().any(|r| text(r, "/name") == kind.plural) => return Ok(kind),
            Ok(_) => {}
            Err(e) if e.is_missing() => {}
            Err(e) => return Err(e.read("the kinds of Kyverno")),
        }
    }
    Err(ActError::Refused("make a policy exception: the cluster has no PolicyException of Kyverno".into()))
}

fn exception(
    place: &Place,
    kind: &str,
    name: &str,
    action: &Action,
    rules: &BTreeSet<String>,
    until: Timestamp,
    secs: i64,
) -> Value {
    let policy = action.params.get("policy").and_then(Value::as_str).unwrap_or_default();
    let mut names: BTreeSet<String> = rules.iter().filter(|r| !r.is_empty()).cloned().collect();
    // The rules that Kyverno makes of those for pods have a prefix.
    let made: Vec<String> =
        names.iter().filter(|r| !r.starts_with("autogen-")).map(|r| format!("autogen-{r}")).collect();
    names.extend(made);
    let names: Vec<String> = if names.is_empty() { vec!["*".into()] } else { names.into_iter().collect() };
    let kinds: Vec<&str> = match kind {
        "Deployment" => vec!["Deployment", "ReplicaSet", "Pod"],
        "CronJob" => vec!["CronJob", "Job", "Pod"],
        other => vec![other, "Pod"],
    };
    let annotations = json!({
        LAST_KEY: action.key, FENCE: action.fence.to_string(), EXPIRES: until.to_rfc3339(),
        "nightshift.dev/incident": action.incident.to_string(),
    });
    json!({
        "apiVersion": place.kind.api_version(), "kind": place.kind.name,
        "metadata": {
            "name": place.name, "namespace": place.namespace, "annotations": annotations,
            "labels": {OURS: "nightshift", TTL: format!("{secs}s")},
        },
        "spec": {
            "exceptions": [{"policyName": policy, "ruleNames": names}],
            "match": {"any": [{"resources": {"kinds": kinds, "namespaces": [place.namespace], "names": [name, format!("{name}-*")]}}]},
        },
    })
}

/// Makes an exception, or takes it away again.
pub(super) async fn perform(cx: &Context<'_>, action: &Action) -> Result<Answer, ActError> {
    super::whole_only(action)?;
    let version = served(cx).await?;
    let apply = nightshift_act::key_of(action.incident, action.plan, action.step, Operation::Apply);
    let place = Place::new(version, &action.target.namespace(), &name_of("nightshift", &apply))?;
    let what = place.label();
    let found = cx.door.get(&place).await.map_err(|e| e.read(&what))?;
    let say = |outcome, detail: String| Ok(answer(outcome, detail, Image::new()));
    match action.operation {
        Operation::Prepare | Operation::Canary => {
            return Err(ActError::Refused(format!("make {what}: there is no such order")));
        }
        Operation::Observe => {
            let undoing = operation_of(&action.key) == Some(Operation::Undo);
            let outcome = if found.is_some() == undoing { ActionOutcome::Failed } else { ActionOutcome::FoundDone };
            return say(
                outcome,
                if found.is_some() { format!("{what} is there") } else { format!("there is no {what}") },
            );
        }
        Operation::Undo => {
            cx.may_write(&place)?;
            if let Some(object) = found {
                remove(cx, &place, &object).await?;
            }
            return say(ActionOutcome::Done, format!("{what} is taken away"));
        }
        Operation::Apply if found.is_some() => return say(ActionOutcome::Done, format!("{what} is there already")),
        Operation::DryRun | Operation::Apply => {}
    }
    let policy = action.params.get("policy").and_then(Value::as_str).unwrap_or_default();
    let secs = action.params.get("expires_secs").and_then(Value::as_i64).unwrap_or(0);
    let refused = |why: String| ActError::Refused(format!("except {} from `{policy}`: {why}", action.target.name()));
    if policy.is_empty() || policy.contains('*') {
        return Err(refused("name one policy".into()));
    }
    if !(60..=604_800).contains(&secs) {
        return Err(refused(format!("`expires_secs` is {secs}, not a minute to a week")));
    }
    let (kind, ns, name) = object_of(cx, &action.target).await?;
    let violated = violated(cx, kind, &ns, &name).await?;
    let Some(rules) = violated.get(policy) else {
        let known = violated.keys().cloned().collect::<Vec<_>>().join(", ");
        let known = if known.is_empty() { "nothing".to_owned() } else { known };
        return Err(refused(format!("no report or event says that it violates that; it violates {known}")));
    };
    let until = cx.now + Duration::from_secs(secs.unsigned_abs());
    let place = Place { namespace: ns, ..place };
    let object = exception(&place, kind, &name, action, rules, until, secs);
    if action.operation == Operation::DryRun {
        let how = cx.try_create(&place, &object).await?;
        return say(
            ActionOutcome::Done,
            format!("{what} lets {kind} {name} through `{policy}` until {}; {how}", until.to_rfc3339()),
        );
    }
    cx.may_write(&place)?;
    match cx.door.create(&place, &object, Mode::Real).await {
        Ok(_) => {}
        Err(e) if e.is_conflict() => {}
        Err(e) => return Err(e.write(&what)),
    }
    say(ActionOutcome::Done, format!("{what} lets {kind} {name} through `{policy}` until {}", until.to_rfc3339()))
}

async fn remove(cx: &Context<'_>, place: &Place, object: &Value) -> Result<(), ActError> {
    match cx.door.delete(place, text(object, "/metadata/uid"), None, Mode::Real).await {
        Ok(_) => Ok(()),
        Err(e) if e.is_missing() => Ok(()),
        Err(e) => Err(e.write(&place.label())),
    }
}

/// Takes away our exceptions whose time is over.
pub(super) async fn end_expired(cx: &Context<'_>) -> Result<Vec<String>, ActError> {
    let Ok(kind) = served(cx).await else { return Ok(Vec::new()) };
    let (mut gone, mut bad) = (Vec::new(), None);
    for namespace in &cx.config.namespaces {
        let query = format!("labelSelector={}%3Dnightshift", OURS.replace('/', "%2F"));
        let all = match cx.door.list(&kind.collection(namespace), &query).await {
            Ok(all) => all,
            Err(e) => {
                bad = Some(e.read(kind.plural));
                continue;
            }
        };
        for object in all {
            let until = Timestamp::parse_rfc3339(text(&object, "/metadata/annotations/nightshift.dev~1expires-at"));
            if !until.is_ok_and(|u| u <= cx.now) {
                continue;
            }
            let place = Place::new(kind, namespace, text(&object, "/metadata/name"))?;
            match remove(cx, &place, &object).await {
                Ok(()) => gone.push(place.label()),
                Err(e) => bad = Some(e),
            }
        }
    }
    bad.map_or(Ok(gone), Err)
}
