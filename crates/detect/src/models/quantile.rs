//! A quantile sketch with a relative error bound and an exact merge.
//!
//! DDSketch (Masson, Rim and Lee, *DDSketch: A Fast and Fully-Mergeable Quantile Sketch with Relative-Error
//! Guarantees*, PVLDB 2019): a value falls into the bucket of its logarithm, and a bucket is a count. Magnitudes are
//! bounded here to [`MAGNITUDE_MIN`] .. [`MAGNITUDE_MAX`], so that the number of buckets is bounded by the range and
//! nothing is ever collapsed: merging is the addition of whole numbers, hence exact, commutative and associative, and
//! the merge of two halves is the sketch of the whole, bit for bit.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Relative error of a quantile: the answer is within this share of a value that has the asked rank.
pub const ALPHA: f64 = 0.01;
/// Magnitudes below count as zero.
pub const MAGNITUDE_MIN: f64 = 1e-12;
/// Magnitudes above count as this.
pub const MAGNITUDE_MAX: f64 = 1e30;
/// Buckets of one sign at most: ln(max / min) / ln((1 + alpha) / (1 - alpha)), rounded up.
pub const BUCKETS_MAX: usize = 4_840;

/// Ratio of a bucket's upper to its lower edge.
const GAMMA: f64 = (1.0 + ALPHA) / (1.0 - ALPHA);

/// Counts of values by their logarithm.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quantiles {
    /// Values that count as zero.
    zero: u64,
    /// Positive values: bucket and count, by bucket.
    #[serde(with = "pairs")]
    above: BTreeMap<i16, u64>,
    /// Negative values, by the bucket of their magnitude.
    #[serde(with = "pairs")]
    below: BTreeMap<i16, u64>,
}

/// Bucket of a magnitude within the bounds: the least i with gamma^i >= magnitude.
fn bucket(magnitude: f64) -> i16 {
    // At most ln(1e30) / ln(gamma), 3,454.
    (magnitude.min(MAGNITUDE_MAX).ln() / GAMMA.ln()).ceil() as i16
}

/// What stands for a bucket: within alpha of everything in it.
fn middle(bucket: i16) -> f64 {
    2.0 * GAMMA.powi(i32::from(bucket)) / (GAMMA + 1.0)
}

impl Quantiles {
    /// Takes in a value; what is no number is left out.
    pub fn add(&mut self, value: f64) {
        if value.is_nan() {
            return;
        }
        let count = match value.abs() {
            m if m < MAGNITUDE_MIN => &mut self.zero,
            m if value > 0.0 => self.above.entry(bucket(m)).or_default(),
            m => self.below.entry(bucket(m)).or_default(),
        };
        *count = count.saturating_add(1);
    }

    /// Adds another's counts. Exact.
    pub fn merge(&mut self, other: &Self) {
        self.zero = self.zero.saturating_add(other.zero);
        for (mine, theirs) in [(&mut self.above, &other.above), (&mut self.below, &other.below)] {
            for (bucket, n) in theirs {
                let count = mine.entry(*bucket).or_default();
                *count = count.saturating_add(*n);
            }
        }
    }

    /// Values taken in.
    pub fn count(&self) -> u64 {
        self.above.values().chain(self.below.values()).fold(self.zero, |sum, n| sum.saturating_add(*n))
    }

    /// Buckets in use, for the size.
    pub fn buckets(&self) -> usize {
        self.above.len() + self.below.len() + usize::from(self.zero > 0)
    }

    /// Buckets from the least value to the greatest: what stands for each, and its count.
    pub fn ascending(&self) -> impl Iterator<Item = (f64, u64)> {
        let below = self.below.iter().rev().map(|(b, n)| (-middle(*b), *n));
        let zero = (self.zero > 0).then_some((0.0, self.zero));
        let above = self.above.iter().map(|(b, n)| (middle(*b), *n));
        below.chain(zero).chain(above)
    }

    /// The value of rank `q` (0 to 1), within [`ALPHA`] of it; `None` where there are no values.
    pub fn quantile(&self, q: f64) -> Option<f64> {
        let count = self.count();
        if count == 0 {
            return None;
        }
        let rank = (q.clamp(0.0, 1.0) * (count - 1) as f64).floor() as u64;
        let mut seen = 0u64;
        let mut last = None;
        for (value, n) in self.ascending() {
            seen = seen.saturating_add(n);
            last = Some(value);
            if seen > rank {
                break;
            }
        }
        last
    }

    /// Whether buckets and counts can have come from [`Self::add`].
    pub(crate) fn is_sound(&self) -> bool {
        let lowest = bucket(MAGNITUDE_MIN);
        let highest = bucket(MAGNITUDE_MAX);
        self.above.iter().chain(&self.below).all(|(b, n)| (lowest..=highest).contains(b) && *n > 0)
    }
}

/// Buckets as pairs: half the text of a map with names.
mod pairs {
    use super::BUCKETS_MAX;
    use serde::de::{Error, SeqAccess, Visitor};
    use serde::{Deserializer, Serializer};
    use std::collections::BTreeMap;

    pub(super) fn serialize<S: Serializer>(of: &BTreeMap<i16, u64>, to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(of.iter())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<BTreeMap<i16, u64>, D::Error> {
        struct Pairs;
        impl<'de> Visitor<'de> for Pairs {
            type Value = BTreeMap<i16, u64>;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("pairs of a bucket and a count, by bucket")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
                let mut out = BTreeMap::new();
                while let Some((bucket, n)) = seq.next_element::<(i16, u64)>()? {
                    if out.len() == BUCKETS_MAX {
                        return Err(A::Error::custom(format_args!("more than {BUCKETS_MAX} buckets")));
                    }
                    if out.last_key_value().is_some_and(|(last, _)| *last >= bucket) {
                        return Err(A::Error::custom("buckets are not in order"));
                    }
                    out.insert(bucket, n);
                }
                Ok(out)
            }
        }
        from.deserialize_seq(Pairs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn of(values: &[f64]) -> Quantiles {
        let mut q = Quantiles::default();
        values.iter().for_each(|v| q.add(*v));
        q
    }

    #[test]
    fn the_range_bounds_the_buckets() {
        let span = i32::from(bucket(MAGNITUDE_MAX)) - i32::from(bucket(MAGNITUDE_MIN)) + 1;
        assert!(usize::try_from(span).unwrap() <= BUCKETS_MAX, "{span}");
        let q = of(&[f64::INFINITY, f64::NEG_INFINITY, f64::NAN, 0.0, -0.0, 1e-300, f64::MAX]);
        assert_eq!((q.count(), q.buckets()), (6, 3));
        assert_eq!(Quantiles::default().quantile(0.5), None);
    }

    #[test]
    fn buckets_out_of_order_or_out_of_range_are_refused() {
        let read = |t: &str| serde_json::from_str::<Quantiles>(t);
        assert!(read(r#"{"zero":0,"above":[[2,1],[1,1]],"below":[]}"#).unwrap_err().to_string().contains("order"));
        assert!(read(r#"{"zero":0,"above":[[40000,1]],"below":[]}"#).is_err());
        assert!(!read(r#"{"zero":0,"above":[[4000,1]],"below":[]}"#).unwrap().is_sound());
        assert!(!read(r#"{"zero":0,"above":[[4,0]],"below":[]}"#).unwrap().is_sound());
    }

    /// Sizes from the very small to the very large, both signs and zero.
    fn value() -> impl Strategy<Value = f64> {
        prop_oneof![
            1 => Just(0.0),
            8 => (any::<bool>(), -11.0f64..29.0).prop_map(|(up, e)| if up { 10f64.powf(e) } else { -(10f64.powf(e)) }),
        ]
    }

    proptest! {
        #[test]
        fn a_quantile_is_within_alpha_of_the_value_of_that_rank(
            mut values in prop::collection::vec(value(), 1..300), q in 0.0f64..=1.0
        ) {
            let got = of(&values).quantile(q).unwrap();
            values.sort_by(f64::total_cmp);
            let want = values[(q * (values.len() - 1) as f64).floor() as usize];
            prop_assert!((got - want).abs() <= ALPHA * want.abs() * (1.0 + 1e-9), "{got} for {want}");
        }

        #[test]
        fn a_merge_is_the_sketch_of_the_whole_in_any_order(
            a in prop::collection::vec(value(), 0..80),
            b in prop::collection::vec(value(), 0..80),
            c in prop::collection::vec(value(), 0..80),
        ) {
            let whole = of(&[a.clone(), b.clone(), c.clone()].concat());
            let (a, b, c) = (of(&a), of(&b), of(&c));
            let mut left = a.clone();
            left.merge(&b);
            left.merge(&c);
            let mut right = c;
            right.merge(&b);
            right.merge(&a);
            prop_assert_eq!(&left, &whole);
            prop_assert_eq!(&right, &whole);
            let text = serde_json::to_string(&whole).unwrap();
            prop_assert_eq!(serde_json::from_str::<Quantiles>(&text).unwrap(), whole);
        }
    }
}
