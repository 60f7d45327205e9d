//! `POST /api/v1/alertmanager`: the webhook of Prometheus' Alertmanager, version 4.
//!
//! Lives here: its format. Each alert becomes an anomaly of kind `alert`; one that is resolved closes the one that
//! fired, as both have the same labels and the same `startsAt`. Never here: whether an alert is right.

use crate::alert::{Alert, SCORE_UNKNOWN, score_of};
use crate::change::flat;
use crate::events::{DoorState, Taken};
use crate::problem::{ItemError, Problem};
use crate::{Attributes, deliver::Parcel};
use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use nightshift_model::{Anomaly, Timestamp};
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// Most alerts of one message; Alertmanager's own `max_alerts` is how to send fewer.
const ALERTS_MAX: usize = 10_000;

/// What one message held.
#[derive(Debug, Default)]
struct Message {
    alerts: Vec<(Attributes, Anomaly)>,
    errors: Vec<ItemError>,
    /// Alerts that Alertmanager left out of the message.
    truncated: u64,
}

/// `POST /api/v1/alertmanager`.
pub fn router(state: DoorState) -> Router {
    state.health.healthy("waiting for the first request");
    Router::new().route("/api/v1/alertmanager", post(receive)).with_state(state)
}

async fn receive(State(state): State<DoorState>, body: Body) -> Response {
    let body = match state.gate.read(body, state.limits.body_bytes_max).await {
        Ok(body) => body,
        Err(error) => {
            state.count(error.reason(), 1);
            return Problem::from(error).into_response();
        }
    };
    let message = match read(&body, &state.name, state.clock.now()) {
        Ok(message) => message,
        Err(why) => {
            state.count("bad_message", 1);
            state.health.degraded(format!("the last message could not be read: {why}"));
            return Problem::new(StatusCode::BAD_REQUEST, why).into_response();
        }
    };
    let mut parcel = Parcel { alerts: message.alerts, ..Parcel::default() };
    let taken = match state.hand_in(&mut parcel).await {
        Ok(accepted) => Taken::new(accepted, 0, message.errors),
        Err(problem) => return problem.into_response(),
    };
    if message.truncated > 0 {
        // Alertmanager has them; they come when it groups anew or is asked.
        state.count("truncated_by_sender", message.truncated);
        let note = format!(
            "{} alerts taken; the sender left {} out: raise max_alerts there",
            taken.accepted, message.truncated
        );
        state.health.degraded(note);
        return taken.with_note(format!("{} alerts were left out by the sender", message.truncated)).into_response();
    }
    state.report(&taken, "alerts");
    taken.into_response()
}

/// Reads a message. Alerts that cannot be read are listed; the others are taken.
///
/// # Errors
/// It is no message of version 4.
fn read(body: &[u8], source: &str, now: Timestamp) -> Result<Message, String> {
    const EXPECTED: &str = "expected Alertmanager's webhook message, version 4: {\"version\":\"4\",\"alerts\":[…]}";
    let root: Map<String, Value> = serde_json::from_slice(body).map_err(|e| format!("{EXPECTED}; {e}"))?;
    match root.get("version").and_then(Value::as_str) {
        Some("4") => {}
        _ => return Err(format!("{EXPECTED}; `version` is {}", root.get("version").unwrap_or(&Value::Null))),
    }
    let Some(Value::Array(alerts)) = root.get("alerts") else { return Err(format!("{EXPECTED}; `alerts` is no list")) };
    if alerts.len() > ALERTS_MAX {
        return Err(format!("a message has at most {ALERTS_MAX} alerts, this one {}; set max_alerts", alerts.len()));
    }
    let group = root.get("groupKey").and_then(Value::as_str).unwrap_or("");
    let mut message =
        Message { truncated: root.get("truncatedAlerts").and_then(Value::as_u64).unwrap_or(0), ..Message::default() };
    for (index, value) in alerts.iter().enumerate() {
        match alert(value, group) {
            Ok(alert) => message.alerts.push(alert.into_anomaly(source, now)),
            Err(detail) => message.errors.push(ItemError { index, detail }),
        }
    }
    Ok(message)
}

fn alert(value: &Value, group: &str) -> Result<Alert, String> {
    let object = value.as_object().ok_or("an alert must be an object")?;
    let text = |name: &str| object.get(name).and_then(Value::as_str);
    let texts = |name: &str| match object.get(name) {
        None | Some(Value::Null) => Ok(BTreeMap::new()),
        Some(Value::Object(map)) if map.values().all(Value::is_string) => Ok(flat(map)),
        Some(_) => Err(format!("`{name}` must be an object of texts")),
    };
    let time = |name: &str| match text(name) {
        // Go's zero time: not known.
        None | Some("" | "0001-01-01T00:00:00Z") => Ok(None),
        Some(t) => Timestamp::parse_rfc3339(t).map(Some).map_err(|e| format!("`{name}`: {e}")),
    };
    let mut labels = texts("labels")?;
    let annotations = texts("annotations")?;
    let name = labels.remove("alertname").filter(|n| !n.is_empty()).ok_or("`labels.alertname` is missing")?;
    let starts_at = time("startsAt")?.ok_or("`startsAt` is missing")?;
    let ends_at = match text("status") {
        Some("firing") => None,
        // An end before the beginning is a sender's clock; the alert is over all the same.
        Some("resolved") => Some(time("endsAt")?.unwrap_or(starts_at).max(starts_at)),
        other => return Err(format!("`status` is {other:?}, not firing or resolved")),
    };
    let annotation = |names: &[&str]| names.iter().find_map(|n| annotations.get(*n)).cloned().unwrap_or_default();
    let severity = labels.get("severity").map_or("", String::as_str);
    let mut sample = annotation(&["description", "message", "runbook_url"]);
    if let Some(url) = text("generatorURL").filter(|u| !u.is_empty() && u.len() < 500) {
        sample = format!("{sample}\n{url}").trim().to_owned();
    }
    if !group.is_empty() && group.len() < 300 {
        sample = format!("{sample}\ngroup {group}").trim().to_owned();
    }
    Ok(Alert {
        resource: resource_of(&labels),
        starts_at,
        ends_at,
        score: score_of(severity).unwrap_or(SCORE_UNKNOWN),
        summary: annotation(&["summary", "title", "description", "message"]),
        sample,
        features: BTreeMap::new(),
        fault: annotations.get("fault_class").and_then(|f| f.parse().ok()),
        name,
        labels,
    })
}

/// Labels, and under OpenTelemetry's names those that name what is ill.
fn resource_of(labels: &BTreeMap<String, String>) -> Attributes {
    let mut resource = labels.clone();
    for (label, name) in [
        ("service", "service.name"),
        ("service_name", "service.name"),
        ("namespace", "k8s.namespace.name"),
        ("pod", "k8s.pod.name"),
        ("deployment", "k8s.deployment.name"),
        ("statefulset", "k8s.statefulset.name"),
        ("daemonset", "k8s.daemonset.name"),
        ("node", "k8s.node.name"),
        ("cluster", "k8s.cluster.name"),
        ("host", "host.name"),
        ("hostname", "host.name"),
        ("nodename", "host.name"),
        ("environment", "deployment.environment.name"),
        ("env", "deployment.environment.name"),
        ("version", "service.version"),
        ("team", "service.owner"),
        ("owner", "service.owner"),
    ] {
        if let Some(value) = labels.get(label).filter(|v| !v.is_empty()) {
            resource.entry(name.to_owned()).or_insert_with(|| value.clone());
        }
    }
    resource
}

/// For the fuzzer: any bytes are a message of bounded alerts, or a reason.
#[doc(hidden)]
pub fn fuzz_alertmanager(bytes: &[u8]) {
    match read(bytes, "fuzz", Timestamp::from_secs(1_767_225_600)) {
        Ok(message) => {
            for (_, alert) in message.alerts {
                assert!((0.0..=1.0).contains(&alert.score) && alert.onset <= alert.last_seen);
                assert!(alert.explanation.sample.len() <= 2 << 10, "a sample is bounded");
            }
        }
        Err(why) => assert!(!why.is_empty()),
    }
}

#[cfg(test)]
mod tests;
