//! Settings of the guard.

use crate::role::Role;
use crate::window::{Window, WindowKind};
use nightshift_config::SecretString;
use nightshift_model::{ActionType, Risk};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// What may be done, how much of it, when, and who must agree.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct GuardConfig {
    /// Nothing is changed: plans are judged, prepared and dry-run only. Turn it off to let plans act.
    pub dry_run: bool,
    /// A plan whose confidence is not above this asks.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub confidence_min: f64,
    /// A plan whose confidence is below this is not even asked about: it waits for more evidence.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub confidence_ask_min: f64,
    /// Action types that may be carried out; any other is denied.
    pub actions: Vec<ActionType>,
    /// Entities that heal by themselves beside those that are tagged critical: patterns with `*` over the id
    /// (`prod/service/shop/*`) or over the name alone.
    pub opted_in: Vec<String>,
    /// Seconds in which a person must answer; no answer is a rejection. Counts again from the answer until the plan must
    /// have begun.
    #[schemars(range(min = 10, max = 86_400))]
    pub approval_timeout_secs: u64,
    /// Seconds after an action in which its target gets no other one, but for the steps of the same plan.
    #[schemars(range(min = 0, max = 86_400))]
    pub cooldown_secs: u64,
    /// The role that a person needs to approve or override a plan, by its risk.
    pub roles: RiskRoles,
    /// How much may be touched.
    pub limits: Limits,
    /// When failures stop everything.
    pub breaker: BreakerConfig,
    /// When error budgets stop a plan.
    pub budget: BudgetConfig,
    /// Times in which nothing is changed.
    pub windows: Vec<Window>,
    /// Where the policies come from and what they may take.
    pub policies: PolicyConfig,
    /// An Open Policy Agent server that is asked beside the policies; no answer is a denial.
    pub opa: Option<OpaConfig>,
}

impl Default for GuardConfig {
    fn default() -> Self {
        Self {
            dry_run: true,
            confidence_min: 0.75,
            confidence_ask_min: 0.25,
            actions: ActionType::ALL.to_vec(),
            opted_in: Vec::new(),
            approval_timeout_secs: 300,
            cooldown_secs: 120,
            roles: RiskRoles::default(),
            limits: Limits::default(),
            breaker: BreakerConfig::default(),
            budget: BudgetConfig::default(),
            windows: Vec::new(),
            policies: PolicyConfig::default(),
            opa: None,
        }
    }
}

impl GuardConfig {
    /// What no schema can say: one line for each thing that is wrong, with the path of its key.
    pub fn problems(&self) -> Vec<String> {
        let mut out = Vec::new();
        if self.confidence_ask_min > self.confidence_min {
            out.push(format!(
                "confidence_ask_min: {} is above confidence_min ({}): no plan could ever be asked about",
                self.confidence_ask_min, self.confidence_min
            ));
        }
        for (i, window) in self.windows.iter().enumerate() {
            out.extend(window.problems().into_iter().map(|p| format!("windows.{i}.{p}")));
        }
        let roles = &self.roles;
        let ladder = [roles.low, roles.medium, roles.high, roles.critical];
        if ladder.contains(&Role::Viewer) {
            out.push("roles: a viewer only looks; name operator, approver or admin".into());
        }
        if !ladder.is_sorted() {
            out.push("roles: a higher risk needs at least the role of a lower one".into());
        }
        out
    }

    /// Time in which a person must answer.
    pub(crate) const fn approval_timeout(&self) -> Duration {
        Duration::from_secs(self.approval_timeout_secs)
    }

    /// Windows of one kind.
    pub(crate) fn windows_of(&self, kind: WindowKind) -> impl Iterator<Item = &Window> {
        self.windows.iter().filter(move |w| w.kind == kind)
    }
}

/// The least role that may approve or override a plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct RiskRoles {
    /// Of low risk.
    pub low: Role,
    /// Of medium risk.
    pub medium: Role,
    /// Of high risk.
    pub high: Role,
    /// Of critical risk.
    pub critical: Role,
}

impl Default for RiskRoles {
    fn default() -> Self {
        Self { low: Role::Approver, medium: Role::Approver, high: Role::Approver, critical: Role::Admin }
    }
}

impl RiskRoles {
    /// The least role for a plan of this risk.
    pub const fn of(&self, risk: Risk) -> Role {
        match risk {
            Risk::Low => self.low,
            Risk::Medium => self.medium,
            Risk::High => self.high,
            Risk::Critical => self.critical,
        }
    }
}

/// Limits of what one plan may touch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Limits {
    /// Replicas that a workload may be scaled to, whatever its own bounds say.
    #[schemars(range(min = 1, max = 100_000))]
    pub replicas_max: u64,
    /// Share of a workload's pods that may be gone at once, above 0; one pod may always be.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub pods_share_max: f64,
    /// Different targets that one plan may change.
    #[schemars(range(min = 1, max = 1_000))]
    pub targets_max: usize,
    /// Plans that may be under way at the same time.
    #[schemars(range(min = 1, max = 1_000))]
    pub plans_max: usize,
    /// Namespaces in which anything may be changed: patterns with `*`. What has no namespace is called `-`.
    pub namespaces: Vec<String>,
    /// Namespaces in which nothing is changed, even when they are allowed above.
    pub namespaces_denied: Vec<String>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            replicas_max: 50,
            pods_share_max: 1.0 / 3.0,
            targets_max: 8,
            plans_max: 3,
            namespaces: vec!["*".into()],
            namespaces_denied: vec!["kube-system".into(), "kube-public".into(), "kube-node-lease".into()],
        }
    }
}

/// When failures in a row stop execution: counted per target and over all of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct BreakerConfig {
    /// Failures in a row that open it.
    #[schemars(range(min = 1, max = 100))]
    pub failures: u32,
    /// Seconds for which it stays open; then one trial is let through.
    #[schemars(range(min = 1, max = 86_400))]
    pub open_secs: u64,
    /// Changing operations on one target within `attempts_secs`, at most.
    #[schemars(range(min = 1, max = 1_000))]
    pub attempts_max: u32,
    /// Seconds in which they are counted.
    #[schemars(range(min = 1, max = 86_400))]
    pub attempts_secs: u64,
}

impl Default for BreakerConfig {
    fn default() -> Self {
        Self { failures: 3, open_secs: 300, attempts_max: 5, attempts_secs: 600 }
    }
}

/// What an action is taken to cost, as the share of requests that fail while a step is under way. Deliberately rough and
/// on the high side: it decides only whether a plan could spend what is left.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct BudgetConfig {
    /// A step of low risk.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub failing_low: f64,
    /// A step of medium risk.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub failing_medium: f64,
    /// A step of high risk.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub failing_high: f64,
    /// A step of critical risk.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub failing_critical: f64,
    /// Share of failed requests from which a minute counts as down, for objectives whose indicator is `uptime`.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub down_ratio: f64,
    /// Entities that are counted at most; further ones stay unknown.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub entities_max: usize,
}

impl Default for BudgetConfig {
    fn default() -> Self {
        Self {
            failing_low: 0.0,
            failing_medium: 0.02,
            failing_high: 0.25,
            failing_critical: 1.0,
            down_ratio: 0.05,
            entities_max: 10_000,
        }
    }
}

impl BudgetConfig {
    /// Share of requests taken to fail during a step of this risk.
    pub const fn failing(&self, risk: Risk) -> f64 {
        match risk {
            Risk::Low => self.failing_low,
            Risk::Medium => self.failing_medium,
            Risk::High => self.failing_high,
            Risk::Critical => self.failing_critical,
        }
    }
}

/// Rego policies.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct PolicyConfig {
    /// Folder of your own policies (`*.rego`); they are read when the service starts. Empty: none.
    pub folder: String,
    /// Shipped policies that are not asked, by the name of their file without `.rego`. The built-in limits stay.
    pub disabled: Vec<String>,
    /// Milliseconds that one policy may take; more is a denial.
    #[schemars(range(min = 1, max = 10_000))]
    pub timeout_ms: u64,
}

impl Default for PolicyConfig {
    fn default() -> Self {
        Self { folder: String::new(), disabled: Vec::new(), timeout_ms: 250 }
    }
}

/// An Open Policy Agent server.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct OpaConfig {
    /// Its address: `http://127.0.0.1:8181`.
    #[schemars(extend("format" = "uri"))]
    pub url: String,
    /// The document that is asked for, below `/v1/data/`: a package with `deny`, `ask` and `monitor`.
    pub document: String,
    /// Milliseconds within which it must answer.
    #[schemars(range(min = 10, max = 30_000))]
    pub timeout_ms: u64,
    /// Bearer token.
    pub token: Option<SecretString>,
}

impl Default for OpaConfig {
    fn default() -> Self {
        Self { url: "http://127.0.0.1:8181".into(), document: "nightshift".into(), timeout_ms: 1_000, token: None }
    }
}
