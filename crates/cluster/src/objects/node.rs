//! Nodes, namespaces, events, leases and what else belongs to the cluster as a whole.

use super::meta::{Amounts, Condition, Many, Meta};
use super::storage::ObjectReference;
use super::workload::object;
use nightshift_model::Timestamp;
use serde::Deserialize;

object! {
    /// A node.
    Node { NodeSpec, NodeStatus }
}
object! {
    /// A namespace.
    Namespace { NamespaceSpec, NamespaceStatus }
}
object! {
    /// A lease: who leads, or that a node lives.
    Lease { LeaseSpec, super_empty }
}
object! {
    /// A group and version served by the API server or by somebody else.
    ApiService { ApiServiceSpec, ConditionsOnly }
}
object! {
    /// A request for a certificate.
    Csr { CsrSpec, CsrStatus }
}

#[expect(non_camel_case_types, reason = "never named")]
type super_empty = super::network::Empty;
type ConditionsOnly = super::network::ConditionsStatus;

/// What a node is told.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct NodeSpec {
    /// Whether it takes no new pods.
    pub unschedulable: bool,
    /// Taints.
    pub taints: Many<Taint>,
    /// Name of the machine at its provider.
    #[serde(rename = "providerID")]
    pub provider_id: String,
}

/// A taint.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Taint {
    /// Name.
    pub key: String,
    /// Value.
    pub value: String,
    /// `NoSchedule`, `PreferNoSchedule`, `NoExecute`.
    pub effect: String,
    /// Since when.
    pub time_added: Option<Timestamp>,
}

/// The status of a node.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct NodeStatus {
    /// `Ready`, `MemoryPressure`, `DiskPressure`, `PIDPressure`, `NetworkUnavailable`.
    pub conditions: Many<Condition>,
    /// What it has.
    pub capacity: Amounts,
    /// What pods may use.
    pub allocatable: Amounts,
    /// Versions.
    pub node_info: NodeInfo,
    /// Addresses.
    pub addresses: Many<NodeAddress>,
}

/// Versions of a node.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct NodeInfo {
    /// Of the kubelet.
    pub kubelet_version: String,
    /// Processor.
    pub architecture: String,
    /// Operating system.
    pub operating_system: String,
    /// Runtime.
    pub container_runtime_version: String,
    /// Kernel.
    pub kernel_version: String,
    /// Of this boot.
    #[serde(rename = "bootID")]
    pub boot_id: String,
}

/// An address of a node.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default)]
pub struct NodeAddress {
    /// `InternalIP`, `Hostname` …
    #[serde(rename = "type")]
    pub kind: String,
    /// The address.
    pub address: String,
}

/// What a namespace is told.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default)]
pub struct NamespaceSpec {
    /// Who must let go before it is deleted.
    pub finalizers: Many<String>,
}

/// The status of a namespace.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default)]
pub struct NamespaceStatus {
    /// `Active`, `Terminating`.
    pub phase: String,
    /// Why it does not end.
    pub conditions: Many<Condition>,
}

/// An event. One object has many: read them all.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Event {
    /// Metadata.
    pub metadata: Meta,
    /// What it is about.
    pub involved_object: ObjectReference,
    /// One word.
    pub reason: String,
    /// For people.
    pub message: String,
    /// `Normal` or `Warning`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Times.
    pub count: Option<i64>,
    /// First.
    pub first_timestamp: Option<Timestamp>,
    /// Last.
    pub last_timestamp: Option<Timestamp>,
    /// Of newer events: when.
    pub event_time: Option<Timestamp>,
    /// Of newer events: how often.
    pub series: Option<EventSeries>,
    /// Who says it.
    pub reporting_component: String,
    /// Who says it, in older events.
    pub source: EventSource,
    /// What else it is about: of events on a policy, the object that breaks it.
    pub related: Option<ObjectReference>,
}

/// How often a newer event was seen.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct EventSeries {
    /// Times.
    pub count: i64,
    /// Last.
    pub last_observed_time: Option<Timestamp>,
}

/// Who says an older event.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default)]
pub struct EventSource {
    /// `kubelet` …
    pub component: String,
    /// Node.
    pub host: String,
}

impl Event {
    /// When it was last seen.
    pub fn last_seen(&self) -> Option<Timestamp> {
        let series = self.series.as_ref().and_then(|s| s.last_observed_time);
        [series, self.last_timestamp, self.event_time, self.first_timestamp, self.metadata.creation_timestamp]
            .into_iter()
            .flatten()
            .max()
    }

    /// When it was first seen.
    pub fn first_seen(&self) -> Option<Timestamp> {
        [self.first_timestamp, self.event_time, self.metadata.creation_timestamp].into_iter().flatten().min()
    }

    /// How often it was seen, at least 1.
    pub fn times(&self) -> i64 {
        self.count.or(self.series.as_ref().map(|s| s.count)).unwrap_or(1).max(1)
    }

    /// Who says it.
    pub fn reporter(&self) -> &str {
        if self.reporting_component.is_empty() { &self.source.component } else { &self.reporting_component }
    }
}

/// What a lease says.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct LeaseSpec {
    /// Who holds it.
    pub holder_identity: Option<String>,
    /// Seconds it holds.
    pub lease_duration_seconds: Option<i64>,
    /// When it was renewed.
    pub renew_time: Option<Timestamp>,
    /// Since when this one holds it.
    pub acquire_time: Option<Timestamp>,
    /// Changes of the holder.
    pub lease_transitions: Option<i64>,
}

/// Who serves a group and version.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default)]
pub struct ApiServiceSpec {
    /// Group.
    pub group: String,
    /// Version.
    pub version: String,
    /// The service; absent: the API server itself.
    pub service: Option<super::network::WebhookService>,
}

/// What a request for a certificate wants.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct CsrSpec {
    /// Who signs.
    pub signer_name: String,
    /// Who asks.
    pub username: String,
}

/// The status of a request for a certificate.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default)]
pub struct CsrStatus {
    /// `Approved`, `Denied`, `Failed`.
    pub conditions: Many<Condition>,
    /// The certificate is there; it stays unread.
    pub certificate: Option<serde::de::IgnoredAny>,
}
