//! Plans: playbook steps bound to observed objects. Immutable, hashed, with a parent: a change makes a new plan.

use crate::{EntityId, FaultClass, IncidentId, Timestamp};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fmt;

/// What an actuator reads of an object: facts by name (`replicas`, `version`, `flag.checkout_v2` …). Sorted, so that
/// equal images are equal bytes.
pub type Image = BTreeMap<String, serde_json::Value>;

macro_rules! words {
    ($(#[$doc:meta])* $name:ident, $what:literal { $($(#[$vdoc:meta])* $variant:ident $text:literal,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, schemars::JsonSchema)]
        pub enum $name {
            $($(#[$vdoc])* #[serde(rename = $text)] $variant,)*
        }

        impl $name {
            /// Every one, in order.
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            /// Its stable name.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $text,)*
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.as_str())
            }
        }

        impl std::str::FromStr for $name {
            type Err = String;
            fn from_str(text: &str) -> Result<Self, String> {
                Self::ALL.iter().copied().find(|w| w.as_str() == text).ok_or_else(|| {
                    let names = [$($text),*].join(", ");
                    format!(concat!("`{}` is not ", $what, "; one of {}"), text, names)
                })
            }
        }
    };
}

words! {
    /// What a step does. Added, never renamed.
    ActionType, "an action type" {
        /// Sets the number of replicas.
        ScaleDeployment "scale_deployment",
        /// Replaces pods, a share at a time.
        RestartPods "restart_pods",
        /// Back to the version before.
        RollbackDeploy "rollback_deploy",
        /// Cordons a node and moves what runs there.
        DrainNode "drain_node",
        /// Makes a replica of a database the primary.
        FailoverDb "failover_db",
        /// Sets a feature flag.
        ToggleFeature "toggle_feature",
        /// Sets limits, requests, sizes.
        PatchResources "patch_resources",
        /// Allows one violation for a time.
        PolicyException "policy_exception",
        /// Scales down to spend less.
        CostScaleDown "cost_scale_down",
        /// Sets the weights of routes.
        AdjustRouting "adjust_routing",
        /// Syncs to what git says.
        GitopsSync "gitops_sync",
        /// Runs a job that is known by name.
        RunJob "run_job",
        /// Asks a person to do or check something; nothing is executed.
        ManualReview "manual_review",
        /// Closes and opens the connections of a pool.
        RecycleConnections "recycle_connections",
        /// Limits what callers may send.
        LimitTraffic "limit_traffic",
        /// Sets the bounds of an autoscaler.
        AdjustAutoscaler "adjust_autoscaler",
        /// Sets the image of a container.
        SetImage "set_image",
        /// Stops a rollout where it is.
        PauseRollout "pause_rollout",
        /// Lets a rollout go on.
        ResumeRollout "resume_rollout",
        /// Lets nothing new start on a node.
        CordonNode "cordon_node",
        /// Lets things start on a node again.
        UncordonNode "uncordon_node",
        /// Deletes a pod that is stuck; its controller makes another.
        DeletePod "delete_pod",
        /// Back to what was synced before.
        GitopsRollback "gitops_rollback",
        /// A release back to an earlier revision.
        HelmRollback "helm_rollback",
    }
}

words! {
    /// How much can go wrong. High and critical always ask.
    Risk, "a risk" {
        /// Undone at once, nobody notices.
        Low "low",
        /// Some requests may be slower or fail.
        Medium "medium",
        /// A part of the service may be gone for minutes.
        High "high",
        /// Data or the whole service may be lost.
        Critical "critical",
    }
}

words! {
    /// How soon it should happen.
    Priority, "a priority" {
        /// Now.
        Immediate "IMMEDIATE",
        /// Within a quarter of an hour.
        Within15Min "WITHIN_15MIN",
        /// Within the hour.
        Within1Hour "WITHIN_1HOUR",
    }
}

/// SHA-256 of a plan's content: what approvals are for. Written as 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct PlanHash(pub [u8; 32]);

impl PlanHash {
    /// The first 12 digits: what people see.
    pub fn short(&self) -> String {
        self.to_string()[..12].to_owned()
    }
}

impl fmt::Display for PlanHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

impl fmt::Debug for PlanHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PlanHash({self})")
    }
}

impl std::str::FromStr for PlanHash {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || "a plan's hash has 64 hexadecimal digits".to_owned();
        if text.len() != 64 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(bad());
        }
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
            let digits = std::str::from_utf8(pair).map_err(|_| bad())?;
            *byte = u8::from_str_radix(digits, 16).map_err(|_| bad())?;
        }
        Ok(Self(bytes))
    }
}

impl Serialize for PlanHash {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for PlanHash {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(d)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// How a changed step is taken back.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Rollback {
    /// The target is put back to its before-image.
    Restore,
    /// There is nothing to take back (a restart, a job that only reads).
    Nothing,
    /// It cannot be taken back; only a person may decide what then.
    Impossible,
}

/// A part of the target that is changed first, and looked at before the rest follows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Canary {
    /// Share of the target, above 0 and below 1.
    pub share: f64,
    /// Seconds for which it is looked at.
    pub watch_secs: u32,
}

/// One step of a plan, with every choice made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PlanStep {
    /// Name within the playbook.
    pub name: String,
    /// What it does.
    pub action: ActionType,
    /// To what.
    pub target: EntityId,
    /// Name of the actuator that does it, as configured (`estate`, `kubernetes` …).
    pub actuator: String,
    /// How: bound values by name (`replicas`: 6).
    #[serde(default)]
    pub params: Image,
    /// What the target looked like when the plan was made, of what matters to the step. Another world: refused.
    #[serde(default)]
    pub expects: Image,
    /// How much can go wrong.
    pub risk: Risk,
    /// "pod restart, 30 s".
    pub estimated_impact: String,
    /// Seconds that one attempt may take.
    pub deadline_secs: u32,
    /// How it is taken back.
    pub rollback: Rollback,
    /// Changed in part first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub canary: Option<Canary>,
}

/// Which way a KPI must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Compare {
    /// At or below the threshold is good.
    Below,
    /// At or above the threshold is good.
    Above,
}

/// A series that says whether it got better.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Kpi {
    /// Of which entity.
    pub entity: EntityId,
    /// Metric name.
    pub signal: String,
    /// Labels beside the name that tell it from others of that name; all of them must be on the series.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

/// What the plan promises and how that is checked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Verification {
    /// What is read.
    pub kpi: Kpi,
    /// Which way is good.
    pub compare: Compare,
    /// In the unit of the signal, bound when the plan is made.
    pub threshold: f64,
    /// Good readings in a row, 3 unless told.
    pub readings: u32,
    /// Seconds between two readings at least, 0.. =30.
    pub interval_secs: u32,
    /// Seconds after the last step within which they must come.
    pub deadline_secs: u32,
}

impl Verification {
    /// Whether a reading is as promised.
    pub fn is_good(&self, value: f64) -> bool {
        value.is_finite()
            && match self.compare {
                Compare::Below => value <= self.threshold,
                Compare::Above => value >= self.threshold,
            }
    }
}

/// What a trial on a fitted copy of the estate predicts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Prediction {
    /// Share of the trials, weighted by the causes' confidences, in which the KPI came back.
    pub success_probability: f64,
    /// Seconds until the KPI is back when it comes back; `None` when it does not.
    pub recovery_secs: Option<f64>,
    /// The KPI some time after, in its unit, with the plan.
    pub kpi_with: f64,
    /// The same without it.
    pub kpi_without: f64,
    /// What got worse elsewhere, one line each.
    #[serde(default)]
    pub harms: Vec<String>,
    /// What it was fitted to and how well, one line.
    pub basis: String,
}

/// A cause that a plan heals.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Covered {
    /// Where.
    pub entity: EntityId,
    /// What.
    pub fault: FaultClass,
    /// Its confidence in the ranking that the plan was made from.
    pub confidence: f64,
}

/// Playbook steps bound to observed objects.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// Of everything below.
    pub hash: PlanHash,
    /// The plan that this one replaces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<PlanHash>,
    /// For which incident.
    pub incident: IncidentId,
    /// Tenant.
    pub tenant: String,
    /// Ranking that it rests on.
    pub rca_revision: u32,
    /// Name of the playbook, and SHA-256 of its file in short.
    pub playbook: String,
    /// First 12 digits of the SHA-256 of the playbook's text.
    pub playbook_digest: String,
    /// One line for people.
    pub title: String,
    /// Causes that it heals, likeliest first.
    pub covers: Vec<Covered>,
    /// Sum of their confidences, 0..=1: what the gate looks at.
    pub confidence: f64,
    /// In order.
    pub steps: Vec<PlanStep>,
    /// How success is checked.
    pub verification: Verification,
    /// The highest of its steps.
    pub risk: Risk,
    /// How soon.
    pub priority: Priority,
    /// Team that answers for the playbook or the target.
    pub owner: String,
    /// Whom to ask, first to last.
    #[serde(default)]
    pub escalation_path: Vec<String>,
    /// Seconds until it should be over.
    pub estimated_resolution_secs: u32,
    /// Expected benefit less expected harm, in the unit of the choice: 0..=1 of the incident's score.
    pub expected_benefit: f64,
    /// The playbook says that its fix acts at once.
    #[serde(default)]
    pub acts_at_once: bool,
    /// What a trial said, when there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prediction: Option<Prediction>,
    /// When it was made.
    pub made_at: Timestamp,
}

impl Plan {
    /// The hash of its content as it stands: of everything but `hash` itself.
    pub fn content_hash(&self) -> PlanHash {
        let bare = Self { hash: PlanHash::default(), ..self.clone() };
        let bytes = serde_json::to_vec(&bare).expect("a plan has string keys and finite depth");
        PlanHash(Sha256::digest(&bytes).into())
    }

    /// The same plan with its hash put right: the last thing that is done when one is made.
    #[must_use]
    pub fn sealed(mut self) -> Self {
        self.hash = self.content_hash();
        self
    }

    /// Whether it is what its hash says.
    pub fn is_sealed(&self) -> bool {
        self.hash == self.content_hash()
    }

    /// Whether carrying it out changes anything: a plan of manual reviews only does not.
    pub fn acts(&self) -> bool {
        self.steps.iter().any(|s| s.action != ActionType::ManualReview)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn action_types_are_those_of_the_contract() {
        let fixed = "scale_deployment restart_pods rollback_deploy drain_node failover_db toggle_feature \
            patch_resources policy_exception cost_scale_down adjust_routing gitops_sync run_job manual_review";
        for name in fixed.split_whitespace() {
            assert_eq!(name.parse::<ActionType>().map(ActionType::as_str), Ok(name));
        }
        for action in ActionType::ALL {
            assert_eq!(serde_json::to_value(action).unwrap(), action.as_str());
        }
        assert!("explode".parse::<ActionType>().unwrap_err().contains("manual_review"));
        assert_eq!("WITHIN_15MIN".parse(), Ok(Priority::Within15Min));
        assert!(Risk::Critical > Risk::High && Risk::Medium > Risk::Low);
    }

    #[test]
    fn hashes_are_read_back_and_bad_ones_refused() {
        let hash = PlanHash([0xab; 32]);
        assert_eq!(hash.to_string().parse(), Ok(hash));
        assert_eq!(hash.short(), "abababababab");
        for bad in ["", "ab", &"g".repeat(64), &"ä".repeat(32), &"a".repeat(63)] {
            assert!(bad.parse::<PlanHash>().is_err(), "{bad}");
        }
    }
}
