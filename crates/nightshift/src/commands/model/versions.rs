//! `model list|show|shadow|promote|rollback`: versions of the detector's model.

use super::say;
use crate::agents::models::{read_registry, standing, write_registry};
use crate::bearer::{Unknown, admin};
use crate::cli::{DataArgs, ShadowArgs};
use crate::exit::{CommandResult, Failure, bad_input};
use crate::settings::{Settings, print_problems};
use anyhow::{Context as _, anyhow};
use nightshift_config::Level;
use nightshift_detect::models::trial::{Comparison, Decision, Scores, Share};
use nightshift_detect::models::version::{ModelVersion, Overlay, Registry, State, VersionError};
use nightshift_model::Clock;
use nightshift_store::{Store, StoreError};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::sync::Arc;

fn refused(e: VersionError) -> Failure {
    bad_input(e.to_string())
}

async fn to_read(args: &DataArgs) -> Result<(Settings, PathBuf, Arc<dyn Store>), Failure> {
    let (settings, data) = Settings::for_command(args)?;
    let store = crate::wiring::open_store_to_read(&settings, &data).await?;
    Ok((settings, data, store))
}

/// What a command needs that changes the models.
struct Change {
    settings: Settings,
    data: PathBuf,
    /// To write the registry beside the service that has it: one document, written only as it was read.
    store: Arc<dyn Store>,
    /// The name behind the admin's token in the data folder: what the registry's journal says of who it was.
    who: String,
}

async fn to_write(args: &DataArgs, clock: Arc<dyn Clock>) -> Result<Change, Failure> {
    let (settings, data) = Settings::for_command(args)?;
    let who = match admin(None, args, &data, clock.clone(), "changing the models").await {
        Ok(who) => who,
        Err(Unknown::Refused(failure)) => return Err(failure),
        Err(Unknown::NotChecked(why)) => {
            return Err(anyhow!("{why}; changing the models needs an admin's token there").into());
        }
    };
    let store = settings.store.build_for_tokens(&data, clock).await.context("open the store")?;
    Ok(Change { settings, data, store, who })
}

async fn write(store: &dyn Store, tenant: &str, registry: &Registry, read: Option<Vec<u8>>) -> Result<(), Failure> {
    match write_registry(store, tenant, registry, read).await {
        Err(StoreError::Conflict(_)) => {
            Err(anyhow!("the service changed the models at the same moment: try again").into())
        }
        other => Ok(other.context("write the models")?),
    }
}

/// `model list`.
pub(super) async fn list(args: &DataArgs, json: bool) -> CommandResult {
    let (settings, _, store) = to_read(args).await?;
    let (registry, _) = read_registry(&*store, &settings.tenant).await?;
    if json {
        return say(&json!({ "data": registry.versions }).to_string());
    }
    if registry.versions.is_empty() {
        return say("No models yet: the first `nightshift run` on this data folder makes version 1.");
    }
    say(&format!("{:<8} {:<8} {:<28} {:<7} {:<16} {}", "VERSION", "STATE", "SINCE", "PARENT", "BY", "WHAT"))?;
    for v in &registry.versions {
        say(&format!(
            "{:<8} {:<8} {:<28} {:<7} {:<16} {}",
            v.version,
            v.state.as_str(),
            v.since.to_rfc3339(),
            v.parent.map_or("-".into(), |p| p.to_string()),
            v.created_by,
            v.note
        ))?;
    }
    Ok(())
}

/// `model show`.
pub(super) async fn show(version: Option<u32>, args: &DataArgs, json: bool, clock: &dyn Clock) -> CommandResult {
    let (settings, data, store) = to_read(args).await?;
    let (registry, _) = read_registry(&*store, &settings.tenant).await?;
    let found = match version {
        Some(n) => registry.get(n).map_err(refused)?,
        None => registry.active().ok_or_else(|| refused(VersionError::Empty))?,
    };
    let trial = &settings.models.trial;
    let compared = match found.state {
        State::Shadow => standing(&*store, &settings.tenant, &data, trial, clock.now()).await?,
        _ => None,
    };
    let compared = compared.or_else(|| found.comparison.clone());
    let decision = compared.as_ref().filter(|_| found.state == State::Shadow).map(|c| c.on_labels(trial));
    if json {
        let data =
            json!({ "version": found, "comparison": compared, "decision": decision, "journal": registry.journal });
        return say(&json!({ "data": data }).to_string());
    }
    tell_version(found)?;
    if let Some(c) = &compared {
        tell_comparison(c)?;
    }
    if let Some(d) = &decision {
        tell_decision(d)?;
    }
    say("What was done:")?;
    for e in registry.journal.iter().rev().take(20).rev() {
        say(&format!("  {} {}: {}", e.at.to_rfc3339(), e.by, e.what))?;
    }
    Ok(())
}

fn tell_version(v: &ModelVersion) -> CommandResult {
    say(&format!("Version {} is {} since {} (id {})", v.version, v.state.as_str(), v.since.to_rfc3339(), v.id))?;
    say(&format!(
        "  made {} by {} from {}, layers of version {}, configuration {}",
        v.created_at.to_rfc3339(),
        v.created_by,
        v.parent.map_or("nothing".into(), |p| format!("version {p}")),
        v.algorithm,
        v.config_hash
    ))?;
    for (key, value) in &v.overlay {
        say(&format!("  {key} = {value}"))?;
    }
    Ok(())
}

fn share(s: Share) -> String {
    if s.of == 0 {
        return "no labels".into();
    }
    format!("{:.2} ({} of {}, 95 %: {:.2} to {:.2})", s.hits as f64 / s.of as f64, s.hits, s.of, s.low, s.high)
}

fn tell_comparison(c: &Comparison) -> CommandResult {
    say(&format!("Trial: {:.1} h, {} labels", c.hours, c.labels))?;
    let line = |name: &str, s: &Scores| {
        say(&format!(
            "  {name:<7} precision {}, recall {}, {} alarms ({:.1} a day)",
            share(s.precision),
            share(s.recall),
            s.alarms,
            s.alarms_a_day
        ))
    };
    line("active", &c.active)?;
    line("shadow", &c.shadow)?;
    say(&format!(
        "  right on labels only: shadow {}, active {}; alarms with none of the other's beside them: shadow {}, active {}",
        c.shadow_only_right, c.active_only_right, c.shadow_alone, c.active_alone
    ))
}

fn tell_decision(d: &Decision) -> CommandResult {
    say(if d.promote { "It may be promoted:" } else { "It may not be promoted:" })?;
    d.reasons.iter().try_for_each(|r| say(&format!("  {r}")))
}

/// The overlay that `--set` asks for, checked as the configuration file would be.
fn overlay(sets: &[String], active: &Overlay) -> Result<Overlay, Failure> {
    let mut overlay = active.clone();
    let mut text = String::new();
    for set in sets {
        let Some((key, value)) = set.split_once('=').map(|(k, v)| (k.trim(), v.trim())) else {
            return Err(bad_input(format!("--set `{set}` is not KEY=VALUE; for example zscore.sensitivity=high")));
        };
        let key = key.strip_prefix("detect.metrics.").unwrap_or(key);
        let sound = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.');
        if key.is_empty() || !key.chars().all(sound) {
            return Err(bad_input(format!("--set `{set}`: `{key}` is no key; for example zscore.sensitivity")));
        }
        // A bare word is a text; everything else is what it looks like.
        let value: Value = serde_json::from_str(value).unwrap_or_else(|_| Value::String(value.to_owned()));
        if !(value.is_number() || value.is_boolean() || value.is_string()) {
            return Err(bad_input(format!("--set `{set}`: a number, a word, true or false")));
        }
        text.push_str(&format!("detect.metrics.{key} = {value}\n"));
        overlay.insert(key.to_owned(), value);
    }
    let none = std::iter::empty::<(String, String)>();
    let loaded =
        nightshift_config::load::<Settings>(&text, "--set", none, &nightshift_config::SystemSecrets, Level::Error);
    if loaded.problems.has_errors() {
        print_problems(&loaded.problems);
        return Err(Failure::Reported);
    }
    Ok(overlay)
}

/// `model shadow`.
pub(super) async fn shadow(args: &ShadowArgs, json: bool, clock: Arc<dyn Clock>) -> CommandResult {
    let Change { settings, store, who, .. } = to_write(&args.data, clock.clone()).await?;
    let (mut registry, read) = read_registry(&*store, &settings.tenant).await?;
    let now = clock.now();
    let why = if args.note.is_empty() { args.set.join(" ") } else { args.note.clone() };
    let (version, what) = if args.stop {
        let why = if why.is_empty() { "asked to" } else { &why };
        (registry.end_trial(&who, why, now).map_err(refused)?, "is not on trial any more")
    } else {
        let active = registry.active().ok_or_else(|| refused(VersionError::Empty))?;
        let (overlay, days) = (overlay(&args.set, &active.overlay)?, active.data_days);
        let base = &settings.detect.metrics;
        (registry.put_on_trial(base, overlay, days, (&who, &why), now).map_err(refused)?, "is on trial")
    };
    write(&*store, &settings.tenant, &registry, read).await?;
    store.close().await?;
    done(version, what, json)
}

fn done(version: u32, what: &str, json: bool) -> CommandResult {
    say(&if json {
        json!({ "data": { "version": version, "what": what } }).to_string()
    } else {
        format!("Version {version} {what}. A running service follows within seconds.")
    })
}

/// `model promote`.
pub(super) async fn promote(
    (anyway, why): (bool, &str),
    args: &DataArgs,
    json: bool,
    clock: Arc<dyn Clock>,
) -> CommandResult {
    let Change { settings, data, store, who } = to_write(args, clock.clone()).await?;
    let (mut registry, read) = read_registry(&*store, &settings.tenant).await?;
    let version = registry.shadow().ok_or_else(|| refused(VersionError::NoShadow))?.version;
    let now = clock.now();
    let compared = standing(&*store, &settings.tenant, &data, &settings.models.trial, now).await?;
    let compared = compared.unwrap_or_default();
    let decision = compared.on_labels(&settings.models.trial);
    if !decision.promote && !anyway {
        store.close().await?;
        if json {
            let data = json!({ "version": version, "decision": decision, "comparison": compared });
            say(&json!({ "data": data }).to_string())?;
        } else {
            tell_comparison(&compared)?;
            tell_decision(&decision)?;
            eprintln!("`nightshift model promote --anyway -m WHY` overrides the rule.");
        }
        return Err(Failure::Declined);
    }
    let said = match (decision.promote, why.is_empty()) {
        (true, true) => decision.reasons.join("; "),
        (true, false) => format!("{} ({why})", decision.reasons.join("; ")),
        (false, _) => format!("{why}; against the rule: {}", decision.reasons.join("; ")),
    };
    registry.set_comparison(compared);
    registry.promote(&who, &said, now).map_err(refused)?;
    write(&*store, &settings.tenant, &registry, read).await?;
    store.close().await?;
    done(version, "is active", json)
}

/// `model rollback`.
pub(super) async fn rollback(
    to: Option<u32>,
    why: &str,
    args: &DataArgs,
    json: bool,
    clock: Arc<dyn Clock>,
) -> CommandResult {
    let Change { settings, store, who, .. } = to_write(args, clock.clone()).await?;
    let (mut registry, read) = read_registry(&*store, &settings.tenant).await?;
    let why = if why.is_empty() { "asked to" } else { why };
    let version = registry.rollback(to, &who, why, clock.now()).map_err(refused)?;
    write(&*store, &settings.tenant, &registry, read).await?;
    store.close().await?;
    done(version, "is active again", json)
}
