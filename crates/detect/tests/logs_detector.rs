//! Log anomalies from outside: what is told, what is not, and that a restart changes nothing.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use nightshift_detect::logs::{LogConfig, LogDetector, LogStats};
use nightshift_model::batch::{BatchBuilder, BatchView};
use nightshift_model::proto::LogLine;
use nightshift_model::{Anomaly, AnomalyKind, EntityId, EntityMeta, FaultClass, Phase, Timestamp};

const START: i64 = 1_767_225_600;

fn detector() -> LogDetector {
    LogDetector::new(LogConfig::default()).unwrap()
}

struct Feed {
    detector: LogDetector,
    out: Vec<Anomaly>,
    seed: u64,
}

fn at(minute: i64, second: i64) -> Timestamp {
    Timestamp::from_secs(START + minute * 60 + second)
}

fn step(d: &mut LogDetector, lines: &[(Timestamp, u32, &str)], out: &mut Vec<Anomaly>, synthetic: bool) -> LogStats {
    let mut b = BatchBuilder::default();
    let mut meta = EntityMeta::bare(EntityId::new("local", "service", "", "checkout"));
    meta.synthetic = synthetic;
    b.entity(&meta);
    let mut newest = Timestamp::EPOCH;
    for (time, severity, body) in lines {
        newest = newest.max(*time);
        b.log(&LogLine { time_ns: time.0, severity: *severity, body: (*body).into(), ..LogLine::default() });
    }
    let payload = b.finish("files");
    d.step("default", &BatchView::parse(&payload).unwrap(), newest, out)
}

impl Feed {
    fn new() -> Self {
        Self { detector: detector(), out: Vec::new(), seed: 7 }
    }

    fn next(&mut self, below: u64) -> u64 {
        self.seed = self.seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.seed >> 33) % below
    }

    fn lines(&mut self, lines: &[(Timestamp, u32, &str)]) {
        step(&mut self.detector, lines, &mut self.out, false);
    }

    /// A service that says a heartbeat twice a minute and some requests, now and then a warning.
    fn healthy(&mut self, minutes: std::ops::Range<i64>, heartbeat: bool) {
        for m in minutes {
            if heartbeat {
                self.lines(&[(at(m, 3), 9, "heartbeat ok"), (at(m, 33), 9, "heartbeat ok")]);
            }
            for i in 0..20 + self.next(20) {
                let ms = self.next(900);
                let text = format!("request 4711 done in {ms} ms");
                self.lines(&[(at(m, i as i64 % 60), 9, &text)]);
            }
            if self.next(10) == 0 {
                self.lines(&[(at(m, 50), 13, "slow query, 812 ms")]);
            }
        }
    }

    fn opened(&self) -> Vec<&Anomaly> {
        self.out.iter().filter(|a| a.phase == Phase::Open).collect()
    }
}

#[test]
fn a_chatty_healthy_journal_opens_nothing_that_counts() {
    let mut f = Feed::new();
    f.healthy(0..600, true);
    // And then something new at INFO, often.
    for i in 0..200 {
        let text = format!("module {} loaded its {} tables", ["a", "b", "c"][i % 3], ["red", "blue"][i % 2]);
        f.lines(&[(at(600 + i as i64 / 20, 10), 9, &text)]);
    }
    f.healthy(610..700, true);
    let worst = f.out.iter().map(|a| a.score).fold(0.0, f64::max);
    assert!(worst < 0.5, "{:?}", f.out.iter().find(|a| a.score >= 0.5));
    let burst = f.out.iter().filter(|a| a.labels["reason"] == "burst" && a.onset < at(600, 0)).count();
    assert_eq!(burst, 0);
}

#[test]
fn a_burst_is_one_alarm_that_opens_within_its_first_minute_and_ends() {
    let mut f = Feed::new();
    f.healthy(0..120, true);
    f.out.clear();
    for m in 120..125 {
        for s in 0..60 {
            for _ in 0..3 {
                f.lines(&[(at(m, s), 17, "payment gateway refused the card")]);
            }
        }
    }
    f.healthy(125..140, true);
    let bursts: Vec<_> = f.out.iter().filter(|a| a.labels["reason"] == "burst").collect();
    let first = bursts.first().unwrap();
    assert_eq!((first.phase, first.kind), (Phase::Open, AnomalyKind::Log));
    assert!(first.onset < at(120, 15), "{}", first.onset);
    assert!(first.score >= 0.65 && first.score < 0.9);
    assert!(first.explanation.observed > first.explanation.upper.map(|u| u - 1.0));
    assert!(first.explanation.sigma.unwrap() > 5.0);
    assert!(first.explanation.sample.contains("payment gateway"));
    assert!(bursts.iter().all(|a| a.id == first.id));
    assert_eq!(bursts.iter().filter(|a| a.phase == Phase::Closed).count(), 1);
    // The errors of the whole service rose too, and ended too.
    let errors: Vec<_> = f.out.iter().filter(|a| a.signal == "log_errors").map(|a| a.phase).collect();
    assert_eq!((errors.first(), errors.last()), (Some(&Phase::Open), Some(&Phase::Closed)));
    assert_eq!(f.out.iter().find(|a| a.signal == "log_errors").unwrap().fault, FaultClass::ErrorRateSpike);
}

#[test]
fn the_same_burst_later_is_told_again() {
    let mut f = Feed::new();
    f.healthy(0..120, true);
    for begin in [120, 300] {
        let text = "queue is full, message dropped";
        for i in 0..200 {
            f.lines(&[(at(begin, i / 4), 13, text)]);
        }
        f.healthy(begin + 1..begin + 180, true);
    }
    let opened = f.opened();
    let bursts: Vec<_> = opened.iter().filter(|a| a.labels["reason"] == "burst").collect();
    assert_eq!(bursts.len(), 2);
    assert_ne!(bursts[0].id, bursts[1].id);
    assert_eq!(bursts[0].fingerprint, bursts[1].fingerprint);
}

#[test]
fn a_regular_template_that_stops_is_told_and_its_return_ends_it() {
    let mut f = Feed::new();
    f.healthy(0..200, true);
    f.out.clear();
    f.healthy(200..220, false);
    f.healthy(220..225, true);
    let gone: Vec<_> = f.out.iter().filter(|a| a.labels["reason"] == "vanished").collect();
    assert_eq!(gone.iter().map(|a| a.phase).collect::<Vec<_>>(), [Phase::Open, Phase::Closed]);
    assert_eq!(gone[0].onset, at(200, 0));
    assert!(gone[0].description.contains("heartbeat"));
}

#[test]
fn an_entity_that_goes_silent_as_a_whole_loses_no_templates() {
    let mut f = Feed::new();
    f.healthy(0..200, true);
    f.detector.tick(at(260, 0), &mut f.out);
    f.healthy(260..280, true);
    assert!(f.out.iter().all(|a| a.labels["reason"] != "vanished"), "{:?}", f.out);
}

#[test]
fn a_new_error_is_medium_after_the_warm_up_and_nothing_before() {
    let mut f = Feed::new();
    f.healthy(0..10, true);
    f.lines(&[(at(10, 0), 17, "cannot reach inventory")]);
    assert!(f.out.is_empty(), "{:?}", f.out);
    f.healthy(10..60, true);
    f.lines(&[(at(60, 0), 17, "cannot reach recommendations")]);
    let a = f.out.iter().find(|a| a.labels["reason"] == "new" && a.onset == at(60, 0)).unwrap();
    assert_eq!((a.score, a.severity.as_str()), (0.6, "medium"));
    f.healthy(61..90, true);
    let last = f.out.iter().rfind(|a| a.signal == f.out[0].signal).unwrap();
    assert_eq!(last.phase, Phase::Closed);
}

#[test]
fn a_critical_line_needs_no_warm_up_and_shows_no_secret() {
    let mut f = Feed::new();
    f.lines(&[(at(0, 1), 0, "Out of memory: Killed process 17 (java) password=hunter2")]);
    f.lines(&[(at(0, 9), 0, "Out of memory: Killed process 18 (java) password=hunter2")]);
    f.lines(&[(at(3, 9), 0, "Out of memory: Killed process 19 (java) password=hunter2")]);
    f.lines(&[(at(3, 10), 21, "giving up")]);
    f.detector.tick(at(30, 0), &mut f.out);
    let oom: Vec<_> = f.out.iter().filter(|a| a.fault == FaultClass::OomKill).collect();
    assert_eq!(oom.iter().map(|a| a.phase).collect::<Vec<_>>(), [Phase::Open, Phase::Update, Phase::Closed]);
    assert_eq!((oom[0].score, oom[0].onset, oom[2].last_seen), (0.9, at(0, 1), at(3, 9)));
    assert_eq!(oom[2].explanation.observed, Some(3.0));
    assert!(f.out.iter().all(|a| !format!("{a:?}").contains("hunter2")));
    assert_eq!(f.opened().len(), 2);
}

#[test]
fn what_is_delivered_twice_counts_once() {
    let mut d = detector();
    let mut out = Vec::new();
    let mut b = BatchBuilder::default();
    b.entity(&EntityMeta::bare(EntityId::new("local", "host", "", "h")));
    for fingerprint in [1, 2, 1, 0, 0] {
        b.log(&LogLine { time_ns: at(0, 0).0, body: "x".into(), fingerprint, ..LogLine::default() });
    }
    let payload = b.finish("s");
    let view = BatchView::parse(&payload).unwrap();
    let first = d.step("default", &view, at(0, 0), &mut out);
    assert_eq!((first.lines, first.duplicates), (4, 1));
    let again = d.step("default", &view, at(0, 0), &mut out);
    assert_eq!((again.lines, again.duplicates), (2, 3));
}

#[test]
fn old_future_and_broken_lines_are_counted() {
    let mut d = detector();
    let mut out = Vec::new();
    let mut b = BatchBuilder::default();
    b.entity(&EntityMeta::bare(EntityId::new("local", "host", "", "h")));
    for (entity, minute) in [(0, -61), (0, 10), (9, 0), (0, 0)] {
        b.log(&LogLine {
            entity,
            time_ns: at(minute, 0).0,
            body: "kernel panic".into(),
            severity: 0,
            ..LogLine::default()
        });
    }
    let payload = b.finish("s");
    let stats = d.step("default", &BatchView::parse(&payload).unwrap(), at(0, 0), &mut out);
    assert_eq!((stats.late, stats.ahead, stats.bad, stats.lines, stats.critical), (1, 1, 1, 2, 2));
    assert_eq!(out[0].onset, at(0, 0), "a line from the future is taken as of now");
}

#[test]
fn an_injected_line_teaches_the_entity_nothing() {
    let mut d = detector();
    let mut out = Vec::new();
    step(&mut d, &[(at(0, 0), 21, "injected")], &mut out, true);
    assert!(out[0].synthetic());
    assert_eq!(d.entities(), 1);
    step(&mut d, &[(at(0, 0), 9, "real")], &mut out, false);
    assert_eq!(d.entities(), 2);
}

#[test]
fn a_restart_anywhere_changes_nothing() {
    let run = |restarts: bool| {
        let mut f = Feed::new();
        let mut from = 0;
        for (to, heartbeat) in [(40, true), (75, true), (90, false), (95, true)] {
            f.healthy(from..to, heartbeat);
            for i in 0..100 {
                f.lines(&[(at(to, i / 2), 17, "cannot write the journal")]);
            }
            from = to + 1;
            if restarts {
                let bytes = f.detector.snapshot();
                let mut fresh = detector();
                fresh.restore(&bytes).unwrap();
                assert_eq!(fresh.snapshot(), bytes);
                f.detector = fresh;
            }
        }
        f.detector.tick(at(200, 0), &mut f.out);
        (f.out, f.detector.stats())
    };
    let (out, stats) = run(false);
    assert!(out.len() > 5);
    assert_eq!(run(true), (out, stats));
}

#[test]
fn a_broken_snapshot_changes_nothing() {
    let mut f = Feed::new();
    f.healthy(0..5, true);
    let bytes = f.detector.snapshot();
    for bad in [&b""[..], b"garbage that is long enough", &bytes[..bytes.len() - 3]] {
        assert!(f.detector.restore(bad).is_err());
    }
    assert_eq!(f.detector.snapshot(), bytes);
}

#[test]
fn entities_are_bounded() {
    let mut d = LogDetector::new(LogConfig { entities_max: 10, ..LogConfig::default() }).unwrap();
    let mut out = Vec::new();
    for i in 0..50 {
        let mut b = BatchBuilder::default();
        b.entity(&EntityMeta::bare(EntityId::new("local", "pod", "n", &format!("p{i}"))));
        b.log(&LogLine { time_ns: at(i, 0).0, body: "hello".into(), ..LogLine::default() });
        let payload = b.finish("s");
        d.step("default", &BatchView::parse(&payload).unwrap(), at(i, 0), &mut out);
    }
    assert_eq!((d.entities(), d.stats().entities_evicted), (10, 40));
}
