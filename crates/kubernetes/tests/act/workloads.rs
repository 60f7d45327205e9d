//! Every action on a workload: tried, done, done once, taken back, refused in another world.

use crate::support::{Place, at, done, plain, whole_way};
use nightshift_act::Actuator as _;
use nightshift_act::conformance::Order as _;
use nightshift_model::{ActionOutcome, ActionType as A, Operation};
use serde_json::{Value, json};

const IMAGE: &str = "/spec/template/spec/containers/0/image";
const DEPLOYMENT: (&str, &str, &str) = ("apps/v1", "deployments", "web");

async fn opened(name: &str) -> Option<Place> {
    let place = Place::open(name).await?;
    place.workload("Deployment", "web", json!({})).await;
    Some(place)
}

fn container(change: Value) -> Value {
    let mut one = json!({"name": "web", "image": "shop/web:1.8.1",
        "resources": {"limits": {"memory": "128Mi"}, "requests": {"memory": "100Mi"}},
        "env": [{"name": "JAVA_TOOL_OPTIONS", "value": "-Xms32m -Xmx96m"}]});
    for (key, value) in change.as_object().unwrap() {
        one[key] = value.clone();
    }
    json!({"spec": {"template": {"spec": {"containers": [one]}}}})
}

#[tokio::test(flavor = "multi_thread")]
async fn scale() {
    let Some(place) = opened("scale").await else { return };
    let order = place.order("service", "web", A::ScaleDeployment, json!({"replicas": 5}));
    whole_way(&place, DEPLOYMENT, order, |o| o["spec"]["replicas"] == 5, Some(json!({"spec": {"replicas": 4}}))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn scale_by_the_bounds_of_an_autoscaler() {
    let Some(place) = opened("bounds").await else { return };
    place.make("horizontalpodautoscalers", json!({
        "apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": "web", "annotations": {"nightshift.dev/max-replicas": "8"}},
        "spec": {"scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}, "minReplicas": 2, "maxReplicas": 6},
    })).await;
    let hpa = ("autoscaling/v2", "horizontalpodautoscalers", "web");
    let order = place.order("deployment", "web", A::ScaleDeployment, json!({"replicas": 5}));
    whole_way(&place, hpa, order, |o| o["spec"]["minReplicas"] == 5, None).await;
    let order = place.order("deployment", "web", A::CostScaleDown, json!({"replicas": 3}));
    whole_way(&place, hpa, order, |o| o["spec"]["maxReplicas"] == 3, None).await;
    let order = place.order("horizontalpodautoscaler", "web", A::AdjustAutoscaler, json!({"max_replicas": 8}));
    let image = place.actuator().look(&order.target, order.action).await.unwrap();
    assert_eq!((&image["autoscaler_max"], &image["autoscaler_limit"]), (&json!(6), &json!(8)));
    whole_way(&place, hpa, order, |o| o["spec"]["maxReplicas"] == 8, Some(json!({"spec": {"maxReplicas": 7}}))).await;
    let order = place.order("deployment", "web", A::AdjustAutoscaler, json!({"max_replicas": 9}));
    let refused = place.actuator().perform(&order).await.unwrap_err();
    assert!(refused.to_string().contains("at most 8"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn restart() {
    let Some(place) = opened("restart").await else { return };
    let order = place.order("deployment", "web", A::RestartPods, json!({"max_unavailable": 0.33}));
    let note = "/spec/template/metadata/annotations/nightshift.dev~1restarted";
    let foreign = container(json!({"image": "shop/web:1.9.0"}));
    whole_way(&place, DEPLOYMENT, order, |o| at(o, note).is_string(), Some(foreign)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn resources_with_the_heap() {
    let Some(place) = opened("memory").await else { return };
    let params =
        json!({"memory_limit_mib": 1024, "memory_request_mib": 800, "jvm_heap_mib": 768, "cpu_limit_millis": 1500});
    let order = place.order("deployment", "web", A::PatchResources, params);
    let fine = |o: &Value| {
        let c = at(o, "/spec/template/spec/containers/0");
        at(&c, "/resources/limits") == json!({"cpu": "1500m", "memory": "1Gi"})
            && at(&c, "/resources/requests/memory") == "800Mi"
            && at(&c, "/env/0/value") == "-Xms32m -Xmx768m"
    };
    whole_way(&place, DEPLOYMENT, order, fine, Some(container(json!({"image": "shop/web:2"})))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_part_first_then_the_rest_then_back() {
    let Some(place) = opened("canary").await else { return };
    let before = plain(place.get("apps/v1", "deployments", "web").await);
    let actuator = place.actuator();
    let mut order = place.order("deployment", "web", A::SetImage, json!({"image": "shop/web:1.8.2"}));
    order.before = actuator.look(&order.target, order.action).await.unwrap();
    let mut canary = order.with(Operation::Canary);
    canary.params.insert("canary_share".into(), json!(0.3));
    done(&actuator.perform(&canary).await.unwrap());
    // Time in which a rollout that is not held would go on.
    tokio::time::sleep(std::time::Duration::from_secs(5)).await;
    let part = place.get("apps/v1", "deployments", "web").await;
    assert_eq!((&part["status"]["updatedReplicas"], &part["status"]["readyReplicas"]), (&json!(1), &json!(4)));
    // The canary alone is taken back exactly.
    done(&place.actuator().perform(&order.with(Operation::Undo)).await.unwrap());
    assert_eq!(plain(place.get("apps/v1", "deployments", "web").await), before);

    let mut order = place.order("deployment", "web", A::SetImage, json!({"image": "shop/web:1.8.2"}));
    order.before = place.actuator().look(&order.target, order.action).await.unwrap();
    let mut canary = order.with(Operation::Canary);
    canary.params.insert("canary_share".into(), json!(0.3));
    done(&place.actuator().perform(&canary).await.unwrap());
    done(&place.actuator().perform(&order).await.unwrap());
    let whole = place.get("apps/v1", "deployments", "web").await;
    assert_eq!(at(&whole, IMAGE), "shop/web:1.8.2");
    assert_eq!(whole["spec"]["strategy"], before["spec"]["strategy"], "what held it is gone");
    assert_eq!(whole["spec"].get("minReadySeconds"), before["spec"].get("minReadySeconds"));
    done(&place.actuator().perform(&order.with(Operation::Undo)).await.unwrap());
    assert_eq!(plain(place.get("apps/v1", "deployments", "web").await), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn rollback_of_a_deployment() {
    let Some(place) = opened("rollback").await else { return };
    place.patch("apps/v1", "deployments", "web", container(json!({"image": "shop/web:1.8.2"}))).await;
    place.steady("deployments", "web").await;
    let order = place.order("deployment", "web", A::RollbackDeploy, json!({"version": "1.8.1"}));
    let image = place.actuator().look(&order.target, order.action).await.unwrap();
    assert_eq!((&image["version"], &image["previous_version"]), (&json!("1.8.2"), &json!("1.8.1")));
    whole_way(
        &place,
        DEPLOYMENT,
        order,
        |o| at(o, IMAGE) == "shop/web:1.8.1",
        Some(container(json!({"image": "x:2"}))),
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rollback_of_stateful_and_daemon_sets_by_revision() {
    let Some(place) = Place::open("revisions").await else { return };
    for (kind, plural) in [("StatefulSet", "statefulsets"), ("DaemonSet", "daemonsets")] {
        let name = kind.to_lowercase();
        place
            .workload(
                kind,
                &name,
                json!({"serviceName": name, "replicas": 2})
                    .as_object()
                    .map_or(json!({}), |o| if kind == "DaemonSet" { json!({}) } else { Value::Object(o.clone()) }),
            )
            .await;
        let mut change = container(json!({"name": name, "image": "shop/web:1.8.1"}));
        // The same image, another environment: only the revision tells them apart.
        change["spec"]["template"]["spec"]["containers"][0]["env"][0]["value"] = json!("-Xmx64m");
        place.patch("apps/v1", plural, &name, change).await;
        place.steady(plural, &name).await;
        let order = place.order(&name, &name, A::RollbackDeploy, json!({"version": "1.8.1#1", "revision": 1}));
        let image = place.actuator().look(&order.target, order.action).await.unwrap();
        assert_eq!((&image["version"], &image["previous_version"]), (&json!("1.8.1#2"), &json!("1.8.1#1")), "{kind}");
        let heap = "/spec/template/spec/containers/0/env/0/value";
        whole_way(&place, ("apps/v1", plural, &name), order, |o| at(o, heap) == "-Xms32m -Xmx96m", None).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_that_cannot_be_pulled_is_set_back() {
    let Some(place) = opened("image").await else { return };
    place.patch("apps/v1", "deployments", "web", container(json!({"image": "shop/web:missing"}))).await;
    let order = place.order("deployment", "web", A::SetImage, json!({"image": "shop/web:1.8.1"}));
    place
        .until("the new revision is there", async || {
            let image = place.actuator().look(&order.target, order.action).await.unwrap();
            image.get("previous_image") == Some(&json!("shop/web:1.8.1")) && image["image"] == "shop/web:missing"
        })
        .await;
    let mut order = order;
    let actuator = place.actuator();
    order.before = actuator.look(&order.target, order.action).await.unwrap();
    let before = plain(place.get("apps/v1", "deployments", "web").await);
    let healed = actuator.perform(&order).await.unwrap();
    done(&healed);
    assert!(healed.detail.contains("3 of 3 pods are available"), "{}", healed.detail);
    // Back to what does not start: the fields are as they were, and the answer says that it does not come up.
    let mut undo = order.with(Operation::Undo);
    undo.deadline = crate::support::now() + std::time::Duration::from_secs(6);
    let undone = actuator.perform(&undo).await.unwrap();
    done(&undone);
    assert!(undone.detail.contains("not through"), "{}", undone.detail);
    assert_eq!(plain(place.get("apps/v1", "deployments", "web").await), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_that_does_not_come_up_has_failed_and_is_put_back() {
    let Some(place) = opened("fails").await else { return };
    let before = plain(place.get("apps/v1", "deployments", "web").await);
    let actuator = place.actuator();
    let mut order = place.order("deployment", "web", A::SetImage, json!({"image": "shop/web:missing"}));
    order.deadline = crate::support::now() + std::time::Duration::from_secs(8);
    order.before = actuator.look(&order.target, order.action).await.unwrap();
    let answer = actuator.perform(&order).await.unwrap();
    assert_eq!(answer.outcome, ActionOutcome::Failed, "{}", answer.detail);
    done(&actuator.perform(&crate::support::later(&order.with(Operation::Undo))).await.unwrap());
    assert_eq!(plain(place.get("apps/v1", "deployments", "web").await), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn pause_and_resume() {
    let Some(place) = opened("pause").await else { return };
    let order = place.order("deployment", "web", A::PauseRollout, json!({}));
    let foreign = Some(json!({"spec": {"paused": true}}));
    whole_way(&place, DEPLOYMENT, order, |o| o["spec"]["paused"] == true, foreign).await;
    let order = place.order("deployment", "web", A::ResumeRollout, json!({}));
    whole_way(&place, DEPLOYMENT, order, |o| o["spec"].get("paused").is_none(), None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_failing_pods_are_replaced() {
    let Some(place) = opened("failing").await else { return };
    let pods = place.get("v1", "pods", "").await["items"].as_array().unwrap().clone();
    let name = pods[0]["metadata"]["name"].as_str().unwrap().to_owned();
    let ready = json!({"status": {"conditions": [{"type": "Ready", "status": "False", "lastTransitionTime": "2026-01-01T00:00:00Z"}]}});
    place.patch("v1", "pods", &format!("{name}/status"), ready).await;
    let actuator = place.actuator();
    let mut order =
        place.order("deployment", "web", A::RestartPods, json!({"only": "failing", "max_unavailable": 0.33}));
    order.before = actuator.look(&order.target, order.action).await.unwrap();
    if order.before["failing_pods"].as_array().unwrap().is_empty() {
        // The stand-in for a kubelet has put it right already: nothing to replace is what the actuator must say.
        assert!(actuator.perform(&order).await.unwrap_err().to_string().contains("none failed"));
        return;
    }
    done(&actuator.perform(&order.with(Operation::DryRun)).await.unwrap());
    done(&actuator.perform(&order).await.unwrap());
    assert!(place.get("v1", "pods", &name).await.is_null());
    assert_eq!(place.actuator().perform(&order.observation()).await.unwrap().outcome, ActionOutcome::FoundDone);
    for pod in &pods[1..] {
        let still = place.get("v1", "pods", pod["metadata"]["name"].as_str().unwrap()).await;
        assert_eq!(still["metadata"]["uid"], pod["metadata"]["uid"], "the others were left alone");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_somebody_else_changed_since_is_not_undone() {
    let Some(place) = opened("since").await else { return };
    let actuator = place.actuator();
    let mut order = place.order("deployment", "web", A::ScaleDeployment, json!({"replicas": 5}));
    order.before = actuator.look(&order.target, order.action).await.unwrap();
    done(&actuator.perform(&order).await.unwrap());
    // Something that the order did not touch is no reason.
    place.patch("apps/v1", "deployments", "web", json!({"metadata": {"labels": {"team": "shop"}}})).await;
    place.patch("apps/v1", "deployments", "web", json!({"spec": {"replicas": 7}})).await;
    let refused = place.actuator().perform(&order.with(Operation::Undo)).await.unwrap_err();
    assert!(refused.to_string().contains("not what was left there"), "{refused}");
    place.patch("apps/v1", "deployments", "web", json!({"spec": {"replicas": 5}})).await;
    done(&place.actuator().perform(&order.with(Operation::Undo)).await.unwrap());
    let after = place.get("apps/v1", "deployments", "web").await;
    assert_eq!((&after["spec"]["replicas"], &after["metadata"]["labels"]["team"]), (&json!(3), &json!("shop")));
}
