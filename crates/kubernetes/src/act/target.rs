//! From an entity to the objects that it stands for.

use super::Context;
use super::json::{items, text};
use super::place::{DAEMON_SET, DEPLOYMENT, Kind, POD, Place, REPLICA_SET, SERVICE, STATEFUL_SET};
use nightshift_act::ActError;
use nightshift_model::EntityId;
use serde_json::Value;

/// Kinds that run pods and roll them out.
pub(super) static WORKLOADS: [&Kind; 3] = [&DEPLOYMENT, &STATEFUL_SET, &DAEMON_SET];

/// What rolls out the pods of an entity.
#[derive(Debug, Clone)]
pub(super) struct Workload {
    pub(super) place: Place,
    pub(super) object: Value,
}

impl Workload {
    pub(super) fn is(&self, kind: &Kind) -> bool {
        self.place.kind == kind
    }

    /// The selector of its pods as a query.
    pub(super) fn query(&self) -> Result<String, ActError> {
        selector_of(self.object.pointer("/spec/selector").unwrap_or(&Value::Null))
            .ok_or_else(|| ActError::Refused(format!("find the pods of {}: it has no selector", self.place.label())))
    }
}

/// A label selector as a query of a list. `None`: it selects nothing, or in a way that a query cannot say.
pub(super) fn selector_of(selector: &Value) -> Option<String> {
    let mut terms = Vec::new();
    for (key, value) in selector.get("matchLabels").and_then(Value::as_object).into_iter().flatten() {
        terms.push(format!("{key}={}", value.as_str()?));
    }
    for e in items(selector, "/matchExpressions") {
        let key = text(e, "/key");
        let values: Vec<&str> = items(e, "/values").iter().filter_map(Value::as_str).collect();
        terms.push(match text(e, "/operator") {
            "In" => format!("{key} in ({})", values.join(",")),
            "NotIn" => format!("{key} notin ({})", values.join(",")),
            "Exists" => key.to_owned(),
            "DoesNotExist" => format!("!{key}"),
            _ => return None,
        });
    }
    let query = terms.join(",");
    let escaped: String = query
        .bytes()
        .map(|b| match b {
            b if b.is_ascii_alphanumeric() || b"-_./".contains(&b) => char::from(b).to_string(),
            b => format!("%{b:02X}"),
        })
        .collect();
    (!escaped.is_empty()).then(|| format!("labelSelector={escaped}"))
}

fn gone(what: &str) -> ActError {
    ActError::Refused(format!("find {what}: there is no such thing in the cluster"))
}

/// An object that must be there.
pub(super) async fn must(cx: &Context<'_>, place: &Place) -> Result<Value, ActError> {
    cx.door.get(place).await.map_err(|e| e.read(&place.label()))?.ok_or_else(|| gone(&place.label()))
}

/// The controller that an object belongs to, as (kind, name).
pub(super) fn owner(object: &Value) -> Option<(&str, &str)> {
    let owners = items(object, "/metadata/ownerReferences");
    let owner = owners.iter().find(|o| o.get("controller").and_then(Value::as_bool) == Some(true))?;
    Some((text(owner, "/kind"), text(owner, "/name")))
}

/// The workload that an entity stands for: itself, that of a service, or that of a pod.
pub(super) async fn workload(cx: &Context<'_>, target: &EntityId) -> Result<Workload, ActError> {
    let (namespace, name) = (target.namespace(), target.name());
    let direct: &[&'static Kind] = match target.kind_str() {
        "deployment" => &[&DEPLOYMENT],
        "statefulset" => &[&STATEFUL_SET],
        "daemonset" => &[&DAEMON_SET],
        "pod" => return of_pod(cx, &namespace, &name).await,
        "service" | "workload" => &WORKLOADS,
        other => return Err(ActError::Refused(format!("find the workload of {name}: a {other} has none"))),
    };
    for kind in direct {
        let place = Place::new(kind, &namespace, &name)?;
        if let Some(object) = cx.door.get(&place).await.map_err(|e| e.read(&place.label()))? {
            return Ok(Workload { place, object });
        }
    }
    if target.kind_str() == "service" {
        return of_service(cx, &namespace, &name).await;
    }
    Err(gone(&format!("{} {namespace}/{name}", target.kind_str())))
}

async fn of_service(cx: &Context<'_>, namespace: &str, name: &str) -> Result<Workload, ActError> {
    let service = must(cx, &Place::new(&SERVICE, namespace, name)?).await?;
    let wanted = service.pointer("/spec/selector").and_then(Value::as_object).cloned().unwrap_or_default();
    let mut found = Vec::new();
    for kind in WORKLOADS {
        let all = cx.door.list(&kind.collection(namespace), "").await.map_err(|e| e.read(kind.plural))?;
        for object in all {
            let labels = object.pointer("/spec/template/metadata/labels");
            let fits = !wanted.is_empty() && wanted.iter().all(|(k, v)| labels.and_then(|l| l.get(k)) == Some(v));
            if fits {
                let place = Place::new(kind, namespace, text(&object, "/metadata/name"))?;
                found.push(Workload { place, object });
            }
        }
    }
    match found.len() {
        1 => Ok(found.remove(0)),
        0 => Err(gone(&format!("the workload of service {namespace}/{name}"))),
        n => {
            let names = found.iter().map(|w| w.place.label()).collect::<Vec<_>>().join(", ");
            Err(ActError::Refused(format!("find the workload of service {namespace}/{name}: there are {n}: {names}")))
        }
    }
}

async fn of_pod(cx: &Context<'_>, namespace: &str, name: &str) -> Result<Workload, ActError> {
    let pod = must(cx, &Place::new(&POD, namespace, name)?).await?;
    let mut owned = owner(&pod).map(|(k, n)| (k.to_owned(), n.to_owned()));
    if let Some(("ReplicaSet", set)) = owned.as_ref().map(|(k, n)| (k.as_str(), n.as_str())) {
        let set = must(cx, &Place::new(&REPLICA_SET, namespace, set)?).await?;
        owned = owner(&set).map(|(k, n)| (k.to_owned(), n.to_owned()));
    }
    let Some((kind, owner)) = owned else {
        return Err(ActError::Refused(format!("find the workload of pod {namespace}/{name}: no controller owns it")));
    };
    let Some(kind) = WORKLOADS.into_iter().find(|k| k.name == kind) else {
        return Err(ActError::Refused(format!("find the workload of pod {namespace}/{name}: it belongs to a {kind}")));
    };
    let place = Place::new(kind, namespace, &owner)?;
    Ok(Workload { object: must(cx, &place).await?, place })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn selectors_are_queries() {
        let selector = json!({"matchLabels": {"app": "web"}, "matchExpressions": [
            {"key": "tier", "operator": "In", "values": ["a", "b"]}, {"key": "x", "operator": "DoesNotExist"}]});
        assert_eq!(selector_of(&selector).unwrap(), "labelSelector=app%3Dweb%2Ctier%20in%20%28a%2Cb%29%2C%21x");
        assert_eq!(selector_of(&json!({})), None);
        assert_eq!(selector_of(&json!({"matchExpressions": [{"key": "a", "operator": "Near"}]})), None);
    }

    #[test]
    fn only_a_controller_owns() {
        let pod = json!({"metadata": {"ownerReferences": [{"kind": "Node", "name": "n"}, {"kind": "ReplicaSet", "name": "r", "controller": true}]}});
        assert_eq!(owner(&pod), Some(("ReplicaSet", "r")));
        assert_eq!(owner(&json!({"metadata": {}})), None);
    }
}
