//! 128-bit ids, written as 32 hexadecimal digits.

use crate::Timestamp;
use crate::hash::hash128;
use std::fmt;

macro_rules! id128 {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name(pub u128);

        impl $name {
            /// The id as 16 bytes, most significant first.
            pub const fn to_bytes(self) -> [u8; 16] {
                self.0.to_be_bytes()
            }

            /// From 16 bytes; `None` for any other length.
            pub fn from_slice(bytes: &[u8]) -> Option<Self> {
                bytes.try_into().ok().map(|b| Self(u128::from_be_bytes(b)))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:032x}", self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({:032x})"), self.0)
            }
        }

        impl std::str::FromStr for $name {
            type Err = String;
            fn from_str(text: &str) -> Result<Self, String> {
                if text.len() == 32 && text.bytes().all(|b| b.is_ascii_hexdigit()) {
                    u128::from_str_radix(text, 16).map(Self).map_err(|e| e.to_string())
                } else {
                    Err(format!("`{text}` is not an id of 32 hexadecimal digits"))
                }
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.collect_str(self)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(d)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

id128!(
    /// One occurrence of an anomaly: hash of its fingerprint and its onset.
    OccurrenceId
);
id128!(
    /// An incident: hash of its tenant and its first occurrence. Never changes; people see [`short_incident`].
    IncidentId
);
id128!(
    /// A record on the bus. Equal ids are one record, delivered again.
    EnvelopeId
);

impl OccurrenceId {
    /// The id of the anomaly with this fingerprint that began at `onset`.
    pub fn derive(fingerprint: u64, onset: Timestamp) -> Self {
        Self(hash128(&[&fingerprint.to_be_bytes(), &onset.0.to_be_bytes()]))
    }
}

impl IncidentId {
    /// The id of the incident that `first` opens.
    pub fn derive(tenant: &str, first: OccurrenceId) -> Self {
        Self(hash128(&[tenant.as_bytes(), &first.to_bytes()]))
    }
}

impl EnvelopeId {
    /// An id from what the record says: the same content and purpose give the same id, so a retry is recognised.
    pub fn derive(parts: &[&[u8]]) -> Self {
        Self(hash128(parts))
    }
}

/// The short form that people see, `INC-0001`.
pub fn short_incident(number: u64) -> String {
    format!("INC-{number:04}")
}

/// Reads the short form, any case, leading zeros or not; `None` when it is not one.
pub fn parse_short_incident(text: &str) -> Option<u64> {
    let digits = text.get(..4).filter(|p| p.eq_ignore_ascii_case("INC-")).map(|_| &text[4..])?;
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    digits.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_ids_round_trip_and_reject_others() {
        assert_eq!(parse_short_incident(&short_incident(7)), Some(7));
        assert_eq!(parse_short_incident("inc-12345"), Some(12345));
        for bad in ["", "INC-", "INC", "INC--1", "INC-+1", "INC-1x", "ÏNC-1", "99999999999999999999"] {
            assert_eq!(parse_short_incident(bad), None, "{bad}");
        }
    }

    #[test]
    fn ids_round_trip_as_text() {
        let id = IncidentId(0x0123_4567_89ab_cdef);
        assert_eq!(id.to_string().parse(), Ok(id));
        assert!("xyz".parse::<IncidentId>().is_err());
    }
}
