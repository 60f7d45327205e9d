//! Errors of HTTP doors as `application/problem+json` (RFC 9457).

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

/// One item of a list that was not taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ItemError {
    /// Its place in the list, from 0.
    pub index: usize,
    /// What is wrong with it.
    pub detail: String,
}

/// An error, as a client reads it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// HTTP status.
    pub status: u16,
    /// What kind of error it is.
    pub title: String,
    /// What is wrong here, and what to do.
    pub detail: String,
    /// Which items of a list were not taken.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<ItemError>,
    #[serde(skip)]
    retry_after_secs: Option<u64>,
}

impl Problem {
    /// An error of this status, whose usual name is its title.
    pub fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self {
            status: status.as_u16(),
            title: status.canonical_reason().unwrap_or("Error").to_owned(),
            detail: detail.into(),
            errors: Vec::new(),
            retry_after_secs: None,
        }
    }

    /// With the items that were not taken.
    #[must_use]
    pub fn with_errors(self, errors: Vec<ItemError>) -> Self {
        Self { errors, ..self }
    }

    /// With the time after which it may be tried again.
    #[must_use]
    pub fn retry_after(self, wait: std::time::Duration) -> Self {
        // Whole seconds, and at least one: zero would be "at once".
        Self { retry_after_secs: Some(wait.as_secs_f64().ceil().max(1.0) as u64), ..self }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let body = serde_json::to_string(&self).unwrap_or_default();
        let mut response = (status, body).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if let Some(secs) = self.retry_after_secs {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(secs));
        }
        response
    }
}

impl From<crate::SinkError> for Problem {
    fn from(error: crate::SinkError) -> Self {
        match error {
            crate::SinkError::Busy { retry_after } => {
                Self::new(StatusCode::TOO_MANY_REQUESTS, "the bus is full, send it again later")
                    .retry_after(retry_after)
            }
            // The cause is for our log: it may name files and addresses.
            crate::SinkError::Bus(error) => {
                tracing::error!(%error, "failed to publish what a client sent");
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "the bus failed, send it again later")
                    .retry_after(std::time::Duration::from_secs(5))
            }
        }
    }
}

impl From<crate::http::BodyError> for Problem {
    fn from(error: crate::http::BodyError) -> Self {
        use crate::http::BodyError;
        let status = match error {
            BodyError::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            BodyError::Slow => StatusCode::REQUEST_TIMEOUT,
            BodyError::Broken => StatusCode::BAD_REQUEST,
            BodyError::Busy { .. } => StatusCode::TOO_MANY_REQUESTS,
        };
        let problem = Self::new(status, error.to_string());
        match error {
            BodyError::Busy { retry_after } => problem.retry_after(retry_after),
            _ => problem,
        }
    }
}
