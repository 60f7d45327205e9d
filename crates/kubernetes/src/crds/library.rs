//! The seam to whoever judges what people wrote and puts it into force: reader of playbooks, guard, error budgets.

use nightshift_model::{EntityId, Slo};

/// Which object.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectKey {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl std::fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// What became of an object: its condition `Accepted`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// It is in force. With a word for people, or an empty one.
    Accepted(String),
    /// It is not in force.
    Refused {
        /// One word in CamelCase: `Invalid`, `TestsFailed`, `NameTaken`, `Disabled`, `TargetUnknown` …
        reason: &'static str,
        /// Everything that is wrong, each with what to do.
        messages: Vec<String>,
    },
    /// Nobody can say yet, and why.
    Unknown(String),
}

impl Answer {
    /// It was read and has mistakes.
    pub const fn invalid(messages: Vec<String>) -> Self {
        Self::Refused { reason: "Invalid", messages }
    }
}

/// A playbook of the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlaybookText {
    /// Where it is.
    pub key: ObjectKey,
    /// What a playbook file would hold, YAML. `name` is in it.
    pub text: String,
}

/// What became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlaybookAnswer {
    /// Whether it is in force.
    pub answer: Answer,
    /// SHA-256 (hex) of what is in force; empty while nothing is.
    pub digest: String,
}

/// A policy of the cluster that is enabled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyText {
    /// Where it is.
    pub key: ObjectKey,
    /// Its Rego.
    pub rego: String,
    /// Its tests, Rego; empty when it has none.
    pub tests: String,
}

/// What became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyAnswer {
    /// Whether it is in force.
    pub answer: Answer,
    /// SHA-256 (hex) of the Rego in force; empty while nothing is.
    pub digest: String,
    /// Name of its package, when it could be read.
    pub package: Option<String>,
    /// Tests that passed, and all of them; `None` when none were run.
    pub tests: Option<(u32, u32)>,
}

/// An objective of the cluster whose values are within their bounds.
#[derive(Debug, Clone, PartialEq)]
pub struct ObjectiveOrder {
    /// Where it is; the target is in the same namespace.
    pub key: ObjectKey,
    /// Kind of the target as in an entity's id: `service`, `deployment`, `statefulset`, `daemonset`.
    pub kind: String,
    /// Name of the target.
    pub target: String,
    /// The objective.
    pub slo: Slo,
}

/// What became of it.
#[derive(Debug, Clone, PartialEq)]
pub struct ObjectiveAnswer {
    /// Whether it is counted.
    pub answer: Answer,
    /// The entity that it is counted for.
    pub entity: Option<EntityId>,
    /// Share of the error budget that is left, 1 for all of it; `None` when nobody counted.
    pub budget_left: Option<f64>,
}

/// Who judges what people wrote, and puts it into force.
///
/// Each call brings *all* that the cluster holds of a kind, by namespace and name, and replaces what an earlier call
/// brought: what is missing was deleted and goes out of force. Not called before everything was listed once, so that a
/// restart does not look like a deletion of all. The same again must be harmless: it comes every minute, so that what
/// depends on the world (a target that appears, a budget that is spent) is told anew.
///
/// One answer for each, in the order of the call.
#[async_trait::async_trait]
pub trait Library: Send + Sync {
    /// Takes these playbooks.
    async fn playbooks(&self, all: Vec<PlaybookText>) -> Vec<PlaybookAnswer>;
    /// Takes these policies; those that are switched off are not among them.
    async fn policies(&self, all: Vec<PolicyText>) -> Vec<PolicyAnswer>;
    /// Takes these objectives.
    async fn objectives(&self, all: Vec<ObjectiveOrder>) -> Vec<ObjectiveAnswer>;
}
