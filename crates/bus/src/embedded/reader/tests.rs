//! Reading beside the process that writes.

use super::*;
use crate::embedded::EmbeddedBus;
use crate::{BusConfig, MemoryConfig, TopicPartition, build_reader};
use bytes::Bytes;
use nightshift_model::{ManualClock, Routing, Timestamp};
use std::time::{Duration, SystemTime};

struct Rig {
    dir: tempfile::TempDir,
    config: EmbeddedConfig,
}

impl Rig {
    fn new(config: EmbeddedConfig) -> Self {
        Self { dir: tempfile::tempdir().unwrap(), config }
    }

    fn open_writer(&self) -> Result<EmbeddedBus, BusError> {
        let clock = Arc::new(ManualClock::at(Timestamp::from_secs(1_000_000)));
        EmbeddedBus::open(self.dir.path(), &self.config, clock)
    }

    async fn writer(&self, partitions: u32) -> EmbeddedBus {
        let bus = self.open_writer().unwrap();
        bus.ensure_topics(&[TopicSpec { name: "t".into(), partitions }]).await.unwrap();
        bus
    }

    fn reader(&self) -> EmbeddedReader {
        EmbeddedReader::open(self.dir.path(), &self.config).unwrap()
    }

    fn segments(&self) -> Vec<PathBuf> {
        segment_paths(&self.dir.path().join("t")).unwrap()
    }
}

fn rec(partition: u32, body: impl Into<Bytes>) -> Outgoing {
    Outgoing { routing: Routing::Shard(partition), bytes: body.into() }
}

async fn bodies(bus: &dyn Bus, partition: u32) -> Vec<Bytes> {
    bus.fetch("t", partition, 0, 10_000).await.unwrap().into_iter().map(|r| r.bytes).collect()
}

/// Every file below `dir` with its bytes and when it was written.
fn contents(dir: &Path) -> BTreeMap<PathBuf, (Vec<u8>, SystemTime)> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(contents(&path));
        } else {
            let written = path.metadata().unwrap().modified().unwrap();
            found.insert(path.clone(), (std::fs::read(&path).unwrap(), written));
        }
    }
    found
}

#[tokio::test]
async fn a_reader_sees_what_the_writer_sees() {
    let rig = Rig::new(EmbeddedConfig { segment_bytes: 4096, ..EmbeddedConfig::default() });
    let writer = rig.writer(3).await;
    let reader = rig.reader();
    let mut consumer = writer.consumer("g", &["t"]).await.unwrap();
    consumer.poll(1, Duration::ZERO).await.unwrap();
    for i in 0..40u8 {
        writer.publish("t", vec![rec(u32::from(i % 2), vec![i; 400]), rec(2, vec![i])]).await.unwrap();
        let committed = u64::from(i / 2);
        for partition in 0..3 {
            consumer.commit(&[(TopicPartition { topic: "t".into(), partition }, committed)]).await.unwrap();
            assert_eq!(bodies(&reader, partition).await, bodies(&writer, partition).await);
        }
        assert_eq!(reader.partitions().await.unwrap(), writer.partitions().await.unwrap());
        assert_eq!(reader.groups().await.unwrap(), writer.groups().await.unwrap());
    }
    assert!(rig.segments().len() > 3, "segments were begun while it read");
    // A topic that is made later.
    assert!(matches!(reader.fetch("later", 0, 0, 1).await, Err(BusError::UnknownTopic(_))));
    writer.ensure_topics(&[TopicSpec { name: "later".into(), partitions: 1 }]).await.unwrap();
    assert_eq!(reader.fetch("later", 0, 0, 1).await.unwrap(), []);
    assert_eq!(reader.partitions().await.unwrap(), writer.partitions().await.unwrap());
    // It took no lock, so the writer still has it, and gives it back.
    assert!(matches!(rig.open_writer(), Err(BusError::Locked(_))));
    drop(consumer);
    drop(writer);
    rig.open_writer().unwrap();
}

/// Follows every partition until `done`; what it passed over must have been removed by then.
async fn follow(reader: &EmbeddedReader, partitions: u32, last: u64, removed: impl AsyncFn(u32) -> u64) -> u64 {
    let mut next = vec![0; partitions as usize];
    let mut missed = 0;
    while next.iter().any(|n| *n < last) {
        for partition in 0..partitions {
            let from = next[partition as usize];
            let records = reader.fetch("t", partition, from, 7).await.unwrap();
            let Some(first) = records.first() else { continue };
            assert!(first.offset == from || removed(partition).await >= first.offset, "{from} to {}", first.offset);
            missed += first.offset - from;
            for (record, offset) in records.iter().zip(first.offset..) {
                assert_eq!(record.offset, offset);
                assert_eq!(record.bytes, body(partition, offset), "partition {partition} offset {offset}");
            }
            next[partition as usize] = first.offset + records.len() as u64;
        }
        tokio::task::yield_now().await;
    }
    missed
}

fn body(partition: u32, offset: u64) -> Bytes {
    let len = 20 + (offset as usize * 37 + partition as usize * 11) % 300;
    format!("{partition}/{offset}/").into_bytes().into_iter().cycle().take(len).collect()
}

/// Publishes `last` records to each partition, several in a group.
async fn append(writer: &EmbeddedBus, partitions: u32, last: u64) {
    for offset in 0..last {
        let group = (0..partitions).map(|p| rec(p, body(p, offset))).collect();
        writer.publish("t", group).await.unwrap();
    }
}

async fn start_of(writer: &EmbeddedBus, partition: u32) -> u64 {
    writer.partitions().await.unwrap()[partition as usize].start
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nothing_is_missed_while_the_writer_appends_and_begins_segments() {
    let rig = Rig::new(EmbeddedConfig { segment_bytes: 4096, fsync: false, ..EmbeddedConfig::default() });
    let writer = Arc::new(rig.writer(3).await);
    let reader = rig.reader();
    let appends = tokio::spawn({
        let writer = writer.clone();
        async move { append(&writer, 3, 600).await }
    });
    assert_eq!(follow(&reader, 3, 600, async |p| start_of(&writer, p).await).await, 0);
    appends.await.unwrap();
    assert!(rig.segments().len() > 20);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn only_what_retention_removed_is_passed_over() {
    let rig = Rig::new(EmbeddedConfig {
        segment_bytes: 4096,
        retention_bytes: 16384,
        max_lag_bytes: 0,
        fsync: false,
        ..EmbeddedConfig::default()
    });
    let writer = Arc::new(rig.writer(3).await);
    let reader = rig.reader();
    let appends = tokio::spawn({
        let writer = writer.clone();
        async move { append(&writer, 3, 600).await }
    });
    // The last record stays: the newest segment is never removed.
    follow(&reader, 3, 600, async |p| start_of(&writer, p).await).await;
    appends.await.unwrap();
    assert!(rig.segments().len() < 10, "segments were removed while it read");
    assert_eq!(reader.partitions().await.unwrap(), writer.partitions().await.unwrap());
}

#[tokio::test]
async fn a_growing_tail_shows_whole_records_only() {
    let rig = Rig::new(EmbeddedConfig::default());
    let writer = rig.writer(2).await;
    for i in 0..4 {
        writer.publish("t", vec![rec(0, format!("a{i}")), rec(1, vec![7; 50])]).await.unwrap();
    }
    drop(writer);
    let path = rig.segments()[0].clone();
    let whole = std::fs::read(&path).unwrap();
    let head = whole.len() - 4 * (42 + 90);
    let reader = rig.reader();
    for len in head..=whole.len() {
        std::fs::write(&path, &whole[..len]).unwrap();
        let (groups, rest) = ((len - head) / 132, (len - head) % 132);
        let want = [groups + usize::from(rest >= 42), groups];
        // One that was there all along, and one that comes now.
        for reader in [&reader, &rig.reader()] {
            assert_eq!(bodies(reader, 0).await.len(), want[0], "at {len}");
            assert_eq!(bodies(reader, 1).await.len(), want[1], "at {len}");
            let ends: Vec<u64> = reader.partitions().await.unwrap().iter().map(|p| p.end).collect();
            assert_eq!(ends, want.map(|n| n as u64), "at {len}");
        }
    }
}

#[tokio::test]
async fn a_tail_that_was_cut_and_written_anew_is_read_anew() {
    let rig = Rig::new(EmbeddedConfig::default());
    let writer = rig.writer(1).await;
    writer.publish("t", vec![rec(0, "first")]).await.unwrap();
    let kept = std::fs::metadata(&rig.segments()[0]).unwrap().len();
    writer.publish("t", vec![rec(0, "second"), rec(0, "third")]).await.unwrap();
    drop(writer);
    let reader = rig.reader();
    assert_eq!(bodies(&reader, 0).await, ["first", "second", "third"]);
    // Seen, but never acknowledged: a failed sync takes it back.
    std::fs::File::options().write(true).open(&rig.segments()[0]).unwrap().set_len(kept).unwrap();
    assert_eq!(bodies(&reader, 0).await, ["first"]);
    let writer = rig.open_writer().unwrap();
    let long =
        "another that is longer than both of those together, so that their end is in the middle of it; ".repeat(3);
    writer.publish("t", vec![rec(0, long.clone())]).await.unwrap();
    assert_eq!(bodies(&reader, 0).await, ["first".to_owned(), long]);
    // The same without a look in between.
    drop(writer);
    std::fs::File::options().write(true).open(&rig.segments()[0]).unwrap().set_len(kept).unwrap();
    let writer = rig.open_writer().unwrap();
    let longer = "and once more ".repeat(100);
    writer.publish("t", vec![rec(0, longer.clone())]).await.unwrap();
    assert_eq!(bodies(&reader, 0).await, ["first".to_owned(), longer]);
    // A folder that was made anew.
    drop(writer);
    std::fs::remove_dir_all(rig.dir.path().join("t")).unwrap();
    assert!(matches!(reader.fetch("t", 0, 0, 1).await, Err(BusError::UnknownTopic(_))));
    let writer = rig.writer(2).await;
    writer.publish("t", vec![rec(1, "afresh")]).await.unwrap();
    assert_eq!(bodies(&reader, 1).await, ["afresh"]);
}

#[tokio::test]
async fn damage_to_what_was_acknowledged_is_told_and_nothing_is_written() {
    let rig = Rig::new(EmbeddedConfig { segment_bytes: 4096, ..EmbeddedConfig::default() });
    let writer = rig.writer(1).await;
    let mut consumer = writer.consumer("g", &["t"]).await.unwrap();
    consumer.poll(1, Duration::ZERO).await.unwrap();
    for i in 0..10u8 {
        writer.publish("t", vec![rec(0, vec![i; 1000])]).await.unwrap();
    }
    consumer.commit(&[(TopicPartition { topic: "t".into(), partition: 0 }, 4)]).await.unwrap();
    drop(consumer);
    drop(writer);
    // A torn record, a torn commit, a segment that was not finished, a file of somebody else.
    let newest = rig.segments().pop().unwrap();
    let torn = std::fs::metadata(&newest).unwrap().len() - 10;
    std::fs::File::options().write(true).open(&newest).unwrap().set_len(torn).unwrap();
    let commits = rig.dir.path().join(".commits");
    let mut bytes = std::fs::read(&commits).unwrap();
    bytes.extend_from_slice(&[40, 0, 0, 0, 1]);
    std::fs::write(&commits, bytes).unwrap();
    std::fs::write(rig.dir.path().join("t/00000000000000000099.seg.tmp"), "half").unwrap();
    std::fs::write(rig.dir.path().join("note.txt"), "mine").unwrap();
    let before = contents(rig.dir.path());
    let reader = rig.reader();
    assert_eq!(bodies(&reader, 0).await.len(), 9);
    let groups = reader.groups().await.unwrap();
    assert_eq!((groups.len(), groups[0].committed, groups[0].lag), (1, Some(4), 5));
    assert!(reader.publish("t", vec![rec(0, "x")]).await.is_err());
    reader.close().await.unwrap();
    assert!(matches!(reader.partitions().await, Err(BusError::Closed)));
    drop(reader);
    assert!(contents(rig.dir.path()) == before, "a reader wrote");

    let sealed = rig.segments().remove(1);
    let whole = std::fs::read(&sealed).unwrap();
    let mut bad = whole.clone();
    bad[whole.len() / 2] ^= 1;
    std::fs::write(&sealed, bad).unwrap();
    let told = rig.reader().fetch("t", 0, 0, 100).await.unwrap_err().to_string();
    assert!(told.contains(&sealed.display().to_string()), "{told}");
    std::fs::remove_file(&sealed).unwrap();
    let told = rig.reader().partitions().await.unwrap_err().to_string();
    assert!(told.contains("a file between them is missing"), "{told}");
}

#[tokio::test]
async fn what_a_reader_cannot_do_it_says() {
    let rig = Rig::new(EmbeddedConfig::default());
    let writer = rig.writer(1).await;
    let reader = rig.reader();
    for refused in [
        reader.publish("t", vec![rec(0, "x")]).await.unwrap_err(),
        reader.ensure_topics(&[]).await.unwrap_err(),
        reader.consumer("g", &["t"]).await.err().unwrap(),
    ] {
        assert!(matches!(&refused, BusError::Invalid(why) if why.contains("read only")), "{refused}");
    }
    assert!(matches!(reader.fetch("t", 1, 0, 1).await, Err(BusError::Invalid(_))));
    assert!(matches!(reader.fetch("../t", 0, 0, 1).await, Err(BusError::UnknownTopic(_))));
    drop(writer);

    let none = rig.dir.path().join("nothing");
    let why = build_reader(&BusConfig::default(), &none).await.err().unwrap().to_string();
    assert!(why.contains("nightshift run") && !none.exists(), "{why}");
    let memory = BusConfig::Memory(MemoryConfig::default());
    let why = build_reader(&memory, rig.dir.path()).await.err().unwrap().to_string();
    assert!(why.contains("memory"), "{why}");
}
