//! Log anomalies of one shard: new, bursting and vanished templates, critical lines, error rates.

use super::config::LogConfig;
use super::critical::{Matcher, PatternError};
use super::entity::{Entity, Line, Pen, Say, minute_of, short};
use super::miner::{SavedMiner, TemplateId, TemplateMiner};
use crate::sealed::{self, SealError};
use nightshift_model::batch::{BatchError, BatchView};
use nightshift_model::time::NANOS_PER_SEC;
use nightshift_model::{Anomaly, Direction, EntityMeta, Timestamp};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashSet};
use std::hash::{BuildHasherDefault, Hasher};

/// Lines older than this are counted and not scored.
const LATE_MAX: i64 = 3600 * NANOS_PER_SEC;
/// A line from further in the future than this is taken as of now: a clock is wrong.
const AHEAD_MAX: i64 = 120 * NANOS_PER_SEC;
/// How long after its end a minute waits for late lines when no newer line closes it.
const GRACE_MINUTES: i64 = 2;
/// An entity that was silent for so long leaves.
const IDLE_MINUTES: i64 = 24 * 60;

/// Counters of one call, or of all calls.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogStats {
    /// Lines scored.
    pub lines: u64,
    /// Lines that were delivered before.
    pub duplicates: u64,
    /// Lines too old to be scored.
    pub late: u64,
    /// Lines that could not be decoded, or name no entity.
    pub bad: u64,
    /// Lines from the future, taken as of now.
    pub ahead: u64,
    /// Critical lines.
    pub critical: u64,
    /// Templates made.
    pub templates: u64,
    /// Entities that left because there were too many.
    pub entities_evicted: u64,
}

impl LogStats {
    /// Adds the counters of `other`.
    pub const fn add(&mut self, other: &Self) {
        self.lines += other.lines;
        self.duplicates += other.duplicates;
        self.late += other.late;
        self.bad += other.bad;
        self.ahead += other.ahead;
        self.critical += other.critical;
        self.templates += other.templates;
        self.entities_evicted += other.entities_evicted;
    }
}

type Fingerprints = HashSet<u64, BuildHasherDefault<Mixed>>;

/// Fingerprints come from outside and may be counters: one multiplication spreads them.
#[derive(Debug, Clone, Copy, Default)]
struct Mixed(u64);

impl Hasher for Mixed {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, _: &[u8]) {}
    fn write_u64(&mut self, v: u64) {
        let x = u128::from(v ^ 0x9e37_79b9_7f4a_7c15) * 0xe703_7ed1_a0b4_28db_u128;
        self.0 = (x >> 64) as u64 ^ x as u64;
    }
}

/// Fingerprints of lines seen lately: two generations, the older one goes when the younger is full.
#[derive(Debug, Clone, Default)]
struct Recent {
    young: Fingerprints,
    old: Fingerprints,
    half: usize,
}

impl Recent {
    /// Whether `fingerprint` was not seen lately.
    fn is_first(&mut self, fingerprint: u64) -> bool {
        if self.half == 0 || fingerprint == 0 {
            return true;
        }
        if self.old.contains(&fingerprint) || !self.young.insert(fingerprint) {
            return false;
        }
        if self.young.len() >= self.half {
            self.old = std::mem::take(&mut self.young);
        }
        true
    }
}

#[derive(Debug, Clone)]
struct Tenant {
    miner: TemplateMiner,
    entities: BTreeMap<String, Entity>,
    recent: Recent,
}

/// The log detector of one shard.
#[derive(Debug, Clone)]
pub struct LogDetector {
    config: LogConfig,
    matcher: Matcher,
    tenants: BTreeMap<String, Tenant>,
    stats: LogStats,
}

/// Why a log detector could not be made or restored.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// A pattern of the configuration.
    #[error("read critical patterns")]
    Pattern(#[from] PatternError),
    /// The snapshot.
    #[error("restore log detector")]
    Snapshot(#[from] SealError),
}

#[derive(Serialize, Deserialize)]
struct SavedTenant {
    miner: SavedMiner,
    entities: BTreeMap<String, Entity>,
    recent: [Vec<u64>; 2],
}

#[derive(Serialize, Deserialize)]
struct Saved {
    tenants: BTreeMap<String, SavedTenant>,
    stats: LogStats,
}

const MAGIC: [u8; 4] = *b"NSLG";
const VERSION: u16 = 1;

impl LogDetector {
    /// A detector that knows nothing.
    ///
    /// # Errors
    /// When a pattern of the configuration cannot be used.
    pub fn new(config: LogConfig) -> Result<Self, LogError> {
        let matcher = Matcher::new(config.builtin_patterns, &config.patterns)?;
        Ok(Self { config, matcher, tenants: BTreeMap::new(), stats: LogStats::default() })
    }

    /// Scores and learns the log lines of a batch. Appends the anomalies that opened, changed or ended, in order.
    pub fn step(&mut self, tenant: &str, batch: &BatchView<'_>, now: Timestamp, out: &mut Vec<Anomaly>) -> LogStats {
        let mut stats = LogStats::default();
        if batch.n_logs() == 0 {
            return stats;
        }
        let Self { config, matcher, tenants, stats: total } = self;
        if !tenants.contains_key(tenant) {
            let half = config.dedup_lines_max / 2;
            let fresh = Tenant {
                miner: TemplateMiner::new(config.miner.clone()),
                entities: BTreeMap::new(),
                recent: Recent { half, ..Recent::default() },
            };
            tenants.insert(tenant.to_owned(), fresh);
        }
        let Some(state) = tenants.get_mut(tenant) else { return stats };
        let mut metas: Vec<Option<Result<EntityMeta, BatchError>>> = vec![None; batch.n_entities()];
        for line in batch.logs() {
            let Ok(line) = line else {
                stats.bad += 1;
                continue;
            };
            let Some(slot) = metas.get_mut(line.entity as usize) else {
                stats.bad += 1;
                continue;
            };
            let Ok(meta) = slot.get_or_insert_with(|| batch.entity(line.entity)) else {
                stats.bad += 1;
                continue;
            };
            if line.time_ns < now.0.saturating_sub(LATE_MAX) {
                stats.late += 1;
                continue;
            }
            if !state.recent.is_first(line.fingerprint) {
                stats.duplicates += 1;
                continue;
            }
            let mut at = Timestamp(line.time_ns);
            if line.time_ns > now.0.saturating_add(AHEAD_MAX) {
                stats.ahead += 1;
                at = now;
            }
            stats.lines += 1;
            let learned = state.miner.learn(&line.body);
            stats.templates += u64::from(learned.is_new);
            let joins = state.miner.take_joins();
            for (from, into) in joins {
                for entity in state.entities.values_mut() {
                    entity.join(from, into);
                }
            }
            let key = key_of(meta);
            let entity = if let Some(e) = state.entities.get_mut(key.as_ref()) {
                e
            } else {
                if state.entities.len() >= config.entities_max.max(1) {
                    stats.entities_evicted += u64::from(evict(&mut state.entities));
                }
                state.entities.entry(key.into_owned()).or_insert_with(|| Entity::new(meta.clone(), batch.source(), at))
            };
            if entity.meta != *meta {
                entity.meta.clone_from(meta);
            }
            let critical = matcher.find(&line.body, line.severity).map(|c| {
                stats.critical += 1;
                let what = c.pattern.map_or_else(|| "a line of level FATAL".to_owned(), |p| format!("`{p}`"));
                Say {
                    score: c.score,
                    fault: c.fault,
                    direction: Direction::None,
                    description: format!("{} logged {what}: {}", meta.id.name(), short(&line.body)),
                    observed: Some(1.0),
                    expected: Some(0.0),
                    upper: None,
                    sigma: None,
                }
            });
            let miner = &state.miner;
            let mut pen = Pen { config, tenant, source: batch.source(), text: &|id| text_of(miner, id), out };
            let seen =
                Line { at, severity: line.severity, template: learned.id, sample: &line.body, is_new: learned.is_new };
            entity.line(seen, critical, &mut pen);
        }
        total.add(&stats);
        stats
    }

    /// Moves on to `now`: ends minutes that no line will end, closes what is over. Call every few seconds, with the
    /// time that the data is at (the wall clock when live).
    pub fn tick(&mut self, now: Timestamp, out: &mut Vec<Anomaly>) {
        let minute = minute_of(now) - GRACE_MINUTES;
        let Self { config, tenants, .. } = self;
        for (tenant, state) in tenants {
            let miner = &state.miner;
            for entity in state.entities.values_mut() {
                let mut pen = Pen { config, tenant, source: "", text: &|id| text_of(miner, id), out };
                entity.close_minutes(minute, &mut pen);
                entity.expire(now, &mut pen);
            }
            state.entities.retain(|_, e| e.open_count() > 0 || !e.idle_since(minute, IDLE_MINUTES));
        }
    }

    /// Counters since it was made.
    pub const fn stats(&self) -> LogStats {
        self.stats
    }

    /// Live templates of all tenants.
    pub fn templates(&self) -> usize {
        self.tenants.values().map(|t| t.miner.len()).sum()
    }

    /// Entities of all tenants.
    pub fn entities(&self) -> usize {
        self.tenants.values().map(|t| t.entities.len()).sum()
    }

    /// New templates that were not told because there were too many.
    pub fn suppressed(&self) -> u64 {
        self.tenants.values().flat_map(|t| t.entities.values()).map(|e| e.suppressed).sum()
    }

    /// Text of a template of a tenant.
    pub fn template(&self, tenant: &str, id: TemplateId) -> Option<String> {
        self.tenants.get(tenant)?.miner.text(id)
    }

    /// State as bytes: version, checksum, content. The same state gives the same bytes.
    pub fn snapshot(&self) -> Vec<u8> {
        let sorted = |set: &Fingerprints| {
            let mut v: Vec<u64> = set.iter().copied().collect();
            v.sort_unstable();
            v
        };
        let tenants = self.tenants.iter().map(|(name, t)| {
            let recent = [sorted(&t.recent.old), sorted(&t.recent.young)];
            (name.clone(), SavedTenant { miner: t.miner.save(), entities: t.entities.clone(), recent })
        });
        sealed::seal(MAGIC, VERSION, &Saved { tenants: tenants.collect(), stats: self.stats })
    }

    /// Takes the state from a snapshot; the configuration stays. On an error nothing changes.
    ///
    /// # Errors
    /// When the bytes are no snapshot of this version, or damaged.
    pub fn restore(&mut self, bytes: &[u8]) -> Result<(), LogError> {
        let saved: Saved = sealed::open(MAGIC, VERSION, bytes)?;
        let half = self.config.dedup_lines_max / 2;
        self.stats = saved.stats;
        self.tenants = saved
            .tenants
            .into_iter()
            .map(|(name, t)| {
                let [old, young] = t.recent.map(|v| v.into_iter().collect());
                let state = Tenant {
                    miner: TemplateMiner::load(self.config.miner.clone(), t.miner),
                    entities: t.entities,
                    recent: Recent { young, old, half },
                };
                (name, state)
            })
            .collect();
        Ok(())
    }
}

fn text_of(miner: &TemplateMiner, id: TemplateId) -> String {
    miner.text(id).unwrap_or_else(|| "other lines".to_owned())
}

/// An entity's key. What a test injected is kept apart, so that it teaches nothing.
fn key_of(meta: &EntityMeta) -> std::borrow::Cow<'_, str> {
    if meta.synthetic { format!("{}\u{1f}synthetic", meta.id.as_str()).into() } else { meta.id.as_str().into() }
}

/// Drops the entity that was silent for longest and has nothing open; true when there was one.
fn evict(entities: &mut BTreeMap<String, Entity>) -> bool {
    let oldest =
        entities.iter().min_by_key(|(_, e)| (e.open_count() > 0, e.newest_minute())).map(|(key, _)| key.clone());
    oldest.is_some_and(|key| entities.remove(&key).is_some())
}

/// For the fuzzer: `bytes` are read as lines of one entity, a second apart.
#[doc(hidden)]
pub fn fuzz_log_line(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let mut miner = TemplateMiner::new(super::MinerConfig { templates_max: 64, ..Default::default() });
    for line in text.lines() {
        let learned = miner.learn(line);
        assert!(miner.text(learned.id).is_some(), "a template just learned has a text");
        let again = miner.learn(line);
        assert_eq!(miner.resolve(learned.id), again.id, "the same line twice is the same template");
        assert!(super::redact::redact(line).len() <= super::redact::SAMPLE_BYTES_MAX);
        let _ = super::header::split(line);
    }
    let saved = miner.save();
    let loaded = TemplateMiner::load(super::MinerConfig { templates_max: 64, ..Default::default() }, saved);
    assert_eq!(loaded.len(), miner.len());
}
