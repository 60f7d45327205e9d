//! `backtest rca`: recorded cases through the ranking that runs live. Lives here: reading a case's tables, and one JSON
//! line for each. Does not: any judgement about them.
//!
//! What cannot be used is said, never guessed: a cases file that is not what it should be ends the command before
//! anything is ranked (exit 2); a case whose tables cannot be read is told on standard error and left out, the others
//! are ranked all the same (exit 1 at the end); a single row that makes no sense is skipped and counted.

use super::table;
use crate::exit::{CommandResult, Failure, bad_input};
use anyhow::{Context as _, Result, bail};
use nightshift_diagnose::backtest::{Case, Frame, LogRow, SpanRow, is_incident, rank_case};
use serde::Deserialize;
use serde_json::json;
use std::borrow::Cow;
use std::collections::HashSet;
use std::io::{BufRead as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

/// Which kinds of input are not even opened.
#[derive(Debug, Clone, Copy)]
pub(super) struct Without {
    pub(super) graph: bool,
    pub(super) logs: bool,
    pub(super) traces: bool,
}

/// A line of the cases file; keys that are not here are ignored.
#[derive(Debug, Deserialize)]
struct CaseLine {
    case: String,
    metrics: PathBuf,
    normal: Option<PathBuf>,
    graph: Option<PathBuf>,
    logs: Option<PathBuf>,
    normal_logs: Option<PathBuf>,
    traces: Option<PathBuf>,
    normal_traces: Option<PathBuf>,
    alert: Alert,
}

#[derive(Debug, Deserialize)]
struct Alert {
    service: Option<String>,
    metric: Option<String>,
    /// Unix seconds.
    timestamp: f64,
}

pub(super) fn run(cases: &Path, without: Without, top: usize) -> CommandResult {
    if top == 0 {
        return Err(bad_input("--top 0 asks for no entries; give 1 or more"));
    }
    let lines = case_lines(cases).map_err(Failure::BadInput)?;
    if lines.is_empty() {
        return Err(bad_input(format!("{} has no case; it must have a JSON object a line", cases.display())));
    }
    let folder = cases.parent().unwrap_or(Path::new("")).to_owned();
    let mut reader = Reader { folder, without, normal: None, normal_logs: None, normal_spans: None };
    let mut out = std::io::stdout().lock();
    let mut failed = 0usize;
    for line in &lines {
        let case = match reader.read(line) {
            Ok(case) => case,
            Err(e) => {
                eprintln!("nightshift: case `{}`: {e:#}", line.case);
                failed += 1;
                continue;
            }
        };
        let begin = Instant::now();
        let ranking = rank_case(&case);
        let elapsed_ms = begin.elapsed().as_micros() as f64 / 1_000.0;
        let incident = is_incident(&ranking);
        let ranking: Vec<_> = ranking
            .into_iter()
            .take(top)
            .map(|r| json!({"service": r.service, "metric": r.metric, "score": r.score, "evidence": r.evidence}))
            .collect();
        let answer = json!({"case": line.case, "incident": incident, "ranking": ranking, "elapsed_ms": elapsed_ms});
        writeln!(out, "{answer}").and_then(|()| out.flush()).context("print")?;
    }
    if failed > 0 {
        return Err(anyhow::anyhow!("{failed} of {} cases were left out; see above why", lines.len()).into());
    }
    Ok(())
}

fn case_lines(path: &Path) -> Result<Vec<CaseLine>> {
    let mut out = Vec::new();
    for (i, line) in table::open(path)?.lines().enumerate() {
        let at = || format!("{} line {}", path.display(), i + 1);
        let line = line.with_context(at)?;
        if !line.trim().is_empty() {
            out.push(serde_json::from_str(&line).with_context(at)?);
        }
    }
    Ok(out)
}

/// The last file read of one kind. Cases of one system lie side by side and share their normal period, which is by far
/// the largest of their files; one is kept, not all, so that memory does not grow with the number of cases.
type Last<T> = Option<(PathBuf, T)>;

/// Reads what the lines name.
struct Reader {
    /// Where relative paths begin.
    folder: PathBuf,
    without: Without,
    normal: Last<Frame>,
    normal_logs: Last<Vec<LogRow>>,
    normal_spans: Last<Vec<SpanRow>>,
}

impl Reader {
    fn read(&mut self, line: &CaseLine) -> Result<Case> {
        let at = |path: &Option<PathBuf>| path.as_ref().map(|p| self.folder.join(p));
        let (graph, logs, spans) = (at(&line.graph), at(&line.logs), at(&line.traces));
        let (normal, normal_logs, normal_spans) = (at(&line.normal), at(&line.normal_logs), at(&line.normal_traces));
        let mut case = Case {
            metrics: frame(&self.folder.join(&line.metrics))?,
            normal: shared(&mut self.normal, normal, frame)?,
            alert_service: line.alert.service.clone(),
            alert_metric: line.alert.metric.clone(),
            alert_at: line.alert.timestamp,
            ..Case::default()
        };
        if !self.without.graph {
            case.graph = graph.map(|p| edge_rows(&p)).transpose()?.unwrap_or_default();
        }
        if !self.without.logs {
            case.logs = logs.map(|p| log_rows(&p)).transpose()?.unwrap_or_default();
            case.normal_logs = shared(&mut self.normal_logs, normal_logs, log_rows)?;
        }
        if !self.without.traces {
            case.spans = spans.map(|p| span_rows(&p)).transpose()?.unwrap_or_default();
            case.normal_spans = shared(&mut self.normal_spans, normal_spans, span_rows)?;
        }
        Ok(case)
    }
}

/// The file's content, read only when it is another than the last one.
fn shared<T: Clone + Default>(last: &mut Last<T>, path: Option<PathBuf>, read: fn(&Path) -> Result<T>) -> Result<T> {
    let Some(path) = path else { return Ok(T::default()) };
    if let Some((known, value)) = last
        && *known == path
    {
        return Ok(value.clone());
    }
    let value = read(&path)?;
    *last = Some((path, value.clone()));
    Ok(value)
}

/// A wide table: `timestamp,SERVICE|METRIC,…`.
fn frame(path: &Path) -> Result<Frame> {
    let mut rows: Vec<Vec<String>> = Vec::new();
    let mut header = Vec::new();
    each_record(path, |record| {
        if header.is_empty() {
            header = record.iter().map(|f| String::from_utf8_lossy(f).trim().to_owned()).collect();
            if header.first().is_none_or(|name| name != "timestamp") {
                bail!("no table of metrics: its first line must be timestamp,SERVICE|METRIC,…");
            }
            return Ok(true);
        }
        let row: Vec<String> = record.iter().map(|f| String::from_utf8_lossy(f).into_owned()).collect();
        let usable = row.first().is_some_and(|at| table::value(at).is_some());
        if usable {
            rows.push(row);
        }
        Ok(usable)
    })?;
    if header.is_empty() {
        bail!("{} is empty; its first line must be timestamp,SERVICE|METRIC,…", path.display());
    }
    Ok(Frame::from_rows(&header, rows))
}

fn edge_rows(path: &Path) -> Result<Vec<(String, String)>> {
    named_rows(path, ["caller", "callee"], |[caller, callee]| Some((caller.into_owned(), callee.into_owned())))
}

fn log_rows(path: &Path) -> Result<Vec<LogRow>> {
    let mut names = Names::default();
    let columns = ["time_unix_nano", "service", "message", "?trace_id", "?span_id"];
    named_rows(path, columns, |[at, service, message, trace_id, span_id]| {
        Some(LogRow {
            at_ns: at.parse().ok()?,
            service: names.shared(&service),
            trace_id: (&*trace_id).into(),
            span_id: (&*span_id).into(),
            message: message.into_owned(),
        })
    })
}

fn span_rows(path: &Path) -> Result<Vec<SpanRow>> {
    let mut names = Names::default();
    let columns = ["start_unix_nano", "end_unix_nano", "trace_id", "span_id", "parent_id", "service", "operation"];
    named_rows(path, columns, |[start, end, trace_id, span_id, parent_id, service, operation]| {
        Some(SpanRow {
            start_ns: start.parse().ok()?,
            end_ns: end.parse().ok()?,
            trace_id: (&*trace_id).into(),
            span_id: (&*span_id).into(),
            parent_id: (&*parent_id).into(),
            service: names.shared(&service),
            operation: names.shared(&operation),
        })
    })
}

/// Names that occur in many rows, each kept once.
#[derive(Default)]
struct Names(HashSet<Arc<str>>);

impl Names {
    fn shared(&mut self, name: &str) -> Arc<str> {
        if let Some(known) = self.0.get(name) {
            return known.clone();
        }
        let name: Arc<str> = name.into();
        self.0.insert(name.clone());
        name
    }
}

/// Rows of a table by the names of its columns, in whatever order they stand; other columns are ignored. A name that
/// begins with `?` may be missing: its fields are empty then.
fn named_rows<const N: usize, T>(
    path: &Path,
    names: [&str; N],
    mut read: impl FnMut([Cow<'_, str>; N]) -> Option<T>,
) -> Result<Vec<T>> {
    let mut out = Vec::new();
    let mut places: Option<[Option<usize>; N]> = None;
    each_record(path, |record| {
        let Some(places) = places else {
            let mut found = [None; N];
            for (place, name) in found.iter_mut().zip(names) {
                let (name, is_needed) = name.strip_prefix('?').map_or((name, true), |name| (name, false));
                *place = record.iter().position(|f| f.trim_ascii() == name.as_bytes());
                if is_needed && place.is_none() {
                    bail!("no column `{name}`");
                }
            }
            places = Some(found);
            return Ok(true);
        };
        if places.iter().flatten().any(|place| *place >= record.len()) {
            return Ok(false);
        }
        let field = |place: Option<usize>| place.map_or(Cow::Borrowed(""), |i| String::from_utf8_lossy(&record[i]));
        let row = read(places.map(field));
        let usable = row.is_some();
        out.extend(row);
        Ok(usable)
    })?;
    if places.is_none() {
        bail!("{} is empty; its first line must name {}", path.display(), names.join(", "));
    }
    Ok(out)
}

/// Calls `take` with the header and each record after it. It says whether the record could be used; how many could not
/// is told once for each file.
fn each_record(path: &Path, mut take: impl FnMut(&csv::ByteRecord) -> Result<bool>) -> Result<()> {
    let mut reader = csv::ReaderBuilder::new().has_headers(false).flexible(true).from_reader(table::open(path)?);
    let mut record = csv::ByteRecord::new();
    let (mut skipped, mut first) = (0u64, 0);
    loop {
        let more = reader.read_byte_record(&mut record);
        let line = record.position().map_or(reader.position().line(), csv::Position::line);
        let at = || format!("{} line {line}", path.display());
        if !more.with_context(at)? {
            break;
        }
        if !take(&record).with_context(at)? {
            first = if skipped == 0 { line } else { first };
            skipped += 1;
        }
    }
    if skipped > 0 {
        eprintln!("{}: {skipped} rows make no sense and were skipped, the first in line {first}", path.display());
    }
    Ok(())
}
