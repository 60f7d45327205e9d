//! The answer of an external policy engine, as a value.

use crate::policy::{Said, said_of_json};
use serde::{Deserialize, Serialize};

/// Longest answer that is read, in bytes.
pub const ANSWER_BYTES_MAX: usize = 1 << 20;

/// What an external policy engine said of a plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ExternalAnswer {
    /// It answered.
    Said {
        /// What its rules say; empty: nothing against it.
        rules: Vec<Said>,
    },
    /// It did not, or not as agreed: a denial.
    Failed {
        /// Why, one line.
        why: String,
    },
}

impl ExternalAnswer {
    /// Reads the body of `POST /v1/data/…`: `{"result": {"deny": […], "ask": […], "monitor": […]}}`, each a list of
    /// texts or of `{"msg": …, "overridable": …}`. Anything else is [`ExternalAnswer::Failed`], also an undefined
    /// document (OPA answers `{}`).
    pub fn parse(document: &str, body: &[u8]) -> Self {
        match Self::read(document, body) {
            Ok(rules) => Self::Said { rules },
            Err(why) => Self::Failed { why },
        }
    }

    fn read(document: &str, body: &[u8]) -> Result<Vec<Said>, String> {
        if body.len() > ANSWER_BYTES_MAX {
            return Err(format!("answer of {} bytes is longer than {ANSWER_BYTES_MAX}", body.len()));
        }
        let value: serde_json::Value = serde_json::from_slice(body).map_err(|e| format!("answer is not JSON: {e}"))?;
        let result = value.get("result").ok_or_else(|| {
            format!("document `{document}` is undefined there: load the policies or correct guard.opa.document")
        })?;
        let rules = result.as_object().ok_or("result is not an object with deny, ask and monitor")?;
        let package = document.trim_matches('/').replace('/', ".");
        let mut out = Vec::new();
        let mut known = false;
        for verb in crate::policy::VERBS {
            if let Some(value) = rules.get(verb.as_str()) {
                known = true;
                out.extend(said_of_json(&package, verb, value)?);
            }
        }
        if known { Ok(out) } else { Err("result has none of deny, ask and monitor".into()) }
    }
}

/// Reads any bytes as an answer: for fuzzing.
#[doc(hidden)]
pub fn fuzz_opa_answer(bytes: &[u8]) {
    let answer = ExternalAnswer::parse("nightshift", bytes);
    let json = serde_json::to_string(&answer).expect("an answer has string keys");
    assert_eq!(serde_json::from_str::<ExternalAnswer>(&json).expect("what was written is read"), answer);
}

#[cfg(test)]
mod tests {
    use super::*;
    use nightshift_model::Decision;

    #[test]
    fn what_is_not_as_agreed_is_a_failure() {
        for (body, why) in [
            ("", "not JSON"),
            ("<html>", "not JSON"),
            ("{}", "is undefined there"),
            ("[]", "is undefined there"),
            ("{\"result\": true}", "not an object"),
            ("{\"result\": null}", "not an object"),
            ("{\"result\": {}}", "none of deny, ask and monitor"),
            ("{\"result\": {\"allow\": true}}", "none of deny, ask and monitor"),
            ("{\"result\": {\"deny\": false}}", "deny is not a list"),
            ("{\"result\": {\"deny\": [1]}}", "neither a text nor an object"),
            ("{\"result\": {\"ask\": [{\"text\": \"x\"}]}}", "without a text `msg`"),
        ] {
            match ExternalAnswer::parse("nightshift", body.as_bytes()) {
                ExternalAnswer::Failed { why: said } => assert!(said.contains(why), "{body}: {said}"),
                said => panic!("{body}: {said:?}"),
            }
        }
        let long = vec![b' '; ANSWER_BYTES_MAX + 1];
        assert!(matches!(ExternalAnswer::parse("n", &long), ExternalAnswer::Failed { .. }));
    }

    #[test]
    fn an_answer_is_read() {
        let body = br#"{"result": {"deny": ["no"], "ask": [{"msg": "who?", "overridable": false}], "monitor": []}}"#;
        let ExternalAnswer::Said { rules } = ExternalAnswer::parse("shop/policy", body) else { panic!() };
        assert_eq!(rules.len(), 2);
        assert_eq!((rules[0].rule.as_str(), rules[0].decision), ("shop.policy.deny", Decision::Deny));
        assert_eq!((rules[1].rule.as_str(), rules[1].overridable), ("shop.policy.ask", false));
        assert_eq!(ExternalAnswer::parse("x", br#"{"result":{"deny":[]}}"#), ExternalAnswer::Said { rules: vec![] });
    }

    #[test]
    fn the_corpus_is_replayed() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus/opa_answer");
        for entry in std::fs::read_dir(folder).unwrap() {
            fuzz_opa_answer(&std::fs::read(entry.unwrap().path()).unwrap());
        }
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..300)) {
            fuzz_opa_answer(&bytes);
        }
    }
}
