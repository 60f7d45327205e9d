//! Webhooks that CI/CD systems send of themselves: GitHub's and GitLab's deployments.
//!
//! Only what began or ended a deployment is a change; the rest of what they send is understood and ignored.

use super::{Around, Item};
use crate::change::{self, Fields};
use nightshift_model::ChangeType;
use serde_json::{Map, Value, json};

/// The item of a known webhook; `None` when it is none.
pub(super) fn read(
    object: &Map<String, Value>,
    github: Option<&str>,
    around: &Around<'_>,
) -> Result<Option<Item>, String> {
    if let Some(status) = object.get("deployment_status").and_then(Value::as_object)
        && let Some(deployment) = object.get("deployment").and_then(Value::as_object)
    {
        return self::github(object, status, deployment, around).map(Some);
    }
    if object.get("object_kind").and_then(Value::as_str) == Some("deployment") {
        return gitlab(object, around).map(Some);
    }
    match github {
        Some("deployment_status") => {
            Err("a GitHub `deployment_status` has objects `deployment_status` and `deployment`".into())
        }
        // A ping, or another event that this hook is subscribed to.
        Some(_) => Ok(Some(Item::Ignored)),
        None => Ok(None),
    }
}

fn at<'a>(value: &'a Map<String, Value>, name: &str, pointer: &str) -> Option<&'a str> {
    value.get(name)?.pointer(pointer)?.as_str()
}

fn make(fields: Value, around: &Around<'_>) -> Result<Item, String> {
    let Value::Object(mut fields) = fields else { return Ok(Item::Ignored) };
    fields.retain(|_, v| !v.is_null());
    let read = change::read(&Fields(&fields), Some(ChangeType::Deployment), around.source, around.now)?;
    Ok(Item::Change(Box::new(read)))
}

fn github(
    root: &Map<String, Value>,
    status: &Map<String, Value>,
    deployment: &Map<String, Value>,
    around: &Around<'_>,
) -> Result<Item, String> {
    let state = status.get("state").and_then(Value::as_str).unwrap_or("");
    if !matches!(state, "in_progress" | "success" | "failure" | "error") {
        return Ok(Item::Ignored);
    }
    let text = |name: &str| deployment.get(name).and_then(Value::as_str);
    let service = at(deployment, "payload", "/service").or_else(|| at(root, "repository", "/name"));
    let environment = text("environment");
    let id = deployment.get("id").and_then(Value::as_u64);
    let id = id.map(|id| format!("github {} {id} {state}", at(root, "repository", "/full_name").unwrap_or("")));
    let fields = json!({
        "id": id,
        "at": status.get("created_at"),
        "service": service,
        "environment": environment,
        "version": text("ref"),
        "git_sha": text("sha"),
        "author": at(deployment, "creator", "/login"),
        "summary": format!("deployment of {} to {}: {state}", service.unwrap_or("?"), environment.unwrap_or("?")),
        "attributes": {"github.state": state, "url": status.get("target_url").and_then(Value::as_str).unwrap_or("")},
    });
    make(fields, around)
}

fn gitlab(root: &Map<String, Value>, around: &Around<'_>) -> Result<Item, String> {
    let text = |name: &str| root.get(name).and_then(Value::as_str);
    let status = text("status").unwrap_or("");
    if !matches!(status, "running" | "success" | "failed") {
        return Ok(Item::Ignored);
    }
    let service = at(root, "project", "/name");
    let environment = text("environment");
    let id = root.get("deployment_id").and_then(Value::as_u64);
    let id = id.map(|id| format!("gitlab {} {id} {status}", at(root, "project", "/path_with_namespace").unwrap_or("")));
    // `2026-01-02 03:04:05 +0000`.
    let fields = json!({
        "id": id,
        "at": root.get("status_changed_at"),
        "service": service,
        "environment": environment,
        "version": text("ref"),
        "git_sha": text("short_sha"),
        "author": at(root, "user", "/username"),
        "summary": format!("deployment of {} to {}: {status}", service.unwrap_or("?"), environment.unwrap_or("?")),
        "attributes": {"gitlab.status": status, "url": text("deployable_url").unwrap_or("")},
    });
    make(fields, around)
}
