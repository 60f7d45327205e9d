//! Feature flags: keys of a config map, and flags of a flagd file (the OpenFeature daemon) that a config map holds.
//!
//! A key counts as a flag only where its owner says so: the config map carries the label or annotation
//! `nightshift.dev/flags: "true"`, or the key is a flagd file (`*.flagd.json`, or JSON with a `flags` object).

use super::Context;
use super::edit::{Aim, Deed, Subject};
use super::json::{Fields, escaped, get, items, text};
use super::place::{CONFIG_MAP, Place};
use super::target::{must, workload};
use async_trait::async_trait;
use nightshift_act::ActError;
use nightshift_model::{Action, EntityId, Image};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// Largest flag file that is kept in an image, bytes: images are journalled.
const FILE_BYTES_MAX: usize = 32 << 10;

/// The value of a flag.
pub(super) struct Toggle;

/// Where a flag stands.
#[derive(Debug, Clone, PartialEq)]
enum Stands {
    /// The value of a key.
    Key(String),
    /// In the flagd file of this key.
    File(String),
}

fn truth(text: &str) -> Option<bool> {
    match text.trim() {
        "true" | "on" | "enabled" | "1" => Some(true),
        "false" | "off" | "disabled" | "0" => Some(false),
        _ => None,
    }
}

/// The other value in the same words.
fn in_words_of(old: &str, value: bool) -> &'static str {
    match (old.trim(), value) {
        ("on" | "off", true) => "on",
        ("on" | "off", false) => "off",
        ("enabled" | "disabled", true) => "enabled",
        ("enabled" | "disabled", false) => "disabled",
        ("1" | "0", true) => "1",
        ("1" | "0", false) => "0",
        (_, true) => "true",
        (_, false) => "false",
    }
}

/// The value of a flag of a flagd file; `None`: it is no switch.
fn flagd_value(flag: &Value) -> Option<bool> {
    if text(flag, "/state") == "DISABLED" {
        return Some(false);
    }
    let variant = text(flag, "/defaultVariant");
    match flag.get("variants")?.get(variant)? {
        Value::Bool(b) => Some(*b),
        _ => truth(variant),
    }
}

fn set_flagd(flag: &mut Value, value: bool) -> Option<()> {
    let variants = flag.get("variants")?.as_object()?;
    let named = variants.iter().find(|(_, v)| **v == Value::Bool(value)).map(|(name, _)| name.clone());
    let variant = named.or_else(|| variants.keys().find(|k| truth(k) == Some(value)).cloned())?;
    flag["defaultVariant"] = variant.into();
    if text(flag, "/state") == "DISABLED" && value {
        flag["state"] = "ENABLED".into();
    }
    Some(())
}

fn flags(map: &Value) -> BTreeMap<String, (Stands, bool)> {
    let mut out = BTreeMap::new();
    let marked =
        ["labels", "annotations"].iter().any(|m| text(map, &format!("/metadata/{m}/nightshift.dev~1flags")) == "true");
    for (key, value) in map.get("data").and_then(Value::as_object).into_iter().flatten() {
        let content = value.as_str().unwrap_or_default();
        if content.len() > FILE_BYTES_MAX {
            continue;
        }
        if let Some(value) = truth(content).filter(|_| marked) {
            out.insert(key.clone(), (Stands::Key(key.clone()), value));
        } else if let Ok(file) = serde_json::from_str::<Value>(content) {
            for (name, flag) in file.get("flags").and_then(Value::as_object).into_iter().flatten() {
                if let Some(value) = flagd_value(flag) {
                    out.insert(name.clone(), (Stands::File(key.clone()), value));
                }
            }
        }
    }
    out
}

fn subject(place: Place, object: Value) -> Option<Subject> {
    let keys: BTreeSet<String> = flags(&object)
        .into_values()
        .map(|(stands, _)| match stands {
            Stands::Key(key) | Stands::File(key) => format!("/data/{}", escaped(&key)),
        })
        .collect();
    let roots: Vec<&str> = keys.iter().map(String::as_str).collect();
    (!roots.is_empty()).then(|| Subject::new(place, object, &roots))
}

/// Names of the config maps that a pod template reads.
fn read_by(template: &Value) -> BTreeSet<String> {
    let mut out = BTreeSet::new();
    let spec = get(template, "/spec");
    for volume in items(&spec, "/volumes") {
        out.insert(text(volume, "/configMap/name").to_owned());
        for source in items(volume, "/projected/sources") {
            out.insert(text(source, "/configMap/name").to_owned());
        }
    }
    for container in items(&spec, "/containers").iter().chain(items(&spec, "/initContainers")) {
        for from in items(container, "/envFrom") {
            out.insert(text(from, "/configMapRef/name").to_owned());
        }
        for variable in items(container, "/env") {
            out.insert(text(variable, "/valueFrom/configMapKeyRef/name").to_owned());
        }
    }
    out.remove("");
    out
}

#[async_trait]
impl Deed for Toggle {
    async fn find(&self, cx: &Context<'_>, target: &EntityId) -> Result<Vec<Subject>, ActError> {
        let namespace = target.namespace();
        let names = match target.kind_str() {
            "configmap" => BTreeSet::from([target.name()]),
            _ => read_by(&get(&workload(cx, target).await?.object, "/spec/template")),
        };
        let mut out = Vec::new();
        for name in names.iter().take(16) {
            let place = Place::new(&CONFIG_MAP, &namespace, name)?;
            let object = match target.kind_str() {
                "configmap" => Some(must(cx, &place).await?),
                _ => cx.door.get(&place).await.map_err(|e| e.read(&place.label()))?,
            };
            out.extend(object.and_then(|o| subject(place, o)));
        }
        Ok(out)
    }

    async fn facts(&self, _cx: &Context<'_>, _target: &EntityId, subjects: &[Subject]) -> Result<Image, ActError> {
        let all = subjects.iter().flat_map(|s| flags(&s.object));
        Ok(all.map(|(name, (_, value))| (format!("flag.{name}"), json!(value))).collect())
    }

    async fn aim(
        &self,
        _cx: &Context<'_>,
        subjects: &[Subject],
        action: &Action,
        _share: Option<f64>,
    ) -> Result<Aim, ActError> {
        super::whole_only(action)?;
        let name = action.params.get("flag").and_then(Value::as_str).unwrap_or_default();
        let refused = |why: &str| ActError::Refused(format!("set flag `{name}` of {}: {why}", action.target.name()));
        let Some(value) = action.params.get("enabled").and_then(Value::as_bool) else {
            return Err(refused("give `enabled`: true or false"));
        };
        let mut places = subjects.iter().enumerate().filter_map(|(i, s)| Some((i, flags(&s.object).remove(name)?)));
        let Some((which, (stands, _))) = places.next() else { return Err(refused("there is no such flag")) };
        if places.next().is_some() {
            return Err(refused("it stands in more than one config map; name the config map as the target"));
        }
        let map = &subjects[which];
        if get(&map.object, "/immutable") == Value::Bool(true) {
            return Err(refused("its config map is immutable"));
        }
        let (key, content) = match stands {
            Stands::Key(key) => {
                let old = get(&map.object, &format!("/data/{}", escaped(&key)));
                let new = in_words_of(old.as_str().unwrap_or_default(), value);
                (key, new.to_owned())
            }
            Stands::File(key) => {
                let old = get(&map.object, &format!("/data/{}", escaped(&key)));
                let mut file: Value = serde_json::from_str(old.as_str().unwrap_or_default())
                    .map_err(|_| refused("its file is no JSON"))?;
                let flag = file.get_mut("flags").and_then(|f| f.get_mut(name));
                flag.and_then(|f| set_flagd(f, value)).ok_or_else(|| refused("it has no variant with that value"))?;
                let text = serde_json::to_string_pretty(&file).map_err(|_| refused("its file cannot be written"))?;
                (key, text)
            }
        };
        let fields = Fields::from([(format!("/data/{}", escaped(&key)), content.into())]);
        Ok(Aim { which, fields, said: format!("flag {name} in {} to {value}", map.place.label()) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = r#"{"flags": {
        "fast": {"state": "ENABLED", "variants": {"on": true, "off": false}, "defaultVariant": "on"},
        "dark": {"state": "DISABLED", "variants": {"on": true, "off": false}, "defaultVariant": "on"},
        "colour": {"state": "ENABLED", "variants": {"red": "r", "blue": "b"}, "defaultVariant": "red"}}}"#;

    #[test]
    fn flags_are_what_their_owner_calls_so() {
        let map = json!({"metadata": {"labels": {"nightshift.dev/flags": "true"}}, "data": {"checkout_v2": "on", "url": "http://x", "flagd.json": FILE}});
        let found: Vec<_> = flags(&map).into_iter().map(|(n, (_, v))| (n, v)).collect();
        assert_eq!(found, [("checkout_v2".into(), true), ("dark".into(), false), ("fast".into(), true)]);
        let bare = json!({"data": {"checkout_v2": "true"}});
        assert!(flags(&bare).is_empty(), "nobody said that it is a flag");
    }

    #[test]
    fn a_flagd_flag_is_set_by_its_variant() {
        let mut file: Value = serde_json::from_str(FILE).unwrap();
        set_flagd(&mut file["flags"]["fast"], false).unwrap();
        set_flagd(&mut file["flags"]["dark"], true).unwrap();
        assert_eq!(
            (flagd_value(&file["flags"]["fast"]), flagd_value(&file["flags"]["dark"])),
            (Some(false), Some(true))
        );
        assert!(set_flagd(&mut file["flags"]["colour"], true).is_none());
        assert_eq!(
            (in_words_of("enabled", false), in_words_of("1", false), in_words_of("x", true)),
            ("disabled", "0", "true")
        );
    }

    #[test]
    fn the_config_maps_of_a_template_are_those_that_it_reads() {
        let template = json!({"spec": {
            "volumes": [{"configMap": {"name": "a"}}, {"projected": {"sources": [{"configMap": {"name": "b"}}]}}, {"emptyDir": {}}],
            "containers": [{"envFrom": [{"configMapRef": {"name": "c"}}], "env": [{"valueFrom": {"configMapKeyRef": {"name": "d"}}}]}]}});
        assert_eq!(read_by(&template).into_iter().collect::<Vec<_>>(), ["a", "b", "c", "d"]);
    }
}
