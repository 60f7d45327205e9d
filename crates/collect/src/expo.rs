//! Quantiles of histograms with exponential buckets, as Prometheus and OpenTelemetry both have them.

/// The quantiles that are followed, with the value of the `quantile` label.
pub(crate) const QUANTILES: [(&str, f64); 3] = [("0.5", 0.5), ("0.95", 0.95), ("0.99", 0.99)];

/// A histogram whose bucket `i` holds values in `(base^(i-1), base^i]`, `base = 2^(2^-scale)`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Exponential<'a> {
    pub(crate) scale: i32,
    /// Count of values near zero.
    pub(crate) zero: f64,
    /// Ascending by index.
    pub(crate) positive: &'a [(i32, f64)],
    /// The same for the magnitude of negative values.
    pub(crate) negative: &'a [(i32, f64)],
}

impl Exponential<'_> {
    /// Estimate of a quantile: the geometric middle of the bucket in which it falls, which is off by at most half the
    /// width of the bucket. `None` for an empty histogram or one that is broken.
    pub(crate) fn quantile(&self, q: f64) -> Option<f64> {
        let all = self.negative.iter().chain(self.positive).map(|(_, n)| *n);
        let total = self.zero + all.sum::<f64>();
        if !(total.is_finite() && total > 0.0) {
            return None;
        }
        let rank = q * total;
        let mut below = 0.0;
        for (index, n) in self.negative.iter().rev() {
            below += n;
            if below >= rank {
                return self.middle(*index).map(|v| -v);
            }
        }
        below += self.zero;
        if below >= rank {
            return Some(0.0);
        }
        for (index, n) in self.positive {
            below += n;
            if below >= rank {
                return self.middle(*index);
            }
        }
        self.positive.last().and_then(|(index, _)| self.middle(*index))
    }

    fn middle(&self, index: i32) -> Option<f64> {
        let exponent = (f64::from(index) - 0.5) * f64::from(-self.scale).exp2();
        Some(exponent.exp2()).filter(|v| v.is_finite())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_fall_into_their_bucket() {
        // Scale 0: bucket 1 is (1, 2], bucket 4 (8, 16].
        let h = Exponential { scale: 0, zero: 0.0, positive: &[(1, 90.0), (4, 10.0)], negative: &[] };
        let near = |q, low, high| {
            let v = h.quantile(q).unwrap();
            assert!(v > low && v < high, "{q}: {v}");
        };
        near(0.5, 1.0, 2.0);
        near(0.9, 1.0, 2.0);
        near(0.95, 8.0, 16.0);
        near(1.0, 8.0, 16.0);
        let signed = Exponential { scale: 0, zero: 2.0, positive: &[(1, 1.0)], negative: &[(1, 1.0), (2, 1.0)] };
        assert!(signed.quantile(0.1).unwrap() < -2.0);
        assert_eq!(signed.quantile(0.5), Some(0.0));
    }

    #[test]
    fn empty_and_broken_histograms_have_none() {
        for positive in
            [&[][..], &[(1, 0.0)], &[(1, f64::NAN)], &[(1, f64::INFINITY)], &[(1, -4.0)], &[(i32::MAX, 1.0)]]
        {
            let h = Exponential { scale: 0, zero: 0.0, positive, negative: &[] };
            assert_eq!(h.quantile(0.5), None, "{positive:?}");
        }
        let coarse = Exponential { scale: -2000, zero: 0.0, positive: &[(3, 1.0)], negative: &[] };
        assert_eq!(coarse.quantile(0.5), None);
    }
}
