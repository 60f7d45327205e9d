//! Replicas, of a workload or by the bounds of its autoscaler.

use super::Context;
use super::edit::{Aim, Deed, Subject};
use super::json::{Fields, text, whole};
use super::place::{AUTOSCALER, DAEMON_SET, Place};
use super::rollout::settle;
use super::target::{Workload, must, owner, workload};
use super::workload::common;
use async_trait::async_trait;
use nightshift_act::ActError;
use nightshift_model::{Action, EntityId, Image};
use serde_json::{Value, json};

/// Annotation, of an autoscaler or a workload: the most replicas that its owner allows.
const LIMIT: &str = "/metadata/annotations/nightshift.dev~1max-replicas";
/// Annotation of a workload: the fewest.
const LEAST: &str = "/metadata/annotations/nightshift.dev~1min-replicas";

const BOUNDS: &[&str] = &["/spec/minReplicas", "/spec/maxReplicas"];

fn refused(why: String) -> ActError {
    ActError::Refused(why)
}

/// The autoscaler of a workload.
async fn autoscaler(cx: &Context<'_>, of: &Workload) -> Result<Option<Subject>, ActError> {
    let namespace = &of.place.namespace;
    let all = cx.door.list(&AUTOSCALER.collection(namespace), "").await.map_err(|e| e.read("autoscalers"))?;
    let found = all.into_iter().find(|a| {
        text(a, "/spec/scaleTargetRef/kind") == of.place.kind.name
            && text(a, "/spec/scaleTargetRef/name") == of.place.name
    });
    let Some(object) = found else { return Ok(None) };
    ours(&object)?;
    let place = Place::new(&AUTOSCALER, namespace, text(&object, "/metadata/name"))?;
    Ok(Some(Subject::new(place, object, BOUNDS)))
}

/// What another controller writes would be written back by it.
fn ours(autoscaler: &Value) -> Result<(), ActError> {
    match owner(autoscaler) {
        Some((kind, name)) => {
            let own = text(autoscaler, "/metadata/name");
            Err(refused(format!("change autoscaler {own}: {kind} {name} sets its bounds; change them there")))
        }
        None => Ok(()),
    }
}

fn annotated(object: &Value, pointer: &str) -> Option<i64> {
    text(object, pointer).parse().ok().filter(|n| *n >= 0)
}

fn wanted(action: &Action, name: &str) -> Result<Option<i64>, ActError> {
    let Some(value) = action.params.get(name) else { return Ok(None) };
    let whole = value.as_i64().or_else(|| value.as_f64().filter(|n| n.fract() == 0.0).map(|n| n as i64));
    match whole {
        Some(n) if (1..=10_000).contains(&n) => Ok(Some(n)),
        _ => Err(refused(format!("scale {}: `{name}` is {value}, not 1 to 10000", action.target.name()))),
    }
}

/// The number of replicas. Where an autoscaler sets it, its lower bound is raised, or its upper bound lowered.
pub(super) struct Scale {
    pub(super) down: bool,
}

#[async_trait]
impl Deed for Scale {
    async fn find(&self, cx: &Context<'_>, target: &EntityId) -> Result<Vec<Subject>, ActError> {
        let found = workload(cx, target).await?;
        if found.is(&DAEMON_SET) {
            return Err(refused(format!("scale {}: a daemon set runs on every node", found.place.label())));
        }
        if let Some(bounds) = autoscaler(cx, &found).await? {
            return Ok(vec![bounds]);
        }
        Ok(vec![Subject::new(found.place, found.object, &["/spec/replicas"])])
    }

    async fn facts(&self, cx: &Context<'_>, target: &EntityId, subjects: &[Subject]) -> Result<Image, ActError> {
        let found = workload(cx, target).await?;
        let mut image = common(&found.object);
        let bounds = subjects.first().filter(|s| s.place.kind == &AUTOSCALER).map(|s| &s.object);
        let least = match bounds {
            Some(b) => Some(whole(b, "/spec/minReplicas").unwrap_or(1)),
            None => annotated(&found.object, LEAST),
        };
        let most = bounds.and_then(|b| whole(b, "/spec/maxReplicas")).or_else(|| annotated(&found.object, LIMIT));
        if let Some(n) = least {
            image.insert("min_replicas".into(), n.into());
        }
        if let Some(n) = most {
            image.insert("max_replicas".into(), n.into());
        }
        if let Some(b) = bounds {
            image.insert("autoscaler".into(), text(b, "/metadata/name").into());
        }
        Ok(image)
    }

    async fn aim(
        &self,
        _cx: &Context<'_>,
        subjects: &[Subject],
        action: &Action,
        _share: Option<f64>,
    ) -> Result<Aim, ActError> {
        super::whole_only(action)?;
        let Some(subject) = subjects.first() else { return Err(refused("there is nothing to scale".into())) };
        let what = subject.place.label();
        let Some(to) = wanted(action, "replicas")? else {
            return Err(refused(format!("scale {what}: give `replicas`")));
        };
        if subject.place.kind != &AUTOSCALER {
            let now = whole(&subject.object, "/spec/replicas").unwrap_or(1);
            let fields = Fields::from([("/spec/replicas".to_owned(), to.into())]);
            return Ok(Aim { which: 0, fields, said: format!("{what} from {now} to {to} replicas") });
        }
        let least = whole(&subject.object, "/spec/minReplicas").unwrap_or(1);
        let most = whole(&subject.object, "/spec/maxReplicas").unwrap_or(least);
        if to < least && self.down || to > most && !self.down {
            return Err(refused(format!("scale by {what}: it allows {least} to {most} replicas, not {to}")));
        }
        let (pointer, said) = match self.down {
            true => ("/spec/maxReplicas", format!("{what}: at most {to} replicas")),
            false => ("/spec/minReplicas", format!("{what}: at least {to} replicas")),
        };
        Ok(Aim { which: 0, fields: Fields::from([(pointer.to_owned(), to.into())]), said })
    }

    async fn settle(&self, cx: &Context<'_>, place: &Place, share: Option<f64>) -> Result<String, String> {
        settle(cx, place, share).await
    }
}

/// The bounds of an autoscaler, within what its owner allows.
pub(super) struct Bounds;

async fn scaled(cx: &Context<'_>, bounds: &Subject) -> Option<Value> {
    let kind =
        super::target::WORKLOADS.into_iter().find(|k| k.name == text(&bounds.object, "/spec/scaleTargetRef/kind"))?;
    let name = text(&bounds.object, "/spec/scaleTargetRef/name");
    let place = Place::new(kind, &bounds.place.namespace, name).ok()?;
    cx.door.get(&place).await.ok().flatten()
}

async fn limit(cx: &Context<'_>, bounds: &Subject) -> Option<i64> {
    let own = annotated(&bounds.object, LIMIT);
    let of_workload = match own {
        Some(_) => None,
        None => scaled(cx, bounds).await.and_then(|w| annotated(&w, LIMIT)),
    };
    own.or(of_workload).or((cx.config.replicas_max > 0).then(|| i64::from(cx.config.replicas_max)))
}

#[async_trait]
impl Deed for Bounds {
    async fn find(&self, cx: &Context<'_>, target: &EntityId) -> Result<Vec<Subject>, ActError> {
        if matches!(target.kind_str(), "horizontalpodautoscaler" | "hpa") {
            let place = Place::new(&AUTOSCALER, &target.namespace(), &target.name())?;
            let object = must(cx, &place).await?;
            ours(&object)?;
            return Ok(vec![Subject::new(place, object, BOUNDS)]);
        }
        let found = workload(cx, target).await?;
        let none = || refused(format!("change the autoscaler of {}: it has none", found.place.label()));
        Ok(vec![autoscaler(cx, &found).await?.ok_or_else(none)?])
    }

    async fn facts(&self, cx: &Context<'_>, _target: &EntityId, subjects: &[Subject]) -> Result<Image, ActError> {
        let mut image = Image::new();
        let Some(bounds) = subjects.first() else { return Ok(image) };
        image.insert("autoscaler_min".into(), json!(whole(&bounds.object, "/spec/minReplicas").unwrap_or(1)));
        image.insert("autoscaler_max".into(), json!(whole(&bounds.object, "/spec/maxReplicas").unwrap_or(1)));
        image.insert("replicas".into(), json!(whole(&bounds.object, "/status/currentReplicas").unwrap_or(0)));
        if let Some(n) = limit(cx, bounds).await {
            image.insert("autoscaler_limit".into(), n.into());
        }
        Ok(image)
    }

    async fn aim(
        &self,
        cx: &Context<'_>,
        subjects: &[Subject],
        action: &Action,
        _share: Option<f64>,
    ) -> Result<Aim, ActError> {
        super::whole_only(action)?;
        let Some(bounds) = subjects.first() else { return Err(refused("there is no autoscaler".into())) };
        let what = bounds.place.label();
        let (least, most) = (wanted(action, "min_replicas")?, wanted(action, "max_replicas")?);
        let now = whole(&bounds.object, "/spec/maxReplicas").unwrap_or(1);
        if let Some(to) = most.filter(|to| *to > now) {
            match limit(cx, bounds).await {
                Some(limit) if to <= limit => {}
                Some(limit) => {
                    return Err(refused(format!("raise {what} to {to}: at most {limit} replicas are allowed")));
                }
                None => {
                    let how = "annotate it with nightshift.dev/max-replicas, or set `replicas_max`";
                    return Err(refused(format!("raise {what} to {to}: nobody says how far; {how}")));
                }
            }
        }
        let mut fields = Fields::new();
        let mut said = Vec::new();
        for (name, pointer, to) in [("at least", "/spec/minReplicas", least), ("at most", "/spec/maxReplicas", most)] {
            if let Some(to) = to {
                fields.insert(pointer.into(), to.into());
                said.push(format!("{name} {to} replicas"));
            }
        }
        if fields.is_empty() {
            return Err(refused(format!("change {what}: give `max_replicas` or `min_replicas`")));
        }
        Ok(Aim { which: 0, fields, said: format!("{what}: {}", said.join(", ")) })
    }
}
