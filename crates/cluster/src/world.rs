//! Everything known of one cluster: tables of objects by kind, whether each kind could be seen, and what objects do not
//! hold (logs, use).

use crate::objects::*;
use nightshift_model::Timestamp;
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};

/// Namespace (empty for what has none) and name.
pub type Key = (String, String);

/// Whether objects of a kind could be seen.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Seen {
    /// Nobody looked.
    #[default]
    No,
    /// Whole, in every namespace.
    Whole,
    /// In these namespaces only.
    Namespaces(BTreeSet<String>),
    /// The API server does not serve it.
    NotServed,
    /// It was refused, with the reason.
    Refused(String),
}

/// What looking for one object gives. Only `Missing` is a fact about it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Look<'a, T> {
    /// It is there.
    Found(&'a T),
    /// It certainly is not.
    Missing,
    /// It could not be seen.
    Unseen,
}

impl<'a, T> Look<'a, T> {
    /// The object, if it is there.
    pub const fn found(self) -> Option<&'a T> {
        match self {
            Self::Found(object) => Some(object),
            _ => None,
        }
    }

    /// Whether it certainly is not there.
    pub const fn is_missing(self) -> bool {
        matches!(self, Self::Missing)
    }
}

/// The objects of one kind.
#[derive(Debug, Clone, PartialEq)]
pub struct Table<T> {
    rows: BTreeMap<Key, T>,
    /// Whether they could be seen.
    pub seen: Seen,
}

impl<T> Default for Table<T> {
    fn default() -> Self {
        Self { rows: BTreeMap::new(), seen: Seen::No }
    }
}

impl<T> Table<T> {
    /// All, by namespace and name.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.rows.values()
    }

    /// Those of one namespace, by name.
    pub fn in_namespace<'a>(&'a self, namespace: &'a str) -> impl Iterator<Item = &'a T> {
        let start = (namespace.to_owned(), String::new());
        self.rows.range(start..).take_while(move |(k, _)| k.0 == namespace).map(|(_, v)| v)
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there are none: which says nothing unless the kind could be seen.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The object, if it was seen.
    pub fn get(&self, namespace: &str, name: &str) -> Option<&T> {
        // A borrowed pair is no key of the map; names are short.
        self.rows.get(&(namespace.to_owned(), name.to_owned()))
    }

    /// The object, or why there is none.
    pub fn look(&self, namespace: &str, name: &str) -> Look<'_, T> {
        match self.get(namespace, name) {
            Some(object) => Look::Found(object),
            None if self.sees(namespace) => Look::Missing,
            None => Look::Unseen,
        }
    }

    /// Whether objects of that namespace (empty: of the cluster) would have been seen.
    pub fn sees(&self, namespace: &str) -> bool {
        match &self.seen {
            Seen::Whole => true,
            Seen::Namespaces(some) => some.contains(namespace),
            // What is not served certainly is not there.
            Seen::NotServed => true,
            Seen::No | Seen::Refused(_) => false,
        }
    }

    /// Puts an object in, in place of the one before.
    pub fn put(&mut self, key: Key, object: T) -> Option<T> {
        self.rows.insert(key, object)
    }

    /// Takes an object out.
    pub fn remove(&mut self, namespace: &str, name: &str) -> Option<T> {
        self.rows.remove(&(namespace.to_owned(), name.to_owned()))
    }

    /// Forgets all of them, before a new list.
    pub fn clear(&mut self) {
        self.rows.clear();
    }

    /// Takes the rows of another table, of one namespace only where it is named, in place of its own, which the other
    /// gets. Whether they could be seen stays as it is.
    pub fn exchange(&mut self, other: &mut Self, namespace: Option<&str>) {
        let Some(namespace) = namespace else {
            std::mem::swap(&mut self.rows, &mut other.rows);
            return;
        };
        // The keys of a namespace lie side by side.
        let mut old = self.rows.split_off(&(namespace.to_owned(), String::new()));
        if let Some(next) = old.keys().find(|k| k.0 != namespace).cloned() {
            self.rows.append(&mut old.split_off(&next));
        }
        self.rows.append(&mut other.rows);
        other.rows = old;
    }

    /// Takes all rows of another table in place of those of the same key.
    pub fn append(&mut self, other: &mut Self) {
        self.rows.append(&mut other.rows);
    }

    /// Keeps those that the test holds for.
    pub fn retain(&mut self, mut keep: impl FnMut(&Key, &T) -> bool) {
        self.rows.retain(|k, v| keep(k, v));
    }
}

/// The last lines of a container's log.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LogTail {
    /// Of the container as it runs now, oldest first.
    pub current: Vec<String>,
    /// Of the one before the last restart.
    pub previous: Vec<String>,
}

/// What a container or node uses.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Usage {
    /// Cores.
    pub cpu: f64,
    /// Bytes.
    pub memory: f64,
}

macro_rules! resources {
    ($($variant:ident $field:ident $type:ident $group:literal $version:literal $plural:literal $kind:literal $namespaced:literal;)*) => {
        /// A kind of object with a table of its own.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Resource {
            $(#[doc = concat!("`", $plural, "`")] $variant,)*
        }

        impl Resource {
            /// Every one.
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            /// API group, empty for the core one.
            pub const fn group(self) -> &'static str {
                match self { $(Self::$variant => $group,)* }
            }

            /// Version that is asked for.
            pub const fn version(self) -> &'static str {
                match self { $(Self::$variant => $version,)* }
            }

            /// Name in URLs.
            pub const fn plural(self) -> &'static str {
                match self { $(Self::$variant => $plural,)* }
            }

            /// Kind, as in manifests.
            pub const fn kind(self) -> &'static str {
                match self { $(Self::$variant => $kind,)* }
            }

            /// Whether its objects are in namespaces.
            pub const fn namespaced(self) -> bool {
                match self { $(Self::$variant => $namespaced,)* }
            }

            /// The resource of a group and kind.
            pub fn find(group: &str, kind: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|r| r.kind() == kind && r.group() == group)
            }
        }

        /// Everything known of one cluster.
        #[derive(Debug, Clone, Default)]
        pub struct World {
            $(#[doc = concat!("`", $plural, "`")] pub $field: Table<$type>,)*
            /// Objects of other software, by group and kind.
            pub custom: BTreeMap<(String, String), Table<Custom>>,
            /// Version of the API server: `v1.36.3`; empty when unknown.
            pub server_version: String,
            /// What containers use, where the metrics API told. Key: namespace, pod, container.
            pub usage: ByContainer<Usage>,
            /// What nodes use.
            pub node_usage: BTreeMap<String, Usage>,
            /// Log lines that were read of containers in trouble.
            pub logs: ByContainer<LogTail>,
            /// Measurements that no object holds, by object and name (`cpu_throttled/app`, a share). Who reads one
            /// documents its name and unit.
            pub signals: BTreeMap<(crate::ObjectRef, String), f64>,
            /// What objects were before, where somebody watched.
            pub history: crate::checks::history::History,
        }

        impl World {
            /// Reads one object of this kind and puts it in; returns its key.
            ///
            /// # Errors
            /// When the bytes are not such an object, with what is wrong; no value of it.
            pub fn put_json(&mut self, resource: Resource, json: &[u8]) -> Result<Key, serde_json::Error> {
                match resource {
                    $(Resource::$variant => {
                        let object: $type = serde_json::from_slice(json)?;
                        let key = key_of(&object.metadata);
                        self.$field.put(key.clone(), object);
                        Ok(key)
                    })*
                }
            }

            /// Reads a page of a list and puts its objects in; returns where to go on, empty at the end.
            ///
            /// # Errors
            /// When the bytes are not a list of this kind.
            pub fn put_list(&mut self, resource: Resource, json: &[u8]) -> Result<ListMeta, serde_json::Error> {
                match resource {
                    $(Resource::$variant => {
                        let list: List<$type> = serde_json::from_slice(json)?;
                        for object in list.items.0 {
                            self.$field.put(key_of(&object.metadata), object);
                        }
                        Ok(list.metadata)
                    })*
                }
            }

            /// Takes an object out.
            pub fn remove(&mut self, resource: Resource, namespace: &str, name: &str) {
                match resource {
                    $(Resource::$variant => { self.$field.remove(namespace, name); })*
                }
            }

            /// Forgets the objects of a kind: all, or those of a namespace.
            pub fn clear(&mut self, resource: Resource, namespace: Option<&str>) {
                match resource {
                    $(Resource::$variant => self.$field.retain(|k, _| namespace.is_some_and(|n| k.0 != n)),)*
                }
            }

            /// Takes the objects of a kind, or those of a namespace, from another world in place of its own, which the
            /// other gets: a new list replaces the old one at once.
            pub fn exchange(&mut self, resource: Resource, other: &mut Self, namespace: Option<&str>) {
                match resource {
                    $(Resource::$variant => self.$field.exchange(&mut other.$field, namespace),)*
                }
            }

            /// Takes the objects of a kind from another world in place of those of the same name.
            pub fn append(&mut self, resource: Resource, other: &mut Self) {
                match resource {
                    $(Resource::$variant => self.$field.append(&mut other.$field),)*
                }
            }

            /// Keeps the objects of a kind whose namespace the test holds for.
            pub fn keep_namespaces(&mut self, resource: Resource, keep: impl Fn(&str) -> bool) {
                match resource {
                    $(Resource::$variant => self.$field.retain(|k, _| keep(&k.0)),)*
                }
            }

            /// Metadata of an object of this kind, if it was seen.
            pub fn meta(&self, resource: Resource, namespace: &str, name: &str) -> Option<&Meta> {
                match resource {
                    $(Resource::$variant => self.$field.get(namespace, name).map(|o| &o.metadata),)*
                }
            }

            /// Says whether a kind could be seen.
            pub fn set_seen(&mut self, resource: Resource, seen: Seen) {
                match resource {
                    $(Resource::$variant => self.$field.seen = seen,)*
                }
            }

            /// Whether a kind could be seen.
            pub fn seen(&self, resource: Resource) -> &Seen {
                match resource {
                    $(Resource::$variant => &self.$field.seen,)*
                }
            }

            /// Whether a namespace holds objects of a kind.
            pub fn has_in_namespace(&self, resource: Resource, namespace: &str) -> bool {
                match resource {
                    $(Resource::$variant => self.$field.in_namespace(namespace).next().is_some(),)*
                }
            }

            /// How many objects of a kind are held.
            pub fn count(&self, resource: Resource) -> usize {
                match resource {
                    $(Resource::$variant => self.$field.len(),)*
                }
            }
        }
    };
}

resources! {
    Namespaces namespaces Namespace "" "v1" "namespaces" "Namespace" false;
    Nodes nodes Node "" "v1" "nodes" "Node" false;
    Pods pods Pod "" "v1" "pods" "Pod" true;
    Events events Event "" "v1" "events" "Event" true;
    Deployments deployments Deployment "apps" "v1" "deployments" "Deployment" true;
    ReplicaSets replica_sets ReplicaSet "apps" "v1" "replicasets" "ReplicaSet" true;
    StatefulSets stateful_sets StatefulSet "apps" "v1" "statefulsets" "StatefulSet" true;
    DaemonSets daemon_sets DaemonSet "apps" "v1" "daemonsets" "DaemonSet" true;
    Jobs jobs Job "batch" "v1" "jobs" "Job" true;
    CronJobs cron_jobs CronJob "batch" "v1" "cronjobs" "CronJob" true;
    Hpas hpas Hpa "autoscaling" "v2" "horizontalpodautoscalers" "HorizontalPodAutoscaler" true;
    Pdbs pdbs Pdb "policy" "v1" "poddisruptionbudgets" "PodDisruptionBudget" true;
    Services services Service "" "v1" "services" "Service" true;
    EndpointSlices endpoint_slices EndpointSlice "discovery.k8s.io" "v1" "endpointslices" "EndpointSlice" true;
    Ingresses ingresses Ingress "networking.k8s.io" "v1" "ingresses" "Ingress" true;
    IngressClasses ingress_classes IngressClass "networking.k8s.io" "v1" "ingressclasses" "IngressClass" false;
    NetworkPolicies network_policies NetworkPolicy "networking.k8s.io" "v1" "networkpolicies" "NetworkPolicy" true;
    GatewayClasses gateway_classes GatewayClass "gateway.networking.k8s.io" "v1" "gatewayclasses" "GatewayClass" false;
    Gateways gateways Gateway "gateway.networking.k8s.io" "v1" "gateways" "Gateway" true;
    HttpRoutes http_routes Route "gateway.networking.k8s.io" "v1" "httproutes" "HTTPRoute" true;
    GrpcRoutes grpc_routes Route "gateway.networking.k8s.io" "v1" "grpcroutes" "GRPCRoute" true;
    ReferenceGrants reference_grants ReferenceGrant "gateway.networking.k8s.io" "v1beta1" "referencegrants" "ReferenceGrant" true;
    Claims claims Pvc "" "v1" "persistentvolumeclaims" "PersistentVolumeClaim" true;
    Volumes volumes Pv "" "v1" "persistentvolumes" "PersistentVolume" false;
    StorageClasses storage_classes StorageClass "storage.k8s.io" "v1" "storageclasses" "StorageClass" false;
    ConfigMaps config_maps ConfigMap "" "v1" "configmaps" "ConfigMap" true;
    Secrets secrets Secret "" "v1" "secrets" "Secret" true;
    ServiceAccounts service_accounts ServiceAccount "" "v1" "serviceaccounts" "ServiceAccount" true;
    Roles roles Role "rbac.authorization.k8s.io" "v1" "roles" "Role" true;
    ClusterRoles cluster_roles Role "rbac.authorization.k8s.io" "v1" "clusterroles" "ClusterRole" false;
    RoleBindings role_bindings RoleBinding "rbac.authorization.k8s.io" "v1" "rolebindings" "RoleBinding" true;
    ClusterRoleBindings cluster_role_bindings RoleBinding "rbac.authorization.k8s.io" "v1" "clusterrolebindings" "ClusterRoleBinding" false;
    Quotas quotas ResourceQuota "" "v1" "resourcequotas" "ResourceQuota" true;
    LimitRanges limit_ranges LimitRange "" "v1" "limitranges" "LimitRange" true;
    PriorityClasses priority_classes PriorityClass "scheduling.k8s.io" "v1" "priorityclasses" "PriorityClass" false;
    MutatingWebhooks mutating_webhooks WebhookConfiguration "admissionregistration.k8s.io" "v1" "mutatingwebhookconfigurations" "MutatingWebhookConfiguration" false;
    ValidatingWebhooks validating_webhooks WebhookConfiguration "admissionregistration.k8s.io" "v1" "validatingwebhookconfigurations" "ValidatingWebhookConfiguration" false;
    Leases leases Lease "coordination.k8s.io" "v1" "leases" "Lease" true;
    ApiServices api_services ApiService "apiregistration.k8s.io" "v1" "apiservices" "APIService" false;
    Csrs csrs Csr "certificates.k8s.io" "v1" "certificatesigningrequests" "CertificateSigningRequest" false;
}

/// Metadata of a list.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ListMeta {
    /// Where a watch goes on from.
    pub resource_version: String,
    /// Token of the next page, empty at the end.
    #[serde(rename = "continue")]
    pub next: String,
}

#[derive(Default, Deserialize)]
#[serde(default, bound = "T: Deserialize<'de> + Default")]
struct List<T> {
    metadata: ListMeta,
    items: Many<T>,
}

fn key_of(meta: &Meta) -> Key {
    (meta.namespace.clone(), meta.name.clone())
}

impl World {
    /// The objects of a kind of other software; `None` when nobody looked for it or it is not served.
    pub fn customs(&self, group: &str, kind: &str) -> Option<&Table<Custom>> {
        self.custom.get(&(group.to_owned(), kind.to_owned()))
    }

    /// Reads an object of other software and puts it in.
    ///
    /// # Errors
    /// When the bytes are not an object.
    pub fn put_custom(&mut self, json: &[u8]) -> Result<Key, serde_json::Error> {
        let object: Custom = serde_json::from_slice(json)?;
        let key = key_of(&object.metadata);
        let place = (object.group().to_owned(), object.kind.clone());
        self.custom.entry(place).or_default().put(key.clone(), object);
        Ok(key)
    }

    /// Reads a page of a list of objects of other software and puts them in; returns where to go on, empty at the end.
    ///
    /// # Errors
    /// When the bytes are not a list.
    pub fn put_custom_list(&mut self, group: &str, kind: &str, json: &[u8]) -> Result<ListMeta, serde_json::Error> {
        let list: List<Custom> = serde_json::from_slice(json)?;
        let table = self.custom.entry((group.to_owned(), kind.to_owned())).or_default();
        for mut object in list.items.0 {
            // What a list is of, its items need not say.
            if object.kind.is_empty() {
                kind.clone_into(&mut object.kind);
            }
            table.put(key_of(&object.metadata), object);
        }
        Ok(list.metadata)
    }

    /// A measurement of an object, where somebody took it.
    pub fn signal(&self, object: &crate::ObjectRef, name: &str) -> Option<f64> {
        self.signals.get(&(object.clone(), name.to_owned())).copied()
    }

    /// The moment at which the newest object or event was written, as a lower bound of the server's clock.
    pub fn newest(&self) -> Option<Timestamp> {
        self.events.iter().filter_map(Event::last_seen).max()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_list_replaces_one_namespace_or_all() {
        let table = |keys: &[(&str, &str)]| {
            let mut table = Table::default();
            for (namespace, name) in keys {
                table.put(((*namespace).to_owned(), (*name).to_owned()), ());
            }
            table
        };
        let mut own = table(&[("a", "x"), ("b", "x"), ("b", "y"), ("c", "x")]);
        let mut new = table(&[("b", "z")]);
        own.exchange(&mut new, Some("b"));
        assert_eq!(own, table(&[("a", "x"), ("b", "z"), ("c", "x")]));
        assert_eq!(new, table(&[("b", "x"), ("b", "y")]));
        own.exchange(&mut new, None);
        assert_eq!(own, table(&[("b", "x"), ("b", "y")]));
    }
}
