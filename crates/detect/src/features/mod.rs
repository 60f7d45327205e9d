//! Features per service and minute: latency (mean, p95, p99), error ratio, request rate, CPU, memory.
//!
//! Lives here: what spans and samples give them, the minutes in event time and when they close, a cheap check of
//! error ratio and latency against a fixed window of 50 minutes, and the forest that looks at a minute as a whole
//! ([`ForestConfig`]). Minutes go on to [`crate::slo`]. Never here: storage; rows leave as effects.
//!
//! A row is of one entity that is a service or workload (or names one): entities are what shards are made of, so one
//! shard sees all of it. A minute closes when event time is `lateness_secs` past its end; what comes later is counted.

mod forest;
mod window;

pub use forest::ForestConfig;

use crate::metrics::{Effects, Wire, wire_struct};
use crate::slo::{BurnConfig, Burns};
use forest::Forests;
use nightshift_model::batch::SeriesKind;
use nightshift_model::families::{Reading, SignalFamily};
use nightshift_model::time::NANOS_PER_SEC;
use nightshift_model::{
    Anomaly, AnomalyKind, Direction, EntityId, EntityKind, EntityMeta, Explanation, FaultClass, OccurrenceId, Severity,
    Timestamp, proto,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use window::{WINDOW, Window};

const MINUTE: i64 = 60 * NANOS_PER_SEC;
/// Ratio of neighbouring buckets of the latency histogram: quantiles are within 5 %.
const BUCKET_RATIO: f64 = 1.1;
/// Buckets: 1 µs to more than an hour.
const BUCKETS: usize = 240;
/// Open minutes of a shard, at most: beyond it the oldest closes early.
const OPEN_MAX: usize = 20_000;
/// Version of the state's form. Another one is refused, and the shard replays the bus. 2: forests and burns.
const STATE_VERSION: u16 = 2;

/// Features per service and minute.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct FeaturesConfig {
    /// Whether they are made.
    pub enabled: bool,
    /// How long after its end a minute waits for stragglers, seconds of event time.
    #[schemars(range(min = 0, max = 3_600))]
    pub lateness_secs: u32,
    /// Whether error ratio and latency of each minute are checked.
    pub check: bool,
    /// Sigmas of that check.
    #[schemars(range(min = 0.5, max = 100.0))]
    pub sigma: f64,
    /// What is odd only jointly.
    pub forest: ForestConfig,
    /// Error budgets that burn too fast.
    pub burn: BurnConfig,
}

impl Default for FeaturesConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            lateness_secs: 30,
            check: true,
            sigma: 2.5,
            forest: ForestConfig::default(),
            burn: BurnConfig::default(),
        }
    }
}

/// What a sample of a service feeds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Field {
    /// Mean latency; factor to milliseconds.
    Latency(f64),
    /// 95th percentile; the same.
    LatencyP95(f64),
    /// 99th percentile; the same.
    LatencyP99(f64),
    /// Seconds (or so) of latency per second: `_sum` of a histogram; the same.
    LatencySum(f64),
    /// Requests per second.
    Requests,
    /// Failed requests per second.
    Errors,
    /// Share of requests that fail; factor to a ratio.
    ErrorRatio(f64),
    /// Processor; factor to percent.
    Cpu(f64),
    /// Memory; factor to megabytes.
    Memory(f64),
}

impl Field {
    /// The field that a metric feeds. `name`: lower case, with `_` for separators.
    pub(crate) fn of<'a>(
        name: &str,
        kind: SeriesKind,
        reading: Option<Reading>,
        label: &impl Fn(&str) -> Option<&'a str>,
    ) -> Option<Self> {
        let has = |w: &str| name.contains(w);
        let ms = if has("_ms") || has("millis") {
            1.0
        } else if has("second") || name.ends_with("_s") {
            1_000.0
        } else {
            1.0
        };
        let rate = kind != SeriesKind::Gauge;
        let share = if has("percent") || has("_pct") { 0.01 } else { 1.0 };
        Some(match reading?.family {
            SignalFamily::Latency if name.ends_with("_sum") => Self::LatencySum(ms),
            SignalFamily::Latency if rate => return None,
            SignalFamily::Latency if has("p99") || label("quantile") == Some("0.99") => Self::LatencyP99(ms),
            SignalFamily::Latency if has("p95") || label("quantile") == Some("0.95") => Self::LatencyP95(ms),
            SignalFamily::Latency if has("p50") || has("p90") || label("quantile").is_some() => return None,
            SignalFamily::Latency => Self::Latency(ms),
            SignalFamily::RequestRate => Self::Requests,
            SignalFamily::ErrorRatio if rate => Self::Errors,
            SignalFamily::ErrorRatio if has("success") => return None,
            SignalFamily::ErrorRatio if has("ratio") || has("percent") || has("pct") => Self::ErrorRatio(share),
            SignalFamily::Cpu if !rate && (has("percent") || has("pct") || has("usage")) => Self::Cpu(1.0),
            SignalFamily::Cpu if !rate && (has("ratio") || has("utilization")) => Self::Cpu(100.0),
            SignalFamily::Memory if !rate && has("bytes") => Self::Memory(1e-6),
            SignalFamily::Memory if !rate && has("_mb") => Self::Memory(1.0),
            _ => return None,
        })
    }
}

/// One minute of one service.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FeatureRow {
    /// Tenant.
    pub tenant: String,
    /// The entity.
    pub entity: EntityId,
    /// Its logical service.
    pub service: String,
    /// Start of the minute, event time.
    pub minute: Timestamp,
    /// Requests seen as spans.
    pub requests: u64,
    /// Mean latency, ms.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latency_mean_ms: Option<f64>,
    /// 95th percentile, ms.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latency_p95_ms: Option<f64>,
    /// 99th percentile, ms.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latency_p99_ms: Option<f64>,
    /// Share of requests that failed (status 500 and above), 0..=1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error_ratio: Option<f64>,
    /// Requests per second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_rate: Option<f64>,
    /// Processor, percent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_pct: Option<f64>,
    /// Memory, megabytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mem_mb: Option<f64>,
}

/// Sum and number.
#[derive(Debug, Default, Clone, Copy, PartialEq)]
struct Mean {
    sum: f64,
    n: u32,
}

wire_struct!(Mean { sum, n });

impl Mean {
    fn add(&mut self, v: f64) {
        self.sum += v;
        self.n = self.n.saturating_add(1);
    }

    fn get(self) -> Option<f64> {
        let mean = self.sum / f64::from(self.n);
        mean.is_finite().then_some(mean)
    }
}

/// A minute that fills.
#[derive(Debug, Default, Clone, PartialEq)]
struct Minute {
    spans: u64,
    failed: u64,
    span_ms: f64,
    histogram: Vec<u32>,
    latency: Mean,
    p95: Mean,
    p99: Mean,
    latency_sum: f64,
    requests: f64,
    any_requests: bool,
    errors: f64,
    ratio: Mean,
    cpu: Mean,
    memory: Mean,
}

wire_struct!(Minute {
    spans,
    failed,
    span_ms,
    histogram,
    latency,
    p95,
    p99,
    latency_sum,
    requests,
    any_requests,
    errors,
    ratio,
    cpu,
    memory,
});

/// Features of a shard.
#[derive(Debug, Clone)]
pub(crate) struct Features {
    config: FeaturesConfig,
    /// By start of the minute and entity, so that minutes close in order.
    open: BTreeMap<(i64, u32), Minute>,
    /// By entity and feature (0 error ratio, 1 latency).
    windows: BTreeMap<(u32, u8), Window>,
    forests: Forests,
    pub(crate) burns: Burns,
    watermark: i64,
    closed: i64,
    late: u64,
}

impl Features {
    pub(crate) fn new(config: FeaturesConfig) -> Self {
        Self {
            forests: Forests::new(config.forest.clone()),
            burns: Burns::new(config.burn.clone()),
            config,
            open: BTreeMap::new(),
            windows: BTreeMap::new(),
            watermark: i64::MIN,
            closed: i64::MIN,
            late: 0,
        }
    }

    pub(crate) fn bytes(&self) -> usize {
        self.open.len() * (size_of::<Minute>() + 32 + BUCKETS * 4)
            + self.windows.len() * (WINDOW * 8 + 96)
            + self.forests.bytes()
            + self.burns.bytes()
    }

    fn check_speaks(&self, entity: u32) -> bool {
        (0..2).any(|f| self.windows.get(&(entity, f)).is_some_and(|w| w.onset.is_some()))
    }

    /// Whether the entity's row is not yet written.
    pub(crate) fn holds(&self, entity: u32) -> bool {
        self.open.keys().any(|(_, e)| *e == entity)
            || self.check_speaks(entity)
            || self.forests.holds(entity)
            || self.burns.holds(entity)
    }

    pub(crate) fn forget(&mut self, entity: u32) {
        for feature in 0..2 {
            self.windows.remove(&(entity, feature));
        }
        self.forests.forget(entity);
    }

    fn minute(&mut self, entity: u32, at: i64) -> Option<&mut Minute> {
        if !self.config.enabled {
            return None;
        }
        let start = at.div_euclid(MINUTE).saturating_mul(MINUTE);
        if start <= self.closed {
            self.late += 1;
            return None;
        }
        self.watermark = self.watermark.max(at);
        if self.open.len() >= OPEN_MAX && !self.open.contains_key(&(start, entity)) {
            self.late += 1;
            return None;
        }
        Some(self.open.entry((start, entity)).or_default())
    }

    /// A sample's value after conversion; `interval` is the series' usual one, seconds.
    pub(crate) fn sample(&mut self, entity: u32, field: Field, at: i64, x: f64, interval: f64) {
        let interval = interval.clamp(0.0, 60.0);
        let Some(m) = self.minute(entity, at) else { return };
        match field {
            Field::Latency(k) => m.latency.add(x * k),
            Field::LatencyP95(k) => m.p95.add(x * k),
            Field::LatencyP99(k) => m.p99.add(x * k),
            // Rates of several series add up, readings of one do not: each stands for its interval.
            Field::LatencySum(k) => m.latency_sum += x * k * interval,
            Field::Requests => {
                m.requests += x * interval;
                m.any_requests = true;
            }
            Field::Errors => m.errors += x * interval,
            Field::ErrorRatio(k) => m.ratio.add(x * k),
            Field::Cpu(k) => m.cpu.add(x * k),
            Field::Memory(k) => m.memory.add(x * k),
        }
    }

    /// A span: served or consumed ones are the service's work.
    pub(crate) fn span(&mut self, entity: u32, span: &proto::Span) {
        const SERVER: u32 = 2;
        const CONSUMER: u32 = 5;
        let serves = matches!(span.kind, SERVER | CONSUMER) || (span.kind <= 1 && span.parent_span_id.is_empty());
        if !serves {
            return;
        }
        let Some(m) = self.minute(entity, span.start_ns) else { return };
        let ms = span.duration_ns as f64 * 1e-6;
        m.spans += 1;
        m.failed += u64::from(span.error || span.http_status >= 500);
        m.span_ms += ms;
        if m.histogram.is_empty() {
            m.histogram.resize(BUCKETS, 0);
        }
        // Buckets of BUCKET_RATIO from 1 µs on.
        let bucket = ((ms * 1_000.0).max(1.0).ln() / BUCKET_RATIO.ln()) as usize;
        m.histogram[bucket.min(BUCKETS - 1)] += 1;
    }

    /// Closes the minutes whose time is over.
    pub(crate) fn close<'a>(&mut self, entity: impl Fn(u32) -> Option<(&'a str, &'a EntityMeta)>, out: &mut Effects) {
        let lateness = i64::from(self.config.lateness_secs) * NANOS_PER_SEC;
        let end = self.watermark.saturating_sub(lateness).saturating_sub(MINUTE);
        let before = self.closed;
        while let Some(first) = self.open.first_entry() {
            let (start, index) = *first.key();
            if start > end {
                break;
            }
            let minute = first.remove();
            self.closed = self.closed.max(start);
            let Some((tenant, meta)) = entity(index) else { continue };
            let Some(row) = row(tenant, meta, start, &minute) else { continue };
            if self.config.check {
                self.check(index, tenant, meta, &row, out);
            }
            self.forests.row(index, tenant, meta, &row, self.check_speaks(index), out);
            self.burns.row(index, tenant, meta, &row, out);
            out.features.push(row);
        }
        if self.closed > before {
            self.forests.roll(self.closed, &entity, out);
            self.burns.roll(self.closed, &entity, out);
        }
    }

    fn check(&mut self, index: u32, tenant: &str, meta: &EntityMeta, row: &FeatureRow, out: &mut Effects) {
        // One failure of six says little: of counted requests only what is sure of their ratio is judged.
        let errors = row.error_ratio.map(|r| if row.requests > 0 { wilson_lower(r, row.requests) } else { r });
        let checks = [
            (0u8, "error_ratio", errors, FaultClass::ErrorRateSpike, 0.005, 0.02),
            (1, "latency_p95_ms", row.latency_p95_ms.or(row.latency_mean_ms), FaultClass::LatencySpike, 0.0, 1.0),
        ];
        for (feature, signal, value, fault, floor, least) in checks {
            let Some(value) = value else { continue };
            let window = self.windows.entry((index, feature)).or_default();
            let verdict = window.step(row.minute.0, value, self.config.sigma, floor, least);
            let Some((phase, numbers)) = verdict else { continue };
            let labels = BTreeMap::new();
            let kind = AnomalyKind::Statistical;
            let fingerprint = Anomaly::fingerprint_of(tenant, meta.id.as_str(), kind, signal, &labels);
            let onset = Timestamp(numbers.onset);
            out.anomalies.push(Anomaly {
                id: OccurrenceId::derive(fingerprint, onset),
                fingerprint,
                tenant: tenant.to_owned(),
                entity: meta.clone(),
                kind,
                signal: signal.to_owned(),
                labels,
                onset,
                last_seen: Timestamp(numbers.last),
                phase,
                score: numbers.score,
                severity: Severity::from_score(numbers.score),
                direction: Direction::Up,
                fault,
                description: format!("value {value:.2} deviates {:.1} sigma from mean", numbers.sigma),
                explanation: Explanation {
                    observed: Some(value),
                    expected: Some(numbers.mean),
                    lower: None,
                    upper: Some(numbers.mean + self.config.sigma * numbers.scale),
                    sigma: Some(numbers.sigma),
                    model: "feature_window".to_owned(),
                    model_version: crate::metrics::MODEL_VERSION,
                    features: BTreeMap::from([("points".to_owned(), f64::from(numbers.points))]),
                    sample: String::new(),
                },
                source: String::new(),
            });
        }
    }

    pub(crate) fn put_state(&self, out: &mut Vec<u8>) {
        STATE_VERSION.put(out);
        self.watermark.put(out);
        self.closed.put(out);
        self.late.put(out);
        (self.open.len() as u32).put(out);
        for (key, minute) in &self.open {
            key.put(out);
            minute.put(out);
        }
        (self.windows.len() as u32).put(out);
        for (key, window) in &self.windows {
            key.put(out);
            window.put(out);
        }
        self.forests.put_state(out);
        self.burns.put_state(out);
    }

    pub(crate) fn take_state(&mut self, from: &mut &[u8]) -> Option<()> {
        if u16::take(from)? != STATE_VERSION {
            return None;
        }
        self.watermark = i64::take(from)?;
        self.closed = i64::take(from)?;
        self.late = u64::take(from)?;
        for _ in 0..u32::take(from)? {
            let (key, minute) = <((i64, u32), Minute)>::take(from)?;
            if !minute.histogram.is_empty() && minute.histogram.len() != BUCKETS {
                return None;
            }
            self.open.insert(key, minute);
        }
        for _ in 0..u32::take(from)? {
            let (key, window) = <((u32, u8), Window)>::take(from)?;
            if !window.valid() {
                return None;
            }
            self.windows.insert(key, window);
        }
        self.forests.take_state(from)?;
        self.burns.take_state(from)
    }
}

fn row(tenant: &str, meta: &EntityMeta, start: i64, m: &Minute) -> Option<FeatureRow> {
    let named = !meta.service.is_empty();
    if !named && !matches!(meta.id.kind(), EntityKind::Service | EntityKind::Workload | EntityKind::Database) {
        return None;
    }
    let spans = m.spans > 0;
    let requests = m.requests.max(0.0);
    let ratio = |part: f64, whole: f64| (whole > 0.0).then(|| (part / whole).clamp(0.0, 1.0));
    Some(FeatureRow {
        tenant: tenant.to_owned(),
        entity: meta.id.clone(),
        service: if named { meta.service.clone() } else { meta.id.name() },
        minute: Timestamp(start),
        requests: m.spans,
        latency_mean_ms: if spans {
            Some(m.span_ms / m.spans as f64)
        } else {
            m.latency.get().or_else(|| (requests > 0.0 && m.latency_sum > 0.0).then(|| m.latency_sum / requests))
        },
        latency_p95_ms: quantile(&m.histogram, 0.95).or_else(|| m.p95.get()),
        latency_p99_ms: quantile(&m.histogram, 0.99).or_else(|| m.p99.get()),
        // What a service counts of itself is whole; traces are mostly a sample.
        error_ratio: m
            .ratio
            .get()
            .or_else(|| spans.then(|| m.failed as f64 / m.spans as f64))
            .or_else(|| if m.any_requests { ratio(m.errors, requests + m.errors) } else { None }),
        request_rate: if spans { Some(m.spans as f64 / 60.0) } else { m.any_requests.then_some(requests / 60.0) },
        cpu_pct: m.cpu.get(),
        mem_mb: m.memory.get(),
    })
}

/// The lower end of Wilson's interval (99 %, two-sided) of a share that was seen in `n` trials: E. B. Wilson, "Probable
/// Inference, the Law of Succession, and Statistical Inference", JASA 22 (1927).
fn wilson_lower(share: f64, n: u64) -> f64 {
    const Z: f64 = 2.576;
    let n = n as f64;
    let z2 = Z * Z;
    let centre = share + z2 / (2.0 * n);
    let spread = Z * (share * (1.0 - share) / n + z2 / (4.0 * n * n)).sqrt();
    ((centre - spread) / (1.0 + z2 / n)).max(0.0)
}

fn quantile(histogram: &[u32], q: f64) -> Option<f64> {
    let total: u64 = histogram.iter().map(|n| u64::from(*n)).sum();
    if total == 0 {
        return None;
    }
    let rank = ((q * total as f64).ceil() as u64).max(1);
    let mut seen = 0;
    for (i, n) in histogram.iter().enumerate() {
        seen += u64::from(*n);
        if seen >= rank {
            // Middle of the bucket, from µs to ms.
            return Some(BUCKET_RATIO.powf(i as f64 + 0.5) * 1e-3);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use nightshift_model::Phase;

    fn service() -> EntityMeta {
        EntityMeta::bare(EntityId::new("c", "service", "", "checkout"))
    }

    fn span(at_secs: i64, ms: u64, status: u32) -> proto::Span {
        proto::Span {
            start_ns: at_secs * NANOS_PER_SEC,
            duration_ns: ms * 1_000_000,
            kind: 2,
            http_status: status,
            ..Default::default()
        }
    }

    fn feed(minutes: i64, fails: impl Fn(i64) -> i64) -> Effects {
        let mut features = Features::new(FeaturesConfig::default());
        let (meta, mut out) = (service(), Effects::default());
        for minute in 0..minutes {
            for i in 0..100 {
                let status = if i < fails(minute) { 503 } else { 200 };
                features.span(0, &span(minute * 60 + i * 60 / 100, 10 + i as u64, status));
            }
            features.close(|_| Some(("t", &meta)), &mut out);
        }
        out
    }

    /// Seen in the demo: one failed span of six opened an incident in perfect health.
    #[test]
    fn a_ratio_of_few_is_believed_little() {
        assert!(wilson_lower(1.0 / 6.0, 6) < 0.02);
        assert!(wilson_lower(0.5, 60) > 0.3);
        assert!(wilson_lower(0.1, 10_000) > 0.09);
        assert!(wilson_lower(0.0, 5) < 1e-9);
    }

    #[test]
    fn a_minute_of_spans_is_a_row() {
        let out = feed(4, |_| 3);
        let row = &out.features[0];
        assert_eq!((row.service.as_str(), row.requests, row.error_ratio), ("checkout", 100, Some(0.03)));
        assert!((row.latency_mean_ms.unwrap() - 59.5).abs() < 0.1);
        assert!((row.latency_p95_ms.unwrap() / 104.0 - 1.0).abs() < 0.06);
        assert!((row.latency_p99_ms.unwrap() / 108.0 - 1.0).abs() < 0.06);
        assert_eq!(out.features.len(), 3, "the last minute is still open");
        assert!((row.request_rate.unwrap() - 100.0 / 60.0).abs() < 1e-9);
    }

    #[test]
    fn errors_alarm_once_and_close() {
        let out = feed(70, |m| if (50..56).contains(&m) { 30 } else { m % 2 });
        let phases: Vec<_> = out.anomalies.iter().map(|a| (a.phase, a.signal.as_str())).collect();
        assert_eq!(phases, [(Phase::Open, "error_ratio"), (Phase::Closed, "error_ratio")]);
        assert_eq!(out.anomalies[0].onset, Timestamp::from_secs(50 * 60));
        assert_eq!(out.anomalies[0].id, out.anomalies[1].id);
        assert_eq!(out.anomalies[0].fault, FaultClass::ErrorRateSpike);
    }

    #[test]
    fn samples_feed_the_same_rows() {
        let mut features = Features::new(FeaturesConfig::default());
        let (meta, mut out) = (service(), Effects::default());
        for i in 0..30 {
            let at = i * 10 * NANOS_PER_SEC;
            features.sample(0, Field::Requests, at, 20.0, 10.0);
            features.sample(0, Field::Errors, at, 5.0, 10.0);
            features.sample(0, Field::Cpu(100.0), at, 0.5, 10.0);
            features.sample(0, Field::LatencyP99(1_000.0), at, 0.25, 10.0);
        }
        features.close(|_| Some(("t", &meta)), &mut out);
        let row = &out.features[0];
        assert_eq!((row.request_rate, row.error_ratio), (Some(20.0), Some(0.2)));
        assert_eq!((row.cpu_pct, row.latency_p99_ms), (Some(50.0), Some(250.0)));
    }
}
