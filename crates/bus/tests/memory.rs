//! The in-memory bus: the common suite, and its faults.
#![expect(clippy::unwrap_used, reason = "a test may panic; clippy does not see that helpers are of tests")]

use async_trait::async_trait;
use nightshift_bus::conformance::{self, Harness};
use nightshift_bus::memory::{MemoryBus, MemoryFaults};
use nightshift_bus::{Bus, BusError, MemoryConfig, Outgoing, TopicSpec};
use nightshift_model::Routing;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

#[derive(Default)]
struct Memory(Mutex<BTreeMap<String, MemoryBus>>);

#[async_trait]
impl Harness for Memory {
    async fn open(&self, name: &str, tight: bool) -> Arc<dyn Bus> {
        let config = MemoryConfig { max_lag_bytes: if tight { 64 << 10 } else { 0 }, ..MemoryConfig::default() };
        let mut all = self.0.lock().unwrap();
        let bus = all.entry(name.into()).or_insert_with(|| MemoryBus::new(config));
        bus.crash();
        Arc::new(bus.clone())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn conforms() {
    conformance::run(Arc::new(Memory::default())).await;
}

/// Runs a future without any runtime: the bus must be ready at once.
fn now<T>(future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    match future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => value,
        Poll::Pending => panic!("the in-memory bus waited"),
    }
}

fn bus(faults: MemoryFaults) -> MemoryBus {
    let bus = MemoryBus::with_faults(MemoryConfig::default(), faults);
    now(bus.ensure_topics(&[TopicSpec { name: "t".into(), partitions: 3 }])).unwrap();
    bus
}

fn record(i: u32) -> Outgoing {
    Outgoing { routing: Routing::Shard(i), bytes: i.to_string().into() }
}

/// Publishes 0..n, each until it is acknowledged, while a consumer reads and the process crashes now and then. Gives
/// every record that was delivered, in order, and how often something failed.
fn drive(faults: MemoryFaults, n: u32, crash_every: u32) -> (Vec<(u32, u64, u32)>, u32) {
    let bus = bus(faults);
    let mut failures = 0;
    let mut delivered = Vec::new();
    let mut consumer = now(bus.consumer("g", &["t"])).unwrap();
    let mut step = 0;
    let mut published = 0;
    let mut quiet = 0;
    while published < n || quiet < 40 {
        step += 1;
        assert!(step < 100_000, "it gets nowhere");
        if published < n {
            match now(bus.publish("t", vec![record(published)])) {
                Ok(()) => published += 1,
                Err(e) => {
                    assert!(e.is_transient(), "{e:?}");
                    failures += 1;
                }
            }
        }
        if crash_every > 0 && step % crash_every == 0 && published < n {
            bus.crash();
            assert!(matches!(now(consumer.poll(10, Duration::ZERO)), Err(BusError::Closed)));
            consumer = now(bus.consumer("g", &["t"])).unwrap();
        }
        let polled = now(consumer.poll(5, Duration::from_secs(3600))).unwrap();
        quiet = if polled.records.is_empty() { quiet + 1 } else { 0 };
        let mut positions = BTreeMap::new();
        for r in polled.records {
            positions.insert(r.partition, r.offset + 1);
            delivered.push((r.partition, r.offset, String::from_utf8_lossy(&r.bytes).parse().unwrap()));
        }
        let positions: Vec<_> = positions
            .into_iter()
            .map(|(partition, next)| (nightshift_bus::TopicPartition { topic: "t".into(), partition }, next))
            .collect();
        if now(consumer.commit(&positions)).is_err() {
            failures += 1;
        }
    }
    (delivered, failures)
}

fn all_faults(seed: u64) -> MemoryFaults {
    MemoryFaults {
        seed,
        publish_fails_before: 100,
        publish_fails_after: 150,
        backpressure: 50,
        duplicate: 100,
        delay: 200,
        delay_polls_max: 8,
        reorder: true,
        commit_fails: 200,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    /// Whatever happens: everything acknowledged is delivered, within a partition first deliveries come in the order
    /// of their publishes, an offset always carries the same record, and a seed repeats.
    #[test]
    fn at_least_once_and_in_order_under_all_faults(seed: u64, crash_every in 5u32..60) {
        let (delivered, failures) = drive(all_faults(seed), 100, crash_every);
        prop_assert!(failures > 0);
        let mut first: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
        let mut by_offset = BTreeMap::new();
        for (partition, offset, i) in &delivered {
            prop_assert_eq!(*by_offset.entry((*partition, *offset)).or_insert(*i), *i);
            let seen = first.entry(*partition).or_default();
            if !seen.contains(i) {
                seen.push(*i);
            }
        }
        for partition in 0..3 {
            let want: Vec<u32> = (0..100).filter(|i| i % 3 == partition).collect();
            prop_assert_eq!(&first[&partition], &want);
        }
        prop_assert_eq!(drive(all_faults(seed), 100, crash_every).0, delivered);
    }
}

#[test]
fn without_faults_nothing_comes_twice() {
    let (delivered, failures) = drive(MemoryFaults::default(), 100, 0);
    assert_eq!((delivered.len(), failures), (100, 0));
}

#[test]
fn each_fault_does_what_it_says() {
    let one = |faults: MemoryFaults| {
        let bus = bus(faults);
        let result = now(bus.publish("t", vec![record(0)]));
        let held: u64 = now(bus.partitions()).unwrap().iter().map(|p| p.end - p.start).sum();
        (bus, result, held)
    };
    let (_, result, held) = one(MemoryFaults { publish_fails_before: 1000, ..MemoryFaults::default() });
    assert!(matches!(result, Err(BusError::Io { .. })) && held == 0);
    let (_, result, held) = one(MemoryFaults { backpressure: 1000, ..MemoryFaults::default() });
    assert!(matches!(result, Err(BusError::Backpressure { .. })) && held == 0);
    let (_, result, held) = one(MemoryFaults { duplicate: 1000, ..MemoryFaults::default() });
    assert!(result.is_ok() && held == 2);

    // What failed after its append is kept by some crashes and lost by others, never seen before.
    let mut kept = [0; 2];
    for seed in 0..20 {
        let (bus, result, held) = one(MemoryFaults { seed, publish_fails_after: 1000, ..MemoryFaults::default() });
        assert!(result.is_err() && held == 0);
        bus.crash();
        kept[now(bus.fetch("t", 0, 0, 9)).unwrap().len()] += 1;
    }
    assert!(kept[0] > 0 && kept[1] > 0, "{kept:?}");

    let (bus, _, held) = one(MemoryFaults { delay: 1000, delay_polls_max: 1, ..MemoryFaults::default() });
    assert_eq!(held, 1);
    let mut consumer = now(bus.consumer("g", &["t"])).unwrap();
    assert_eq!(now(consumer.poll(9, Duration::ZERO)).unwrap().assigned.len(), 3);
    let later: usize = (0..3).map(|_| now(consumer.poll(9, Duration::ZERO)).unwrap().records.len()).sum();
    assert_eq!(later, 1);
}
