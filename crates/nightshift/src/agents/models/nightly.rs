//! The nightly retrain: fits what is learned offline to recent days, as a new version on trial; and decides on the
//! trial that the night before began.

use super::{ModelsAgent, drift_of, labels, read_registry, write_registry};
use crate::agents::AgentError;
use nightshift_detect::models::drift::{DriftConfig, Verdict};
use nightshift_detect::models::learner::{day_of, day_start};
use nightshift_detect::models::trial::{Comparison, TrialConfig, compare};
use nightshift_detect::models::version::{Overlay, VersionError, apply};
use nightshift_detect::models::{Baselines, LearnerConfig};
use nightshift_model::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Who the journal says it was.
const WHO: &str = "nightly retrain";
/// Bounds of the risk that a retrain may set: those of the setting.
const RISK: (f64, f64) = (1e-9, 0.01);
/// A retrain changes the risk by this factor a night at most.
const RISK_STEP: f64 = 4.0;

/// Models that live.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct ModelsConfig {
    /// What is learned of families of series.
    pub learn: LearnerConfig,
    /// Whether new series start with the scale and the tails of their family.
    pub warm_start: bool,
    /// Seconds between two saves of what is learned. A crash loses so much of it.
    #[schemars(range(min = 1, max = 3600))]
    pub save_every_secs: u64,
    /// When a family has drifted.
    pub drift: DriftConfig,
    /// When a version on trial may take over.
    pub trial: TrialConfig,
    /// The nightly retrain.
    pub retrain: RetrainConfig,
}

impl Default for ModelsConfig {
    fn default() -> Self {
        Self {
            learn: LearnerConfig::default(),
            warm_start: true,
            save_every_secs: 60,
            drift: DriftConfig::default(),
            trial: TrialConfig::default(),
            retrain: RetrainConfig::default(),
        }
    }
}

/// The nightly retrain.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct RetrainConfig {
    /// Whether it runs.
    pub enabled: bool,
    /// Hour of the day at which it runs, UTC.
    #[schemars(range(min = 0, max = 23))]
    pub hour_utc: u32,
    /// Whether a version that it made may take over by itself; else it waits for `nightshift model promote`.
    pub promote: bool,
    /// Alarms a day that the risk is fitted to; 0: the risk is left as it is.
    #[schemars(range(min = 0.0, max = 100_000.0))]
    pub alarms_a_day: f64,
    /// Days after which a trial that decided nothing ends.
    #[schemars(range(min = 1, max = 90))]
    pub trial_days: u32,
}

impl Default for RetrainConfig {
    fn default() -> Self {
        Self { enabled: true, hour_utc: 3, promote: true, alarms_a_day: 0.0, trial_days: 7 }
    }
}

impl ModelsAgent {
    /// Once a day, at the hour.
    pub(super) async fn nightly(&mut self, now: Timestamp) -> Result<(), AgentError> {
        let config = self.config.retrain.clone();
        let today = day_of(now);
        let hour = Duration::from_secs(3_600 * u64::from(config.hour_utc.min(23)));
        if !config.enabled || now < day_start(today) + hour {
            return Ok(());
        }
        let (registry, _) = read_registry(&*self.store, &self.tenant).await?;
        if registry.retrained_day.is_some_and(|d| d >= today) {
            return Ok(());
        }
        // A first night without a day behind it would fit to nothing.
        let compared = self.count(now).await?;
        let drift = self.tap.with_learner(|l| drift_of(l, &self.tenant, &self.config.drift));
        let drifted = drift.iter().filter(|d| d.verdict == Verdict::Drifted).count();
        self.drift = drift;
        let (mut registry, read) = read_registry(&*self.store, &self.tenant).await?;
        registry.retrained_day = Some(today);
        let trial = registry.shadow().map(|v| (v.version, v.created_by == WHO, v.since));
        match (trial, compared) {
            (Some((version, ours, since)), Some(compared)) => {
                let word = self.decide(&compared, drifted);
                match word {
                    Ok(why) if ours && config.promote => {
                        registry.promote(WHO, &why, now).map_err(fault)?;
                    }
                    Ok(why) => registry.note(now, WHO, format!("version {version} may be promoted: {why}")),
                    Err(_) if ours && now.since(since).as_secs() >= u64::from(config.trial_days) * 86_400 => {
                        registry.end_trial(WHO, "it decided nothing in its time", now).map_err(fault)?;
                    }
                    Err(why) => registry.note(now, WHO, format!("the trial of version {version} goes on: {why}")),
                }
            }
            (Some(_), None) => {}
            (None, _) => self.refit(&mut registry, drifted, now)?,
        }
        write_registry(&*self.store, &self.tenant, &registry, read).await?;
        self.obey(&registry);
        Ok(())
    }

    /// Why the version on trial may take over, or why not.
    fn decide(&self, compared: &Comparison, drifted: usize) -> Result<String, String> {
        let on_labels = compared.on_labels(&self.config.trial);
        if on_labels.promote {
            return Ok(on_labels.reasons.join("; "));
        }
        let on_drift = compared.on_drift(drifted, &self.config.trial);
        if on_drift.promote { Ok(on_drift.reasons.join("; ")) } else { Err(on_labels.reasons.join("; ")) }
    }

    /// A new version on trial where there is a need: families drifted, nothing was fitted yet, or alarms are too many.
    fn refit(
        &mut self,
        registry: &mut nightshift_detect::models::version::Registry,
        drifted: usize,
        now: Timestamp,
    ) -> Result<(), AgentError> {
        let Some(active) = registry.active().cloned() else { return Ok(()) };
        let (summary, origin) = (self.tap.with_learner(|l| l.summary(&self.tenant)), self.folder.origin());
        let days = summary.days;
        let origin = origin.unwrap_or_default();
        let Some(baselines) = Baselines::of(summary, &origin, &self.tenant, "") else {
            registry.note(now, WHO, "nothing was learned yet, so there is nothing to fit");
            return Ok(());
        };
        let mut overlay: Overlay = active.overlay.clone();
        let mut why = Vec::new();
        if drifted > 0 {
            why.push(format!("{drifted} families drifted"));
        } else if active.data_days.is_none() {
            why.push("nothing was fitted before".to_owned());
        }
        if let Some((was, risk)) = self.risk(&overlay, now) {
            why.push(format!(
                "risk {was:.1e} becomes {risk:.1e} for about {} alarms a day",
                self.config.retrain.alarms_a_day
            ));
            overlay.insert("evt.risk".into(), risk.into());
        }
        if why.is_empty() {
            registry.note(now, WHO, "no family drifted: the active version stays");
            return Ok(());
        }
        match registry.put_on_trial(&self.base, overlay, days, (WHO, &why.join("; ")), now) {
            Ok(version) => {
                let made = registry.get(version).map_err(fault)?;
                self.folder.put_version(made, &baselines).map_err(|e| AgentError::State(format!("{e:#}")))
            }
            Err(VersionError::Same(_)) => {
                registry.note(now, WHO, "what was fitted is what is in use");
                Ok(())
            }
            Err(other) => Err(fault(other)),
        }
    }

    /// The risk in use and one that would bring the alarms of the last day to what is asked for, where that is far off.
    fn risk(&self, overlay: &Overlay, now: Timestamp) -> Option<(f64, f64)> {
        let wanted = self.config.retrain.alarms_a_day;
        if wanted <= 0.0 {
            return None;
        }
        let was = apply(&self.base, overlay).ok()?.evt.risk;
        let day = self.tap.alarms_since(now - Duration::from_secs(86_400));
        let factor = wanted / (day as f64).max(0.5);
        // Within a factor of two it is chance.
        if (0.5..=2.0).contains(&factor) {
            return None;
        }
        let risk = (was * factor.clamp(1.0 / RISK_STEP, RISK_STEP)).clamp(RISK.0, RISK.1);
        ((risk / was - 1.0).abs() > 0.01).then_some((was, risk))
    }
}

/// For the command line: how a trial stands now, from what the running service put away.
pub(crate) async fn standing(
    store: &dyn nightshift_store::Store,
    tenant: &str,
    data: &std::path::Path,
    config: &TrialConfig,
    now: Timestamp,
) -> anyhow::Result<Option<Comparison>> {
    let findings = super::files::Folder::of(data).findings();
    if findings.version == 0 {
        return Ok(None);
    }
    let labels = labels(store, tenant, findings.from()).await?;
    let hours = now.since(findings.since).as_secs_f64() / 3_600.0;
    Ok(Some(compare(&labels, &findings.active, &findings.shadow, hours, config)))
}

fn fault(e: VersionError) -> AgentError {
    AgentError::State(e.to_string())
}
