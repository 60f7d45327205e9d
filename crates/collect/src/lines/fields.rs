//! Lines that are fields: JSON objects and logfmt. Both end in the same list of names and values.

use super::{LineContext, ParsedLine, hex_id, parse, severity_of_syslog, severity_of_word, time};
use nightshift_model::Timestamp;
use serde_json::{Map, Value};

/// Most fields of a line that are looked at; further ones stay in the text.
const FIELDS_MAX: usize = 256;

const MESSAGE: [&str; 6] = ["message", "msg", "body", "text", "event", "@message"];
const LEVEL: [&str; 8] =
    ["level", "severity", "lvl", "loglevel", "log.level", "log_level", "severitytext", "levelname"];
const NUMBER: [&str; 2] = ["severity_number", "severitynumber"];
const TIME: [&str; 8] = ["time", "timestamp", "ts", "@timestamp", "t", "datetime", "date", "asctime"];
const TRACE: [&str; 5] = ["trace_id", "traceid", "trace.id", "otel.trace_id", "dd.trace_id"];
const SPAN: [&str; 4] = ["span_id", "spanid", "span.id", "otel.span_id"];
const SERVICE: [&str; 3] = ["service.name", "service", "service_name"];

/// Whether a field of this name holds the level.
pub(super) fn is_level_key(key: &str) -> bool {
    is(key, &LEVEL)
}

fn is(key: &str, names: &[&str]) -> bool {
    names.iter().any(|n| n.eq_ignore_ascii_case(key))
}

/// A line that is one JSON object; `None` when it is not. `nested`: a line inside of a line may be opened.
pub(super) fn json(text: &str, context: &LineContext<'_>, nested: bool) -> Option<ParsedLine> {
    // serde_json stops at a depth of 128.
    let object: Map<String, Value> = serde_json::from_str(text).ok()?;
    // What Docker writes: the program's own line within.
    if nested
        && let Some(Value::String(line)) = object.get("log")
        && object.keys().all(|k| matches!(k.as_str(), "log" | "stream") || is(k, &TIME))
    {
        let inner = parse_inner(line, context);
        let outer = || object.iter().find(|(k, _)| is(k, &TIME)).and_then(|(_, v)| at_of(v, context));
        return Some(ParsedLine { at: inner.at.or_else(outer), ..inner });
    }
    let mut fields = Vec::with_capacity(object.len().min(FIELDS_MAX));
    for (key, value) in object {
        match value {
            // `{"log":{"level":"error"},"trace":{"id":"…"}}` as well as `{"log.level":"error"}`.
            Value::Object(inner) if matches!(key.as_str(), "log" | "trace" | "span" | "service") => {
                fields.extend(inner.into_iter().map(|(k, v)| (format!("{key}.{k}"), v)));
            }
            value => fields.push((key, value)),
        }
    }
    Some(gather(fields, context))
}

fn parse_inner(line: &str, context: &LineContext<'_>) -> ParsedLine {
    let line = line.trim();
    if line.starts_with('{') {
        json(line, context, false).unwrap_or_else(|| super::plain(line, context))
    } else {
        parse(line, context)
    }
}

/// A line of `key=value`; `None` unless it begins with one and has one of the usual names.
pub(super) fn logfmt(text: &str, context: &LineContext<'_>) -> Option<ParsedLine> {
    let mut fields: Vec<(String, Value)> = Vec::new();
    let mut rest = text;
    while !rest.is_empty() && fields.len() < FIELDS_MAX {
        let end = rest.find(|c: char| c == '=' || c.is_whitespace()).unwrap_or(rest.len());
        let (key, tail) = rest.split_at(end);
        let named = key.starts_with(|c: char| c.is_ascii_alphabetic() || matches!(c, '_' | '@'))
            && key.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-' | b'@' | b'/'));
        match tail.strip_prefix('=') {
            Some(after) if named => {
                let (value, after) = logfmt_value(after)?;
                fields.push((key.to_owned(), Value::String(value)));
                rest = after.trim_start();
            }
            // Prose with an equals sign somewhere is no logfmt.
            _ => return None,
        }
    }
    let usual = |k: &str| [&MESSAGE[..3], &LEVEL[..4], &TIME[..3]].iter().any(|names| is(k, names));
    if fields.len() < 2 || !fields.iter().any(|(k, _)| usual(k)) {
        return None;
    }
    if !rest.is_empty() {
        fields.push(("rest".into(), Value::String(rest.to_owned())));
    }
    Some(gather(fields, context))
}

/// A value, quoted or not, and what follows; `None` when its quote is never closed.
fn logfmt_value(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find(char::is_whitespace).unwrap_or(text.len());
        return Some((text[..end].to_owned(), &text[end..]));
    };
    let mut value = String::new();
    let mut chars = quoted.char_indices();
    while let Some((i, c)) = chars.next() {
        match c {
            '"' => return Some((value, &quoted[i + 1..])),
            '\\' => match chars.next()?.1 {
                'n' => value.push('\n'),
                't' => value.push('\t'),
                other => value.push(other),
            },
            c => value.push(c),
        }
    }
    None
}

/// Fields into what they mean; those that mean nothing to us follow the message.
fn gather(fields: Vec<(String, Value)>, context: &LineContext<'_>) -> ParsedLine {
    let mut parsed = ParsedLine::default();
    let mut others = String::new();
    let mut number = 0;
    // The first of the usual names wins, wherever it stands: `message` before `event`.
    let best = |names: &[&str]| {
        let text = |v: &Value| v.as_str().is_some_and(|s| !s.trim().is_empty());
        names.iter().find_map(|n| fields.iter().position(|(k, v)| n.eq_ignore_ascii_case(k) && text(v)))
    };
    let message = best(&MESSAGE);
    for (i, (key, value)) in fields.iter().enumerate() {
        if Some(i) == message {
            value.as_str().unwrap_or("").trim().clone_into(&mut parsed.body);
        } else if is(key, &LEVEL) && parsed.severity == 0 && level_of(value) > 0 {
            parsed.severity = level_of(value);
        } else if is(key, &NUMBER) && value.as_u64().is_some_and(|n| (1..=24).contains(&n)) {
            number = value.as_u64().map_or(0, |n| n as u8);
        } else if is(key, &TIME) && parsed.at.is_none() && at_of(value, context).is_some() {
            parsed.at = at_of(value, context);
        } else if is(key, &TRACE) && parsed.trace_id.is_none() && value.as_str().and_then(hex_id::<16>).is_some() {
            parsed.trace_id = value.as_str().and_then(hex_id);
        } else if is(key, &SPAN) && parsed.span_id.is_none() && value.as_str().and_then(hex_id::<8>).is_some() {
            parsed.span_id = value.as_str().and_then(hex_id);
        } else if key.eq_ignore_ascii_case("traceparent") && parsed.trace_id.is_none() {
            let mut parts = value.as_str().unwrap_or("").split('-').skip(1);
            parsed.trace_id = parts.next().and_then(hex_id);
            parsed.span_id = parsed.span_id.or_else(|| parts.next().and_then(hex_id));
        } else if is(key, &SERVICE)
            && parsed.service.is_none()
            && value.as_str().is_some_and(|s| (1..=253).contains(&s.len()))
        {
            parsed.service = value.as_str().map(ToOwned::to_owned);
        } else if others.len() <= context.body_bytes_max {
            append(&mut others, key, value);
        }
    }
    if number > 0 {
        parsed.severity = number;
    }
    if !parsed.body.is_empty() && !others.is_empty() {
        parsed.body.push(' ');
    }
    parsed.body.push_str(&others);
    parsed
}

/// Appends `key=value`, quoted where it must be.
fn append(out: &mut String, key: &str, value: &Value) {
    if !out.is_empty() {
        out.push(' ');
    }
    out.push_str(key);
    out.push('=');
    match value {
        Value::String(s) if !s.is_empty() && !s.contains([' ', '"', '=', '\n', '\t']) => out.push_str(s),
        other => out.push_str(&other.to_string()),
    }
}

/// Level of a word or of a number: syslog's 0..=7, or the tens that Node's loggers use.
fn level_of(value: &Value) -> u8 {
    let number = match value {
        Value::String(word) => match word.trim().parse::<u64>() {
            Ok(n) => n,
            Err(_) => return severity_of_word(word.trim()),
        },
        other => match other.as_u64() {
            Some(n) => n,
            None => return 0,
        },
    };
    match number {
        n @ 0..=7 => severity_of_syslog(n as u8),
        10 => 1,
        20 => 5,
        30 => 9,
        40 => 13,
        50 => 17,
        60 => 21,
        _ => 0,
    }
}

fn at_of(value: &Value, context: &LineContext<'_>) -> Option<Timestamp> {
    match value {
        Value::String(text) => time::whole(text.trim(), context),
        Value::Number(n) => n.as_f64().and_then(time::epoch),
        _ => None,
    }
}
