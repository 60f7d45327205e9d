use super::*;
use axum::routing::{get, post};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

fn limits() -> HttpLimits {
    HttpLimits { header_secs: 1, body_secs: 2, idle_secs: 3, in_flight_bytes_max: 1 << 20, ..HttpLimits::default() }
}

async fn start(limits: HttpLimits) -> (SocketAddr, CancellationToken, tokio::task::JoinHandle<()>) {
    let gate = Gate::new(&limits);
    let echo = move |body: Body| {
        let gate = gate.clone();
        async move {
            match gate.read(body, 1_000).await {
                Ok(body) => body.len().to_string().into_response(),
                Err(e) => e.into_response(),
            }
        }
    };
    let router = Router::new()
        .route("/", post(echo))
        .route("/peer", get(|peer: Peer| async move { format!("{:?}", peer.0.map(|p| p.ip())) }));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, shutdown) = (listener.local_addr().unwrap(), CancellationToken::new());
    let server = tokio::spawn(serve(listener, router, limits, shutdown.clone()));
    (address, shutdown, server)
}

async fn exchange(address: SocketAddr, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request).await.unwrap();
    let mut answer = Vec::new();
    // A server that has answered may reset what is still being sent.
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8_lossy(&answer).into_owned()
}

fn good() -> &'static [u8] {
    b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\nconnection: close\r\n\r\nabc"
}

#[tokio::test]
async fn a_good_client_is_served_and_known_by_its_address() {
    let (address, shutdown, server) = start(limits()).await;
    assert!(exchange(address, good()).await.ends_with("\r\n\r\n3"));
    let peer = exchange(address, b"GET /peer HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await;
    assert!(peer.ends_with("Some(127.0.0.1)"), "{peer}");
    shutdown.cancel();
    server.await.unwrap();
    assert!(TcpStream::connect(address).await.is_err(), "the listener is closed");
}

/// Each hostile client with the answer that it gets; a good one is served while all of them are at it.
#[tokio::test]
async fn hostile_clients_are_answered_and_hurt_nobody() {
    let (address, shutdown, server) = start(limits()).await;
    let huge = b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 1000000000\r\n\r\n";
    let mut chunked = b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n".to_vec();
    chunked.extend(b"800\r\n");
    chunked.extend([b'x'; 0x800]);
    let headers = [b"GET /peer HTTP/1.1\r\n".to_vec(), b"a: b\r\n".repeat(500), b"\r\n".to_vec()].concat();
    let slow_body = b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 500\r\n\r\nabc";
    let rows: [(&str, &[u8], &str); 7] = [
        ("says 1 GB", huge, "HTTP/1.1 413"),
        ("sends more than is taken", &chunked, "HTTP/1.1 413"),
        ("500 headers", &headers, "HTTP/1.1 431"),
        ("garbage", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 what \r\n\r\n", "HTTP/1.1 400"),
        ("body that never ends", slow_body, "HTTP/1.1 408"),
        ("head that never ends", b"POST / HTTP/1.1\r\nhost: x\r\n", ""),
        ("nothing at all", b"", ""),
    ];
    let hostile = rows.map(|(what, request, want)| {
        let request = request.to_vec();
        tokio::spawn(async move {
            let answer = exchange(address, &request).await;
            // An empty answer is a closed connection.
            assert!(
                if want.is_empty() { !answer.contains("200 OK") } else { answer.starts_with(want) },
                "{what}: {answer}"
            );
        })
    });
    assert!(exchange(address, good()).await.ends_with("\r\n\r\n3"), "a good client is served meanwhile");
    for client in hostile {
        client.await.unwrap();
    }
    assert!(exchange(address, good()).await.ends_with("\r\n\r\n3"), "and afterwards");
    shutdown.cancel();
    server.await.unwrap();
}

#[tokio::test]
async fn one_client_cannot_take_all_connections_for_good() {
    let (address, shutdown, server) = start(HttpLimits { connections_max: 2, header_secs: 1, ..limits() }).await;
    let mut held = Vec::new();
    for _ in 0..2 {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"POST /").await.unwrap();
        held.push(stream);
    }
    // The third is closed at once, or served when one of the two has run out of time: either way it gets an end.
    exchange(address, good()).await;
    for mut stream in held {
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest).await;
    }
    assert!(exchange(address, good()).await.ends_with("\r\n\r\n3"));
    shutdown.cancel();
    server.await.unwrap();
}

/// A connection held open does not hold up the end.
#[tokio::test]
async fn the_end_waits_for_nobody_long() {
    let (address, shutdown, server) = start(HttpLimits { header_secs: 600, idle_secs: 600, ..limits() }).await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(b"POST / HT").await.unwrap();
    exchange(address, good()).await;
    shutdown.cancel();
    server.await.unwrap();
}

#[tokio::test]
async fn bodies_share_a_budget_that_comes_back() {
    let gate = Gate::new(&HttpLimits { in_flight_bytes_max: 1 << 20, ..HttpLimits::default() });
    let body = |n: usize| Body::from(vec![7u8; n]);
    let first = gate.read(body(700_000), 1 << 20).await.unwrap();
    let busy = gate.read(body(700_000), 1 << 20).await.unwrap_err();
    assert!(matches!(busy, BodyError::Busy { .. }));
    assert_eq!(busy.into_response().headers()[header::RETRY_AFTER], "1");
    drop(first);
    assert_eq!(gate.read(body(700_000), 1 << 20).await.unwrap().len(), 700_000);
    assert!(matches!(gate.read(body(11), 10).await, Err(BodyError::TooLarge { limit_bytes: 10 })));
}

#[tokio::test]
async fn bodies_in_pieces_are_put_together() {
    let gate = Gate::new(&HttpLimits::default());
    let pieces = futures::stream::iter(["ab", "", "c", "def"].map(Ok::<_, Infallible>));
    let body = gate.read(Body::from_stream(pieces), 100).await.unwrap();
    assert_eq!((&body[..], body.bytes().len()), (&b"abcdef"[..], 6));
}

#[test]
fn time_for_a_body_is_earned_by_its_bytes() {
    let gate = Gate::new(&HttpLimits { body_secs: 60, body_rate_min_bytes: 1_024, ..HttpLimits::default() });
    let started = Instant::now();
    for (len, secs) in [(0, 5), (5, 5), (1_024, 6), (10 << 10, 15), (10 << 20, 60)] {
        assert_eq!((gate.deadline(started, len) - started).as_secs(), secs, "{len} bytes");
    }
    let lenient = Gate::new(&HttpLimits { body_secs: 60, body_rate_min_bytes: 0, ..HttpLimits::default() });
    assert_eq!((lenient.deadline(started, 0) - started).as_secs(), 60);
}

#[tokio::test]
async fn a_body_that_stops_is_given_up() {
    let gate = Gate::new(&HttpLimits { body_secs: 1, ..HttpLimits::default() });
    let first = futures::stream::iter([Ok::<_, Infallible>("abc")]);
    let body = Body::from_stream(futures::StreamExt::chain(first, futures::stream::pending()));
    assert_eq!(gate.read(body, 1 << 20).await.unwrap_err(), BodyError::Slow);
}
