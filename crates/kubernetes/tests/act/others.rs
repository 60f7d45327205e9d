//! Routes, flags, claims, jobs, exceptions, Argo CD, databases, Helm.

use crate::support::{Place, at, done, now, plain, whole_way};
use nightshift_act::Actuator as _;
use nightshift_act::conformance::Order as _;
use nightshift_model::{Action, ActionOutcome, ActionType as A, ManualClock, Operation};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

#[tokio::test(flavor = "multi_thread")]
async fn weights_of_a_route() {
    let Some(place) = Place::open("route").await else { return };
    let rules = |stable: i64, next: i64| {
        json!([{"backendRefs": [
        {"name": "stable", "port": 80, "weight": stable}, {"name": "next", "port": 80, "weight": next}]}])
    };
    let applied = json!({"spec": {"rules": rules(100, 0)}}).to_string();
    place
        .make(
            "httproutes",
            json!({"apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
        "metadata": {"name": "shop", "annotations": {"kubectl.kubernetes.io/last-applied-configuration": applied}},
        "spec": {"rules": rules(50, 50)}}),
        )
        .await;
    let order = place.order("httproute", "shop", A::AdjustRouting, json!({"weights": {"stable": 100, "next": 0}}));
    let image = place.actuator().look(&order.target, order.action).await.unwrap();
    for (fact, want) in
        [("weight.stable", 50), ("weight.next", 50), ("declared_weight.stable", 100), ("declared_weight.next", 0)]
    {
        assert_eq!(image[fact], want, "{fact}");
    }
    let fine = |o: &Value| {
        at(o, "/spec/rules/0/backendRefs/0/weight") == 100 && at(o, "/spec/rules/0/backendRefs/1/weight") == 0
    };
    let route = ("gateway.networking.k8s.io/v1", "httproutes", "shop");
    whole_way(&place, route, order, fine, Some(json!({"spec": {"rules": rules(10, 90)}}))).await;
    let order = place.order("service", "next", A::AdjustRouting, json!({"weights": {"stable": 0, "next": 0}}));
    assert!(place.actuator().perform(&order).await.unwrap_err().to_string().contains("nothing would be served"));
}

#[tokio::test(flavor = "multi_thread")]
async fn flags_of_a_config_map_and_of_a_flagd_file() {
    let Some(place) = Place::open("flags").await else { return };
    let file = "{\n  \"flags\": {\"fast\": {\"state\": \"ENABLED\", \"variants\": {\"on\": true, \"off\": false}, \"defaultVariant\": \"on\"}}\n}\n";
    place
        .make(
            "configmaps",
            json!({"apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": "flags", "labels": {"nightshift.dev/flags": "true"}},
        "data": {"checkout_v2": "on", "url": "http://x", "shop.flagd.json": file}}),
        )
        .await;
    place.workload("Deployment", "web", json!({})).await;
    place
        .patch(
            "apps/v1",
            "deployments",
            "web",
            json!({"spec": {"template": {"spec": {"volumes": [{"name": "f", "configMap": {"name": "flags"}}]}}}}),
        )
        .await;
    let map = ("v1", "configmaps", "flags");
    let order = place.order("service", "web", A::ToggleFeature, json!({"flag": "checkout_v2", "enabled": false}));
    let image = place.actuator().look(&order.target, order.action).await.unwrap();
    assert_eq!(
        (&image["flag.checkout_v2"], &image["flag.fast"], image.get("flag.url")),
        (&json!(true), &json!(true), None)
    );
    whole_way(&place, map, order, |o| o["data"]["checkout_v2"] == "off" && o["data"]["shop.flagd.json"] == file, None)
        .await;
    let order = place.order("configmap", "flags", A::ToggleFeature, json!({"flag": "fast", "enabled": false}));
    let off = |o: &Value| {
        let file: Value = serde_json::from_str(o["data"]["shop.flagd.json"].as_str().unwrap()).unwrap();
        file["flags"]["fast"]["defaultVariant"] == "off" && o["data"]["checkout_v2"] == "on"
    };
    whole_way(&place, map, order, off, Some(json!({"data": {"shop.flagd.json": file.replace("ENABLED", "DISABLED")}})))
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_grows_and_never_shrinks() {
    let Some(place) = Place::open("claim").await else { return };
    let class = json!({"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": place.namespace},
        "provisioner": "nightshift.test/none", "allowVolumeExpansion": true});
    place.admin("POST", "/apis/storage.k8s.io/v1/storageclasses", &class).await.unwrap();
    let volume = json!({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": place.namespace}, "spec": {
        "capacity": {"storage": "10Gi"}, "accessModes": ["ReadWriteOnce"], "storageClassName": place.namespace, "hostPath": {"path": "/tmp/none"},
        "claimRef": {"namespace": place.namespace, "name": "data"}}});
    place.admin("POST", "/api/v1/persistentvolumes", &volume).await.unwrap();
    place.make("persistentvolumeclaims", json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "data"}, "spec": {
        "accessModes": ["ReadWriteOnce"], "storageClassName": place.namespace, "resources": {"requests": {"storage": "10Gi"}}}})).await;
    place
        .until("the claim is bound", async || {
            at(&place.get("v1", "persistentvolumeclaims", "data").await, "/status/phase") == "Bound"
        })
        .await;
    let actuator = place.actuator();
    let mut order = place.order("persistentvolumeclaim", "data", A::PatchResources, json!({"disk_gib": 15}));
    order.before = actuator.look(&order.target, order.action).await.unwrap();
    assert_eq!((&order.before["disk_gib"], &order.before["expandable"]), (&json!(10), &json!(true)));
    let size =
        async || at(&place.get("v1", "persistentvolumeclaims", "data").await, "/spec/resources/requests/storage");
    done(&actuator.perform(&order.with(Operation::DryRun)).await.unwrap());
    assert_eq!(size().await, "10Gi");
    done(&actuator.perform(&order).await.unwrap());
    done(&place.actuator().perform(&order).await.unwrap());
    assert_eq!((size().await, place.wire.effects(&order.key)), (json!("15Gi"), 1));
    // What cannot be taken back says so, and stays.
    assert!(actuator.perform(&order.with(Operation::Undo)).await.is_err());
    assert_eq!(size().await, "15Gi");
    let mut less = place.order("persistentvolumeclaim", "data", A::PatchResources, json!({"disk_gib": 12}));
    less.before = actuator.look(&less.target, less.action).await.unwrap();
    assert!(actuator.perform(&less).await.unwrap_err().to_string().contains("never shrinks"));
    for path in [
        format!("/api/v1/persistentvolumes/{}", place.namespace),
        format!("/apis/storage.k8s.io/v1/storageclasses/{}", place.namespace),
    ] {
        drop(place.admin("DELETE", &path, &Value::Null).await);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_from_a_template() {
    let Some(place) = Place::open("job").await else { return };
    let cron = |name: &str, runnable: bool| {
        json!({"apiVersion": "batch/v1", "kind": "CronJob",
        "metadata": {"name": name, "annotations": {"nightshift.dev/runnable": runnable.to_string()}},
        "spec": {"suspend": true, "schedule": "0 0 1 1 *", "jobTemplate": {"metadata": {"labels": {"app": name}}, "spec": {"backoffLimit": 0,
            "template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "shop/clean:1"}]}}}}}})
    };
    place.make("cronjobs", cron("clean-disk", true)).await;
    place.make("cronjobs", cron("payroll", false)).await;
    let actuator = place.actuator();
    let mut order = place.order("service", "web", A::RunJob, json!({"job": "clean-disk"}));
    order.before = actuator.look(&order.target, order.action).await.unwrap();
    assert_eq!(order.before["jobs"], "clean-disk");
    let jobs = async || place.get("batch/v1", "jobs", "").await["items"].as_array().unwrap().len();
    let tried = actuator.perform(&order.with(Operation::DryRun)).await.unwrap();
    assert!(tried.detail.contains("dry_run: server"), "{}", tried.detail);
    assert_eq!(jobs().await, 0);
    let answer = actuator.perform(&order).await.unwrap();
    done(&answer);
    assert!(answer.detail.contains("completed"), "{}", answer.detail);
    done(&place.actuator().perform(&order).await.unwrap());
    assert_eq!((jobs().await, place.wire.effects(&order.key)), (1, 1));
    assert_eq!(place.actuator().perform(&order.observation()).await.unwrap().outcome, ActionOutcome::FoundDone);
    done(&place.actuator().perform(&order.with(Operation::Undo)).await.unwrap());
    place.until("the job is gone", async || jobs().await == 0).await;
    let order = place.order("service", "web", A::RunJob, json!({"job": "payroll"}));
    assert!(actuator.perform(&order).await.unwrap_err().to_string().contains("nightshift.dev/runnable"));
    assert_eq!(jobs().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exception_for_one_thing_that_ends() {
    let Some(place) = Place::open("policy").await else { return };
    place.workload("Deployment", "web", json!({})).await;
    place.make("policyreports", json!({"apiVersion": "wgpolicyk8s.io/v1alpha2", "kind": "PolicyReport", "metadata": {"name": "web"},
        "scope": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web", "namespace": place.namespace},
        "results": [{"policy": "no-latest-tag", "rule": "check", "result": "fail", "source": "kyverno"}, {"policy": "other", "rule": "x", "result": "pass"}]})).await;
    let actuator = place.actuator();
    let mut order =
        place.order("deployment", "web", A::PolicyException, json!({"policy": "no-latest-tag", "expires_secs": 3600}));
    order.before = actuator.look(&order.target, order.action).await.unwrap();
    assert_eq!(order.before["policy"], "no-latest-tag");
    let api = if place.get("kyverno.io/v2", "policyexceptions", "").await.is_null() {
        "kyverno.io/v2beta1"
    } else {
        "kyverno.io/v2"
    };
    let all = async || place.get(api, "policyexceptions", "").await["items"].as_array().unwrap().clone();
    done(&actuator.perform(&order.with(Operation::DryRun)).await.unwrap());
    assert!(all().await.is_empty());
    done(&actuator.perform(&order).await.unwrap());
    done(&place.actuator().perform(&order).await.unwrap());
    let made = all().await;
    assert_eq!((made.len(), place.wire.effects(&order.key)), (1, 1));
    assert_eq!(
        made[0]["spec"]["exceptions"],
        json!([{"policyName": "no-latest-tag", "ruleNames": ["autogen-check", "check"]}])
    );
    let scope = &made[0]["spec"]["match"]["any"][0]["resources"];
    assert_eq!((&scope["namespaces"], &scope["names"]), (&json!([place.namespace]), &json!(["web", "web-*"])));
    assert_eq!(made[0]["metadata"]["labels"]["cleanup.kyverno.io/ttl"], "3600s");
    // Its time: not before, and then without anybody asking.
    assert_eq!(actuator.end_expired().await.unwrap(), Vec::<String>::new());
    let late = Arc::new(ManualClock::at(now() + Duration::from_secs(3_700)));
    let later = nightshift_kubernetes::act::build(&place.config(), place.client.clone(), late).unwrap();
    assert_eq!(later.end_expired().await.unwrap().len(), 1);
    assert!(all().await.is_empty());
    // Taken back by an undo.
    let mut order =
        place.order("deployment", "web", A::PolicyException, json!({"policy": "no-latest-tag", "expires_secs": 3600}));
    order.before = actuator.look(&order.target, order.action).await.unwrap();
    done(&actuator.perform(&order).await.unwrap());
    done(&place.actuator().perform(&order.with(Operation::Undo)).await.unwrap());
    assert!(all().await.is_empty());
    for (policy, why) in [("*", "name one policy"), ("other", "no report or event")] {
        let order =
            place.order("deployment", "web", A::PolicyException, json!({"policy": policy, "expires_secs": 3600}));
        assert!(actuator.perform(&order).await.unwrap_err().to_string().contains(why), "{policy}");
    }
}

fn application(status: &str, revision: &str) -> Value {
    json!({
        "sync": {"status": status, "revision": "c3"}, "health": {"status": "Healthy"},
        "history": [{"id": 0, "revision": "a1", "source": {"repoURL": "https://git.example/shop", "path": "shop"}, "deployedAt": "2026-01-01T00:00:00Z"},
            {"id": 1, "revision": revision, "source": {"repoURL": "https://git.example/shop", "path": "shop"}, "deployedAt": "2026-01-02T00:00:00Z"}],
    })
}

async fn argo(name: &str) -> Option<Place> {
    let place = Place::open(name).await?;
    place.make("applications", json!({"apiVersion": "argoproj.io/v1alpha1", "kind": "Application", "metadata": {"name": "shop"},
        "spec": {"project": "default", "source": {"repoURL": "https://git.example/shop", "path": "shop"}, "destination": {"namespace": "shop", "server": "https://kubernetes.default.svc"}}})).await;
    let status = json!({"status": application("OutOfSync", "b2")});
    let own = place.path("argoproj.io/v1alpha1", "applications", "shop");
    if place.admin("PATCH", &format!("{own}/status"), &status).await.is_err()
        || at(&place.get("argoproj.io/v1alpha1", "applications", "shop").await, "/status/sync").is_null()
    {
        place.admin("PATCH", &own, &status).await.unwrap();
    }
    Some(place)
}

#[tokio::test(flavor = "multi_thread")]
async fn argo_syncs_and_goes_back() {
    let Some(place) = argo("argo").await else { return };
    let actuator = place.actuator();
    let read = async || place.get("argoproj.io/v1alpha1", "applications", "shop").await;
    let before = plain(read().await);
    let mut order = place.order("application", "shop", A::GitopsSync, json!({"revision": "c3"}));
    order.before = actuator.look(&order.target, order.action).await.unwrap();
    for (fact, want) in
        [("sync_status", "OutOfSync"), ("revision", "b2"), ("git_revision", "c3"), ("previous_revision", "a1")]
    {
        assert_eq!(order.before[fact], want, "{fact}");
    }
    done(&actuator.perform(&order.with(Operation::DryRun)).await.unwrap());
    assert_eq!(plain(read().await), before);
    done(&actuator.perform(&order).await.unwrap());
    done(&place.actuator().perform(&order).await.unwrap());
    assert_eq!(place.wire.effects(&order.key), 1);
    let state = at(&read().await, "/status/operationState");
    assert_eq!(
        (&state["phase"], &state["operation"]["sync"]["revision"]),
        (&json!("Succeeded"), &json!("c3")),
        "{state}"
    );
    assert_eq!(place.actuator().perform(&order.observation()).await.unwrap().outcome, ActionOutcome::FoundDone);
    let undone = place.actuator().perform(&order.with(Operation::Undo)).await.unwrap();
    done(&undone);
    assert_eq!(at(&read().await, "/status/operationState/operation/sync/revision"), "b2", "{}", undone.detail);
}

#[tokio::test(flavor = "multi_thread")]
async fn argo_goes_back_to_what_was_synced_before() {
    let Some(place) = argo("argoback").await else { return };
    let actuator = place.actuator();
    let mut order = place.order("application", "shop", A::GitopsRollback, json!({"revision": "a1"}));
    order.before = actuator.look(&order.target, order.action).await.unwrap();
    done(&actuator.perform(&order).await.unwrap());
    let state = at(&place.get("argoproj.io/v1alpha1", "applications", "shop").await, "/status/operationState");
    assert_eq!(
        (&state["operation"]["sync"]["revision"], &state["operation"]["sync"]["source"]["path"]),
        (&json!("a1"), &json!("shop"))
    );
    place
        .patch("argoproj.io/v1alpha1", "applications", "shop", json!({"spec": {"syncPolicy": {"automated": {}}}}))
        .await;
    let mut again = place.order("application", "shop", A::GitopsRollback, json!({"revision": "a1"}));
    again.before = actuator.look(&again.target, again.action).await.unwrap();
    assert!(actuator.perform(&again).await.unwrap_err().to_string().contains("syncs by itself"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_fails_over_by_its_operator() {
    let Some(place) = Place::open("cnpg").await else { return };
    place.make("clusters", json!({"apiVersion": "postgresql.cnpg.io/v1", "kind": "Cluster", "metadata": {"name": "db"}, "spec": {"instances": 3}})).await;
    let own = place.path("postgresql.cnpg.io/v1", "clusters", "db");
    let status = json!({"status": {"currentPrimary": "db-1", "targetPrimary": "db-1", "phase": "Cluster in healthy state", "instancesStatus": {"healthy": ["db-1", "db-2", "db-3"]}}});
    place.admin("PATCH", &format!("{own}/status"), &status).await.unwrap();
    let actuator = place.actuator();
    let mut order = place.order("database", "db", A::FailoverDb, json!({"to": "db-2"}));
    order.before = actuator.look(&order.target, order.action).await.unwrap();
    assert_eq!((&order.before["primary"], &order.before["replica"]), (&json!("db-1"), &json!("db-2")));
    done(&actuator.perform(&order.with(Operation::DryRun)).await.unwrap());
    let wanted = async || at(&place.get("postgresql.cnpg.io/v1", "clusters", "db").await, "/status/targetPrimary");
    assert_eq!(wanted().await, "db-1");
    done(&actuator.perform(&order).await.unwrap());
    done(&place.actuator().perform(&order).await.unwrap());
    assert_eq!(wanted().await, "db-2");
    assert_eq!(place.actuator().perform(&order.observation()).await.unwrap().outcome, ActionOutcome::FoundDone);
    let mut bad = place.order("database", "db", A::FailoverDb, json!({"to": "db-9"}));
    bad.before = actuator.look(&bad.target, bad.action).await.unwrap();
    assert!(actuator.perform(&bad).await.unwrap_err().to_string().contains("db-9"));
    let stale = Action { step: 4, ..order.clone() }.with(Operation::Apply);
    let stale = Action { params: [("to".to_owned(), json!("db-3"))].into(), ..stale };
    assert!(place.actuator().perform(&stale).await.unwrap_err().to_string().contains("the world changed"));
}

#[tokio::test(flavor = "multi_thread")]
async fn patroni_is_asked_by_its_config_map() {
    let Some(place) = Place::open("patroni").await else { return };
    let map = |name: &str, notes: Value| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "annotations": notes}});
    place.make("configmaps", map("db-leader", json!({"leader": "db-0"}))).await;
    place.make("configmaps", map("db-failover", json!({}))).await;
    for (name, lag) in [("db-0", 50), ("db-1", 40), ("db-2", 45)] {
        let told = json!({"state": "running", "xlog_location": lag}).to_string();
        place.make("pods", json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"cluster-name": "db"}, "annotations": {"status": told}},
            "spec": {"containers": [{"name": "c", "image": "x:1"}]}})).await;
    }
    let actuator = place.actuator();
    let mut order = place.order("database", "db", A::FailoverDb, json!({"to": "db-2"}));
    order.before = actuator.look(&order.target, order.action).await.unwrap();
    assert_eq!(order.before["replica"], "db-2", "the one that has received most");
    let before = plain(place.get("v1", "configmaps", "db-failover").await);
    // Nobody plays Patroni here: it is asked, and does not answer in time.
    order.deadline = now() + Duration::from_secs(5);
    let answer = actuator.perform(&order).await.unwrap();
    assert_eq!(answer.outcome, ActionOutcome::Failed, "{}", answer.detail);
    let asked = place.get("v1", "configmaps", "db-failover").await;
    assert_eq!(asked["metadata"]["annotations"], json!({"leader": "db-0", "member": "db-2"}));
    done(&place.actuator().perform(&crate::support::later(&order.with(Operation::Undo))).await.unwrap());
    assert_eq!(plain(place.get("v1", "configmaps", "db-failover").await), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_helm_release_goes_back_and_forth() {
    let Some(place) = Place::open("helm").await else { return };
    let Ok(helm) = std::env::var("NIGHTSHIFT_TEST_HELM") else {
        eprintln!("SKIPPED: NIGHTSHIFT_TEST_HELM is not set; run: testenv/up kubernetes");
        return;
    };
    let kubeconfig = std::env::var("NIGHTSHIFT_TEST_KUBECONFIG").unwrap();
    let chart = tempfile::tempdir().unwrap();
    std::fs::create_dir(chart.path().join("templates")).unwrap();
    std::fs::write(chart.path().join("Chart.yaml"), "apiVersion: v2\nname: shop\nversion: 1.0.0\n").unwrap();
    let manifest = "apiVersion: apps/v1\nkind: Deployment\nmetadata:\n  name: web\nspec:\n  replicas: {{ .Values.replicas }}\n  selector:\n    matchLabels: {app: web}\n  template:\n    metadata:\n      labels: {app: web}\n    spec:\n      containers:\n        - name: web\n          image: shop/web:{{ .Values.tag }}\n---\napiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: settings\ndata:\n  level: {{ .Values.level }}\n";
    std::fs::write(chart.path().join("templates/all.yaml"), manifest).unwrap();
    for (verb, tag, level) in [("install", "v1", "info"), ("upgrade", "v2", "debug")] {
        let mut run = std::process::Command::new(&helm);
        run.args([verb, "shop"]).arg(chart.path()).args([
            "--namespace",
            &place.namespace,
            "--kubeconfig",
            &kubeconfig,
            "--set",
        ]);
        let out = run.arg(format!("tag={tag},level={level},replicas=2")).output().unwrap();
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    }
    place.steady("deployments", "web").await;
    // By hand, and in no manifest: it stays.
    place.patch("apps/v1", "deployments", "web", json!({"metadata": {"labels": {"team": "shop"}}})).await;
    let both = async || {
        (
            plain(place.get("apps/v1", "deployments", "web").await),
            plain(place.get("v1", "configmaps", "settings").await),
        )
    };
    let before = both().await;
    let actuator = place.actuator();
    let mut order = place.order("deployment", "web", A::HelmRollback, json!({"revision": 1}));
    order.before = actuator.look(&order.target, order.action).await.unwrap();
    assert_eq!((&order.before["release_revision"], &order.before["previous_release_revision"]), (&json!(2), &json!(1)));
    assert!(!format!("{:?}", order.before).contains("manifest"));
    let tried = actuator.perform(&order.with(Operation::DryRun)).await.unwrap();
    assert!(tried.detail.contains("2 objects change") && tried.detail.contains("dry_run: server"), "{}", tried.detail);
    assert_eq!(both().await, before);
    done(&actuator.perform(&order).await.unwrap());
    done(&place.actuator().perform(&order).await.unwrap());
    let (web, settings) = both().await;
    assert_eq!(
        (&web["spec"]["template"]["spec"]["containers"][0]["image"], &settings["data"]["level"]),
        (&json!("shop/web:v1"), &json!("info"))
    );
    assert_eq!(web["metadata"]["labels"]["team"], "shop");
    // Helm itself reads what was recorded.
    let history = std::process::Command::new(&helm)
        .args(["history", "shop", "-o", "json", "--namespace", &place.namespace, "--kubeconfig", &kubeconfig])
        .output()
        .unwrap();
    let history: Value = serde_json::from_slice(&history.stdout).unwrap();
    let told: Vec<_> = history
        .as_array()
        .unwrap()
        .iter()
        .map(|r| (r["revision"].as_i64().unwrap(), r["status"].as_str().unwrap().to_owned()))
        .collect();
    assert_eq!(told, [(1, "superseded".into()), (2, "superseded".into()), (3, "deployed".into())]);
    assert_eq!(place.actuator().perform(&order.observation()).await.unwrap().outcome, ActionOutcome::FoundDone);
    done(&place.actuator().perform(&order.with(Operation::Undo)).await.unwrap());
    assert_eq!(both().await, before, "the objects are back exactly");
    let off = place.actuator_with(nightshift_act::KubernetesActuatorConfig { helm_rollback: false, ..place.config() });
    assert!(!off.handles(A::HelmRollback, &order.target));
}
