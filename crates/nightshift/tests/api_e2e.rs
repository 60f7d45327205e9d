//! The binary from outside, through its API: burst injection as in the contract, people's actions and their names in the
//! journal, restarts, the event stream, health that is what components last did, counters that count, and events that
//! were there before their consumer.
#![expect(clippy::unwrap_used, reason = "a test may panic; clippy does not see that helpers are of tests")]

mod support;

use futures::StreamExt as _;
use nightshift_bus::TopicSpec;
use nightshift_model::batch::{BatchBuilder, SeriesKind, labels};
use nightshift_model::{
    EntityId, EntityMeta, Envelope, EnvelopeId, Incident, IncidentStatus, ManualClock, Phase, Routing, hash, topics,
};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;
use support::{Server, now, remote_write, until, write_request};

const QUIET: &str = "default_sources = false\n";
/// Longest wait for the loop; it takes about a second.
const SOON: Duration = Duration::from_secs(60);

async fn inject(server: &Server, mode: &str, body: Value) -> Value {
    let (status, answer) = server.post(&format!("/api/v1/test/inject?mode={mode}"), body).await;
    assert_eq!(status, 200, "{mode}: {answer}");
    answer["data"].clone()
}

/// 40 calm readings of one series a second apart, then `high` of 200; the newest is of now.
async fn trouble(server: &Server, service: &str, high: i64) {
    let begun = now().millis() - (40 + high) * 1_000;
    let samples = (0..40 + high)
        .map(|i| (begun + i * 1_000, if i < 40 { 50.0 + ((i * 7_919) % 11) as f64 * 0.3 } else { 200.0 }))
        .collect();
    let names = [("__name__", "queue_depth"), ("service", service)];
    let body = write_request(&[(&names, samples)]);
    assert_eq!(remote_write(&reqwest::Client::new(), &server.url("api"), body).await.unwrap() / 100, 2);
}

/// The incident of a service, as soon as its causes are ranked.
async fn incident_of(server: &Server, service: &str) -> Incident {
    until(&format!("no incident of {service}"), SOON, || async {
        let all = server.incidents().await;
        all.into_iter().find(|i| {
            i.status == IncidentStatus::RcaComplete && i.anomalies.iter().any(|a| a.entity.id.name() == service)
        })
    })
    .await
}

/// A command of the same binary against the server, with the token of this data folder. Exit code, output, errors.
fn client(server: &Server, data: &std::path::Path, args: &[&str]) -> (i32, String, String) {
    let out = Command::new(env!("CARGO_BIN_EXE_nightshift"))
        .args(args)
        .args(["--server", &server.url("api"), "--data"])
        .arg(data)
        .output()
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (out.status.code().unwrap_or(-1), text(&out.stdout), text(&out.stderr))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn burst_is_the_one_of_the_contract() {
    let server = Server::start(QUIET).await;
    let body = || json!({ "source": "production-api", "signal": "cpu_usage" });
    let first = inject(&server, "burst", body()).await;
    for (key, want) in [
        ("status", json!("burst_complete")),
        ("events_injected", json!(36)),
        ("recovery_events", json!(3)),
        ("anomalies_found", json!(1)),
        ("incidents_created", json!(1)),
    ] {
        assert_eq!(first[key], want, "{key} of {first}");
    }
    assert!(first["mttr_ms"].as_f64().is_some_and(|ms| ms > 0.0), "{first}");
    let (anomalies, incidents) = (first["anomalies"].as_array().unwrap(), first["incidents"].as_array().unwrap());
    assert_eq!((anomalies.len(), incidents.len()), (1, 1));
    let (anomaly, incident) = (&anomalies[0], &incidents[0]);
    assert_eq!((&anomaly["signal"], &anomaly["severity"]), (&json!("production-api.cpu_usage"), &json!("critical")));
    let score = anomaly["score"].as_f64().unwrap();
    assert!((0.9..=1.0).contains(&score), "{score}");
    let told = anomaly["description"].as_str().unwrap();
    let sigma = told.strip_prefix("value 200.00 deviates ").and_then(|t| t.strip_suffix(" sigma from mean"));
    // With the point inside its own baseline it could never exceed 5.83.
    assert!(sigma.and_then(|n| n.parse::<f64>().ok()).is_some_and(|n| n > 5.83), "{told}");
    assert_eq!(incident["id"], "INC-0001");
    assert_eq!((&incident["severity"], &incident["status"]), (&json!("critical"), &json!("resolved")));
    assert_eq!(incident["timeline"][0]["action"], "created");
    assert_eq!(incident["timeline"][0]["actor"], "system");
    // Guarded, rehearsed, verified by three normal readings, resolved; and nothing was executed.
    let actions: Vec<&str> =
        incident["timeline"].as_array().unwrap().iter().filter_map(|t| t["action"].as_str()).collect();
    let order = ["plan_proposed", "judged", "action_intended", "action_ended", "verified", "resolved"];
    let places: Vec<Option<usize>> = order.iter().map(|a| actions.iter().position(|b| a == b)).collect();
    assert!(places.iter().all(Option::is_some) && places.is_sorted(), "{actions:?}");
    let told = incident["timeline"].to_string();
    assert!(told.contains("dry_run: ") && !told.contains("apply: "), "{told}");
    assert!(told.contains("3 good readings, recovered; nothing was executed"), "{told}");
    // Again: a fresh entity, so one anomaly and one incident again; another source is another incident.
    let second = inject(&server, "burst", body()).await;
    assert_eq!((&second["anomalies_found"], &second["incidents_created"]), (&json!(1), &json!(1)));
    assert_ne!(second["anomalies"][0]["entity"], anomaly["entity"]);
    let other = inject(&server, "burst", json!({ "source": "staging-api" })).await;
    assert_eq!((&other["anomalies_found"], &other["incidents_created"]), (&json!(1), &json!(1)));
    let ids: BTreeSet<&str> = [&first, &second, &other].map(|a| a["incidents"][0]["id"].as_str().unwrap()).into();
    assert_eq!(ids, BTreeSet::from(["INC-0001", "INC-0002", "INC-0003"]));
    // Both words are optional.
    assert_eq!(inject(&server, "burst", json!({})).await["incidents_created"], 1);
    // They are marked, hidden where people look first, and move no figure that people graph.
    assert!(server.incidents().await.iter().all(|i| i.synthetic));
    assert_eq!(server.get("/api/v1/incidents").await["data"], json!([]));
    for metric in ["nightshift_incidents_total", "nightshift_mttd_seconds_count", "nightshift_mttr_seconds_count"] {
        assert_eq!(server.metric(metric).await, 0.0, "{metric} moved by test injections");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_mode_is_noticed() {
    let server = Server::start(QUIET).await;
    for mode in ["spike", "drift", "flatline", "oscillation", "storm"] {
        let found = inject(&server, mode, json!({ "source": format!("{mode}-api") })).await;
        assert_eq!(found["status"], format!("{mode}_complete"));
        assert_eq!(found["incidents_created"], 1, "{mode}: {found}");
        let least = if mode == "storm" { 20 } else { 1 };
        assert!(found["anomalies_found"].as_u64().unwrap() >= least, "{mode}: {found}");
    }
    let (status, problem) = server.post("/api/v1/test/inject?mode=boom", json!({})).await;
    assert_eq!(status, 400, "{problem}");
    assert!(
        problem["detail"].as_str().unwrap().contains("burst, spike, drift, flatline, oscillation, storm"),
        "{problem}"
    );
    let (status, problem) = server.post("/api/v1/test/inject?mode=burst", json!({ "source": "" })).await;
    assert_eq!(status, 400, "{problem}");
}

/// SEC-1: what changes something needs a token, and the journal has its name.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn people_act_in_their_own_name() {
    let server = Server::start(QUIET).await;
    trouble(&server, "checkout", 3).await;
    incident_of(&server, "checkout").await;
    for verb in ["ack", "resolve"] {
        let (status, problem) = server.post(&format!("/api/v1/incidents/INC-0001/{verb}"), json!({})).await;
        assert_eq!(status, 401, "{verb}: {problem}");
    }
    let nobody = tempfile::tempdir().unwrap();
    let (code, _, err) = client(&server, nobody.path(), &["ack", "INC-0001"]);
    assert_eq!(code, 1);
    assert!(err.contains("token"), "{err}");
    let viewer = server.command(&["token", "create", "--name", "watcher", "--role", "viewer"]);
    std::fs::write(nobody.path().join("t"), viewer).unwrap();
    let file = nobody.path().join("t").display().to_string();
    let (code, _, err) = client(&server, nobody.path(), &["ack", "INC-0001", "--token-file", &file]);
    assert_eq!(code, 1, "a viewer only looks: {err}");
    let shown = client(&server, nobody.path(), &["show", "INC-0001"]);
    assert!(shown.0 == 0 && shown.1.contains("INC-0001") && !shown.1.contains("acknowledged by"), "{shown:?}");
    // The token of the local command line is in the data folder.
    let (code, out, err) = client(&server, server.data(), &["ack", "INC-0001", "-m", "looking at it"]);
    assert_eq!((code, err.as_str()), (0, ""));
    assert!(out.contains("INC-0001 acknowledged"), "{out}");
    let (code, out, _) = client(&server, server.data(), &["resolve", "INC-0001", "-m", "was a test", "--json"]);
    assert_eq!(code, 0);
    let incident: Incident =
        serde_json::from_value(serde_json::from_str::<Value>(&out).unwrap()["data"].clone()).unwrap();
    assert_eq!(incident.status, IncidentStatus::Resolved);
    assert_eq!(incident.acknowledged_by.as_deref(), Some("local-admin"));
    assert_eq!(incident.resolved_by.as_deref(), Some("local-admin"));
    for note in ["looking at it", "was a test"] {
        let entry = incident.timeline.iter().find(|t| t.detail.contains(note));
        assert_eq!(entry.map(|t| t.actor.as_str()), Some("local-admin"), "{note}: {:?}", incident.timeline);
    }
    // What is over cannot be ended again; what was never there is bad input.
    let (code, _, err) = client(&server, server.data(), &["resolve", "INC-0001"]);
    assert!(code == 1 && err.contains("409"), "{code} {err}");
    assert_eq!(client(&server, server.data(), &["ack", "INC-4711"]).0, 2);
    assert_eq!(client(&server, server.data(), &["show", "INC-4711"]).0, 2);
    assert!(server.audit().contains("\"ok\":true"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_keeps_incidents_and_what_is_open() {
    let mut server = Server::start(QUIET).await;
    trouble(&server, "checkout", 3).await;
    let before = incident_of(&server, "checkout").await;
    assert_eq!((before.number, before.anomalies_open, before.synthetic), (1, 1, false));
    let journal = |s: &Server| s.command(&["audit", "export"]).lines().count();
    let rows = journal(&server);
    server.kill();
    server.restart().await;
    let after = server.incidents().await;
    assert_eq!(after.len(), 1, "{after:?}");
    assert_eq!((after[0].id, after[0].number, after[0].status), (before.id, 1, before.status));
    assert_eq!((after[0].anomalies_open, &after[0].anomalies[0].id), (1, &before.anomalies[0].id));
    assert_eq!(after[0].anomalies[0].phase == Phase::Closed, before.anomalies[0].phase == Phase::Closed);
    assert!(journal(&server) >= rows, "the journal only grows");
    // The open one goes on being the open one; a new one gets the next number.
    trouble(&server, "billing", 3).await;
    let second = incident_of(&server, "billing").await;
    assert_eq!(second.number, 2);
    assert!(server.incidents().await.iter().any(|i| i.id == before.id));
    assert!(server.audit().contains("\"ok\":true"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_stream_tells_of_incidents() {
    let server = Server::start(QUIET).await;
    let url = format!("ws://{}/api/v1/ws/events", server.address("api"));
    let (mut stream, _) = tokio_tungstenite::connect_async(url).await.unwrap();
    let mut next = async || -> Value {
        loop {
            let message = tokio::time::timeout(SOON, stream.next()).await.expect("an event").unwrap().unwrap();
            if let Ok(text) = message.to_text()
                && message.is_text()
            {
                return serde_json::from_str(text).unwrap();
            }
        }
    };
    assert_eq!(next().await["type"], "hello");
    trouble(&server, "checkout", 3).await;
    let mut actions = Vec::new();
    while actions.last().map(String::as_str) != Some("causes_ranked") {
        let event = next().await;
        if event["type"] == "incident" {
            assert_eq!(event["data"]["number"], 1, "{event}");
            actions.push(event["action"].as_str().unwrap().to_owned());
        }
    }
    assert_eq!(actions[0], "created");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn health_is_what_components_last_did() {
    let overall = async |server: &Server, want: &str| {
        until(&format!("health is not {want}"), SOON, || async {
            let health = server.get("/api/v1/health").await["data"].clone();
            (health["status"] == want).then_some(health)
        })
        .await
    };
    let well = Server::start(QUIET).await;
    let health = overall(&well, "healthy").await;
    let named: BTreeSet<&str> =
        health["components"].as_array().unwrap().iter().map(|c| c["name"].as_str().unwrap()).collect();
    for name in
        ["anomaly-detector", "root-cause-analyzer", "incident-relay", "otlp-collector", "remote_write-collector"]
    {
        assert!(named.contains(name), "{name} is not among {named:?}");
    }
    // What it last did is what it says.
    let client = reqwest::Client::new();
    assert_eq!(remote_write(&client, &well.url("api"), b"no snappy".to_vec()).await.unwrap(), 400);
    overall(&well, "degraded").await;
    trouble(&well, "checkout", 0).await;
    overall(&well, "healthy").await;
    // A program that is not there: its source is unhealthy, and the others are not (SELF-1).
    let ill =
        Server::start("default_sources = false\n[sources.broken]\ntype = \"exec\"\ncommand = [\"/no/such/program\"]\n")
            .await;
    let health = overall(&ill, "unhealthy").await;
    for c in health["components"].as_array().unwrap() {
        let broken = c["name"] == "broken-collector";
        assert_eq!(c["status"] == "unhealthy", broken, "{c}");
        if broken {
            assert!(c["detail"].as_str().unwrap().contains("/no/such/program"), "{c}");
        }
    }
    let collectors = ill.get("/api/v1/collectors").await;
    let row = collectors["data"].as_array().unwrap().iter().find(|r| r["name"] == "broken").unwrap();
    assert_eq!((&row["kind"], &row["status"], &row["items"]), (&json!("exec"), &json!("unhealthy"), &json!(0)));
    trouble(&ill, "checkout", 3).await;
    incident_of(&ill, "checkout").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn counters_count() {
    let server = Server::start(QUIET).await;
    trouble(&server, "checkout", 3).await;
    let incident = incident_of(&server, "checkout").await;
    let id = incident.short_id();
    assert_eq!(client(&server, server.data(), &["resolve", &id]).0, 0);
    until("the resolution is not counted", SOON, || async {
        (server.metric("nightshift_mttr_seconds_count").await >= 1.0).then_some(())
    })
    .await;
    assert_eq!(server.metric("nightshift_samples_received_total").await, 43.0);
    assert_eq!(server.metric("nightshift_samples_scored_total").await, 43.0);
    for name in ["anomaly_score_count", "anomalies_total", "incidents_total", "mttd_seconds_count"] {
        assert!(server.metric(&format!("nightshift_{name}")).await >= 1.0, "{name} stands still");
    }
    // Taken at each tick of the detectors.
    until("the live series are not counted", SOON, || async {
        (server.metric("nightshift_series_live").await == 1.0).then_some(())
    })
    .await;
    let text = server.metrics().await;
    let resolved = format!("nightshift_incidents_total{{severity=\"{}\",status=\"resolved\"}} 1", incident.severity);
    assert!(text.contains(&resolved), "{resolved} is not in {text}");
    // The same on their own port, with the lag, which is taken now and then.
    let names = |text: &str| -> BTreeSet<String> {
        text.lines().filter_map(|l| l.strip_prefix("# TYPE ")?.split(' ').next().map(ToOwned::to_owned)).collect()
    };
    until("the two ports differ, or show no lag", SOON, || async {
        let own = reqwest::get(format!("{}/metrics", server.url("metrics"))).await.ok()?.text().await.ok()?;
        let lag = own.contains("nightshift_bus_lag{group=\"anomaly-detector\"");
        (lag && names(&own) == names(&server.metrics().await)).then_some(())
    })
    .await;
}

/// BUS-3: what was on the bus before any consumer ran is read when one does.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_late_consumer_misses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let at = now();
    let clock = Arc::new(ManualClock::at(at));
    let bus = nightshift_bus::build(&nightshift_bus::BusConfig::default(), folder.path(), clock).await.unwrap();
    let specs: Vec<_> =
        topics::ALL.iter().map(|t| TopicSpec { name: t.name.into(), partitions: t.partitions() }).collect();
    bus.ensure_topics(&specs).await.unwrap();
    let meta =
        EntityMeta { service: "early".into(), ..EntityMeta::bare(EntityId::new("local", "service", "", "early")) };
    let named = labels::encode([(labels::NAME, "queue_depth")]);
    // A record each, as they come: the consumer has to begin at the first.
    for i in 0..45u32 {
        let mut batch = BatchBuilder::default();
        let entity = batch.entity(&meta);
        batch.series(hash::series_fingerprint("default", meta.id.as_str(), &named), entity, SeriesKind::Gauge, &named);
        let time = at - Duration::from_secs(u64::from(45 - i));
        batch.sample(time, if i < 40 { 50.0 + f64::from((i * 7_919) % 11) * 0.3 } else { 200.0 });
        let payload = batch.finish("test");
        let routing = Routing::Shard(hash::shard_of("default", "local", meta.id.as_str()));
        let envelope = Envelope {
            id: EnvelopeId::derive(&[b"early", &i.to_be_bytes()]),
            tenant: "default".into(),
            cluster: "local".into(),
            routing: routing.clone(),
            traceparent: String::new(),
            event_time: time,
            ingest_time: at,
            schema: "nightshift.v1.TelemetryBatch".into(),
            payload,
        };
        let record = nightshift_bus::Outgoing { routing, bytes: envelope.encode() };
        bus.publish(topics::TELEMETRY_RAW.name, vec![record]).await.unwrap();
    }
    bus.close().await.unwrap();
    drop(bus);
    let server = Server::start_in(folder.path(), QUIET).await;
    let incident = incident_of(&server, "early").await;
    assert_eq!(incident.number, 1);
    assert_eq!(server.metric("nightshift_samples_scored_total").await, 45.0, "each was scored, once");
}
