//! `backtest logs`: mine templates of whole files, then print each line's final group.

use super::table;
use crate::cli::LogFormat;
use crate::exit::{CommandResult, bad_input};
use anyhow::Context as _;
use nightshift_detect::logs::backtest::{LogFormat as Form, backtest_logs};
use std::io::{BufRead as _, BufWriter, Write as _};
use std::path::Path;
use std::time::Instant;

pub(super) fn run(inputs: &[String], format: LogFormat) -> CommandResult {
    let format = match format {
        LogFormat::Content => Form::Content,
        LogFormat::Raw => Form::Raw,
    };
    let mut out = BufWriter::with_capacity(1 << 20, std::io::stdout().lock());
    for input in inputs {
        let Some((name, file)) = input.split_once('=').filter(|(n, f)| !n.is_empty() && !f.is_empty()) else {
            return Err(bad_input(format!("--input `{input}` is not NAME=FILE")));
        };
        let mut lines = Vec::new();
        let mut reader = table::open(Path::new(file))?;
        let mut bytes = Vec::new();
        loop {
            bytes.clear();
            if reader.read_until(b'\n', &mut bytes).with_context(|| format!("read {file}"))? == 0 {
                break;
            }
            while bytes.last().is_some_and(|b| matches!(b, b'\n' | b'\r')) {
                bytes.pop();
            }
            lines.push(String::from_utf8_lossy(&bytes).into_owned());
        }
        let begin = Instant::now();
        let mined = backtest_logs(lines.iter().map(String::as_str), format);
        let seconds = begin.elapsed().as_secs_f64();
        let name = serde_json::to_string(name)?;
        // The texts are few and the lines many: each text is quoted once.
        let texts: Vec<String> =
            mined.templates.iter().map(|(_, text)| serde_json::to_string(text)).collect::<Result<_, _>>()?;
        for (i, template) in mined.lines.iter().enumerate() {
            let text = texts.get(*template as usize).map_or("\"\"", String::as_str);
            writeln!(
                out,
                "{{\"dataset\":{name},\"line\":{},\"template_id\":\"t{template}\",\"template\":{text}}}",
                i + 1
            )?;
        }
        writeln!(
            out,
            "{{\"dataset\":{name},\"lines\":{},\"templates\":{},\"seconds\":{seconds:.6}}}",
            lines.len(),
            texts.len()
        )?;
        out.flush()?;
    }
    Ok(())
}
