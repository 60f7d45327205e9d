//! Models that live, at work: what is learned of families, which version is active, and the one on trial.
//!
//! The detector hands every batch to the learner and to the detectors of the version on trial; neither says anything
//! to anybody. Once a second this agent looks what is to be done: a version was put on trial, promoted or rolled back
//! (the registry is a document of the store, which the command line writes too), the state is to be put away, labels
//! are to be counted, and at night what was learned is fitted anew.
//!
//! What is put away lies in `models` in the data folder. After a crash a reading is not learned twice (each series
//! knows its newest), and at most the last save's worth of learning is lost.

mod files;
mod live;
mod nightly;
mod tap;

use files::warm_of;
pub(crate) use files::{Folder, learned_of, read_baselines};
pub use live::{Live, LiveModel};
pub(crate) use nightly::ModelsConfig;
pub(crate) use nightly::standing;

use super::AgentError;
use nightshift_detect::metrics::MODEL_VERSION;
use nightshift_detect::models::drift::{self, FamilyDrift, Verdict};
use nightshift_detect::models::trial::{Comparison, Label, compare};
use nightshift_detect::models::version::{Registry, apply};
use nightshift_detect::{MetricsConfig, models::Learner};
use nightshift_model::{Clock, Feedback, Timestamp};
use nightshift_store::{Commit, Document, IncidentFilter, Store, StoreError};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tap::ModelTap;

/// Collection and key of the registry in the store.
const COLLECTION: &str = "models";
const KEY: &str = "registry";
/// Incidents that are looked at for labels.
const LABELS_MAX: usize = 5_000;
/// How often the registry is read.
const REGISTRY_EVERY: Duration = Duration::from_secs(2);

/// Reads a tenant's registry, and its bytes for [`write_registry`].
///
/// # Errors
/// When the store fails or the document is damaged.
pub(crate) async fn read_registry(store: &dyn Store, tenant: &str) -> Result<(Registry, Option<Vec<u8>>), StoreError> {
    let found = store.documents(tenant, COLLECTION).await?.into_iter().find(|d| d.key == KEY);
    let Some(bytes) = found.and_then(|d| d.body) else { return Ok((Registry::default(), None)) };
    let registry =
        serde_json::from_slice(&bytes).map_err(|e| StoreError::Corrupt(format!("registry of models: {e}")))?;
    Ok((registry, Some(bytes)))
}

/// Writes a registry, if it is still as it was read.
///
/// # Errors
/// `Conflict` when somebody else wrote in between.
pub(crate) async fn write_registry(
    store: &dyn Store,
    tenant: &str,
    registry: &Registry,
    read: Option<Vec<u8>>,
) -> Result<(), StoreError> {
    let document = |body| Document { collection: COLLECTION.into(), key: KEY.into(), body };
    let body = serde_json::to_vec(registry).map_err(|e| StoreError::Refused(format!("the registry: {e}")))?;
    let (documents, expects) = (vec![document(Some(body))], vec![document(read)]);
    store.commit(tenant, Commit { documents, expects, ..Commit::default() }).await.map(drop)
}

/// Labels of the incidents since `since`.
///
/// # Errors
/// When the store fails.
pub(crate) async fn labels(store: &dyn Store, tenant: &str, since: Timestamp) -> Result<Vec<Label>, StoreError> {
    let filter = IncidentFilter { since: Some(since), limit: LABELS_MAX, ..IncidentFilter::default() };
    let mut out = Vec::new();
    for incident in store.incidents(tenant, &filter).await? {
        let Some(feedback) = &incident.feedback else { continue };
        if incident.onset < since {
            continue;
        }
        let mut entities: Vec<String> = incident.anomalies.iter().map(|a| a.entity.id.to_string()).collect();
        let real = match feedback {
            Feedback::FalsePositive { .. } => false,
            Feedback::TrueCause { entity, .. } => {
                entities.push(entity.to_string());
                true
            }
        };
        entities.sort();
        entities.dedup();
        let seen = incident.anomalies.iter().map(|a| a.last_seen).max().unwrap_or(incident.onset);
        let to = incident.resolved_at.unwrap_or(seen).max(seen);
        out.push(Label { incident: incident.short_id(), real, entities, from: incident.onset, to });
    }
    Ok(out)
}

/// Drift of a tenant's families: the recent days against those before.
pub(crate) fn drift_of(learner: &Learner, tenant: &str, config: &drift::DriftConfig) -> Vec<FamilyDrift> {
    let Some((_, newest)) = learner.summary(tenant).days else { return Vec::new() };
    let first = newest - i64::from(config.recent_days.max(1)) + 1;
    let before = learner.summary_of_days(tenant, i64::MIN, first - 1);
    let recent = learner.summary_of_days(tenant, first, newest);
    drift::report(&before, &recent, config)
}

/// Keeps models: one per process that detects.
pub struct ModelsAgent {
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    tenant: String,
    base: Arc<MetricsConfig>,
    config: ModelsConfig,
    folder: Folder,
    tap: Arc<ModelTap>,
    live: Arc<LiveModel>,
    registry_at: Timestamp,
    saved_at: Timestamp,
    drift: Vec<FamilyDrift>,
    /// Files of baselines that are in use.
    imports: Vec<PathBuf>,
}

impl ModelsAgent {
    /// Reads what was put away, makes the first version where there is none, and sets the model that runs.
    ///
    /// # Errors
    /// When the store fails or the folder cannot be used.
    pub async fn open(
        store: Arc<dyn Store>,
        clock: Arc<dyn Clock>,
        tenant: &str,
        base: MetricsConfig,
        config: ModelsConfig,
        data: &Path,
    ) -> Result<Self, AgentError> {
        let state = |e: anyhow::Error| AgentError::State(format!("{e:#}"));
        let now = clock.now();
        let folder = Folder::open(data).map_err(state)?;
        let learner = folder.learner(config.learn.clone());
        let tap = Arc::new(ModelTap::new(learner, clock.clone(), folder.findings()));
        let mut this = Self {
            live: Arc::default(),
            base: Arc::new(base),
            tenant: tenant.to_owned(),
            store,
            clock,
            config,
            folder,
            tap,
            registry_at: Timestamp::EPOCH,
            saved_at: now,
            drift: Vec::new(),
            imports: Vec::new(),
        };
        this.imports = this.folder.imports();
        let (mut registry, read) = read_registry(&*this.store, tenant).await?;
        if registry.start(&this.base, MODEL_VERSION, now) {
            write_registry(&*this.store, tenant, &registry, read).await?;
        }
        this.obey(&registry);
        Ok(this)
    }

    /// What the detector must hand its batches and anomalies to.
    pub fn tap(&self) -> Arc<dyn super::Tap> {
        self.tap.clone()
    }

    /// The model that runs: the detector takes it from here.
    pub fn live(&self) -> Arc<LiveModel> {
        self.live.clone()
    }

    /// One look at what is to be done. Cheap when there is nothing.
    ///
    /// # Errors
    /// When the store or the folder fails; the next turn tries again.
    pub async fn turn(&mut self) -> Result<(), AgentError> {
        let now = self.clock.now();
        self.tap.tick(now);
        if now.since(self.registry_at) >= REGISTRY_EVERY {
            self.registry_at = now;
            let (registry, _) = read_registry(&*self.store, &self.tenant).await?;
            self.obey(&registry);
            self.take_imports();
            self.nightly(now).await?;
        }
        if now.since(self.saved_at) >= Duration::from_secs(self.config.save_every_secs) {
            self.saved_at = now;
            self.save()?;
            self.count(now).await?;
            self.drift = self.tap.with_learner(|l| drift_of(l, &self.tenant, &self.config.drift));
        }
        Ok(())
    }

    /// Puts everything away.
    ///
    /// # Errors
    /// When the folder cannot be written.
    pub fn save(&mut self) -> Result<(), AgentError> {
        let state = |e: anyhow::Error| AgentError::State(format!("{e:#}"));
        let learned = self.tap.with_learner(|l| {
            l.sweep(self.base.idle_secs);
            l.snapshot()
        });
        self.folder.put_learned(&learned).map_err(state)?;
        let (findings, shadow) = self.tap.put_away();
        self.folder.put_trial(&findings, shadow.as_deref()).map_err(state)
    }

    /// One line on its health.
    pub fn word(&self) -> String {
        let series = self.tap.with_learner(|l| l.series(&self.tenant).0);
        let drifted = self.drifted();
        let trial = self.tap.on_trial().map_or(String::new(), |v| format!(", version {v} on trial"));
        format!(
            "version {} active{trial}; {series} series followed, {drifted} of {} families drifted",
            self.live.version(),
            self.drift.len()
        )
    }

    /// Families that drifted, newest report.
    pub fn drifted(&self) -> usize {
        self.drift.iter().filter(|d| d.verdict == Verdict::Drifted).count()
    }

    /// Does what the registry says: which version runs, and which is on trial.
    fn obey(&mut self, registry: &Registry) {
        if let Some(active) = registry.active()
            && active.version != self.live.version()
        {
            match apply(&self.base, &active.overlay) {
                Ok(config) => {
                    let warm = self.warm(active.version);
                    self.live.set(Live { version: active.version, metrics: Some(Arc::new(config)), warm });
                    tracing::info!(version = active.version, "model in use");
                }
                Err(why) => tracing::warn!(version = active.version, "model cannot be used: {why}"),
            }
        }
        let wanted = registry.shadow().map(|v| v.version);
        if wanted == self.tap.on_trial() {
            return;
        }
        match registry.shadow() {
            None => self.tap.end_trial(),
            Some(shadow) => match apply(&self.base, &shadow.overlay) {
                Ok(config) => {
                    let warm = self.warm(shadow.version);
                    let state = self.folder.shadow(shadow.version);
                    self.tap.begin_trial(shadow.version, config, warm, shadow.since, state);
                }
                Err(why) => tracing::warn!(version = shadow.version, "model cannot be tried: {why}"),
            },
        }
    }

    /// Baselines were imported: the active version's new series start with them too, from now on.
    fn take_imports(&mut self) {
        let now = self.folder.imports();
        if now == self.imports {
            return;
        }
        self.imports = now;
        let live = Live { warm: self.warm(self.live.version()), ..self.live.get() };
        self.live.set(live);
        tracing::info!(files = self.imports.len(), "imported baselines in use");
    }

    /// What new series start with under a version.
    fn warm(&self, version: u32) -> Option<Arc<nightshift_detect::models::WarmStart>> {
        if !self.config.warm_start {
            return None;
        }
        let learned = self.tap.with_learner(|l| l.summary(&self.tenant));
        let warm = warm_of(&self.folder, version, learned);
        (!warm.is_empty()).then(|| Arc::new(warm))
    }

    /// Compares the version on trial with the active one, and keeps how it stands.
    async fn count(&mut self, now: Timestamp) -> Result<Option<Comparison>, AgentError> {
        if self.tap.on_trial().is_none() {
            return Ok(None);
        }
        let findings = self.tap.findings();
        let labels = labels(&*self.store, &self.tenant, findings.from()).await?;
        let hours = now.since(findings.since).as_secs_f64() / 3_600.0;
        let found = compare(&labels, &findings.active, &findings.shadow, hours, &self.config.trial);
        let (mut registry, read) = read_registry(&*self.store, &self.tenant).await?;
        if registry.shadow().map(|v| v.version) != self.tap.on_trial() {
            return Ok(None);
        }
        registry.set_comparison(found.clone());
        match write_registry(&*self.store, &self.tenant, &registry, read).await {
            // Somebody else wrote; the next count comes soon.
            Err(StoreError::Conflict(_)) => Ok(None),
            other => Ok(other.map(|()| Some(found))?),
        }
    }
}
