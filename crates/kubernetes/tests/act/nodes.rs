//! Nodes: cordon, uncordon, drain with budgets and refusals, a stuck pod.

use crate::support::{Place, at, done, now, plain};
use nightshift_act::Actuator as _;
use nightshift_act::conformance::Order as _;
use nightshift_model::{ActionOutcome, ActionType as A, Operation};
use serde_json::{Value, json};

/// A node of our own; removed with its test.
struct Node<'a>(&'a Place, String, String);

impl Node<'_> {
    async fn add<'a>(place: &'a Place, tail: &str) -> Node<'a> {
        let name = format!("{}-{tail}", place.namespace);
        let node = json!({
            "apiVersion": "v1", "kind": "Node",
            "metadata": {"name": name, "labels": {"only": place.namespace, "kubernetes.io/hostname": name}, "annotations": {"kwok.x-k8s.io/node": "fake"}},
            "spec": {"taints": [{"key": "only", "value": place.namespace, "effect": "NoSchedule"}]},
        });
        place.admin("POST", "/api/v1/nodes", &node).await.unwrap();
        let node = Node(place, name, place.namespace.clone());
        place
            .until("the node is ready", async || {
                let conditions = at(&node.read().await, "/status/conditions");
                conditions.as_array().is_some_and(|c| c.iter().any(|c| c["type"] == "Ready" && c["status"] == "True"))
            })
            .await;
        node
    }

    fn path(&self) -> String {
        format!("/api/v1/nodes/{}", self.1)
    }

    async fn read(&self) -> Value {
        let mut node = self.0.admin("GET", &self.path(), &Value::Null).await.unwrap();
        // Its controllers write these.
        if let Some(notes) = node["metadata"]["annotations"].as_object_mut() {
            notes.retain(|k, _| k.starts_with("nightshift.dev/"));
        }
        node
    }

    async fn remove(self) {
        drop(self.0.admin("DELETE", &self.path(), &Value::Null).await);
    }

    /// A deployment whose pods run on the nodes of this test.
    async fn run(&self, name: &str, replicas: u32) {
        self.0
            .make(
                "deployments",
                json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name}, "spec": {
                    "replicas": replicas, "selector": {"matchLabels": {"app": name}},
                    "template": {"metadata": {"labels": {"app": name}}, "spec": {
                        "tolerations": [{"key": "only", "operator": "Equal", "value": self.2}],
                        "nodeSelector": {"only": self.2},
                        "containers": [{"name": name, "image": "shop/web:1"}]}},
                }}),
            )
            .await;
        self.0.steady("deployments", name).await;
    }

    async fn pods(&self) -> Vec<String> {
        let path = format!("/api/v1/pods?fieldSelector=spec.nodeName%3D{}", self.1);
        let all = self.0.admin("GET", &path, &Value::Null).await.unwrap();
        let own = all["items"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|p| p["metadata"]["ownerReferences"][0]["kind"] != "DaemonSet");
        own.map(|p| p["metadata"]["name"].as_str().unwrap().to_owned()).collect()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn cordon_and_uncordon() {
    let Some(place) = Place::open("cordon").await else { return };
    let node = Node::add(&place, "a").await;
    let actuator = place.actuator();
    let before = plain(node.read().await);
    for (action, cordoned) in [(A::CordonNode, true), (A::UncordonNode, false)] {
        if !cordoned {
            place.admin("PATCH", &node.path(), &json!({"spec": {"unschedulable": true}})).await.unwrap();
        }
        let mut order = place.order("node", &node.1, action, json!({}));
        let was = plain(node.read().await);
        order.before = actuator.look(&order.target, action).await.unwrap();
        assert_eq!((&order.before["schedulable"], &order.before["ready"]), (&json!(cordoned), &json!(true)));
        done(&actuator.perform(&order.with(Operation::DryRun)).await.unwrap());
        assert_eq!(plain(node.read().await)["spec"].get("unschedulable"), was["spec"].get("unschedulable"));
        done(&actuator.perform(&order).await.unwrap());
        assert_eq!(node.read().await["spec"].get("unschedulable").is_some(), cordoned);
        done(&place.actuator().perform(&order.with(Operation::Undo)).await.unwrap());
        assert_eq!(plain(node.read().await)["spec"].get("unschedulable"), was["spec"].get("unschedulable"));
    }
    place.admin("PATCH", &node.path(), &json!({"spec": {"unschedulable": null}})).await.unwrap();
    let strip = |mut v: Value| {
        // The controller adds and removes its own taint when a node is cordoned; the time of that is its own.
        v["spec"].as_object_mut().unwrap().remove("taints");
        v
    };
    assert_eq!(strip(plain(node.read().await)), strip(before));
    node.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_moves_what_may_move_and_is_taken_back() {
    let Some(place) = Place::open("drain").await else { return };
    let node = Node::add(&place, "a").await;
    node.run("web", 3).await;
    // Where they can go: it comes when they run already.
    let spare = Node::add(&place, "b").await;
    place
        .make(
            "poddisruptionbudgets",
            json!({"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": "web"},
        "spec": {"minAvailable": 2, "selector": {"matchLabels": {"app": "web"}}}}),
        )
        .await;
    assert_eq!(node.pods().await.len(), 3);
    place
        .until("the budget is counted", async || {
            at(&place.get("policy/v1", "poddisruptionbudgets", "web").await, "/status/disruptionsAllowed") == 1
        })
        .await;
    let actuator = place.actuator();
    let mut order = place.order("node", &node.1, A::DrainNode, json!({"grace_secs": 1}));
    order.before = actuator.look(&order.target, order.action).await.unwrap();
    assert_eq!(order.before["pods"], 3);
    let tried = actuator.perform(&order.with(Operation::DryRun)).await.unwrap();
    done(&tried);
    assert!(tried.detail.contains("3 pods leave") && tried.detail.contains("dry_run: server"), "{}", tried.detail);
    assert_eq!(node.pods().await.len(), 3, "a dry-run moves nothing");
    let answer = actuator.perform(&order).await.unwrap();
    done(&answer);
    assert!(answer.detail.contains("3 pods left it"), "{}", answer.detail);
    assert!(node.pods().await.is_empty());
    assert_eq!(place.actuator().perform(&order.observation()).await.unwrap().outcome, ActionOutcome::FoundDone);
    done(&place.actuator().perform(&order).await.unwrap());
    done(&place.actuator().perform(&order.with(Operation::Undo)).await.unwrap());
    let after = node.read().await;
    assert!(
        after["spec"].get("unschedulable").is_none()
            && at(&after, "/metadata/annotations/nightshift.dev~1last-key").is_null()
    );
    assert_eq!(spare.pods().await.len(), 3, "they went where they could");
    spare.remove().await;
    node.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_is_refused_with_the_list_while_others_pods_are_there() {
    let Some(place) = Place::open("refdrain").await else { return };
    let Some(other) = Place::open("bank").await else { return };
    let node = Node::add(&place, "a").await;
    Node(&other, node.1.clone(), place.namespace.clone()).run("ledger", 1).await;
    place
        .make(
            "pods",
            json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "bare"}, "spec": {
        "nodeName": node.1, "containers": [{"name": "c", "image": "x:1"}]}}),
        )
        .await;
    let actuator = place.actuator();
    let mut order = place.order("node", &node.1, A::DrainNode, json!({}));
    // At planning: the look says no, with the list.
    let refused = actuator.look(&order.target, order.action).await.unwrap_err().to_string();
    assert!(
        refused.contains(&format!("{}/ledger-", other.namespace))
            && refused.contains(&format!("{}/bare", place.namespace)),
        "{refused}"
    );
    // And whoever orders it all the same.
    order.before = actuator.look(&order.target, A::CordonNode).await.unwrap();
    for operation in [Operation::DryRun, Operation::Apply] {
        let refused = actuator.perform(&order.with(operation)).await.unwrap_err().to_string();
        assert!(refused.contains("2 pods would have to leave"), "{refused}");
    }
    assert!(node.read().await["spec"].get("unschedulable").is_none());
    assert_eq!(node.pods().await.len(), 2);
    node.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_budget_that_allows_nothing_refuses_a_drain() {
    let Some(place) = Place::open("budget").await else { return };
    let node = Node::add(&place, "a").await;
    node.run("web", 2).await;
    place
        .make(
            "poddisruptionbudgets",
            json!({"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": "web"},
        "spec": {"minAvailable": 2, "selector": {"matchLabels": {"app": "web"}}}}),
        )
        .await;
    place
        .until("the budget is counted", async || {
            at(&place.get("policy/v1", "poddisruptionbudgets", "web").await, "/status/currentHealthy") == 2
        })
        .await;
    let actuator = place.actuator();
    let mut order = place.order("node", &node.1, A::DrainNode, json!({}));
    order.before = actuator.look(&order.target, order.action).await.unwrap();
    let refused = actuator.perform(&order.with(Operation::DryRun)).await.unwrap_err().to_string();
    assert!(refused.contains("disruption budget"), "{refused}");
    order.deadline = now() + std::time::Duration::from_secs(6);
    let answer = actuator.perform(&order).await.unwrap();
    assert_eq!(answer.outcome, ActionOutcome::Failed, "{}", answer.detail);
    assert_eq!(node.pods().await.len(), 2, "the budget held");
    done(&place.actuator().perform(&crate::support::later(&order.with(Operation::Undo))).await.unwrap());
    assert!(node.read().await["spec"].get("unschedulable").is_none());
    node.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_a_stuck_pod_that_is_owned_is_deleted() {
    let Some(place) = Place::open("stuck").await else { return };
    place.workload("Deployment", "web", json!({"replicas": 1})).await;
    let pods = place.get("v1", "pods", "").await["items"].clone();
    let healthy = pods[0]["metadata"]["name"].as_str().unwrap().to_owned();
    let actuator = place.actuator();
    let mut order = place.order("pod", &healthy, A::DeletePod, json!({}));
    order.before = actuator.look(&order.target, order.action).await.unwrap();
    assert_eq!(order.before["stuck"], false);
    assert!(actuator.perform(&order).await.unwrap_err().to_string().contains("not stuck"));

    place.make("pods", json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "bare"}, "spec": {"containers": [{"name": "c", "image": "x:missing"}]}})).await;
    let mut bare = place.order("pod", "bare", A::DeletePod, json!({}));
    place
        .until("it waits for its image", async || {
            actuator.look(&bare.target, A::DeletePod).await.unwrap()["stuck"] == true
        })
        .await;
    bare.before = actuator.look(&bare.target, A::DeletePod).await.unwrap();
    assert!(actuator.perform(&bare).await.unwrap_err().to_string().contains("no controller owns it"));

    place.workload("Deployment", "api", json!({"replicas": 1})).await;
    place
        .patch(
            "apps/v1",
            "deployments",
            "api",
            json!({"spec": {"template": {"spec": {"containers": [{"name": "api", "image": "x:missing"}]}}}}),
        )
        .await;
    let mut name = String::new();
    for _ in 0..100 {
        let all = place.get("v1", "pods", "").await["items"].as_array().unwrap().clone();
        let bad =
            all.iter().find(|p| p["spec"]["containers"][0]["image"] == "x:missing" && p["metadata"]["name"] != "bare");
        if let Some(pod) = bad.filter(|p| p.to_string().contains("ImagePull")) {
            name = pod["metadata"]["name"].as_str().unwrap().to_owned();
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    }
    let mut order = place.order("pod", &name, A::DeletePod, json!({}));
    order.before = actuator.look(&order.target, order.action).await.unwrap();
    assert_eq!(order.before["stuck"], true, "{:?}", order.before);
    // Off unless it is named.
    let off =
        place.actuator_with(nightshift_act::KubernetesActuatorConfig { delete_stuck_pods: false, ..place.config() });
    assert!(off.perform(&order).await.unwrap_err().to_string().contains("delete_stuck_pods"));
    done(&actuator.perform(&order.with(Operation::DryRun)).await.unwrap());
    assert!(!place.get("v1", "pods", &name).await.is_null());
    done(&actuator.perform(&order).await.unwrap());
    done(&place.actuator().perform(&order).await.unwrap());
    assert_eq!(place.actuator().perform(&order.observation()).await.unwrap().outcome, ActionOutcome::FoundDone);
}
