//! Secrets by reference, from the file to the rooms' settings, and never out again.

#![expect(clippy::unwrap_used, reason = "a failure of the set-up fails the test")]

use nightshift::settings::Settings;
use nightshift_bus::BusConfig;
use nightshift_collect::client::Credentials;
use nightshift_collect::supervise::SourceConfig;
use nightshift_config::{Level, SecretString};
use nightshift_store::StoreConfig;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::time::Duration;

/// Every secret of these tests has it in it.
const MARK: &str = "hunter2";

/// A configuration with a secret wherever there can be one; all are in files of `folder`.
fn every_secret(folder: &Path) -> String {
    let put = |name: &str, secret: &str| {
        let path = folder.join(name);
        std::fs::write(&path, secret).unwrap();
        format!("{{ file = {:?} }}", path.to_str().unwrap())
    };
    let sasl = put("sasl", "hunter2-of-kafka\n");
    let url = put("url", "postgres://nightshift:hunter2-of-postgres@db.example/nightshift\n");
    let bearer = put("bearer", "hunter2-of-web\n");
    let basic = put("basic", "hunter2-of-prometheus\n");
    format!(
        r#"
[bus]
type = "kafka"
[bus.sasl]
mechanism = "SCRAM-SHA-512"
username = "nightshift"
password = {sasl}

[store]
type = "postgres"
url = {url}

[sources.web]
type = "prometheus_scrape"
credentials = {{ type = "bearer", token = {bearer} }}

[sources.questions]
type = "prometheus_query"
[sources.questions.credentials]
type = "basic"
user = "nightshift"
password = {basic}
"#
    )
}

fn told(secret: &SecretString) -> &str {
    secret.expose()
}

/// SEC-2.
#[test]
fn every_room_is_given_its_secret_and_none_shows_it() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("nightshift.toml");
    std::fs::write(&file, every_secret(folder.path())).unwrap();
    let loaded = Settings::read(Some(&file), Level::Error).unwrap();
    assert!(loaded.problems.is_empty(), "{}", loaded.problems);
    let settings = &loaded.config;

    let BusConfig::Kafka(kafka) = &settings.bus else { panic!("{:?}", settings.bus) };
    assert_eq!(kafka.sasl.as_ref().map(|s| told(&s.password)), Some("hunter2-of-kafka"));
    let StoreConfig::Postgres(store) = &settings.store else { panic!("{:?}", settings.store) };
    assert_eq!(told(&store.url), "postgres://nightshift:hunter2-of-postgres@db.example/nightshift");
    let SourceConfig::PrometheusScrape(web) = &settings.sources["web"] else { panic!("{:?}", settings.sources) };
    assert!(matches!(&web.credentials, Credentials::Bearer { token } if told(token) == "hunter2-of-web"));
    let SourceConfig::PrometheusQuery(asks) = &settings.sources["questions"] else { panic!("{:?}", settings.sources) };
    assert!(
        matches!(&asks.credentials, Credentials::Basic { password, .. } if told(password) == "hunter2-of-prometheus")
    );

    let json = serde_json::to_string(settings).unwrap();
    assert_eq!(json.matches("[secret]").count(), 4, "{json}");
    for shown in [json, format!("{settings:?}"), format!("{settings:#?}"), format!("{:?}", loaded.problems)] {
        assert!(!shown.contains(MARK), "{shown}");
    }
}

/// A command that knows nothing of whoever runs the tests.
fn command(folder: &Path, args: &[&str], env: &[(&str, &str)]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_nightshift"));
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("NIGHTSHIFT")) {
        command.env_remove(name);
    }
    command.args(args).current_dir(folder).env("HOME", folder).envs(env.iter().copied());
    command
}

fn nightshift(folder: &Path, args: &[&str], env: &[(&str, &str)]) -> Output {
    command(folder, args, env).output().unwrap()
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[test]
fn check_follows_references_and_repeats_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let write = |text: &str| std::fs::write(folder.path().join("nightshift.toml"), text).unwrap();
    let check = ["check", "-c", "nightshift.toml"];
    write(&every_secret(folder.path()));
    let fine = nightshift(folder.path(), &check, &[]);
    assert!(fine.status.success() && !text(&fine).contains(MARK), "{}", text(&fine));

    let source = "[sources.web]\ntype = \"prometheus_scrape\"\n[sources.web.credentials]\ntype = \"bearer\"\n";
    for (token, want) in [
        ("{ env = \"WEB_TOKEN\" }", ""),
        (
            "{ env = \"WEB_TOKEN_2\" }",
            "line 5: sources.web.credentials.token: environment variable `WEB_TOKEN_2` is not",
        ),
        ("{ vault = \"kv/web#token\" }", "line 5: sources.web.credentials.token: vault `kv/web#token` cannot be asked"),
        (
            "\"hunter2\"",
            "line 5: sources.web.credentials.token: a secret is never written into the file; refer to it: {",
        ),
        ("{ env = \"TWO_LINES\" }", "use the bearer token: it has blanks"),
    ] {
        write(&format!("{source}token = {token}\n"));
        let env = [("WEB_TOKEN", "hunter2-of-web"), ("TWO_LINES", "hunter2\nX-Admin: hunter2")];
        for args in [&check[..], &["check", "-c", "nightshift.toml", "--json"]] {
            let done = nightshift(folder.path(), args, &env);
            let said = text(&done);
            assert_eq!(done.status.success(), want.is_empty(), "{token}: {said}");
            assert!(!said.contains(MARK), "{said}");
            if args.len() == 3 {
                assert!(said.contains(want), "{token}: want {want}, got {said}");
            }
        }
    }
    write("[store]\ntype = \"postgres\"\nurl = \"postgres://u:hunter2@db.example/n\"\n");
    let refused = text(&nightshift(folder.path(), &check, &[]));
    assert!(refused.contains("line 3: store.url: holds a password") && !refused.contains(MARK), "{refused}");
    write("[store]\ntype = \"postgres\"\nurl = \"postgres://u@db.example/n\"\n");
    let fine = nightshift(folder.path(), &check, &[]);
    assert!(fine.status.success(), "{}", text(&fine));
}

#[test]
fn the_reference_shows_where_secrets_go_and_how() {
    let folder = tempfile::tempdir().unwrap();
    let reference = text(&nightshift(folder.path(), &["config", "reference"], &[]));
    for want in [
        "{ env = \"NAME\" }, { file = \"/path\" } or { vault = \"path#key\" }",
        "- sasl.password: Password. A secret by reference; must be there.",
        "A secret by reference, or a URL without a password; must be there.",
        "- token: The token. A secret by reference; must be there.",
        "- password: Password. A secret by reference; must be there.",
    ] {
        let words = |text: &str| text.split_whitespace().filter(|w| *w != "#").collect::<Vec<_>>().join(" ");
        assert!(words(&reference).contains(want), "`{want}` is not in the reference");
    }
}

/// A target that hands over the `authorization` of every request and answers with one metric.
fn target() -> (String, mpsc::Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (tell, told) = mpsc::channel();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let lines = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
            let head: Vec<String> = lines.take_while(|line| !line.is_empty()).collect();
            let said = head.iter().find_map(|line| line.strip_prefix("authorization: ")).unwrap_or("").to_owned();
            let answer =
                "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 4\r\nconnection: close\r\n\r\na 1\n";
            drop(stream.write_all(answer.as_bytes()));
            if tell.send(said).is_err() {
                return;
            }
        }
    });
    (address, told)
}

/// Ends with the test, however that ends.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// The service sends the token where it belongs, and even the most talkative log has nothing of it.
#[test]
fn a_target_is_sent_the_token_and_no_log_has_it() {
    let folder = tempfile::tempdir().unwrap();
    let (address, told) = target();
    let config = format!(
        r#"
default_sources = false
[sources.web]
type = "prometheus_scrape"
interval_secs = 1
static_targets = [{{ targets = ["{address}"] }}]
credentials = {{ type = "bearer", token = {{ env = "WEB_TOKEN" }} }}
"#
    );
    std::fs::write(folder.path().join("nightshift.toml"), config).unwrap();
    let log = folder.path().join("test.log");
    let env = [
        ("WEB_TOKEN", "hunter2-of-web"),
        ("NIGHTSHIFT_LOG", "trace"),
        ("NIGHTSHIFT__API__LISTEN", "127.0.0.1:0"),
        ("NIGHTSHIFT__METRICS__LISTEN", "127.0.0.1:0"),
        ("NIGHTSHIFT__OTLP__GRPC_LISTEN", "127.0.0.1:0"),
        ("NIGHTSHIFT__OTLP__HTTP_LISTEN", "127.0.0.1:0"),
    ];
    let mut run = command(folder.path(), &["run", "-c", "nightshift.toml", "--data", "data"], &env);
    run.stdout(Stdio::null()).stderr(std::fs::File::create(&log).unwrap());
    let running = Running(run.spawn().unwrap());
    let shown = || std::fs::read_to_string(&log).unwrap();
    for _ in 0..2 {
        let said = told.recv_timeout(Duration::from_secs(60)).unwrap_or_else(|e| panic!("{e}; its log:\n{}", shown()));
        assert_eq!(said, "Bearer hunter2-of-web");
    }
    drop(running);
    assert!(shown().contains("TRACE"), "the log is not at its most talkative: {}", shown());
    assert!(!shown().contains(MARK), "{}", shown().lines().filter(|l| l.contains(MARK)).collect::<String>());
    for file in std::fs::read_dir(folder.path().join("data")).unwrap().filter_map(Result::ok) {
        if file.path().is_file() {
            let bytes = std::fs::read(file.path()).unwrap();
            assert!(!bytes.windows(MARK.len()).any(|w| w == MARK.as_bytes()), "{}", file.path().display());
        }
    }
}
