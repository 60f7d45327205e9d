//! Verdicts: what the guard says of a plan, with every rule that spoke.

use crate::{PlanHash, Risk, Timestamp};
use serde::{Deserialize, Serialize};
use std::fmt;

/// What may be done. The strictest of all rules wins: `Deny` > `Monitor` > `Ask` > `Execute`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Decision {
    /// It may run by itself.
    Execute,
    /// A person must agree first.
    Ask,
    /// Nothing is done for now; it is looked at again.
    Monitor,
    /// It must not run.
    Deny,
}

impl Decision {
    /// Name as in JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Execute => "execute",
            Self::Ask => "ask",
            Self::Monitor => "monitor",
            Self::Deny => "deny",
        }
    }
}

impl fmt::Display for Decision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// One rule that spoke.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reason {
    /// Its stable name: `kill_switch`, `allow_list`, `policy/PACKAGE.RULE`, `rbac`, `confidence`, `risk`,
    /// `blast_radius`, `breaker`, `error_budget`, `cooldown`, `freeze_window`, `checker` …
    pub rule: String,
    /// What it wants.
    pub decision: Decision,
    /// Why, one line for people.
    pub why: String,
    /// Whether a person with the role may override it: limits of the machine may, the kill switch may not.
    #[serde(default)]
    pub overridable: bool,
}

/// What the guard says of a plan.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    /// Of which plan.
    pub plan: PlanHash,
    /// The strictest of all.
    pub decision: Decision,
    /// Every rule that spoke, in the order in which they are asked, also those that allow.
    pub reasons: Vec<Reason>,
    /// Risk as judged: of the plan, raised by criticality and reach.
    pub risk: Risk,
    /// Nothing is carried out even when `decision` is `Execute`: prepare and dry-run only.
    pub dry_run: bool,
    /// When it was given.
    pub at: Timestamp,
    /// Until when an answer of a person counts; `None` when nobody is asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
}

impl Verdict {
    /// The reasons that made the decision.
    pub fn decisive(&self) -> impl Iterator<Item = &Reason> {
        self.reasons.iter().filter(|r| r.decision == self.decision)
    }

    /// The decision and its reasons in one line.
    pub fn summary(&self) -> String {
        let why = self.decisive().map(|r| r.why.as_str()).collect::<Vec<_>>().join("; ");
        let dry = if self.dry_run && self.decision == Decision::Execute { " (dry-run)" } else { "" };
        if why.is_empty() { format!("{}{dry}", self.decision) } else { format!("{}{dry}: {why}", self.decision) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_strictest_is_the_greatest() {
        let mut all = [Decision::Deny, Decision::Execute, Decision::Monitor, Decision::Ask];
        all.sort();
        assert_eq!(all, [Decision::Execute, Decision::Ask, Decision::Monitor, Decision::Deny]);
        for d in all {
            assert_eq!(serde_json::to_value(d).unwrap(), d.as_str());
        }
    }
}
