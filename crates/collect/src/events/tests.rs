//! Every form that the door takes, and what each wrong one is told.

use super::*;
use crate::testkit::{START, TestContext};
use axum::http::Request;
use nightshift_health::Health;
use nightshift_model::{ChangeType, FaultClass, Phase};
use tower::ServiceExt as _;

/// A door over a recording sink.
pub(crate) fn door(test: &TestContext, limits: DoorLimits) -> DoorState {
    DoorState {
        name: "events".into(),
        sink: test.sink.clone(),
        clock: test.clock.clone(),
        health: test.context.health.clone(),
        metrics: test.context.metrics.clone(),
        gate: Gate::new(&crate::http::HttpLimits::default()),
        limits,
    }
}

/// Status, content type and body of the answer.
pub(crate) async fn post(router: Router, path: &str, headers: &[(&str, &str)], body: &str) -> (u16, String, Value) {
    let mut request = Request::post(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let response = router.oneshot(request.body(Body::from(body.to_owned())).unwrap()).await.unwrap();
    let status = response.status().as_u16();
    let kind = response.headers()[header::CONTENT_TYPE].to_str().unwrap().to_owned();
    let bytes = axum::body::to_bytes(response.into_body(), 1 << 20).await.unwrap();
    (status, kind, serde_json::from_slice(&bytes).unwrap())
}

async fn send(test: &TestContext, headers: &[(&str, &str)], body: &str) -> (u16, Value) {
    let (status, _, body) = post(router(door(test, DoorLimits::default())), "/api/v1/events", headers, body).await;
    (status, body)
}

#[tokio::test]
async fn plain_kinds() {
    let test = TestContext::new("events");
    let body = r#"[
        {"kind":"change","service":"cart","version":"2","git_sha":"abc","change_type":"deployment","author":"kim",
         "known_risks":["cold cache"],"at":"2026-01-01T00:00:01Z","environment":"prod"},
        {"kind":"event","summary":"somebody logged in","host":"web1"},
        {"kind":"alert","name":"HighLatency","service":"cart","severity":"high","starts_at":"2026-01-01T00:00:02Z","labels":{"zone":"a"}},
        {"kind":"log","message":"it broke","severity":"error","service":"cart"}]"#;
    let (status, answer) = send(&test, &[], body).await;
    assert_eq!((status, &answer["data"]["accepted"]), (200, &json!(4)), "{answer}");
    let got = test.sink.recorded();
    let (resource, change) = &got.changes[0];
    assert_eq!(
        (change.change_type, change.version.as_str(), change.git_sha.as_str(), change.author.as_str()),
        (ChangeType::Deployment, "2", "abc", "kim")
    );
    assert_eq!((change.known_risks.as_slice(), change.at.0 - START.0), (&["cold cache".to_owned()][..], 1_000_000_000));
    assert_eq!((&*resource["service.name"], &*resource["deployment.environment.name"]), ("cart", "prod"));
    assert_eq!((got.changes[1].1.change_type, got.changes[1].1.at), (ChangeType::Event, START));
    let alert = &got.alerts[0].1;
    assert_eq!(
        (alert.signal.as_str(), alert.score, alert.phase, alert.fault),
        ("HighLatency", 0.8, Phase::Open, FaultClass::LatencySpike)
    );
    assert_eq!((got.logs[0].body.as_str(), got.logs[0].severity), ("it broke", 17));
    assert_eq!(test.health().status, Health::Healthy);
}

#[tokio::test]
async fn the_same_change_has_the_same_id() {
    let test = TestContext::new("events");
    let sent = r#"{"kind":"change","service":"cart","at":"2026-01-01T00:00:01Z"}"#;
    for _ in 0..2 {
        send(&test, &[], sent).await;
    }
    send(&test, &[], r#"{"kind":"change","service":"cart","at":"2026-01-01T00:00:02Z"}"#).await;
    let ids: Vec<_> = test.sink.recorded().changes.iter().map(|c| c.1.id).collect();
    assert_eq!(ids[0], ids[1]);
    assert_ne!(ids[0], ids[2]);
}

#[tokio::test]
async fn a_resolved_alert_has_the_id_of_the_firing_one() {
    let test = TestContext::new("events");
    let alert = |rest: &str| format!(r#"{{"kind":"alert","name":"Down","starts_at":"2026-01-01T00:00:02Z"{rest}}}"#);
    send(&test, &[], &alert("")).await;
    send(&test, &[], &alert(r#","status":"resolved","ends_at":"2026-01-01T00:05:00Z""#)).await;
    let got = test.sink.recorded().alerts;
    assert_eq!(got[0].1.id, got[1].1.id);
    assert_eq!((got[0].1.phase, got[1].1.phase), (Phase::Open, Phase::Closed));
    assert_eq!(got[1].1.last_seen.to_rfc3339(), "2026-01-01T00:05:00Z");
}

#[tokio::test]
async fn cloud_events() {
    let test = TestContext::new("events");
    let structured = r#"{"specversion":"1.0","id":"1","source":"/ci","type":"com.example.deployment","subject":"cart",
        "time":"2026-01-01T00:00:01Z","data":{"service":"cart","version":"3"}}"#;
    assert_eq!(send(&test, &[("content-type", "application/cloudevents+json")], structured).await.0, 200);
    let headers = [
        ("ce-specversion", "1.0"),
        ("ce-id", "1"),
        ("ce-source", "/ci"),
        ("ce-type", "com.example.deployment"),
        ("ce-time", "2026-01-01T00:00:01Z"),
        ("content-type", "application/json"),
    ];
    assert_eq!(send(&test, &headers, r#"{"service":"cart","version":"3"}"#).await.0, 200);
    let batch = r#"[{"specversion":"1.0","id":"2","source":"/os","type":"login","data":"kim logged in"},
        {"specversion":"1.0","id":"3","source":"/cd","type":"dev.cdevents.service.deployed.0.1.4","data":
         {"context":{},"subject":{"id":"pay","content":{"environment":{"id":"prod"},"artifactId":"pkg:oci/pay@1"}}}},
        {"specversion":"1.0","id":"4","source":"/x","type":"t","data_base64":"eyJraW5kIjoibG9nIiwibWVzc2FnZSI6ImhpIn0="}]"#;
    assert_eq!(send(&test, &[("content-type", "application/cloudevents-batch+json")], batch).await.0, 200);
    let got = test.sink.recorded();
    let changes: Vec<_> =
        got.changes.iter().map(|(_, c)| (c.change_type, c.service.as_str(), c.version.as_str())).collect();
    assert_eq!(
        changes,
        [
            (ChangeType::Deployment, "cart", "3"),
            (ChangeType::Deployment, "cart", "3"),
            (ChangeType::Event, "", ""),
            (ChangeType::Deployment, "pay", "pkg:oci/pay@1"),
        ]
    );
    assert_eq!(got.changes[0].1.id, got.changes[1].1.id, "one event in two modes is one event");
    assert_eq!(got.changes[2].1.summary, "kim logged in");
    assert_eq!(got.changes[0].1.attributes["event.type"], "com.example.deployment");
    assert_eq!(got.logs[0].body, "hi");
}

#[tokio::test]
async fn webhooks_of_ci_systems() {
    let test = TestContext::new("events");
    let github = |state: &str| {
        format!(
            r#"{{"deployment_status":{{"state":"{state}","created_at":"2026-01-01T00:00:01Z"}},"deployment":{{"id":7,"sha":"abc",
            "ref":"v2","environment":"prod","creator":{{"login":"kim"}}}},"repository":{{"name":"cart","full_name":"shop/cart"}}}}"#
        )
    };
    for state in ["pending", "success"] {
        assert_eq!(send(&test, &[("x-github-event", "deployment_status")], &github(state)).await.0, 200);
    }
    let (status, answer) = send(&test, &[("x-github-event", "ping")], r#"{"zen":"x"}"#).await;
    assert_eq!((status, &answer["data"]["ignored"]), (200, &json!(1)));
    let gitlab = r#"{"object_kind":"deployment","status":"failed","status_changed_at":"2026-01-01 00:00:02 +0000","deployment_id":3,
        "project":{"name":"pay","path_with_namespace":"shop/pay"},"user":{"username":"lee"},"short_sha":"def","environment":"prod"}"#;
    assert_eq!(send(&test, &[], gitlab).await.0, 200);
    let got = test.sink.recorded().changes;
    let changes: Vec<_> =
        got.iter().map(|(_, c)| (&*c.service, &*c.git_sha, &*c.author, (c.at.0 - START.0) / 1_000_000_000)).collect();
    assert_eq!(changes, [("cart", "abc", "kim", 1), ("pay", "def", "lee", 2)]);
}

/// Bad requests, and a word of the answer that each gets.
#[tokio::test]
async fn bad_requests() {
    let test = TestContext::new("events");
    for (headers, body, word) in [
        (&[][..], "", "expected a CloudEvent"),
        (&[], "{", "expected a CloudEvent"),
        (&[], "7", "expected a CloudEvent"),
        (&[], "[]", "the list is empty"),
        (&[], "[7]", "expected a CloudEvent"),
        (&[], r#"{"hello":"world"}"#, "`kind` (change, event, alert or log)"),
        (&[], r#"{"kind":"metric"}"#, "`kind` is `metric`"),
        (&[], r#"{"kind":"change"}"#, "say what was changed"),
        (&[], r#"{"kind":"change","service":"a","at":"noon"}"#, "`at` must be a time"),
        (&[], r#"{"kind":"change","service":["a"]}"#, "`service` must be text"),
        (&[], r#"{"kind":"change","service":"a","known_risks":[1]}"#, "`known_risks`"),
        (&[], r#"{"kind":"alert"}"#, "`name`"),
        (&[], r#"{"kind":"alert","name":"x","severity":"loud"}"#, "`severity`"),
        (&[], r#"{"kind":"alert","name":"x","score":2}"#, "`score`"),
        (&[], r#"{"kind":"alert","name":"x","status":"resolved"}"#, "`starts_at`"),
        (&[], r#"{"kind":"alert","name":"x","fault":"gremlins"}"#, "`fault`"),
        (&[], r#"{"kind":"log"}"#, "`message`"),
        (&[], r#"{"specversion":"0.3","id":"1","source":"s","type":"t"}"#, "`specversion` is `0.3`"),
        (&[], r#"{"specversion":"1.0","source":"s","type":"t"}"#, "`id` of a CloudEvent"),
        (&[], r#"{"specversion":"1.0","id":"1","source":"s","type":"t","data_base64":"!"}"#, "`data_base64`"),
        (&[("content-type", "text/xml")], "<a/>", "content type is `text/xml`"),
        (&[("ce-specversion", "1.0")], "{}", "`id` of a CloudEvent"),
        (&[("x-github-event", "deployment_status")], "{}", "deployment_status"),
    ] {
        let (status, kind, answer) =
            post(router(door(&test, DoorLimits::default())), "/api/v1/events", headers, body).await;
        assert_eq!((status, kind.as_str()), (400, "application/problem+json"), "{body}");
        assert!(answer["detail"].as_str().unwrap().contains(word), "{body}: {answer}");
        assert_eq!(answer["status"], 400);
    }
    assert_eq!(test.sink.recorded().calls, 0);
    assert_eq!(test.health().status, Health::Degraded);
}

#[tokio::test]
async fn a_list_is_taken_in_part_and_the_rest_is_told_by_place() {
    let test = TestContext::new("events");
    let (status, answer) =
        send(&test, &[], r#"[{"kind":"log","message":"a"},{"kind":"log"},7,{"kind":"log","message":"b"}]"#).await;
    assert_eq!(status, 207, "{answer}");
    assert_eq!(answer["data"]["accepted"], 2);
    let places: Vec<_> =
        answer["data"]["errors"].as_array().unwrap().iter().map(|e| e["index"].as_u64().unwrap()).collect();
    assert_eq!(places, [1, 2]);
    let (status, answer) = send(&test, &[], r#"[{"kind":"log"}]"#).await;
    assert_eq!((status, &answer["errors"][0]["index"]), (400, &json!(0)), "nothing was taken");
}

#[tokio::test]
async fn limits_and_a_busy_bus() {
    let test = TestContext::new("events");
    let small = door(&test, DoorLimits { body_bytes_max: 100, items_max: 2 });
    let long = format!(r#"{{"kind":"log","message":"{}"}}"#, "x".repeat(200));
    assert_eq!(post(router(small.clone()), "/api/v1/events", &[], &long).await.0, 413);
    let many = r#"[{"kind":"log"},{"kind":"log"},{"kind":"log"}]"#;
    let (status, _, answer) = post(router(small), "/api/v1/events", &[], many).await;
    assert!(status == 400 && answer["detail"].as_str().unwrap().contains("at most 2 items"), "{answer}");
    test.sink.set_busy(1);
    let request = Request::post("/api/v1/events").body(Body::from(r#"{"kind":"log","message":"a"}"#)).unwrap();
    let response = router(door(&test, DoorLimits::default())).oneshot(request).await.unwrap();
    assert_eq!((response.status().as_u16(), response.headers()["retry-after"].to_str().unwrap()), (429, "1"));
    let health = test.health();
    assert!(health.status == Health::Degraded && health.detail.contains("the bus is full"), "{health:?}");
}

#[test]
fn corpus_is_read() {
    crate::corpus::replay("cloudevents", fuzz_cloudevents);
}

proptest::proptest! {
    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
        fuzz_cloudevents(&bytes);
    }

    #[test]
    fn no_fields_panic(
        first in "[\0-\x02]?",
        fields in proptest::collection::btree_map(
            "kind|service|at|name|status|starts_at|severity|specversion|id|type|source|data|deployment|deployment_status|object_kind",
            "[0-9]{1,20}|\"(change|alert|log|event|1.0|deployment|firing|resolved|2026-01-01T00:00:00Z)\"|null|\\[1\\]|\\{\"a\":\"b\"\\}", 0..8),
    ) {
        let rest: Vec<String> = fields.iter().map(|(k, v)| format!("\"{k}\":{v}")).collect();
        fuzz_cloudevents(format!("{first}{{{}}}", rest.join(",")).as_bytes());
    }
}
