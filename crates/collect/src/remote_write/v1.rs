//! `prometheus.WriteRequest`, the message of remote write 1.0.
//!
//! The walk takes no memory per sample: the labels of a series go as they are (they are the wire form of our batches),
//! samples through a buffer that is used again.

use super::histogram;
use super::wire::{BROKEN, WireError, bytes, sample, skip, varint};
use super::{Counts, kind_of_type};
use crate::ingest::{Ingest, Writer};
use nightshift_model::Timestamp;

/// Walks a request and hands its series to `writer`.
pub(crate) fn walk(ingest: &Ingest, writer: &mut Writer<'_>, request: &[u8]) -> Result<Counts, WireError> {
    let (mut scattered, mut samples) = writer.take_parts();
    let mut counts = Counts::default();
    let mut rest = request;
    let result = loop {
        if rest.is_empty() {
            break Ok(counts);
        }
        let step = (|| match varint(&mut rest)? {
            0x0a => series(writer, bytes(&mut rest)?, &mut scattered, &mut samples, &mut counts),
            0x1a => metadata(ingest, bytes(&mut rest)?),
            tag => skip(&mut rest, tag),
        })();
        if let Err(e) = step {
            break Err(e);
        }
    };
    writer.put_parts(scattered, samples);
    result
}

/// `TimeSeries { labels = 1; samples = 2; exemplars = 3; histograms = 4 }`.
#[inline]
fn series(
    writer: &mut Writer<'_>,
    message: &[u8],
    scattered: &mut Vec<u8>,
    samples: &mut Vec<(Timestamp, f64)>,
    counts: &mut Counts,
) -> Result<(), WireError> {
    samples.clear();
    let mut rest = message;
    // Every client writes the labels in one piece. Should one not, they are gathered.
    let (mut start, mut end) = (0, 0);
    let mut is_scattered = false;
    let mut any_histogram = false;
    while !rest.is_empty() {
        let before = rest;
        match varint(&mut rest)? {
            0x0a => {
                bytes(&mut rest)?;
                let (from, to) = (message.len() - before.len(), message.len() - rest.len());
                if is_scattered {
                    scattered.extend_from_slice(&message[from..to]);
                } else if end == 0 {
                    (start, end) = (from, to);
                } else if from == end {
                    end = to;
                } else {
                    is_scattered = true;
                    scattered.clear();
                    scattered.extend_from_slice(&message[start..end]);
                    scattered.extend_from_slice(&message[from..to]);
                }
            }
            0x12 => {
                let (at_ms, value) = sample(bytes(&mut rest)?)?;
                samples.push((Timestamp::from_millis(at_ms), value));
            }
            0x1a => {
                bytes(&mut rest)?;
                counts.exemplars += 1;
            }
            0x22 => {
                bytes(&mut rest)?;
                any_histogram = true;
            }
            tag => skip(&mut rest, tag)?,
        }
    }
    let labels = if is_scattered { &scattered[..] } else { &message[start..end] };
    counts.samples += samples.len() as u64;
    if !samples.is_empty() {
        writer.series(labels, None, samples);
    }
    if any_histogram {
        let mut rest = message;
        while !rest.is_empty() {
            match varint(&mut rest)? {
                0x22 => {
                    histogram::put(writer, labels, bytes(&mut rest)?)?;
                    counts.histograms += 1;
                }
                tag => skip(&mut rest, tag)?,
            }
        }
    }
    Ok(())
}

/// `MetricMetadata { type = 1; metric_family_name = 2; help = 4; unit = 5 }`.
fn metadata(ingest: &Ingest, mut rest: &[u8]) -> Result<(), WireError> {
    let (mut metric_type, mut name) = (0, "");
    while !rest.is_empty() {
        match varint(&mut rest)? {
            0x08 => metric_type = varint(&mut rest)?,
            0x12 => name = std::str::from_utf8(bytes(&mut rest)?).map_err(|_| BROKEN)?,
            tag => skip(&mut rest, tag)?,
        }
    }
    if let Some(kind) = kind_of_type(metric_type, name)
        && !name.is_empty()
    {
        ingest.learn_kind(name, kind);
    }
    Ok(())
}
