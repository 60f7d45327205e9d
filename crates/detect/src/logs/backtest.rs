//! Mining of whole files, for `nightshift backtest logs`.

use super::miner::{MinerConfig, TemplateId, TemplateMiner};
use std::collections::BTreeMap;

/// How the lines of a file begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// Messages only.
    #[default]
    Content,
    /// With a header, which is guessed and left out.
    Raw,
}

/// What came of a file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Mined {
    /// For each line, the index of its template in `templates`.
    pub lines: Vec<u32>,
    /// The final templates, in the order in which they were first seen: id and text.
    pub templates: Vec<(TemplateId, String)>,
}

impl Mined {
    /// Text of the template of line `i` (from 0).
    pub fn text(&self, i: usize) -> Option<&str> {
        let template = *self.lines.get(i)?;
        self.templates.get(template as usize).map(|(_, text)| text.as_str())
    }
}

/// Mines `lines` in one pass with the default configuration and tells the final group of each.
pub fn backtest_logs<'a>(lines: impl IntoIterator<Item = &'a str>, format: LogFormat) -> Mined {
    // Nothing may leave: every line's group is asked for at the end.
    let mut miner = TemplateMiner::new(MinerConfig { templates_max: 1_000_000, ..MinerConfig::default() });
    let learned: Vec<TemplateId> = lines
        .into_iter()
        .map(|line| match format {
            LogFormat::Content => miner.learn(line).id,
            LogFormat::Raw => miner.learn(super::header::split(line)).id,
        })
        .collect();
    let mut mined = Mined { lines: Vec::with_capacity(learned.len()), templates: Vec::new() };
    let mut index: BTreeMap<TemplateId, u32> = BTreeMap::new();
    for id in learned {
        let id = miner.resolve(id);
        let next = mined.templates.len() as u32;
        let at = *index.entry(id).or_insert_with(|| {
            mined.templates.push((id, miner.text(id).unwrap_or_default()));
            next
        });
        mined.lines.push(at);
    }
    mined
}
