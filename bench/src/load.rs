//! Whole-process load: starts the release binary, sends it remote-write requests over HTTP, and says how many samples
//! a second went from bytes on the wire to scored, through the durable bus, and what a live series costs in memory.
//!
//! Requests are encoded before the clock starts. The loader shares the machine with the server; its CPU is shown.

mod server;

use anyhow::{Context as _, Result, bail, ensure};
use clap::Parser;
use nightshift_model::batch::labels;
use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng as _};
use server::{Server, cpu_of, get};
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Loads a nightshift with remote write and measures it.
#[derive(Parser)]
struct Args {
    /// The binary.
    #[arg(long, default_value = "target/release/nightshift")]
    binary: PathBuf,
    /// Distinct series.
    #[arg(long, default_value_t = 100_000)]
    series: usize,
    /// Samples of each series, one a round. The first round makes the series and is not counted.
    #[arg(long, default_value_t = 40)]
    rounds: usize,
    /// Samples in a request.
    #[arg(long, default_value_t = 5_000)]
    per_request: usize,
    /// Connections.
    #[arg(long, default_value_t = 2)]
    connections: usize,
    /// Configuration of the server (TOML); listeners and data folder are set here.
    #[arg(long)]
    config: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

fn main() -> Result<()> {
    let args = Args::parse();
    ensure!(args.rounds >= 2, "--rounds must be at least 2: the first one is not counted");
    ensure!(args.binary.exists(), "{} is not there: run `make build`", args.binary.display());
    eprintln!("encoding {} rounds of {} series", args.rounds, args.series);
    let rounds = encode(&args)?;
    let wire: usize = rounds.iter().flatten().map(Vec::len).sum();
    let data = tempfile::tempdir().context("make a data folder")?;
    let mut server = Server::start(&args.binary, args.config.as_deref(), data.path())?;
    let outcome = measure(&args, rounds, &server);
    server.stop();
    let figures = outcome?;
    report(&args, wire, &figures);
    Ok(())
}

/// What was measured.
struct Figures {
    accepted: u64,
    accepted_secs: f64,
    scored_secs: f64,
    server_cpu_secs: f64,
    loader_cpu_secs: f64,
    rss_bytes: u64,
    rss_before_bytes: u64,
    series_live: f64,
}

fn measure(args: &Args, rounds: Vec<Vec<Vec<u8>>>, server: &Server) -> Result<Figures> {
    let address = server.address.clone();
    let rss_before_bytes = server.rss()?;
    let per_round = args.series as u64;
    let mut rounds = rounds.into_iter();
    let first = rounds.next().context("no rounds")?;
    send(&address, vec![first], args.connections)?;
    wait_scored(&address, per_round)?;
    let rest: Vec<_> = rounds.collect();
    let expected = per_round * args.rounds as u64;
    let (cpu_server, cpu_loader) = (server.cpu()?, cpu_of("self")?);
    let begin = Instant::now();
    send(&address, rest, args.connections)?;
    let accepted_secs = begin.elapsed().as_secs_f64();
    let loader_cpu_secs = cpu_of("self")? - cpu_loader;
    wait_scored(&address, expected)?;
    let scored_secs = begin.elapsed().as_secs_f64();
    Ok(Figures {
        accepted: expected - per_round,
        accepted_secs,
        scored_secs,
        server_cpu_secs: server.cpu()? - cpu_server,
        loader_cpu_secs,
        rss_bytes: server.rss()?,
        rss_before_bytes,
        series_live: metric(&address, "nightshift_series_live")?,
    })
}

fn report(args: &Args, wire: usize, f: &Figures) {
    let n = f.accepted as f64;
    let per_series = (f.rss_bytes.saturating_sub(f.rss_before_bytes)) as f64 / args.series as f64;
    if args.json {
        let row = serde_json::json!({
            "series": args.series, "samples": f.accepted, "samples_per_sec_accepted": n / f.accepted_secs,
            "samples_per_sec_scored": n / f.scored_secs, "server_cpu_secs": f.server_cpu_secs,
            "loader_cpu_secs": f.loader_cpu_secs, "rss_bytes": f.rss_bytes, "bytes_per_series": per_series,
            "series_live": f.series_live,
        });
        println!("{row}");
        return;
    }
    println!("series                      {}", args.series);
    println!("samples (first round apart) {}", f.accepted);
    println!("bytes on the wire           {:.1} MB, snappy", wire as f64 / 1e6);
    println!("accepted, durable           {:.2} million samples/s", n / f.accepted_secs / 1e6);
    println!("scored                      {:.2} million samples/s", n / f.scored_secs / 1e6);
    println!("CPU of the server           {:.2} s ({:.0} ns a sample)", f.server_cpu_secs, f.server_cpu_secs * 1e9 / n);
    println!("CPU of the loader           {:.2} s", f.loader_cpu_secs);
    println!("series live                 {}", f.series_live);
    println!(
        "memory of the process       {:.0} MiB ({per_series:.0} bytes a series above idle)",
        f.rss_bytes as f64 / 1048576.0
    );
}

/// Every request of every round, complete with its head.
fn encode(args: &Args) -> Result<Vec<Vec<Vec<u8>>>> {
    let mut rng = SmallRng::seed_from_u64(7);
    let labels: Vec<Vec<u8>> = (0..args.series).map(series_labels).collect();
    let mut levels: Vec<f64> = (0..args.series).map(|_| rng.random_range(10.0..1000.0)).collect();
    #[expect(clippy::disallowed_methods, reason = "samples must be of now: older ones are refused")]
    let now_ms = SystemTime::now().duration_since(UNIX_EPOCH).context("read the clock")?.as_millis() as i64;
    let start_ms = now_ms - args.rounds as i64 * 1_000;
    let mut rounds = Vec::with_capacity(args.rounds);
    let mut encoder = snap::raw::Encoder::new();
    for round in 0..args.rounds {
        let at_ms = start_ms + round as i64 * 1_000;
        let mut requests = Vec::new();
        for (chunk, levels) in labels.chunks(args.per_request).zip(levels.chunks_mut(args.per_request)) {
            let mut body = Vec::with_capacity(chunk.len() * 200);
            for (labels, level) in chunk.iter().zip(levels) {
                *level += rng.random_range(-1.0..1.0);
                time_series(&mut body, labels, *level, at_ms);
            }
            requests.push(request(&encoder.compress_vec(&body).context("compress a request")?));
        }
        rounds.push(requests);
    }
    Ok(rounds)
}

/// Seven labels, about 205 bytes: a container metric as a kubelet gives it.
fn series_labels(i: usize) -> Vec<u8> {
    let (metric, pod, node) = (i % 50, i / 50, i / 5_000);
    labels::encode([
        ("__name__", format!("container_load_metric_{metric:02}").as_str()),
        ("container", "application"),
        ("instance", format!("node-{node:04}.example:10250").as_str()),
        ("job", "kubelet"),
        ("namespace", format!("team-{:03}", pod % 100).as_str()),
        ("pod", format!("application-7c9d8b6f5d-{pod:06}").as_str()),
        ("service", format!("application-{:03}", pod % 500).as_str()),
    ])
}

fn time_series(out: &mut Vec<u8>, labels: &[u8], value: f64, at_ms: i64) {
    let mut sample = vec![0x09];
    sample.extend_from_slice(&value.to_le_bytes());
    sample.push(0x10);
    prost::encoding::encode_varint(at_ms as u64, &mut sample);
    out.push(0x0a);
    prost::encoding::encode_varint((labels.len() + 2 + sample.len()) as u64, out);
    out.extend_from_slice(labels);
    out.push(0x12);
    prost::encoding::encode_varint(sample.len() as u64, out);
    out.extend_from_slice(&sample);
}

fn request(body: &[u8]) -> Vec<u8> {
    let mut out = format!(
        "POST /api/v1/write HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-protobuf\r\n\
         Content-Encoding: snappy\r\nX-Prometheus-Remote-Write-Version: 0.1.0\r\nContent-Length: {}\r\n\r\n",
        body.len()
    )
    .into_bytes();
    out.extend_from_slice(body);
    out
}

/// Sends rounds in order, the requests of each shared out among the connections: a series always takes the same one,
/// so that its samples arrive in order.
fn send(address: &str, rounds: Vec<Vec<Vec<u8>>>, connections: usize) -> Result<()> {
    let rounds = Arc::new(rounds);
    let threads: Vec<_> = (0..connections)
        .map(|c| {
            let (rounds, address) = (rounds.clone(), address.to_owned());
            std::thread::spawn(move || -> Result<()> {
                let mut stream = TcpStream::connect(&address).context("connect")?;
                stream.set_nodelay(true)?;
                for round in rounds.iter() {
                    for request in round.iter().skip(c).step_by(connections) {
                        loop {
                            stream.write_all(request).context("send")?;
                            match answer(&mut stream)? {
                                200..=299 => break,
                                429 | 503 => std::thread::sleep(Duration::from_millis(20)),
                                status => bail!("the server answered {status}"),
                            }
                        }
                    }
                }
                Ok(())
            })
        })
        .collect();
    for thread in threads {
        match thread.join() {
            Ok(result) => result?,
            Err(_) => bail!("a connection's thread panicked"),
        }
    }
    Ok(())
}

/// Reads one answer and gives its status.
fn answer(stream: &mut TcpStream) -> Result<u16> {
    let mut buf = Vec::with_capacity(1024);
    let mut chunk = [0u8; 4096];
    let head_end = loop {
        if let Some(at) = buf.windows(4).position(|w| w == b"\r\n\r\n") {
            break at + 4;
        }
        let n = stream.read(&mut chunk).context("read the answer")?;
        ensure!(n > 0, "the server closed the connection");
        buf.extend_from_slice(&chunk[..n]);
    };
    let head = String::from_utf8_lossy(&buf[..head_end]).into_owned();
    let status = head.split(' ').nth(1).and_then(|s| s.parse().ok()).context("the answer has no status")?;
    let length: usize = head
        .lines()
        .filter_map(|l| l.split_once(':'))
        .find(|(n, _)| n.eq_ignore_ascii_case("content-length"))
        .and_then(|(_, v)| v.trim().parse().ok())
        .unwrap_or(0);
    let mut missing = (head_end + length).saturating_sub(buf.len());
    while missing > 0 {
        let n = stream.read(&mut chunk).context("read the answer")?;
        ensure!(n > 0, "the server closed the connection");
        missing = missing.saturating_sub(n);
    }
    Ok(status)
}

fn metric(address: &str, name: &str) -> Result<f64> {
    let text = get(address, "/metrics")?;
    text.lines()
        .filter_map(|l| l.split_once(' '))
        .find(|(n, _)| *n == name)
        .and_then(|(_, v)| v.trim().parse().ok())
        .with_context(|| format!("/metrics has no {name}"))
}

fn wait_scored(address: &str, at_least: u64) -> Result<()> {
    let begin = Instant::now();
    loop {
        let scored = metric(address, "nightshift_samples_scored_total")?;
        if scored >= at_least as f64 {
            return Ok(());
        }
        ensure!(
            begin.elapsed() < Duration::from_secs(300),
            "after 5 minutes {scored} of {at_least} samples are scored"
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}
