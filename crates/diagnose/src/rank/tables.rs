//! The weights, in log-odds. One place, so that a later issue can replace them by learned ones.

use nightshift_model::FaultClass;

/// By what scores are divided before they become confidences, so that of all causes of which 0.8 is said four in five
/// are right. Fitted by maximum likelihood to the rankings that 250 simulated faults were decided on
/// (`nightshift eval --incidents 250 --seed 5 --explain`, lines `fit`); checked on other seeds.
pub(crate) const TEMPERATURE: f64 = 0.75;

/// How often a class is the cause when it is among the symptoms. What is usually a consequence (latency, errors, a
/// burning budget) starts lower than what is usually a cause (a full disk, a deployment).
pub(crate) const fn base_rate(fault: FaultClass) -> f64 {
    match fault {
        FaultClass::DeploymentFailure | FaultClass::OomKill => -2.0,
        FaultClass::CpuSaturation
        | FaultClass::DiskFull
        | FaultClass::DbConnectionExhaustion
        | FaultClass::BadConfig
        | FaultClass::CrashLoop
        | FaultClass::CertificateExpiry
        | FaultClass::NodeNotReady
        | FaultClass::DnsFailure => -2.2,
        FaultClass::MemoryLeak | FaultClass::MemorySaturation | FaultClass::TrafficSurge => -2.3,
        FaultClass::LatencySpike
        | FaultClass::ErrorRateSpike
        | FaultClass::NetworkSaturation
        | FaultClass::TrafficLoss
        | FaultClass::TelemetryMissing => -2.6,
        FaultClass::SloBurn => -3.4,
        FaultClass::Unknown => -3.2,
        _ => -2.4,
    }
}

/// Whether the class says what resource ran out: such a fault has its cause where it is seen, while latency and
/// errors are handed on along dependencies.
pub(crate) const fn is_resource(fault: FaultClass) -> bool {
    matches!(
        fault,
        FaultClass::CpuSaturation
            | FaultClass::MemoryLeak
            | FaultClass::MemorySaturation
            | FaultClass::DiskFull
            | FaultClass::DiskSaturation
            | FaultClass::NetworkSaturation
            | FaultClass::OomKill
            | FaultClass::DbConnectionExhaustion
            | FaultClass::NoisyNeighbour
            | FaultClass::LockContention
            | FaultClass::QuotaExhausted
            | FaultClass::CrashLoop
            | FaultClass::ProcessFailure
    )
}

/// Whether the class names a cause rather than how it shows, though no resource ran out.
pub(crate) const fn is_named_cause(fault: FaultClass) -> bool {
    matches!(
        fault,
        FaultClass::CacheStampede
            | FaultClass::CertificateExpiry
            | FaultClass::DnsFailure
            | FaultClass::KafkaConsumerLag
            | FaultClass::NodeNotReady
            | FaultClass::ImagePullFailure
    )
}

/// What is only how a fault shows, where a symptom at the same place names the fault.
pub(crate) const EXPLAINED: f64 = -1.0;
/// The strongest own symptom at score 1; at 0.2 and below it says nothing.
pub(crate) const SIGNAL: f64 = 3.0;
/// Each further signal that says the same, and the most that all of them add.
pub(crate) const SIGNAL_MORE: f64 = 0.3;
pub(crate) const SIGNAL_MORE_MAX: f64 = 1.2;
/// Symptoms of any class support a change on the same entity.
pub(crate) const CHANGED_AND_ILL: f64 = 1.2;
/// A deployment at the very onset.
pub(crate) const DEPLOYMENT: f64 = 2.8;
/// Configuration, flags; scaling.
pub(crate) const CONFIG_CHANGE: f64 = 2.4;
pub(crate) const SCALING: f64 = 1.2;
/// Being first by a wide margin; how wide, in seconds.
pub(crate) const FIRST: f64 = 0.8;
pub(crate) const FIRST_SECS: f64 = 30.0;
/// Every minute of being later, and the most it costs.
pub(crate) const LATER_PER_MINUTE: f64 = -0.5;
pub(crate) const LATER_MAX: f64 = -1.5;
/// All callers ill; one caller is half of it.
pub(crate) const CALLERS_ILL: f64 = 1.6;
/// A dependency is ill that can explain it.
pub(crate) const DEPENDENCY_ILL: f64 = -1.2;
/// A dependency shows the very same named cause.
pub(crate) const SAME_BELOW: f64 = -3.0;
/// Callers of a dependency that shows nothing fail alike.
pub(crate) const SILENT_DEPENDENCY: f64 = 2.2;
pub(crate) const SILENT_DEPENDENCY_CALLER: f64 = -0.9;
/// A neighbour's error ratio above the limit.
pub(crate) const CASCADE: f64 = 0.8;
/// Callers (or the own request rate) brought more work first.
pub(crate) const UPSTREAM: f64 = 0.9;
/// A rule, an alert or a budget says it in so many words.
pub(crate) const RULE: f64 = 0.6;
/// It was found on the objects of a cluster, where what another fault explains is no finding any more.
pub(crate) const OBJECTS: f64 = 1.5;
/// Log symptoms of the same class, and of the same entity.
pub(crate) const LOG: f64 = 0.5;
pub(crate) const LOG_ENTITY: f64 = 0.3;
/// Callers show the very same class: it was handed on.
pub(crate) const LIKENESS: f64 = 0.3;
