//! Workloads: restart, resources, image, pause and resume.

use super::edit::{Aim, Deed, Subject};
use super::json::{self, Fields, escaped, get, items, text, whole};
use super::place::{DEPLOYMENT, Place, STATEFUL_SET};
use super::rollout::{ROOTS, hold, settle};
use super::target::{Workload, workload};
use super::{Context, history, pods};
use async_trait::async_trait;
use nightshift_act::ActError;
use nightshift_model::{Action, EntityId, Image};
use serde_json::{Value, json};

/// Annotation of a pod template: a change of it is a rolling restart.
const RESTARTED: &str = "nightshift.dev/restarted";

/// The workload as a subject, with the fields that a rollout touches.
pub(super) async fn subject(cx: &Context<'_>, target: &EntityId) -> Result<Vec<Subject>, ActError> {
    let found = workload(cx, target).await?;
    Ok(vec![Subject::new(found.place, found.object, ROOTS)])
}

pub(super) fn of(subjects: &[Subject]) -> Result<Workload, ActError> {
    let first = subjects.first().ok_or_else(|| ActError::Refused("there is no workload to change".into()))?;
    Ok(Workload { place: first.place.clone(), object: first.object.clone() })
}

/// Facts that every action on a workload tells.
pub(super) fn common(object: &Value) -> Image {
    let wanted = whole(object, "/spec/replicas").or_else(|| whole(object, "/status/desiredNumberScheduled"));
    let ready = whole(object, "/status/readyReplicas").or_else(|| whole(object, "/status/numberReady")).unwrap_or(0);
    Image::from([("replicas".into(), json!(wanted.unwrap_or(1))), ("ready_replicas".into(), json!(ready))])
}

/// The aim with the template changed, in part where it is a canary.
pub(super) fn template_aim(
    subjects: &[Subject],
    template: Value,
    share: Option<f64>,
    said: String,
) -> Result<Aim, ActError> {
    let found = of(subjects)?;
    let mut fields = Fields::from([("/spec/template".to_owned(), template)]);
    let mut said = said;
    if let Some(share) = share {
        let part = hold(&found, share, &mut fields)?;
        said = format!("{said}, {part} pods of it first");
    }
    Ok(Aim { which: 0, fields, said })
}

fn refused(why: String) -> ActError {
    ActError::Refused(why)
}

// ---- restart ------------------------------------------------------------------------------------------------------

/// A rolling restart, at the pace of the workload's own strategy.
pub(super) struct Restart;

/// Most pods that are down at once by the workload's own strategy.
fn unavailable_max(workload: &Workload) -> Result<f64, String> {
    let object = &workload.object;
    let replicas = whole(object, "/spec/replicas").or_else(|| whole(object, "/status/desiredNumberScheduled"));
    let replicas = replicas.unwrap_or(1).max(1) as f64;
    if workload.is(&DEPLOYMENT) && text(object, "/spec/strategy/type") == "Recreate" {
        return Ok(replicas);
    }
    let (pointer, default) = match workload.is(&DEPLOYMENT) {
        true => ("/spec/strategy/rollingUpdate/maxUnavailable", json!("25%")),
        false => ("/spec/updateStrategy/rollingUpdate/maxUnavailable", json!(1)),
    };
    if text(object, "/spec/updateStrategy/type") == "OnDelete" {
        return Err("its pods are only replaced when they are deleted (OnDelete)".into());
    }
    let told = object.pointer(pointer).cloned().unwrap_or(default);
    let number = match &told {
        Value::String(percent) => {
            percent.strip_suffix('%').and_then(|p| p.parse::<f64>().ok()).map(|p| (replicas * p / 100.0).floor())
        }
        other => other.as_f64(),
    };
    number.ok_or_else(|| format!("its strategy says {told}"))
}

#[async_trait]
impl Deed for Restart {
    async fn find(&self, cx: &Context<'_>, target: &EntityId) -> Result<Vec<Subject>, ActError> {
        subject(cx, target).await
    }

    async fn facts(&self, cx: &Context<'_>, _target: &EntityId, subjects: &[Subject]) -> Result<Image, ActError> {
        let found = of(subjects)?;
        let mut image = common(&found.object);
        image.insert("failing_pods".into(), pods::failing(cx, &found).await?);
        Ok(image)
    }

    async fn aim(
        &self,
        _cx: &Context<'_>,
        subjects: &[Subject],
        action: &Action,
        share: Option<f64>,
    ) -> Result<Aim, ActError> {
        let found = of(subjects)?;
        let what = found.place.label();
        let object = &found.object;
        if get(object, "/spec/paused") == Value::Bool(true) {
            return Err(refused(format!("restart {what}: its rollout is paused")));
        }
        let down = unavailable_max(&found).map_err(|why| refused(format!("restart {what}: {why}")))?;
        let replicas = common(object)["replicas"].as_f64().unwrap_or(1.0).max(1.0);
        if let Some(limit) = action.params.get("max_unavailable").and_then(Value::as_f64) {
            let allowed = if limit <= 1.0 { (replicas * limit + 1e-9).floor().max(1.0) } else { limit };
            if down > allowed {
                return Err(refused(format!(
                    "restart {what}: its own strategy takes {down} of {replicas} pods at once, the plan allows {allowed}"
                )));
            }
        }
        let mut template = get(object, "/spec/template");
        // A key is of one operation; the pods of a canary need not start again.
        let key = nightshift_act::key_of(action.incident, action.plan, action.step, nightshift_model::Operation::Apply);
        json::set(&mut template, &format!("/metadata/annotations/{}", escaped(RESTARTED)), key.into());
        template_aim(subjects, template, share, format!("restart {what}, {down} of {replicas} pods down at once"))
    }

    async fn settle(&self, cx: &Context<'_>, place: &Place, share: Option<f64>) -> Result<String, String> {
        settle(cx, place, share).await
    }
}

// ---- resources ----------------------------------------------------------------------------------------------------

/// Limits and requests of the container that uses the most memory, which is the one that is meant.
pub(super) struct Resources;

/// The container that is meant: the one named like the workload, else the one with the highest limit, else the first.
fn main_container(object: &Value) -> usize {
    let containers = items(object, "/spec/template/spec/containers");
    let name = text(object, "/metadata/name");
    if let Some(at) = containers.iter().position(|c| text(c, "/name") == name) {
        return at;
    }
    let limit = |c: &Value| json::quantity_at(c, "/resources/limits/memory").unwrap_or(0.0);
    let mut best = 0;
    for (i, c) in containers.iter().enumerate() {
        if limit(c) > limit(&containers[best]) {
            best = i;
        }
    }
    best
}

const HEAP_VARIABLES: [&str; 3] = ["JAVA_TOOL_OPTIONS", "JDK_JAVA_OPTIONS", "JAVA_OPTS"];

/// The variable that holds the heap's size, with its value and the size in MiB.
fn heap(container: &Value) -> Option<(usize, String, f64)> {
    items(container, "/env").iter().enumerate().find_map(|(i, e)| {
        if !HEAP_VARIABLES.contains(&text(e, "/name")) {
            return None;
        }
        let value = text(e, "/value");
        let flag = value.split_whitespace().find_map(|f| f.strip_prefix("-Xmx"))?;
        let (digits, unit) = flag.split_at(flag.find(|c: char| !c.is_ascii_digit()).unwrap_or(flag.len()));
        let factor = match unit {
            "g" | "G" => 1024.0,
            "m" | "M" => 1.0,
            "k" | "K" => 1.0 / 1024.0,
            "" => 1.0 / 1_048_576.0,
            _ => return None,
        };
        Some((i, value.to_owned(), digits.parse::<f64>().ok()? * factor))
    })
}

#[async_trait]
impl Deed for Resources {
    async fn find(&self, cx: &Context<'_>, target: &EntityId) -> Result<Vec<Subject>, ActError> {
        subject(cx, target).await
    }

    async fn facts(&self, _cx: &Context<'_>, _target: &EntityId, subjects: &[Subject]) -> Result<Image, ActError> {
        let found = of(subjects)?;
        let mut image = common(&found.object);
        let at = main_container(&found.object);
        let Some(container) = items(&found.object, "/spec/template/spec/containers").get(at) else { return Ok(image) };
        image.insert("container".into(), text(container, "/name").into());
        for (fact, pointer, unit) in [
            ("memory_limit_mib", "/resources/limits/memory", 1_048_576.0),
            ("memory_request_mib", "/resources/requests/memory", 1_048_576.0),
            ("cpu_limit_millis", "/resources/limits/cpu", 1e-3),
            ("cpu_request_millis", "/resources/requests/cpu", 1e-3),
        ] {
            if let Some(n) = json::quantity_at(container, pointer) {
                let n = (n / unit * 1e3).round() / 1e3;
                image.insert(fact.into(), if n.fract() == 0.0 { json!(n as i64) } else { json!(n) });
            }
        }
        if let Some((_, _, mib)) = heap(container) {
            image.insert("jvm_heap_mib".into(), json!(mib));
        }
        Ok(image)
    }

    async fn aim(
        &self,
        _cx: &Context<'_>,
        subjects: &[Subject],
        action: &Action,
        share: Option<f64>,
    ) -> Result<Aim, ActError> {
        let found = of(subjects)?;
        let what = found.place.label();
        let mut template = get(&found.object, "/spec/template");
        let at = main_container(&found.object);
        let Some(container) = items(&found.object, "/spec/template/spec/containers").get(at) else {
            return Err(refused(format!("set the resources of {what}: it has no containers")));
        };
        let name = text(container, "/name").to_owned();
        let mut said = Vec::new();
        for (param, value) in &action.params {
            if param == nightshift_act::CANARY_SHARE {
                continue;
            }
            let Some(number) = value.as_f64().filter(|n| n.is_finite() && *n > 0.0) else {
                return Err(refused(format!("set the resources of {what}: `{param}` is {value}, no number above 0")));
            };
            let below = |p: &str| format!("/spec/containers/{at}/resources/{p}");
            match param.as_str() {
                "memory_limit_mib" => json::set(&mut template, &below("limits/memory"), json::mib(number).into()),
                "memory_request_mib" => json::set(&mut template, &below("requests/memory"), json::mib(number).into()),
                "cpu_limit_millis" => json::set(&mut template, &below("limits/cpu"), json::millis(number).into()),
                "jvm_heap_mib" => {
                    let Some((i, flags, _)) = heap(container) else {
                        return Err(refused(format!(
                            "set the heap of {what}: `{name}` has no -Xmx in its environment"
                        )));
                    };
                    let flags = flags.split_whitespace().map(|f| match f.starts_with("-Xmx") {
                        true => format!("-Xmx{}m", number.round() as u64),
                        false => f.to_owned(),
                    });
                    let flags = flags.collect::<Vec<_>>().join(" ");
                    json::set(&mut template, &format!("/spec/containers/{at}/env/{i}/value"), flags.into());
                }
                "disk_gib" => {
                    let hint = "expand its persistentvolumeclaim";
                    return Err(refused(format!("set the disk of {what}: a workload has none of its own; {hint}")));
                }
                other => return Err(refused(format!("set the resources of {what}: `{other}` is not known"))),
            }
            said.push(format!("{param} {number}"));
        }
        if said.is_empty() {
            return Err(refused(format!("set the resources of {what}: nothing to set is given")));
        }
        let limit = json::quantity_at(&template, &format!("/spec/containers/{at}/resources/limits/memory"));
        let request = json::quantity_at(&template, &format!("/spec/containers/{at}/resources/requests/memory"));
        if let (Some(limit), Some(request)) = (limit, request)
            && request > limit
        {
            return Err(refused(format!("set the resources of {what}: the memory request would be above its limit")));
        }
        template_aim(subjects, template, share, format!("{what}, container {name}: {}", said.join(", ")))
    }

    async fn settle(&self, cx: &Context<'_>, place: &Place, share: Option<f64>) -> Result<String, String> {
        settle(cx, place, share).await
    }
}

// ---- image --------------------------------------------------------------------------------------------------------

/// The image of one container, the rest of the template as it is.
pub(super) struct SetImage;

/// The container whose image differs from the revision before, with both.
fn changed_image(now: &Value, then: &Value) -> Option<(String, String, String)> {
    let mut found = items(now, "/spec/containers").iter().chain(items(now, "/spec/initContainers")).filter_map(|c| {
        let name = text(c, "/name");
        let mut old = items(then, "/spec/containers").iter().chain(items(then, "/spec/initContainers"));
        let old = old.find(|o| text(o, "/name") == name)?;
        let (new, old) = (text(c, "/image"), text(old, "/image"));
        (new != old).then(|| (name.to_owned(), new.to_owned(), old.to_owned()))
    });
    let first = found.next()?;
    found.next().is_none().then_some(first)
}

#[async_trait]
impl Deed for SetImage {
    async fn find(&self, cx: &Context<'_>, target: &EntityId) -> Result<Vec<Subject>, ActError> {
        subject(cx, target).await
    }

    async fn facts(&self, cx: &Context<'_>, _target: &EntityId, subjects: &[Subject]) -> Result<Image, ActError> {
        let found = of(subjects)?;
        let mut image = common(&found.object);
        let template = get(&found.object, "/spec/template");
        let history = history::of(cx, &found).await?;
        if let Some(before) = history::previous(&history, &found)
            && let Some((name, new, old)) = changed_image(&template, &before.template)
        {
            image.extend([
                ("container".to_owned(), name.into()),
                ("image".to_owned(), new.into()),
                ("previous_image".to_owned(), old.into()),
            ]);
        } else if let [only] = items(&template, "/spec/containers") {
            image.insert("image".into(), text(only, "/image").into());
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
        let found = of(subjects)?;
        let what = found.place.label();
        let wanted = action.params.get("image").and_then(Value::as_str).unwrap_or_default();
        let sane = !wanted.is_empty() && wanted.len() <= 512 && wanted.bytes().all(|b| b.is_ascii_graphic());
        if !sane {
            return Err(refused(format!("set the image of {what}: `{wanted}` is no image")));
        }
        let mut template = get(&found.object, "/spec/template");
        let name = match action.params.get("container").and_then(Value::as_str) {
            Some(name) => name.to_owned(),
            None => match items(&template, "/spec/containers") {
                [only] => text(only, "/name").to_owned(),
                _ => {
                    let history = history::of(cx, &found).await?;
                    let before = history::previous(&history, &found);
                    before.and_then(|b| changed_image(&template, &b.template)).map(|(name, ..)| name).ok_or_else(
                        || {
                            refused(format!(
                                "set the image of {what}: it has several containers; name one with `container`"
                            ))
                        },
                    )?
                }
            },
        };
        let mut hit = false;
        for list in ["containers", "initContainers"] {
            let at = items(&template, &format!("/spec/{list}")).iter().position(|c| text(c, "/name") == name);
            if let Some(at) = at {
                json::set(&mut template, &format!("/spec/{list}/{at}/image"), wanted.into());
                hit = true;
            }
        }
        if !hit {
            return Err(refused(format!("set the image of {what}: it has no container `{name}`")));
        }
        template_aim(subjects, template, share, format!("{what}, container {name}: image {wanted}"))
    }

    async fn settle(&self, cx: &Context<'_>, place: &Place, share: Option<f64>) -> Result<String, String> {
        settle(cx, place, share).await
    }
}

// ---- pause and resume ---------------------------------------------------------------------------------------------

/// Stops a rollout where it is, or lets it go on.
pub(super) struct Pause {
    pub(super) on: bool,
}

fn partition(object: &Value) -> i64 {
    whole(object, "/spec/updateStrategy/rollingUpdate/partition").unwrap_or(0)
}

#[async_trait]
impl Deed for Pause {
    async fn find(&self, cx: &Context<'_>, target: &EntityId) -> Result<Vec<Subject>, ActError> {
        let found = workload(cx, target).await?;
        let roots: &[&str] = if found.is(&DEPLOYMENT) {
            &["/spec/paused"]
        } else if found.is(&STATEFUL_SET) {
            &["/spec/updateStrategy/rollingUpdate/partition"]
        } else {
            let what = found.place.label();
            return Err(refused(format!("pause or resume {what}: a daemon set cannot be paused")));
        };
        Ok(vec![Subject::new(found.place, found.object, roots)])
    }

    async fn facts(&self, _cx: &Context<'_>, _target: &EntityId, subjects: &[Subject]) -> Result<Image, ActError> {
        let found = of(subjects)?;
        let mut image = common(&found.object);
        let paused = match found.is(&DEPLOYMENT) {
            true => get(&found.object, "/spec/paused") == Value::Bool(true),
            false => partition(&found.object) > 0,
        };
        image.insert("paused".into(), paused.into());
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
        let found = of(subjects)?;
        let what = found.place.label();
        let word = if self.on { "pause" } else { "resume" };
        let (pointer, value) = match (found.is(&DEPLOYMENT), self.on) {
            (true, true) => ("/spec/paused", Value::Bool(true)),
            (true, false) => ("/spec/paused", Value::Null),
            (false, true) => {
                let all = whole(&found.object, "/spec/replicas").unwrap_or(1);
                ("/spec/updateStrategy/rollingUpdate/partition", all.into())
            }
            (false, false) => ("/spec/updateStrategy/rollingUpdate/partition", 0.into()),
        };
        Ok(Aim { which: 0, fields: Fields::from([(pointer.to_owned(), value)]), said: format!("{word} {what}") })
    }

    async fn settle(&self, cx: &Context<'_>, place: &Place, _share: Option<f64>) -> Result<String, String> {
        if self.on { Ok(String::new()) } else { settle(cx, place, None).await }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_heap_is_read_from_the_flags() {
        let container = json!({"env": [{"name": "A", "value": "-Xmx1g"}, {"name": "JAVA_TOOL_OPTIONS", "value": "-Xms64m -Xmx96m"}]});
        assert_eq!(heap(&container), Some((1, "-Xms64m -Xmx96m".into(), 96.0)));
        assert_eq!(heap(&json!({"env": [{"name": "JAVA_OPTS", "value": "-Xmx2x"}]})), None);
    }

    #[test]
    fn the_image_that_changed_is_the_only_one() {
        let of =
            |a: &str, b: &str| json!({"spec": {"containers": [{"name": "a", "image": a}, {"name": "b", "image": b}]}});
        assert_eq!(changed_image(&of("x:2", "y:1"), &of("x:1", "y:1")), Some(("a".into(), "x:2".into(), "x:1".into())));
        assert_eq!(changed_image(&of("x:2", "y:2"), &of("x:1", "y:1")), None);
    }

    #[test]
    fn a_strategy_says_how_many_are_down() {
        let of = |spec: Value| {
            let place = Place::new(&DEPLOYMENT, "shop", "web").unwrap();
            unavailable_max(&Workload { place, object: json!({"spec": spec}) })
        };
        assert_eq!(of(json!({"replicas": 10})), Ok(2.0));
        assert_eq!(of(json!({"replicas": 3, "strategy": {"type": "Recreate"}})), Ok(3.0));
        assert_eq!(of(json!({"replicas": 3, "strategy": {"rollingUpdate": {"maxUnavailable": 2}}})), Ok(2.0));
        assert!(of(json!({"strategy": {"rollingUpdate": {"maxUnavailable": "x"}}})).is_err());
    }
}
