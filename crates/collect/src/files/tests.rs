//! Real files, rotated as real programs rotate them. Time is passed in, so nothing here waits.

use super::multiline::MultilineMode;
use super::scan::Record;
use super::*;
use crate::supervise::BoundAddresses;
use crate::testkit::TestContext;
use nightshift_health::Health;
use std::fs;
use std::io::Write as _;
use std::path::Path;

/// A folder of logs, and the state of one source beside it.
struct Room {
    dir: tempfile::TempDir,
    config: Config,
    now_ms: u64,
    follower: Option<Follower>,
}

impl Room {
    fn new(config: Config) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let include = vec![format!("{}/*.log", dir.path().display())];
        let config = Config {
            include,
            rescan_ms: 0,
            multiline: MultilineConfig { mode: MultilineMode::Off, ..config.multiline.clone() },
            ..config
        };
        Self { dir, config, now_ms: 0, follower: None }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn append(&self, name: &str, text: &str) {
        let mut file = fs::OpenOptions::new().create(true).append(true).open(self.path(name)).unwrap();
        file.write_all(text.as_bytes()).unwrap();
    }

    fn follower(&mut self) -> &mut Follower {
        let exclude = self.config.exclude.iter().map(|p| glob::Pattern::new(p).unwrap()).collect();
        let (config, state) = (self.config.clone(), self.dir.path().join("state.json"));
        let rule = config.multiline.build().unwrap();
        self.follower.get_or_insert_with(|| Follower::new(config, rule, exclude, state).unwrap())
    }

    /// One look, not yet taken by the sink.
    fn poll(&mut self) -> Polled {
        self.now_ms += 100;
        let now_ms = self.now_ms;
        self.follower().poll(now_ms)
    }

    /// Looks until nothing more comes, all of it taken by the sink.
    fn read(&mut self) -> Vec<String> {
        let mut lines = Vec::new();
        loop {
            let polled = self.poll();
            if polled.dirty || !polled.records.is_empty() {
                self.follower().accept(&polled.records).unwrap();
            }
            lines.extend(polled.records.iter().map(|r: &Record| r.text.clone()));
            if polled.records.is_empty() && !polled.more {
                return lines;
            }
        }
    }

    /// The process ends and starts again.
    fn restart(&mut self) {
        self.follower = None;
        self.now_ms = 0;
    }

    fn wait(&mut self, ms: u64) {
        self.now_ms += ms;
    }
}

fn from_beginning() -> Config {
    Config { from: ReadFrom::Beginning, ..Config::default() }
}

#[test]
fn old_files_start_at_their_end_and_new_ones_at_their_beginning() {
    let mut room = Room::new(Config::default());
    room.append("old.log", "before\n");
    assert!(room.read().is_empty());
    room.append("old.log", "after\n");
    room.append("new.log", "first\n");
    let mut lines = room.read();
    lines.sort();
    assert_eq!(lines, ["after", "first"]);
}

#[test]
fn a_restart_neither_loses_nor_repeats() {
    let mut room = Room::new(Config::default());
    room.append("a.log", "old\n");
    assert!(room.read().is_empty());
    room.restart();
    room.append("a.log", "while away\n");
    assert_eq!(room.read(), ["while away"], "also when not one line had come before");
    room.append("a.log", "x\npart");
    assert_eq!(room.read(), ["x"]);
    room.restart();
    room.append("a.log", "ial\n");
    assert_eq!(room.read(), ["partial"]);
    room.restart();
    assert!(room.read().is_empty());
}

#[test]
fn a_file_that_came_while_away_is_read_whole() {
    let mut room = Room::new(Config::default());
    assert!(room.read().is_empty(), "nothing to follow yet");
    room.restart();
    room.append("a.log", "1\n");
    assert_eq!(room.read(), ["1"]);
    room.restart();
    room.append("b.log", "2\n");
    assert_eq!(room.read(), ["2"]);
}

#[test]
fn what_the_sink_did_not_take_is_read_again() {
    let mut room = Room::new(from_beginning());
    room.append("a.log", "1\n2\n");
    assert_eq!(room.poll().records.len(), 2);
    // Not accepted, and the process ends.
    room.restart();
    assert_eq!(room.read(), ["1", "2"]);
}

#[test]
fn rename_and_create() {
    let mut room = Room::new(from_beginning());
    room.append("a.log", "1\n");
    assert_eq!(room.read(), ["1"]);
    room.append("a.log", "2\n");
    fs::rename(room.path("a.log"), room.path("a.log.1")).unwrap();
    room.append("a.log", "3\n");
    // The writer still holds the old file for a moment.
    room.append("a.log.1", "late\n");
    let mut lines = room.read();
    lines.sort();
    assert_eq!(lines, ["2", "3", "late"]);
    room.append("a.log.1", "later\n");
    assert_eq!(room.read(), ["later"]);
    room.wait(60_000);
    room.read();
    assert_eq!(room.follower().files(), 1, "the old file is let go");
    room.restart();
    assert!(room.read().is_empty());
}

#[test]
fn a_renamed_file_that_still_matches_is_not_read_twice() {
    let mut room = Room::new(from_beginning());
    room.append("a.log", "1\n");
    assert_eq!(room.read(), ["1"]);
    fs::rename(room.path("a.log"), room.path("a-1.log")).unwrap();
    room.append("a.log", "2\n");
    assert_eq!(room.read(), ["2"]);
    room.restart();
    assert!(room.read().is_empty());
}

#[test]
fn rotation_while_we_are_away() {
    let mut room = Room::new(Config::default());
    room.append("a.log", "1\n");
    assert!(room.read().is_empty());
    room.restart();
    room.append("a.log", "2\n");
    fs::rename(room.path("a.log"), room.path("a.log.1")).unwrap();
    room.append("a.log", "3\n");
    let mut lines = room.read();
    lines.sort();
    assert_eq!(lines, ["2", "3"], "the end of the old file, and all of the new one");
    room.restart();
    assert!(room.read().is_empty());
}

#[test]
fn copy_and_truncate() {
    let mut room = Room::new(from_beginning());
    room.append("a.log", "one\ntwo\n");
    assert_eq!(room.read(), ["one", "two"]);
    fs::copy(room.path("a.log"), room.path("a.log.1")).unwrap();
    fs::OpenOptions::new().write(true).open(room.path("a.log")).unwrap().set_len(0).unwrap();
    room.append("a.log", "3\n");
    assert_eq!(room.read(), ["3"]);
    room.restart();
    assert!(room.read().is_empty());
}

#[test]
fn emptied_and_grown_past_where_we_were() {
    let mut room = Room::new(from_beginning());
    room.append("a.log", "one\n");
    assert_eq!(room.read(), ["one"]);
    fs::write(room.path("a.log"), "a longer line than before\n").unwrap();
    assert_eq!(room.read(), ["a longer line than before"]);
    // The same while the process is away.
    room.restart();
    fs::write(room.path("a.log"), "now another line, which is longer still\n").unwrap();
    assert_eq!(room.read(), ["now another line, which is longer still"]);
}

#[test]
fn a_hole_left_by_truncation_is_no_text() {
    let mut room = Room::new(from_beginning());
    fs::write(room.path("a.log"), [&[0; 5000][..], b"text\n"].concat()).unwrap();
    assert_eq!(room.read(), ["text"]);
}

#[test]
fn garbage_and_giants_are_bounded() {
    let mut room = Room::new(Config { line_bytes_max: 300, ..from_beginning() });
    let mut bytes = vec![b'x'; 1_000_000];
    bytes.extend_from_slice(b"\nafter\n\xff\xfe\x01\n\n  \n");
    fs::write(room.path("a.log"), bytes).unwrap();
    let mut cut = 0;
    let mut lines = Vec::new();
    for _ in 0..20 {
        let polled = room.poll();
        cut += polled.cut;
        room.follower().accept(&polled.records).unwrap();
        lines.extend(polled.records.into_iter().map(|r| r.text));
    }
    assert_eq!(lines.len(), 3, "blank lines are no entries");
    assert!(lines[0].len() < 350 && lines[0].ends_with("[999700 bytes cut]"), "{}", lines[0].len());
    assert_eq!(lines[1..], ["after".to_owned(), "\u{fffd}\u{fffd}\u{fffd}".to_owned()]);
    assert_eq!(cut, 1);
}

#[test]
fn a_line_without_an_end_waits_and_then_counts() {
    let mut room = Room::new(from_beginning());
    room.append("a.log", "no newline");
    assert!(room.read().is_empty());
    room.wait(10_000);
    assert_eq!(room.read(), ["no newline"]);
    room.append("a.log", " rest\n");
    assert_eq!(room.read(), [" rest"]);
}

#[test]
fn joined_lines_are_taken_whole_or_not_at_all() {
    let mut room = Room::new(from_beginning());
    room.config.multiline = MultilineConfig { wait_ms: 1_000, ..MultilineConfig::default() };
    room.append("a.log", "first\nERROR\n\tat x\n");
    assert_eq!(room.read(), ["first"]);
    // The entry that waits was not taken: after a restart it is read again, and is still one.
    room.restart();
    room.append("a.log", "\tat y\n");
    assert!(room.read().is_empty());
    room.wait(5_000);
    assert_eq!(room.read(), ["ERROR\n\tat x\n\tat y"]);
}

#[test]
fn excluded_and_unreadable_files() {
    let mut room = Room::new(from_beginning());
    room.config.exclude = vec![format!("{}/b*", room.dir.path().display())];
    room.config.files_max = 1;
    room.append("a.log", "1\n");
    room.append("b.log", "2\n");
    room.append("c.log", "3\n");
    assert_eq!(room.read(), ["1"]);
    let problems: Vec<String> = room.follower().problems().collect();
    assert_eq!(problems.len(), 1);
    assert!(problems[0].contains("c.log") && problems[0].contains("raise files_max"), "{problems:?}");
}

#[test]
fn many_lines_come_in_batches_and_every_file_has_its_turn() {
    let mut room = Room::new(Config { batch_lines_max: 10, ..from_beginning() });
    for name in ["a.log", "b.log"] {
        room.append(name, &(0..100).map(|i| format!("{name} {i}\n")).collect::<String>());
    }
    let lines = room.read();
    assert_eq!(lines.len(), 200);
    for name in ["a.log", "b.log"] {
        let own: Vec<_> = lines.iter().filter(|l| l.starts_with(name)).cloned().collect();
        assert_eq!(own, (0..100).map(|i| format!("{name} {i}")).collect::<Vec<_>>(), "in order");
    }
}

fn around(dir: &Path) -> Surroundings {
    Surroundings {
        data_dir: dir.join("state"),
        host_name: "me".into(),
        bound: BoundAddresses::default(),
        kubernetes: None,
    }
}

#[tokio::test]
async fn the_source_pauses_while_the_sink_is_busy_and_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("a.log");
    fs::write(&log, "2026-01-01T00:00:01Z ERROR one\n2026-01-01T00:00:02Z two\n").unwrap();
    let config = Config {
        include: vec![log.display().to_string()],
        from: ReadFrom::Beginning,
        poll_ms: 1,
        multiline: MultilineConfig { wait_ms: 0, ..MultilineConfig::default() },
        attributes: [("service.name".to_owned(), "app".to_owned())].into(),
        ..Config::default()
    };
    let mut source = config.build("logs", &around(dir.path())).unwrap();
    let test = TestContext::new("logs");
    test.sink.set_busy(3);
    let context = test.context.clone();
    let task = tokio::spawn(async move { source.run(&context).await });
    let got = test.sink.wait_until(|r| r.logs.len() == 2).await;
    assert_eq!(got.refused, 3);
    let first = &got.logs[0];
    assert_eq!((first.body.as_str(), first.severity, first.stream.as_str()), ("one", 17, &*log.display().to_string()));
    assert_eq!((&*first.resource["service.name"], &*first.resource["host.name"]), ("app", "me"));
    while test.health().status != Health::Healthy {
        tokio::task::yield_now().await;
    }
    test.context.shutdown.cancel();
    task.await.unwrap().unwrap();
}

#[tokio::test]
async fn no_file_is_not_healthy() {
    let dir = tempfile::tempdir().unwrap();
    let config =
        Config { include: vec![format!("{}/none*.log", dir.path().display())], poll_ms: 1, ..Config::default() };
    let mut source = config.build("logs", &around(dir.path())).unwrap();
    let test = TestContext::new("logs");
    let context = test.context.clone();
    let task = tokio::spawn(async move { source.run(&context).await });
    while !test.health().detail.contains("no file matches") {
        tokio::task::yield_now().await;
    }
    assert_eq!(test.health().status, Health::Degraded);
    test.context.shutdown.cancel();
    task.await.unwrap().unwrap();
}

#[test]
fn bad_configurations_are_told() {
    let dir = Path::new("/d");
    for (config, word) in [
        (Config::default(), "at least one path"),
        (Config { include: vec!["/var/log/[".into()], ..Config::default() }, "no glob pattern"),
        (Config { include: vec!["/a".into()], exclude: vec!["***".into()], ..Config::default() }, "no glob pattern"),
        (
            Config {
                include: vec!["/a".into()],
                multiline: MultilineConfig { mode: MultilineMode::StartPattern, ..MultilineConfig::default() },
                ..Config::default()
            },
            "multiline.start_pattern",
        ),
    ] {
        let error = config.build("x", &around(dir)).unwrap_err();
        assert!(error.fatal && error.to_string().contains(word), "{error}");
    }
}
