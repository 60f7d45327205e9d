//! Writes Markdown in which every sentence ends with the rows that it rests on.

use std::fmt::Write as _;

#[derive(Default)]
pub(crate) struct Pen {
    out: String,
}

/// `[#3][#7]`, in order and each once.
pub(crate) fn cite(rows: &[u64]) -> String {
    let mut rows = rows.to_vec();
    rows.sort_unstable();
    rows.dedup();
    rows.iter().map(|r| format!("[#{r}]")).collect()
}

impl Pen {
    pub(crate) fn heading(&mut self, level: usize, text: &str) {
        if !self.out.is_empty() {
            self.gap();
        }
        // Writing into a String cannot fail.
        let _ = writeln!(self.out, "{} {text}\n", "#".repeat(level));
    }

    /// Begins a new paragraph.
    pub(crate) fn gap(&mut self) {
        while self.out.ends_with([' ', '\n']) {
            self.out.pop();
        }
        self.out.push_str("\n\n");
    }

    /// A sentence of a paragraph.
    pub(crate) fn say(&mut self, text: &str, rows: &[u64]) {
        if !self.out.ends_with('\n') {
            self.out.push(' ');
        }
        let _ = write!(self.out, "{text} {}.", cite(rows));
    }

    /// A point of a list.
    pub(crate) fn point(&mut self, text: &str, rows: &[u64]) {
        let _ = writeln!(self.out, "- {text} {}", cite(rows));
    }

    /// The head of a table.
    pub(crate) fn columns(&mut self, names: &[&str]) {
        let _ = writeln!(self.out, "| {} |", names.join(" | "));
        let _ = writeln!(self.out, "|{}", " --- |".repeat(names.len()));
    }

    /// A row of a table; the rows of the journal stand in its last cell.
    pub(crate) fn cells(&mut self, cells: &[String], rows: &[u64]) {
        let _ = writeln!(self.out, "| {} {} |", cells.join(" | "), cite(rows));
    }

    pub(crate) fn finish(mut self) -> String {
        while self.out.ends_with([' ', '\n']) {
            self.out.pop();
        }
        self.out.push('\n');
        self.out
    }
}
