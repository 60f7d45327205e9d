//! What a pod names and nobody has made: config maps, secrets, keys, service accounts, claims.

use super::facts::{Part, Subject, target};
use super::text::{nearest, span};
use super::{Trouble, Weight};
use crate::checks::history::Record;
use crate::objects::{KeyItems, PodSpec};
use crate::{Finding, Look, ObjectRef, World};
use nightshift_model::FaultClass;

/// A config map, secret or one of its keys that is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wanted {
    /// `ConfigMap` or `Secret`.
    pub(super) kind: &'static str,
    pub(super) name: String,
    /// A key of it; absent: the object itself.
    pub(super) key: Option<String>,
    /// Who wants it: `container app`, `volume config`.
    pub(super) by: String,
}

/// Made in every namespace by a controller: where there is none, it is on its way.
const MADE_BY_THE_CLUSTER: [&str; 2] = ["kube-root-ca.crt", "openshift-service-ca.crt"];

impl Wanted {
    fn object(&self, namespace: &str) -> ObjectRef {
        ObjectRef::new(self.kind, namespace, self.name.clone())
    }

    /// Whether it is missing now: `None` when that cannot be seen.
    pub(super) fn missing(&self, world: &World, namespace: &str) -> Option<bool> {
        let keys = match self.kind {
            "ConfigMap" => match world.config_maps.look(namespace, &self.name) {
                Look::Found(m) => {
                    Ok(self.key.as_ref().map(|k| m.data.contains_key(k) || m.binary_data.contains_key(k)))
                }
                Look::Missing => Err(true),
                Look::Unseen => Err(false),
            },
            _ => match world.secrets.look(namespace, &self.name) {
                Look::Found(s) => Ok(self.key.as_ref().map(|k| s.data.contains_key(k))),
                Look::Missing => Err(true),
                Look::Unseen => Err(false),
            },
        };
        match keys {
            Ok(has_key) => Some(has_key == Some(false)),
            Err(true) => Some(true),
            Err(false) => None,
        }
    }

    /// Whether the object as a whole is missing, not only a key of it.
    fn whole(&self, world: &World, namespace: &str) -> bool {
        match self.kind {
            "ConfigMap" => world.config_maps.look(namespace, &self.name).is_missing(),
            _ => world.secrets.look(namespace, &self.name).is_missing(),
        }
    }
}

/// What a message of the kubelet says is missing. `volume`: the volume that the message is about, through which a key is
/// known to belong to an object.
pub(super) fn parse(message: &str, spec: &PodSpec) -> Option<Wanted> {
    let low = message.to_ascii_lowercase();
    let volume = super::text::between(message, "for volume \"", "\"");
    let by = volume.map(|v| format!("volume {v}")).unwrap_or_default();
    for (kind, word) in [("ConfigMap", "configmap"), ("Secret", "secret")] {
        // couldn't find key url in ConfigMap shop/app
        if let Some(at) = low.find("couldn't find key ")
            && let Some(mid) = low[at..].find(&format!(" in {word} ")).map(|i| i + at)
        {
            let key = message[at + 18..mid].trim().to_owned();
            let rest = &message[mid + word.len() + 5..];
            let place = rest.split_whitespace().next().unwrap_or_default().trim_end_matches([',', '.', ':']);
            let name = place.rsplit('/').next().unwrap_or_default().to_owned();
            if !name.is_empty() && !key.is_empty() {
                return Some(Wanted { kind, name, key: Some(key), by });
            }
        }
        // configmap "app" not found; configmaps "app" not found
        for mark in [format!("{word} \""), format!("{word}s \"")] {
            if let Some(at) = low.find(&mark) {
                let rest = &message[at + mark.len()..];
                let (name, tail) = rest.split_once('"')?;
                if tail.trim_start().starts_with("not found") && !name.is_empty() {
                    let name = name.rsplit('/').next().unwrap_or_default().to_owned();
                    return Some(Wanted { kind, name, key: None, by });
                }
            }
        }
    }
    // configmap references non-existent config key: app.conf
    for (kind, mark) in [("ConfigMap", "non-existent config key: "), ("Secret", "non-existent secret key: ")] {
        if let Some(at) = low.find(mark) {
            let key = message[at + mark.len()..].split_whitespace().next()?.trim_end_matches([',', '.']).to_owned();
            let name = of_volume(spec, volume?, kind, &key)?;
            return Some(Wanted { kind, name, key: Some(key), by });
        }
    }
    None
}

/// The object of this kind behind a volume, the one that is asked for the key where there are several.
fn of_volume(spec: &PodSpec, volume: &str, kind: &str, key: &str) -> Option<String> {
    let volume = spec.volumes.iter().find(|v| v.name == volume)?;
    let name = |k: &KeyItems| if k.name.is_empty() { k.secret_name.clone() } else { k.name.clone() };
    let direct = if kind == "ConfigMap" { volume.config_map.as_ref() } else { volume.secret.as_ref() };
    if let Some(items) = direct {
        return Some(name(items));
    }
    let sources = volume.projected.as_ref()?.sources.iter();
    let of_kind: Vec<&KeyItems> =
        sources.filter_map(|s| if kind == "ConfigMap" { s.config_map.as_ref() } else { s.secret.as_ref() }).collect();
    of_kind.iter().find(|k| k.items.iter().any(|i| i.key == key)).or(of_kind.first()).map(|k| name(k))
}

/// Everything that a pod must have and that certainly is missing, of containers and volumes.
pub(super) fn of_spec(world: &World, namespace: &str, spec: &PodSpec, volumes: bool) -> Vec<Wanted> {
    let mut out = Vec::new();
    let mut want = |kind: &'static str, name: &str, key: Option<&str>, by: String| {
        let wanted = Wanted { kind, name: name.to_owned(), key: key.map(str::to_owned), by };
        if !name.is_empty()
            && !MADE_BY_THE_CLUSTER.contains(&name)
            && wanted.missing(world, namespace) == Some(true)
            && !out.contains(&wanted)
        {
            out.push(wanted);
        }
    };
    if volumes {
        let mut items = |kind: &'static str, k: &KeyItems, by: &str| {
            if k.optional {
                return;
            }
            let name = if k.name.is_empty() { &k.secret_name } else { &k.name };
            want(kind, name, None, format!("volume {by}"));
            for item in k.items.iter() {
                want(kind, name, Some(&item.key), format!("volume {by}"));
            }
        };
        for volume in spec.volumes.iter() {
            for (kind, k) in [("ConfigMap", &volume.config_map), ("Secret", &volume.secret)] {
                if let Some(k) = k {
                    items(kind, k, &volume.name);
                }
            }
            for source in volume.projected.iter().flat_map(|p| p.sources.iter()) {
                for (kind, k) in [("ConfigMap", &source.config_map), ("Secret", &source.secret)] {
                    if let Some(k) = k {
                        items(kind, k, &volume.name);
                    }
                }
            }
        }
        return out;
    }
    for container in spec.init_containers.iter().chain(spec.containers.iter()) {
        let by = || format!("container {}", container.name);
        for from in container.env_from.iter() {
            for (kind, r) in [("ConfigMap", &from.config_map_ref), ("Secret", &from.secret_ref)] {
                if let Some(r) = r.as_ref().filter(|r| !r.optional) {
                    want(kind, &r.name, None, by());
                }
            }
        }
        for source in container.env.iter().filter_map(|e| e.value_from.as_ref()) {
            for (kind, r) in [("ConfigMap", &source.config_map_key_ref), ("Secret", &source.secret_key_ref)] {
                if let Some(r) = r.as_ref().filter(|r| !r.optional) {
                    want(kind, &r.name, Some(&r.key), by());
                }
            }
        }
    }
    out
}

/// The finding about something that is missing; `None` when it is there by now and the pod will find it.
pub(super) fn told(subject: &Subject<'_>, part: Option<Part<'_>>, wanted: &Wanted) -> Option<Trouble> {
    let (world, namespace) = (subject.cx.world, subject.namespace());
    if wanted.missing(world, namespace) == Some(false) {
        return None;
    }
    let by = match part {
        Some(part) => part.called(),
        None if wanted.by.is_empty() => "the pod".into(),
        None => wanted.by.clone(),
    };
    let object = wanted.object(namespace);
    let (kind, name) = (wanted.kind, &wanted.name);
    let lower = if kind == "ConfigMap" { "configmap" } else { "secret" };
    let key = wanted.key.as_ref().filter(|_| !wanted.whole(world, namespace));
    let (fault, summary, fix) = match key {
        Some(key) => {
            let keys: Vec<&str> = match kind {
                "ConfigMap" => {
                    world.config_maps.get(namespace, name).map(|m| m.data.keys().map(String::as_str).collect())
                }
                _ => world.secrets.get(namespace, name).map(|s| s.data.keys().map(String::as_str).collect()),
            }
            .unwrap_or_default();
            let near = nearest(key, keys.iter().copied());
            let slip = near.map(|n| format!(" It has a key {n}: perhaps that is meant.")).unwrap_or_default();
            (
                FaultClass::MissingConfigKey,
                format!("{kind} {name} has no key {key}, which {by} needs"),
                format!(
                    "Add key {key} to {kind} {name} (kubectl edit {lower}/{name} -n {namespace}), or correct the key in {}.{slip}",
                    target(subject.root)
                ),
            )
        }
        None => {
            let names: Vec<&str> = match kind {
                "ConfigMap" => world.config_maps.in_namespace(namespace).map(|m| m.metadata.name.as_str()).collect(),
                _ => world.secrets.in_namespace(namespace).map(|s| s.metadata.name.as_str()).collect(),
            };
            let near = nearest(name, names.into_iter());
            let slip = near.map(|n| format!(" There is a {kind} {n}: perhaps that is meant.")).unwrap_or_default();
            let fault = if kind == "ConfigMap" { FaultClass::MissingConfigMap } else { FaultClass::MissingSecret };
            let make = if kind == "ConfigMap" { "configmap" } else { "secret generic" };
            (
                fault,
                format!("{kind} {name}, which {by} needs, does not exist in namespace {namespace}"),
                format!(
                    "Create it (kubectl create {make} {name} -n {namespace} …), or correct the name in {}.{slip}",
                    target(subject.root)
                ),
            )
        }
    };
    let why = match deleted(subject, &object) {
        Some(when) => format!("{summary}: it was deleted {when} ago"),
        None => match super::change::of(subject.cx, subject.root) {
            Some(change) if change.what.contains("variable") || change.what.contains("volume") => {
                format!("{summary}; {}", change.told)
            }
            _ => summary.clone(),
        },
    };
    let finding = subject.draft(fault, summary).because(object, why).fix(fix);
    let container = part.map_or("", |p| p.name());
    Some(Trouble::new(Weight::Exact, container, finding))
}

fn deleted(subject: &Subject<'_>, object: &ObjectRef) -> Option<String> {
    let mut records = subject.cx.world.history.of(object).rev();
    records.find_map(|(at, r)| (*r == Record::Deleted).then(|| span(subject.age(at))))
}

/// The finding about a service account that does not exist.
pub(super) fn account(subject: &Subject<'_>, name: &str) -> Finding {
    let namespace = subject.namespace();
    let summary =
        format!("Service account {name} does not exist in namespace {namespace}: the pod cannot get its token");
    let names = subject.cx.world.service_accounts.in_namespace(namespace).map(|a| a.metadata.name.as_str());
    let near = nearest(name, names).map(|n| format!(" There is one called {n}: perhaps that is meant."));
    subject
        .draft(FaultClass::MissingServiceAccount, summary.clone())
        .because(ObjectRef::new("ServiceAccount", namespace, name), summary)
        .fix(format!(
            "Create it with its rights (kubectl create serviceaccount {name} -n {namespace}), or set serviceAccountName of {} to one that exists.{}",
            subject.target(),
            near.unwrap_or_default()
        ))
}

/// The finding about a claim that does not exist.
pub(super) fn claim(subject: &Subject<'_>, name: &str) -> Finding {
    let namespace = subject.namespace();
    let summary = format!("Claim {name}, which a volume of the pod names, does not exist in namespace {namespace}");
    let names = subject.cx.world.claims.in_namespace(namespace).map(|c| c.metadata.name.as_str());
    let near = nearest(name, names).map(|n| format!(" There is a claim {n}: perhaps that is meant."));
    let object = ObjectRef::new("PersistentVolumeClaim", namespace, name);
    subject.draft(FaultClass::MissingClaim, summary.clone()).because(object.clone(), summary).explained_by(object).fix(
        format!(
            "Create PersistentVolumeClaim {name} in namespace {namespace}, or correct claimName in {}.{}",
            subject.target(),
            near.unwrap_or_default()
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kubelet_misses_is_read() {
        let spec: PodSpec = serde_json::from_str(
            r#"{"containers":[],"volumes":[{"name":"cfg","projected":{"sources":[
                {"configMap":{"name":"other"}},{"configMap":{"name":"app","items":[{"key":"a.conf","path":"a"}]}}]}}]}"#,
        )
        .unwrap();
        let read = |text: &str| parse(text, &spec).map(|w| (w.kind, w.name, w.key));
        assert_eq!(read("configmap \"app\" not found"), Some(("ConfigMap", "app".into(), None)));
        assert_eq!(
            read("couldn't find key url in ConfigMap shop/app"),
            Some(("ConfigMap", "app".into(), Some("url".into())))
        );
        assert_eq!(read("couldn't find key pw in Secret shop/db"), Some(("Secret", "db".into(), Some("pw".into()))));
        assert_eq!(
            read("MountVolume.SetUp failed for volume \"cfg\" : configmap references non-existent config key: a.conf"),
            Some(("ConfigMap", "app".into(), Some("a.conf".into())))
        );
        assert_eq!(
            read("MountVolume.SetUp failed for volume \"tls\" : secret \"web-tls\" not found"),
            Some(("Secret", "web-tls".into(), None))
        );
        // The kubelet's cache was not yet filled: no fact about the object.
        assert_eq!(read("MountVolume.SetUp failed for volume \"x\" : object \"shop\"/\"app\" not registered"), None);
        assert_eq!(read(""), None);
    }
}
