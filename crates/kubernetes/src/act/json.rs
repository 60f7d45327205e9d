//! JSON by pointers: fields of an object, what differs, patches, quantities.

use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// Values by JSON pointer; `null` stands for a field that is not there.
pub(super) type Fields = BTreeMap<String, Value>;

/// Deepest that is descended.
const DEPTH_MAX: usize = 60;

/// A part of a pointer, escaped.
pub(super) fn escaped(key: &str) -> String {
    key.replace('~', "~0").replace('/', "~1")
}

fn parts(pointer: &str) -> impl Iterator<Item = String> + '_ {
    pointer.split('/').skip(1).map(|p| p.replace("~1", "/").replace("~0", "~"))
}

/// What is at a pointer; `null` when there is nothing.
pub(super) fn get(object: &Value, pointer: &str) -> Value {
    object.pointer(pointer).cloned().unwrap_or(Value::Null)
}

/// The text at a pointer; empty when there is none.
pub(super) fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or("")
}

/// The whole number at a pointer.
pub(super) fn whole(object: &Value, pointer: &str) -> Option<i64> {
    object.pointer(pointer).and_then(Value::as_i64)
}

/// The items at a pointer; none when there is no list.
pub(super) fn items<'a>(object: &'a Value, pointer: &str) -> &'a [Value] {
    object.pointer(pointer).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// Sets what is at a pointer, with the objects on the way; `null` takes the field away. Only objects are made and
/// descended by names, lists only by an index that is there.
pub(super) fn set(object: &mut Value, pointer: &str, value: Value) {
    let path: Vec<String> = parts(pointer).collect();
    let Some((last, way)) = path.split_last() else {
        *object = value;
        return;
    };
    let mut at = object;
    for part in way {
        at = match at {
            Value::Array(list) => match part.parse::<usize>().ok().and_then(|i| list.get_mut(i)) {
                Some(next) => next,
                None => return,
            },
            other => {
                if !other.is_object() {
                    if value.is_null() {
                        return;
                    }
                    *other = Value::Object(Map::new());
                }
                let Value::Object(map) = other else { return };
                if value.is_null() && !map.contains_key(part) {
                    return;
                }
                map.entry(part.clone()).or_insert(Value::Null)
            }
        };
    }
    match at {
        Value::Array(list) => {
            if let Some(slot) = last.parse::<usize>().ok().and_then(|i| list.get_mut(i)) {
                *slot = value;
            }
        }
        other => {
            if value.is_null() {
                if let Value::Object(map) = other {
                    map.remove(last);
                }
                return;
            }
            if !other.is_object() {
                *other = Value::Object(Map::new());
            }
            if let Value::Object(map) = other {
                map.insert(last.clone(), value);
            }
        }
    }
}

/// The fields of an object at these pointers.
pub(super) fn fields<S: AsRef<str>>(object: &Value, roots: &[S]) -> Fields {
    roots.iter().map(|r| (r.as_ref().to_owned(), get(object, r.as_ref()))).collect()
}

/// The smallest places at which two values differ, as (pointer below `at`, before, after). Lists of another length
/// differ as a whole.
pub(super) fn leaves(at: &str, before: &Value, after: &Value) -> Vec<(String, Value, Value)> {
    let mut out = Vec::new();
    walk(at, before, after, 0, &mut out);
    out
}

fn walk(at: &str, before: &Value, after: &Value, depth: usize, out: &mut Vec<(String, Value, Value)>) {
    if same(before, after) {
        return;
    }
    match (before, after) {
        (Value::Object(a), Value::Object(b)) if depth < DEPTH_MAX => {
            let mut keys: Vec<&String> = a.keys().chain(b.keys()).collect();
            keys.sort();
            keys.dedup();
            for key in keys {
                let null = Value::Null;
                let (x, y) = (a.get(key).unwrap_or(&null), b.get(key).unwrap_or(&null));
                walk(&format!("{at}/{}", escaped(key)), x, y, depth + 1, out);
            }
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() && depth < DEPTH_MAX => {
            for (i, (x, y)) in a.iter().zip(b).enumerate() {
                walk(&format!("{at}/{i}"), x, y, depth + 1, out);
            }
        }
        _ => out.push((at.to_owned(), before.clone(), after.clone())),
    }
}

/// Whether two values say the same: `null`, an empty object and an empty list are all nothing, 3 is 3.0, and quantities
/// are compared by what they are worth (`1024Mi` is `1Gi`).
pub(super) fn same(a: &Value, b: &Value) -> bool {
    let nothing = |v: &Value| match v {
        Value::Null => true,
        Value::Object(map) => map.values().all(Value::is_null),
        Value::Array(list) => list.is_empty(),
        _ => false,
    };
    match (a, b) {
        _ if nothing(a) && nothing(b) => true,
        (Value::Number(a), Value::Number(b)) => a == b || a.as_f64() == b.as_f64(),
        (Value::Object(a), Value::Object(b)) => {
            let null = Value::Null;
            a.keys().chain(b.keys()).all(|k| same(a.get(k).unwrap_or(&null), b.get(k).unwrap_or(&null)))
        }
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        (Value::String(x), Value::String(y)) if x != y => match (suffixed(x), suffixed(y)) {
            (Some(x), Some(y)) => (x - y).abs() <= 1e-9 * x.abs().max(y.abs()),
            _ => false,
        },
        _ => a == b,
    }
}

/// A quantity that has a unit; plain numbers in quotes are texts.
fn suffixed(text: &str) -> Option<f64> {
    text.ends_with(|c: char| c.is_ascii_alphabetic()).then(|| quantity(text)).flatten()
}

/// What has to be merged into `from` so that it becomes `to`.
pub(super) fn merge_patch(from: &Value, to: &Value) -> Value {
    let (Value::Object(a), Value::Object(b)) = (from, to) else { return to.clone() };
    let mut out = Map::new();
    for key in a.keys().filter(|k| !b.contains_key(*k)) {
        out.insert(key.clone(), Value::Null);
    }
    for (key, value) in b {
        match a.get(key) {
            Some(old) if old == value => {}
            Some(old) => {
                out.insert(key.clone(), merge_patch(old, value));
            }
            None => {
                out.insert(key.clone(), value.clone());
            }
        }
    }
    Value::Object(out)
}

/// A quantity as a number: `250m` is 0.25, `1Gi` is 2^30.
pub(super) fn quantity(text: &str) -> Option<f64> {
    let split = text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len());
    let (digits, unit) = text.split_at(split);
    let factor = match unit {
        "" => 1.0,
        "n" => 1e-9,
        "u" => 1e-6,
        "m" => 1e-3,
        "k" => 1e3,
        "M" => 1e6,
        "G" => 1e9,
        "T" => 1e12,
        "P" => 1e15,
        "Ki" => 1024.0,
        "Mi" => 1_048_576.0,
        "Gi" => 1_073_741_824.0,
        "Ti" => 1_099_511_627_776.0,
        "Pi" => 1_125_899_906_842_624.0,
        _ => return text.parse::<f64>().ok().filter(|n| n.is_finite()),
    };
    let number = digits.parse::<f64>().ok()?;
    (number.is_finite()).then_some(number * factor)
}

/// A quantity at a pointer, as a number.
pub(super) fn quantity_at(object: &Value, pointer: &str) -> Option<f64> {
    match object.pointer(pointer)? {
        Value::String(text) => quantity(text),
        Value::Number(n) => n.as_f64(),
        _ => None,
    }
}

/// MiB as a quantity, in the form in which the server keeps it.
pub(super) fn mib(value: f64) -> String {
    let whole = value.round().max(1.0) as u64;
    for (unit, size) in [("Ti", 1_u64 << 20), ("Gi", 1 << 10)] {
        if whole.is_multiple_of(size) {
            return format!("{}{unit}", whole / size);
        }
    }
    format!("{whole}Mi")
}

/// Thousandths of a core as a quantity, in the form in which the server keeps it.
pub(super) fn millis(value: f64) -> String {
    let whole = value.round().max(1.0) as u64;
    if whole.is_multiple_of(1_000) { (whole / 1_000).to_string() } else { format!("{whole}m") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn fields_are_set_and_taken_away() {
        let mut object = json!({"spec": {"replicas": 3}});
        set(&mut object, "/metadata/annotations/nightshift.dev~1last-key", json!("k"));
        set(&mut object, "/spec/replicas", json!(5));
        assert_eq!(
            object,
            json!({"metadata": {"annotations": {"nightshift.dev/last-key": "k"}}, "spec": {"replicas": 5}})
        );
        set(&mut object, "/metadata/annotations/nightshift.dev~1last-key", Value::Null);
        set(&mut object, "/not/there", Value::Null);
        assert_eq!(object, json!({"metadata": {"annotations": {}}, "spec": {"replicas": 5}}));
        let mut list = json!({"a": [{"b": 1}]});
        set(&mut list, "/a/0/b", json!(2));
        set(&mut list, "/a/7/b", json!(2));
        assert_eq!(list, json!({"a": [{"b": 2}]}));
    }

    #[test]
    fn quantities_are_compared_by_what_they_are_worth() {
        for (a, b) in [("1024Mi", "1Gi"), ("1000m", "1000m"), ("0.5Gi", "512Mi"), ("1e3", "1e3")] {
            assert!(same(&json!(a), &json!(b)), "{a} {b}");
        }
        for (a, b) in [("1Gi", "1G"), ("1.10", "1.1"), ("v2", "v3"), ("100m", "100M")] {
            assert!(!same(&json!(a), &json!(b)), "{a} {b}");
        }
        assert_eq!((mib(256.0), mib(2048.0), mib(0.2)), ("256Mi".into(), "2Gi".into(), "1Mi".into()));
        assert_eq!((millis(250.0), millis(2_000.0)), ("250m".into(), "2".into()));
        assert_eq!(quantity("x"), None);
        assert_eq!(quantity("infm"), None);
    }

    #[test]
    fn a_merge_patch_leads_from_one_to_the_other() {
        let (from, to) =
            (json!({"a": 1, "b": {"c": 2, "d": 3}, "l": [1]}), json!({"b": {"c": 2, "d": 4}, "l": [2], "n": 0}));
        assert_eq!(merge_patch(&from, &to), json!({"a": null, "b": {"d": 4}, "l": [2], "n": 0}));
        assert_eq!(
            leaves("/s", &json!({"a": [{"x": 1}, {"x": 2}]}), &json!({"a": [{"x": 1}, {"x": 3}]})),
            [("/s/a/1/x".to_owned(), json!(2), json!(3))]
        );
        assert!(leaves("", &json!({"a": {}}), &json!({})).is_empty(), "an empty object is nothing");
    }
}
