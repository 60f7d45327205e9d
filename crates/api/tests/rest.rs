//! What each route answers.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

mod support;

use axum::body::Body;
use axum::http::StatusCode;
use nightshift_api::{ApiConfig, Exposure};
use nightshift_model::{EntityId, EntityMeta, Phase};
use nightshift_store::Store as _;
use serde_json::{Value, json};
use support::{NOW, Rig, TENANT, anomaly, request, secret};

#[tokio::test]
async fn health_is_that_of_the_components() {
    let rig = Rig::new().await;
    let answer = rig.get("/api/v1/health").await;
    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(answer.json()["data"]["status"], "healthy");
    assert_eq!(answer.json()["data"]["components"][1]["name"], "host-collector");
    assert_eq!(rig.get("/readyz").await.status, StatusCode::OK);

    rig.reporters[0].degraded("2 of 3 files");
    let answer = rig.get("/api/v1/health").await;
    assert_eq!((answer.status, &answer.json()["data"]["status"]), (StatusCode::OK, &json!("degraded")));

    rig.reporters[1].unhealthy("bus gone");
    let answer = rig.get("/api/v1/health").await;
    assert_eq!(
        (answer.status, &answer.json()["data"]["status"]),
        (StatusCode::SERVICE_UNAVAILABLE, &json!("unhealthy"))
    );
    assert_eq!(answer.json()["data"]["components"][0]["detail"], "bus gone");
    let ready = rig.get("/readyz").await;
    assert_eq!(ready.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(ready.json()["detail"].as_str().unwrap().contains("anomaly-detector"));
    assert_eq!(rig.get("/livez").await.status, StatusCode::OK, "it lives all the same");
}

#[tokio::test]
async fn status_collectors_and_topology_say_what_there_is() {
    let rig = Rig::new().await;
    let status = rig.get("/api/v1/status").await.json();
    assert_eq!(status["data"]["listeners"]["api"], "127.0.0.1:8080");
    assert_eq!((&status["data"]["uptime_secs"], &status["data"]["series_live"]), (&json!(7_500), &json!(4_123)));
    let collectors = rig.get("/api/v1/collectors").await.json();
    assert_eq!(collectors["data"][0]["items"], 1_234_567);
    assert_eq!(rig.get("/api/v1/topology?limit=7").await.json()["data"]["max"], 7);
    assert_eq!(rig.get("/api/v1/topology?entity=checkout&hops=3").await.json()["data"]["hops"], 3);
    let none = rig.get("/api/v1/topology?entity=nobody").await;
    assert_eq!((none.status, &none.json()["detail"]), (StatusCode::NOT_FOUND, &json!("no entity is called `nobody`")));
}

#[tokio::test]
async fn metrics_are_openmetrics() {
    let rig = Rig::new().await;
    let answer = rig.get("/metrics").await;
    assert_eq!(answer.header("content-type"), "application/openmetrics-text; version=1.0.0; charset=utf-8");
    assert!(answer.text.contains("nightshift_samples_scored_total 12000") && answer.text.ends_with("# EOF\n"));
}

#[tokio::test]
async fn incidents_are_found_by_either_id_in_any_case() {
    let rig = Rig::new().await;
    let [_, id, _] = rig.trouble().await;
    for text in ["INC-0002", "inc-2", &id.to_string(), &id.to_string().to_uppercase()] {
        let answer = rig.get(&format!("/api/v1/incidents/{text}")).await;
        assert_eq!(answer.status, StatusCode::OK, "{text}");
        assert_eq!(answer.json()["data"]["id"], id.to_string());
        assert_eq!(answer.json()["data"]["hypotheses"][0]["fault"], "deployment_failure");
    }
    for (text, status) in [
        ("INC-0099", StatusCode::NOT_FOUND),
        (&"0".repeat(32), StatusCode::NOT_FOUND),
        ("INC-", StatusCode::BAD_REQUEST),
        ("nonsense", StatusCode::BAD_REQUEST),
        ("%3Cscript%3E", StatusCode::BAD_REQUEST),
        ("%00", StatusCode::BAD_REQUEST),
    ] {
        let answer = rig.get(&format!("/api/v1/incidents/{text}")).await;
        assert_eq!(answer.status, status, "{text}");
        assert_eq!(answer.header("content-type"), "application/problem+json");
        assert!(!answer.json()["hint"].as_str().unwrap().is_empty());
    }
}

/// Numbers of the incidents that a query lists.
async fn listed(rig: &Rig, query: &str) -> Vec<u64> {
    let answer = rig.get(&format!("/api/v1/incidents?{query}")).await;
    assert_eq!(answer.status, StatusCode::OK, "{query}: {}", answer.text);
    answer.json()["data"].as_array().unwrap().iter().map(|i| i["number"].as_u64().unwrap()).collect()
}

#[tokio::test]
async fn incidents_are_filtered() {
    let rig = Rig::new().await;
    rig.trouble().await;
    for (query, want) in [
        ("", &[2, 1][..]),
        ("synthetic=true", &[3, 2, 1]),
        ("status=open", &[2]),
        ("status=all", &[2, 1]),
        ("status=resolved", &[1]),
        ("status=resolved,rca_complete", &[2, 1]),
        ("status=resolved&status=merged", &[1]),
        ("severity=critical", &[2]),
        ("severity=HIGH,low", &[1]),
        ("entity=checkout", &[2]),
        ("entity=prod/host/shop/db-1", &[1]),
        ("entity=nobody", &[]),
        ("text=DISK", &[1]),
        ("text=gateway", &[2]),
        ("since=1h", &[2]),
        ("until=1h", &[1]),
        ("since=2026-03-14T00:00:00Z&status=resolved", &[]),
        ("limit=1", &[2]),
        ("cursor=2", &[1]),
        ("status=&severity=&entity=&text=", &[2, 1]),
    ] {
        assert_eq!(listed(&rig, query).await, want, "{query}");
    }
    for (query, want) in [
        ("status=opened", "status: `opened` is not a status"),
        ("stauts=open", "`stauts` is not known"),
        ("severity=bad", "severity: `bad` is not one of low"),
        ("since=tomorrow", "since: `tomorrow` is not a time"),
        ("limit=100000", "limit: `100000` is not a number of 1 to 500"),
        ("cursor=x", "cursor: `x` is not a number"),
        ("synthetic=maybe", "neither true nor false"),
    ] {
        let answer = rig.get(&format!("/api/v1/incidents?{query}")).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{query}");
        assert!(answer.json()["detail"].as_str().unwrap().contains(want), "{query}: {}", answer.text);
    }
}

#[tokio::test]
async fn a_long_list_comes_in_pages_that_miss_nothing() {
    let rig = Rig::new().await;
    for n in 1..=25 {
        let first = anomaly(&format!("svc-{n}"), "service", "latency", NOW, 0.8, (9.0, 1.0, 0.5, 1.5));
        rig.open(n, &format!("svc-{n} is slow"), &first).await;
    }
    let walk = async |path: &str, rig: &Rig| {
        let (mut seen, mut pages, mut cursor) = (Vec::new(), 0, String::new());
        loop {
            let answer = rig.get(&format!("{path}&cursor={cursor}")).await.json();
            let rows = answer["data"].as_array().unwrap();
            assert!(!rows.is_empty() && rows.len() <= 10);
            seen.extend(rows.iter().map(|r| r["id"].as_str().unwrap().to_owned()));
            pages += 1;
            match &answer["next"] {
                Value::String(next) => cursor.clone_from(next),
                other => {
                    assert!(other.is_null());
                    break;
                }
            }
        }
        let n = seen.len();
        seen.sort();
        seen.dedup();
        assert_eq!(n, seen.len(), "a row came twice");
        (n, pages)
    };
    assert_eq!(walk("/api/v1/incidents?limit=10", &rig).await, (25, 3));
    assert_eq!(walk("/api/v1/anomalies?limit=10", &rig).await, (25, 3));
    assert_eq!(rig.get("/api/v1/incidents?limit=25").await.json()["next"], Value::Null, "no empty last page");

    // A page also ends where it gets too large, but never is empty.
    let small = Rig::with(ApiConfig { page_bytes_max: 1, ..Default::default() }, 8).await;
    small.trouble().await;
    let page = small.get("/api/v1/incidents").await.json();
    assert_eq!((page["data"].as_array().unwrap().len(), &page["next"]), (1, &json!("2")));
}

#[tokio::test]
async fn anomalies_and_events_are_filtered() {
    let rig = Rig::new().await;
    rig.trouble().await;
    let count = async |path: &str| {
        let answer = rig.get(path).await;
        assert_eq!(answer.status, StatusCode::OK, "{path}: {}", answer.text);
        answer.json()["data"].as_array().unwrap().len()
    };
    for (query, want) in [
        ("", 6),
        ("synthetic=true", 7),
        ("entity=check", 3),
        ("entity=prod/service/shop/checkout", 3),
        ("entity=prod/service/shop/check", 0),
        ("severity=critical", 2),
        ("kind=log", 1),
        ("kind=log,statistical", 6),
        ("signal=error_ratio", 1),
        ("status=open", 6),
        ("status=closed", 0),
        ("since=1h", 5),
        ("until=1h", 1),
        ("text=ORDERS-DB", 1),
    ] {
        assert_eq!(count(&format!("/api/v1/anomalies?{query}")).await, want, "{query}");
    }
    for (query, want) in [
        ("", 2),
        ("since=1h", 1),
        ("until=1h", 1),
        ("service=checkout", 1),
        ("type=deployment", 2),
        ("type=config,scaling", 0),
        ("entity=GATEWAY", 1),
        ("text=2.8.1", 1),
    ] {
        assert_eq!(count(&format!("/api/v1/events?{query}")).await, want, "{query}");
    }
    assert_eq!(rig.get("/api/v1/anomalies?status=shut").await.status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn acknowledging_and_resolving_are_journalled_by_name() {
    let rig = Rig::new().await;
    let [_, id, _] = rig.trouble().await;
    let answer = rig.post("/api/v1/incidents/INC-0002/ack", Some("olga"), "{\"note\":\"on it\"}").await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
    assert_eq!(answer.json()["data"]["acknowledged_by"], "olga");
    let answer = rig.post(&format!("/api/v1/incidents/{id}/resolve"), Some("adam"), "").await;
    assert_eq!(answer.json()["data"]["resolved_by"], "adam");
    let actors: Vec<_> = rig.store.incident_journal(TENANT, id).await.unwrap().into_iter().map(|e| e.actor).collect();
    assert_eq!(&actors[actors.len() - 2..], ["olga", "adam"]);

    for (path, body, status, want) in [
        ("INC-0002/resolve", "", StatusCode::CONFLICT, "INC-0002 is resolved"),
        ("INC-0077/ack", "", StatusCode::NOT_FOUND, "there is no incident INC-0077"),
        ("x/ack", "", StatusCode::BAD_REQUEST, "is not an incident's id"),
        ("INC-0003/ack", "{\"note\":5}", StatusCode::BAD_REQUEST, "the body cannot be read"),
        ("INC-0003/ack", "{\"nota\":\"x\"}", StatusCode::BAD_REQUEST, "unknown field `nota`"),
        ("INC-0003/ack", "note=x", StatusCode::BAD_REQUEST, "the body cannot be read"),
    ] {
        let answer = rig.post(&format!("/api/v1/incidents/{path}"), Some("olga"), body).await;
        assert_eq!(answer.status, status, "{path} {body}: {}", answer.text);
        assert!(answer.json()["detail"].as_str().unwrap().contains(want), "{path} {body}: {}", answer.text);
    }
    let long = json!({ "note": "ä".repeat(2_001) }).to_string();
    let answer = rig.post("/api/v1/incidents/INC-0003/ack", Some("olga"), &long).await;
    assert!(answer.json()["detail"].as_str().unwrap().contains("2001 characters"), "{}", answer.text);
}

#[tokio::test]
async fn injection_is_asked_for_by_mode() {
    let rig = Rig::new().await;
    let answer = rig.post("/api/v1/test/inject?mode=burst", None, "").await;
    assert_eq!(answer.json()["data"]["status"], "burst_complete");
    assert_eq!(answer.json()["data"]["of"], json!(["production-api", "cpu_usage"]));
    let answer = rig.post("/api/v1/test/inject?mode=spike", None, "{\"source\":\"a\",\"signal\":\"b\"}").await;
    assert_eq!(answer.json()["data"]["of"], json!(["a", "b"]));
    for (query, body, status, want) in [
        ("mode=bang", "", StatusCode::BAD_REQUEST, "`bang` is not one of burst, spike, storm"),
        ("mod=burst", "", StatusCode::BAD_REQUEST, "`mod` is not known"),
        ("mode=burst", "{\"source\":\"\"}", StatusCode::BAD_REQUEST, "source is empty"),
        ("mode=burst", "[", StatusCode::BAD_REQUEST, "the body cannot be read"),
        ("mode=burst", "{\"source\":\"full\"}", StatusCode::SERVICE_UNAVAILABLE, "the bus is full"),
    ] {
        let answer = rig.post(&format!("/api/v1/test/inject?{query}"), None, body).await;
        assert_eq!(answer.status, status, "{query} {body}");
        assert!(answer.json()["detail"].as_str().unwrap().contains(want), "{query} {body}: {}", answer.text);
    }
}

#[tokio::test]
async fn reading_events_and_telling_of_them_share_a_path() {
    let rig = Rig::new().await;
    assert_eq!(rig.get("/api/v1/events").await.json()["data"], json!([]));
    assert_eq!(rig.post("/api/v1/events", None, "{}").await.text, "told");
    assert_eq!(rig.post("/api/v1/write", None, "x").await.text, "written");
    assert_eq!(rig.post("/api/v1/alertmanager", None, "{}").await.text, "alerted");
}

#[tokio::test]
async fn whatever_goes_wrong_is_a_problem_with_a_hint() {
    let rig = Rig::new().await;
    let too_large = "x".repeat(ApiConfig::default().body_bytes_max + 1);
    for (method, path, body, status) in [
        ("GET", "/nowhere", "", StatusCode::NOT_FOUND),
        ("GET", "/api/v2/health", "", StatusCode::NOT_FOUND),
        ("DELETE", "/api/v1/incidents", "", StatusCode::METHOD_NOT_ALLOWED),
        ("GET", "/api/v1/write", "", StatusCode::METHOD_NOT_ALLOWED),
        ("GET", "/api/v1/ws/events", "", StatusCode::BAD_REQUEST),
        ("POST", "/api/v1/test/inject?mode=burst", "{\"source\":\"panic\"}", StatusCode::INTERNAL_SERVER_ERROR),
        ("POST", "/api/v1/test/inject?mode=burst", &too_large, StatusCode::PAYLOAD_TOO_LARGE),
    ] {
        let request = request(method, path).body(Body::from(body.to_owned())).unwrap();
        let answer = rig.send(Exposure::Loopback, request).await;
        assert_eq!(answer.status, status, "{method} {path}: {}", answer.text);
        assert_eq!(answer.header("content-type"), "application/problem+json", "{method} {path}");
        let problem = answer.json();
        assert_eq!(problem["status"], status.as_u16());
        assert!(problem["type"].as_str().unwrap().starts_with("urn:nightshift:problem:"));
        assert!(!problem["hint"].as_str().unwrap().is_empty() && !problem["detail"].as_str().unwrap().is_empty());
        assert!(!answer.text.contains("as asked"), "what the panic said is for the log");
    }
    let allow = rig.send(Exposure::Loopback, request("PUT", "/api/v1/events").body(Body::empty()).unwrap()).await;
    assert_eq!(allow.header("allow"), "GET,HEAD,POST");
}

/// A limit of a second: without it these two tests would not end.
fn impatient() -> ApiConfig {
    ApiConfig { answer_timeout_secs: 1, ..Default::default() }
}

#[tokio::test]
async fn an_answer_that_does_not_come_is_given_up() {
    let rig = Rig::with(impatient(), 8).await;
    let answer = rig.post("/api/v1/test/inject?mode=burst", None, "{\"source\":\"slow\"}").await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(answer.header("retry-after"), "2");
    assert!(answer.json()["detail"].as_str().unwrap().contains("within 1 s"));
}

#[tokio::test]
async fn a_body_that_does_not_come_whole_is_given_up() {
    let rig = Rig::with(impatient(), 8).await;
    let endless = Body::from_stream(futures::stream::pending::<Result<&str, std::io::Error>>());
    let request = request("POST", "/api/v1/test/inject?mode=burst").body(endless).unwrap();
    let answer = rig.send(Exposure::Loopback, request).await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE, "{}", answer.text);
}

#[tokio::test]
async fn every_answer_tells_browsers_to_be_careful() {
    let rig = Rig::new().await;
    for path in ["/", "/api/v1/health", "/nowhere", "/metrics"] {
        let answer = rig.get(path).await;
        assert!(answer.header("content-security-policy").starts_with("default-src 'none'"), "{path}");
        assert_eq!(answer.header("x-content-type-options"), "nosniff", "{path}");
        assert_eq!(answer.header("x-frame-options"), "DENY", "{path}");
        assert_eq!(answer.header("referrer-policy"), "same-origin", "{path}");
        assert_eq!(answer.header("cache-control"), "no-store", "{path}");
    }
}

#[tokio::test]
async fn a_token_is_forgotten_soon_after_it_was_withdrawn_and_known_soon_after_it_was_made() {
    let rig = Rig::new().await;
    rig.trouble().await;
    assert_eq!(rig.post("/api/v1/incidents/INC-0002/ack", Some("olga"), "").await.status, StatusCode::OK);
    rig.store.revoke_token("olga", NOW).await.unwrap();
    rig.clock.advance(std::time::Duration::from_secs(6));
    let answer = rig.post("/api/v1/incidents/INC-0002/ack", Some("olga"), "").await;
    assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
    let token = nightshift_store::TokenRow {
        name: "nora".into(),
        role: "operator".into(),
        secret_sha256: nightshift_store::tokens::hash(&secret("nora")),
        created_at: NOW,
        generated: false,
        revoked_at: None,
    };
    rig.store.put_token(token).await.unwrap();
    rig.clock.advance(std::time::Duration::from_millis(1_100));
    assert_eq!(rig.post("/api/v1/incidents/INC-0002/ack", Some("nora"), "").await.status, StatusCode::OK);
}

#[tokio::test]
async fn an_incident_of_odd_names_is_still_json() {
    let rig = Rig::new().await;
    let mut odd = anomaly("x", "service", "s", NOW, 0.9, (1.0, 0.0, 0.0, 0.1));
    odd.entity = EntityMeta::bare(EntityId::new("c", "service", "", "a\"b\u{0}<c>/ü"));
    odd.description = "line\nbreak\u{7}".into();
    odd.phase = Phase::Closed;
    rig.open(1, "\u{202e}odd", &odd).await;
    assert_eq!(
        rig.get("/api/v1/incidents/INC-0001").await.json()["data"]["anomalies"][0]["description"],
        "line\nbreak\u{7}"
    );
    assert_eq!(rig.page("/incidents/INC-0001").await.status, StatusCode::OK);
}
