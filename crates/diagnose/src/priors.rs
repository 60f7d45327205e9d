//! What past incidents teach about the next one, as a value that the ranking adds to its priors.
//!
//! The value is built elsewhere (from resolved incidents and from what people said of them) and handed in whole: the
//! ranking stays a function of its input. Each adjustment is bounded, so that no history, however long, outvotes what
//! is seen now, and each cites the incidents that taught it.

use nightshift_model::{EntityId, Evidence, FaultClass};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Most that past incidents of one entity and fault add to the log-odds, and most that false alarms take away. 1.5 is a
/// factor of 4.5: half a full-strength symptom.
pub const PLACE_MAX: f64 = 1.5;
/// The same for a fault class wherever it happened. Weaker: another entity is another history.
pub const FAULT_MAX: f64 = 0.5;
/// Incidents cited by one adjustment at most, the newest first.
const CITED_MAX: usize = 5;

/// One thing that past incidents taught.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Lesson {
    /// Where; `None` for the fault class wherever it happens.
    pub entity: Option<EntityId>,
    /// What.
    pub fault: FaultClass,
    /// Log-odds to add: above zero when this was the cause, below zero when it was a false alarm. Not finite counts
    /// as nothing.
    pub log_odds: f64,
    /// The incidents that taught it, ids `incident:ID`.
    pub evidence: Vec<Evidence>,
}

/// The sum of what was taught about one place and fault, one sign.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Taught {
    /// Bounded sum.
    pub log_odds: f64,
    /// The newest incidents behind it.
    pub evidence: Vec<Evidence>,
}

#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
struct Entry {
    causes: Taught,
    false_alarms: Taught,
}

/// Adjustments by (entity, fault) and by fault. The same lessons give the same value, in whatever order.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Priors {
    places: BTreeMap<(EntityId, FaultClass), Entry>,
    faults: BTreeMap<FaultClass, Entry>,
}

impl Priors {
    /// Sums lessons up. Entities are taken by the id they have: build anew when names were joined.
    pub fn new(lessons: impl IntoIterator<Item = Lesson>) -> Self {
        let mut lessons: Vec<Lesson> = lessons.into_iter().filter(|l| l.log_odds.is_finite()).collect();
        // Sums of floats depend on their order.
        lessons.sort_by(|a, b| {
            let key = |l: &Lesson| (l.entity.clone(), l.fault);
            key(a).cmp(&key(b)).then_with(|| a.log_odds.total_cmp(&b.log_odds))
        });
        let mut priors = Self::default();
        for lesson in lessons {
            let (entry, limit) = match lesson.entity {
                Some(id) => (priors.places.entry((id, lesson.fault)).or_default(), PLACE_MAX),
                None => (priors.faults.entry(lesson.fault).or_default(), FAULT_MAX),
            };
            let taught = if lesson.log_odds < 0.0 { &mut entry.false_alarms } else { &mut entry.causes };
            taught.log_odds = (taught.log_odds + lesson.log_odds).clamp(-limit, limit);
            taught.evidence.extend(lesson.evidence);
            taught.evidence.sort_by(|a, b| (b.at, &a.id).cmp(&(a.at, &b.id)));
            taught.evidence.dedup_by(|a, b| a.id == b.id);
            taught.evidence.truncate(CITED_MAX);
        }
        priors
    }

    /// Whether nothing was taught.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty() && self.faults.is_empty()
    }

    /// What speaks for and against a fault of an entity: of the place first, of the class wherever it happened after.
    pub fn of<'a>(&'a self, entity: &EntityId, fault: FaultClass) -> impl Iterator<Item = &'a Taught> {
        let place = self.places.get(&(entity.clone(), fault));
        let class = self.faults.get(&fault);
        [place, class].into_iter().flatten().flat_map(|e| [&e.causes, &e.false_alarms]).filter(|t| t.log_odds != 0.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nightshift_model::Timestamp;

    fn lesson(name: &str, log_odds: f64, id: u32) -> Lesson {
        let entity = (!name.is_empty()).then(|| EntityId::new("c", "service", "", name));
        let evidence =
            vec![Evidence { id: format!("incident:{id}"), text: "it was it".into(), at: Timestamp(i64::from(id)) }];
        Lesson { entity, fault: FaultClass::MemoryLeak, log_odds, evidence }
    }

    #[test]
    fn lessons_add_up_to_a_bound_and_cite_the_newest() {
        let all: Vec<Lesson> = (1..=9).map(|i| lesson("a", 0.4, i)).chain([lesson("a", -0.7, 10)]).collect();
        let id = EntityId::new("c", "service", "", "a");
        let priors = Priors::new(all.clone());
        let taught: Vec<&Taught> = priors.of(&id, FaultClass::MemoryLeak).collect();
        assert_eq!(taught.len(), 2);
        assert_eq!(taught[0].log_odds, PLACE_MAX);
        assert_eq!(taught[1].log_odds, -0.7);
        let ids: Vec<&str> = taught[0].evidence.iter().map(|e| e.id.as_str()).collect();
        assert_eq!(ids, ["incident:9", "incident:8", "incident:7", "incident:6", "incident:5"]);
        assert_eq!(Priors::new(all.into_iter().rev()), priors, "order does not matter");
        assert_eq!(priors.of(&EntityId::new("c", "service", "", "b"), FaultClass::MemoryLeak).count(), 0);
    }

    #[test]
    fn a_class_is_bounded_lower_and_nonsense_teaches_nothing() {
        let priors = Priors::new([lesson("", 5.0, 1), lesson("b", f64::NAN, 2)]);
        let id = EntityId::new("c", "service", "", "b");
        let taught: Vec<f64> = priors.of(&id, FaultClass::MemoryLeak).map(|t| t.log_odds).collect();
        assert_eq!(taught, [FAULT_MAX]);
        assert!(Priors::new([lesson("b", f64::INFINITY, 2)]).is_empty());
    }
}
