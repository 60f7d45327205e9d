//! What changes something: acknowledge, resolve; and test injection.

use crate::ApiError;
use crate::auth::Caller;
use crate::incidents::find;
use crate::params::Params;
use crate::read::data;
use crate::seams::{ApiState, CommandError, InjectError};
use axum::Extension;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{Path, State};
use axum::http::{StatusCode, Uri};
use axum::response::Response;
use nightshift_model::Incident;
use serde::Deserialize;
use serde::de::DeserializeOwned;

/// Longest note, characters.
pub(crate) const NOTE_CHARS_MAX: usize = 2_000;

/// What a person does to an incident.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Act {
    Acknowledge,
    Resolve,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Note {
    note: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Injection {
    source: Option<String>,
    signal: Option<String>,
}

/// A JSON body, or its default when there is none.
fn body<T: DeserializeOwned + Default>(bytes: Result<Bytes, BytesRejection>, form: &str) -> Result<T, ApiError> {
    let bytes = bytes.map_err(|rejection| match rejection.status() {
        StatusCode::PAYLOAD_TOO_LARGE => ApiError::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "too_large",
            "the body is too large",
            "api.body_bytes_max says how large it may be",
        ),
        _ => ApiError::bad_request("the body did not come whole", "send it again"),
    })?;
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Ok(T::default());
    }
    serde_json::from_slice(&bytes)
        .map_err(|e| ApiError::bad_request(format!("the body cannot be read: {e}"), format!("send {form}, or no body")))
}

/// Carries out `act` in the name of `caller`.
///
/// # Errors
/// 404, 409 when the incident is not in a state for it, 503 when it cannot be done now.
pub(crate) async fn carry_out(
    state: &ApiState,
    act: Act,
    id: &str,
    caller: &Caller,
    note: &str,
) -> Result<Incident, ApiError> {
    let n = note.chars().count();
    if n > NOTE_CHARS_MAX {
        let detail = format!("the note has {n} characters, at most {NOTE_CHARS_MAX} are kept");
        return Err(ApiError::bad_request(detail, "write less, and where the rest is"));
    }
    let incident = find(state, id).await?;
    let done = match act {
        Act::Acknowledge => state.commands.acknowledge(incident.id, &caller.name, note).await,
        Act::Resolve => state.commands.resolve(incident.id, &caller.name, note).await,
    };
    done.map_err(|error| match error {
        CommandError::NotFound => ApiError::not_found("there is no such incident", "/api/v1/incidents lists all"),
        CommandError::Conflict(why) => {
            ApiError::new(StatusCode::CONFLICT, "conflict", why, "look at the incident as it is now")
        }
        CommandError::Unavailable(why) => ApiError::unavailable(why, "try again; nothing was changed"),
    })
}

const NOTE_FORM: &str = "{\"note\": \"…\"}";

/// `POST /api/v1/incidents/{id}/ack`.
pub(crate) async fn acknowledge(
    State(state): State<ApiState>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
    bytes: Result<Bytes, BytesRejection>,
) -> Result<Response, ApiError> {
    let note: Note = body(bytes, NOTE_FORM)?;
    carry_out(&state, Act::Acknowledge, &id, &caller, &note.note).await.map(data)
}

/// `POST /api/v1/incidents/{id}/resolve`.
pub(crate) async fn resolve(
    State(state): State<ApiState>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
    bytes: Result<Bytes, BytesRejection>,
) -> Result<Response, ApiError> {
    let note: Note = body(bytes, NOTE_FORM)?;
    carry_out(&state, Act::Resolve, &id, &caller, &note.note).await.map(data)
}

/// `POST /api/v1/test/inject?mode=…`.
pub(crate) async fn inject(
    State(state): State<ApiState>,
    uri: Uri,
    bytes: Result<Bytes, BytesRejection>,
) -> Result<Response, ApiError> {
    let params = Params::read(&uri, &["mode"])?;
    let modes = state.injector.modes();
    let mode = params.text("mode").unwrap_or("burst");
    if !modes.contains(&mode) {
        let detail = format!("mode: `{}` is not one of {}", crate::params::short(mode), modes.join(", "));
        return Err(ApiError::bad_request(detail, "write ?mode=burst"));
    }
    let asked: Injection = body(bytes, "{\"source\": \"production-api\", \"signal\": \"cpu_usage\"}")?;
    let source = asked.source.as_deref().unwrap_or("production-api");
    let signal = asked.signal.as_deref().unwrap_or("cpu_usage");
    match state.injector.inject(mode, source, signal).await {
        Ok(answer) => Ok(data(answer)),
        Err(InjectError::Bad(why)) => Err(ApiError::bad_request(why, "both may be left out")),
        Err(InjectError::Failed(why)) => {
            Err(ApiError::unavailable(why, "/api/v1/health says which component does not do its work"))
        }
    }
}
