//! Which actuators there are: a closed set of kinds, each built from its settings.

use crate::{Actuator, CommandConfig, KubernetesActuatorConfig, WebhookConfig};
use nightshift_model::Clock;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// One actuator as the user writes it. The simulated estate is built by who simulates it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ActuatorConfig {
    /// Signed JSON to a URL.
    Webhook(WebhookConfig),
    /// Allow-listed programs.
    Command(CommandConfig),
    /// The objects of a Kubernetes cluster.
    Kubernetes(KubernetesActuatorConfig),
}

/// What is wrong with the settings of an actuator.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {what}")]
pub struct BuildError {
    /// The key within the actuator's settings.
    pub key: String,
    /// What is wrong and what to do, one line; no secret.
    pub what: String,
}

impl ActuatorConfig {
    /// Checks the values and builds; sends and starts nothing.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn build(&self, clock: Arc<dyn Clock>) -> Result<Arc<dyn Actuator>, BuildError> {
        Ok(match self {
            Self::Webhook(config) => Arc::new(config.build(clock)?),
            Self::Command(config) => Arc::new(config.build(clock)?),
            // Its client is linked elsewhere: the binary builds it there.
            Self::Kubernetes(config) => {
                config.check()?;
                return Err(BuildError { key: "type".into(), what: "a cluster is reached by the binary only".into() });
            }
        })
    }

    /// Checks the values; reaches nothing.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn check(&self, clock: Arc<dyn Clock>) -> Result<(), BuildError> {
        match self {
            Self::Kubernetes(config) => config.check(),
            other => other.build(clock).map(drop),
        }
    }
}
