//! `backtest metrics`: DIR/CATEGORY/NAME.csv through the metric layers, a row at a time. A series that cannot be read is
//! told on standard error and left out, the others are replayed all the same (exit 1 at the end).

use super::table;
use crate::exit::{CommandResult, Failure, bad_input};
use crate::settings::{Settings, print_problems};
use anyhow::{Context as _, Result, bail};
use nightshift_config::{Level, Loaded};
use nightshift_detect::backtest::SeriesBacktest;
use nightshift_detect::metrics::MetricsConfig;
use serde_json::json;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};

pub(super) fn run(dir: &Path, jobs: Option<usize>, config: Option<&Path>) -> CommandResult {
    let config = Arc::new(configuration(config)?);
    let files = series_files(dir)?;
    if files.is_empty() {
        return Err(bad_input(format!("{} has no CATEGORY/NAME.csv", dir.display())));
    }
    let jobs = jobs.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, |n| n.get())).clamp(1, 64);
    let next = AtomicUsize::new(0);
    let failed = std::thread::scope(|scope| -> Result<usize> {
        let (send, results) = mpsc::channel();
        for _ in 0..jobs {
            let send = send.clone();
            let (next, files, config) = (&next, &files, &config);
            scope.spawn(move || {
                loop {
                    let i = next.fetch_add(1, Ordering::Relaxed);
                    let Some((name, path)) = files.get(i) else { break };
                    // Nobody listens any more: printing failed.
                    if send.send((i, replay(name, path, config))).is_err() {
                        break;
                    }
                }
            });
        }
        drop(send);
        print_in_order(&results)
    })?;
    if failed > 0 {
        return Err(anyhow::anyhow!("{failed} of {} series were left out; see above why", files.len()).into());
    }
    Ok(())
}

/// The metric layers as `file` sets them; without a file the defaults, whatever the environment says: figures that are
/// compared must not depend on it.
fn configuration(file: Option<&Path>) -> Result<MetricsConfig, Failure> {
    let Some(file) = file else { return Ok(MetricsConfig::default()) };
    let Loaded { config, problems } = Settings::read(Some(file), Level::Error)?;
    if problems.has_errors() {
        print_problems(&problems);
        return Err(Failure::Reported);
    }
    Ok(config.detect.metrics)
}

/// Prints results in the order of names, whichever is ready first; gives the number of those that failed.
fn print_in_order(results: &mpsc::Receiver<(usize, Result<String>)>) -> Result<usize> {
    let mut out = std::io::stdout().lock();
    let (mut early, mut turn, mut failed) = (BTreeMap::new(), 0, 0);
    for (i, result) in results {
        early.insert(i, result);
        while let Some(result) = early.remove(&turn) {
            turn += 1;
            match result {
                Ok(lines) => out.write_all(lines.as_bytes()).and_then(|()| out.flush()).context("print")?,
                Err(e) => {
                    eprintln!("nightshift: {e:#}");
                    failed += 1;
                }
            }
        }
    }
    Ok(failed)
}

/// Every CATEGORY/NAME.csv[.gz] by name.
fn series_files(dir: &Path) -> Result<Vec<(String, PathBuf)>> {
    let mut files = Vec::new();
    for category in std::fs::read_dir(dir).with_context(|| format!("list {}", dir.display()))? {
        let category = category.with_context(|| format!("list {}", dir.display()))?.path();
        if !category.is_dir() {
            continue;
        }
        for file in std::fs::read_dir(&category).with_context(|| format!("list {}", category.display()))? {
            let file = file.with_context(|| format!("list {}", category.display()))?.path();
            let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if name.ends_with(".csv") || name.ends_with(".csv.gz") {
                let category = category.file_name().unwrap_or_default().to_string_lossy();
                files.push((format!("{category}/{}", name.trim_end_matches(".gz")), file));
            }
        }
    }
    files.sort();
    Ok(files)
}

fn replay(name: &str, path: &Path, config: &Arc<MetricsConfig>) -> Result<String> {
    let mut detector = SeriesBacktest::new(config);
    let mut out = String::new();
    let mut reader = table::csv(path)?;
    let header = reader.headers().with_context(|| format!("{} line 1", path.display()))?;
    if header.len() < 2 || header.get(0).is_none_or(|name| name.trim() != "timestamp") {
        bail!("{} line 1: no series; it must be timestamp,value", path.display());
    }
    for (row, record) in reader.into_records().enumerate() {
        let record = record.with_context(|| format!("read {} row {row}", path.display()))?;
        let stamp = record.get(0).unwrap_or_default();
        let Some(at) = table::time(stamp) else {
            eprintln!("{}: row {row}: `{stamp}` is no time, skipped", path.display());
            continue;
        };
        let verdict = detector.row(at, table::value(record.get(1).unwrap_or_default()));
        if verdict.score <= 0.0 && !verdict.alert && !verdict.active {
            continue;
        }
        let mut line = json!({
            "series": name, "row": row, "timestamp": stamp, "score": verdict.score, "alert": verdict.alert,
            "expected": verdict.expected, "kind": verdict.kind,
        });
        if verdict.active {
            line["active"] = true.into();
        }
        writeln!(out, "{line}").context("format")?;
    }
    Ok(out)
}
