//! Ranks the recorded cases of a `cases.jsonl` and prints one JSON line each, in the form that the scorer reads:
//! `cargo run --release -p nightshift-diagnose --example rca_try -- CASES.jsonl [--no-logs] [--no-traces] [--no-graph]`.

use nightshift_diagnose::backtest::{Case, Frame, LogRow, SpanRow, rank_case};
use serde_json::{Value, json};
use std::error::Error;
use std::io::Read;
use std::path::Path;
use std::time::Instant;

type Rows = Vec<Vec<String>>;

fn rows(folder: &Path, name: &Value) -> Result<Rows, Box<dyn Error>> {
    let Some(name) = name.as_str() else { return Ok(Vec::new()) };
    let file = std::fs::File::open(folder.join(name)).map_err(|e| format!("open {name}: {e}"))?;
    let reader: Box<dyn Read> =
        if name.ends_with(".gz") { Box::new(flate2::read::MultiGzDecoder::new(file)) } else { Box::new(file) };
    let mut csv = csv::ReaderBuilder::new().has_headers(false).flexible(true).from_reader(reader);
    let mut out = Vec::new();
    for record in csv.byte_records() {
        out.push(record?.iter().map(|f| String::from_utf8_lossy(f).into_owned()).collect());
    }
    Ok(out)
}

fn frame(mut rows: Rows) -> Frame {
    if rows.is_empty() {
        return Frame::default();
    }
    let header = rows.remove(0);
    Frame::from_rows(&header, rows)
}

fn logs(rows: Rows) -> Vec<LogRow> {
    let one = |r: Vec<String>| {
        Some(LogRow { at_ns: r.first()?.parse().ok()?, service: r.get(1)?.clone(), message: r.get(4)?.clone() })
    };
    rows.into_iter().filter_map(one).collect()
}

fn spans(rows: Rows) -> Vec<SpanRow> {
    let one = |r: Vec<String>| {
        Some(SpanRow {
            start_ns: r.first()?.parse().ok()?,
            end_ns: r.get(1)?.parse().ok()?,
            trace_id: r.get(2)?.clone(),
            span_id: r.get(3)?.clone(),
            parent_id: r.get(4)?.clone(),
            service: r.get(5)?.clone(),
            operation: r.get(6)?.clone(),
        })
    };
    rows.into_iter().filter_map(one).collect()
}

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let without = |flag: &str| args.iter().any(|a| a == flag);
    let path = args.iter().find(|a| !a.starts_with("--")).ok_or("name a cases.jsonl")?;
    let folder = Path::new(path).parent().unwrap_or(Path::new("."));
    for line in std::fs::read_to_string(path)?.lines().filter(|l| !l.trim().is_empty()) {
        let v: Value = serde_json::from_str(line)?;
        let mut case = Case {
            metrics: frame(rows(folder, &v["metrics"])?),
            normal: frame(rows(folder, &v["normal"])?),
            alert_service: v["alert"]["service"].as_str().map(str::to_owned),
            alert_metric: v["alert"]["metric"].as_str().map(str::to_owned),
            alert_at: v["alert"]["timestamp"].as_f64().unwrap_or(0.0),
            ..Case::default()
        };
        if !without("--no-graph") {
            let pair = |r: Vec<String>| Some((r.first()?.clone(), r.get(1)?.clone()));
            case.graph = rows(folder, &v["graph"])?.into_iter().skip(1).filter_map(pair).collect();
        }
        if !without("--no-logs") {
            case.logs = logs(rows(folder, &v["logs"])?);
            case.normal_logs = logs(rows(folder, &v["normal_logs"])?);
        }
        if !without("--no-traces") {
            case.spans = spans(rows(folder, &v["traces"])?);
            case.normal_spans = spans(rows(folder, &v["normal_traces"])?);
        }
        let start = Instant::now();
        let ranking: Vec<Value> = rank_case(&case)
            .into_iter()
            .take(20)
            .map(|r| json!({"service": r.service, "metric": r.metric, "score": r.score, "evidence": r.evidence}))
            .collect();
        println!(
            "{}",
            json!({"case": v["case"], "ranking": ranking, "elapsed_ms": start.elapsed().as_millis() as u64})
        );
    }
    Ok(())
}
