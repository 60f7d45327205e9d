//! One line of text into one log entry: JSON, logfmt or plain, with time, level and trace id found.
//!
//! Lives here: what every source of lines shares (files, journald, syslog, exec). Never here: reading bytes from
//! anywhere, or joining lines (`files::multiline`).
//!
//! Text is never lost: what is not understood stays in the body, and fields that have no place of their own in a
//! [`LogEntry`] follow the message as `key=value`. What is over a limit is cut, and the body says so.

mod fields;
pub(crate) mod time;

use crate::{Attributes, LogEntry};
use nightshift_model::Timestamp;
use regex::Regex;
use std::borrow::Cow;
use std::sync::{Arc, LazyLock};

/// Longest body by default, bytes: stack traces fit, dumps do not.
pub const BODY_BYTES_MAX: usize = 64 << 10;

/// Tokens at the front of a plain line among which a level is looked for. Further in it is prose ("no ERROR found").
const LEVEL_TOKENS: usize = 8;

/// What is known around a line.
#[derive(Debug, Clone, Copy)]
pub struct LineContext<'a> {
    /// When it was read: the entry's time when the line names none, and what year-less times are resolved against.
    pub now: Timestamp,
    /// Offset from UTC of times that name no zone, seconds east.
    pub utc_offset_secs: i32,
    /// Name of the machine; where a line's header repeats it, it is taken off. Empty: unknown.
    pub host: &'a str,
    /// Longest body, bytes.
    pub body_bytes_max: usize,
}

impl LineContext<'_> {
    /// UTC, no host, the default limit.
    pub const fn at(now: Timestamp) -> Self {
        Self { now, utc_offset_secs: 0, host: "", body_bytes_max: BODY_BYTES_MAX }
    }
}

/// What was found in a line.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ParsedLine {
    /// The time it names.
    pub at: Option<Timestamp>,
    /// OpenTelemetry severity number; 0: none found.
    pub severity: u8,
    /// The message; never empty unless the line was.
    pub body: String,
    /// W3C trace id.
    pub trace_id: Option<[u8; 16]>,
    /// Span id.
    pub span_id: Option<[u8; 8]>,
    /// The service it names.
    pub service: Option<String>,
}

/// Reads one line (or several that were joined). Never fails: what is no known form is plain text.
pub fn parse(line: &str, context: &LineContext<'_>) -> ParsedLine {
    let text = line.trim();
    let mut parsed = match text.as_bytes().first() {
        Some(b'{') => fields::json(text, context, true),
        Some(_) => fields::logfmt(text, context),
        None => return ParsedLine::default(),
    }
    .unwrap_or_else(|| plain(text, context));
    if parsed.body.trim().is_empty() {
        // Only a header: better the whole line than an entry that says nothing.
        text.clone_into(&mut parsed.body);
    }
    if parsed.trace_id.is_none() {
        (parsed.trace_id, parsed.span_id) = trace_of(text);
    }
    cut(&mut parsed.body, context.body_bytes_max);
    parsed
}

/// Reads one line into an entry of this place.
pub fn entry(line: &str, resource: &Arc<Attributes>, stream: &str, context: &LineContext<'_>) -> LogEntry {
    let parsed = parse(line, context);
    let resource = match parsed.service {
        Some(service) if !resource.contains_key("service.name") => {
            let mut own = Attributes::clone(resource);
            own.insert("service.name".into(), service);
            Arc::new(own)
        }
        _ => Arc::clone(resource),
    };
    LogEntry {
        resource,
        at: parsed.at.unwrap_or(context.now),
        severity: parsed.severity,
        body: parsed.body,
        trace_id: parsed.trace_id,
        span_id: parsed.span_id,
        stream: stream.to_owned(),
    }
}

/// Bytes as text that can be shown: invalid UTF-8 replaced, NUL bytes (a file that was cut under its writer begins
/// with them) and terminal colours taken out, other controls but tab and line feed replaced.
pub fn clean(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    if !text.bytes().any(|b| b < 0x20 && b != b'\t' && b != b'\n' || b == 0x7f) {
        return text.into_owned();
    }
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\0' => {}
            '\r' if matches!(chars.peek(), None | Some('\n')) => {}
            '\u{1b}' if chars.peek() == Some(&'[') => {
                // A control sequence ends with a byte in @..~; parameters are short.
                chars.next();
                for _ in 0..32 {
                    match chars.next() {
                        Some('@'..='~') | None => break,
                        Some(_) => {}
                    }
                }
            }
            '\t' | '\n' => out.push(c),
            c if c.is_ascii_control() => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

/// Cuts to `max` bytes, at a character, and says how much is missing.
pub fn cut(text: &mut String, max: usize) {
    if text.len() <= max {
        return;
    }
    let end = text.floor_char_boundary(max);
    let missing = text.len() - end;
    text.truncate(end);
    text.push_str(&format!(" … [{missing} bytes cut]"));
}

/// OpenTelemetry severity number of a level's name, any case; 0 when it is none.
pub fn severity_of_word(word: &str) -> u8 {
    const WORDS: [(&str, u8); 26] = [
        ("trace", 1),
        ("trc", 1),
        ("finest", 1),
        ("debug", 5),
        ("dbg", 5),
        ("verbose", 5),
        ("fine", 5),
        ("info", 9),
        ("inf", 9),
        ("information", 9),
        ("informational", 9),
        ("notice", 10),
        ("warn", 13),
        ("wrn", 13),
        ("warning", 13),
        ("error", 17),
        ("err", 17),
        ("severe", 17),
        ("crit", 18),
        ("alert", 19),
        ("critical", 21),
        ("emerg", 21),
        ("emergency", 21),
        ("fatal", 21),
        ("ftl", 21),
        ("panic", 21),
    ];
    if word.len() > 13 {
        return 0;
    }
    WORDS.iter().find(|(name, _)| name.eq_ignore_ascii_case(word)).map_or(0, |(_, n)| *n)
}

/// OpenTelemetry severity number of a syslog severity (0 emergency ..= 7 debug), as its data model's appendix maps them.
pub const fn severity_of_syslog(level: u8) -> u8 {
    match level {
        0 => 21,
        1 => 19,
        2 => 18,
        3 => 17,
        4 => 13,
        5 => 10,
        6 => 9,
        7 => 5,
        _ => 0,
    }
}

/// A plain line: time, machine, level at its front are taken off.
fn plain(text: &str, context: &LineContext<'_>) -> ParsedLine {
    let mut parsed = ParsedLine::default();
    if let Some((at, severity, rest)) = time::klog(text, context) {
        return ParsedLine { at: Some(at), severity, body: rest.to_owned(), ..parsed };
    }
    let mut rest = Cow::Borrowed(text);
    let mut had_time = false;
    if let Some((at, taken)) = time::leading(text, context) {
        parsed.at = Some(at);
        had_time = true;
        rest = Cow::Borrowed(text[taken..].trim_start_matches([' ', '\t', ']', ':', '-', '|', ',']));
    } else if let Some((at, from, to)) = time::bracketed(text, context) {
        // Access logs carry it in the middle; left there, no two lines would be alike.
        parsed.at = Some(at);
        rest = Cow::Owned(format!("{}{}", &text[..from], text[to..].trim_start()));
    }
    let mut body: &str = &rest;
    if had_time {
        body = without_container_header(without_host(body, context.host));
    }
    let first = body.split_whitespace().next().unwrap_or("");
    let word = first.trim_matches(['[', ']', '<', '>', '(', ')', ':', '|', ',', '"']);
    let marked = had_time || first.len() > word.len() || word.bytes().all(|b| b.is_ascii_uppercase());
    let severity = severity_of_word(word);
    if severity > 0 && marked {
        parsed.severity = severity;
        body = body.trim_start()[first.len()..].trim_start_matches([' ', '\t', ':', '-', '|']);
    } else {
        parsed.severity = level_within(body);
    }
    body.clone_into(&mut parsed.body);
    parsed
}

/// A level among the first tokens: in capitals, in brackets, or as `level=word`.
fn level_within(text: &str) -> u8 {
    const FAILURES: [&str; 3] = ["Traceback (most recent call last)", "Exception in thread", "fatal error:"];
    if FAILURES.iter().any(|f| text.starts_with(f)) {
        return 17;
    }
    let end = text.floor_char_boundary(256);
    for token in text[..end].split_whitespace().take(LEVEL_TOKENS) {
        let word = token.trim_matches(['[', ']', '<', '>', '(', ')', ':', '|', ',', '"']);
        let bracketed = token.starts_with(['[', '<', '(']) && token.len() > word.len() + 1;
        if bracketed || (word.len() > 2 && word.bytes().all(|b| b.is_ascii_uppercase())) {
            let severity = severity_of_word(word);
            if severity > 0 {
                return severity;
            }
        }
        if let Some((key, value)) = word.split_once('=')
            && fields::is_level_key(key)
        {
            return severity_of_word(value.trim_matches('"'));
        }
    }
    0
}

fn without_host<'a>(text: &'a str, host: &str) -> &'a str {
    let Some((first, rest)) = text.split_once(' ') else { return text };
    let short = host.split('.').next().unwrap_or("");
    if !host.is_empty() && (first == host || first == short) { rest.trim_start() } else { text }
}

/// `stdout F ` that a container runtime puts before each line.
fn without_container_header(text: &str) -> &str {
    ["stdout F ", "stderr F ", "stdout P ", "stderr P "].iter().find_map(|h| text.strip_prefix(h)).unwrap_or(text)
}

/// Trace and span id anywhere in a text.
pub(crate) fn trace_of(text: &str) -> (Option<[u8; 16]>, Option<[u8; 8]>) {
    static IDS: LazyLock<[Regex; 3]> = LazyLock::new(|| {
        [
            r"\b00-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}\b",
            r#"(?i)trace[_\-. ]?id["']?\s*[=:]\s*["']?([0-9a-f]{32})\b"#,
            r#"(?i)span[_\-. ]?id["']?\s*[=:]\s*["']?([0-9a-f]{16})\b"#,
        ]
        .map(|r| Regex::new(r).expect("a constant pattern"))
    });
    // Most lines have none: one cheap search spares them three.
    if memchr::memmem::find(text.as_bytes(), b"race").is_none()
        && memchr::memmem::find(text.as_bytes(), b"RACE").is_none()
    {
        return (None, None);
    }
    let [parent, trace, span] = &*IDS;
    if let Some(found) = parent.captures(text) {
        return (hex_id(&found[1]), hex_id(&found[2]));
    }
    let id = trace.captures(text).and_then(|c| hex_id(&c[1]));
    (id, id.and_then(|_| span.captures(text)).and_then(|c| hex_id(&c[1])))
}

/// An id of `N` bytes in hexadecimal; `None` when it is not, or all zero (W3C: invalid).
pub(crate) fn hex_id<const N: usize>(text: &str) -> Option<[u8; N]> {
    let bytes = text.as_bytes();
    if bytes.len() != 2 * N {
        return None;
    }
    let digit = |b: u8| char::from(b).to_digit(16).map(|d| d as u8);
    let mut id = [0; N];
    for (byte, pair) in id.iter_mut().zip(bytes.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    (id != [0; N]).then_some(id)
}

/// For the fuzzer: any bytes give an entry whose body is bounded, and not empty unless the line is blank.
#[doc(hidden)]
pub fn fuzz_log_line(bytes: &[u8]) {
    let text = clean(bytes);
    let context =
        LineContext { body_bytes_max: 512, host: "web1", ..LineContext::at(Timestamp::from_secs(1_767_225_600)) };
    let parsed = parse(&text, &context);
    assert!(parsed.body.len() <= 512 + 64, "the body is bounded");
    assert!(parsed.severity <= 24, "a severity number of OpenTelemetry");
    assert_eq!(parsed.body.trim().is_empty(), text.trim().is_empty(), "no text is lost whole: {text:?}");
}

#[cfg(test)]
mod tests;
