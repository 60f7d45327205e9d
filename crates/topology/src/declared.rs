//! What people declare of a service.

use nightshift_model::{EdgeKind, EntityId, Slo};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// How much depends on it. P0 is worst.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Criticality {
    /// The business stands still without it.
    P0,
    /// Many people notice.
    P1,
    /// Some people notice.
    P2,
    /// It can wait for the morning.
    P3,
}

impl Criticality {
    /// Every one, worst first.
    pub const ALL: [Self; 4] = [Self::P0, Self::P1, Self::P2, Self::P3];

    /// As written.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::P0 => "P0",
            Self::P1 => "P1",
            Self::P2 => "P2",
            Self::P3 => "P3",
        }
    }
}

impl std::str::FromStr for Criticality {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|c| c.as_str().eq_ignore_ascii_case(text))
            .ok_or_else(|| format!("`{text}` is not one of P0, P1, P2, P3"))
    }
}

/// One declared dependency.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Dependency {
    /// What it depends on.
    pub to: EntityId,
    /// How.
    pub kind: EdgeKind,
}

/// One entry of the file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ServiceSpec {
    /// The entity it describes.
    pub id: EntityId,
    /// Team that answers for it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub owner: String,
    /// Whom to wake.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub on_call: String,
    /// How much depends on it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub criticality: Option<Criticality>,
    /// The team's own word for its rank.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub tier: String,
    /// What was promised to users.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub sla: String,
    /// production, staging …
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub environment: String,
    /// What a full outage costs: "30 % of payments, about 12,000 USD a minute".
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub business_impact: String,
    /// Its objectives.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub slos: Vec<Slo>,
    /// What it needs to work.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub depends_on: Vec<Dependency>,
    /// Other names it goes by.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub aliases: Vec<String>,
    /// Whatever else people want to see: language, repository, runbook …
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub attributes: BTreeMap<String, String>,
}

impl ServiceSpec {
    /// An entry that says nothing but which entity it is.
    pub fn bare(id: EntityId) -> Self {
        Self {
            id,
            owner: String::new(),
            on_call: String::new(),
            criticality: None,
            tier: String::new(),
            sla: String::new(),
            environment: String::new(),
            business_impact: String::new(),
            slos: Vec::new(),
            depends_on: Vec::new(),
            aliases: Vec::new(),
            attributes: BTreeMap::new(),
        }
    }
}
