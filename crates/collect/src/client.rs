//! HTTP towards servers that we ask: bounded answers, and secrets that stay where they belong.

use futures::StreamExt;
use reqwest::{RequestBuilder, Response, StatusCode};
use std::time::Duration;

/// A secret, already resolved. Never printed, never in an error, never in a URL.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Keeps it.
    pub fn new(secret: impl Into<String>) -> Self {
        Self(secret.into())
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// How to say who we are.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Credentials {
    /// Not at all.
    #[default]
    None,
    /// `Authorization: Bearer …`.
    Bearer(Secret),
    /// `Authorization: Basic …`.
    Basic {
        /// User.
        user: String,
        /// Password.
        password: Secret,
    },
}

/// Why nothing came back.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// No client can be made.
    #[error("set up the HTTP client")]
    Setup(#[source] reqwest::Error),
    /// No connection, or it broke.
    #[error("connect")]
    Connect(#[source] reqwest::Error),
    /// Not in time.
    #[error("answer within {0} ms")]
    Timeout(u128),
    /// Not a success.
    #[error("status {0}")]
    Status(u16),
    /// Larger than is taken.
    #[error("answer has more than {limit_bytes} bytes")]
    TooLarge {
        /// What is taken.
        limit_bytes: usize,
    },
}

impl FetchError {
    /// Few, stable words.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Setup(_) => "setup",
            Self::Connect(_) => "connect",
            Self::Timeout(_) => "timeout",
            Self::Status(_) => "status",
            Self::TooLarge { .. } => "too_large",
        }
    }
}

/// A client that asks servers of the estate.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    inner: reqwest::Client,
    credentials: Credentials,
    timeout: Duration,
}

impl Client {
    /// `timeout`: for a whole exchange.
    pub(crate) fn new(credentials: Credentials, timeout: Duration) -> Result<Self, FetchError> {
        // Whoever comes first installs it; that it was installed before is no error.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let inner = reqwest::Client::builder()
            .user_agent(concat!("nightshift/", env!("CARGO_PKG_VERSION")))
            // Targets are reached directly, as Prometheus does: a proxy of the environment is for the internet.
            .no_proxy()
            // A redirect could carry credentials elsewhere.
            .redirect(reqwest::redirect::Policy::none())
            .pool_idle_timeout(Duration::from_secs(90))
            .build()
            .map_err(|e| FetchError::Setup(e.without_url()))?;
        Ok(Self { inner, credentials, timeout })
    }

    pub(crate) fn get(&self, url: &str) -> RequestBuilder {
        self.inner.get(url)
    }

    pub(crate) fn post(&self, url: &str) -> RequestBuilder {
        self.inner.post(url)
    }

    /// Asks, and hands the pieces of the answer to `take` until it says that this is enough (`false`). Gives the
    /// answer's content type and status; only those that `accept` takes have a body.
    pub(crate) async fn fetch(
        &self,
        request: RequestBuilder,
        limit_bytes: usize,
        accept: impl Fn(StatusCode) -> bool,
        begin: impl FnOnce(&str),
        mut take: impl FnMut(&[u8]) -> bool,
    ) -> Result<StatusCode, FetchError> {
        let request = match &self.credentials {
            Credentials::None => request,
            Credentials::Bearer(token) => request.bearer_auth(&token.0),
            Credentials::Basic { user, password } => request.basic_auth(user, Some(&password.0)),
        };
        let exchange = async {
            let response: Response = request.send().await.map_err(|e| FetchError::Connect(e.without_url()))?;
            let status = response.status();
            if !accept(status) {
                return Err(FetchError::Status(status.as_u16()));
            }
            if response.content_length().is_some_and(|n| n > limit_bytes as u64) {
                return Err(FetchError::TooLarge { limit_bytes });
            }
            let content_type = response.headers().get(reqwest::header::CONTENT_TYPE);
            begin(content_type.and_then(|v| v.to_str().ok()).unwrap_or(""));
            let mut pieces = response.bytes_stream();
            let mut len = 0;
            while let Some(piece) = pieces.next().await {
                let piece = piece.map_err(|e| FetchError::Connect(e.without_url()))?;
                // Counted as it comes out of gzip.
                len += piece.len();
                if len > limit_bytes {
                    return Err(FetchError::TooLarge { limit_bytes });
                }
                if !take(&piece) {
                    break;
                }
            }
            Ok(status)
        };
        tokio::time::timeout(self.timeout, exchange).await.map_err(|_| FetchError::Timeout(self.timeout.as_millis()))?
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_not_printed() {
        let all = [
            Credentials::Bearer(Secret::new("hunter2")),
            Credentials::Basic { user: "u".into(), password: Secret::new("hunter2") },
        ];
        assert!(!format!("{all:?}").contains("hunter2"));
        let client = Client::new(all[0].clone(), Duration::from_secs(1)).unwrap();
        assert!(!format!("{client:?}").contains("hunter2"));
    }
}
