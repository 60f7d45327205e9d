//! From outcomes to what diagnosis and planning are told: priors, success rates, and what was alike.

use crate::outcome::{Cause, Confirmed, Outcome};
use nightshift_diagnose::priors::{Lesson, Priors};
use nightshift_model::{EntityId, Evidence, FaultClass, SignalFamily, Timestamp};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// Outcomes that are looked at, the newest: older ones weigh next to nothing.
const OUTCOMES_MAX: usize = 5_000;
/// Log-odds of one fresh, certain lesson about a place. Two of them nearly double the odds of a cause twice.
const PLACE: f64 = 0.6;
/// The same for the class wherever it happens.
const CLASS: f64 = 0.1;
/// Successes and failures of one playbook and class that are counted at most: beyond, the share is kept.
const TRIALS_MAX: f64 = 50.0;
/// A lesson below this weight is not told.
const WEIGHT_MIN: f64 = 0.02;

/// How much the past counts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct LearnConfig {
    /// Whether past incidents and feedback change the next diagnosis and plan.
    pub enabled: bool,
    /// Days after which a lesson counts half.
    #[schemars(range(min = 1, max = 3650))]
    pub half_life_days: u32,
    /// What a fix that worked says of the cause, where 1 is what a person says of it.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub verification_weight: f64,
    /// What a document about a past incident says of its cause, where 1 is what a person says of an incident here.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub document_weight: f64,
}

impl Default for LearnConfig {
    fn default() -> Self {
        Self { enabled: true, half_life_days: 90, verification_weight: 0.7, document_weight: 0.4 }
    }
}

impl LearnConfig {
    /// What an outcome weighs at `now`, 0..=1.
    fn weight(&self, outcome: &Outcome, now: Timestamp) -> f64 {
        let trust = match outcome.confirmed {
            Confirmed::Person => 1.0,
            Confirmed::Verification => self.verification_weight,
            Confirmed::Document => self.document_weight,
            Confirmed::No => 0.0,
        };
        trust.clamp(0.0, 1.0) * self.freshness(outcome, now)
    }

    fn freshness(&self, outcome: &Outcome, now: Timestamp) -> f64 {
        let days = now.since(outcome.at).as_secs_f64() / 86_400.0;
        0.5_f64.powf(days / f64::from(self.half_life_days.max(1)))
    }
}

/// How often a playbook helped against a fault class.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Rate {
    /// Times it helped, weighted by age and source.
    pub successes: f64,
    /// Times it did not.
    pub failures: f64,
}

impl Rate {
    /// The expected share of successes with a Beta(1, 1) prior, 0..=1: a half when nothing is known.
    pub fn mean(&self) -> f64 {
        (self.successes + 1.0) / (self.successes + self.failures + 2.0)
    }
}

/// What all outcomes teach together.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Knowledge {
    priors: Priors,
    rates: BTreeMap<(String, FaultClass), Rate>,
    outcomes: Vec<Outcome>,
}

impl Knowledge {
    /// Folds outcomes as they weigh at `now`. Deterministic: neither their order nor repeats of one incident matter
    /// (of two the later counts).
    pub fn fold(outcomes: impl IntoIterator<Item = Outcome>, config: &LearnConfig, now: Timestamp) -> Self {
        let mut newest: BTreeMap<String, Outcome> = BTreeMap::new();
        for outcome in outcomes {
            match newest.get(&outcome.incident) {
                Some(known) if (known.at, known.confirmed) > (outcome.at, outcome.confirmed) => {}
                _ => {
                    newest.insert(outcome.incident.clone(), outcome);
                }
            }
        }
        let mut outcomes: Vec<Outcome> = newest.into_values().collect();
        outcomes.sort_by(|a, b| (b.at, &a.incident).cmp(&(a.at, &b.incident)));
        outcomes.truncate(OUTCOMES_MAX);
        if !config.enabled {
            return Self { outcomes, ..Self::default() };
        }
        let mut lessons = Vec::new();
        let mut rates: BTreeMap<(String, FaultClass), Rate> = BTreeMap::new();
        for outcome in &outcomes {
            let weight = config.weight(outcome, now);
            if weight >= WEIGHT_MIN {
                lessons.extend(outcome.cause.iter().flat_map(|c| teach(outcome, c, weight)));
                lessons.extend(outcome.wrongly.iter().flat_map(|c| teach(outcome, c, -weight)));
            }
            let seen = if outcome.confirmed == Confirmed::Document { config.document_weight } else { 1.0 };
            let seen = seen.clamp(0.0, 1.0) * config.freshness(outcome, now);
            for tried in &outcome.tried {
                let none = Rate { successes: 0.0, failures: 0.0 };
                let rate = rates.entry((tried.playbook.clone(), tried.fault)).or_insert(none);
                *(if tried.helped { &mut rate.successes } else { &mut rate.failures }) += seen;
            }
        }
        for rate in rates.values_mut() {
            let all = rate.successes + rate.failures;
            if all > TRIALS_MAX {
                rate.successes *= TRIALS_MAX / all;
                rate.failures *= TRIALS_MAX / all;
            }
        }
        Self { priors: Priors::new(lessons), rates, outcomes }
    }

    /// What is added to the log-odds of causes.
    pub const fn priors(&self) -> &Priors {
        &self.priors
    }

    /// How often playbooks helped, by playbook and fault class, sorted.
    pub fn rates(&self) -> impl Iterator<Item = (&str, FaultClass, Rate)> {
        self.rates.iter().map(|((playbook, fault), rate)| (playbook.as_str(), *fault, *rate))
    }

    /// The same for one playbook and class; `None` when it was never tried.
    pub fn rate(&self, playbook: &str, fault: FaultClass) -> Option<Rate> {
        self.rates.get(&(playbook.to_owned(), fault)).copied()
    }

    /// The rates in whole numbers, as the planner's statistics take them: (playbook, class, successes, failures).
    pub fn counts(&self) -> impl Iterator<Item = (&str, FaultClass, u64, u64)> {
        self.rates().map(|(p, f, r)| (p, f, r.successes.round() as u64, r.failures.round() as u64))
    }

    /// All outcomes that are looked at, the newest first.
    pub fn outcomes(&self) -> &[Outcome] {
        &self.outcomes
    }

    /// Outcomes whose symptoms are most like these, the likest first, with their likeness above 0 and up to 1.
    ///
    /// Likeness is the mean of two Jaccard indices: of (entity, family) pairs and of families alone, so that the same
    /// trouble elsewhere counts, and at the same place counts more.
    pub fn similar(&self, symptoms: &BTreeMap<EntityId, BTreeSet<SignalFamily>>, most: usize) -> Vec<(f64, &Outcome)> {
        let here = Signature::of(symptoms);
        let mut found: Vec<(f64, &Outcome)> = self
            .outcomes
            .iter()
            .map(|o| (here.likeness(&Signature::of(&o.symptoms)), o))
            .filter(|(likeness, _)| *likeness > 0.0)
            .collect();
        // Stable: of two that are alike the newer comes first.
        found.sort_by(|a, b| b.0.total_cmp(&a.0));
        found.truncate(most);
        found
    }
}

struct Signature<'a> {
    pairs: BTreeSet<(&'a EntityId, SignalFamily)>,
    families: BTreeSet<SignalFamily>,
}

impl<'a> Signature<'a> {
    fn of(symptoms: &'a BTreeMap<EntityId, BTreeSet<SignalFamily>>) -> Self {
        let pairs: BTreeSet<_> = symptoms.iter().flat_map(|(id, f)| f.iter().map(move |f| (id, *f))).collect();
        let families = pairs.iter().map(|(_, f)| *f).collect();
        Self { pairs, families }
    }

    fn likeness(&self, other: &Self) -> f64 {
        (jaccard(&self.pairs, &other.pairs) + jaccard(&self.families, &other.families)) / 2.0
    }
}

fn jaccard<T: Ord>(a: &BTreeSet<T>, b: &BTreeSet<T>) -> f64 {
    let both = a.intersection(b).count();
    let either = a.len() + b.len() - both;
    if either == 0 { 0.0 } else { both as f64 / either as f64 }
}

/// The lessons of one outcome about one cause: of the place, and weaker of the class. `weight` is in -1..=1.
fn teach(outcome: &Outcome, cause: &Cause, weight: f64) -> Vec<Lesson> {
    let said = match (weight < 0.0, outcome.confirmed) {
        (true, _) if outcome.false_positive => "was a false alarm",
        (true, _) => "was taken for the cause, wrongly",
        (_, Confirmed::Document) => "was the cause, as its postmortem says",
        (_, Confirmed::Verification) => "was the cause: its fix helped",
        (_, Confirmed::Person | Confirmed::No) => "was the cause, as a person said",
    };
    let text = format!("{} on {} {said} in {}", cause.fault.title(), cause.entity.name(), outcome.short);
    let evidence = vec![Evidence { id: format!("incident:{}", outcome.incident), text, at: outcome.at }];
    let place = Lesson {
        entity: Some(cause.entity.clone()),
        fault: cause.fault,
        log_odds: PLACE * weight,
        evidence: evidence.clone(),
    };
    // That one place was wrongly suspected says nothing against its kind of fault elsewhere.
    let class = (weight > 0.0).then_some(Lesson { entity: None, log_odds: CLASS * weight, evidence, ..place.clone() });
    std::iter::once(place).chain(class).collect()
}
