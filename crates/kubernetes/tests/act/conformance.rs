//! The one suite that every actuator passes, on a real deployment.

use crate::support::{Place, at, now};
use async_trait::async_trait;
use nightshift_act::Actuator;
use nightshift_act::conformance::{Harness, World, run};
use nightshift_model::{Action, ActionType, Image, Timestamp};
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::Ordering;

struct Cluster;

#[async_trait]
impl Harness for Cluster {
    async fn open(&self, name: &str) -> Box<dyn World> {
        let short: String = name.chars().filter(|c| *c != '_').take(20).collect();
        let place = Place::open(&short).await.unwrap();
        place.workload("Deployment", "web", json!({})).await;
        Box::new(One(place, now()))
    }
}

/// The place, and the time at which its clocks stand still.
struct One(Place, Timestamp);

#[async_trait]
impl World for One {
    async fn actuator(&self) -> Arc<dyn Actuator> {
        self.0.actuator_at(&self.0.config(), self.1)
    }

    async fn order(&self) -> Action {
        let params = json!({"memory_limit_mib": 256, "memory_request_mib": 200});
        let mut order = self.0.order("deployment", "web", ActionType::PatchResources, params);
        order.deadline = self.now() + std::time::Duration::from_secs(60);
        order
    }

    async fn image(&self) -> Image {
        let o = self.0.get("apps/v1", "deployments", "web").await;
        let mib = |p: &str| {
            let text = at(&o, &format!("/spec/template/spec/containers/0/resources/{p}/memory"));
            json!(text.as_str().unwrap().trim_end_matches("Mi").parse::<i64>().unwrap())
        };
        let fields: serde_json::Map<String, Value> =
            ["template", "strategy", "minReadySeconds", "progressDeadlineSeconds", "updateStrategy"]
                .into_iter()
                .map(|f| (format!("/spec/{f}"), o["spec"].get(f).cloned().unwrap_or(Value::Null)))
                .collect();
        let note = |name: &str| at(&o, &format!("/metadata/annotations/nightshift.dev~1{name}"));
        let label = format!("deployments/{}/web", self.0.namespace);
        let kept = json!({"uid": o["metadata"]["uid"], "fields": fields,
            "marks": {"nightshift.dev/last-key": note("last-key"), "nightshift.dev/fence": note("fence"),
                "nightshift.dev/canary-share": note("canary-share")}});
        let heap = at(&o, "/spec/template/spec/containers/0/env/0/value");
        let heap = heap.as_str().unwrap().split("-Xmx").nth(1).unwrap().trim_end_matches('m').parse::<f64>().unwrap();
        Image::from([
            ("replicas".into(), o["spec"]["replicas"].clone()),
            ("ready_replicas".into(), o["status"]["readyReplicas"].clone()),
            ("container".into(), "web".into()),
            ("memory_limit_mib".into(), mib("limits")),
            ("memory_request_mib".into(), mib("requests")),
            ("jvm_heap_mib".into(), json!(heap)),
            ("restore".into(), json!({label: kept})),
        ])
    }

    async fn effects(&self, key: &str) -> u32 {
        self.0.wire.effects(key)
    }

    fn now(&self) -> Timestamp {
        self.1
    }

    async fn hang(&self) -> bool {
        self.0.wire.hangs.store(true, Ordering::SeqCst);
        true
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_it_declares_is_true() {
    if crate::support::admin().await.is_some() {
        run(&Cluster).await;
    }
}
