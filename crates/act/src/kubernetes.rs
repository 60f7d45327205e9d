//! What the Kubernetes actuator may do, as the user writes it. It is built where the client of the API server is.

use crate::BuildError;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Namespaces that may be listed.
const NAMESPACES_MAX: usize = 1_000;

/// A Kubernetes cluster that is acted on. As it stands it only looks and tries: nothing is written without `namespaces`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct KubernetesActuatorConfig {
    /// Name of the cluster in ids: the first part of the entities that it acts on.
    pub cluster: String,
    /// Context of the kubeconfig; empty: the current one, or the account of the pod that we run in.
    pub context: String,
    /// Kubeconfig by whole path; empty: KUBECONFIG, or the file in the home folder.
    pub kubeconfig: String,
    /// The only namespaces in which anything is changed. Empty: nothing is.
    pub namespaces: Vec<String>,
    /// Whether nodes may be cordoned, drained and uncordoned. Pods are still evicted in `namespaces` only.
    pub nodes: bool,
    /// Whether a pod that is stuck and that a controller owns may be deleted.
    pub delete_stuck_pods: bool,
    /// Whether Helm releases may be rolled back. It needs the right to read and write the secrets of the namespaces.
    pub helm_rollback: bool,
    /// Jobs that may be run, by the name that playbooks use: the cron job whose template it is, as NAMESPACE/NAME. Beside
    /// them cron jobs in the target's own namespace that carry the annotation `nightshift.dev/runnable: "true"`.
    pub jobs: BTreeMap<String, String>,
    /// Most replicas that the bounds of an autoscaler may be raised to where neither it nor its workload names a limit
    /// with the annotation `nightshift.dev/max-replicas`. 0: only with the annotation.
    #[schemars(range(min = 0, max = 10_000))]
    pub replicas_max: u32,
    /// Seconds for a look.
    #[schemars(range(min = 1, max = 60))]
    pub look_secs: u64,
}

impl Default for KubernetesActuatorConfig {
    fn default() -> Self {
        Self {
            cluster: "local".into(),
            context: String::new(),
            kubeconfig: String::new(),
            namespaces: Vec::new(),
            nodes: false,
            delete_stuck_pods: false,
            helm_rollback: false,
            jobs: BTreeMap::new(),
            replicas_max: 0,
            look_secs: 8,
        }
    }
}

impl KubernetesActuatorConfig {
    /// Checks the values; reaches nothing.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn check(&self) -> Result<(), BuildError> {
        let bad = |key: String, what: String| Err(BuildError { key, what });
        if self.cluster.trim().is_empty() {
            return bad(
                "cluster".into(),
                "name the cluster as in the ids of its entities, for instance `local`".into(),
            );
        }
        if self.namespaces.len() > NAMESPACES_MAX {
            return bad("namespaces".into(), format!("at most {NAMESPACES_MAX} are listed"));
        }
        for (i, name) in self.namespaces.iter().enumerate() {
            if name.contains('*') {
                let what = format!("`{name}` is a pattern; name each namespace in which something may be changed");
                return bad(format!("namespaces.{i}"), what);
            }
            if !is_label(name) {
                return bad(format!("namespaces.{i}"), format!("`{name}` is no name of a namespace"));
            }
        }
        if self.nodes && self.namespaces.is_empty() {
            return bad(
                "nodes".into(),
                "list in `namespaces` whose pods may leave a node, or leave `nodes` off".into(),
            );
        }
        if (self.helm_rollback || self.delete_stuck_pods) && self.namespaces.is_empty() {
            return bad("namespaces".into(), "list the namespaces in which something may be changed".into());
        }
        for (job, template) in &self.jobs {
            let good = template.split_once('/').is_some_and(|(ns, name)| is_label(ns) && is_name(name));
            if !good {
                return bad(format!("jobs.{job}"), format!("`{template}` is not NAMESPACE/NAME of a cron job"));
            }
        }
        if !self.kubeconfig.is_empty() && !self.kubeconfig.starts_with('/') {
            return bad("kubeconfig".into(), "it is no whole path; begin it with /".into());
        }
        if !(1..=60).contains(&self.look_secs) {
            return bad("look_secs".into(), format!("{} is not between 1 and 60", self.look_secs));
        }
        if self.replicas_max > 10_000 {
            return bad("replicas_max".into(), format!("{} is more than 10000", self.replicas_max));
        }
        Ok(())
    }
}

fn is_label(text: &str) -> bool {
    text.len() <= 63 && is_name(text) && !text.contains('.')
}

fn is_name(text: &str) -> bool {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'.');
    let edge = |b: Option<u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    text.len() <= 253 && text.bytes().all(inner) && edge(text.bytes().next()) && edge(text.bytes().last())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_only_looks_until_told_otherwise() {
        let config = KubernetesActuatorConfig::default();
        assert_eq!(config.check(), Ok(()));
        assert!(config.namespaces.is_empty() && !config.nodes && !config.delete_stuck_pods && !config.helm_rollback);
    }

    #[test]
    fn each_bad_value_is_named() {
        let good = || KubernetesActuatorConfig { namespaces: vec!["shop".into()], ..Default::default() };
        assert_eq!(good().check(), Ok(()));
        let jobs = |to: &str| BTreeMap::from([("clean-disk".to_owned(), to.to_owned())]);
        for (config, key) in [
            (KubernetesActuatorConfig { cluster: " ".into(), ..good() }, "cluster"),
            (KubernetesActuatorConfig { namespaces: vec!["*".into()], ..good() }, "namespaces.0"),
            (KubernetesActuatorConfig { namespaces: vec!["shop".into(), "A b".into()], ..good() }, "namespaces.1"),
            (KubernetesActuatorConfig { nodes: true, namespaces: vec![], ..good() }, "nodes"),
            (KubernetesActuatorConfig { helm_rollback: true, namespaces: vec![], ..good() }, "namespaces"),
            (KubernetesActuatorConfig { delete_stuck_pods: true, namespaces: vec![], ..good() }, "namespaces"),
            (KubernetesActuatorConfig { jobs: jobs("clean"), ..good() }, "jobs.clean-disk"),
            (KubernetesActuatorConfig { jobs: jobs("../x"), ..good() }, "jobs.clean-disk"),
            (KubernetesActuatorConfig { kubeconfig: "config".into(), ..good() }, "kubeconfig"),
            (KubernetesActuatorConfig { look_secs: 0, ..good() }, "look_secs"),
            (KubernetesActuatorConfig { replicas_max: 20_000, ..good() }, "replicas_max"),
        ] {
            assert_eq!(config.check().unwrap_err().key, key, "{config:?}");
        }
    }
}
