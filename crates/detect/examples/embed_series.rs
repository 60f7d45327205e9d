//! Recorded series through the shape layer alone:
//! `cargo run --release -p nightshift-detect --example embed_series -- DIR` prints one JSON line a row. Alarms are those of
//! the layer's own gate; the score is 0.5 at its threshold and 0 while it rests.

use nightshift_detect::metrics::embed::{Embed, Gate};
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
            let mut gate = Gate::default();
            for (&(row, ..), s) in samples.iter().zip(&told) {
                let score = if gate.rests() { 0.0 } else { s.nlp / (s.nlp + gate.threshold()) };
                let alert = gate.step(s.nlp);
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
