//! One by one: what the checker knows of single actions.

use super::*;
use nightshift_model::Image;
use serde_json::json;

fn image(value: Value) -> Image {
    value.as_object().cloned().unwrap_or_default().into_iter().collect()
}

#[track_caller]
fn findings(kind: &str, action: ActionType, seen: Value, params: Value) -> Vec<String> {
    let target = EntityId::new("c", kind, "", "x");
    let images = Images::from([(target.clone(), image(seen.clone()))]);
    let topology = Topology::default();
    let facts = Facts { topology: &topology, images: &images, synthetic: true };
    let info = ActionInfo::of(action);
    let step = PlanStep {
        name: "a".into(),
        action,
        target,
        actuator: "estate".into(),
        params: image(params),
        expects: image(seen),
        risk: info.risk_min.max(Risk::High),
        estimated_impact: "none".into(),
        deadline_secs: 60,
        rollback: if info.restorable { Rollback::Restore } else { Rollback::Impossible },
        canary: None,
    };
    let mut c = Checker { facts: &facts, step: Some(0), findings: Vec::new() };
    c.one(&step);
    c.findings.into_iter().map(|f| format!("{}: {}", f.rule, f.message)).collect()
}

#[test]
fn limits_of_the_owner_and_of_reason() {
    use ActionType::*;
    let pods = || json!({"replicas": 3, "min_replicas": 2, "max_replicas": 6});
    let memory = || json!({"memory_limit_mib": 512, "memory_request_mib": 256, "jvm_heap_mib": 300, "disk_gib": 100});
    let table: &[(&str, ActionType, Value, Value, &str)] = &[
        ("service", ScaleDeployment, pods(), json!({"replicas": 6}), ""),
        ("service", ScaleDeployment, pods(), json!({"replicas": 7}), "bounds: 7 replicas, at most 6"),
        ("service", ScaleDeployment, pods(), json!({"replicas": 1}), "bounds: 1 replicas, at least 2"),
        ("service", ScaleDeployment, pods(), json!({"replicas": 0}), "bounds: `replicas` is 0"),
        ("service", ScaleDeployment, pods(), json!({"replicas": -3}), "bounds: `replicas` is -3"),
        ("service", ScaleDeployment, pods(), json!({"replicas": 4.5}), "param: `replicas` is `4.5`, expected int"),
        ("service", ScaleDeployment, pods(), json!({"replicas": 3}), "the step does nothing"),
        ("service", ScaleDeployment, pods(), json!({}), "`scale_deployment` needs `replicas`"),
        ("service", ScaleDeployment, pods(), json!({"replicas": 4, "force": true}), "takes no `force`"),
        ("node", ScaleDeployment, pods(), json!({"replicas": 4}), "is nothing to do to a node"),
        ("service", CostScaleDown, pods(), json!({"replicas": 2}), ""),
        ("service", CostScaleDown, pods(), json!({"replicas": 5}), "would scale up"),
        ("service", RollbackDeploy, json!({"version": "2"}), json!({"version": "1"}), ""),
        ("service", RollbackDeploy, json!({"version": "2"}), json!({"version": "2"}), "nothing to go back to"),
        ("service", RollbackDeploy, json!({"version": "2"}), json!({"version": " "}), "is empty or longer"),
        ("service", ToggleFeature, json!({"flag.a": true}), json!({"flag": "a", "enabled": false}), ""),
        (
            "service",
            ToggleFeature,
            json!({"flag.a": true}),
            json!({"flag": "a", "enabled": true}),
            "that value already",
        ),
        ("service", ToggleFeature, json!({"flag.a": true}), json!({"flag": "a", "enabled": "no"}), "expected bool"),
        ("service", PatchResources, memory(), json!({"memory_limit_mib": 1024}), ""),
        ("service", PatchResources, memory(), json!({}), "sets nothing"),
        ("service", PatchResources, memory(), json!({"memory_limit_mib": 128}), "does not fit into the limit"),
        ("service", PatchResources, memory(), json!({"jvm_heap_mib": 600}), "the heap of 600 MiB does not fit"),
        ("database", PatchResources, memory(), json!({"disk_gib": 50}), "deletion: a volume of 100 GiB"),
        ("database", PatchResources, memory(), json!({"disk_gib": 1e9}), "bounds: `disk_gib`"),
        (
            "service",
            AdjustRouting,
            json!({"weight.a": 1}),
            json!({"weights": {"a": 0, "b": 0}}),
            "nothing would be served",
        ),
        ("service", AdjustRouting, json!({"weight.a": 1}), json!({"weights": {"a": -1, "b": 2}}), "bounds: `weights`"),
        ("service", AdjustRouting, json!({"weight.a": 1}), json!({"weights": {"a": "1"}}), "expected map"),
        ("database", FailoverDb, json!({"primary": "a"}), json!({"to": "b"}), ""),
        ("database", FailoverDb, json!({"primary": "a"}), json!({"to": "a"}), "is the primary already"),
        ("service", FailoverDb, json!({"primary": "a"}), json!({"to": "b"}), "is nothing to do to a service"),
        ("service", DrainNode, json!({"ready": true}), json!({}), "is nothing to do to a service"),
        ("service", RunJob, json!({}), json!({"job": "warm-cache"}), ""),
        ("service", RunJob, json!({}), json!({"job": "drop-tables"}), "deletion: job `drop-tables` would drop"),
        ("service", LimitTraffic, json!({"limit_rps": null}), json!({"limit_rps": 0}), "bounds: `limit_rps`"),
        (
            "service",
            PolicyException,
            json!({"policy": "p"}),
            json!({"policy": "p", "expires_secs": 9_000_000}),
            "bounds: `expires_secs`",
        ),
        ("service", RestartPods, json!({"replicas": 3}), json!({"max_unavailable": 2}), "bounds: `max_unavailable`"),
        ("topic", RestartPods, json!({"replicas": 3}), json!({}), "is nothing to do to a topic"),
    ];
    for (kind, action, seen, params, want) in table {
        let found = findings(kind, *action, seen.clone(), params.clone());
        if want.is_empty() {
            assert!(found.is_empty(), "{action} {params}: {found:?}");
        } else {
            assert!(found.iter().any(|f| f.contains(want)), "{action} {params}: {found:?}, wanted {want}");
        }
    }
}
