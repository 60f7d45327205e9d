//! One file, followed: its bytes become lines, its lines entries.
//!
//! Lives here: reading on where we stopped, noticing that the file was emptied under us, the bound of a line.
//! Never here: which files there are (`scan`), what was taken by the sink (`mod`).

use super::multiline::{Joined, Joiner, Rule};
use super::positions::{FileId, HEAD_BYTES_MAX, Head, Position};
use crate::lines::clean;
use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

/// How long the start of a line without an end waits for the rest, milliseconds.
const PARTIAL_WAIT_MS: u64 = 5_000;

/// How long a file that lost its name is still read: its writer may not have noticed yet, milliseconds.
const GONE_WAIT_MS: u64 = 5_000;

/// Bytes of one read.
const READ_BYTES: usize = 64 << 10;

/// What was read of one file.
#[derive(Debug, Default)]
pub(crate) struct Read {
    pub entries: Vec<Joined>,
    pub bytes: u64,
    /// Lines that were longer than the limit.
    pub cut: u64,
}

/// One file, open.
#[derive(Debug)]
pub(crate) struct Tail {
    pub path: PathBuf,
    pub id: FileId,
    file: File,
    head: Head,
    /// Bytes that the sink has taken, from the start of the file.
    pub committed: u64,
    /// Where the next read begins.
    next: u64,
    /// The line that has begun and not ended.
    partial: Vec<u8>,
    /// Bytes of that line that were not kept: it is over the limit.
    missing: u64,
    touched_ms: u64,
    joiner: Joiner,
    /// Since when no path that we follow leads here.
    gone_since_ms: Option<u64>,
    /// All was read and nothing will follow.
    pub finished: bool,
}

/// Where a file that is newly opened is read from.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Start<'a> {
    /// Its first byte.
    Beginning,
    /// What comes from now on.
    End,
    /// Where we stopped, if it is still that file.
    Saved(&'a Position),
}

impl Tail {
    pub(crate) fn open(path: &Path, start: Start<'_>, rule: Rule) -> io::Result<Self> {
        let file = File::open(path)?;
        let data = file.metadata()?;
        if !data.is_file() {
            return Err(io::Error::other("not a regular file"));
        }
        let mut head = [0; HEAD_BYTES_MAX];
        let n = read_head(&file, &mut head)?;
        let offset = match start {
            Start::Beginning => 0,
            Start::End => data.len(),
            // An emptied file, or another one that got its inode, is new.
            Start::Saved(saved) if saved.offset <= data.len() && saved.head.matches(&head[..n]) => saved.offset,
            Start::Saved(_) => 0,
        };
        Ok(Self {
            path: path.to_owned(),
            id: FileId { device: data.dev(), inode: data.ino() },
            file,
            head: Head::of(&head[..n]),
            committed: offset,
            next: offset,
            partial: Vec::new(),
            missing: 0,
            touched_ms: 0,
            joiner: Joiner::new(rule),
            gone_since_ms: None,
            finished: false,
        })
    }

    pub(crate) fn position(&self) -> Position {
        Position { id: self.id, path: self.path.clone(), head: self.head, offset: self.committed }
    }

    /// A scan found it (under `path`), or did not.
    pub(crate) fn seen(&mut self, path: Option<&Path>, now_ms: u64) {
        match path {
            Some(path) => {
                if self.path != path {
                    path.clone_into(&mut self.path);
                }
                self.gone_since_ms = None;
            }
            None => {
                self.gone_since_ms.get_or_insert(now_ms);
            }
        }
    }

    /// Reads on, at most about `budget` bytes.
    pub(crate) fn read(&mut self, budget: usize, line_max: usize, now_ms: u64) -> io::Result<Read> {
        let mut out = Read::default();
        let len = self.file.metadata()?.len();
        if len != self.next {
            let mut head = [0; HEAD_BYTES_MAX];
            let n = read_head(&self.file, &mut head)?;
            if len < self.next || !self.head.matches(&head[..n]) {
                self.emptied(&mut out);
            }
            self.head = Head::of(&head[..n]);
        }
        let mut chunk = vec![0; READ_BYTES.min(budget.max(1))];
        let mut at_end = false;
        while out.bytes < budget as u64 {
            let n = self.file.read_at(&mut chunk, self.next)?;
            if n == 0 {
                at_end = true;
                break;
            }
            self.take(&chunk[..n], line_max, now_ms, &mut out);
            out.bytes += n as u64;
        }
        if at_end {
            self.at_end(now_ms, &mut out);
        }
        Ok(out)
    }

    /// Splits bytes that begin at `self.next` into lines.
    fn take(&mut self, mut bytes: &[u8], line_max: usize, now_ms: u64, out: &mut Read) {
        self.touched_ms = now_ms;
        while !bytes.is_empty() {
            let newline = memchr::memchr(b'\n', bytes);
            let part = &bytes[..newline.unwrap_or(bytes.len())];
            let kept = part.len().min(line_max.saturating_sub(self.partial.len()));
            self.partial.extend_from_slice(&part[..kept]);
            self.missing += (part.len() - kept) as u64;
            let taken = part.len() + usize::from(newline.is_some());
            self.next += taken as u64;
            bytes = &bytes[taken..];
            if newline.is_some() {
                self.line_done(now_ms, out);
            }
        }
    }

    fn line_done(&mut self, now_ms: u64, out: &mut Read) {
        let mut text = clean(&self.partial);
        if text.ends_with('\r') {
            text.pop();
        }
        self.partial.clear();
        if self.missing > 0 {
            text.push_str(&format!(" … [{} bytes cut]", self.missing));
            out.cut += 1;
            self.missing = 0;
        }
        if !text.trim().is_empty() {
            out.entries.extend(self.joiner.push(text, self.next, now_ms));
        }
    }

    fn at_end(&mut self, now_ms: u64, out: &mut Read) {
        let idle_ms = now_ms.saturating_sub(self.touched_ms);
        let gone =
            self.gone_since_ms.is_some_and(|since| now_ms.saturating_sub(since.max(self.touched_ms)) >= GONE_WAIT_MS);
        if !self.partial.is_empty() && (gone || idle_ms >= PARTIAL_WAIT_MS) {
            self.line_done(now_ms, out);
        }
        out.entries.extend(if gone { self.joiner.finish() } else { self.joiner.due(now_ms) });
        self.finished = gone;
    }

    /// It was emptied (`copytruncate`), or filled anew: what we hold of it is given out, and all of it is new.
    fn emptied(&mut self, out: &mut Read) {
        self.next = 0;
        if !self.partial.is_empty() {
            self.line_done(self.touched_ms, out);
        }
        out.entries.extend(self.joiner.finish());
        for entry in &mut out.entries {
            entry.end = 0;
        }
        // At once, not when the sink has taken it: the old position means nothing in the new content.
        self.committed = 0;
    }

    /// Whether something waits here for time to pass.
    pub(crate) const fn is_waiting(&self) -> bool {
        !self.partial.is_empty() || self.joiner.is_waiting() || self.gone_since_ms.is_some()
    }
}

fn read_head(file: &File, head: &mut [u8]) -> io::Result<usize> {
    let mut n = 0;
    while n < head.len() {
        match file.read_at(&mut head[n..], n as u64) {
            Ok(0) => break,
            Ok(more) => n += more,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(n)
}
