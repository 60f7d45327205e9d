//! Messages as Alertmanager sends them, and wrong ones.

use super::*;
use crate::events::DoorLimits;
use crate::events::tests::{door, post};
use crate::testkit::TestContext;
use nightshift_health::Health;
use nightshift_model::{AnomalyKind, FaultClass, Phase, Severity};
use serde_json::json;

/// What Alertmanager 0.25 sends.
fn message(status: &str, ends_at: &str) -> String {
    json!({
        "receiver": "nightshift", "status": status, "version": "4", "groupKey": "{}:{job=\"node\"}", "truncatedAlerts": 0,
        "groupLabels": {"job": "node"}, "commonLabels": {}, "commonAnnotations": {}, "externalURL": "http://am:9093",
        "alerts": [{
            "status": status,
            "labels": {"alertname": "HostHighCpuLoad", "severity": "critical", "instance": "web1:9100", "job": "node", "namespace": "shop", "pod": "cart-7"},
            "annotations": {"summary": "CPU is busy", "description": "94 % for 5 m"},
            "startsAt": "2026-01-01T00:00:01.5Z", "endsAt": ends_at, "generatorURL": "http://p/graph", "fingerprint": "0a1b"
        }]
    })
    .to_string()
}

async fn send(test: &TestContext, body: &str) -> (u16, Value) {
    let (status, _, answer) = post(router(door(test, DoorLimits::default())), "/api/v1/alertmanager", &[], body).await;
    (status, answer)
}

#[tokio::test]
async fn an_alert_fires_and_is_resolved() {
    let test = TestContext::new("alertmanager");
    assert_eq!(send(&test, &message("firing", "0001-01-01T00:00:00Z")).await.0, 200);
    assert_eq!(send(&test, &message("resolved", "2026-01-01T00:10:00Z")).await.0, 200);
    let got = test.sink.recorded().alerts;
    let (resource, fired) = &got[0];
    let resolved = &got[1].1;
    assert_eq!(
        (fired.kind, fired.phase, fired.severity, fired.fault),
        (AnomalyKind::Alert, Phase::Open, Severity::Critical, FaultClass::CpuSaturation)
    );
    assert_eq!((fired.signal.as_str(), fired.description.as_str()), ("HostHighCpuLoad", "CPU is busy"));
    assert_eq!(fired.onset.to_rfc3339(), "2026-01-01T00:00:01.500Z");
    assert_eq!(
        (&*resource["k8s.pod.name"], &*resource["k8s.namespace.name"], &*resource["instance"]),
        ("cart-7", "shop", "web1:9100")
    );
    assert!(fired.explanation.sample.contains("94 %") && fired.explanation.sample.contains("http://p/graph"));
    assert_eq!(resolved.id, fired.id, "the same occurrence");
    assert_eq!((resolved.phase, resolved.last_seen.to_rfc3339().as_str()), (Phase::Closed, "2026-01-01T00:10:00Z"));
    assert_eq!(test.health().status, Health::Healthy);
    let mut other: Value = serde_json::from_str(&message("firing", "")).unwrap();
    other["alerts"][0]["startsAt"] = json!("2026-01-02T00:00:00Z");
    send(&test, &other.to_string()).await;
    assert_ne!(test.sink.recorded().alerts[2].1.id, fired.id, "tomorrow's is another");
}

#[tokio::test]
async fn what_was_left_out_is_told() {
    let test = TestContext::new("alertmanager");
    let mut body: Value = serde_json::from_str(&message("firing", "")).unwrap();
    body["truncatedAlerts"] = json!(12);
    let (status, answer) = send(&test, &body.to_string()).await;
    assert_eq!((status, &answer["data"]["note"]), (200, &json!("12 alerts were left out by the sender")));
    let health = test.health();
    assert!(health.status == Health::Degraded && health.detail.contains("left 12 out"), "{health:?}");
}

#[tokio::test]
async fn one_bad_alert_does_not_cost_the_others() {
    let test = TestContext::new("alertmanager");
    let mut body: Value = serde_json::from_str(&message("firing", "")).unwrap();
    let good = body["alerts"][0].clone();
    body["alerts"] = json!([{"status": "firing"}, good]);
    let (status, answer) = send(&test, &body.to_string()).await;
    assert_eq!(
        (status, &answer["data"]["accepted"], &answer["data"]["errors"][0]["index"]),
        (207, &json!(1), &json!(0))
    );
}

/// Bad messages, and a word of the answer that each gets.
#[tokio::test]
async fn bad_messages() {
    let test = TestContext::new("alertmanager");
    let alert = |edit: &str| format!(r#"{{"version":"4","alerts":[{edit}]}}"#);
    for (body, word) in [
        (String::new(), "version 4"),
        ("[]".into(), "version 4"),
        ("{}".into(), "`version` is null"),
        (r#"{"version":"3","alerts":[]}"#.into(), "`version` is \"3\""),
        (r#"{"version":"4"}"#.into(), "`alerts` is no list"),
        (alert("7"), "must be an object"),
        (alert("{}"), "alertname"),
        (alert(r#"{"labels":[]}"#), "`labels`"),
        (alert(r#"{"labels":{"alertname":7}}"#), "`labels`"),
        (alert(r#"{"labels":{"alertname":"x"}}"#), "`startsAt` is missing"),
        (alert(r#"{"labels":{"alertname":"x"},"startsAt":"0001-01-01T00:00:00Z"}"#), "`startsAt` is missing"),
        (alert(r#"{"labels":{"alertname":"x"},"startsAt":"noon"}"#), "`startsAt`"),
        (
            alert(r#"{"labels":{"alertname":"x"},"startsAt":"2026-01-01T00:00:00Z","status":"maybe"}"#),
            "not firing or resolved",
        ),
    ] {
        let (status, answer) = send(&test, &body).await;
        assert_eq!(status, 400, "{body}");
        assert!(answer["detail"].as_str().unwrap().contains(word), "{body}: {answer}");
    }
    // No alerts at all is nothing wrong.
    assert_eq!(send(&test, r#"{"version":"4","alerts":[]}"#).await.0, 200);
}

#[tokio::test]
async fn an_end_before_the_beginning_is_the_beginning() {
    let test = TestContext::new("alertmanager");
    send(&test, &message("resolved", "2020-01-01T00:00:00Z")).await;
    let closed = &test.sink.recorded().alerts[0].1;
    assert_eq!((closed.phase, closed.last_seen), (Phase::Closed, closed.onset));
}

#[test]
fn corpus_is_read() {
    crate::corpus::replay("alertmanager", fuzz_alertmanager);
}

proptest::proptest! {
    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
        fuzz_alertmanager(&bytes);
    }

    #[test]
    fn no_fields_panic(fields in proptest::collection::btree_map(
        "status|labels|annotations|startsAt|endsAt|generatorURL",
        "[0-9]{1,9}|\"(firing|resolved|2026-01-01T00:00:00Z|é*)\"|null|\\{\"(alertname|severity|summary|fault_class)\":\"[a-z_]{0,9}\"\\}", 0..7),
    ) {
        let rest: Vec<String> = fields.iter().map(|(k, v)| format!("\"{k}\":{v}")).collect();
        fuzz_alertmanager(format!("{{\"version\":\"4\",\"alerts\":[{{{}}}]}}", rest.join(",")).as_bytes());
    }
}
