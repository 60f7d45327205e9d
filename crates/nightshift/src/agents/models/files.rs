//! The folder `models`: what is learned, what was imported, what a version was fitted to, and how a trial stands.

use super::tap::Findings;
use crate::files::replace;
use anyhow::{Context as _, Result, anyhow};
use nightshift_detect::models::version::ModelVersion;
use nightshift_detect::models::{Baselines, Learner, LearnerConfig, Summary, WarmStart};
use std::path::{Path, PathBuf};

/// Imported files that are read; more are a mistake.
const IMPORTED_MAX: usize = 64;
/// Largest file of a trial that is read, bytes.
const TRIAL_BYTES_MAX: u64 = 64 << 20;

/// `DATA/models`.
#[derive(Debug, Clone)]
pub(crate) struct Folder {
    dir: PathBuf,
}

impl Folder {
    /// Opens the folder, makes it, and gives the learner its name.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(crate) fn open(data: &Path) -> Result<Self> {
        let this = Self { dir: data.join("models") };
        let imported = this.dir.join("imported");
        std::fs::create_dir_all(&imported).with_context(|| format!("make the folder {}", imported.display()))?;
        if this.origin().is_none() {
            // Random, so that it tells nothing of the machine.
            let secret = crate::commands::token::new_secret()?;
            let name: String =
                nightshift_store::tokens::hash(&secret).iter().take(8).map(|b| format!("{b:02x}")).collect();
            replace(&this.dir.join("origin"), name.as_bytes())?;
        }
        Ok(this)
    }

    /// The folder of a data folder, as it is.
    pub(crate) fn of(data: &Path) -> Self {
        Self { dir: data.join("models") }
    }

    /// Name of the learner of this folder; `None` where nothing ran yet.
    pub(crate) fn origin(&self) -> Option<String> {
        let text = std::fs::read_to_string(self.dir.join("origin")).ok()?;
        let name = text.trim();
        (name.len() == 16 && name.bytes().all(|b| b.is_ascii_hexdigit())).then(|| name.to_owned())
    }

    fn learned_file(&self) -> PathBuf {
        self.dir.join("learned.bin")
    }

    pub(super) fn put_learned(&self, bytes: &[u8]) -> Result<()> {
        replace(&self.learned_file(), bytes)
    }

    /// The learner that was put away, or one that knows nothing.
    pub(super) fn learner(&self, config: LearnerConfig) -> Learner {
        let path = self.learned_file();
        match std::fs::read(&path) {
            Ok(bytes) => Learner::restore(config.clone(), &bytes).unwrap_or_else(|e| {
                tracing::warn!("{} cannot be read ({e}): what families are like is learned anew", path.display());
                Learner::new(config)
            }),
            Err(_) => Learner::new(config),
        }
    }

    /// Files that were imported, by id. What cannot be read is told and left out.
    pub(crate) fn imported(&self) -> Vec<(String, Baselines)> {
        self.imports()
            .into_iter()
            .filter_map(|path| match read_baselines(&path) {
                Ok(b) => Some((b.id(), b)),
                Err(e) => {
                    tracing::warn!("imported baselines are left out: {e:#}");
                    None
                }
            })
            .collect()
    }

    /// Names of the imported files: another list is another import.
    pub(super) fn imports(&self) -> Vec<PathBuf> {
        let Ok(entries) = std::fs::read_dir(self.dir.join("imported")) else { return Vec::new() };
        let mut paths: Vec<PathBuf> = entries.flatten().map(|e| e.path()).collect();
        paths.retain(|p| p.extension().is_some_and(|e| e == "json"));
        paths.sort();
        paths.truncate(IMPORTED_MAX);
        paths
    }

    /// Takes a file in.
    ///
    /// # Errors
    /// When it, or a part of it, is here already, or the folder cannot be written.
    pub(crate) fn import(&self, new: &Baselines) -> Result<String> {
        let id = new.id();
        let here = self.imported();
        if here.iter().any(|(known, _)| *known == id) {
            return Err(anyhow!("{id} was imported already: it would count twice"));
        }
        if here.len() >= IMPORTED_MAX {
            return Err(anyhow!(
                "{IMPORTED_MAX} files are imported already; merge them with `nightshift model merge` first"
            ));
        }
        if let Some(own) = self.origin()
            && new.parts.iter().any(|p| p.origin == own)
        {
            return Err(anyhow!("it holds what was learned here: importing it would count that twice"));
        }
        for (known, baselines) in &here {
            if let Some(why) = baselines.overlap(new) {
                return Err(anyhow!("{known} was imported before and {why}"));
            }
        }
        replace(&self.dir.join("imported").join(format!("{id}.json")), new.to_text().as_bytes())?;
        Ok(id)
    }

    fn version_file(&self, version: u32) -> PathBuf {
        self.dir.join(format!("baselines-v{version}.json"))
    }

    /// Keeps what a version was fitted to.
    ///
    /// # Errors
    /// When the folder cannot be written.
    pub(crate) fn put_version(&self, version: &ModelVersion, baselines: &Baselines) -> Result<()> {
        replace(&self.version_file(version.version), baselines.to_text().as_bytes())
    }

    pub(super) fn findings(&self) -> Findings {
        let path = self.dir.join("trial.json");
        let small = std::fs::metadata(&path).is_ok_and(|m| m.len() <= TRIAL_BYTES_MAX);
        let read = small.then(|| std::fs::read(&path).ok()).flatten();
        read.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default()
    }

    pub(super) fn put_trial(&self, findings: &Findings, shadow: Option<&[u8]>) -> Result<()> {
        if findings.version == 0 {
            return Ok(());
        }
        let text = serde_json::to_vec(findings).context("write how the trial stands")?;
        replace(&self.dir.join("trial.json"), &text)?;
        match shadow {
            Some(state) => replace(&self.dir.join(format!("shadow-v{}.bin", findings.version)), state),
            None => Ok(()),
        }
    }

    /// State of the detectors on trial, where it was put away.
    pub(super) fn shadow(&self, version: u32) -> Option<Vec<u8>> {
        std::fs::read(self.dir.join(format!("shadow-v{version}.bin"))).ok()
    }
}

/// Reads a file of baselines.
///
/// # Errors
/// When it is not there, too large, or no such file.
pub(crate) fn read_baselines(path: &Path) -> Result<Baselines> {
    let size = std::fs::metadata(path).with_context(|| format!("open {}", path.display()))?.len();
    let max = nightshift_detect::models::export::BYTES_MAX as u64;
    if size > max {
        return Err(anyhow!("{} has {size} bytes, a file of baselines at most {max}", path.display()));
    }
    let bytes = std::fs::read(path).with_context(|| format!("read {}", path.display()))?;
    Baselines::parse(&bytes).with_context(|| format!("read {}", path.display()))
}

/// What was learned in a data folder, as it was last put away; `None` where nothing was.
///
/// # Errors
/// When the file is damaged.
pub(crate) fn learned_of(data: &Path, config: LearnerConfig) -> Result<Option<(String, Learner)>> {
    let folder = Folder::of(data);
    let path = folder.learned_file();
    let (Some(origin), Ok(bytes)) = (folder.origin(), std::fs::read(&path)) else { return Ok(None) };
    let learner = Learner::restore(config, &bytes).with_context(|| format!("read {}", path.display()))?;
    Ok(Some((origin, learner)))
}

/// What new series start with under a version: what it was fitted to, or else what is learned now, and what was
/// imported.
pub(crate) fn warm_of(folder: &Folder, version: u32, learned: Summary) -> WarmStart {
    let mut families = match read_baselines(&folder.version_file(version)) {
        Ok(fitted) => fitted.families,
        Err(_) => learned.families,
    };
    for (_, imported) in folder.imported() {
        for (key, sketch) in &imported.families {
            families.entry(key.clone()).or_default().merge(sketch);
        }
    }
    WarmStart::of(&families)
}
