//! What follows once a batch is in: scores, causes, ends.

use super::case::ended;
use super::join::title;
use super::{Engine, SYSTEM};
use crate::rank;
use nightshift_model::{
    AnomalyKind, BlastRadius, Change, EntityId, EventKind, FaultClass, Hypothesis, IncidentStatus, Severity, Timestamp,
};
use nightshift_topology::{Criticality, Topology};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Change of a score that is told.
const SCORE_STEP: f64 = 0.02;
/// Most that further symptoms, criticality and reach add to the worst score.
const BOOST_MAX: f64 = 0.08;
/// Longest hold of a flapping incident, as a power of two.
const FLAP_SHIFT_MAX: u32 = 3;
/// Changes that are looked at before the onset.
const CHANGES_BEFORE: Duration = Duration::from_secs(86_400);

impl Engine {
    /// Assesses and ranks every incident that the batch touched.
    pub(super) fn settle(&mut self, topology: &Topology) {
        let storms: Vec<u64> = self.storm.keys().copied().collect();
        for number in storms {
            self.flush_storm(number);
        }
        for number in std::mem::take(&mut self.dirty) {
            self.settle_one(number, topology);
        }
    }

    fn settle_one(&mut self, number: u64, topology: &Topology) {
        let Some(case) = self.cases.get(&number) else { return };
        if !case.inc.status.is_open() {
            return;
        }
        let inc = &case.inc;
        let at = inc.updated_at;
        let symptoms = case.symptoms(topology);
        let first = inc.onset - CHANGES_BEFORE;
        let until = (inc.updated_at, nightshift_model::EnvelopeId(u128::MAX));
        let range = self.changes.range((first, nightshift_model::EnvelopeId(0))..=until);
        let changes: Vec<&Change> = range.map(|(_, change)| change).collect();
        let hypotheses = rank::rank(&self.config.rank, &self.priors, &symptoms, &changes, topology);

        let affected = self.affected(number, topology);
        let mut radius = topology.blast_radius(&affected);
        radius.affected.truncate(affected.len());
        let score = self.score(number, &radius);
        let severity = Severity::from_score(score);
        let title = self.title_of(number, &hypotheses);

        let assessed = (score - inc.score).abs() >= SCORE_STEP
            || severity != inc.severity
            || title != inc.title
            || radius.affected != inc.blast_radius.affected
            || radius.criticality != inc.blast_radius.criticality
            || radius.estimated_user_impact != inc.blast_radius.estimated_user_impact;
        let reranked = inc.rca_revision == 0 || rank::differs_materially(&inc.hypotheses, &hypotheses);
        let revision = inc.rca_revision + 1;

        if inc.status == IncidentStatus::Detecting {
            let why = format!("{} symptoms, score {score:.2}", inc.anomalies_total);
            self.status(number, at, IncidentStatus::Correlating, why);
            let n = affected.len();
            let why = format!("{n} {} affected", if n == 1 { "entity" } else { "entities" });
            self.status(number, at, IncidentStatus::Investigating, why);
        }
        if assessed {
            let event = EventKind::Assessed { score, severity, title, blast_radius: radius };
            self.emit(number, at, SYSTEM, event);
        }
        if reranked {
            self.emit(number, at, SYSTEM, EventKind::CausesRanked { revision, hypotheses });
        }
        let Some(case) = self.cases.get_mut(&number) else { return };
        case.unlisted.clear();
        if matches!(
            case.inc.status,
            IncidentStatus::Detecting | IncidentStatus::Correlating | IncidentStatus::Investigating
        ) {
            let why = case.inc.top_cause().map_or_else(|| "no cause found".into(), |h| h.summary.clone());
            self.status(number, at, IncidentStatus::RcaComplete, why);
        }
    }

    fn status(&mut self, number: u64, at: Timestamp, to: IncidentStatus, why: String) {
        self.emit(number, at, SYSTEM, EventKind::StatusChanged { to, why });
    }

    /// Entities with symptoms that count, those of a storm too.
    fn affected(&self, number: u64, topology: &Topology) -> BTreeSet<EntityId> {
        let Some(case) = self.cases.get(&number) else { return BTreeSet::new() };
        let strong = case.inc.anomalies.iter().filter(|a| a.score >= self.config.open_score_min).map(|a| &a.entity.id);
        strong
            .chain(&case.inc.blast_radius.affected)
            .chain(&case.unlisted)
            .map(|id| topology.resolve(id).clone())
            .collect()
    }

    /// The worst symptom, a little more for many ill entities, for what depends on them and for how critical they are.
    fn score(&self, number: u64, radius: &BlastRadius) -> f64 {
        let Some(case) = self.cases.get(&number) else { return 0.0 };
        let mut worst: BTreeMap<&EntityId, f64> = BTreeMap::new();
        for a in &case.inc.anomalies {
            let entry = worst.entry(&a.entity.id).or_insert(0.0);
            *entry = entry.max(a.score);
        }
        let mut scores: Vec<f64> = worst.into_values().collect();
        scores.sort_by(|a, b| b.total_cmp(a));
        let Some((top, rest)) = scores.split_first() else { return 0.0 };
        // Noisy or: each further entity is a weak witness of its own.
        let others: f64 = 1.0 - rest.iter().map(|s| 1.0 - 0.1 * s).product::<f64>();
        let criticality = match radius.criticality.parse() {
            Ok(Criticality::P0) => 0.04,
            Ok(Criticality::P1) => 0.02,
            _ => 0.0,
        };
        let reach = 0.01 * (1.0 + radius.at_risk.len() as f64).log2();
        let boost = (0.1 * others + criticality + reach).min(BOOST_MAX);
        ((top + boost).min(1.0) * 1_000.0).round() / 1_000.0
    }

    /// Named after the likeliest cause that has a name; after the worst symptom when there is none.
    fn title_of(&self, number: u64, hypotheses: &[Hypothesis]) -> String {
        let named = hypotheses.iter().find(|h| h.entity.is_some());
        if let Some(h) = named
            && let Some(entity) = &h.entity
            && h.fault != FaultClass::Unknown
        {
            return title(h.fault, entity, &h.signal);
        }
        let Some(case) = self.cases.get(&number) else { return String::new() };
        let worst = case.inc.anomalies.iter().max_by(|a, b| {
            a.score.total_cmp(&b.score).then_with(|| b.onset.cmp(&a.onset)).then_with(|| b.id.cmp(&a.id))
        });
        worst.map_or_else(String::new, |a| title(rank::suggested_fault(a), &a.entity.id, &a.signal))
    }

    /// Time has passed: ends what has ended, forgets what is too old to matter.
    pub(super) fn tick(&mut self, topology: &Topology, now: Timestamp) {
        let open: Vec<u64> = self.cases.iter().filter(|(_, c)| c.inc.status.is_open()).map(|(n, _)| *n).collect();
        for number in open {
            if let Some((at, why)) = self.over(number, now) {
                self.emit(number, at, SYSTEM, EventKind::Resolved { why });
                self.end(number, topology);
            }
        }
        self.forget(now);
    }

    /// When and why an incident is over, `None` while it is not.
    fn over(&self, number: u64, now: Timestamp) -> Option<(Timestamp, String)> {
        let case = self.cases.get(&number)?;
        let inc = &case.inc;
        // A fix is under way: whether it helped is for the workflow's verification to say.
        if inc.status == IncidentStatus::Remediating {
            return None;
        }
        let quiet = Duration::from_secs(self.config.log_quiet_secs);
        let strong = inc.anomalies.iter().filter(|a| a.score >= self.config.open_score_min);
        let (beyond, beyond_open) = case.beyond();
        let mut last_end = Timestamp(i64::MIN);
        let mut silent_for = Some(Duration::MAX);
        let mut going_on = None;
        for a in strong {
            if let Some(end) = ended(a, quiet, now) {
                last_end = last_end.max(end);
                continue;
            }
            going_on = going_on.or(Some(a));
            let limit = Duration::from_secs(match a.kind {
                AnomalyKind::Statistical | AnomalyKind::Rule | AnomalyKind::Log => self.config.stale_secs,
                AnomalyKind::Alert | AnomalyKind::Slo | AnomalyKind::Capacity => self.config.stale_alert_secs,
            });
            let silent = now.since(a.last_seen.max(inc.updated_at));
            silent_for = silent_for.filter(|_| silent > limit).map(|s| s.min(silent));
        }
        if going_on.is_none() && beyond_open == 0 && last_end.0 > i64::MIN {
            // A series that comes and goes is not well because it is away for a minute.
            let mut seen: BTreeMap<u64, u32> = BTreeMap::new();
            for a in &inc.anomalies {
                *seen.entry(a.fingerprint).or_default() += 1;
            }
            let flaps = seen.into_values().max().unwrap_or(1).saturating_sub(1).min(FLAP_SHIFT_MAX);
            let hold = Duration::from_secs(self.config.hold_secs << flaps);
            let at = last_end + hold;
            let n = inc.anomalies_total;
            let why = format!("all {n} symptoms ended, {} s ago at least", hold.as_secs());
            return (now >= at).then(|| (at.max(inc.updated_at).min(now), why));
        }
        // Nobody says that it is well, nobody says that it is ill: that is told as what it is.
        let silent = if going_on.is_some() { silent_for? } else { now.since(inc.updated_at) };
        if silent <= Duration::from_secs(self.config.stale_secs) {
            return None;
        }
        let what = going_on.map_or_else(
            || format!("{beyond} further symptoms"),
            |a| format!("{} of {}", a.signal, a.entity.id.name()),
        );
        let minutes = silent.as_secs() / 60;
        let why = format!(
            "telemetry stopped: nothing heard of {what} for {minutes} minutes; this says nothing of its health"
        );
        Some((now, why))
    }

    fn forget(&mut self, now: Timestamp) {
        let limit = now - self.config.incidents_lookback();
        let ended: Vec<u64> = self.cases.iter().filter(|(_, c)| !c.inc.status.is_open()).map(|(n, _)| *n).collect();
        let beyond = ended.len().saturating_sub(self.config.recent_max);
        let mut gone = BTreeSet::new();
        for (i, number) in ended.iter().enumerate() {
            let old = self.cases.get(number).is_some_and(|c| c.inc.updated_at < limit);
            if old || i < beyond {
                gone.insert(*number);
            }
        }
        if !gone.is_empty() {
            for number in &gone {
                if let Some(case) = self.cases.remove(number) {
                    self.numbers.remove(&case.inc.id);
                }
            }
            self.members.retain(|_, n| !gone.contains(n));
            self.past.retain(|_, numbers| {
                numbers.retain(|n| !gone.contains(n));
                !numbers.is_empty()
            });
        }
        let cases = &self.cases;
        self.counted.retain(|_, (n, _)| cases.get(n).is_some_and(|c| c.inc.status.is_open()));
        let oldest = now - self.config.anomalies_lookback();
        self.waiting.retain(|_, a| a.last_seen >= oldest);
        let oldest = now - self.config.changes_lookback();
        self.changes = self.changes.split_off(&(oldest, nightshift_model::EnvelopeId(0)));
    }
}
