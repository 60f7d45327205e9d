//! Letters as signed JSON to a URL. The form is documented in `docs/notify.md`.

use crate::letter::Letter;
use crate::notifier::{Attempt, Notifier, SendError, Wants};
use crate::sign::{DELIVERY_HEADER, SIGNATURE_HEADER, sign};
use async_trait::async_trait;
use nightshift_config::SecretString;
use nightshift_model::Timestamp;
use reqwest::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use reqwest::{StatusCode, Url};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Version of what is posted. Fields are added, never renamed.
pub const WEBHOOK_VERSION: u32 = 1;

/// JSON to a URL, signed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct WebhookConfig {
    /// Where it is posted to: `http` or `https`. Many receivers put a token into it, so it may be a reference.
    #[schemars(extend("format" = "uri"))]
    pub url: SecretString,
    /// What it is signed with (HMAC-SHA256); without one the message is not signed, and anybody could have sent it.
    #[serde(default)]
    pub secret: Option<SecretString>,
    /// Seconds that one try may take.
    #[serde(default = "timeout_secs")]
    #[schemars(range(min = 1, max = 120))]
    pub timeout_secs: u64,
    /// Which letters.
    #[serde(flatten)]
    pub wants: Wants,
}

const fn timeout_secs() -> u64 {
    10
}

/// What is posted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Message {
    /// [`WEBHOOK_VERSION`].
    pub version: u32,
    /// The same one again is the same letter: drop it.
    pub delivery: String,
    /// From 1.
    pub attempt: u32,
    /// When this try was made.
    pub sent_at: Timestamp,
    /// What is told.
    pub letter: Letter,
}

/// Posts letters.
pub struct Webhook {
    client: reqwest::Client,
    url: Url,
    secret: Option<SecretString>,
    timeout: Duration,
}

impl Webhook {
    /// Checks the URL and sets the client up.
    ///
    /// # Errors
    /// What is wrong, one line; never the URL itself.
    pub fn new(config: &WebhookConfig) -> Result<Self, String> {
        let url = Url::parse(config.url.expose()).map_err(|e| format!("read the webhook's url: {e}"))?;
        if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
            return Err("use the webhook's url: it must begin with http:// or https:// and name a host".into());
        }
        if config.secret.as_ref().is_some_and(|s| s.expose().is_empty()) {
            return Err("use the webhook's secret: it is empty, anybody could sign with it".into());
        }
        // Whoever comes first installs it; that it was installed before is no error.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::builder()
            .user_agent(concat!("nightshift/", env!("CARGO_PKG_VERSION")))
            // A redirect could carry what we say, and the token in the path, elsewhere.
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(|e| format!("set up the HTTP client: {}", e.without_url()))?;
        let timeout = Duration::from_secs(config.timeout_secs.clamp(1, 120));
        Ok(Self { client, url, secret: config.secret.clone(), timeout })
    }
}

/// The bytes that are posted.
///
/// # Errors
/// When the letter holds a number that JSON cannot.
pub(crate) fn body(attempt: Attempt<'_>, letter: &Letter) -> Result<Vec<u8>, serde_json::Error> {
    serde_json::to_vec(&Message {
        version: WEBHOOK_VERSION,
        delivery: attempt.delivery.into(),
        attempt: attempt.number,
        sent_at: attempt.at,
        letter: letter.clone(),
    })
}

/// Whether the same message may be taken another time.
fn may_pass(status: StatusCode) -> bool {
    status.is_server_error() || matches!(status.as_u16(), 408 | 425 | 429)
}

/// Seconds of a `Retry-After`; a date, or anything else, is nothing (the backoff is then ours).
fn retry_after(value: Option<&HeaderValue>) -> Option<u64> {
    value?.to_str().ok()?.trim().parse().ok()
}

#[async_trait]
impl Notifier for Webhook {
    fn kind(&self) -> &'static str {
        "webhook"
    }

    /// Scheme, host and port only: a path often is a secret.
    fn to(&self) -> String {
        self.url.origin().ascii_serialization()
    }

    async fn send(&self, attempt: Attempt<'_>, letter: &Letter) -> Result<Option<u16>, SendError> {
        let body = body(attempt, letter)
            .map_err(|e| SendError::Never { why: format!("write the letter as JSON: {e}"), status: None })?;
        let mut request = self
            .client
            .post(self.url.clone())
            .timeout(self.timeout)
            .header(CONTENT_TYPE, "application/json")
            .header(DELIVERY_HEADER, attempt.delivery);
        if let Some(secret) = &self.secret {
            let at = attempt.at.millis().div_euclid(1_000);
            request = request.header(SIGNATURE_HEADER, sign(secret.expose().as_bytes(), at, &body));
        }
        let later = |why: String, status, retry_after_secs| SendError::Later { why, status, retry_after_secs };
        let response = request.body(body).send().await.map_err(|e| {
            let what = if e.is_timeout() {
                format!("no answer within {} s", self.timeout.as_secs())
            } else {
                // The innermost cause is the one that helps: "connection refused", "invalid peer certificate".
                let e = e.without_url();
                let mut cause: &dyn std::error::Error = &e;
                while let Some(next) = cause.source() {
                    cause = next;
                }
                cause.to_string()
            };
            later(format!("post to {}: {what}", self.to()), None, None)
        })?;
        // The body of the answer is not read: nothing in it could matter.
        let status = response.status();
        let code = Some(status.as_u16());
        if status.is_success() {
            return Ok(code);
        }
        let why = format!("post to {}: answered {}", self.to(), status.as_u16());
        if may_pass(status) {
            return Err(later(why, code, retry_after(response.headers().get(RETRY_AFTER))));
        }
        let hint =
            if status.is_redirection() { ", redirects are not followed: set the url to where it leads" } else { "" };
        Err(SendError::Never { why: format!("{why}{hint}"), status: code })
    }
}
