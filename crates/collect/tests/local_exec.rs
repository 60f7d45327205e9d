//! Exec collectors, run for real: the two examples, and programs that misbehave.

#![expect(clippy::unwrap_used, reason = "a failure of the set-up fails the test")]

use nightshift_collect::exec::Config;
use nightshift_collect::supervise::{BoundAddresses, Surroundings};
use nightshift_collect::testkit::TestContext;
use nightshift_collect::{Source as _, SourceError};
use nightshift_health::{BySourceAndReason, Health};
use std::time::Duration;
use tokio::task::JoinHandle;

const PATIENCE: Duration = Duration::from_secs(60);

fn example(name: &str) -> String {
    format!("{}/../../examples/collectors/{name}", env!("CARGO_MANIFEST_DIR"))
}

fn sh(script: &str) -> Config {
    Config { command: vec!["sh".into(), "-c".into(), script.into()], ..Config::default() }
}

struct Running {
    test: TestContext,
    task: JoinHandle<Result<(), SourceError>>,
}

fn run(config: &Config) -> Running {
    let around = Surroundings {
        data_dir: "/nonexistent".into(),
        host_name: "me".into(),
        bound: BoundAddresses::default(),
        kubernetes: None,
    };
    let mut source = config.build("probe", &around).unwrap();
    let test = TestContext::new("probe");
    let context = test.context.clone();
    Running { task: tokio::spawn(async move { source.run(&context).await }), test }
}

impl Running {
    async fn wait(&self, what: &str, done: impl Fn(&TestContext) -> bool) {
        let waiting = async {
            while !done(&self.test) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        assert!(tokio::time::timeout(PATIENCE, waiting).await.is_ok(), "{what}; health {:?}", self.test.health());
    }

    async fn end(self) {
        self.test.context.shutdown.cancel();
        tokio::time::timeout(PATIENCE, self.task).await.expect("it ends").unwrap().unwrap();
    }

    async fn error(self) -> SourceError {
        tokio::time::timeout(PATIENCE, self.task).await.expect("it ends").unwrap().unwrap_err()
    }
}

#[tokio::test]
async fn the_shell_example() {
    let config = Config { command: vec![example("disk_usage.sh"), "/".into()], interval_secs: 1, ..Config::default() };
    let running = run(&config);
    let got = running.test.sink.wait_until(|r| r.metrics.len() >= 2).await;
    let ratio = got.metrics.iter().find(|m| m.name == "disk_used_ratio").unwrap();
    assert!((0.0..=1.0).contains(&ratio.value));
    assert!(ratio.labels.contains(&("mountpoint".into(), "/".into())), "{:?}", ratio.labels);
    assert_eq!(ratio.resource["host.name"], "me");
    running.wait("healthy", |t| t.health().status == Health::Healthy).await;
    assert!(running.test.health().detail.contains("1 file systems"), "{:?}", running.test.health());
    running.end().await;
}

#[tokio::test]
async fn the_python_example() {
    // A door that answers, and one that nobody keeps.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let up = format!("http://{}/", listener.local_addr().unwrap());
    tokio::spawn(async move {
        axum::serve(listener, axum::Router::new().route("/", axum::routing::get(|| async { "ok" }))).await
    });
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let down = format!("http://{closed}/");
    let command =
        vec!["python3".into(), example("http_probe.py"), "--interval".into(), "0.2".into(), up.clone(), down.clone()];
    let running = run(&Config { command, pass_env: vec!["HOME".into()], ..Config::default() });
    let got = running.test.sink.wait_until(|r| r.metrics.len() >= 4 && !r.logs.is_empty()).await;
    let value = |name: &str, url: &str| {
        let of = |m: &&nightshift_collect::MetricPoint| m.name == name && m.labels.iter().any(|(_, v)| v == url);
        got.metrics.iter().find(of).map(|m| m.value)
    };
    assert_eq!(value("http_probe_up", &up), Some(1.0));
    assert_eq!(value("http_probe_status_code", &up), Some(200.0));
    assert_eq!(value("http_probe_up", &down), Some(0.0));
    assert_eq!(value("http_probe_duration_seconds", &down), None, "no answer has no duration");
    assert!(got.logs[0].severity == 17 && got.logs[0].body.contains("does not answer"), "{:?}", got.logs[0]);
    running.end().await;
}

#[tokio::test]
async fn bad_lines_cost_only_themselves() {
    let script = r#"echo nonsense; echo '{"v":9,"type":"log"}'; head -c 100000 /dev/zero | tr '\0' x; echo
        echo; echo '{"type":"log","message":"good"}'; sleep 1000"#;
    let running = run(&sh(script));
    let got = running.test.sink.wait_until(|r| !r.logs.is_empty()).await;
    assert_eq!(got.logs[0].body, "good");
    let count = |reason: &'static str| {
        let label = BySourceAndReason { source: "probe".into(), reason: reason.into() };
        running.test.context.metrics.samples_rejected.get_or_create(&label).get()
    };
    assert_eq!((count("bad_line"), count("line_too_long")), (2, 1));
    let health = running.test.health();
    assert_eq!(health.status, Health::Degraded);
    assert!(health.detail.contains("3 bad lines") && health.detail.contains("longer than"), "{health:?}");
    running.end().await;
}

#[tokio::test]
async fn what_it_says_when_it_fails_is_the_reason() {
    let error = run(&sh("echo 'no licence' >&2; sleep 0.2; exit 3")).error().await;
    assert!(!error.fatal && error.what.contains("exit status: 3") && error.what.contains("no licence"), "{error}");
    let config = Config { command: vec!["/nonexistent/collector".into()], ..Config::default() };
    let error = run(&config).error().await;
    assert!(error.fatal && error.what.contains("/nonexistent/collector"), "{error}");
    let error = run(&sh("exit 0")).error().await;
    assert!(!error.fatal, "one that should run on may not end, even well: {error}");
}

#[tokio::test]
async fn only_what_is_allowed_is_in_its_environment() {
    let script = r#"env | while read -r line; do printf '{"type":"log","message":"%s"}\n' "$line"; done; sleep 1000"#;
    let config = Config { env: [("GIVEN".to_owned(), "yes".to_owned())].into(), ..sh(script) };
    let running = run(&config);
    let got = running.test.sink.wait_until(|r| r.logs.iter().any(|l| l.body.starts_with("GIVEN=yes"))).await;
    let names: Vec<&str> = got.logs.iter().filter_map(|l| l.body.split('=').next()).collect();
    assert!(names.contains(&"NIGHTSHIFT_SCHEMA") && names.contains(&"PATH"), "{names:?}");
    // Cargo sets this one for every test; it stands for any secret of ours.
    assert!(std::env::var_os("CARGO_MANIFEST_DIR").is_some() && !names.contains(&"CARGO_MANIFEST_DIR"), "{names:?}");
    running.end().await;
}

#[tokio::test]
async fn all_that_it_started_ends_with_it() {
    // The child of the child ignores the polite signal, and holds the pipe.
    let script =
        r#"sh -c 'trap "" TERM; echo "{\"type\":\"log\",\"message\":\"$$\"}"; while :; do sleep 0.05; done' & wait"#;
    let running = run(&sh(script));
    let got = running.test.sink.wait_until(|r| !r.logs.is_empty()).await;
    let process = format!("/proc/{}/stat", got.logs[0].body);
    assert!(std::path::Path::new(&process).exists());
    running.end().await;
    // A dead process whose parent has not looked yet is still listed, as a zombie.
    let gone = || std::fs::read_to_string(&process).map_or(true, |stat| stat.contains(") Z"));
    let waiting = async {
        while !gone() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(tokio::time::timeout(PATIENCE, waiting).await.is_ok(), "{process} still runs");
}

#[tokio::test]
async fn a_run_that_takes_too_long_is_ended() {
    let running = run(&Config { interval_secs: 1, run_secs_max: 1, ..sh("sleep 1000") });
    running
        .wait("it is told", |t| t.health().status == Health::Unhealthy && t.health().detail.contains("longer than 1 s"))
        .await;
    running.end().await;
}

#[tokio::test]
async fn an_interval_run_that_fails_is_unhealthy_until_one_is_well() {
    let dir = tempfile::tempdir().unwrap();
    let flag = dir.path().join("well");
    let script = format!("test -e '{}' || {{ echo broken >&2; sleep 0.1; exit 1; }}", flag.display());
    let running = run(&Config { interval_secs: 1, ..sh(&script) });
    running.wait("unhealthy", |t| t.health().status == Health::Unhealthy && t.health().detail.contains("broken")).await;
    std::fs::write(&flag, "").unwrap();
    running.wait("healthy", |t| t.health().status == Health::Healthy).await;
    running.end().await;
}

#[tokio::test]
async fn it_thinks_of_itself_what_it_says() {
    let running = run(&sh(r#"echo '{"type":"heartbeat","status":"degraded","detail":"2 of 3 queues"}'; sleep 1000"#));
    running
        .wait("degraded", |t| t.health().status == Health::Degraded && t.health().detail.contains("2 of 3 queues"))
        .await;
    running.end().await;
}

#[test]
fn bad_configurations_are_told() {
    let around = Surroundings {
        data_dir: "/d".into(),
        host_name: "h".into(),
        bound: BoundAddresses::default(),
        kubernetes: None,
    };
    let none = Config::default().build("x", &around).unwrap_err();
    assert!(none.fatal && none.what.contains("`command`"), "{none}");
    let bad = Config { env: [("A=B".to_owned(), String::new())].into(), ..sh("true") }.build("x", &around).unwrap_err();
    assert!(bad.fatal && bad.what.contains("`A=B`"), "{bad}");
}
