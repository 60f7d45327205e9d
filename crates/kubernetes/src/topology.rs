//! What calls what and runs where, as the objects of a cluster say.
//!
//! A service calls the workloads of the pods that it selects; an ingress or route calls services; a workload calls the
//! services that its variables and config maps name; pods run on nodes. It is what is declared: traces and metrics say
//! what is used.

use nightshift_cluster::objects::{ConfigMap, Many, Meta, Pod, PodSpec};
use nightshift_cluster::{ObjectRef, World, entity_of};
use nightshift_model::{EdgeKind, EntityId, EntityMeta, Observation, Timestamp};
use std::collections::{BTreeMap, BTreeSet};

/// Edges of one look at most.
const EDGES_MAX: usize = 50_000;

/// The workload at the top of a pod's owners; the pod itself when nobody owns it.
pub(crate) fn root_of(world: &World, pod: &Pod) -> ObjectRef {
    let namespace = &pod.metadata.namespace;
    let Some(owner) = pod.metadata.controller().filter(|o| o.kind != "Node") else {
        return ObjectRef::of("Pod", &pod.metadata);
    };
    let above = match owner.kind.as_str() {
        "ReplicaSet" => world.replica_sets.get(namespace, &owner.name).and_then(|s| s.metadata.controller()),
        "Job" => world.jobs.get(namespace, &owner.name).and_then(|j| j.metadata.controller()),
        _ => None,
    };
    let top = above.unwrap_or(owner);
    ObjectRef::new(top.kind.clone(), namespace.clone(), top.name.clone())
}

/// Everything that the objects say of the estate. Order does not depend on anything but them.
pub(crate) fn observe(world: &World, cluster: &str, at: Timestamp) -> Vec<Observation> {
    let mut view = View { cluster, edges: BTreeSet::new(), metas: BTreeMap::new() };
    let mut aliases = Vec::new();
    let mut pods_by_label: BTreeMap<&str, Vec<(&Pod, EntityId)>> = BTreeMap::new();
    for pod in world.pods.iter() {
        let root = root_of(world, pod);
        let entity = view.entity(&root);
        view.meta(&entity, &pod.metadata, &pod.spec);
        if root.kind != "Pod" {
            let name = format!("pod={}/{}", pod.metadata.namespace, pod.metadata.name);
            aliases.push(Observation::Alias { name, entity: entity.clone(), at });
        }
        if !pod.spec.node_name.is_empty() {
            let node = EntityId::new(cluster, "node", "", &pod.spec.node_name);
            view.edges.insert((entity.clone(), node, EdgeKind::RunsOn));
        }
        pods_by_label.entry(&pod.metadata.namespace).or_default().push((pod, entity));
    }
    for service in world.services.iter().filter(|s| !s.spec.selector.is_empty()) {
        let from = view.entity(&ObjectRef::of("Service", &service.metadata));
        view.bare(&from);
        let pods = pods_by_label.get(service.metadata.namespace.as_str()).map_or(&[][..], Vec::as_slice);
        for (_, to) in pods.iter().filter(|(p, _)| p.metadata.labels.has_all(&service.spec.selector)) {
            view.edges.insert((from.clone(), to.clone(), EdgeKind::Calls));
        }
    }
    for ingress in world.ingresses.iter() {
        let from = ObjectRef::of("Ingress", &ingress.metadata);
        let paths = ingress.spec.rules.iter().filter_map(|r| r.http.as_ref()).flat_map(|h| h.paths.iter());
        let backends = paths.map(|p| &p.backend).chain(&ingress.spec.default_backend);
        for service in backends.filter_map(|b| b.service.as_ref()) {
            view.calls_service(world, &from, &ingress.metadata.namespace, &service.name);
        }
    }
    for (kind, routes) in [("HTTPRoute", &world.http_routes), ("GRPCRoute", &world.grpc_routes)] {
        for route in routes.iter() {
            let from = ObjectRef::of(kind, &route.metadata);
            for backend in route.spec.rules.iter().flat_map(|r| r.backend_refs.iter()) {
                if backend.kind.as_deref().is_none_or(|k| k == "Service") {
                    let namespace = backend.namespace.as_deref().unwrap_or(&route.metadata.namespace);
                    view.calls_service(world, &from, namespace, &backend.name);
                }
            }
        }
    }
    templates(world, |kind, meta, spec| {
        let from = ObjectRef::of(kind, meta);
        for host in hosts(world, &meta.namespace, spec) {
            if let Some((namespace, name)) = service_of(world, &meta.namespace, &host) {
                view.calls_service(world, &from, &namespace, &name);
            }
        }
    });
    let View { edges, metas, .. } = view;
    let entities = metas.into_values().map(|entity| Observation::Entity { entity, at });
    let edges = edges.into_iter().take(EDGES_MAX);
    let edges = edges.map(|(from, to, kind)| Observation::Edge { from, to, kind, count: 1, at });
    entities.chain(aliases).chain(edges).collect()
}

struct View<'a> {
    cluster: &'a str,
    edges: BTreeSet<(EntityId, EntityId, EdgeKind)>,
    metas: BTreeMap<EntityId, EntityMeta>,
}

impl View<'_> {
    fn entity(&self, object: &ObjectRef) -> EntityId {
        entity_of(self.cluster, object)
    }

    fn bare(&mut self, entity: &EntityId) {
        self.metas.entry(entity.clone()).or_insert_with(|| EntityMeta::bare(entity.clone()));
    }

    /// The context that a workload's labels tell.
    fn meta(&mut self, entity: &EntityId, of: &Meta, spec: &PodSpec) {
        if self.metas.contains_key(entity) {
            return;
        }
        let label = |names: &[&str]| names.iter().find_map(|n| of.labels.get(n)).unwrap_or_default().to_owned();
        let mut meta = EntityMeta::bare(entity.clone());
        meta.service = label(&["app.kubernetes.io/name", "app", "k8s-app"]);
        if meta.service.is_empty() {
            meta.service = entity.name();
        }
        meta.version = label(&["app.kubernetes.io/version", "version"]);
        if meta.version.is_empty() {
            let image = spec.containers.first().map(|c| c.image.as_str()).unwrap_or_default();
            let last = image.split('@').next().unwrap_or_default().rsplit('/').next().unwrap_or_default();
            meta.version = last.split_once(':').map(|(_, tag)| tag.to_owned()).unwrap_or_default();
        }
        meta.environment = label(&["environment", "env"]);
        meta.owner = label(&["team", "owner"]);
        self.metas.insert(entity.clone(), meta);
    }

    fn calls_service(&mut self, world: &World, from: &ObjectRef, namespace: &str, name: &str) {
        // What is not there is a finding, not an edge.
        if world.services.get(namespace, name).is_none() {
            return;
        }
        let (from, to) = (self.entity(from), self.entity(&ObjectRef::new("Service", namespace, name)));
        self.bare(&from);
        self.bare(&to);
        self.edges.insert((from, to, EdgeKind::Calls));
    }
}

fn templates(world: &World, mut each: impl FnMut(&str, &Meta, &PodSpec)) {
    world.deployments.iter().for_each(|d| each("Deployment", &d.metadata, &d.spec.template.spec));
    world.stateful_sets.iter().for_each(|s| each("StatefulSet", &s.metadata, &s.spec.template.spec));
    world.daemon_sets.iter().for_each(|d| each("DaemonSet", &d.metadata, &d.spec.template.spec));
    world.cron_jobs.iter().for_each(|c| each("CronJob", &c.metadata, &c.spec.job_template.spec.template.spec));
}

/// Hosts that the variables of a pod name, directly or through config maps.
fn hosts(world: &World, namespace: &str, spec: &PodSpec) -> BTreeSet<String> {
    let mut out = BTreeSet::new();
    let map = |name: &str| world.config_maps.get(namespace, name);
    let all =
        |m: &ConfigMap| m.data.values().filter_map(|v| v.endpoint.as_deref().map(str::to_owned)).collect::<Vec<_>>();
    let containers: [&Many<_>; 2] = [&spec.init_containers, &spec.containers];
    for container in containers.into_iter().flatten() {
        for variable in &container.env {
            out.extend(variable.value.as_ref().and_then(|v| v.endpoint.as_deref()).map(str::to_owned));
            if let Some(key) = variable.value_from.as_ref().and_then(|v| v.config_map_key_ref.as_ref()) {
                let value = map(&key.name).and_then(|m| m.data.get(&key.key));
                out.extend(value.and_then(|v| v.endpoint.as_deref()).map(str::to_owned));
            }
        }
        for from in &container.env_from {
            out.extend(from.config_map_ref.as_ref().and_then(|r| map(&r.name)).map(all).unwrap_or_default());
        }
    }
    for volume in &spec.volumes {
        out.extend(volume.config_map.as_ref().and_then(|c| map(&c.name)).map(all).unwrap_or_default());
    }
    out
}

/// The service that a host names within a cluster: `api`, `api.shop`, `api.shop.svc.cluster.local`, with or without a
/// port.
fn service_of(world: &World, namespace: &str, host: &str) -> Option<(String, String)> {
    let host = host.rsplit_once(':').map_or(host, |(h, _)| h).trim_end_matches('.');
    let mut parts = host.split('.');
    let name = parts.next()?;
    let (namespace, rest) = match parts.next() {
        None => (namespace, None),
        Some(other) => (other, parts.next()),
    };
    let inside = rest.is_none_or(|r| r == "svc");
    (inside && world.services.get(namespace, name).is_some()).then(|| (namespace.to_owned(), name.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use nightshift_cluster::Resource;

    fn put(world: &mut World, resource: Resource, json: serde_json::Value) {
        world.put_json(resource, json.to_string().as_bytes()).unwrap();
    }

    #[test]
    fn owners_selectors_ingresses_and_variables_make_edges() {
        let mut world = World::default();
        let owned = |kind: &str, name: &str| serde_json::json!([{"kind": kind, "name": name, "controller": true}]);
        put(
            &mut world,
            Resource::Deployments,
            serde_json::json!({"metadata": {"namespace": "shop", "name": "web"},
            "spec": {"template": {"spec": {"containers": [{"name": "app", "env": [{"name": "API", "value": "http://api.bank.svc:80/x"}],
                "envFrom": [{"configMapRef": {"name": "conf"}}]}]}}}}),
        );
        put(
            &mut world,
            Resource::ConfigMaps,
            serde_json::json!({"metadata": {"namespace": "shop", "name": "conf"},
            "data": {"DB": "db.shop.svc.cluster.local", "OUT": "https://example.com"}}),
        );
        put(
            &mut world,
            Resource::ReplicaSets,
            serde_json::json!({"metadata": {"namespace": "shop", "name": "web-1",
            "ownerReferences": owned("Deployment", "web")}}),
        );
        put(
            &mut world,
            Resource::Pods,
            serde_json::json!({"metadata": {"namespace": "shop", "name": "web-1-x",
            "labels": {"app": "web"}, "ownerReferences": owned("ReplicaSet", "web-1")},
            "spec": {"nodeName": "n1", "containers": [{"name": "app", "image": "r:5000/web:7"}]}}),
        );
        for (namespace, name) in [("shop", "web"), ("bank", "api"), ("shop", "db")] {
            put(
                &mut world,
                Resource::Services,
                serde_json::json!({"metadata": {"namespace": namespace, "name": name},
                "spec": {"selector": {"app": name}}}),
            );
        }
        put(
            &mut world,
            Resource::Ingresses,
            serde_json::json!({"metadata": {"namespace": "shop", "name": "in"},
            "spec": {"rules": [{"http": {"paths": [{"backend": {"service": {"name": "web"}}}, {"backend": {"service": {"name": "gone"}}}]}}]}}),
        );
        let seen = observe(&world, "eu", Timestamp::EPOCH);
        let mut edges = Vec::new();
        let mut aliases = Vec::new();
        let mut version = String::new();
        for o in &seen {
            match o {
                Observation::Edge { from, to, kind, .. } => edges.push(format!("{from} {kind:?} {to}")),
                Observation::Alias { name, entity, .. } => aliases.push(format!("{name} {entity}")),
                Observation::Entity { entity, .. } if entity.id.as_str() == "eu/deployment/shop/web" => {
                    version.clone_from(&entity.version);
                }
                Observation::Entity { .. } => {}
            }
        }
        assert_eq!(
            edges,
            [
                "eu/deployment/shop/web RunsOn eu/node/-/n1",
                "eu/deployment/shop/web Calls eu/service/bank/api",
                "eu/deployment/shop/web Calls eu/service/shop/db",
                "eu/ingress/shop/in Calls eu/service/shop/web",
                "eu/service/shop/web Calls eu/deployment/shop/web",
            ]
        );
        assert_eq!(aliases, ["pod=shop/web-1-x eu/deployment/shop/web"]);
        assert_eq!(version, "7");
    }
}
