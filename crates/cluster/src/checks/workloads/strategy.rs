//! Update strategies that cannot progress: no pod may go first, and no new one can stand beside the old ones.

use crate::objects::{IntOrString, PodAffinityTerm, PodSpec, Strategy};
use crate::{Context, Finding, ObjectRef};
use nightshift_model::FaultClass;

/// Runs the checks.
pub(super) fn run(cx: &Context<'_>, out: &mut Vec<Finding>) {
    let nodes = i64::try_from(cx.world.nodes.iter().filter(|n| !n.spec.unschedulable).count()).unwrap_or(i64::MAX);
    let nodes = if cx.world.nodes.sees("") { nodes } else { i64::MAX };
    for d in cx.world.deployments.iter().filter(|d| d.metadata.deletion_timestamp.is_none()) {
        let (object, wanted) = (ObjectRef::of("Deployment", &d.metadata), d.spec.wanted());
        if wanted == 0 || !keeps_all(&d.spec.strategy) {
            continue;
        }
        let spec = &d.spec.template.spec;
        let why = claim(cx, &object.namespace, spec)
            .or_else(|| host_port(spec).filter(|_| wanted >= nodes).map(|port| {
                format!("each pod takes port {port} of its node, and the {nodes} nodes are all taken by the {wanted} old pods")
            }))
            .or_else(|| apart(spec, &d.spec.template.metadata.labels).filter(|_| wanted >= nodes).map(|key| {
                format!("no two pods may share a {key}, and the {nodes} nodes are all taken by the {wanted} old pods")
            }));
        if let Some(why) = why {
            out.push(finding(&object, "spec.strategy.rollingUpdate.maxUnavailable", &why));
        }
    }
    for d in cx.world.daemon_sets.iter().filter(|d| d.metadata.deletion_timestamp.is_none()) {
        let surge = d.spec.update_strategy.rolling_update.as_ref().and_then(|r| r.max_surge.as_ref());
        let surges = surge.is_some_and(|s| s.of(100, true) != Some(0));
        if let Some(port) = host_port(&d.spec.template.spec).filter(|_| surges) {
            let object = ObjectRef::of("DaemonSet", &d.metadata);
            let why = format!("a new pod is started beside the old one, which still holds port {port} of the node");
            out.push(finding(&object, "spec.updateStrategy.rollingUpdate.maxSurge", &why));
        }
    }
}

/// Whether no old pod may go before a new one is ready. Only where somebody wrote so: shares that round to nothing are
/// what everybody has.
fn keeps_all(strategy: &Strategy) -> bool {
    let Some(rolling) = strategy.rolling_update.as_ref().filter(|_| strategy.kind != "Recreate") else { return false };
    matches!(&rolling.max_unavailable, Some(IntOrString::Int(0)))
        || matches!(&rolling.max_unavailable, Some(IntOrString::Text(t)) if t == "0%")
}

/// A claim that only one node (or pod) can use at a time.
fn claim(cx: &Context<'_>, namespace: &str, spec: &PodSpec) -> Option<String> {
    spec.volumes.iter().find_map(|v| {
        let name = &v.persistent_volume_claim.as_ref()?.claim_name;
        let modes = &cx.world.claims.get(namespace, name)?.spec.access_modes;
        let single = |m: &String| m == "ReadWriteOnce" || m == "ReadWriteOncePod";
        (!modes.is_empty() && modes.iter().all(single)).then(|| {
            format!("the new pod needs claim {name} ({}), which the old pod holds until it is gone", modes.join(","))
        })
    })
}

fn host_port(spec: &PodSpec) -> Option<i64> {
    let ports = spec.containers.iter().flat_map(|c| c.ports.iter());
    ports.map(|p| if spec.host_network { p.container_port } else { p.host_port }).find(|p| *p > 0)
}

/// The label by which pods of this template must stay apart.
fn apart<'a>(spec: &'a PodSpec, labels: &crate::objects::Labels) -> Option<&'a str> {
    let terms =
        &spec.affinity.as_ref()?.pod_anti_affinity.as_ref()?.required_during_scheduling_ignored_during_execution;
    let own = |t: &&PodAffinityTerm| {
        t.topology_key == "kubernetes.io/hostname" && t.label_selector.as_ref().is_some_and(|s| s.matches(labels))
    };
    terms.iter().find(own).map(|t| t.topology_key.as_str())
}

fn finding(object: &ObjectRef, path: &str, why: &str) -> Finding {
    let surge = path.ends_with("maxSurge");
    let fix = if surge {
        "Set maxSurge to 0 and maxUnavailable to 1 in the update strategy, so that the old pod goes first"
    } else {
        "Set maxUnavailable to 1 (with maxSurge 0), or use strategy Recreate, so that an old pod goes before the new one comes"
    };
    Finding::new(
        FaultClass::StrategyDeadlock,
        object.clone(),
        format!("The update strategy of {object} cannot progress"),
    )
    .because(object.clone(), format!("no old pod may go before a new one is ready, but {why}"))
    .fix(fix)
    .field(object, path, if surge { "above 0" } else { "0" })
    .generic()
}
