//! What the ranking knows of one anomaly.

use nightshift_model::families::{self, SignalFamily};
use nightshift_model::{Anomaly, AnomalyKind, Direction, EntityId, EntityKind, Evidence, FaultClass, Timestamp};
use nightshift_topology::Topology;

/// One symptom, with its entity under the name that the topology knows.
#[derive(Debug, Clone, PartialEq)]
pub struct Symptom {
    /// `anomaly:ID`.
    pub evidence_id: String,
    /// What is ill.
    pub entity: EntityId,
    /// Metric, rule or log template.
    pub signal: String,
    /// What the signal measures.
    pub family: Option<SignalFamily>,
    /// What it suggests.
    pub fault: FaultClass,
    /// Which way it left.
    pub direction: Direction,
    /// How it was found.
    pub kind: AnomalyKind,
    /// 0..=1.
    pub score: f64,
    /// When it began.
    pub onset: Timestamp,
    /// Share of work that fails, 0..1, where the signal says it.
    pub error_ratio: Option<f64>,
    /// One line for people.
    pub text: String,
    /// Which part of the entity: a process, a device, a pod; empty when the whole is meant.
    pub part: String,
    /// Whether that part is one of several alike: a replica, a pod.
    pub is_replica: bool,
}

/// Labels that name one of several alike.
const REPLICA_LABELS: [&str; 2] = ["pod", "replica"];
/// Labels that name a part of an entity which people want to see in the cause.
const PART_LABELS: [&str; 7] = ["process", "comm", "pod", "replica", "device", "mountpoint", "container"];

impl Symptom {
    /// From an anomaly. Where the detector named no fault, the signal's name speaks.
    pub fn from_anomaly(a: &Anomaly, topology: &Topology) -> Self {
        let label = |name: &str| a.labels.get(name).map(String::as_str);
        let reading = families::reading(&a.signal, label);
        let trend = a.kind == AnomalyKind::Capacity || a.explanation.model == "trend";
        let family = reading.map(|r| r.family);
        let error_ratio = (family == Some(SignalFamily::ErrorRatio)).then_some(a.explanation.observed).flatten();
        let percent = a.signal.contains("percent") || a.signal.contains("pct");
        // A ratio that is told as its complement (success, availability) says the same.
        let inverted = reading.is_some_and(|r| r.bad == families::Bad::Down);
        let error_ratio = error_ratio
            .map(|v| if percent { v / 100.0 } else { v })
            .map(|v| if inverted { 1.0 - v } else { v })
            .filter(|v| (0.0..=1.0).contains(v));
        let part = PART_LABELS.iter().find_map(|name| label(name)).unwrap_or_default();
        let is_replica = !part.is_empty() && REPLICA_LABELS.iter().any(|name| label(name) == Some(part));
        Self {
            evidence_id: format!("anomaly:{}", a.id),
            entity: topology.resolve(&a.entity.id).clone(),
            signal: a.signal.clone(),
            family,
            fault: fault_of(a, reading, trend),
            direction: a.direction,
            kind: a.kind,
            score: a.score.clamp(0.0, 1.0),
            onset: a.onset,
            error_ratio,
            text: a.description.clone(),
            part: part.to_owned(),
            is_replica,
        }
    }

    /// As a citable fact.
    pub fn as_evidence(&self) -> Evidence {
        Evidence { id: self.evidence_id.clone(), text: self.text.clone(), at: self.onset }
    }

    /// Whether work arrives in greater amount.
    pub fn is_more_work(&self) -> bool {
        self.family == Some(SignalFamily::RequestRate) && self.direction == Direction::Up
            || self.fault == FaultClass::TrafficSurge
    }
}

fn fault_of(a: &Anomaly, reading: Option<families::Reading>, trend: bool) -> FaultClass {
    let machine = matches!(a.entity.id.kind(), EntityKind::Node | EntityKind::Host);
    match (a.fault, reading) {
        // A machine that does not answer is not a dependency that is down.
        (FaultClass::DependencyOutage | FaultClass::Unknown, Some(r))
            if machine && r.family == SignalFamily::Availability && r.bad.includes(a.direction) =>
        {
            FaultClass::NodeNotReady
        }
        (FaultClass::Unknown, Some(r)) if trend => r.trend_fault(a.direction),
        (FaultClass::Unknown, Some(r)) => r.fault(a.direction),
        (fault, _) => fault,
    }
}

/// What an anomaly suggests: the detector's word, else what the signal's name says.
pub(crate) fn suggested_fault(a: &Anomaly) -> FaultClass {
    if !matches!(a.fault, FaultClass::Unknown | FaultClass::DependencyOutage) {
        return a.fault;
    }
    let reading = families::reading(&a.signal, |name| a.labels.get(name).map(String::as_str));
    fault_of(a, reading, a.kind == AnomalyKind::Capacity || a.explanation.model == "trend")
}
