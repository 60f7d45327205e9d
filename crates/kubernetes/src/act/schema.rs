//! A dry-run without the right to write: the object that is wanted, held against the server's own OpenAPI schema.
//!
//! It finds unknown fields, wrong types, missing fields and values outside of an enumeration, in what the change touches.
//! What only the server can know (quotas, admission, defaults) it does not find, and the answer says that it was local.

use super::Context;
use super::json::{get, leaves};
use super::place::Place;
use serde_json::Value;

const DEPTH_MAX: usize = 40;

/// Checks what differs between the object that was read and the one that is wanted.
///
/// # Errors
/// What is wrong, one line. A server that tells no schema is no error: nothing can be said then.
pub(super) async fn check(cx: &Context<'_>, place: &Place, read: &Value, wanted: &Value) -> Result<(), String> {
    let group =
        if place.kind.group.is_empty() { "api/v1".to_owned() } else { format!("apis/{}", place.kind.api_version()) };
    let document = match cx.door.read(&format!("/openapi/v3/{group}")).await {
        Ok(document) => document,
        Err(e) if e.is_missing() || e.is_forbidden() => return Ok(()),
        Err(e) => return Err(format!("read the schema of {}: {}", place.kind.name, e.text)),
    };
    match schema_of(&document, place) {
        Some(schema) => changed(&document, schema, read, wanted).map_err(|why| format!("{}: {why}", place.label())),
        None => Ok(()),
    }
}

fn schema_of<'a>(document: &'a Value, place: &Place) -> Option<&'a Value> {
    let all = document.pointer("/components/schemas")?.as_object()?;
    all.values().find(|s| {
        super::json::items(s, "/x-kubernetes-group-version-kind").iter().any(|k| {
            super::json::text(k, "/group") == place.kind.group
                && super::json::text(k, "/version") == place.kind.version
                && super::json::text(k, "/kind") == place.kind.name
        })
    })
}

fn resolve<'a>(document: &'a Value, mut schema: &'a Value) -> &'a Value {
    for _ in 0..8 {
        let reference = schema.get("$ref").or_else(|| schema.pointer("/allOf/0/$ref")).and_then(Value::as_str);
        let Some(next) = reference.and_then(|r| r.strip_prefix('#')).and_then(|r| document.pointer(r)) else { break };
        schema = next;
    }
    schema
}

/// The places that differ, each checked with the objects around it.
fn changed(document: &Value, schema: &Value, read: &Value, wanted: &Value) -> Result<(), String> {
    if read.is_null() {
        return fits(document, schema, wanted, "", 0);
    }
    for (pointer, _, after) in leaves("", read, wanted) {
        // The status is the server's.
        if pointer.starts_with("/status") || pointer.starts_with("/metadata") {
            continue;
        }
        let mut at = resolve(document, schema);
        let mut known = true;
        let parts: Vec<&str> = pointer.split('/').skip(1).collect();
        for (i, part) in parts.iter().enumerate() {
            let part = part.replace("~1", "/").replace("~0", "~");
            let taken = after.is_null() && i + 1 == parts.len();
            if taken && super::json::items(at, "/required").iter().any(|r| r.as_str() == Some(part.as_str())) {
                return Err(format!("{pointer} is missing"));
            }
            match below(document, at, &part) {
                Below::Schema(next) => at = next,
                Below::Anything => {
                    known = false;
                    break;
                }
                Below::Nothing => return Err(format!("{pointer} is no field of it")),
            }
        }
        if known {
            fits(document, at, &get(wanted, &pointer), &pointer, 0)?;
        }
    }
    Ok(())
}

enum Below<'a> {
    Schema(&'a Value),
    Anything,
    Nothing,
}

fn below<'a>(document: &'a Value, schema: &'a Value, part: &str) -> Below<'a> {
    if let Some(next) = schema.get("properties").and_then(|p| p.get(part)) {
        return Below::Schema(resolve(document, next));
    }
    if let Some(next) = schema.get("items").filter(|_| part.bytes().all(|b| b.is_ascii_digit())) {
        return Below::Schema(resolve(document, next));
    }
    match schema.get("additionalProperties") {
        Some(Value::Object(_)) => Below::Schema(resolve(document, &schema["additionalProperties"])),
        Some(Value::Bool(false)) => Below::Nothing,
        Some(_) => Below::Anything,
        None if schema.get("x-kubernetes-preserve-unknown-fields") == Some(&Value::Bool(true)) => Below::Anything,
        None if schema.get("properties").is_some() => Below::Nothing,
        None => Below::Anything,
    }
}

fn fits(document: &Value, schema: &Value, value: &Value, at: &str, depth: usize) -> Result<(), String> {
    let schema = resolve(document, schema);
    if depth > DEPTH_MAX || value.is_null() {
        return Ok(());
    }
    let quantity = schema.get("oneOf").is_some() || schema.get("x-kubernetes-int-or-string").is_some();
    let kind = super::json::text(schema, "/type");
    let right = match kind {
        _ if quantity => value.is_string() || value.is_number(),
        "string" => value.is_string(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "boolean" => value.is_boolean(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        _ => true,
    };
    if !right {
        return Err(format!("{at} should be of type {kind}"));
    }
    if let Some(allowed) = schema.get("enum").and_then(Value::as_array)
        && !allowed.contains(value)
    {
        return Err(format!("{at} is none of its allowed values"));
    }
    if let Value::Object(map) = value {
        for required in super::json::items(schema, "/required").iter().filter_map(Value::as_str) {
            if !map.contains_key(required) {
                return Err(format!("{at}/{required} is missing"));
            }
        }
        for (key, value) in map {
            match below(document, schema, key) {
                Below::Schema(next) => fits(document, next, value, &format!("{at}/{key}"), depth + 1)?,
                Below::Anything => {}
                Below::Nothing => return Err(format!("{at}/{key} is no field of it")),
            }
        }
    }
    for (i, item) in value.as_array().into_iter().flatten().enumerate() {
        if let Some(next) = schema.get("items") {
            fits(document, next, item, &format!("{at}/{i}"), depth + 1)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn document() -> Value {
        json!({"components": {"schemas": {
            "D": {"type": "object", "properties": {"spec": {"allOf": [{"$ref": "#/components/schemas/S"}], "default": {}}},
                  "x-kubernetes-group-version-kind": [{"group": "apps", "version": "v1", "kind": "Deployment"}]},
            "S": {"type": "object", "required": ["template"], "properties": {
                "replicas": {"type": "integer"}, "template": {"type": "object"},
                "list": {"type": "array", "items": {"type": "object", "required": ["name"], "properties": {"name": {"type": "string"}}}},
                "limits": {"type": "object", "additionalProperties": {"oneOf": [{"type": "string"}, {"type": "number"}]}}}},
        }}})
    }

    #[test]
    fn what_a_change_touches_is_held_against_the_schema() {
        let document = document();
        let place = Place::new(&super::super::place::DEPLOYMENT, "a", "b").unwrap();
        let schema = schema_of(&document, &place).unwrap();
        let read = json!({"spec": {"replicas": 1, "template": {}, "odd": 1, "list": [{"name": "a"}], "limits": {"memory": "1Gi"}}});
        for (pointer, value, want) in [
            ("/spec/replicas", json!(2), ""),
            ("/spec/replicas", json!("2"), "should be of type integer"),
            ("/spec/limits/memory", json!("2Gi"), ""),
            ("/spec/limits/memory", json!([1]), "/spec/limits/memory"),
            ("/spec/list", json!([{}]), "/spec/list/0/name is missing"),
            ("/spec/list/0/name", json!(5), "type string"),
            ("/spec/what", json!(true), "/spec/what is no field of it"),
        ] {
            let mut wanted = read.clone();
            super::super::json::set(&mut wanted, pointer, value.clone());
            let found = changed(&document, schema, &read, &wanted);
            match want {
                "" => assert_eq!(found, Ok(()), "{pointer} {value}"),
                want => assert!(found.as_ref().is_err_and(|e| e.contains(want)), "{pointer} {value}: {found:?}"),
            }
        }
    }
}
