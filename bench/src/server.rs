//! The server under measurement, started as its users do.
#![allow(dead_code, reason = "each program uses its part")]

use anyhow::{Context as _, Result, bail};
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// One GET, the whole answer.
pub(crate) fn get(address: &str, path: &str) -> Result<String> {
    let mut stream = TcpStream::connect(address).context("connect")?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text).context("read the answer")?;
    Ok(text)
}

/// User and system CPU seconds of a process.
pub(crate) fn cpu_of(pid: &str) -> Result<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).context("read /proc")?;
    let after = stat.rsplit_once(')').context("read /proc")?.1;
    let ticks: f64 = after.split_whitespace().skip(11).take(2).filter_map(|t| t.parse::<f64>().ok()).sum();
    // Linux gives these in hundredths of a second on every platform that we build for.
    Ok(ticks / 100.0)
}

/// A running server.
pub(crate) struct Server {
    child: Child,
    /// Where its API listens.
    pub(crate) address: String,
}

impl Server {
    /// Starts the binary in an empty data folder, with nothing to watch, and waits until it answers.
    pub(crate) fn start(binary: &Path, config: Option<&Path>, data: &Path) -> Result<Self> {
        let mut command = Command::new(binary);
        command.arg("run").arg("--data").arg(data).arg("--log").arg("warn");
        if let Some(config) = config {
            command.arg("--config").arg(config);
        }
        for (key, value) in [
            ("NIGHTSHIFT__API__LISTEN", "127.0.0.1:0"),
            ("NIGHTSHIFT__METRICS__LISTEN", "127.0.0.1:0"),
            ("NIGHTSHIFT__OTLP__GRPC_LISTEN", "127.0.0.1:0"),
            ("NIGHTSHIFT__OTLP__HTTP_LISTEN", "127.0.0.1:0"),
            // Only the load is measured.
            ("NIGHTSHIFT__DEFAULT_SOURCES", "false"),
        ] {
            command.env(key, value);
        }
        let child = command.stdout(Stdio::null()).stdin(Stdio::null()).spawn().context("start the server")?;
        let mut server = Self { child, address: String::new() };
        let begin = Instant::now();
        while begin.elapsed() < Duration::from_secs(30) {
            // The server writes where it listens into its data folder.
            if let Ok(text) = std::fs::read_to_string(data.join("server.json"))
                && let Ok(json) = serde_json::from_str::<serde_json::Value>(&text)
                && let Some(address) = json["listeners"]["api"].as_str()
            {
                server.address = address.to_owned();
                if get(&server.address, "/api/v1/health").is_ok() {
                    return Ok(server);
                }
            }
            if let Some(status) = server.child.try_wait()? {
                bail!("the server ended at once: {status}");
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        server.stop();
        bail!("the server did not come up in 30 s")
    }

    /// CPU seconds so far.
    pub(crate) fn cpu(&self) -> Result<f64> {
        cpu_of(&self.child.id().to_string())
    }

    /// Resident memory, bytes.
    pub(crate) fn rss(&self) -> Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).context("read /proc")?;
        let kib: u64 = status
            .lines()
            .find_map(|l| l.strip_prefix("VmRSS:"))
            .and_then(|v| v.trim().trim_end_matches(" kB").trim().parse().ok())
            .context("read VmRSS")?;
        Ok(kib * 1024)
    }

    pub(crate) fn stop(&mut self) {
        // It is a measurement: the data folder goes with it, so there is nothing to save.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}
