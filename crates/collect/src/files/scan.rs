//! All files of one source: found, followed through rotation, their positions kept.
//!
//! Lives here: blocking file work, driven by [`Follower::poll`] and [`Follower::accept`]; time is passed in, so tests
//! rotate real files without waiting. Never here: the sink.

use super::Config;
use super::ReadFrom;
use super::multiline::Rule;
use super::positions::{self, FileId, Position};
use super::tail::{Start, Tail};
use glob::Pattern;
use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// Bytes read of one file before the next one has its turn.
const TURN_BYTES: usize = 256 << 10;

/// Most entries of a directory that are looked at to find a renamed file.
const SIBLINGS_MAX: usize = 10_000;

/// An entry of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Record {
    pub file: FileId,
    pub path: PathBuf,
    pub text: String,
    end: u64,
}

/// What a poll brought.
#[derive(Debug, Default)]
pub(crate) struct Polled {
    pub records: Vec<Record>,
    /// There is more to read at once.
    pub more: bool,
    /// Lines that were longer than the limit.
    pub cut: u64,
    /// Positions changed without any record: they should be saved all the same.
    pub dirty: bool,
}

/// The files of one source.
#[derive(Debug)]
pub(crate) struct Follower {
    config: Config,
    rule: Rule,
    exclude: Vec<Pattern>,
    state: PathBuf,
    tails: BTreeMap<FileId, Tail>,
    /// Positions of files that were not met yet in this run.
    saved: BTreeMap<FileId, Position>,
    /// When the state file was last written, by the file system's clock; `None`: there is none, this is the first start.
    state_written: Option<SystemTime>,
    scanned_ms: Option<u64>,
    /// Whose turn comes first.
    turn: usize,
    problems: BTreeMap<PathBuf, String>,
}

impl Follower {
    /// Reads the saved positions; opens nothing yet.
    ///
    /// # Errors
    /// The state file cannot be read.
    pub(crate) fn new(config: Config, rule: Rule, exclude: Vec<Pattern>, state: PathBuf) -> Result<Self, String> {
        let saved = positions::load(&state)?;
        let state_written = std::fs::metadata(&state).and_then(|data| data.modified()).ok();
        Ok(Self {
            config,
            rule,
            exclude,
            state,
            tails: BTreeMap::new(),
            saved,
            state_written,
            scanned_ms: None,
            turn: 0,
            problems: BTreeMap::new(),
        })
    }

    /// Files that are followed.
    pub(crate) fn files(&self) -> usize {
        self.tails.len()
    }

    /// What could not be read, with the reason.
    pub(crate) fn problems(&self) -> impl Iterator<Item = String> + '_ {
        self.problems.iter().map(|(path, why)| format!("{}: {why}", path.display()))
    }

    /// Whether some entry waits for time to pass.
    pub(crate) fn is_waiting(&self) -> bool {
        self.tails.values().any(Tail::is_waiting)
    }

    /// Looks for files when it is time to, and reads on. Nothing counts as read before [`Self::accept`].
    pub(crate) fn poll(&mut self, now_ms: u64) -> Polled {
        let mut out = Polled::default();
        if self.scanned_ms.is_none_or(|at| now_ms.saturating_sub(at) >= self.config.rescan_ms) {
            out.dirty = self.scan(now_ms);
            self.scanned_ms = Some(now_ms);
        }
        let ids: Vec<FileId> = self.tails.keys().copied().collect();
        for i in 0..ids.len() {
            let id = ids[(self.turn + i) % ids.len()];
            if out.records.len() >= self.config.batch_lines_max {
                self.turn = (self.turn + i) % ids.len();
                out.more = true;
                return out;
            }
            let Some(tail) = self.tails.get_mut(&id) else { continue };
            match tail.read(TURN_BYTES, self.config.line_bytes_max, now_ms) {
                Ok(read) => {
                    out.more |= read.bytes >= TURN_BYTES as u64;
                    out.cut += read.cut;
                    let path = tail.path.clone();
                    let record =
                        |e: super::multiline::Joined| Record { file: id, path: path.clone(), text: e.text, end: e.end };
                    out.records.extend(read.entries.into_iter().map(record));
                    out.dirty |= tail.finished;
                }
                Err(e) => {
                    self.problems.insert(tail.path.clone(), format!("read: {e}"));
                }
            }
        }
        out
    }

    /// The sink has taken these: they will not be read again.
    ///
    /// # Errors
    /// The positions could not be written.
    pub(crate) fn accept(&mut self, records: &[Record]) -> std::io::Result<()> {
        for record in records {
            if let Some(tail) = self.tails.get_mut(&record.file) {
                tail.committed = record.end;
            }
        }
        self.tails.retain(|_, tail| !tail.finished);
        let open: Vec<Position> = self.tails.values().map(Tail::position).collect();
        positions::save(&self.state, open.iter().chain(self.saved.values()))
    }

    /// Whether anything changed that must be saved.
    fn scan(&mut self, now_ms: u64) -> bool {
        let first = self.scanned_ms.is_none();
        self.problems.clear();
        // At the first start the state file is made even when there is nothing to follow: files that come while we are
        // away must be told from those that were there before us.
        let mut dirty = first && self.state_written.is_none();
        let mut seen: BTreeMap<FileId, PathBuf> = BTreeMap::new();
        for path in self.matching() {
            let data = match std::fs::metadata(&path) {
                Ok(data) if data.is_file() => data,
                Ok(_) => continue,
                // Gone since it was listed: it is rotated right now.
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => continue,
                Err(e) => {
                    self.problems.insert(path, e.to_string());
                    continue;
                }
            };
            let id = FileId { device: data.dev(), inode: data.ino() };
            if seen.contains_key(&id) {
                continue;
            }
            if !self.tails.contains_key(&id) {
                let saved = self.saved.remove(&id);
                // A path whose former file we followed was rotated while we were away: all of it is new.
                let replaced = || self.saved.values().any(|p| p.path == path);
                let new = || is_new(data.created().or_else(|_| data.modified()).ok(), self.state_written);
                let start = match &saved {
                    Some(position) => Start::Saved(position),
                    None if first && self.config.from == ReadFrom::End && !replaced() && !new() => Start::End,
                    None => Start::Beginning,
                };
                if !self.open(&path, start) {
                    self.saved.extend(saved.map(|p| (p.id, p)));
                    continue;
                }
                dirty = true;
            }
            seen.insert(id, path);
        }
        if first {
            for (path, position) in self.renamed() {
                if self.open(&path, Start::Saved(&position)) {
                    self.saved.remove(&position.id);
                }
            }
        }
        for (id, tail) in &mut self.tails {
            tail.seen(seen.get(id).map(PathBuf::as_path), now_ms);
        }
        // Files that are away for a while keep their position; of those that never return there is a bound.
        while self.saved.len() > self.config.files_max {
            self.saved.pop_first();
        }
        dirty
    }

    /// Opens a file; what is wrong with it is noted.
    fn open(&mut self, path: &Path, start: Start<'_>) -> bool {
        if self.tails.len() >= self.config.files_max {
            let why = format!("not followed: {} files are open already, raise files_max", self.tails.len());
            self.problems.insert(path.to_owned(), why);
            return false;
        }
        match Tail::open(path, start, self.rule.clone()) {
            Ok(tail) => {
                self.tails.insert(tail.id, tail);
                true
            }
            Err(e) => {
                self.problems.insert(path.to_owned(), e.to_string());
                false
            }
        }
    }

    /// Paths that the configuration names, in order.
    fn matching(&mut self) -> Vec<PathBuf> {
        let mut paths = Vec::new();
        for include in &self.config.include {
            // `build` has checked the pattern.
            let Ok(found) = glob::glob(include) else { continue };
            for path in found.take(self.config.files_max * 4) {
                match path {
                    Ok(path) if self.exclude.iter().any(|p| p.matches_path(&path)) => {}
                    Ok(path) => paths.push(path),
                    Err(e) => {
                        self.problems.insert(e.path().to_owned(), e.error().to_string());
                    }
                }
            }
        }
        paths.sort();
        paths.dedup();
        paths
    }

    /// Files that we followed and that lost their name while we were away (`app.log` became `app.log.1`): found by
    /// inode beside where they were, so that their last lines are read.
    fn renamed(&self) -> Vec<(PathBuf, Position)> {
        let mut found = Vec::new();
        for position in self.saved.values() {
            let Some(parent) = position.path.parent() else { continue };
            let Ok(entries) = std::fs::read_dir(parent) else { continue };
            let same = |path: &PathBuf| {
                std::fs::metadata(path)
                    .is_ok_and(|d| d.is_file() && d.ino() == position.id.inode && d.dev() == position.id.device)
            };
            let path = entries.take(SIBLINGS_MAX).filter_map(Result::ok).map(|e| e.path()).find(same);
            found.extend(path.map(|path| (path, position.clone())));
        }
        found
    }
}

/// Whether a file came after the state file was last written: while we were away, or at most ten seconds before, when
/// no look may have found it yet. At the very first start none is new.
fn is_new(created: Option<SystemTime>, state_written: Option<SystemTime>) -> bool {
    const MARGIN: Duration = Duration::from_secs(10);
    match (created, state_written) {
        (Some(created), Some(written)) => created + MARGIN >= written,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_that_came_while_away_are_told_from_old_ones() {
        let at = |secs| Some(SystemTime::UNIX_EPOCH + Duration::from_secs(secs));
        for (created, written, new) in [
            (at(100), at(50), true),
            (at(45), at(50), true),
            (at(30), at(50), false),
            (at(100), None, false),
            (None, at(50), false),
        ] {
            assert_eq!(is_new(created, written), new, "{created:?} {written:?}");
        }
    }
}
