//! Where Kubernetes is linked in: the builders of its source and its actuator. Without the feature both say so.

use nightshift_act::{Actuator, BuildError, KubernetesActuatorConfig};
use nightshift_collect::kubernetes::BuildKubernetes;
use nightshift_model::Clock;
use std::sync::Arc;

/// Builds what watches Kubernetes.
#[cfg(feature = "kubernetes")]
pub(crate) const SOURCE: Option<BuildKubernetes> = Some(nightshift_kubernetes::build);
/// Builds what watches Kubernetes: not in this program.
#[cfg(not(feature = "kubernetes"))]
pub(crate) const SOURCE: Option<BuildKubernetes> = None;

/// Builds what acts on a cluster. Reads the credentials; reaches nothing yet.
///
/// # Errors
/// When the values or the credentials are no good.
#[cfg(feature = "kubernetes")]
pub(crate) async fn actuator(
    config: &KubernetesActuatorConfig,
    clock: Arc<dyn Clock>,
) -> Result<Arc<dyn Actuator>, BuildError> {
    use nightshift_kubernetes::{Access, ApiServer};
    config.check()?;
    let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let access = Access {
        kubeconfig: some(&config.kubeconfig).map(Into::into),
        context: some(&config.context),
        in_cluster: false,
    };
    let server = ApiServer::find(&access)
        .await
        .map_err(|e| BuildError { key: "kubeconfig".into(), what: format!("find the cluster: {e}") })?;
    Ok(nightshift_kubernetes::build_actuator(config, server.client().clone(), clock)?)
}

/// Says that this program cannot act on a cluster.
///
/// # Errors
/// Always.
#[cfg(not(feature = "kubernetes"))]
pub(crate) async fn actuator(
    config: &KubernetesActuatorConfig,
    _clock: Arc<dyn Clock>,
) -> Result<Arc<dyn Actuator>, BuildError> {
    config.check()?;
    let what = "this program was built without Kubernetes; build it with `--features kubernetes`".into();
    Err(BuildError { key: "type".into(), what })
}
