//! How fast the embedded bus takes and gives records on this disk, synced.
//!
//! `cargo run --release -p nightshift-bus --no-default-features --example bus_bench -- [RECORD_BYTES] [TOTAL_MB] [PUBLISHERS] [DIR]`
//!
//! Three figures: publishing while a consumer keeps up (from memory), what each publish costs in CPU, and a replay of
//! everything from files by a group that starts late.

use nightshift_bus::embedded::EmbeddedBus;
use nightshift_bus::{Bus, EmbeddedConfig, Outgoing, TopicSpec};
use nightshift_model::{ManualClock, Routing, Timestamp};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Records of one publish: one of each shard, as collect sends them.
const PER_PUBLISH: u32 = 64;

fn arg(n: usize, default: u64) -> u64 {
    std::env::args().nth(n).map_or(default, |a| a.parse().expect("arguments are numbers, see the head of this file"))
}

/// CPU seconds of this process: (user, system), in clock ticks of 10 ms.
fn cpu_seconds() -> (f64, f64) {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |i: usize| fields.get(i).and_then(|f| f.parse::<f64>().ok()).unwrap_or(f64::NAN) / 100.0;
    (ticks(11), ticks(12))
}

async fn read_all(bus: Arc<EmbeddedBus>, group: &str, n: u64) -> (u64, Duration) {
    let mut consumer = bus.consumer(group, &["bench"]).await.expect("join");
    let began = Instant::now();
    let (mut records, mut bytes) = (0, 0);
    while records < n {
        let polled = consumer.poll(1024, Duration::from_secs(1)).await.expect("poll");
        records += polled.records.len() as u64;
        bytes += polled.records.iter().map(|r| r.bytes.len() as u64).sum::<u64>();
    }
    (bytes, began.elapsed())
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let record_bytes = arg(1, 100 << 10);
    let total_bytes = arg(2, 4096) << 20;
    let publishers = arg(3, 2);
    let dir = std::env::args().nth(4).map_or_else(std::env::temp_dir, PathBuf::from);
    let dir = dir.join(format!("nightshift-bus-bench-{}", std::process::id()));

    let clock = Arc::new(ManualClock::at(Timestamp::from_secs(1_700_000_000)));
    let config = EmbeddedConfig { max_lag_bytes: 0, retention_bytes: u64::MAX, ..EmbeddedConfig::default() };
    let bus = Arc::new(EmbeddedBus::open(&dir, &config, clock).expect("open"));
    bus.ensure_topics(&[TopicSpec { name: "bench".into(), partitions: PER_PUBLISH }]).await.expect("make the topic");

    let publishes = total_bytes / record_bytes / u64::from(PER_PUBLISH) / publishers;
    let records = publishes * publishers * u64::from(PER_PUBLISH);
    let reader = tokio::spawn(read_all(bus.clone(), "keeps-up", records));
    let slowest_us = Arc::new(AtomicU64::new(0));
    let (began, cpu) = (Instant::now(), cpu_seconds());
    let tasks: Vec<_> = (0..publishers)
        .map(|_| {
            let (bus, slowest_us) = (bus.clone(), slowest_us.clone());
            tokio::spawn(async move {
                let body = bytes::Bytes::from(vec![0x5a; record_bytes as usize]);
                for _ in 0..publishes {
                    let batch = (0..PER_PUBLISH)
                        .map(|p| Outgoing { routing: Routing::Shard(p), bytes: body.clone() })
                        .collect();
                    let sent = Instant::now();
                    bus.publish("bench", batch).await.expect("publish");
                    slowest_us.fetch_max(sent.elapsed().as_micros() as u64, Ordering::Relaxed);
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.expect("a publisher ends well");
    }
    let published = began.elapsed();
    let (read_bytes, read) = reader.await.expect("the consumer ends well");
    let (user, system) = cpu_seconds();
    let (user, system) = (user - cpu.0, system - cpu.1);

    let mb = |bytes: u64, time: Duration| bytes as f64 / 1e6 / time.as_secs_f64();
    let per_second = |time: Duration| records as f64 / time.as_secs_f64();
    let bytes = records * record_bytes;
    println!("{records} records of {record_bytes} bytes, {PER_PUBLISH} a publish, {publishers} publishers, fsync on");
    println!(
        "publish    {:8.0} MB/s {:10.0} records/s, slowest answer {} ms",
        mb(bytes, published),
        per_second(published),
        slowest_us.load(Ordering::Relaxed) / 1000
    );
    println!("keep up    {:8.0} MB/s {:10.0} records/s", mb(read_bytes, read), per_second(read));
    println!(
        "cpu        {:8.2} s user {:8.2} s system: {:.0} us a publish",
        user,
        system,
        (user + system) * 1e6 / (publishes * publishers) as f64
    );
    let (read_bytes, read) = read_all(bus.clone(), "starts-late", records).await;
    println!("replay     {:8.0} MB/s {:10.0} records/s", mb(read_bytes, read), per_second(read));
    bus.close().await.expect("close");
    std::fs::remove_dir_all(&dir).expect("remove the bench folder");
}
