//! `backtest logs`: mine templates of whole files, then print each line's final group.
//!
//! A line costs a copy of a text that was made once for its template; nothing is allocated per line, and of the lines
//! themselves nothing is kept but four bytes each.

use super::table;
use crate::cli::LogFormat;
use crate::exit::{CommandResult, bad_input};
use anyhow::{Context as _, Result};
use nightshift_detect::logs::backtest::{FileMiner, LogFormat as Form, Mined};
use std::io::{BufRead as _, Write};
use std::path::Path;
use std::time::Instant;

/// Bytes gathered before they are written: small enough to stay in the core's cache.
const OUT_BYTES: usize = 128 << 10;

pub(super) fn run(inputs: &[String], format: LogFormat) -> CommandResult {
    let format = match format {
        LogFormat::Content => Form::Content,
        LogFormat::Raw => Form::Raw,
    };
    let mut out = std::io::stdout().lock();
    for input in inputs {
        let Some((name, file)) = input.split_once('=').filter(|(n, f)| !n.is_empty() && !f.is_empty()) else {
            return Err(bad_input(format!("--input `{input}` is not NAME=FILE")));
        };
        let mut reader = table::open(Path::new(file))?;
        let begin = Instant::now();
        let mut miner = FileMiner::new(format);
        loop {
            let bytes = reader.fill_buf().with_context(|| format!("read {file}"))?;
            if bytes.is_empty() {
                break;
            }
            miner.bytes(bytes);
            let used = bytes.len();
            reader.consume(used);
        }
        let mined = miner.finish();
        print(&mut out, name, &mined, begin.elapsed().as_secs_f64())?;
    }
    Ok(())
}

/// Prints the group of each line, and how many there are.
fn print(out: &mut impl Write, name: &str, mined: &Mined, seconds: f64) -> Result<()> {
    let name = serde_json::to_string(name)?;
    let head = format!("{{\"dataset\":{name},\"line\":");
    // All that follows the number of the line, for each template.
    let mut tails = Vec::with_capacity(mined.templates.len());
    for (i, (_, text)) in mined.templates.iter().enumerate() {
        let text = serde_json::to_string(text)?;
        tails.push(format!(",\"template_id\":\"t{i}\",\"template\":{text}}}\n"));
    }
    let mut buffer: Vec<u8> = Vec::with_capacity(OUT_BYTES + (4 << 10));
    let mut number = Counter::default();
    for template in &mined.lines {
        buffer.extend_from_slice(head.as_bytes());
        buffer.extend_from_slice(number.next());
        buffer.extend_from_slice(tails.get(*template as usize).map_or(b"}\n".as_slice(), String::as_bytes));
        if buffer.len() >= OUT_BYTES {
            out.write_all(&buffer).context("print")?;
            buffer.clear();
        }
    }
    writeln!(
        buffer,
        "{{\"dataset\":{name},\"lines\":{},\"templates\":{},\"seconds\":{seconds:.6}}}",
        mined.lines.len(),
        mined.templates.len()
    )?;
    out.write_all(&buffer).and_then(|()| out.flush()).context("print")
}

/// Counts from 1 in decimal digits: adding one to a text is cheaper than making one from a number.
struct Counter {
    digits: [u8; 20],
    /// Where the first digit is.
    from: usize,
}

impl Default for Counter {
    fn default() -> Self {
        Self { digits: [b'0'; 20], from: 19 }
    }
}

impl Counter {
    fn next(&mut self) -> &[u8] {
        let mut i = self.digits.len() - 1;
        while i > 0 && self.digits[i] == b'9' {
            self.digits[i] = b'0';
            i -= 1;
        }
        self.digits[i] += 1;
        self.from = self.from.min(i);
        &self.digits[self.from..]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_counter_counts() {
        let mut counter = Counter::default();
        for want in 1..=20_100 {
            assert_eq!(counter.next(), want.to_string().as_bytes());
        }
    }
}
