//! The description against the table of routes and against the answers that are really given.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

mod support;

use axum::http::StatusCode;
use nightshift_api::{Access, listed_routes, openapi_document};
use nightshift_model::Risk;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use support::Rig;

#[test]
fn every_route_is_described_and_every_description_is_a_route() {
    let document = openapi_document("1.2.3");
    assert_eq!((&document["openapi"], &document["info"]["version"]), (&json!("3.1.0"), &json!("1.2.3")));
    let mut described = BTreeSet::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            let access = operation["x-access"].as_str().unwrap().to_owned();
            described.insert((method.clone(), path.clone(), access));
            assert!(operation["summary"].is_string() && operation["responses"].is_object(), "{method} {path}");
            for name in path.split('/').filter_map(|p| p.strip_prefix('{')?.strip_suffix('}')) {
                let all = operation["parameters"].as_array().unwrap();
                assert!(all.iter().any(|p| p["name"] == name && p["in"] == "path"), "{method} {path}: {name}");
            }
        }
    }
    let routes: BTreeSet<_> = listed_routes()
        .into_iter()
        .map(|(method, path, access)| (method.to_owned(), path.to_owned(), format!("{access:?}")))
        .collect();
    assert_eq!(described, routes);
}

#[test]
fn every_reference_leads_somewhere() {
    fn visit(value: &Value, document: &Value) {
        match value {
            Value::Object(entries) => {
                if let Some(target) = entries.get("$ref").and_then(Value::as_str) {
                    assert!(document.pointer(target.strip_prefix('#').unwrap()).is_some(), "{target}");
                }
                entries.values().for_each(|v| visit(v, document));
            }
            Value::Array(items) => items.iter().for_each(|v| visit(v, document)),
            _ => {}
        }
    }
    let document = openapi_document("0");
    visit(&document, &document);
}

/// What of `value` is not as `schema` says: the part of JSON Schema that the document uses.
fn faults(document: &Value, schema: &Value, value: &Value, at: &str, found: &mut Vec<String>) {
    if let Some(target) = schema.get("$ref").and_then(Value::as_str) {
        return faults(document, document.pointer(&target[1..]).unwrap(), value, at, found);
    }
    if let Some(all) = schema.get("anyOf").and_then(Value::as_array) {
        let fits = all.iter().any(|s| {
            let mut inner = Vec::new();
            faults(document, s, value, at, &mut inner);
            inner.is_empty()
        });
        if !fits {
            found.push(format!("{at}: fits none of anyOf: {value}"));
        }
        return;
    }
    let ok = match schema.get("type").and_then(Value::as_str) {
        None => true,
        Some("string") => value.is_string(),
        Some("integer") => value.is_i64() || value.is_u64(),
        Some("number") => value.is_number(),
        Some("boolean") => value.is_boolean(),
        Some("null") => value.is_null(),
        Some("array") => value.is_array(),
        Some("object") => value.is_object(),
        Some(other) => panic!("{at}: the check does not know {other}"),
    };
    if !ok {
        found.push(format!("{at}: {value} is no {}", schema["type"]));
        return;
    }
    if let Some(all) = schema.get("enum").and_then(Value::as_array)
        && !all.contains(value)
    {
        found.push(format!("{at}: {value} is none of {all:?}"));
    }
    if let (Some(least), Some(x)) = (schema.get("minimum").and_then(Value::as_f64), value.as_f64())
        && x < least
    {
        found.push(format!("{at}: {x} is below {least}"));
    }
    if schema.get("format").is_some_and(|f| f == "date-time") {
        let text = value.as_str().unwrap();
        if nightshift_model::Timestamp::parse_rfc3339(text).is_err() {
            found.push(format!("{at}: {text} is no time"));
        }
    }
    if let (Some(items), Some(values)) = (schema.get("items"), value.as_array()) {
        for (i, v) in values.iter().enumerate() {
            faults(document, items, v, &format!("{at}[{i}]"), found);
        }
    }
    let Some(entries) = value.as_object() else { return };
    for key in schema.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str) {
        if !entries.contains_key(key) {
            found.push(format!("{at}: {key} is missing"));
        }
    }
    for (key, v) in entries {
        let at = format!("{at}.{key}");
        match (schema.pointer(&format!("/properties/{key}")), schema.get("additionalProperties")) {
            (Some(inner), _) => faults(document, inner, v, &at, found),
            (None, Some(Value::Bool(false))) => found.push(format!("{at}: is not described")),
            (None, Some(inner @ Value::Object(_))) => faults(document, inner, v, &at, found),
            (None, _) => {}
        }
    }
}

#[track_caller]
fn assert_described(document: &Value, method: &str, route: &str, status: StatusCode, body: &Value) {
    let responses = &document["paths"][route][method]["responses"];
    let response = responses.get(status.as_str()).unwrap_or(&responses["default"]);
    let content = response["content"].as_object().unwrap().values().next().unwrap();
    let mut found = Vec::new();
    faults(document, &content["schema"], body, "$", &mut found);
    assert!(found.is_empty(), "{method} {route} {status}: {found:#?}");
}

#[tokio::test]
async fn answers_have_the_shape_that_is_described() {
    let rig = Rig::new().await;
    let [_, id, _] = rig.trouble().await;
    let plan = rig.ask(id, Risk::High).await;
    rig.tell_all(id).await;
    let document = rig.get("/api/openapi.json").await.json();
    for (route, query) in [
        ("/api/v1/health", ""),
        ("/api/v1/status", ""),
        ("/api/v1/collectors", ""),
        ("/api/v1/incidents", "?synthetic=true&limit=2"),
        ("/api/v1/incidents/{id}", ""),
        ("/api/v1/anomalies", "?limit=3"),
        ("/api/v1/events", ""),
        ("/api/v1/topology", ""),
        ("/api/v1/incidents/{id}/journal", "?limit=500"),
        ("/api/v1/deliveries", ""),
        ("/api/v1/playbooks", ""),
        ("/api/v1/policies", ""),
        ("/api/v1/guard", ""),
        ("/api/v1/kill-switch", ""),
    ] {
        let answer = rig.get(&format!("{}{query}", route.replace("{id}", "INC-0002"))).await;
        let body = answer.json();
        assert_described(&document, "get", route, answer.status, &body);
        if let Some(rows) = body["data"].as_array() {
            assert!(!rows.is_empty(), "{route} showed nothing to hold against its description");
        }
    }
    rig.carry_out(&plan).await;
    for route in ["/api/v1/actions", "/api/v1/incidents/{id}"] {
        let answer = rig.get(&route.replace("{id}", "INC-0002")).await;
        assert_described(&document, "get", route, answer.status, &answer.json());
        let rows = &answer.json()["data"];
        assert!(rows.as_array().or(rows["readings"].as_array()).is_some_and(|r| !r.is_empty()), "{route}");
    }
    let hash = plan.hash;
    for (route, who, body, status) in [
        ("/api/v1/incidents/{id}/ack", "olga", String::new(), 200),
        ("/api/v1/incidents/{id}/ack", "vera", String::new(), 403),
        ("/api/v1/incidents/{id}/pause", "olga", String::new(), 200),
        ("/api/v1/incidents/{id}/resume", "olga", String::new(), 200),
        ("/api/v1/incidents/{id}/take-over", "olga", String::new(), 200),
        (
            "/api/v1/incidents/{id}/override",
            "anna",
            format!("{{\"plan\":\"{hash}\",\"to\":\"deny\",\"why\":\"no\"}}"),
            200,
        ),
        ("/api/v1/incidents/{id}/approve", "anna", format!("{{\"plan\":\"{hash}\"}}"), 409),
        ("/api/v1/incidents/{id}/reject", "anna", format!("{{\"plan\":\"{hash}\"}}"), 409),
        ("/api/v1/incidents/{id}/feedback", "olga", "{\"verdict\":\"false_positive\"}".to_owned(), 200),
        ("/api/v1/incidents/{id}/replay", "vera", String::new(), 200),
        ("/api/v1/incidents/{id}/resolve", "olga", String::new(), 200),
        ("/api/v1/incidents/{id}/resolve", "olga", String::new(), 409),
        ("/api/v1/kill-switch", "adam", "{\"on\":true}".to_owned(), 200),
        ("/api/v1/kill-switch", "anna", "{\"on\":true}".to_owned(), 403),
        ("/api/v1/test/inject", "olga", String::new(), 200),
    ] {
        let answer = rig.post(&route.replace("{id}", "INC-0002"), Some(who), &body).await;
        assert_eq!(answer.status, status, "{route}: {}", answer.text);
        assert_described(&document, "post", route, answer.status, &answer.json());
    }
    for route in ["/api/v1/guard", "/api/v1/kill-switch", "/api/v1/incidents/{id}"] {
        let answer = rig.get(&route.replace("{id}", "INC-0002")).await;
        assert_described(&document, "get", route, answer.status, &answer.json());
    }
    rig.reporters[0].unhealthy("gone");
    let ill = rig.get("/api/v1/health").await;
    assert_described(&document, "get", "/api/v1/health", ill.status, &ill.json());
}

#[test]
fn the_check_of_shapes_sees_what_is_wrong() {
    let document = openapi_document("0");
    let schema = json!({ "$ref": "#/components/schemas/Component" });
    let good = json!({ "name": "a", "status": "healthy", "since": "2026-01-01T00:00:00Z", "detail": "",
        "last_report": "2026-01-01T00:00:00Z" });
    let check = |value: &Value| {
        let mut found = Vec::new();
        faults(&document, &schema, value, "$", &mut found);
        found.len()
    };
    assert_eq!(check(&good), 0);
    for (key, bad) in [("status", json!("fine")), ("since", json!("now")), ("name", json!(1)), ("extra", json!(1))] {
        let mut value = good.clone();
        value[key] = bad;
        assert_eq!(check(&value), 1, "{key}");
    }
    let mut less = good;
    less.as_object_mut().unwrap().remove("detail");
    assert_eq!(check(&less), 1);
}

/// Every filter that is described is understood, and every one that is understood is described.
#[tokio::test]
async fn described_filters_are_those_that_are_understood() {
    let rig = Rig::new().await;
    let document = openapi_document("0");
    for (method, path, access) in listed_routes() {
        if method != "get" || access == Access::Public || path.contains("{id}") {
            continue;
        }
        let described: BTreeSet<String> = document["paths"][path]["get"]["parameters"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|p| p["name"].as_str().unwrap().to_owned())
            .collect();
        let answer = rig.get(&format!("{path}?no_such_filter=1")).await;
        if described.is_empty() {
            continue;
        }
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{path}");
        let hint = answer.json()["hint"].as_str().unwrap().to_owned();
        let understood: BTreeSet<String> =
            hint.strip_prefix("known here: ").unwrap().split(", ").map(str::to_owned).collect();
        assert_eq!(understood, described, "{path}");
    }
}
