//! Settings of the workflow.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// How an incident is taken from its detection to its end.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct WorkflowConfig {
    /// Score below which an incident is watched and not worked on.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub real_score_min: f64,
    /// Confidence of the likeliest cause above which planning begins at once.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub settle_confidence: f64,
    /// Seconds for which a ranking below `settle_confidence` may still change before a plan is made of what there is.
    #[schemars(range(min = 0, max = 300))]
    pub settle_secs: u64,
    /// Seconds within which targets must have been looked at; what was not is planned without.
    #[schemars(range(min = 1, max = 60))]
    pub looks_timeout_secs: u64,
    /// Times that the planner may ask for further looks before it must plan with what there is.
    #[schemars(range(min = 0, max = 5))]
    pub looks_rounds_max: u32,
    /// Seconds for which an external policy engine is waited for; no answer is a denial.
    #[schemars(range(min = 1, max = 60))]
    pub policy_timeout_secs: u64,
    /// Plans that are carried out for one incident at most; then a person must act.
    #[schemars(range(min = 1, max = 20))]
    pub attempts_max: u32,
    /// Plans that are made for one incident at most, carried out or not.
    #[schemars(range(min = 1, max = 100))]
    pub plans_max: u32,
    /// Times that one node may be entered for one incident; then a person must act.
    #[schemars(range(min = 1, max = 1000))]
    pub node_attempts_max: u32,
    /// Seconds after which a watched incident is judged again for the first time; doubled each time.
    #[schemars(range(min = 1, max = 3600))]
    pub monitor_secs: u64,
    /// Longest time between two judgements of a watched incident, in seconds.
    #[schemars(range(min = 1, max = 86_400))]
    pub monitor_secs_max: u64,
    /// Times that a watched incident is judged again before a person must act.
    #[schemars(range(min = 1, max = 100))]
    pub monitor_rounds_max: u32,
    /// Good readings in a row that show a recovery when no plan says how many.
    #[schemars(range(min = 1, max = 100))]
    pub readings: u32,
    /// Seconds after a rehearsal (dry-run) within which the signal may recover by itself before a person is called.
    #[schemars(range(min = 1, max = 86_400))]
    pub rehearsed_secs: u64,
    /// Seconds after a resolution in which a relapse reopens the incident; what was learned is written down after it.
    #[schemars(range(min = 0, max = 3600))]
    pub probation_secs: u64,
    /// Seconds after a resolution for which is remembered what was tried. As long as a return reopens the incident.
    #[schemars(range(min = 0, max = 86_400))]
    pub remember_secs: u64,
    /// Seconds after which a postmortem that was not written is asked for again.
    #[schemars(range(min = 1, max = 3600))]
    pub postmortem_retry_secs: u64,
    /// Times that a postmortem is asked for.
    #[schemars(range(min = 1, max = 20))]
    pub postmortem_attempts_max: u32,
    /// Seconds after which people are called again while nobody has acknowledged. 0: never.
    #[schemars(range(min = 0, max = 86_400))]
    pub remind_secs: u64,
    /// Times that people are called again.
    #[schemars(range(min = 0, max = 100))]
    pub reminders_max: u32,
}

impl Default for WorkflowConfig {
    fn default() -> Self {
        Self {
            real_score_min: 0.5,
            settle_confidence: 0.9,
            settle_secs: 3,
            looks_timeout_secs: 2,
            looks_rounds_max: 2,
            policy_timeout_secs: 3,
            attempts_max: 3,
            plans_max: 12,
            node_attempts_max: 40,
            monitor_secs: 10,
            monitor_secs_max: 240,
            monitor_rounds_max: 8,
            readings: 3,
            rehearsed_secs: 120,
            probation_secs: 90,
            remember_secs: 300,
            postmortem_retry_secs: 30,
            postmortem_attempts_max: 5,
            remind_secs: 900,
            reminders_max: 3,
        }
    }
}

impl WorkflowConfig {
    /// What no schema can say: one line for each thing that is wrong, with its key.
    pub fn problems(&self) -> Vec<String> {
        let mut out = Vec::new();
        if self.monitor_secs > self.monitor_secs_max {
            out.push(format!(
                "monitor_secs: {} is above monitor_secs_max ({})",
                self.monitor_secs, self.monitor_secs_max
            ));
        }
        if self.attempts_max > self.plans_max {
            out.push(format!("attempts_max: {} is above plans_max ({})", self.attempts_max, self.plans_max));
        }
        if self.remember_secs < self.probation_secs {
            out.push(format!(
                "remember_secs: {} is below probation_secs ({}): a relapse would not be known as one",
                self.remember_secs, self.probation_secs
            ));
        }
        out
    }

    /// Time until a watched incident is judged again, after so many times.
    pub(crate) fn monitor_after(&self, round: u32) -> Duration {
        let secs = self.monitor_secs.saturating_mul(1 << round.min(20));
        Duration::from_secs(secs.clamp(1, self.monitor_secs_max.max(1)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_is_sound_and_contradictions_are_named() {
        assert_eq!(WorkflowConfig::default().problems(), Vec::<String>::new());
        let bad =
            WorkflowConfig { monitor_secs: 500, attempts_max: 20, remember_secs: 10, ..WorkflowConfig::default() };
        let text = bad.problems().join("\n");
        for key in ["monitor_secs", "attempts_max", "remember_secs"] {
            assert!(text.contains(key), "{text}");
        }
    }

    #[test]
    fn watching_backs_off_up_to_its_limit() {
        let config = WorkflowConfig::default();
        let secs: Vec<u64> = (0..6).map(|r| config.monitor_after(r).as_secs()).collect();
        assert_eq!(secs, [10, 20, 40, 80, 160, 240]);
        assert_eq!(config.monitor_after(u32::MAX).as_secs(), 240);
    }
}
