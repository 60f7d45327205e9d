//! The event stream, over real sockets.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

mod support;

use axum::http::StatusCode;
use futures::{SinkExt as _, StreamExt as _};
use nightshift_api::{ApiConfig, Exposure, StreamEvent};
use nightshift_model::Timestamp;
use nightshift_store::Store as _;
use serde_json::Value;
use std::net::SocketAddr;
use support::{NOW, Rig, TENANT, anomaly, secret};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::tungstenite::{self, Message, client::IntoClientRequest as _};

type Socket = tokio_tungstenite::WebSocketStream<tokio_tungstenite::MaybeTlsStream<TcpStream>>;

async fn served(rig: &Rig, exposure: Exposure) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let router = rig.router(exposure);
    tokio::spawn(async move { axum::serve(listener, router).await });
    addr
}

async fn connect(addr: SocketAddr) -> Socket {
    tokio_tungstenite::connect_async(format!("ws://{addr}/api/v1/ws/events")).await.unwrap().0
}

async fn next(socket: &mut Socket) -> Value {
    loop {
        match socket.next().await.unwrap().unwrap() {
            Message::Text(text) => return serde_json::from_str(&text).unwrap(),
            Message::Ping(_) => {}
            other => panic!("{other:?}"),
        }
    }
}

fn tick(n: i64) -> StreamEvent {
    StreamEvent::anomaly(&anomaly("x", "service", &format!("s{n}"), Timestamp::from_secs(n), 0.9, (2.0, 1.0, 0.0, 1.5)))
}

#[tokio::test]
async fn what_happens_is_told_as_it_happens() {
    let rig = Rig::new().await;
    let [_, id, _] = rig.trouble().await;
    let addr = served(&rig, Exposure::Loopback).await;
    let mut socket = connect(addr).await;
    let hello = next(&mut socket).await;
    assert_eq!((hello["type"].as_str(), hello["version"].as_str()), (Some("hello"), Some("0.1.0")));

    let incident = rig.store.incident(TENANT, id).await.unwrap().unwrap();
    rig.events.send(StreamEvent::incident("causes_ranked", NOW, &incident)).unwrap();
    rig.events.send(tick(1)).unwrap();
    rig.events.send(StreamEvent::health(&rig.board.components()[0])).unwrap();
    let told = next(&mut socket).await;
    assert_eq!((told["type"].as_str(), told["action"].as_str()), (Some("incident"), Some("causes_ranked")));
    assert_eq!(told["data"]["id"], id.to_string());
    let told = next(&mut socket).await;
    assert_eq!((told["type"].as_str(), told["action"].as_str()), (Some("anomaly"), Some("open")));
    let told = next(&mut socket).await;
    assert_eq!((told["type"].as_str(), told["data"]["name"].as_str()), (Some("health"), Some("anomaly-detector")));
    // It has nothing to say, and saying it does no harm.
    socket.send(Message::text("hello?")).await.unwrap();
    rig.events.send(tick(2)).unwrap();
    assert_eq!(next(&mut socket).await["data"]["signal"], "s2");
}

#[tokio::test]
async fn a_slow_listener_is_told_what_it_missed_and_goes_on() {
    let rig = Rig::with(ApiConfig::default(), 4).await;
    let addr = served(&rig, Exposure::Loopback).await;
    let mut socket = connect(addr).await;
    assert_eq!(next(&mut socket).await["type"], "hello");
    // On this one thread the listener's task does not run between these: it falls behind for certain.
    for n in 1..=10 {
        rig.events.send(tick(n)).unwrap();
    }
    let lagged = next(&mut socket).await;
    assert_eq!((lagged["type"].as_str(), lagged["missed"].as_u64()), (Some("lagged"), Some(6)));
    for n in 7..=10 {
        assert_eq!(next(&mut socket).await["data"]["signal"], format!("s{n}"));
    }
    rig.events.send(tick(11)).unwrap();
    assert_eq!(next(&mut socket).await["data"]["signal"], "s11", "it went on");
}

async fn refused(addr: SocketAddr, headers: &[(&'static str, &str)]) -> StatusCode {
    let mut request = format!("ws://{addr}/api/v1/ws/events").into_client_request().unwrap();
    for (name, value) in headers {
        request.headers_mut().insert(*name, value.parse().unwrap());
    }
    match tokio_tungstenite::connect_async(request).await {
        Ok(_) => StatusCode::SWITCHING_PROTOCOLS,
        Err(tungstenite::Error::Http(response)) => response.status(),
        Err(other) => panic!("{other}"),
    }
}

#[tokio::test]
async fn who_may_not_listen_is_refused_before_the_upgrade() {
    let rig = Rig::with(ApiConfig { stream_clients_max: 1, ..Default::default() }, 8).await;
    let addr = served(&rig, Exposure::Loopback).await;
    assert_eq!(refused(addr, &[("origin", "http://evil.example")]).await, StatusCode::FORBIDDEN);
    assert_eq!(refused(addr, &[("host", "evil.example")]).await, StatusCode::MISDIRECTED_REQUEST);
    let mut only = connect(addr).await;
    assert_eq!(next(&mut only).await["type"], "hello");
    assert_eq!(refused(addr, &[]).await, StatusCode::SERVICE_UNAVAILABLE, "the places are counted");

    let beyond = served(&Rig::new().await, Exposure::Beyond).await;
    assert_eq!(refused(beyond, &[]).await, StatusCode::UNAUTHORIZED);
    let token = format!("Bearer {}", secret("vera"));
    assert_eq!(refused(beyond, &[("authorization", &token)]).await, StatusCode::SWITCHING_PROTOCOLS);
}
