//! CloudNativePG and Patroni: a primary that is lost, replicas that lag.

use super::{all, named, words};
use crate::objects::{Custom, Meta, Pod};
use crate::{Context, Finding, ObjectRef};
use nightshift_model::{FaultClass, Timestamp};
use serde_json::Value;
use std::collections::BTreeMap;

/// A replica that is further behind is told, bytes: one segment of the log.
const LAG_BYTES: i64 = 16 << 20;
/// The same, seconds.
const LAG_SECS: f64 = 30.0;
/// Signal of an instance: seconds by which it lags.
const LAG_SIGNAL: &str = "replication_lag_seconds";

/// Runs the checks of databases.
pub(super) fn run(cx: &Context<'_>, out: &mut Vec<Finding>) {
    for cluster in all(cx, "postgresql.cnpg.io", "Cluster") {
        out.extend(cloud_native(cx, cluster));
    }
    patroni(cx, out);
}

fn ready(pod: &Pod) -> bool {
    pod.status.conditions.when("Ready", "True").is_some() && pod.metadata.deletion_timestamp.is_none()
}

fn cloud_native(cx: &Context<'_>, cluster: &Custom) -> Option<Finding> {
    let object = named(cluster);
    let (namespace, name) = (cluster.metadata.namespace.as_str(), cluster.metadata.name.as_str());
    // Sleeping on purpose.
    if cluster.metadata.annotations.get("cnpg.io/hibernation") == Some("on") {
        return None;
    }
    let phase = cluster.status_text("/phase");
    let (current, target) = (cluster.status_text("/currentPrimary"), cluster.status_text("/targetPrimary"));
    let number = |name: &str| cluster.status.get(name).and_then(Value::as_i64);
    let pod = cx.world.pods.get(namespace, current);
    let gone = !current.is_empty() && cx.world.pods.sees(namespace) && pod.is_none_or(|p| !ready(p));
    let failing = !target.is_empty() && !current.is_empty() && target != current;
    let said = phase.to_lowercase();
    let words_say = said.contains("failing over") || said.contains("no primary") || said.contains("unrecoverable");
    let none_ready = number("readyInstances") == Some(0) && number("instances").is_some_and(|n| n > 0);
    if gone || failing || words_say || (none_ready && !current.is_empty()) {
        let primary = ObjectRef::new("Pod", namespace, current);
        let why = match (gone, failing) {
            (true, _) if pod.is_none() => format!("the primary {current} is gone"),
            (true, _) => format!("the primary {current} is not ready"),
            (false, true) => format!("{target} is to take over from {current} and has not"),
            (false, false) => phase.to_owned(),
        };
        let mut finding =
            Finding::new(FaultClass::DatabasePrimaryLost, object.clone(), format!("PostgreSQL cluster {name} has no working primary"))
                .because(primary.clone(), why)
                .fix(format!("Promote a replica that is up to date: kubectl cnpg promote {name} INSTANCE -n {namespace}; or mend {current}."))
                .field(&object, "status.phase", phase)
                .field(&object, "status.currentPrimary", current)
                .hits(primary.clone());
        if let Some(pod) = pod {
            finding = finding.explained_by(cx.root(pod)).explained_by(primary);
        }
        return Some(finding);
    }
    let lagging = cx
        .world
        .pods
        .in_namespace(namespace)
        .filter(|p| p.metadata.labels.get("cnpg.io/cluster") == Some(name))
        .filter_map(|p| {
            let of = ObjectRef::of("Pod", &p.metadata);
            let lag = cx.world.signal(&of, LAG_SIGNAL)?;
            (lag > LAG_SECS).then_some((of, lag))
        })
        .max_by(|a, b| a.1.total_cmp(&b.1));
    if let Some((pod, lag)) = lagging {
        return Some(lags(&object, name, &pod, &format!("{lag:.0} s"), format!("{}#metrics.{LAG_SIGNAL}", pod.path())));
    }
    let conditions = cluster.conditions();
    let wrong = conditions.when("Ready", "False")?;
    // Instances that are still made are no lost primary, and a check of their pods says more.
    Some(
        Finding::new(FaultClass::OperatorUnhealthy, object.clone(), format!("PostgreSQL cluster {name} is not ready"))
            .because(object.clone(), if phase.is_empty() { words(wrong) } else { phase })
            .fix(format!("See kubectl cnpg status {name} -n {namespace}."))
            .field(&object, "status.phase", phase)
            .generic(),
    )
    .map(|f| {
        let pods =
            cx.world.pods.in_namespace(namespace).filter(|p| p.metadata.labels.get("cnpg.io/cluster") == Some(name));
        pods.fold(f, |f, p| f.explained_by(cx.root(p)).explained_by(ObjectRef::of("Pod", &p.metadata)))
    })
}

fn lags(object: &ObjectRef, cluster: &str, pod: &ObjectRef, by: &str, id: String) -> Finding {
    Finding::new(FaultClass::ReplicationLag, object.clone(), format!("Replica {} of {cluster} lags by {by}", pod.name))
        .because(pod.clone(), format!("it has replayed {by} less than the primary wrote"))
        .fix("See the load, disk and network of the replica; a long query on it can hold replay up.")
        .fact(id, "metric", format!("lag: {by}"))
        .hits(pod.clone())
}

/// Patroni keeps its leader in annotations of a config map or endpoints named after the cluster.
fn patroni(cx: &Context<'_>, out: &mut Vec<Finding>) {
    let mut members: BTreeMap<(&str, &str), Vec<&Pod>> = BTreeMap::new();
    for pod in cx.world.pods.iter() {
        let label = |name: &str| pod.metadata.labels.get(name);
        let cluster = label("cluster-name").or_else(|| label("application").and(label("cluster")));
        if let (Some(cluster), Some(_)) = (cluster, pod.metadata.annotations.get("status")) {
            members.entry((&pod.metadata.namespace, cluster)).or_default().push(pod);
        }
    }
    for ((namespace, cluster), pods) in members {
        let leader = [format!("{cluster}-leader"), cluster.to_owned()]
            .iter()
            .find_map(|name| cx.world.config_maps.get(namespace, name))
            .map(|map| &map.metadata);
        out.extend(patroni_cluster(cx, namespace, cluster, &pods, leader));
    }
}

/// What a member writes about itself: role and position in the log.
fn about(pod: &Pod) -> Option<(String, i64)> {
    let status: Value = serde_json::from_str(pod.metadata.annotations.get("status")?).ok()?;
    let role = status.get("role").and_then(Value::as_str).unwrap_or_default().to_owned();
    Some((role, status.get("xlog_location").and_then(Value::as_i64).unwrap_or(0)))
}

fn patroni_cluster(
    cx: &Context<'_>,
    namespace: &str,
    cluster: &str,
    pods: &[&Pod],
    leader: Option<&Meta>,
) -> Option<Finding> {
    let first = pods.first()?;
    let object = cx.root(first);
    let standby = |role: &str| matches!(role, "standby_leader");
    let leads = |role: &str| matches!(role, "master" | "primary" | "leader") || standby(role);
    let named = leader.and_then(|m| m.annotations.get("leader"));
    // Whoever holds the key, while it holds it.
    let expired = leader.is_some_and(|m| {
        let read = |name: &str| m.annotations.get(name);
        let renewed = read("renewTime").and_then(|t| Timestamp::parse_rfc3339(t).ok());
        let ttl = read("ttl").and_then(|t| t.parse::<u64>().ok()).unwrap_or(30);
        renewed.is_some_and(|at| cx.age(at).as_secs() > ttl.saturating_mul(2))
    });
    let leading: Vec<&&Pod> =
        pods.iter().filter(|p| about(p).is_some_and(|(role, _)| leads(&role)) && ready(p)).collect();
    let holder_ill = named.is_some_and(|n| pods.iter().all(|p| p.metadata.name != n || !ready(p)));
    if expired || holder_ill || (leading.is_empty() && leader.is_some()) {
        let was = named.unwrap_or_default();
        let why = match (was, expired) {
            ("", _) => "nobody holds the leader key".to_owned(),
            (was, true) => format!("{was} holds the leader key and no longer renews it"),
            (was, false) => format!("{was}, the leader, is not ready"),
        };
        let primary = ObjectRef::new("Pod", namespace, was);
        let mut finding = Finding::new(
            FaultClass::DatabasePrimaryLost,
            object,
            format!("Patroni cluster {cluster} has no working primary"),
        )
        .because(primary.clone(), why)
        .fix(format!(
            "See patronictl list {cluster}; fail over to the replica that is furthest: patronictl failover {cluster}."
        ));
        if let Some(meta) = leader {
            let of = ObjectRef::of("ConfigMap", meta);
            finding = finding.field(&of, "metadata.annotations.leader", was);
            finding = finding.field(
                &of,
                "metadata.annotations.renewTime",
                meta.annotations.get("renewTime").unwrap_or_default(),
            );
        } else {
            finding =
                finding.field(&ObjectRef::of("Pod", &first.metadata), "metadata.annotations.status", "no member leads");
        }
        return Some(finding.hits(primary));
    }
    let top = pods.iter().filter_map(|p| about(p)).map(|(_, at)| at).max()?;
    let (pod, behind) = pods
        .iter()
        .filter_map(|p| about(p).filter(|(role, at)| !leads(role) && *at > 0).map(|(_, at)| (*p, top - at)))
        .max_by_key(|(_, behind)| *behind)?;
    (behind > LAG_BYTES).then(|| {
        let of = ObjectRef::of("Pod", &pod.metadata);
        let id = format!("{}#metadata.annotations.status", of.path());
        lags(&object, cluster, &of, &format!("{} MiB", behind >> 20), id)
    })
}
