//! OTLP logs to log lines.

use super::attributes::{get_text, id, nanos, resource, scope_name, text};
use crate::LogEntry;
use nightshift_model::Timestamp;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::logs::v1::LogRecord;
use std::net::IpAddr;

/// All lines of a request. `now`: for records that do not say when.
pub(crate) fn lines(request: &ExportLogsServiceRequest, peer: Option<IpAddr>, now: Timestamp) -> Vec<LogEntry> {
    let mut out = Vec::new();
    for of_resource in &request.resource_logs {
        let resource = resource(of_resource.resource.as_ref(), peer);
        for of_scope in &of_resource.scope_logs {
            let scope = scope_name(of_scope.scope.as_ref());
            for record in &of_scope.log_records {
                let file = get_text(&record.attributes, &["log.file.path", "log.file.name", "log.iostream"]);
                out.push(LogEntry {
                    resource: resource.clone(),
                    at: time(record, now),
                    severity: severity(record),
                    body: body(record),
                    trace_id: id(&record.trace_id),
                    span_id: id(&record.span_id),
                    stream: file.unwrap_or_else(|| scope.to_owned()),
                });
            }
        }
    }
    out
}

fn time(record: &LogRecord, now: Timestamp) -> Timestamp {
    match (record.time_unix_nano, record.observed_time_unix_nano) {
        (0, 0) => now,
        (0, observed) => Timestamp(nanos(observed)),
        (at, _) => Timestamp(nanos(at)),
    }
}

/// The message; an exception that came as attributes is put behind it, an event without a message is its name.
fn body(record: &LogRecord) -> String {
    let message = text(record.body.as_ref()).unwrap_or_default();
    let exception = [&["exception.type"][..], &["exception.message"]].map(|n| get_text(&record.attributes, n));
    let exception = exception.into_iter().flatten().collect::<Vec<_>>().join(": ");
    match (message.is_empty(), exception.is_empty()) {
        (false, true) => message,
        (false, false) => format!("{message}: {exception}"),
        (true, false) => exception,
        (true, true) => record.event_name.clone(),
    }
}

fn severity(record: &LogRecord) -> u8 {
    match u8::try_from(record.severity_number) {
        Ok(n @ 1..=24) => n,
        _ => severity_of_text(&record.severity_text),
    }
}

/// OpenTelemetry's number for a level as people write it; 0 when it is none.
fn severity_of_text(text: &str) -> u8 {
    match text.trim().to_ascii_lowercase().as_str() {
        "trace" => 1,
        "debug" => 5,
        "info" | "information" | "notice" => 9,
        "warn" | "warning" => 13,
        "error" | "err" => 17,
        "critical" | "crit" | "fatal" | "alert" | "emergency" | "panic" => 21,
        _ => 0,
    }
}
