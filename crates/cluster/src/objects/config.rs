//! Config maps and secrets: names, keys, sizes, hashes. Their values are dropped while they are read.

use super::corefile::{COREFILE, Corefile};
use super::meta::Meta;
use super::value::Blob;
use base64::Engine as _;
use serde::{Deserialize, Deserializer};
use std::collections::BTreeMap;

/// Longest certificate chain that is kept, bytes.
const CERTIFICATE_BYTES_MAX: usize = 64 << 10;

/// A config map.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ConfigMap {
    /// Metadata.
    pub metadata: Meta,
    /// Keys with what is kept of their values.
    pub data: BTreeMap<String, Blob>,
    /// Keys with binary values.
    pub binary_data: BTreeMap<String, Blob>,
    /// Never changes.
    pub immutable: bool,
    /// What can be told of the configuration of cluster DNS, where it has one.
    pub corefile: Option<Corefile>,
}

impl<'de> Deserialize<'de> for ConfigMap {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        #[derive(Default, Deserialize)]
        #[serde(default, rename_all = "camelCase")]
        struct Raw {
            metadata: Meta,
            data: Option<BTreeMap<String, Option<String>>>,
            #[serde(deserialize_with = "open")]
            binary_data: BTreeMap<String, Blob>,
            immutable: bool,
        }
        let raw = Raw::deserialize(d)?;
        let texts = raw.data.unwrap_or_default();
        let corefile = texts.get(COREFILE).map(|text| Corefile::read(text.as_deref().unwrap_or_default()));
        let data = texts.into_iter().map(|(k, v)| (k, Blob::open(&v.unwrap_or_default()))).collect();
        Ok(Self { metadata: raw.metadata, data, binary_data: raw.binary_data, immutable: raw.immutable, corefile })
    }
}

/// A secret.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Secret {
    /// Metadata.
    pub metadata: Meta,
    /// `Opaque`, `kubernetes.io/tls` …
    pub kind: String,
    /// Keys with size and hash of their values.
    pub data: BTreeMap<String, Blob>,
    /// Of a TLS secret: its certificates, PEM, which are public.
    pub certificate: Option<Vec<u8>>,
    /// Never changes.
    pub immutable: bool,
}

fn open<'de, D: Deserializer<'de>>(d: D) -> Result<BTreeMap<String, Blob>, D::Error> {
    Ok(Option::<BTreeMap<String, Blob>>::deserialize(d)?.unwrap_or_default())
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        #[derive(Default, Deserialize)]
        #[serde(default, rename_all = "camelCase")]
        struct Raw {
            metadata: Meta,
            #[serde(rename = "type")]
            kind: String,
            data: Option<BTreeMap<String, Option<String>>>,
            // Only written, never sent by a server; case files have it.
            string_data: Option<BTreeMap<String, String>>,
            immutable: bool,
        }
        let raw = Raw::deserialize(d)?;
        let mut secret = Self { metadata: raw.metadata, kind: raw.kind, immutable: raw.immutable, ..Self::default() };
        let decode =
            |text: String| base64::engine::general_purpose::STANDARD.decode(text.as_bytes()).unwrap_or_default();
        let plain = raw.string_data.unwrap_or_default().into_iter().map(|(k, v)| (k, v.into_bytes()));
        for (key, value) in
            raw.data.unwrap_or_default().into_iter().map(|(k, v)| (k, decode(v.unwrap_or_default()))).chain(plain)
        {
            if key == "tls.crt" && secret.kind == "kubernetes.io/tls" && value.len() <= CERTIFICATE_BYTES_MAX {
                secret.certificate = Some(value.clone());
            }
            secret.data.insert(key, Blob::secret(&value));
        }
        Ok(secret)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_value_of_a_secret_survives_reading() {
        let secret: Secret = serde_json::from_str(
            r#"{"metadata":{"name":"s"},"type":"Opaque","data":{"password":"aHVudGVyMg==","bad":"%%","none":null}}"#,
        )
        .unwrap();
        let text = format!("{secret:?}");
        assert!(!text.contains("hunter2") && !text.contains("aHVudGVyMg"), "{text}");
        assert_eq!(secret.data["password"].size, 7);
        assert_eq!(secret.data["none"].size, 0);
    }

    #[test]
    fn config_maps_keep_hosts_only() {
        let map: ConfigMap =
            serde_json::from_str(r#"{"data":{"url":"http://u:p@db.shop:5432/x","mode":"fast"},"binaryData":null}"#)
                .unwrap();
        assert_eq!(map.data["url"].endpoint.as_deref(), Some("db.shop:5432"));
        assert!(!format!("{map:?}").contains("fast"));
    }
}
