//! Variables that hide one another.

use super::uses::containers;
use super::workloads;
use crate::objects::{Container, EnvVar};
use crate::{Context, Finding, Grade, ObjectRef};
use nightshift_model::FaultClass;

/// Runs the check.
pub(super) fn run(cx: &Context<'_>, out: &mut Vec<Finding>) {
    for workload in workloads(cx) {
        let mut hidden: Vec<Hidden> = Vec::new();
        for (_, container) in containers(workload.spec) {
            twice(container, &mut hidden);
            over(cx, &workload.object.namespace, container, &mut hidden);
        }
        if !hidden.is_empty() {
            out.push(finding(&workload.object, &hidden));
        }
    }
}

/// A value that nobody sees, as another of the same name comes later.
struct Hidden {
    container: String,
    name: String,
    /// Where the value is that nobody sees.
    place: String,
    /// The object that holds it, when it is not the workload itself.
    source: Option<ObjectRef>,
    /// Whether it is surely a slip: the same list names it twice.
    slip: bool,
}

/// The same name twice in one list: the last one counts.
fn twice(container: &Container, out: &mut Vec<Hidden>) {
    for (i, first) in container.env.iter().enumerate() {
        let later = container.env[i + 1..].iter().rfind(|v| v.name == first.name);
        if later.is_some_and(|l| !same(first, l))
            && !out.iter().any(|h| h.container == container.name && h.name == first.name)
        {
            out.push(Hidden {
                container: container.name.clone(),
                name: first.name.clone(),
                place: "an earlier entry of env".to_owned(),
                source: None,
                slip: true,
            });
        }
    }
}

/// Whether two entries say the same. A value may refer to a variable before it, which itself then is no mistake; that
/// cannot be seen, as values are not kept.
fn same(a: &EnvVar, b: &EnvVar) -> bool {
    a.value.as_ref().map(|v| v.hash) == b.value.as_ref().map(|v| v.hash) && a.value_from == b.value_from
}

/// A variable of its own over one that comes from a whole config map or secret.
fn over(cx: &Context<'_>, namespace: &str, container: &Container, out: &mut Vec<Hidden>) {
    for from in &container.env_from {
        let (kind, name, data) = if let Some(key) = &from.config_map_ref {
            let Some(map) = cx.world.config_maps.get(namespace, &key.name) else { continue };
            ("ConfigMap", &key.name, &map.data)
        } else if let Some(key) = &from.secret_ref {
            let Some(secret) = cx.world.secrets.get(namespace, &key.name) else { continue };
            ("Secret", &key.name, &secret.data)
        } else {
            continue;
        };
        for variable in &container.env {
            let Some(key) = variable.name.strip_prefix(from.prefix.as_str()) else { continue };
            let Some(value) = data.get(key) else { continue };
            // The same value, or the same key by another way, hides nothing.
            let literal = match (&variable.value, &variable.value_from) {
                (Some(own), None) => own.hash != value.hash,
                _ => false,
            };
            if literal && !out.iter().any(|h| h.container == container.name && h.name == variable.name) {
                out.push(Hidden {
                    container: container.name.clone(),
                    name: variable.name.clone(),
                    place: format!("{kind} {name} (envFrom)"),
                    source: Some(ObjectRef::new(kind, namespace, name.clone())),
                    slip: false,
                });
            }
        }
    }
}

fn finding(me: &ObjectRef, hidden: &[Hidden]) -> Finding {
    let first = hidden.iter().find(|h| h.slip).unwrap_or(&hidden[0]);
    let more = if hidden.len() > 1 { format!(" and {} more", hidden.len() - 1) } else { String::new() };
    let how = if first.slip {
        "it is named twice in env, and the last entry counts"
    } else {
        "env has an entry of its own, which counts"
    };
    let finding = Finding::new(
        FaultClass::EnvMissing,
        me.clone(),
        format!("variable {}{more} of container {} is shadowed", first.name, first.container),
    )
    .because(
        me.clone(),
        format!("the value of {} from {} never reaches container {}: {how}", first.name, first.place, first.container),
    )
    .fix(format!(
        "Keep one entry for {} in container {} of {me}: take the entry in env out if {} is meant, else drop it there",
        first.name, first.container, first.place
    ))
    .graded(if hidden.iter().any(|h| h.slip) { Grade::Medium } else { Grade::Low });
    let finding = hidden.iter().filter_map(|h| h.source.clone()).fold(finding, Finding::hits);
    hidden.iter().take(4).fold(finding, |f, h| {
        f.field(
            me,
            &format!("spec.template.spec.containers[{}].env[{}]", h.container, h.name),
            format!("hides {}", h.place),
        )
    })
}
