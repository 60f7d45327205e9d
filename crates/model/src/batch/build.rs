//! Writing batches.

use super::{SeriesKind, wire};
use crate::{EntityMeta, Timestamp, proto};
use bytes::Bytes;

/// Builds the payload of one batch. Reusable: [`Self::finish`] leaves it empty with its capacity kept.
#[derive(Debug, Default)]
pub struct BatchBuilder {
    entities: Vec<u8>,
    n_entities: u32,
    fingerprints: Vec<u8>,
    entity: Vec<u8>,
    any_entity_but_first: bool,
    rows: Vec<u32>,
    any_rows_but_one: bool,
    kinds: Vec<u8>,
    any_kind_but_gauge: bool,
    timestamps: Vec<u8>,
    values: Vec<u8>,
    dictionary: Vec<u8>,
    previous_labels: Vec<u8>,
    last_time: i64,
    newest: Option<Timestamp>,
    oldest: Option<Timestamp>,
    logs: Vec<u8>,
    n_logs: usize,
    spans: Vec<u8>,
    n_spans: usize,
}

impl BatchBuilder {
    /// Adds an entity; the index is for [`Self::series`], [`Self::log`] and [`Self::span`]. The caller sees to it that
    /// one entity is added once.
    pub fn entity(&mut self, meta: &EntityMeta) -> u32 {
        let message = proto::Entity {
            id: meta.id.as_str().into(),
            service: meta.service.clone(),
            version: meta.version.clone(),
            environment: meta.environment.clone(),
            owner: meta.owner.clone(),
            synthetic: meta.synthetic,
        };
        put_message(&mut self.entities, 2, &message);
        self.n_entities += 1;
        self.n_entities - 1
    }

    /// Begins a series; [`Self::sample`] adds to it. `labels`: wire form, see [`super::labels`].
    #[inline]
    pub fn series(&mut self, fingerprint: u64, entity: u32, kind: SeriesKind, labels: &[u8]) {
        self.fingerprints.extend_from_slice(&fingerprint.to_le_bytes());
        wire::put_varint(&mut self.entity, u64::from(entity));
        self.any_entity_but_first |= entity != 0;
        self.kinds.push(kind as u8);
        self.any_kind_but_gauge |= kind != SeriesKind::Gauge;
        self.any_rows_but_one |= self.rows.last().is_some_and(|n| *n != 1);
        self.rows.push(0);
        let shared = common_prefix(&self.previous_labels, labels);
        let (before, now) = (&self.previous_labels[shared..], &labels[shared..]);
        let shared_end = common_suffix(before, now);
        let middle = &now[..now.len() - shared_end];
        for n in [shared, shared_end, middle.len()] {
            wire::put_varint(&mut self.dictionary, n as u64);
        }
        self.dictionary.extend_from_slice(middle);
        self.previous_labels.clear();
        self.previous_labels.extend_from_slice(labels);
    }

    /// Adds a sample to the series begun last. Without one it is ignored.
    #[inline]
    pub fn sample(&mut self, at: Timestamp, value: f64) {
        let Some(rows) = self.rows.last_mut() else { return };
        *rows += 1;
        wire::put_varint(&mut self.timestamps, wire::zigzag(at.0.wrapping_sub(self.last_time)));
        self.last_time = at.0;
        self.values.extend_from_slice(&value.to_le_bytes());
        self.saw(at);
    }

    /// Adds a log line; its `entity` is an index from [`Self::entity`].
    pub fn log(&mut self, line: &proto::LogLine) {
        put_message(&mut self.logs, 4, line);
        self.n_logs += 1;
        self.saw(Timestamp(line.time_ns));
    }

    /// Adds a span; its `entity` is an index from [`Self::entity`].
    pub fn span(&mut self, span: &proto::Span) {
        put_message(&mut self.spans, 5, span);
        self.n_spans += 1;
        self.saw(Timestamp(span.start_ns));
    }

    #[inline]
    fn saw(&mut self, at: Timestamp) {
        self.newest = Some(self.newest.map_or(at, |t| t.max(at)));
        self.oldest = Some(self.oldest.map_or(at, |t| t.min(at)));
    }

    /// Event time of the newest item.
    pub const fn newest(&self) -> Option<Timestamp> {
        self.newest
    }

    /// Event time of the oldest item.
    pub const fn oldest(&self) -> Option<Timestamp> {
        self.oldest
    }

    /// Samples in it.
    pub const fn n_samples(&self) -> usize {
        self.values.len() / 8
    }

    /// Log lines in it.
    pub const fn n_logs(&self) -> usize {
        self.n_logs
    }

    /// Spans in it.
    pub const fn n_spans(&self) -> usize {
        self.n_spans
    }

    /// Entities in it.
    pub const fn n_entities(&self) -> u32 {
        self.n_entities
    }

    /// Whether there is nothing to send.
    pub const fn is_empty(&self) -> bool {
        self.values.is_empty() && self.n_logs == 0 && self.n_spans == 0
    }

    /// About how long the payload will be, bytes.
    pub const fn estimated_bytes(&self) -> usize {
        self.entities.len()
            + self.fingerprints.len()
            + self.timestamps.len()
            + self.values.len()
            + self.dictionary.len()
            + self.logs.len()
            + self.spans.len()
            + 64
    }

    /// The payload, a `nightshift.v1.TelemetryBatch`. Leaves the builder empty.
    pub fn finish(&mut self, source: &str) -> Bytes {
        self.any_rows_but_one |= self.rows.last().is_some_and(|n| *n != 1);
        let mut rows = Vec::new();
        if self.any_rows_but_one {
            for n in &self.rows {
                wire::put_varint(&mut rows, u64::from(*n));
            }
        }
        let none: &[u8] = &[];
        let columns: [(u8, &[u8]); 7] = [
            (1, &self.fingerprints),
            (2, if self.any_entity_but_first { &self.entity } else { none }),
            (3, &rows),
            (4, if self.any_kind_but_gauge { &self.kinds } else { none }),
            (5, &self.timestamps),
            (6, &self.values),
            (7, &self.dictionary),
        ];
        let varint_len = |n: usize| (64 - (n as u64 | 1).leading_zeros() as usize).div_ceil(7);
        let block: usize =
            columns.iter().filter(|(_, c)| !c.is_empty()).map(|(_, c)| 1 + varint_len(c.len()) + c.len()).sum();
        let mut out =
            Vec::with_capacity(block + self.entities.len() + self.logs.len() + self.spans.len() + source.len() + 24);
        put_bytes(&mut out, 1, source.as_bytes());
        out.extend_from_slice(&self.entities);
        if block > 0 {
            out.push(wire::tag(3, wire::LEN));
            wire::put_varint(&mut out, block as u64);
            for (field, column) in columns {
                put_bytes(&mut out, field, column);
            }
        }
        out.extend_from_slice(&self.logs);
        out.extend_from_slice(&self.spans);
        self.clear();
        out.into()
    }

    /// Forgets everything but the capacity.
    pub fn clear(&mut self) {
        let Self {
            entities,
            fingerprints,
            entity,
            kinds,
            timestamps,
            values,
            dictionary,
            previous_labels,
            logs,
            spans,
            ..
        } = self;
        for column in
            [entities, fingerprints, entity, kinds, timestamps, values, dictionary, previous_labels, logs, spans]
        {
            column.clear();
        }
        self.rows.clear();
        self.n_entities = 0;
        self.any_entity_but_first = false;
        self.any_rows_but_one = false;
        self.any_kind_but_gauge = false;
        self.last_time = 0;
        self.newest = None;
        self.oldest = None;
        self.n_logs = 0;
        self.n_spans = 0;
    }
}

fn put_bytes(out: &mut Vec<u8>, field: u8, bytes: &[u8]) {
    if bytes.is_empty() {
        return;
    }
    out.push(wire::tag(field, wire::LEN));
    wire::put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn put_message(out: &mut Vec<u8>, field: u8, message: &impl prost::Message) {
    out.push(wire::tag(field, wire::LEN));
    wire::put_varint(out, message.encoded_len() as u64);
    message.encode_raw(out);
}

/// Bytes equal at the start, eight at a time.
#[inline]
fn common_prefix(a: &[u8], b: &[u8]) -> usize {
    let n = a.len().min(b.len());
    let (a, b) = (&a[..n], &b[..n]);
    let mut at = 0;
    for (x, y) in a.chunks_exact(8).zip(b.chunks_exact(8)) {
        let x = u64::from_le_bytes(x.try_into().unwrap_or_default());
        let y = u64::from_le_bytes(y.try_into().unwrap_or_default());
        if x != y {
            return at + ((x ^ y).trailing_zeros() / 8) as usize;
        }
        at += 8;
    }
    at + a[at..].iter().zip(&b[at..]).take_while(|(x, y)| x == y).count()
}

/// Bytes equal at the end, eight at a time.
#[inline]
fn common_suffix(a: &[u8], b: &[u8]) -> usize {
    let n = a.len().min(b.len());
    let (a, b) = (&a[a.len() - n..], &b[b.len() - n..]);
    let mut at = 0;
    for (x, y) in a.rchunks_exact(8).zip(b.rchunks_exact(8)) {
        let x = u64::from_le_bytes(x.try_into().unwrap_or_default());
        let y = u64::from_le_bytes(y.try_into().unwrap_or_default());
        if x != y {
            return at + ((x ^ y).leading_zeros() / 8) as usize;
        }
        at += 8;
    }
    at + a[..n - at].iter().rev().zip(b[..n - at].iter().rev()).take_while(|(x, y)| x == y).count()
}
