//! Watches: a list, and then every change to it, for as long as it lasts.
//!
//! One follower for each kind. It lists, watches from the version of the list, goes on from the last version when the
//! stream ends, and lists again when the server no longer knows that version (410). A new list is compared with what was
//! known and replaces it at once, so that checks never see half of it. What a follower cannot do is said in the state and
//! does not keep the others from going on.

mod lines;
mod state;

pub(crate) use lines::Lines;
pub use state::{ClusterState, Trouble};

use crate::client::{ApiServer, KubeError, wait};
use crate::discovery::Endpoint;
use crate::list::{escape, list};
use nightshift_cluster::World;
use nightshift_model::Clock;
use serde::Deserialize;
use serde_json::value::RawValue;
use std::sync::Arc;
use std::time::Duration;

/// Longest event of a watch, bytes: an object has at most 1.5 MiB in etcd, and JSON writes some bytes as six.
const EVENT_BYTES_MAX: usize = 10 << 20;
/// Seconds after which the server ends a watch; a random server ends it between five and ten minutes.
const WATCH_SECS: u64 = 290;
/// A stream without a sign of life (bookmarks come every minute) for this long is dead, whatever the connection says.
const SILENCE_MAX: Duration = Duration::from_secs(150);
/// Wait until a kind that was refused or is not served is asked for again.
const REFUSED: Duration = Duration::from_secs(60);
/// A kind that only fails for this many tries in a row counts as one that cannot be seen.
const FAILURES_MAX: u32 = 8;
/// A watch that fails so often in a row begins again with a list.
const WATCH_FAILURES_MAX: u32 = 3;
/// Longest wait between two tries.
const WAIT_MAX: Duration = Duration::from_secs(15);

/// Follows one kind in one place.
pub(crate) struct Follower {
    pub(crate) server: ApiServer,
    pub(crate) endpoint: Endpoint,
    /// Only this namespace; `None`: the whole cluster.
    pub(crate) namespace: Option<String>,
    pub(crate) state: Arc<ClusterState>,
    pub(crate) clock: Arc<dyn Clock>,
}

/// Why a watch ended.
enum Ended {
    /// It goes on from the last version.
    Normal,
    /// The version is too old: list again.
    TooOld,
}

impl Follower {
    /// Follows until it is dropped.
    pub(crate) async fn run(self) {
        let what = format!("{} {}", self.endpoint.path(self.namespace.as_deref()), self.state.name());
        let mut failures = 0;
        loop {
            let version = match list(&self.server, &self.endpoint, self.namespace.as_deref()).await {
                Ok((world, version)) => {
                    self.replace(world).await;
                    failures = 0;
                    version
                }
                Err(error) => {
                    failures += 1;
                    let pause = self.trouble(error, failures, &what).await;
                    tokio::time::sleep(pause).await;
                    continue;
                }
            };
            self.follow(version, &what).await;
        }
    }

    /// Watches until a new list is needed.
    async fn follow(&self, mut version: String, what: &str) {
        let mut failures = 0;
        loop {
            match self.watch(&mut version).await {
                Ok(Ended::Normal) => failures = 0,
                Ok(Ended::TooOld) | Err(KubeError::Gone) => return,
                // A right that was taken away, or a kind that is no longer served: the list says which.
                Err(KubeError::Forbidden(_) | KubeError::NotFound) => return,
                Err(error) => {
                    failures += 1;
                    // A version that the server does not like has many names; a new list has a new one.
                    let again = failures >= WATCH_FAILURES_MAX && !error.is_hopeless();
                    let pause = self.trouble(error, failures, what).await;
                    tokio::time::sleep(pause).await;
                    if again {
                        return;
                    }
                    continue;
                }
            }
            // A server that ends every watch at once must not be asked in a tight loop.
            tokio::time::sleep(wait(what, 1, None)).await;
        }
    }

    async fn watch(&self, version: &mut String) -> Result<Ended, KubeError> {
        let mut path = format!(
            "{}?watch=true&allowWatchBookmarks=true&timeoutSeconds={WATCH_SECS}&resourceVersion=",
            self.endpoint.path(self.namespace.as_deref())
        );
        escape(version, &mut path);
        let mut lines = Lines::new(self.server.open(&path).await?, EVENT_BYTES_MAX);
        self.state.well(self.endpoint.kind, self.namespace.as_deref());
        loop {
            let next = tokio::time::timeout(SILENCE_MAX, lines.next(self.server.url())).await;
            let Some(line) = next.map_err(|_| KubeError::Slow(SILENCE_MAX))?? else {
                return Ok(Ended::Normal);
            };
            let event: WatchEvent<'_> =
                serde_json::from_slice(&line).map_err(|_| KubeError::Unreadable("no event of a watch".into()))?;
            let json = event.object.get().as_bytes();
            match event.kind {
                "BOOKMARK" => *version = head(json)?.metadata.resource_version,
                "ERROR" => {
                    let status: Status = serde_json::from_slice(json).unwrap_or_default();
                    return match status.code {
                        410 => Ok(Ended::TooOld),
                        code => Err(KubeError::Passing { code, text: String::new(), retry_after: None }),
                    };
                }
                kind => {
                    let Meta { namespace, name, resource_version } = head(json)?.metadata;
                    if kind == "DELETED" {
                        self.state.remove(self.endpoint.kind, &namespace, &name, self.clock.now()).await;
                    } else {
                        let mut one = World::default();
                        match self.endpoint.kind.put(&mut one, json) {
                            Ok(_) => self.state.put(self.endpoint.kind, one, self.clock.now()).await,
                            // One object that cannot be read must not end the watch of all others.
                            Err(error) => tracing::debug!(%error, kind = self.endpoint.kind.name(), "object skipped"),
                        }
                    }
                    *version = resource_version;
                }
            }
        }
    }

    async fn replace(&self, world: World) {
        self.state.replace(self.endpoint.kind, self.namespace.as_deref(), world, self.clock.now()).await;
    }

    /// Says what is wrong; gives how long to wait.
    async fn trouble(&self, error: KubeError, failures: u32, what: &str) -> Duration {
        let (kind, namespace) = (self.endpoint.kind, self.namespace.as_deref());
        match &error {
            KubeError::Forbidden(_) => {
                self.state.refuse(kind, namespace, "forbidden", self.clock.now()).await;
                REFUSED
            }
            KubeError::NotFound => {
                self.state.not_served(kind).await;
                REFUSED
            }
            _ => {
                // What was seen until now stays: a server that is away for a moment has not lost its objects.
                self.state.away(kind, namespace, &error);
                if failures >= FAILURES_MAX && !error.is_hopeless() {
                    self.state.refuse(kind, namespace, &error.to_string(), self.clock.now()).await;
                }
                wait(what, failures, error.retry_after()).min(WAIT_MAX)
            }
        }
    }
}

#[derive(Deserialize)]
struct WatchEvent<'a> {
    #[serde(rename = "type", borrow)]
    kind: &'a str,
    #[serde(borrow)]
    object: &'a RawValue,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Status {
    code: u16,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Head {
    metadata: Meta,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Meta {
    namespace: String,
    name: String,
    resource_version: String,
}

fn head(json: &[u8]) -> Result<Head, KubeError> {
    serde_json::from_slice(json).map_err(|_| KubeError::Unreadable("no object in an event of a watch".into()))
}
