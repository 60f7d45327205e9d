"""Runs the backtests and their scorers; each function gives the values of rows of the table of targets by key.

A measurement is `{"values": [...], "command": text, "more": {...}}`; the values are in the order of the row's figures.
"""

import json
import os
import statistics
import sys
from pathlib import Path

from shell import Failed, first_core, run, text_of

METRIC_SETS = ("nab", "cloudmon")
RCA_SETS = ("rca-petshop", "rca-nezha")
LOG_LINES = 2_000_000


def missing(place):
    """What is not there, each with what it is needed for."""
    needed = [(place.data / s / part, f"the {s} set") for s in METRIC_SETS for part in ("series", "labels.json")]
    needed += [(place.data / s / part, f"the {s} set") for s in RCA_SETS for part in ("cases.jsonl", "truth.json")]
    needed.append((place.data / "loghub", "the log sets"))
    needed += [(place.score / f, "scoring") for f in ("nab_score.py", "rca_score.py", "logparse_score.py")]
    gone = [f"{path}: not there, needed for {why}" for path, why in needed if not path.exists()]
    if (place.data / "loghub").is_dir() and not log_files(place):
        gone.append(f"{place.data / 'loghub'}: has no NAME/NAME.content.log")
    return gone


def log_files(place):
    """Name and file of each log set."""
    found = ((d.name, d / f"{d.name}.content.log") for d in sorted((place.data / "loghub").iterdir()) if d.is_dir())
    return [(name, file) for name, file in found if file.exists()]


# --- metrics ----------------------------------------------------------------------------------------------------------

def nab_score(place, name, jsonl, *more, labels=None):
    """The scorer's answer for a metric set."""
    labels = labels or place.data / name / "labels.json"
    return json.loads(text_of([sys.executable, place.score / "nab_score.py", "--data", place.data / name / "series",
                               "--labels", labels, "--jsonl", jsonl, *more]))


def backtest_metrics(place, name, config=None, suffix=""):
    """Replays a metric set; gives the file of its scores, the command, and what it took."""
    out = place.out / f"{name}{suffix}.jsonl"
    args = [place.binary, "backtest", "metrics", "--series", place.data / name / "series"]
    if config is not None:
        args += ["--config", config]
    return out, place.show(args), run(args, out)


def metrics(place):
    """Both metric sets: own alarms and, for NAB, the best threshold. Keeps every category's figures."""
    rows = {}
    for name in METRIC_SETS:
        out, command, done = backtest_metrics(place, name)
        for mode in ("alert", "best"):
            score = nab_score(place, name, out, "--mode", mode, "--by-category")
            rows[f"{name}-{mode}"] = {
                "values": metric_values(name, mode, score),
                "command": f"{command} | nab_score.py --mode {mode}",
                "more": {"wall_s": done.wall, "score": score},
            }
    return rows


def metric_values(name, mode, score):
    """The figures of a row from the scorer's answer."""
    nab, operational = score["nab"], score["operational"]
    if mode == "best" and name == "nab":
        return [nab["standard"], nab["reward_low_FP_rate"], nab["reward_low_FN_rate"]]
    first = nab["standard"] if name == "nab" else operational["window_f1"]
    return [first, operational["fp_alarms_per_week"]]


# --- causes -----------------------------------------------------------------------------------------------------------

def rca_score(place, name, jsonl):
    return json.loads(text_of([sys.executable, place.score / "rca_score.py", "--truth",
                               place.data / name / "truth.json", "--jsonl", jsonl, "--by-group"]))


def backtest_rca(place, name, *flags):
    out = place.out / f"{name}{''.join(flags)}.jsonl"
    args = [place.binary, "backtest", "rca", "--cases", place.data / name / "cases.jsonl", *flags]
    return out, place.show(args), run(args, out)


def groups_of(score, prefix):
    """AC@1 and AC@3 over the groups of a system (`ob/…`), each case weighing the same; `None` without a case."""
    groups = [g for name, g in score["groups"].items() if name.startswith(prefix)]
    cases = sum(g["cases"] for g in groups)
    if not cases:
        return [None, None]
    return [sum(g[k] * g["cases"] for g in groups) / cases for k in ("AC@1", "AC@3")]


def causes(place):
    """Every set as it is and with each kind of input left out."""
    rows, elapsed, walls = {}, [], []
    variants = {"rca-petshop": [(), ("--no-graph",)],
                "rca-nezha": [(), ("--no-graph",), ("--no-logs",), ("--no-traces",), ("--no-logs", "--no-traces")]}
    left_out = {}
    for name, flags in ((n, f) for n, all_flags in variants.items() for f in all_flags):
        out, command, done = backtest_rca(place, name, *flags)
        score = rca_score(place, name, out)
        left_out[" ".join((name, *flags))] = score
        entry = {"command": f"{command} | rca_score.py --by-group", "more": {"wall_s": done.wall, "score": score}}
        service = [score["service"]["AC@1"], score["service"]["AC@3"]]
        if name == "rca-petshop":
            rows["petshop" if not flags else "petshop-no-graph"] = {"values": service, **entry}
        elif not flags:
            rows["nezha-ob"] = {"values": groups_of(score, "ob/"), **entry}
            rows["nezha-ts"] = {"values": groups_of(score, "ts/"), **entry}
        if not flags:
            with open(out, encoding="utf-8") as lines:
                times = [json.loads(line)["elapsed_ms"] for line in lines]
            elapsed += times
            walls.append(f"{name} {len(times)} cases in {done.wall:.2f} s")
    rows["rca-ms"] = {
        "values": [max(elapsed)],
        "command": "the same: elapsed_ms",
        "more": {"median_ms": statistics.median(elapsed), "longest_ms": max(elapsed), "walls": walls,
                 "left_out": left_out},
    }
    return rows


# --- logs and speed ---------------------------------------------------------------------------------------------------

def log_score(place, jsonl):
    return json.loads(text_of([sys.executable, place.score / "logparse_score.py", "--truth-dir",
                               place.data / "loghub", "--jsonl", jsonl]))


def logs(place):
    """Groups and texts of the log sets; the raw lines beside the messages where they are."""
    rows = {}
    for form in ("content", "raw"):
        files = log_files(place)
        if form == "raw":
            files = [(n, f.with_name(f"{n}_2k.log")) for n, f in files]
            if not all(f.exists() for _, f in files):
                continue
        args = [place.binary, "backtest", "logs"]
        for name, file in files:
            args += ["--input", f"{name}={file}"]
        if form == "raw":
            args += ["--format", "raw"]
        out = place.out / f"loghub-{form}.jsonl"
        done = run(args, out)
        score = log_score(place, out)
        average = score["average"]
        rows["logs" if form == "content" else "logs-raw"] = {
            "values": [average["GA"], average["FGA"], average["PA"]],
            "command": "nightshift backtest logs --input NAME=$DATA/loghub/NAME/NAME.content.log … | "
                       "logparse_score.py" if form == "content" else "the same with --format raw, NAME_2k.log",
            "more": {"wall_s": done.wall, "score": score},
        }
    return rows


def repeated(place, n_lines):
    """The log files repeated to about `n_lines` lines in all; gives (name, file) and the true number of lines."""
    files, total, out = log_files(place), 0, []
    folder = place.out / "repeated"
    folder.mkdir(parents=True, exist_ok=True)
    for name, file in files:
        text = file.read_bytes()
        text = text if text.endswith(b"\n") else text + b"\n"
        lines = text.count(b"\n")
        times = max(1, n_lines // len(files) // lines)
        with open(folder / f"{name}.log", "wb") as sink:
            for _ in range(times):
                sink.write(text)
        total += lines * times
        out.append((name, folder / f"{name}.log"))
    return out, total


def log_rate(place, n_lines=LOG_LINES, runs=3):
    """Lines a second of the whole process on one core, its output to nowhere; the best of some runs.

    Counted by the time that it had the core (user and system): neighbours on the machine do not count. Wall time is
    told beside it.
    """
    files, total = repeated(place, n_lines)
    args = [place.binary, "backtest", "logs"]
    for name, file in files:
        args += ["--input", f"{name}={file}"]
    done = [run(args, core=first_core()) for _ in range(runs)]
    best = min(d.cpu for d in done)
    return {"log-rate": {
        "values": [total / best],
        "command": f"taskset -c {first_core()} nightshift backtest logs --input NAME=FILE … > /dev/null "
                   f"({total:,} lines)",
        "more": {"lines": total, "wall_s": [d.wall for d in done], "cpu_s": [d.cpu for d in done],
                 "memory_bytes": max(d.memory_bytes for d in done)},
    }}


def sample_rate(place, series=100_000, rounds=600):
    """Samples a second of the detector on one core, after its warm-up: all layers, then the cheap ones alone."""
    rows = {}
    for key, more in (("samples-all", []), ("samples-cheap", ["0"])):
        args = ["taskset", "-c", first_core(), place.detect_load, series, rounds, *more]
        try:
            text = text_of(args)
        except Failed as e:
            rows[key] = {"values": [None], "command": place.show(args), "more": {"failed": str(e)}}
            continue
        rows[key] = {"values": [steady_rate(text)], "command": place.show(args), "more": {"printed": text}}
    return rows


def steady_rate(text):
    """The figure after warm-up from what `detect_load` prints, samples a second; of all rounds when there is none."""
    for begin in ("after warm-up", "all rounds"):
        for line in text.splitlines():
            if line.startswith(begin):
                return float(line[len(begin):].split()[0]) * 1e6
    return None


def machine():
    """Cores and how busy they were before anything was measured: times depend on it."""
    return {"cores": len(os.sched_getaffinity(0)), "load_average": os.getloadavg()[0]}


def commit(folder=Path(__file__).parent):
    """The commit that is measured, with a mark when files differ from it; `unknown` outside a clone."""
    try:
        name = text_of(["git", "-C", folder, "rev-parse", "--short", "HEAD"]).strip()
        changed = text_of(["git", "-C", folder, "status", "--porcelain", "--untracked-files=no"]).strip()
    except Failed:
        return "unknown"
    return name + ("+changes" if changed else "")
