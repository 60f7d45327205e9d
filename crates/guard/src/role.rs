//! Who may do what.

use crate::config::RiskRoles;
use nightshift_model::{PersonVerb, Risk};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::fmt;

/// What a token may do. Each may do what those before it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Look.
    Viewer,
    /// Acknowledge, resolve, pause, resume, take over, give feedback.
    Operator,
    /// Approve, reject, override.
    Approver,
    /// The same for critical risk; the kill switch.
    Admin,
}

impl Role {
    /// Every one, least first.
    pub const ALL: [Self; 4] = [Self::Viewer, Self::Operator, Self::Approver, Self::Admin];

    /// Name as in JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Approver => "approver",
            Self::Admin => "admin",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl std::str::FromStr for Role {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|r| r.as_str() == text)
            .ok_or_else(|| format!("`{text}` is not a role; one of viewer, operator, approver, admin"))
    }
}

/// What a person wants to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verb {
    /// Say that somebody looks at it.
    Acknowledge,
    /// Say that it is over.
    Resolve,
    /// Let a plan run, once.
    Approve,
    /// Stop a plan.
    Reject,
    /// Replace a verdict.
    Override,
    /// Stop the machine on one incident.
    Pause,
    /// Let it act there again.
    Resume,
    /// Do it by hand from here on.
    TakeOver,
    /// Teach the next diagnosis.
    Feedback,
    /// Stop all execution, or allow it again.
    KillSwitch,
}

impl Verb {
    /// Every one.
    pub const ALL: [Self; 10] = [
        Self::Acknowledge,
        Self::Resolve,
        Self::Approve,
        Self::Reject,
        Self::Override,
        Self::Pause,
        Self::Resume,
        Self::TakeOver,
        Self::Feedback,
        Self::KillSwitch,
    ];

    /// Name as in JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Acknowledge => "acknowledge",
            Self::Resolve => "resolve",
            Self::Approve => "approve",
            Self::Reject => "reject",
            Self::Override => "override",
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::TakeOver => "take_over",
            Self::Feedback => "feedback",
            Self::KillSwitch => "kill_switch",
        }
    }
}

impl From<&PersonVerb> for Verb {
    fn from(verb: &PersonVerb) -> Self {
        match verb {
            PersonVerb::Acknowledge { .. } => Self::Acknowledge,
            PersonVerb::Resolve { .. } => Self::Resolve,
            PersonVerb::Approve { .. } => Self::Approve,
            PersonVerb::Reject { .. } => Self::Reject,
            PersonVerb::Override { .. } => Self::Override,
            PersonVerb::Pause { .. } => Self::Pause,
            PersonVerb::Resume { .. } => Self::Resume,
            PersonVerb::TakeOver { .. } => Self::TakeOver,
            PersonVerb::Feedback(_) => Self::Feedback,
        }
    }
}

/// The least role for this, on a plan of this risk where there is one.
pub fn needed(roles: &RiskRoles, verb: Verb, risk: Risk) -> Role {
    match verb {
        Verb::Acknowledge | Verb::Resolve | Verb::Pause | Verb::Resume | Verb::TakeOver | Verb::Feedback => {
            Role::Operator
        }
        // To stop a plan needs no more than to let the mildest one run: refusing is the safe side.
        Verb::Reject => roles.low,
        Verb::Approve | Verb::Override => roles.of(risk),
        Verb::KillSwitch => Role::Admin,
    }
}

/// Whether this role may do this to a plan of this risk, with the roles that are the default. The risk counts for
/// [`Verb::Approve`] and [`Verb::Override`] only.
pub fn may(role: Role, verb: Verb, risk: Risk) -> bool {
    role >= needed(&RiskRoles::default(), verb, risk)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_of_roles() {
        // The table of docs/policies.md: the least role for each, at low, medium, high and critical risk.
        let table = "
            acknowledge operator operator operator operator
            resolve     operator operator operator operator
            approve     approver approver approver admin
            reject      approver approver approver approver
            override    approver approver approver admin
            pause       operator operator operator operator
            resume      operator operator operator operator
            take_over   operator operator operator operator
            feedback    operator operator operator operator
            kill_switch admin    admin    admin    admin";
        let rows: Vec<Vec<&str>> = table.trim().lines().map(|l| l.split_whitespace().collect::<Vec<_>>()).collect();
        assert_eq!(rows.len(), Verb::ALL.len());
        for (row, verb) in rows.iter().zip(Verb::ALL) {
            assert_eq!(row[0], verb.as_str());
            for (least, risk) in row[1..].iter().zip(Risk::ALL) {
                let least: Role = least.parse().unwrap();
                for role in Role::ALL {
                    assert_eq!(may(role, verb, *risk), role >= least, "{role} {} {risk}", verb.as_str());
                }
            }
        }
    }
}
