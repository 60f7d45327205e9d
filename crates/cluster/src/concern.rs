//! Which findings belong in a scan of one namespace.

use crate::objects::{LabelSelector, Labels, PodSpec, Webhook};
use crate::{Finding, ObjectRef, Resource, World};

/// Whether a finding belongs in a scan of one namespace: its object or cause is in it, or its object is one of the whole
/// cluster that touches it. That is the namespace itself, a webhook or API service that calls a service of it, a webhook
/// that rejects its objects, a class, volume or node that an object of it names, and whatever has symptoms in it.
pub fn concerns(world: &World, finding: &Finding, namespace: &str) -> bool {
    let in_it = |o: &ObjectRef| o.namespace == namespace || (o.kind == "Namespace" && o.name == namespace);
    in_it(&finding.object)
        || in_it(&finding.cause.object)
        || (finding.object.namespace.is_empty()
            && (finding.symptoms.iter().any(in_it) || touches(world, &finding.object, namespace)))
}

/// Whether an object of the whole cluster touches a namespace.
fn touches(world: &World, object: &ObjectRef, namespace: &str) -> bool {
    let name = object.name.as_str();
    match object.kind.as_str() {
        "Node" => world.pods.in_namespace(namespace).any(|p| on_node(&p.spec, name)),
        "PersistentVolume" => {
            let claimed = world.volumes.get("", name).and_then(|v| v.spec.claim_ref.as_ref());
            claimed.is_some_and(|c| c.namespace == namespace)
                || world.claims.in_namespace(namespace).any(|c| c.spec.volume_name == name)
        }
        "StorageClass" => {
            let claims = world.claims.in_namespace(namespace);
            let mut templates =
                world.stateful_sets.in_namespace(namespace).flat_map(|s| s.spec.volume_claim_templates.iter());
            claims.chain(&mut templates).any(|c| c.spec.storage_class_name.as_deref() == Some(name))
        }
        "IngressClass" => {
            world.ingresses.in_namespace(namespace).any(|i| i.spec.ingress_class_name.as_deref() == Some(name))
        }
        "GatewayClass" => world.gateways.in_namespace(namespace).any(|g| g.spec.gateway_class_name == name),
        "PriorityClass" => specs(world, namespace).any(|s| s.priority_class_name == name),
        "APIService" => {
            let service = world.api_services.get("", name).and_then(|a| a.spec.service.as_ref());
            service.is_some_and(|s| s.namespace == namespace)
        }
        "ValidatingWebhookConfiguration" => {
            let hooks = world.validating_webhooks.get("", name).map(|w| &w.webhooks);
            hooks.is_some_and(|h| h.iter().any(|h| hook_touches(world, h, namespace)))
        }
        "MutatingWebhookConfiguration" => {
            let hooks = world.mutating_webhooks.get("", name).map(|w| &w.webhooks);
            hooks.is_some_and(|h| h.iter().any(|h| hook_touches(world, h, namespace)))
        }
        _ => false,
    }
}

fn on_node(spec: &PodSpec, node: &str) -> bool {
    spec.node_name == node || spec.node_selector.get("kubernetes.io/hostname") == Some(node)
}

/// The specifications of pods and of what makes pods.
fn specs<'a>(world: &'a World, namespace: &'a str) -> impl Iterator<Item = &'a PodSpec> {
    let pods = world.pods.in_namespace(namespace).map(|p| &p.spec);
    let deployments = world.deployments.in_namespace(namespace).map(|d| &d.spec.template.spec);
    let stateful = world.stateful_sets.in_namespace(namespace).map(|s| &s.spec.template.spec);
    let daemons = world.daemon_sets.in_namespace(namespace).map(|d| &d.spec.template.spec);
    let jobs = world.jobs.in_namespace(namespace).map(|j| &j.spec.template.spec);
    let crons = world.cron_jobs.in_namespace(namespace).map(|c| &c.spec.job_template.spec.template.spec);
    pods.chain(deployments).chain(stateful).chain(daemons).chain(jobs).chain(crons)
}

/// Whether a webhook calls a service of the namespace, or can reject objects that the namespace has.
fn hook_touches(world: &World, hook: &Webhook, namespace: &str) -> bool {
    if hook.client_config.service.as_ref().is_some_and(|s| s.namespace == namespace) {
        return true;
    }
    hook.failure_policy != "Ignore"
        && selects_namespace(world, &hook.namespace_selector, namespace)
        && hook.rules.iter().any(|rule| {
            rule.scope != "Cluster"
                && rule.resources.iter().any(|r| {
                    // `deployments/scale` is about deployments; `*/*` and `*` about all.
                    let plural = r.split('/').next().unwrap_or_default();
                    let group = |g: &str| rule.api_groups.iter().any(|a| a == "*" || a == g);
                    holds(world, namespace, plural, group)
                })
        })
}

/// Whether a namespace holds objects of a kind, or what makes them.
fn holds(world: &World, namespace: &str, plural: &str, group: impl Fn(&str) -> bool) -> bool {
    if plural == "pods" && group("") && specs(world, namespace).next().is_some() {
        return true;
    }
    let meant = |r: &&Resource| r.namespaced() && group(r.group()) && (plural == "*" || r.plural() == plural);
    Resource::ALL.iter().filter(meant).any(|r| world.has_in_namespace(*r, namespace))
}

fn selects_namespace(world: &World, selector: &LabelSelector, namespace: &str) -> bool {
    if selector.is_empty() {
        return true;
    }
    let own = world.namespaces.get("", namespace).map(|n| n.metadata.labels.clone()).unwrap_or_default();
    // The API server puts this label on every namespace.
    let name = ("kubernetes.io/metadata.name".to_owned(), namespace.to_owned());
    let labels: Labels = own.iter().map(|(n, v)| (n.to_owned(), v.to_owned())).chain(std::iter::once(name)).collect();
    selector.matches(&labels)
}

#[cfg(test)]
mod tests {
    use super::*;
    use nightshift_model::FaultClass;

    fn world(objects: &[(Resource, &str)]) -> World {
        let mut world = World::default();
        for (resource, json) in objects {
            world.put_json(*resource, json.as_bytes()).unwrap();
        }
        world
    }

    fn about(kind: &str, name: &str) -> Finding {
        Finding::new(FaultClass::Unknown, ObjectRef::new(kind, "", name), "x")
    }

    #[test]
    fn what_a_finding_names_counts() {
        let world = World::default();
        let node = about("Node", "n1").hits(ObjectRef::new("Pod", "shop", "web-1"));
        assert!(concerns(&world, &node, "shop") && !concerns(&world, &node, "bank"));
        let own = Finding::new(FaultClass::Unknown, ObjectRef::new("Service", "shop", "web"), "x");
        assert!(concerns(&world, &own, "shop") && !concerns(&world, &own, "bank"));
        let caused = own.because(ObjectRef::new("Deployment", "bank", "api"), "y");
        assert!(concerns(&world, &caused, "bank"));
        assert!(concerns(&world, &about("Namespace", "shop"), "shop"));
        assert!(!concerns(&world, &about("Namespace", "shop"), "bank"));
    }

    #[test]
    fn nodes_volumes_and_classes_concern_who_names_them() {
        let world = world(&[
            (
                Resource::Pods,
                r#"{"metadata":{"namespace":"shop","name":"p"},"spec":{"nodeName":"n1","priorityClassName":"gold"}}"#,
            ),
            (
                Resource::Claims,
                r#"{"metadata":{"namespace":"shop","name":"c"},"spec":{"storageClassName":"fast","volumeName":"pv1"}}"#,
            ),
            (
                Resource::Volumes,
                r#"{"metadata":{"name":"pv2"},"spec":{"claimRef":{"namespace":"shop","name":"gone"}}}"#,
            ),
            (
                Resource::Ingresses,
                r#"{"metadata":{"namespace":"shop","name":"i"},"spec":{"ingressClassName":"nginx"}}"#,
            ),
        ]);
        for (kind, name) in [
            ("Node", "n1"),
            ("PersistentVolume", "pv1"),
            ("PersistentVolume", "pv2"),
            ("StorageClass", "fast"),
            ("IngressClass", "nginx"),
            ("PriorityClass", "gold"),
        ] {
            let finding = about(kind, name);
            assert!(concerns(&world, &finding, "shop"), "{kind} {name}");
            assert!(!concerns(&world, &finding, "bank"), "{kind} {name}");
            assert!(!concerns(&world, &about(kind, "other"), "shop"), "{kind}");
        }
    }

    #[test]
    fn webhooks_concern_who_they_call_and_whom_they_can_reject() {
        let hook = |name: &str, more: &str| {
            format!(
                r#"{{"metadata":{{"name":"{name}"}},"webhooks":[{{"clientConfig":{{"service":{{"namespace":"guard","name":"s"}}}},
                "rules":[{{"apiGroups":[""],"resources":["pods"],"operations":["CREATE"]}}]{more}}}]}}"#
            )
        };
        let selector = r#","namespaceSelector":{"matchLabels":{"kubernetes.io/metadata.name":"shop"}}"#;
        let (all, some, soft) = (hook("all", ""), hook("some", selector), hook("soft", r#","failurePolicy":"Ignore""#));
        let world = world(&[
            (Resource::ValidatingWebhooks, &all),
            (Resource::ValidatingWebhooks, &some),
            (Resource::ValidatingWebhooks, &soft),
            (Resource::Pods, r#"{"metadata":{"namespace":"shop","name":"p"}}"#),
            (Resource::Deployments, r#"{"metadata":{"namespace":"bank","name":"d"}}"#),
            (Resource::ConfigMaps, r#"{"metadata":{"namespace":"files","name":"c"}}"#),
        ]);
        let told = |name: &str| {
            ["shop", "bank", "files", "guard"]
                .map(|n| concerns(&world, &about("ValidatingWebhookConfiguration", name), n))
        };
        assert_eq!(told("all"), [true, true, false, true]);
        assert_eq!(told("some"), [true, false, false, true]);
        assert_eq!(told("soft"), [false, false, false, true]);
    }
}
