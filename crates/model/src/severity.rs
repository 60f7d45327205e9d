//! Severity, and the scores that make it.

use serde::{Deserialize, Serialize};

/// How bad it is, and who hears of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Written to the log.
    Low,
    /// Shown on the dashboard.
    Medium,
    /// Told in chat.
    High,
    /// Pages somebody.
    Critical,
}

impl Severity {
    /// Every severity, worst last.
    pub const ALL: [Self; 4] = [Self::Low, Self::Medium, Self::High, Self::Critical];

    /// From a score in 0..=1: 0.9 and above critical, 0.7 high, 0.5 medium, else low (NaN too).
    pub fn from_score(score: f64) -> Self {
        if score >= 0.9 {
            Self::Critical
        } else if score >= 0.7 {
            Self::High
        } else if score >= 0.5 {
            Self::Medium
        } else {
            Self::Low
        }
    }

    /// Lower-case name, as in JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
            Self::Critical => "critical",
        }
    }
}

impl std::fmt::Display for Severity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}

impl std::str::FromStr for Severity {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|s| s.as_str().eq_ignore_ascii_case(text))
            .ok_or_else(|| format!("`{text}` is not one of low, medium, high, critical"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thresholds_belong_to_the_higher_severity() {
        let want =
            [(0.9, "critical"), (0.899, "high"), (0.7, "high"), (0.5, "medium"), (0.49, "low"), (f64::NAN, "low")];
        for (score, name) in want {
            assert_eq!(Severity::from_score(score).as_str(), name, "{score}");
        }
    }
}
