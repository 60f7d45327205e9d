//! What the end-to-end tests share: a running nightshift, programs that others wrote, and loud skips.
#![allow(dead_code, clippy::unwrap_used, reason = "each test file uses its own part of this, which may panic")]

use nightshift_model::{Incident, Timestamp};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A nightshift of this build with a data folder and ports of its own.
pub(crate) struct Server {
    child: Child,
    data: PathBuf,
    config: PathBuf,
    /// Kept so that the folder lives as long as the server; `None` where a test brings its own.
    folder: Option<tempfile::TempDir>,
    /// What it wrote about itself: addresses by name.
    pub(crate) listeners: Value,
}

impl Server {
    /// Starts one with this configuration; every listener gets a free port.
    pub(crate) async fn start(config: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().to_owned();
        let mut server = Self::start_in(&data, config).await;
        server.folder = Some(folder);
        server
    }

    /// Starts one on a data folder that may have been used before.
    pub(crate) async fn start_in(data: &Path, config: &str) -> Self {
        // The tests' own HTTP client needs one; a second call finds it there.
        drop(rustls::crypto::ring::default_provider().install_default());
        let config_file = data.join("nightshift.toml");
        std::fs::write(&config_file, config).unwrap();
        let child = spawn(data, &config_file);
        let listeners = Value::Null;
        let mut server = Self { child, data: data.to_owned(), config: config_file, folder: None, listeners };
        server.wait_ready().await;
        server
    }

    async fn wait_ready(&mut self) {
        let deadline = Instant::now() + Duration::from_secs(60);
        let file = self.data.join("server.json");
        while Instant::now() < deadline {
            if let Some(status) = self.child.try_wait().unwrap() {
                panic!("nightshift ended at once ({status}); its log:\n{}", self.log());
            }
            if let Ok(text) = std::fs::read_to_string(&file)
                && let Ok(json) = serde_json::from_str::<Value>(&text)
                && json["pid"] == self.child.id()
            {
                self.listeners = json["listeners"].clone();
                if self.try_get("/api/v1/health").await.is_some() {
                    return;
                }
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("nightshift did not come up; its log:\n{}", self.log());
    }

    /// `http://ADDRESS` of a listener.
    pub(crate) fn url(&self, listener: &str) -> String {
        format!("http://{}", self.address(listener))
    }

    /// `ADDRESS:PORT` of a listener.
    pub(crate) fn address(&self, listener: &str) -> String {
        match self.listeners[listener].as_str() {
            Some(address) => address.to_owned(),
            None => panic!("no listener `{listener}` in {}", self.listeners),
        }
    }

    /// Its data folder.
    pub(crate) fn data(&self) -> &Path {
        &self.data
    }

    /// What it logged.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.data.join("test.log")).unwrap_or_default()
    }

    async fn try_get(&self, path: &str) -> Option<Value> {
        let url = format!("{}{path}", self.url("api"));
        reqwest::Client::new().get(url).send().await.ok()?.json().await.ok()
    }

    /// `GET path` as JSON.
    pub(crate) async fn get(&self, path: &str) -> Value {
        match self.try_get(path).await {
            Some(json) => json,
            None => panic!("GET {path} gave no JSON; log:\n{}", self.log()),
        }
    }

    /// `POST path` as JSON.
    pub(crate) async fn post(&self, path: &str, body: Value) -> (u16, Value) {
        let url = format!("{}{path}", self.url("api"));
        let response = reqwest::Client::new().post(url).json(&body).send().await.unwrap();
        (response.status().as_u16(), response.json().await.unwrap_or(Value::Null))
    }

    /// All incidents, those of test injections too, page by page.
    pub(crate) async fn incidents(&self) -> Vec<Incident> {
        let mut all: Vec<Incident> = Vec::new();
        let mut page = "/api/v1/incidents?limit=500&synthetic=true".to_owned();
        loop {
            let answer = self.get(&page).await;
            let data = answer["data"].clone();
            all.extend(serde_json::from_value::<Vec<Incident>>(data).unwrap_or_else(|e| panic!("{e}: {answer}")));
            match answer["next"].as_str() {
                Some(next) => page = format!("/api/v1/incidents?limit=500&synthetic=true&cursor={next}"),
                None => return all,
            }
        }
    }

    /// The text of `/metrics`.
    pub(crate) async fn metrics(&self) -> String {
        let url = format!("{}/metrics", self.url("api"));
        reqwest::get(url).await.unwrap().text().await.unwrap()
    }

    /// The sum of a metric over its labels; 0 when it is not there.
    pub(crate) async fn metric(&self, name: &str) -> f64 {
        self.metrics()
            .await
            .lines()
            .filter(|l| l.strip_prefix(name).is_some_and(|r| r.starts_with([' ', '{'])))
            .filter_map(|l| l.rsplit_once(' ').and_then(|(_, v)| v.parse::<f64>().ok()))
            .sum()
    }

    /// Distinct samples on the bus: what was acknowledged must all be there.
    pub(crate) async fn stored_samples(&self) -> u64 {
        let mut seen = std::collections::HashSet::new();
        for row in self.command(&["bus", "read", "telemetry.raw"]).lines() {
            let row: Value = serde_json::from_str(row).unwrap();
            for series in row["payload"]["series"].as_array().into_iter().flatten() {
                for sample in series["samples"].as_array().into_iter().flatten() {
                    seen.insert(format!("{}{}", series["labels"], sample[0]));
                }
            }
        }
        seen.len() as u64
    }

    /// `nightshift audit verify --json` on its data folder.
    pub(crate) fn audit(&self) -> String {
        self.command(&["audit", "verify", "--json"])
    }

    /// Runs a command of the same binary on the same folder and gives what it prints.
    pub(crate) fn command(&self, args: &[&str]) -> String {
        let out = Command::new(env!("CARGO_BIN_EXE_nightshift"))
            .args(args)
            .arg("--config")
            .arg(&self.config)
            .arg("--data")
            .arg(&self.data)
            .output()
            .unwrap();
        assert!(out.status.success(), "nightshift {args:?}: {}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8(out.stdout).unwrap()
    }

    /// Ends it without a warning, as a power cut would.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Ends it as `systemctl stop` would, and waits until it has.
    pub(crate) async fn stop(&mut self) {
        let told = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status().unwrap();
        assert!(told.success());
        let deadline = Instant::now() + Duration::from_secs(30);
        while self.child.try_wait().unwrap().is_none() {
            assert!(Instant::now() < deadline, "it does not end; its log:\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Its process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Starts it again on the same folder.
    pub(crate) async fn restart(&mut self) {
        self.child = spawn(&self.data, &self.config);
        self.wait_ready().await;
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
        if std::thread::panicking() {
            eprintln!("---- log of nightshift ----\n{}", self.log());
        }
    }
}

fn spawn(data: &Path, config: &Path) -> Child {
    let log = std::fs::OpenOptions::new().create(true).append(true).open(data.join("test.log")).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_nightshift"));
    command.arg("run").arg("--config").arg(config).arg("--data").arg(data);
    command.env("NIGHTSHIFT_LOG", "info");
    for key in ["API__LISTEN", "METRICS__LISTEN", "OTLP__GRPC_LISTEN", "OTLP__HTTP_LISTEN"] {
        command.env(format!("NIGHTSHIFT__{key}"), "127.0.0.1:0");
    }
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
    command.spawn().unwrap()
}

/// A program of somebody else that ends with the test.
pub(crate) struct Program {
    child: Child,
    name: String,
    log: PathBuf,
}

impl Program {
    /// Starts it; what it prints goes to a file in `folder` and is shown when the test fails.
    pub(crate) fn start(name: &str, path: &Path, args: &[String], folder: &Path) -> Self {
        let log = folder.join(format!("{name}.log"));
        let out = std::fs::File::create(&log).unwrap();
        let child = Command::new(path)
            .args(args)
            .current_dir(folder)
            .stdin(Stdio::null())
            .stdout(out.try_clone().unwrap())
            .stderr(out)
            .spawn()
            .unwrap_or_else(|e| panic!("start {}: {e}", path.display()));
        Self { child, name: name.into(), log }
    }

    /// Runs it to its end.
    pub(crate) fn run(name: &str, path: &Path, args: &[String], folder: &Path) {
        let mut program = Self::start(name, path, args, folder);
        let status = program.child.wait().unwrap();
        assert!(status.success(), "{name} ended with {status}:\n{}", program.output());
    }

    /// What it printed.
    pub(crate) fn output(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
        if std::thread::panicking() {
            eprintln!("---- output of {} ----\n{}", self.name, self.output());
        }
    }
}

/// The program that a variable of the test environment names, or a loud skip.
pub(crate) fn program(variable: &str, what: &str) -> Option<PathBuf> {
    match std::env::var_os(variable).map(PathBuf::from).filter(|p| p.exists()) {
        Some(path) => Some(path),
        None => {
            eprintln!("SKIPPED: {what} is not here ({variable} is not set); `make test` provides it");
            None
        }
    }
}

/// One series of a remote write request: labels, and its samples as milliseconds since 1970 and value.
pub(crate) type Series<'a> = (&'a [(&'a str, &'a str)], Vec<(i64, f64)>);

/// A remote write 1.0 request, compressed.
pub(crate) fn write_request(series: &[Series<'_>]) -> Vec<u8> {
    let mut body = Vec::new();
    for (labels, samples) in series {
        // A label set is encoded as the labels of a series are on the wire.
        let mut one = nightshift_model::batch::labels::encode(labels.iter().copied());
        for (at_ms, value) in samples {
            let mut sample = vec![0x09];
            sample.extend_from_slice(&value.to_le_bytes());
            sample.push(0x10);
            prost::encoding::encode_varint(*at_ms as u64, &mut sample);
            one.push(0x12);
            prost::encoding::encode_varint(sample.len() as u64, &mut one);
            one.extend_from_slice(&sample);
        }
        body.push(0x0a);
        prost::encoding::encode_varint(one.len() as u64, &mut body);
        body.extend_from_slice(&one);
    }
    snap::raw::Encoder::new().compress_vec(&body).unwrap()
}

/// Sends such a request to `http://ADDRESS` and gives the status.
///
/// # Errors
/// When there is no answer.
pub(crate) async fn remote_write(client: &reqwest::Client, base: &str, body: Vec<u8>) -> Result<u16, reqwest::Error> {
    let sent = client
        .post(format!("{base}/api/v1/write"))
        .header("Content-Type", "application/x-protobuf")
        .header("Content-Encoding", "snappy")
        .header("X-Prometheus-Remote-Write-Version", "0.1.0")
        .body(body)
        .send()
        .await?;
    Ok(sent.status().as_u16())
}

/// A port that is free now.
pub(crate) fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Waits until `what` gives something.
pub(crate) async fn until<T, F: Future<Output = Option<T>>>(label: &str, limit: Duration, what: impl Fn() -> F) -> T {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(found) = what().await {
            return found;
        }
        assert!(Instant::now() < deadline, "after {limit:?}: {label}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// The present moment.
#[expect(clippy::disallowed_methods, reason = "real programs run on real time")]
pub(crate) fn now() -> Timestamp {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    Timestamp(i64::try_from(since.as_nanos()).unwrap())
}

/// Whether the long form was asked for.
pub(crate) fn long() -> bool {
    std::env::var_os("NIGHTSHIFT_LONG").is_some()
}
