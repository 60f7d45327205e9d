//! Ranks recorded cases from plain text, for quick turns while the ranking is worked on; `nightshift backtest rca` is
//! the real thing and reads the same cases in all their formats.
//!
//! Usage: rank_cases FOLDER [--no-graph] [--shift SECONDS] [--drop SEED PERCENT], with FOLDER/index.tsv of lines
//! `case<TAB>metrics<TAB>normal<TAB>graph<TAB>alert service<TAB>alert metric<TAB>alert time` (tab-separated tables).

use nightshift_diagnose::backtest::{Case, Frame, rank_case};
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

fn frame(path: &Path) -> std::io::Result<Frame> {
    let text = std::fs::read_to_string(path)?;
    let mut lines = text.lines().map(|l| l.split('\t').map(str::to_owned).collect::<Vec<_>>());
    let header = lines.next().unwrap_or_default();
    Ok(Frame::from_rows(&header, lines))
}

/// A hash of a name, so that the same columns are left out whatever their order.
fn hash(text: &str, seed: u64) -> u64 {
    text.bytes().fold(seed ^ 0xcbf2_9ce4_8422_2325, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3))
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().collect();
    let after = |name: &str, n: usize| args.iter().position(|a| a == name).and_then(|i| args.get(i + n));
    let number = |name: &str, n: usize| after(name, n).and_then(|v| v.parse::<f64>().ok()).unwrap_or(0.0);
    let folder = Path::new(args.get(1).ok_or("give a folder")?);
    let (no_graph, shift) = (args.iter().any(|a| a == "--no-graph"), number("--shift", 1));
    let (seed, percent) = (number("--drop", 1) as u64, number("--drop", 2) as u64);
    let mut normals: BTreeMap<String, Frame> = BTreeMap::new();
    for line in std::fs::read_to_string(folder.join("index.tsv"))?.lines() {
        let [name, metrics, normal, graph, service, metric, at] = line.split('\t').collect::<Vec<_>>()[..] else {
            return Err(format!("not seven fields: {line}").into());
        };
        let some = |s: &str| (!s.is_empty()).then(|| s.to_owned());
        if !normals.contains_key(normal) {
            normals.insert(normal.to_owned(), frame(&folder.join(normal))?);
        }
        let mut case = Case {
            metrics: frame(&folder.join(metrics))?,
            normal: normals[normal].clone(),
            alert_service: some(service),
            alert_metric: some(metric),
            alert_at: at.parse::<f64>()? + shift,
            ..Case::default()
        };
        if percent > 0 {
            let kept = |key: &(String, String)| {
                hash(&format!("{name}|{}|{}", key.0, key.1), seed) >> 20 & 127 >= percent * 128 / 100
            };
            case.metrics.columns.retain(|key, _| kept(key));
        }
        if !no_graph {
            let edges = std::fs::read_to_string(folder.join(graph))?;
            case.graph = edges.lines().filter_map(|l| l.split_once('\t')).map(|(a, b)| (a.into(), b.into())).collect();
        }
        let begin = Instant::now();
        let ranking = rank_case(&case);
        let elapsed = begin.elapsed().as_secs_f64() * 1e3;
        let entries: Vec<String> = ranking
            .iter()
            .take(20)
            .map(|r| {
                let evidence: Vec<String> = r.evidence.iter().map(|e| format!("{e:?}")).collect();
                format!(
                    "{{\"service\":{:?},\"metric\":{:?},\"score\":{:.3},\"evidence\":[{}]}}",
                    r.service,
                    r.metric,
                    r.score,
                    evidence.join(",")
                )
            })
            .collect();
        println!("{{\"case\":{name:?},\"ranking\":[{}],\"elapsed_ms\":{elapsed:.3}}}", entries.join(","));
    }
    Ok(())
}
