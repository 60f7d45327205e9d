//! What pods and nodes use, read from the metrics API: into the world, for the checks, and as series.

use super::Cluster;
use crate::client::ApiServer;
use crate::metrics;
use crate::topology::root_of;
use nightshift_cluster::{World, entity_of};
use nightshift_collect::resolve::ENTITY;
use nightshift_collect::{Attributes, MetricPoint, SourceError};
use nightshift_model::batch::SeriesKind;
use nightshift_model::{EntityId, Timestamp};
use std::sync::Arc;
use std::time::Duration;

/// Samples of one call.
const POINTS: usize = 5_000;

impl Cluster {
    /// Reads for as long as the cluster is watched.
    pub(super) async fn feed_metrics(&self, server: ApiServer) -> Result<(), SourceError> {
        let mut ticks = tokio::time::interval(Duration::from_secs(self.config.metrics_every_secs.max(1)));
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let used = metrics::ask(&server).await;
            let mut points = Vec::new();
            let now = self.context.clock.now();
            self.state
                .edit(|world| {
                    // What could not be read is not known: old figures would look like new ones.
                    world.usage = used.containers.unwrap_or_default();
                    world.usage.retain(|(namespace, ..), _| self.state.admits(namespace));
                    world.node_usage = used.nodes.unwrap_or_default();
                    points = series(world, &self.cluster.name, now);
                })
                .await;
            for part in points.chunks(POINTS) {
                self.patiently("metrics", || self.context.sink.metrics(&self.source, part.to_vec())).await?;
            }
        }
    }
}

fn series(world: &World, cluster: &str, at: Timestamp) -> Vec<MetricPoint> {
    let mut points = Vec::new();
    let mut add = |resource: &Arc<Attributes>, name: &str, value: f64| {
        let (resource, name) = (Arc::clone(resource), name.to_owned());
        points.push(MetricPoint { resource, name, labels: Vec::new(), kind: SeriesKind::Gauge, at, value });
    };
    for ((namespace, pod, container), usage) in &world.usage {
        let Some(object) = world.pods.get(namespace, pod) else { continue };
        let entity = entity_of(cluster, &root_of(world, object));
        let resource = Arc::new(Attributes::from([
            (ENTITY.to_owned(), entity.to_string()),
            ("k8s.pod.name".to_owned(), pod.clone()),
            ("k8s.container.name".to_owned(), container.clone()),
        ]));
        add(&resource, "container_cpu_usage_cores", usage.cpu);
        add(&resource, "container_memory_usage_bytes", usage.memory);
    }
    for (node, usage) in &world.node_usage {
        let entity = EntityId::new(cluster, "node", "", node);
        let resource = Arc::new(Attributes::from([(ENTITY.to_owned(), entity.to_string())]));
        add(&resource, "node_cpu_usage_cores", usage.cpu);
        add(&resource, "node_memory_usage_bytes", usage.memory);
    }
    points
}
