//! Test injection: made-up readings of a made-up entity through the real bus and the whole loop.
//!
//! Every call makes a fresh entity, marked synthetic: it pages nobody, teaches nothing, and a repeated call finds its
//! one anomaly and one incident again. Contracts §2 has the figures.

use crate::agents::Told;
use nightshift_bus::{Bus, BusError, Outgoing};
use nightshift_model::batch::{BatchBuilder, SeriesKind, labels};
use nightshift_model::{
    Clock, EntityId, EntityMeta, Envelope, EnvelopeId, Incident, IncidentId, IncidentStatus, Operation, Routing,
    Timestamp, hash, topics,
};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::broadcast;

/// Longest that a call waits for the loop.
const WAIT_MAX: Duration = Duration::from_secs(15);
/// Time between injected readings.
const STEP: Duration = Duration::from_secs(1);
/// Normal readings after the trouble.
const RECOVERY: usize = 3;
/// Pods of a `storm`.
const STORM_PODS: usize = 20;

/// What is injected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// 35 readings near 50 and one of 200.
    Burst,
    /// 60 readings near 50 and one of 120.
    Spike,
    /// 60 readings near 50, then 60 that climb.
    Drift,
    /// 60 readings near 50, then 60 that stand still.
    Flatline,
    /// 60 readings near 50, then 40 that swing between 20 and 80.
    Oscillation,
    /// A burst of every pod of one service.
    Storm,
}

impl Mode {
    /// Every mode with its name in the query.
    pub(crate) const ALL: [(&str, Self); 6] = [
        ("burst", Self::Burst),
        ("spike", Self::Spike),
        ("drift", Self::Drift),
        ("flatline", Self::Flatline),
        ("oscillation", Self::Oscillation),
        ("storm", Self::Storm),
    ];

    /// The mode with this name.
    pub(crate) fn parse(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(n, _)| *n == name).map(|(_, m)| *m)
    }

    fn name(self) -> &'static str {
        Self::ALL.iter().find(|(_, m)| *m == self).map_or("burst", |(n, _)| n)
    }

    /// The readings, oldest first.
    fn readings(self) -> Vec<f64> {
        let calm = |n: usize| (0..n).map(near_50);
        match self {
            Self::Burst | Self::Storm => calm(35).chain([200.0]).collect(),
            Self::Spike => calm(60).chain([120.0]).collect(),
            Self::Drift => calm(60).chain((1..=60).map(|i| 50.0 + f64::from(i))).collect(),
            Self::Flatline => calm(60).chain(std::iter::repeat_n(50.0, 60)).collect(),
            Self::Oscillation => calm(60).chain((0..40).map(|i| if i % 2 == 0 { 80.0 } else { 20.0 })).collect(),
        }
    }
}

/// A reading near 50: a fixed sequence that looks like noise, within 1.5 of it.
fn near_50(i: usize) -> f64 {
    50.0 + ((i * 7_919 % 11) as f64 - 5.0) * 0.3
}

/// Why an injection did not happen.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InjectError {
    /// The bus did not take it.
    #[error("publish the injected readings")]
    Bus(#[from] BusError),
    /// Bad words in the request.
    #[error("{0}")]
    Bad(String),
}

/// Injects.
pub(crate) struct TestInjector {
    /// Where readings go.
    pub bus: Arc<dyn Bus>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Tenant of the injected entities.
    pub tenant: String,
    /// Cluster of the injected entities.
    pub cluster: String,
    /// What the relay tells.
    pub told: broadcast::Sender<Arc<Told>>,
}

impl TestInjector {
    /// Injects and waits for what the loop makes of it.
    ///
    /// # Errors
    /// When the words are bad or the bus does not take it.
    pub(crate) async fn inject(&self, mode: Mode, source: &str, signal: &str) -> Result<Value, InjectError> {
        for (what, text) in [("source", source), ("signal", signal)] {
            let fine = !text.is_empty() && text.len() <= 100 && !text.chars().any(char::is_control);
            if !fine {
                return Err(InjectError::Bad(format!(
                    "`{what}` must have 1 to 100 characters and no control characters"
                )));
            }
        }
        let mut told = self.told.subscribe();
        let begun = self.clock.now();
        let call = format!("{:x}", begun.nanos());
        let pods = if mode == Mode::Storm { STORM_PODS } else { 1 };
        let entities: Vec<EntityMeta> = (0..pods)
            .map(|i| EntityMeta {
                service: source.into(),
                synthetic: true,
                // Of this call alone: the pods of a storm belong together, those of two calls do not.
                environment: format!("test-{call}"),
                ..EntityMeta::bare(if pods == 1 {
                    EntityId::new(&self.cluster, "service", &format!("test-{call}"), source)
                } else {
                    EntityId::new(&self.cluster, "pod", &format!("test-{call}"), &format!("{source}-{i}"))
                })
            })
            .collect();
        let readings = mode.readings();
        // The newest of all, recovery included, is of now.
        let first = begun - STEP * u32::try_from(readings.len() + RECOVERY - 1).unwrap_or(0);
        self.publish(&entities, signal, first, &readings, begun).await?;
        let mut found: BTreeMap<IncidentId, Incident> = BTreeMap::new();
        // Judged and rehearsed: from here on the loop waits for the signal to recover.
        self.wait(&mut told, &entities, &mut found, begun, |found| found.values().any(is_rehearsed)).await;
        let recovery: Vec<f64> = (0..RECOVERY).map(near_50).collect();
        let after = first + STEP * u32::try_from(readings.len()).unwrap_or(0);
        self.publish(&entities, signal, after, &recovery, begun).await?;
        // Late symptoms of a storm, and its merging, still count.
        if mode == Mode::Storm {
            self.wait(&mut told, &entities, &mut found, self.clock.now(), |found| {
                found.values().map(|i| i.anomalies_total).sum::<u64>() >= STORM_PODS as u64
            })
            .await;
        }
        let settled = |found: &BTreeMap<IncidentId, Incident>| {
            found.values().all(|i| !i.status.is_open()) || !found.values().any(is_rehearsed)
        };
        // What drifts or swings has no band that three readings could be back in.
        if matches!(mode, Mode::Burst | Mode::Spike | Mode::Storm) {
            self.wait(&mut told, &entities, &mut found, self.clock.now(), settled).await;
        }
        let loop_ms = self.clock.now().since(begun).as_secs_f64() * 1e3;
        Ok(answer(mode, pods * readings.len(), pods * RECOVERY, loop_ms, &found))
    }

    async fn publish(
        &self,
        entities: &[EntityMeta],
        signal: &str,
        first: Timestamp,
        readings: &[f64],
        now: Timestamp,
    ) -> Result<(), BusError> {
        let mut records = Vec::with_capacity(entities.len());
        let labels = labels::encode([(labels::NAME, signal)]);
        for meta in entities {
            let mut batch = BatchBuilder::default();
            let entity = batch.entity(meta);
            let fingerprint = hash::series_fingerprint(&self.tenant, meta.id.as_str(), &labels);
            batch.series(fingerprint, entity, SeriesKind::Gauge, &labels);
            for (i, value) in readings.iter().enumerate() {
                batch.sample(first + STEP * u32::try_from(i).unwrap_or(u32::MAX), *value);
            }
            let newest = batch.newest().unwrap_or(first);
            let payload = batch.finish("test-injection");
            let routing = Routing::Shard(hash::shard_of(&self.tenant, &self.cluster, meta.id.as_str()));
            let envelope = Envelope {
                id: EnvelopeId::derive(&[b"inject", &payload]),
                tenant: self.tenant.clone(),
                cluster: self.cluster.clone(),
                routing: routing.clone(),
                traceparent: String::new(),
                event_time: newest,
                ingest_time: now,
                schema: "nightshift.v1.TelemetryBatch".into(),
                payload,
            };
            records.push(Outgoing { routing, bytes: envelope.encode() });
        }
        self.bus.publish(topics::TELEMETRY_RAW.name, records).await
    }

    async fn wait(
        &self,
        told: &mut broadcast::Receiver<Arc<Told>>,
        entities: &[EntityMeta],
        found: &mut BTreeMap<IncidentId, Incident>,
        since: Timestamp,
        done: impl Fn(&BTreeMap<IncidentId, Incident>) -> bool,
    ) {
        let ours = |i: &Incident| i.anomalies.iter().any(|a| entities.iter().any(|e| e.id == a.entity.id));
        while !done(found) {
            let left = WAIT_MAX.saturating_sub(self.clock.now().since(since));
            match tokio::time::timeout(left, told.recv()).await {
                Ok(Ok(news)) => {
                    if ours(&news.incident) {
                        found.insert(news.incident.id, news.incident.clone());
                    }
                }
                Ok(Err(broadcast::error::RecvError::Lagged(_))) => {}
                // Closed, or the time is up: what is there is answered.
                Ok(Err(broadcast::error::RecvError::Closed)) | Err(_) => return,
            }
        }
    }
}

/// Whether all that happens before the signal recovers has happened: the guard spoke and the plan was tried without
/// effect, or it will not be.
fn is_rehearsed(incident: &Incident) -> bool {
    let tried = incident.actions.iter().any(|a| a.action.operation == Operation::DryRun && a.outcome.is_some());
    tried
        || matches!(incident.status, IncidentStatus::Resolved | IncidentStatus::Escalated | IncidentStatus::Monitoring)
}

fn answer(mode: Mode, injected: usize, recovery: usize, loop_ms: f64, found: &BTreeMap<IncidentId, Incident>) -> Value {
    let incidents: Vec<&Incident> = found.values().filter(|i| i.merged_into.is_none()).collect();
    let anomalies: Vec<Value> = incidents
        .iter()
        .flat_map(|i| &i.anomalies)
        .map(|a| {
            json!({
                "signal": format!("{}.{}", a.entity.service, a.signal),
                "score": a.score,
                "severity": a.severity,
                "description": a.description,
                "entity": a.entity.id,
                "explanation": a.explanation,
            })
        })
        .collect();
    json!({
        "status": format!("{}_complete", mode.name()),
        "events_injected": injected,
        "recovery_events": recovery,
        "anomalies_found": anomalies.len(),
        "incidents_created": incidents.len(),
        // From the first injected reading to the resolution, on the wall.
        "mttr_ms": loop_ms,
        "anomalies": anomalies,
        "incidents": incidents.iter().map(|i| json!({
            "id": i.short_id(),
            "severity": i.severity,
            "status": i.status,
            "title": i.title,
            "timeline": i.timeline,
        })).collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn burst_is_the_one_of_the_contract() {
        let readings = Mode::Burst.readings();
        assert_eq!(readings.len(), 36);
        assert_eq!(readings[35], 200.0);
        assert!(readings[..35].iter().all(|v| (v - 50.0).abs() <= 1.5));
        let mean = readings[..35].iter().sum::<f64>() / 35.0;
        assert!((mean - 50.0).abs() < 0.2, "{mean}");
    }

    #[test]
    fn every_mode_has_its_name() {
        for (name, mode) in Mode::ALL {
            assert_eq!(Mode::parse(name), Some(mode));
            assert_eq!(mode.name(), name);
        }
        assert_eq!(Mode::parse("boom"), None);
    }
}
