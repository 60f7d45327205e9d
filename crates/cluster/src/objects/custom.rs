//! Custom resources of other software, as they come: specification and status stay JSON.

use super::meta::{Condition, Many, Meta};
use serde::Deserialize;
use serde_json::Value;

/// An object of a kind that is found by discovery.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Custom {
    /// Group and version.
    pub api_version: String,
    /// Kind.
    pub kind: String,
    /// Metadata.
    pub metadata: Meta,
    /// What is wanted.
    pub spec: Value,
    /// What is.
    pub status: Value,
    /// Of policy reports: one row per rule and object.
    pub results: Value,
    /// Of policy reports: what it is about.
    pub scope: Value,
    /// Of policy reports: counts.
    pub summary: Value,
}

impl Custom {
    /// The group.
    pub fn group(&self) -> &str {
        self.api_version.split_once('/').map_or("", |(group, _)| group)
    }

    /// The conditions of its status, where they have the usual form.
    pub fn conditions(&self) -> Many<Condition> {
        self.status.get("conditions").and_then(|c| Many::deserialize(c).ok()).unwrap_or_default()
    }

    /// A text at a JSON pointer of the specification (`/destination/namespace`); empty when there is none.
    pub fn spec_text(&self, pointer: &str) -> &str {
        self.spec.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
    }

    /// A text at a JSON pointer of the status; empty when there is none.
    pub fn status_text(&self, pointer: &str) -> &str {
        self.status.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
    }
}

/// Kinds of other software that are worth watching where they are served: (group, kind). Versions are found by discovery.
pub const CUSTOM_KINDS: &[(&str, &str)] = &[
    ("argoproj.io", "Application"),
    ("argoproj.io", "Rollout"),
    ("kyverno.io", "ClusterPolicy"),
    ("kyverno.io", "Policy"),
    ("kyverno.io", "PolicyException"),
    ("wgpolicyk8s.io", "PolicyReport"),
    ("wgpolicyk8s.io", "ClusterPolicyReport"),
    ("openreports.io", "Report"),
    ("openreports.io", "ClusterReport"),
    ("kustomize.toolkit.fluxcd.io", "Kustomization"),
    ("helm.toolkit.fluxcd.io", "HelmRelease"),
    ("source.toolkit.fluxcd.io", "GitRepository"),
    ("source.toolkit.fluxcd.io", "HelmRepository"),
    ("source.toolkit.fluxcd.io", "OCIRepository"),
    ("cert-manager.io", "Certificate"),
    ("cert-manager.io", "CertificateRequest"),
    ("cert-manager.io", "Issuer"),
    ("cert-manager.io", "ClusterIssuer"),
    ("keda.sh", "ScaledObject"),
    ("keda.sh", "ScaledJob"),
    ("keda.sh", "TriggerAuthentication"),
    ("monitoring.coreos.com", "Prometheus"),
    ("monitoring.coreos.com", "ServiceMonitor"),
    ("monitoring.coreos.com", "PodMonitor"),
    ("monitoring.coreos.com", "PrometheusRule"),
    ("monitoring.coreos.com", "Alertmanager"),
    ("monitoring.coreos.com", "AlertmanagerConfig"),
    ("postgresql.cnpg.io", "Cluster"),
    ("operators.coreos.com", "Subscription"),
    ("operators.coreos.com", "ClusterServiceVersion"),
    ("operators.coreos.com", "InstallPlan"),
    ("operators.coreos.com", "CatalogSource"),
    ("security.istio.io", "PeerAuthentication"),
    ("security.istio.io", "AuthorizationPolicy"),
    ("networking.istio.io", "VirtualService"),
    ("networking.istio.io", "DestinationRule"),
    ("networking.istio.io", "Sidecar"),
];
