//! The fields of a change, as the event door and exec collectors take them.
//!
//! Lives here: the one reading of a change from JSON. Never here: where it came from.

use crate::Attributes;
use crate::lines::{LineContext, time};
use nightshift_model::{Change, ChangeType, DEFAULT_TENANT, EntityId, EnvelopeId, Timestamp};
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// Longest text of one field, bytes. Longer ones are cut.
pub(crate) const TEXT_BYTES_MAX: usize = 4 << 10;

/// Most attributes, known risks.
pub(crate) const LIST_MAX: usize = 64;

/// A JSON object whose fields are taken out one by one.
pub(crate) struct Fields<'a>(pub(crate) &'a Map<String, Value>);

impl<'a> Fields<'a> {
    /// The first of these that is there and not null.
    pub(crate) fn get(&self, names: &[&str]) -> Option<&'a Value> {
        names.iter().find_map(|n| self.0.get(*n)).filter(|v| !v.is_null())
    }

    /// Text (or a number or truth value, as text); empty when absent.
    ///
    /// # Errors
    /// It is a list or an object.
    pub(crate) fn text(&self, names: &[&str]) -> Result<String, String> {
        match self.get(names) {
            None => Ok(String::new()),
            Some(Value::String(s)) => {
                let mut text = crate::lines::clean(s.as_bytes());
                crate::lines::cut(&mut text, TEXT_BYTES_MAX);
                Ok(text)
            }
            Some(v @ (Value::Number(_) | Value::Bool(_))) => Ok(v.to_string()),
            Some(_) => Err(format!("`{}` must be text", names[0])),
        }
    }

    /// RFC 3339, or seconds or milliseconds since 1970; `None` when absent.
    ///
    /// # Errors
    /// It is there and no time.
    pub(crate) fn time(&self, names: &[&str], now: Timestamp) -> Result<Option<Timestamp>, String> {
        let found = match self.get(names) {
            None => return Ok(None),
            Some(Value::String(s)) => time::whole(s.trim(), &LineContext::at(now)),
            Some(Value::Number(n)) => n.as_f64().and_then(time::epoch),
            Some(_) => None,
        };
        found.map(Some).ok_or_else(|| format!("`{}` must be a time: RFC 3339, or seconds since 1970", names[0]))
    }

    /// An object of texts; empty when absent.
    ///
    /// # Errors
    /// It is no object.
    pub(crate) fn map(&self, names: &[&str]) -> Result<BTreeMap<String, String>, String> {
        match self.get(names) {
            None => Ok(BTreeMap::new()),
            Some(Value::Object(map)) => Ok(flat(map)),
            Some(_) => Err(format!("`{}` must be an object of texts", names[0])),
        }
    }

    /// A list of texts, or one text; empty when absent.
    ///
    /// # Errors
    /// It is something else.
    pub(crate) fn list(&self, names: &[&str]) -> Result<Vec<String>, String> {
        let wrong = || format!("`{}` must be a list of texts", names[0]);
        let one = |v: &Value| {
            let mut text = v.as_str().ok_or_else(wrong)?.to_owned();
            crate::lines::cut(&mut text, TEXT_BYTES_MAX);
            Ok(text)
        };
        match self.get(names) {
            None => Ok(Vec::new()),
            Some(Value::Array(list)) => list.iter().take(LIST_MAX).map(one).collect(),
            Some(v) => Ok(vec![one(v)?]),
        }
    }
}

/// An object as texts: what is nested is written as JSON.
pub(crate) fn flat(map: &Map<String, Value>) -> BTreeMap<String, String> {
    let text = |v: &Value| {
        let mut text = v.as_str().map_or_else(|| v.to_string(), ToOwned::to_owned);
        crate::lines::cut(&mut text, TEXT_BYTES_MAX);
        text
    };
    map.iter().filter(|(_, v)| !v.is_null()).take(LIST_MAX).map(|(k, v)| (k.clone(), text(v))).collect()
}

/// What the word for a change means; `None` when it is no known one.
pub(crate) fn change_type(word: &str) -> Option<ChangeType> {
    Some(match word.to_ascii_lowercase().replace(['-', ' '], "_").as_str() {
        "deployment" | "deploy" | "release" | "rollback" | "rollout" => ChangeType::Deployment,
        "config" | "configuration" | "config_change" => ChangeType::Config,
        "scaling" | "scale" | "resize" => ChangeType::Scaling,
        "feature_flag" | "flag" | "toggle" => ChangeType::FeatureFlag,
        "migration" | "schema" | "schema_migration" => ChangeType::Migration,
        "event" | "note" => ChangeType::Event,
        _ => return None,
    })
}

/// Where a record says that it comes from: `resource`, and the short names beside it.
///
/// # Errors
/// A field has the wrong type.
pub(crate) fn resource(fields: &Fields<'_>) -> Result<Attributes, String> {
    let mut resource = fields.map(&["resource"])?;
    for (short, name) in [
        ("service", "service.name"),
        ("version", "service.version"),
        ("namespace", "service.namespace"),
        ("environment", "deployment.environment.name"),
        ("host", "host.name"),
        ("cluster", "k8s.cluster.name"),
        ("owner", "service.owner"),
    ] {
        let value = fields.text(&[short])?;
        if !value.is_empty() {
            resource.entry(name.to_owned()).or_insert(value);
        }
    }
    Ok(resource)
}

/// Reads a change. `kind` is used where the record names no type of its own.
///
/// # Errors
/// What is wrong with which field.
pub(crate) fn read(
    fields: &Fields<'_>,
    kind: Option<ChangeType>,
    source: &str,
    now: Timestamp,
) -> Result<(Attributes, Change), String> {
    let word = fields.text(&["change_type", "changeType"])?;
    let change_type = match (word.is_empty(), kind) {
        (true, Some(kind)) => kind,
        (true, None) => ChangeType::Deployment,
        (false, _) => change_type(&word).ok_or_else(|| {
            format!("`change_type` is `{word}`, not one of deployment, config, scaling, feature_flag, migration, event")
        })?,
    };
    let resource = resource(fields)?;
    let entity = match fields.text(&["entity"])? {
        id if id.is_empty() => None,
        id => Some(EntityId::parse(&id).map_err(|e| format!("`entity`: {e}"))?),
    };
    let summary = fields.text(&["summary", "message", "title", "description"])?;
    let service = resource.get("service.name").cloned().unwrap_or_default();
    if entity.is_none() && resource.is_empty() && summary.is_empty() {
        return Err("say what was changed: `service`, `entity` or `resource`, or at least a `summary`".into());
    }
    let at = fields.time(&["at", "time", "timestamp"], now)?;
    let mut change = Change {
        id: EnvelopeId::default(),
        tenant: DEFAULT_TENANT.into(),
        at: at.unwrap_or(now),
        entity,
        service,
        change_type,
        version: fields.text(&["version"])?,
        git_sha: fields.text(&["git_sha", "gitSha", "commit", "sha"])?,
        author: fields.text(&["author", "user", "actor"])?,
        summary,
        known_risks: fields.list(&["known_risks", "knownRisks"])?,
        source: source.to_owned(),
        attributes: fields.map(&["attributes"])?,
    };
    change.id = id_of(&change, &fields.text(&["id"])?, at.is_some());
    Ok((resource, change))
}

/// The id of a change: its sender's, or derived from what it says. One that has no time of its own is a new one each
/// time it is received.
pub(crate) fn id_of(change: &Change, given: &str, has_time: bool) -> EnvelopeId {
    if !given.is_empty() {
        return EnvelopeId::derive(&[b"change", change.source.as_bytes(), given.as_bytes()]);
    }
    let at = change.at.0.to_be_bytes();
    let attributes = serde_json::to_vec(&change.attributes).unwrap_or_default();
    let kind = format!("{:?}", change.change_type);
    EnvelopeId::derive(&[
        b"change",
        change.source.as_bytes(),
        if has_time { b"sent" } else { b"received" },
        &at,
        kind.as_bytes(),
        change.entity.as_ref().map_or("", |e| e.as_str()).as_bytes(),
        change.service.as_bytes(),
        change.version.as_bytes(),
        change.git_sha.as_bytes(),
        change.author.as_bytes(),
        change.summary.as_bytes(),
        &attributes,
    ])
}
