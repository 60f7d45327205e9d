//! How long remote write takes from body to encoded batches, one core, a bus that keeps nothing.
//!
//! `cargo run --release -p nightshift-collect --features testkit --example remote_write_bench [SERIES] [ROUNDS]`
//!
//! 5,000 samples a request, one per series, 7 labels of about 170 bytes, as `bench/` sends them.

use nightshift_collect::ingest::{Ingest, IngestParts, Limits};
use nightshift_collect::remote_write::{Version, write};
use nightshift_collect::resolve::{Origin, ResolveConfig, Resolver};
use nightshift_collect::testkit::{RecordingBus, START};
use nightshift_model::batch::labels;
use nightshift_model::{Clock, ManualClock};
use std::sync::Arc;
use std::time::{Duration, Instant};

const PER_REQUEST: usize = 5_000;

fn varint(out: &mut Vec<u8>, mut v: u64) {
    while v >= 0x80 {
        out.push(v as u8 | 0x80);
        v >>= 7;
    }
    out.push(v as u8);
}

fn message(out: &mut Vec<u8>, tag: u8, body: &[u8]) {
    out.push(tag);
    varint(out, body.len() as u64);
    out.extend_from_slice(body);
}

fn series_labels(i: usize) -> Vec<u8> {
    let host = i / 100;
    labels::encode([
        ("__name__", format!("bench_http_requests_{:03}_total", i % 100).as_str()),
        ("cluster", "bench"),
        ("datacenter", "eu-central-1a"),
        ("env", "production"),
        ("instance", format!("10.{}.{}.{}:9100", host >> 16, (host >> 8) & 255, host & 255).as_str()),
        ("job", "bench-exporter"),
        ("path", format!("/api/v1/resource/{:06}", i % 1_000).as_str()),
    ])
}

fn request(first: usize, at_ms: i64) -> Vec<u8> {
    let mut out = Vec::new();
    for i in first..first + PER_REQUEST {
        let mut sample = vec![0x09];
        sample.extend_from_slice(&((i as f64).sin() * 100.0).to_le_bytes());
        sample.push(0x10);
        varint(&mut sample, at_ms as u64);
        let mut series = series_labels(i);
        message(&mut series, 0x12, &sample);
        message(&mut out, 0x0a, &series);
    }
    snap::raw::Encoder::new().compress_vec(&out).expect("a request is small enough for snappy")
}

/// Time that this thread has had a processor, where the system tells (Linux): what else runs on the machine is not in it.
fn on_cpu() -> Option<Duration> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    text.split(' ').next()?.parse().ok().map(Duration::from_nanos)
}

fn main() {
    let mut args = std::env::args().skip(1).map(|a| a.parse::<usize>().expect("arguments are numbers"));
    let n_series = args.next().unwrap_or(100_000);
    let rounds = args.next().unwrap_or(20);
    let clock = Arc::new(ManualClock::at(START));
    let ingest = Ingest::new(IngestParts {
        tenant: "default".into(),
        limits: Limits::default(),
        resolver: Arc::new(Resolver::new(ResolveConfig::default(), "bench", &[])),
        bus: RecordingBus::forgetful(),
        clock: clock.clone(),
        metrics: nightshift_health::SelfMetrics::default(),
    });
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime can be built");
    let mut spent = Vec::new();
    let (mut samples, mut bytes) = (0u64, 0usize);
    for round in 0..=rounds {
        clock.advance(Duration::from_secs(1));
        let bodies: Vec<_> =
            (0..n_series).step_by(PER_REQUEST).map(|first| request(first, clock.now().millis())).collect();
        let (started, before) = (Instant::now(), on_cpu());
        for body in &bodies {
            let taken = runtime.block_on(write(&ingest, "bench", &Origin::OWN, Version::V1, body, 32 << 20));
            samples += taken.expect("the bus takes everything").tally.accepted;
        }
        let took = before.zip(on_cpu()).map_or_else(|| started.elapsed(), |(before, now)| now - before);
        spent.push(took.as_nanos() as f64 / (bodies.len() * PER_REQUEST) as f64);
        bytes = bodies.iter().map(Vec::len).sum();
        if round == 0 {
            println!("first round (every series is new): {:.0} ns/sample", spent[0]);
        }
    }
    let mut hot = spent.split_off(1);
    hot.sort_by(f64::total_cmp);
    let stats = ingest.stats();
    println!(
        "labels: {} bytes a series; body: {:.1} bytes a sample",
        series_labels(7).len(),
        bytes as f64 / n_series as f64
    );
    println!("hot: median {:.0}, best {:.0} ns/sample over {} rounds", hot[hot.len() / 2], hot[0], hot.len());
    println!(
        "{samples} samples; {} series, {} entities, {:.1} bytes a series in the cache",
        stats.series,
        stats.entities,
        stats.series_bytes as f64 / stats.series as f64
    );
}
