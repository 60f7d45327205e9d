//! What an API server serves: which of the kinds that we know, in which version, and which of other software.

use crate::client::{ApiServer, KubeError};
use nightshift_cluster::objects::CUSTOM_KINDS;
use nightshift_cluster::{Key, ObjectRef, Resource, Seen, World};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};

/// Largest answer, bytes: a cluster with 2,000 kinds needs about 4 MiB.
const BYTES_MAX: usize = 32 << 20;
/// Groups and their resources in one answer, since Kubernetes 1.27; older servers give a list of groups.
const ACCEPT: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,\
                      application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList,application/json";

/// A kind to look at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// With a table of its own.
    Known(Resource),
    /// Of other software: group and kind.
    Custom(&'static str, &'static str),
}

impl Kind {
    /// Every kind that is worth looking at.
    pub fn all() -> impl Iterator<Item = Self> {
        let known = Resource::ALL.iter().map(|r| Self::Known(*r));
        known.chain(CUSTOM_KINDS.iter().map(|(group, kind)| Self::Custom(group, kind)))
    }

    /// API group; empty for the core one.
    pub const fn group(self) -> &'static str {
        match self {
            Self::Known(resource) => resource.group(),
            Self::Custom(group, _) => group,
        }
    }

    /// Name of the kind, as in manifests.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Known(resource) => resource.kind(),
            Self::Custom(_, kind) => kind,
        }
    }

    /// Reads a page of a list into a world; gives the token of the next page and the version of the list.
    ///
    /// # Errors
    /// When it is no such list.
    pub fn read(self, world: &mut World, json: &[u8]) -> Result<(String, String), KubeError> {
        let meta = match self {
            Self::Known(resource) => world.put_list(resource, json),
            Self::Custom(group, kind) => world.put_custom_list(group, kind, json),
        };
        // Not the parser's words: they may quote a value.
        let meta = meta.map_err(|e| {
            KubeError::Unreadable(format!("no list of {} at line {} column {}", self.name(), e.line(), e.column()))
        })?;
        Ok((meta.next, meta.resource_version))
    }

    /// Reads one object into a world.
    ///
    /// # Errors
    /// When it is no such object.
    pub fn put(self, world: &mut World, json: &[u8]) -> Result<Key, KubeError> {
        let key = match self {
            Self::Known(resource) => world.put_json(resource, json),
            Self::Custom(..) => world.put_custom(json),
        };
        key.map_err(|e| KubeError::Unreadable(format!("no {} at line {} column {}", self.name(), e.line(), e.column())))
    }

    /// Takes an object out of a world.
    pub fn remove(self, world: &mut World, namespace: &str, name: &str) {
        match self {
            Self::Known(resource) => world.remove(resource, namespace, name),
            Self::Custom(group, kind) => {
                if let Some(table) = world.custom.get_mut(&(group.to_owned(), kind.to_owned())) {
                    table.remove(namespace, name);
                }
            }
        }
    }

    /// Swaps the objects of two worlds: all, or those of one namespace.
    pub fn exchange(self, world: &mut World, other: &mut World, namespace: Option<&str>) {
        match self {
            Self::Known(resource) => world.exchange(resource, other, namespace),
            Self::Custom(group, kind) => {
                let place = (group.to_owned(), kind.to_owned());
                let table = world.custom.entry(place.clone()).or_default();
                table.exchange(other.custom.entry(place).or_default(), namespace);
            }
        }
    }

    /// Takes objects from another world in place of those of the same name.
    pub fn append(self, world: &mut World, other: &mut World) {
        match self {
            Self::Known(resource) => world.append(resource, other),
            Self::Custom(group, kind) => {
                let place = (group.to_owned(), kind.to_owned());
                let table = world.custom.entry(place.clone()).or_default();
                table.append(other.custom.entry(place).or_default());
            }
        }
    }

    /// Keeps the objects whose namespace the test holds for.
    pub fn keep_namespaces(self, world: &mut World, keep: impl Fn(&str) -> bool) {
        match self {
            Self::Known(resource) => world.keep_namespaces(resource, keep),
            Self::Custom(group, kind) => {
                if let Some(table) = world.custom.get_mut(&(group.to_owned(), kind.to_owned())) {
                    table.retain(|k, _| keep(&k.0));
                }
            }
        }
    }

    /// Says whether it could be seen. What is not served has no table.
    pub fn set_seen(self, world: &mut World, seen: Seen) {
        match self {
            Self::Known(resource) => world.set_seen(resource, seen),
            Self::Custom(group, kind) => {
                let place = (group.to_owned(), kind.to_owned());
                if seen == Seen::NotServed {
                    world.custom.remove(&place);
                } else {
                    world.custom.entry(place).or_default().seen = seen;
                }
            }
        }
    }

    /// How many objects a world holds.
    pub fn count(self, world: &World) -> usize {
        match self {
            Self::Known(resource) => world.count(resource),
            Self::Custom(group, kind) => world.customs(group, kind).map_or(0, nightshift_cluster::Table::len),
        }
    }

    /// The object of this kind with this key.
    pub fn object(self, key: &Key) -> ObjectRef {
        ObjectRef::new(self.name(), key.0.clone(), key.1.clone())
    }
}

/// How a kind is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// The kind.
    pub kind: Kind,
    /// Version that is served.
    pub version: String,
    /// Name in URLs.
    pub plural: String,
    /// Whether its objects are in namespaces.
    pub namespaced: bool,
}

impl Endpoint {
    /// As this program expects it, where the server could not be asked what it serves.
    fn expected(resource: Resource) -> Self {
        Self {
            kind: Kind::Known(resource),
            version: resource.version().to_owned(),
            plural: resource.plural().to_owned(),
            namespaced: resource.namespaced(),
        }
    }

    /// Path of its list, of the whole cluster or of a namespace.
    pub fn path(&self, namespace: Option<&str>) -> String {
        let (group, version, plural) = (self.kind.group(), &self.version, &self.plural);
        let base = if group.is_empty() { format!("/api/{version}") } else { format!("/apis/{group}/{version}") };
        match namespace {
            Some(namespace) => format!("{base}/namespaces/{namespace}/{plural}"),
            None => format!("{base}/{plural}"),
        }
    }
}

/// What a server serves of what is worth looking at.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Served {
    /// What is there.
    pub endpoints: Vec<Endpoint>,
    /// What is not.
    pub absent: Vec<Kind>,
    /// Why kinds of other software could not be looked for, if they could not.
    pub trouble: Option<String>,
}

/// Asks what the server serves. Where it does not tell, the kinds that every server has are taken to be there.
pub async fn discover(server: &ApiServer) -> Served {
    let groups = match groups(server).await {
        Ok(groups) => groups,
        Err(e) => {
            let endpoints = Resource::ALL.iter().map(|r| Endpoint::expected(*r)).collect();
            return Served { endpoints, absent: Vec::new(), trouble: Some(e.to_string()) };
        }
    };
    let mut served = Served::default();
    for kind in Kind::all() {
        let expected = match kind {
            // The core group has one version, and is not in the list of groups.
            Kind::Known(resource) if resource.group().is_empty() => {
                served.endpoints.push(Endpoint::expected(resource));
                continue;
            }
            Kind::Known(resource) => resource.version(),
            Kind::Custom(..) => "",
        };
        let versions = groups.get(kind.group()).map_or(&[][..], Vec::as_slice);
        let of = |version: &GroupVersion| version.kinds.get(kind.name()).cloned();
        // The version that our views were made for, else the one that the server prefers.
        let found = versions.iter().find(|v| v.version == expected).and_then(|v| Some((v, of(v)?)));
        match found.or_else(|| versions.iter().find_map(|v| Some((v, of(v)?)))) {
            Some((version, (plural, namespaced))) => {
                served.endpoints.push(Endpoint { kind, version: version.version.clone(), plural, namespaced });
            }
            None => served.absent.push(kind),
        }
    }
    served
}

/// A version of a group with its kinds that can be listed: their plural, and whether they are in namespaces.
#[derive(Debug, Default)]
struct GroupVersion {
    version: String,
    kinds: BTreeMap<String, (String, bool)>,
}

type Groups = BTreeMap<String, Vec<GroupVersion>>;

async fn groups(server: &ApiServer) -> Result<Groups, KubeError> {
    let bytes = server.get_as("/apis", ACCEPT, BYTES_MAX).await?;
    let list: DiscoveryList = serde_json::from_slice(&bytes).map_err(|_| unreadable())?;
    if list.groups.is_empty() {
        return Ok(list.items.into_iter().map(|g| (g.metadata.name.clone(), g.versions())).collect());
    }
    // An older server: only groups that matter are asked for.
    let wanted: BTreeSet<&str> = Kind::all().map(Kind::group).collect();
    let mut out = Groups::new();
    for group in list.groups.into_iter().filter(|g| wanted.contains(g.name.as_str())) {
        let mut versions = Vec::new();
        for named in group.versions {
            let path = format!("/apis/{}/{}", group.name, named.version);
            // One group whose server is away hides that group alone.
            let Ok(bytes) = server.get_patiently(&path, BYTES_MAX).await else { continue };
            let list: ResourceList = serde_json::from_slice(&bytes).map_err(|_| unreadable())?;
            let kinds =
                list.resources.into_iter().filter(|r| !r.name.contains('/') && r.verbs.iter().any(|v| v == "list"));
            let kinds = kinds.map(|r| (r.kind, (r.name, r.namespaced))).collect();
            versions.push(GroupVersion { version: named.version, kinds });
        }
        out.insert(group.name, versions);
    }
    Ok(out)
}

fn unreadable() -> KubeError {
    KubeError::Unreadable("no list of what is served".into())
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct DiscoveryList {
    items: Vec<DiscoveredGroup>,
    groups: Vec<OldGroup>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Named {
    name: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct DiscoveredGroup {
    metadata: Named,
    versions: Vec<DiscoveredVersion>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct DiscoveredVersion {
    version: String,
    resources: Vec<DiscoveredResource>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct DiscoveredResource {
    resource: String,
    response_kind: Option<DiscoveredKind>,
    scope: String,
    verbs: Vec<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct DiscoveredKind {
    kind: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct OldGroup {
    name: String,
    versions: Vec<OldVersion>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct OldVersion {
    version: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ResourceList {
    resources: Vec<OldResource>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct OldResource {
    name: String,
    kind: String,
    namespaced: bool,
    verbs: Vec<String>,
}

impl DiscoveredGroup {
    fn versions(self) -> Vec<GroupVersion> {
        let of = |version: DiscoveredVersion| {
            let listed = version.resources.into_iter().filter(|r| r.verbs.iter().any(|v| v == "list"));
            let kinds =
                listed.filter_map(|r| Some((r.response_kind?.kind, (r.resource, r.scope == "Namespaced")))).collect();
            GroupVersion { version: version.version, kinds }
        };
        self.versions.into_iter().map(of).collect()
    }
}
