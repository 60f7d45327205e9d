//! Services that select another application's pods.

use super::index::{Net, is_live};
use crate::objects::{Pod, Service};
use crate::{Finding, ObjectRef};
use nightshift_model::FaultClass;
use std::collections::BTreeMap;

/// Labels that say which application a pod is of, the most telling first.
const IDENTITY: [&str; 5] = ["app.kubernetes.io/name", "app", "k8s-app", "app.kubernetes.io/instance", "name"];
/// Ends of names that tell two releases of one application apart.
const VARIANTS: [&str; 22] = [
    "-canary",
    "-stable",
    "-blue",
    "-green",
    "-primary",
    "-baseline",
    "-preview",
    "-active",
    "-shadow",
    "-a",
    "-b",
    "-v1",
    "-v2",
    "-v3",
    "-next",
    "-old",
    "-new",
    "-master",
    "-replica",
    "-leader",
    "-reader",
    "-writer",
];

/// Checks every service.
pub(super) fn run(net: &Net<'_>, out: &mut Vec<Finding>) {
    let cx = net.cx;
    for service in cx.world.services.iter() {
        let spec = &service.spec;
        // A name for the pods of several is what headless services are made for.
        if spec.selector.is_empty() || spec.kind == "ExternalName" || spec.cluster_ip == "None" {
            continue;
        }
        let pods = net.pods(&service.metadata.namespace, &spec.selector);
        let mut roots: BTreeMap<ObjectRef, &Pod> = BTreeMap::new();
        for pod in pods.into_iter().filter(|p| is_live(p)) {
            roots.entry(cx.root(pod)).or_insert(pod);
        }
        roots.retain(|root, _| !matches!(root.kind.as_str(), "Job" | "CronJob"));
        out.extend(foreign(net, service, &roots).or_else(|| mixed(service, &roots)));
    }
}

/// The name of an application without what tells its releases apart.
fn stem(name: &str) -> &str {
    VARIANTS.iter().find_map(|v| name.strip_suffix(v)).unwrap_or(name)
}

fn related(a: &str, b: &str) -> bool {
    let (a, b) = (stem(a), stem(b));
    a == b || a.starts_with(b) || b.starts_with(a) || a.ends_with(b) || b.ends_with(a)
}

/// The application that a pod says it is of, by a label that the service does not select by.
fn identity<'p>(pod: &'p Pod, service: &Service) -> Option<(&'static str, &'p str)> {
    // A selector that names the application has said which one is meant.
    if IDENTITY.iter().any(|n| service.spec.selector.get(n).is_some()) {
        return None;
    }
    IDENTITY.iter().find_map(|n| pod.metadata.labels.get(n).map(|v| (*n, v)))
}

/// It selects pods of two applications.
fn mixed(service: &Service, roots: &BTreeMap<ObjectRef, &Pod>) -> Option<Finding> {
    let object = ObjectRef::of("Service", &service.metadata);
    let known: Vec<(&ObjectRef, (&str, &str))> =
        roots.iter().filter_map(|(root, pod)| Some((root, identity(pod, service)?))).collect();
    let own = known.iter().find(|(root, (_, app))| related(app, &object.name) || related(&root.name, &object.name))?;
    let other = known.iter().find(|(root, (label, app))| {
        *label == own.1.0 && !related(app, own.1.1) && !related(app, &object.name) && !related(&root.name, &object.name)
    })?;
    let (label, app) = own.1;
    Some(
        Finding::new(
            FaultClass::SelectorOverlap,
            object.clone(),
            format!("{object} selects the pods of {} besides those of {}", other.0, own.0),
        )
        .because(
            object.clone(),
            format!("its selector {} matches both: {label} is {app} of one and {} of the other", service.spec.selector, other.1.1),
        )
        .fix(format!("Add {label}={app} to the selector of {object}: kubectl -n {} patch service {} -p '{{\"spec\":{{\"selector\":{{\"{label}\":\"{app}\"}}}}}}'.", object.namespace, object.name))
        .field(&object, "spec.selector", service.spec.selector.to_string())
        .field(&ObjectRef::of("Pod", &roots.get(other.0)?.metadata), "metadata.labels", roots.get(other.0)?.metadata.labels.to_string())
        .hits(other.0.clone()),
    )
}

/// It has the name of one workload and selects the pods of another, while nothing selects those of the first.
fn foreign(net: &Net<'_>, service: &Service, roots: &BTreeMap<ObjectRef, &Pod>) -> Option<Finding> {
    let object = ObjectRef::of("Service", &service.metadata);
    let (other, pod) = roots.iter().next()?;
    if roots.keys().any(|root| related(&root.name, &object.name)) {
        return None;
    }
    let own = net
        .templates(&object.namespace)
        .iter()
        .find(|t| t.root.name == object.name && t.wanted > 0 && !t.ends && !t.labels.has_all(&service.spec.selector))?;
    // The pods say themselves that they are of the application of the service.
    if IDENTITY.iter().any(|n| pod.metadata.labels.get(n).is_some_and(|v| related(v, &object.name))) {
        return None;
    }
    let selected =
        net.cx.world.services.in_namespace(&object.namespace).any(|s| {
            s.metadata.name != object.name && !s.spec.selector.is_empty() && own.labels.has_all(&s.spec.selector)
        });
    if selected {
        return None;
    }
    let label = IDENTITY.iter().find(|n| service.spec.selector.get(n).is_some() && own.labels.get(n).is_some());
    let fix = match label.and_then(|n| own.labels.get(n).map(|v| format!("{n}={v}"))) {
        Some(pair) => format!("Set {pair} in the selector of {object}."),
        None => format!("Set the selector of {object} to the labels of {}: {}.", own.root, *own.labels),
    };
    Some(
        Finding::new(
            FaultClass::SelectorOverlap,
            object.clone(),
            format!("{object} sends to the pods of {other}, while nothing sends to those of {}", own.root),
        )
        .because(
            object.clone(),
            format!(
                "its selector {} is that of {other}; {} has the labels {}",
                service.spec.selector, own.root, *own.labels
            ),
        )
        .fix(fix)
        .field(&object, "spec.selector", service.spec.selector.to_string())
        .field(&own.root, "spec.template.metadata.labels", own.labels.to_string())
        .hits(own.root.clone()),
    )
}
