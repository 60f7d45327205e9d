//! Who may call what through which listener.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

mod support;

use axum::body::Body;
use axum::http::StatusCode;
use nightshift_api::{Access, Exposure, listed_routes};
use support::{Rig, request, secret};

/// A path of the route that leads somewhere.
fn path_of(route: &str) -> String {
    route.replace("{id}", "INC-0002")
}

/// The status that a caller gets who has no business there, or 0 when the guard lets the request through.
async fn refused(rig: &Rig, exposure: Exposure, method: &str, path: &str, who: Option<&str>) -> u16 {
    let mut request = request(&method.to_uppercase(), &path_of(path));
    if let Some(name) = who {
        request = request.header("authorization", format!("Bearer {}", secret(name)));
    }
    let status = rig.send(exposure, request.body(Body::empty()).unwrap()).await.status;
    if matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) { status.as_u16() } else { 0 }
}

#[tokio::test]
async fn the_table_of_access_holds_for_every_route() {
    let rig = Rig::new().await;
    rig.trouble().await;
    let (loopback, beyond) = (Exposure::Loopback, Exposure::Beyond);
    // Rows: caller. Columns: what an access answers on loopback and beyond it.
    let callers = [None, Some("nobody"), Some("gone"), Some("vera"), Some("olga"), Some("anna"), Some("adam")];
    let want = |access, exposure, caller: Option<&str>| -> u16 {
        let least = match (access, exposure) {
            (Access::Public, _) | (Access::Read | Access::Ingest, Exposure::Loopback) => return 0,
            (Access::Read, Exposure::Beyond) | (Access::Work, _) => 0,
            (Access::Ingest, Exposure::Beyond) | (Access::Change, _) => 1,
            (Access::Approve, _) => 2,
            (Access::Admin, _) => 3,
            // Its token is in the form, and there is no form in these requests.
            (Access::Form, _) => return 401,
        };
        let Some(rank) = caller.and_then(|name| ["vera", "olga", "anna", "adam"].iter().position(|n| *n == name))
        else {
            return 401;
        };
        if rank < least { 403 } else { 0 }
    };
    for (method, path, access) in listed_routes() {
        for exposure in [loopback, beyond] {
            for caller in callers {
                // An empty form is told as such before anybody is asked for a token.
                if access == Access::Form {
                    continue;
                }
                let got = refused(&rig, exposure, method, path, caller).await;
                assert_eq!(got, want(access, exposure, caller), "{method} {path} by {caller:?} through {exposure:?}");
            }
        }
    }
}

#[tokio::test]
async fn what_changes_something_is_a_change_and_nothing_else_is_open() {
    let open: Vec<_> =
        listed_routes().into_iter().filter(|(_, _, a)| *a == Access::Public).map(|(_, p, _)| p).collect();
    assert_eq!(open, ["/api/v1/health", "/livez", "/readyz"]);
    for (method, path, access) in listed_routes() {
        match access {
            Access::Public | Access::Read => assert_eq!(method, "get", "{path}"),
            Access::Work => assert!(path.ends_with("/replay"), "{path}"),
            Access::Change | Access::Approve => {
                let (_, verb) = path.strip_prefix("/api/v1/incidents/{id}").unwrap().split_once('/').unwrap();
                let decides = ["approve", "reject", "override"].contains(&verb);
                assert_eq!(access == Access::Approve, decides, "{path}");
            }
            Access::Admin => assert_eq!(path, "/api/v1/kill-switch"),
            Access::Ingest => assert!(path.starts_with("/api/v1/") && method == "post", "{path}"),
            Access::Form => assert!(!path.starts_with("/api/") && method == "post", "{path}"),
        }
    }
}

#[tokio::test]
async fn odd_credentials_are_refused_with_the_way_to_get_good_ones() {
    let rig = Rig::new().await;
    rig.trouble().await;
    for value in [
        "Basic b2xnYTpvbGdh",
        "Bearer",
        "Bearer ",
        "bearer ns_",
        "ns_secret-of-olga",
        "Bearer ns_secret-of-olga ns_secret-of-olga",
        &format!("Bearer {}", "x".repeat(10_000)),
    ] {
        let request = request("POST", "/api/v1/incidents/INC-0002/ack").header("authorization", value);
        let answer = rig.send(Exposure::Loopback, request.body(Body::empty()).unwrap()).await;
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{value}");
        assert_eq!(answer.header("www-authenticate"), "Bearer realm=\"nightshift\"");
        assert!(answer.json()["hint"].as_str().unwrap().contains("nightshift token create"));
        assert!(!answer.text.contains("secret-of-olga"), "a secret was repeated");
    }
    let lower = request("POST", "/api/v1/incidents/INC-0002/ack").header("authorization", "bearer ns_secret-of-olga");
    assert_eq!(rig.send(Exposure::Loopback, lower.body(Body::empty()).unwrap()).await.status, StatusCode::OK);
}

#[tokio::test]
async fn other_names_and_other_sites_are_refused_on_every_route() {
    let rig = Rig::new().await;
    for (method, path, _) in listed_routes() {
        let builder = axum::http::Request::builder().method(method.to_uppercase().as_str()).uri(path_of(path));
        let rebound = builder.header("host", "evil.example:8080").body(Body::empty()).unwrap();
        let answer = rig.send(Exposure::Loopback, rebound).await;
        assert_eq!(answer.status, StatusCode::MISDIRECTED_REQUEST, "{method} {path}");
        if method == "post" {
            let cross = request("POST", &path_of(path)).header("origin", "http://evil.example").body(Body::empty());
            let answer = rig.send(Exposure::Loopback, cross.unwrap()).await;
            assert_eq!(answer.status, StatusCode::FORBIDDEN, "{method} {path}");
            assert_eq!(answer.json()["type"], "urn:nightshift:problem:cross_origin");
        }
    }
}

async fn form(rig: &Rig, exposure: Exposure, path: &str, body: &str) -> support::Answer {
    let request = request("POST", path)
        .header("content-type", "application/x-www-form-urlencoded")
        .header("accept", "text/html")
        .header("origin", "http://127.0.0.1:8080")
        .body(Body::from(body.to_owned()))
        .unwrap();
    rig.send(exposure, request).await
}

#[tokio::test]
async fn the_forms_ask_for_the_same_token() {
    let rig = Rig::new().await;
    rig.trouble().await;
    for (body, status) in [
        ("", StatusCode::UNAUTHORIZED),
        ("token=&note=x", StatusCode::UNAUTHORIZED),
        ("token=ns_wrong", StatusCode::UNAUTHORIZED),
        ("token=ns_secret-of-gone", StatusCode::UNAUTHORIZED),
        ("token=ns_secret-of-vera", StatusCode::FORBIDDEN),
    ] {
        for verb in ["ack", "resolve"] {
            let answer = form(&rig, Exposure::Loopback, &format!("/incidents/INC-0002/{verb}"), body).await;
            assert_eq!(answer.status, status, "{verb} {body}");
            assert!(answer.header("content-type").starts_with("text/html"), "{verb} {body}");
            assert!(answer.text.contains("Back to the incident"), "{}", answer.text);
        }
    }
    let answer = form(&rig, Exposure::Loopback, "/incidents/inc-2/ack", "token=+ns_secret-of-olga&note=on+it").await;
    assert_eq!((answer.status, answer.header("location")), (StatusCode::SEE_OTHER, "/incidents/INC-0002"));
    let incident = rig.get("/api/v1/incidents/INC-0002").await.json();
    assert_eq!(incident["data"]["acknowledged_by"], "olga");
    assert_eq!(incident["data"]["timeline"].as_array().unwrap().last().unwrap()["detail"], "on it");
    let answer = form(&rig, Exposure::Loopback, "/incidents/INC-0002/resolve", "token=ns_secret-of-adam").await;
    assert_eq!(answer.status, StatusCode::SEE_OTHER);
}

#[tokio::test]
async fn beyond_loopback_a_browser_signs_in_to_read_and_only_that() {
    let rig = Rig::new().await;
    rig.trouble().await;
    let page = request("GET", "/incidents/INC-0002").header("accept", "text/html").body(Body::empty()).unwrap();
    let answer = rig.send(Exposure::Beyond, page).await;
    assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
    assert!(answer.text.contains("Sign in to read") && !answer.text.contains("checkout"), "{}", answer.text);

    assert_eq!(form(&rig, Exposure::Beyond, "/sign-in", "token=ns_wrong").await.status, StatusCode::UNAUTHORIZED);
    let signed = form(&rig, Exposure::Beyond, "/sign-in", "token=ns_secret-of-adam&to=%2Fincidents%2FINC-0002").await;
    assert_eq!((signed.status, signed.header("location")), (StatusCode::SEE_OTHER, "/incidents/INC-0002"));
    let cookie = signed.header("set-cookie").to_owned();
    assert!(cookie.contains("HttpOnly") && cookie.contains("SameSite=Strict"), "{cookie}");
    let elsewhere = form(&rig, Exposure::Beyond, "/sign-in", "token=ns_secret-of-adam&to=%2F%2Fevil.example").await;
    assert_eq!(elsewhere.header("location"), "/");

    let with = |method: &str, path: &str| {
        let pair = cookie.split(';').next().unwrap();
        request(method, path).header("accept", "text/html").header("cookie", pair).body(Body::empty()).unwrap()
    };
    let answer = rig.send(Exposure::Beyond, with("GET", "/incidents/INC-0002")).await;
    assert!(answer.status == StatusCode::OK && answer.text.contains("checkout"));
    for path in ["/api/v1/incidents/INC-0002/ack", "/api/v1/test/inject", "/api/v1/events"] {
        let answer = rig.send(Exposure::Beyond, with("POST", path)).await;
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "a cookie is good for reading only: {path}");
    }
}
