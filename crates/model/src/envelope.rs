//! The envelope around every record of the bus.

use crate::{EnvelopeId, Timestamp, proto};
use bytes::Bytes;
use prost::Message as _;

/// Newest major version of payload schemas that this program reads.
pub const SCHEMA_VERSION: u32 = 1;

/// What decides the partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Routing {
    /// Shard of `telemetry.raw`, which is the partition.
    Shard(u32),
    /// Anything else; the partition is its hash.
    Key(String),
}

impl Routing {
    /// The partition among `partitions`.
    pub fn partition(&self, partitions: u32) -> u32 {
        match self {
            Self::Shard(shard) => shard % partitions.max(1),
            Self::Key(key) => (crate::hash::hash64(key.as_bytes()) % u64::from(partitions.max(1))) as u32,
        }
    }
}

/// Why bytes are no envelope that this program can use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EnvelopeError {
    /// Not protobuf, or not of this shape.
    #[error("decode envelope: {0}")]
    Malformed(String),
    /// Written by a newer program; kept in dead-letter until one that knows it comes.
    #[error("envelope of schema version {found}, this program knows {SCHEMA_VERSION}")]
    NewerVersion {
        /// Its version.
        found: u32,
    },
}

impl EnvelopeError {
    /// Stable word for labels and dead-letter reasons.
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Malformed(_) => "malformed",
            Self::NewerVersion { .. } => "newer_version",
        }
    }
}

/// A record of any topic.
#[derive(Debug, Clone, PartialEq)]
pub struct Envelope {
    /// Equal ids are the same record, delivered again.
    pub id: EnvelopeId,
    /// Tenant.
    pub tenant: String,
    /// Cluster.
    pub cluster: String,
    /// What decides the partition.
    pub routing: Routing,
    /// W3C trace context, empty when there is none.
    pub traceparent: String,
    /// When what it tells happened.
    pub event_time: Timestamp,
    /// When we took it in.
    pub ingest_time: Timestamp,
    /// Type of the payload, `nightshift.v1.TelemetryBatch` …
    pub schema: String,
    /// Untouched by relays.
    pub payload: Bytes,
}

impl Envelope {
    /// A control record: `value` as JSON.
    ///
    /// # Errors
    /// When `value` has keys that JSON cannot write.
    pub fn json<T: serde::Serialize>(
        id: EnvelopeId,
        tenant: &str,
        routing: Routing,
        schema: &str,
        event_time: Timestamp,
        ingest_time: Timestamp,
        value: &T,
    ) -> Result<Self, serde_json::Error> {
        Ok(Self {
            id,
            tenant: tenant.into(),
            cluster: String::new(),
            routing,
            traceparent: String::new(),
            event_time,
            ingest_time,
            schema: schema.into(),
            payload: serde_json::to_vec(value)?.into(),
        })
    }

    /// Reads a control record's payload.
    ///
    /// # Errors
    /// What is wrong with the JSON.
    pub fn read_json<T: serde::de::DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        serde_json::from_slice(&self.payload)
    }

    /// The wire form.
    pub fn encode(&self) -> Bytes {
        self.to_proto().encode_to_vec().into()
    }

    fn to_proto(&self) -> proto::Envelope {
        proto::Envelope {
            version: SCHEMA_VERSION,
            id: self.id.to_bytes().to_vec(),
            tenant: self.tenant.clone(),
            cluster: self.cluster.clone(),
            routing: Some(match &self.routing {
                Routing::Shard(s) => proto::envelope::Routing::Shard(*s),
                Routing::Key(k) => proto::envelope::Routing::Key(k.clone()),
            }),
            traceparent: self.traceparent.clone(),
            event_time_ns: self.event_time.0,
            ingest_time_ns: self.ingest_time.0,
            schema: self.schema.clone(),
            payload: self.payload.clone(),
        }
    }

    /// Reads the wire form; the payload is a slice of `bytes`, not a copy.
    ///
    /// # Errors
    /// [`EnvelopeError`] with the reason for dead-letter.
    pub fn decode(bytes: Bytes) -> Result<Self, EnvelopeError> {
        let e = proto::Envelope::decode(bytes).map_err(|e| EnvelopeError::Malformed(e.to_string()))?;
        if e.version > SCHEMA_VERSION {
            return Err(EnvelopeError::NewerVersion { found: e.version });
        }
        let id = EnvelopeId::from_slice(&e.id)
            .ok_or_else(|| EnvelopeError::Malformed(format!("id of {} bytes, not 16", e.id.len())))?;
        Ok(Self {
            id,
            tenant: e.tenant,
            cluster: e.cluster,
            routing: match e.routing {
                Some(proto::envelope::Routing::Shard(s)) => Routing::Shard(s),
                Some(proto::envelope::Routing::Key(k)) => Routing::Key(k),
                None => return Err(EnvelopeError::Malformed("neither shard nor key".into())),
            },
            traceparent: e.traceparent,
            event_time: Timestamp(e.event_time_ns),
            ingest_time: Timestamp(e.ingest_time_ns),
            schema: e.schema,
            payload: e.payload,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Envelope {
        Envelope {
            id: EnvelopeId(7),
            tenant: "default".into(),
            cluster: "local".into(),
            routing: Routing::Shard(3),
            traceparent: String::new(),
            event_time: Timestamp(-5),
            ingest_time: Timestamp(9),
            schema: "nightshift.v1.TelemetryBatch".into(),
            payload: Bytes::from_static(b"abc"),
        }
    }

    #[test]
    fn round_trip() {
        assert_eq!(Envelope::decode(sample().encode()), Ok(sample()));
    }

    #[test]
    fn bad_bytes_and_newer_versions_have_their_reason() {
        let newer = proto::Envelope { version: 2, ..sample().to_proto() }.encode_to_vec();
        let no_id = proto::Envelope { id: vec![1], ..sample().to_proto() }.encode_to_vec();
        let no_key = proto::Envelope { routing: None, ..sample().to_proto() }.encode_to_vec();
        for (bytes, reason) in
            [(newer, "newer_version"), (no_id, "malformed"), (no_key, "malformed"), (vec![0xff; 9], "malformed")]
        {
            assert_eq!(Envelope::decode(bytes.into()).unwrap_err().reason(), reason);
        }
    }
}
