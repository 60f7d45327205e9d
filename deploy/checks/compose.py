"""The compose project by form: it parses, starts in an order of health, and what stands in its files is right."""

import json
import os
import re
import tempfile
from pathlib import Path

import yaml

from .image import is_neutral
from .report import DEPLOY, ROOT, Report, nightshift, run, tool

HERE = DEPLOY / "compose"
PARTS = {"nightshift", "kafka", "postgres", "prometheus", "grafana", "mail"}


def filled(text: str) -> str:
    """`${NAME:-value}` as it is where NAME is not set."""
    return re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", text)


def project(report: Report) -> dict:
    text = (HERE / "compose.yaml").read_text()
    bare = re.findall(r"\$\{\w+\}|\$\w+", text)
    report.check(not bare, f"compose.yaml: {bare} have no default")
    doc = yaml.safe_load(filled(text))
    services = doc["services"]
    report.same(set(services), PARTS, "compose.yaml: services")
    for name, service in services.items():
        at = f"compose.yaml: {name}"
        report.check(is_neutral(service["image"]), f"{at}: image `{service['image']}` has no tag, or names a registry")
        test = service.get("healthcheck", {}).get("test", [])
        report.check(len(test) >= 2 and test[0] in ("CMD", "CMD-SHELL"), f"{at}: no health check")
        for key in ("interval", "timeout", "retries", "start_period"):
            report.check(key in service.get("healthcheck", {}), f"{at}: health check without {key}")
        for needed, how in service.get("depends_on", {}).items():
            report.check(needed in services, f"{at}: needs {needed}, which is not there")
            report.same(how, {"condition": "service_healthy"}, f"{at}: how it waits for {needed}")
        for port in service.get("ports", []):
            report.check(str(port).startswith("127.0.0.1:"), f"{at}: port {port} is open to other machines")
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            there = (HERE / source).exists() if source.startswith(".") else source in doc["volumes"]
            report.check(there, f"{at}: volume {source} is not there")
        for secret in service.get("secrets", []):
            report.check(secret in doc["secrets"], f"{at}: secret {secret} is not there")
        for key, value in service.get("environment", {}).items():
            secret = re.search(r"PASSWORD|SECRET|TOKEN", key) and not key.endswith("_FILE")
            report.check(not secret, f"{at}: {key} stands in the file")
            report.check(isinstance(value, str), f"{at}: {key} is no text")
        report.check(not service.get("privileged"), f"{at}: privileged")
    order(report, services)
    ours = services["nightshift"]
    report.check({"kafka", "postgres"} <= set(ours["depends_on"]), "compose.yaml: nightshift does not wait for Kafka and PostgreSQL")
    report.check(ours["read_only"] and ours["cap_drop"] == ["ALL"], "compose.yaml: nightshift may do more than it needs")
    dockerfile = HERE / ours["build"]["context"] / ours["build"]["dockerfile"]
    report.check(dockerfile.exists(), f"compose.yaml: there is no {dockerfile}")
    made = set(re.findall(r"^keep (\w+)", (HERE / "prepare").read_text(), re.M))
    report.same(made, set(doc["secrets"]), "secrets that `prepare` makes")
    return doc


def order(report: Report, services: dict) -> None:
    """Nothing waits for itself."""
    done: set[str] = set()
    while len(done) < len(services):
        ready = {n for n, s in services.items() if n not in done and set(s.get("depends_on", {})) <= done}
        if not report.check(ready, f"compose.yaml: {sorted(set(services) - done)} wait for each other"):
            return
        done |= ready


def passwords(report: Report) -> None:
    """`prepare` makes passwords that only their owner can reach, and keeps those that are there."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "prepare"
        copy.write_text((HERE / "prepare").read_text())
        copy.chmod(0o755)
        first, second = [], []
        for out in (first, second):
            answer = run(copy)
            report.check(answer.returncode == 0, f"prepare: {answer.stderr.strip()}")
            out.extend((path.name, path.read_text()) for path in sorted((Path(folder) / ".secrets").iterdir()))
        report.same(first, second, "prepare: made twice")
        report.same((Path(folder) / ".secrets").stat().st_mode & 0o777, 0o700, "prepare: who may look into .secrets")
        made = dict(first)
        report.check(len(made["postgres_password"]) == 48, "prepare: a short password")
        report.check(f":{made['postgres_password']}@postgres:" in made["postgres_url"], "prepare: URL without the password")
        report.check(made["grafana_password"] != made["postgres_password"], "prepare: one password for two")
    ignored = (HERE / ".gitignore").read_text().split()
    report.check("/.secrets/" in ignored, "deploy/compose/.gitignore: passwords could be committed")


def settings(report: Report, doc: dict) -> None:
    """The program takes its configuration, and what it names is there."""
    text = (HERE / "nightshift.toml").read_text()
    for secret in re.findall(r"/run/secrets/(\w+)", text):
        report.check(secret in doc["services"]["nightshift"]["secrets"], f"nightshift.toml: {secret} is not given to it")
    binary = nightshift()
    if not binary:
        report.skip("configuration of the compose project: no program is built (make build, or NIGHTSHIFT_BIN)")
        return
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "postgres_url").write_text("postgres://nightshift:x@postgres:5432/nightshift")
        file = Path(folder) / "nightshift.toml"
        file.write_text(text.replace("/run/secrets/", f"{folder}/"))
        answer = run(binary, "check", "--config", file)
        report.check(answer.returncode == 0, f"nightshift.toml: {answer.stderr.strip()}")


def own_metrics() -> set[str]:
    """Names under which our metrics are scraped, from the table that makes them."""
    table = (ROOT / "crates" / "health" / "src" / "metrics.rs").read_text()
    names = set()
    for kind, name in re.findall(r"^    \w+: (.+?) = .*, \"(\w+)\";$", table, re.M):
        endings = ["_total"] if "Counter" in kind else ["_bucket", "_sum", "_count"] if "Histogram" in kind else [""]
        names |= {f"nightshift_{name}{ending}" for ending in endings}
    return names


def graphs(report: Report) -> None:
    """Dashboard and alerts ask for metrics that there are, in words that Prometheus understands."""
    board = json.loads((HERE / "grafana" / "dashboards" / "nightshift.json").read_text())
    alerts = yaml.safe_load((HERE / "grafana" / "provisioning" / "alerting" / "nightshift.yaml").read_text())
    sources = yaml.safe_load((HERE / "grafana" / "provisioning" / "datasources" / "prometheus.yaml").read_text())
    provider = yaml.safe_load((HERE / "grafana" / "provisioning" / "dashboards" / "nightshift.yaml").read_text())
    uids = {source["uid"] for source in sources["datasources"]}
    mounts = [v.split(":")[1] for v in yaml.safe_load(filled((HERE / "compose.yaml").read_text()))["services"]["grafana"]["volumes"]]
    report.check(provider["providers"][0]["options"]["path"] in mounts, "grafana: the folder of dashboards is not mounted")
    asked = []
    taken: set[tuple[int, int]] = set()
    ids = [panel["id"] for panel in board["panels"]]
    report.same(len(ids), len(set(ids)), "dashboard: panels of one id")
    for panel in board["panels"]:
        grid = panel["gridPos"]
        cells = {(x, y) for x in range(grid["x"], grid["x"] + grid["w"]) for y in range(grid["y"], grid["y"] + grid["h"])}
        report.check(not cells & taken, f"dashboard: `{panel['title']}` lies over another")
        report.check(grid["x"] + grid["w"] <= 24, f"dashboard: `{panel['title']}` is too wide")
        taken |= cells
        for target in panel.get("targets", []):
            report.check(target["datasource"]["uid"] in uids, f"dashboard: `{panel['title']}` asks nobody")
            asked.append((panel["title"], target["expr"]))
    for group in alerts["groups"]:
        for rule in group["rules"]:
            refs = {data["refId"] for data in rule["data"]}
            report.check(rule["condition"] in refs, f"alert `{rule['title']}`: its condition is not there")
            for data in rule["data"]:
                known = data["datasourceUid"] in uids | {"__expr__"}
                report.check(known, f"alert `{rule['title']}` asks nobody")
                if "expr" in data["model"]:
                    asked.append((rule["title"], data["model"]["expr"]))
    points = {point["name"] for point in alerts["contactPoints"]}
    report.check({policy["receiver"] for policy in alerts["policies"]} <= points, "grafana: alerts go to nobody")
    have = own_metrics()
    report.check(len(have) > 10, "no names of metrics were read from crates/health/src/metrics.rs")
    used = set()
    for title, expr in asked:
        names = set(re.findall(r"\bnightshift_\w+", expr)) - {"nightshift"}
        report.check(names <= have, f"`{title}` asks for {sorted(names - have)}, which nobody makes")
        used |= names
    contract = {f"nightshift_{name}" for name in ("samples_scored_total", "series_live", "anomaly_score_bucket", "incidents_total")}
    contract |= {f"nightshift_{name}" for name in ("mttd_seconds_bucket", "mttr_seconds_bucket", "actions_total", "bus_lag")}
    contract |= {f"nightshift_{name}" for name in ("samples_received_total", "actions_blocked_total", "feedback_total")}
    contract |= {"nightshift_node_seconds_bucket"}
    report.check(contract <= used, f"dashboard: {sorted(contract - used)} are not shown")
    prometheus(report, asked)


def prometheus(report: Report, asked: list[tuple[str, str]]) -> None:
    promtool = tool("NIGHTSHIFT_TEST_PROMTOOL", "promtool")
    if not promtool:
        report.skip("questions of the dashboard: there is no promtool (Debian: prometheus)")
        return
    answer = run(promtool, "check", "config", HERE / "prometheus" / "prometheus.yml")
    report.check(answer.returncode == 0, f"prometheus.yml: {answer.stderr.strip()}")
    rules = []
    for number, (_, expr) in enumerate(asked):
        expr = expr.replace("$__rate_interval", "1m").replace("$__range", "1h").replace("$job", ".+")
        rules.append({"record": f"check:{number}", "expr": expr})
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        yaml.safe_dump({"groups": [{"name": "check", "rules": rules}]}, file)
        file.flush()
        answer = run(promtool, "check", "rules", file.name)
        report.check(answer.returncode == 0, f"questions of dashboard and alerts: {answer.stdout} {answer.stderr.strip()}")


def start(report: Report) -> None:
    """Checks the compose project."""
    doc = project(report)
    passwords(report)
    settings(report, doc)
    graphs(report)
    for target in ("compose-up", "compose-down", "compose-clean", "compose-logs", "compose-status"):
        there = re.search(rf"^{target}:.*##", (ROOT / "Makefile").read_text(), re.M)
        report.check(there, f"Makefile: there is no {target}")
    docker = tool("NIGHTSHIFT_TEST_DOCKER", "docker")
    if docker and run(docker, "compose", "version").returncode == 0:
        answer = run(docker, "compose", "-f", HERE / "compose.yaml", "config", "--quiet", env={"HOME": os.environ.get("HOME", "/")})
        report.check(answer.returncode == 0, f"docker compose config: {answer.stderr.strip()}")
    else:
        report.skip("`docker compose config`: there is no compose here")
