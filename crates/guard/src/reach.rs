//! How much of its target a step touches: read from its bound parameters, never guessed.

use crate::facts::{TargetFacts, whole};
use nightshift_model::{ActionType, PlanStep};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Parameter and fact with the number of replicas.
pub const REPLICAS: &str = "replicas";
/// Fact with the fewest replicas that an entity may have; also an attribute of the topology.
pub const MIN_REPLICAS: &str = "min_replicas";
/// Fact with the most replicas that an entity may have; also an attribute of the topology.
pub const MAX_REPLICAS: &str = "max_replicas";
/// Parameter of a restart: the share of pods that are down at once, above 0 and at most 1, or a whole number of them
/// above 1.
pub const MAX_UNAVAILABLE: &str = "max_unavailable";

/// Pods that are gone at once while a step is under way.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Pods {
    /// So many; absent when the step does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at_once: Option<u64>,
    /// The share of them, as the step says it; absent when it says none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub share: Option<f64>,
    /// Of so many; absent when unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub of: Option<u64>,
}

/// Replicas that a step sets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Replicas {
    /// From; absent when unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<u64>,
    /// To; absent when the step does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<u64>,
    /// Fewest that the entity allows; absent when unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min: Option<u64>,
    /// Most that the entity allows; absent when unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<u64>,
}

/// Replicas that a step sets; `None` when it is not about them.
pub(crate) fn replicas(step: &PlanStep, target: &TargetFacts) -> Option<Replicas> {
    let scales = matches!(step.action, ActionType::ScaleDeployment | ActionType::CostScaleDown);
    let to = step.params.get(REPLICAS);
    if !scales && to.is_none() {
        return None;
    }
    let from = step.expects.get(REPLICAS).and_then(whole).or(target.replicas);
    Some(Replicas { from, to: to.and_then(whole), min: target.replicas_min, max: target.replicas_max })
}

/// Pods that a step takes away; `None` when it takes none, or when the controller of the workload replaces them by its
/// own budget (a rollback, a patch).
pub(crate) fn pods(step: &PlanStep, target: &TargetFacts) -> Option<Pods> {
    if let Some(Replicas { from, to: Some(to), .. }) = replicas(step, target) {
        let gone = from?.saturating_sub(to);
        return (gone > 0).then_some(Pods { at_once: Some(gone), share: None, of: from });
    }
    if step.action != ActionType::RestartPods {
        return None;
    }
    let of = step.expects.get(REPLICAS).and_then(whole).or(target.replicas);
    let said = step.params.get(MAX_UNAVAILABLE).and_then(serde_json::Value::as_f64);
    let at_once = match (said, of) {
        // A controller rounds a share of what may be gone down, and takes one at least.
        (Some(share), Some(of)) if share > 0.0 && share <= 1.0 => {
            Some(((share * of as f64 + 1e-9).floor() as u64).max(1))
        }
        (Some(n), _) if n > 1.0 && n.fract() == 0.0 && n < 1e9 => Some(n as u64),
        _ => None,
    };
    let share = said.filter(|s| *s > 0.0 && *s <= 1.0);
    Some(Pods { at_once, share, of })
}

/// Pods that may be gone at once: the share of them, rounded down, but one may always be.
pub(crate) fn pods_allowed(of: u64, share: f64) -> u64 {
    // A third of three is one, whatever the last bit of the product says.
    ((of as f64 * share + 1e-9).floor() as u64).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_third_is_rounded_down_and_one_may_always_go() {
        for (of, allowed) in [(0, 1), (1, 1), (2, 1), (3, 1), (5, 1), (6, 2), (9, 3), (10, 3), (100, 33)] {
            assert_eq!(pods_allowed(of, 1.0 / 3.0), allowed, "{of}");
        }
        assert_eq!(pods_allowed(7, 1.0), 7);
        assert_eq!(pods_allowed(7, 0.0), 1);
    }
}
