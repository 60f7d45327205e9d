//! Where things are kept.

use anyhow::{Result, anyhow};
use std::path::{Path, PathBuf};

/// The data folder: the one asked for, or `$XDG_STATE_HOME/nightshift`, or `~/.local/state/nightshift`.
///
/// # Errors
/// When none was asked for and there is no home.
pub(crate) fn data_dir(asked: Option<&Path>) -> Result<PathBuf> {
    if let Some(dir) = asked {
        return Ok(dir.to_owned());
    }
    let set = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    set("XDG_STATE_HOME")
        .or_else(|| set("HOME").map(|home| home.join(".local/state")))
        .map(|state| state.join("nightshift"))
        .ok_or_else(|| anyhow!("neither HOME nor XDG_STATE_HOME is set: say --data DIR"))
}
