//! Scale: a cluster of 1,000 pods and 100 deployments (10,000 and 1,000 with `NIGHTSHIFT_LONG=1`) on a real API server.
//!
//! Prints what a scan and the source need there; asserts counts alone, as times are the machine's. `--nocapture` shows
//! the figures. Needs `NIGHTSHIFT_TEST_KUBE_SERVER` (`testenv/up kubernetes`); without, it says so and passes.
#![allow(clippy::unwrap_used, reason = "a test may panic; clippy does not see that helpers are of tests")]

mod see;

use futures::StreamExt as _;
use nightshift_cluster::{Options, scan};
use nightshift_health::Health;
use nightshift_kubernetes::scan::{LookOptions, look};
use nightshift_model::Phase;
use see::running::{Running, crash, until};
use see::{Api, now};
use serde_json::{Value, json};
use std::time::Duration;
use tokio::time::Instant;

/// Pods of a deployment.
const REPLICAS: usize = 10;
/// Deployments of a namespace.
const PER_NAMESPACE: usize = 50;
/// Pods of a node.
const PER_NODE: usize = 100;
/// Writes at a time.
const WRITES: usize = 16;

/// A figure of this process in `/proc/self/status`, MiB.
fn memory(figure: &str) -> f64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = text.lines().find_map(|l| l.strip_prefix(figure)?.strip_prefix(':')).unwrap();
    line.trim().trim_end_matches("kB").trim().parse::<f64>().unwrap() / 1024.0
}

/// Begins the highest mark of memory (`VmHWM`) anew.
fn forget_peak() {
    std::fs::write("/proc/self/clear_refs", "5").unwrap();
}

/// Processor seconds that this process has used; a tick is 10 ms.
fn processor() -> f64 {
    let text = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = text.rsplit(')').next().unwrap().split_whitespace().collect();
    (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) / 100.0
}

fn space(deployment: usize) -> String {
    format!("team-{}", deployment / PER_NAMESPACE)
}

fn node(i: usize) -> Value {
    json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": format!("n{i}")}, "status": {
        "capacity": {"cpu": "32", "memory": "128Gi", "pods": "110"}, "allocatable": {"cpu": "32", "memory": "128Gi", "pods": "110"},
        "nodeInfo": {"kubeletVersion": "v1.36.3", "architecture": "amd64", "operatingSystem": "linux", "bootID": "", "containerRuntimeVersion": "",
            "kernelVersion": "", "kubeProxyVersion": "", "machineID": "", "osImage": "", "systemUUID": ""},
        "conditions": [{"type": "Ready", "status": "True", "lastHeartbeatTime": now().to_rfc3339()}]}})
}

/// A deployment that is well, with its replica set and its pods.
fn deployment(i: usize) -> Vec<Value> {
    let (name, namespace) = (format!("app-{i}"), space(i));
    let set = format!("{name}-1");
    let owner = |kind: &str, name: &str| json!([{"apiVersion": "apps/v1", "kind": kind, "name": name, "uid": format!("UID_OF/{kind}/{name}"), "controller": true}]);
    let labels = json!({"app": name, "tier": "backend", "app.kubernetes.io/part-of": "shop"});
    let pod_spec = json!({"containers": [{"name": "app", "image": "registry.example/app:1.4.2",
        "env": [{"name": "MODE", "value": "production"}, {"name": "PORT", "value": "8080"}], "ports": [{"containerPort": 8080}],
        "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"memory": "256Mi"}}}]});
    let spec = json!({"replicas": REPLICAS, "selector": {"matchLabels": {"app": name}},
        "template": {"metadata": {"labels": labels}, "spec": pod_spec}});
    let n = REPLICAS;
    let mut objects = vec![
        json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name, "namespace": namespace}, "spec": spec,
            "status": {"observedGeneration": 1, "replicas": n, "updatedReplicas": n, "readyReplicas": n, "availableReplicas": n}}),
        json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": {"name": set, "namespace": namespace, "labels": labels,
            "ownerReferences": owner("Deployment", &name)}, "spec": spec,
            "status": {"observedGeneration": 1, "replicas": n, "readyReplicas": n, "availableReplicas": n}}),
    ];
    for r in 0..REPLICAS {
        let mut spec = pod_spec.clone();
        spec["nodeName"] = format!("n{}", (i * REPLICAS + r) / PER_NODE).into();
        objects.push(json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": format!("{set}-{r}"), "namespace": namespace,
            "labels": labels, "ownerReferences": owner("ReplicaSet", &set)}, "spec": spec, "status": {"phase": "Running",
            "conditions": [{"type": "PodScheduled", "status": "True"}, {"type": "Ready", "status": "True"}],
            "containerStatuses": [{"name": "app", "image": "registry.example/app:1.4.2", "imageID": "", "ready": true, "started": true,
                "restartCount": 0, "state": {"running": {"startedAt": now().to_rfc3339()}}, "lastState": {}}]}}));
    }
    objects
}

async fn fill(api: &Api, deployments: usize) {
    let nodes = (0..(deployments * REPLICAS).div_ceil(PER_NODE)).map(node).collect();
    assert_eq!(api.put_all("team-0", nodes).await.refused, Vec::<String>::new());
    for i in (PER_NAMESPACE..deployments).step_by(PER_NAMESPACE) {
        assert_eq!(api.put_all(&space(i), Vec::new()).await.refused, Vec::<String>::new());
    }
    let written =
        futures::stream::iter(0..deployments).map(|i| async move { api.put_all(&space(i), deployment(i)).await });
    let written: Vec<_> = written.buffer_unordered(WRITES).collect().await;
    assert_eq!(written.into_iter().flat_map(|p| p.refused).collect::<Vec<_>>(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_cluster_is_seen_whole_and_one_fault_on_it_is_told() {
    let Some(api) = Api::start("see-scale").await else { return };
    let long = std::env::var("NIGHTSHIFT_LONG").is_ok_and(|v| v == "1");
    let deployments = if long { 1_000 } else { 100 };
    let pods = deployments * REPLICAS;
    let began = Instant::now();
    fill(&api, deployments).await;
    println!("{pods} pods, {deployments} deployments: written in {:.1} s", began.elapsed().as_secs_f64());

    let before = memory("VmRSS");
    forget_peak();
    let (began, used) = (Instant::now(), processor());
    let sight = look(&api.server, &LookOptions::default()).await.unwrap();
    let looked = began.elapsed().as_secs_f64();
    let found = scan(&sight.world, &Options::default(), now());
    let (whole, used) = (began.elapsed().as_secs_f64(), processor() - used);
    println!(
        "scan: {whole:.2} s ({looked:.2} s to look), {used:.2} s of processor, {} objects; memory {before:.0} MiB before, {:.0} MiB peak",
        sight.objects,
        memory("VmHWM")
    );
    assert_eq!((sight.world.pods.len(), sight.world.deployments.len()), (pods, deployments));
    assert_eq!(found.iter().map(|f| format!("{} {}", f.object, f.fault)).collect::<Vec<_>>(), Vec::<String>::new());
    drop((sight, found));

    let before = memory("VmRSS");
    forget_peak();
    let began = Instant::now();
    let running = Running::start(&api.kubeconfig, "eu", false);
    until("it is well", || (running.test.health().status == Health::Healthy).then_some(())).await;
    println!("source: everything listed and looked at after {:.2} s", began.elapsed().as_secs_f64());
    // What the double of the sink remembers is not the source's.
    until("the topology is told", || (running.test.sink.recorded().topology.len() >= pods).then_some(())).await;
    drop(running.test.sink.take());

    tokio::time::sleep(Duration::from_secs(5)).await;
    let used = processor();
    tokio::time::sleep(Duration::from_secs(20)).await;
    let rest = (processor() - used) / 20.0 * 100.0;
    println!(
        "source at rest: {rest:.1} % of a core over 20 s; memory {before:.0} MiB before, {:.0} MiB now, {:.0} MiB peak",
        memory("VmRSS"),
        memory("VmHWM")
    );
    assert_eq!(running.alerts().len(), 0, "{:?}", running.alerts());

    let mut latencies = Vec::new();
    for i in [0, deployments / 2, deployments - 1] {
        let entity = format!("eu/deployment/{}/app-{i}", space(i));
        let path = format!("/api/v1/namespaces/{}/pods/app-{i}-1-0/status", space(i));
        let began = Instant::now();
        api.send("PATCH", &path, &json!({"status": crash(5)})).await.unwrap();
        let told = |r: &nightshift_collect::testkit::Recorded| {
            r.alerts.iter().any(|(_, a)| a.entity.id.as_str() == entity && a.phase == Phase::Open)
        };
        running.test.sink.wait_until(told).await;
        latencies.push(format!("{:.2} s", began.elapsed().as_secs_f64()));
        // The next comes while it rests.
        tokio::time::sleep(Duration::from_secs(3)).await;
    }
    println!("from a status that is written to the finding that is told: {}", latencies.join(", "));
    assert_eq!(running.alerts().len(), 3, "{:?}", running.alerts());
    running.end().await;
}
