//! The command line from outside: names, formats, exit codes (0 done, 1 failed, 2 bad input), and errors that say what
//! to do next.
#![expect(clippy::unwrap_used, reason = "a test may panic; clippy does not see that helpers are of tests")]

mod support;

use serde_json::Value;
use std::io::Read as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use support::Server;

/// Longest that a command may take; all of them end by themselves long before.
const ENDS_WITHIN: Duration = Duration::from_secs(60);

/// What a command did.
struct Done {
    code: i32,
    out: String,
    err: String,
}

impl Done {
    /// Asserts the exit code and that standard error has each of `words`.
    #[track_caller]
    fn fails(&self, code: i32, words: &[&str]) {
        assert_eq!(self.code, code, "stdout: {}\nstderr: {}", self.out, self.err);
        for word in words {
            assert!(self.err.contains(word), "`{word}` is not in: {}", self.err);
        }
    }

    /// Asserts success and gives standard output.
    #[track_caller]
    fn well(self) -> String {
        assert_eq!(self.code, 0, "stdout: {}\nstderr: {}", self.out, self.err);
        self.out
    }

    /// Asserts success and gives standard output as JSON.
    #[track_caller]
    fn json(self) -> Value {
        let out = self.well();
        serde_json::from_str(&out).unwrap_or_else(|e| panic!("{e}: {out}"))
    }
}

/// A command that knows nothing of whoever runs the tests.
fn command(folder: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_nightshift"));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("NIGHTSHIFT")) {
        command.env_remove(name);
    }
    command.args(args).current_dir(folder).env("HOME", folder).env_remove("XDG_STATE_HOME");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Runs one to its end.
fn nightshift(folder: &Path, args: &[&str]) -> Done {
    let mut child = command(folder, args).spawn().unwrap();
    let (mut out, mut err) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
    let read = std::thread::spawn(move || {
        let mut text = String::new();
        err.read_to_string(&mut text).unwrap();
        text
    });
    let reads = std::thread::spawn(move || {
        let mut text = String::new();
        out.read_to_string(&mut text).unwrap();
        text
    });
    let deadline = Instant::now() + ENDS_WITHIN;
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if Instant::now() > deadline {
            child.kill().unwrap();
            panic!("nightshift {args:?} does not end; stderr: {}", read.join().unwrap());
        }
        std::thread::sleep(Duration::from_millis(10));
    };
    Done { code: status.code().unwrap_or(-1), out: reads.join().unwrap(), err: read.join().unwrap() }
}

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

fn write(folder: &tempfile::TempDir, name: &str, text: &str) {
    std::fs::write(folder.path().join(name), text).unwrap();
}

const TEN_MISTAKES: &str = r#"tenat = "acme"
default_sources = "yes"

[api]
listen = "localhost"

[detect]
snapshot_every_secs = 0
rules = ["nowhere.yaml"]

[bus]
type = "rabbitmq"

[sources.web]
type = "log_file"
include = ["/var/log/nginx/*.log"]

[sources.disk]
type = "exec"

[metrics]
listen = "127.0.0.1:4317"

[topology]
file = "nowhere.yaml"
"#;

#[test]
fn check_tells_ten_mistakes_at_once() {
    let here = folder();
    write(&here, "nightshift.toml", TEN_MISTAKES);
    let done = nightshift(here.path(), &["check", "-c", "nightshift.toml"]);
    assert_eq!((done.code, done.out.as_str()), (2, ""));
    let want = [
        "nightshift.toml: 10 problems",
        "  line 1: tenat: unknown key; did you mean `tenant`?",
        "  line 2: default_sources: \"yes\" is text, not true or false; write true",
        "  line 5: api.listen: \"localhost\" is not a listen address: the port is missing; \
         write ADDRESS:PORT such as \"127.0.0.1:8080\"; port 0 picks a free one",
        "  line 8: detect.snapshot_every_secs: 0 is not within 1 to 3600; write 1 to 3600",
        "  line 9: detect.rules: read the rules in nowhere.yaml: No such file or directory (os error 2); \
         a relative path is taken from the folder of the configuration",
        "  line 12: bus.type: \"rabbitmq\" is not `embedded`, `kafka` or `memory`; write one of these",
        "  line 15: sources.web.type: \"log_file\" is not `host`, `exec`, `log_files`, `journald`, `syslog`, \
         `prometheus_scrape`, `prometheus_query` or `kubernetes`; did you mean `log_files`?",
        "  line 18: sources.disk: run a collector: name the program in `command`; \
         `nightshift config reference` has every key of each type of source",
        "  line 22: metrics.listen: 127.0.0.1:4317 is taken by otlp.grpc_listen; \
         give each listener a port of its own; port 0 picks a free one",
        "  line 25: topology.file: nowhere.yaml cannot be read: No such file or directory (os error 2); \
         a relative path is taken from the folder of the configuration",
        "",
    ];
    assert_eq!(done.err.split('\n').collect::<Vec<_>>(), want);
}

#[test]
fn check_tells_them_as_json_with_line_reason_and_hint() {
    let here = folder();
    write(&here, "nightshift.toml", TEN_MISTAKES);
    let done = nightshift(here.path(), &["check", "-c", "nightshift.toml", "--json"]);
    assert_eq!(done.code, 2);
    let report: Value = serde_json::from_str(&done.out).unwrap();
    let problems = report["data"]["problems"].as_array().unwrap();
    assert_eq!((problems.len(), &report["data"]["errors"]), (10, &Value::from(10)));
    for p in problems {
        assert!(p["line"].as_u64().is_some_and(|n| n >= 1), "{p}");
        for key in ["file", "path", "message", "hint"] {
            assert!(p[key].as_str().is_some_and(|text| !text.is_empty()), "{key} of {p}");
        }
    }
}

#[test]
fn check_names_file_and_line_of_mistakes_in_other_files() {
    let here = folder();
    write(&here, "nightshift.toml", "[topology]\nfile = \"t.yaml\"\n[detect]\nrules = [\"r.yaml\"]\n");
    write(&here, "t.yaml", "services:\n  - name: web\n    ownr: shop\n    depends_on: [wbe]\n");
    write(&here, "r.yaml", "rules:\n  - name: x\n    when: \"lst(up) < 1\"\n    severity: awful\n");
    let done = nightshift(here.path(), &["check", "-c", "nightshift.toml"]);
    let want = [
        "r.yaml: 2 problems",
        "line 3: `when`: there is no function `lst`; did you mean `last`?",
        "line 4: `awful` is not a severity",
        "t.yaml: 2 problems",
        "line 3: unknown key `ownr` of a service; did you mean `owner`?",
        "line 4: `wbe` is no service of this file; did you mean `web`?",
    ];
    done.fails(2, &want);
}

#[test]
fn check_runs_the_tests_of_rules() {
    let here = folder();
    let rules = |value: u32| {
        format!(
            "rules:\n  - name: queue_long\n    when: last(queue_depth) > 100\n    severity: high\n    \
             fault: kafka_consumer_lag\ntests:\n  - name: a long queue\n    rule: queue_long\n    \
             series:\n      - {{ series: 'queue_depth{{service=\"web\"}}', values: {value}x5 }}\n    \
             expect:\n      - {{ at: 4m, firing: true }}\n"
        )
    };
    write(&here, "nightshift.toml", "[detect]\nshipped_rules = false\nrules = [\"r.yaml\"]\n");
    for (value, code) in [(200, 0), (1, 2)] {
        write(&here, "r.yaml", &rules(value));
        let done = nightshift(here.path(), &["check", "-c", "nightshift.toml"]);
        assert_eq!(done.code, code, "{}{}", done.out, done.err);
        if code == 0 {
            assert!(done.out.contains("1 rules, 1 of their tests passed"), "{}", done.out);
        } else {
            assert!(done.err.contains("test `a long queue`"), "{}", done.err);
        }
    }
}

#[test]
fn check_is_content_with_what_is_right() {
    let here = folder();
    for text in ["", "default_sources = false\n[api]\nlisten = \"127.0.0.1:0\"\n[sources.host]\ntype = \"host\"\n"] {
        write(&here, "nightshift.toml", text);
        let out = nightshift(here.path(), &["check", "-c", "nightshift.toml"]).well();
        assert!(out.contains("nightshift.toml: fine."), "{out}");
    }
    nightshift(here.path(), &["check", "-c", "gone.toml"])
        .fails(2, &["no configuration at gone.toml", "nightshift init"]);
}

#[test]
fn an_override_of_the_environment_is_checked_too() {
    let here = folder();
    write(&here, "nightshift.toml", "");
    let out =
        command(here.path(), &["check", "-c", "nightshift.toml"]).env("NIGHTSHIFT__API__LISTNE", "x").output().unwrap();
    let err = String::from_utf8_lossy(&out.stderr);
    assert_eq!(out.status.code(), Some(2), "{err}");
    assert!(err.contains("NIGHTSHIFT__API__LISTNE") && err.contains("did you mean"), "{err}");
}

#[test]
fn the_reference_names_every_section_and_reads_back() {
    let here = folder();
    let reference = nightshift(here.path(), &["config", "reference"]).well();
    let defaults = serde_json::to_value(nightshift::settings::Settings::default()).unwrap();
    for key in defaults.as_object().unwrap().keys() {
        let named = reference.lines().any(|line| {
            let line = line.trim_start_matches('#');
            line.starts_with(&format!("[{key}")) || line.starts_with(&format!("{key} ="))
        });
        assert!(named, "{key} is not in the reference");
    }
    // As it is printed nothing is set.
    write(&here, "nightshift.toml", &reference);
    nightshift(here.path(), &["check", "-c", "nightshift.toml"]).well();
    // With every setting let in it says what the defaults say; only what has no default must still be named.
    write(&here, "nightshift.toml", &nightshift_config::uncomment(&reference));
    let done = nightshift(here.path(), &["check", "-c", "nightshift.toml", "--json"]);
    let report: Value = serde_json::from_str(&done.out).unwrap();
    for p in report["data"]["problems"].as_array().unwrap() {
        let (path, message) = (p["path"].as_str().unwrap(), p["message"].as_str().unwrap());
        // What an example of a named section lacks is its owner's to say: a program, an address, a secret.
        assert!(path.contains(".NAME") || message.contains("`NAME` is not set"), "{p}");
    }
}

#[test]
fn the_catalogue_has_every_fault_of_the_contract() {
    let here = folder();
    let rows = nightshift(here.path(), &["faults", "--json"]).json();
    let slugs: Vec<&str> = rows["data"].as_array().unwrap().iter().map(|r| r["slug"].as_str().unwrap()).collect();
    let contract = "latency_spike error_rate_spike cpu_saturation memory_leak db_connection_exhaustion \
        kafka_consumer_lag deployment_failure cascade_failure dependency_outage traffic_surge bad_config oom_kill \
        crash_loop image_pull_failure policy_violation cost_spike disk_full certificate_expiry dns_failure \
        node_not_ready quota_exhausted lock_contention retry_storm noisy_neighbour cache_stampede \
        partial_replica_failure misrouted_traffic slo_burn critical_log unknown";
    for slug in contract.split_whitespace() {
        assert!(slugs.contains(&slug), "{slug} is missing");
    }
    for row in rows["data"].as_array().unwrap() {
        assert!(row["title"].as_str().is_some_and(|t| !t.is_empty()), "{row}");
        assert!(row["severity"].is_string() && row["kinds"].is_array() && row["evidence"].is_array(), "{row}");
    }
    let text = nightshift(here.path(), &["faults"]).well();
    assert_eq!(text.lines().count(), slugs.len() + 1, "a header and a line each");
}

#[test]
fn shells_get_completions() {
    let here = folder();
    for shell in ["bash", "zsh", "fish"] {
        let script = nightshift(here.path(), &["completions", shell]).well();
        for command in ["incidents", "backtest", "resolve"] {
            assert!(script.contains(command), "{shell}: {command} is missing");
        }
    }
    nightshift(here.path(), &["completions", "dos"]).fails(2, &["bash"]);
}

#[test]
fn init_writes_what_check_accepts_and_overwrites_nothing() {
    let here = folder();
    let out = nightshift(here.path(), &["init", "estate"]).well();
    for next in ["nightshift check -c", "nightshift run -c", "nightshift incidents --watch"] {
        assert!(out.contains(next), "{out}");
    }
    nightshift(here.path(), &["check", "-c", "estate/nightshift.toml"]).well();
    let file = here.path().join("estate/nightshift.toml");
    std::fs::write(&file, "# mine\n").unwrap();
    nightshift(here.path(), &["init", "estate"]).fails(2, &["estate/nightshift.toml exists", "--force"]);
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "# mine\n");
    nightshift(here.path(), &["init", "estate", "--force"]).well();
    assert_ne!(std::fs::read_to_string(&file).unwrap(), "# mine\n");
    nightshift(here.path(), &["init", "b", "--prometheus", "nowhere"])
        .fails(2, &["--prometheus `nowhere`", "for example"]);
    nightshift(here.path(), &["init", "b", "--prometheus", "http://127.0.0.1:1"]).fails(1, &["ask the Prometheus"]);
    assert!(!here.path().join("b").exists(), "nothing is written when the Prometheus does not answer");
}

#[test]
fn bad_words_are_bad_input() {
    let here = folder();
    let cases: [(&[&str], &str); 12] = [
        (&["show", "a/b"], "INC-0001"),
        (&["ack", "../status"], "INC-0001"),
        (&["resolve", ""], "INC-0001"),
        (&["incidents", "--status", "sleeping"], "one of detecting"),
        (&["incidents", "--severity", "awful"], "one of low"),
        (&["incidents", "--server", "not a url"], "for example http://127.0.0.1:8080"),
        (&["incidents", "--server", "ftp://127.0.0.1"], "http:// nor https://"),
        (&["bus", "read", "nothing.here"], "telemetry.raw"),
        (&["token", "create", "--name", "x", "--role", "boss"], "viewer, operator, approver, admin"),
        (&["token", "create", "--name", "a b\n", "--role", "admin"], "name"),
        (&["run", "--roles", "cook"], "possible values"),
        (&["faults", "--log", "a=b=c"], "for example"),
    ];
    for (args, word) in cases {
        nightshift(here.path(), args).fails(2, &[word]);
    }
    let done = nightshift(here.path(), &["show", "a/b", "--json"]);
    let error: Value = serde_json::from_str(&done.err).unwrap();
    assert_eq!((done.code, &error["exit"]), (2, &Value::from(2)));
}

#[test]
fn a_server_that_is_not_there_is_a_failure_that_says_what_to_do() {
    let here = folder();
    for args in [&["incidents"][..], &["show", "INC-0001"], &["ack", "INC-0001"], &["incidents", "--watch"]] {
        let args: Vec<&str> = args.iter().copied().chain(["--server", "http://127.0.0.1:1"]).collect();
        nightshift(here.path(), &args)
            .fails(1, &["http://127.0.0.1:1", "is `nightshift run` running there?", "--server"]);
    }
}

#[test]
fn tokens_are_made_listed_and_withdrawn_without_a_server() {
    let here = folder();
    let data = ["--data", "d"];
    let with = |args: &[&str]| nightshift(here.path(), &[args, &data].concat());
    let secret = with(&["token", "create", "--name", "ops", "--role", "operator"]).well();
    assert!(secret.trim().len() > 30 && secret.lines().count() == 1, "{secret}");
    with(&["token", "create", "--name", "ops", "--role", "viewer"]).fails(2, &["exists", "revoke"]);
    let rows = with(&["token", "list", "--json"]);
    assert!(!rows.out.contains(secret.trim()), "a list never shows secrets");
    let rows = rows.json();
    assert_eq!((&rows["data"][0]["name"], &rows["data"][0]["role"]), (&Value::from("ops"), &Value::from("operator")));
    with(&["token", "revoke", "--name", "ops"]).well();
    with(&["token", "revoke", "--name", "ops"]).fails(2, &["token list"]);
    assert!(with(&["token", "list", "--json"]).json()["data"][0]["revoked_at"].is_string());
    assert!(with(&["audit", "verify"]).well().contains("Nothing is recorded yet"));
    // What is in the files of the data folder does not give the secret away.
    for entry in std::fs::read_dir(here.path().join("d")).unwrap() {
        let bytes = std::fs::read(entry.unwrap().path()).unwrap();
        assert!(!bytes.windows(secret.trim().len()).any(|w| w == secret.trim().as_bytes()));
    }
}

#[test]
fn no_record_is_a_failure_that_says_what_to_do() {
    let here = folder();
    for args in [["audit", "verify"], ["audit", "export"]] {
        nightshift(here.path(), &[&args[..], &["--data", "d"]].concat())
            .fails(1, &["d/nightshift.db", "nightshift run", "--data"]);
    }
    assert!(!here.path().join("d").exists(), "looking makes nothing");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_are_made_and_withdrawn_beside_a_server() {
    let server = Server::start("default_sources = false\n[auth]\ncache_secs = 0\n").await;
    let secret = server.command(&["token", "create", "--name", "ops", "--role", "operator"]);
    let (status, _) = server.post("/api/v1/test/inject?mode=burst", serde_json::json!({})).await;
    assert_eq!(status, 200);
    let ack = async |token: &str| {
        let url = format!("{}/api/v1/incidents/INC-0001/ack", server.url("api"));
        reqwest::Client::new().post(url).bearer_auth(token).send().await.unwrap().status().as_u16()
    };
    assert_eq!(ack(secret.trim()).await, 200);
    server.command(&["token", "revoke", "--name", "ops"]);
    assert_eq!(ack(secret.trim()).await, 401, "a token that was withdrawn is of no use");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_record_shows_what_was_altered() {
    let mut server = Server::start("default_sources = false\n").await;
    let (status, _) = server.post("/api/v1/test/inject?mode=burst", serde_json::json!({})).await;
    assert_eq!(status, 200);
    assert!(server.command(&["audit", "verify"]).contains("the chain is whole"));
    let here = folder();
    let verify = |name: &str, text: &str| {
        write(&here, name, text);
        nightshift(here.path(), &["audit", "verify", "--file", name])
    };
    let export = server.command(&["audit", "export"]);
    assert!(verify("whole", &export).well().contains("the chain is whole"));
    let lines: Vec<&str> = export.lines().collect();
    assert!(lines.len() > 4, "{export}");
    // One character of one event; one event less; two in another order.
    let mut altered: Vec<String> = lines.iter().map(|l| (*l).to_owned()).collect();
    let at = altered[2].find("\"body\":\"").unwrap() + 60;
    let other = if altered[2].as_bytes()[at] == b'A' { "B" } else { "A" };
    altered[2].replace_range(at..=at, other);
    verify("altered", &altered.join("\n")).fails(1, &["verify altered"]);
    verify("shorter", &lines[..lines.len() - 1].join("\n")).fails(1, &["verify shorter"]);
    let mut swapped = lines.clone();
    swapped.swap(2, 3);
    verify("swapped", &swapped.join("\n")).fails(1, &["verify swapped"]);
    nightshift(here.path(), &["audit", "verify", "--file", "gone"]).fails(1, &["open gone"]);
    // The database itself: what somebody does who may write the file.
    server.stop().await;
    let file = server.data().join("nightshift.db");
    let mut bytes = std::fs::read(&file).unwrap();
    let (was, now) = (b"\"to\":\"correlating\"", b"\"to\":\"correl_ting\"");
    let places: Vec<usize> = bytes.windows(was.len()).enumerate().filter(|(_, w)| w == was).map(|(at, _)| at).collect();
    assert!(!places.is_empty(), "the journal is in the file");
    for at in places {
        bytes[at..at + now.len()].copy_from_slice(now);
    }
    std::fs::write(&file, bytes).unwrap();
    let done = nightshift(server.data(), &["audit", "verify", "--data", "."]);
    done.fails(1, &["the record is not what was written"]);
    assert!(done.out.contains("DAMAGED"), "{}", done.out);
    let done = nightshift(server.data(), &["audit", "verify", "--data", ".", "--json"]);
    assert_eq!(serde_json::from_str::<Value>(&done.out).unwrap()["data"]["ok"], Value::from(false));
}

#[test]
fn listening_beyond_loopback_needs_an_auth_section() {
    let here = folder();
    for key in ["[api]\nlisten", "[otlp]\ngrpc_listen", "[otlp]\nhttp_listen"] {
        write(&here, "nightshift.toml", &format!("{key} = \"0.0.0.0:0\"\n"));
        for args in [&["run", "--data", "d"][..], &["check"]] {
            nightshift(here.path(), &[args, &["-c", "nightshift.toml"]].concat())
                .fails(2, &["line 2: ", "beyond loopback", "[auth]", "nightshift token create"]);
        }
    }
    assert!(!here.path().join("d").exists(), "nothing was started");
}

#[test]
fn roles_need_a_bus_that_processes_can_share() {
    let here = folder();
    nightshift(here.path(), &["run", "--roles", "collect", "--data", "d"]).fails(2, &["kafka", "postgres", "--roles"]);
}

#[test]
fn an_unknown_key_and_a_taken_port_are_named_at_the_start() {
    let here = folder();
    let holder = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = holder.local_addr().unwrap();
    for (section, key) in [("api", "listen"), ("otlp", "grpc_listen"), ("otlp", "http_listen")] {
        let listen = |s: &str, k: &str| if (s, k) == (section, key) { taken.to_string() } else { "127.0.0.1:0".into() };
        let text = format!(
            "tenat = \"acme\"\ndefault_sources = false\n[api]\nlisten = \"{}\"\n[metrics]\nenabled = false\n\
             [otlp]\ngrpc_listen = \"{}\"\nhttp_listen = \"{}\"\n",
            listen("api", "listen"),
            listen("otlp", "grpc_listen"),
            listen("otlp", "http_listen"),
        );
        write(&here, "nightshift.toml", &text);
        // The unknown key is a warning here: a rollback under a newer file is no outage.
        nightshift(here.path(), &["run", "-c", "nightshift.toml", "--data", "d"]).fails(
            1,
            &[
                "line 1: warning: tenat: unknown key; did you mean `tenant`?",
                &taken.to_string(),
                key,
                "Address already in use",
            ],
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_services_do_not_share_a_folder() {
    let server = Server::start("default_sources = false\n").await;
    let data = server.data().display().to_string();
    let here = folder();
    write(&here, "nightshift.toml", "[api]\nlisten = \"127.0.0.1:0\"\n");
    nightshift(here.path(), &["run", "-c", "nightshift.toml", "--data", &data]).fails(1, &["in use", "--data"]);
    // The first one is none the worse for it.
    assert!(server.get("/api/v1/health").await["data"]["status"].is_string());
}

/// Another Prometheus may hold the metrics port: that is a warning, and `/metrics` is on the API's port too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_taken_metrics_port_is_only_a_warning() {
    let here = folder();
    let holder = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let text = format!(
        "default_sources = false\n[api]\nlisten = \"127.0.0.1:0\"\n[metrics]\nlisten = \"{}\"\n\
         [otlp]\ngrpc_listen = \"127.0.0.1:0\"\nhttp_listen = \"127.0.0.1:0\"\n",
        holder.local_addr().unwrap()
    );
    write(&here, "nightshift.toml", &text);
    let log = std::fs::File::create(here.path().join("log")).unwrap();
    let mut child = command(here.path(), &["run", "-c", "nightshift.toml", "--data", "d"]).stderr(log).spawn().unwrap();
    let about = support::until("it does not come up", ENDS_WITHIN, || async {
        let text = std::fs::read_to_string(here.path().join("d/server.json")).ok()?;
        serde_json::from_str::<Value>(&text).ok()
    })
    .await;
    drop(rustls::crypto::ring::default_provider().install_default());
    let url = format!("http://{}/metrics", about["listeners"]["api"].as_str().unwrap());
    let metrics = reqwest::get(url).await.unwrap().text().await.unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(metrics.contains("nightshift_samples_scored_total"), "{metrics}");
    assert!(about["listeners"]["metrics"].is_null(), "{about}");
    let log = std::fs::read_to_string(here.path().join("log")).unwrap();
    assert!(log.contains("WARN") && log.contains("metrics.listen"), "{log}");
    assert!(!log.contains('\u{1b}'), "a file gets no colours: {log}");
}
