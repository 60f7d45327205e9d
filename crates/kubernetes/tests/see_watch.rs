//! The Kubernetes source against a real API server that is killed, restarted, short of rights, and forgetful.
//!
//! Needs `NIGHTSHIFT_TEST_KUBE_SERVER` (`testenv/up kubernetes`); without, it says so and passes.

mod see;

use nightshift_collect::SourceContext;
use nightshift_collect::kubernetes::{ClusterConfig, KubernetesConfig};
use nightshift_collect::supervise::Surroundings;
use nightshift_collect::testkit::TestContext;
use nightshift_health::Health;
use nightshift_model::{Anomaly, ChangeType, Clock, Observation, Phase, Timestamp};
use see::Api;
use serde_json::{Value, json};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

struct Wall;

impl Clock for Wall {
    fn now(&self) -> Timestamp {
        see::now()
    }
}

/// Waits for what will come; fails with what there is when it does not.
async fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    for _ in 0..600 {
        if let Some(found) = look() {
            return found;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("never came: {what}");
}

struct Running {
    test: TestContext,
    task: tokio::task::JoinHandle<()>,
    _folder: tempfile::TempDir,
}

impl Running {
    fn start(kubeconfig: &Path, cluster: &str, secrets: bool) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let around = Surroundings {
            data_dir: folder.path().to_owned(),
            host_name: "test".into(),
            bound: nightshift_collect::supervise::BoundAddresses::default(),
            kubernetes: Some(nightshift_kubernetes::build),
        };
        let context = context_of(kubeconfig);
        let config = KubernetesConfig {
            kubeconfig: Some(kubeconfig.to_owned()),
            clusters: vec![ClusterConfig { name: cluster.into(), context }],
            clear_after_secs: 1,
            secrets,
            ..KubernetesConfig::default()
        };
        let mut test = TestContext::new("kubernetes");
        test.context.clock = Arc::new(Wall);
        let context: SourceContext = test.context.clone();
        let mut source = nightshift_kubernetes::build("kubernetes", &config, &around).unwrap();
        let task = tokio::spawn(async move { source.run(&context).await.unwrap() });
        Self { test, task, _folder: folder }
    }

    fn alerts(&self) -> Vec<Anomaly> {
        self.test.sink.recorded().alerts.iter().map(|(_, a)| a.clone()).collect()
    }

    /// How often a fault of an entity was opened and closed.
    fn phases(&self, entity: &str, phase: Phase) -> usize {
        self.alerts().iter().filter(|a| a.entity.id.as_str() == entity && a.phase == phase).count()
    }

    async fn end(self) {
        self.test.context.shutdown.cancel();
        self.task.await.unwrap();
    }
}

/// The context that a kubeconfig of the test control plane has.
fn context_of(kubeconfig: &Path) -> String {
    let text = std::fs::read_to_string(kubeconfig).unwrap();
    let file: Value = serde_saphyr::from_str(&text).unwrap();
    file["current-context"].as_str().unwrap().to_owned()
}

fn deployment(image: &str) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web", "namespace": "shop"},
        "spec": {"replicas": 1, "selector": {"matchLabels": {"app": "web"}},
            "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "app", "image": image}]}}}})
}

/// A deployment whose pod crashes, as controllers and a kubelet would write it.
async fn crashing(api: &Api) {
    let owner = |kind: &str, name: &str| json!([{"apiVersion": "apps/v1", "kind": kind, "name": name, "uid": format!("UID_OF/{kind}/{name}"), "controller": true}]);
    let pod_spec = json!({"containers": [{"name": "app", "image": "web:1"}], "nodeName": "n1"});
    let objects = vec![
        deployment("web:1"),
        json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": {"name": "web-1", "namespace": "shop",
            "ownerReferences": owner("Deployment", "web")}, "spec": {"replicas": 1, "selector": {"matchLabels": {"app": "web"}},
            "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "app", "image": "web:1"}]}}}}),
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web-1-x", "namespace": "shop", "labels": {"app": "web"},
            "ownerReferences": owner("ReplicaSet", "web-1")}, "spec": pod_spec, "status": crash(5)}),
    ];
    let put = api.put_all("shop", objects).await;
    assert_eq!(put.refused, Vec::<String>::new());
}

fn crash(restarts: i64) -> Value {
    json!({"phase": "Running", "containerStatuses": [{"name": "app", "image": "web:1", "imageID": "", "ready": false, "restartCount": restarts,
        "state": {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 40s restarting failed container"}},
        "lastState": {"terminated": {"exitCode": 1, "reason": "Error"}}}]})
}

fn fine() -> Value {
    json!({"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}], "containerStatuses": [{"name": "app", "image": "web:1",
        "imageID": "", "ready": true, "started": true, "restartCount": 0, "state": {"running": {}}, "lastState": {}}]})
}

const POD_STATUS: &str = "/api/v1/namespaces/shop/pods/web-1-x/status";
const WEB: &str = "eu/deployment/shop/web";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn faults_open_and_close_also_across_a_restart_of_the_api_server() {
    let Some(api) = Api::start("see-watch").await else { return };
    crashing(&api).await;
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
