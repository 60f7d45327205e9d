use super::*;

type Row = (String, Vec<(String, String)>, String, Option<i64>, SeriesKind);

fn parse(dialect: Dialect, text: &str) -> Result<Vec<Row>, ParseError> {
    let mut rows = Vec::new();
    let mut give = |s: Sample<'_>| {
        let labels = s.labels.into_iter().map(|(k, v)| (k.into_owned(), v.into_owned())).collect();
        rows.push((s.name.into_owned(), labels, s.value.to_string(), s.at.map(Timestamp::millis), s.kind));
    };
    let mut parser = Parser::new(dialect, ParseLimits { line_bytes_max: 200, samples_max: 5, labels_max: 3 });
    parser.push(text.as_bytes(), &mut give)?;
    parser.finish(&mut give)?;
    Ok(rows)
}

fn row(name: &str, labels: &[(&str, &str)], value: &str, at: Option<i64>, kind: SeriesKind) -> Row {
    let labels = labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    (name.into(), labels, value.into(), at, kind)
}

#[test]
fn text_format() {
    use SeriesKind::{Counter, Gauge};
    let rows: &[(&str, Row)] = &[
        ("a 1\n", row("a", &[], "1", None, Gauge)),
        ("a_total 1", row("a_total", &[], "1", None, Counter)),
        ("a{} +Inf 1395066363000\r\n", row("a", &[], "inf", Some(1_395_066_363_000), Gauge)),
        ("a {b=\"c\"} NaN", row("a", &[("b", "c")], "NaN", None, Gauge)),
        ("a{b=\"c\",d=\"e\",} 1e3 -5", row("a", &[("b", "c"), ("d", "e")], "1000", Some(-5), Gauge)),
        (r#"a{b="C:\\x\"\n\z"} 1"#, row("a", &[("b", "C:\\x\"\n\\z")], "1", None, Gauge)),
        ("a{b=\"}#{\"} 1", row("a", &[("b", "}#{")], "1", None, Gauge)),
        (r#"{"my.metric", "b.c"="d"} 2"#, row("my.metric", &[("b.c", "d")], "2", None, Gauge)),
        ("# HELP a whatever # TYPE\n# TYPE a counter\na 1", row("a", &[], "1", None, Counter)),
        ("# TYPE a_count gauge\na_count 1", row("a_count", &[], "1", None, Gauge)),
        ("# TYPE \"a.b\" counter\n{\"a.b\"} 1", row("a.b", &[], "1", None, Counter)),
        ("# TYPE a histogram\na_bucket{le=\"1\"} 1", row("a_bucket", &[("le", "1")], "1", None, Counter)),
        ("# TYPE a summary\na{quantile=\"0.9\"} 1", row("a", &[("quantile", "0.9")], "1", None, Gauge)),
        ("# TYPE a summary\na_sum 1", row("a_sum", &[], "1", None, Counter)),
        ("# TYPE a gauge\nb_total 1", row("b_total", &[], "1", None, Counter)),
        ("# TYPE a untyped\na 1", row("a", &[], "1", None, Gauge)),
        ("#\n#a\n\n  a\t1\t2 ", row("a", &[], "1", Some(2), Gauge)),
    ];
    for (text, want) in rows {
        assert_eq!(parse(Dialect::Text, text).as_deref(), Ok(&[want.clone()][..]), "{text}");
    }
}

#[test]
fn openmetrics() {
    use SeriesKind::{Counter, Gauge};
    let rows: &[(&str, Row)] = &[
        ("# TYPE a counter\na_total 1 1.5\n# EOF\n", row("a_total", &[], "1", Some(1_500), Counter)),
        ("# TYPE a counter\na_created 1\n# EOF", row("a_created", &[], "1", None, Gauge)),
        ("a{b=\"c\"} 1 # {trace=\"x\"} 0.5 1.5\n# EOF\n", row("a", &[("b", "c")], "1", None, Gauge)),
        ("# TYPE a gaugehistogram\na_gcount 1\n# EOF\n", row("a_gcount", &[], "1", None, Gauge)),
        ("# TYPE a stateset\na{a=\"on\"} 1\n# EOF\n", row("a", &[("a", "on")], "1", None, Gauge)),
    ];
    for (text, want) in rows {
        assert_eq!(parse(Dialect::OpenMetrics, text).as_deref(), Ok(&[want.clone()][..]), "{text}");
    }
}

/// Each bad input with the answer it gets.
#[test]
fn bad_expositions_are_refused() {
    let long = format!("a{{b=\"{}\"}} 1\n", "x".repeat(300));
    let many = "a 1\n".repeat(6);
    for (dialect, text, line, what) in [
        (Dialect::Text, "a", 1, "sample without a value"),
        (Dialect::Text, "a 1\nb\n", 2, "sample without a value"),
        (Dialect::Text, "a x", 1, "value is not a number"),
        (Dialect::Text, "a 1 1.5", 1, "time is not whole milliseconds"),
        (Dialect::Text, "a 1 2 3", 1, "text after the time"),
        (Dialect::Text, "a{b} 1", 1, "label without a value"),
        (Dialect::Text, "a{b=c} 1", 1, "label value is not quoted"),
        (Dialect::Text, "a{b=\"c} 1", 1, "string without its closing quote"),
        (Dialect::Text, "a{b=\"c\\", 1, "string without its closing quote"),
        (Dialect::Text, "a{b=\"c\"", 1, "labels without `}`"),
        (Dialect::Text, "a{b=\"c\" d=\"e\"} 1", 1, "labels without `}`"),
        (Dialect::Text, "a{=\"c\"} 1", 1, "label without a name"),
        (Dialect::Text, "a{b=\"1\",b=\"2\"} 1", 1, "label twice"),
        (Dialect::Text, "a{b=\"1\",c=\"2\",d=\"3\",e=\"4\"} 1", 1, "more labels than are taken"),
        (Dialect::Text, "{b=\"1\"} 1", 1, "sample without a name"),
        (Dialect::Text, "{\"a\",\"b\"} 1", 1, "label without a value"),
        (Dialect::Text, &long, 1, "line is too long"),
        (Dialect::Text, &many, 6, "more samples than are taken"),
        (Dialect::Text, "# TYPE a", 1, "`# TYPE` without a type"),
        (Dialect::Text, "<html>", 1, "sample without a value"),
        (Dialect::OpenMetrics, "a 1\n", 1, "ends without `# EOF`; the answer was cut off"),
        (Dialect::OpenMetrics, "# EOF\na 1\n", 2, "text after `# EOF`"),
        (Dialect::OpenMetrics, "a 1 x\n# EOF\n", 1, "time is not a number of seconds"),
        (Dialect::OpenMetrics, "a 1 1e300\n# EOF\n", 1, "time is not a number of seconds"),
    ] {
        assert_eq!(parse(dialect, text), Err(ParseError { line, what }), "{text}");
    }
    let mut parser = Parser::new(Dialect::Text, ParseLimits::default());
    assert_eq!(parser.push(b"a\xff 1\n", &mut |_| ()).unwrap_err().what, "line is not UTF-8");
}

#[test]
fn content_types_tell_the_dialect() {
    for (content_type, want) in [
        ("application/openmetrics-text; version=1.0.0; charset=utf-8", Dialect::OpenMetrics),
        ("text/plain; version=0.0.4", Dialect::Text),
        ("", Dialect::Text),
    ] {
        assert_eq!(Dialect::of(content_type), want);
    }
}

#[test]
fn corpus() {
    crate::corpus::replay("exposition", fuzz_exposition);
}

proptest::proptest! {
    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..300)) {
        fuzz_exposition(&bytes);
    }

    #[test]
    fn nothing_that_looks_like_it_panics(text in "[ab#{}\",=\\\\ \n0-9TYPE.]{0,120}") {
        fuzz_exposition(text.as_bytes());
    }

    #[test]
    fn any_label_value_survives(value in "[^\r]{0,40}") {
        let escaped = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
        let rows = parse(Dialect::Text, &format!("a{{b=\"{escaped}\"}} 1"));
        proptest::prop_assert_eq!(&rows.unwrap()[0].1[0].1, &value);
    }
}
