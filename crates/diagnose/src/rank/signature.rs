//! What a fault looks like: the table by which hard classes are told from the common symptoms that they show.
//!
//! Latency and errors are how almost everything shows. What tells a noisy neighbour from a slow query is what stands
//! beside them: stolen processor time, misses of a cache, a line in a log, one replica of many. Each class has a
//! signature: families that it brings with it (they speak for it nearly as loud as for the class that is named after
//! them), and clues, each with the log-odds that its presence and its absence add. The scheme is that of naive Bayes;
//! the numbers are judgement, from how such faults show in general, and capped so that no clue decides alone.

use super::symptom::Symptom;
use nightshift_model::families::SignalFamily as F;
use nightshift_model::{ChangeType, Direction, FaultClass};

/// Where a clue is looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// At the candidate itself.
    Own,
    /// At what needs it, directly.
    Callers,
    /// At what it needs, directly.
    Needs,
    /// At what the same callers need beside it.
    Peers,
}

/// Something that can be looked for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum What {
    /// A departure of a family; `None`: either way.
    Signal(F, Option<Direction>),
    /// A departure of a class that the detector or a rule named.
    Named(FaultClass),
    /// One of these words in a log line, a rule or an alert. Lower case.
    Words(&'static [&'static str]),
    /// A change of one of these kinds, not long before.
    Changed(&'static [ChangeType]),
    /// A change of any kind whose own words hold one of these. Lower case.
    ChangedWords(&'static [&'static str]),
    /// Work fails or is slow on one part (replica, pod, instance) only.
    OnePart,
    /// Work fails or is slow on several parts.
    ManyParts,
}

/// A clue of a signature.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clue {
    pub(super) place: Place,
    pub(super) what: What,
    /// Log-odds when it is there.
    pub(super) present: f64,
    /// Log-odds when it is not.
    pub(super) absent: f64,
    /// Whether its presence makes the class a candidate.
    pub(super) key: bool,
    /// What it is called for people: "PRESENT" or "no PRESENT".
    pub(super) name: &'static str,
}

/// What one class looks like.
pub(super) struct Signature {
    pub(super) fault: FaultClass,
    /// Families that it brings with it at its own place.
    pub(super) brings: &'static [F],
    pub(super) clues: &'static [Clue],
}

/// How much of a symptom's weight counts for a class that brings it, against the class that it is named after.
pub(super) const BROUGHT: f64 = 0.9;
/// Most that all clues of a signature add or take.
pub(super) const CLUES_MAX: f64 = 5.0;
/// Least score of a symptom that counts as a clue.
pub(super) const SEEN_MIN: f64 = 0.4;
/// The same of time taken away by others: a symptom by itself.
const STOLEN_MIN: f64 = 0.5;

const fn own(what: What, present: f64, absent: f64, name: &'static str) -> Clue {
    Clue { place: Place::Own, what, present, absent, key: false, name }
}

const fn key(what: What, present: f64, absent: f64, name: &'static str) -> Clue {
    Clue { place: Place::Own, what, present, absent, key: true, name }
}

const fn at(place: Place, what: What, present: f64, absent: f64, name: &'static str) -> Clue {
    Clue { place, what, present, absent, key: false, name }
}

const UP: Option<Direction> = Some(Direction::Up);

const RETRIES: &[&str] = &["retry", "retries", "retrying", "retried", "attempt "];
const NAMES: &[&str] = &[
    "name resolution",
    "no such host",
    "nxdomain",
    "servfail",
    "getaddrinfo",
    "dns",
    "could not resolve",
    "resolve host",
];
const CERTIFICATES: &[&str] = &["certificate", "x509", "tls handshake", "ssl handshake"];
const ROUTES: &[&str] = &["route", "routing", "traffic split", "weight", "ingress", "load balanc", "virtualservice"];
const SPACE: &[&str] = &["no space left", "disk full", "enospc", "disk quota"];
const LOCKS: &[&str] =
    &["deadlock", "lock wait", "lock timeout", "waiting for lock", "could not obtain lock", "lock held"];
const POOLS: &[&str] =
    &["too many connections", "too many clients", "connection slots", "pool exhausted", "pool timeout"];
const REFUSED: &[&str] = &["connection refused", "unreachable", "no route to host", "connection reset"];
const SETTINGS: &[&str] =
    &["config", "setting", "feature flag", "flag ", "invalid value", "missing key", "unknown option"];
const CACHES: &[&str] = &["cache miss", "cache flush", "cold cache", "cache stampede", "cache expired", "evicted"];

const DIED: &[&str] = &[
    "exit 1",
    "exit code",
    "exited with",
    "start failed",
    "failed to start",
    "crashloopbackoff",
    "back-off restarting",
];
const KILLED: &[&str] = &["oomkilled", "out of memory", "oom-kill", "oom kill", "exit 137", "memory cgroup"];
const LIMITS: &[&str] = &["memory limit", "resource limit", "limits to", "memory request"];

const DEPLOYED: &[ChangeType] = &[ChangeType::Deployment, ChangeType::Migration];
const CONFIGURED: &[ChangeType] = &[ChangeType::Config, ChangeType::FeatureFlag];

/// The table. A class that is not in it is judged by its own symptoms alone.
pub(super) const SIGNATURES: &[Signature] = &[
    Signature {
        fault: FaultClass::RetryStorm,
        brings: &[F::Retries, F::RequestRate, F::Latency, F::ErrorRatio, F::Queue, F::Cpu, F::DbConnections],
        clues: &[
            key(What::Signal(F::Retries, UP), 1.6, -1.5, "calls that are tried again"),
            own(What::Signal(F::RequestRate, UP), 1.8, -1.2, "more requests"),
            own(What::Signal(F::Cpu, UP), 0.6, -1.2, "busy processors"),
            at(Place::Callers, What::Signal(F::RequestRate, UP), -1.5, 0.6, "more requests to its callers"),
            own(What::Words(RETRIES), 0.6, 0.0, "mention of retries in its log"),
            at(Place::Callers, What::Words(RETRIES), 0.6, 0.0, "callers that log retries"),
        ],
    },
    Signature {
        fault: FaultClass::NoisyNeighbour,
        brings: &[F::CpuSteal, F::Latency, F::Queue, F::ErrorRatio, F::Cpu],
        clues: &[key(What::Signal(F::CpuSteal, UP), 2.4, -2.5, "processor time taken away")],
    },
    Signature {
        fault: FaultClass::CacheStampede,
        brings: &[F::Cache, F::Latency, F::DbConnections, F::Cpu, F::Queue, F::ErrorRatio],
        clues: &[
            key(What::Signal(F::Cache, None), 2.4, -2.0, "misses of a cache"),
            key(What::Words(CACHES), 1.2, -0.2, "mention of a cache in its log"),
            at(Place::Needs, What::Signal(F::Cpu, UP), 0.8, -0.3, "busy processors of what it needs"),
            at(Place::Needs, What::Signal(F::Latency, UP), 0.8, -0.1, "slow answers of what it needs"),
        ],
    },
    Signature {
        fault: FaultClass::PartialReplicaFailure,
        brings: &[F::Outliers, F::ErrorRatio, F::Latency, F::Availability, F::Restarts],
        clues: &[
            key(What::OnePart, 2.6, -2.5, "failures on one replica only"),
            own(What::ManyParts, -2.5, 0.0, "failures on several replicas"),
            own(What::Changed(DEPLOYED), -1.5, 0.0, "deployment"),
            own(What::Signal(F::Outliers, UP), 0.6, -0.3, "replicas unlike the others"),
        ],
    },
    Signature {
        fault: FaultClass::MisroutedTraffic,
        brings: &[F::Misdirected, F::RequestRate, F::Latency, F::ErrorRatio, F::Cpu],
        clues: &[
            key(What::ChangedWords(ROUTES), 2.6, -1.0, "change of routes"),
            key(What::Signal(F::Misdirected, UP), 1.2, -0.3, "requests that arrive where they do not belong"),
            own(What::Signal(F::RequestRate, None), 0.6, -0.4, "change of its requests"),
            at(Place::Peers, What::Signal(F::RequestRate, None), 1.0, -0.3, "change of the requests beside it"),
        ],
    },
    Signature {
        fault: FaultClass::DnsFailure,
        brings: &[F::Dns, F::ErrorRatio, F::Latency, F::Availability],
        clues: &[
            key(What::Signal(F::Dns, None), 1.0, -0.8, "questions for names that fail"),
            key(What::Words(NAMES), 2.0, -0.4, "names that do not resolve"),
            own(What::Named(FaultClass::DnsFailure), 0.6, 0.0, "line that says so"),
        ],
    },
    Signature {
        fault: FaultClass::CertificateExpiry,
        brings: &[F::ErrorRatio, F::Availability, F::Certificate, F::RequestRate],
        clues: &[
            key(What::Signal(F::Certificate, None), 2.0, -0.6, "a certificate near its end"),
            key(What::Words(CERTIFICATES), 2.4, -1.0, "mention of certificates in its log"),
        ],
    },
    Signature {
        fault: FaultClass::BadConfig,
        brings: &[F::ErrorRatio, F::Latency, F::Cpu, F::Memory, F::Queue, F::RequestRate],
        clues: &[
            key(What::Changed(CONFIGURED), 0.6, -1.5, "change of configuration"),
            own(What::Words(SETTINGS), 0.6, -0.1, "mention of settings in its log"),
            own(What::Changed(DEPLOYED), -1.0, 0.0, "deployment"),
            own(What::ChangedWords(ROUTES), -2.5, 0.0, "change of routes"),
            own(What::Words(KILLED), -2.5, 0.0, "kills for lack of memory"),
            own(What::Signal(F::Misdirected, UP), -1.0, 0.0, "requests that arrive where they do not belong"),
        ],
    },
    Signature {
        fault: FaultClass::OomKill,
        brings: &[F::Oom, F::Memory, F::Restarts, F::Replicas, F::Latency, F::ErrorRatio, F::Cpu, F::ConsumerLag],
        clues: &[
            key(What::Words(KILLED), 2.6, -2.5, "kills for lack of memory"),
            own(What::ChangedWords(LIMITS), 1.2, 0.0, "change of a limit"),
            own(What::Signal(F::Restarts, UP), 0.6, -0.3, "restarts"),
        ],
    },
    Signature {
        fault: FaultClass::CrashLoop,
        brings: &[F::Restarts, F::Replicas, F::ErrorRatio, F::Latency, F::Cpu],
        clues: &[
            key(What::Words(DIED), 2.4, -0.8, "processes that die at start"),
            key(What::Signal(F::Restarts, UP), 1.2, -1.5, "restarts"),
            own(What::Changed(DEPLOYED), 1.4, -0.3, "deployment"),
            own(What::Signal(F::ErrorRatio, UP), -0.4, 0.8, "failures"),
            own(What::Words(KILLED), -2.5, 0.0, "kills for lack of memory"),
        ],
    },
    Signature {
        fault: FaultClass::CascadeFailure,
        brings: &[F::Latency, F::ErrorRatio, F::Queue],
        clues: &[
            at(Place::Own, What::Signal(F::Latency, UP), 0.9, -2.5, "slow answers"),
            at(Place::Own, What::Signal(F::ErrorRatio, UP), 0.3, -1.0, "failures"),
            Clue {
                place: Place::Callers,
                key: true,
                ..at(Place::Callers, What::Signal(F::ErrorRatio, UP), 1.6, -2.0, "callers that fail")
            },
            at(Place::Callers, What::Signal(F::Queue, UP), 0.6, -0.2, "callers in which work waits"),
            own(What::Signal(F::Retries, UP), -0.3, 0.0, "calls that are tried again"),
            own(What::Changed(DEPLOYED), -2.0, 0.0, "deployment"),
            own(What::Changed(CONFIGURED), -2.0, 0.0, "change of configuration"),
            own(What::Words(NAMES), -2.0, 0.0, "names that do not resolve"),
            own(What::Words(CERTIFICATES), -2.0, 0.0, "mention of certificates in its log"),
            own(What::Signal(F::RequestRate, UP), -1.5, 0.0, "more requests"),
            own(What::Signal(F::Cpu, UP), -1.0, 0.2, "busy processors"),
            own(What::Signal(F::DbConnections, UP), -1.0, 0.0, "connections in use"),
            at(Place::Needs, What::Signal(F::Latency, UP), -1.5, 0.2, "slow answers of what it needs"),
        ],
    },
    Signature {
        fault: FaultClass::NodeNotReady,
        brings: &[F::Availability],
        clues: &[
            own(What::Signal(F::Availability, None), 1.0, -1.0, "it does not answer"),
            at(Place::Callers, What::Signal(F::Replicas, None), 1.0, -0.2, "replicas gone of what runs on it"),
        ],
    },
    Signature {
        fault: FaultClass::DeploymentFailure,
        brings: &[F::ErrorRatio, F::Latency, F::Restarts, F::Cpu, F::Memory, F::Availability],
        clues: &[
            key(What::Changed(DEPLOYED), 0.4, -1.5, "deployment"),
            own(What::Signal(F::ErrorRatio, UP), 0.4, -2.0, "failures"),
            own(What::Words(DIED), -2.5, 0.0, "processes that die at start"),
            own(What::Words(NAMES), -1.5, 0.0, "names that do not resolve"),
            own(What::Words(CERTIFICATES), -1.5, 0.0, "mention of certificates in its log"),
        ],
    },
    Signature {
        fault: FaultClass::DiskFull,
        brings: &[F::Disk, F::DiskIo, F::ErrorRatio, F::Latency],
        clues: &[
            key(What::Signal(F::Disk, None), 1.4, -0.8, "space that runs out"),
            key(What::Words(SPACE), 2.2, -0.3, "no space left in its log"),
        ],
    },
    Signature {
        fault: FaultClass::LockContention,
        brings: &[F::Locks, F::Latency, F::DbConnections, F::Queue, F::ErrorRatio],
        clues: &[
            key(What::Signal(F::Locks, None), 2.2, -1.2, "waiting for locks"),
            key(What::Words(LOCKS), 1.6, -0.5, "mention of locks in its log"),
        ],
    },
    Signature {
        fault: FaultClass::DbConnectionExhaustion,
        brings: &[F::DbConnections, F::Latency, F::ErrorRatio, F::Queue],
        clues: &[
            key(What::Signal(F::DbConnections, UP), 1.0, -1.2, "connections in use"),
            own(What::Words(POOLS), 1.0, -0.1, "mention of a pool in its log"),
            own(What::Signal(F::Cache, None), -0.8, 0.0, "misses of a cache"),
            own(What::Signal(F::RequestRate, UP), -1.2, 0.0, "more requests"),
            own(What::Signal(F::Retries, UP), -0.4, 0.0, "calls that are tried again"),
            own(What::Signal(F::Locks, None), -0.8, 0.0, "waiting for locks"),
        ],
    },
    Signature {
        fault: FaultClass::KafkaConsumerLag,
        brings: &[F::ConsumerLag, F::Latency, F::Queue],
        clues: &[key(What::Signal(F::ConsumerLag, None), 1.0, -1.5, "messages not yet read")],
    },
    Signature {
        fault: FaultClass::MemoryLeak,
        brings: &[F::Memory, F::Oom, F::Latency, F::Cpu, F::Queue, F::Restarts],
        clues: &[
            key(What::Named(FaultClass::MemoryLeak), 1.4, -0.1, "memory that grows steadily"),
            key(What::Signal(F::Memory, UP), 1.0, -0.5, "more memory in use"),
            own(What::Words(KILLED), -0.5, 0.0, "kills for lack of memory"),
            own(What::ChangedWords(LIMITS), -2.0, 0.0, "change of a limit"),
            own(What::Signal(F::RequestRate, UP), -1.2, 0.4, "more requests"),
        ],
    },
    Signature {
        fault: FaultClass::MemorySaturation,
        brings: &[F::Memory, F::Latency],
        clues: &[own(What::Signal(F::RequestRate, UP), 0.6, -0.4, "more requests")],
    },
    Signature {
        fault: FaultClass::CpuSaturation,
        brings: &[F::Cpu, F::Latency, F::Queue, F::ErrorRatio],
        clues: &[
            own(What::Signal(F::Cpu, None), 0.6, -1.5, "busy processors"),
            own(What::Signal(F::RequestRate, UP), -1.2, 0.3, "more requests"),
            own(What::Signal(F::CpuSteal, UP), -1.2, 0.0, "processor time taken away"),
            own(What::Signal(F::Retries, UP), -0.8, 0.0, "calls that are tried again"),
            at(Place::Callers, What::Signal(F::Cache, None), -1.8, 0.0, "callers whose cache misses"),
            at(Place::Needs, What::Signal(F::CpuSteal, UP), -1.2, 0.0, "processor time taken away where it runs"),
            at(Place::Needs, What::Signal(F::Availability, None), -1.2, 0.0, "something gone that it needs"),
            own(What::Named(FaultClass::MemoryLeak), -1.5, 0.0, "memory that grows steadily"),
            own(What::Words(KILLED), -1.5, 0.0, "kills for lack of memory"),
        ],
    },
    Signature {
        fault: FaultClass::TrafficSurge,
        brings: &[F::RequestRate, F::Cpu, F::Latency, F::Queue, F::ErrorRatio],
        clues: &[
            own(What::Signal(F::RequestRate, UP), 0.8, -2.0, "more requests"),
            at(Place::Callers, What::Signal(F::RequestRate, UP), -0.8, 0.2, "more requests to its callers"),
            own(What::Signal(F::Dns, None), -2.0, 0.0, "questions for names that fail"),
            own(What::Signal(F::Retries, UP), -1.5, 0.0, "calls that are tried again"),
            own(What::Words(RETRIES), -0.8, 0.0, "mention of retries in its log"),
        ],
    },
    Signature {
        fault: FaultClass::DependencyOutage,
        brings: &[F::Availability, F::ErrorRatio, F::Latency, F::RequestRate],
        clues: &[
            own(What::Signal(F::Availability, None), 1.2, -0.3, "it does not answer"),
            at(Place::Callers, What::Words(REFUSED), 1.2, -0.2, "callers that cannot reach it"),
        ],
    },
    Signature {
        fault: FaultClass::LatencySpike,
        brings: &[F::Latency, F::Queue, F::ErrorRatio],
        clues: &[
            own(What::Signal(F::Latency, UP), 0.0, -1.5, "slow answers"),
            own(What::Signal(F::ErrorRatio, UP), -0.5, 0.2, "failures"),
            own(What::Signal(F::Cpu, UP), -0.5, 0.0, "busy processors"),
            own(What::Named(FaultClass::MemoryLeak), -1.5, 0.0, "memory that grows steadily"),
            own(What::Signal(F::RequestRate, UP), -0.8, 0.0, "more requests"),
            at(Place::Callers, What::Signal(F::Cache, None), -1.2, 0.0, "callers whose cache misses"),
        ],
    },
    Signature {
        fault: FaultClass::ErrorRateSpike,
        brings: &[F::ErrorRatio],
        clues: &[
            own(What::Signal(F::ErrorRatio, UP), 0.0, -1.0, "failures"),
            own(What::Signal(F::Latency, UP), -0.9, 0.0, "slow answers"),
        ],
    },
];

/// The row of a class.
pub(super) fn of(fault: FaultClass) -> Option<&'static Signature> {
    SIGNATURES.iter().find(|s| s.fault == fault)
}

/// Whether a class is only how something else shows: what ran out, or what was changed, explains it.
pub(super) const fn is_generic(fault: FaultClass) -> bool {
    matches!(
        fault,
        FaultClass::LatencySpike
            | FaultClass::ErrorRateSpike
            | FaultClass::SloBurn
            | FaultClass::CriticalLog
            | FaultClass::TrafficLoss
            | FaultClass::Unknown
    )
}

/// Whether a symptom shows this. Changes are none of its business.
pub(super) fn shows(what: What, s: &Symptom) -> bool {
    match what {
        What::Signal(family, way) => {
            // Every machine that is shared loses a little, and more when it is busy: only a share that matters is a clue.
            let least = if family == F::CpuSteal { STOLEN_MIN } else { SEEN_MIN };
            s.family == Some(family) && s.score >= least && way.is_none_or(|w| s.direction == w)
        }
        // Somebody thought of it by name: a weak word counts.
        What::Named(fault) => s.fault == fault,
        What::Words(words) => {
            use nightshift_model::AnomalyKind as K;
            matches!(s.kind, K::Log | K::Rule | K::Alert) && said(&s.text, words)
        }
        What::Changed(_) | What::ChangedWords(_) | What::OnePart | What::ManyParts => false,
    }
}

/// Whether a text holds one of these words, letters of any case.
pub(super) fn said(text: &str, words: &[&str]) -> bool {
    let text = text.to_ascii_lowercase();
    words.iter().any(|w| text.contains(w))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_class_is_once_in_the_table_and_no_clue_is_idle_or_beyond_reason() {
        let mut seen = BTreeSet::new();
        for s in SIGNATURES {
            assert!(seen.insert(s.fault), "{} twice", s.fault);
            assert!(!s.brings.is_empty(), "{}", s.fault);
            for c in s.clues {
                assert!(c.present.abs() <= 3.0 && c.absent.abs() <= 2.5, "{} {}", s.fault, c.name);
                assert!(!c.key || c.present > 0.0, "{} {}", s.fault, c.name);
            }
        }
    }

    #[test]
    fn words_are_found_in_any_case() {
        assert!(said("lookup x: No Such Host", NAMES));
        assert!(!said("all is well", NAMES));
    }
}
