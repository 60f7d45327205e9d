//! Recorded series through the shape layer alone:
//! `cargo run --release -p nightshift-detect --example embed_series -- DIR [THRESHOLD [REST]]` prints one JSON line a row.
//! An alarm at the threshold (-log10 probability) silences the next REST rows; the score is nlp / (nlp + threshold).

use nightshift_detect::metrics::embed::Embed;
use nightshift_model::Timestamp;
use std::io::Write as _;
use std::path::Path;

/// Threshold of an alarm, -log10 of the probability.
const THRESHOLD: f32 = 2.1;
/// Rows of silence after an alarm.
const REST: usize = 120;

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
    let threshold = std::env::args().nth(2).map_or(THRESHOLD, |t| t.parse().expect("a number"));
    let rest = std::env::args().nth(3).map_or(REST, |t| t.parse().expect("a number of rows"));
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    let mut categories: Vec<_> = std::fs::read_dir(&dir)?.map(|e| e.map(|e| e.path())).collect::<Result<_, _>>()?;
    categories.sort();
    let (mut rows, mut spent) = (0_u32, std::time::Duration::ZERO);
    for category in categories {
        let mut files: Vec<_> = std::fs::read_dir(&category)?.map(|e| e.map(|e| e.path())).collect::<Result<_, _>>()?;
        files.sort();
        for file in files {
            let name = file.strip_prefix(Path::new(&dir)).unwrap_or(&file).display().to_string();
            let text = std::fs::read_to_string(&file)?;
            let samples: Vec<_> = (text.lines().skip(1).enumerate())
                .filter_map(|(row, line)| {
                    let mut cells = line.split(',');
                    Some((row, time(cells.next()?)?.0, cells.next()?.trim().parse::<f64>().ok()?))
                })
                .collect();
            let mut embed = Box::<Embed>::default();
            let start = std::time::Instant::now();
            let told: Vec<_> = samples.iter().map(|&(_, at, value)| embed.step(at, value)).collect();
            spent += start.elapsed();
            rows += samples.len() as u32;
            let mut quiet_until = 0;
            for (&(row, ..), s) in samples.iter().zip(&told) {
                let alert = row >= quiet_until && s.nlp >= threshold;
                let score = if row < quiet_until { 0.0 } else { s.nlp / (s.nlp + threshold) };
                if alert {
                    quiet_until = row + rest + 1;
                }
                let json = serde_json::json!({
                    "series": name, "row": row, "score": score, "alert": alert, "nlp": s.nlp, "novelty": s.novelty,
                });
                writeln!(out, "{json}")?;
            }
        }
    }
    eprintln!("{rows} rows, {:?} a row, {} bytes a series", spent / rows.max(1), size_of::<Embed>());
    out.flush()
}
