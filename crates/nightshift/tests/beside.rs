//! Commands on the data folder of a server that runs: they look into its bus and its record, and make and withdraw
//! tokens, while it goes on. What would need the bus for itself says so.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

mod support;

use nightshift_bus::{BusConfig, Outgoing, Record, TopicSpec, dead_letter};
use nightshift_model::batch::{BatchBuilder, SeriesKind, labels};
use nightshift_model::{EntityId, EntityMeta, Envelope, EnvelopeId, ManualClock, Routing, topics};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;
use support::{Server, now, until};

const CONFIG: &str = "default_sources = false\n[detect]\nsnapshot_every_secs = 1\n";
const LIMIT: Duration = Duration::from_secs(30);

/// A command on the folder of `server`, which may fail.
fn command(server: &Server, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_nightshift"));
    command.args(args).arg("--config").arg(server.data().join("nightshift.toml")).arg("--data").arg(server.data());
    command.stdin(Stdio::null());
    command
}

fn output(server: &Server, args: &[&str]) -> Output {
    command(server, args).output().unwrap()
}

fn rows(text: &str) -> Vec<Value> {
    text.lines().map(|l| serde_json::from_str(l).unwrap_or_else(|e| panic!("{e}: {l}"))).collect()
}

/// One burst: readings of an entity of this name, an anomaly, an incident.
async fn burst(server: &Server, source: &str) {
    let (status, answer) = server.post("/api/v1/test/inject?mode=burst", json!({ "source": source })).await;
    assert_eq!((status, &answer["data"]["incidents_created"]), (200, &json!(1)), "{answer}");
}

/// A program that prints lines for as long as it runs.
struct Lines {
    child: Child,
    lines: Receiver<String>,
}

impl Lines {
    fn of(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        let (send, lines) = channel();
        std::thread::spawn(move || out.lines().map_while(Result::ok).try_for_each(|line| send.send(line)));
        Self { child, lines }
    }

    /// The next line that has `text`.
    fn wait_for(&self, text: &str) -> String {
        loop {
            match self.lines.recv_timeout(LIMIT) {
                Ok(line) if line.contains(text) => return line,
                Ok(_) => {}
                Err(e) => panic!("`{text}` was not printed: {e}"),
            }
        }
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_bus_is_looked_into_beside_a_server() {
    let mut server = Server::start(CONFIG).await;
    let follower = Lines::of(command(&server, &["bus", "read", "incidents.opened", "--follow"]));
    burst(&server, "first").await;
    follower.wait_for("first");

    let told: Value = serde_json::from_str(&server.command(&["bus", "topics", "--json"])).unwrap();
    let records = |topic: &str| {
        let all = told["data"].as_array().unwrap();
        all.iter().find(|t| t["topic"] == topic).and_then(|t| t["records"].as_u64()).unwrap()
    };
    assert_eq!(told["data"].as_array().unwrap().len(), topics::ALL.len());
    assert!(records("telemetry.raw") >= 2 && records("anomalies.detected") >= 1 && records("incidents.opened") == 1);
    assert_eq!(records("telemetry.dead-letter"), 0);

    // Both agents end with nothing left to read, and the reader sees it in what they committed.
    until("a group does not catch up", LIMIT, || async {
        let told: Value = serde_json::from_str(&server.command(&["bus", "groups", "--json"])).unwrap();
        let groups = told["data"].as_array().unwrap();
        let names: BTreeSet<_> = groups.iter().filter_map(|g| g["group"].as_str()).collect();
        let all = ["anomaly-detector", "root-cause-analyzer"].iter().all(|g| names.contains(g));
        (all && groups.iter().all(|g| g["lag"] == 0)).then_some(())
    })
    .await;

    let read = rows(&server.command(&["bus", "read", "telemetry.raw"]));
    let samples: usize = read
        .iter()
        .flat_map(|r| r["payload"]["series"].as_array().unwrap())
        .map(|s| s["samples"].as_array().unwrap().len())
        .sum();
    assert_eq!(samples, 36 + 3, "all that a burst puts there");
    let incident = &rows(&server.command(&["bus", "read", "incidents.opened", "--limit", "1"]))[0];
    assert!(incident["payload"].is_object() && incident["offset"] == 0, "{incident}");

    // Who follows sees what comes later, also across a crash of the server.
    burst(&server, "second").await;
    follower.wait_for("second");
    server.kill();
    server.restart().await;
    burst(&server, "third").await;
    follower.wait_for("third");
    drop(follower);
    // The kill may fall between telling and noting that it was told: told again, it carries the same id.
    let opened = rows(&server.command(&["bus", "read", "incidents.opened"]));
    let ids: BTreeSet<String> = opened.iter().map(|r| r["id"].as_str().unwrap().to_owned()).collect();
    assert_eq!(ids.len(), 3, "none was lost, none was told under two ids: {opened:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dead_letters_are_counted_beside_a_server_and_fed_without_it() {
    let folder = tempfile::tempdir().unwrap();
    put_dead_letter(folder.path()).await;
    let mut server = Server::start_in(folder.path(), CONFIG).await;
    let dry = json_of(&server.command(&["bus", "redrive", "--dry-run", "--json"]));
    assert_eq!((&dry["fed"], &dry["dry_run"]), (&json!(1), &json!(true)), "{dry}");
    assert_eq!(dry["by"][0]["reason"], "newer_version");

    let refused = output(&server, &["bus", "redrive"]);
    let why = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(1), "{why}");
    assert!(why.contains("in use by another process; end it first"), "{why}");
    assert_eq!(server.stored_samples().await, 0, "nothing was fed");

    server.stop().await;
    assert_eq!(json_of(&server.command(&["bus", "redrive", "--json"]))["fed"], 1);
    assert_eq!(server.stored_samples().await, 1);
    assert_eq!(json_of(&server.command(&["bus", "redrive", "--json"]))["fed"], 0, "none is fed twice");
}

fn json_of(text: &str) -> Value {
    serde_json::from_str::<Value>(text).unwrap()["data"].take()
}

/// Leaves a readable record of one sample among the dead letters of a folder.
async fn put_dead_letter(data: &Path) {
    let mut batch = BatchBuilder::default();
    let entity = batch.entity(&EntityMeta::bare(EntityId::new("default", "host", "", "old")));
    let labels = labels::encode([(labels::NAME, "load")]);
    batch.series(7, entity, SeriesKind::Gauge, &labels);
    batch.sample(now(), 1.0);
    let envelope = Envelope {
        id: EnvelopeId::derive(&[b"beside"]),
        tenant: nightshift_model::DEFAULT_TENANT.into(),
        cluster: "default".into(),
        routing: Routing::Shard(0),
        traceparent: String::new(),
        event_time: now(),
        ingest_time: now(),
        schema: "nightshift.v1.TelemetryBatch".into(),
        payload: batch.finish("test"),
    };
    let record = Record { topic: topics::TELEMETRY_RAW.name.into(), partition: 0, offset: 0, bytes: envelope.encode() };
    let letter: Outgoing = dead_letter("newer_version", "made by a newer nightshift", &record, now());
    let bus = nightshift_bus::build(&BusConfig::default(), data, Arc::new(ManualClock::at(now()))).await.unwrap();
    let dead = topics::DEAD_LETTER;
    let spec = TopicSpec { name: dead.name.into(), partitions: dead.partitions() };
    bus.ensure_topics(&[spec]).await.unwrap();
    bus.publish(dead.name, vec![letter]).await.unwrap();
    bus.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_work_beside_a_server_as_long_as_they_stand() {
    let server = Server::start(CONFIG).await;
    burst(&server, "service").await;
    let ack = async |token: &str| {
        let url = format!("{}/api/v1/incidents/INC-0001/ack", server.url("api"));
        reqwest::Client::new().post(url).bearer_auth(token).send().await.unwrap().status().as_u16()
    };
    let create =
        |name: &str, role: &str| server.command(&["token", "create", "--name", name, "--role", role]).trim().to_owned();
    let (looker, worker) = (create("looker", "viewer"), create("worker", "operator"));
    until("the role of a new token is not known", LIMIT, || async { (ack(&looker).await == 403).then_some(()) }).await;
    assert_eq!(ack(&worker).await, 200);
    let journal = server.get("/api/v1/incidents/INC-0001").await.to_string();
    assert!(journal.contains("worker") && !journal.contains("looker"), "{journal}");

    let state = |name: &str| {
        let all = json_of(&server.command(&["token", "list", "--json"]));
        let row = all.as_array().unwrap().iter().find(|t| t["name"] == name).cloned().unwrap();
        (row["role"].as_str().unwrap().to_owned(), row["revoked_at"].is_null())
    };
    assert_eq!(state("worker"), ("operator".into(), true));
    assert!(!server.command(&["token", "list"]).contains(&worker), "a secret is shown once");

    server.command(&["token", "revoke", "--name", "worker"]);
    assert_eq!(state("worker"), ("operator".into(), false));
    // Within the five seconds for which the list is kept.
    until("a withdrawn token is still good", LIMIT, || async { (ack(&worker).await == 401).then_some(()) }).await;
    assert_eq!(ack(&looker).await, 403, "the others stay");
    assert!(server.audit().contains("\"ok\":true"), "a second writer has not touched the record");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_record_is_verified_and_exported_beside_a_server() {
    let server = Server::start(CONFIG).await;
    burst(&server, "first").await;
    let verified = json_of(&server.audit());
    assert_eq!(verified["ok"], true, "{verified}");
    let before = server.command(&["audit", "export"]);
    let file = server.data().join("export.jsonl");
    std::fs::write(&file, &before).unwrap();
    let path = file.to_str().unwrap();
    let checked = json_of(&server.command(&["audit", "verify", "--json", "--file", path]));
    let events = checked["events"].as_u64().unwrap();
    assert!(events >= 2, "{checked}");

    // The server goes on writing; what was exported stays the beginning of the record.
    burst(&server, "second").await;
    let after = server.command(&["audit", "export"]);
    assert!(rows(&after).len() > rows(&before).len());
    let links = |text: &str| rows(text).into_iter().filter(|r| r["seq"].is_u64()).collect::<Vec<_>>();
    assert!(links(&after).starts_with(&links(&before)) && links(&before).len() as u64 == events);
    assert_eq!(json_of(&server.audit())["ok"], true);
}
