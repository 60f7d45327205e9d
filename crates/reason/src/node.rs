//! The nodes of the graph, by their stable names.

use serde::{Deserialize, Serialize};
use std::fmt;

/// Where an incident stands in the workflow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Node {
    /// It was seen.
    Detection,
    /// Is it worth working on?
    IsReal,
    /// What belongs to it.
    Correlation,
    /// Waits for the ranking of causes to settle.
    RootCause,
    /// Looks at targets, makes a plan, has it checked.
    FixPlanner,
    /// The guard judges the plan.
    Safety,
    /// What follows from the verdict.
    ExecutionDecision,
    /// A person is asked.
    Approval,
    /// The plan is carried out.
    Act,
    /// The KPI is read.
    Verify,
    /// It is over.
    Resolved,
    /// The postmortem is written.
    Postmortem,
    /// Waits for the end of probation, then writes down what was learned.
    Learn,
    /// Watched, nothing is done.
    Monitor,
    /// A person must act.
    Escalation,
}

impl Node {
    /// Every one, along the graph.
    pub const ALL: [Self; 15] = [
        Self::Detection,
        Self::IsReal,
        Self::Correlation,
        Self::RootCause,
        Self::FixPlanner,
        Self::Safety,
        Self::ExecutionDecision,
        Self::Approval,
        Self::Act,
        Self::Verify,
        Self::Resolved,
        Self::Postmortem,
        Self::Learn,
        Self::Monitor,
        Self::Escalation,
    ];

    /// Its name in journal rows and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Detection => "detection",
            Self::IsReal => "is_real",
            Self::Correlation => "correlation",
            Self::RootCause => "root_cause",
            Self::FixPlanner => "fix_planner",
            Self::Safety => "safety",
            Self::ExecutionDecision => "execution_decision",
            Self::Approval => "approval",
            Self::Act => "act",
            Self::Verify => "verify",
            Self::Resolved => "resolved",
            Self::Postmortem => "postmortem",
            Self::Learn => "learn",
            Self::Monitor => "monitor",
            Self::Escalation => "escalation",
        }
    }

    /// Nodes that may follow. From anywhere before the end: `resolved` when it is over, and `monitor` or `root_cause` when
    /// a person takes it or another cause shows.
    pub const fn followers(self) -> &'static [Self] {
        use Node::{
            Act, Approval, Correlation, Escalation, ExecutionDecision, FixPlanner, IsReal, Learn, Monitor, Postmortem,
            Resolved, RootCause, Safety, Verify,
        };
        match self {
            Self::Detection => &[IsReal, Monitor, Resolved],
            Self::IsReal => &[Correlation, Monitor, Resolved, Escalation],
            Self::Correlation => &[RootCause, Monitor, Resolved, Escalation],
            Self::RootCause => &[FixPlanner, Monitor, Resolved, Escalation],
            Self::FixPlanner => &[Safety, Verify, Monitor, Resolved, Escalation],
            Self::Safety => &[ExecutionDecision, RootCause, Monitor, Resolved, Escalation],
            Self::ExecutionDecision => &[Act, Approval, Verify, RootCause, Monitor, Resolved, Escalation],
            Self::Approval => &[Act, RootCause, Monitor, Resolved, Escalation],
            Self::Act => &[Verify, RootCause, Monitor, Resolved, Escalation],
            Self::Verify => &[Verify, RootCause, Monitor, Resolved, Escalation],
            Self::Resolved => &[Postmortem],
            Self::Postmortem => &[Learn, RootCause],
            Self::Learn => &[Learn, RootCause],
            Self::Monitor => &[IsReal, RootCause, Act, Resolved, Escalation],
            Self::Escalation => &[RootCause, Act, Escalation, Resolved],
        }
    }

    /// Whether nothing was decided yet that a new ranking could not change.
    pub(crate) const fn is_deciding(self) -> bool {
        matches!(
            self,
            Self::Detection
                | Self::IsReal
                | Self::Correlation
                | Self::RootCause
                | Self::FixPlanner
                | Self::Safety
                | Self::ExecutionDecision
                | Self::Approval
        )
    }

    /// Whether the incident is over as far as this case knows.
    pub(crate) const fn is_after(self) -> bool {
        matches!(self, Self::Resolved | Self::Postmortem | Self::Learn)
    }
}

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl std::str::FromStr for Node {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|n| n.as_str() == text).ok_or_else(|| {
            let names = Self::ALL.map(Self::as_str).join(", ");
            format!("`{text}` is not a node of the workflow; one of {names}")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_journal() {
        for node in Node::ALL {
            assert_eq!(node.as_str().parse(), Ok(node));
            assert_eq!(serde_json::to_value(node).unwrap(), node.as_str());
        }
        assert!("nowhere".parse::<Node>().unwrap_err().contains("root_cause"));
    }
}
