//! The client side of the API: what `incidents`, `show`, `approve` and the others speak.

use crate::cli::ServerArgs;
use crate::exit::{Failure, bad_input};
use anyhow::{Context as _, anyhow};
use reqwest::Method;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::path::PathBuf;
use std::time::Duration;

/// A server and how to speak to it.
pub(crate) struct Client {
    http: reqwest::Client,
    base: reqwest::Url,
    token_file: Option<PathBuf>,
}

/// Name of the file in a data folder that holds the token of the local command line.
pub(crate) const TOKEN_FILE: &str = "admin.token";

impl Client {
    /// A client of the server that the options name.
    ///
    /// # Errors
    /// When the URL is none.
    pub(crate) fn new(args: &ServerArgs) -> Result<Self, Failure> {
        let base = reqwest::Url::parse(&args.server).map_err(|e| {
            bad_input(format!("--server `{}` is not a URL ({e}); for example http://127.0.0.1:8080", args.server))
        })?;
        if !matches!(base.scheme(), "http" | "https") {
            return Err(bad_input(format!("--server `{}` is neither http:// nor https://", args.server)));
        }
        let http = reqwest::Client::builder()
            .timeout(Duration::from_secs(30))
            .connect_timeout(Duration::from_secs(5))
            .build()
            .context("set up the HTTP client")?;
        let token_file = match &args.token_file {
            Some(file) => Some(file.clone()),
            None => crate::paths::data_dir(args.data.as_deref()).ok().map(|d| d.join(TOKEN_FILE)),
        };
        Ok(Self { http, base, token_file })
    }

    /// `GET path?query`, the whole answer.
    ///
    /// # Errors
    /// When the server cannot be reached or refuses; the text says what to do.
    pub(crate) async fn get(&self, path: &str, query: &[(&str, String)]) -> Result<Value, Failure> {
        self.send(Method::GET, path, query, None).await
    }

    /// `POST path` with the local token.
    ///
    /// # Errors
    /// As [`Self::get`], or when there is no token.
    pub(crate) async fn post(&self, path: &str, body: Value) -> Result<Value, Failure> {
        self.send(Method::POST, path, &[], Some(body)).await
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        query: &[(&str, String)],
        body: Option<Value>,
    ) -> Result<Value, Failure> {
        self.ask(method, path, query, body).await.map_err(|trouble| trouble.failure)
    }

    /// `send` for those who go another way when the server is not there.
    ///
    /// # Errors
    /// As [`Self::get`], with whether the server answered at all.
    pub(crate) async fn ask(
        &self,
        method: Method,
        path: &str,
        query: &[(&str, String)],
        body: Option<Value>,
    ) -> Result<Value, Trouble> {
        let url = self.base.join(path).with_context(|| format!("build the URL of {path}"))?;
        let mut request = self.http.request(method, url).query(query).header("accept", "application/json");
        if let Some(token) = self.token()? {
            request = request.bearer_auth(token);
        }
        if let Some(body) = body {
            request = request.json(&body);
        }
        let response = request.send().await.map_err(|e| {
            // The URL is told without what may be secret in it.
            let e = e.without_url();
            let failure = anyhow!(
                "reach {}: {}; is `nightshift run` running there? --server names another",
                self.origin(),
                root_cause(&e)
            );
            Trouble { failure: failure.into(), works: false }
        })?;
        let status = response.status();
        let text = response.text().await.context("read the answer")?;
        let json: Value = serde_json::from_str(&text).unwrap_or(Value::Null);
        if status.is_success() {
            return if json.is_null() {
                Err(anyhow!("{} answered something that is not JSON", self.origin()).into())
            } else {
                Ok(json)
            };
        }
        let detail = json["detail"].as_str().or_else(|| json["title"].as_str()).unwrap_or("no reason given");
        let failure: Failure = match status.as_u16() {
            401 | 403 => {
                anyhow!("{detail}; --token-file FILE gives a token, `nightshift token create` on the server makes one")
                    .into()
            }
            400 | 404 | 422 => bad_input(detail),
            code => anyhow!("the server answered {code}: {detail}").into(),
        };
        Err(Trouble { failure, works: !status.is_server_error() })
    }

    fn origin(&self) -> String {
        self.base.origin().ascii_serialization()
    }

    fn token(&self) -> Result<Option<String>, Failure> {
        let Some(file) = &self.token_file else { return Ok(None) };
        match std::fs::read_to_string(file) {
            Ok(text) => Ok(Some(text.trim().to_owned())),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(anyhow!("read the token in {}: {e}", file.display()).into()),
        }
    }
}

/// Why there is no answer.
pub(crate) struct Trouble {
    /// For people.
    pub failure: Failure,
    /// The server is there and does its work: it refuses.
    pub works: bool,
}

impl<E: Into<anyhow::Error>> From<E> for Trouble {
    fn from(e: E) -> Self {
        Self { failure: Failure::Failed(e.into()), works: true }
    }
}

impl From<Failure> for Trouble {
    fn from(failure: Failure) -> Self {
        Self { failure, works: true }
    }
}

/// Takes `data` out of an answer.
///
/// # Errors
/// When it has not the form of a `T`: the server is of another version.
pub(crate) fn data<T: DeserializeOwned>(answer: Value) -> Result<T, Failure> {
    let data = answer.get("data").cloned().unwrap_or(Value::Null);
    Ok(serde_json::from_value(data).context("read the answer: is the server of another version?")?)
}

fn root_cause(e: &dyn std::error::Error) -> String {
    let mut cause = e;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    cause.to_string()
}
