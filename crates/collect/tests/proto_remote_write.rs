//! Remote write through its door, over a real connection.

#![expect(clippy::unwrap_used, reason = "a failure of the set-up fails the test")]

use nightshift_collect::http::{Gate, HttpLimits, serve};
use nightshift_collect::remote_write::{RemoteWriteConfig, RemoteWriteState};
use nightshift_collect::testkit::{RecordingBus, START, TestContext, ingest};
use nightshift_collect::{IngestState, ingest_router};
use nightshift_health::Health;
use nightshift_model::batch::labels;
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::{CancellationToken, DropGuard};

struct Door {
    address: std::net::SocketAddr,
    bus: Arc<RecordingBus>,
    test: TestContext,
    _end: DropGuard,
}

async fn open() -> Door {
    let bus = RecordingBus::new();
    let test = TestContext::new("remote_write");
    let settings =
        RemoteWriteConfig { body_bytes_max: 100_000, decompressed_bytes_max: 200_000, ..RemoteWriteConfig::default() };
    let limits = HttpLimits::default();
    let state = RemoteWriteState {
        ingest: ingest(bus.clone()),
        settings: Arc::new(settings),
        gate: Gate::new(&limits),
        health: test.context.health.clone(),
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let end = CancellationToken::new();
    let router = ingest_router(IngestState { remote_write: Some(state) });
    tokio::spawn(serve(listener, router, limits, end.clone()));
    Door { address, bus, test, _end: end.drop_guard() }
}

fn varint(out: &mut Vec<u8>, mut v: u64) {
    while v >= 0x80 {
        out.push(v as u8 | 0x80);
        v >>= 7;
    }
    out.push(v as u8);
}

fn request(name: &str, value: f64, at_ms: i64) -> Vec<u8> {
    let mut sample = vec![0x09];
    sample.extend(value.to_le_bytes());
    sample.push(0x10);
    varint(&mut sample, at_ms as u64);
    let mut series = labels::encode([("__name__", name), ("instance", "localhost:9100"), ("job", "node")]);
    series.extend([0x12, sample.len() as u8]);
    series.extend(sample);
    let mut out = vec![0x0a];
    varint(&mut out, series.len() as u64);
    out.extend(series);
    snap::raw::Encoder::new().compress_vec(&out).unwrap()
}

impl Door {
    async fn post(&self, headers: &str, body: &[u8]) -> (u16, String) {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let head = format!(
            "POST /api/v1/write HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {}\r\n{headers}\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        // A server that has refused by the head may not read the rest.
        let _ = stream.write_all(body).await;
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        let answer = String::from_utf8_lossy(&answer).into_owned();
        let status = answer.split(' ').nth(1).and_then(|s| s.parse().ok()).unwrap_or(0);
        (status, answer)
    }
}

const V1: &str =
    "content-type: application/x-protobuf\r\ncontent-encoding: snappy\r\nx-prometheus-remote-write-version: 0.1.0\r\n";
const V2: &str =
    "content-type: application/x-protobuf;proto=io.prometheus.write.v2.Request\r\ncontent-encoding: snappy\r\n";

/// Every answer of the protocol.
#[tokio::test]
async fn each_request_has_its_answer() {
    let door = open().await;
    let now = START.millis();
    let huge = snap::raw::Encoder::new().compress_vec(&vec![0; 300_000]).unwrap();
    let v2 = snap::raw::Encoder::new().compress_vec(&[0x22, 0x00]).unwrap();
    let rows: [(&str, Vec<u8>, u16, &str); 10] = [
        (V1, request("a", 1.0, now), 204, "x-prometheus-remote-write-samples-written: 1"),
        ("", request("b", 1.0, now), 204, ""),
        (V1, request("a", f64::NAN, now), 204, "x-prometheus-remote-write-samples-written: 1"),
        (V1, request("a", 1.0, now - 4_000_000), 400, "not taken: 1 too_old"),
        (V1, request("a", 1.0, now + 4_000_000), 400, "not taken: 1 too_new"),
        (V1, b"garbage".to_vec(), 400, "snappy"),
        (V1, huge, 413, "body of 300000 bytes when decompressed, at most 200000 are taken"),
        (V1, vec![0; 150_000], 413, "body has more than 100000 bytes"),
        ("content-type: text/plain\r\n", request("a", 1.0, now), 415, "content type is not application/x-protobuf"),
        (V2, v2, 204, "x-prometheus-remote-write-histograms-written: 0"),
    ];
    for (headers, body, status, says) in rows {
        let (got, answer) = door.post(headers, &body).await;
        assert!(got == status && answer.contains(says), "want {status} `{says}`, got {answer}");
    }
    assert_eq!(door.bus.envelopes("telemetry.raw").len(), 2, "a and b");
}

#[tokio::test]
async fn a_full_bus_is_429_with_retry_after_and_health_says_so() {
    let door = open().await;
    door.bus.set_busy(1);
    let (status, answer) = door.post(V1, &request("a", 1.0, START.millis())).await;
    assert!(status == 429 && answer.contains("retry-after: 2"), "{answer}");
    assert_eq!(door.test.health().status, Health::Degraded);
    let (status, _) = door.post(V1, &request("a", 1.0, START.millis())).await;
    assert_eq!((status, door.test.health().status), (204, Health::Healthy));
}

/// A host that a node exporter on it tells of is the host of the agent.
#[tokio::test]
async fn a_local_node_exporter_is_about_this_host() {
    let door = open().await;
    door.post(V1, &request("node_load1", 1.0, START.millis())).await;
    let envelope = &door.bus.envelopes("telemetry.raw")[0];
    let view = nightshift_model::batch::BatchView::parse(&envelope.payload).unwrap();
    assert_eq!(view.entity(0).unwrap().id.as_str(), "local/host/-/web1");
}
