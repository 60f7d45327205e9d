//! Reading batches.

use super::{BATCH_BYTES_MAX, LABEL_BYTES_MAX, SeriesKind, wire};
use crate::{EntityId, EntityMeta, Timestamp, proto};
use prost::Message as _;

/// Why bytes are no batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    /// More than [`BATCH_BYTES_MAX`].
    #[error("batch of {0} bytes, at most {BATCH_BYTES_MAX} are read")]
    TooLarge(usize),
    /// Not protobuf.
    #[error("batch is not protobuf")]
    NotProtobuf,
    /// Columns of different length.
    #[error("columns of a batch differ in length")]
    Columns,
    /// An index that points nowhere, or an entity id that is none.
    #[error("batch names an entity that it does not hold")]
    Entity,
    /// Front-coding that points outside.
    #[error("dictionary of a batch is broken")]
    Dictionary,
}

/// The columns of a metric block, decoded into buffers that are used again.
#[derive(Debug, Default, Clone)]
pub struct MetricColumns {
    /// One per series.
    pub fingerprint: Vec<u64>,
    /// One per series: index of its entity.
    pub entity: Vec<u32>,
    /// One per series: how many rows it has.
    pub rows: Vec<u32>,
    /// One per series.
    pub kind: Vec<SeriesKind>,
    /// One per row, nanoseconds.
    pub timestamp: Vec<i64>,
    /// One per row.
    pub value: Vec<f64>,
}

/// A batch, its parts not yet decoded.
#[derive(Debug, Clone)]
pub struct BatchView<'a> {
    source: &'a str,
    entities: Vec<&'a [u8]>,
    metrics: &'a [u8],
    dictionary: &'a [u8],
    logs: Vec<&'a [u8]>,
    spans: Vec<&'a [u8]>,
}

impl<'a> BatchView<'a> {
    /// Finds the parts of a payload.
    ///
    /// # Errors
    /// When it is too large or not protobuf.
    pub fn parse(payload: &'a [u8]) -> Result<Self, BatchError> {
        if payload.len() > BATCH_BYTES_MAX {
            return Err(BatchError::TooLarge(payload.len()));
        }
        let mut view = Self {
            source: "",
            entities: Vec::new(),
            metrics: &[],
            dictionary: &[],
            logs: Vec::new(),
            spans: Vec::new(),
        };
        let mut rest = payload;
        while !rest.is_empty() {
            let tag = wire::varint(&mut rest).ok_or(BatchError::NotProtobuf)?;
            if tag & 7 != u64::from(wire::LEN) {
                wire::skip(&mut rest, (tag & 7) as u8).ok_or(BatchError::NotProtobuf)?;
                continue;
            }
            let part = wire::bytes(&mut rest).ok_or(BatchError::NotProtobuf)?;
            match tag >> 3 {
                1 => view.source = std::str::from_utf8(part).map_err(|_| BatchError::NotProtobuf)?,
                2 => view.entities.push(part),
                3 => view.metrics = part,
                4 => view.logs.push(part),
                5 => view.spans.push(part),
                _ => {}
            }
        }
        Ok(view)
    }

    /// The source that made it.
    pub const fn source(&self) -> &'a str {
        self.source
    }

    /// How many entities it names.
    pub fn n_entities(&self) -> usize {
        self.entities.len()
    }

    /// One of its entities as it is on the wire: equal bytes are an equal entity, so a reader need decode it only once.
    pub fn entity_bytes(&self, index: u32) -> Option<&'a [u8]> {
        self.entities.get(index as usize).copied()
    }

    /// One of its entities.
    ///
    /// # Errors
    /// When the index or the id is bad.
    pub fn entity(&self, index: u32) -> Result<EntityMeta, BatchError> {
        let bytes = self.entities.get(index as usize).ok_or(BatchError::Entity)?;
        let e = proto::Entity::decode(*bytes).map_err(|_| BatchError::NotProtobuf)?;
        Ok(EntityMeta {
            id: EntityId::parse(&e.id).map_err(|_| BatchError::Entity)?,
            service: e.service,
            version: e.version,
            environment: e.environment,
            owner: e.owner,
            synthetic: e.synthetic,
        })
    }

    /// Decodes the metric columns into `out` and checks that they fit together. Without metrics all are empty.
    ///
    /// # Errors
    /// When they do not fit.
    pub fn metrics(&mut self, out: &mut MetricColumns) -> Result<(), BatchError> {
        let MetricColumns { fingerprint, entity, rows, kind, timestamp, value } = out;
        fingerprint.clear();
        entity.clear();
        rows.clear();
        kind.clear();
        timestamp.clear();
        value.clear();
        self.dictionary = &[];
        let mut rest = self.metrics;
        let mut last = 0i64;
        while !rest.is_empty() {
            let tag = wire::varint(&mut rest).ok_or(BatchError::NotProtobuf)?;
            if tag & 7 != u64::from(wire::LEN) {
                wire::skip(&mut rest, (tag & 7) as u8).ok_or(BatchError::NotProtobuf)?;
                continue;
            }
            let mut part = wire::bytes(&mut rest).ok_or(BatchError::NotProtobuf)?;
            match tag >> 3 {
                1 => fingerprint.extend(fixed64(part)?.map(u64::from_le_bytes)),
                2 => varints(part, entity)?,
                3 => varints(part, rows)?,
                4 => kind.extend(part.iter().map(|k| SeriesKind::from_u8(*k))),
                5 => {
                    while !part.is_empty() {
                        let delta = wire::unzigzag(wire::varint(&mut part).ok_or(BatchError::NotProtobuf)?);
                        last = last.wrapping_add(delta);
                        timestamp.push(last);
                    }
                }
                6 => value.extend(fixed64(part)?.map(f64::from_le_bytes)),
                7 => self.dictionary = part,
                _ => {}
            }
        }
        let n = fingerprint.len();
        for (column, default) in [(&mut *entity, 0), (&mut *rows, 1)] {
            if column.is_empty() {
                column.resize(n, default);
            }
        }
        if kind.is_empty() {
            kind.resize(n, SeriesKind::Gauge);
        }
        let n_rows: u64 = rows.iter().map(|r| u64::from(*r)).sum();
        if entity.len() != n
            || rows.len() != n
            || kind.len() != n
            || timestamp.len() as u64 != n_rows
            || value.len() as u64 != n_rows
        {
            return Err(BatchError::Columns);
        }
        if entity.iter().any(|e| *e as usize >= self.entities.len()) {
            return Err(BatchError::Entity);
        }
        Ok(())
    }

    /// Calls `f` with each series' index and labels (wire form), in order, until it returns `false`. Call
    /// [`Self::metrics`] first.
    ///
    /// # Errors
    /// When the front-coding is broken.
    pub fn for_each_series(&self, mut f: impl FnMut(usize, &[u8]) -> bool) -> Result<(), BatchError> {
        let mut rest = self.dictionary;
        let (mut labels, mut next) = (Vec::new(), Vec::new());
        let mut i = 0;
        while !rest.is_empty() {
            let mut number = || wire::varint(&mut rest).and_then(|v| usize::try_from(v).ok());
            let (Some(start), Some(end), Some(between)) = (number(), number(), number()) else {
                return Err(BatchError::Dictionary);
            };
            let shared = start.checked_add(end).filter(|n| *n <= labels.len()).ok_or(BatchError::Dictionary)?;
            let (middle, tail) = rest.split_at_checked(between).ok_or(BatchError::Dictionary)?;
            rest = tail;
            if shared + between > LABEL_BYTES_MAX {
                return Err(BatchError::Dictionary);
            }
            next.clear();
            next.extend_from_slice(&labels[..start]);
            next.extend_from_slice(middle);
            next.extend_from_slice(&labels[labels.len() - end..]);
            std::mem::swap(&mut labels, &mut next);
            if !f(i, &labels) {
                return Ok(());
            }
            i += 1;
        }
        Ok(())
    }

    /// How many log lines it has.
    pub fn n_logs(&self) -> usize {
        self.logs.len()
    }

    /// Its log lines, decoded one at a time.
    pub fn logs(&self) -> impl Iterator<Item = Result<proto::LogLine, BatchError>> {
        self.logs.iter().map(|b| proto::LogLine::decode(*b).map_err(|_| BatchError::NotProtobuf))
    }

    /// How many spans it has.
    pub fn n_spans(&self) -> usize {
        self.spans.len()
    }

    /// Its spans, decoded one at a time.
    pub fn spans(&self) -> impl Iterator<Item = Result<proto::Span, BatchError>> {
        self.spans.iter().map(|b| proto::Span::decode(*b).map_err(|_| BatchError::NotProtobuf))
    }
}

impl MetricColumns {
    /// Event time of the newest row.
    pub fn newest(&self) -> Option<Timestamp> {
        self.timestamp.iter().max().map(|t| Timestamp(*t))
    }
}

fn fixed64(part: &[u8]) -> Result<impl Iterator<Item = [u8; 8]>, BatchError> {
    let (chunks, rest) = part.as_chunks::<8>();
    if rest.is_empty() { Ok(chunks.iter().copied()) } else { Err(BatchError::NotProtobuf) }
}

fn varints(mut part: &[u8], out: &mut Vec<u32>) -> Result<(), BatchError> {
    while !part.is_empty() {
        let v = wire::varint(&mut part).ok_or(BatchError::NotProtobuf)?;
        out.push(u32::try_from(v).map_err(|_| BatchError::NotProtobuf)?);
    }
    Ok(())
}
