//! OTLP metrics to series: all five kinds, delta and cumulative.
//!
//! | kind | series |
//! | --- | --- |
//! | gauge, sum | `NAME` |
//! | histogram | `NAME_count`, `NAME_sum`, `NAME_bucket{le}` (cumulative over the buckets, as Prometheus has them) |
//! | exponential histogram | `NAME_count`, `NAME_sum`, `NAME{quantile}` for 0.5, 0.95, 0.99 (estimated per point) |
//! | summary | `NAME_count`, `NAME_sum`, `NAME{quantile}` |
//!
//! A cumulative monotonic sum is a counter, any delta a delta, the rest is a level.

use super::attributes::{nanos, resource, scope_name, text};
use crate::expo::{Exponential, QUANTILES};
use crate::{Attributes, MetricPoint};
use nightshift_model::Timestamp;
use nightshift_model::batch::SeriesKind;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::metrics::v1::exponential_histogram_data_point::Buckets;
use opentelemetry_proto::tonic::metrics::v1::{
    AggregationTemporality, ExponentialHistogramDataPoint, HistogramDataPoint, Metric, NumberDataPoint,
    SummaryDataPoint, metric, number_data_point,
};
use std::net::IpAddr;
use std::sync::Arc;

/// Buckets of one histogram beyond this are refused; SDKs make at most some hundreds.
const BUCKETS_MAX: usize = 20_000;

/// Flag of a point that says "no value": the series has ended.
const NO_RECORDED_VALUE: u32 = 1;

/// What a request holds.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Points {
    /// Samples of all series.
    pub(crate) points: Vec<MetricPoint>,
    /// Data points that are broken: buckets and bounds that do not fit.
    pub(crate) rejected: u64,
    /// Data points, as the client counts them.
    pub(crate) data_points: u64,
}

/// All samples of a request. `now`: for points that do not say when.
pub(crate) fn points(request: &ExportMetricsServiceRequest, peer: Option<IpAddr>, now: Timestamp) -> Points {
    let mut out = Points::default();
    for of_resource in &request.resource_metrics {
        let resource = resource(of_resource.resource.as_ref(), peer);
        for of_scope in &of_resource.scope_metrics {
            let scope = scope_name(of_scope.scope.as_ref());
            for metric in &of_scope.metrics {
                Series { out: &mut out, resource: &resource, scope, metric, now }.all();
            }
        }
    }
    out
}

struct Series<'a> {
    out: &'a mut Points,
    resource: &'a Arc<Attributes>,
    scope: &'a str,
    metric: &'a Metric,
    now: Timestamp,
}

/// A point's own part of its samples.
struct At {
    at: Timestamp,
    labels: Vec<(String, String)>,
    ended: bool,
}

impl Series<'_> {
    fn all(&mut self) {
        use metric::Data;
        match &self.metric.data {
            None => {}
            Some(Data::Gauge(g)) => self.numbers(&g.data_points, SeriesKind::Gauge),
            Some(Data::Sum(s)) => {
                let kind = match (is_delta(s.aggregation_temporality), s.is_monotonic) {
                    (true, _) => SeriesKind::Delta,
                    (false, true) => SeriesKind::Counter,
                    (false, false) => SeriesKind::Gauge,
                };
                self.numbers(&s.data_points, kind);
            }
            Some(Data::Histogram(h)) => {
                let kind = cumulative_or_delta(h.aggregation_temporality);
                h.data_points.iter().for_each(|p| self.histogram(p, kind));
            }
            Some(Data::ExponentialHistogram(h)) => {
                let kind = cumulative_or_delta(h.aggregation_temporality);
                h.data_points.iter().for_each(|p| self.exponential(p, kind));
            }
            Some(Data::Summary(s)) => s.data_points.iter().for_each(|p| self.summary(p)),
        }
    }

    fn at(&mut self, time: u64, attributes: &[KeyValue], flags: u32) -> At {
        self.out.data_points += 1;
        let at = if time == 0 { self.now } else { Timestamp(nanos(time)) };
        let scope = (!self.scope.is_empty()).then(|| ("otel_scope_name".to_owned(), self.scope.to_owned()));
        let own = attributes.iter().filter_map(|kv| Some((kv.key.clone(), text(kv.value.as_ref())?)));
        At { at, labels: own.chain(scope).collect(), ended: flags & NO_RECORDED_VALUE != 0 }
    }

    fn put(&mut self, at: &At, suffix: &str, extra: Option<(&str, String)>, kind: SeriesKind, value: f64) {
        let mut labels = at.labels.clone();
        if let Some((name, value)) = extra {
            labels.retain(|(n, _)| n != name);
            labels.push((name.to_owned(), value));
        }
        // The sink drops a stale marker and counts it as what it is.
        let value = if at.ended { f64::from_bits(crate::ingest::STALE) } else { value };
        self.out.points.push(MetricPoint {
            resource: self.resource.clone(),
            name: format!("{}{suffix}", self.metric.name),
            labels,
            kind,
            at: at.at,
            value,
        });
    }

    fn numbers(&mut self, points: &[NumberDataPoint], kind: SeriesKind) {
        for p in points {
            let at = self.at(p.time_unix_nano, &p.attributes, p.flags);
            let value = match p.value {
                Some(number_data_point::Value::AsDouble(v)) => v,
                Some(number_data_point::Value::AsInt(v)) => v as f64,
                None if at.ended => 0.0,
                None => {
                    self.out.rejected += 1;
                    continue;
                }
            };
            self.put(&at, "", None, kind, value);
        }
    }

    fn histogram(&mut self, p: &HistogramDataPoint, kind: SeriesKind) {
        let at = self.at(p.time_unix_nano, &p.attributes, p.flags);
        let (counts, bounds) = (&p.bucket_counts, &p.explicit_bounds);
        let fits = counts.is_empty() && bounds.is_empty() || counts.len() == bounds.len() + 1;
        let ascending = bounds.windows(2).all(|w| w[0] < w[1]) && !bounds.iter().any(|b| b.is_nan());
        if !fits || !ascending || counts.len() > BUCKETS_MAX {
            self.out.rejected += 1;
            return;
        }
        self.put(&at, "_count", None, kind, p.count as f64);
        if let Some(sum) = p.sum {
            self.put(&at, "_sum", None, kind, sum);
        }
        let mut below = 0u64;
        let ends = bounds.iter().map(f64::to_string).chain(std::iter::once("+Inf".to_owned()));
        for (count, le) in counts.iter().zip(ends) {
            below = below.saturating_add(*count);
            self.put(&at, "_bucket", Some(("le", le)), kind, below as f64);
        }
    }

    fn exponential(&mut self, p: &ExponentialHistogramDataPoint, kind: SeriesKind) {
        let at = self.at(p.time_unix_nano, &p.attributes, p.flags);
        let (Some(positive), Some(negative)) = (buckets(p.positive.as_ref()), buckets(p.negative.as_ref())) else {
            self.out.rejected += 1;
            return;
        };
        self.put(&at, "_count", None, kind, p.count as f64);
        if let Some(sum) = p.sum {
            self.put(&at, "_sum", None, kind, sum);
        }
        let zero = p.zero_count as f64;
        let estimate = Exponential { scale: p.scale, zero, positive: &positive, negative: &negative };
        for (label, q) in QUANTILES {
            if let Some(value) = estimate.quantile(q) {
                self.put(&at, "", Some(("quantile", label.to_owned())), SeriesKind::Gauge, value);
            }
        }
    }

    fn summary(&mut self, p: &SummaryDataPoint) {
        let at = self.at(p.time_unix_nano, &p.attributes, p.flags);
        self.put(&at, "_count", None, SeriesKind::Counter, p.count as f64);
        self.put(&at, "_sum", None, SeriesKind::Counter, p.sum);
        for q in p.quantile_values.iter().take(BUCKETS_MAX) {
            self.put(&at, "", Some(("quantile", q.quantile.to_string())), SeriesKind::Gauge, q.value);
        }
    }
}

fn is_delta(temporality: i32) -> bool {
    temporality == AggregationTemporality::Delta as i32
}

fn cumulative_or_delta(temporality: i32) -> SeriesKind {
    if is_delta(temporality) { SeriesKind::Delta } else { SeriesKind::Counter }
}

/// OTLP's bucket `i` ends at `base^(i+1)`, ours at `base^i`. `None` when there are too many or they leave the range.
fn buckets(buckets: Option<&Buckets>) -> Option<Vec<(i32, f64)>> {
    let Some(b) = buckets else { return Some(Vec::new()) };
    if b.bucket_counts.len() > BUCKETS_MAX {
        return None;
    }
    let first = b.offset.checked_add(1)?;
    b.bucket_counts
        .iter()
        .enumerate()
        .map(|(i, n)| Some((first.checked_add(i32::try_from(i).ok()?)?, *n as f64)))
        .collect()
}
