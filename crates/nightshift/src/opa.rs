//! The client of an Open Policy Agent server. It is asked with the document that every policy is given; whatever is not
//! an answer as agreed comes back as [`ExternalAnswer::Failed`], which denies.

use nightshift_config::SecretString;
use nightshift_guard::{ANSWER_BYTES_MAX, ExternalAnswer, OpaConfig};
use reqwest::{StatusCode, Url};
use serde_json::{Value, json};
use std::time::Duration;

/// Asks one document of one server.
pub struct OpaClient {
    http: reqwest::Client,
    url: Url,
    document: String,
    timeout: Duration,
    token: Option<SecretString>,
}

/// Why a client cannot be set up. Never holds the URL: it may carry a password.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpaError {
    /// No URL, or of no use.
    #[error("use guard.opa.url: write http://HOST:PORT or https://HOST, without user, query or fragment")]
    Url,
    /// Not the name of a document.
    #[error("use guard.opa.document: write the path of a package below /v1/data, as in `nightshift` or `acme/policy`")]
    Document,
    /// The client cannot be built.
    #[error("set up the HTTP client")]
    Http(#[source] reqwest::Error),
}

impl OpaClient {
    /// Checks the settings and sets the client up. Nothing is sent.
    ///
    /// # Errors
    /// What is wrong with them.
    pub(crate) fn new(config: &OpaConfig) -> Result<Self, OpaError> {
        let mut url = Url::parse(&config.url).map_err(|_| OpaError::Url)?;
        let bare = url.username().is_empty() && url.password().is_none();
        if !matches!(url.scheme(), "http" | "https") || !bare || url.query().is_some() || url.fragment().is_some() {
            return Err(OpaError::Url);
        }
        let document = config.document.trim_matches('/').to_owned();
        let parts: Vec<&str> = document.split(['/', '.']).collect();
        let word = |p: &&str| !p.is_empty() && p.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
        if !parts.iter().all(word) {
            return Err(OpaError::Document);
        }
        url.path_segments_mut().map_err(|()| OpaError::Url)?.pop_if_empty().extend(["v1", "data"]).extend(&parts);
        // Whoever comes first installs it; that it was installed before is no error.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = reqwest::Client::builder()
            .user_agent(concat!("nightshift/", env!("CARGO_PKG_VERSION")))
            // A redirect would carry the token and the plan elsewhere.
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(OpaError::Http)?;
        let timeout = Duration::from_millis(config.timeout_ms.clamp(10, 30_000));
        Ok(Self { http, url, document, timeout, token: config.token.clone() })
    }

    /// What it says of this input. Returns within the timeout.
    pub(crate) async fn ask(&self, input: &Value) -> ExternalAnswer {
        match tokio::time::timeout(self.timeout, self.exchange(input)).await {
            Ok(Ok(body)) => ExternalAnswer::parse(&self.document, &body),
            Ok(Err(why)) => ExternalAnswer::Failed { why },
            Err(_) => ExternalAnswer::Failed { why: format!("no answer within {} ms", self.timeout.as_millis()) },
        }
    }

    async fn exchange(&self, input: &Value) -> Result<Vec<u8>, String> {
        let mut request = self.http.post(self.url.clone()).json(&json!({ "input": input }));
        if let Some(token) = &self.token {
            request = request.bearer_auth(token.expose());
        }
        let told = |e: reqwest::Error| {
            let what = if e.is_connect() { "cannot be reached" } else { "broke off" };
            format!("{} {what}", self.url.origin().ascii_serialization())
        };
        let mut response = request.send().await.map_err(told)?;
        if response.status() != StatusCode::OK {
            return Err(format!("{} answered {}", self.url.origin().ascii_serialization(), response.status()));
        }
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(told)? {
            if body.len() + chunk.len() > ANSWER_BYTES_MAX {
                return Err(format!("answer is longer than {ANSWER_BYTES_MAX} bytes"));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::Bytes;
    use axum::http::{HeaderMap, Uri};
    use axum::response::IntoResponse;
    use axum::routing::post;
    use nightshift_model::Decision;
    use std::sync::{Arc, Mutex};

    /// A server that answers everything with this, and what it was asked.
    async fn server(status: u16, body: Vec<u8>) -> (String, Arc<Mutex<Vec<(String, String, Value)>>>) {
        let asked = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&asked);
        let handler = move |uri: Uri, headers: HeaderMap, sent: Bytes| async move {
            let token = headers.get("authorization").map_or("", |v| v.to_str().unwrap()).to_owned();
            seen.lock().unwrap().push((uri.path().to_owned(), token, serde_json::from_slice(&sent).unwrap()));
            (StatusCode::from_u16(status).unwrap(), [("location", "/elsewhere")], body).into_response()
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let app = axum::Router::new().fallback(post(handler));
        tokio::spawn(async move { axum::serve(listener, app).await });
        (url, asked)
    }

    fn client(url: &str, document: &str) -> OpaClient {
        let token = serde_json::from_value(json!("s3cret")).unwrap();
        let config = OpaConfig { url: url.into(), document: document.into(), timeout_ms: 5_000, token: Some(token) };
        OpaClient::new(&config).unwrap()
    }

    #[tokio::test]
    async fn it_is_asked_with_the_input_and_the_token_and_its_answer_is_read() {
        let (url, asked) = server(200, br#"{"result": {"deny": ["not today"], "ask": []}}"#.to_vec()).await;
        let input = json!({"version": 1});
        let ExternalAnswer::Said { rules } = client(&url, "acme/policy").ask(&input).await else { panic!("no answer") };
        assert_eq!((rules.len(), rules[0].decision, rules[0].rule.as_str()), (1, Decision::Deny, "acme.policy.deny"));
        let expected = ("/v1/data/acme/policy".to_owned(), "Bearer s3cret".to_owned(), json!({"input": input}));
        assert_eq!(*asked.lock().unwrap(), [expected]);
        // Behind a path of its own, and with a package written with dots.
        client(&format!("{url}/opa/"), "acme.policy").ask(&input).await;
        assert_eq!(asked.lock().unwrap()[1].0, "/opa/v1/data/acme/policy");
    }

    #[tokio::test]
    async fn whatever_is_no_answer_is_a_failure() {
        for (status, body, why) in [
            (200, b"{}".to_vec(), "is undefined there"),
            (200, b"<html>".to_vec(), "not JSON"),
            (200, vec![b' '; ANSWER_BYTES_MAX + 1], "longer than"),
            (500, b"{\"result\": {\"deny\": []}}".to_vec(), "answered 500"),
            (401, Vec::new(), "answered 401"),
            (302, Vec::new(), "answered 302"),
        ] {
            let (url, asked) = server(status, body).await;
            let answer = client(&url, "nightshift").ask(&json!({})).await;
            let ExternalAnswer::Failed { why: said } = &answer else { panic!("{status}: {answer:?}") };
            assert!(said.contains(why) && !said.contains("s3cret"), "{status}: {said}");
            assert_eq!(asked.lock().unwrap().len(), 1, "no redirect is followed");
        }
        let closed = client("http://127.0.0.1:1", "nightshift").ask(&json!({})).await;
        assert!(matches!(&closed, ExternalAnswer::Failed { why } if why.contains("cannot be reached")), "{closed:?}");
    }

    #[tokio::test]
    async fn one_that_never_answers_is_a_failure() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let config = OpaConfig { url, timeout_ms: 20, ..OpaConfig::default() };
        let answer = OpaClient::new(&config).unwrap().ask(&json!({})).await;
        assert_eq!(answer, ExternalAnswer::Failed { why: "no answer within 20 ms".into() });
    }

    #[test]
    fn settings_of_no_use_are_refused_without_repeating_them() {
        for (url, document) in [
            ("", "nightshift"),
            ("not a url", "nightshift"),
            ("ftp://host", "nightshift"),
            ("http://user:hidden@host", "nightshift"),
            ("http://host?x=hidden", "nightshift"),
            ("http://host", ""),
            ("http://host", "a//b"),
            ("http://host", "../admin"),
            ("http://host", "a?b"),
        ] {
            let config = OpaConfig { url: url.into(), document: document.into(), ..OpaConfig::default() };
            let error = OpaClient::new(&config).map(|_| ()).expect_err(url).to_string();
            assert!(!error.contains("hidden"), "{error}");
        }
    }
}
