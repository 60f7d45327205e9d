"""Others on the same data, in the same run, through the same scorers: one default configuration each.

Their packages come from the package index into a virtual environment below the output folder, in the versions that
are pinned here. One that cannot be installed or fails is told loudly, is in the table as such, and the others go on.
"""

import json
import sys
from dataclasses import dataclass
from pathlib import Path

from measure import METRIC_SETS, RCA_SETS, groups_of, log_score, metric_values, nab_score, rca_score, repeated
from shell import Failed, first_core, run

HERE = Path(__file__).resolve().parent
# Drain3 reads some 40,000 lines a second: a tenth of our lines is measured to a second.
LOG_LINES = 200_000


@dataclass(frozen=True)
class Peer:
    """One other: what it needs, and which program here runs it with which name."""

    name: str
    part: str
    method: str
    packages: tuple = ()


SKLEARN = ("numpy==2.4.6", "scikit-learn==1.9.1")
PEERS = (
    Peer("z-score of all before, 3 sigma", "metrics", "zscore"),
    Peer("rolling Gaussian, 1,000 rows", "metrics", "rolling-gaussian"),
    Peer("seasonal median + MAD (luminol-like)", "metrics", "seasonal-mad"),
    Peer("RobustScaler, 1,000 rows (scikit-learn)", "metrics", "robust-scaler", SKLEARN),
    Peer("IsolationForest, 1,000 rows, 8 lags (scikit-learn)", "metrics", "isolation-forest", SKLEARN),
    Peer("HalfSpaceTrees (river)", "metrics", "half-space-trees", ("river==0.26.1",)),
    Peer("largest z-score", "rca", "zscore"),
    Peer("BARO, robust scorer (fse-baro)", "rca", "baro", (*SKLEARN, "pandas==3.1.1", "fse-baro==0.2.2")),
    Peer("Drain3", "logs", "drain3", ("drain3==0.9.11",)),
    Peer("Drain3, numbers and addresses masked", "logs", "drain3-masked", ("drain3==0.9.11",)),
)


def python_of(place):
    return place.venv / "bin/python"


def install(place, packages):
    """Installs packages into the environment, which is made when it is not there. Raises `Failed`."""
    if not python_of(place).exists():
        run([sys.executable, "-m", "venv", place.venv])
    if packages:
        run([python_of(place), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *packages])


def measure(place, parts, tell, chosen=PEERS):
    """Rows of the table of peers; `parts` as on the command line."""
    rows = []
    for peer in (p for p in chosen if p.part in parts):
        tell(f"peer: {peer.name}")
        try:
            install(place, peer.packages)
            rows += MEASURES[peer.part](place, peer)
        except Failed as e:
            print(f"\n!!! PEER NOT MEASURED: {peer.name}: {e}\n", file=sys.stderr, flush=True)
            why = str(e).strip().splitlines()[-1][:160]
            rows.append(row(peer, "–", "–", f"NOT MEASURED: {why}", ""))
    return rows


def row(peer, name, figures, measured, command):
    return {"peer": peer.name, "set": name, "figures": figures, "measured": measured, "command": command}


def numbers(values):
    return " / ".join("–" if v is None else f"{v:.1f}" if abs(v) >= 10 else f"{v:.2f}" for v in values)


def metrics(place, peer):
    rows = []
    for name in METRIC_SETS:
        out = place.out / f"peer-{peer.method}-{name}.jsonl"
        args = [python_of(place), HERE / "detectors.py", peer.method, "--series", place.data / name / "series"]
        run(args, out)
        for mode in ("alert", "best"):
            score = nab_score(place, name, out, "--mode", mode)
            values = metric_values(name, mode, score)
            if len(values) == 3:
                values.append(score["operational"]["fp_alarms_per_week"])
                figures = "standard / low FP / low FN / false alarms a week"
            else:
                figures = ("standard" if name == "nab" else "window F1") + " / false alarms a week"
            rows.append(row(peer, f"{name}, {mode}", figures, numbers(values), place.show(args)))
    return rows


def causes(place, peer):
    rows = []
    for name in RCA_SETS:
        out = place.out / f"peer-{peer.method}-{name}.jsonl"
        args = [python_of(place), HERE / "rankers.py", peer.method, "--cases", place.data / name / "cases.jsonl"]
        run(args, out)
        score = rca_score(place, name, out)
        times = sorted(json.loads(line)["elapsed_ms"] for line in out.read_text().splitlines())
        values = [("top 1 / top 3", [score["service"]["AC@1"], score["service"]["AC@3"]])]
        if name == "rca-nezha":
            values = [(f"{system} AC@1 / AC@3", groups_of(score, prefix))
                      for system, prefix in (("OnlineBoutique", "ob/"), ("TrainTicket", "ts/"))]
        rows += [row(peer, name, figures, numbers(v), place.show(args)) for figures, v in values]
        rows.append(row(peer, name, "ms a case, median / longest", numbers([times[len(times) // 2], times[-1]]),
                        "the same"))
    return rows


def logs(place, peer):
    args = [python_of(place), HERE / "miners.py", peer.method]
    out = place.out / f"peer-{peer.method}-loghub.jsonl"
    files = [(d.name, d / f"{d.name}.content.log") for d in sorted((place.data / "loghub").iterdir()) if d.is_dir()]
    run(args + [f"{name}={file}" for name, file in files if file.exists()], out)
    average = log_score(place, out)["average"]
    shown = place.show(args) + " NAME=FILE …"
    rows = [row(peer, "loghub", "GA / FGA / PA / PA loose",
                numbers([average[k] for k in ("GA", "FGA", "PA", "PA_loose")]), shown)]
    many, total = repeated(place, LOG_LINES)
    done = run(args + [f"{name}={file}" for name, file in many], core=first_core())
    rows.append(row(peer, f"loghub, {total:,} lines", "lines/s of processor time, whole process", f"{total / done.cpu:,.0f}",
                    f"taskset -c {first_core()} {shown} > /dev/null"))
    return rows


MEASURES = {"metrics": metrics, "rca": causes, "logs": logs}
