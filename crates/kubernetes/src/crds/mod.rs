//! Custom resources of our own: playbooks, policies and objectives that people keep in the cluster, and incidents
//! mirrored into it.
//!
//! Lives here: the types (group `nightshift.dev`, version `v1alpha1`), the controller that hands what it reads to the
//! [`Library`] and writes what became of it into the objects' status, and the mirror that shows [`Incidents`] to
//! `kubectl`. Which of several replicas writes is decided by [`crate::lease`].
//!
//! Never here: whether a playbook, policy or objective is any good (that is the library's), or anything that is read
//! back from a mirrored incident: our own record is the journal.
//!
//! The definitions that the chart installs (`deploy/helm/nightshift/crds`) are written by hand, with bounds and texts
//! for people. A test compares them with the types here, so that the two cannot drift apart.

mod call;
mod controller;
mod held;
mod incident;
mod kinds;
mod library;
mod mirror;
mod settings;
mod status;

pub use controller::Controller;
pub use incident::{
    ActionLine, CauseLine, Incident, IncidentMirror, IncidentSpec, IncidentState, PlanLine, incident_mirror, kept,
};
pub use kinds::{
    Canary, ObjectiveTarget, Parameter, Playbook, PlaybookSpec, PlaybookStatus, PlaybookStep, PlaybookVerify,
    RemediationPolicy, RemediationPolicySpec, RemediationPolicyStatus, ServiceObjective, ServiceObjectiveSpec,
    ServiceObjectiveStatus,
};
pub use library::{
    Answer, Library, ObjectKey, ObjectiveAnswer, ObjectiveOrder, PlaybookAnswer, PlaybookText, PolicyAnswer, PolicyText,
};
pub use mirror::{Heard, Incidents, Mirror};
pub use settings::CrdSettings;

pub(crate) use call::call;

/// Name of the writer of fields, in `metadata.managedFields`.
pub const FIELD_MANAGER: &str = "nightshift";
/// Group of our custom resources.
pub const GROUP: &str = "nightshift.dev";
/// Version of our custom resources.
pub const VERSION: &str = "v1alpha1";
/// The condition that says whether what people wrote is in force.
pub const ACCEPTED: &str = "Accepted";
