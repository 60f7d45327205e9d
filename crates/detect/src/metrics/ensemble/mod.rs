//! The ensemble: several weak witnesses of a series that is long known, one probability, one alarm an event.
//!
//! ```text
//! reading ─► statistics (level, sustained departures, steps) ─► tail of each ─► rarest, and a part of the second ─┐
//!        ├─► size of the departure in sigmas ──────────────────────────────────────────────────────────────────┤
//!        └─► shape memory (`embed`) ─► -log10 p ─┬─ a part of it ──────────────────────────────────────────────┴► sum
//!                                                └─ its own alarm rule ([`Gate`]), where a statistic is rare too ─┐
//! sum / threshold ≥ 1, and clearly more than lately ─► the threshold rises and forgets over days ──────────────┴► alarm
//! ```
//!
//! Every statistic is held against its own past ([`tail`]), so that a probability means the same on every series. The
//! threshold asks for rarer events where readings come faster: what matters to people is alarms a week. After an alarm
//! the threshold of the series rises, and comes down over days: a series that alarms often has to show more. An event
//! is one alarm because what follows must exceed it by a factor, and because some hours are silent: how soon a person
//! wants to hear again does not depend on how often the series is read. A rank among n readings cannot say less than
//! 1/n, so on a series of few readings the second witness and the size of the departure tell the large from the merely
//! highest. Shapes are slow: they are known after many readings and take many to be seen, so their silence is counted
//! in readings, and they are told only where a statistic is rare at the same reading. Cost: a handful of comparisons;
//! what is in the tail pays for its rank.

mod calendar;
mod tail;

use super::Wire;
use super::codec::wire_struct;
use super::embed::{Embed, Gate};
use calendar::{Calendar, Cell, Merit};
use tail::Tail;

/// Statistics with a tail.
const WITNESSES: usize = 6;
/// Readings that say one thing, by statistic: means repeat themselves.
const REPEAT: [f32; WITNESSES] = [1.0, 4.0, 16.0, 64.0, 1.0, 1.0];
/// Readings before it speaks.
const WARM: u32 = 100;
/// Readings after an alarm of which only one in eight is learned by the tails: an event is not the next one's normal.
const HUSH: u8 = 20;
/// Mean absolute deviation to sigma, normal distribution.
const SIGMA_OF_MAD: f32 = 1.253_314;
/// Readings enter means clipped at this many sigmas, and the level at three.
const CLIP: f32 = 8.0;
/// Share of readings that must change for a series not to be flat; a flat one has left its value at this share of it.
const FLAT_CHANGE: f32 = 0.05;
const FLAT_SCALE: f64 = 1e-3;
/// Longest correlation that is believed, readings.
const WANDER_MAX: f32 = 64.0;
/// Most that the size of a departure adds.
const SIZE_MAX: f32 = 2.0;
const SECOND: f32 = 1e9;

/// What decides when it speaks. Tuned on the development halves of the benchmarks.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Knobs {
    /// -log10 of the probability that is an alarm, for readings five minutes apart.
    pub(crate) threshold: f32,
    /// Raise of it per factor of ten in the rate of readings: 1 keeps alarms a week the same.
    pub(crate) per_rate: f32,
    /// Raise of it after each alarm, and days in which the raise falls to 37 %.
    pub(crate) raise: f32,
    pub(crate) raise_days: f32,
    /// How the raise grows with the rate of readings.
    pub(crate) raise_rate: f32,
    /// Readings in which the memory of the last event falls to 37 %, and the factor by which the next must exceed it.
    pub(crate) hold: f32,
    pub(crate) margin: f32,
    /// Weight of the shape memory beside the rarest statistic, and where it is capped.
    pub(crate) shape: f32,
    pub(crate) shape_max: f32,
    /// Weight of the second rarest statistic: one event shows in several, but they are not independent.
    pub(crate) second: f32,
    /// Evidence for each factor of ten in size, and the size in sigmas where that begins.
    pub(crate) size: f32,
    pub(crate) size_from: f32,
    /// Readings of the series before the shape memory's own alarm rule speaks.
    pub(crate) gate_after: u32,
    /// Raise of the threshold after an alarm of a shape, in raises: a new course is told once.
    pub(crate) gate_raise: f32,
    /// Hours of silence after an alarm.
    pub(crate) rest_hours: f32,
    /// In the silence only what exceeds the alarm by this factor is told.
    pub(crate) escalates: f32,
    /// Readings that the level and the spread remember.
    pub(crate) memory: f32,
}

impl Default for Knobs {
    fn default() -> Self {
        Self {
            threshold: 4.5,
            per_rate: 1.0,
            raise: 0.4,
            raise_days: 20.0,
            raise_rate: 1.0,
            hold: 4.0,
            margin: 1.2,
            second: 0.25,
            size: 0.8,
            size_from: 2.0,
            gate_after: 700,
            gate_raise: 2.0,
            rest_hours: 2.5,
            escalates: 1.5,
            shape: 0.1,
            shape_max: 2.0,
            memory: 400.0,
        }
    }
}

/// What speaks loudest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(u8)]
pub(crate) enum Witness {
    /// The value is high.
    #[default]
    High = 0,
    /// Above what is expected for a few readings.
    Above,
    /// Below for long, above for very long.
    LongBelow,
    LongAbove,
    /// A step downwards.
    Drop,
    /// A step upwards.
    Step,
    /// A shape that was not seen before.
    Shape,
}

const ORDER: [Witness; WITNESSES] =
    [Witness::High, Witness::Above, Witness::LongBelow, Witness::LongAbove, Witness::Drop, Witness::Step];

impl Witness {
    pub(crate) const fn from_u8(v: u8) -> Option<Self> {
        if v as usize == WITNESSES {
            return Some(Self::Shape);
        }
        if (v as usize) < WITNESSES { Some(ORDER[v as usize]) } else { None }
    }

    /// For people: the value is ….
    pub(crate) const fn text(self) -> &'static str {
        match self {
            Self::High => "unusually high",
            Self::Above => "above what is expected",
            Self::LongBelow => "below what is expected for long",
            Self::LongAbove => "above what is expected for long",
            Self::Drop => "a large step down",
            Self::Step => "a large step up",
            Self::Shape => "part of a course that was not seen before",
        }
    }

    /// Whether the departure goes upwards.
    pub(crate) const fn upwards(self) -> bool {
        !matches!(self, Self::LongBelow | Self::Drop)
    }
}

/// What the ensemble says of a reading.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(crate) struct Verdict {
    /// -log10 of a probability, all witnesses together.
    pub(crate) evidence: f32,
    /// Evidence that is an alarm.
    pub(crate) threshold: f32,
    /// 0..=1, comparable across series; 0.5 is an alarm. What goes on from an earlier reading scores low.
    pub(crate) score: f32,
    /// An event begins, or one that goes on became much worse.
    pub(crate) alert: bool,
    /// Who says it.
    pub(crate) witness: Witness,
    /// It has seen enough of the series to decide.
    pub(crate) known: bool,
}

/// State of one series.
///
/// What every reading touches stands first and together: five lines of memory, the shape memory aside.
#[derive(Debug, Clone, PartialEq, Default)]
#[repr(C)]
pub(crate) struct Ensemble {
    n: u32,
    /// Readings in the tails.
    counted: u32,
    last: i64,
    /// Seconds between readings.
    interval: f32,
    level: f64,
    spread: f32,
    before: f64,
    resolution: f32,
    change: f32,
    /// Means of the departure over about 4, 16 and 64 readings.
    few: f32,
    some: f32,
    many: f32,
    /// Mean absolute step, as slow as the spread.
    steps: f32,
    /// Memory of the last event, and the raise of the threshold.
    heat: f32,
    raised: f32,
    hush: u8,
    /// Readings of silence left, and the evidence of the alarm before it, in thresholds.
    rest: u16,
    told: f32,
    gate: Gate,
    /// Lowest bin of each tail: what is below it is no news, and the tail is left alone.
    floors: [u32; WITNESSES],
    calendar: Calendar,
    tails: [Tail; WITNESSES],
    shape: Embed,
}

/// What may be left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Parts {
    pub(crate) shape: bool,
    pub(crate) calendar: bool,
    /// Bits of the statistics in the order of [`Witness`].
    pub(crate) tails: u32,
}

impl Ensemble {
    /// Something of what a reading at `at` will need: looked at while the one before is at work, memory is not waited
    /// for.
    #[inline(always)]
    pub(crate) fn touch(&self, at: i64) -> u32 {
        self.n ^ self.floors[WITNESSES - 1] ^ self.calendar.touch(at) ^ self.shape.touch()
    }

    /// Takes a reading: says how unusual it is, then learns it. `at` in ns, newer than the one before.
    pub(crate) fn step(&mut self, knobs: &Knobs, parts: Parts, at: i64, x: f64) -> Verdict {
        if self.n == 0 {
            (self.level, self.before) = (x, x);
            (self.n, self.last) = (1, at);
            return Verdict::default();
        }
        let n = self.n;
        let fresh = 1.0 / (n as f32 + 1.0);
        let secs = at.saturating_sub(self.last).max(1) as f32 / SECOND;
        self.last = at;
        self.interval += (secs - self.interval) * if n == 1 { 1.0 } else { fresh.max(0.02) };
        let novelty = if parts.shape { self.shape.step(at, x).nlp } else { 0.0 };

        let step = (x - self.before) as f32;
        self.before = x;
        self.change += (if step == 0.0 { 0.0 } else { 1.0 } - self.change) * fresh.max(0.01);
        if step != 0.0 {
            // Creeps up, so that one tiny step is not the resolution for ever.
            let size = step.abs();
            self.resolution = if self.resolution == 0.0 { size } else { size.min(self.resolution * 1.003) };
        }
        let mut floor = (0.5 * self.resolution).max((1e-9 * self.level.abs().max(x.abs())) as f32);
        if self.change < FLAT_CHANGE {
            floor = floor.max((FLAT_SCALE * self.level.abs()) as f32);
        }
        let floor = floor.max(f32::MIN_POSITIVE);
        let scale = (SIGMA_OF_MAD * self.spread).max(floor);
        let off = (x - self.level) as f32;
        let season = if parts.calendar { self.calendar.expect(at) } else { 0.0 };
        let clipped = (off - season).clamp(-CLIP * scale, CLIP * scale);
        self.few += (clipped - self.few) / 4.0;
        self.some += (clipped - self.some) / 16.0;
        self.many += (clipped - self.many) / 64.0;

        // A series that wanders says the same thing for as long as it is away: of an Ornstein-Uhlenbeck process with
        // correlation length L a step has the variance 2/L of the spread.
        let wander = (scale / (SIGMA_OF_MAD * self.steps).max(floor)).powi(2) * 2.0;
        let wander = wander.clamp(1.0, WANDER_MAX);
        let values = [off - season, self.few, -self.some, self.many, -step, step];
        let (mut evidence, mut second, mut witness) = (0.0f32, 0.0f32, Witness::High);
        let counts = n >= 10 && (self.hush == 0 || n.is_multiple_of(8));
        for (i, value) in values.into_iter().enumerate() {
            let value = value.max(floor);
            if tail::bin(value) < self.floors[i] {
                continue;
            }
            let tail = &mut self.tails[i];
            let is_step = matches!(ORDER[i], Witness::Step | Witness::Drop);
            let repeat = if is_step { 1.0 } else { REPEAT[i].max(wander) };
            let surprise = tail.surprise(value, self.counted, repeat);
            if parts.tails >> i & 1 == 1 {
                if surprise > evidence {
                    (evidence, second, witness) = (surprise, evidence, ORDER[i]);
                } else {
                    second = second.max(surprise);
                }
            }
            if counts {
                tail.learn(value, self.counted);
                self.floors[i] = tail.floor;
            }
        }
        if counts {
            self.counted += 1;
            self.keep();
        }
        // Of shapes alone nobody is told: the reading itself must be among the rare ones.
        let gated = evidence > 0.0 && n >= knobs.gate_after;
        let shaped = self.gate.step(if gated { novelty } else { 0.0 });
        if evidence > 0.0 {
            let sigmas = (off - season).abs() / scale;
            let size = knobs.size * (sigmas / knobs.size_from).max(1.0).log10();
            evidence += knobs.second * second + size.min(SIZE_MAX);
        }
        let novel = knobs.shape * novelty.min(knobs.shape_max);
        if novel > evidence {
            witness = Witness::Shape;
        }
        self.learn(knobs, at, off, step, scale, fresh);
        self.decide(knobs, secs, evidence + novel, shaped, witness, n)
    }

    /// The tails forget, and look further down where they hold too little.
    fn keep(&mut self) {
        if self.counted.is_multiple_of(256) {
            for tail in &mut self.tails {
                tail.widen(self.counted);
            }
            self.floors = std::array::from_fn(|i| self.tails[i].floor);
        }
        if self.counted >= tail::MEMORY {
            self.counted /= 2;
            for tail in &mut self.tails {
                tail.halve();
            }
        }
    }

    fn learn(&mut self, knobs: &Knobs, at: i64, off: f32, step: f32, scale: f32, fresh: f32) {
        let weight = fresh.max(1.0 / knobs.memory);
        let bound = if self.n < 10 { f32::INFINITY } else { 3.0 * scale };
        self.level += f64::from(weight * off.clamp(-bound, bound));
        self.spread += weight * (off.abs().min(bound) - self.spread);
        self.steps += weight * (step.abs().min(bound) - self.steps);
        self.calendar.learn(at, off, bound, self.n);
        self.n = self.n.saturating_add(1);
    }

    /// `shaped`: the shape memory's own rule raises an alarm.
    fn decide(&mut self, knobs: &Knobs, secs: f32, evidence: f32, shaped: bool, witness: Witness, n: u32) -> Verdict {
        self.heat *= 1.0 - 1.0 / knobs.hold;
        self.raised *= 1.0 - (secs / (knobs.raise_days * 86_400.0)).min(1.0);
        self.hush = self.hush.saturating_sub(1);
        let usual = knobs.threshold + knobs.per_rate * (300.0 / self.interval.max(0.1)).log10();
        let threshold = usual.max(1.0) + self.raised;
        let mut verdict = Verdict { evidence, threshold, witness, known: n >= WARM, ..Verdict::default() };
        if !verdict.known {
            return verdict;
        }
        let ratio = evidence / threshold;
        verdict.score = ratio / (1.0 + ratio);
        self.rest = self.rest.saturating_sub(1);
        let silent = self.rest > 0 && ratio <= self.told * knobs.escalates;
        let goes_on = ratio <= 0.2 || silent || ratio <= self.heat * knobs.margin;
        if goes_on {
            verdict.score *= 0.1;
        } else {
            self.heat = ratio;
        }
        let raises = !goes_on && ratio >= 1.0;
        if raises {
            self.hush = HUSH;
            self.told = ratio;
            self.rest = (knobs.rest_hours * 3_600.0 / self.interval.max(0.1)).min(60_000.0) as u16;
        }
        if raises || shaped {
            verdict.alert = true;
            let times = if raises { 1.0 } else { knobs.gate_raise };
            self.raised += times * knobs.raise * (300.0 / self.interval.max(0.1)).powf(knobs.raise_rate);
        }
        if shaped && !raises {
            (verdict.score, verdict.witness) = (0.5, Witness::Shape);
        }
        verdict
    }
}

wire_struct!(Ensemble {
    n,
    counted,
    last,
    interval,
    level,
    spread,
    before,
    resolution,
    change,
    few,
    some,
    many,
    steps,
    heat,
    raised,
    hush,
    rest,
    told,
    gate,
    floors,
    calendar,
    tails,
    shape,
});
wire_struct!(Calendar { plain, by_day, by_week, day, week });

wire_struct!(Merit { error, n });

impl<const N: usize> Wire for [Cell; N] {
    fn put(&self, out: &mut Vec<u8>) {
        for cell in self {
            (cell.mean, cell.n).put(out);
        }
    }
    fn take(from: &mut &[u8]) -> Option<Self> {
        let mut all = [Cell::default(); N];
        for cell in &mut all {
            (cell.mean, cell.n) = Wire::take(from)?;
        }
        Some(all)
    }
}

impl Wire for [Tail; WITNESSES] {
    fn put(&self, out: &mut Vec<u8>) {
        self.iter().for_each(|t| t.put(out));
    }
    fn take(from: &mut &[u8]) -> Option<Self> {
        let mut all = [Tail::default(); WITNESSES];
        for tail in &mut all {
            *tail = Wire::take(from)?;
        }
        Some(all)
    }
}

impl Wire for Tail {
    fn put(&self, out: &mut Vec<u8>) {
        self.floor.put(out);
        self.sum.put(out);
        self.counts.put(out);
    }
    fn take(from: &mut &[u8]) -> Option<Self> {
        let (floor, sum) = (Wire::take(from)?, Wire::take(from)?);
        let counts: [u16; 32] = Wire::take(from)?;
        // What follows from the counts is not believed.
        (sum == counts.iter().map(|c| u32::from(*c)).sum::<u32>()).then_some(Self { floor, sum, counts })
    }
}
