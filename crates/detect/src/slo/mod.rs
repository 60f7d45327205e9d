//! Error budgets that burn too fast, over several windows at once.
//!
//! Lives here: the objectives that a shard was told of, the minutes of each in a ring, the rates of burn over a long
//! and a short window, and the life of an alarm. What of a minute counts as bad is `nightshift_model::slo`, shared with
//! the guard, which counts what is left. Never here: where objectives come from (the topology; the caller tells).
//!
//! A rate of 1 spends exactly the budget in the window of the objective; 14.4 over an hour spends 2 % of a month's.
//! Both windows must agree: the long one, so that a moment pages nobody, the short one, so that what is over is not
//! told for hours. Source: the multi-window, multi-burn-rate alerts of the Google SRE Workbook (2018), ch. 5.
//!
//! No data is not "no errors": a rate is over the events that were seen, and minutes that nobody saw end no alarm.

mod rate;
mod record;
#[cfg(test)]
mod tests;

use crate::features::FeatureRow;
use crate::metrics::{Effects, ShardDetector, Wire, wire_struct};
use nightshift_model::slo::{Indicator, MinuteOf, Slo, Tally, TallyRing};
use nightshift_model::{Anomaly, EntityId, EntityMeta, Phase, Severity, Timestamp};
use rate::{Rates, rates};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Minutes that are kept of an objective: three days. 32 bytes each, and only those that were told.
const KEPT_MINUTES: i64 = 3 * 24 * 60;
/// Rows in a row that are older than all that is kept, after which the clock is taken to have been wrong before.
const STEPPED_ROWS: u32 = 5;
/// Minutes after which an alarm that goes on is told again, so that nobody takes it for forgotten.
const TOLD_MINUTES: i64 = 6 * 60;

/// A rate of burn, over two windows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct BurnRule {
    /// How many times faster than allowed.
    #[schemars(range(min = 0.1, max = 1000.0))]
    pub rate: f64,
    /// The long window, minutes.
    #[schemars(range(min = 1, max = 4_320))]
    pub long_minutes: u32,
    /// The short window, minutes: it ends the alarm.
    #[schemars(range(min = 1, max = 4_320))]
    pub short_minutes: u32,
    /// How bad it is.
    pub severity: Severity,
}

/// Error budgets that burn too fast. Objectives come from the topology.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct BurnConfig {
    /// Whether it is told.
    pub enabled: bool,
    /// Rates and windows; the worst that holds makes the severity. At most eight are used.
    pub rules: Vec<BurnRule>,
    /// Fewest bad events in the long window: one failure of fifty requests is 20 times too many and says nothing.
    #[schemars(range(min = 1.0, max = 1_000_000.0))]
    pub bad_min: f64,
    /// Share of failed requests from which a minute counts as down, for objectives whose indicator is `uptime`.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub down_ratio: f64,
    /// Objectives of a shard that are counted at most (135 KiB each, after three days).
    #[schemars(range(min = 0, max = 100_000))]
    pub objectives_max: u32,
}

impl Default for BurnConfig {
    fn default() -> Self {
        let rule =
            |rate, long_minutes, short_minutes, severity| BurnRule { rate, long_minutes, short_minutes, severity };
        Self {
            enabled: true,
            rules: vec![
                rule(14.4, 60, 5, Severity::Critical),
                rule(6.0, 360, 30, Severity::High),
                rule(1.0, 4_320, 360, Severity::Medium),
            ],
            // At the rate that is allowed, five or more where 14.4 times too many would be needed are seen once in
            // 28,000 hours (Poisson, mean 5 / 14.4).
            bad_min: 5.0,
            down_ratio: 0.05,
            objectives_max: 1_000,
        }
    }
}

impl BurnConfig {
    /// Rules in use: at most eight, so that a bit each says which of them holds.
    fn rules(&self) -> impl Iterator<Item = (usize, &BurnRule)> {
        self.rules.iter().take(8).enumerate()
    }
}

/// Objectives by tenant and entity, as the topology declares them.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Objectives {
    tenants: BTreeMap<String, BTreeMap<EntityId, Vec<Slo>>>,
}

impl Objectives {
    /// Sets those of a tenant; what it had before is gone.
    pub fn set(&mut self, tenant: &str, objectives: BTreeMap<EntityId, Vec<Slo>>) {
        self.tenants.insert(tenant.to_owned(), objectives);
    }

    /// Those of an entity.
    pub fn of(&self, tenant: &str, entity: &EntityId) -> &[Slo] {
        self.tenants.get(tenant).and_then(|t| t.get(entity)).map_or(&[], Vec::as_slice)
    }

    /// Whether nobody has any.
    pub fn is_empty(&self) -> bool {
        self.tenants.values().all(BTreeMap::is_empty)
    }
}

/// An alarm that is open.
#[derive(Debug, Clone, PartialEq)]
struct Open {
    onset: i64,
    /// Newest minute in which a rule held.
    last: i64,
    told: i64,
    severity: u8,
    /// Rules that hold, a bit each.
    rules: u8,
}

wire_struct!(Open { onset, last, told, severity, rules });

/// One objective of one entity.
#[derive(Debug, Clone, PartialEq)]
struct Track {
    slo: Slo,
    ring: TallyRing,
    /// Rows in a row that were older than all that is kept.
    stepped: u32,
    open: Option<Open>,
}

/// What happened to an alarm, for [`record`].
struct Event<'a> {
    phase: Phase,
    open: &'a Open,
    rates: Rates,
    rule: &'a BurnRule,
    why: &'static str,
}

impl Track {
    fn new(slo: Slo) -> Self {
        Self { slo, ring: TallyRing::new(1), stepped: 0, open: None }
    }

    /// Counts a minute, in its place. Whether anything is new.
    fn observe(&mut self, at: Timestamp, tally: Tally) -> bool {
        let slot = self.ring.slot(at);
        if self.ring.newest().is_some_and(|newest| newest.saturating_sub(slot) >= KEPT_MINUTES) {
            // Far behind what was seen before: now and then a straggler, again and again a clock that was ahead.
            self.stepped += 1;
            if self.stepped < STEPPED_ROWS {
                return false;
            }
            self.ring = TallyRing::new(1);
        }
        self.stepped = 0;
        self.ring.observe(at, tally, KEPT_MINUTES)
    }

    /// Looks at the windows that end with the minute `slot`, and says what becomes of the alarm.
    fn judge(&mut self, config: &BurnConfig, slot: i64, tell: &mut dyn FnMut(&Slo, &Event<'_>)) {
        let budget = self.slo.budget_ratio();
        if budget <= 0.0 {
            return;
        }
        let held = self.open.as_ref().map_or(0, |o| o.rules);
        let mut holds = 0u8;
        let mut worst: Option<(&BurnRule, Rates)> = None;
        let mut ended: Option<(&BurnRule, Rates, &'static str)> = None;
        for (bit, rule) in config.rules() {
            let r = rates(&self.ring, slot, rule, budget);
            let was = held & (1 << bit) != 0;
            let goes_on = if was {
                // The short window ends it; what nobody saw does not, unless nothing is left of the long one either.
                r.short.is_none_or(|short| short >= rule.rate) && (r.short.is_some() || r.long_sums.tally.bad > 0.0)
            } else {
                r.long.is_some_and(|long| long >= rule.rate)
                    && r.short.is_some_and(|short| short >= rule.rate)
                    && r.long_sums.tally.bad >= config.bad_min
            };
            if goes_on {
                holds |= 1 << bit;
                if worst.is_none_or(|(w, _)| rule.severity > w.severity) {
                    worst = Some((rule, r));
                }
            } else if was && ended.is_none_or(|(w, ..)| rule.severity > w.severity) {
                let why =
                    if r.short.is_none() { "nothing is seen of it any more" } else { "the short window recovered" };
                ended = Some((rule, r, why));
            }
        }
        let minute = slot.saturating_mul(60 * nightshift_model::time::NANOS_PER_SEC);
        match (worst, self.open.take()) {
            (Some((rule, rates)), None) => {
                let onset = rate::began(&self.ring, slot, rule, budget);
                let open = Open {
                    onset: onset.saturating_mul(60 * nightshift_model::time::NANOS_PER_SEC),
                    last: minute,
                    told: slot,
                    severity: rule.severity as u8,
                    rules: holds,
                };
                tell(&self.slo, &Event { phase: Phase::Open, open: &open, rates, rule, why: "" });
                self.open = Some(open);
            }
            (Some((rule, rates)), Some(mut open)) => {
                open.rules = holds;
                if rates.short.is_some() {
                    open.last = open.last.max(minute);
                }
                let worse = rule.severity as u8 > open.severity;
                open.severity = open.severity.max(rule.severity as u8);
                if worse || rates.short.is_some() && slot.saturating_sub(open.told) >= TOLD_MINUTES {
                    open.told = slot;
                    tell(&self.slo, &Event { phase: Phase::Update, open: &open, rates, rule, why: "" });
                }
                self.open = Some(open);
            }
            (None, Some(open)) => {
                if let Some((rule, rates, why)) = ended {
                    tell(&self.slo, &Event { phase: Phase::Closed, open: &open, rates, rule, why });
                }
            }
            (None, None) => {}
        }
    }
}

/// Burn of the objectives of a shard.
#[derive(Debug, Clone)]
pub(crate) struct Burns {
    config: BurnConfig,
    /// `None`: nobody told yet; what a snapshot brought is kept.
    objectives: Option<Arc<Objectives>>,
    tracks: BTreeMap<u32, Vec<Track>>,
    /// Objectives that were not taken because there are too many.
    refused: u64,
}

impl Burns {
    pub(crate) const fn new(config: BurnConfig) -> Self {
        Self { config, objectives: None, tracks: BTreeMap::new(), refused: 0 }
    }

    pub(crate) fn bytes(&self) -> usize {
        let track =
            |t: &Track| size_of::<Track>() + t.ring.buckets().len() * 40 + t.slo.name.len() + t.slo.indicator.len();
        self.tracks.values().flatten().map(track).sum()
    }

    /// Whether something is counted of the entity: three days are not forgotten because of a silent hour.
    pub(crate) fn holds(&self, entity: u32) -> bool {
        self.tracks.contains_key(&entity)
    }

    /// Follows new objectives. Those that stay the same keep their minutes; those that go end their alarms.
    pub(crate) fn set<'a>(
        &mut self,
        objectives: Arc<Objectives>,
        entity: impl Fn(u32) -> Option<(&'a str, &'a EntityMeta)>,
        out: &mut Vec<Anomaly>,
    ) {
        if self.objectives.as_ref().is_some_and(|old| **old == *objectives) {
            return;
        }
        for (index, tracks) in &mut self.tracks {
            let of = entity(*index);
            let declared = of.map_or(&[][..], |(tenant, meta)| objectives.of(tenant, &meta.id));
            tracks.retain(|track| {
                let stays = declared.contains(&track.slo);
                if let (false, Some(open), Some((tenant, meta))) = (stays, &track.open, of) {
                    let rule = self.config.rules().map(|(_, r)| r).find(|r| r.severity as u8 == open.severity);
                    if let Some(rule) = rule {
                        let slot = track.ring.newest().unwrap_or_default();
                        let rates = rates(&track.ring, slot, rule, track.slo.budget_ratio());
                        let why = "the objective was taken back";
                        let event = Event { phase: Phase::Closed, open, rates, rule, why };
                        out.push(record::record(tenant, meta, &track.slo, &event));
                    }
                }
                stays
            });
        }
        self.tracks.retain(|_, tracks| !tracks.is_empty());
        self.objectives = Some(objectives);
    }

    /// Takes in a minute that closed.
    pub(crate) fn row(&mut self, index: u32, tenant: &str, meta: &EntityMeta, row: &FeatureRow, out: &mut Effects) {
        if !self.config.enabled {
            return;
        }
        if let Some(objectives) = &self.objectives {
            let declared = objectives.of(tenant, &meta.id);
            if declared.is_empty() {
                return;
            }
            let total: usize = self.tracks.values().map(Vec::len).sum();
            let tracks = self.tracks.entry(index).or_default();
            let mut free = (self.config.objectives_max as usize).saturating_sub(total);
            for slo in declared {
                if Indicator::of(&slo.indicator) == Indicator::Other || tracks.iter().any(|t| t.slo == *slo) {
                    continue;
                }
                if free == 0 {
                    self.refused += 1;
                    continue;
                }
                free -= 1;
                tracks.push(Track::new(slo.clone()));
            }
            if tracks.is_empty() {
                self.tracks.remove(&index);
                return;
            }
        }
        let Some(tracks) = self.tracks.get_mut(&index) else { return };
        let minute = row.minute_of();
        for track in tracks {
            let Some(tally) = Indicator::of(&track.slo.indicator).count(&minute, self.config.down_ratio) else {
                continue;
            };
            if track.observe(row.minute, tally) {
                let newest = track.ring.newest().unwrap_or_default();
                let mut tell =
                    |slo: &Slo, event: &Event<'_>| out.anomalies.push(record::record(tenant, meta, slo, event));
                track.judge(&self.config, newest, &mut tell);
            }
        }
    }

    /// Moves the windows of open alarms to the newest minute of the shard: an entity that went silent has no rows.
    pub(crate) fn roll<'a>(
        &mut self,
        closed: i64,
        entity: impl Fn(u32) -> Option<(&'a str, &'a EntityMeta)>,
        out: &mut Effects,
    ) {
        for (index, tracks) in &mut self.tracks {
            for track in tracks.iter_mut().filter(|t| t.open.is_some()) {
                let slot = track.ring.slot(Timestamp(closed));
                let Some((tenant, meta)) = entity(*index).filter(|_| track.ring.newest().is_some_and(|n| n < slot))
                else {
                    continue;
                };
                let mut tell =
                    |slo: &Slo, event: &Event<'_>| out.anomalies.push(record::record(tenant, meta, slo, event));
                track.judge(&self.config, slot, &mut tell);
            }
        }
    }

    pub(crate) fn put_state(&self, out: &mut Vec<u8>) {
        self.refused.put(out);
        (self.tracks.len() as u32).put(out);
        for (index, tracks) in &self.tracks {
            index.put(out);
            (tracks.len() as u32).put(out);
            tracks.iter().for_each(|t| t.put(out));
        }
    }

    pub(crate) fn take_state(&mut self, from: &mut &[u8]) -> Option<()> {
        self.refused = u64::take(from)?;
        for _ in 0..u32::take(from)? {
            let index = u32::take(from)?;
            let tracks = Vec::<Track>::take(from)?;
            // Switched off since: what is left over would never end.
            if self.config.enabled {
                self.tracks.insert(index, tracks);
            }
        }
        Some(())
    }
}

impl Wire for Track {
    fn put(&self, out: &mut Vec<u8>) {
        self.slo.name.put(out);
        self.slo.objective.put(out);
        self.slo.window_secs.put(out);
        self.slo.indicator.put(out);
        self.stepped.put(out);
        self.open.put(out);
        (self.ring.buckets().len() as u32).put(out);
        for b in self.ring.buckets() {
            (b.at, (b.total, b.bad)).put(out);
        }
    }
    fn take(from: &mut &[u8]) -> Option<Self> {
        let (name, objective) = (String::take(from)?, f64::take(from)?);
        let (window_secs, indicator) = (u64::take(from)?, String::take(from)?);
        let mut track = Self::new(Slo { name, objective, window_secs, indicator });
        track.stepped = u32::take(from)?;
        track.open = <Option<Open> as Wire>::take(from)?;
        let minutes = Vec::<(i64, (f64, f64))>::take(from)?;
        if minutes.len() > KEPT_MINUTES as usize || !track.slo.objective.is_finite() {
            return None;
        }
        for (at, (total, bad)) in minutes {
            let at = at.checked_mul(60)?.checked_mul(nightshift_model::time::NANOS_PER_SEC)?;
            if !total.is_finite()
                || !bad.is_finite()
                || !track.ring.observe(Timestamp(at), Tally { total, bad }, KEPT_MINUTES)
            {
                return None;
            }
        }
        Some(track)
    }
}

impl FeatureRow {
    /// What objectives count of it: the service's own rate where it has one, else its spans.
    pub fn minute_of(&self) -> MinuteOf {
        let requests =
            self.request_rate.map(|rate| rate * 60.0).or((self.requests > 0).then_some(self.requests as f64));
        // No requests, no errors; requests of which nobody says how many failed are another matter.
        let errors = requests.and_then(|n| self.error_ratio.map(|ratio| n * ratio).or((n == 0.0).then_some(0.0)));
        MinuteOf {
            requests,
            errors,
            mean_ms: self.latency_mean_ms,
            p95_ms: self.latency_p95_ms,
            p99_ms: self.latency_p99_ms,
        }
    }
}

impl ShardDetector {
    /// Tells which objectives hold from now on; those that go end their alarms, which are added to `out`. They are not
    /// part of a snapshot: tell them after a restart. Until then those of the snapshot are followed.
    pub fn set_objectives(&mut self, objectives: Arc<Objectives>, out: &mut Vec<Anomaly>) {
        let entities = &self.entities;
        let entity = |i: u32| entities.get(i as usize).map(|e| (&*e.tenant, &e.meta));
        self.features.burns.set(objectives, entity, out);
    }
}
