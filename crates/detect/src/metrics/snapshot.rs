//! A shard's state as bytes, and back, bit for bit.
//!
//! `NSD1`, version, then entities, sources, series (hot state, labels), seasons, trends, alarms and features; at the
//! end the XXH3 of all before. What can be made again from these (look-up tables, policies) is not written, so a
//! changed configuration applies from the restart on.

use super::budget::SeriesBudget;
use super::codec::{Wire, wire_struct};
use super::config::MetricsConfig;
use super::engine::Layer;
use super::ensemble::{Ensemble, Witness};
use super::evt::Tail;
use super::hot::{Hot, LIMIT, NO_COLD, USED};
use super::judge::{Alarm, AlarmKind};
use super::season::{Head, RING};
use super::shard::{Entity, ShardDetector};
use super::trend::Trend;
use nightshift_model::batch::SeriesKind;
use nightshift_model::hash::hash64;
use nightshift_model::{EntityId, EntityMeta};
use std::sync::Arc;
use std::sync::atomic::Ordering;

const MAGIC: &[u8; 4] = b"NSD1";
/// Version of the form. A reader knows this one; a snapshot of another is refused, and the shard replays instead.
const VERSION: u32 = 4;

/// Why bytes are no snapshot.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SnapshotError {
    /// Another kind of file.
    #[error("read snapshot: it does not start with the mark of a detector snapshot")]
    Magic,
    /// Another version.
    #[error("read snapshot: its version is {0}, this program reads {VERSION}; start without it and replay the bus")]
    Version(u32),
    /// Damaged.
    #[error("read snapshot: its checksum is wrong; use an older one or replay the bus")]
    Checksum,
    /// The checksum fits and the content does not.
    #[error("read snapshot: its {0} are broken; use an older one or replay the bus")]
    Content(&'static str),
}

wire_struct!(Tail { t, m, v, z });
wire_struct!(Hot {
    fp,
    last_ts,
    last_raw,
    mu,
    level,
    onset,
    mad,
    lscale,
    slope,
    chart,
    up,
    down,
    interval,
    resolution,
    change,
    chart_usual,
    n,
    cold,
    same,
    policy,
    run,
    strong,
    calm,
    flags,
});
wire_struct!(Head {
    width,
    start,
    sum,
    anchor,
    period,
    base,
    next,
    count,
    len,
    slots,
    slot,
    cycles,
    useless,
    turned,
    from,
    to,
    dev,
    err,
    err_abs,
});
wire_struct!(Trend { anchor, s, st, stt, sx, sxx, stx, first, last, since, n });
wire_struct!(Alarm {
    onset,
    last,
    calm_since,
    score,
    direction,
    layer,
    value,
    expected,
    scale,
    distance,
    threshold,
    ratio,
    z,
    forecast,
    chart,
    points,
    samples,
    mean,
    mad,
    eta_secs,
    limit,
    evidence,
    witness,
    relearned,
});

impl Wire for Layer {
    fn put(&self, out: &mut Vec<u8>) {
        out.push(*self as u8);
    }
    fn take(from: &mut &[u8]) -> Option<Self> {
        Self::from_u8(u8::take(from)?)
    }
}

impl Wire for Witness {
    fn put(&self, out: &mut Vec<u8>) {
        out.push(*self as u8);
    }
    fn take(from: &mut &[u8]) -> Option<Self> {
        Self::from_u8(u8::take(from)?)
    }
}

impl Wire for AlarmKind {
    fn put(&self, out: &mut Vec<u8>) {
        out.push(*self as u8);
    }
    fn take(from: &mut &[u8]) -> Option<Self> {
        Self::from_u8(u8::take(from)?)
    }
}

impl Wire for EntityId {
    fn put(&self, out: &mut Vec<u8>) {
        (self.as_str().len() as u32).put(out);
        out.extend_from_slice(self.as_str().as_bytes());
    }
    fn take(from: &mut &[u8]) -> Option<Self> {
        Self::parse(&String::take(from)?).ok()
    }
}

wire_struct!(EntityMeta { id, service, version, environment, owner, synthetic });
wire_struct!(Entity { tenant, meta, series, raw, last, used });

impl ShardDetector {
    /// The whole state. Series that left are not in it.
    pub fn snapshot(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(256 + self.series_live() * 200);
        out.extend_from_slice(MAGIC);
        VERSION.put(&mut out);
        self.shard.put(&mut out);
        self.next_sweep.put(&mut out);
        self.entities.put(&mut out);
        (self.origins.len() as u32).put(&mut out);
        for o in &self.origins {
            o.tenant.put(&mut out);
            o.source.put(&mut out);
            o.watermark.put(&mut out);
            o.last_now.put(&mut out);
        }
        (self.series_live() as u32).put(&mut out);
        for (hot, meta) in self.hot.iter().zip(&self.metas).filter(|(h, _)| h.is(USED)) {
            // Where things lie is not state: it is given anew.
            let cold = if hot.cold == NO_COLD { NO_COLD } else { 0 };
            Hot { cold, policy: 0, ..*hot }.put(&mut out);
            meta.entity.put(&mut out);
            meta.origin.put(&mut out);
            (meta.kind as u8).put(&mut out);
            let labels = self.names.get(meta.labels);
            (labels.len() as u32).put(&mut out);
            out.extend_from_slice(&labels);
            if hot.cold != NO_COLD {
                let head = &self.engine.pool.heads[hot.cold as usize];
                head.put(&mut out);
                // A ring that is not full holds leftovers behind its end.
                for v in &self.engine.pool.rings[hot.cold as usize * RING..][..ring_used(head)] {
                    v.put(&mut out);
                }
                let ensemble = self.engine.ensembles.get(hot.cold as usize);
                ensemble.is_some().put(&mut out);
                if let Some(ensemble) = ensemble {
                    ensemble.put(&mut out);
                }
            }
            if hot.is(LIMIT) {
                self.engine.trends.get(&hot.fp).copied().put(&mut out);
            }
        }
        (self.engine.alarms.len() as u32).put(&mut out);
        for ((fp, kind), alarm) in &self.engine.alarms {
            (*fp, (*kind, *alarm)).put(&mut out);
        }
        self.features.put_state(&mut out);
        let sum = hash64(&out);
        sum.put(&mut out);
        out
    }

    /// The detector that wrote `bytes`, under `config`.
    ///
    /// # Errors
    /// When the bytes are damaged, of another version, or no snapshot.
    pub fn restore(config: Arc<MetricsConfig>, budget: Arc<SeriesBudget>, bytes: &[u8]) -> Result<Self, SnapshotError> {
        let (mut rest, sum) = bytes.split_last_chunk::<8>().ok_or(SnapshotError::Magic)?;
        if !rest.starts_with(MAGIC) {
            return Err(SnapshotError::Magic);
        }
        let whole = rest;
        rest = &rest[MAGIC.len()..];
        let version = u32::take(&mut rest).ok_or(SnapshotError::Magic)?;
        if version != VERSION {
            return Err(SnapshotError::Version(version));
        }
        if hash64(whole) != u64::from_le_bytes(*sum) {
            return Err(SnapshotError::Checksum);
        }
        Self::read(config, budget, rest)
    }

    fn read(config: Arc<MetricsConfig>, budget: Arc<SeriesBudget>, bytes: &[u8]) -> Result<Self, SnapshotError> {
        use SnapshotError::Content;
        let rest = &mut { bytes };
        let shard = u32::take(rest).ok_or(Content("head"))?;
        let mut this = Self::new(config, budget, shard);
        this.next_sweep = i64::take(rest).ok_or(Content("head"))?;
        let entities = Vec::<Entity>::take(rest).ok_or(Content("entities"))?;
        // Counted anew as the series come.
        let mut free = Vec::new();
        for (i, entity) in entities.into_iter().enumerate() {
            let used = entity.used;
            let entity = Entity { series: 0, ..entity };
            if used {
                this.put_entity(entity);
            } else {
                this.entities.push(entity);
                free.push(i as u32);
            }
        }
        this.entities_free = free;
        let n = u32::take(rest).ok_or(Content("sources"))?;
        for _ in 0..n.min(u32::from(u16::MAX)) {
            let (tenant, source) = <(Arc<str>, Arc<str>)>::take(rest).ok_or(Content("sources"))?;
            let (watermark, last_now) = <(i64, i64)>::take(rest).ok_or(Content("sources"))?;
            this.put_origin(tenant, source, watermark, last_now);
        }
        let n = u32::take(rest).ok_or(Content("series"))?;
        for _ in 0..n {
            this.read_series(rest).ok_or(Content("series"))?;
        }
        let n = u32::take(rest).ok_or(Content("alarms"))?;
        for _ in 0..n {
            let (fp, (kind, alarm)) = <(u64, (AlarmKind, Alarm))>::take(rest).ok_or(Content("alarms"))?;
            this.engine.alarms.insert((fp, kind), alarm);
        }
        this.features.take_state(rest).ok_or(Content("features"))?;
        if rest.is_empty() { Ok(this) } else { Err(Content("last bytes")) }
    }

    fn read_series(&mut self, rest: &mut &[u8]) -> Option<()> {
        let mut hot = Hot::take(rest)?;
        let (entity, origin, kind) = (u32::take(rest)?, u16::take(rest)?, SeriesKind::from_u8(u8::take(rest)?));
        let n = u32::take(rest)? as usize;
        let (labels, tail) = rest.split_at_checked(n)?;
        *rest = tail;
        let known = self.entities.get(entity as usize).is_some_and(|e| e.used);
        let hot_table = &self.hot;
        if !known
            || usize::from(origin) >= self.origins.len()
            || self.table.find(hot.fp, |s| hot_table[*s as usize].fp == hot.fp).is_some()
        {
            return None;
        }
        let had_cold = hot.cold != NO_COLD;
        let had_limit = hot.is(LIMIT);
        // Series that were live stay so, even if the ceiling was lowered.
        self.origins[usize::from(origin)].live.fetch_add(1, Ordering::Relaxed);
        let slot = self.insert(hot.fp, entity, origin, kind, labels) as usize;
        hot.policy = self.hot[slot].policy;
        hot.set(LIMIT, self.hot[slot].is(LIMIT));
        hot.set(USED, true);
        hot.cold = NO_COLD;
        if had_cold {
            let head = Head::take(rest)?;
            let n = ring_used(&head);
            if usize::from(head.len) >= RING || head.width <= 0 || head.period < 0 {
                return None;
            }
            if head.period > 0 && (usize::from(head.slots) > RING / 2 || head.slot >= head.slots) {
                return None;
            }
            let mut ring = [0.0f32; RING];
            for v in &mut ring[..n] {
                *v = f32::take(rest)?;
            }
            let ensemble: Option<Ensemble> = Wire::take(rest)?;
            if let Some(cold) = self.engine.pool.allocate(head.width) {
                self.engine.place(cold, ensemble.unwrap_or_default());
                self.engine.pool.heads[cold as usize] = head;
                self.engine.pool.rings[cold as usize * RING..][..RING].copy_from_slice(&ring);
                hot.cold = cold;
            }
        }
        if had_limit {
            let trend: Option<Trend> = Wire::take(rest)?;
            self.engine.trends.extend(trend.map(|t| (hot.fp, t)));
        }
        self.hot[slot] = hot;
        Some(())
    }
}

/// Numbers of a ring that mean something.
fn ring_used(head: &Head) -> usize {
    if head.period != 0 { RING } else { usize::from(head.len).min(RING) }
}

/// For fuzzing: bytes as a snapshot, with and without a right checksum. Must not panic, whatever they are.
#[doc(hidden)]
pub fn fuzz_snapshot(bytes: &[u8]) {
    let config = Arc::new(MetricsConfig::default());
    let budget = || Arc::new(SeriesBudget::new(1_000));
    if let Ok(detector) = ShardDetector::restore(Arc::clone(&config), budget(), bytes) {
        // What was read can be written, and reads the same.
        let again = detector.snapshot();
        let _ = ShardDetector::restore(Arc::clone(&config), budget(), &again);
    }
    let _ = ShardDetector::read(config, budget(), bytes);
}
