//! The pages: what they show, and what they must never let through.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

mod support;

use axum::http::StatusCode;
use base64::Engine as _;
use nightshift_api::ApiConfig;
use nightshift_model::journal::EventKind;
use nightshift_model::{
    ActionOutcome, BlastRadius, Contribution, Decision, EntityId, EntityMeta, Evidence, FaultClass, Feedback,
    Hypothesis, IncidentId, KillSwitch, Operation, Risk, Severity,
};
use sha2::{Digest as _, Sha256};
use support::{NOW, Rig, anomaly};

#[tokio::test]
async fn the_list_shows_what_is_open_and_why() {
    let rig = Rig::new().await;
    rig.trouble().await;
    let page = rig.page("/").await;
    assert_eq!(page.header("content-type"), "text/html; charset=utf-8");
    for text in [
        "<title>(1) Incidents · Nightshift</title>",
        "checkout: latency and errors after a deployment",
        "href=\"/incidents/INC-0002\"",
        "<span class=\"sev critical\">critical</span>",
        "rca complete",
        "12 min ago",
        "Bad deployment",
        "87 %",
        "5 symptoms on 3 entities",
        "all 2 components healthy",
    ] {
        assert!(page.text.contains(text), "{text}\n{}", page.text);
    }
    assert!(!page.text.contains("INC-0001") && !page.text.contains("INC-0003"), "over, and a test");
    let all = rig.page("/?status=all&synthetic=true").await.text;
    assert!(all.contains("INC-0001") && all.contains("INC-0003") && all.contains("<span class=\"tag\">test</span>"));
    assert!(all.contains("<option value=\"all\" selected>"));
    let place = |id: &str| all.find(&format!(">{id}<")).unwrap();
    assert!(place("INC-0003") < place("INC-0002") && place("INC-0002") < place("INC-0001"), "open and worst first");
    let none = rig.page("/?text=nothing+like+it").await.text;
    assert!(none.contains("No incident matches") && none.contains("value=\"nothing like it\""));
    let bad = rig.page("/?status=opened").await;
    assert_eq!(bad.status, StatusCode::BAD_REQUEST);
    assert!(bad.text.contains("is not a status") && bad.header("content-type").starts_with("text/html"));
}

#[tokio::test]
async fn the_empty_list_says_what_is_watched_and_what_to_do() {
    let rig = Rig::new().await;
    rig.reporters[1].unhealthy("bus gone");
    let page = rig.page("/").await.text;
    for text in [
        "No open incidents",
        "Watching <b>4\u{202f}123</b> series from 3 sources for 2 h",
        "2 of 3 targets answer",
        "curl -X POST 'http://127.0.0.1:8080/api/v1/test/inject?mode=burst'",
        "nightshift init --prometheus",
        "1 of 2 components failing",
    ] {
        assert!(page.contains(text), "{text}\n{page}");
    }
}

#[tokio::test]
async fn an_incident_shows_its_causes_with_what_speaks_for_them() {
    let rig = Rig::new().await;
    rig.trouble().await;
    let page = rig.page("/incidents/inc-2").await;
    assert_eq!(page.status, StatusCode::OK);
    for text in [
        "<h1>checkout: latency and errors after a deployment</h1>",
        "deployment 2.8.1 of checkout, 2 minutes before the first symptom",
        "version 2.8.1 was rolled out 2 min before the onset",
        "+2.60",
        "-1.10",
        "class=\"against\"",
        "change:9f1c2ab",
        "30 % of payments, about 12,000 USD a minute",
        "web-shop",
        "2.41",
        "0.11 to 0.26",
        "aria-label=\"observed 2.41, normal 0.11 to 0.26\"",
        "ERROR payment provider timed out",
        "4 of 5 going on",
        "action=\"/incidents/INC-0002/ack\"",
        "formaction=\"/incidents/INC-0002/resolve\"",
        "causes ranked",
    ] {
        assert!(page.text.contains(text), "{text}\n{}", page.text);
    }
    let over = rig.page("/incidents/INC-0001").await.text;
    assert!(over.contains("by system") && over.matches("<form").count() == 1, "what is over is not acted on");
    assert!(over.contains("action=\"/incidents/INC-0001/feedback\""), "it is learned from");
    assert!(rig.page("/incidents/INC-0003").await.text.contains("pages nobody"));
    let none = rig.page("/incidents/INC-0042").await;
    assert_eq!(none.status, StatusCode::NOT_FOUND);
    assert!(none.text.contains("there is no incident INC-0042") && none.text.contains("<html"));
}

/// A plan, a verdict, actions and what stands behind them, of nothing but this text.
async fn evil_plan(rig: &Rig, id: IncidentId, evil: &str) {
    let mut plan = support::plan(id, Risk::High);
    for text in [&mut plan.title, &mut plan.playbook, &mut plan.owner] {
        *text = evil.into();
    }
    plan.escalation_path = vec![evil.into()];
    plan.steps[0].name = evil.into();
    plan.steps[0].estimated_impact = evil.into();
    plan.steps[0].actuator = evil.into();
    plan.steps[0].params = [(evil.to_owned(), serde_json::json!(evil))].into();
    plan.verification.kpi.signal = evil.into();
    let prediction = plan.prediction.as_mut().unwrap();
    (prediction.harms, prediction.basis) = (vec![evil.into()], evil.into());
    let plan = plan.sealed();
    let mut verdict = support::verdict(&plan, Decision::Ask);
    for reason in &mut verdict.reasons {
        (reason.rule, reason.why) = (evil.into(), evil.into());
    }
    let mut events = vec![
        EventKind::PlanProposed {
            plan: Box::new(plan.clone()),
            alternatives: vec![evil.into()],
            findings: vec![evil.into()],
        },
        EventKind::Judged { verdict: Box::new(verdict) },
        EventKind::ApprovalRequested { plan: plan.hash, expires_at: NOW, why: evil.into() },
        EventKind::TakenOver { note: evil.into() },
        EventKind::Escalated { why: evil.into(), to: vec![evil.into()] },
        EventKind::FeedbackGiven { feedback: Feedback::FalsePositive { note: evil.into() } },
        EventKind::PostmortemWritten { sha256: evil.into(), through_seq: 1 },
    ];
    events.extend(support::done(&plan, Operation::Apply, ActionOutcome::Unknown, evil));
    rig.journal(id, NOW, events).await;
    let switch = KillSwitch { on: true, by: evil.into(), why: evil.into(), at: NOW };
    *rig.desk.kill_switch.lock().unwrap() = Some(switch);
    *rig.desk.postmortem.lock().unwrap() = Some(format!("# {evil}\n\n{evil}\n\n| {evil} |\n| --- |\n| {evil} |\n"));
    rig.tell_all(id).await;
    rig.desk.deliveries.lock().unwrap()[0].error = evil.into();
    rig.desk.report.lock().unwrap().breakers[0].target = evil.into();
}

/// Markup in every text that comes from outside.
#[tokio::test]
async fn nothing_from_outside_becomes_markup() {
    const EVIL: &str = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>{{ 12345*54321 }}</style></title>";
    let rig = Rig::new().await;
    let mut a = anomaly("x", "service", EVIL, NOW, 0.95, (2.0, 1.0, 0.5, 1.5));
    a.entity = EntityMeta {
        service: EVIL.into(),
        version: EVIL.into(),
        owner: EVIL.into(),
        ..EntityMeta::bare(EntityId::new("c", "service", "n", EVIL))
    };
    a.labels = [("l".to_owned(), EVIL.to_owned())].into();
    a.description = EVIL.into();
    a.explanation.sample = EVIL.into();
    a.explanation.model = EVIL.into();
    a.source = EVIL.into();
    let id = rig.open(1, EVIL, &a).await;
    let cause = Hypothesis {
        entity: Some(a.entity.id.clone()),
        fault: FaultClass::BadConfig,
        confidence: 0.5,
        score: 1.0,
        summary: EVIL.into(),
        contributions: vec![Contribution {
            factor: EVIL.into(),
            log_odds: 1.0,
            why: EVIL.into(),
            evidence: vec![EVIL.into()],
        }],
        evidence: vec![Evidence { id: EVIL.into(), text: EVIL.into(), at: NOW }],
        signal: EVIL.into(),
    };
    let blast_radius = BlastRadius {
        affected: vec![a.entity.id.clone()],
        at_risk: vec![a.entity.id.clone()],
        estimated_user_impact: Some(EVIL.into()),
        criticality: EVIL.into(),
    };
    rig.journal(
        id,
        NOW,
        vec![
            EventKind::CausesRanked { revision: 1, hypotheses: vec![cause] },
            EventKind::Assessed { score: 0.9, severity: Severity::Critical, title: EVIL.into(), blast_radius },
            EventKind::Acknowledged { note: EVIL.into() },
        ],
    )
    .await;
    evil_plan(&rig, id, EVIL).await;
    rig.reporters[0].degraded(EVIL);
    let query = "%3Cscript%3Ealert(1)%3C/script%3E%22%3E";
    for path in [
        "/",
        "/guard",
        "/incidents/INC-0001",
        "/incidents/INC-0001/postmortem",
        &format!("/?text={query}"),
        &format!("/?entity={query}"),
        &format!("/?status={query}"),
        &format!("/?{query}=1"),
        &format!("/incidents/{query}"),
        &format!("/{query}"),
    ] {
        let page = rig.page(path).await.text;
        assert!(page.contains("<html"), "{path}");
        assert!(!page.contains("<script>alert") && !page.contains("<img"), "{path}\n{page}");
        assert!(!page.contains("onerror=alert(1)>{{") || !page.contains("\"'><"), "{path}");
        assert_eq!(page.matches("<script").count(), page.matches("<script>\"use strict\"").count(), "{path}\n{page}");
        assert_eq!(page.matches("</style>").count(), 1, "{path}");
        assert!(!page.contains("670592745"), "a template ran what it was given: {path}");
    }
    assert!(rig.page("/incidents/INC-0001").await.text.contains("&lt;script&gt;alert(1)"), "it is shown as text");
}

#[tokio::test]
async fn a_plan_is_shown_with_what_it_would_do_and_who_must_agree() {
    let rig = Rig::new().await;
    let [_, id, _] = rig.trouble().await;
    let bare = rig.page("/incidents/INC-0002").await.text;
    assert!(!bare.contains("May this plan run?") && !bare.contains("id=\"plan\""), "{bare}");
    let plan = rig.ask(id, Risk::High).await;
    let page = rig.page("/incidents/INC-0002").await.text;
    for text in [
        "May this plan run?",
        "action=\"/incidents/INC-0002/approve\"",
        "formaction=\"/incidents/INC-0002/reject\"",
        &format!("name=\"plan\" value=\"{}\"", plan.hash),
        &format!("nightshift approve INC-0002 --plan {}", plan.hash.short()),
        "<b>4 min 12 s</b> left",
        "Roll checkout back to 2.8.0",
        "<code>version 2.8.1 → 2.8.0</code>",
        "first 25 %, watched for 15 s",
        "rolling restart, 40 s",
        "http.server.duration.p99 of checkout at or below 0.26: 3 readings in a row within 5 min",
        "It comes back in <b>93 %</b> of the trials, after about <b>38 s</b>",
        "restart-checkout: 0.21 of expected benefit",
        "payments-oncall, then payments-lead",
        "<span class=\"decision ask\">ask</span>",
        "its risk is high",
        "0.87 is above 0.75",
        "formaction=\"/incidents/INC-0002/pause\"",
        "formaction=\"/incidents/INC-0002/take-over\"",
        "action=\"/incidents/INC-0002/override\"",
        "fix planner",
        "12 ms",
    ] {
        assert!(page.contains(text), "{text}\n{page}");
    }
    assert!(rig.page("/").await.text.contains("4 min 12 s left"), "the list says that it waits");
    rig.carry_out(&plan).await;
    let page = rig.page("/incidents/INC-0002").await.text;
    for text in ["Approved by <b>anna</b>", "2 of 6 pods on 2.8.0", "<b>apply</b>", "<b>0.19</b>", "verified just now"]
    {
        assert!(page.contains(text), "{text}\n{page}");
    }
    assert!(!page.contains("May this plan run?") && !page.contains("/override\""), "what ran is not asked about");
    rig.journal(
        id,
        NOW,
        vec![
            EventKind::AutomationPaused { why: String::new() },
            EventKind::Escalated { why: "it came back".into(), to: vec!["payments-oncall".into()] },
        ],
    )
    .await;
    let page = rig.page("/incidents/INC-0002").await.text;
    assert!(page.contains("automation paused") && page.contains("/resume\"") && !page.contains("/pause\""), "{page}");
    assert!(page.contains("Escalated to payments-oncall.</b> it came back"), "{page}");
}

#[tokio::test]
async fn the_page_of_the_guard_says_what_holds_back() {
    let rig = Rig::new().await;
    let calm = rig.page("/guard").await.text;
    for text in
        ["Kill switch: <span class=\"decision execute\">off</span>", "all closed", "Stop all execution", "Nothing yet."]
    {
        assert!(calm.contains(text), "{text}\n{calm}");
    }
    assert!(!calm.contains(">dry-run</a>"));
    let [_, id, _] = rig.trouble().await;
    rig.tell_all(id).await;
    let page = rig.page("/guard").await.text;
    for text in [
        "a trial in 3 min 32 s",
        "95 s more",
        "release weekend",
        "7.0 %",
        "not known yet",
        "bad-deploy-rollback",
        "nightshift.freeze",
        "it answered 503",
        "5 tries",
        ">dry-run</a>",
    ] {
        assert!(page.contains(text), "{text}\n{page}");
    }
}

#[tokio::test]
async fn the_policy_allows_what_is_in_the_page_and_nothing_else() {
    let rig = Rig::new().await;
    let page = rig.page("/").await;
    let policy = page.header("content-security-policy").to_owned();
    let hash = |text: &str| base64::engine::general_purpose::STANDARD.encode(Sha256::digest(text.as_bytes()));
    let between = |open: &str, close: &str| {
        let (_, rest) = page.text.split_once(open).unwrap();
        rest.split_once(close).unwrap().0.to_owned()
    };
    assert!(policy.contains(&format!("style-src 'sha256-{}'", hash(&between("<style>", "</style>")))), "{policy}");
    assert!(policy.contains(&format!("script-src 'sha256-{}'", hash(&between("<script>", "</script>")))), "{policy}");
    assert!(!policy.contains("unsafe") && !policy.contains("http"), "{policy}");
    assert!(!page.text.contains(" style=") && !page.text.contains("onclick"), "inline ones are not allowed by a hash");
    assert!(!page.text.contains("src=\"http") && !page.text.contains("href=\"http"), "nothing from elsewhere");
    assert!(page.text.contains("<noscript><meta http-equiv=\"refresh\""), "it stays current without a script");
}

#[tokio::test]
async fn older_incidents_are_a_page_away() {
    let rig = Rig::with(ApiConfig::default(), 8).await;
    for n in 1..=3 {
        let first = anomaly(&format!("svc-{n}"), "service", "latency", NOW, 0.8, (9.0, 1.0, 0.5, 1.5));
        rig.open(n, &format!("svc-{n} is slow"), &first).await;
    }
    let page = rig.page("/?limit=2&text=slow").await.text;
    assert!(page.contains("svc-3") && page.contains("svc-2 ") && !page.contains("svc-1 "), "{page}");
    assert!(page.contains("limit=2&amp;text=slow&amp;cursor=2\">Older incidents"), "{page}");
    let page = rig.page("/?limit=2&text=slow&cursor=2").await.text;
    assert!(page.contains("svc-1 ") && !page.contains("svc-2 ") && !page.contains("Older incidents"), "{page}");
}
