//! What changes something: what people do to incidents, the kill switch; and test injection.

use crate::ApiError;
use crate::auth::Caller;
use crate::params::Params;
use crate::read::data;
use crate::seams::{ApiState, InjectError};
use crate::shown::shown;
use crate::verbs::{NOTE_CHARS_MAX, Verb, Words, carry_out, refused};
use axum::Extension;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{Path, State};
use axum::http::{StatusCode, Uri};
use axum::response::Response;
use axum::routing::{MethodRouter, post};
use nightshift_model::KillSwitch;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Injection {
    source: Option<String>,
    signal: Option<String>,
}

/// A JSON body, or its default when there is none.
pub(crate) fn body<T: DeserializeOwned + Default>(
    bytes: Result<Bytes, BytesRejection>,
    form: &str,
) -> Result<T, ApiError> {
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
    serde_json::from_slice(&bytes).map_err(|e| unreadable(&e.to_string(), form))
}

fn unreadable(why: &str, form: &str) -> ApiError {
    ApiError::bad_request(format!("the body cannot be read: {why}"), format!("send {form}"))
}

/// `POST` of one verb, `/api/v1/incidents/{id}/…`.
pub(crate) fn on_incident(verb: Verb) -> MethodRouter<ApiState> {
    post(
        move |State(state): State<ApiState>,
              Extension(caller): Extension<Caller>,
              Path(id): Path<String>,
              bytes: Result<Bytes, BytesRejection>| async move {
            let said: Map<String, Value> = body(bytes, verb.form())?;
            let words = Words::from_json(verb, said).map_err(|why| unreadable(&why, verb.form()))?;
            let incident = carry_out(&state, verb, &id, &caller, &words).await?;
            Ok::<_, ApiError>(data(shown(&incident, state.clock.now())))
        },
    )
}

/// What turns the kill switch.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Turn {
    /// Not said: nothing is guessed.
    pub(crate) on: Option<bool>,
    pub(crate) why: String,
}

/// Turns the kill switch in the name of `caller`.
///
/// # Errors
/// 400 when it is not said which way or the reason is too long, 409 and 503 as the service says.
pub(crate) async fn turn_kill_switch(state: &ApiState, caller: &Caller, turn: Turn) -> Result<KillSwitch, ApiError> {
    let form = "send {\"on\": true, \"why\": \"…\"}";
    let on = turn.on.ok_or_else(|| ApiError::bad_request("on: which way?", form))?;
    let why = turn.why.trim();
    let n = why.chars().count();
    if n > NOTE_CHARS_MAX {
        let detail = format!("the reason has {n} characters, at most {NOTE_CHARS_MAX} are kept");
        return Err(ApiError::bad_request(detail, form));
    }
    let to = KillSwitch { on, by: caller.name.clone(), why: why.to_owned(), at: state.clock.now() };
    state.automation.kill_switch.turn(to.clone()).await.map_err(refused)?;
    Ok(to)
}

/// `POST /api/v1/kill-switch`.
pub(crate) async fn kill_switch(
    State(state): State<ApiState>,
    Extension(caller): Extension<Caller>,
    bytes: Result<Bytes, BytesRejection>,
) -> Result<Response, ApiError> {
    let turn: Turn = body(bytes, "{\"on\": true, \"why\": \"…\"}")?;
    let now = turn_kill_switch(&state, &caller, turn).await?;
    Ok(data(json!(now)))
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
    let form = "{\"source\": \"production-api\", \"signal\": \"cpu_usage\"}, or no body";
    let asked: Injection = body(bytes, form)?;
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
