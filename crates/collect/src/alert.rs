//! An alert of another system as an anomaly: what its words mean.
//!
//! Lives here: severity words, the guess of a fault class from an alert's name. Never here: any sender's format.

use crate::Attributes;
use nightshift_model::{
    Anomaly, AnomalyKind, DEFAULT_TENANT, Direction, EntityId, EntityMeta, Explanation, FaultClass, OccurrenceId,
    Phase, Severity, Timestamp,
};
use std::collections::BTreeMap;

/// Longest description and sample, bytes.
const TEXT_BYTES_MAX: usize = 2 << 10;

/// What a sender said of one alert.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Alert {
    /// Its rule's name.
    pub name: String,
    /// What tells it from other alerts of that name, without the name.
    pub labels: BTreeMap<String, String>,
    /// Where it comes from.
    pub resource: Attributes,
    pub starts_at: Timestamp,
    /// When it ended; `None` while it fires.
    pub ends_at: Option<Timestamp>,
    /// 0..=1.
    pub score: f64,
    pub summary: String,
    pub sample: String,
    pub features: BTreeMap<String, f64>,
    /// What the sender says that it is; else it is guessed from the name.
    pub fault: Option<FaultClass>,
}

impl Alert {
    /// The anomaly. Entity, fingerprint and id are those of its labels alone; the sink, which knows the entity, derives
    /// them again in the same way, so a resolved alert meets the one that fired.
    pub(crate) fn into_anomaly(self, source: &str, now: Timestamp) -> (Attributes, Anomaly) {
        let entity = EntityId::new("", "other", "", &self.name);
        let fingerprint =
            Anomaly::fingerprint_of(DEFAULT_TENANT, entity.as_str(), AnomalyKind::Alert, &self.name, &self.labels);
        let mut description = if self.summary.is_empty() { format!("alert {}", self.name) } else { self.summary };
        crate::lines::cut(&mut description, TEXT_BYTES_MAX);
        let mut sample = self.sample;
        crate::lines::cut(&mut sample, TEXT_BYTES_MAX - 64);
        let anomaly = Anomaly {
            id: OccurrenceId::derive(fingerprint, self.starts_at),
            fingerprint,
            tenant: DEFAULT_TENANT.into(),
            entity: EntityMeta::bare(entity),
            kind: AnomalyKind::Alert,
            fault: self.fault.unwrap_or_else(|| fault_of(&self.name)),
            signal: self.name,
            labels: self.labels,
            onset: self.starts_at,
            last_seen: self.ends_at.unwrap_or(now).max(self.starts_at),
            phase: if self.ends_at.is_some() { Phase::Closed } else { Phase::Open },
            score: self.score,
            severity: Severity::from_score(self.score),
            direction: Direction::None,
            description,
            explanation: Explanation {
                model: format!("alert/{source}"),
                model_version: 1,
                features: self.features,
                sample,
                ..Explanation::default()
            },
            source: source.to_owned(),
        };
        (self.resource, anomaly)
    }
}

/// The score of a severity as people write it; the middle of its band, so that a little evidence more or less does
/// not change it. `None`: no known word.
pub(crate) fn score_of(word: &str) -> Option<f64> {
    Some(match word.to_ascii_lowercase().as_str() {
        "critical" | "crit" | "page" | "pager" | "emergency" | "fatal" | "disaster" | "p1" | "sev1" => 0.95,
        "high" | "error" | "major" | "severe" | "p2" | "sev2" => 0.8,
        "warning" | "warn" | "medium" | "moderate" | "minor" | "average" | "p3" | "sev3" => 0.6,
        "low" | "p4" | "sev4" => 0.4,
        "info" | "information" | "informational" | "notice" | "p5" | "sev5" => 0.3,
        // Prometheus' own always-firing alerts say that nothing is wrong.
        "none" | "ok" => 0.1,
        _ => return None,
    })
}

/// The score of an alert that names no severity that we know: shown, and nobody is woken.
pub(crate) const SCORE_UNKNOWN: f64 = 0.6;

/// What an alert's name suggests. The first row of which every word occurs wins; names are CamelCase or snake_case.
pub(crate) fn fault_of(name: &str) -> FaultClass {
    use FaultClass as F;
    const TABLE: [(&[&str], FaultClass); 38] = [
        (&["errorbudget"], F::SloBurn),
        (&["burnrate"], F::SloBurn),
        (&["oomkill"], F::OomKill),
        (&["outofmemory"], F::OomKill),
        (&["crashloop"], F::CrashLoop),
        (&["imagepull"], F::ImagePullFailure),
        (&["cert", "expir"], F::CertificateExpiry),
        (&["certificate"], F::CertificateExpiry),
        (&["node", "notready"], F::NodeNotReady),
        (&["node", "unreachable"], F::NodeNotReady),
        (&["consumer", "lag"], F::KafkaConsumerLag),
        (&["kafka", "lag"], F::KafkaConsumerLag),
        (&["connection", "pool"], F::DbConnectionExhaustion),
        (&["toomanyconnections"], F::DbConnectionExhaustion),
        (&["quota"], F::QuotaExhausted),
        (&["dns"], F::DnsFailure),
        (&["deadlock"], F::LockContention),
        (&["lockwait"], F::LockContention),
        (&["cpu", "steal"], F::NoisyNeighbour),
        (&["cpu"], F::CpuSaturation),
        (&["memory", "leak"], F::MemoryLeak),
        (&["memory"], F::MemorySaturation),
        (&["filesystem"], F::DiskFull),
        (&["disk", "space"], F::DiskFull),
        (&["disk", "full"], F::DiskFull),
        (&["volumefilling"], F::DiskFull),
        (&["volume", "full"], F::DiskFull),
        (&["disk", "io"], F::DiskSaturation),
        (&["network"], F::NetworkSaturation),
        (&["latency"], F::LatencySpike),
        (&["slow"], F::LatencySpike),
        (&["5xx"], F::ErrorRateSpike),
        (&["error", "rate"], F::ErrorRateSpike),
        (&["errors", "high"], F::ErrorRateSpike),
        (&["rollout"], F::DeploymentFailure),
        (&["targetdown"], F::TelemetryMissing),
        (&["absent"], F::TelemetryMissing),
        (&["down"], F::DependencyOutage),
    ];
    let name: String = name.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect();
    TABLE.iter().find(|(words, _)| words.iter().all(|w| name.contains(w))).map_or(F::Unknown, |(_, fault)| *fault)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_suggest_faults() {
        for (name, fault) in [
            ("KubePodCrashLooping", FaultClass::CrashLoop),
            ("HostHighCpuLoad", FaultClass::CpuSaturation),
            ("NodeFilesystemAlmostOutOfSpace", FaultClass::DiskFull),
            ("KubeNodeNotReady", FaultClass::NodeNotReady),
            ("high_request_latency", FaultClass::LatencySpike),
            ("APIErrorBudgetBurn", FaultClass::SloBurn),
            ("KafkaConsumerLag", FaultClass::KafkaConsumerLag),
            ("TargetDown", FaultClass::TelemetryMissing),
            ("PostgresqlDown", FaultClass::DependencyOutage),
            ("Watchdog", FaultClass::Unknown),
            ("", FaultClass::Unknown),
        ] {
            assert_eq!(fault_of(name), fault, "{name}");
        }
    }

    #[test]
    fn words_keep_to_their_severity() {
        for (word, severity) in [
            ("critical", Severity::Critical),
            ("PAGE", Severity::Critical),
            ("high", Severity::High),
            ("warning", Severity::Medium),
            ("info", Severity::Low),
            ("none", Severity::Low),
        ] {
            assert_eq!(score_of(word).map(Severity::from_score), Some(severity), "{word}");
        }
        assert_eq!(score_of("loud"), None);
        assert_eq!(Severity::from_score(SCORE_UNKNOWN), Severity::Medium);
    }
}
