//! What is known of one cluster while it is watched, shared by those who write it and those who read it.

use crate::changes::{self, Noted};
use crate::client::KubeError;
use crate::discovery::Kind;
use crate::rules::Share;
use nightshift_cluster::checks::history::Record;
use nightshift_cluster::{Resource, Seen, World};
use nightshift_model::Timestamp;
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};
use tokio::sync::{Notify, RwLock, RwLockReadGuard};

/// Changes that wait to be told; beyond, the oldest go.
const CHANGES_MAX: usize = 10_000;
/// How long history is kept.
const HISTORY: std::time::Duration = std::time::Duration::from_secs(6 * 3600);

/// Kind, and the namespace where only that is watched.
type Place = (Kind, Option<String>);

/// What keeps a kind from being seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    /// Kind.
    pub kind: String,
    /// Why.
    pub why: String,
    /// Whether nobody answers, so that nothing is known at the moment.
    pub away: bool,
}

#[derive(Debug, Default)]
struct Status {
    /// Whether it is known which kinds there are.
    discovered: bool,
    /// Places that wait for their first list.
    waiting: BTreeSet<Place>,
    troubles: BTreeMap<Place, Trouble>,
    /// Namespaces in which each kind is watched, where it is not the whole cluster.
    seen_in: BTreeMap<Kind, BTreeSet<String>>,
    changes: Vec<Noted>,
}

/// What is known of one cluster.
#[derive(Debug)]
pub struct ClusterState {
    name: String,
    share: Share,
    world: RwLock<World>,
    status: Mutex<Status>,
    /// Something changed.
    pub(crate) dirty: Notify,
}

impl ClusterState {
    /// Nothing is known yet.
    pub(crate) fn new(name: &str, share: Share) -> Self {
        Self { name: name.to_owned(), share, world: RwLock::default(), status: Mutex::default(), dirty: Notify::new() }
    }

    /// What the cluster is called.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Everything known, to look at. Watches wait as long as it is held: be quick.
    pub async fn world(&self) -> RwLockReadGuard<'_, World> {
        self.world.read().await
    }

    /// As [`Self::world`], for threads that may block.
    pub fn world_blocking(&self) -> RwLockReadGuard<'_, World> {
        self.world.blocking_read()
    }

    /// Changes what no watch tells: logs, use.
    pub(crate) async fn edit(&self, change: impl FnOnce(&mut World)) {
        let mut world = self.world.write().await;
        change(&mut world);
        drop(world);
        self.dirty.notify_one();
    }

    /// What could not be seen, and why.
    pub fn troubles(&self) -> Vec<Trouble> {
        self.status.lock().troubles.values().cloned().collect()
    }

    /// Whether every kind was listed once, or refused.
    pub fn is_complete(&self) -> bool {
        let status = self.status.lock();
        status.discovered && status.waiting.is_empty()
    }

    /// Waits until it is.
    pub(crate) async fn until_complete(&self) {
        while !self.is_complete() {
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
    }

    /// Every kind that is served is expected by now.
    pub(crate) fn discovered(&self) {
        self.status.lock().discovered = true;
    }

    /// Whether nobody answers, so that what is known may be old.
    pub fn is_away(&self) -> bool {
        self.status.lock().troubles.values().any(|t| t.away)
    }

    /// Whether a namespace is watched.
    pub(crate) fn admits(&self, namespace: &str) -> bool {
        self.share.admits(namespace)
    }

    /// A kind that will be listed.
    pub(crate) fn expect(&self, kind: Kind, namespace: Option<&str>) {
        self.status.lock().waiting.insert((kind, namespace.map(str::to_owned)));
    }

    /// Changes that were seen since the last call.
    pub(crate) fn take_changes(&self) -> Vec<Noted> {
        std::mem::take(&mut self.status.lock().changes)
    }

    /// Puts changes back that could not be told.
    pub(crate) fn put_back(&self, mut noted: Vec<Noted>) {
        let mut status = self.status.lock();
        noted.append(&mut status.changes);
        noted.truncate(CHANGES_MAX);
        status.changes = noted;
    }

    /// A whole list.
    pub(crate) async fn replace(&self, kind: Kind, namespace: Option<&str>, mut new: World, now: Timestamp) {
        if !self.share.is_all() {
            kind.keep_namespaces(&mut new, |n| n.is_empty() || self.share.admits(n));
        }
        let mut world = self.world.write().await;
        // What is there at the first look was not changed by anybody just now.
        let first = self.status.lock().waiting.contains(&(kind, namespace.map(str::to_owned)));
        let noted = if first { Vec::new() } else { changes::between(kind, namespace, &world, &new, now) };
        kind.exchange(&mut world, &mut new, namespace);
        let seen = self.seen_after(kind, namespace, &world);
        kind.set_seen(&mut world, seen);
        if kind == Kind::Known(Resource::Namespaces) {
            self.namespaces_changed(&mut world);
        }
        self.note(&mut world, noted);
        world.history.forget_before(now - HISTORY);
        drop(world);
        self.well(kind, namespace);
        self.dirty.notify_one();
    }

    /// One object.
    pub(crate) async fn put(&self, kind: Kind, mut one: World, now: Timestamp) {
        if !self.share.is_all() {
            kind.keep_namespaces(&mut one, |n| n.is_empty() || self.share.admits(n));
            if kind.count(&one) == 0 {
                return;
            }
        }
        let mut world = self.world.write().await;
        let noted = changes::of_one(kind, &world, &one, now);
        let before = kind.count(&world);
        kind.append(&mut world, &mut one);
        if kind == Kind::Known(Resource::Namespaces) && kind.count(&world) != before {
            self.namespaces_changed(&mut world);
        }
        // Leases are renewed all the time; who holds one is what counts.
        let news = kind != Kind::Known(Resource::Leases) || !noted.is_empty();
        self.note(&mut world, noted);
        drop(world);
        if news {
            self.dirty.notify_one();
        }
    }

    /// One object is gone.
    pub(crate) async fn remove(&self, kind: Kind, namespace: &str, name: &str, now: Timestamp) {
        let mut world = self.world.write().await;
        kind.remove(&mut world, namespace, name);
        if changes::is_remembered(kind) {
            let object = kind.object(&(namespace.to_owned(), name.to_owned()));
            world.history.add(object, now, Record::Deleted);
        }
        drop(world);
        self.dirty.notify_one();
    }

    fn note(&self, world: &mut World, noted: Vec<Noted>) {
        if noted.is_empty() {
            return;
        }
        for one in &noted {
            for record in &one.records {
                world.history.add(one.object.clone(), one.at, record.clone());
            }
        }
        let mut status = self.status.lock();
        let told = noted.into_iter().filter(|n| n.change.is_some());
        let room = CHANGES_MAX.saturating_sub(status.changes.len());
        status.changes.extend(told.take(room));
    }

    /// How much of a kind is seen after a list of it.
    fn seen_after(&self, kind: Kind, namespace: Option<&str>, world: &World) -> Seen {
        if let Some(namespace) = namespace {
            let mut status = self.status.lock();
            let seen = status.seen_in.entry(kind).or_default();
            seen.insert(namespace.to_owned());
            return Seen::Namespaces(seen.clone());
        }
        let spread = match kind {
            Kind::Known(resource) => resource.namespaced(),
            Kind::Custom(..) => true,
        };
        if self.share.is_all() || !spread { Seen::Whole } else { Seen::Namespaces(self.own_namespaces(world)) }
    }

    fn own_namespaces(&self, world: &World) -> BTreeSet<String> {
        let all = world.namespaces.iter().map(|n| &n.metadata.name);
        all.filter(|n| self.share.admits(n)).cloned().collect()
    }

    /// What is watched of the whole cluster is seen in the namespaces that are ours: which ones changed.
    fn namespaces_changed(&self, world: &mut World) {
        if self.share.is_all() {
            return;
        }
        let own = self.own_namespaces(world);
        let narrow: BTreeSet<Kind> = self.status.lock().seen_in.keys().copied().collect();
        for resource in Resource::ALL.iter().filter(|r| r.namespaced() && !narrow.contains(&Kind::Known(**r))) {
            if matches!(world.seen(*resource), Seen::Namespaces(_)) {
                world.set_seen(*resource, Seen::Namespaces(own.clone()));
            }
        }
        for table in world.custom.values_mut() {
            if matches!(table.seen, Seen::Namespaces(_)) {
                table.seen = Seen::Namespaces(own.clone());
            }
        }
    }

    /// It is refused: nothing of it is known from here on.
    pub(crate) async fn refuse(&self, kind: Kind, namespace: Option<&str>, why: &str, now: Timestamp) {
        let mut world = self.world.write().await;
        let mut nothing = World::default();
        kind.exchange(&mut world, &mut nothing, namespace);
        let seen = {
            let mut status = self.status.lock();
            let trouble = Trouble { kind: kind.name().to_owned(), why: why.to_owned(), away: false };
            status.troubles.insert((kind, namespace.map(str::to_owned)), trouble);
            match (namespace, status.seen_in.get_mut(&kind)) {
                (Some(namespace), Some(seen)) => {
                    seen.remove(namespace);
                    if seen.is_empty() { Seen::Refused(why.to_owned()) } else { Seen::Namespaces(seen.clone()) }
                }
                _ => Seen::Refused(why.to_owned()),
            }
        };
        kind.set_seen(&mut world, seen);
        world.history.forget_before(now - HISTORY);
        drop(world);
        self.listed(kind, namespace);
        self.dirty.notify_one();
    }

    /// The server has no such kind.
    pub(crate) async fn not_served(&self, kind: Kind) {
        let mut world = self.world.write().await;
        let mut nothing = World::default();
        kind.exchange(&mut world, &mut nothing, None);
        kind.set_seen(&mut world, Seen::NotServed);
        drop(world);
        self.listed(kind, None);
        self.dirty.notify_one();
    }

    /// A place answers.
    pub(crate) fn well(&self, kind: Kind, namespace: Option<&str>) {
        self.status.lock().troubles.remove(&(kind, namespace.map(str::to_owned)));
        self.listed(kind, namespace);
    }

    /// A place does not answer at the moment.
    pub(crate) fn away(&self, kind: Kind, namespace: Option<&str>, error: &KubeError) {
        let trouble = Trouble { kind: kind.name().to_owned(), why: error.to_string(), away: error.is_hopeless() };
        self.status.lock().troubles.insert((kind, namespace.map(str::to_owned)), trouble);
    }

    fn listed(&self, kind: Kind, namespace: Option<&str>) {
        self.status.lock().waiting.remove(&(kind, namespace.map(str::to_owned)));
    }
}
