//! Entity resolution: which thing a record is about, by one ordered table.
//!
//! Lives here: the rules (Kubernetes owner > service > host > node > `instance` > `job`), the alias table, and the
//! context that travels with an entity (service, version, environment, owner).
//! Never here: I/O, or knowledge of a protocol beyond the names its labels go by.
//!
//! One thing has one name, so that a host seen by a node exporter, by OTLP and by our own host source is one entity
//! and one incident. Names of OpenTelemetry are read as they are (`service.name`), in Prometheus' older spelling
//! (`service_name`), and as Prometheus itself labels targets (`service`, `app`, `pod`, `instance`, `job`).

use crate::Attributes;
use nightshift_model::entity::ENTITY_ID_BYTES_MAX;
use nightshift_model::hash::hash64;
use nightshift_model::{EntityId, EntityMeta};
use parking_lot::RwLock;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Attribute by which a receiver tells the address of a peer on another machine: what "loopback" means there.
pub const REPORTER: &str = "nightshift.reporter";

/// Longest value of the context (service, version, environment, owner); the rest is cut off.
const CONTEXT_BYTES_MAX: usize = 256;

/// Most aliases that are kept; further ones are not learned here (topology still has them).
const ALIASES_MAX: usize = 200_000;

/// Attribute by which a source that knows the entity says so: its id as written. Nothing else is asked then.
pub const ENTITY: &str = "nightshift.entity";

/// One rule of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Rule {
    /// The Kubernetes owner of a pod (`k8s.deployment.name`, `deployment` and `namespace`, …), else the pod.
    Kubernetes,
    /// `service.namespace` and `service.name`, or a `service` or `app` label.
    Service,
    /// `host.name`, or `host.id` where there is no name.
    Host,
    /// `k8s.node.name` or `node` where nothing above says more.
    Node,
    /// `instance` without its port; loopback is the host of the reporting agent.
    Instance,
    /// `job`, as a service: what recording rules leave when they add up instances.
    Job,
}

/// Context for the entities whose id matches.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema, Default)]
#[serde(default)]
pub struct Override {
    /// Entity ids it is for; `*` stands for any number of characters: `*/host/-/db*`.
    pub entity: String,
    /// Logical service; empty: as observed.
    pub service: String,
    /// Version; empty: as observed.
    pub version: String,
    /// Environment; empty: as observed.
    pub environment: String,
    /// Owner; empty: as observed.
    pub owner: String,
}

/// How records are resolved to entities.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct ResolveConfig {
    /// Cluster of everything that does not say its own.
    pub cluster: String,
    /// Name of this host; empty: as the operating system says.
    pub hostname: String,
    /// Further names and addresses of this host.
    pub own_names: Vec<String>,
    /// The rules, in the order in which they are tried.
    pub order: Vec<Rule>,
    /// Labels that name the cluster, the first that is there wins.
    pub cluster_labels: Vec<String>,
    /// Values of `job` whose series are about the machine, whatever pod or service the exporter itself is.
    pub host_jobs: Vec<String>,
    /// Whether the owner of a pod is read from its name (`web-5d4f8c7b9-x2x4z` is of deployment `web`) when no label says it.
    pub owner_from_pod_name: bool,
    /// Fixed aliases: `instance=10.0.0.7` to an entity id.
    pub aliases: BTreeMap<String, String>,
    /// Environment of entities that do not say theirs.
    pub environment: String,
    /// Owner of entities that do not say theirs.
    pub owner: String,
    /// Context by entity; the first that matches wins.
    pub overrides: Vec<Override>,
}

impl Default for ResolveConfig {
    fn default() -> Self {
        Self {
            cluster: "local".into(),
            hostname: String::new(),
            own_names: Vec::new(),
            order: vec![Rule::Kubernetes, Rule::Service, Rule::Host, Rule::Node, Rule::Instance, Rule::Job],
            cluster_labels: ["k8s.cluster.name", "k8s_cluster_name", "cluster"].map(String::from).to_vec(),
            host_jobs: ["node", "node-exporter", "node_exporter", "windows-exporter", "windows_exporter"]
                .map(String::from)
                .to_vec(),
            owner_from_pod_name: true,
            aliases: BTreeMap::new(),
            environment: String::new(),
            owner: String::new(),
            overrides: Vec::new(),
        }
    }
}

/// Names and values that tell where a record comes from.
pub trait Names {
    /// The value of `name`; empty ones count as absent.
    fn get(&self, name: &str) -> Option<&str>;
}

impl Names for Attributes {
    fn get(&self, name: &str) -> Option<&str> {
        BTreeMap::get(self, name).map(String::as_str).filter(|v| !v.is_empty())
    }
}

impl Names for [(&str, &str)] {
    fn get(&self, name: &str) -> Option<&str> {
        self.iter().find(|(n, _)| *n == name).map(|(_, v)| *v).filter(|v| !v.is_empty())
    }
}

/// Whether a label of this name tells what a sample is about, so that sources which know the labels of a sample only
/// (a scrape, a query) put it with the resource.
pub fn names_entity(label: &str) -> bool {
    const TELLING: &[&str] = &[
        "cluster",
        "namespace",
        "pod",
        "deployment",
        "statefulset",
        "daemonset",
        "cronjob",
        "job_name",
        "replicaset",
        "service",
        "app",
        "nodename",
        "node",
        "instance",
        "job",
        "team",
        "owner",
        "environment",
    ];
    const PREFIXES: &[&str] =
        &["k8s.", "k8s_", "kubernetes_", "service.", "service_", "host.", "host_", "app.kubernetes.io/"];
    TELLING.contains(&label)
        || PREFIXES.iter().any(|p| label.starts_with(p))
        || label.starts_with("deployment.environment")
        || label.starts_with("deployment_environment")
        || label == "app_kubernetes_io_name"
}

/// Who reported a record: what loopback means in it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Origin {
    /// Address of the peer; `None` is this host.
    peer: Option<IpAddr>,
}

impl Origin {
    /// This host.
    pub const OWN: Self = Self { peer: None };

    /// A peer on the network; a loopback address is this host.
    pub fn peer(address: IpAddr) -> Self {
        let address = address.to_canonical();
        Self { peer: (!address.is_loopback()).then_some(address) }
    }

    /// Tells origins apart in hashes; zero is this host.
    pub fn seed(&self) -> u64 {
        match self.peer {
            None => 0,
            Some(IpAddr::V4(a)) => hash64(&a.octets()),
            Some(IpAddr::V6(a)) => hash64(&a.octets()),
        }
    }
}

/// What was found.
#[derive(Debug, Clone, PartialEq)]
pub struct Resolved {
    /// The entity with its context.
    pub meta: EntityMeta,
    /// Other names it goes by, learned from this record.
    pub aliases: Vec<String>,
    /// The host it runs on, when the record says so.
    pub runs_on: Option<EntityId>,
}

/// Resolves records. Shared by all sources; the alias table may be replaced while it runs.
#[derive(Debug)]
pub struct Resolver {
    settings: ResolveConfig,
    own: EntityId,
    own_names: BTreeSet<String>,
    aliases: RwLock<Arc<BTreeMap<String, EntityId>>>,
    generation: AtomicU64,
}

impl Resolver {
    /// A resolver for an agent on host `hostname`. `addresses`: those of this host.
    pub fn new(settings: ResolveConfig, hostname: &str, addresses: &[IpAddr]) -> Self {
        let hostname = if settings.hostname.is_empty() { hostname } else { &settings.hostname };
        let hostname = match host_name(hostname) {
            name if name.is_empty() => "localhost".to_owned(),
            name => name,
        };
        let own = entity_id(&settings.cluster, "host", "", &hostname);
        let mut own_names: BTreeSet<_> = settings.own_names.iter().map(|n| host_name(n)).collect();
        own_names.extend(addresses.iter().filter(|a| !a.is_loopback()).map(|a| a.to_canonical().to_string()));
        // `web1.example.com` is `web1` to its own programs.
        own_names.extend(hostname.split_once('.').map(|(short, _)| short.to_owned()));
        own_names.insert(hostname);
        let fixed = settings.aliases.iter().filter_map(|(n, id)| Some((n.clone(), EntityId::parse(id).ok()?)));
        let aliases = RwLock::new(Arc::new(fixed.collect()));
        Self { own, own_names, aliases, generation: AtomicU64::new(0), settings }
    }

    /// The host of this agent.
    pub const fn own_host(&self) -> &EntityId {
        &self.own
    }

    /// The cluster of what does not say its own.
    pub fn cluster(&self) -> &str {
        &self.settings.cluster
    }

    /// Grows whenever a record may resolve to another entity than before.
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Learns that `name` (`instance=10.0.0.7`) stands for `entity`, as topology says. Gives whether that is news.
    pub fn learn(&self, name: &str, entity: &EntityId) -> bool {
        let mut table = self.aliases.write();
        let known = table.get(name);
        if known == Some(entity) || (known.is_none() && table.len() >= ALIASES_MAX) {
            return false;
        }
        Arc::make_mut(&mut table).insert(name.to_owned(), entity.clone());
        drop(table);
        self.generation.fetch_add(1, Ordering::AcqRel);
        true
    }

    /// Replaces the learned aliases; the fixed ones of the configuration stay and win.
    pub fn set_aliases(&self, aliases: impl IntoIterator<Item = (String, EntityId)>) {
        let mut table: BTreeMap<_, _> = aliases.into_iter().take(ALIASES_MAX).collect();
        for (name, id) in &self.settings.aliases {
            if let Ok(id) = EntityId::parse(id) {
                table.insert(name.clone(), id);
            }
        }
        let mut current = self.aliases.write();
        if **current != table {
            *current = Arc::new(table);
            drop(current);
            self.generation.fetch_add(1, Ordering::AcqRel);
        }
    }

    /// Aliases in force.
    pub fn aliases(&self) -> Arc<BTreeMap<String, EntityId>> {
        self.aliases.read().clone()
    }

    /// The entity that `names` tell of; `None` when they tell of nothing.
    pub fn resolve(&self, names: &(impl Names + ?Sized), origin: &Origin) -> Option<Resolved> {
        let one = Lookup::new(self, names, origin);
        let about_machine = one
            .any(&["job"])
            .is_some_and(|job| self.settings.host_jobs.iter().any(|j| job == j || job.rsplit('/').next() == Some(j)));
        let mut found = one.any(&[ENTITY]).and_then(|id| Some((EntityId::parse(id).ok()?, Vec::new())));
        if found.is_none() && about_machine {
            found = one.machine();
        }
        for rule in &self.settings.order {
            if found.is_some() {
                break;
            }
            found = match rule {
                Rule::Kubernetes => one.kubernetes(),
                Rule::Service => one.service(),
                Rule::Host => one.host(),
                Rule::Node => one.node(),
                Rule::Instance => one.instance(),
                Rule::Job => one.job(),
            };
        }
        let (id, aliases) = found?;
        let runs_on = (id.kind_str() != "host").then(|| one.host()).flatten().map(|(host, _)| host);
        Some(Resolved { meta: self.context(id, &one), aliases, runs_on })
    }

    /// As [`Self::resolve`]; what tells of nothing is about the host of the reporting agent.
    pub fn resolve_or_reporter(&self, names: &(impl Names + ?Sized), origin: &Origin) -> Resolved {
        self.resolve(names, origin).unwrap_or_else(|| {
            let one = Lookup::new(self, names, origin);
            let id = one.reporter();
            Resolved { meta: self.context(id, &one), aliases: Vec::new(), runs_on: None }
        })
    }

    fn context<N: Names + ?Sized>(&self, id: EntityId, one: &Lookup<'_, N>) -> EntityMeta {
        let kind = id.kind_str();
        let mut meta = EntityMeta::bare(id.clone());
        meta.service = match kind {
            "host" | "node" => String::new(),
            "service" => id.name(),
            "other" => one.service_name().unwrap_or_default().to_owned(),
            _ => one.service_name().map_or_else(|| id.name(), str::to_owned),
        };
        // A host's version is not that of whatever service it is observed by.
        if !matches!(kind, "host" | "node") {
            meta.version = one.any(&["service.version", "service_version"]).unwrap_or_default().to_owned();
        }
        const ENVIRONMENT: &[&str] = &[
            "deployment.environment.name",
            "deployment.environment",
            "deployment_environment_name",
            "deployment_environment",
            "environment",
        ];
        meta.environment = one.any(ENVIRONMENT).unwrap_or(&self.settings.environment).to_owned();
        meta.owner =
            one.any(&["service.owner", "service_owner", "owner", "team"]).unwrap_or(&self.settings.owner).to_owned();
        if let Some(o) = self.settings.overrides.iter().find(|o| matches_glob(&o.entity, id.as_str())) {
            for (field, value) in [
                (&mut meta.service, &o.service),
                (&mut meta.version, &o.version),
                (&mut meta.environment, &o.environment),
                (&mut meta.owner, &o.owner),
            ] {
                if !value.is_empty() {
                    field.clone_from(value);
                }
            }
        }
        for field in [&mut meta.service, &mut meta.version, &mut meta.environment, &mut meta.owner] {
            cut(field, CONTEXT_BYTES_MAX);
        }
        meta
    }
}

/// What a rule finds: the entity, and other names it goes by.
type Found = Option<(EntityId, Vec<String>)>;

/// One record's names while the rules look at them.
struct Lookup<'a, N: Names + ?Sized> {
    resolver: &'a Resolver,
    names: &'a N,
    origin: Origin,
    cluster: &'a str,
    aliases: Arc<BTreeMap<String, EntityId>>,
}

impl<'a, N: Names + ?Sized> Lookup<'a, N> {
    fn new(resolver: &'a Resolver, names: &'a N, origin: &Origin) -> Self {
        let told = names.get(REPORTER).and_then(|a| a.parse().ok()).map(Origin::peer);
        let labels = &resolver.settings.cluster_labels;
        let cluster = labels.iter().find_map(|n| names.get(n)).unwrap_or(&resolver.settings.cluster);
        Self { resolver, names, origin: told.unwrap_or_else(|| origin.clone()), cluster, aliases: resolver.aliases() }
    }

    fn any(&self, names: &[&str]) -> Option<&'a str> {
        names.iter().find_map(|n| self.names.get(n))
    }

    fn alias(&self, kind: &str, name: &str) -> Option<EntityId> {
        self.aliases.get(&format!("{kind}={name}")).cloned()
    }

    fn namespace(&self) -> Option<&'a str> {
        self.any(&["k8s.namespace.name", "k8s_namespace_name", "namespace", "kubernetes_namespace"])
    }

    fn service_name(&self) -> Option<&'a str> {
        const NAMES: &[&str] =
            &["service.name", "service_name", "service", "app", "app.kubernetes.io/name", "app_kubernetes_io_name"];
        // What SDKs say when nobody told them a name.
        self.any(NAMES).filter(|n| !n.starts_with("unknown_service"))
    }

    fn kubernetes(&self) -> Found {
        const OWNERS: [(&str, [&str; 3]); 6] = [
            ("deployment", ["k8s.deployment.name", "k8s_deployment_name", "deployment"]),
            ("statefulset", ["k8s.statefulset.name", "k8s_statefulset_name", "statefulset"]),
            ("daemonset", ["k8s.daemonset.name", "k8s_daemonset_name", "daemonset"]),
            ("cronjob", ["k8s.cronjob.name", "k8s_cronjob_name", "cronjob"]),
            ("job", ["k8s.job.name", "k8s_job_name", "job_name"]),
            ("replicaset", ["k8s.replicaset.name", "k8s_replicaset_name", "replicaset"]),
        ];
        let namespace = self.namespace();
        let pod = self.any(&["k8s.pod.name", "k8s_pod_name", "pod", "kubernetes_pod_name"]);
        // A plain `deployment` label without a namespace is not Kubernetes' word.
        let says_so = |name: &str| name.starts_with("k8s") || namespace.is_some();
        let namespace = namespace.unwrap_or_default();
        let pod_name = pod.map(|p| format!("{namespace}/{p}"));
        if let Some(known) = pod_name.as_deref().and_then(|p| self.alias("pod", p)) {
            return Some((known, Vec::new()));
        }
        for (kind, spellings) in OWNERS {
            let Some(owner) = spellings.iter().filter(|s| says_so(s)).find_map(|s| self.names.get(s)) else { continue };
            let (kind, owner) = match (kind, owner.rsplit_once('-')) {
                ("replicaset", Some((deployment, hash))) if is_template_hash(hash) => ("deployment", deployment),
                _ => (kind, owner),
            };
            let aliases = pod_name.iter().map(|p| format!("pod={p}")).collect();
            return Some((entity_id(self.cluster, kind, namespace, owner), aliases));
        }
        let pod = pod.filter(|_| !namespace.is_empty())?;
        let (kind, name) = match self.resolver.settings.owner_from_pod_name {
            true => owner_of_pod(pod),
            false => ("pod", pod),
        };
        Some((entity_id(self.cluster, kind, namespace, name), Vec::new()))
    }

    fn service(&self) -> Found {
        let name = self.service_name()?;
        let namespace =
            self.any(&["service.namespace", "service_namespace"]).or_else(|| self.namespace()).unwrap_or_default();
        let known = match namespace {
            "" => self.alias("service", name),
            _ => self.alias("service", &format!("{namespace}/{name}")),
        };
        Some((known.unwrap_or_else(|| entity_id(self.cluster, "service", namespace, name)), Vec::new()))
    }

    fn host(&self) -> Found {
        let id = self.any(&["host.id", "host_id"]);
        let by_id = id.and_then(|i| self.alias("host.id", i));
        let Some(name) = self.any(&["host.name", "host_name"]) else {
            return Some((by_id.unwrap_or_else(|| self.named_host(id.unwrap_or_default())), Vec::new()))
                .filter(|_| id.is_some());
        };
        let aliases = id.map(|i| format!("host.id={i}")).into_iter().collect();
        Some((by_id.unwrap_or_else(|| self.named_host(name)), aliases))
    }

    fn node(&self) -> Found {
        let name = self.any(&["k8s.node.name", "k8s_node_name", "node", "kubernetes_node"])?;
        let known = self.alias("node", name);
        Some((known.unwrap_or_else(|| entity_id(self.cluster, "node", "", name)), Vec::new()))
    }

    /// The machine that an exporter of machine metrics speaks of.
    fn machine(&self) -> Found {
        let named = self.any(&["nodename", "host.name", "host_name"]).map(|n| (self.named_host(n), Vec::new()));
        named.or_else(|| self.instance())
    }

    fn instance(&self) -> Found {
        let instance = self.any(&["instance"])?;
        // A probed address (blackbox exporter) is the thing probed.
        if instance.contains('/') {
            return Some((entity_id(self.cluster, "other", "", instance), Vec::new()));
        }
        Some((self.named_host(without_port(instance)), Vec::new()))
    }

    fn job(&self) -> Found {
        let job = self.any(&["job"])?;
        // OpenTelemetry's mapping writes `service.namespace/service.name` into `job`.
        let (namespace, name) = job.split_once('/').unwrap_or(("", job));
        Some((entity_id(self.cluster, "service", namespace, name), Vec::new()))
    }

    fn named_host(&self, name: &str) -> EntityId {
        let name = host_name(name);
        let address = name.parse::<IpAddr>().ok().map(|a| a.to_canonical());
        let loopback = name == "localhost"
            || name.ends_with(".localhost")
            || name.starts_with("localhost.")
            || address.is_some_and(|a| a.is_loopback() || a.is_unspecified());
        if loopback {
            return self.reporter();
        }
        if self.resolver.own_names.contains(&name) {
            return self.resolver.own.clone();
        }
        self.alias("host.name", &name)
            .or_else(|| self.alias("instance", &name))
            .unwrap_or_else(|| entity_id(self.cluster, "host", "", &name))
    }

    fn reporter(&self) -> EntityId {
        match self.origin.peer {
            Some(address) if !self.resolver.own_names.contains(&address.to_string()) => {
                self.named_host(&address.to_string())
            }
            _ => self.resolver.own.clone(),
        }
    }
}

/// An id that readers accept: a name that is too long keeps its start and gets a hash.
fn entity_id(cluster: &str, kind: &str, namespace: &str, name: &str) -> EntityId {
    let id = EntityId::new(cluster, kind, namespace, name);
    if id.as_str().len() <= ENTITY_ID_BYTES_MAX {
        return id;
    }
    // Escaping makes at most three bytes of one, so that four parts of these lengths fit.
    let short = |text: &str, max| {
        if text.len() <= max {
            return text.to_owned();
        }
        let mut start = text.to_owned();
        cut(&mut start, max - 17);
        format!("{start}~{:016x}", hash64(text.as_bytes()))
    };
    EntityId::new(&short(cluster, 64), &short(kind, 48), &short(namespace, 80), &short(name, 128))
}

fn cut(text: &mut String, max: usize) {
    if text.len() > max {
        let end = (0..=max).rev().find(|i| text.is_char_boundary(*i)).unwrap_or(0);
        text.truncate(end);
    }
}

/// Names of hosts know no case and may end with the root's dot.
fn host_name(name: &str) -> String {
    name.trim().trim_end_matches('.').to_ascii_lowercase()
}

/// `web1:9100` is `web1`, `[::1]:9100` is `::1`, `::1` is itself.
fn without_port(instance: &str) -> &str {
    if let Some((inside, _)) = instance.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        return inside;
    }
    match instance.rsplit_once(':') {
        Some((host, port)) if !host.contains(':') && port.bytes().all(|b| b.is_ascii_digit()) => host,
        _ => instance,
    }
}

/// Kubernetes draws the random parts of names from these letters, so that no words come out.
/// Source: `k8s.io/apimachinery/pkg/util/rand`.
fn is_random(text: &str) -> bool {
    text.bytes().all(|b| b"bcdfghjklmnpqrstvwxz2456789".contains(&b))
}

fn is_template_hash(text: &str) -> bool {
    (6..=10).contains(&text.len()) && is_random(text)
}

/// The owner as the pod's name tells it: `web-5d4f8c7b9-x2x4z` is of deployment `web`, `db-0` of stateful set `db`.
/// A daemon set's and a job's pods look alike, so that those are themselves.
fn owner_of_pod(pod: &str) -> (&'static str, &str) {
    let Some((front, last)) = pod.rsplit_once('-') else { return ("pod", pod) };
    if last.len() == 5
        && is_random(last)
        && let Some((deployment, hash)) = front.rsplit_once('-')
        && is_template_hash(hash)
    {
        return ("deployment", deployment);
    }
    if !last.is_empty() && last.len() <= 4 && last.bytes().all(|b| b.is_ascii_digit()) {
        return ("statefulset", front);
    }
    ("pod", pod)
}

/// Whether `text` matches `pattern`, in which `*` stands for any number of characters.
pub(crate) fn matches_glob(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else { return false };
    let Some(last) = pattern.rsplit_once('*').map(|(_, last)| last) else { return rest.is_empty() };
    let middle = parts.collect::<Vec<_>>();
    for part in &middle[..middle.len().saturating_sub(1)] {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests;
