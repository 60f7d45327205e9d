//! Routes and layers put together.

use crate::auth::{Exposure, Guard, guard};
use crate::problem::ApiError;
use crate::routes::{Access, routes};
use crate::seams::ApiState;
use crate::{origin, page, read};
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{HeaderValue, Method, StatusCode, Uri, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Router, http::HeaderMap};
use std::time::{Duration, Instant};
use tower_http::catch_panic::CatchPanicLayer;

/// Everything behind one listener. `ingest`: the routes of `collect` (`POST` on `/api/v1/write`,
/// `/api/v1/alertmanager` and `/api/v1/events`), which bring their own limits and know nothing of access.
pub fn router(state: ApiState, ingest: Router, exposure: Exposure) -> Router {
    let guarded = |access| middleware::from_fn_with_state(Guard { state: state.clone(), access, exposure }, guard);
    let mut own = Router::new();
    for route in routes() {
        own = own.route(route.path, route.handler.layer(guarded(route.access)));
    }
    let answer_within = Duration::from_secs(state.config.answer_timeout_secs.max(1));
    let own = own
        .layer(middleware::from_fn_with_state(answer_within, within))
        .layer(DefaultBodyLimit::max(state.config.body_bytes_max))
        .with_state(state.clone());
    own.merge(ingest.layer(guarded(Access::Ingest)))
        .fallback(not_found)
        .method_not_allowed_fallback(wrong_method)
        .layer(middleware::from_fn_with_state(state.clone(), page::errors_as_pages))
        .layer(middleware::from_fn_with_state((state, exposure), addressed_to_us))
        .layer(middleware::from_fn(safe_headers))
        .layer(CatchPanicLayer::custom(panicked))
        .layer(middleware::from_fn(access_log))
}

/// What the metrics port serves: `/metrics` and `/livez`, to whoever asks.
pub fn metrics_router(state: ApiState) -> Router {
    Router::new()
        .route("/metrics", get(read::metrics))
        .route("/livez", get(read::livez))
        .with_state(state)
        .fallback(not_found)
        .method_not_allowed_fallback(wrong_method)
        .layer(middleware::from_fn(safe_headers))
        .layer(CatchPanicLayer::custom(panicked))
}

async fn not_found(uri: Uri) -> ApiError {
    let path = crate::params::short(uri.path());
    ApiError::not_found(format!("there is nothing at {path}"), "/api/openapi.json has every path")
}

async fn wrong_method(method: Method, uri: Uri) -> ApiError {
    ApiError::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "method_not_allowed",
        format!("{method} cannot be done at {}", crate::params::short(uri.path())),
        "the Allow header has what can; /api/openapi.json has every path",
    )
}

fn panicked(cause: Box<dyn std::any::Any + Send + 'static>) -> Response {
    let text = cause.downcast_ref::<String>().map(String::as_str).or(cause.downcast_ref::<&str>().copied());
    tracing::error!(cause = text.unwrap_or("unknown"), "failed to answer: the handler panicked");
    ApiError::internal().into_response()
}

async fn within(State(limit): State<Duration>, request: Request, next: Next) -> Response {
    match tokio::time::timeout(limit, next.run(request)).await {
        Ok(response) => response,
        Err(_) => ApiError::unavailable(
            format!("there was no answer within {} s", limit.as_secs()),
            "ask for less at once, or later",
        )
        .into_response(),
    }
}

async fn addressed_to_us(
    State((state, exposure)): State<(ApiState, Exposure)>,
    request: Request,
    next: Next,
) -> Response {
    let loopback = exposure == Exposure::Loopback;
    match origin::check(request.method(), request.uri(), request.headers(), loopback, &state.config.hosts) {
        Ok(()) => next.run(request).await,
        Err(error) => error.into_response(),
    }
}

/// What browsers are told, unless an answer says otherwise itself.
async fn safe_headers(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let headers: &mut HeaderMap = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'none'"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        // Not `no-referrer`: with that browsers send `Origin: null` with our own forms.
        (header::REFERRER_POLICY, "same-origin"),
        (header::CACHE_CONTROL, "no-store"),
    ] {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    }
    response
}

/// One line a request at debug level: no query, no header, no body, as those may hold what is nobody's business.
async fn access_log(request: Request, next: Next) -> Response {
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let begun = Instant::now();
    let response = next.run(request).await;
    let ms = begun.elapsed().as_millis();
    tracing::debug!(%method, path, status = response.status().as_u16(), ms, "answered");
    response
}
