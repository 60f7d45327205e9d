//! Settings of grouping and ranking.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Anomalies into incidents, and causes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct DiagnoseConfig {
    /// Seconds within which two symptoms must begin to be joined when they are near each other in the topology.
    #[schemars(range(min = 1, max = 3600))]
    pub window_secs: u64,
    /// The same for symptoms that are further apart: through an entity that shows nothing, or by a shared dependency.
    #[schemars(range(min = 1, max = 3600))]
    pub far_window_secs: u64,
    /// How many dependencies may lie between two symptoms of one incident.
    #[schemars(range(min = 1, max = 6))]
    pub hops_max: u32,
    /// Seconds in which a repeated symptom (same series, same detector) joins without a further journal row.
    #[schemars(range(min = 1, max = 3600))]
    pub duplicate_ttl_secs: u64,
    /// Score from which a symptom opens an incident; below it, it may only join one as evidence.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub open_score_min: f64,
    /// Seconds of event time for which all symptoms must have ended before an incident is resolved. A flapping symptom
    /// makes it longer, up to eight times.
    #[schemars(range(min = 0, max = 3600))]
    pub hold_secs: u64,
    /// Seconds after resolution in which a return reopens the incident; later it is a new one that names the old.
    #[schemars(range(min = 0, max = 86_400))]
    pub reopen_secs: u64,
    /// Seconds for which a resolved incident is remembered, to recognise that it came back.
    #[schemars(range(min = 60, max = 31_536_000))]
    pub recurrence_secs: u64,
    /// Seconds without a word from any open symptom after which its source counts as gone: the incident ends as
    /// "telemetry stopped", not as healthy. Not below the age up to which late samples are taken (an hour).
    #[schemars(range(min = 60, max = 604_800))]
    pub stale_secs: u64,
    /// The same for symptoms that are told seldom: alerts of other systems, error budgets, capacity.
    #[schemars(range(min = 60, max = 2_592_000))]
    pub stale_alert_secs: u64,
    /// Seconds without a further line after which a log symptom counts as ended.
    #[schemars(range(min = 1, max = 86_400))]
    pub log_quiet_secs: u64,
    /// Open incidents per tenant at most; what would open a further one is counted and not opened.
    #[schemars(range(min = 1, max = 100_000))]
    pub open_max: usize,
    /// Resolved and merged incidents remembered per tenant at most.
    #[schemars(range(min = 1, max = 100_000))]
    pub recent_max: usize,
    /// Changes remembered per tenant at most.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub changes_max: usize,
    /// Weak symptoms that wait for an incident to join, per tenant at most.
    #[schemars(range(min = 0, max = 1_000_000))]
    pub waiting_max: usize,
    /// Words that make an event an announcement ("planned batch job"): load that follows it opens no incident by itself.
    pub planned_words: Vec<String>,
    /// Seconds for which an announcement, or a change of scale, explains the load that follows it.
    #[schemars(range(min = 0, max = 86_400))]
    pub planned_secs: u64,
    /// Seconds for which an action of ours explains load that moves near its target.
    #[schemars(range(min = 0, max = 86_400))]
    pub own_secs: u64,
    /// Ranking of causes.
    pub rank: RankConfig,
}

impl Default for DiagnoseConfig {
    fn default() -> Self {
        Self {
            window_secs: 300,
            far_window_secs: 120,
            hops_max: 2,
            duplicate_ttl_secs: 300,
            open_score_min: 0.5,
            hold_secs: 60,
            reopen_secs: 300,
            recurrence_secs: 7 * 86_400,
            stale_secs: 3_600,
            stale_alert_secs: 86_400,
            log_quiet_secs: 300,
            open_max: 1_000,
            recent_max: 1_000,
            changes_max: 2_000,
            waiting_max: 2_000,
            planned_words: ["planned", "scheduled", "maintenance", "campaign", "announced"].map(str::to_owned).to_vec(),
            planned_secs: 3_600,
            own_secs: 900,
            rank: RankConfig::default(),
        }
    }
}

impl DiagnoseConfig {
    pub(crate) const fn window(&self) -> Duration {
        Duration::from_secs(self.window_secs)
    }

    pub(crate) const fn far_window(&self) -> Duration {
        Duration::from_secs(self.far_window_secs)
    }

    /// How far back a restored engine must be told of incidents, before the present.
    pub const fn incidents_lookback(&self) -> Duration {
        Duration::from_secs(self.recurrence_secs)
    }

    /// How far back a restored engine must be told of anomalies, before the present: those that may still join.
    pub const fn anomalies_lookback(&self) -> Duration {
        // An hour of lateness, and the window.
        Duration::from_secs(3_600 + self.window_secs)
    }

    /// How far back a restored engine must be told of changes, before the present.
    pub const fn changes_lookback(&self) -> Duration {
        // A day before the onset, of an incident that is a day old.
        Duration::from_secs(2 * 86_400)
    }
}

/// Ranking of causes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct RankConfig {
    /// Minutes after which a change no longer counts as a cause; its weight falls linearly until then.
    #[schemars(range(min = 1, max = 1440))]
    pub change_minutes: u32,
    /// Error ratio from which a failing neighbour counts as a cascade, 0..1.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub cascade_error_ratio_min: f64,
    /// Log-odds of "unknown" before any evidence: higher means that the machine says "I do not know" more often.
    #[schemars(range(min = -10.0, max = 10.0))]
    pub unknown_log_odds: f64,
    /// Hypotheses kept, "unknown" not counted.
    #[schemars(range(min = 1, max = 20))]
    pub hypotheses_max: usize,
    /// Entities that are looked at as candidates at most, the worst and earliest first.
    #[schemars(range(min = 1, max = 1000))]
    pub candidates_max: usize,
}

impl Default for RankConfig {
    fn default() -> Self {
        Self {
            change_minutes: 60,
            cascade_error_ratio_min: 0.05,
            unknown_log_odds: -0.8,
            hypotheses_max: 6,
            candidates_max: 60,
        }
    }
}
