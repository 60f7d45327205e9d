//! What only this kind can do: crashes, damage, full disks, retention, group commit.

use super::*;
use crate::{BusConfig, TopicPartition};
use bytes::Bytes;
use nightshift_model::{ManualClock, Routing, Timestamp};
use proptest::prelude::*;
use std::time::Duration;

struct Rig {
    dir: tempfile::TempDir,
    clock: Arc<ManualClock>,
    config: EmbeddedConfig,
    faults: Arc<DiskFaults>,
}

impl Rig {
    fn new(config: EmbeddedConfig) -> Self {
        let clock = Arc::new(ManualClock::at(Timestamp::from_secs(1_000_000)));
        Self { dir: tempfile::tempdir().unwrap(), clock, config, faults: Arc::default() }
    }

    fn try_open(&self) -> Result<EmbeddedBus, BusError> {
        EmbeddedBus::open_with(self.dir.path(), &self.config, self.clock.clone(), Some(self.faults.clone()))
    }

    async fn open(&self, partitions: u32) -> EmbeddedBus {
        let bus = self.try_open().unwrap();
        bus.ensure_topics(&[TopicSpec { name: "t".into(), partitions }]).await.unwrap();
        bus
    }

    fn segments(&self) -> Vec<PathBuf> {
        segments(self.dir.path())
    }
}

fn segments(dir: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> = std::fs::read_dir(dir.join("t")).unwrap().map(|e| e.unwrap().path()).collect();
    paths.sort();
    paths
}

fn rec(partition: u32, body: impl Into<Bytes>) -> Outgoing {
    Outgoing { routing: Routing::Shard(partition), bytes: body.into() }
}

async fn all(bus: &EmbeddedBus, partition: u32) -> Vec<Bytes> {
    bus.fetch("t", partition, 0, 10_000).await.unwrap().into_iter().map(|r| r.bytes).collect()
}

/// A copy of the folder is what a killed process leaves behind.
fn copy_dir(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_dir(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

#[tokio::test]
async fn what_is_acknowledged_is_in_the_files_of_a_killed_process() {
    let rig = Rig::new(EmbeddedConfig::default());
    let bus = rig.open(2).await;
    let mut consumer = bus.consumer("g", &["t"]).await.unwrap();
    consumer.poll(1, Duration::ZERO).await.unwrap();
    for i in 0..20u32 {
        bus.publish("t", vec![rec(i, format!("{i}"))]).await.unwrap();
        let at = TopicPartition { topic: "t".into(), partition: 0 };
        consumer.commit(&[(at, u64::from(i / 2))]).await.unwrap();
        let copy = tempfile::tempdir().unwrap();
        copy_dir(rig.dir.path(), copy.path());
        let after = EmbeddedBus::open(copy.path(), &rig.config, rig.clock.clone()).unwrap();
        assert_eq!(after.torn_tails(), []);
        let held = all(&after, 0).await.len() + all(&after, 1).await.len();
        assert_eq!(held, i as usize + 1);
        assert!(after.groups().await.unwrap().iter().any(|g| g.committed == Some(u64::from(i / 2))));
    }
}

/// Three groups of two records, then the newest file cut at every byte.
#[tokio::test]
async fn a_tail_torn_at_any_byte_is_cut_to_whole_records() {
    let rig = Rig::new(EmbeddedConfig::default());
    let bus = rig.open(2).await;
    let mut ends = vec![std::fs::metadata(&rig.segments()[0]).unwrap().len()];
    for i in 0..3 {
        bus.publish("t", vec![rec(0, format!("a{i}")), rec(1, vec![7; 50])]).await.unwrap();
        ends.push(ends.last().unwrap() + 42);
        ends.push(ends.last().unwrap() + 90);
    }
    drop(bus);
    let whole = std::fs::read(&rig.segments()[0]).unwrap();
    assert_eq!(whole.len() as u64, *ends.last().unwrap());
    for cut in ends[0]..=whole.len() as u64 {
        std::fs::write(&rig.segments()[0], &whole[..cut as usize]).unwrap();
        let bus = rig.try_open().unwrap();
        let kept = ends.iter().filter(|e| **e <= cut).count() - 1;
        let held = all(&bus, 0).await.len() + all(&bus, 1).await.len();
        assert_eq!(held, kept, "cut at {cut}");
        assert_eq!(bus.torn_tails().len(), usize::from(!ends.contains(&cut)), "cut at {cut}");
        // It is usable, and what is appended now survives the next opening.
        bus.publish("t", vec![rec(0, "new")]).await.unwrap();
        drop(bus);
        let bus = rig.try_open().unwrap();
        assert_eq!(bus.torn_tails(), []);
        assert_eq!(all(&bus, 0).await.last().unwrap(), "new");
    }
}

#[tokio::test]
async fn damage_to_what_was_acknowledged_is_told_with_file_and_place() {
    let rig = Rig::new(EmbeddedConfig::default());
    let bus = rig.open(1).await;
    for i in 0..4 {
        bus.publish("t", vec![rec(0, format!("record {i}"))]).await.unwrap();
    }
    drop(bus);
    let path = rig.segments()[0].clone();
    let whole = std::fs::read(&path).unwrap();
    let first = whole.len() - 4 * 48;
    // Every byte of the first three records: a later group proves that they had been synced.
    for flip in first..first + 3 * 48 {
        let mut bad = whole.clone();
        bad[flip] ^= 0x40;
        std::fs::write(&path, bad).unwrap();
        let Err(BusError::Corrupt(text)) = rig.try_open() else { panic!("byte {flip} went unnoticed") };
        let place = first + (flip - first) / 48 * 48;
        assert!(text.contains(&format!("`{}` at byte {place}", path.display())), "{text}");
        assert!(text.contains("restore"), "{text}");
    }
    // The last record: nothing tells it from a torn one.
    let mut bad = whole.clone();
    *bad.last_mut().unwrap() ^= 1;
    std::fs::write(&path, bad).unwrap();
    assert_eq!(rig.try_open().unwrap().torn_tails()[0].cut_bytes, 48);
}

#[tokio::test]
async fn damage_in_older_segments_is_found_when_opened_or_read() {
    let rig = Rig::new(EmbeddedConfig { segment_bytes: 4096, ..EmbeddedConfig::default() });
    let bus = rig.open(1).await;
    for i in 0..12u8 {
        bus.publish("t", vec![rec(0, vec![i; 1000])]).await.unwrap();
    }
    drop(bus);
    let paths = rig.segments();
    assert_eq!(paths.len(), 4);
    let second = std::fs::read(&paths[1]).unwrap();
    let spoil = |bytes: Vec<u8>| std::fs::write(&paths[1], bytes).unwrap();

    // In a payload: found by who reads it.
    let mut bad = second.clone();
    bad[2000] ^= 1;
    spoil(bad);
    let bus = rig.try_open().unwrap();
    let error = bus.fetch("t", 0, 0, 100).await.unwrap_err();
    assert!(matches!(&error, BusError::Corrupt(t) if t.contains(&*paths[1].to_string_lossy())), "{error}");
    assert_eq!(bus.fetch("t", 0, 6, 100).await.unwrap().len(), 6, "what is behind it can be read");
    drop(bus);

    // In its header, cut short, or missing: found when opened.
    let mut bad = second.clone();
    bad[30] ^= 1;
    for (bytes, what) in [(bad, "checksum"), (second[..3000].to_vec(), "it was cut")] {
        spoil(bytes);
        let error = rig.try_open().err().unwrap();
        assert!(matches!(&error, BusError::Corrupt(t) if t.contains(what)), "{error}");
    }
    std::fs::remove_file(&paths[1]).unwrap();
    let error = rig.try_open().err().unwrap();
    assert!(matches!(&error, BusError::Corrupt(t) if t.contains("missing")), "{error}");
    // What the text says to do works.
    std::fs::remove_file(&paths[0]).unwrap();
    let bus = rig.try_open().unwrap();
    assert_eq!(bus.fetch("t", 0, 0, 100).await.unwrap().first().unwrap().offset, 6);
}

#[tokio::test]
async fn a_full_disk_fails_the_publish_and_leaves_the_log_usable() {
    let rig = Rig::new(EmbeddedConfig::default());
    let bus = rig.open(1).await;
    bus.publish("t", vec![rec(0, "before")]).await.unwrap();
    for room in 0..100 {
        rig.faults.set_room(room);
        let error = bus.publish("t", vec![rec(0, vec![1; 30]), rec(0, vec![2; 30])]).await.unwrap_err();
        assert!(error.to_string().contains("free some space"), "{error}");
        assert_eq!(all(&bus, 0).await, ["before"]);
    }
    // The cut fails too: nothing is taken until it succeeds.
    rig.faults.set_room(10);
    rig.faults.set_cut_fails(true);
    assert!(bus.publish("t", vec![rec(0, "lost")]).await.is_err());
    rig.faults.set_room(u64::MAX);
    assert!(bus.publish("t", vec![rec(0, "lost")]).await.is_err());
    rig.faults.set_cut_fails(false);
    bus.publish("t", vec![rec(0, "after")]).await.unwrap();
    assert_eq!(all(&bus, 0).await, ["before", "after"]);
    drop(bus);
    let bus = rig.try_open().unwrap();
    assert_eq!((all(&bus, 0).await, bus.torn_tails()), (vec!["before".into(), "after".into()], &[][..]));
}

/// BUS-1.
#[tokio::test]
async fn nothing_is_acknowledged_or_shown_when_the_sync_fails() {
    let rig = Rig::new(EmbeddedConfig::default());
    let bus = rig.open(1).await;
    rig.faults.set_sync_fails(true);
    assert!(matches!(bus.publish("t", vec![rec(0, "x")]).await, Err(BusError::Io { .. })));
    assert!(all(&bus, 0).await.is_empty());
    rig.faults.set_sync_fails(false);
    bus.publish("t", vec![rec(0, "y")]).await.unwrap();
    assert_eq!(all(&bus, 0).await, ["y"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn publishes_that_wait_together_share_a_sync() {
    let rig = Rig::new(EmbeddedConfig { max_pending_bytes: 1 << 30, ..EmbeddedConfig::default() });
    let bus = Arc::new(rig.open(4).await);
    // The writer cannot begin while its lock is held, so all of these wait.
    let topic = bus.inner.topic("t").unwrap();
    let answers: Vec<_> = {
        let _held = topic.log.writer.lock();
        let submit = |i: u32| {
            let bytes = Bytes::from(i.to_string());
            topic.submit(vec![Prepared { partition: i % 4, crc: crc32c::crc32c(&bytes), bytes }]).unwrap()
        };
        (0..1000).map(submit).collect()
    };
    for answer in answers {
        answer.await.unwrap().unwrap();
    }
    assert!(rig.faults.syncs() <= 2, "{} syncs", rig.faults.syncs());
    assert_eq!(all(&bus, 3).await.len(), 250);
}

#[tokio::test]
async fn a_second_process_is_told_that_it_is_locked() {
    let rig = Rig::new(EmbeddedConfig::default());
    let bus = rig.open(1).await;
    assert!(matches!(rig.try_open(), Err(BusError::Locked(_))));
    bus.close().await.unwrap();
    assert!(rig.try_open().is_ok());
}

#[tokio::test]
async fn old_records_go_by_age_even_when_nothing_is_written() {
    let hour = Duration::from_secs(3600);
    let rig = Rig::new(EmbeddedConfig { retention_secs: 3 * 3600, segment_bytes: 4096, ..EmbeddedConfig::default() });
    let bus = rig.open(1).await;
    for i in 0..4u8 {
        bus.publish("t", vec![rec(0, vec![i; 4000])]).await.unwrap();
        rig.clock.advance(hour);
    }
    // Hours 0, 1, 2, 3; now it is 4.
    bus.enforce_retention().unwrap();
    let start = |bus: &EmbeddedBus| bus.inner.topic("t").unwrap().log.shown.view.read().start(0);
    assert_eq!(start(&bus), 1);
    rig.clock.advance(10 * hour);
    bus.enforce_retention().unwrap();
    assert_eq!((start(&bus), all(&bus, 0).await.len()), (4, 0));
    assert_eq!(rig.segments().len(), 1);
    // Offsets go on.
    bus.publish("t", vec![rec(0, "x")]).await.unwrap();
    assert_eq!(bus.fetch("t", 0, 0, 9).await.unwrap()[0].offset, 4);
    drop(bus);
    let bus = rig.try_open().unwrap();
    assert_eq!(bus.fetch("t", 0, 0, 9).await.unwrap()[0].offset, 4);
}

#[tokio::test]
async fn the_oldest_go_by_size_and_a_slow_group_goes_on_at_what_is_left() {
    let rig = Rig::new(EmbeddedConfig {
        segment_bytes: 4096,
        retention_bytes: 16 << 10,
        max_lag_bytes: 0,
        tail_cache_bytes: 0,
        ..EmbeddedConfig::default()
    });
    let bus = rig.open(1).await;
    let mut slow = bus.consumer("slow", &["t"]).await.unwrap();
    slow.poll(1, Duration::ZERO).await.unwrap();
    for i in 0..40u32 {
        bus.publish("t", vec![rec(0, vec![i as u8; 1000])]).await.unwrap();
    }
    bus.enforce_retention().unwrap();
    let size: u64 = rig.segments().iter().map(|p| std::fs::metadata(p).unwrap().len()).sum();
    assert!((8 << 10..=16 << 10).contains(&size), "{size}");
    let got = slow.poll(1000, Duration::ZERO).await.unwrap().records;
    let oldest = bus.partitions().await.unwrap()[0].start;
    assert!(oldest > 20);
    assert_eq!(got.first().unwrap().offset, oldest);
}

#[tokio::test]
async fn a_running_consumer_that_lags_too_far_holds_publishers_back() {
    let rig = Rig::new(EmbeddedConfig { segment_bytes: 4096, max_lag_bytes: 20_000, ..EmbeddedConfig::default() });
    let bus = rig.open(1).await;
    let full = async || {
        for i in 0..1000 {
            match bus.publish("t", vec![rec(0, vec![0; 1000])]).await {
                Ok(()) => {}
                Err(BusError::Backpressure { .. }) => return Some(i),
                Err(e) => panic!("{e:?}"),
            }
        }
        None
    };
    assert_eq!(full().await, None, "nobody reads, nobody is waited for");
    let mut consumer = bus.consumer("g", &["t"]).await.unwrap();
    consumer.poll(1, Duration::ZERO).await.unwrap();
    assert_eq!(full().await, Some(0));
    while !consumer.poll(100, Duration::ZERO).await.unwrap().records.is_empty() {}
    assert!((15..30).contains(&full().await.unwrap()));
    drop(consumer);
    assert_eq!(full().await, None);
}

#[tokio::test]
async fn what_waits_for_the_disk_is_bounded() {
    let rig = Rig::new(EmbeddedConfig { max_pending_bytes: 4096, ..EmbeddedConfig::default() });
    let bus = rig.open(1).await;
    let topic = bus.inner.topic("t").unwrap();
    let body = Bytes::from(vec![0; 960]);
    let submit = || topic.submit(vec![Prepared { partition: 0, crc: crc32c::crc32c(&body), bytes: body.clone() }]);
    let waiting: Vec<_> = {
        let _stuck_disk = topic.log.writer.lock();
        let waiting = (0..4).map(|_| submit().unwrap()).collect();
        assert!(matches!(submit(), Err(BusError::Backpressure { .. })));
        waiting
    };
    for answer in waiting {
        answer.await.unwrap().unwrap();
    }
    submit().unwrap().await.unwrap().unwrap();
    assert_eq!(all(&bus, 0).await.len(), 5);
}

#[tokio::test]
async fn a_large_publish_is_refused_by_size_not_told_to_wait() {
    let rig = Rig::new(EmbeddedConfig { max_pending_bytes: 4096, ..EmbeddedConfig::default() });
    let bus = rig.open(1).await;
    assert!(matches!(bus.publish("t", vec![rec(0, vec![0; 8000])]).await, Err(BusError::TooLarge { .. })));
}

#[tokio::test]
async fn a_commit_beyond_the_end_skips_nothing() {
    // The log lost its unsynced end, the commits did not.
    let rig = Rig::new(EmbeddedConfig { fsync: false, ..EmbeddedConfig::default() });
    let bus = rig.open(1).await;
    bus.publish("t", (0..10).map(|i| rec(0, format!("{i}"))).collect()).await.unwrap();
    let mut consumer = bus.consumer("g", &["t"]).await.unwrap();
    consumer.poll(1, Duration::ZERO).await.unwrap();
    let at = TopicPartition { topic: "t".into(), partition: 0 };
    consumer.commit(&[(at.clone(), 10)]).await.unwrap();
    drop((consumer, bus));
    let path = &rig.segments()[0];
    let len = std::fs::metadata(path).unwrap().len();
    std::fs::File::options().write(true).open(path).unwrap().set_len(len - 5 * 41).unwrap();
    let bus = rig.try_open().unwrap();
    let mut consumer = bus.consumer("g", &["t"]).await.unwrap();
    assert_eq!(consumer.poll(1, Duration::ZERO).await.unwrap().assigned, [at]);
    bus.publish("t", vec![rec(0, "new")]).await.unwrap();
    assert_eq!(consumer.poll(9, Duration::ZERO).await.unwrap().records[0].bytes, "new");
}

#[tokio::test]
async fn a_replay_does_not_hold_up_partitions_that_keep_up() {
    let rig = Rig::new(EmbeddedConfig { tail_cache_bytes: 4000, segment_bytes: 1 << 20, ..EmbeddedConfig::default() });
    let bus = rig.open(2).await;
    bus.publish("t", (0..500).map(|_| rec(0, vec![0; 1000])).collect()).await.unwrap();
    let mut consumer = bus.consumer("g", &["t"]).await.unwrap();
    consumer.poll(1, Duration::ZERO).await.unwrap();
    bus.publish("t", vec![rec(1, "fresh")]).await.unwrap();
    let got = consumer.poll(10, Duration::ZERO).await.unwrap().records;
    assert!(got.iter().any(|r| r.bytes == "fresh") && got.len() > 1, "{}", got.len());
}

#[tokio::test]
async fn build_makes_it_beneath_the_data_folder() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Arc::new(ManualClock::default());
    let bus = crate::build(&BusConfig::default(), dir.path(), clock).await.unwrap();
    assert_eq!(bus.kind(), "embedded");
    assert!(dir.path().join("bus/.lock").is_file());
}

fn valid_segment() -> (Vec<u8>, usize) {
    let head = format::SegmentHead { base: 0, base_bytes: 0, created: Timestamp(5), next: vec![0; 2].into() };
    let mut bytes = head.encode();
    let start = bytes.len();
    for i in 0..6u32 {
        let payload = vec![i as u8; 10 * i as usize];
        let record = format::RecordHead {
            len: payload.len() as u32,
            crc: crc32c::crc32c(&payload),
            partition: i % 2,
            offset: u64::from(i / 2),
            time: Timestamp(6),
            group_start: bytes.len() as u32,
        };
        bytes.extend_from_slice(&record.encode(head.salt()));
        bytes.extend_from_slice(&payload);
    }
    (bytes, start)
}

#[test]
fn bad_segment_heads_and_their_answers() {
    let (good, _) = valid_segment();
    let with = |at: usize, bytes: &[u8]| {
        let mut bad = good.clone();
        bad[at..at + bytes.len()].copy_from_slice(bytes);
        bad
    };
    for (bad, answer) in [
        (vec![], "shorter than its header"),
        (good[..39].to_vec(), "shorter than its header"),
        (good[..50].to_vec(), "shorter than its header"),
        (with(0, b"X"), "does not begin with NSBUSLOG"),
        (with(8, &[2]), "newer version"),
        (with(12, &[0]), "number of partitions"),
        (with(12, &[0xff; 4]), "number of partitions"),
        (with(45, &[1]), "checksum"),
    ] {
        let Err(format::HeadError::Bad(why)) = format::SegmentHead::read(&bad[..]) else { panic!("{answer}") };
        assert!(why.contains(answer), "{why}");
    }
}

/// A record appended to a good segment, and why what begins with it is cut.
#[test]
fn bad_records_and_their_answers() {
    let (good, _) = valid_segment();
    let head = format::SegmentHead::read(&good[..]).unwrap();
    let next = format::RecordHead {
        len: 3,
        crc: crc32c::crc32c(b"abc"),
        partition: 1,
        offset: 3,
        time: Timestamp(7),
        group_start: good.len() as u32,
    };
    let with = |record: format::RecordHead, payload: &[u8]| [&record.encode(head.salt()), payload].concat();
    let fine = with(next, b"abc");
    let mut of_another_segment = next.encode(head.salt() ^ 1).to_vec();
    of_another_segment.extend_from_slice(b"abc");
    for (record, answer) in [
        (fine.clone(), None),
        (fine[..39].to_vec(), Some("the file ends within a record's header")),
        (fine[..42].to_vec(), Some("the file ends within a record")),
        (vec![0; 60], Some("the record's header or its checksum is wrong")),
        (of_another_segment, Some("the record's header or its checksum is wrong")),
        (with(next, b"abX"), Some("the checksum of the record is wrong")),
        (with(format::RecordHead { len: u32::MAX, ..next }, b"abc"), Some("the record's length is out of range")),
        (with(format::RecordHead { partition: 2, ..next }, b"abc"), Some("the record's partition is out of range")),
        (
            with(format::RecordHead { offset: 2, ..next }, b"abc"),
            Some("the record's offset does not follow the one before"),
        ),
        (
            with(format::RecordHead { offset: 4, ..next }, b"abc"),
            Some("the record's offset does not follow the one before"),
        ),
    ] {
        let file = [&good[..], &record].concat();
        let found =
            format::recover(&file[..], &head, format::Place::start(&head), format::Index::default(), file.len() as u64)
                .unwrap();
        let kept = if answer.is_none() { file.len() } else { good.len() };
        assert_eq!((found.torn, found.end.pos), (answer, kept as u64));
    }
}

#[test]
fn the_fuzz_corpus_is_current_and_taken_without_a_panic() {
    let (good, start) = valid_segment();
    let mut damaged = good.clone();
    damaged[start + 5] ^= 1;
    let seeds = [
        ("whole", good.clone()),
        ("torn", good[..good.len() - 7].to_vec()),
        ("damaged", damaged),
        ("empty-log", good[..start].to_vec()),
    ];
    crate::seeds::replay("bus_segment", &seeds, fuzz_bus_segment);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        fuzz_bus_segment(&bytes);
    }

    /// Spoiled copies of a real file: recovery never panics, and keeps only what was written.
    #[test]
    fn no_damage_panics_or_makes_up_records(
        flips in proptest::collection::vec((any::<proptest::sample::Index>(), 1u8..), 0..6),
        cut in any::<proptest::sample::Index>(),
    ) {
        let (good, start) = valid_segment();
        let mut bad = good.clone();
        for (at, bits) in flips {
            let at = start + at.index(bad.len() - start);
            bad[at] ^= bits;
        }
        bad.truncate(start + cut.index(bad.len() - start + 1));
        fuzz_bus_segment(&bad);
        let head = format::SegmentHead::read(&bad[..]).unwrap();
        if let Ok(found) = format::recover(&bad[..], &head, format::Place::start(&head), format::Index::default(), bad.len() as u64) {
            let end = found.end.pos as usize;
            prop_assert_eq!(&bad[..end], &good[..end]);
        }
    }

    /// Random publishes, reads by partition from random places, reopening: always the same as vectors in memory.
    #[test]
    fn behaves_like_vectors(
        steps in proptest::collection::vec((0u32..3, 0usize..900, 1usize..5, any::<bool>()), 1..25),
        cache in prop_oneof![Just(0u64), Just(2000), Just(1 << 20)],
        from in 0u64..30,
    ) {
        let rt = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        rt.block_on(async {
            let rig = Rig::new(EmbeddedConfig { tail_cache_bytes: cache, segment_bytes: 4096, fsync: false, ..EmbeddedConfig::default() });
            let mut bus = rig.open(3).await;
            let mut model: Vec<Vec<Bytes>> = vec![Vec::new(); 3];
            for (i, (partition, len, n, reopen)) in steps.into_iter().enumerate() {
                let bodies: Vec<Bytes> = (0..n).map(|_| vec![i as u8; len].into()).collect();
                bus.publish("t", bodies.iter().map(|b| rec(partition, b.clone())).collect()).await.unwrap();
                model[partition as usize].extend(bodies);
                if reopen {
                    drop(bus);
                    bus = rig.try_open().unwrap();
                    assert_eq!(bus.torn_tails(), []);
                }
            }
            for (partition, want) in model.iter().enumerate() {
                let got = bus.fetch("t", partition as u32, from, 1000).await.unwrap();
                let want: Vec<_> = want.iter().enumerate().skip(from as usize).collect();
                assert_eq!(got.len(), want.len());
                for (record, (offset, bytes)) in got.iter().zip(want) {
                    assert_eq!((record.offset, &record.bytes), (offset as u64, bytes));
                }
            }
        });
    }
}
