//! Whether we may: asked of the server, which changes nothing.

use super::door::Door;
use super::place::Place;
use nightshift_act::ActError;
use serde_json::{Value, json};

/// Whether we have the right to do this to that.
pub(super) async fn allowed(door: &Door, verb: &str, place: &Place) -> Result<bool, ActError> {
    let review = json!({
        "apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": {
            "namespace": place.namespace, "name": place.name, "verb": verb,
            "group": place.kind.group, "resource": place.kind.plural, "subresource": place.part.unwrap_or(""),
        }},
    });
    let told = door
        .ask("/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", &review)
        .await
        .map_err(|e| e.read("our own rights"))?;
    Ok(told.pointer("/status/allowed").and_then(Value::as_bool) == Some(true))
}
