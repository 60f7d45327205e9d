//! Telemetry batches: what the hot path is made of.
//!
//! [`BatchBuilder`] writes and [`BatchView`] reads `nightshift.v1.TelemetryBatch` by hand, column by column, without
//! an allocation per sample: both ends run for every sample there is. A test proves that the bytes are the protobuf
//! that `proto/nightshift/v1/bus.proto` describes. Dictionaries are front-coded (Witten, Moffat and Bell, *Managing
//! Gigabytes*, §4.1): neighbouring series differ in a label or two, so most of a definition is "as before".

mod build;
pub mod labels;
mod view;

pub use build::BatchBuilder;
pub use view::{BatchError, BatchView, MetricColumns};

/// Largest payload of one batch that a reader accepts, bytes.
pub const BATCH_BYTES_MAX: usize = 8 << 20;

/// Most bytes of labels that one series may have.
pub const LABEL_BYTES_MAX: usize = 64 << 10;

/// What the values of a series mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[repr(u8)]
pub enum SeriesKind {
    /// A level: used as it is.
    #[default]
    Gauge = 0,
    /// Grows, and starts again at zero: scored as a rate per second.
    Counter = 1,
    /// What came since the sample before: scored as a rate per second.
    Delta = 2,
}

impl SeriesKind {
    /// From its wire form; unknown ones are gauges.
    pub const fn from_u8(v: u8) -> Self {
        match v {
            1 => Self::Counter,
            2 => Self::Delta,
            _ => Self::Gauge,
        }
    }

    /// What Prometheus' naming rules say of a metric whose type was not told.
    pub fn from_metric_name(name: &str) -> Self {
        let counter = ["_total", "_count", "_sum", "_bucket"].iter().any(|s| name.ends_with(s));
        if counter { Self::Counter } else { Self::Gauge }
    }
}

/// Protobuf wire types used here.
mod wire {
    pub(super) const LEN: u8 = 2;

    /// Tag byte of a field with a number below 16.
    pub(super) const fn tag(field: u8, wire_type: u8) -> u8 {
        field << 3 | wire_type
    }

    #[inline]
    pub(super) fn put_varint(out: &mut Vec<u8>, mut v: u64) {
        while v >= 0x80 {
            out.push(v as u8 | 0x80);
            v >>= 7;
        }
        out.push(v as u8);
    }

    #[inline]
    pub(super) const fn zigzag(v: i64) -> u64 {
        ((v << 1) ^ (v >> 63)) as u64
    }

    #[inline]
    pub(super) const fn unzigzag(v: u64) -> i64 {
        (v >> 1) as i64 ^ -((v & 1) as i64)
    }

    /// Reads a varint from the front of `rest`.
    #[inline]
    pub(super) fn varint(rest: &mut &[u8]) -> Option<u64> {
        let (&first, tail) = rest.split_first()?;
        if first < 0x80 {
            *rest = tail;
            return Some(u64::from(first));
        }
        let mut v = 0u64;
        for (i, &b) in rest.iter().enumerate().take(10) {
            if i == 9 && b > 1 {
                return None;
            }
            v |= u64::from(b & 0x7f) << (7 * i);
            if b < 0x80 {
                *rest = &rest[i + 1..];
                return Some(v);
            }
        }
        None
    }

    /// Reads a length and that many bytes.
    #[inline]
    pub(super) fn bytes<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
        let n = usize::try_from(varint(rest)?).ok()?;
        let (head, tail) = rest.split_at_checked(n)?;
        *rest = tail;
        Some(head)
    }

    /// Skips a field whose tag was read.
    pub(super) fn skip(rest: &mut &[u8], wire_type: u8) -> Option<()> {
        match wire_type {
            0 => varint(rest).map(|_| ()),
            1 => rest.split_at_checked(8).map(|(_, t)| *rest = t),
            2 => bytes(rest).map(|_| ()),
            5 => rest.split_at_checked(4).map(|(_, t)| *rest = t),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests;
