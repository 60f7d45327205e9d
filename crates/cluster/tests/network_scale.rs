//! Many services over many pods: each is looked up by its labels, and only what is wrong is told.

use nightshift_cluster::{Options, Resource, Seen, World, scan};
use nightshift_model::{FaultClass, Timestamp};
use serde_json::json;

const SERVICES: usize = 200;
const PODS_OF_EACH: usize = 10;

fn put(world: &mut World, resource: Resource, object: &serde_json::Value) {
    let read = world.put_json(resource, object.to_string().as_bytes());
    assert!(read.is_ok(), "{read:?}");
}

/// Ready deployments, each with its pods and a service; all pods share two labels, and every `wrong`th service has a slip.
fn cluster(wrong: usize) -> World {
    let mut world = World::default();
    for resource in Resource::ALL {
        world.set_seen(*resource, Seen::Whole);
    }
    put(&mut world, Resource::Namespaces, &json!({"metadata": {"name": "shop"}, "status": {"phase": "Active"}}));
    for i in 0..SERVICES {
        let labels = json!({"app": format!("app-{i:04}"), "team": "shop", "stage": "live"});
        let spec = json!({"containers": [{"name": "app", "image": "app:1", "ports": [{"containerPort": 8080}]}]});
        let owner = |kind: &str, name: String| json!([{"kind": kind, "name": name, "controller": true}]);
        let template = json!({"metadata": {"labels": labels}, "spec": spec});
        let status = json!({"replicas": PODS_OF_EACH, "readyReplicas": PODS_OF_EACH, "availableReplicas": PODS_OF_EACH,
            "updatedReplicas": PODS_OF_EACH});
        let wanted = json!({"replicas": PODS_OF_EACH, "selector": {"matchLabels": labels}, "template": template});
        let meta = |name: String| json!({"name": name, "namespace": "shop", "labels": labels});
        let deployment = json!({"metadata": meta(format!("app-{i:04}")), "spec": wanted, "status": status});
        put(&mut world, Resource::Deployments, &deployment);
        let mut set = json!({"metadata": meta(format!("app-{i:04}-1")), "spec": wanted, "status": status});
        set["metadata"]["ownerReferences"] = owner("Deployment", format!("app-{i:04}"));
        put(&mut world, Resource::ReplicaSets, &set);
        for n in 0..PODS_OF_EACH {
            let mut pod = json!({"metadata": meta(format!("app-{i:04}-1-{n}")), "spec": spec, "status": {
                "phase": "Running", "conditions": [{"type": "Ready", "status": "True"}],
                "containerStatuses": [{"name": "app", "ready": true, "state": {"running": {}}}]}});
            pod["metadata"]["ownerReferences"] = owner("ReplicaSet", format!("app-{i:04}-1"));
            put(&mut world, Resource::Pods, &pod);
        }
        let app = if i % wrong == 0 { format!("ap-{i:04}") } else { format!("app-{i:04}") };
        let selector = json!({"app": app, "team": "shop", "stage": "live"});
        let service = json!({"metadata": {"name": format!("app-{i:04}"), "namespace": "shop"},
            "spec": {"selector": selector, "ports": [{"port": 80, "targetPort": 8080}]}});
        put(&mut world, Resource::Services, &service);
    }
    world
}

#[test]
fn of_many_services_those_with_a_slip_are_told_with_the_workload_that_was_meant() {
    let wrong = 50;
    let world = cluster(wrong);
    let start = std::time::Instant::now();
    let found = scan(&world, &Options::default(), Timestamp::from_secs(1_772_366_400));
    eprintln!("{} pods, {SERVICES} services: {:?}", world.pods.len(), start.elapsed());
    assert_eq!(found.len(), SERVICES / wrong, "{found:?}");
    for (n, finding) in found.iter().enumerate() {
        assert_eq!(finding.fault, FaultClass::ServiceNoEndpoints);
        assert!(finding.cause.why.contains(&format!("Deployment shop/app-{:04}", n * wrong)), "{}", finding.cause.why);
    }
}
