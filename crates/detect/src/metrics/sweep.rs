//! What time alone brings to a shard: series that stop, series and entities that leave.

use super::engine::Layer;
use super::hot::{ABSENT, NO_COLD, USED};
use super::judge::{Alarm, AlarmKind, Transition};
use super::names::Names;
use super::shard::{Effects, Origin, ShardDetector, id_hash};
use nightshift_model::time::NANOS_PER_SEC;
use nightshift_model::{Direction, Phase, Timestamp};
use std::sync::atomic::Ordering;

/// Time between two looks for series that stopped.
const SWEEP_NS: i64 = 30 * NANOS_PER_SEC;
/// Score of a series that stopped.
const ABSENCE_SCORE: f64 = 0.6;

impl ShardDetector {
    /// What time alone brings: minutes of features that end, series that stopped or left. Call it every few seconds.
    ///
    /// A source's clock is its newest event time, carried on by `now` while it is silent.
    pub fn tick(&mut self, now: Timestamp, out: &mut Effects) {
        let entities = &self.entities;
        self.features.close(|i| entities.get(i as usize).map(|e| (&*e.tenant, &e.meta)), out);
        if now.0 < self.next_sweep {
            return;
        }
        self.next_sweep = now.0.saturating_add(SWEEP_NS);
        let idle = self.engine.tuned.idle_ns;
        let carried = |o: &Origin| o.watermark.saturating_add(now.0.saturating_sub(o.last_now).max(0));
        let mut silent = Vec::new();
        let mut gone = Vec::new();
        for (slot, hot) in self.hot.iter().enumerate() {
            if !hot.is(USED) {
                continue;
            }
            let origin = &self.origins[usize::from(self.metas[slot].origin)];
            if carried(origin).saturating_sub(hot.last_ts) > idle {
                gone.push(slot as u32);
            } else if self.engine.tuned.absence && !hot.is(ABSENT) && hot.n >= self.engine.config.warmup_points {
                let config = &self.engine.config.absence;
                let wait =
                    (f64::from(hot.interval) * f64::from(config.intervals)).max(f64::from(config.silence_min_secs));
                // By the source's own newest sample: a source that is silent as a whole says nothing of its series.
                let quiet = origin.watermark.saturating_sub(hot.last_ts);
                if quiet as f64 > wait * NANOS_PER_SEC as f64 {
                    silent.push((slot as u32, quiet));
                }
            }
        }
        // By fingerprint: slots depend on history, records must not.
        silent.sort_unstable_by_key(|(s, _)| self.hot[*s as usize].fp);
        gone.sort_unstable_by_key(|s| self.hot[*s as usize].fp);
        for (slot, quiet) in silent {
            self.absent(slot as usize, quiet, out);
        }
        for slot in gone {
            self.forget(slot as usize, out);
        }
        self.forget_entities();
        if self.names.n_lists() > 1_024 + 2 * self.labels_live {
            self.compact_names();
        }
    }

    fn absent(&mut self, slot: usize, quiet: i64, out: &mut Effects) {
        let hot = &mut self.hot[slot];
        hot.set(ABSENT, true);
        let policy = &self.policies[usize::from(hot.policy)];
        let alarm = Alarm {
            onset: hot.last_ts,
            last: hot.last_ts,
            calm_since: hot.last_ts,
            score: ABSENCE_SCORE.min(policy.cap),
            direction: Direction::Flat,
            layer: Layer::Absence,
            value: hot.last_raw,
            expected: hot.mu,
            scale: f64::NAN,
            distance: f32::NAN,
            threshold: f32::NAN,
            ratio: f32::NAN,
            z: 0.0,
            forecast: 0.0,
            chart: 0.0,
            points: hot.n,
            samples: 0,
            mean: 0.0,
            mad: 0.0,
            eta_secs: quiet as f64 / NANOS_PER_SEC as f64,
            limit: f64::NAN,
            evidence: f32::NAN,
            witness: super::ensemble::Witness::High,
            relearned: false,
        };
        self.engine.alarms.insert((hot.fp, AlarmKind::Absence), alarm);
        self.tell(slot, &[Transition { kind: AlarmKind::Absence, phase: Phase::Open, alarm }], out);
    }

    fn forget(&mut self, slot: usize, out: &mut Effects) {
        let ended = self.engine.end_all(&mut self.hot[slot]);
        self.tell(slot, &ended, out);
        let hot = &mut self.hot[slot];
        let fp = hot.fp;
        self.engine.reset(hot);
        hot.flags = 0;
        debug_assert_eq!(hot.cold, NO_COLD);
        if let Ok(entry) = self.table.find_entry(fp, |s| *s as usize == slot) {
            entry.remove();
        }
        let meta = self.metas[slot];
        self.labels_live -= meta.labels.len();
        self.entities[meta.entity as usize].series -= 1;
        let origin = &mut self.origins[usize::from(meta.origin)];
        origin.series -= 1;
        origin.live.fetch_sub(1, Ordering::Relaxed);
        self.free.push(slot as u32);
    }

    /// Entities without series and features leave, too.
    fn forget_entities(&mut self) {
        let newest = self.origins.iter().map(|o| o.watermark).max().unwrap_or(i64::MIN);
        let idle = self.engine.tuned.idle_ns;
        for index in 0..self.entities.len() {
            let entity = &mut self.entities[index];
            if !entity.used || entity.series > 0 || newest.saturating_sub(entity.last) <= idle {
                continue;
            }
            if self.features.holds(index as u32) {
                continue;
            }
            entity.used = false;
            self.entity_by_raw.remove(&entity.raw);
            self.entity_by_id.remove(&id_hash(&entity.tenant, entity.meta.id.as_str()));
            self.features.forget(index as u32);
            self.entities_free.push(index as u32);
        }
    }

    /// Writes the names of live series anew: those of series that left are half of them by now.
    fn compact_names(&mut self) {
        let mut names = Names::default();
        for (slot, hot) in self.hot.iter().enumerate() {
            if hot.is(USED) {
                self.metas[slot].labels = names.add(&self.names.get(self.metas[slot].labels));
            }
        }
        self.names = names;
    }
}
