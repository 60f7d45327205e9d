//! `backtest metrics`: DIR/CATEGORY/NAME.csv through the metric layers, a row at a time.

use super::table;
use crate::exit::{CommandResult, bad_input};
use anyhow::{Context as _, Result};
use nightshift_detect::backtest::SeriesBacktest;
use nightshift_detect::metrics::MetricsConfig;
use serde_json::json;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};

pub(super) fn run(dir: &Path, jobs: Option<usize>) -> CommandResult {
    let files = series_files(dir)?;
    if files.is_empty() {
        return Err(bad_input(format!("{} has no CATEGORY/NAME.csv", dir.display())));
    }
    let jobs = jobs.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, |n| n.get())).clamp(1, 64);
    let config = Arc::new(MetricsConfig::default());
    let next = AtomicUsize::new(0);
    // Printed in the order of names, whoever is ready first.
    let turn = (Mutex::new(0usize), Condvar::new());
    std::thread::scope(|scope| -> Result<()> {
        let workers: Vec<_> = (0..jobs)
            .map(|_| {
                scope.spawn(|| -> Result<()> {
                    loop {
                        let i = next.fetch_add(1, Ordering::Relaxed);
                        let Some((name, path)) = files.get(i) else { return Ok(()) };
                        let lines = replay(name, path, &config);
                        let mut whose = turn.0.lock().unwrap_or_else(|p| p.into_inner());
                        while *whose != i {
                            whose = turn.1.wait(whose).unwrap_or_else(|p| p.into_inner());
                        }
                        // The turn passes on also when this one failed: nobody waits for it.
                        *whose += 1;
                        turn.1.notify_all();
                        let mut out = std::io::stdout().lock();
                        out.write_all(lines?.as_bytes()).and_then(|()| out.flush()).context("print")?;
                    }
                })
            })
            .collect();
        for worker in workers {
            worker.join().unwrap_or_else(|_| Err(anyhow::anyhow!("a worker panicked")))?;
        }
        Ok(())
    })?;
    Ok(())
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
    for (row, record) in table::csv(path)?.into_records().enumerate() {
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
