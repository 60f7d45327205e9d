//! Native histograms: to series that detectors can follow.

use super::wire::WireError;
use crate::expo::{Exponential, QUANTILES};
use crate::ingest::Writer;
use nightshift_model::Timestamp;
use nightshift_model::batch::{SeriesKind, labels};
use prost::Message;

/// Buckets of one histogram beyond this are refused: Prometheus makes at most some hundreds.
const BUCKETS_MAX: usize = 20_000;

/// Schema of histograms with custom boundaries.
const CUSTOM: i32 = -53;

/// `BucketSpan`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Span {
    #[prost(sint32, tag = "1")]
    pub(crate) offset: i32,
    #[prost(uint32, tag = "2")]
    pub(crate) length: u32,
}

/// `Histogram`, alike in remote write 1.0 and 2.0.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Histogram {
    #[prost(uint64, optional, tag = "1")]
    pub(crate) count_int: Option<u64>,
    #[prost(double, optional, tag = "2")]
    pub(crate) count_float: Option<f64>,
    #[prost(double, tag = "3")]
    pub(crate) sum: f64,
    #[prost(sint32, tag = "4")]
    pub(crate) schema: i32,
    #[prost(uint64, optional, tag = "6")]
    pub(crate) zero_count_int: Option<u64>,
    #[prost(double, optional, tag = "7")]
    pub(crate) zero_count_float: Option<f64>,
    #[prost(message, repeated, tag = "8")]
    pub(crate) negative_spans: Vec<Span>,
    #[prost(sint64, repeated, tag = "9")]
    pub(crate) negative_deltas: Vec<i64>,
    #[prost(double, repeated, tag = "10")]
    pub(crate) negative_counts: Vec<f64>,
    #[prost(message, repeated, tag = "11")]
    pub(crate) positive_spans: Vec<Span>,
    #[prost(sint64, repeated, tag = "12")]
    pub(crate) positive_deltas: Vec<i64>,
    #[prost(double, repeated, tag = "13")]
    pub(crate) positive_counts: Vec<f64>,
    #[prost(int64, tag = "15")]
    pub(crate) timestamp: i64,
    #[prost(double, repeated, tag = "16")]
    pub(crate) custom_values: Vec<f64>,
}

/// Takes one histogram of the series `raw`: its count, its sum, and estimates of some quantiles.
///
/// # Errors
/// When it is not protobuf, or its spans and counts do not fit.
#[cold]
pub(crate) fn put(writer: &mut Writer<'_>, raw: &[u8], message: &[u8]) -> Result<(), WireError> {
    const UNFIT: WireError = WireError("spans and counts of a histogram do not fit");
    let h = Histogram::decode(message).map_err(|_| WireError("a histogram of the request is not protobuf"))?;
    let at = Timestamp::from_millis(h.timestamp);
    let count = h.count_float.or(h.count_int.map(|n| n as f64)).unwrap_or(0.0);
    let positive = buckets(&h.positive_spans, &h.positive_deltas, &h.positive_counts).ok_or(UNFIT)?;
    let negative = buckets(&h.negative_spans, &h.negative_deltas, &h.negative_counts).ok_or(UNFIT)?;
    let Ok(found) = labels::iter(raw).collect::<Result<Vec<_>, _>>() else {
        // Counted with its reason as any series with such labels.
        writer.series(raw, None, &[(at, count)]);
        return Ok(());
    };
    let name = labels::metric_name(raw);
    let mut one = |suffix: &str, quantile: Option<&str>, kind, value: f64| {
        let full = format!("{name}{suffix}");
        let renamed = found.iter().map(|(n, v)| (*n, if *n == labels::NAME { &full } else { *v }));
        let wire = labels::encode(quantile.map(|q| ("quantile", q)).into_iter().chain(renamed));
        writer.series(&wire, Some(kind), &[(at, value)]);
    };
    one("_count", None, SeriesKind::Counter, count);
    one("_sum", None, SeriesKind::Counter, h.sum);
    // A stale marker is in the sum; it has no quantiles.
    if h.schema == CUSTOM || !h.sum.is_finite() {
        return Ok(());
    }
    let zero = h.zero_count_float.or(h.zero_count_int.map(|n| n as f64)).unwrap_or(0.0);
    let estimate = Exponential { scale: h.schema, zero, positive: &positive, negative: &negative };
    for (label, q) in QUANTILES {
        if let Some(value) = estimate.quantile(q) {
            one("", Some(label), SeriesKind::Gauge, value);
        }
    }
    Ok(())
}

/// Index of each bucket (its upper bound is base to this power) with what is in it; `None` when the parts do not fit.
fn buckets(spans: &[Span], deltas: &[i64], counts: &[f64]) -> Option<Vec<(i32, f64)>> {
    let n = spans.iter().try_fold(0usize, |n, s| n.checked_add(s.length as usize))?;
    if n > BUCKETS_MAX || n != deltas.len().max(counts.len()) {
        return None;
    }
    let mut out = Vec::with_capacity(n);
    let (mut index, mut running) = (0i32, 0i64);
    for span in spans {
        index = index.checked_add(span.offset)?;
        for _ in 0..span.length {
            let i = out.len();
            let count = match counts.get(i) {
                Some(count) => *count,
                None => {
                    running = running.checked_add(*deltas.get(i)?)?;
                    running as f64
                }
            };
            out.push((index, count));
            index = index.checked_add(1)?;
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_and_deltas_become_buckets() {
        let span = |offset, length| Span { offset, length };
        assert_eq!(buckets(&[span(0, 2), span(1, 1)], &[1, 1, -1], &[]), Some(vec![(0, 1.0), (1, 2.0), (3, 1.0)]));
        assert_eq!(buckets(&[span(-2, 1)], &[], &[4.5]), Some(vec![(-2, 4.5)]));
        for (spans, deltas) in [
            (vec![span(0, 2)], vec![1]),
            (vec![span(0, u32::MAX), span(0, u32::MAX)], vec![1]),
            (vec![span(i32::MAX, 2)], vec![1, 1]),
            (vec![span(0, 2)], vec![i64::MAX, 1]),
            (vec![], vec![1]),
        ] {
            assert_eq!(buckets(&spans, &deltas, &[]), None, "{spans:?}");
        }
    }
}
