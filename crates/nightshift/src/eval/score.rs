//! Truth against what was told.
//!
//! A fault is matched by the first incident that was opened between its onset and a minute after its end and has a
//! symptom on something that it affects. An incident matches one fault at most; every other incident is a false
//! positive. An incident that was joined into an elder one is that elder one, as it is for people.

use super::world_loop::{Deeds, Samples, Seen};
use nightshift_model::{EntityId, FaultClass, IncidentId};
use nightshift_sim::{SimFault, Truth};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Seconds after the end of a fault in which an incident may still be of it.
const LATE_SECS: f64 = 60.0;
/// Seconds after an incident was opened at which its causes are read: a plan is made no later.
const DECIDED_SECS: u64 = 10;

/// The truth about one fault.
#[derive(Debug, Clone)]
pub(crate) struct Fault {
    pub(crate) class: FaultClass,
    pub(crate) entity: EntityId,
    pub(crate) onset_secs: f64,
    pub(crate) end_secs: f64,
    pub(crate) onset_by: String,
    pub(crate) affected: BTreeSet<EntityId>,
}

impl Fault {
    /// `None` of a look-alike.
    pub(crate) fn of(truth: Truth) -> Option<Self> {
        let Truth { cause, onset_secs, end_secs, onset_by, affected, .. } = truth;
        Some(Self { class: truth.class?, entity: cause, onset_secs, end_secs, onset_by, affected })
    }
}

/// What came of one episode.
pub(crate) struct Outcome {
    pub(crate) what: Vec<SimFault>,
    pub(crate) lookalike: bool,
    pub(crate) truths: Vec<Fault>,
    pub(crate) seen: BTreeMap<IncidentId, Seen>,
    /// The same with plans that are not tried beforehand.
    pub(crate) seen_without: BTreeMap<IncidentId, Seen>,
    pub(crate) samples: Samples,
    pub(crate) deeds: Deeds,
}

/// What is said of one fault.
#[derive(Debug, Clone, Default)]
pub(crate) struct Mark {
    pub(crate) incident: Option<IncidentId>,
    pub(crate) mttd_secs: Option<f64>,
    /// Place of the true cause in the ranking, from 0.
    pub(crate) place: Option<usize>,
    /// Seconds from detection to verified, when something was done.
    pub(crate) mttr_secs: Option<f64>,
    /// Nobody was asked, and the fix acts at once.
    pub(crate) auto: bool,
    /// The KPI was back before it would have been by itself, stayed so, and nothing was taken back.
    pub(crate) success: bool,
}

/// One line of the table.
#[derive(Debug, Clone, Default)]
pub(crate) struct Row {
    pub(crate) faults: usize,
    pub(crate) found: usize,
    pub(crate) top1: usize,
    pub(crate) top3: usize,
    pub(crate) mttd: Vec<f64>,
    pub(crate) mttr: Vec<f64>,
    pub(crate) mttr_auto: Vec<f64>,
    pub(crate) healed: usize,
    pub(crate) healed_without: usize,
    /// Incidents beyond the one that each fault has.
    pub(crate) surplus: usize,
}

/// All figures.
#[derive(Debug, Clone, Default)]
pub(crate) struct Scores {
    pub(crate) all: Row,
    pub(crate) by_fault: BTreeMap<FaultClass, Row>,
    pub(crate) lookalikes: usize,
    pub(crate) lookalikes_flagged: usize,
    pub(crate) lookalike_incidents: usize,
    pub(crate) samples: Samples,
    pub(crate) deeds: Deeds,
    pub(crate) undone: u64,
}

/// The ranking that is judged: the newest within [`DECIDED_SECS`] of the opening, before anything was changed.
pub(super) fn decided(seen: &Seen) -> Option<&super::world_loop::Ranked> {
    let until = seen.opened + Duration::from_secs(DECIDED_SECS);
    let until = seen.first_change.map_or(until, |at| at.min(until));
    seen.rankings.iter().rev().find(|r| r.at <= until).or(seen.rankings.first())
}

/// Place of the true cause.
fn place(seen: &Seen, truth: &Fault) -> Option<usize> {
    decided(seen)?.hypotheses.iter().position(|h| h.fault == truth.class && h.entity.as_ref() == Some(&truth.entity))
}

/// What was done about an incident.
fn repaired(seen: &Seen) -> Mark {
    let Some((at, plan)) = seen.verified else { return Mark::default() };
    let plan = plan.and_then(|hash| seen.plans.get(&hash));
    Mark {
        mttr_secs: Some(at - seen.opened_secs),
        auto: !seen.asked && plan.is_some_and(|p| p.acts_at_once),
        success: seen.undone == 0 && !seen.relapsed && seen.twin_back.is_none_or(|twin| twin > at),
        ..Mark::default()
    }
}

/// The first incident of a fault, as [`Scores::add`] finds it where there is one fault.
fn found_in<'a>(seen: &'a BTreeMap<IncidentId, Seen>, truth: &Fault) -> Option<&'a Seen> {
    let fits = seen.values().filter(|s| {
        s.merged_into.is_none()
            && s.opened_secs >= truth.onset_secs
            && s.opened_secs <= truth.end_secs + LATE_SECS
            && !s.members.is_disjoint(&truth.affected)
    });
    let (own, other): (Vec<&Seen>, Vec<&Seen>) = fits.partition(|s| s.members.contains(&truth.entity));
    let first = |list: Vec<&'a Seen>| list.into_iter().min_by_key(|s| s.opened);
    first(own).or_else(|| first(other))
}

impl Scores {
    /// Adds an episode and returns what is said of each of its faults.
    pub(crate) fn add(&mut self, outcome: &Outcome) -> Vec<Mark> {
        self.samples.healthy += outcome.samples.healthy;
        self.samples.flagged += outcome.samples.flagged;
        self.deeds.blocked += outcome.deeds.blocked;
        self.deeds.violations += outcome.deeds.violations;
        self.undone += outcome.seen.values().map(|s| s.undone).sum::<u64>();
        let mut open: Vec<(&IncidentId, &Seen)> =
            outcome.seen.iter().filter(|(_, s)| s.merged_into.is_none()).collect();
        open.sort_by_key(|(id, s)| (s.opened, **id));
        if outcome.lookalike {
            self.lookalikes += 1;
            self.lookalikes_flagged += usize::from(!open.is_empty());
            self.lookalike_incidents += open.len();
            return Vec::new();
        }
        let mut taken: BTreeSet<IncidentId> = BTreeSet::new();
        let mut marks = Vec::new();
        let mut order: Vec<usize> = (0..outcome.truths.len()).collect();
        order.sort_by(|a, b| outcome.truths[*a].onset_secs.total_cmp(&outcome.truths[*b].onset_secs));
        for i in &order {
            let truth = &outcome.truths[*i];
            let mut mark = Mark::default();
            let fits = |s: &Seen| {
                s.opened_secs >= truth.onset_secs
                    && s.opened_secs <= truth.end_secs + LATE_SECS
                    && !s.members.is_disjoint(&truth.affected)
            };
            // Of two faults at once each has the incident that is about it, where there is one.
            let own = |s: &Seen| s.members.contains(&truth.entity);
            let free = || open.iter().filter(|(id, s)| !taken.contains(*id) && fits(s));
            let found = free().find(|(_, s)| order.len() == 1 || own(s)).or_else(|| free().next());
            if let Some((id, seen)) = found {
                taken.insert(**id);
                mark = Mark {
                    incident: Some(**id),
                    mttd_secs: Some(seen.opened_secs - truth.onset_secs),
                    place: place(seen, truth),
                    ..repaired(seen)
                };
            }
            let healed_without = found_in(&outcome.seen_without, truth).is_some_and(|s| repaired(s).success);
            let by_class = self.by_fault.entry(truth.class).or_default();
            for row in [&mut self.all, by_class] {
                row.faults += 1;
                row.found += usize::from(mark.incident.is_some());
                row.top1 += usize::from(mark.place == Some(0));
                row.top3 += usize::from(mark.place.is_some_and(|p| p < 3));
                row.mttd.extend(mark.mttd_secs);
                row.mttr.extend(mark.mttr_secs);
                row.mttr_auto.extend(mark.mttr_secs.filter(|_| mark.auto));
                row.healed += usize::from(mark.success);
                row.healed_without += usize::from(healed_without);
            }
            marks.push(mark);
        }
        let surplus = open.len() - taken.len();
        self.all.surplus += surplus;
        if let Some(first) = order.first()
            && let Some(row) = self.by_fault.get_mut(&outcome.truths[*first].class)
        {
            row.surplus += surplus;
        }
        marks
    }

    /// Incidents that were right, of all incidents.
    pub(crate) fn precision(&self) -> Option<f64> {
        share(self.all.found, self.all.found + self.all.surplus + self.lookalike_incidents)
    }
}

impl Row {
    pub(crate) fn recall(&self) -> Option<f64> {
        share(self.found, self.faults)
    }

    /// Incidents of this class that were right, of all that were opened in its episodes.
    pub(crate) fn precision(&self) -> Option<f64> {
        share(self.found, self.found + self.surplus)
    }

    pub(crate) fn top1(&self) -> Option<f64> {
        share(self.top1, self.found)
    }

    /// Faults that were healed, of those that were found.
    pub(crate) fn healed(&self) -> Option<f64> {
        share(self.healed, self.found)
    }

    pub(crate) fn top3(&self) -> Option<f64> {
        share(self.top3, self.found)
    }
}

/// A share, `None` of nothing.
pub(crate) fn share(part: usize, whole: usize) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}

/// Mean, `None` of nothing.
pub(crate) fn mean(values: &[f64]) -> Option<f64> {
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

/// The value below which this share of the values lies (nearest rank), `None` of nothing.
pub(crate) fn quantile(values: &[f64], q: f64) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = (q * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.max(1) - 1).copied()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eval::world_loop::Ranked;
    use nightshift_model::{Hypothesis, OccurrenceId, Timestamp};

    fn entity(name: &str) -> EntityId {
        EntityId::new("sim", "service", "shop", name)
    }

    fn fault(name: &str, onset_secs: f64) -> Fault {
        Fault {
            class: FaultClass::LatencySpike,
            entity: entity(name),
            onset_secs,
            end_secs: onset_secs + 100.0,
            onset_by: String::new(),
            affected: BTreeSet::from([entity(name), entity("caller")]),
        }
    }

    fn seen(opened_secs: f64, members: &[&str], causes: &[&str]) -> Seen {
        let opened = Timestamp::from_secs(opened_secs as i64);
        let hypotheses = causes.iter().map(|name| Hypothesis {
            entity: Some(entity(name)),
            fault: FaultClass::LatencySpike,
            confidence: 0.5,
            score: 0.0,
            summary: String::new(),
            contributions: Vec::new(),
            evidence: Vec::new(),
            signal: String::new(),
        });
        Seen {
            opened,
            opened_secs,
            members: members.iter().map(|m| entity(m)).collect(),
            rankings: vec![Ranked { at: opened, hypotheses: hypotheses.collect() }],
            ..Seen::default()
        }
    }

    fn outcome(truths: Vec<Fault>, list: Vec<Seen>) -> Outcome {
        let id = |i: usize| IncidentId::derive("t", OccurrenceId::derive(i as u64, Timestamp::EPOCH));
        Outcome {
            what: Vec::new(),
            lookalike: truths.is_empty(),
            truths,
            seen: list.into_iter().enumerate().map(|(i, s)| (id(i), s)).collect(),
            seen_without: BTreeMap::new(),
            samples: Samples::default(),
            deeds: Deeds::default(),
        }
    }

    #[track_caller]
    fn check(truths: Vec<Fault>, list: Vec<Seen>, found: usize, surplus: usize, top1: usize) {
        let mut scores = Scores::default();
        scores.add(&outcome(truths, list));
        let all = &scores.all;
        assert_eq!((all.found, all.surplus, all.top1), (found, surplus, top1));
    }

    #[test]
    fn a_fault_is_matched_by_the_first_incident_in_its_time_and_place_and_all_else_is_surplus() {
        let one = || vec![fault("a", 1_000.0)];
        check(one(), vec![seen(1_002.0, &["a"], &["a"])], 1, 0, 1);
        check(one(), vec![seen(1_002.0, &["caller"], &["b", "a"])], 1, 0, 0);
        check(one(), vec![seen(999.0, &["a"], &["a"])], 0, 1, 0);
        check(one(), vec![seen(1_160.0, &["a"], &["a"])], 1, 0, 1);
        check(one(), vec![seen(1_161.0, &["a"], &["a"])], 0, 1, 0);
        check(one(), vec![seen(1_002.0, &["other"], &["a"])], 0, 1, 0);
        check(one(), vec![seen(1_002.0, &["a"], &["a"]), seen(1_050.0, &["a"], &["a"])], 1, 1, 1);
    }

    #[test]
    fn of_two_faults_each_needs_an_incident_of_its_own() {
        let two = || vec![fault("a", 1_000.0), fault("b", 1_000.0)];
        check(two(), vec![seen(1_001.0, &["a", "b"], &["a"])], 1, 0, 1);
        check(two(), vec![seen(1_001.0, &["b"], &["b"]), seen(1_002.0, &["a"], &["a"])], 2, 0, 2);
    }

    #[test]
    fn an_incident_that_was_joined_is_the_elder_one() {
        let mut younger = seen(1_003.0, &["a"], &["a"]);
        younger.merged_into = Some(IncidentId::derive("t", OccurrenceId::derive(9, Timestamp::EPOCH)));
        check(vec![fault("a", 1_000.0)], vec![seen(1_002.0, &["a"], &["a"]), younger], 1, 0, 1);
    }

    #[test]
    fn a_look_alike_with_incidents_is_one_false_alarm_and_every_incident_costs_precision() {
        let mut scores = Scores::default();
        scores.add(&outcome(Vec::new(), vec![seen(5.0, &["a"], &["a"]), seen(6.0, &["b"], &["b"])]));
        scores.add(&outcome(Vec::new(), Vec::new()));
        scores.add(&outcome(vec![fault("a", 1_000.0)], vec![seen(1_002.0, &["a"], &["a"])]));
        assert_eq!((scores.lookalikes, scores.lookalikes_flagged), (2, 1));
        assert_eq!(scores.precision(), Some(1.0 / 3.0));
    }

    #[test]
    fn healed_is_before_the_estate_heals_by_itself_and_for_good() {
        let done = |twin_back: Option<f64>, undone: u64, relapsed: bool| {
            let base = seen(1_002.0, &["a"], &["a"]);
            repaired(&Seen { verified: Some((1_020.0, None)), twin_back, undone, relapsed, ..base })
        };
        assert!(done(None, 0, false).success);
        assert!(done(Some(1_100.0), 0, false).success);
        assert!(!done(Some(1_010.0), 0, false).success);
        assert!(!done(None, 1, false).success);
        assert!(!done(None, 0, true).success);
        assert_eq!(done(None, 0, false).mttr_secs, Some(18.0));
    }

    #[test]
    fn quantiles_are_of_the_nearest_rank() {
        let values: Vec<f64> = (1..=20).map(f64::from).collect();
        assert_eq!(quantile(&values, 0.5), Some(10.0));
        assert_eq!(quantile(&values, 0.95), Some(19.0));
        assert_eq!(quantile(&[], 0.5), None);
    }
}
