//! Anomalies: one symptom of one entity, with the numbers that explain it.

use crate::{EntityMeta, FaultClass, OccurrenceId, Severity, Timestamp};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Signal of what is found on the objects of a cluster; the series of the same name is 1 while it is found, 0 after. Its
/// label `fault` is the slug.
pub const OBJECT_FAULT: &str = "kubernetes_fault";

/// How it was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AnomalyKind {
    /// A baseline was left.
    Statistical,
    /// A rule matched (a threshold, an absence, CrashLoopBackOff …).
    Rule,
    /// A log line or the rate of a log template.
    Log,
    /// An error budget burns too fast.
    Slo,
    /// A limit will be reached.
    Capacity,
    /// Received from another system.
    Alert,
}

impl AnomalyKind {
    /// Name as in JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Statistical => "statistical",
            Self::Rule => "rule",
            Self::Log => "log",
            Self::Slo => "slo",
            Self::Capacity => "capacity",
            Self::Alert => "alert",
        }
    }
}

/// Which way the value left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// Above what was expected.
    Up,
    /// Below what was expected.
    Down,
    /// It stopped: flat or absent.
    Flat,
    /// Neither applies.
    None,
}

/// Where in its life this record is. All records of one occurrence carry the same id; later ones replace earlier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// It began.
    Open,
    /// It got worse, or is still there.
    Update,
    /// It is over.
    Closed,
}

/// The numbers behind an anomaly. Units are those of the signal.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Explanation {
    /// What was seen; for a rate or ratio, after the conversion.
    pub observed: Option<f64>,
    /// What was expected.
    pub expected: Option<f64>,
    /// Lower end of the band in which a value is normal.
    pub lower: Option<f64>,
    /// Upper end of the band in which a value is normal.
    pub upper: Option<f64>,
    /// Distance in robust standard deviations, signed.
    pub sigma: Option<f64>,
    /// Detector: `zscore`, `ewma`, `trend`, `forecast`, `log_template`, `rule/NAME` …
    pub model: String,
    /// Its version.
    pub model_version: u32,
    /// Whatever else made the decision: each layer's score, points seen, time to limit in seconds …
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub features: BTreeMap<String, f64>,
    /// An example in words: the log line, the alert's annotation. Cut at 2 KiB.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub sample: String,
}

/// One symptom of one entity.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Anomaly {
    /// Occurrence id: hash of `fingerprint` and `onset`.
    pub id: OccurrenceId,
    /// Hash of tenant, cluster, entity, signal or rule, and detector kind.
    pub fingerprint: u64,
    /// Tenant.
    pub tenant: String,
    /// What is ill.
    pub entity: EntityMeta,
    /// How it was found.
    pub kind: AnomalyKind,
    /// Metric name, rule name or log template id.
    pub signal: String,
    /// Labels that tell this series from others of the same entity and name.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Event time of the first sample that shows it.
    pub onset: Timestamp,
    /// Event time of the newest sample that shows it (of the end, when closed).
    pub last_seen: Timestamp,
    /// Opened, updated or closed.
    pub phase: Phase,
    /// 0..=1.
    pub score: f64,
    /// From the score.
    pub severity: Severity,
    /// Which way.
    pub direction: Direction,
    /// What it suggests, `unknown` when nothing.
    pub fault: FaultClass,
    /// One line for people.
    pub description: String,
    /// The numbers.
    pub explanation: Explanation,
    /// Source that the telemetry came from.
    #[serde(default)]
    pub source: String,
}

impl Anomaly {
    /// Fingerprint of an anomaly of this tenant, entity, signal (with its labels, sorted) and kind.
    pub fn fingerprint_of(
        tenant: &str,
        entity: &str,
        kind: AnomalyKind,
        signal: &str,
        labels: &BTreeMap<String, String>,
    ) -> u64 {
        let mut text = String::new();
        for (name, value) in labels {
            text.push_str(name);
            text.push('\u{1f}');
            text.push_str(value);
            text.push('\u{1e}');
        }
        let parts = [tenant, entity, kind.as_str(), signal, &text].map(str::as_bytes);
        (crate::hash::hash128(&parts) >> 64) as u64
    }

    /// Whether it was made by a test injection.
    pub const fn synthetic(&self) -> bool {
        self.entity.synthetic
    }
}
