//! Opening what the settings name: bus, store, topology, rules. Shared by the service and the commands beside it.

use crate::settings::Settings;
use anyhow::{Context as _, Result, anyhow};
use nightshift_bus::{Bus, BusError, TopicSpec};
use nightshift_config::{Level, Position, Problem, Problems};
use nightshift_model::{Clock, topics};
use nightshift_store::{Store, StoreError};
use nightshift_topology::TopologyFile;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Folder of snapshots within the data folder.
pub(crate) const SNAPSHOTS_DIR: &str = "snapshots";

/// Every topic with its partitions.
pub(crate) fn topic_specs() -> Vec<TopicSpec> {
    topics::ALL.iter().map(|t| TopicSpec { name: t.name.into(), partitions: t.partitions() }).collect()
}

/// Opens the bus for the service.
///
/// # Errors
/// When it is in use or cannot be opened.
pub(crate) async fn open_bus(settings: &Settings, data: &Path, clock: Arc<dyn Clock>) -> Result<Arc<dyn Bus>> {
    let bus = nightshift_bus::build(&settings.bus, data, clock).await.map_err(|e| match e {
        BusError::Locked(_) => anyhow!("open the bus: {e}; end it first, or name another folder with --data"),
        e => anyhow::Error::from(e).context("open the bus"),
    })?;
    bus.ensure_topics(&topic_specs()).await.context("make the topics of the bus")?;
    Ok(bus)
}

/// Opens the bus to look into it, also while a service runs on it.
///
/// # Errors
/// When there is none or it cannot be opened.
pub(crate) async fn open_bus_to_read(settings: &Settings, data: &Path) -> Result<Arc<dyn Bus>> {
    nightshift_bus::build_reader(&settings.bus, data).await.context("open the bus")
}

/// Opens the store for the service.
///
/// # Errors
/// When it is in use or cannot be opened.
pub(crate) async fn open_store(settings: &Settings, data: &Path, clock: Arc<dyn Clock>) -> Result<Arc<dyn Store>> {
    settings.store.build(data, clock).await.map_err(|e| match e {
        StoreError::Locked(_) => anyhow!("open the store: {e}; end it first, or name another folder with --data"),
        e => anyhow::Error::from(e).context("open the store"),
    })
}

/// Opens the store to read it, also while a service has it.
///
/// # Errors
/// When there is none or it cannot be opened.
pub(crate) async fn open_store_to_read(settings: &Settings, data: &Path) -> Result<Arc<dyn Store>> {
    settings.store.build_reader(data).await.context("open the store")
}

/// Reads the topology file that the settings name; problems are added.
pub(crate) fn load_topology(settings: &Settings, base: &Path, problems: &mut Problems) -> TopologyFile {
    if settings.topology.file.is_empty() {
        return TopologyFile::default();
    }
    let path = base.join(&settings.topology.file);
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(e) => {
            problems.error(
                "topology.file",
                format!("{} cannot be read: {e}", path.display()),
                "a relative path is taken from the folder of the configuration",
            );
            return TopologyFile::default();
        }
    };
    TopologyFile::parse(&text, &settings.ingest.resolve.cluster).unwrap_or_else(|wrong| {
        for p in wrong {
            problems.push(foreign(&path, p.line, 0, p.message, p.hint));
        }
        TopologyFile::default()
    })
}

/// A problem in a file other than the configuration.
pub(crate) fn foreign(path: &Path, line: u64, column: u64, message: String, hint: String) -> Problem {
    let at = (line > 0).then(|| Position { line: line as usize, column: column.max(1) as usize });
    Problem { file: path.display().to_string(), at, path: String::new(), message, hint, level: Level::Error }
}

/// The rule files: the shipped ones first, then those that the settings name, as path and text.
///
/// # Errors
/// When a file cannot be read.
pub(crate) fn rule_files(settings: &Settings, base: &Path) -> Result<Vec<(PathBuf, String)>> {
    let mut files = Vec::new();
    if settings.detect.shipped_rules {
        files.push((PathBuf::from("rules/default.yaml (shipped)"), SHIPPED_RULES.to_owned()));
    }
    for file in &settings.detect.rules {
        let path = base.join(file);
        let text = std::fs::read_to_string(&path).map_err(|e| anyhow!("read the rules in {}: {e}", path.display()))?;
        files.push((path, text));
    }
    Ok(files)
}

/// The rules that ship.
pub(crate) const SHIPPED_RULES: &str = include_str!("../../../rules/default.yaml");
