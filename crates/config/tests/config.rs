//! The check, the loader and the reference, against a configuration such as the rooms write theirs.

use nightshift_config::{
    FILE_BYTES_MAX, Level, Problems, SecretSource, SecretString, check, fuzz_config_toml, load, reference, schema_of,
    uncomment, unknown_keywords,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Test configuration.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
struct Config {
    /// Name of this installation.
    instance: String,
    /// The HTTP API.
    api: Api,
    /// Detection.
    detect: Detect,
    /// Where things are kept.
    store: Store,
    /// Who may call; without it nothing may listen beyond loopback.
    auth: Option<Auth>,
    /// What to observe.
    sources: Vec<Source>,
    /// Per service.
    services: BTreeMap<String, Service>,
}

/// The HTTP API.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
struct Api {
    /// Where it listens.
    listen: String,
    /// Largest request body, bytes.
    #[schemars(range(min = 1024, max = 1_073_741_824))]
    body_bytes_max: u64,
    /// Host names besides loopback's that it answers to.
    hosts: Vec<String>,
}

impl Default for Api {
    fn default() -> Self {
        Self { listen: "127.0.0.1:8080".into(), body_bytes_max: 16 << 20, hosts: vec![] }
    }
}

/// Detection.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
struct Detect {
    /// How easily something is an anomaly.
    sensitivity: Sensitivity,
    /// Points before the first score.
    #[schemars(range(min = 30, max = 10_000))]
    warmup_points: u32,
    /// Quantile of the band.
    #[schemars(range(min = 0.5, max = 0.9999))]
    band: f64,
    /// Whether the forecast runs.
    forecast: bool,
    /// Workers; as many as cores when not set.
    #[schemars(range(min = 1, max = 64))]
    workers: Option<u16>,
}

impl Default for Detect {
    fn default() -> Self {
        Self { sensitivity: Sensitivity::Medium, warmup_points: 30, band: 0.99, forecast: true, workers: None }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Sensitivity {
    /// Only what is plain.
    Low,
    /// The usual.
    Medium,
    /// Whatever is odd.
    High,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Store {
    /// One file.
    Sqlite(Sqlite),
    /// A server.
    Postgres(Postgres),
    /// Nothing is kept.
    Memory,
}

impl Default for Store {
    fn default() -> Self {
        Self::Sqlite(Sqlite::default())
    }
}

/// One file.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
struct Sqlite {
    /// File name; in the data folder when empty.
    path: String,
}

/// A server.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
struct Postgres {
    /// Its URL.
    #[schemars(extend("format" = "uri"))]
    url: SecretString,
    /// Its password.
    #[serde(default)]
    password: Option<SecretString>,
}

/// Who may call.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
struct Auth {
    /// Seconds that a token's check is remembered.
    #[schemars(range(max = 300))]
    cache_secs: u32,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Source {
    /// This machine.
    Host {
        /// Unique name.
        name: String,
        /// Seconds between readings.
        #[serde(default = "ten")]
        #[schemars(range(min = 1, max = 3600))]
        interval_secs: u32,
    },
    /// Scrapes targets.
    Scrape(Scrape),
}

const fn ten() -> u32 {
    10
}

/// Scrapes targets.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
struct Scrape {
    /// Unique name.
    name: String,
    /// Where to scrape.
    #[schemars(length(min = 1))]
    targets: Vec<String>,
    /// Bearer token.
    #[serde(default)]
    token: Option<SecretString>,
    /// TLS.
    #[serde(default)]
    tls: Tls,
}

/// TLS.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
struct Tls {
    /// Certificate authority, PEM file.
    ca_file: String,
}

/// One service.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
struct Service {
    /// Team.
    #[schemars(regex(pattern = r"^[a-z0-9-]+$"))]
    owner: String,
}

/// Two secrets, and nothing else.
struct Known;

impl SecretSource for Known {
    fn variable(&self, name: &str) -> Option<String> {
        matches!(name, "PGPASSWORD" | "NAME").then(|| "hunter2".to_owned())
    }

    fn file(&self, path: &std::path::Path, _: u64) -> std::io::Result<Vec<u8>> {
        let there = path == std::path::Path::new("/run/url");
        there.then(|| b"pg://u:hunter3@db/n\n".to_vec()).ok_or(std::io::ErrorKind::NotFound.into())
    }
}

fn checked(text: &str) -> Problems {
    check(text, "nightshift.toml", &schema_of::<Config>())
}

fn no_env() -> Vec<(String, String)> {
    Vec::new()
}

#[track_caller]
fn lines(problems: &Problems) -> Vec<String> {
    problems.sorted().iter().map(|p| p.to_string()).collect()
}

const TEN_MISTAKES: &str = r#"
[api]
litsen = "127.0.0.1:8080"
body_bytes_max = "16MiB"

[detect]
sensitivity = "hgih"
warmup_points = 5
forecast = yes

[store]
type = "postgres"
url = "postgres://db/nightshift"
password = "hunter2"

[[sources]]
type = "host"
name = "this"
interval_secs = 0

[[sources]]
type = "scrap"
name = "web"
targets = ["127.0.0.1:9100"]

[[sources]]
type = "scrape"
name = "this"
targets = "127.0.0.1:9100"

[services.checkout]
"#;

#[test]
fn ten_typical_mistakes_are_told_at_once() {
    let want = [
        "line 3: api.litsen: unknown key; did you mean `listen`?",
        "line 4: api.body_bytes_max: \"16MiB\" is text, not a whole number; write it in bytes: 16777216",
        "line 7: detect.sensitivity: \"hgih\" is not `low`, `medium` or `high`; did you mean `high`?",
        "line 8: detect.warmup_points: 5 is not within 30 to 10000; write 30 to 10000",
        "line 9: cannot be read as TOML: ",
        "line 14: store.password: a secret is never written into the file; refer to it: { env = \"NAME\" }",
        "line 19: sources[0].interval_secs: 0 is not within 1 to 3600",
        "line 22: sources[1].type: \"scrap\" is not `host` or `scrape`; did you mean `scrape`?",
        "line 28: sources[2].name: \"this\" is taken by the one of line 18; give each its own",
        "line 29: sources[2].targets: \"127.0.0.1:9100\" is text, not a list; write [\"127.0.0.1:9100\"]",
        "line 31: services.checkout: `owner` is missing; add owner = ",
    ];
    let problems = checked(TEN_MISTAKES);
    let got = lines(&problems);
    assert_eq!(got.len(), want.len(), "{problems}");
    for (got, want) in got.iter().zip(want) {
        assert!(got.starts_with(want), "\n got {got}\nwant {want}");
    }
    assert!(problems.has_errors());
    assert!(problems.to_string().starts_with("nightshift.toml: 11 problems\n  line 3: "));
    assert!(!problems.to_string().contains("hunter2"), "a secret was repeated");
    for problem in problems.sorted() {
        assert!(problem.at.is_some() && !problem.message.is_empty() && !problem.hint.is_empty(), "{problem}");
    }
    let json = problems.to_json();
    assert_eq!((&json["errors"], &json["problems"][0]["line"]), (&11.into(), &3.into()));
    assert_eq!(json["problems"][0]["path"], "api.litsen");
}

#[test]
fn every_kind_of_mistake_has_its_answer() {
    for (text, want) in [
        ("", ""),
        ("instance = \"a\"\n[detect]\nband = 0.5\nworkers = 64\n[store]\ntype = \"memory\"", ""),
        ("[[sources]]\ntype='host'\nname='a'\n[[sources]]\ntype='host'\nname='b'", ""),
        // Types.
        ("instance = 5", "line 1: instance: 5 is a whole number, not text; put it in quotes: \"5\""),
        ("instance = 2026-01-01", "line 1: instance: 2026-01-01 is a date, not text; put it in quotes"),
        ("[detect]\nforecast = \"on\"", "line 2: detect.forecast: \"on\" is text, not true or false; write true"),
        ("[detect]\nforecast = 0", "line 2: detect.forecast: 0 is a whole number, not true or false; write false"),
        (
            "[detect]\nwarmup_points = 30.5",
            "line 2: detect.warmup_points: 30.5 is a number, not a whole number; write 31",
        ),
        (
            "[detect]\nwarmup_points = \"40\"",
            "line 2: detect.warmup_points: \"40\" is text, not a whole number; write 40 without quotes",
        ),
        ("[detect]\nband = nan", "line 2: detect.band: nan is not a finite number"),
        ("[detect]\nband = 1", "line 2: detect.band: 1 is not within 0.5 to 0.9999"),
        ("[detect]\nwarmup_points = 99999999999999999999", "does not fit into 64 bits"),
        ("[detect]\nworkers = 70000", "line 2: detect.workers: 70000 is not within 1 to 64"),
        ("detect = 1", "line 1: detect: 1 is a whole number, not a table; begin a table: [detect]"),
        ("[[detect]]", "line 1: detect: is a list, not a table; there is one of it: it begins with [detect]"),
        (
            "[sources]\ntype = \"host\"",
            "line 1: sources: is a table, not a list; one of a list begins with [[sources]]",
        ),
        ("[api]\nhosts = [\"a\", 1]", "line 2: api.hosts[1]: 1 is a whole number, not text"),
        // Forms.
        (
            "[api]\nlisten = \"8080\"",
            "line 2: api.listen: \"8080\" is not a listen address: the address is missing; write ADDRESS:PORT",
        ),
        (
            "[store]\ntype = \"postgres\"\nurl = \"db\"",
            "line 3: store.url: is neither a URL nor a reference to one; refer to",
        ),
        (
            "[store]\ntype = \"postgres\"\nurl = \"pg://u:hunter2@db/n\"",
            "line 3: store.url: holds a password, and a secret",
        ),
        ("[store]\ntype = \"postgres\"\nurl = 5", "line 3: store.url: a secret is never written into the file"),
        (
            "[services.a]\nowner = \"A B\"",
            "line 2: services.a.owner: \"A B\" does not have the right form; it must match",
        ),
        // Keys.
        ("instanec = \"a\"", "line 1: instanec: unknown key; did you mean `instance`?"),
        ("warmup_points = 40", "line 1: warmup_points: unknown key; it belongs in `[detect]`"),
        ("[nonsense]\na = 1", "line 1: nonsense: unknown key; known here: `api`, `auth`"),
        ("[store]\ntype = \"memory\"\npath = \"x\"", "line 3: store.path: unknown key"),
        (
            "[[sources]]\ntype = \"host\"\nname = \"a\"\ninterval = 5",
            "line 4: sources[0].interval: unknown key; did you mean `interval_secs`?",
        ),
        ("[[sources]]\ntyp = \"host\"\nname = \"a\"", "line 2: sources[0].typ: unknown key; did you mean `type`?"),
        ("[[sources]]\nname = \"a\"", "line 1: sources[0]: `type` is missing; add type = one of `host` or `scrape`"),
        ("[[sources]]\ntype = \"host\"", "line 1: sources[0]: `name` is missing; add name = \"…\""),
        ("[[sources]]\ntype = 1\nname = \"a\"", "line 2: sources[0].type: 1 is not `host` or `scrape`"),
        ("sources = [\"host\"]", "line 1: sources[0]: \"host\" is text, not a table; write { type = \"host\" }"),
        (
            "[[sources]]\ntype='scrape'\nname='a'\ntargets=[]",
            "line 4: sources[0].targets: has 0 elements, at least 1 are needed",
        ),
        (
            "[store]\ntype='postgres'\nurl='http://a'\npassword={envv='A'}",
            "line 4: store.password: needs exactly one of `env`, `file` or `vault`, has 0; did you mean `env`?",
        ),
        (
            "[store]\ntype='postgres'\nurl='http://a'\npassword={env='A',file='b'}",
            "line 4: store.password: needs exactly one of `env`, `file` or `vault`, has 2",
        ),
        (
            "[store]\ntype='postgres'\nurl='http://a'\npassword={env=1}",
            "line 4: store.password.env: 1 is a whole number, not text",
        ),
        // TOML itself.
        ("[api]\nlisten = 127.0.0.1:80", "line 2: cannot be read as TOML"),
        ("[api]\nlisten: \"127.0.0.1:80\"", "line 2: cannot be read as TOML"),
        ("instance = /var/lib", "put text in double quotes"),
        ("instance = \"a", "close the double quotes"),
        ("instance = \"a\"\ninstance = \"b\"", "line 2: cannot be read as TOML: duplicate key"),
        ("[api\nlisten = \"127.0.0.1:80\"", "line 1: cannot be read as TOML"),
        ("[detect]\nforecast = True", "write true or false"),
        ("\u{0}", "line 1: cannot be read as TOML"),
    ] {
        let problems = checked(text);
        let got = lines(&problems);
        if want.is_empty() {
            assert!(got.is_empty(), "{text}\n{problems}");
        } else {
            assert_eq!(got.len(), 1, "{text}\n{problems}");
            assert!(got[0].contains(want), "{text}\n got {}\nwant {want}", got[0]);
        }
    }
}

#[test]
fn broken_lines_do_not_hide_each_other_or_what_follows() {
    let problems = checked("[api]\nlisten = \n[detect]\nband = 7\nforecast = nope\n[services.a]\nowner = 5\n");
    let got: Vec<_> = problems.sorted().iter().map(|p| p.at.map_or(0, |at| at.line)).collect();
    assert_eq!(got, [2, 4, 5, 7], "{problems}");
}

#[test]
fn a_file_that_is_no_configuration_is_refused_in_one_line() {
    let problems = checked(&"#".repeat(FILE_BYTES_MAX + 1));
    assert_eq!(
        lines(&problems),
        ["the file has 1048577 bytes, at most 1048576 are read; is this a configuration file?"]
    );
    let deep = format!("instance = {}", "[".repeat(100_000));
    assert!(checked(&deep).has_errors());
    let many = "x = 1\n".to_owned() + &(0..3000).map(|i| format!("k{i} = 1\n")).collect::<String>();
    let problems = checked(&many);
    assert_eq!(problems.len(), nightshift_config::PROBLEMS_MAX);
    assert!(problems.to_string().contains("and 2001 more, not shown"));
}

#[test]
fn the_empty_file_is_the_default() {
    let loaded = load::<Config>("", "nightshift.toml", no_env(), &Known, Level::Error);
    assert!(loaded.problems.is_empty());
    assert_eq!(loaded.config, Config::default());
    assert_eq!(loaded.problems.to_string(), "nightshift.toml: no problems\n");
}

#[test]
fn at_start_an_unknown_key_is_a_warning_and_the_rest_counts() {
    let text = "[api]\nlisten = \"127.0.0.1:1\"\nfrom_the_future = true\n";
    let loaded = load::<Config>(text, "nightshift.toml", no_env(), &Known, Level::Warning);
    assert!(!loaded.problems.has_errors());
    assert!(lines(&loaded.problems)[0].starts_with("line 3: warning: api.from_the_future: unknown key"));
    assert_eq!(loaded.config.api.listen, "127.0.0.1:1");
    assert!(load::<Config>(text, "nightshift.toml", no_env(), &Known, Level::Error).problems.has_errors());
}

#[test]
fn what_is_wrong_is_left_out_so_that_later_checks_see_the_rest() {
    let loaded = load::<Config>(TEN_MISTAKES, "nightshift.toml", no_env(), &Known, Level::Error);
    let (config, mut problems) = (loaded.config, loaded.problems);
    assert_eq!(config.detect, Detect::default(), "each bad value became its default");
    assert!(
        matches!(&config.store, Store::Postgres(p) if p.url.expose().ends_with("nightshift") && p.password.is_none())
    );
    // Of the sources one has no readable type and one no readable targets, which must be there.
    assert!(matches!(config.sources.as_slice(), [Source::Host { interval_secs: 10, .. }]), "{:?}", config.sources);
    problems.error("store.url", "is not reachable", "start it");
    assert!(lines(&problems).contains(&"line 13: store.url: is not reachable; start it".to_owned()), "{problems}");

    let text = "[[sources]]\ntype='x'\n[[sources]]\ntype='host'\nname='a'\n";
    let mut loaded = load::<Config>(text, "f.toml", no_env(), &Known, Level::Error);
    assert_eq!(loaded.config.sources.len(), 1);
    loaded.problems.error("sources[0].name", "is odd", "");
    assert!(lines(&loaded.problems).contains(&"line 5: sources[1].name: is odd".to_owned()), "{}", loaded.problems);
}

#[test]
fn overrides_go_before_the_file_and_are_checked_like_it() {
    let text = "[api]\nlisten = \"127.0.0.1:1\"\n[[sources]]\ntype = \"host\"\nname = \"a\"\n";
    let env =
        |pairs: &[(&str, &str)]| pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect::<Vec<_>>();
    let good = env(&[
        ("PATH", "/bin"),
        ("NIGHTSHIFT_LOG", "debug"),
        ("NIGHTSHIFT__API__LISTEN", "127.0.0.1:2"),
        ("NIGHTSHIFT__API__BODY_BYTES_MAX", "2048"),
        ("NIGHTSHIFT__API__HOSTS", "a.example, b.example"),
        ("NIGHTSHIFT__DETECT__FORECAST", "false"),
        ("NIGHTSHIFT__DETECT__WORKERS", "2"),
        ("NIGHTSHIFT__DETECT__SENSITIVITY", "high"),
        ("NIGHTSHIFT__STORE__URL", "postgres://db/n"),
        ("NIGHTSHIFT__STORE__TYPE", "postgres"),
        ("NIGHTSHIFT__STORE__PASSWORD", "{ env = \"PGPASSWORD\" }"),
        ("NIGHTSHIFT__SOURCES__0__INTERVAL_SECS", "5"),
        ("NIGHTSHIFT__AUTH__CACHE_SECS", "1"),
        ("NIGHTSHIFT__SERVICES__CHECKOUT__OWNER", "payments"),
    ]);
    let loaded = load::<Config>(text, "nightshift.toml", good, &Known, Level::Error);
    assert!(loaded.problems.is_empty(), "{}", loaded.problems);
    let c = &loaded.config;
    assert_eq!((c.api.listen.as_str(), c.api.body_bytes_max), ("127.0.0.1:2", 2048));
    assert_eq!(c.api.hosts, ["a.example", "b.example"]);
    assert_eq!((c.detect.forecast, c.detect.workers, c.detect.sensitivity), (false, Some(2), Sensitivity::High));
    assert!(matches!(&c.store, Store::Postgres(p) if p.password == Some("hunter2".into())));
    assert!(matches!(&c.sources[0], Source::Host { interval_secs: 5, .. }));
    assert_eq!(c.auth, Some(Auth { cache_secs: 1 }));
    assert_eq!(c.services["checkout"].owner, "payments");

    for (name, value, want) in [
        ("NIGHTSHIFT__API__LITSEN", "x", "api.litsen: unknown key; did you mean `listen`, which is there already?"),
        ("NIGHTSHIFT__API__LISTEN", "x", "api.listen: \"x\" is not a listen address"),
        ("NIGHTSHIFT__DETECT__WARMUP_POINTS", "many", "detect.warmup_points: \"many\" is text, not a whole number"),
        ("NIGHTSHIFT__DETECT__WARMUP_POINTS", "1", "detect.warmup_points: 1 is not within 30 to 10000"),
        ("NIGHTSHIFT__STORE", "{ type = ", "store: cannot be read as a TOML value"),
        ("NIGHTSHIFT__SOURCES__7__NAME", "x", "sources: `7` is not one of the 1 elements"),
        ("NIGHTSHIFT__API__LISTEN__PORT", "1", "is a single value, it has no keys"),
        ("NIGHTSHIFT____LISTEN", "1", "the name is not SECTION__KEY"),
        ("NIGHTSHIFT__", "1", "the name is not SECTION__KEY"),
        ("NIGHTSHIFT__AUTH__CACHE_SECS", "301", "auth.cache_secs: 301 is not"),
    ] {
        let loaded = load::<Config>(text, "nightshift.toml", env(&[(name, value)]), &Known, Level::Error);
        let all = loaded.problems.sorted();
        assert_eq!(all.len(), 1, "{name}\n{}", loaded.problems);
        assert_eq!(all[0].file, format!("environment variable {name}"));
        assert!(all[0].to_string().contains(want), "{name}: {}", all[0]);
    }
    let secret = env(&[("NIGHTSHIFT__STORE__PASSWORD", "hunter2"), ("NIGHTSHIFT__STORE__TYPE", "postgres")]);
    let loaded = load::<Config>("[store]\nurl='pg://a'", "f", secret, &Known, Level::Error);
    assert!(loaded.problems.to_string().contains("a secret is never written into the file"), "{}", loaded.problems);
    assert!(!loaded.problems.to_string().contains("hunter2"));
}

#[test]
fn references_become_the_secrets_that_they_lead_to() {
    let text = "[[sources]]\ntype='nonsense'\n[[sources]]\ntype='scrape'\nname='a'\ntargets=['b']\ntoken={env='PGPASSWORD'}\n\
                [store]\ntype='postgres'\nurl={file='/run/url'}\n[store.password]\nenv='NAME'\n";
    let loaded = load::<Config>(text, "f.toml", no_env(), &Known, Level::Error);
    assert_eq!(lines(&loaded.problems).len(), 1, "{}", loaded.problems);
    let Store::Postgres(store) = &loaded.config.store else { panic!("{:?}", loaded.config.store) };
    assert_eq!(store.url.expose(), "pg://u:hunter3@db/n");
    assert_eq!(store.password.as_ref().map(SecretString::expose), Some("hunter2"));
    // The element before it is taken out, and the secret still reaches the right one.
    let [Source::Scrape(scrape)] = loaded.config.sources.as_slice() else { panic!("{:?}", loaded.config.sources) };
    assert_eq!(scrape.token.as_ref().map(SecretString::expose), Some("hunter2"));

    let json = serde_json::to_string(&loaded.config).unwrap();
    for shown in [format!("{loaded:?}"), format!("{:#?}", loaded.config), json, loaded.problems.to_json().to_string()] {
        assert!(!shown.contains("hunter"), "{shown}");
    }
}

#[test]
fn a_secret_that_cannot_be_had_is_told_with_its_line() {
    for (reference, want) in [
        ("{ env = 'UNSET' }", "environment variable `UNSET` is not set, or is not text; set it where Nightshift is"),
        ("{ file = '/nowhere' }", "file `/nowhere` cannot be read: entity not found; put the secret there"),
        ("{ file = 'token' }", "file `token` is not told by its whole path; begin it with /"),
        (
            "{ vault = 'kv/db#password' }",
            "vault `kv/db#password` cannot be asked: this version has no vault client; let",
        ),
        ("{ env = '' }", ""),
        ("{ env = 'NAME', file = '/run/url' }", "needs exactly one of `env`, `file` or `vault`, has 2"),
        ("{}", "needs exactly one of `env`, `file` or `vault`, has 0"),
        (
            "'hunter2'",
            "a secret is never written into the file; refer to it: { env = \"NAME\" }, { file = \"/path\" } or",
        ),
        ("4242", "a secret is never written into the file"),
        ("['hunter2']", "a secret is never written into the file"),
    ] {
        let text = format!("[store]\ntype='postgres'\nurl='pg://db'\npassword={reference}\n");
        let loaded = load::<Config>(&text, "f.toml", no_env(), &Known, Level::Error);
        let got = lines(&loaded.problems);
        assert_eq!(got.len(), 1, "{reference}: {got:?}");
        assert!(got[0].starts_with("line 4: store.password") && got[0].contains(want), "{reference}: {got:?}");
        assert!(!got[0].contains("hunter2") && !got[0].contains("4242"), "{got:?}");
        assert!(matches!(&loaded.config.store, Store::Postgres(p) if p.password.is_none()), "{:?}", loaded.config);
    }
    // What must be there takes with it what cannot be without.
    let loaded = load::<Config>("[store]\ntype='postgres'\nurl={env='UNSET'}", "f", no_env(), &Known, Level::Error);
    assert_eq!(loaded.config.store, Store::default());
    assert!(loaded.problems.has_errors());
    // Only the form is looked at by a check.
    assert!(checked("[store]\ntype='postgres'\nurl={env='UNSET'}").is_empty());
}

#[test]
fn a_struct_that_repeats_what_it_refuses_does_not_tell_a_secret() {
    #[derive(Debug, Default, Deserialize, JsonSchema)]
    #[serde(default)]
    struct Talkative {
        #[schemars(with = "SecretString")]
        at: Option<Loud>,
    }
    #[derive(Debug)]
    struct Loud;
    impl<'de> Deserialize<'de> for Loud {
        fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
            Err(serde::de::Error::custom(format!("what is {}?", String::deserialize(d)?)))
        }
    }
    let loaded = load::<Talkative>("at = { env = 'NAME' }", "f.toml", no_env(), &Known, Level::Error);
    assert_eq!(lines(&loaded.problems), ["line 1: at: what is [secret]?"]);
    assert!(loaded.config.at.is_none());
}

#[test]
fn what_only_the_struct_refuses_is_told_with_its_line() {
    #[derive(Debug, Default, Deserialize, JsonSchema)]
    #[serde(default)]
    struct Strict {
        section: Inner,
    }
    #[derive(Debug, Default, Deserialize, JsonSchema)]
    #[serde(default)]
    struct Inner {
        #[schemars(with = "String")]
        at: Option<std::net::IpAddr>,
    }
    let loaded = load::<Strict>("[section]\nat = \"here\"\n", "f.toml", no_env(), &Known, Level::Error);
    let got = lines(&loaded.problems);
    assert_eq!(got.len(), 1);
    assert!(got[0].starts_with("line 2: section.at: invalid IP address"), "{got:?}");
    assert!(loaded.config.section.at.is_none());
}

#[test]
fn the_reference_is_valid_as_it_is_and_with_every_setting_let_in() {
    let schema = schema_of::<Config>();
    let text = reference(&schema, &serde_json::to_value(Config::default()).unwrap());
    let as_it_is = load::<Config>(&text, "reference.toml", no_env(), &Known, Level::Error);
    assert!(as_it_is.problems.is_empty(), "{}\n{text}", as_it_is.problems);
    assert_eq!(as_it_is.config, Config::default());
    let all = load::<Config>(&uncomment(&text), "reference.toml", no_env(), &Known, Level::Error);
    assert!(all.problems.is_empty(), "{}\n{}", all.problems, uncomment(&text));
    assert_eq!((&all.config.api, &all.config.store), (&Api::default(), &Store::default()));
    assert_eq!(all.config.detect.warmup_points, 30);
    assert_eq!(all.config.sources.len(), 2, "each kind of source is shown");
    assert!(all.config.auth.is_some() && all.config.services.contains_key("NAME"));
    insta::assert_snapshot!(text);
}

#[test]
fn the_check_knows_every_keyword_of_the_schema() {
    assert_eq!(unknown_keywords(&schema_of::<Config>()), Vec::<String>::new());
    let odd =
        schemars::json_schema!({ "properties": { "a": { "multipleOf": 2, "format": "colour", "pattern": "(" } } });
    assert_eq!(unknown_keywords(&odd).len(), 3);
}

#[test]
fn the_corpus_and_any_bytes_are_read_without_panic() {
    let corpus = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus/config_toml");
    let mut seen = 0;
    for entry in std::fs::read_dir(corpus).unwrap() {
        let bytes = std::fs::read(entry.unwrap().path()).unwrap();
        fuzz_config_toml(&bytes);
        let _ = checked(&String::from_utf8_lossy(&bytes));
        seen += 1;
    }
    assert!(seen >= 5, "the corpus is not there");
}

proptest::proptest! {
    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..400)) {
        fuzz_config_toml(&bytes);
    }

    /// Bytes that look like TOML reach further into the check than random ones.
    #[test]
    fn no_pieces_of_toml_panic(pieces in proptest::collection::vec(0usize..18, 0..40)) {
        const PIECES: [&str; 18] = [
            "[list]\n", "[[list]]\n", "type = \"one\"\n", "name = 'a'\n", "listen = \"::1:0\"\n", "[map.x]\n", "= ", "\n",
            "secret = { env = 'A' }\n", "secret = 'x'\n", "count = 300\n", "ratio = inf\n", "\"", "{", "}", "[", "]", "ratio.x = 1\n",
        ];
        let text: String = pieces.into_iter().map(|i| PIECES[i]).collect();
        fuzz_config_toml(text.as_bytes());
    }
}
