//! Revisions of a workload, and the way back to one.
//!
//! A deployment keeps them as replica sets, stateful and daemon sets as controller revisions. A version is the tag of the
//! image; where revisions share a tag, `TAG#REVISION` tells them apart.

use super::Context;
use super::edit::{Aim, Deed, Subject};
use super::json::{get, items, leaves, set, text, whole};
use super::place::{CONTROLLER_REVISION, DEPLOYMENT, Place, REPLICA_SET};
use super::rollout::settle;
use super::target::Workload;
use super::workload::{common, of as workload_of, subject, template_aim};
use async_trait::async_trait;
use nightshift_act::ActError;
use nightshift_model::{Action, EntityId, Image};
use serde_json::Value;

/// Label that a controller puts on templates of replica sets.
const HASH_LABEL: &str = "/metadata/labels/pod-template-hash";

/// One revision.
#[derive(Debug, Clone)]
pub(super) struct Revision {
    pub(super) number: i64,
    pub(super) template: Value,
}

/// The revisions of a workload that are kept, oldest first.
pub(super) async fn of(cx: &Context<'_>, workload: &Workload) -> Result<Vec<Revision>, ActError> {
    let kind = if workload.is(&DEPLOYMENT) { &REPLICA_SET } else { &CONTROLLER_REVISION };
    let path = kind.collection(&workload.place.namespace);
    let all = cx.door.list(&path, &workload.query()?).await.map_err(|e| e.read(kind.plural))?;
    let uid = text(&workload.object, "/metadata/uid");
    let owned = |o: &&Value| items(o, "/metadata/ownerReferences").iter().any(|r| text(r, "/uid") == uid);
    let mut out: Vec<Revision> = all.iter().filter(owned).filter_map(|o| revision(o, workload)).collect();
    out.sort_by_key(|r| r.number);
    Ok(out)
}

fn revision(object: &Value, workload: &Workload) -> Option<Revision> {
    if workload.is(&DEPLOYMENT) {
        let number = text(object, "/metadata/annotations/deployment.kubernetes.io~1revision").parse().ok()?;
        let mut template = get(object, "/spec/template");
        set(&mut template, HASH_LABEL, Value::Null);
        return Some(Revision { number, template });
    }
    // What it holds replaces the whole template (`$patch: replace`).
    let mut template = object.pointer("/data/spec/template")?.clone();
    set(&mut template, "/$patch", Value::Null);
    Some(Revision { number: whole(object, "/revision")?, template })
}

fn is_current(revision: &Revision, workload: &Workload) -> bool {
    leaves("", &revision.template, &get(&workload.object, "/spec/template")).is_empty()
}

/// The newest revision that is not the one that runs.
pub(super) fn previous<'a>(history: &'a [Revision], workload: &Workload) -> Option<&'a Revision> {
    history.iter().rev().find(|r| !is_current(r, workload))
}

/// The tags of a template's images.
fn tags(template: &Value) -> String {
    let containers = items(template, "/spec/containers");
    let tag = |c: &Value| {
        let image = text(c, "/image");
        let last = image.rsplit('/').next().unwrap_or(image);
        match (last.split_once('@'), last.rsplit_once(':')) {
            (Some((_, digest)), _) => digest.chars().take(19).collect(),
            (None, Some((_, tag))) => tag.to_owned(),
            (None, None) => "latest".to_owned(),
        }
    };
    let mut all: Vec<String> = Vec::new();
    for c in containers {
        let tag: String = tag(c);
        if !all.contains(&tag) {
            all.push(tag);
        }
    }
    all.join("+")
}

/// The version of a template among the revisions that are kept.
fn version(template: &Value, number: Option<i64>, history: &[Revision]) -> String {
    let own = tags(template);
    let alike = history.iter().filter(|r| tags(&r.template) == own && !leaves("", &r.template, template).is_empty());
    match number {
        Some(number) if alike.count() > 0 => format!("{own}#{number}"),
        _ => own,
    }
}

/// Back to a revision: the whole template as it was.
pub(super) struct Rollback;

#[async_trait]
impl Deed for Rollback {
    async fn find(&self, cx: &Context<'_>, target: &EntityId) -> Result<Vec<Subject>, ActError> {
        subject(cx, target).await
    }

    async fn facts(&self, cx: &Context<'_>, _target: &EntityId, subjects: &[Subject]) -> Result<Image, ActError> {
        let found = workload_of(subjects)?;
        let history = of(cx, &found).await?;
        let mut image = common(&found.object);
        let template = get(&found.object, "/spec/template");
        let current = history.iter().rev().find(|r| is_current(r, &found)).map(|r| r.number);
        image.insert("version".into(), version(&template, current, &history).into());
        if let Some(number) = current {
            image.insert("revision".into(), number.into());
        }
        if let Some(before) = previous(&history, &found) {
            image.insert("previous_version".into(), version(&before.template, Some(before.number), &history).into());
            image.insert("previous_revision".into(), before.number.into());
        }
        Ok(image)
    }

    async fn aim(
        &self,
        cx: &Context<'_>,
        subjects: &[Subject],
        action: &Action,
        share: Option<f64>,
    ) -> Result<Aim, ActError> {
        let found = workload_of(subjects)?;
        let what = found.place.label();
        let history = of(cx, &found).await?;
        let to =
            wanted(action, &history, &found).map_err(|why| ActError::Refused(format!("roll {what} back: {why}")))?;
        let said = format!("{what} back to revision {} ({})", to.number, tags(&to.template));
        template_aim(subjects, to.template.clone(), share, said)
    }

    async fn settle(&self, cx: &Context<'_>, place: &Place, share: Option<f64>) -> Result<String, String> {
        settle(cx, place, share).await
    }
}

fn wanted<'a>(action: &Action, history: &'a [Revision], workload: &Workload) -> Result<&'a Revision, String> {
    let known = || {
        let all = history.iter().map(|r| format!("{} ({})", r.number, tags(&r.template)));
        all.collect::<Vec<_>>().join(", ")
    };
    let by_number = |n: i64| {
        let found = history.iter().find(|r| r.number == n);
        found.ok_or_else(|| format!("revision {n} is not kept; there are {}", known()))
    };
    if let Some(number) = action.params.get("revision").and_then(Value::as_i64) {
        return by_number(number);
    }
    let version = action.params.get("version").and_then(Value::as_str).unwrap_or_default();
    if let Some(number) = version.rsplit_once('#').and_then(|(_, n)| n.parse().ok()) {
        return by_number(number);
    }
    let named = history.iter().rev().filter(|r| tags(&r.template) == version);
    let mut named: Vec<&Revision> = named.collect();
    // The one that runs already is meant only when there is no other.
    if named.len() > 1 {
        named.retain(|r| !is_current(r, workload));
    }
    named.first().copied().ok_or_else(|| format!("version {version} is not kept; there are {}", known()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn template(image: &str, env: &str) -> Value {
        json!({"spec": {"containers": [{"name": "web", "image": image, "env": [{"name": "E", "value": env}]}]}})
    }

    #[test]
    fn versions_are_tags_and_tell_revisions_apart() {
        assert_eq!(tags(&template("registry:5000/shop/web:1.8.2", "")), "1.8.2");
        assert_eq!(tags(&template("registry:5000/shop/web", "")), "latest");
        assert_eq!(tags(&template("shop/web@sha256:0123456789abcdef0123", "")), "sha256:0123456789ab");
        let history = [
            Revision { number: 1, template: template("web:1", "a") },
            Revision { number: 2, template: template("web:1", "b") },
            Revision { number: 3, template: template("web:2", "b") },
        ];
        assert_eq!(version(&history[1].template, Some(2), &history), "1#2");
        assert_eq!(version(&history[2].template, Some(3), &history), "2");
    }

    #[test]
    fn the_newest_other_revision_is_the_one_before() {
        let place = Place::new(&DEPLOYMENT, "shop", "web").unwrap();
        let object = json!({"spec": {"template": template("web:2", "b")}});
        let workload = Workload { place, object };
        let history = [
            Revision { number: 1, template: template("web:1", "a") },
            Revision { number: 4, template: template("web:2", "b") },
        ];
        assert_eq!(previous(&history, &workload).map(|r| r.number), Some(1));
        assert!(previous(&history[1..], &workload).is_none());
    }
}
