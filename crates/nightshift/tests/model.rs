//! Models that live, with real servers: what two clusters learned is summed and taken along by a third, whose new
//! series start warm; and a version on trial takes over when labels say that it is better.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

mod support;

use nightshift_detect::models::{Baselines, FamilySketch};
use serde_json::Value;
use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;
use support::{Server, now, remote_write, until, write_request};

const CONFIG: &str = "default_sources = false\n[models]\nsave_every_secs = 1\n[models.learn]\nsample_secs = 0\n\
    [models.trial]\nlabels_min = 5\nhours_min = 0.0\n";
const LIMIT: Duration = Duration::from_secs(60);
/// Seconds between readings.
const STEP: i64 = 10;

/// A command that may fail, on a data folder.
fn run(data: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_nightshift"));
    command.args(args);
    if !matches!(args, ["model", "merge", ..]) {
        command.arg("--config").arg(data.join("nightshift.toml")).arg("--data").arg(data);
    }
    command.output().unwrap()
}

fn code(out: &Output) -> (i32, String) {
    let text = format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    (out.status.code().unwrap(), text)
}

/// Noise between -1 and 1 that is the same every time.
fn noise(of: usize, i: i64) -> f64 {
    let x = (of as u64 * 7_919 + i as u64 + 1).wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695);
    ((x >> 33) as f64 / (1u64 << 30) as f64) - 1.0
}

/// Sends readings `from..to` of these services' latencies; `value` gives each.
async fn feed(
    server: &Server,
    begin: i64,
    services: impl Iterator<Item = usize> + Clone,
    readings: std::ops::Range<i64>,
    value: impl Fn(usize, i64) -> f64,
) {
    let client = reqwest::Client::new();
    let names: Vec<(usize, String)> = services.map(|n| (n, format!("shop-{n}"))).collect();
    let first = readings.start;
    for from in readings.clone().step_by(50) {
        let to = (from + 50).min(readings.end);
        let labels: Vec<_> =
            names.iter().map(|(_, n)| [("__name__", "request_latency_seconds"), ("service", n.as_str())]).collect();
        let series: Vec<_> = names
            .iter()
            .zip(&labels)
            .map(|((n, _), l)| (&l[..], (from..to).map(|i| (begin + i * STEP * 1_000, value(*n, i))).collect()))
            .collect();
        let status = remote_write(&client, &server.url("api"), write_request(&series)).await.unwrap();
        assert!((200..300).contains(&status), "{status} at {first}");
    }
}

/// A calm latency: each service has its own level.
fn calm(service: usize, i: i64) -> f64 {
    (0.1 + 0.05 * service as f64) * (1.0 + 0.05 * noise(service, i))
}

/// Exports once what was learned says that so many readings arrived.
async fn exported(server: &Server, readings: u64, to: &Path) -> Baselines {
    let text = to.to_str().unwrap();
    until("everything is learned", LIMIT, || async {
        run(server.data(), &["model", "export", "-o", text]);
        Baselines::parse(&std::fs::read(to).ok()?).ok().filter(|b| b.readings() >= readings)
    })
    .await
}

fn latency(of: &Baselines) -> &FamilySketch {
    let found = of.families.iter().find(|(k, _)| k.to_string() == "service/latency/level");
    found.unwrap_or_else(|| panic!("{:?}", of.families.keys().collect::<Vec<_>>())).1
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_halves_are_the_whole_and_a_third_cluster_starts_warm() {
    // Early enough that all of it is of the past, late enough that nothing is too old.
    let begin = now().millis() - 45 * 60 * 1_000;
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name);
    let mut parts = Vec::new();
    for (name, services) in [("whole", 0..12usize), ("a", 0..6), ("b", 6..12)] {
        let mut server = Server::start(CONFIG).await;
        let n = services.len() as u64;
        feed(&server, begin, services, 0..240, calm).await;
        parts.push(exported(&server, n * 240, &file(name)).await);
        server.stop().await;
    }
    let path = |name: &str| file(name).to_str().unwrap().to_owned();
    let (a, b, sum) = (path("a"), path("b"), path("sum"));
    assert_eq!(code(&run(folder.path(), &["model", "merge", &a, &b, "-o", &sum])).0, 0);
    let merged = Baselines::parse(&std::fs::read(&sum).unwrap()).unwrap();
    let (whole, merged) = (latency(&parts[0]), latency(&merged));
    assert_eq!((merged.series, merged.distances, merged.moments.n), (whole.series, whole.distances, whole.moments.n));
    assert_eq!((&merged.values, &merged.spread, &merged.sigma), (&whole.values, &whole.spread, &whole.sigma));
    assert_eq!((&merged.errors, merged.up.over, merged.down.over), (&whole.errors, whole.up.over, whole.down.over));
    for (x, y) in [
        (merged.moments.mean, whole.moments.mean),
        (merged.moments.m2, whole.moments.m2),
        (merged.up.squares, whole.up.squares),
    ] {
        assert!((x - y).abs() <= 1e-9 * y.abs().max(1.0), "{x} {y}");
    }
    let text = std::fs::read_to_string(&sum).unwrap();
    assert!(!text.contains("shop-") && !text.contains("request_latency"), "no name of an entity or a metric");
    // Twice the same is refused, in whatever file it comes.
    for twice in [vec!["model", "merge", &a, &a], vec!["model", "merge", &sum, &b]] {
        let (status, said) = code(&run(folder.path(), &twice));
        assert!(status == 2 && said.contains("count twice"), "{status} {said}");
    }

    // A folder on which nothing ran yet takes it in; so it does once only.
    let fresh = tempfile::tempdir().unwrap();
    std::fs::write(fresh.path().join("nightshift.toml"), CONFIG).unwrap();
    assert_eq!(code(&run(fresh.path(), &["model", "import", &sum])).0, 0);
    let (status, said) = code(&run(fresh.path(), &["model", "import", &sum]));
    assert!(status == 2 && said.contains("imported already"), "{status} {said}");
    let (status, said) = code(&run(fresh.path(), &["model", "import", &a]));
    assert!(status == 2 && said.contains("count twice"), "{status} {said}");

    // A new service is ill after 25 readings: too early to speak for whoever knows nothing of its family.
    let ill = |n: usize, i: i64| if i >= 25 { 20.0 * calm(n, i) } else { calm(n, i) };
    let anomalies = async |server: &Server| {
        let found = server.get("/api/v1/anomalies").await["data"].as_array().cloned().unwrap();
        found.into_iter().filter(|a| a["signal"] == "request_latency_seconds").collect::<Vec<_>>()
    };
    let warm = Server::start_in(fresh.path(), CONFIG).await;
    feed(&warm, begin, 99..100, 0..29, ill).await;
    let found = until("a series that started warm alarms", LIMIT, || async { anomalies(&warm).await.pop() }).await;
    assert_eq!(found["explanation"]["features"]["warm_start"], 1.0, "{found}");
    let active: Value = serde_json::from_str(&warm.command(&["model", "show", "--json"])).unwrap();
    assert_eq!(found["explanation"]["model_version"], active["data"]["version"]["version"], "{found}");

    let cold = Server::start(&CONFIG.replace("[models]\n", "[models]\nwarm_start = false\n")).await;
    assert_eq!(code(&run(cold.data(), &["model", "import", &sum])).0, 0);
    feed(&cold, begin, 99..100, 0..29, ill).await;
    until("everything is scored", LIMIT, || async {
        (cold.metric("nightshift_samples_scored_total").await >= 29.0).then_some(())
    })
    .await;
    assert_eq!(anomalies(&cold).await, Vec::<Value>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_version_on_trial_takes_over_when_labels_say_that_it_is_better() {
    let server = Server::start(CONFIG).await;
    let data = server.data().to_owned();
    let refused = |args: &[&str], status: i32, want: &str| {
        let (got, said) = code(&run(&data, args));
        assert!(got == status && said.contains(want), "{args:?}: {got} {said}");
    };
    refused(&["model", "promote"], 2, "no model is on trial");
    refused(&["model", "rollback"], 2, "was the first");
    refused(&["model", "show", "77"], 2, "no version 77");
    refused(&["model", "shadow", "--set", "zscore.sensitivty=high"], 2, "did you mean `sensitivity`");
    // It asks for more readings before it speaks; short departures are none of its business.
    server.command(&["model", "shadow", "--set", "open_points=20", "--set", "extreme_ratio=100"]);
    refused(&["model", "shadow", "--set", "open_points=3"], 2, "is on trial already");
    until("it runs", LIMIT, || async {
        let health = server.get("/api/v1/health").await.to_string();
        health.contains("on trial").then_some(())
    })
    .await;
    refused(&["model", "promote"], 1, "at least 5 are asked for");

    // Each service once, for five readings, seven minutes apart: nobody would call them one incident.
    let begin = now().millis() - 50 * 60 * 1_000;
    let blip = |n: usize, i: i64| {
        let at = 60 + 42 * n as i64;
        if (at..at + 5).contains(&i) { 4.0 * calm(n, i) } else { calm(n, i) }
    };
    feed(&server, begin, 0..5, 0..290, blip).await;
    let incidents =
        until("five incidents", LIMIT, || async { Some(server.incidents().await).filter(|all| all.len() >= 5) }).await;
    for incident in &incidents {
        let url = server.url("api");
        let out = Command::new(env!("CARGO_BIN_EXE_nightshift"))
            .args(["feedback", &incident.short_id(), "--false-positive", "--server", &url, "--data"])
            .arg(&data)
            .output()
            .unwrap();
        assert_eq!(code(&out).0, 0, "{}", code(&out).1);
    }
    let promoted = until("the labels are counted", LIMIT, || async {
        let out = run(&data, &["model", "promote", "--json"]);
        (out.status.success()).then(|| String::from_utf8(out.stdout).unwrap())
    })
    .await;
    let promoted: Value = serde_json::from_str(&promoted).unwrap();
    let version = promoted["data"]["version"].as_u64().unwrap();
    let shown: Value = serde_json::from_str(&server.command(&["model", "show", "--json"])).unwrap();
    let shown = &shown["data"]["version"];
    assert_eq!((shown["version"].as_u64(), &shown["state"]), (Some(version), &Value::from("active")), "{shown}");
    assert!(shown["comparison"]["shadow_only_right"].as_u64() >= Some(5), "{shown}");

    // The running service follows, and its anomalies name the version.
    until("the service uses it", LIMIT, || async {
        let health = server.get("/api/v1/health").await.to_string();
        health.contains(&format!("version {version} active")).then_some(())
    })
    .await;
    feed(&server, begin, 0..1, 290..298, calm).await;
    server.command(&["model", "rollback", "-m", "the other was right after all"]);
    let list = server.command(&["model", "list"]);
    assert!(list.contains("retired") && list.contains("active"), "{list}");
}
