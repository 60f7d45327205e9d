//! What is done now and then, beside the agents.

use super::LAG_EVERY;
use anyhow::anyhow;
use nightshift_api::StreamEvent;
use nightshift_bus::Bus;
use nightshift_health::{ByGroupAndTopic, Health, HealthBoard, SelfMetrics};
use nightshift_model::{Clock, Timestamp};
use nightshift_store::Store;
use parking_lot::RwLock;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;

/// What is done now and then: figures that cost a look at the bus, and rows that have had their time.
pub(super) struct Upkeep {
    pub(super) lag: Arc<RwLock<BTreeMap<String, u64>>>,
    pub(super) events: broadcast::Sender<StreamEvent>,
    pub(super) board: HealthBoard,
    pub(super) bus: Arc<dyn Bus>,
    pub(super) store: Arc<dyn Store>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) counters: SelfMetrics,
    pub(super) keep: Duration,
    pub(super) stop: CancellationToken,
}

impl Upkeep {
    pub(super) async fn run(self) {
        let mut pruned_at = Timestamp::EPOCH;
        let mut health: BTreeMap<String, Health> = BTreeMap::new();
        while !self.stop.is_cancelled() {
            match self.bus.groups().await {
                Ok(groups) => {
                    let mut lag: BTreeMap<(String, String), u64> = BTreeMap::new();
                    for g in groups {
                        *lag.entry((g.group, g.at.topic)).or_default() += g.lag;
                    }
                    let mut by_group: BTreeMap<String, u64> = BTreeMap::new();
                    for ((group, _), n) in &lag {
                        *by_group.entry(group.clone()).or_default() += n;
                    }
                    *self.lag.write() = by_group;
                    for ((group, topic), n) in lag {
                        let labels = ByGroupAndTopic { group: group.into(), topic: topic.into() };
                        self.counters.bus_lag.get_or_create(&labels).set(i64::try_from(n).unwrap_or(i64::MAX));
                    }
                }
                Err(e) => tracing::debug!("look at the bus' groups: {e}"),
            }
            for component in self.board.components() {
                if health.insert(component.name.clone(), component.status) != Some(component.status) {
                    drop(self.events.send(StreamEvent::health(&component)));
                }
            }
            let now = self.clock.now();
            if now.since(pruned_at) >= Duration::from_secs(3_600) {
                pruned_at = now;
                if let Err(e) = self.prune(now).await {
                    tracing::warn!("remove old rows: {:#}", anyhow!(e));
                }
            }
            tokio::select! {
                () = self.stop.cancelled() => {}
                () = tokio::time::sleep(LAG_EVERY) => {}
            }
        }
    }

    async fn prune(&self, now: Timestamp) -> Result<(), nightshift_store::StoreError> {
        for tenant in self.store.tenants().await? {
            let n = self.store.prune(&tenant, now - self.keep).await?;
            tracing::debug!(tenant, n, "old rows removed");
        }
        Ok(())
    }
}
