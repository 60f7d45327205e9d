//! [`Ingest`] as the [`Sink`] of all sources.

use super::rules::Reason;
use super::{Ingest, What, Writer};
use crate::resolve::{Origin, Resolved};
use crate::{Accepted, Attributes, LogEntry, MetricPoint, Sink, SinkError, SpanEntry};
use async_trait::async_trait;
use nightshift_health::BySource;
use nightshift_model::batch::labels;
use nightshift_model::hash::hash128;
use nightshift_model::time::NANOS_PER_SEC;
use nightshift_model::{Anomaly, Change, EnvelopeId, Observation, OccurrenceId, proto, topics};
use std::sync::Arc;

/// Attributes of a resource that tell one instance from another of the same entity, and the label each becomes.
const INSTANCE_LABELS: [(&str, &str); 7] = [
    ("k8s.pod.name", "pod"),
    ("k8s.container.name", "container"),
    ("service.instance.id", "instance"),
    ("instance", "instance"),
    ("job", "job"),
    // Only where the entity is not that host or service itself.
    ("host.name", "host"),
    ("service.name", "service"),
];

/// Resolves the resources of a call; neighbours share theirs.
struct Resources<'a> {
    ingest: &'a Ingest,
    last: Option<(Arc<Attributes>, Resolved)>,
}

impl Resources<'_> {
    fn of(&mut self, resource: &Arc<Attributes>) -> &Resolved {
        if !self.last.as_ref().is_some_and(|(known, _)| Arc::ptr_eq(known, resource)) {
            self.last = None;
        }
        let ingest = self.ingest;
        let (_, resolved) = self
            .last
            .get_or_insert_with(|| (resource.clone(), ingest.resolver.resolve_or_reporter(&**resource, &Origin::OWN)));
        resolved
    }
}

/// The labels of a point in wire form: its own, its name, and those that tell instances apart.
fn labels_of(point: &MetricPoint, resolved: &Resolved, limits: &super::Limits) -> Result<Vec<u8>, Reason> {
    if point.name.is_empty() {
        return Err(Reason::NoName);
    }
    let kind = resolved.meta.id.kind_str();
    let mut found: Vec<(&str, &str)> = Vec::with_capacity(point.labels.len() + 4);
    found.push((labels::NAME, &point.name));
    found.extend(point.labels.iter().filter(|(n, _)| n != labels::NAME).map(|(n, v)| (n.as_str(), v.as_str())));
    if found.iter().any(|(name, _)| name.is_empty()) {
        return Err(Reason::BadLabels);
    }
    for (attribute, label) in INSTANCE_LABELS {
        if label != kind
            && let Some(value) = point.resource.get(attribute)
        {
            found.push((label, value));
        }
    }
    let wire = labels::encode(found.iter().copied());
    if found.len() > limits.labels_max + INSTANCE_LABELS.len() || wire.len() > limits.label_bytes_max {
        return Err(Reason::LabelLimit);
    }
    Ok(wire)
}

impl Ingest {
    fn put_points(&self, writer: &mut Writer<'_>, points: &[MetricPoint]) {
        let mut resources = Resources { ingest: self, last: None };
        for point in points {
            let resolved = resources.of(&point.resource);
            let taken = labels_of(point, resolved, &self.limits)
                .and_then(|wire| Ok((writer.know(resolved, &wire, point.kind, true)?, wire)));
            match taken {
                Ok((known, wire)) => writer.put_samples(&known, &wire, &[(point.at, point.value)]),
                Err(reason) => writer.tally.count(reason, 1),
            }
        }
    }

    /// Puts lines into batches. Gives the keys of those that a later call would repeat, and whether there are lines of
    /// which that cannot be told.
    fn put_lines(&self, writer: &mut Writer<'_>, source: &str, lines: Vec<LogEntry>) -> (Vec<u128>, bool) {
        let mut resources = Resources { ingest: self, last: None };
        let key_of = |line: &LogEntry, entity: &str| {
            let at = line.at.0.to_le_bytes();
            hash128(&[entity.as_bytes(), &at, line.stream.as_bytes(), line.body.as_bytes()])
        };
        let keys: Vec<_> = lines.iter().map(|l| key_of(l, resources.of(&l.resource).meta.id.as_str())).collect();
        let seen = self.dedup.seen_all(source, &keys);
        let (mut fresh, mut ambiguous) = (Vec::with_capacity(lines.len()), false);
        for ((mut line, key), seen) in lines.into_iter().zip(keys).zip(seen) {
            // Two equal lines of one second are common where clocks write whole seconds; with a finer time the second
            // one is a repeated delivery.
            let exact = line.at.0 % NANOS_PER_SEC != 0;
            if exact && seen {
                writer.tally.duplicates += 1;
                continue;
            }
            if !writer.check_time(line.at) {
                continue;
            }
            let resolved = resources.of(&line.resource);
            let entity = match writer.intern(resolved) {
                Ok(entity) => entity,
                Err(reason) => {
                    writer.tally.count(reason, 1);
                    continue;
                }
            };
            if line.body.len() > self.limits.line_bytes_max {
                let max = self.limits.line_bytes_max;
                let end = (0..=max).rev().find(|i| line.body.is_char_boundary(*i)).unwrap_or(0);
                line.body.truncate(end);
                writer.tally.count(Reason::LineCut, 1);
            }
            let Some((batches, ingest)) = writer.batches() else { continue };
            let Some((batch, place)) = batches.of(entity.shard, entity.index, &ingest.entities) else { continue };
            batch.log(&proto::LogLine {
                entity: place,
                time_ns: line.at.0,
                severity: u32::from(line.severity),
                body: line.body,
                trace_id: line.trace_id.map(Vec::from).unwrap_or_default(),
                span_id: line.span_id.map(Vec::from).unwrap_or_default(),
                stream: line.stream,
                fingerprint: key as u64,
            });
            batches.close_if_full(entity.shard, source);
            writer.tally.accepted += 1;
            if exact {
                fresh.push(key);
            } else {
                ambiguous = true;
            }
        }
        (fresh, ambiguous)
    }

    fn put_spans(&self, writer: &mut Writer<'_>, source: &str, spans: Vec<SpanEntry>) {
        let mut resources = Resources { ingest: self, last: None };
        for SpanEntry { resource, mut span } in spans {
            if !writer.check_time(nightshift_model::Timestamp(span.start_ns)) {
                continue;
            }
            let entity = match writer.intern(resources.of(&resource)) {
                Ok(entity) => entity,
                Err(reason) => {
                    writer.tally.count(reason, 1);
                    continue;
                }
            };
            let Some((batches, ingest)) = writer.batches() else { continue };
            let Some((batch, place)) = batches.of(entity.shard, entity.index, &ingest.entities) else { continue };
            span.entity = place;
            batch.span(&span);
            batches.close_if_full(entity.shard, source);
            writer.tally.accepted += 1;
        }
    }

    fn count_changes(&self, source: &str, n: u64) {
        self.metrics.changes_received.get_or_create(&BySource { source: source.to_owned().into() }).inc_by(n);
    }
}

#[async_trait]
impl Sink for Ingest {
    async fn metrics(&self, source: &str, points: Vec<MetricPoint>) -> Result<Accepted, SinkError> {
        let mut writer = Writer::new(self, source, &Origin::OWN);
        self.put_points(&mut writer, &points);
        Ok(writer.commit(What::Samples, None, false).await?.to_accepted())
    }

    async fn logs(&self, source: &str, lines: Vec<LogEntry>) -> Result<Accepted, SinkError> {
        let mut writer = Writer::new(self, source, &Origin::OWN);
        let (fresh, ambiguous) = self.put_lines(&mut writer, source, lines);
        let tally = writer.commit(What::Logs, None, ambiguous).await?;
        self.dedup.remember(source, fresh.into_iter().map(|k| (k, 1)));
        Ok(tally.to_accepted())
    }

    async fn spans(&self, source: &str, spans: Vec<SpanEntry>) -> Result<Accepted, SinkError> {
        let mut writer = Writer::new(self, source, &Origin::OWN);
        self.put_spans(&mut writer, source, spans);
        Ok(writer.commit(What::Spans, None, false).await?.to_accepted())
    }

    async fn changes(&self, source: &str, changes: Vec<(Attributes, Change)>) -> Result<Accepted, SinkError> {
        let now = self.clock.now();
        let rule = super::rules::TimeRule::at(now, &self.limits);
        let (mut tally, mut records, mut keys) = (super::Tally::default(), Vec::new(), Vec::new());
        for (resource, mut change) in changes {
            // A deployment of yesterday is still news; one of tomorrow is a wrong clock.
            if rule.check(change.at) == Err(Reason::TooNew) {
                tally.count(Reason::TooNew, 1);
                continue;
            }
            if self.dedup.seen(source, change.id.0).is_some() || keys.contains(&change.id.0) {
                tally.duplicates += 1;
                continue;
            }
            if let Some(found) = self.resolver.resolve(&resource, &Origin::OWN) {
                if change.entity.is_none() {
                    self.entities.intern(&found, now);
                    change.entity = Some(found.meta.id.clone());
                }
                if change.service.is_empty() {
                    change.service = found.meta.service;
                }
            }
            change.tenant.clone_from(&self.tenant);
            if change.source.is_empty() {
                source.clone_into(&mut change.source);
            }
            if let Some(record) = self.control(change.id, "nightshift.v1.Change", change.at, now, &change) {
                keys.push(change.id.0);
                records.push(record);
                tally.accepted += 1;
            }
        }
        tally.report(source, &self.metrics);
        if !records.is_empty() {
            self.publish(source, topics::CHANGES_OBSERVED, records).await?;
            self.dedup.remember(source, keys.into_iter().map(|k| (k, 1)));
            self.count_changes(source, tally.accepted);
            self.tell_topology(now).await;
        }
        Ok(tally.to_accepted())
    }

    async fn alerts(&self, source: &str, alerts: Vec<(Attributes, Anomaly)>) -> Result<Accepted, SinkError> {
        let now = self.clock.now();
        let (mut tally, mut records, mut keys) = (super::Tally::default(), Vec::new(), Vec::new());
        for (resource, mut alert) in alerts {
            let found = self.resolver.resolve_or_reporter(&resource, &Origin::OWN);
            let synthetic = alert.entity.synthetic;
            self.entities.intern(&found, now);
            alert.entity = found.meta;
            alert.entity.synthetic = synthetic;
            alert.tenant.clone_from(&self.tenant);
            if alert.source.is_empty() {
                source.clone_into(&mut alert.source);
            }
            // The entity is part of both.
            let id = alert.entity.id.as_str();
            alert.fingerprint = Anomaly::fingerprint_of(&alert.tenant, id, alert.kind, &alert.signal, &alert.labels);
            alert.id = OccurrenceId::derive(alert.fingerprint, alert.onset);
            let Ok(text) = serde_json::to_vec(&alert) else {
                tally.count(Reason::BadLabels, 1);
                continue;
            };
            let id = EnvelopeId::derive(&[b"alert", &text]);
            if self.dedup.seen(source, id.0).is_some() || keys.contains(&id.0) {
                tally.duplicates += 1;
                continue;
            }
            if let Some(record) = self.control(id, "nightshift.v1.Anomaly", alert.last_seen, now, &alert) {
                keys.push(id.0);
                records.push(record);
                tally.accepted += 1;
            }
        }
        tally.report(source, &self.metrics);
        if !records.is_empty() {
            self.publish(source, topics::ANOMALIES_DETECTED, records).await?;
            self.dedup.remember(source, keys.into_iter().map(|k| (k, 1)));
            self.count_changes(source, tally.accepted);
            self.tell_topology(now).await;
        }
        Ok(tally.to_accepted())
    }

    async fn topology(&self, _source: &str, learned: Vec<Observation>) -> Result<Accepted, SinkError> {
        let accepted = learned.len() as u64;
        self.entities.tell(learned);
        self.tell_topology(self.clock.now()).await;
        Ok(Accepted { accepted, ..Accepted::default() })
    }
}
