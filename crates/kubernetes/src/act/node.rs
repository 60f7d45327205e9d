//! Nodes: cordon, drain, uncordon.
//!
//! A drain is refused while the node holds pods that would have to leave and may not be touched: outside the allowed
//! namespaces, or owned by nobody. The list is in the refusal, which comes with the look: at planning.

use super::edit::{self, Aim, Deed, Subject};
use super::json::{Fields, get, items, text};
use super::place::{NODE, POD, Place};
use super::pods::{self, Pod, pod_of};
use super::target::{must, owner};
use super::{Context, answer};
use async_trait::async_trait;
use nightshift_act::{ActError, Answer, operation_of};
use nightshift_model::{Action, ActionOutcome, EntityId, Image, Operation};
use serde_json::Value;

/// Pods that a refusal names at most.
const NAMED_MAX: usize = 8;

/// Cordons or uncordons.
pub(super) struct Cordon {
    pub(super) on: bool,
}

fn is_ready(node: &Value) -> bool {
    items(node, "/status/conditions").iter().any(|c| text(c, "/type") == "Ready" && text(c, "/status") == "True")
}

#[async_trait]
impl Deed for Cordon {
    async fn find(&self, cx: &Context<'_>, target: &EntityId) -> Result<Vec<Subject>, ActError> {
        let place = Place::new(&NODE, "", &target.name())?;
        let object = must(cx, &place).await?;
        Ok(vec![Subject::new(place, object, &["/spec/unschedulable"])])
    }

    async fn facts(&self, _cx: &Context<'_>, _target: &EntityId, subjects: &[Subject]) -> Result<Image, ActError> {
        let mut image = Image::new();
        if let Some(node) = subjects.first() {
            let cordoned = get(&node.object, "/spec/unschedulable") == Value::Bool(true);
            image.insert("schedulable".into(), (!cordoned).into());
            image.insert("ready".into(), is_ready(&node.object).into());
        }
        Ok(image)
    }

    async fn aim(
        &self,
        _cx: &Context<'_>,
        _subjects: &[Subject],
        action: &Action,
        _share: Option<f64>,
    ) -> Result<Aim, ActError> {
        super::whole_only(action)?;
        let value = if self.on { Value::Bool(true) } else { Value::Null };
        let word = if self.on { "cordon" } else { "uncordon" };
        let fields = Fields::from([("/spec/unschedulable".to_owned(), value)]);
        Ok(Aim { which: 0, fields, said: format!("{word} node {}", action.target.name()) })
    }
}

/// What runs on a node, sorted by what a drain does with it.
#[derive(Debug, Default)]
struct Load {
    /// These leave.
    leave: Vec<Pod>,
    /// These would have to leave and may not be touched, with why.
    held: Vec<String>,
    /// These stay: they might run on, and two of them must not.
    stay: Vec<String>,
    /// Pods that lose what they keep on the node.
    scratch: usize,
}

fn sort(pods: &[Value], allowed: &[String], ready: bool) -> Result<Load, ActError> {
    let mut load = Load::default();
    for pod in pods {
        let mirror = !get(pod, "/metadata/annotations/kubernetes.io~1config.mirror").is_null();
        let owned = owner(pod).map(|(kind, _)| kind);
        if mirror || owned == Some("DaemonSet") || pods::is_over(pod) {
            continue;
        }
        let namespace = text(pod, "/metadata/namespace");
        let name = format!("{namespace}/{}", text(pod, "/metadata/name"));
        if pods::is_ending(pod) {
            continue;
        }
        if !allowed.iter().any(|a| a == namespace) {
            load.held.push(format!("{name} (namespace not allowed)"));
        } else if owned.is_none() {
            load.held.push(format!("{name} (no controller owns it)"));
        } else if !ready && owned == Some("StatefulSet") {
            load.stay.push(name);
        } else {
            load.leave.push(pod_of(pod)?);
            load.scratch += usize::from(items(pod, "/spec/volumes").iter().any(|v| v.get("emptyDir").is_some()));
        }
    }
    load.held.sort();
    Ok(load)
}

async fn load_of(cx: &Context<'_>, node: &Value) -> Result<Load, ActError> {
    let name = text(node, "/metadata/name");
    let all = cx.door.list(&POD.collection(""), &format!("fieldSelector=spec.nodeName%3D{name}")).await;
    sort(&all.map_err(|e| e.read("the pods of the node"))?, &cx.config.namespaces, is_ready(node))
}

fn refuse_held(name: &str, load: &Load) -> Result<(), ActError> {
    if load.held.is_empty() {
        return Ok(());
    }
    let n = load.held.len();
    let mut told = load.held.iter().take(NAMED_MAX).cloned().collect::<Vec<_>>().join(", ");
    if n > NAMED_MAX {
        told = format!("{told} and {} more", n - NAMED_MAX);
    }
    Err(ActError::Refused(format!("drain node {name}: {n} pods would have to leave and may not be touched: {told}")))
}

/// What a drain reads. Refused, with the list, while pods are there that may not be touched.
pub(super) async fn look_drain(cx: &Context<'_>, target: &EntityId) -> Result<Image, ActError> {
    let deed = Cordon { on: true };
    let mut image = edit::look(&deed, cx, target).await?;
    let node = must(cx, &Place::new(&NODE, "", &target.name())?).await?;
    let load = load_of(cx, &node).await?;
    refuse_held(&target.name(), &load)?;
    image.insert("pods".into(), load.leave.len().into());
    Ok(image)
}

/// Cordons, evicts one pod, looks, then the rest.
pub(super) async fn drain(cx: &Context<'_>, action: &Action) -> Result<Answer, ActError> {
    super::whole_only(action)?;
    let deed = Cordon { on: true };
    let name = action.target.name();
    let node = must(cx, &Place::new(&NODE, "", &name)?).await?;
    let load = load_of(cx, &node).await?;
    let grace = action.params.get("grace_secs").and_then(Value::as_i64).filter(|g| (0..=3_600).contains(g));
    match action.operation {
        Operation::Undo | Operation::Prepare | Operation::Canary => return edit::perform(&deed, cx, action).await,
        Operation::Observe => {
            let seen = edit::perform(&deed, cx, action).await?;
            let apply = operation_of(&action.key) == Some(Operation::Apply);
            if apply && seen.outcome == ActionOutcome::FoundDone && !load.leave.is_empty() {
                let n = load.leave.len();
                return Ok(answer(
                    ActionOutcome::Failed,
                    format!("it is cordoned, {n} pods are still there"),
                    seen.image,
                ));
            }
            return Ok(seen);
        }
        Operation::DryRun => {
            refuse_held(&name, &load)?;
            let cordon = edit::perform(&deed, cx, action).await?;
            let scratch = match load.scratch {
                0 => String::new(),
                n => format!(", {n} of them lose what they keep on the node"),
            };
            let said = format!("{}; {} pods leave{scratch}{}", cordon.detail, load.leave.len(), stays(&load));
            return pods::dry_evictions(cx, &load.leave, said).await;
        }
        Operation::Apply => refuse_held(&name, &load)?,
    }
    let cordoned = edit::perform(&deed, cx, action).await?;
    if !cordoned.outcome.is_done() {
        return Ok(cordoned);
    }
    // One first: what its controller does about it is looked at before the rest follows.
    let (first, rest) = load.leave.split_at(load.leave.len().min(1));
    for part in [first, rest] {
        let blocked = pods::evict_in_turn(cx, part, grace).await?;
        if !blocked.is_empty() {
            return Ok(answer(
                ActionOutcome::Failed,
                format!("node {name}: not evicted: {}", blocked.join(", ")),
                cordoned.image,
            ));
        }
        if let Err(why) = left(cx, part, is_ready(&node)).await {
            return Ok(answer(ActionOutcome::Failed, format!("node {name}: {why}"), cordoned.image));
        }
    }
    let n = load.leave.len();
    Ok(answer(ActionOutcome::Done, format!("node {name} cordoned, {n} pods left it{}", stays(&load)), cordoned.image))
}

fn stays(load: &Load) -> String {
    if load.stay.is_empty() {
        return String::new();
    }
    let named = load.stay.iter().take(NAMED_MAX).cloned().collect::<Vec<_>>().join(", ");
    format!("; of stateful sets, not forced off a node that does not answer: {named}")
}

/// Waits until these pods are gone. On a node that does not answer nobody confirms that they ended: asked is enough.
async fn left(cx: &Context<'_>, pods: &[Pod], ready: bool) -> Result<(), String> {
    let wait = cx.wait();
    for pod in pods {
        while !pods::is_gone(cx, pod).await? {
            let ending = cx.door.get(&pod.place).await.map_err(|e| e.text)?.is_some_and(|p| pods::is_ending(&p));
            if ending && !ready {
                break;
            }
            wait.on(format!("{} is still there", pod.place.label())).await?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(namespace: &str, name: &str, kind: Option<&str>) -> Value {
        let owners: Vec<Value> = kind.iter().map(|k| json!({"kind": k, "name": "x", "controller": true})).collect();
        json!({"metadata": {"namespace": namespace, "name": name, "uid": name, "ownerReferences": owners}, "status": {"phase": "Running"}})
    }

    #[test]
    fn what_may_not_be_touched_holds_a_drain_and_is_named() {
        let all = [
            pod("shop", "web", Some("ReplicaSet")),
            pod("shop", "db-0", Some("StatefulSet")),
            pod("shop", "agent", Some("DaemonSet")),
            pod("shop", "bare", None),
            pod("bank", "web", Some("ReplicaSet")),
        ];
        let load = sort(&all, &["shop".into()], true).unwrap();
        assert_eq!(load.held, ["bank/web (namespace not allowed)", "shop/bare (no controller owns it)"]);
        assert_eq!(load.leave.len(), 2);
        let why = refuse_held("n", &load).unwrap_err().to_string();
        assert!(why.contains("2 pods") && why.contains("bank/web"), "{why}");
        // Nobody can say whether it still runs there.
        let dead = sort(&all[..3], &["shop".into()], false).unwrap();
        assert_eq!((dead.leave.len(), dead.stay.as_slice()), (1, &["shop/db-0".to_owned()][..]));
    }
}
