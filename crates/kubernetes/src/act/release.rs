//! Helm's records: a release is a Secret that holds gzipped JSON, twice in base64; and manifests, merged three ways.
//!
//! Lives here: reading and writing the record, the objects of a manifest, the merge. Never here: any value of a secret in a
//! message or an image.

use super::json::same;
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use serde_json::{Map, Value};
use std::io::{Read as _, Write as _};

/// Largest record after unpacking, bytes.
const RECORD_BYTES_MAX: u64 = 16 << 20;
/// Objects of a manifest at most.
const OBJECTS_MAX: usize = 2_000;

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

pub(super) fn base64(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let n = chunk.iter().fold(0_u32, |n, b| n << 8 | u32::from(*b)) << (8 * (3 - chunk.len()));
        for i in 0..4 {
            let digit = ALPHABET[(n >> (18 - 6 * i) & 63) as usize];
            out.push(if i <= chunk.len() { char::from(digit) } else { '=' });
        }
    }
    out
}

pub(super) fn from_base64(text: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len() / 4 * 3);
    let (mut n, mut bits) = (0_u32, 0);
    for b in text.iter().filter(|b| !b.is_ascii_whitespace() && **b != b'=') {
        let digit = ALPHABET.iter().position(|a| a == b)?;
        n = n << 6 | u32::try_from(digit).ok()?;
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            out.push((n >> bits & 255) as u8);
        }
    }
    Some(out)
}

/// Reads the record of `data.release` of a Secret.
pub(super) fn decode(data: &str) -> Result<Value, String> {
    let bad = || "the record of the release cannot be read".to_owned();
    let inner = from_base64(data.as_bytes()).ok_or_else(bad)?;
    let packed = from_base64(&inner).ok_or_else(bad)?;
    let mut json = Vec::new();
    if packed.starts_with(&[0x1f, 0x8b]) {
        let read = GzDecoder::new(packed.as_slice()).take(RECORD_BYTES_MAX + 1).read_to_end(&mut json);
        read.map_err(|_| bad())?;
    } else {
        json = packed;
    }
    if json.len() as u64 > RECORD_BYTES_MAX {
        return Err(format!("the record of the release has more than {RECORD_BYTES_MAX} bytes"));
    }
    serde_json::from_slice(&json).map_err(|_| bad())
}

/// Writes a record as [`decode`] reads it.
pub(super) fn encode(record: &Value) -> Result<String, String> {
    let bad = |_| "the record of the release cannot be written".to_owned();
    let mut packer = GzEncoder::new(Vec::new(), Compression::best());
    packer.write_all(&serde_json::to_vec(record).map_err(|e| bad(e.into()))?).map_err(bad)?;
    let packed = packer.finish().map_err(bad)?;
    Ok(base64(base64(&packed).as_bytes()))
}

/// The objects of a manifest.
pub(super) fn objects(manifest: &str) -> Result<Vec<Value>, String> {
    let mut out = Vec::new();
    for part in documents(manifest) {
        if part.lines().all(|l| l.trim().is_empty() || l.trim_start().starts_with('#')) {
            continue;
        }
        let value: Value =
            serde_saphyr::from_str(&part).map_err(|_| "its manifest holds what is no YAML".to_owned())?;
        if value.is_object() {
            out.push(value);
        }
        if out.len() > OBJECTS_MAX {
            return Err(format!("its manifest holds more than {OBJECTS_MAX} objects"));
        }
    }
    Ok(out)
}

fn documents(manifest: &str) -> Vec<String> {
    let mut out = vec![String::new()];
    for line in manifest.lines() {
        if line.trim_end() == "---" {
            out.push(String::new());
        } else if let Some(last) = out.last_mut() {
            last.push_str(line);
            last.push('\n');
        }
    }
    out
}

/// Keys by which the items of a list are told apart, as the API merges them.
fn list_key(name: &str, items: &[Value]) -> Option<&'static str> {
    let keys: &[&'static str] = match name {
        "containers" | "initContainers" | "env" | "volumes" | "imagePullSecrets" => &["name"],
        "volumeMounts" => &["mountPath"],
        "ports" => &["containerPort", "port"],
        _ => &[],
    };
    keys.iter().copied().find(|k| !items.is_empty() && items.iter().all(|i| i.get(*k).is_some()))
}

/// What `live` becomes when what was `from` in the manifest is to be `to`: what neither names stays as it is.
pub(super) fn three_way(name: &str, from: &Value, to: &Value, live: &Value) -> Value {
    match (from, to, live) {
        (_, Value::Object(new), Value::Object(now)) => {
            let none = Map::new();
            let old = from.as_object().unwrap_or(&none);
            let mut out = now.clone();
            for key in old.keys().filter(|k| !new.contains_key(*k)) {
                out.remove(key);
            }
            for (key, value) in new {
                let merged = match now.get(key) {
                    Some(live) => three_way(key, old.get(key).unwrap_or(&Value::Null), value, live),
                    None => value.clone(),
                };
                // What a manifest writes as null is not there.
                if merged.is_null() {
                    out.remove(key);
                } else {
                    out.insert(key.clone(), merged);
                }
            }
            Value::Object(out)
        }
        (_, Value::Array(new), Value::Array(now)) => {
            let Some(key) = list_key(name, new).filter(|k| list_key(name, now) == Some(*k)) else {
                return if same(to, live) { live.clone() } else { to.clone() };
            };
            let none = Vec::new();
            let old = from.as_array().unwrap_or(&none);
            let find = |list: &[Value], id: &Value| list.iter().find(|i| i.get(key) == Some(id)).cloned();
            let mut out = Vec::new();
            for item in new {
                let id = item.get(key).cloned().unwrap_or(Value::Null);
                let was = find(old, &id).unwrap_or(Value::Null);
                out.push(find(now, &id).map_or_else(|| item.clone(), |live| three_way("", &was, item, &live)));
            }
            // What somebody else put in (a sidecar) stays; what the old manifest had goes.
            for item in now {
                let id = item.get(key).cloned().unwrap_or(Value::Null);
                if find(new, &id).is_none() && find(old, &id).is_none() {
                    out.push(item.clone());
                }
            }
            Value::Array(out)
        }
        _ if same(to, live) => live.clone(),
        _ => to.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn records_are_read_back() {
        for bytes in [&b""[..], b"a", b"ab", b"abc", b"\x00\xff\x10"] {
            assert_eq!(from_base64(base64(bytes).as_bytes()).as_deref(), Some(bytes));
        }
        assert_eq!(base64(b"light work."), "bGlnaHQgd29yay4=");
        let record = json!({"name": "shop", "version": 3, "manifest": "---\nkind: A\n"});
        assert_eq!(decode(&encode(&record).unwrap()), Ok(record));
        for bad in ["", "!!", "aGVsbG8=", "YUdWc2JHOD0="] {
            assert!(decode(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn manifests_are_objects() {
        let all = objects(
            "---\n# Source: a\nkind: A\nmetadata:\n  name: a\n---\n\n---\nkind: B\ndata:\n  k: |\n    --- no\n",
        )
        .unwrap();
        assert_eq!(all.len(), 2);
        assert_eq!(all[1]["data"]["k"], json!("--- no\n"));
        assert!(objects("a: [").is_err());
    }

    #[test]
    fn a_merge_keeps_what_no_manifest_names() {
        let from = json!({"spec": {"replicas": 2, "x": 1, "containers": [{"name": "web", "image": "web:2", "env": [{"name": "A", "value": "2"}]}]}});
        let to = json!({"spec": {"replicas": 2, "containers": [{"name": "web", "image": "web:1"}]}});
        let live = json!({"spec": {"replicas": 2, "x": 1, "paused": true, "containers": [
            {"name": "web", "image": "web:2", "env": [{"name": "A", "value": "2"}], "terminationMessagePath": "/dev/x"},
            {"name": "mesh", "image": "mesh:9"}]}, "status": {"ready": 1}});
        assert_eq!(
            three_way("", &from, &to, &live),
            json!({"spec": {"replicas": 2, "paused": true, "containers": [
            {"name": "web", "image": "web:1", "terminationMessagePath": "/dev/x"}, {"name": "mesh", "image": "mesh:9"}]},
            "status": {"ready": 1}})
        );
        assert_eq!(three_way("", &from, &from, &live), live, "nothing to do is nothing done");
    }
}
