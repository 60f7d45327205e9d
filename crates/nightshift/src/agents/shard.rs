//! The rooms of one shard: telemetry batches in, anomalies out. Used by the agent that reads the bus, and by
//! everything that steps the same rooms in virtual time.

use super::feed::Feed;
use super::models::LiveModel;
use bytes::{Buf, BufMut, Bytes};
use nightshift_detect::logs::{LogConfig, LogDetector};
use nightshift_detect::metrics::StepStats;
use nightshift_detect::models::WarmStart;
use nightshift_detect::rules::{Rule, RuleConfig, RuleEngine};
use nightshift_detect::slo::Objectives;
use nightshift_detect::{Effects, MetricsConfig, SeriesBudget, ShardDetector};
use nightshift_model::batch::{BatchView, MetricColumns};
use nightshift_model::{Anomaly, Timestamp};
use nightshift_topology::{SpanJoiner, SpanJoinerConfig};
use std::sync::Arc;

/// What the rooms of every shard are built from.
#[derive(Clone)]
pub struct DetectRooms {
    /// Metric layers.
    pub metrics: Arc<MetricsConfig>,
    /// A log detector that knows nothing yet: its patterns are compiled once.
    pub logs: LogDetector,
    /// A rule engine that has seen nothing yet.
    pub rules: RuleEngine,
    /// Ceiling on live series, shared by all shards.
    pub budget: Arc<SeriesBudget>,
    /// Edges from trace spans.
    pub spans: SpanJoinerConfig,
    /// Whether features per service and minute are published to `telemetry.enriched`.
    pub export_features: bool,
    /// What the incident agent of this process is handed beside the bus.
    pub feed: Arc<Feed>,
    /// The version of the model in use.
    pub models: Arc<LiveModel>,
    /// What new series start with.
    pub warm: Option<Arc<WarmStart>>,
}

impl DetectRooms {
    /// The rooms under these settings.
    ///
    /// # Errors
    /// When a log pattern cannot be compiled.
    pub fn new(
        metrics: MetricsConfig,
        logs: LogConfig,
        rules: (RuleConfig, Vec<Rule>),
        spans: SpanJoinerConfig,
    ) -> Result<Self, nightshift_detect::logs::LogError> {
        Ok(Self {
            budget: Arc::new(SeriesBudget::new(u64::from(metrics.series_max))),
            metrics: Arc::new(metrics),
            logs: LogDetector::new(logs)?,
            rules: RuleEngine::new(rules.0, rules.1),
            spans,
            export_features: false,
            feed: Arc::default(),
            models: Arc::default(),
            warm: None,
        })
    }
}

/// Metric layers, rules and log templates of one shard.
pub struct ShardRooms {
    metrics: ShardDetector,
    logs: LogDetector,
    rules: RuleEngine,
}

impl ShardRooms {
    /// Rooms that have seen nothing yet.
    pub fn new(rooms: &DetectRooms, number: u32) -> Self {
        let mut metrics = ShardDetector::new(rooms.metrics.clone(), rooms.budget.clone(), number);
        metrics.set_warm(rooms.warm.clone());
        Self { metrics, logs: rooms.logs.clone(), rules: rooms.rules.clone() }
    }

    /// Series that are alive.
    pub fn series_live(&self) -> usize {
        self.metrics.series_live()
    }

    /// The columns of the metrics of the last batch.
    pub fn columns(&self) -> &MetricColumns {
        self.metrics.columns()
    }

    /// Steps every room with one batch; what is found is added to `effects`, what calls whom to `spans`.
    ///
    /// # Errors
    /// When the batch is not what it says it is.
    pub fn step(
        &mut self,
        tenant: &str,
        view: &mut BatchView<'_>,
        spans: &mut SpanJoiner,
        effects: &mut Effects,
        now: Timestamp,
    ) -> Result<StepStats, String> {
        let stats = self.metrics.step(tenant, view, now, effects).map_err(|e| e.to_string())?;
        self.rules.step(tenant, view, self.metrics.columns(), now, &mut effects.anomalies);
        self.logs.step(tenant, view, now, &mut effects.anomalies);
        if view.n_spans() > 0 {
            for span in view.spans() {
                let span = span.map_err(|e| e.to_string())?;
                let entity = view.entity(span.entity).map_err(|e| e.to_string())?;
                if !entity.synthetic {
                    spans.observe(tenant, &entity.id, &span, now);
                }
            }
        }
        Ok(stats)
    }

    /// These objectives hold from now on. Ends of alarms of those that are gone are added to `effects`.
    pub fn set_objectives(&mut self, objectives: Arc<Objectives>, effects: &mut Effects) {
        self.metrics.set_objectives(objectives, &mut effects.anomalies);
    }

    /// Time passed.
    pub fn tick(&mut self, now: Timestamp, effects: &mut Effects) {
        self.metrics.tick(now, effects);
        self.logs.tick(now, &mut effects.anomalies);
        self.rules.tick(now, &mut effects.anomalies);
    }

    /// The metric layers go on under the configuration of the rooms, with what they know.
    ///
    /// # Errors
    /// When the state does not come back; then nothing changed.
    pub fn reconfigure(&mut self, rooms: &DetectRooms) -> Result<(), String> {
        let state = self.metrics.snapshot();
        let metrics = ShardDetector::restore(rooms.metrics.clone(), rooms.budget.clone(), &state);
        self.metrics = metrics.map_err(|e| e.to_string())?;
        self.metrics.set_warm(rooms.warm.clone());
        Ok(())
    }

    /// Appends the state of the rooms.
    pub fn encode(&mut self, out: &mut Vec<u8>) {
        for part in [self.metrics.snapshot(), self.logs.snapshot(), self.rules.snapshot()] {
            out.put_u32(u32::try_from(part.len()).expect("a shard's state is far below 4 GiB"));
            out.put_slice(&part);
        }
    }

    /// Takes a state off the front of `bytes`: the rooms, and the ends of what rules that are gone or changed had
    /// raised.
    ///
    /// # Errors
    /// When the bytes are no such state.
    pub fn decode(rooms: &DetectRooms, bytes: &mut Bytes) -> Result<(Self, Vec<Anomaly>), String> {
        const SHORT: &str = "snapshot ends early";
        let mut part = || -> Result<Bytes, String> {
            let n = bytes.try_get_u32().map_err(|_| SHORT)? as usize;
            if n > bytes.remaining() {
                return Err(SHORT.into());
            }
            Ok(bytes.split_to(n))
        };
        let (metrics, logs_state, rules_state) = (part()?, part()?, part()?);
        let (mut logs, mut rules) = (rooms.logs.clone(), rooms.rules.clone());
        logs.restore(&logs_state).map_err(|e| e.to_string())?;
        let closed = rules.restore(&rules_state).map_err(|e| e.to_string())?;
        let mut metrics =
            ShardDetector::restore(rooms.metrics.clone(), rooms.budget.clone(), &metrics).map_err(|e| e.to_string())?;
        metrics.set_warm(rooms.warm.clone());
        Ok((Self { metrics, logs, rules }, closed))
    }
}
