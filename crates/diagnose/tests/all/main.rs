//! The diagnose room from outside.

#![expect(clippy::unwrap_used, reason = "helpers of tests: what is not there is a failed test")]

mod backtest;
mod expected;
mod grouping;
mod life;
mod people;
mod properties;
mod ranking;
mod storm;

use nightshift_diagnose::{DiagnoseConfig, Effect, Engine, Input, Memory};
use nightshift_model::{
    Anomaly, AnomalyKind, Change, ChangeType, Direction, EdgeKind, EntityId, EntityMeta, EnvelopeId, EventKind,
    Explanation, FaultClass, Incident, IncidentId, JournalDraft, JournalEvent, Observation, OccurrenceId, Phase,
    Severity, Timestamp, journal,
};
use nightshift_topology::{Topology, TopologyConfig};
use std::collections::BTreeMap;

pub(crate) fn t(secs: i64) -> Timestamp {
    Timestamp::from_secs(1_000_000 + secs)
}

pub(crate) fn service(name: &str) -> EntityId {
    EntityId::new("local", "service", "", name)
}

pub(crate) fn host(name: &str) -> EntityId {
    EntityId::new("local", "host", "", name)
}

/// `a>b` for calls, `a@b` for runs on.
pub(crate) fn topology(edges: &[&str]) -> Topology {
    let mut topology = Topology::new(TopologyConfig::default());
    for text in edges {
        let (from, to, kind) = match text.split_once('>') {
            Some((from, to)) => (service(from), service(to), EdgeKind::Calls),
            None => {
                let (from, to) = text.split_once('@').unwrap();
                (service(from), host(to), EdgeKind::RunsOn)
            }
        };
        topology.apply(&Observation::Edge { from, to, kind, count: 1, at: t(0) }, t(0));
    }
    topology
}

/// A symptom that opens `at`.
pub(crate) fn ill(entity: &EntityId, signal: &str, fault: FaultClass, score: f64, at: i64) -> Anomaly {
    let labels = BTreeMap::new();
    let fingerprint = Anomaly::fingerprint_of("default", entity.as_str(), AnomalyKind::Statistical, signal, &labels);
    Anomaly {
        id: OccurrenceId::derive(fingerprint, t(at)),
        fingerprint,
        tenant: "default".into(),
        entity: EntityMeta::bare(entity.clone()),
        kind: AnomalyKind::Statistical,
        signal: signal.into(),
        labels,
        onset: t(at),
        last_seen: t(at),
        phase: Phase::Open,
        score,
        severity: Severity::from_score(score),
        direction: Direction::Up,
        fault,
        description: format!("{signal} of {} is unusual", entity.name()),
        explanation: Explanation::default(),
        source: "test".into(),
    }
}

pub(crate) fn cpu(entity: &EntityId, at: i64) -> Anomaly {
    ill(entity, "system_cpu_percent", FaultClass::CpuSaturation, 0.95, at)
}

pub(crate) fn errors(name: &str, at: i64) -> Anomaly {
    ill(&service(name), "service_error_rate_percent", FaultClass::ErrorRateSpike, 0.9, at)
}

pub(crate) fn latency(name: &str, at: i64) -> Anomaly {
    ill(&service(name), "service_latency_p99_ms", FaultClass::LatencySpike, 0.85, at)
}

pub(crate) fn update(a: &Anomaly, at: i64) -> Anomaly {
    Anomaly { phase: Phase::Update, last_seen: t(at), ..a.clone() }
}

pub(crate) fn closed(a: &Anomaly, at: i64) -> Anomaly {
    Anomaly { phase: Phase::Closed, last_seen: t(at), ..a.clone() }
}

pub(crate) fn change(name: &str, kind: ChangeType, at: i64) -> Change {
    Change {
        id: EnvelopeId::derive(&[name.as_bytes(), &at.to_be_bytes()]),
        tenant: "default".into(),
        at: t(at),
        entity: Some(service(name)),
        service: name.into(),
        change_type: kind,
        version: "v2".into(),
        git_sha: String::new(),
        author: "ann".into(),
        summary: "roll out v2".into(),
        known_risks: Vec::new(),
        source: "test".into(),
        attributes: BTreeMap::new(),
    }
}

/// An engine with the store around it: rows are folded, anomalies and changes kept, restarts possible.
pub(crate) struct World {
    pub(crate) engine: Engine,
    pub(crate) topology: Topology,
    pub(crate) config: DiagnoseConfig,
    pub(crate) rows: Vec<JournalDraft>,
    pub(crate) incidents: BTreeMap<IncidentId, Incident>,
    pub(crate) refused: Vec<String>,
    anomalies: BTreeMap<OccurrenceId, Anomaly>,
    changes: BTreeMap<EnvelopeId, Change>,
    now: Timestamp,
}

impl World {
    pub(crate) fn new(edges: &[&str]) -> Self {
        Self::with(topology(edges), DiagnoseConfig::default())
    }

    pub(crate) fn with(topology: Topology, config: DiagnoseConfig) -> Self {
        Self {
            engine: Engine::new(config.clone(), "default"),
            topology,
            config,
            rows: Vec::new(),
            incidents: BTreeMap::new(),
            refused: Vec::new(),
            anomalies: BTreeMap::new(),
            changes: BTreeMap::new(),
            now: t(0),
        }
    }

    /// Feeds one thing at its own time and returns the words of the rows it made.
    pub(crate) fn give(&mut self, input: impl Into<Input>) -> Vec<&'static str> {
        let input = input.into();
        let at = match &input {
            Input::Anomaly(a) => a.last_seen,
            Input::Change(c) => c.at,
            _ => self.now,
        };
        self.now = self.now.max(at);
        self.give_all(vec![input])
    }

    pub(crate) fn tick(&mut self, at: i64) -> Vec<&'static str> {
        self.now = self.now.max(t(at));
        self.give_all(vec![Input::Tick])
    }

    pub(crate) fn give_all(&mut self, inputs: Vec<Input>) -> Vec<&'static str> {
        for input in &inputs {
            match input {
                Input::Anomaly(a) => {
                    let age = |a: &Anomaly| (a.last_seen, a.phase == Phase::Closed);
                    if self.anomalies.get(&a.id).is_none_or(|known| age(known) <= age(a)) {
                        self.anomalies.insert(a.id, (**a).clone());
                    }
                }
                Input::Change(c) => drop(self.changes.insert(c.id, (**c).clone())),
                _ => {}
            }
        }
        let effects = self.engine.step_all(inputs, &self.topology, self.now);
        let mut words = Vec::new();
        for effect in effects {
            match effect {
                Effect::Refused { why, .. } => self.refused.push(why),
                Effect::Journal(draft) => {
                    words.push(draft.event.action());
                    self.fold(draft);
                }
            }
        }
        for inc in self.incidents.values() {
            assert_eq!(self.engine.incident(inc.id), Some(inc), "the engine and the journal tell the same");
        }
        words
    }

    fn fold(&mut self, draft: JournalDraft) {
        let before = self.incidents.remove(&draft.incident);
        assert_eq!(before.is_none(), matches!(draft.event, EventKind::Opened { .. }), "{draft:?}");
        let row = JournalEvent::from_draft("default", self.rows.len() as u64 + 1, draft.clone());
        // What is stored is JSON: a restart reads floats back from it.
        let row = JournalEvent::from_body(&row.to_body()).unwrap();
        self.incidents.insert(draft.incident, journal::apply(before, &row).unwrap());
        self.rows.push(draft);
    }

    /// Ends the engine and starts another from what is stored.
    pub(crate) fn restart(&mut self) {
        let since = |lookback| self.now - lookback;
        let memory = Memory {
            incidents: self.incidents.values().cloned().collect(),
            changes: self.changes.values().filter(|c| c.at >= since(self.config.changes_lookback())).cloned().collect(),
            anomalies: self
                .anomalies
                .values()
                .filter(|a| a.last_seen >= since(self.config.anomalies_lookback()))
                .cloned()
                .collect(),
            last_number: self.incidents.values().map(|i| i.number).max().unwrap_or(0),
        };
        self.engine = Engine::restore(self.config.clone(), "default", memory);
    }

    /// Incidents that were not joined into others, the elder first.
    pub(crate) fn list(&self) -> Vec<&Incident> {
        let mut list: Vec<&Incident> = self.incidents.values().filter(|i| i.merged_into.is_none()).collect();
        list.sort_by_key(|i| i.number);
        list
    }

    pub(crate) fn only(&self) -> &Incident {
        let list = self.list();
        assert_eq!(list.len(), 1, "{:#?}", list.iter().map(|i| &i.title).collect::<Vec<_>>());
        list[0]
    }
}
