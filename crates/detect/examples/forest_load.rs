//! The forest on made minutes: what a minute costs, how often it is wrong where nothing is, and what it finds.
//! `cargo run --release -p nightshift-detect --example forest_load -- [ENTITIES] [DAYS] [WARMUP_MINUTES]`
//!
//! Kinds of services: `white` (independent noise), `slow` (noise with a memory of ten minutes), `days` (load, latency
//! and CPU follow a day, night is a quarter), `weeks` (the same, and a quiet weekend), `quiet` (six requests a minute).
//! The first half of the time (and never less than the warm-up) is not counted. Then two hours in which latency is as
//! at the top of the day while load is as at its bottom: each within what is usual. Everything goes through a shard as
//! samples, every 30 s; the layers of single series say what they say, and are counted beside it.

use nightshift_detect::{Effects, MetricsConfig, SeriesBudget, ShardDetector};
use nightshift_model::batch::{BatchBuilder, BatchView, SeriesKind, labels};
use nightshift_model::hash::series_fingerprint;
use nightshift_model::{EntityId, EntityMeta, Phase, Timestamp};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

const STEP_SECS: i64 = 30;
const KINDS: [&str; 5] = ["white", "slow", "days", "weeks", "quiet"];

fn on_core(since: Instant) -> Duration {
    let ns = std::fs::read_to_string("/proc/thread-self/schedstat")
        .ok()
        .and_then(|text| text.split_whitespace().next()?.parse().ok());
    ns.map_or_else(|| since.elapsed(), Duration::from_nanos)
}

struct Dice(u64);

impl Dice {
    fn unit(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    }

    fn normal(&mut self) -> f64 {
        (-2.0 * (1.0 - self.unit()).ln()).sqrt() * (std::f64::consts::TAU * self.unit()).cos()
    }
}

struct Service {
    meta: EntityMeta,
    kind: &'static str,
    dice: Dice,
    slow: [f64; 3],
}

impl Service {
    /// Latency p95 (ms), latency p99, requests per second, CPU percent, memory (bytes), error percent.
    fn sample(&mut self, at: i64, odd: bool) -> [f64; 6] {
        let day = (at as f64 / 86_400.0).fract() * std::f64::consts::TAU;
        let weekend = self.kind == "weeks" && (at / 86_400) % 7 >= 5;
        let mut load = match self.kind {
            "days" | "weeks" => (0.625 - 0.375 * day.cos()) * if weekend { 0.6 } else { 1.0 },
            _ => 0.5 + 0.02 * self.slow[2],
        };
        let mut e = [0.0; 6];
        for x in &mut e {
            *x = self.dice.normal();
        }
        // A memory of ten minutes at two samples a minute.
        let keep = if self.kind == "slow" { 0.95 } else { 0.0f64 };
        for (s, x) in self.slow.iter_mut().zip(e) {
            *s = keep * *s + (1.0 - keep * keep).sqrt() * x;
        }
        let mut felt = load;
        if odd {
            (load, felt) = match self.kind {
                "days" | "weeks" => (0.27, 0.97),
                _ => (0.5 * (1.0 - 0.2), 0.5 * (1.0 + 0.35)),
            };
        }
        let per_second = if self.kind == "quiet" { 0.2 } else { 200.0 };
        let noise = if self.kind == "quiet" { 0.3 } else { 0.05 };
        let p95 = 40.0 * (1.0 + felt) * (noise * self.slow[0]).exp();
        let p99 = p95 * 1.6 * (0.06 * e[1]).exp();
        let rate = per_second * load * (noise * self.slow[1]).exp();
        let cpu = 10.0 + 60.0 * load + 2.0 * e[3];
        let memory = 5e8 * (1.0 + 0.1 * load + 0.005 * e[4]);
        [p95, p99, rate, cpu, memory, (0.2 + 0.05 * e[5]).max(0.0)]
    }
}

fn main() {
    let mut args = std::env::args().skip(1).map(|a| a.parse::<i64>().expect("a number"));
    let entities = args.next().unwrap_or(10).max(1);
    let days = args.next().unwrap_or(14).max(2);
    let warmup = args.next();
    let mut config = MetricsConfig::default();
    if let Some(minutes) = warmup {
        config.features.forest.warmup_minutes = minutes as u32;
    }
    config.features.forest.entities_max = 1_000_000;
    let counted_from = (days * 43_200).max(i64::from(config.features.forest.warmup_minutes) * 60 + 3_600);
    let (end, odd_from) = (days * 86_400, days * 86_400 - 6 * 3_600);
    for (k, kind) in KINDS.into_iter().enumerate() {
        let mut services: Vec<Service> = (0..entities)
            .map(|i| Service {
                meta: EntityMeta::bare(EntityId::new("local", "service", "", &format!("{kind}-{i}"))),
                kind,
                dice: Dice((k as u64) << 32 | i as u64),
                slow: [0.0; 3],
            })
            .collect();
        let mut with = ShardDetector::new(Arc::new(config.clone()), Arc::new(SeriesBudget::new(1 << 40)), 0);
        let mut out = Effects::default();
        let names = [
            "request_latency_p95_ms",
            "request_latency_p99_ms",
            "request_rate",
            "process_cpu_percent",
            "process_memory_bytes",
            "error_rate_percent",
        ];
        let (mut wrong, mut wrong_single, mut found, mut found_single) = (0u64, 0u64, 0u64, 0u64);
        let mut delay = Vec::new();
        let mut rows = 0u64;
        let mut sample_line = String::new();
        let mut cost = Duration::ZERO;
        let mut at = 0;
        while at < end {
            let odd = at >= odd_from && at < odd_from + 7_200;
            let mut batch = BatchBuilder::default();
            for service in &mut services {
                let values = service.sample(at, odd);
                let entity = batch.entity(&service.meta);
                for (name, value) in names.iter().zip(values) {
                    let wire = labels::encode([(labels::NAME, *name)]);
                    let fp = series_fingerprint("t", service.meta.id.as_str(), &wire);
                    batch.series(fp, entity, SeriesKind::Gauge, &wire);
                    batch.sample(Timestamp::from_secs(at), value);
                }
            }
            let payload = batch.finish("made");
            let mut view = BatchView::parse(&payload).expect("a batch");
            let began = Instant::now();
            let before = on_core(began);
            with.step("t", &mut view, Timestamp::from_secs(at), &mut out).expect("a batch");
            cost += on_core(began).saturating_sub(before);
            rows += out.features.len() as u64;
            for a in out.anomalies.drain(..).filter(|a| a.phase == Phase::Open) {
                let forest = a.explanation.model == "isolation_forest";
                let onset = a.onset.0 / 1_000_000_000;
                if at >= odd_from {
                    if onset >= odd_from - 120 && onset < odd_from + 7_200 {
                        if forest {
                            found += 1;
                            delay.push((at - odd_from) / 60);
                            sample_line = format!("{:.2} {}", a.score, a.description);
                        } else {
                            found_single += 1;
                        }
                    }
                } else if at >= counted_from {
                    if forest { wrong += 1 } else { wrong_single += 1 }
                }
            }
            out.clear();
            at += STEP_SECS;
        }
        delay.sort_unstable();
        let weeks = (odd_from - counted_from) as f64 / 604_800.0 * entities as f64;
        let told: BTreeMap<&str, f64> = BTreeMap::from([
            ("false alarms of the forest per entity and week", wrong as f64 / weeks),
            ("of single series", wrong_single as f64 / weeks),
        ]);
        println!(
            "{kind}: {told:.3?}; odd vector found {found} of {entities} (median after {:?} min), alarms of single series {found_single}; {:.1} us a row, all layers",
            delay.get(delay.len() / 2),
            cost.as_secs_f64() * 1e6 / rows as f64
        );
        println!("    {sample_line}");
    }
}
