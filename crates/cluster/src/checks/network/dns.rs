//! Cluster DNS: its configuration, its errors, how long it takes, and what its clients say.

use super::index::Net;
use crate::objects::{ConfigMap, Pod};
use crate::signal::DNS_LATENCY_P99_SECS;
use crate::{Finding, LogTail, ObjectRef};
use nightshift_model::FaultClass;
use std::collections::{BTreeMap, BTreeSet};

/// What programs write when a name does not resolve.
const UNRESOLVED: [&str; 12] = [
    "no such host",
    "could not resolve host",
    "could not translate host name",
    "could not be resolved",
    "name or service not known",
    "temporary failure in name resolution",
    "getaddrinfo enotfound",
    "getaddrinfo eai_again",
    "unknownhostexception",
    "nxdomain",
    "name resolution failed",
    "nodename nor servname provided",
];
/// Of these the ones that mean that no answer came, which is never the name's fault.
const NO_ANSWER: [&str; 5] =
    ["temporary failure in name resolution", "eai_again", "server misbehaving", "i/o timeout", "servfail"];
/// What CoreDNS writes when it cannot start or answer.
const OWN_FATAL: [&str; 6] = [
    "plugin/loop: loop",
    "error during parsing",
    "unknown directive",
    "no forward plugin",
    "failed to list *v1.endpointslice",
    "failed to list *v1.service",
];
/// Errors in a log of CoreDNS from which on it counts: single ones are everyday.
const OWN_ERRORS_MIN: usize = 5;
/// Workloads whose clients fail from which on it is DNS, not one client.
const CLIENTS_MIN: usize = 2;
/// Answers slower than this are felt by every call, seconds. A healthy server answers within milliseconds.
const SLOW_SECS: f64 = 0.5;

/// Checks it.
pub(super) fn run(net: &Net<'_>, out: &mut Vec<Finding>) {
    let Some(dns) = Dns::find(net) else { return };
    let found =
        dns.configuration(net).or_else(|| dns.unselected(net)).or_else(|| dns.errors(net)).or_else(|| dns.slow(net));
    let clients = clients(net);
    match found {
        Some(mut finding) => {
            for client in clients.keys() {
                finding = finding.hits(client.clone()).explains(client.clone());
            }
            out.push(finding.explains(dns.object));
        }
        None if clients.len() >= CLIENTS_MIN => out.push(dns.by_clients(clients)),
        None => {}
    }
}

/// Log lines and events that say that a name does not resolve, by workload: id, source, text.
pub(super) fn unresolved(net: &Net<'_>) -> BTreeMap<ObjectRef, Vec<(String, &'static str, String)>> {
    let mut all: BTreeMap<ObjectRef, Vec<_>> = BTreeMap::new();
    let says = |line: &str| {
        let lower = line.to_ascii_lowercase();
        UNRESOLVED.iter().chain(&NO_ANSWER[2..3]).any(|w| lower.contains(w))
            || (lower.contains("lookup ") && (lower.contains("i/o timeout") || lower.contains("servfail")))
    };
    for ((namespace, pod, container), tail) in &net.cx.world.logs {
        let Some(found) = net.cx.world.pods.get(namespace, pod) else { continue };
        for (which, line) in lines(tail).filter(|(_, l)| says(l)) {
            let id = format!("log/{namespace}/{pod}/{container}/{which}");
            let entry = all.entry(net.cx.root(found)).or_default();
            if entry.len() < 8 {
                entry.push((id, "log", line.chars().take(300).collect()));
            }
        }
    }
    for event in net.cx.world.events.iter().filter(|e| e.kind == "Warning" && says(&e.message)) {
        let about = &event.involved_object;
        if let Some(pod) = net.cx.world.pods.get(&about.namespace, &about.name).filter(|_| about.kind == "Pod") {
            let id = format!("event/{}/{}", event.metadata.namespace, event.metadata.name);
            let entry = all.entry(net.cx.root(pod)).or_default();
            if entry.len() < 8 {
                entry.push((id, "event", event.message.chars().take(300).collect()));
            }
        }
    }
    all
}

fn lines(tail: &LogTail) -> impl Iterator<Item = (&'static str, &String)> {
    tail.current.iter().map(|l| ("current", l)).chain(tail.previous.iter().map(|l| ("previous", l)))
}

/// Workloads that cannot resolve names of services that exist, or get no answer at all.
fn clients(net: &Net<'_>) -> BTreeMap<ObjectRef, (String, &'static str, String)> {
    let services: BTreeSet<(&str, &str)> = net
        .cx
        .world
        .services
        .iter()
        .filter(|s| s.spec.kind != "ExternalName")
        .map(|s| (s.metadata.namespace.as_str(), s.metadata.name.as_str()))
        .collect();
    let names_one = |line: &str, own: &str| {
        line.split(|c: char| !c.is_ascii_alphanumeric() && c != '.' && c != '-').any(|word| {
            let mut parts = word.trim_matches('.').split('.');
            let (first, second, third) = (parts.next().unwrap_or_default(), parts.next(), parts.next());
            match (second, third) {
                (Some(namespace), Some("svc")) => services.contains(&(namespace, first)),
                (Some(namespace), None) => services.contains(&(namespace, first)),
                // A single word is a name only where the line looks one up.
                (None, None) => line.contains("lookup ") && services.contains(&(own, first)),
                _ => false,
            }
        })
    };
    let mut all = BTreeMap::new();
    for (root, found) in unresolved(net) {
        let hit = found.into_iter().find(|(_, _, line)| {
            let lower = line.to_ascii_lowercase();
            NO_ANSWER.iter().any(|w| lower.contains(w)) || names_one(&lower, &root.namespace)
        });
        if let Some(hit) = hit {
            all.insert(root, hit);
        }
    }
    all
}

/// The DNS server of the cluster.
struct Dns<'a> {
    object: ObjectRef,
    pods: Vec<&'a Pod>,
    map: Option<&'a ConfigMap>,
}

impl<'a> Dns<'a> {
    fn find(net: &Net<'a>) -> Option<Self> {
        let world = net.cx.world;
        // The label that every distribution gives its DNS server, whatever its name.
        let template = net.all_templates().find(|t| {
            let labels = &t.labels;
            let is_dns = labels.get("k8s-app") == Some("kube-dns")
                || labels.get("k8s-app") == Some("coredns")
                || labels.get("app.kubernetes.io/name") == Some("coredns");
            is_dns && matches!(t.root.kind.as_str(), "Deployment" | "DaemonSet" | "StatefulSet")
        });
        if let Some(template) = template {
            let root = template.root.clone();
            let maps = template.spec.volumes.iter().filter_map(|v| v.config_map.as_ref());
            let map =
                maps.filter_map(|m| world.config_maps.get(&root.namespace, &m.name)).find(|m| m.corefile.is_some());
            let pods = net.cx.pods_of(&root).to_vec();
            return Some(Self { object: root, pods, map });
        }
        let map = world.config_maps.get("kube-system", "coredns").filter(|m| m.corefile.is_some())?;
        Some(Self { object: ObjectRef::of("ConfigMap", &map.metadata), pods: Vec::new(), map: Some(map) })
    }

    /// The configuration is certainly wrong, or pods run with an older one.
    fn configuration(&self, net: &Net<'_>) -> Option<Finding> {
        let map = self.map?;
        let corefile = map.corefile.as_ref()?;
        let object = ObjectRef::of("ConfigMap", &map.metadata);
        let writer = map.metadata.last_data_writer();
        let who = writer.map(|m| {
            let when =
                m.time.map(|at| format!(" {} ago", crate::objects::text::span(net.cx.age(at)))).unwrap_or_default();
            format!("; it was written by {}{when}", m.manager)
        });
        let who = who.unwrap_or_default();
        let mut wrong = corefile.faults.join("; ");
        if wrong.is_empty() && !corefile.serves_cluster && !corefile.imports {
            "it has no `kubernetes` plugin, so no name of the cluster resolves".clone_into(&mut wrong);
        }
        if !wrong.is_empty() {
            return Some(
                Finding::new(
                    FaultClass::ClusterDnsBroken,
                    self.object.clone(),
                    format!("cluster DNS has a broken configuration: {wrong}"),
                )
                .because(object.clone(), format!("in the Corefile of {object}: {wrong}{who}"))
                .fix(format!(
                    "Correct the Corefile of {object}, then kubectl -n {} rollout restart {}/{}.",
                    self.object.namespace,
                    self.object.kind.to_ascii_lowercase(),
                    self.object.name
                ))
                .field(&object, "data[Corefile]", &wrong)
                .since(writer.and_then(|m| m.time)),
            );
        }
        // Without the reload plugin it goes on with what it started with.
        let changed = writer.and_then(|m| m.time)?;
        let started =
            |p: &&Pod| p.status.container_statuses.iter().filter_map(|c| c.state.running.as_ref()?.started_at).max();
        let stale = self.pods.iter().find(|p| started(p).is_some_and(|at| at < changed))?;
        (!corefile.reloads && !corefile.imports).then(|| {
            Finding::new(
                FaultClass::ClusterDnsBroken,
                self.object.clone(),
                format!("cluster DNS runs with an older configuration than that of {object}"),
            )
            .because(
                object.clone(),
                format!("it was changed after {} had started, and has no `reload` plugin{who}", stale.metadata.name),
            )
            .fix(format!(
                "kubectl -n {} rollout restart {}/{}, and add the `reload` plugin to the Corefile.",
                self.object.namespace,
                self.object.kind.to_ascii_lowercase(),
                self.object.name
            ))
            .field(
                &ObjectRef::of("Pod", &stale.metadata),
                "status.containerStatuses[*].state.running.startedAt",
                started(stale).map(|t| t.to_rfc3339()).unwrap_or_default(),
            )
        })
    }

    /// No service leads to its pods.
    fn unselected(&self, net: &Net<'_>) -> Option<Finding> {
        let world = net.cx.world;
        let labels = net.templates(&self.object.namespace).iter().find(|t| t.root == self.object).map(|t| &t.labels)?;
        if !world.services.sees(&self.object.namespace) {
            return None;
        }
        let mut services = world.services.in_namespace(&self.object.namespace);
        // One with its usual name and another selector is told as a service without endpoints.
        if services.any(|s| {
            (!s.spec.selector.is_empty() && labels.has_all(&s.spec.selector)) || s.metadata.name.contains("dns")
        }) {
            return None;
        }
        let missing = ObjectRef::new("Service", self.object.namespace.clone(), "kube-dns");
        Some(
            Finding::new(
                FaultClass::ClusterDnsBroken,
                self.object.clone(),
                "no Service leads to the cluster's DNS server, so no pod can reach it".to_owned(),
            )
            .because(missing.clone(), format!("there is no {missing}, and no other Service selects {}", self.object))
            .fix(format!("Make {missing} again, with the cluster address that the kubelets are told (clusterDNS) and selector {}.", **labels))
            .field(&self.object, "spec.template.metadata.labels", labels.to_string()),
        )
    }

    /// Its own logs.
    fn errors(&self, net: &Net<'_>) -> Option<Finding> {
        let mut fatal = None;
        let mut errors: Vec<(String, String)> = Vec::new();
        for pod in &self.pods {
            let (namespace, name) = (&pod.metadata.namespace, &pod.metadata.name);
            for container in &pod.spec.containers {
                let key = (namespace.clone(), name.clone(), container.name.clone());
                let Some(tail) = net.cx.world.logs.get(&key) else { continue };
                for (which, line) in lines(tail) {
                    let lower = line.to_ascii_lowercase();
                    let id = format!("log/{namespace}/{name}/{}/{which}", container.name);
                    if OWN_FATAL.iter().any(|w| lower.contains(w)) {
                        fatal = Some((id, line.clone()));
                    } else if lower.contains("[error]") || lower.contains("servfail") {
                        errors.push((id, line.clone()));
                    }
                }
            }
        }
        let (id, line, why, fix) = match (fatal, errors.last()) {
            (Some((id, line)), _) if line.to_ascii_lowercase().contains("loop") => (
                id,
                line,
                "it forwards to itself".to_owned(),
                "Let it forward to a server outside the cluster: the resolv.conf that it reads names the cluster's DNS.",
            ),
            (Some((id, line)), _) => (
                id,
                line,
                "it cannot read its configuration or the API".to_owned(),
                "Correct its Corefile, or its rights to list services and endpoint slices.",
            ),
            (None, Some((id, line))) if errors.len() >= OWN_ERRORS_MIN => (
                id.clone(),
                line.clone(),
                format!("{} of the last lines of its log are errors", errors.len()),
                "Look at the servers that it forwards to, and at the network between.",
            ),
            _ => return None,
        };
        Some(
            Finding::new(FaultClass::ClusterDnsBroken, self.object.clone(), format!("cluster DNS fails: {why}"))
                .because(self.object.clone(), why)
                .fix(fix)
                .fact(id, "log", line),
        )
    }

    fn slow(&self, net: &Net<'_>) -> Option<Finding> {
        let (key, secs) = net.cx.world.signals.iter().find(|((object, name), secs)| {
            name == DNS_LATENCY_P99_SECS && *object == self.object && **secs > SLOW_SECS
        })?;
        Some(
            Finding::new(
                FaultClass::ClusterDnsBroken,
                self.object.clone(),
                format!("cluster DNS is slow: one in a hundred answers takes {secs:.1} s or more"),
            )
            .because(
                self.object.clone(),
                format!("99 % of answers take up to {secs:.1} s; more than {SLOW_SECS} s is felt by every call"),
            )
            .fix(format!("Give {} more replicas or CPU, and look at the servers that it forwards to.", self.object))
            .fact(format!("metric/{}", key.1), "metric", format!("{}: {secs}", key.1)),
        )
    }

    fn by_clients(&self, clients: BTreeMap<ObjectRef, (String, &'static str, String)>) -> Finding {
        let who = clients.keys().take(3).map(ToString::to_string).collect::<Vec<_>>().join(", ");
        let mut finding = Finding::new(
            FaultClass::ClusterDnsBroken,
            self.object.clone(),
            format!("{} workloads cannot resolve names that exist", clients.len()),
        )
        .because(self.object.clone(), format!("{who} get no answer from cluster DNS, or a wrong one"))
        .fix(format!(
            "Look at the logs of {} and at the network between it and its clients (from a pod: nslookup kubernetes.default).",
            self.object
        ));
        for (client, (id, source, line)) in clients {
            finding = finding.fact(id, source, line).hits(client.clone()).explains(client);
        }
        finding
    }
}
