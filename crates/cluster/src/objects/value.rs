//! Values that must not be kept: what is left of them is their size, a hash, and the host that they name.

use serde::Deserialize;
use serde::de::{Deserializer, SeqAccess, Visitor};
use sha2::{Digest, Sha256};
use std::fmt;

/// Longest value in which a host is looked for, bytes.
const HOST_BYTES_MAX: usize = 512;

/// What is kept of a value: never the value.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Blob {
    /// Bytes.
    pub size: usize,
    /// First 8 bytes of its SHA-256: tells whether it changed.
    pub hash: u64,
    /// `host` or `host:port` when the whole value is one, or is a URL (user names and passwords are left out). Never of
    /// a secret.
    pub endpoint: Option<Box<str>>,
    /// Scheme of the URL that names that host (`http`, `jdbc:postgresql`), lower case.
    pub scheme: Option<Box<str>>,
}

impl Blob {
    /// Of a value that is no secret.
    pub fn open(value: &str) -> Self {
        let (scheme, endpoint) = endpoint(value).unzip();
        Self {
            endpoint: endpoint.map(Into::into),
            scheme: scheme.filter(|s| !s.is_empty()).map(Into::into),
            ..Self::secret(value.as_bytes())
        }
    }

    /// Of a secret.
    pub fn secret(value: &[u8]) -> Self {
        let digest = Sha256::digest(value);
        let hash = digest.iter().take(8).fold(0, |sum, b| (sum << 8) | u64::from(*b));
        Self { size: value.len(), hash, endpoint: None, scheme: None }
    }
}

impl<'de> Deserialize<'de> for Blob {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = Option::<std::borrow::Cow<'de, str>>::deserialize(d)?.unwrap_or_default();
        Ok(Self::open(&text))
    }
}

/// The scheme (empty without one) and `host[:port]` that a value is, or that its URL names.
fn endpoint(value: &str) -> Option<(String, String)> {
    let value = value.trim();
    if value.is_empty() || value.len() > HOST_BYTES_MAX || value.contains(char::is_whitespace) {
        return None;
    }
    let (scheme, rest) = match value.split_once("://") {
        Some((scheme, rest)) if scheme.chars().all(|c| c.is_ascii_alphanumeric() || "+-.:".contains(c)) => {
            (Some(scheme), rest)
        }
        Some(_) => return None,
        None => (None, value),
    };
    let is_url = scheme.is_some();
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    // Credentials go; without a scheme an `@` makes it an address of something else.
    let host = match authority.rsplit_once('@') {
        Some((_, host)) if is_url => host,
        Some(_) => return None,
        None => authority,
    };
    let (name, port) = host.rsplit_once(':').map_or((host, None), |(n, p)| (n, Some(p)));
    let good_port = port.is_none_or(|p| p.parse::<u16>().is_ok_and(|n| n > 0));
    let label = |l: &str| {
        !l.is_empty() && l.len() <= 63 && l.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_')
    };
    let good_name = !name.is_empty() && name.len() <= 253 && name.trim_end_matches('.').split('.').all(label);
    // A bare word or number alone is no host: something must say so.
    let says_so = is_url || port.is_some() || name.ends_with(".svc") || name.contains(".svc.");
    let scheme = scheme.unwrap_or_default().to_ascii_lowercase();
    (good_port && good_name && says_so).then(|| (scheme, host.to_ascii_lowercase()))
}

/// The first word of a list, the rest unread: arguments may hold secrets.
pub(super) fn first_word<'de, D: Deserializer<'de>>(d: D) -> Result<Option<String>, D::Error> {
    struct First;
    impl<'de> Visitor<'de> for First {
        type Value = Option<String>;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a list of words")
        }
        fn visit_unit<E>(self) -> Result<Self::Value, E> {
            Ok(None)
        }
        fn visit_none<E>(self) -> Result<Self::Value, E> {
            Ok(None)
        }
        fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
            let first = seq.next_element()?;
            while seq.next_element::<serde::de::IgnoredAny>()?.is_some() {}
            Ok(first)
        }
    }
    d.deserialize_any(First)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_found_and_credentials_are_not() {
        for (value, found) in [
            ("http://api.shop:8080/v1", Some("api.shop:8080")),
            ("postgres://user:pa%20ss@db.shop.svc:5432/x?sslmode=off", Some("db.shop.svc:5432")),
            ("redis.cache:6379", Some("redis.cache:6379")),
            ("db.shop.svc.cluster.local", Some("db.shop.svc.cluster.local")),
            ("production", None),
            ("user@host:22", None),
            ("token:abc", None),
            ("a b://c", None),
            ("", None),
            ("12:30:45", None),
            ("http://", None),
        ] {
            assert_eq!(endpoint(value).map(|(_, host)| host).as_deref(), found, "{value}");
        }
    }

    #[test]
    fn only_hash_and_size_stay() {
        let blob = Blob::open("hunter2");
        assert_eq!((blob.size, blob.endpoint.clone()), (7, None));
        assert!(!format!("{blob:?}").contains("hunter2"));
        assert_ne!(blob.hash, Blob::open("hunter3").hash);
    }
}
