//! What is written into the status of an object, and whether it says anything new. Pure.

use super::ACCEPTED;
use super::held::Object;
use super::library::{Answer, ObjectKey, ObjectiveOrder};
use super::{RemediationPolicySpec, ServiceObjectiveSpec};
use nightshift_model::{Slo, Timestamp};
use serde_json::{Map, Value, json};

/// Longest message of a condition, characters.
const MESSAGE_CHARS_MAX: usize = 4_000;
/// Most mistakes that are told of one object.
const MESSAGES_MAX: usize = 20;

/// What is to stand in the status: the answer, and fields beside it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Judged {
    pub(super) answer: Answer,
    pub(super) fields: Map<String, Value>,
}

impl Judged {
    pub(super) fn bare(answer: Answer) -> Self {
        Self { answer, fields: Map::new() }
    }

    pub(super) fn with(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.fields.insert(key.to_owned(), value.into());
        self
    }
}

/// The status of this object. The time of the condition is that of its last turn.
pub(super) fn status_of(object: &Object, judged: &Judged, now: Timestamp) -> Value {
    let (state, reason, message) = match &judged.answer {
        Answer::Accepted(word) => ("True", "Accepted", word.clone()),
        Answer::Refused { reason, messages } => ("False", *reason, told(messages)),
        Answer::Unknown(why) => ("Unknown", "Unknown", why.clone()),
    };
    let old = accepted(&object.status);
    let turned = old.filter(|c| c["status"] == state).and_then(|c| c["lastTransitionTime"].as_str());
    let at = turned.map_or_else(|| seconds(now), str::to_owned);
    let condition = json!({
        "type": ACCEPTED,
        "status": state,
        "reason": reason,
        "message": message.chars().take(MESSAGE_CHARS_MAX).collect::<String>(),
        "observedGeneration": object.generation,
        "lastTransitionTime": at,
    });
    let mut status = judged.fields.clone();
    status.insert("observedGeneration".into(), object.generation.into());
    status.insert("conditions".into(), json!([condition]));
    Value::Object(status)
}

/// Whether `seen` says what `wanted` says, of the fields that are ours to write.
pub(super) fn says(seen: &Value, wanted: &Value, ours: &[&str]) -> bool {
    accepted(seen) == accepted(wanted) && ours.iter().all(|key| alike(&seen[*key], &wanted[*key]))
}

/// Whether two values are equal; 1 and 1.0 are.
pub(super) fn alike(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => a == b || a.as_f64() == b.as_f64(),
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| alike(a, b)),
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(k, v)| b.get(k).is_some_and(|w| alike(v, w)))
        }
        _ => a == b,
    }
}

fn accepted(status: &Value) -> Option<&Value> {
    status["conditions"].as_array()?.iter().find(|c| c["type"] == ACCEPTED)
}

/// Conditions have whole seconds.
fn seconds(at: Timestamp) -> String {
    Timestamp::from_millis(at.millis().div_euclid(1_000) * 1_000).to_rfc3339()
}

fn told(messages: &[String]) -> String {
    let mut out: Vec<&str> = messages.iter().take(MESSAGES_MAX).map(String::as_str).collect();
    let more = format!("and {} more", messages.len().saturating_sub(MESSAGES_MAX));
    if messages.len() > MESSAGES_MAX {
        out.push(&more);
    }
    out.join("; ")
}

/// What a playbook file would hold.
///
/// # Errors
/// When the spec is no map.
pub(super) fn playbook_text(object: &Object) -> Result<String, String> {
    let Value::Object(spec) = &object.spec else { return Err("`spec` is missing".into()) };
    let mut spec = spec.clone();
    spec.entry("name").or_insert_with(|| object.key.name.clone().into());
    serde_saphyr::to_string(&spec).map_err(|e| format!("`spec` cannot be written as YAML: {e}"))
}

/// The policy, with defaults.
///
/// # Errors
/// When a field is missing or of another type.
pub(super) fn policy_of(object: &Object) -> Result<RemediationPolicySpec, String> {
    serde_json::from_value(object.spec.clone()).map_err(|e| format!("`spec`: {e}"))
}

/// The objective.
///
/// # Errors
/// Everything that is outside its bounds.
pub(super) fn objective_of(object: &Object) -> Result<ObjectiveOrder, Vec<String>> {
    let spec: ServiceObjectiveSpec =
        serde_json::from_value(object.spec.clone()).map_err(|e| vec![format!("`spec`: {e}")])?;
    let mut wrong = Vec::new();
    if !(spec.objective > 0.0 && spec.objective < 100.0) {
        wrong.push(format!("spec.objective: {} is not above 0 and below 100 (percent)", spec.objective));
    }
    let window_secs = seconds_of(&spec.window).unwrap_or_default();
    if window_secs == 0 {
        wrong.push(format!("spec.window: `{}` is no whole number of s, m, h, d or w, such as 30d", spec.window));
    }
    let kind = spec.target.kind.to_ascii_lowercase();
    if !["service", "deployment", "statefulset", "daemonset"].contains(&kind.as_str()) {
        let all = "Service, Deployment, StatefulSet, DaemonSet";
        wrong.push(format!("spec.target.kind: `{}` is none of {all}", spec.target.kind));
    }
    if !wrong.is_empty() {
        return Err(wrong);
    }
    let ObjectKey { name, .. } = &object.key;
    let slo = Slo {
        name: spec.name.unwrap_or_else(|| name.clone()),
        objective: spec.objective,
        window_secs,
        indicator: spec.indicator.unwrap_or_default(),
    };
    Ok(ObjectiveOrder { key: object.key.clone(), kind, target: spec.target.name, slo })
}

/// Seconds of `30d`. `None`: it is not of that form.
fn seconds_of(text: &str) -> Option<u64> {
    let unit = match text.bytes().last()? {
        b's' => 1,
        b'm' => 60,
        b'h' => 3_600,
        b'd' => 86_400,
        b'w' => 604_800,
        _ => return None,
    };
    let digits = &text[..text.len() - 1];
    let plain = (1..=9).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit());
    digits.parse::<u64>().ok().filter(|_| plain).map(|n| n * unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_secs(1_700_000_000);

    fn object(spec: Value, status: Value) -> Object {
        let key = ObjectKey { namespace: "own".into(), name: "pay".into() };
        Object { key, uid: "u".into(), generation: 3, spec, status }
    }

    #[test]
    fn a_condition_keeps_the_time_of_its_last_turn() {
        let seen = object(Value::Null, Value::Null);
        let yes = Judged::bare(Answer::Accepted(String::new())).with("digest", "ab");
        let first = status_of(&seen, &yes, NOW);
        assert_eq!(first["conditions"][0]["lastTransitionTime"], "2023-11-14T22:13:20Z");
        assert_eq!(first["conditions"][0]["status"], "True");
        assert_eq!((&first["digest"], &first["observedGeneration"]), (&json!("ab"), &json!(3)));

        let later = NOW + std::time::Duration::from_secs(60);
        let seen = object(Value::Null, first.clone());
        assert_eq!(status_of(&seen, &yes, later), first, "nothing turned");
        let no = Judged::bare(Answer::invalid(vec!["a".into(), "b".into()])).with("digest", "");
        let turned = status_of(&seen, &no, later);
        assert_eq!(turned["conditions"][0]["lastTransitionTime"], "2023-11-14T22:14:20Z");
        assert_eq!(turned["conditions"][0]["reason"], "Invalid");
        assert_eq!(turned["conditions"][0]["message"], "a; b");
    }

    #[test]
    fn only_what_differs_is_written() {
        let seen = object(Value::Null, Value::Null);
        let judged = Judged::bare(Answer::Accepted(String::new())).with("budgetLeft", 1.0);
        let wanted = status_of(&seen, &judged, NOW);
        let mut as_stored = wanted.clone();
        as_stored["budgetLeft"] = json!(1);
        as_stored["conditions"].as_array_mut().unwrap().insert(0, json!({"type": "Other", "status": "True"}));
        let ours = ["observedGeneration", "budgetLeft"];
        assert!(says(&as_stored, &wanted, &ours), "1 is 1.0, and conditions of others are theirs");
        as_stored["budgetLeft"] = json!(0.9);
        assert!(!says(&as_stored, &wanted, &ours));
        assert!(!says(&json!({}), &wanted, &ours));
    }

    #[test]
    fn many_mistakes_are_told_in_bounded_length() {
        let many: Vec<String> = (0..50).map(|i| format!("mistake {i} {}", "x".repeat(1_000))).collect();
        let judged = Judged::bare(Answer::invalid(many));
        let status = status_of(&object(Value::Null, Value::Null), &judged, NOW);
        let text = status["conditions"][0]["message"].as_str().unwrap();
        assert_eq!(text.chars().count(), MESSAGE_CHARS_MAX);
        assert!(told(&vec!["x".to_owned(); 21]).ends_with("; and 1 more"));
    }

    #[test]
    fn a_playbook_has_the_objects_name_unless_it_has_its_own() {
        let text = playbook_text(&object(json!({"title": "x: {cause}", "harm": 0.5}), Value::Null)).unwrap();
        let read: Value = serde_saphyr::from_str(&text).unwrap();
        assert_eq!(read, json!({"title": "x: {cause}", "harm": 0.5, "name": "pay"}));
        let text = playbook_text(&object(json!({"title": "x", "name": "own_name"}), Value::Null)).unwrap();
        assert!(text.contains("own_name") && !text.contains("pay"), "{text}");
        assert!(playbook_text(&object(Value::Null, Value::Null)).is_err());
    }

    #[test]
    fn an_objective_has_defaults_and_bounds() {
        let order = objective_of(&object(json!({"target": {"name": "cart"}, "objective": 99.5}), Value::Null)).unwrap();
        assert_eq!((order.kind.as_str(), order.target.as_str()), ("service", "cart"));
        assert_eq!((order.slo.name.as_str(), order.slo.window_secs), ("pay", 30 * 86_400));
        let bad = json!({"target": {"kind": "Pod", "name": "cart"}, "objective": 100, "window": "1y"});
        let wrong = objective_of(&object(bad, Value::Null)).unwrap_err().join("\n");
        for part in ["spec.objective: 100", "spec.window: `1y`", "spec.target.kind: `Pod`"] {
            assert!(wrong.contains(part), "{part} in {wrong}");
        }
        assert!(objective_of(&object(json!({"target": {}}), Value::Null)).unwrap_err()[0].contains("name"));
    }

    #[test]
    fn windows_are_whole_numbers_of_a_unit() {
        assert_eq!(seconds_of("90m"), Some(5_400));
        assert_eq!(seconds_of("2w"), Some(1_209_600));
        for bad in ["", "d", "-1d", "+1d", "1.5h", "10", "9999999999d", "1 d", "1é"] {
            assert_eq!(seconds_of(bad), None, "{bad}");
        }
    }
}
