//! Whole-detector load on one core: `cargo run --release -p nightshift-detect --example detect_load -- [SERIES] [ROUNDS]`.
//!
//! 64 shards, one batch of each per round, one sample per series and batch; 100 series an entity, 7 labels a series;
//! a quarter counters, a tenth with a limit, noise with a daily wave and a rare spike. Prints samples/s
//! of core time (decoding the batch included, making it not), bytes per series, anomalies. A third number: series
//! with a forecast and an ensemble (all by default; 0: the cheap layers alone).

use nightshift_detect::{Effects, MetricsConfig, SeriesBudget, ShardDetector, StepStats};
use nightshift_model::batch::{BatchBuilder, BatchView, SeriesKind, labels};
use nightshift_model::hash::{hash64, series_fingerprint, shard_of};
use nightshift_model::{EntityId, EntityMeta, SHARDS, Timestamp};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Time that this thread had a core, where the kernel says so, else wall time: neighbours on the machine do not count.
fn on_core(since: Instant) -> Duration {
    let ns = std::fs::read_to_string("/proc/thread-self/schedstat")
        .ok()
        .and_then(|text| text.split_whitespace().next()?.parse().ok());
    ns.map_or_else(|| since.elapsed(), Duration::from_nanos)
}

struct Series {
    fingerprint: u64,
    entity: u32,
    kind: SeriesKind,
    labels: Vec<u8>,
    level: f64,
    total: f64,
}

fn main() {
    let mut args = std::env::args().skip(1).map(|a| a.parse::<usize>().expect("a number"));
    let n_series = args.next().unwrap_or(100_000);
    let rounds = args.next().unwrap_or(600);
    let seasons = args.next().unwrap_or(n_series);

    let mut shards: Vec<(Vec<EntityMeta>, Vec<Series>)> = (0..SHARDS).map(|_| (Vec::new(), Vec::new())).collect();
    for host in 0..n_series.div_ceil(100) {
        let meta = EntityMeta::bare(EntityId::new("local", "host", "", &format!("node-{host:05}")));
        let shard = &mut shards[shard_of("default", "local", meta.id.as_str()) as usize];
        let entity = shard.0.len() as u32;
        for s in 0..100.min(n_series - host * 100) {
            let (kind, name) = match s % 20 {
                0..5 => (SeriesKind::Counter, format!("node_cpu_seconds_{}_total", s % 7)),
                5 | 6 => (SeriesKind::Gauge, "system_disk_used_ratio".to_owned()),
                _ => (SeriesKind::Gauge, format!("node_metric_{}", s % 11)),
            };
            let device = format!("dev{s}");
            let labels = labels::encode([
                ("__name__", name.as_str()),
                ("instance", &format!("node-{host:05}:9100")),
                ("job", "node-exporter"),
                ("device", &device),
                ("region", "eu-central-1"),
                ("environment", "production"),
                ("team", "platform"),
            ]);
            let fingerprint = series_fingerprint("default", meta.id.as_str(), &labels);
            let level = 1.0 + (fingerprint % 1_000) as f64;
            shard.1.push(Series { fingerprint, entity, kind, labels, level, total: 0.0 });
        }
        shard.0.push(meta);
    }

    let mut config = MetricsConfig::default();
    config.forecast.series_max = (seasons as u32 / SHARDS * 2).max(1) * SHARDS;
    // These samples come faster than the ensemble asks for: without this it would rest.
    config.ensemble.interval_min_secs = 0;
    if seasons == 0 {
        config.forecast.enabled = false;
        config.ensemble.enabled = false;
    }
    let config = Arc::new(config);
    let budget = Arc::new(SeriesBudget::new(10_000_000));
    let mut detectors: Vec<_> =
        (0..SHARDS).map(|s| ShardDetector::new(Arc::clone(&config), Arc::clone(&budget), s)).collect();

    let began = Instant::now();
    let (mut builder, mut out, mut total) = (BatchBuilder::default(), Effects::default(), StepStats::default());
    let (mut busy, mut worst, mut anomalies, mut steady) = (Duration::ZERO, Duration::ZERO, 0usize, Duration::ZERO);
    let mut steady_samples = 0u64;
    for round in 0..rounds {
        let at = Timestamp(1_700_000_000_000_000_000 + round as i64 * 10_000_000_000);
        let wave = (round as f64 / 360.0 * std::f64::consts::TAU).sin();
        let mut this = Duration::ZERO;
        for (detector, (entities, series)) in detectors.iter_mut().zip(&mut shards) {
            // Made outside the measured time.
            for meta in entities.iter() {
                builder.entity(meta);
            }
            for s in series.iter_mut() {
                let draw = hash64(&[s.fingerprint.to_le_bytes(), (round as u64).to_le_bytes()].concat());
                let noise = ((draw & 0xffff) as f64 + ((draw >> 16) & 0xffff) as f64 + ((draw >> 32) & 0xffff) as f64)
                    / 98_304.0
                    - 1.0;
                let spike = if draw >> 48 < 4 { 1.0 } else { 0.0 };
                let value = s.level * (1.0 + 0.1 * wave + 0.05 * noise + spike);
                s.total += value * 10.0;
                builder.series(s.fingerprint, s.entity, s.kind, &s.labels);
                builder.sample(at, if s.kind == SeriesKind::Counter { s.total } else { value });
            }
            let bytes = builder.finish("load");
            let start = on_core(began);
            let mut view = BatchView::parse(&bytes).expect("own batch");
            total.add(&detector.step("default", &mut view, at, &mut out).expect("own batch"));
            detector.tick(at, &mut out);
            this += on_core(began) - start;
        }
        anomalies += out.anomalies.len();
        out.clear();
        busy += this;
        if round >= 40 {
            steady += this;
            steady_samples += n_series as u64;
            worst = worst.max(this);
        }
    }
    let bytes: usize = detectors.iter().map(ShardDetector::memory_bytes).sum();
    let live: usize = detectors.iter().map(ShardDetector::series_live).sum();
    println!("series {live}, rounds {rounds}, samples {}, scored {}", total.samples, total.scored);
    println!("all rounds      {:>8.2} M samples/s", total.samples as f64 / busy.as_secs_f64() / 1e6);
    if steady_samples > 0 {
        println!("after warm-up   {:>8.2} M samples/s", steady_samples as f64 / steady.as_secs_f64() / 1e6);
        println!("worst round     {:>8.2} M samples/s", n_series as f64 / worst.as_secs_f64() / 1e6);
    }
    println!("bytes per series {:>7.0} (forecast and ensemble for {seasons})", bytes as f64 / live.max(1) as f64);
    println!("anomaly records {anomalies}");
    // What another run, or a restart, must make the same.
    let snapshot: usize = detectors.iter().map(|d| d.snapshot().len()).sum();
    println!("snapshot bytes per series {:.0}", snapshot as f64 / live.max(1) as f64);
}
