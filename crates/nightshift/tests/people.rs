//! What people decide, on the command line: bad words, no server, the kill switch of a folder, playbooks and policies.
#![expect(clippy::unwrap_used, reason = "a test may panic; clippy does not see that helpers are of tests")]

use serde_json::Value;
use std::path::Path;
use std::process::{Command, Stdio};

/// Exit code, standard output, standard error of a command that knows nothing of whoever runs the tests.
fn nightshift(folder: &Path, args: &[&str]) -> (i32, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_nightshift"));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("NIGHTSHIFT")) {
        command.env_remove(name);
    }
    command.args(args).current_dir(folder).env("HOME", folder).env_remove("XDG_STATE_HOME").stdin(Stdio::null());
    let out = command.output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (out.status.code().unwrap_or(-1), text(&out.stdout), text(&out.stderr))
}

#[track_caller]
fn fails(folder: &Path, args: &[&str], code: i32, words: &[&str]) {
    let (got, out, err) = nightshift(folder, args);
    assert_eq!(got, code, "{args:?}: {out}{err}");
    for word in words {
        assert!(err.contains(word), "{args:?}: `{word}` is not in: {err}");
    }
}

#[track_caller]
fn well(folder: &Path, args: &[&str]) -> String {
    let (code, out, err) = nightshift(folder, args);
    assert_eq!(code, 0, "{args:?}: {out}{err}");
    out
}

const NOBODY: [&str; 2] = ["--server", "http://127.0.0.1:1"];

#[test]
fn bad_words_are_bad_input() {
    let here = tempfile::tempdir().unwrap();
    let cases: [(&[&str], &str); 17] = [
        (&["approve", "a/b", "--plan", "x"], "INC-0001"),
        (&["approve", "INC-0001"], "nightshift approve INC-0001 --plan HASH"),
        (&["reject", "../x"], "INC-0001"),
        (&["override", "INC-0001", "--to", "execute"], "--why"),
        (&["override", "INC-0001", "--to", "execute", "-m", " "], "an override needs a reason"),
        (&["override", "INC-0001", "--to", "ask", "-m", "x"], "possible values: execute, deny"),
        (&["override", "INC-0001", "--to", "execute", "-m", "x"], "nightshift override INC-0001 --plan HASH"),
        (&["pause"], "<ID>"),
        (&["take-over", ""], "INC-0001"),
        (&["feedback", "INC-0001"], "--false-positive"),
        (&["feedback", "INC-0001", "--false-positive", "--true-cause", "x"], "cannot be used with"),
        (&["feedback", "INC-0001", "--true-cause", "checkout"], "--fault"),
        (&["feedback", "INC-0001", "--true-cause", "checkout", "--fault", "gremlins"], "nightshift faults"),
        (&["replay", "INC-0001", "--with-policy", "gone.rego"], "--with-policy gone.rego"),
        (&["kill-switch"], "<TURN>"),
        (&["kill-switch", "perhaps"], "possible values: on, off, status"),
        (&["playbooks", "-c", "gone.toml"], "no configuration at gone.toml"),
    ];
    for (args, word) in cases {
        fails(here.path(), args, 2, &[word]);
    }
}

#[test]
fn a_server_that_is_not_there_is_a_failure_that_says_what_to_do() {
    let here = tempfile::tempdir().unwrap();
    let hash = "0".repeat(64);
    for args in [
        &["approve", "INC-0001", "--plan", &hash][..],
        &["reject", "INC-0001"],
        &["override", "INC-0001", "--to", "deny", "-m", "x"],
        &["pause", "INC-0001"],
        &["resume", "INC-0001"],
        &["take-over", "INC-0001"],
        &["feedback", "INC-0001", "--false-positive"],
        &["postmortem", "INC-0001"],
        &["replay", "INC-0001"],
    ] {
        fails(here.path(), &[args, &NOBODY].concat(), 1, &["is `nightshift run` running there?", "--server"]);
    }
}

#[test]
fn the_kill_switch_works_without_a_server() {
    let here = tempfile::tempdir().unwrap();
    let file = here.path().join("d/kill-switch.json");
    fn switch<'a>(args: &[&'a str]) -> Vec<&'a str> {
        [&["kill-switch"], args, &["--data", "d"]].concat()
    }
    assert!(well(here.path(), &switch(&["status"])).contains("off; it was never turned"));
    assert!(!here.path().join("d").exists(), "looking makes nothing");
    // Stopping needs nothing that could be missing.
    let (code, out, err) = nightshift(here.path(), &switch(&["on", "-m", "a drill"]));
    assert_eq!(code, 0, "{err}");
    assert!(
        out.contains("ON: nothing is carried out") && out.contains("a drill") && err.contains("data folder"),
        "{out}{err}"
    );
    let kept: nightshift_model::KillSwitch = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    assert_eq!((kept.on, kept.by.as_str(), kept.why.as_str()), (true, "data folder", "a drill"));
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    }
    let state: Value = serde_json::from_str(&well(here.path(), &switch(&["status", "--json"]))).unwrap();
    assert_eq!((&state["data"]["on"], &state["data"]["why"]), (&Value::from(true), &Value::from("a drill")));
    // Allowing execution again is for whoever has the right to.
    fails(here.path(), &switch(&["off"]), 1, &["admin's token", "--token-file"]);
    for (name, role) in [("olga", "operator"), ("adam", "admin")] {
        let token = well(here.path(), &["token", "create", "--name", name, "--role", role, "--data", "d"]);
        std::fs::write(here.path().join(name), token).unwrap();
    }
    std::fs::write(here.path().join("nobody"), "ns_of-nobody").unwrap();
    fails(here.path(), &switch(&["off", "--token-file", "olga"]), 1, &["token `olga` has the role operator"]);
    fails(here.path(), &switch(&["on", "--token-file", "olga"]), 1, &["needs admin"]);
    fails(here.path(), &switch(&["off", "--token-file", "nobody"]), 1, &["not known or was withdrawn"]);
    assert!(well(here.path(), &switch(&["off", "--token-file", "adam"])).contains("off: plans run"));
    let kept: nightshift_model::KillSwitch = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    assert_eq!((kept.on, kept.by.as_str()), (false, "adam"));
    // What cannot be read counts as on.
    std::fs::write(&file, "{").unwrap();
    assert!(well(here.path(), &switch(&["status"])).contains("ON: nothing is carried out"));
}

#[test]
fn a_server_that_was_named_is_meant_and_no_folder_stands_in_for_it() {
    let here = tempfile::tempdir().unwrap();
    let args = [&["kill-switch", "on"], &NOBODY[..]].concat();
    fails(here.path(), &args, 1, &["is `nightshift run` running there?"]);
    assert!(!here.path().join(".local/state/nightshift/kill-switch.json").exists());
    // With a folder named too, the folder does it when the server does not answer.
    let both = [&args[..], &["--data", "d"]].concat();
    assert!(well(here.path(), &both).contains("d/kill-switch.json"));
}

#[test]
fn playbooks_are_listed_with_what_they_heal() {
    let here = tempfile::tempdir().unwrap();
    let rows: Value = serde_json::from_str(&well(here.path(), &["playbooks", "--json"])).unwrap();
    let rows = rows["data"].as_array().unwrap();
    for action in nightshift_model::ActionType::ALL {
        let used = rows.iter().any(|r| r["actions"].as_array().unwrap().iter().any(|a| a == action.as_str()));
        // Left to playbooks of a user's own: none that ships spends less by itself.
        assert!(used || action.as_str() == "cost_scale_down", "no playbook does {action}");
    }
    let text = well(here.path(), &["playbooks"]);
    assert_eq!(text.lines().count(), rows.len() + 1, "a header and a line each");
    assert!(rows.iter().all(|r| r["shipped"] == true), "{rows:?}");
    std::fs::write(here.path().join("n.toml"), "[plan]\nfolder = \"gone\"\n").unwrap();
    fails(here.path(), &["playbooks", "-c", "n.toml"], 2, &["plan.folder", "gone"]);
}

#[test]
fn check_reads_playbooks_and_policies_and_runs_their_tests() {
    let here = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = here.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    let check = |json: bool| {
        let args: &[&str] = if json { &["check", "-c", "n.toml", "--json"] } else { &["check", "-c", "n.toml"] };
        nightshift(here.path(), args)
    };
    write("n.toml", "");
    let (code, out, err) = check(true);
    assert_eq!(code, 0, "{out}{err}");
    let report: Value = serde_json::from_str(&out).unwrap();
    for key in ["playbooks", "policies", "policy_tests_passed"] {
        assert!(report["data"][key].as_u64().is_some_and(|n| n > 5), "{key} of {report}");
    }
    assert_eq!(report["data"]["policy_tests_failed"], serde_json::json!([]));

    write("n.toml", "[plan]\nfolder = \"books\"\n[guard.policies]\nfolder = \"rego\"\n");
    write("books/mine.yaml", "name: mine\ntitel: x\n");
    write("rego/mine.rego", "package mine\n\ndeny contains msg if {\n");
    let (code, _, err) = check(false);
    assert_eq!(code, 2, "{err}");
    assert!(err.contains("books/mine.yaml") && err.contains("titel") && err.contains("rego/mine.rego"), "{err}");

    write("books/mine.yaml", "");
    std::fs::remove_file(here.path().join("books/mine.yaml")).unwrap();
    write(
        "rego/mine.rego",
        "package mine\n\nimport rego.v1\n\ndeny contains \"never\" if input.plan.risk == \"low\"\n",
    );
    write(
        "rego/mine_test.rego",
        "package mine_test\n\nimport rego.v1\n\nimport data.mine\n\ntest_it if count(mine.deny) == 7\n",
    );
    let (code, out, err) = check(false);
    assert_eq!(code, 2, "{out}{err}");
    assert!(err.contains("rego/mine_test.rego: test `") && err.contains("test_it"), "{err}");
    write(
        "rego/mine_test.rego",
        "package mine_test\n\nimport rego.v1\n\nimport data.mine\n\ntest_it if count(mine.deny) == 0 with input as {\"plan\": {\"risk\": \"high\"}}\n",
    );
    let (code, out, err) = check(false);
    assert_eq!(code, 0, "{out}{err}");
    assert!(out.contains("playbooks") && out.contains("policies"), "{out}");

    for (text, words) in [
        ("[plan]\nfolder = \"gone\"\n", &["line 2: plan.folder", "gone"][..]),
        ("[plan]\ndisabled = [\"nothing\"]\n", &["plan.disabled", "`nothing` is no playbook"]),
        ("[guard.policies]\ndisabled = [\"nothing\"]\n", &["`nothing` is no policy"]),
        ("[guard]\nconfidence_min = 0.2\nconfidence_ask_min = 0.9\n", &["guard.confidence_ask_min"]),
        ("[workflow]\nmonitor_secs = 200\nmonitor_secs_max = 100\n", &["workflow.monitor_secs"]),
        ("[tell.notifiers.pager]\ntype = \"webhook\"\nurl = \"nowhere\"\n", &["tell.notifiers.pager"]),
    ] {
        write("n.toml", text);
        let (code, out, err) = check(false);
        assert_eq!(code, 2, "{text}: {out}{err}");
        for word in words {
            assert!(err.contains(word), "{text}: `{word}` is not in {err}");
        }
    }
}
