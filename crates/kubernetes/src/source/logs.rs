//! Logs of containers in trouble: their last lines into the world, for the checks, and new lines to the sink.

use super::Cluster;
use crate::client::ApiServer;
use crate::logs::{Troubled, tail, troubled};
use crate::topology::root_of;
use futures::StreamExt as _;
use futures::stream;
use nightshift_cluster::{LogTail, entity_of};
use nightshift_collect::resolve::ENTITY;
use nightshift_collect::{Attributes, LogEntry, SourceError};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Time between two looks at who is in trouble.
const LOOK: Duration = Duration::from_secs(5);
/// The log of a container that did not crash again is read this often.
const AGAIN: Duration = Duration::from_secs(30);
/// Requests at a time.
const AT_A_TIME: usize = 4;

impl Cluster {
    /// Reads for as long as the cluster is watched.
    pub(super) async fn feed_logs(&self, server: ApiServer) -> Result<(), SourceError> {
        // Of each container: when it was read, and how often it had crashed by then.
        let mut read: BTreeMap<Troubled, (Instant, i64)> = BTreeMap::new();
        loop {
            tokio::time::sleep(LOOK).await;
            if self.state.is_away() {
                continue;
            }
            let world = self.state.world().await;
            let wanted: Vec<(Troubled, i64)> = troubled(&world, None)
                .into_iter()
                .map(|one| {
                    let restarts = restarts(&world, &one);
                    (one, restarts)
                })
                .collect();
            drop(world);
            read.retain(|one, _| wanted.iter().any(|(w, _)| w == one));
            let due: Vec<(Troubled, i64)> = wanted
                .into_iter()
                .filter(|(one, restarts)| {
                    read.get(one).is_none_or(|(at, before)| before != restarts || at.elapsed() >= AGAIN)
                })
                .collect();
            if due.is_empty() && read.is_empty() {
                continue;
            }
            let asked = &server;
            let tails: Vec<(Troubled, i64, Option<LogTail>)> = stream::iter(due)
                .map(|(one, restarts)| async move {
                    let tail = tail(asked, &one).await.ok();
                    (one, restarts, tail)
                })
                .buffer_unordered(AT_A_TIME)
                .collect()
                .await;
            for (one, restarts, tail) in tails {
                read.insert(one.clone(), (Instant::now(), restarts));
                if let Some(tail) = tail {
                    self.keep_log(one, tail).await?;
                }
            }
        }
    }

    async fn keep_log(&self, one: Troubled, tail: LogTail) -> Result<(), SourceError> {
        let key = (one.namespace.clone(), one.pod.clone(), one.container.clone());
        let world = self.state.world().await;
        let before = world.logs.get(&key).cloned().unwrap_or_default();
        let pod = world.pods.get(&one.namespace, &one.pod);
        let entity = pod.map(|p| entity_of(&self.cluster.name, &root_of(&world, p)));
        drop(world);
        if before == tail {
            return Ok(());
        }
        let fresh: Vec<String> =
            new_lines(&before.previous, &tail.previous).chain(new_lines(&before.current, &tail.current)).collect();
        self.state
            .edit(|world| {
                // Of pods that are gone nothing stays.
                let pods = &world.pods;
                world.logs.retain(|(namespace, pod, _), _| pods.get(namespace, pod).is_some());
                world.logs.insert(key, tail);
            })
            .await;
        let Some(entity) = entity.filter(|_| !fresh.is_empty()) else { return Ok(()) };
        let resource = Arc::new(Attributes::from([
            (ENTITY.to_owned(), entity.to_string()),
            ("k8s.pod.name".to_owned(), one.pod.clone()),
            ("k8s.container.name".to_owned(), one.container.clone()),
        ]));
        let at = self.context.clock.now();
        let line = |body: String| LogEntry {
            resource: Arc::clone(&resource),
            at,
            severity: 0,
            body,
            trace_id: None,
            span_id: None,
            stream: format!("{}/{}", one.pod, one.container),
        };
        let lines: Vec<LogEntry> = fresh.into_iter().map(line).collect();
        self.patiently("logs", || self.context.sink.logs(&self.source, lines.clone())).await
    }
}

fn restarts(world: &nightshift_cluster::World, one: &Troubled) -> i64 {
    let Some(pod) = world.pods.get(&one.namespace, &one.pod) else { return 0 };
    let all = pod.status.init_container_statuses.iter().chain(&pod.status.container_statuses);
    all.filter(|s| s.name == one.container).map(|s| s.restart_count).sum()
}

/// Lines that were added since the last reading: those after the longest end of the old that the new begins with.
fn new_lines<'a>(before: &[String], now: &'a [String]) -> impl Iterator<Item = String> + use<'a> {
    let overlap =
        (0..=before.len().min(now.len())).rev().find(|n| before[before.len() - n..] == now[..*n]).unwrap_or_default();
    now[overlap..].iter().cloned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_lines_that_were_added_are_new() {
        let own = |text: &str| text.chars().map(String::from).collect::<Vec<_>>();
        let fresh = |before: &str, now: &str| new_lines(&own(before), &own(now)).collect::<String>();
        assert_eq!(fresh("", "abc"), "abc");
        assert_eq!(fresh("abc", "abcd"), "d");
        assert_eq!(fresh("abc", "bcde"), "de");
        assert_eq!(fresh("abc", "abc"), "");
        assert_eq!(fresh("abc", "xyz"), "xyz");
    }
}
