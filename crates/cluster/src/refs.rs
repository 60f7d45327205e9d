//! The name of an object: kind, namespace, name.

use serde::{Deserialize, Serialize};
use std::fmt;

/// An object that exists, or that something names. The namespace of what has none is empty.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct ObjectRef {
    /// Kind, as in manifests: `Deployment`.
    pub kind: String,
    /// Namespace, empty for what has none.
    pub namespace: String,
    /// Name.
    pub name: String,
}

impl ObjectRef {
    /// From its parts.
    pub fn new(kind: impl Into<String>, namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self { kind: kind.into(), namespace: namespace.into(), name: name.into() }
    }

    /// Reads `Kind/namespace/name`, or `Kind//name` for what has no namespace.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.splitn(3, '/');
        let (kind, namespace, name) = (parts.next()?, parts.next()?, parts.next()?);
        (!kind.is_empty() && !name.is_empty()).then(|| Self::new(kind, namespace, name))
    }

    /// `deployment/shop/web`: the start of evidence ids.
    pub fn path(&self) -> String {
        let kind = self.kind.to_ascii_lowercase();
        if self.namespace.is_empty() {
            format!("{kind}/{}", self.name)
        } else {
            format!("{kind}/{}/{}", self.namespace, self.name)
        }
    }
}

impl fmt::Display for ObjectRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() {
            write!(f, "{} {}", self.kind, self.name)
        } else {
            write!(f, "{} {}/{}", self.kind, self.namespace, self.name)
        }
    }
}
