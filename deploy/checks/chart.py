"""The chart: lint, templates over a matrix of values, and what every rendering must hold."""

import functools
import json
import re
import tempfile
from pathlib import Path

import yaml

from . import expected, objects
from .report import CHART, ROOT, Report, nightshift, run, tool

try:
    import tomllib
except ImportError:  # Python before 3.11
    tomllib = None

NAMESPACE = "night"

SHARED = {
    "bus": {"type": "kafka", "kafka": {"bootstrapServers": "kafka-0.kafka:9092, kafka-1.kafka:9094"}},
    "store": {"type": "postgres", "postgres": {"existingSecret": "db"}},
}
ACT = {"act": {"enabled": True, "namespaces": ["shop", "123"]}}

# Name: values that render.
RENDERS = {
    "read-only": {},
    "read-only, all that can be read": {
        "watch": {"secrets": True, "kubeletStats": True},
        "customResources": {"objectiveNamespaces": ["shop", NAMESPACE]},
    },
    "read-only, little": {
        "watch": {"podLogs": False, "metrics": False, "customResources": False},
        "customResources": {"enabled": False},
        "leaderElection": {"enabled": False},
        "networkPolicy": {"enabled": False},
        "podDisruptionBudget": {"enabled": False},
        "persistence": {"enabled": False},
        "otlp": {"enabled": False},
    },
    "some namespaces": {"watch": {"scope": "namespaces", "namespaces": ["shop", "pay"]}},
    "some namespaces only": {"watch": {"scope": "namespaces", "namespaces": ["shop"], "clusterScoped": False, "secrets": True}},
    "act": ACT,
    "act by policy": {"act": {**ACT["act"], "approval": "policy"}},
    "act on nodes": {"act": {**ACT["act"], "nodes": True}},
    "act, Helm": {"act": {**ACT["act"], "helmRollback": True}},
    "act, stuck pods": {"act": {**ACT["act"], "deleteStuckPods": True}},
    "act, some namespaces": {"watch": {"scope": "namespaces", "namespaces": ["shop", "123", "pay"]}, **ACT},
    "act, everything": {"act": {"enabled": True, "namespaces": ["shop"], "nodes": True, "helmRollback": True, "deleteStuckPods": True}},
    "shared": {**SHARED, "replicas": 3},
    "detect workers": {**SHARED, "detect": {"autoscaling": {"enabled": True}}, "serviceMonitor": {"enabled": True}},
    "detect workers by lag": {
        **SHARED,
        "detect": {"autoscaling": {"enabled": True, "busLag": {"enabled": True}}, "persistence": {"enabled": False}},
    },
    "with login": {
        "bus": {
            "type": "kafka",
            "kafka": {
                "bootstrapServers": "kafka:9093",
                "tls": {"enabled": True, "existingSecret": "kafka-tls", "clientCertificate": True},
                "sasl": {"mechanism": "SCRAM-SHA-512", "username": "night", "existingSecret": "kafka-login"},
            },
        },
        "store": SHARED["store"],
    },
    "with files": {
        "topology": "services:\n  - name: checkout\n",
        "playbooks": {"mine.yaml": "name: mine\ntitle: t\n"},
        "policies": {"mine.rego": "package mine\n"},
        "secretEnv": {"ONCALL_URL": {"secret": "oncall", "key": "url"}},
        "config": {
            "tell": {"notifiers": {"oncall": {"type": "webhook", "url": {"env": "ONCALL_URL"}}}},
            "guard": {"confidence_min": 0.9, "windows": [{"name": "week \"end\"", "days": ["sat"], "from": "00:00", "to": "24:00"}]},
            "bus": {"retention_bytes": 6442450944},
            "ingest": {"resolve": {"aliases": {"a.b": "c"}}},
        },
    },
    "several clusters": {
        "cluster": "home",
        "watch": {"namespacesDenied": ["kube-system"], "kubeconfig": {"existingSecret": "clusters", "contexts": ["east", "west"]}},
    },
    "OpenShift": {"runAsUser": None, "runAsGroup": None, "fsGroup": None},
}

# Name: values that must be refused, and what the refusal has to say.
REFUSED = {
    "act without namespaces": ({"act": {"enabled": True}}, "act.enabled needs act.namespaces"),
    "act everywhere": ({"act": {"enabled": True, "namespaces": ["*"]}}, "act/namespaces"),
    "act in the cluster's own": ({"act": {"enabled": True, "namespaces": ["kube-system"]}}, "kube-system"),
    "nodes without act": ({"act": {"nodes": True}}, "act.nodes needs act.enabled"),
    "Helm without act": ({"act": {"helmRollback": True}}, "act.helmRollback needs act.enabled"),
    "stuck pods without act": ({"act": {"deleteStuckPods": True}}, "act.deleteStuckPods needs act.enabled"),
    "act where it does not look": ({"watch": {"namespaces": ["pay"]}, **ACT}, "not among watch.namespaces"),
    "act where it must not look": ({"watch": {"namespacesDenied": ["shop"]}, **ACT}, "watch.namespacesDenied"),
    "nodes by a part of the cluster": (
        {"watch": {"scope": "namespaces", "namespaces": ["shop"]}, "act": {"enabled": True, "namespaces": ["shop"], "nodes": True}},
        "act.nodes needs watch.scope",
    ),
    "no namespaces to watch": ({"watch": {"scope": "namespaces"}}, "needs watch.namespaces"),
    "workers on the embedded bus": ({"detect": {"autoscaling": {"enabled": True}}}, "needs bus.type kafka and store.type postgres"),
    "workers without PostgreSQL": (
        {"bus": SHARED["bus"], "detect": {"autoscaling": {"enabled": True}}},
        "needs bus.type kafka and store.type postgres",
    ),
    "workers without Kafka": (
        {"store": SHARED["store"], "detect": {"autoscaling": {"enabled": True}}},
        "needs bus.type kafka and store.type postgres",
    ),
    "replicas on the embedded bus": ({"replicas": 2}, "needs bus.type kafka"),
    "replicas without a leader": ({**SHARED, "replicas": 2, "leaderElection": {"enabled": False}}, "leaderElection"),
    "fewer than fewest": (
        {**SHARED, "detect": {"autoscaling": {"enabled": True, "minReplicas": 9, "maxReplicas": 3}}},
        "minReplicas is above maxReplicas",
    ),
    "Kafka nowhere": ({"bus": {"type": "kafka"}}, "bus.kafka.bootstrapServers"),
    "PostgreSQL nowhere": ({"store": {"type": "postgres"}}, "store.postgres.existingSecret"),
    "a login without a password": (
        {"bus": {"type": "kafka", "kafka": {"bootstrapServers": "k:9092", "sasl": {"mechanism": "PLAIN"}}}},
        "bus.kafka.sasl.username",
    ),
    "a budget of none": ({"podDisruptionBudget": {"maxUnavailable": 0}}, "maxUnavailable"),
    "as root": ({"runAsUser": 0}, "runAsUser"),
    "a misspelling": ({"act": {"namespace": ["shop"]}}, "namespace"),
    "a misspelling at the top": ({"replica": 1}, "replica"),
    "an unknown bus": ({"bus": {"type": "nats"}}, "bus/type"),
}


# What a chart that nobody has configured must be.
SAFE = {
    "act.enabled": False,
    "act.namespaces": [],
    "act.approval": "always",
    "act.nodes": False,
    "act.helmRollback": False,
    "act.deleteStuckPods": False,
    "watch.secrets": False,
    "watch.kubeletStats": False,
    "networkPolicy.enabled": True,
    "podDisruptionBudget.enabled": True,
    "leaderElection.enabled": True,
    "serviceMonitor.enabled": False,
    "detect.autoscaling.enabled": False,
    "detect.autoscaling.minReplicas": 2,
    "detect.autoscaling.maxReplicas": 10,
    "detect.autoscaling.cpuPercent": 60,
    "bus.type": "embedded",
    "store.type": "sqlite",
    "replicas": 1,
}


def merged(base: dict, over: dict) -> dict:
    """As Helm merges values."""
    out = dict(base)
    for key, value in over.items():
        out[key] = merged(out[key], value) if isinstance(value, dict) and isinstance(out.get(key), dict) else value
    return out


def template(helm: str, values: dict, *more: object):
    """`helm template` with these values."""
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        yaml.safe_dump(values, file)
        file.flush()
        return run(helm, "template", "ns", CHART, "--namespace", NAMESPACE, "--values", file.name, *more)


def schema_leaves(schema: dict, path: tuple[str, ...] = ()) -> set[tuple[str, ...]]:
    """Every value that a schema knows: a map without named members is one value."""
    properties = schema.get("properties")
    if not properties:
        return {path}
    return set().union(*(schema_leaves(inner, (*path, key)) for key, inner in properties.items()))


def schema_is_whole(report: Report, values: dict) -> None:
    """Every value has a schema, every schema a default, and nothing else is let in."""
    schema = json.loads((CHART / "values.schema.json").read_text())
    free = {"global"}
    optional = {"initialDelaySeconds", "periodSeconds", "timeoutSeconds", "failureThreshold", "successThreshold"}
    optional |= {"terminationGracePeriodSeconds", "claims", "requests", "limits"}
    for path in sorted(schema_leaves(schema)):
        node, there = values, True
        for key in path:
            there = isinstance(node, dict) and key in node
            node = node.get(key) if there else None
            if not there:
                break
        report.check(
            there or path[0] in free or (len(path) > 1 and path[-1] in optional),
            f"values.schema.json: {'.'.join(path)} has no default in values.yaml",
        )

    def closed(node: dict, path: str) -> None:
        if "properties" in node:
            report.check(node.get("additionalProperties") is False, f"values.schema.json: {path} lets misspellings in")
            for key, inner in node["properties"].items():
                closed(inner, f"{path}.{key}".lstrip("."))

    closed(schema, "")


def config_is_right(report: Report, name: str, values: dict, docs: list[dict], binary: str | None) -> None:
    """The configuration says what the values say, and the program takes it."""
    text = objects.one(docs, "ConfigMap", "ns-nightshift")["data"]["nightshift.toml"]
    if tomllib:
        config = tomllib.loads(text)
        acts = values["act"]["enabled"]
        report.same(config["guard"]["dry_run"], not acts, f"{name}: guard.dry_run")
        report.check("auth" in config, f"{name}: listeners beyond loopback without [auth]")
        asks = acts and values["act"]["approval"] == "always"
        want = values["config"].get("guard", {}).get("confidence_min", 1 if asks else None)
        report.same(config["guard"].get("confidence_min"), want, f"{name}: guard.confidence_min")
        limits = config["guard"].get("limits", {}).get("namespaces")
        report.same(limits, values["act"]["namespaces"] if acts else None, f"{name}: guard.limits.namespaces")
        watch, source = values["watch"], config["sources"]["kubernetes"]
        have = {key: source.get(key) for key in ("secrets", "logs", "metrics")}
        report.same(have, {"secrets": watch["secrets"], "logs": watch["podLogs"], "metrics": watch["metrics"]}, f"{name}: source")
        rules = source.get("namespaces", {"allow": [], "deny": []})
        report.same(rules, {"allow": watch["namespaces"], "deny": watch["namespacesDenied"]}, f"{name}: namespaces of the source")
        report.same(source.get("shard", {"of": 1}), {"of": values["replicas"]}, f"{name}: shares of the source")
        contexts = [cluster["context"] for cluster in source.get("clusters", [])]
        others = watch["kubeconfig"]["contexts"]
        report.same(contexts, ["", *others] if others else [], f"{name}: clusters of the source")
        for section, keys in values["config"].items():
            report.check(contains(config.get(section), keys), f"{name}: config.{section} is not in the configuration as given")
    for secret in ("password =", "password=", "://night"):
        report.check(secret not in text.replace("password = { env", ""), f"{name}: a secret stands in the configuration")
    if not binary:
        return
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "nightshift.toml"
        file.write_text(text.replace('folder = "playbooks"', 'folder = ""').replace('folder = "policies"', 'folder = ""'))
        (Path(folder) / "topology.yaml").write_text(values["topology"])
        env = {"NIGHTSHIFT_STORE_URL": "postgres://u:p@db/n", "NIGHTSHIFT_KAFKA_PASSWORD": "p", "ONCALL_URL": "https://x.example/"}
        # Files that only the pod has.
        file.write_text(file.read_text().replace("/etc/nightshift-kafka/", f"{folder}/"))
        for pem in ("ca.crt", "tls.crt", "tls.key"):
            (Path(folder) / pem).write_text("")
        answer = run(binary, "check", "--config", file, env=env)
        # A build without Kubernetes knows neither its source nor its actuator; all else it judges.
        lines = [line.strip() for line in answer.stderr.splitlines() if line.startswith("  line ")]
        unknown = [line for line in lines if ".kubernetes" in line and '"kubernetes" is not' in line or "without Kubernetes" in line]
        if unknown and name == "read-only":
            report.skip(f"Kubernetes sections of the configuration: {binary} is a build without: {unknown[0]}")
        bad = answer.returncode != 0 and (not unknown or len(unknown) < len(lines))
        report.check(not bad, f"{name}: `nightshift check` refuses the configuration: {answer.stderr.strip()}")


def contains(have: object, want: object) -> bool:
    """Whether a map has all of another one."""
    if isinstance(want, dict):
        return isinstance(have, dict) and all(contains(have.get(key), value) for key, value in want.items())
    return have == want


def rights_are_exact(report: Report, name: str, values: dict, docs: list[dict]) -> None:
    """Each role gives exactly what is written down in `expected`, to our account, where it should."""
    rights = objects.rights_of(docs, "ns-nightshift", NAMESPACE)
    watch, acting = values["watch"], values["act"]
    want: dict[str, set] = {}
    wide = watch["scope"] == "cluster"
    everywhere = expected.read_namespaced(watch) if wide else set()
    if wide or watch["clusterScoped"]:
        everywhere |= expected.read_cluster(watch)
    if acting["nodes"]:
        everywhere |= expected.ACT_NODES
    if everywhere:
        want[objects.EVERYWHERE] = everywhere
    if not wide:
        for namespace in watch["namespaces"]:
            want.setdefault(namespace, set()).update(expected.read_namespaced(watch))
    if acting["enabled"]:
        for namespace in acting["namespaces"]:
            want.setdefault(namespace, set()).update(expected.act(acting))
    own = set()
    if values["leaderElection"]["enabled"]:
        own |= expected.OWN_LEASES
    if values["customResources"]["enabled"]:
        own |= expected.OWN_RESOURCES
        for namespace in values["customResources"]["objectiveNamespaces"]:
            if namespace != NAMESPACE:
                want.setdefault(namespace, set()).update(expected.OWN_OBJECTIVES)
    if own:
        want.setdefault(NAMESPACE, set()).update(own)
    for where in sorted(set(want) | set(rights)):
        have, should = rights.get(where, set()), want.get(where, set())
        report.check(have <= should, f"{name}: in {where} rights too many: {sorted(have - should)}")
        report.check(should <= have, f"{name}: in {where} rights too few: {sorted(should - have)}")
    for where, bindings in objects.writing_bindings(docs).items():
        report.same(len(bindings), 1, f"{name}: bindings that let it change things in {where} ({', '.join(bindings)})")
    urls = [rule for doc in docs for rule in doc.get("rules") or [] if "nonResourceURLs" in rule]
    report.same(urls, [], f"{name}: rights on URLs")


def run_matrix(report: Report, helm: str) -> None:
    defaults = yaml.safe_load((CHART / "values.yaml").read_text())
    for path, want in SAFE.items():
        report.same(functools.reduce(dict.__getitem__, path.split("."), defaults), want, f"values.yaml: {path}")
    schema_is_whole(report, defaults)
    binary = nightshift()
    if not binary:
        report.skip("configuration of the chart: no program is built (make build, or NIGHTSHIFT_BIN)")
    for name, over in RENDERS.items():
        answer = template(helm, over)
        if not report.check(answer.returncode == 0, f"{name}: helm template: {answer.stderr.strip()}"):
            continue
        docs = [doc for doc in yaml.safe_load_all(answer.stdout) if doc]
        values = merged(defaults, over)
        rights_are_exact(report, name, values, docs)
        config_is_right(report, name, values, docs, binary)
        objects.check(report, name, docs, NAMESPACE)
        workers = [doc for doc in docs if doc["kind"] == "HorizontalPodAutoscaler"]
        report.same(len(workers), int(values["detect"]["autoscaling"]["enabled"]), f"{name}: autoscalers")
        for hpa in workers:
            spec = hpa["spec"]
            report.same((spec["minReplicas"], spec["maxReplicas"]), (2, 10), f"{name}: bounds of the autoscaler")
            report.same(spec["metrics"][0]["resource"]["target"]["averageUtilization"], 60, f"{name}: CPU of the autoscaler")
            lag = values["detect"]["autoscaling"]["busLag"]["enabled"]
            report.same(len(spec["metrics"]), 2 if lag else 1, f"{name}: metrics of the autoscaler")
    for name, (over, says) in REFUSED.items():
        answer = template(helm, over)
        said = answer.stderr.replace(".", "/") if "/" in says else answer.stderr
        report.check(answer.returncode != 0, f"{name}: is rendered, and should be refused")
        report.check(says in said or says in answer.stderr, f"{name}: the refusal does not say `{says}`: {answer.stderr.strip()}")


def sight_is_whole(report: Report) -> None:
    """What the program watches may be read, and nothing is read that nobody looks at."""
    everything = {"podLogs": True, "metrics": False, "secrets": True, "kubeletStats": False, "customResources": True}
    rights = expected.read_namespaced(everything) | expected.read_cluster(everything)
    readable = {(group, resource) for group, resource, verb in rights if verb == "list"}
    watched = expected.tables()
    report.check(len(watched) > 50, f"only {len(watched)} kinds were read from crates/cluster: has the form of its lists changed?")
    report.check(watched <= readable, f"watched, and not to be read with the chart's rights: {sorted(watched - readable)}")
    spare = readable - watched - expected.NO_TABLE
    report.check(not spare, f"may be read, and nobody looks at it: {sorted(spare)}")


def run_lint(report: Report, helm: str) -> None:
    for name in ("read-only", "act, everything", "detect workers by lag"):
        with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
            yaml.safe_dump(RENDERS[name], file)
            file.flush()
            answer = run(helm, "lint", CHART, "--strict", "--values", file.name)
            report.check(answer.returncode == 0, f"helm lint, {name}: {answer.stdout.strip()} {answer.stderr.strip()}")


def definitions(report: Report) -> None:
    """The custom resources by form; whether an API server takes them is asked in `cluster`."""
    names = set()
    for file in sorted((CHART / "crds").glob("*.yaml")):
        doc = yaml.safe_load(file.read_text())
        names.add(doc["spec"]["names"]["kind"])
        report.same(doc["metadata"]["name"], f"{doc['spec']['names']['plural']}.{doc['spec']['group']}", f"{file.name}: name")
        version = doc["spec"]["versions"][0]
        report.same((doc["spec"]["group"], version["name"]), ("nightshift.dev", "v1alpha1"), f"{file.name}: group and version")
        report.check("status" in version["subresources"], f"{file.name}: no status subresource")
        report.check("status" in version["schema"]["openAPIV3Schema"]["properties"], f"{file.name}: no status")
        report.check(version.get("additionalPrinterColumns"), f"{file.name}: nothing to print")
    report.same(names, {"Playbook", "ServiceObjective", "RemediationPolicy", "Incident"}, "custom resources")
    columns = yaml.safe_load((CHART / "crds" / "incidents.yaml").read_text())["spec"]["versions"][0]["additionalPrinterColumns"]
    shown = [column["name"] for column in columns if not column.get("priority")]
    report.same(shown, ["ID", "Severity", "Status", "Cause", "Age"], "columns of `kubectl get incidents`")
    words_are_ours(report)


def words_are_ours(report: Report) -> None:
    """Keys and words of the definitions are those of the program."""
    schema = {file.stem: yaml.safe_load(file.read_text())["spec"]["versions"][0]["schema"] for file in (CHART / "crds").glob("*.yaml")}
    spec = schema["playbooks"]["openAPIV3Schema"]["properties"]["spec"]["properties"]
    step = spec["steps"]["items"]["properties"]
    source = (ROOT / "crates" / "plan" / "src" / "read" / "keys.rs").read_text()
    for name, have in (
        ("TOP", spec),
        ("PARAM", spec["params"]["additionalProperties"]["properties"]),
        ("STEP", step),
        ("CANARY", step["canary"]["properties"]),
        ("VERIFY", spec["verify"]["properties"]),
    ):
        listed = re.search(rf"const {name}: &\[&str\] =\s*&\[(.*?)\];", source, re.S)
        want = set(re.findall(r'"(\w+)"', listed.group(1))) if listed else set()
        report.same(set(have), want, f"playbooks.yaml: keys {name} of crates/plan/src/read/keys.rs")
    status = schema["incidents"]["openAPIV3Schema"]["properties"]["status"]["properties"]
    model = ROOT / "crates" / "model" / "src"
    for file, kind, have in (
        ("incident.rs", "IncidentStatus", status["state"]["enum"]),
        ("severity.rs", "Severity", status["severity"]["enum"]),
        ("action.rs", "Operation", status["lastAction"]["properties"]["operation"]["enum"]),
        ("action.rs", "ActionOutcome", status["lastAction"]["properties"]["outcome"]["enum"]),
        ("verdict.rs", "Decision", status["plan"]["properties"]["verdict"]["enum"]),
    ):
        body = (model / file).read_text().split(f"impl {kind} {{", 1)[-1].split("as_str", 1)[-1].split("\n    }\n", 1)[0]
        report.same(set(have), set(re.findall(r'Self::\w+ => "(\w+)"', body)), f"incidents.yaml: words of {kind}")


def start(report: Report) -> None:
    """Checks the chart."""
    definitions(report)
    sight_is_whole(report)
    helm = tool("NIGHTSHIFT_TEST_HELM", "helm")
    if not helm:
        report.skip("chart: there is no helm; `testenv/up kubernetes` builds one and sets NIGHTSHIFT_TEST_HELM")
        return
    run_lint(report, helm)
    run_matrix(report, helm)
