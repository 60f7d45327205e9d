//! Last lines of containers in trouble.
//!
//! What a container wrote before it crashed is often the only place that names the cause. Only containers in trouble are
//! read, so many lines of so many at a time: a crash storm must not become a storm of log requests.

use crate::client::{ApiServer, KubeError};
use futures::StreamExt as _;
use futures::stream;
use nightshift_cluster::objects::{ContainerStatus, Pod};
use nightshift_cluster::{LogTail, World};
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::time::Duration;

/// Lines of a container.
pub(crate) const LINES: usize = 50;
/// Bytes of a container.
pub(crate) const BYTES: usize = 64 << 10;
/// Longest line that is kept, characters.
const LINE_CHARS_MAX: usize = 1000;
/// Containers that are read.
const CONTAINERS_MAX: usize = 50;
/// Containers of one workload that are read: the others say the same.
const OF_ONE_WORKLOAD: usize = 2;
/// Requests at a time.
const AT_A_TIME: usize = 4;
/// Time for one answer.
const ANSWER: Duration = Duration::from_secs(3);
/// Time for all of them together. The findings without logs are worth more than a scan that hangs on dead nodes.
const ALL: Duration = Duration::from_secs(6);

/// A container whose log is worth reading.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Troubled {
    pub(crate) namespace: String,
    pub(crate) pod: String,
    pub(crate) container: String,
    /// It was restarted: what it wrote before is in the log of the one before.
    pub(crate) restarted: bool,
}

/// Containers in trouble, those that restarted most first.
pub(crate) fn troubled(world: &World, namespace: Option<&str>) -> Vec<Troubled> {
    let mut found: Vec<(i64, Troubled)> = Vec::new();
    for pod in world.pods.iter().filter(|p| namespace.is_none_or(|n| p.metadata.namespace == n)) {
        let statuses = pod.status.init_container_statuses.iter().chain(&pod.status.container_statuses);
        for status in statuses.filter(|s| in_trouble(s)) {
            let one = Troubled {
                namespace: pod.metadata.namespace.clone(),
                pod: pod.metadata.name.clone(),
                container: status.name.clone(),
                restarted: status.restart_count > 0 || status.last_state.terminated.is_some(),
            };
            found.push((status.restart_count, one));
        }
    }
    found.sort_by(|a, b| (Reverse(a.0), &a.1).cmp(&(Reverse(b.0), &b.1)));
    let mut of_workload: BTreeMap<(String, String, String), usize> = BTreeMap::new();
    found.retain(|(_, one)| {
        let owner = world.pods.get(&one.namespace, &one.pod).map_or_else(|| one.pod.clone(), owner);
        let n = of_workload.entry((one.namespace.clone(), owner, one.container.clone())).or_default();
        *n += 1;
        *n <= OF_ONE_WORKLOAD
    });
    found.into_iter().map(|(_, one)| one).take(CONTAINERS_MAX).collect()
}

fn owner(pod: &Pod) -> String {
    pod.metadata.controller().map_or_else(|| pod.metadata.name.clone(), |o| o.name.clone())
}

fn in_trouble(status: &ContainerStatus) -> bool {
    let failed = |t: &nightshift_cluster::objects::Terminated| t.exit_code != 0 || t.signal != 0;
    let waits = status.state.waiting.as_ref().is_some_and(|w| w.reason == "CrashLoopBackOff");
    waits
        || status.state.terminated.as_ref().is_some_and(failed)
        || status.last_state.terminated.as_ref().is_some_and(failed)
        || (status.restart_count > 0 && !status.ready)
}

/// Reads the last lines of containers in trouble into the world. What cannot be read is left out: many clusters have no
/// node that answers, and a log explains a finding but never makes one.
pub(crate) async fn read(server: &ApiServer, world: &mut World, namespace: Option<&str>) {
    let wanted = troubled(world, namespace);
    let logs = &mut world.logs;
    let all = async {
        let mut tails = stream::iter(wanted)
            .map(|one| async move {
                let tail = tail(server, &one).await;
                (one, tail)
            })
            .buffer_unordered(AT_A_TIME);
        while let Some((one, tail)) = tails.next().await {
            match tail {
                Ok(tail) => {
                    logs.insert((one.namespace, one.pod, one.container), tail);
                }
                // Nobody may read logs here: the others need not be asked.
                Err(KubeError::Forbidden(_) | KubeError::Unauthorized) if namespace.is_some() => break,
                Err(_) => {}
            }
        }
    };
    // What was read until then stays.
    drop(tokio::time::timeout(ALL, all).await);
}

/// The last lines of a container, and of the one before it where it was restarted.
///
/// # Errors
/// When neither can be read.
pub(crate) async fn tail(server: &ApiServer, one: &Troubled) -> Result<LogTail, KubeError> {
    let current = lines(server, one, false).await;
    let previous = if one.restarted { lines(server, one, true).await } else { Ok(Vec::new()) };
    match (current, previous) {
        (Err(e), Err(_)) => Err(e),
        (Err(e), Ok(previous)) if previous.is_empty() => Err(e),
        (current, previous) => {
            Ok(LogTail { current: current.unwrap_or_default(), previous: previous.unwrap_or_default() })
        }
    }
}

async fn lines(server: &ApiServer, one: &Troubled, previous: bool) -> Result<Vec<String>, KubeError> {
    let Troubled { namespace, pod, container, .. } = one;
    let previous = if previous { "&previous=true" } else { "" };
    let path = format!(
        "/api/v1/namespaces/{namespace}/pods/{pod}/log?container={container}&tailLines={LINES}&limitBytes={BYTES}{previous}"
    );
    // The server's limit counts from the first of those lines, so the last ones are cut: ours is a margin above it.
    let bytes = server.get(&path, BYTES * 2, ANSWER).await?;
    Ok(split(&bytes))
}

/// Lines of bounded length, the last ones of them.
fn split(bytes: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(bytes);
    let all: Vec<String> =
        text.lines().filter(|l| !l.trim().is_empty()).map(|l| l.chars().take(LINE_CHARS_MAX).collect()).collect();
    all[all.len().saturating_sub(LINES)..].to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;
    use nightshift_cluster::Resource;

    fn pod(name: &str, owner: &str, restarts: i64, exit: i64) -> String {
        serde_json::json!({
            "metadata": {"name": name, "namespace": "shop", "ownerReferences":
                [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": owner, "uid": "u", "controller": true}]},
            "status": {"containerStatuses": [{"name": "app", "restartCount": restarts, "ready": exit == 0,
                "state": {"running": {}}, "lastState": {"terminated": {"exitCode": exit}}}]},
        })
        .to_string()
    }

    #[test]
    fn the_worst_are_read_and_only_two_of_one_workload() {
        let mut world = World::default();
        for n in 0..5 {
            let text = pod(&format!("web-{n}"), "web", n + 1, 1);
            world.put_json(Resource::Pods, text.as_bytes()).unwrap();
        }
        world.put_json(Resource::Pods, pod("db-0", "db", 1, 137).as_bytes()).unwrap();
        world.put_json(Resource::Pods, pod("fine-0", "fine", 0, 0).as_bytes()).unwrap();
        let found = troubled(&world, None);
        let names: Vec<&str> = found.iter().map(|t| t.pod.as_str()).collect();
        assert_eq!(names, ["web-4", "web-3", "db-0"]);
        assert!(troubled(&world, Some("bank")).is_empty());
    }

    #[test]
    fn the_last_lines_stay_and_each_is_bounded() {
        let text = (0..100).map(|n| format!("line {n}\n")).collect::<String>() + &"x".repeat(5000);
        let lines = split(text.as_bytes());
        assert_eq!(lines.len(), LINES);
        assert_eq!(lines[0], "line 51");
        assert_eq!(lines[LINES - 1].len(), LINE_CHARS_MAX);
    }
}
