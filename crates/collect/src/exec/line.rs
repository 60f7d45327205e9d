//! One line of a collector, version 1 of the schema that `docs/collector-sdk.md` tells.

use crate::change::{self, Fields};
use crate::lines::{self, LineContext, hex_id};
use crate::{Attributes, LogEntry, MetricPoint};
use nightshift_model::batch::SeriesKind;
use nightshift_model::{Change, Timestamp};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The version of the schema that this program speaks.
pub const SCHEMA_VERSION: u64 = 1;

/// Most labels of a metric.
const LABELS_MAX: usize = 64;

/// What a line says.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Said {
    Metric(MetricPoint),
    Log(LogEntry),
    Change(Box<(Attributes, Change)>),
    /// It lives; `ok` is what it thinks of itself.
    Heartbeat {
        ok: bool,
        detail: String,
    },
}

/// What is known around a line.
#[derive(Debug)]
pub(super) struct Around<'a> {
    pub source: &'a str,
    pub resource: &'a Arc<Attributes>,
    pub now: Timestamp,
}

/// Reads a line. Fields that the schema does not know are ignored: schemas grow.
///
/// # Errors
/// What is wrong with it, for the author of the collector.
pub(super) fn read(line: &[u8], around: &Around<'_>) -> Result<Said, String> {
    let object: Map<String, Value> = serde_json::from_slice(line).map_err(|e| format!("not a JSON object: {e}"))?;
    let fields = Fields(&object);
    match fields.get(&["v"]).map(|v| v.as_u64()) {
        None | Some(Some(SCHEMA_VERSION)) => {}
        _ => return Err(format!("`v` is {}, this program speaks version {SCHEMA_VERSION}", object["v"])),
    }
    match fields.text(&["type"])?.as_str() {
        "metric" => metric(&fields, around).map(Said::Metric),
        "log" => log_entry(&fields, around.source, around.resource, around.now).map(Said::Log),
        "change" => {
            let (mut resource, change) = change::read(&fields, None, around.source, around.now)?;
            if change.entity.is_none() && change.service.is_empty() {
                for (name, value) in around.resource.iter() {
                    resource.entry(name.clone()).or_insert_with(|| value.clone());
                }
            }
            Ok(Said::Change(Box::new((resource, change))))
        }
        "heartbeat" => {
            let detail = fields.text(&["detail"])?;
            match fields.text(&["status"])?.as_str() {
                "" | "ok" => Ok(Said::Heartbeat { ok: true, detail }),
                "degraded" => Ok(Said::Heartbeat { ok: false, detail }),
                other => Err(format!("`status` is `{other}`, not ok or degraded")),
            }
        }
        "" => Err("`type` is missing: metric, log, change or heartbeat".into()),
        other => Err(format!("`type` is `{other}`, not metric, log, change or heartbeat")),
    }
}

fn resource_of(fields: &Fields<'_>, around: &Arc<Attributes>) -> Result<Arc<Attributes>, String> {
    let own = change::resource(fields)?;
    if own.is_empty() {
        return Ok(Arc::clone(around));
    }
    let mut all = Attributes::clone(around);
    all.extend(own);
    Ok(Arc::new(all))
}

fn metric(fields: &Fields<'_>, around: &Around<'_>) -> Result<MetricPoint, String> {
    let name = fields.text(&["name"])?;
    if name.is_empty() || name.len() > 256 {
        return Err("`name` of a metric must have 1 to 256 bytes".into());
    }
    // NaN and infinity cannot be written in JSON; `null` is what a collector says when it does not know.
    let value = fields.get(&["value"]).and_then(Value::as_f64).ok_or("`value` of a metric must be a number")?;
    let kind = match fields.text(&["kind"])?.as_str() {
        "" => SeriesKind::from_metric_name(&name),
        "gauge" => SeriesKind::Gauge,
        "counter" => SeriesKind::Counter,
        "delta" => SeriesKind::Delta,
        other => return Err(format!("`kind` is `{other}`, not gauge, counter or delta")),
    };
    let labels: BTreeMap<String, String> = fields.map(&["labels"])?;
    if labels.len() >= LABELS_MAX {
        return Err(format!("a metric has fewer than {LABELS_MAX} labels"));
    }
    Ok(MetricPoint {
        resource: resource_of(fields, around.resource)?,
        name,
        labels: labels.into_iter().collect(),
        kind,
        at: fields.time(&["at", "time"], around.now)?.unwrap_or(around.now),
        value,
    })
}

/// A log line from its fields, of `resource` where it names no other.
///
/// # Errors
/// What is wrong with which field.
pub(crate) fn log_entry(
    fields: &Fields<'_>,
    source: &str,
    resource: &Arc<Attributes>,
    now: Timestamp,
) -> Result<LogEntry, String> {
    let message = fields.text(&["message", "msg", "body"])?;
    if message.trim().is_empty() {
        return Err("`message` of a log line is empty".into());
    }
    let severity = match fields.get(&["severity", "level"]) {
        None => 0,
        Some(Value::String(word)) => match lines::severity_of_word(word) {
            0 => return Err(format!("`severity` is `{word}`, not trace, debug, info, warn, error or fatal")),
            n => n,
        },
        Some(v) => match v.as_u64() {
            Some(n @ 1..=24) => n as u8,
            _ => return Err("`severity` must be a word, or OpenTelemetry's number 1 to 24".into()),
        },
    };
    let stream = match fields.text(&["stream"])? {
        s if s.is_empty() => source.to_owned(),
        s => s,
    };
    // The message is taken as it is; a trace id within it is found all the same.
    let found = lines::parse(&message, &LineContext::at(now));
    Ok(LogEntry {
        resource: resource_of(fields, resource)?,
        at: fields.time(&["at", "time"], now)?.unwrap_or(now),
        severity,
        body: message,
        trace_id: id(fields, "trace_id")?.or(found.trace_id),
        span_id: id(fields, "span_id")?.or(found.span_id),
        stream,
    })
}

fn id<const N: usize>(fields: &Fields<'_>, name: &str) -> Result<Option<[u8; N]>, String> {
    match fields.text(&[name])? {
        text if text.is_empty() => Ok(None),
        text => hex_id(&text.to_ascii_lowercase())
            .map(Some)
            .ok_or_else(|| format!("`{name}` must be {} hexadecimal digits", 2 * N)),
    }
}

/// For the fuzzer: any bytes give a bounded record or a reason.
#[doc(hidden)]
pub fn fuzz_exec_line(bytes: &[u8]) {
    let resource = Arc::new(Attributes::new());
    let around = Around { source: "fuzz", resource: &resource, now: Timestamp::from_secs(1_767_225_600) };
    match read(bytes, &around) {
        Ok(Said::Metric(point)) => assert!(point.value.is_finite() && point.labels.len() < LABELS_MAX),
        Ok(Said::Log(entry)) => assert!(entry.severity <= 24 && entry.body.len() <= change::TEXT_BYTES_MAX + 64),
        Ok(Said::Change(_) | Said::Heartbeat { .. }) => {}
        Err(why) => assert!(!why.is_empty()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nightshift_model::ChangeType;

    fn read_line(line: &str) -> Result<Said, String> {
        let resource = Arc::new(Attributes::from([("host.name".into(), "me".into())]));
        read(
            line.as_bytes(),
            &Around { source: "probe", resource: &resource, now: Timestamp::from_secs(1_767_225_600) },
        )
    }

    #[test]
    fn every_type_of_line() {
        let line = r#"{"v":1,"type":"metric","name":"queue_depth","value":7,"labels":{"queue":"q"},"at":"2026-01-01T00:00:01Z"}"#;
        let Ok(Said::Metric(m)) = read_line(line) else { panic!("a metric") };
        assert_eq!(
            (m.name.as_str(), m.value, m.kind, m.at),
            ("queue_depth", 7.0, SeriesKind::Gauge, Timestamp::from_secs(1_767_225_601))
        );
        assert_eq!(m.labels, [("queue".to_owned(), "q".to_owned())]);
        assert_eq!(m.resource["host.name"], "me");
        let Ok(Said::Metric(m)) =
            read_line(r#"{"type":"metric","name":"jobs_total","value":1.5,"service":"cart","unknown":[1]}"#)
        else {
            panic!("a metric")
        };
        assert_eq!((m.kind, m.resource["service.name"].as_str()), (SeriesKind::Counter, "cart"));
        let Ok(Said::Log(l)) = read_line(
            r#"{"type":"log","message":"it broke","severity":"error","trace_id":"0af7651916cd43dd8448eb211c80319c"}"#,
        ) else {
            panic!("a log line")
        };
        assert_eq!(
            (l.severity, l.body.as_str(), l.stream.as_str(), l.trace_id.is_some()),
            (17, "it broke", "probe", true)
        );
        let Ok(Said::Change(c)) = read_line(
            r#"{"type":"change","service":"cart","version":"2","git_sha":"abc","author":"kim","known_risks":["cache"]}"#,
        ) else {
            panic!("a change")
        };
        assert_eq!(
            (c.1.change_type, c.1.version.as_str(), c.1.service.as_str()),
            (ChangeType::Deployment, "2", "cart")
        );
        assert_eq!(c.1.known_risks, ["cache"]);
        assert_eq!(read_line(r#"{"type":"heartbeat"}"#), Ok(Said::Heartbeat { ok: true, detail: String::new() }));
    }

    #[test]
    fn bad_lines_say_why() {
        for (line, word) in [
            ("", "not a JSON object"),
            ("hello", "not a JSON object"),
            ("[]", "not a JSON object"),
            ("{}", "`type` is missing"),
            (r#"{"type":"trace"}"#, "not metric, log, change or heartbeat"),
            (r#"{"type":["metric"]}"#, "`type` must be text"),
            (r#"{"v":2,"type":"metric"}"#, "speaks version 1"),
            (r#"{"v":"1","type":"metric"}"#, "speaks version 1"),
            (r#"{"type":"metric","name":"x"}"#, "`value`"),
            (r#"{"type":"metric","name":"x","value":null}"#, "`value`"),
            (r#"{"type":"metric","name":"x","value":"7"}"#, "`value`"),
            (r#"{"type":"metric","name":"x","value":NaN}"#, "not a JSON object"),
            (r#"{"type":"metric","name":"x","value":1e999}"#, "not a JSON object"),
            (r#"{"type":"metric","name":"","value":1}"#, "`name`"),
            (r#"{"type":"metric","name":"x","value":1,"kind":"histogram"}"#, "`kind`"),
            (r#"{"type":"metric","name":"x","value":1,"labels":[]}"#, "`labels`"),
            (r#"{"type":"metric","name":"x","value":1,"at":"yesterday"}"#, "`at` must be a time"),
            (r#"{"type":"log"}"#, "`message`"),
            (r#"{"type":"log","message":"x","severity":"loud"}"#, "`severity`"),
            (r#"{"type":"log","message":"x","severity":99}"#, "`severity`"),
            (r#"{"type":"log","message":"x","trace_id":"xyz"}"#, "`trace_id` must be 32"),
            (r#"{"type":"change"}"#, "say what was changed"),
            (r#"{"type":"change","service":"a","change_type":"magic"}"#, "`change_type`"),
            (r#"{"type":"change","entity":"a/b"}"#, "`entity`"),
            (r#"{"type":"heartbeat","status":"dead"}"#, "`status`"),
        ] {
            let why = read_line(line).expect_err(line);
            assert!(why.contains(word), "{line}: {why}");
        }
        let many: Vec<String> = (0..100).map(|i| format!(r#""l{i}":"v""#)).collect();
        let line = format!(r#"{{"type":"metric","name":"x","value":1,"labels":{{{}}}}}"#, many.join(","));
        assert!(read_line(&line).unwrap_err().contains("labels"));
    }

    #[test]
    fn corpus_is_read() {
        crate::corpus::replay("exec_line", fuzz_exec_line);
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
            fuzz_exec_line(&bytes);
        }

        #[test]
        fn no_fields_panic(
            kind in "metric|log|change|heartbeat",
            fields in proptest::collection::btree_map("name|value|labels|at|severity|message|v|service", "[0-9]{1,20}|\"[a-zé0-9:T-]{0,9}\"|null|\\[1\\]|\\{\"a\":\"b\"\\}", 0..6),
        ) {
            let rest: String = fields.iter().map(|(k, v)| format!(",\"{k}\":{v}")).collect();
            fuzz_exec_line(format!("{{\"type\":\"{kind}\"{rest}}}").as_bytes());
        }
    }
}
