//! Versions of the detector's model: which configuration runs, which is on trial, and what became of the others.
//!
//! A version is an overlay over the configured metric layers, and which imported or learned baselines new series start
//! with. All versions of a tenant are one document, written only when it is as it was read, so that two writers never
//! leave two active versions behind.

use super::trial::Comparison;
use crate::metrics::MetricsConfig;
use nightshift_model::Timestamp;
use nightshift_model::hash::hash128;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

/// Versions that are kept; the oldest retired ones leave first.
pub const VERSIONS_MAX: usize = 64;
/// Lines of the journal that are kept.
pub const JOURNAL_MAX: usize = 500;
/// Keys of an overlay at most.
const OVERLAY_MAX: usize = 64;

/// Where a version stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// It makes the anomalies.
    Active,
    /// It runs beside, and alarms nobody.
    Shadow,
    /// It did, or was on trial.
    Retired,
}

impl State {
    /// Its name in JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Shadow => "shadow",
            Self::Retired => "retired",
        }
    }
}

/// Settings laid over the configured ones: `zscore.sensitivity` and its value.
pub type Overlay = BTreeMap<String, Value>;

/// A version.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ModelVersion {
    /// Running number; anomalies name it.
    pub version: u32,
    /// Hash of what it is: overlay, algorithm, parent.
    pub id: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// Who made it: `system`, `nightly retrain`, or who was at the command line.
    pub created_by: String,
    /// The version that it was made from.
    pub parent: Option<u32>,
    /// Version of the code of the metric layers that it was made with.
    pub algorithm: u32,
    /// Hash of the whole configuration that results, at the time it was made.
    pub config_hash: String,
    /// What it changes.
    #[serde(default)]
    pub overlay: Overlay,
    /// Days from the epoch whose baselines new series start with; `None`: those learned at the last start.
    #[serde(default)]
    pub data_days: Option<(i64, i64)>,
    /// Where it stands.
    pub state: State,
    /// Since when.
    pub since: Timestamp,
    /// The last comparison with the active version, when it was on trial.
    #[serde(default)]
    pub comparison: Option<Comparison>,
    /// What it is for, in words.
    #[serde(default)]
    pub note: String,
}

/// A line of the journal.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// When.
    pub at: Timestamp,
    /// Who.
    pub by: String,
    /// What was done, and why.
    pub what: String,
}

/// Every version of a tenant.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Registry {
    /// By number, oldest first.
    pub versions: Vec<ModelVersion>,
    /// What was done, oldest first.
    pub journal: Vec<Entry>,
    /// When the nightly retrain last ran, as a day from the epoch.
    #[serde(default)]
    pub retrained_day: Option<i64>,
}

/// Why it cannot be done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VersionError {
    /// There are none yet.
    #[error("there are no models yet: the first `nightshift run` on this data folder makes version 1")]
    Empty,
    /// No such number.
    #[error("there is no version {0}; `nightshift model list` shows all")]
    Unknown(u32),
    /// It is the active one already.
    #[error("version {0} is active already")]
    IsActive(u32),
    /// Nothing is on trial.
    #[error("no model is on trial; `nightshift model shadow --set KEY=VALUE` starts one")]
    NoShadow,
    /// Something is on trial.
    #[error("version {0} is on trial already; promote it, or end its trial with `nightshift model shadow --stop`")]
    HasShadow(u32),
    /// There is nothing before it.
    #[error("version {0} was the first: there is none to go back to")]
    First(u32),
    /// It would be the same.
    #[error("that is what version {0} is already: nothing would differ")]
    Same(u32),
    /// The overlay does not fit.
    #[error("{0}")]
    Overlay(String),
}

/// The configuration with an overlay laid over it. Ranges are the schema's to check; this looks at names and types.
///
/// # Errors
/// When a key is not there or its value is of another type.
pub fn apply(base: &MetricsConfig, overlay: &Overlay) -> Result<MetricsConfig, VersionError> {
    let fault = |text: String| VersionError::Overlay(text);
    if overlay.len() > OVERLAY_MAX {
        return Err(fault(format!("{} keys are more than the {OVERLAY_MAX} that a model may change", overlay.len())));
    }
    let mut whole = serde_json::to_value(base).map_err(|e| fault(format!("write the configuration: {e}")))?;
    for (key, value) in overlay {
        let mut at = &mut whole;
        for part in key.split('.') {
            at = at.get_mut(part).ok_or_else(|| {
                fault(format!("`{key}` is no key of detect.metrics; `nightshift config reference` prints them all"))
            })?;
        }
        *at = value.clone();
    }
    serde_json::from_value(whole).map_err(|e| fault(format!("a value does not fit its key: {e}")))
}

/// Hash of a configuration.
pub fn config_hash(config: &MetricsConfig) -> String {
    let text = serde_json::to_vec(config).unwrap_or_default();
    format!("{:032x}", hash128(&[&text]))
}

impl Registry {
    /// The version that makes the anomalies.
    pub fn active(&self) -> Option<&ModelVersion> {
        self.versions.iter().find(|v| v.state == State::Active)
    }

    /// The version on trial.
    pub fn shadow(&self) -> Option<&ModelVersion> {
        self.versions.iter().find(|v| v.state == State::Shadow)
    }

    /// A version by its number.
    ///
    /// # Errors
    /// When there is none.
    pub fn get(&self, version: u32) -> Result<&ModelVersion, VersionError> {
        if self.versions.is_empty() {
            return Err(VersionError::Empty);
        }
        self.versions.iter().find(|v| v.version == version).ok_or(VersionError::Unknown(version))
    }

    /// Says in the journal what was done.
    pub fn note(&mut self, now: Timestamp, by: &str, what: impl Into<String>) {
        self.journal.push(Entry { at: now, by: by.to_owned(), what: what.into() });
        let over = self.journal.len().saturating_sub(JOURNAL_MAX);
        self.journal.drain(..over);
    }

    fn set(&mut self, version: u32, state: State, now: Timestamp) {
        for v in self.versions.iter_mut().filter(|v| v.version == version) {
            (v.state, v.since) = (state, now);
        }
    }

    fn add(&mut self, mut new: ModelVersion) -> u32 {
        let last = self.versions.iter().map(|v| v.version).max().unwrap_or(0);
        new.version = new.version.max(last + 1);
        let overlay = serde_json::to_vec(&new.overlay).unwrap_or_default();
        let parts: [&[u8]; 4] =
            [&new.version.to_be_bytes(), &new.algorithm.to_be_bytes(), &overlay, new.config_hash.as_bytes()];
        new.id = format!("{:032x}", hash128(&parts));
        let version = new.version;
        self.versions.push(new);
        while self.versions.len() > VERSIONS_MAX
            && let Some(at) = self.versions.iter().position(|v| v.state == State::Retired)
        {
            self.versions.remove(at);
        }
        version
    }

    /// At a start: makes the first version, or a new one where the code of the layers or the configuration changed,
    /// so that a number always means one behaviour. Whether anything changed.
    pub fn start(&mut self, base: &MetricsConfig, algorithm: u32, now: Timestamp) -> bool {
        let (parent, overlay, data_days, was) = match self.active() {
            Some(v) => (Some(v.version), v.overlay.clone(), v.data_days, Some((v.algorithm, v.config_hash.clone()))),
            None => (None, Overlay::new(), None, None),
        };
        // An overlay that does not fit the configuration any more is left behind, and the journal says so.
        let (overlay, config, left) = match apply(base, &overlay) {
            Ok(config) => (overlay, config, None),
            Err(why) => (Overlay::new(), base.clone(), Some(why)),
        };
        let hash = config_hash(&config);
        if was.as_ref().is_some_and(|(a, h)| *a == algorithm && *h == hash) {
            return false;
        }
        if let Some(parent) = parent {
            self.set(parent, State::Retired, now);
        }
        let why = match (&was, left) {
            (None, _) => "the first start".to_owned(),
            (Some(_), Some(why)) => format!("the overlay of the version before does not fit any more ({why})"),
            (Some((a, _)), None) if *a != algorithm => format!("the layers are of version {algorithm} now"),
            (Some(_), None) => "the configuration changed".to_owned(),
        };
        let version = self.add(ModelVersion {
            // Anomalies of before there were versions carry the number of the layers.
            version: algorithm,
            id: String::new(),
            created_at: now,
            created_by: "system".into(),
            parent,
            algorithm,
            config_hash: hash,
            overlay,
            data_days,
            state: State::Active,
            since: now,
            comparison: None,
            note: why.clone(),
        });
        self.note(now, "system", format!("version {version} is active: {why}"));
        true
    }

    /// Puts a candidate on trial beside the active version.
    ///
    /// # Errors
    /// When one is on trial already, the overlay does not fit, or nothing would differ.
    pub fn put_on_trial(
        &mut self,
        base: &MetricsConfig,
        overlay: Overlay,
        data_days: Option<(i64, i64)>,
        (by, note): (&str, &str),
        now: Timestamp,
    ) -> Result<u32, VersionError> {
        let active = self.active().ok_or(VersionError::Empty)?;
        if let Some(shadow) = self.shadow() {
            return Err(VersionError::HasShadow(shadow.version));
        }
        let config = apply(base, &overlay)?;
        let hash = config_hash(&config);
        let now_runs = config_hash(&apply(base, &active.overlay)?);
        if hash == now_runs && data_days == active.data_days {
            return Err(VersionError::Same(active.version));
        }
        let (parent, algorithm) = (Some(active.version), active.algorithm);
        let version = self.add(ModelVersion {
            version: 0,
            id: String::new(),
            created_at: now,
            created_by: by.to_owned(),
            parent,
            algorithm,
            config_hash: hash,
            overlay,
            data_days,
            state: State::Shadow,
            since: now,
            comparison: None,
            note: note.to_owned(),
        });
        self.note(now, by, format!("version {version} is on trial: {note}"));
        Ok(version)
    }

    /// Ends a trial without a promotion.
    ///
    /// # Errors
    /// When nothing is on trial.
    pub fn end_trial(&mut self, by: &str, why: &str, now: Timestamp) -> Result<u32, VersionError> {
        let version = self.shadow().ok_or(VersionError::NoShadow)?.version;
        self.set(version, State::Retired, now);
        self.note(now, by, format!("the trial of version {version} ended: {why}"));
        Ok(version)
    }

    /// Makes the version on trial the active one.
    ///
    /// # Errors
    /// When nothing is on trial.
    pub fn promote(&mut self, by: &str, why: &str, now: Timestamp) -> Result<u32, VersionError> {
        let version = self.shadow().ok_or(VersionError::NoShadow)?.version;
        let before = self.active().map(|v| v.version);
        if let Some(before) = before {
            self.set(before, State::Retired, now);
        }
        // Whatever it was made from, it follows the one that it replaces: that is what a rollback returns to.
        for v in self.versions.iter_mut().filter(|v| v.version == version) {
            v.parent = before;
        }
        self.set(version, State::Active, now);
        self.note(now, by, format!("version {version} is active: {why}"));
        Ok(version)
    }

    /// Goes back to the parent of the active version, or to the version that is named.
    ///
    /// # Errors
    /// When there is none to go back to.
    pub fn rollback(&mut self, to: Option<u32>, by: &str, why: &str, now: Timestamp) -> Result<u32, VersionError> {
        let active = self.active().ok_or(VersionError::Empty)?;
        let (from, parent) = (active.version, active.parent);
        let target = self.get(to.or(parent).ok_or(VersionError::First(from))?)?;
        if target.state == State::Active {
            return Err(VersionError::IsActive(from));
        }
        let target = target.version;
        self.set(from, State::Retired, now);
        self.set(target, State::Active, now);
        self.note(now, by, format!("back from version {from} to version {target}: {why}"));
        Ok(target)
    }

    /// Keeps how the trial stands.
    pub fn set_comparison(&mut self, comparison: Comparison) {
        if let Some(v) = self.versions.iter_mut().find(|v| v.state == State::Shadow) {
            v.comparison = Some(comparison);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn overlay(key: &str, value: Value) -> Overlay {
        [(key.to_owned(), value)].into()
    }

    fn states(r: &Registry) -> Vec<(u32, &'static str)> {
        r.versions.iter().map(|v| (v.version, v.state.as_str())).collect()
    }

    const T: Timestamp = Timestamp(5);

    #[test]
    fn a_version_goes_from_trial_to_active_and_back() {
        let base = MetricsConfig::default();
        let mut r = Registry::default();
        assert_eq!(r.promote("me", "", T), Err(VersionError::NoShadow));
        assert_eq!(r.rollback(None, "me", "", T), Err(VersionError::Empty));
        assert!(r.start(&base, 1, T));
        assert!(!r.start(&base, 1, T), "nothing changed");
        assert_eq!(r.rollback(None, "me", "", T), Err(VersionError::First(1)));
        assert_eq!(r.put_on_trial(&base, Overlay::new(), None, ("me", ""), T), Err(VersionError::Same(1)));
        let sharper = overlay("zscore.sensitivity", json!("high"));
        assert_eq!(r.put_on_trial(&base, sharper.clone(), None, ("me", "sharper"), T), Ok(2));
        assert_eq!(r.put_on_trial(&base, sharper, None, ("me", ""), T), Err(VersionError::HasShadow(2)));
        assert_eq!(states(&r), [(1, "active"), (2, "shadow")]);
        assert_eq!(r.promote("me", "better", T), Ok(2));
        assert!(!r.start(&base, 1, T), "a restart keeps what was promoted");
        assert_eq!(r.rollback(Some(7), "me", "", T), Err(VersionError::Unknown(7)));
        assert_eq!(r.rollback(None, "me", "worse after all", T), Ok(1));
        assert_eq!(states(&r), [(1, "active"), (2, "retired")]);
        assert_eq!(r.journal.len(), 4);
        assert_eq!(serde_json::from_str::<Registry>(&serde_json::to_string(&r).unwrap()).unwrap(), r);
    }

    #[test]
    fn a_changed_configuration_or_program_is_a_new_version() {
        let base = MetricsConfig::default();
        let mut r = Registry::default();
        r.start(&base, 3, T);
        let other = MetricsConfig { open_points: 5, ..base };
        assert!(r.start(&other, 3, T) && r.start(&other, 4, T));
        assert_eq!(states(&r), [(3, "retired"), (4, "retired"), (5, "active")]);
        assert_eq!(r.active().unwrap().parent, Some(4));
    }

    #[test]
    fn overlays_that_do_not_fit_are_refused() {
        let base = MetricsConfig::default();
        assert_eq!(apply(&base, &overlay("evt.risk", json!(0.001))).unwrap().evt.risk, 0.001);
        for (key, value, want) in [
            ("evt.rsk", json!(1), "`evt.rsk` is no key"),
            ("weather", json!(1), "no key of detect.metrics"),
            ("evt.risk.deep", json!(1), "no key"),
            ("evt.risk", json!("much"), "does not fit"),
            ("evt", json!(3), "does not fit"),
        ] {
            let why = apply(&base, &overlay(key, value)).unwrap_err().to_string();
            assert!(why.contains(want), "{why}");
        }
    }

    #[test]
    fn old_versions_leave_and_the_active_one_never_does() {
        let base = MetricsConfig::default();
        let mut r = Registry::default();
        r.start(&base, 1, T);
        for i in 0..100u32 {
            r.put_on_trial(&base, overlay("open_points", json!(3 + i % 10)), None, ("me", ""), T).unwrap();
            r.end_trial("me", "enough", T).unwrap();
        }
        assert_eq!(r.versions.len(), VERSIONS_MAX);
        assert_eq!(r.active().unwrap().version, 1);
        assert_eq!(r.versions.last().unwrap().version, 101);
    }
}
