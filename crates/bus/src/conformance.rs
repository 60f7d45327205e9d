//! The one suite that every kind of bus passes.
//!
//! Lives here: the checks of the common part. A kind brings a [`Harness`] and calls [`run`]. What only some kinds can
//! do (torn tails, retention) is in their [`crate::Capabilities`] and has tests of its own. Never here: anything that
//! asks which kind it is talking to.

use crate::{Bus, BusError, Consumer, DeadLetter, Outgoing, Record, TopicPartition, TopicSpec, dead_letter};
use async_trait::async_trait;
use bytes::Bytes;
use nightshift_model::{Envelope, Routing, Timestamp};
use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How a kind of bus is opened for the suite.
#[async_trait]
pub trait Harness: Send + Sync + 'static {
    /// Opens the bus called `name`; nothing of one is seen in another. Opened again after it was closed, it holds
    /// what it held. `tight`: with room for little more than 64 KiB, so that it is soon full.
    async fn open(&self, name: &str, tight: bool) -> Arc<dyn Bus>;

    /// Makes a topic of the bus called `name`.
    async fn make_topic(&self, name: &str, bus: &dyn Bus, topic: &str, partitions: u32) {
        let _ = name;
        bus.ensure_topics(&[TopicSpec { name: topic.into(), partitions }]).await.expect("a topic can be made");
    }

    /// The longest time that anything may take before the check fails. Nothing waits this long when all is well.
    fn patience(&self) -> Duration {
        Duration::from_secs(20)
    }
}

type Check = fn(Arc<dyn Harness>, &'static str) -> Pin<Box<dyn Future<Output = ()> + Send>>;

macro_rules! checks {
    ($($name:ident)*) => {
        const CHECKS: &[(&str, Check)] = &[$((stringify!($name), |harness, name| {
            Box::pin(async move {
                let began = Instant::now();
                $name(Bench::open(harness, name, false).await).await;
                println!("{name}: {} ms", began.elapsed().as_millis());
            })
        })),*];
    };
}

checks! {
    order_per_key
    two_members_share_and_a_third_gets_the_rest
    handover_goes_on_at_the_commit
    a_former_owner_is_fenced
    replay_from_an_offset
    a_group_that_starts_late_gets_everything
    acknowledged_records_can_be_read_at_once
    bad_records_go_to_dead_letter
    reopening_keeps_records_and_commits
    full_means_backpressure_and_nothing_is_lost
    lag_is_what_is_left_to_read
    wrong_requests_are_refused
    a_closed_bus_says_so
    fetch_is_bounded_and_needs_no_group
}

/// Runs every check at the same time and panics with all that failed.
///
/// # Panics
/// When a check fails.
pub async fn run(harness: Arc<dyn Harness>) {
    let running: Vec<_> =
        CHECKS.iter().map(|(name, check)| (*name, tokio::spawn(check(harness.clone(), name)))).collect();
    let mut failed = Vec::new();
    for (name, task) in running {
        match task.await {
            Ok(()) => {}
            Err(e) => failed.push(format!("{name}: {e}")),
        }
    }
    assert!(failed.is_empty(), "{} of {} checks failed:\n{}", failed.len(), CHECKS.len(), failed.join("\n"));
}

/// One check's bus.
struct Bench {
    harness: Arc<dyn Harness>,
    name: &'static str,
    bus: Arc<dyn Bus>,
}

const SHORT: Duration = Duration::from_millis(50);

fn at(topic: &str, partition: u32) -> TopicPartition {
    TopicPartition { topic: topic.into(), partition }
}

fn to_shard(partition: u32, text: impl Into<String>) -> Outgoing {
    Outgoing { routing: Routing::Shard(partition), bytes: text.into().into() }
}

fn text(record: &Record) -> String {
    String::from_utf8_lossy(&record.bytes).into_owned()
}

/// A member, with what it was given and has read.
struct Member {
    consumer: Box<dyn Consumer>,
    owned: BTreeSet<TopicPartition>,
    records: Vec<Record>,
    next: BTreeMap<TopicPartition, u64>,
}

impl Member {
    async fn poll(&mut self) {
        let polled = self.consumer.poll(100, SHORT).await.expect("poll");
        for gone in &polled.revoked {
            assert!(self.owned.remove(gone), "{gone:?} was revoked and not ours");
            self.next.remove(gone);
        }
        for record in &polled.records {
            let at = at(&record.topic, record.partition);
            assert!(self.owned.contains(&at), "a record of {at:?}, which is not ours");
            let next = self.next.insert(at.clone(), record.offset + 1);
            assert!(next.is_none_or(|next| record.offset >= next), "{at:?}: {} after {next:?}", record.offset);
        }
        for new in &polled.assigned {
            assert!(polled.records.iter().all(|r| at(&r.topic, r.partition) != *new), "a record before the seek");
            assert!(self.owned.insert(new.clone()), "{new:?} was assigned twice");
        }
        self.records.extend(polled.records);
    }

    async fn commit_all(&mut self) {
        let positions: Vec<_> = self.next.iter().map(|(at, next)| (at.clone(), *next)).collect();
        self.consumer.commit(&positions).await.expect("commit");
    }

    fn texts(&self) -> Vec<String> {
        self.records.iter().map(text).collect()
    }
}

impl Bench {
    async fn open(harness: Arc<dyn Harness>, name: &'static str, tight: bool) -> Self {
        let bus = harness.open(name, tight).await;
        Self { harness, name, bus }
    }

    async fn topic(&self, topic: &str, partitions: u32) {
        self.harness.make_topic(self.name, &*self.bus, topic, partitions).await;
    }

    async fn publish(&self, topic: &str, records: Vec<Outgoing>) {
        self.bus.publish(topic, records).await.expect("publish");
    }

    async fn member(&self, group: &str, topic: &str) -> Member {
        let consumer = self.bus.consumer(group, &[topic]).await.expect("join");
        Member { consumer, owned: BTreeSet::new(), records: Vec::new(), next: BTreeMap::new() }
    }

    /// Polls all members in turn until `done`.
    async fn until(&self, what: &str, members: &mut [&mut Member], done: impl Fn(&[&mut Member]) -> bool) {
        let began = Instant::now();
        while !done(members) {
            let seen: Vec<_> = members.iter().map(|m| (m.owned.len(), m.records.len())).collect();
            assert!(began.elapsed() < self.harness.patience(), "waited too long until {what}: {seen:?}");
            for member in members.iter_mut() {
                member.poll().await;
            }
        }
    }

    async fn read(&self, member: &mut Member, n: usize) {
        self.until(&format!("{n} records are read"), &mut [member], |m| m[0].records.len() >= n).await;
        assert_eq!(member.records.len(), n);
    }
}

async fn order_per_key(bench: Bench) {
    bench.topic("t", 4).await;
    let keys = ["a", "b", "c", "d", "e", "f", "g"];
    for batch in 0..20 {
        let records = keys.iter().flat_map(|key| {
            (0..5).map(move |i| Outgoing {
                routing: Routing::Key((*key).into()),
                bytes: format!("{key}:{:04}", batch * 5 + i).into(),
            })
        });
        bench.publish("t", records.collect()).await;
    }
    let mut member = bench.member("g", "t").await;
    bench.read(&mut member, 700).await;
    for key in keys {
        let mine: Vec<&Record> = member.records.iter().filter(|r| text(r).starts_with(key)).collect();
        let partition = Routing::Key(key.into()).partition(4);
        assert!(mine.iter().all(|r| r.partition == partition), "key {key} is on one partition, the same on all kinds");
        let got: Vec<String> = mine.iter().map(|r| text(r)).collect();
        let want: Vec<String> = (0..100).map(|i| format!("{key}:{i:04}")).collect();
        assert_eq!(got, want);
    }
}

async fn two_members_share_and_a_third_gets_the_rest(bench: Bench) {
    bench.topic("t", 4).await;
    let mut a = bench.member("g", "t").await;
    let mut b = bench.member("g", "t").await;
    bench.until("both hold two partitions", &mut [&mut a, &mut b], |m| m.iter().all(|m| m.owned.len() == 2)).await;
    assert!(a.owned.is_disjoint(&b.owned));
    for i in 0..100 {
        bench.publish("t", (0..4).map(|p| to_shard(p, format!("{p}:{i}"))).collect()).await;
    }
    bench
        .until("all is read", &mut [&mut a, &mut b], |m| m.iter().map(|m| m.records.len()).sum::<usize>() >= 400)
        .await;
    assert_eq!((a.records.len(), b.records.len()), (200, 200));
    let all: BTreeSet<String> = a.texts().into_iter().chain(b.texts()).collect();
    assert_eq!(all.len(), 400, "nothing twice, nothing lost");
    a.commit_all().await;
    b.commit_all().await;
    drop((a, b));
    bench.publish("t", (0..100).map(|i| to_shard(i % 4, format!("rest:{i}"))).collect()).await;
    let mut c = bench.member("g", "t").await;
    bench.read(&mut c, 100).await;
    assert!(c.texts().iter().all(|t| t.starts_with("rest:")));
    assert_eq!(c.owned.len(), 4);
}

async fn handover_goes_on_at_the_commit(bench: Bench) {
    bench.topic("t", 2).await;
    bench.publish("t", (0..20).map(|i| to_shard(i % 2, format!("{i}"))).collect()).await;
    let mut a = bench.member("g", "t").await;
    bench.read(&mut a, 20).await;
    a.commit_all().await;
    bench.publish("t", (20..40).map(|i| to_shard(i % 2, format!("{i}"))).collect()).await;
    bench.read(&mut a, 40).await;
    // The second half is read and not committed: whoever gets a partition reads that half again.
    let mut b = bench.member("g", "t").await;
    bench.until("b holds one", &mut [&mut a, &mut b], |m| m[1].owned.len() == 1 && m[0].owned.len() == 1).await;
    bench.until("b reads its half", &mut [&mut a, &mut b], |m| m[1].records.len() >= 10).await;
    let moved = b.owned.first().expect("it holds one").partition;
    let want: Vec<String> = (20..40).filter(|i| i % 2 == moved).map(|i| i.to_string()).collect();
    assert_eq!(b.texts(), want);
    assert_eq!(a.records.len(), 40, "what a member keeps is not read again");
}

async fn a_former_owner_is_fenced(bench: Bench) {
    bench.topic("t", 2).await;
    bench.publish("t", vec![to_shard(0, "x"), to_shard(1, "y")]).await;
    let mut a = bench.member("g", "t").await;
    bench.read(&mut a, 2).await;
    let positions = a.next.clone();
    let mut b = bench.member("g", "t").await;
    bench.until("one has moved", &mut [&mut a, &mut b], |m| m[1].owned.len() == 1 && m[0].owned.len() == 1).await;
    let lost = b.owned.first().expect("it holds one").clone();
    let kept = a.owned.first().expect("it holds one").clone();
    let refused = a.consumer.commit(&[(lost.clone(), positions[&lost])]).await;
    assert!(matches!(refused, Err(BusError::Fenced)), "{refused:?}");
    let both = a.consumer.commit(&[(kept.clone(), positions[&kept]), (lost.clone(), positions[&lost])]).await;
    assert!(matches!(both, Err(BusError::Fenced)), "{both:?}");
    assert!(matches!(a.consumer.seek(&lost, 0).await, Err(BusError::Fenced)));
    let groups = bench.bus.groups().await.expect("groups");
    assert!(groups.iter().all(|g| g.committed.is_none()), "a refused commit stores nothing: {groups:?}");
    a.consumer.commit(&[(kept.clone(), positions[&kept])]).await.expect("what it kept may be committed");
}

async fn replay_from_an_offset(bench: Bench) {
    bench.topic("t", 1).await;
    bench.publish("t", (0..50).map(|i| to_shard(0, format!("{i}"))).collect()).await;
    let mut member = bench.member("g", "t").await;
    bench.read(&mut member, 50).await;
    let from = member.records[20].offset;
    member.commit_all().await;
    member.next.clear();
    member.consumer.seek(&at("t", 0), from).await.expect("seek");
    bench.read(&mut member, 80).await;
    let want: Vec<String> = (20..50).map(|i| i.to_string()).collect();
    assert_eq!(member.texts()[50..], want);
    // A worker that restores a snapshot seeks as soon as it is given a partition, whatever was committed.
    drop(member);
    let mut again = bench.member("g", "t").await;
    bench.until("it is assigned", &mut [&mut again], |m| m[0].owned.len() == 1).await;
    again.consumer.seek(&at("t", 0), from).await.expect("seek");
    bench.read(&mut again, 30).await;
    assert_eq!(again.texts(), want);
}

async fn a_group_that_starts_late_gets_everything(bench: Bench) {
    bench.topic("t", 3).await;
    bench.publish("t", (0..90).map(|i| to_shard(i % 3, format!("{i}"))).collect()).await;
    let mut early = bench.member("early", "t").await;
    bench.read(&mut early, 90).await;
    early.commit_all().await;
    bench.publish("t", (90..99).map(|i| to_shard(i % 3, format!("{i}"))).collect()).await;
    let mut late = bench.member("late", "t").await;
    bench.read(&mut late, 99).await;
    bench.read(&mut early, 99).await;
}

async fn acknowledged_records_can_be_read_at_once(bench: Bench) {
    bench.topic("t", 4).await;
    let publishers: Vec<_> = (0..20u32)
        .map(|i| {
            let bus = bench.bus.clone();
            tokio::spawn(async move {
                bus.publish("t", vec![to_shard(i, format!("{i}"))]).await.expect("publish");
                let found = bus.fetch("t", i % 4, 0, 100).await.expect("fetch");
                assert!(found.iter().any(|r| text(r) == i.to_string()), "record {i} is not there");
            })
        })
        .collect();
    for publisher in publishers {
        publisher.await.expect("a publisher finds what it published");
    }
    let ends: u64 = bench.bus.partitions().await.expect("partitions").iter().map(|p| p.end - p.start).sum();
    assert!(ends >= 20);
}

async fn bad_records_go_to_dead_letter(bench: Bench) {
    bench.topic("t", 1).await;
    bench.topic("dead", 1).await;
    let garbage = Bytes::from_static(b"\xff\xfe not an envelope");
    bench
        .publish(
            "t",
            vec![to_shard(0, "a"), Outgoing { routing: Routing::Shard(0), bytes: garbage.clone() }, to_shard(0, "b")],
        )
        .await;
    let mut member = bench.member("g", "t").await;
    bench.read(&mut member, 3).await;
    let bad = member.records[1].clone();
    assert!(Envelope::decode(bad.bytes.clone()).is_err());
    bench.publish("dead", vec![dead_letter("malformed", "not an envelope", &bad, Timestamp(7))]).await;
    member.commit_all().await;
    let mut reader = bench.member("dead-reader", "dead").await;
    bench.read(&mut reader, 1).await;
    let envelope = Envelope::decode(reader.records[0].bytes.clone()).expect("a dead letter is an envelope");
    let letter = DeadLetter::decode_payload(envelope.payload).expect("with its payload");
    assert_eq!((letter.reason.as_str(), &letter.record), ("malformed", &garbage));
    assert_eq!(letter.into_record(), bad);
}

async fn reopening_keeps_records_and_commits(bench: Bench) {
    bench.topic("t", 2).await;
    bench.publish("t", (0..40).map(|i| to_shard(i % 2, format!("{i}"))).collect()).await;
    let mut member = bench.member("g", "t").await;
    bench.read(&mut member, 40).await;
    let halves: Vec<_> = (0..2)
        .map(|p| {
            let mine: Vec<_> = member.records.iter().filter(|r| r.partition == p).collect();
            (at("t", p), mine[10].offset)
        })
        .collect();
    member.consumer.commit(&halves).await.expect("commit");
    drop(member);
    bench.bus.close().await.expect("close");
    let bench = Bench::open(bench.harness.clone(), bench.name, false).await;
    let mut member = bench.member("g", "t").await;
    bench.read(&mut member, 20).await;
    let got: BTreeSet<String> = member.texts().into_iter().collect();
    assert_eq!(got, (20..40).map(|i| i.to_string()).collect());
    bench.publish("t", vec![to_shard(0, "after")]).await;
    bench.read(&mut member, 21).await;
    let mut fresh = bench.member("fresh", "t").await;
    bench.read(&mut fresh, 41).await;
}

async fn full_means_backpressure_and_nothing_is_lost(bench: Bench) {
    // A bus of its own, a small one.
    let bench = Bench { bus: bench.harness.open("tight", true).await, name: "tight", harness: bench.harness };
    bench.topic("t", 1).await;
    let mut member = bench.member("g", "t").await;
    bench.until("it is assigned", &mut [&mut member], |m| m[0].owned.len() == 1).await;
    let flood: Vec<_> = (0..400)
        .map(|i| {
            let bus = bench.bus.clone();
            let body = format!("{i:04}{}", "x".repeat(8 << 10));
            tokio::spawn(async move { (i, bus.publish("t", vec![to_shard(0, body)]).await) })
        })
        .collect();
    let mut taken = BTreeSet::new();
    let mut refused = 0;
    for publish in flood {
        match publish.await.expect("no panic") {
            (i, Ok(())) => assert!(taken.insert(format!("{i:04}"))),
            (_, Err(BusError::Backpressure { retry_after })) => {
                assert!(!retry_after.is_zero(), "it says when to come back");
                refused += 1;
            }
            (_, Err(e)) => panic!("{e:?}"),
        }
    }
    assert!(refused > 0 && !taken.is_empty(), "{refused} refused, {} taken", taken.len());
    bench
        .until("what was taken is read", &mut [&mut member], |m| {
            let got: BTreeSet<String> = m[0].records.iter().map(|r| text(r)[..4].to_string()).collect();
            got.is_superset(&taken)
        })
        .await;
    bench.publish("t", vec![to_shard(0, "room again")]).await;
}

async fn lag_is_what_is_left_to_read(bench: Bench) {
    bench.topic("t", 2).await;
    bench.publish("t", (0..10).map(|i| to_shard(0, format!("{i}"))).collect()).await;
    bench.publish("t", (0..5).map(|i| to_shard(1, format!("{i}"))).collect()).await;
    let mut member = bench.member("g", "t").await;
    bench.read(&mut member, 15).await;
    let fourth = member.records.iter().filter(|r| r.partition == 0).nth(4).expect("ten were read").offset;
    member.consumer.commit(&[(at("t", 0), fourth)]).await.expect("commit");
    let groups = bench.bus.groups().await.expect("groups");
    let of = |p| groups.iter().find(|g| g.group == "g" && g.at == at("t", p)).expect("both partitions are listed");
    assert_eq!((of(0).committed, of(0).lag), (Some(fourth), 6));
    assert_eq!((of(1).committed, of(1).lag), (None, 5));
    let partitions = bench.bus.partitions().await.expect("partitions");
    let of = |p| partitions.iter().find(|i| i.at == at("t", p)).expect("both partitions are listed");
    assert_eq!((of(0).end - of(0).start, of(1).end - of(1).start), (10, 5));
}

async fn wrong_requests_are_refused(bench: Bench) {
    bench.topic("t", 2).await;
    let spec = |partitions| TopicSpec { name: "t".into(), partitions };
    bench.bus.ensure_topics(&[spec(2)]).await.expect("a topic that is there is fine");
    bench.bus.ensure_topics(&[spec(1)]).await.expect("more partitions than asked for are fine");
    assert!(matches!(bench.bus.ensure_topics(&[spec(3)]).await, Err(BusError::Invalid(_))));
    let bad = TopicSpec { name: "../t".into(), partitions: 1 };
    assert!(matches!(bench.bus.ensure_topics(&[bad]).await, Err(BusError::Invalid(_))));
    let unknown =
        |r: Result<(), BusError>| assert!(matches!(&r, Err(BusError::UnknownTopic(t)) if t == "none"), "{r:?}");
    unknown(bench.bus.publish("none", vec![to_shard(0, "x")]).await);
    unknown(bench.bus.consumer("g", &["none"]).await.map(|_| ()));
    unknown(bench.bus.fetch("none", 0, 0, 1).await.map(|_| ()));
    assert!(matches!(bench.bus.fetch("t", 9, 0, 1).await, Err(BusError::Invalid(_))));
    assert!(matches!(bench.bus.consumer("a/b", &["t"]).await, Err(BusError::Invalid(_))));
    let large = Outgoing { routing: Routing::Shard(0), bytes: vec![0; 40 << 20].into() };
    assert!(matches!(bench.bus.publish("t", vec![large]).await, Err(BusError::TooLarge { .. })));
    bench.publish("t", Vec::new()).await;
}

async fn a_closed_bus_says_so(bench: Bench) {
    bench.topic("t", 1).await;
    let mut member = bench.member("g", "t").await;
    member.poll().await;
    bench.bus.close().await.expect("close");
    bench.bus.close().await.expect("closing again does nothing");
    assert!(matches!(bench.bus.publish("t", vec![to_shard(0, "x")]).await, Err(BusError::Closed)));
    assert!(matches!(bench.bus.partitions().await, Err(BusError::Closed)));
    assert!(matches!(bench.bus.consumer("g", &["t"]).await, Err(BusError::Closed)));
    assert!(matches!(member.consumer.poll(1, SHORT).await, Err(BusError::Closed)));
}

async fn fetch_is_bounded_and_needs_no_group(bench: Bench) {
    bench.topic("t", 2).await;
    bench.publish("t", (0..30).map(|i| to_shard(i % 2, format!("{i}"))).collect()).await;
    let first = bench.bus.fetch("t", 1, 0, 4).await.expect("fetch");
    assert_eq!(first.iter().map(text).collect::<Vec<_>>(), ["1", "3", "5", "7"]);
    let next = first[3].offset + 1;
    let rest = bench.bus.fetch("t", 1, next, 100).await.expect("fetch");
    assert_eq!(rest.iter().map(text).collect::<Vec<_>>(), (4..15).map(|i| (2 * i + 1).to_string()).collect::<Vec<_>>());
    let end = rest.last().expect("some").offset + 1;
    assert_eq!(bench.bus.fetch("t", 1, end, 100).await.expect("fetch"), []);
    assert!(bench.bus.groups().await.expect("groups").is_empty(), "fetching makes no group");
}
