//! The stream of events over WebSocket: what happens to incidents, anomalies and health, as it happens.
//!
//! All listeners share one ring of recent events. A listener that is slower than the world falls out of it; it is
//! told how many events it missed and goes on with what is there. Nobody waits for it, and it costs no memory.

use crate::ApiError;
use crate::seams::ApiState;
use axum::extract::State;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::ws::{Message, Utf8Bytes, WebSocket, WebSocketUpgrade};
use axum::response::Response;
use nightshift_health::Component;
use nightshift_model::{Anomaly, Incident, Timestamp};
use serde_json::{Value, json};
use std::time::Duration;
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;

/// A listener that takes nothing for this long is gone.
const SEND_WITHIN: Duration = Duration::from_secs(30);

/// How often a quiet connection is tried.
const PING_EVERY: Duration = Duration::from_secs(20);

/// Longest message that a listener may send; it has nothing to say.
const RECEIVED_BYTES_MAX: usize = 4 << 10;

/// One event, written once for all listeners.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamEvent(Utf8Bytes);

impl StreamEvent {
    /// Something happened to an incident; `action` is that of its timeline: `created`, `causes_ranked` …
    pub fn incident(action: &str, at: Timestamp, incident: &Incident) -> Self {
        Self::write("incident", action, at, crate::shown::shown(incident, at))
    }

    /// An anomaly began, got worse or ended.
    pub fn anomaly(anomaly: &Anomaly) -> Self {
        let action = json!(anomaly.phase);
        Self::write("anomaly", action.as_str().unwrap_or_default(), anomaly.last_seen, json!(anomaly))
    }

    /// A component's health changed.
    pub fn health(component: &Component) -> Self {
        Self::write("health", "changed", component.last_report, json!(component))
    }

    fn write(kind: &str, action: &str, at: Timestamp, data: Value) -> Self {
        Self(json!({ "type": kind, "action": action, "at": at, "data": data }).to_string().into())
    }

    /// As it is sent.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

/// `GET /api/v1/ws/events`.
pub(crate) async fn upgrade(
    State(state): State<ApiState>,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response, ApiError> {
    let upgrade = upgrade.map_err(|rejection| {
        ApiError::bad_request(
            format!("this is a WebSocket: {}", rejection.body_text()),
            "connect with ws://, for example websocat",
        )
    })?;
    let place = state.shared().stream_places.clone().try_acquire_owned().map_err(|_| {
        let detail = format!("there are {} listeners already", state.config.stream_clients_max);
        ApiError::unavailable(detail, "close one, or raise api.stream_clients_max")
    })?;
    // Subscribed before the answer: what happens after it is not missed.
    let events = state.events.subscribe();
    let hello = json!({ "type": "hello", "at": state.clock.now(), "version": state.status.status().version });
    Ok(upgrade
        .max_message_size(RECEIVED_BYTES_MAX)
        .max_frame_size(RECEIVED_BYTES_MAX)
        .on_upgrade(move |socket| run(socket, events, hello.to_string().into(), place)))
}

async fn run(mut socket: WebSocket, mut events: Receiver<StreamEvent>, hello: Utf8Bytes, _place: OwnedSemaphorePermit) {
    if !send(&mut socket, Message::Text(hello)).await {
        return;
    }
    let mut ping = tokio::time::interval_at(tokio::time::Instant::now() + PING_EVERY, PING_EVERY);
    loop {
        let message = tokio::select! {
            event = events.recv() => match event {
                Ok(event) => Message::Text(event.0),
                Err(RecvError::Lagged(missed)) => {
                    Message::Text(json!({ "type": "lagged", "missed": missed }).to_string().into())
                }
                // We are going down.
                Err(RecvError::Closed) => {
                    send(&mut socket, Message::Close(None)).await;
                    return;
                }
            },
            received = socket.recv() => match received {
                // Pongs and whatever it says are taken and forgotten.
                Some(Ok(Message::Close(_)) | Err(_)) | None => return,
                Some(Ok(_)) => continue,
            },
            _ = ping.tick() => Message::Ping(axum::body::Bytes::new()),
        };
        if !send(&mut socket, message).await {
            return;
        }
    }
}

/// Whether it was taken in time.
async fn send(socket: &mut WebSocket, message: Message) -> bool {
    matches!(tokio::time::timeout(SEND_WITHIN, socket.send(message)).await, Ok(Ok(())))
}
