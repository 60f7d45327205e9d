//! Doubles for tests of sources: a sink that remembers, and a context around it.
//!
//! Lives here: what the tests of every source share. Never here: anything that a running Nightshift uses.

use crate::ingest::{Ingest, IngestParts, Limits};
use crate::resolve::{ResolveConfig, Resolver};
use crate::{Accepted, Attributes, LogEntry, MetricPoint, Sink, SinkError, SourceContext, SpanEntry};
use async_trait::async_trait;
use nightshift_bus::{
    Bus, BusError, Capabilities, Consumer, GroupPosition, Outgoing, PartitionInfo, Record, TopicSpec,
};
use nightshift_health::{Component, HealthBoard, SelfMetrics};
use nightshift_model::{Anomaly, Change, Clock, Envelope, ManualClock, Observation, Timestamp};
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// The moment at which [`TestContext`] stands when it is made: 2026-01-01T00:00:00Z.
pub const START: Timestamp = Timestamp::from_secs(1_767_225_600);

/// Longest that [`RecordingSink::wait_until`] waits before it fails the test. Not a measure of speed: it only turns a
/// hang into a failure.
const PATIENCE: Duration = Duration::from_secs(30);

/// Everything that was handed in, in order of arrival.
#[derive(Debug, Clone, Default)]
pub struct Recorded {
    /// Samples.
    pub metrics: Vec<MetricPoint>,
    /// Log lines.
    pub logs: Vec<LogEntry>,
    /// Spans.
    pub spans: Vec<SpanEntry>,
    /// Changes with their resource.
    pub changes: Vec<(Attributes, Change)>,
    /// Alerts with their resource.
    pub alerts: Vec<(Attributes, Anomaly)>,
    /// What was learned of the estate.
    pub topology: Vec<Observation>,
    /// Calls that were refused because the sink was told to.
    pub refused: u64,
    /// Calls that were taken.
    pub calls: u64,
}

/// A [`Sink`] that takes everything and remembers it, or is busy for as many calls as it is told.
#[derive(Debug, Default)]
pub struct RecordingSink {
    recorded: Mutex<Recorded>,
    busy_calls: Mutex<u64>,
    changed: Notify,
}

impl RecordingSink {
    /// An empty one.
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// The next `calls` calls answer [`SinkError::Busy`]; `u64::MAX` is until told otherwise.
    pub fn set_busy(&self, calls: u64) {
        *self.busy_calls.lock() = calls;
    }

    /// What came so far.
    pub fn recorded(&self) -> Recorded {
        self.recorded.lock().clone()
    }

    /// Takes what came so far, leaving nothing.
    pub fn take(&self) -> Recorded {
        std::mem::take(&mut *self.recorded.lock())
    }

    /// Waits until what came satisfies `enough`, and gives it.
    ///
    /// # Panics
    /// After 30 seconds: the test hangs otherwise.
    pub async fn wait_until(&self, enough: impl Fn(&Recorded) -> bool) -> Recorded {
        let waiting = async {
            loop {
                let changed = self.changed.notified();
                tokio::pin!(changed);
                // Listens before it looks: what comes in between is not missed.
                changed.as_mut().enable();
                let now = self.recorded();
                if enough(&now) {
                    return now;
                }
                changed.await;
            }
        };
        match tokio::time::timeout(PATIENCE, waiting).await {
            Ok(recorded) => recorded,
            Err(_) => panic!("the sink never got what the test waits for; it has {:#?}", self.recorded()),
        }
    }

    fn take_in(&self, n: usize, put: impl FnOnce(&mut Recorded)) -> Result<Accepted, SinkError> {
        let busy = {
            let mut left = self.busy_calls.lock();
            let busy = *left > 0;
            if *left != u64::MAX {
                *left = left.saturating_sub(1);
            }
            busy
        };
        let mut recorded = self.recorded.lock();
        if busy {
            recorded.refused += 1;
        } else {
            recorded.calls += 1;
            put(&mut recorded);
        }
        drop(recorded);
        self.changed.notify_waiters();
        if busy {
            return Err(SinkError::Busy { retry_after: Duration::from_millis(10) });
        }
        Ok(Accepted { accepted: n as u64, ..Accepted::default() })
    }
}

#[async_trait]
impl Sink for RecordingSink {
    async fn metrics(&self, _source: &str, points: Vec<MetricPoint>) -> Result<Accepted, SinkError> {
        self.take_in(points.len(), |r| r.metrics.extend(points))
    }

    async fn logs(&self, _source: &str, lines: Vec<LogEntry>) -> Result<Accepted, SinkError> {
        self.take_in(lines.len(), |r| r.logs.extend(lines))
    }

    async fn spans(&self, _source: &str, spans: Vec<SpanEntry>) -> Result<Accepted, SinkError> {
        self.take_in(spans.len(), |r| r.spans.extend(spans))
    }

    async fn changes(&self, _source: &str, changes: Vec<(Attributes, Change)>) -> Result<Accepted, SinkError> {
        self.take_in(changes.len(), |r| r.changes.extend(changes))
    }

    async fn alerts(&self, _source: &str, alerts: Vec<(Attributes, Anomaly)>) -> Result<Accepted, SinkError> {
        self.take_in(alerts.len(), |r| r.alerts.extend(alerts))
    }

    async fn topology(&self, _source: &str, learned: Vec<Observation>) -> Result<Accepted, SinkError> {
        self.take_in(learned.len(), |r| r.topology.extend(learned))
    }
}

/// A [`SourceContext`] over a [`RecordingSink`], with everything behind it in reach of the test.
pub struct TestContext {
    /// What the source is given.
    pub context: SourceContext,
    /// What it hands in.
    pub sink: Arc<RecordingSink>,
    /// Its clock; stands at [`START`] until moved.
    pub clock: Arc<ManualClock>,
    /// Where it reports.
    pub board: HealthBoard,
}

impl TestContext {
    /// For a source of this name.
    pub fn new(name: &str) -> Self {
        let sink = RecordingSink::new();
        let clock = Arc::new(ManualClock::at(START));
        let board = HealthBoard::new(clock.clone());
        let context = SourceContext {
            sink: sink.clone(),
            clock: clock.clone() as Arc<dyn Clock>,
            health: board.reporter(format!("{name}-collector")),
            metrics: SelfMetrics::default(),
            shutdown: CancellationToken::new(),
        };
        Self { context, sink, clock, board }
    }

    /// The source's row on the health board.
    ///
    /// # Panics
    /// When it has retired.
    pub fn health(&self) -> Component {
        let name = self.context.health.name();
        let rows = self.board.components();
        rows.into_iter().find(|c| c.name == name).unwrap_or_else(|| panic!("{name} is on the health board"))
    }
}

/// An [`Ingest`] onto this bus, with every limit at its default, on host `web1`, whose clock stands at [`START`].
pub fn ingest(bus: Arc<RecordingBus>) -> Arc<Ingest> {
    Ingest::new(IngestParts {
        tenant: nightshift_model::DEFAULT_TENANT.into(),
        limits: Limits::default(),
        resolver: Arc::new(Resolver::new(ResolveConfig::default(), "web1", &[])),
        bus,
        clock: Arc::new(ManualClock::at(START)),
        metrics: SelfMetrics::default(),
    })
}

/// A [`Bus`] that only takes: it keeps what was published for the test to read (or throws it away), and can be full.
#[derive(Debug, Default)]
pub struct RecordingBus {
    records: Mutex<Vec<(String, Outgoing)>>,
    busy_calls: Mutex<u64>,
    forget: bool,
}

impl RecordingBus {
    /// An empty one.
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// One that keeps nothing, for benches.
    pub fn forgetful() -> Arc<Self> {
        Arc::new(Self { forget: true, ..Self::default() })
    }

    /// The next `calls` publishes answer [`BusError::Backpressure`].
    pub fn set_busy(&self, calls: u64) {
        *self.busy_calls.lock() = calls;
    }

    /// The envelopes of a topic, in order.
    ///
    /// # Panics
    /// When a record is no envelope.
    pub fn envelopes(&self, topic: &str) -> Vec<Envelope> {
        let records = self.records.lock();
        let of_topic = records.iter().filter(|(t, _)| t == topic);
        of_topic.map(|(_, r)| Envelope::decode(r.bytes.clone()).unwrap_or_else(|e| panic!("{e}"))).collect()
    }

    /// Throws away what it has.
    pub fn clear(&self) {
        self.records.lock().clear();
    }
}

#[async_trait]
impl Bus for RecordingBus {
    fn kind(&self) -> &'static str {
        "recording"
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { durable: false, torn_tail_recovery: false, retention: false, multi_process: false }
    }

    async fn ensure_topics(&self, _topics: &[TopicSpec]) -> Result<(), BusError> {
        Ok(())
    }

    async fn publish(&self, topic: &str, records: Vec<Outgoing>) -> Result<(), BusError> {
        {
            let mut left = self.busy_calls.lock();
            if *left > 0 {
                *left -= 1;
                return Err(BusError::Backpressure { retry_after: Duration::from_millis(1_500) });
            }
        }
        if !self.forget {
            self.records.lock().extend(records.into_iter().map(|r| (topic.to_owned(), r)));
        }
        Ok(())
    }

    async fn consumer(&self, _group: &str, _topics: &[&str]) -> Result<Box<dyn Consumer>, BusError> {
        Err(BusError::Closed)
    }

    async fn fetch(&self, _: &str, _: u32, _: u64, _: usize) -> Result<Vec<Record>, BusError> {
        Err(BusError::Closed)
    }

    async fn partitions(&self) -> Result<Vec<PartitionInfo>, BusError> {
        Ok(Vec::new())
    }

    async fn groups(&self) -> Result<Vec<GroupPosition>, BusError> {
        Ok(Vec::new())
    }

    async fn close(&self) -> Result<(), BusError> {
        Ok(())
    }
}
