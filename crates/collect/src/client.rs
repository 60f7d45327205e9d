//! HTTP towards servers that we ask: bounded answers, and secrets that stay where they belong.

use crate::SourceError;
use crate::deliver::fatal;
use futures::StreamExt;
use nightshift_config::SecretString;
use reqwest::{RequestBuilder, Response, StatusCode};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// How to say who we are.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Credentials {
    /// Not at all.
    #[default]
    None,
    /// With a token: `Authorization: Bearer …`.
    Bearer {
        /// The token.
        token: SecretString,
    },
    /// With user and password: `Authorization: Basic …`.
    Basic {
        /// User.
        user: String,
        /// Password.
        password: SecretString,
    },
}

impl Credentials {
    /// Whether they can be sent at all.
    ///
    /// # Errors
    /// What cannot be; fatal, and without any secret.
    pub(crate) fn check(&self) -> Result<(), SourceError> {
        match self {
            // RFC 6750 §2.1 allows less; whatever a header can carry is left to the server.
            Self::Bearer { token } if !token.expose().bytes().all(|b| b.is_ascii_graphic()) => {
                Err(fatal("use the bearer token: it has blanks or characters beyond ASCII, check what it is read from"))
            }
            // RFC 7617 §2: the first colon ends the user.
            Self::Basic { user, .. } if user.contains(':') => {
                Err(fatal("use the user of the credentials: it has a colon, which ends a user's name"))
            }
            _ => Ok(()),
        }
    }
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
            Credentials::Bearer { token } => request.bearer_auth(token.expose()),
            Credentials::Basic { user, password } => request.basic_auth(user, Some(password.expose())),
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
            Credentials::Bearer { token: "hunter2".into() },
            Credentials::Basic { user: "u".into(), password: "hunter2".into() },
        ];
        assert!(!format!("{all:?}").contains("hunter2"));
        let client = Client::new(all[0].clone(), Duration::from_secs(1)).unwrap();
        assert!(!format!("{client:?}").contains("hunter2"));
    }

    #[test]
    fn credentials_that_no_header_carries_are_refused() {
        let bearer = |token: &str| Credentials::Bearer { token: token.into() };
        let basic = |user: &str| Credentials::Basic { user: user.into(), password: "hünter 2\n".into() };
        for good in [Credentials::None, bearer("hunter2.-_~+/="), basic("user")] {
            assert!(good.check().is_ok(), "{good:?}");
        }
        for (bad, want) in [
            (bearer("hunter2\nX-Admin: 1"), "the bearer token"),
            (bearer("hunter 2"), "the bearer token"),
            (bearer("hünter2"), "the bearer token"),
            (basic("a:b"), "a colon"),
        ] {
            let told = bad.check().unwrap_err().to_string();
            assert!(told.contains(want) && !told.contains("nter"), "{told}");
        }
    }
}
