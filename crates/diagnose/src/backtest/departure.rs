//! How far a recorded metric left its usual range, in robust standard deviations.
//!
//! The usual range comes from a fault-free period by order statistics (median, quartiles, a high quantile of what
//! lasts two rows): they hold when that period is a little soiled and when the moment of the fault is off by a minute,
//! where means and standard deviations collapse. A fault shows as a change now, so a departure counts only as far as
//! it is one from the rows just before as well.

/// Least normal values for quantiles to mean anything.
const NORMAL_MIN: usize = 8;
/// Quantile of the usual departures that last two rows, and where a normal distribution has it: a fortieth of a
/// "fault-free" period may be soiled. Theory; 0.95 and 0.9 gave the same ranking but for one case of fifty.
const TAIL: (f64, f64) = (0.975, 1.96);
/// The same for single rows, which may be measured a little more wrongly.
const TAIL_SINGLE: (f64, f64) = (0.99, 2.33);
/// A departure of one row only is worth half of one that lasts.
const SINGLE: f64 = 0.5;
/// Rows between the two values of a usual change: about as far apart as the rows before and after an alert.
const LAG: usize = 4;
/// Standard deviations below which a departure is noise, and how many more leave no doubt: amounts must add up, so what
/// is sure is not weighed any more.
const NOISE: f64 = 3.0;
const SURE: f64 = 12.0;

/// A sustained departure of one metric the bad way.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Departure {
    /// Robust standard deviations, 0 when it did not leave the bad way.
    pub(super) sigma: f64,
    /// By how much, in the metric's unit; 0 or more.
    pub(super) delta: f64,
    /// The usual value.
    pub(super) usual: f64,
    /// Whether a fault-free period says what is usual.
    pub(super) known: bool,
}

impl Departure {
    /// 0 for noise, 1 for what cannot be chance.
    pub(super) fn weight(&self) -> f64 {
        ((self.sigma - NOISE) / SURE).clamp(0.0, 1.0)
    }
}

/// What counts as a departure of a metric.
#[derive(Debug, Clone, Copy)]
pub(super) struct Way {
    /// Whether falling is bad.
    pub(super) down: bool,
    /// Least standard deviation as a share of the median, so that a series that never moved does not make every
    /// change infinite.
    pub(super) floor: f64,
    /// Whether only the change against the rows just before counts: a level that differs from process to process, like
    /// memory.
    pub(super) change_only: bool,
}

/// The values of one metric: fault-free, just before the alert and after it.
pub(super) struct Values<'a> {
    /// Finite values of the fault-free period, in order of time.
    pub(super) normal: &'a [f64],
    /// The same before the alert.
    pub(super) before: &'a [f64],
    /// The same from about the alert on.
    pub(super) after: &'a [f64],
}

/// Buffers that are used again for the next metric.
#[derive(Default)]
pub(super) struct Scratch {
    one: Vec<f64>,
    two: Vec<f64>,
}

impl Scratch {
    /// Judges one metric. Quantiles are found one by one, cheap ones first: most metrics are at rest and end early.
    pub(super) fn departure(&mut self, values: &Values<'_>, way: Way) -> Departure {
        let known = values.normal.len() >= NORMAL_MIN;
        let base = if known { values.normal } else { values.before };
        if base.is_empty() || values.after.is_empty() {
            return Departure::default();
        }
        let sign = if way.down { -1.0 } else { 1.0 };
        let usual = self.median(base);
        let mut out = Departure { usual, known, ..Departure::default() };
        let floor = way.floor * magnitude(base, usual, values.after);
        let (lasting, single) = worst(values.after, usual, sign);
        let change = (!values.before.is_empty() && values.normal.len() >= NORMAL_MIN + LAG).then(|| {
            let level = self.median(values.before);
            worst(values.after, level, sign).0
        });
        let nothing = |delta: f64| delta <= NOISE * floor;
        if let Some(change) = change.filter(|_| way.change_only) {
            if !nothing(change) {
                out.delta = change;
                out.sigma = change / self.spread_of_changes(values.normal, sign, floor);
            }
            return out;
        }
        if nothing(lasting.max(SINGLE * single)) {
            return out;
        }
        let (mut delta, mut sigma) = self.against_level(base, usual, sign, floor, lasting, single, values.after.len());
        if let Some(change) = change.filter(|_| sigma > NOISE) {
            // Two noisy levels are compared: the difference of two has the deviation of one times the root of two.
            let of_change = change.max(0.0) / self.spread_of_changes(values.normal, sign, floor);
            sigma = sigma.min(of_change * std::f64::consts::SQRT_2);
            delta = delta.min(change.max(0.0));
        }
        out.delta = delta.max(0.0);
        out.sigma = sigma.max(0.0);
        out
    }

    #[expect(clippy::too_many_arguments, reason = "one step of `departure`, cut out for its length")]
    fn against_level(
        &mut self,
        base: &[f64],
        usual: f64,
        sign: f64,
        floor: f64,
        lasting: f64,
        single: f64,
        rows: usize,
    ) -> (f64, f64) {
        self.one.clear();
        self.one.extend(base.iter().map(|v| sign * (v - usual)));
        self.pairs_of_one(rows > 1);
        let lasting_tail = quantile(&mut self.two, TAIL.0) / TAIL.1;
        let quartiles = (quantile(&mut self.one, 0.75) - quantile(&mut self.one, 0.25)) / 1.349;
        let spread = quartiles.max(floor);
        let of_lasting = lasting / spread.max(lasting_tail);
        if SINGLE * single / spread <= of_lasting {
            return (lasting, of_lasting);
        }
        let of_single = SINGLE * single / spread.max(quantile(&mut self.one, TAIL_SINGLE.0) / TAIL_SINGLE.1);
        if of_single > of_lasting { (SINGLE * single, of_single) } else { (lasting, of_lasting) }
    }

    /// Standard deviation of how the metric usually changes within a few rows.
    fn spread_of_changes(&mut self, normal: &[f64], sign: f64, floor: f64) -> f64 {
        self.one.clear();
        self.one.extend(normal.iter().skip(LAG).zip(normal).map(|(later, earlier)| sign * (later - earlier)));
        self.pairs_of_one(true);
        let tail = quantile(&mut self.two, TAIL.0) / TAIL.1;
        let quartiles = (quantile(&mut self.one, 0.75) - quantile(&mut self.one, 0.25)) / 1.349;
        quartiles.max(tail).max(floor)
    }

    /// What lasts two rows: the smaller of neighbours.
    fn pairs_of_one(&mut self, pairs: bool) {
        self.two.clear();
        if pairs && self.one.len() > 1 {
            self.two.extend(self.one.windows(2).map(|w| w[0].min(w[1])));
        } else {
            self.two.extend_from_slice(&self.one);
        }
    }

    fn median(&mut self, values: &[f64]) -> f64 {
        self.one.clear();
        self.one.extend_from_slice(values);
        quantile(&mut self.one, 0.5)
    }
}

/// How large the values are: of a metric that is mostly zero the median says nothing.
fn magnitude(base: &[f64], usual: f64, after: &[f64]) -> f64 {
    let mean = base.iter().map(|v| v.abs()).sum::<f64>() / base.len().max(1) as f64;
    let of_base = usual.abs().max(mean);
    if of_base > 0.0 { of_base } else { after.iter().fold(f64::MIN_POSITIVE, |m, v| m.max(v.abs())) }
}

/// The largest departure from a level that lasts two rows, and the largest of one row.
fn worst(values: &[f64], level: f64, sign: f64) -> (f64, f64) {
    let of = |v: &f64| sign * (v - level);
    let single = values.iter().map(of).fold(f64::NEG_INFINITY, f64::max);
    let lasting = values.windows(2).map(|w| of(&w[0]).min(of(&w[1]))).fold(f64::NEG_INFINITY, f64::max);
    (if values.len() > 1 { lasting } else { single }, single)
}

/// Quantile with linear interpolation; 0 of nothing. The order of the values changes.
fn quantile(values: &mut [f64], q: f64) -> f64 {
    if values.is_empty() {
        return 0.0;
    }
    let place = q * (values.len() - 1) as f64;
    let low = place.floor() as usize;
    let (_, at, rest) = values.select_nth_unstable_by(low, f64::total_cmp);
    let at = *at;
    let next = rest.iter().copied().min_by(f64::total_cmp).unwrap_or(at);
    at + (next - at) * (place - low as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    const UP: Way = Way { down: false, floor: 0.02, change_only: false };

    fn judge(normal: &[f64], before: &[f64], after: &[f64], way: Way) -> Departure {
        Scratch::default().departure(&Values { normal, before, after }, way)
    }

    fn noise() -> Vec<f64> {
        (0..200).map(|i| 10.0 + f64::from(i * 7 % 11) / 10.0).collect()
    }

    #[test]
    fn what_lasts_counts_and_noise_does_not() {
        assert_eq!(judge(&noise(), &[10.4], &[10.2, 10.9, 10.6], UP).weight(), 0.0);
        let lasting = judge(&noise(), &[10.4], &[10.2, 15.0, 15.0], UP);
        let blip = judge(&noise(), &[10.4], &[10.2, 15.0, 10.3], UP);
        assert!(lasting.weight() > 0.3 && blip.sigma < lasting.sigma, "{lasting:?} {blip:?}");
        assert_eq!(judge(&noise(), &[10.4], &[5.0, 5.0], UP).sigma, 0.0, "the good way");
    }

    #[test]
    fn what_was_so_before_is_no_change_now() {
        assert!(judge(&noise(), &[15.0, 15.0], &[15.0, 15.1], UP).sigma < NOISE);
        assert!(judge(&noise(), &[], &[15.0, 15.1], UP).sigma > NOISE, "nothing is known of before");
    }

    #[test]
    fn a_few_soiled_rows_do_not_hide_a_fault() {
        let mut normal = vec![100.0; 500];
        for v in normal.iter_mut().take(8) {
            *v = 90.0;
        }
        let down = Way { down: true, floor: 0.002, change_only: false };
        assert!(judge(&normal, &[100.0], &[97.0, 96.5, 100.0], down).sigma > 2.0 * NOISE);
    }

    #[test]
    fn the_unit_does_not_matter() {
        let scaled = |k: f64| {
            let normal: Vec<f64> = noise().iter().map(|v| v * k).collect();
            judge(&normal, &[10.4 * k], &[12.0 * k, 13.0 * k], UP).sigma
        };
        assert!((scaled(1.0) - scaled(1e4)).abs() < 1e-6);
    }

    #[test]
    fn nothing_and_little_are_no_departure() {
        assert_eq!(judge(&[], &[], &[5.0], UP), Departure::default());
        assert_eq!(judge(&[1.0], &[], &[5.0], UP), Departure::default());
        assert_eq!(judge(&noise(), &[1.0], &[], UP), Departure::default());
        assert!(!judge(&[], &[1.0], &[5.0, 6.0], UP).known);
    }
}
