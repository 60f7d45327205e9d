//! Serves the pages to be looked at: an estate in trouble, the same after its plan was carried out with the kill switch
//! on, and one in which nothing is wrong.
//!
//! `cargo run -p nightshift-api --example page_preview`, then open the addresses that it prints. What it shows is
//! written to the real memory store and read back from it. Acting takes the token `ns_secret-of-olga`.

#[path = "../tests/support/mod.rs"]
mod support;

use nightshift_api::Exposure;
use nightshift_model::{KillSwitch, Risk};
use support::{NOW, Rig, anomaly};
use tokio::net::TcpListener;

#[tokio::main]
async fn main() {
    let (trouble, healed, calm) = (Rig::new().await, Rig::new().await, Rig::new().await);
    let [_, id, _] = trouble.trouble().await;
    trouble.ask(id, Risk::High).await;
    trouble.tell_all(id).await;
    let [_, id, _] = healed.trouble().await;
    let plan = healed.ask(id, Risk::Medium).await;
    healed.carry_out(&plan).await;
    healed.tell_all(id).await;
    *healed.desk.kill_switch.lock().expect("nobody panicked") =
        Some(KillSwitch { on: true, by: "adam".into(), why: "a drill".into(), at: NOW });
    *healed.desk.postmortem.lock().expect("nobody panicked") = Some(include_str!("postmortem.md").into());
    for (n, (name, signal, score)) in [
        ("web-shop", "request_rate", 0.75),
        ("node-17", "system.memory.utilization", 0.6),
        ("mail", "queue_depth", 0.3),
    ]
    .into_iter()
    .enumerate()
    {
        let first = anomaly(name, "service", signal, NOW, score, (130.0, 480.0, 400.0, 560.0));
        trouble.open(10 + n as u64, &format!("{name}: {signal} left its band"), &first).await;
    }
    calm.reporters[1].degraded("waiting for 30 points of the first series");
    let mut servers = Vec::new();
    for (what, rig, port) in [("in trouble", &trouble, 18_080), ("healed", &healed, 18_082), ("calm", &calm, 18_081)] {
        let listener = TcpListener::bind(("127.0.0.1", port)).await.expect("the port is free");
        println!("{what}: http://127.0.0.1:{port}/");
        let router = rig.router(Exposure::Loopback);
        servers.push(tokio::spawn(async move { axum::serve(listener, router).await }));
    }
    for server in servers {
        server.await.expect("the server does not panic").expect("the server does not fail");
    }
}
