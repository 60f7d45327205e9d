"""What must hold of any rendering of the chart."""

from .report import Report

# Where rights of a ClusterRoleBinding hold.
EVERYWHERE = "every namespace"
LOOKING = {"get", "list", "watch"}
# Never given, whatever the values.
FORBIDDEN = {
    "pods/exec",
    "pods/attach",
    "pods/portforward",
    "pods/proxy",
    "pods/ephemeralcontainers",
    "services/proxy",
    "nodes/proxy",
    "serviceaccounts/token",
}
LABELS = ("name", "instance", "version", "part-of", "managed-by")
CLUSTER_WIDE = {"ClusterRole", "ClusterRoleBinding"}


def one(docs: list[dict], kind: str, name: str) -> dict:
    """The object of this kind and name."""
    found = [doc for doc in docs if doc["kind"] == kind and doc["metadata"]["name"] == name]
    if len(found) != 1:
        raise SystemExit(f"deploy/check: {len(found)} objects {kind}/{name} where one should be")
    return found[0]


def bindings(docs: list[dict]):
    """Each binding with its role's rules and where they hold."""
    roles = {
        (doc["kind"], doc["metadata"].get("namespace"), doc["metadata"]["name"]): doc.get("rules") or []
        for doc in docs
        if doc["kind"] in ("Role", "ClusterRole")
    }
    for doc in docs:
        if doc["kind"] not in ("RoleBinding", "ClusterRoleBinding"):
            continue
        ref, namespace = doc["roleRef"], doc["metadata"].get("namespace")
        of = (ref["kind"], namespace if ref["kind"] == "Role" else None, ref["name"])
        where = EVERYWHERE if doc["kind"] == "ClusterRoleBinding" else namespace
        yield doc, roles.get(of), where


def triples(rules: list[dict]) -> set[tuple[str, str, str]]:
    """(API group, resource, verb) of each right."""
    return {
        (group, resource, verb)
        for rule in rules
        for group in rule.get("apiGroups", [])
        for resource in rule.get("resources", [])
        for verb in rule["verbs"]
    }


def rights_of(docs: list[dict], account: str, namespace: str) -> dict[str, set[tuple[str, str, str]]]:
    """What the account may, by where."""
    out: dict[str, set[tuple[str, str, str]]] = {}
    for doc, rules, where in bindings(docs):
        if {"kind": "ServiceAccount", "name": account, "namespace": namespace} in doc["subjects"]:
            out.setdefault(where, set()).update(triples(rules or []))
    return out


def writing_bindings(docs: list[dict]) -> dict[str, list[str]]:
    """Names of the bindings that give a right to change what is not ours, by where."""
    out: dict[str, list[str]] = {}
    for doc, rules, where in bindings(docs):
        writes = {
            (group, resource)
            for group, resource, verb in triples(rules or [])
            if verb not in LOOKING and group != "nightshift.dev" and resource != "leases"
        }
        if writes:
            out.setdefault(where, []).append(doc["metadata"]["name"])
    return out


def check(report: Report, name: str, docs: list[dict], namespace: str) -> None:
    """Checks one rendering."""
    ids = [(doc["kind"], doc["metadata"].get("namespace"), doc["metadata"]["name"]) for doc in docs]
    report.same(len(ids), len(set(ids)), f"{name}: objects of one name")
    for doc in docs:
        meta = doc["metadata"]
        at = f"{name}: {doc['kind']}/{meta['name']}"
        missing = [label for label in LABELS if f"app.kubernetes.io/{label}" not in meta.get("labels", {})]
        report.check(not missing, f"{at}: labels {missing} are missing")
        report.same("namespace" in meta, doc["kind"] not in CLUSTER_WIDE, f"{at}: has a namespace")
        report.check(isinstance(meta.get("namespace", ""), str), f"{at}: its namespace is no text")
        for key, value in {**meta.get("labels", {}), **meta.get("annotations", {})}.items():
            report.check(isinstance(value, str), f"{at}: {key} is no text")
    access(report, name, docs, namespace)
    pods(report, name, docs)
    network(report, name, docs)


def access(report: Report, name: str, docs: list[dict], namespace: str) -> None:
    bound = set()
    for doc, rules, where in bindings(docs):
        at = f"{name}: {doc['kind']}/{doc['metadata']['name']}"
        report.check(rules is not None, f"{at}: its role is not there")
        account = [{"kind": "ServiceAccount", "name": "ns-nightshift", "namespace": namespace}]
        report.same(doc["subjects"], account, f"{at}: subjects")
        bound.add((doc["roleRef"]["kind"], doc["metadata"].get("namespace"), doc["roleRef"]["name"]))
        for group, resource, verb in triples(rules or []):
            right = f"{verb} {resource} of `{group}`"
            report.check("*" not in (group, resource, verb) and not resource.endswith("/*"), f"{at}: a wildcard: {right}")
            report.check(resource not in FORBIDDEN, f"{at}: {right} is never given")
            report.check(verb not in ("impersonate", "escalate", "bind", "deletecollection"), f"{at}: {right} is never given")
            looking = verb in LOOKING
            report.check(looking or resource != "namespaces", f"{at}: {right} is never given")
            report.check(looking or group != "rbac.authorization.k8s.io", f"{at}: {right} is never given")
            report.check(
                looking or where != EVERYWHERE or (resource, verb) == ("nodes", "patch"), f"{at}: {right} in all namespaces"
            )
    for doc in docs:
        if doc["kind"] == "Role":
            key = ("Role", doc["metadata"]["namespace"], doc["metadata"]["name"])
        elif doc["kind"] == "ClusterRole":
            key = ("ClusterRole", None, doc["metadata"]["name"])
        else:
            continue
        report.check(any(b[0] == key[0] and b[2] == key[2] for b in bound), f"{name}: nobody is bound to {key[0]}/{key[2]}")


def pods(report: Report, name: str, docs: list[dict]) -> None:
    """The `restricted` pod security standard, a root that cannot be written, probes, resources, volumes that exist."""
    maps = {doc["metadata"]["name"]: doc["data"] for doc in docs if doc["kind"] == "ConfigMap"}
    for doc in docs:
        spec = doc.get("spec", {}).get("template", {}).get("spec")
        if not spec:
            continue
        at = f"{name}: {doc['kind']}/{doc['metadata']['name']}"
        security = spec["securityContext"]
        report.check(security["runAsNonRoot"] is True and security.get("runAsUser") != 0, f"{at}: may run as root")
        report.same(security["seccompProfile"], {"type": "RuntimeDefault"}, f"{at}: seccomp")
        for share in ("hostNetwork", "hostPID", "hostIPC"):
            report.check(not spec.get(share), f"{at}: {share}")
        report.check(spec.get("enableServiceLinks") is False, f"{at}: variables of other services are let in")
        labels = doc["spec"]["template"]["metadata"]["labels"]
        selector = doc["spec"]["selector"]["matchLabels"]
        report.check(selector.items() <= labels.items(), f"{at}: selects other pods than its own")
        worker = labels["app.kubernetes.io/component"] == "detect"
        report.same(spec["automountServiceAccountToken"], not worker, f"{at}: gets a token of the cluster")
        volumes = {volume["name"]: volume for volume in spec["volumes"]}
        claims = {claim["metadata"]["name"] for claim in doc["spec"].get("volumeClaimTemplates", [])}
        report.check(not claims & set(volumes), f"{at}: a volume stands twice")
        for volume in volumes.values():
            report.check("hostPath" not in volume, f"{at}: volume {volume['name']} is the node's")
            for source in volume.get("projected", {}).get("sources", []):
                data = maps.get(source["configMap"]["name"])
                report.check(data is not None, f"{at}: there is no ConfigMap {source['configMap']['name']}")
                keys = {item["key"] for item in source["configMap"].get("items", [])}
                report.check(keys <= set(data or {}), f"{at}: keys {keys} are not in {source['configMap']['name']}")
        for container in [*spec["containers"], *spec.get("initContainers", [])]:
            inner = container["securityContext"]
            report.same(inner["capabilities"], {"drop": ["ALL"]}, f"{at}: capabilities")
            report.check(inner["allowPrivilegeEscalation"] is False, f"{at}: may escalate privileges")
            report.check(inner["readOnlyRootFilesystem"] is True, f"{at}: its root can be written")
            report.check(inner["runAsNonRoot"] is True and not inner.get("privileged"), f"{at}: privileged")
            report.check(container["resources"]["requests"].keys() >= {"cpu", "memory"}, f"{at}: no requests")
            report.check("memory" in container["resources"]["limits"], f"{at}: no limit of memory")
            image = container["image"]
            report.check("/" not in image.split("@")[0] and ":" in image, f"{at}: image {image}")
            mounts = {mount["name"] for mount in container["volumeMounts"]}
            report.same(mounts, set(volumes) | claims, f"{at}: volumes and mounts")
            ports = {port["name"]: port["containerPort"] for port in container["ports"]}
            for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
                get = container[probe]["httpGet"]
                report.check(get["port"] in ports, f"{at}: {probe} asks a port that is not there")
            ready = container["readinessProbe"]["httpGet"]
            want = ("/metrics", 9090) if worker else ("/api/v1/health", 8080)
            report.same((ready["path"], ports[ready["port"]]), want, f"{at}: readiness")
            names = [variable["name"] for variable in container["env"]]
            report.same(len(names), len(set(names)), f"{at}: variables of one name")


def network(report: Report, name: str, docs: list[dict]) -> None:
    """Services reach pods, budgets leave room, policies hold everybody."""
    templates = [doc["spec"]["template"] for doc in docs if "template" in doc.get("spec", {})]

    def chosen(selector: dict) -> list[dict]:
        return [t for t in templates if selector.items() <= t["metadata"]["labels"].items()]

    for doc in docs:
        at, spec = f"{name}: {doc['kind']}/{doc['metadata']['name']}", doc.get("spec", {})
        if doc["kind"] == "Service":
            for pod in chosen(spec["selector"]):
                ports = {port["name"] for port in pod["spec"]["containers"][0]["ports"]}
                lost = [port["targetPort"] for port in spec["ports"] if port["targetPort"] not in ports]
                report.check(not lost, f"{at}: ports {lost} are on no pod")
            report.check(chosen(spec["selector"]), f"{at}: selects nothing")
        elif doc["kind"] == "PodDisruptionBudget":
            report.same(len(chosen(spec["selector"]["matchLabels"])), 1, f"{at}: workloads that it is for")
            report.check(spec.get("maxUnavailable") not in (None, 0, "0%"), f"{at}: stands in the way of every eviction")
        elif doc["kind"] == "NetworkPolicy":
            held = chosen(spec["podSelector"]["matchLabels"])
            report.same(len(held), len(templates), f"{at}: pods that it holds")
            report.same(sorted(spec["policyTypes"]), ["Egress", "Ingress"], f"{at}: types")
            report.check(all(rule.get("ports") for rule in spec["ingress"]), f"{at}: lets everything in")
        elif doc["kind"] == "HorizontalPodAutoscaler":
            target = spec["scaleTargetRef"]
            aim = one(docs, target["kind"], target["name"])
            report.check("replicas" not in aim["spec"], f"{at}: its target has a number of its own")
        elif doc["kind"] == "ServiceMonitor":
            want = spec["selector"]["matchLabels"]
            found = [d for d in docs if d["kind"] == "Service" and want.items() <= d["metadata"]["labels"].items()]
            ports = {port["name"] for service in found for port in service["spec"]["ports"]}
            report.check(len(found) == 1 and spec["endpoints"][0]["port"] in ports, f"{at}: scrapes nothing")
        if doc["kind"] == "StatefulSet":
            heads = [d for d in docs if d["kind"] == "Service" and d["spec"].get("clusterIP") == "None"]
            report.check(spec["serviceName"] in [d["metadata"]["name"] for d in heads], f"{at}: its headless service is not there")
