//! Entities: things that can be healthy or not, and the names they go by.

use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, utf8_percent_encode};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::sync::Arc;

/// What is escaped within a part of an id: the separator, the escape sign, white space and controls.
const PART: &AsciiSet = &CONTROLS.add(b'/').add(b'%').add(b' ').add(b'"').add(b'<').add(b'>').add(b'#').add(b'?');

/// Longest id in bytes.
pub const ENTITY_ID_BYTES_MAX: usize = 1024;

/// `cluster/kind/namespace/name`, each part percent-encoded, an empty one `-`. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EntityId(Arc<str>);

/// Kinds that Nightshift itself makes. Others may appear (any Kubernetes kind in lower case).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EntityKind {
    /// A logical service.
    Service,
    /// A Kubernetes workload: deployment, stateful set, daemon set, job.
    Workload,
    /// A pod without an owner.
    Pod,
    /// A Kubernetes node.
    Node,
    /// A machine that runs an operating system.
    Host,
    /// A message topic.
    Topic,
    /// A database.
    Database,
    /// A resource of a cloud provider.
    CloudResource,
    /// Anything else that has a name.
    Other,
}

impl EntityKind {
    /// The kind part of an id.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Service => "service",
            Self::Workload => "workload",
            Self::Pod => "pod",
            Self::Node => "node",
            Self::Host => "host",
            Self::Topic => "topic",
            Self::Database => "database",
            Self::CloudResource => "cloud_resource",
            Self::Other => "other",
        }
    }

    /// The kind that an id's part names; `Other` when it is none of ours.
    pub fn parse(text: &str) -> Self {
        match text {
            "service" => Self::Service,
            "workload" | "deployment" | "statefulset" | "daemonset" | "job" | "cronjob" => Self::Workload,
            "pod" => Self::Pod,
            "node" => Self::Node,
            "host" => Self::Host,
            "topic" => Self::Topic,
            "database" => Self::Database,
            "cloud_resource" => Self::CloudResource,
            _ => Self::Other,
        }
    }
}

impl EntityId {
    /// Builds an id from its parts, which are escaped here.
    pub fn new(cluster: &str, kind: &str, namespace: &str, name: &str) -> Self {
        let mut id = String::with_capacity(cluster.len() + kind.len() + namespace.len() + name.len() + 8);
        for (i, part) in [cluster, kind, namespace, name].into_iter().enumerate() {
            if i > 0 {
                id.push('/');
            }
            match part {
                "" => id.push('-'),
                // A part that is really a dash must not read as an empty one.
                "-" => id.push_str("%2D"),
                _ => id.extend(utf8_percent_encode(part, PART)),
            }
        }
        Self(id.into())
    }

    /// Reads an id in its written form.
    ///
    /// # Errors
    /// A text for people when it has not four parts, an empty part, or more than [`ENTITY_ID_BYTES_MAX`] bytes.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.len() > ENTITY_ID_BYTES_MAX {
            return Err(format!("an entity id has at most {ENTITY_ID_BYTES_MAX} bytes, this one {}", text.len()));
        }
        let parts = text.split('/').collect::<Vec<_>>();
        if parts.len() != 4 || parts.iter().any(|p| p.is_empty()) {
            return Err(format!("`{text}` is not cluster/kind/namespace/name (an empty part is written `-`)"));
        }
        Ok(Self(text.into()))
    }

    /// The written form.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn part(&self, i: usize) -> String {
        match self.0.split('/').nth(i) {
            None | Some("-") => String::new(),
            Some(p) => percent_decode_str(p).decode_utf8_lossy().into_owned(),
        }
    }

    /// The cluster, decoded.
    pub fn cluster(&self) -> String {
        self.part(0)
    }

    /// The kind as written.
    pub fn kind_str(&self) -> &str {
        self.0.split('/').nth(1).unwrap_or("-")
    }

    /// The kind.
    pub fn kind(&self) -> EntityKind {
        EntityKind::parse(self.kind_str())
    }

    /// The namespace, decoded; empty when there is none.
    pub fn namespace(&self) -> String {
        self.part(2)
    }

    /// The name, decoded: what people call it.
    pub fn name(&self) -> String {
        self.part(3)
    }
}

impl fmt::Display for EntityId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for EntityId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EntityId({})", self.0)
    }
}

impl std::borrow::Borrow<str> for EntityId {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl Serialize for EntityId {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for EntityId {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(d)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

/// An entity with the context that travels with its telemetry.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct EntityMeta {
    /// Its id.
    pub id: EntityId,
    /// The logical service it belongs to, empty when unknown.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub service: String,
    /// Version that runs there.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub version: String,
    /// Deployment environment: production, staging …
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub environment: String,
    /// Team that answers for it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub owner: String,
    /// Made by a test injection: pages nobody and teaches nothing.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub synthetic: bool,
}

impl EntityMeta {
    /// An entity with no context.
    pub fn bare(id: EntityId) -> Self {
        Self {
            id,
            service: String::new(),
            version: String::new(),
            environment: String::new(),
            owner: String::new(),
            synthetic: false,
        }
    }
}

/// A second name of an entity. Learning one joins the two and keeps the older id.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Alias {
    /// The name: `host.name=web1`, `instance=10.0.0.7`, `service=checkout` …
    pub name: String,
    /// The entity it stands for.
    pub entity: EntityId,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_survive_escaping() {
        let id = EntityId::new("eu/1", "service", "", "a b%/-");
        assert_eq!(id.as_str(), "eu%2F1/service/-/a%20b%25%2F-");
        assert_eq!((id.cluster(), id.namespace(), id.name()), ("eu/1".into(), String::new(), "a b%/-".into()));
        assert_eq!(EntityId::new("c", "host", "-", "n").namespace(), "-");
    }

    #[test]
    fn bad_ids_are_refused_with_the_form() {
        for bad in ["", "a/b/c", "a/b/c/d/e", "a//c/d", &"x".repeat(2000)] {
            assert!(EntityId::parse(bad).is_err(), "{bad}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_parts_round_trip(c in ".{0,20}", n in ".{0,20}", name in ".{0,20}") {
            let id = EntityId::new(&c, "pod", &n, &name);
            let back = EntityId::parse(id.as_str()).unwrap();
            proptest::prop_assert_eq!((back.cluster(), back.namespace(), back.name()), (c, n, name));
        }
    }
}
