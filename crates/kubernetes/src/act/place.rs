//! Where an object is: its kind, namespace and name, as a path of the API.

use nightshift_act::ActError;

/// A kind that the actuator reads or writes.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Kind {
    pub(super) group: &'static str,
    pub(super) version: &'static str,
    pub(super) plural: &'static str,
    /// As in `kind:` of an object.
    pub(super) name: &'static str,
    pub(super) namespaced: bool,
}

macro_rules! kinds {
    ($($id:ident $group:literal $version:literal $plural:literal $name:literal $namespaced:literal)*) => {
        $(pub(super) static $id: Kind =
            Kind { group: $group, version: $version, plural: $plural, name: $name, namespaced: $namespaced };)*

        /// Every kind that is known here.
        pub(super) static ALL: &[&Kind] = &[$(&$id),*];
    };
}

kinds! {
    POD "" "v1" "pods" "Pod" true
    NODE "" "v1" "nodes" "Node" false
    SERVICE "" "v1" "services" "Service" true
    CONFIG_MAP "" "v1" "configmaps" "ConfigMap" true
    SECRET "" "v1" "secrets" "Secret" true
    SERVICE_ACCOUNT "" "v1" "serviceaccounts" "ServiceAccount" true
    CLAIM "" "v1" "persistentvolumeclaims" "PersistentVolumeClaim" true
    EVENT "" "v1" "events" "Event" true
    DEPLOYMENT "apps" "v1" "deployments" "Deployment" true
    STATEFUL_SET "apps" "v1" "statefulsets" "StatefulSet" true
    DAEMON_SET "apps" "v1" "daemonsets" "DaemonSet" true
    REPLICA_SET "apps" "v1" "replicasets" "ReplicaSet" true
    CONTROLLER_REVISION "apps" "v1" "controllerrevisions" "ControllerRevision" true
    JOB "batch" "v1" "jobs" "Job" true
    CRON_JOB "batch" "v1" "cronjobs" "CronJob" true
    AUTOSCALER "autoscaling" "v2" "horizontalpodautoscalers" "HorizontalPodAutoscaler" true
    BUDGET "policy" "v1" "poddisruptionbudgets" "PodDisruptionBudget" true
    INGRESS "networking.k8s.io" "v1" "ingresses" "Ingress" true
    NETWORK_POLICY "networking.k8s.io" "v1" "networkpolicies" "NetworkPolicy" true
    STORAGE_CLASS "storage.k8s.io" "v1" "storageclasses" "StorageClass" false
    ROUTE "gateway.networking.k8s.io" "v1" "httproutes" "HTTPRoute" true
    APPLICATION "argoproj.io" "v1alpha1" "applications" "Application" true
    EXCEPTION "kyverno.io" "v2" "policyexceptions" "PolicyException" true
    EXCEPTION_BETA "kyverno.io" "v2beta1" "policyexceptions" "PolicyException" true
    REPORT "wgpolicyk8s.io" "v1alpha2" "policyreports" "PolicyReport" true
    OPEN_REPORT "openreports.io" "v1alpha1" "reports" "Report" true
    PG_CLUSTER "postgresql.cnpg.io" "v1" "clusters" "Cluster" true
}

impl Kind {
    /// `apps/v1`, `v1`.
    pub(super) fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.to_owned() } else { format!("{}/{}", self.group, self.version) }
    }

    fn root(&self) -> String {
        if self.group.is_empty() { format!("/api/{}", self.version) } else { format!("/apis/{}", self.api_version()) }
    }

    /// Path of all objects of it, in a namespace where it has one.
    pub(super) fn collection(&self, namespace: &str) -> String {
        if self.namespaced && !namespace.is_empty() {
            format!("{}/namespaces/{namespace}/{}", self.root(), self.plural)
        } else {
            format!("{}/{}", self.root(), self.plural)
        }
    }
}

/// One object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) kind: &'static Kind,
    pub(super) namespace: String,
    pub(super) name: String,
    /// `status` where that is what is written.
    pub(super) part: Option<&'static str>,
}

impl Place {
    /// An object by name.
    ///
    /// # Errors
    /// `Refused` when the names cannot be those of an object: they would lead to another path.
    pub(super) fn new(kind: &'static Kind, namespace: &str, name: &str) -> Result<Self, ActError> {
        let good = |text: &str| {
            !text.is_empty()
                && text.len() <= 253
                && !text.starts_with('.')
                && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'.'))
        };
        if kind.namespaced && namespace.is_empty() {
            return Err(ActError::Refused(format!("find {name}: a {} has a namespace, none is told", kind.name)));
        }
        if !good(name) || (kind.namespaced && !good(namespace)) {
            return Err(ActError::Refused(format!("find `{name}`: that is no name of a {}", kind.name)));
        }
        let namespace = if kind.namespaced { namespace.to_owned() } else { String::new() };
        Ok(Self { kind, namespace, name: name.to_owned(), part: None })
    }

    /// Path in the API.
    pub(super) fn path(&self) -> String {
        let path = format!("{}/{}", self.kind.collection(&self.namespace), self.name);
        self.part.map_or_else(|| path.clone(), |part| format!("{path}/{part}"))
    }

    /// Path of the objects beside it.
    pub(super) fn collection(&self) -> String {
        self.kind.collection(&self.namespace)
    }

    /// For people, and as a key of an image: `deployments/shop/web`.
    pub(super) fn label(&self) -> String {
        if self.namespace.is_empty() {
            format!("{}/{}", self.kind.plural, self.name)
        } else {
            format!("{}/{}/{}", self.kind.plural, self.namespace, self.name)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_paths_and_nothing_else_gets_in() {
        let place = Place::new(&DEPLOYMENT, "shop", "web").unwrap();
        assert_eq!(place.path(), "/apis/apps/v1/namespaces/shop/deployments/web");
        assert_eq!(Place::new(&NODE, "", "node-1").unwrap().path(), "/api/v1/nodes/node-1");
        assert_eq!(place.label(), "deployments/shop/web");
        for (namespace, name) in [
            ("", "web"),
            ("shop", ""),
            ("shop", "../secrets/x"),
            ("shop", "a/b"),
            ("sh%6fp", "a"),
            ("shop", "a?b"),
            ("..", "a"),
            ("shop", "."),
        ] {
            assert!(
                matches!(Place::new(&DEPLOYMENT, namespace, name), Err(ActError::Refused(_))),
                "{namespace} {name}"
            );
        }
        assert!(ALL.iter().all(|k| !k.plural.is_empty()));
    }
}
