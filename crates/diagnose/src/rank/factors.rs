//! The factors: what each piece of evidence adds to a candidate.

use super::builder::Builder;
use super::signature;
use super::symptom::Symptom;
use super::tables as w;
use crate::{Priors, RankConfig};
use nightshift_model::anomaly::OBJECT_FAULT;
use nightshift_model::{AnomalyKind, Change, ChangeType, EntityId, Evidence, FaultClass, SignalFamily, Timestamp};
use nightshift_topology::{Criticality, Topology};
use std::collections::{BTreeMap, BTreeSet};

/// How far an illness is followed along dependencies.
const HOPS: u32 = 3;
/// Seconds that a cause may seem later than its consequence: scrape intervals differ.
const ORDER_SLACK_NS: i64 = 60 * 1_000_000_000;

/// All that the candidates are judged by.
pub(crate) struct Scene<'a> {
    config: &'a RankConfig,
    priors: &'a Priors,
    pub(super) topology: &'a Topology,
    ill: BTreeMap<EntityId, Ill<'a>>,
    /// By what they are about; those that name only a service, by its name.
    changes: BTreeMap<EntityId, Vec<&'a Change>>,
    service_changes: BTreeMap<&'a str, Vec<&'a Change>>,
    first: Option<Timestamp>,
    /// Dependencies without symptoms, with their ill callers.
    silent: BTreeMap<EntityId, BTreeSet<EntityId>>,
    /// Ill entities that need it, directly or not, by entity.
    ill_callers: BTreeMap<EntityId, BTreeMap<EntityId, u32>>,
}

/// One ill entity.
struct Ill<'a> {
    symptoms: Vec<&'a Symptom>,
    onset: Timestamp,
    score: f64,
}

impl Ill<'_> {
    fn of(&self, fault: FaultClass) -> impl Iterator<Item = &Symptom> {
        self.symptoms.iter().copied().filter(move |s| s.fault == fault)
    }

    fn first(&self) -> Option<&Symptom> {
        self.symptoms.iter().copied().min_by_key(|s| (s.onset, &s.evidence_id))
    }

    fn worst(&self) -> Option<&Symptom> {
        self.symptoms.first().copied()
    }
}

impl<'a> Scene<'a> {
    pub(crate) fn new(
        config: &'a RankConfig,
        priors: &'a Priors,
        symptoms: &'a [Symptom],
        changes: &[&'a Change],
        topology: &'a Topology,
    ) -> Self {
        let mut ill: BTreeMap<EntityId, Ill<'a>> = BTreeMap::new();
        for s in symptoms {
            let entry =
                ill.entry(s.entity.clone()).or_insert_with(|| Ill { symptoms: Vec::new(), onset: s.onset, score: 0.0 });
            entry.symptoms.push(s);
            entry.score = entry.score.max(s.score);
        }
        for entry in ill.values_mut() {
            entry.symptoms.sort_by(|a, b| b.score.total_cmp(&a.score).then_with(|| a.evidence_id.cmp(&b.evidence_id)));
            // A weak symptom may begin long before by chance: the order is told by those that count, if there are any.
            let limit = entry.score.min(0.5);
            let onsets = entry.symptoms.iter().filter(|s| s.score >= limit).map(|s| s.onset);
            entry.onset = onsets.min().unwrap_or(entry.onset);
        }
        let first = ill.values().map(|i| i.onset).min();
        let mut sorted = changes.to_vec();
        sorted.sort_by_key(|c| (c.at, c.id));
        let mut changes: BTreeMap<EntityId, Vec<&Change>> = BTreeMap::new();
        let mut service_changes: BTreeMap<&str, Vec<&Change>> = BTreeMap::new();
        for change in sorted {
            match &change.entity {
                Some(id) => changes.entry(topology.resolve(id).clone()).or_default().push(change),
                None => service_changes.entry(&change.service).or_default().push(change),
            }
        }

        let mut silent: BTreeMap<EntityId, BTreeSet<EntityId>> = BTreeMap::new();
        for (id, entry) in &ill {
            let handed_on = entry.symptoms.iter().any(|s| !w::is_resource(s.fault) && s.fault != FaultClass::Unknown);
            let explained = topology.dependencies(id).any(|n| ill.contains_key(n.id));
            if handed_on && !explained {
                for n in topology.dependencies(id) {
                    silent.entry(n.id.clone()).or_default().insert(id.clone());
                }
            }
        }
        silent.retain(|_, callers| callers.len() >= 2);

        let mut scene = Self {
            config,
            priors,
            topology,
            ill,
            changes,
            service_changes,
            first,
            silent,
            ill_callers: BTreeMap::new(),
        };
        for (entity, _) in scene.candidates() {
            if !scene.ill_callers.contains_key(&entity) {
                let mut callers = topology.up(&entity, HOPS);
                callers.retain(|id, _| scene.ill.contains_key(id));
                scene.ill_callers.insert(entity, callers);
            }
        }
        scene
    }

    /// Entities × fault classes that have anything to say for themselves, in a fixed order.
    pub(crate) fn candidates(&self) -> Vec<(EntityId, FaultClass)> {
        let mut entities: Vec<(&EntityId, &Ill<'_>)> = self.ill.iter().collect();
        entities.sort_by(|(a, x), (b, y)| {
            y.score.total_cmp(&x.score).then_with(|| x.onset.cmp(&y.onset)).then_with(|| a.cmp(b))
        });
        // The earliest and those that many depend on must not fall out of a storm because others scream louder.
        if entities.len() > self.config.candidates_max {
            let degree = |id: &EntityId| self.topology.callers(id).filter(|n| self.ill.contains_key(n.id)).count();
            let mut keyed: Vec<_> =
                entities.iter().map(|(id, i)| (std::cmp::Reverse(degree(id)), i.onset, *id, *i)).collect();
            keyed.sort_by(|a, b| (a.0, a.1, a.2).cmp(&(b.0, b.1, b.2)));
            let half = self.config.candidates_max.div_ceil(2);
            let kept: BTreeSet<&EntityId> = keyed.iter().take(half).map(|k| k.2).collect();
            let mut rest = self.config.candidates_max - kept.len().min(self.config.candidates_max);
            entities.retain(|(id, _)| {
                kept.contains(id) || {
                    let take = rest > 0;
                    rest = rest.saturating_sub(1);
                    take
                }
            });
        }
        let mut out = BTreeSet::new();
        for (id, entry) in entities {
            let mut faults: BTreeSet<FaultClass> = entry.symptoms.iter().map(|s| s.fault).collect();
            if faults.len() > 1 {
                faults.remove(&FaultClass::Unknown);
            }
            for change in self.changes_of(id) {
                faults.extend(class_of(change.change_type));
            }
            faults.extend(signature::SIGNATURES.iter().filter(|s| self.has_key(id, s)).map(|s| s.fault));
            out.extend(faults.into_iter().map(|f| (id.clone(), f)));
            // Who was changed need not be ill itself: its callers may be.
            for n in self.topology.dependencies(id) {
                for change in self.changes_of(n.id) {
                    out.extend(class_of(change.change_type).map(|f| (n.id.clone(), f)));
                }
            }
        }
        out.extend(
            self.silent.keys().take(self.config.candidates_max).map(|id| (id.clone(), FaultClass::DependencyOutage)),
        );
        out.into_iter().collect()
    }

    /// The signal that shows it best, and which part of the entity it names.
    pub(crate) fn best_signal(&self, entity: &EntityId, fault: FaultClass) -> (String, String) {
        let Some(entry) = self.ill.get(entity) else { return Default::default() };
        let best = entry.of(fault).next().or_else(|| entry.worst());
        let part = entry.of(fault).find(|s| !s.part.is_empty()).map(|s| s.part.clone());
        (best.map(|s| s.signal.clone()).unwrap_or_default(), part.unwrap_or_default())
    }

    /// What was found on the objects, in words, where that is what the candidate is.
    pub(crate) fn found(&self, entity: &EntityId, fault: FaultClass) -> Option<&str> {
        let found = self.ill.get(entity)?.of(fault).find(|s| s.signal == OBJECT_FAULT && !s.text.is_empty())?;
        Some(&found.text)
    }

    /// Adds all that speaks for and against a candidate.
    pub(crate) fn weigh(&self, entity: &EntityId, fault: FaultClass, b: &mut Builder) {
        self.prior(entity, fault, b);
        self.past_incidents(entity, fault, b);
        self.signal(entity, fault, b);
        self.signature(entity, fault, b);
        self.said_in_words(entity, fault, b);
        self.deployment(entity, fault, b);
        self.onset_order(entity, fault, b);
        self.dependency(entity, fault, b);
        self.silent_dependency(entity, fault, b);
        self.cascade(entity, fault, b);
        self.upstream(entity, fault, b);
    }

    fn prior(&self, entity: &EntityId, fault: FaultClass, b: &mut Builder) {
        let mut odds = w::base_rate(fault);
        let mut why = format!("how often {} is the cause", fault.slug());
        if !fault.info().kinds.contains(&entity.kind()) {
            odds -= 0.5;
            why.push_str(&format!(", seldom on a {}", entity.kind_str()));
        }
        match self.topology.criticality(entity) {
            Some(Criticality::P0) => odds += 0.1,
            Some(Criticality::P1) => odds += 0.05,
            _ => {}
        }
        let changes = self.all_changes_of(entity).count();
        if changes > 0 {
            odds += (0.1 * changes as f64).min(0.3);
            why.push_str(&format!(", {changes} changes in a day"));
        }
        b.prior(odds, why);
    }

    /// What the past says of this place and class.
    fn past_incidents(&self, entity: &EntityId, fault: FaultClass, b: &mut Builder) {
        for taught in self.priors.of(entity, fault) {
            let n = taught.evidence.len();
            let times = if n == 1 { "once".to_owned() } else { format!("{n} times or more") };
            let why = if taught.log_odds > 0.0 {
                format!("it was the cause before, {times}")
            } else {
                format!("it was called a false alarm before, {times}")
            };
            b.add("past_incidents", taught.log_odds, why, taught.evidence.clone());
        }
    }

    /// The entity's own symptoms of this class.
    fn signal(&self, entity: &EntityId, fault: FaultClass, b: &mut Builder) {
        let Some(entry) = self.ill.get(entity) else { return };
        let own: Vec<&Symptom> = entry.of(fault).collect();
        if let Some(best) = own.first() {
            let scale = if fault == FaultClass::Unknown { 0.6 } else { 1.0 };
            let odds = scale * w::SIGNAL * ((best.score - 0.2) / 0.8).max(0.0);
            b.add(
                "signal",
                odds,
                format!("{} on {}, score {:.2}", best.signal, entity.name(), best.score),
                vec![best.as_evidence()],
            );
            let signals: BTreeSet<&str> = own.iter().filter(|s| s.score >= 0.3).map(|s| s.signal.as_str()).collect();
            let more = signals.len().saturating_sub(1);
            let odds = scale * (w::SIGNAL_MORE * more as f64).min(w::SIGNAL_MORE_MAX);
            let cited = own.iter().skip(1).map(|s| s.as_evidence()).collect();
            b.add("signal", odds, format!("{more} further signals say the same"), cited);
        } else if self.changes_of(entity).any(|c| class_of(c.change_type) == Some(fault)) {
            let odds = w::CHANGED_AND_ILL * entry.score;
            b.add(
                "signal",
                odds,
                "it was changed and shows symptoms".into(),
                entry.worst().map(Symptom::as_evidence).into_iter().collect(),
            );
        }
    }

    /// Rules, alerts, budgets and log lines.
    fn said_in_words(&self, entity: &EntityId, fault: FaultClass, b: &mut Builder) {
        let Some(entry) = self.ill.get(entity) else { return };
        let told = |s: &&Symptom| matches!(s.kind, AnomalyKind::Rule | AnomalyKind::Alert | AnomalyKind::Slo);
        let rules: Vec<Evidence> = entry.of(fault).filter(told).map(Symptom::as_evidence).collect();
        if let Some(first) = rules.first() {
            let first = first.text.clone();
            b.add("rule", w::RULE, format!("told by a rule or an alert: {first}"), rules);
        }
        if let Some(found) = entry.of(fault).find(|s| s.signal == OBJECT_FAULT) {
            let why = "found on the objects themselves, symptoms of it already taken away".to_owned();
            b.add("objects", w::OBJECTS, why, vec![found.as_evidence()]);
        }
        let logs: Vec<&Symptom> = entry.symptoms.iter().copied().filter(|s| s.kind == AnomalyKind::Log).collect();
        if let Some(line) = logs.first() {
            let same = logs.iter().any(|s| s.fault == fault);
            let odds = if same { w::LOG } else { w::LOG_ENTITY };
            b.add(
                "log",
                odds * line.score,
                format!("its log says: {}", line.text),
                logs.iter().map(|s| s.as_evidence()).collect(),
            );
        }
    }

    /// Changes before the onset; the confidence falls to nothing over `change_minutes`.
    fn deployment(&self, entity: &EntityId, fault: FaultClass, b: &mut Builder) {
        // What is found on the objects is what a change did to them, not another cause beside it.
        let found = self.found(entity, fault).is_some();
        let best = self
            .changes_of(entity)
            .filter(|c| found || class_of(c.change_type) == Some(fault))
            .map(|c| (self.change_confidence(c, entity), c))
            .max_by(|a, b| a.0.total_cmp(&b.0));
        let Some((confidence, change)) = best.filter(|(confidence, _)| *confidence > 0.0) else { return };
        let weight = match change.change_type {
            ChangeType::Deployment | ChangeType::Migration => w::DEPLOYMENT,
            ChangeType::Scaling => w::SCALING,
            _ => w::CONFIG_CHANGE,
        };
        // A change of something that shows nothing itself must be seen through others.
        let weight = if self.ill.contains_key(entity) { weight } else { weight * 0.6 };
        let what = if change.summary.is_empty() { change.version.as_str() } else { change.summary.as_str() };
        let why = format!(
            "changed {} before the first symptom ({what}), weight {confidence:.2}",
            minutes(self.before(change, entity))
        );
        b.add("deployment", weight * confidence, why, vec![change_evidence(change)]);
    }

    /// Who was ill first.
    fn onset_order(&self, entity: &EntityId, fault: FaultClass, b: &mut Builder) {
        let (Some(entry), Some(first)) = (self.ill.get(entity), self.first) else { return };
        // Within one entity the class that began later is rather a consequence of the other.
        let own = entry.of(fault).filter(|s| s.score >= 0.5).map(|s| s.onset).min().unwrap_or(entry.onset);
        let cited = |own: Option<&Symptom>, other: Option<&Symptom>| {
            own.into_iter().chain(other).map(Symptom::as_evidence).collect::<Vec<_>>()
        };
        let earliest = self.ill.values().filter_map(Ill::first).min_by_key(|s| (s.onset, &s.evidence_id));
        if own > first {
            let delay = own.since(first).as_secs_f64();
            let odds = (w::LATER_PER_MINUTE * delay / 60.0).max(w::LATER_MAX);
            let mine = entry.of(fault).min_by_key(|s| (s.onset, &s.evidence_id)).or_else(|| entry.first());
            b.add("onset_order", odds, format!("began {delay:.0} s after the first symptom"), cited(mine, earliest));
            return;
        }
        let second = self.ill.iter().filter(|(id, _)| *id != entity).map(|(_, i)| i).min_by_key(|i| i.onset);
        if let Some(second) = second {
            let gap = second.onset.since(own).as_secs_f64();
            let odds = w::FIRST * (1.0 - (-gap / w::FIRST_SECS).exp());
            b.add(
                "onset_order",
                odds,
                format!("began first, {gap:.0} s before any other"),
                cited(entry.first(), second.first()),
            );
        }
    }

    /// A dependency that is ill explains its callers, not the other way round.
    fn dependency(&self, entity: &EntityId, fault: FaultClass, b: &mut Builder) {
        let onset = self.ill.get(entity).map(|i| i.onset);
        let none = BTreeMap::new();
        let callers = self.ill_callers.get(entity).unwrap_or(&none);
        let follows = |id: &EntityId| {
            let theirs = self.ill.get(id).map_or(0, |i| i.onset.0);
            onset.is_none_or(|own| theirs.saturating_add(ORDER_SLACK_NS) >= own.0)
        };
        if onset.is_some() {
            let ill: Vec<&EntityId> = callers.keys().filter(|id| *id != entity && follows(id)).collect();
            let n = ill.len();
            // What is hardly ill itself explains little of how ill others are.
            let own = self.ill.get(entity).map_or(0.0, |i| (i.score / 0.6).min(1.0));
            let odds = own * w::CALLERS_ILL * (1.0 - 0.5_f64.powi(i32::try_from(n).unwrap_or(i32::MAX)));
            let mut cited: Vec<Evidence> = ill.iter().take(2).map(|id| self.edge(id, entity)).collect();
            cited.extend(ill.iter().filter_map(|id| self.ill.get(*id)?.worst()).map(Symptom::as_evidence));
            b.add("dependency", odds, format!("{n} ill entities depend on it"), cited);

            let alike: Vec<Evidence> =
                ill.iter().filter_map(|id| self.ill.get(*id)?.of(fault).next()).map(Symptom::as_evidence).collect();
            if fault != FaultClass::Unknown {
                b.add(
                    "likeness",
                    own * w::LIKENESS,
                    format!("{} of them show {} too", alike.len(), fault.slug()),
                    alike,
                );
            }
        }
        let Some(onset) = onset else { return };
        let mut worst: Option<(&EntityId, &Ill<'_>)> = None;
        let needs = self.topology.down(entity, HOPS);
        for id in needs.keys() {
            let Some(other) = self.ill.get_key_value(id) else { continue };
            let in_time = other.1.onset.0 <= onset.0.saturating_add(ORDER_SLACK_NS);
            if id != entity && in_time && worst.is_none_or(|(_, w)| other.1.score > w.score) {
                worst = Some(other);
            }
        }
        if let Some((id, other)) = worst {
            let scale = if w::is_resource(fault) { 0.5 } else { 1.0 };
            let mut cited = vec![self.edge(entity, id)];
            cited.extend(other.worst().map(Symptom::as_evidence));
            b.add(
                "dependency",
                w::DEPENDENCY_ILL * scale * other.score,
                format!("{}, which it depends on, is ill", id.name()),
                cited,
            );
        }
        // A failure of names or machines that shows below as well is not born here.
        let below = needs.keys().filter(|id| *id != entity && w::is_named_cause(fault)).find_map(|id| {
            let same = self.ill.get(id)?.of(fault).next()?;
            Some((id, same))
        });
        if let Some((id, same)) = below {
            let cited = vec![self.edge(entity, id), same.as_evidence()];
            let why = format!("{}, which it depends on, shows {} too", id.name(), fault.slug());
            b.add("dependency", w::SAME_BELOW, why, cited);
        }
    }

    /// Callers of one thing fail alike, and the thing itself shows nothing: nobody watches it, or it is gone.
    fn silent_dependency(&self, entity: &EntityId, fault: FaultClass, b: &mut Builder) {
        if fault == FaultClass::DependencyOutage
            && let Some(callers) = self.silent.get(entity)
        {
            let n = callers.len();
            let odds = w::SILENT_DEPENDENCY * (1.0 - 0.5_f64.powi(i32::try_from(n - 1).unwrap_or(i32::MAX)));
            let mut cited: Vec<Evidence> = callers.iter().take(3).map(|id| self.edge(id, entity)).collect();
            cited.extend(callers.iter().filter_map(|id| self.ill.get(id)?.worst()).map(Symptom::as_evidence));
            b.add("dependency", odds, format!("{n} of its callers fail, and nothing else that they share"), cited);
            return;
        }
        let shared = self.silent.iter().filter(|(_, callers)| callers.len() >= 3 && callers.contains(entity));
        if let Some((id, callers)) = shared.max_by_key(|(id, callers)| (callers.len(), std::cmp::Reverse(*id))) {
            let scale = if w::is_resource(fault) { 0.5 } else { 1.0 };
            let why = format!("{} others that depend on {} fail too", callers.len() - 1, id.name());
            b.add("dependency", w::SILENT_DEPENDENCY_CALLER * scale, why, vec![self.edge(entity, id)]);
        }
    }

    /// A neighbour fails in more than `cascade_error_ratio_min` of its work.
    fn cascade(&self, entity: &EntityId, fault: FaultClass, b: &mut Builder) {
        let failing = |id: &EntityId| -> Option<&Symptom> {
            self.ill.get(id)?.symptoms.iter().copied().find(|s| {
                matches!(s.family, Some(SignalFamily::ErrorRatio | SignalFamily::Dns))
                    && s.error_ratio.is_none_or(|r| r > self.config.cascade_error_ratio_min)
                    || s.fault == FaultClass::ErrorRateSpike && s.error_ratio.is_none()
            })
        };
        let ill_caller = self.topology.callers(entity).find(|n| self.ill.contains_key(n.id));
        if let (Some(own), Some(caller)) = (failing(entity), ill_caller) {
            let cited = vec![own.as_evidence(), self.edge(caller.id, entity)];
            b.add("cascade", w::CASCADE, format!("it fails, and {} follows", caller.id.name()), cited);
        }
        let failing_need = self.topology.dependencies(entity).find_map(|n| Some((n.id, failing(n.id)?)));
        if let Some((id, symptom)) = failing_need {
            let scale = if w::is_resource(fault) { 0.5 } else { 1.0 };
            let cited = vec![symptom.as_evidence(), self.edge(entity, id)];
            b.add("cascade", -w::CASCADE * scale, format!("{} fails below it", id.name()), cited);
        }
    }

    /// Callers changed their behaviour: more work came before anything else went wrong.
    fn upstream(&self, entity: &EntityId, fault: FaultClass, b: &mut Builder) {
        let Some(entry) = self.ill.get(entity) else { return };
        let surge = |id: &EntityId| -> Option<&Symptom> {
            let found = self.ill.get(id)?.symptoms.iter().copied().filter(|s| s.is_more_work());
            found.min_by_key(|s| (s.onset, &s.evidence_id))
        };
        let early = |s: &&Symptom| s.onset.0 <= entry.onset.0.saturating_add(ORDER_SLACK_NS);
        let above = self.topology.callers(entity).find_map(|n| Some((n.id, surge(n.id).filter(early)?)));
        if fault == FaultClass::TrafficSurge {
            let below = self.topology.dependencies(entity).find(|n| self.ill.contains_key(n.id));
            if let (Some(own), Some(below)) = (surge(entity), below.filter(|_| above.is_none())) {
                let cited = vec![own.as_evidence(), self.edge(entity, below.id)];
                b.add("upstream", w::UPSTREAM, format!("it sends more work, and {} suffers", below.id.name()), cited);
            }
        }
        if let Some((id, symptom)) = above {
            let cited = vec![symptom.as_evidence(), self.edge(id, entity)];
            b.add("upstream", -w::UPSTREAM, format!("{} sends it more work than before", id.name()), cited);
        } else if let Some(own) = surge(entity).filter(early).filter(|_| fault != FaultClass::TrafficSurge) {
            b.add("upstream", -0.5 * w::UPSTREAM, "more work arrived first".into(), vec![own.as_evidence()]);
        }
    }

    /// The symptoms of an entity, the strongest first.
    pub(super) fn symptoms_of<'b>(&'b self, entity: &EntityId) -> impl Iterator<Item = &'b Symptom> + use<'a, 'b> {
        self.ill.get(entity).into_iter().flat_map(|i| i.symptoms.iter().copied())
    }

    fn edge(&self, from: &EntityId, to: &EntityId) -> Evidence {
        let at = self.ill.get(from).or_else(|| self.ill.get(to)).map_or(Timestamp::EPOCH, |i| i.onset);
        Evidence { id: format!("edge:{from}>{to}"), text: format!("{} depends on {}", from.name(), to.name()), at }
    }

    fn all_changes_of(&self, entity: &EntityId) -> impl Iterator<Item = &'a Change> + '_ {
        let name = entity.name();
        // A host may have the name of a service; a change of the one is none of the other.
        let by_service =
            (entity.kind_str() != "host" && !name.is_empty()).then(|| self.service_changes.get(name.as_str()));
        let named = by_service.flatten().into_iter().flatten();
        self.changes.get(entity).into_iter().flatten().chain(named).copied()
    }

    pub(super) fn changes_of<'b>(&'b self, entity: &'b EntityId) -> impl Iterator<Item = &'a Change> + 'b {
        self.all_changes_of(entity).filter(|c| self.change_confidence(c, entity) > 0.0)
    }

    /// 1 at the onset, 0 after `change_minutes`, 0 when the change came after.
    fn change_confidence(&self, change: &Change, entity: &EntityId) -> f64 {
        let limit = f64::from(self.config.change_minutes.max(1)) * 60.0;
        match self.before(change, entity) {
            Some(secs) if secs >= 0.0 => (1.0 - secs / limit).max(0.0),
            _ => 0.0,
        }
    }

    /// Seconds from a change to the symptoms that it may have caused.
    fn before(&self, change: &Change, entity: &EntityId) -> Option<f64> {
        let onset = self.ill.get(entity).map(|i| i.onset).or(self.first)?;
        Some((onset.0.saturating_sub(change.at.0)) as f64 / 1e9)
    }
}

fn minutes(secs: Option<f64>) -> String {
    format!("{:.0} minutes", secs.unwrap_or(0.0) / 60.0)
}

pub(super) fn change_evidence(change: &Change) -> Evidence {
    let by = if change.author.is_empty() { String::new() } else { format!(" by {}", change.author) };
    let what = if change.summary.is_empty() { change.version.as_str() } else { change.summary.as_str() };
    let kind = format!("{:?}", change.change_type).to_lowercase();
    Evidence { id: format!("change:{}", change.id), text: format!("{kind}{by}: {what}"), at: change.at }
}

/// What a change of this kind is when it goes wrong.
const fn class_of(change: ChangeType) -> Option<FaultClass> {
    match change {
        ChangeType::Deployment | ChangeType::Migration => Some(FaultClass::DeploymentFailure),
        ChangeType::Config | ChangeType::FeatureFlag | ChangeType::Scaling => Some(FaultClass::BadConfig),
        ChangeType::Event => None,
    }
}
