//! Error budgets: what objectives leave to be spent, counted from requests and errors.
//!
//! An objective of 99.9 % over 30 days lets one request in a thousand fail. What has been seen so far is counted in
//! rings of buckets, one ring for each objective; what has not been seen is not taken to be good: the budget of the
//! whole window is estimated from the rate of what was seen, and nothing seen is "unknown", which is neither full nor
//! empty.

use crate::config::BudgetConfig;
use crate::judge::risk_floor;
use nightshift_model::slo::{BUCKET_MINUTES_MAX, Indicator, MinuteOf, Slo, TallyRing};
use nightshift_model::{EntityId, Plan, PlanStep, Timestamp};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

pub use nightshift_model::slo::UPTIME;

/// Buckets of one objective's window, unless an hour each is not enough.
const BUCKETS: u64 = 720;
/// Seconds in a minute.
const MINUTE: u64 = 60;

/// Whether requests and errors tell it; a latency cannot be counted from them.
fn is_countable(slo: &Slo) -> bool {
    matches!(Indicator::of(&slo.indicator), Indicator::Requests | Indicator::Uptime)
}

/// What is left of an entity's error budget: of its objectives, the one with the least.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BudgetLeft {
    /// Name of the objective.
    pub objective: String,
    /// Share that is left: 1 is all, below 0 is overspent. `None`: nothing was counted.
    pub left: Option<f64>,
    /// Share of the window that was seen, 0..=1.
    pub coverage: f64,
    /// Seconds of full outage that the whole budget amounts to.
    pub outage_secs: f64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Ring {
    slo: Slo,
    #[serde(flatten)]
    tallies: TallyRing,
}

impl Ring {
    fn new(slo: Slo) -> Self {
        // Whole minutes, and few enough buckets: 30 days are 720 hours.
        let minutes = slo.window_secs.div_ceil(BUCKETS).div_ceil(MINUTE).clamp(1, BUCKET_MINUTES_MAX);
        Self { slo, tallies: TallyRing::new(minutes) }
    }

    /// Slots of the window that ends with this one.
    fn slots(&self) -> i64 {
        self.slo.window_secs.div_ceil(self.tallies.bucket_secs()).max(1) as i64
    }

    fn observe(&mut self, at: Timestamp, minute: &MinuteOf, down_ratio: f64) {
        if let Some(tally) = Indicator::of(&self.slo.indicator).count(minute, down_ratio) {
            let slots = self.slots();
            self.tallies.observe(at, tally, slots);
        }
    }

    fn left(&self, now: Timestamp) -> BudgetLeft {
        let sums = self.tallies.sums_after(self.tallies.slot(now) - self.slots());
        let minutes = sums.minutes as f64;
        let allowed_share = self.slo.budget_ratio();
        let window_minutes = (self.slo.window_secs as f64 / MINUTE as f64).max(1.0);
        // The rate of what was seen stands for the whole window: half an hour of history does not make half an hour's
        // budget out of a month's.
        let allowed = sums.tally.total / f64::max(minutes, 1.0) * window_minutes.max(minutes) * allowed_share;
        BudgetLeft {
            objective: self.slo.name.clone(),
            left: (sums.tally.total > 0.0 && allowed > 0.0).then(|| 1.0 - sums.tally.bad / allowed),
            coverage: (minutes / window_minutes).min(1.0),
            outage_secs: self.slo.window_secs as f64 * allowed_share,
        }
    }
}

/// Error budgets of a tenant's entities. Pure, bounded, and serialisable: a checkpoint holds it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Budgets {
    #[serde(skip)]
    config: BudgetConfig,
    entities: BTreeMap<EntityId, Vec<Ring>>,
    /// Entities with an objective that were not taken because there are too many.
    pub refused: u64,
}

impl Budgets {
    /// No objectives yet.
    pub fn new(config: BudgetConfig) -> Self {
        Self { config, entities: BTreeMap::new(), refused: 0 }
    }

    /// Settings are not part of a checkpoint: these hold from now on.
    pub fn configure(&mut self, config: BudgetConfig) {
        self.config = config;
    }

    /// Sets the objectives of an entity. Those that stay the same keep their counts; others begin anew.
    pub fn declare(&mut self, entity: &EntityId, slos: &[Slo]) {
        if slos.is_empty() {
            self.entities.remove(entity);
            return;
        }
        if !self.entities.contains_key(entity) && self.entities.len() >= self.config.entities_max {
            self.refused += 1;
            return;
        }
        let mut old = self.entities.remove(entity).unwrap_or_default();
        let rings = slos.iter().map(|slo| {
            let kept = old.iter().position(|r| r.slo == *slo);
            kept.map_or_else(|| Ring::new(slo.clone()), |i| old.swap_remove(i))
        });
        let rings = rings.collect();
        self.entities.insert(entity.clone(), rings);
    }

    /// Counts one minute of an entity: requests and those that failed. A minute that is told again counts once, late
    /// ones count in their place, and those before the window are left out. What is not a finite number, negative, or has more errors
    /// than requests is cut to what makes sense.
    pub fn observe(&mut self, entity: &EntityId, minute: Timestamp, requests: f64, errors: f64) {
        let Some(rings) = self.entities.get_mut(entity) else { return };
        if !requests.is_finite() || !errors.is_finite() || requests < 0.0 {
            return;
        }
        let told = MinuteOf { requests: Some(requests), errors: Some(errors), ..MinuteOf::default() };
        for ring in rings.iter_mut() {
            ring.observe(minute, &told, self.config.down_ratio);
        }
    }

    /// What is left, of the objective with the least; an unknown one counts as less than any. Objectives that requests
    /// and errors say nothing of (a latency) speak only where there is no other, and then as unknown. `None`: no
    /// objective is declared.
    pub fn left(&self, entity: &EntityId, now: Timestamp) -> Option<BudgetLeft> {
        let rings = self.entities.get(entity)?;
        let any = rings.iter().any(|r| is_countable(&r.slo));
        let speaks = rings.iter().filter(|r| !any || is_countable(&r.slo));
        let key = |b: &BudgetLeft| b.left.unwrap_or(f64::NEG_INFINITY);
        speaks.map(|r| r.left(now)).min_by(|a, b| key(a).total_cmp(&key(b)))
    }

    /// What is left for each of these that has an objective: the form that [`crate::Facts`] holds.
    pub fn of<'a>(
        &self,
        entities: impl IntoIterator<Item = &'a EntityId>,
        now: Timestamp,
    ) -> BTreeMap<EntityId, BudgetLeft> {
        entities.into_iter().filter_map(|e| Some((e.clone(), self.left(e, now)?))).collect()
    }
}

/// Seconds for which a step is under way, canary and all.
fn step_secs(step: &PlanStep) -> f64 {
    f64::from(step.deadline_secs) + step.canary.as_ref().map_or(0.0, |c| f64::from(c.watch_secs))
}

/// Share of each entity's budget that a plan is estimated to spend: the time its steps may take, times the share of
/// requests taken to fail at their risk, over the outage that the whole budget amounts to. An estimate from above.
pub fn spend_estimate(
    config: &BudgetConfig,
    plan: &Plan,
    budgets: &BTreeMap<EntityId, BudgetLeft>,
) -> BTreeMap<EntityId, f64> {
    let mut out = BTreeMap::new();
    for (entity, budget) in budgets {
        let steps = plan.steps.iter().filter(|s| s.target == *entity);
        let secs: f64 = steps.map(|s| step_secs(s) * config.failing(s.risk.max(risk_floor(s.action)))).sum();
        if secs > 0.0 {
            out.insert(entity.clone(), secs / budget.outage_secs.max(1e-9));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn slo(objective: f64, window_secs: u64, indicator: &str) -> Slo {
        Slo { name: format!("{indicator} {objective}"), objective, window_secs, indicator: indicator.into() }
    }

    fn shop() -> EntityId {
        EntityId::new("prod", "service", "shop", "cart")
    }

    fn minute(n: i64) -> Timestamp {
        Timestamp::from_secs(1_700_000_040 + n * 60)
    }

    fn with(slos: &[Slo]) -> Budgets {
        let mut budgets = Budgets::new(BudgetConfig::default());
        budgets.declare(&shop(), slos);
        budgets
    }

    const HOUR: u64 = 3_600;
    const MONTH: u64 = 30 * 24 * HOUR;

    #[test]
    fn nothing_declared_nothing_seen_and_all_left_are_three_things() {
        let mut budgets = Budgets::new(BudgetConfig::default());
        assert_eq!(budgets.left(&shop(), minute(0)), None);
        budgets.declare(&shop(), &[slo(99.9, MONTH, "")]);
        let left = budgets.left(&shop(), minute(0)).unwrap();
        assert_eq!((left.left, left.coverage), (None, 0.0));
        assert!((left.outage_secs - 2_592.0).abs() < 1e-6);
        budgets.observe(&shop(), minute(0), 0.0, 0.0);
        assert_eq!(budgets.left(&shop(), minute(0)).unwrap().left, None, "a minute without requests says nothing");
        budgets.observe(&shop(), minute(1), 600.0, 0.0);
        assert_eq!(budgets.left(&shop(), minute(1)).unwrap().left, Some(1.0));
        budgets.declare(&shop(), &[]);
        assert_eq!(budgets.left(&shop(), minute(1)), None);
    }

    #[test]
    fn a_full_window_is_counted_to_the_request() {
        // 99 % over an hour of 100 requests a minute: 60 may fail.
        let mut budgets = with(&[slo(99.0, HOUR, "")]);
        for n in 0..60 {
            budgets.observe(&shop(), minute(n), 100.0, if n < 15 { 1.0 } else { 0.0 });
        }
        let left = budgets.left(&shop(), minute(59)).unwrap();
        assert!((left.left.unwrap() - 0.75).abs() < 1e-9, "{left:?}");
        assert!((left.coverage - 1.0).abs() < 1e-9);
        // Ten minutes later, the first ten of them are no longer in the window, and nobody has seen the newest.
        let later = budgets.left(&shop(), minute(69)).unwrap();
        assert!((later.coverage - 50.0 / 60.0).abs() < 1e-9, "{later:?}");
        assert!((later.left.unwrap() - (1.0 - 5.0 / 60.0)).abs() < 1e-9, "{later:?}");
        assert_eq!(budgets.left(&shop(), minute(200)).unwrap().left, None, "all of it is over");
    }

    #[test]
    fn a_short_history_does_not_make_a_small_budget() {
        // Ten minutes of a month, in one of which everything failed: 60 of 2592 s of outage.
        let mut budgets = with(&[slo(99.9, MONTH, "")]);
        for n in 0..10 {
            budgets.observe(&shop(), minute(n), 100.0, if n == 3 { 100.0 } else { 0.0 });
        }
        let left = budgets.left(&shop(), minute(9)).unwrap();
        assert!((left.left.unwrap() - (1.0 - 60.0 / 2_592.0)).abs() < 1e-9, "{left:?}");
    }

    #[test]
    fn uptime_counts_minutes_that_were_down() {
        let mut budgets = with(&[slo(90.0, HOUR, UPTIME)]);
        for n in 0..60 {
            // Half a percent at rest is no outage; six percent is.
            let errors = if n < 3 { 6.0 } else { 0.5 };
            budgets.observe(&shop(), minute(n), 100.0, errors);
        }
        let left = budgets.left(&shop(), minute(59)).unwrap();
        assert!((left.left.unwrap() - 0.5).abs() < 1e-9, "{left:?}");
    }

    #[test]
    fn the_objective_with_the_least_speaks_and_an_unknown_one_first() {
        let mut budgets = with(&[slo(99.0, HOUR, ""), slo(99.9, HOUR, "")]);
        budgets.observe(&shop(), minute(0), 1_000.0, 30.0);
        let left = budgets.left(&shop(), minute(0)).unwrap();
        assert_eq!(left.objective, " 99.9");
        assert!((left.left.unwrap() - 0.5).abs() < 1e-9, "{left:?}");
        budgets.declare(&shop(), &[slo(99.9, HOUR, ""), slo(95.0, HOUR, "")]);
        assert_eq!(budgets.left(&shop(), minute(0)).unwrap().left, None, "the new one has seen nothing");
    }

    #[test]
    fn what_is_declared_again_keeps_its_counts() {
        let slos = [slo(99.0, HOUR, "")];
        let mut budgets = with(&slos);
        budgets.observe(&shop(), minute(0), 100.0, 1.0);
        let before = budgets.clone();
        budgets.declare(&shop(), &slos);
        assert_eq!(budgets, before);
        let json = serde_json::to_string(&budgets).unwrap();
        assert_eq!(serde_json::from_str::<Budgets>(&json).unwrap(), budgets);
    }

    #[test]
    fn a_minute_that_is_told_again_counts_once() {
        let mut budgets = with(&[slo(99.0, MONTH, "")]);
        for n in 0..120 {
            budgets.observe(&shop(), minute(n), 100.0, 1.0);
        }
        let before = budgets.clone();
        for n in (0..120).rev() {
            budgets.observe(&shop(), minute(n), 100.0, 1.0);
        }
        assert_eq!(budgets, before);
        assert!(budgets.left(&shop(), minute(119)).unwrap().left.unwrap() > 0.99);
    }

    #[test]
    fn what_requests_say_nothing_of_is_unknown() {
        let latency = slo(99.0, HOUR, "latency_p99");
        let mut budgets = with(&[latency.clone(), slo(99.9, HOUR, "error_ratio")]);
        budgets.observe(&shop(), minute(0), 1_000.0, 0.0);
        let left = budgets.left(&shop(), minute(0)).unwrap();
        assert_eq!((left.objective.as_str(), left.left), ("error_ratio 99.9", Some(1.0)));
        budgets.declare(&shop(), &[latency]);
        budgets.observe(&shop(), minute(1), 1_000.0, 0.0);
        assert_eq!(budgets.left(&shop(), minute(1)).unwrap().left, None);
    }

    #[test]
    fn it_is_bounded() {
        let mut budgets = Budgets::new(BudgetConfig { entities_max: 2, ..BudgetConfig::default() });
        for name in ["a", "b", "c"] {
            budgets.declare(&EntityId::new("p", "service", "", name), &[slo(99.0, MONTH, "")]);
        }
        assert_eq!(budgets.refused, 1);
        let a = EntityId::new("p", "service", "", "a");
        for n in 0..100_000 {
            budgets.observe(&a, minute(n), 10.0, 0.0);
        }
        assert!(budgets.entities[&a][0].tallies.buckets().len() <= BUCKETS as usize);
        assert!((budgets.left(&a, minute(99_999)).unwrap().coverage - 1.0).abs() < 0.01);
        for (requests, errors) in [(f64::NAN, 0.0), (1.0, f64::INFINITY), (-1.0, 0.0)] {
            let before = budgets.clone();
            budgets.observe(&a, minute(100_000), requests, errors);
            assert_eq!(budgets, before);
        }
    }

    proptest! {
        /// The order in which minutes are told is no matter, and what is counted is what a plain sum over the window is.
        #[test]
        fn it_is_the_plain_sum_in_any_order(
            minutes in prop::collection::btree_map(0i64..90, (1u32..1_000, 0u32..10), 1..60),
            rotate in 0usize..60,
        ) {
            // The newest minute comes first, so that none is too old when it is told.
            let mut told: Vec<(i64, f64, f64)> =
                minutes.iter().map(|(n, (r, e))| (*n, f64::from(*r), f64::from((*e).min(*r)))).collect();
            let last = told.pop().unwrap();
            let at = rotate % told.len().max(1);
            told.rotate_left(at);
            told.insert(0, last);
            let mut budgets = with(&[slo(99.0, HOUR, "")]);
            for (n, r, e) in &told {
                budgets.observe(&shop(), minute(*n), *r, *e);
            }
            let within: Vec<_> = told.iter().filter(|(n, ..)| *n > last.0 - 60).collect();
            let sum = |f: &dyn Fn(&(i64, f64, f64)) -> f64| within.iter().map(|x| f(x)).sum::<f64>();
            let allowed = sum(&|x| x.1) / within.len() as f64 * 60.0 * 0.01;
            let left = budgets.left(&shop(), minute(last.0)).unwrap();
            prop_assert!((left.left.unwrap() - (1.0 - sum(&|x| x.2) / allowed)).abs() < 1e-6, "{:?}", left);
        }
    }
}
