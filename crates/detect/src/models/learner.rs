//! Fills the summaries from the batches that the detector steps.
//!
//! It must cost next to nothing on the hot path: a bounded number of series is followed (per family, so that a rare
//! family is learned beside a common one), one look-up per series of a batch says whether it is one of them, and of
//! those one reading in `sample_secs` is summed up. What is summed up lies in windows of one day of event time; old
//! windows leave, so what is known is of the recent past. A reading goes to the day it is of, whatever the order of
//! the shards, and one that comes again (a replay after a crash) is not learned twice.

use super::quantile::MAGNITUDE_MIN;
use super::sketch::{FamilyKey, FamilySketch, Form, PHASES, Seen};
use crate::metrics::config::glob;
use crate::sealed::{self, SealError};
use hashbrown::HashTable;
use nightshift_model::batch::{BatchView, MetricColumns, SeriesKind, labels};
use nightshift_model::time::NANOS_PER_SEC;
use nightshift_model::{Timestamp, families};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

const MARK: [u8; 4] = *b"NSML";
const VERSION: u16 = 1;
const DAY_NS: i64 = 86_400 * NANOS_PER_SEC;
const HOUR_NS: i64 = 3_600 * NANOS_PER_SEC;
/// Families of one tenant at most: kinds, families and forms give 522, the rest are metrics with a summary of their own.
pub const FAMILIES_MAX: usize = 2_048;
/// Tenants that are learned; further ones are not.
const TENANTS_MAX: usize = 64;
/// Batches between two looks at series that are not followed, once most are known: finding a family costs a parse.
const DISCOVER_EVERY: u32 = 16;
/// Readings before a distance means anything: the warm-up of the detector's layers.
const WARM: u32 = 30;
/// Readings that mean and spread remember: those of the detector's z-score.
const MEMORY: f64 = 360.0;
/// Readings that the long mean remembers: a week at one in thirty seconds.
const LONG: f64 = 20_160.0;
/// Mean absolute deviation times this is sigma, for the normal distribution: sqrt(pi / 2).
const SIGMA_OF_MAD: f64 = 1.253_314_137_315_500_3;
/// Readings are learned clipped at this many sigmas, as in the detector.
const CLIP: f64 = 3.0;

/// What is learned of families, and how much.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct LearnerConfig {
    /// Whether summaries of families are learned at all.
    pub enabled: bool,
    /// Series that are followed at most, of each tenant (about 150 bytes each).
    #[schemars(range(min = 0, max = 1_000_000))]
    pub series_max: u32,
    /// Of those, series of one family at most, so that common families leave room for rare ones.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub family_series_max: u32,
    /// Of a series, one reading in so many seconds is summed up.
    #[schemars(range(min = 0, max = 3_600))]
    pub sample_secs: u32,
    /// Days that are kept; older ones leave what is known.
    #[schemars(range(min = 1, max = 90))]
    pub window_days: u32,
    /// Metrics with a summary of their own beside their family's; `*` stands for any text.
    pub named: Vec<String>,
}

impl Default for LearnerConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            series_max: 8_192,
            family_series_max: 512,
            sample_secs: 30,
            window_days: 14,
            named: Vec::new(),
        }
    }
}

/// A series that is followed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Track {
    fp: u64,
    /// Index of its family, and of its own summary where it has one.
    family: u32,
    named: Option<u32>,
    kind: SeriesKindSaved,
    /// Day of the newest reading that was summed up, from the epoch.
    day: i64,
    last_ts: i64,
    last_raw: f64,
    /// When a reading was last summed up.
    learned_ts: i64,
    /// The reading before, after conversion.
    before: Option<f64>,
    mu: f64,
    mad: f64,
    long: f64,
    n: u32,
}

/// [`SeriesKind`] as its number.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
struct SeriesKindSaved(u8);

/// The summaries of a day, by the index of the family.
type Window = BTreeMap<u32, FamilySketch>;

/// What is learned of one tenant.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
struct Tenant {
    keys: Vec<FamilyKey>,
    /// Series followed, by family.
    followed: Vec<u32>,
    tracks: Vec<Track>,
    /// By day of event time from the epoch.
    days: BTreeMap<i64, Window>,
    /// Series that found no place. For the status only.
    refused: u64,
}

/// The state that outlives a process.
#[derive(Debug, Serialize, Deserialize)]
struct Saved {
    tenants: BTreeMap<String, Tenant>,
}

/// Learns summaries. One per process.
#[derive(Debug, Default)]
pub struct Learner {
    config: LearnerConfig,
    tenants: BTreeMap<String, Tenant>,
    /// Place of each followed series, by its fingerprint, for each tenant.
    places: BTreeMap<String, HashTable<u32>>,
    /// Batches since the last look at series that are not followed.
    batches: u32,
}

/// What is known of a tenant's families over some days.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Summary {
    /// By family.
    pub families: BTreeMap<FamilyKey, FamilySketch>,
    /// First and last day with readings, as days from the epoch.
    pub days: Option<(i64, i64)>,
}

impl Summary {
    /// Adds another's.
    pub fn merge(&mut self, other: &Self) {
        for (key, sketch) in &other.families {
            self.families.entry(key.clone()).or_default().merge(sketch);
        }
        self.days = match (self.days, other.days) {
            (Some(a), Some(b)) => Some((a.0.min(b.0), a.1.max(b.1))),
            (a, b) => a.or(b),
        };
    }
}

impl Track {
    fn new(fp: u64, family: u32, named: Option<u32>, kind: SeriesKind) -> Self {
        Self {
            fp,
            family,
            named,
            kind: SeriesKindSaved(kind as u8),
            day: i64::MIN,
            last_ts: i64::MIN,
            last_raw: 0.0,
            learned_ts: i64::MIN,
            before: None,
            mu: 0.0,
            mad: 0.0,
            long: 0.0,
            n: 0,
        }
    }

    /// The value after conversion; `None` for what is no reading.
    fn convert(&mut self, at: i64, raw: f64) -> Option<f64> {
        let (then, was) = (self.last_ts, self.last_raw);
        if at <= then || !raw.is_finite() {
            return None;
        }
        (self.last_ts, self.last_raw) = (at, raw);
        let value = match SeriesKind::from_u8(self.kind.0) {
            SeriesKind::Gauge => raw,
            kind => {
                if then == i64::MIN {
                    return None;
                }
                let grown = if kind == SeriesKind::Delta { raw } else { raw - was };
                // It began again: what it gained is not known.
                if grown < 0.0 {
                    return None;
                }
                grown / ((at - then) as f64 / NANOS_PER_SEC as f64)
            }
        };
        (value.is_finite() && value.abs() < 1e30).then_some(value)
    }

    fn sigma(&self) -> f64 {
        SIGMA_OF_MAD * self.mad
    }

    /// What the reading says, judged by what was known before it; then learns it.
    fn see(&mut self, at: i64, value: f64) -> Seen {
        let sigma = self.sigma();
        let warm = self.n >= WARM && sigma > MAGNITUDE_MIN.max(1e-9 * self.mu.abs());
        let seen = Seen {
            value,
            phase: (at.div_euclid(HOUR_NS) + 72).rem_euclid(PHASES as i64) as usize,
            ratio: (self.n >= WARM && self.long.abs() > MAGNITUDE_MIN).then(|| value / self.long),
            distance: warm.then(|| (value - self.mu) / sigma),
            error: self.before.filter(|_| warm).map(|before| (value - before).abs() / sigma),
        };
        self.n = self.n.saturating_add(1);
        let n = f64::from(self.n);
        if self.n == 1 {
            (self.mu, self.long) = (value, value);
        } else {
            let bound = if warm { CLIP * sigma } else { f64::INFINITY };
            let d = (value - self.mu).clamp(-bound, bound);
            let weight = 1.0 / n.min(MEMORY);
            self.mu += weight * d;
            self.mad += weight * (d.abs() - self.mad);
            self.long += (value - self.long) / n.min(LONG);
        }
        self.before = Some(value);
        seen
    }
}

impl Tenant {
    /// The index of a family; `None` where there are too many.
    fn key(&mut self, key: FamilyKey) -> Option<u32> {
        let at = self.keys.iter().position(|k| *k == key).or_else(|| {
            (self.keys.len() < FAMILIES_MAX).then(|| {
                self.keys.push(key);
                self.followed.push(0);
                self.keys.len() - 1
            })
        })?;
        Some(at as u32)
    }

    fn close_day(days: &mut BTreeMap<i64, Window>, track: &Track) {
        if track.n < WARM {
            return;
        }
        if let Some(window) = days.get_mut(&track.day) {
            for family in [Some(track.family), track.named].into_iter().flatten() {
                window.entry(family).or_default().add_series(track.sigma(), track.mu);
            }
        }
    }

    fn learn(&mut self, place: u32, at: i64, raw: f64, config: &LearnerConfig) {
        let Some(track) = self.tracks.get_mut(place as usize) else { return };
        let gap = i64::from(config.sample_secs) * NANOS_PER_SEC;
        let due = track.learned_ts == i64::MIN || at.saturating_sub(track.learned_ts) >= gap;
        let Some(value) = track.convert(at, raw) else { return };
        if !due {
            track.before = Some(value);
            return;
        }
        let day = at.div_euclid(DAY_NS);
        let keep = i64::from(config.window_days.max(1));
        let newest = self.days.last_key_value().map_or(day, |(d, _)| *d);
        if day <= newest - keep {
            return;
        }
        if day != track.day {
            Self::close_day(&mut self.days, track);
            track.day = day;
        }
        if let Entry::Vacant(slot) = self.days.entry(day) {
            slot.insert(Window::new());
            let newest = newest.max(day);
            self.days.retain(|d, _| *d > newest - keep);
        }
        track.learned_ts = at;
        let seen = track.see(at, value);
        if let Some(window) = self.days.get_mut(&day) {
            for family in [Some(track.family), track.named].into_iter().flatten() {
                window.entry(family).or_default().add(&seen);
            }
        }
    }

    fn summary(&self, from: i64, to: i64) -> Summary {
        let mut days: BTreeMap<i64, Window> = self.days.range(from..=to).map(|(d, w)| (*d, w.clone())).collect();
        for track in &self.tracks {
            Self::close_day(&mut days, track);
        }
        let mut out = Summary {
            days: days.first_key_value().zip(days.last_key_value()).map(|((a, _), (b, _))| (*a, *b)),
            ..Summary::default()
        };
        for (family, sketch) in days.values().flatten() {
            if let Some(key) = self.keys.get(*family as usize) {
                out.families.entry(key.clone()).or_default().merge(sketch);
            }
        }
        out
    }
}

impl Learner {
    /// A learner that knows nothing.
    pub fn new(config: LearnerConfig) -> Self {
        Self { config, ..Self::default() }
    }

    /// Learns from a batch that the detector stepped.
    pub fn batch(&mut self, tenant: &str, view: &BatchView<'_>, columns: &MetricColumns) {
        if !self.config.enabled || columns.fingerprint.is_empty() {
            return;
        }
        if !self.tenants.contains_key(tenant) {
            if self.tenants.len() >= TENANTS_MAX {
                return;
            }
            self.tenants.insert(tenant.to_owned(), Tenant::default());
            self.places.insert(tenant.to_owned(), HashTable::new());
        }
        let (Some(known), Some(places)) = (self.tenants.get_mut(tenant), self.places.get_mut(tenant)) else { return };
        self.batches = self.batches.wrapping_add(1);
        let unknown = learn_batch(&self.config, known, places, columns);
        let room = known.tracks.len() < self.config.series_max as usize;
        let look = known.refused == 0 || self.batches.is_multiple_of(DISCOVER_EVERY);
        if unknown && room && look && discover(&self.config, known, places, view, columns) {
            // What was learned already is older than its series' newest reading, and so is not learned twice.
            learn_batch(&self.config, known, places, columns);
        }
    }

    /// Series that are gone make room for others: those not seen for `idle_secs` before the newest reading.
    pub fn sweep(&mut self, idle_secs: u32) {
        for (tenant, known) in &mut self.tenants {
            let newest = known.tracks.iter().map(|t| t.last_ts).max().unwrap_or(i64::MIN);
            let oldest = newest.saturating_sub(i64::from(idle_secs) * NANOS_PER_SEC);
            if known.tracks.iter().all(|t| t.last_ts >= oldest) {
                continue;
            }
            let (gone, kept): (Vec<Track>, Vec<Track>) =
                std::mem::take(&mut known.tracks).into_iter().partition(|t| t.last_ts < oldest);
            for track in &gone {
                Tenant::close_day(&mut known.days, track);
            }
            known.tracks = kept;
            known.refused = 0;
            let places = index(known);
            self.places.insert(tenant.clone(), places);
        }
    }

    /// Tenants of which something is known.
    pub fn tenants(&self) -> impl Iterator<Item = &str> {
        self.tenants.keys().map(String::as_str)
    }

    /// Series that are followed, and how many found no place since the last sweep.
    pub fn series(&self, tenant: &str) -> (usize, u64) {
        self.tenants.get(tenant).map_or((0, 0), |t| (t.tracks.len(), t.refused))
    }

    /// What is known of a tenant's families over all days that are kept.
    pub fn summary(&self, tenant: &str) -> Summary {
        self.summary_of_days(tenant, i64::MIN, i64::MAX)
    }

    /// The same over the days `from..=to` (days from the epoch).
    pub fn summary_of_days(&self, tenant: &str, from: i64, to: i64) -> Summary {
        self.tenants.get(tenant).map(|t| t.summary(from, to)).unwrap_or_default()
    }

    /// The state as bytes.
    pub fn snapshot(&self) -> Vec<u8> {
        sealed::seal(MARK, VERSION, &Saved { tenants: self.tenants.clone() })
    }

    /// The learner that wrote `bytes`, under `config`.
    ///
    /// # Errors
    /// When the bytes are damaged, of another version, or no such state.
    pub fn restore(config: LearnerConfig, bytes: &[u8]) -> Result<Self, SealError> {
        let saved: Saved = sealed::open(MARK, VERSION, bytes)?;
        let mut this = Self::new(config);
        for (name, mut known) in saved.tenants {
            if let Some(what) = broken(&known) {
                return Err(SealError::Content(format!("the {what} of `{name}` are broken")));
            }
            let keep = i64::from(this.config.window_days.max(1));
            let newest = known.days.last_key_value().map_or(0, |(d, _)| *d);
            known.days.retain(|d, _| *d > newest.saturating_sub(keep));
            known.tracks.truncate(this.config.series_max as usize);
            known.refused = 0;
            this.places.insert(name.clone(), index(&mut known));
            this.tenants.insert(name, known);
        }
        Ok(this)
    }
}

/// What is wrong with a tenant that was read, if anything.
fn broken(known: &Tenant) -> Option<&'static str> {
    let families = known.keys.len();
    if families > FAMILIES_MAX || known.followed.len() != families {
        return Some("families");
    }
    let sound = |f: u32| (f as usize) < families;
    if known.tracks.iter().any(|t| !sound(t.family) || t.named.is_some_and(|n| !sound(n))) {
        return Some("series");
    }
    let days = known.days.values().flatten();
    days.into_iter().any(|(f, s)| !sound(*f) || !s.is_sound()).then_some("days")
}

/// The places of a tenant's series; counts the series of each family anew.
fn index(known: &mut Tenant) -> HashTable<u32> {
    known.followed.iter_mut().for_each(|n| *n = 0);
    let mut places = HashTable::with_capacity(known.tracks.len());
    for (i, track) in known.tracks.iter().enumerate() {
        if let Some(n) = known.followed.get_mut(track.family as usize) {
            *n += 1;
        }
        let tracks = &known.tracks;
        places.insert_unique(track.fp, i as u32, |p| tracks.get(*p as usize).map_or(0, |t| t.fp));
    }
    places
}

/// Learns from the series that are followed; whether there were others.
fn learn_batch(config: &LearnerConfig, known: &mut Tenant, places: &HashTable<u32>, columns: &MetricColumns) -> bool {
    let mut unknown = false;
    let mut row = 0usize;
    for (i, fp) in columns.fingerprint.iter().enumerate() {
        let n = columns.rows.get(i).map_or(0, |n| *n as usize);
        let rows = row..row + n;
        row = rows.end;
        let Some(place) = places.find(*fp, |p| known.tracks.get(*p as usize).is_some_and(|t| t.fp == *fp)) else {
            unknown = true;
            continue;
        };
        let (Some(times), Some(values)) = (columns.timestamp.get(rows.clone()), columns.value.get(rows)) else {
            break;
        };
        for (at, value) in times.iter().zip(values) {
            known.learn(*place, *at, *value, config);
        }
    }
    unknown
}

/// Follows the series of a batch that have a place in their family; whether there were any.
fn discover(
    config: &LearnerConfig,
    known: &mut Tenant,
    places: &mut HashTable<u32>,
    view: &BatchView<'_>,
    columns: &MetricColumns,
) -> bool {
    let before = known.tracks.len();
    let is_known = |known: &Tenant, places: &HashTable<u32>, fp: u64| {
        places.find(fp, |p| known.tracks.get(*p as usize).is_some_and(|t| t.fp == fp)).is_some()
    };
    // The detector told of a broken dictionary already; here it teaches nothing.
    let _ = view.for_each_series(|i, wire| {
        let (Some(fp), Some(kind)) = (columns.fingerprint.get(i).copied(), columns.kind.get(i).copied()) else {
            return false;
        };
        if known.tracks.len() >= config.series_max as usize {
            return false;
        }
        if is_known(known, places, fp) {
            return true;
        }
        let Some(meta) = columns.entity.get(i).and_then(|e| view.entity(*e).ok()) else { return true };
        if meta.synthetic {
            return true;
        }
        let metric = labels::metric_name(wire);
        let family = families::reading(metric, |k| labels::get(wire, k)).map(|r| r.family);
        let form = if kind == SeriesKind::Gauge { Form::Level } else { Form::Rate };
        let key = FamilyKey { kind: meta.id.kind(), family, form, metric: None };
        let named = config
            .named
            .iter()
            .any(|g| glob(g, metric))
            .then(|| FamilyKey { metric: Some(metric.to_owned()), ..key.clone() });
        let Some(family) = known.key(key) else {
            known.refused += 1;
            return true;
        };
        let named = named.and_then(|k| known.key(k));
        let followed = known.followed.get_mut(family as usize);
        match followed.filter(|n| **n < config.family_series_max || named.is_some()) {
            Some(n) => *n += 1,
            None => {
                known.refused += 1;
                return true;
            }
        }
        let place = known.tracks.len() as u32;
        known.tracks.push(Track::new(fp, family, named, kind));
        let tracks = &known.tracks;
        places.insert_unique(fp, place, |p| tracks.get(*p as usize).map_or(0, |t| t.fp));
        true
    });
    known.tracks.len() > before
}

/// The day that an instant is in, from the epoch.
pub const fn day_of(at: Timestamp) -> i64 {
    at.0.div_euclid(DAY_NS)
}

/// The first instant of a day.
pub const fn day_start(day: i64) -> Timestamp {
    Timestamp(day.saturating_mul(DAY_NS))
}

#[cfg(test)]
mod tests;
