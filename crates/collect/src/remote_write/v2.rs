//! `io.prometheus.write.v2.Request`, the message of remote write 2.0: labels are references into a table of symbols.

use super::wire::{BROKEN, WireError, bytes, sample, skip, varint};
use super::{Counts, histogram, kind_of_type};
use crate::ingest::Writer;
use nightshift_model::Timestamp;
use nightshift_model::batch::labels;

/// Labels of all series of a request written out may take this many times the decompressed limit: a symbol of a
/// megabyte is cheap to refer to a million times.
const EXPANSION_MAX: usize = 4;

const EXPANDED: WireError = WireError("labels of the request take too many bytes when written out; send fewer series");

/// Walks a request and hands its series to `writer`. `limit`: largest decompressed body, bytes.
pub(crate) fn walk(writer: &mut Writer<'_>, request: &[u8], limit: usize) -> Result<Counts, WireError> {
    let mut symbols = Vec::new();
    let mut rest = request;
    // Protobuf allows the symbols after the series that refer to them.
    while !rest.is_empty() {
        match varint(&mut rest)? {
            0x22 => symbols.push(
                std::str::from_utf8(bytes(&mut rest)?)
                    .map_err(|_| WireError("a symbol of the request is not UTF-8"))?,
            ),
            tag => skip(&mut rest, tag)?,
        }
    }
    if symbols.first().is_some_and(|s| !s.is_empty()) {
        return Err(WireError("the first symbol of the request is not the empty string"));
    }
    let (mut wire, mut samples) = writer.take_parts();
    let mut walk = Walk { symbols: &symbols, counts: Counts::default(), room: limit.saturating_mul(EXPANSION_MAX) };
    let mut rest = request;
    let result = loop {
        if rest.is_empty() {
            break Ok(walk.counts);
        }
        let step = (|| match varint(&mut rest)? {
            0x2a => walk.series(writer, bytes(&mut rest)?, &mut wire, &mut samples),
            tag => skip(&mut rest, tag),
        })();
        if let Err(e) = step {
            break Err(e);
        }
    };
    writer.put_parts(wire, samples);
    result
}

struct Walk<'a> {
    symbols: &'a [&'a str],
    counts: Counts,
    room: usize,
}

impl<'a> Walk<'a> {
    fn symbol(&self, rest: &mut &[u8]) -> Result<&'a str, WireError> {
        let index = usize::try_from(varint(rest)?).map_err(|_| BROKEN)?;
        self.symbols.get(index).copied().ok_or(WireError("a label refers to a symbol that is not there"))
    }

    /// `TimeSeries { labels_refs = 1; samples = 2; histograms = 3; exemplars = 4; metadata = 5; created_timestamp = 6 }`.
    /// A created timestamp is not needed: the detectors see a counter that starts again by its value.
    fn series(
        &mut self,
        writer: &mut Writer<'_>,
        message: &[u8],
        wire: &mut Vec<u8>,
        samples: &mut Vec<(Timestamp, f64)>,
    ) -> Result<(), WireError> {
        wire.clear();
        samples.clear();
        let mut metric_type = 0;
        let mut metric = "";
        let mut any_histogram = false;
        // A reference that waits for its value, where references are not packed.
        let mut pending = None;
        let mut rest = message;
        while !rest.is_empty() {
            let tag = varint(&mut rest)?;
            let mut packed: &[u8] = &[];
            match tag {
                0x0a => packed = bytes(&mut rest)?,
                0x08 => {
                    let start = rest;
                    varint(&mut rest)?;
                    packed = &start[..start.len() - rest.len()];
                }
                0x12 => {
                    let (at_ms, value) = sample(bytes(&mut rest)?)?;
                    samples.push((Timestamp::from_millis(at_ms), value));
                }
                0x1a => {
                    bytes(&mut rest)?;
                    any_histogram = true;
                }
                0x22 => {
                    bytes(&mut rest)?;
                    self.counts.exemplars += 1;
                }
                0x2a => metric_type = metadata_type(bytes(&mut rest)?)?,
                tag => skip(&mut rest, tag)?,
            }
            while !packed.is_empty() {
                let symbol = self.symbol(&mut packed)?;
                let Some(name) = pending.take() else {
                    pending = Some(symbol);
                    continue;
                };
                if name == labels::NAME {
                    metric = symbol;
                }
                if wire.len() + name.len() + symbol.len() > self.room {
                    return Err(EXPANDED);
                }
                labels::push(wire, name, symbol);
            }
        }
        if pending.is_some() {
            return Err(WireError("a label of the request has a name and no value"));
        }
        self.room = self.room.checked_sub(wire.len()).ok_or(EXPANDED)?;
        self.counts.samples += samples.len() as u64;
        let kind = kind_of_type(metric_type, metric);
        if !samples.is_empty() {
            writer.series(wire, kind, samples);
        }
        if any_histogram {
            let mut rest = message;
            while !rest.is_empty() {
                match varint(&mut rest)? {
                    0x1a => {
                        // Each becomes up to five series of these labels.
                        self.room = self.room.checked_sub(5 * wire.len()).ok_or(EXPANDED)?;
                        histogram::put(writer, wire, bytes(&mut rest)?)?;
                        self.counts.histograms += 1;
                    }
                    tag => skip(&mut rest, tag)?,
                }
            }
        }
        Ok(())
    }
}

/// `Metadata { type = 1; help_ref = 3; unit_ref = 4 }`.
fn metadata_type(mut rest: &[u8]) -> Result<u64, WireError> {
    let mut metric_type = 0;
    while !rest.is_empty() {
        match varint(&mut rest)? {
            0x08 => metric_type = varint(&mut rest)?,
            tag => skip(&mut rest, tag)?,
        }
    }
    Ok(metric_type)
}
