//! Seasons: found in the data, learned slot by slot, dropped when they do not help.
//!
//! A series that looks for a season fills a ring of bucket means. Whenever the ring is full its autocorrelation is
//! examined; without a season, neighbouring buckets are merged and the width doubles, so that a few hundred numbers
//! cover seconds at first and weeks in the end, and a period is met at a width at which it fills the ring three times.
//! With a season, the ring's memory becomes the profile: the median of each slot over the cycles seen, and the usual
//! error there. The cost per sample is an addition, or an interpolation between two cached numbers.

/// Buckets of a ring.
pub(crate) const RING: usize = 256;
/// Slots of a profile; it and the slots' errors share the ring's memory.
const SLOTS_MAX: usize = RING / 2;
/// Cycles that must be in the ring.
const CYCLES: usize = 3;
/// Shortest period, in buckets of the halved ring.
const LAG_MIN: usize = 6;
/// Widest bucket: a ring of them covers more than three weeks.
const WIDTH_MAX: i64 = 2 * HOUR;
const MINUTE: i64 = 60 * nightshift_model::time::NANOS_PER_SEC;
const HOUR: i64 = 60 * MINUTE;
/// Least weight of a new cycle in the profile.
const CYCLE_WEIGHT: f32 = 0.12;
/// Periods that people and schedulers make; what is found close to one is that one.
const CALENDAR: [i64; 14] = [
    MINUTE,
    5 * MINUTE,
    10 * MINUTE,
    15 * MINUTE,
    30 * MINUTE,
    HOUR,
    2 * HOUR,
    3 * HOUR,
    4 * HOUR,
    6 * HOUR,
    8 * HOUR,
    12 * HOUR,
    24 * HOUR,
    7 * 24 * HOUR,
];

/// The part of a series' season state that samples touch: two cache lines. The ring is beside.
#[derive(Debug, Clone, Copy, PartialEq)]
#[repr(C, align(64))]
pub(crate) struct Head {
    /// Width of a bucket, ns.
    pub(crate) width: i64,
    /// Start of the bucket that fills; `i64::MIN` before the first.
    pub(crate) start: i64,
    /// Sum of that bucket, less the anchor.
    pub(crate) sum: f64,
    /// What is taken off every value, so that the ring keeps its digits.
    pub(crate) anchor: f64,
    /// Period, ns; 0: none is known.
    pub(crate) period: i64,
    /// Start and end of the interpolation in hand.
    pub(crate) base: i64,
    /// See `base`.
    pub(crate) next: i64,
    /// Readings in the bucket, or in the slot.
    pub(crate) count: u32,
    /// Buckets in the ring.
    pub(crate) len: u16,
    /// Slots of the profile.
    pub(crate) slots: u16,
    /// Present slot.
    pub(crate) slot: u16,
    /// Cycles learned.
    pub(crate) cycles: u16,
    /// Cycles in a row in which the season did not help.
    pub(crate) useless: u16,
    /// A cycle ended with the last sample.
    pub(crate) turned: u16,
    /// Profile at `base` and `next`.
    pub(crate) from: f32,
    /// See `from`.
    pub(crate) to: f32,
    /// Usual error in this slot.
    pub(crate) dev: f32,
    /// Sums of the error and of its absolute value in this slot.
    pub(crate) err: f32,
    /// See `err`.
    pub(crate) err_abs: f32,
}

impl Head {
    fn new(width: i64) -> Self {
        Self {
            width: width.max(1),
            start: i64::MIN,
            sum: 0.0,
            anchor: 0.0,
            period: 0,
            base: 0,
            next: i64::MIN,
            count: 0,
            len: 0,
            slots: 0,
            slot: 0,
            cycles: 0,
            useless: 0,
            turned: 0,
            from: 0.0,
            to: 0.0,
            dev: 0.0,
            err: 0.0,
            err_abs: 0.0,
        }
    }
}

/// A season that was just found: where the forecast starts from.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Found {
    /// Level at the end of the ring.
    pub(crate) level: f64,
    /// Mean absolute error of the profile over the ring.
    pub(crate) scale: f32,
}

/// Season states of a shard's series.
#[derive(Debug, Default, Clone, PartialEq)]
pub(crate) struct Pool {
    pub(crate) heads: Vec<Head>,
    pub(crate) rings: Vec<f32>,
    pub(crate) free: Vec<u32>,
    pub(crate) max: usize,
    /// Least autocorrelation.
    pub(crate) strength: f32,
}

impl Pool {
    pub(crate) fn new(max: usize, strength: f64) -> Self {
        Self { max, strength: strength as f32, ..Self::default() }
    }

    /// State for one more series, whose first buckets hold one interval each; `None` when the budget is spent.
    pub(crate) fn allocate(&mut self, interval_ns: i64) -> Option<u32> {
        let head = Head::new(interval_ns.clamp(1_000_000, WIDTH_MAX));
        if let Some(index) = self.free.pop() {
            self.heads[index as usize] = head;
            return Some(index);
        }
        if self.heads.len() >= self.max {
            return None;
        }
        self.heads.push(head);
        self.rings.resize(self.heads.len() * RING, 0.0);
        Some((self.heads.len() - 1) as u32)
    }

    pub(crate) fn release(&mut self, index: u32) {
        self.free.push(index);
    }

    pub(crate) fn bytes(&self) -> usize {
        self.heads.capacity() * size_of::<Head>() + self.rings.capacity() * 4 + self.free.capacity() * 4
    }

    pub(crate) fn has_season(&self, index: u32) -> bool {
        self.heads[index as usize].period != 0
    }

    /// What the season adds at `at`, and the usual error there (0: not known). Without a season both are 0.
    #[inline]
    pub(crate) fn expect(&mut self, index: u32, at: i64) -> (f64, f32) {
        let head = &mut self.heads[index as usize];
        if head.period == 0 {
            return (0.0, 0.0);
        }
        if at >= head.next || at < head.base {
            self.turn(index, at);
        }
        let head = &self.heads[index as usize];
        let width = (head.next - head.base).max(1) as f32;
        let part = (at.saturating_sub(head.base) as f32 / width).clamp(0.0, 1.0);
        (f64::from(head.from + (head.to - head.from) * part), head.dev)
    }

    /// Learns what was seen; `error` is what the forecast missed it by, clipped. Says when a season was found.
    #[inline]
    pub(crate) fn learn(&mut self, index: u32, at: i64, x: f64, error: f64) -> Option<Found> {
        let head = &mut self.heads[index as usize];
        if head.period != 0 {
            head.count += 1;
            head.err += error as f32;
            head.err_abs += error.abs() as f32;
            return None;
        }
        let mut found = None;
        if at >= head.start.saturating_add(head.width) || head.start == i64::MIN {
            found = self.bucket(index, at, x);
        }
        let head = &mut self.heads[index as usize];
        head.sum += x - head.anchor;
        head.count = head.count.saturating_add(1);
        found
    }

    /// Enters the slot of `at`: what the last one taught goes into the profile first.
    #[cold]
    #[inline(never)]
    fn turn(&mut self, index: u32, at: i64) {
        let head = &mut self.heads[index as usize];
        let profile = &mut self.rings[index as usize * RING..][..RING];
        let slots = usize::from(head.slots.max(1));
        if head.count > 0 {
            let weight = CYCLE_WEIGHT.max(1.0 / (f32::from(head.cycles) + 1.0));
            let (mean, abs) = (head.err / head.count as f32, head.err_abs / head.count as f32);
            let (here, after) = (usize::from(head.slot), (usize::from(head.slot) + 1) % slots);
            if mean.is_finite() && abs.is_finite() {
                profile[here] += 0.5 * weight * mean;
                profile[after] += 0.5 * weight * mean;
                profile[SLOTS_MAX + here] += weight * (abs - profile[SLOTS_MAX + here]);
            }
        }
        let slot_ns = (head.period / slots as i64).max(1);
        let shifted = at.saturating_sub(slot_ns / 2).rem_euclid(head.period);
        let slot = ((shifted / slot_ns) as usize).min(slots - 1);
        let end = if slot == slots - 1 { head.period } else { (slot as i64 + 1) * slot_ns };
        head.base = at.saturating_sub(shifted - slot as i64 * slot_ns);
        head.next = at.saturating_add(end - shifted);
        if slot < usize::from(head.slot) {
            head.cycles = head.cycles.saturating_add(1);
            head.turned = 1;
        }
        head.slot = slot as u16;
        head.from = profile[slot];
        head.to = profile[(slot + 1) % slots];
        // One slot's error is an estimate from few readings: its neighbours steady it.
        let dev = |i: usize| profile[SLOTS_MAX + i % slots];
        head.dev = 0.25 * dev(slot + slots - 1) + 0.5 * dev(slot) + 0.25 * dev(slot + 1);
        (head.count, head.err, head.err_abs) = (0, 0.0, 0.0);
    }

    /// Whether a cycle ended since the last call.
    pub(crate) fn take_turned(&mut self, index: u32) -> bool {
        std::mem::take(&mut self.heads[index as usize].turned) != 0
    }

    /// Says whether the season helped in the last cycle. After two cycles without, it is forgotten: `true`.
    pub(crate) fn judge(&mut self, index: u32, helped: bool) -> bool {
        let head = &mut self.heads[index as usize];
        head.useless = if helped { 0 } else { head.useless + 1 };
        if head.useless < 2 {
            return false;
        }
        *head = Head::new((head.period / SLOTS_MAX as i64).clamp(1_000_000, WIDTH_MAX));
        true
    }

    /// Closes the bucket in hand and those that were missed, and opens the one of `at`.
    #[cold]
    #[inline(never)]
    fn bucket(&mut self, index: u32, at: i64, x: f64) -> Option<Found> {
        let mut found = None;
        let head = &mut self.heads[index as usize];
        if head.start == i64::MIN {
            head.anchor = x;
        } else if head.count > 0 {
            let mean = (head.sum / f64::from(head.count)) as f32;
            let gap = at.saturating_sub(head.start) / head.width - 1;
            if gap > 16 {
                // A hole: what was before no longer lies on the same grid.
                *head = Head::new(head.width);
                head.anchor = x;
            } else {
                let mean = if mean.is_finite() { mean } else { 0.0 };
                for _ in 0..=gap.max(0) {
                    found = found.or(self.push(index, mean));
                }
            }
        }
        let head = &mut self.heads[index as usize];
        if head.period == 0 {
            head.start = at.div_euclid(head.width).saturating_mul(head.width);
            (head.sum, head.count) = (0.0, 0);
        }
        found
    }

    fn push(&mut self, index: u32, mean: f32) -> Option<Found> {
        let head = &mut self.heads[index as usize];
        let ring = &mut self.rings[index as usize * RING..][..RING];
        if head.period != 0 {
            return None;
        }
        ring[usize::from(head.len)] = mean;
        head.len += 1;
        if usize::from(head.len) < RING {
            return None;
        }
        if let Some(lag) = find_lag(ring, self.strength) {
            let period = snap(lag, head.width);
            return Some(adopt(head, ring, period));
        }
        if head.width < WIDTH_MAX {
            for i in 0..RING / 2 {
                ring[i] = 0.5 * (ring[2 * i] + ring[2 * i + 1]);
            }
            // Buckets lie on multiples of their width; half a bucket of shift is of no account for finding a period.
            head.width *= 2;
        } else {
            ring.copy_within(RING / 2.., 0);
        }
        head.len = (RING / 2) as u16;
        None
    }
}

/// Takes the straight line out and clips at three mean deviations, so that neither a drift nor a spike is a season.
fn flatten(values: &mut [f32]) -> (f32, f32) {
    let n = values.len() as f32;
    let mid = (n - 1.0) / 2.0;
    let mean = values.iter().sum::<f32>() / n;
    let (mut sxy, mut sxx) = (0.0f32, 0.0f32);
    for (i, v) in values.iter().enumerate() {
        let t = i as f32 - mid;
        sxy += t * (v - mean);
        sxx += t * t;
    }
    let slope = if sxx > 0.0 { sxy / sxx } else { 0.0 };
    for (i, v) in values.iter_mut().enumerate() {
        *v -= mean + slope * (i as f32 - mid);
    }
    (mean, slope)
}

fn clip(values: &mut [f32]) {
    let n = values.len() as f32;
    let bound = 3.0 * values.iter().map(|v| v.abs()).sum::<f32>() / n;
    for v in values {
        *v = v.clamp(-bound, bound);
    }
}

/// Sum of products, eight lanes at a time: the order of additions is fixed, so the result is the same everywhere.
fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut lanes = [0.0f32; 8];
    let (ca, cb) = (a.chunks_exact(8), b.chunks_exact(8));
    let tail: f32 = ca.remainder().iter().zip(cb.remainder()).map(|(x, y)| x * y).sum();
    for (x, y) in ca.zip(cb) {
        for i in 0..8 {
            lanes[i] += x[i] * y[i];
        }
    }
    lanes.iter().sum::<f32>() + tail
}

/// Autocorrelation at `lag`, each part by its own energy so that few cycles are not held against long lags.
fn correlation(v: &[f32], lag: usize) -> f32 {
    let n = v.len() - lag;
    let (a, b) = (&v[..n], &v[lag..]);
    let energy = (dot(a, a) * dot(b, b)).sqrt();
    if energy > 0.0 { dot(a, b) / energy } else { 0.0 }
}

/// The period of a full ring in buckets, if it has one: the first peak of the autocorrelation that is nearly the
/// highest, behind a clear trough (a slow drift has none).
fn find_lag(ring: &[f32], strength: f32) -> Option<f32> {
    let mut half = [0.0f32; RING / 2];
    for (h, pair) in half.iter_mut().zip(ring.as_chunks::<2>().0) {
        *h = 0.5 * (pair[0] + pair[1]);
    }
    flatten(&mut half);
    clip(&mut half);
    if !half.iter().any(|v| v.abs() > 0.0) {
        return None;
    }
    let max = half.len() / CYCLES + 1;
    let mut r = [0.0f32; RING / 2];
    for (lag, r) in r.iter_mut().enumerate().take(max + 2).skip(1) {
        *r = correlation(&half, lag);
    }
    let peak = |lag: usize| r[lag] >= r[lag - 1] && r[lag] >= r[lag + 1];
    let best = (LAG_MIN..=max).filter(|l| peak(*l)).map(|l| r[l]).fold(0.0f32, f32::max);
    if best < strength {
        return None;
    }
    let lag = (LAG_MIN..=max).find(|l| peak(*l) && r[*l] >= 0.9 * best)?;
    let trough = r[1..lag].iter().copied().fold(1.0f32, f32::min);
    if trough > r[lag] - 0.3 {
        return None;
    }
    // Finer, on the full ring, two periods away where one bucket is half the error.
    let mut fine = [0.0f32; RING];
    fine.copy_from_slice(ring);
    flatten(&mut fine);
    clip(&mut fine);
    let around = 4 * lag;
    let (low, high) = (around.saturating_sub(4).max(2), (around + 4).min(RING - 32));
    let top = (low..=high).max_by(|a, b| correlation(&fine, *a).total_cmp(&correlation(&fine, *b)))?;
    let (a, b, c) = (correlation(&fine, top - 1), correlation(&fine, top), correlation(&fine, top + 1));
    let bend = a - 2.0 * b + c;
    let shift = if bend < 0.0 { (0.5 * (a - c) / bend).clamp(-0.5, 0.5) } else { 0.0 };
    Some((top as f32 + shift) / 2.0)
}

fn snap(lag: f32, width: i64) -> i64 {
    let period = (f64::from(lag) * width as f64) as i64;
    let near = CALENDAR.iter().copied().min_by_key(|c| (c - period).abs()).unwrap_or(period);
    if (near - period).abs() as f64 <= 0.03 * period as f64 { near } else { period.max(1) }
}

/// Makes the ring a profile.
fn adopt(head: &mut Head, ring: &mut [f32], period: i64) -> Found {
    let mut values = [0.0f32; RING];
    values.copy_from_slice(ring);
    let (mean, slope) = flatten(&mut values);
    let slots = ((period / head.width) as usize).clamp(8, SLOTS_MAX);
    let slot_ns = (period / slots as i64).max(1);
    // The bucket that was closed last began at `start`.
    let first = head.start.saturating_sub((RING as i64 - 1).saturating_mul(head.width));
    let slot_of = |i: usize| {
        let centre = first.saturating_add(i as i64 * head.width + head.width / 2);
        ((centre.rem_euclid(period) / slot_ns) as usize).min(slots - 1)
    };
    let mut profile = [f32::NAN; SLOTS_MAX];
    let mut members = Vec::with_capacity(RING);
    for (slot, out) in profile.iter_mut().enumerate().take(slots) {
        members.clear();
        members.extend((0..RING).filter(|i| slot_of(*i) == slot).map(|i| values[i]));
        members.sort_unstable_by(f32::total_cmp);
        if let Some(middle) = members.get(members.len() / 2) {
            *out = if members.len() % 2 == 0 { 0.5 * (middle + members[members.len() / 2 - 1]) } else { *middle };
        }
    }
    for slot in 0..slots {
        if profile[slot].is_nan() {
            profile[slot] = profile[(slot + slots - 1) % slots];
        }
        if profile[slot].is_nan() {
            profile[slot] = 0.0;
        }
    }
    let mut sums = [(0.0f32, 0u32); SLOTS_MAX];
    let mut all = 0.0;
    for (i, v) in values.iter().enumerate() {
        let slot = slot_of(i);
        let error = (v - profile[slot]).abs();
        sums[slot].0 += error;
        sums[slot].1 += 1;
        all += error;
    }
    let scale = all / RING as f32;
    ring[..SLOTS_MAX].copy_from_slice(&profile);
    for (slot, (sum, n)) in sums.iter().enumerate() {
        // Medians of three leave a third of the errors at zero: the slot's own is drawn half-way to all slots'.
        ring[SLOTS_MAX + slot] = if *n == 0 { scale } else { 0.5 * (sum / *n as f32 + scale) };
    }
    for v in &mut ring[slots..SLOTS_MAX] {
        *v = 0.0;
    }
    head.period = period;
    head.slots = slots as u16;
    head.slot = 0;
    head.cycles = CYCLES as u16;
    head.next = i64::MIN;
    (head.count, head.err, head.err_abs, head.len) = (0, 0.0, 0.0, 0);
    Found { level: head.anchor + f64::from(mean + slope * (RING as f32 - 1.0) / 2.0), scale }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEC: i64 = 1_000_000_000;

    fn draw(i: i64) -> f64 {
        nightshift_model::hash::hash64(&i.to_le_bytes()) as f64 / u64::MAX as f64 - 0.5
    }

    fn found(period_secs: i64, step_secs: i64, n: i64, wave: impl Fn(f64) -> f64) -> Option<i64> {
        let mut pool = Pool::new(1, 0.45);
        let id = pool.allocate(step_secs * SEC).unwrap();
        for i in 0..n {
            let at = i * step_secs * SEC;
            let phase = (i * step_secs % period_secs) as f64 / period_secs as f64;
            pool.expect(id, at);
            pool.learn(id, at, wave(phase) + draw(i) * 0.2, 0.0);
            if pool.has_season(id) {
                return Some(pool.heads[0].period / SEC);
            }
        }
        None
    }

    #[test]
    fn periods_are_found_at_every_scale() {
        let sine = |p: f64| (p * std::f64::consts::TAU).sin();
        assert_eq!(found(86_400, 300, 5_000, sine), Some(86_400));
        assert_eq!(found(3_600, 10, 5_000, sine), Some(3_600));
        assert_eq!(found(7 * 86_400, 3_600, 2_000, sine), Some(7 * 86_400));
        // A batch job every 47 minutes: a pulse, and no calendar period.
        let got = found(2_820, 30, 5_000, |p| if p < 0.2 { 10.0 } else { 1.0 }).unwrap();
        assert!((got - 2_820).abs() < 40, "{got}");
    }

    #[test]
    fn noise_drift_and_constants_have_no_season() {
        assert_eq!(found(86_400, 300, 20_000, |_| 3.0), None);
        let mut pool = Pool::new(1, 0.45);
        let id = pool.allocate(SEC).unwrap();
        let mut walk = 0.0;
        for i in 0..50_000i64 {
            walk += draw(i);
            // Noise, then a random walk.
            pool.learn(id, i * SEC, if i < 25_000 { draw(i) } else { walk }, 0.0);
            assert!(!pool.has_season(id), "{i}");
        }
    }

    #[test]
    fn the_profile_predicts_and_a_useless_one_is_dropped() {
        let mut pool = Pool::new(1, 0.45);
        let id = pool.allocate(300 * SEC).unwrap();
        let mut level = None;
        let mut worst = 0.0f64;
        for i in 0..3_000i64 {
            let at = i * 300 * SEC;
            let x = 50.0 + 10.0 * ((i % 288) as f64 / 288.0 * std::f64::consts::TAU).sin();
            let (season, _) = pool.expect(id, at);
            if let Some(level) = level {
                worst = worst.max(f64::abs(x - level - season));
            }
            if let Some(found) = pool.learn(id, at, x, 0.0) {
                level = Some(found.level);
            }
        }
        assert!(level.is_some() && worst < 1.5, "{level:?} {worst}");
        assert!(!pool.judge(id, false) && pool.judge(id, false) && !pool.has_season(id));
    }

    #[test]
    fn the_budget_holds_and_what_is_released_is_used_again() {
        let mut pool = Pool::new(2, 0.45);
        let (a, b) = (pool.allocate(SEC).unwrap(), pool.allocate(SEC).unwrap());
        assert_eq!(pool.allocate(SEC), None);
        pool.release(a);
        assert_eq!(pool.allocate(SEC), Some(a));
        assert_ne!(a, b);
    }
}
