//! Expressions: what they say and what they refuse.

use super::*;

struct World;

impl Scope for World {
    fn fact(&self, name: &str) -> Option<Val> {
        Some(match name {
            "replicas" => Val::Num(3.0),
            "max_replicas" => Val::Num(5.0),
            "version" => Val::Text("1.20".into()),
            "flag.fast" => Val::Bool(true),
            "huge" => Val::Num(f64::MAX),
            _ => return None,
        })
    }
    fn facts_with(&self, prefix: &str) -> BTreeMap<String, f64> {
        if prefix == "weight." { BTreeMap::from([("a".into(), 1.0), ("b".into(), 2.5)]) } else { BTreeMap::new() }
    }
    fn series(&self, which: Series, signal: &str) -> Option<f64> {
        (signal == "cpu").then_some(if which == Series::Baseline { 30.0 } else { 97.0 })
    }
}

fn eval(text: &str) -> Result<String, String> {
    let expr = Expr::parse(text).map_err(|e| format!("read: {e}"))?;
    assert_eq!(expr.to_string(), text);
    expr.eval(&World).map(|v| v.to_json().to_string()).map_err(|e| e.to_string())
}

#[test]
fn values() {
    for (text, want) in [
        ("replicas * 2", "6"),
        ("min(replicas * 2, max_replicas)", "5"),
        ("1 + 2 * 3 - 4 / 2", "5"),
        ("-(1 + 2) * -2", "6"),
        ("ceil(replicas / 2)", "2"),
        ("round(baseline('cpu') * 12.34) / 10", "37"),
        ("observed('cpu')", "97"),
        ("first(nothing, max_replicas)", "5"),
        ("known(nothing) or replicas < max_replicas", "true"),
        ("not flag.fast and true", "false"),
        ("version == '1.20'", "true"),
        ("version != \"1.2\"", "true"),
        ("if(replicas >= 3, 'many', 'few')", "\"many\""),
        ("all('weight.')", r#"{"a":1,"b":2.5}"#),
        ("all('weight.') == all('weight.')", "true"),
        ("0.1 + 0.2", "0.30000000000000004"),
    ] {
        assert_eq!(eval(text), Ok(want.to_owned()), "{text}");
    }
}

#[test]
fn what_is_not_known_or_fits_badly_has_no_value() {
    for (text, want) in [
        ("replicas * none", "`none` is not known"),
        ("first(a, b)", "`b` is not known"),
        ("baseline('disk')", "`disk` is not known"),
        ("all('x.')", "`x.` is not known"),
        ("1 / 0", "division by zero"),
        ("huge * 10", "the result is no finite number"),
        ("version + 1", "expected a number, `1.20` is a text"),
        ("not 3", "a condition is a number, expected true or false"),
        ("all(3)", "expected a name in quotes, not a number"),
        ("", "read: the expression is empty"),
        ("1 +", "read: the expression ends where a value is expected"),
        ("1 2", "read: expected an operator or the end before `2`"),
        ("(1", "read: a `(` is not closed"),
        ("min(1", "read: `min(` is not closed"),
        ("min()", "read: `min` takes 1 to 8 values, not 0"),
        (
            "exec('rm')",
            "read: `exec` is no function; known: min, max, ceil, floor, round, first, known, if, all, baseline, observed, lower, upper",
        ),
        ("'open", "read: a text has no closing '"),
        ("1..2", "read: `1..2` is not a number"),
        ("a; b", "read: `;` has no meaning here"),
        ("and", "read: expected a value, found `and`"),
        ("1 < 2 < 3", "read: expected an operator or the end before `<`"),
    ] {
        assert_eq!(eval(text), Err(want.to_owned()), "{text}");
    }
    let deep = format!("{}1{}", "(".repeat(40), ")".repeat(40));
    assert_eq!(Expr::parse(&deep).unwrap_err(), "the expression is nested deeper than 24");
    assert!(Expr::parse(&"-".repeat(200)).is_err() && Expr::parse(&"not ".repeat(100)).is_err());
    assert!(Expr::parse(&"1+".repeat(400)).unwrap_err().contains("at most 512"));
}

#[test]
fn texts_that_only_look_like_numbers_stay_texts() {
    assert_eq!(Val::from_text("1.20"), Val::Text("1.20".into()));
    assert_eq!(Val::from_text("12"), Val::Num(12.0));
    assert_eq!(Val::from_text("inf"), Val::Text("inf".into()));
    assert_eq!(Val::from_text("true"), Val::Bool(true));
    assert_eq!(Val::Num(6.0).to_json(), serde_json::json!(6));
}
