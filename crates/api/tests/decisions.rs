//! What people decide: who may, for which plan, with which words, and that the journal has their names.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

mod support;

use axum::body::Body;
use axum::http::StatusCode;
use nightshift_api::Exposure;
use nightshift_model::journal::EventKind;
use nightshift_model::{Decision, Feedback, IncidentId, JournalEvent, Plan, Risk};
use nightshift_store::Store as _;
use serde_json::{Value, json};
use support::{Answer, NOW, Rig, TENANT, request, secret};

async fn asked(risk: Risk) -> (Rig, IncidentId, Plan) {
    let rig = Rig::new().await;
    let [_, id, _] = rig.trouble().await;
    let plan = rig.ask(id, risk).await;
    (rig, id, plan)
}

async fn act(rig: &Rig, who: Option<&str>, verb: &str, body: &Value) -> Answer {
    rig.post(&format!("/api/v1/incidents/INC-0002/{verb}"), who, &body.to_string()).await
}

async fn last(rig: &Rig, id: IncidentId) -> JournalEvent {
    rig.store.incident_journal(TENANT, id).await.unwrap().pop().unwrap()
}

/// SEC-1: what changes something needs a token, and the journal has its name.
#[tokio::test]
async fn every_verb_is_journalled_by_name() {
    for (verb, who, body, want) in [
        ("ack", "olga", json!({ "note": "on it" }), "acknowledged"),
        ("resolve", "olga", json!({ "why": "gone" }), "resolved"),
        ("resolve", "olga", json!({ "note": "gone" }), "resolved"),
        ("approve", "anna", json!({ "plan": "HASH", "note": "go" }), "approved"),
        ("reject", "anna", json!({ "plan": "SHORT", "why": "not today" }), "rejected"),
        ("override", "anna", json!({ "plan": "HASH", "to": "deny", "why": "we move" }), "overridden"),
        ("pause", "olga", json!({ "why": "I look" }), "automation_paused"),
        ("resume", "olga", json!({}), "automation_resumed"),
        ("take-over", "olga", json!({ "note": "mine" }), "taken_over"),
        ("feedback", "olga", json!({ "verdict": "false_positive" }), "feedback"),
    ] {
        let (rig, id, plan) = asked(Risk::High).await;
        let body = body.to_string().replace("HASH", &plan.hash.to_string()).replace("SHORT", &plan.hash.short());
        let answer = rig.post(&format!("/api/v1/incidents/INC-0002/{verb}"), Some(who), &body).await;
        assert_eq!(answer.status, StatusCode::OK, "{verb}: {}", answer.text);
        let row = last(&rig, id).await;
        assert_eq!((row.event.action(), row.actor.as_str()), (want, who), "{verb}");
        for said in ["on it", "gone", "go", "not today", "we move", "I look", "mine"] {
            if body.contains(&format!("\"{said}\"")) {
                assert!(row.event.detail().contains(said), "{verb}: {said} is lost");
            }
        }
        // Nobody, and whoever may not, changes nothing.
        let rows = rig.store.incident_journal(TENANT, id).await.unwrap().len();
        let below = if who == "anna" { "olga" } else { "vera" };
        for (caller, status) in [(None, StatusCode::UNAUTHORIZED), (Some(below), StatusCode::FORBIDDEN)] {
            let answer = rig.post(&format!("/api/v1/incidents/INC-0002/{verb}"), caller, &body).await;
            assert_eq!(answer.status, status, "{verb} by {caller:?}");
        }
        assert_eq!(rig.store.incident_journal(TENANT, id).await.unwrap().len(), rows, "{verb}");
    }
}

#[tokio::test]
async fn an_answer_is_for_the_plan_that_was_seen() {
    let (rig, id, plan) = asked(Risk::High).await;
    let hash = plan.hash.to_string();
    let other = "0".repeat(64);
    for verb in ["approve", "reject", "override"] {
        for (named, status, want) in [
            (json!(null), StatusCode::BAD_REQUEST, "plan: which one?"),
            (json!(""), StatusCode::BAD_REQUEST, "plan: which one?"),
            (json!("latest"), StatusCode::BAD_REQUEST, "`latest` is not the hash of a plan"),
            (json!(hash[..11]), StatusCode::BAD_REQUEST, "12 to 64 hexadecimal digits"),
            (json!(format!("{hash}0")), StatusCode::BAD_REQUEST, "12 to 64 hexadecimal digits"),
            (json!("ä".repeat(32)), StatusCode::BAD_REQUEST, "is not the hash of a plan"),
            (json!(7), StatusCode::BAD_REQUEST, "`plan` is not a text"),
            (json!(other), StatusCode::CONFLICT, "the current plan is"),
            (json!(other[..12]), StatusCode::CONFLICT, "the current plan is"),
            (
                json!(format!("{}{}", &hash[..63], if hash.ends_with('0') { '1' } else { '0' })),
                StatusCode::CONFLICT,
                "not",
            ),
        ] {
            let mut body = json!({ "plan": named });
            if verb == "override" {
                body["to"] = json!("execute");
                body["why"] = json!("now");
            }
            let answer = act(&rig, Some("anna"), verb, &body).await;
            assert_eq!(answer.status, status, "{verb} {named}: {}", answer.text);
            let detail = answer.json()["detail"].as_str().unwrap().to_owned();
            assert!(detail.contains(want), "{verb} {named}: {detail}");
        }
    }
    // A newer plan is another one: what was seen before does not count any more.
    let newer = rig.ask(id, Risk::Medium).await;
    let answer = act(&rig, Some("anna"), "approve", &json!({ "plan": hash })).await;
    assert_eq!(answer.status, StatusCode::CONFLICT);
    assert!(answer.text.contains(&newer.hash.short()), "{}", answer.text);
    let upper = newer.hash.to_string().to_uppercase();
    let answer = act(&rig, Some("anna"), "approve", &json!({ "plan": upper })).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
    assert_eq!(answer.json()["data"]["approval"]["by"], "anna");
    let EventKind::Approved { plan: approved, .. } = last(&rig, id).await.event else { panic!("not approved") };
    assert_eq!(approved, newer.hash, "the whole hash is handed on");
    // Nobody is asked any more; and where there is no plan there is nothing to answer.
    let again = act(&rig, Some("anna"), "approve", &json!({ "plan": newer.hash })).await;
    assert_eq!(again.status, StatusCode::CONFLICT);
    let body = json!({ "plan": hash }).to_string();
    let none = rig.post("/api/v1/incidents/INC-0003/approve", Some("anna"), &body).await;
    assert_eq!((none.status, &none.json()["detail"]), (StatusCode::CONFLICT, &json!("INC-0003 has no plan")));
}

#[tokio::test]
async fn critical_risk_is_for_an_admin() {
    let (rig, _, plan) = asked(Risk::Critical).await;
    let approve = json!({ "plan": plan.hash });
    let instead = json!({ "plan": plan.hash, "to": "execute", "why": "now" });
    for (verb, body) in [("approve", &approve), ("override", &instead)] {
        let answer = act(&rig, Some("anna"), verb, body).await;
        assert_eq!(answer.status, StatusCode::FORBIDDEN, "{verb}");
        assert!(answer.text.contains("critical risk") && answer.text.contains("needs admin"), "{}", answer.text);
    }
    assert!(rig.page("/incidents/INC-0002").await.text.contains("only an admin's token can say yes"));
    assert_eq!(act(&rig, Some("adam"), "approve", &approve).await.status, StatusCode::OK);
    // To say no is the safe side.
    let (rig, _, plan) = asked(Risk::Critical).await;
    assert_eq!(act(&rig, Some("anna"), "reject", &json!({ "plan": plan.hash })).await.status, StatusCode::OK);
    // What the guard raised to critical is critical.
    let (rig, id, plan) = asked(Risk::Medium).await;
    let mut raised = support::verdict(&plan, Decision::Ask);
    raised.risk = Risk::Critical;
    rig.journal(id, NOW, vec![EventKind::Judged { verdict: Box::new(raised) }]).await;
    let answer = act(&rig, Some("anna"), "approve", &json!({ "plan": plan.hash })).await;
    assert_eq!(answer.status, StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn bad_words_are_refused_with_the_good_ones() {
    let (rig, id, plan) = asked(Risk::High).await;
    let rows = rig.store.incident_journal(TENANT, id).await.unwrap().len();
    let hash = plan.hash.to_string();
    let long = "ä".repeat(2_001);
    for (verb, who, body, want) in [
        ("override", "anna", json!({ "plan": hash, "to": "execute" }), "why: an override needs a reason"),
        ("override", "anna", json!({ "plan": hash, "to": "execute", "why": "  " }), "why: an override needs a reason"),
        ("override", "anna", json!({ "plan": hash, "to": "ask", "why": "x" }), "to: `ask` is neither execute nor deny"),
        ("override", "anna", json!({ "plan": hash, "why": "x" }), "to: `` is neither execute nor deny"),
        ("approve", "anna", json!({ "plan": hash, "why": "x" }), "unknown field `why`"),
        ("approve", "anna", json!({ "plan": hash, "note": long }), "the note has 2001 characters"),
        ("reject", "anna", json!({ "plan": hash, "why": long }), "the reason has 2001 characters"),
        ("pause", "olga", json!({ "why": 5 }), "`why` is not a text"),
        ("pause", "olga", json!([1]), "the body cannot be read"),
        ("resume", "olga", json!("x"), "the body cannot be read"),
        ("take-over", "olga", json!({ "note": ["x"] }), "`note` is not a text"),
        ("feedback", "olga", json!({}), "verdict: `` is neither"),
        ("feedback", "olga", json!({ "verdict": "maybe" }), "verdict: `maybe` is neither"),
        ("feedback", "olga", json!({ "verdict": "false_positive", "fault": "bad_config" }), "neither entity nor fault"),
        (
            "feedback",
            "olga",
            json!({ "verdict": "true_cause", "entity": "checkout" }),
            "fault: `` is not a fault class",
        ),
        (
            "feedback",
            "olga",
            json!({ "verdict": "true_cause", "entity": "checkout", "fault": "gremlins" }),
            "fault: `gremlins` is not a fault class",
        ),
        ("feedback", "olga", json!({ "verdict": "true_cause", "fault": "bad_config" }), "entity: where was the cause?"),
        (
            "feedback",
            "olga",
            json!({ "verdict": "true_cause", "entity": "nobody", "fault": "bad_config" }),
            "nothing is called `nobody`",
        ),
    ] {
        let answer = act(&rig, Some(who), verb, &body).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{verb} {body}: {}", answer.text);
        let problem = answer.json();
        assert!(problem["detail"].as_str().unwrap().contains(want), "{verb} {body}: {problem}");
        assert!(!problem["hint"].as_str().unwrap().is_empty());
    }
    for bad in ["{", "plan=x", "\u{0}", "nul"] {
        for verb in ["approve", "reject", "override", "pause", "resume", "take-over", "feedback"] {
            let answer = rig.post(&format!("/api/v1/incidents/INC-0002/{verb}"), Some("anna"), bad).await;
            assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{verb} {bad:?}");
            let none = rig.post(&format!("/api/v1/incidents/INC-0777/{verb}"), Some("anna"), "{}").await;
            assert!(matches!(none.status, StatusCode::NOT_FOUND | StatusCode::BAD_REQUEST), "{verb}: {}", none.text);
        }
    }
    assert_eq!(rig.store.incident_journal(TENANT, id).await.unwrap().len(), rows, "nothing was written");
}

#[tokio::test]
async fn the_true_cause_is_named_by_id_or_by_a_name_that_only_one_has() {
    for (entity, want) in [
        ("checkout", "prod/service/shop/checkout"),
        ("ORDERS-DB", "prod/database/shop/orders-db"),
        ("web-shop", "prod/service/shop/web-shop"),
        ("elsewhere/topic/-/orders", "elsewhere/topic/-/orders"),
    ] {
        let (rig, id, _) = asked(Risk::High).await;
        let body = json!({ "verdict": "true_cause", "entity": entity, "fault": "bad_config", "note": "a flag" });
        let answer = act(&rig, Some("olga"), "feedback", &body).await;
        assert_eq!(answer.status, StatusCode::OK, "{entity}: {}", answer.text);
        let EventKind::FeedbackGiven { feedback: Feedback::TrueCause { entity: got, note, .. } } =
            last(&rig, id).await.event
        else {
            panic!("no feedback")
        };
        assert_eq!((got.as_str(), note.as_str()), (want, "a flag"));
    }
    let (rig, id, _) = asked(Risk::High).await;
    let twin = support::anomaly("checkout", "workload", "up", NOW, 0.8, (0.0, 1.0, 0.9, 1.1));
    rig.journal(id, NOW, vec![EventKind::AnomalyJoined { anomaly: Box::new(twin), why: "same name".into() }]).await;
    let body = json!({ "verdict": "true_cause", "entity": "checkout", "fault": "bad_config" });
    let answer = act(&rig, Some("olga"), "feedback", &body).await;
    assert_eq!(answer.status, StatusCode::BAD_REQUEST);
    assert!(answer.text.contains("prod/workload/shop/checkout"), "{}", answer.text);
}

#[tokio::test]
async fn the_kill_switch_is_turned_by_admins_and_seen_on_every_page() {
    let (rig, _, _) = asked(Risk::High).await;
    let off = rig.get("/api/v1/kill-switch").await.json();
    assert_eq!(off["data"], json!({ "on": false, "by": "", "why": "", "at": null }));
    for (who, body, status) in [
        (None, "{\"on\":true}", StatusCode::UNAUTHORIZED),
        (Some("vera"), "{\"on\":true}", StatusCode::FORBIDDEN),
        (Some("anna"), "{\"on\":true}", StatusCode::FORBIDDEN),
        (Some("adam"), "", StatusCode::BAD_REQUEST),
        (Some("adam"), "{}", StatusCode::BAD_REQUEST),
        (Some("adam"), "{\"on\":\"yes\"}", StatusCode::BAD_REQUEST),
        (Some("adam"), "{\"on\":true,\"because\":\"x\"}", StatusCode::BAD_REQUEST),
        (Some("adam"), "{\"on\":true,\"why\":\"full disk\"}", StatusCode::SERVICE_UNAVAILABLE),
    ] {
        let answer = rig.post("/api/v1/kill-switch", who, body).await;
        assert_eq!(answer.status, status, "{who:?} {body}: {}", answer.text);
    }
    let long = json!({ "on": true, "why": "x".repeat(2_001) }).to_string();
    assert_eq!(rig.post("/api/v1/kill-switch", Some("adam"), &long).await.status, StatusCode::BAD_REQUEST);
    assert!(!rig.page("/").await.text.contains("The kill switch is on"));

    let on = rig.post("/api/v1/kill-switch", Some("adam"), "{\"on\":true,\"why\":\"a drill\"}").await;
    assert_eq!((on.status, &on.json()["data"]["by"]), (StatusCode::OK, &json!("adam")));
    assert_eq!(rig.get("/api/v1/guard").await.json()["data"]["kill_switch"]["why"], "a drill");
    for path in ["/", "/guard", "/incidents/INC-0002", "/incidents/INC-0777", "/nowhere"] {
        let page = rig.page(path).await.text;
        assert!(page.contains("The kill switch is on") && page.contains("a drill"), "{path}\n{page}");
    }
    rig.post("/api/v1/kill-switch", Some("adam"), "{\"on\":false}").await;
    assert!(!rig.page("/guard").await.text.contains("The kill switch is on"));
}

async fn form(rig: &Rig, path: &str, body: &str) -> Answer {
    let request = request("POST", path)
        .header("content-type", "application/x-www-form-urlencoded")
        .header("accept", "text/html")
        .header("origin", "http://127.0.0.1:8080")
        .body(Body::from(body.to_owned()))
        .unwrap();
    rig.send(Exposure::Loopback, request).await
}

#[tokio::test]
async fn the_forms_of_the_page_ask_for_the_same_roles() {
    let (rig, id, plan) = asked(Risk::High).await;
    let hash = plan.hash.to_string();
    for (verb, who, fields, want) in [
        ("pause", "olga", "note=I+look", "automation_paused"),
        ("resume", "olga", "note=", "automation_resumed"),
        ("take-over", "olga", "note=mine", "taken_over"),
        ("override", "anna", "plan=HASH&to=deny&why=no", "overridden"),
        ("feedback", "olga", "verdict=false_positive&entity=checkout&fault=bad_config&note=calm", "feedback"),
        ("feedback", "olga", "verdict=true_cause&entity=checkout&fault=bad_config&note=", "feedback"),
    ] {
        let path = format!("/incidents/INC-0002/{verb}");
        let fields = fields.replace("HASH", &hash);
        let below = if who == "anna" { "olga" } else { "vera" };
        for (token, status) in [
            ("".to_owned(), StatusCode::UNAUTHORIZED),
            ("token=ns_wrong".into(), StatusCode::UNAUTHORIZED),
            (format!("token={}", secret(below)), StatusCode::FORBIDDEN),
        ] {
            let answer = form(&rig, &path, &format!("{token}&{fields}")).await;
            assert_eq!(answer.status, status, "{verb} {token}");
            assert!(answer.text.contains("Back to the incident") && !answer.text.contains("Sign in"), "{verb}");
        }
        let answer = form(&rig, &path, &format!("{fields}&token={}", secret(who))).await;
        assert_eq!(
            (answer.status, answer.header("location")),
            (StatusCode::SEE_OTHER, "/incidents/INC-0002"),
            "{verb}"
        );
        let row = last(&rig, id).await;
        assert_eq!((row.event.action(), row.actor.as_str()), (want, who));
    }
    let (rig, id, plan) = asked(Risk::High).await;
    let approve = format!("token={}&plan={}&note=go", secret("anna"), plan.hash);
    // The button of the other verb sends the same fields: the note is the reason then.
    let stale = approve.replace(&plan.hash.short(), "000000000000");
    assert_eq!(form(&rig, "/incidents/INC-0002/approve", &stale).await.status, StatusCode::CONFLICT);
    assert_eq!(form(&rig, "/incidents/INC-0002/reject", &approve).await.status, StatusCode::SEE_OTHER);
    let row = last(&rig, id).await;
    assert!(matches!(&row.event, EventKind::Rejected { why, .. } if why == "go"), "{row:?}");
    for (body, status) in [
        ("on=true&token=".to_owned(), StatusCode::UNAUTHORIZED),
        (format!("on=true&token={}", secret("anna")), StatusCode::FORBIDDEN),
        (format!("token={}", secret("adam")), StatusCode::BAD_REQUEST),
        (format!("on=true&why=drill&token={}", secret("adam")), StatusCode::SEE_OTHER),
    ] {
        assert_eq!(form(&rig, "/kill-switch", &body).await.status, status, "{body}");
    }
    assert_eq!(rig.get("/api/v1/kill-switch").await.json()["data"]["by"], "adam");
}

#[tokio::test]
async fn an_incident_says_what_people_would_reckon_themselves() {
    let (rig, _, plan) = asked(Risk::High).await;
    rig.clock.advance(std::time::Duration::from_secs(2));
    for path in ["/api/v1/incidents", "/api/v1/incidents/INC-0002"] {
        let answer = rig.get(path).await.json();
        let incident = if answer["data"].is_array() { &answer["data"][0] } else { &answer["data"] };
        assert_eq!(incident["detection_latency_s"], 90.0);
        assert_eq!(
            (&incident["approval"]["state"], &incident["approval"]["seconds_left"]),
            (&json!("asked"), &json!(250))
        );
        let shown = &incident["plan"];
        assert_eq!(
            (&shown["short"], &shown["estimated_resolution_time"]),
            (&json!(plan.hash.short()), &json!("3 min"))
        );
        assert_eq!(shown["steps"][0]["estimated_impact"], "rolling restart, 40 s");
        assert_eq!(shown["escalation_path"], json!(["payments-oncall", "payments-lead"]));
        assert_eq!((&shown["owner"], &shown["priority"]), (&json!("payments"), &json!("IMMEDIATE")));
        assert_eq!(incident["verdict"]["reasons"].as_array().unwrap().len(), 3);
        assert_eq!(incident["nodes"][0]["node"], "fix_planner");
    }
    let one = rig.get("/api/v1/incidents/INC-0002").await.json();
    assert_eq!(one["data"]["plan_alternatives"], json!(["restart-checkout: 0.21 of expected benefit"]));
    assert_eq!(one["data"]["readings"], json!([]));
    rig.carry_out(&plan).await;
    let one = rig.get("/api/v1/incidents/INC-0002").await.json();
    assert_eq!(one["data"]["readings"].as_array().unwrap().len(), 4);
    assert_eq!(one["data"]["actions"][3]["outcome"], "done");
    // Readings that are coming in are newer than what the journal has.
    *rig.desk.readings.lock().unwrap() = vec![nightshift_model::KpiReading { at: NOW, value: 0.5, good: false }];
    assert_eq!(rig.get("/api/v1/incidents/INC-0002").await.json()["data"]["readings"][0]["value"], 0.5);
}

#[tokio::test]
async fn the_record_of_an_incident_is_read_page_by_page() {
    let (rig, id, plan) = asked(Risk::High).await;
    rig.carry_out(&plan).await;
    let all = rig.store.incident_journal(TENANT, id).await.unwrap();
    let (mut seen, mut cursor) = (Vec::new(), "0".to_owned());
    loop {
        let page = rig.get(&format!("/api/v1/incidents/INC-0002/journal?limit=7&cursor={cursor}")).await.json();
        seen.extend(page["data"].as_array().unwrap().iter().map(|r| r["seq"].as_u64().unwrap()));
        match page["next"].as_str() {
            Some(next) => cursor = next.to_owned(),
            None => break,
        }
    }
    assert_eq!(seen, all.iter().map(|e| e.seq).collect::<Vec<_>>());
    let row = &rig.get("/api/v1/incidents/INC-0002/journal?limit=1").await.json()["data"][0];
    assert_eq!(
        (&row["action"], &row["event"]["type"], &row["actor"]),
        (&json!("created"), &json!("opened"), &json!("system"))
    );
    for (path, status) in [
        ("INC-0777/journal", StatusCode::NOT_FOUND),
        ("INC-0002/journal?limit=0", StatusCode::BAD_REQUEST),
        ("INC-0002/journal?from=1", StatusCode::BAD_REQUEST),
    ] {
        assert_eq!(rig.get(&format!("/api/v1/incidents/{path}")).await.status, status, "{path}");
    }
}

#[tokio::test]
async fn a_postmortem_is_markdown_json_or_a_page() {
    let (rig, _, _) = asked(Risk::High).await;
    let path = "/api/v1/incidents/INC-0002/postmortem";
    let none = rig.get(path).await;
    assert_eq!(none.status, StatusCode::NOT_FOUND);
    assert!(none.text.contains("INC-0002 has no postmortem yet: it is awaiting_approval"), "{}", none.text);
    *rig.desk.postmortem.lock().unwrap() = Some(
        "# What happened\n\n<script>alert(1)</script>\n\n[x](javascript:alert(1))\n\n| a |\n| --- |\n| b |\n".into(),
    );
    let plain = rig.get(path).await;
    assert_eq!(plain.header("content-type"), "text/markdown; charset=utf-8");
    assert!(plain.text.starts_with("# What happened"));
    let accept = |what: &str| request("GET", path).header("accept", what).body(Body::empty()).unwrap();
    let json = rig.send(Exposure::Loopback, accept("application/json")).await.json();
    assert_eq!(json["data"]["facts"]["incident"], "INC-0002");
    let both = rig.send(Exposure::Loopback, accept("text/markdown, application/json;q=0.5")).await;
    assert!(both.header("content-type").starts_with("text/markdown"));
    let page = rig.page("/incidents/INC-0002/postmortem").await.text;
    assert!(page.contains("<h1>What happened</h1>") && page.contains("<td>b</td>"), "{page}");
    assert!(
        !page.contains("<script>alert") && !page.contains("javascript:") && page.contains("&lt;script&gt;"),
        "{page}"
    );
    *rig.desk.postmortem.lock().unwrap() = Some("broken".into());
    assert_eq!(rig.get(path).await.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(rig.page("/incidents/INC-0777/postmortem").await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_replay_takes_a_token_and_changes_nothing() {
    let (rig, id, _) = asked(Risk::High).await;
    let rows = rig.store.incident_journal(TENANT, id).await.unwrap().len();
    for (who, of, body, status, want) in [
        (None, "INC-0002", "", StatusCode::UNAUTHORIZED, "needs a token"),
        (Some("vera"), "INC-0002", "", StatusCode::OK, "\"same\":true"),
        (Some("vera"), "INC-0002", "{\"policy\":\"package x\"}", StatusCode::OK, "\"same\":false"),
        (Some("vera"), "INC-0002", "{\"policy\":\"nonsense\"}", StatusCode::BAD_REQUEST, "expected `package`"),
        (Some("vera"), "INC-0002", "{\"polcy\":\"x\"}", StatusCode::BAD_REQUEST, "unknown field"),
        (Some("vera"), "INC-0003", "", StatusCode::CONFLICT, "test injection"),
        (Some("vera"), "INC-0777", "", StatusCode::NOT_FOUND, "no incident INC-0777"),
    ] {
        let answer = rig.post(&format!("/api/v1/incidents/{of}/replay"), who, body).await;
        assert_eq!(answer.status, status, "{who:?} {of} {body}: {}", answer.text);
        assert!(answer.text.contains(want), "{of} {body}: {}", answer.text);
    }
    assert_eq!(rig.store.incident_journal(TENANT, id).await.unwrap().len(), rows);
}

#[tokio::test]
async fn what_was_done_and_told_is_listed_and_filtered() {
    let (rig, id, plan) = asked(Risk::High).await;
    assert_eq!(rig.get("/api/v1/actions").await.json()["data"], json!([]));
    rig.carry_out(&plan).await;
    rig.tell_all(id).await;
    for (path, want) in [
        ("actions", 4),
        ("actions?operation=apply,canary", 2),
        ("actions?action=rollback_deploy", 4),
        ("actions?action=scale_deployment", 0),
        ("actions?outcome=done", 4),
        ("actions?outcome=pending,failed", 0),
        ("actions?target=CHECKOUT", 4),
        ("actions?target=gateway", 0),
        ("actions?until=1h", 0),
        ("actions?limit=3", 3),
        ("actions?limit=3&cursor=3", 1),
        ("deliveries", 2),
        ("deliveries?status=FAILED", 1),
        ("deliveries?notifier=pager&letter=plan", 2),
        ("deliveries?letter=alert", 0),
        ("playbooks", 1),
        ("policies", 1),
    ] {
        let answer = rig.get(&format!("/api/v1/{path}")).await;
        assert_eq!(answer.status, StatusCode::OK, "{path}: {}", answer.text);
        assert_eq!(answer.json()["data"].as_array().unwrap().len(), want, "{path}");
    }
    assert_eq!(rig.get("/api/v1/actions").await.json()["data"][0]["incident"], "INC-0002");
    for path in ["actions?action=explode", "actions?outcomes=done", "deliveries?status=sent", "actions?limit=x"] {
        assert_eq!(rig.get(&format!("/api/v1/{path}")).await.status, StatusCode::BAD_REQUEST, "{path}");
    }
    let guard = rig.get("/api/v1/guard").await.json();
    assert_eq!((&guard["data"]["dry_run"], &guard["data"]["breakers"][0]["state"]), (&json!(true), &json!("open")));
    assert_eq!(guard["data"]["budgets"][2]["left"], Value::Null, "not known is not full");
}
