//! Our own fields: `{"kind":"change", …}`.

use super::{Around, EXPECTED, Item};
use crate::alert::{Alert, SCORE_UNKNOWN, score_of};
use crate::change::{self, Fields};
use crate::exec;
use nightshift_model::ChangeType;
use serde_json::{Map, Value};
use std::sync::Arc;

pub(super) fn read(object: &Map<String, Value>, around: &Around<'_>) -> Result<Item, String> {
    let fields = Fields(object);
    match fields.text(&["kind"])?.as_str() {
        kind @ ("change" | "event" | "alert" | "log") => of_kind(kind, &fields, around),
        // Only what can be nothing else: a guess that is wrong is worse than a question.
        "" if object.contains_key("change_type") => of_kind("change", &fields, around),
        "" => Err(EXPECTED.to_owned()),
        other => Err(format!("{EXPECTED}; `kind` is `{other}`")),
    }
}

pub(super) fn of_kind(kind: &str, fields: &Fields<'_>, around: &Around<'_>) -> Result<Item, String> {
    match kind {
        "change" => Ok(Item::Change(Box::new(change::read(fields, None, around.source, around.now)?))),
        "event" => {
            let read = change::read(fields, Some(ChangeType::Event), around.source, around.now)?;
            Ok(Item::Change(Box::new(read)))
        }
        "alert" => Ok(Item::Alert(Box::new(alert(fields, around)?.into_anomaly(around.source, around.now)))),
        _ => {
            let resource = Arc::default();
            let log = exec::log_entry(fields, around.source, &resource, around.now)?;
            Ok(Item::Log(Box::new(log)))
        }
    }
}

fn alert(fields: &Fields<'_>, around: &Around<'_>) -> Result<Alert, String> {
    let name = fields.text(&["name", "alertname", "title"])?;
    if name.is_empty() || name.len() > 256 {
        return Err("`name` of an alert must have 1 to 256 bytes".into());
    }
    let starts_at = fields.time(&["starts_at", "startsAt", "at", "time"], around.now)?;
    let ends_at = fields.time(&["ends_at", "endsAt"], around.now)?;
    let (starts_at, ends_at) = match (fields.text(&["status"])?.as_str(), starts_at, ends_at) {
        ("" | "firing", at, _) => (at.unwrap_or(around.now), None),
        ("resolved", Some(at), end) => (at, Some(end.unwrap_or(around.now).max(at))),
        ("resolved", None, _) => return Err("`starts_at` is missing: it tells which firing alert is over".into()),
        (other, ..) => return Err(format!("`status` is `{other}`, not firing or resolved")),
    };
    let word = fields.text(&["severity"])?;
    let score = match fields.get(&["score"]) {
        Some(score) => match score.as_f64() {
            Some(score) if (0.0..=1.0).contains(&score) => score,
            _ => return Err("`score` must be a number from 0 to 1".into()),
        },
        None if word.is_empty() => SCORE_UNKNOWN,
        None => score_of(&word).ok_or_else(|| format!("`severity` is `{word}`, not critical, high, medium or low"))?,
    };
    let fault = match fields.text(&["fault"])? {
        slug if slug.is_empty() => None,
        slug => Some(slug.parse().map_err(|e| format!("`fault`: {e}"))?),
    };
    Ok(Alert {
        labels: fields.map(&["labels"])?,
        resource: change::resource(fields)?,
        starts_at,
        ends_at,
        score,
        summary: fields.text(&["summary", "message", "title"])?,
        sample: fields.text(&["description", "url"])?,
        features: std::collections::BTreeMap::new(),
        fault,
        name,
    })
}
