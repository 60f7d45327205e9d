//! The Kubernetes source against a real API server that is killed and restarted; rollouts, faults that open and close.
//!
//! Needs `NIGHTSHIFT_TEST_KUBE_SERVER` (`testenv/up kubernetes`); without, it says so and passes.
#![allow(clippy::unwrap_used, reason = "a test may panic; clippy does not see that helpers are of tests")]

mod see;

use nightshift_health::Health;
use nightshift_model::{ChangeType, Observation, Phase};
use see::Api;
use see::running::{Running, crash, crashing, fine, until};
use serde_json::json;

const POD_STATUS: &str = "/api/v1/namespaces/shop/pods/web-1-x/status";
const WEB: &str = "eu/deployment/shop/web";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn faults_open_and_close_also_across_a_restart_of_the_api_server() {
    let Some(api) = Api::start("see-watch").await else { return };
    crashing(&api, "web").await;
    let running = Running::start(&api.kubeconfig, "eu", false);

    // A fault that is there at the start.
    until("the crash loop is told", || (running.phases(WEB, Phase::Open) == 1).then_some(())).await;
    let anomaly = running.alerts().into_iter().find(|a| a.entity.id.as_str() == WEB).unwrap();
    assert!(format!("{anomaly:?}").contains("crash_loop"), "{anomaly:?}");
    // What runs where, and under which name.
    until("the pod's name is told to be the deployment's", || {
        let seen = running.test.sink.recorded().topology;
        seen.iter().find(|o| matches!(o, Observation::Alias { name, entity, .. } if name == "pod=shop/web-1-x" && entity.as_str() == WEB)).map(drop)
    })
    .await;
    // What is not watched is said, and is no trouble.
    let health = until("health", || Some(running.test.health()).filter(|h| h.detail.contains("switched off"))).await;
    assert_eq!(health.status, Health::Healthy, "{}", health.detail);

    // A rollout is a change with its version and its author.
    api.send(
        "PATCH",
        "/apis/apps/v1/namespaces/shop/deployments/web",
        &json!({"spec": {"template": {"spec": {
        "containers": [{"name": "app", "image": "web:2"}]}}}}),
    )
    .await
    .unwrap();
    let change = until("the rollout is told", || {
        let all = running.test.sink.recorded().changes;
        all.into_iter().find(|(_, c)| c.change_type == ChangeType::Deployment)
    })
    .await;
    assert_eq!(change.1.version, "2");
    assert_eq!(change.0["nightshift.entity"], WEB);
    assert!(change.1.summary.contains("from web:1 to web:2") && !change.1.author.is_empty(), "{:?}", change.1);

    // Killed: said to be away, and nothing is concluded from what is known.
    api.script("kill");
    until("it is said to be away", || (running.test.health().status == Health::Unhealthy).then_some(())).await;
    let told = running.alerts().len();
    api.script("restart");
    until("it is back", || (running.test.health().status == Health::Healthy).then_some(())).await;
    assert_eq!(running.phases(WEB, Phase::Closed), 0, "a fault was closed while nobody could see");
    assert_eq!(running.phases(WEB, Phase::Open), 1, "a fault was told twice: {told} before");

    // Healed: closed. Broken again: opened again.
    api.send("PATCH", POD_STATUS, &json!({"status": fine()})).await.unwrap();
    until("the fault is over", || (running.phases(WEB, Phase::Closed) == 1).then_some(())).await;
    api.send("PATCH", POD_STATUS, &json!({"status": crash(6)})).await.unwrap();
    until("it is back", || (running.phases(WEB, Phase::Open) == 2).then_some(())).await;
    running.end().await;
}
