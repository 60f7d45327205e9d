//! Records that could not be used, wrapped so that nothing is lost and whoever knows better later can feed them again.

use crate::{Outgoing, Record};
use bytes::Bytes;
use nightshift_model::{Envelope, EnvelopeId, Routing, Timestamp, proto};
use prost::Message as _;

/// Schema of the payload of a dead-letter envelope.
pub const DEAD_LETTER_SCHEMA: &str = "nightshift.v1.DeadLetter";

/// What a dead-letter record holds: where a record came from, why it could not be used, and its bytes.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct DeadLetter {
    /// Stable word, e.g. [`nightshift_model::EnvelopeError::reason`].
    #[prost(string, tag = "1")]
    pub reason: String,
    /// The error in words.
    #[prost(string, tag = "2")]
    pub detail: String,
    /// Topic that it was read from.
    #[prost(string, tag = "3")]
    pub topic: String,
    /// Partition that it was read from.
    #[prost(uint32, tag = "4")]
    pub partition: u32,
    /// Offset that it was read at.
    #[prost(uint64, tag = "5")]
    pub offset: u64,
    /// The record, untouched.
    #[prost(bytes = "bytes", tag = "15")]
    pub record: Bytes,
}

impl DeadLetter {
    /// Reads the payload of a dead-letter envelope.
    ///
    /// # Errors
    /// Why these bytes are none.
    pub fn decode_payload(payload: Bytes) -> Result<Self, String> {
        Self::decode(payload).map_err(|e| format!("decode dead letter: {e}"))
    }

    /// The record as it was read; publish it to its topic again once it can be used.
    pub fn into_record(self) -> Record {
        Record { topic: self.topic.into(), partition: self.partition, offset: self.offset, bytes: self.record }
    }
}

/// Wraps a record that could not be used, for [`nightshift_model::topics::DEAD_LETTER`].
///
/// `reason` is a stable word, `detail` the error in words (cut to 1 KiB), `now` the ingest time. The id follows from
/// where the record was read, so the same record wrapped again in a replay is the same dead letter. Tenant and times
/// are taken from the record as far as it can be read.
pub fn dead_letter(reason: &str, detail: &str, record: &Record, now: Timestamp) -> Outgoing {
    let outer = proto::Envelope::decode(record.bytes.clone()).unwrap_or_default();
    let routing = Routing::Key(record.topic.to_string());
    let payload = DeadLetter {
        reason: reason.into(),
        detail: detail[..detail.floor_char_boundary(1024)].into(),
        topic: record.topic.to_string(),
        partition: record.partition,
        offset: record.offset,
        record: record.bytes.clone(),
    };
    let envelope = Envelope {
        id: EnvelopeId::derive(&[
            b"dead-letter",
            record.topic.as_bytes(),
            &record.partition.to_be_bytes(),
            &record.offset.to_be_bytes(),
        ]),
        tenant: if outer.tenant.is_empty() { nightshift_model::DEFAULT_TENANT.into() } else { outer.tenant },
        cluster: outer.cluster,
        routing: routing.clone(),
        traceparent: outer.traceparent,
        event_time: if outer.event_time_ns == 0 { now } else { Timestamp(outer.event_time_ns) },
        ingest_time: now,
        schema: DEAD_LETTER_SCHEMA.into(),
        payload: payload.encode_to_vec().into(),
    };
    Outgoing { routing, bytes: envelope.encode() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_bytes_and_where_they_came_from() {
        let record = Record {
            topic: "telemetry.raw".into(),
            partition: 3,
            offset: 77,
            bytes: Bytes::from_static(b"\xff\xffgarbage"),
        };
        let wrapped = dead_letter("malformed", &"é".repeat(2000), &record, Timestamp(5));
        assert_eq!(wrapped, dead_letter("malformed", &"é".repeat(2000), &record, Timestamp(5)));
        let envelope = Envelope::decode(wrapped.bytes).unwrap();
        assert_eq!((envelope.tenant.as_str(), envelope.event_time), (nightshift_model::DEFAULT_TENANT, Timestamp(5)));
        let inner = DeadLetter::decode_payload(envelope.payload).unwrap();
        assert_eq!((inner.reason.as_str(), inner.detail.len()), ("malformed", 1024));
        assert_eq!(inner.into_record(), record);
    }

    #[test]
    fn a_newer_version_keeps_its_tenant() {
        let newer = proto::Envelope { version: 99, tenant: "acme".into(), event_time_ns: 9, ..Default::default() };
        let record = Record { topic: "t".into(), partition: 0, offset: 0, bytes: newer.encode_to_vec().into() };
        let envelope = Envelope::decode(dead_letter("newer_version", "", &record, Timestamp(5)).bytes).unwrap();
        assert_eq!((envelope.tenant.as_str(), envelope.event_time), ("acme", Timestamp(9)));
    }

    #[test]
    fn bad_payloads_are_errors() {
        for bad in [&b"\xff"[..], b"\x0a\x05ab", b"\x7a\xff\xff\xff\xff\x0f"] {
            assert!(DeadLetter::decode_payload(Bytes::copy_from_slice(bad)).is_err(), "{bad:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..400)) {
            let record = Record { topic: "t".into(), partition: 0, offset: 0, bytes: bytes.clone().into() };
            let _ = dead_letter("malformed", "x", &record, Timestamp(1));
            let _ = DeadLetter::decode_payload(bytes.into());
        }
    }
}
