//! What Nightshift says of itself: the health of its components and its own metrics.
//!
//! Lives here: the [`HealthBoard`] that every source and agent writes to when it has done something (or failed to),
//! and the [`SelfMetrics`] that people graph. Never here: opinions about the watched estate, or I/O.

mod metrics;

pub use metrics::*;

use nightshift_model::{Clock, Timestamp};
use parking_lot::RwLock;
use serde::Serialize;
use std::collections::BTreeMap;
use std::sync::Arc;

/// How a component does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Health {
    /// It did its last work.
    Healthy,
    /// It started and has done nothing yet, or did its last work in part.
    Degraded,
    /// Its last work failed.
    Unhealthy,
}

/// One component as `/api/v1/health` shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Component {
    /// `host-collector`, `anomaly-detector` …
    pub name: String,
    /// How it does.
    pub status: Health,
    /// Since when it does so.
    pub since: Timestamp,
    /// What it last did, for people.
    pub detail: String,
    /// When it last reported.
    pub last_report: Timestamp,
}

/// Health of every running component. Cheap to clone; all clones are one board.
#[derive(Clone)]
pub struct HealthBoard {
    components: Arc<RwLock<BTreeMap<String, Component>>>,
    clock: Arc<dyn Clock>,
}

impl HealthBoard {
    /// An empty board.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self { components: Arc::default(), clock }
    }

    /// The pen of one component. It begins as degraded, "starting": nothing was done yet.
    pub fn reporter(&self, name: impl Into<String>) -> Reporter {
        let reporter = Reporter { board: self.clone(), name: name.into() };
        reporter.set(Health::Degraded, "starting");
        reporter
    }

    /// Every component, by name.
    pub fn components(&self) -> Vec<Component> {
        self.components.read().values().cloned().collect()
    }

    /// The worst of all components; degraded when there are none.
    pub fn overall(&self) -> Health {
        self.components.read().values().map(|c| c.status).max().unwrap_or(Health::Degraded)
    }
}

/// Writes one component's health.
#[derive(Clone)]
pub struct Reporter {
    board: HealthBoard,
    name: String,
}

impl Reporter {
    /// Whose health it is.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// It did its work.
    pub fn healthy(&self, detail: impl Into<String>) {
        self.set(Health::Healthy, detail);
    }

    /// It did its work in part.
    pub fn degraded(&self, detail: impl Into<String>) {
        self.set(Health::Degraded, detail);
    }

    /// It failed.
    pub fn unhealthy(&self, detail: impl Into<String>) {
        self.set(Health::Unhealthy, detail);
    }

    /// Sets its health; `since` moves only when the status does.
    pub fn set(&self, status: Health, detail: impl Into<String>) {
        let now = self.board.clock.now();
        let mut board = self.board.components.write();
        let since = board.get(&self.name).filter(|c| c.status == status).map_or(now, |c| c.since);
        let component = Component { name: self.name.clone(), status, since, detail: detail.into(), last_report: now };
        board.insert(self.name.clone(), component);
    }

    /// Takes the component off the board (its source was removed from the configuration).
    pub fn retire(self) {
        self.board.components.write().remove(&self.name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nightshift_model::ManualClock;
    use std::time::Duration;

    /// DATA-1: who has said nothing is not healthy.
    #[test]
    fn health_is_what_the_component_last_did() {
        let clock = Arc::new(ManualClock::at(Timestamp::from_secs(10)));
        let board = HealthBoard::new(clock.clone());
        assert_eq!(board.overall(), Health::Degraded, "nobody said that anything is well");
        let (a, b) = (board.reporter("a"), board.reporter("b"));
        a.healthy("read 3 files");
        assert_eq!(board.overall(), Health::Degraded, "b has done nothing yet");
        b.healthy("ok");
        assert_eq!(board.overall(), Health::Healthy);
        clock.advance(Duration::from_secs(5));
        a.healthy("read 4 files");
        let row = &board.components()[0];
        assert_eq!((row.since, row.last_report), (Timestamp::from_secs(10), Timestamp::from_secs(15)));
        a.unhealthy("disk gone");
        assert_eq!(board.overall(), Health::Unhealthy);
        a.retire();
        assert_eq!(board.overall(), Health::Healthy);
    }
}
