//! The hot path of metric detection, one shard: `cargo bench -p nightshift-detect --bench metrics`.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use nightshift_detect::{Effects, MetricsConfig, SeriesBudget, ShardDetector};
use nightshift_model::batch::{BatchBuilder, BatchView, SeriesKind, labels};
use nightshift_model::hash::{hash64, series_fingerprint};
use nightshift_model::{EntityId, EntityMeta, Timestamp};
use std::hint::black_box;
use std::sync::Arc;

/// Series of one shard when 100,000 are live in 64.
const SERIES: u64 = 1_562;

fn batch(round: i64) -> bytes::Bytes {
    let mut b = BatchBuilder::default();
    let meta = EntityMeta::bare(EntityId::new("local", "host", "", "web1"));
    let entity = b.entity(&meta);
    for s in 0..SERIES {
        let id = s.to_string();
        let wire = labels::encode([("__name__", "node_metric"), ("device", id.as_str()), ("job", "node")]);
        let draw = hash64(&[s.to_le_bytes(), (round as u64).to_le_bytes()].concat());
        b.series(series_fingerprint("t", meta.id.as_str(), &wire), entity, SeriesKind::Gauge, &wire);
        b.sample(Timestamp(round * 10_000_000_000), 100.0 + (draw & 0xffff) as f64 / 65_536.0);
    }
    b.finish("bench")
}

fn step(c: &mut Criterion) {
    let batches: Vec<_> = (0..2_000).map(batch).collect();
    let mut group = c.benchmark_group("metrics");
    group.throughput(Throughput::Elements(SERIES));
    for (name, forecast) in [("cheap layers", false), ("all layers", true)] {
        let mut config = MetricsConfig::default();
        config.forecast.enabled = forecast;
        config.forecast.series_max = 1_000_000;
        let config = Arc::new(config);
        let fresh = || ShardDetector::new(Arc::clone(&config), Arc::new(SeriesBudget::new(1_000_000)), 0);
        let mut detector = fresh();
        let (mut out, mut i) = (Effects::default(), 0usize);
        group.bench_function(name, |b| {
            b.iter(|| {
                // Past the end of what was made, time would stand still and samples would be repeats.
                if i == batches.len() {
                    detector = fresh();
                    i = 0;
                }
                let mut view = BatchView::parse(&batches[i]).expect("own batch");
                i += 1;
                out.clear();
                black_box(detector.step("t", &mut view, Timestamp(0), &mut out).expect("own batch"))
            });
        });
    }
    group.finish();
}

criterion_group!(benches, step);
criterion_main!(benches);
