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

/// Mines one file in one pass with the default configuration; [`Self::finish`] tells the final group of each line.
///
/// Holds four bytes a line besides the templates: groups change until the last line is read, so each line's is asked
/// for at the end.
#[derive(Debug)]
pub struct FileMiner {
    miner: TemplateMiner,
    format: LogFormat,
    /// For each line, where in `seen` the template is that it was taken for.
    lines: Vec<u32>,
    /// The templates that lines were taken for, in the order in which they were first seen.
    seen: Vec<TemplateId>,
    /// For each place of the miner, where in `seen` its template is; `NONE` where not known.
    at_slot: Vec<u32>,
    rebuilt: u64,
    /// The begin of a line that goes on in the next bytes; `None`: the next byte begins a line.
    begun: Option<Vec<u8>>,
}

const NONE: u32 = u32::MAX;
/// Bytes of a line that are kept; the miner looks at fewer, a header takes some before.
const LINE_BYTES_MAX: usize = 64 << 10;

impl FileMiner {
    /// Nothing read yet.
    pub fn new(format: LogFormat) -> Self {
        // Nothing should leave: every line's group is asked for at the end.
        let miner = TemplateMiner::new(MinerConfig { templates_max: 1_000_000, ..MinerConfig::default() });
        Self { miner, format, lines: Vec::new(), seen: Vec::new(), at_slot: Vec::new(), rebuilt: 0, begun: None }
    }

    /// Reads the next bytes of the file, cut wherever the caller likes. Lines end with LF or CRLF.
    pub fn bytes(&mut self, bytes: &[u8]) {
        let mut at = 0;
        for end in memchr::memchr_iter(b'\n', bytes) {
            let line = &bytes[at..end];
            at = end + 1;
            match self.begun.take() {
                None => self.line(bare(&line[..line.len().min(LINE_BYTES_MAX)])),
                Some(mut begun) => {
                    extend(&mut begun, line);
                    self.line(bare(&begun));
                }
            }
        }
        if at < bytes.len() {
            extend(self.begun.get_or_insert_default(), &bytes[at..]);
        }
    }

    /// Learns the next line, without what ends it.
    #[inline]
    pub fn line(&mut self, line: &[u8]) {
        let line = match self.format {
            LogFormat::Content => line,
            LogFormat::Raw => super::header::split_bytes(line),
        };
        let (slot, _) = self.miner.learn_slot(line);
        let known = self.at_slot.get(slot as usize).copied().unwrap_or(NONE);
        let at = if known == NONE || self.rebuilt != self.miner.rebuilt() { self.enter(slot) } else { known };
        self.lines.push(at);
    }

    /// A template that no line was taken for since places were last given.
    #[cold]
    fn enter(&mut self, slot: u32) -> u32 {
        if self.rebuilt != self.miner.rebuilt() {
            self.rebuilt = self.miner.rebuilt();
            self.at_slot.clear();
        }
        let at = self.seen.len() as u32;
        self.seen.push(self.miner.id_at(slot).unwrap_or_default());
        if self.at_slot.len() <= slot as usize {
            self.at_slot.resize(slot as usize + 1, NONE);
        }
        self.at_slot[slot as usize] = at;
        at
    }

    /// The groups as they are after the last line. A template that left because there were more than a million has an
    /// empty text.
    pub fn finish(mut self) -> Mined {
        if let Some(begun) = self.begun.take() {
            self.line(bare(&begun));
        }
        let Self { miner, mut lines, seen, .. } = self;
        let mut templates = Vec::new();
        let mut index: BTreeMap<TemplateId, u32> = BTreeMap::new();
        let last: Vec<u32> = seen
            .into_iter()
            .map(|id| {
                let id = miner.resolve(id);
                let next = templates.len() as u32;
                *index.entry(id).or_insert_with(|| {
                    templates.push((id, miner.text(id).unwrap_or_default()));
                    next
                })
            })
            .collect();
        for at in &mut lines {
            *at = last[*at as usize];
        }
        Mined { lines, templates }
    }
}

fn bare(mut line: &[u8]) -> &[u8] {
    while let [rest @ .., b'\r'] = line {
        line = rest;
    }
    line
}

fn extend(begun: &mut Vec<u8>, more: &[u8]) {
    let room = LINE_BYTES_MAX.saturating_sub(begun.len());
    begun.extend_from_slice(&more[..more.len().min(room)]);
}

/// Mines `lines` in one pass with the default configuration and tells the final group of each.
pub fn backtest_logs<'a>(lines: impl IntoIterator<Item = &'a str>, format: LogFormat) -> Mined {
    let mut miner = FileMiner::new(format);
    for line in lines {
        miner.line(line.as_bytes());
    }
    miner.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The texts of the lines of a file that is read in pieces of `piece` bytes.
    fn texts(file: &[u8], piece: usize) -> Vec<String> {
        let mut miner = FileMiner::new(LogFormat::Content);
        for bytes in file.chunks(piece) {
            miner.bytes(bytes);
        }
        let mined = miner.finish();
        (0..mined.lines.len()).map(|i| mined.text(i).unwrap().to_owned()).collect()
    }

    #[test]
    fn lines_are_the_same_wherever_the_file_is_cut() {
        let file = b"one\r\n\n\r\r\nfour and more\nlast";
        for piece in 1..40 {
            assert_eq!(texts(file, piece), ["one", "", "", "four and more", "last"], "{piece}");
        }
        assert_eq!(texts(b"", 8), [""; 0]);
        assert_eq!(texts(b"\n", 8), [""]);
        assert_eq!(texts(b"a\n\r", 8), ["a", ""]);
    }

    #[test]
    fn a_line_without_end_is_cut_and_the_next_is_read() {
        let mut file = vec![b'x'; 3 * LINE_BYTES_MAX];
        file.extend_from_slice(b"\nnext\n");
        for piece in [1_000, LINE_BYTES_MAX, 1 << 20] {
            let texts = texts(&file, piece);
            assert!(texts.len() == 2 && texts[0].len() <= LINE_BYTES_MAX && texts[1] == "next", "{piece}");
        }
    }

    #[test]
    fn lines_keep_their_groups_when_the_miner_makes_room() {
        let mut miner = FileMiner::new(LogFormat::Content);
        miner.miner = TemplateMiner::new(MinerConfig { templates_max: 64, ..MinerConfig::default() });
        // Words without a digit in lines of different lengths: nothing is joined, and all are more than fit.
        let word = |i: usize| {
            [i / 17, i % 17].map(|d| char::from(b'a' + d as u8)).iter().collect::<String>().repeat(2 + i % 3)
        };
        for i in 0..200 {
            miner.line(format!("{} {}", word(i), vec!["x"; i].join(" ")).as_bytes());
            miner.line(b"comes again and again");
        }
        assert!(miner.rebuilt > 0, "it was full");
        let mined = miner.finish();
        let again: Vec<_> = (0..200).map(|i| mined.text(2 * i + 1)).collect();
        assert!(again.iter().all(|t| *t == Some("comes again and again")), "{again:?}");
    }
}
