//! The keys of the file, by the map they stand in.

pub(crate) const TOP: &[&str] = &[
    "name",
    "title",
    "heals",
    "params",
    "when",
    "steps",
    "verify",
    "acts_at_once",
    "priority",
    "owner",
    "escalation",
    "estimated_resolution_secs",
    "harm",
];

pub(crate) const HEALS: &[&str] = &["fault", "kinds", "needs", "success_rate"];
pub(crate) const NEEDS: &[&str] = &["change", "within_mins"];
pub(crate) const PARAM: &[&str] = &["type", "value", "min", "max", "description"];
pub(crate) const STEP: &[&str] = &[
    "name",
    "action",
    "target",
    "actuator",
    "params",
    "expects",
    "risk",
    "estimated_impact",
    "deadline_secs",
    "rollback",
    "canary",
];
pub(crate) const CANARY: &[&str] = &["share", "watch_secs"];
pub(crate) const VERIFY: &[&str] = &["of", "kpis", "readings", "interval_secs", "deadline_secs"];
pub(crate) const KPI: &[&str] = &["signal", "family", "band", "expected_times", "below", "above"];
