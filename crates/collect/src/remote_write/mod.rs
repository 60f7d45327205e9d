//! Prometheus remote write 1.0 and 2.0: `POST /api/v1/write`.
//!
//! Lives here: both messages, snappy, and the answers that the protocol wants. Never here: what becomes of a sample
//! (see [`crate::ingest`]).
//!
//! A request is taken whole or, where single samples cannot be taken (too old, too far ahead, bad labels), in part:
//! then the rest is written and the answer is 400 with the reasons, as the protocol says, so that the client does not
//! send it again.

mod handler;
mod histogram;
mod snappy;
mod v1;
mod v2;
pub(crate) mod wire;

pub(crate) use handler::sink_error;
pub use handler::{RemoteWriteConfig, RemoteWriteState, router};
#[doc(hidden)]
pub use snappy::fuzz_snappy;
pub use snappy::{SnappyError, decompress};
pub use wire::WireError;

use crate::SinkError;
use crate::ingest::{Ingest, Tally, What, Writer};
use crate::resolve::Origin;
use nightshift_model::batch::SeriesKind;
use nightshift_model::hash::hash128;

/// Version of the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// `prometheus.WriteRequest`.
    V1,
    /// `io.prometheus.write.v2.Request`.
    V2,
}

/// What a request held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Counts {
    pub(crate) samples: u64,
    pub(crate) histograms: u64,
    pub(crate) exemplars: u64,
}

/// What became of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Written {
    /// Of its samples.
    pub tally: Tally,
    /// Samples that the client need not send again: taken, repeated, or without a meaning to us (NaN, stale markers).
    pub samples: u64,
    /// Native histograms likewise; each becomes several series.
    pub histograms: u64,
}

/// Why nothing of a request was taken.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// Not snappy, or too large.
    #[error(transparent)]
    Snappy(#[from] SnappyError),
    /// Not the message that it says.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// It could not be published.
    #[error(transparent)]
    Sink(#[from] SinkError),
}

/// Takes one request. `body`: as it came, compressed; `limit`: largest decompressed body, bytes.
///
/// # Errors
/// When nothing of it was taken; the client may send it again after [`WriteError::Sink`].
pub async fn write(
    ingest: &Ingest,
    source: &str,
    origin: &Origin,
    version: Version,
    body: &[u8],
    limit: usize,
) -> Result<Written, WriteError> {
    let request = hash128(&[&origin.seed().to_le_bytes(), body]);
    if let Some(tally) = ingest.seen_request(source, request) {
        return Ok(Written { tally, samples: tally.duplicates, histograms: 0 });
    }
    let mut writer = Writer::new(ingest, source, origin);
    let counts = fill(ingest, &mut writer, version, body, limit)?;
    let tally = writer.commit(What::Samples, Some(request), false).await?;
    // Those of histograms are among the rejected as well; a sample is not counted below zero for them.
    let refused = crate::ingest::Reason::ALL.into_iter().filter(|r| r.is_bad_data()).map(|r| tally.of(r)).sum::<u64>();
    Ok(Written { tally, samples: counts.samples.saturating_sub(refused), histograms: counts.histograms })
}

/// The part that does no I/O: from body to batches.
fn fill(
    ingest: &Ingest,
    writer: &mut Writer<'_>,
    version: Version,
    body: &[u8],
    limit: usize,
) -> Result<Counts, WriteError> {
    let mut buffer = writer.take_body();
    let filled = decompress(body, &mut buffer, limit).map_err(WriteError::from).and_then(|n| {
        let request = &buffer[..n];
        match version {
            Version::V1 => Ok(v1::walk(ingest, writer, request)?),
            Version::V2 => Ok(v2::walk(writer, request, limit)?),
        }
    });
    writer.put_body(buffer);
    filled
}

/// What Prometheus' metric type says of a series; `None`: its name decides. The numbers are those of both versions.
fn kind_of_type(metric_type: u64, name: &str) -> Option<SeriesKind> {
    match metric_type {
        1 => Some(SeriesKind::Counter),
        // A gauge, a gauge histogram, an info and a state set are levels.
        2 | 4 | 6 | 7 => Some(SeriesKind::Gauge),
        // The parts of a histogram or summary are counters by their names; a summary's quantiles are gauges.
        3 | 5 => Some(SeriesKind::from_metric_name(name)),
        _ => None,
    }
}

/// For fuzzing: a decompressed request of version 1.0, from bytes to batches.
#[cfg(any(test, feature = "testkit"))]
#[doc(hidden)]
pub fn fuzz_remote_write_v1(bytes: &[u8]) {
    fuzz(Version::V1, bytes);
}

/// For fuzzing: a decompressed request of version 2.0, from bytes to batches.
#[cfg(any(test, feature = "testkit"))]
#[doc(hidden)]
pub fn fuzz_remote_write_v2(bytes: &[u8]) {
    fuzz(Version::V2, bytes);
}

#[cfg(any(test, feature = "testkit"))]
fn fuzz(version: Version, bytes: &[u8]) {
    let ingest = crate::testkit::ingest(crate::testkit::RecordingBus::forgetful());
    let mut writer = Writer::new(&ingest, "fuzz", &Origin::OWN);
    let walked = match version {
        Version::V1 => v1::walk(&ingest, &mut writer, bytes),
        Version::V2 => v2::walk(&mut writer, bytes, 1 << 16),
    };
    if let Ok(counts) = walked {
        // Five series at most come of a histogram, one of a sample.
        assert!(writer.tally.accepted <= counts.samples + 5 * counts.histograms, "samples come from nowhere");
    }
}

#[cfg(test)]
mod tests;
