//! Files that people write beside the configuration: playbooks and policies of their own, read from folders.

use crate::agents::Library;
use crate::settings::Settings;
use crate::wiring::foreign;
use anyhow::{Context as _, Result, bail};
use nightshift_config::Problems;
use nightshift_guard::Policies;
use nightshift_plan::Playbooks;
use sha2::{Digest as _, Sha256};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// Files of one folder at most.
const FILES_MAX: usize = 1_000;
/// Longest file that is read; each reader has a limit of its own below it.
const FILE_BYTES_MAX: u64 = 4 << 20;
/// Endings of playbooks.
const PLAYBOOKS: &[&str] = &["yaml", "yml"];
/// Endings of policies.
const POLICIES: &[&str] = &["rego"];

/// Playbooks and policies in use. Problems are added; with any, nothing is allowed.
pub(crate) fn read(settings: &Settings, base: &Path, problems: &mut Problems) -> Library {
    let mut hash = Sha256::new();
    for (folder, kinds) in folders(settings, base) {
        // What cannot be read is told below.
        for (name, text) in texts(&folder, kinds).unwrap_or_default() {
            for part in [name.as_bytes(), text.as_bytes()] {
                hash.update((part.len() as u64).to_le_bytes());
                hash.update(part);
            }
        }
    }
    Library {
        playbooks: playbooks(settings, base, problems),
        policies: policies(settings, base, problems),
        digest: hash.finalize().iter().map(|b| format!("{b:02x}")).collect(),
    }
}

/// What a look at the folders sees, without reading a file: name, time of the last change, size.
pub(crate) type Stamp = Vec<(PathBuf, Option<SystemTime>, u64)>;

/// A look at the folders. What cannot be looked at is left out.
pub(crate) fn stamp(settings: &Settings, base: &Path) -> Stamp {
    let mut out = Stamp::new();
    for (folder, kinds) in folders(settings, base) {
        for path in paths(&folder, kinds).unwrap_or_default() {
            let about = std::fs::metadata(&path).ok();
            let changed = about.as_ref().and_then(|a| a.modified().ok());
            out.push((path, changed, about.map_or(0, |a| a.len())));
        }
    }
    out
}

/// The folders that are set, and the endings of the files that count there.
fn folders<'a>(
    settings: &'a Settings,
    base: &'a Path,
) -> impl Iterator<Item = (PathBuf, &'static [&'static str])> + 'a {
    [(&settings.plan.folder, PLAYBOOKS), (&settings.guard.policies.folder, POLICIES)]
        .into_iter()
        .filter(|(folder, _)| !folder.is_empty())
        .map(|(folder, kinds)| (base.join(folder), kinds))
}

/// The playbooks in use: those that ship, without the disabled ones, and the user's own. Problems are added.
fn playbooks(settings: &Settings, base: &Path, problems: &mut Problems) -> Playbooks {
    let shipped = Playbooks::shipped();
    for name in &settings.plan.disabled {
        if shipped.get(name).is_none() {
            let hint = "`nightshift playbooks` lists them";
            problems.error("plan.disabled", format!("`{name}` is no playbook that ships"), hint);
        }
    }
    let shipped = shipped.without(&settings.plan.disabled);
    let own = own(&settings.plan.folder, base, PLAYBOOKS, "plan.folder", problems);
    let (all, wrong) = shipped.load(own.iter().map(|(path, text)| (path.as_str(), text.as_str())));
    for p in wrong {
        let path = Path::new(&p.file);
        problems.push(foreign(path, p.problem.line, 0, p.problem.message, p.problem.hint));
    }
    all
}

/// The policies in use, compiled: those that ship, without the disabled ones, and the user's own. Problems are added;
/// with any, nothing is allowed.
fn policies(settings: &Settings, base: &Path, problems: &mut Problems) -> Policies {
    let config = &settings.guard.policies;
    let own = own(&config.folder, base, POLICIES, "guard.policies.folder", problems);
    let timeout = Duration::from_millis(config.timeout_ms);
    Policies::with_shipped(&config.disabled, &own, timeout).unwrap_or_else(|wrong| {
        for p in wrong {
            problems.push(foreign(
                Path::new(&p.file),
                0,
                0,
                p.what,
                "`nightshift check` compiles and tests them".into(),
            ));
        }
        Policies::none()
    })
}

fn own(folder: &str, base: &Path, kinds: &[&str], key: &str, problems: &mut Problems) -> Vec<(String, String)> {
    if folder.is_empty() {
        return Vec::new();
    }
    let folder = base.join(folder);
    texts(&folder, kinds).unwrap_or_else(|e| {
        problems.error(key, format!("{e:#}"), "a relative path is taken from the folder of the configuration");
        Vec::new()
    })
}

/// The files of a folder with one of these endings, in the order of their names.
fn paths(folder: &Path, kinds: &[&str]) -> Result<Vec<PathBuf>> {
    let reading = || format!("read the folder {}", folder.display());
    let mut paths: Vec<PathBuf> = Vec::new();
    for entry in std::fs::read_dir(folder).with_context(reading)? {
        let path = entry.with_context(reading)?.path();
        let wanted = path.extension().and_then(|e| e.to_str()).is_some_and(|e| kinds.contains(&e));
        if wanted && path.is_file() {
            paths.push(path);
        }
        if paths.len() > FILES_MAX {
            bail!("{} holds more than {FILES_MAX} files", folder.display());
        }
    }
    paths.sort();
    Ok(paths)
}

/// What is in them.
fn texts(folder: &Path, kinds: &[&str]) -> Result<Vec<(String, String)>> {
    let paths = paths(folder, kinds)?;
    let mut out = Vec::with_capacity(paths.len());
    for path in paths {
        let size = std::fs::metadata(&path).with_context(|| format!("read {}", path.display()))?.len();
        if size > FILE_BYTES_MAX {
            bail!("{} has {size} bytes, at most {FILE_BYTES_MAX} are read", path.display());
        }
        let text = std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        out.push((path.display().to_string(), text));
    }
    Ok(out)
}
