//! Looking for faults while a cluster is watched: when something changed, at most once a second, and from time to time for
//! what only time brings.

use super::{Cluster, FIRST_LISTS};
use crate::changes::Noted;
use crate::topology;
use nightshift_cluster::{Finding, ObjectRef, Options, ReportConfig, Reporter, Told, entity_of};
use nightshift_collect::resolve::ENTITY;
use nightshift_collect::supervise::write_atomically;
use nightshift_collect::{Attributes, MetricPoint, SinkError, SourceError};
use nightshift_health::Health;
use nightshift_model::anomaly::OBJECT_FAULT;
use nightshift_model::batch::SeriesKind;
use nightshift_model::hash::hash64;
use nightshift_model::{Change, DEFAULT_TENANT, EnvelopeId, Observation, Timestamp};
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Shortest time between two looks.
const LOOK: Duration = Duration::from_secs(1);
/// A look takes at most this share of the time: a cluster that never rests must not take a processor.
const REST: u32 = 8;
/// Longest time between two looks: some faults come by time alone.
const LOOK_AT_LEAST: Duration = Duration::from_secs(30);
/// The series of faults that are followed are told this often.
const READINGS: Duration = Duration::from_secs(10);
/// Topology is looked at this often, and told whole again this often.
const TOPOLOGY: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(600));
/// Tries to hand something on, while the bus is busy.
const TRIES: u32 = 50;

impl Cluster {
    /// Looks for faults for as long as the cluster is watched.
    pub(super) async fn look(&self) -> Result<(), SourceError> {
        let config = ReportConfig { clear_after: Duration::from_secs(self.config.clear_after_secs) };
        let state = tokio::fs::read(&self.cluster.file).await.unwrap_or_default();
        let mut reporter = Reporter::new(&self.cluster.name, config, &state);
        drop(tokio::time::timeout(FIRST_LISTS, self.state.until_complete()).await);
        let (mut findings, mut kept) = (Vec::new(), state);
        let (mut looked, mut told_topology): (Option<Instant>, Option<Instant>) = (None, None);
        let mut known: HashSet<u64> = HashSet::new();
        let mut whole = Instant::now();
        let mut pause = LOOK;
        loop {
            let changed = tokio::select! {
                () = self.state.dirty.notified() => true,
                () = tokio::time::sleep(READINGS) => false,
            };
            if let Some(at) = looked {
                tokio::time::sleep_until(at + pause).await;
            }
            self.tell_changes().await?;
            // What is known grows old while nobody answers: nothing is concluded from it.
            if self.state.is_away() {
                self.say(&reporter);
                continue;
            }
            let now = self.context.clock.now();
            if changed || looked.is_none_or(|at| at.elapsed() >= LOOK_AT_LEAST) {
                let began = Instant::now();
                findings = self.find(now).await?;
                looked = Some(began);
                pause = LOOK.max(began.elapsed() * REST);
            }
            let told = reporter.step(&findings, &self.blind(), now);
            self.publish(told, now).await?;
            let state = reporter.state();
            // After it was told: what is told twice is known by its id, what is never told is lost.
            if state != kept {
                if let Err(error) = write_atomically(&self.cluster.file, &state) {
                    tracing::warn!(%error, file = %self.cluster.file.display(), "state of findings is not kept");
                }
                kept = state;
            }
            if told_topology.is_none_or(|at| at.elapsed() >= TOPOLOGY.0) {
                if whole.elapsed() >= TOPOLOGY.1 {
                    whole = Instant::now();
                    known.clear();
                }
                self.tell_topology(&mut known, now).await?;
                told_topology = Some(Instant::now());
            }
            self.say(&reporter);
        }
    }

    async fn find(&self, now: Timestamp) -> Result<Vec<Finding>, SourceError> {
        let state = Arc::clone(&self.state);
        let options = Options { budget_annotations: self.config.budget_annotations.clone(), ..Options::default() };
        // A look at ten thousand pods takes long enough to keep other work from its thread.
        let found =
            tokio::task::spawn_blocking(move || nightshift_cluster::scan(&state.world_blocking(), &options, now));
        let found = found.await;
        let mut found = found.map_err(|e| SourceError {
            what: "look for faults".into(),
            source: Some(Box::new(e)),
            fatal: false,
        })?;
        found.retain(|f| self.is_ours(&f.object));
        Ok(found)
    }

    /// Whether a fault of this object is ours to tell: namespaces are watched as their contents are, and what belongs to
    /// the whole cluster is told by the first share alone.
    fn is_ours(&self, object: &ObjectRef) -> bool {
        let share = crate::rules::Share::new(self.config.namespaces.clone(), self.config.shard.clone());
        match object.kind.as_str() {
            "Namespace" => share.admits(&object.name),
            _ => !object.namespace.is_empty() || self.config.shard.index == 0,
        }
    }

    /// Kinds of which nothing can be seen.
    fn blind(&self) -> BTreeSet<String> {
        self.state.troubles().into_iter().map(|t| t.kind).collect()
    }

    async fn publish(&self, told: Told, now: Timestamp) -> Result<(), SourceError> {
        let named = |id: &nightshift_model::EntityId| Attributes::from([(ENTITY.to_owned(), id.to_string())]);
        let alerts: Vec<_> = told.anomalies.into_iter().map(|a| (named(&a.entity.id), a)).collect();
        if !alerts.is_empty() {
            self.patiently("findings", || self.context.sink.alerts(&self.source, alerts.clone())).await?;
        }
        let mut points = Vec::with_capacity(told.readings.len() * 2);
        for reading in told.readings {
            let resource = Arc::new(named(&reading.entity));
            let labels = vec![("fault".to_owned(), reading.fault.slug().to_owned())];
            for (name, value) in [(OBJECT_FAULT, reading.value), (nightshift_cluster::REACH, reading.reach)] {
                points.push(MetricPoint {
                    resource: Arc::clone(&resource),
                    name: name.to_owned(),
                    labels: labels.clone(),
                    kind: SeriesKind::Gauge,
                    at: now,
                    value,
                });
            }
        }
        if !points.is_empty() {
            self.patiently("readings", || self.context.sink.metrics(&self.source, points.clone())).await?;
        }
        Ok(())
    }

    async fn tell_changes(&self) -> Result<(), SourceError> {
        let noted = self.state.take_changes();
        if noted.is_empty() {
            return Ok(());
        }
        let world = self.state.world().await;
        let changes: Vec<_> = noted.iter().filter_map(|n| self.change(n, &world)).collect();
        drop(world);
        let sent = self.patiently("changes", || self.context.sink.changes(&self.source, changes.clone())).await;
        if sent.is_err() {
            self.state.put_back(noted);
        }
        sent
    }

    fn change(&self, noted: &Noted, world: &nightshift_cluster::World) -> Option<(Attributes, Change)> {
        let told = noted.change.as_ref()?;
        let about = told.about.as_ref().unwrap_or(&noted.object);
        // What happens to a pod happens to its workload.
        let pod = (about.kind == "Pod").then(|| world.pods.get(&about.namespace, &about.name)).flatten();
        let root = pod.map_or_else(|| about.clone(), |p| topology::root_of(world, p));
        let entity = entity_of(&self.cluster.name, &root);
        let object: &ObjectRef = &noted.object;
        let subject = if told.about.is_some() { String::new() } else { format!("{object}: ") };
        let id = EnvelopeId::derive(&[
            b"kubernetes",
            self.cluster.name.as_bytes(),
            object.path().as_bytes(),
            told.key.as_bytes(),
        ]);
        let change = Change {
            id,
            tenant: DEFAULT_TENANT.to_owned(),
            at: noted.at,
            entity: None,
            service: String::new(),
            change_type: told.sort,
            version: told.version.clone(),
            git_sha: String::new(),
            author: told.who.clone(),
            summary: format!("{subject}{}", told.what),
            known_risks: Vec::new(),
            source: String::new(),
            attributes: BTreeMap::from([
                ("k8s.object".to_owned(), object.path()),
                ("k8s.cluster.name".to_owned(), self.cluster.name.clone()),
            ]),
        };
        Some((Attributes::from([(ENTITY.to_owned(), entity.to_string())]), change))
    }

    async fn tell_topology(&self, known: &mut HashSet<u64>, now: Timestamp) -> Result<(), SourceError> {
        let (state, cluster) = (Arc::clone(&self.state), self.cluster.name.clone());
        let seen = tokio::task::spawn_blocking(move || topology::observe(&state.world_blocking(), &cluster, now)).await;
        let seen = seen.unwrap_or_default();
        let fresh: Vec<(u64, Observation)> =
            seen.into_iter().map(|o| (key_of(&o), o)).filter(|(key, _)| !known.contains(key)).collect();
        if fresh.is_empty() {
            return Ok(());
        }
        let (keys, learned): (Vec<u64>, Vec<Observation>) = fresh.into_iter().unzip();
        self.patiently("topology", || self.context.sink.topology(&self.source, learned.clone())).await?;
        known.extend(keys);
        Ok(())
    }

    /// Hands something on, and waits while the bus is busy.
    pub(super) async fn patiently<F, R>(&self, what: &str, mut hand_on: F) -> Result<(), SourceError>
    where
        F: FnMut() -> R,
        R: Future<Output = Result<nightshift_collect::Accepted, SinkError>>,
    {
        let mut tried = 0;
        loop {
            tried += 1;
            match hand_on().await {
                Ok(_) => return Ok(()),
                Err(SinkError::Busy { retry_after }) if tried < TRIES => {
                    tokio::time::sleep(retry_after.clamp(Duration::from_millis(5), Duration::from_secs(10))).await;
                }
                Err(e) => {
                    let what = format!("hand on {what} of cluster {}", self.cluster.name);
                    return Err(SourceError { what, source: Some(Box::new(e)), fatal: false });
                }
            }
        }
    }

    /// Says how it stands.
    fn say(&self, reporter: &Reporter) {
        let troubles = self.state.troubles();
        let mut by_why: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for t in &troubles {
            by_why.entry(t.why.clone()).or_default().push(t.kind.clone());
        }
        let away = troubles.iter().any(|t| t.away);
        let mut parts = vec![format!("{} faults", reporter.open())];
        for (why, mut kinds) in by_why {
            kinds.sort();
            kinds.dedup();
            parts.push(format!("cannot see {}: {why}", kinds.join(", ")));
        }
        let switched_off = |why: &str| why.starts_with("switched off");
        let health = if away {
            Health::Unhealthy
        } else if troubles.iter().any(|t| !switched_off(&t.why)) {
            Health::Degraded
        } else {
            Health::Healthy
        };
        self.board.say(&self.cluster.name, health, parts.join("; "));
    }
}

/// What tells an observation from others, without its time.
fn key_of(seen: &Observation) -> u64 {
    let text = match seen {
        Observation::Entity { entity, .. } => format!("{entity:?}"),
        Observation::Alias { name, entity, .. } => format!("{name} {entity}"),
        Observation::Edge { from, to, kind, .. } => format!("{from} {kind:?} {to}"),
    };
    hash64(text.as_bytes())
}
