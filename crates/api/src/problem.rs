//! Errors as RFC 9457 problems, each with what to do about it.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use nightshift_store::StoreError;
use serde_json::json;

/// An answer that says why there is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiError {
    /// HTTP status.
    pub status: StatusCode,
    /// Stable word: the last part of the problem's `type`.
    pub kind: &'static str,
    /// What is wrong, one line.
    pub detail: String,
    /// What to do about it, one line.
    pub hint: String,
    /// Seconds after which to come back, for 429 and 503.
    pub retry_after_secs: Option<u32>,
}

impl ApiError {
    /// An error of this status.
    pub fn new(status: StatusCode, kind: &'static str, detail: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { status, kind, detail: detail.into(), hint: hint.into(), retry_after_secs: None }
    }

    /// 400: the request says something that cannot be.
    pub fn bad_request(detail: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad_request", detail, hint)
    }

    /// 404.
    pub fn not_found(detail: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", detail, hint)
    }

    /// 503: not now.
    pub fn unavailable(detail: impl Into<String>, hint: impl Into<String>) -> Self {
        let error = Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", detail, hint);
        Self { retry_after_secs: Some(2), ..error }
    }

    /// 500: our fault. The cause is in the log, not in the answer.
    pub fn internal() -> Self {
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "internal",
            "something went wrong here that should not have",
            "the server's log says what; please report it",
        )
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        let transient = error.is_transient();
        let cause = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
        tracing::warn!(%error, cause, "failed to read the store");
        if transient {
            Self::unavailable("the store does not answer", "try again; /api/v1/health says how it does")
        } else {
            Self::internal()
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let body = json!({
            "type": format!("urn:nightshift:problem:{}", self.kind),
            "title": self.status.canonical_reason().unwrap_or("Error"),
            "status": self.status.as_u16(),
            "detail": self.detail,
            "hint": self.hint,
        });
        let mut response = (self.status, body.to_string()).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"nightshift\""));
        }
        if let Some(secs) = self.retry_after_secs {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(secs));
        }
        // The pages show errors their own way; they find this one here.
        response.extensions_mut().insert(self);
        response
    }
}
