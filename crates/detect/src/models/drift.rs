//! How far recent days are from what was learned.
//!
//! Two measures over the same buckets. The population stability index (Siddiqi, *Credit Risk Scorecards*, 2006) sums,
//! over the tenths of the reference, (p - q) ln(p / q): 0 when nothing moved, and by the custom of that trade below 0.1
//! "no change worth a word", above 0.25 "a change that needs an answer". The Kolmogorov-Smirnov distance is the
//! largest gap between the two distribution functions: a share, 0 to 1. No p-values: readings of one series are not
//! independent, and with a million of them everything is significant.
//!
//! What is compared: values (what the family measures moved), spreads (it became noisier or calmer) and forecast errors
//! (it became harder to foretell). The largest of the three is the family's.

use super::learner::Summary;
use super::quantile::Quantiles;
use super::sketch::FamilyKey;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Bins of the index: the tenths of the reference.
const BINS: usize = 10;
/// A share below this counts as this: the logarithm of nothing is not finite. Half a reading of a thousand.
const SHARE_MIN: f64 = 5e-4;

/// When a family has drifted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct DriftConfig {
    /// Index above which a family is watched: it has moved somewhat.
    #[schemars(range(min = 0.01, max = 10.0))]
    pub watch_psi: f64,
    /// Index above which a family has drifted.
    #[schemars(range(min = 0.01, max = 10.0))]
    pub drift_psi: f64,
    /// Fewest readings on both sides before a word is said of a family.
    #[schemars(range(min = 20, max = 1_000_000_000))]
    pub readings_min: u64,
    /// Days that are recent.
    #[schemars(range(min = 1, max = 30))]
    pub recent_days: u32,
}

impl Default for DriftConfig {
    fn default() -> Self {
        Self { watch_psi: 0.1, drift_psi: 0.25, readings_min: 500, recent_days: 1 }
    }
}

/// What is to be thought of a family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Too few readings to say.
    TooFew,
    /// As it was.
    Stable,
    /// It moved somewhat.
    Watch,
    /// It is not what was learned.
    Drifted,
}

impl Verdict {
    /// Its name in JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::TooFew => "too_few",
            Self::Stable => "stable",
            Self::Watch => "watch",
            Self::Drifted => "drifted",
        }
    }
}

/// How far a family is from what was learned of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FamilyDrift {
    /// Which family.
    pub family: FamilyKey,
    /// What is to be thought of it.
    pub verdict: Verdict,
    /// Readings learned before.
    pub readings_before: u64,
    /// Recent readings.
    pub readings_recent: u64,
    /// Index of the values.
    pub psi: f64,
    /// Greatest gap between the distributions of the values, 0 to 1.
    pub ks: f64,
    /// Index of the spreads; `None` with too few series.
    pub psi_spread: Option<f64>,
    /// Index of the forecast errors; `None` with too few.
    pub psi_errors: Option<f64>,
    /// Median before.
    pub median_before: Option<f64>,
    /// Median of the recent readings.
    pub median_recent: Option<f64>,
}

impl FamilyDrift {
    /// The largest of its indices.
    pub fn worst(&self) -> f64 {
        self.psi.max(self.psi_spread.unwrap_or(0.0)).max(self.psi_errors.unwrap_or(0.0))
    }
}

/// Population stability index of `recent` against `before`; 0 where either has nothing.
pub fn psi(before: &Quantiles, recent: &Quantiles) -> f64 {
    let (n, m) = (before.count(), recent.count());
    if n == 0 || m == 0 {
        return 0.0;
    }
    // Edges at whole buckets of the reference: a bin holds its tenth or, where one value is common, more.
    let mut edges = Vec::with_capacity(BINS);
    let mut shares = Vec::with_capacity(BINS);
    let (mut seen, mut in_bin) = (0u64, 0u64);
    for (value, count) in before.ascending() {
        seen += count;
        in_bin += count;
        if seen as f64 >= n as f64 * (edges.len() + 1) as f64 / BINS as f64 {
            shares.push(in_bin as f64 / n as f64);
            in_bin = 0;
            // Several edges passed at once are one.
            edges.push(value);
        }
    }
    let mut counts = vec![0u64; edges.len()];
    let last = edges.len().saturating_sub(1);
    for (value, count) in recent.ascending() {
        let bin = edges.partition_point(|e| *e < value).min(last);
        if let Some(c) = counts.get_mut(bin) {
            *c += count;
        }
    }
    // What lies beyond the greatest value of the reference is in its last bin; it is a bin of its own where the
    // reference is nearly constant and there is no other to leave.
    let beyond: u64 = match edges.last() {
        Some(top) if edges.len() < BINS => {
            let n = recent.ascending().filter(|(v, _)| v > top).map(|(_, n)| n).sum();
            if let Some(c) = counts.last_mut() {
                *c -= n;
            }
            n
        }
        _ => 0,
    };
    let below: u64 = match (edges.first(), before.ascending().next()) {
        (Some(first), Some((least, _))) if *first == least => {
            let n = recent.ascending().filter(|(v, _)| *v < least).map(|(_, n)| n).sum();
            if let Some(c) = counts.first_mut() {
                *c -= n;
            }
            n
        }
        _ => 0,
    };
    let own = shares.iter().zip(&counts).map(|(q, c)| (*q, *c as f64 / m as f64));
    let outside = [beyond, below].map(|c| (0.0, c as f64 / m as f64));
    own.chain(outside)
        .map(|(q, p)| {
            let (q, p) = (q.max(SHARE_MIN), p.max(SHARE_MIN));
            (p - q) * (p / q).ln()
        })
        .sum()
}

/// Kolmogorov-Smirnov distance: the largest gap between the distribution functions, 0 to 1.
pub fn ks(before: &Quantiles, recent: &Quantiles) -> f64 {
    let (n, m) = (before.count() as f64, recent.count() as f64);
    if n == 0.0 || m == 0.0 {
        return 0.0;
    }
    let (mut a, mut b) = (before.ascending().peekable(), recent.ascending().peekable());
    let (mut seen_a, mut seen_b, mut gap) = (0.0, 0.0, 0.0f64);
    loop {
        let at = match (a.peek(), b.peek()) {
            (Some((x, _)), Some((y, _))) => x.min(*y),
            (Some((x, _)), None) | (None, Some((x, _))) => *x,
            (None, None) => return gap,
        };
        while let Some((_, c)) = a.next_if(|(v, _)| *v <= at) {
            seen_a += c as f64;
        }
        while let Some((_, c)) = b.next_if(|(v, _)| *v <= at) {
            seen_b += c as f64;
        }
        gap = gap.max((seen_a / n - seen_b / m).abs());
    }
}

/// Every family of either side, those that moved furthest first.
pub fn report(before: &Summary, recent: &Summary, config: &DriftConfig) -> Vec<FamilyDrift> {
    let mut out: Vec<FamilyDrift> = recent
        .families
        .iter()
        .map(|(key, now)| {
            let then = before.families.get(key).cloned().unwrap_or_default();
            let few = |a: &Quantiles, b: &Quantiles, min: u64| a.count() < min || b.count() < min;
            // A spread is one figure a series and day: a tenth of the bins must hold at least two.
            let spread_min = 2 * BINS as u64;
            let psi_spread = (!few(&then.spread, &now.spread, spread_min)).then(|| psi(&then.spread, &now.spread));
            let psi_errors =
                (!few(&then.errors, &now.errors, config.readings_min)).then(|| psi(&then.errors, &now.errors));
            let mut of = FamilyDrift {
                family: key.clone(),
                verdict: Verdict::TooFew,
                readings_before: then.moments.n,
                readings_recent: now.moments.n,
                psi: psi(&then.values, &now.values),
                ks: ks(&then.values, &now.values),
                psi_spread,
                psi_errors,
                median_before: then.values.quantile(0.5),
                median_recent: now.values.quantile(0.5),
            };
            if !few(&then.values, &now.values, config.readings_min) {
                of.verdict = match of.worst() {
                    w if w > config.drift_psi => Verdict::Drifted,
                    w if w > config.watch_psi => Verdict::Watch,
                    _ => Verdict::Stable,
                };
            }
            of
        })
        .collect();
    out.sort_by(|a, b| b.verdict.cmp(&a.verdict).then(b.worst().total_cmp(&a.worst())).then(a.family.cmp(&b.family)));
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(values: impl IntoIterator<Item = f64>) -> Quantiles {
        let mut q = Quantiles::default();
        values.into_iter().for_each(|v| q.add(v));
        q
    }

    /// Values 100 to 200, evenly, `n` of them, times a factor.
    fn even(n: u32, factor: f64) -> Quantiles {
        of((0..n).map(|i| factor * (100.0 + 100.0 * f64::from(i) / f64::from(n))))
    }

    #[test]
    fn what_did_not_move_is_near_zero_and_what_moved_is_not() {
        let before = even(10_000, 1.0);
        assert!(psi(&before, &even(3_000, 1.0)) < 0.01);
        assert!(ks(&before, &even(3_000, 1.0)) < 0.02);
        let (little, much) = (psi(&before, &even(3_000, 1.08)), psi(&before, &even(3_000, 1.5)));
        assert!(0.05 < little && little < much && much > 0.25, "{little} {much}");
        assert!(ks(&before, &even(3_000, 3.0)) > 0.99);
        assert_eq!(psi(&before, &Quantiles::default()), 0.0);
    }

    /// Nearly constant families have a single bin: leaving it either way must show.
    #[test]
    fn leaving_a_constant_shows_either_way() {
        let before = of(std::iter::repeat_n(1.0, 1_000));
        assert!(psi(&before, &of(std::iter::repeat_n(1.0, 900))) < 1e-9);
        for other in [0.0, 0.5, 2.0, -1.0] {
            let recent = of(std::iter::repeat_n(other, 900));
            assert!(psi(&before, &recent) > 0.25, "{other}");
            assert_eq!(ks(&before, &recent), 1.0);
        }
    }
}
