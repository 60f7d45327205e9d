//! One syslog message, as text, into its parts: RFC 5424, RFC 3164, or neither.
//!
//! Lives here: reading. Never here: sockets, the clock. What is no syslog is kept as a plain line, and said to be one.

use crate::lines::{LineContext, severity_of_syslog, time};
use nightshift_model::Timestamp;

/// Most elements and parameters of structured data that are read; the rest stays in the message.
const STRUCTURED_MAX: usize = 64;

/// Which form a message had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    Rfc5424,
    Rfc3164,
    /// No priority at its front: no syslog.
    Plain,
}

/// A message's parts; those that it does not name are empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Message<'a> {
    pub form: Form,
    /// OpenTelemetry severity number.
    pub severity: u8,
    pub at: Option<Timestamp>,
    pub host: &'a str,
    pub app: &'a str,
    /// `name=value` of structured data, without the elements that speak of the message itself.
    pub structured: Vec<(String, String)>,
    pub body: &'a str,
}

/// Reads one message. Never fails: what cannot be read stays in the body.
pub(crate) fn parse<'a>(text: &'a str, context: &LineContext<'_>) -> Message<'a> {
    let text = text.trim_end_matches(['\n', '\r', '\0', ' ']);
    let plain =
        Message { form: Form::Plain, severity: 0, at: None, host: "", app: "", structured: Vec::new(), body: text };
    let Some((priority, rest)) = priority(text) else { return plain };
    let severity = severity_of_syslog(priority & 7);
    if let Some(message) = rest.strip_prefix("1 ").and_then(|r| rfc5424(r, severity)) {
        return message;
    }
    rfc3164(rest, severity, context)
}

/// `<0>` to `<191>`.
fn priority(text: &str) -> Option<(u8, &str)> {
    let (digits, rest) = text.strip_prefix('<')?.split_once('>')?;
    let valid = matches!(digits.len(), 1..=3) && digits.bytes().all(|b| b.is_ascii_digit());
    let value: u8 = valid.then(|| digits.parse().ok())??;
    (value <= 191).then_some((value, rest))
}

fn rfc5424(text: &str, severity: u8) -> Option<Message<'_>> {
    let mut parts = text.splitn(6, ' ');
    let at = match parts.next()? {
        "-" => None,
        time => Some(Timestamp::parse_rfc3339(time).ok()?),
    };
    let mut word = || parts.next().map(|w| if w == "-" { "" } else { w });
    let (host, app, _process, _message_id) = (word()?, word()?, word()?, word()?);
    let rest = parts.next()?;
    let (structured, body) = match rest.strip_prefix('-') {
        Some(body) if body.is_empty() || body.starts_with(' ') => (Vec::new(), body),
        _ => structured_data(rest)?,
    };
    let body = body.strip_prefix(' ').unwrap_or(body);
    let body = body.strip_prefix('\u{feff}').unwrap_or(body);
    if host.len() > 255 || app.len() > 48 {
        return None;
    }
    Some(Message { form: Form::Rfc5424, severity, at, host, app, structured, body })
}

/// `[id name="value" …][…]` and what follows; `None` when a bracket or a quote is never closed.
fn structured_data(text: &str) -> Option<(Vec<(String, String)>, &str)> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some(inner) = rest.strip_prefix('[') {
        let end = inner.find([' ', ']'])?;
        let id = &inner[..end];
        if id.is_empty() {
            return None;
        }
        // Those that IANA registered tell of the clock and the sender's software, not of what happened.
        let about_itself = matches!(id, "timeQuality" | "origin" | "meta");
        rest = &inner[end..];
        while let Some(parameter) = rest.strip_prefix(' ') {
            let (name, quoted) = parameter.split_once("=\"")?;
            let (value, after) = quoted_value(quoted)?;
            if !about_itself && found.len() < STRUCTURED_MAX {
                found.push((name.to_owned(), value));
            }
            rest = after;
        }
        rest = rest.strip_prefix(']')?;
    }
    (rest.len() < text.len()).then_some((found, rest))
}

/// Up to the closing quote; `\"`, `\\` and `\]` are escapes, any other backslash is itself.
fn quoted_value(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut chars = text.char_indices().peekable();
    while let Some((i, c)) = chars.next() {
        match c {
            '"' => return Some((value, &text[i + 1..])),
            '\\' => match chars.next_if(|(_, c)| matches!(c, '"' | '\\' | ']')) {
                Some((_, escaped)) => value.push(escaped),
                None => value.push('\\'),
            },
            c => value.push(c),
        }
    }
    None
}

/// What BSD's syslogd took, and what is sent in its name: time, machine and tag may each be absent.
fn rfc3164<'a>(text: &'a str, severity: u8, context: &LineContext<'_>) -> Message<'a> {
    let mut message =
        Message { form: Form::Rfc3164, severity, at: None, host: "", app: "", structured: Vec::new(), body: text };
    let mut rest = text;
    if let Some((at, taken)) = time::leading(text, context) {
        message.at = Some(at);
        rest = text[taken..].trim_start();
        message.body = rest;
        // A machine's name follows only a time.
        if let Some((host, after)) = rest.split_once(' ')
            && is_host(host)
        {
            message.host = host;
            rest = after.trim_start();
            message.body = rest;
        }
    }
    if let Some((app, body)) = tag(rest) {
        message.app = app;
        message.body = body;
    }
    message
}

fn is_host(word: &str) -> bool {
    (1..=255).contains(&word.len())
        && word.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'))
        || word.parse::<std::net::IpAddr>().is_ok()
}

/// `app[12]: ` or `app: `, and what follows.
fn tag(text: &str) -> Option<(&str, &str)> {
    let end =
        text.find(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | '/' | '(' | ')' | '@')))?;
    let (app, rest) = text.split_at(end);
    let rest = match rest.strip_prefix('[') {
        Some(process) => process.split_once(']').filter(|(p, _)| p.len() <= 20)?.1,
        None => rest,
    };
    let body = rest.strip_prefix(':')?;
    // `10:15 it began` has no tag.
    let named = (1..=48).contains(&app.len()) && app.bytes().any(|b| b.is_ascii_alphabetic());
    (named && (body.is_empty() || body.starts_with(' '))).then(|| (app, body.trim_start()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> (Form, u8, Option<String>, &str, &str, &str) {
        let now = Timestamp::from_secs(1_767_225_600); // 2026-01-01T00:00:00Z
        let m = parse(text, &LineContext::at(now));
        (m.form, m.severity, m.at.map(Timestamp::to_rfc3339), m.host, m.app, m.body)
    }

    #[test]
    fn known_forms() {
        let t = Some("2003-10-11T22:14:15.003Z".to_owned());
        let got = read("<34>1 2003-10-11T22:14:15.003Z mymachine.example.com su - ID47 - \u{feff}'su root' failed");
        assert_eq!(got, (Form::Rfc5424, 18, t.clone(), "mymachine.example.com", "su", "'su root' failed"));
        let got =
            read(r#"<165>1 2003-10-11T22:14:15.003Z m evntslog - ID47 [x@32473 iut="3" s="a\]b\"c"][y] BOM'less"#);
        assert_eq!(got, (Form::Rfc5424, 10, t, "m", "evntslog", "BOM'less"));
        let got = read("<34>Oct 11 22:14:15 mymachine su[230]: 'su root' failed\n");
        assert_eq!(
            got,
            (Form::Rfc3164, 18, Some("2025-10-11T22:14:15Z".into()), "mymachine", "su", "'su root' failed")
        );
        let got = read("<13>2026-01-01T00:00:00+00:00 h tag: body");
        assert_eq!(got, (Form::Rfc3164, 10, Some("2026-01-01T00:00:00Z".into()), "h", "tag", "body"));
        assert_eq!(read("<13>just text"), (Form::Rfc3164, 10, None, "", "", "just text"));
        assert_eq!(read("<13>kernel: x: y"), (Form::Rfc3164, 10, None, "", "kernel", "x: y"));
        assert_eq!(read("<0>1 - - - - - -"), (Form::Rfc5424, 21, None, "", "", ""));
        assert_eq!(read("<13>10:15 it began").5, "10:15 it began");
    }

    #[test]
    fn structured_data_is_kept_without_what_speaks_of_itself() {
        let context = LineContext::at(Timestamp::EPOCH);
        let m = parse(r#"<13>1 - h a - - [timeQuality tzKnown="1"][o@1 code="7" who="a\\b"] x"#, &context);
        assert_eq!(m.structured, [("code".into(), "7".into()), ("who".into(), r"a\b".into())]);
    }

    /// Bad messages, and what each becomes: text stays in the body, and nothing is made up.
    #[test]
    fn bad_messages() {
        for text in ["", "hello", "<", "<>", "<192>x", "<999>x", "<1234>x", "<-1>x", "<1x>y", "GET / HTTP/1.1", "<13"] {
            assert_eq!(read(text), (Form::Plain, 0, None, "", "", text), "{text}");
        }
        for (text, body) in [
            ("<13>1 2026-13-01T00:00:00Z h a - - - x", "1 2026-13-01T00:00:00Z h a - - - x"),
            ("<13>1 - h a - - [never closed", "1 - h a - - [never closed"),
            (r#"<13>1 - h a - - [x k="v] y"#, r#"1 - h a - - [x k="v] y"#),
            ("<13>1 -", "1 -"),
            ("<13>2 - h a - - - newer", "2 - h a - - - newer"),
            ("<13>Feb 30 00:00:00 h a: x", "Feb 30 00:00:00 h a: x"),
            ("<13>", ""),
        ] {
            let got = read(text);
            assert_eq!((got.0, got.1, got.5), (Form::Rfc3164, 10, body), "{text}");
        }
    }
}
