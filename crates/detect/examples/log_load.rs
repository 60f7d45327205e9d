//! How many log lines a second one core mines.
//!
//! `cargo run --release -p nightshift-detect --example log_load -- FILE... [--lines N]` repeats the lines of the files
//! to N lines (2 million by default) and prints one line of JSON: masking and mining alone, then the whole detector
//! from batch to anomaly. Reading the files is not measured.

use nightshift_detect::logs::{LogConfig, LogDetector, MinerConfig, TemplateMiner};
use nightshift_model::batch::{BatchBuilder, BatchView};
use nightshift_model::proto::LogLine;
use nightshift_model::{EntityId, EntityMeta, Timestamp};
use std::time::Instant;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut files = Vec::new();
    let mut n_lines = 2_000_000usize;
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        if arg == "--lines" {
            n_lines = args.next().ok_or("give a number after --lines")?.parse()?;
        } else {
            files.push(arg);
        }
    }
    if files.is_empty() {
        return Err("give files of log messages, one a line".into());
    }
    let mut texts = Vec::new();
    for file in &files {
        texts.push(String::from_utf8_lossy(&std::fs::read(file)?).into_owned());
    }
    let lines: Vec<&str> = texts.iter().flat_map(|t| t.lines()).collect();
    if lines.is_empty() {
        return Err("the files hold no lines".into());
    }
    let all = || lines.iter().copied().cycle().take(n_lines);
    let bytes: usize = all().map(str::len).sum();

    let mut miner = TemplateMiner::new(MinerConfig::default());
    let begin = Instant::now();
    let mut new = 0u64;
    for line in all() {
        new += u64::from(miner.learn(line).is_new);
    }
    let mining = begin.elapsed().as_secs_f64();

    // As from the bus: batches of 5,000 lines, a thousand lines a second of event time.
    let mut payloads = Vec::new();
    let mut builder = BatchBuilder::default();
    let start = Timestamp::from_secs(1_767_225_600);
    for (i, line) in all().enumerate() {
        if builder.is_empty() {
            builder.entity(&EntityMeta::bare(EntityId::new("local", "host", "", "h")));
        }
        let time_ns = start.0 + i as i64 * 1_000_000;
        builder.log(&LogLine {
            time_ns,
            severity: 9,
            body: line.into(),
            fingerprint: i as u64 + 1,
            ..LogLine::default()
        });
        if builder.n_logs() == 5_000 {
            payloads.push((Timestamp(time_ns), builder.finish("load")));
        }
    }
    let mut detector = LogDetector::new(LogConfig::default())?;
    let mut out = Vec::new();
    let begin = Instant::now();
    let mut scored = 0;
    for (now, payload) in &payloads {
        scored += detector.step("default", &BatchView::parse(payload)?, *now, &mut out).lines;
    }
    let detecting = begin.elapsed().as_secs_f64();
    println!(
        "{{\"lines\":{n_lines},\"bytes\":{bytes},\"templates\":{},\"new\":{new},\"mine_seconds\":{mining:.3},\
         \"mine_lines_per_second\":{:.0},\"detect_lines\":{scored},\"detect_lines_per_second\":{:.0},\"anomalies\":{}}}",
        miner.len(),
        n_lines as f64 / mining,
        scored as f64 / detecting,
        out.len()
    );
    Ok(())
}
