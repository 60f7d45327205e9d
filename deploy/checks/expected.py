"""The rights that Nightshift may have, written down a second time and by hand.

The chart's templates must give exactly these: a right too many is a hole, one too few is a blind spot. Whoever changes
one side says why on the other.
"""

import re

from .report import ROOT

READ = ("get", "list", "watch")

# (API group, resource): kinds in namespaces.
NAMESPACED = {
    "": "pods events services endpoints persistentvolumeclaims configmaps serviceaccounts resourcequotas limitranges",
    "events.k8s.io": "events",
    "apps": "deployments replicasets statefulsets daemonsets controllerrevisions",
    "batch": "jobs cronjobs",
    "autoscaling": "horizontalpodautoscalers",
    "policy": "poddisruptionbudgets",
    "discovery.k8s.io": "endpointslices",
    "networking.k8s.io": "ingresses networkpolicies",
    "rbac.authorization.k8s.io": "roles rolebindings",
    "coordination.k8s.io": "leases",
}
NAMESPACED_OF_OTHERS = {
    "gateway.networking.k8s.io": "gateways httproutes grpcroutes referencegrants",
    "argoproj.io": "applications appprojects rollouts",
    "kyverno.io": "policies policyexceptions",
    "wgpolicyk8s.io": "policyreports",
    "openreports.io": "reports",
    "cert-manager.io": "certificates certificaterequests issuers",
    "kustomize.toolkit.fluxcd.io": "kustomizations",
    "helm.toolkit.fluxcd.io": "helmreleases",
    "source.toolkit.fluxcd.io": "gitrepositories ocirepositories helmrepositories",
    "keda.sh": "scaledobjects scaledjobs triggerauthentications",
    "monitoring.coreos.com": "prometheuses prometheusrules alertmanagers alertmanagerconfigs servicemonitors podmonitors",
    "postgresql.cnpg.io": "clusters",
    "operators.coreos.com": "subscriptions installplans clusterserviceversions catalogsources",
    "networking.istio.io": "virtualservices destinationrules sidecars",
    "security.istio.io": "peerauthentications authorizationpolicies",
}
CLUSTER = {
    "": "nodes namespaces persistentvolumes",
    "storage.k8s.io": "storageclasses csinodes volumeattachments",
    "networking.k8s.io": "ingressclasses",
    "scheduling.k8s.io": "priorityclasses",
    "rbac.authorization.k8s.io": "clusterroles clusterrolebindings",
    "admissionregistration.k8s.io": "mutatingwebhookconfigurations validatingwebhookconfigurations",
    "certificates.k8s.io": "certificatesigningrequests",
    "apiregistration.k8s.io": "apiservices",
    "apiextensions.k8s.io": "customresourcedefinitions",
}
CLUSTER_OF_OTHERS = {
    "gateway.networking.k8s.io": "gatewayclasses",
    "kyverno.io": "clusterpolicies",
    "wgpolicyk8s.io": "clusterpolicyreports",
    "openreports.io": "clusterreports",
    "cert-manager.io": "clusterissuers",
}
# Read beside what `nightshift-cluster` keeps a table of: by the actuator (revisions to go back to, projects of
# applications), or to tell what is served and what volumes wait for.
NO_TABLE = {
    ("apps", "controllerrevisions"),
    ("argoproj.io", "appprojects"),
    ("apiextensions.k8s.io", "customresourcedefinitions"),
    ("storage.k8s.io", "csinodes"),
    ("storage.k8s.io", "volumeattachments"),
    ("events.k8s.io", "events"),
    ("", "endpoints"),
}

# (API group, resource, verb) in a namespace where it may act.
ACT = {
    ("apps", "deployments", "patch"),
    ("apps", "statefulsets", "patch"),
    ("apps", "daemonsets", "patch"),
    ("apps", "deployments/scale", "patch"),
    ("apps", "statefulsets/scale", "patch"),
    ("autoscaling", "horizontalpodautoscalers", "patch"),
    ("", "pods/eviction", "create"),
    ("", "configmaps", "patch"),
    ("", "persistentvolumeclaims", "patch"),
    ("batch", "jobs", "create"),
    ("batch", "jobs", "delete"),
    ("gateway.networking.k8s.io", "httproutes", "patch"),
    ("kyverno.io", "policyexceptions", "create"),
    ("kyverno.io", "policyexceptions", "patch"),
    ("kyverno.io", "policyexceptions", "delete"),
    ("argoproj.io", "applications", "patch"),
    ("postgresql.cnpg.io", "clusters", "patch"),
    ("postgresql.cnpg.io", "clusters/status", "patch"),
}
ACT_DELETE_STUCK_PODS = {("", "pods", "delete")}
ACT_NODES = {("", "nodes", "patch")}
ACT_HELM_ROLLBACK = {
    *(("", "secrets", verb) for verb in ("get", "list", "create", "patch")),
    *(("", kind, verb) for kind in ("services", "serviceaccounts") for verb in ("create", "patch")),
    *(("", kind, "create") for kind in ("configmaps", "persistentvolumeclaims")),
    *(("apps", kind, "create") for kind in ("deployments", "statefulsets", "daemonsets")),
    *(("batch", "cronjobs", verb) for verb in ("create", "patch")),
    ("autoscaling", "horizontalpodautoscalers", "create"),
    *(("policy", "poddisruptionbudgets", verb) for verb in ("create", "patch")),
    *(("networking.k8s.io", kind, verb) for kind in ("ingresses", "networkpolicies") for verb in ("create", "patch")),
}

# Our own records, in our own namespace.
OWN_LEASES = {("coordination.k8s.io", "leases", verb) for verb in ("create", "get", "update", "patch")}
OWN_RESOURCES = {
    *(("nightshift.dev", kind, verb) for kind in ("playbooks", "remediationpolicies", "serviceobjectives") for verb in READ),
    *(("nightshift.dev", f"{kind}/status", "patch") for kind in ("playbooks", "remediationpolicies", "serviceobjectives")),
    *(("nightshift.dev", "incidents", verb) for verb in (*READ, "create", "patch", "delete")),
    ("nightshift.dev", "incidents/status", "patch"),
}
OWN_OBJECTIVES = {
    *(("nightshift.dev", "serviceobjectives", verb) for verb in READ),
    ("nightshift.dev", "serviceobjectives/status", "patch"),
}


def kinds(table: dict[str, str], verbs: tuple[str, ...] = READ) -> set[tuple[str, str, str]]:
    """Every right that a table of kinds stands for."""
    return {(group, kind, verb) for group, names in table.items() for kind in names.split() for verb in verbs}


def read_namespaced(watch: dict) -> set[tuple[str, str, str]]:
    """What is read in namespaces with these values of `watch`."""
    rights = kinds(NAMESPACED)
    if watch["customResources"]:
        rights |= kinds(NAMESPACED_OF_OTHERS)
    if watch["podLogs"]:
        rights.add(("", "pods/log", "get"))
    if watch["metrics"]:
        rights |= {("metrics.k8s.io", "pods", verb) for verb in ("get", "list")}
    if watch["secrets"]:
        rights |= {("", "secrets", verb) for verb in READ}
    return rights


def read_cluster(watch: dict) -> set[tuple[str, str, str]]:
    """What is read of the whole cluster with these values of `watch`."""
    rights = kinds(CLUSTER)
    if watch["customResources"]:
        rights |= kinds(CLUSTER_OF_OTHERS)
    if watch["metrics"]:
        rights |= {("metrics.k8s.io", "nodes", verb) for verb in ("get", "list")}
    if watch["kubeletStats"]:
        rights.add(("", "nodes/stats", "get"))
    return rights


def act(values: dict) -> set[tuple[str, str, str]]:
    """What may be changed in a listed namespace with these values of `act`."""
    rights = set(ACT)
    if values["deleteStuckPods"]:
        rights |= ACT_DELETE_STUCK_PODS
    if values["helmRollback"]:
        rights |= ACT_HELM_ROLLBACK
    return rights


def tables() -> set[tuple[str, str]]:
    """(API group, plural) of every kind that the program watches, from the two lists in its source."""
    cluster = ROOT / "crates" / "cluster" / "src"
    row = r'^    \w+ \w+ \w+ "([^"]*)" "v\w+" "([a-z]+)" "\w+" (?:true|false);$'
    known = set(re.findall(row, (cluster / "world.rs").read_text(), re.M))
    custom = (cluster / "objects" / "custom.rs").read_text()
    listed = custom[custom.index("pub const CUSTOM_KINDS") :].split("];", 1)[0]
    return known | {(group, plural(kind)) for group, kind in re.findall(r'\("([^"]+)", "(\w+)"\)', listed)}


def plural(kind: str) -> str:
    """Name in URLs of a kind, as these projects form it."""
    name = kind.lower()
    if name.endswith("y"):
        return name[:-1] + "ies"
    return name + ("es" if name.endswith("s") else "s")
