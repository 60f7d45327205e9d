//! Tables of lines, good and bad, with the answer each gets.

use super::*;

fn context() -> LineContext<'static> {
    // 2026-01-01T00:00:00Z
    LineContext { host: "web1.example.org", ..LineContext::at(Timestamp::from_secs(1_767_225_600)) }
}

#[track_caller]
fn check(line: &str, at: Option<&str>, severity: u8, body: &str) {
    let got = parse(line, &context());
    let want = (at.map(|t| Timestamp::parse_rfc3339(t).unwrap().to_rfc3339()), severity, body);
    assert_eq!((got.at.map(Timestamp::to_rfc3339), got.severity, got.body.as_str()), want, "{line}");
}

#[test]
fn plain_lines() {
    let t = Some("2026-01-02T03:04:05Z");
    check("2026-01-02T03:04:05Z ERROR disk is full", t, 17, "disk is full");
    check(
        "2026-01-02 03:04:05,123 [main] WARN  c.e.App - slow",
        Some("2026-01-02T03:04:05.123Z"),
        13,
        "[main] WARN  c.e.App - slow",
    );
    check("2026-01-02T05:04:05+02:00 web1 sshd[12]: Failed password", t, 0, "sshd[12]: Failed password");
    check("[2026-01-02 03:04:05] [error] it broke", t, 17, "it broke");
    check("2026/01/02 03:04:05 [crit] 12#0: *1 connect() failed", t, 18, "12#0: *1 connect() failed");
    check("Dec 31 23:59:59 web1 app: last year", Some("2025-12-31T23:59:59Z"), 0, "app: last year");
    check(
        "Jan  1 01:00:00 web1 app: an hour ahead is this year",
        Some("2026-01-01T01:00:00Z"),
        0,
        "app: an hour ahead is this year",
    );
    check("Jul  4 00:00:00 worker started: ok", Some("2025-07-04T00:00:00Z"), 0, "worker started: ok");
    check(
        "E0102 03:04:05.5  77 proxy.go:12] cannot bind",
        Some("2025-01-02T03:04:05.5Z"),
        17,
        "77 proxy.go:12] cannot bind",
    );
    check(
        r#"10.0.0.7 - - [02/Jan/2026:04:04:05 +0100] "GET / HTTP/1.1" 500 12"#,
        t,
        0,
        r#"10.0.0.7 - - "GET / HTTP/1.1" 500 12"#,
    );
    check(
        "2026-01-02T03:04:05.000000001Z stderr F panic: nil map",
        Some("2026-01-02T03:04:05.000000001Z"),
        21,
        "nil map",
    );
    check("1767323045.250 info up", Some("2026-01-02T03:04:05.25Z"), 9, "up");
    check(
        "Traceback (most recent call last):\n  File x\nValueError: y",
        None,
        17,
        "Traceback (most recent call last):\n  File x\nValueError: y",
    );
    check("no error here, all is information", None, 0, "no error here, all is information");
    check("Error while reading", None, 0, "Error while reading");
    check("FATAL: the database system is starting up", None, 21, "the database system is starting up");
}

#[test]
fn json_and_logfmt_lines() {
    let t = Some("2026-01-02T03:04:05Z");
    check(
        r#"{"time":"2026-01-02T03:04:05Z","level":"warn","msg":"slow","ms":12,"who":"a b"}"#,
        t,
        13,
        r#"slow ms=12 who="a b""#,
    );
    check(r#"{"ts":1767323045,"severity":"ERROR","message":"x"}"#, t, 17, "x");
    check(r#"{"@timestamp":"2026-01-02T03:04:05Z","log":{"level":"error"},"message":"ecs"}"#, t, 17, "ecs");
    check(r#"{"level":50,"time":1767323045000,"msg":"pino"}"#, t, 17, "pino");
    check(
        r#"{"log":"2026-01-02T03:04:05Z ERROR inner\n","stream":"stderr","time":"2027-01-01T00:00:00Z"}"#,
        t,
        17,
        "inner",
    );
    check(r#"{"log":"just text\n","stream":"stdout","time":"2026-01-02T03:04:05Z"}"#, t, 0, "just text");
    check(r#"{"severity_number":21,"level":"info","body":"otel"}"#, None, 21, "otel");
    check(r#"{"error":"boom"}"#, None, 0, "error=boom");
    check(
        r#"time=2026-01-02T03:04:05Z level=error msg="could not \"open\"" path=/x"#,
        t,
        17,
        r#"could not "open" path=/x"#,
    );
    check("a=1 b=2", None, 0, "a=1 b=2");
}

/// Bad lines, and what becomes of each: the text stays, nothing is made up.
#[test]
fn bad_lines_stay_as_they_are() {
    for line in [
        "{",
        "{}",
        r#"{"level":"error""#,
        r#"{"level":{"a":1}}"#,
        "[]",
        "null",
        "level=error msg=\"never closed",
        "=x y=z",
        "2026-13-41T99:99:99Z ERR",
        "2026-01-02T03:04",
        "2026-01-02",
        "Feb 31 00:00:00 x",
        "99999999999999999999 x",
        "ERROR",
        "[info] :",
        "E9999 03:04:05 x",
    ] {
        let got = parse(line, &context());
        assert!(!got.body.is_empty(), "{line}");
        assert_eq!(got.at, None, "{line} names no time that there is");
    }
    assert_eq!(parse("   ", &context()), ParsedLine::default());
    let deep = format!("{}1{}", r#"{"a":"#.repeat(5000), "}".repeat(5000));
    assert!(parse(&deep, &context()).body.starts_with(r#"{"a":"#), "too deep for JSON: plain text");
}

#[test]
fn a_time_of_a_leap_day_is_the_last_one_there_was() {
    let got = parse("Feb 29 12:00:00 x: y", &context());
    assert_eq!(got.at.map(Timestamp::to_rfc3339).as_deref(), Some("2024-02-29T12:00:00Z"));
}

#[test]
fn times_without_a_zone_are_in_the_configured_one() {
    let east = LineContext { utc_offset_secs: 3600, ..context() };
    let at = parse("2026-01-02 03:04:05 x", &east).at.unwrap();
    assert_eq!(at.to_rfc3339(), "2026-01-02T02:04:05Z");
}

#[test]
fn trace_and_service_are_found() {
    let id = "0af7651916cd43dd8448eb211c80319c";
    for line in [
        format!(r#"{{"msg":"x","trace_id":"{id}","span_id":"b7ad6b7169203331"}}"#),
        format!(r#"{{"msg":"x","traceId":"{id}","spanId":"b7ad6b7169203331"}}"#),
        format!(r#"{{"msg":"x","traceparent":"00-{id}-b7ad6b7169203331-01"}}"#),
        format!("level=info msg=x trace_id={id} span_id=b7ad6b7169203331"),
        format!("INFO x [trace_id={id} span_id=b7ad6b7169203331]"),
        format!("INFO x traceparent: 00-{id}-b7ad6b7169203331-01"),
    ] {
        let got = parse(&line, &context());
        assert_eq!(got.trace_id, hex_id(id), "{line}");
        assert_eq!(got.span_id, hex_id("b7ad6b7169203331"), "{line}");
    }
    for bad in ["trace_id=00000000000000000000000000000000", "trace_id=xyz", "trace of nothing"] {
        assert_eq!(parse(bad, &context()).trace_id, None, "{bad}");
    }
    let resource = Arc::new(Attributes::from([("host.name".into(), "h".into())]));
    let entry = entry(r#"{"msg":"x","service":"cart"}"#, &resource, "s", &context());
    assert_eq!(entry.resource.get("service.name").map(String::as_str), Some("cart"));
    assert_eq!(entry.at, context().now, "no time of its own: when it was read");
}

#[test]
fn levels_map_to_open_telemetry_numbers() {
    for (word, n) in
        [("WARN", 13), ("Warning", 13), ("err", 17), ("FATAL", 21), ("notice", 10), ("", 0), ("informations-", 0)]
    {
        assert_eq!(severity_of_word(word), n, "{word}");
    }
    assert_eq!((0..=8).map(severity_of_syslog).collect::<Vec<_>>(), [21, 19, 18, 17, 13, 10, 9, 5, 0]);
}

#[test]
fn bytes_become_text_that_can_be_shown() {
    assert_eq!(clean(b"\0\0\0ok\r\n"), "ok\n");
    assert_eq!(clean(b"\x1b[31mred\x1b[0m"), "red");
    assert_eq!(clean(b"a\xffb\x07"), "a\u{fffd}b\u{fffd}");
    let mut long = "é".repeat(100);
    cut(&mut long, 11);
    assert_eq!(long, "ééééé … [190 bytes cut]");
}

#[test]
fn corpus_is_read() {
    crate::corpus::replay("log_line", fuzz_log_line);
}

proptest::proptest! {
    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..300)) {
        fuzz_log_line(&bytes);
    }

    #[test]
    fn no_text_panics(text in "[0-9a-z{}\\[\\]\":=TZ,./+ \\-é]{0,80}") {
        fuzz_log_line(text.as_bytes());
    }

    #[test]
    fn every_word_of_a_json_line_is_kept(words in proptest::collection::btree_map("[a-z]{3,8}x", "[a-zA-Z0-9 ]{1,12}", 1..6)) {
        let line = serde_json::to_string(&words).unwrap();
        let body = parse(&line, &context()).body;
        for word in words.values() {
            proptest::prop_assert!(body.contains(word.as_str()), "{word} of {line} is not in {body}");
        }
    }
}
