//! Settings of planning.

use nightshift_model::ActionType;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// How plans are made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct PlanConfig {
    /// Folder with playbooks of your own, beside those that ship; one of the same name replaces it. Empty: none.
    pub folder: String,
    /// Playbooks that ship and are not to be used, by name.
    pub disabled: Vec<String>,
    /// Name of the actuator of steps that name none.
    pub actuator: String,
    /// Actuators by name of the action type (`scale_deployment` …), where they differ from `actuator`.
    pub actuators: BTreeMap<String, String>,
    /// Expected benefit (0 to 1 of the incident's score, less expected harm) below which nothing is proposed but a
    /// person's look at it.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub benefit_min: f64,
    /// How many of the best candidates are tried on the fitted copy of the estate.
    #[schemars(range(min = 1, max = 16))]
    pub tried_max: u32,
    /// Hypotheses that are looked at, likeliest first.
    #[schemars(range(min = 1, max = 16))]
    pub hypotheses_max: u32,
    /// Confidence below which a hypothesis is not planned for by itself (it still counts for plans made for another).
    #[schemars(range(min = 0.0, max = 1.0))]
    pub confidence_min: f64,
    /// Targets that are looked at before planning, at most.
    #[schemars(range(min = 1, max = 64))]
    pub looks_max: u32,
    /// How much weight a playbook's own success rate has against what was learned, in incidents.
    #[schemars(range(min = 0.1, max = 1000.0))]
    pub prior_weight: f64,
    /// What a trial must say at least for a plan that acts: share of trials in which the KPI came back.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub predicted_success_min: f64,
}

impl Default for PlanConfig {
    fn default() -> Self {
        Self {
            folder: String::new(),
            disabled: Vec::new(),
            actuator: "estate".into(),
            actuators: BTreeMap::new(),
            benefit_min: 0.05,
            tried_max: 4,
            hypotheses_max: 8,
            confidence_min: 0.03,
            looks_max: 16,
            prior_weight: 8.0,
            predicted_success_min: 0.25,
        }
    }
}

impl PlanConfig {
    /// The actuator of a step that names none.
    pub fn actuator_for(&self, action: ActionType) -> &str {
        self.actuators.get(action.as_str()).unwrap_or(&self.actuator)
    }
}
