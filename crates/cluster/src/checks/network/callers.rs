//! Who calls which service: by hosts in variables and in the config maps that variables come from.

use super::index::{Net, Template};
use crate::ObjectRef;
use crate::objects::Blob;
use std::collections::{BTreeMap, BTreeSet};

/// One call that a workload's configuration names.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::checks) struct Call {
    /// Namespace of the service.
    pub(in crate::checks) namespace: String,
    /// Its name.
    pub(in crate::checks) service: String,
    /// Port, where one is named or its scheme has one.
    pub(in crate::checks) port: Option<i64>,
    /// Variable or key that names it.
    pub(in crate::checks) variable: String,
    /// The config map that the value comes from.
    pub(in crate::checks) source: Option<ObjectRef>,
    /// The name as it is written, with its port.
    pub(in crate::checks) written: String,
    /// Whether the name has no namespace in it.
    pub(in crate::checks) bare: bool,
}

/// All calls, by caller.
pub(in crate::checks) struct Calls {
    all: BTreeMap<ObjectRef, BTreeSet<Call>>,
    callers: BTreeMap<(String, String), BTreeSet<ObjectRef>>,
}

/// Schemes of URLs whose host is a machine, not a bucket, file or image.
const HOST_SCHEMES: [&str; 38] = [
    "amqp",
    "amqps",
    "cassandra",
    "clickhouse",
    "elasticsearch",
    "etcd",
    "ftp",
    "grpc",
    "grpcs",
    "h2c",
    "http",
    "https",
    "kafka",
    "ldap",
    "ldaps",
    "mariadb",
    "memcache",
    "memcached",
    "mongodb",
    "mqtt",
    "mysql",
    "nats",
    "otlp",
    "postgres",
    "postgresql",
    "redis",
    "rediss",
    "sftp",
    "smtp",
    "smtps",
    "sqlserver",
    "ssh",
    "tcp",
    "tls",
    "udp",
    "ws",
    "wss",
    "zookeeper",
];
/// Parts of names of variables that hold an address.
const ADDRESS_WORDS: [&str; 16] = [
    "addr", "api", "backend", "broker", "dsn", "endpoint", "host", "peer", "proxy", "server", "service", "svc",
    "target", "upstream", "uri", "url",
];

impl Calls {
    /// Reads them.
    pub(in crate::checks) fn new(net: &Net<'_>) -> Self {
        let mut calls = Self { all: BTreeMap::new(), callers: BTreeMap::new() };
        for template in net.all_templates() {
            let found = read(net, template);
            for call in &found {
                let key = (call.namespace.clone(), call.service.clone());
                calls.callers.entry(key).or_default().insert(template.root.clone());
            }
            if !found.is_empty() {
                calls.all.entry(template.root.clone()).or_default().extend(found);
            }
        }
        calls
    }

    /// All callers with what they call.
    pub(in crate::checks) fn iter(&self) -> impl Iterator<Item = (&ObjectRef, &BTreeSet<Call>)> {
        self.all.iter()
    }

    /// The workloads that call a service, each with its call.
    pub(in crate::checks) fn of<'b>(
        &'b self,
        namespace: &str,
        service: &str,
    ) -> impl Iterator<Item = (&'b ObjectRef, &'b Call)> {
        let key = (namespace.to_owned(), service.to_owned());
        let callers = self.callers.get(&key);
        let call = move |root: &ObjectRef| {
            self.all.get(root).and_then(|calls| calls.iter().find(|c| c.namespace == key.0 && c.service == key.1))
        };
        callers.into_iter().flatten().filter_map(move |root| Some((root, call(root)?)))
    }
}

fn read(net: &Net<'_>, template: &Template<'_>) -> BTreeSet<Call> {
    let namespace = template.root.namespace.as_str();
    let world = net.cx.world;
    let mut calls = BTreeSet::new();
    let mut add = |variable: &str, value: &Blob, source: Option<&str>| {
        let Some(endpoint) = value.endpoint.as_deref() else { return };
        let source = source.map(|name| ObjectRef::new("ConfigMap", namespace, name));
        calls.extend(resolve(net, namespace, endpoint, value.scheme.as_deref(), variable, source));
    };
    for container in template.spec.containers.iter().chain(&template.spec.init_containers) {
        for variable in &container.env {
            if let Some(value) = &variable.value {
                add(&variable.name, value, None);
            }
            let from = variable.value_from.as_ref().and_then(|f| f.config_map_key_ref.as_ref());
            if let Some(from) = from
                && let Some(value) = world.config_maps.get(namespace, &from.name).and_then(|m| m.data.get(&from.key))
            {
                add(&variable.name, value, Some(&from.name));
            }
        }
        for from in container.env_from.iter().filter_map(|f| f.config_map_ref.as_ref()) {
            let Some(map) = world.config_maps.get(namespace, &from.name) else { continue };
            for (key, value) in &map.data {
                // A variable of the container itself wins over one of a whole config map.
                if container.env.iter().all(|e| e.name != *key) {
                    add(key, value, Some(&from.name));
                }
            }
        }
    }
    calls
}

/// The service that a host certainly means, when it means one of this cluster.
fn resolve(
    net: &Net<'_>,
    own: &str,
    endpoint: &str,
    scheme: Option<&str>,
    variable: &str,
    source: Option<ObjectRef>,
) -> Option<Call> {
    let (host, port) = endpoint.rsplit_once(':').map_or((endpoint, None), |(h, p)| (h, p.parse::<i64>().ok()));
    let parts: Vec<&str> = host.trim_end_matches('.').split('.').collect();
    let is_name = |p: &str| p.starts_with(|c: char| c.is_ascii_alphabetic()) && !p.contains('_');
    let (service, namespace) = match parts.as_slice() {
        [name] => {
            let known = match scheme {
                Some(scheme) => HOST_SCHEMES.contains(&scheme.trim_start_matches("jdbc:")),
                None => {
                    let lower = variable.to_ascii_lowercase();
                    ADDRESS_WORDS.iter().any(|w| lower.contains(w))
                }
            };
            if !known || *name == "localhost" || !is_name(name) {
                return None;
            }
            (*name, own)
        }
        // Two labels are also `example.com`: only a namespace that exists makes it a service.
        [name, namespace] if net.cx.world.namespaces.get("", namespace).is_some() => (*name, *namespace),
        [name, namespace, "svc", ..] => (*name, *namespace),
        // A pod below its headless service.
        [_, name, namespace, "svc", ..] => (*name, *namespace),
        _ => return None,
    };
    if !is_name(service) || (service == "kubernetes" && namespace == "default") {
        return None;
    }
    let port = port.or(match scheme {
        Some("http" | "ws") => Some(80),
        Some("https" | "wss") => Some(443),
        _ => None,
    });
    Some(Call {
        namespace: namespace.to_owned(),
        service: service.to_owned(),
        port,
        variable: variable.to_owned(),
        source,
        written: endpoint.to_owned(),
        bare: parts.len() == 1,
    })
}
