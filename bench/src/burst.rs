//! How long a burst takes from its first reading to its resolution: through the real bus and store, with every flush to
//! disk, one after the other. Beside it the floor: what one flush costs on the same disk.

mod server;

use anyhow::{Context as _, Result, ensure};
use clap::Parser;
use server::Server;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Injects bursts and measures them.
#[derive(Parser)]
struct Args {
    /// The binary.
    #[arg(long, default_value = "target/release/nightshift")]
    binary: PathBuf,
    /// Bursts; a few more before them are not counted.
    #[arg(long, default_value_t = 200)]
    bursts: usize,
}

/// Bursts that are not counted.
const WARM_UP: usize = 10;

fn main() -> Result<()> {
    let args = Args::parse();
    ensure!(args.bursts > 0, "--bursts must be at least 1");
    ensure!(args.binary.exists(), "{} is not there: run `make build`", args.binary.display());
    let data = tempfile::tempdir().context("make a data folder")?;
    let mut server = Server::start(&args.binary, None, data.path())?;
    let mut times = Vec::with_capacity(args.bursts);
    for i in 0..WARM_UP + args.bursts {
        let answer = inject(&server.address)?;
        let incident = &answer["data"]["incidents"][0];
        ensure!(incident["status"] == "resolved", "a burst did not end resolved: {answer}");
        if i >= WARM_UP {
            times.push(answer["data"]["mttr_ms"].as_f64().context("the answer has no mttr_ms")?);
        }
    }
    let syncs = flushes(data.path(), 200)?;
    server.stop();
    let (burst, sync) = (quantiles(times), quantiles(syncs));
    println!("burst to resolved, ms: median {:.2}, 95th percentile {:.2}, best {:.2}", burst.0, burst.1, burst.2);
    println!("one flush of 4 KiB here, ms: median {:.3}, 95th percentile {:.3}, best {:.3}", sync.0, sync.1, sync.2);
    Ok(())
}

fn inject(address: &str) -> Result<serde_json::Value> {
    let mut stream = TcpStream::connect(address).context("connect")?;
    stream.set_nodelay(true)?;
    write!(
        stream,
        "POST /api/v1/test/inject?mode=burst HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
         Content-Length: 2\r\nConnection: close\r\n\r\n{{}}"
    )?;
    let mut text = String::new();
    stream.read_to_string(&mut text).context("read the answer")?;
    let body = text.split_once("\r\n\r\n").map(|(_, body)| body).unwrap_or_default();
    serde_json::from_str(body).with_context(|| format!("read the answer: {body}"))
}

/// Milliseconds that appending and flushing 4 KiB takes, so many times.
fn flushes(folder: &Path, n: usize) -> Result<Vec<f64>> {
    let mut file = std::fs::File::create(folder.join("flush")).context("make a file")?;
    let block = [7u8; 4096];
    (0..n)
        .map(|_| {
            let begin = Instant::now();
            file.write_all(&block).and_then(|()| file.sync_data()).context("flush")?;
            Ok(begin.elapsed().as_secs_f64() * 1e3)
        })
        .collect()
}

/// Median, 95th percentile and least.
fn quantiles(mut values: Vec<f64>) -> (f64, f64, f64) {
    values.sort_by(f64::total_cmp);
    let at = |q: f64| values.get(((values.len() - 1) as f64 * q) as usize).copied().unwrap_or(f64::NAN);
    (at(0.5), at(0.95), at(0.0))
}
