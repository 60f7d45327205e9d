//! What a receiver may say: bytes from outside.

use crate::executor::one_line;
use crate::{Answer, IMAGE_BYTES_MAX};
use nightshift_model::{ActionOutcome, Image, Operation};
use serde::Deserialize;

/// Largest answer that is read, in bytes.
pub const ANSWER_BYTES_MAX: usize = IMAGE_BYTES_MAX + (8 << 10);

/// Most facts of an image.
const FACTS_MAX: usize = 1_000;

#[derive(Deserialize)]
struct Wire {
    #[serde(default)]
    outcome: Option<ActionOutcome>,
    #[serde(default)]
    detail: String,
    #[serde(default)]
    image: Image,
}

/// Reads an answer to an operation. A look needs no outcome: it is an answer by having come.
pub(super) fn read(bytes: &[u8], operation: Operation) -> Result<Answer, String> {
    if bytes.len() > ANSWER_BYTES_MAX {
        return Err(format!("the answer has more than {ANSWER_BYTES_MAX} bytes"));
    }
    let bad = |at: String| format!("the answer is not the JSON that docs/actuators.md describes{at}");
    // Serde would take the fields of an array in their order too.
    if bytes.trim_ascii_start().first() != Some(&b'{') {
        return Err(bad(": no object".to_owned()));
    }
    // Serde's words may repeat what was sent; the place is enough.
    let wire: Wire =
        serde_json::from_slice(bytes).map_err(|e| bad(format!(" (line {}, column {})", e.line(), e.column())))?;
    if wire.image.len() > FACTS_MAX {
        return Err(format!("the answer's image has more than {FACTS_MAX} facts"));
    }
    let outcome = match (operation, wire.outcome) {
        (Operation::Prepare, None | Some(ActionOutcome::Done)) => ActionOutcome::Done,
        (Operation::Prepare, Some(_)) => return Err(format!("it could not be read: {}", one_line(&wire.detail))),
        (_, None) => return Err("the answer has no `outcome`".to_owned()),
        // An observation says found done; that it is done is the same.
        (Operation::Observe, Some(ActionOutcome::Done)) => ActionOutcome::FoundDone,
        (_, Some(outcome)) => outcome,
    };
    Ok(Answer { outcome, detail: one_line(&wire.detail), image: wire.image })
}

/// No bytes may panic.
#[doc(hidden)]
pub fn fuzz_webhook_answer(bytes: &[u8]) {
    for operation in [Operation::Prepare, Operation::Apply, Operation::Observe] {
        if let Ok(answer) = read(bytes, operation) {
            assert!(answer.detail.chars().count() <= crate::executor::DETAIL_CHARS_MAX + 1);
            assert!(!answer.detail.chars().any(char::is_control));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn good_answers_are_read() {
        let read = |json: serde_json::Value, operation| read(json.to_string().as_bytes(), operation).unwrap();
        let done = read(json!({"outcome": "done", "detail": "3 → 6", "image": {"replicas": 6}}), Operation::Apply);
        assert_eq!(
            (done.outcome, done.detail.as_str(), done.image["replicas"].as_i64()),
            (ActionOutcome::Done, "3 → 6", Some(6))
        );
        assert_eq!(read(json!({"outcome": "done"}), Operation::Observe).outcome, ActionOutcome::FoundDone);
        assert_eq!(read(json!({"outcome": "failed"}), Operation::Observe).outcome, ActionOutcome::Failed);
        assert_eq!(read(json!({"image": {"replicas": 3}}), Operation::Prepare).image.len(), 1);
        // What a later version adds is no error.
        assert_eq!(read(json!({"outcome": "unknown", "new": 1}), Operation::Undo).outcome, ActionOutcome::Unknown);
        assert_eq!(
            read(json!({"outcome": "failed", "detail": "a\n\u{1b}[31m b"}), Operation::Apply).detail,
            "a [31m b"
        );
    }

    #[test]
    fn each_bad_answer_is_told_apart() {
        let many = json!({"outcome": "done", "image": (0..=FACTS_MAX).map(|i| (i.to_string(), 0)).collect::<std::collections::BTreeMap<_, _>>()});
        for (bytes, operation, want) in [
            (b"".to_vec(), Operation::Apply, "not the JSON"),
            (b"ok".to_vec(), Operation::Apply, "not the JSON"),
            (b"[]".to_vec(), Operation::Apply, "not the JSON"),
            (b"\xff\xfe".to_vec(), Operation::Apply, "not the JSON"),
            (br#"{"outcome":"exploded hunter2"}"#.to_vec(), Operation::Apply, "not the JSON"),
            (br#"{"outcome":"done"} {}"#.to_vec(), Operation::Apply, "not the JSON"),
            (br#"{"outcome":"done","image":[1]}"#.to_vec(), Operation::Apply, "not the JSON"),
            (b"{}".to_vec(), Operation::Apply, "no `outcome`"),
            (b"{}".to_vec(), Operation::Observe, "no `outcome`"),
            (br#"{"outcome":"refused","detail":"no such service"}"#.to_vec(), Operation::Prepare, "no such service"),
            (many.to_string().into_bytes(), Operation::Apply, "more than 1000 facts"),
            (vec![b' '; ANSWER_BYTES_MAX + 1], Operation::Apply, "more than 73728 bytes"),
            ("[".repeat(2_000).into_bytes(), Operation::Apply, "not the JSON"),
        ] {
            let why = read(&bytes, operation).unwrap_err();
            assert!(why.contains(want) && !why.contains("hunter2"), "{:?}: {why}", String::from_utf8_lossy(&bytes));
        }
    }

    #[test]
    fn the_corpus_is_replayed() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fuzz/corpus/webhook_answer");
        let mut seeds = 0;
        for entry in std::fs::read_dir(folder).unwrap() {
            fuzz_webhook_answer(&std::fs::read(entry.unwrap().path()).unwrap());
            seeds += 1;
        }
        assert!(seeds >= 5);
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            fuzz_webhook_answer(&bytes);
        }

        #[test]
        fn no_json_panics(outcome in "(done|failed|unknown|x|)", detail in any::<String>(), n in any::<f64>()) {
            fuzz_webhook_answer(json!({"outcome": outcome, "detail": detail, "image": {"n": n}}).to_string().as_bytes());
        }
    }
}
