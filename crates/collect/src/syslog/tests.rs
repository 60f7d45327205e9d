//! Real sockets on free ports.

use super::*;
use crate::testkit::{START, TestContext};
use nightshift_health::{BySourceAndReason, Health};
use tokio::io::AsyncWriteExt;
use tokio::task::JoinHandle;

struct Running {
    test: TestContext,
    task: JoinHandle<Result<(), SourceError>>,
    udp: SocketAddr,
    tcp: SocketAddr,
}

async fn run(config: Config) -> Running {
    let around = Surroundings {
        data_dir: "/nonexistent".into(),
        host_name: "me".into(),
        bound: BoundAddresses::default(),
        kubernetes: None,
    };
    let config = Config { udp_listen: "127.0.0.1:0".into(), tcp_listen: "127.0.0.1:0".into(), ..config };
    let mut source = config.build("syslog", &around).unwrap();
    let test = TestContext::new("syslog");
    let context = test.context.clone();
    let task = tokio::spawn(async move { source.run(&context).await });
    while around.bound.all().len() < 2 {
        tokio::task::yield_now().await;
    }
    let bound = around.bound.all();
    Running { test, task, udp: bound["syslog.udp_listen"], tcp: bound["syslog.tcp_listen"] }
}

impl Running {
    fn rejected(&self, reason: &'static str) -> u64 {
        let label = BySourceAndReason { source: "syslog".into(), reason: reason.into() };
        self.test.context.metrics.samples_rejected.get_or_create(&label).get()
    }

    async fn end(self) {
        self.test.context.shutdown.cancel();
        tokio::time::timeout(Duration::from_secs(30), self.task).await.expect("it ends").unwrap().unwrap();
    }
}

#[tokio::test]
async fn datagrams_and_streams_arrive() {
    let running = run(Config::default()).await;
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket
        .send_to(b"<11>1 2026-01-01T00:00:01Z db1 postgres 7 - [a@1 k=\"v\"] no space left", running.udp)
        .await
        .unwrap();
    let mut stream = TcpStream::connect(running.tcp).await.unwrap();
    stream
        .write_all(b"28 <12>Jan  1 00:00:02 h a: two<13>Jan  1 00:00:03 localhost cron[7]: three\ngarb\xff\n")
        .await
        .unwrap();
    stream.shutdown().await.unwrap();
    let got = running.test.sink.wait_until(|r| r.logs.len() == 4).await;
    let mut seen: Vec<_> = got
        .logs
        .iter()
        .map(|l| {
            (
                l.resource["host.name"].as_str(),
                l.severity,
                l.stream.as_str(),
                l.body.as_str(),
                (l.at.0 - START.0) / 1_000_000_000,
            )
        })
        .collect();
    seen.sort_by_key(|s| s.4);
    assert_eq!(
        seen,
        [
            ("me", 0, "syslog", "garb\u{fffd}", 0),
            ("db1", 17, "postgres", "no space left k=\"v\"", 1),
            ("h", 13, "a", "two", 2),
            ("me", 10, "cron", "three", 3),
        ]
    );
    assert_eq!(running.rejected("not_syslog"), 1, "kept, and counted");
    assert_eq!(running.test.health().status, Health::Healthy);
    running.end().await;
}

#[tokio::test]
async fn a_giant_is_cut_and_hurts_nobody_else() {
    let running = run(Config { message_bytes_max: 1000, ..Config::default() }).await;
    let mut giant = TcpStream::connect(running.tcp).await.unwrap();
    let mut slow = TcpStream::connect(running.tcp).await.unwrap();
    slow.write_all(b"<13>I am sl").await.unwrap();
    let block = vec![b'x'; 1 << 16];
    giant.write_all(b"<13>").await.unwrap();
    for _ in 0..64 {
        giant.write_all(&block).await.unwrap();
    }
    giant.write_all(b"\n<13>after\n").await.unwrap();
    let got = running.test.sink.wait_until(|r| r.logs.len() == 2).await;
    assert!(got.logs[0].body.len() < 1100 && got.logs[0].body.contains("bytes cut]"));
    assert_eq!(got.logs[1].body, "after");
    assert_eq!(running.rejected("line_too_long"), 1);
    slow.write_all(b"ow\n").await.unwrap();
    running.test.sink.wait_until(|r| r.logs.iter().any(|l| l.body == "I am slow")).await;
    running.end().await;
}

#[tokio::test]
async fn connections_are_limited_and_a_message_must_end() {
    let running = run(Config { connections_max: 1, message_secs: 1, ..Config::default() }).await;
    let mut first = TcpStream::connect(running.tcp).await.unwrap();
    first.write_all(b"<13>one\n<13>unfin").await.unwrap();
    running.test.sink.wait_until(|r| r.logs.len() == 1).await;
    let mut second = TcpStream::connect(running.tcp).await.unwrap();
    let mut nothing = [0; 1];
    let closed = tokio::io::AsyncReadExt::read(&mut second, &mut nothing).await;
    assert!(matches!(closed, Ok(0) | Err(_)), "closed at once: {closed:?}");
    assert_eq!(running.rejected("too_many_connections"), 1);
    // The message that never ends is handed in as far as it came, and its slot is free again.
    running.test.sink.wait_until(|r| r.logs.iter().any(|l| l.body == "unfin")).await;
    assert!(matches!(tokio::io::AsyncReadExt::read(&mut first, &mut nothing).await, Ok(0) | Err(_)));
    running.end().await;
}

#[tokio::test]
async fn a_busy_sink_loses_nothing() {
    let running = run(Config::default()).await;
    running.test.sink.set_busy(3);
    let mut stream = TcpStream::connect(running.tcp).await.unwrap();
    for i in 0..3000 {
        stream.write_all(format!("<13>line {i}\n").as_bytes()).await.unwrap();
    }
    let got = running.test.sink.wait_until(|r| r.logs.len() >= 3000).await;
    let bodies: Vec<String> = got.logs.iter().map(|l| l.body.clone()).collect();
    assert_eq!(bodies, (0..3000).map(|i| format!("line {i}")).collect::<Vec<_>>(), "all, once, in order");
    assert_eq!(got.refused, 3);
    running.end().await;
}

#[tokio::test]
async fn what_was_received_is_handed_in_before_it_ends() {
    let running = run(Config::default()).await;
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.send_to(b"<13>x", running.udp).await.unwrap();
    running.test.sink.wait_until(|r| r.logs.len() == 1).await;
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
    for (udp, tcp, word) in
        [("", "", "set udp_listen"), ("localhost", "", "IP:PORT"), ("", "127.0.0.1:99999", "tcp_listen")]
    {
        let config = Config { udp_listen: udp.into(), tcp_listen: tcp.into(), ..Config::default() };
        let error = config.build("s", &around).unwrap_err();
        assert!(error.to_string().contains(word) && error.fatal, "{error}");
    }
}

#[test]
fn corpus_is_read() {
    crate::corpus::replay("syslog", fuzz_syslog);
}

proptest::proptest! {
    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..300)) {
        fuzz_syslog(&bytes);
    }

    #[test]
    fn no_text_panics(text in "(<[0-9]{0,3}>)?(1 )?[-A-Za-z0-9 :\\[\\]=\"\\\\é]{0,80}") {
        fuzz_syslog(text.as_bytes());
    }
}
