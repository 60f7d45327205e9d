//! Recorded series through the detectors: `cargo run --release -p nightshift-detect --example backtest_series -- DIR`
//! prints one JSON line a row, as `nightshift backtest metrics` does. CSV of `timestamp,value`.

use nightshift_detect::{MetricsConfig, SeriesBacktest};
use nightshift_model::Timestamp;
use std::io::Write as _;
use std::path::Path;

fn time(text: &str) -> Option<Timestamp> {
    if let Ok(secs) = text.parse::<f64>() {
        return Timestamp::from_secs_f64(secs);
    }
    let text = text.trim().replacen(' ', "T", 1);
    let zoned = if text.ends_with('Z') || text.contains('+') { text } else { format!("{text}Z") };
    Timestamp::parse_rfc3339(&zoned).ok()
}

fn main() -> std::io::Result<()> {
    let dir = std::env::args().nth(1).expect("the folder of the series");
    let mut config = MetricsConfig::default();
    if let Some(part) = std::env::args().nth(2) {
        config = serde_json::from_str(&part).expect("a configuration as JSON");
    }
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    let mut categories: Vec<_> = std::fs::read_dir(&dir)?.map(|e| e.map(|e| e.path())).collect::<Result<_, _>>()?;
    categories.sort();
    for category in categories {
        let mut files: Vec<_> = std::fs::read_dir(&category)?.map(|e| e.map(|e| e.path())).collect::<Result<_, _>>()?;
        files.sort();
        for file in files {
            let name = file.strip_prefix(Path::new(&dir)).unwrap_or(&file).display().to_string();
            let mut series = SeriesBacktest::new(&config);
            for (row, line) in std::fs::read_to_string(&file)?.lines().skip(1).enumerate() {
                let mut cells = line.split(',');
                let Some(at) = cells.next().and_then(time) else { continue };
                let v = series.row(at, cells.next().and_then(|c| c.trim().parse().ok()));
                let json = serde_json::json!({
                    "series": name, "row": row, "score": v.score, "alert": v.alert, "active": v.active,
                    "expected": v.expected, "kind": v.kind,
                });
                writeln!(out, "{json}")?;
            }
        }
    }
    out.flush()
}
