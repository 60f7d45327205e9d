//! Policies that people change while the service runs: taken up whole, or not at all and said so.
#![expect(clippy::unwrap_used, reason = "a test may panic; clippy does not see that helpers are of tests")]

mod support;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use std::path::Path;
use std::time::Duration;
use support::{Server, until};

const WITHIN: Duration = Duration::from_secs(30);

async fn health(server: &Server) -> Value {
    let answer = server.get("/api/v1/health").await;
    let components = answer["data"]["components"].as_array().unwrap().clone();
    components.into_iter().find(|c| c["name"] == "library").expect("the component `library`")
}

/// What the guard said of the burst's plan, one line for each verdict.
async fn judged(server: &Server) -> String {
    let (status, answer) = server.post("/api/v1/test/inject?mode=burst", serde_json::json!({})).await;
    assert_eq!(status, 200, "{answer}");
    let timeline = answer["data"]["incidents"][0]["timeline"].as_array().unwrap().clone();
    let lines = timeline.iter().filter(|e| e["action"] == "judged").map(|e| e["detail"].to_string());
    lines.collect::<Vec<_>>().join("\n")
}

fn put(folder: &Path, name: &str, text: &str) {
    std::fs::write(folder.join(name), text).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_policy_that_is_put_there_while_it_runs_holds_and_a_broken_one_does_not() {
    let data = tempfile::tempdir().unwrap();
    let policies = data.path().join("own-policies");
    std::fs::create_dir(&policies).unwrap();
    let config = "default_sources = false\n[guard.policies]\nfolder = \"own-policies\"\n";
    let server = Server::start_in(data.path(), config).await;
    assert_eq!(health(&server).await["status"], "healthy");
    assert!(!judged(&server).await.contains("not on a Sunday"));

    let sunday =
        "package mine\n\ndeny contains msg if {\n\tinput.incident.synthetic\n\tmsg := \"not on a Sunday\"\n}\n";
    put(&policies, "mine.rego", sunday);
    until("the policy is taken up", WITHIN, || async {
        let rows = server.get("/api/v1/policies").await["data"].clone();
        rows.as_array().unwrap().iter().any(|p| p["name"] == "mine").then_some(())
    })
    .await;
    until("the policy holds", WITHIN, || async { judged(&server).await.contains("not on a Sunday").then_some(()) })
        .await;

    for (broken, says) in [("package mine\n\ndeny contains msg if {\n", "mine.rego"), (sunday, "mine_test.rego")] {
        put(&policies, "mine.rego", broken);
        // The second is sound by itself; it is its own test that fails.
        let test = "package mine_test\n\nimport data.mine\n\ntest_sunday if {\n\tcount(mine.deny) == 7\n}\n";
        put(&policies, "mine_test.rego", test);
        let told = until("the health says so", WITHIN, || async {
            let health = health(&server).await;
            let detail = health["detail"].as_str().unwrap_or_default().to_owned();
            (health["status"] == "degraded" && detail.contains(says)).then_some(detail)
        })
        .await;
        assert!(told.contains("the playbooks and policies before it are in use"), "{told}");
        assert!(judged(&server).await.contains("not on a Sunday"), "the last sound set stays in use");
    }

    std::fs::remove_file(policies.join("mine.rego")).unwrap();
    std::fs::remove_file(policies.join("mine_test.rego")).unwrap();
    until("it is taken away", WITHIN, || async { (!judged(&server).await.contains("not on a Sunday")).then_some(()) })
        .await;
    until("healthy again", WITHIN, || async { (health(&server).await["status"] == "healthy").then_some(()) }).await;
    let exported = server.command(&["audit", "export"]);
    let bodies = exported.lines().filter_map(|line| {
        let link: Value = serde_json::from_str(line).ok()?;
        STANDARD.decode(link["body"].as_str()?).ok()
    });
    let rows = bodies.filter(|body| String::from_utf8_lossy(body).contains("library_loaded")).count();
    assert!(rows >= 2, "the journal says what was in use from when on, it has {rows} rows of it");
}
