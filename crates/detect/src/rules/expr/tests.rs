use super::*;

#[test]
fn good_expressions() {
    for text in [
        "up == 0",
        "avg(node_filesystem_avail_bytes{mountpoint=\"/\"}, 5m) / last(node_filesystem_size_bytes{mountpoint='/'}) < 5%",
        "rate(http_requests_total{status=~\"5..\"}, 5m) / rate(http_requests_total, 5m) > 0.05 and rate(http_requests_total, 5m) > 1",
        "absent(up{job=\"x\",}, 3m) or not (max(up) >= 1)",
        "-min(a{}) * 2 + 1.5e3 != .5GiB",
        "cert_not_after - now() < 14d",
        "(((a)) > (1))",
        "a{b=~\"x\\\\.y\\\"\"} > 1_000",
    ] {
        assert!(Expr::parse(text).is_ok(), "{text}: {:?}", Expr::parse(text).err());
    }
    let e = Expr::parse("absent(a, 90s) and b > 1").unwrap();
    assert!(e.has_absent && e.window_ns == 300 * NANOS_PER_SEC && e.selectors.len() == 2);
}

/// Text, byte where it is wrong, part of the message, part of the hint.
const BAD: &[(&str, usize, &str, &str)] = &[
    ("", 0, "empty", "condition"),
    ("   ", 3, "empty", ""),
    ("5", 0, "this is a number", "compare"),
    ("up", 0, "this is a number", "compare"),
    ("up = 1", 3, "compares nothing", "=="),
    ("up == 0 && x > 1", 8, "unexpected `&&`", "and"),
    ("up == 0 AND x > 1", 8, "unexpected `AND`", "`and`"),
    ("1 < 2 < 3", 6, "cannot be compared", "and"),
    ("(up == 0) + 1 > 2", 0, "this is a condition", ""),
    ("up and 3 > 2", 0, "this is a number", ""),
    ("not 5", 4, "this is a number", ""),
    ("(up > 1", 0, "never closed", ")"),
    ("up > 1)", 6, "unexpected `)`", ""),
    ("avrg(up, 5m) > 1", 0, "no function `avrg`", "`avg`"),
    ("quantile(up) > 1", 0, "no function", "functions are"),
    ("avg(up[5m]) > 1", 6, "brackets", "avg(metric, 5m)"),
    ("avg(up, 5) > 1", 8, "no unit of time", "5m"),
    ("avg(up, 5MB) > 1", 8, "no unit of time", ""),
    ("avg(up, 0s) > 1", 8, "out of range", ""),
    ("avg(up, 2d) > 1", 8, "out of range", "86400"),
    ("avg(up, 5m > 1", 3, "never closed", ""),
    ("avg(rate(up, 5m), 5m) > 1", 4, "not another function", ""),
    ("avg() > 1", 4, "metric is missing", ""),
    ("avg(5) > 1", 4, "metric is missing", ""),
    ("up > 5q", 6, "no unit `q`", "units are"),
    ("up > 1.2.3", 5, "not a number", ""),
    ("up > 1e999", 5, "not a number", ""),
    ("up{job=api} > 1", 7, "text in quotes", ""),
    ("up{job=\"api} > 1", 7, "never closed", ""),
    ("up{job=\"api\" > 1", 13, "`,` or `}`", ""),
    ("up{job=\"api\"", 2, "never closed", "}"),
    ("up{", 2, "never closed", ""),
    ("up{=\"x\"} > 1", 3, "label is missing", ""),
    ("up{job~\"x\"} > 1", 6, "missing", ""),
    ("up{job=~\"(\"} > 1", 8, "regular expression", ""),
    ("up{job=~\"a{9999}{9999}\"} > 1", 8, "regular expression", ""),
    ("up >", 4, "ends too early", "missing"),
    ("> 1", 0, "unexpected `>`", ""),
    ("and up", 0, "`and` has nothing", ""),
    ("up > 1 or", 9, "ends too early", ""),
    ("now(5) > 1", 4, "takes nothing", ""),
    ("ü > 1", 0, "unexpected `ü`", ""),
    ("up > 1 ü", 7, "unexpected `ü`", ""),
];

#[test]
fn bad_expressions_say_what_and_where() {
    for (text, at, message, hint) in BAD {
        let e = Expr::parse(text).expect_err(text);
        assert!(e.start == *at && e.message.contains(message) && e.hint.contains(hint), "{text}: {e:?}");
    }
}

#[test]
fn size_and_depth_are_bounded() {
    let deep = format!("{}up{} > 1", "(".repeat(500), ")".repeat(500));
    assert!(Expr::parse(&deep).unwrap_err().message.contains("nested deeper"));
    assert!(Expr::parse(&format!("{}up > 1", "-".repeat(500))).unwrap_err().message.contains("nested deeper"));
    assert!(Expr::parse(&format!("{}up > 1", "not ".repeat(500))).unwrap_err().message.contains("nested deeper"));
    assert!(Expr::parse(&format!("{}1 > 1", "1+".repeat(500))).unwrap_err().message.contains("terms"));
    assert!(Expr::parse(&vec!["up > 1"; 100].join(" or ")).unwrap_err().message.contains("more than 32 metrics"));
    assert!(Expr::parse(&" ".repeat(5000)).unwrap_err().message.contains("bytes"));
}

proptest::proptest! {
    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
        fuzz_rule_expr(&bytes);
    }

    #[test]
    fn no_expression_like_text_panics(text in "(avg|rate|absent|now|up|[(){},<>=!~+*/-]|\"|and|or|not|5m|80%|1GiB|[0-9.e]| ){0,40}") {
        fuzz_rule_expr(text.as_bytes());
    }
}
