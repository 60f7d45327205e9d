//! The answer of `/api/v1/query`.

use nightshift_model::Timestamp;
use serde::Deserialize;
use std::collections::BTreeMap;

/// Longest text of a warning or error that is kept; the rest is cut off.
const TEXT_BYTES_MAX: usize = 300;

/// One value of one series.
#[derive(Debug, Clone, PartialEq)]
pub struct Value {
    /// Its labels, `__name__` among them where the expression keeps it.
    pub labels: BTreeMap<String, String>,
    /// When.
    pub at: Timestamp,
    /// The value.
    pub value: f64,
}

/// What a query gave.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Answer {
    /// Values, of one time for an instant query.
    pub values: Vec<Value>,
    /// What the server says about its own answer: parts of it may be missing.
    pub warnings: Vec<String>,
    /// Native histograms, which have no single value.
    pub histograms: usize,
}

/// Why an answer is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AnswerError {
    /// Not JSON of this shape.
    #[error("answer is no Prometheus answer: {0}")]
    Shape(String),
    /// The server refused: a bad query, too many samples, a timeout.
    #[error("server refused the query ({kind}): {text}")]
    Refused {
        /// The server's word for it.
        kind: String,
        /// The server's text.
        text: String,
    },
    /// A result that is no numbers.
    #[error("query gives a {0}, which is no number; ask for a vector or a scalar")]
    ResultType(String),
    /// More than is taken.
    #[error("query gives more than {0} values; aggregate it or take fewer series")]
    TooMany(usize),
}

#[derive(Deserialize)]
struct Envelope<'a> {
    status: String,
    #[serde(borrow, default)]
    data: Option<Data<'a>>,
    #[serde(default, rename = "errorType")]
    error_type: String,
    #[serde(default)]
    error: String,
    #[serde(default)]
    warnings: Vec<String>,
    #[serde(default, rename = "isPartial")]
    is_partial: bool,
}

#[derive(Deserialize)]
struct Data<'a> {
    #[serde(rename = "resultType")]
    result_type: String,
    #[serde(borrow)]
    result: &'a serde_json::value::RawValue,
}

type Pair = (f64, String);

#[derive(Deserialize)]
struct Series {
    #[serde(default)]
    metric: BTreeMap<String, String>,
    #[serde(default)]
    value: Option<Pair>,
    #[serde(default)]
    values: Vec<Pair>,
    #[serde(default)]
    histogram: Option<serde::de::IgnoredAny>,
    #[serde(default)]
    histograms: Vec<serde::de::IgnoredAny>,
}

/// Reads an answer with at most `most` values.
///
/// # Errors
/// [`AnswerError`]; nothing of a broken answer is used.
pub fn parse(body: &[u8], most: usize) -> Result<Answer, AnswerError> {
    let shape = |e: serde_json::Error| AnswerError::Shape(short(&e.to_string()));
    let envelope: Envelope<'_> = serde_json::from_slice(body).map_err(shape)?;
    if envelope.status != "success" {
        let (kind, text) = (short(&envelope.error_type), short(&envelope.error));
        return Err(AnswerError::Refused { kind, text });
    }
    let data = envelope.data.ok_or_else(|| AnswerError::Shape("it has no data".into()))?;
    let mut warnings: Vec<_> = envelope.warnings.iter().take(10).map(|w| short(w)).collect();
    // VictoriaMetrics' word for the same thing.
    if envelope.is_partial {
        warnings.push("the answer is partial".into());
    }
    let mut answer = Answer { warnings, ..Answer::default() };
    let text = data.result.get();
    match data.result_type.as_str() {
        "vector" | "matrix" => {
            let series: Vec<Series> = serde_json::from_str(text).map_err(shape)?;
            for one in series {
                answer.histograms += usize::from(one.histogram.is_some()) + one.histograms.len();
                for pair in one.value.into_iter().chain(one.values) {
                    if answer.values.len() >= most {
                        return Err(AnswerError::TooMany(most));
                    }
                    answer.values.push(value(one.metric.clone(), &pair)?);
                }
            }
        }
        "scalar" => {
            let pair: Pair = serde_json::from_str(text).map_err(shape)?;
            answer.values.push(value(BTreeMap::new(), &pair)?);
        }
        other => return Err(AnswerError::ResultType(short(other))),
    }
    Ok(answer)
}

fn value(labels: BTreeMap<String, String>, (at, text): &Pair) -> Result<Value, AnswerError> {
    let broken = |what: &str| AnswerError::Shape(what.into());
    // Milliseconds are what Prometheus has; more digits are what floats make of them.
    let at = Timestamp::from_secs_f64(*at).ok_or_else(|| broken("a time is out of range"))?;
    let at = Timestamp::from_millis((at + std::time::Duration::from_micros(500)).millis());
    let value = text.parse().map_err(|_| broken("a value is no number"))?;
    Ok(Value { labels, at, value })
}

fn short(text: &str) -> String {
    let end = (0..=TEXT_BYTES_MAX.min(text.len())).rev().find(|i| text.is_char_boundary(*i)).unwrap_or(0);
    text[..end].to_owned()
}

/// For fuzzing: no bytes panic.
#[doc(hidden)]
pub fn fuzz_promql_json(bytes: &[u8]) {
    if let Ok(answer) = parse(bytes, 100) {
        assert!(answer.values.len() <= 100, "more values than are taken");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ok(result_type: &str, result: &str) -> Result<Answer, AnswerError> {
        let body = format!(r#"{{"status":"success","data":{{"resultType":"{result_type}","result":{result}}}}}"#);
        parse(body.as_bytes(), 3)
    }

    #[test]
    fn answers_of_every_type() {
        let answer = ok("vector", r#"[{"metric":{"job":"a"},"value":[1700000000.123,"4.5"]}]"#).unwrap();
        let labels = BTreeMap::from([("job".to_owned(), "a".to_owned())]);
        let at = Timestamp::from_millis(1_700_000_000_123);
        assert_eq!(answer.values, [Value { labels, at, value: 4.5 }]);
        assert_eq!(ok("scalar", r#"[1,"+Inf"]"#).unwrap().values[0].value, f64::INFINITY);
        assert!(ok("vector", r#"[{"metric":{},"value":[1,"NaN"]}]"#).unwrap().values[0].value.is_nan());
        assert_eq!(ok("matrix", r#"[{"metric":{},"values":[[1,"1"],[2,"2"]]}]"#).unwrap().values.len(), 2);
        assert_eq!(ok("vector", "[]"), Ok(Answer::default()));
        let histogram = ok("vector", r#"[{"metric":{},"histogram":[1,{"count":"1"}]}]"#).unwrap();
        assert_eq!((histogram.histograms, histogram.values.len()), (1, 0));
    }

    #[test]
    fn warnings_and_refusals_are_told() {
        let body = br#"{"status":"success","warnings":["store down"],"isPartial":true,"data":{"resultType":"vector","result":[]}}"#;
        assert_eq!(parse(body, 9).unwrap().warnings, ["store down", "the answer is partial"]);
        let body = br#"{"status":"error","errorType":"bad_data","error":"parse error"}"#;
        let want = AnswerError::Refused { kind: "bad_data".into(), text: "parse error".into() };
        assert_eq!(parse(body, 9), Err(want));
    }

    #[test]
    fn bad_answers_are_refused() {
        let shape = |r: Result<Answer, AnswerError>| matches!(r, Err(AnswerError::Shape(_)));
        for bad in [
            &b""[..],
            b"<html>",
            b"[]",
            b"{}",
            br#"{"status":"success"}"#,
            br#"{"status":"success","data":{"resultType":"vector"}}"#,
            b"\xff",
        ] {
            assert!(shape(parse(bad, 9)), "{:?}", String::from_utf8_lossy(bad));
        }
        for (result_type, result) in [
            ("vector", "{}"),
            ("vector", r#"[{"metric":{},"value":[1]}]"#),
            ("vector", r#"[{"metric":{},"value":[1,"x"]}]"#),
            ("vector", r#"[{"metric":{},"value":[1e300,"1"]}]"#),
            ("vector", r#"[{"metric":{"a":1},"value":[1,"1"]}]"#),
            ("scalar", "[]"),
        ] {
            assert!(shape(ok(result_type, result)), "{result}");
        }
        assert_eq!(ok("string", r#"[1,"x"]"#), Err(AnswerError::ResultType("string".into())));
        let many = format!("[{}]", [r#"{"metric":{},"value":[1,"1"]}"#; 4].join(","));
        assert_eq!(ok("vector", &many), Err(AnswerError::TooMany(3)));
        let deep = format!(r#"{{"status":"success","data":{}"#, "[".repeat(10_000));
        assert!(shape(parse(deep.as_bytes(), 9)));
    }

    #[test]
    fn corpus() {
        crate::corpus::replay("promql_json", fuzz_promql_json);
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200)) {
            fuzz_promql_json(&bytes);
        }

        #[test]
        fn no_mutation_panics(at in 0usize..100, with in proptest::prelude::any::<u8>()) {
            let mut body = br#"{"status":"success","data":{"resultType":"vector","result":[{"metric":{"a":"b"},"value":[1.5,"2"]}]}}"#.to_vec();
            let at = at % body.len();
            body[at] = with;
            fuzz_promql_json(&body);
        }
    }
}
