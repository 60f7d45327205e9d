//! Findings as anomalies: opened once, told again when they change, closed when they are gone.

use crate::{Finding, Grade, ObjectRef};
use nightshift_model::anomaly::OBJECT_FAULT;
use nightshift_model::{
    Anomaly, AnomalyKind, DEFAULT_TENANT, Direction, EntityId, EntityMeta, Explanation, FaultClass, OccurrenceId,
    Phase, Severity, Timestamp,
};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Longest description and sample, bytes.
const TEXT_BYTES_MAX: usize = 2 << 10;
/// Findings that are followed at most: beyond, new ones wait until others end.
const OPEN_MAX: usize = 5_000;
/// A fault that is still there is told again this often.
const AGAIN: Duration = Duration::from_secs(300);
/// How long the series of a fault that is over goes on saying so.
const ECHO: Duration = Duration::from_secs(1_800);

/// How findings become anomalies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReportConfig {
    /// A finding must be gone for this long before it is over: containers that crash run for seconds in between.
    pub clear_after: Duration,
}

impl Default for ReportConfig {
    fn default() -> Self {
        Self { clear_after: Duration::from_secs(15) }
    }
}

/// One finding that is followed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Open {
    object: ObjectRef,
    fault: FaultClass,
    onset: Timestamp,
    told_at: Timestamp,
    score: f64,
    description: String,
    sample: String,
    /// Kinds of object that it was seen by, in small letters: when one of them cannot be seen, nobody knows whether it is over.
    #[serde(default)]
    seen_by: BTreeSet<String>,
    /// Since when it is no longer found.
    gone: Option<Timestamp>,
    /// When it was told to be over.
    closed: Option<Timestamp>,
}

impl Open {
    /// Whether it cannot be known if it is there.
    fn is_unseen(&self, blind: &BTreeSet<String>) -> bool {
        blind.contains(&self.object.kind) || blind.iter().any(|kind| self.seen_by.contains(&kind.to_ascii_lowercase()))
    }
}

/// The kinds of object that a finding rests on, in small letters: its cause, and what its evidence is read from.
fn kinds_of(finding: &Finding) -> BTreeSet<String> {
    let cause = finding.cause.object.kind.to_ascii_lowercase();
    finding.evidence.iter().map(|fact| fact.source.clone()).chain(std::iter::once(cause)).collect()
}

/// One reading of the series that says whether a fault is there.
#[derive(Debug, Clone, PartialEq)]
pub struct FaultReading {
    /// Whose.
    pub entity: EntityId,
    /// Which.
    pub fault: FaultClass,
    /// 1 while it is found, else 0.
    pub value: f64,
    /// Objects that suffer from it now, for the series [`REACH`].
    pub reach: f64,
}

/// Series of how many objects suffer from a fault; its label `fault` is the slug.
pub const REACH: &str = "kubernetes_fault_reach";

/// What a look gives.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Told {
    /// Opened, changed and closed.
    pub anomalies: Vec<Anomaly>,
    /// The state of each fault that is followed, now.
    pub readings: Vec<FaultReading>,
}

/// Follows the findings of one cluster. Its state is put away with [`Self::state`] and read back, so that a fault that
/// ended while nobody looked is closed, and one that goes on is not told twice.
#[derive(Debug, Clone, Default)]
pub struct Reporter {
    cluster: String,
    config: ReportConfig,
    open: BTreeMap<(ObjectRef, FaultClass), Open>,
}

impl Reporter {
    /// For a cluster of this name, with the state that was put away.
    pub fn new(cluster: &str, config: ReportConfig, state: &[u8]) -> Self {
        let rows: Vec<Open> = serde_json::from_slice(state).unwrap_or_default();
        let open = rows.into_iter().take(OPEN_MAX).map(|o| ((o.object.clone(), o.fault), o)).collect();
        Self { cluster: cluster.to_owned(), config, open }
    }

    /// What is to be put away.
    pub fn state(&self) -> Vec<u8> {
        serde_json::to_vec(&self.open.values().collect::<Vec<_>>()).unwrap_or_default()
    }

    /// Takes what was found at `now`. `blind`: kinds of object that could not be seen at all; what was found on them before
    /// is neither there nor gone.
    pub fn step(&mut self, findings: &[Finding], blind: &BTreeSet<String>, now: Timestamp) -> Told {
        let mut told = Told::default();
        let mut seen = BTreeMap::new();
        for finding in findings.iter().filter(|f| f.severity.is_fault()) {
            let key = (finding.object.clone(), finding.fault);
            seen.insert(key.clone(), finding.symptoms.len());
            let (score, description, sample) = (score_of(finding.severity), describe(finding), sample(finding));
            let full = self.open.len() >= OPEN_MAX && !self.open.contains_key(&key);
            match self.open.get_mut(&key) {
                // A return within the echo is a new occurrence: its onset is now.
                Some(open) if open.closed.is_none() => {
                    open.gone = None;
                    open.seen_by = kinds_of(finding);
                    let worse = (open.score - score).abs() > f64::EPSILON;
                    let again = now.since(open.told_at) >= AGAIN;
                    if worse || again || open.description != description {
                        open.told_at = now;
                        (open.score, open.description, open.sample) = (score, description, sample);
                        told.anomalies.push(anomaly(&self.cluster, open, Phase::Update, now));
                    }
                }
                _ if full => {}
                before => {
                    let after = before.and_then(|o| o.closed).unwrap_or(Timestamp(i64::MIN));
                    let onset = finding.since.filter(|at| *at <= now && *at > after).unwrap_or(now);
                    let open = Open {
                        object: finding.object.clone(),
                        fault: finding.fault,
                        onset,
                        told_at: now,
                        score,
                        description,
                        sample,
                        seen_by: kinds_of(finding),
                        gone: None,
                        closed: None,
                    };
                    told.anomalies.push(anomaly(&self.cluster, &open, Phase::Open, now));
                    self.open.insert(key, open);
                }
            }
        }
        for (key, open) in &mut self.open {
            if seen.contains_key(key) || open.closed.is_some() || open.is_unseen(blind) {
                continue;
            }
            let since = *open.gone.get_or_insert(now);
            if now.since(since) >= self.config.clear_after {
                open.closed = Some(now);
                told.anomalies.push(anomaly(&self.cluster, open, Phase::Closed, since));
            }
        }
        self.open.retain(|_, o| o.closed.is_none_or(|at| now.since(at) < ECHO));
        told.readings = self
            .open
            .iter()
            .filter(|(key, o)| seen.contains_key(*key) || !o.is_unseen(blind))
            .map(|(key, o)| FaultReading {
                entity: entity_of(&self.cluster, &o.object),
                fault: o.fault,
                value: if seen.contains_key(key) { 1.0 } else { 0.0 },
                reach: seen.get(key).map_or(0.0, |n| *n as f64),
            })
            .collect();
        told
    }

    /// Faults that are there now.
    pub fn open(&self) -> usize {
        self.open.values().filter(|o| o.closed.is_none()).count()
    }
}

/// The entity of an object: `cluster/deployment/shop/web`.
pub fn entity_of(cluster: &str, object: &ObjectRef) -> EntityId {
    EntityId::new(cluster, &object.kind.to_ascii_lowercase(), &object.namespace, &object.name)
}

/// The middle of the band of each grade, so that it keeps its severity.
const fn score_of(grade: Grade) -> f64 {
    match grade {
        Grade::Critical => 0.95,
        Grade::High => 0.85,
        Grade::Medium => 0.6,
        Grade::Low => 0.4,
        Grade::Info | Grade::Advice => 0.1,
    }
}

fn cut(mut text: String) -> String {
    if text.len() > TEXT_BYTES_MAX {
        let end = (0..=TEXT_BYTES_MAX).rev().find(|i| text.is_char_boundary(*i)).unwrap_or(0);
        text.truncate(end);
    }
    text
}

fn describe(finding: &Finding) -> String {
    let why = &finding.cause.why;
    if *why == finding.summary || why.is_empty() {
        return cut(finding.summary.clone());
    }
    cut(format!("{}, because {}: {why}", finding.summary.trim_end_matches('.'), finding.cause.object))
}

fn sample(finding: &Finding) -> String {
    let mut text = format!("cause: {} ({})\nfix: {}", finding.cause.object, finding.cause.why, finding.fix);
    for fact in &finding.evidence {
        text.push_str(&format!("\n[{}] {}", fact.id, fact.text));
    }
    if !finding.symptoms.is_empty() {
        let names = finding.symptoms.iter().take(10).map(ToString::to_string).collect::<Vec<_>>().join(", ");
        text.push_str(&format!("\nsuffering: {names}"));
    }
    cut(text)
}

fn anomaly(cluster: &str, open: &Open, phase: Phase, last_seen: Timestamp) -> Anomaly {
    let entity = entity_of(cluster, &open.object);
    let labels = BTreeMap::from([("fault".to_owned(), open.fault.slug().to_owned())]);
    let fingerprint =
        Anomaly::fingerprint_of(DEFAULT_TENANT, entity.as_str(), AnomalyKind::Rule, OBJECT_FAULT, &labels);
    Anomaly {
        id: OccurrenceId::derive(fingerprint, open.onset),
        fingerprint,
        tenant: DEFAULT_TENANT.into(),
        entity: EntityMeta::bare(entity),
        kind: AnomalyKind::Rule,
        signal: OBJECT_FAULT.into(),
        labels,
        onset: open.onset,
        last_seen: last_seen.max(open.onset),
        phase,
        score: open.score,
        severity: Severity::from_score(open.score),
        direction: Direction::Up,
        fault: open.fault,
        description: open.description.clone(),
        explanation: Explanation {
            observed: Some(1.0),
            expected: Some(0.0),
            lower: None,
            upper: Some(0.5),
            model: format!("kubernetes/{}", open.fault.slug()),
            model_version: 1,
            sample: open.sample.clone(),
            ..Explanation::default()
        },
        source: String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(secs: i64) -> Timestamp {
        Timestamp::from_secs(1_000_000 + secs)
    }

    fn finding(name: &str) -> Finding {
        let object = ObjectRef::new("Deployment", "shop", name);
        Finding::new(FaultClass::CrashLoop, object, "it crashes").since(Some(at(-60))).fix("mend it")
    }

    fn phases(told: &Told) -> Vec<Phase> {
        told.anomalies.iter().map(|a| a.phase).collect()
    }

    #[test]
    fn a_fault_opens_once_and_closes_when_it_stays_away() {
        let mut r = Reporter::new("eu", ReportConfig::default(), b"");
        let none = BTreeSet::new();
        let first = r.step(&[finding("web")], &none, at(0));
        assert_eq!(phases(&first), [Phase::Open]);
        assert_eq!(
            (first.anomalies[0].onset, first.anomalies[0].entity.id.as_str()),
            (at(-60), "eu/deployment/shop/web")
        );
        assert_eq!(phases(&r.step(&[finding("web")], &none, at(1))), []);
        // It runs for a moment between two crashes.
        let gone = r.step(&[], &none, at(2));
        assert_eq!((phases(&gone), gone.readings[0].value), (vec![], 0.0));
        assert_eq!(phases(&r.step(&[finding("web")], &none, at(5))), []);
        r.step(&[], &none, at(10));
        let over = r.step(&[], &none, at(25));
        assert_eq!((phases(&over), over.anomalies[0].last_seen), (vec![Phase::Closed], at(10)));
        assert_eq!(over.anomalies[0].id, first.anomalies[0].id);
        // It comes back: another occurrence of the same fingerprint.
        let again = r.step(&[finding("web")], &none, at(100));
        assert_eq!((phases(&again), again.anomalies[0].onset), (vec![Phase::Open], at(100)));
        assert_eq!(again.anomalies[0].fingerprint, first.anomalies[0].fingerprint);
        assert_ne!(again.anomalies[0].id, first.anomalies[0].id);
    }

    #[test]
    fn a_restart_tells_nothing_twice_and_closes_what_ended_meanwhile() {
        let none = BTreeSet::new();
        let mut r = Reporter::new("eu", ReportConfig::default(), b"");
        r.step(&[finding("web"), finding("api")], &none, at(0));
        let mut r = Reporter::new("eu", ReportConfig::default(), &r.state());
        assert_eq!(phases(&r.step(&[finding("web")], &none, at(60))), []);
        let told = r.step(&[finding("web")], &none, at(80));
        assert_eq!(told.anomalies.iter().map(|a| a.entity.id.name()).collect::<Vec<_>>(), ["api"]);
        assert_eq!(phases(&told), [Phase::Closed]);
        // What cannot be read is no state.
        assert_eq!(Reporter::new("eu", ReportConfig::default(), b"{broken").open(), 0);
    }

    #[test]
    fn what_cannot_be_seen_is_not_over() {
        let mut r = Reporter::new("eu", ReportConfig::default(), b"");
        r.step(&[finding("web")], &BTreeSet::new(), at(0));
        let blind = BTreeSet::from(["Deployment".to_owned()]);
        let told = r.step(&[], &blind, at(600));
        assert_eq!((told.anomalies.len(), told.readings.len(), r.open()), (0, 0, 1));
    }

    #[test]
    fn what_was_seen_by_kinds_that_cannot_be_seen_any_more_is_not_over() {
        let mut r = Reporter::new("eu", ReportConfig::default(), b"");
        let pod = ObjectRef::new("Pod", "shop", "web-1-x");
        r.step(&[finding("web").field(&pod, "status.phase", "Failed")], &BTreeSet::new(), at(0));
        let mut r = Reporter::new("eu", ReportConfig::default(), &r.state());
        let told = r.step(&[], &BTreeSet::from(["Pod".to_owned()]), at(600));
        assert_eq!((told.anomalies.len(), told.readings.len(), r.open()), (0, 0, 1));
        // Other kinds do not matter, and what is found is there although something else cannot be seen.
        r.step(&[], &BTreeSet::from(["Node".to_owned()]), at(601));
        let told = r.step(&[], &BTreeSet::from(["Node".to_owned()]), at(700));
        assert_eq!(phases(&told), [Phase::Closed]);
    }

    #[test]
    fn advice_is_no_anomaly_and_what_gets_worse_is_told() {
        let mut r = Reporter::new("eu", ReportConfig::default(), b"");
        let none = BTreeSet::new();
        assert_eq!(phases(&r.step(&[finding("web").graded(Grade::Advice)], &none, at(0))), []);
        r.step(&[finding("web")], &none, at(1));
        let worse = r.step(&[finding("web").graded(Grade::Critical)], &none, at(2));
        assert_eq!((phases(&worse), worse.anomalies[0].severity), (vec![Phase::Update], Severity::Critical));
    }
}
