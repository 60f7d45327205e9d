//! Reaching an API server: which one, as whom, and one bounded request at a time.
//!
//! Lives here: kubeconfig files and contexts, the pod's own account, time limits, bounded answers, retries, and errors
//! that say what to do next. Never here: what is asked for.
//!
//! Answers are taken as bytes. kube's own `request` logs an answer that it cannot read, which may be a list of secrets.

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use kube::client::Body;
use kube::config::{KubeConfigOptions, Kubeconfig};
use nightshift_model::hash::hash64;
use serde::Deserialize;
use std::ffi::OsStr;
use std::path::PathBuf;
use std::time::Duration;

pub use error::KubeError;
pub(crate) use error::of_kube;

mod error;

/// Time to connect.
const CONNECT: Duration = Duration::from_secs(5);
/// Time for the answer to a request, its body included.
pub(crate) const ANSWER: Duration = Duration::from_secs(60);
/// Time to the first byte of a stream.
const STREAM_HEAD: Duration = Duration::from_secs(30);
/// Tries of a request that may work the next time.
const TRIES: u32 = 5;
/// Wait before the second try; it doubles.
const BACKOFF: Duration = Duration::from_millis(200);
/// Longest wait that a server can ask for.
const WAIT_MAX: Duration = Duration::from_secs(10);
/// Longest error answer that is read, bytes.
const ERROR_BYTES_MAX: usize = 64 << 10;

/// Which API server, and as whom.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Access {
    /// This file instead of `KUBECONFIG` and `~/.kube/config`.
    pub kubeconfig: Option<PathBuf>,
    /// This context instead of the current one.
    pub context: Option<String>,
    /// The account of the pod that we run in, whatever files there are.
    pub in_cluster: bool,
}

/// An API server that is asked as somebody.
#[derive(Clone)]
pub struct ApiServer {
    client: kube::Client,
    url: String,
    context: String,
    namespace: String,
}

impl std::fmt::Debug for ApiServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ApiServer").field("url", &self.url).field("context", &self.context).finish_non_exhaustive()
    }
}

impl ApiServer {
    /// The one that the files of this user or the pod's account name. Does not reach out yet.
    ///
    /// # Errors
    /// When there is none, or what there is cannot be used.
    pub async fn find(access: &Access) -> Result<Self, KubeError> {
        // Fails only when a provider was installed before, which is then the one that is used.
        drop(rustls::crypto::ring::default_provider().install_default());
        let files = if access.in_cluster { None } else { read_files(access.kubeconfig.as_ref())? };
        let (mut config, context) = match files {
            Some(files) => {
                let context = context_of(&files, access.context.as_deref())?;
                let options = KubeConfigOptions { context: Some(context.clone()), ..KubeConfigOptions::default() };
                let config = kube::Config::from_custom_kubeconfig(files, &options).await;
                (config.map_err(|e| error::of_config(&e))?, context)
            }
            None => {
                if let Some(name) = &access.context {
                    return Err(KubeError::Config(format!("there is no context `{name}`: there is no kubeconfig")));
                }
                (kube::Config::incluster().map_err(|_| KubeError::NoConfig)?, String::new())
            }
        };
        config.connect_timeout = Some(CONNECT);
        // Retries are ours: kube's know no bound of ours.
        config.default_retry = false;
        let uri = &config.cluster_url;
        // Without user name and password.
        let authority = uri.authority().map_or("", |a| a.as_str().rsplit('@').next().unwrap_or_default());
        let url = format!("{}://{authority}", uri.scheme_str().unwrap_or("http"));
        let namespace = config.default_namespace.clone();
        let client = kube::Client::try_from(config).map_err(|e| of_kube(&e, &url))?;
        Ok(Self { client, url, context, namespace })
    }

    /// One that a client is there for already.
    pub fn with_client(client: kube::Client, url: impl Into<String>) -> Self {
        let namespace = client.default_namespace().to_owned();
        Self { client, url: url.into(), context: String::new(), namespace }
    }

    /// The client.
    pub const fn client(&self) -> &kube::Client {
        &self.client
    }

    /// Where it is, without credentials.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The context of the kubeconfig; empty in a pod.
    pub fn context(&self) -> &str {
        &self.context
    }

    /// The namespace of the context or pod.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// Asks once; the answer has at most `bytes_max` bytes and is there within `within`.
    ///
    /// # Errors
    /// When it cannot be reached, refuses, or answers too much.
    pub async fn get(&self, path: &str, bytes_max: usize, within: Duration) -> Result<Bytes, KubeError> {
        self.ask(Method::GET, path, "application/json", Vec::new(), bytes_max, within).await
    }

    /// As [`Self::get`], with this form of answer.
    pub(crate) async fn get_as(&self, path: &str, accept: &str, bytes_max: usize) -> Result<Bytes, KubeError> {
        self.ask(Method::GET, path, accept, Vec::new(), bytes_max, ANSWER).await
    }

    /// Asks again while that may help: the server is busy, broken or away. A few times, and as far apart as it says.
    ///
    /// # Errors
    /// Those of the last try.
    pub async fn get_patiently(&self, path: &str, bytes_max: usize) -> Result<Bytes, KubeError> {
        let mut tried = 1;
        loop {
            match self.get(path, bytes_max, ANSWER).await {
                Err(e) if e.may_pass() && tried < TRIES => {
                    tokio::time::sleep(wait(path, tried, e.retry_after())).await;
                    tried += 1;
                }
                other => return other,
            }
        }
    }

    /// Sends a body that asks something; nothing is stored by what we send this way.
    pub(crate) async fn post(&self, path: &str, body: Vec<u8>, bytes_max: usize) -> Result<Bytes, KubeError> {
        self.ask(Method::POST, path, "application/json", body, bytes_max, ANSWER).await
    }

    /// Opens a stream: a watch, or a log that is followed.
    pub(crate) async fn open(&self, path: &str) -> Result<Body, KubeError> {
        let request = self.request(Method::GET, path, "application/json", Vec::new())?;
        let answer = tokio::time::timeout(STREAM_HEAD, self.send(request)).await;
        Ok(answer.map_err(|_| KubeError::Slow(STREAM_HEAD))??.into_body())
    }

    async fn ask(
        &self,
        method: Method,
        path: &str,
        accept: &str,
        body: Vec<u8>,
        bytes_max: usize,
        within: Duration,
    ) -> Result<Bytes, KubeError> {
        let request = self.request(method, path, accept, body)?;
        let answer = async { self.read(self.send(request).await?.into_body(), bytes_max).await };
        tokio::time::timeout(within, answer).await.map_err(|_| KubeError::Slow(within))?
    }

    fn request(&self, method: Method, path: &str, accept: &str, body: Vec<u8>) -> Result<Request<Body>, KubeError> {
        Request::builder()
            .method(method)
            .uri(path)
            .header(ACCEPT, accept)
            .header(CONTENT_TYPE, "application/json")
            .body(Body::from(body))
            .map_err(|e| KubeError::Config(format!("`{path}` is no path of a request: {e}")))
    }

    async fn send(&self, request: Request<Body>) -> Result<Response<Body>, KubeError> {
        let answer = self.client.send(request).await.map_err(|e| of_kube(&e, &self.url))?;
        let (status, headers) = (answer.status(), answer.headers().clone());
        if status.is_success() {
            return Ok(answer);
        }
        let body = self.read(answer.into_body(), ERROR_BYTES_MAX).await.unwrap_or_default();
        Err(error::of_status(status, said(&body), asked_wait(&headers)))
    }

    async fn read(&self, mut body: Body, bytes_max: usize) -> Result<Bytes, KubeError> {
        let mut all = Vec::new();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|e| of_kube(&e, &self.url))?;
            let Ok(data) = frame.into_data() else { continue };
            if all.len() + data.len() > bytes_max {
                return Err(KubeError::TooLarge(bytes_max));
            }
            all.extend_from_slice(&data);
        }
        Ok(all.into())
    }
}

/// What the server said in a `Status`; empty when it said something else.
fn said(body: &[u8]) -> String {
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Status {
        message: String,
    }
    serde_json::from_slice::<Status>(body).unwrap_or_default().message
}

fn asked_wait(headers: &HeaderMap) -> Option<Duration> {
    let secs = headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(secs).min(WAIT_MAX))
}

/// How long to wait after so many tries: twice as long each time, spread by what is asked for, so that the kinds of one
/// cluster do not all come back at one moment.
pub(crate) fn wait(what: &str, tried: u32, asked: Option<Duration>) -> Duration {
    let base = (BACKOFF * 2u32.saturating_pow(tried.saturating_sub(1).min(10))).min(WAIT_MAX);
    let spread = hash64(format!("{what} {tried}").as_bytes()) % 1000;
    let own = base.mul_f64(0.5 + spread as f64 / 2000.0);
    own.max(asked.unwrap_or_default())
}

/// The files that hold contexts. `None`: there are none.
fn read_files(named: Option<&PathBuf>) -> Result<Option<Kubeconfig>, KubeError> {
    if let Some(path) = named {
        return read_file(path).map(Some);
    }
    let listed = std::env::var_os("KUBECONFIG").filter(|v| !v.is_empty());
    let in_pod = std::env::var_os("KUBERNETES_SERVICE_HOST").is_some();
    let paths = paths_of(listed.as_deref());
    // As kubectl does: files of the list that are not there are left out.
    let there: Vec<&PathBuf> = paths.iter().filter(|p| p.exists()).collect();
    if there.is_empty() {
        return match listed {
            Some(list) if !in_pod => Err(KubeError::Config(format!(
                "no file that KUBECONFIG names is there: {}",
                list.to_string_lossy().chars().take(300).collect::<String>()
            ))),
            _ => Ok(None),
        };
    }
    let mut all = Kubeconfig::default();
    for path in there {
        all = all.merge(read_file(path)?).map_err(|e| error::of_config(&e))?;
    }
    Ok(Some(all))
}

fn paths_of(listed: Option<&OsStr>) -> Vec<PathBuf> {
    match listed {
        Some(list) => std::env::split_paths(list).filter(|p| !p.as_os_str().is_empty()).collect(),
        None => std::env::home_dir().map(|home| home.join(".kube").join("config")).into_iter().collect(),
    }
}

fn read_file(path: &PathBuf) -> Result<Kubeconfig, KubeError> {
    Kubeconfig::read_from(path).map_err(|e| {
        let why = match e {
            kube::config::KubeconfigError::ReadConfig(e, _) => e.to_string(),
            // The parser quotes the text around an error, which may be a token.
            _ => "it is no kubeconfig (a YAML file with clusters, users and contexts)".to_owned(),
        };
        KubeError::Config(format!("read {}: {why}", path.display()))
    })
}

/// The context to use.
fn context_of(files: &Kubeconfig, wanted: Option<&str>) -> Result<String, KubeError> {
    let names: Vec<&str> = files.contexts.iter().map(|c| c.name.as_str()).collect();
    let known = || if names.is_empty() { "it has none".to_owned() } else { format!("it has {}", names.join(", ")) };
    match wanted.or(files.current_context.as_deref()).filter(|c| !c.is_empty()) {
        Some(name) if names.contains(&name) => Ok(name.to_owned()),
        Some(name) => Err(KubeError::Config(format!("the kubeconfig has no context `{name}`: {}", known()))),
        None => match names.as_slice() {
            [one] => Ok((*one).to_owned()),
            _ => Err(KubeError::Config(format!(
                "the kubeconfig has no current context; name one with --context ({})",
                known()
            ))),
        },
    }
}

/// Whether a status is one that passes by itself.
pub(crate) const fn passes(status: StatusCode) -> bool {
    matches!(status.as_u16(), 408 | 429 | 500 | 502 | 503 | 504)
}

#[cfg(test)]
mod tests;
