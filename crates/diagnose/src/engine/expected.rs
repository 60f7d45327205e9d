//! What somebody said would happen is no surprise: load that a planned event announced, and what follows from scaling.
//!
//! Only load is explained, and latency as far as it grows with load; work that fails never is. What is explained stays
//! evidence: it may join an incident, it opens none.

use super::Engine;
use nightshift_model::families::{self, SignalFamily};
use nightshift_model::{Anomaly, AnomalyKind, Change, ChangeType, Direction, EntityId};
use nightshift_topology::Topology;
use std::time::Duration;

/// Feature that says that a symptom was expected: the score that it would have had.
pub(super) const EXPECTED: &str = "expected";
/// How far load is handed down along dependencies.
const HOPS: u32 = 4;
/// Latency up to so many times the expected one grows with load; beyond it users are hurt.
const LATENCY_RATIO_MAX: f64 = 2.0;
/// Percent of something finite from which it is full, whoever announced it.
const FULL_PERCENT: f64 = 90.0;
/// Seconds that an announcement may seem later than what it announces: they travel apart.
const SLACK: Duration = Duration::from_secs(5);
/// Most that an explained symptom scores, below what opens an incident.
const BELOW: f64 = 0.01;

impl Engine {
    /// The symptom as it counts: weak where a change announced it.
    pub(super) fn tempered(&self, mut a: Anomaly, topology: &Topology) -> Anomaly {
        let limit = (self.config.open_score_min - BELOW).max(0.0);
        if a.score <= limit || !matches!(a.kind, AnomalyKind::Statistical | AnomalyKind::Capacity) {
            return a;
        }
        let announced = self.announced(&a, topology).map(|c| c.summary.clone());
        if let Some(summary) = announced.or_else(|| self.own_doing(&a, topology)) {
            let words: String = summary.chars().take(120).collect();
            a.description = format!("{} (expected: {words})", a.description);
            a.explanation.features.insert(EXPECTED.into(), a.score);
            a.score = limit;
            a.severity = nightshift_model::Severity::from_score(limit);
        }
        a
    }

    /// What was done here to heal: load that moved because of it is no new trouble, as long as nothing is full of it.
    fn own_doing(&self, a: &Anomaly, topology: &Topology) -> Option<String> {
        let (by_load, by_scaling) = by_load(a)?;
        // Whoever was restarted reads late for a while.
        let family = families::reading(&a.signal, |name| a.labels.get(name).map(String::as_str)).map(|r| r.family);
        let late = matches!(
            family,
            Some(SignalFamily::ConsumerLag | SignalFamily::Queue | SignalFamily::Restarts | SignalFamily::Replicas)
        );
        if !by_load && !by_scaling && !late {
            return None;
        }
        let place = &a.entity.id;
        let oldest = a.onset - Duration::from_secs(self.config.own_secs);
        let near = |target: &EntityId| {
            let shares = || topology.callers(target).any(|t| topology.callers(place).any(|p| p.id == t.id));
            target == place
                || topology.up(place, HOPS).contains_key(target)
                || topology.down(place, HOPS).contains_key(target)
                || shares()
        };
        let done = self.cases.values().rev().flat_map(|c| c.inc.actions.iter().rev()).find(|s| {
            s.action.operation.changes()
                && s.intended_at >= oldest
                && s.intended_at <= a.onset + SLACK
                && near(topology.resolve(&s.action.target))
        })?;
        Some(format!("{} of {} was done", done.action.action, done.action.target.name()))
    }

    fn announced(&self, a: &Anomaly, topology: &Topology) -> Option<&Change> {
        let (by_load, by_scaling) = by_load(a)?;
        if !by_scaling {
            return None;
        }
        self.told(a, by_load, topology)
    }

    fn told(&self, a: &Anomaly, by_load: bool, topology: &Topology) -> Option<&Change> {
        let oldest = a.onset - Duration::from_secs(self.config.planned_secs);
        let until = (a.onset + SLACK, nightshift_model::EnvelopeId(u128::MAX));
        let near: Vec<&Change> = self
            .changes
            .range((oldest, nightshift_model::EnvelopeId(0))..=until)
            .map(|(_, change)| change)
            .filter(|c| match c.change_type {
                ChangeType::Scaling => true,
                ChangeType::Event => by_load && self.is_planned(c),
                _ => false,
            })
            .collect();
        if near.is_empty() {
            return None;
        }
        let place = &a.entity.id;
        let above = topology.up(place, HOPS);
        near.into_iter().rev().find(|c| match &c.entity {
            Some(id) => {
                let id = topology.resolve(id);
                // Load flows down; a scaled service asks more or less of what it needs.
                id == place || above.contains_key(id)
            }
            None => !c.service.is_empty() && c.service == a.entity.service,
        })
    }

    fn is_planned(&self, change: &Change) -> bool {
        let said = change.summary.to_lowercase();
        self.config.planned_words.iter().any(|w| !w.is_empty() && said.contains(&w.to_lowercase()))
    }
}

/// Whether more or less work alone can show so, and whether another number of replicas can.
fn by_load(a: &Anomaly) -> Option<(bool, bool)> {
    let reading = families::reading(&a.signal, |name| a.labels.get(name).map(String::as_str))?;
    let (observed, expected) = (a.explanation.observed, a.explanation.expected);
    let full = matches!(reading.family, SignalFamily::Cpu | SignalFamily::Memory)
        && a.direction == Direction::Up
        && observed.is_none_or(|v| v >= FULL_PERCENT);
    let hurts = observed.zip(expected).is_none_or(|(o, e)| e <= 0.0 || o > LATENCY_RATIO_MAX * e);
    let by_load = match reading.family {
        SignalFamily::Cpu | SignalFamily::Memory => !full,
        SignalFamily::RequestRate
        | SignalFamily::Network
        | SignalFamily::DiskIo
        | SignalFamily::DbConnections
        | SignalFamily::Retries
        | SignalFamily::Threads => true,
        SignalFamily::Latency => !hurts,
        SignalFamily::Queue | SignalFamily::ConsumerLag => !hurts,
        _ => false,
    };
    let by_scaling = by_load
        || matches!(reading.family, SignalFamily::Replicas) && a.direction != Direction::Flat
        || matches!(reading.family, SignalFamily::ErrorRatio) && a.direction == Direction::Down;
    Some((by_load, by_scaling))
}
