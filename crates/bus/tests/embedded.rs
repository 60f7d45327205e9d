//! The embedded bus: the common suite.
#![expect(clippy::unwrap_used, reason = "a test may panic; clippy does not see that helpers are of tests")]

use async_trait::async_trait;
use nightshift_bus::conformance::{self, Harness};
use nightshift_bus::embedded::EmbeddedBus;
use nightshift_bus::{Bus, EmbeddedConfig};
use nightshift_model::{ManualClock, Timestamp};
use std::sync::Arc;

struct Embedded {
    dir: tempfile::TempDir,
    config: EmbeddedConfig,
}

#[async_trait]
impl Harness for Embedded {
    async fn open(&self, name: &str, tight: bool) -> Arc<dyn Bus> {
        let mut config = self.config.clone();
        if tight {
            config.max_pending_bytes = 64 << 10;
            config.max_lag_bytes = 64 << 10;
            config.segment_bytes = 16 << 10;
        }
        let clock = Arc::new(ManualClock::at(Timestamp::from_secs(1)));
        Arc::new(EmbeddedBus::open(&self.dir.path().join(name), &config, clock).unwrap())
    }
}

async fn conforms_with(config: EmbeddedConfig) {
    conformance::run(Arc::new(Embedded { dir: tempfile::tempdir().unwrap(), config })).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn conforms() {
    conforms_with(EmbeddedConfig::default()).await;
}

/// Every read comes from files, and a file holds a few records only.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn conforms_without_a_cache_and_with_tiny_segments() {
    conforms_with(EmbeddedConfig {
        tail_cache_bytes: 0,
        segment_bytes: 4096,
        fsync: false,
        ..EmbeddedConfig::default()
    })
    .await;
}
