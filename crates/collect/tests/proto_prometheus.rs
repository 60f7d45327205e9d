//! The sources that ask: scrape and PromQL, against a real HTTP server.

#![expect(clippy::unwrap_used, reason = "a failure of the set-up fails the test")]

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::IntoResponse;
use axum::routing::{any, get};
use nightshift_collect::client::Credentials;
use nightshift_collect::promql::{PromqlConfig, PromqlSource, Query};
use nightshift_collect::scrape::{ScrapeConfig, ScrapeSource, TargetGroup};
use nightshift_collect::supervise::{BoundAddresses, SourceConfig, Surroundings};
use nightshift_collect::testkit::TestContext;
use nightshift_collect::{Source, SourceError};
use nightshift_config::{Level, SecretSource, load};
use nightshift_health::Health;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::task::JoinHandle;

/// Status, content type, body.
type Reply = (u16, &'static str, String);

/// A server that gives the next answer of a list, the last one for ever.
#[derive(Clone, Default)]
struct Answers {
    list: Arc<Mutex<Vec<Reply>>>,
    asked: Arc<Mutex<Vec<(HeaderMap, String)>>>,
    calls: Arc<AtomicU64>,
}

async fn answer(State(state): State<Answers>, headers: HeaderMap, body: String) -> impl IntoResponse + use<> {
    state.asked.lock().unwrap().push((headers, body));
    state.calls.fetch_add(1, Ordering::SeqCst);
    let mut list = state.list.lock().unwrap();
    let (status, content_type, text) = if list.len() > 1 { list.remove(0) } else { list[0].clone() };
    (StatusCode::from_u16(status).unwrap(), [("content-type", content_type)], text)
}

async fn server(answers: &[(u16, &'static str, &str)]) -> (SocketAddr, Answers) {
    let state = Answers::default();
    *state.list.lock().unwrap() = answers.iter().map(|(s, c, t)| (*s, *c, (*t).to_owned())).collect();
    let router = Router::new()
        .route("/metrics", get(answer))
        .route("/api/v1/query", any(answer))
        .route("/redirect", get(|| async { axum::response::Redirect::temporary("/metrics") }))
        .with_state(state.clone());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await });
    (address, state)
}

fn start(mut source: impl Source + 'static, test: &TestContext) -> JoinHandle<Result<(), SourceError>> {
    let context = test.context.clone();
    tokio::spawn(async move { source.run(&context).await })
}

async fn end(test: &TestContext, running: JoinHandle<Result<(), SourceError>>) {
    test.context.shutdown.cancel();
    tokio::time::timeout(Duration::from_secs(10), running).await.expect("ends when told").unwrap().unwrap();
}

/// Health is set after the points are handed in.
async fn health_becomes(test: &TestContext, want: Health) -> String {
    for _ in 0..1_000 {
        let row = test.health();
        if row.status == want && row.detail != "starting" {
            return row.detail;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("health stays {:?}", test.health());
}

fn bearer() -> Credentials {
    Credentials::Bearer { token: "hunter2".into() }
}

fn scrape_of(addresses: &[SocketAddr]) -> ScrapeConfig {
    let targets = addresses.iter().map(SocketAddr::to_string).collect();
    ScrapeConfig {
        static_targets: vec![TargetGroup { targets, labels: [("env".to_owned(), "test".to_owned())].into() }],
        interval_secs: 1,
        timeout_secs: 2,
        ..ScrapeConfig::default()
    }
}

const TEXT: &str = "text/plain; version=0.0.4";

#[tokio::test]
async fn a_target_is_scraped_with_its_labels_and_up() {
    let (address, answers) = server(&[(200, TEXT, "# TYPE a counter\na{x=\"y\"} 3\n")]).await;
    let test = TestContext::new("s");
    let settings = ScrapeConfig { credentials: bearer(), ..scrape_of(&[address]) };
    let running = start(ScrapeSource::new("s", settings), &test);
    let got = test.sink.wait_until(|r| r.metrics.len() >= 4).await;
    let a = &got.metrics[0];
    let mut labels = a.labels.clone();
    labels.sort();
    let want = [("env", "test"), ("instance", &address.to_string()), ("job", "s"), ("x", "y")];
    assert_eq!(labels, want.map(|(n, v)| (n.to_owned(), v.to_owned())));
    assert_eq!((a.name.as_str(), a.value, a.kind), ("a", 3.0, nightshift_model::batch::SeriesKind::Counter));
    assert_eq!(a.at, nightshift_collect::testkit::START);
    assert!(got.metrics.iter().any(|p| p.name == "up" && p.value == 1.0));
    assert!(health_becomes(&test, Health::Healthy).await.contains("1 of 1 targets up"));
    end(&test, running).await;
    let (headers, _) = answers.asked.lock().unwrap()[0].clone();
    assert_eq!(headers["authorization"], "Bearer hunter2");
    assert!(headers["accept"].to_str().unwrap().starts_with("application/openmetrics-text"));
}

/// Each bad answer: `up` is 0, nothing of it is taken, and health says why, without secrets.
#[tokio::test]
async fn bad_answers_are_up_0_and_nothing_else() {
    let large = format!("a 1\n# {}\n", "x".repeat(20_000));
    let rows = [
        (500, TEXT, "a 1\n", "status 500"),
        (200, TEXT, "a 1\nbroken\n", "line 2: sample without a value"),
        (200, "application/openmetrics-text", "a 1\n", "the answer was cut off"),
        (200, TEXT, &large, "more than 10000 bytes"),
        (200, TEXT, "<html>", "the answer is no exposition"),
    ];
    for (status, content_type, text, why) in rows {
        let (address, _) = server(&[(status, content_type, text)]).await;
        let test = TestContext::new("s");
        let credentials = Credentials::Basic { user: "u".into(), password: "hunter2".into() };
        let settings = ScrapeConfig { body_bytes_max: 10_000, credentials, ..scrape_of(&[address]) };
        let running = start(ScrapeSource::new("s", settings), &test);
        let got = test.sink.wait_until(|r| r.metrics.len() >= 3).await;
        let names: Vec<_> = got.metrics.iter().take(3).map(|p| (p.name.as_str(), p.value)).collect();
        assert_eq!((names[0], names[2]), (("up", 0.0), ("scrape_samples_scraped", 0.0)), "{why}");
        let detail = health_becomes(&test, Health::Unhealthy).await;
        assert!(detail.contains(why) && !detail.contains("hunter2"), "want `{why}`, got {detail}");
        end(&test, running).await;
    }
}

#[tokio::test]
async fn a_redirect_is_not_followed_and_a_dead_target_does_not_hide_a_live_one() {
    let (live, _) = server(&[(200, TEXT, "a 1\n")]).await;
    let dead = {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        listener.local_addr().unwrap()
    };
    let test = TestContext::new("s");
    let mut settings = scrape_of(&[live, dead]);
    let redirected = TargetGroup {
        targets: vec![live.to_string()],
        labels: [("__metrics_path__".to_owned(), "/redirect".to_owned())].into(),
    };
    settings.static_targets.push(redirected);
    let running = start(ScrapeSource::new("s", settings), &test);
    let ups = |r: &nightshift_collect::testkit::Recorded, v| {
        r.metrics.iter().filter(|p| p.name == "up" && p.value == v).count()
    };
    test.sink.wait_until(|r| ups(r, 1.0) >= 1 && ups(r, 0.0) >= 2).await;
    let detail = health_becomes(&test, Health::Degraded).await;
    assert!(detail.contains("of 3 targets up"), "{detail}");
    end(&test, running).await;
}

#[tokio::test]
async fn files_of_targets_come_and_go() {
    let (address, _) = server(&[(200, TEXT, "a 1\n")]).await;
    let dir = tempfile::tempdir().unwrap();
    let settings = ScrapeConfig {
        target_files: vec![format!("{}/*.json", dir.path().display())],
        refresh_secs: 1,
        interval_secs: 1,
        ..ScrapeConfig::default()
    };
    let test = TestContext::new("s");
    let running = start(ScrapeSource::new("s", settings), &test);
    assert!(health_becomes(&test, Health::Degraded).await.contains("0 of 0 targets"), "no targets is not health");
    let file = dir.path().join("a.json");
    std::fs::write(&file, format!(r#"[{{"targets":["{address}"]}}]"#)).unwrap();
    test.sink.wait_until(|r| r.metrics.iter().any(|p| p.name == "a")).await;
    std::fs::write(&file, "broken").unwrap();
    let detail = health_becomes(&test, Health::Degraded).await;
    assert!(detail.contains("a.json") && detail.contains("1 of 1 targets up"), "it keeps what it had: {detail}");
    end(&test, running).await;
}

#[tokio::test]
async fn scrapes_pause_while_the_bus_is_full_and_lose_nothing() {
    let (address, answers) = server(&[(200, TEXT, "a 1\n")]).await;
    let test = TestContext::new("s");
    test.sink.set_busy(u64::MAX);
    let running = start(ScrapeSource::new("s", scrape_of(&[address])), &test);
    test.sink.wait_until(|r| r.refused >= 20).await;
    assert_eq!(answers.calls.load(Ordering::SeqCst), 1, "not asked again while the first answer waits");
    test.sink.set_busy(0);
    let got = test.sink.wait_until(|r| !r.metrics.is_empty()).await;
    assert_eq!(got.metrics[0].name, "a");
    end(&test, running).await;
}

fn vector(value: &str) -> String {
    format!(
        r#"{{"status":"success","data":{{"resultType":"vector","result":[{{"metric":{{"instance":"db1:9100","x":"y"}},"value":[1767225600,"{value}"]}}]}}}}"#
    )
}

fn promql_of(address: SocketAddr, queries: &[&str]) -> PromqlConfig {
    let queries =
        queries.iter().map(|n| Query { name: (*n).to_owned(), expr: format!("sum({n})"), ..Query::default() });
    PromqlConfig {
        url: format!("http://{address}"),
        queries: queries.collect(),
        interval_secs: 1,
        ..PromqlConfig::default()
    }
}

const JSON: &str = "application/json";

#[tokio::test]
async fn a_query_becomes_series_and_does_not_show_in_the_url() {
    let (address, answers) = server(&[(200, JSON, &vector("4"))]).await;
    let test = TestContext::new("p");
    let settings = PromqlConfig { credentials: bearer(), ..promql_of(address, &["errors"]) };
    let source = PromqlSource::new("p", settings);
    let running = start(source, &test);
    let got = test.sink.wait_until(|r| !r.metrics.is_empty()).await;
    let p = &got.metrics[0];
    assert_eq!((p.name.as_str(), p.value, p.resource["instance"].as_str()), ("errors", 4.0, "db1:9100"));
    health_becomes(&test, Health::Healthy).await;
    end(&test, running).await;
    let (headers, body) = answers.asked.lock().unwrap()[0].clone();
    assert_eq!(headers["authorization"], "Bearer hunter2");
    assert!(body.contains("query=sum%28errors%29") && body.contains("time=1767225600"), "{body}");
}

/// Absence is not health.
#[tokio::test]
async fn what_is_missing_or_partial_is_shown_as_such() {
    let empty = r#"{"status":"success","data":{"resultType":"vector","result":[]}}"#;
    let partial =
        r#"{"status":"success","warnings":["store a did not answer"],"data":{"resultType":"vector","result":[]}}"#;
    let refused = r#"{"status":"error","errorType":"bad_data","error":"parse error"}"#;
    for (status, text, health, why) in [
        (200, empty, Health::Degraded, "no data"),
        (200, partial, Health::Degraded, "store a did not answer"),
        (400, refused, Health::Unhealthy, "parse error"),
        (502, "<html>", Health::Unhealthy, "status 502"),
        (200, "<html>", Health::Unhealthy, "no Prometheus answer"),
        (401, refused, Health::Unhealthy, "status 401"),
    ] {
        let (address, _) = server(&[(status, JSON, text)]).await;
        let test = TestContext::new("p");
        let settings = PromqlConfig { credentials: bearer(), ..promql_of(address, &["errors"]) };
        let source = PromqlSource::new("p", settings);
        let running = start(source, &test);
        let detail = health_becomes(&test, health).await;
        assert!(detail.contains(why) && !detail.contains("hunter2"), "want `{why}`, got {detail}");
        assert!(test.sink.recorded().metrics.is_empty(), "no zero is made of it");
        end(&test, running).await;
    }
}

#[tokio::test]
async fn it_recovers_when_the_server_does() {
    let (address, _) = server(&[(503, JSON, "down"), (200, JSON, &vector("1"))]).await;
    let test = TestContext::new("p");
    let running = start(PromqlSource::new("p", promql_of(address, &["a"])), &test);
    test.sink.wait_until(|r| !r.metrics.is_empty()).await;
    health_becomes(&test, Health::Healthy).await;
    end(&test, running).await;
}

#[tokio::test]
async fn addresses_with_credentials_are_refused_without_repeating_them() {
    for url in ["http://u:hunter2@h:1", "ftp://h", "nonsense"] {
        let test = TestContext::new("p");
        let settings = PromqlConfig { url: url.into(), ..PromqlConfig::default() };
        let mut source = PromqlSource::new("p", settings);
        let error = source.run(&test.context).await.unwrap_err();
        assert!(error.fatal && !error.to_string().contains("hunter2"), "{error}");
    }
}

/// The whole way: a reference in a file, the sources built from it, and the header that a server is sent.
#[tokio::test]
async fn credentials_of_the_configuration_reach_the_servers() {
    struct Known;
    impl SecretSource for Known {
        fn variable(&self, name: &str) -> Option<String> {
            (name == "TOKEN").then(|| "hunter2".to_owned())
        }
        fn file(&self, path: &Path, _: u64) -> std::io::Result<Vec<u8>> {
            let there = path == Path::new("/run/password");
            there.then(|| b"hunter3\n".to_vec()).ok_or(std::io::ErrorKind::NotFound.into())
        }
    }
    let (scraped, scrapes) = server(&[(200, TEXT, "a 1\n")]).await;
    let (asked, questions) = server(&[(200, JSON, &vector("4"))]).await;
    let text = format!(
        r#"
[web]
type = "prometheus_scrape"
interval_secs = 1
static_targets = [{{ targets = ["{scraped}"] }}]
credentials = {{ type = "bearer", token = {{ env = "TOKEN" }} }}

[prometheus]
type = "prometheus_query"
url = "http://{asked}"
interval_secs = 1
queries = [{{ name = "errors", expr = "sum(errors)" }}]
credentials = {{ type = "basic", user = "u", password = {{ file = "/run/password" }} }}
"#
    );
    let loaded = load::<BTreeMap<String, SourceConfig>>(&text, "sources.toml", [], &Known, Level::Error);
    assert!(loaded.problems.is_empty(), "{}", loaded.problems);
    assert!(!format!("{loaded:?}").contains("hunter"));
    let around = Surroundings {
        data_dir: "/none".into(),
        host_name: "h".into(),
        bound: BoundAddresses::default(),
        kubernetes: None,
    };
    for (name, answers, want) in [("web", scrapes, "Bearer hunter2"), ("prometheus", questions, "Basic dTpodW50ZXIz")] {
        let test = TestContext::new(name);
        let mut source = loaded.config[name].build(name, &around).unwrap();
        let context = test.context.clone();
        let running = tokio::spawn(async move { source.run(&context).await });
        test.sink.wait_until(|r| !r.metrics.is_empty()).await;
        end(&test, running).await;
        let (headers, _) = answers.asked.lock().unwrap()[0].clone();
        assert_eq!(headers["authorization"], want);
    }
}
