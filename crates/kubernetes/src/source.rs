//! The Kubernetes source: watches clusters, finds faults on them, and tells what changed, what is used, what calls what.
//!
//! Lives here: starting followers, when to look, and handing on what was found. Never here: what is a fault
//! (`nightshift-cluster`), or how a finding becomes an anomaly (its `Reporter`).

mod check;
mod feeds;
mod logs;

use crate::client::{Access, ApiServer, KubeError, wait};
use crate::discovery::{Kind, discover};
use crate::rules::Share;
use crate::scan::server_version;
use crate::watch::{ClusterState, Follower};
use async_trait::async_trait;
use nightshift_cluster::Resource;
use nightshift_collect::kubernetes::KubernetesConfig;
use nightshift_collect::supervise::Surroundings;
use nightshift_collect::{Source, SourceContext, SourceError};
use nightshift_health::Health;
use parking_lot::{Mutex, RwLock};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, LazyLock};
use std::time::Duration;
use tokio::task::JoinSet;

/// What is asked for which kinds are served, this often: definitions come and go.
const DISCOVERY: Duration = Duration::from_secs(60);
/// Time for the first lists. After it checks begin with what there is.
const FIRST_LISTS: Duration = Duration::from_secs(60);

/// Clusters by source and name.
type Worlds = BTreeMap<(String, String), Arc<ClusterState>>;

/// Clusters that are watched in this process: for those who read and act on them.
static WORLDS: LazyLock<RwLock<Worlds>> = LazyLock::new(RwLock::default);

/// The state of a watched cluster, by its name in entities.
pub fn watched(cluster: &str) -> Option<Arc<ClusterState>> {
    WORLDS.read().iter().find(|((_, name), _)| name == cluster).map(|(_, state)| Arc::clone(state))
}

/// Names of the clusters that are watched.
pub fn watched_clusters() -> Vec<String> {
    WORLDS.read().keys().map(|(_, name)| name.clone()).collect()
}

/// One cluster as it is to be watched.
#[derive(Debug, Clone)]
struct Watched {
    /// Name in entities.
    name: String,
    access: Access,
    /// Where the state of its findings is kept.
    file: PathBuf,
}

/// Watches clusters.
#[derive(Debug)]
pub struct KubernetesSource {
    name: String,
    config: KubernetesConfig,
    clusters: Vec<Watched>,
}

/// Builds the source. No I/O.
///
/// # Errors
/// Never at present: the values are checked by the settings themselves.
pub fn build(name: &str, config: &KubernetesConfig, around: &Surroundings) -> Result<Box<dyn Source>, SourceError> {
    let file = |cluster: &str| around.state_file("kubernetes", &format!("{name}-{cluster}"));
    let mut clusters: Vec<Watched> = config
        .clusters
        .iter()
        .map(|c| {
            let in_cluster = c.context.is_empty();
            let context = (!in_cluster).then(|| c.context.clone());
            let access = Access { kubeconfig: config.kubeconfig.clone(), context, in_cluster };
            Watched { name: c.called().to_owned(), access, file: file(c.called()) }
        })
        .collect();
    if clusters.is_empty() {
        let cluster = nightshift_collect::resolve::ResolveConfig::default().cluster;
        let access = Access { kubeconfig: config.kubeconfig.clone(), ..Access::default() };
        clusters.push(Watched { file: file(&cluster), name: cluster, access });
    }
    Ok(Box::new(KubernetesSource { name: name.to_owned(), config: config.clone(), clusters }))
}

#[async_trait]
impl Source for KubernetesSource {
    fn name(&self) -> &str {
        &self.name
    }

    fn kind(&self) -> &'static str {
        "kubernetes"
    }

    async fn run(&mut self, context: &SourceContext) -> Result<(), SourceError> {
        let board = Board::new(context);
        let mut running = JoinSet::new();
        for cluster in self.clusters.clone() {
            let one = Cluster {
                source: self.name.clone(),
                state: Arc::new(ClusterState::new(&cluster.name, self.share())),
                cluster,
                config: self.config.clone(),
                context: context.clone(),
                board: board.clone(),
            };
            running.spawn(one.run());
        }
        // Dropping the set ends the others.
        let ended = tokio::select! {
            () = context.shutdown.cancelled() => Ok(()),
            Some(ended) = running.join_next() => match ended {
                Ok(Err(error)) => Err(error),
                Ok(Ok(())) => Ok(()),
                Err(e) => Err(SourceError { what: "watch a cluster".into(), source: Some(Box::new(e)), fatal: false }),
            },
        };
        running.shutdown().await;
        WORLDS.write().retain(|(source, _), _| *source != self.name);
        ended
    }
}

impl KubernetesSource {
    fn share(&self) -> Share {
        Share::new(self.config.namespaces.clone(), self.config.shard.clone())
    }
}

/// What the clusters say of themselves, as one row of the health board.
#[derive(Clone)]
struct Board {
    rows: Arc<Mutex<BTreeMap<String, (Health, String)>>>,
    context: SourceContext,
}

impl Board {
    fn new(context: &SourceContext) -> Self {
        Self { rows: Arc::default(), context: context.clone() }
    }

    fn say(&self, cluster: &str, health: Health, detail: String) {
        let mut rows = self.rows.lock();
        rows.insert(cluster.to_owned(), (health, detail));
        let worst = |h: Health| rows.values().any(|(other, _)| *other == h);
        let all_down = rows.values().all(|(h, _)| *h == Health::Unhealthy);
        // One cluster of several that is away leaves the others seen.
        let health = if all_down {
            Health::Unhealthy
        } else if worst(Health::Unhealthy) || worst(Health::Degraded) {
            Health::Degraded
        } else {
            Health::Healthy
        };
        let many = rows.len() > 1;
        let line = |(name, (_, text)): (&String, &(Health, String))| {
            if many { format!("{name}: {text}") } else { text.clone() }
        };
        let detail = rows.iter().map(line).collect::<Vec<_>>().join("; ");
        drop(rows);
        self.context.health.set(health, detail);
    }
}

/// One cluster while it is watched.
struct Cluster {
    source: String,
    cluster: Watched,
    config: KubernetesConfig,
    context: SourceContext,
    board: Board,
    state: Arc<ClusterState>,
}

impl Cluster {
    async fn run(self) -> Result<(), SourceError> {
        let server = ApiServer::find(&self.cluster.access).await.map_err(|e| SourceError {
            what: format!("watch cluster {}", self.cluster.name),
            fatal: e.is_bad_input(),
            source: Some(Box::new(e)),
        })?;
        WORLDS.write().insert((self.source.clone(), self.cluster.name.clone()), Arc::clone(&self.state));
        self.reach(&server).await;
        let one = Arc::new(self);
        let mut tasks: JoinSet<Result<(), SourceError>> = JoinSet::new();
        let (watching, looking) = (Arc::clone(&one), Arc::clone(&one));
        let to_watch = server.clone();
        tasks.spawn(async move { watching.watch(to_watch).await });
        tasks.spawn(async move { looking.look().await });
        if one.config.metrics {
            let (feeding, server) = (Arc::clone(&one), server.clone());
            tasks.spawn(async move { feeding.feed_metrics(server).await });
        }
        if one.config.logs {
            let feeding = Arc::clone(&one);
            tasks.spawn(async move { feeding.feed_logs(server).await });
        }
        match tasks.join_next().await {
            Some(Ok(ended)) => ended,
            Some(Err(e)) => {
                Err(SourceError { what: "watch a cluster".into(), source: Some(Box::new(e)), fatal: false })
            }
            None => Ok(()),
        }
    }

    /// Waits until somebody answers.
    async fn reach(&self, server: &ApiServer) {
        let mut tried = 0;
        loop {
            match server_version(server).await {
                Ok(version) => return self.state.edit(|world| world.server_version = version).await,
                // It may answer other questions.
                Err(KubeError::Forbidden(_)) => return,
                Err(error) => {
                    tried += 1;
                    self.board.say(&self.cluster.name, Health::Unhealthy, error.to_string());
                    tokio::time::sleep(wait(server.url(), tried, error.retry_after())).await;
                }
            }
        }
    }

    /// Follows every kind that is served, and those that come later.
    async fn watch(&self, server: ApiServer) -> Result<(), SourceError> {
        let share = Share::new(self.config.namespaces.clone(), self.config.shard.clone());
        let named = share.named();
        let secrets = Kind::Known(Resource::Secrets);
        if !self.config.secrets {
            let why = "switched off (`secrets = true` watches them)";
            self.state.refuse(secrets, None, why, self.context.clock.now()).await;
        }
        let mut followed: BTreeSet<Kind> = BTreeSet::new();
        let mut followers = JoinSet::new();
        loop {
            let served = discover(&server).await;
            for kind in &served.absent {
                if !followed.contains(kind) {
                    self.state.not_served(*kind).await;
                }
            }
            for endpoint in served.endpoints {
                if (endpoint.kind == secrets && !self.config.secrets) || !followed.insert(endpoint.kind) {
                    continue;
                }
                let places = match &named {
                    Some(names) if endpoint.namespaced => names.iter().cloned().map(Some).collect(),
                    _ => vec![None],
                };
                for namespace in places {
                    self.state.expect(endpoint.kind, namespace.as_deref());
                    let follower = Follower {
                        server: server.clone(),
                        endpoint: endpoint.clone(),
                        namespace,
                        state: Arc::clone(&self.state),
                        clock: Arc::clone(&self.context.clock),
                    };
                    followers.spawn(follower.run());
                }
            }
            self.state.discovered();
            tokio::time::sleep(DISCOVERY).await;
        }
    }
}
