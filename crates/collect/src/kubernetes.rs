//! Settings of the Kubernetes source. What watches is in `nightshift-kubernetes`: its client is linked there alone.

use crate::deliver::fatal;
use crate::supervise::Surroundings;
use crate::{Source, SourceError};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Watches Kubernetes clusters: objects, events, use, logs of what is in trouble; and finds faults on them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct KubernetesConfig {
    /// Kubeconfig file; unless told `KUBECONFIG`, then `~/.kube/config`, then the account of the pod that this runs in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kubeconfig: Option<PathBuf>,
    /// Clusters; none means the current context, under the name of `ingest.resolve.cluster`.
    pub clusters: Vec<ClusterConfig>,
    /// Which namespaces.
    pub namespaces: NamespaceRules,
    /// Which share of the namespaces, where several watch one cluster.
    pub shard: ShardConfig,
    /// Watch secrets (names of keys, sizes, hashes and TLS certificates; values are never kept). Needs the right to
    /// read them; without, what needs it says what it cannot see.
    pub secrets: bool,
    /// Read the logs of containers in trouble.
    pub logs: bool,
    /// Read what pods and nodes use from the metrics API, where it is served.
    pub metrics: bool,
    /// Seconds between two readings of the metrics API.
    #[schemars(range(min = 5, max = 3600))]
    pub metrics_every_secs: u64,
    /// Seconds that a finding must be gone before it is over.
    #[schemars(range(min = 0, max = 3600))]
    pub clear_after_secs: u64,
    /// Annotations by which a budget tool says that a workload spends too much.
    pub budget_annotations: Vec<String>,
    /// Base URL of the OpenCost API (`http://opencost.opencost:9003`); empty: costs are not read.
    pub opencost: String,
}

impl Default for KubernetesConfig {
    fn default() -> Self {
        Self {
            kubeconfig: None,
            clusters: Vec::new(),
            namespaces: NamespaceRules::default(),
            shard: ShardConfig::default(),
            secrets: false,
            logs: true,
            metrics: true,
            metrics_every_secs: 15,
            clear_after_secs: 15,
            budget_annotations: vec!["cost.neuroscale/budget-alert".into(), "opencost.io/budget-alert".into()],
            opencost: String::new(),
        }
    }
}

/// One cluster.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct ClusterConfig {
    /// What it is called in entities; the context's name when empty.
    pub name: String,
    /// Context of the kubeconfig; the account of the pod that this runs in when empty.
    pub context: String,
}

/// Namespaces by name; `*` stands for any number of characters.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct NamespaceRules {
    /// These only; none means all.
    pub allow: Vec<String>,
    /// Never these.
    pub deny: Vec<String>,
}

/// A share of the namespaces, by hash of their names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct ShardConfig {
    /// Which share, from 0.
    pub index: u32,
    /// Of how many.
    #[schemars(range(min = 1, max = 1024))]
    pub of: u32,
}

impl Default for ShardConfig {
    fn default() -> Self {
        Self { index: 0, of: 1 }
    }
}

/// Builds the source; given by the binary where Kubernetes is linked.
pub type BuildKubernetes = fn(&str, &KubernetesConfig, &Surroundings) -> Result<Box<dyn Source>, SourceError>;

impl KubernetesConfig {
    /// Checks what needs no cluster, then builds by the builder that the surroundings have.
    ///
    /// # Errors
    /// What is wrong with the values; that this program was built without Kubernetes.
    pub(crate) fn build(&self, name: &str, around: &Surroundings) -> Result<Box<dyn Source>, SourceError> {
        if self.shard.of == 0 || self.shard.index >= self.shard.of {
            let ShardConfig { index, of } = self.shard;
            return Err(fatal(format!("shard.index {index} must be below shard.of {of}")));
        }
        let mut names: Vec<&str> = self.clusters.iter().map(ClusterConfig::called).collect();
        names.sort_unstable();
        if let Some(two) = names.windows(2).find(|w| w[0] == w[1]) {
            return Err(fatal(format!("clusters: two are called `{}`; give each its own name", two[0])));
        }
        if !self.opencost.is_empty() && !self.opencost.starts_with("http://") && !self.opencost.starts_with("https://")
        {
            return Err(fatal("opencost: begin the URL with http:// or https://"));
        }
        match around.kubernetes {
            Some(build) => build(name, self, around),
            None => Err(fatal("this program was built without Kubernetes; build it with `--features kubernetes`")),
        }
    }
}

impl ClusterConfig {
    /// What it is called.
    pub fn called(&self) -> &str {
        if self.name.is_empty() { &self.context } else { &self.name }
    }
}

impl NamespaceRules {
    /// Whether a namespace is among them.
    pub fn admits(&self, namespace: &str) -> bool {
        let any = |globs: &[String]| globs.iter().any(|g| crate::resolve::matches_glob(g, namespace));
        (self.allow.is_empty() || any(&self.allow)) && !any(&self.deny)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deny_wins_over_allow() {
        let rules = NamespaceRules { allow: vec!["shop-*".into()], deny: vec!["*-test".into()] };
        assert!(rules.admits("shop-eu"));
        assert!(!rules.admits("shop-test") && !rules.admits("bank"));
        assert!(NamespaceRules::default().admits("anything"));
    }
}
