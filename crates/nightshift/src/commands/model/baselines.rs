//! `model export|merge|import|drift`: what was learned of families, and files of it.

use super::say;
use crate::agents::models::{Folder, drift_of, learned_of, read_baselines};
use crate::cli::{DataArgs, ExportArgs};
use crate::exit::{CommandResult, Failure, bad_input};
use crate::settings::Settings;
use anyhow::{Context as _, anyhow};
use nightshift_detect::models::drift::{self, FamilyDrift};
use nightshift_detect::models::{Baselines, Learner, Summary};
use serde_json::json;
use std::path::{Path, PathBuf};

fn learned(args: &DataArgs) -> Result<(Settings, PathBuf, String, Learner), Failure> {
    let (settings, data) = Settings::for_command(args)?;
    match learned_of(&data, settings.models.learn.clone())? {
        Some((origin, learner)) => Ok((settings, data, origin, learner)),
        None => Err(anyhow!(
            "nothing was learned in {} yet: `nightshift run` learns, and puts it away every {} s",
            data.display(),
            settings.models.save_every_secs
        )
        .into()),
    }
}

/// To a file or to standard output; for a file it is said what is in it.
fn put(of: &Baselines, output: Option<&Path>, json: bool) -> CommandResult {
    let text = of.to_text();
    let Some(path) = output else { return say(text.trim_end()) };
    std::fs::write(path, &text).with_context(|| format!("write {}", path.display()))?;
    let (id, parts, families, readings) = (of.id(), of.parts.len(), of.families.len(), of.readings());
    say(&if json {
        json!({ "data": { "id": id, "file": path, "parts": parts, "families": families, "readings": readings,
            "bytes": text.len() } })
        .to_string()
    } else {
        format!(
            "{}: {families} families, {readings} readings of {parts} learners, {} bytes, id {id}",
            path.display(),
            text.len()
        )
    })
}

/// `model export`.
pub(super) fn export(args: &ExportArgs, json: bool) -> CommandResult {
    let (settings, _, origin, learner) = learned(&args.data)?;
    let tenant = args.tenant.as_ref().unwrap_or(&settings.tenant);
    let cluster = &settings.ingest.resolve.cluster;
    let Some(mut of) = Baselines::of(learner.summary(tenant), &origin, tenant, cluster) else {
        let known: Vec<&str> = learner.tenants().collect();
        let hint = match known.as_slice() {
            [] => "of no tenant yet".to_owned(),
            some => format!("only of {}", some.join(", ")),
        };
        return Err(anyhow!("nothing was learned of tenant `{tenant}` ({hint})").into());
    };
    of = of.drop_small(args.series_min);
    if args.anonymous {
        of = of.anonymous();
    }
    put(&of, args.output.as_deref(), json)
}

/// A file that cannot be used is bad input.
fn open(path: &Path) -> Result<Baselines, Failure> {
    read_baselines(path).map_err(Failure::BadInput)
}

/// `model merge`.
pub(super) fn merge(files: &[PathBuf], output: Option<&Path>, json: bool) -> CommandResult {
    let mut sum: Option<Baselines> = None;
    for path in files {
        let next = open(path)?;
        match &mut sum {
            None => sum = Some(next),
            Some(sum) => sum.merge(&next).map_err(|e| bad_input(format!("add {}: {e}", path.display())))?,
        }
    }
    let sum = sum.ok_or_else(|| bad_input("name at least one file"))?;
    put(&sum, output, json)
}

/// `model import`.
pub(super) fn import(files: &[PathBuf], args: &DataArgs, json: bool) -> CommandResult {
    let (_, data) = Settings::for_command(args)?;
    // All are read before any is taken in.
    let read = files.iter().map(|p| open(p).map(|b| (p, b))).collect::<Result<Vec<_>, _>>()?;
    std::fs::create_dir_all(&data).with_context(|| format!("make the data folder {}", data.display()))?;
    let folder = Folder::open(&data)?;
    let mut taken = Vec::new();
    for (path, baselines) in read {
        let id = folder.import(&baselines).map_err(|e| bad_input(format!("import {}: {e}", path.display())))?;
        taken.push((id, baselines.families.len(), baselines.readings()));
    }
    if json {
        let rows: Vec<_> = taken.iter().map(|(id, f, r)| json!({ "id": id, "families": f, "readings": r })).collect();
        return say(&json!({ "data": rows }).to_string());
    }
    for (id, families, readings) in taken {
        say(&format!("imported {id}: {families} families, {readings} readings"))?;
    }
    say("New series of these families start with their scale and tails; a running service follows within seconds.")
}

/// `model drift`.
pub(super) fn drift(against: Option<&Path>, args: &DataArgs, json: bool) -> CommandResult {
    let (settings, _, _, learner) = learned(args)?;
    let config = &settings.models.drift;
    let rows = match against {
        None => drift_of(&learner, &settings.tenant, config),
        Some(path) => {
            let before = Summary { families: open(path)?.families, days: None };
            let newest = learner.summary(&settings.tenant).days.map_or(0, |(_, d)| d);
            let first = newest - i64::from(config.recent_days.max(1)) + 1;
            drift::report(&before, &learner.summary_of_days(&settings.tenant, first, newest), config)
        }
    };
    if json {
        let rows: Vec<_> = rows.iter().map(row).collect();
        return say(&json!({ "data": rows }).to_string());
    }
    if rows.is_empty() {
        return say("Nothing was learned yet.");
    }
    say(&format!(
        "{:<40} {:<9} {:>7} {:>6} {:>10} {:>10} {:>12} {:>12}",
        "FAMILY", "VERDICT", "INDEX", "GAP", "BEFORE", "RECENT", "MEDIAN WAS", "IS"
    ))?;
    let number = |v: Option<f64>| v.map_or("-".to_owned(), |v| format!("{v:.4}"));
    for r in &rows {
        say(&format!(
            "{:<40} {:<9} {:>7.3} {:>6.3} {:>10} {:>10} {:>12} {:>12}",
            r.family.to_string(),
            r.verdict.as_str(),
            r.worst(),
            r.ks,
            r.readings_before,
            r.readings_recent,
            number(r.median_before),
            number(r.median_recent)
        ))?;
    }
    say(&format!(
        "Index: population stability, worst of values, spreads and forecast errors; above {} watch, above {} drifted. \
         Gap: Kolmogorov-Smirnov, 0 to 1.",
        config.watch_psi, config.drift_psi
    ))
}

fn row(of: &FamilyDrift) -> serde_json::Value {
    let mut value = json!(of);
    if let Some(fields) = value.as_object_mut() {
        fields.insert("family".into(), json!(of.family.to_string()));
        fields.insert("worst".into(), json!(of.worst()));
    }
    value
}
