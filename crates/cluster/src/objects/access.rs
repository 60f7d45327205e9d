//! Who may do what, and how much: accounts, roles, quotas, limits, priorities.

use super::meta::{Amounts, Many, Meta};
use super::pod::LocalRef;
use super::workload::object;
use serde::Deserialize;

object! {
    /// A quota of a namespace.
    ResourceQuota { QuotaSpec, QuotaStatus }
}
object! {
    /// Limits that a namespace puts on each pod or container.
    LimitRange { LimitRangeSpec, NoStatus }
}

type NoStatus = super::network::Empty;

/// A service account.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ServiceAccount {
    /// Metadata.
    pub metadata: Meta,
    /// Pull secrets of its pods.
    pub image_pull_secrets: Many<LocalRef>,
}

/// A role, of a namespace or of the cluster.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default)]
pub struct Role {
    /// Metadata.
    pub metadata: Meta,
    /// What it allows.
    pub rules: Many<PolicyRule>,
}

/// What a role allows.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct PolicyRule {
    /// Groups.
    pub api_groups: Many<String>,
    /// Resources.
    pub resources: Many<String>,
    /// Verbs.
    pub verbs: Many<String>,
    /// These objects only.
    pub resource_names: Many<String>,
    /// Paths that are no resources.
    #[serde(rename = "nonResourceURLs")]
    pub non_resource_urls: Many<String>,
}

/// A binding of a role, in a namespace or for the cluster.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct RoleBinding {
    /// Metadata.
    pub metadata: Meta,
    /// To whom.
    pub subjects: Many<Subject>,
    /// Which role.
    pub role_ref: RoleRef,
}

/// Who gets a role.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default)]
pub struct Subject {
    /// `ServiceAccount`, `User`, `Group`.
    pub kind: String,
    /// Name.
    pub name: String,
    /// Of a service account.
    pub namespace: String,
}

/// Which role.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default)]
pub struct RoleRef {
    /// `Role` or `ClusterRole`.
    pub kind: String,
    /// Name.
    pub name: String,
}

/// What a quota allows.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct QuotaSpec {
    /// At most.
    pub hard: Amounts,
    /// Of these only.
    pub scopes: Many<String>,
}

/// The status of a quota.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default)]
pub struct QuotaStatus {
    /// At most.
    pub hard: Amounts,
    /// In use.
    pub used: Amounts,
}

/// Limits of a namespace.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default)]
pub struct LimitRangeSpec {
    /// They.
    pub limits: Many<LimitRangeItem>,
}

/// Limits on one type of thing.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct LimitRangeItem {
    /// `Container`, `Pod`, `PersistentVolumeClaim`.
    #[serde(rename = "type")]
    pub kind: String,
    /// At most.
    pub max: Amounts,
    /// At least.
    pub min: Amounts,
    /// Limit unless told.
    #[serde(rename = "default")]
    pub default_limit: Amounts,
    /// Request unless told.
    pub default_request: Amounts,
}

/// A class of priorities.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct PriorityClass {
    /// Metadata.
    pub metadata: Meta,
    /// Higher goes first.
    pub value: i64,
    /// For pods that name none.
    pub global_default: bool,
    /// `PreemptLowerPriority` (also when empty) or `Never`.
    pub preemption_policy: String,
}
