//! Pods: evictions through the disruption budgets, the failing ones of a workload, a stuck one.

use super::door::Mode;
use super::json::{get, items, text};
use super::place::{POD, Place};
use super::target::{Workload, must, owner, workload};
use super::{Context, answer};
use nightshift_act::{ActError, Answer, CANARY_SHARE, operation_of};
use nightshift_model::{Action, ActionOutcome, EntityId, Image, Operation, Timestamp};
use serde_json::{Value, json};

/// Pods of a workload that are told as failing at most.
const FAILING_MAX: usize = 50;
/// Seconds beyond its grace after which a pod that ends counts as stuck.
const STUCK_SECS: i64 = 30;

/// A pod by name and identity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pod {
    pub(super) place: Place,
    pub(super) uid: String,
}

pub(super) fn pod_of(object: &Value) -> Result<Pod, ActError> {
    let place = Place::new(&POD, text(object, "/metadata/namespace"), text(object, "/metadata/name"))?;
    Ok(Pod { place, uid: text(object, "/metadata/uid").to_owned() })
}

pub(super) fn is_ending(pod: &Value) -> bool {
    !get(pod, "/metadata/deletionTimestamp").is_null()
}

pub(super) fn is_over(pod: &Value) -> bool {
    matches!(text(pod, "/status/phase"), "Succeeded" | "Failed")
}

fn is_ready(pod: &Value) -> bool {
    items(pod, "/status/conditions").iter().any(|c| text(c, "/type") == "Ready" && text(c, "/status") == "True")
}

/// The pods of a workload that do not serve, as a fact.
pub(super) async fn failing(cx: &Context<'_>, of: &Workload) -> Result<Value, ActError> {
    let all = cx.door.list(&POD.collection(&of.place.namespace), &of.query()?).await.map_err(|e| e.read("pods"))?;
    let bad = all.iter().filter(|p| !is_ready(p) && !is_ending(p) && !is_over(p) && owner(p).is_some());
    Ok(bad
        .take(FAILING_MAX)
        .map(|p| json!({"name": text(p, "/metadata/name"), "uid": text(p, "/metadata/uid")}))
        .collect())
}

/// How an eviction went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Evicted {
    /// It is asked to end, or gone already.
    Yes,
    /// A disruption budget does not allow it now.
    Blocked(String),
}

/// Evicts one pod. It must be in an allowed namespace.
pub(super) async fn evict(cx: &Context<'_>, pod: &Pod, grace: Option<i64>, mode: Mode) -> Result<Evicted, ActError> {
    cx.may_write(&pod.place)?;
    match cx.door.evict(&pod.place, &pod.uid, grace, mode).await {
        Ok(_) => Ok(Evicted::Yes),
        // Gone, or another one of that name.
        Err(e) if e.is_missing() || e.is_conflict() => Ok(Evicted::Yes),
        Err(e) if e.is_busy() => Ok(Evicted::Blocked(e.text)),
        Err(e) => Err(e.write(&format!("the eviction of {}", pod.place.label()))),
    }
}

/// Whether that very pod is gone.
pub(super) async fn is_gone(cx: &Context<'_>, pod: &Pod) -> Result<bool, String> {
    let found = cx.door.get(&pod.place).await.map_err(|e| e.text)?;
    Ok(found.is_none_or(|p| text(&p, "/metadata/uid") != pod.uid))
}

// ---- failing pods ---------------------------------------------------------------------------------------------

/// Whether a restart is of the failing pods only.
pub(super) fn only_failing(action: &Action) -> bool {
    action.params.get("only").and_then(Value::as_str) == Some("failing")
}

/// The failing pods that were seen when the target was looked at.
fn listed(action: &Action) -> Result<Vec<Pod>, ActError> {
    let namespace = action.target.namespace();
    let all = action.before.get("failing_pods").and_then(Value::as_array).cloned().unwrap_or_default();
    let pod =
        |p: &Value| Ok(Pod { place: Place::new(&POD, &namespace, text(p, "/name"))?, uid: text(p, "/uid").to_owned() });
    all.iter().map(pod).collect()
}

/// Evicts the pods that failed when they were looked at, one first, then a share at a time.
pub(super) async fn replace_failing(cx: &Context<'_>, action: &Action) -> Result<Answer, ActError> {
    let pods = listed(action)?;
    let name = action.target.name();
    let mut left = Vec::new();
    for pod in &pods {
        if !is_gone(cx, pod).await.map_err(ActError::NotDone)? {
            left.push(pod.clone());
        }
    }
    let say = |outcome, detail: String| Ok(answer(outcome, detail, Image::new()));
    let gone = pods.len() - left.len();
    match action.operation {
        Operation::Prepare => return Err(ActError::Refused("a look reads the target".into())),
        Operation::Observe if operation_of(&action.key) == Some(Operation::Undo) => {
            return say(ActionOutcome::Failed, "pods that were replaced do not come back".into());
        }
        Operation::Observe => {
            let part = operation_of(&action.key) == Some(Operation::Canary) && gone > 0;
            let outcome = if left.is_empty() || part { ActionOutcome::FoundDone } else { ActionOutcome::Failed };
            return say(outcome, format!("{gone} of {} failing pods are gone", pods.len()));
        }
        Operation::Undo => return Err(ActError::Refused("pods that were replaced do not come back".into())),
        Operation::DryRun | Operation::Canary | Operation::Apply => {}
    }
    if pods.is_empty() {
        return Err(ActError::Refused(format!(
            "replace the failing pods of {name}: none failed when it was looked at"
        )));
    }
    if action.operation == Operation::DryRun {
        return dry_evictions(cx, &left, format!("{} failing pods of {name} are replaced", left.len())).await;
    }
    let share = action.params.get(CANARY_SHARE).and_then(Value::as_f64).filter(|s| *s > 0.0 && *s < 1.0);
    if action.operation == Operation::Canary {
        let part = ((pods.len() as f64 * share.unwrap_or(0.34)).ceil() as usize).max(1);
        left.truncate(part.saturating_sub(gone));
    }
    // The failing ones serve nothing: what a restart may take down at once does not bound them, budgets do.
    let blocked = evict_in_turn(cx, &left, None).await?;
    if !blocked.is_empty() {
        return say(ActionOutcome::Failed, format!("not replaced: {}", blocked.join(", ")));
    }
    let still = pods.len().saturating_sub(left.len()).saturating_sub(gone);
    let wait = cx.wait();
    let followed = loop {
        let found = workload(cx, &action.target).await?;
        let bad = failing(cx, &found).await?.as_array().map_or(0, Vec::len);
        if bad <= still {
            break Ok(());
        }
        if let Err(why) = wait.on(format!("{bad} pods fail")).await {
            break Err(why);
        }
    };
    match followed {
        Ok(()) => say(ActionOutcome::Done, format!("{} failing pods of {name} replaced", left.len())),
        Err(why) => say(ActionOutcome::Failed, format!("{} failing pods of {name} replaced, but {why}", left.len())),
    }
}

/// Evicts pods one after the other, each as soon as its budget allows it; gives those that stay.
pub(super) async fn evict_in_turn(cx: &Context<'_>, pods: &[Pod], grace: Option<i64>) -> Result<Vec<String>, ActError> {
    let mut blocked = Vec::new();
    let wait = cx.wait();
    for pod in pods {
        while let Evicted::Blocked(why) = evict(cx, pod, grace, Mode::Real).await? {
            if let Err(why) = wait.on(why).await {
                blocked.push(format!("{} ({why})", pod.place.label()));
                break;
            }
        }
    }
    Ok(blocked)
}

/// Tries evictions without effect. One that a budget forbids now refuses all of it, with the list.
pub(super) async fn dry_evictions(cx: &Context<'_>, pods: &[Pod], said: String) -> Result<Answer, ActError> {
    let mut blocked = Vec::new();
    let mut how = "dry_run: server".to_owned();
    for pod in pods {
        let part = Place { part: Some("eviction"), ..pod.place.clone() };
        if let Some(why) = cx.cannot(&part, "create").await? {
            how = format!("dry_run: local ({why})");
            break;
        }
        if let Evicted::Blocked(why) = evict(cx, pod, None, Mode::Dry).await? {
            blocked.push(format!("{} ({why})", pod.place.label()));
        }
    }
    if !blocked.is_empty() {
        return Err(ActError::Refused(format!("disruption budgets do not allow it now: {}", blocked.join(", "))));
    }
    Ok(answer(ActionOutcome::Done, format!("{said}; {how}"), Image::new()))
}

// ---- a stuck pod ----------------------------------------------------------------------------------------------

/// Why a pod counts as stuck; `None`: it does not.
fn stuck(pod: &Value, now: Timestamp) -> Option<String> {
    if let Ok(since) = Timestamp::parse_rfc3339(text(pod, "/metadata/deletionTimestamp")) {
        // The time stamp is when its grace ends.
        let late = now.secs_f64() - since.secs_f64();
        return (late > STUCK_SECS as f64).then(|| format!("it should have ended {late:.0} s ago"));
    }
    let waiting = items(pod, "/status/containerStatuses").iter().find_map(|c| {
        let reason = text(c, "/state/waiting/reason");
        (!reason.is_empty() && reason != "ContainerCreating" && reason != "PodInitializing").then(|| reason.to_owned())
    });
    match text(pod, "/status/phase") {
        "Failed" => Some("it failed".into()),
        "Unknown" => Some("its node does not tell how it is".into()),
        "Pending" | "Running" if waiting.is_some() => waiting.map(|w| format!("it waits: {w}")),
        _ => None,
    }
}

/// What an action on a stuck pod reads.
pub(super) async fn look_stuck(cx: &Context<'_>, target: &EntityId) -> Result<Image, ActError> {
    let pod = must(cx, &Place::new(&POD, &target.namespace(), &target.name())?).await?;
    let why = stuck(&pod, cx.now);
    let mut image = Image::from([
        ("pod_uid".to_owned(), text(&pod, "/metadata/uid").into()),
        ("stuck".to_owned(), why.is_some().into()),
        ("phase".to_owned(), text(&pod, "/status/phase").into()),
    ]);
    if let Some(why) = why {
        image.insert("stuck_why".into(), why.into());
    }
    if let Some((kind, name)) = owner(&pod) {
        image.insert("owner".into(), format!("{kind}/{name}").into());
    }
    Ok(image)
}

/// Deletes a stuck pod that a controller owns, where the configuration allows it.
pub(super) async fn delete_stuck(cx: &Context<'_>, action: &Action) -> Result<Answer, ActError> {
    super::whole_only(action)?;
    let place = Place::new(&POD, &action.target.namespace(), &action.target.name())?;
    let what = place.label();
    let refused = |why: &str| ActError::Refused(format!("delete {what}: {why}"));
    let uid = action.before.get("pod_uid").and_then(Value::as_str).unwrap_or_default().to_owned();
    let pod = Pod { place: place.clone(), uid: uid.clone() };
    let gone = is_gone(cx, &pod).await.map_err(ActError::NotDone)?;
    let say = |outcome, detail: &str| Ok(answer(outcome, format!("{what}: {detail}"), Image::new()));
    match action.operation {
        Operation::Prepare | Operation::Canary => return Err(refused("there is no such order")),
        Operation::Undo => return Err(refused("what is deleted does not come back; its controller made another")),
        Operation::Observe if operation_of(&action.key) == Some(Operation::Undo) => {
            return say(ActionOutcome::Failed, "nothing was taken back");
        }
        Operation::Observe if gone => return say(ActionOutcome::FoundDone, "it is gone"),
        Operation::Observe => return say(ActionOutcome::Failed, "it is still there"),
        Operation::Apply if gone => return say(ActionOutcome::Done, "it is gone already"),
        Operation::DryRun | Operation::Apply => {}
    }
    if !cx.config.delete_stuck_pods {
        return Err(refused("pods are not deleted; set `delete_stuck_pods = true` to allow it"));
    }
    if uid.is_empty() || gone {
        return Err(refused("it is not the pod that was looked at"));
    }
    let object = must(cx, &place).await?;
    let Some((kind, _)) = owner(&object) else {
        return Err(refused("no controller owns it, nothing would make another"));
    };
    let Some(why) = stuck(&object, cx.now) else { return Err(refused("it is not stuck")) };
    if let Some(finalizer) = items(&object, "/metadata/finalizers").first() {
        return Err(refused(&format!("finalizer {finalizer} holds it: see to the controller of that")));
    }
    let ending = is_ending(&object);
    if ending && kind == "StatefulSet" {
        return Err(refused("a pod of a stateful set is never forced: two of one name could write the same volume"));
    }
    let grace = ending.then_some(0);
    if action.operation == Operation::DryRun {
        let how = match cx.cannot(&place, "delete").await? {
            None => {
                cx.door.delete(&place, &uid, grace, Mode::Dry).await.map_err(|e| e.write(&what))?;
                "dry_run: server".to_owned()
            }
            Some(why) => format!("dry_run: local ({why})"),
        };
        return say(ActionOutcome::Done, &format!("it is deleted, as {why}; {how}"));
    }
    cx.may_write(&place)?;
    match cx.door.delete(&place, &uid, grace, Mode::Real).await {
        Ok(_) => {}
        Err(e) if e.is_missing() => {}
        Err(e) => return Err(e.write(&what)),
    }
    let wait = cx.wait();
    loop {
        let seen = match is_gone(cx, &pod).await {
            Ok(true) => return say(ActionOutcome::Done, &format!("deleted, as {why}")),
            Ok(false) => "it is still there".to_owned(),
            Err(e) => e,
        };
        if let Err(last) = wait.on(seen).await {
            return say(ActionOutcome::Failed, &format!("deleted, but {last}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_does_not_move_is_stuck() {
        let now = Timestamp::parse_rfc3339("2026-01-01T00:10:00Z").unwrap();
        for (pod, want) in [
            (json!({"metadata": {"deletionTimestamp": "2026-01-01T00:09:00Z"}}), true),
            (json!({"metadata": {"deletionTimestamp": "2026-01-01T00:09:50Z"}}), false),
            (json!({"status": {"phase": "Running"}}), false),
            (json!({"status": {"phase": "Pending"}}), false),
            (
                json!({"status": {"phase": "Pending", "containerStatuses": [{"state": {"waiting": {"reason": "ContainerCreating"}}}]}}),
                false,
            ),
            (
                json!({"status": {"phase": "Running", "containerStatuses": [{"state": {"waiting": {"reason": "CrashLoopBackOff"}}}]}}),
                true,
            ),
            (json!({"status": {"phase": "Failed"}}), true),
        ] {
            assert_eq!(stuck(&pod, now).is_some(), want, "{pod}");
        }
    }
}
