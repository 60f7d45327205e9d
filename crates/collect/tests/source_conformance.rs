//! What every kind of source must do, run against each: it starts and says how it does, it ends in time, it pauses
//! while the bus is full and loses nothing, and it comes back after a failure.

#![expect(clippy::unwrap_used, reason = "a failure of the set-up fails the test")]

use async_trait::async_trait;
use nightshift_bus::BusError;
use nightshift_collect::supervise::{
    BoundAddresses, RestartConfig, Shared, SourceConfig, SourceState, Supervisor, Surroundings,
};
use nightshift_collect::testkit::{Recorded, RecordingSink, TestContext};
use nightshift_collect::{
    Accepted, Attributes, LogEntry, MetricPoint, Sink, SinkError, SpanEntry, exec, files, host, journald, promql,
    scrape, syslog,
};
use nightshift_health::Health;
use nightshift_model::{Anomaly, Change};
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

/// Turns a hang into a failure; nothing here measures time.
const PATIENCE: Duration = Duration::from_secs(60);

/// Longest that a source may take to end.
const END_WITHIN: Duration = Duration::from_secs(10);

/// One kind of source, with something to observe.
struct Case {
    kind: &'static str,
    config: SourceConfig,
    /// Gives it more to see, until told to stop; `None` where there is always something to see.
    feed: Option<Feed>,
    /// Whether it observes numbered lines ("line 1", "line 2" …), so that a loss can be told.
    numbered: bool,
    /// Keeps what it observes alive.
    _dir: TempDir,
}

type Feed = fn(&Path, &BoundAddresses, u64);

/// Prints the numbers from 1, or from after `--after-cursor`, as `journalctl` would.
const JOURNALCTL: &str = r#"#!/bin/sh
i=0
for argument in "$@"; do
    case "$argument" in --after-cursor=c*) i=${argument#--after-cursor=c} ;; esac
done
while :; do
    i=$((i + 1))
    echo "{\"__CURSOR\":\"c$i\",\"MESSAGE\":\"line $i\",\"PRIORITY\":\"4\",\"_SYSTEMD_UNIT\":\"x.service\"}"
    sleep 0.02
done
"#;

/// A collector that counts for ever.
const COUNTING: &str =
    r#"i=0; while :; do i=$((i + 1)); echo "{\"type\":\"log\",\"message\":\"line $i\"}"; sleep 0.02; done"#;

async fn http_server(path: &'static str, content_type: &'static str, body: &'static str) -> String {
    use axum::routing::any;
    let answer = move || async move { ([("content-type", content_type)], body) };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move { axum::serve(listener, axum::Router::new().route(path, any(answer))).await });
    address
}

/// Every kind that can be configured.
async fn cases() -> Vec<Case> {
    let dir = || tempfile::tempdir().unwrap();
    let mut cases = Vec::new();
    let config = host::Config { interval_secs: 1, ..host::Config::default() };
    cases.push(Case { kind: "host", config: SourceConfig::Host(config), feed: None, numbered: false, _dir: dir() });

    let command = ["sh", "-c", COUNTING].map(str::to_owned).to_vec();
    let config = exec::Config { command, ..exec::Config::default() };
    // A program that is started again counts anew: numbers tell a loss only within one run.
    cases.push(Case { kind: "exec", config: SourceConfig::Exec(config), feed: None, numbered: true, _dir: dir() });

    let room = dir();
    let config = files::Config {
        include: vec![room.path().join("*.log").display().to_string()],
        from: files::ReadFrom::Beginning,
        poll_ms: 5,
        poll_idle_ms_max: 5,
        rescan_ms: 5,
        multiline: files::multiline::MultilineConfig { wait_ms: 0, ..Default::default() },
        ..files::Config::default()
    };
    let append: Feed = |dir, _, i| {
        let mut file = std::fs::OpenOptions::new().create(true).append(true).open(dir.join("a.log")).unwrap();
        writeln!(file, "line {i}").unwrap();
    };
    cases.push(Case {
        kind: "log_files",
        config: SourceConfig::LogFiles(config),
        feed: Some(append),
        numbered: true,
        _dir: room,
    });

    let room = dir();
    let program = room.path().join("journalctl");
    std::fs::write(&program, JOURNALCTL).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    let config = journald::Config { program: program.display().to_string(), ..journald::Config::default() };
    cases.push(Case {
        kind: "journald",
        config: SourceConfig::Journald(config),
        feed: None,
        numbered: true,
        _dir: room,
    });

    let config =
        syslog::Config { udp_listen: String::new(), tcp_listen: "127.0.0.1:0".into(), ..syslog::Config::default() };
    let send: Feed = |_, bound, i| {
        // Not there yet, or just restarting: this number is then sent by nobody, which `numbered` would take for a loss.
        let Some(address) = bound.all().get("s.tcp_listen").copied() else { panic!("it listens") };
        let mut stream = std::net::TcpStream::connect(address).unwrap();
        writeln!(stream, "<13>line {i}").unwrap();
    };
    cases.push(Case {
        kind: "syslog",
        config: SourceConfig::Syslog(config),
        feed: Some(send),
        numbered: true,
        _dir: dir(),
    });

    let address = http_server("/metrics", "text/plain; version=0.0.4", "requests_total 7\n").await;
    let config = scrape::ScrapeConfig {
        static_targets: vec![scrape::TargetGroup { targets: vec![address], ..Default::default() }],
        interval_secs: 1,
        timeout_secs: 1,
        ..Default::default()
    };
    cases.push(Case {
        kind: "prometheus_scrape",
        config: SourceConfig::PrometheusScrape(config),
        feed: None,
        numbered: false,
        _dir: dir(),
    });

    let answer = r#"{"status":"success","data":{"resultType":"vector","result":[{"metric":{"__name__":"up"},"value":[1767225600,"1"]}]}}"#;
    let url = format!("http://{}", http_server("/api/v1/query", "application/json", answer).await);
    let queries = vec![promql::Query { expr: "up".into(), ..Default::default() }];
    let config = promql::PromqlConfig { url, queries, interval_secs: 1, timeout_secs: 1, ..Default::default() };
    cases.push(Case {
        kind: "prometheus_query",
        config: SourceConfig::PrometheusQuery(config),
        feed: None,
        numbered: false,
        _dir: dir(),
    });
    cases
}

/// Fails as a broken bus does while told to; else it is the recording one.
struct BreakingSink {
    inner: Arc<RecordingSink>,
    broken: AtomicBool,
    failures: AtomicU64,
}

impl BreakingSink {
    fn check(&self) -> Result<(), SinkError> {
        if self.broken.load(Ordering::SeqCst) {
            self.failures.fetch_add(1, Ordering::SeqCst);
            return Err(SinkError::Bus(BusError::Closed));
        }
        Ok(())
    }
}

#[async_trait]
impl Sink for BreakingSink {
    async fn metrics(&self, source: &str, points: Vec<MetricPoint>) -> Result<Accepted, SinkError> {
        self.check()?;
        self.inner.metrics(source, points).await
    }
    async fn logs(&self, source: &str, lines: Vec<LogEntry>) -> Result<Accepted, SinkError> {
        self.check()?;
        self.inner.logs(source, lines).await
    }
    async fn spans(&self, source: &str, spans: Vec<SpanEntry>) -> Result<Accepted, SinkError> {
        self.check()?;
        self.inner.spans(source, spans).await
    }
    async fn changes(&self, source: &str, changes: Vec<(Attributes, Change)>) -> Result<Accepted, SinkError> {
        self.check()?;
        self.inner.changes(source, changes).await
    }
    async fn alerts(&self, source: &str, alerts: Vec<(Attributes, Anomaly)>) -> Result<Accepted, SinkError> {
        self.check()?;
        self.inner.alerts(source, alerts).await
    }
}

/// A source under a supervisor.
struct Running {
    kind: &'static str,
    test: TestContext,
    sink: Arc<BreakingSink>,
    supervisor: Supervisor,
    feeding: CancellationToken,
    numbered: bool,
    _case: TempDir,
    _state: TempDir,
}

impl Running {
    async fn start(case: Case, prepare: impl FnOnce(&BreakingSink)) -> Self {
        let test = TestContext::new("s");
        let sink = Arc::new(BreakingSink {
            inner: test.sink.clone(),
            broken: AtomicBool::new(false),
            failures: AtomicU64::new(0),
        });
        prepare(&sink);
        let state = tempfile::tempdir().unwrap();
        let around = Surroundings {
            data_dir: state.path().into(),
            host_name: "me".into(),
            bound: BoundAddresses::default(),
            kubernetes: None,
        };
        let source = case.config.build("s", &around).unwrap();
        assert_eq!((source.name(), source.kind()), ("s", case.kind));
        assert_eq!(case.config.kind(), case.kind);
        let shared = Shared {
            sink: sink.clone(),
            clock: test.clock.clone(),
            board: test.board.clone(),
            metrics: test.context.metrics.clone(),
        };
        let restart = RestartConfig { backoff_initial_ms: 1, backoff_max_ms: 50, healthy_after_secs: 60 };
        let mut supervisor = Supervisor::new(shared, restart, CancellationToken::new(), 1);
        supervisor.start(source).unwrap();
        let feeding = CancellationToken::new();
        if let Some(feed) = case.feed {
            let (stop, dir, bound) = (feeding.clone(), case._dir.path().to_owned(), around.bound.clone());
            let listens = case.kind == "syslog";
            tokio::spawn(async move {
                while listens && bound.all().is_empty() {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                for i in 1.. {
                    if stop.is_cancelled() {
                        return;
                    }
                    let (dir, bound) = (dir.clone(), bound.clone());
                    // A sender whose receiver is restarting tries again.
                    let sent = tokio::task::spawn_blocking(move || feed(&dir, &bound, i)).await;
                    drop(sent);
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            });
        }
        Self {
            kind: case.kind,
            test,
            sink,
            supervisor,
            feeding,
            numbered: case.numbered,
            _case: case._dir,
            _state: state,
        }
    }

    /// Waits until it has handed in so much.
    async fn wait_for(&self, calls: u64) -> Recorded {
        self.test.sink.wait_until(|r| r.calls >= calls).await
    }

    async fn wait(&self, what: &str, mut done: impl FnMut(&Self) -> bool) {
        let waiting = async {
            while !done(self) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let rows = self.supervisor.table();
        assert!(
            tokio::time::timeout(PATIENCE, waiting).await.is_ok(),
            "{}: {what}; health {:?}, row {:?}",
            self.kind,
            self.test.board.components(),
            rows.rows()
        );
    }

    async fn end(self) {
        self.feeding.cancel();
        let table = self.supervisor.table();
        let late = self.supervisor.stop(END_WITHIN).await;
        assert!(late.is_empty(), "{} did not end within {END_WITHIN:?}", self.kind);
        assert_eq!(table.rows()[0].state, SourceState::Ended, "{}", self.kind);
    }
}

/// The numbers of the lines, in the order in which they came.
fn numbers(recorded: &Recorded) -> Vec<u64> {
    recorded.logs.iter().map(|l| l.body.strip_prefix("line ").and_then(|n| n.parse().ok()).expect(&l.body)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_kind_starts_reports_health_and_ends() {
    for case in cases().await {
        let running = Running::start(case, |_| {}).await;
        let got = running.wait_for(2).await;
        assert!(got.metrics.len() + got.logs.len() > 0, "{} handed in nothing", running.kind);
        // The kinds that read this machine may find parts of it closed to them; that is degraded, and said.
        running
            .wait("healthy, or degraded with a reason", |r| {
                let row = r.test.health();
                row.status == Health::Healthy || (r.kind == "host" && row.detail.contains("could not be read"))
            })
            .await;
        running.end().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_kind_pauses_while_the_bus_is_full_and_loses_nothing() {
    for case in cases().await {
        let running = Running::start(case, |sink| sink.inner.set_busy(4)).await;
        let got = running.wait_for(3).await;
        assert!(got.refused >= 4, "{}: it was refused {} times", running.kind, got.refused);
        if running.numbered {
            let got = numbers(&running.test.sink.recorded());
            // Senders on several connections may overtake each other; nothing may be missing or come twice.
            let mut sorted = got.clone();
            sorted.sort_unstable();
            let newest = sorted.last().copied().unwrap_or(0);
            let missing: Vec<u64> =
                (1..=newest.saturating_sub(3)).filter(|n| sorted.binary_search(n).is_err()).collect();
            assert!(missing.is_empty(), "{}: {missing:?} of {got:?} are missing", running.kind);
            sorted.dedup();
            assert_eq!(sorted.len(), got.len(), "{}: some came twice: {got:?}", running.kind);
        }
        running.end().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_kind_ends_in_time_while_the_bus_stays_full() {
    for case in cases().await {
        let running = Running::start(case, |sink| sink.inner.set_busy(u64::MAX)).await;
        running.test.sink.wait_until(|r| r.refused > 0).await;
        running.end().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_kind_comes_back_after_the_bus_broke() {
    for case in cases().await {
        let running = Running::start(case, |sink| sink.broken.store(true, Ordering::SeqCst)).await;
        running.wait("it meets the broken bus", |r| r.sink.failures.load(Ordering::SeqCst) >= 2).await;
        running
            .wait("a broken bus is not healthy", |r| {
                r.test.board.components().iter().any(|c| c.name == "s-collector" && c.status != Health::Healthy)
            })
            .await;
        running.sink.broken.store(false, Ordering::SeqCst);
        let got = running.wait_for(2).await;
        // These read again what was not taken; the others can only go on.
        if matches!(running.kind, "log_files" | "journald") {
            let got = numbers(&got);
            assert_eq!(got, (1..=got.len() as u64).collect::<Vec<_>>(), "{}: none lost, none twice", running.kind);
        }
        running.wait("healthy again", |r| r.test.health().status == Health::Healthy || r.kind == "host").await;
        running.end().await;
    }
}
