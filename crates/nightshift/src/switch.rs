//! The kill switch: one file in the data folder, so that it works with and without a server.
//!
//! Whoever may write into the data folder may stop all execution. The service looks at the file at every turn; what is
//! not readable counts as on.

use anyhow::Result;
use nightshift_model::{KillSwitch, Timestamp};
use parking_lot::RwLock;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// Name of the file.
pub const SWITCH_FILE: &str = "kill-switch.json";
/// Longest file that is read; ours have some hundred bytes.
const FILE_BYTES_MAX: u64 = 64 << 10;

/// What was last seen of the file, to read it only when it changed.
type Seen = Option<(SystemTime, u64)>;

/// The switch of this installation. All users share one.
#[derive(Debug, Default)]
pub struct SwitchBoard {
    /// `None`: in memory only (tests, simulation).
    file: Option<PathBuf>,
    state: RwLock<(Seen, Option<KillSwitch>)>,
}

impl SwitchBoard {
    /// The switch of a data folder, as it stands.
    pub fn of_folder(data: &Path) -> Self {
        let board = Self { file: Some(data.join(SWITCH_FILE)), state: RwLock::default() };
        board.look();
        board
    }

    /// How it stands; `None`: it was never touched.
    pub fn state(&self) -> Option<KillSwitch> {
        self.state.read().1.clone()
    }

    /// Whether execution is stopped.
    pub fn is_on(&self) -> bool {
        self.state.read().1.as_ref().is_some_and(|s| s.on)
    }

    /// Looks at the file. Gives the switch when somebody beside us turned it since.
    pub fn look(&self) -> Option<KillSwitch> {
        let file = self.file.as_ref()?;
        let seen = std::fs::metadata(file).ok().and_then(|about| Some((about.modified().ok()?, about.len())));
        if seen == self.state.read().0 {
            return None;
        }
        let found = read(file);
        let mut state = self.state.write();
        state.0 = seen;
        if state.1 == found {
            return None;
        }
        state.1.clone_from(&found);
        found
    }

    /// Turns it, durably.
    ///
    /// # Errors
    /// When the file cannot be written; the switch in memory is turned all the same when it is turned on.
    pub fn turn(&self, switch: KillSwitch) -> Result<()> {
        let written = match &self.file {
            Some(file) => write(file, &switch),
            None => Ok(()),
        };
        if written.is_ok() || switch.on {
            self.state.write().1 = Some(switch);
        }
        written
    }
}

/// The switch of a data folder, for commands without a server. `None`: it was never touched.
pub fn read_folder(data: &Path) -> Option<KillSwitch> {
    read(&data.join(SWITCH_FILE))
}

/// Turns the switch of a data folder; a service that runs there sees it at its next turn.
///
/// # Errors
/// When the file cannot be written.
pub fn write_folder(data: &Path, switch: &KillSwitch) -> Result<()> {
    write(&data.join(SWITCH_FILE), switch)
}

fn write(file: &Path, switch: &KillSwitch) -> Result<()> {
    crate::files::replace(file, serde_json::to_string(switch)?.as_bytes())
}

fn read(file: &Path) -> Option<KillSwitch> {
    let unreadable = |why: String| KillSwitch {
        on: true,
        by: "system".into(),
        why: format!("{} is not readable ({why}): counted as on", file.display()),
        at: Timestamp::EPOCH,
    };
    match std::fs::metadata(file) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return None,
        Err(e) => return Some(unreadable(e.to_string())),
        Ok(about) if about.len() > FILE_BYTES_MAX => {
            return Some(unreadable(format!("{} bytes, at most {FILE_BYTES_MAX}", about.len())));
        }
        Ok(_) => {}
    }
    let text = match std::fs::read(file) {
        Ok(text) => text,
        Err(e) => return Some(unreadable(e.to_string())),
    };
    Some(serde_json::from_slice(&text).unwrap_or_else(|e| unreadable(e.to_string())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn switch(on: bool) -> KillSwitch {
        KillSwitch { on, by: "ann".into(), why: "drill".into(), at: Timestamp::from_secs(9) }
    }

    #[test]
    fn it_is_seen_by_others_and_survives() {
        let folder = tempfile::tempdir().unwrap();
        let board = SwitchBoard::of_folder(folder.path());
        assert_eq!((board.state(), board.is_on()), (None, false));
        write_folder(folder.path(), &switch(true)).unwrap();
        assert_eq!(board.look(), Some(switch(true)));
        assert_eq!(board.look(), None);
        assert!(board.is_on());
        board.turn(switch(false)).unwrap();
        assert!(!board.is_on());
        assert_eq!(read_folder(folder.path()), Some(switch(false)));
        assert_eq!(SwitchBoard::of_folder(folder.path()).state(), Some(switch(false)));
    }

    #[test]
    fn what_cannot_be_read_counts_as_on() {
        let folder = tempfile::tempdir().unwrap();
        let long = vec![b' '; FILE_BYTES_MAX as usize + 1];
        for bad in [b"".as_slice(), b"{", b"off", b"{\"on\":false}", b"\xff\xfe", &long] {
            std::fs::write(folder.path().join(SWITCH_FILE), bad).unwrap();
            let board = SwitchBoard::of_folder(folder.path());
            assert!(board.is_on(), "{}", String::from_utf8_lossy(&bad[..bad.len().min(20)]));
            assert!(board.state().unwrap().why.contains("counted as on"));
        }
    }
}
