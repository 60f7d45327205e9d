//! A playbook as types: what one file says, before it is bound to anything.

use crate::expr::Expr;
use nightshift_model::{ActionType, ChangeType, EntityKind, FaultClass, Priority, Risk, SignalFamily};
use schemars::JsonSchema;
use serde::Serialize;
use std::collections::BTreeMap;

/// A change without which a fault is not what the playbook heals.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Needs {
    /// Any of these, of the cause itself.
    pub changes: Vec<ChangeType>,
    /// Seconds before the incident's onset within which it happened.
    pub within_secs: u64,
}

/// One fault class that a playbook heals.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Heals {
    /// Which.
    pub fault: FaultClass,
    /// On which kinds of entity; empty: on any.
    pub kinds: Vec<EntityKind>,
    /// What must have happened before.
    pub needs: Option<Needs>,
    /// How often it works when this is the cause, 0..=1, before anything was learned.
    pub success_rate: f64,
}

/// What a bound value must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ParamType {
    /// A whole number.
    Int,
    /// A number.
    Number,
    /// A text.
    Text,
    /// `true` or `false`.
    Bool,
    /// Names with numbers: weights of routes.
    Map,
}

impl ParamType {
    /// Every one.
    pub const ALL: [Self; 5] = [Self::Int, Self::Number, Self::Text, Self::Bool, Self::Map];

    /// As written.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Int => "int",
            Self::Number => "number",
            Self::Text => "text",
            Self::Bool => "bool",
            Self::Map => "map",
        }
    }

    /// Whether a bound value is one of these.
    pub fn fits(self, value: &serde_json::Value) -> bool {
        match self {
            Self::Int => value.is_i64() || value.is_u64(),
            Self::Number => value.as_f64().is_some_and(f64::is_finite),
            Self::Text => value.is_string(),
            Self::Bool => value.is_boolean(),
            Self::Map => value.as_object().is_some_and(|m| m.values().all(serde_json::Value::is_number)),
        }
    }
}

/// A named value of a playbook.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Param {
    /// What it must be.
    #[serde(rename = "type")]
    pub kind: ParamType,
    /// How it is made from what was looked at.
    pub value: Expr,
    /// Least that is allowed; a value below is refused, never bent.
    pub min: Option<f64>,
    /// Most that is allowed.
    pub max: Option<f64>,
    /// What it is, for people.
    pub description: String,
}

/// Which entity a step is about, seen from the cause.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    /// The entity that the hypothesis names.
    Cause,
    /// All that call it: one step each.
    Callers,
    /// What the cause calls and what shows symptoms itself; the only one when it has one.
    Dependency,
    /// The database that the cause uses, or the cause when it is one.
    DatabaseOfCause,
    /// The node or host that the cause runs on, or the cause when it is one.
    NodeOfCause,
    /// The topic that the cause publishes to or consumes, or the cause when it is one.
    TopicOfCause,
    /// What consumes the topic that is the cause; the cause when it is no topic.
    Consumers,
}

impl Target {
    /// Every one.
    pub const ALL: [Self; 7] = [
        Self::Cause,
        Self::Callers,
        Self::Dependency,
        Self::DatabaseOfCause,
        Self::NodeOfCause,
        Self::TopicOfCause,
        Self::Consumers,
    ];

    /// As written.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Cause => "cause",
            Self::Callers => "callers",
            Self::Dependency => "dependency",
            Self::DatabaseOfCause => "database_of_cause",
            Self::NodeOfCause => "node_of_cause",
            Self::TopicOfCause => "topic_of_cause",
            Self::Consumers => "consumers",
        }
    }
}

/// How a step is taken back, as written: `restore`, `nothing`, `impossible`.
pub use nightshift_model::Rollback;

/// A part that is changed first.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CanarySpec {
    /// Share of the target, above 0 and below 1.
    pub share: f64,
    /// Seconds for which it is looked at.
    pub watch_secs: u32,
}

/// One step as written.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Step {
    /// Unique within the playbook.
    pub name: String,
    /// What it does.
    pub action: ActionType,
    /// To what.
    pub target: Target,
    /// Actuator; empty: the configured one.
    pub actuator: String,
    /// Values for the actuator, each made by an expression over facts and the playbook's parameters.
    pub params: BTreeMap<String, Expr>,
    /// Facts that must still be the same when it runs. A name that ends in `*` stands for all that begin so.
    pub expects: Vec<String>,
    /// How much can go wrong.
    pub risk: Risk,
    /// "pod restart, 30 s"; `{name}` stands for a parameter or a fact.
    pub estimated_impact: String,
    /// Seconds that one attempt may take.
    pub deadline_secs: u32,
    /// How it is taken back.
    pub rollback: Rollback,
    /// Changed in part first.
    pub canary: Option<CanarySpec>,
}

/// A series that tells whether it got better.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub enum KpiSource {
    /// The metric of this name.
    #[serde(rename = "signal")]
    Signal(String),
    /// Any metric that measures this.
    #[serde(rename = "family")]
    Family(SignalFamily),
}

/// Which value of it is good.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub enum ThresholdSpec {
    /// Back in the band of the anomaly that shows it, widened by this share of its half width.
    #[serde(rename = "band")]
    Band(f64),
    /// So many times what was expected.
    #[serde(rename = "expected_times")]
    ExpectedTimes(f64),
    /// At or below this.
    #[serde(rename = "below")]
    Below(f64),
    /// At or above this.
    #[serde(rename = "above")]
    Above(f64),
}

/// One choice of a KPI.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct KpiSpec {
    /// Which series.
    pub of: KpiSource,
    /// What is good.
    pub threshold: ThresholdSpec,
}

/// Whose KPI tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum VerifyOf {
    /// That of the cause and of what is touched; of those that suffer where these show nothing.
    #[default]
    Any,
    /// Only that of those that suffer: what is wrong with the cause stays as it is (a node that is left).
    Affected,
}

impl VerifyOf {
    /// Every one.
    pub const ALL: [Self; 2] = [Self::Any, Self::Affected];

    /// As written.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Any => "any",
            Self::Affected => "affected",
        }
    }
}

/// How success is checked.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Verify {
    /// Whose KPI tells.
    pub of: VerifyOf,
    /// In order of preference: the first that the incident shows is taken.
    pub kpis: Vec<KpiSpec>,
    /// Good readings in a row.
    pub readings: u32,
    /// Seconds between two readings at least, 0..=30.
    pub interval_secs: u32,
    /// Seconds after the last step within which they must come.
    pub deadline_secs: u32,
}

/// A file of `playbooks/`, read and checked.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Playbook {
    /// Unique; a user's own of the same name replaces one that ships.
    pub name: String,
    /// One line for people; `{cause}` stands for the entity's name, `{x}` for a parameter or fact.
    pub title: String,
    /// First 12 digits of the SHA-256 of its text.
    pub digest: String,
    /// What it heals, and how well.
    pub heals: Vec<Heals>,
    /// Its values.
    pub params: BTreeMap<String, Param>,
    /// Conditions on facts of the cause's own target; all must hold.
    pub when: Vec<Expr>,
    /// What it does, in order.
    pub steps: Vec<Step>,
    /// How success is checked.
    pub verify: Verify,
    /// Its fix works within a few seconds of being applied.
    pub acts_at_once: bool,
    /// How soon.
    pub priority: Priority,
    /// Team that answers for it; empty: the owner of the target.
    pub owner: String,
    /// Asked before the target's own people.
    pub escalation: Vec<String>,
    /// Seconds until it should be over.
    pub estimated_resolution_secs: u32,
    /// What it costs when it does no good, 0..=1: requests dropped, caches cold, people busy.
    pub harm: f64,
}

impl Playbook {
    /// What it says of a fault on this kind of entity.
    pub fn heals(&self, fault: FaultClass, kind: EntityKind) -> impl Iterator<Item = &Heals> {
        self.heals.iter().filter(move |h| h.fault == fault && (h.kinds.is_empty() || h.kinds.contains(&kind)))
    }

    /// The highest risk of its steps.
    pub fn risk(&self) -> Risk {
        self.steps.iter().map(|s| s.risk).max().unwrap_or(Risk::Low)
    }

    /// Whether carrying it out changes anything.
    pub fn acts(&self) -> bool {
        self.steps.iter().any(|s| s.action != ActionType::ManualReview)
    }

    /// Its parameters, those that others use first. What hangs in a circle is left out (the reader refuses it).
    pub fn param_order(&self) -> Vec<&str> {
        let mut out: Vec<&str> = Vec::with_capacity(self.params.len());
        loop {
            let before = out.len();
            for (name, param) in &self.params {
                let ready = param.value.names().iter().all(|n| !self.params.contains_key(*n) || out.contains(n));
                if ready && !out.contains(&name.as_str()) {
                    out.push(name);
                }
            }
            if out.len() == before {
                return out;
            }
        }
    }
}
