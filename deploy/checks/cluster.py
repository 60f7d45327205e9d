"""The chart against an API server: it takes every object, and gives the rights that are meant and no others.

Definitions of custom resources, roles and bindings are really made, in namespaces of their own, and taken away again;
everything else is sent with `--dry-run=server`.
"""

import json
import os
import re
import tempfile
import time

import yaml

from . import chart, expected
from .report import CHART, ROOT, Report, nightshift, run, tool

ME = f"nightshift-check-{os.getpid()}"
SHOP, OTHER = f"{ME}-shop", f"{ME}-other"
ACCOUNT = f"system:serviceaccount:{ME}:ns-nightshift"
# What every account may ask about itself, and what is public.
EVERYBODY = {
    ("authorization.k8s.io", "selfsubjectaccessreviews", "create"),
    ("authorization.k8s.io", "selfsubjectrulesreviews", "create"),
    ("authentication.k8s.io", "selfsubjectreviews", "create"),
}

RENDERED = {
    "read-only": {},
    "read-only, all that can be read": {
        "watch": {"secrets": True, "kubeletStats": True},
        "customResources": {"objectiveNamespaces": [SHOP]},
    },
    "some namespaces only": {"watch": {"scope": "namespaces", "namespaces": [SHOP], "clusterScoped": False}},
    "act": {"act": {"enabled": True, "namespaces": [SHOP]}},
    "act, everything": {
        "act": {"enabled": True, "namespaces": [SHOP], "nodes": True, "helmRollback": True, "deleteStuckPods": True}
    },
    "detect workers by lag": {**chart.RENDERS["detect workers by lag"], "replicas": 3, "serviceMonitor": {"enabled": True}},
    "with files": chart.RENDERS["with files"],
}

# What a scan with these rights cannot see.
SCANNED = {"read-only": {"secrets"}, "read-only, all that can be read": set()}

GOOD = {
    "playbook": {
        "kind": "Playbook",
        "spec": {
            "title": "Scale {cause}",
            "heals": ["traffic_surge", {"fault": "cpu_saturation", "kinds": ["workload"], "success_rate": 0.9}],
            "params": {"wanted": {"type": "int", "value": "replicas * 2", "min": 2, "max": 100}},
            "when": ["replicas < 10", "known(replicas)"],
            "steps": [
                {
                    "name": "scale",
                    "action": "scale_deployment",
                    "params": {"replicas": "wanted", "flag": True, "number": 3},
                    "expects": "replicas",
                    "risk": "low",
                    "estimated_impact": "none",
                    "canary": {"share": 0.3, "watch_secs": 10},
                }
            ],
            "verify": {"kpis": ["latency", {"family": "cpu", "expected_times": 2}], "deadline_secs": 120},
            "escalation": "team-a",
            "priority": "IMMEDIATE",
        },
    },
    "objective": {"kind": "ServiceObjective", "spec": {"target": {"name": "checkout"}, "objective": 99.9, "window": "30d"}},
    "policy": {"kind": "RemediationPolicy", "spec": {"rego": "package acme.hours\n\ndeny := set()\n", "tests": "package t\n"}},
    "incident": {"kind": "Incident", "spec": {"id": "0" * 32, "shortId": "INC-0001", "tenant": "default"}},
}
BAD = {
    "a step without a risk": ("playbook", lambda spec: spec["steps"][0].pop("risk")),
    "a risk that there is not": ("playbook", lambda spec: spec["steps"][0].update(risk="tiny")),
    "no steps": ("playbook", lambda spec: spec.update(steps=[])),
    "a misspelling": ("playbook", lambda spec: spec.update(heal=["x"])),
    "a deadline of a day": ("playbook", lambda spec: spec["steps"][0].update(deadline_secs=86400)),
    "an objective of 100 %": ("objective", lambda spec: spec.update(objective=100)),
    "an objective of nothing": ("objective", lambda spec: spec.pop("target")),
    "a window in years": ("objective", lambda spec: spec.update(window="1y")),
    "a policy without rules": ("policy", lambda spec: spec.pop("rego")),
    "an incident by its short form": ("incident", lambda spec: spec.update(id="INC-0001")),
}


class Kubectl:
    """kubectl against the cluster of the tests."""

    def __init__(self, program: list[str], config: str) -> None:
        self.command = [*program, "--kubeconfig", config]

    def __call__(self, *args: object, docs: list[dict] | None = None):
        # JSON is YAML, and what `--raw` wants.
        text = None if docs is None else "\n---\n".join(json.dumps(doc) for doc in docs)
        return run(*self.command, *args, text=text)


def sample(kind: str, change=None) -> dict:
    """An object of ours, as it should be or changed."""
    doc = json.loads(json.dumps(GOOD[kind]))
    if change:
        change(doc["spec"])
    return {"apiVersion": "nightshift.dev/v1alpha1", "metadata": {"name": kind, "namespace": ME}, **doc}


def definitions(report: Report, kubectl: Kubectl) -> bool:
    """The API server takes the definitions, objects that are right, and no others."""
    answer = kubectl("apply", "--server-side", "--field-manager=nightshift-check", "--force-conflicts", "-f", CHART / "crds")
    if not report.check(answer.returncode == 0, f"custom resources: {answer.stderr.strip()}"):
        return False
    names = [f"crd/{yaml.safe_load(file.read_text())['metadata']['name']}" for file in (CHART / "crds").glob("*.yaml")]
    answer = kubectl("wait", "--for=condition=Established", "--timeout=30s", *names)
    report.check(answer.returncode == 0, f"custom resources: {answer.stderr.strip()}")
    for name in names:
        said = kubectl("get", name, "--output=json")
        conditions = {c["type"]: c for c in json.loads(said.stdout)["status"]["conditions"]}
        odd = conditions.get("NonStructuralSchema", {}).get("message")
        report.check(not odd, f"{name}: {odd}")
    answer = kubectl("create", "--dry-run=server", "--validate=strict", "-f", "-", docs=[sample(kind) for kind in GOOD])
    report.check(answer.returncode == 0, f"objects as they should be are refused: {answer.stderr.strip()}")
    # Every playbook that ships can be handed over as an object.
    shipped = []
    for file in sorted((ROOT / "playbooks").glob("*.yaml")):
        spec = yaml.safe_load(file.read_text())
        meta = {"name": spec["name"].replace("_", "-"), "namespace": ME}
        shipped.append({"apiVersion": "nightshift.dev/v1alpha1", "kind": "Playbook", "metadata": meta, "spec": spec})
    report.check(len(shipped) > 10, "no playbooks were found")
    answer = kubectl("create", "--dry-run=server", "--validate=strict", "-f", "-", docs=shipped)
    report.check(answer.returncode == 0, f"playbooks that ship are refused as objects: {answer.stderr.strip()}")
    for what, (kind, change) in BAD.items():
        answer = kubectl("create", "--dry-run=server", "--validate=strict", "-f", "-", docs=[sample(kind, change)])
        report.check(answer.returncode != 0, f"{what}: is taken, and should be refused")
        at_fault = "invalid" in answer.stderr.lower() or "unknown field" in answer.stderr
        report.check(at_fault, f"{what}: refused for another reason: {answer.stderr.strip()}")
    table(report, kubectl)
    return True


def table(report: Report, kubectl: Kubectl) -> None:
    """`kubectl get incidents` shows what people need; what an incident is never changes."""
    kubectl("create", "-f", "-", docs=[sample("incident")])
    status = {
        "state": "awaiting_approval",
        "severity": "critical",
        "cause": {"fault": "crash_loop", "confidence": "87 %", "summary": "shop/checkout crashes since its new image"},
        "onset": "2026-01-01T00:00:00Z",
    }
    patch = json.dumps({"status": status})
    answer = kubectl("-n", ME, "patch", "incident", "incident", "--subresource=status", "--type=merge", "--patch", patch)
    report.check(answer.returncode == 0, f"status of an incident: {answer.stderr.strip()}")
    shown = kubectl("-n", ME, "get", "incidents").stdout.splitlines()
    report.check(shown and shown[0].split() == ["NAME", "ID", "SEVERITY", "STATUS", "CAUSE", "AGE"], f"columns: {shown[:1]}")
    row = shown[1] if len(shown) > 1 else ""
    wanted = ("INC-0001", "critical", "awaiting_approval", "shop/checkout crashes since its new image")
    report.check(all(text in row for text in wanted), f"row of `kubectl get incidents`: {row}")
    report.check(row and row.split()[-1] not in ("<none>", "<unknown>"), f"age in `kubectl get incidents`: {row}")
    change = json.dumps({"spec": {"tenant": "other"}})
    answer = kubectl("-n", ME, "patch", "incident", "incident", "--type=merge", "--patch", change)
    report.check("never changes" in answer.stderr, f"the spec of an incident was changed: {answer.stderr.strip()}")
    for bad in ({"state": "fine"}, {"severity": "severe"}):
        answer = kubectl(
            "-n", ME, "patch", "incident", "incident", "--subresource=status", "--type=merge", "--patch", json.dumps({"status": bad})
        )
        report.check("Unsupported value" in answer.stderr, f"a status of {bad} is taken")


def rules(kubectl: Kubectl, namespace: str) -> set[tuple[str, str, str]] | str:
    """All that the account may in a namespace, as the API server says; or why it does not say."""
    review = {"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectRulesReview", "spec": {"namespace": namespace}}
    # Raw: kubectl's own validation would look at definitions, which the account may not be allowed to.
    reviews = "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews"
    answer = kubectl(f"--as={ACCOUNT}", "create", "--raw", reviews, "-f", "-", docs=[review])
    if answer.returncode:
        return answer.stderr.strip()
    status = json.loads(answer.stdout)["status"]
    if status.get("incomplete"):
        return f"incomplete: {status.get('evaluationError')}"
    return {
        (group, resource, verb)
        for rule in status["resourceRules"]
        for group in rule.get("apiGroups", [])
        for resource in rule.get("resources", [])
        for verb in rule["verbs"]
    } - EVERYBODY


def rights(report: Report, kubectl: Kubectl, name: str, values: dict, docs: list[dict]) -> None:
    """Makes the account with its roles and asks the API server what it may; then tries what it must not."""
    docs = [doc for doc in docs if doc["kind"] in ("ServiceAccount", "Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding")]
    answer = kubectl("apply", "-f", "-", docs=docs)
    if not report.check(answer.returncode == 0, f"{name}: roles: {answer.stderr.strip()}"):
        return
    watch, acting = values["watch"], values["act"]
    everywhere = expected.read_namespaced(watch) if watch["scope"] == "cluster" else set()
    if watch["scope"] == "cluster" or watch["clusterScoped"]:
        everywhere |= expected.read_cluster(watch)
    if acting["nodes"]:
        everywhere |= expected.ACT_NODES
    shop = set(everywhere)
    if watch["scope"] == "namespaces":
        shop |= expected.read_namespaced(watch)
    if acting["enabled"]:
        shop |= expected.act(acting)
    if SHOP in values["customResources"]["objectiveNamespaces"]:
        shop |= expected.OWN_OBJECTIVES
    own = everywhere | expected.OWN_LEASES | expected.OWN_RESOURCES
    for namespace, want in ((OTHER, everywhere), (SHOP, shop), (ME, own)):
        # The authorizer learns of roles by a watch of its own.
        have: object = "nobody asked"
        for _ in range(20):
            have = rules(kubectl, namespace)
            if have == want:
                break
            time.sleep(0.25)
        if report.check(isinstance(have, set), f"{name}: what the account may in {namespace}: {have}"):
            report.check(have <= want, f"{name}: in {namespace} the API server allows too much: {sorted(have - want)}")
            report.check(want <= have, f"{name}: in {namespace} the API server refuses: {sorted(want - have)}")
    if name in SCANNED:
        scan(report, kubectl, name, SCANNED[name])
    if name in ("read-only", "act, everything"):
        deeds(report, kubectl, name, acting["enabled"])
    kubectl("delete", "--ignore-not-found", "--wait=false", "-f", "-", docs=docs)


def scan(report: Report, kubectl: Kubectl, name: str, unseen: set[str]) -> None:
    """The program itself, with these rights and no others: it sees all but what was kept from it, and says so."""
    binary = nightshift()
    if not binary or run(binary, "k8s", "scan", "--help").returncode:
        report.skip(f"{name}: scan with the chart's rights: {binary or 'no program'} cannot scan")
        return
    token = kubectl("-n", ME, "create", "token", "ns-nightshift").stdout.strip()
    config = json.loads(kubectl("config", "view", "--raw", "--flatten", "--minify", "--output=json").stdout)
    config["users"] = [{"name": "account", "user": {"token": token}}]
    config["contexts"][0]["context"]["user"] = "account"
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(config, file)
        file.flush()
        answer = run(binary, "k8s", "scan", "--kubeconfig", file.name, "--json")
    report.check(answer.returncode in (0, 3), f"{name}: scan: {answer.stderr.strip()}")
    report.same(set(re.findall(r"cannot see (.+?): ", answer.stderr)), unseen, f"{name}: what the scan cannot see")


def deeds(report: Report, kubectl: Kubectl, name: str, acts: bool) -> None:
    """What it does is taken or refused by the API server itself."""
    annotate = '{"metadata":{"annotations":{"nightshift.dev/check":"1"}}}'

    def tried(*args: object) -> str:
        answer = kubectl(f"--as={ACCOUNT}", *args)
        return "done" if answer.returncode == 0 else "refused" if "forbidden" in answer.stderr.lower() else answer.stderr.strip()

    patch = ("patch", "deployment", "web", "--dry-run=server", "--patch", annotate)
    report.same(tried("-n", SHOP, *patch), "done" if acts else "refused", f"{name}: a patch where it may act")
    for what, args in {
        "a patch elsewhere": ("-n", OTHER, *patch),
        "a patch in its own namespace": ("-n", ME, "patch", "deployment", "web", "--dry-run=server", "--patch", annotate),
        "a deletion": ("-n", SHOP, "delete", "deployment", "web", "--dry-run=server"),
        "an exec": ("create", "-f", "/dev/null", "--raw", f"/api/v1/namespaces/{SHOP}/pods/web-0/exec?command=true&stdout=1"),
        "a namespace deleted": ("delete", "namespace", SHOP, "--dry-run=server"),
        "a namespace changed": ("patch", "namespace", SHOP, "--dry-run=server", "--patch", annotate),
        "a role for itself": ("create", "clusterrolebinding", ME, "--clusterrole=cluster-admin", f"--user={ACCOUNT}", "--dry-run=server"),
        "a token": ("-n", ME, "create", "token", "ns-nightshift"),
        "a definition": ("delete", "crd", "incidents.nightshift.dev", "--dry-run=server"),
    }.items():
        report.same(tried(*args), "refused", f"{name}: {what}")


def life(report: Report, kubectl: Kubectl, helm: str, config: str, pods_run: bool) -> None:
    """Helm installs it, widens it, takes that back, and leaves nothing behind but the data."""
    release = ("inst", CHART, "--namespace", ME, "--kubeconfig", config, *(("--wait", "--timeout", "90s") if pods_run else ()))
    acting = ("--set", "act.enabled=true", "--set", f"act.namespaces={{{SHOP}}}", "--set", "act.nodes=true")

    def names(kind: str, *where: str) -> list[str]:
        listed = kubectl(*where, "get", kind, "--selector=app.kubernetes.io/instance=inst", "--output=name").stdout.split()
        return [name for name in listed if ME in name or where]

    for what, command, bound in (
        ("install", ("install", *release), False),
        ("widen", ("upgrade", *release, *acting), True),
        # Without it Helm keeps the values of before.
        ("narrow", ("upgrade", *release, "--reset-values"), False),
    ):
        answer = run(helm, *command)
        report.check(answer.returncode == 0, f"helm, {what}: {answer.stderr.strip()}")
        report.same(len(names("rolebinding", "-n", SHOP)), int(bound), f"helm, {what}: bindings where it may act")
        report.same(len(names("clusterrolebinding")), 2 if bound else 1, f"helm, {what}: bindings in all namespaces")
    if pods_run:
        ready = kubectl("-n", ME, "get", "statefulset", "inst-nightshift", "--output=jsonpath={.status.readyReplicas}").stdout
        report.same(ready, "1", "helm: pods that are ready")
        budget = kubectl("-n", ME, "get", "pdb", "inst-nightshift", "--output=jsonpath={.status.disruptionsAllowed}").stdout
        report.same(budget, "1", "helm: pods that a drain may take away")
    answer = run(helm, "uninstall", "inst", "--namespace", ME, "--kubeconfig", config)
    report.check(answer.returncode == 0, f"helm, uninstall: {answer.stderr.strip()}")
    left = names("clusterrole,clusterrolebinding") + names("all,role,rolebinding,configmap,networkpolicy,pdb", "-n", ME)
    report.check(not [name for name in left if not name.startswith("pod/")], f"helm, uninstall: leaves {left}")
    kept = kubectl("-n", ME, "get", "pvc", "--output=name").stdout.split()
    report.same(kept, ["persistentvolumeclaim/data-inst-nightshift-0"], "helm, uninstall: data that is kept")


def start(report: Report) -> None:
    """Checks the chart against the cluster of NIGHTSHIFT_TEST_KUBECONFIG."""
    config, helm = os.environ.get("NIGHTSHIFT_TEST_KUBECONFIG"), tool("NIGHTSHIFT_TEST_HELM", "helm")
    all_in_one, plain = os.environ.get("NIGHTSHIFT_TEST_KUBE"), tool("NIGHTSHIFT_TEST_KUBECTL", "kubectl")
    program = [all_in_one, "kubectl"] if all_in_one else [plain] if plain else None
    for missing, what in ((config, "no cluster (NIGHTSHIFT_TEST_KUBECONFIG)"), (helm, "no helm"), (program, "no kubectl")):
        if not missing:
            report.skip(f"chart against a cluster: there is {what}; `testenv/up kubernetes` brings it")
            return
    kubectl = Kubectl(program, config)
    present = kubectl("get", "crd", "--output=name").stdout
    try:
        for namespace in (ME, SHOP, OTHER):
            answer = kubectl("create", "namespace", namespace)
            if not report.check(answer.returncode == 0, f"make namespace {namespace}: {answer.stderr.strip()}"):
                return
        # Says of each workload whether its pods meet the standard.
        kubectl("label", "namespace", ME, "pod-security.kubernetes.io/warn=restricted")
        for namespace in (ME, SHOP, OTHER):
            kubectl("-n", namespace, "create", "deployment", "web", "--image=web", "--replicas=0")
        if not definitions(report, kubectl):
            return
        defaults = yaml.safe_load((CHART / "values.yaml").read_text())
        for name, over in RENDERED.items():
            answer = chart.template(helm, over, "--namespace", ME)
            if not report.check(answer.returncode == 0, f"{name}: helm template: {answer.stderr.strip()}"):
                continue
            docs = [doc for doc in yaml.safe_load_all(answer.stdout) if doc]
            if "servicemonitors.monitoring.coreos.com" not in present:
                docs = [doc for doc in docs if doc["kind"] != "ServiceMonitor"]
            answer = kubectl("create", "--dry-run=server", "--validate=strict", "-f", "-", docs=docs)
            report.check(answer.returncode == 0, f"{name}: the API server refuses: {answer.stderr.strip()}")
            report.check("would violate" not in answer.stderr, f"{name}: pod security: {answer.stderr.strip()}")
            if "detect" not in name and "files" not in name:
                rights(report, kubectl, name, chart.merged(defaults, over), docs)
        # In the control plane of the tests pods run at once, whatever their image.
        life(report, kubectl, helm, config, pods_run=bool(all_in_one))
    finally:
        kubectl("delete", "namespace", ME, SHOP, OTHER, "--ignore-not-found", "--wait=false")
        if all_in_one:
            # Other tests may use the definitions by now, and the control plane is thrown away.
            return
        for file in sorted((CHART / "crds").glob("*.yaml")):
            name = yaml.safe_load(file.read_text())["metadata"]["name"]
            if f"/{name}" not in present:
                kubectl("delete", "crd", name, "--ignore-not-found", "--wait=false")
