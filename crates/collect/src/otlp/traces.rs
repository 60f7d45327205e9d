//! OTLP traces to spans.

use super::attributes::{get_text, get_u32, id, nanos, resource};
use crate::SpanEntry;
use nightshift_model::proto;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use std::net::IpAddr;

/// Longest name of an operation or a peer; the rest is cut off.
const NAME_BYTES_MAX: usize = 512;

/// All spans of a request, and how many were broken: without ids or a start.
pub(crate) fn spans(request: &ExportTraceServiceRequest, peer: Option<IpAddr>) -> (Vec<SpanEntry>, u64) {
    let (mut out, mut rejected) = (Vec::new(), 0);
    for of_resource in &request.resource_spans {
        let resource = resource(of_resource.resource.as_ref(), peer);
        for span in of_resource.scope_spans.iter().flat_map(|s| &s.spans) {
            match convert(span) {
                Some(span) => out.push(SpanEntry { resource: resource.clone(), span }),
                None => rejected += 1,
            }
        }
    }
    (out, rejected)
}

fn convert(span: &Span) -> Option<proto::Span> {
    let (trace_id, span_id) = (id::<16>(&span.trace_id)?, id::<8>(&span.span_id)?);
    if span.start_time_unix_nano == 0 {
        return None;
    }
    let attributes = &span.attributes;
    let http_status = get_u32(attributes, &["http.response.status_code", "http.status_code"]).unwrap_or(0);
    let failed = span.status.as_ref().is_some_and(|s| s.code == StatusCode::Error as i32);
    Some(proto::Span {
        entity: 0,
        start_ns: nanos(span.start_time_unix_nano),
        // A span that ends before it starts took no time.
        duration_ns: span.end_time_unix_nano.saturating_sub(span.start_time_unix_nano),
        trace_id: trace_id.to_vec(),
        span_id: span_id.to_vec(),
        parent_span_id: id::<8>(&span.parent_span_id).map(Vec::from).unwrap_or_default(),
        operation: cut(span.name.clone()),
        kind: u32::try_from(span.kind).ok().filter(|k| *k <= 5).unwrap_or(0),
        error: failed || http_status >= 500,
        http_status,
        peer: cut(peer(span).unwrap_or_default()),
    })
}

/// What a span says that it called. A server's or an internal span called nothing.
fn peer(span: &Span) -> Option<String> {
    const SERVICES: &[&str] = &["peer.service", "service.peer.name"];
    const MESSAGING: &[&str] = &["messaging.destination.name", "messaging.destination"];
    const PLACES: &[&str] =
        &["server.address", "net.peer.name", "http.host", "rpc.service", "db.namespace", "db.name", "db.system"];
    match SpanKind::try_from(span.kind).unwrap_or_default() {
        SpanKind::Client => get_text(&span.attributes, SERVICES).or_else(|| get_text(&span.attributes, PLACES)),
        SpanKind::Producer | SpanKind::Consumer => {
            get_text(&span.attributes, SERVICES).or_else(|| get_text(&span.attributes, MESSAGING))
        }
        _ => None,
    }
}

fn cut(mut text: String) -> String {
    if text.len() > NAME_BYTES_MAX {
        let end = (0..=NAME_BYTES_MAX).rev().find(|i| text.is_char_boundary(*i)).unwrap_or(0);
        text.truncate(end);
    }
    text
}
