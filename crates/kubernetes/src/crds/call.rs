//! One request of kube's typed kind, bounded in time, with errors that say what to do next.

use crate::ApiServer;
use crate::client::{KubeError, of_kube};
use std::time::Duration;

/// Longest text of a server that is passed on, characters.
const TEXT_CHARS_MAX: usize = 300;

/// Waits at most `within` for an answer.
pub(crate) async fn call<T>(
    server: &ApiServer,
    within: Duration,
    asked: impl Future<Output = Result<T, kube::Error>>,
) -> Result<T, KubeError> {
    match tokio::time::timeout(within, asked).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(e)) => Err(explain(&e, server.url())),
        Err(_) => Err(KubeError::Slow(within)),
    }
}

/// What kube says, in our words.
pub(super) fn explain(error: &kube::Error, url: &str) -> KubeError {
    match error {
        kube::Error::Api(status) => {
            let text: String = status.message.chars().take(TEXT_CHARS_MAX).collect();
            match status.code {
                401 => KubeError::Unauthorized,
                403 => KubeError::Forbidden(text),
                404 => KubeError::NotFound,
                410 => KubeError::Gone,
                code @ (408 | 429 | 500 | 502 | 503 | 504) => KubeError::Passing { code, text, retry_after: None },
                code => KubeError::Other { code, text },
            }
        }
        kube::Error::SerdeError(e) => KubeError::Unreadable(e.to_string()),
        other => of_kube(other, url),
    }
}

/// The error of a watch, in our words.
pub(super) fn explain_watch(error: &kube::runtime::watcher::Error, url: &str) -> KubeError {
    use kube::runtime::watcher::Error as E;
    match error {
        E::InitialListFailed(e) | E::WatchStartFailed(e) | E::WatchFailed(e) => explain(e, url),
        E::WatchError(status) => explain(&kube::Error::Api(status.clone()), url),
        _ => KubeError::Unreadable("the watch ended".into()),
    }
}
