//! `backtest metrics|logs|rca` from outside, on data made up here: the forms of input and output that scorers rely on,
//! and what bad input is answered.

#![expect(clippy::unwrap_used, reason = "a test may panic; clippy does not see that helpers are of tests")]

use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;
use std::process::Command;

/// What a command did.
struct Done {
    code: Option<i32>,
    out: String,
    err: String,
}

fn backtest(folder: &Path, args: &[&str]) -> Done {
    let mut command = Command::new(env!("CARGO_BIN_EXE_nightshift"));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("NIGHTSHIFT")) {
        command.env_remove(name);
    }
    let done = command.arg("backtest").args(args).current_dir(folder).env("HOME", folder).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Done { code: done.status.code(), out: text(done.stdout), err: text(done.stderr) }
}

impl Done {
    /// Asserts success and gives the JSON lines.
    #[track_caller]
    fn lines(&self) -> Vec<Value> {
        assert_eq!(self.code, Some(0), "stderr: {}", self.err);
        self.printed()
    }

    #[track_caller]
    fn printed(&self) -> Vec<Value> {
        self.out.lines().map(|l| serde_json::from_str(l).unwrap_or_else(|e| panic!("{e}: {l}"))).collect()
    }

    /// Asserts the exit code, and that each of `words` is on standard error.
    #[track_caller]
    fn fails(&self, code: i32, words: &[&str]) {
        assert_eq!(self.code, Some(code), "stdout: {}\nstderr: {}", self.out, self.err);
        for word in words {
            assert!(self.err.contains(word), "`{word}` is not in: {}", self.err);
        }
    }
}

/// Writes a file below a folder, packing it when its name ends in `.gz`.
fn write(folder: &Path, name: &str, content: &str) {
    let path = folder.join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let mut bytes = content.as_bytes().to_vec();
    if name.ends_with(".gz") {
        let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        packer.write_all(&bytes).unwrap();
        bytes = packer.finish().unwrap();
    }
    std::fs::write(path, bytes).unwrap();
}

/// Small steps up and down that look like noise and are the same in each run.
fn jitter(i: usize) -> f64 {
    ((i * 7_919 + 13) % 101) as f64 / 101.0 - 0.5
}

/// A value each five minutes; `spikes` are rows far above all others.
fn series(rows: usize, spikes: &[usize]) -> String {
    let mut out = String::from("timestamp,value\n");
    for i in 0..rows {
        let value = 100.0 + 4.0 * jitter(i) + if spikes.contains(&i) { 400.0 } else { 0.0 };
        writeln!(out, "{},{value:.3}", 1_400_000_000 + 300 * i).unwrap();
    }
    out
}

fn alerts(lines: &[Value], series: &str) -> Vec<u64> {
    lines.iter().filter(|l| l["series"] == series && l["alert"] == true).map(|l| l["row"].as_u64().unwrap()).collect()
}

#[test]
fn a_spike_alerts_once_and_jobs_change_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    // The first is the longest, so that with several jobs the others are ready before it.
    write(dir, "data/a/calm.csv", &series(2_500, &[]));
    write(dir, "data/b/spike.csv.gz", &series(1_000, &[800, 801, 802, 803]));
    write(dir, "data/c/calm.csv", &series(300, &[]));
    write(dir, "data/c/readme.txt", "not a series");
    let one = backtest(dir, &["metrics", "--series", "data", "--jobs", "1"]);
    let lines = one.lines();
    let rows = alerts(&lines, "b/spike.csv");
    assert!(rows.len() == 1 && (800..=803).contains(&rows[0]), "one alarm while it lasts: {rows:?}");
    assert_eq!(alerts(&lines, "a/calm.csv"), [0; 0]);
    assert_eq!(alerts(&lines, "c/calm.csv"), [0; 0]);
    let alert = lines.iter().find(|l| l["alert"] == true).unwrap();
    assert_eq!(alert["timestamp"], (1_400_000_000 + 300 * rows[0]).to_string());
    let expected = alert["expected"].as_f64().unwrap();
    assert!((90.0..110.0).contains(&expected), "{alert}");
    assert!(alert["kind"].is_string(), "{alert}");
    assert!(lines.iter().all(|l| (0.0..=1.0).contains(&l["score"].as_f64().unwrap())));
    for jobs in ["2", "5"] {
        assert_eq!(backtest(dir, &["metrics", "--series", "data", "--jobs", jobs]).out, one.out, "--jobs {jobs}");
    }
}

#[test]
fn a_score_depends_on_earlier_rows_only() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    write(dir, "whole/a/x.csv", &series(900, &[600, 601, 700]));
    write(dir, "begin/a/x.csv", &series(650, &[600, 601]));
    let whole = backtest(dir, &["metrics", "--series", "whole"]).lines();
    let begin = backtest(dir, &["metrics", "--series", "begin"]).lines();
    assert!(begin.iter().any(|l| l["row"] == 600), "the spike is seen");
    let before: Vec<Value> = whole.into_iter().filter(|l| l["row"].as_u64().unwrap() < 650).collect();
    assert_eq!(before, begin);
}

#[test]
fn series_that_cannot_be_read_are_told_and_the_others_replayed() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    backtest(dir, &["metrics", "--series", "nowhere"]).fails(1, &["nowhere"]);
    write(dir, "empty/a/readme.txt", "");
    backtest(dir, &["metrics", "--series", "empty"]).fails(2, &["no CATEGORY/NAME.csv"]);

    write(dir, "mixed/a/1.csv", "{\"this\": \"is not CSV\"}\n");
    std::fs::write(dir.join("mixed/a/2.csv.gz"), "not packed").unwrap();
    write(dir, "mixed/a/3.csv", "");
    write(dir, "mixed/a/4.csv", &series(1_000, &[800, 801, 802]));
    for jobs in ["1", "3"] {
        let done = backtest(dir, &["metrics", "--series", "mixed", "--jobs", jobs]);
        done.fails(1, &["1.csv line 1", "2.csv.gz line 1", "3.csv line 1", "3 of 4 series"]);
        assert_eq!(alerts(&done.printed(), "a/4.csv").len(), 1);
    }

    // A row without a time is skipped and named, a value that is none is missing; neither ends anything.
    let holes = series(1_000, &[800, 801, 802]).replacen("\n1400003000,", "\nsoon,", 1);
    write(dir, "holes/a/x.csv", &holes.replacen("\n1400006000,", "\n1400006000,none of ", 1));
    let done = backtest(dir, &["metrics", "--series", "holes"]);
    assert_eq!(alerts(&done.lines(), "a/x.csv").len(), 1);
    assert!(done.err.contains("row 10: `soon` is no time"), "{}", done.err);
}

#[test]
fn two_templates_are_mined_and_lines_keep_their_numbers() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    let mut text = String::new();
    for i in 0..40 {
        if i % 4 == 3 {
            writeln!(text, "Connection from 10.0.0.{i} closed by peer").unwrap();
        } else {
            writeln!(text, "Received block blk_{} of size {} from 10.1.0.{i}", 9_000 + i, 512 * i).unwrap();
        }
    }
    write(dir, "a.log", &text);
    write(dir, "b.log.gz", &text);
    let lines = backtest(dir, &["logs", "--input", "A=a.log", "--input", "B=b.log.gz"]).lines();
    let of = |set: &str| -> Vec<&Value> { lines.iter().filter(|l| l["dataset"] == set).collect() };
    for set in ["A", "B"] {
        let (last, each) = of(set).split_last().map(|(last, each)| ((*last).clone(), each.to_vec())).unwrap();
        assert_eq!((&last["lines"], &last["templates"]), (&40.into(), &2.into()), "{last}");
        assert!(last["line"].is_null() && last["seconds"].is_number(), "{last}");
        assert!(each.iter().enumerate().all(|(i, l)| l["line"] == i + 1));
        let mut ids: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for (i, l) in each.iter().enumerate() {
            let kind = if i % 4 == 3 { "closed" } else { "received" };
            ids.entry(kind).or_default().insert(l["template_id"].as_str().unwrap());
            let want = if i % 4 == 3 {
                "Connection from <*> closed by peer"
            } else {
                "Received block <*> of size <*> from <*>"
            };
            assert_eq!(l["template"], want);
        }
        assert!(ids.values().all(|of_kind| of_kind.len() == 1) && ids["closed"] != ids["received"], "{ids:?}");
    }
    // No state between files: the second reads as the first.
    let plain = |set: &str| of(set).iter().map(|l| l["template_id"].clone()).collect::<Vec<_>>();
    assert_eq!(plain("A"), plain("B"));

    backtest(dir, &["logs", "--input", "a.log"]).fails(2, &["`a.log` is not NAME=FILE"]);
    backtest(dir, &["logs", "--input", "A=none.log"]).fails(1, &["open none.log"]);
    std::fs::write(dir.join("bad.gz"), "not packed").unwrap();
    backtest(dir, &["logs", "--input", "A=bad.gz"]).fails(1, &["bad.gz"]);
    // Bytes that are no text are lines all the same.
    std::fs::write(dir.join("bytes.log"), b"ok \xff\xfe 1\n\nok \xff\xfe 2\r\n").unwrap();
    assert_eq!(backtest(dir, &["logs", "--input", "A=bytes.log"]).lines().len(), 4);
}

const GRAPH: &str = "caller,callee\nweb,shop\nshop,db\n";

/// Minutes of three services; from minute `ill` on the database takes longer and all above it wait for it.
fn minutes(from: usize, to: usize, ill: usize) -> String {
    let mut out =
        String::from("timestamp,web|latency_p95,shop|latency_p95,db|latency_p95,db|cpu_pct,(front)|latency_p95\n");
    for i in from..to {
        let longer = if i >= ill { 0.7 } else { 0.0 };
        let latency = |base: f64| base + base / 10.0 * jitter(i) + longer;
        let cpu = 20.0 + jitter(i);
        let (web, shop, db, front) = (latency(0.3), latency(0.2), latency(0.1), latency(0.4));
        writeln!(out, "{},{web},{shop},{db},{cpu},{front}", 60 * i).unwrap();
    }
    out
}

/// Files of one slow database, and the line that names them.
fn slow_database(dir: &Path) -> String {
    write(dir, "set/normal.csv.gz", &minutes(0, 60, usize::MAX));
    write(dir, "set/cases/1/metrics.csv", &minutes(100, 112, 105));
    write(dir, "set/graph.csv", GRAPH);
    r#"{"case":"db-slow","metrics":"cases/1/metrics.csv","normal":"normal.csv.gz","graph":"graph.csv",
        "alert":{"service":"web","metric":"latency_p95","timestamp":6300,"unknown":1},"unknown":{"a":[1]}}"#
        .replace('\n', " ")
}

fn services(line: &Value) -> Vec<&str> {
    line["ranking"].as_array().unwrap().iter().map(|r| r["service"].as_str().unwrap()).collect()
}

#[test]
fn the_cause_among_three_services_leads() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    let line = slow_database(dir);
    write(dir, "set/cases.jsonl", &format!("{line}\n\n{}\n", line.replace("db-slow", "again")));
    let run = |args: &[&str]| backtest(dir, &[&["rca", "--cases", "set/cases.jsonl"], args].concat()).lines();
    let lines = run(&[]);
    assert_eq!(lines.iter().map(|l| l["case"].as_str().unwrap()).collect::<Vec<_>>(), ["db-slow", "again"]);
    let first = &lines[0]["ranking"][0];
    assert_eq!((&first["service"], &first["metric"]), (&"db".into(), &"latency_p95".into()), "{:#}", lines[0]);
    assert!(first["score"].is_number() && !first["evidence"].as_array().unwrap().is_empty(), "{first}");
    assert!(lines[0]["elapsed_ms"].as_f64().unwrap() >= 0.0);
    let all = services(&lines[0]);
    assert!(["web", "shop", "db"].iter().all(|s| all.contains(s)) && !all.contains(&"(front)"), "{all:?}");
    // The second case takes its normal period from memory; nothing else differs.
    assert_eq!(lines[0]["ranking"], lines[1]["ranking"]);

    assert_eq!(run(&["--top", "1"])[0]["ranking"], Value::from(vec![first.clone()]));
    // Without the graph nobody is known to need anybody: nothing speaks of dependencies, and its file is not opened.
    std::fs::remove_file(dir.join("set/graph.csv")).unwrap();
    let blind = run(&["--no-graph"]);
    assert_eq!(services(&blind[0]).len(), all.len());
    assert_ne!(blind[0]["ranking"], lines[0]["ranking"]);
}

#[test]
fn logs_and_traces_count_unless_they_are_left_out() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    write(dir, "normal.csv", &minutes(0, 60, usize::MAX));
    write(dir, "metrics.csv", &minutes(100, 112, usize::MAX));
    write(dir, "graph.csv", GRAPH);
    // Columns in another order than usual, one nobody asked for, and a row cut short.
    let mut logs = String::from("service,message,time_unix_nano,level\ndb\n");
    for i in 0..40 {
        writeln!(logs, "db,\"disk {i} failed, giving up\",{},error", 6_300_000_000_000_i64 + i).unwrap();
    }
    write(dir, "logs.csv.gz", &logs);
    write(dir, "normal_logs.csv", "time_unix_nano,service,trace_id,span_id,message\n1,db,,,all is well\n");
    let spans = |ms: i64| {
        let mut out = String::from("start_unix_nano,end_unix_nano,trace_id,span_id,parent_id,service,operation\n");
        for i in 0..30 {
            let start = 6_300_000_000_000_i64 + i * 1_000_000_000;
            writeln!(out, "{start},{},t{i},a,root,shop,buy", start + ms * 1_000_000).unwrap();
        }
        out
    };
    write(dir, "traces.csv", &spans(900));
    write(dir, "normal_traces.csv.gz", &spans(20));
    let line = r#"{"case":"c","metrics":"metrics.csv","normal":"normal.csv","graph":"graph.csv","logs":"logs.csv.gz",
        "normal_logs":"normal_logs.csv","traces":"traces.csv","normal_traces":"normal_traces.csv.gz",
        "alert":{"service":null,"metric":null,"timestamp":6300}}"#;
    write(dir, "cases.jsonl", &line.replace('\n', " "));
    let run = |args: &[&str]| backtest(dir, &[&["rca", "--cases", "cases.jsonl"], args].concat());
    let shown = |done: &Done| -> BTreeSet<String> {
        let lines = done.lines();
        let ranking = lines[0]["ranking"].as_array().unwrap();
        ranking
            .iter()
            .map(|r| format!("{}|{}", r["service"].as_str().unwrap(), r["metric"].as_str().unwrap()))
            .collect()
    };
    let both = run(&[]);
    assert!(shown(&both).is_superset(&["db|log".to_owned(), "shop|trace".to_owned()].into()), "{}", both.out);
    assert!(
        both.err.contains("logs.csv.gz: 1 rows make no sense and were skipped, the first in line 2"),
        "{}",
        both.err
    );
    // What is left out is not even opened.
    std::fs::remove_file(dir.join("logs.csv.gz")).unwrap();
    std::fs::remove_file(dir.join("normal_logs.csv")).unwrap();
    let traces = shown(&run(&["--no-logs"]));
    assert!(traces.contains("shop|trace") && !traces.contains("db|log"), "{traces:?}");
    std::fs::remove_file(dir.join("traces.csv")).unwrap();
    std::fs::remove_file(dir.join("normal_traces.csv.gz")).unwrap();
    let neither = shown(&run(&["--no-logs", "--no-traces"]));
    assert!(!neither.contains("shop|trace") && !neither.contains("db|log"), "{neither:?}");
    run(&[]).fails(1, &["case `c`", "logs.csv.gz"]);
}

#[test]
fn a_cases_file_that_makes_no_sense_ends_the_command() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    let good = slow_database(dir);
    let run = |content: &str| {
        write(dir, "set/cases.jsonl", content);
        let done = backtest(dir, &["rca", "--cases", "set/cases.jsonl"]);
        assert_eq!(done.out, "", "nothing is ranked before the whole file is known");
        done
    };
    backtest(dir, &["rca", "--cases", "none.jsonl"]).fails(2, &["open none.jsonl"]);
    run("").fails(2, &["no case"]);
    run(&format!("{good}\nnot JSON\n")).fails(2, &["cases.jsonl line 2"]);
    run(&format!("{good}\n\n[1]\n")).fails(2, &["cases.jsonl line 3"]);
    run(&good.replace("\"case\"", "\"name\"")).fails(2, &["cases.jsonl line 1", "`case`"]);
    run(&good.replace("\"metrics\"", "\"tables\"")).fails(2, &["line 1", "`metrics`"]);
    run(&good.replace("6300", "\"soon\"")).fails(2, &["line 1", "soon"]);
    run(&good.replace("6300", "1e999")).fails(2, &["line 1"]);
    write(dir, "set/cases.jsonl", &good);
    backtest(dir, &["rca", "--cases", "set/cases.jsonl", "--top", "0"]).fails(2, &["--top 0"]);
}

#[test]
fn a_case_that_cannot_be_read_is_told_and_the_others_ranked() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    let good = slow_database(dir);
    write(dir, "set/text.csv", "{\"this\": \"is not CSV\"}\n");
    write(dir, "set/nothing.csv", "");
    write(dir, "set/edges.csv", "from,to\nweb,shop\n");
    std::fs::write(dir.join("set/packed.csv.gz"), "not packed").unwrap();
    let bad = [
        ("cases/1/metrics.csv", "none.csv", "open set/none.csv"),
        ("cases/1/metrics.csv", "text.csv", "set/text.csv line 1: no table of metrics"),
        ("cases/1/metrics.csv", "nothing.csv", "set/nothing.csv is empty"),
        ("normal.csv.gz", "packed.csv.gz", "set/packed.csv.gz line 1"),
        ("graph.csv", "edges.csv", "set/edges.csv line 1: no column `caller`"),
        ("graph.csv", "nothing.csv", "set/nothing.csv is empty"),
    ];
    let mut cases = String::new();
    for (i, (file, other, _)) in bad.iter().enumerate() {
        writeln!(cases, "{}", good.replace(file, other).replace("db-slow", &format!("bad-{i}"))).unwrap();
    }
    write(dir, "set/cases.jsonl", &format!("{cases}{good}\n"));
    let done = backtest(dir, &["rca", "--cases", "set/cases.jsonl"]);
    done.fails(1, &["6 of 7 cases were left out"]);
    for (i, (_, _, why)) in bad.iter().enumerate() {
        done.fails(1, &[&format!("case `bad-{i}`: {why}")]);
    }
    let printed = done.printed();
    assert_eq!((printed.len(), &printed[0]["case"]), (1, &"db-slow".into()));
    assert_eq!(printed[0]["ranking"][0]["service"], "db");
}

#[test]
fn a_layer_is_taken_away_by_a_file_and_a_bad_file_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    write(dir, "data/b/spike.csv", &series(1_000, &[800, 801, 802, 803]));
    let run = |config: &str| {
        write(dir, "part.toml", config);
        backtest(dir, &["metrics", "--series", "data", "--config", "part.toml"])
    };
    let defaults = backtest(dir, &["metrics", "--series", "data"]);
    assert_eq!(run("").out, defaults.out);
    assert_eq!(alerts(&defaults.lines(), "b/spike.csv").len(), 1);
    let without = run("[detect.metrics]\nwarmup_points = 10000\n");
    assert_eq!(alerts(&without.lines(), "b/spike.csv"), [0; 0]);
    run("[detect.metrics.ewma]\nenable = false\n").fails(2, &["part.toml", "enable"]);
    run("[detect.metrics]\nwarmup_points = 1\n").fails(2, &["warmup_points"]);
    backtest(dir, &["metrics", "--series", "data", "--config", "none.toml"]).fails(2, &["none.toml"]);
}

/// `make bench-quality` on data and scorers made up by its own tests: they need Python and this binary.
#[test]
fn the_quality_bench_measures_and_tells_what_is_missing() {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../bench/quality/test_quality.py");
    let done = Command::new("python3")
        .arg(tests)
        .env("NIGHTSHIFT_BINARY", env!("CARGO_BIN_EXE_nightshift"))
        .output()
        .expect("python3, which `make test` asks for");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
}
