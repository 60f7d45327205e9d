//! Isolation forest on the vector of an entity's minute: what is odd only jointly.
//!
//! Lives here: the settings, what is kept of an entity, the threshold that the contamination makes, and the life of an
//! alarm. `sample` has the forest, `explain` the words. A minute costs a constant; nothing is trained beside it.
//!
//! It supports what the layers of single series say: alone it makes a matter of medium severity at most, and where the
//! check of error ratio and latency speaks of the entity already, it is evidence only.

mod explain;
mod sample;
mod scores;
#[cfg(test)]
mod tests;

use super::FeatureRow;
use crate::metrics::{Effects, Wire, score_of, wire_struct};
use nightshift_model::hash::hash128;
use nightshift_model::time::NANOS_PER_SEC;
use nightshift_model::{Direction, EntityMeta, Phase, SHARDS};
use sample::{Forest, KEPT, Row, Sample, Scratch, WIDTH};
use schemars::JsonSchema;
use scores::Scores;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

const MINUTE: i64 = 60 * NANOS_PER_SEC;
/// Minutes among which the odd ones are counted that open an alarm, beside the least number of them.
const OPEN_SLACK: u32 = 2;
/// Minutes known before a score is asked for: half of a tree.
const SCORED_MIN: usize = 64;
/// Most that an alarm scores: medium. What is odd only jointly is worth a look, and pages nobody.
const SCORE_MAX: f64 = 0.69;
/// Most that it scores where the check of single features speaks of the same entity: evidence, which opens nothing.
const SCORE_SECOND: f64 = 0.49;
/// Minutes that are all learned after something became the new normal: half of the sample.
const SETTLE: u32 = KEPT as u32 / 2;

/// Isolation forest on the features of an entity's minute.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct ForestConfig {
    /// Whether it is asked.
    pub enabled: bool,
    /// Share of ordinary minutes that may be called odd. An alarm needs several of them near each other.
    #[schemars(range(min = 0.0001, max = 0.2))]
    pub contamination: f64,
    /// Mean age of the minutes that are kept, minutes. A day knows nights and days.
    #[schemars(range(min = 256, max = 20_160))]
    pub window_minutes: u32,
    /// Minutes of an entity before a word is said of it.
    #[schemars(range(min = 128, max = 20_160))]
    pub warmup_minutes: u32,
    /// Odd minutes that open an alarm, with two ordinary ones between them at most.
    #[schemars(range(min = 1, max = 30))]
    pub open_minutes: u32,
    /// Ordinary minutes in a row that close it.
    #[schemars(range(min = 1, max = 60))]
    pub calm_minutes: u32,
    /// A change that lasts this long is the new normal: the alarm closes, and what came since is learned fast.
    #[schemars(range(min = 10, max = 10_080))]
    pub relearn_minutes: u32,
    /// Entities of the whole process that have a forest (8 KiB each).
    #[schemars(range(min = 0, max = 1_000_000))]
    pub entities_max: u32,
}

impl Default for ForestConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            contamination: 0.01,
            window_minutes: 1_440,
            warmup_minutes: 1_440,
            open_minutes: 3,
            calm_minutes: 5,
            relearn_minutes: 60,
            entities_max: 10_000,
        }
    }
}

/// An alarm that is open.
#[derive(Debug, Clone, PartialEq)]
struct Open {
    onset: i64,
    last: i64,
    score: f64,
    /// Ordinary minutes since the last odd one.
    calm: u32,
    /// The feature that says what it may be, and which way the first one left; told at the end, too.
    lead: Option<u8>,
    direction: Direction,
}

wire_struct!(Open { onset, last, score, calm, lead, direction });

/// What is kept of an entity.
#[derive(Debug, Clone, PartialEq)]
struct Stand {
    sample: Sample,
    scores: Scores,
    /// The newest minute.
    newest: i64,
    /// Which of the newest minutes were odd, the newest in the lowest bit.
    recent: u64,
    /// Minutes that are still learned in a hurry.
    settle: u32,
    open: Option<Open>,
}

wire_struct!(Stand { sample, scores, newest, recent, settle, open });

/// The numbers of a verdict.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Verdict {
    /// Score of the forest, 0..1.
    isolation: f64,
    /// That at which the contamination lies, and that of an ordinary minute.
    threshold: f64,
    usual: f64,
    /// Minutes that were learned.
    minutes: u64,
}

impl Verdict {
    /// 0 is ordinary, 1 the threshold.
    fn ratio(&self) -> f64 {
        (self.isolation - self.usual) / (self.threshold - self.usual).max(1e-6)
    }

    fn is_odd(&self) -> bool {
        self.isolation >= self.threshold
    }
}

/// Forests of a shard.
#[derive(Debug, Clone)]
pub(crate) struct Forests {
    config: ForestConfig,
    stands: BTreeMap<u32, Stand>,
    scratch: Scratch,
    /// Minutes of entities that have no forest because there are too many.
    refused: u64,
}

impl Forests {
    pub(crate) fn new(config: ForestConfig) -> Self {
        Self { config, stands: BTreeMap::new(), scratch: Scratch::default(), refused: 0 }
    }

    pub(crate) fn bytes(&self) -> usize {
        self.stands.values().map(|s| size_of::<Stand>() + s.sample.rows.len() * 4 * WIDTH + scores::BINS * 4).sum()
    }

    /// Whether an alarm of the entity is open.
    pub(crate) fn holds(&self, entity: u32) -> bool {
        self.stands.get(&entity).is_some_and(|s| s.open.is_some())
    }

    pub(crate) fn forget(&mut self, entity: u32) {
        self.stands.remove(&entity);
    }

    /// Scores a minute, tells what follows, and learns it. `spoken`: the check of single features has an alarm here.
    pub(crate) fn row(
        &mut self,
        index: u32,
        tenant: &str,
        meta: &EntityMeta,
        row: &FeatureRow,
        spoken: bool,
        out: &mut Effects,
    ) {
        let values = explain::vector(row);
        if !self.config.enabled || values.iter().filter(|v| v.is_finite()).count() < 2 {
            return;
        }
        let most = self.config.entities_max.div_ceil(SHARDS) as usize;
        if !self.stands.contains_key(&index) && self.stands.len() >= most {
            self.refused += 1;
            return;
        }
        let seed = hash128(&[b"forest", tenant.as_bytes(), meta.id.as_str().as_bytes()]) as u64;
        let stand = self.stands.entry(index).or_insert_with(Stand::new);
        let Some(told) = stand.step(&self.config, seed, row.minute.0, &values, spoken, &mut self.scratch) else {
            return;
        };
        let (phase, mut open, verdict) = told;
        let forest = Forest { sample: &stand.sample, columns: stand.sample.columns(), seed };
        let parts = explain::explain(&forest, &values, &verdict, &mut self.scratch);
        if phase != Phase::Closed {
            (open.lead, open.direction) = explain::lead(&parts);
            stand.open = Some(open.clone());
        }
        out.anomalies.push(explain::record(tenant, meta, phase, &open, &verdict, &parts));
    }

    /// Ends alarms of entities that went silent.
    pub(crate) fn roll<'a>(
        &mut self,
        closed: i64,
        entity: impl Fn(u32) -> Option<(&'a str, &'a EntityMeta)>,
        out: &mut Effects,
    ) {
        let silence = i64::from(self.config.relearn_minutes).saturating_mul(MINUTE);
        for (index, stand) in &mut self.stands {
            let silent = stand.open.is_some() && closed.saturating_sub(stand.newest) >= silence;
            if let (true, Some((tenant, meta))) = (silent, entity(*index))
                && let Some(open) = stand.open.take()
            {
                out.anomalies.push(explain::silent(tenant, meta, &open));
            }
        }
    }

    pub(crate) fn put_state(&self, out: &mut Vec<u8>) {
        self.refused.put(out);
        (self.stands.len() as u32).put(out);
        for (index, stand) in &self.stands {
            index.put(out);
            stand.put(out);
        }
    }

    pub(crate) fn take_state(&mut self, from: &mut &[u8]) -> Option<()> {
        self.refused = u64::take(from)?;
        for _ in 0..u32::take(from)? {
            let (index, stand) = <(u32, Stand)>::take(from)?;
            if stand.sample.rows.len() > KEPT || !stand.scores.valid() {
                return None;
            }
            // Switched off since: an alarm that is left over would never end.
            if self.config.enabled {
                self.stands.insert(index, stand);
            }
        }
        Some(())
    }
}

impl Stand {
    fn new() -> Self {
        Self {
            sample: Sample::default(),
            scores: Scores::default(),
            newest: i64::MIN,
            recent: 0,
            settle: 0,
            open: None,
        }
    }

    /// The score of a minute that was not learned yet, where one can be had.
    fn verdict(
        &self,
        config: &ForestConfig,
        seed: u64,
        values: &Row,
        scratch: &mut Scratch,
    ) -> Option<(f64, Option<Verdict>)> {
        if self.sample.rows.len() < SCORED_MIN {
            return None;
        }
        let forest = Forest { sample: &self.sample, columns: self.sample.columns(), seed };
        let isolation = forest.score(values, scratch)?;
        let (usual, threshold) = (self.scores.quantile(0.5), self.scores.quantile(1.0 - config.contamination));
        let verdict = usual.zip(threshold).map(|(usual, threshold)| Verdict {
            isolation,
            threshold,
            usual,
            minutes: self.sample.seen,
        });
        Some((isolation, verdict))
    }

    fn step(
        &mut self,
        config: &ForestConfig,
        seed: u64,
        at: i64,
        values: &Row,
        spoken: bool,
        scratch: &mut Scratch,
    ) -> Option<(Phase, Open, Verdict)> {
        if at <= self.newest {
            return None;
        }
        let passed = if self.newest == i64::MIN { 64 } else { at.saturating_sub(self.newest) / MINUTE };
        self.recent = u32::try_from(passed).ok().and_then(|n| self.recent.checked_shl(n)).unwrap_or(0);
        self.newest = at;
        let scored = self.verdict(config, seed, values, scratch);
        let verdict = scored.as_ref().and_then(|(_, verdict)| *verdict);
        let speaks = self.sample.seen >= u64::from(config.warmup_minutes) && self.settle == 0;
        let odd = verdict.is_some_and(|v| speaks && v.is_odd());
        self.recent |= u64::from(odd);
        let told = verdict.and_then(|v| self.follow(config, at, odd, spoken, v).map(|(phase, open)| (phase, open, v)));
        // What an alarm is about is not normal, until it lasts.
        if self.open.is_none() {
            self.sample.learn(*values, config.window_minutes, self.settle > 0, seed);
            if let Some((isolation, _)) = scored {
                self.scores.add(isolation, config.window_minutes);
            }
            self.settle = self.settle.saturating_sub(1);
        }
        told
    }

    /// What becomes of the alarm.
    fn follow(&mut self, config: &ForestConfig, at: i64, odd: bool, spoken: bool, v: Verdict) -> Option<(Phase, Open)> {
        let most = if spoken { SCORE_SECOND } else { SCORE_MAX };
        let score = score_of(v.ratio() as f32).min(most);
        let Some(mut open) = self.open.take() else {
            let among = (config.open_minutes + OPEN_SLACK).min(63);
            let near = self.recent & ((1 << among) - 1);
            if !odd || near.count_ones() < config.open_minutes {
                return None;
            }
            let oldest = 63 - i64::from(near.leading_zeros());
            let open = Open {
                onset: at.saturating_sub(oldest.saturating_mul(MINUTE)),
                last: at,
                score,
                calm: 0,
                lead: None,
                direction: Direction::None,
            };
            self.open = Some(open.clone());
            return Some((Phase::Open, open));
        };
        if !odd {
            open.calm += 1;
            if open.calm >= config.calm_minutes {
                self.recent = 0;
                return Some((Phase::Closed, open));
            }
            self.open = Some(open);
            return None;
        }
        (open.last, open.calm) = (at, 0);
        if at.saturating_sub(open.onset) >= i64::from(config.relearn_minutes).saturating_mul(MINUTE) {
            (self.settle, self.recent) = (SETTLE, 0);
            self.scores = Scores::default();
            return Some((Phase::Closed, open));
        }
        let worse = open.score < 0.5 && score >= 0.5;
        open.score = open.score.max(score);
        self.open = Some(open.clone());
        worse.then_some((Phase::Update, open))
    }
}
