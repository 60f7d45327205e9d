//! The pages: incidents and one incident, plain HTML that works without a script, without a network but this server,
//! in light and dark, at 3 a.m.
//!
//! Every value goes through the templates' escaping; nothing is marked as safe but our own style and script, and the
//! HTML that [`crate::markdown`] made of a postmortem. Style and script stand in the page and
//! are allowed by their hash, so that nothing else can run.

mod plan;
mod view;

use crate::ApiError;
use crate::act::{Turn, turn_kill_switch};
use crate::auth::{COOKIE, identify, permit};
use crate::incidents::{FILTERS, filter, find};
use crate::params::Params;
use crate::seams::ApiState;
use crate::shown::Story;
use crate::verbs::{Verb, Words, carry_out};
use axum::Form;
use axum::extract::rejection::FormRejection;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderValue, StatusCode, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::{MethodRouter, post};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use minijinja::value::{Serde, Value};
use minijinja::{AutoEscape, Environment, UndefinedBehavior};
use nightshift_store::Role;
use serde::Deserialize;
use serde_json::json;
use sha2::{Digest, Sha256};

const STYLE: &str = include_str!("templates/style.css");
const SCRIPT: &str = include_str!("templates/refresh.js");

/// Incidents on a page.
const ROWS: u64 = 50;

/// Deliveries on the page of the guard.
const DELIVERIES: usize = 20;

/// Templates, and the policy that allows what stands in them.
pub(crate) struct Pages {
    templates: Environment<'static>,
    policy: HeaderValue,
}

impl Pages {
    pub(crate) fn new() -> Self {
        let mut templates = Environment::new();
        // Whatever a template is called, and whoever adds one: all of them make HTML.
        templates.set_auto_escape_callback(|_| AutoEscape::Html);
        // A name with a slip in it is found by the tests, not read as nothing.
        templates.set_undefined_behavior(UndefinedBehavior::Strict);
        for (name, source) in [
            ("base", include_str!("templates/base.html")),
            ("incidents", include_str!("templates/incidents.html")),
            ("incident", include_str!("templates/incident.html")),
            ("plan", include_str!("templates/plan.html")),
            ("ask", include_str!("templates/ask.html")),
            ("forms", include_str!("templates/forms.html")),
            ("guard", include_str!("templates/guard.html")),
            ("postmortem", include_str!("templates/postmortem.html")),
            ("error", include_str!("templates/error.html")),
        ] {
            templates.add_template(name, source).expect("templates are part of the program and compile in its tests");
        }
        let hash = |text: &str| STANDARD.encode(Sha256::digest(text.as_bytes()));
        let policy = format!(
            "default-src 'none'; style-src 'sha256-{}'; script-src 'sha256-{}'; connect-src 'self'; img-src data:; \
             form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
            hash(STYLE),
            hash(SCRIPT)
        );
        let policy = policy.parse().expect("base64 and the words around it are fit for a header");
        Self { templates, policy }
    }

    fn render(&self, template: &str, status: StatusCode, context: &serde_json::Value) -> Response {
        let rendered = self.templates.get_template(template).and_then(|t| t.render(Value::from(Serde(context))));
        let html = match rendered {
            Ok(html) => html,
            Err(error) => {
                tracing::error!(%error, template, "failed to render a page");
                return ApiError::internal().into_response();
            }
        };
        let headers = [
            (header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8")),
            (header::CONTENT_SECURITY_POLICY, self.policy.clone()),
        ];
        (status, headers, html).into_response()
    }
}

fn render(state: &ApiState, template: &str, status: StatusCode, mut context: serde_json::Value) -> Response {
    context["style"] = json!(STYLE);
    context["script"] = json!(SCRIPT);
    context["health"] = view::health(&state.health);
    context["kill"] = plan::kill_switch(state, state.clock.now());
    context["dry_run"] = json!(state.automation.guard.view(state.clock.now()).dry_run);
    context["version"] = json!(state.status.status().version);
    state.shared().pages.render(template, status, &context)
}

/// `GET /`.
pub(crate) async fn list(State(state): State<ApiState>, uri: Uri) -> Result<Response, ApiError> {
    let params = Params::read(&uri, &FILTERS)?;
    let now = state.clock.now();
    let mut asked = filter(&params, now)?;
    // What is over is not what one comes for, unless one says so.
    if params.text("status").is_none() {
        asked.status = view::open_statuses();
    }
    let limit = params.number("limit", ROWS, 1, crate::read::ROWS_MAX)? as usize;
    asked.limit = limit + 1;
    let mut incidents = state.store.incidents(&state.tenant, &asked).await?;
    let more = incidents.len() > limit;
    incidents.truncate(limit);
    let older = incidents.last().filter(|_| more).map(|i| format!("/?{}cursor={}", params.without("cursor"), i.number));
    let filtered = ["status", "severity", "entity", "since", "until", "text"].iter().any(|n| params.text(n).is_some());
    // The worst first, the newest of them first: the one to look at is at the top.
    incidents.sort_by_key(|i| std::cmp::Reverse((i.status.is_open(), i.severity, i.number)));
    let rows: Vec<_> = incidents.iter().map(|i| view::row(i, now)).collect();
    let context = json!({
        "page": view::list_title(&incidents),
        "counts": view::counts(&incidents),
        "rows": rows,
        "older": older,
        "filtered": filtered,
        "first_page": params.text("cursor").is_none(),
        "asked": {
            "status": params.text("status").unwrap_or("open"),
            "severity": params.text("severity").unwrap_or_default(),
            "entity": params.text("entity").unwrap_or_default(),
            "text": params.text("text").unwrap_or_default(),
            "synthetic": params.flag("synthetic")?,
        },
        "with_tests": format!("/?{}synthetic=true", params.without("synthetic")),
        "choices": view::choices(),
        "watched": view::watched(&state),
    });
    Ok(render(&state, "incidents", StatusCode::OK, context))
}

/// `GET /incidents/{id}`.
pub(crate) async fn one(State(state): State<ApiState>, Path(id): Path<String>) -> Result<Response, ApiError> {
    let incident = find(&state, &id).await?;
    let story = Story::of(&state, &incident).await?;
    let context = json!({
        "page": format!("{} {}", incident.short_id(), incident.title),
        "i": view::incident(&incident, &story, state.clock.now()),
        "faults": view::faults(),
    });
    Ok(render(&state, "incident", StatusCode::OK, context))
}

/// `GET /incidents/{id}/postmortem`.
pub(crate) async fn postmortem(State(state): State<ApiState>, Path(id): Path<String>) -> Result<Response, ApiError> {
    let incident = find(&state, &id).await?;
    let made = crate::story::postmortem_of(&state, &incident).await?;
    let context = json!({
        "page": format!("Postmortem of {}", incident.short_id()),
        "id": incident.short_id(),
        "html": crate::markdown::to_html(&made.markdown),
    });
    Ok(render(&state, "postmortem", StatusCode::OK, context))
}

/// `GET /guard`: the kill switch, what the guard holds, playbooks and policies.
pub(crate) async fn guard(State(state): State<ApiState>) -> Response {
    let now = state.clock.now();
    let told = state.automation.deliveries.deliveries(DELIVERIES).await;
    let context = json!({
        "page": "Automation",
        "g": plan::guard(&state.automation.guard.view(now), now),
        "c": plan::catalogue(&state),
        "deliveries": told.as_deref().map(|rows| plan::deliveries(rows, now)).unwrap_or_default(),
        "deliveries_error": told.as_ref().err(),
    });
    render(&state, "guard", StatusCode::OK, context)
}

/// What a form sends, the token among it.
type Fields = Vec<(String, String)>;

fn token(fields: &Fields) -> &str {
    fields.iter().find(|(name, _)| name == "token").map_or("", |(_, value)| value)
}

/// `POST` of one verb by a form, `/incidents/{id}/…`.
pub(crate) fn on_incident(verb: Verb) -> MethodRouter<ApiState> {
    post(
        move |State(state): State<ApiState>, Path(id): Path<String>, form: Result<Form<Fields>, FormRejection>| async move {
            let Form(fields) = form.map_err(|_| bad_form())?;
            let caller = caller(&state, token(&fields), verb.role()).await?;
            let words = Words::from_form(verb, fields);
            let incident = carry_out(&state, verb, &id, &caller, &words).await?;
            // Back to the page by a GET, so that reloading it does nothing again.
            Ok::<_, ApiError>(Redirect::to(&format!("/incidents/{}", incident.short_id())).into_response())
        },
    )
}

/// `POST /kill-switch` by a form.
pub(crate) async fn kill_switch(
    State(state): State<ApiState>,
    form: Result<Form<Fields>, FormRejection>,
) -> Result<Response, ApiError> {
    let Form(fields) = form.map_err(|_| bad_form())?;
    let caller = caller(&state, token(&fields), Role::Admin).await?;
    let get = |name: &str| fields.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str());
    let on = match get("on") {
        Some("true") => Some(true),
        Some("false") => Some(false),
        _ => None,
    };
    turn_kill_switch(&state, &caller, Turn { on, why: get("why").unwrap_or_default().to_owned() }).await?;
    Ok(Redirect::to("/guard").into_response())
}

fn bad_form() -> ApiError {
    ApiError::bad_request("the form cannot be read", "send token and note as application/x-www-form-urlencoded")
}

async fn caller(state: &ApiState, token: &str, needed: Role) -> Result<crate::auth::Caller, ApiError> {
    let token = token.trim();
    if token.is_empty() {
        return Err(ApiError::new(
            StatusCode::UNAUTHORIZED,
            "unauthorized",
            "what changes something needs a token",
            "the first start wrote one into the data folder, admin.token; `nightshift token create` makes others",
        ));
    }
    let caller = identify(state, token).await?;
    permit(&caller, needed)?;
    Ok(caller)
}

/// What the sign-in form sends.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(crate) struct SignIn {
    token: String,
    to: String,
}

/// `POST /sign-in`: keeps a token in the browser, which is good for reading only.
pub(crate) async fn sign_in(
    State(state): State<ApiState>,
    form: Result<Form<SignIn>, FormRejection>,
) -> Result<Response, ApiError> {
    let Form(form) = form.map_err(|_| bad_form())?;
    let token = form.token.trim();
    identify(&state, token).await?;
    // Only a path of ours: anything else would make this a way to send people elsewhere.
    let ours = (form.to == "/guard" || form.to.starts_with("/incidents/"))
        && form.to.bytes().all(|b| b.is_ascii_alphanumeric() || b"/-".contains(&b));
    let to = if ours { form.to.as_str() } else { "/" };
    let mut response = Redirect::to(to).into_response();
    let cookie = format!("{COOKIE}={token}; Path=/; HttpOnly; SameSite=Strict; Max-Age=43200");
    let cookie = cookie.parse().map_err(|_| bad_form())?;
    response.headers_mut().insert(header::SET_COOKIE, cookie);
    Ok(response)
}

/// Turns problems into pages for those who read pages: browsers, outside of `/api`.
pub(crate) async fn errors_as_pages(State(state): State<ApiState>, request: Request, next: Next) -> Response {
    let path = request.uri().path().to_owned();
    let reads = request.method().is_safe();
    let accepts = request.headers().get(header::ACCEPT).and_then(|v| v.to_str().ok());
    let is_page = !path.starts_with("/api/") && accepts.is_some_and(|a| a.contains("text/html"));
    let response = next.run(request).await;
    let Some(error) = response.extensions().get::<ApiError>().filter(|_| is_page).cloned() else {
        return response;
    };
    let incident = path.strip_prefix("/incidents/").and_then(|p| p.split('/').next());
    let sign_in = error.status == StatusCode::UNAUTHORIZED && reads;
    let context = json!({
        "page": error.status.canonical_reason().unwrap_or("Error"),
        "status": error.status.as_u16(),
        "detail": error.detail,
        "hint": error.hint,
        "sign_in": sign_in,
        "to": path,
        "back": incident.filter(|_| !sign_in).map(|id| format!("/incidents/{}", crate::params::encode(id))),
        "to_guard": path == "/kill-switch",
    });
    let mut page = render(&state, "error", error.status, context);
    if let Some(value) = response.headers().get(header::RETRY_AFTER) {
        page.headers_mut().insert(header::RETRY_AFTER, value.clone());
    }
    page
}
