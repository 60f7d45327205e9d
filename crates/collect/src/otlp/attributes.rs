//! Attributes of OTLP as text.

use crate::Attributes;
use crate::resolve::REPORTER;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::resource::v1::Resource;
use std::net::IpAddr;
use std::sync::Arc;

/// Most bytes of a value that is a list or a map; the rest is cut off. Plain strings are bounded by the label limits.
const COMPLEX_BYTES_MAX: usize = 4 << 10;

/// A value as text: strings as they are, lists and maps as JSON. `None` when there is none.
pub(crate) fn text(value: Option<&AnyValue>) -> Option<String> {
    Some(match value?.value.as_ref()? {
        Value::StringValue(s) => s.clone(),
        Value::BoolValue(b) => b.to_string(),
        Value::IntValue(i) => i.to_string(),
        Value::DoubleValue(d) => d.to_string(),
        complex => {
            let mut out = String::new();
            json(complex, &mut out);
            let end = (0..=COMPLEX_BYTES_MAX.min(out.len())).rev().find(|i| out.is_char_boundary(*i)).unwrap_or(0);
            out.truncate(end);
            out
        }
    })
}

/// The decoders bound how deep values are nested (protobuf 100, JSON 128 levels).
fn json(value: &Value, out: &mut String) {
    use std::fmt::Write as _;
    if out.len() > COMPLEX_BYTES_MAX {
        return;
    }
    let one = |v: Option<&AnyValue>, out: &mut String| match v.and_then(|v| v.value.as_ref()) {
        Some(v) => json(v, out),
        None => out.push_str("null"),
    };
    match value {
        Value::StringValue(s) => _ = write!(out, "{}", serde_json::Value::from(s.as_str())),
        Value::BoolValue(b) => _ = write!(out, "{b}"),
        Value::IntValue(i) => _ = write!(out, "{i}"),
        Value::DoubleValue(d) => _ = write!(out, "{}", serde_json::Value::from(*d)),
        Value::BytesValue(b) => b.iter().take(COMPLEX_BYTES_MAX / 2).for_each(|b| _ = write!(out, "{b:02x}")),
        Value::ArrayValue(a) => {
            out.push('[');
            for (i, v) in a.values.iter().enumerate() {
                out.push_str(if i > 0 { "," } else { "" });
                one(Some(v), out);
            }
            out.push(']');
        }
        Value::KvlistValue(list) => {
            out.push('{');
            for (i, kv) in list.values.iter().enumerate() {
                out.push_str(if i > 0 { "," } else { "" });
                _ = write!(out, "{}:", serde_json::Value::from(kv.key.as_str()));
                one(kv.value.as_ref(), out);
            }
            out.push('}');
        }
        // Of the profiling signal; means nothing here.
        Value::StringValueStrindex(_) => out.push_str("null"),
    }
}

/// The value of one attribute.
pub(crate) fn get<'a>(attributes: &'a [KeyValue], name: &str) -> Option<&'a AnyValue> {
    attributes.iter().find(|kv| kv.key == name)?.value.as_ref()
}

/// One attribute as text.
pub(crate) fn get_text(attributes: &[KeyValue], names: &[&str]) -> Option<String> {
    names.iter().find_map(|n| text(get(attributes, n))).filter(|t| !t.is_empty())
}

/// One attribute as a number, also where it was sent as text.
pub(crate) fn get_u32(attributes: &[KeyValue], names: &[&str]) -> Option<u32> {
    names.iter().find_map(|n| match get(attributes, n)?.value.as_ref()? {
        Value::IntValue(i) => u32::try_from(*i).ok(),
        Value::StringValue(s) => s.parse().ok(),
        _ => None,
    })
}

/// A resource, with the address of a peer on another machine: what loopback means in it.
pub(crate) fn resource(resource: Option<&Resource>, peer: Option<IpAddr>) -> Arc<Attributes> {
    let attributes = resource.map_or(&[][..], |r| &r.attributes);
    let mut found: Attributes =
        attributes.iter().filter_map(|kv| Some((kv.key.clone(), text(kv.value.as_ref())?))).collect();
    // Only this receiver may say who the peer is.
    found.remove(REPORTER);
    if let Some(peer) = peer.map(|p| p.to_canonical()).filter(|p| !p.is_loopback()) {
        found.insert(REPORTER.to_owned(), peer.to_string());
    }
    Arc::new(found)
}

/// The name of a scope; empty when there is none.
pub(crate) fn scope_name(scope: Option<&InstrumentationScope>) -> &str {
    scope.map_or("", |s| &s.name)
}

/// Nanoseconds as they are sent; what is beyond the range is beyond every limit too.
pub(crate) fn nanos(ns: u64) -> i64 {
    i64::try_from(ns).unwrap_or(i64::MAX)
}

/// An id of exactly `N` bytes that is not all zero.
pub(crate) fn id<const N: usize>(bytes: &[u8]) -> Option<[u8; N]> {
    bytes.try_into().ok().filter(|id: &[u8; N]| id.iter().any(|b| *b != 0))
}
