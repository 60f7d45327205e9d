//! What goes wrong with an API server, in words that say what to do next. Never an answer's body as it came, a header,
//! or what a login program printed: any of them may hold a token.

use super::passes;
use http::StatusCode;
use std::error::Error;
use std::time::Duration;

/// Longest text of a server that is passed on, characters.
const TEXT_CHARS_MAX: usize = 300;

/// Why an API server did not answer as hoped.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KubeError {
    /// There is no kubeconfig, and this is no pod.
    #[error(
        "there is no kubeconfig at KUBECONFIG or ~/.kube/config, and this is no pod with a service account; \
         name a file with --kubeconfig FILE"
    )]
    NoConfig,
    /// What was asked for cannot be used.
    #[error("{0}")]
    Config(String),
    /// No connection.
    #[error("reach the API server {url}: {why}; is it up, and is this the right context?")]
    Unreachable {
        /// Where it should be.
        url: String,
        /// What happened.
        why: String,
    },
    /// Its certificate is not trusted.
    #[error(
        "the certificate of {url} is not trusted: {why}; the kubeconfig's certificate-authority must be the one that \
         signed it"
    )]
    Certificate {
        /// Where.
        url: String,
        /// What is wrong with it.
        why: String,
    },
    /// The program or file that gives the token failed.
    #[error("log in to {url}: {why}")]
    Login {
        /// Where.
        url: String,
        /// What failed.
        why: String,
    },
    /// 401.
    #[error(
        "the API server does not accept our credentials (401): the token or certificate is wrong or has expired; log in again"
    )]
    Unauthorized,
    /// 403.
    #[error("forbidden: {0}")]
    Forbidden(String),
    /// 404.
    #[error("not found")]
    NotFound,
    /// 410: too old.
    #[error("too old (410)")]
    Gone,
    /// The server has too much to do, is broken, or away for a moment.
    #[error("the API server answers {code}{}", told(.text))]
    Passing {
        /// HTTP status.
        code: u16,
        /// What it says.
        text: String,
        /// Wait that it asks for.
        retry_after: Option<Duration>,
    },
    /// Another error of ours or the server's.
    #[error("the API server answers {code}{}", told(.text))]
    Other {
        /// HTTP status.
        code: u16,
        /// What it says.
        text: String,
    },
    /// No answer in time.
    #[error("no answer within {} s", .0.as_secs())]
    Slow(Duration),
    /// The answer is too large.
    #[error("the answer is larger than {0} bytes")]
    TooLarge(usize),
    /// The answer is not what was asked for.
    #[error("the answer cannot be read: {0}")]
    Unreadable(String),
}

fn told(text: &str) -> String {
    if text.is_empty() { String::new() } else { format!(": {text}") }
}

impl KubeError {
    /// Whether the same may work a little later.
    pub const fn may_pass(&self) -> bool {
        matches!(self, Self::Passing { .. } | Self::Slow(_) | Self::Unreachable { .. })
    }

    /// Wait that the server asked for.
    pub const fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Passing { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    /// Whether what was asked for makes no sense as it stands, so that no server was asked.
    pub const fn is_bad_input(&self) -> bool {
        matches!(self, Self::NoConfig | Self::Config(_))
    }

    /// Whether nothing can be had from this server as it stands: asking for more is no use.
    pub const fn is_hopeless(&self) -> bool {
        matches!(
            self,
            Self::NoConfig
                | Self::Config(_)
                | Self::Unreachable { .. }
                | Self::Certificate { .. }
                | Self::Login { .. }
                | Self::Unauthorized
        )
    }

    /// Few, stable values: a label of a metric.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::NoConfig | Self::Config(_) => "config",
            Self::Unreachable { .. } => "unreachable",
            Self::Certificate { .. } => "certificate",
            Self::Login { .. } => "login",
            Self::Unauthorized => "unauthorized",
            Self::Forbidden(_) => "forbidden",
            Self::NotFound => "not_found",
            Self::Gone => "gone",
            Self::Passing { .. } => "busy",
            Self::Other { .. } => "other",
            Self::Slow(_) => "slow",
            Self::TooLarge(_) => "too_large",
            Self::Unreadable(_) => "unreadable",
        }
    }
}

/// One line of bounded length.
fn line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(TEXT_CHARS_MAX).collect()
}

pub(super) fn of_status(status: StatusCode, text: String, retry_after: Option<Duration>) -> KubeError {
    let text = line(&text);
    match status {
        StatusCode::UNAUTHORIZED => KubeError::Unauthorized,
        StatusCode::FORBIDDEN => KubeError::Forbidden(text),
        StatusCode::NOT_FOUND => KubeError::NotFound,
        StatusCode::GONE => KubeError::Gone,
        _ if passes(status) => KubeError::Passing { code: status.as_u16(), text, retry_after },
        _ => KubeError::Other { code: status.as_u16(), text },
    }
}

pub(super) fn of_config(error: &kube::config::KubeconfigError) -> KubeError {
    use kube::config::KubeconfigError as E;
    KubeError::Config(match error {
        E::Parse(_) => "the kubeconfig is no YAML file with clusters, users and contexts".into(),
        other => format!("use the kubeconfig: {}", line(&other.to_string())),
    })
}

pub(crate) fn of_kube(error: &kube::Error, url: &str) -> KubeError {
    let url = url.to_owned();
    if let Some(auth) = find::<kube::client::AuthError>(error) {
        use kube::client::AuthError as A;
        let why = match auth {
            // Its output, arguments and variables may hold a token.
            A::AuthExecRun { out, .. } => {
                format!("the login program of the kubeconfig (`exec`) ends with {}; run it by hand", out.status)
            }
            A::AuthExecStart(e) => format!("the login program of the kubeconfig does not start: {e}"),
            A::AuthExecParse(_) | A::ParseTokenKey(_) => "what the login program printed cannot be read".into(),
            A::ReadTokenFile(e, path) => format!("read the token file {}: {e}", path.display()),
            A::InvalidBearerToken(_) | A::InvalidBasicAuth(_) => "the token is no text for a header".into(),
            other => line(&other.to_string()),
        };
        return KubeError::Login { url, why };
    }
    if let kube::Error::ProxyProtocolDisabled { .. } | kube::Error::ProxyProtocolUnsupported { .. } = error {
        return KubeError::Config("the kubeconfig names a proxy, which cannot be used here: remove `proxy-url`".into());
    }
    let chain = chain(error);
    let certificate =
        chain.iter().find(|c| c.contains("invalid peer certificate") || c.contains("invalid certificate"));
    if let Some(why) = certificate {
        return KubeError::Certificate { url, why: line(why.trim_start_matches("invalid peer certificate: ")) };
    }
    // The innermost says what happened: "Connection refused (os error 111)".
    KubeError::Unreachable { url, why: line(chain.last().map_or("no connection", String::as_str)) }
}

fn chain(error: &(dyn Error + 'static)) -> Vec<String> {
    let mut out = vec![error.to_string()];
    let mut next = error.source();
    while let Some(cause) = next.filter(|_| out.len() < 12) {
        out.push(cause.to_string());
        next = cause.source();
    }
    out
}

fn find<'a, T: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a T> {
    let mut next = Some(error);
    for _ in 0..12 {
        let this = next?;
        if let Some(found) = this.downcast_ref::<T>() {
            return Some(found);
        }
        next = this.source();
    }
    None
}
