//! Acceptance 4: clients that send a gigabyte, a byte a second, or garbage, on every port and at once, while a good
//! client works. Each is refused and counted, none hurts the good one, and memory stays bounded (LOAD-1, SELF-1).
#![expect(clippy::unwrap_used, reason = "a test may panic; clippy does not see that helpers are of tests")]

mod support;

use rand::rngs::SmallRng;
use rand::{Rng as _, RngCore as _, SeedableRng as _};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use support::{Server, now, remote_write, until, write_request};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket};

/// What a big client sends if it is let.
const GIGABYTE: usize = 1 << 30;
/// What it sends at once.
const CHUNK: usize = 1 << 18;
/// Slow clients of each kind; there are four.
const SLOW: usize = 13;
/// A hostile client that is still connected after this was not refused.
const REFUSED_WITHIN: Duration = Duration::from_secs(25);
/// A good client that waits this long was hurt. Far above what is measured: this is no bench.
const ANSWERED_WITHIN: Duration = Duration::from_secs(15);
/// Memory that all of them together may cost, kilobytes: bodies in flight (128 MiB by default) and as much again.
const COST_KB_MAX: u64 = 256 << 10;
/// Series of the good client.
const SERIES: usize = 20;

const CONFIG: &str = r#"
default_sources = false

[http]
header_secs = 3
body_secs = 15
idle_secs = 4

[otlp.http]
header_secs = 3
body_secs = 15
idle_secs = 4

[sources.syslog]
type = "syslog"
udp_listen = "127.0.0.1:0"
tcp_listen = "127.0.0.1:0"
message_secs = 3
idle_secs = 4
"#;

/// What became of a hostile client.
#[derive(Debug)]
struct Ended {
    /// Bytes that the other side (or the sockets between) took.
    sent: usize,
    /// What it answered.
    answer: String,
    /// Whether it ended the connection.
    closed: bool,
}

/// What follows what a hostile client sends first.
enum Then {
    /// Nothing; it waits for the end.
    Nothing,
    /// The same piece again and again, as fast as it is taken.
    Flood { piece: Vec<u8>, times: usize },
    /// A byte a second.
    Drip,
}

impl Then {
    async fn next(&mut self) -> Option<Vec<u8>> {
        match self {
            Self::Nothing => None,
            Self::Flood { piece, times } => {
                *times = times.checked_sub(1)?;
                Some(piece.clone())
            }
            Self::Drip => {
                tokio::time::sleep(Duration::from_secs(1)).await;
                Some(b"x".to_vec())
            }
        }
    }
}

/// Sends `head` and what follows, until that is over or the other side ends it.
async fn send(address: String, head: Vec<u8>, mut then: Then) -> Ended {
    let Ok(stream) = TcpStream::connect(&address).await else {
        return Ended { sent: 0, answer: String::new(), closed: true };
    };
    let (mut read, mut write) = stream.into_split();
    let mut reading = tokio::spawn(async move {
        let (mut answer, mut part) = (Vec::new(), [0u8; 1024]);
        // A reset ends it as well as an orderly end.
        while let Ok(n @ 1..) = read.read(&mut part).await {
            if answer.len() < 4096 {
                answer.extend_from_slice(&part[..n]);
            }
        }
        String::from_utf8_lossy(&answer).into_owned()
    });
    let mut sent = 0;
    let writing = async {
        let mut piece = Some(head);
        while let Some(bytes) = piece {
            if write.write_all(&bytes).await.is_err() {
                return;
            }
            sent += bytes.len();
            piece = then.next().await;
        }
        drop(write.shutdown().await);
    };
    let work = async {
        tokio::select! {
            () = writing => (&mut reading).await,
            answer = &mut reading => answer,
        }
    };
    match tokio::time::timeout(REFUSED_WITHIN, work).await {
        Ok(answer) => Ended { sent, answer: answer.unwrap(), closed: true },
        Err(_) => {
            reading.abort();
            Ended { sent, answer: String::new(), closed: false }
        }
    }
}

/// The head of a request that sends chunks.
fn head(address: &str, path: &str, content_type: &str, framing: &str) -> Vec<u8> {
    format!(
        "POST {path} HTTP/1.1\r\nHost: {address}\r\nContent-Type: {content_type}\r\nContent-Encoding: {}\r\n{framing}\r\n\r\n",
        if path == "/api/v1/write" { "snappy" } else { "identity" }
    )
    .into_bytes()
}

/// A gigabyte in chunks.
async fn giant(address: String, path: &'static str, content_type: &'static str) -> Ended {
    let mut piece = format!("{CHUNK:x}\r\n").into_bytes();
    piece.resize(piece.len() + CHUNK, b' ');
    piece.extend_from_slice(b"\r\n");
    let head = head(&address, path, content_type, "Transfer-Encoding: chunked");
    send(address, head, Then::Flood { piece, times: GIGABYTE / CHUNK }).await
}

/// As many bytes as it is let, without any form, after `first`.
async fn flood(address: String, first: Vec<u8>, most: usize) -> Ended {
    send(address, first, Then::Flood { piece: vec![b'x'; CHUNK], times: most / CHUNK }).await
}

/// Bytes without sense, some with a sensible beginning.
async fn garbage(address: String, seed: u64) {
    const BEGINNINGS: [&[u8]; 6] = [
        b"",
        b"GET / HTTP/9.9\r\n",
        b"POST /api/v1/write HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"<999999999>1 - - - - -\n4294967296 <1>",
    ];
    for round in 0..12u64 {
        let mut rng = SmallRng::seed_from_u64(seed * 1_000 + round);
        let mut bytes = vec![0u8; rng.random_range(1..8_192)];
        rng.fill_bytes(&mut bytes);
        let first = [BEGINNINGS[round as usize % BEGINNINGS.len()], &bytes].concat();
        // Whether it is answered or closed is its own affair; it must only not stay.
        let ended = send(address.clone(), first, Then::Nothing).await;
        assert!(ended.closed, "garbage {seed}/{round} was kept on {address}");
    }
}

/// Works until it is told to stop. Gives how many samples were acknowledged.
async fn good_client(base: String, stop: &AtomicBool) -> u64 {
    let client = reqwest::Client::builder().timeout(ANSWERED_WITHIN).build().unwrap();
    let names: Vec<String> = (0..SERIES).map(|i| format!("service-{i}")).collect();
    let begun = now().millis();
    let mut acknowledged = 0u64;
    while !stop.load(Ordering::Relaxed) {
        // A millisecond apart: none is a duplicate of another.
        let at = begun + i64::try_from(acknowledged).unwrap();
        let labels: Vec<_> = names.iter().map(|n| [("__name__", "queue_depth"), ("service", n.as_str())]).collect();
        let series: Vec<_> = labels.iter().map(|l| (&l[..], vec![(at, 50.0)])).collect();
        let status = remote_write(&client, &base, write_request(&series)).await.expect("a good request is answered");
        assert_eq!(status / 100, 2, "a good request is acknowledged");
        acknowledged += SERIES as u64;
        let health = client.get(format!("{base}/api/v1/health")).send().await.expect("health is answered");
        assert_eq!(health.status().as_u16(), 200);
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    acknowledged
}

/// A figure of `/proc/PID/status`, kilobytes.
fn memory_kb(server: &Server, what: &str) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{}/status", server.pid())).expect("the server is alive");
    let line = text.lines().find_map(|l| l.strip_prefix(what)).unwrap();
    line.trim_start_matches(':').trim().trim_end_matches(" kB").parse().unwrap()
}

/// `nightshift_samples_rejected_total` of a source and reason.
fn refused(metrics: &str, source: &str, reason: &str) -> f64 {
    let words = [format!("source=\"{source}\""), format!("reason=\"{reason}\"")];
    metrics
        .lines()
        .filter(|l| l.starts_with("nightshift_samples_rejected_total") && words.iter().all(|w| l.contains(w)))
        .filter_map(|l| l.rsplit_once(' ')?.1.parse::<f64>().ok())
        .sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_clients_hurt_nobody_else() {
    let server = Server::start(CONFIG).await;
    let syslog = until("syslog is not bound", Duration::from_secs(20), || async {
        let status = server.get("/api/v1/status").await;
        let of = |key: &str| Some(status["data"]["listeners"][key].as_str()?.to_owned());
        Some((of("syslog_tcp")?, of("syslog_udp")?))
    })
    .await;
    let (api, metrics_port) = (server.address("api"), server.address("metrics"));
    let (grpc, http) = (server.address("otlp_grpc"), server.address("otlp_http"));
    let before_kb = memory_kb(&server, "VmRSS");
    let stop = AtomicBool::new(false);
    let hostile = async {
        let giants = futures::future::join_all([
            tokio::spawn(giant(api.clone(), "/api/v1/write", "application/x-protobuf")),
            tokio::spawn(giant(api.clone(), "/api/v1/events", "application/json")),
            tokio::spawn(giant(api.clone(), "/api/v1/alertmanager", "application/json")),
            tokio::spawn(giant(api.clone(), "/api/v1/test/inject?mode=burst", "application/json")),
            tokio::spawn(giant(http.clone(), "/v1/logs", "application/x-protobuf")),
        ]);
        let declared = head(&api, "/api/v1/write", "application/x-protobuf", &format!("Content-Length: {GIGABYTE}"));
        let floods = futures::future::join_all([
            tokio::spawn(flood(api.clone(), declared, GIGABYTE)),
            tokio::spawn(flood(api.clone(), b"GET /".to_vec(), GIGABYTE)),
            tokio::spawn(flood(metrics_port.clone(), b"GET / HTTP/1.1\r\nA: ".to_vec(), GIGABYTE)),
            tokio::spawn(flood(grpc.clone(), b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), GIGABYTE)),
        ]);
        // A line without an end is cut and thrown away as it comes; its connection may go on until its time is over.
        let line = tokio::spawn(flood(syslog.0.clone(), b"<13>".to_vec(), GIGABYTE / 4));
        let body = |address: &str, path: &str| head(address, path, "application/x-protobuf", "Content-Length: 100000");
        let drip = |address: &str, first| tokio::spawn(send(address.to_owned(), first, Then::Drip));
        let drips = futures::future::join_all((0..SLOW).flat_map(|_| {
            [
                drip(&api, b"POST /api/v1/write HTTP/1.1\r\nA: ".to_vec()),
                drip(&api, body(&api, "/api/v1/write")),
                drip(&http, body(&http, "/v1/metrics")),
                drip(&syslog.0, b"<13>".to_vec()),
            ]
        }));
        let ports = [&api, &metrics_port, &grpc, &http, &syslog.0];
        let noise = futures::future::join_all(
            ports.into_iter().enumerate().map(|(i, port)| tokio::spawn(garbage(port.clone(), i as u64))),
        );
        let datagrams = async {
            let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
            let mut rng = SmallRng::seed_from_u64(99);
            for _ in 0..500 {
                let mut bytes = vec![0u8; rng.random_range(0..2_000)];
                rng.fill_bytes(&mut bytes);
                socket.send_to(&bytes, &syslog.1).await.unwrap();
            }
        };
        // Whole requests whose bodies are garbage, at each door.
        let bodies = async {
            let client = reqwest::Client::new();
            for (base, path, content_type) in [
                (&api, "/api/v1/write", "application/x-protobuf"),
                (&api, "/api/v1/events", "application/json"),
                (&api, "/api/v1/alertmanager", "application/json"),
                (&http, "/v1/metrics", "application/x-protobuf"),
                (&http, "/v1/logs", "application/json"),
                (&http, "/v1/traces", "application/x-protobuf"),
            ] {
                let mut bytes = vec![0u8; 4_000];
                SmallRng::seed_from_u64(7).fill_bytes(&mut bytes);
                let request = client.post(format!("http://{base}{path}")).header("Content-Type", content_type);
                let status = request.body(bytes).send().await.unwrap().status().as_u16();
                assert_eq!(status, 400, "{path}");
            }
        };
        let (giants, floods, line, drips, noise, (), ()) =
            tokio::join!(giants, floods, line, drips, noise, datagrams, bodies);
        noise.into_iter().for_each(Result::unwrap);
        stop.store(true, Ordering::Relaxed);
        let all = |results: Vec<Result<Ended, _>>| -> Vec<Ended> { results.into_iter().map(Result::unwrap).collect() };
        (all(giants), all(floods), line.unwrap(), all(drips))
    };
    let ((giants, floods, line, drips), acknowledged) = tokio::join!(hostile, good_client(server.url("api"), &stop));
    for (i, big) in giants.iter().chain(&floods).enumerate() {
        assert!(big.closed, "big client {i} was kept: {big:?}");
        // What was taken is the limit of a body and what the sockets hold, nowhere near a gigabyte.
        assert!(big.sent < GIGABYTE / 8, "big client {i} was let send {} bytes", big.sent);
        // A reset can overtake the answer; where there is one it says why.
        assert!(big.answer.is_empty() || !big.answer.starts_with("HTTP/1.1 2"), "big client {i}: {}", big.answer);
    }
    assert!(line.closed, "{line:?}");
    assert_eq!(drips.len(), 4 * SLOW);
    for (i, slow) in drips.iter().enumerate() {
        assert!(slow.closed && slow.sent < 400, "slow client {i} was kept: {slow:?}");
    }
    let cost = memory_kb(&server, "VmHWM").saturating_sub(before_kb);
    assert!(cost < COST_KB_MAX, "{cost} kB more than the {before_kb} kB before");
    let metrics = server.metrics().await;
    for (source, reason) in [
        ("remote_write", "too_large"),
        ("remote_write", "too_slow"),
        ("remote_write", "bad_message"),
        ("events", "too_large"),
        ("events", "bad_message"),
        ("alertmanager", "too_large"),
        ("alertmanager", "bad_message"),
        ("otlp", "too_large"),
        ("otlp", "too_slow"),
        ("otlp", "bad_message"),
        ("syslog", "not_syslog"),
    ] {
        assert!(refused(&metrics, source, reason) >= 1.0, "{source}, {reason} is not counted:\n{metrics}");
    }
    assert!(acknowledged >= 10 * SERIES as u64, "the good client got only {acknowledged} samples through");
    let received: f64 = metrics
        .lines()
        .filter(|l| l.starts_with("nightshift_samples_received_total{source=\"remote_write\"}"))
        .filter_map(|l| l.rsplit_once(' ')?.1.parse::<f64>().ok())
        .sum();
    assert_eq!(received, acknowledged as f64, "all of the good client's samples were taken, and nothing else");
    assert!(!server.log().contains("panicked"), "{}", server.log());
    println!("{acknowledged} samples of the good client acknowledged; {cost} kB more memory at most");
}
