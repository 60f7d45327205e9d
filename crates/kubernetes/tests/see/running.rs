//! The Kubernetes source while it runs, with what it told.

use super::Api;
use nightshift_collect::SourceContext;
use nightshift_collect::kubernetes::{ClusterConfig, KubernetesConfig};
use nightshift_collect::supervise::Surroundings;
use nightshift_collect::testkit::TestContext;
use nightshift_model::{Anomaly, Clock, Phase, Timestamp};
use serde_json::{Value, json};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

struct Wall;

impl Clock for Wall {
    fn now(&self) -> Timestamp {
        super::now()
    }
}

/// Waits for what will come; fails with what there is when it does not.
pub(crate) async fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    for _ in 0..1200 {
        if let Some(found) = look() {
            return found;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("never came: {what}");
}

/// The Kubernetes source while it runs, and what it told.
pub(crate) struct Running {
    pub(crate) test: TestContext,
    task: tokio::task::JoinHandle<()>,
    _folder: tempfile::TempDir,
}

impl Running {
    /// Watches the cluster of a kubeconfig under a name.
    pub(crate) fn start(kubeconfig: &Path, cluster: &str, secrets: bool) -> Self {
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

    pub(crate) fn alerts(&self) -> Vec<Anomaly> {
        self.test.sink.recorded().alerts.iter().map(|(_, a)| a.clone()).collect()
    }

    /// How often a fault of an entity was opened and closed.
    pub(crate) fn phases(&self, entity: &str, phase: Phase) -> usize {
        self.alerts().iter().filter(|a| a.entity.id.as_str() == entity && a.phase == phase).count()
    }

    pub(crate) async fn end(self) {
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

/// A deployment of namespace `shop` whose pod `NAME-1-x` crashes, as controllers and a kubelet would write it.
pub(crate) async fn crashing(api: &Api, name: &str) {
    let owner = |kind: &str, name: &str| json!([{"apiVersion": "apps/v1", "kind": kind, "name": name, "uid": format!("UID_OF/{kind}/{name}"), "controller": true}]);
    let labels = json!({"app": name});
    let spec = json!({"replicas": 1, "selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels},
        "spec": {"containers": [{"name": "app", "image": "web:1"}]}}});
    let (set, pod) = (format!("{name}-1"), format!("{name}-1-x"));
    let pod_spec = json!({"containers": [{"name": "app", "image": "web:1"}], "nodeName": "n1"});
    let objects = vec![
        json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name, "namespace": "shop"}, "spec": spec}),
        json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": {"name": set, "namespace": "shop",
            "ownerReferences": owner("Deployment", name)}, "spec": spec}),
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": pod, "namespace": "shop", "labels": labels,
            "ownerReferences": owner("ReplicaSet", &set)}, "spec": pod_spec, "status": crash(5)}),
    ];
    let put = api.put_all("shop", objects).await;
    assert_eq!(put.refused, Vec::<String>::new());
}

/// Status of a pod that crashes.
pub(crate) fn crash(restarts: i64) -> Value {
    json!({"phase": "Running", "containerStatuses": [{"name": "app", "image": "web:1", "imageID": "", "ready": false, "restartCount": restarts,
        "state": {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 40s restarting failed container"}},
        "lastState": {"terminated": {"exitCode": 1, "reason": "Error"}}}]})
}

/// Status of one that does not.
pub(crate) fn fine() -> Value {
    json!({"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}], "containerStatuses": [{"name": "app", "image": "web:1",
        "imageID": "", "ready": true, "started": true, "restartCount": 0, "state": {"running": {}}, "lastState": {}}]})
}
