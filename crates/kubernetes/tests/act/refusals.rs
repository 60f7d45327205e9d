//! What the actuator refuses by itself, what it does without rights, and what the API server refuses of the chart's account.

use crate::support::{CLUSTER, Place, client_of, done, plain, send, watched};
use nightshift_act::conformance::Order as _;
use nightshift_act::{ActError, Actuator as _, KubernetesActuatorConfig};
use nightshift_kubernetes::act::build;
use nightshift_model::{ActionType as A, EntityId, ManualClock, Operation};
use serde_json::{Value, json};
use std::process::Command;
use std::sync::Arc;

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_written_where_it_was_not_told_to() {
    let Some(place) = Place::open("allow").await else { return };
    place.workload("Deployment", "web", json!({})).await;
    let before = plain(place.get("apps/v1", "deployments", "web").await);
    let mut order = place.order("deployment", "web", A::ScaleDeployment, json!({"replicas": 5}));
    for (namespaces, why) in [(vec![], "only looks"), (vec!["elsewhere".to_owned()], "is not in `namespaces`")] {
        let config = KubernetesActuatorConfig {
            namespaces,
            nodes: false,
            helm_rollback: false,
            delete_stuck_pods: false,
            ..place.config()
        };
        let actuator = place.actuator_with(config);
        order.before = actuator.look(&order.target, order.action).await.unwrap();
        let tried = actuator.perform(&order.with(Operation::DryRun)).await.unwrap();
        assert!(tried.detail.contains("dry_run: local"), "{}", tried.detail);
        for operation in [Operation::Apply, Operation::Canary, Operation::Undo] {
            let sent = place.wire.taken.lock().len();
            match actuator.perform(&order.with(operation)).await {
                Err(ActError::Refused(text)) => {
                    assert!(operation != Operation::Apply || text.contains(why), "{operation}: {text}")
                }
                // There is nothing to take back.
                Ok(answer) => assert_eq!(operation, Operation::Undo, "{}", answer.detail),
                other => panic!("{operation}: {other:?}"),
            }
            assert_eq!(place.wire.taken.lock().len(), sent, "nothing was sent");
        }
    }
    assert_eq!(plain(place.get("apps/v1", "deployments", "web").await), before);
    let actuator = place.actuator();
    for (id, action) in [
        (EntityId::new("other-cluster", "deployment", &place.namespace, "web"), A::ScaleDeployment),
        (EntityId::new(CLUSTER, "namespace", "", &place.namespace), A::DeletePod),
        (EntityId::new(CLUSTER, "deployment", &place.namespace, "web"), A::DrainNode),
        (EntityId::new(CLUSTER, "deployment", &place.namespace, "web"), A::ManualReview),
    ] {
        assert!(!actuator.handles(action, &id), "{action} on {id}");
        assert!(matches!(actuator.look(&id, action).await, Err(ActError::Refused(_))));
    }
    for name in ["../secrets/x", "web?x=y", ".."] {
        let id = EntityId::new(CLUSTER, "deployment", &place.namespace, name);
        assert!(matches!(actuator.look(&id, A::ScaleDeployment).await, Err(ActError::Refused(_))), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_local_dry_run_knows_the_schema() {
    let Some(place) = Place::open("schema").await else { return };
    place.workload("Deployment", "web", json!({})).await;
    let actuator =
        place.actuator_with(KubernetesActuatorConfig { cluster: CLUSTER.into(), look_secs: 20, ..Default::default() });
    for (action, params) in [
        (A::PatchResources, json!({"memory_limit_mib": 256})),
        (A::RestartPods, json!({})),
        (A::PauseRollout, json!({})),
        (A::SetImage, json!({"image": "shop/web:2"})),
    ] {
        let mut order = place.order("deployment", "web", action, params);
        order.before = actuator.look(&order.target, action).await.unwrap();
        let tried = actuator.perform(&order.with(Operation::DryRun)).await.unwrap();
        done(&tried);
        assert!(tried.detail.contains("dry_run: local (") && tried.detail.contains("only looks"), "{}", tried.detail);
    }
    assert!(place.wire.taken.lock().is_empty());
}

/// Rights of an account, as the chart gives them to the namespace.
async fn chart_rights(place: &Place) -> Option<String> {
    let (Ok(helm), Ok(kube)) = (std::env::var("NIGHTSHIFT_TEST_HELM"), std::env::var("NIGHTSHIFT_TEST_KUBE")) else {
        eprintln!("SKIPPED: NIGHTSHIFT_TEST_HELM and NIGHTSHIFT_TEST_KUBE are not set; run: testenv/up kubernetes");
        return None;
    };
    let admin = std::env::var("NIGHTSHIFT_TEST_KUBECONFIG").unwrap();
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
    let root = std::env::var("NIGHTSHIFT_TEST_ROOT").unwrap_or_else(|_| root.to_owned());
    let made = Command::new(&helm)
        .args(["template", "nightshift"])
        .arg(format!("{root}/deploy/helm/nightshift"))
        .args([
            "--namespace",
            &place.namespace,
            "--set",
            &format!("act.enabled=true,act.namespaces={{{}}},act.nodes=true", place.namespace),
        ])
        .args(["--set", &format!("fullnameOverride={}", place.namespace)])
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    // Only its accounts and rights: nothing of it runs here.
    let text = String::from_utf8(made.stdout).unwrap();
    let wanted = ["ServiceAccount", "Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding"];
    let rights: Vec<&str> = text
        .split("\n---")
        .filter(|d| d.lines().any(|l| l.strip_prefix("kind: ").is_some_and(|k| wanted.contains(&k.trim()))))
        .collect();
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), rights.join("\n---\n")).unwrap();
    let applied = Command::new(&kube)
        .args(["kubectl", "--kubeconfig", &admin, "--namespace", &place.namespace, "apply", "-f"])
        .arg(file.path())
        .output()
        .unwrap();
    assert!(applied.status.success(), "{}", String::from_utf8_lossy(&applied.stderr));
    let accounts = place.get("v1", "serviceaccounts", "").await;
    let account = accounts["items"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|a| a["metadata"]["name"].as_str())
        .find(|n| *n != "default")
        .unwrap()
        .to_owned();
    let config = Command::new(format!("{root}/testenv/kubernetes/kubeconfig-for"))
        .args([&place.namespace, &account])
        .output()
        .unwrap();
    assert!(config.status.success(), "{}", String::from_utf8_lossy(&config.stderr));
    Some(String::from_utf8(config.stdout).unwrap().trim().to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn with_the_charts_rights_it_acts_and_the_server_refuses_everything_else() {
    let Some(place) = Place::open("rights").await else { return };
    let Some(other) = Place::open("others").await else { return };
    place.workload("Deployment", "web", json!({})).await;
    other.workload("Deployment", "web", json!({})).await;
    let Some(kubeconfig) = chart_rights(&place).await else { return };
    let account = client_of(&kubeconfig).await;
    let client = watched(account.clone(), place.wire.clone());
    let config = KubernetesActuatorConfig { helm_rollback: false, delete_stuck_pods: false, ..place.config() };
    let actuator = build(&config, client.clone(), Arc::new(ManualClock::at(crate::support::now()))).unwrap();
    for (action, params) in [
        (A::ScaleDeployment, json!({"replicas": 4})),
        (A::PatchResources, json!({"memory_limit_mib": 256})),
        (A::RestartPods, json!({})),
    ] {
        let mut order = place.order("deployment", "web", action, params);
        order.before = actuator.look(&order.target, action).await.unwrap();
        let tried = actuator.perform(&order.with(Operation::DryRun)).await.unwrap();
        assert!(tried.detail.contains("dry_run: server"), "{action}: {}", tried.detail);
        done(&actuator.perform(&order).await.unwrap());
        done(&actuator.perform(&order.with(Operation::Undo)).await.unwrap());
    }
    // Told that it may write elsewhere, it has no right to: tried locally, refused for good.
    let wide = KubernetesActuatorConfig { namespaces: vec![other.namespace.clone()], ..config };
    let wide = build(&wide, client, Arc::new(ManualClock::at(crate::support::now()))).unwrap();
    let mut order = other.order("deployment", "web", A::ScaleDeployment, json!({"replicas": 4}));
    order.before = wide.look(&order.target, order.action).await.unwrap();
    let tried = wide.perform(&order.with(Operation::DryRun)).await.unwrap();
    assert!(tried.detail.contains("dry_run: local (no right"), "{}", tried.detail);
    assert!(matches!(wide.perform(&order).await, Err(ActError::Refused(_))));

    let pod = place.get("v1", "pods", "").await["items"][0]["metadata"]["name"].as_str().unwrap().to_owned();
    let (own, theirs) = (&place.namespace, &other.namespace);
    let map = |ns: &str| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x", "namespace": ns}});
    for (method, path, body) in [
        ("POST", format!("/api/v1/namespaces/{own}/pods/{pod}/exec?command=id&stdout=true"), Value::Null),
        ("GET", format!("/api/v1/namespaces/{own}/pods/{pod}/exec?command=id&stdout=true"), Value::Null),
        ("POST", format!("/api/v1/namespaces/{own}/pods/{pod}/attach?stdout=true"), Value::Null),
        ("POST", format!("/api/v1/namespaces/{own}/pods/{pod}/portforward"), Value::Null),
        ("DELETE", format!("/api/v1/namespaces/{own}"), Value::Null),
        ("DELETE", format!("/api/v1/namespaces/{theirs}"), Value::Null),
        (
            "POST",
            "/api/v1/namespaces".to_owned(),
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "x"}}),
        ),
        ("GET", format!("/api/v1/namespaces/{own}/secrets"), Value::Null),
        ("GET", "/api/v1/secrets".to_owned(), Value::Null),
        ("DELETE", format!("/api/v1/namespaces/{own}/pods/{pod}"), Value::Null),
        ("DELETE", format!("/apis/apps/v1/namespaces/{own}/deployments/web"), Value::Null),
        ("POST", format!("/api/v1/namespaces/{own}/configmaps"), map(own)),
        ("PATCH", format!("/apis/apps/v1/namespaces/{theirs}/deployments/web"), json!({"spec": {"replicas": 1}})),
        ("PATCH", format!("/api/v1/namespaces/{theirs}/configmaps/kube-root-ca.crt"), json!({"data": {"x": "y"}})),
        (
            "POST",
            format!("/api/v1/namespaces/{theirs}/pods/x/eviction"),
            json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "x", "namespace": theirs}}),
        ),
        (
            "POST",
            format!("/apis/batch/v1/namespaces/{theirs}/jobs"),
            json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "x"}}),
        ),
        ("DELETE", "/api/v1/nodes/node-a".to_owned(), Value::Null),
        (
            "POST",
            format!("/apis/rbac.authorization.k8s.io/v1/namespaces/{own}/rolebindings"),
            json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
            "metadata": {"name": "x"}, "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "admin"}, "subjects": []}),
        ),
        (
            "POST",
            format!("/api/v1/namespaces/{own}/serviceaccounts/default/token"),
            json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}),
        ),
        ("GET", "/api/v1/nodes/node-a/proxy/metrics".to_owned(), Value::Null),
    ] {
        let refused = send(&account, method, &path, &body).await.expect_err(&path);
        assert!(refused.starts_with("403"), "{method} {path}: {refused}");
    }
    // The cluster role and binding are not in the namespace.
    for plural in ["clusterroles", "clusterrolebindings"] {
        let all =
            place.admin("GET", &format!("/apis/rbac.authorization.k8s.io/v1/{plural}"), &Value::Null).await.unwrap();
        for one in all["items"].as_array().unwrap() {
            let name = one["metadata"]["name"].as_str().unwrap();
            if name.contains(own.as_str()) {
                drop(
                    place
                        .admin("DELETE", &format!("/apis/rbac.authorization.k8s.io/v1/{plural}/{name}"), &Value::Null)
                        .await,
                );
            }
        }
    }
}
