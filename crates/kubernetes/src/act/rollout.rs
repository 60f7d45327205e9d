//! Rollouts: pod templates, doing a part first, and waiting until the pods are there.

use super::Context;
use super::json::{self, Fields, get, text, whole};
use super::place::{DAEMON_SET, DEPLOYMENT, Place, STATEFUL_SET};
use super::target::Workload;
use nightshift_act::ActError;
use serde_json::{Value, json};

/// Fields of a workload that an action on its pods may set: the template, and what holds a rollout at a part.
pub(super) const ROOTS: &[&str] = &[
    "/spec/template",
    "/spec/strategy",
    "/spec/minReadySeconds",
    "/spec/progressDeadlineSeconds",
    "/spec/updateStrategy",
];

/// Seconds for which new pods of a canary do not count as available, so that its rollout goes no further.
const HELD_SECS: i64 = 3_599;

/// Holds a rollout at a share of the pods, by fields alone: no second request is needed to stop it.
///
/// A deployment may start so many pods more and take none away before the new ones are available, which they are not
/// for an hour. A stateful set keeps a partition. The apply that follows puts these fields back.
pub(super) fn hold(workload: &Workload, share: f64, fields: &mut Fields) -> Result<u64, ActError> {
    let what = workload.place.label();
    let replicas = whole(&workload.object, "/spec/replicas").unwrap_or(1).max(0) as u64;
    let part = ((replicas as f64 * share).ceil() as u64).clamp(1, replicas.max(1));
    if workload.is(&DEPLOYMENT) {
        if text(&workload.object, "/spec/strategy/type") == "Recreate" {
            return Err(ActError::Refused(format!(
                "change {what} in part: its strategy is Recreate; leave `canary` out"
            )));
        }
        if get(&workload.object, "/spec/paused") == Value::Bool(true) {
            return Err(ActError::Refused(format!("change {what} in part: its rollout is paused")));
        }
        fields.insert(
            "/spec/strategy".into(),
            json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": part, "maxUnavailable": 0}}),
        );
        fields.insert("/spec/minReadySeconds".into(), HELD_SECS.into());
        fields.insert("/spec/progressDeadlineSeconds".into(), (HELD_SECS + 1).into());
        return Ok(part);
    }
    if workload.is(&STATEFUL_SET) {
        if text(&workload.object, "/spec/updateStrategy/type") == "OnDelete" {
            return Err(ActError::Refused(format!("change {what} in part: its pods are replaced by hand (OnDelete)")));
        }
        let partition = replicas.saturating_sub(part);
        fields.insert(
            "/spec/updateStrategy".into(),
            json!({"type": "RollingUpdate", "rollingUpdate": {"partition": partition}}),
        );
        return Ok(part);
    }
    // More pods would count as unavailable than are, and a daemon set replaces those without regard to its budget.
    Err(ActError::Refused(format!("change {what} in part: a daemon set cannot be; leave `canary` out")))
}

/// Waits until the controller has rolled out what is wanted, all of it or the part of a canary.
pub(super) async fn settle(cx: &Context<'_>, place: &Place, share: Option<f64>) -> Result<String, String> {
    if place.kind.group != "apps" {
        return Ok(String::new());
    }
    let wait = cx.wait();
    loop {
        let seen = match cx.door.get(place).await {
            Ok(Some(object)) => match failed(&object) {
                Some(why) => return Err(why),
                None => progress(place, &object, share),
            },
            Ok(None) => Err(format!("{} is gone", place.label())),
            Err(e) => Err(e.text),
        };
        match seen {
            Ok(done) => return Ok(done),
            Err(seen) => wait.on(seen).await.map_err(|last| format!("the rollout is not through: {last}"))?,
        }
    }
}

fn failed(object: &Value) -> Option<String> {
    let seen = whole(object, "/status/observedGeneration") >= whole(object, "/metadata/generation");
    let late = json::items(object, "/status/conditions")
        .iter()
        .find(|c| text(c, "/type") == "Progressing" && text(c, "/reason") == "ProgressDeadlineExceeded")?;
    seen.then(|| format!("the rollout failed: {}", text(late, "/message")))
}

/// `Ok`: it is as wanted. `Err`: how far it is.
fn progress(place: &Place, object: &Value, share: Option<f64>) -> Result<String, String> {
    let number = |p: &str| whole(object, p).unwrap_or(0);
    let generation = number("/metadata/generation");
    if number("/status/observedGeneration") < generation {
        return Err("its controller has not seen it yet".into());
    }
    if place.kind == &DAEMON_SET {
        let (wanted, updated) = (number("/status/desiredNumberScheduled"), number("/status/updatedNumberScheduled"));
        let ready = number("/status/numberAvailable");
        return match updated >= wanted && ready >= wanted {
            true => Ok(format!("{updated} of {wanted} pods are new and available")),
            false => Err(format!("{updated} of {wanted} pods are new, {ready} available")),
        };
    }
    let wanted = object.pointer("/spec/replicas").and_then(Value::as_i64).unwrap_or(1);
    let (updated, ready) = (number("/status/updatedReplicas"), number("/status/readyReplicas"));
    if let Some(share) = share {
        let part = ((wanted as f64 * share).ceil() as i64).clamp(1, wanted.max(1));
        let more = if place.kind == &DEPLOYMENT { part } else { 0 };
        return match updated >= part && ready >= wanted + more {
            true => Ok(format!("{updated} of {wanted} pods are new and ready")),
            false => Err(format!("{updated} of {part} new pods are there, {ready} pods are ready")),
        };
    }
    if get(object, "/spec/paused") == Value::Bool(true) {
        return Ok("its rollout is paused".into());
    }
    if text(object, "/spec/updateStrategy/type") == "OnDelete" {
        return Ok("its pods are replaced when they are deleted (OnDelete)".into());
    }
    let partition = whole(object, "/spec/updateStrategy/rollingUpdate/partition").unwrap_or(0);
    let due = (wanted - partition).max(0);
    let (replicas, available) = (number("/status/replicas"), number("/status/availableReplicas"));
    // A stateful set that is through reports its pods as current.
    let updated = if place.kind == &STATEFUL_SET
        && text(object, "/status/currentRevision") == text(object, "/status/updateRevision")
    {
        replicas
    } else {
        updated
    };
    match updated >= due && replicas <= wanted && available >= wanted {
        true => Ok(format!("{available} of {wanted} pods are available")),
        false => Err(format!("{updated} of {wanted} pods are new, {available} available")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn deployment(status: Value) -> (Place, Value) {
        let place = Place::new(&DEPLOYMENT, "shop", "web").unwrap();
        (place, json!({"metadata": {"generation": 2}, "spec": {"replicas": 3}, "status": status}))
    }

    #[test]
    fn a_rollout_is_through_when_every_pod_is_new_and_available() {
        let (place, done) = deployment(
            json!({"observedGeneration": 2, "replicas": 3, "updatedReplicas": 3, "availableReplicas": 3, "readyReplicas": 3}),
        );
        assert!(progress(&place, &done, None).is_ok());
        for (status, share) in [
            (json!({"observedGeneration": 1, "replicas": 3, "updatedReplicas": 3, "availableReplicas": 3}), None),
            (json!({"observedGeneration": 2, "replicas": 4, "updatedReplicas": 3, "availableReplicas": 3}), None),
            (json!({"observedGeneration": 2, "replicas": 3, "updatedReplicas": 2, "availableReplicas": 3}), None),
            (json!({"observedGeneration": 2, "replicas": 3, "updatedReplicas": 3, "availableReplicas": 2}), None),
            (json!({"observedGeneration": 2, "replicas": 4, "updatedReplicas": 1, "readyReplicas": 3}), Some(0.25)),
        ] {
            let (place, object) = deployment(status);
            assert!(progress(&place, &object, share).is_err(), "{object}");
        }
        let (place, part) =
            deployment(json!({"observedGeneration": 2, "replicas": 4, "updatedReplicas": 1, "readyReplicas": 4}));
        assert!(progress(&place, &part, Some(0.25)).is_ok());
    }

    #[test]
    fn a_part_is_held_by_fields_alone() {
        let (place, object) = deployment(json!({}));
        let mut fields = Fields::new();
        assert_eq!(hold(&Workload { place, object }, 0.25, &mut fields).unwrap(), 1);
        assert_eq!(fields["/spec/strategy"]["rollingUpdate"], json!({"maxSurge": 1, "maxUnavailable": 0}));
        assert!(fields["/spec/minReadySeconds"].as_i64() < fields["/spec/progressDeadlineSeconds"].as_i64());
        let place = Place::new(&DAEMON_SET, "shop", "agent").unwrap();
        assert!(hold(&Workload { place, object: json!({}) }, 0.25, &mut fields).is_err());
        let place = Place::new(&STATEFUL_SET, "shop", "db").unwrap();
        let object = json!({"spec": {"replicas": 5}});
        hold(&Workload { place, object }, 0.3, &mut fields).unwrap();
        assert_eq!(fields["/spec/updateStrategy"]["rollingUpdate"]["partition"], json!(3));
    }
}
