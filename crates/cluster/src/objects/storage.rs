//! Claims, volumes and their classes.

use super::meta::{Amounts, Condition, LabelSelector, Many, Meta};
use super::pod::NodeAffinity;
use super::workload::object;
use serde::Deserialize;

object! {
    /// A claim of a volume.
    Pvc { PvcSpec, PvcStatus }
}
object! {
    /// A volume.
    Pv { PvSpec, PvStatus }
}

/// What a claim wants.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct PvcSpec {
    /// Class; absent means the default one, empty means none.
    pub storage_class_name: Option<String>,
    /// Volume that it is bound to.
    pub volume_name: String,
    /// `ReadWriteOnce` …
    pub access_modes: Many<String>,
    /// How much.
    pub resources: super::pod::Resources,
    /// Which volumes.
    pub selector: Option<LabelSelector>,
    /// `Filesystem` (also when empty) or `Block`.
    pub volume_mode: String,
}

/// The status of a claim.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct PvcStatus {
    /// `Pending`, `Bound`, `Lost`.
    pub phase: String,
    /// What it got.
    pub capacity: Amounts,
    /// `Resizing`, `FileSystemResizePending` …
    pub conditions: Many<Condition>,
}

/// What a volume is.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct PvSpec {
    /// Class.
    pub storage_class_name: String,
    /// How much.
    pub capacity: Amounts,
    /// `ReadWriteOnce` …
    pub access_modes: Many<String>,
    /// Claim that it is bound to.
    pub claim_ref: Option<ObjectReference>,
    /// Where it can be reached from.
    pub node_affinity: Option<NodeAffinity>,
    /// `Retain`, `Delete`, `Recycle`.
    pub persistent_volume_reclaim_policy: String,
    /// `Filesystem` (also when empty) or `Block`.
    pub volume_mode: String,
}

/// A reference to an object anywhere.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ObjectReference {
    /// Group and version.
    pub api_version: String,
    /// Kind.
    pub kind: String,
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// Uid.
    pub uid: String,
    /// Part of it (`spec.containers{app}`).
    pub field_path: String,
}

/// The status of a volume.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct PvStatus {
    /// `Available`, `Bound`, `Released`, `Failed`, `Pending`.
    pub phase: String,
    /// Why.
    pub reason: String,
    /// For people.
    pub message: String,
    /// Since when it is in this phase.
    pub last_phase_transition_time: Option<nightshift_model::Timestamp>,
}

/// A class of volumes.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct StorageClass {
    /// Metadata; the default one is marked `storageclass.kubernetes.io/is-default-class`.
    pub metadata: Meta,
    /// Who makes the volumes.
    pub provisioner: String,
    /// `Immediate` (also when empty) or `WaitForFirstConsumer`.
    pub volume_binding_mode: String,
    /// Whether claims may grow.
    pub allow_volume_expansion: bool,
}
